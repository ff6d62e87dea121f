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
	if err := s.Retry(t.Context(), &Run{ID: "x", Task: "nosuch"}, func() {}); !errors.Is(err, ErrNoTask) {
		t.Errorf("a run of a task that is none: %v", err)
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
