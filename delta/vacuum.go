package delta

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cauce-data/cauce/objstore"
)

// ErrRetention says that a vacuum would delete files that readers of older versions, or writers that have not
// committed yet, may still need.
var ErrRetention = errors.New("retention too short")

// vacuumRetentionLeast is the retention below which Vacuum wants to be forced.
const vacuumRetentionLeast = 7 * 24 * time.Hour

// VacuumOptions say what Vacuum deletes.
type VacuumOptions struct {
	// Retention is how long a file stays after its removal from the table, and how old a file must be that no version
	// names. 0 is the table's own (delta.deletedFileRetentionDuration, by default 7 days), unless Force is set: then it
	// is no time at all.
	Retention time.Duration
	DryRun    bool // only say what would be deleted
	// Force allows less than 7 days. Readers of older versions lose files then, and a writer that has not committed yet
	// loses what it wrote before that time.
	Force bool
	// Hook is called when a phase begins: "vacuum". nil: nobody listens.
	Hook func(phase string)
}

// VacuumResult says what was deleted, or would be.
type VacuumResult struct {
	Deleted []string // keys in the table's store, sorted
	Bytes   int64
	Kept    int // files that stay
}

// Vacuum deletes the files below the table's root that no live file, and no file removed within the retention, needs:
// data files, deletion vectors, files of the change data feed, and what killed writers left unfinished. What writers have just written and not committed is
// younger than the retention and stays; so does everything whose name, or folder's name, begins with "_" or "." unless
// it is a partition's folder or _change_data.
func (t *Table) Vacuum(ctx context.Context, o VacuumOptions) (*VacuumResult, error) {
	s, err := t.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	// PROTOCOL.md, "VACUUM Protocol Check": who may not write the table may not clean it either.
	if err := s.CheckWrite(); err != nil {
		return nil, fmt.Errorf("vacuum %s: %w", t, err)
	}
	own := s.DeletedFileRetention()
	retention := o.Retention
	if retention == 0 && !o.Force {
		retention = own
	}
	switch {
	case retention < 0:
		return nil, fmt.Errorf("vacuum %s: %w: %s", t, ErrRetention, retention)
	case retention < min(own, vacuumRetentionLeast) && !o.Force:
		return nil, fmt.Errorf("vacuum %s: %w: %s is less than %s; force it if no reader or writer is at work", t, ErrRetention, retention, min(own, vacuumRetentionLeast))
	}
	cutoff := t.opts.Clock().Add(-retention)
	if retention == 0 {
		cutoff = cutoff.Add(time.Millisecond) // what was removed in this very millisecond goes as well
	}
	keep, err := s.neededKeys(cutoff)
	if err != nil {
		return nil, fmt.Errorf("vacuum %s: %w", t, err)
	}
	if retention > own {
		if err := t.keepRemoved(ctx, s, cutoff, keep); err != nil {
			return nil, fmt.Errorf("vacuum %s: %w", t, err)
		}
	}
	res := &VacuumResult{}
	prefix := t.path
	if prefix != "" {
		prefix += "/"
	}
	var doomed []objstore.Info
	for info, err := range t.store.List(ctx, prefix, "") {
		if err != nil {
			return nil, fmt.Errorf("vacuum %s: %w", t, err)
		}
		if hiddenFile(strings.TrimPrefix(info.Key, prefix)) {
			continue
		}
		if keep[info.Key] || !info.ModTime.Before(cutoff) {
			res.Kept++
			continue
		}
		doomed = append(doomed, info)
	}
	sort.Slice(doomed, func(i, j int) bool { return doomed[i].Key < doomed[j].Key })
	if !o.DryRun {
		if o.Hook != nil {
			o.Hook("vacuum")
		}
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(8)
		for _, d := range doomed {
			g.Go(func() error { return t.store.Delete(gctx, d.Key) })
		}
		if err := g.Wait(); err != nil {
			return nil, fmt.Errorf("vacuum %s: %w", t, err)
		}
	}
	unfinished, err := t.sweep(ctx, cutoff, o.DryRun)
	if err != nil {
		return nil, err
	}
	for _, d := range append(doomed, unfinished...) {
		res.Deleted = append(res.Deleted, d.Key)
		res.Bytes += d.Size
	}
	return res, nil
}

// keepRemoved adds the files that commits since a time removed. The snapshot forgets removals after the table's own
// retention, so a longer one is answered from the commits themselves; if those are gone, from nothing.
func (t *Table) keepRemoved(ctx context.Context, s *Snapshot, cutoff time.Time, keep map[string]bool) error {
	seg, err := t.list(ctx, 0)
	if err != nil {
		return err
	}
	if len(seg.commits) == 0 || seg.commits[0].version > 0 && seg.commits[0].info.ModTime.After(cutoff) {
		return fmt.Errorf("%w: the log does not reach back to %s any more", ErrRetention, cutoff.UTC().Format(time.RFC3339))
	}
	for _, f := range seg.commits {
		if f.info.ModTime.Before(cutoff) {
			continue
		}
		c, _, err := t.readCommit(ctx, f.version)
		if err != nil {
			return err
		}
		for _, r := range c.removes {
			if err := s.noteKeys(keep, r.Path, r.DeletionVector); err != nil {
				return err
			}
		}
	}
	return nil
}

// neededKeys are the objects that live files, and files removed at or after a time, consist of.
func (s *Snapshot) neededKeys(cutoff time.Time) (map[string]bool, error) {
	keep := map[string]bool{}
	for _, a := range s.Adds() {
		if err := s.noteKeys(keep, a.Path, a.DeletionVector); err != nil {
			return nil, err
		}
	}
	for r := range s.tombstones() {
		// A tombstone without a time is older than every retention.
		if r.DeletionTimestamp < cutoff.UnixMilli() {
			continue
		}
		if err := s.noteKeys(keep, r.Path, r.DeletionVector); err != nil {
			return nil, err
		}
	}
	return keep, nil
}

// noteKeys adds the objects of a file. One outside of the store is never listed below the table's root.
func (s *Snapshot) noteKeys(keep map[string]bool, path string, dv *DeletionVector) error {
	info := s.TableInfo()
	var outside *UnsupportedError
	key, err := info.FileKey(path)
	switch {
	case err == nil:
		keep[key] = true
	case !errors.As(err, &outside):
		return err
	}
	if dv == nil || dv.StorageType == "i" {
		return nil
	}
	key, err = vectorPlace(info, dv)
	switch {
	case err == nil:
		keep[key] = true
	case !errors.As(err, &outside):
		return err
	}
	return nil
}

// hiddenFile reports whether a name below the table's root is none of Vacuum's business.
func hiddenFile(name string) bool {
	parts := strings.Split(name, "/")
	for i, p := range parts {
		if p == "" || p[0] != '_' && p[0] != '.' {
			continue
		}
		if folder := i < len(parts)-1; folder && (strings.Contains(p, "=") || i == 0 && p == "_change_data") {
			continue
		}
		return true
	}
	return false
}
