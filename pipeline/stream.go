package pipeline

import (
	"fmt"
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
}

func (e *GapError) Error() string {
	return fmt.Sprintf("source %s: gap in %s/%d, offsets %d to %d: %s; to record the gap and go on: cauce run stream --allow-gap %s",
		e.Source, e.Topic, e.Partition, e.From, e.To, e.Reason, e.Source)
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
