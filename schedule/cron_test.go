package schedule

import (
	"testing"
	"time"
)

// A nightly run happens every night, once, also in the nights in which clocks change.
func TestNextWhereClocksChange(t *testing.T) {
	for _, c := range []struct{ zone, expr, after, want string }{
		{"Europe/Berlin", "0 1 * * *", "2024-08-20T12:00:00Z", "2024-08-20T23:00:00Z"},
		// 01:00 does not exist: the clock jumps from 00:59:59 to 02:00.
		{"Europe/London", "0 1 * * *", "2024-03-30T12:00:00Z", "2024-03-31T01:00:00Z"},
		{"Europe/London", "0 1 * * *", "2024-03-31T01:00:00Z", "2024-04-01T00:00:00Z"},
		{"Europe/Madrid", "30 2 * * *", "2024-03-30T12:00:00Z", "2024-03-31T01:00:00Z"},
		{"America/New_York", "30 2 * * *", "2024-03-09T12:00:00Z", "2024-03-10T07:00:00Z"},
		{"Atlantic/Azores", "0 0 * * *", "2024-03-30T12:00:00Z", "2024-03-31T01:00:00Z"},
		// 01:00 comes twice.
		{"Europe/London", "0 1 * * *", "2024-10-26T12:00:00Z", "2024-10-27T00:00:00Z"},
		{"Europe/London", "0 1 * * *", "2024-10-27T00:00:00Z", "2024-10-28T01:00:00Z"},
		{"Europe/London", "0 1 * * *", "2024-10-27T00:30:00Z", "2024-10-28T01:00:00Z"},
		{"Europe/Madrid", "30 2 * * *", "2024-10-26T12:00:00Z", "2024-10-27T00:30:00Z"},
		{"America/New_York", "30 1 * * *", "2024-11-02T12:00:00Z", "2024-11-03T05:30:00Z"},
		{"America/New_York", "30 1 * * *", "2024-11-03T05:30:00Z", "2024-11-04T06:30:00Z"},
		// Every hour is every hour that passes.
		{"Europe/London", "0 * * * *", "2024-10-27T00:00:00Z", "2024-10-27T01:00:00Z"},
		{"Europe/London", "0 * * * *", "2024-03-31T00:00:00Z", "2024-03-31T01:00:00Z"},
		{"", "*/15 9-17 * * 1-5", "2024-08-23T17:50:00Z", "2024-08-26T09:00:00Z"},
		{"", "@daily", "2024-08-23T17:50:00Z", "2024-08-24T00:00:00Z"},
		{"", "@every 90m", "2024-08-23T17:50:00Z", "2024-08-23T19:20:00Z"},
	} {
		loc, err := time.LoadLocation(c.zone)
		if err != nil {
			t.Fatal(err)
		}
		after, err := time.Parse(time.RFC3339, c.after)
		if err != nil {
			t.Fatal(err)
		}
		if next, err := Next(c.expr, loc, after); err != nil || next.UTC().Format(time.RFC3339) != c.want {
			t.Errorf("%s in %s after %s: %v, %v; want %s", c.expr, c.zone, c.after, next.UTC(), err, c.want)
		}
	}
	for _, expr := range []string{"", "0 1 * *", "61 * * * *", "0 0 31 2 *"} {
		if next, err := Next(expr, nil, time.Unix(0, 0)); err == nil {
			t.Errorf("%q is due at %v", expr, next)
		}
	}
}

// Over a year of any zone, a nightly run is due once on every day.
func TestNightlyIsEveryNight(t *testing.T) {
	for _, zone := range []string{"UTC", "Europe/London", "Europe/Madrid", "America/New_York", "America/Sao_Paulo", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Kathmandu", "Africa/Cairo"} {
		loc, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		for _, expr := range []string{"0 0 * * *", "0 1 * * *", "30 2 * * *", "45 1 * * *"} {
			days := map[string]bool{}
			at := time.Date(2024, 1, 1, 12, 0, 0, 0, loc)
			for range 365 {
				next, err := Next(expr, loc, at)
				if err != nil || !next.After(at) {
					t.Fatalf("%s in %s after %v: %v, %v", expr, zone, at, next, err)
				}
				day := next.In(loc).Format(time.DateOnly)
				if days[day] {
					t.Fatalf("%s in %s: twice on %s", expr, zone, day)
				}
				days[day], at = true, next
			}
			if last := at.In(loc).Format(time.DateOnly); last != "2024-12-31" {
				t.Errorf("%s in %s: the 365th night is %s", expr, zone, last)
			}
		}
	}
}
