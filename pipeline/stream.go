package pipeline

import (
	"fmt"
	"strings"
	"time"
)

// Position says up to where a partition has been read.
type Position struct {
	Offset int64     // last offset covered; -1: nothing
	Time   time.Time // the server's time of the message at Offset
}

// GapError says that records between what progress covers and what the source still has are gone (exit code 4).
type GapError struct {
	Source    string
	Topic     string
	Partition int32
	From, To  int64 // offsets that are missing, both inclusive; To -1: unknown
	Reason    string
	// Backfill says in which ways the rows that are lost may come into the table after all, each with its command.
	Backfill []string
}

func (e *GapError) Error() string {
	lost := fmt.Sprintf("offsets %d to %d", e.From, e.To)
	if e.To < e.From {
		lost = fmt.Sprintf("offsets from %d on", e.From)
	}
	text := fmt.Sprintf("source %s: gap in %s/%d, %s: %s; to record the gap and go on: cauce run stream --allow-gap %s", e.Source, e.Topic, e.Partition, lost, e.Reason, e.Source)
	if len(e.Backfill) > 0 {
		text += "; to fill it afterwards: " + strings.Join(e.Backfill, "; or ")
	}
	return text
}

// Backlog says how far a position is behind the end of its log.
type Backlog struct {
	Records map[int32]int64 // that follow the position, by partition; entries that are no records count too
	Oldest  time.Time       // the server's time of the oldest of them; zero: there is none, or it could not be read
}

// Sum is the number of records in all partitions.
func (b Backlog) Sum() (n int64) {
	for _, r := range b.Records {
		n += r
	}
	return n
}

// Age is how long the oldest record has waited; 0 where none does.
func (b Backlog) Age(now time.Time) time.Duration {
	if b.Oldest.IsZero() || b.Sum() == 0 {
		return 0
	}
	return max(now.Sub(b.Oldest), 0)
}
