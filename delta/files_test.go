package delta

import (
	"context"
	"fmt"
	"testing"

	"github.com/cauce-data/cauce/objstore"
)

// The deletion vectors that a stream supersedes with each commit do not pile up in memory.
func TestSupersededVectorsAreForgotten(t *testing.T) {
	ctx := context.Background()
	tab, err := Create(ctx, objstore.NewMemory(nil), "t", CreateOptions{Schema: itemSchema(), Config: map[string]string{"delta.enableDeletionVectors": "true"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	const n = 50
	merge := func(seq int64, from, to int) {
		t.Helper()
		var items []item
		for i := from; i < to; i++ {
			items = append(items, item{ID: fmt.Sprint(i), Seq: seq, Origin: "o"})
		}
		rows := itemRows(items...)
		defer rows.Close()
		if _, err := tab.Merge(ctx, rows, itemMerge()); err != nil {
			t.Fatal(err)
		}
	}
	merge(1, 0, n+1)
	var first []File
	for i := range n {
		merge(2, i, i+1)
		if i == 0 {
			s, err := tab.Snapshot(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if first, err = s.Files(ctx); err != nil {
				t.Fatal(err)
			}
			defer func() { // an older version still finds the vector that it had
				files, err := s.Files(ctx)
				if err != nil || len(files) != len(first) {
					t.Fatalf("%d files, %v", len(files), err)
				}
				for i, f := range files {
					if (f.Deleted == nil) != (first[i].Deleted == nil) || f.Deleted != nil && !f.Deleted.Equals(first[i].Deleted) {
						t.Errorf("%s: the vector of an older version is another one", f.Key)
					}
				}
			}()
		}
	}
	if len(tab.vectors.items) != 1 {
		t.Errorf("%d vectors are kept of one file that has some", len(tab.vectors.items))
	}
	var bytes uint64
	for _, v := range tab.vectors.items {
		bytes += v.bytes
	}
	if bytes != tab.vectors.bytes {
		t.Errorf("%d bytes are counted of %d", tab.vectors.bytes, bytes)
	}
}
