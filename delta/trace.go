package delta

import (
	"context"
	"iter"
	"slices"
	"time"
)

// Written is what one commit wrote: the data files that are new with it and hold rows that are new or changed.
type Written struct {
	Version Version
	Time    time.Time // as Commit.Time
	Info    CommitInfo
	// Files may hold rows of the predicate, by partition values and statistics. Their deletion vectors are left out: a row
	// that died later was written all the same. The files themselves may have been vacuumed.
	Files []File
}

// Written yields the commits that the log still holds, newest first, with the files that each wrote and that may hold
// rows of the predicate (nil: all). Files that a commit only gave another deletion vector, that it brought back
// (RESTORE), or that it rewrote without changing data (OPTIMIZE) are not among them.
func (t *Table) Written(ctx context.Context, where Predicate) iter.Seq2[Written, error] {
	return func(yield func(Written, error) bool) {
		s, err := t.Snapshot(ctx)
		if err != nil {
			yield(Written{}, err)
			return
		}
		seg, err := t.list(ctx, 0)
		if err != nil {
			yield(Written{}, err)
			return
		}
		times, err := t.commitTimes(ctx, s, seg)
		if err != nil {
			yield(Written{}, err)
			return
		}
		info := s.TableInfo()
		for _, e := range slices.Backward(times) {
			c, _, err := t.readCommit(ctx, e.version)
			if isNotFound(err) {
				return // cleaned up meanwhile
			}
			if err != nil {
				yield(Written{}, err)
				return
			}
			w := Written{Version: e.version, Time: e.at}
			if c.info != nil {
				w.Info = *c.info
			}
			removed := map[string]bool{}
			for _, r := range c.removes {
				removed[r.Path] = true
			}
			for _, a := range c.adds {
				if !a.DataChange || removed[a.Path] || w.Info.Operation == "RESTORE" || where != nil && !s.mayMatch(where, a) {
					continue
				}
				key, err := info.FileKey(a.Path)
				if err != nil {
					yield(Written{}, err)
					return
				}
				w.Files = append(w.Files, File{Add: a, Key: key})
			}
			if !yield(w, nil) {
				return
			}
		}
	}
}
