package pubsub

import (
	"context"
	"runtime"
	"testing"
	"time"
)

// Fetch ends when its time is up, however often something wakes it at that moment.
func TestFetchKeepsItsTime(t *testing.T) {
	s := &Source{o: SourceOptions{WatchEvery: time.Hour}, watched: time.Now(), stop: func() {}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	woken := make(chan struct{})
	defer func() { <-woken }()
	done := make(chan struct{})
	defer close(done)
	go func() {
		defer close(woken)
		for {
			select {
			case <-done:
				return
			default:
			}
			s.mu.Lock()
			s.more.Tell()
			s.mu.Unlock()
			runtime.Gosched()
		}
	}()
	for range 200 {
		if recs, err := s.Fetch(ctx, 10, 0, time.Millisecond); err != nil || len(recs) != 0 {
			t.Fatalf("Fetch gave %d records, %v", len(recs), err)
		}
	}
}
