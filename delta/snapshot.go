package delta

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sort"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cauce-data/cauce/objstore"
)

// Snapshot is the state of a table at one version. It never changes and is safe for concurrent use.
type Snapshot struct {
	table    *Table
	version  Version
	time     time.Time
	protocol *Protocol
	metadata *Metadata
	schema   *Schema
	stored   *Schema // schema without what column mapping says, if the table is not mapped
	live     fileSet // adds
	tombs    fileSet // removes, some of which may have expired
	txns     map[string]Txn
	domains  map[string]DomainMetadata

	// assumed is set while an operation plans on a table with another schema than the log has it (see evolved).
	assumed *assumption
}

// Version is the version of the snapshot.
func (s *Snapshot) Version() Version { return s.version }

// Time is when the version was committed.
func (s *Snapshot) Time() time.Time { return s.time }

// Schema is the logical schema; do not modify it.
func (s *Snapshot) Schema() *Schema { return s.schema }

// Metadata is the metaData action in force; its maps and slices are shared and must not be modified.
func (s *Snapshot) Metadata() Metadata { return *s.metadata }

// Protocol is the protocol action in force.
func (s *Snapshot) Protocol() Protocol { return *s.protocol }

// Config is a table property, "" if it is not set.
func (s *Snapshot) Config(key string) string { return s.metadata.Configuration[key] }

// PartitionBy lists the partition columns.
func (s *Snapshot) PartitionBy() []string { return slices.Clone(s.metadata.PartitionColumns) }

// Txn is the last version that an application has recorded.
func (s *Snapshot) Txn(appID string) (int64, bool) {
	t, ok := s.txns[appID]
	if !ok || s.txnExpired(t) {
		return 0, false
	}
	return t.Version, true
}

// Txns gives the last txn of every application, without those that delta.setTransactionRetentionDuration has expired.
func (s *Snapshot) Txns() map[string]Txn {
	out := make(map[string]Txn, len(s.txns))
	for k, v := range s.txns {
		if !s.txnExpired(v) {
			out[k] = v
		}
	}
	return out
}

// Domain is the domain metadata of a domain, if it is set.
func (s *Snapshot) Domain(name string) (DomainMetadata, bool) {
	d, ok := s.domains[name]
	return d, ok
}

// Domains lists the domain metadata by name.
func (s *Snapshot) Domains() []DomainMetadata {
	out := make([]DomainMetadata, 0, len(s.domains))
	for _, d := range s.domains {
		out = append(out, d)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Domain < out[j].Domain })
	return out
}

// Adds ranges over the live files with their ordinals, in the order of the log. Each action is made when its turn
// comes, so that a table of a million files needs no memory for a million actions; its maps and its vector are shared
// and must not be modified. Use NumFiles, Bytes, File and Prune where they do: they make no actions, or only those that
// are wanted.
func (s *Snapshot) Adds() iter.Seq2[int, *Add] {
	return func(yield func(int, *Add) bool) {
		n := 0
		for f := range s.live.rows() {
			if !yield(n, f.add(f.i)) {
				return
			}
			n++
		}
	}
}

// NumFiles is the number of live files.
func (s *Snapshot) NumFiles() int { return s.live.n }

// Bytes is the size of the live files together.
func (s *Snapshot) Bytes() int64 { return s.live.bytes }

// File finds a live file by canonical path (percent-decoded, "/…" for local absolute ones). A valid table has one live
// file per path.
func (s *Snapshot) File(path string) (*Add, bool) {
	c, i, ok := s.live.find(path, nil)
	if !ok {
		return nil, false
	}
	return s.live.chunks[c].add(i), true
}

// holds reports whether a logical file is live.
func (s *Snapshot) holds(path string, dv *DeletionVector) bool {
	id := dv.UniqueID()
	_, _, ok := s.live.find(canonicalPath(path), &id)
	return ok
}

// Tombstones lists the removed files that are younger than the table's retention and may still be read by older
// snapshots. Their statistics and tags are not kept.
func (s *Snapshot) Tombstones() []*Remove {
	out := make([]*Remove, 0, s.tombs.n)
	for r := range s.tombstones() {
		out = append(out, r)
	}
	return out
}

// tombstones ranges over what Tombstones lists.
func (s *Snapshot) tombstones() iter.Seq[*Remove] {
	return func(yield func(*Remove) bool) {
		horizon := s.tombstoneHorizon()
		for f := range s.tombs.rows() {
			if f.time[f.i] >= horizon && !yield(f.remove(f.i)) {
				return
			}
		}
	}
}

// tombstoneHorizon is the time (ms since the epoch) before which removed files are forgotten.
func (s *Snapshot) tombstoneHorizon() int64 {
	return s.table.opts.Clock().Add(-s.DeletedFileRetention()).UnixMilli()
}

// TableInfo is what an Engine must know of the table.
func (s *Snapshot) TableInfo() TableInfo {
	config := s.metadata.Configuration
	if !s.mapped() && config[propMappingMode] != "" {
		// The property counts only where the protocol supports it.
		config = maps.Clone(config)
		delete(config, propMappingMode)
	}
	return TableInfo{Store: s.table.store, Path: s.table.path, Schema: s.stored, PartitionBy: s.PartitionBy(), Config: config}
}

// Table is the table of the snapshot.
func (s *Snapshot) Table() *Table { return s.table }

// CheckWrite says whether the table may be written to here: an error that is ErrUnsupported names the features.
func (s *Snapshot) CheckWrite() error { return checkWrite(s.protocol, s.metadata, s.schema) }

// checkWriteRows is CheckWrite for operations that make rows, which must keep the table's rules.
func (s *Snapshot) checkWriteRows() error {
	if err := s.CheckWrite(); err != nil {
		return err
	}
	return checkRules(&s.table.opts.Engine, s.protocol, s.metadata, s.schema)
}

// apply gives the snapshot after commits that follow s without a gap, ascending. at is the time of the last one.
func (s *Snapshot) apply(commits []*commit, at time.Time) (*Snapshot, error) {
	if len(commits) == 0 {
		return s, nil
	}
	r := s.replaying()
	for _, c := range commits {
		r.commit(c)
	}
	return r.finish(at)
}

// replayer makes a snapshot from an older one, commit after commit.
type replayer struct {
	n           *Snapshot
	live, tombs *fileSetBuilder
	newTxns     bool // whether the map is the new snapshot's own
	newDomains  bool
}

func (s *Snapshot) replaying() *replayer {
	return &replayer{
		n: &Snapshot{
			table: s.table, version: s.version, protocol: s.protocol, metadata: s.metadata, txns: s.txns, domains: s.domains,
			assumed: s.assumed,
		},
		live: newFileSetBuilder(s.live), tombs: newFileSetBuilder(s.tombs),
	}
}

// commit applies the next commit.
func (r *replayer) commit(c *commit) {
	r.small(c)
	// Inside a commit the order of actions means nothing (PROTOCOL.md, "Action Reconciliation"), so removes go first.
	for _, x := range c.removes {
		r.live.kill(x.Path, x.DeletionVector)
		r.tombs.kill(x.Path, x.DeletionVector)
		r.tombs.remove(x)
	}
	for _, a := range c.adds {
		r.live.kill(a.Path, a.DeletionVector)
		r.tombs.kill(a.Path, a.DeletionVector)
		r.live.add(a)
	}
}

// small applies everything but the files.
func (r *replayer) small(c *commit) {
	n := r.n
	n.version = c.version
	if c.protocol != nil {
		n.protocol = c.protocol
	}
	if c.metadata != nil {
		n.metadata, n.assumed = c.metadata, nil
	}
	for _, t := range c.txns {
		if !r.newTxns {
			n.txns = cloneMap(n.txns)
			r.newTxns = true
		}
		n.txns[t.AppID] = t
	}
	for _, d := range c.domains {
		if !r.newDomains {
			n.domains = cloneMap(n.domains)
			r.newDomains = true
		}
		if d.Removed {
			delete(n.domains, d.Domain)
		} else {
			n.domains[d.Domain] = d
		}
	}
}

// checkpoint applies a checkpoint, before any commit. Its files are unique already (PROTOCOL.md, "Checkpoints").
func (r *replayer) checkpoint(st *checkpointState) {
	r.small(&st.commit)
	for _, p := range st.parts {
		r.live.take(p.chunks)
		r.live.takeSet(p.adds.finish())
		r.tombs.takeSet(p.removes.finish())
	}
}

// finish gives the snapshot; at is the time of its last commit.
func (r *replayer) finish(at time.Time) (*Snapshot, error) {
	n := r.n
	n.time = at
	if n.protocol == nil {
		return nil, fmt.Errorf("%w: %s has no protocol action up to version %d", ErrCorrupt, n.table, n.version)
	}
	if n.metadata == nil {
		return nil, fmt.Errorf("%w: %s has no metaData action up to version %d", ErrCorrupt, n.table, n.version)
	}
	n.live = r.live.finish()
	r.tombs.expire(n.tombstoneHorizon())
	n.tombs = r.tombs.finish()
	return n, nil
}

func cloneMap[V any](m map[string]V) map[string]V {
	out := make(map[string]V, len(m)+1)
	for k, v := range m {
		out[k] = v
	}
	return out
}

// finish parses the schema and refuses what cannot be read. before is the snapshot that s grew from, whose parsed
// schema serves again if the metadata is the same.
func (s *Snapshot) finish(before *Snapshot) error {
	if err := checkRead(s.protocol, s.metadata); err != nil {
		return fmt.Errorf("%s version %d: %w", s.table, s.version, err)
	}
	if before != nil && before.metadata == s.metadata && before.schema != nil {
		s.schema = before.schema
		s.stored = s.storedSchema()
		return nil
	}
	schema := &Schema{}
	if s.metadata.SchemaString != "" { // a table without a schema has no columns, as Spark reads it
		var err error
		if schema, err = ParseSchema(s.metadata.SchemaString); err != nil {
			return fmt.Errorf("%s version %d: %w", s.table, s.version, err)
		}
	}
	if err := checkTypeChanges(s.protocol, schema); err != nil {
		return fmt.Errorf("%s version %d: %w", s.table, s.version, err)
	}
	for _, p := range s.metadata.PartitionColumns {
		if _, ok := schema.Field(p); !ok {
			return fmt.Errorf("%s version %d: %w: partition column %q is not in the schema", s.table, s.version, ErrCorrupt, p)
		}
	}
	s.schema = schema
	s.stored = s.storedSchema()
	return nil
}

// storedSchema is the schema as engines get it: they take physical names as they find them, which must not be there if
// the table's columns are not mapped.
func (s *Snapshot) storedSchema() *Schema {
	left := false
	walkFields(s.schema.Fields, func(f *Field) { left = left || f.Metadata[metaPhysicalName] != nil || f.Metadata[metaColumnID] != nil })
	if !left || s.mapped() {
		return s.schema
	}
	return &Schema{Fields: unmapFields(s.schema.Fields)}
}

// Snapshot gives the newest version of the table. Only what was committed since the last call is read.
func (t *Table) Snapshot(ctx context.Context) (*Snapshot, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.latest == nil {
		s, err := t.load(ctx, -1)
		if err != nil {
			return nil, err
		}
		if err := s.finish(nil); err != nil {
			return nil, err
		}
		t.latest, t.listed = s, t.opts.Clock()
		return s, nil
	}
	s, err := t.advance(ctx, t.latest)
	if err != nil {
		return nil, err
	}
	t.latest = s
	return s, nil
}

// relistAfter bounds how long the tail of the log is followed version by version without a listing. Following alone
// never notices that the next version was cleaned up, or that the table was removed.
const relistAfter = time.Minute

// advance gives the newest snapshot from an older one. t.mu is held.
func (t *Table) advance(ctx context.Context, from *Snapshot) (*Snapshot, error) {
	commits, at, err := t.readTail(ctx, from.version+1)
	if err != nil {
		return nil, err
	}
	now := t.opts.Clock()
	if len(commits) == 0 && now.Sub(t.listed) >= relistAfter {
		seg, err := t.list(ctx, from.version)
		if err != nil {
			return nil, err
		}
		t.listed = now
		last := Version(-1)
		for _, f := range append(seg.commits, seg.checkpoints...) {
			last = max(last, f.version)
		}
		if last == from.version {
			return from, nil
		}
		s, err := t.load(ctx, -1)
		if err != nil {
			return nil, err
		}
		return s, s.finish(from)
	}
	if len(commits) == 0 {
		return from, nil
	}
	return from.follow(commits, at)
}

// follow is apply and finish.
func (s *Snapshot) follow(commits []*commit, at []time.Time) (*Snapshot, error) {
	n, err := s.apply(commits, at[len(at)-1])
	if err != nil {
		return nil, err
	}
	if err := n.finish(s); err != nil {
		return nil, err
	}
	last := commits[len(commits)-1]
	n.time = n.commitTime(last, at[len(at)-1])
	return n, nil
}

// commitTime is the time of a commit: its in-commit timestamp where the table has them on (PROTOCOL.md, "In-Commit
// Timestamps"), else the time of its object.
func (s *Snapshot) commitTime(c *commit, modified time.Time) time.Time {
	if c != nil && c.info != nil && c.info.InCommitTimestamp != nil && on(s.metadata, propICT) {
		return time.UnixMilli(*c.info.InCommitTimestamp).UTC()
	}
	return modified.UTC().Truncate(time.Millisecond)
}

// readTail reads the commits from a version on until one is missing, with the times of their objects.
func (t *Table) readTail(ctx context.Context, from Version) ([]*commit, []time.Time, error) {
	var commits []*commit
	var at []time.Time
	for v := from; ; v++ {
		c, info, err := t.readCommit(ctx, v)
		if isNotFound(err) {
			return commits, at, nil
		}
		if err != nil {
			return nil, nil, err
		}
		commits, at = append(commits, c), append(at, info.ModTime)
	}
}

// SnapshotAt gives an older version. VersionError if it cannot be rebuilt from what the log still holds.
func (t *Table) SnapshotAt(ctx context.Context, v Version) (*Snapshot, error) {
	t.mu.Lock()
	latest := t.latest
	t.mu.Unlock()
	if latest != nil && latest.version == v {
		return latest, nil
	}
	if v < 0 {
		latest, err := t.Snapshot(ctx)
		if err != nil {
			return nil, err
		}
		return nil, &VersionError{Version: v, Latest: latest.version}
	}
	s, err := t.load(ctx, v)
	if err != nil {
		return nil, err
	}
	if err := s.finish(latest); err != nil {
		return nil, err
	}
	return s, nil
}

// SnapshotAsOf gives the last version committed at or before a time. A time behind the newest commit gives the newest.
func (t *Table) SnapshotAsOf(ctx context.Context, at time.Time) (*Snapshot, error) {
	v, err := t.VersionAsOf(ctx, at)
	if err != nil {
		return nil, err
	}
	return t.SnapshotAt(ctx, v)
}

// load rebuilds a version from checkpoint and commits; -1 is the newest. It does not look at features.
func (t *Table) load(ctx context.Context, target Version) (*Snapshot, error) {
	from := Version(0)
	if hint, ok := t.readLastCheckpoint(ctx); ok && (target < 0 || hint.Version <= target) {
		from = hint.Version
	}
	s, err := t.loadFrom(ctx, target, from)
	if err != nil && ctx.Err() == nil && (from > 0 || errors.Is(err, ErrCorrupt)) {
		// The hint may be stale, or point at a checkpoint that is gone or broken: the whole listing decides. A listing may be
		// stale too, and lack the very commit that stands in for a broken checkpoint.
		return t.loadFrom(ctx, target, 0)
	}
	return s, err
}

func (t *Table) loadFrom(ctx context.Context, target, from Version) (*Snapshot, error) {
	seg, err := t.list(ctx, from)
	if err != nil {
		return nil, err
	}
	checkpoints := seg.completeCheckpoints()
	if len(seg.commits) == 0 && len(checkpoints) == 0 {
		return nil, fmt.Errorf("%s: %w", t, ErrNotATable)
	}
	newest := Version(-1)
	if n := len(seg.commits); n > 0 {
		newest = seg.commits[n-1].version
	}
	if len(checkpoints) > 0 {
		newest = max(newest, checkpoints[0][0].version)
	}
	want := target
	if want < 0 {
		want = newest
	}
	if want > newest {
		return nil, &VersionError{Version: target, Earliest: seg.earliest(checkpoints), Latest: newest}
	}
	var broken error
	for _, files := range checkpoints {
		v := files[0].version
		if v > want {
			continue
		}
		commits, ok := seg.between(v, want)
		if !ok {
			continue
		}
		s, err := t.replay(ctx, files, commits)
		if !errors.Is(err, errNoState) && (errors.Is(err, ErrCorrupt) || errors.Is(err, objstore.ErrNotFound)) {
			// An older checkpoint and a longer log may still tell the same.
			broken = errors.Join(broken, err)
			continue
		}
		return s, err
	}
	if commits, ok := seg.between(-1, want); ok {
		return t.replay(ctx, nil, commits)
	}
	if broken != nil {
		return nil, broken
	}
	if target >= 0 {
		if e := seg.earliest(checkpoints); target < e {
			return nil, &VersionError{Version: target, Earliest: e, Latest: newest}
		}
	}
	return nil, fmt.Errorf("%w: %s: the log has no unbroken run of commits from a complete checkpoint to version %d", ErrCorrupt, t, want)
}

// between gives the commits behind version a up to b, and whether none is missing.
func (s segment) between(a, b Version) ([]logFile, bool) {
	i := sort.Search(len(s.commits), func(i int) bool { return s.commits[i].version > a })
	j := sort.Search(len(s.commits), func(i int) bool { return s.commits[i].version > b })
	out := s.commits[i:j]
	return out, Version(len(out)) == b-a
}

// earliest is the first version that can be rebuilt.
func (s segment) earliest(checkpoints [][]logFile) Version {
	if len(s.commits) > 0 && s.commits[0].version == 0 {
		return 0
	}
	if n := len(checkpoints); n > 0 {
		return checkpoints[n-1][0].version
	}
	if len(s.commits) > 0 {
		return s.commits[0].version
	}
	return 0
}

// errNoState marks a checkpoint that can be read but lacks protocol or metadata. Unlike a damaged file it is no
// accident of storage: another writer left it out, and what else it left out nobody knows.
var errNoState = errors.New("the checkpoint is incomplete")

// readers bounds how many log objects are read at once.
const readers = 4

// readAhead bounds the commits that are held in memory at once while a log is replayed.
const readAhead = 64

// replay reads a checkpoint (nil: none) and the commits behind it.
func (t *Table) replay(ctx context.Context, checkpoint, files []logFile) (*Snapshot, error) {
	base := &Snapshot{table: t, version: -1, txns: map[string]Txn{}, domains: map[string]DomainMetadata{}}
	r := base.replaying()
	ahead, stop := context.WithCancel(ctx)
	defer stop()
	g, gctx := errgroup.WithContext(ahead)
	commits := t.readCommits(gctx, g, files)
	if len(checkpoint) > 0 {
		err := t.replayCheckpoint(ctx, r, checkpoint)
		if err != nil {
			stop()
			_ = g.Wait() // what was read ahead is not wanted any more
			return nil, err
		}
	}
	var last *commit
	var at time.Time
	for next := range commits {
		c, ok := <-next
		if !ok {
			break // the group has the error
		}
		last, at = c.commit, c.at
		r.commit(last)
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if len(files) > 0 {
		s, err := r.finish(at)
		if err != nil {
			return nil, err
		}
		s.time = s.commitTime(last, at)
		return s, nil
	}
	s, err := r.finish(checkpoint[0].info.ModTime)
	if err != nil {
		return nil, err
	}
	// The version is the checkpoint's own; its commit may still be there and know the time better.
	info, err := t.store.Stat(ctx, t.commitKey(s.version))
	var said *CommitInfo
	if err == nil && on(s.metadata, propICT) {
		said, info, err = t.readCommitInfo(ctx, s.version)
	}
	switch {
	case err == nil:
		s.time = s.commitTime(&commit{info: said}, info.ModTime)
	case isNotFound(err) || errors.Is(err, ErrCorrupt):
		s.time = s.commitTime(nil, s.time)
	default:
		return nil, err
	}
	return s, nil
}

func (t *Table) replayCheckpoint(ctx context.Context, r *replayer, checkpoint []logFile) error {
	st, err := t.readCheckpoint(ctx, checkpoint)
	if err != nil {
		return err
	}
	r.checkpoint(st)
	if r.n.protocol == nil || r.n.metadata == nil {
		err := fmt.Errorf("%w: %s has no protocol or no metaData action in the checkpoint of version %d", ErrCorrupt, t, r.n.version)
		if strings.HasSuffix(checkpoint[0].info.Key, ".json") {
			return &CorruptError{Key: checkpoint[0].info.Key, Err: err} // it may have been cut between two lines
		}
		return &CorruptError{Key: checkpoint[0].info.Key, Err: errors.Join(errNoState, err)}
	}
	return nil
}

// timedCommit is a commit with the time of its object.
type timedCommit struct {
	*commit
	at time.Time
}

// readCommits reads commits ahead of whoever ranges over the channel, in order and at most readAhead of them. Each inner
// channel holds one commit, or is closed without if it could not be read; then the group has the error.
func (t *Table) readCommits(ctx context.Context, g *errgroup.Group, files []logFile) <-chan chan timedCommit {
	queue := make(chan chan timedCommit, readAhead)
	running := make(chan struct{}, readers)
	g.Go(func() error {
		defer close(queue)
		for _, f := range files {
			next := make(chan timedCommit, 1)
			select {
			case queue <- next:
			case <-ctx.Done():
				return ctx.Err()
			}
			running <- struct{}{}
			g.Go(func() error {
				defer close(next)
				defer func() { <-running }()
				c, info, err := t.readCommit(ctx, f.version)
				if isNotFound(err) {
					return fmt.Errorf("%w: %s vanished while the log was read: %w", ErrCorrupt, f.info.Key, err)
				}
				if err != nil {
					return err
				}
				next <- timedCommit{c, info.ModTime}
				return nil
			})
		}
		return nil
	})
	return queue
}

// column finds a column of the table and says whether it is a partition column.
func (s *Snapshot) column(name string) (f Field, partition, ok bool) {
	f, ok = s.schema.Field(name)
	if !ok {
		return f, false, false
	}
	for _, p := range s.metadata.PartitionColumns {
		if strings.EqualFold(p, f.Name) {
			return f, true, true
		}
	}
	return f, false, true
}

// mapped reports whether the columns of the table are mapped.
func (s *Snapshot) mapped() bool { return columnMappingMode(s.protocol, s.metadata) != "none" }

// physical is the name of a column in statistics and partition values.
func (s *Snapshot) physical(f Field) string {
	if !s.mapped() {
		return f.Name
	}
	return f.PhysicalName()
}
