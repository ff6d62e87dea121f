package duckdb

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/objstore"
)

// valuesTable makes a table with a file, or a file for each partition, of each batch of rows.
func valuesTable(t *testing.T, name string, fields []delta.Field, partitionBy []string, batches ...string) QueryTable {
	t.Helper()
	ctx := context.Background()
	store, err := objstore.NewLocal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := &delta.Schema{Fields: fields}
	tab, err := delta.Create(ctx, store, name, delta.CreateOptions{Schema: s, PartitionBy: partitionBy}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, rows := range batches {
		b, _, err := array.RecordFromJSON(memory.DefaultAllocator, s.Arrow(), strings.NewReader(rows))
		if err != nil {
			t.Fatal(err)
		}
		_, err = tab.Append(ctx, delta.NewRows(b.Schema(), b), delta.AppendOptions{})
		b.Release()
		if err != nil {
			t.Fatal(err)
		}
	}
	snap, err := tab.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return QueryTable{Name: name, Snapshot: snap}
}

// firstColumn is what a query gives in its first column, sorted.
func firstColumn(t *testing.T, e *Engine, sql string, tables ...QueryTable) (out []string, opened int) {
	t.Helper()
	ctx := context.Background()
	r, err := e.Query(ctx, sql, tables)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	defer func() { _ = r.Close() }()
	for b, err := range r.Batches(ctx) {
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		for i := range int(b.NumRows()) {
			out = append(out, strings.Clone(b.Column(0).ValueStr(i)))
		}
	}
	slices.Sort(out)
	return out, r.FilesOpened
}

// Conditions whose constants are not what they look like leave out no file with a row that meets them.
func TestPrunesByWhatConstantsMean(t *testing.T) {
	e := testEngine(t)
	field := func(name string, typ delta.Type) delta.Field {
		return delta.Field{Name: name, Type: typ, Nullable: true}
	}
	tab := valuesTable(t, "t", []delta.Field{field("i", delta.Long), field("s", delta.String), field("day", delta.Date), field("ts", delta.Timestamp), field("wall", delta.TimestampNTZ)}, nil,
		`[{"i": 1, "s": "abc", "day": "2024-01-01", "ts": "2024-01-01T00:00:00Z", "wall": "2024-01-01T00:00:00"}]`,
		`[{"i": 2, "s": "ABC", "day": "2024-01-02", "ts": "2024-01-02T00:00:00Z", "wall": "2024-01-02T00:00:00"}]`,
		`[{"i": 3, "s": "éa", "day": "2024-01-03", "ts": "2024-01-03T00:00:00Z", "wall": "2024-01-03T00:00:00"}]`)
	own := valuesTable(t, "own", []delta.Field{field("i", delta.Long), field("day", delta.Date), field("current_date", delta.Date)}, nil,
		`[{"i": 1, "day": "2024-01-01", "current_date": "2024-01-01"}]`, `[{"i": 2, "day": "2024-01-02", "current_date": "2024-01-05"}]`)
	for _, c := range []struct{ sql, want string }{
		{"SELECT i FROM t WHERE s = 'abc' COLLATE NOCASE", "1 2"},
		{"SELECT i FROM t WHERE s IN ('abc' COLLATE NOCASE)", "1 2"},
		{"SELECT i FROM t WHERE s IN ('abc', 'x' COLLATE NOCASE)", "1 2"},
		{"SELECT i FROM t WHERE s = 'ea' COLLATE NOACCENT", "3"},
		{"SELECT i FROM t WHERE s BETWEEN 'b' AND ('f' COLLATE NOACCENT)", "3"},
		{"SELECT i FROM t WHERE s = lower('ABC' COLLATE NOCASE)", "1 2"},
		{"SELECT i FROM t WHERE ts < 'infinity'::TIMESTAMPTZ", "1 2 3"},
		{"SELECT i FROM t WHERE ts < 'infinity'::TIMESTAMP", "1 2 3"},
		{"SELECT i FROM t WHERE ts < 'infinity'", "1 2 3"},
		{"SELECT i FROM t WHERE ts > '-infinity'::TIMESTAMPTZ", "1 2 3"},
		{"SELECT i FROM t WHERE ts BETWEEN '2024-01-02'::TIMESTAMPTZ AND 'infinity'::TIMESTAMPTZ", "2 3"},
		{"SELECT i FROM t WHERE day < 'infinity'::TIMESTAMPTZ", "1 2 3"},
		{"SELECT i FROM t WHERE day > '-infinity'::TIMESTAMP", "1 2 3"},
		{"SELECT i FROM t WHERE wall < 'infinity'::TIMESTAMP", "1 2 3"},
		{"SELECT i FROM t WHERE wall <> 'infinity'::TIMESTAMP", "1 2 3"},
		{"SELECT i FROM own WHERE day = current_date", "1"},
		{"SELECT i FROM own WHERE day < \"current_date\"", "2"},
		{"SELECT t.i FROM t, (SELECT DATE '2024-01-02' AS current_date) o WHERE t.day = current_date", "2"},
		{"SELECT t.i FROM t, (SELECT DATE '2024-01-02') o(current_date) WHERE t.day = current_date", "2"},
		{"SELECT i FROM t WHERE i = 2 AND ts < 'infinity'::TIMESTAMPTZ", "2"},
	} {
		got, _ := firstColumn(t, e, c.sql, tab, own)
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %v, not %s", c.sql, got, c.want)
		}
	}
	// A constant is still one.
	for sql, files := range map[string]int{
		"SELECT i FROM t WHERE day = current_date": 0, "SELECT i FROM t WHERE ts >= current_timestamp": 0, "SELECT i FROM t WHERE s = 'abc' AND i < 3 OR i = 3": 2,
		"SELECT i FROM t WHERE s = 'abc' COLLATE NOCASE AND i < 3": 2,
	} {
		if _, opened := firstColumn(t, e, sql, tab); opened != files {
			t.Errorf("%s: %d files, not %d", sql, opened, files)
		}
	}
}

// What is compared with 1e-1 becomes as inexact as that.
func TestPrunesByInexactNumbers(t *testing.T) {
	e := testEngine(t)
	tab := valuesTable(t, "t", []delta.Field{{Name: "i", Type: delta.Long, Nullable: true}, {Name: "d", Type: delta.Decimal{P: 38, S: 20}, Nullable: true}}, nil,
		`[{"i": 9007199254740992, "d": "0.1"}]`, `[{"i": 9007199254740993, "d": "0.10000000000000000001"}]`, `[{"i": 9007199254740999, "d": "7"}]`)
	for _, c := range []struct {
		where string
		files int
	}{
		{"i = 9007199254740992e0", -1},
		{"i IN (9007199254740992e0, 5)", -1},
		{"i <= -(-9007199254740992e0)", -1},
		{"i = 9007199254740992e0 + 0", -1},
		{"d = 1e-1", 2},
		{"d BETWEEN 1e-1 AND 1e-1", 2},
		{"d > 1e0", 1},
		{"i < -1e3", 0},
		{"i = 9007199254740992.0", 1},
	} {
		got, opened := firstColumn(t, e, "SELECT i FROM t WHERE "+c.where, tab)
		want, _ := firstColumn(t, e, "SELECT i FROM t WHERE ("+c.where+") IS TRUE", tab)
		if !slices.Equal(got, want) || c.files >= 0 && opened != c.files {
			t.Errorf("%s: %v of %d files, not %v", c.where, got, opened, want)
		}
	}
}
