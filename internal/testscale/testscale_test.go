package testscale

import (
	"testing"
	"time"
)

func TestTableGrows(t *testing.T) {
	for name, e := range table {
		if e.short > e.test || e.test > e.soak {
			t.Errorf("%s: counts %d, %d, %d do not grow with the size", name, e.short, e.test, e.soak)
		}
		if e.why == "" {
			t.Errorf("%s: says not what it counts", name)
		}
	}
}

func TestTurns(t *testing.T) {
	e := scale{short: 1, test: 5, soak: 50, testTime: 30 * time.Second}
	for _, c := range []struct {
		size  Size
		done  int
		spent time.Duration
		want  bool
	}{
		{Short, 0, time.Hour, true},
		{Short, 1, 0, false},
		{Test, 4, time.Hour, true},
		{Test, 5, time.Second, true},
		{Test, 5, time.Minute, false},
		{Test, 50, time.Second, false},
		{Soak, 49, time.Hour, true},
		{Soak, 50, 0, false},
	} {
		if got := e.more(c.size, c.done, c.spent); got != c.want {
			t.Errorf("more(%v, %d, %v) = %v, want %v", c.size, c.done, c.spent, got, c.want)
		}
	}
}

func TestSeedRepeats(t *testing.T) {
	if a, b := Rand(t).Uint64(), Rand(t).Uint64(); a != b {
		t.Errorf("two generators of one test begin with %d and %d", a, b)
	}
}
