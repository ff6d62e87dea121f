package delta

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
)

// Checkpoints may have statistics and partition values in columns of the table's types (PROTOCOL.md, "Checkpoints"):
// add.stats_parsed and add.partitionValues_parsed. Names are physical.

// statsStruct is the type of add.stats_parsed; nil if no column can have statistics. Minima and maxima are kept of the types
// that can be compared, null counts of all.
func (s *Snapshot) statsStruct() arrow.DataType {
	var data []Field
	for _, f := range s.schema.Fields {
		if !slices.Contains(s.metadata.PartitionColumns, f.Name) {
			data = append(data, f)
		}
	}
	fields := []arrow.Field{{Name: "numRecords", Type: arrow.PrimitiveTypes.Int64, Nullable: true}}
	bounds := s.leafStruct(data, func(t Type) arrow.DataType {
		if _, ok := t.(Decimal); ok {
			return ArrowType(t)
		}
		switch t {
		case Byte, Short, Integer, Long, Float, Double, Date, Timestamp, TimestampNTZ, String:
			return ArrowType(t)
		}
		return nil
	})
	counts := s.leafStruct(data, func(t Type) arrow.DataType {
		if t == Void {
			return nil
		}
		return arrow.PrimitiveTypes.Int64
	})
	if bounds != nil {
		fields = append(fields, arrow.Field{Name: "minValues", Type: bounds, Nullable: true}, arrow.Field{Name: "maxValues", Type: bounds, Nullable: true})
	}
	if counts != nil {
		fields = append(fields, arrow.Field{Name: "nullCount", Type: counts, Nullable: true})
	}
	fields = append(fields, arrow.Field{Name: "tightBounds", Type: arrow.FixedWidthTypes.Boolean, Nullable: true})
	return arrow.StructOf(fields...)
}

// leafStruct has a member for each column whose type leaf gives one, nested as the columns are; nil if there are none.
func (s *Snapshot) leafStruct(fields []Field, leaf func(Type) arrow.DataType) arrow.DataType {
	var out []arrow.Field
	for _, f := range fields {
		var t arrow.DataType
		if st, ok := f.Type.(*Struct); ok {
			t = s.leafStruct(st.Fields, leaf)
		} else {
			t = leaf(f.Type)
		}
		if t != nil {
			out = append(out, arrow.Field{Name: s.physical(f), Type: t, Nullable: true})
		}
	}
	if out == nil {
		return nil
	}
	return arrow.StructOf(out...)
}

// appendParsedStats appends statistics as a struct; what cannot be read is null, which is to say unknown.
func appendParsedStats(b *array.StructBuilder, stats string) {
	var m map[string]any
	dec := json.NewDecoder(strings.NewReader(stats))
	dec.UseNumber()
	if stats == "" || dec.Decode(&m) != nil {
		b.AppendNull()
		return
	}
	appendParsed(b, m)
}

func appendParsed(b *array.StructBuilder, m map[string]any) {
	b.Append(true)
	for i, f := range b.Type().(*arrow.StructType).Fields() {
		v, fb := m[f.Name], b.FieldBuilder(i)
		if sub, ok := fb.(*array.StructBuilder); ok {
			if vm, ok := v.(map[string]any); ok {
				appendParsed(sub, vm)
			} else {
				sub.AppendNull()
			}
			continue
		}
		if v == nil || !appendJSONValue(fb, v) {
			fb.AppendNull()
		}
	}
}

// appendJSONValue appends a value as statistics have it in JSON, and says whether it could.
func appendJSONValue(b array.Builder, v any) bool {
	if n, ok := v.(json.Number); ok {
		return appendNumber(b, n)
	}
	switch b := b.(type) {
	case *array.BooleanBuilder:
		x, ok := v.(bool)
		if ok {
			b.Append(x)
		}
		return ok
	case *array.StringBuilder:
		x, ok := v.(string)
		if ok {
			b.Append(x)
		}
		return ok
	case *array.Date32Builder, *array.TimestampBuilder:
		x, ok := v.(string)
		return ok && appendTime(b, x)
	}
	return false
}

func appendNumber(b array.Builder, n json.Number) bool {
	whole := func(bits int) (int64, bool) {
		i, ok := wholeNumber(n)
		return i, ok && (bits == 64 || i >= -1<<(bits-1) && i < 1<<(bits-1))
	}
	switch b := b.(type) {
	case *array.Int64Builder:
		i, ok := whole(64)
		if ok {
			b.Append(i)
		}
		return ok
	case *array.Int32Builder:
		i, ok := whole(32)
		if ok {
			b.Append(int32(i))
		}
		return ok
	case *array.Int16Builder:
		i, ok := whole(16)
		if ok {
			b.Append(int16(i))
		}
		return ok
	case *array.Int8Builder:
		i, ok := whole(8)
		if ok {
			b.Append(int8(i))
		}
		return ok
	case *array.Float32Builder:
		f, err := strconv.ParseFloat(n.String(), 32)
		if err == nil {
			b.Append(float32(f))
		}
		return err == nil
	case *array.Float64Builder:
		f, err := n.Float64()
		if err == nil {
			b.Append(f)
		}
		return err == nil
	case *array.Decimal128Builder:
		t := b.Type().(*arrow.Decimal128Type)
		r, ok := parseRat(n.String())
		if !ok {
			return false
		}
		d, err := decimal128.FromString(r.FloatString(int(t.Scale)), t.Precision, t.Scale)
		if err == nil {
			b.Append(d)
		}
		return err == nil
	}
	return false
}

// appendTime appends a date or timestamp in any form that partition values and statistics have.
func appendTime(b array.Builder, text string) bool {
	typ := Type(Timestamp)
	switch b := b.(type) {
	case *array.Date32Builder:
		typ = Date
	case *array.TimestampBuilder:
		if b.Type().(*arrow.TimestampType).TimeZone == "" {
			typ = TimestampNTZ
		}
	}
	v, err := ParsePartitionValue(typ, &text)
	return err == nil && v != nil && appendConstant(b, typ, v)
}

// appendConstant appends a value as ParsePartitionValue gives it.
func appendConstant(b array.Builder, t Type, v any) bool {
	a, err := constant(t, v, 1)
	if err != nil {
		return false
	}
	defer a.Release()
	switch a := a.(type) {
	case *array.Date32:
		b.(*array.Date32Builder).Append(a.Value(0))
	case *array.Timestamp:
		b.(*array.TimestampBuilder).Append(a.Value(0))
	case *array.Decimal128:
		b.(*array.Decimal128Builder).Append(a.Value(0))
	case *array.String:
		b.(*array.StringBuilder).Append(a.Value(0))
	case *array.Binary:
		b.(*array.BinaryBuilder).Append(a.Value(0))
	case *array.Boolean:
		b.(*array.BooleanBuilder).Append(a.Value(0))
	case *array.Int64:
		b.(*array.Int64Builder).Append(a.Value(0))
	case *array.Int32:
		b.(*array.Int32Builder).Append(a.Value(0))
	case *array.Int16:
		b.(*array.Int16Builder).Append(a.Value(0))
	case *array.Int8:
		b.(*array.Int8Builder).Append(a.Value(0))
	case *array.Float64:
		b.(*array.Float64Builder).Append(a.Value(0))
	case *array.Float32:
		b.(*array.Float32Builder).Append(a.Value(0))
	default:
		return false
	}
	return true
}

// partitionStruct is add.partitionValues_parsed.
type partitionStruct struct {
	typ    arrow.DataType
	fields []Field
	names  []string // physical
}

// partitionStruct is nil for a table without partitions.
func (s *Snapshot) partitionStruct() *partitionStruct {
	if len(s.metadata.PartitionColumns) == 0 {
		return nil
	}
	p := &partitionStruct{}
	var out []arrow.Field
	for _, c := range s.metadata.PartitionColumns {
		f, _ := s.schema.Field(c)
		p.fields, p.names = append(p.fields, f), append(p.names, s.physical(f))
		out = append(out, arrow.Field{Name: s.physical(f), Type: ArrowType(f.Type), Nullable: true})
	}
	p.typ = arrow.StructOf(out...)
	return p
}

func (p *partitionStruct) append(b *array.StructBuilder, values map[string]*string) {
	b.Append(true)
	for i, f := range p.fields {
		fb := b.FieldBuilder(i)
		v, err := ParsePartitionValue(f.Type, values[p.names[i]])
		if err != nil || v == nil || !appendConstant(fb, f.Type, v) {
			fb.AppendNull()
		}
	}
}
