// Package expr is a small language of SQL expressions over Arrow record batches: a tree with three-valued logic, a
// printer, and an evaluator in pure Go. It has the meaning of Spark SQL in ANSI mode with the session time zone UTC,
// because that is the language in which Delta tables keep their constraints and generated columns: an integer that
// overflows, a division by zero and a cast that fails are errors, not nulls. It does not parse: an engine does
// (see ExpressionParser of package delta).
package expr

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
)

// Expr is an expression: Column, Literal, Call, Cast or Case. String gives it as Spark SQL.
type Expr interface {
	fmt.Stringer
	isExpr()
}

// Column refers to a column, or by further names to a member of a struct in it. Names compare in any case. What the
// first name may be (a column, or the alias of a table) is the Resolver's to say.
type Column struct{ Path []string }

// Literal is a constant: nil, bool, int64 (an INT where it fits, else a BIGINT), float64, string, []byte, Decimal, Date
// or Timestamp.
type Literal struct{ Value any }

// Decimal is an exact decimal constant as written, such as "0.10", which is a DECIMAL(2,2).
type Decimal string

// Date is a day, counted from 1970-01-01.
type Date int32

// Timestamp is an instant in µs since 1970-01-01T00:00:00Z.
type Timestamp int64

// Call applies an operator or a function. Operators: + - * / % || = <> < <= > >= <=> (null-safe equality), and, or, not,
// "is null", "is not null", in, like, neg. Functions are in lower case; see Functions.
type Call struct {
	Func string
	Args []Expr
}

// Cast converts to a type. A value that does not fit is an error, or null with Try.
type Cast struct {
	Arg  Expr
	Type arrow.DataType
	Try  bool
}

// Case is a searched CASE. Else may be nil.
type Case struct {
	Whens []When
	Else  Expr
}

// When is one branch of a Case.
type When struct{ Cond, Then Expr }

func (Column) isExpr()  {}
func (Literal) isExpr() {}
func (Call) isExpr()    {}
func (Cast) isExpr()    {}
func (Case) isExpr()    {}

// Col is the column of a path.
func Col(path ...string) Expr { return Column{path} }

// Lit is a constant.
func Lit(v any) Expr {
	switch x := v.(type) {
	case int:
		return Literal{int64(x)}
	case int32:
		return Literal{int64(x)}
	case time.Time:
		return Literal{Timestamp(x.UnixMicro())}
	}
	return Literal{v}
}

// And is true where all are; And() is true.
func And(es ...Expr) Expr { return fold("and", true, es) }

// Or is true where one is; Or() is false.
func Or(es ...Expr) Expr { return fold("or", false, es) }

func fold(op string, none bool, es []Expr) Expr {
	if len(es) == 0 {
		return Literal{none}
	}
	e := es[0]
	for _, x := range es[1:] {
		e = Call{op, []Expr{e, x}}
	}
	return e
}

// Not is true where e is false.
func Not(e Expr) Expr { return Call{"not", []Expr{e}} }

// Eq is a = b.
func Eq(a, b Expr) Expr { return Call{"=", []Expr{a, b}} }

// NullSafeEq is a <=> b: never null, and true if both are null.
func NullSafeEq(a, b Expr) Expr { return Call{"<=>", []Expr{a, b}} }

// Between is lo <= e AND e <= hi.
func Between(e, lo, hi Expr) Expr {
	return And(Call{">=", []Expr{e, lo}}, Call{"<=", []Expr{e, hi}})
}

// Conjuncts takes an expression apart at its top-level ANDs.
func Conjuncts(e Expr) []Expr {
	if c, ok := e.(Call); ok && c.Func == "and" {
		var out []Expr
		for _, a := range c.Args {
			out = append(out, Conjuncts(a)...)
		}
		return out
	}
	return []Expr{e}
}

// Walk calls f for e and what is below it, outermost first, until f returns false for a node, whose inside is left out.
func Walk(e Expr, f func(Expr) bool) {
	if e == nil || !f(e) {
		return
	}
	switch e := e.(type) {
	case Call:
		for _, a := range e.Args {
			Walk(a, f)
		}
	case Cast:
		Walk(e.Arg, f)
	case Case:
		for _, w := range e.Whens {
			Walk(w.Cond, f)
			Walk(w.Then, f)
		}
		Walk(e.Else, f)
	}
}

// Map rebuilds an expression from the leaves up, with f applied to each node.
func Map(e Expr, f func(Expr) Expr) Expr {
	switch x := e.(type) {
	case nil:
		return nil
	case Call:
		args := make([]Expr, len(x.Args))
		for i, a := range x.Args {
			args[i] = Map(a, f)
		}
		e = Call{x.Func, args}
	case Cast:
		e = Cast{Map(x.Arg, f), x.Type, x.Try}
	case Case:
		out := Case{Else: Map(x.Else, f)}
		for _, w := range x.Whens {
			out.Whens = append(out.Whens, When{Map(w.Cond, f), Map(w.Then, f)})
		}
		e = out
	}
	return f(e)
}

// Columns lists the paths of all columns in e, each once.
func Columns(e Expr) [][]string {
	seen := map[string]bool{}
	var out [][]string
	Walk(e, func(x Expr) bool {
		if c, ok := x.(Column); ok {
			if k := strings.ToLower(strings.Join(c.Path, "\x00")); !seen[k] {
				seen[k] = true
				out = append(out, c.Path)
			}
		}
		return true
	})
	return out
}

func quoteName(n string) string {
	plain := n != ""
	for i, r := range n {
		plain = plain && (r == '_' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || i > 0 && r >= '0' && r <= '9')
	}
	if plain && !reserved[strings.ToLower(n)] {
		return n
	}
	return "`" + strings.ReplaceAll(n, "`", "``") + "`"
}

var reserved = func() map[string]bool {
	m := map[string]bool{}
	for w := range strings.FieldsSeq("all and any as between both case cast check collate column constraint create cross current_date current_time current_timestamp current_user distinct else end escape except exists false fetch filter for foreign from full grant group having in inner insert intersect interval into is join lateral leading left like natural not null on only or order outer overlaps primary references right select session_user set some table then to trailing true union unique unknown update user using values when where with date timestamp div if delete merge") {
		m[w] = true
	}
	return m
}()

func (c Column) String() string {
	parts := make([]string, len(c.Path))
	for i, p := range c.Path {
		parts[i] = quoteName(p)
	}
	return strings.Join(parts, ".")
}

func (l Literal) String() string {
	switch v := l.Value.(type) {
	case nil:
		return "NULL"
	case bool:
		return strings.ToUpper(strconv.FormatBool(v))
	case int64:
		if v == math.MinInt64 {
			return "CAST('-9223372036854775808' AS BIGINT)"
		}
		return strconv.FormatInt(v, 10)
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return "CAST('" + strings.ReplaceAll(fmt.Sprint(v), "Inf", "Infinity") + "' AS DOUBLE)"
		}
		return strconv.FormatFloat(v, 'e', -1, 64) + "D"
	case string:
		return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\n", `\n`).Replace(v) + "'"
	case []byte:
		return fmt.Sprintf("X'%X'", v)
	case Decimal:
		return string(v)
	case Date:
		return "DATE '" + formatDate(v) + "'"
	case Timestamp:
		return "TIMESTAMP '" + formatTimestamp(int64(v)) + "Z'"
	}
	return fmt.Sprintf("<%T>", l.Value)
}

var infix = map[string]string{
	"+": "+", "-": "-", "*": "*", "/": "/", "%": "%", "||": "||", "=": "=", "<>": "<>", "<": "<", "<=": "<=", ">": ">",
	">=": ">=", "<=>": "<=>", "and": "AND", "or": "OR", "like": "LIKE", "div": "DIV",
}

func (c Call) String() string {
	arg := func(i int) string { return c.Args[i].String() }
	if op, ok := infix[c.Func]; ok && len(c.Args) == 2 {
		return "(" + arg(0) + " " + op + " " + arg(1) + ")"
	}
	if len(c.Args) == 1 {
		switch c.Func {
		case "not":
			return "(NOT " + arg(0) + ")"
		case "neg":
			return "(- " + arg(0) + ")"
		case "is null":
			return "(" + arg(0) + " IS NULL)"
		case "is not null":
			return "(" + arg(0) + " IS NOT NULL)"
		}
	}
	list := make([]string, len(c.Args))
	for i := range c.Args {
		list[i] = arg(i)
	}
	if c.Func == "in" && len(list) > 1 {
		return "(" + list[0] + " IN (" + strings.Join(list[1:], ", ") + "))"
	}
	return c.Func + "(" + strings.Join(list, ", ") + ")"
}

func (c Cast) String() string {
	f := "CAST("
	if c.Try {
		f = "TRY_CAST("
	}
	return f + c.Arg.String() + " AS " + TypeName(c.Type) + ")"
}

func (c Case) String() string {
	var b strings.Builder
	b.WriteString("CASE")
	for _, w := range c.Whens {
		b.WriteString(" WHEN " + w.Cond.String() + " THEN " + w.Then.String())
	}
	if c.Else != nil {
		b.WriteString(" ELSE " + c.Else.String())
	}
	return b.String() + " END"
}

// TypeName is Spark's name of a type.
func TypeName(t arrow.DataType) string {
	switch t := t.(type) {
	case *arrow.Int8Type:
		return "TINYINT"
	case *arrow.Int16Type:
		return "SMALLINT"
	case *arrow.Int32Type:
		return "INT"
	case *arrow.Int64Type:
		return "BIGINT"
	case *arrow.Float32Type:
		return "FLOAT"
	case *arrow.Float64Type:
		return "DOUBLE"
	case *arrow.StringType:
		return "STRING"
	case *arrow.BinaryType:
		return "BINARY"
	case *arrow.BooleanType:
		return "BOOLEAN"
	case *arrow.Date32Type:
		return "DATE"
	case *arrow.TimestampType:
		if t.TimeZone == "" {
			return "TIMESTAMP_NTZ"
		}
		return "TIMESTAMP"
	case *arrow.Decimal128Type:
		return fmt.Sprintf("DECIMAL(%d,%d)", t.Precision, t.Scale)
	case *arrow.NullType:
		return "VOID"
	}
	return strings.ToUpper(t.String())
}

func formatDate(d Date) string { return time.Unix(int64(d)*86400, 0).UTC().Format("2006-01-02") }

func formatTimestamp(us int64) string {
	return time.UnixMicro(us).UTC().Format("2006-01-02 15:04:05.999999")
}
