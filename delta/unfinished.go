package delta

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/cauce-data/cauce/objstore"
)

// sweep removes what writers that were killed in the middle of a file have left in the table's folder, its log
// included: the store hides it from listings, so nothing else would ever find it. Stores that leave nothing behind are
// left alone.
func (t *Table) sweep(ctx context.Context, before time.Time, dryRun bool) ([]objstore.Info, error) {
	s, ok := t.store.(objstore.Sweeper)
	if !ok {
		return nil, nil
	}
	prefix := strings.TrimSuffix(t.path, "/")
	if prefix != "" {
		prefix += "/"
	}
	swept, err := s.Sweep(ctx, prefix, before, dryRun)
	if err != nil {
		return nil, fmt.Errorf("vacuum %s: %w", t, err)
	}
	return swept, nil
}
