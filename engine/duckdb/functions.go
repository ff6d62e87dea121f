package duckdb

import (
	"database/sql"
	"database/sql/driver"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/duckdb/duckdb-go/v2"

	"github.com/cauce-data/cauce/delta"
)

var errEOF = io.EOF

// scalar is a Go function that SQL of this engine calls where DuckDB's own reading of a text is not exact enough.
type scalar struct {
	name   string
	args   []duckdb.Type
	result duckdb.Type
	run    func(v []driver.Value) (any, error)
}

func (s *scalar) Config() duckdb.ScalarFuncConfig {
	var c duckdb.ScalarFuncConfig
	for _, a := range s.args {
		t, err := duckdb.NewTypeInfo(a)
		if err != nil {
			return duckdb.ScalarFuncConfig{}
		}
		c.InputTypeInfos = append(c.InputTypeInfos, t)
	}
	t, err := duckdb.NewTypeInfo(s.result)
	if err != nil {
		return duckdb.ScalarFuncConfig{}
	}
	c.ResultTypeInfo = t
	return c
}

func (s *scalar) Executor() duckdb.ScalarFuncExecutor {
	return duckdb.ScalarFuncExecutor{RowExecutor: s.run}
}

// zones remembers time zones by name: loading one reads a file.
var zones sync.Map

func zone(name string) (*time.Location, error) {
	if z, ok := zones.Load(name); ok {
		return z.(*time.Location), nil
	}
	z, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("time zone %q: %w", name, err)
	}
	zones.Store(name, z)
	return z, nil
}

func text(v driver.Value) string {
	s, _ := v.(string)
	return s
}

// orNull makes a failed reading SQL's NULL.
func orNull[T any](v T, ok bool) (any, error) {
	if !ok {
		return nil, nil
	}
	return v, nil
}

func registerFunctions(c *sql.Conn) error {
	const (
		str = duckdb.TYPE_VARCHAR
		i64 = duckdb.TYPE_BIGINT
		i32 = duckdb.TYPE_INTEGER
		f64 = duckdb.TYPE_DOUBLE
		bol = duckdb.TYPE_BOOLEAN
	)
	inZone := func(f func(s string, z *time.Location) (int64, bool)) func(v []driver.Value) (any, error) {
		return func(v []driver.Value) (any, error) {
			z, err := zone(text(v[1]))
			if err != nil {
				return nil, err
			}
			return orNull(f(text(v[0]), z))
		}
	}
	for _, f := range []*scalar{
		{"cauce_long", []duckdb.Type{str}, i64, func(v []driver.Value) (any, error) { return orNull(parseLong(text(v[0]))) }},
		{"cauce_double", []duckdb.Type{str}, f64, func(v []driver.Value) (any, error) { return orNull(parseDouble(text(v[0]), 64)) }},
		{"cauce_float", []duckdb.Type{str}, f64, func(v []driver.Value) (any, error) { return orNull(parseDouble(text(v[0]), 32)) }},
		{"cauce_float_hash", []duckdb.Type{f64}, i64, func(v []driver.Value) (any, error) {
			f, _ := v[0].(float64)
			return delta.FloatHash(f), nil
		}},
		{"cauce_float_text", []duckdb.Type{f64}, str, func(v []driver.Value) (any, error) {
			f, _ := v[0].(float64)
			return floatText(float32(f)), nil
		}},
		{"cauce_boolean", []duckdb.Type{str}, bol, func(v []driver.Value) (any, error) { return orNull(parseBoolean(text(v[0]))) }},
		{"cauce_date", []duckdb.Type{str}, i32, func(v []driver.Value) (any, error) { return orNull(parseDate(text(v[0]))) }},
		{"cauce_decimal", []duckdb.Type{str, i32, i32}, str, func(v []driver.Value) (any, error) {
			p, _ := v[1].(int32)
			s, _ := v[2].(int32)
			return orNull(decimalText(text(v[0]), int(p), int(s)))
		}},
		{"cauce_compare", []duckdb.Type{str, str}, i32, func(v []driver.Value) (any, error) {
			x, y, ok := exactPair(text(v[0]), text(v[1]))
			if !ok {
				return nil, nil
			}
			return int32(x.Cmp(y)), nil
		}},
		{"cauce_exact", []duckdb.Type{str, str, str, i32}, str, func(v []driver.Value) (any, error) {
			scale, _ := v[3].(int32)
			return orNull(exactResult(text(v[0]), text(v[1]), text(v[2]), int(scale)))
		}},
		{"cauce_event_time", []duckdb.Type{str, str}, i64, inZone(parseEventTime)},
		{"cauce_timestamp", []duckdb.Type{str, str}, i64, inZone(parseISO)},
		{"cauce_nested", []duckdb.Type{str, str, str}, str, func(v []driver.Value) (any, error) {
			t, err := nestedType(text(v[1]))
			if err != nil {
				return nil, err
			}
			z, err := zone(text(v[2]))
			if err != nil {
				return nil, err
			}
			return orNull(nestedText(text(v[0]), t, z))
		}},
		{"cauce_from_zone", []duckdb.Type{i64, str}, i64, func(v []driver.Value) (any, error) {
			us, _ := v[0].(int64)
			z, err := zone(text(v[1]))
			if err != nil {
				return nil, err
			}
			seconds := time.UnixMicro(us).Unix()
			return us + (fromZone(seconds, z)-seconds)*1_000_000, nil
		}},
		{"cauce_wall", []duckdb.Type{str}, i64, func(v []driver.Value) (any, error) { return orNull(parseWall(text(v[0]))) }},
		{"cauce_pattern_time", []duckdb.Type{str, str, str}, i64, func(v []driver.Value) (any, error) {
			z, err := zone(text(v[2]))
			if err != nil {
				return nil, err
			}
			return orNull(parsePattern(text(v[0]), text(v[1]), z))
		}},
	} {
		if err := duckdb.RegisterScalarUDF(c, f.name, f); err != nil {
			return fmt.Errorf("function %s: %w", f.name, err)
		}
	}
	return nil
}

// floatText is the shortest text of a FLOAT that reads back the same. DuckDB writes more of its digits where it has no
// decimals: 666295232.0 for 666295230.0.
func floatText(f float32) string {
	x := float64(f)
	switch {
	case math.IsNaN(x):
		return "nan"
	case math.IsInf(x, 1):
		return "inf"
	case math.IsInf(x, -1):
		return "-inf"
	}
	if a := math.Abs(x); f != 0 && (float32(a) < 1e-4 || a >= 1e16) {
		return strconv.FormatFloat(x, 'e', -1, 32)
	}
	text := strconv.FormatFloat(x, 'f', -1, 32)
	if !strings.Contains(text, ".") {
		text += ".0"
	}
	return text
}

// parseWall reads an ISO 8601 date or time without zone as what a clock shows.
func parseWall(s string) (int64, bool) {
	t := strings.Trim(s, blanks)
	// A zone would be dropped silently: refuse it. The date's own dashes lie in the first ten characters.
	if i := min(len(t), 10); strings.ContainsAny(t[i:], "+-Zz") || strings.HasSuffix(t, "UTC") || strings.HasSuffix(t, "GMT") {
		return 0, false
	}
	return parseISO(t, time.UTC)
}

var months = [...]string{"january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december"}

// parsePattern reads a time written after a pattern of %Y %y %m %d %H %I %M %S %f %p %b %B %j %z %%; everything else
// stands for itself. Numbers may lack their leading zero.
func parsePattern(s, pattern string, loc *time.Location) (int64, bool) {
	c := cursor{s: strings.Trim(s, blanks)}
	y, mo, d, yday := 1970, 1, 1, 0
	var h, mi, sec, micros, offset int
	var twelve, pm, zoned bool
	local := true
	number := func(width int) (int, bool) {
		f := leadingDigits(c.s)
		if len(f) > width {
			f = f[:width]
		}
		if f == "" {
			return 0, false
		}
		c.s = c.s[len(f):]
		v, err := strconv.Atoi(f)
		return v, err == nil
	}
	for i := 0; i < len(pattern); i++ {
		if pattern[i] != '%' || i+1 == len(pattern) {
			if c.s == "" || c.s[0] != pattern[i] {
				return 0, false
			}
			c.s = c.s[1:]
			continue
		}
		i++
		ok := true
		switch pattern[i] {
		case 'Y':
			y, ok = c.digits(4)
		case 'y':
			if y, ok = c.digits(2); ok {
				if y < 69 { // POSIX
					y += 100
				}
				y += 1900
			}
		case 'm':
			mo, ok = number(2)
		case 'd':
			d, ok = number(2)
		case 'H':
			h, ok = number(2)
		case 'I':
			h, ok = number(2)
			twelve, ok = true, ok && h >= 1 && h <= 12
		case 'M':
			mi, ok = number(2)
		case 'S':
			sec, ok = number(2)
		case 'f':
			micros, ok = c.fraction()
		case 'j':
			yday, ok = number(3)
			ok = ok && yday >= 1
		case 'p':
			switch {
			case hasFold(c.s, "am"):
			case hasFold(c.s, "pm"):
				pm = true
			default:
				return 0, false
			}
			c.s = c.s[2:]
		case 'b', 'B':
			mo, ok = c.month(pattern[i] == 'B')
		case 'z':
			// The zone ends where a character stands that cannot be part of it.
			n := 0
			for n < len(c.s) && strings.IndexByte("+-:0123456789Z", c.s[n]) >= 0 {
				n++
			}
			z := cursor{s: c.s[:n]}
			rest := c.s[n:]
			offset, local, ok = z.zone()
			zoned, c.s = true, rest
			ok = ok && !local
		case '%':
			ok = c.take("%")
		default:
			return 0, false
		}
		if !ok {
			return 0, false
		}
	}
	if c.s != "" {
		return 0, false
	}
	if twelve {
		h %= 12
		if pm {
			h += 12
		}
	}
	if yday > 0 {
		t := time.Date(y, 1, yday, 0, 0, 0, 0, time.UTC)
		if t.Year() != y {
			return 0, false
		}
		mo, d = int(t.Month()), t.Day()
	}
	if !validDate(y, mo, d) || h > 23 || mi > 59 || sec > 59 {
		return 0, false
	}
	return instant(y, mo, d, h, mi, sec, micros, offset, local && !zoned, loc)
}

func hasFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

func (c *cursor) month(long bool) (int, bool) {
	for i, m := range months {
		if long && hasFold(c.s, m) {
			c.s = c.s[len(m):]
			return i + 1, true
		}
	}
	for i, m := range months {
		if !long && hasFold(c.s, m[:3]) {
			c.s = c.s[3:]
			return i + 1, true
		}
	}
	return 0, false
}
