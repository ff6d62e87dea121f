package duckdb

import (
	"fmt"
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
	kindTime // timestamp: an instant, as TIMESTAMP in UTC
	kindWall // timestamp_ntz: what a clock showed, as TIMESTAMP
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

// sqlType is the DuckDB type of a Delta type. inner says that it is for a column inside the engine, where timestamps
// are without zone (and mean UTC); nested ones keep theirs, since nothing computes with them.
func sqlType(t delta.Type, inner bool) string {
	switch t := t.(type) {
	case delta.Primitive:
		switch t {
		case delta.String:
			return "VARCHAR"
		case delta.Long:
			return "BIGINT"
		case delta.Integer:
			return "INTEGER"
		case delta.Short:
			return "SMALLINT"
		case delta.Byte:
			return "TINYINT"
		case delta.Float:
			return "FLOAT"
		case delta.Double:
			return "DOUBLE"
		case delta.Boolean:
			return "BOOLEAN"
		case delta.Binary:
			return "BLOB"
		case delta.Date:
			return "DATE"
		case delta.Timestamp:
			if inner {
				return "TIMESTAMP"
			}
			return "TIMESTAMPTZ"
		case delta.TimestampNTZ:
			return "TIMESTAMP"
		case delta.Variant:
			return "JSON"
		}
		return "VARCHAR" // void: all null
	case delta.Decimal:
		return fmt.Sprintf("DECIMAL(%d,%d)", t.P, t.S)
	case *delta.Struct:
		parts := make([]string, len(t.Fields))
		for i, f := range t.Fields {
			parts[i] = quoteName(f.Name) + " " + sqlType(f.Type, false)
		}
		return "STRUCT(" + strings.Join(parts, ", ") + ")"
	case *delta.Array:
		return sqlType(t.Element, false) + "[]"
	case *delta.Map:
		return "MAP(" + sqlType(t.Key, false) + ", " + sqlType(t.Value, false) + ")"
	}
	return "VARCHAR"
}

// outward converts a column from its form inside the engine to the one that leaves it.
func outward(t delta.Type, sql string) string {
	if t == delta.Timestamp {
		return "make_timestamptz(epoch_us(" + sql + "))" // a cast would go through ICU, at ten times the cost
	}
	return sql
}

// rendered is an expression in DuckDB's SQL. A row fails it where fail is true; "" means that no row can. value is then
// null.
type rendered struct {
	value string
	fail  string
	kind  kind
	// plain says that value is a bare column or constant, so that it costs nothing to repeat it.
	plain bool
	// isField says that value is the text of the raw field of that name, as it was read.
	field   string
	isField bool
	// failed is, of a value that was cast while it was read, the column that tells whether the text could not be cast.
	failed string
	typ    delta.Type // of a column of the table
}

// renderer renders pipeline expressions in one place of a plan.
type renderer struct {
	name     func(string) (rendered, error)
	zone     string // of the table; "UTC" needs no conversion
	fileName string
	groups   map[string]string
	// occurrence is the SQL of occurrence(); "" where it has no meaning.
	occurrence string
	reads      *rawReads // casts raw fields while they are read; nil: they are columns of text only
}

// native gives the cast of a raw field's text that is made while the field is read.
func (r *renderer) native(a rendered, t delta.Type, eventTime bool) (rendered, bool) {
	if !a.isField || r.reads == nil {
		return rendered{}, false
	}
	value, failed, ok := r.reads.native(a.field, t, eventTime)
	return rendered{value: value, fail: failed, kind: kindOf(t), plain: true}, ok
}

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
		return rendered{value: "NULL", plain: true}, nil
	case bool:
		return rendered{value: strconv.FormatBool(v), kind: kindBool, plain: true}, nil
	case int64:
		return rendered{value: strconv.FormatInt(v, 10), kind: kindInt, plain: true}, nil
	case string:
		return rendered{value: quoteText(v), kind: kindText, plain: true}, nil
	case pipeline.Decimal:
		text, t := v.Plain()
		if t.P > 38 {
			return rendered{}, fmt.Errorf("the number %s has more than 38 digits", v)
		}
		return rendered{value: "CAST('" + text + "' AS " + sqlType(t, true) + ")", kind: kindDecimal, plain: true}, nil
	}
	return rendered{}, fmt.Errorf("BUG: no rendering for a constant of type %T", l.Value)
}

func (r *renderer) castExpr(c pipeline.Cast) (rendered, error) {
	t, err := delta.ParseType(c.Type)
	if err != nil {
		return rendered{}, err
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

const blankSQL = `' ' || chr(9) || chr(13) || chr(10)`

// notBlank says that a text is more than blanks: a blank text is null in every other type.
func notBlank(x string) string { return "trim(" + x + ", " + blankSQL + ") <> ''" }

// cast renders a strict cast of a rendered value to a Delta type.
func (r *renderer) cast(a rendered, t delta.Type) rendered {
	if n, ok := r.native(a, t, false); ok {
		return n
	}
	to := kindOf(t)
	typ := sqlType(t, true)
	x := a.value
	out := rendered{kind: to, fail: a.fail}
	lost := func(v string) string { return "((" + v + ") IS NULL AND (" + x + ") IS NOT NULL)" }
	exact := func(v, back string) { // a cast that must survive the way back
		out.value = v
		if back != "" {
			out.value = "CASE WHEN TRY(" + back + " = (" + x + ")) THEN " + v + " END"
		}
		out.fail = anyOf(a.fail, lost(out.value))
	}
	tryCast := "TRY_CAST(" + x + " AS " + typ + ")"
	switch {
	case a.kind == kindNull:
		out.value, out.plain = "CAST(NULL AS "+typ+")", true
	case a.kind == kindText && to == kindText:
		return rendered{value: x, fail: a.fail, kind: kindText, plain: a.plain}
	case a.kind == kindText:
		out.value = r.fromText(x, t)
		if to != kindBinary {
			out.fail = anyOf(a.fail, "(("+out.value+") IS NULL AND ("+x+") IS NOT NULL AND "+notBlank(x)+")")
		}
	case to == kindText:
		switch a.kind {
		case kindTime:
			out.value = "strftime(" + x + ", '%Y-%m-%dT%H:%M:%S.%fZ')"
		case kindWall:
			out.value = "strftime(" + x + ", '%Y-%m-%dT%H:%M:%S.%f')"
		case kindBinary:
			out.value = "TRY(decode(" + x + "))"
			out.fail = anyOf(a.fail, lost(out.value))
		case kindNested:
			out.value = "CAST(to_json(" + x + ") AS VARCHAR)"
		default:
			out.value = textOf(a)
		}
	case a.kind == kindBool && to == kindBool, a.kind == kindDate && to == kindDate, a.kind == to && (to == kindTime || to == kindWall || to == kindBinary):
		return rendered{value: x, fail: a.fail, kind: to, plain: a.plain}
	case a.kind == kindInt && (to == kindInt || to == kindDecimal || to == kindFloat):
		exact(tryCast, "")
	case (a.kind == kindDecimal || a.kind == kindFloat) && (to == kindInt || to == kindDecimal):
		back := tryCast
		if a.kind == kindFloat {
			// DuckDB scales a FLOAT in single precision, in which 187 becomes 186.99999232.
			double := "CAST(" + x + " AS DOUBLE)"
			if to == kindDecimal {
				double = nearest(double)
			}
			tryCast = "TRY_CAST(" + double + " AS " + typ + ")"
			back = asDouble(rendered{value: tryCast, kind: to})
		}
		exact(tryCast, back)
	case a.kind == kindDecimal && to == kindFloat:
		exact("TRY_CAST("+nearest(x)+" AS "+typ+")", "")
	case a.kind == kindFloat && to == kindFloat:
		exact(tryCast, "")
	case a.kind == kindBool && to == kindInt:
		out.value = "CAST(" + x + " AS " + typ + ")"
	case a.kind == kindInt && to == kindBool:
		exact("CASE ("+x+") WHEN 1 THEN true WHEN 0 THEN false END", "")
	case a.kind == kindTime && to == kindWall:
		out.value = r.toZone(x)
	case a.kind == kindWall && to == kindTime:
		out.value = r.fromZone(x)
	case a.kind == kindTime && to == kindDate:
		// A time of day would be lost silently; to_date says that this is meant.
		z := r.toZone(x)
		exact("CASE WHEN CAST(CAST("+z+" AS DATE) AS TIMESTAMP) = "+z+" THEN CAST("+z+" AS DATE) END", "")
	case a.kind == kindWall && to == kindDate:
		exact("CAST("+x+" AS DATE)", "CAST(CAST("+x+" AS DATE) AS TIMESTAMP)")
	case a.kind == kindDate && to == kindTime:
		out.value = r.fromZone("CAST(" + x + " AS TIMESTAMP)")
	case a.kind == kindDate && to == kindWall:
		out.value = "CAST(" + x + " AS TIMESTAMP)"
	default:
		exact(tryCast, "")
	}
	return out
}

// toZone is what clocks of the table's zone show at an instant.
func (r *renderer) toZone(x string) string {
	if r.utc() {
		return x
	}
	return "(make_timestamptz(epoch_us(" + x + ")) AT TIME ZONE " + quoteText(r.zone) + ")"
}

// fromZone is the instant at which clocks of the table's zone show x.
func (r *renderer) fromZone(x string) string {
	if r.utc() {
		return x
	}
	return "make_timestamp(cauce_from_zone(epoch_us(" + x + "), " + quoteText(r.zone) + "))"
}

func (r *renderer) utc() bool { return r.zone == "" || r.zone == "UTC" }

// fromText renders the strict cast of a text. DuckDB's own cast is fast but loose, so its value is taken only where
// writing it out again gives the very text (or, for decimals, the text and more zeros): nothing was lost or imagined
// then. Every other text goes to the exact reader in casts.go.
func (r *renderer) fromText(x string, t delta.Type) string {
	typ := sqlType(t, true)
	fast := "TRY_CAST(" + x + " AS " + typ + ")"
	switch t := t.(type) {
	case delta.Primitive:
		switch t {
		case delta.Long:
			return "CASE WHEN CAST(" + fast + " AS VARCHAR) = " + x + " THEN " + fast + " ELSE cauce_long(" + x + ") END"
		case delta.Integer, delta.Short, delta.Byte:
			return "CASE WHEN CAST(" + fast + " AS VARCHAR) = " + x + " THEN " + fast + " ELSE TRY_CAST(cauce_long(" + x + ") AS " + typ + ") END"
		case delta.Double:
			return "CASE WHEN length(" + x + ") < 300 AND regexp_full_match(" + x + ", '[+-]?[0-9]+([.][0-9]*)?') THEN " + fast + " ELSE cauce_double(" + x + ") END"
		case delta.Float:
			return "CASE WHEN length(" + x + ") < 38 AND regexp_full_match(" + x + ", '[+-]?[0-9]+([.][0-9]*)?') THEN " + fast + " ELSE TRY_CAST(cauce_float(" + x + ") AS FLOAT) END"
		case delta.Boolean:
			return "COALESCE(" + fast + ", cauce_boolean(" + x + "))"
		case delta.Date:
			// DuckDB also writes and reads days beyond the year 9999 and before 1.
			return "CASE WHEN length(" + x + ") = 10 AND CAST(" + fast + " AS VARCHAR) = " + x + " THEN " + fast + " ELSE DATE '1970-01-01' + cauce_date(" + x + ") END"
		case delta.Timestamp:
			return "make_timestamp(cauce_timestamp(" + x + ", " + quoteText(r.zone) + "))"
		case delta.TimestampNTZ:
			return "make_timestamp(cauce_wall(" + x + "))"
		case delta.Binary:
			return "encode(" + x + ")"
		}
	case delta.Decimal:
		return decimalFromText(x, t)
	}
	if exactlyNested(t) {
		x = "cauce_nested(" + x + ", " + quoteText(t.String()) + ", " + quoteText(r.zone) + ")"
	}
	return "TRY_CAST(TRY_CAST(" + x + " AS JSON) AS " + typ + ")"
}

// decimalFromText casts through DECIMAL(18, scale) where the text fits it: DuckDB reads wider decimals from text some
// seventy times slower.
func decimalFromText(x string, t delta.Decimal) string {
	typ := sqlType(t, true)
	narrow := "TRY_CAST(" + x + " AS DECIMAL(" + strconv.Itoa(min(t.P, 18)) + "," + strconv.Itoa(t.S) + "))"
	slow := fmt.Sprintf("TRY_CAST(cauce_decimal(%s, %d, %d) AS %s)", x, t.P, t.S, typ)
	if t.S > 18 {
		return slow
	}
	fast := narrow
	if t.P > 18 {
		fast = "CAST(" + narrow + " AS " + typ + ")"
	}
	return "CASE WHEN starts_with(CAST(" + narrow + " AS VARCHAR), " + x + ") THEN " + fast + " ELSE " + slow + " END"
}

func (r *renderer) caseExpr(c pipeline.Case) (rendered, error) {
	var value, fail strings.Builder
	out := rendered{}
	value.WriteString("CASE")
	fail.WriteString("CASE")
	failing := false
	branch := func(x rendered) string {
		out.kind = max(out.kind, x.kind)
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

// typed gives integer constants DuckDB's widest integer type, so that arithmetic does not depend on how small they are.
func typed(x rendered) string {
	if x.kind == kindInt {
		return "CAST(" + x.value + " AS BIGINT)"
	}
	return x.value
}

// mixed tells whether floating-point numbers stand beside integers or decimals.
func mixed(xs []rendered) bool {
	floats, others := false, false
	for _, x := range xs {
		floats = floats || x.kind == kindFloat
		others = others || x.kind == kindInt || x.kind == kindDecimal
	}
	return floats && others
}

// alike gives values of which one is chosen as ones of one type. A number that has no room there fails.
func (r *renderer) alike(es []pipeline.Expr, xs []rendered) []rendered {
	out := slices.Clone(xs)
	if mixed(xs) {
		for i, x := range doubles(xs) {
			out[i].value = x
		}
		return out
	}
	types, common, whole := r.exact(es, xs)
	for i, x := range xs {
		out[i].value = typed(x)
		if !whole && !pipeline.FitsExact(types[i], common) {
			out[i].value = "TRY_CAST(" + x.value + " AS " + sqlType(common, true) + ")"
			out[i].fail = anyOf(x.fail, "("+out[i].value+" IS NULL AND ("+x.value+") IS NOT NULL)")
		}
	}
	return out
}

// exact gives the types of integers and decimals, and the one in which they are alike. whole says that DuckDB finds one
// itself that holds them all; it takes the same otherwise, and there fails the whole query.
func (r *renderer) exact(es []pipeline.Expr, xs []rendered) (types []delta.Decimal, common delta.Decimal, whole bool) {
	decimals := false
	for i, e := range es {
		types = append(types, pipeline.ExactType(e, r.column))
		decimals = decimals || xs[i].kind == kindDecimal
	}
	common, whole = pipeline.CommonExact(types...)
	return types, common, whole || !decimals
}

// column is the type of a column of the table; nil of a raw field.
func (r *renderer) column(name string) delta.Type {
	x, err := r.name(name)
	if err != nil {
		return nil
	}
	return x.typ
}

// compare renders a comparison.
func (r *renderer) compare(op string, es []pipeline.Expr, xs []rendered) string {
	x, y := xs[0].value, xs[1].value
	if mixed(xs) {
		x, y = asDouble(xs[0]), asDouble(xs[1])
	} else if _, _, whole := r.exact(es, xs); !whole {
		return "(cauce_compare(" + nearest(x) + ", " + nearest(y) + ") " + op + " 0)"
	}
	return "(" + x + " " + op + " " + y + ")"
}

// doubles gives mixed numbers as DOUBLEs. Beside a FLOAT, DuckDB would make FLOATs of integers and decimals and compare
// in single precision.
func doubles(xs []rendered) []string {
	out := make([]string, len(xs))
	for i, x := range xs {
		out[i] = asDouble(x)
	}
	return out
}

// asDouble is a number as DOUBLE, the nearest one.
func asDouble(x rendered) string {
	if x.kind == kindDecimal {
		return "CAST(" + nearest(x.value) + " AS DOUBLE)"
	}
	return "CAST(" + x.value + " AS DOUBLE)"
}

// nearest is the form of a decimal of which DuckDB makes the nearest floating-point number, and the other way round: it
// divides and multiplies by a power of ten in binary itself, which rounds twice.
func nearest(x string) string { return "CAST(" + x + " AS VARCHAR)" }

func (r *renderer) call(c pipeline.Call) (rendered, error) {
	switch c.Func {
	case "file_name":
		return rendered{value: quoteText(r.fileName), kind: kindText, plain: true}, nil
	case "file_group":
		if len(c.Args) == 1 {
			if l, ok := c.Args[0].(pipeline.Literal); ok {
				if s, ok := l.Value.(string); ok {
					if v, ok := r.groups[s]; ok {
						return rendered{value: quoteText(v), kind: kindText, plain: true}, nil
					}
					return rendered{value: "CAST(NULL AS VARCHAR)", kind: kindText, plain: true}, nil
				}
			}
		}
		return rendered{}, fmt.Errorf("file_group wants the name of a group as a text")
	case "occurrence":
		if r.occurrence == "" {
			return rendered{value: "1", kind: kindInt, plain: true}, nil
		}
		return rendered{value: r.occurrence, kind: kindInt, plain: true}, nil
	}
	args := make([]rendered, len(c.Args))
	vals := make([]string, len(c.Args))
	fails := make([]string, len(c.Args))
	for i, a := range c.Args {
		x, err := r.expr(a)
		if err != nil {
			return rendered{}, err
		}
		args[i], vals[i], fails[i] = x, x.value, x.fail
	}
	fail := anyOf(fails...)
	mk := func(k kind, format string, a ...any) (rendered, error) {
		return rendered{value: fmt.Sprintf(format, a...), fail: fail, kind: k}, nil
	}
	list := strings.Join(vals, ", ")
	need := func(n int) error {
		if len(args) < n {
			return fmt.Errorf("%s needs %d arguments", c.Func, n)
		}
		return nil
	}
	switch c.Func {
	case "and", "or":
		return mk(kindBool, "(%s)", strings.Join(vals, " "+strings.ToUpper(c.Func)+" "))
	case "coalesce":
		return r.coalesce(r.alike(c.Args, args))
	case "in":
		if err := need(2); err != nil {
			return rendered{}, err
		}
		if _, _, whole := r.exact(c.Args, args); !whole && !mixed(args) {
			var any []string
			for i := range args[1:] {
				any = append(any, r.compare("=", []pipeline.Expr{c.Args[0], c.Args[i+1]}, []rendered{args[0], args[i+1]}))
			}
			return mk(kindBool, "(%s)", strings.Join(any, " OR "))
		}
		if mixed(args) {
			vals = doubles(args)
		}
		return mk(kindBool, "(%s IN (%s))", vals[0], strings.Join(vals[1:], ", "))
	case "greatest", "least":
		k := kindNull
		for i, a := range r.alike(c.Args, args) {
			k, vals[i], fails[i] = max(k, a.kind), a.value, a.fail
		}
		fail = anyOf(fails...)
		return mk(k, "%s(%s)", c.Func, strings.Join(vals, ", "))
	case "concat":
		for i, a := range args {
			vals[i] = textOf(a)
		}
		return mk(kindText, "concat(%s)", strings.Join(vals, ", "))
	}
	if err := need(1); err != nil {
		return rendered{}, err
	}
	switch c.Func {
	case "not":
		return mk(kindBool, "(NOT %s)", vals[0])
	case "is null":
		return mk(kindBool, "(%s IS NULL)", vals[0])
	case "is not null":
		return mk(kindBool, "(%s IS NOT NULL)", vals[0])
	case "neg":
		return r.guarded("(-"+typed(args[0])+")", args[0].kind, fail, args), nil
	case "abs":
		return r.guarded("abs("+typed(args[0])+")", args[0].kind, fail, args), nil
	case "upper", "lower":
		return mk(kindText, "%s(%s)", c.Func, vals[0])
	case "length":
		return mk(kindInt, "length(%s)", vals[0])
	case "trim", "ltrim", "rtrim":
		if len(args) == 1 {
			list += ", ' '" // DuckDB would take the spaces of all scripts
		}
		return mk(kindText, "%s(%s)", c.Func, list)
	case "floor", "ceil":
		if args[0].kind == kindInt {
			return args[0], nil
		}
		return r.guarded(r.asExact(c, args[0].kind, c.Func+"("+vals[0]+")"), args[0].kind, fail, args), nil
	case "round":
		if args[0].kind == kindInt {
			for i := range args {
				vals[i] = typed(args[i])
			}
			if len(args) > 1 {
				vals[1] = "CAST(" + vals[1] + " AS INTEGER)"
			}
			// DuckDB's round of a BIGINT adds half of what it rounds to, and wraps around at the greatest values.
			vals[0] = "CAST(" + vals[0] + " AS HUGEINT)"
			return r.guarded("CAST(round("+strings.Join(vals, ", ")+") AS BIGINT)", kindInt, fail, args), nil
		}
		if args[0].kind == kindFloat { // DuckDB's round before the point makes 0 of infinity
			x := asDouble(args[0]) // of a FLOAT it makes a FLOAT
			list = x
			if len(args) > 1 { // it takes an INTEGER, and no DOUBLE has digits further away than these
				list += ", CAST(CASE WHEN " + vals[1] + " > 400 THEN 400 WHEN " + vals[1] + " < -400 THEN -400 ELSE " + vals[1] + " END AS INTEGER)"
			}
			return r.guarded("CASE WHEN isfinite("+x+") THEN round("+list+") ELSE "+x+" END", kindFloat, fail, args), nil
		}
		return r.guarded(r.asExact(c, args[0].kind, "round("+list+")"), args[0].kind, fail, args), nil
	case "to_event_time":
		return r.eventTime(c, args, fail)
	case "to_boolean":
		return r.cast(args[0], delta.Boolean), nil
	case "to_date":
		if args[0].kind == kindDate || args[0].kind == kindNull {
			return r.cast(args[0], delta.Date), nil
		}
		return mk(kindDate, "CAST(%s AS DATE)", r.toZone(vals[0]))
	}
	if err := need(2); err != nil {
		return rendered{}, err
	}
	switch c.Func {
	case "=", "<>", "<", "<=", ">", ">=":
		return mk(kindBool, "%s", r.compare(c.Func, c.Args, args))
	case "like":
		return mk(kindBool, "(%s LIKE %s)", vals[0], vals[1])
	case "||":
		return mk(kindText, "(%s || %s)", textOf(args[0]), textOf(args[1]))
	case "+", "-", "*":
		k := max(args[0].kind, args[1].kind)
		if x, ok := r.roomy(c, args); ok {
			return r.guarded(x, k, fail, args), nil
		}
		left, right := typed(args[0]), typed(args[1])
		if k == kindFloat { // of two FLOATs DuckDB makes a FLOAT
			left, right = asDouble(args[0]), asDouble(args[1])
		}
		if args[0].kind == kindDecimal && args[1].kind == kindDecimal {
			// DuckDB keeps a result within 18 digits where both sides are, and fails beyond; a neutral one of 19 makes room.
			left = "(" + map[string]string{"+": "CAST(0 AS DECIMAL(19,0)) + ", "-": "CAST(0 AS DECIMAL(19,0)) + ", "*": "CAST(1 AS DECIMAL(19,0)) * "}[c.Func] + left + ")"
		}
		return r.guarded("("+left+" "+c.Func+" "+right+")", k, fail, args), nil
	case "%":
		k := max(args[0].kind, args[1].kind)
		if x, ok := r.roomy(c, args); ok {
			return r.guarded(x, k, fail, args), nil
		}
		left, right := typed(args[0]), typed(args[1])
		switch k {
		case kindFloat:
			left, right = asDouble(args[0]), asDouble(args[1])
		case kindDecimal:
			left, right = r.asDecimal(c.Args[0], args[0]), r.asDecimal(c.Args[1], args[1])
		}
		return r.guarded("("+left+" % NULLIF("+right+", 0))", k, fail, args), nil
	case "/":
		// A division by zero has no value: the row fails, as it does in Spark's ANSI mode.
		return r.guarded("("+asDouble(args[0])+" / NULLIF("+asDouble(args[1])+", 0))", kindFloat, fail, args), nil
	case "nullif":
		return mk(args[0].kind, "(CASE WHEN %s THEN NULL ELSE %s END)", r.compare("=", c.Args, args), vals[0])
	case "substr":
		return mk(kindText, "%s", substr(c.Args, args))
	case "regexp_like":
		return mk(kindBool, "regexp_matches(%s)", list)
	case "regexp_extract":
		return mk(kindText, "regexp_extract(%s)", list)
	}
	if err := need(3); err != nil {
		return rendered{}, err
	}
	switch c.Func {
	case "replace":
		return mk(kindText, "replace(%s)", list)
	case "split_part":
		return mk(kindText, "split_part(%s)", list)
	}
	return rendered{}, fmt.Errorf("BUG: no rendering for function %s", c.Func)
}

// textOf is the text of a value as || and concat join it.
func textOf(a rendered) string {
	switch a.kind {
	case kindText, kindNull:
		return a.value
	case kindDecimal:
		return leadingZero(a.value)
	}
	return "CAST(" + a.value + " AS VARCHAR)"
}

// leadingZero is the text of a decimal. DuckDB writes no digit before the point where the type has none.
func leadingZero(x string) string {
	return "regexp_replace(CAST(" + x + " AS VARCHAR), '^(-?)[.]', '\\10.')"
}

// textOfType is textOf for a value of a known type.
func textOfType(t delta.Type, x string) string {
	if d, ok := t.(delta.Decimal); ok && d.P == d.S {
		return leadingZero(x)
	}
	return "CAST(" + x + " AS VARCHAR)"
}

// guarded renders an operation that some values overflow: such a row fails.
func (r *renderer) guarded(v string, k kind, fail string, args []rendered) rendered {
	v = "TRY(" + v + ")"
	conds := []string{v + " IS NULL"}
	for _, a := range args {
		conds = append(conds, "("+a.value+") IS NOT NULL")
	}
	return rendered{value: v, kind: k, fail: anyOf(fail, "("+strings.Join(conds, " AND ")+")")}
}

// asDecimal gives an integer as a decimal of the digits that it may have. Of a BIGINT and a decimal that have no type in common
// DuckDB's % makes DOUBLEs.
func (r *renderer) asDecimal(e pipeline.Expr, x rendered) string {
	if x.kind != kindInt {
		return x.value
	}
	return "CAST(" + x.value + " AS " + sqlType(pipeline.ExactType(e, r.column), true) + ")"
}

// asExact gives the decimal that a function makes the type of its digits. DuckDB's ceil of a DECIMAL(38,20) is a DECIMAL(38,0), which
// beside decimals of other types takes their digits behind the point.
func (r *renderer) asExact(c pipeline.Call, k kind, x string) string {
	if k != kindDecimal {
		return x
	}
	return "CAST(" + x + " AS " + sqlType(pipeline.ExactType(c, r.column), true) + ")"
}

// substr renders the characters from one on. Where the first stands before the text, DuckDB's own takes other ones of a column that
// it knows to be ASCII than of one that it does not, and beyond 32 bits it fails.
func substr(es []pipeline.Expr, args []rendered) string {
	text, from := args[0].value, typed(args[1])
	atLeast := func(e pipeline.Expr, least int64) bool {
		l, ok := e.(pipeline.Literal)
		n, whole := l.Value.(int64)
		return ok && whole && n >= least && n < 1<<32
	}
	if atLeast(es[1], 1) && len(es) == 2 {
		return "substr(" + text + ", " + from + ")"
	}
	if atLeast(es[1], 1) && atLeast(es[2], 0) {
		return "substr(" + text + ", " + from + ", " + typed(args[2]) + ")"
	}
	narrow := func(x string) string { return "greatest(least(" + x + ", 4294967295), -4294967295)" }
	known := from + " IS NOT NULL"
	from = narrow(from)
	first := "(CASE WHEN " + from + " > 0 THEN " + from + " WHEN " + from + " < 0 THEN length(" + text + ") + 1 + " + from + " ELSE 0 END)"
	list := text + ", greatest(" + first + ", 1)"
	if len(es) > 2 {
		count := typed(args[2])
		known += " AND " + count + " IS NOT NULL"
		list += ", greatest(" + first + " + greatest(" + narrow(count) + ", 0) - greatest(" + first + ", 1), 0)"
	}
	return "(CASE WHEN " + known + " THEN substr(" + list + ") END)"
}

// roomy renders +, - and % of decimals which DuckDB would first make alike, and fail where one has no room, whether or not
// the result has.
func (r *renderer) roomy(c pipeline.Call, args []rendered) (sql string, ok bool) {
	_, common, whole := r.exact(c.Args, args)
	if whole || mixed(args) || c.Func == "*" {
		return "", false
	}
	return fmt.Sprintf("CAST(cauce_exact(%s, %s, %s, %d) AS %s)", quoteText(c.Func), nearest(args[0].value), nearest(args[1].value), common.S, sqlType(delta.Decimal{P: 38, S: common.S}, true)), true
}

func (r *renderer) coalesce(args []rendered) (rendered, error) {
	out := rendered{}
	vals := make([]string, len(args))
	var fails []string
	earlier := ""
	for i, a := range args {
		out.kind, vals[i] = max(out.kind, a.kind), a.value
		if a.fail != "" {
			fails = append(fails, "("+earlier+a.fail+")")
		}
		earlier += "(" + a.value + ") IS NULL AND "
	}
	out.value = "COALESCE(" + strings.Join(vals, ", ") + ")"
	out.fail = anyOf(fails...)
	return out, nil
}

func (r *renderer) eventTime(c pipeline.Call, args []rendered, fail string) (rendered, error) {
	x := textOf(args[0])
	out := rendered{kind: kindTime}
	if len(c.Args) > 1 {
		l, ok := c.Args[1].(pipeline.Literal)
		p, isText := l.Value.(string)
		if !ok || !isText {
			return out, fmt.Errorf("the pattern of to_event_time must be a literal text")
		}
		out.value = "make_timestamp(cauce_pattern_time(" + x + ", " + quoteText(p) + ", " + quoteText(r.zone) + "))"
	} else {
		if n, ok := r.native(args[0], delta.Timestamp, true); ok {
			return n, nil
		}
		// The common case, a whole positive number of at most 17 digits, stays in SQL.
		n := "TRY_CAST(" + x + " AS BIGINT)"
		if args[0].kind == kindInt {
			n = typed(args[0])
		}
		out.value = fmt.Sprintf("make_timestamp(CASE WHEN %[1]s BETWEEN 0 AND %[2]d AND CAST(%[1]s AS VARCHAR) = %[3]s THEN "+
			"CASE WHEN %[1]s >= %[4]d THEN %[1]s WHEN %[1]s >= %[5]d THEN %[1]s * 1000 ELSE %[1]s * 1000000 END ELSE cauce_event_time(%[3]s, %[6]s) END)",
			n, int64(epochMicrosBelow-1), x, int64(epochMillisBelow), int64(epochSecondsBelow), quoteText(r.zone))
	}
	out.fail = anyOf(fail, "("+out.value+" IS NULL AND "+x+" IS NOT NULL AND "+notBlank(x)+")")
	return out, nil
}
