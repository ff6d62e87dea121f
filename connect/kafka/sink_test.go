package kafka

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/kafkatest"
)

// TestPublishedOutlivesItsContext: what was handed over while the broker stood still is published, though the context
// (that of a connection to an exchange, for one) ended before the broker went on; and a full Sink lets go of a caller
// whose context ends.
func TestPublishedOutlivesItsContext(t *testing.T) {
	b := kafkatest.New(t, nil)
	if err := b.CreateTopic(t.Context(), "events", 1, nil); err != nil {
		t.Fatal(err)
	}
	s, err := NewSink(t.Context(), Config{Brokers: []string{b.Addr}}, "events", SinkOptions{InFlightMax: 50})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	b.Pause()
	resumed := false
	defer func() {
		if !resumed {
			b.Resume()
		}
	}()
	ctx, cancel := context.WithCancel(t.Context())
	for i := range 50 {
		if err := s.Publish(ctx, []byte("k"), fmt.Sprint(i), []byte("v")); err != nil {
			t.Fatal(err)
		}
	}
	short, done := context.WithTimeout(ctx, 50*time.Millisecond)
	defer done()
	if err := s.Publish(short, []byte("k"), "one too many", []byte("v")); err == nil {
		t.Error("a Sink of 50 takes 51 messages")
	}
	cancel()
	b.Resume()
	resumed = true
	flush, done2 := context.WithTimeout(t.Context(), 30*time.Second)
	defer done2()
	if err := s.Flush(flush); err != nil || s.Acked() != 50 {
		t.Errorf("%d of 50 messages are acknowledged: %v", s.Acked(), err)
	}
}
