package delta

import (
	"bytes"
	"crypto/md5"
	"encoding/binary"
	"encoding/hex"
	"math"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/cespare/xxhash/v2"
)

// Separators of the canonical text (docs/canonical-text.md).
const (
	canonUnit   = 0x1F // between a name and its value
	canonRecord = 0x1E // behind a value
	canonNull   = 0x18 // a null inside of a nested value
)

// appendCanon appends the canonical text of a value that is not null.
func appendCanon(b []byte, a arrow.Array, i int) []byte {
	switch a := a.(type) {
	case *array.String:
		return append(b, a.Value(i)...)
	case *array.Boolean:
		return strconv.AppendBool(b, a.Value(i))
	case *array.Int64:
		return strconv.AppendInt(b, a.Value(i), 10)
	case *array.Int32:
		return strconv.AppendInt(b, int64(a.Value(i)), 10)
	case *array.Int16:
		return strconv.AppendInt(b, int64(a.Value(i)), 10)
	case *array.Int8:
		return strconv.AppendInt(b, int64(a.Value(i)), 10)
	case *array.Timestamp:
		return strconv.AppendInt(b, int64(a.Value(i)), 10)
	case *array.Date32:
		return time.Unix(int64(a.Value(i))*86400, 0).UTC().AppendFormat(b, "2006-01-02")
	case *array.Decimal128:
		return append(b, a.Value(i).ToString(a.DataType().(*arrow.Decimal128Type).Scale)...)
	case *array.Float64:
		return strconv.AppendInt(b, FloatHash(a.Value(i)), 10)
	case *array.Float32:
		return strconv.AppendInt(b, FloatHash(float64(a.Value(i))), 10)
	case *array.Binary:
		return hex.AppendEncode(b, a.Value(i))
	case *array.Map:
		from, to := a.ValueOffsets(i)
		type entry struct{ k, v []byte }
		entries := make([]entry, 0, to-from)
		for j := int(from); j < int(to); j++ {
			entries = append(entries, entry{appendCanon(nil, a.Keys(), j), appendElement(nil, a.Items(), j)})
		}
		sort.Slice(entries, func(x, y int) bool { return bytes.Compare(entries[x].k, entries[y].k) < 0 })
		b = append(b, '{')
		for _, e := range entries {
			b = append(append(append(append(b, e.k...), canonUnit), e.v...), canonRecord)
		}
		return append(b, '}')
	case *array.List:
		from, to := a.ValueOffsets(i)
		b = append(b, '[')
		for j := int(from); j < int(to); j++ {
			b = append(appendElement(b, a.ListValues(), j), canonRecord)
		}
		return append(b, ']')
	case *array.Struct:
		fields := a.DataType().(*arrow.StructType).Fields()
		order := make([]int, len(fields))
		for j := range order {
			order[j] = j
		}
		sort.Slice(order, func(x, y int) bool { return fields[order[x]].Name < fields[order[y]].Name })
		b = append(b, '{')
		for _, j := range order {
			if c := a.Field(j); !c.IsNull(i) {
				b = append(append(b, fields[j].Name...), canonUnit)
				b = append(appendCanon(b, c, i), canonRecord)
			}
		}
		return append(b, '}')
	}
	return append(b, a.ValueStr(i)...)
}

func appendElement(b []byte, a arrow.Array, i int) []byte {
	if a.IsNull(i) {
		return append(b, canonNull)
	}
	return appendCanon(b, a, i)
}

// FloatHash stands for a float in canonical text: XXH64, with seed 42, of the bits of the double, least significant byte
// first; the two zeros are one value, and so are all NaNs. Engines write the digits of a float differently, but Spark's
// xxhash64 is this very number.
func FloatHash(f float64) int64 {
	bits := math.Float64bits(f)
	switch {
	case f == 0:
		bits = 0
	case math.IsNaN(f):
		bits = 0x7ff8000000000000
	}
	d := xxhash.NewWithSeed(42)
	_, _ = d.Write(binary.LittleEndian.AppendUint64(nil, bits))
	return int64(d.Sum64())
}

// canonColumn is a column of the canonical text of a row.
type canonColumn struct {
	name string
	col  arrow.Array
}

// canonColumns puts columns in the order of the canonical text: by the bytes of their names.
func canonColumns(names []string, cols []arrow.Array) []canonColumn {
	out := make([]canonColumn, len(names))
	for i := range names {
		out[i] = canonColumn{names[i], cols[i]}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].name < out[j].name })
	return out
}

// appendRowText appends the canonical text of a row: name, unit separator, text, record separator for each column
// that is not null.
func appendRowText(b []byte, cols []canonColumn, i int) []byte {
	for _, c := range cols {
		if c.col.IsNull(i) {
			continue
		}
		b = append(append(b, c.name...), canonUnit)
		b = append(appendCanon(b, c.col, i), canonRecord)
	}
	return b
}

// rowHash is the row hash of DESIGN D2: the first 8 bytes of MD5 over the canonical text.
func rowHash(buf *[]byte, cols []canonColumn, i int) uint64 {
	*buf = appendRowText((*buf)[:0], cols, i)
	sum := md5.Sum(*buf)
	return binary.BigEndian.Uint64(sum[:8])
}

// appendKey appends bytes that are equal for equal values of one type (and no others), and never a prefix of another
// value's. The value must not be null.
func appendKey(b []byte, a arrow.Array, i int) []byte {
	switch a := a.(type) {
	case *array.String:
		v := a.Value(i)
		return append(binary.AppendUvarint(b, uint64(len(v))), v...)
	case *array.Binary:
		v := a.Value(i)
		return append(binary.AppendUvarint(b, uint64(len(v))), v...)
	case *array.Int64:
		return binary.LittleEndian.AppendUint64(b, uint64(a.Value(i)))
	case *array.Int32:
		return binary.LittleEndian.AppendUint64(b, uint64(a.Value(i)))
	case *array.Int16:
		return binary.LittleEndian.AppendUint64(b, uint64(a.Value(i)))
	case *array.Int8:
		return binary.LittleEndian.AppendUint64(b, uint64(a.Value(i)))
	case *array.Date32:
		return binary.LittleEndian.AppendUint64(b, uint64(a.Value(i)))
	case *array.Timestamp:
		return binary.LittleEndian.AppendUint64(b, uint64(a.Value(i)))
	case *array.Decimal128:
		v := a.Value(i)
		return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(b, uint64(v.HighBits())), v.LowBits())
	case *array.Float64:
		return binary.LittleEndian.AppendUint64(b, floatBits(a.Value(i)))
	case *array.Float32:
		return binary.LittleEndian.AppendUint64(b, floatBits(float64(a.Value(i))))
	case *array.Boolean:
		if a.Value(i) {
			return append(b, 1)
		}
		return append(b, 0)
	}
	t := appendCanon(nil, a, i)
	return append(binary.AppendUvarint(b, uint64(len(t))), t...)
}

// floatBits makes the two zeros equal, and all NaNs.
func floatBits(f float64) uint64 {
	if f == 0 {
		return 0
	}
	if math.IsNaN(f) {
		return math.Float64bits(math.NaN())
	}
	return math.Float64bits(f)
}

// compareValues orders two values of one type: null before everything, NaN behind every number.
func compareValues(a arrow.Array, i int, b arrow.Array, j int) int {
	an, bn := a.IsNull(i), b.IsNull(j)
	if an || bn {
		switch {
		case an && bn:
			return 0
		case an:
			return -1
		}
		return 1
	}
	switch a := a.(type) {
	case *array.Int64:
		return cmpOf(a.Value(i), b.(*array.Int64).Value(j))
	case *array.Int32:
		return cmpOf(a.Value(i), b.(*array.Int32).Value(j))
	case *array.Int16:
		return cmpOf(a.Value(i), b.(*array.Int16).Value(j))
	case *array.Int8:
		return cmpOf(a.Value(i), b.(*array.Int8).Value(j))
	case *array.Timestamp:
		return cmpOf(a.Value(i), b.(*array.Timestamp).Value(j))
	case *array.Date32:
		return cmpOf(a.Value(i), b.(*array.Date32).Value(j))
	case *array.String:
		return strings.Compare(a.Value(i), b.(*array.String).Value(j))
	case *array.Binary:
		return bytes.Compare(a.Value(i), b.(*array.Binary).Value(j))
	case *array.Decimal128:
		return a.Value(i).Cmp(b.(*array.Decimal128).Value(j))
	case *array.Float64:
		return cmpFloat(a.Value(i), b.(*array.Float64).Value(j))
	case *array.Float32:
		return cmpFloat(float64(a.Value(i)), float64(b.(*array.Float32).Value(j)))
	case *array.Boolean:
		x, y := a.Value(i), b.(*array.Boolean).Value(j)
		switch {
		case x == y:
			return 0
		case y:
			return -1
		}
		return 1
	}
	return bytes.Compare(appendCanon(nil, a, i), appendCanon(nil, b, j))
}

func cmpOf[T int64 | int32 | int16 | int8 | arrow.Timestamp | arrow.Date32](x, y T) int {
	switch {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}

func cmpFloat(x, y float64) int {
	xn, yn := math.IsNaN(x), math.IsNaN(y)
	switch {
	case xn && yn:
		return 0
	case xn:
		return 1
	case yn:
		return -1
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}
