package delta

import (
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
)

// Predicate says which rows matter, in just enough words to leave out files: a tree of Compare, In, IsNull, And, Or
// and Not. It has SQL's meaning: a comparison with null is not satisfied. A file is left out only if none of its rows
// can satisfy the predicate; whatever cannot be decided (an unknown column, a value of another kind than the column, a
// file without statistics) keeps the file. Column names compare in any case.
//
// Values are nil, bool, int64 (and the narrower integers), float64, string, []byte, Number (exact decimal), Days (a
// date) or time.Time (an instant; against a timestamp_ntz column its UTC wall clock). For a date column a string
// "2024-08-20" also does.
type Predicate interface {
	// decide says what can be told of all rows of a file.
	decide(f *fileFacts) verdict
}

// Compare is "column op value" with op one of = <> < <= > >=.
type Compare struct {
	Column string
	Op     string
	Value  any
}

// In is "column IN (values)".
type In struct {
	Column string
	Values []any
}

// IsNull is "column IS NULL".
type IsNull struct{ Column string }

// Not is satisfied by rows for which the inner predicate is false (not those for which it is null).
type Not struct{ Inner Predicate }

type andPredicate []Predicate

type orPredicate []Predicate

// And is satisfied where all are; And() always.
func And(ps ...Predicate) Predicate { return andPredicate(ps) }

// Or is satisfied where one is; Or() never.
func Or(ps ...Predicate) Predicate { return orPredicate(ps) }

// verdict tells whether rows exist for which a predicate may be true, may be false, and may be null.
type verdict struct{ mayTrue, mayFalse, mayNull bool }

var unknown = verdict{true, true, true}

// Of a predicate that is true for every row, and of one that is false for every row.
var (
	certain = verdict{mayTrue: true}
	never   = verdict{mayFalse: true}
)

func (p andPredicate) decide(f *fileFacts) verdict {
	v := certain
	for _, q := range p {
		d := q.decide(f)
		if d == never {
			return never // whatever the others are, null too
		}
		v = verdict{v.mayTrue && d.mayTrue, v.mayFalse || d.mayFalse, v.mayNull || d.mayNull}
	}
	return v
}

func (p orPredicate) decide(f *fileFacts) verdict {
	v := never
	for _, q := range p {
		v = v.or(q.decide(f))
	}
	return v
}

func (v verdict) or(d verdict) verdict {
	if v == certain || d == certain {
		return certain // whatever the other is, null too
	}
	return verdict{v.mayTrue || d.mayTrue, v.mayFalse && d.mayFalse, v.mayNull || d.mayNull}
}

func (p Not) decide(f *fileFacts) verdict {
	if p.Inner == nil {
		return unknown
	}
	d := p.Inner.decide(f)
	return verdict{d.mayFalse, d.mayTrue, d.mayNull}
}

func (p IsNull) decide(f *fileFacts) verdict {
	c := f.column(p.Column)
	if c == nil {
		return unknown
	}
	return verdict{mayTrue: c.mayNull, mayFalse: c.mayValue}
}

func (p In) decide(f *fileFacts) verdict {
	v := never
	for _, val := range p.Values {
		if val == nil {
			v = v.or(verdict{mayNull: true})
			continue
		}
		v = v.or(Compare{p.Column, "=", val}.decide(f))
	}
	return v
}

func (p Compare) decide(f *fileFacts) verdict {
	if p.Value == nil {
		if f.column(p.Column) == nil {
			return unknown
		}
		return verdict{mayNull: true}
	}
	c := f.column(p.Column)
	if c == nil {
		return unknown
	}
	if !c.mayValue {
		return verdict{mayNull: true}
	}
	val, ok := newBound(c.typ, p.Value)
	if !ok {
		return unknown
	}
	// lo and hi say how the bounds lie to the value; an unknown bound leaves all open.
	canLess, canEqual, canGreater := true, true, true
	if c.min != nil {
		if d, ok := c.min.lo.compare(val.hi); ok && d >= 0 {
			canLess = false // one that is equal rules out lesser ones too, where both are exact
			canEqual = d == 0
		}
	}
	if c.max != nil {
		if d, ok := c.max.hi.compare(val.lo); ok && d <= 0 {
			canGreater = false
			canEqual = canEqual && d == 0
		}
	}
	if c.float {
		// NaN is greater than every number, and no statistics tell of it.
		canGreater = true
	}
	switch p.Op {
	case "=", "==":
		return verdict{canEqual, canLess || canGreater, c.mayNull}
	case "<>", "!=":
		return verdict{canLess || canGreater, canEqual, c.mayNull}
	case "<":
		return verdict{canLess, canEqual || canGreater, c.mayNull}
	case "<=":
		return verdict{canLess || canEqual, canGreater, c.mayNull}
	case ">":
		return verdict{canGreater, canLess || canEqual, c.mayNull}
	case ">=":
		return verdict{canGreater || canEqual, canLess, c.mayNull}
	}
	return unknown
}

// Prune gives the live files that may hold rows of the predicate, in the order of the log, by partition values and
// statistics alone. A nil predicate gives all files.
func (s *Snapshot) Prune(where Predicate) []*Add {
	var out []*Add
	for f := range s.live.rows() {
		if where == nil || where.decide(s.rowFacts(f)).mayTrue {
			out = append(out, f.add(f.i))
		}
	}
	return out
}

// mayMatch reports whether a file may hold a row that satisfies the predicate.
func (s *Snapshot) mayMatch(where Predicate, a *Add) bool {
	return where.decide(s.addFacts(a)).mayTrue
}

// addFacts are the facts of an action.
func (s *Snapshot) addFacts(a *Add) *fileFacts {
	return &fileFacts{snapshot: s, partition: a.PartitionValues, json: a.Stats}
}

// rowFacts are the facts of a live file.
func (s *Snapshot) rowFacts(f fileRow) *fileFacts {
	return &fileFacts{snapshot: s, partition: f.partition(f.i), json: f.stats.at(f.i)}
}

// fileFacts tells what is known of the columns of one file.
type fileFacts struct {
	snapshot  *Snapshot
	partition map[string]*string
	json      string // statistics
	valid     bool   // json is JSON
	parsed    bool   // by ParseStats, which was needed
	stats     *Stats // nil if there are none that can be read
}

// columnFacts are bounds of the non-null values of a column in one file.
type columnFacts struct {
	typ      Type
	float    bool
	mayNull  bool        // rows may be null
	mayValue bool        // rows may be not null
	min, max *valueBound // nil: unknown
}

func (f *fileFacts) column(name string) *columnFacts {
	s := f.snapshot
	field, partition, ok := s.column(name)
	if !ok {
		return nil
	}
	c := &columnFacts{typ: field.Type, mayNull: true, mayValue: true}
	c.float = field.Type == Float || field.Type == Double
	phys := s.physical(field)
	if partition {
		raw, ok := f.partition[phys]
		if !ok {
			return nil
		}
		v, err := ParsePartitionValue(field.Type, raw)
		if err != nil {
			return nil
		}
		if v == nil {
			c.mayValue = false
			return c
		}
		c.mayNull = false
		if b, ok := newBound(field.Type, v); ok {
			c.min, c.max = &b, &b
			if x, ok := v.(float64); ok && math.IsNaN(x) {
				c.min, c.max = nil, nil
			}
		}
		return c
	}
	st, ok := f.columnStat(phys)
	if !ok {
		return c
	}
	if n := st.nulls; n >= 0 {
		// With a deletion vector counts are wide: only "none" and "all" still say something (PROTOCOL.md, "Per-file
		// Statistics"), and only those are used.
		if n == 0 {
			c.mayNull = false
		} else if n == st.numRecords {
			c.mayValue = false
		}
	}
	// Statistics are as exact as the type that the column had when the file was written.
	typ := field.Type
	if typ == Double && wasFloat(field) {
		typ = Float
	}
	if st.min != nil {
		c.min = statBound(typ, st.min, false)
	}
	if st.max != nil {
		c.max = statBound(typ, st.max, true)
	}
	return c
}

// valueBound is a value that may be known only within [lo, hi].
type valueBound struct{ lo, hi scalar }

// scalar is a comparable value: exactly one kind is in use.
type scalar struct {
	kind scalarKind
	i    int64    // kindInt, kindTime (µs), kindDate (days), kindBool
	r    *big.Rat // kindRat
	s    string   // kindString
}

type scalarKind int

const (
	kindInt scalarKind = iota + 1
	kindRat
	kindString
	kindTime
	kindDate
	kindBool
)

// compare orders two scalars of one kind; ok is false if they are of different kinds.
func (a scalar) compare(b scalar) (int, bool) {
	if a.kind == kindInt && b.kind == kindRat {
		return new(big.Rat).SetInt64(a.i).Cmp(b.r), true
	}
	if a.kind == kindRat && b.kind == kindInt {
		return a.r.Cmp(new(big.Rat).SetInt64(b.i)), true
	}
	if a.kind != b.kind {
		return 0, false
	}
	switch a.kind {
	case kindRat:
		return a.r.Cmp(b.r), true
	case kindString:
		return strings.Compare(a.s, b.s), true
	default:
		switch {
		case a.i < b.i:
			return -1, true
		case a.i > b.i:
			return 1, true
		}
		return 0, true
	}
}

func exactly(s scalar) valueBound { return valueBound{s, s} }

// newBound gives a predicate's or partition's value the kind in which values of a column type compare; ok is false if
// it cannot be told what the comparison means.
func newBound(t Type, v any) (valueBound, bool) {
	switch t := t.(type) {
	case Decimal:
		return numberBound(v, 0)
	case Primitive:
		switch t {
		case Long, Integer, Short, Byte:
			return numberBound(v, 0)
		case Float:
			return numberBound(v, 24)
		case Double:
			return numberBound(v, 53)
		case String:
			if s, ok := v.(string); ok {
				return exactly(scalar{kind: kindString, s: s}), true
			}
		case Binary:
			if b, ok := v.([]byte); ok {
				return exactly(scalar{kind: kindString, s: string(b)}), true
			}
		case Boolean:
			if b, ok := v.(bool); ok {
				return exactly(boolScalar(b)), true
			}
		case Date:
			switch v := v.(type) {
			case Days:
				return exactly(scalar{kind: kindDate, i: int64(v)}), true
			case string:
				if d, ok := parseDate(v); ok {
					return exactly(scalar{kind: kindDate, i: int64(d)}), true
				}
			}
		case Timestamp, TimestampNTZ:
			if ts, ok := v.(time.Time); ok {
				return exactly(scalar{kind: kindTime, i: ts.UnixMicro()}), true
			}
		}
	}
	return valueBound{}, false
}

func boolScalar(b bool) scalar {
	if b {
		return scalar{kind: kindBool, i: 1}
	}
	return scalar{kind: kindBool}
}

// numberBound widens a number that is compared with a binary floating-point column of the given precision: the engine
// may round it to the column's type or widen the column, and both must come out right. 0: exact.
func numberBound(v any, bits uint) (valueBound, bool) {
	var s scalar
	switch v := v.(type) {
	case int64:
		s = scalar{kind: kindInt, i: v}
	case int:
		s = scalar{kind: kindInt, i: int64(v)}
	case int32:
		s = scalar{kind: kindInt, i: int64(v)}
	case int16:
		s = scalar{kind: kindInt, i: int64(v)}
	case int8:
		s = scalar{kind: kindInt, i: int64(v)}
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return valueBound{}, false
		}
		s = scalar{kind: kindRat, r: new(big.Rat).SetFloat64(v)}
		if bits == 0 {
			// An exact column against an inexact value: the engine compares in floating point.
			bits = 53
		}
	case float32:
		return numberBound(float64(v), bits)
	case Number:
		r, ok := parseRat(string(v))
		if !ok {
			return valueBound{}, false
		}
		s = scalar{kind: kindRat, r: r}
	default:
		return valueBound{}, false
	}
	if bits == 0 {
		return exactly(s), true
	}
	r := s.r
	if s.kind == kindInt {
		r = new(big.Rat).SetInt64(s.i)
	}
	slack := new(big.Rat).Abs(r)
	slack.Quo(slack, new(big.Rat).SetInt64(int64(1)<<(bits-3)))
	slack.Add(slack, new(big.Rat).SetFrac64(1, 1<<62))
	return valueBound{
		lo: scalar{kind: kindRat, r: new(big.Rat).Sub(r, slack)},
		hi: scalar{kind: kindRat, r: new(big.Rat).Add(r, slack)},
	}, true
}

// statBound reads a minimum or maximum of the statistics; nil if it says nothing that can be relied on.
func statBound(t Type, v any, isMax bool) *valueBound {
	switch t := t.(type) {
	case Decimal:
		return statNumber(v, 0)
	case Primitive:
		switch t {
		case Long, Integer, Short, Byte:
			return statNumber(v, 0)
		case Float:
			return statNumber(v, 24)
		case Double:
			return statNumber(v, 53)
		case String:
			if s, ok := v.(string); ok {
				b := exactly(scalar{kind: kindString, s: s})
				return &b
			}
		case Boolean:
			if x, ok := v.(bool); ok {
				b := exactly(boolScalar(x))
				return &b
			}
		case Date:
			s, ok := v.(string)
			if !ok {
				return nil
			}
			if len(s) > 10 {
				s = s[:10] // some writers give a date the time of midnight
			}
			if d, ok := parseDate(s); ok {
				b := exactly(scalar{kind: kindDate, i: int64(d)})
				return &b
			}
		case Timestamp, TimestampNTZ:
			s, ok := v.(string)
			if !ok {
				return nil
			}
			ts, digits, zoned, ok := parseTimestamp(s)
			if !ok || t == Timestamp && !zoned {
				return nil
			}
			us := ts.UnixMicro()
			b := exactly(scalar{kind: kindTime, i: us})
			if isMax && digits <= 3 {
				// PROTOCOL.md, "Per-file Statistics": timestamps are cut down to milliseconds.
				b.hi.i = us + 999
			}
			if ts.Year() < 1973 {
				// Zones of local mean time have seconds, which some writers lost.
				b.lo.i -= 60e6
				b.hi.i += 60e6
			}
			return &b
		}
	}
	return nil
}

func statNumber(v any, bits uint) *valueBound {
	n, ok := v.(json.Number)
	if !ok {
		return nil
	}
	if bits == 0 {
		if i, err := strconv.ParseInt(string(n), 10, 64); err == nil {
			b := exactly(scalar{kind: kindInt, i: i})
			return &b
		}
	}
	b, ok := numberBound(Number(n), bits)
	if !ok {
		return nil
	}
	return &b
}

// String spells the comparison.
func (p Compare) String() string { return fmt.Sprintf("%s %s %v", p.Column, p.Op, p.Value) }
