package delta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"

	"github.com/cauce-data/cauce/objstore"
)

// OrderTerm is one term of the order that decides between two rows of one key. Exactly one member is set.
type OrderTerm struct {
	// Column is compared by value, null below everything.
	Column string
	// HashOf is compared by the row hash of these columns: the first 8 bytes of MD5 over the canonical text of those
	// that are not null, unsigned (docs/canonical-text.md).
	HashOf []string
}

// Replace names stored rows that a merge removes first.
type Replace struct {
	Columns []string
	Rows    Rows // stored rows that are equal to one of these in Columns are removed
}

// MergeOptions say what Merge does. Key is mandatory.
type MergeOptions struct {
	// Key is what makes two rows the same thing. A null in it equals nothing, so such a row is always inserted.
	Key []string
	// Order decides between a source row and the stored row of its key: the source row is written only if it is
	// strictly greater. An empty Order lets the source win.
	Order []OrderTerm
	// Same and Carry: a source row that wins over a stored row that is equal to it in Same (null-safe) is written with
	// the stored row's values of Carry, and counts as unchanged.
	Same, Carry []string
	// Tombstone is a boolean column: written rows in which it is true count as deleted.
	Tombstone string
	// Floor, if set, keeps out rows that may have been deleted by a tombstone that the table has forgotten.
	Floor *Floor
	// Replace, if set, removes stored rows before the merge, in the same commit. A source row whose key one of them had
	// need not be greater, and takes over its Carry values if it is equal in Same.
	Replace *Replace

	Txn          *Txn
	UserMetadata string
	SortBy       []string // order of the rows inside each new file
	Compression  string   // "snappy" (default) or "zstd"
	// FileBytesTarget bounds the size of a new file approximately; 0: the writer's default.
	FileBytesTarget int64
	// CopyOnWrite rewrites files instead of marking rows in deletion vectors. Tables without
	// delta.enableDeletionVectors are always written so.
	CopyOnWrite bool
	Operation   string // commitInfo.operation; "": MERGE
	// CommitEmpty commits the txn even if no row changes.
	CommitEmpty bool
	// Evolve adds columns that only the source has to the table; else they are an error.
	Evolve bool
	// Hook is called when a phase begins: "located", "files-written", "before-commit", "after-commit", "checkpoint".
	Hook func(phase string)
}

// MergeResult says what a merge did. Each source row counts once: Inserted + Updated + Unchanged + Deleted + Lost + Late.
type MergeResult struct {
	Version   Version // of the commit; of the table as it was read if nothing was committed
	Committed bool
	Inserted  int64
	Updated   int64
	Unchanged int64 // written, but equal in Same to the stored row
	Deleted   int64 // written with a true Tombstone, and not unchanged
	Lost      int64 // not written: the stored row, or another source row, is at least as great
	Late      int64 // not written: kept out by Floor
	Removed   int64 // stored rows removed by Replace whose key no source row took over
	// LateRows are the rows that Late counts, by source ordinal; nil: none.
	LateRows *roaring64.Bitmap

	FilesAdded        int
	FilesRemoved      int
	BytesAdded        int64
	Rebases           int // lost races that were mended without planning anew
	DataFilesOnRebase int // data files that mending them wrote
	Replans           int // times that everything was planned anew
}

// errReplan says that a rebase cannot mend what a winner did.
var errReplan = errors.New("the merge must be planned anew")

// Merge upserts rows by key. See MergeOptions for what decides; the result does not depend on the order in which
// merges with an Order happen, nor on repeating them.
//
// A merge that loses the race for a version keeps its files and resolves only what the winner touched. Errors are
// those of FileWriter and Locator, ErrSchemaMismatch, ErrNotNull, ErrDuplicateKey, ErrTxnApplied (a commit of
// Txn.AppID at or past Txn.Version exists: nothing was written), and those of Tx.Commit.
func (t *Table) Merge(ctx context.Context, source Rows, o MergeOptions) (*MergeResult, error) {
	if len(o.Key) == 0 {
		return nil, fmt.Errorf("merge into %s: no key columns", t)
	}
	m := &merge{t: t, eng: t.engine(), o: o, source: source, began: t.opts.Clock()}
	return m.run(ctx)
}

// merge is one call of Merge, over all attempts.
type merge struct {
	t      *Table
	eng    Engine
	o      MergeOptions
	source Rows
	began  time.Time

	// dups are source rows that another source row of the same key beats; found once.
	dups      *roaring64.Bitmap
	dupsKnown bool
	rebases   int
	lateFiles int
	replans   int
}

func (m *merge) run(ctx context.Context) (*MergeResult, error) {
	var lost time.Time // the first race: a merge that takes long by itself has its tries, too
	for {
		res, err := m.attempt(ctx)
		if err == nil {
			res.Replans = m.replans
			return res, nil
		}
		again := errors.Is(err, errReplan) || errors.Is(err, ErrMetadataChanged) || errors.Is(err, ErrProtocolChanged) ||
			errors.Is(err, ErrConcurrentDeleteDelete)
		if !again {
			return nil, err
		}
		if m.replans++; m.replans == 1 {
			lost = m.t.opts.Clock()
		}
		if waited := m.t.opts.Clock().Sub(lost); m.replans >= m.t.opts.MaxTries || waited >= m.t.opts.MaxWait {
			return nil, fmt.Errorf("%w: merge into %s planned %d times, for %s since it lost to another writer first: %w", ErrTooManyTries, m.t, m.replans, waited.Round(time.Millisecond), err)
		}
		if err := m.t.pause(ctx, m.replans); err != nil {
			return nil, fmt.Errorf("merge into %s: %w", m.t, err)
		}
	}
}

func (m *merge) hook(phase string) {
	if m.o.Hook != nil {
		m.o.Hook(phase)
	}
}

// What became of a source row.
const (
	rowInsert uint8 = iota
	rowUpdate
	rowUnchanged
	rowLost // to a stored row
	rowDup  // to another source row
	rowLate // to nothing that is known any more: see Floor
)

// mergeAttempt is one plan on one snapshot, and what was written for it.
type mergeAttempt struct {
	*merge
	base    *Snapshot
	info    TableInfo
	src     Rows // the source in the table's form
	vectors bool
	keys    []keyValues
	replKey []keyValues

	class  []uint8 // by source ordinal
	losers losers
	carry  *carriedValues
	ids    keptIDs           // of the stored rows that source rows supersede, where rows are tracked
	dead   *roaring64.Bitmap // written rows whose Tombstone is true
	marks  map[string]*roaring64.Bitmap
	// superseded are those of marks whose key a source row has; the others are removed by Replace.
	superseded map[string]*roaring64.Bitmap
	touched    int64 // stored rows that Replace removes
	taken      int64 // of those, rows whose key a source row took over

	written   []WrittenFile
	ownMarks  []*roaring64.Bitmap // rows of written that lost later, by index; nil: none
	rewritten []WrittenFile       // copy-on-write
	staged    map[string]stagedVector
	vectorKey string
	feedFiles []WrittenFile // of the change feed

	changed                  bool // the staged actions change the table
	filesAdded, filesRemoved int
	dvAdded, dvUpdated       int
	dvRemoved                int
	bytesAdded               int64
	located, wrote           time.Duration
}

// stagedVector is a vector that was written for a file in a certain state.
type stagedVector struct {
	rows uint64
	desc *DeletionVector
}

func (m *merge) attempt(ctx context.Context) (*MergeResult, error) {
	base, err := m.t.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	if err := base.checkWriteRows(); err != nil {
		return nil, fmt.Errorf("merge into %s: %w", m.t, err)
	}
	if m.o.Txn != nil {
		if last, ok := base.Txn(m.o.Txn.AppID); ok && last >= m.o.Txn.Version {
			return nil, &ConflictError{Kind: ConcurrentTransaction, Version: base.Version(),
				Detail: fmt.Sprintf("%s is at %d, which covers %d", m.o.Txn.AppID, last, m.o.Txn.Version)}
		}
	}
	a := &mergeAttempt{merge: m, base: base, info: base.TableInfo(), marks: map[string]*roaring64.Bitmap{}, superseded: map[string]*roaring64.Bitmap{}}
	a.vectors = base.DeletionVectors() && !m.o.CopyOnWrite
	res, err := a.run(ctx)
	if err != nil && !errors.Is(err, objstore.ErrAmbiguous) {
		// Nothing names what was written. The context may be the reason for the error.
		a.discard(context.WithoutCancel(ctx))
	}
	return res, err
}

func (a *mergeAttempt) discard(ctx context.Context) {
	deleteFiles(ctx, a.info.Store, a.written)
	deleteFiles(ctx, a.info.Store, a.rewritten)
	deleteFiles(ctx, a.info.Store, a.feedFiles)
	if a.vectorKey != "" {
		deleteFiles(ctx, a.info.Store, []WrittenFile{{Key: a.vectorKey}})
	}
}

func (a *mergeAttempt) run(ctx context.Context) (*MergeResult, error) {
	if err := a.plan(ctx); err != nil {
		return nil, err
	}
	a.hook("located")
	began := time.Now()
	if err := a.write(ctx); err != nil {
		return nil, err
	}
	tx := a.t.Begin(a.base)
	tx.assume(a.base)
	if a.o.Txn != nil {
		tx.SetTxn(*a.o.Txn)
	}
	if err := a.stage(ctx, tx); err != nil {
		return nil, err
	}
	if err := a.stageFeed(ctx, tx, func() ([]rowChange, error) { return a.feed(ctx) }); err != nil {
		return nil, err
	}
	a.wrote = time.Since(began)
	a.hook("files-written")
	if !a.changed && a.base.assumed == nil && (a.o.Txn == nil || !a.o.CommitEmpty) {
		res := a.result()
		res.Version = a.base.Version()
		return res, nil
	}
	tx.ReadWhole()
	op := a.o.Operation
	if op == "" {
		op = "MERGE"
	}
	done, err := tx.Commit(ctx, CommitOptions{
		Operation: op, Parameters: a.parameters(), MetricsFunc: a.metrics,
		UserMetadata: a.o.UserMetadata, Hook: a.o.Hook,
		Rebase: func(ctx context.Context, newer *Snapshot, won []WinningCommit) error {
			if err := a.rebase(ctx, newer, won); err != nil {
				return err
			}
			a.rebases++
			tx.ResetFiles()
			if err := a.stage(ctx, tx); err != nil {
				return err
			}
			return a.stageFeed(ctx, tx, func() ([]rowChange, error) { return a.feed(ctx) })
		},
	})
	if err != nil {
		return nil, err
	}
	for i, own := range a.ownMarks {
		if own != nil && own.GetCardinality() >= uint64(a.written[i].NumRecords) {
			deleteFiles(context.WithoutCancel(ctx), a.info.Store, a.written[i:i+1])
		}
	}
	res := a.result()
	res.Version, res.Committed = done.Version, true
	return res, nil
}

// plan finds the stored rows that the source touches and decides on each source row.
func (a *mergeAttempt) plan(ctx context.Context) error {
	began := time.Now()
	defer func() { a.located = time.Since(began) }()
	src, grown, err := fit(a.source, a.base.Schema(), a.base.growth(a.o.Evolve))
	if err != nil {
		return fmt.Errorf("merge into %s: %w", a.t, err)
	}
	a.src = src
	if err := a.evolve(grown); err != nil {
		return fmt.Errorf("merge into %s: %w", a.t, err)
	}
	if err := a.checkColumns(); err != nil {
		return fmt.Errorf("merge into %s: %w", a.t, err)
	}
	a.class = make([]uint8, src.NumRows())
	if err := a.findDuplicates(ctx); err != nil {
		return err
	}
	if a.dups != nil {
		it := a.dups.Iterator()
		for it.HasNext() {
			a.class[it.Next()] = rowDup
		}
	}
	if r := a.o.Replace; r != nil {
		if a.replKey, err = sourceKeys(ctx, r.Rows, a.info.Schema, r.Columns); err != nil {
			return err
		}
		if _, err := a.replace(ctx, a.base, a.base.liveMayHoldKeys(a.replKey)); err != nil {
			return err
		}
	}
	if src.NumRows() == 0 {
		return nil
	}
	if a.keys, err = sourceKeys(ctx, src, a.info.Schema, a.o.Key); err != nil {
		return err
	}
	files, err := a.base.load(ctx, a.base.liveMayHoldKeys(a.keys))
	if err != nil {
		return err
	}
	j, err := a.match(ctx, files)
	if err != nil {
		return err
	}
	defer j.release()
	for g, ord := range j.ordinals {
		if !j.win[g] {
			a.class[ord] = rowLost
			j.beaters(g, &a.losers)
			continue
		}
		a.class[ord] = rowUpdate
		if j.same[g] {
			a.class[ord] = rowUnchanged
		}
		if j.replaced[g] {
			a.taken++
		}
		j.mark(g, a.marks)
		j.mark(g, a.superseded)
	}
	a.carry = j.takeCarry()
	if _, err := a.keepIDs(ctx, j, nil); err != nil {
		return err
	}
	if err := a.findTombstones(ctx); err != nil {
		return err
	}
	return a.keepOut(ctx)
}

// checkColumns makes sure that every column that the options name exists.
func (a *mergeAttempt) checkColumns() error {
	check := func(lists ...[]string) error {
		for _, l := range lists {
			for i, c := range l {
				f, ok := a.info.Schema.Field(c)
				if !ok {
					return fmt.Errorf("%w: %q", ErrNoSuchColumn, c)
				}
				l[i] = f.Name
			}
		}
		return nil
	}
	o := &a.merge.o
	o.Key, o.Same, o.Carry = append([]string{}, o.Key...), append([]string{}, o.Same...), append([]string{}, o.Carry...)
	if err := check(o.Key, o.Same, o.Carry); err != nil {
		return err
	}
	order := make([]OrderTerm, len(o.Order))
	for i, term := range o.Order {
		if (term.Column == "") == (len(term.HashOf) == 0) {
			return fmt.Errorf("order term %d must have either a column or the columns of a hash", i+1)
		}
		one, hash := []string{term.Column}, append([]string{}, term.HashOf...)
		if term.Column == "" {
			one = nil
		}
		if err := check(one, hash); err != nil {
			return err
		}
		order[i].HashOf = hash
		if one != nil {
			order[i].Column = one[0]
		}
	}
	o.Order = order
	if o.Tombstone != "" {
		f, ok := a.info.Schema.Field(o.Tombstone)
		if !ok || f.Type != Boolean {
			return fmt.Errorf("%w: no boolean column %q", ErrNoSuchColumn, o.Tombstone)
		}
		o.Tombstone = f.Name
	}
	for _, k := range o.Key {
		if a.src.NumRows() > 0 && fieldIndex(a.src.Schema(), k) < 0 {
			return fmt.Errorf("%w: the rows lack the key column %q", ErrSchemaMismatch, k)
		}
	}
	if r := o.Replace; r != nil {
		for _, c := range r.Columns {
			if _, ok := a.info.Schema.Field(c); !ok {
				return fmt.Errorf("%w: %q", ErrNoSuchColumn, c)
			}
		}
		if len(r.Columns) == 0 {
			return fmt.Errorf("replacement without columns")
		}
	}
	return nil
}

// replace marks the rows that Replace removes in the given live files, and says which they are.
func (a *mergeAttempt) replace(ctx context.Context, s *Snapshot, adds []*Add) (int64, error) {
	files, err := s.load(ctx, s.mayHoldKeys(adds, a.replKey))
	if err != nil {
		return 0, err
	}
	r := a.o.Replace
	m, err := a.eng.Locator.Locate(ctx, a.info, files, r.Rows, r.Columns, nil)
	if err != nil {
		return 0, fmt.Errorf("look up rows to replace: %w", err)
	}
	defer m.Release()
	var n int64
	for _, h := range m.Match {
		if mark(a.marks, canonicalPath(files[h.File].Add.Path), h.Row) {
			n++
		}
	}
	a.touched += n
	return n, nil
}

// mark notes a row and says whether that is new.
func mark(marks map[string]*roaring64.Bitmap, path string, row int64) bool {
	b := marks[path]
	if b == nil {
		b = roaring64.New()
		marks[path] = b
	}
	return b.CheckedAdd(uint64(row))
}

// match looks the source's keys up in files and decides.
func (a *mergeAttempt) match(ctx context.Context, files []File) (*judgement, error) {
	j := newJudge(a)
	m, err := a.eng.Locator.Locate(ctx, a.info, files, a.src, a.o.Key, j.want())
	if err != nil {
		return nil, fmt.Errorf("look up keys: %w", err)
	}
	defer m.Release()
	return j.judge(ctx, files, m)
}

// findDuplicates finds source rows that another source row of the same key beats.
func (a *mergeAttempt) findDuplicates(ctx context.Context) error {
	if a.dupsKnown {
		return nil
	}
	if k, ok := a.source.(KeyedRows); ok && k.UniqueBy(a.o.Key) || a.src.NumRows() < 2 {
		a.merge.dupsKnown = true
		return nil
	}
	known, err := buildKeys(ctx, a.src, a.o.Key)
	if err != nil {
		return err
	}
	a.merge.dupsKnown = true
	if len(known.next) == 0 {
		return nil
	}
	if len(a.o.Order) == 0 {
		o := slices.Min(slices.Collect(maps.Keys(known.next)))
		pair, err := sourcePair(ctx, a.src, a.info.Schema, a.src.Schema(), a.o.Key, o, known.next[o])
		if err != nil {
			return err
		}
		return fmt.Errorf("merge into %s: %w", a.t, &DuplicateKeyError{Key: pair.key, Source: pair.at, Rows: pair.rows})
	}
	// Read the rows that share a key, then walk each chain.
	involved := roaring64.New()
	inner := map[int64]bool{}
	for o, p := range known.next {
		involved.Add(uint64(o))
		involved.Add(uint64(p))
		inner[p] = true
	}
	cols := orderColumns(a.o.Order)
	b, err := readSource(ctx, a.src, a.info.Schema, cols, involved)
	if err != nil {
		return err
	}
	defer b.Release()
	cmp := newComparer(a.o.Order, b, b)
	at := func(o int64) int { return int(involved.Rank(uint64(o))) - 1 }
	a.merge.dups = roaring64.New()
	for o := range known.next {
		if inner[o] {
			continue // not the head of its chain
		}
		best := o
		for p, ok := known.next[o]; ok; p, ok = known.next[p] {
			switch d := cmp.compare(at(p), at(best), len(a.o.Order)); {
			case d > 0, d == 0 && p < best:
				a.dups.Add(uint64(best))
				best = p
			default:
				a.dups.Add(uint64(p))
			}
		}
	}
	return nil
}

// findTombstones notes which rows to write are tombstones.
func (a *mergeAttempt) findTombstones(ctx context.Context) error {
	if a.o.Tombstone == "" || fieldIndex(a.src.Schema(), a.o.Tombstone) < 0 {
		return nil
	}
	a.dead = roaring64.New()
	var at int64
	for b, err := range a.src.Read(ctx, []string{a.o.Tombstone}, nil) {
		if err != nil {
			return err
		}
		c := b.Column(0)
		for i := range c.Len() {
			if v, ok := goValue(c, i); ok && v == true {
				a.dead.Add(uint64(at + int64(i)))
			}
		}
		at += b.NumRows()
	}
	return nil
}

// skip lists the source rows that are not written; nil if all are.
func (a *mergeAttempt) skip() *roaring64.Bitmap {
	skip := roaring64.New()
	for o, c := range a.class {
		if c >= rowLost {
			skip.Add(uint64(o))
		}
	}
	if skip.IsEmpty() {
		return nil
	}
	return skip
}

// write writes the rows that won, and in a copy-on-write table the files that lose rows.
func (a *mergeAttempt) write(ctx context.Context) error {
	skip := a.skip()
	if n := uint64(a.src.NumRows()); n > 0 && (skip == nil || skip.GetCardinality() < n) {
		rows := a.src
		if a.carry != nil {
			rows = &carriedRows{rows: a.src, carry: a.carry, schema: a.carry.schema(a.src.Schema(), a.info.Schema)}
		}
		if len(a.ids.id) > 0 {
			rows = newIDRows(rows, a.info.Config[propRowIDColumn], a.ids.id)
		}
		files, err := a.writeRows(ctx, rows, skip)
		if err != nil {
			return err
		}
		a.written = files
	}
	if a.vectors || len(a.marks) == 0 {
		return nil
	}
	var touched []File
	for _, p := range sortedKeys(a.marks) {
		x, ok := a.base.File(p)
		if !ok {
			return fmt.Errorf("BUG: %s is marked and not in version %d", p, a.base.Version())
		}
		files, err := a.base.load(ctx, []*Add{x})
		if err != nil {
			return err
		}
		f := files[0]
		del := a.marks[p].Clone()
		if f.Deleted != nil {
			del.Or(f.Deleted)
		}
		f.Deleted = del
		touched = append(touched, f)
	}
	info, reader, err := a.base.copyInfo(a.info, a.eng.Reader)
	if err != nil {
		return err
	}
	rest, err := newFileRows(ctx, reader, info, touched)
	if err != nil {
		return err
	}
	if rest.NumRows() == 0 {
		return nil
	}
	a.rewritten, err = a.eng.FileWriter.Write(ctx, info, WriteRequest{
		Rows: rest, SortBy: a.o.SortBy, Compression: a.o.Compression, FileBytesTarget: a.o.FileBytesTarget,
	})
	if err != nil {
		return fmt.Errorf("rewrite files: %w", err)
	}
	withoutIDStats(info.Config, a.rewritten)
	return nil
}

func (a *mergeAttempt) writeRows(ctx context.Context, rows Rows, skip *roaring64.Bitmap) ([]WrittenFile, error) {
	files, err := writeChecked(ctx, a.eng, a.info.forRows(rows.Schema()), WriteRequest{
		Rows: rows, Skip: skip, SortBy: a.o.SortBy, Compression: a.o.Compression, FileBytesTarget: a.o.FileBytesTarget,
	})
	withoutIDStats(a.info.Config, files)
	return files, err
}

// writeChecked writes rows and makes sure that they keep the rules of the table and that no NOT NULL column got a null.
func writeChecked(ctx context.Context, eng Engine, info TableInfo, req WriteRequest) ([]WrittenFile, error) {
	if err := enforce(ctx, eng, info, &req); err != nil {
		return nil, err
	}
	if err := checkNested(ctx, req.Rows, req.Skip, info.Schema); err != nil {
		return nil, err
	}
	files, err := eng.FileWriter.Write(ctx, info, req)
	if err != nil {
		var nn *NotNullError
		if errors.As(err, &nn) {
			// The writer may know only a place in a batch.
			if row, ferr := firstNull(ctx, req.Rows, req.Skip, nn.Column, false); ferr == nil && row >= 0 {
				return nil, &NotNullError{Column: nn.Column, Row: row}
			}
		}
		return nil, fmt.Errorf("write rows: %w", err)
	}
	if err := checkNotNull(ctx, req.Rows, req.Skip, info.Schema, info.PartitionBy, files); err != nil {
		deleteFiles(context.WithoutCancel(ctx), info.Store, files)
		return nil, err
	}
	return files, nil
}

// addOf is the add action of a new file.
func addOf(w WrittenFile, dataChange bool) *Add {
	pv := w.PartitionValues
	if pv == nil {
		pv = map[string]*string{}
	}
	return &Add{Path: w.Path, PartitionValues: pv, Size: w.Size, ModificationTime: w.ModTime.UnixMilli(), DataChange: dataChange, Stats: w.Stats.JSON()}
}

// withVector is an add with another deletion vector. Its statistics keep their bounds, which are wide from now on
// (PROTOCOL.md, "Per-file Statistics"), and must have the number of physical rows.
func withVector(a *Add, dv *DeletionVector, records int64) (*Add, error) {
	st, err := ParseStats(a.Stats)
	if err != nil {
		st = &Stats{}
	}
	wide := false
	st.NumRecords, st.TightBounds = records, &wide
	out := *a
	out.DeletionVector, out.Stats, out.DataChange = dv, st.JSON(), true
	return &out, nil
}

// stage puts the file actions of the plan, as it stands on a.base, into the transaction, after writing the deletion
// vectors that it needs.
func (a *mergeAttempt) stage(ctx context.Context, tx *Tx) error {
	now := a.t.opts.Clock().UnixMilli()
	a.filesAdded, a.filesRemoved, a.bytesAdded = 0, 0, 0
	a.dvAdded, a.dvUpdated, a.dvRemoved = 0, 0, 0
	add := func(x *Add) {
		tx.AddFile(x)
		a.filesAdded++
		a.bytesAdded += x.Size
	}
	type change struct {
		key     string // in staged
		before  *Add   // nil: a file of ours
		after   *Add
		records int64
		rows    *roaring64.Bitmap
	}
	var changes []change
	for _, p := range sortedKeys(a.marks) {
		cur, ok := a.base.File(p)
		if !ok {
			return fmt.Errorf("BUG: %s is marked and not in version %d", p, a.base.Version())
		}
		if !a.vectors {
			tx.RemoveFile(cur.Tombstone(now, true))
			a.filesRemoved++
			continue
		}
		files, err := a.base.load(ctx, []*Add{cur})
		if err != nil {
			return err
		}
		rows := a.marks[p].Clone()
		if old := files[0].Deleted; old != nil {
			rows.Or(old)
			if rows.GetCardinality() == old.GetCardinality() {
				continue // the winner marked the same rows
			}
		}
		n, err := numRecords(ctx, a.info, files[0])
		if err != nil {
			return err
		}
		tx.RemoveFile(cur.Tombstone(now, true))
		if rows.GetCardinality() >= uint64(n) {
			a.filesRemoved++
			if cur.DeletionVector != nil {
				a.dvRemoved++
			}
			continue
		}
		if cur.DeletionVector != nil {
			a.dvUpdated++
		} else {
			a.dvAdded++
		}
		changes = append(changes, change{key: p + "\x00" + cur.DeletionVector.UniqueID(), before: cur, after: cur, records: n, rows: rows})
	}
	for i, w := range a.written {
		x := addOf(w, true)
		var own *roaring64.Bitmap
		if i < len(a.ownMarks) {
			own = a.ownMarks[i]
		}
		switch {
		case own == nil || own.IsEmpty():
			add(x)
		case own.GetCardinality() >= uint64(w.NumRecords):
			// All rows lost: the file is not needed. run deletes it after the commit.
		default:
			changes = append(changes, change{key: canonicalPath(x.Path), after: x, records: w.NumRecords, rows: own})
		}
	}
	for _, w := range a.rewritten {
		add(addOf(w, true))
	}
	// A rebase that changed no vector keeps the object that holds them.
	fresh := false
	for _, c := range changes {
		s, ok := a.staged[c.key]
		if !ok || s.rows != c.rows.GetCardinality() {
			fresh = true
		}
	}
	if fresh {
		vectors := make([]*roaring64.Bitmap, len(changes))
		for i, c := range changes {
			vectors[i] = c.rows
		}
		key, descs, err := writeVectors(ctx, a.info, a.t.opts.NewID, vectors)
		if err != nil {
			return err
		}
		if a.vectorKey != "" {
			deleteFiles(context.WithoutCancel(ctx), a.info.Store, []WrittenFile{{Key: a.vectorKey}})
		}
		a.vectorKey, a.staged = key, map[string]stagedVector{}
		for i, c := range changes {
			a.staged[c.key] = stagedVector{rows: c.rows.GetCardinality(), desc: descs[i]}
			a.t.vectors.put(c.after.Path, descs[i], c.rows)
		}
	}
	for _, c := range changes {
		x, err := withVector(c.after, a.staged[c.key].desc, c.records)
		if err != nil {
			return err
		}
		if c.before == nil {
			add(x)
		} else {
			tx.AddFile(x)
		}
	}
	if len(changes) == 0 && a.vectorKey != "" {
		deleteFiles(context.WithoutCancel(ctx), a.info.Store, []WrittenFile{{Key: a.vectorKey}})
		a.vectorKey, a.staged = "", nil
	}
	a.changed = len(changes) > 0 || a.filesAdded > 0 || a.filesRemoved > 0
	return nil
}

// result counts.
func (a *mergeAttempt) result() *MergeResult {
	r := &MergeResult{FilesAdded: a.filesAdded, FilesRemoved: a.filesRemoved, BytesAdded: a.bytesAdded,
		Rebases: a.rebases, DataFilesOnRebase: a.lateFiles, Removed: a.touched - a.taken}
	for o, c := range a.class {
		switch {
		case c == rowLate && (a.dead == nil || !a.dead.Contains(uint64(o))):
			if r.LateRows == nil {
				r.LateRows = roaring64.New()
			}
			r.LateRows.Add(uint64(o))
			r.Late++
		case c >= rowLost:
			r.Lost++
		case c == rowUnchanged:
			r.Unchanged++
		case a.dead != nil && a.dead.Contains(uint64(o)):
			r.Deleted++
		case c == rowUpdate:
			r.Updated++
		default:
			r.Inserted++
		}
	}
	return r
}

// parameters are Spark's operationParameters of a MERGE.
func (a *mergeAttempt) parameters() map[string]string {
	if a.o.Operation != "" && a.o.Operation != "MERGE" {
		if a.o.Replace != nil {
			return map[string]string{"predicate": quoteJSON(a.o.Replace.Columns)}
		}
		return map[string]string{}
	}
	cond := ""
	for i, k := range a.o.Key {
		if i > 0 {
			cond += " AND "
		}
		cond += "(target." + quoteIdent(k) + " = source." + quoteIdent(k) + ")"
	}
	return map[string]string{
		"predicate":                    quoteJSON([]string{cond}),
		"matchedPredicates":            `[{"actionType":"update"}]`,
		"notMatchedPredicates":         `[{"actionType":"insert"}]`,
		"notMatchedBySourcePredicates": "[]",
	}
}

// quoteJSON spells a list as Spark does in operationParameters.
func quoteJSON(list []string) string {
	if list == nil {
		list = []string{}
	}
	b, err := json.Marshal(list)
	if err != nil {
		return "[]"
	}
	return string(b)
}

// metrics are Spark's operationMetrics of a MERGE.
func (a *mergeAttempt) metrics() map[string]string {
	r := a.result()
	n := func(v int64) string { return strconv.FormatInt(v, 10) }
	var copied int64
	for _, w := range a.rewritten {
		copied += w.NumRecords
	}
	return map[string]string{
		"numSourceRows":                   n(a.src.NumRows()),
		"numTargetRowsInserted":           n(r.Inserted),
		"numTargetRowsUpdated":            n(r.Updated + r.Unchanged + r.Deleted),
		"numTargetRowsDeleted":            n(r.Removed),
		"numTargetRowsCopied":             n(copied),
		"numOutputRows":                   n(r.Inserted + r.Updated + r.Unchanged + r.Deleted + copied),
		"numTargetFilesAdded":             n(int64(a.filesAdded)),
		"numTargetFilesRemoved":           n(int64(a.filesRemoved)),
		"numTargetBytesAdded":             n(a.bytesAdded),
		"numTargetChangeFilesAdded":       n(int64(len(a.feedFiles))),
		"numTargetDeletionVectorsAdded":   n(int64(a.dvAdded + a.dvUpdated)),
		"numTargetDeletionVectorsUpdated": n(int64(a.dvUpdated)),
		"numTargetDeletionVectorsRemoved": n(int64(a.dvRemoved)),
		"scanTimeMs":                      n(a.located.Milliseconds()),
		"rewriteTimeMs":                   n(a.wrote.Milliseconds()),
		"executionTimeMs":                 n(a.t.opts.Clock().Sub(a.began).Milliseconds()),
	}
}

// orderColumns are the columns that an order needs.
func orderColumns(order []OrderTerm) []string {
	var out []string
	for _, t := range order {
		if t.Column != "" {
			out = append(out, t.Column)
		}
		out = append(out, t.HashOf...)
	}
	return distinct(out)
}

func distinct(names []string) []string {
	seen := map[string]bool{}
	var out []string
	for _, n := range names {
		if !seen[n] {
			seen[n] = true
			out = append(out, n)
		}
	}
	return out
}

// readSource reads columns of rows (nil: all rows) into one batch; columns that the rows lack are null. The caller
// releases it.
func readSource(ctx context.Context, rows Rows, schema *Schema, columns []string, ordinals *roaring64.Bitmap) (arrow.RecordBatch, error) {
	n := rows.NumRows()
	if ordinals != nil {
		n = int64(ordinals.GetCardinality())
	}
	var have []string
	fields := make([]arrow.Field, 0, len(columns))
	for _, c := range columns {
		if i := fieldIndex(rows.Schema(), c); i >= 0 {
			have = append(have, c)
			fields = append(fields, rows.Schema().Field(i))
		}
	}
	var got arrow.RecordBatch
	if len(have) > 0 {
		b, err := collect(arrow.NewSchema(fields, nil), rows.Read(ctx, have, ordinals))
		if err != nil {
			return nil, err
		}
		defer b.Release()
		if b.NumRows() != n {
			return nil, fmt.Errorf("BUG: the source gave %d of %d rows", b.NumRows(), n)
		}
		got = b
	}
	return widen(got, schema, columns, n)
}
