package expr

import (
	"crypto/md5" //nolint:gosec // the SQL function of that name
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
)

// Functions lists the functions that Call knows beside the operators.
func Functions() []string {
	out := []string{"coalesce", "ifnull", "nvl", "nullif", "if", "iff", "greatest", "least", "abs", "round", "ceil", "ceiling", "floor", "mod",
		"current_timestamp", "now", "current_date", "concat", "date_trunc", "isnull", "isnotnull"}
	for n := range simple {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// fn is a function that is null if an argument is.
type fn struct {
	args []arrow.DataType // what arguments are cast to
	opt  int              // how many of them may be left out at the end
	out  arrow.DataType
	call func(a []any) (any, error)
}

func civil(v any) time.Time { return time.UnixMicro(int64(v.(Timestamp))).UTC() }

func part(f func(time.Time) int) fn {
	return fn{[]arrow.DataType{tTime}, 0, tInt, func(a []any) (any, error) { return int64(f(civil(a[0]))), nil }}
}

func text(f func(string) string) fn {
	return fn{[]arrow.DataType{tString}, 0, tString, func(a []any) (any, error) { return f(a[0].(string)), nil }}
}

func math1(f func(float64) float64) fn {
	return fn{[]arrow.DataType{tDouble}, 0, tDouble, func(a []any) (any, error) { return f(a[0].(float64)), nil }}
}

func trim(cut func(string, string) string) fn {
	return fn{[]arrow.DataType{tString, tString}, 1, tString, func(a []any) (any, error) {
		set := " "
		if len(a) > 1 {
			set = a[1].(string)
		}
		return cut(a[0].(string), set), nil
	}}
}

func two(f func(a, b string) any, out arrow.DataType) fn {
	return fn{[]arrow.DataType{tString, tString}, 0, out, func(a []any) (any, error) { return f(a[0].(string), a[1].(string)), nil }}
}

const textMax = 64 << 20 // bytes that a function may make

var simple map[string]fn

func init() {
	S, I := tString, tInt
	simple = map[string]fn{
		"upper": text(strings.ToUpper), "ucase": text(strings.ToUpper), "lower": text(strings.ToLower), "lcase": text(strings.ToLower),
		"trim": trim(strings.Trim), "ltrim": trim(strings.TrimLeft), "rtrim": trim(strings.TrimRight),
		"reverse":   text(func(s string) string { r := []rune(s); slices.Reverse(r); return string(r) }),
		"length":    {[]arrow.DataType{S}, 0, I, func(a []any) (any, error) { return int64(utf8.RuneCountInString(a[0].(string))), nil }},
		"substring": {[]arrow.DataType{S, I, I}, 1, S, substring},
		"left": {[]arrow.DataType{S, I}, 0, S, func(a []any) (any, error) {
			r := []rune(a[0].(string))
			return string(r[:min(max(a[1].(int64), 0), int64(len(r)))]), nil
		}},
		"right": {[]arrow.DataType{S, I}, 0, S, func(a []any) (any, error) {
			r := []rune(a[0].(string))
			return string(r[int64(len(r))-min(max(a[1].(int64), 0), int64(len(r))):]), nil
		}},
		"replace": {[]arrow.DataType{S, S, S}, 1, S, func(a []any) (any, error) {
			with := ""
			if len(a) > 2 {
				with = a[2].(string)
			}
			s, old := a[0].(string), a[1].(string)
			if old == "" {
				return s, nil
			}
			if len(s)+strings.Count(s, old)*len(with) > textMax {
				return nil, badValue("replace makes more than %d bytes", textMax)
			}
			return strings.ReplaceAll(s, old, with), nil
		}},
		"repeat": {[]arrow.DataType{S, I}, 0, S, func(a []any) (any, error) {
			s, n := a[0].(string), max(a[1].(int64), 0)
			if int64(len(s))*n > textMax {
				return nil, badValue("repeat makes more than %d bytes", textMax)
			}
			return strings.Repeat(s, int(n)), nil
		}},
		"startswith": two(func(a, b string) any { return strings.HasPrefix(a, b) }, tBool),
		"endswith":   two(func(a, b string) any { return strings.HasSuffix(a, b) }, tBool),
		"contains":   two(func(a, b string) any { return strings.Contains(a, b) }, tBool),
		"instr": two(func(a, b string) any {
			i := strings.Index(a, b)
			if i < 0 {
				return int64(0)
			}
			return int64(utf8.RuneCountInString(a[:i]) + 1)
		}, I),
		"md5": {[]arrow.DataType{tBinary}, 0, S, func(a []any) (any, error) {
			h := md5.Sum(a[0].([]byte)) //nolint:gosec // not for security
			return hex.EncodeToString(h[:]), nil
		}},
		"sha256": {[]arrow.DataType{tBinary}, 0, S, func(a []any) (any, error) {
			h := sha256.Sum256(a[0].([]byte))
			return hex.EncodeToString(h[:]), nil
		}},
		"sqrt": math1(math.Sqrt), "exp": math1(math.Exp),
		"pow":   {[]arrow.DataType{tDouble, tDouble}, 0, tDouble, func(a []any) (any, error) { return math.Pow(a[0].(float64), a[1].(float64)), nil }},
		"isnan": {[]arrow.DataType{tDouble}, 0, tBool, func(a []any) (any, error) { return math.IsNaN(a[0].(float64)), nil }},
		"year":  part(time.Time.Year), "month": part(func(t time.Time) int { return int(t.Month()) }), "day": part(time.Time.Day),
		"dayofmonth": part(time.Time.Day), "hour": part(time.Time.Hour), "minute": part(time.Time.Minute), "second": part(time.Time.Second),
		"quarter": part(func(t time.Time) int { return (int(t.Month()) + 2) / 3 }), "dayofyear": part(time.Time.YearDay),
		"date_add":    {[]arrow.DataType{tDate, I}, 0, tDate, func(a []any) (any, error) { return Date(int64(a[0].(Date)) + a[1].(int64)), nil }},
		"date_sub":    {[]arrow.DataType{tDate, I}, 0, tDate, func(a []any) (any, error) { return Date(int64(a[0].(Date)) - a[1].(int64)), nil }},
		"datediff":    {[]arrow.DataType{tDate, tDate}, 0, I, func(a []any) (any, error) { return int64(a[0].(Date)) - int64(a[1].(Date)), nil }},
		"dayofweek":   part(func(t time.Time) int { return int(t.Weekday()) + 1 }),
		"weekofyear":  part(func(t time.Time) int { _, w := t.ISOWeek(); return w }),
		"date_format": {[]arrow.DataType{tTime, S}, 0, S, dateFormat},
		"trunc": {[]arrow.DataType{tDate, S}, 0, tDate, func(a []any) (any, error) {
			unit := strings.ToLower(a[1].(string))
			switch unit {
			case "year", "yyyy", "yy", "quarter", "month", "mon", "mm", "week":
			default:
				return nil, nil
			}
			v, err := truncate([]any{unit, Timestamp(int64(a[0].(Date)) * dayMicros)})
			if err != nil || v == nil {
				return nil, err
			}
			return Date(floorDiv(int64(v.(Timestamp)), dayMicros)), nil
		}},
		"sign":         {[]arrow.DataType{tDouble}, 0, tDouble, func(a []any) (any, error) { return float64(sign(a[0])), nil }},
		"lpad":         {[]arrow.DataType{S, I, S}, 1, S, func(a []any) (any, error) { return pad(a, true) }},
		"rpad":         {[]arrow.DataType{S, I, S}, 1, S, func(a []any) (any, error) { return pad(a, false) }},
		"to_date":      {[]arrow.DataType{tDate}, 0, tDate, func(a []any) (any, error) { return a[0], nil }},
		"to_timestamp": {[]arrow.DataType{tTime}, 0, tTime, func(a []any) (any, error) { return a[0], nil }},
	}
	for alias, of := range map[string]string{"substr": "substring", "char_length": "length", "signum": "sign", "week": "weekofyear", "power": "pow", "date": "to_date",
		"starts_with": "startswith", "ends_with": "endswith", "strpos": "instr"} {
		simple[alias] = simple[of]
	}
}

// dateFormat knows the letters of Spark's patterns that give numbers.
func dateFormat(a []any) (any, error) {
	t, p := civil(a[0]), a[1].(string)
	var b strings.Builder
	for i := 0; i < len(p); {
		c := p[i]
		if c == '\'' { // quoted text; two quotes are one
			end := strings.IndexByte(p[i+1:], '\'')
			if end < 0 {
				return nil, badValue("the pattern %q has an open quote", p)
			}
			if end == 0 {
				b.WriteByte('\'')
			}
			b.WriteString(p[i+1 : i+1+end])
			i += end + 2
			continue
		}
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			b.WriteByte(c)
			i++
			continue
		}
		n := 1
		for i+n < len(p) && p[i+n] == c {
			n++
		}
		part, known := map[byte]int{'y': t.Year(), 'M': int(t.Month()), 'd': t.Day(), 'H': t.Hour(), 'm': t.Minute(), 's': t.Second(), 'D': t.YearDay(), 'S': t.Nanosecond()}[c]
		switch {
		case !known, c == 'y' && n != 4 && n != 2 && n != 1, strings.IndexByte("MdHms", c) >= 0 && n > 2, c == 'D' && n > 3, c == 'S' && n > 6:
			return nil, badValue("the pattern %q has letters (%s) that are not known here", p, p[i:i+n])
		case c == 'y' && n == 2:
			part %= 100
		case c == 'S':
			for range 9 - n {
				part /= 10
			}
		}
		fmt.Fprintf(&b, "%0*d", n, part)
		i += n
	}
	return b.String(), nil
}

// pad makes a text as long as wanted, by cutting or by repeating another.
func pad(a []any, left bool) (any, error) {
	s, n, with := []rune(a[0].(string)), max(a[1].(int64), 0), []rune(" ")
	if len(a) > 2 {
		with = []rune(a[2].(string))
	}
	if int64(len(s)) >= n || len(with) == 0 {
		return string(s[:min(n, int64(len(s)))]), nil
	}
	if n > textMax/4 {
		return nil, badValue("padding makes more than %d characters", textMax/4)
	}
	fill := make([]rune, n-int64(len(s)))
	for i := range fill {
		fill[i] = with[i%len(with)]
	}
	if left {
		return string(fill) + string(s), nil
	}
	return string(s) + string(fill), nil
}

func substring(a []any) (any, error) {
	r := []rune(a[0].(string))
	n, from, count := int64(len(r)), a[1].(int64), int64(math.MaxInt32)
	if len(a) > 2 {
		count = a[2].(int64)
	}
	switch {
	case from > 0:
		from--
	case from < 0:
		from += n
	}
	to := min(from+count, n)
	from = max(from, 0)
	if to <= from || from >= n {
		return "", nil
	}
	return string(r[from:to]), nil
}

func (c *compiler) call(e Call, args []*node) (*node, error) {
	wrap := func(n *node, err error) (*node, error) {
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e, err)
		}
		return n, nil
	}
	need := func(n int) error {
		if len(args) != n {
			return badType("%s takes %d arguments, not %d", e.Func, n, len(args))
		}
		return nil
	}
	switch e.Func {
	case "and", "or":
		for i, a := range args {
			if !boolean(a.typ) {
				return nil, badType("%s is %s, not a BOOLEAN", e.Args[i], TypeName(a.typ))
			}
		}
		return logic(args, e.Func == "or"), nil
	case "not":
		if err := need(1); err != nil {
			return nil, err
		}
		if !boolean(args[0].typ) {
			return nil, badType("%s is %s, not a BOOLEAN", e.Args[0], TypeName(args[0].typ))
		}
		return strict(tBool, args, func(a []any) (any, error) { return !a[0].(bool), nil }), nil
	case "is null", "is not null", "isnull", "isnotnull":
		if err := need(1); err != nil {
			return nil, err
		}
		want := e.Func == "is null" || e.Func == "isnull"
		return newNode(tBool, func(r *row) (any, error) {
			v, err := args[0].eval(r)
			return (v == nil) == want, err
		}), nil
	case "=", "<>", "<", "<=", ">", ">=", "<=>":
		if err := need(2); err != nil {
			return nil, err
		}
		return wrap(comparison(e.Func, args))
	case "in":
		if len(args) < 2 {
			return nil, badType("IN without values")
		}
		return wrap(in(args))
	case "+", "-", "*", "/", "%", "mod", "div":
		if e.Func == "-" && len(args) == 1 {
			return wrap(negate(args[0]))
		}
		if err := need(2); err != nil {
			return nil, err
		}
		op := e.Func
		if op == "mod" {
			op = "%"
		}
		return wrap(arithmetic(op, args[0], args[1]))
	case "neg":
		if err := need(1); err != nil {
			return nil, err
		}
		return wrap(negate(args[0]))
	case "||", "concat":
		cast, err := castAll(args, slices.Repeat([]arrow.DataType{tString}, len(args)))
		if err != nil {
			return wrap(nil, err)
		}
		return strict(tString, cast, func(a []any) (any, error) {
			var b strings.Builder
			for _, s := range a {
				if b.WriteString(s.(string)); b.Len() > textMax {
					return nil, badValue("concat makes more than %d bytes", textMax)
				}
			}
			return b.String(), nil
		}), nil
	case "like":
		if err := need(2); err != nil {
			return nil, err
		}
		cast, err := castAll(args, []arrow.DataType{tString, tString})
		if err != nil {
			return wrap(nil, err)
		}
		return strict(tBool, cast, func(a []any) (any, error) { return like([]rune(a[0].(string)), []rune(a[1].(string))) }), nil
	case "coalesce", "ifnull", "nvl", "greatest", "least":
		if len(args) == 0 {
			return nil, badType("%s without arguments", e.Func)
		}
		ns, t, err := unify(args)
		if err != nil {
			return wrap(nil, err)
		}
		sign := map[string]int{"greatest": 1, "least": -1}[e.Func]
		return newNode(t, func(r *row) (any, error) {
			var best any
			for _, n := range ns {
				v, err := n.eval(r)
				if err != nil {
					return nil, err
				}
				if v == nil {
					continue
				}
				if sign == 0 {
					return v, nil
				}
				if best == nil {
					best = v
				} else if d, ok := compare(v, best); ok && d*sign > 0 {
					best = v
				}
			}
			return best, nil
		}), nil
	case "nullif":
		if err := need(2); err != nil {
			return nil, err
		}
		eq, err := comparison("=", args)
		if err != nil {
			return wrap(nil, err)
		}
		return newNode(args[0].typ, func(r *row) (any, error) {
			v, err := eq.eval(r)
			if err != nil || v == true {
				return nil, err
			}
			return args[0].eval(r)
		}), nil
	case "if", "iff":
		if err := need(3); err != nil {
			return nil, err
		}
		ns, t, err := unify(args[1:])
		if err != nil || !boolean(args[0].typ) {
			return wrap(nil, cmpErr(err, badType("the first argument must be a BOOLEAN")))
		}
		return newNode(t, func(r *row) (any, error) {
			v, err := args[0].eval(r)
			if err != nil {
				return nil, err
			}
			if v == true {
				return ns[0].eval(r)
			}
			return ns[1].eval(r)
		}), nil
	case "abs":
		if err := need(1); err != nil {
			return nil, err
		}
		neg, err := negate(args[0])
		if err != nil {
			return wrap(nil, err)
		}
		return newNode(neg.typ, func(r *row) (any, error) {
			v, err := args[0].eval(r)
			if err != nil || v == nil || sign(v) >= 0 {
				return v, err
			}
			return neg.eval(r)
		}), nil
	case "round", "ceil", "ceiling", "floor":
		return wrap(rounding(e.Func, args))
	case "current_timestamp", "now", "current_date":
		if c.o.Now == 0 {
			return nil, badType("%s has no place here: its value changes", e.Func)
		}
		if e.Func == "current_date" {
			return literal(Literal{Date(floorDiv(int64(c.o.Now), dayMicros))})
		}
		return literal(Literal{c.o.Now})
	case "date_trunc":
		if err := need(2); err != nil {
			return nil, err
		}
		cast, err := castAll(args, []arrow.DataType{tString, tTime})
		if err != nil {
			return wrap(nil, err)
		}
		return strict(tTime, cast, truncate), nil
	}
	f, ok := simple[e.Func]
	if !ok {
		return nil, badType("function %s is not known here", e.Func)
	}
	if len(args) > len(f.args) || len(args) < len(f.args)-f.opt {
		return nil, badType("%s does not take %d arguments", e.Func, len(args))
	}
	cast, err := castAll(args, f.args[:len(args)])
	if err != nil {
		return wrap(nil, err)
	}
	return strict(f.out, cast, f.call), nil
}

func cmpErr(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func castAll(args []*node, types []arrow.DataType) ([]*node, error) {
	out := make([]*node, len(args))
	for i, a := range args {
		n, err := castNode(a, types[i], false)
		if err != nil {
			return nil, err
		}
		out[i] = n
	}
	return out, nil
}

// strict calls f where no argument is null.
func strict(t arrow.DataType, args []*node, f func([]any) (any, error)) *node {
	return newNode(t, func(r *row) (any, error) {
		var few [4]any
		vals := few[:0]
		for _, a := range args {
			v, err := a.eval(r)
			if err != nil || v == nil {
				return nil, err
			}
			vals = append(vals, v)
		}
		return f(vals)
	})
}

// logic is AND (stop false) or OR (stop true) over any number of arguments, with three values.
func logic(args []*node, stop bool) *node {
	return newNode(tBool, func(r *row) (any, error) {
		null := false
		for _, a := range args {
			v, err := a.eval(r)
			if err != nil {
				return nil, err
			}
			if v == nil {
				null = true
			} else if v.(bool) == stop {
				return stop, nil
			}
		}
		if null {
			return nil, nil
		}
		return !stop, nil
	})
}

func ordered(t arrow.DataType) bool {
	return numeric(t) || temporal(t) || t.ID() == arrow.STRING || t.ID() == arrow.BINARY || boolean(t)
}

func comparison(op string, args []*node) (*node, error) {
	ns, t, err := unify(args)
	if err != nil {
		return nil, err
	}
	if !ordered(t) {
		return nil, badType("values of type %s cannot be compared here", TypeName(t))
	}
	test := map[string]func(d int) bool{
		"=": func(d int) bool { return d == 0 }, "<=>": func(d int) bool { return d == 0 }, "<>": func(d int) bool { return d != 0 },
		"<": func(d int) bool { return d < 0 }, "<=": func(d int) bool { return d <= 0 },
		">": func(d int) bool { return d > 0 }, ">=": func(d int) bool { return d >= 0 },
	}[op]
	a, b := ns[0], ns[1]
	safe := op == "<=>"
	return newNode(tBool, func(r *row) (any, error) {
		x, err := a.eval(r)
		if err != nil {
			return nil, err
		}
		y, err := b.eval(r)
		if err != nil {
			return nil, err
		}
		if x == nil || y == nil {
			if safe {
				return x == nil && y == nil, nil
			}
			return nil, nil
		}
		d, ok := compare(x, y)
		if !ok {
			return nil, badValue("%s and %s cannot be compared", show(x), show(y))
		}
		return test(d), nil
	}), nil
}

func in(args []*node) (*node, error) {
	ns, t, err := unify(args)
	if err != nil {
		return nil, err
	}
	if !ordered(t) {
		return nil, badType("values of type %s cannot be compared here", TypeName(t))
	}
	return newNode(tBool, func(r *row) (any, error) {
		x, err := ns[0].eval(r)
		if err != nil || x == nil {
			return nil, err
		}
		null := false
		for _, n := range ns[1:] {
			v, err := n.eval(r)
			if err != nil {
				return nil, err
			}
			if v == nil {
				null = true
			} else if d, ok := compare(x, v); ok && d == 0 {
				return true, nil
			}
		}
		if null {
			return nil, nil
		}
		return false, nil
	}), nil
}

func sign(v any) int {
	switch v := v.(type) {
	case int64:
		return cmp(v, 0)
	case float64:
		return cmp(v, 0)
	case dec:
		return v.v.Sign()
	}
	return 0
}

func number(n *node) (*node, error) {
	switch {
	case numeric(n.typ):
		return n, nil
	case n.typ.ID() == arrow.STRING, n.typ.ID() == arrow.NULL:
		return castNode(n, tDouble, false)
	}
	return nil, badType("%s is no number", TypeName(n.typ))
}

func negate(n *node) (*node, error) {
	n, err := number(n)
	if err != nil {
		return nil, err
	}
	t := n.typ
	return strict(t, []*node{n}, func(a []any) (any, error) {
		switch v := a[0].(type) {
		case int64:
			if w := width(t); v == -(1 << (w - 1)) {
				return nil, badValue("-(%d) overflows %s", v, TypeName(t))
			}
			return -v, nil
		case float64:
			return -v, nil
		case dec:
			return dec{new(big.Int).Neg(v.v), v.scale}, nil
		}
		return nil, badValue("no number")
	}), nil
}

// arithmetic has Spark's types (ANSI mode): integers stay integers of the wider type except under "/", which gives a
// DOUBLE; decimals grow; whatever meets a float becomes a DOUBLE.
func arithmetic(op string, a, b *node) (*node, error) {
	// A day and a number of days.
	if a.typ.ID() == arrow.DATE32 && (op == "+" || op == "-") && integral(b.typ) {
		return strict(tDate, []*node{a, b}, func(v []any) (any, error) {
			d := v[1].(int64)
			if op == "-" {
				d = -d
			}
			return Date(int64(v[0].(Date)) + d), nil
		}), nil
	}
	// A null has the type of what stands beside it.
	var err error
	switch {
	case a.typ.ID() == arrow.NULL && numeric(b.typ):
		a, err = castNode(a, b.typ, false)
	case b.typ.ID() == arrow.NULL && numeric(a.typ):
		b, err = castNode(b, a.typ, false)
	}
	if err != nil {
		return nil, err
	}
	if a, err = number(a); err != nil {
		return nil, err
	}
	if b, err = number(b); err != nil {
		return nil, err
	}
	exact := integral(a.typ) && integral(b.typ)
	switch {
	case exact && op != "/":
		t := a.typ
		if width(b.typ) > width(t) {
			t = b.typ
		}
		if op == "div" {
			t = tLong
		}
		return strict(t, []*node{a, b}, func(v []any) (any, error) { return integers(op, t, v[0].(int64), v[1].(int64)) }), nil
	case exact, floating(a.typ), floating(b.typ), op == "div":
		t := tDouble
		if a.typ.ID() == arrow.FLOAT32 && b.typ.ID() == arrow.FLOAT32 && op != "/" {
			t = tFloat
		}
		ns, err := castAll([]*node{a, b}, []arrow.DataType{tDouble, tDouble})
		if err != nil {
			return nil, err
		}
		return strict(t, ns, func(v []any) (any, error) {
			f, err := floats(op, v[0].(float64), v[1].(float64))
			if t == tFloat {
				f = float64(float32(f))
			}
			if op == "div" {
				if f < -(1<<63) || f >= 1<<63 {
					return nil, badValue("div overflows")
				}
			}
			return f, err
		}), nil
	}
	d, e := decimalOf(a), decimalOf(b)
	p1, s1, p2, s2 := d.Precision, d.Scale, e.Precision, e.Scale
	var t *arrow.Decimal128Type
	switch op {
	case "+", "-":
		s := max(s1, s2)
		t = bounded(max(p1-s1, p2-s2)+s+1, s)
	case "*":
		t = bounded(p1+p2+1, s1+s2)
	case "/":
		s := max(6, s1+p2+1)
		t = bounded(p1-s1+s2+s, s)
	case "%":
		s := max(s1, s2)
		t = bounded(min(p1-s1, p2-s2)+s, s)
	}
	ns, err := castAll([]*node{a, b}, []arrow.DataType{d, e})
	if err != nil {
		return nil, err
	}
	return strict(t, ns, func(v []any) (any, error) { return decimals(op, t, v[0].(dec), v[1].(dec)) }), nil
}

func integers(op string, t arrow.DataType, a, b int64) (any, error) {
	var v int64
	ok := true
	switch op {
	case "+":
		v = a + b
		ok = (v > a) == (b > 0)
	case "-":
		v = a - b
		ok = (v < a) == (b > 0)
	case "*":
		v = a * b
		ok = a == 0 || v/a == b && !(a == -1 && b == math.MinInt64)
	case "%", "div":
		if b == 0 {
			return nil, badValue("division of %d by zero", a)
		}
		switch {
		case b == -1 && op == "%":
			v = 0
		case op == "%":
			v = a % b
		default:
			v = a / b
			ok = !(b == -1 && a == math.MinInt64)
		}
	}
	if w := width(t); !ok || w < 64 && (v < -(1<<(w-1)) || v >= 1<<(w-1)) {
		return nil, badValue("%d %s %d overflows %s", a, op, b, TypeName(t))
	}
	return v, nil
}

func floats(op string, a, b float64) (float64, error) {
	switch op {
	case "+":
		return a + b, nil
	case "-":
		return a - b, nil
	case "*":
		return a * b, nil
	}
	if b == 0 {
		return 0, badValue("division of %g by zero", a)
	}
	switch op {
	case "%":
		return math.Mod(a, b), nil
	case "div":
		return math.Trunc(a / b), nil
	}
	return a / b, nil
}

func decimals(op string, t *arrow.Decimal128Type, a, b dec) (any, error) {
	var out dec
	switch op {
	case "+", "-":
		s := max(a.scale, b.scale)
		x, y := a.rescale(s).v, b.rescale(s).v
		if op == "+" {
			out = dec{new(big.Int).Add(x, y), s}
		} else {
			out = dec{new(big.Int).Sub(x, y), s}
		}
	case "*":
		out = dec{new(big.Int).Mul(a.v, b.v), a.scale + b.scale}
	default:
		if b.v.Sign() == 0 {
			return nil, badValue("division of %s by zero", a.text())
		}
		if op == "%" {
			s := max(a.scale, b.scale)
			out = dec{new(big.Int).Rem(a.rescale(s).v, b.rescale(s).v), s}
		} else {
			// a/b with t.Scale digits: a.v * 10^(t.Scale - a.scale + b.scale) / b.v
			up := t.Scale - a.scale + b.scale
			x, y := a.v, b.v
			if up >= 0 {
				x = new(big.Int).Mul(x, pow10(up))
			} else {
				y = new(big.Int).Mul(y, pow10(-up))
			}
			out = dec{divHalfUp(x, y), t.Scale}
		}
	}
	out = out.rescale(t.Scale)
	if len(new(big.Int).Abs(out.v).String()) > int(t.Precision) {
		return nil, badValue("%s %s %s overflows %s", a.text(), op, b.text(), TypeName(t))
	}
	return out, nil
}

func rounding(f string, args []*node) (*node, error) {
	if len(args) == 0 || len(args) > 2 || len(args) == 2 && f != "round" {
		return nil, badType("%s does not take %d arguments", f, len(args))
	}
	digits := int64(0)
	if len(args) == 2 {
		v, ok := args[1].lit.(int64)
		if !ok || v < -38 || v > 38 {
			return nil, badType("the digits of round must be a constant")
		}
		digits = v
	}
	n, err := number(args[0])
	if err != nil {
		return nil, err
	}
	if d, ok := n.typ.(*arrow.Decimal128Type); ok {
		s := min(max(int32(digits), 0), d.Scale)
		t := bounded(max(d.Precision-d.Scale+s, 0)+1, s)
		return strict(t, []*node{n}, func(a []any) (any, error) {
			x := a[0].(dec)
			var v dec
			switch f {
			case "round":
				if v = x; int32(digits) < x.scale {
					v = dec{divHalfUp(x.v, pow10(x.scale-int32(digits))), int32(digits)}
				}
				if v.scale < 0 {
					v = dec{v.v.Mul(v.v, pow10(-v.scale)), 0}
				}
			default:
				q, r := new(big.Int).QuoRem(x.v, pow10(x.scale), new(big.Int))
				if f == "floor" && r.Sign() < 0 {
					q.Sub(q, big.NewInt(1))
				} else if f != "floor" && r.Sign() > 0 {
					q.Add(q, big.NewInt(1))
				}
				v = dec{q, 0}
			}
			v = v.rescale(t.Scale)
			if len(new(big.Int).Abs(v.v).String()) > int(t.Precision) {
				return nil, badValue("%s overflows", f)
			}
			return v, nil
		}), nil
	}
	if integral(n.typ) && digits >= 0 {
		if f == "round" {
			return n, nil
		}
		return castNode(n, tLong, false)
	}
	if integral(n.typ) {
		unit := pow10(int32(-digits))
		return strict(n.typ, []*node{n}, func(a []any) (any, error) {
			v := divHalfUp(big.NewInt(a[0].(int64)), unit)
			if v.Mul(v, unit); v.BitLen() >= width(n.typ) {
				return nil, badValue("round(%d, %d) overflows %s", a[0], digits, TypeName(n.typ))
			}
			return v.Int64(), nil
		}), nil
	}
	x, err := castNode(n, tDouble, false)
	if err != nil {
		return nil, err
	}
	if f != "round" {
		return strict(tLong, []*node{x}, func(a []any) (any, error) {
			v := math.Floor(a[0].(float64))
			if f != "floor" {
				v = math.Ceil(a[0].(float64))
			}
			if !(v >= -(1<<63) && v < 1<<63) {
				return nil, badValue("%s(%g) overflows BIGINT", f, a[0])
			}
			return int64(v), nil
		}), nil
	}
	r := strict(tDouble, []*node{x}, func(a []any) (any, error) {
		v := a[0].(float64)
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return v, nil
		}
		d, _ := parseDec(floatPlain(v))
		d = dec{d.v, d.scale}
		if int32(digits) < d.scale {
			d = dec{divHalfUp(d.v, pow10(d.scale-int32(digits))), int32(digits)}
			if d.scale < 0 {
				d = dec{d.v.Mul(d.v, pow10(-d.scale)), 0}
			}
		}
		return d.float(), nil
	})
	return castNode(r, n.typ, false)
}

func floatPlain(v float64) string { return fmt.Sprintf("%v", v) }

func truncate(a []any) (any, error) {
	t := civil(a[1])
	y, m, d := t.Date()
	switch u := strings.ToLower(a[0].(string)); u {
	case "year", "yyyy", "yy":
		t = time.Date(y, 1, 1, 0, 0, 0, 0, time.UTC)
	case "quarter":
		t = time.Date(y, (m-1)/3*3+1, 1, 0, 0, 0, 0, time.UTC)
	case "month", "mon", "mm":
		t = time.Date(y, m, 1, 0, 0, 0, 0, time.UTC)
	case "week":
		t = time.Date(y, m, d-(int(t.Weekday())+6)%7, 0, 0, 0, 0, time.UTC)
	case "day", "dd":
		t = time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
	case "hour", "minute", "second":
		unit := map[string]int64{"hour": 3_600_000_000, "minute": 60_000_000, "second": 1_000_000}[u]
		us := int64(a[1].(Timestamp))
		return Timestamp(floorDiv(us, unit) * unit), nil
	default:
		return nil, nil
	}
	return Timestamp(t.UnixMicro()), nil
}

// like matches with % and _ and the escape character \, in time len(s)·len(pattern) at most.
func like(s, p []rune) (any, error) {
	type tok struct {
		r    rune
		kind byte // 'c' one character, '_' any one, '%' any number
	}
	var toks []tok
	for i := 0; i < len(p); i++ {
		switch p[i] {
		case '\\':
			if i+1 >= len(p) {
				return nil, badValue("the pattern %q ends in an escape character", string(p))
			}
			i++
			toks = append(toks, tok{p[i], 'c'})
		case '_', '%':
			toks = append(toks, tok{0, byte(p[i])})
		default:
			toks = append(toks, tok{p[i], 'c'})
		}
	}
	i, j, star, mark := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case j < len(toks) && toks[j].kind == '%':
			star, mark = j, i
			j++
		case j < len(toks) && (toks[j].kind == '_' || toks[j].r == s[i]):
			i++
			j++
		case star >= 0:
			mark++
			i, j = mark, star+1
		default:
			return false, nil
		}
	}
	for j < len(toks) && toks[j].kind == '%' {
		j++
	}
	return j == len(toks), nil
}
