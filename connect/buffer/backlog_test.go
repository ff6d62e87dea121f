package buffer

import (
	"testing"
	"time"

	"github.com/cauce-data/cauce/pipeline"
)

func TestBacklog(t *testing.T) {
	ctx := testContext(t)
	b := openBuffer(t, t.TempDir())
	s := source(t, b, "t", SourceOptions{})
	l, err := s.Backlog(ctx, nil)
	must(t, err)
	if l.Sum() != 0 || l.Age(time.Now()) != 0 {
		t.Errorf("an empty topic: %+v", l)
	}
	publish(t, b, "t", 0, 100)
	must(t, s.Seek(ctx, nil))
	recs := fetchAll(t, s)
	for _, c := range []struct {
		offset, wait int64
	}{{0, 100}, {40, 60}, {99, 1}, {100, 0}, {120, 0}} {
		l, err := s.Backlog(ctx, map[int32]pipeline.Position{0: {Offset: c.offset}})
		must(t, err)
		if l.Sum() != c.wait {
			t.Errorf("behind offset %d: %d wait, want %d", c.offset, l.Sum(), c.wait)
		}
		if c.wait > 0 && !l.Oldest.Equal(recs[c.offset].Time) || c.wait == 0 && l.Age(time.Now()) != 0 {
			t.Errorf("behind offset %d: the oldest is of %s", c.offset, l.Oldest)
		}
	}
}
