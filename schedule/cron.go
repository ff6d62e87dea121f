package schedule

import (
	"fmt"
	"time"

	"github.com/robfig/cron/v3"
)

// everyHour is the bit that the parser sets in a field that was written as * or */1.
const everyHour = 1 << 63

// Next is the first time after a given one at which a cron expression is due in a time zone; nil: UTC. Where clocks
// change, an expression that names its hours means times of the day: one that the day does not have is due when the clock
// has jumped over it, one that the day has twice is due once. An expression for every hour follows the time that passes.
func Next(expr string, loc *time.Location, after time.Time) (time.Time, error) {
	if loc == nil {
		loc = time.UTC
	}
	parsed, err := cron.ParseStandard(expr)
	if err != nil {
		return time.Time{}, fmt.Errorf("cron %q: %w", expr, err)
	}
	var next time.Time
	if spec, ok := parsed.(*cron.SpecSchedule); ok && spec.Hour&everyHour == 0 {
		next = nextOfDay(spec, loc, after)
	} else {
		if ok {
			spec.Location = loc
		}
		next = parsed.Next(after.In(loc))
	}
	if next.IsZero() {
		return time.Time{}, fmt.Errorf("cron %q: it is never due", expr)
	}
	return next, nil
}

// nextOfDay reckons with the readings of a clock on the wall, and turns them into instants at the end.
func nextOfDay(spec *cron.SpecSchedule, loc *time.Location, after time.Time) time.Time {
	spec.Location = time.UTC
	local := after.In(loc)
	// A day earlier, because the clock may show less now than it did at a time that was due.
	reading := time.Date(local.Year(), local.Month(), local.Day()-1, 0, 0, 0, 0, time.UTC)
	for {
		if reading = spec.Next(reading); reading.IsZero() {
			return reading
		}
		if at := instant(reading, loc); at.After(after) {
			return at
		}
	}
}

// instant is the first time at which the clock of a zone shows a reading, or, where it jumps over it, the time of the jump.
func instant(reading time.Time, loc *time.Location) time.Time {
	naive := time.Date(reading.Year(), reading.Month(), reading.Day(), reading.Hour(), reading.Minute(), reading.Second(), 0, loc)
	// Of a reading that occurs twice, or never, time.Date promises no more than one of the two offsets.
	start, end := naive.ZoneBounds()
	shown := func(t time.Time) time.Time {
		t = t.In(loc)
		return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), 0, time.UTC)
	}
	if !shown(naive).Equal(reading) { // the clock jumps over it
		if jump := end; !end.IsZero() && naive.Before(end) && end.Sub(naive) <= 3*time.Hour {
			return jump
		}
		return start
	}
	if !start.IsZero() {
		// The same reading before the zone changed?
		_, now := naive.Zone()
		_, before := start.Add(-time.Second).Zone()
		if earlier := naive.Add(time.Duration(now-before) * time.Second); earlier.Before(start) && shown(earlier).Equal(reading) {
			return earlier
		}
	}
	return naive
}
