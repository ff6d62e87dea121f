package index_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"pgregory.net/rapid"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/ingest/index"
	"github.com/cauce-data/cauce/objstore"
)

// counting notes how many files a Locator had to scan.
type counting struct {
	delta.Locator
	files, calls int
}

func (c *counting) Locate(ctx context.Context, table delta.TableInfo, files []delta.File, source delta.Rows, key, want []string) (*delta.Matches, error) {
	c.calls++
	c.files += len(files)
	return c.Locator.Locate(ctx, table, files, source, key, want)
}

var schema = &delta.Schema{Fields: []delta.Field{
	{Name: "k", Type: delta.String, Nullable: true}, {Name: "n", Type: delta.Long, Nullable: true},
	{Name: "day", Type: delta.Integer, Nullable: true}, {Name: "v", Type: delta.Long, Nullable: true},
}}

type row struct {
	k    string
	null bool
	n    int64
	day  int32
	v    int64
}

func rowsOf(rows []row) *delta.MemoryRows {
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema.Arrow())
	defer b.Release()
	for _, r := range rows {
		if r.null {
			b.Field(0).AppendNull()
		} else {
			b.Field(0).(*array.StringBuilder).Append(r.k)
		}
		b.Field(1).(*array.Int64Builder).Append(r.n)
		b.Field(2).(*array.Int32Builder).Append(r.day)
		b.Field(3).(*array.Int64Builder).Append(r.v)
	}
	return delta.NewRows(b.Schema(), b.NewRecordBatch())
}

func newTable(t *rapid.T, eng delta.Engine) *delta.Table {
	tbl, err := delta.Create(context.Background(), objstore.NewMemory(nil), "t", delta.CreateOptions{
		Schema: schema, PartitionBy: []string{"day"}, Config: map[string]string{"delta.enableDeletionVectors": "true"},
	}, &delta.Options{Engine: eng})
	if err != nil {
		t.Fatal(err)
	}
	return tbl
}

// TestSameTableWithAndWithout runs one random history of merges, compactions and restores on two tables, one of which
// finds its rows through an Index. They must be equal after each step, whatever fits the Index's memory.
func TestSameTableWithAndWithout(t *testing.T) {
	var scanned, plain int
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		inner, all := &counting{Locator: delta.PureGo().Locator}, &counting{Locator: delta.PureGo().Locator}
		eng, ref := delta.PureGo(), delta.PureGo()
		const ample = 1 << 30
		bytesMax := rapid.SampledFrom([]int64{1, 700, 5_000, ample}).Draw(t, "bytes")
		x := index.New(inner, eng.Reader, index.Options{BytesMax: bytesMax})
		eng.Locator, ref.Locator = x, all
		a, b := newTable(t, eng), newTable(t, ref)
		key := rapid.SampledFrom([][]string{{"k"}, {"k", "n"}}).Draw(t, "key")
		for step := range rapid.IntRange(3, 14).Draw(t, "steps") {
			switch op := rapid.SampledFrom([]string{"merge", "merge", "merge", "merge", "optimize", "restore"}).Draw(t, "op"); op {
			case "merge":
				var rows []row
				for range rapid.IntRange(1, 30).Draw(t, "rows") {
					rows = append(rows, row{
						k: fmt.Sprint("key-", rapid.IntRange(0, 25).Draw(t, "k")), null: rapid.IntRange(0, 20).Draw(t, "null") == 0,
						n: rapid.Int64Range(0, 1).Draw(t, "n"), day: rapid.Int32Range(0, 3).Draw(t, "day"), v: rapid.Int64Range(0, 9).Draw(t, "v"),
					})
				}
				o := delta.MergeOptions{Key: key, Order: []delta.OrderTerm{{Column: "v"}, {Column: "day"}, {Column: "n"}}, Same: []string{"v"}, Carry: []string{"day"}}
				ra, errA := a.Merge(ctx, rowsOf(rows), o)
				rb, errB := b.Merge(ctx, rowsOf(rows), o)
				if errA != nil || errB != nil {
					t.Fatal(errA, errB)
				}
				if ra.Inserted != rb.Inserted || ra.Updated != rb.Updated || ra.Unchanged != rb.Unchanged || ra.Lost != rb.Lost {
					t.Fatalf("step %d: %+v with the index, %+v without", step, *ra, *rb)
				}
			case "optimize":
				for _, tbl := range []*delta.Table{a, b} {
					if _, err := tbl.Optimize(ctx, delta.OptimizeOptions{}); err != nil {
						t.Fatal(err)
					}
				}
			case "restore":
				s, err := b.Snapshot(ctx)
				if err != nil {
					t.Fatal(err)
				}
				v := delta.Version(rapid.Int64Range(0, int64(s.Version())).Draw(t, "version"))
				for _, tbl := range []*delta.Table{a, b} {
					if _, err := tbl.Restore(ctx, v, delta.RestoreOptions{}); err != nil {
						t.Fatal(err)
					}
				}
			}
			var hash [2]string
			for i, tbl := range []*delta.Table{a, b} {
				s, err := tbl.Snapshot(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if hash[i], err = delta.LogicalHash(ctx, tbl, s); err != nil {
					t.Fatal(err)
				}
			}
			if hash[0] != hash[1] {
				t.Fatalf("step %d: with the index the table is another", step)
			}
		}
		if bytesMax == ample { // with less it may rightly leave all files to scans
			scanned += inner.files
			plain += all.files
		}
	})
	if plain > 300 && scanned*10 > plain*9 { // few and short histories say nothing
		t.Errorf("the index left %d of %d files to scans: it answers nothing", scanned, plain)
	}
}

// TestLocate compares answers with those of the plain Locator: many rows a file, so that buckets and the sort matter,
// marked rows, several stored rows of one key, and files of which some are not remembered.
func TestLocate(t *testing.T) {
	ctx := t.Context()
	inner := &counting{Locator: delta.PureGo().Locator}
	eng := delta.PureGo()
	tbl, err := delta.Create(ctx, objstore.NewMemory(nil), "t", delta.CreateOptions{Schema: schema, PartitionBy: []string{"day"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var rows []row
	for i := range 40_000 {
		rows = append(rows, row{k: fmt.Sprint("key-", i%30_000), n: int64(i), day: int32(i % 3), v: int64(i)})
	}
	if _, err := tbl.Append(ctx, rowsOf(rows), delta.AppendOptions{}); err != nil {
		t.Fatal(err)
	}
	s, err := tbl.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	files, err := s.Files(ctx)
	if err != nil {
		t.Fatal(err)
	}
	x := index.New(inner, eng.Reader, index.Options{})
	var src []row
	for i := 0; i < 35_000; i += 7 {
		src = append(src, row{k: fmt.Sprint("key-", i), null: i%70 == 0})
	}
	source := rowsOf(src)
	answer := func(l delta.Locator, files []delta.File, want []string) []string {
		t.Helper()
		m, err := l.Locate(ctx, s.TableInfo(), files, source, []string{"k"}, want)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Release()
		var out []string
		for i, h := range m.Match {
			line := fmt.Sprint(h.Source, files[h.File].Key, h.Row)
			if want != nil {
				line += m.Stored.Column(0).ValueStr(i) + " " + m.Stored.Column(1).ValueStr(i)
			}
			out = append(out, line)
		}
		slices.Sort(out)
		return out
	}
	for round := range 4 {
		some := files[:1+round%len(files)]
		for _, want := range [][]string{nil, {"n", "v"}} {
			before := inner.files
			got, expected := answer(x, some, want), answer(delta.PureGo().Locator, some, want)
			if len(expected) == 0 || !slices.Equal(got, expected) {
				t.Fatalf("round %d: %d matches, want %d", round, len(got), len(expected))
			}
			if round == 3 && inner.files != before {
				t.Errorf("%d files were scanned although all were asked for before", inner.files-before)
			}
		}
	}
	if bytes, n := x.Size(); n != len(files) || bytes < 40_000*16 {
		t.Errorf("%d files in %d bytes are remembered", n, bytes)
	}
	// Files that have left the table are forgotten soon, and those that come back are found all the same.
	var gone []string
	for _, f := range files[1:] {
		gone = append(gone, f.Key)
	}
	x.Gone(gone)
	for range 4 {
		answer(x, files[:1], nil)
	}
	if bytes, n := x.Size(); n != 1 || bytes > 40_000*16 {
		t.Errorf("%d files in %d bytes are remembered after all but one have gone", n, bytes)
	}
	for range 3 {
		if got, expected := answer(x, files, nil), answer(delta.PureGo().Locator, files, nil); !slices.Equal(got, expected) {
			t.Fatalf("%d matches, want %d", len(got), len(expected))
		}
	}
}

// TestColumnsThatChange has a column get the name that the key had, and the key another type, between merges of one
// process: what is remembered of the files must not be taken for the new key.
func TestColumnsThatChange(t *testing.T) {
	ctx := context.Background()
	eng := delta.PureGo()
	eng.Locator = index.New(eng.Locator, eng.Reader, index.Options{})
	ids := &delta.Schema{Fields: []delta.Field{
		{Name: "id", Type: delta.Decimal{P: 5, S: 1}, Nullable: true}, {Name: "other", Type: delta.Decimal{P: 5, S: 1}, Nullable: true},
	}}
	tbl, err := delta.Create(ctx, objstore.NewMemory(nil), "t", delta.CreateOptions{Schema: ids, Config: map[string]string{
		"delta.columnMapping.mode": "name", "delta.enableTypeWidening": "true", "delta.enableDeletionVectors": "true",
	}}, &delta.Options{Engine: eng})
	if err != nil {
		t.Fatal(err)
	}
	merge := func(rows string) *delta.MergeResult {
		t.Helper()
		s, err := tbl.Snapshot(ctx)
		if err != nil {
			t.Fatal(err)
		}
		b, _, err := array.RecordFromJSON(memory.DefaultAllocator, s.Schema().Arrow(), strings.NewReader(rows))
		if err != nil {
			t.Fatal(err)
		}
		res, err := tbl.Merge(ctx, delta.NewRows(b.Schema(), b), delta.MergeOptions{Key: []string{"id"}, Order: []delta.OrderTerm{{Column: "other"}}})
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	alter := func(_ *delta.AlterResult, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	merge(`[{"id": "1.0", "other": "7.0"}, {"id": "2.0", "other": "8.0"}]`)
	for range 3 { // the file is remembered
		if res := merge(`[{"id": "1.0", "other": "7.0"}]`); res.Inserted != 0 {
			t.Fatalf("%+v", *res)
		}
	}
	alter(tbl.ChangeColumn(ctx, []string{"id"}, delta.ColumnChange{Type: delta.Decimal{P: 8, S: 3}}, delta.AlterOptions{}))
	for range 3 {
		if res := merge(`[{"id": "1.000", "other": "7.0"}]`); res.Inserted != 0 {
			t.Fatalf("after the key was widened: %+v", *res)
		}
	}
	alter(tbl.RenameColumn(ctx, []string{"id"}, "was", delta.AlterOptions{}))
	alter(tbl.RenameColumn(ctx, []string{"other"}, "id", delta.AlterOptions{}))
	alter(tbl.RenameColumn(ctx, []string{"was"}, "other", delta.AlterOptions{}))
	if res := merge(`[{"id": "1.0", "other": "9.000"}, {"id": "8.0", "other": "9.000"}]`); res.Inserted != 1 || res.Updated != 1 {
		t.Fatalf("after names were swapped: %+v", *res)
	}
}
