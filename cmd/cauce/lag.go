package main

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/pipeline"
)

// lagPatience bounds how long status waits for brokers.
const lagPatience = 5 * time.Second

// lagStatus is how far a table is behind the end of a stream.
type lagStatus struct {
	Records    int64           `json:"records"`
	Seconds    float64         `json:"seconds"` // age of the oldest of them
	Partitions map[int32]int64 `json:"partitions,omitempty"`
	Error      string          `json:"error,omitempty"` // why it is not known
}

// lags asks the streams of a lake how far the table is behind; those that cannot be asked say why.
func (a *app) lags(ctx context.Context, l *lake, s *ingest.Status) map[string]*lagStatus {
	ctx, cancel := context.WithTimeout(ctx, lagPatience)
	defer cancel()
	st := a.streams(l.Lake)
	defer st.Close()
	out := map[string]*lagStatus{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, x := range s.Sources {
		src := l.Source(x.Name)
		if !src.Streaming() {
			continue
		}
		wg.Go(func() {
			lag := a.lag(ctx, l, st, src, x)
			mu.Lock()
			defer mu.Unlock()
			if lag != nil {
				out[src.Name] = lag
			}
		})
	}
	wg.Wait()
	return out
}

func (a *app) lag(ctx context.Context, l *lake, st *streams, src *pipeline.Source, s ingest.SourceStatus) *lagStatus {
	if src.Kind == pipeline.KindEmbedded {
		if _, err := os.Stat(bufferDir(l.Lake)); errors.Is(err, fs.ErrNotExist) {
			return &lagStatus{} // nothing was ever sent
		}
	}
	unknown := func(err error) *lagStatus { return &lagStatus{Error: err.Error()} }
	in, err := st.source(ctx, src)
	if err != nil {
		return unknown(err)
	}
	defer in.Close()
	lagging, ok := in.(ingest.Lagging)
	if !ok {
		return nil
	}
	inc, err := in.Incarnation(ctx)
	if err != nil {
		return unknown(err)
	}
	after := map[int32]ingest.Position{}
	for _, x := range s.Streams {
		if x.Incarnation == inc {
			for _, p := range x.Positions {
				after[p.Partition] = ingest.Position{Offset: p.Offset, Time: p.Time}
			}
		}
	}
	b, err := lagging.Backlog(ctx, after)
	if err != nil {
		return unknown(err)
	}
	return &lagStatus{Records: b.Sum(), Seconds: b.Age(time.Now()).Seconds(), Partitions: maps.Clone(b.Records)}
}

// sourceStatus is ingest's with what only the streams themselves know.
type sourceStatus struct {
	ingest.SourceStatus
	Lag *lagStatus `json:"lag,omitempty"`
}

func withLags(s *ingest.Status, lags map[string]*lagStatus) []sourceStatus {
	out := []sourceStatus{}
	for _, x := range s.Sources {
		out = append(out, sourceStatus{x, lags[x.Name]})
	}
	return slices.Clip(out)
}
