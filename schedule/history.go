package schedule

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// ErrNoRun is returned (wrapped, with the id) for a run that the history does not have.
var ErrNoRun = errors.New("no such run")

// runsMax bounds the history: older runs are forgotten.
const runsMax = 1000

// Status is how a run stands.
type Status string

// How a run may stand. A run whose process was killed stays as it stood.
const (
	StatusRunning  Status = "running"
	StatusRetrying Status = "retrying"
	StatusOK       Status = "ok"
	StatusFailed   Status = "failed"
	StatusStopped  Status = "stopped" // by somebody who ended the process
)

// What made a run begin.
const (
	TriggerManual  = "manual"
	TriggerCron    = "cron"
	TriggerCatchUp = "catch-up"
)

// Run is one run of a task, as the history keeps it.
type Run struct {
	ID       string          `json:"id"`
	Task     string          `json:"task"`
	Trigger  string          `json:"trigger"`
	Status   Status          `json:"status"`
	PID      int             `json:"pid"`
	Started  time.Time       `json:"started"`
	Ended    time.Time       `json:"ended,omitzero"`
	Attempts []Attempt       `json:"attempts"`
	Error    string          `json:"error,omitempty"`
	Result   json.RawMessage `json:"result,omitempty"`
}

// Attempt is one try of a run.
type Attempt struct {
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended"`
	Error   string    `json:"error,omitempty"`
}

func newRun(task, trigger string) *Run {
	now := time.Now().UTC()
	return &Run{
		// Ids sort by time, so that the newest runs are found without opening all.
		ID:   now.Format("20060102T150405.000000") + "-" + uuid.NewString()[:8],
		Task: task, Trigger: trigger, Status: StatusRunning, PID: os.Getpid(), Started: now, Attempts: []Attempt{},
	}
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
		err = os.Rename(f.Name(), filepath.Join(dir, r.ID+".json"))
	}
	if err != nil {
		return fmt.Errorf("run history: %w", err)
	}
	if r.Status == StatusRunning {
		return forget(dir)
	}
	return nil
}

// ids lists the runs of a history, newest first.
func ids(dir string) ([]string, error) {
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

// forget removes what lies beyond runsMax.
func forget(dir string) error {
	all, err := ids(dir)
	if err != nil || len(all) <= runsMax {
		return err
	}
	for _, id := range all[runsMax:] {
		if err := os.Remove(filepath.Join(dir, id+".json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("run history: %w", err)
		}
	}
	return nil
}

// List gives the newest runs of a history, newest first; n <= 0 gives all. A file that is no run is passed over.
func List(dir string, n int) ([]Run, error) {
	all, err := ids(dir)
	if err != nil {
		return nil, err
	}
	var out []Run
	for _, id := range all {
		if n > 0 && len(out) == n {
			break
		}
		r, err := Load(dir, id)
		if err != nil {
			continue
		}
		out = append(out, *r)
	}
	return out, nil
}

// Load gives one run of a history, by its id or an unambiguous beginning of it.
func Load(dir, id string) (*Run, error) {
	all, err := ids(dir)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, x := range all {
		if x == id {
			found = []string{x}
			break
		}
		if id != "" && (strings.HasPrefix(x, id) || strings.HasSuffix(x, "-"+id)) {
			found = append(found, x)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("%w: %s", ErrNoRun, id)
	case 1:
	default:
		return nil, fmt.Errorf("run %s: there are %d whose ids begin so", id, len(found))
	}
	data, err := os.ReadFile(filepath.Join(dir, found[0]+".json"))
	if err != nil {
		return nil, fmt.Errorf("run history: %w", err)
	}
	var r Run
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("run %s: %w", found[0], err)
	}
	return &r, nil
}

// lastOf gives the newest run of a task; nil if there is none.
func lastOf(dir, task string) (*Run, error) {
	all, err := ids(dir)
	if err != nil {
		return nil, err
	}
	for _, id := range all {
		if r, err := Load(dir, id); err == nil && r.Task == task {
			return r, nil
		}
	}
	return nil, nil
}
