package pgwire

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/cauce-data/cauce/serve/pgcatalog"
)

// encoder appends the value in a row of an array, which is not null, as a client reads it.
type encoder func(dst []byte, a arrow.Array, i int) ([]byte, error)

// Moments in the forms of DuckDB and of PostgreSQL.
const (
	epochDays   = 10957 // from 1970 to 2000, where PostgreSQL's days begin
	epochMicros = int64(epochDays) * 86_400_000_000
)

// newEncoder gives the encoder of a column: of its type, in a format, with times in a zone.
func newEncoder(t pgcatalog.Type, format int16, zone *time.Location) encoder {
	if format == pgtype.BinaryFormatCode {
		return func(dst []byte, a arrow.Array, i int) ([]byte, error) { return appendBinary(dst, t, a, i) }
	}
	return func(dst []byte, a arrow.Array, i int) ([]byte, error) { return appendText(dst, t, a, i, zone) }
}

func appendText(dst []byte, t pgcatalog.Type, a arrow.Array, i int, zone *time.Location) ([]byte, error) {
	switch t.OID { // what is shown otherwise than it is kept
	case pgtype.JSONOID:
		return appendJSON(dst, a, i)
	case int2vectorOID, oidvectorOID:
		return appendVector(dst, a, i)
	}
	switch a := a.(type) {
	case *array.Boolean:
		if a.Value(i) {
			return append(dst, 't'), nil
		}
		return append(dst, 'f'), nil
	case *array.String:
		return append(dst, a.Value(i)...), nil
	case *array.LargeString:
		return append(dst, a.Value(i)...), nil
	case *array.Float64:
		return appendFloat(dst, a.Value(i), 64), nil
	case *array.Float32:
		return appendFloat(dst, float64(a.Value(i)), 32), nil
	case *array.Uint64:
		return strconv.AppendUint(dst, a.Value(i), 10), nil
	case *array.Decimal128:
		return append(dst, a.Value(i).ToString(a.DataType().(*arrow.Decimal128Type).Scale)...), nil
	case *array.Decimal256:
		return append(dst, a.Value(i).ToString(a.DataType().(*arrow.Decimal256Type).Scale)...), nil
	case *array.Binary:
		return appendHex(dst, a.Value(i)), nil
	case *array.LargeBinary:
		return appendHex(dst, a.Value(i)), nil
	case *array.Date32:
		return appendDate(dst, int64(a.Value(i))), nil
	case *array.Time64:
		return appendTime(dst, micros(int64(a.Value(i)), a.DataType().(*arrow.Time64Type).Unit)), nil
	case *array.Timestamp:
		tt := a.DataType().(*arrow.TimestampType)
		return appendTimestamp(dst, micros(int64(a.Value(i)), tt.Unit), tt.TimeZone != "", zone), nil
	case *array.MonthDayNanoInterval:
		return appendInterval(dst, a.Value(i)), nil
	case *array.Dictionary:
		return appendText(dst, t, a.Dictionary(), a.GetValueIndex(i), zone)
	case *array.Struct:
		if !unnamed(a.DataType().(*arrow.StructType)) {
			return appendJSON(dst, a, i)
		}
		return appendRow(dst, a, i, zone)
	case *array.List:
		from, to := a.ValueOffsets(i)
		return appendList(dst, t, a.ListValues(), int(from), int(to), zone)
	case *array.FixedSizeList:
		n := int(a.DataType().(*arrow.FixedSizeListType).Len())
		return appendList(dst, t, a.ListValues(), (i+a.Data().Offset())*n, (i+a.Data().Offset()+1)*n, zone)
	}
	if n, ok := wholeNumber(a, i); ok {
		return strconv.AppendInt(dst, n, 10), nil
	}
	return append(dst, a.ValueStr(i)...), nil
}

// wholeNumber gives the value of the integer types.
func wholeNumber(a arrow.Array, i int) (int64, bool) {
	switch a := a.(type) {
	case *array.Int64:
		return a.Value(i), true
	case *array.Int32:
		return int64(a.Value(i)), true
	case *array.Int16:
		return int64(a.Value(i)), true
	case *array.Int8:
		return int64(a.Value(i)), true
	case *array.Uint32:
		return int64(a.Value(i)), true
	case *array.Uint16:
		return int64(a.Value(i)), true
	case *array.Uint8:
		return int64(a.Value(i)), true
	}
	return 0, false
}

// appendFloat writes the shortest text that reads back, with an exponent where PostgreSQL has one.
func appendFloat(dst []byte, v float64, bits int) []byte {
	switch {
	case math.IsNaN(v):
		return append(dst, "NaN"...)
	case math.IsInf(v, 1):
		return append(dst, "Infinity"...)
	case math.IsInf(v, -1):
		return append(dst, "-Infinity"...)
	}
	digits := 15
	if bits == 32 {
		digits = 6
	}
	e := strconv.FormatFloat(v, 'e', -1, bits)
	at := strings.IndexByte(e, 'e')
	exp, _ := strconv.Atoi(e[at+1:])
	if v != 0 && (exp < -4 || exp >= digits) {
		return append(dst, e...)
	}
	return strconv.AppendFloat(dst, v, 'f', -1, bits)
}

func appendHex(dst, v []byte) []byte {
	return hex.AppendEncode(append(dst, `\x`...), v)
}

func micros(v int64, unit arrow.TimeUnit) int64 {
	switch unit {
	case arrow.Second:
		return v * 1_000_000
	case arrow.Millisecond:
		return v * 1_000
	case arrow.Nanosecond:
		q := v / 1_000
		if v%1_000 < 0 {
			q--
		}
		return q
	}
	return v
}

// appendYear writes the date of a time; years before the first are BC.
func appendYear(dst []byte, t time.Time, rest string) []byte {
	y := t.Year()
	bc := y <= 0
	if bc {
		y = 1 - y
	}
	dst = fmt.Appendf(dst, "%04d%s", y, t.Format(rest))
	return dst
}

func appendDate(dst []byte, days int64) []byte {
	switch days {
	case math.MaxInt32:
		return append(dst, "infinity"...)
	case -math.MaxInt32:
		return append(dst, "-infinity"...)
	}
	t := time.Unix(days*86400, 0).UTC()
	dst = appendYear(dst, t, "-01-02")
	if t.Year() <= 0 {
		dst = append(dst, " BC"...)
	}
	return dst
}

func appendTime(dst []byte, us int64) []byte {
	dst = fmt.Appendf(dst, "%02d:%02d:%02d", us/3_600_000_000, us/60_000_000%60, us/1_000_000%60)
	return appendFraction(dst, us%1_000_000)
}

func appendFraction(dst []byte, us int64) []byte {
	if us == 0 {
		return dst
	}
	return append(dst, strings.TrimRight(fmt.Sprintf(".%06d", us), "0")...)
}

func appendTimestamp(dst []byte, us int64, zoned bool, zone *time.Location) []byte {
	switch us {
	case math.MaxInt64:
		return append(dst, "infinity"...)
	case -math.MaxInt64:
		return append(dst, "-infinity"...)
	}
	t := time.UnixMicro(us).UTC()
	if zoned {
		t = t.In(zone)
	}
	dst = appendYear(dst, t, "-01-02 15:04:05")
	dst = appendFraction(dst, int64(t.Nanosecond()/1000))
	if zoned {
		_, off := t.Zone()
		sign := byte('+')
		if off < 0 {
			sign, off = '-', -off
		}
		dst = append(dst, sign)
		dst = fmt.Appendf(dst, "%02d", off/3600)
		if off%3600 != 0 {
			dst = fmt.Appendf(dst, ":%02d", off/60%60)
			if off%60 != 0 {
				dst = fmt.Appendf(dst, ":%02d", off%60)
			}
		}
	}
	if t.Year() <= 0 {
		dst = append(dst, " BC"...)
	}
	return dst
}

// appendInterval writes an interval in the style "postgres".
func appendInterval(dst []byte, v arrow.MonthDayNanoInterval) []byte {
	start := len(dst)
	part := func(n int32, one string) {
		if n == 0 {
			return
		}
		if len(dst) > start {
			dst = append(dst, ' ')
		}
		dst = strconv.AppendInt(dst, int64(n), 10)
		dst = append(dst, ' ')
		dst = append(dst, one...)
		if n != 1 {
			dst = append(dst, 's')
		}
	}
	part(v.Months/12, "year")
	part(v.Months%12, "mon")
	part(v.Days, "day")
	us := v.Nanoseconds / 1000
	if us != 0 || len(dst) == start {
		if len(dst) > start {
			dst = append(dst, ' ')
		}
		if us < 0 {
			dst = append(dst, '-')
			us = -us
		} else if v.Months < 0 || v.Days < 0 {
			dst = append(dst, '+')
		}
		dst = appendTime(dst, us)
	}
	return dst
}

// appendJSON writes a nested value.
func appendJSON(dst []byte, a arrow.Array, i int) ([]byte, error) {
	out, err := json.Marshal(forJSON(a, i))
	if err != nil {
		return nil, err
	}
	return append(dst, out...), nil
}

// forJSON gives a value to the encoder of JSON. The members of a row are f1, f2 …, as PostgreSQL's row_to_json has them.
func forJSON(a arrow.Array, i int) any {
	if a.IsNull(i) {
		return nil
	}
	switch a := a.(type) {
	case *array.Struct:
		t := a.DataType().(*arrow.StructType)
		out := make(map[string]any, a.NumField())
		for f := range a.NumField() {
			name := t.Field(f).Name
			if unnamed(t) {
				name = "f" + strconv.Itoa(f+1)
			}
			out[name] = forJSON(a.Field(f), i)
		}
		return out
	case *array.List:
		from, to := a.ValueOffsets(i)
		out := make([]any, 0, to-from)
		for j := int(from); j < int(to); j++ {
			out = append(out, forJSON(a.ListValues(), j))
		}
		return out
	}
	return a.GetOneForMarshal(i)
}

// appendRow writes (1,"a b",), as PostgreSQL writes ROW(1, 'a b', NULL).
func appendRow(dst []byte, a *array.Struct, i int, zone *time.Location) ([]byte, error) {
	dst = append(dst, '(')
	for f := range a.NumField() {
		if f > 0 {
			dst = append(dst, ',')
		}
		member := a.Field(f)
		if member.IsNull(i) {
			continue
		}
		item, err := appendText(nil, typeOfArrow(member.DataType()), member, i, zone)
		if err != nil {
			return nil, err
		}
		if len(item) > 0 && !strings.ContainsAny(string(item), "()\",\\ \t\n\r\v\f") {
			dst = append(dst, item...)
			continue
		}
		dst = append(dst, '"')
		for _, c := range item {
			if c == '"' || c == '\\' {
				dst = append(dst, c)
			}
			dst = append(dst, c)
		}
		dst = append(dst, '"')
	}
	return append(dst, ')'), nil
}

func appendBinaryRow(dst []byte, a *array.Struct, i int) ([]byte, error) {
	dst = binary.BigEndian.AppendUint32(dst, uint32(a.NumField()))
	for f := range a.NumField() {
		member := a.Field(f)
		t := typeOfArrow(member.DataType())
		dst = binary.BigEndian.AppendUint32(dst, t.OID)
		if member.IsNull(i) {
			dst = binary.BigEndian.AppendUint32(dst, math.MaxUint32)
			continue
		}
		at := len(dst)
		dst = binary.BigEndian.AppendUint32(dst, 0)
		var err error
		if dst, err = appendBinary(dst, t, member, i); err != nil {
			return nil, err
		}
		binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
	}
	return dst, nil
}

// appendList writes {a,"b c",NULL}.
func appendList(dst []byte, t pgcatalog.Type, values arrow.Array, from, to int, zone *time.Location) ([]byte, error) {
	elem := pgcatalog.Text
	if t.Element != nil {
		elem = *t.Element
	}
	dst = append(dst, '{')
	for i := from; i < to; i++ {
		if i > from {
			dst = append(dst, ',')
		}
		if values.IsNull(i) {
			dst = append(dst, "NULL"...)
			continue
		}
		item, err := appendText(nil, elem, values, i, zone)
		if err != nil {
			return nil, err
		}
		if plainElement(item) {
			dst = append(dst, item...)
			continue
		}
		dst = append(dst, '"')
		for _, c := range item {
			if c == '"' || c == '\\' {
				dst = append(dst, '\\')
			}
			dst = append(dst, c)
		}
		dst = append(dst, '"')
	}
	return append(dst, '}'), nil
}

func plainElement(b []byte) bool {
	if len(b) == 0 || strings.EqualFold(string(b), "null") {
		return false
	}
	return !strings.ContainsAny(string(b), "{}\",\\ \t\n\r\v\f")
}

// appendVector writes an int2vector or oidvector: "1 2 3".
func appendVector(dst []byte, a arrow.Array, i int) ([]byte, error) {
	l, ok := a.(*array.List)
	if !ok {
		return append(dst, a.ValueStr(i)...), nil
	}
	from, to := l.ValueOffsets(i)
	for j := int(from); j < int(to); j++ {
		if j > int(from) {
			dst = append(dst, ' ')
		}
		n, _ := wholeNumber(l.ListValues(), j)
		dst = strconv.AppendInt(dst, n, 10)
	}
	return dst, nil
}

var numerics = pgtype.NewMap()

func appendBinary(dst []byte, t pgcatalog.Type, a arrow.Array, i int) ([]byte, error) {
	if d, ok := a.(*array.Dictionary); ok {
		return appendBinary(dst, t, d.Dictionary(), d.GetValueIndex(i))
	}
	switch t.OID {
	case pgtype.BoolOID:
		if a.(*array.Boolean).Value(i) {
			return append(dst, 1), nil
		}
		return append(dst, 0), nil
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.OIDOID, pgtype.XIDOID:
		n, ok := wholeNumber(a, i)
		if !ok {
			break
		}
		switch t.OID {
		case pgtype.Int2OID:
			return binary.BigEndian.AppendUint16(dst, uint16(n)), nil
		case pgtype.Int8OID:
			return binary.BigEndian.AppendUint64(dst, uint64(n)), nil
		}
		return binary.BigEndian.AppendUint32(dst, uint32(n)), nil
	case pgtype.Float4OID:
		return binary.BigEndian.AppendUint32(dst, math.Float32bits(a.(*array.Float32).Value(i))), nil
	case pgtype.Float8OID:
		return binary.BigEndian.AppendUint64(dst, math.Float64bits(a.(*array.Float64).Value(i))), nil
	case pgtype.NumericOID:
		return appendNumeric(dst, a, i)
	case pgtype.ByteaOID:
		switch a := a.(type) {
		case *array.Binary:
			return append(dst, a.Value(i)...), nil
		case *array.LargeBinary:
			return append(dst, a.Value(i)...), nil
		}
	case pgtype.DateOID:
		switch d := int32(a.(*array.Date32).Value(i)); d {
		case math.MaxInt32:
			return binary.BigEndian.AppendUint32(dst, math.MaxInt32), nil
		case -math.MaxInt32:
			return binary.BigEndian.AppendUint32(dst, 1<<31), nil
		default:
			return binary.BigEndian.AppendUint32(dst, uint32(d-epochDays)), nil
		}
	case pgtype.TimeOID:
		v := a.(*array.Time64)
		return binary.BigEndian.AppendUint64(dst, uint64(micros(int64(v.Value(i)), v.DataType().(*arrow.Time64Type).Unit))), nil
	case pgtype.TimestampOID, pgtype.TimestamptzOID:
		v := a.(*array.Timestamp)
		switch us := micros(int64(v.Value(i)), v.DataType().(*arrow.TimestampType).Unit); us {
		case math.MaxInt64:
			return binary.BigEndian.AppendUint64(dst, math.MaxInt64), nil
		case -math.MaxInt64:
			return binary.BigEndian.AppendUint64(dst, 1<<63), nil
		default:
			return binary.BigEndian.AppendUint64(dst, uint64(us-epochMicros)), nil
		}
	case pgtype.IntervalOID:
		v := a.(*array.MonthDayNanoInterval).Value(i)
		dst = binary.BigEndian.AppendUint64(dst, uint64(v.Nanoseconds/1000))
		dst = binary.BigEndian.AppendUint32(dst, uint32(v.Days))
		return binary.BigEndian.AppendUint32(dst, uint32(v.Months)), nil
	case pgtype.JSONOID:
		return appendJSON(dst, a, i)
	case pgtype.RecordOID:
		if row, ok := a.(*array.Struct); ok && unnamed(row.DataType().(*arrow.StructType)) {
			return appendBinaryRow(dst, row, i)
		}
	case pgtype.UUIDOID:
		return hex.AppendDecode(dst, []byte(strings.ReplaceAll(a.ValueStr(i), "-", "")))
	}
	if t.Element != nil {
		switch l := a.(type) {
		case *array.List:
			from, to := l.ValueOffsets(i)
			return appendBinaryList(dst, t, l.ListValues(), int(from), int(to))
		case *array.FixedSizeList:
			n := int(l.DataType().(*arrow.FixedSizeListType).Len())
			return appendBinaryList(dst, t, l.ListValues(), (i+l.Data().Offset())*n, (i+l.Data().Offset()+1)*n)
		}
	}
	return appendText(dst, t, a, i, time.UTC)
}

func appendNumeric(dst []byte, a arrow.Array, i int) ([]byte, error) {
	n := pgtype.Numeric{Valid: true}
	switch a := a.(type) {
	case *array.Decimal128:
		n.Int, n.Exp = a.Value(i).BigInt(), -a.DataType().(*arrow.Decimal128Type).Scale
	case *array.Decimal256:
		n.Int, n.Exp = a.Value(i).BigInt(), -a.DataType().(*arrow.Decimal256Type).Scale
	case *array.Uint64:
		n.Int = new(big.Int).SetUint64(a.Value(i))
	default:
		v, ok := wholeNumber(a, i)
		if !ok {
			return nil, fmt.Errorf("BUG: a numeric of %s", a.DataType())
		}
		n.Int = big.NewInt(v)
	}
	return numerics.Encode(pgtype.NumericOID, pgtype.BinaryFormatCode, n, dst)
}

func appendBinaryList(dst []byte, t pgcatalog.Type, values arrow.Array, from, to int) ([]byte, error) {
	dims := uint32(1)
	if from == to {
		dims = 0
	}
	nulls := uint32(0)
	for i := from; i < to; i++ {
		if values.IsNull(i) {
			nulls = 1
		}
	}
	dst = binary.BigEndian.AppendUint32(dst, dims)
	dst = binary.BigEndian.AppendUint32(dst, nulls)
	dst = binary.BigEndian.AppendUint32(dst, t.Element.OID)
	if dims == 0 {
		return dst, nil
	}
	lower := uint32(1)
	if t.OID == int2vectorOID || t.OID == oidvectorOID {
		lower = 0
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(to-from))
	dst = binary.BigEndian.AppendUint32(dst, lower)
	for i := from; i < to; i++ {
		if values.IsNull(i) {
			dst = binary.BigEndian.AppendUint32(dst, math.MaxUint32)
			continue
		}
		at := len(dst)
		dst = binary.BigEndian.AppendUint32(dst, 0)
		var err error
		if dst, err = appendBinary(dst, *t.Element, values, i); err != nil {
			return nil, err
		}
		binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
	}
	return dst, nil
}

// validText replaces what is no UTF-8, which clients refuse; DuckDB's texts are valid, names of files need not be.
func validText(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
