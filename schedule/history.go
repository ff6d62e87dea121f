package schedule

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
)

// ErrNoRun is returned (wrapped, with the id) for a run that the history does not have.
var ErrNoRun = errors.New("no such run")

// runsMax bounds the history: older runs are forgotten, but for the last of each task.
const runsMax = 1000

// Status is how a run stands.
type Status string

// How a run may stand.
const (
	StatusRunning     Status = "running"
	StatusRetrying    Status = "retrying"
	StatusOK          Status = "ok"
	StatusFailed      Status = "failed"
	StatusStopped     Status = "stopped"     // by somebody who ended the process
	StatusInterrupted Status = "interrupted" // its process died
)

// What made a run begin.
const (
	TriggerManual  = "manual"
	TriggerCron    = "cron"
	TriggerCatchUp = "catch-up"
	TriggerAfter   = "after" // the tasks that it runs after had succeeded
)

// Run is one run of a task, as the history keeps it.
type Run struct {
	ID       string          `json:"id"`
	Task     string          `json:"task"`
	Trigger  string          `json:"trigger"`
	Command  string          `json:"command,omitempty"` // see Task
	Status   Status          `json:"status"`
	PID      int             `json:"pid"`
	Started  time.Time       `json:"started"`
	Ended    time.Time       `json:"ended,omitzero"`
	Attempts []Attempt       `json:"attempts"`
	ExitCode *int            `json:"exit_code,omitempty"` // of the last attempt
	Error    string          `json:"error,omitempty"`
	Result   json.RawMessage `json:"result,omitempty"`

	// Log is where the run writes what it does.
	Log *slog.Logger `json:"-"`
	// Repeated tells that this run had succeeded before it was asked for once more.
	Repeated bool `json:"-"`

	file string // name of its files, without .json and .log
}

// Attempt is one try of a run.
type Attempt struct {
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended"`
	Error   string    `json:"error,omitempty"`
}

func newRun(task string, o DoOptions) *Run {
	now := time.Now().UTC()
	id := o.ID
	// File names sort by time, so that the newest runs are found without opening all.
	stamp := now.Format("20060102T150405.000000")
	if id == "" {
		id = stamp + "-" + uuid.NewString()[:8]
	}
	r := &Run{ID: id, Task: task, Trigger: o.Trigger, Status: StatusRunning, PID: os.Getpid(), Started: now, Attempts: []Attempt{}, file: id}
	if o.ID != "" {
		r.file = stamp + "-" + o.ID
	}
	return r
}

// save writes the run into dir, whole or not at all.
func (r *Run) save(dir string) error {
	if dir == "" {
		return nil
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("run %s: %w", r.ID, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("run history: %w", err)
	}
	f, err := os.CreateTemp(dir, ".run-*")
	if err != nil {
		return fmt.Errorf("run history: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(append(data, '\n'))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, r.file+".json"))
	}
	if err != nil {
		return fmt.Errorf("run history: %w", err)
	}
	if len(r.Attempts) == 0 {
		return forget(dir)
	}
	return nil
}

// files lists the names of a history's runs, newest first.
func files(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("run history: %w", err)
	}
	var out []string
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), ".json"); ok && !strings.HasPrefix(id, ".") {
			out = append(out, id)
		}
	}
	slices.SortFunc(out, func(a, b string) int { return cmp.Compare(b, a) })
	return out, nil
}

// forget removes what lies beyond runsMax. The last run of a task, which may not have ended yet, says what its next one is due
// for, however often others run.
func forget(dir string) error {
	all, err := files(dir)
	if err != nil || len(all) <= runsMax {
		return err
	}
	last := map[string]bool{}
	for _, name := range all[runsMax:] {
		if r, err := read(dir, name); err == nil && !last[r.Task] && (r.Command == "" || r.unfinished()) {
			last[r.Task] = r.Command == ""
			continue
		}
		for _, end := range []string{".log", ".json"} {
			if err := os.Remove(filepath.Join(dir, name+end)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("run history: %w", err)
			}
		}
	}
	return nil
}

// List gives the newest runs of a history, newest first; n <= 0 gives all. A file that is no run is passed over.
func List(dir string, n int) ([]Run, error) {
	all, err := files(dir)
	if err != nil {
		return nil, err
	}
	var out []Run
	for _, name := range all {
		if n > 0 && len(out) == n {
			break
		}
		r, err := read(dir, name)
		if err != nil {
			continue
		}
		out = append(out, *r)
	}
	return out, nil
}

// Load gives one run of a history, by its id or an unambiguous beginning or end of it.
func Load(dir, id string) (*Run, error) {
	all, err := files(dir)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, name := range all {
		_, own, _ := strings.Cut(name, "-")
		if name == id || own == id {
			found = []string{name}
			break
		}
		if id != "" && (strings.HasPrefix(name, id) || strings.HasPrefix(own, id) || strings.HasSuffix(name, "-"+id)) {
			found = append(found, name)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("%w: %s", ErrNoRun, id)
	case 1:
		return read(dir, found[0])
	}
	return nil, fmt.Errorf("run %s: there are %d whose ids begin or end so", id, len(found))
}

// loadExact gives the run of an id, whole.
func loadExact(dir, id string) (*Run, error) {
	all, err := files(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range all {
		if _, own, _ := strings.Cut(name, "-"); name != id && own != id {
			continue
		}
		r, err := read(dir, name)
		if err != nil || r.ID == id { // else only the end of its id is the same
			return r, err
		}
	}
	return nil, fmt.Errorf("%w: %s", ErrNoRun, id)
}

// read reads one run. A run that its record calls unfinished and that nobody runs is an interrupted one.
func read(dir, name string) (*Run, error) {
	data, err := os.ReadFile(filepath.Join(dir, name+".json"))
	if err != nil {
		return nil, fmt.Errorf("run history: %w", err)
	}
	r := Run{file: name}
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("run %s: %w", name, err)
	}
	if !r.unfinished() {
		return &r, nil
	}
	f, err := os.Open(filepath.Join(dir, name+".log"))
	if err == nil {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
		defer f.Close()
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		r.Status = StatusInterrupted
		r.Error = fmt.Sprintf("process %d ended before the run did", r.PID)
	}
	return &r, nil
}

func (r *Run) unfinished() bool { return r.Status == StatusRunning || r.Status == StatusRetrying }

// markInterrupted writes down which runs of a task lost their process, and returns those that nobody knew of.
func markInterrupted(dir, task string) ([]Run, error) {
	all, err := files(dir)
	if err != nil {
		return nil, err
	}
	var out []Run
	for _, name := range all {
		data, err := os.ReadFile(filepath.Join(dir, name+".json"))
		if err != nil || !bytes.Contains(data, []byte(`"status": "r`)) { // neither running nor retrying
			continue
		}
		r, err := read(dir, name)
		if err != nil || r.Task != task || r.Status != StatusInterrupted {
			continue
		}
		r.Ended = r.Started
		if info, err := os.Stat(filepath.Join(dir, name+".log")); err == nil {
			r.Ended = info.ModTime().UTC() // the last that was heard of it
		}
		if err := r.save(dir); err != nil {
			return out, err
		}
		out = append(out, *r)
	}
	return out, nil
}

// LogSince gives what a run logged from a byte of its log on, in whole lines and at most bytesMax bytes, and the byte that
// follows. Where more than bytesMax bytes precede the log's end, a from of 0 begins so far before it; begin is where the text
// does.
func LogSince(dir string, r *Run, from, bytesMax int64) (text []byte, begin, next int64, err error) {
	f, err := os.Open(filepath.Join(dir, r.file+".log"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, from, from, nil
	}
	if err != nil {
		return nil, 0, 0, fmt.Errorf("log of run %s: %w", r.ID, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, 0, fmt.Errorf("log of run %s: %w", r.ID, err)
	}
	cut := from == 0 && info.Size() > bytesMax
	if cut {
		from = info.Size() - bytesMax
	}
	text, err = io.ReadAll(io.NewSectionReader(f, from, max(0, min(bytesMax, info.Size()-from))))
	if err != nil {
		return nil, 0, 0, fmt.Errorf("log of run %s: %w", r.ID, err)
	}
	if cut {
		first := bytes.IndexByte(text, '\n') + 1
		from, text = from+int64(first), text[first:]
	}
	// A line that is being written comes with the next call; one longer than bytesMax comes in parts.
	if last := bytes.LastIndexByte(text, '\n') + 1; last > 0 || int64(len(text)) < bytesMax {
		text = text[:last]
	}
	return text, from, from + int64(len(text)), nil
}

// LogOf gives what a run logged, at most the last bytesMax bytes, from the beginning of a line.
func LogOf(dir string, r *Run, bytesMax int64) ([]byte, error) {
	f, err := os.Open(filepath.Join(dir, r.file+".log"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("log of run %s: %w", r.ID, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("log of run %s: %w", r.ID, err)
	}
	from := max(0, info.Size()-bytesMax)
	b, err := io.ReadAll(io.NewSectionReader(f, from, info.Size()-from))
	if err != nil {
		return nil, fmt.Errorf("log of run %s: %w", r.ID, err)
	}
	if from > 0 {
		_, b, _ = bytes.Cut(b, []byte("\n"))
	}
	return b, nil
}

// lastOf gives the newest run of a task that did what the task does (see Task.Command); nil if there is none.
func lastOf(dir, task string) (*Run, error) {
	all, err := files(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range all {
		if r, err := read(dir, name); err == nil && r.Task == task && r.Command == "" {
			return r, nil
		}
	}
	return nil, nil
}
