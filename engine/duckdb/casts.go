package duckdb

import (
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
)

// The meaning of casts from text, pinned (DESIGN D8): a text is read exactly, blanks around it are ignored, and a
// value that the type cannot hold without losing digits or range is a failed cast. DuckDB's own casts are looser
// ('12.5' is 13, '1_000' is 1000, '0x1F' is 31, the ninth decimal vanishes), so they are used only where their answer
// is proved right (see guarded casts in render.go); everything else comes here.

const blanks = " \t\r\n"

// number is an exact decimal number: digits × 10^exp, negative if neg. digits has neither leading nor trailing zeros;
// zero has no digits.
type number struct {
	neg    bool
	digits string
	exp    int
}

// parseNumber reads [+-] digits [. digits] [e [+-] digits], with a digit on at least one side of the point.
func parseNumber(s string) (number, bool) {
	s = strings.Trim(s, blanks)
	var n number
	if s != "" && (s[0] == '+' || s[0] == '-') {
		n.neg = s[0] == '-'
		s = s[1:]
	}
	whole := leadingDigits(s)
	s = s[len(whole):]
	frac := ""
	if s != "" && s[0] == '.' {
		frac = leadingDigits(s[1:])
		s = s[1+len(frac):]
	}
	if whole == "" && frac == "" {
		return n, false
	}
	if s != "" {
		if s[0] != 'e' && s[0] != 'E' {
			return n, false
		}
		s = s[1:]
		neg := false
		if s != "" && (s[0] == '+' || s[0] == '-') {
			neg = s[0] == '-'
			s = s[1:]
		}
		if s == "" || leadingDigits(s) != s {
			return n, false
		}
		e, err := strconv.Atoi(s)
		if err != nil || e > 1_000_000 {
			e = 1_000_000 // beyond every type; only zero survives it
		}
		if neg {
			e = -e
		}
		n.exp = e
	}
	n.digits = whole + frac
	n.exp -= len(frac)
	n.digits = strings.TrimLeft(n.digits, "0")
	t := strings.TrimRight(n.digits, "0")
	n.exp += len(n.digits) - len(t)
	n.digits = t
	if n.digits == "" {
		return number{}, true
	}
	return n, true
}

func leadingDigits(s string) string {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return s[:i]
		}
	}
	return s
}

// unscaled gives the number × 10^scale as decimal digits, if that is a whole number of at most precision digits.
func (n number) unscaled(precision, scale int) (string, bool) {
	if n.digits == "" {
		return "0", true
	}
	zeros := n.exp + scale
	if zeros < 0 || len(n.digits)+zeros > precision {
		return "", false
	}
	return n.digits + strings.Repeat("0", zeros), true
}

// parseLong reads a whole number of at most 64 bits: "12", "+12", "12.0" and "1.2e1" are the same.
func parseLong(s string) (int64, bool) {
	n, ok := parseNumber(s)
	if !ok {
		return 0, false
	}
	d, ok := n.unscaled(19, 0)
	if !ok {
		return 0, false
	}
	if n.neg {
		d = "-" + d
	}
	v, err := strconv.ParseInt(d, 10, 64)
	return v, err == nil
}

// decimalText reads a DECIMAL(precision, scale) and writes it with exactly scale decimals.
func decimalText(s string, precision, scale int) (string, bool) {
	n, ok := parseNumber(s)
	if !ok {
		return "", false
	}
	d, ok := n.unscaled(precision, scale)
	if !ok {
		return "", false
	}
	return pointed(d, n.neg, scale), true
}

// exactPair reads two decimals as DuckDB writes them.
func exactPair(a, b string) (x, y *big.Rat, ok bool) {
	x, okX := new(big.Rat).SetString(a)
	y, okY := new(big.Rat).SetString(b)
	return x, y, okX && okY
}

// exactResult is the sum, difference or remainder of two decimals, with so many decimals, of which it needs no more. A
// remainder has the sign of the dividend.
func exactResult(op, a, b string, scale int) (string, bool) {
	x, y, ok := exactPair(a, b)
	if !ok {
		return "", false
	}
	switch op {
	case "+":
		x.Add(x, y)
	case "-":
		x.Sub(x, y)
	default:
		if y.Sign() == 0 {
			return "", false
		}
		q := new(big.Rat).Quo(x, y)
		whole := new(big.Int).Quo(q.Num(), q.Denom()) // towards zero
		x.Sub(x, y.Mul(y, new(big.Rat).SetInt(whole)))
	}
	return x.FloatString(scale), true
}

// pointed puts the decimal point scale digits from the right.
func pointed(digits string, neg bool, scale int) string {
	var b strings.Builder
	if neg {
		b.WriteByte('-')
	}
	if scale > 0 {
		if len(digits) <= scale {
			digits = strings.Repeat("0", scale-len(digits)+1) + digits
		}
		b.WriteString(digits[:len(digits)-scale])
		b.WriteByte('.')
		b.WriteString(digits[len(digits)-scale:])
	} else {
		b.WriteString(digits)
	}
	return b.String()
}

// parseDouble reads a number or NaN, Infinity and -Infinity (any case, "inf" too). A number that overflows is a failed
// cast; one that is rounded is not, since binary floating point rounds nearly every decimal.
func parseDouble(s string, bits int) (float64, bool) {
	s = strings.Trim(s, blanks)
	switch strings.ToLower(s) {
	case "nan":
		return math.NaN(), true
	case "inf", "+inf", "infinity", "+infinity":
		return math.Inf(1), true
	case "-inf", "-infinity":
		return math.Inf(-1), true
	}
	if _, ok := parseNumber(s); !ok {
		return 0, false
	}
	v, err := strconv.ParseFloat(s, bits)
	return v, err == nil
}

// parseBoolean reads true, t, yes, y, on, 1 and false, f, no, n, off, 0 in any case.
func parseBoolean(s string) (v, ok bool) {
	switch s { // the common spellings, without a copy
	case "true", "True":
		return true, true
	case "false", "False":
		return false, true
	}
	switch strings.ToLower(strings.Trim(s, blanks)) {
	case "true", "t", "yes", "y", "on", "1":
		return true, true
	case "false", "f", "no", "n", "off", "0":
		return false, true
	}
	return false, false
}

// Timestamps outside the years 1 to 9999 are failed casts: hardly any reader can show them.
var (
	timestampMin = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
	timestampMax = time.Date(9999, 12, 31, 23, 59, 59, 999_999_000, time.UTC).UnixMicro()
)

// parseDate reads YYYY-MM-DD and gives days since 1970-01-01.
func parseDate(s string) (int32, bool) {
	s = strings.Trim(s, blanks)
	c := cursor{s: s}
	y, m, d, ok := c.date()
	if !ok || c.s != "" {
		return 0, false
	}
	return int32(time.Date(y, time.Month(m), d, 0, 0, 0, 0, time.UTC).Unix() / 86400), true
}

// cursor eats a text from the left.
type cursor struct{ s string }

func (c *cursor) digits(n int) (int, bool) {
	if len(c.s) < n {
		return 0, false
	}
	v := 0
	for i := range n {
		d := c.s[i] - '0'
		if d > 9 {
			return 0, false
		}
		v = v*10 + int(d)
	}
	c.s = c.s[n:]
	return v, true
}

func (c *cursor) take(set string) bool {
	if c.s != "" && strings.IndexByte(set, c.s[0]) >= 0 {
		c.s = c.s[1:]
		return true
	}
	return false
}

func (c *cursor) date() (y, m, d int, ok bool) {
	if y, ok = c.digits(4); !ok {
		return
	}
	dashes := c.take("-")
	if m, ok = c.digits(2); !ok {
		return
	}
	if dashes && !c.take("-") {
		return 0, 0, 0, false
	}
	if d, ok = c.digits(2); !ok {
		return
	}
	return y, m, d, validDate(y, m, d)
}

func validDate(y, m, d int) bool {
	return y >= 1 && m >= 1 && m <= 12 && d >= 1 && d <= daysIn(y, m)
}

func daysIn(y, m int) int {
	return time.Date(y, time.Month(m)+1, 0, 0, 0, 0, 0, time.UTC).Day()
}

// fraction reads digits as a fraction of a second; what is finer than a microsecond is cut off, as for epoch times in
// nanoseconds.
func (c *cursor) fraction() (micros int, ok bool) {
	f := leadingDigits(c.s)
	if f == "" {
		return 0, false
	}
	c.s = c.s[len(f):]
	if len(f) > 6 {
		f = f[:6]
	}
	micros, _ = strconv.Atoi(f)
	for range 6 - len(f) {
		micros *= 10
	}
	return micros, true
}

// zone reads Z, UTC, GMT, ±HH, ±HHMM, ±HH:MM or nothing. local is true if there was none.
func (c *cursor) zone() (offset int, local, ok bool) {
	c.s = strings.TrimLeft(c.s, " ")
	switch {
	case c.s == "":
		return 0, true, true
	case c.s == "Z" || c.s == "z" || c.s == "UTC" || c.s == "GMT":
		c.s = ""
		return 0, false, true
	}
	neg := c.s[0] == '-'
	if !c.take("+-") {
		return 0, false, false
	}
	h, ok := c.digits(2)
	if !ok || h > 18 {
		return 0, false, false
	}
	m := 0
	if c.s != "" {
		c.take(":")
		if m, ok = c.digits(2); !ok || m > 59 {
			return 0, false, false
		}
	}
	offset = h*3600 + m*60
	if neg {
		offset = -offset
	}
	return offset, false, c.s == ""
}

// parseISO reads an ISO 8601 date or date and time, in extended or basic form, "T" or a blank between the two, with or
// without fraction and zone; a time without zone is in loc. It gives microseconds since 1970 in UTC.
func parseISO(s string, loc *time.Location) (int64, bool) {
	s = strings.Trim(s, blanks)
	c := cursor{s: s}
	y, mo, d, ok := c.date()
	if !ok {
		return 0, false
	}
	var h, mi, sec, micros int
	if c.take("Tt ") {
		if h, ok = c.digits(2); !ok || h > 23 {
			return 0, false
		}
		colons := c.take(":")
		if mi, ok = c.digits(2); !ok || mi > 59 {
			return 0, false
		}
		if colons && c.take(":") || !colons && leadingDigits(c.s) != "" {
			if sec, ok = c.digits(2); !ok || sec > 59 {
				return 0, false
			}
			if c.take(".,") {
				if micros, ok = c.fraction(); !ok {
					return 0, false
				}
			}
		}
	} else if len(s) < 10 || c.s != "" {
		return 0, false // YYYYMMDD alone is a number, not a date
	}
	offset, local, ok := c.zone()
	if !ok {
		return 0, false
	}
	return instant(y, mo, d, h, mi, sec, micros, offset, local, loc)
}

// fromZone is the instant, in seconds since 1970, at which clocks of a zone show a time. One that they skip counts with the
// offset before the change, one that they show twice with the first pass. (time.Date promises neither, nor does DuckDB's AT
// TIME ZONE keep it: which one they take depends on the side of Greenwich.)
func fromZone(shown int64, loc *time.Location) int64 {
	if loc == nil || loc == time.UTC {
		return shown
	}
	offset := func(t int64) int64 {
		_, o := time.Unix(t, 0).In(loc).Zone()
		return int64(o)
	}
	before := offset(shown - 24*3600) // no zone is that far from UTC
	t := shown - before
	after := offset(t)
	if after != before && offset(shown-after) == after {
		return shown - after // the change lies before
	}
	return t
}

func instant(y, mo, d, h, mi, sec, micros, offset int, local bool, loc *time.Location) (int64, bool) {
	t := time.Date(y, time.Month(mo), d, h, mi, sec, 0, time.UTC).Unix()
	if local {
		t = fromZone(t, loc)
	} else {
		t -= int64(offset)
	}
	us := t*1_000_000 + int64(micros)
	return us, us >= timestampMin && us <= timestampMax
}

// Epoch times tell their unit by their size: below 10^11 seconds (until the year 5138), below 10^14 milliseconds, below
// 10^17 microseconds, else nanoseconds.
const (
	epochSecondsBelow = 100_000_000_000
	epochMillisBelow  = 100_000_000_000_000
	epochMicrosBelow  = 100_000_000_000_000_000
)

// parseEventTime reads what people call a time: an epoch in seconds (with or without fraction), ms, µs or ns, or ISO
// 8601. What is finer than a microsecond is cut off.
func parseEventTime(s string, loc *time.Location) (int64, bool) {
	n, ok := parseNumber(s)
	if !ok {
		return parseISO(s, loc)
	}
	if n.digits == "" {
		return 0, true
	}
	if n.exp+len(n.digits) > 19 || n.exp < -30 {
		return 0, false
	}
	v, _ := new(big.Int).SetString(n.digits, 10)
	// The unit by the whole part.
	whole := n.exp + len(n.digits) // digits before the point
	shift := 0
	switch {
	case whole <= 11:
		shift = 6
	case whole <= 14:
		shift = 3
	case whole <= 17:
		shift = 0
	default:
		shift = -3
	}
	e := n.exp + shift
	if n.neg {
		v.Neg(v)
	}
	if e >= 0 {
		v.Mul(v, pow10(e))
	} else {
		v.Div(v, pow10(-e)) // towards the past: Div is Euclidean and the divisor positive
	}
	if !v.IsInt64() {
		return 0, false
	}
	us := v.Int64()
	return us, us >= timestampMin && us <= timestampMax
}

func pow10(n int) *big.Int { return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil) }
