package remote

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cauce-data/cauce/objstore"
)

// TestCreate: what a run of attempts comes to.
func TestCreate(t *testing.T) {
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		outcomes []Outcome // the last is repeated
		want     error     // nil: created
		attempts int
	}{
		"at once":                     {[]Outcome{Created}, nil, 1},
		"another's":                   {[]Outcome{Exists}, objstore.ErrExists, 1},
		"slowed down, then another's": {[]Outcome{Again, Exists}, objstore.ErrExists, 2},
		"no answer, then created":     {[]Outcome{Unknown, Created}, nil, 2},
		"no answer, then exists":      {[]Outcome{Unknown, Exists}, objstore.ErrAmbiguous, 2},
		"no answer, then denied":      {[]Outcome{Unknown, Refused}, objstore.ErrAmbiguous, 2},
		"denied":                      {[]Outcome{Refused}, broken, 1},
		"slowed down for ever":        {[]Outcome{Again}, broken, Attempts},
		"no answer for ever":          {[]Outcome{Unknown}, objstore.ErrAmbiguous, Attempts},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := 0
				err := Create(context.Background(), "k", func(context.Context) (Outcome, error) {
					n++
					return c.outcomes[min(n, len(c.outcomes))-1], broken
				})
				if !errors.Is(err, c.want) || n != c.attempts || errors.Is(err, objstore.ErrAmbiguous) && errors.Is(err, objstore.ErrExists) {
					t.Errorf("%v after %d attempts, want %v after %d", err, n, c.want, c.attempts)
				}
			})
		})
	}
}

// FuzzParseModTime: no text of other programs does harm, and what we write comes back.
func FuzzParseModTime(f *testing.F) {
	for _, s := range []string{"1614835567.000008000", "1614835567", "2021-03-04T05:06:07.000008Z", "-1.5", "1.", ".5", "", "1e9", "99999999999999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		at, ok := ParseModTime(s)
		if !ok {
			return
		}
		again, ok := ParseModTime(FormatModTime(at))
		if !ok || !again.Equal(at) {
			t.Errorf("%q is %v, and comes back as %v, %v", s, at, again, ok)
		}
	})
	if at := time.Date(2021, 3, 4, 5, 6, 7, 8000, time.UTC); FormatModTime(at) != "1614834367.000008000" {
		f.Errorf("%v is written as %s", at, FormatModTime(at))
	}
}
