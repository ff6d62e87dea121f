package delta

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/cauce-data/cauce/delta/expr"
	"github.com/cauce-data/cauce/internal/testscale"
)

// withFeed is a configuration with the change feed on.
func withFeed(config map[string]string) map[string]string {
	out := map[string]string{"delta.enableChangeDataFeed": "true"}
	for k, v := range config {
		out[k] = v
	}
	return out
}

// rowTexts counts the rows of a version by their text.
func rowTexts(t testing.TB, tab *Table, v Version) map[string]int {
	t.Helper()
	s, err := tab.SnapshotAt(context.Background(), v)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for b, err := range tab.Scan(context.Background(), s, ScanOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		for i := range int(b.NumRows()) {
			out[rowText(b, i, int(b.NumCols()))]++
		}
	}
	return out
}

func rowText(b arrow.RecordBatch, i, n int) string {
	var row []string
	for _, c := range b.Columns()[:n] {
		if c.IsNull(i) {
			row = append(row, "-")
		} else {
			row = append(row, strings.Clone(c.ValueStr(i)))
		}
	}
	return strings.Join(row, " ")
}

// feedOf lists the changes of a version as "kind row", sorted.
func feedOf(t testing.TB, tab *Table, v Version) []string {
	t.Helper()
	ctx := context.Background()
	f, err := tab.Changes(ctx, ChangesOptions{From: v, To: v})
	if err != nil {
		t.Fatal(err)
	}
	n := len(f.Schema.Fields)
	var out []string
	for b, err := range f.Batches(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		for i := range int(b.NumRows()) {
			if at := b.Column(n - 2).(*array.Int64).Value(i); at != int64(v) {
				t.Errorf("a change of version %d says %d", v, at)
			}
			out = append(out, b.Column(n-3).(*array.String).Value(i)+" "+rowText(b, i, n-3))
		}
	}
	sort.Strings(out)
	return out
}

// checkFeed makes sure that the changes of a version lead from the rows before to the rows after.
func checkFeed(t testing.TB, tab *Table, v Version) {
	t.Helper()
	rows, after := rowTexts(t, tab, v-1), rowTexts(t, tab, v)
	feed := feedOf(t, tab, v)
	for _, c := range feed {
		kind, row, _ := strings.Cut(c, " ")
		switch kind {
		case changePreimage, changeDelete:
			rows[row]--
		case changePostimage, changeInsert:
			rows[row]++
		default:
			t.Errorf("kind of change %q", kind)
		}
	}
	for r, n := range rows {
		if n != after[r] {
			t.Fatalf("version %d: the feed makes %d of row %s, the table has %d; feed:\n%s", v, n, r, after[r], strings.Join(feed, "\n"))
		}
	}
	if len(rows) < len(after) {
		t.Fatalf("version %d: the feed leads to %d rows of %d", v, len(rows), len(after))
	}
}

func TestFeedOfStatements(t *testing.T) {
	ctx := context.Background()
	bothWays(t, func(t *testing.T, config map[string]string) {
		tab := dmlTable(t, withFeed(config), []string{`{"id":1,"k":10,"v":"a","p":"x"}`, `{"id":2,"k":20,"v":"b","p":"x"}`, `{"id":3,"k":30,"v":"c","p":"y"}`})
		s, err := tab.Snapshot(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if p := s.Protocol(); !p.hasWriterFeature("changeDataFeed") {
			t.Errorf("protocol %+v", p)
		}
		step := func(v Version, err error, cdc bool, want ...string) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			if got := feedOf(t, tab, v); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("version %d tells\n%s\nwant\n%s", v, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			c, _, err := tab.readCommit(ctx, v)
			if err != nil {
				t.Fatal(err)
			}
			if (len(c.cdc) > 0) != cdc {
				t.Errorf("version %d has %d files of changes", v, len(c.cdc))
			}
			for _, f := range c.cdc {
				if !strings.HasPrefix(f.Path, "_change_data/") || f.DataChange || f.Size == 0 {
					t.Errorf("%+v", f)
				}
			}
			checkFeed(t, tab, v)
		}
		step(1, nil, false, "insert 1 10 a x", "insert 2 20 b x", "insert 3 30 c y")
		res, err := tab.Update(ctx, UpdateOptions{Where: expr.Eq(expr.Col("id"), expr.Lit(1)), Set: []Assignment{{"p", expr.Lit("z")}}})
		step(res.Version, err, true, "update_postimage 1 10 a z", "update_preimage 1 10 a x")
		res, err = tab.DeleteWhere(ctx, expr.Eq(expr.Col("p"), expr.Lit("y")), ChangeOptions{})
		step(res.Version, err, false, "delete 3 30 c y")
		rows := jsonRows(t, dmlSource, `{"id":1,"k":11,"v":"m","p":"z"}`, `{"id":7,"p":"x"}`)
		defer rows.Close()
		res, err = tab.MergeInto(ctx, rows, MergeIntoOptions{On: expr.Eq(expr.Col("target", "id"), expr.Col("source", "id")), Clauses: []MergeClause{
			{Kind: WhenMatched, All: true}, {Kind: WhenNotMatched, All: true}, {Kind: WhenNotMatchedBySource, Delete: true}}})
		step(res.Version, err, true, "delete 2 20 b x", "insert 7 - - x", "update_postimage 1 11 m z", "update_preimage 1 10 a z")
		mres, err := tab.Merge(ctx, rows, MergeOptions{Key: []string{"id"}, Replace: &Replace{Columns: []string{"p"}, Rows: jsonRows(t, dmlSource, `{"p":"x"}`)}})
		step(mres.Version, err, true, "update_postimage 1 11 m z", "update_postimage 7 - - x", "update_preimage 1 11 m z", "update_preimage 7 - - x")
		ores, err := tab.Optimize(ctx, OptimizeOptions{Purge: true})
		if err != nil {
			t.Fatal(err)
		}
		if ores.Commits > 0 {
			step(ores.Version, nil, false)
		}
		if m := res.Metrics["numTargetChangeFilesAdded"]; m == "0" {
			t.Errorf("metrics %v", res.Metrics)
		}
	})
}

// Random upserts by key, with rows that lose, repetitions and replacements, lead from version to version by their feed,
// also where they lost a race.
func TestFeedOfMerges(t *testing.T) {
	ctx := context.Background()
	bothWays(t, func(t *testing.T, config map[string]string) {
		g := testscale.Rand(t)
		schema := itemSchema()
		tab := dmlTableOf(t, schema, withFeed(config))
		other, err := Open(ctx, tab.Store(), tab.Path(), nil)
		if err != nil {
			t.Fatal(err)
		}
		some := func() *MemoryRows {
			var items []item
			for range 1 + g.IntN(8) {
				items = append(items, item{ID: fmt.Sprint("k", g.IntN(12)), Day: int32(g.IntN(3)), Val: fmt.Sprint(g.IntN(3)), Seq: int64(g.IntN(20)), Rank: int32(g.IntN(2)), Gen: int64(g.IntN(3)), Pos: int64(g.IntN(3)), Origin: fmt.Sprint("o", g.IntN(3)), Ingested: int64(g.IntN(100))})
			}
			return itemRows(items...)
		}
		last := Version(0)
		for step := range testscale.Count(t, "dml-steps") / 5 {
			o := itemMerge()
			if g.IntN(3) == 0 {
				o.Replace = &Replace{Columns: []string{"_origin"}, Rows: itemRows(item{ID: "-", Origin: fmt.Sprint("o", g.IntN(3))})}
			}
			raced := false
			o.Hook = func(phase string) {
				if phase != "before-commit" || raced || step%4 != 0 {
					return
				}
				raced = true
				rows := some()
				defer rows.Close()
				if _, err := other.Merge(ctx, rows, itemMerge()); err != nil {
					t.Error(err)
				}
			}
			rows := some()
			if _, err := tab.Merge(ctx, rows, o); err != nil {
				t.Fatal(err)
			}
			rows.Close()
			s, err := tab.Snapshot(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for v := last + 1; v <= s.Version(); v++ {
				checkFeed(t, tab, v)
			}
			last = s.Version()
		}
	})
}
