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
