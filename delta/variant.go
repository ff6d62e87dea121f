package delta

import (
	"context"
	"encoding/base64"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/variant"
	"github.com/google/uuid"
)

// VariantJSON gives the JSON text of a variant, whose metadata and value are encoded as PROTOCOL.md, "Variant Type",
// and Parquet's variant encoding say. Members of objects come in the order of the encoding (by name). Dates and
// timestamps are strings as Spark writes them, binary is base64. ErrCorruptFile for bytes that are no variant.
func VariantJSON(metadata, value []byte) (text string, err error) {
	defer func() {
		// The decoder trusts lengths in places; foreign bytes must not end the process.
		if r := recover(); r != nil {
			text, err = "", fmt.Errorf("%w: variant: %v", ErrCorruptFile, r)
		}
	}()
	v, err := variant.New(metadata, value)
	if err != nil {
		return "", fmt.Errorf("%w: variant: %w", ErrCorruptFile, err)
	}
	b, err := appendVariantJSON(nil, v, 0)
	if err != nil {
		return "", err
	}
	return string(b), nil
}

func appendVariantJSON(dst []byte, v variant.Value, depth int) ([]byte, error) {
	if depth > nestingMax*5 {
		return dst, fmt.Errorf("%w: variant: nested too deep", ErrCorruptFile)
	}
	text := func(s string) ([]byte, error) {
		b, err := marshal(s)
		return append(dst, b...), err
	}
	switch x := v.Value().(type) {
	case nil:
		return append(dst, "null"...), nil
	case bool:
		return strconv.AppendBool(dst, x), nil
	case int8:
		return strconv.AppendInt(dst, int64(x), 10), nil
	case int16:
		return strconv.AppendInt(dst, int64(x), 10), nil
	case int32:
		return strconv.AppendInt(dst, int64(x), 10), nil
	case int64:
		return strconv.AppendInt(dst, x, 10), nil
	case float32:
		return appendVariantFloat(dst, float64(x), 32), nil
	case float64:
		return appendVariantFloat(dst, x, 64), nil
	case string:
		return text(x)
	case []byte:
		return text(base64.StdEncoding.EncodeToString(x))
	case uuid.UUID:
		return text(x.String())
	case arrow.Date32:
		return text(x.ToTime().Format("2006-01-02"))
	case arrow.Time64:
		return text(x.ToTime(arrow.Microsecond).UTC().Format("15:04:05.999999"))
	case arrow.Timestamp:
		unit, layout := arrow.Microsecond, "2006-01-02 15:04:05.999999"
		switch v.Type() {
		case variant.TimestampNanos, variant.TimestampNanosNTZ:
			unit, layout = arrow.Nanosecond, "2006-01-02 15:04:05.999999999"
		}
		switch v.Type() {
		case variant.TimestampMicros, variant.TimestampNanos:
			layout += "+00:00"
		}
		return text(x.ToTime(unit).UTC().Format(layout))
	case variant.DecimalValue[decimal.Decimal32]:
		return append(dst, variantDecimal(decimal128.FromI64(int64(x.Value.(decimal.Decimal32))), x.Scale)...), nil
	case variant.DecimalValue[decimal.Decimal64]:
		return append(dst, variantDecimal(decimal128.FromI64(int64(x.Value.(decimal.Decimal64))), x.Scale)...), nil
	case variant.DecimalValue[decimal.Decimal128]:
		return append(dst, variantDecimal(decimal128.Num(x.Value.(decimal.Decimal128)), x.Scale)...), nil
	case variant.ArrayValue:
		dst = append(dst, '[')
		for i := range x.Len() {
			if i > 0 {
				dst = append(dst, ',')
			}
			e, err := x.Value(i)
			if err != nil {
				return dst, fmt.Errorf("%w: variant: %w", ErrCorruptFile, err)
			}
			if dst, err = appendVariantJSON(dst, e, depth+1); err != nil {
				return dst, err
			}
		}
		return append(dst, ']'), nil
	case variant.ObjectValue:
		dst = append(dst, '{')
		for i := range x.NumElements() {
			if i > 0 {
				dst = append(dst, ',')
			}
			f, err := x.FieldAt(i)
			if err != nil {
				return dst, fmt.Errorf("%w: variant: %w", ErrCorruptFile, err)
			}
			k, err := marshal(f.Key)
			if err != nil {
				return dst, err
			}
			dst = append(append(dst, k...), ':')
			if dst, err = appendVariantJSON(dst, f.Value, depth+1); err != nil {
				return dst, err
			}
		}
		return append(dst, '}'), nil
	}
	return dst, fmt.Errorf("%w: variant of an unknown type", ErrCorruptFile)
}

// variantDecimal spells a decimal without the zeros behind its last digit, as Spark does.
func variantDecimal(v decimal128.Num, scale uint8) string {
	s := v.ToString(int32(scale))
	if strings.Contains(s, ".") {
		s = strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
	}
	return s
}

func appendVariantFloat(dst []byte, f float64, bits int) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return append(dst, `"`+formatFloat(f, bits)+`"`...)
	}
	s := strconv.FormatFloat(f, 'f', -1, bits)
	if abs := math.Abs(f); abs != 0 && (abs < 1e-3 || abs >= 1e7) {
		s = strconv.FormatFloat(f, 'E', -1, bits)
		m, e, _ := strings.Cut(s, "E")
		if !strings.Contains(m, ".") {
			m += ".0"
		}
		n, _ := strconv.Atoi(e)
		return append(dst, m+"E"+strconv.Itoa(n)...)
	}
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return append(dst, s...)
}

// toVariant gives a column of variants the struct of the protocol, metadata and value, whatever the order of its
// members in the file. A shredded one (Parquet's variant shredding, table feature variantShredding) is put together
// again. The caller releases the result.
func toVariant(ctx context.Context, s *array.Struct, want arrow.DataType) (_ arrow.Array, err error) {
	st := s.DataType().(*arrow.StructType)
	if _, shredded := st.FieldIdx("typed_value"); !shredded {
		return mapNone.toStruct(ctx, s.Data(), []Field{{Name: "metadata", Type: Binary}, {Name: "value", Type: Binary, Nullable: true}}, want)
	}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: shredded variant: %v", ErrCorruptFile, r)
		}
	}()
	// Writers mark members as optional or required each in their own way; the library insists on one.
	storage := shreddedGroup(st)
	vt, err := extensions.NewVariantType(storage)
	if err != nil {
		return nil, &UnsupportedError{What: "variant shredding", Names: []string{st.String()}}
	}
	data := retyped(s.Data(), storage)
	defer data.Release()
	arr := array.MakeFromData(data)
	defer arr.Release()
	ext, ok := array.NewExtensionArrayWithStorage(vt, arr).(*extensions.VariantArray)
	if !ok {
		return nil, fmt.Errorf("%w: shredded variant", ErrCorruptFile)
	}
	defer ext.Release()
	b := array.NewBuilder(memory.DefaultAllocator, want).(*array.StructBuilder)
	defer b.Release()
	meta, value := b.FieldBuilder(0).(*array.BinaryBuilder), b.FieldBuilder(1).(*array.BinaryBuilder)
	for i := range s.Len() {
		if s.IsNull(i) {
			b.AppendNull()
			continue
		}
		v, err := ext.Value(i)
		if err != nil {
			return nil, fmt.Errorf("%w: shredded variant: %w", ErrCorruptFile, err)
		}
		b.Append(true)
		meta.Append(v.Metadata().Bytes())
		value.Append(v.Bytes())
	}
	return b.NewArray(), nil
}

// shreddedGroup is the type of a group of a shredded variant (metadata at the top, value, typed_value) with the nullability
// that Parquet's specification gives its members. Members of objects may themselves be called value or metadata, so that
// what a struct is follows from where it stands.
func shreddedGroup(t arrow.DataType) arrow.DataType {
	st, ok := t.(*arrow.StructType)
	if !ok {
		return t
	}
	fields := make([]arrow.Field, st.NumFields())
	for i, f := range st.Fields() {
		f.Nullable = f.Name != "metadata"
		f.Metadata = arrow.Metadata{}
		if f.Name == "typed_value" {
			f.Type = shreddedTyped(f.Type)
		}
		fields[i] = f
	}
	return arrow.StructOf(fields...)
}

// shreddedTyped is the type of a typed_value: an object or list of groups, all required, or a plain type.
func shreddedTyped(t arrow.DataType) arrow.DataType {
	switch t := t.(type) {
	case *arrow.StructType:
		fields := make([]arrow.Field, t.NumFields())
		for i, f := range t.Fields() {
			fields[i] = arrow.Field{Name: f.Name, Type: shreddedGroup(f.Type)}
		}
		return arrow.StructOf(fields...)
	case *arrow.ListType:
		f := t.ElemField()
		f.Type = shreddedGroup(f.Type)
		f.Nullable = false
		return arrow.ListOfField(f)
	}
	return t
}

// retyped is the same data under a type of the same layout. The caller releases it.
func retyped(d arrow.ArrayData, t arrow.DataType) arrow.ArrayData {
	var children []arrow.ArrayData
	switch t := t.(type) {
	case *arrow.StructType:
		for i, c := range d.Children() {
			children = append(children, retyped(c, t.Field(i).Type))
		}
	case *arrow.ListType:
		children = append(children, retyped(d.Children()[0], t.Elem()))
	case *arrow.MapType:
		children = append(children, retyped(d.Children()[0], t.Elem()))
	}
	out := array.NewData(t, d.Len(), d.Buffers(), children, d.NullN(), d.Offset())
	for _, c := range children {
		c.Release()
	}
	return out
}
