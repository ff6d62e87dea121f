package buffer

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/cauce-data/cauce/pipeline"
)

// Backlog tells how far positions are behind the end of the topic, without moving the Source.
func (s *Source) Backlog(ctx context.Context, after map[int32]pipeline.Position) (pipeline.Backlog, error) {
	b := pipeline.Backlog{Records: map[int32]int64{}}
	st, info, err := s.info(ctx)
	if err != nil {
		return b, err
	}
	next := max(int64(info.State.FirstSeq), 1)
	if pos, ok := after[partition]; ok {
		next = max(next, pos.Offset+1)
	}
	b.Records[partition] = max(int64(info.State.LastSeq)-next+1, 0)
	if b.Records[partition] == 0 {
		return b, nil
	}
	var msg *jetstream.RawStreamMsg
	err = s.b.retry(ctx, func(ctx context.Context) (err error) {
		msg, err = st.GetMsg(ctx, uint64(next))
		return err
	})
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return b, nil // it went between the two questions
	}
	if err != nil {
		return b, fmt.Errorf("topic %s: %w", s.topic, err)
	}
	b.Oldest = msg.Time
	return b, nil
}
