package pipeline

import (
	"fmt"
	"strconv"
	"strings"
)

// Format writes an expression as SQL text, fully parenthesised: one text for each tree, for people and for hashes.
func Format(e Expr) string {
	var b strings.Builder
	format(&b, e)
	return b.String()
}

func format(b *strings.Builder, e Expr) {
	switch x := e.(type) {
	case nil:
		b.WriteString("NULL")
	case Literal:
		switch v := x.Value.(type) {
		case nil:
			b.WriteString("NULL")
		case string:
			b.WriteString("'" + strings.ReplaceAll(v, "'", "''") + "'")
		case bool:
			b.WriteString(strconv.FormatBool(v))
		case int64:
			b.WriteString(strconv.FormatInt(v, 10))
		case Decimal:
			b.WriteString(string(v))
		default:
			fmt.Fprintf(b, "%v", v)
		}
	case Name:
		b.WriteString(formatName(x.Name))
	case Call:
		formatCall(b, x)
	case Cast:
		if x.Try {
			b.WriteString("TRY_")
		}
		b.WriteString("CAST(")
		format(b, x.Arg)
		b.WriteString(" AS " + strings.ToUpper(x.Type) + ")")
	case Case:
		b.WriteString("CASE")
		for _, w := range x.Whens {
			b.WriteString(" WHEN ")
			format(b, w.Cond)
			b.WriteString(" THEN ")
			format(b, w.Then)
		}
		if x.Else != nil {
			b.WriteString(" ELSE ")
			format(b, x.Else)
		}
		b.WriteString(" END")
	}
}

func formatName(name string) string {
	parts := strings.Split(name, ".")
	for i, p := range parts {
		parts[i] = quoteName(p)
	}
	return strings.Join(parts, ".")
}

func formatCall(b *strings.Builder, c Call) {
	list := func(args []Expr, sep string) {
		for i, a := range args {
			if i > 0 {
				b.WriteString(sep)
			}
			format(b, a)
		}
	}
	_, isOp := operators[c.Func]
	switch {
	case !isOp || len(c.Args) == 0:
		b.WriteString(c.Func + "(")
		list(c.Args, ", ")
		b.WriteString(")")
	case c.Func == "not" || c.Func == "neg":
		b.WriteString("(" + map[string]string{"not": "NOT ", "neg": "-"}[c.Func])
		list(c.Args, ", ")
		b.WriteString(")")
	case c.Func == "is null" || c.Func == "is not null":
		b.WriteString("(")
		list(c.Args, ", ")
		b.WriteString(" " + strings.ToUpper(c.Func) + ")")
	case c.Func == "in":
		b.WriteString("(")
		format(b, c.Args[0])
		b.WriteString(" IN (")
		list(c.Args[1:], ", ")
		b.WriteString("))")
	default:
		b.WriteString("(")
		list(c.Args, " "+strings.ToUpper(c.Func)+" ")
		b.WriteString(")")
	}
}

// Walk calls f for an expression and everything in it, the outermost first; e may be nil.
func Walk(e Expr, f func(Expr)) {
	if e == nil {
		return
	}
	f(e)
	switch x := e.(type) {
	case Call:
		for _, a := range x.Args {
			Walk(a, f)
		}
	case Cast:
		Walk(x.Arg, f)
	case Case:
		for _, w := range x.Whens {
			Walk(w.Cond, f)
			Walk(w.Then, f)
		}
		Walk(x.Else, f)
	}
}
