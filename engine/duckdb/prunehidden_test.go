package duckdb

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cauce-data/cauce/delta"
)

// seen answers with relations by name.
type seen map[string]Relation

func (s seen) Table(_ context.Context, n Name) (Relation, error) {
	if rel, ok := s[n.Table]; ok {
		return rel, nil
	}
	return Relation{}, fmt.Errorf("%w: no table %s", ErrStatement, n.Table)
}
func (seen) Function(context.Context, Node) (Relation, bool, error) { return Relation{}, false, nil }
func (seen) Select(Node) error                                      { return nil }
func (seen) Expression(Node) error                                  { return nil }

// shippedColumn is the first column of what a worker gives, and how many files were opened for it.
func shippedColumn(t *testing.T, e *Engine, sql string, r Resolver) (string, int) {
	t.Helper()
	ctx := context.Background()
	s, err := e.Ship(ctx, sql, "UTC", r)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	w, err := e.NewSession(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Begin(ctx, s.Steps); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	rows, err := w.Query(ctx, s.SQL)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	var out []string
	for rows.Next() {
		for i := range int(rows.RecordBatch().NumRows()) {
			out = append(out, strings.Clone(rows.RecordBatch().Column(0).ValueStr(i)))
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	rows.Release()
	if err := errors.Join(w.End(), w.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	return strings.Join(out, " "), s.FilesOpened
}

// A column that may not be seen is none: where a condition names it, that is another one, and it tells nothing of the files.
func TestPrunesByNoHiddenColumn(t *testing.T) {
	e := testEngine(t)
	fields := []delta.Field{{Name: "i", Type: delta.Long, Nullable: true}, {Name: "salary", Type: delta.Long, Nullable: true}}
	tab := valuesTable(t, "t", fields, nil, `[{"i": 1, "salary": 10}]`, `[{"i": 2, "salary": 20}]`, `[{"i": 3, "salary": 30}]`)
	r := seen{"t": {Snapshot: tab.Snapshot, Columns: []string{"i"}}}
	for _, c := range []struct {
		sql, want string
		files     int
	}{
		{"SELECT i, 20 AS salary FROM t WHERE salary = 20 ORDER BY i", "1 2 3", 3},
		{"SELECT i, 1000 AS salary FROM t WHERE salary >= 25 ORDER BY i", "1 2 3", 3},
		{"SELECT (SELECT count(*) FROM t WHERE salary > 15) FROM (VALUES (20)) v(salary)", "3", 3},
		{"SELECT (SELECT count(*) FROM t WHERE salary IS NULL) FROM (VALUES (NULL::BIGINT)) v(salary)", "3", 3},
		{"SELECT i FROM t WHERE i > 1 ORDER BY i", "2 3", 2},
	} {
		if got, files := shippedColumn(t, e, c.sql, r); got != c.want || files != c.files {
			t.Errorf("%s: %s of %d files, not %s of %d", c.sql, got, files, c.want, c.files)
		}
	}
}
