package duckdb

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/pipeline"
)

// TestRowsByOrdinal asks for some of a relation's rows, few and many, near and far: they are those of all rows that have
// these ordinals, although rows that are left out stand between them.
func TestRowsByOrdinal(t *testing.T) {
	ctx := context.Background()
	e, plan := testEngine(t), testPlan(t, "live")
	x, err := e.NewEpoch(ctx, plan, epochTime)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	r := rand.New(rand.NewPCG(testscale.Seed(t), 1))
	for part := range 3 {
		var recs []pipeline.Record
		for i := range 1500 {
			v := fmt.Sprintf(`{"e":"x","id":"k%d","N":%d,"T":1724112000123,"data":{"p":%d}}`, r.IntN(3000), i, r.IntN(20)) // a price of 0 is refused
			recs = append(recs, pipeline.Record{Topic: "t", Offset: int64(part*1500 + i + 1), Value: []byte(v), Origin: "embedded:u:t/0"})
		}
		if err := x.AddRecords(ctx, recs); err != nil {
			t.Fatal(err)
		}
	}
	res, err := x.Finish(ctx)
	if err != nil {
		t.Fatal(err)
	}
	read := func(ordinals *roaring64.Bitmap) []string {
		t.Helper()
		var out []string
		for b, err := range res.Rows.Read(ctx, []string{"id", "n", "_position"}, ordinals) {
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
	if int64(len(all)) != res.Rows.NumRows() || len(all) < 1000 || len(all) > 3000 {
		t.Fatalf("%d rows of %d", len(all), res.Rows.NumRows())
	}
	for _, n := range []int{0, 1, 2, 60, 70, 200, 1000, len(all)} {
		ordinals := roaring64.New()
		for _, o := range r.Perm(len(all))[:n] {
			ordinals.Add(uint64(o))
		}
		ordinals.AddRange(500, uint64(500+n/10))
		var want []string
		for it := ordinals.Iterator(); it.HasNext(); {
			want = append(want, all[it.Next()])
		}
		if got := read(ordinals); !slices.Equal(got, want) {
			t.Errorf("of %d rows that were asked for, %d came or they are others", len(want), len(got))
		}
	}
	for _, n := range []uint64{1, 300} {
		ordinals := roaring64.New()
		ordinals.AddRange(uint64(len(all))-n+1, uint64(len(all))+1)
		failed := false
		for _, err := range res.Rows.Read(ctx, []string{"id"}, ordinals) {
			failed = failed || err != nil
		}
		if !failed {
			t.Error("a row behind the last one was asked for, and nothing said")
		}
	}
}
