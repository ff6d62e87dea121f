package delta

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
)

// fileStats gathers the statistics of one data file (PROTOCOL.md, "Per-file Statistics") from the batches written to it.
type fileStats struct {
	rows int64
	root []*columnStats
}

// columnStats are the statistics of one column, or of a struct and what is inside it.
type columnStats struct {
	name     string
	typ      Type
	children []*columnStats // of a struct
	nulls    int64
	any      bool // some value that is not null was seen
	noBounds bool // NaN seen: the bounds say nothing
	lo, hi   extreme
}

// extreme holds one bound, in the member that fits the type.
type extreme struct {
	i int64
	f float64
	s []byte
	d decimal128.Num
}

// newFileStats takes the columns of a file in order; leaves is how many leaf columns get statistics, < 0 all.
func newFileStats(fields []Field, leaves int) *fileStats {
	st := &fileStats{}
	if leaves < 0 {
		leaves = math.MaxInt
	}
	for _, f := range fields {
		st.root = append(st.root, newColumnStats(f, &leaves))
	}
	return st
}

func newColumnStats(f Field, leaves *int) *columnStats {
	c := &columnStats{name: f.PhysicalName(), typ: f.Type}
	if s, ok := f.Type.(*Struct); ok {
		for _, sf := range s.Fields {
			if cc := newColumnStats(sf, leaves); cc != nil {
				c.children = append(c.children, cc)
			} else {
				c.children = append(c.children, nil)
			}
		}
		return c
	}
	if *leaves <= 0 {
		return nil
	}
	*leaves--
	return c
}

func (s *fileStats) add(b arrow.RecordBatch) {
	s.rows += b.NumRows()
	for i, c := range s.root {
		if c != nil {
			c.add(b.Column(i), nil)
		}
	}
}

// add looks at an array whose parent is null where hidden says so.
func (c *columnStats) add(a arrow.Array, hidden func(i int) bool) {
	null := a.IsNull
	if hidden != nil {
		null = func(i int) bool { return hidden(i) || a.IsNull(i) }
	}
	if st, ok := a.(*array.Struct); ok && len(c.children) > 0 {
		for i, cc := range c.children {
			if cc != nil {
				cc.add(st.Field(i), null)
			}
		}
		return
	}
	if hidden == nil {
		c.nulls += int64(a.NullN())
	} else {
		for i := range a.Len() {
			if null(i) {
				c.nulls++
			}
		}
	}
	n := a.Len()
	switch a := a.(type) {
	case *array.Int64:
		ints(c, n, null, func(i int) int64 { return a.Value(i) })
	case *array.Int32:
		ints(c, n, null, func(i int) int64 { return int64(a.Value(i)) })
	case *array.Int16:
		ints(c, n, null, func(i int) int64 { return int64(a.Value(i)) })
	case *array.Int8:
		ints(c, n, null, func(i int) int64 { return int64(a.Value(i)) })
	case *array.Date32:
		ints(c, n, null, func(i int) int64 { return int64(a.Value(i)) })
	case *array.Timestamp:
		ints(c, n, null, func(i int) int64 { return int64(a.Value(i)) })
	case *array.Float64:
		c.floats(n, null, func(i int) float64 { return a.Value(i) })
	case *array.Float32:
		c.floats(n, null, func(i int) float64 { return float64(a.Value(i)) })
	case *array.Decimal128:
		for i := range n {
			if null(i) {
				continue
			}
			v := a.Value(i)
			if !c.any {
				c.any, c.lo.d, c.hi.d = true, v, v
			} else if v.Less(c.lo.d) {
				c.lo.d = v
			} else if c.hi.d.Less(v) {
				c.hi.d = v
			}
		}
	case *array.String:
		var lo, hi string
		found := false
		for i := range n {
			if null(i) {
				continue
			}
			v := a.Value(i)
			if !found {
				found, lo, hi = true, v, v
			} else if v < lo {
				lo = v
			} else if v > hi {
				hi = v
			}
		}
		if !found {
			return
		}
		// The batch's memory is not ours: keep copies.
		if !c.any || lo < string(c.lo.s) {
			c.lo.s = []byte(lo)
		}
		if !c.any || bytes.Compare(c.hi.s, []byte(hi)) < 0 {
			c.hi.s = []byte(hi)
		}
		c.any = true
	}
}

func ints(c *columnStats, n int, null func(int) bool, at func(int) int64) {
	for i := range n {
		if null(i) {
			continue
		}
		v := at(i)
		if !c.any {
			c.any, c.lo.i, c.hi.i = true, v, v
		} else if v < c.lo.i {
			c.lo.i = v
		} else if v > c.hi.i {
			c.hi.i = v
		}
	}
}

func (c *columnStats) floats(n int, null func(int) bool, at func(int) float64) {
	for i := range n {
		if null(i) {
			continue
		}
		v := at(i)
		switch {
		case math.IsNaN(v):
			c.noBounds = true
		case !c.any:
			c.any, c.lo.f, c.hi.f = true, v, v
		case v < c.lo.f:
			c.lo.f = v
		case v > c.hi.f:
			c.hi.f = v
		}
	}
}

// stats is the result.
func (s *fileStats) stats() *Stats {
	st := &Stats{NumRecords: s.rows, MinValues: map[string]any{}, MaxValues: map[string]any{}, NullCount: map[string]any{}}
	for _, c := range s.root {
		if c != nil {
			c.put(st.MinValues, st.MaxValues, st.NullCount)
		}
	}
	return st
}

// times puts bounds that are dates or times. A year of more than four digits, or one before Christ, is no bound that every
// reader can parse: such a bound is left out.
func (c *columnStats) times(lo, hi map[string]any, l, h string) {
	plain := func(s string) bool { return s[0] != '-' && s[4] == '-' }
	if plain(l) {
		lo[c.name] = l
	}
	if plain(h) {
		hi[c.name] = h
	}
}

func (c *columnStats) put(lo, hi, nulls map[string]any) {
	if _, ok := c.typ.(*Struct); ok {
		l, h, n := map[string]any{}, map[string]any{}, map[string]any{}
		for _, cc := range c.children {
			if cc != nil {
				cc.put(l, h, n)
			}
		}
		for _, p := range []struct{ to, from map[string]any }{{lo, l}, {hi, h}, {nulls, n}} {
			if len(p.from) > 0 {
				p.to[c.name] = p.from
			}
		}
		return
	}
	nulls[c.name] = c.nulls
	if !c.any || c.noBounds {
		return
	}
	if d, ok := c.typ.(Decimal); ok {
		lo[c.name] = json.Number(c.lo.d.ToString(int32(d.S)))
		hi[c.name] = json.Number(c.hi.d.ToString(int32(d.S)))
		return
	}
	switch c.typ {
	case Long, Integer, Short, Byte:
		lo[c.name] = json.Number(strconv.FormatInt(c.lo.i, 10))
		hi[c.name] = json.Number(strconv.FormatInt(c.hi.i, 10))
	case Date:
		c.times(lo, hi, StatsDate(int32(c.lo.i)), StatsDate(int32(c.hi.i)))
	case Timestamp, TimestampNTZ:
		// Readers that know only milliseconds cut the text: the maximum is rounded up so that it stays a bound.
		l, h := floorDiv(c.lo.i, 1000)*1000, c.hi.i
		if r := floorDiv(h, 1000) * 1000; r != h {
			h = r + 1000
		}
		if c.typ == Timestamp {
			c.times(lo, hi, StatsTimestamp(l), StatsTimestamp(h))
		} else {
			c.times(lo, hi, StatsTimestampNTZ(l), StatsTimestampNTZ(h))
		}
	case Float, Double:
		bits := 64
		if c.typ == Float {
			bits = 32
		}
		l, h := c.lo.f, c.hi.f
		// Zero has two signs that compare equal: each bound takes the one that is farther out.
		if l == 0 {
			l = math.Copysign(0, -1)
		}
		if h == 0 {
			h = 0
		}
		if !math.IsInf(l, 0) {
			lo[c.name] = json.Number(strconv.FormatFloat(l, 'g', -1, bits))
		}
		if !math.IsInf(h, 0) {
			hi[c.name] = json.Number(strconv.FormatFloat(h, 'g', -1, bits))
		}
	case String:
		if utf8.Valid(c.lo.s) { // JSON has another character for what is no text, and that may be greater
			lo[c.name] = StatsMin(string(c.lo.s))
		}
		if m, ok := StatsMax(string(c.hi.s)); ok {
			hi[c.name] = m
		}
	}
}

// statsLeaves is how many leaf columns of a table get statistics.
func statsLeaves(config map[string]string) int {
	if v, ok := config["delta.dataSkippingNumIndexedCols"]; ok {
		if n, err := strconv.Atoi(v); err == nil && n >= -1 {
			return n
		}
	}
	return 32
}
