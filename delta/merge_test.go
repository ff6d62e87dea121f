package delta

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"pgregory.net/rapid"

	"github.com/cauce-data/cauce/objstore"
)

// item is a row of the test's table.
type item struct {
	ID       string
	Day      int32
	Val      string
	Seq      int64
	Rank     int32
	Gen, Pos int64
	Origin   string
	Ingested int64
	Dead     bool
}

func itemSchema() *Schema {
	return &Schema{Fields: []Field{
		{Name: "id", Type: String},
		{Name: "val", Type: String, Nullable: true},
		{Name: "seq", Type: Timestamp, Nullable: true},
		{Name: "ingested_at", Type: Timestamp, Nullable: true},
		{Name: "day", Type: Date, Nullable: true},
		{Name: "_rank", Type: Integer, Nullable: true},
		{Name: "_generation", Type: Long, Nullable: true},
		{Name: "_position", Type: Long, Nullable: true},
		{Name: "_origin", Type: String, Nullable: true},
		{Name: "_deleted", Type: Boolean, Nullable: true},
	}}
}

func itemRows(items ...item) *MemoryRows {
	sc := itemSchema().Arrow()
	b := array.NewRecordBuilder(memory.DefaultAllocator, sc)
	defer b.Release()
	for _, x := range items {
		b.Field(0).(*array.StringBuilder).Append(x.ID)
		if x.Val == "" {
			b.Field(1).AppendNull()
		} else {
			b.Field(1).(*array.StringBuilder).Append(x.Val)
		}
		b.Field(2).(*array.TimestampBuilder).Append(arrow.Timestamp(x.Seq))
		b.Field(3).(*array.TimestampBuilder).Append(arrow.Timestamp(x.Ingested))
		b.Field(4).(*array.Date32Builder).Append(arrow.Date32(x.Day))
		b.Field(5).(*array.Int32Builder).Append(x.Rank)
		b.Field(6).(*array.Int64Builder).Append(x.Gen)
		b.Field(7).(*array.Int64Builder).Append(x.Pos)
		b.Field(8).(*array.StringBuilder).Append(x.Origin)
		b.Field(9).(*array.BooleanBuilder).Append(x.Dead)
	}
	rec := b.NewRecordBatch()
	defer rec.Release()
	return NewRows(sc, rec)
}

func itemMerge() MergeOptions {
	mapped := []string{"id", "val", "seq", "day", "_deleted"}
	return MergeOptions{
		Key: []string{"id"},
		Order: []OrderTerm{{Column: "seq"}, {Column: "_rank"}, {Column: "_generation"}, {Column: "_position"},
			{HashOf: mapped}, {Column: "_origin"}},
		Same: mapped, Carry: []string{"ingested_at"}, Tombstone: "_deleted",
	}
}

// less is the order of itemMerge; only items with another hash have another id, value, seq, day or tombstone.
func (x item) less(y item) bool {
	if x.Seq != y.Seq {
		return x.Seq < y.Seq
	}
	if x.Rank != y.Rank {
		return x.Rank < y.Rank
	}
	if x.Gen != y.Gen {
		return x.Gen < y.Gen
	}
	if x.Pos != y.Pos {
		return x.Pos < y.Pos
	}
	if a, b := x.hash(), y.hash(); a != b {
		return a < b
	}
	return x.Origin < y.Origin
}

func (x item) hash() uint64 {
	rows := itemRows(x)
	defer rows.Close()
	b := rows.batches[0]
	names := []string{"id", "val", "seq", "day", "_deleted"}
	var cols []arrow.Array
	for _, n := range names {
		cols = append(cols, named(b, n))
	}
	var buf []byte
	return rowHash(&buf, canonColumns(names, cols), 0)
}

func scanItems(t testing.TB, tab *Table, s *Snapshot) []item {
	t.Helper()
	var out []item
	for b, err := range tab.Scan(context.Background(), s, ScanOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		for i := range int(b.NumRows()) {
			x := item{
				ID:  strings.Clone(named(b, "id").(*array.String).Value(i)),
				Seq: int64(named(b, "seq").(*array.Timestamp).Value(i)), Day: int32(named(b, "day").(*array.Date32).Value(i)),
				Rank: named(b, "_rank").(*array.Int32).Value(i), Gen: named(b, "_generation").(*array.Int64).Value(i),
				Pos: named(b, "_position").(*array.Int64).Value(i), Origin: strings.Clone(named(b, "_origin").(*array.String).Value(i)),
				Ingested: int64(named(b, "ingested_at").(*array.Timestamp).Value(i)), Dead: named(b, "_deleted").(*array.Boolean).Value(i),
			}
			if v := named(b, "val").(*array.String); !v.IsNull(i) {
				x.Val = strings.Clone(v.Value(i))
			}
			out = append(out, x)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].ID < out[j].ID })
	return out
}

// newItems makes an empty table of items in a store.
func newItems(t testing.TB, store objstore.Store, vectors bool, opts *Options) *Table {
	t.Helper()
	conf := map[string]string{}
	if vectors {
		conf["delta.enableDeletionVectors"] = "true"
	}
	tab, err := Create(context.Background(), store, "items", CreateOptions{Schema: itemSchema(), PartitionBy: []string{"day"}, Config: conf}, opts)
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

func tempStore(t testing.TB) objstore.Store {
	t.Helper()
	s, err := objstore.NewLocal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustMerge(t testing.TB, tab *Table, o MergeOptions, items ...item) *MergeResult {
	t.Helper()
	rows := itemRows(items...)
	defer rows.Close()
	res, err := tab.Merge(context.Background(), rows, o)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func snap(t testing.TB, tab *Table) *Snapshot {
	t.Helper()
	s, err := tab.Snapshot(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// twoModes runs a test with deletion vectors and with copy-on-write.
func twoModes(t *testing.T, f func(t *testing.T, vectors bool)) {
	t.Run("vectors", func(t *testing.T) { f(t, true) })
	t.Run("copy-on-write", func(t *testing.T) { f(t, false) })
}

func TestMergeCounts(t *testing.T) {
	twoModes(t, func(t *testing.T, vectors bool) {
		tab := newItems(t, tempStore(t), vectors, nil)
		a := item{ID: "a", Val: "1", Seq: 10, Day: 1, Gen: 1, Pos: 1, Origin: "f:1", Ingested: 100}
		b := item{ID: "b", Val: "1", Seq: 10, Day: 1, Gen: 1, Pos: 2, Origin: "f:1", Ingested: 100}
		c := item{ID: "c", Val: "1", Seq: 10, Day: 2, Gen: 1, Pos: 3, Origin: "f:1", Ingested: 100}
		d := item{ID: "d", Val: "1", Seq: 10, Day: 2, Gen: 1, Pos: 4, Origin: "f:1", Ingested: 100}
		r := mustMerge(t, tab, itemMerge(), a, b, c, d)
		if r.Inserted != 4 || r.Updated+r.Unchanged+r.Lost+r.Deleted != 0 || !r.Committed {
			t.Fatalf("%+v", r)
		}
		// The very same rows lose against themselves, and nothing is committed.
		r = mustMerge(t, tab, itemMerge(), a, b, c, d)
		if r.Lost != 4 || r.Committed || r.FilesAdded != 0 {
			t.Fatalf("%+v", r)
		}
		a2, b2, c2, e := a, b, c, item{ID: "e", Seq: 1, Day: 3, Origin: "f:2", Ingested: 200}
		a2.Val, a2.Gen, a2.Ingested = "2", 2, 200      // updated
		b2.Gen, b2.Origin, b2.Ingested = 2, "f:2", 200 // alike, with a greater order
		c2.Dead, c2.Gen, c2.Ingested = true, 2, 200    // deleted
		d2 := d
		d2.Val, d2.Seq = "late", 9 // lost
		r = mustMerge(t, tab, itemMerge(), a2, b2, c2, d2, e)
		if r.Inserted != 1 || r.Updated != 1 || r.Unchanged != 1 || r.Deleted != 1 || r.Lost != 1 {
			t.Fatalf("%+v", r)
		}
		b2.Ingested = 100 // carried
		want := []item{a2, b2, c2, d, e}
		if got := scanItems(t, tab, snap(t, tab)); !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v\nwant %+v", got, want)
		}
		got := scanItems(t, tab, snap(t, reopen(t, tab)))
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("reopened: %+v", got)
		}
	})
}

// A row that moves to another partition leaves no copy behind.
func TestMergeMovesRowToAnotherPartition(t *testing.T) {
	twoModes(t, func(t *testing.T, vectors bool) {
		tab := newItems(t, tempStore(t), vectors, nil)
		a := item{ID: "a", Seq: 10, Day: 1}
		mustMerge(t, tab, itemMerge(), a, item{ID: "b", Seq: 1, Day: 1})
		a.Seq, a.Day = 11, 7
		mustMerge(t, tab, itemMerge(), a)
		if got := scanItems(t, tab, snap(t, tab)); len(got) != 2 || got[0] != a {
			t.Fatalf("%+v", got)
		}
	})
}

func TestMergeDuplicateSourceRows(t *testing.T) {
	tab := newItems(t, tempStore(t), true, nil)
	rows := []item{{ID: "a", Seq: 1, Val: "x"}, {ID: "b", Seq: 1}, {ID: "a", Seq: 3, Val: "z"}, {ID: "a", Seq: 2, Val: "y"}}
	r := mustMerge(t, tab, itemMerge(), rows...)
	if r.Inserted != 2 || r.Lost != 2 {
		t.Fatalf("%+v", r)
	}
	if got := scanItems(t, tab, snap(t, tab)); len(got) != 2 || got[0].Val != "z" {
		t.Fatalf("%+v", got)
	}
	in := itemRows(rows...)
	defer in.Close()
	_, err := tab.Merge(context.Background(), in, MergeOptions{Key: []string{"id"}})
	var dup *DuplicateKeyError
	if !errors.As(err, &dup) || !errors.Is(err, ErrDuplicateKey) || dup.Key != "id = a" || dup.Source[0] != 0 || !strings.Contains(dup.Rows[0], "val=x") || !strings.Contains(err.Error(), dup.Rows[1]) {
		t.Fatal(err)
	}
}

func TestMergeTxn(t *testing.T) {
	tab := newItems(t, tempStore(t), true, nil)
	o := itemMerge()
	o.Txn, o.CommitEmpty = &Txn{AppID: "s", Version: 0}, true
	a := item{ID: "a", Seq: 1}
	mustMerge(t, tab, o, a)
	o.Txn = &Txn{AppID: "s", Version: 1}
	if r := mustMerge(t, tab, o, a); !r.Committed || r.Lost != 1 {
		t.Fatalf("%+v", r)
	}
	in := itemRows(a)
	defer in.Close()
	if _, err := tab.Merge(context.Background(), in, o); !errors.Is(err, ErrTxnApplied) {
		t.Fatal(err)
	}
	if v, ok := snap(t, tab).Txn("s"); !ok || v != 1 {
		t.Fatal(v, ok)
	}
}

func TestMergeReplace(t *testing.T) {
	twoModes(t, func(t *testing.T, vectors bool) {
		tab := newItems(t, tempStore(t), vectors, nil)
		mustMerge(t, tab, itemMerge(),
			item{ID: "a", Seq: 5, Val: "1", Origin: "f:1", Ingested: 1}, item{ID: "b", Seq: 5, Val: "1", Origin: "f:1", Ingested: 1},
			item{ID: "c", Seq: 5, Val: "1", Origin: "f:1", Ingested: 1}, item{ID: "d", Seq: 5, Val: "1", Origin: "f:2", Ingested: 1})
		// A new reading of f:1: a alike, b with another value and a lesser order, c gone, d still f:2's.
		o := itemMerge()
		del := itemRows(item{ID: "x", Origin: "f:1"})
		defer del.Close()
		o.Replace = &Replace{Columns: []string{"_origin"}, Rows: del}
		r := mustMerge(t, tab, o, item{ID: "a", Seq: 5, Val: "1", Origin: "f:1", Gen: 9, Ingested: 2},
			item{ID: "b", Seq: 4, Val: "2", Origin: "f:1", Gen: 9, Ingested: 2}, item{ID: "d", Seq: 4, Val: "2", Origin: "f:1", Gen: 9, Ingested: 2})
		if r.Unchanged != 1 || r.Updated != 1 || r.Lost != 1 || r.Removed != 1 {
			t.Fatalf("%+v", r)
		}
		want := []item{{ID: "a", Seq: 5, Val: "1", Origin: "f:1", Gen: 9, Ingested: 1}, {ID: "b", Seq: 4, Val: "2", Origin: "f:1", Gen: 9, Ingested: 2},
			{ID: "d", Seq: 5, Val: "1", Origin: "f:2", Ingested: 1}}
		if got := scanItems(t, tab, snap(t, tab)); !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v\nwant %+v", got, want)
		}
	})
}

func genItem(t *rapid.T) item {
	return item{
		ID:  fmt.Sprintf("k%d", rapid.IntRange(0, 7).Draw(t, "id")),
		Day: int32(rapid.IntRange(0, 2).Draw(t, "day")), Val: rapid.SampledFrom([]string{"", "x", "y", "z"}).Draw(t, "val"),
		Seq: int64(rapid.IntRange(0, 2).Draw(t, "seq")), Rank: int32(rapid.IntRange(0, 1).Draw(t, "rank")),
		Gen: int64(rapid.IntRange(0, 1).Draw(t, "gen")), Pos: int64(rapid.IntRange(1, 2).Draw(t, "pos")),
		Origin: rapid.SampledFrom([]string{"f:a", "f:b", "e:c"}).Draw(t, "origin"), Dead: rapid.IntRange(0, 4).Draw(t, "dead") == 0,
	}
}

// best is the model of any number of merges: of each key the greatest row.
func best(items []item) []item {
	m := map[string]item{}
	for _, x := range items {
		if y, ok := m[x.ID]; !ok || y.less(x) {
			m[x.ID] = x
		}
	}
	var out []item
	for _, x := range m {
		out = append(out, x)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].ID < out[j].ID })
	return out
}

// Merges in any order, in any portions, repeated, give the same table, with deletion vectors or without.
func TestMergeIsCommutativeAndIdempotent(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		items := rapid.SliceOfN(rapid.Custom(genItem), 1, 25).Draw(rt, "items")
		want := best(items)
		hashes := map[string]bool{}
		for run := range 2 {
			vectors := rapid.Bool().Draw(rt, "vectors")
			dir := t.TempDir()
			store, err := objstore.NewLocal(dir)
			if err != nil {
				rt.Fatal(err)
			}
			tab := newItems(t, store, vectors, nil)
			order := rapid.Permutation(items).Draw(rt, "order")
			for len(order) > 0 {
				n := rapid.IntRange(1, len(order)).Draw(rt, "portion")
				repeat := rapid.IntRange(1, 2).Draw(rt, "repeat")
				for range repeat {
					mustMerge(t, tab, itemMerge(), order[:n]...)
				}
				if rapid.IntRange(0, 5).Draw(rt, "keep") > 0 {
					order = order[n:]
				} else { // overlap: part of it is delivered again
					order = order[(n+1)/2:]
				}
			}
			s := snap(t, tab)
			got := scanItems(t, tab, s)
			if !reflect.DeepEqual(got, want) {
				rt.Fatalf("run %d (vectors %v):\ngot  %+v\nwant %+v", run, vectors, got, want)
			}
			h, err := LogicalHash(context.Background(), tab, s, "ingested_at")
			if err != nil {
				rt.Fatal(err)
			}
			hashes[h] = true
		}
		if len(hashes) != 1 {
			rt.Fatalf("hashes differ: %v", hashes)
		}
	})
}

// Concurrent merges of overlapping rows end in the table that any sequence of them gives.
func TestMergeConcurrently(t *testing.T) {
	twoModes(t, func(t *testing.T, vectors bool) {
		store := tempStore(t)
		newItems(t, store, vectors, nil)
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		var all []item
		var wg sync.WaitGroup
		errs := make([]error, 4)
		for w := range 4 {
			rng := rand.New(rand.NewPCG(seed, uint64(w)))
			var batches [][]item
			for range 5 {
				var b []item
				used := map[string]bool{}
				for range 10 {
					x := item{ID: fmt.Sprintf("k%02d", rng.IntN(20)), Day: int32(rng.IntN(3)), Val: fmt.Sprint(rng.IntN(3)), Seq: int64(rng.IntN(5)),
						Rank: int32(rng.IntN(2)), Pos: int64(rng.IntN(9)), Origin: fmt.Sprint("w", w)}
					if !used[x.ID] {
						used[x.ID] = true
						b = append(b, x)
					}
				}
				batches = append(batches, b)
				all = append(all, b...)
			}
			wg.Add(1)
			go func() {
				defer wg.Done()
				tab, err := Open(context.Background(), store, "items", &Options{MaxTries: 200, MaxWait: time.Minute})
				if err != nil {
					errs[w] = err
					return
				}
				for _, b := range batches {
					rows := itemRows(b...)
					if _, err := tab.Merge(context.Background(), rows, itemMerge()); err != nil {
						errs[w] = err
						return
					}
				}
			}()
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		tab, err := Open(context.Background(), store, "items", nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := scanItems(t, tab, snap(t, tab)), best(all); !reflect.DeepEqual(got, want) {
			t.Fatalf("got  %+v\nwant %+v", got, want)
		}
	})
}

// TestMergeMeetsRestoredRows: while a merge is under way another writer restores a version in which rows stand again that
// were marked when the merge looked its keys up. They must be found, or the table has two rows of one key.
func TestMergeMeetsRestoredRows(t *testing.T) {
	ctx := t.Context()
	store := objstore.NewMemory(nil)
	schema := &Schema{Fields: []Field{{Name: "k", Type: Long, Nullable: true}, {Name: "v", Type: Long, Nullable: true}}}
	rows := func(pairs ...[2]int64) *MemoryRows {
		b := array.NewRecordBuilder(memory.DefaultAllocator, schema.Arrow())
		defer b.Release()
		for _, p := range pairs {
			b.Field(0).(*array.Int64Builder).Append(p[0])
			b.Field(1).(*array.Int64Builder).Append(p[1])
		}
		return NewRows(b.Schema(), b.NewRecordBatch())
	}
	tbl, err := Create(ctx, store, "t", CreateOptions{Schema: schema, Config: map[string]string{"delta.enableDeletionVectors": "true"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	o := MergeOptions{Key: []string{"k"}, Order: []OrderTerm{{Column: "v"}}}
	for _, r := range []*MemoryRows{rows([2]int64{1, 1}, [2]int64{2, 1}), rows([2]int64{1, 5})} {
		if _, err := tbl.Merge(ctx, r, o); err != nil {
			t.Fatal(err)
		}
	}
	o.Hook = func(phase string) {
		if phase != "files-written" {
			return
		}
		o.Hook = nil
		other, err := Open(ctx, store, "t", nil)
		if err != nil {
			t.Error(err)
			return
		}
		if s, err := other.Snapshot(ctx); err != nil || s.Version() != 2 {
			return // once
		}
		if _, err := other.Restore(ctx, 1, RestoreOptions{}); err != nil {
			t.Error(err)
		}
	}
	res, err := tbl.Merge(ctx, rows([2]int64{1, 9}), o)
	if err != nil {
		t.Fatal(err)
	}
	if res.Version != 4 {
		t.Errorf("version %d: nobody was in the way", res.Version)
	}
	s, err := tbl.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	got := map[[2]int64]int{}
	for b, err := range tbl.Scan(ctx, s, ScanOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		for i := range int(b.NumRows()) {
			got[[2]int64{b.Column(0).(*array.Int64).Value(i), b.Column(1).(*array.Int64).Value(i)}]++
		}
	}
	if len(got) != 2 || got[[2]int64{1, 9}] != 1 || got[[2]int64{2, 1}] != 1 {
		t.Errorf("rows %v, want each of 1:9 and 2:1 once", got)
	}
}

// TestMergeForgetsDeadBeaters: our row loses to a stored one. A first winner replaces that row by a greater one in another
// file, a second one deletes the greater. The first of the two rows is long dead, in a file that the second winner did not
// touch: nothing beats ours any more, and it must be written.
func TestMergeForgetsDeadBeaters(t *testing.T) {
	ctx := t.Context()
	store := objstore.NewMemory(nil)
	schema := &Schema{Fields: []Field{{Name: "k", Type: Long, Nullable: true}, {Name: "v", Type: Long, Nullable: true}}}
	rows := func(pairs ...[2]int64) *MemoryRows {
		b := array.NewRecordBuilder(memory.DefaultAllocator, schema.Arrow())
		defer b.Release()
		for _, p := range pairs {
			b.Field(0).(*array.Int64Builder).Append(p[0])
			b.Field(1).(*array.Int64Builder).Append(p[1])
		}
		return NewRows(b.Schema(), b.NewRecordBatch())
	}
	tbl, err := Create(ctx, store, "t", CreateOptions{Schema: schema, Config: map[string]string{"delta.enableDeletionVectors": "true"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	o := MergeOptions{Key: []string{"k"}, Order: []OrderTerm{{Column: "v"}}}
	if _, err := tbl.Merge(ctx, rows([2]int64{1, 8}, [2]int64{2, 1}), o); err != nil {
		t.Fatal(err)
	}
	other, err := Open(ctx, store, "t", nil)
	if err != nil {
		t.Fatal(err)
	}
	ours, commits := o, 0
	ours.Hook = func(phase string) {
		var err error
		switch {
		case phase == "files-written" && commits == 0:
			_, err = other.Merge(ctx, rows([2]int64{1, 9}, [2]int64{4, 1}), o)
		case phase == "before-commit":
			if commits++; commits == 2 {
				_, err = other.Delete(ctx, []string{"k"}, rows([2]int64{1, 0}), DeleteOptions{})
			}
		}
		if err != nil {
			t.Error(err)
		}
	}
	res, err := tbl.Merge(ctx, rows([2]int64{1, 5}, [2]int64{3, 1}), ours)
	if err != nil {
		t.Fatal(err)
	}
	if res.Version != 4 {
		t.Errorf("version %d: the two winners were not in the way", res.Version)
	}
	s, err := tbl.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	got := map[[2]int64]int{}
	for b, err := range tbl.Scan(ctx, s, ScanOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		for i := range int(b.NumRows()) {
			got[[2]int64{b.Column(0).(*array.Int64).Value(i), b.Column(1).(*array.Int64).Value(i)}]++
		}
	}
	if want := map[[2]int64]int{{1, 5}: 1, {2, 1}: 1, {3, 1}: 1, {4, 1}: 1}; !reflect.DeepEqual(got, want) {
		t.Errorf("rows %v, want %v", got, want)
	}
}
