package buffer

import (
	"context"
	"errors"
	"testing"

	"github.com/nats-io/nats.go"
)

// TestStoppedWhileTheHostChanges ends the work while an operation waits for a new host: the answer must be that it was
// stopped, which callers take for a good end, and not that nobody could be reached.
func TestStoppedWhileTheHostChanges(t *testing.T) {
	b, err := Open(t.Context(), Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for _, transientErr := range []error{nats.ErrReconnectBufExceeded, nats.ErrNoResponders} {
		ctx, cancel := context.WithCancel(t.Context())
		tries := 0
		err = b.retry(ctx, func(context.Context) error {
			if tries++; tries == 3 {
				cancel()
			}
			return transientErr
		})
		if tries != 3 || !errors.Is(err, context.Canceled) || !errors.Is(err, transientErr) {
			t.Errorf("%v after %d tries", err, tries)
		}
	}
}
