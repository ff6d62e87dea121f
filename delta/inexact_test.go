package delta_test

import (
	"context"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/delta/expr"
	"github.com/cauce-data/cauce/objstore"
)

// Numbers that differ by less than what an inexact comparison may round away are still less or greater: a file that holds
// such a one is not left out.
func TestConditionsWithInexactNumbersKeepTheirRows(t *testing.T) {
	ctx := context.Background()
	s := &delta.Schema{Fields: []delta.Field{
		{Name: "l", Type: delta.Long, Nullable: true}, {Name: "d", Type: delta.Decimal{P: 38, S: 18}, Nullable: true},
		{Name: "f", Type: delta.Float, Nullable: true}, {Name: "g", Type: delta.Double, Nullable: true},
	}}
	call := func(f string, args ...expr.Expr) expr.Expr { return expr.Call{Func: f, Args: args} }
	where := func(c, op string, v any) expr.Expr {
		return call(op, expr.Column{Path: []string{c}}, expr.Literal{Value: v})
	}
	for _, c := range []struct {
		row  string
		cond expr.Expr
		kept int
	}{
		{`[{"l": 2000000000000001}]`, where("l", ">", 2e15), 1},
		{`[{"l": 1999999999999999}]`, where("l", "<", 2e15), 1},
		{`[{"l": 2000000000000001}]`, where("l", "<>", 2e15), 1},
		{`[{"l": 2000000000000001}]`, call("not", where("l", "<=", 2e15)), 1},
		{`[{"l": 1700000000000000512}]`, where("l", ">", 1.7e18), 1},
		{`[{"d": "0.100000000000000070"}]`, where("d", ">", 0.1), 1},
		{`[{"f": 0.7}]`, where("f", "<", 0.7), 1}, // the FLOAT is 0.69999999
		{`[{"f": 0.7}]`, where("f", "<", expr.Decimal("0.7")), 1},
		{`[{"f": 0.7}]`, call("not", where("f", ">=", expr.Decimal("0.7"))), 1},
		{`[{"g": 0.7}]`, where("g", "<=", expr.Decimal("0.7")), 1},
		// What is exact is still told apart.
		{`[{"l": 2000000000000001}]`, where("l", "<", int64(2000000000000001)), 0},
		{`[{"l": 2000000000000001}]`, where("l", ">", int64(2000000000000001)), 0},
		{`[{"d": "0.100000000000000070"}]`, where("d", "<", expr.Decimal("0.10000000000000007")), 0},
		{`[{"g": 0.7}]`, where("g", "<", 0.6), 0},
	} {
		store, err := objstore.NewLocal(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		tab, err := delta.Create(ctx, store, "t", delta.CreateOptions{Schema: s}, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, _, err := array.RecordFromJSON(memory.DefaultAllocator, s.Arrow(), strings.NewReader(c.row))
		if err != nil {
			t.Fatal(err)
		}
		_, err = tab.Append(ctx, delta.NewRows(b.Schema(), b), delta.AppendOptions{})
		b.Release()
		if err != nil {
			t.Fatal(err)
		}
		snap, err := tab.Snapshot(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if kept := len(snap.Prune(delta.PredicateOf(c.cond))); kept != c.kept {
			t.Errorf("%s: %s: %d files, not %d", c.row, c.cond, kept, c.kept)
		}
		r, err := tab.DeleteWhere(ctx, c.cond, delta.ChangeOptions{DryRun: true})
		if err != nil {
			t.Fatal(err)
		}
		if r.Deleted != int64(c.kept) {
			t.Errorf("%s: DELETE WHERE %s: %d rows, not %d", c.row, c.cond, r.Deleted, c.kept)
		}
	}
}
