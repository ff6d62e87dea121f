package ingest

import (
	"sync"
	"time"
)

// Bounds of how long the large files of a partition are left alone.
const (
	giveWayFirst = time.Minute
	giveWayMost  = time.Hour
)

// giveWay remembers the partitions in which compaction rewrote a large file in vain, because a writer marked rows of it
// meanwhile. A stream that always does would else have that file rewritten after each of its micro-batches. So such
// files get their next try after a minute, and after twice as long each time that one is in vain; small files are packed
// all the while. The zero value remembers nothing. It may be used by several goroutines.
type giveWay struct {
	mu    sync.Mutex
	until map[string]giveWayUntil
}

type giveWayUntil struct {
	at   time.Time
	next time.Duration
}

// waits says whether the large files of a partition are left alone now.
func (g *giveWay) waits(partition string, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return now.Before(g.until[partition].at)
}

// note takes down how a compaction of a partition ended. One that left the large files alone, and was not in vain, does
// not shorten their wait.
func (g *giveWay) note(partition string, inVain bool, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	was, known := g.until[partition]
	switch {
	case inVain:
		next := min(max(was.next, giveWayFirst), giveWayMost)
		if g.until == nil {
			g.until = map[string]giveWayUntil{}
		}
		g.until[partition] = giveWayUntil{now.Add(next), 2 * next}
	case known && !now.Before(was.at):
		delete(g.until, partition)
	}
}
