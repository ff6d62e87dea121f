// Package change lets goroutines wait for a change of what a lock guards, or for the end of a context: a condition variable
// that works with select.
package change

import (
	"context"
	"sync"
)

// Signal tells whoever waits for a change. The zero value works. All methods are called with the lock held.
type Signal struct {
	c chan struct{} // closed by Tell; nil: nobody waits
}

// C is a channel that the next Tell closes.
func (s *Signal) C() <-chan struct{} {
	if s.c == nil {
		s.c = make(chan struct{})
	}
	return s.c
}

// Tell wakes all that wait.
func (s *Signal) Tell() {
	if s.c != nil {
		close(s.c)
		s.c = nil
	}
}

// Wait gives the lock up until the next Tell, or until ctx ends, and then gives its error. Whoever waits for a condition
// looks at it again afterwards.
func (s *Signal) Wait(ctx context.Context, lock sync.Locker) error {
	c := s.C()
	lock.Unlock()
	defer lock.Lock()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-c:
		return nil
	}
}
