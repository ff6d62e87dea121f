package delta

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/cauce-data/cauce/objstore"
)

// ErrFilesMissing says that files of the version to restore have been deleted.
var ErrFilesMissing = errors.New("data files are gone")

// RestoreOptions say how Restore commits.
type RestoreOptions struct {
	DryRun       bool // only find out whether it can be done
	UserMetadata string
	Hook         func(phase string)
}

// Restore makes the table what it was at a version, in a new commit: rows, schema, properties and clustering. The protocol and the
// progress of applications (txn) stay as they are. ErrFilesMissing if Vacuum has deleted files of that version.
func (t *Table) Restore(ctx context.Context, v Version, o RestoreOptions) (*Result, error) {
	return t.restore(ctx, o, map[string]string{"version": strconv.FormatInt(int64(v), 10)}, func(ctx context.Context) (*Snapshot, error) {
		return t.SnapshotAt(ctx, v)
	})
}

// RestoreAsOf is Restore to the version that was the newest at a time.
func (t *Table) RestoreAsOf(ctx context.Context, at time.Time, o RestoreOptions) (*Result, error) {
	return t.restore(ctx, o, map[string]string{"timestamp": at.UTC().Format(time.RFC3339Nano)}, func(ctx context.Context) (*Snapshot, error) {
		return t.SnapshotAsOf(ctx, at)
	})
}

func (t *Table) restore(ctx context.Context, o RestoreOptions, params map[string]string, find func(context.Context) (*Snapshot, error)) (*Result, error) {
	target, err := find(ctx)
	if err != nil {
		return nil, fmt.Errorf("restore %s: %w", t, err)
	}
	for try := 1; ; try++ {
		res, err := t.restoreOnce(ctx, target, o, params)
		if errors.Is(err, ErrConflict) && try < t.opts.MaxTries {
			if err = t.pause(ctx, try); err == nil {
				continue
			}
		}
		if err != nil {
			return nil, fmt.Errorf("restore %s to version %d: %w", t, target.Version(), err)
		}
		return res, nil
	}
}

func (t *Table) restoreOnce(ctx context.Context, target *Snapshot, o RestoreOptions, params map[string]string) (*Result, error) {
	s, err := t.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.CheckWrite(); err != nil {
		return nil, err
	}
	info := target.TableInfo()
	now := t.opts.Clock().UnixMilli()
	tx := t.Begin(s)
	tx.oldRows = true
	tx.ReadWhole()
	mark, err := target.rowIDMark()
	if err != nil {
		return nil, err
	}
	tx.rowIDs = mark + 1 // the table forgets them if row tracking is dropped
	res := &Result{Version: s.Version()}
	var removedBytes int64
	for _, x := range target.Adds() {
		if s.holds(x.Path, x.DeletionVector) {
			continue
		}
		if err := t.present(ctx, info, x); err != nil {
			return nil, err
		}
		x.DataChange = true
		tx.AddFile(x)
		res.FilesAdded++
		res.BytesAdded += x.Size
		if st, err := ParseStats(x.Stats); err == nil && st.NumRecords > 0 {
			res.Rows += st.NumRecords
		}
	}
	for _, x := range s.Adds() {
		if !target.holds(x.Path, x.DeletionVector) {
			tx.RemoveFile(x.Tombstone(now, true))
			res.FilesRemoved++
			removedBytes += x.Size
		}
	}
	meta := target.Metadata()
	if last := maxColumnID(s.metadata, target.metadata); last != meta.Configuration[propMaxColumnID] {
		// PROTOCOL.md, "Column Mapping": an id is never given twice, also not by way of an older version.
		meta.Configuration = maps.Clone(meta.Configuration)
		if meta.Configuration == nil {
			meta.Configuration = map[string]string{}
		}
		meta.Configuration[propMaxColumnID] = last
	}
	same := actionText(s.metadata) == actionText(&meta)
	protocol := s.protocol
	if !same {
		tx.SetMetadata(meta)
		if up := protocol.raisedFor(&meta, target.schema); up != nil {
			protocol = up
		}
	}
	if d, differs := s.clusteringAt(target); differs {
		tx.SetDomain(d)
		if up := protocol.raised(featureOf("clustering")); up != nil {
			protocol = up
		}
		same = false
	}
	if protocol != s.protocol {
		tx.SetProtocol(*protocol) // a feature has been dropped since
	}
	if res.FilesAdded == 0 && res.FilesRemoved == 0 && same {
		return res, nil
	}
	if o.DryRun {
		return res, nil
	}
	n := func(v int64) string { return strconv.FormatInt(v, 10) }
	done, err := tx.Commit(ctx, CommitOptions{
		Operation: "RESTORE", Parameters: params, UserMetadata: o.UserMetadata, Hook: o.Hook,
		Metrics: map[string]string{
			"tableSizeAfterRestore": n(target.Bytes()), "numOfFilesAfterRestore": n(int64(target.NumFiles())),
			"numRemovedFiles": n(int64(res.FilesRemoved)), "removedFilesSize": n(removedBytes),
			"numRestoredFiles": n(int64(res.FilesAdded)), "restoredFilesSize": n(res.BytesAdded),
		},
	})
	if err != nil {
		return nil, err
	}
	res.Version, res.Committed, res.CheckpointErr = done.Version, true, done.CheckpointErr
	return res, nil
}

// clusteringAt is the domain that has the table clustered as it was in another version, and whether it is clustered otherwise.
// Other domains stay as they are.
func (s *Snapshot) clusteringAt(target *Snapshot) (was DomainMetadata, differs bool) {
	is, now := s.Domain(clusteringDomain)
	was, then := target.Domain(clusteringDomain)
	if !then {
		was, _ = clusteringOf(nil, nil, nil) // of no columns, which cannot fail
	}
	return was, (now || then) && is.Configuration != was.Configuration
}

// present makes sure that a file and its deletion vector exist.
func (t *Table) present(ctx context.Context, info TableInfo, a *Add) error {
	key, err := info.FileKey(a.Path)
	if err != nil {
		return err
	}
	keys := []string{key}
	if dv := a.DeletionVector; dv != nil && dv.StorageType != "i" {
		key, err := vectorPlace(info, dv)
		if err != nil {
			return err
		}
		keys = append(keys, key)
	}
	for _, k := range keys {
		if _, err := t.store.Stat(ctx, k); errors.Is(err, objstore.ErrNotFound) {
			return fmt.Errorf("%w: %s", ErrFilesMissing, k)
		} else if err != nil {
			return err
		}
	}
	return nil
}
