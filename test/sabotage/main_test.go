package main

import (
	"testing"

	"github.com/cauce-data/cauce/internal/prereq"
)

// TestFaultsFitTheSource finds at once, without running them, the faults that a change of the source has outdated.
func TestFaultsFitTheSource(t *testing.T) {
	names := map[string]bool{}
	for _, f := range faults {
		if names[f.name] {
			t.Errorf("two faults are named %s", f.name)
		}
		names[f.name] = true
		if err := f.fits(prereq.Root()); err != nil {
			t.Errorf("%s: %v", f.name, err)
		}
	}
}

// A fault whose test did not run is not one that the test let pass.
func TestVerdicts(t *testing.T) {
	const skipped = "=== RUN   TestX\n    x_test.go:7: java: not installed here\n--- SKIP: TestX (0.00s)\n"
	for _, c := range []struct {
		out          string
		failed       bool
		verdict, why string
	}{
		{"=== RUN   TestX\n    x_test.go:3: want 1\n--- FAIL: TestX (0.00s)\nFAIL\n", true, red, ""},
		{"panic: test timed out after 10m0s\n", true, red, ""},
		{"x.go:1: syntax error\nFAIL\tx [build failed]\n", true, "", ""},
		{"=== RUN   TestX\n    x_test.go:3: panic: is only talked of\n--- PASS: TestX (0.00s)\nPASS\n", false, green, ""},
		{skipped + "PASS\n", false, skip, "x_test.go:7: java: not installed here"},
		{"=== RUN   TestY\n--- PASS: TestY (0.00s)\n" + skipped + "PASS\n", false, green, "x_test.go:7: java: not installed here"},
	} {
		if verdict, why := judge(c.out, c.failed); verdict != c.verdict || why != c.why {
			t.Errorf("%q: %q %q, want %q %q", c.out, verdict, why, c.verdict, c.why)
		}
	}
}
