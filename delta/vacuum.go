package delta

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path"
	"sort"
	"strconv"
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
	// Lite finds the files in the log instead of listing the table's folder: those that commits removed, as Spark's
	// VACUUM LITE does. Files that no commit ever named stay; ErrLogCleanedUp if commits that no earlier lite vacuum has
	// seen are gone.
	Lite bool
	// Inventory stands for the listing of the table's folder where one exists already, such as a report of the object
	// store: what it does not name is not deleted. nil: the folder is listed.
	Inventory iter.Seq2[objstore.Info, error]
	// NoCommit leaves out the commits VACUUM START and VACUUM END, which, as with Spark, carry the metrics and change
	// nothing else. A dry run, and a vacuum that finds nothing, never writes them.
	NoCommit bool
	// Hook is called when a phase begins: "vacuum". nil: nobody listens.
	Hook func(phase string)
}

// VacuumResult says what was deleted, or would be.
type VacuumResult struct {
	Deleted []string // keys in the table's store, sorted
	Bytes   int64
	Kept    int // files that stay; 0 in a lite vacuum, which does not see them
	// Metrics are those of VACUUM START and VACUUM END under Spark's names.
	Metrics map[string]string
}

// Vacuum deletes the files below the table's root that no live file, and no file removed within the retention, needs:
// data files, deletion vectors, files of the change data feed, and what killed writers left unfinished. What writers
// have just written and not committed is younger than the retention and stays; so does everything whose name, or folder's name, begins with "_" or "." unless
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
	case o.Lite && o.Inventory != nil:
		return nil, fmt.Errorf("vacuum %s: a lite vacuum reads the log and takes no inventory", t)
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
	listing := o.Inventory
	if listing == nil {
		listing = t.store.List(ctx, prefix, "")
	}
	seen := Version(-1)
	if o.Lite {
		listing = nil
		if doomed, seen, err = t.removedBefore(ctx, s, cutoff, keep); err != nil {
			return nil, fmt.Errorf("vacuum %s: %w", t, err)
		}
	}
	for info, err := range all(listing) {
		if err != nil {
			return nil, fmt.Errorf("vacuum %s: %w", t, err)
		}
		name, below := strings.CutPrefix(info.Key, prefix)
		if !below || hiddenFile(name) {
			continue
		}
		if keep[info.Key] || !info.ModTime.Before(cutoff) {
			res.Kept++
			continue
		}
		doomed = append(doomed, info)
	}
	sort.Slice(doomed, func(i, j int) bool { return doomed[i].Key < doomed[j].Key })
	for _, d := range doomed {
		res.Bytes += d.Size
	}
	res.Metrics = map[string]string{"numFilesToDelete": strconv.Itoa(len(doomed)), "sizeOfDataToDelete": strconv.FormatInt(res.Bytes, 10)}
	note := func(operation string, params, metrics map[string]string) error { return nil }
	if !o.DryRun && !o.NoCommit && len(doomed) > 0 {
		note = func(operation string, params, metrics map[string]string) error {
			s, err := t.Snapshot(ctx)
			if err != nil {
				return err
			}
			_, err = t.Begin(s).Commit(ctx, CommitOptions{Operation: operation, Parameters: params, Metrics: metrics})
			return err
		}
	}
	if !o.DryRun {
		if o.Hook != nil {
			o.Hook("vacuum")
		}
		params := map[string]string{
			"retentionCheckEnabled": strconv.FormatBool(!o.Force), "defaultRetentionMillis": strconv.FormatInt(own.Milliseconds(), 10),
		}
		if o.Retention > 0 {
			params["specifiedRetentionMillis"] = strconv.FormatInt(o.Retention.Milliseconds(), 10)
		}
		if err := note("VACUUM START", params, res.Metrics); err != nil {
			return nil, fmt.Errorf("vacuum %s: %w", t, err)
		}
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(8)
		for _, d := range doomed {
			g.Go(func() error { return t.store.Delete(gctx, d.Key) })
		}
		err := g.Wait()
		status := "COMPLETED"
		if err != nil {
			status = "FAILED"
		}
		end := map[string]string{"numDeletedFiles": strconv.Itoa(len(doomed)), "numVacuumedDirectories": strconv.Itoa(folders(doomed))}
		for k, v := range end {
			res.Metrics[k] = v
		}
		if err == nil && o.Lite {
			err = t.writeVacuumInfo(ctx, seen)
		}
		if err = errors.Join(err, note("VACUUM END", map[string]string{"status": status}, end)); err != nil {
			return nil, fmt.Errorf("vacuum %s: %w", t, err)
		}
	}
	unfinished, err := t.sweep(ctx, cutoff, o.DryRun)
	if err != nil {
		return nil, err
	}
	for _, d := range unfinished {
		res.Bytes += d.Size
	}
	for _, d := range append(doomed, unfinished...) {
		res.Deleted = append(res.Deleted, d.Key)
	}
	return res, nil
}

// all is a sequence, nil an empty one.
func all(s iter.Seq2[objstore.Info, error]) iter.Seq2[objstore.Info, error] {
	if s == nil {
		return func(func(objstore.Info, error) bool) {}
	}
	return s
}

// folders counts the folders that objects lie in.
func folders(infos []objstore.Info) int {
	seen := map[string]bool{}
	for _, i := range infos {
		seen[path.Dir(i.Key)] = true
	}
	return len(seen)
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
