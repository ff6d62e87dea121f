package duckdb

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/cauce-data/cauce/delta/expr"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/pipeline"
)

// TestParseSparkExpression has SQL as Spark keeps it in table metadata.
func TestParseSparkExpression(t *testing.T) {
	e, err := Open(Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for sql, want := range map[string]string{
		"price > 0":                                      "(price > 0)",
		"a.`b c`.`D``` = \"it's\"":                       "(a.`b c`.`D``` = 'it\\'s')",
		`s like 'a\_%' and t = 'x\'y\n'`:                 `((s LIKE 'a\\_%') AND (t = 'x\'y\n'))`,
		"a <=> b or !(c == 1L)":                          "((a <=> b) OR (c <> CAST(1 AS BIGINT)))",
		"x DIV 2 + 1.50BD -- why\n":                      "((x DIV 2) + 1.50)",
		"1e2 + 2.5D":                                     "(1e+02D + 2.5e+00D)",
		"x in (1, -2, null)":                             "(x IN (1, -2, NULL))",
		"cast(x as long) between 1 and 2":                "((CAST(x AS BIGINT) >= 1) AND (CAST(x AS BIGINT) <= 2))",
		"cast(t as date)":                                "CAST(t AS DATE)",
		"case when a then 1 else 'b' end":                "CASE WHEN a THEN 1 ELSE 'b' END",
		"d >= date '2024-08-20'":                         "(d >= DATE '2024-08-20')",
		"current_timestamp() > t":                        "(current_timestamp() > t)",
		"date_trunc('hour', t)":                          "date_trunc('hour', t)",
		"extract(year from t)":                           "year(t)",
		"X'00FF' = b":                                    "(X'00FF' = b)",
		"substring(s, 1, 2) || upper(s)":                 "(substring(s, 1, 2) || upper(s))",
		"a is not true":                                  "(NOT (CAST(a AS BOOLEAN) <=> TRUE))",
		"CAST(at AS DATE) > desc and user.table is null": "((CAST(at AS DATE) > desc) AND (`user`.`table` IS NULL))",
		"coalesce(a, 1) % 3 != 2":                        "((coalesce(a, 1) % 3) <> 2)",
		"cast('1' as decimal(10,2)) > -1.5":              "(CAST('1' AS DECIMAL(10,2)) > -1.5)",
	} {
		got, err := deltaParser{e}.ParseExpression(sql)
		if err != nil || got.String() != want {
			t.Errorf("%s: %v, %v; want %s", sql, got, err, want)
			continue
		}
		// What is printed is Spark's SQL again.
		again, err := deltaParser{e}.ParseExpression(got.String())
		if err != nil || again.String() != want {
			t.Errorf("%s printed and read again: %v, %v", sql, again, err)
		}
	}
	for _, sql := range []string{
		"", "a +", "1) union select (2", "(select 1)", "count(*) over ()", "x -> x + 1", "a; drop table b", "a[0]", "?", "'open", "`open", "/* open", "12abc", "X'0'", "*", "1 as b",
	} {
		var s *pipeline.SyntaxError
		if got, err := (deltaParser{e}).ParseExpression(sql); !errors.As(err, &s) {
			t.Errorf("%s: %v, %v; want a syntax error", sql, got, err)
		}
	}
}

// exprGen makes random expressions of which DuckDB and Spark have the same opinion.
type exprGen struct{ *rand.Rand }

func (g exprGen) number(depth int) string {
	if depth == 0 || g.IntN(4) == 0 {
		return []string{"a", "b", "CAST(NULL AS INTEGER)", fmt.Sprint(g.IntN(7) - 3), "CAST(s AS BIGINT)"}[g.IntN(5)]
	}
	switch g.IntN(7) {
	case 0:
		return "coalesce(" + g.number(depth-1) + ", " + g.number(depth-1) + ")"
	case 1:
		return "CASE WHEN " + g.bool(depth-1) + " THEN " + g.number(depth-1) + " ELSE " + g.number(depth-1) + " END"
	case 2:
		return "abs(" + g.number(depth-1) + ")"
	case 3:
		return "length(" + g.text(depth-1) + ")"
	}
	return "(" + g.number(depth-1) + []string{" + ", " - ", " * "}[g.IntN(3)] + g.number(depth-1) + ")"
}

// decimal has one scale throughout: of mixed ones DuckDB keeps fewer digits than Spark.
func (g exprGen) decimal(depth int) string {
	if depth == 0 || g.IntN(4) == 0 {
		return []string{"m", "CAST(1.5 AS DECIMAL(6,2))", "CAST(a AS DECIMAL(6,2))", "CAST(NULL AS DECIMAL(6,2))"}[g.IntN(4)]
	}
	switch g.IntN(4) {
	case 0:
		return "coalesce(" + g.decimal(depth-1) + ", " + g.decimal(depth-1) + ")"
	case 1:
		return "CASE WHEN " + g.bool(depth-1) + " THEN " + g.decimal(depth-1) + " ELSE " + g.decimal(depth-1) + " END"
	}
	return "(" + g.decimal(depth-1) + []string{" + ", " - "}[g.IntN(2)] + g.decimal(depth-1) + ")"
}

func (g exprGen) text(depth int) string {
	if depth == 0 || g.IntN(3) == 0 {
		return []string{"s", "s", "'1'", "''", "'añb'"}[g.IntN(5)]
	}
	switch g.IntN(4) {
	case 0:
		return "upper(" + g.text(depth-1) + ")"
	case 1:
		return fmt.Sprintf("substring(%s, %d, %d)", g.text(depth-1), 1+g.IntN(3), g.IntN(3))
	case 2:
		return "nullif(" + g.text(depth-1) + ", " + g.text(depth-1) + ")"
	}
	return "(" + g.text(depth-1) + " || " + g.text(depth-1) + ")"
}

func (g exprGen) bool(depth int) string {
	if depth == 0 {
		return []string{"t", "true", "false", "CAST(NULL AS BOOLEAN)", "(a IS NULL)"}[g.IntN(5)]
	}
	op := []string{" = ", " <> ", " < ", " <= ", " > ", " >= ", " IS NOT DISTINCT FROM "}[g.IntN(7)]
	switch g.IntN(9) {
	case 7:
		return "(" + g.decimal(depth-1) + op + g.decimal(depth-1) + ")"
	case 0:
		return "(" + g.bool(depth-1) + " AND " + g.bool(depth-1) + ")"
	case 1:
		return "(" + g.bool(depth-1) + " OR " + g.bool(depth-1) + ")"
	case 2:
		return "(NOT " + g.bool(depth-1) + ")"
	case 3:
		return "(" + g.text(depth-1) + op + g.text(depth-1) + ")"
	case 4:
		return "(d" + op + "DATE '2024-01-0" + fmt.Sprint(1+g.IntN(3)) + "')"
	case 5:
		return "(" + g.number(depth-1) + " IN (" + g.number(depth-1) + ", " + g.number(depth-1) + "))"
	case 6:
		return "(s LIKE '%1_')"
	}
	return "(" + g.number(depth-1) + op + g.number(depth-1) + ")"
}

// TestExpressionsAgreeWithDuckDB evaluates random expressions over rows with nulls in Go and in DuckDB.
func TestExpressionsAgreeWithDuckDB(t *testing.T) {
	e, err := Open(Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	ctx := context.Background()
	g := exprGen{testscale.Rand(t)}
	const rows = `(SELECT CASE WHEN i % 5 = 0 THEN NULL ELSE (i % 7) - 3 END::BIGINT AS a, CASE WHEN i % 4 = 0 THEN NULL ELSE (i % 3) - 1 END::INTEGER AS b,
		CASE WHEN i % 6 = 0 THEN NULL ELSE ((i % 9) - 4) / 4 END::DECIMAL(6,2) AS m, CASE WHEN i % 3 = 0 THEN NULL ELSE (i % 2 = 0) END AS t,
		CASE WHEN i % 7 = 0 THEN NULL ELSE (i % 12)::VARCHAR END AS s, CASE WHEN i % 8 = 0 THEN NULL ELSE DATE '2024-01-01' + (i % 4)::INTEGER END AS d FROM range(60) r(i))`
	err = e.with(ctx, func(c *conn) error {
		in, err := c.arrow(ctx, "SELECT * FROM "+rows)
		if err != nil {
			return err
		}
		defer in.Release()
		if !in.Next() {
			return in.Err()
		}
		b := in.RecordBatch()
		b.Retain()
		defer b.Release()
		n, failed := testscale.Count(t, "expressions"), 0
		for range n {
			var sql string
			switch g.IntN(4) {
			case 0:
				sql = g.bool(3)
			case 3:
				sql = g.decimal(3)
			case 1:
				sql = g.number(3)
			default:
				sql = g.text(3)
			}
			tree, err := e.ParseExpression(sql)
			if err != nil {
				return fmt.Errorf("%s: %w", sql, err)
			}
			var want []string
			werr := c.each(ctx, "SELECT CAST(x AS VARCHAR) FROM (SELECT "+sql+" AS x FROM "+rows+")", func(row []any) error {
				want = append(want, fmt.Sprint(row[0]))
				return nil
			})
			got, gerr := evalTexts(tree, b)
			if (werr == nil) != (gerr == nil) {
				// One of the two may see an error in what the other does not look at.
				failed++
				continue
			}
			if werr != nil {
				continue
			}
			for i := range want {
				if trimZeros(got[i]) != trimZeros(want[i]) {
					t.Fatalf("%s: %s, DuckDB has %s\nrow %d of %v", sql, got[i], want[i], i, b.NewSlice(int64(i), int64(i+1)))
				}
			}
		}
		if failed > n/10 {
			t.Errorf("%d of %d expressions failed on one side only", failed, n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// trimZeros makes numbers of different scales look alike.
func trimZeros(s string) string {
	if strings.Contains(s, ".") && strings.Trim(s, "-.0123456789") == "" {
		return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
	}
	return s
}

func evalTexts(e expr.Expr, b arrow.RecordBatch) ([]string, error) {
	p, err := expr.Compile(expr.Cast{Arg: e, Type: arrow.BinaryTypes.String}, expr.Columnar(b.Schema()), expr.Options{})
	if err != nil {
		return nil, err
	}
	out := make([]string, b.NumRows())
	for i := range out {
		v, err := p.Value(b, i)
		if err != nil {
			return nil, err
		}
		out[i] = fmt.Sprint(v)
	}
	return out, nil
}
