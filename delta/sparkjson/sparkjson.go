// Package sparkjson writes rows of Delta tables as JSON, one object a row, in the form of Spark's to_json with null
// fields kept: the form in which `cauce table scan` prints rows and in which the golden tables' expected rows stand.
// Keys come in the order of the schema. Timestamps have six digits of fraction, those with a zone are in UTC with a Z;
// binary is base64; NaN and the infinities are strings; floating-point numbers are spelt as Java spells them; a
// variant is the JSON value that it holds.
package sparkjson

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"

	"github.com/cauce-data/cauce/delta"
)

// ErrValue says that an array does not hold values of the Delta type that it should.
var ErrValue = errors.New("value cannot be written as JSON")

// AppendRow appends row i of a batch as one JSON object, without a line end. The batch's columns are those of fields,
// in the same order.
func AppendRow(dst []byte, fields []delta.Field, rec arrow.RecordBatch, i int) ([]byte, error) {
	if int(rec.NumCols()) != len(fields) {
		return dst, fmt.Errorf("%w: %d columns for %d fields", ErrValue, rec.NumCols(), len(fields))
	}
	dst = append(dst, '{')
	var err error
	for k, f := range fields {
		if k > 0 {
			dst = append(dst, ',')
		}
		dst = append(AppendString(dst, f.Name), ':')
		if dst, err = AppendValue(dst, f.Type, rec.Column(k), i); err != nil {
			return dst, fmt.Errorf("column %s: %w", f.Name, err)
		}
	}
	return append(dst, '}'), nil
}

// AppendValue appends one value of a Delta type. A variant may come as the struct of the protocol or as text that is
// JSON already.
func AppendValue(dst []byte, t delta.Type, a arrow.Array, i int) ([]byte, error) {
	if a.IsNull(i) || t == delta.Void {
		return append(dst, "null"...), nil
	}
	if d, ok := a.(*array.Dictionary); ok {
		return AppendValue(dst, t, d.Dictionary(), d.GetValueIndex(i))
	}
	if t == delta.Variant {
		return appendVariant(dst, a, i)
	}
	bad := func() ([]byte, error) { return dst, fmt.Errorf("%w: %s holds no %s", ErrValue, a.DataType(), t) }
	switch a := a.(type) {
	case *array.Null:
		return append(dst, "null"...), nil
	case *array.Boolean:
		return strconv.AppendBool(dst, a.Value(i)), nil
	case *array.Int8:
		return strconv.AppendInt(dst, int64(a.Value(i)), 10), nil
	case *array.Int16:
		return strconv.AppendInt(dst, int64(a.Value(i)), 10), nil
	case *array.Int32:
		return strconv.AppendInt(dst, int64(a.Value(i)), 10), nil
	case *array.Int64:
		return strconv.AppendInt(dst, a.Value(i), 10), nil
	case *array.Float32:
		return appendFloat(dst, float64(a.Value(i)), 32), nil
	case *array.Float64:
		return appendFloat(dst, a.Value(i), 64), nil
	case *array.Decimal128:
		return append(dst, decimalText(a.Value(i), a.DataType().(*arrow.Decimal128Type).Scale)...), nil
	case *array.String:
		return AppendString(dst, a.Value(i)), nil
	case *array.LargeString:
		return AppendString(dst, a.Value(i)), nil
	case *array.Binary:
		return AppendString(dst, base64.StdEncoding.EncodeToString(a.Value(i))), nil
	case *array.Date32:
		return AppendString(dst, dateText(a.Value(i).ToTime())), nil
	case *array.Timestamp:
		at := a.Value(i).ToTime(a.DataType().(*arrow.TimestampType).Unit).UTC()
		s := dateText(at) + at.Format("T15:04:05.000000")
		if t != delta.TimestampNTZ {
			s += "Z"
		}
		return AppendString(dst, s), nil
	case *array.Struct:
		st, ok := t.(*delta.Struct)
		if !ok || len(st.Fields) != a.NumField() {
			return bad()
		}
		dst = append(dst, '{')
		var err error
		for k, f := range st.Fields {
			if k > 0 {
				dst = append(dst, ',')
			}
			dst = append(AppendString(dst, f.Name), ':')
			if dst, err = AppendValue(dst, f.Type, a.Field(k), i); err != nil {
				return dst, err
			}
		}
		return append(dst, '}'), nil
	case *array.Map:
		mt, ok := t.(*delta.Map)
		if !ok {
			return bad()
		}
		from, to := a.ValueOffsets(i)
		dst = append(dst, '{')
		for k := int(from); k < int(to); k++ {
			if k > int(from) {
				dst = append(dst, ',')
			}
			key, err := keyText(mt.Key, a.Keys(), k)
			if err != nil {
				return dst, err
			}
			dst = append(AppendString(dst, key), ':')
			if dst, err = AppendValue(dst, mt.Value, a.Items(), k); err != nil {
				return dst, err
			}
		}
		return append(dst, '}'), nil
	case array.ListLike:
		lt, ok := t.(*delta.Array)
		if !ok {
			return bad()
		}
		from, to := a.ValueOffsets(i)
		dst = append(dst, '[')
		for k := int(from); k < int(to); k++ {
			if k > int(from) {
				dst = append(dst, ',')
			}
			var err error
			if dst, err = AppendValue(dst, lt.Element, a.ListValues(), k); err != nil {
				return dst, err
			}
		}
		return append(dst, ']'), nil
	}
	return bad()
}

func appendVariant(dst []byte, a arrow.Array, i int) ([]byte, error) {
	switch a := a.(type) {
	case *array.String:
		return append(dst, a.Value(i)...), nil
	case *array.Struct:
		st := a.DataType().(*arrow.StructType)
		m, mok := st.FieldIdx("metadata")
		v, vok := st.FieldIdx("value")
		if mok && vok {
			meta, ok1 := a.Field(m).(*array.Binary)
			value, ok2 := a.Field(v).(*array.Binary)
			if ok1 && ok2 {
				text, err := delta.VariantJSON(meta.Value(i), value.Value(i))
				return append(dst, text...), err
			}
		}
	}
	return dst, fmt.Errorf("%w: %s holds no variant", ErrValue, a.DataType())
}

// keyText is a map's key as the name of a member: Spark writes the key's own spelling, which for text is the text.
func keyText(t delta.Type, a arrow.Array, i int) (string, error) {
	switch a := a.(type) {
	case *array.String:
		return a.Value(i), nil
	case *array.Float32:
		return strings.Trim(string(appendFloat(nil, float64(a.Value(i)), 32)), `"`), nil
	case *array.Float64:
		return strings.Trim(string(appendFloat(nil, a.Value(i), 64)), `"`), nil
	}
	b, err := AppendValue(nil, t, a, i)
	return strings.Trim(string(b), `"`), err
}

// dateText spells a date; years beyond four digits get a sign, as ISO 8601 wants.
func dateText(t time.Time) string {
	if y := t.Year(); y < 0 || y > 9999 {
		return fmt.Sprintf("%+05d", y) + t.Format("-01-02")
	}
	return t.Format("2006-01-02")
}

// decimalText is the number with all the digits of its scale, as Java's BigDecimal spells it: a number whose first
// digit comes seven places or more behind the point is written with an exponent.
func decimalText(v decimal128.Num, scale int32) string {
	digits := v.BigInt().String()
	neg := strings.HasPrefix(digits, "-")
	digits = strings.TrimPrefix(digits, "-")
	if exp := len(digits) - 1 - int(scale); scale > 0 && exp < -6 {
		s := digits[:1]
		if len(digits) > 1 {
			s += "." + digits[1:]
		}
		s += "E" + strconv.Itoa(exp)
		if neg {
			s = "-" + s
		}
		return s
	}
	return v.ToString(scale)
}

// appendFloat spells a number as Java does: with a point always, and an exponent below 0.001 and from 10,000,000 on.
func appendFloat(dst []byte, f float64, bits int) []byte {
	switch {
	case math.IsNaN(f):
		return append(dst, `"NaN"`...)
	case math.IsInf(f, 1):
		return append(dst, `"Infinity"`...)
	case math.IsInf(f, -1):
		return append(dst, `"-Infinity"`...)
	}
	if abs := math.Abs(f); abs != 0 && (abs < 1e-3 || abs >= 1e7) {
		s := strconv.FormatFloat(f, 'E', -1, bits)
		mantissa, exp, _ := strings.Cut(s, "E")
		if !strings.Contains(mantissa, ".") {
			mantissa += ".0"
		}
		n, _ := strconv.Atoi(exp)
		return append(dst, mantissa+"E"+strconv.Itoa(n)...)
	}
	s := strconv.FormatFloat(f, 'f', -1, bits)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return append(dst, s...)
}

// AppendString quotes a text as JSON wants, escaping no more than that.
func AppendString(dst []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	dst = append(dst, '"')
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				dst = append(dst, "\ufffd"...)
			} else {
				dst = append(dst, s[i:i+n]...)
			}
			i += n
			continue
		}
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c >= ' ':
			dst = append(dst, c)
		case c == '\n':
			dst = append(dst, `\n`...)
		case c == '\r':
			dst = append(dst, `\r`...)
		case c == '\t':
			dst = append(dst, `\t`...)
		case c == '\b':
			dst = append(dst, `\b`...)
		case c == '\f':
			dst = append(dst, `\f`...)
		default:
			dst = append(dst, `\u00`...)
			dst = append(dst, hex[c>>4], hex[c&15])
		}
		i++
	}
	return append(dst, '"')
}
