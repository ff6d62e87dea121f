package peers

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/objstore"
)

// VACUUM, full and lite, of a table that Spark wrote keeps its live deletion vectors: Spark, delta-rs and DuckDB read
// the same rows afterwards, and Spark goes on.
func TestVacuumKeepsSparksVectors(t *testing.T) {
	ctx := context.Background()
	python := prereq.Need(t, "venv")
	s := startSpark(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "t")
	table := "delta.`" + path + "`"
	s.sql("CREATE TABLE " + table + " USING delta TBLPROPERTIES ('delta.enableDeletionVectors' = 'true') AS SELECT id, id % 5 AS p FROM range(0, 1000, 1, 2)")
	s.sql("DELETE FROM " + table + " WHERE id % 10 = 3")
	s.sql("DELETE FROM " + table + " WHERE id % 10 = 7")
	store, err := objstore.NewLocal(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i, lite := range []bool{false, true} {
		tab, err := delta.Open(ctx, store, "t", nil)
		if err != nil {
			t.Fatal(err)
		}
		snap, err := tab.Snapshot(ctx)
		if err != nil {
			t.Fatal(err)
		}
		vectors := 0
		for _, a := range snap.Adds() {
			if a.DeletionVector != nil && a.DeletionVector.StorageType == "u" {
				vectors++
			}
		}
		res, err := tab.Vacuum(ctx, delta.VacuumOptions{Lite: lite, Force: true})
		if err != nil {
			t.Fatal(err)
		}
		// The vectors of the first DELETE are in no version that is kept; each later round leaves another one behind.
		if gone := slices.ContainsFunc(res.Deleted, func(k string) bool { return strings.Contains(k, "deletion_vector") }); vectors == 0 || !gone {
			t.Fatalf("lite %v: %d live vectors, deleted %v", lite, vectors, res.Deleted)
		}
		want := fmt.Sprint(800 - 100*i)
		rows := s.sql("SELECT count(*) AS n, count(DISTINCT id) AS ids FROM " + table)
		if fmt.Sprint(rows[0]["n"]) != want || fmt.Sprint(rows[0]["ids"]) != want {
			t.Errorf("lite %v: Spark reads %v, want %s rows", lite, rows, want)
		}
		for _, reader := range []string{"deltalake", "duckdb"} {
			if got := strings.Count(string(readPython(t, python, reader, path)), "\n") - 1; fmt.Sprint(got) != want {
				t.Errorf("lite %v: %s reads %d rows, want %s", lite, reader, got, want)
			}
		}
		s.sql("DELETE FROM " + table + " WHERE id % 10 = 1 AND id >= 0")
	}
}
