package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/engine/duckdb"
)

// past finds statements that may speak of earlier versions or of changes; those need their names resolved one by one.
var past = regexp.MustCompile(`(?i)\bat\s*\(\s*(version|timestamp)\b|\btable_changes\s*\(`)

// pastResolver says what the names of such a statement mean: tables as they are or were, and table_changes.
type pastResolver struct {
	l        *lake
	needLake func(name string) error
	versions map[string]int64
}

// queryPast runs a statement in which tables stand as they were, also several versions of one, or change feeds.
func (l *lake) queryPast(ctx context.Context, sql, asOf string, needLake func(string) error) (*result, error) {
	if asOf != "" {
		return nil, usagef("--as-of and AT (…) or table_changes (…) in one query: leave --as-of out and say VERSION AS OF … behind each table")
	}
	p := &pastResolver{l: l, needLake: needLake, versions: map[string]int64{}}
	res, err := l.engine.QueryResolved(ctx, sql, p)
	if err != nil {
		if slices.ContainsFunc([]error{duckdb.ErrStatement, duckdb.ErrFunction, duckdb.ErrNotSupported, duckdb.ErrRange}, func(refused error) bool { return errors.Is(err, refused) }) {
			err = &usageError{err: err}
		}
		return nil, err
	}
	return &result{Result: res, versions: p.versions}, nil
}

func (p *pastResolver) open(ctx context.Context, name string) (*delta.Table, duckdb.QueryTable, error) {
	if p.l.ingest == nil && !strings.ContainsAny(name, `/\`) {
		return nil, duckdb.QueryTable{}, p.needLake(name)
	}
	return p.l.openNamed(ctx, name)
}

// Table implements duckdb.Resolver.
func (p *pastResolver) Table(ctx context.Context, n duckdb.Name) (duckdb.Relation, error) {
	if n.Schema != "" || n.Catalog != "" {
		return duckdb.Relation{}, usagef("table %s is named with a schema; the lake's tables have none", strings.TrimPrefix(n.Catalog+"."+n.Schema+"."+n.Table, "."))
	}
	t, q, err := p.open(ctx, n.Table)
	if err != nil {
		return duckdb.Relation{}, err
	}
	switch n.AtUnit {
	case "":
		q.Snapshot, err = t.Snapshot(ctx)
	case "version":
		v, perr := strconv.ParseInt(n.At, 10, 64)
		if perr != nil || v < 0 {
			return duckdb.Relation{}, usagef("AT (VERSION => %s): versions are whole numbers from 0 on", n.At)
		}
		q.Snapshot, err = t.SnapshotAt(ctx, delta.Version(v))
	case "timestamp":
		at, perr := parsePastTime(n.At)
		if perr != nil {
			return duckdb.Relation{}, usagef("AT (TIMESTAMP => …): %w", perr)
		}
		q.Snapshot, err = t.SnapshotAsOf(ctx, at)
	default:
		return duckdb.Relation{}, usagef("AT (%s => …): it is VERSION or TIMESTAMP", n.AtUnit)
	}
	if err != nil {
		return duckdb.Relation{}, fmt.Errorf("table %s: %w", n.Table, err)
	}
	name := q.Name
	if n.AtUnit != "" {
		name = fmt.Sprintf("%s AT %s %s", q.Name, strings.ToUpper(n.AtUnit), n.At)
	}
	p.versions[name] = int64(q.Snapshot.Version())
	return duckdb.Relation{Snapshot: q.Snapshot, Hide: p.l.hides(q)}, nil
}

// Function implements duckdb.Resolver: table_changes('table', from [, to]) is the change feed.
func (p *pastResolver) Function(ctx context.Context, fn duckdb.Node) (duckdb.Relation, bool, error) {
	if name, _ := fn["function_name"].(string); !strings.EqualFold(name, "table_changes") {
		return duckdb.Relation{}, false, nil
	}
	name, o, err := duckdb.ChangesCall(fn)
	if err != nil {
		return duckdb.Relation{}, true, &usageError{err: err}
	}
	t, _, err := p.open(ctx, name)
	if err != nil {
		return duckdb.Relation{}, true, err
	}
	feed, err := t.Changes(ctx, o)
	if err != nil {
		return duckdb.Relation{}, true, fmt.Errorf("table %s: %w", name, err)
	}
	p.versions["table_changes of "+name] = int64(feed.To)
	return duckdb.Relation{Schema: feed.Schema.Arrow(), Stream: func(ctx context.Context) iter.Seq2[arrow.RecordBatch, error] {
		return func(yield func(arrow.RecordBatch, error) bool) {
			for b, err := range feed.Batches(ctx) {
				if err != nil {
					err = fmt.Errorf("table %s: %w", name, err)
				}
				if !yield(b, err) || err != nil {
					return
				}
			}
		}
	}}, true, nil
}

// Select implements duckdb.Resolver.
func (p *pastResolver) Select(duckdb.Node) error { return nil }

// Expression implements duckdb.Resolver.
func (p *pastResolver) Expression(duckdb.Node) error { return nil }
