package pubsub_test

import (
	"context"
	"testing"
	"time"

	"github.com/cauce-data/cauce/connect/pubsub"
	"github.com/cauce-data/cauce/internal/pubsubtest"
)

// That nothing comes means that nothing is there only while the service answers.
func TestDrainedNeedsAnAnswer(t *testing.T) {
	srv := pubsubtest.NewInProcess(t)
	create(t, pubsub.TopicOptions{})
	s := open(t, pubsub.SourceOptions{})
	if err := s.Seek(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if drained, err := s.Drained(t.Context(), nil); err != nil || drained {
		t.Errorf("at once: %t, %v", drained, err)
	}
	srv.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if drained, err := s.Drained(ctx, nil); err == nil || drained {
		t.Errorf("the service is away: %t, %v", drained, err)
	}
}

// A stream that is placed anew asks for the incarnation while what it holds is looked after.
func TestIncarnationBesideReading(t *testing.T) {
	pubsubtest.NewInProcess(t)
	create(t, pubsub.TopicOptions{})
	s := open(t, pubsub.SourceOptions{})
	for range 2 {
		if err := s.Seek(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Incarnation(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
