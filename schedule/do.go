package schedule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

const (
	backoffMax  = time.Hour
	lockEvery   = 100 * time.Millisecond // how often another process's lock is tried
	logBytesMax = 16 << 20               // of one run
)

// DoOptions say how a task is run once. The zero value records nothing.
type DoOptions struct {
	Dir     string // folder of the run history; "": none is kept
	Trigger string // "": TriggerManual
	// ID is the run's, as an orchestrator knows it. A run that the history has as succeeded is not repeated; one that did not
	// succeed goes on in its record. "": a new one.
	ID  string
	Log *slog.Logger // gets what the run logs as well; nil: only the history does
	// Waiting is told that another process runs the task, and that this one waits until it has ended; nil: nobody is.
	Waiting func(pid string)
}

var goodID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.:~+@=-]{0,199}$`)

// CheckID says why an id cannot be a run's.
func CheckID(id string) error {
	if !goodID.MatchString(id) {
		return fmt.Errorf("run id %q: it may have up to 200 letters, digits and _ . : ~ + @ = -, and begins with a letter or digit", id)
	}
	return nil
}

// Do runs a task now, with its retries, and records the run. It waits for another process that runs the same task. The
// run is nil where there was none. Run.Repeated tells that an earlier run of the same id stands for this one.
func Do(ctx context.Context, t Task, o DoOptions) (*Run, error) {
	if o.Trigger == "" {
		o.Trigger = TriggerManual
	}
	unlock, err := lockTask(ctx, t.Name, o)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if o.Dir != "" {
		if _, err := markInterrupted(o.Dir, t.Name); err != nil {
			return nil, err
		}
	}
	run := newRun(t.Name, o)
	run.Command = t.Command
	if o.ID != "" {
		if err := CheckID(o.ID); err != nil {
			return nil, err
		}
		switch earlier, err := loadExact(o.Dir, o.ID); {
		case errors.Is(err, ErrNoRun):
		case err != nil:
			return nil, err
		case earlier.Task != t.Name:
			return nil, fmt.Errorf("run %s: it is one of task %s, not of %s", o.ID, earlier.Task, t.Name)
		case earlier.Status == StatusOK:
			earlier.Repeated = true
			return earlier, nil
		default:
			run.file, run.Started, run.Attempts = earlier.file, earlier.Started, earlier.Attempts
		}
	}
	// The log is locked before anybody can read that the run has begun.
	closeLog, err := run.openLog(o, t.redact)
	if err != nil {
		return nil, err
	}
	defer closeLog()
	if err := run.save(o.Dir); err != nil {
		return nil, err
	}
	err = t.tries(ctx, run, o.Dir)
	run.Ended, run.Error = time.Now().UTC(), ""
	switch {
	case err == nil:
		run.Status = StatusOK
		run.Log.Info("the run succeeded")
	case ctx.Err() != nil:
		run.Status, run.Error = StatusStopped, t.redact(err.Error())
		run.Log.Info("the run was stopped")
	default:
		run.Status, run.Error = StatusFailed, t.redact(err.Error())
		run.Log.Info("the run failed", "error", err)
	}
	return run, errors.Join(err, run.save(o.Dir))
}

// tries runs the task until it succeeds or is not worth another try.
func (t Task) tries(ctx context.Context, run *Run, dir string) error {
	wait := t.Backoff
	for try := 0; ; try++ {
		began := time.Now()
		run.Result, run.Status, run.ExitCode = nil, StatusRunning, nil
		run.Log.Info("a try begins", "task", t.Name, "run", run.ID, "try", len(run.Attempts)+1, "trigger", run.Trigger)
		err := t.once(ctx, run)
		a := Attempt{Started: began.UTC(), Ended: time.Now().UTC()}
		if t.ExitCode != nil {
			code := t.ExitCode(err)
			run.ExitCode = &code
		}
		if err != nil {
			a.Error = t.redact(err.Error())
		}
		run.Attempts = append(run.Attempts, a)
		if err == nil || ctx.Err() != nil || try >= t.Retries || (t.Retryable != nil && !t.Retryable(err)) {
			return err
		}
		run.Status, run.Error = StatusRetrying, a.Error
		run.Log.Info("the try failed", "error", err, "again_in", wait.String())
		if serr := run.save(dir); serr != nil {
			return errors.Join(err, serr)
		}
		if !pause(ctx, wait) {
			return err
		}
		wait = min(2*wait, backoffMax)
	}
}

// once is one try, in bounded time.
func (t Task) once(ctx context.Context, run *Run) error {
	if t.Timeout <= 0 {
		return t.Run(ctx, run)
	}
	limited, cancel := context.WithTimeout(ctx, t.Timeout)
	defer cancel()
	err := t.Run(limited, run)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("%w: %v (%w)", ErrTimeout, t.Timeout, err)
	}
	return err
}

// lockTask makes this process the only one that runs the task, until unlock is called. It waits for the others.
func lockTask(ctx context.Context, task string, o DoOptions) (unlock func(), err error) {
	if o.Dir == "" {
		return func() {}, nil
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("run history: %w", err)
	}
	path := filepath.Join(o.Dir, "."+task+".lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("run history: %w", err)
	}
	for told := false; ; {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if !told && o.Waiting != nil {
			holder, _ := io.ReadAll(io.NewSectionReader(f, 0, 32))
			o.Waiting(strings.TrimSpace(string(holder)))
		}
		told = true
		if !pause(ctx, lockEvery) {
			_ = f.Close()
			return nil, fmt.Errorf("task %s: another process runs it: %w", task, ctx.Err())
		}
	}
	// The lock ends with the process, however that ends; the number is only for those who wait.
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	}
	return func() { _ = f.Close() }, nil
}

// openLog begins the run's log. While it is open it is locked: that is how others see that the run's process lives.
func (r *Run) openLog(o DoOptions, redact func(string) string) (closeLog func(), err error) {
	parent := slog.Handler(slog.DiscardHandler)
	if o.Log != nil {
		parent = o.Log.Handler()
	}
	if o.Dir == "" {
		r.Log = slog.New(parent)
		return func() {}, nil
	}
	f, err := os.OpenFile(filepath.Join(o.Dir, r.file+".log"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("run history: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("log of run %s: %w", r.ID, err)
	}
	own := slog.NewTextHandler(&logFile{f: f, redact: redact}, &slog.HandlerOptions{Level: slog.LevelInfo})
	r.Log = slog.New(slog.NewMultiHandler(own, parent))
	return func() { _ = f.Close() }, nil
}

// logFile is a log of bounded size, one write a line.
type logFile struct {
	f      *os.File
	redact func(string) string
	n      int
}

func (l *logFile) Write(b []byte) (int, error) {
	if l.n > logBytesMax {
		return len(b), nil
	}
	text := l.redact(string(b))
	if l.n += len(text); l.n > logBytesMax {
		text = "the log is full; the rest is left out\n"
	}
	if _, err := l.f.WriteString(text); err != nil {
		return 0, err
	}
	return len(b), nil
}

// SetResult keeps a value as the run's result; one that is no JSON is left out.
func (r *Run) SetResult(v any) {
	r.Result = nil
	if b, err := json.Marshal(v); err == nil {
		r.Result = b
	}
}
