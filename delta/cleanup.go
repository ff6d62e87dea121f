package delta

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// CleanupOptions bound what CleanupLog may delete.
type CleanupOptions struct {
	Retention time.Duration // age of entries that are kept; 0: the table's delta.logRetentionDuration
	DryRun    bool
	// Before is called with the commits about to be deleted, oldest first, so that what hangs on them can be kept
	// elsewhere; an error stops the cleanup with nothing deleted.
	Before func(ctx context.Context, commits []Commit) error
}

// CleanupResult says what was deleted, or would be.
type CleanupResult struct {
	Deleted  []string // keys
	Earliest Version  // the first version that can be rebuilt afterwards
}

// CleanupLog deletes log entries that have outlived the retention and that no younger version needs: those before the
// newest checkpoint that can be read and whose successors alone are to be kept. The commit of that checkpoint stays
// (PROTOCOL.md, "Metadata Cleanup"). Older versions cannot be read afterwards. If there is no such checkpoint, nothing is
// deleted.
// Checksums, compacted commits and sidecars that no checkpoint left names go with them.
func (t *Table) CleanupLog(ctx context.Context, o CleanupOptions) (*CleanupResult, error) {
	// Spark cuts at the start of a day, so that readers of "the last 30 days" have whole days; so is it here.
	return t.cleanupLog(ctx, o, 24*time.Hour)
}

// cleanupLog is CleanupLog with a cut at the start of a unit of time, 0 for exactly at the retention.
func (t *Table) cleanupLog(ctx context.Context, o CleanupOptions, unit time.Duration) (*CleanupResult, error) {
	s, err := t.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.CheckWrite(); err != nil {
		return nil, err
	}
	if o.Retention <= 0 && unit > 0 {
		o.Retention = s.LogRetention()
	}
	seg, err := t.list(ctx, 0)
	if err != nil {
		return nil, err
	}
	res := &CleanupResult{Earliest: seg.earliest(seg.completeCheckpoints())}
	times, err := t.commitTimes(ctx, s, seg)
	if err != nil {
		return nil, err
	}
	cut := t.opts.Clock().Add(-o.Retention).UTC().Truncate(unit)
	newest := Version(-1) // the last version that is old enough
	for _, e := range times {
		if !e.at.After(cut) {
			newest = e.version
		}
	}
	keep := Version(-1)
	for _, files := range seg.completeCheckpoints() {
		v := files[0].version
		if v > newest {
			continue
		}
		// Of one that cannot be read the commits before it are all that is left.
		_, err := t.replay(ctx, files, nil)
		if err == nil {
			keep = v
			break
		}
		if !errors.Is(err, ErrCorrupt) && !isNotFound(err) {
			return nil, err
		}
	}
	if keep <= 0 {
		return res, nil
	}
	// Only names that belong to the log are deleted; what another feature keeps here is not known.
	var doomed []string
	var versions []Version
	for _, f := range seg.commits {
		if f.version < keep {
			doomed = append(doomed, f.info.Key)
			versions = append(versions, f.version)
		}
	}
	for _, f := range seg.checkpoints {
		if f.version < keep {
			doomed = append(doomed, f.info.Key)
		}
	}
	prefix := t.logKey("")
	sidecars := map[string]bool{}
	// PROTOCOL.md, "Metadata Cleanup": those that are less than a day old may belong to a checkpoint that is not there yet,
	// however short the retention is.
	young := t.opts.Clock().Add(-24 * time.Hour).UTC().Truncate(24 * time.Hour)
	if cut.Before(young) {
		young = cut
	}
	for info, err := range t.store.List(ctx, prefix, "") {
		if err != nil {
			return nil, fmt.Errorf("list the log of %s: %w", t, err)
		}
		name := strings.TrimPrefix(info.Key, prefix)
		if strings.HasPrefix(name, "_sidecars/") && strings.HasSuffix(name, ".parquet") && info.ModTime.Before(young) {
			sidecars[info.Key] = true
		}
		if crc, ok := strings.CutSuffix(name, ".crc"); ok {
			if f, _, ok := parseLogName(crc + ".json"); ok && f.version < keep {
				doomed = append(doomed, info.Key)
			}
		}
		// A compacted commit is of no use once the commits that it stands for are behind the first checkpoint.
		if _, last, ok := compactedRange(name); ok && last < keep {
			doomed = append(doomed, info.Key)
		}
	}
	if len(sidecars) > 0 {
		// Those that a checkpoint which stays names are needed.
		for _, f := range seg.checkpoints {
			if f.version < keep {
				continue
			}
			named, err := t.sidecarsOf(ctx, f)
			if err != nil {
				return nil, fmt.Errorf("clean up the log of %s: which sidecars are needed: %w", t, err)
			}
			for _, key := range named {
				delete(sidecars, key)
			}
		}
		doomed = append(doomed, sortedKeys(sidecars)...)
	}
	if len(doomed) == 0 {
		return res, nil
	}
	if o.Before != nil {
		commits := make([]Commit, 0, len(versions))
		for _, v := range versions {
			c, err := t.CommitAt(ctx, v)
			if err != nil {
				return nil, err
			}
			commits = append(commits, c)
		}
		if err := o.Before(ctx, commits); err != nil {
			return nil, err
		}
	}
	if !o.DryRun {
		// Oldest first: whatever stops this, what is left is a log without gaps.
		for _, key := range doomed {
			if err := t.store.Delete(ctx, key); err != nil {
				return res, err
			}
			res.Deleted = append(res.Deleted, key)
		}
	} else {
		res.Deleted = doomed
	}
	res.Earliest = keep
	return res, nil
}

// compactedRange reads the name of a compacted commit, "x.y.compacted.json".
func compactedRange(name string) (from, to Version, ok bool) {
	rest, ok := strings.CutSuffix(name, ".compacted.json")
	if !ok || len(rest) != 41 || rest[20] != '.' {
		return 0, 0, false
	}
	x, err := strconv.ParseUint(rest[:20], 10, 63)
	y, err2 := strconv.ParseUint(rest[21:], 10, 63)
	return Version(x), Version(y), err == nil && err2 == nil
}

// sidecarsOf lists the sidecars that a file of a checkpoint names, by key.
func (t *Table) sidecarsOf(ctx context.Context, f logFile) ([]string, error) {
	var out []string
	each := func(a *checkpointAction) error {
		if a.Sidecar != nil {
			key, err := t.sidecarKey(a.Sidecar.Path)
			if err != nil {
				return err
			}
			out = append(out, key)
		}
		return nil
	}
	if strings.HasSuffix(f.info.Key, ".json") {
		return out, t.readCheckpointJSON(ctx, f.info.Key, each)
	}
	// The adds are read column by column, which is fast, and thrown away.
	_, err := readCheckpointAdds(ctx, t.store, f.info.Key, true, each)
	return out, err
}
