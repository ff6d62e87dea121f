package storetest

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/cloudtest"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/objstore/internal/remote"
)

// AllOps runs every operation once and gives the error of each.
func AllOps(ctx context.Context, s objstore.Store) map[string]error {
	out := map[string]error{}
	_, _, out["get"] = s.Get(ctx, "a/key")
	_, out["range"] = s.GetRange(ctx, "a/key", 0, 1)
	_, out["stat"] = s.Stat(ctx, "a/key")
	out["put"] = s.Put(ctx, "a/key", strings.NewReader("x"), objstore.PutOptions{})
	out["put-if-absent"] = s.PutIfAbsent(ctx, "a/key", []byte("x"))
	out["delete"] = s.Delete(ctx, "a/key")
	for _, err := range s.List(ctx, "a/", "") {
		out["list"] = err
	}
	return out
}

// Faults runs a store of another machine against a proxy that fails: passing faults are repeated away, lasting ones end
// in a typed error after a bounded number of requests, and a create whose answer is lost is never taken for another's.
// partsOnce says that the server keeps a part of a large object once that is sent twice.
func Faults(t *testing.T, s objstore.Store, proxy *cloudtest.Proxy, partsOnce bool) {
	ctx := context.Background()
	large := make([]byte, 19<<20)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(large)
	put(t, s, "small", "0123456789")
	if err := s.Put(ctx, "large", bytes.NewReader(large), objstore.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, effect := range map[string]cloudtest.Effect{
		"slow down": cloudtest.SlowDown, "500 after": cloudtest.FailAfter, "reset before": cloudtest.ResetBefore, "reset after": cloudtest.ResetAfter, "cut": cloudtest.CutBody,
	} {
		t.Run(name, func(t *testing.T) {
			// Every second request fails, so that each operation meets a fault in each of its requests.
			proxy.Clear()
			defer proxy.Clear()
			for i := range 200 {
				proxy.Add(cloudtest.Rule{Nth: 2*i + 1, Effect: effect})
			}
			if got, _ := get(t, s, "large"); got != string(large) {
				t.Errorf("large: %d bytes", len(got))
			}
			if got, err := s.GetRange(ctx, "large", 1<<20, 1<<20); err != nil || !bytes.Equal(got, large[1<<20:2<<20]) {
				t.Errorf("range: %d bytes, %v", len(got), err)
			}
			if _, err := s.Stat(ctx, "small"); err != nil {
				t.Error(err)
			}
			lost := effect == cloudtest.FailAfter || effect == cloudtest.ResetAfter || effect == cloudtest.CutBody
			if lost && !partsOnce {
				proxy.Clear()
			}
			if err := s.Put(ctx, "large-"+name, bytes.NewReader(large), objstore.PutOptions{}); err != nil {
				t.Error(err)
			}
			for i := range 20 {
				proxy.Add(cloudtest.Rule{Nth: 2*i + 1, Effect: effect})
			}
			put(t, s, "small-"+name, "new")
			err := s.PutIfAbsent(ctx, "once-"+name, []byte("mine"))
			if err != nil && !errors.Is(err, objstore.ErrAmbiguous) {
				t.Errorf("put if absent: %v", err)
			}
			if got := keys(t, s, "small", ""); len(got) < 2 {
				t.Errorf("listed %v", got)
			}
			if err := s.Delete(ctx, "small-"+name); err != nil {
				t.Error(err)
			}
			if len(proxy.Injected()) == 0 {
				t.Fatal("no fault struck")
			}
			proxy.Clear()
			if got, _ := get(t, s, "large-"+name); got != string(large) {
				t.Errorf("large put: %d bytes", len(got))
			}
			if got, _ := get(t, s, "once-"+name); got != "mine" {
				t.Errorf("put if absent wrote %q", got)
			}
		})
	}
	t.Run("lost answer to a create", func(t *testing.T) {
		for name, effect := range map[string]cloudtest.Effect{"500": cloudtest.FailAfter, "reset": cloudtest.ResetAfter} {
			proxy.Clear()
			proxy.Add(cloudtest.Rule{Nth: 1, Effect: effect})
			// The first attempt wrote it; "exists" would tell the caller that another did, and cost it its commit.
			if err := s.PutIfAbsent(ctx, "lost-"+name, []byte("x")); !errors.Is(err, objstore.ErrAmbiguous) || errors.Is(err, objstore.ErrExists) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
	t.Run("for ever", func(t *testing.T) {
		proxy.Clear()
		proxy.Add(cloudtest.Rule{Effect: cloudtest.SlowDown})
		defer proxy.Clear()
		before := len(proxy.Requests())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := s.PutIfAbsent(ctx, "never", []byte("x")); !errors.Is(err, objstore.ErrUnavailable) {
				t.Errorf("put if absent: %v", err)
			}
		})
		wg.Go(func() {
			if _, err := s.Stat(ctx, "small"); !errors.Is(err, objstore.ErrUnavailable) {
				t.Errorf("stat: %v", err)
			}
		})
		wg.Wait()
		if n := len(proxy.Requests()) - before; n > 20 {
			t.Errorf("%d requests for two operations", n)
		}
		proxy.Clear()
		if _, err := s.Stat(ctx, "never"); !errors.Is(err, objstore.ErrNotFound) {
			t.Errorf("what was refused is there: %v", err)
		}
	})
}

// Impatient makes the stores that the test opens from now on give up a silent connection after a moment.
func Impatient(t *testing.T) {
	before := remote.Silence
	remote.Silence = time.Second
	t.Cleanup(func() { remote.Silence = before })
}

// Hang runs a store of another machine, opened after Impatient, against a proxy that takes the first requests and never
// answers: each is sent again.
func Hang(t *testing.T, s objstore.Store, proxy *cloudtest.Proxy) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	put(t, s, "there", "0123456789")
	proxy.Add(cloudtest.Rule{Nth: 1, Times: 4, Effect: cloudtest.Hang})
	var wg sync.WaitGroup
	for name, op := range map[string]func() error{
		"stat":          func() error { _, err := s.Stat(ctx, "there"); return err },
		"range":         func() error { _, err := s.GetRange(ctx, "there", 2, 3); return err },
		"put":           func() error { return s.Put(ctx, "put", strings.NewReader("x"), objstore.PutOptions{}) },
		"put if absent": func() error { return s.PutIfAbsent(ctx, "created", []byte("x")) },
	} {
		wg.Go(func() {
			if err := op(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	wg.Wait()
	if n := proxy.Injected()[cloudtest.Hang]; n != 4 {
		t.Errorf("%d requests had no answer, want 4", n)
	}
}
