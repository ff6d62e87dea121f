package delta

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/cauce-data/cauce/objstore"
)

// ScanOptions narrow a scan.
type ScanOptions struct {
	Columns []string  // nil: all
	Where   Predicate // leaves out files that hold no such row; rows are not filtered
	// RowTracking adds RowIDColumn and RowCommitVersionColumn as last columns. ErrRowTracking for a version that has them
	// not.
	RowTracking bool
}

// Scan reads the rows of a snapshot, file by file in the order of the log. The consumer must not keep a batch beyond
// its iteration step without Retain.
func (t *Table) Scan(ctx context.Context, s *Snapshot, o ScanOptions) iter.Seq2[arrow.RecordBatch, error] {
	return func(yield func(arrow.RecordBatch, error) bool) {
		files, err := s.load(ctx, s.Prune(o.Where))
		if err != nil {
			yield(nil, err)
			return
		}
		rows := t.engine().Reader.Read(ctx, s.TableInfo(), files, ReadOptions{Columns: o.Columns})
		if o.RowTracking {
			rows = t.scanTracked(ctx, s, files, o.Columns)
		}
		for b, err := range rows {
			if !yield(b, err) || err != nil {
				return
			}
		}
	}
}

// AppendOptions say how rows are appended.
type AppendOptions struct {
	Txn             *Txn     // recorded by the same commit; ErrTxnApplied if the table has it already
	UserMetadata    string   // commitInfo.userMetadata
	SortBy          []string // order of the rows inside each new file
	Compression     string   // "snappy" (default) or "zstd"
	FileBytesTarget int64    // bounds the size of a new file approximately; 0: the writer's default
	Evolve          bool     // new columns of the rows are added to the table; else they are an error
	// Hook is called when a phase begins: "files-written", "before-commit", "after-commit", "checkpoint".
	Hook func(phase string)
}

// Result says what an operation on files did.
type Result struct {
	Version       Version // of the commit; of the table as it was read if nothing was committed
	Committed     bool
	Rows          int64 // rows in the files added
	FilesAdded    int
	FilesRemoved  int
	RowsRemoved   int64 // rows in the files removed, as far as their statistics tell
	BytesAdded    int64
	CheckpointErr error // the checkpoint after the commit failed; the commit stands
}

// Append adds rows. It never conflicts with other writers of rows. Rows that do not fit the schema are refused
// (ErrSchemaMismatch, ErrNotNull), and nothing is written.
func (t *Table) Append(ctx context.Context, rows Rows, o AppendOptions) (*Result, error) {
	return t.write(ctx, rows, writeOptions{AppendOptions: o, mode: "Append"})
}

// OverwriteOptions say what an overwrite replaces.
type OverwriteOptions struct {
	AppendOptions
	// Where restricts the overwrite to the files whose partition values satisfy it; it may name partition columns
	// only, and the new rows must satisfy it too. nil: the whole table. ReplaceWhere takes any condition.
	Where Predicate
	// Dynamic replaces only the partitions that the new rows are in (Spark's dynamic partition overwrite). A table
	// without partitions is replaced whole. Not together with Where.
	Dynamic bool
	// DryRun finds out what would be replaced, and writes nothing.
	DryRun bool
}

// Overwrite replaces all rows of the table, or of the partitions that Where names, by new ones.
func (t *Table) Overwrite(ctx context.Context, rows Rows, o OverwriteOptions) (*Result, error) {
	if o.Dynamic && o.Where != nil {
		return nil, fmt.Errorf("overwrite %s: Dynamic and Where exclude each other", t)
	}
	if o.DryRun {
		return t.tryOverwrite(ctx, rows, o)
	}
	return t.write(ctx, rows, writeOptions{AppendOptions: o.AppendOptions, mode: "Overwrite", where: o.Where, dynamic: o.Dynamic})
}

type writeOptions struct {
	AppendOptions
	mode    string // Spark's save mode
	where   Predicate
	dynamic bool
}

// ErrOutsideOfPredicate says that rows to write do not satisfy the predicate of the overwrite.
var ErrOutsideOfPredicate = errors.New("rows do not satisfy the overwrite's predicate")

func (t *Table) write(ctx context.Context, rows Rows, o writeOptions) (*Result, error) {
	for try := 1; ; try++ {
		res, err := t.writeOnce(ctx, rows, o)
		// Another writer added a column or a property: look at the rows again.
		if errors.Is(err, ErrMetadataChanged) || errors.Is(err, ErrProtocolChanged) || o.mode == "Overwrite" && errors.Is(err, ErrConflict) && !errors.Is(err, ErrTxnApplied) {
			if try >= t.opts.MaxTries {
				return nil, fmt.Errorf("%w: %s into %s: %w", ErrTooManyTries, o.mode, t, err)
			}
			if err = t.pause(ctx, try); err == nil {
				continue
			}
			return nil, fmt.Errorf("%s into %s: %w", o.mode, t, err)
		}
		return res, err
	}
}

// toWrite gives the newest snapshot, with the columns that the rows may add, and the rows in its form. grows says that they
// add some.
func (t *Table) toWrite(ctx context.Context, rows Rows, evolve bool) (s *Snapshot, fitted Rows, grows bool, err error) {
	if s, err = t.Snapshot(ctx); err != nil {
		return nil, nil, false, err
	}
	if err := s.checkWriteRows(); err != nil {
		return nil, nil, false, fmt.Errorf("write to %s: %w", t, err)
	}
	fitted, grown, err := fit(rows, s.Schema(), s.growth(evolve))
	if err == nil && grown != nil {
		s, err = s.evolved(grown)
	}
	if err != nil {
		return nil, nil, false, fmt.Errorf("write to %s: %w", t, err)
	}
	return s, fitted, grown != nil, nil
}

func (t *Table) writeOnce(ctx context.Context, rows Rows, o writeOptions) (res *Result, err error) {
	s, fitted, grows, err := t.toWrite(ctx, rows, o.Evolve)
	if err != nil {
		return nil, err
	}
	info := s.TableInfo()
	tx := t.Begin(s)
	tx.assume(s)
	if o.Txn != nil {
		tx.SetTxn(*o.Txn)
		if err := tx.checkTxns(); err != nil {
			return nil, err
		}
	}
	files, err := writeChecked(ctx, t.engine(), info, WriteRequest{
		Rows: fitted, SortBy: o.SortBy, Compression: o.Compression, FileBytesTarget: o.FileBytesTarget,
	})
	if err != nil {
		return nil, fmt.Errorf("write to %s: %w", t, err)
	}
	defer func() {
		if err != nil && !errors.Is(err, objstore.ErrAmbiguous) {
			deleteFiles(context.WithoutCancel(ctx), t.store, files)
		}
	}()
	res = &Result{Version: s.Version(), FilesAdded: len(files)}
	for _, w := range files {
		x := addOf(w, true)
		if o.where != nil && !s.certainly(o.where, x) {
			return nil, fmt.Errorf("write to %s: %w: %s", t, ErrOutsideOfPredicate, x.Path)
		}
		tx.AddFile(x)
		res.Rows += w.NumRecords
		res.BytesAdded += w.Size
	}
	params := map[string]string{"mode": o.mode, "partitionBy": quoteJSON(info.PartitionBy)}
	if o.dynamic && len(s.metadata.PartitionColumns) > 0 {
		params["isDynamicPartitionOverwrite"] = "true"
		if o.where, err = s.partitionsOf(files); err != nil {
			return nil, fmt.Errorf("overwrite %s: %w", t, err)
		}
	}
	if o.mode == "Overwrite" {
		now := t.opts.Clock().UnixMilli()
		if o.where == nil {
			tx.ReadWhole()
		} else {
			if err := s.onlyPartitions(o.where); err != nil {
				return nil, fmt.Errorf("overwrite %s: %w", t, err)
			}
			tx.ReadWhere(o.where)
			if !o.dynamic {
				params["predicate"] = quoteJSON([]string{fmt.Sprint(o.where)})
			}
		}
		for _, x := range s.Prune(o.where) {
			tx.RemoveFile(x.Tombstone(now, true))
			res.FilesRemoved++
			res.RowsRemoved += rowsTold(x)
		}
	}
	if len(files) == 0 && res.FilesRemoved == 0 && o.Txn == nil && !grows {
		return res, nil
	}
	if o.Hook != nil {
		o.Hook("files-written")
	}
	n := func(v int64) string { return strconv.FormatInt(v, 10) }
	done, err := tx.Commit(ctx, CommitOptions{
		Operation: "WRITE", Parameters: params, UserMetadata: o.UserMetadata, Hook: o.Hook,
		BlindAppend: o.mode == "Append" && !grows,
		Metrics: map[string]string{
			"numFiles": n(int64(len(files))), "numOutputRows": n(res.Rows), "numOutputBytes": n(res.BytesAdded),
			"numRemovedFiles": n(int64(res.FilesRemoved)),
		},
	})
	if err != nil {
		return nil, err
	}
	res.Version, res.Committed, res.CheckpointErr = done.Version, true, done.CheckpointErr
	return res, nil
}

// certainly reports whether every row of a file satisfies a predicate.
func (s *Snapshot) certainly(where Predicate, a *Add) bool {
	return where.decide(s.addFacts(a)) == certain
}

// onlyPartitions makes sure that a predicate is decided by partition values alone.
func (s *Snapshot) onlyPartitions(where Predicate) error {
	for f := range s.live.rows() {
		if v := where.decide(&fileFacts{snapshot: s, partition: f.partition(f.i)}); v.mayTrue && v != certain {
			return fmt.Errorf("%w: the predicate is not decided by partition columns alone", ErrOutsideOfPredicate)
		}
	}
	return nil
}

// DeleteOptions say how rows are deleted.
type DeleteOptions struct {
	Txn          *Txn
	UserMetadata string
	CopyOnWrite  bool // as in MergeOptions
	Hook         func(phase string)
}

// Delete removes the stored rows that are equal to one of the given rows in the given columns. A null equals nothing.
func (t *Table) Delete(ctx context.Context, columns []string, rows Rows, o DeleteOptions) (*MergeResult, error) {
	if len(columns) == 0 {
		return nil, fmt.Errorf("delete from %s: no columns", t)
	}
	s, err := t.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	m := &merge{t: t, eng: t.engine(), source: emptyRows(s.Schema()), began: t.opts.Clock(), o: MergeOptions{
		Key: columns, Replace: &Replace{Columns: columns, Rows: rows}, Txn: o.Txn, UserMetadata: o.UserMetadata,
		CopyOnWrite: o.CopyOnWrite, Operation: "DELETE", Hook: o.Hook,
	}}
	return m.run(ctx)
}

// emptyRows are no rows, with every column of a schema.
func emptyRows(s *Schema) Rows { return NewRows(s.Arrow()) }
