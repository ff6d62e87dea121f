package expr

import (
	"bytes"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
)

func integral(t arrow.DataType) bool {
	switch t.ID() {
	case arrow.INT8, arrow.INT16, arrow.INT32, arrow.INT64:
		return true
	}
	return false
}

func floating(t arrow.DataType) bool { return t.ID() == arrow.FLOAT32 || t.ID() == arrow.FLOAT64 }

func numeric(t arrow.DataType) bool {
	return integral(t) || floating(t) || t.ID() == arrow.DECIMAL128
}

func width(t arrow.DataType) int {
	switch t.ID() {
	case arrow.INT8:
		return 8
	case arrow.INT16:
		return 16
	case arrow.INT32:
		return 32
	}
	return 64
}

func isNTZ(t arrow.DataType) bool {
	ts, ok := t.(*arrow.TimestampType)
	return ok && ts.TimeZone == ""
}

// decimalOf is the decimal type that holds every value of an exact type; a literal needs only its own digits.
func decimalOf(n *node) *arrow.Decimal128Type {
	if d, ok := n.typ.(*arrow.Decimal128Type); ok {
		return d
	}
	if v, ok := n.lit.(int64); ok && n.isLit {
		return &arrow.Decimal128Type{Precision: int32(len(strings.TrimPrefix(strconv.FormatInt(v, 10), "-")))}
	}
	return &arrow.Decimal128Type{Precision: map[int]int32{8: 3, 16: 5, 32: 10, 64: 20}[width(n.typ)]}
}

// bounded cuts a decimal type that has too many digits as Spark does: at least six digits stay behind the point.
func bounded(p, s int32) *arrow.Decimal128Type {
	if p > 38 {
		whole := p - s
		s = max(38-whole, min(s, 6))
		p = 38
	}
	return &arrow.Decimal128Type{Precision: p, Scale: s}
}

// common is the type to which values of two types are brought before they are compared or put side by side.
func common(a, b *node) (arrow.DataType, bool) {
	x, y := a.typ, b.typ
	switch {
	case arrow.TypeEqual(x, y):
		return x, true
	case x.ID() == arrow.NULL:
		return y, true
	case y.ID() == arrow.NULL:
		return x, true
	case integral(x) && integral(y):
		if width(x) >= width(y) {
			return x, true
		}
		return y, true
	case numeric(x) && numeric(y):
		if floating(x) || floating(y) { // of different types: a FLOAT beside a number of another type becomes a DOUBLE too
			return tDouble, true
		}
		d, e := decimalOf(a), decimalOf(b)
		s := max(d.Scale, e.Scale)
		return bounded(max(d.Precision-d.Scale, e.Precision-e.Scale)+s, s), true
	case x.ID() == arrow.STRING:
		return fromText(y)
	case y.ID() == arrow.STRING:
		return fromText(x)
	case temporal(x) && temporal(y):
		if x.ID() == arrow.DATE32 {
			return y, true
		}
		if y.ID() == arrow.DATE32 {
			return x, true
		}
		return tTime, true
	}
	return nil, false
}

func temporal(t arrow.DataType) bool { return t.ID() == arrow.DATE32 || t.ID() == arrow.TIMESTAMP }

// fromText is what a text is cast to beside a value of another type, as Spark does in ANSI mode.
func fromText(t arrow.DataType) (arrow.DataType, bool) {
	switch {
	case integral(t):
		return tLong, true
	case numeric(t):
		return tDouble, true
	case temporal(t), t.ID() == arrow.BOOL, t.ID() == arrow.BINARY:
		return t, true
	}
	return nil, false
}

// unify brings nodes to their common type.
func unify(ns []*node) ([]*node, arrow.DataType, error) {
	acc := ns[0]
	for _, n := range ns[1:] {
		t, ok := common(acc, n)
		if !ok {
			return nil, nil, badType("%s and %s have no common type", TypeName(acc.typ), TypeName(n.typ))
		}
		// A constant has fewer digits than others of its type may have.
		if !arrow.TypeEqual(t, acc.typ) || integral(t) && decimalOf(n).Precision > decimalOf(acc).Precision {
			acc = newNode(t, nil)
		}
	}
	out := make([]*node, len(ns))
	for i, n := range ns {
		c, err := castNode(n, acc.typ, false)
		if err != nil {
			return nil, nil, err
		}
		out[i] = c
	}
	return out, acc.typ, nil
}

// assignable is Spark's rule of ANSI store assignment.
func assignable(from, to arrow.DataType) bool {
	switch {
	case arrow.TypeEqual(from, to), from.ID() == arrow.NULL:
		return true
	case numeric(from) && numeric(to), temporal(from) && temporal(to):
		return true
	case to.ID() == arrow.STRING:
		return numeric(from) || temporal(from) || from.ID() == arrow.BOOL
	}
	return false
}

func castNode(n *node, t arrow.DataType, try bool) (*node, error) {
	if arrow.TypeEqual(n.typ, t) {
		return n, nil
	}
	if n.typ.ID() == arrow.NULL {
		return newNode(t, func(r *row) (any, error) { return nil, nil }), nil
	}
	conv := converter(n.typ, t)
	if conv == nil {
		return nil, badType("%s cannot be cast to %s", TypeName(n.typ), TypeName(t))
	}
	out := newNode(t, func(r *row) (any, error) {
		v, err := n.eval(r)
		if v == nil || err != nil {
			return nil, err
		}
		x, ok := conv(v)
		if !ok {
			if try {
				return nil, nil
			}
			return nil, badValue("%s %s does not fit %s", TypeName(n.typ), show(v), TypeName(t))
		}
		return x, nil
	})
	return out, nil
}

func show(v any) string {
	switch v := v.(type) {
	case string:
		if len(v) > 80 {
			v = v[:80] + "…"
		}
		return strconv.Quote(v)
	case nested:
		return v.arr.ValueStr(v.i)
	}
	s, _ := toText(v, nil)
	return s
}

// converter gives the cast between two types, nil if there is none. The cast says false for a value that does not fit.
func converter(from, to arrow.DataType) func(any) (any, bool) {
	fits := func(v int64) (any, bool) {
		w := width(to)
		return v, w == 64 || v >= -(1<<(w-1)) && v < 1<<(w-1)
	}
	dt, toDec := to.(*arrow.Decimal128Type)
	decimal := func(d dec) (any, bool) {
		d = d.rescale(dt.Scale)
		return d, len(new(big.Int).Abs(d.v).String()) <= int(dt.Precision)
	}
	switch {
	case to.ID() == arrow.STRING:
		switch {
		case numeric(from), temporal(from), from.ID() == arrow.BOOL, from.ID() == arrow.BINARY:
			return func(v any) (any, bool) { s, ok := toText(v, from); return s, ok }
		}
		return nil
	case to.ID() == arrow.BINARY && from.ID() == arrow.STRING:
		return func(v any) (any, bool) { return []byte(v.(string)), true }
	case integral(to):
		switch {
		case integral(from):
			return func(v any) (any, bool) { return fits(v.(int64)) }
		case floating(from):
			return func(v any) (any, bool) {
				f := math.Trunc(v.(float64))
				if !(f >= -(1<<63) && f < 1<<63) {
					return nil, false
				}
				return fits(int64(f))
			}
		case from.ID() == arrow.DECIMAL128:
			return func(v any) (any, bool) {
				d := v.(dec)
				q := new(big.Int).Quo(d.v, pow10(d.scale))
				if !q.IsInt64() {
					return nil, false
				}
				return fits(q.Int64())
			}
		case from.ID() == arrow.BOOL:
			return func(v any) (any, bool) {
				if v.(bool) {
					return int64(1), true
				}
				return int64(0), true
			}
		case from.ID() == arrow.STRING:
			return func(v any) (any, bool) {
				n, err := strconv.ParseInt(strings.TrimSpace(v.(string)), 10, 64)
				if err != nil {
					return nil, false
				}
				return fits(n)
			}
		case from.ID() == arrow.TIMESTAMP && !isNTZ(from):
			return func(v any) (any, bool) { return fits(floorDiv(int64(v.(Timestamp)), 1_000_000)) }
		}
	case floating(to):
		round := func(f float64) (any, bool) {
			if to.ID() == arrow.FLOAT32 {
				f = float64(float32(f))
			}
			return f, true
		}
		switch {
		case integral(from):
			return func(v any) (any, bool) { return round(float64(v.(int64))) }
		case floating(from):
			return func(v any) (any, bool) { return round(v.(float64)) }
		case from.ID() == arrow.DECIMAL128:
			return func(v any) (any, bool) { return round(v.(dec).float()) }
		case from.ID() == arrow.STRING:
			return func(v any) (any, bool) {
				f, ok := parseFloat(v.(string))
				if !ok {
					return nil, false
				}
				return round(f)
			}
		case from.ID() == arrow.BOOL:
			return func(v any) (any, bool) {
				if v.(bool) {
					return 1.0, true
				}
				return 0.0, true
			}
		}
	case toDec:
		switch {
		case integral(from):
			return func(v any) (any, bool) { return decimal(dec{big.NewInt(v.(int64)), 0}) }
		case from.ID() == arrow.DECIMAL128:
			return func(v any) (any, bool) { return decimal(v.(dec)) }
		case floating(from):
			return func(v any) (any, bool) {
				bits := 64
				if from.ID() == arrow.FLOAT32 {
					bits = 32
				}
				d, ok := parseDec(strconv.FormatFloat(v.(float64), 'e', -1, bits))
				if !ok {
					return nil, false
				}
				return decimal(d)
			}
		case from.ID() == arrow.STRING:
			return func(v any) (any, bool) {
				d, ok := parseDec(strings.TrimSpace(v.(string)))
				if !ok {
					return nil, false
				}
				return decimal(d)
			}
		}
	case to.ID() == arrow.BOOL:
		switch {
		case integral(from):
			return func(v any) (any, bool) { return v.(int64) != 0, true }
		case floating(from):
			return func(v any) (any, bool) { return v.(float64) != 0, true }
		case from.ID() == arrow.DECIMAL128:
			return func(v any) (any, bool) { return v.(dec).v.Sign() != 0, true }
		case from.ID() == arrow.STRING:
			return func(v any) (any, bool) {
				switch strings.ToLower(strings.TrimSpace(v.(string))) {
				case "t", "true", "y", "yes", "1":
					return true, true
				case "f", "false", "n", "no", "0":
					return false, true
				}
				return nil, false
			}
		}
	case to.ID() == arrow.DATE32:
		switch from.ID() {
		case arrow.TIMESTAMP:
			return func(v any) (any, bool) { return Date(floorDiv(int64(v.(Timestamp)), dayMicros)), true }
		case arrow.STRING:
			return func(v any) (any, bool) {
				us, _, ok := parseTime(v.(string))
				return Date(floorDiv(us, dayMicros)), ok
			}
		}
	case to.ID() == arrow.TIMESTAMP:
		switch {
		case from.ID() == arrow.TIMESTAMP:
			return func(v any) (any, bool) { return v, true } // the session's zone is UTC
		case from.ID() == arrow.DATE32:
			return func(v any) (any, bool) { return Timestamp(int64(v.(Date)) * dayMicros), true }
		case from.ID() == arrow.STRING:
			return func(v any) (any, bool) {
				us, zone, ok := parseTime(v.(string))
				if !isNTZ(to) {
					us -= zone
				}
				return Timestamp(us), ok
			}
		case integral(from) && !isNTZ(to):
			return func(v any) (any, bool) {
				n := v.(int64)
				return Timestamp(n * 1_000_000), n >= math.MinInt64/1_000_000 && n <= math.MaxInt64/1_000_000
			}
		}
	}
	return nil
}

const dayMicros = 86_400_000_000

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

func pow10(n int32) *big.Int { return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil) }

// rescale rounds half away from zero where digits fall off.
func (d dec) rescale(scale int32) dec {
	switch {
	case scale == d.scale:
		return d
	case scale > d.scale:
		return dec{new(big.Int).Mul(d.v, pow10(scale-d.scale)), scale}
	}
	return dec{divHalfUp(d.v, pow10(d.scale-scale)), scale}
}

func divHalfUp(a, b *big.Int) *big.Int {
	q, r := new(big.Int).QuoRem(a, b, new(big.Int))
	if new(big.Int).Abs(new(big.Int).Lsh(r, 1)).Cmp(new(big.Int).Abs(b)) >= 0 {
		if a.Sign()*b.Sign() < 0 {
			return q.Sub(q, big.NewInt(1))
		}
		return q.Add(q, big.NewInt(1))
	}
	return q
}

func (d dec) text() string {
	s := new(big.Int).Abs(d.v).String()
	if d.scale > 0 {
		if n := int(d.scale) + 1 - len(s); n > 0 {
			s = strings.Repeat("0", n) + s
		}
		s = s[:len(s)-int(d.scale)] + "." + s[len(s)-int(d.scale):]
	}
	if d.v.Sign() < 0 {
		return "-" + s
	}
	return s
}

func (d dec) float() float64 {
	f, _ := strconv.ParseFloat(d.text(), 64)
	return f
}

func (d dec) compare(e dec) int {
	s := max(d.scale, e.scale)
	return d.rescale(s).v.Cmp(e.rescale(s).v)
}

// parseDec reads a decimal number with or without an exponent.
func parseDec(s string) (dec, bool) {
	mant, exp := s, int64(0)
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		e, err := strconv.ParseInt(s[i+1:], 10, 32)
		if err != nil || e > 400 || e < -400 {
			return dec{}, false
		}
		mant, exp = s[:i], e
	}
	whole, frac, _ := strings.Cut(mant, ".")
	digits := whole + frac
	body := strings.TrimLeft(digits, "+-")
	if body == "" || len(digits)-len(body) > 1 || len(body) > 500 || strings.ContainsAny(frac, "+-") || strings.Trim(body, "0123456789") != "" {
		return dec{}, false
	}
	v, ok := new(big.Int).SetString(digits, 10)
	if !ok {
		return dec{}, false
	}
	scale := int64(len(frac)) - exp
	if scale < 0 {
		return dec{v.Mul(v, pow10(int32(-scale))), 0}, true
	}
	return dec{v, int32(scale)}, true
}

func parseFloat(s string) (float64, bool) {
	s = strings.TrimSpace(s)
	if strings.ContainsAny(s, "xX_pP") {
		return 0, false
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil && !math.IsInf(f, 0) {
		return 0, false
	}
	return f, true
}

// parseTime reads a date or a time as Spark casts text. zone is the zone's offset in µs, 0 if the text has none.
func parseTime(s string) (us, zone int64, ok bool) {
	s = strings.TrimSpace(s)
	for _, layout := range []string{
		"2006-01-02", "2006-01-02 15:04:05.999999", "2006-01-02T15:04:05.999999", "2006-01-02 15:04", "2006-01-02T15:04",
		"2006-01-02 15:04:05.999999Z07:00", "2006-01-02T15:04:05.999999Z07:00", "2006-01-02 15:04:05.999999-07", "2006-01-02T15:04:05.999999-07", "2006-1-2",
	} {
		if t, err := time.Parse(layout, s); err == nil {
			_, off := t.Zone()
			zone = int64(off) * 1_000_000
			return t.UnixMicro() + zone, zone, true
		}
	}
	return 0, 0, false
}

// toText is CAST(v AS STRING).
func toText(v any, from arrow.DataType) (string, bool) {
	switch v := v.(type) {
	case nil:
		return "NULL", true
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case int64:
		return strconv.FormatInt(v, 10), true
	case float64:
		bits := 64
		if from != nil && from.ID() == arrow.FLOAT32 {
			bits = 32
		}
		return floatText(v, bits), true
	case dec:
		return v.text(), true
	case []byte:
		return string(v), true
	case Date:
		return formatDate(v), true
	case Timestamp:
		return formatTimestamp(int64(v)), true
	}
	return "", false
}

// floatText is Java's Double.toString, which Spark shows.
func floatText(f float64, bits int) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	case f == 0:
		if math.Signbit(f) {
			return "-0.0"
		}
		return "0.0"
	}
	if a := math.Abs(f); a >= 1e-3 && a < 1e7 {
		s := strconv.FormatFloat(f, 'f', -1, bits)
		if !strings.Contains(s, ".") {
			s += ".0"
		}
		return s
	}
	s := strconv.FormatFloat(f, 'E', -1, bits)
	mant, exp, _ := strings.Cut(s, "E")
	if !strings.Contains(mant, ".") {
		mant += ".0"
	}
	n, _ := strconv.Atoi(exp)
	return mant + "E" + strconv.Itoa(n)
}

// compare orders two values of one type that are not null; NaN is the greatest and equal to itself, as in Spark. ok is
// false for types without an order.
func compare(a, b any) (int, bool) {
	switch x := a.(type) {
	case bool:
		y, ok := b.(bool)
		switch {
		case x == y:
			return 0, ok
		case x:
			return 1, ok
		}
		return -1, ok
	case int64:
		y, ok := b.(int64)
		return cmp(x, y), ok
	case Date:
		y, ok := b.(Date)
		return cmp(x, y), ok
	case Timestamp:
		y, ok := b.(Timestamp)
		return cmp(x, y), ok
	case float64:
		y, ok := b.(float64)
		switch nx, ny := math.IsNaN(x), math.IsNaN(y); {
		case nx && ny:
			return 0, ok
		case nx:
			return 1, ok
		case ny:
			return -1, ok
		}
		return cmp(x, y), ok
	case string:
		y, ok := b.(string)
		return strings.Compare(x, y), ok
	case []byte:
		y, ok := b.([]byte)
		return bytes.Compare(x, y), ok
	case dec:
		y, ok := b.(dec)
		if !ok {
			return 0, false
		}
		return x.compare(y), true
	}
	return 0, false
}

func cmp[T int64 | Date | Timestamp | float64](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
