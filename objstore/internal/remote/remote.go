// Package remote is what the stores of other machines have in common: how a conditional create is repeated, and how an
// object's own time of modification is written beside it.
package remote

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/cauce-data/cauce/objstore"
)

// ModTimeKey is the name of the metadata that keeps the time of modification, as rclone writes it.
const ModTimeKey = "mtime"

// FormatModTime spells a time as seconds since 1970 with nine decimals.
func FormatModTime(t time.Time) string {
	return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond())
}

// ParseModTime reads what FormatModTime wrote, or an RFC 3339 time; anything else is no time.
func ParseModTime(s string) (time.Time, bool) {
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t.UTC(), true
	}
	whole, frac, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || len(frac) > 9 || sec < -1<<40 || sec > 1<<40 {
		return time.Time{}, false
	}
	ns := int64(0)
	if frac != "" {
		u, err := strconv.ParseUint(frac+strings.Repeat("0", 9-len(frac)), 10, 32)
		if err != nil {
			return time.Time{}, false
		}
		ns = int64(u)
	}
	return time.Unix(sec, ns).UTC(), true
}

// Outcome is what one attempt of a conditional create came to.
type Outcome int

// The outcomes.
const (
	Created Outcome = iota
	Exists          // refused, because the object is there
	Refused         // nothing was written, and another attempt would end the same way
	Again           // nothing was written, and another attempt may succeed
	Unknown         // no answer, or one that does not tell: it may have been written
)

// Attempts is how often a request is sent before it is given up.
const Attempts = 8

// Backoff is the pause before the n-th repetition, from 1: random up to a bound that doubles, 5 s at most.
func Backoff(n int) time.Duration {
	most := 100 * time.Millisecond << min(n-1, 6)
	return time.Duration(rand.Int64N(int64(min(most, 5*time.Second)))) + time.Millisecond
}

// Create sends a conditional create until it is settled. A client library must not repeat such a request by itself: if
// the answer to the first is lost, the second is told that the object exists, and the library hides that it is the
// caller's own. Errors of attempts name the key. Once an outcome was unknown, "exists" proves nothing, and the error is objstore.ErrAmbiguous.
func Create(ctx context.Context, key string, attempt func(context.Context) (Outcome, error)) error {
	unknown := false
	for n := 1; ; n++ {
		if err := ctx.Err(); err != nil {
			return ambiguous(unknown, fmt.Errorf("put %s: %w", key, err))
		}
		out, err := attempt(ctx)
		switch out {
		case Created:
			return nil
		case Exists:
			if unknown {
				return ambiguous(true, fmt.Errorf("put %s: an earlier attempt had no answer, and an object is there now", key))
			}
			return fmt.Errorf("put %s: %w", key, objstore.ErrExists)
		case Refused:
			return ambiguous(unknown, err)
		case Unknown:
			unknown = true
		}
		if n >= Attempts {
			return ambiguous(unknown, fmt.Errorf("%d attempts: %w", n, err))
		}
		if err := Sleep(ctx, Backoff(n)); err != nil {
			return ambiguous(unknown, fmt.Errorf("put %s: %w", key, err))
		}
	}
}

func ambiguous(unknown bool, err error) error {
	if unknown {
		return fmt.Errorf("%w: %w", objstore.ErrAmbiguous, err)
	}
	return err
}

// Sleep waits, or returns the context's error when it ends earlier.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Range turns the offset and length of objstore.Store.GetRange into absolute ones for an object of a size.
func Range(key string, offset, n, size int64) (from, length int64, err error) {
	if offset < 0 {
		offset = max(0, size+offset)
	}
	if offset > size {
		return 0, 0, fmt.Errorf("get %s: offset %d lies behind the end at %d", key, offset, size)
	}
	if n < 0 || n > size-offset {
		n = size - offset
	}
	return offset, n, nil
}
