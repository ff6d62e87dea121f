package main

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
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

// streamOutlook is what only the stream itself knows of a source.
type streamOutlook struct {
	Lag *lagStatus `json:"lag,omitempty"`
	// Stops is why a run would stop with exit code 4 before it reads anything.
	Stops string `json:"stops,omitempty"`

	incarnation string // of the log that is there; "": not known
}

// outlooks asks streams, each with what the table has of its logs, how far the table is behind and whether a run would go on.
// Those that cannot be asked say why.
func (a *app) outlooks(ctx context.Context, l *lake, read map[string][]ingest.StreamPlan) map[string]streamOutlook {
	ctx, cancel := context.WithTimeout(ctx, lagPatience)
	defer cancel()
	st := a.streams(l.Lake)
	defer st.Close()
	out := map[string]streamOutlook{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for name, streams := range read {
		wg.Go(func() {
			o, err := a.outlook(ctx, l, st, l.Source(name), streams)
			if err != nil {
				o.Lag = &lagStatus{Error: err.Error()}
			}
			mu.Lock()
			defer mu.Unlock()
			out[name] = o
		})
	}
	wg.Wait()
	return out
}

func (a *app) outlook(ctx context.Context, l *lake, st *streams, src *pipeline.Source, read []ingest.StreamPlan) (o streamOutlook, err error) {
	if src.Kind == pipeline.KindEmbedded {
		if _, err := os.Stat(bufferDir(l.Lake)); errors.Is(err, fs.ErrNotExist) {
			return streamOutlook{Lag: &lagStatus{}}, nil // nothing was ever sent
		}
	}
	in, err := st.source(ctx, src)
	if err != nil {
		return o, err
	}
	defer in.Close()
	found, err := l.ingest.Outlook(ctx, in, src.Name, read)
	if err != nil {
		return o, err
	}
	o.incarnation = found.Incarnation
	if b := found.Backlog; b != nil {
		o.Lag = &lagStatus{Records: b.Sum(), Seconds: b.Age(time.Now()).Seconds(), Partitions: maps.Clone(b.Records)}
	}
	if found.Stops != nil {
		o.Stops = found.Stops.Error()
	}
	return o, nil
}

// sourceStatus is ingest's with what only the streams themselves know.
type sourceStatus struct {
	ingest.SourceStatus
	streamOutlook
}

// sourceStatuses asks the streams too, if ask.
func (a *app) sourceStatuses(ctx context.Context, l *lake, s *ingest.Status, ask bool) []sourceStatus {
	read := map[string][]ingest.StreamPlan{}
	for _, x := range s.Sources {
		if ask && l.Source(x.Name).Streaming() {
			read[x.Name] = x.Streams
		}
	}
	found := a.outlooks(ctx, l, read)
	out := make([]sourceStatus, len(s.Sources))
	for i, x := range s.Sources {
		out[i] = sourceStatus{x, found[x.Name]}
	}
	return out
}
