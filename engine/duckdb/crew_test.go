package duckdb

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"testing"

	"github.com/cauce-data/cauce/pipeline"
)

func threadsNow(t *testing.T, e *Engine) int64 {
	t.Helper()
	var n int64
	err := e.with(t.Context(), func(c *conn) error {
		row, err := c.one(t.Context(), "SELECT current_setting('threads')")
		if err == nil {
			n = integer(row[0])
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// DuckDB has its threads again after the last of several that took them away, also where a caller ends twice.
func TestCrewsNest(t *testing.T) {
	e, err := Open(Options{Threads: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	want := func(n int64) {
		t.Helper()
		if got := threadsNow(t, e); got != n {
			t.Fatalf("%d threads, not %d", got, n)
		}
	}
	want(3)
	a := e.crew(t.Context())
	want(1)
	b := e.crew(t.Context())
	a()
	a()
	want(1)
	ctx, cancel := context.WithCancel(t.Context())
	c := e.crew(ctx)
	b()
	cancel()
	c()
	want(3)

	x := &epoch{e: e}
	x.ExpectFiles([]int64{1000, 10, 10})
	want(3) // one file would be read by one processor while the others have nothing to do
	x.ExpectFiles([]int64{10, 10, 10, 10, 10, 10})
	want(1)
	x.endCrew()
	want(3)
}

func TestBadRowsOfPartsComeInOrder(t *testing.T) {
	seq := func(part, rows int, end error) iter.Seq2[pipeline.BadRow, error] {
		return func(yield func(pipeline.BadRow, error) bool) {
			for i := range rows {
				if !yield(pipeline.BadRow{Origin: fmt.Sprint(part), Position: int64(i)}, nil) {
					return
				}
			}
			if end != nil {
				yield(pipeline.BadRow{}, end)
			}
		}
	}
	broken := errors.New("the disk is gone")
	var parts []iter.Seq2[pipeline.BadRow, error]
	for p, n := range []int{0, 3, 12_345, 1, 0, 6000} {
		parts = append(parts, seq(p, n, nil))
	}
	for _, several := range []int{1, 2, 16} {
		n, part, position := 0, "", int64(-1)
		for b, err := range ahead(parts, several) {
			if err != nil {
				t.Fatal(err)
			}
			if b.Origin == part && b.Position != position+1 || b.Origin < part || b.Origin != part && b.Position != 0 {
				t.Fatalf("row %d of part %s after row %d of part %s", b.Position, b.Origin, position, part)
			}
			part, position = b.Origin, b.Position
			n++
		}
		if n != 18_349 {
			t.Errorf("%d at a time: %d rows, not 18349", several, n)
		}
		for range ahead(parts, several) {
			break // must not hang or leave anything running
		}
		n = 0
		var got error
		for _, err := range ahead([]iter.Seq2[pipeline.BadRow, error]{parts[2], seq(9, 7, broken), parts[5]}, several) {
			if err != nil {
				got = err
				continue
			}
			n++
		}
		if !errors.Is(got, broken) || n != 12_352 {
			t.Errorf("%d at a time: %d rows and then %v", several, n, got)
		}
	}
}
