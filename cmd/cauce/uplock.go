package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/cauce-data/cauce/pipeline"
)

// lockUp makes this process the lake's only `up` on this machine until release is called. A second one would do no harm
// to the tables, but each would read every event and win half of the commits, and each would start the producers.
func lockUp(l *pipeline.Lake) (release func(), err error) {
	path := filepath.Join(l.StateDir(), "up.lock")
	if err := os.MkdirAll(l.StateDir(), 0o755); err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock of cauce up: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := io.ReadAll(io.LimitReader(f, 32))
		_ = f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		return nil, usagef("cauce up runs for %s already, as process %s; stop that one first. cauce status shows how far it is, and run batch works beside it",
			l.File, strings.TrimSpace(string(holder)))
	}
	// The lock ends with the process, however that ends; the number is only for the message above.
	if err := f.Truncate(0); err == nil {
		_, _ = fmt.Fprintf(f, "%d\n", os.Getpid())
	}
	return func() { _ = f.Close() }, nil
}
