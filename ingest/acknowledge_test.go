package ingest_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/cauce-data/cauce/ingest"
)

// acknowledged is a source that looks into the table whenever it is told that records are there.
type acknowledged struct {
	*reader
	told func(pos map[int32]ingest.Position)
}

func (a acknowledged) Committed(ctx context.Context, pos map[int32]ingest.Position) error {
	a.told(pos)
	return a.reader.Committed(ctx, pos)
}

func TestSourceIsToldOnlyOfWhatIsInTheTable(t *testing.T) {
	w := newWorld(t, tradesLake)
	p := newTopic("trades")
	for i := range 4 {
		trade(p, fmt.Sprint("k", i), "1", i)
	}
	told := 0
	in := acknowledged{p.reader(), func(pos map[int32]ingest.Position) {
		told++
		if want := fmt.Sprint(pos[0].Offset); !slices.Contains(w.rows("trades", "_position"), want) {
			t.Errorf("the source is told that offset %s is in the table, which has %v", want, w.rows("trades", "_position"))
		}
	}}
	if _, err := w.stream(in, ingest.StreamOptions{RowsMax: 2}); err != nil {
		t.Fatal(err)
	}
	if told != 2 {
		t.Errorf("the source was told %d times, want 2", told)
	}
}
