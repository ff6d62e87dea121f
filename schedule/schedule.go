// Package schedule says when tasks run: at the times of a cron expression in a time zone, never twice at once, again
// after a failure with growing pauses, and once more at the start if the time of a run passed while nothing was
// running. It keeps a history of runs as files, so that it survives restarts. It stands between cmd/cauce, which knows
// what a task does, and the clock.
package schedule

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/go-co-op/gocron/v2"
)

// Task is something that runs by itself.
type Task struct {
	Name string
	Cron string // five fields
	// Retries is how often a failed run is tried again; Backoff is the pause before the first retry and doubles with
	// each, up to an hour. Retryable says which errors are worth it; nil: all.
	Retries   int
	Backoff   time.Duration
	Retryable func(error) bool
	// CatchUp runs the task at the start of the scheduler if it should have run since its last run.
	CatchUp bool
	// Run does the work. What it sets in Run.Result is kept in the history.
	Run func(ctx context.Context, run *Run) error
	// Redact hides what must not be written down from the texts of errors; nil: nothing is hidden.
	Redact func(string) string
}

// text is an error as the history keeps it.
func (t Task) text(err error) string {
	if t.Redact == nil {
		return err.Error()
	}
	return t.Redact(err.Error())
}

// Options shape a Scheduler. The zero value works, without a history.
type Options struct {
	Dir      string         // folder of the run history; "": none is kept
	Location *time.Location // of the cron expressions; nil: UTC
	Log      *slog.Logger   // nil: nothing is logged
}

const backoffMax = time.Hour

// Scheduler runs tasks at their times.
type Scheduler struct {
	opts  Options
	log   *slog.Logger
	tasks []Task
}

// New returns a scheduler without tasks.
func New(o Options) (*Scheduler, error) {
	if o.Location == nil {
		o.Location = time.UTC
	}
	s := &Scheduler{opts: o, log: o.Log}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s, nil
}

// Add adds a task. It must not be called while Run runs.
func (s *Scheduler) Add(t Task) error {
	if t.Run == nil {
		return fmt.Errorf("task %s: nothing to run", t.Name)
	}
	for _, o := range s.tasks {
		if o.Name == t.Name {
			return fmt.Errorf("task %s: added twice", t.Name)
		}
	}
	if _, err := Next(t.Cron, s.opts.Location, time.Now()); err != nil {
		return fmt.Errorf("task %s: %w", t.Name, err)
	}
	s.tasks = append(s.tasks, t)
	return nil
}

// Next is the first time after a given one at which a cron expression is due.
func Next(expr string, loc *time.Location, after time.Time) (time.Time, error) {
	if loc == nil {
		loc = time.UTC
	}
	c := gocron.NewDefaultCron(false)
	if err := c.IsValid(expr, loc, after); err != nil {
		return time.Time{}, fmt.Errorf("cron %q: %w", expr, err)
	}
	return c.Next(after), nil
}

// Run runs the tasks at their times until ctx ends, then waits for those that are running: their context has ended
// too, so they stop where they safely can. The error is nil where ctx ended.
func (s *Scheduler) Run(ctx context.Context) error {
	cron, err := gocron.NewScheduler(gocron.WithLocation(s.opts.Location))
	if err != nil {
		return err
	}
	// gocron would wait for its jobs a bounded time only, so they are counted here.
	var running sync.WaitGroup
	for _, t := range s.tasks {
		busy := make(chan struct{}, 1)
		once := func(trigger string) {
			select {
			case busy <- struct{}{}:
			default:
				s.log.Warn("a task is still running at its next time; this time is left out", "task", t.Name)
				return
			}
			defer func() { <-busy }()
			s.once(ctx, t, trigger)
		}
		_, err := cron.NewJob(gocron.CronJob(t.Cron, false), gocron.NewTask(func() {
			if ctx.Err() != nil {
				return
			}
			running.Add(1)
			defer running.Done()
			once(TriggerCron)
		}), gocron.WithName(t.Name))
		if err != nil {
			return errors.Join(fmt.Errorf("task %s: %w", t.Name, err), cron.Shutdown())
		}
		if t.CatchUp && s.missed(t) {
			running.Go(func() { once(TriggerCatchUp) })
		}
	}
	cron.Start()
	<-ctx.Done()
	err = cron.Shutdown()
	running.Wait()
	if errors.Is(err, gocron.ErrStopSchedulerTimedOut) || errors.Is(err, gocron.ErrStopExecutorTimedOut) || errors.Is(err, gocron.ErrStopJobsTimedOut) {
		err = nil // the tasks have been waited for
	}
	return err
}

func (s *Scheduler) once(ctx context.Context, t Task, trigger string) {
	if err := do(ctx, s.opts.Dir, t, trigger); err != nil && ctx.Err() == nil {
		s.log.Error("a task failed", "task", t.Name, "error", err)
	}
}

// missed tells whether a time of the task has passed since it last ran. A task that never ran has missed nothing.
func (s *Scheduler) missed(t Task) bool {
	if s.opts.Dir == "" {
		return false
	}
	last, err := lastOf(s.opts.Dir, t.Name)
	if err != nil || last == nil {
		return false
	}
	next, err := Next(t.Cron, s.opts.Location, last.Started)
	return err == nil && next.Before(time.Now())
}

// Do runs a task now, with its retries, and records the run in dir ("": nowhere).
func Do(ctx context.Context, dir string, t Task) error { return do(ctx, dir, t, TriggerManual) }

func do(ctx context.Context, dir string, t Task, trigger string) error {
	run := newRun(t.Name, trigger)
	if err := run.save(dir); err != nil {
		return err
	}
	pause := t.Backoff
	var err error
	for try := 0; ; try++ {
		began := time.Now()
		run.Result = nil
		err = t.Run(ctx, run)
		a := Attempt{Started: began.UTC(), Ended: time.Now().UTC()}
		if err != nil {
			a.Error = t.text(err)
		}
		run.Attempts = append(run.Attempts, a)
		if err == nil || ctx.Err() != nil || try >= t.Retries || (t.Retryable != nil && !t.Retryable(err)) {
			break
		}
		run.Status, run.Error = StatusRetrying, t.text(err)
		if serr := run.save(dir); serr != nil {
			return errors.Join(err, serr)
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
		case <-timer.C:
		}
		if ctx.Err() != nil {
			break
		}
		pause = min(2*pause, backoffMax)
	}
	run.Ended = time.Now().UTC()
	run.Error = ""
	switch {
	case err == nil:
		run.Status = StatusOK
	case ctx.Err() != nil:
		run.Status, run.Error = StatusStopped, t.text(err)
	default:
		run.Status, run.Error = StatusFailed, t.text(err)
	}
	return errors.Join(err, run.save(dir))
}
