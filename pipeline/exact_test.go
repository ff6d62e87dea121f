package pipeline

import (
	"testing"

	"github.com/cauce-data/cauce/delta"
)

func TestExactTypes(t *testing.T) {
	dec := func(p, s int) Expr { return Cast{Arg: Name{Name: "a"}, Type: delta.Decimal{P: p, S: s}.String()} }
	long := Cast{Arg: Name{Name: "a"}, Type: "long"}
	call := func(f string, args ...Expr) Expr { return Call{Func: f, Args: args} }
	column := func(name string) delta.Type {
		return map[string]delta.Type{"i": delta.Integer, "d": delta.Decimal{P: 18, S: 8}, "f": delta.Double, "s": delta.String}[name]
	}
	for _, c := range []struct {
		e    Expr
		p, s int
	}{
		{Literal{int64(0)}, 1, 0},
		{Literal{int64(-120)}, 3, 0},
		{Literal{Decimal("-0.050")}, 2, 2},
		{Literal{Decimal("120.5")}, 4, 1},
		{Literal{nil}, 0, 0},
		{Name{"i"}, 10, 0},
		{Name{"d"}, 18, 8},
		{Name{"f"}, 0, 0},
		{Name{"s"}, 0, 0},
		{Name{"a"}, 0, 0},
		{call("+", Name{"i"}, Literal{int64(1)}), 19, 0},
		{call("+", dec(18, 8), dec(18, 8)), 19, 8},
		{call("-", dec(38, 20), long), 38, 20},
		{call("*", dec(18, 8), long), 38, 8},
		{call("*", dec(10, 2), dec(9, 3)), 20, 5},
		{call("%", dec(38, 0), dec(38, 37)), 38, 37},
		{call("neg", dec(5, 2)), 5, 2},
		{call("round", dec(5, 2)), 4, 0},
		{call("round", dec(5, 2), Literal{int64(1)}), 5, 1},
		{call("round", dec(5, 2), Literal{int64(7)}), 5, 2},
		{call("round", dec(5, 2), Literal{int64(-9)}), 10, 0},
		{call("round", Name{"i"}, Literal{int64(-1)}), 19, 0},
		{call("floor", dec(5, 2)), 4, 0},
		{call("coalesce", Name{"i"}, dec(5, 2)), 12, 2},
		{call("greatest", dec(38, 0), dec(38, 38)), 38, 38},
		{call("nullif", dec(5, 2), dec(38, 0)), 5, 2},
		{Case{Whens: []When{{Literal{true}, Name{"i"}}}, Else: dec(5, 2)}, 12, 2},
		{Case{Whens: []When{{Literal{true}, dec(5, 2)}}}, 5, 2},
	} {
		if got := ExactType(c.e, column); got != (delta.Decimal{P: c.p, S: c.s}) {
			t.Errorf("%v has the type %v, want DECIMAL(%d,%d)", c.e, got, c.p, c.s)
		}
	}
	if _, whole := CommonExact(delta.Decimal{P: 19}, delta.Decimal{P: 38, S: 20}); whole {
		t.Error("a LONG beside a DECIMAL(38,20) has no room")
	}
	if got, whole := CommonExact(delta.Decimal{P: 18}, delta.Decimal{P: 38, S: 20}, delta.Decimal{}); !whole || got != (delta.Decimal{P: 38, S: 20}) {
		t.Errorf("18 digits beside a DECIMAL(38,20) give %v, %v", got, whole)
	}
}

func TestPlainDecimals(t *testing.T) {
	for d, want := range map[Decimal]string{"1.50": "1.5", "-0.0": "0", "007": "7", "-.5": "-0.5", "0.00": "0", "100": "100", "-1.": "-1"} {
		if got, _ := d.Plain(); got != want {
			t.Errorf("%s is written %s, want %s", d, got, want)
		}
	}
}
