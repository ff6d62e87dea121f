package delta_test

import (
	"context"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/objstore"
)

// Bytes that are no text have no bound that JSON can say.
func TestStatisticsOfInvalidText(t *testing.T) {
	ctx := context.Background()
	store, err := objstore.NewLocal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := &delta.Schema{Fields: []delta.Field{{Name: "s", Type: delta.String, Nullable: true}}}
	tab, err := delta.Create(ctx, store, "t", delta.CreateOptions{Schema: s}, nil)
	if err != nil {
		t.Fatal(err)
	}
	b := array.NewStringBuilder(memory.DefaultAllocator)
	defer b.Release()
	b.Append("\x80abc")
	b.Append("\xff")
	a := b.NewArray()
	defer a.Release()
	rec := array.NewRecordBatch(s.Arrow(), []arrow.Array{a}, 2)
	defer rec.Release()
	if _, err := tab.Append(ctx, delta.NewRows(rec.Schema(), rec), delta.AppendOptions{}); err != nil {
		t.Fatal(err)
	}
	snap, err := tab.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{"\x80abc", "\xff"} {
		if n := len(snap.Prune(delta.Compare{Column: "s", Op: "=", Value: v})); n != 1 {
			t.Errorf("%q: %d files", v, n)
		}
	}
}
