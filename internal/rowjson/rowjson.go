// Package rowjson writes a row of an Arrow batch as the text of a JSON object, for sources whose files hold typed values
// and whose raw fields are text all the same. It loses nothing: decimals and integers keep every digit, times name
// their zone if they have one, bytes that are no text are written in hexadecimal. Sources whose values are no Arrow write theirs with its
// parts, so that one value has one text whatever brought it.
package rowjson

import (
	"encoding/hex"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

// Append appends row i of a batch. Columns that are null are left out.
func Append(b []byte, schema *arrow.Schema, batch arrow.RecordBatch, i int) []byte {
	b = append(b, '{')
	n := 0
	for c, f := range schema.Fields() {
		a := batch.Column(c)
		if a.IsNull(i) {
			continue
		}
		if n++; n > 1 {
			b = append(b, ',')
		}
		b = AppendText(b, f.Name)
		b = append(b, ':')
		b = appendValue(b, a, i)
	}
	return append(b, '}')
}

func appendValue(b []byte, a arrow.Array, i int) []byte {
	if a.IsNull(i) {
		return append(b, "null"...)
	}
	switch a := a.(type) {
	case *array.String:
		return AppendText(b, a.Value(i))
	case *array.LargeString:
		return AppendText(b, a.Value(i))
	case *array.Binary:
		return AppendBytes(b, a.Value(i))
	case *array.LargeBinary:
		return AppendBytes(b, a.Value(i))
	case *array.FixedSizeBinary:
		return AppendBytes(b, a.Value(i))
	case *array.Decimal128:
		return append(b, plain(a.Value(i).ToString(a.DataType().(*arrow.Decimal128Type).Scale))...)
	case *array.Decimal256:
		return append(b, plain(a.Value(i).ToString(a.DataType().(*arrow.Decimal256Type).Scale))...)
	case *array.Boolean:
		return strconv.AppendBool(b, a.Value(i))
	case *array.Float64:
		return AppendFloat(b, a.Value(i), 64)
	case *array.Float32:
		return AppendFloat(b, float64(a.Value(i)), 32)
	case *array.Timestamp:
		t := a.DataType().(*arrow.TimestampType)
		layout := "2006-01-02T15:04:05.999999999"
		if t.TimeZone != "" {
			layout += "Z07:00"
		}
		return AppendText(b, instant(int64(a.Value(i)), t.Unit).Format(layout))
	case *array.Date32:
		return AppendText(b, time.Unix(int64(a.Value(i))*86400, 0).UTC().Format(time.DateOnly))
	case *array.Date64:
		return AppendText(b, time.UnixMilli(int64(a.Value(i))).UTC().Format(time.DateOnly))
	case *array.Time32:
		return AppendText(b, instant(int64(a.Value(i)), a.DataType().(*arrow.Time32Type).Unit).Format("15:04:05.999999999"))
	case *array.Time64:
		return AppendText(b, instant(int64(a.Value(i)), a.DataType().(*arrow.Time64Type).Unit).Format("15:04:05.999999999"))
	case *array.Struct:
		fields := a.DataType().(*arrow.StructType).Fields()
		b = append(b, '{')
		for j, f := range fields {
			if j > 0 {
				b = append(b, ',')
			}
			b = append(AppendText(b, f.Name), ':')
			b = appendValue(b, a.Field(j), i)
		}
		return append(b, '}')
	case *array.Map:
		from, to := a.ValueOffsets(i)
		b = append(b, '{')
		for j := int(from); j < int(to); j++ {
			if j > int(from) {
				b = append(b, ',')
			}
			key := appendValue(nil, a.Keys(), j)
			if key[0] != '"' {
				key = AppendText(nil, string(key))
			}
			b = append(append(b, key...), ':')
			b = appendValue(b, a.Items(), j)
		}
		return append(b, '}')
	case array.ListLike:
		from, to := a.ValueOffsets(i)
		b = append(b, '[')
		for j := int(from); j < int(to); j++ {
			if j > int(from) {
				b = append(b, ',')
			}
			b = appendValue(b, a.ListValues(), j)
		}
		return append(b, ']')
	case *array.Dictionary:
		return appendValue(b, a.Dictionary(), a.GetValueIndex(i))
	}
	// Integers: their text is a number.
	text := a.ValueStr(i)
	if json.Valid([]byte(text)) && !strings.ContainsAny(text, "\"{[") {
		return append(b, text...)
	}
	return AppendText(b, text)
}

// plain is the text of a decimal without zeros at its end. It has no exponent, which the column of a text would show.
func plain(text string) string {
	if strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return text
}

func instant(n int64, u arrow.TimeUnit) time.Time {
	switch u {
	case arrow.Second:
		return time.Unix(n, 0).UTC()
	case arrow.Millisecond:
		return time.UnixMilli(n).UTC()
	case arrow.Microsecond:
		return time.UnixMicro(n).UTC()
	default:
		return time.Unix(n/1e9, n%1e9).UTC()
	}
}

// AppendFloat appends a number of so many bits; what JSON has no number for is a text.
func AppendFloat(b []byte, f float64, bits int) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return AppendText(b, strconv.FormatFloat(f, 'g', -1, bits))
	}
	return strconv.AppendFloat(b, f, 'g', -1, bits)
}

// AppendBytes appends bytes: their text, or the hexadecimal digits of bytes that are none.
func AppendBytes(b, v []byte) []byte {
	if utf8.Valid(v) {
		return AppendText(b, string(v))
	}
	return append(hex.AppendEncode(append(b, '"'), v), '"')
}

// AppendText appends a text. One that is no UTF-8 stays as it is, so that whoever reads the record refuses it: with a replacement
// two texts, keys among them, would become one.
func AppendText(b []byte, s string) []byte {
	const digits = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, '\\', 'n')
		case c < 0x20:
			b = append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
