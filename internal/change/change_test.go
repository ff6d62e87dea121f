package change

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestEveryWaiterIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var (
			mu   sync.Mutex
			s    Signal
			n    int
			done sync.WaitGroup
		)
		for range 5 {
			done.Go(func() {
				mu.Lock()
				defer mu.Unlock()
				for n < 3 {
					if err := s.Wait(t.Context(), &mu); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		for range 3 {
			time.Sleep(time.Second)
			mu.Lock()
			n++
			s.Tell()
			mu.Unlock()
		}
		done.Wait()
		mu.Lock()
		defer mu.Unlock()
		s.Tell() // nobody waits
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Wait(ctx, &mu); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	})
}
