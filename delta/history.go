package delta

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"time"
)

// Commit is an entry of a table's history.
type Commit struct {
	Version Version
	// Time is the in-commit timestamp where the table has them on, else the time of the log entry, moved forward where
	// needed to be later than that of the entry before.
	Time time.Time
	Info CommitInfo

	FilesAdded, FilesRemoved int
	Txns                     []Txn
}

// History lists the newest commits first, at most limit (0: all that the log still holds).
func (t *Table) History(ctx context.Context, limit int) ([]Commit, error) {
	s, err := t.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	seg, err := t.list(ctx, 0)
	if err != nil {
		return nil, err
	}
	times, err := t.commitTimes(ctx, s, seg)
	if err != nil {
		return nil, err
	}
	slices.Reverse(times)
	if limit > 0 && len(times) > limit {
		times = times[:limit]
	}
	out := make([]Commit, 0, len(times))
	for _, e := range times {
		c, _, err := t.readCommit(ctx, e.version)
		if isNotFound(err) {
			break // cleaned up meanwhile
		}
		if err != nil {
			return nil, err
		}
		h := Commit{Version: e.version, Time: e.at, FilesAdded: len(c.adds), FilesRemoved: len(c.removes), Txns: c.txns}
		if c.info != nil {
			h.Info = *c.info
		}
		out = append(out, h)
	}
	return out, nil
}

// CommitAt gives the history entry of one version. VersionError if its log entry is gone.
func (t *Table) CommitAt(ctx context.Context, v Version) (Commit, error) {
	c, info, err := t.readCommit(ctx, v)
	if isNotFound(err) {
		s, serr := t.Snapshot(ctx)
		if serr != nil {
			return Commit{}, serr
		}
		return Commit{}, &VersionError{Version: v, Latest: s.version}
	}
	if err != nil {
		return Commit{}, err
	}
	h := Commit{Version: v, Time: timeOf(c, info), FilesAdded: len(c.adds), FilesRemoved: len(c.removes), Txns: c.txns}
	if c.info != nil {
		h.Info = *c.info
	}
	return h, nil
}

// Actions are what one commit says of the table and its files.
type Actions struct {
	Version  Version
	Time     time.Time
	Protocol *Protocol // nil: unchanged
	Metadata *Metadata // nil: unchanged
	Adds     []*Add
	Removes  []*Remove
	CDC      []*CDC
}

// Actions reads the commits from one version to another, both included, in order. VersionError if the log does not hold one
// of them.
func (t *Table) Actions(ctx context.Context, from, to Version) ([]Actions, error) {
	s, err := t.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	if from < 0 || from > to || to > s.version {
		return nil, &VersionError{Version: max(from, to), Latest: s.version}
	}
	seg, err := t.list(ctx, from)
	if err != nil {
		return nil, err
	}
	commits, ok := seg.between(from-1, to)
	if !ok {
		return nil, &VersionError{Version: from, Latest: s.version}
	}
	// The times of neighbours must rise; those before from can only move it forward where clocks went back.
	times, err := t.commitTimes(ctx, s, segment{commits: commits})
	if err != nil {
		return nil, err
	}
	at := map[Version]time.Time{}
	for _, e := range times {
		at[e.version] = e.at
	}
	out := make([]Actions, 0, len(commits))
	for _, f := range commits {
		c, _, err := t.readCommit(ctx, f.version)
		if err != nil {
			return nil, err
		}
		out = append(out, Actions{Version: c.version, Time: at[c.version], Protocol: c.protocol, Metadata: c.metadata, Adds: c.adds, Removes: c.removes, CDC: c.cdc})
	}
	return out, nil
}

type versionTime struct {
	version Version
	at      time.Time
}

// commitTimes gives the times of all log entries up to s, ascending in version and strictly in time, but for the version
// that turned in-commit timestamps on (see VersionAsOf).
func (t *Table) commitTimes(ctx context.Context, s *Snapshot, seg segment) ([]versionTime, error) {
	out := make([]versionTime, 0, len(seg.commits))
	// PROTOCOL.md, "In-Commit Timestamps": from the enablement version on the commit's own timestamp counts, before it
	// the time of the object.
	ictFrom := Version(-1)
	if on(s.metadata, propICT) {
		ictFrom = 0
		if v, err := strconv.ParseInt(s.Config(propICTVersion), 10, 64); err == nil {
			ictFrom = Version(v)
		}
	}
	for _, f := range seg.commits {
		if f.version > s.version {
			break
		}
		at := f.info.ModTime.UTC().Truncate(time.Millisecond)
		if ictFrom >= 0 && f.version >= ictFrom {
			said, _, err := t.readCommitInfo(ctx, f.version)
			if isNotFound(err) {
				continue
			}
			if err != nil {
				return nil, err
			}
			if said == nil || said.InCommitTimestamp == nil {
				return nil, &CorruptError{Key: f.info.Key, Err: fmt.Errorf("no in-commit timestamp, though the table has them on")}
			}
			at = time.UnixMilli(*said.InCommitTimestamp).UTC()
		}
		// Clocks of writers differ and copies of a table lose order; Spark moves such times forward as well. In-commit
		// timestamps rise by themselves, from the first one on.
		if n := len(out); n > 0 && !at.After(out[n-1].at) && f.version != ictFrom {
			at = out[n-1].at.Add(time.Millisecond)
		}
		out = append(out, versionTime{f.version, at})
	}
	return out, nil
}

// VersionAsOf finds the last version committed at or before a time. VersionError, with the earliest version that the log
// still holds, for a time before it.
func (t *Table) VersionAsOf(ctx context.Context, at time.Time) (Version, error) {
	s, err := t.Snapshot(ctx)
	if err != nil {
		return 0, err
	}
	seg, err := t.list(ctx, 0)
	if err != nil {
		return 0, err
	}
	times, err := t.commitTimes(ctx, s, seg)
	if err != nil {
		return 0, err
	}
	// Entries from before the first version that can be rebuilt do not count.
	earliest := seg.earliest(seg.completeCheckpoints())
	times = slices.DeleteFunc(times, func(e versionTime) bool { return e.version < earliest })
	// PROTOCOL.md, "Recommendations for Readers of Tables with In-Commit Timestamps": from the time on at which they were
	// turned on only the versions count that have them, before it only those that have not.
	if from, err := strconv.ParseInt(s.Config(propICTVersion), 10, 64); err == nil && on(s.metadata, propICT) {
		if since, err := strconv.ParseInt(s.Config(propICTTime), 10, 64); err == nil {
			after := !at.Before(time.UnixMilli(since))
			times = slices.DeleteFunc(times, func(e versionTime) bool { return (e.version >= Version(from)) != after })
		}
	}
	i := sort.Search(len(times), func(i int) bool { return times[i].at.After(at) })
	if i == 0 {
		e := &VersionError{Time: at, Earliest: earliest, Latest: s.version}
		if len(times) > 0 {
			e.Earliest, e.EarliestTime = times[0].version, times[0].at
		}
		return 0, e
	}
	return times[i-1].version, nil
}
