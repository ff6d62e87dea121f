// Package spool stands between a producer and the topic that it fills: a queue of bounded size on disk, in which events
// wait while the topic cannot be reached, and from which they are sent in the order in which they came.
//
// # What it promises
//
// An event is accepted when Publish returns: it stands in a file then, and survives the death of the process. A power
// cut may cost what Options.Sync says. What is accepted is sent, by this process or by the next one that opens the
// folder, and forgotten only after the topic has acknowledged it. What was sent and not yet forgotten when the process
// died is sent again, under the same message id.
//
// # Files
//
// A folder holds segments, NNNNNNNNNNNNNNNN.seg, in the order of their hexadecimal numbers; "sent", which says up to
// where everything is acknowledged; and "lock", which the one process that has the folder open holds.
//
//	segment: record*
//	record:  length uint32 | crc32c uint32 of what follows | flags byte | key length uvarint, key | id length uvarint, id | value
//	flags:   1: the value is nil, a tombstone
//	sent:    number of the segment uint64 | bytes of it uint64 | crc32c uint32 of both
//
// Numbers are little-endian. length counts what follows the crc. A record that is cut off at the end of the last segment
// was never accepted, and is removed when the folder is opened. A damaged record costs what stands behind it in its segment,
// if it was not sent yet; that is copied to NNNNNNNNNNNNNNNN-BYTE.damaged, named for where it stood, and told.
package spool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cauce-data/cauce/internal/change"
	"github.com/cauce-data/cauce/internal/live"
)

// Bounds.
const (
	segmentBytes  = 16 << 20 // a segment that is longer is followed by another
	batchRecords  = 1024     // records that are sent before their acknowledgement is waited for
	batchBytes    = 4 << 20
	recordMax     = 64 << 20
	syncEvery     = time.Second
	closePatience = 5 * time.Second
)

// How Options.Sync may be.
const (
	SyncInterval = "interval" // a power cut may cost the last second
	SyncAlways   = "always"   // it costs nothing
)

// Errors of this package.
var (
	// ErrBusy says that another process has the folder open.
	ErrBusy = errors.New("spool is in use")
	// ErrClosed says that the spool has been closed.
	ErrClosed = errors.New("spool is closed")
)

// Target is the topic that events are sent to.
type Target interface {
	live.Sink
	Close() error
}

// Options configure a Spool.
type Options struct {
	Dir      string // made if missing
	BytesMax int64  // of events that wait; 1 GiB
	Sync     string // SyncInterval, the default, or SyncAlways
	// Wait says what Publish does when BytesMax is reached: wait for room, or return an error that wraps live.ErrFull.
	Wait bool
	// Open opens the target; it is called again, with pauses, until it succeeds, and after the target has failed.
	Open func(ctx context.Context) (Target, error)
	// Permanent tells which errors of the target cannot be mended by trying again; nil: none.
	Permanent func(error) bool
	Log       *slog.Logger // nil: silent

	RetryMin, RetryMax time.Duration // pauses before the target is opened again; 200 ms, 10 s

	segmentBytes int64 // segmentBytes
}

// Stats are the figures of a Spool.
type Stats struct {
	Bytes  int64 `json:"bytes"`  // of events that wait
	Events int64 `json:"events"` // that wait
	// Stalled is how long events have been waiting without any being acknowledged; 0: none wait.
	Stalled time.Duration `json:"-"`
	// Damaged are bytes of segments that could not be read any more and whose events are lost.
	Damaged int64 `json:"damaged_bytes,omitempty"`
	// Error is why the target cannot be reached; "": it can, or was not tried yet.
	Error string `json:"error,omitempty"`
}

// Spool is an open spool. It is a live.Sink, safe for concurrent use.
type Spool struct {
	o    Options
	lock *os.File
	sent *os.File
	stop context.CancelFunc
	done sync.WaitGroup
	more chan struct{} // there may be something to send

	mu       sync.Mutex
	segments []*segment // oldest first; the last one is written
	w        *os.File   // the last one
	dirty    bool       // w has what is not on disk
	at       place      // everything before is acknowledged
	bytes    int64      // of events that wait
	events   int64
	damaged  int64
	progress time.Time     // of the last acknowledgement, or of the first event that waits
	failed   error         // permanent
	down     error         // why the target cannot be reached
	changed  change.Signal // events are acknowledged, or the spool fails
	closed   bool
}

// place is a place in the sequence of segments.
type place struct {
	segment uint64
	offset  int64
}

type segment struct {
	n    uint64
	size int64 // of whole records
}

// Open opens a folder, and begins to send what waits in it.
func Open(o Options) (*Spool, error) {
	if o.BytesMax <= 0 {
		o.BytesMax = 1 << 30
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.RetryMin <= 0 {
		o.RetryMin = 200 * time.Millisecond
	}
	if o.RetryMax <= 0 {
		o.RetryMax = 10 * time.Second
	}
	if o.segmentBytes <= 0 {
		o.segmentBytes = segmentBytes
	}
	if o.Permanent == nil {
		o.Permanent = func(error) bool { return false }
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	lock, err := lockFolder(o.Dir)
	if err != nil {
		return nil, err
	}
	s := &Spool{o: o, lock: lock, more: make(chan struct{}, 1), progress: time.Now()}
	if err := s.recover(); err != nil {
		s.release()
		return nil, fmt.Errorf("spool %s: %w", o.Dir, err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.done.Go(func() { s.drain(ctx) })
	s.done.Go(func() { s.sync(ctx) })
	s.wake()
	return s, nil
}

func lockFolder(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder, _ := io.ReadAll(io.LimitReader(f, 32))
		_ = f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("spool %s: %w", dir, err)
		}
		return nil, fmt.Errorf("%w: %s, by process %s", ErrBusy, dir, strings.TrimSpace(string(holder)))
	}
	// The lock ends with the process, however that ends; the number is only for the message above.
	if err := f.Truncate(0); err == nil {
		_, _ = fmt.Fprintf(f, "%d\n", os.Getpid())
	}
	return f, nil
}

// release closes the files.
func (s *Spool) release() {
	for _, f := range []*os.File{s.w, s.sent, s.lock} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// Publish accepts one event: when it returns nil the event stands in the spool. An error that wraps live.ErrFull says
// that there is no room, and nothing was accepted.
func (s *Spool) Publish(ctx context.Context, key []byte, id string, value []byte) error {
	rec, err := appendRecord(nil, record{key, id, value})
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	size := int64(len(rec))
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.failed == nil && !s.closed && s.events > 0 && s.bytes+size > s.o.BytesMax {
		if !s.o.Wait {
			return fmt.Errorf("%w: spool %s holds %d bytes", live.ErrFull, s.o.Dir, s.bytes)
		}
		if err := s.changed.Wait(ctx, &s.mu); err != nil {
			return err
		}
	}
	switch {
	case s.failed != nil:
		return s.failed
	case s.closed:
		return ErrClosed
	}
	if err := s.write(rec); err != nil {
		return err
	}
	if s.events == 0 {
		s.progress = time.Now()
	}
	s.bytes += size
	s.events++
	s.wake()
	return nil
}

// write appends a record to the last segment, or to a new one. The lock is held.
func (s *Spool) write(rec []byte) error {
	if err := s.room(); err != nil {
		if s.failed != nil {
			return s.failed
		}
		return s.unwritten(err)
	}
	last := s.segments[len(s.segments)-1]
	if _, err := s.w.Write(rec); err != nil {
		// What was written of it must not stand before the next one.
		if e := s.w.Truncate(last.size); e != nil {
			s.fail(fmt.Errorf("spool %s: %w", s.o.Dir, errors.Join(err, e)))
			return s.failed
		}
		if _, e := s.w.Seek(last.size, io.SeekStart); e != nil {
			s.fail(fmt.Errorf("spool %s: %w", s.o.Dir, errors.Join(err, e)))
			return s.failed
		}
		return s.unwritten(err)
	}
	s.dirty = true
	if s.o.Sync == SyncAlways {
		if err := s.flush(); err != nil {
			// The kernel has dropped what it could not write: nobody knows what stands on disk.
			s.fail(err)
			return s.failed
		}
	}
	last.size += int64(len(rec))
	return nil
}

// unwritten explains an error of the disk: a full one is a lack of room like another.
func (s *Spool) unwritten(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: spool %s: %w", live.ErrFull, s.o.Dir, err)
	}
	return fmt.Errorf("spool %s: %w", s.o.Dir, err)
}

// Flush brings what was accepted to the disk. It does not wait for the target.
func (s *Spool) Flush(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return s.failed
	}
	return s.flush()
}

// flush is Flush with the lock held.
func (s *Spool) flush() error {
	if !s.dirty || s.w == nil {
		return nil
	}
	if err := s.w.Sync(); err != nil {
		return fmt.Errorf("spool %s: %w", s.o.Dir, err)
	}
	s.dirty = false
	return nil
}

// sync flushes from time to time.
func (s *Spool) sync(ctx context.Context) {
	tick := time.NewTicker(syncEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.mu.Lock()
			if err := s.flush(); err != nil {
				s.fail(err)
			}
			s.mu.Unlock()
		}
	}
}

// Drain waits until everything that was accepted so far is acknowledged by the target, or the target fails for good.
func (s *Spool) Drain(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.events > 0 {
		if s.failed != nil {
			return s.failed
		}
		if err := s.changed.Wait(ctx, &s.mu); err != nil {
			return err
		}
	}
	return s.failed
}

func (s *Spool) wake() {
	select {
	case s.more <- struct{}{}:
	default:
	}
}

// fail ends the spool's work for good. The lock is held.
func (s *Spool) fail(err error) {
	if s.failed == nil {
		s.failed = err
	}
	s.changed.Tell()
}

// Stats are the figures of now.
func (s *Spool) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{Bytes: s.bytes, Events: s.events, Damaged: s.damaged}
	if s.events > 0 {
		st.Stalled = time.Since(s.progress)
	}
	if s.down != nil {
		st.Error = s.down.Error()
	}
	return st
}

// Close sends what waits, for a short time and only if the target can be reached, and leaves the rest for the next
// process that opens the folder. It returns the error that ended the spool's work, if there was one.
func (s *Spool) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.changed.Tell()
	ctx, cancel := context.WithTimeout(context.Background(), closePatience)
	for s.events > 0 && s.down == nil && s.failed == nil && ctx.Err() == nil {
		_ = s.changed.Wait(ctx, &s.mu) // what is left stays
	}
	cancel()
	s.mu.Unlock()
	s.stop()
	s.done.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	err := errors.Join(s.failed, s.flush())
	s.release()
	return err
}
