package pipeline

import (
	"strconv"
	"strings"

	"github.com/cauce-data/cauce/delta"
)

// Integers and decimals are exact. Engines have their own ideas of the type in which two of different types meet, and
// where that would need more than 38 digits one cuts off decimals, another fails the whole query. So the type is told
// here, and an engine is given what it would do otherwise in casts (docs/expressions.md, Numbers).

const digitsMax = 38

// ExactType is the type that holds all values of an expression of integers or decimals: as many digits as they may have,
// and how many of these stand after the point. An integer has the digits of its type. NULL and what is no exact number
// have none. column gives the type of a column, nil where the name is none.
func ExactType(e Expr, column func(name string) delta.Type) delta.Decimal {
	t, _ := exactType(e, column)
	return t
}

// exactOf are the digits of a type; whole says that its values are integers.
func exactOf(t delta.Type) (d delta.Decimal, whole bool) {
	if d, ok := t.(delta.Decimal); ok {
		return d, false
	}
	switch t {
	case delta.Long:
		return delta.Decimal{P: 19}, true
	case delta.Integer:
		return delta.Decimal{P: 10}, true
	case delta.Short:
		return delta.Decimal{P: 5}, true
	case delta.Byte:
		return delta.Decimal{P: 3}, true
	}
	return delta.Decimal{}, true
}

func exactType(e Expr, column func(name string) delta.Type) (t delta.Decimal, whole bool) {
	all := func(es ...Expr) (types []delta.Decimal, whole bool) {
		whole = true
		for _, e := range es {
			t, w := exactType(e, column)
			types, whole = append(types, t), whole && w
		}
		return types, whole
	}
	choice := func(es ...Expr) (delta.Decimal, bool) {
		types, whole := all(es...)
		t, _ := CommonExact(types...)
		return t, whole
	}
	switch x := e.(type) {
	case Literal:
		switch v := x.Value.(type) {
		case int64:
			return delta.Decimal{P: len(strings.TrimPrefix(strconv.FormatInt(v, 10), "-"))}, true
		case Decimal:
			_, t := v.Plain()
			return t, false
		}
	case Name:
		return exactOf(column(x.Name))
	case Cast:
		if t, err := delta.ParseType(x.Type); err == nil {
			return exactOf(t)
		}
	case Case:
		return choice(x.Results()...)
	case Call:
		switch x.Func {
		case "coalesce", "greatest", "least":
			return choice(x.Args...)
		case "nullif":
			return exactType(x.Args[0], column)
		case "length", "occurrence":
			return exactOf(delta.Long)
		case "+", "-", "*", "%", "neg", "abs", "round", "floor", "ceil":
			types, whole := all(x.Args...)
			if whole || x.Func != "+" && x.Func != "-" && x.Func != "*" && x.Func != "%" {
				_, whole = exactType(x.Args[0], column) // digits of round are integers too
			}
			if whole {
				t, _ := exactOf(delta.Long)
				return t, true
			}
			return operation(x, types), false
		}
	}
	return delta.Decimal{}, true
}

// operation is the type of an operation's result, of which one operand at least is a decimal.
func operation(x Call, types []delta.Decimal) delta.Decimal {
	a := types[0]
	before, scale := a.P-a.S, a.S
	switch x.Func {
	case "neg", "abs":
		return a
	case "floor", "ceil":
		before, scale = before+1, 0
	case "round":
		digits := 0
		if len(x.Args) > 1 {
			l, _ := x.Args[1].(Literal)
			n, _ := l.Value.(int64)
			digits = int(min(max(n, -digitsMax), digitsMax))
		}
		if digits < scale {
			before, scale = max(before+1, 1-digits), max(digits, 0)
		}
	case "+", "-":
		b := types[1]
		before, scale = max(before, b.P-b.S)+1, max(scale, b.S)
	case "*":
		b := types[1]
		before, scale = before+b.P-b.S+1, scale+b.S
	case "%":
		b := types[1]
		before, scale = min(before, b.P-b.S), max(scale, b.S)
	}
	scale = min(scale, digitsMax) // more are refused (check.go)
	return delta.Decimal{P: min(before+scale, digitsMax), S: scale}
}

// CommonExact is the type in which exact numbers of several types are alike: all their decimals, and as many digits
// before the point as there is room for. whole says that every value of theirs fits there.
func CommonExact(types ...delta.Decimal) (t delta.Decimal, whole bool) {
	before := 0
	for _, x := range types {
		before, t.S = max(before, x.P-x.S), max(t.S, x.S)
	}
	t.P = min(before+t.S, digitsMax)
	return t, before+t.S <= digitsMax
}

// FitsExact tells whether every value of one type is one of another.
func FitsExact(from, to delta.Decimal) bool { return from.S <= to.S && from.P-from.S <= to.P-to.S }

// Plain is a decimal constant with no more decimals than it needs, and the narrowest type that holds it.
func (d Decimal) Plain() (text string, t delta.Decimal) {
	number, negative := strings.CutPrefix(string(d), "-")
	before, after, _ := strings.Cut(number, ".")
	before, after = strings.TrimLeft(before, "0"), strings.TrimRight(after, "0")
	t.S = len(after)
	t.P = max(len(strings.TrimLeft(before+after, "0")), t.S, 1)
	if before == "" {
		before = "0"
	}
	if text = before; after != "" {
		text += "." + after
	}
	if negative && text != "0" {
		text = "-" + text
	}
	return text, t
}
