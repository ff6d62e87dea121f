package delta

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"time"

	"github.com/cauce-data/cauce/objstore"
)

// Tx is a transaction: actions that one commit shall add, and what was read to decide on them. It is not safe for
// concurrent use, and Commit may be called once.
type Tx struct {
	table *Table
	base  *Snapshot

	protocol *Protocol
	metadata *Metadata
	txns     []Txn
	domains  []DomainMetadata
	adds     []*Add
	removes  []*Remove
	cdc      []*CDC

	readWhole bool
	readFiles map[string]bool // canonical paths
	readWhere []Predicate

	oldRows    bool // what is added were rows of the table before, so that no rule of it needs to be looked at
	recommit   bool // what is added are files of the table, described anew
	rowIDsLost bool // rows were written again without their row ids
	done       bool
	// rowIDs is how many row ids, from 0, the transaction knows to be given out; the table may know of more.
	rowIDs int64
}

// CommitOptions describe a commit.
type CommitOptions struct {
	Operation    string            // as Spark names it: "WRITE", "MERGE", "OPTIMIZE" …
	Parameters   map[string]string // operationParameters
	Metrics      map[string]string // operationMetrics
	UserMetadata string
	// BlindAppend says that the commit only adds files and read nothing. It is not believed if files were removed or
	// reads were recorded.
	BlindAppend bool

	// Rebase is called after each lost race, when no winner changed protocol, metadata or a txn of ours. Nil return
	// means that the Tx, whose file actions it may replace (see ResetFiles), is right against newer; the conflict rules
	// for files are then its duty. Without Rebase Spark's rules for files decide.
	Rebase func(ctx context.Context, newer *Snapshot, winners []WinningCommit) error

	// MetricsFunc, if set, is called before each try and gives operationMetrics, which a rebase may have changed.
	MetricsFunc func() map[string]string

	// Hook is called with the phase that begins: "before-commit", "after-commit", "checkpoint".
	Hook func(phase string)

	// NoCheckpoint leaves out the checkpoint that every delta.checkpointInterval-th commit is followed by.
	NoCheckpoint bool

	// RowIDsLost says that rows of a table with row tracking were copied or changed without their row ids, so that the
	// commit must not claim that they stayed (PROTOCOL.md, "Writer Requirements for Row Tracking").
	RowIDsLost bool
}

// Committed says what a commit did.
type Committed struct {
	Version  Version
	Snapshot *Snapshot // the table after the commit
	Info     CommitInfo
	Tries    int
	Lost     int // races lost to other writers
	// CheckpointErr is set if the checkpoint after the commit failed, ChecksumErr if the version checksum could not be
	// written. The commit stands all the same.
	CheckpointErr, ChecksumErr error
}

// WinningCommit is a commit that took the version that a transaction wanted. Do not modify it.
type WinningCommit struct {
	Version  Version
	Info     CommitInfo
	Protocol *Protocol
	Metadata *Metadata
	Txns     []Txn
	Domains  []DomainMetadata
	Adds     []*Add
	Removes  []*Remove
	CDC      []*CDC
}

// Begin starts a transaction on top of a snapshot.
func (t *Table) Begin(s *Snapshot) *Tx {
	return &Tx{table: t, base: s, readFiles: map[string]bool{}}
}

// Base is the snapshot that the transaction stands on: that of Begin, or a newer one after lost races.
func (x *Tx) Base() *Snapshot { return x.base }

// AddFile adds a file to the table.
func (x *Tx) AddFile(a *Add) { x.adds = append(x.adds, a) }

// RemoveFile removes a file, as it is in the base snapshot, from the table.
func (x *Tx) RemoveFile(r *Remove) { x.removes = append(x.removes, r) }

// AddCDC adds a file of the change data feed.
func (x *Tx) AddCDC(c *CDC) { x.cdc = append(x.cdc, c) }

// SetTxn records the progress of an application. Commit refuses if the table has the same or a later one.
func (x *Tx) SetTxn(t Txn) {
	x.txns = slices.DeleteFunc(x.txns, func(o Txn) bool { return o.AppID == t.AppID })
	x.txns = append(x.txns, t)
}

// SetMetadata replaces the table's metadata.
func (x *Tx) SetMetadata(m Metadata) { x.metadata = &m }

// SetProtocol replaces the table's protocol.
func (x *Tx) SetProtocol(p Protocol) { x.protocol = &p }

// SetDomain sets the metadata of a domain, or removes it.
func (x *Tx) SetDomain(d DomainMetadata) {
	x.domains = slices.DeleteFunc(x.domains, func(o DomainMetadata) bool { return o.Domain == d.Domain })
	x.domains = append(x.domains, d)
}

// ReadWhole records that the whole table was read.
func (x *Tx) ReadWhole() { x.readWhole = true }

// ReadFiles records that files were read, by their paths in the log.
func (x *Tx) ReadFiles(paths ...string) {
	for _, p := range paths {
		x.readFiles[canonicalPath(p)] = true
	}
}

// ReadWhere records that all rows that satisfy a predicate were read.
func (x *Tx) ReadWhere(p Predicate) { x.readWhere = append(x.readWhere, p) }

// ResetFiles forgets the files that were to be added and removed and what was read, for planning anew.
func (x *Tx) ResetFiles() {
	x.adds, x.removes, x.cdc = nil, nil, nil
	x.readWhole, x.readFiles, x.readWhere = false, map[string]bool{}, nil
}

func (x *Tx) dataChange() bool {
	c := commit{adds: x.adds, removes: x.removes}
	return c.dataChange()
}

// Commit writes the transaction as the next version of the table. Of concurrent writers one wins; the others look at
// what it did and try again, or give up with a ConflictError. At most Options.MaxTries versions are tried, for at most
// Options.MaxWait; then ErrTooManyTries. Any error but one that is objstore.ErrAmbiguous means that nothing was
// committed.
func (x *Tx) Commit(ctx context.Context, o CommitOptions) (*Committed, error) {
	if x.done {
		return nil, errors.New("transaction was committed before")
	}
	x.done = true
	x.rowIDsLost = o.RowIDsLost
	opts := &x.table.opts
	start := opts.Clock()
	id := opts.NewID()
	readVersion := x.base.version
	res := &Committed{}
	var unsettled error // of a try whose outcome could not be found out
	for {
		res.Tries++
		if x.base.version >= 0 { // else Create's own commit
			if err := x.checkTxns(); err != nil {
				return nil, err
			}
		}
		c, err := x.build(o, id, readVersion)
		if err != nil {
			return nil, err
		}
		next, err := x.preview(c)
		if err != nil {
			return nil, err
		}
		data, err := c.encode()
		if err != nil {
			return nil, err
		}
		if o.Hook != nil {
			o.Hook("before-commit")
		}
		won, earlier, err := x.put(ctx, c, data)
		if err != nil && !errors.Is(err, objstore.ErrAmbiguous) {
			return nil, fmt.Errorf("commit version %d of %s: %w", c.version, x.table, err)
		}
		unsettled = err
		if earlier != nil {
			// What stands there is what an earlier try wrote, with its times.
			if c, next, err = x.asWritten(earlier, next); err != nil {
				return nil, fmt.Errorf("commit version %d of %s: %w", earlier.version, x.table, ambiguous(err))
			}
		}
		if won {
			return x.finish(ctx, o, res, c, next)
		}
		if unsettled == nil && x.base.version < 0 {
			return nil, fmt.Errorf("%s: %w", x.table, ErrTableExists)
		}
		// The pause comes before the newer commits are read: whoever pauses behind that tries for a version that others
		// have taken meanwhile, and with many writers never comes to write.
		if err := x.table.pause(ctx, res.Tries); err != nil {
			return nil, fmt.Errorf("commit version %d of %s: %w", c.version, x.table, errors.Join(err, unsettled))
		}
		if unsettled == nil {
			commits, at, err := x.table.readTail(ctx, x.base.version+1)
			if err != nil {
				return nil, fmt.Errorf("commit version %d of %s: %w", c.version, x.table, err)
			}
			if len(commits) > 0 {
				res.Lost++
				newer, err := x.base.follow(commits, at)
				if err != nil {
					return nil, err
				}
				if err := x.settle(ctx, o, newer, winners(commits)); err != nil {
					return nil, err
				}
				x.base = newer
				x.table.remember(newer)
			}
		}
		waited := opts.Clock().Sub(start)
		if res.Tries >= opts.MaxTries || waited >= opts.MaxWait {
			err := fmt.Errorf("%w: %s: %d tries in %s, the last for version %d", ErrTooManyTries, x.table, res.Tries, waited.Round(time.Millisecond), c.version)
			return nil, errors.Join(err, unsettled)
		}
	}
}

// checkTxns refuses a txn that the base has already.
func (x *Tx) checkTxns() error {
	for _, t := range x.txns {
		if last, ok := x.base.Txn(t.AppID); ok && last >= t.Version {
			return &ConflictError{Kind: ConcurrentTransaction, Version: x.base.version,
				Detail: fmt.Sprintf("%s is at %d, which covers %d", t.AppID, last, t.Version)}
		}
	}
	return nil
}

// build makes the commit for the version behind the base.
func (x *Tx) build(o CommitOptions, id string, readVersion Version) (*commit, error) {
	opts := &x.table.opts
	now := opts.Clock().UnixMilli()
	meta := x.base.metadata
	if x.metadata != nil {
		meta = x.metadata
	}
	if meta == nil {
		return nil, errors.New("a first commit needs metadata")
	}
	c := &commit{
		version: x.base.version + 1, protocol: x.protocol, metadata: x.metadata, txns: slices.Clone(x.txns),
		domains: x.domains, adds: x.adds, removes: x.removes, cdc: x.cdc,
	}
	for i := range c.txns {
		if c.txns[i].LastUpdated == nil {
			c.txns[i].LastUpdated = &now
		}
	}
	blind := o.BlindAppend && len(x.removes) == 0 && len(x.adds) > 0 && !x.readWhole && len(x.readFiles) == 0 && len(x.readWhere) == 0
	metrics := o.Metrics
	if o.MetricsFunc != nil {
		metrics = o.MetricsFunc()
	}
	c.info = &CommitInfo{
		Timestamp: now, Operation: o.Operation, OperationParameters: o.Parameters, OperationMetrics: metrics,
		IsolationLevel: x.isolation(), IsBlindAppend: &blind, EngineInfo: opts.EngineInfo, TxnID: id, UserMetadata: o.UserMetadata,
	}
	if c.info.Operation == "" {
		c.info.Operation = "WRITE"
	}
	if c.info.OperationParameters == nil {
		c.info.OperationParameters = map[string]string{}
	}
	if readVersion >= 0 {
		v := int64(readVersion)
		c.info.ReadVersion = &v
	}
	if on(meta, propICT) {
		x.stamp(c, meta, now)
	}
	p := x.base.protocol
	if x.protocol != nil {
		p = x.protocol
	}
	if err := x.trackRows(c, p, meta); err != nil {
		return nil, err
	}
	return c, nil
}

// stamp gives the commit its in-commit timestamp (PROTOCOL.md, "In-Commit Timestamps"): greater than the time of the
// version before, whatever the clock says. Where a table with a past turns them on, its properties say from when they
// count.
func (x *Tx) stamp(c *commit, meta *Metadata, now int64) {
	ict := now
	if x.base.version >= 0 {
		ict = max(ict, x.base.time.UnixMilli()+1)
	}
	c.info.InCommitTimestamp = &ict
	c.info.Timestamp = ict
	if c.version == 0 {
		return
	}
	version, at := fmt.Sprint(c.version), fmt.Sprint(ict)
	if on(x.base.metadata, propICT) {
		if c.metadata == nil {
			return
		}
		// Metadata that replaces the table's, as a restore does, may speak of another time.
		version, at = x.base.Config(propICTVersion), x.base.Config(propICTTime)
	}
	m := *meta
	m.Configuration = maps.Clone(m.Configuration)
	for k, v := range map[string]string{propICTVersion: version, propICTTime: at} {
		if v == "" {
			delete(m.Configuration, k)
		} else {
			m.Configuration[k] = v
		}
	}
	c.metadata = &m
}

// check makes sure that the transaction could be committed as things are.
func (x *Tx) check() error {
	c, err := x.build(CommitOptions{}, "", x.base.version)
	if err == nil {
		_, err = x.preview(c)
	}
	return err
}

// preview checks the commit and gives the snapshot that it will make.
func (x *Tx) preview(c *commit) (*Snapshot, error) {
	next, err := x.base.apply([]*commit{c}, x.table.opts.Clock())
	if err != nil {
		return nil, err
	}
	var before *Snapshot
	if x.base.version >= 0 {
		before = x.base
	}
	if err := next.finish(before); err != nil {
		return nil, err
	}
	if err := checkWrite(next.protocol, next.metadata, next.schema); err != nil {
		return nil, fmt.Errorf("%s: %w", x.table, err)
	}
	if len(c.adds) > 0 && c.dataChange() && !x.oldRows {
		if err := checkRules(&x.table.opts.Engine, next.protocol, next.metadata, next.schema); err != nil {
			return nil, fmt.Errorf("%s: %w", x.table, err)
		}
	}
	if x.metadata != nil {
		// What others have set is theirs: only what changes is looked at.
		changed := map[string]string{}
		for k, v := range x.metadata.Configuration {
			if x.base.metadata != nil {
				if was, ok := x.base.metadata.Configuration[k]; ok && was == v {
					continue
				}
			}
			changed[k] = v
		}
		if err := checkProperties(changed); err != nil {
			return nil, err
		}
	}
	if on(next.metadata, propAppendOnly) {
		for _, r := range c.removes {
			if r.DataChange {
				return nil, fmt.Errorf("%s: remove %s: %w", x.table, r.Path, ErrAppendOnly)
			}
		}
	}
	partitions := next.TableInfo().PhysicalPartitionBy()
	for _, a := range c.adds {
		if a.DeletionVector != nil && !next.protocol.hasWriterFeature("deletionVectors") {
			return nil, fmt.Errorf("%s: add %s: the table's protocol has no deletion vectors", x.table, a.Path)
		}
		for _, p := range partitions {
			if _, ok := a.PartitionValues[p]; !ok {
				return nil, fmt.Errorf("%s: add %s: no value of partition column %q", x.table, a.Path, p)
			}
		}
	}
	// What is removed must be there as it is named, and no path may be live twice: a reader would see its rows doubled.
	gone := make(map[string]bool, len(c.removes))
	for _, r := range c.removes {
		gone[r.key()] = true
	}
	paths := make(map[string]bool, len(c.adds))
	for _, a := range c.adds {
		p := canonicalPath(a.Path)
		if paths[p] {
			return nil, fmt.Errorf("%s: add %s stands twice in one commit", x.table, a.Path)
		}
		paths[p] = true
	}
	var twice error
	for _, a := range c.adds {
		if was, ok := x.base.File(canonicalPath(a.Path)); ok && !gone[was.key()] && !(x.recommit && was.key() == a.key()) {
			twice = fmt.Errorf("%s: add %s: the path is in the table already", x.table, was.Path)
		}
	}
	for _, r := range c.removes {
		if !x.base.holds(r.Path, r.DeletionVector) {
			return nil, &ConflictError{Kind: ConcurrentDeleteDelete, Version: x.base.version, Detail: r.Path + " is not in the table as the transaction read it"}
		}
	}
	if twice != nil {
		return nil, twice
	}
	if before == nil || !before.RowTracking() {
		if err := next.checkRowTracking(); err != nil {
			return nil, fmt.Errorf("%s: %w", x.table, err)
		}
	}
	for _, d := range x.domains {
		if d.Domain == rowTrackingDomain {
			return nil, fmt.Errorf("%s: %w: domain %s is kept by the commit itself", x.table, ErrDomain, d.Domain)
		}
	}
	if len(c.domains) > 0 && !next.protocol.hasWriterFeature("domainMetadata") {
		return nil, fmt.Errorf("%s: the table's protocol has no domain metadata", x.table)
	}
	return next, nil
}

// settleTimeout bounds reading back a commit whose caller has gone.
const settleTimeout = 10 * time.Second

// put writes the commit and says whether it is ours; earlier is what stands there then, where an answer was lost: this try or
// one before it. Neither won nor an error: another writer has the version. An error that is ErrAmbiguous: unknown, and worth
// trying again.
func (x *Tx) put(ctx context.Context, c *commit, data []byte) (won bool, earlier *commit, err error) {
	key := x.table.commitKey(c.version)
	putErr := x.table.store.PutIfAbsent(ctx, key, data)
	if putErr == nil {
		return true, nil, nil
	}
	// The answer to a put may be wrong both ways: lost after success, or "exists" because the store itself tried
	// twice. What stands there decides, by commitInfo.txnId. It is read even if the caller has just given up, so
	// that giving up does not leave a doubt that a moment could settle.
	rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	there, _, err := x.table.readCommit(rctx, c.version)
	switch {
	case err == nil:
		if there.info == nil || there.info.TxnID != c.info.TxnID {
			return false, nil, nil
		}
		return true, there, nil
	case errors.Is(err, ErrCorrupt):
		// A commit that cannot be read is not ours: ours can.
		return false, nil, err
	case isNotFound(err) && !errors.Is(putErr, objstore.ErrAmbiguous) && !isExists(putErr):
		return false, nil, putErr
	case isNotFound(err):
		if ctx.Err() != nil {
			return false, nil, errors.Join(putErr, ctx.Err())
		}
		return false, nil, ambiguous(putErr)
	default:
		return false, nil, ambiguous(errors.Join(putErr, err))
	}
}

// asWritten is a commit of ours as the log has it, and the snapshot after it. Its time is the one that next has.
func (x *Tx) asWritten(there *commit, next *Snapshot) (*commit, *Snapshot, error) {
	s, err := x.base.follow([]*commit{there}, []time.Time{next.time})
	return there, s, err
}

func ambiguous(err error) error {
	if errors.Is(err, objstore.ErrAmbiguous) {
		return err
	}
	return fmt.Errorf("%w: %w", objstore.ErrAmbiguous, err)
}

// finish makes the outcome of a won race.
func (x *Tx) finish(ctx context.Context, o CommitOptions, res *Committed, c *commit, next *Snapshot) (*Committed, error) {
	if o.Hook != nil {
		o.Hook("after-commit")
	}
	// The commit stands, whatever comes: a caller that has gone away or a failing store must not make it an error.
	next.time = next.commitTime(c, next.time)
	if !on(next.metadata, propICT) {
		if info, err := x.table.store.Stat(ctx, x.table.commitKey(c.version)); err == nil {
			next.time = next.commitTime(c, info.ModTime)
		}
	}
	x.base = next
	x.table.remember(next)
	res.Version, res.Snapshot, res.Info = c.version, next, *c.info
	if x.table.checksumIsDue() {
		res.ChecksumErr = next.writeChecksum(ctx, c)
	}
	if n := next.checkpointInterval(); !o.NoCheckpoint && c.version > 0 && int64(c.version)%n == 0 {
		if o.Hook != nil {
			o.Hook("checkpoint")
		}
		res.CheckpointErr = next.checkpointAfterCommit(ctx)
	}
	return res, nil
}

// remember keeps a snapshot as the newest, if it is.
func (t *Table) remember(s *Snapshot) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.assumed == nil && (t.latest == nil || t.latest.version < s.version) {
		t.latest = s
	}
}

func winners(commits []*commit) []WinningCommit {
	out := make([]WinningCommit, len(commits))
	for i, c := range commits {
		out[i] = WinningCommit{Version: c.version, Protocol: c.protocol, Metadata: c.metadata, Txns: c.txns, Domains: c.domains,
			Adds: c.adds, Removes: c.removes, CDC: c.cdc}
		if c.info != nil {
			out[i].Info = *c.info
		}
	}
	return out
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

func isExists(err error) bool { return errors.Is(err, objstore.ErrExists) }

// txnExpired reports whether a txn has outlived delta.setTransactionRetentionDuration; without the property it never
// does (PROTOCOL.md, "Table Properties").
func (s *Snapshot) txnExpired(t Txn) bool {
	v, ok := s.metadata.Configuration[propTxnRetention]
	if !ok {
		return false
	}
	d, err := parseInterval(v)
	if err != nil {
		return false
	}
	// One without a time counts as old, as Spark has it.
	return t.LastUpdated == nil || *t.LastUpdated < s.table.opts.Clock().Add(-d).UnixMilli()
}
