package delta

import (
	"context"
	"testing"

	"github.com/cauce-data/cauce/delta/expr"
	"github.com/cauce-data/cauce/objstore"
)

// TestNullConditionsOfPartitionsDeleteNothing: a file is not dropped whole, unread, where the partition values leave open
// whether the condition is true or null.
func TestNullConditionsOfPartitionsDeleteNothing(t *testing.T) {
	ctx := context.Background()
	schema := &Schema{Fields: []Field{{Name: "id", Type: Long, Nullable: true}, {Name: "p", Type: String, Nullable: true}, {Name: "q", Type: Long, Nullable: true}, {Name: "f", Type: Float, Nullable: true}}}
	other := fn("=", fn("upper", expr.Col("p")), expr.Lit("OTHER"))
	for _, c := range []struct {
		where   expr.Expr
		deleted int64
	}{
		{fn("or", other, fn("=", expr.Col("q"), expr.Lit(1))), 0}, // false or null
		{fn("or", other, expr.Lit(nil)), 0},
		{expr.Not(fn("and", fn("<>", fn("upper", expr.Col("p")), expr.Lit("OTHER")), fn("<>", expr.Col("q"), expr.Lit(1)))), 0}, // not null
		{fn("in", expr.Col("f"), expr.Literal{Value: expr.Decimal("0.1")}, expr.Lit(nil)), 0},                                   // a FLOAT is not 0.1 exactly
		{fn("or", fn("=", expr.Col("p"), expr.Lit("x")), fn("=", expr.Col("q"), expr.Lit(1))), 2},
		{expr.Not(fn("and", fn("=", expr.Col("p"), expr.Lit("y")), fn("=", expr.Col("q"), expr.Lit(1)))), 2},
	} {
		tab, err := Create(ctx, objstore.NewMemory(nil), "t", CreateOptions{Schema: schema, PartitionBy: []string{"p", "q", "f"}, Config: vectors}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tab.Append(ctx, jsonRows(t, schema.Arrow(), `{"id":1,"p":"x","f":0.1}`, `{"id":2,"p":"x","f":0.1}`), AppendOptions{}); err != nil {
			t.Fatal(err)
		}
		res, err := tab.DeleteWhere(ctx, c.where, ChangeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if res.Deleted != c.deleted {
			t.Errorf("%s deletes %d rows, want %d", c.where, res.Deleted, c.deleted)
		}
	}
}
