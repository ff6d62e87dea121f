package ingest

import (
	"context"
	"errors"
	"time"

	"github.com/cauce-data/cauce/pipeline"
)

// How a stream gives way to another one over the same source. An epoch that was lost weighs lossWeight, one that was won
// takes one off again; at standByWeight the stream stands by. So a run that reads what is there and ends
// (--available-now) costs a running stream an epoch or two, while of two streams that run for ever one is soon left alone.
const (
	lossWeight    = 3
	standByWeight = 6
	// standByPoll is how often a stream that stands by looks at the table.
	standByPoll = time.Second
	// standByMax bounds how long the other stream must have been still.
	standByMax = 2 * time.Minute
)

// rivalry is what a stream knows of others over the same source.
type rivalry struct {
	weight int
	wait   time.Duration // until it takes over; 0: the first time
	told   bool          // that this stream waits …
	back   bool          // … and that it works again
}

// won takes note of an epoch that this stream has committed, and tells whether to say that it works again.
func (v *rivalry) won() (again bool) {
	again = v.told && !v.back
	v.back = v.told
	v.weight = max(v.weight-1, 0)
	if v.weight == 0 {
		v.wait, v.told, v.back = 0, false, false
	}
	return again
}

// lost takes note of one that another has committed, and tells whether to stand by.
func (v *rivalry) lost() bool {
	v.weight = min(v.weight+lossWeight, standByWeight)
	return v.weight >= standByWeight
}

// placeAgain places a stream anew that has been running: brokers that are away come back.
func (r *streamRun) placeAgain(ctx context.Context) error {
	for told := false; ; told = true {
		err := r.place(ctx, nil)
		if r.opts.AvailableNow || !errors.Is(err, pipeline.ErrUnavailable) {
			return err
		}
		if !told {
			r.l.log.Warn("the source cannot be reached; trying again", "source", r.source.Name, "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(standByPoll):
		}
	}
}

// standBy leaves the source to another stream, which was faster repeatedly, and takes over when that one has committed
// nothing for a while: it has ended, or there is nothing to do, and then whoever is first does it. Nothing can be doubled
// either way, since an epoch is committed once; but two streams that race read every record twice. ended tells that with
// AvailableNow the other one has read all there was.
func (r *streamRun) standBy(ctx context.Context) (ended bool, err error) {
	r.drop()
	if r.queue != nil {
		r.queue.Release() // what was delivered here goes to the one that works
	}
	if r.rivals.wait == 0 {
		r.rivals.wait = 2*r.opts.Trigger + standByPoll
	}
	wait := min(r.rivals.wait, standByMax)
	r.rivals.wait = 2 * wait // if the other one is only slower than that
	if !r.rivals.told {
		r.rivals.told = true
		r.l.log.Warn("another stream of this source works on the table; this one waits, and takes over when that one has committed nothing for a while",
			"source", r.source.Name, "while", wait.String())
	}
	epoch := int64(-1)
	for still := time.Now(); ; {
		snap, err := r.table.Snapshot(ctx)
		if err != nil {
			return false, err
		}
		if r.state, err = r.log.load(ctx, snap); err != nil {
			return false, err
		}
		if r.state.epoch != epoch {
			epoch, still = r.state.epoch, time.Now()
			r.l.observe.positions(r.source.Name, positionMarks(r.state.positions))
		}
		if r.opts.AvailableNow && r.queue == nil && r.covered() {
			return true, nil
		}
		left := time.Until(still.Add(wait))
		if left <= 0 {
			return false, r.placeAgain(ctx)
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(min(left, standByPoll)):
		}
	}
}
