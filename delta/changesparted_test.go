package delta

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/cauce-data/cauce/objstore"
)

// A version's files are read by the partition columns that the table had then.
func TestFeedOverAnotherPartitioning(t *testing.T) {
	ctx := context.Background()
	s := &Schema{Fields: []Field{{Name: "i", Type: Long, Nullable: true}, {Name: "p", Type: String, Nullable: true}}}
	for _, by := range [][2][]string{{nil, {"p"}}, {{"p"}, {}}} {
		dir := t.TempDir()
		store, err := objstore.NewLocal(dir)
		if err != nil {
			t.Fatal(err)
		}
		tab, err := Create(ctx, store, "t", CreateOptions{Schema: s, PartitionBy: by[0], Config: map[string]string{propChangeFeed: "true"}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, _, err := array.RecordFromJSON(memory.DefaultAllocator, s.Arrow(), strings.NewReader(`[{"i":1,"p":"x"},{"i":2,"p":"x"}]`))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tab.Append(ctx, NewRows(b.Schema(), b), AppendOptions{}); err != nil {
			t.Fatal(err)
		}
		b.Release()
		snap, err := tab.Snapshot(ctx)
		if err != nil {
			t.Fatal(err)
		}
		m := snap.Metadata()
		m.PartitionColumns = by[1]
		text, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		log := fmt.Sprintf(`{"metaData":%s}`+"\n", text)
		for _, a := range snap.Prune(nil) {
			values, err := json.Marshal(a.PartitionValues)
			if err != nil {
				t.Fatal(err)
			}
			log += fmt.Sprintf(`{"remove":{"path":%q,"deletionTimestamp":1,"dataChange":true,"extendedFileMetadata":true,"partitionValues":%s,"size":%d}}`+"\n", a.Path, values, a.Size)
		}
		if err := os.WriteFile(filepath.Join(dir, "t", "_delta_log", "00000000000000000002.json"), []byte(log), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, from := range []Version{0, 1, 2} {
			f, err := tab.Changes(ctx, ChangesOptions{From: from, To: 2})
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for b, err := range f.Batches(ctx) {
				if err != nil {
					t.Fatal(err)
				}
				for i := range int(b.NumRows()) {
					if n++; b.Column(1).ValueStr(i) != "x" {
						t.Errorf("%v to %v, from %d: p is %s", by[0], by[1], from, b.Column(1).ValueStr(i))
					}
				}
			}
			if want := map[Version]int{0: 4, 1: 4, 2: 2}[from]; n != want {
				t.Errorf("%v to %v, from %d: %d changes, not %d", by[0], by[1], from, n, want)
			}
		}
	}
}
