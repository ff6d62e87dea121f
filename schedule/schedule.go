// Package schedule says when tasks run: at the times of a cron expression in a time zone, or after other tasks have
// succeeded; never twice at once, not even in two processes; again after a failure, with growing pauses; and once more at
// the start if a time passed, or a process died, while nothing was running. It keeps a history of runs as files, with
// their logs, so that it survives restarts. It stands between cmd/cauce, which knows what a task does, and the clock.
package schedule

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// Task is something that runs by itself.
type Task struct {
	Name string
	// Cron says when it runs: five fields, in Location; nil: UTC. A task has either Cron or After, or neither if it runs
	// only when it is asked to.
	Cron     string
	Location *time.Location
	// After are tasks: it runs once each of them has succeeded since it last began.
	After []string
	// Retries is how often a failed run is tried again; Backoff is the pause before the first retry and doubles with
	// each, up to an hour. Retryable says which errors are worth it; nil: all.
	Retries   int
	Backoff   time.Duration
	Retryable func(error) bool
	// Timeout bounds each try; 0: nothing does. The try's context ends then, and its error is ErrTimeout.
	Timeout time.Duration
	// CatchUp runs the task once when the scheduler starts, if it was due since its last run or if that did not come to its
	// end. However many times have passed, one run does the work of all.
	CatchUp bool
	// Command is how somebody asked for it where that is not what the scheduler's task of this name does, such as
	// "cauce run batch --reprocess". The history keeps it, and such a run is not retried; "": it is what the task does.
	Command string
	// Run does the work. What it sets in Run.Result is kept in the history, as is what it writes to Run.Log.
	Run func(ctx context.Context, run *Run) error
	// ExitCode is the code of an error for the history; nil: none is kept.
	ExitCode func(error) int
	// Redact hides what must not be written down from the texts of errors and logs; nil: nothing is hidden.
	Redact func(string) string
}

// redact hides what must not be written down.
func (t Task) redact(s string) string {
	if t.Redact == nil {
		return s
	}
	return t.Redact(s)
}

// Options shape a Scheduler. The zero value works, without a history.
type Options struct {
	Dir string       // folder of the run history; "": none is kept
	Log *slog.Logger // nil: nothing is logged
	// Notify is told of each run that failed for good, of each that was interrupted, and of the first that succeeded
	// after one of these, several times at once if need be. nil: nobody is. Run waits for it.
	Notify func(Event, Run)
}

// Event is a reason to tell somebody about a run.
type Event string

// Events.
const (
	EventFailed      Event = "failed"
	EventInterrupted Event = "interrupted"
	EventRecovered   Event = "recovered"
)

// lookEvery bounds how long the scheduler sleeps: the machine may have slept too, or its clock may have been set.
const lookEvery = time.Minute

// Scheduler runs tasks at their times.
type Scheduler struct {
	opts  Options
	log   *slog.Logger
	tasks []*scheduled

	mu      sync.Mutex // guards the times of all tasks
	telling sync.WaitGroup
}

// scheduled is a task and how it stands.
type scheduled struct {
	Task
	due   chan struct{} // has a value if the tasks of After have succeeded
	began time.Time     // of the last run
	ended time.Time     // of the last run that succeeded
	bad   bool          // the last run did not succeed
}

// New returns a scheduler without tasks.
func New(o Options) *Scheduler {
	s := &Scheduler{opts: o, log: o.Log}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s
}

// Add adds a task; those of After must have been added before. It must not be called while Run runs.
func (s *Scheduler) Add(t Task) error {
	switch {
	case t.Run == nil:
		return fmt.Errorf("task %s: nothing to run", t.Name)
	case s.task(t.Name) != nil:
		return fmt.Errorf("task %s: added twice", t.Name)
	case t.Cron != "" && len(t.After) > 0:
		return fmt.Errorf("task %s: it has both a time and tasks to run after", t.Name)
	}
	if t.Cron != "" {
		if _, err := Next(t.Cron, t.Location, time.Now()); err != nil {
			return fmt.Errorf("task %s: %w", t.Name, err)
		}
	}
	for _, name := range t.After {
		if s.task(name) == nil {
			return fmt.Errorf("task %s: it runs after task %s, which was not added before it", t.Name, name)
		}
	}
	s.tasks = append(s.tasks, &scheduled{Task: t, due: make(chan struct{}, 1)})
	return nil
}

func (s *Scheduler) task(name string) *scheduled {
	for _, t := range s.tasks {
		if t.Name == name {
			return t
		}
	}
	return nil
}

// Run runs the tasks at their times until ctx ends, then waits for those that are running: their context has ended
// too, so they stop where they safely can.
func (s *Scheduler) Run(ctx context.Context) error {
	if s.opts.Dir != "" {
		for _, t := range s.tasks {
			if err := s.remember(t); err != nil {
				return err
			}
		}
	}
	var running sync.WaitGroup
	for _, t := range s.tasks {
		running.Go(func() { s.loop(ctx, t) })
	}
	running.Wait()
	s.telling.Wait()
	return nil
}

// remember takes how a task stands from the history, where runs are marked whose process died.
func (s *Scheduler) remember(t *scheduled) error {
	dead, err := markInterrupted(s.opts.Dir, t.Name)
	if err != nil {
		return err
	}
	for _, r := range dead {
		s.log.Warn("a run was interrupted: its process ended before it did", "task", t.Name, "run", r.ID, "pid", r.PID)
		if t.Cron != "" || len(t.After) > 0 { // who runs a task by hand, or by another scheduler, has seen it or is told by that
			s.tell(EventInterrupted, r)
		}
	}
	runs, err := List(s.opts.Dir, 0)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range slices.Backward(runs) { // oldest first
		if r.Task == t.Name && r.Command == "" { // any other is not what is due
			t.stands(r)
		}
	}
	return nil
}

// stands takes a run of the task into account.
func (t *scheduled) stands(r Run) {
	if r.Started.After(t.began) {
		t.began = r.Started
	}
	switch r.Status {
	case StatusOK:
		t.bad = false
		if r.Ended.After(t.ended) {
			t.ended = r.Ended
		}
	case StatusFailed, StatusInterrupted:
		t.bad = true
	case StatusRunning, StatusRetrying, StatusStopped:
	}
}

// missed tells why a task should run at the start of the scheduler; "" if it should not. A task that never ran has
// missed nothing.
func (s *Scheduler) missed(t *scheduled) string {
	if !t.CatchUp {
		return ""
	}
	if s.opts.Dir != "" {
		if last, err := lastOf(s.opts.Dir, t.Name); err == nil && last != nil && (last.Status == StatusInterrupted || last.Status == StatusStopped) {
			return "its last run did not come to its end"
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case len(t.After) > 0:
		if s.isDue(t) {
			return "what it runs after has succeeded"
		}
	case t.Cron != "" && !t.began.IsZero():
		if next, err := Next(t.Cron, t.Location, t.began); err == nil && next.Before(time.Now()) {
			return "it was due at " + next.Format(time.RFC3339)
		}
	}
	return ""
}

// isDue tells whether all tasks of After have succeeded since the task last began; s.mu is held.
func (s *Scheduler) isDue(t *scheduled) bool {
	for _, name := range t.After {
		if p := s.task(name); p.ended.IsZero() || !p.ended.After(t.began) {
			return false
		}
	}
	return len(t.After) > 0
}

// loop runs one task until ctx ends.
func (s *Scheduler) loop(ctx context.Context, t *scheduled) {
	if why := s.missed(t); why != "" && ctx.Err() == nil {
		s.log.Info("a task catches up", "task", t.Name, "because", why)
		_ = s.run(ctx, t, TriggerCatchUp)
	}
	if t.Cron == "" {
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.due:
				_ = s.run(ctx, t, TriggerAfter)
			}
		}
	}
	for {
		at, err := Next(t.Cron, t.Location, time.Now())
		if err != nil || !sleepUntil(ctx, at) {
			return
		}
		_ = s.run(ctx, t, TriggerCron)
		if next, err := Next(t.Cron, t.Location, at); err == nil && next.Before(time.Now()) && ctx.Err() == nil {
			s.log.Warn("a task was still running at its next time; that time is left out", "task", t.Name, "due", next.Format(time.RFC3339))
		}
	}
}

// sleepUntil waits for a time of the wall clock; false if ctx ended first.
func sleepUntil(ctx context.Context, at time.Time) bool {
	at = at.Round(0) // compare readings of the clock, not time that passed
	for {
		left := at.Sub(time.Now().Round(0))
		if left <= 0 {
			return ctx.Err() == nil
		}
		if !pause(ctx, min(left, lookEvery)) {
			return false
		}
	}
}

// pause waits; false if ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// Now runs a task once, at once, or when the run that is under way has ended. It may be called beside Run.
func (s *Scheduler) Now(ctx context.Context, name string) error {
	t := s.task(name)
	if t == nil {
		var names []string
		for _, t := range s.tasks {
			names = append(names, t.Name)
		}
		return fmt.Errorf("task %s: there is none of that name; there are %s", name, strings.Join(names, ", "))
	}
	return s.run(ctx, t, TriggerManual)
}

// run runs a task, and lets those begin that run after it. Its error is logged, and in the history, already.
func (s *Scheduler) run(ctx context.Context, t *scheduled, trigger string) error {
	s.mu.Lock()
	t.began = time.Now()
	s.mu.Unlock()
	return s.do(ctx, t, t.Task, DoOptions{Trigger: trigger})
}

// ErrBusy is returned (wrapped, with the task) where a run does not begin because another one of its task is under way.
var ErrBusy = errors.New("a run of this task is under way")

// ErrNoTask is returned (wrapped, with the name) for a run whose task the scheduler does not have.
var ErrNoTask = errors.New("there is no such task")

// ErrNotRetried is returned (wrapped, with the reason) for a run that cannot be tried again.
var ErrNotRetried = errors.New("it cannot be tried again")

// Retry tries a run once more that has ended without success, in its own record, and calls began when the history says that
// it runs. Unlike other runs it does not wait for one that is under way: that is ErrBusy. It may be called beside Run.
func (s *Scheduler) Retry(ctx context.Context, r *Run, began func()) error {
	t := s.task(r.Task)
	switch {
	case t == nil:
		return fmt.Errorf("task %s: %w", r.Task, ErrNoTask)
	case r.Command != "":
		return fmt.Errorf("run %s: %w: it was %q, which is not what the task %s does; run that command once more", r.ID, ErrNotRetried, r.Command, r.Task)
	case r.unfinished() || r.Status == StatusOK:
		return fmt.Errorf("run %s: %w: it is %s, and only what ended without success is", r.ID, ErrNotRetried, r.Status)
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	task := t.Task
	task.Run = func(ctx context.Context, run *Run) error {
		s.mu.Lock()
		t.began = time.Now()
		s.mu.Unlock()
		began()
		return t.Task.Run(ctx, run)
	}
	err := s.do(ctx, t, task, DoOptions{Trigger: TriggerManual, ID: r.ID, Waiting: func(string) { stop(ErrBusy) }})
	if errors.Is(context.Cause(ctx), ErrBusy) {
		return fmt.Errorf("task %s: %w", r.Task, ErrBusy)
	}
	return err
}

// do runs a task that a scheduled one stands for.
func (s *Scheduler) do(ctx context.Context, t *scheduled, task Task, o DoOptions) error {
	o.Dir, o.Log = s.opts.Dir, s.log
	r, err := Do(ctx, task, o)
	if err != nil && ctx.Err() == nil {
		s.log.Error("a task failed", "task", t.Name, "error", t.redact(err.Error()))
	}
	if r == nil {
		if err == nil || ctx.Err() != nil || o.ID != "" { // who asked for a run by its id has the error
			return err
		}
		r = task.notBegun(o, err)
	}
	s.mu.Lock()
	wasBad := t.bad
	t.stands(*r)
	if r.Status == StatusOK {
		for _, o := range s.tasks {
			if slices.Contains(o.After, t.Name) && s.isDue(o) {
				select {
				case o.due <- struct{}{}:
				default:
				}
			}
		}
	}
	s.mu.Unlock()
	switch {
	case r.Status == StatusFailed:
		s.tell(EventFailed, *r)
	case r.Status == StatusOK && wasBad:
		s.tell(EventRecovered, *r)
	}
	return err
}

// notBegun is a run that failed before it was one, such as for a disk that is full. The history does not have it, so somebody
// must be told.
func (t Task) notBegun(o DoOptions, err error) *Run {
	r := newRun(t.Name, o)
	r.Status, r.Ended, r.Error = StatusFailed, r.Started, t.redact(err.Error())
	if t.ExitCode != nil {
		code := t.ExitCode(err)
		r.ExitCode = &code
	}
	return r
}

// tell tells somebody, beside the work.
func (s *Scheduler) tell(e Event, r Run) {
	if s.opts.Notify != nil {
		s.telling.Go(func() { s.opts.Notify(e, r) })
	}
}

// ErrTimeout is returned (wrapped, with the time) for a try that did not end in time.
var ErrTimeout = errors.New("it did not end in time")
