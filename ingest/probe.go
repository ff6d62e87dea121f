package ingest

import (
	"context"
	"errors"
	"fmt"
)

// Streams lists where a source's table stands in each log that it has read of the source, the last one last.
func (l *Lake) Streams(ctx context.Context, source string) ([]StreamPlan, error) {
	src := l.lake.Source(source)
	if src == nil {
		return nil, &UsageError{fmt.Sprintf("source %s: the lake file has none of that name; it has %s", source, l.sourceNames())}
	}
	snap, err := l.snapshot(ctx, src.Table)
	if err != nil || snap == nil {
		return nil, err
	}
	return l.streams(ctx, src.Name, snap)
}

// Outlook is what a run of a stream would find.
type Outlook struct {
	Incarnation string   // of the log that is there
	Backlog     *Backlog // behind what the table has of that log; nil: the source cannot tell
	// Stops says why a run would stop before it reads anything; nil: it would read.
	Stops *GapError
}

// Outlook asks a source what a run would find. streams is what the table has of its logs.
func (l *Lake) Outlook(ctx context.Context, in Source, source string, streams []StreamPlan) (*Outlook, error) {
	inc, err := in.Incarnation(ctx)
	if err != nil {
		return nil, err
	}
	after, known := map[int32]Position{}, false
	var previous []string
	for _, s := range streams {
		if s.Incarnation != inc {
			previous = append(previous, s.Incarnation)
			continue
		}
		known = true
		for _, p := range s.Positions {
			after[p.Partition] = p.position()
		}
	}
	o := &Outlook{Incarnation: inc}
	if s, ok := in.(Lagging); ok {
		b, err := s.Backlog(ctx, after)
		if err != nil {
			return nil, err
		}
		o.Backlog = &b
	}
	if s, ok := in.(Successor); ok && !known && len(previous) > 0 {
		o.Stops = s.Succeeds(previous)
	}
	if p, ok := in.(Prober); ok && o.Stops == nil {
		if err := p.Probe(ctx, after); err != nil && !errors.As(err, &o.Stops) {
			return nil, err
		}
	}
	if o.Stops != nil {
		o.Stops.Backfill = l.backfill(l.lake.Source(source))
	}
	return o, nil
}
