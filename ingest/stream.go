package ingest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/ingest/index"
	"github.com/cauce-data/cauce/pipeline"
)

// StreamOptions bound the micro-batches of a stream. Source must be set.
type StreamOptions struct {
	Source string
	// AvailableNow processes what is there at the start, then ends.
	AvailableNow bool
	// AllowGap records a gap that would stop the stream, and goes on behind it.
	AllowGap bool
	// A micro-batch ends when Trigger has passed since the one before began, or with RowsMax records or BytesMax bytes,
	// whichever is first; 0: as the lake file says.
	Trigger  time.Duration
	RowsMax  int
	BytesMax int64
	OnEpoch  func(StreamReport) // called after each commit; nil: nobody listens
	// NoMaintenance leaves the small files of the micro-batches to somebody else.
	NoMaintenance bool
}

// Starter is implemented by a Source of several partitions, or one that may begin elsewhere than at its earliest record.
// Started gives, after Seek, where it begins in the partitions of which the table knew nothing; these positions are
// committed before anything is read, so that a restart begins there too and sees what has gone since.
type Starter interface {
	Started() map[int32]Position
}

// Successor is implemented by a Source that can tell what a log of which the table knows nothing means, where the table
// has read other logs for the same source. A gap stops the stream; nil lets it begin.
type Successor interface {
	Succeeds(previous []string) *GapError
}

const (
	// streamFirstWait bounds the first micro-batch, so that what waits in the buffer is seen at once.
	streamFirstWait = 200 * time.Millisecond
	// gapTriesMax bounds how often a source is placed anew because more of the same partition went meanwhile.
	gapTriesMax = 3
	// aheadWait is how often reading ahead looks whether the batch before it has been merged; behind less than aheadFew records it
	// looks half as often each time, down to aheadWaitMax.
	aheadWait    = 20 * time.Millisecond
	aheadWaitMax = 160 * time.Millisecond
	aheadFew     = 1000
	// maintainEvery is after how many micro-batches the stream looks whether compaction pays.
	maintainEvery = 20
)

type streamRun struct {
	l      *Lake
	opts   StreamOptions
	source *pipeline.Source
	plan   *pipeline.Plan
	table  *delta.Table
	in     Source
	queue  Queue // in, if it is one

	log    *progressLog
	state  *progressState
	gaps   []GapMark          // allowed, and not yet in the table
	moved  map[int32]Position // where reading begins or goes on because of gaps or starts, and not yet in the table
	ahead  *prepared          // the next micro-batch, or its beginning; nil: none
	ends   map[int32]int64    // with AvailableNow
	rivals rivalry
	low    bool // the source was asked and gave less than a micro-batch may have; a Queue: nothing
	met    int  // gaps that reading has met since the last records

	work sync.WaitGroup // maintenance
	busy chan struct{}  // holds a token while maintenance runs
}

// RunStream reads a stream in micro-batches and merges each with its progress in one commit, until ctx ends (nil) or,
// with AvailableNow, until what was there has been read. Of several streams over one source one works, the others stand by
// and take over; each record counts once.
func (l *Lake) RunStream(ctx context.Context, in Source, o StreamOptions) error {
	src := l.lake.Source(o.Source)
	switch {
	case src == nil:
		return &UsageError{fmt.Sprintf("source %s: the lake file has none of that name; it has %s", o.Source, l.sourceNames())}
	case !src.Streaming():
		return &UsageError{fmt.Sprintf("source %s reads files: it is read with run batch", src.Name)}
	}
	plan, err := l.lake.Plan(src.Name)
	if err != nil {
		return err
	}
	o = o.withDefaults(l.lake.Stream)
	r := &streamRun{l: l, opts: o, source: src, plan: plan, in: in, busy: make(chan struct{}, 1)}
	r.queue, _ = in.(Queue)
	if r.table, err = l.catalog.Ensure(ctx, src.Table); err != nil {
		return fmt.Errorf("source %s: %w", src.Name, err)
	}
	defer r.work.Wait()
	err = r.run(ctx)
	r.drop()
	if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil // stopped; what was read and not committed is read again
	}
	var gap *GapError
	if errors.As(err, &gap) { // it names its source itself
		gap.Backfill = l.backfill(src)
		return err
	}
	if err != nil {
		return fmt.Errorf("source %s: %w", src.Name, err)
	}
	return nil
}

// withDefaults takes from the lake file, which has a default for each, what the options do not say.
func (o StreamOptions) withDefaults(s pipeline.Stream) StreamOptions {
	// Negative means the default, too.
	o.Trigger = cmp.Or(max(o.Trigger, 0), s.Trigger)
	o.RowsMax = cmp.Or(max(o.RowsMax, 0), s.RowsMax)
	o.BytesMax = cmp.Or(max(o.BytesMax, 0), s.BytesMax)
	return o
}

func (r *streamRun) run(ctx context.Context) error {
	if err := r.place(ctx, nil); err != nil {
		return err
	}
	// A run that was killed between its commit and the acknowledgement left the source to believe less.
	if len(r.state.positions) > 0 && r.queue == nil {
		if err := r.in.Committed(ctx, maps.Clone(r.state.positions)); err != nil {
			return err
		}
	}
	r.l.observe.positions(r.source.Name, positionMarks(r.state.positions))
	due := time.Now().Add(min(r.opts.Trigger, streamFirstWait))
	for n := 1; ; n++ {
		full := false
		end, err := r.reachedEnd(ctx)
		if end && err == nil {
			return r.renew(ctx)
		}
		if err == nil {
			full, err = r.epoch(ctx, due)
		}
		var gap *GapError
		lost := superseded(err)
		if errors.As(err, &gap) {
			// What another run has in the table, the source may have forgotten: that is no gap.
			var e error
			if lost, e = r.overtaken(ctx); e != nil {
				return e
			}
		}
		switch {
		case lost:
			r.l.log.Info("another run of the source was faster; going on behind it", "source", r.source.Name)
			r.l.observe.superseded(r.source.Name)
			ended := false
			if r.rivals.lost() {
				ended, err = r.standBy(ctx)
			} else {
				err = r.placeAgain(ctx)
			}
			if err != nil || ended {
				return err
			}
			continue
		case r.opts.AllowGap && gap != nil && r.met < gapTriesMax+len(r.state.positions):
			r.met++
			if err := r.place(ctx, gap); err != nil {
				return err
			}
			continue
		case err != nil:
			return err
		}
		if n%maintainEvery == 0 {
			r.maintain(ctx)
		}
		// Batches end one trigger apart, however long the work on each takes; the time until then is spent in Fetch, so that
		// a burst ends the wait. A batch that was full, or whose work took longer than a trigger, moves those that follow.
		now := time.Now()
		if due = due.Add(r.opts.Trigger); full || r.opts.AvailableNow {
			due = now.Add(r.opts.Trigger)
		} else if due.Before(now) {
			due = now
		}
	}
}

// place puts the source behind what the table has. Where that moves a position, because a gap is allowed or because reading
// begins, this is in the table before anything behind it is read. found is a gap that reading met; nil: none.
func (r *streamRun) place(ctx context.Context, found *GapError) error {
	for lost := 0; ; lost++ {
		if err := r.seek(ctx, found); err != nil {
			return err
		}
		if r.opts.AvailableNow && (r.ends == nil || len(r.gaps) > 0) {
			var err error
			if r.ends, err = r.in.Ends(ctx); err != nil {
				return err
			}
		}
		if len(r.gaps)+len(r.moved) == 0 {
			return nil
		}
		err := r.commitMoves(ctx)
		if !superseded(err) || lost >= conflictTriesMax {
			return err
		}
		found = nil // another run has moved the positions; if the gap still counts, it is met again
	}
}

// seek reads the progress from the table and places the source behind it, and takes note of what moves its positions.
func (r *streamRun) seek(ctx context.Context, found *GapError) error {
	r.drop()
	was, before := r.log, r.state
	r.log, r.low = nil, false
	var snap *delta.Snapshot
	for tries := map[int32]int{}; ; {
		inc, err := r.in.Incarnation(ctx)
		if err != nil {
			return err
		}
		// What is allowed is allowed of what the table says here: if another run changes that, the commit is lost to it.
		if r.log == nil || r.log.incarnation != inc {
			if was != nil && was.incarnation != inc {
				found = nil // it was another log's
			}
			r.gaps, r.moved = nil, map[int32]Position{}
			r.log = r.l.progressLog(r.source.Name, inc)
			was = r.log
			if snap, err = r.table.Snapshot(ctx); err != nil {
				return err
			}
			if r.state, err = r.log.load(ctx, snap); err != nil {
				return err
			}
			if found != nil && before.epoch != r.state.epoch {
				found = nil // another run has moved the positions since; if the gap still counts, it is met again
			}
		}
		gap := found
		if found = nil; gap == nil {
			if err := r.start(ctx, snap); err == nil || !errors.As(err, &gap) {
				return err
			}
			if lost, err := r.overtaken(ctx); err != nil {
				return err
			} else if lost {
				r.log = nil // what is gone may be in the table since
				continue
			}
		}
		if tries[gap.Partition]++; !r.opts.AllowGap || tries[gap.Partition] > gapTriesMax {
			return gap
		}
		r.allow(gap)
	}
}

// overtaken tells whether another run has committed an epoch of the source since its progress was read here.
func (r *streamRun) overtaken(ctx context.Context) (bool, error) {
	snap, err := r.table.Snapshot(ctx)
	if err != nil {
		return false, err
	}
	epoch, _ := snap.Txn(r.log.appID())
	return epoch != r.state.epoch, nil
}

// start makes the source read behind what the table has and what has moved since.
func (r *streamRun) start(ctx context.Context, snap *delta.Snapshot) error {
	if err := r.succeeds(snap, r.log.incarnation); err != nil {
		return err
	}
	after := maps.Clone(r.state.positions)
	maps.Copy(after, r.moved)
	if err := r.in.Seek(ctx, after); err != nil {
		return err
	}
	if st, ok := r.in.(Starter); ok {
		for p, pos := range st.Started() {
			if _, known := after[p]; !known {
				r.moved[p] = pos
			}
		}
	}
	return nil
}

// succeeds asks the source whether its log, if the table knows nothing of it, may follow those that the table knows.
func (r *streamRun) succeeds(snap *delta.Snapshot, incarnation string) error {
	in, ok := r.in.(Successor)
	if !ok || r.state.epoch > 0 || len(r.gaps) > 0 {
		return nil
	}
	prefix := "cauce/1/" + r.source.Name + "/"
	var previous []string
	for id := range snap.Txns() {
		if inc, ok := strings.CutPrefix(id, prefix); ok && inc != incarnation && inc != retryIncarnation && inc != repairIncarnation {
			previous = append(previous, inc)
		}
	}
	slices.Sort(previous)
	if len(previous) == 0 {
		return nil
	}
	if gap := in.Succeeds(previous); gap != nil {
		return gap
	}
	return nil
}

// allow takes note of a gap. What it does to positions, the source has said.
func (r *streamRun) allow(gap *GapError) {
	if gap.After == nil && r.state.epoch > 0 {
		return // the log was made anew while it was read: its new incarnation says so itself
	}
	g := GapMark{
		Topic: gap.Topic, Partition: gap.Partition, From: gap.From, To: gap.To, Reason: gap.Reason,
		AllowedAt: r.l.now(), Incarnation: r.log.incarnation,
	}
	r.l.log.Warn("a gap in the source is allowed", "source", r.source.Name, "lost", gap.Lost(), "reason", g.Reason)
	if gap.After != nil {
		r.moved[gap.Partition] = *gap.After
	}
	r.gaps = append(r.gaps, g)
}

// commitMoves records the allowed gaps, and where reading begins or goes on, as an epoch of its own.
func (r *streamRun) commitMoves(ctx context.Context) error {
	ph := r.l.startPhases()
	kind := KindGap
	if len(r.gaps) == 0 {
		kind = KindStart
	}
	maps.Copy(r.state.positions, r.moved)
	cover := &EpochFile{Kind: kind, Gaps: r.gaps, Positions: positionMarks(r.state.positions)}
	rep, err := r.l.commitEpoch(ctx, &epochCommit{
		source: r.source, plan: r.plan, table: r.table, log: r.log, state: r.state, cover: cover, at: r.l.now(),
	}, ph)
	if err != nil {
		return err
	}
	r.gaps, r.moved = nil, nil
	r.tell(rep, cover)
	return nil
}

func (r *streamRun) tell(rep *EpochReport, cover *EpochFile) {
	r.l.observe.epoch(rep)
	r.l.observe.positions(r.source.Name, cover.Positions)
	if r.opts.OnEpoch != nil {
		r.opts.OnEpoch(StreamReport{EpochReport: *rep, Ranges: cover.Ranges, Positions: cover.Positions, Gaps: cover.Gaps})
	}
}

// renew moves the positions of a source in which nothing waits, before they are so old that messages behind them may have been
// forgotten.
func (r *streamRun) renew(ctx context.Context) error {
	in, ok := r.in.(Aging)
	if !ok {
		return nil
	}
	moved, err := in.Renewed(ctx, maps.Clone(r.state.positions))
	if err != nil || len(moved) == 0 {
		return ctx.Err() // later; what else is wrong, Fetch says
	}
	if drained, err := r.in.Drained(ctx, r.ends); err != nil || !drained {
		return ctx.Err()
	}
	r.moved = moved
	return r.commitMoves(ctx)
}

// reachedEnd tells whether everything that was there when the run began has been read.
func (r *streamRun) reachedEnd(ctx context.Context) (bool, error) {
	switch {
	case !r.opts.AvailableNow:
		return false, nil
	case r.queue == nil && r.covered():
		return true, nil
	case r.ahead != nil, !r.low: // what is read ahead has the source
		return false, nil
	}
	// That nothing comes proves nothing: the source may be out of reach. Nor does it prove anything that something comes, which
	// may be of one partition while the others have markers at their ends, which no position reaches.
	return r.in.Drained(ctx, r.ends)
}

// covered tells, with AvailableNow, whether the table has all records that were there when the run began.
func (r *streamRun) covered() bool {
	for p, end := range r.ends {
		if pos, ok := r.state.positions[p]; end >= 0 && (!ok || pos.Offset < end) {
			return false
		}
	}
	return true
}

// epoch reads one micro-batch, until it is full or due, and commits it. full tells that more records wait.
func (r *streamRun) epoch(ctx context.Context, due time.Time) (full bool, err error) {
	b, err := r.next()
	defer func() { err = errors.Join(err, b.close()) }()
	if err != nil {
		return false, err
	}
	if err := r.gather(ctx, b, due, nil); err != nil {
		return false, err
	}
	r.low = b.rows == 0 || r.queue == nil && !r.full(b)
	switch {
	case b.rows == 0 && b.gap != nil:
		return false, b.gap
	case b.rows == 0:
		return false, r.renew(ctx)
	}
	r.met = 0
	full = r.full(b) && b.gap == nil
	if full {
		// More waits: it is read and computed while this batch is merged.
		r.ahead = r.prepare(ctx, b)
	}
	if err := r.compute(ctx, b); err != nil {
		return false, err
	}
	if b.result.Failed != nil {
		return false, b.result.Failed
	}
	if b.raw != nil {
		if err := b.raw.put(ctx, r.l.store, r.source.Name, r.log.incarnation, r.state.epoch+1, b.at); err != nil {
			return false, err
		}
		b.ph.done("archive")
	}
	cover := &EpochFile{Kind: KindStream, Ranges: b.rangeMarks(), Positions: positionMarks(b.positions)}
	lookup := ctx
	if full || !r.opts.AvailableNow {
		lookup = index.Repeated(ctx) // batches of the same kind follow
	}
	rep, err := r.l.commitEpoch(lookup, &epochCommit{
		source: r.source, plan: r.plan, table: r.table, log: r.log, state: r.state, cover: cover, result: b.result, at: b.at, quarantine: true,
	}, b.ph)
	if err != nil {
		return false, err
	}
	if r.ahead != nil {
		r.ahead.wait() // the source serves one call at a time
	}
	if r.rivals.won() {
		r.l.log.Warn("the other stream of this source has committed nothing for a while; this one works on the table", "source", r.source.Name)
	}
	// The rows are in the table: the source may forget them. If it does not learn of it, it only keeps them longer.
	if err := r.acknowledge(ctx, b.rows); err != nil {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		r.l.log.Warn("the source could not be told what is in the table; it keeps it longer", "source", r.source.Name, "error", err)
	}
	b.ph.done("acknowledge")
	r.tell(rep, cover)
	if b.gap != nil {
		return false, b.gap // what came before it is in the table
	}
	return full, nil
}

// acknowledge tells the source that the last micro-batch, of n records, is in the table.
func (r *streamRun) acknowledge(ctx context.Context, n int) error {
	if r.queue != nil {
		return r.queue.Acknowledge(ctx, n)
	}
	return r.in.Committed(ctx, maps.Clone(r.state.positions))
}

// maintain looks after the table beside the stream, at most once at a time.
func (r *streamRun) maintain(ctx context.Context) {
	if r.opts.NoMaintenance || !r.l.lake.Maintenance.Optimize {
		return
	}
	select {
	case r.busy <- struct{}{}:
	default:
		return
	}
	r.work.Go(func() {
		defer func() { <-r.busy }()
		m, err := r.l.Maintain(ctx, MaintainOptions{Tables: []string{r.plan.Table.Name}, CompactOnly: true})
		if err != nil && ctx.Err() == nil {
			r.l.log.Warn("maintenance beside the stream", "table", r.plan.Table.Name, "error", err)
		}
		if t := m.Tables[r.plan.Table.Name]; t != nil && t.FilesRemoved > 0 {
			// Rows that were packed went through memory by the hundred MB; the stream needs a tenth of that.
			r.l.engine.ReleaseMemory()
		}
	})
}
