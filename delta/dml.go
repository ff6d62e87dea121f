package delta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/cauce-data/cauce/delta/expr"
	"github.com/cauce-data/cauce/objstore"
)

// ChangeOptions are what DeleteWhere, Update and MergeInto have in common.
type ChangeOptions struct {
	Txn          *Txn
	UserMetadata string
	SortBy       []string // order of the rows inside each new file
	Compression  string   // "snappy" (default) or "zstd"
	// FileBytesTarget bounds the size of a new file approximately; 0: the writer's default.
	FileBytesTarget int64
	// CopyOnWrite rewrites files instead of marking rows in deletion vectors, as in MergeOptions.
	CopyOnWrite bool
	// Properties gives properties of the table that the same commit sets, for the snapshot that is changed; nil: none. It
	// is asked once for each plan, and not where no row changes. Names that the protocol knows are not for it.
	Properties func(s *Snapshot) (map[string]string, error)
	// DryRun finds out what would be changed, and writes nothing.
	DryRun bool
	// Hook is called when a phase begins: "located", "files-written", "before-commit", "after-commit", "checkpoint".
	Hook func(phase string)
}

// ChangeResult says what DeleteWhere, Update or MergeInto did, or with DryRun would do.
type ChangeResult struct {
	Version   Version // of the commit; of the table as it was read if nothing was committed
	Committed bool

	SourceRows int64 // of MergeInto
	Inserted   int64
	Updated    int64
	Deleted    int64
	Copied     int64 // rows written again because of their neighbours (copy on write)

	FilesAdded, FilesRemoved int
	BytesAdded, BytesRemoved int64
	Replans                  int // times that a concurrent commit made everything be planned anew

	Metrics       map[string]string // commitInfo.operationMetrics, under Spark's names
	CheckpointErr error             // the checkpoint after the commit failed; the commit stands
}

// DeleteWhere removes the rows for which a condition over the table's columns is true (not false, not null); nil: all
// rows. A condition that partition values decide is not looked up in files.
//
// Errors are those of the condition (expr.ErrType, expr.ErrValue, ErrNoSuchColumn) and of Tx.Commit; conflicts with other
// writers are mended by planning anew, within the bounds of Options (ErrTooManyTries).
func (t *Table) DeleteWhere(ctx context.Context, where expr.Expr, o ChangeOptions) (*ChangeResult, error) {
	op := &rowwise{where: where}
	return t.change(ctx, o, "DELETE", op)
}

// Truncate removes every row of the table, as DeleteWhere without a condition does: an operation of its own in the history
// (TRUNCATE), with the figures that Spark has for it. Errors as of DeleteWhere.
func (t *Table) Truncate(ctx context.Context, o ChangeOptions) (*ChangeResult, error) {
	return t.change(ctx, o, "TRUNCATE", &truncation{})
}

// truncation is a DELETE of all rows.
type truncation struct{ rowwise }

func (*truncation) parameters() map[string]string { return map[string]string{} }

func (w *truncation) metrics(c *change) map[string]string {
	all := w.rowwise.metrics(c)
	return map[string]string{"numRemovedFiles": all["numRemovedFiles"], "executionTimeMs": all["executionTimeMs"]}
}

// UpdateOptions say what Update does.
type UpdateOptions struct {
	ChangeOptions
	// Where selects the rows, as in DeleteWhere; nil: all.
	Where expr.Expr
	// Set gives new values of columns, computed from the row as it was. A value that does not fit the column's type is
	// an error (ANSI store assignment). At least one.
	Set []Assignment
}

// Assignment gives a column a value.
type Assignment struct {
	Column string
	Value  expr.Expr
}

// Update changes rows in place. Errors as of DeleteWhere, and those of constraints.
func (t *Table) Update(ctx context.Context, o UpdateOptions) (*ChangeResult, error) {
	if len(o.Set) == 0 {
		return nil, fmt.Errorf("update %s: nothing is set", t)
	}
	op := &rowwise{where: o.Where, set: o.Set}
	return t.change(ctx, o.ChangeOptions, "UPDATE", op)
}

// changePlanner finds out what an operation does to one snapshot.
type changePlanner interface {
	plan(ctx context.Context, c *change) error
	parameters() map[string]string
	metrics(c *change) map[string]string
}

// change is one attempt of an operation.
type change struct {
	*mergeAttempt
	opts ChangeOptions
	now  expr.Timestamp // of the whole statement

	out   []Rows      // rows to write, each with all columns of info.Schema in its order
	told  []rowChange // the same changes as the change data feed tells them
	reads []Predicate // what was read, as far as that is known; nil: the whole table

	res          ChangeResult
	matchUpdated int64 // of MERGE, by kind of clause
	matchDeleted int64
	restUpdated  int64
	restDeleted  int64
	bytesRemoved int64
	scan, write  time.Duration
}

// change runs an operation until it is committed.
func (t *Table) change(ctx context.Context, o ChangeOptions, operation string, p changePlanner) (*ChangeResult, error) {
	began := t.opts.Clock()
	var lost time.Time // the first race: a statement that takes long by itself has its tries, too
	for try := 0; ; try++ {
		res, err := t.changeOnce(ctx, o, operation, p, began)
		if err == nil {
			res.Replans = try
			return res, nil
		}
		if !errors.Is(err, ErrConflict) || errors.Is(err, ErrTxnApplied) {
			return nil, fmt.Errorf("%s on %s: %w", strings.ToLower(operation), t, err)
		}
		if try == 0 {
			lost = t.opts.Clock()
		}
		if waited := t.opts.Clock().Sub(lost); try+1 >= t.opts.MaxTries || waited >= t.opts.MaxWait {
			return nil, fmt.Errorf("%w: %s on %s planned %d times, for %s since it lost to another writer first: %w", ErrTooManyTries, strings.ToLower(operation), t, try+1, waited.Round(time.Millisecond), err)
		}
		if serr := t.pause(ctx, try+1); serr != nil {
			return nil, fmt.Errorf("%s on %s: %w", strings.ToLower(operation), t, serr)
		}
	}
}

func (t *Table) changeOnce(ctx context.Context, o ChangeOptions, operation string, p changePlanner, began time.Time) (res *ChangeResult, err error) {
	base, err := t.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	if err := base.checkWriteRows(); err != nil {
		return nil, err
	}
	m := &merge{t: t, eng: t.engine(), began: began, o: MergeOptions{SortBy: o.SortBy, Compression: o.Compression, FileBytesTarget: o.FileBytesTarget}}
	a := &mergeAttempt{merge: m, base: base, info: base.TableInfo(), marks: map[string]*roaring64.Bitmap{}}
	a.vectors = base.DeletionVectors() && !o.CopyOnWrite
	c := &change{mergeAttempt: a, opts: o, now: expr.Timestamp(began.UnixMicro())}
	tx := t.Begin(base)
	if o.Txn != nil {
		tx.SetTxn(*o.Txn)
		if err := tx.checkTxns(); err != nil {
			return nil, err
		}
	}
	scan := time.Now()
	if err := p.plan(ctx, c); err != nil {
		return nil, err
	}
	c.scan = time.Since(scan)
	hook(o.Hook, "located")
	if o.DryRun {
		c.res.Version, c.res.Metrics = base.Version(), p.metrics(c)
		return &c.res, nil
	}
	defer func() {
		if err != nil && !errors.Is(err, objstore.ErrAmbiguous) {
			a.discard(context.WithoutCancel(ctx))
		}
	}()
	write := time.Now()
	c.src = c.joined()
	c.class = make([]uint8, c.src.NumRows())
	if err := a.write(ctx); err != nil {
		return nil, err
	}
	for _, w := range a.rewritten {
		c.res.Copied += w.NumRecords
	}
	tx.assume(c.base)
	if err := a.stage(ctx, tx); err != nil {
		return nil, err
	}
	if err := a.stageFeed(ctx, tx, func() ([]rowChange, error) { return c.told, nil }); err != nil {
		return nil, err
	}
	for _, r := range tx.removes {
		if r.Size != nil {
			c.bytesRemoved += *r.Size
		}
	}
	c.write = time.Since(write)
	hook(o.Hook, "files-written")
	c.res.FilesAdded, c.res.FilesRemoved, c.res.BytesAdded, c.res.BytesRemoved = a.filesAdded, a.filesRemoved, a.bytesAdded, c.bytesRemoved
	c.res.Metrics = p.metrics(c)
	if !a.changed && c.base.assumed == nil && o.Txn == nil {
		c.res.Version = base.Version()
		return &c.res, nil
	}
	if o.Properties != nil {
		if err := setProperties(tx, c.base, o.Properties); err != nil {
			return nil, err
		}
	}
	c.recordReads(tx)
	done, err := tx.Commit(ctx, CommitOptions{
		Operation: operation, Parameters: p.parameters(), MetricsFunc: func() map[string]string { return p.metrics(c) },
		UserMetadata: o.UserMetadata, Hook: o.Hook,
		Rebase: func(ctx context.Context, newer *Snapshot, won []WinningCommit) error {
			return c.rebaseOn(ctx, tx, p, newer, won)
		},
	})
	if err != nil {
		return nil, err
	}
	c.res.FilesAdded, c.res.FilesRemoved, c.res.BytesAdded, c.res.Metrics = a.filesAdded, a.filesRemoved, a.bytesAdded, p.metrics(c)
	c.res.Version, c.res.Committed, c.res.CheckpointErr = done.Version, true, done.CheckpointErr
	return &c.res, nil
}

// setProperties has a transaction set properties. A writer that planned without them meets ErrMetadataChanged.
func setProperties(tx *Tx, base *Snapshot, of func(*Snapshot) (map[string]string, error)) error {
	set, err := of(base)
	if err != nil {
		return err
	}
	meta := base.Metadata()
	meta.Configuration = maps.Clone(meta.Configuration)
	if meta.Configuration == nil {
		meta.Configuration = map[string]string{}
	}
	for k, v := range set {
		if strings.HasPrefix(strings.ToLower(k), "delta.") {
			return fmt.Errorf("%w: %s is the protocol's", ErrProperty, k)
		}
		meta.Configuration[k] = v
	}
	tx.SetMetadata(meta)
	return nil
}

func (c *change) recordReads(tx *Tx) {
	if c.reads == nil {
		tx.ReadWhole()
	}
	for _, r := range c.reads {
		tx.ReadWhere(r)
	}
}

// rebaser is a planner whose plan can be moved to a newer snapshot without writing again what is written; errReplan if it
// cannot.
type rebaser interface {
	rebase(ctx context.Context, c *change, newer *Snapshot) error
}

// rebaseOn follows a lost race: by Spark's rules for files nothing may be amiss, else the plan is moved, and where that
// cannot be the conflict has everything planned anew.
func (c *change) rebaseOn(ctx context.Context, tx *Tx, p changePlanner, newer *Snapshot, won []WinningCommit) error {
	var conflict error
	for i := range won {
		if conflict = tx.conflictInFiles(newer, &won[i]); conflict != nil {
			break
		}
	}
	if conflict == nil {
		return nil
	}
	r, ok := p.(rebaser)
	if !ok || !c.vectors {
		return conflict
	}
	if err := r.rebase(ctx, c, newer); errors.Is(err, errReplan) {
		return conflict
	} else if err != nil {
		return err
	}
	tx.ResetFiles()
	c.recordReads(tx)
	if err := c.stage(ctx, tx); err != nil {
		return err
	}
	return c.stageFeed(ctx, tx, func() ([]rowChange, error) { return c.told, nil })
}

func hook(f func(string), phase string) {
	if f != nil {
		f(phase)
	}
}

// rowwise is DELETE (set is nil) and UPDATE: each row is decided by itself.
type rowwise struct {
	where expr.Expr
	set   []Assignment
	// found keeps what was found in a file, by its path and vector, for planning anew.
	found map[string]*roaring64.Bitmap
	// hits are the rows of the newest plan, by file.
	hits map[string]fileHits
}

type fileHits struct {
	file File
	rows *roaring64.Bitmap
}

func (w *rowwise) plan(ctx context.Context, c *change) error {
	target := scope{tag: targetTag, schema: c.base.Schema().Arrow()}
	where, err := qualify(w.where, target)
	if err != nil {
		return err
	}
	pred := targetPredicate(where)
	if where == nil {
		pred = And()
	} else {
		c.reads = []Predicate{pred}
	}
	var cond *expr.Program
	if where != nil {
		if cond, err = compileCondition(where, c.now, target); err != nil {
			return err
		}
	}
	byPartition := where == nil || onlyColumns(where, c.base.PartitionBy())
	files, err := c.base.load(ctx, c.base.Prune(pred))
	if err != nil {
		return err
	}
	if w.found == nil {
		w.found = map[string]*roaring64.Bitmap{}
	}
	var unknown []File
	for _, f := range files {
		if _, ok := w.found[fileState(f.Add)]; ok {
			continue
		}
		if where == nil || byPartition && c.base.certainly(pred, f.Add) {
			n, err := numRecords(ctx, c.info, f)
			if err != nil {
				return err
			}
			all := roaring64.New()
			all.AddRange(0, uint64(n))
			w.found[fileState(f.Add)] = all
			continue
		}
		unknown = append(unknown, f)
	}
	if err := w.look(ctx, c, cond, where, unknown); err != nil {
		return err
	}
	hits := make([]*roaring64.Bitmap, 0, len(files))
	var hit []File
	var n int64
	for _, f := range files {
		b := vectorMinus(w.found[fileState(f.Add)], f.Deleted)
		if b.IsEmpty() {
			continue
		}
		c.marks[canonicalPath(f.Add.Path)] = b
		hit, hits = append(hit, f), append(hits, b)
		n += int64(b.GetCardinality())
	}
	before := c.storedRows(hit, hits)
	w.hits = map[string]fileHits{}
	for i, f := range hit {
		w.hits[canonicalPath(f.Add.Path)] = fileHits{f, hits[i]}
	}
	if w.set == nil {
		c.res.Deleted = n
		c.told = append(c.told, rowChange{changeDelete, before})
		return nil
	}
	c.res.Updated = n
	after, err := w.after(c, hit, hits)
	if err != nil {
		return err
	}
	c.out = append(c.out, after)
	c.told = append(c.told, rowChange{changePreimage, before}, rowChange{changePostimage, c.withoutIDs(after)})
	return nil
}

// after are the rows of an UPDATE as they become.
func (w *rowwise) after(c *change, files []File, hits []*roaring64.Bitmap) (Rows, error) {
	as, err := c.assigner(w.set, false, false, scope{tag: targetTag, schema: c.base.Schema().Arrow()})
	if err != nil {
		return nil, err
	}
	return c.changed(as, files, hits)
}

// rebase looks only into files that are new. What an UPDATE has written stays as long as the rows that it was made of are
// all there; rows that came meanwhile are written beside it.
func (w *rowwise) rebase(ctx context.Context, c *change, newer *Snapshot) error {
	was := c.marks
	a := &mergeAttempt{merge: c.merge, base: newer, info: newer.TableInfo(), marks: map[string]*roaring64.Bitmap{}, vectors: c.vectors}
	fresh := &change{mergeAttempt: a, opts: c.opts, now: c.now}
	if err := w.plan(ctx, fresh); err != nil {
		return err
	}
	if w.set != nil {
		for p, b := range was {
			if now := a.marks[p]; now == nil || !now.Equals(b) {
				return errReplan
			}
		}
		var files []File
		var rows []*roaring64.Bitmap
		for _, p := range sortedKeys(a.marks) {
			if was[p] == nil {
				files, rows = append(files, w.hits[p].file), append(rows, w.hits[p].rows)
			}
		}
		if len(files) > 0 {
			after, err := w.after(fresh, files, rows)
			if err != nil {
				return err
			}
			more, err := c.writeRows(ctx, after, nil)
			if err != nil {
				return err
			}
			c.written = append(c.written, more...)
		}
	}
	c.base, c.marks, c.told, c.reads = newer, a.marks, fresh.told, fresh.reads
	c.res.Deleted, c.res.Updated = fresh.res.Deleted, fresh.res.Updated
	return nil
}

// fileState names a file and its vector; what a condition finds in it stays the same.
func fileState(a *Add) string { return canonicalPath(a.Path) + "\x00" + a.DeletionVector.UniqueID() }

// look finds the rows of files for which the condition is true.
func (w *rowwise) look(ctx context.Context, c *change, cond *expr.Program, where expr.Expr, files []File) error {
	if len(files) == 0 {
		return nil
	}
	found := make([]*roaring64.Bitmap, len(files))
	for i := range found {
		found[i] = roaring64.New()
	}
	cols, pick := neededColumns(c.base.Schema(), where)
	for b, err := range c.eng.Reader.Read(ctx, c.base.TableInfo(), files, ReadOptions{Columns: cols, WithPosition: true}) {
		if err != nil {
			return err
		}
		n := int(b.NumCols())
		fileAt, rowAt := b.Column(n-2).(*array.Int32), b.Column(n-1).(*array.Int64)
		rows, err := cond.Filter(pick(b))
		if err != nil {
			return fmt.Errorf("%s: %w", w.where, err)
		}
		for _, i := range rows {
			found[fileAt.Value(int(i))].Add(uint64(rowAt.Value(int(i))))
		}
	}
	for i, f := range files {
		w.found[fileState(f.Add)] = found[i]
	}
	return nil
}

func (w *rowwise) parameters() map[string]string {
	p := []string{}
	if w.where != nil {
		p = append(p, w.where.String())
	}
	if w.set == nil {
		return map[string]string{"predicate": plainJSON(p)}
	}
	if w.where == nil {
		return map[string]string{}
	}
	return map[string]string{"predicate": plainJSON(p)}
}

func (w *rowwise) metrics(c *change) map[string]string {
	m := c.commonMetrics()
	n := func(v int64) string { return strconv.FormatInt(v, 10) }
	m["numCopiedRows"] = n(c.res.Copied)
	if w.set == nil {
		m["numDeletedRows"] = n(c.res.Deleted)
	} else {
		m["numUpdatedRows"] = n(c.res.Updated)
	}
	return m
}

// commonMetrics are Spark's operationMetrics of DELETE and UPDATE.
func (c *change) commonMetrics() map[string]string {
	n := func(v int64) string { return strconv.FormatInt(v, 10) }
	return map[string]string{
		"numAddedFiles": n(int64(c.filesAdded)), "numRemovedFiles": n(int64(c.filesRemoved)),
		"numAddedBytes": n(c.bytesAdded), "numRemovedBytes": n(c.bytesRemoved), "numAddedChangeFiles": n(int64(len(c.feedFiles))),
		"numDeletionVectorsAdded": n(int64(c.dvAdded + c.dvUpdated)), "numDeletionVectorsUpdated": n(int64(c.dvUpdated)),
		"numDeletionVectorsRemoved": n(int64(c.dvRemoved + c.dvUpdated)),
		"scanTimeMs":                n(c.scan.Milliseconds()), "rewriteTimeMs": n(c.write.Milliseconds()),
		"executionTimeMs": n(c.t.opts.Clock().Sub(c.began).Milliseconds()),
	}
}

// plainJSON is JSON with <, > and & as they are, for conditions that people read in the history.
func plainJSON(v any) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("BUG: " + err.Error()) // strings, and structs of strings only
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// Tags of the two relations whose columns an expression may name. Qualified expressions have one in front of each path.
const (
	targetTag = "\x00t"
	sourceTag = "\x00s"
)

// scope is a relation whose columns an expression may name.
type scope struct {
	tag    string
	alias  string // "": none
	schema *arrow.Schema
}

// qualify puts the tag of its relation and the exact name in front of each column of an expression.
func qualify(e expr.Expr, scopes ...scope) (expr.Expr, error) {
	if e == nil {
		return nil, nil
	}
	var bad error
	out := expr.Map(e, func(x expr.Expr) expr.Expr {
		c, ok := x.(expr.Column)
		if !ok || bad != nil {
			return x
		}
		q, err := qualifyPath(c.Path, scopes)
		if err != nil {
			bad = fmt.Errorf("%s: %w", e, err)
			return x
		}
		return expr.Column{Path: q}
	})
	return out, bad
}

func qualifyPath(path []string, scopes []scope) ([]string, error) {
	if len(path) > 1 {
		for _, s := range scopes {
			if s.alias != "" && strings.EqualFold(s.alias, path[0]) {
				i := fieldIndex(s.schema, path[1])
				if i < 0 {
					break
				}
				return append([]string{s.tag, s.schema.Field(i).Name}, path[2:]...), nil
			}
		}
	}
	var out []string
	var names []string
	for _, s := range scopes {
		if i := fieldIndex(s.schema, path[0]); i >= 0 {
			if out != nil {
				return nil, fmt.Errorf("%w: column %s is ambiguous: both sides have one; say %s.%s or %s.%s", expr.ErrType, expr.Column{Path: path},
					scopes[0].alias, path[0], scopes[1].alias, path[0])
			}
			out = append([]string{s.tag, s.schema.Field(i).Name}, path[1:]...)
		}
		for _, f := range s.schema.Fields() {
			names = append(names, f.Name)
		}
	}
	if out == nil {
		return nil, fmt.Errorf("%w: %s; there are %s", ErrNoSuchColumn, expr.Column{Path: path}, strings.Join(names, ", "))
	}
	return out, nil
}

// resolver finds qualified columns in batches that have the columns of the scopes side by side.
func resolver(scopes ...scope) expr.Resolver {
	return func(path []string) (int, int, arrow.DataType, error) {
		at := 0
		for _, s := range scopes {
			if s.tag == path[0] {
				if i := fieldIndex(s.schema, path[1]); i >= 0 {
					return at + i, 2, s.schema.Field(i).Type, nil
				}
			}
			at += s.schema.NumFields()
		}
		return 0, 0, nil, fmt.Errorf("%w: %s has no place here", ErrNoSuchColumn, expr.Column{Path: path[1:]})
	}
}

func compileCondition(e expr.Expr, now expr.Timestamp, scopes ...scope) (*expr.Program, error) {
	p, err := expr.Compile(e, resolver(scopes...), expr.Options{Now: now})
	if err != nil {
		return nil, err
	}
	if id := p.Type.ID(); id != arrow.BOOL && id != arrow.NULL {
		return nil, fmt.Errorf("%w: a condition must be a BOOLEAN, not %s: %s", expr.ErrType, expr.TypeName(p.Type), unqualified(e))
	}
	return p, nil
}

// unqualified is an expression without tags, for people.
func unqualified(e expr.Expr) expr.Expr {
	return expr.Map(e, func(x expr.Expr) expr.Expr {
		if c, ok := x.(expr.Column); ok && len(c.Path) > 1 && strings.HasPrefix(c.Path[0], "\x00") {
			return expr.Column{Path: c.Path[1:]}
		}
		return x
	})
}

// targetPredicate is what a qualified condition says about the table's files.
func targetPredicate(e expr.Expr) Predicate {
	return predicateOf(e, func(path []string) (string, bool) {
		if len(path) != 2 || path[0] != targetTag {
			return "", false
		}
		return path[1], true
	})
}

// onlyColumns reports whether a qualified condition is about some of the given columns and nothing else.
func onlyColumns(e expr.Expr, names []string) bool {
	for _, p := range expr.Columns(e) {
		if len(p) != 2 || p[0] != targetTag || !slices.Contains(names, p[1]) {
			return false
		}
	}
	return true
}

// neededColumns lists the columns of the table that qualified expressions use (at least one), and puts a batch of these
// into the width of the whole schema; columns that nobody uses are placeholders.
func neededColumns(s *Schema, es ...expr.Expr) ([]string, func(arrow.RecordBatch) arrow.RecordBatch) {
	use := make([]bool, len(s.Fields))
	for _, e := range es {
		for _, p := range expr.Columns(e) {
			if p[0] == targetTag {
				use[s.Index(p[1])] = true
			}
		}
	}
	var cols []string
	at := make([]int, len(s.Fields))
	for i, f := range s.Fields {
		at[i] = -1
		if use[i] {
			at[i] = len(cols)
			cols = append(cols, f.Name)
		}
	}
	if len(cols) == 0 {
		at[0], cols = 0, []string{s.Fields[0].Name}
	}
	return cols, func(b arrow.RecordBatch) arrow.RecordBatch {
		out := make([]arrow.Array, len(at))
		fields := make([]arrow.Field, len(at))
		none := array.NewNull(int(b.NumRows()))
		for i, j := range at {
			out[i] = none
			if j >= 0 {
				out[i] = b.Column(j)
			}
			fields[i] = arrow.Field{Name: s.Fields[i].Name, Type: out[i].DataType(), Nullable: true}
		}
		return array.NewRecordBatch(arrow.NewSchema(fields, nil), out, b.NumRows())
	}
}

// derivedRows are rows that are computed each time they are read, always in the same order.
type derivedRows struct {
	schema *arrow.Schema
	n      int64
	read   func(ctx context.Context) iter.Seq2[arrow.RecordBatch, error]
}

func (r *derivedRows) Schema() *arrow.Schema { return r.schema }
func (r *derivedRows) NumRows() int64        { return r.n }

func (r *derivedRows) Read(ctx context.Context, columns []string, ordinals *roaring64.Bitmap) iter.Seq2[arrow.RecordBatch, error] {
	return func(yield func(arrow.RecordBatch, error) bool) {
		index, schema, err := projection(r.schema, columns)
		if err != nil {
			yield(nil, err)
			return
		}
		var at int64
		for b, err := range r.read(ctx) {
			if err != nil {
				yield(nil, err)
				return
			}
			n := b.NumRows()
			p := project(b, schemaOf(schema, b, index), index)
			if ordinals != nil {
				q, err := takeBatch(ctx, p, within(ordinals, at, n))
				p.Release()
				if err != nil {
					yield(nil, err)
					return
				}
				p = q
			}
			at += n
			ok := p.NumRows() == 0 || yield(p, nil)
			p.Release()
			if !ok {
				return
			}
		}
	}
}

// schemaOf gives a schema the types that the columns of a batch really have: an engine may name the inner fields of
// nested types its own way.
func schemaOf(schema *arrow.Schema, b arrow.RecordBatch, index []int) *arrow.Schema {
	fields := slices.Clone(schema.Fields())
	for i, j := range index {
		fields[i].Type = b.Column(j).DataType()
	}
	return arrow.NewSchema(fields, nil)
}

// joinRows are several rows of one schema, one behind another.
func joinRows(schema *arrow.Schema, parts []Rows) Rows {
	out := &derivedRows{schema: schema}
	for _, p := range parts {
		out.n += p.NumRows()
	}
	out.read = func(ctx context.Context) iter.Seq2[arrow.RecordBatch, error] {
		return func(yield func(arrow.RecordBatch, error) bool) {
			for _, p := range parts {
				for b, err := range p.Read(ctx, nil, nil) {
					if !yield(b, err) || err != nil {
						return
					}
				}
			}
		}
	}
	return out
}

// assigner makes rows of the table from batches of the columns of its scopes.
type assigner struct {
	schema *Schema
	cols   []assigned
}

type assigned struct {
	from  int           // copied from this column of the batch; -1
	value *expr.Program // computed; nil
	typ   Type          // to which the value is brought if it is nested; nil
	late  bool          // computed from the other columns of the new row
	text  string        // for errors
}

// assigner binds assignments. Columns that none of them names are copied from the first scope, which is the table as it
// was read; or if fresh, from nowhere: they get their default.
func (c *change) assigner(set []Assignment, fresh, qualified bool, scopes ...scope) (*assigner, error) {
	as := &assigner{schema: c.info.Schema, cols: make([]assigned, len(c.info.Schema.Fields))}
	given := make([]bool, len(as.cols))
	for i, f := range as.schema.Fields {
		as.cols[i].from = -1
		if !fresh {
			as.cols[i].from = fieldIndex(scopes[0].schema, f.Name)
		}
	}
	rules, err := rulesOf(c.eng.Expressions, c.info.Schema, c.info.Config, c.now)
	if err != nil {
		return nil, err
	}
	for _, a := range set {
		i := as.schema.Index(a.Column)
		if i < 0 {
			return nil, fmt.Errorf("%w: %q; there are %s", ErrNoSuchColumn, a.Column, strings.Join(as.schema.Names(), ", "))
		}
		f := as.schema.Fields[i]
		if given[i] {
			return nil, fmt.Errorf("%w: column %q is set twice", expr.ErrType, f.Name)
		}
		given[i] = true
		v, err := a.Value, error(nil)
		if !qualified {
			if v, err = qualify(v, scopes...); err != nil {
				return nil, err
			}
		}
		as.cols[i].from = -1
		as.cols[i].text = unqualified(v).String()
		if as.cols[i].value, as.cols[i].typ, err = compileAssignment(v, f.Type, c.now, scopes...); err != nil {
			return nil, fmt.Errorf("column %q: %w", f.Name, err)
		}
	}
	if rules == nil {
		return as, nil
	}
	for _, b := range rules.computed {
		if given[b.column] || b.rule == ruleDefault && !fresh {
			continue
		}
		a := assigned{from: -1, late: b.rule == ruleGenerated, text: b.sql}
		if a.value, a.typ, err = compileAssignment(b.tree, as.schema.Fields[b.column].Type, c.now, scope{tag: targetTag, schema: as.schema.Arrow()}); err != nil {
			return nil, fmt.Errorf("%s %s: %w", b.rule, b.name, err)
		}
		as.cols[b.column] = a
	}
	return as, nil
}

// compileAssignment binds a value that is stored in a column. The type is not nil if the value has to be brought to it
// afterwards.
func compileAssignment(v expr.Expr, t Type, now expr.Timestamp, scopes ...scope) (*expr.Program, Type, error) {
	want := ArrowType(t)
	if !arrow.IsNested(want.ID()) {
		p, err := expr.As(v, want, resolver(scopes...), expr.Options{Now: now})
		return p, nil, err
	}
	p, err := expr.Compile(v, resolver(scopes...), expr.Options{Now: now})
	if err != nil {
		return nil, nil, err
	}
	if !canHold(t, p.Type) {
		return nil, nil, fmt.Errorf("%w: %s is %s, which cannot be stored as %s", expr.ErrType, unqualified(v), p.Type, t)
	}
	return p, t, nil
}

// apply makes the rows for a batch. The caller releases them.
func (as *assigner) apply(ctx context.Context, b arrow.RecordBatch) (arrow.RecordBatch, error) {
	n := int(b.NumRows())
	cols := make([]arrow.Array, len(as.cols))
	fields := make([]arrow.Field, len(as.cols))
	defer func() {
		for _, c := range cols {
			if c != nil {
				c.Release()
			}
		}
	}()
	for i, f := range as.schema.Fields {
		c := as.cols[i]
		switch {
		case c.value != nil && !c.late:
			v, err := c.eval(ctx, b)
			if err != nil {
				return nil, fmt.Errorf("column %q = %s: %w", f.Name, c.text, err)
			}
			cols[i] = v
		case c.from >= 0:
			cols[i] = b.Column(c.from)
			cols[i].Retain()
		default:
			cols[i] = array.MakeArrayOfNull(memory.DefaultAllocator, ArrowType(f.Type), n)
		}
		fields[i] = arrow.Field{Name: f.Name, Type: cols[i].DataType(), Nullable: true}
	}
	for i, c := range as.cols {
		if !c.late {
			continue
		}
		row := array.NewRecordBatch(arrow.NewSchema(fields, nil), cols, int64(n))
		v, err := c.eval(ctx, row)
		row.Release()
		if err != nil {
			return nil, fmt.Errorf("column %q = %s: %w", as.schema.Fields[i].Name, c.text, err)
		}
		cols[i].Release()
		cols[i] = v
	}
	return array.NewRecordBatch(arrow.NewSchema(fields, nil), cols, int64(n)), nil
}
