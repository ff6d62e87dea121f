package ingest_test

import (
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
