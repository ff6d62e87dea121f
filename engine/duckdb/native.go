package duckdb

import (
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/cauce-data/cauce/delta"
)

// # Casts while reading
//
// Where records are split in Go, the casts of raw fields that a plan begins with are made there, too, by the functions
// of casts.go that give every cast from text its meaning. That costs a fraction of handing texts to DuckDB, casting them
// there, and proving that its looser casts gave the right value. Texts that are computed first are cast in SQL.

// rawReads notes what of the raw fields a query reads: their texts, or values that were cast while they were read.
// A nil rawReads notes nothing.
type rawReads struct {
	zone    *time.Location // of texts of time without zone
	fields  []string
	at      map[string]int
	texts   []int // of each field, how many expressions read its text
	natives []nativeRead
}

// nativeRead is the cast of a field.
type nativeRead struct {
	field     int
	typ       delta.Type
	eventTime bool // to_event_time, not the cast to a timestamp
}

func (p *program) newReads(fields []string) (*rawReads, error) {
	z, err := zone(p.zone())
	if err != nil {
		return nil, err
	}
	r := &rawReads{zone: z, fields: fields, at: map[string]int{}, texts: make([]int, len(fields))}
	for i, n := range fields {
		r.at[n] = i
	}
	return r, nil
}

// readText notes that an expression reads the text of a field, which native may take back. It reports whether that is a
// field that may be cast while it is read.
func (r *rawReads) readText(name string) bool {
	if r == nil {
		return false
	}
	i, ok := r.at[name]
	if ok {
		r.texts[i]++
	}
	return ok
}

// native gives the columns of a field's cast and of whether it failed. The one expression that was going to read the
// field's text for it reads them instead.
func (r *rawReads) native(name string, t delta.Type, eventTime bool) (value, failed string, ok bool) {
	switch t := t.(type) {
	case delta.Primitive:
		switch t {
		case delta.Long, delta.Integer, delta.Short, delta.Byte, delta.Double, delta.Boolean, delta.Date, delta.Timestamp, delta.TimestampNTZ:
		default:
			return "", "", false
		}
	case delta.Decimal:
	default:
		return "", "", false
	}
	i, ok := r.at[name]
	if !ok {
		return "", "", false
	}
	r.texts[i]--
	n := nativeRead{field: i, typ: t, eventTime: eventTime}
	k := slices.Index(r.natives, n)
	if k < 0 {
		k = len(r.natives)
		r.natives = append(r.natives, n)
	}
	value, failed = "n"+strconv.Itoa(k), "f"+strconv.Itoa(k)
	switch t {
	case delta.Integer, delta.Short, delta.Byte:
		value = "CAST(" + value + " AS " + sqlType(t, true) + ")"
	}
	return value, failed, true
}

// nativeColumn builds a column of casts, and beside it which of them failed.
type nativeColumn struct {
	nativeRead
	zone   *time.Location
	values array.Builder
	failed []int // rows of the batch
	rows   int
	last   int // rows of the batch before
}

func newNativeColumn(r nativeRead, z *time.Location) *nativeColumn {
	return &nativeColumn{nativeRead: r, zone: z, values: array.NewBuilder(memory.DefaultAllocator, r.arrowType())}
}

func (r nativeRead) arrowType() arrow.DataType {
	switch t := r.typ.(type) {
	case delta.Decimal:
		return &arrow.Decimal128Type{Precision: int32(t.P), Scale: int32(t.S)}
	case delta.Primitive:
		switch t {
		case delta.Double:
			return arrow.PrimitiveTypes.Float64
		case delta.Boolean:
			return arrow.FixedWidthTypes.Boolean
		case delta.Date:
			return arrow.FixedWidthTypes.Date32
		case delta.Timestamp, delta.TimestampNTZ:
			return &arrow.TimestampType{Unit: arrow.Microsecond} // without zone, as inside the engine
		}
	}
	return arrow.PrimitiveTypes.Int64
}

// begin makes room for a batch like the last one.
func (c *nativeColumn) begin() {
	if c.rows == 0 && c.last > 0 {
		c.values.Reserve(c.last)
	}
}

func (c *nativeColumn) null() {
	c.begin()
	c.values.AppendNull()
	c.rows++
}

// text appends the cast of a text.
func (c *nativeColumn) text(s string) {
	c.begin()
	ok := false
	switch b := c.values.(type) {
	case *array.Int64Builder:
		var v int64
		if v, ok = c.long(s); ok {
			b.Append(v)
		}
	case *array.Decimal128Builder:
		t := c.typ.(delta.Decimal)
		var v decimal128.Num
		if v, ok = parseDecimal128(s, t.P, t.S); ok {
			b.Append(v)
		}
	case *array.TimestampBuilder:
		var v int64
		if v, ok = c.time(s); ok {
			b.Append(arrow.Timestamp(v))
		}
	case *array.BooleanBuilder:
		var v bool
		if v, ok = parseBoolean(s); ok {
			b.Append(v)
		}
	case *array.Float64Builder:
		var v float64
		if v, ok = parseDouble(s, 64); ok {
			b.Append(v)
		}
	case *array.Date32Builder:
		var v int32
		if v, ok = parseDate(s); ok {
			b.Append(arrow.Date32(v))
		}
	}
	if !ok {
		c.values.AppendNull()
		if strings.Trim(s, blanks) != "" { // a blank text is null in every type but text
			c.failed = append(c.failed, c.rows)
		}
	}
	c.rows++
}

func (c *nativeColumn) long(s string) (int64, bool) {
	v, ok := shortLong(s)
	if !ok {
		if v, ok = parseLong(s); !ok {
			return 0, false
		}
	}
	switch c.typ {
	case delta.Integer:
		ok = int64(int32(v)) == v
	case delta.Short:
		ok = int64(int16(v)) == v
	case delta.Byte:
		ok = int64(int8(v)) == v
	}
	return v, ok
}

func (c *nativeColumn) time(s string) (int64, bool) {
	switch {
	case c.eventTime:
		if v, ok := shortLong(s); ok && v >= 0 && v < epochMicrosBelow {
			return epochMicros(v), true
		}
		return parseEventTime(s, c.zone)
	case c.typ == delta.TimestampNTZ:
		return parseWall(s)
	}
	return parseISO(s, c.zone)
}

// epochMicros reads a whole epoch time below epochMicrosBelow by its size.
func epochMicros(v int64) int64 {
	switch {
	case v >= epochMillisBelow:
		return v
	case v >= epochSecondsBelow:
		return v * 1000
	}
	return v * 1_000_000
}

// flush makes arrays of what was appended: the values, and whether they failed.
func (c *nativeColumn) flush() (values, failed arrow.Array) {
	f := array.NewBooleanBuilder(memory.DefaultAllocator)
	f.Resize(c.rows)
	for _, row := range c.failed {
		for f.Len() < row {
			f.UnsafeAppend(false)
		}
		f.UnsafeAppend(true)
	}
	for f.Len() < c.rows {
		f.UnsafeAppend(false)
	}
	values, failed = c.values.NewArray(), f.NewArray()
	f.Release()
	c.failed, c.rows, c.last = c.failed[:0], 0, c.rows
	return values, failed
}

// shortLong reads a whole number of at most 18 digits, the common case of parseLong.
func shortLong(s string) (int64, bool) {
	neg := s != "" && s[0] == '-'
	if neg {
		s = s[1:]
	}
	if s == "" || len(s) > 18 {
		return 0, false
	}
	var v int64
	for i := range len(s) {
		d := s[i] - '0'
		if d > 9 {
			return 0, false
		}
		v = v*10 + int64(d)
	}
	if neg {
		v = -v
	}
	return v, true
}

var pow10s = func() (p [19]int64) {
	p[0] = 1
	for i := 1; i < len(p); i++ {
		p[i] = 10 * p[i-1]
	}
	return p
}()

// shortDecimal reads a number of at most 18 digits, counted at the given scale, without exponent: the common case of
// parseDecimal128.
func shortDecimal(s string, precision, scale int) (int64, bool) {
	neg := s != "" && s[0] == '-'
	if neg {
		s = s[1:]
	}
	if s == "" || len(s) > 19 {
		return 0, false
	}
	var v int64
	point := len(s)
	for i := range len(s) {
		d := s[i] - '0'
		if d > 9 {
			if s[i] != '.' || point < len(s) {
				return 0, false
			}
			point = i
			continue
		}
		v = v*10 + int64(d)
	}
	digits, frac := len(s), 0
	if point < len(s) {
		digits, frac = len(s)-1, len(s)-1-point
	}
	zeros := scale - frac
	if digits == 0 || zeros < 0 || digits+zeros > 18 {
		return 0, false
	}
	if v *= pow10s[zeros]; precision < 18 && v >= pow10s[precision] {
		return 0, false
	}
	if neg {
		v = -v
	}
	return v, true
}

// parseDecimal128 reads a DECIMAL(precision, scale) as decimalText does.
func parseDecimal128(s string, precision, scale int) (decimal128.Num, bool) {
	if v, ok := shortDecimal(s, precision, scale); ok {
		return decimal128.FromI64(v), true
	}
	n, ok := parseNumber(s)
	if !ok {
		return decimal128.Num{}, false
	}
	d, ok := n.unscaled(precision, scale)
	if !ok {
		return decimal128.Num{}, false
	}
	v, _ := new(big.Int).SetString(d, 10)
	if n.neg {
		v.Neg(v)
	}
	return decimal128.FromBigInt(v), true
}
