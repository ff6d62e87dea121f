package duckdb

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/delta/expr"
	"github.com/cauce-data/cauce/objstore"
)

// TestRowIDsThroughDuckDB changes tables with row tracking by this engine's reader, writer and locator, and compares the
// ids that its scans and its queries give with those of the pure-Go reader.
func TestRowIDsThroughDuckDB(t *testing.T) {
	for _, config := range []map[string]string{
		{"delta.enableDeletionVectors": "true"}, {"delta.enableDeletionVectors": "false"},
		{"delta.enableDeletionVectors": "true", "delta.columnMapping.mode": "name"},
		{"delta.enableDeletionVectors": "true", "delta.columnMapping.mode": "id"},
	} {
		t.Run(fmt.Sprint(config), func(t *testing.T) { testRowIDs(t, config) })
	}
}

func testRowIDs(t *testing.T, config map[string]string) {
	ctx := context.Background()
	e := testEngine(t)
	store, err := objstore.NewLocal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	schema := &delta.Schema{Fields: []delta.Field{{Name: "id", Type: delta.Long, Nullable: true}, {Name: "p", Type: delta.String, Nullable: true}, {Name: "v", Type: delta.Long, Nullable: true}}}
	config["delta.enableRowTracking"] = "true"
	tab, err := delta.Create(ctx, store, "t", delta.CreateOptions{Schema: schema, PartitionBy: []string{"p"}, Config: config}, &delta.Options{Engine: e.Delta()})
	if err != nil {
		t.Fatal(err)
	}
	plain, err := delta.Open(ctx, store, "t", nil)
	if err != nil {
		t.Fatal(err)
	}
	rows := func(from, to, v int) *delta.MemoryRows {
		var b strings.Builder
		for i := from; i < to; i++ {
			fmt.Fprintf(&b, `,{"id":%d,"p":"p%d","v":%d}`, i, i%2, v)
		}
		rec, _, err := array.RecordFromJSON(memory.DefaultAllocator, schema.Arrow(), strings.NewReader("["+b.String()[1:]+"]"))
		if err != nil {
			t.Fatal(err)
		}
		defer rec.Release()
		return delta.NewRows(schema.Arrow(), rec)
	}
	type row struct{ v, id, version int64 }
	scan := func(tab *delta.Table) map[int64]row {
		s, err := tab.Snapshot(ctx)
		if err != nil {
			t.Fatal(err)
		}
		out := map[int64]row{}
		for b, err := range tab.Scan(ctx, s, delta.ScanOptions{Columns: []string{"id", "v"}, RowTracking: true}) {
			if err != nil {
				t.Fatal(err)
			}
			at := func(c, i int) int64 { return b.Column(c).(*array.Int64).Value(i) }
			for i := range int(b.NumRows()) {
				out[at(0, i)] = row{at(1, i), at(2, i), at(3, i)}
			}
		}
		return out
	}
	query := func() map[int64]row {
		s, err := tab.Snapshot(ctx)
		if err != nil {
			t.Fatal(err)
		}
		r, err := e.Query(ctx, "SELECT id, v, _metadata.row_id, _metadata.row_commit_version FROM t WHERE _metadata.row_id >= 0", []QueryTable{{Name: "t", Snapshot: s}})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		out := map[int64]row{}
		for b, err := range r.Batches(ctx) {
			if err != nil {
				t.Fatal(err)
			}
			at := func(c, i int) int64 { return b.Column(c).(*array.Int64).Value(i) }
			for i := range int(b.NumRows()) {
				out[at(0, i)] = row{at(1, i), at(2, i), at(3, i)}
			}
		}
		return out
	}
	var was map[int64]row
	step := func(what string, do func() error) {
		t.Helper()
		if err := do(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		is, other, sql := scan(tab), scan(plain), query()
		if !maps.Equal(is, other) || !maps.Equal(is, sql) {
			t.Fatalf("%s: DuckDB's scan\n%v\nthe pure-Go scan\n%v\nthe query\n%v", what, is, other, sql)
		}
		seen := map[int64]bool{}
		for k, r := range is {
			if seen[r.id] {
				t.Errorf("%s: id %d stands twice", what, r.id)
			}
			seen[r.id] = true
			if o, ok := was[k]; ok && (o.id != r.id || (o.v == r.v) != (o.version == r.version)) {
				t.Errorf("%s: row %d was %+v, is %+v", what, k, o, r)
			}
		}
		was = is
	}
	id := expr.Column{Path: []string{"id"}}
	step("append", func() error {
		r := rows(0, 20, 0)
		defer r.Close()
		_, err := tab.Append(ctx, r, delta.AppendOptions{})
		return err
	})
	step("update", func() error {
		_, err := tab.Update(ctx, delta.UpdateOptions{Where: expr.Call{Func: "<", Args: []expr.Expr{id, expr.Lit(int64(5))}}, Set: []delta.Assignment{{Column: "v", Value: expr.Lit(int64(1))}}})
		return err
	})
	step("merge", func() error {
		r := rows(3, 25, 2)
		defer r.Close()
		_, err := tab.Merge(ctx, r, delta.MergeOptions{Key: []string{"id"}})
		return err
	})
	step("delete", func() error {
		_, err := tab.DeleteWhere(ctx, expr.Eq(id, expr.Lit(int64(7))), delta.ChangeOptions{})
		return err
	})
	step("optimize", func() error { _, err := tab.Optimize(ctx, delta.OptimizeOptions{}); return err })
	step("z-order", func() error {
		_, err := tab.Optimize(ctx, delta.OptimizeOptions{ZOrderBy: []string{"v"}})
		return err
	})
	if len(was) != 24 {
		t.Errorf("%d rows", len(was))
	}
	// Statistics tell nothing of columns that the table does not have.
	s, err := tab.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range s.Adds() {
		if strings.Contains(a.Stats, "_row-") {
			t.Errorf("statistics %s", a.Stats)
		}
	}
}
