package duckdb

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/pipeline"
)

// manyRows makes an epoch of about 7,000 rows in three parts, some of which lost to another of their key.
func manyRows(t *testing.T, e *Engine, r *rand.Rand) (delta.Rows, *pipeline.Plan) {
	t.Helper()
	ctx := context.Background()
	plan := testPlan(t, "live")
	x, err := e.NewEpoch(ctx, plan, epochTime)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = x.Close() })
	const each = 4500
	for part := range 3 {
		var recs []pipeline.Record
		for i := range each {
			v := fmt.Sprintf(`{"e":"x","id":"k%d","N":%d,"T":1724112000123,"data":{"p":%d}}`, r.IntN(9000), i, r.IntN(20)) // a price of 0 is refused
			recs = append(recs, pipeline.Record{Topic: "t", Offset: int64(part*each + i + 1), Value: []byte(v), Origin: "embedded:u:t/0"})
		}
		if err := x.AddRecords(ctx, recs); err != nil {
			t.Fatal(err)
		}
	}
	res, err := x.Finish(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if n := res.Rows.NumRows(); n < 6000 || n > 9000 {
		t.Fatalf("%d rows", n)
	}
	return res.Rows, plan
}

// TestRowsByOrdinal asks for some of a relation's rows, few and many, near and far: they are those of all rows that have
// these ordinals, although rows that are left out stand between them. Who wants no more gets no more, and an error ends it.
func TestRowsByOrdinal(t *testing.T) {
	defer func(n int64) { readPage = n }(readPage)
	readPage = 600
	r := rand.New(rand.NewPCG(testscale.Seed(t), 1))
	rows, _ := manyRows(t, testEngine(t), r)
	read := func(ordinals *roaring64.Bitmap) []string {
		t.Helper()
		var out []string
		for b, err := range rows.Read(context.Background(), []string{"id", "n", "_position"}, ordinals) {
			if err != nil {
				t.Fatal(err)
			}
			for i := range int(b.NumRows()) {
				out = append(out, b.Column(0).ValueStr(i)+" "+b.Column(1).ValueStr(i)+" "+b.Column(2).ValueStr(i))
			}
		}
		return out
	}
	all := read(nil)
	if int64(len(all)) != rows.NumRows() {
		t.Fatalf("%d rows of %d", len(all), rows.NumRows())
	}
	some := func(n int) *roaring64.Bitmap {
		ordinals := roaring64.New()
		for _, o := range r.Perm(len(all))[:n] {
			ordinals.Add(uint64(o))
		}
		return ordinals
	}
	for _, n := range []int{0, 1, 2, 60, 500, 550, 700, 1300, 3000, len(all)} {
		ordinals := some(n)
		ordinals.AddRange(500, uint64(500+n/10))
		var want []string
		for it := ordinals.Iterator(); it.HasNext(); {
			want = append(want, all[it.Next()])
		}
		if got := read(ordinals); !slices.Equal(got, want) {
			t.Errorf("of %d rows that were asked for, %d came or they are others", len(want), len(got))
		}
	}
	for _, n := range []int{300, 1300, 3000, len(all)} {
		for _, err := range rows.Read(context.Background(), []string{"id"}, some(n)) {
			if err != nil {
				t.Error(err)
			}
			break
		}
		ctx, cancel := context.WithCancel(context.Background())
		failed := 0
		for _, err := range rows.Read(ctx, []string{"id"}, some(n)) {
			cancel()
			if err != nil {
				failed++
			}
		}
		if cancel(); failed > 1 {
			t.Errorf("%d errors of one reading", failed)
		}
	}
	for _, n := range []uint64{1, 300, 1000} {
		ordinals := roaring64.New()
		ordinals.AddRange(uint64(len(all))-n+1, uint64(len(all))+1)
		failed := false
		for _, err := range rows.Read(context.Background(), []string{"id"}, ordinals) {
			failed = failed || err != nil
		}
		if !failed {
			t.Error("a row behind the last one was asked for, and nothing said")
		}
	}
}

// patchedRows are rows of this engine with other values in some of them. Who reads them through Arrow is told.
type patchedRows struct {
	delta.Rows
	schema  *arrow.Schema
	patches []delta.Patch
	read    func()
}

func (r *patchedRows) Schema() *arrow.Schema                  { return r.schema }
func (r *patchedRows) Unpatched() (delta.Rows, []delta.Patch) { return r.Rows, r.patches }
func (r *patchedRows) Read(ctx context.Context, columns []string, ordinals *roaring64.Bitmap) iter.Seq2[arrow.RecordBatch, error] {
	r.read()
	return r.Rows.Read(ctx, columns, ordinals)
}

// TestPatchedRowsAreWritten: rows of an epoch, of which some have other values, are written with these, and need not leave the
// engine for it.
func TestPatchedRowsAreWritten(t *testing.T) {
	ctx := context.Background()
	e, r := testEngine(t), rand.New(rand.NewPCG(testscale.Seed(t), 2))
	rows, plan := manyRows(t, e, r)
	schema := plan.Table.DeltaSchema()
	schema.Fields = append(schema.Fields, delta.Field{Name: "note", Type: delta.String, Nullable: true})
	store, err := objstore.NewLocal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	table := delta.TableInfo{Store: store, Path: "t", Schema: schema, PartitionBy: []string{"day"}}
	columns := []string{"id", "n", "ingested_at", "day", "note"}
	line := func(b arrow.RecordBatch, i int) string {
		out := ""
		for c := range b.Columns() {
			out += b.Column(c).ValueStr(i) + " "
		}
		return out
	}
	var want []string
	var ids []string
	for b, err := range rows.Read(ctx, columns[:4], nil) {
		if err != nil {
			t.Fatal(err)
		}
		for i := range int(b.NumRows()) {
			ids = append(ids, strings.Clone(b.Column(0).ValueStr(i))) // of memory that the reader frees
			want = append(want, line(b, i)+array.NullValueStr+" ")
		}
	}
	// Each row is in one patch or in none; a third of what the patches have is for no row.
	values := map[string]arrow.Field{}
	for _, f := range schema.Arrow().Fields() {
		values[f.Name] = f
	}
	const at = "2024-08-01T10:11:12.123456Z"
	p := &patchedRows{Rows: rows, schema: schema.Arrow(), read: func() { t.Error("the rows were taken through Arrow") }}
	order := r.Perm(len(want))
	for k := range 2 {
		var patch delta.Patch
		b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema([]arrow.Field{values["note"], values["ingested_at"], values["n"], values["day"]}, nil))
		for i := range 900 {
			ordinal := int64(order[k*900+i])
			if i%3 == 0 {
				ordinal = -1
			}
			patch.Ordinals = append(patch.Ordinals, ordinal)
			n, note := fmt.Sprint(-i), fmt.Sprint("patch ", k, " ", i)
			if i%5 == 0 {
				n = array.NullValueStr
			}
			day := "2024-08-" + fmt.Sprintf("%02d", 1+i%3)
			for c, v := range []string{note, at, n, day} {
				if err := b.Field(c).AppendValueFromString(v); err != nil {
					t.Fatal(err)
				}
			}
			if ordinal >= 0 {
				want[ordinal] = fmt.Sprintf("%s %s %s %s %s ", ids[ordinal], n, at, day, note)
			}
		}
		patch.Values = b.NewRecordBatch()
		defer patch.Values.Release()
		b.Release()
		p.patches = append(p.patches, patch)
	}
	for _, skipped := range []int{0, 5, 1000} {
		skip := roaring64.New()
		for _, o := range r.Perm(len(want))[:skipped] {
			skip.Add(uint64(o))
		}
		var left []string
		for o, w := range want {
			if !skip.Contains(uint64(o)) {
				left = append(left, w)
			}
		}
		written, err := e.Delta().FileWriter.Write(ctx, table, delta.WriteRequest{Rows: p, Skip: skip})
		if err != nil {
			t.Fatal(err)
		}
		var files []delta.File
		for _, w := range written {
			files = append(files, delta.File{Add: &delta.Add{Path: w.Path, PartitionValues: w.PartitionValues, Size: w.Size, Stats: w.Stats.JSON()}, Key: w.Key})
		}
		var got []string
		for b, err := range e.Delta().Reader.Read(ctx, table, files, delta.ReadOptions{Columns: columns}) {
			if err != nil {
				t.Fatal(err)
			}
			for i := range int(b.NumRows()) {
				got = append(got, line(b, i))
			}
		}
		slices.Sort(got)
		slices.Sort(left)
		if !slices.Equal(got, left) {
			for i := range min(len(got), len(left)) {
				if got[i] != left[i] {
					t.Fatalf("of %d and %d rows these differ first:\n got %s\nwant %s", len(got), len(left), got[i], left[i])
				}
			}
			t.Fatalf("%d rows, want %d", len(got), len(left))
		}
	}
}
