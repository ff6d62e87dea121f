package ingest

import (
	"testing"
	"time"
)

func TestCompactionInVainWaitsLongerEachTime(t *testing.T) {
	var g giveWay
	now := time.Unix(0, 0)
	for _, wait := range []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute} {
		if g.waits("a", now) {
			t.Fatalf("waits at %s", now)
		}
		g.note("a", true, now)
		now = now.Add(wait - 1)
		if !g.waits("a", now) || g.waits("b", now) {
			t.Errorf("a waits: %v, b waits: %v", g.waits("a", now), g.waits("b", now))
		}
		g.note("a", false, now) // small files were packed
		if !g.waits("a", now) {
			t.Error("forgotten because small files were packed")
		}
		now = now.Add(1)
	}
	g.note("a", false, now)
	g.note("a", true, now)
	if g.waits("a", now.Add(time.Minute)) {
		t.Error("a success does not begin anew")
	}
	for range 20 {
		g.note("a", true, now)
	}
	if g.waits("a", now.Add(giveWayMost)) {
		t.Error("waits for more than an hour")
	}
}
