package duckdb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/objstore"
)

// valuesTable makes a table with a file, or a file for each partition, of each batch of rows.
func valuesTable(t *testing.T, name string, fields []delta.Field, partitionBy []string, batches ...string) QueryTable {
	t.Helper()
	_, snap := deltaTable(t, name, fields, partitionBy, batches...)
	return QueryTable{Name: name, Snapshot: snap}
}

func deltaTable(t *testing.T, name string, fields []delta.Field, partitionBy []string, batches ...string) (*delta.Table, *delta.Snapshot) {
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
	return tab, snap
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

// What clients write of the last days leaves out the files of earlier ones, also in statements that are not trusted.
func TestPrunesServedStatements(t *testing.T) {
	e := testEngine(t)
	tab := valuesTable(t, "t", []delta.Field{{Name: "day", Type: delta.Date, Nullable: true}, {Name: "ts", Type: delta.Timestamp, Nullable: true}}, nil,
		`[{"day": "2024-01-01", "ts": "2024-01-01T00:00:00Z"}]`, `[{"day": "2024-01-02", "ts": "2024-01-02T00:00:00Z"}]`)
	r := seen{"t": {Snapshot: tab.Snapshot}}
	for _, where := range []string{
		"day >= current_date - 7", "day >= current_date - INTERVAL 7 DAY", "day >= current_date - INTERVAL '7 days'", "day >= current_date - INTERVAL '1' MONTH", "day >= (now() - INTERVAL 2 WEEKS)::DATE",
		"day >= today() - 1", "day = DATE '2024-02-01'", "day BETWEEN '2024-02-01' AND '2024-02-28'", "day >= CAST('2024-02-01' AS DATE)", "day IN (current_date, current_date - 1)",
		"day >= date_trunc('month', current_date)", "day >= date_add(current_date, INTERVAL (-3) DAY)", "day >= make_date(2024, 2, 1)", "day >= CAST(strptime('2024-02-01', '%Y-%m-%d') AS DATE)", "day > last_day(DATE '2024-02-01')", "ts >= make_timestamp(2024, 2, 1, 0, 0, 0)",
		"ts >= now() - INTERVAL 1 HOUR", "ts >= now() - INTERVAL '1 hour'", "ts >= current_timestamp - INTERVAL 90 MINUTE", "ts >= date_trunc('day', now())", "ts >= localtimestamp - INTERVAL 30 SECOND",
		"ts >= TIMESTAMP '2024-02-01 00:00:00'", "ts >= to_timestamp(1706745600)", "ts > timezone('UTC', now()) - INTERVAL 1 YEAR", "ts >= now() AT TIME ZONE 'UTC' - INTERVAL 1 QUARTER", "ts >= date_trunc('week', now() - INTERVAL 1 WEEK)", "ts >= strptime('2024-02-01', '%Y-%m-%d')",
	} {
		if got, opened := shippedColumn(t, e, "SELECT day FROM t WHERE "+where, "UTC", r); got != "" || opened != 0 {
			t.Errorf("%s: %q of %d files", where, got, opened)
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

// The zone of a session says when a day begins and what a time without a zone means: no file is left out whose rows it makes match.
func TestPrunesInTheZoneOfTheSession(t *testing.T) {
	ctx := context.Background()
	e := testEngine(t)
	var batches []string
	for day := 20; day < 26; day++ {
		batches = append(batches, fmt.Sprintf(`[{"day": "2024-08-%[1]d", "ts": "2024-08-%[1]dT12:00:00Z", "wall": "2024-08-%[1]dT12:00:00"}]`, day))
	}
	tab, snap := deltaTable(t, "t", []delta.Field{
		{Name: "day", Type: delta.Date, Nullable: true}, {Name: "ts", Type: delta.Timestamp, Nullable: true}, {Name: "wall", Type: delta.TimestampNTZ, Nullable: true},
	}, nil, batches...)
	tables := map[string]*QueryTable{"t": {Name: "t", Snapshot: snap}}
	c, err := e.acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = c.exec(ctx, "SET TimeZone = 'UTC'")
		_ = c.release()
	}()
	var rows []arrow.RecordBatch
	for b, err := range tab.Scan(ctx, snap, delta.ScanOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		b.Retain()
		defer b.Release()
		rows = append(rows, b)
	}
	rr, err := array.NewRecordReader(rows[0].Schema(), rows)
	if err != nil {
		t.Fatal(err)
	}
	done, err := c.register(rr, "all_rows")
	if err != nil {
		t.Fatal(err)
	}
	defer rr.Release()
	if err := c.exec(ctx, "CREATE TEMP TABLE plain AS SELECT * FROM all_rows"); err != nil {
		t.Fatal(err)
	}
	done()
	pruned := 0
	for _, zone := range []string{"UTC", "Asia/Tokyo", "America/Los_Angeles", "Pacific/Kiritimati", "Pacific/Pago_Pago"} {
		if err := c.exec(ctx, "SET TimeZone = '"+zone+"'"); err != nil {
			t.Fatal(err)
		}
		for _, column := range []string{"day", "ts", "wall"} {
			for _, op := range []string{"=", "<>", "<", "<=", ">", ">="} {
				for _, value := range []string{
					"TIMESTAMP '2024-08-22 00:00:00'", "TIMESTAMP '2024-08-22 05:00:00'", "TIMESTAMP '2024-08-22 12:00:00'", "TIMESTAMP '2024-08-22 20:00:00'", "DATE '2024-08-22'", "'2024-08-22'",
					"TIMESTAMPTZ '2024-08-22 00:00:00'", "TIMESTAMPTZ '2024-08-22 05:00:00+09'", "TIMESTAMPTZ '2024-08-22 12:00:00+00'", "TIMESTAMPTZ '2024-08-21 15:00:00+00'", "TIMESTAMPTZ '2024-08-22 00:00:00+00'",
					"'2024-08-22 12:00:00'", "'2024-08-22 12:00:00+00'",
				} {
					where := column + " " + op + " " + value
					row, err := c.one(ctx, "SELECT count(*) FROM plain WHERE "+where)
					if err != nil {
						continue // a text that is no value of the column
					}
					if err := c.exec(ctx, "BEGIN TRANSACTION"); err != nil {
						t.Fatal(err)
					}
					q, err := parseQuery(ctx, c, "SELECT * FROM t WHERE "+where, nil)
					if err != nil {
						t.Fatal(err)
					}
					p, err := q.predicates(ctx, c, tables)
					if err != nil {
						t.Fatal(err)
					}
					_ = c.exec(ctx, "ROLLBACK")
					kept := len(snap.Prune(p["t"]))
					if want := integer(row[0]); int64(kept) < want {
						t.Errorf("%s: %s: %d files for %d rows", zone, where, kept, want)
					}
					if kept < len(batches) {
						pruned++
					}
				}
			}
		}
	}
	if pruned == 0 {
		t.Error("no condition left a file out")
	}
}

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

// shippedColumn is the first column of what a worker gives in a zone, and how many files were opened for it.
func shippedColumn(t *testing.T, e *Engine, sql, zone string, r Resolver) (string, int) {
	t.Helper()
	ctx := context.Background()
	s, err := e.Ship(ctx, sql, zone, r)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	w, err := e.NewSession(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.SetTimeZone(ctx, zone), w.Begin(ctx, s.Steps)); err != nil {
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
		if got, files := shippedColumn(t, e, c.sql, "UTC", r); got != c.want || files != c.files {
			t.Errorf("%s: %s of %d files, not %s of %d", c.sql, got, files, c.want, c.files)
		}
	}
}

// Versions are whole numbers: the digits of another number are none.
func TestConstantsWithAPoint(t *testing.T) {
	e := testEngine(t)
	ctx := context.Background()
	for sql, want := range map[string]string{"1.5": "1.5", "-0.25": "-0.25", "2.0": "2.0", "12": "12", "'1.5'": "1.5", "1e1": "10.0", "5000000000.1": "5000000000.1"} {
		var got string
		err := e.with(ctx, func(c *conn) error {
			q, err := parseQuery(ctx, c, "SELECT "+sql, nil)
			if err == nil {
				got, _ = constantText(list(q.node["select_list"])[0])
			}
			return err
		})
		if err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", sql, got, err, want)
		}
	}
}
