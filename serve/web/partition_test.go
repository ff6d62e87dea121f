package web

import (
	"testing"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/objstore"
)

// Where columns are mapped the log has the values of partitions under other names than the pages show.
func TestPartitionsOfAMappedTable(t *testing.T) {
	ctx := t.Context()
	tab, err := delta.Create(ctx, objstore.NewMemory(nil), "t", delta.CreateOptions{
		Schema:      &delta.Schema{Fields: []delta.Field{{Name: "id", Type: delta.Long, Nullable: true}, {Name: "day", Type: delta.String, Nullable: true}}},
		PartitionBy: []string{"day"}, Config: map[string]string{"delta.columnMapping.mode": "name"},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := tab.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	x, monday := tab.Begin(s), "monday"
	x.AddFile(&delta.Add{Path: "f", Size: 1, DataChange: true, PartitionValues: map[string]*string{s.TableInfo().PhysicalPartitionBy()[0]: &monday}})
	done, err := x.Commit(ctx, delta.CommitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	files, _ := filesOf(done.Snapshot)
	if got := files["f"].Values["day"]; got == nil || *got != monday {
		t.Errorf("the file lies in %v", files["f"].Values)
	}
}
