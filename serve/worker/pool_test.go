package worker

import (
	"fmt"
	"log/slog"
	"os"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/array"
)

// The program of this package's tests is that of their workers too.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == Command {
		os.Exit(Main())
	}
	os.Exit(m.Run())
}

// Of more catalogues than a worker keeps, those that it has forgotten are there when they are asked for again.
func TestCataloguesComeBack(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, err := Open(Options{Path: exe, Args: []string{exe, Command}, Dir: t.TempDir(), Workers: 1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	read := func(i int) {
		t.Helper()
		key := fmt.Sprintf("c_%d", i)
		r, err := p.Run(t.Context(), &Request{
			Key: key, Install: []string{"CREATE SCHEMA " + key, fmt.Sprintf("CREATE TABLE %s.t AS SELECT %d::BIGINT AS n", key, i)},
			Zone: "UTC", SQL: "SELECT n FROM " + key + ".t",
		}, &Habit{})
		if err != nil {
			t.Fatalf("catalogue %d: %v", i, err)
		}
		defer r.Close()
		rows, err := r.Rows()
		if err != nil {
			t.Fatalf("catalogue %d: %v", i, r.Err(err))
		}
		defer rows.Release()
		if !rows.Next() || rows.RecordBatch().Column(0).(*array.Int64).Value(0) != int64(i) {
			t.Errorf("catalogue %d: %v", i, r.Err(rows.Err()))
		}
	}
	for range 2 {
		for i := range cataloguesMax + 5 {
			read(0) // of a role whose tables do not change
			read(i)
		}
	}
	if n := len(p.Workers()); n != 1 {
		t.Errorf("there are %d workers", n)
	}
}
