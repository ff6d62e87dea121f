package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/engine/duckdb"
)

// described runs a statement that reads what the log tells of a table.
func (a *app) described(ctx context.Context, l *lake, s *duckdb.Statement, asOf string) (*result, error) {
	if l.Lake != nil && l.View(s.Table) != nil {
		return l.describedView(ctx, s, asOf)
	}
	name := s.Table
	if !strings.ContainsAny(name, `/\`) && isTableFolder(name) {
		name = "./" + name
	}
	p := &pastResolver{l: l, needLake: a.needLake, versions: map[string]int64{}}
	t, _, err := p.open(ctx, name)
	if err != nil {
		return nil, err
	}
	snap, err := snapshotAsOf(ctx, t, asOf)
	if err != nil {
		return nil, fmt.Errorf("table %s: %w", s.Table, err)
	}
	rel, err := s.Describe(ctx, snap, nil)
	if err != nil {
		return nil, describeError(err)
	}
	res, err := l.engine.QueryRelation(ctx, rel)
	if err != nil {
		return nil, err
	}
	p.versions[s.Table] = int64(snap.Version())
	return &result{Result: res, versions: p.versions}, nil
}

// describeError tells mistakes in a statement from work that failed.
func describeError(err error) error {
	var s *duckdb.StatementError
	if errors.As(err, &s) || errors.Is(err, delta.ErrNoSuchColumn) {
		return &usageError{err: err}
	}
	return err
}

// describedView is DESCRIBE of a view of the lake: its columns are those of its SELECT.
func (l *lake) describedView(ctx context.Context, s *duckdb.Statement, asOf string) (*result, error) {
	if !s.OfColumns() {
		return nil, usagef("%s %s: it is a view, which has columns only; DESCRIBE %s lists them", s.Kind, s.Table, s.Table)
	}
	r, err := l.query(ctx, `SELECT * FROM "`+strings.ReplaceAll(s.Table, `"`, `""`)+`" LIMIT 0`, asOf)
	if err != nil {
		return nil, err
	}
	var names, types []string
	for _, f := range r.Schema().Fields() {
		names, types = append(names, f.Name), append(types, strings.ToLower(sqlType(f.Type)))
	}
	if err := r.Close(); err != nil {
		return nil, err
	}
	res, err := l.engine.QueryRelation(ctx, duckdb.DescribeColumns(names, types))
	if err != nil {
		return nil, err
	}
	return &result{Result: res, versions: map[string]int64{}}, nil
}
