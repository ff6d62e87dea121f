package spark

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/pipeline"
)

// kind is what the renderer must know of a value to give casts and operators their pinned meaning.
type kind int

const (
	kindNull kind = iota // NULL
	kindText
	kindBool
	kindInt
	kindDecimal
	kindFloat
	kindTime // timestamp
	kindWall // timestamp_ntz
	kindDate
	kindBinary
	kindNested
)

func kindOf(t delta.Type) kind {
	switch t := t.(type) {
	case delta.Primitive:
		switch t {
		case delta.String:
			return kindText
		case delta.Long, delta.Integer, delta.Short, delta.Byte:
			return kindInt
		case delta.Float, delta.Double:
			return kindFloat
		case delta.Boolean:
			return kindBool
		case delta.Binary:
			return kindBinary
		case delta.Date:
			return kindDate
		case delta.Timestamp:
			return kindTime
		case delta.TimestampNTZ:
			return kindWall
		}
	case delta.Decimal:
		return kindDecimal
	}
	return kindNested
}

// sqlType is Spark's name of a Delta type that is not nested.
func sqlType(t delta.Type) string {
	switch t := t.(type) {
	case delta.Primitive:
		switch t {
		case delta.Long:
			return "BIGINT"
		case delta.Integer:
			return "INT"
		case delta.Short:
			return "SMALLINT"
		case delta.Byte:
			return "TINYINT"
		}
		return strings.ToUpper(string(t))
	case delta.Decimal:
		return fmt.Sprintf("DECIMAL(%d,%d)", t.P, t.S)
	}
	return "STRING"
}

// rendered is an expression in Spark's SQL. A row fails it where fail is true; "" means that no row can. value is then
// null.
type rendered struct {
	value string
	fail  string
	kind  kind
	typ   delta.Type // of a column of the table
	// level is the first temporary layer in which value and fail can stand: they name columns of earlier ones only.
	level int
}

// renderer renders pipeline expressions in one place of a plan.
//
// Functions named cauce_… are Python functions of the driver (driver.py). They take texts that Spark's own casts would
// read loosely or differently; where a cheap proof shows that Spark's reading is exact they are handed null instead.
//
// What would stand in the text of an expression more than once becomes a temporary column first (hold): exact casts name
// their argument several times, and a text that repeats its parts grows exponentially with the depth of the expression.
type renderer struct {
	name func(string) (rendered, error)
	zone string // of the table
	// temps are the temporary columns, "expression AS name", by layer.
	temps [][]string
	next  *int // number of the next temporary column of the plan
}

// simple tells whether an expression is a bare column or constant.
var simple = regexp.MustCompile(`^([a-z]+[0-9]*|NULL|true|false|CAST\('-?[0-9.]*' AS [A-Z]+(\([0-9,]+\))?\)|CAST\(NULL AS [A-Z]+\)|'[^'\\]*')$`)

// hold makes a value that is no bare column or constant a temporary column.
func (r *renderer) hold(x rendered) rendered {
	if simple.MatchString(x.value) {
		return x
	}
	for len(r.temps) <= x.level {
		r.temps = append(r.temps, nil)
	}
	name := "t" + strconv.Itoa(*r.next)
	*r.next++
	r.temps[x.level] = append(r.temps[x.level], x.value+" AS "+name)
	x.value = name
	x.level++
	return x
}

// levelOf is the level of an expression that is made of others.
func levelOf(args ...rendered) int {
	level := 0
	for _, a := range args {
		level = max(level, a.level)
	}
	return level
}

func quoteText(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

func quoteName(s string) string { return "`" + strings.ReplaceAll(s, "`", "``") + "`" }

func anyOf(conds ...string) string {
	var out []string
	for _, c := range conds {
		if c != "" {
			out = append(out, c)
		}
	}
	switch len(out) {
	case 0:
		return ""
	case 1:
		return out[0]
	}
	return "(" + strings.Join(out, " OR ") + ")"
}

func (r *renderer) expr(e pipeline.Expr) (rendered, error) {
	switch e := e.(type) {
	case pipeline.Literal:
		return literal(e)
	case pipeline.Name:
		return r.name(e.Name)
	case pipeline.Cast:
		return r.castExpr(e)
	case pipeline.Case:
		return r.caseExpr(e)
	case pipeline.Call:
		return r.call(e)
	}
	return rendered{}, fmt.Errorf("BUG: no rendering for %T", e)
}

func literal(l pipeline.Literal) (rendered, error) {
	switch v := l.Value.(type) {
	case nil:
		return rendered{value: "NULL"}, nil
	case bool:
		return rendered{value: strconv.FormatBool(v), kind: kindBool}, nil
	case int64:
		// CAST of a text, because -9223372036854775808 cannot be written as a number: its sign is an operator.
		return rendered{value: fmt.Sprintf("CAST('%d' AS BIGINT)", v), kind: kindInt}, nil
	case string:
		return rendered{value: quoteText(v), kind: kindText}, nil
	case pipeline.Decimal:
		text, t := v.Plain()
		if t.P > 38 {
			return rendered{}, fmt.Errorf("the number %s has more than 38 digits", v)
		}
		return rendered{value: "CAST('" + text + "' AS " + sqlType(t) + ")", kind: kindDecimal}, nil
	}
	return rendered{}, fmt.Errorf("BUG: no rendering for a constant of type %T", l.Value)
}

func (r *renderer) castExpr(c pipeline.Cast) (rendered, error) {
	t, err := delta.ParseType(c.Type)
	if err != nil {
		return rendered{}, err
	}
	if kindOf(t) == kindNested {
		return rendered{}, fmt.Errorf("%w: CAST to %s", ErrUnsupported, strings.ToUpper(c.Type))
	}
	arg, err := r.expr(c.Arg)
	if err != nil {
		return rendered{}, err
	}
	out := r.cast(arg, t)
	if c.Try {
		out.fail = arg.fail
	}
	return out, nil
}

// blankSet are the characters that do not count around a number or a time.
const blankSet = `' \t\r\n'`

// notBlank says that a text is more than blanks: a blank text is null in every other type.
func notBlank(x string) string { return "trim(BOTH " + blankSet + " FROM " + x + ") <> ''" }

// cast renders a strict cast of a rendered value to a Delta type.
func (r *renderer) cast(a rendered, t delta.Type) rendered {
	to, typ := kindOf(t), sqlType(t)
	if a.kind == to && (to == kindText || to == kindBool || to == kindDate || to == kindTime || to == kindWall || to == kindBinary) {
		return a
	}
	a = r.hold(a)
	x := a.value
	out := rendered{kind: to, fail: a.fail, level: a.level}
	try := "try_cast(" + x + " AS " + typ + ")"
	// A cast that must survive the way back; "" where every value does that fits.
	exact := func(v, back string) {
		out.value = v
		if back != "" {
			out.value = "CASE WHEN " + back + " = (" + x + ") THEN " + v + " END"
		}
		out = r.hold(out)
		out.fail = anyOf(a.fail, "("+out.value+" IS NULL AND "+x+" IS NOT NULL)")
	}
	switch {
	case a.kind == kindNull:
		out.value = "CAST(NULL AS " + typ + ")"
	case a.kind == kindText:
		out = r.hold(r.fromText(a, t))
		if to != kindBinary {
			out.fail = anyOf(a.fail, "("+out.value+" IS NULL AND "+x+" IS NOT NULL AND "+notBlank(x)+")")
		}
	case to == kindText && a.kind == kindTime:
		out.value = "date_format(" + x + `, "yyyy-MM-dd'T'HH:mm:ss.SSSSSS'Z'")`
	case to == kindText && a.kind == kindWall:
		out.value = "date_format(" + x + `, "yyyy-MM-dd'T'HH:mm:ss.SSSSSS")`
	case to == kindText && a.kind == kindDate:
		out.value = dateText(x)
	case to == kindText:
		out.value = "CAST(" + x + " AS STRING)"
	case a.kind == kindInt && (to == kindInt || to == kindDecimal || to == kindFloat):
		exact(try, "")
	case (a.kind == kindDecimal || a.kind == kindFloat) && (to == kindInt || to == kindDecimal):
		if a.kind == kindDecimal {
			// To compare the two Spark would round both to a type that has room for either.
			exact("CASE WHEN signum(try_subtract("+try+", "+x+")) = 0D THEN "+try+" END", "")
			break
		}
		back := "CAST(" + try + " AS DOUBLE)"
		if t == delta.Type(delta.Long) { // Spark takes 2^63 for the greatest BIGINT
			try = "CASE WHEN " + x + " < CAST('9223372036854775807' AS DOUBLE) THEN " + try + " END"
		}
		exact(try, back)
	case (a.kind == kindDecimal || a.kind == kindFloat) && to == kindFloat:
		// Spark makes a DOUBLE that FLOAT cannot hold infinite.
		exact("CASE WHEN abs("+try+") < CAST('Infinity' AS DOUBLE) OR abs(CAST("+x+" AS DOUBLE)) >= CAST('Infinity' AS DOUBLE) THEN "+try+" END", "")
	case a.kind == kindBool && to == kindInt:
		out.value = "CAST(" + x + " AS " + typ + ")"
	case a.kind == kindInt && to == kindBool:
		exact("CASE ("+x+") WHEN 1 THEN true WHEN 0 THEN false END", "")
	case a.kind == kindTime && to == kindWall:
		out.value = "CAST(" + r.toZone(x) + " AS TIMESTAMP_NTZ)"
	case a.kind == kindWall && to == kindTime:
		out.value = r.fromZone("CAST(" + x + " AS TIMESTAMP)")
	case a.kind == kindTime && to == kindDate:
		z := r.toZone(x)
		exact("CASE WHEN CAST(CAST("+z+" AS DATE) AS TIMESTAMP) = "+z+" THEN CAST("+z+" AS DATE) END", "")
	case a.kind == kindWall && to == kindDate:
		exact("CASE WHEN CAST(CAST("+x+" AS DATE) AS TIMESTAMP_NTZ) = "+x+" THEN CAST("+x+" AS DATE) END", "")
	case a.kind == kindDate && to == kindTime:
		out.value = r.fromZone("CAST(" + x + " AS TIMESTAMP)")
	case a.kind == kindDate && to == kindWall:
		out.value = "CAST(" + x + " AS TIMESTAMP_NTZ)"
	default:
		exact(try, "")
	}
	return out
}

func (r *renderer) utc() bool { return r.zone == "" || r.zone == "UTC" }

// toZone is what clocks of the table's zone show at an instant, as an instant of the session's zone, which is UTC.
func (r *renderer) toZone(x string) string {
	if r.utc() {
		return x
	}
	return "from_utc_timestamp(" + x + ", " + quoteText(r.zone) + ")"
}

// fromZone is the instant at which clocks of the table's zone show x.
func (r *renderer) fromZone(x string) string {
	if r.utc() {
		return x
	}
	return "timestamp_micros(cauce_from_zone(unix_micros(" + x + "), " + quoteText(r.zone) + "))"
}

// unless hands a text on only where an exact value was not found, so that the Python function behind it has no work
// with the others.
func unless(exact, x string) string {
	return "CASE WHEN " + exact + " IS NULL THEN " + x + " END"
}

// fromText renders the strict cast of a text, a bare column or constant. Spark's own cast is taken only where writing its
// value out again gives the very text: nothing was lost or imagined then.
func (r *renderer) fromText(a rendered, t delta.Type) rendered {
	x, typ := a.value, sqlType(t)
	out := rendered{kind: kindOf(t), level: a.level}
	// try holds Spark's own reading; proven, then, holds it where it is proved exact.
	try := func() string {
		f := r.hold(rendered{value: "try_cast(" + x + " AS " + typ + ")", level: a.level})
		out.level = f.level
		return f.value
	}
	proven := func(condition, fast, slow string) {
		p := r.hold(rendered{value: "CASE WHEN " + condition + " THEN " + fast + " END", level: out.level})
		out.level = p.level
		out.value = "coalesce(" + p.value + ", " + fmt.Sprintf(slow, unless(p.value, x)) + ")"
	}
	const plainNumber = `'\\A[+-]?[0-9]+([.][0-9]*)?\\z'`
	switch t := t.(type) {
	case delta.Primitive:
		switch t {
		case delta.Long:
			f := try()
			proven("CAST("+f+" AS STRING) = "+x, f, "cauce_long(%s)")
		case delta.Integer, delta.Short, delta.Byte:
			f := try()
			proven("CAST("+f+" AS STRING) = "+x, f, "try_cast(cauce_long(%s) AS "+typ+")")
		case delta.Double:
			proven("length("+x+") < 300 AND "+x+" RLIKE "+plainNumber, "try_cast("+x+" AS DOUBLE)", "cauce_double(%s)")
		case delta.Float:
			proven("length("+x+") < 38 AND "+x+" RLIKE "+plainNumber, "try_cast("+x+" AS FLOAT)", "CAST(cauce_float(%s) AS FLOAT)")
		case delta.Boolean:
			b := r.hold(rendered{value: "lower(trim(BOTH " + blankSet + " FROM " + x + "))", level: a.level})
			out.level = b.level
			out.value = "CASE WHEN " + b.value + " IN ('true', 't', 'yes', 'y', 'on', '1') THEN true WHEN " + b.value + " IN ('false', 'f', 'no', 'n', 'off', '0') THEN false END"
		case delta.Date:
			f := try()
			proven("length("+x+") = 10 AND "+x+" >= '0001' AND CAST("+f+" AS STRING) = "+x, f, "date_add(DATE'1970-01-01', cauce_date(%s))")
		case delta.Timestamp:
			out.value = "timestamp_micros(cauce_timestamp(" + x + ", " + quoteText(r.zone) + "))"
		case delta.TimestampNTZ:
			out.value = "CAST(timestamp_micros(cauce_wall(" + x + ")) AS TIMESTAMP_NTZ)"
		case delta.Binary:
			out.value = "encode(" + x + ", 'UTF-8')"
		}
	case delta.Decimal:
		f := try()
		proven("startswith(CAST("+f+" AS STRING), "+x+")", f, "CAST(cauce_decimal(%s"+fmt.Sprintf(", %d, %d) AS %s)", t.P, t.S, typ))
	}
	return out
}

func (r *renderer) caseExpr(c pipeline.Case) (rendered, error) {
	var value, fail strings.Builder
	out := rendered{}
	value.WriteString("CASE")
	fail.WriteString("CASE")
	failing := false
	branch := func(x rendered) string {
		out.kind, out.level = max(out.kind, x.kind), max(out.level, x.level)
		if x.fail == "" {
			return "false"
		}
		failing = true
		return x.fail
	}
	var results []rendered
	for _, e := range c.Results() {
		x, err := r.expr(e)
		if err != nil {
			return out, err
		}
		results = append(results, x)
	}
	results = r.alike(c.Results(), results)
	for i, w := range c.Whens {
		cond, err := r.expr(w.Cond)
		if err != nil {
			return out, err
		}
		if cond.kind == kindNull {
			cond.value = "CAST(NULL AS BOOLEAN)"
		}
		cond = r.hold(cond)
		out.level = max(out.level, cond.level)
		if cond.fail != "" {
			failing = true
			fail.WriteString(" WHEN " + cond.fail + " THEN true")
		}
		value.WriteString(" WHEN " + cond.value + " THEN " + results[i].value)
		fail.WriteString(" WHEN " + cond.value + " THEN " + branch(results[i]))
	}
	rest := results[len(c.Whens)]
	value.WriteString(" ELSE " + rest.value + " END")
	fail.WriteString(" ELSE " + branch(rest) + " END")
	out.value = "(" + value.String() + ")"
	if failing {
		out.fail = "(" + fail.String() + ")"
	}
	return out, nil
}

// exact gives the types of integers and decimals, where there are decimals and no floating-point numbers among them, and
// the one in which they are alike; whole says that it holds them all.
func (r *renderer) exact(es []pipeline.Expr, xs []rendered) (types []delta.Decimal, common delta.Decimal, whole, ok bool) {
	for i, e := range es {
		types = append(types, pipeline.ExactType(e, r.column))
		switch xs[i].kind {
		case kindDecimal:
			ok = true
		case kindInt, kindNull:
		default:
			return nil, common, false, false
		}
	}
	common, whole = pipeline.CommonExact(types...)
	return types, common, whole, ok
}

// column is the type of a column of the table; nil of a raw field.
func (r *renderer) column(name string) delta.Type {
	x, err := r.name(name)
	if err != nil {
		return nil
	}
	return x.typ
}

// alike gives exact numbers of which one is chosen as ones of one type: Spark's own choice loses decimals where there is no
// room for all. A number that has no room before the point fails.
func (r *renderer) alike(es []pipeline.Expr, xs []rendered) []rendered {
	types, common, _, ok := r.exact(es, xs)
	if !ok {
		return xs
	}
	out := slices.Clone(xs)
	for i, x := range xs {
		switch {
		case x.kind == kindNull || x.kind == kindDecimal && types[i] == common:
		case pipeline.FitsExact(types[i], common):
			out[i].value, out[i].kind = "CAST("+x.value+" AS "+sqlType(common)+")", kindDecimal
		default:
			x = r.hold(x)
			y := r.hold(rendered{value: "try_cast(" + x.value + " AS " + sqlType(common) + ")", kind: kindDecimal, level: x.level})
			y.fail = anyOf(x.fail, "("+y.value+" IS NULL AND "+x.value+" IS NOT NULL)")
			out[i] = y
		}
	}
	return out
}

// compare renders a comparison.
func (r *renderer) compare(op string, es []pipeline.Expr, xs []rendered) string {
	if _, _, whole, ok := r.exact(es, xs); ok && !whole {
		return "(cauce_compare(CAST(" + xs[0].value + " AS STRING), CAST(" + xs[1].value + " AS STRING)) " + op + " 0)"
	}
	xs = r.alike(es, xs)
	return "(" + xs[0].value + " " + op + " " + xs[1].value + ")"
}

// again are the functions whose rendering names an argument more than once.
var again = map[string]bool{"coalesce": true, "nullif": true, "neg": true, "abs": true, "+": true, "-": true, "*": true, "/": true, "%": true, "floor": true, "ceil": true, "round": true,
	"upper": true, "lower": true, "to_event_time": true}

func (r *renderer) call(c pipeline.Call) (rendered, error) {
	switch c.Func {
	case "file_name":
		return rendered{value: colFileName, kind: kindText}, nil
	case "file_group":
		l, _ := c.Args[0].(pipeline.Literal)
		name, ok := l.Value.(string)
		if !ok {
			return rendered{}, fmt.Errorf("file_group wants the name of a group as a text")
		}
		return rendered{value: colGroups + "[" + quoteText(name) + "]", kind: kindText}, nil
	case "occurrence":
		return rendered{value: colOccurrence, kind: kindInt}, nil
	}
	args := make([]rendered, len(c.Args))
	vals := make([]string, len(c.Args))
	fails := make([]string, len(c.Args))
	k := kindNull
	for i, a := range c.Args {
		x, err := r.expr(a)
		if err != nil {
			return rendered{}, err
		}
		if again[c.Func] {
			x = r.hold(x)
		}
		args[i], vals[i], fails[i] = x, x.value, x.fail
		k = max(k, x.kind)
	}
	fail, level := anyOf(fails...), levelOf(args...)
	mk := func(k kind, format string, a ...any) (rendered, error) {
		return rendered{value: fmt.Sprintf(format, a...), fail: fail, kind: k, level: level}, nil
	}
	list := strings.Join(vals, ", ")
	switch c.Func {
	case "and", "or":
		return mk(kindBool, "(%s)", strings.Join(vals, " "+strings.ToUpper(c.Func)+" "))
	case "not":
		return mk(kindBool, "(NOT %s)", vals[0])
	case "is null":
		return mk(kindBool, "(%s IS NULL)", vals[0])
	case "is not null":
		return mk(kindBool, "(%s IS NOT NULL)", vals[0])
	case "=", "<>", "<", "<=", ">", ">=":
		return mk(kindBool, "%s", r.compare(c.Func, c.Args, args))
	case "in":
		if _, _, whole, ok := r.exact(c.Args, args); ok && !whole {
			var any []string
			x := r.hold(args[0])
			level = max(level, x.level)
			for i := range args[1:] {
				any = append(any, r.compare("=", []pipeline.Expr{c.Args[0], c.Args[i+1]}, []rendered{x, args[i+1]}))
			}
			return mk(kindBool, "(%s)", strings.Join(any, " OR "))
		}
		for i, a := range r.alike(c.Args, args) {
			vals[i] = a.value
		}
		return mk(kindBool, "(%s IN (%s))", vals[0], strings.Join(vals[1:], ", "))
	case "like":
		// The lake file's LIKE has no escape character; Spark's is the backslash.
		return mk(kindBool, `(%s LIKE replace(%s, '\\', '\\\\'))`, vals[0], vals[1])
	case "coalesce":
		return coalesce(r.alike(c.Args, args)), nil
	case "nullif":
		return mk(args[0].kind, "(CASE WHEN %s THEN NULL ELSE %s END)", r.compare("=", c.Args, args), vals[0])
	case "greatest", "least":
		if len(args) == 1 {
			return args[0], nil
		}
		args = r.alike(c.Args, args)
		for i, a := range args {
			vals[i], fails[i] = a.value, a.fail
		}
		fail, level = anyOf(fails...), levelOf(args...)
		return mk(k, "%s(%s)", c.Func, strings.Join(vals, ", "))
	case "concat":
		for i, a := range args {
			vals[i] = "coalesce(" + textOf(a) + ", '')"
		}
		return mk(kindText, "concat(%s)", strings.Join(vals, ", "))
	case "||":
		return mk(kindText, "concat(%s, %s)", textOf(args[0]), textOf(args[1]))
	case "neg":
		switch args[0].kind {
		case kindInt:
			return r.guarded("try_subtract(CAST(0 AS BIGINT), "+vals[0]+")", kindInt, fail, args), nil
		}
		if t, ok := r.wide(c.Args[0], args[0]); ok {
			return mk(kindDecimal, "CAST(CASE WHEN startswith(%[1]s, '-') THEN substring(%[1]s, 2) ELSE concat('-', %[1]s) END AS %[2]s)", textOf(args[0]), t)
		}
		return mk(args[0].kind, "(-%s)", vals[0])
	case "abs":
		if args[0].kind == kindInt {
			return r.guarded("CASE WHEN "+vals[0]+" > CAST('-9223372036854775808' AS BIGINT) THEN abs("+vals[0]+") END", kindInt, fail, args), nil
		}
		if t, ok := r.wide(c.Args[0], args[0]); ok {
			return mk(kindDecimal, "CAST(ltrim('-', %s) AS %s)", textOf(args[0]), t)
		}
		return mk(args[0].kind, "abs(%s)", vals[0])
	case "+":
		return r.arithmetic("try_add", k, fail, args), nil
	case "-":
		return r.arithmetic("try_subtract", k, fail, args), nil
	case "*":
		return r.arithmetic("try_multiply", k, fail, args), nil
	case "%":
		a, b := pipeline.ExactType(c.Args[0], r.column), pipeline.ExactType(c.Args[1], r.column)
		if k == kindDecimal && a.P-a.S+b.S > 38 { // try_mod fails the whole query where the quotient has more digits
			return r.guarded("CAST(cauce_mod("+textOf(args[0])+", "+textOf(args[1])+") AS "+sqlType(pipeline.ExactType(c, r.column))+")", k, fail, args), nil
		}
		return r.arithmetic("try_mod", k, fail, args), nil
	case "/":
		return r.guarded("(CAST("+vals[0]+" AS DOUBLE) / nullif(CAST("+vals[1]+" AS DOUBLE), 0D))", kindFloat, fail, args), nil
	case "floor", "ceil", "round":
		return r.rounding(c.Func, args, vals, fail)
	case "upper", "lower":
		// Java maps ß to SS and knows languages; the pinned meaning is letter by letter.
		x := vals[0]
		ascii := r.hold(rendered{value: "CASE WHEN " + x + ` RLIKE '\\A[\\x00-\\x7F]*\\z' THEN ` + c.Func + "(" + x + ") END", level: level})
		level = ascii.level
		return mk(kindText, "coalesce(%s, cauce_%s(%s))", ascii.value, c.Func, unless(ascii.value, x))
	case "length":
		return mk(kindInt, "CAST(char_length(%s) AS BIGINT)", vals[0])
	case "trim", "ltrim", "rtrim":
		chars := "' '"
		if len(vals) > 1 {
			chars = vals[1]
		}
		side := map[string]string{"trim": "BOTH", "ltrim": "LEADING", "rtrim": "TRAILING"}[c.Func]
		return mk(kindText, "trim(%s %s FROM %s)", side, chars, vals[0])
	case "substr":
		if len(vals) == 2 {
			list += ", CAST(4294967295 AS BIGINT)"
		}
		return mk(kindText, "cauce_substr(%s)", list)
	case "replace":
		return mk(kindText, "replace(%s)", list)
	case "split_part":
		return mk(kindText, "cauce_split_part(%s)", list)
	case "regexp_like", "regexp_extract":
		return r.regexp(c, args, vals, fail)
	case "to_event_time":
		return r.eventTime(c, args, fail)
	case "to_boolean":
		return r.cast(args[0], delta.Boolean), nil
	case "to_date":
		if args[0].kind == kindDate || args[0].kind == kindNull {
			return r.cast(args[0], delta.Date), nil
		}
		if args[0].kind == kindWall {
			return mk(kindDate, "CAST(%s AS DATE)", vals[0])
		}
		return mk(kindDate, "CAST(%s AS DATE)", r.toZone(vals[0]))
	}
	return rendered{}, fmt.Errorf("BUG: no rendering for function %s", c.Func)
}

// wide tells whether a decimal may have more than 34 digits, to which Spark rounds it when its sign changes, and gives its
// type.
func (r *renderer) wide(e pipeline.Expr, x rendered) (typ string, ok bool) {
	t := pipeline.ExactType(e, r.column)
	return sqlType(t), x.kind == kindDecimal && t.P > 34
}

// dateText is the text of a date. Spark writes a + before years beyond 9999, which a day of the last hours of that year may
// have in a zone.
func dateText(x string) string { return "trim(LEADING '+' FROM CAST(" + x + " AS STRING))" }

func textOf(a rendered) string {
	switch a.kind {
	case kindText:
		return a.value
	case kindDate:
		return dateText(a.value)
	}
	return "CAST(" + a.value + " AS STRING)"
}

// guarded renders an operation that some values overflow: such a row fails.
func (r *renderer) guarded(v string, k kind, fail string, args []rendered) rendered {
	out := r.hold(rendered{value: v, kind: k, level: levelOf(args...)})
	conds := []string{out.value + " IS NULL"}
	for _, a := range args {
		conds = append(conds, a.value+" IS NOT NULL")
	}
	out.fail = anyOf(fail, "("+strings.Join(conds, " AND ")+")")
	return out
}

func (r *renderer) arithmetic(f string, k kind, fail string, args []rendered) rendered {
	typed := func(a rendered) string {
		switch {
		case a.kind == kindInt:
			return "CAST(" + a.value + " AS BIGINT)"
		case k == kindFloat:
			return "CAST(" + a.value + " AS DOUBLE)"
		}
		return a.value
	}
	return r.guarded(f+"("+typed(args[0])+", "+typed(args[1])+")", k, fail, args)
}

func coalesce(args []rendered) rendered {
	out := rendered{}
	vals := make([]string, len(args))
	var fails []string
	earlier := ""
	for i, a := range args {
		out.kind, out.level = max(out.kind, a.kind), max(out.level, a.level)
		vals[i] = a.value
		if a.fail != "" {
			fails = append(fails, "("+earlier+a.fail+")")
		}
		earlier += "(" + a.value + ") IS NULL AND "
	}
	out.value = "coalesce(" + strings.Join(vals, ", ") + ")"
	out.fail = anyOf(fails...)
	return out
}

func (r *renderer) rounding(f string, args []rendered, vals []string, fail string) (rendered, error) {
	switch args[0].kind {
	case kindInt:
		if f != "round" {
			return args[0], nil
		}
		digits := "CAST(0 AS BIGINT)"
		if len(vals) > 1 {
			digits = vals[1]
		}
		return r.guarded("cauce_round_long("+vals[0]+", "+digits+")", kindInt, fail, args), nil
	case kindFloat:
		if f != "round" {
			return r.guarded("cauce_"+f+"(CAST("+vals[0]+" AS DOUBLE))", kindFloat, fail, args), nil
		}
		digits := "CAST(0 AS BIGINT)"
		if len(vals) > 1 {
			digits = vals[1]
		}
		return r.guarded("cauce_round(CAST("+vals[0]+" AS DOUBLE), "+digits+")", kindFloat, fail, args), nil
	}
	digits := ""
	if len(vals) > 1 {
		digits = ", CAST(" + vals[1] + " AS INT)"
	}
	if f == "round" && digits == "" {
		digits = ", 0"
	}
	if f != "round" {
		digits = ""
	}
	return r.guarded(f+"("+vals[0]+digits+")", args[0].kind, fail, args), nil
}

func (r *renderer) regexp(c pipeline.Call, args []rendered, vals []string, fail string) (rendered, error) {
	l, _ := c.Args[1].(pipeline.Literal)
	p, ok := l.Value.(string)
	if !ok {
		return rendered{}, fmt.Errorf("the pattern of %s must be a literal text", c.Func)
	}
	java, err := javaPattern(p)
	if err != nil {
		return rendered{}, err
	}
	if c.Func == "regexp_like" {
		return rendered{value: "(" + vals[0] + " RLIKE " + quoteText(java) + ")", fail: fail, kind: kindBool, level: levelOf(args...)}, nil
	}
	group := "0"
	if len(args) > 2 {
		group = "CAST(" + vals[2] + " AS INT)"
	}
	return rendered{value: "regexp_extract(" + vals[0] + ", " + quoteText(java) + ", " + group + ")", fail: fail, kind: kindText, level: levelOf(args...)}, nil
}

// Epoch times tell their unit by their size (docs/expressions.md, to_event_time).
const (
	epochSecondsBelow = 100_000_000_000
	epochMillisBelow  = 100_000_000_000_000
	epochMicrosBelow  = 100_000_000_000_000_000
)

func (r *renderer) eventTime(c pipeline.Call, args []rendered, fail string) (rendered, error) {
	arg := args[0]
	arg.value = textOf(arg)
	arg = r.hold(arg)
	x := arg.value
	out := rendered{kind: kindTime, level: arg.level}
	if len(c.Args) > 1 {
		l, _ := c.Args[1].(pipeline.Literal)
		p, ok := l.Value.(string)
		if !ok {
			return out, fmt.Errorf("the pattern of to_event_time must be a literal text")
		}
		out.value = "timestamp_micros(cauce_pattern_time(" + x + ", " + quoteText(p) + ", " + quoteText(r.zone) + "))"
	} else {
		n := r.hold(rendered{value: "try_cast(" + x + " AS BIGINT)", level: arg.level})
		fast := r.hold(rendered{level: n.level, value: fmt.Sprintf("CASE WHEN %[1]s BETWEEN 0 AND %[2]d AND CAST(%[1]s AS STRING) = %[3]s THEN "+
			"CASE WHEN %[1]s >= %[4]d THEN %[1]s WHEN %[1]s >= %[5]d THEN %[1]s * 1000 ELSE %[1]s * 1000000 END END",
			n.value, int64(epochMicrosBelow-1), x, int64(epochMillisBelow), int64(epochSecondsBelow))})
		out.level = fast.level
		out.value = "timestamp_micros(coalesce(" + fast.value + ", cauce_event_time(" + unless(fast.value, x) + ", " + quoteText(r.zone) + ")))"
	}
	out = r.hold(out)
	out.fail = anyOf(fail, "("+out.value+" IS NULL AND "+x+" IS NOT NULL AND "+notBlank(x)+")")
	return out, nil
}
