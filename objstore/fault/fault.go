// Package fault wraps a store so that its calls fail as disks and networks do: before the work is done, after it is
// done, halfway, slowly, or for ever after. It also counts and records calls. It stands between tests and any store.
package fault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cauce-data/cauce/objstore"
)

// Op names a call of objstore.Store.
type Op string

// The calls, as rules and traces name them. Sync is the one of objstore.LocalPather.
const (
	Get         Op = "get"
	GetRange    Op = "get-range"
	Stat        Op = "stat"
	Put         Op = "put"
	PutIfAbsent Op = "put-if-absent"
	List        Op = "list"
	Delete      Op = "delete"
	Sync        Op = "sync"
)

// Effect is what happens to a call.
type Effect int

// The effects. Those that speak of writing only fit puts; on other calls they are as FailBefore.
const (
	// FailBefore fails the call before it reaches the store.
	FailBefore Effect = iota
	// FailAfter lets the store do the work and then answers with the error: a lost answer.
	FailAfter
	// Torn stores only the first half of the object under the key and fails: a store without atomic writes.
	Torn
	// Slow waits for Rule.Delay and then goes on.
	Slow
	// Crash lets neither this call nor any later one through, until Revive: the process has died before the call.
	Crash
	// CrashAfter lets this call do its work and is a crash from then on, the answer included.
	CrashAfter
	// BreakRead lets a read begin and fails it after half of its bytes.
	BreakRead
)

// Errors that rules inject by default.
var (
	// ErrInjected is the error of a rule without its own.
	ErrInjected = errors.New("injected fault")
	// ErrCrashed is the answer to every call of a crashed store.
	ErrCrashed = errors.New("store has crashed")
	// ErrDiskFull is what a full disk answers (errors.Is finds syscall.ENOSPC).
	ErrDiskFull = fmt.Errorf("write: %w", syscall.ENOSPC)
)

// Rule injects an effect into calls.
type Rule struct {
	Op     Op     // "" matches every call
	Key    string // part of the key that must occur; "" matches every key
	Nth    int    // the n-th matching call from 1; 0: every matching call
	Times  int    // how many calls from the n-th on; 0: one, if Nth is set
	Effect Effect
	Err    error // nil: ErrInjected. Ambiguous outcomes should wrap objstore.ErrAmbiguous
	Delay  time.Duration

	seen int
}

// Call is one recorded call.
type Call struct {
	Op    Op
	Key   string
	Bytes int64 // written, or read by GetRange; -1 if not known
	Err   error
}

// String spells the call as "op key".
func (c Call) String() string { return string(c.Op) + " " + c.Key }

// Store wraps a store. It is safe for concurrent use.
type Store struct {
	inner objstore.Store

	mu      sync.Mutex
	rules   []*Rule
	calls   []Call
	crashed bool
	calling int // number of calls so far
	crashAt int // 0: never
	hook    func(Op, string) error
}

// New wraps a store with rules, which are looked at in order; the first that matches a call decides.
func New(inner objstore.Store, rules ...Rule) *Store {
	s := &Store{inner: inner}
	s.Add(rules...)
	return s
}

// Add adds rules behind those there are.
func (s *Store) Add(rules ...Rule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range rules {
		s.rules = append(s.rules, &r)
	}
}

// Clear removes all rules and forgets the recorded calls.
func (s *Store) Clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules, s.calls, s.calling, s.crashAt, s.hook = nil, nil, 0, 0, nil
}

// CrashAt crashes the store at its n-th call from now on, counting from 1: a test that walks n upward dies at every
// point of an operation.
func (s *Store) CrashAt(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calling, s.crashAt = 0, n
}

// Revive ends a crash, as a new process would.
func (s *Store) Revive() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.crashed, s.crashAt = false, 0
}

// Crashed reports whether the store has crashed.
func (s *Store) Crashed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.crashed
}

// Intercept calls f before every call that no rule decides; an error fails the call before it reaches the store.
func (s *Store) Intercept(f func(op Op, key string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook = f
}

// Calls gives the recorded calls in the order in which they ended.
func (s *Store) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Call(nil), s.calls...)
}

// Count counts recorded calls of an operation ("" is any) whose key contains part.
func (s *Store) Count(op Op, part string) int {
	n := 0
	for _, c := range s.Calls() {
		if (op == "" || c.Op == op) && strings.Contains(c.Key, part) {
			n++
		}
	}
	return n
}

// decide finds what happens to a call: nil for nothing.
func (s *Store) decide(op Op, key string) (*Rule, func(Op, string) error, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.crashed {
		return nil, nil, ErrCrashed
	}
	s.calling++
	if s.crashAt > 0 && s.calling >= s.crashAt {
		s.crashed = true
		return nil, nil, ErrCrashed
	}
	for _, r := range s.rules {
		if r.Op != "" && r.Op != op || !strings.Contains(key, r.Key) {
			continue
		}
		r.seen++
		if r.Nth > 0 && (r.seen < r.Nth || r.seen >= r.Nth+max(r.Times, 1)) {
			continue
		}
		if r.Effect == Crash {
			s.crashed = true
			return nil, nil, ErrCrashed
		}
		c := *r
		if c.Err == nil {
			c.Err = ErrInjected
		}
		return &c, nil, nil
	}
	return nil, s.hook, nil
}

func (s *Store) record(c Call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, c)
}

func (s *Store) crash() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.crashed = true
}

// around runs one call under the rules. do is the work; half does half of it and answers with the cause given, nil if
// the call has no half. size is the number of bytes for the record.
func (s *Store) around(ctx context.Context, op Op, key string, size int64, do func() error, half func(cause error) error) (err error) {
	defer func() { s.record(Call{Op: op, Key: key, Bytes: size, Err: err}) }()
	r, hook, err := s.decide(op, key)
	if err != nil {
		return fmt.Errorf("%s %s: %w", op, key, err)
	}
	if hook != nil {
		if err := hook(op, key); err != nil {
			return fmt.Errorf("%s %s: %w", op, key, err)
		}
	}
	if r == nil {
		return do()
	}
	failed := fmt.Errorf("%s %s: %w", op, key, r.Err)
	switch r.Effect {
	case FailAfter:
		if err := do(); err != nil {
			return err
		}
		return failed
	case CrashAfter:
		err := do()
		s.crash()
		if err != nil {
			return err
		}
		return fmt.Errorf("%s %s: %w", op, key, ErrCrashed)
	case Torn, BreakRead:
		if half != nil && (r.Effect == Torn) == (op == Put || op == PutIfAbsent) {
			return half(failed)
		}
		return failed
	case Slow:
		t := time.NewTimer(r.Delay)
		defer t.Stop()
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s %s: %w", op, key, ctx.Err())
		case <-t.C:
			return do()
		}
	}
	return failed
}

// Get opens an object. BreakRead lets the reader fail halfway.
func (s *Store) Get(ctx context.Context, key string) (io.ReadCloser, objstore.Info, error) {
	var r io.ReadCloser
	var info objstore.Info
	get := func() (err error) {
		r, info, err = s.inner.Get(ctx, key)
		return err
	}
	err := s.around(ctx, Get, key, -1, get, func(cause error) error {
		if err := get(); err != nil {
			return err
		}
		r = &brokenReader{Reader: io.LimitReader(r, info.Size/2), Closer: r, err: cause}
		return nil
	})
	if err != nil {
		if r != nil {
			r.Close()
		}
		return nil, objstore.Info{}, err
	}
	return r, info, nil
}

type brokenReader struct {
	io.Reader
	io.Closer
	err error
}

// Read gives the first half of the object and then the error.
func (b *brokenReader) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		err = b.err
	}
	return n, err
}

// GetRange reads a part of an object.
func (s *Store) GetRange(ctx context.Context, key string, offset, n int64) ([]byte, error) {
	var data []byte
	err := s.around(ctx, GetRange, key, n, func() (err error) {
		data, err = s.inner.GetRange(ctx, key, offset, n)
		return err
	}, nil)
	if err != nil {
		return nil, err
	}
	return data, nil
}

// Stat describes an object.
func (s *Store) Stat(ctx context.Context, key string) (objstore.Info, error) {
	var info objstore.Info
	err := s.around(ctx, Stat, key, 0, func() (err error) {
		info, err = s.inner.Stat(ctx, key)
		return err
	}, nil)
	return info, err
}

// Put creates or replaces an object.
func (s *Store) Put(ctx context.Context, key string, r io.Reader, opts objstore.PutOptions) error {
	return s.around(ctx, Put, key, -1, func() error { return s.inner.Put(ctx, key, r, opts) }, func(cause error) error {
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if err := s.inner.Put(ctx, key, bytes.NewReader(data[:len(data)/2]), opts); err != nil {
			return err
		}
		return cause
	})
}

// PutIfAbsent creates an object.
func (s *Store) PutIfAbsent(ctx context.Context, key string, data []byte) error {
	return s.around(ctx, PutIfAbsent, key, int64(len(data)), func() error { return s.inner.PutIfAbsent(ctx, key, data) }, func(cause error) error {
		if err := s.inner.PutIfAbsent(ctx, key, data[:len(data)/2]); err != nil {
			return err
		}
		return cause
	})
}

// List lists objects. A fault comes before the first of them; BreakRead after half of them.
func (s *Store) List(ctx context.Context, prefix, startAfter string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		var broken error
		err := s.around(ctx, List, prefix, -1, func() error { return nil }, func(cause error) error {
			broken = cause
			return nil
		})
		if err != nil {
			yield(objstore.Info{}, err)
			return
		}
		if broken == nil {
			s.inner.List(ctx, prefix, startAfter)(yield)
			return
		}
		var all []objstore.Info
		for info, err := range s.inner.List(ctx, prefix, startAfter) {
			if err != nil {
				broken = err
				break
			}
			all = append(all, info)
		}
		for _, info := range all[:len(all)/2] {
			if !yield(info, nil) {
				return
			}
		}
		yield(objstore.Info{}, broken)
	}
}

// Delete removes an object.
func (s *Store) Delete(ctx context.Context, key string) error {
	return s.around(ctx, Delete, key, 0, func() error { return s.inner.Delete(ctx, key) }, nil)
}

// URL is that of the store inside.
func (s *Store) URL() string { return s.inner.URL() }

// Local adds objstore.LocalPather to a Store over a local one, so that engines which write files themselves meet the
// faults of Sync. Their own reads and writes of files pass by.
type Local struct{ *Store }

// LocalPath is the file of a key; BUG if the store inside has none.
func (l Local) LocalPath(key string) string { return l.inner.(objstore.LocalPather).LocalPath(key) }

// Sync makes files durable.
func (l Local) Sync(ctx context.Context, keys ...string) error {
	return l.around(ctx, Sync, strings.Join(keys, " "), 0, func() error {
		return l.inner.(objstore.LocalPather).Sync(ctx, keys...)
	}, nil)
}

var (
	_ objstore.Store       = (*Store)(nil)
	_ objstore.LocalPather = Local{}
)
