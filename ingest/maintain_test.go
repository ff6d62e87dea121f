package ingest_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/ingest"
)

// A table whose own retention is longer than that of the lake file keeps its promise.
func TestMaintenanceKeepsTheTablesRetention(t *testing.T) {
	w := newWorld(t, tradesLake)
	w.put("lines_a.csv", 0, "text,n", "one,1")
	w.batch(ingest.BatchOptions{})
	table, err := w.Catalog().Open(t.Context(), "lines")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := table.SetProperties(t.Context(), map[string]string{"delta.deletedFileRetentionDuration": "interval 30 days"}, delta.AlterOptions{}); err != nil {
		t.Fatal(err)
	}
	old := w.version("lines")
	w.put("lines_a.csv", 1, "text,n", "two,1")
	w.batch(ingest.BatchOptions{})
	for _, c := range []struct {
		days int
		kept bool
	}{{20, true}, {15, false}} {
		w.clock.mu.Lock()
		w.clock.at = w.clock.at.Add(time.Duration(c.days) * 24 * time.Hour)
		w.clock.mu.Unlock()
		w.reopen()
		if _, err := w.Maintain(t.Context(), ingest.MaintainOptions{Tables: []string{"lines"}, Vacuum: true}); err != nil {
			t.Fatal(err)
		}
		s, err := table.SnapshotAt(t.Context(), old)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range s.Adds() {
			if _, err := w.store.Stat(t.Context(), table.Path()+"/"+a.Path); (err == nil) != c.kept {
				t.Errorf("%d days later: %s: %v", c.days, a.Path, err)
			}
		}
	}
}

// The values of partitions stand in the log under the names that the columns have in files, which are others where columns
// are mapped.
func TestMaintenanceOfAMappedTable(t *testing.T) {
	w := newWorld(t, tradesLake+"maintenance: {files_min: 2}\n")
	decl := w.lake.Table("trades")
	if _, err := delta.Create(t.Context(), w.store, decl.Location, delta.CreateOptions{
		Schema: decl.DeltaSchema(), PartitionBy: decl.PartitionBy,
		Config: map[string]string{"delta.columnMapping.mode": "name", "delta.enableDeletionVectors": "true"},
	}, nil); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		w.put(fmt.Sprintf("trades_%d.csv", i), i, "id,price,note,time", fmt.Sprintf("a%d,1,x,2024-08-20T10:00:00Z", i), fmt.Sprintf("b%d,1,x,2024-08-21T10:00:00Z", i))
		w.batch(ingest.BatchOptions{})
	}
	rows := w.rows("trades", "id", "event_date")
	size, err := w.Size(t.Context(), "trades")
	if err != nil || size.Files != 8 || size.PartitionFilesMax != 4 {
		t.Fatalf("%+v, %v", size, err)
	}
	r, err := w.Maintain(t.Context(), ingest.MaintainOptions{Tables: []string{"trades"}})
	if err != nil {
		t.Fatal(err)
	}
	if m := r.Tables["trades"]; m.Partitions != 2 || m.FilesRemoved != 8 || m.FilesAdded != 2 {
		t.Errorf("%+v", m)
	}
	equal(t, "rows", w.rows("trades", "id", "event_date"), rows)
}
