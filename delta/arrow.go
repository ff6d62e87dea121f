package delta

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/compute"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// columnMapping tells how a table's columns are found in its files (PROTOCOL.md, "Column Mapping").
type columnMapping int

const (
	mapNone columnMapping = iota
	mapName
	mapID
)

func mappingOf(config map[string]string) columnMapping {
	switch strings.ToLower(config[propMappingMode]) {
	case "name":
		return mapName
	case "id":
		return mapID
	}
	return mapNone
}

// find gives the index among the fields of a file that holds a column, or -1 if the file has none.
func (m columnMapping) find(fields []arrow.Field, f Field) int {
	if m != mapNone && f.Metadata[byNameKey] != nil {
		m = mapName
	}
	if m == mapID {
		want, ok := fieldID(f)
		if !ok {
			return -1
		}
		for i := range fields {
			if id, ok := fields[i].Metadata.GetValue(parquetFieldID); ok && id == want {
				return i
			}
		}
		return -1
	}
	want := f.Name
	if m == mapName {
		want = f.PhysicalName()
	}
	for i := range fields {
		if fields[i].Name == want {
			return i
		}
	}
	// Writers need not spell names in files as the table does.
	for i := range fields {
		if strings.EqualFold(fields[i].Name, want) {
			return i
		}
	}
	return -1
}

func fieldID(f Field) (string, bool) {
	switch v := f.Metadata[metaColumnID].(type) {
	case nil:
		return "", false
	case float64:
		return strconv.FormatInt(int64(v), 10), true
	default:
		return fmt.Sprint(v), true
	}
}

// toType converts an array as a file (or a caller) has it into the Arrow type of a Delta type: the legal physical
// encodings of PROTOCOL.md, "Delta Data Type to Parquet Type Mappings", and the widenings of "Type Widening". Members
// of structs are matched by name and missing ones become null. The caller releases the result.
func (m columnMapping) toType(ctx context.Context, a arrow.Array, t Type) (arrow.Array, error) {
	want := ArrowType(t)
	if m == mapNone && arrow.TypeEqual(a.DataType(), want) {
		a.Retain()
		return a, nil
	}
	if d, ok := a.(*array.Dictionary); ok {
		plain, err := compute.CastArray(ctx, d, compute.SafeCastOptions(d.Dictionary().DataType()))
		if err != nil {
			return nil, err
		}
		defer plain.Release()
		return m.toType(ctx, plain, t)
	}
	if e, ok := a.(array.ExtensionArray); ok {
		return m.toType(ctx, e.Storage(), t)
	}
	if a.DataType().ID() == arrow.NULL {
		return array.MakeArrayOfNull(memory.DefaultAllocator, want, a.Len()), nil
	}
	bad := fmt.Errorf("%w: %s cannot be read as %s", ErrSchemaMismatch, a.DataType(), t)
	switch t := t.(type) {
	case *Struct:
		s, ok := a.(*array.Struct)
		if !ok {
			return nil, bad
		}
		return m.toStruct(ctx, s.Data(), t.Fields, want)
	case *Array:
		switch a.(type) {
		case *array.List, *array.FixedSizeList, *array.LargeList:
		default:
			return nil, bad
		}
		if _, ok := a.(*array.List); !ok {
			cast, err := compute.CastArray(ctx, a, compute.SafeCastOptions(arrow.ListOf(a.DataType().(arrow.ListLikeType).Elem())))
			if err != nil {
				return nil, fmt.Errorf("%w: %w", bad, err)
			}
			defer cast.Release()
			a = cast
		}
		child, err := m.toType(ctx, a.(*array.List).ListValues(), t.Element)
		if err != nil {
			return nil, err
		}
		defer child.Release()
		d := a.Data()
		out := array.NewData(want, d.Len(), d.Buffers(), []arrow.ArrayData{child.Data()}, d.NullN(), d.Offset())
		defer out.Release()
		return array.MakeFromData(out), nil
	case *Map:
		mp, ok := a.(*array.Map)
		if !ok {
			return nil, bad
		}
		entries := mp.Data().Children()[0]
		if len(entries.Children()) != 2 {
			return nil, bad
		}
		kv := make([]arrow.ArrayData, 2)
		for i, et := range []Type{t.Key, t.Value} {
			raw := array.MakeFromData(entries.Children()[i])
			c, err := m.toType(ctx, raw, et)
			raw.Release()
			if err != nil {
				return nil, err
			}
			defer c.Release()
			kv[i] = c.Data()
		}
		st := want.(*arrow.MapType).Elem()
		ed := array.NewData(st, entries.Len(), entries.Buffers(), kv, entries.NullN(), entries.Offset())
		defer ed.Release()
		d := mp.Data()
		out := array.NewData(want, d.Len(), d.Buffers(), []arrow.ArrayData{ed}, d.NullN(), d.Offset())
		defer out.Release()
		return array.MakeFromData(out), nil
	}
	if t == Variant {
		s, ok := a.(*array.Struct)
		if !ok {
			return nil, bad
		}
		return toVariant(ctx, s, want)
	}
	if arrow.TypeEqual(a.DataType(), want) {
		a.Retain()
		return a, nil
	}
	switch w := want.(type) {
	case *arrow.StringType, *arrow.BinaryType:
		switch a.(type) {
		case *array.String, *array.Binary:
			d := a.Data()
			out := array.NewData(want, d.Len(), d.Buffers(), nil, d.NullN(), d.Offset())
			defer out.Release()
			return array.MakeFromData(out), nil
		case *array.LargeString, *array.LargeBinary, *array.StringView, *array.BinaryView, *array.FixedSizeBinary:
			return viaBytes(a, want)
		}
		return nil, bad
	case *arrow.TimestampType:
		return toMicros(a, w, bad)
	case *arrow.Date32Type:
		if a.DataType().ID() == arrow.INT32 {
			d := a.Data()
			out := array.NewData(want, d.Len(), d.Buffers(), nil, d.NullN(), d.Offset())
			defer out.Release()
			return array.MakeFromData(out), nil
		}
		if a.DataType().ID() != arrow.DATE64 {
			return nil, bad
		}
	case *arrow.Decimal128Type:
		return toDecimal(a, w, bad)
	case *arrow.BooleanType:
		return nil, bad
	case *arrow.Int64Type, *arrow.Int32Type, *arrow.Int16Type, *arrow.Int8Type:
		if !arrow.IsInteger(a.DataType().ID()) {
			return nil, bad
		}
	case *arrow.Float64Type, *arrow.Float32Type:
		if !arrow.IsInteger(a.DataType().ID()) && !arrow.IsFloating(a.DataType().ID()) {
			return nil, bad
		}
	}
	out, err := compute.CastArray(ctx, a, compute.SafeCastOptions(want))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", bad, err)
	}
	return out, nil
}

func (m columnMapping) toStruct(ctx context.Context, d arrow.ArrayData, fields []Field, want arrow.DataType) (arrow.Array, error) {
	have := d.DataType().(*arrow.StructType).Fields()
	children := make([]arrow.ArrayData, len(fields))
	for i, f := range fields {
		var c arrow.Array
		if j := m.find(have, f); j >= 0 {
			raw := array.MakeFromData(d.Children()[j])
			conv, err := m.toType(ctx, raw, f.Type)
			raw.Release()
			if err != nil {
				return nil, fmt.Errorf("field %s: %w", f.Name, err)
			}
			c = conv
		} else {
			c = array.MakeArrayOfNull(memory.DefaultAllocator, ArrowType(f.Type), d.Offset()+d.Len())
		}
		defer c.Release()
		children[i] = c.Data()
	}
	out := array.NewData(want, d.Len(), d.Buffers(), children, d.NullN(), d.Offset())
	defer out.Release()
	return array.MakeFromData(out), nil
}

func viaBytes(a arrow.Array, want arrow.DataType) (arrow.Array, error) {
	b := array.NewBuilder(memory.DefaultAllocator, want).(interface {
		array.Builder
		AppendNull()
	})
	defer b.Release()
	for i := range a.Len() {
		if a.IsNull(i) {
			b.AppendNull()
			continue
		}
		var v string
		switch a := a.(type) {
		case *array.LargeString:
			v = a.Value(i)
		case *array.StringView:
			v = a.Value(i)
		case *array.LargeBinary:
			v = string(a.Value(i))
		case *array.BinaryView:
			v = string(a.Value(i))
		case *array.FixedSizeBinary:
			v = string(a.Value(i))
		}
		switch b := b.(type) {
		case *array.StringBuilder:
			b.Append(v)
		case *array.BinaryBuilder:
			b.AppendString(v)
		}
	}
	return b.NewArray(), nil
}

// toMicros converts to timestamp[us]; finer fractions are cut towards the past, as Spark reads them.
func toMicros(a arrow.Array, want *arrow.TimestampType, bad error) (arrow.Array, error) {
	var at func(i int) (int64, bool)
	switch a := a.(type) {
	case *array.Timestamp:
		switch a.DataType().(*arrow.TimestampType).Unit {
		case arrow.Microsecond:
			d := a.Data()
			out := array.NewData(want, d.Len(), d.Buffers(), nil, d.NullN(), d.Offset())
			defer out.Release()
			return array.MakeFromData(out), nil
		case arrow.Nanosecond:
			at = func(i int) (int64, bool) { return floorDiv(int64(a.Value(i)), 1000), true }
		case arrow.Millisecond:
			at = func(i int) (int64, bool) { return mul(int64(a.Value(i)), 1000) }
		case arrow.Second:
			at = func(i int) (int64, bool) { return mul(int64(a.Value(i)), 1_000_000) }
		}
	case *array.Int64:
		at = func(i int) (int64, bool) { return a.Value(i), true }
	case *array.Date32:
		if want.TimeZone != "" {
			return nil, bad
		}
		at = func(i int) (int64, bool) { return int64(a.Value(i)) * 86_400_000_000, true }
	default:
		return nil, bad
	}
	b := array.NewTimestampBuilder(memory.DefaultAllocator, want)
	defer b.Release()
	b.Reserve(a.Len())
	for i := range a.Len() {
		if a.IsNull(i) {
			b.UnsafeAppendBoolToBitmap(false)
			continue
		}
		v, ok := at(i)
		if !ok {
			return nil, fmt.Errorf("%w: out of range", bad)
		}
		b.UnsafeAppend(arrow.Timestamp(v))
	}
	return b.NewArray(), nil
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

func mul(a, b int64) (int64, bool) {
	if a > math.MaxInt64/b || a < math.MinInt64/b {
		return 0, false
	}
	return a * b, true
}

// toDecimal widens integers and decimals of fewer digits; it never drops a digit.
func toDecimal(a arrow.Array, want *arrow.Decimal128Type, bad error) (arrow.Array, error) {
	scale := int32(0)
	var at func(i int) (decimal128.Num, bool)
	switch a := a.(type) {
	case *array.Decimal128:
		scale = a.DataType().(*arrow.Decimal128Type).Scale
		at = func(i int) (decimal128.Num, bool) { return a.Value(i), true }
	case *array.Decimal256:
		scale = a.DataType().(*arrow.Decimal256Type).Scale
		at = func(i int) (decimal128.Num, bool) {
			v := a.Value(i).BigInt()
			if v.BitLen() > 127 {
				return decimal128.Num{}, false
			}
			return decimal128.FromBigInt(v), true
		}
	case *array.Int64:
		at = func(i int) (decimal128.Num, bool) { return decimal128.FromI64(a.Value(i)), true }
	case *array.Int32:
		at = func(i int) (decimal128.Num, bool) { return decimal128.FromI64(int64(a.Value(i))), true }
	case *array.Int16:
		at = func(i int) (decimal128.Num, bool) { return decimal128.FromI64(int64(a.Value(i))), true }
	case *array.Int8:
		at = func(i int) (decimal128.Num, bool) { return decimal128.FromI64(int64(a.Value(i))), true }
	default:
		return nil, bad
	}
	b := array.NewDecimal128Builder(memory.DefaultAllocator, want)
	defer b.Release()
	b.Reserve(a.Len())
	for i := range a.Len() {
		if a.IsNull(i) {
			b.AppendNull()
			continue
		}
		v, ok := at(i)
		if ok && scale != want.Scale {
			r, err := v.Rescale(scale, want.Scale)
			ok, v = err == nil, r
		}
		if !ok || !v.FitsInPrecision(want.Precision) {
			return nil, fmt.Errorf("%w: out of range", bad)
		}
		b.Append(v)
	}
	return b.NewArray(), nil
}

// constant is an array of n equal values, in the Go types of ParsePartitionValue.
func constant(t Type, v any, n int) (arrow.Array, error) {
	want := ArrowType(t)
	if v == nil {
		return array.MakeArrayOfNull(memory.DefaultAllocator, want, n), nil
	}
	bld := array.NewBuilder(memory.DefaultAllocator, want)
	defer bld.Release()
	bld.Reserve(n)
	bad := fmt.Errorf("%w: value %v is no %s", ErrCorrupt, v, t)
	for range n {
		switch b := bld.(type) {
		case *array.StringBuilder:
			s, ok := v.(string)
			if !ok {
				return nil, bad
			}
			b.Append(s)
		case *array.BinaryBuilder:
			s, ok := v.([]byte)
			if !ok {
				return nil, bad
			}
			b.Append(s)
		case *array.BooleanBuilder:
			s, ok := v.(bool)
			if !ok {
				return nil, bad
			}
			b.Append(s)
		case *array.Int64Builder, *array.Int32Builder, *array.Int16Builder, *array.Int8Builder:
			s, ok := v.(int64)
			if !ok {
				return nil, bad
			}
			switch b := b.(type) {
			case *array.Int64Builder:
				b.Append(s)
			case *array.Int32Builder:
				if s != int64(int32(s)) {
					return nil, bad
				}
				b.Append(int32(s))
			case *array.Int16Builder:
				if s != int64(int16(s)) {
					return nil, bad
				}
				b.Append(int16(s))
			case *array.Int8Builder:
				if s != int64(int8(s)) {
					return nil, bad
				}
				b.Append(int8(s))
			}
		case *array.Float64Builder:
			s, ok := v.(float64)
			if !ok {
				return nil, bad
			}
			b.Append(s)
		case *array.Float32Builder:
			s, ok := v.(float64)
			if !ok {
				return nil, bad
			}
			b.Append(float32(s))
		case *array.Date32Builder:
			s, ok := v.(Days)
			if !ok {
				return nil, bad
			}
			b.Append(arrow.Date32(s))
		case *array.TimestampBuilder:
			s, ok := v.(time.Time)
			if !ok {
				return nil, bad
			}
			b.Append(arrow.Timestamp(s.UnixMicro()))
		case *array.Decimal128Builder:
			s, ok := v.(Number)
			if !ok {
				return nil, bad
			}
			w := want.(*arrow.Decimal128Type)
			d, err := decimal128.FromString(string(s), w.Precision, w.Scale)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", bad, err)
			}
			b.Append(d)
		default:
			return nil, bad
		}
	}
	return bld.NewArray(), nil
}

// goValue is one element in the Go types of ParsePartitionValue; ok is false for types that cannot be partition values. The
// value outlives the array, whose memory may belong to an engine that takes it back.
func goValue(a arrow.Array, i int) (v any, ok bool) {
	if a.IsNull(i) {
		return nil, true
	}
	switch a := a.(type) {
	case *array.String:
		return strings.Clone(a.Value(i)), true
	case *array.Binary:
		return bytes.Clone(a.Value(i)), true
	case *array.Boolean:
		return a.Value(i), true
	case *array.Int64:
		return a.Value(i), true
	case *array.Int32:
		return int64(a.Value(i)), true
	case *array.Int16:
		return int64(a.Value(i)), true
	case *array.Int8:
		return int64(a.Value(i)), true
	case *array.Float64:
		return a.Value(i), true
	case *array.Float32:
		return float64(a.Value(i)), true
	case *array.Date32:
		return Days(a.Value(i)), true
	case *array.Timestamp:
		return time.UnixMicro(int64(a.Value(i))).UTC(), true
	case *array.Decimal128:
		return Number(a.Value(i).ToString(a.DataType().(*arrow.Decimal128Type).Scale)), true
	}
	return nil, false
}
