package delta

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"testing"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/cauce-data/cauce/objstore"
)

// borrowing is an allocator whose memory is written over as soon as it is given back, as that of an engine outside of Go is.
type borrowing struct{ memory.Allocator }

func (borrowing) Free(b []byte) {
	for i := range b[:cap(b)] {
		b[:cap(b)][i] = 0xff
	}
}

// borrowedRows are rows whose batches live only while they are looked at.
type borrowedRows struct {
	schema *arrow.Schema
	days   []string
}

func (r borrowedRows) Schema() *arrow.Schema { return r.schema }
func (r borrowedRows) NumRows() int64        { return int64(len(r.days)) }
func (r borrowedRows) Read(_ context.Context, _ []string, _ *roaring64.Bitmap) iter.Seq2[arrow.RecordBatch, error] {
	return func(yield func(arrow.RecordBatch, error) bool) {
		for i, day := range r.days {
			b := array.NewRecordBuilder(borrowing{memory.NewGoAllocator()}, r.schema)
			b.Field(0).(*array.StringBuilder).Append(fmt.Sprint("id", i))
			b.Field(1).(*array.StringBuilder).Append(day)
			b.Field(2).(*array.Int64Builder).Append(int64(i))
			batch := b.NewRecordBatch()
			b.Release()
			more := yield(batch, nil)
			batch.Release()
			if !more {
				return
			}
		}
	}
}

// What a writer keeps of rows, the values of partitions and the bounds of statistics, outlives their batches (Rows: "the
// consumer must not keep a batch beyond its iteration step").
func TestPartitionValuesOutliveTheirBatch(t *testing.T) {
	ctx := context.Background()
	tab, err := Create(ctx, objstore.NewMemory(nil), "t", CreateOptions{Schema: simSchema(), PartitionBy: []string{"day"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tab.Append(ctx, borrowedRows{simSchema().Arrow(), []string{"monday", "tuesday", "monday"}}, AppendOptions{}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range snap(t, tab).Adds() {
		st, err := ParseStats(a.Stats)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint(*a.PartitionValues["day"], st.MinValues["id"], st.MaxValues["id"]))
	}
	slices.Sort(got)
	if want := []string{"mondayid0id2", "tuesdayid1id1"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
