package spool

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"
)

// drain sends what waits until the context ends.
func (s *Spool) drain(ctx context.Context) {
	var (
		target Target
		pause  = s.o.RetryMin
		in     reader
	)
	defer in.close()
	defer func() {
		if target != nil {
			_ = target.Close() // what it did not acknowledge still stands here
		}
	}()
	for ctx.Err() == nil {
		var (
			batch []record
			next  place
			err   error
		)
		if target == nil {
			if target, err = s.o.Open(ctx); err != nil {
				target = nil
			}
		}
		if err == nil {
			batch, next, err = s.next(ctx, &in)
		}
		if err == nil {
			err = send(ctx, target, batch)
		}
		switch {
		case err == nil:
			pause = s.o.RetryMin
			if err := s.acknowledge(next, batch); err != nil {
				s.end(err)
				return
			}
			continue
		case ctx.Err() != nil:
			return
		case s.o.Permanent(err), in.damaged:
			s.end(err)
			return
		}
		if target != nil {
			_ = target.Close()
			target = nil
		}
		s.mu.Lock()
		first := s.down == nil
		s.down = err
		s.changed.Tell()
		s.mu.Unlock()
		if first {
			s.o.Log.Warn("topic cannot be reached; events wait on disk", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, s.o.RetryMax)
	}
}

// send hands a batch to the target and waits for its acknowledgement.
func send(ctx context.Context, t Target, batch []record) error {
	for _, r := range batch {
		if err := t.Publish(ctx, r.key, r.id, r.value); err != nil {
			return err
		}
	}
	return t.Flush(ctx)
}

// end notes an error that cannot be mended.
func (s *Spool) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail(err)
}

// reader reads segments from a place on.
type reader struct {
	f       *os.File
	n       uint64 // of the segment that f is
	damaged bool   // a record that was whole once is not any more
}

func (r *reader) close() {
	if r.f != nil {
		_ = r.f.Close()
		r.f = nil
	}
}

// next waits until something is to be sent and reads a batch of it; next is the place behind it.
func (s *Spool) next(ctx context.Context, in *reader) (batch []record, next place, err error) {
	for {
		s.mu.Lock()
		at, end := s.at, int64(0)
		for i, seg := range s.segments {
			if seg.n != at.segment {
				continue
			}
			if end = seg.size; at.offset >= end && i+1 < len(s.segments) { // all of this one is sent
				at, end = place{segment: s.segments[i+1].n}, s.segments[i+1].size
			}
			break
		}
		s.mu.Unlock()
		if at.offset < end {
			return s.read(in, at, min(end, at.offset+batchBytes), end)
		}
		select {
		case <-ctx.Done():
			return nil, place{}, ctx.Err()
		case <-s.more:
		}
	}
}

// read reads whole records from a place on, up to soft and at least one of those before end.
func (s *Spool) read(in *reader, at place, soft, end int64) (batch []record, next place, err error) {
	if in.f == nil || in.n != at.segment {
		in.close()
		if in.f, err = os.Open(s.path(at.segment)); err != nil {
			return nil, place{}, fmt.Errorf("spool: %w", err)
		}
		in.n = at.segment
	}
	for to := soft; ; to = end {
		buf := make([]byte, to-at.offset)
		if _, err := in.f.ReadAt(buf, at.offset); err != nil {
			if err == io.EOF { //nolint:errorlint // ReadAt's own
				err = io.ErrUnexpectedEOF
			}
			in.damaged = true
			return nil, place{}, fmt.Errorf("spool: %s: %w", s.path(at.segment), err)
		}
		next = at
		for len(buf) > 0 && len(batch) < batchRecords {
			r, n, err := parseRecord(buf)
			if err != nil {
				if len(batch) > 0 || to < end && err == errShort { //nolint:errorlint // parseRecord's own
					break
				}
				in.damaged = true
				return nil, place{}, fmt.Errorf("spool: %s at byte %d: %w", s.path(at.segment), next.offset, err)
			}
			batch = append(batch, r)
			buf = buf[n:]
			next.offset += int64(n)
		}
		if len(batch) > 0 {
			return batch, next, nil
		}
	}
}

// acknowledge forgets a batch.
func (s *Spool) acknowledge(next place, batch []record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range batch {
		s.bytes -= r.size()
	}
	s.events -= int64(len(batch))
	s.at, s.progress = next, time.Now()
	if s.down != nil {
		s.o.Log.Warn("topic is reached again", "events_waiting", s.events)
		s.down = nil
	}
	if _, err := s.sent.WriteAt(next.bytes(), 0); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	// Segments before are of no use.
	for len(s.segments) > 1 && s.segments[0].n < next.segment {
		if err := os.Remove(s.path(s.segments[0].n)); err != nil {
			return fmt.Errorf("spool: %w", err)
		}
		s.segments = s.segments[1:]
	}
	s.changed.Tell()
	return nil
}
