package pipeline

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Position says up to where a partition has been read.
type Position struct {
	Offset int64     // last offset covered; -1: nothing
	Time   time.Time // the server's time of the message at Offset; zero: it is not known, and nothing is compared with it
	// Renewals is how often the log has lost its end, so that the offsets behind it were given to other records.
	Renewals int
}

// Origin is the _origin of the records of a log that follow a position: "<kind>:<incarnation>:<topic>/<partition>", and
// "~<n>" after n renewals, so that records that share an offset are never taken for one another.
func Origin(kind, incarnation, topic string, partition int32, after Position) string {
	origin := fmt.Sprintf("%s:%s:%s/%d", kind, incarnation, topic, partition)
	if after.Renewals > 0 {
		origin += fmt.Sprintf("~%d", after.Renewals)
	}
	return origin
}

// ErrUnavailable is the class of the errors by which a stream's servers cannot be reached: they pass when those are back.
var ErrUnavailable = errors.New("the servers of the stream cannot be reached")

// Unavailable makes an error of that class.
func Unavailable(text string) error { return unavailable(text) }

type unavailable string

func (u unavailable) Error() string { return string(u) }

func (unavailable) Is(target error) bool { return target == ErrUnavailable }

// GapError says that records between what progress covers and what the source still has are gone (exit code 4). The
// source, which alone knows its log, says where reading goes on if the gap is allowed; nothing else moves a position.
type GapError struct {
	Source    string
	Topic     string
	Partition int32 // AllPartitions: the whole log is another one, and no offset tells what is missing
	From, To  int64 // offsets that are missing, both inclusive; To -1: unknown
	Reason    string
	// After is where reading goes on if the gap is allowed, in this partition alone. It may lie before the position at which
	// the gap was met: then the offsets between have other records, and Renewals is one more. nil: the log itself is another
	// one, whose incarnation places the reader.
	After *Position
	// Backfill says in which ways the rows that are lost may come into the table after all, each with its command.
	Backfill []string
}

// AllPartitions is the partition of a gap in all of them.
const AllPartitions = -1

func (e *GapError) Error() string {
	text := fmt.Sprintf("source %s: gap in %s: %s; to record the gap and go on: cauce run stream --allow-gap %s", e.Source, e.Lost(), e.Reason, e.Source)
	if len(e.Backfill) > 0 {
		text += "; to fill it afterwards: " + strings.Join(e.Backfill, "; or ")
	}
	return text
}

// Lost names what is missing.
func (e *GapError) Lost() string {
	switch {
	case e.Partition == AllPartitions:
		return e.Topic + ", all partitions"
	case e.To < e.From:
		return fmt.Sprintf("%s/%d, offsets from %d on", e.Topic, e.Partition, e.From)
	}
	return fmt.Sprintf("%s/%d, offsets %d to %d", e.Topic, e.Partition, e.From, e.To)
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
