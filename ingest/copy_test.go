package ingest_test

import (
	"context"
	"io"
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
