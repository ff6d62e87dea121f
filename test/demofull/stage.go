package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// stage stands for the testing.TB that the helpers of tests want, in a program of its own: what they start ends with Close, and
// what they cannot go on without ends the play.
//
// NB: only the methods below are there; a helper that calls another one panics.
type stage struct {
	testing.TB
	dir    string // temporary folders are made below it
	ctx    context.Context
	cancel context.CancelFunc

	mu       sync.Mutex
	cleanups []func()
	failures []string
	folders  int
	closed   bool
}

func newStage(ctx context.Context, dir string) *stage {
	s := &stage{dir: dir}
	s.ctx, s.cancel = context.WithCancel(ctx)
	return s
}

// play runs f, in a goroutine that Fatal can end, and waits for its end or for that of the context. It gives what went wrong.
func (s *stage) play(f func()) error {
	done, whole := make(chan struct{}), false
	go func() {
		defer close(done)
		f()
		whole = true
	}()
	select {
	case <-done:
	case <-s.ctx.Done():
	}
	interrupted := s.ctx.Err()
	s.cancel()
	s.Close()
	sweep()
	<-done // what it waited for has ended, so that it ends too
	if interrupted != nil {
		return interrupted
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.failures) > 0 {
		return errors.New(strings.Join(s.failures, "\n"))
	}
	if !whole {
		return errors.New("the run ended before its last phase")
	}
	return nil
}

// Close runs what Cleanup was given, the newest first.
func (s *stage) Close() {
	for {
		s.mu.Lock()
		n := len(s.cleanups)
		if n == 0 {
			s.closed = true
			s.mu.Unlock()
			return
		}
		last := s.cleanups[n-1]
		s.cleanups = s.cleanups[:n-1]
		s.mu.Unlock()
		last()
	}
}

// Cleanup is testing.TB's; after Close f runs at once.
func (s *stage) Cleanup(f func()) {
	s.mu.Lock()
	closed := s.closed
	if !closed {
		s.cleanups = append(s.cleanups, f)
	}
	s.mu.Unlock()
	if closed {
		f()
	}
}

// Context is testing.TB's.
func (s *stage) Context() context.Context { return s.ctx }

// Name is testing.TB's.
func (s *stage) Name() string { return "demo-full" }

// Helper is testing.TB's.
func (s *stage) Helper() {}

// Setenv is testing.TB's; the variable stays set.
func (s *stage) Setenv(key, value string) {
	if err := os.Setenv(key, value); err != nil {
		s.Fatal(err)
	}
}

// TempDir is testing.TB's; the folder stays.
func (s *stage) TempDir() string {
	s.mu.Lock()
	s.folders++
	dir := filepath.Join(s.dir, fmt.Sprintf("%02d", s.folders))
	s.mu.Unlock()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		s.Fatal(err)
	}
	return dir
}

// Log is testing.TB's.
func (s *stage) Log(args ...any) { fmt.Print(fmt.Sprintln(args...)) }

// Logf is testing.TB's.
func (s *stage) Logf(format string, args ...any) { s.Log(fmt.Sprintf(format, args...)) }

// Error is testing.TB's.
func (s *stage) Error(args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = append(s.failures, strings.TrimSpace(fmt.Sprintln(args...)))
}

// Errorf is testing.TB's.
func (s *stage) Errorf(format string, args ...any) { s.Error(fmt.Sprintf(format, args...)) }

// Failed is testing.TB's.
func (s *stage) Failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.failures) > 0
}

// FailNow is testing.TB's.
func (s *stage) FailNow() { runtime.Goexit() }

// Fatal is testing.TB's.
func (s *stage) Fatal(args ...any) {
	s.Error(args...)
	s.FailNow()
}

// Fatalf is testing.TB's.
func (s *stage) Fatalf(format string, args ...any) { s.Fatal(fmt.Sprintf(format, args...)) }

// Skip ends the play: here every part must be there.
func (s *stage) Skip(args ...any) {
	s.Fatal(strings.TrimSpace(fmt.Sprintln(args...)) + " (make setup installs what the registries have)")
}
