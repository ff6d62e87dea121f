package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/testscale"
)

// TestWholeArchitecture is `make demo-full` as a test, for make soak.
func TestWholeArchitecture(t *testing.T) {
	if testscale.Count(t, "demo-full") == 0 {
		t.Log("only make soak and make demo-full bring up the whole architecture")
		return
	}
	adoptOrphans()
	t.Cleanup(sweep)
	r, o := newReport(os.Stdout), options{dir: t.TempDir(), seed: testscale.Rand(t).Uint64(), until: len(acts), rate: rateDefault}
	run(t, r, o)
	if code := conclude(r, o); code != 0 {
		t.Errorf("exit code %d", code)
	}
	t.Logf("REPORT: %d of %d checks hold", r.held(), len(r.Checks))
}

// TestOneCheckThatFailsIsEnough: a run is good when there were checks and all of them held; the table and the page name the one that did not.
func TestOneCheckThatFailsIsEnough(t *testing.T) {
	var out strings.Builder
	r, dir := newReport(&out), t.TempDir()
	if r.good() {
		t.Error("a run without checks is good")
	}
	end := r.begin("1", "roles")
	r.equal("rows", 3, "3", "counted by hand")
	r.holds("a denial", true, "exit code 2", "exit code 2", "the server")
	if end(); !r.good() || conclude(r, options{dir: dir}) != 0 {
		t.Errorf("a run whose checks hold is not good: %s", out.String())
	}
	r.begin("2", "history")()
	r.equal("files <&>", 7, 8, "the server's disk")
	r.equal("rows", 4, 4, "counted by hand")
	if r.good() || r.held() != 3 || conclude(r, options{dir: dir}) != exitFailed {
		t.Errorf("a check that fails does not fail the run: %s", out.String())
	}
	for _, want := range []string{"FAIL  files <&>: got 7, want 8 (the server's disk)", "FAIL  2  files <&>", "3 of 4 checks hold"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table lacks %q: %s", want, out.String())
		}
	}
	page, err := os.ReadFile(filepath.Join(dir, "checks.html"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"3 of 4 checks hold", `<td class="fail">FAIL</td><td>2</td><td>files &lt;&amp;&gt;</td><td>7</td><td>8</td>`} {
		if !strings.Contains(string(page), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	r = newReport(&out)
	r.equal("rows", 3, 3, "counted by hand")
	if r.Failed = "Kafka does not answer"; r.good() {
		t.Error("a run that broke off is good")
	}
}

// TestStageEndsWhatItStarted: whatever ends a play, its cleanups run, the newest first; an interruption does not wait for it.
func TestStageEndsWhatItStarted(t *testing.T) {
	for _, c := range []struct {
		name, want string
		play       func(s *stage)
	}{
		{"fatal", "no broker", func(s *stage) { s.Fatal("no broker") }},
		{"error", "a night failed", func(s *stage) { s.Errorf("a night %s", "failed") }},
		{"ended early", "before its last phase", func(s *stage) { s.FailNow() }},
		{"missing", "airflow is absent", func(s *stage) { s.Skip("airflow is absent") }},
		{"good", "", func(*stage) {}},
	} {
		s, order := newStage(t.Context(), t.TempDir()), ""
		err := s.play(func() {
			s.Cleanup(func() { order += "a" })
			s.Cleanup(func() { order += "b" })
			c.play(s)
		})
		if order != "ba" || (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, cleanups %q", c.name, err, order)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	s, stopped := newStage(ctx, t.TempDir()), make(chan struct{})
	err := s.play(func() {
		s.Cleanup(func() { close(stopped) })
		cancel()
		select {
		case <-stopped: // the server that it waits for has been ended
		case <-time.After(time.Minute):
			t.Error("the cleanup waits for the play")
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("an interrupted play: %v", err)
	}
}

// TestFolderOfSomebodyElse: only a folder that an earlier run has made is emptied.
func TestFolderOfSomebodyElse(t *testing.T) {
	o := options{dir: filepath.Join(t.TempDir(), "run")}
	for range 2 {
		if err := empty(&o); err != nil {
			t.Fatal(err)
		}
	}
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "thesis.tex"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := empty(&options{dir: other}); err == nil || !strings.Contains(err.Error(), "no earlier run has made it") {
		t.Errorf("a folder with somebody's files: %v", err)
	}
	if _, err := os.Stat(filepath.Join(other, "thesis.tex")); err != nil {
		t.Error(err)
	}
}
