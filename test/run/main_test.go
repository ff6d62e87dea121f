package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cauce-data/cauce/internal/prereq"
)

func events(lines ...string) *strings.Reader { return strings.NewReader(strings.Join(lines, "\n")) }

// failedRun reads the events of a run that must fail, and gives what is printed, which must have the texts in it.
func failedRun(t *testing.T, wants []string, lines ...string) string {
	t.Helper()
	var out strings.Builder
	r := newResult(&out)
	if err := r.read(events(lines...)); err != nil {
		t.Fatal(err)
	}
	if got := r.summary(nil, "test", false); got != 1 {
		t.Errorf("exit code %d, want 1", got)
	}
	for _, want := range wants {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in the output:\n%s", want, out.String())
		}
	}
	return out.String()
}

func TestSkipWithoutPrerequisiteFailsTheRun(t *testing.T) {
	t.Setenv("PATH", t.TempDir()) // terraform is absent
	for _, c := range []struct {
		name, msg string
		size      string
		listed    map[string][]string
		want      int
	}{
		{"no reason", "not today", "test", nil, 1},
		{"listed and absent", "prerequisite terraform: absent", "test", map[string][]string{"terraform": {"delta TestX"}}, 0},
		{"not listed", "prerequisite terraform: absent", "test", nil, 1},
		{"another test listed", "prerequisite terraform: absent", "test", map[string][]string{"terraform": {"delta TestY"}}, 1},
		{"short in short", "short: takes a minute", "short", nil, 0},
		{"short in test", "short: takes a minute", "test", nil, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			r := newResult(&out)
			if err := r.read(events(
				`{"Action":"pass","Package":"github.com/cauce-data/cauce/delta","Test":"TestOther"}`,
				`{"Action":"output","Package":"github.com/cauce-data/cauce/delta","Test":"TestX","Output":"    x_test.go:3: `+c.msg+`\n"}`,
				`{"Action":"skip","Package":"github.com/cauce-data/cauce/delta","Test":"TestX"}`,
			)); err != nil {
				t.Fatal(err)
			}
			if got := r.summary(c.listed, c.size, false); got != c.want {
				t.Errorf("exit code %d, want %d; printed:\n%s", got, c.want, out.String())
			}
		})
	}
}

func TestFailureIsPrintedAndCounted(t *testing.T) {
	failedRun(t, []string{"want 1 got 2", "delta TestX", "0 passed, 2 failed, 0 skipped"},
		`{"Action":"output","Package":"github.com/cauce-data/cauce/delta","Test":"TestX","Output":"    x_test.go:3: want 1 got 2\n"}`,
		`{"Action":"fail","Package":"github.com/cauce-data/cauce/delta","Test":"TestX"}`,
		`{"Action":"output","Package":"github.com/cauce-data/cauce/delta","Output":"FAIL\tgithub.com/cauce-data/cauce/delta\t0.1s\n"}`,
		`{"Action":"fail","Package":"github.com/cauce-data/cauce/delta"}`,
	)
}

// A goroutine that panics beside a test ends the process: go test tells of the package alone.
func TestWhatATestSaidThatNeverEndedIsPrinted(t *testing.T) {
	out := failedRun(t, []string{"panic: send on closed channel", "delta TestX: did not end", "1 passed, 1 failed, 0 skipped"},
		`{"Action":"pass","Package":"github.com/cauce-data/cauce/delta","Test":"TestEnded"}`,
		`{"Action":"output","Package":"github.com/cauce-data/cauce/delta","Test":"TestX","Output":"panic: send on closed channel\n"}`,
		`{"Action":"output","Package":"github.com/cauce-data/cauce/delta/expr","Test":"TestY","Output":"still runs\n"}`,
		`{"Action":"output","Package":"github.com/cauce-data/cauce/delta","Output":"FAIL\tgithub.com/cauce-data/cauce/delta\t0.1s\n"}`,
		`{"Action":"fail","Package":"github.com/cauce-data/cauce/delta"}`,
	)
	if strings.Contains(out, "still runs") || strings.Contains(out, "TestEnded") {
		t.Errorf("tests of another package, or that ended, are printed:\n%s", out)
	}
}

func TestNamedProofMustRun(t *testing.T) {
	t.Setenv("PATH", t.TempDir()) // terraform is absent
	path := filepath.Join(t.TempDir(), "requirements.md")
	if err := os.WriteFile(path, []byte("| a | `delta.TestRan` `delta.TestSkipped` `cmd/cauce.TestGone` |"), 0o600); err != nil {
		t.Fatal(err)
	}
	absent := skip{"delta", "TestSkipped", "prerequisite terraform: absent"}
	listed := map[string][]string{"terraform": {"delta TestSkipped"}}
	for _, c := range []struct {
		name  string
		skips []skip
		want  []string
	}{
		{"skipped for what the machine lacks", []skip{absent}, []string{"cmd/cauce.TestGone"}},
		{"a skip that nobody tells of", nil, []string{"delta.TestSkipped", "cmd/cauce.TestGone"}},
	} {
		var out strings.Builder
		r := newResult(&out)
		r.state["delta.TestRan"], r.state["delta.TestSkipped"] = "pass", "skip"
		r.skips = c.skips
		bad, err := r.unproved(path, listed, "test")
		if err != nil || len(bad) != len(c.want) {
			t.Fatalf("%s: unproved %q, error %v, want %q", c.name, bad, err, c.want)
		}
		for i := range bad {
			if !strings.Contains(bad[i], c.want[i]) {
				t.Errorf("%s: %q, want %q", c.name, bad[i], c.want[i])
			}
		}
		if loud := strings.Contains(out.String(), "NOT PROVED HERE"); loud != (len(c.skips) > 0) {
			t.Errorf("%s: printed %q", c.name, out.String())
		}
	}
}

func TestPrerequisitesFileIsReadable(t *testing.T) {
	listed, err := readPrerequisites("../prerequisites.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range prereq.Names() {
		if _, ok := listed[name]; !ok {
			t.Errorf("test/prerequisites.txt has no entry %q", name)
		}
	}
}

func TestGlanceLeavesOutWholePrograms(t *testing.T) {
	run, leftOut := glance([]string{module + "test/bi", module + "test/golden", module + "test/spark"})
	if !slices.Equal(run, []string{module + "test/golden"}) || !slices.Equal(leftOut, []string{"test/bi", "test/spark"}) {
		t.Errorf("runs %v, leaves out %v", run, leftOut)
	}
	var out strings.Builder
	r := newResult(&out)
	r.passed, r.leftOut = 1, leftOut
	if r.summary(nil, "short", false) != 0 || !strings.Contains(out.String(), "test/bi, test/spark") {
		t.Errorf("what was left out is not told:\n%s", out.String())
	}
}
