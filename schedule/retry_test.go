package schedule

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRetryOfARun: a run that failed is tried again in its own record, what runs after its task becomes due, and a retry does
// not wait for a run that is under way.
func TestRetryOfARun(t *testing.T) {
	dir := t.TempDir()
	fail, hold, held := errors.New("not yet"), make(chan struct{}), make(chan struct{})
	var wait bool
	s := New(Options{Dir: dir})
	for _, task := range []Task{
		{Name: "batch", Run: func(context.Context, *Run) error {
			if wait {
				close(held)
				<-hold
			}
			return fail
		}},
		{Name: "maintenance", After: []string{"batch"}, Run: func(context.Context, *Run) error { return nil }},
	} {
		if err := s.Add(task); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Now(t.Context(), "batch"); !errors.Is(err, fail) {
		t.Fatal(err)
	}
	runs, err := List(dir, 0)
	if err != nil || len(runs) != 1 || runs[0].Status != StatusFailed {
		t.Fatalf("%+v, %v", runs, err)
	}
	fail, wait = nil, true
	began, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- s.Retry(t.Context(), &runs[0], func() { close(began) }) }()
	<-began
	if r, err := Load(dir, runs[0].ID); err != nil || r.Status != StatusRunning {
		t.Errorf("once a retry has begun: %+v, %v", r, err)
	}
	<-held
	if err := s.Retry(t.Context(), &runs[0], func() { t.Error("a second retry began") }); !errors.Is(err, ErrBusy) {
		t.Errorf("a retry beside another one: %v", err)
	}
	close(hold)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	runs, err = List(dir, 0)
	if err != nil || len(runs) != 1 || runs[0].Status != StatusOK || len(runs[0].Attempts) != 2 {
		t.Errorf("after the retry: %+v, %v", runs, err)
	}
	if len(s.task("maintenance").due) != 1 {
		t.Error("what runs after the task is not due")
	}
	begins := func() { t.Error("it began") }
	if err := s.Retry(t.Context(), &Run{ID: "x", Task: "nosuch"}, begins); !errors.Is(err, ErrNoTask) {
		t.Errorf("a run of a task that is none: %v", err)
	}
	if err := s.Retry(t.Context(), &runs[0], begins); !errors.Is(err, ErrNotRetried) {
		t.Errorf("a run that has succeeded: %v", err)
	}
	// What another command did is not what the task does.
	_, err = Do(t.Context(), Task{Name: "batch", Command: "cauce run batch --reprocess", Run: func(context.Context, *Run) error { return errors.New("no") }}, DoOptions{Dir: dir, ID: "other"})
	if err == nil {
		t.Fatal("it succeeded")
	}
	r, err := Load(dir, "other")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Retry(t.Context(), r, begins); !errors.Is(err, ErrNotRetried) || !strings.Contains(err.Error(), "--reprocess") {
		t.Errorf("a run of another command: %v", err)
	}
}

// TestWhoIsToldOfAnInterruptedRun: of a task that the scheduler begins by itself an alert tells that its process died; a run
// that somebody asked for has somebody who saw it. The history is told of both.
func TestWhoIsToldOfAnInterruptedRun(t *testing.T) {
	for _, c := range []struct {
		task Task
		told int
	}{{Task{Name: "batch", Cron: "0 1 1 1 *"}, 1}, {Task{Name: "batch"}, 0}} {
		dir := t.TempDir()
		dead := newRun("batch", DoOptions{Dir: dir, Trigger: TriggerManual})
		if err := dead.save(dir); err != nil { // its log is locked by nobody
			t.Fatal(err)
		}
		var told []Event
		s := New(Options{Dir: dir, Notify: func(e Event, _ Run) { told = append(told, e) }})
		c.task.Run = func(context.Context, *Run) error { return nil }
		if err := s.Add(c.task); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		stop()
		if err := s.Run(ctx); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(dir, dead.file+".json"))
		if err != nil || !strings.Contains(string(data), `"interrupted"`) {
			t.Errorf("cron %q: the history has %s, %v", c.task.Cron, data, err)
		}
		if len(told) != c.told {
			t.Errorf("cron %q: told %v", c.task.Cron, told)
		}
	}
}

// TestLogSince: a log that grows is read piece by piece, each line once and whole.
func TestLogSince(t *testing.T) {
	dir := t.TempDir()
	r := &Run{ID: "a", file: "a"}
	path := filepath.Join(dir, "a.log")
	if text, _, next, err := LogSince(dir, r, 0, 100); err != nil || len(text) != 0 || next != 0 {
		t.Fatalf("no log: %q, %d, %v", text, next, err)
	}
	var all, got strings.Builder
	var at int64
	for i, piece := range []string{"one\n", "tw", "o\nthree\n", strings.Repeat("x", 150), "\nfour\n"} {
		all.WriteString(piece)
		if err := os.WriteFile(path, []byte(all.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		for {
			text, begin, next, err := LogSince(dir, r, at, 100)
			if err != nil || begin != at || next != at+int64(len(text)) {
				t.Fatalf("piece %d: %q from %d to %d, %v", i, text, begin, next, err)
			}
			if len(text) == 0 {
				break
			}
			got.Write(text)
			at = next
		}
	}
	if got.String() != all.String() {
		t.Errorf("%q, want %q", got.String(), all.String())
	}
	text, begin, next, err := LogSince(dir, r, 0, 10)
	if err != nil || string(text) != "four\n" || next != int64(all.Len()) || begin != next-5 {
		t.Errorf("the end of a long log: %q from %d to %d, %v", text, begin, next, err)
	}
}
