package peers

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/engine/duckdb"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/objstore"
)

// statements makes random statements in SQL that Spark and Cauce both take. %s stands for the table.
type statements struct{ *rand.Rand }

func (g statements) cond(a string) string {
	n := g.IntN(9)
	c := []string{
		fmt.Sprintf("%sk > %d", a, n),
		fmt.Sprintf("%sid %% 3 = %d", a, n%3),
		a + "v LIKE 'b%'",
		a + "k IS NULL",
		fmt.Sprintf("%sp = '%c'", a, "xyz"[n%3]),
		fmt.Sprintf("NOT (%sk < %d)", a, n),
		fmt.Sprintf("%sid IN (1, %d, NULL)", a, n),
		fmt.Sprintf("%sd BETWEEN 1.5 AND %d", a, n+2),
		fmt.Sprintf("coalesce(%sk, 0) <> %d", a, n),
		fmt.Sprintf("%sv = 'b' OR %sk = %d", a, a, n),
		fmt.Sprintf("%sk / 2 > 1.5", a),
		fmt.Sprintf("CAST(%sk AS STRING) = '%d'", a, n),
		fmt.Sprintf("length(%sv) > %d AND %sp >= 'y'", a, n%4, a),
		fmt.Sprintf("%sid = '%d'", a, n), // Spark casts the text
	}[g.IntN(14)]
	if g.IntN(4) == 0 {
		return "(" + c + ") AND " + a + "id > 2"
	}
	return c
}

// value gives a column and a new value for it.
func (g statements) value(a string) (column, value string) {
	v := [][2]string{
		{"k", a + "k + 1"}, {"k", "CASE WHEN " + a + "k IS NULL THEN 0 ELSE " + a + "k % 7 END"}, {"k", "NULL"}, {"k", "CAST(" + a + "id AS INT) - 1"},
		{"k", a + "k * 300000000"}, {"k", "10 / (" + a + "id - 3)"}, // overflow and division by zero, where a row has such values
		{"v", "substring(concat(" + a + "v, 'x'), 1, 6)"}, {"v", "upper(" + a + "v)"}, {"v", "'it''s'"}, {"v", a + "d"},
		{"d", a + "d * 1.15"}, {"d", a + "d + 0.005"}, {"d", a + "k / 3"}, {"p", "CASE WHEN " + a + "k > 3 THEN 'x' ELSE 'z' END"}, {"p", "NULL"},
	}[g.IntN(15)]
	return v[0], v[1]
}

func (g statements) sets(a string) string {
	n := 1 + g.IntN(2)
	var out []string
	seen := map[string]bool{}
	for range n {
		if c, v := g.value(a); !seen[c] {
			seen[c] = true
			out = append(out, c+" = "+v)
		}
	}
	return strings.Join(out, ", ")
}

func (g statements) row() string {
	or := func(v string) string {
		if g.IntN(6) == 0 {
			return "NULL"
		}
		return v
	}
	return fmt.Sprintf("CAST(%s AS BIGINT) AS id, CAST(%s AS INT) AS k, CAST(%s AS STRING) AS v, CAST(%s AS DECIMAL(10,2)) AS d, CAST(%s AS STRING) AS p",
		or(fmt.Sprint(g.IntN(20))), or(fmt.Sprint(g.IntN(9))), or([]string{"'a'", "'b'", "'bc'", "'ñ'", "''"}[g.IntN(5)]), or(fmt.Sprintf("%d.%02d", g.IntN(30), g.IntN(100))), or([]string{"'x'", "'y'", "'z'"}[g.IntN(3)]))
}

func (g statements) rows(n int, unique bool) string {
	var out []string
	seen := map[string]bool{}
	for range n {
		r := g.row()
		id := r[:strings.Index(r, " AS")]
		if seen[id] && (unique || g.IntN(10) > 0) {
			continue
		}
		seen[id] = true
		out = append(out, "SELECT "+r)
	}
	return strings.Join(out, " UNION ALL ")
}

func (g statements) next() string {
	switch g.IntN(6) {
	case 0:
		return "DELETE FROM %s WHERE " + g.cond("")
	case 1:
		return "UPDATE %s SET " + g.sets("") + " WHERE " + g.cond("")
	case 2:
		return "INSERT INTO %s " + g.rows(1+g.IntN(5), false)
	}
	on := "t.id = s.id"
	switch g.IntN(4) {
	case 0:
		on += " AND " + "(" + g.cond("t.") + ")"
	case 1:
		on = "t.id <=> s.id"
	case 2:
		on += " AND t.p = s.p"
	}
	sql := ""
	clauses, matchedOnly := 0, true
	for n := g.IntN(3); n > 0; n-- {
		sql += " WHEN MATCHED"
		if n > 1 || g.IntN(2) == 0 {
			sql += " AND (" + g.cond([]string{"t.", "s."}[g.IntN(2)]) + ")"
		}
		sql += []string{" THEN DELETE", " THEN UPDATE SET *", " THEN UPDATE SET " + g.sets("s.")}[g.IntN(3)]
		clauses++
	}
	for n := g.IntN(3); n > 0; n-- {
		sql += " WHEN NOT MATCHED"
		if n > 1 || g.IntN(2) == 0 {
			sql += " AND (" + g.cond("s.") + ")"
		}
		c, v := g.value("s.")
		matchedOnly = false
		sql += []string{" THEN INSERT *", " THEN INSERT (id, " + map[bool]string{true: c, false: "k"}[c != "id"] + ") VALUES (s.id, " + v + ")"}[g.IntN(2)]
		clauses++
	}
	for n := g.IntN(2); n > 0 || clauses == 0; n-- {
		matchedOnly = false
		sql += " WHEN NOT MATCHED BY SOURCE AND (" + g.cond("t.") + ")" + []string{" THEN DELETE", " THEN UPDATE SET " + g.sets("t.")}[g.IntN(2)]
		clauses++
		if clauses > 0 {
			break
		}
	}
	// Where there are other clauses Spark counts every source row that matches, here only those that act count.
	return "MERGE INTO %s AS t USING (" + g.rows(1+g.IntN(8), !matchedOnly) + ") AS s ON " + on + sql
}

// ours runs statements on a table of ours.
type ours struct {
	t     *testing.T
	e     *duckdb.Engine
	table *delta.Table
}

func (o *ours) run(sql string) error {
	ctx := context.Background()
	// <=> is Spark's; DuckDB's parser knows it under its standard name.
	s, err := o.e.ParseStatement(strings.ReplaceAll(sql, "<=>", "IS NOT DISTINCT FROM"))
	if err != nil || s == nil {
		return fmt.Errorf("%v: %w", s, err)
	}
	query := func(q string) (delta.Rows, func(), error) {
		r, err := o.e.Query(ctx, q, nil)
		if err != nil {
			return nil, nil, err
		}
		rows, done, err := o.e.Collect(ctx, r)
		return rows, done, errors.Join(err, r.Close())
	}
	switch s.Kind {
	case "DELETE":
		_, err = o.table.DeleteWhere(ctx, s.Where, delta.ChangeOptions{})
	case "UPDATE":
		_, err = o.table.Update(ctx, delta.UpdateOptions{Where: s.Where, Set: s.Set})
	case "INSERT":
		var snap *delta.Snapshot
		if snap, err = o.table.Snapshot(ctx); err != nil {
			return err
		}
		q, err := s.InsertQuery(snap.Schema(), len(snap.Schema().Fields))
		if err != nil {
			return err
		}
		rows, done, err := query(q)
		if err != nil {
			return err
		}
		defer done()
		_, err = o.table.Append(ctx, rows, delta.AppendOptions{})
		return err
	case "MERGE":
		rows, done, err := query(s.Query)
		if err != nil {
			return err
		}
		defer done()
		_, err = o.table.MergeInto(ctx, rows, s.Merge)
		return err
	default:
		err = fmt.Errorf("no statement of this test: %s", s.Kind)
	}
	return err
}

// text is the rows of a table, sorted, in the form of sparkText.
func (o *ours) text() string {
	o.t.Helper()
	ctx := context.Background()
	s, err := o.table.Snapshot(ctx)
	if err != nil {
		o.t.Fatal(err)
	}
	return o.texts(o.table.Scan(ctx, s, delta.ScanOptions{}))
}

// changes is the change feed of the table from version 1 on, sorted, in the form of textOf.
func (o *ours) changes() string {
	o.t.Helper()
	f, err := o.table.Changes(context.Background(), delta.ChangesOptions{From: 1, To: -1})
	if err != nil {
		o.t.Fatal(err)
	}
	return o.texts(f.Batches(context.Background()))
}

func (o *ours) texts(rows iter.Seq2[arrow.RecordBatch, error]) string {
	var out []string
	for b, err := range rows {
		if err != nil {
			o.t.Fatal(err)
		}
		for i := range int(b.NumRows()) {
			var row []string
			for j, c := range b.Columns() {
				if b.ColumnName(j) == delta.CommitTimestampColumn {
					continue
				}
				v := "-"
				if c.IsValid(i) {
					v = c.ValueStr(i)
					if d, ok := c.(*array.Decimal128); ok {
						v = d.Value(i).ToString(c.DataType().(*arrow.Decimal128Type).Scale)
					}
				}
				row = append(row, b.ColumnName(j)+"="+v)
			}
			out = append(out, strings.Join(row, " "))
		}
	}
	sort.Strings(out)
	return strings.Join(out, "\n")
}

// sparkText is what Spark reads from a table; columns gives their order.
func sparkText(s *spark, path string, columns []string) string {
	s.t.Helper()
	return textOf(s.sql("SELECT * FROM delta.`"+path+"`"), columns)
}

func textOf(rows []map[string]any, columns []string) string {
	var out []string
	for _, r := range rows {
		var row []string
		for _, c := range columns {
			v := "-"
			if x, ok := r[c]; ok && x != nil {
				v = fmt.Sprint(x)
				if f, isNumber := x.(float64); isNumber {
					v = strconv.FormatFloat(f, 'f', -1, 64)
				}
			}
			row = append(row, c+"="+v)
		}
		out = append(out, strings.Join(row, " "))
	}
	sort.Strings(out)
	return strings.Join(out, "\n")
}

// TestStatementsAgreeWithSpark runs the same random DELETE, UPDATE, INSERT and MERGE statements in Spark on its table and
// here on two, with deletion vectors and without: after each the rows are equal, and what Spark refuses is refused. Then
// each reads the other's tables, and keeps the constraints that the other made.
func TestStatementsAgreeWithSpark(t *testing.T) {
	ctx := context.Background()
	s := startSpark(t)
	e, err := duckdb.Open(duckdb.Options{TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	dir := t.TempDir()
	store, err := objstore.NewLocal(dir)
	if err != nil {
		t.Fatal(err)
	}
	opts := &delta.Options{Engine: e.Delta()}
	schema := &delta.Schema{Fields: []delta.Field{{Name: "id", Type: delta.Long, Nullable: true}, {Name: "k", Type: delta.Integer, Nullable: true},
		{Name: "v", Type: delta.String, Nullable: true}, {Name: "d", Type: delta.Decimal{P: 10, S: 2}, Nullable: true}, {Name: "p", Type: delta.String, Nullable: true}}}
	var mine []*ours
	for name, config := range map[string]map[string]string{
		"vectors": {"delta.enableDeletionVectors": "true", "delta.enableChangeDataFeed": "true"}, "copy": {"delta.enableChangeDataFeed": "true"},
	} {
		tab, err := delta.Create(ctx, store, name, delta.CreateOptions{Schema: schema, PartitionBy: []string{"p"}, Config: config}, opts)
		if err != nil {
			t.Fatal(err)
		}
		mine = append(mine, &ours{t, e, tab})
	}
	g := statements{testscale.Rand(t)}
	steps := testscale.Count(t, "spark-statements")
	t.Logf("Spark %s", s.ready())
	theirs := filepath.Join(dir, "spark")
	s.sql("CREATE TABLE delta.`" + theirs + "` (id BIGINT, k INT, v STRING, d DECIMAL(10,2), p STRING) USING delta PARTITIONED BY (p) TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')")
	columns := []string{"id", "k", "v", "d", "p"}
	refused := 0
	for step := range steps {
		sql := g.next()
		if step == 0 {
			sql = "INSERT INTO %s " + g.rows(25, false)
		}
		failed := s.try(strings.Replace(sql, "%s", "delta.`"+theirs+"`", 1)).Failed
		if strings.Contains(failed, "did not match any merge clause") {
			continue // Spark's own fault: a row that no clause is about should stay as it is
		}
		want := ""
		if failed == "" {
			want = sparkText(s, theirs, columns)
		} else {
			refused++
		}
		for _, o := range mine {
			before := o.text()
			err := o.run(strings.Replace(sql, "%s", "t", 1))
			if (err != nil) != (failed != "") {
				t.Fatalf("step %d: %s\n%v: %v\nSpark: %s\nrows before:\n%s", step, sql, o.table, err, failed, before)
			}
			got := o.text()
			if err != nil {
				want = before
			}
			if got != want {
				t.Fatalf("step %d: %s\n%v has\n%s\nwant\n%s\nbefore\n%s", step, sql, o.table, got, want, before)
			}
		}
	}
	t.Logf("%d statements, of which both refused %d", steps, refused)
	// Spark goes on with our tables, and we with Spark's.
	for _, o := range mine {
		path := filepath.Join(dir, o.table.Path())
		if got, want := sparkText(s, path, columns), o.text(); got != want {
			t.Errorf("Spark reads of %s\n%s\nwant\n%s", path, got, want)
		}
		rows := s.sql("SELECT * EXCEPT (_commit_timestamp) FROM table_changes_by_path('" + path + "', 1)")
		if got, want := textOf(rows, append(columns, "_change_type", "_commit_version")), o.changes(); got != want {
			t.Errorf("Spark reads of the change feed of %s\n%s\nwant\n%s", path, got, want)
		}
		s.sql("UPDATE delta.`" + path + "` SET k = 5 WHERE id % 2 = 0")
		if err := o.run("MERGE WITH SCHEMA EVOLUTION INTO t USING (SELECT CAST(77 AS BIGINT) AS id, 'new' AS extra) AS s ON t.id = s.id WHEN NOT MATCHED THEN INSERT *"); err != nil {
			t.Fatal(err)
		}
		if got, want := sparkText(s, path, append(columns, "extra")), o.text(); got != want {
			t.Errorf("after both changed it Spark reads of %s\n%s\nwant\n%s", path, got, want)
		}
	}
	tab, err := delta.Open(ctx, store, "spark", opts)
	if err != nil {
		t.Fatal(err)
	}
	o := &ours{t, e, tab}
	for _, sql := range []string{"DELETE FROM t WHERE k = 3", "UPDATE t SET v = 'ours' WHERE id < 9"} {
		if err := o.run(sql); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := sparkText(s, theirs, columns), o.text(); got != want {
		t.Errorf("Spark reads of its own table\n%s\nwant\n%s", got, want)
	}
	constraintsWithSpark(t, s, e, store, dir)
}

// constraintsWithSpark lets each side keep the rules that the other made.
func constraintsWithSpark(t *testing.T, s *spark, e *duckdb.Engine, store objstore.Store, dir string) {
	ctx := context.Background()
	path := filepath.Join(dir, "rules")
	s.sql("CREATE TABLE delta.`" + path + "` (id BIGINT NOT NULL, k INT DEFAULT 7, twice BIGINT GENERATED ALWAYS AS (id * 2), day DATE GENERATED ALWAYS AS (CAST(at AS DATE)), at TIMESTAMP, month STRING GENERATED ALWAYS AS (date_format(at, 'yyyy-MM'))) USING delta " +
		"TBLPROPERTIES ('delta.feature.allowColumnDefaults' = 'supported')")
	s.sql("ALTER TABLE delta.`" + path + "` ADD CONSTRAINT small CHECK (k < 100 AND `id` <> 13 OR \"it's\" = 'no')")
	s.sql("INSERT INTO delta.`" + path + "` (id, k, at) VALUES (1, 1, TIMESTAMP '2024-08-20 23:59:59')")
	tab, err := delta.Open(ctx, store, "rules", &delta.Options{Engine: e.Delta()})
	if err != nil {
		t.Fatal(err)
	}
	o := &ours{t, e, tab}
	appendQuery := func(q string) error {
		r, err := e.Query(ctx, q, nil)
		if err != nil {
			return err
		}
		defer r.Close()
		rows, done, err := e.Collect(ctx, r)
		if err != nil {
			return err
		}
		defer done()
		_, err = tab.Append(ctx, rows, delta.AppendOptions{})
		return err
	}
	if err := errors.Join(appendQuery("SELECT 2::BIGINT AS id, TIMESTAMPTZ '2024-08-21 00:00:00Z' AS at"), o.run("UPDATE t SET id = id + 10 WHERE id = 1")); err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{"SELECT 3::BIGINT AS id, 100 AS k", "SELECT 13::BIGINT AS id", "SELECT 3::BIGINT AS id, 7::BIGINT AS twice", "SELECT 3::BIGINT AS id, NULL::INTEGER AS k"} {
		if err := appendQuery(q); !errors.Is(err, delta.ErrConstraint) {
			t.Errorf("%s: %v, want ErrConstraint", q, err)
		}
	}
	if _, err := tab.AddConstraint(ctx, "ours", "(twice >= id)"); err != nil {
		t.Fatal(err)
	}
	if a := s.try("INSERT INTO delta.`" + path + "` (id, at) VALUES (-1, NULL)"); !strings.Contains(a.Failed, "CHECK") {
		t.Errorf("Spark takes a row that breaks our constraint: %q", a.Failed)
	}
	s.sql("INSERT INTO delta.`" + path + "` (id, at) VALUES (5, NULL)")
	if got, want := sparkText(s, path, []string{"id", "k", "twice", "day", "month"}), "id=11 k=1 twice=22 day=2024-08-20 month=2024-08\nid=2 k=7 twice=4 day=2024-08-21 month=2024-08\nid=5 k=7 twice=10 day=- month=-"; got != want {
		t.Errorf("Spark reads\n%s\nwant\n%s", got, want)
	}
}
