package delta

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cauce-data/cauce/objstore"
)

// TestVacuumRemovesWhatAKilledWriterLeft puts the unfinished files of a killed process into a table's folder, where no
// listing shows them.
func TestVacuumRemovesWhatAKilledWriterLeft(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	store, err := objstore.NewLocal(dir)
	if err != nil {
		t.Fatal(err)
	}
	tab := newItems(t, store, true, nil)
	mustMerge(t, tab, itemMerge(), item{ID: "a", Seq: 1}, item{ID: "b", Seq: 1})
	mustMerge(t, tab, itemMerge(), item{ID: "a", Seq: 2})
	left := []string{"items/.tmp-1", "items/_delta_log/.tmp-2", "items/day=1970-01-01/.tmp-3"}
	for _, name := range left {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("half"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	there := func() (n int) {
		for _, name := range left {
			if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
				n++
			}
		}
		return n
	}
	// They may belong to a writer at work: within the retention they stay.
	if res, err := tab.Vacuum(ctx, VacuumOptions{}); err != nil || len(res.Deleted) > 0 || there() != len(left) {
		t.Fatalf("%+v, %v, %d left", res, err, there())
	}
	old, err := Open(ctx, store, "items", &Options{Clock: func() time.Time { return time.Now().Add(30 * 24 * time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	dry, err := old.Vacuum(ctx, VacuumOptions{DryRun: true})
	if err != nil || there() != len(left) {
		t.Fatalf("%+v, %v, %d left", dry, err, there())
	}
	res, err := old.Vacuum(ctx, VacuumOptions{})
	if err != nil || there() != 0 {
		t.Fatalf("%+v, %v, %d left", res, err, there())
	}
	for _, name := range left {
		if !slices.Contains(dry.Deleted, name) || !slices.Contains(res.Deleted, name) {
			t.Errorf("%s is not reported: %v, %v", name, dry.Deleted, res.Deleted)
		}
	}
	if got := scanItems(t, tab, snap(t, tab)); len(got) != 2 {
		t.Errorf("%+v", got)
	}
}
