package main

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cauce-data/cauce/connect/buffer"
	"github.com/cauce-data/cauce/connect/kafka"
	"github.com/cauce-data/cauce/connect/pubsub"
	"github.com/cauce-data/cauce/pipeline"
)

// What a topic's server must come back for waits in the spool; what somebody must mend ends the producer.
func TestProducersTellOutagesFromMistakes(t *testing.T) {
	for _, c := range []struct {
		err             error
		mistake, outage bool
	}{
		{kafka.ErrDenied, true, false},
		{kafka.ErrInsecure, true, false},
		{kafka.ErrNoTopic, true, false},
		{kafka.ErrUnavailable, false, true},
		{pubsub.ErrDenied, true, false},
		{pubsub.ErrNoTopic, true, false},
		{pubsub.ErrUnavailable, false, true},
		{status.Error(codes.InvalidArgument, "the message is larger than 10 MB"), true, false},
		{status.Error(codes.Unavailable, "later"), false, false},
		{buffer.ErrTooLarge, true, false},
		{context.DeadlineExceeded, false, false},
	} {
		err := fmt.Errorf("topic x: %w", c.err)
		if outage := errors.Is(err, pipeline.ErrUnavailable); permanent(err) != c.mistake || outage != c.outage {
			t.Errorf("%v: permanent %v, unavailable %v", err, permanent(err), outage)
		}
	}
}
