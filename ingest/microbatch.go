package ingest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/cauce-data/cauce/pipeline"
)

// microBatch is what an epoch of a stream has read so far. Its memory is bounded by StreamOptions' RowsMax and BytesMax;
// while there is a backlog two of them exist, one that is merged and one that is read and computed.
type microBatch struct {
	rows      int
	bytes     int64
	fetched   bool
	positions map[int32]Position
	ranges    map[int32]*RangeMark
	queue     bool      // the source is a Queue
	gap       *GapError // what ends it: behind its records others are missing

	ph     *phases
	ep     Epoch // nil: no record has come
	at     time.Time
	raw    *rawArchive  // nil: none is kept
	result *EpochResult // nil: not computed yet
}

func (r *streamRun) newBatch(after map[int32]Position) *microBatch {
	return &microBatch{positions: maps.Clone(after), ranges: map[int32]*RangeMark{}, queue: r.queue != nil, ph: r.l.startPhases()}
}

func (b *microBatch) close() error {
	if b.ep == nil {
		return nil
	}
	return b.ep.Close()
}

// full tells whether a batch has as many records as it may.
func (r *streamRun) full(b *microBatch) bool {
	return b.rows >= r.opts.RowsMax || b.bytes >= r.opts.BytesMax
}

// complete tells whether nothing more belongs to a batch, whatever waits.
func (r *streamRun) complete(b *microBatch) bool {
	return r.full(b) || b.gap != nil || r.opts.AvailableNow && b.rows > 0 && !b.queue && b.covers(r.ends)
}

// gather reads records into a batch until it is complete or due or, if merged is not nil, until that is closed: the batch
// before has been merged.
func (r *streamRun) gather(ctx context.Context, b *microBatch, due time.Time, merged <-chan struct{}) error {
	ahead, patience := merged != nil, aheadWait
	for !r.complete(b) {
		left := time.Until(due)
		switch {
		case ahead:
			select {
			case <-merged:
				return nil
			default:
				left = patience
			}
		case left <= 0 && b.fetched:
			return nil
		case b.rows == 0:
			r.l.hook("idle")
		}
		if r.opts.AvailableNow {
			left = min(left, time.Second)
		}
		recs, err := r.in.Fetch(ctx, r.opts.RowsMax-b.rows, r.opts.BytesMax-b.bytes, max(left, 0))
		if err != nil && !errors.As(err, &b.gap) {
			return err
		}
		b.fetched = true
		// Each piece costs some work of its own: few records are waited for a little longer.
		if patience = aheadWait; len(recs) < aheadFew {
			patience = min(2*left, aheadWaitMax)
		}
		if len(recs) == 0 {
			if r.opts.AvailableNow && !ahead {
				return nil
			}
			continue
		}
		b.ph.done("fetch")
		if err := r.l.decoded(ctx, r.source, recs); err != nil {
			return err
		}
		if b.ep == nil {
			r.l.hook("reading")
			if b.ep, b.at, err = r.l.newEpoch(ctx, r.plan); err != nil {
				return err
			}
		}
		if err := b.take(recs); err != nil {
			return err
		}
		if err := b.ep.AddRecords(ctx, recs); err != nil {
			return err
		}
		if r.source.Archive {
			if b.raw == nil {
				b.raw = newRawArchive()
			}
			if err := b.raw.add(recs); err != nil {
				return err
			}
		}
		b.ph.done("read")
	}
	return nil
}

// compute ends the reading of a batch that has records.
func (r *streamRun) compute(ctx context.Context, b *microBatch) error {
	if b.result != nil {
		return nil
	}
	var err error
	b.result, err = r.l.finish(ctx, b.ep, r.table)
	b.ph.done("compute")
	return err
}

// prepared is a micro-batch that is read and computed while the one before it is merged.
type prepared struct {
	merged func() // says that it is
	done   chan struct{}
	batch  *microBatch
	err    error
}

// wait ends the reading ahead and waits until the source is free again.
func (p *prepared) wait() {
	p.merged()
	<-p.done
}

// prepare begins with the batch behind another. Nothing else may use the source until it is done.
func (r *streamRun) prepare(ctx context.Context, before *microBatch) *prepared {
	merged := make(chan struct{})
	p := &prepared{merged: sync.OnceFunc(func() { close(merged) }), done: make(chan struct{}), batch: r.newBatch(before.positions)}
	go func() {
		defer close(p.done)
		p.err = r.gather(ctx, p.batch, time.Time{}, merged)
		if p.err == nil && r.complete(p.batch) {
			p.err = r.compute(ctx, p.batch)
		}
	}()
	return p
}

// next gives the batch that was prepared, or a new one, and the error with which preparing it ended.
func (r *streamRun) next() (*microBatch, error) {
	p := r.ahead
	r.ahead = nil
	if p == nil {
		return r.newBatch(r.state.positions), nil
	}
	p.wait()
	p.batch.ph.done("queue") // it waited for the batch before
	return p.batch, p.err
}

// drop forgets what was prepared: the source will be placed anew.
func (r *streamRun) drop() {
	if p := r.ahead; p != nil {
		r.ahead = nil
		p.wait()
		_ = p.batch.close() // nothing of it was used
	}
}

// take adds records to the batch. Offsets grow in each partition: a source that goes back would double rows in tables
// without a key. Those of a queue are times, which come in any order and may come again; there the origin tells messages
// apart.
func (b *microBatch) take(recs []pipeline.Record) error {
	for len(recs) > 0 {
		// Records of a partition come together.
		p, n := recs[0].Partition, 1
		for n < len(recs) && recs[n].Partition == p {
			n++
		}
		pos, known := b.positions[p]
		g := b.ranges[p]
		if g == nil {
			g = &RangeMark{Partition: p, From: recs[0].Offset, To: recs[0].Offset}
			b.ranges[p] = g
		}
		for i := range recs[:n] {
			rec := &recs[i]
			if known && rec.Offset <= pos.Offset && !b.queue {
				return fmt.Errorf("topic %s, partition %d: offset %d came after %d", rec.Topic, rec.Partition, rec.Offset, pos.Offset)
			}
			if !known || rec.Offset > pos.Offset {
				pos, known = Position{Offset: rec.Offset, Time: markTime(rec.Time), Renewals: pos.Renewals}, true
			}
			g.From, g.To = min(g.From, rec.Offset), max(g.To, rec.Offset)
			b.bytes += int64(len(rec.Value) + len(rec.Key))
		}
		b.positions[p] = pos
		g.Rows += int64(n)
		b.rows += n
		recs = recs[n:]
	}
	return nil
}

// markTime is a message's time as progress keeps it. A producer may stamp a message with any time; one that a progress file
// cannot hold counts as unknown.
func markTime(t time.Time) time.Time {
	if y := t.UTC().Year(); y < 1 || y > 9999 {
		return time.Time{}
	}
	return t
}

func (b *microBatch) covers(ends map[int32]int64) bool {
	for p, end := range ends {
		if pos, ok := b.positions[p]; end >= 0 && (!ok || pos.Offset < end) {
			return false
		}
	}
	return true
}

func (b *microBatch) rangeMarks() []RangeMark {
	var out []RangeMark
	for _, p := range slices.Sorted(maps.Keys(b.ranges)) {
		out = append(out, *b.ranges[p])
	}
	return out
}

func positionMarks(m map[int32]Position) []PositionMark {
	var out []PositionMark
	for _, p := range slices.Sorted(maps.Keys(m)) {
		out = append(out, PositionMark{Partition: p, Offset: m[p].Offset, Time: m[p].Time, Renewals: m[p].Renewals})
	}
	return out
}
