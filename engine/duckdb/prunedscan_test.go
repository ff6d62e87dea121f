package duckdb

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/delta/expr"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/objstore"
)

// prunedColumns are the columns of the random tables, with values in SQL, edge cases of statistics among them.
var prunedColumns = []struct {
	name   string
	typ    delta.Type
	sql    string
	values []string
}{
	{"id", delta.Long, "BIGINT", []string{"0", "1", "-1", "7", "9007199254740993", "-9223372036854775807", "9223372036854775807"}},
	{"k", delta.Integer, "INTEGER", []string{"0", "1", "2", "3", "-5", "2147483647"}},
	{"f", delta.Double, "DOUBLE", []string{"0.0", "-0.0", "1.5", "-2.25", "'NaN'::DOUBLE", "'Infinity'::DOUBLE", "1e30"}},
	{"s", delta.String, "VARCHAR", []string{"'a'", "'b'", "''", "'ñandú'", "'" + strings.Repeat("a", 31) + "b'", "'" + strings.Repeat("a", 40) + "'", "'" + strings.Repeat("a", 31) + "😀z'", "'A%_\\'"}},
	{"dt", delta.Date, "DATE", []string{"DATE '2024-08-20'", "DATE '1969-12-31'", "DATE '0001-01-01'", "DATE '2024-02-29'"}},
	{"ts", delta.Timestamp, "TIMESTAMPTZ", []string{"TIMESTAMPTZ '2024-08-20 00:00:00.123456+00'", "TIMESTAMPTZ '2024-08-20 00:00:00.123999+00'", "TIMESTAMPTZ '1969-12-31 23:59:59.999999+00'", "TIMESTAMPTZ '2024-08-20 00:00:00.124+00'"}},
	{"dec", delta.Decimal{P: 20, S: 4}, "DECIMAL(20,4)", []string{"1.5::DECIMAL(20,4)", "-0.0001::DECIMAL(20,4)", "9999999999999999.9999::DECIMAL(20,4)", "0::DECIMAL(20,4)"}},
	{"b", delta.Boolean, "BOOLEAN", []string{"true", "false"}},
	{"p", delta.String, "VARCHAR", []string{"'x'", "'y'", "'a b/c%='", "''"}},
	{"q", delta.Date, "DATE", []string{"DATE '2024-08-20'", "DATE '2024-08-21'"}},
}

// prunedCond draws a condition that DuckDB and the table's own language both take.
func prunedCond(g *rand.Rand, depth int) string {
	if depth > 0 && g.IntN(3) > 0 {
		a, b := prunedCond(g, depth-1), prunedCond(g, depth-1)
		return []string{"(" + a + " AND " + b + ")", "(" + a + " OR " + b + ")", "(NOT " + a + ")"}[g.IntN(3)]
	}
	c := prunedColumns[g.IntN(len(prunedColumns))]
	value := func() string { return c.values[g.IntN(len(c.values))] }
	op := []string{"=", "<>", "<", "<=", ">", ">="}[g.IntN(6)]
	switch g.IntN(8) {
	case 0:
		return "(" + c.name + " IS NULL)"
	case 1:
		return "(" + c.name + " IS NOT NULL)"
	case 2:
		return fmt.Sprintf("(%s IN (%s, %s))", c.name, value(), value())
	case 3:
		return fmt.Sprintf("(%s BETWEEN %s AND %s)", c.name, value(), value())
	case 4:
		return fmt.Sprintf("(%s %s %s)", value(), op, c.name)
	case 5:
		return fmt.Sprintf("(s LIKE '%s%%')", []string{"a", "ñ", strings.Repeat("a", 33), ""}[g.IntN(4)])
	}
	return fmt.Sprintf("(%s %s %s)", c.name, op, value())
}

// Whatever is left out by partition values and statistics, through the pure-Go reader, DuckDB's, and a query: the rows
// of a random condition over a random table are those of a full scan.
func TestPrunedScanEqualsFullScan(t *testing.T) {
	ctx := context.Background()
	e := testEngine(t)
	g := testscale.Rand(t)
	conditions, tables, pruned := testscale.Count(t, "pruned-scans"), 0, 0
	for done := 0; done < conditions; {
		tables++
		store, err := objstore.NewLocal(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		schema := &delta.Schema{}
		for _, c := range prunedColumns {
			schema.Fields = append(schema.Fields, delta.Field{Name: c.name, Type: c.typ, Nullable: true})
		}
		config := map[string]string{"delta.dataSkippingNumIndexedCols": fmt.Sprint([]int{-1, 0, 3, 32}[g.IntN(4)]), "delta.enableDeletionVectors": fmt.Sprint(g.IntN(2) == 0)}
		if g.IntN(3) == 0 {
			config["delta.columnMapping.mode"] = []string{"name", "id"}[g.IntN(2)]
		}
		var by []string
		if g.IntN(2) == 0 {
			by = []string{"p", "q"}[:1+g.IntN(2)]
		}
		writers := []delta.Engine{e.Delta(), {Expressions: e.Delta().Expressions}}
		var tab *delta.Table
		if tab, err = delta.Create(ctx, store, "t", delta.CreateOptions{Schema: schema, PartitionBy: by, Config: config}, &delta.Options{Engine: writers[g.IntN(2)]}); err != nil {
			t.Fatal(err)
		}
		for range 2 + g.IntN(6) {
			prunedAppend(t, e, tab, g)
		}
		// Rows that are marked stay in the bounds of their file.
		if _, err := tab.DeleteWhere(ctx, condition(t, e, prunedCond(g, 0)), delta.ChangeOptions{}); err != nil {
			t.Fatal(err)
		}
		s, err := tab.Snapshot(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for range 25 {
			done++
			sql := prunedCond(g, 2)
			cond := condition(t, e, sql)
			pred := delta.PredicateOf(cond)
			if len(s.Prune(pred)) < s.NumFiles() {
				pruned++
			}
			var all [][]string
			for _, reader := range []delta.Engine{{}, e.Delta()} {
				r, err := delta.Open(ctx, store, "t", &delta.Options{Engine: reader})
				if err != nil {
					t.Fatal(err)
				}
				at, err := r.Snapshot(ctx)
				if err != nil {
					t.Fatal(err)
				}
				for _, o := range []delta.ScanOptions{{}, {Where: pred}} {
					all = append(all, matching(t, cond, r.Scan(ctx, at, o)))
				}
			}
			res, err := e.Query(ctx, "SELECT * FROM t WHERE "+sql, []QueryTable{{Name: "t", Snapshot: s}})
			if err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
			all = append(all, matching(t, expr.Lit(true), res.Batches(ctx)))
			if err := res.Close(); err != nil {
				t.Fatal(err)
			}
			for i, how := range []string{"", "pure Go, pruned", "DuckDB, full", "DuckDB, pruned", "query"} {
				if !slices.Equal(all[i], all[0]) {
					t.Fatalf("%s over a table by %v with %v: %s gives\n%s\na full scan\n%s", sql, by, config, how, strings.Join(all[i], "\n"), strings.Join(all[0], "\n"))
				}
			}
		}
	}
	t.Logf("%d conditions over %d tables; files were left out for %d", conditions, tables, pruned)
	if pruned == 0 && testscale.Current() != testscale.Short { // how many is a matter of luck, and few conditions may have none
		t.Errorf("of %d conditions only %d left out a file", conditions, pruned)
	}
}

func condition(t *testing.T, e *Engine, sql string) expr.Expr {
	t.Helper()
	s, err := e.ParseStatement("DELETE FROM t WHERE " + sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return s.Where
}

func prunedAppend(t *testing.T, e *Engine, tab *delta.Table, g *rand.Rand) {
	t.Helper()
	ctx := context.Background()
	var rows []string
	few := g.IntN(2) == 0 // files with few values have narrow bounds
	for range 1 + g.IntN(6) {
		var row []string
		for _, c := range prunedColumns {
			v := c.values[g.IntN(len(c.values))]
			if few {
				v = c.values[g.IntN(2)]
			}
			if g.IntN(6) == 0 {
				v = "NULL"
			}
			row = append(row, v+" AS "+c.name)
		}
		rows = append(rows, "SELECT "+strings.Join(row, ", "))
	}
	types := make([]string, len(prunedColumns))
	for i, c := range prunedColumns {
		types[i] = fmt.Sprintf("CAST(%s AS %s) AS %s", c.name, c.sql, c.name)
	}
	r, err := e.Query(ctx, "SELECT "+strings.Join(types, ", ")+" FROM ("+strings.Join(rows, " UNION ALL ")+")", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	in, release, err := e.Collect(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if _, err := tab.Append(ctx, in, delta.AppendOptions{}); err != nil {
		t.Fatal(err)
	}
}

// matching prints the rows for which a condition is true, sorted. The empty string of a partition is null.
func matching(t *testing.T, cond expr.Expr, rows iter.Seq2[arrow.RecordBatch, error]) []string {
	t.Helper()
	out := []string{}
	for b, err := range rows {
		if err != nil {
			t.Fatal(err)
		}
		p, err := expr.Compile(cond, expr.Columnar(b.Schema()), expr.Options{})
		if err != nil {
			t.Fatalf("%s: %v", cond, err)
		}
		for i := range int(b.NumRows()) {
			v, err := p.Value(b, i)
			if err != nil {
				t.Fatalf("%s: %v", cond, err)
			}
			if v != true {
				continue
			}
			var row []string
			for _, c := range b.Columns() {
				if c.IsNull(i) {
					row = append(row, "-")
				} else {
					row = append(row, strings.Clone(c.ValueStr(i)))
				}
			}
			out = append(out, strings.Join(row, "|"))
		}
	}
	slices.Sort(out)
	return out
}
