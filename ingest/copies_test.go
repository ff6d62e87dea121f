package ingest_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/pipeline"
)

// countingOpener counts the files that are opened, and so hashed.
type countingOpener struct {
	ingest.FileOpener
	opened atomic.Int64
}

func (o *countingOpener) Open(ctx context.Context, store objstore.Store, info objstore.Info, src *pipeline.Source) (*pipeline.RawFile, error) {
	o.opened.Add(1)
	return o.FileOpener.Open(ctx, store, info, src)
}

// A copy of a known file is hashed once, not by every run, though no commit tells of it; and what is remembered of it is
// no more than a hint.
func TestRenamedCopiesAreHashedOnce(t *testing.T) {
	w := newWorld(t, tradesLake)
	opener := &countingOpener{FileOpener: w.cfg.Opener}
	w.cfg.Opener = opener
	run := func(what string, opens int64, skipped, read int) {
		t.Helper()
		w.reopen()
		before := opener.opened.Load()
		r := w.batch(ingest.BatchOptions{})
		if n := opener.opened.Load() - before; n != opens || r.FilesSkipped != skipped || r.FilesRead != read {
			t.Errorf("%s: %d files opened, %d skipped, %d read; want %d, %d, %d", what, n, r.FilesSkipped, r.FilesRead, opens, skipped, read)
		}
	}
	lines := []string{header, "a,1.5,x,2024-08-19T10:00:00Z"}
	w.put("trades_1.csv", 0, lines...)
	run("first", 1, 0, 1)
	w.put("trades_copy.csv", 5, lines...)
	run("a copy", 1, 2, 0)
	run("the same copy", 0, 2, 0)
	memory, err := filepath.Glob(filepath.Join(w.lake.StateDir(), "copies", "history-*.json"))
	if err != nil || len(memory) != 1 {
		t.Fatalf("remembered in %v: %v", memory, err)
	}
	for _, wrong := range []string{"", "no JSON", "[{}]", `[{"name":"raw/batch/trades_copy.csv","size":1,"sha256":"00"}]`} {
		if err := os.WriteFile(memory[0], []byte(wrong), 0o644); err != nil {
			t.Fatal(err)
		}
		run("the same copy, with wrong memory "+wrong, 1, 2, 0)
	}
	w.put("trades_copy.csv", 6, header, "b,2,x,2024-08-19T10:00:00Z")
	run("the copy became another file", 1, 1, 1)
	w.put("trades_again.csv", 7, lines...)
	run("another copy", 1, 3, 0)
	w.put("trades_2.csv", 8, header, "c,3,x,2024-08-19T10:00:00Z")
	run("a commit that tells of it", 1, 3, 1)
	if _, err := os.Stat(memory[0]); !os.IsNotExist(err) {
		t.Errorf("what progress knows is remembered beside it: %v", err)
	}
	run("nothing", 0, 4, 0)
	equal(t, "rows", w.rows("trades", "id"), []string{"a", "b", "c"})
}

// A file of known content whose name says something else may have other rows: it is not passed over in silence.
func TestCopyWhoseNameSaysSomethingElse(t *testing.T) {
	w := newWorld(t, `
version: 1
storage: file:./data
tables:
  stock: {columns: {store: STRING, sku: STRING, qty: LONG}, key: [store, sku]}
sources:
  files:
    table: stock
    kind: files
    location: ["raw/batch/*.csv"]
    from_filename: '^(?P<store>[a-z]+)(_\d+)?\.csv$'
    fields: {store: file_group('store'), sku: sku, qty: qty}
`)
	for _, c := range []struct {
		file string
		warn bool
	}{{"lima.csv", false}, {"lima_1.csv", false}, {"quito.csv", true}, {"9.csv", true}} {
		w.put(c.file, 0, "sku,qty", "a,1")
		r := w.batch(ingest.BatchOptions{})
		if warned := len(r.Warnings) == 1 && strings.Contains(r.Warnings[0], "raw/batch/"+c.file) && strings.Contains(r.Warnings[0], "raw/batch/lima.csv"); warned != c.warn {
			t.Errorf("%s: warnings %q", c.file, r.Warnings)
		}
	}
}
