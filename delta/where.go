package delta

import (
	"time"

	"github.com/cauce-data/cauce/delta/expr"
)

// PredicateOf is what can be told from statistics and partition values about a condition over the columns of a table: a
// Predicate that is satisfied by every row for which the condition is true, and perhaps by more. For use in Prune, Scan
// and Tx.ReadWhere.
func PredicateOf(cond expr.Expr) Predicate {
	if cond == nil {
		return And()
	}
	return predicateOf(cond, func(path []string) (string, bool) { return path[0], len(path) == 1 })
}

// undecided is a predicate of which nothing is known.
type undecided struct{}

func (undecided) decide(*fileFacts) verdict { return unknown }

// nullSafe is "column <=> value": where it is not true it is false, also for nulls.
type nullSafe struct{ Predicate }

func (p nullSafe) decide(f *fileFacts) verdict {
	return verdict{mayTrue: p.Predicate.decide(f).mayTrue, mayFalse: true}
}

// keysPredicate may be satisfied by the rows that have one of some keys.
type keysPredicate []keyValues

func (p keysPredicate) decide(f *fileFacts) verdict {
	return verdict{mayTrue: f.snapshot.mayHold(f, p), mayFalse: true}
}

var flipped = map[string]string{"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}

// predicateOf translates what it can; name gives the table's column of a path, if it is one.
func predicateOf(e expr.Expr, name func(path []string) (string, bool)) Predicate {
	column := func(e expr.Expr) (string, bool) {
		if c, ok := e.(expr.Column); ok && len(c.Path) > 0 {
			return name(c.Path)
		}
		return "", false
	}
	switch e := e.(type) {
	case expr.Literal:
		switch e.Value {
		case true:
			return And()
		case false:
			return Or()
		case nil:
			return In{Values: []any{nil}} // never true, never false
		}
	case expr.Column:
		if c, ok := column(e); ok {
			return Compare{c, "=", true}
		}
	case expr.Call:
		args := e.Args
		switch e.Func {
		case "and", "or":
			ps := make([]Predicate, len(args))
			for i, a := range args {
				ps[i] = predicateOf(a, name)
			}
			if e.Func == "or" {
				return Or(ps...)
			}
			return And(ps...)
		case "not":
			if len(args) == 1 {
				return Not{predicateOf(args[0], name)}
			}
		case "is null", "is not null":
			if len(args) != 1 {
				break
			}
			if c, ok := column(args[0]); ok {
				if e.Func == "is null" {
					return IsNull{c}
				}
				return Not{IsNull{c}}
			}
		case "=", "<>", "<", "<=", ">", ">=", "<=>":
			if len(args) != 2 {
				break
			}
			op := e.Func
			c, ok := column(args[0])
			v := args[1]
			if !ok {
				c, ok = column(args[1])
				v = args[0]
				if f := flipped[op]; f != "" {
					op = f
				}
			}
			l, isLit := v.(expr.Literal)
			if !ok || !isLit {
				break
			}
			if op == "<=>" {
				if l.Value == nil {
					return IsNull{c}
				}
				return nullSafe{Compare{c, "=", predicateValue(l.Value)}}
			}
			return Compare{c, op, predicateValue(l.Value)}
		case "in":
			if len(args) < 2 {
				break
			}
			c, ok := column(args[0])
			in := In{Column: c}
			for _, a := range args[1:] {
				l, isLit := a.(expr.Literal)
				ok = ok && isLit
				in.Values = append(in.Values, predicateValue(l.Value))
			}
			if ok {
				return in
			}
		}
	}
	return undecided{}
}

// strayValue has a kind that no column compares with, so that nothing is concluded from it.
type strayValue struct{}

func predicateValue(v any) any {
	switch v := v.(type) {
	case nil, bool, int64, float64, string, []byte:
		return v
	case expr.Decimal:
		return Number(v)
	case expr.Date:
		return Days(v)
	case expr.Timestamp:
		return time.UnixMicro(int64(v)).UTC()
	}
	return strayValue{}
}
