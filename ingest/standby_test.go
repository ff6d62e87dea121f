package ingest_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/internal/lockbuf"
)

// Of two streams over one source one works and the other stands by, whichever that is, until nothing more is committed:
// then it takes over. Each record counts once.
func TestSecondStreamStandsByAndTakesOver(t *testing.T) {
	w := newWorld(t, tradesLake)
	p := newTopic("trades")
	published := 0
	publish := func() {
		trade(p, fmt.Sprint("t", published), "1", published%60)
		published++
	}
	var mu sync.Mutex
	var superseded, rows int64
	var log lockbuf.Buffer
	epochs := map[int64]int{} // by which stream, 1 or 2
	last := 0                 // the stream that committed last
	type stream struct {
		stop context.CancelFunc
		done chan error
	}
	begin := func(n int) stream {
		cfg := w.cfg
		cfg.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
		cfg.Observe.Superseded = func(string) { mu.Lock(); superseded++; mu.Unlock() }
		l, err := ingest.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		s := stream{stop, make(chan error, 1)}
		go func() {
			s.done <- l.RunStream(ctx, p.reader(), ingest.StreamOptions{
				Source: "live", NoMaintenance: true, Trigger: 20 * time.Millisecond,
				OnEpoch: func(r ingest.StreamReport) {
					mu.Lock()
					defer mu.Unlock()
					if epochs[r.Epoch] != 0 {
						t.Errorf("epoch %d was committed twice", r.Epoch)
					}
					epochs[r.Epoch], last = n, n
					rows += r.RowsRead
				},
			})
		}()
		return s
	}
	await := func(what string, ready func() bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
			publish()
			mu.Lock()
			ok := ready()
			mu.Unlock()
			if ok {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: after a minute there are %d epochs, %d given up", what, len(epochs), superseded)
			}
		}
	}
	streams := map[int]stream{1: begin(1), 2: begin(2)}
	await("both", func() bool { return len(epochs) >= 60 })
	mu.Lock()
	gave, works := superseded, last
	mu.Unlock()
	// Two that race give up about as many epochs as they commit.
	if gave > 25 {
		t.Errorf("%d epochs were given up beside 60 that were committed: both streams work", gave)
	}
	// The topic's servers are away when it wants to take over.
	p.mu.Lock()
	p.away = 2
	p.mu.Unlock()
	streams[works].stop()
	if err := <-streams[works].done; err != nil {
		t.Error(err)
	}
	other := 3 - works
	await("taking over", func() bool {
		select {
		case err := <-streams[other].done:
			t.Fatalf("the stream that stood by ended: %v", err)
		default:
		}
		return last == other
	})
	await("everything", func() bool { return rows > int64(published)-50 })
	// Nothing more is published: all of it must come.
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		mu.Lock()
		n := rows
		mu.Unlock()
		if n == int64(published) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d records were read", n, published)
		}
	}
	streams[other].stop()
	if err := <-streams[other].done; err != nil {
		t.Error(err)
	}
	// Who was told that it waits is told that it works.
	if waits, works := strings.Count(log.String(), "this one waits"), strings.Count(log.String(), "this one works on the table"); waits == 0 || works == 0 || works > waits {
		t.Errorf("%d times a stream said that it waits, and %d times that it works again", waits, works)
	}
	if n := len(w.scan("trades")); n != published {
		t.Errorf("%d rows of %d records", n, published)
	}
}
