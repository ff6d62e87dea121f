package delta

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cauce-data/cauce/objstore"
)

// ErrLogCleanedUp says that a lite vacuum would miss files, because commits that it has to read are gone. A full vacuum
// finds them (Spark: DELTA_CANNOT_VACUUM_LITE).
var ErrLogCleanedUp = errors.New("the log has been cleaned up")

// vacuumInfo is the content of _delta_log/_last_vacuum_info, which Spark's lite vacuum reads and writes as well: every
// file that commits up to this version removed has been deleted.
type vacuumInfo struct {
	LatestCommitVersionOutsideOfRetentionWindow Version `json:"latestCommitVersionOutsideOfRetentionWindow"`
}

const vacuumInfoName = "_last_vacuum_info"

// removedBefore finds the objects of files that commits older than a time removed, as far as nothing in keep needs
// them, and the last commit that it read. It begins behind the last lite vacuum.
func (t *Table) removedBefore(ctx context.Context, s *Snapshot, cutoff time.Time, keep map[string]bool) ([]objstore.Info, Version, error) {
	last := Version(-1)
	data, _, err := readObject(ctx, t.store, t.logKey(vacuumInfoName))
	switch {
	case err == nil:
		var v vacuumInfo
		if json.Unmarshal(data, &v) == nil {
			last = v.LatestCommitVersionOutsideOfRetentionWindow
		}
	case !isNotFound(err):
		return nil, 0, err
	}
	seg, err := t.list(ctx, max(last, 0))
	if err != nil {
		return nil, 0, err
	}
	times, err := t.commitTimes(ctx, s, seg)
	if err != nil {
		return nil, 0, err
	}
	if len(times) > 0 && times[0].version > last+1 {
		return nil, 0, fmt.Errorf("%w: the first commit left is version %d, and versions from %d on are needed; vacuum in full", ErrLogCleanedUp, times[0].version, last+1)
	}
	gone := map[string]bool{}
	seen := last
	for _, e := range times {
		if e.version <= last {
			continue
		}
		if !e.at.Before(cutoff) {
			break
		}
		c, _, err := t.readCommit(ctx, e.version)
		if err != nil {
			return nil, 0, err
		}
		for _, r := range c.removes {
			if err := s.noteKeys(gone, r.Path, r.DeletionVector); err != nil {
				return nil, 0, err
			}
		}
		for _, f := range c.cdc {
			if err := s.noteKeys(gone, f.Path, nil); err != nil {
				return nil, 0, err
			}
		}
		seen = e.version
	}
	var doomed []objstore.Info
	for _, key := range sortedKeys(gone) {
		if keep[key] {
			continue
		}
		// Files of another table, from which this one was cloned, are that table's to delete.
		if name, below := strings.CutPrefix(key, joinKey(t.path, "")); !below || hiddenFile(name) {
			continue
		}
		info, err := t.store.Stat(ctx, key)
		if isNotFound(err) {
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		// A file of that name that is younger than the commit is another one.
		if info.ModTime.Before(cutoff) {
			info.Key = key
			doomed = append(doomed, info)
		}
	}
	return doomed, seen, nil
}

func (t *Table) writeVacuumInfo(ctx context.Context, seen Version) error {
	if seen < 0 {
		return nil
	}
	data, err := json.Marshal(vacuumInfo{seen})
	if err != nil {
		return err
	}
	return t.store.Put(ctx, t.logKey(vacuumInfoName), bytes.NewReader(data), objstore.PutOptions{})
}
