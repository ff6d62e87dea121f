package ingest_test

import (
	"context"
	"io"
	"iter"
	"testing"

	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/objstore"
)

// A file of history may be issued again under any name, also one with an id in it.
func TestCopyTakesAReissueAgain(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, tradesLake)
	to, err := objstore.NewLocal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	const name = "lines_0b4f2f7e-6f3c-4a53-9a55-2d1f5c1b8e11.csv"
	for minute, text := range []string{"one", "two"} {
		w.put(name, minute, "text,n", text+",1")
		w.batch(ingest.BatchOptions{})
		if _, err := w.Copy(ctx, to, ingest.CopyOptions{}); err != nil {
			t.Fatal(err)
		}
		r, _, err := to.Get(ctx, "raw/batch/"+name)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || string(got) != "text,n\n"+text+",1\n" {
			t.Errorf("copied as %q, %v", got, err)
		}
	}
}

// busyStore is a store in which something happens while it is listed: behind the log of quarantine and before those of tables.
type busyStore struct {
	objstore.Store
	happens func()
}

func (s *busyStore) List(ctx context.Context, prefix, startAfter string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		const border = "processed/quarantine/_delta_log0"
		if s.happens == nil || prefix != "" {
			s.Store.List(ctx, prefix, startAfter)(yield)
			return
		}
		for info, err := range s.Store.List(ctx, prefix, startAfter) {
			if info.Key > border {
				break
			}
			if !yield(info, err) {
				return
			}
		}
		happens := s.happens
		s.happens = nil
		happens()
		s.Store.List(ctx, prefix, border)(yield)
	}
}

// What a run has refused while a copy begins is in the copy if it says that the run has read it.
func TestCopyBesideARunKeepsWhatItRefuses(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t, tradesLake)
	w.put("trades_1.csv", 0, header, "a,1,x,2024-08-19T10:00:00Z", "b,-1,x,2024-08-19T10:00:00Z")
	w.batch(ingest.BatchOptions{})
	w.put("trades_2.csv", 1, header, "c,1,x,2024-08-19T10:00:00Z", "d,-1,x,2024-08-19T10:00:00Z")
	busy := &busyStore{Store: w.store}
	w.store = busy
	w.reopen()
	busy.happens = func() { w.batch(ingest.BatchOptions{}) }
	to, err := objstore.NewLocal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Copy(ctx, to, ingest.CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	w.store = to
	w.reopen()
	w.batch(ingest.BatchOptions{})
	equal(t, "rows of the copy", w.rows("trades", "id"), []string{"a", "c"})
	var refused []string
	for _, q := range w.quarantine(ingest.QuarantineFilter{}) {
		refused = append(refused, q.Raw)
	}
	equal(t, "quarantine of the copy", refused, []string{"b,-1,x,2024-08-19T10:00:00Z", "d,-1,x,2024-08-19T10:00:00Z"})
}
