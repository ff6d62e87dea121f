package duckdb

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/delta/expr"
	"github.com/cauce-data/cauce/objstore"
)

// A table may have columns of the names that positions have; _row is one that loaders of others add.
func TestColumnsNamedAsPositions(t *testing.T) {
	ctx := context.Background()
	e := testEngine(t)
	for _, names := range [][]string{{"id", "_row", "_file_index"}, {"_row", "id", "v"}} {
		t.Run(strings.Join(names, " "), func(t *testing.T) {
			store, err := objstore.NewLocal(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			s := &delta.Schema{}
			for _, n := range names {
				s.Fields = append(s.Fields, delta.Field{Name: n, Type: delta.Long, Nullable: true})
			}
			tab, err := delta.Create(ctx, store, "t", delta.CreateOptions{Schema: s, Config: map[string]string{
				"delta.enableDeletionVectors": "true", "delta.enableChangeDataFeed": "true",
			}}, &delta.Options{Engine: e.Delta()})
			if err != nil {
				t.Fatal(err)
			}
			row := func(id, row, more int) map[string]any {
				return map[string]any{names[0]: id, names[1]: row, names[2]: more}
			}
			rows := func(r ...map[string]any) delta.Rows { return rowsOf(t, s, r) }
			must := func(_ any, err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			must(tab.Append(ctx, rows(row(1, 3, 0), row(2, 2, 1), row(3, 1, 2), row(4, 0, 3)), delta.AppendOptions{}))
			must(tab.DeleteWhere(ctx, expr.Eq(expr.Col(names[0]), expr.Lit(int64(1))), delta.ChangeOptions{}))
			must(tab.Update(ctx, delta.UpdateOptions{Where: expr.Eq(expr.Col(names[0]), expr.Lit(int64(2))), Set: []delta.Assignment{{Column: names[2], Value: expr.Lit(int64(20))}}}))
			must(tab.Merge(ctx, rows(row(3, 9, 30), row(4, 9, 1), row(5, 9, 50)), delta.MergeOptions{Key: names[:1], Order: []delta.OrderTerm{{Column: names[2]}}}))
			snap, err := tab.Snapshot(ctx)
			if err != nil {
				t.Fatal(err)
			}
			want := lines([]map[string]any{row(2, 2, 20), row(3, 9, 30), row(4, 0, 3), row(5, 9, 50)})
			if got := lines(readRows(t, tab, snap)); !slices.Equal(got, want) {
				t.Errorf("%v, want %v", got, want)
			}
			feed, err := tab.Changes(ctx, delta.ChangesOptions{From: 2, To: -1})
			if err != nil {
				t.Fatal(err)
			}
			var told []string
			for b, err := range feed.Batches(ctx) {
				if err != nil {
					t.Fatal(err)
				}
				for i := range int(b.NumRows()) {
					told = append(told, fmt.Sprint(b.Column(0).ValueStr(i), " ", b.Column(1).ValueStr(i), " ", b.Column(2).ValueStr(i), " ", b.Column(3).ValueStr(i)))
				}
			}
			slices.Sort(told)
			if want := []string{"1 3 0 delete", "2 2 1 update_preimage", "2 2 20 update_postimage", "3 1 2 update_preimage", "3 9 30 update_postimage", "5 9 50 insert"}; !slices.Equal(told, want) {
				t.Errorf("the feed has\n%s\nnot\n%s", strings.Join(told, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}
