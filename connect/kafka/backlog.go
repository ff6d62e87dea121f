package kafka

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cauce-data/cauce/pipeline"
)

// backlogPatience bounds how long Backlog waits for the oldest record; what is behind a position may be nothing but
// markers of transactions, so that none comes.
const backlogPatience = 2 * time.Second

// Backlog tells how far positions are behind the end of the topic, without moving the Source. What Start passes over does not
// count.
func (s *Source) Backlog(ctx context.Context, after map[int32]pipeline.Position) (pipeline.Backlog, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	b := pipeline.Backlog{Records: map[int32]int64{}}
	t, err := describe(ctx, s.c, s.adm, s.o.Topic)
	if err != nil {
		return b, fmt.Errorf("topic %s: %w", s.o.Topic, err)
	}
	starts, ends, err := offsets(ctx, s.c, s.adm, s.o.Topic)
	if err != nil {
		return b, fmt.Errorf("topic %s: %w", s.o.Topic, err)
	}
	at := map[int32]kgo.Offset{}
	for _, p := range s.mine(t) {
		next := starts[p]
		if pos, ok := after[p]; ok {
			next = max(next, pos.Offset+1)
		} else if len(after) == 0 {
			if next, err = s.start(ctx, p, starts[p], ends[p]); err != nil {
				return b, err
			}
		}
		b.Records[p] = max(ends[p]-next, 0)
		if b.Records[p] > 0 {
			at[p] = kgo.NewOffset().At(next)
		}
	}
	if len(at) == 0 {
		return b, nil
	}
	cl, err := s.reader(at, kgo.FetchMaxBytes(64<<10), kgo.FetchMaxPartitionBytes(1))
	if err != nil {
		return b, err
	}
	defer cl.Close()
	short, cancel := context.WithTimeout(ctx, backlogPatience)
	defer cancel()
	for len(at) > 0 && short.Err() == nil {
		cl.PollFetches(short).EachPartition(func(ft kgo.FetchTopicPartition) {
			if _, waits := at[ft.Partition]; !waits || len(ft.Records) == 0 {
				return
			}
			delete(at, ft.Partition)
			if first := ft.Records[0].Timestamp; b.Oldest.IsZero() || first.Before(b.Oldest) {
				b.Oldest = first
			}
		})
	}
	return b, nil
}
