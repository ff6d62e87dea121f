package fault

import (
	"context"
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cauce-data/cauce/objstore"
)

func newStore(t *testing.T, rules ...Rule) (*Store, objstore.Store) {
	t.Helper()
	inner, err := objstore.NewLocal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return New(inner, rules...), inner
}

func content(t *testing.T, s objstore.Store, key string) string {
	t.Helper()
	r, _, err := s.Get(context.Background(), key)
	if errors.Is(err, objstore.ErrNotFound) {
		return "-"
	}
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestEffects(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		name string
		rule Rule
		want string // content after two puts of "0123"
		errs [2]error
	}{
		{"before", Rule{Op: PutIfAbsent, Nth: 1}, "0123", [2]error{ErrInjected, nil}},
		{"after", Rule{Op: PutIfAbsent, Nth: 1, Effect: FailAfter, Err: objstore.ErrAmbiguous}, "0123", [2]error{objstore.ErrAmbiguous, objstore.ErrExists}},
		{"torn", Rule{Op: PutIfAbsent, Nth: 1, Effect: Torn}, "01", [2]error{ErrInjected, objstore.ErrExists}},
		{"full", Rule{Op: PutIfAbsent, Err: ErrDiskFull}, "-", [2]error{syscall.ENOSPC, syscall.ENOSPC}},
		{"crash", Rule{Op: PutIfAbsent, Nth: 1, Effect: Crash}, "-", [2]error{ErrCrashed, ErrCrashed}},
		{"crash after", Rule{Op: PutIfAbsent, Nth: 1, Effect: CrashAfter}, "0123", [2]error{ErrCrashed, ErrCrashed}},
		{"second", Rule{Key: "k", Nth: 2}, "0123", [2]error{nil, ErrInjected}},
		{"other key", Rule{Key: "z"}, "0123", [2]error{nil, objstore.ErrExists}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, inner := newStore(t, c.rule)
			for i := range 2 {
				if err := s.PutIfAbsent(ctx, "k", []byte("0123")); !errors.Is(err, c.errs[i]) {
					t.Errorf("put %d: %v, want %v", i+1, err, c.errs[i])
				}
			}
			if got := content(t, inner, "k"); got != c.want {
				t.Errorf("content %q, want %q", got, c.want)
			}
			if n := s.Count(PutIfAbsent, "k"); n != 2 {
				t.Errorf("%d calls counted: %v", n, s.Calls())
			}
		})
	}
}

func TestBreakReadAndList(t *testing.T) {
	ctx := context.Background()
	s, inner := newStore(t, Rule{Op: Get, Effect: BreakRead}, Rule{Op: List, Effect: BreakRead})
	for _, k := range []string{"a", "b", "c", "d"} {
		if err := inner.Put(ctx, k, strings.NewReader("0123456789"), objstore.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	r, _, err := s.Get(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if string(b) != "01234" || !errors.Is(err, ErrInjected) {
		t.Fatalf("%q, %v", b, err)
	}
	r.Close()
	n := 0
	for _, err = range s.List(ctx, "", "") {
		if err == nil {
			n++
		}
	}
	if n != 2 || !errors.Is(err, ErrInjected) {
		t.Fatal(n, err)
	}
}

func TestCrashAtEveryCall(t *testing.T) {
	ctx := context.Background()
	s, _ := newStore(t)
	for n := 1; ; n++ {
		s.CrashAt(n)
		var err error
		done := 0
		for range 3 {
			if err = s.Put(ctx, "k", strings.NewReader("x"), objstore.PutOptions{}); err != nil {
				break
			}
			done++
		}
		if done != min(n-1, 3) {
			t.Fatalf("crash at %d after %d calls", n, done)
		}
		if err == nil {
			break
		}
		if !s.Crashed() || !errors.Is(err, ErrCrashed) {
			t.Fatal(err)
		}
		s.Revive()
	}
}

func TestSlow(t *testing.T) {
	s, _ := newStore(t, Rule{Op: Stat, Effect: Slow, Delay: time.Hour})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := s.Stat(ctx, "k"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		start := time.Now()
		if _, err := s.Stat(context.Background(), "k"); !errors.Is(err, objstore.ErrNotFound) || time.Since(start) != time.Hour {
			t.Fatal(err, time.Since(start))
		}
	})
}
