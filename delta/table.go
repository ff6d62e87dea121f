package delta

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/cauce-data/cauce/objstore"
)

// Options shape how a table is used. The zero value works.
type Options struct {
	Engine     Engine           // zero: the pure-Go engine
	Clock      func() time.Time // nil: time.Now
	EngineInfo string           // commitInfo.engineInfo; "": "Cauce"
	MaxTries   int              // bound of tries of one commit, and of plannings of one operation; 0: 20
	MaxWait    time.Duration    // bound of the time of one commit, and of planning anew since the first lost race; 0: 60 s
	NoChecksum bool             // leave out the version checksum (.crc) after each commit
	// ChecksumEvery is the least time between two version checksums that one Table writes; 0: one after each commit. A reader
	// that lists a folder while a commit and its checksum appear in it may see the checksum alone, and some (delta-kernel-rs,
	// and so delta-rs) then fail: where commits come fast, so do such moments.
	ChecksumEvery time.Duration
	Isolation     string // "Serializable" (default) or "WriteSerializable"; delta.isolationLevel goes before

	NewID  func() string                              // nil: random UUIDs
	Jitter func() float64                             // in [0, 1); nil: random
	Sleep  func(context.Context, time.Duration) error // nil: a timer
}

const (
	isolationSerializable      = "Serializable"
	isolationWriteSerializable = "WriteSerializable"
	isolationSnapshot          = "SnapshotIsolation"
)

func (o *Options) withDefaults() Options {
	var out Options
	if o != nil {
		out = *o
	}
	if out.Clock == nil {
		out.Clock = time.Now
	}
	if out.EngineInfo == "" {
		out.EngineInfo = "Cauce"
	}
	if out.MaxTries <= 0 {
		out.MaxTries = 20
	}
	if out.MaxWait <= 0 {
		out.MaxWait = time.Minute
	}
	if out.NewID == nil {
		out.NewID = uuid.NewString
	}
	if out.Jitter == nil {
		out.Jitter = rand.Float64
	}
	if out.Sleep == nil {
		out.Sleep = sleep
	}
	return out
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Table is a Delta table under a path of a store. It caches the newest snapshot it has seen and is safe for
// concurrent use; several Tables, in several processes, may stand for one table.
type Table struct {
	store objstore.Store
	path  string
	opts  Options

	mu     sync.Mutex // guards what follows; held during the I/O of an update, so that only one runs
	latest *Snapshot
	listed time.Time // when the whole tail of the log was last listed
	summed time.Time // when a version checksum was last written

	vectors vectorCache
}

// Open opens the table under a path (a key prefix without a trailing slash; "" is the store's root). ErrNotATable if
// there is no log.
func Open(ctx context.Context, store objstore.Store, path string, opts *Options) (*Table, error) {
	t := newTable(store, path, opts)
	if err := checkIsolationOption(t.opts.Isolation); err != nil {
		return nil, err
	}
	if _, err := t.Snapshot(ctx); err != nil {
		return nil, err
	}
	return t, nil
}

func checkIsolationOption(level string) error {
	if level == "" {
		return nil
	}
	if err := checkIsolation(level); err != nil {
		return fmt.Errorf("%w: isolation %q %w", ErrProperty, level, err)
	}
	return nil
}

func newTable(store objstore.Store, path string, opts *Options) *Table {
	for len(path) > 0 && path[len(path)-1] == '/' {
		path = path[:len(path)-1]
	}
	return &Table{store: store, path: path, opts: opts.withDefaults()}
}

// pause waits before what lost to another writer is tried anew, longer with each try (from 1 on), but never for half a
// second; jitter parts those that lost together.
func (t *Table) pause(ctx context.Context, try int) error {
	most := min(5*time.Millisecond<<min(try, 7), 500*time.Millisecond)
	return t.opts.Sleep(ctx, time.Duration(t.opts.Jitter()*float64(most)))
}

// Latest is the newest snapshot that the table has seen, without asking the store.
func (t *Table) Latest() *Snapshot {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.latest
}

// Store is where the table lives.
func (t *Table) Store() objstore.Store { return t.store }

// Path is the key prefix of the table's root in its store.
func (t *Table) Path() string { return t.path }

// key gives the store's key of a name below the table's root.
func (t *Table) key(name string) string {
	if t.path == "" {
		return name
	}
	return t.path + "/" + name
}

// String names the table for people.
func (t *Table) String() string { return t.store.URL() + "/" + t.path }
