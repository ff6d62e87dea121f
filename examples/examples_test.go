// Package examples_test loads every lake file that ships with Cauce, examples and templates, with the parser that
// users have.
package examples_test

import (
	"context"
	"database/sql"
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	_ "github.com/duckdb/duckdb-go/v2" // its list of words
	"golang.org/x/text/encoding/charmap"

	"github.com/cauce-data/cauce/engine/duckdb"
	"github.com/cauce-data/cauce/pipeline"
)

func parser(t *testing.T) *duckdb.Parser {
	t.Helper()
	p, err := duckdb.NewParser()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func TestExamplesLoad(t *testing.T) {
	files, err := filepath.Glob("*/lake.yaml")
	if err != nil || len(files) < 3 {
		t.Fatalf("examples %v: %v", files, err)
	}
	p := parser(t)
	for _, f := range files {
		l, err := pipeline.Load(f, pipeline.LoadOptions{Parser: p})
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		if len(l.Warnings) > 0 {
			t.Errorf("%v", l.Warnings)
		}
	}
}

func TestTemplatesLoad(t *testing.T) {
	p := parser(t)
	for _, name := range pipeline.Templates() {
		text, err := pipeline.Template(name, "")
		if err != nil {
			t.Fatal(err)
		}
		l, err := pipeline.Parse(filepath.Join(t.TempDir(), "lake.yaml"), []byte(text), pipeline.LoadOptions{Parser: p})
		if err != nil {
			t.Errorf("template %s:\n%v", name, err)
			continue
		}
		if len(l.Warnings) > 0 {
			t.Errorf("template %s: %v", name, l.Warnings)
		}
	}
}

// The examples in docs/expressions.md, which are those of the function list, must be what the engine computes.
func TestFunctionExamples(t *testing.T) {
	p := parser(t)
	e, err := duckdb.Open(duckdb.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for _, f := range pipeline.Functions() {
		for _, x := range f.Examples {
			got, err := evaluate(t, e, p, x.SQL)
			if err != nil {
				t.Errorf("%s: %v", x.SQL, err)
			} else if got != x.Value {
				t.Errorf("%s is %s, want %s", x.SQL, got, x.Value)
			}
		}
	}
}

// evaluate gives the value of an expression as text, as a column of one record would get it.
func evaluate(t *testing.T, e *duckdb.Engine, p pipeline.Parser, expr string) (string, error) {
	t.Helper()
	text := "version: 1\nstorage: .\ntables: {t: {columns: {v: STRING}}}\nsources:\n  s:\n    table: t\n    kind: embedded\n    topic: t\n    fields: {v: " +
		strconv.Quote("CAST("+expr+" AS STRING)") + "}\n"
	l, err := pipeline.Parse("lake.yaml", []byte(text), pipeline.LoadOptions{Parser: p})
	if err != nil {
		return "", err
	}
	plan, err := l.Plan("s")
	if err != nil {
		return "", err
	}
	ctx := context.Background()
	epoch, err := e.NewEpoch(ctx, plan, time.Unix(0, 0))
	if err != nil {
		return "", err
	}
	defer epoch.Close()
	if err := epoch.AddRecords(ctx, []pipeline.Record{{Topic: "t", Offset: 1, Value: []byte(`{}`), Origin: "test"}}); err != nil {
		return "", err
	}
	r, err := epoch.Finish(ctx)
	if err != nil {
		return "", err
	}
	if r.Quarantined == 1 {
		return "fails", nil
	}
	for b, err := range r.Rows.Read(ctx, []string{"v"}, nil) {
		if err != nil {
			return "", err
		}
		if b.Column(0).IsNull(0) {
			return "NULL", nil
		}
		return strings.Clone(b.Column(0).ValueStr(0)), nil // the batch ends with this step
	}
	return "", fmt.Errorf("no row: %+v", r)
}

// A name is written so that the parser reads the same name, whatever word it is.
func TestFormattedNamesParse(t *testing.T) {
	db, err := sql.Open("duckdb", "")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	words, err := db.Query("SELECT keyword_name FROM duckdb_keywords() UNION SELECT unnest(['Order No', 'a\"b', 'ñandú', '1st', 'x''y', 'current_user', 'localtime'])")
	if err != nil {
		t.Fatal(err)
	}
	defer words.Close()
	p := parser(t)
	for words.Next() {
		var w string
		if err := words.Scan(&w); err != nil {
			t.Fatal(err)
		}
		want := pipeline.Name{Name: w}
		text := pipeline.Format(pipeline.Call{Func: "=", Args: []pipeline.Expr{pipeline.Call{Func: "upper", Args: []pipeline.Expr{want}}, pipeline.Literal{Value: "x'y"}}})
		e, err := p.ParseExpr(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := pipeline.Format(e); got != text {
			t.Errorf("%s is read as %s", text, got)
		}
	}
	if err := words.Err(); err != nil {
		t.Fatal(err)
	}
}

// The orders' export must have what its sources need, in the encoding and with the delimiter that they name.
func TestOrdersExportFitsItsSource(t *testing.T) {
	l, err := pipeline.Load("orders/lake.yaml", pipeline.LoadOptions{Parser: parser(t)})
	if err != nil {
		t.Fatal(err)
	}
	for source, file := range map[string]string{"export": "orders_2024-08-21.csv", "customers": "customers.csv"} {
		s := l.Source(source)
		plan, err := l.Plan(source)
		if err != nil {
			t.Fatal(err)
		}
		if !s.Matches("raw/batch/" + file) {
			t.Errorf("source %s does not read %s", source, file)
		}
		b, err := os.ReadFile(filepath.Join("orders", file))
		if err != nil {
			t.Fatal(err)
		}
		utf8, err := charmap.Windows1252.NewDecoder().Bytes(b)
		if err != nil {
			t.Fatal(err)
		}
		r := csv.NewReader(strings.NewReader(string(utf8)))
		r.Comma = s.CSV.Delimiter
		rows, err := r.ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		if !s.CSV.HasHeader(rows[0]) {
			t.Errorf("%s: no header in %v", file, rows[0])
		}
		for _, f := range plan.Required {
			if !slices.Contains(rows[0], f) {
				t.Errorf("%s: no field %s", file, f)
			}
		}
	}
}
