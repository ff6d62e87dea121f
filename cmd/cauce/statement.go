package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/delta/expr"
	"github.com/cauce-data/cauce/engine/duckdb"
	"github.com/cauce-data/cauce/pipeline"
	"github.com/cauce-data/cauce/serve/sqltext"
)

// statementResult is what a statement that changes a table prints.
type statementResult struct {
	Statement    string            `json:"statement"`
	Table        string            `json:"table"`
	DryRun       bool              `json:"dry_run"`
	Version      int64             `json:"version"` // of the commit, or of the table where nothing was committed
	Committed    bool              `json:"committed"`
	SourceRows   int64             `json:"source_rows,omitempty"`
	Inserted     int64             `json:"inserted"`
	Updated      int64             `json:"updated"`
	Deleted      int64             `json:"deleted"`
	FilesAdded   int               `json:"files_added"`
	FilesRemoved int               `json:"files_removed"`
	Files        []string          `json:"files,omitempty"` // that VACUUM deletes
	Before       *tableShape       `json:"before,omitempty"`
	After        *tableShape       `json:"after,omitempty"`
	Metrics      map[string]string `json:"metrics,omitempty"` // Spark's names
}

func (r *statementResult) write(w io.Writer) error {
	if r.Before != nil && r.After != nil {
		_, err := fmt.Fprintf(w, "before  %v\nafter   %v\n", r.Before, r.After)
		return err
	}
	would := ""
	if r.DryRun {
		would = "would be "
	}
	var parts []string
	for _, p := range []struct {
		n    int64
		what string
	}{{r.Inserted, "inserted"}, {r.Updated, "updated"}, {r.Deleted, "deleted"}} {
		if p.n > 0 {
			parts = append(parts, count(p.n, "row")+" "+would+p.what)
		}
	}
	switch r.Statement {
	case "VACUUM":
		if r.DryRun {
			for _, f := range r.Files {
				fmt.Fprintln(w, f)
			}
		}
		parts = []string{count(int64(len(r.Files)), "file") + " " + would + "deleted"}
	case "DELETE", "TRUNCATE", "UPDATE", "INSERT", "MERGE", "OPTIMIZE", "REORG", "RESTORE":
	default:
		switch {
		case r.DryRun:
			parts = []string{strings.ToLower(r.Statement) + ": can be done"}
		case r.Committed:
			parts = []string{strings.ToLower(r.Statement) + ": done"}
		}
	}
	if len(parts) == 0 {
		parts = []string{"nothing to change"}
	}
	tail := ""
	if r.Committed {
		tail = fmt.Sprintf("; version %d", r.Version)
	}
	_, err := fmt.Fprintf(w, "%s%s\n", strings.Join(parts, ", "), tail)
	return err
}

// openQueryLake opens the lake, or, where there is no lake file and none was named, an engine that reads tables by path.
func (a *app) openQueryLake(ctx context.Context, lakeNamed bool) (*lake, error) {
	if _, err := os.Stat(a.lakeFile); !errors.Is(err, fs.ErrNotExist) || lakeNamed {
		return a.openLake(ctx)
	}
	e, err := duckdb.Open(duckdb.Options{})
	if err != nil {
		return nil, err
	}
	return &lake{engine: e}, nil
}

// needLake is the error for a name where there is no lake.
func (a *app) needLake(name string) error {
	return usagef("table %s: there is no lake file %s, so a table needs its path, such as './data/%s'; cauce init DIR makes a lake", name, a.lakeFile, name)
}

// openForWrite opens a table that a statement changes, with the engine's help.
func (a *app) openForWrite(ctx context.Context, l *lake, name string) (*delta.Table, error) {
	if strings.ContainsAny(name, `/\`) || isTableFolder(name) {
		store, err := openTableStore(ctx, name)
		if err != nil {
			return nil, err
		}
		t, err := delta.Open(ctx, store, "", &delta.Options{EngineInfo: engineInfo(), Engine: l.engine.Delta()})
		if err != nil {
			return nil, fmt.Errorf("table %s: %w", name, err)
		}
		return t, nil
	}
	if l.ingest == nil {
		return nil, a.needLake(name)
	}
	t, err := l.ingest.Catalog().Open(ctx, name)
	if errors.Is(err, delta.ErrNotATable) {
		return nil, usagef("table %s: nothing has been written to it yet; cauce run batch or cauce run stream does", name)
	}
	return t, err
}

// statementAllowed refuses a statement that changes a table unless the user said so.
func statementAllowed(s *duckdb.Statement, write bool) error {
	if s != nil && !s.Reads() && !write {
		return usagef("%s changes table %s; cauce query only reads unless --write is given", s.Kind, s.Table)
	}
	return nil
}

// execute runs a statement that changes a table.
func (a *app) execute(ctx context.Context, l *lake, s *duckdb.Statement, dryRun bool) (*statementResult, error) {
	switch s.Kind {
	case "OPTIMIZE", "REORG", "ADD CONSTRAINT", "DROP CONSTRAINT":
		if dryRun {
			return nil, usagef("--dry-run: %s has none; it changes no row", s.Kind)
		}
	}
	if s.Kind == "CREATE TABLE" {
		return a.createTable(ctx, l, s, dryRun)
	}
	t, err := a.openForWrite(ctx, l, s.Table)
	if err != nil {
		return nil, err
	}
	snap, err := t.Snapshot(ctx)
	if err != nil {
		return nil, fmt.Errorf("table %s: %w", s.Table, err)
	}
	hook, err := hookFromEnv()
	if err != nil {
		return nil, err
	}
	res := &statementResult{Statement: s.Kind, Table: s.Table, DryRun: dryRun, Version: int64(snap.Version())}
	o := delta.ChangeOptions{DryRun: dryRun, Hook: hook}
	changed := func(r *delta.ChangeResult, err error) error {
		if err != nil {
			return err
		}
		res.Version, res.Committed, res.SourceRows, res.Metrics = int64(r.Version), r.Committed, r.SourceRows, r.Metrics
		res.Inserted, res.Updated, res.Deleted = r.Inserted, r.Updated, r.Deleted
		res.FilesAdded, res.FilesRemoved = r.FilesAdded, r.FilesRemoved
		if r.CheckpointErr != nil {
			a.logger().Warn("the checkpoint after the commit failed; the commit stands", "table", s.Table, "error", r.CheckpointErr)
		}
		return nil
	}
	if r, ok, err := alter(ctx, t, s, delta.AlterOptions{DryRun: dryRun, Hook: hook}); ok {
		if err != nil {
			return nil, statementError(err)
		}
		res.Version, res.Committed = int64(r.Version), r.Committed
		if r.CheckpointErr != nil {
			a.logger().Warn("the checkpoint after the commit failed; the commit stands", "table", s.Table, "error", r.CheckpointErr)
		}
		return res, nil
	}
	switch s.Kind {
	case "DELETE":
		err = changed(t.DeleteWhere(ctx, s.Where, o))
	case "TRUNCATE":
		err = changed(t.Truncate(ctx, o))
	case "UPDATE":
		err = changed(t.Update(ctx, delta.UpdateOptions{ChangeOptions: o, Where: s.Where, Set: s.Set}))
	case "INSERT":
		return res, a.insert(ctx, l, t, snap, s, res, o, changed)
	case "MERGE":
		rows, done, qerr := a.collect(ctx, l, s.Query)
		if qerr != nil {
			return nil, qerr
		}
		defer done()
		m := s.Merge
		m.ChangeOptions = o
		err = changed(t.MergeInto(ctx, rows, m))
	case "OPTIMIZE", "REORG":
		opt := delta.OptimizeOptions{ZOrderBy: s.ZOrderBy, Full: s.Full, Purge: s.Kind == "REORG", Hook: hook}
		if s.Where != nil {
			opt.Where = delta.PredicateOf(s.Where)
		}
		if s.Kind == "OPTIMIZE" && l.ingest != nil {
			opt.SortBy = a.clusterBy(s.Table)
		}
		before := shapeOf(t, snap)
		r, oerr := t.Optimize(ctx, opt)
		if oerr != nil {
			return nil, oerr
		}
		if snap, err = t.Snapshot(ctx); err != nil {
			return nil, err
		}
		after := shapeOf(t, snap)
		res.Version, res.Committed, res.Before, res.After, res.Metrics = int64(r.Version), r.Commits > 0, &before, &after, r.Metrics
		res.FilesRemoved = r.FilesRemoved
	case "VACUUM":
		v := delta.VacuumOptions{DryRun: dryRun || s.DryRun, Lite: s.Lite, Hook: hook}
		if s.Retain != nil {
			if *s.Retain < 168*time.Hour && !v.DryRun {
				return nil, usagef("VACUUM %s RETAIN %v: below 168 hours readers and writers under way may lose files; cauce table vacuum --retention … --force does it all the same", s.Table, *s.Retain)
			}
			v.Retention, v.Force = *s.Retain, v.DryRun
		}
		r, verr := t.Vacuum(ctx, v)
		if verr != nil {
			return nil, verr
		}
		res.DryRun, res.Files, res.Metrics = v.DryRun, r.Deleted, r.Metrics
	case "RESTORE":
		to := snap
		switch {
		case s.Version != nil:
			to, err = t.SnapshotAt(ctx, delta.Version(*s.Version))
		default:
			at, terr := parsePastTime(s.Timestamp)
			if terr != nil {
				return nil, usagef("RESTORE: %w", terr)
			}
			to, err = t.SnapshotAsOf(ctx, at)
		}
		if err != nil {
			return nil, err
		}
		before, after := shapeOf(t, snap), shapeOf(t, to)
		r, rerr := t.Restore(ctx, to.Version(), delta.RestoreOptions{DryRun: dryRun, Hook: hook})
		if rerr != nil {
			return nil, rerr
		}
		if !dryRun {
			res.Version, res.Committed = int64(r.Version), r.Committed
			if snap, err = t.Snapshot(ctx); err != nil {
				return nil, err
			}
			after = shapeOf(t, snap)
		}
		res.Before, res.After = &before, &after
	case "ADD CONSTRAINT":
		var v delta.Version
		v, err = t.AddConstraint(ctx, s.Constraint, s.Check.String())
		res.Version, res.Committed = int64(v), true
	case "DROP CONSTRAINT":
		var v delta.Version
		v, err = t.DropConstraint(ctx, s.Constraint, s.IfExists)
		res.Committed = int64(v) != res.Version
		res.Version = int64(v)
	}
	if err != nil {
		return nil, statementError(err)
	}
	return res, nil
}

// statementError tells mistakes in a statement from work that failed.
func statementError(err error) error {
	var u *usageError
	if !errors.As(err, &u) && (errors.Is(err, expr.ErrType) || errors.Is(err, delta.ErrNoSuchColumn)) {
		return &usageError{err: err}
	}
	return err
}

// collect runs a query and keeps its rows.
func (a *app) collect(ctx context.Context, l *lake, sql string) (delta.Rows, func(), error) {
	r, err := a.runQuery(ctx, l, sql, "")
	if err != nil {
		return nil, nil, err
	}
	rows, done, err := l.engine.Collect(ctx, r.Result)
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, nil, err
	}
	return rows, done, nil
}

// partitionColumns makes sure that the columns by which new rows replace others are the partition columns, all of them.
func partitionColumns(s *duckdb.Statement, snap *delta.Snapshot) error {
	by := snap.PartitionBy()
	if len(by) == 0 {
		return usagef("table %s has no partitions that rows could replace: INSERT OVERWRITE %s replaces all of its rows, INSERT INTO %s REPLACE WHERE … those of a condition", s.Table, s.Table, s.Table)
	}
	lower := func(names []string) []string {
		out := make([]string, len(names))
		for i, n := range names {
			out[i] = strings.ToLower(n)
		}
		slices.Sort(out)
		return out
	}
	if !slices.Equal(lower(by), lower(s.Dynamic)) {
		return usagef("rows replace whole partitions of table %s: name its partition columns (%s), not (%s); REPLACE WHERE replaces by any condition", s.Table, strings.Join(by, ", "), strings.Join(s.Dynamic, ", "))
	}
	return nil
}

// insert runs an INSERT.
func (a *app) insert(ctx context.Context, l *lake, t *delta.Table, snap *delta.Snapshot, s *duckdb.Statement, res *statementResult, o delta.ChangeOptions, changed func(*delta.ChangeResult, error) error) error {
	if s.Dynamic != nil {
		if err := partitionColumns(s, snap); err != nil {
			return err
		}
	}
	// The query's columns first: they go to the table's by position or by name.
	r, err := a.runQuery(ctx, l, "SELECT * FROM ("+s.Query+"\n) AS q LIMIT 0", "")
	if err != nil {
		return err
	}
	var have []string
	for _, f := range r.Schema().Fields() {
		have = append(have, f.Name)
	}
	if err := r.Close(); err != nil {
		return err
	}
	var sql string
	if s.ByName {
		sql, err = s.InsertByName(snap.Schema(), have)
	} else {
		sql, err = s.InsertQuery(snap.Schema(), len(have))
	}
	if err != nil {
		return err
	}
	rows, done, err := a.collect(ctx, l, sql)
	if err != nil {
		return err
	}
	defer done()
	res.Inserted = rows.NumRows()
	if s.Where != nil {
		return statementError(changed(t.ReplaceWhere(ctx, s.Where, rows, false, o)))
	}
	var w *delta.Result
	switch {
	case s.Overwrite:
		w, err = t.Overwrite(ctx, rows, delta.OverwriteOptions{AppendOptions: delta.AppendOptions{Hook: o.Hook}, Dynamic: s.Dynamic != nil, DryRun: o.DryRun})
	case o.DryRun:
		return nil
	default:
		w, err = t.Append(ctx, rows, delta.AppendOptions{Hook: o.Hook})
	}
	if err != nil {
		return statementError(err)
	}
	res.Deleted = w.RowsRemoved
	res.Version, res.Committed, res.FilesAdded, res.FilesRemoved = int64(w.Version), w.Committed, w.FilesAdded, w.FilesRemoved
	return nil
}

// runQuery is lake.query, or lake.queryPast where a statement speaks of the past, which know of no lake when there is none.
func (a *app) runQuery(ctx context.Context, l *lake, sql, asOf string) (*result, error) {
	sql = sqltext.TimeTravel(sql)
	if past.MatchString(sql) {
		return l.queryPast(ctx, sql, asOf, a.needLake)
	}
	if l.ingest == nil {
		named, err := l.engine.TableNames(ctx, sql)
		if err != nil {
			return nil, &usageError{err: err}
		}
		if i := slices.IndexFunc(named, func(n string) bool { return !strings.ContainsAny(n, `/\`) }); i >= 0 {
			return nil, a.needLake(named[i])
		}
	}
	return l.query(ctx, sql, asOf)
}

// parseStatement parses what changes a table or tells of one; nil for all else.
func (l *lake) parseStatement(sql string) (*duckdb.Statement, error) {
	s, err := l.engine.ParseStatement(sql)
	var syntax *pipeline.SyntaxError
	var statement *duckdb.StatementError
	if errors.As(err, &syntax) || errors.As(err, &statement) {
		return nil, &usageError{err: err}
	}
	return s, err
}
