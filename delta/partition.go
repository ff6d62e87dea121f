package delta

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Number is an exact decimal number in plain notation, such as "-12.340".
type Number string

// Days is a date as the number of days since 1970-01-01.
type Days int32

// nullPartition is hive's folder name for a null partition value.
const nullPartition = "__HIVE_DEFAULT_PARTITION__"

// PartitionFolder is the hive-style folder of a file, "event_date=2024-08-20/symbol=BTC", with hive's escaping and no
// percent-encoding of URIs on top (see EncodePath). It is only a habit: partition values come from the log alone.
func PartitionFolder(names []string, values map[string]*string) string {
	var b strings.Builder
	for i, n := range names {
		if i > 0 {
			b.WriteByte('/')
		}
		hiveEscape(&b, n)
		b.WriteByte('=')
		if v := values[n]; v == nil || *v == "" {
			b.WriteString(nullPartition)
		} else {
			hiveEscape(&b, *v)
		}
	}
	return b.String()
}

// hiveEscape escapes what hive does in folder names, as Spark does.
func hiveEscape(b *strings.Builder, s string) {
	const hex = "0123456789ABCDEF"
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c < 0x20 || c == 0x7F || strings.IndexByte("\"#%'*/:=?\\{}[]^", c) >= 0 {
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
			continue
		}
		b.WriteByte(c)
	}
}

// FormatPartitionValue serialises a value for partitionValues (PROTOCOL.md, "Partition Value Serialization"). nil is
// null, and so is the empty string, which the protocol cannot tell from it. Accepted Go values: bool, int64 (and the
// narrower ones), float32, float64, string, []byte, Number, Days, time.Time (an instant; for timestamp_ntz its UTC
// wall clock). A value of another kind than the type gives an error.
func FormatPartitionValue(t Type, v any) (*string, error) {
	if v == nil {
		return nil, nil
	}
	s, err := formatPartition(t, v)
	if err != nil {
		return nil, err
	}
	if s == "" {
		return nil, nil
	}
	return &s, nil
}

func formatPartition(t Type, v any) (string, error) {
	bad := fmt.Errorf("%w: %T is no value of a partition column of type %s", ErrSchema, v, t)
	if _, ok := t.(Decimal); ok {
		switch v := v.(type) {
		case Number:
			return string(v), nil
		case int64:
			return strconv.FormatInt(v, 10), nil
		}
		return "", bad
	}
	p, ok := t.(Primitive)
	if !ok {
		return "", fmt.Errorf("%w: a column of type %s cannot be a partition column", ErrSchema, t)
	}
	switch p {
	case Long, Integer, Short, Byte:
		switch v := v.(type) {
		case int64:
			return strconv.FormatInt(v, 10), nil
		case int32:
			return strconv.FormatInt(int64(v), 10), nil
		case int16:
			return strconv.FormatInt(int64(v), 10), nil
		case int8:
			return strconv.FormatInt(int64(v), 10), nil
		case int:
			return strconv.FormatInt(int64(v), 10), nil
		}
	case String:
		if v, ok := v.(string); ok {
			return v, nil
		}
	case Boolean:
		if v, ok := v.(bool); ok {
			return strconv.FormatBool(v), nil
		}
	case Date:
		if v, ok := v.(Days); ok {
			t := time.Unix(int64(v)*86400, 0).UTC()
			return farYear(t) + t.Format("2006-01-02"), nil
		}
	case Timestamp:
		// The recommended form, ISO 8601 in UTC: the older one without a zone means the writer's zone, which no reader knows.
		if v, ok := v.(time.Time); ok {
			return farYear(v.UTC()) + v.UTC().Format("2006-01-02T15:04:05.000000Z"), nil
		}
	case TimestampNTZ:
		if v, ok := v.(time.Time); ok {
			return farYear(v.UTC()) + v.UTC().Format("2006-01-02 15:04:05.000000"), nil
		}
	case Float:
		switch v := v.(type) {
		case float32:
			return formatFloat(float64(v), 32), nil
		case float64:
			return formatFloat(v, 32), nil
		}
	case Double:
		if v, ok := v.(float64); ok {
			return formatFloat(v, 64), nil
		}
	case Binary:
		if v, ok := v.([]byte); ok {
			// One character per byte, as Spark and Kernel read it back.
			r := make([]rune, len(v))
			for i, b := range v {
				r[i] = rune(b)
			}
			return string(r), nil
		}
	}
	return "", bad
}

func formatFloat(f float64, bits int) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	s := strconv.FormatFloat(f, 'G', -1, bits)
	if !strings.ContainsAny(s, ".E") {
		s += ".0"
	}
	return s
}

// ParsePartitionValue reads a serialised partition value into nil, bool, int64, float64, string, []byte, Number, Days
// or time.Time (UTC), as the type asks. nil and the empty string are null for any type. A timestamp without a zone is
// taken as UTC.
func ParsePartitionValue(t Type, s *string) (any, error) {
	if s == nil || *s == "" {
		return nil, nil
	}
	v := *s
	bad := fmt.Errorf("%w: partition value %q is no %s", ErrCorrupt, v, t)
	if d, ok := t.(Decimal); ok {
		r, ok := parseRat(v)
		if !ok {
			return nil, bad
		}
		n := r.FloatString(d.S)
		if back, _ := new(big.Rat).SetString(n); back == nil || back.Cmp(r) != 0 {
			return nil, bad // more digits behind the point than the type has
		}
		if whole, _, _ := strings.Cut(strings.TrimPrefix(n, "-"), "."); whole != "0" && len(whole) > d.P-d.S {
			return nil, bad
		}
		return Number(n), nil
	}
	p, ok := t.(Primitive)
	if !ok {
		return nil, fmt.Errorf("%w: a column of type %s cannot be a partition column", ErrSchema, t)
	}
	switch p {
	case String:
		return v, nil
	case Long, Integer, Short, Byte:
		n, err := strconv.ParseInt(strings.TrimSpace(v), 10, map[Primitive]int{Long: 64, Integer: 32, Short: 16, Byte: 8}[p])
		if err != nil {
			return nil, bad
		}
		return n, nil
	case Boolean:
		switch strings.ToLower(v) {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
	case Date:
		if d, ok := parseDate(v); ok {
			return d, nil
		}
	case Timestamp, TimestampNTZ:
		if ts, _, _, ok := parseTimestamp(v); ok {
			return ts, nil
		}
	case Float, Double:
		bits := 64
		if p == Float {
			bits = 32
		}
		f, err := strconv.ParseFloat(v, bits)
		if err != nil {
			return nil, bad
		}
		return f, nil
	case Binary:
		out := make([]byte, 0, len(v))
		for i, w := 0, 0; i < len(v); i += w {
			var r rune
			r, w = utf8.DecodeRuneInString(v[i:])
			if r > 0xFF || r == utf8.RuneError && w == 1 {
				// Not one byte per character: the writer put the bytes in as text.
				return []byte(v), nil
			}
			out = append(out, byte(r))
		}
		return out, nil
	case Void:
		return nil, nil
	}
	return nil, bad
}

// parseRat reads a finite number of plain or scientific notation. Exponents are bounded: a hostile one must not cost
// memory.
func parseRat(s string) (*big.Rat, bool) {
	s = strings.TrimSpace(s)
	if len(s) == 0 || len(s) > 400 || strings.ContainsAny(s, "/_xXpPbBoO") {
		return nil, false
	}
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		if e, err := strconv.Atoi(s[i+1:]); err != nil || e > 400 || e < -400 {
			return nil, false
		}
	}
	return new(big.Rat).SetString(s)
}

// cutDate reads the date that a text begins with, and gives its midnight in UTC and what follows. Years have four digits,
// or as many as Spark writes of later ones (+10000-01-01) and of those before Christ (-0044-03-15).
func cutDate(s string) (t time.Time, rest string, ok bool) {
	sign, digits := 1, s
	if strings.HasPrefix(s, "-") {
		sign = -1
	}
	if sign < 0 || strings.HasPrefix(s, "+") {
		digits = s[1:]
	}
	n := 0
	for n < len(digits) && digits[n] >= '0' && digits[n] <= '9' {
		n++
	}
	if n < 4 || n > 7 || len(digits) < n+6 || digits[n] != '-' || digits[n+3] != '-' {
		return t, "", false
	}
	var parts [3]int
	for i, part := range []string{digits[:n], digits[n+1 : n+3], digits[n+4 : n+6]} {
		for _, c := range []byte(part) {
			if c < '0' || c > '9' {
				return t, "", false
			}
			parts[i] = parts[i]*10 + int(c-'0')
		}
	}
	t = time.Date(sign*parts[0], time.Month(parts[1]), parts[2], 0, 0, 0, 0, time.UTC)
	return t, digits[n+6:], int(t.Month()) == parts[1] && t.Day() == parts[2]
}

func parseDate(s string) (Days, bool) {
	t, rest, ok := cutDate(s)
	days := t.Unix() / 86400 // exact: midnight UTC is a multiple of a day, also before 1970
	if !ok || rest != "" || days != int64(int32(days)) {
		return 0, false
	}
	return Days(days), true
}

// parseTimestamp reads the spellings of timestamps in logs: with "T" or a space, with up to nine digits of fraction,
// with Z, an offset or no zone (then UTC). digits is the number of digits of the fraction.
func parseTimestamp(s string) (t time.Time, digits int, zoned, ok bool) {
	midnight, rest, ok := cutDate(s)
	if !ok || rest == "" {
		return midnight, 0, false, ok
	}
	if len(rest) < 9 || rest[0] != 'T' && rest[0] != ' ' {
		return time.Time{}, 0, false, false
	}
	clock, rest := rest[1:9], rest[9:]
	if strings.HasPrefix(rest, ".") {
		for digits = 0; digits+1 < len(rest) && rest[digits+1] >= '0' && rest[digits+1] <= '9'; {
			digits++
		}
		if digits == 0 || digits > 9 {
			return time.Time{}, 0, false, false
		}
		clock, rest = clock+rest[:digits+1], rest[digits+1:]
	}
	// The package time knows years of four digits only: the clock is read on a day of its own.
	base := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	day, layout := "2000-01-01T"+clock, "2006-01-02T15:04:05"
	var err error
	switch {
	case rest == "":
		t, err = time.ParseInLocation(layout, day, time.UTC)
	case rest == "Z" || rest == "z":
		zoned = true
		t, err = time.ParseInLocation(layout, day, time.UTC)
	default:
		zoned = true
		for _, zone := range []string{"-07:00", "-0700", "-07", "-07:00:00"} {
			if t, err = time.Parse(layout+zone, day+rest); err == nil {
				break
			}
		}
	}
	if err != nil {
		return time.Time{}, 0, false, false
	}
	return midnight.Add(t.Sub(base)), digits, zoned, true
}

// farYear is what the text of a date or time of a year of more than four digits begins with, as with Spark.
func farYear(t time.Time) string {
	if t.Year() > 9999 {
		return "+"
	}
	return ""
}
