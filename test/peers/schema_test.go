package peers

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/delta/expr"
	"github.com/cauce-data/cauce/engine/duckdb"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/internal/rowjson"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/objstore"
)

// schemaTable is a table whose schema both sides change.
type schemaTable struct {
	*testing.T
	s       *spark
	python  string
	tab     *delta.Table
	path    string
	readers []string // beside Spark
}

func (x *schemaTable) sql() string { return "delta.`" + x.path + "`" }

// rows are the rows as we read them, in JSON's shape.
func (x *schemaTable) rows() (rows []map[string]any, schema *delta.Schema) {
	x.Helper()
	ctx := context.Background()
	snap, err := x.tab.Snapshot(ctx)
	if err != nil {
		x.Fatal(err)
	}
	for b, err := range x.tab.Scan(ctx, snap, delta.ScanOptions{}) {
		if err != nil {
			x.Fatal(err)
		}
		for i := range int(b.NumRows()) {
			row := map[string]any{}
			dec := json.NewDecoder(bytes.NewReader(rowjson.Append(nil, b.Schema(), b, i)))
			dec.UseNumber() // a float64 would not hold every BIGINT
			if err := dec.Decode(&row); err != nil {
				x.Fatal(err)
			}
			rows = append(rows, row)
		}
	}
	return rows, snap.Schema()
}

// textOfRows is rows as sorted JSON without nulls.
func textOfRows(t *testing.T, rows []map[string]any) string {
	t.Helper()
	var strip func(v any) any
	strip = func(v any) any {
		switch v := v.(type) {
		case map[string]any:
			for k, e := range v {
				if v[k] = strip(e); v[k] == nil {
					delete(v, k)
				}
			}
		case []any:
			for i := range v {
				v[i] = strip(v[i])
			}
		}
		return v
	}
	var out []string
	for _, r := range rows {
		b, err := json.Marshal(strip(r))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, string(b))
	}
	sort.Strings(out)
	return strings.Join(out, "\n")
}

// agree has every reader read the table: all columns for Spark, those that are not nested for the others, which
// cannot read a struct in a map that has got a new member.
func (x *schemaTable) agree(when string, rows int) {
	x.Helper()
	ours, schema := x.rows()
	if len(ours) != rows {
		x.Errorf("%s: %d rows, want %d", when, len(ours), rows)
	}
	var flat []string
	for _, f := range schema.Fields {
		switch f.Type.(type) {
		case *delta.Struct, *delta.Array, *delta.Map:
		default:
			flat = append(flat, f.Name)
		}
	}
	var plain []string
	for _, r := range ours {
		var line []string
		for _, c := range flat {
			v := "-"
			if r[c] != nil {
				v = fmt.Sprint(r[c])
			}
			line = append(line, v)
		}
		plain = append(plain, strings.Join(line, "|"))
	}
	sort.Strings(plain)
	want := textOfRows(x.T, ours)
	if got := textOfRows(x.T, x.s.sql("SELECT * FROM "+x.sql())); got != want {
		x.Errorf("%s: Spark reads\n%s\nand Cauce\n%s", when, got, want)
	}
	for _, r := range x.readers {
		if got := x.read(r, flat); !slices.Equal(got, plain) {
			x.Errorf("%s: %s reads\n%s\nand Cauce\n%s", when, r, strings.Join(got, "\n"), strings.Join(plain, "\n"))
		}
	}
	if x.Failed() {
		x.FailNow()
	}
}

// read has a reader of readers.py read some columns.
func (x *schemaTable) read(reader string, columns []string) []string {
	x.Helper()
	cmd, err := json.Marshal(map[string]any{"table": x.path, "version": nil, "columns": columns})
	if err != nil {
		x.Fatal(err)
	}
	run := exec.Command(x.python, "readers.py", reader)
	run.Stdin = bytes.NewReader(append(cmd, '\n'))
	out, err := run.Output()
	var answer struct {
		Rows   []map[string]*string `json:"rows"`
		Failed string               `json:"failed"`
	}
	if err == nil {
		err = json.Unmarshal(out, &answer)
	}
	if err != nil || answer.Failed != "" {
		x.Fatalf("%s: %v: %s%s", reader, err, answer.Failed, tail(out))
	}
	var lines []string
	for _, r := range answer.Rows {
		var line []string
		for _, c := range columns {
			v := "-"
			if r[c] != nil {
				v = *r[c]
			}
			line = append(line, v)
		}
		lines = append(lines, strings.Join(line, "|"))
	}
	sort.Strings(lines)
	return lines
}

func (x *schemaTable) append(rows string) {
	x.Helper()
	_, schema := x.rows()
	b, _, err := array.RecordFromJSON(memory.DefaultAllocator, schema.Arrow(), strings.NewReader(rows))
	if err != nil {
		x.Fatal(err)
	}
	if _, err := x.tab.Append(context.Background(), delta.NewRows(b.Schema(), b), delta.AppendOptions{}); err != nil {
		x.Fatal(err)
	}
}

func (x *schemaTable) must(_ any, err error) {
	x.Helper()
	if err != nil {
		x.Fatal(err)
	}
}

// TestSchemaChangesAgreeWithPeers has tables with column mapping and widened types written by both engines of Cauce, their
// columns renamed, added, dropped and widened, and read by Spark, deltalake and DuckDB; then Spark changes schema and
// rows, and Cauce reads and changes them again. A table of Spark's goes the other way, and features are dropped.
func TestSchemaChangesAgreeWithPeers(t *testing.T) {
	ctx := context.Background()
	python := prereq.Need(t, "venv")
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
	typ, err := delta.ParseType("STRUCT<p: STRING, id: INT, v: STRING, s: STRUCT<a: INT, b: STRING>, l: ARRAY<STRUCT<x: INT, y: STRING>>, m: MAP<STRING, STRUCT<z: INT>>, gone: STRING>")
	if err != nil {
		t.Fatal(err)
	}
	create := func(name string, config map[string]string, eng delta.Engine, readers ...string) *schemaTable {
		tab, err := delta.Create(ctx, store, name, delta.CreateOptions{Schema: &delta.Schema{Fields: typ.(*delta.Struct).Fields}, PartitionBy: []string{"p"}, Config: config}, &delta.Options{Engine: eng})
		if err != nil {
			t.Fatal(err)
		}
		return &schemaTable{t, s, python, tab, filepath.Join(dir, name), readers}
	}
	const vectors, mode, widening = "delta.enableDeletionVectors", "delta.columnMapping.mode", "delta.enableTypeWidening"
	kinds := []struct {
		name    string
		config  map[string]string
		engine  delta.Engine
		readers []string
	}{
		{"named", map[string]string{mode: "name", vectors: "true"}, e.Delta(), []string{"deltalake", "duckdb"}},
		{"ids", map[string]string{mode: "id", widening: "true"}, delta.PureGo(), []string{"duckdb"}},
		{"upgraded", map[string]string{widening: "true", vectors: "true"}, e.Delta(), []string{"duckdb"}}, // the mapping comes later
	}
	if testscale.Current() != testscale.Soak {
		// Spark takes half a minute for each.
		i := testscale.Rand(t).IntN(len(kinds))
		kinds = kinds[i : i+1]
	}
	var tables []*schemaTable
	for _, k := range kinds {
		tables = append(tables, create(k.name, k.config, k.engine, k.readers...))
	}
	widened := func(x *schemaTable) bool { return filepath.Base(x.path) != "named" }
	const first = `[{"id": 1, "v": "a", "p": "x", "s": {"a": 10, "b": "b1"}, "l": [{"x": 1, "y": "y1"}, null], "m": [{"key": "k", "value": {"z": 7}}], "gone": "g"},
		{"id": 2, "v": "b", "p": "y", "s": null, "l": [], "m": null}, {"id": 3, "v": null, "p": null, "s": {"a": null, "b": "b3"}, "l": null, "gone": "h"}]`
	for _, x := range tables {
		x.append(first)
	}
	for _, x := range tables {
		o := delta.AlterOptions{}
		if filepath.Base(x.path) == "upgraded" {
			x.must(x.tab.SetProperties(ctx, map[string]string{mode: "name"}, o))
		}
		x.must(x.tab.RenameColumn(ctx, []string{"v"}, "the value", o))
		x.must(x.tab.RenameColumn(ctx, []string{"s", "a"}, "aa", o))
		x.must(x.tab.RenameColumn(ctx, []string{"l", "element", "y"}, "yy", o))
		x.must(x.tab.RenameColumn(ctx, []string{"p"}, "part", o))
		x.must(x.tab.AddColumns(ctx, []delta.NewColumn{
			{Path: []string{"added"}, Type: delta.Integer, Position: delta.Position{After: "id"}}, {Path: []string{"m", "value", "w"}, Type: delta.String},
		}, o))
		x.must(x.tab.DropColumns(ctx, [][]string{{"gone"}, {"s", "b"}}, delta.DropColumnsOptions{}))
		if widened(x) {
			x.must(x.tab.ChangeColumn(ctx, []string{"id"}, delta.ColumnChange{Type: delta.Long}, o))
			x.must(x.tab.ChangeColumn(ctx, []string{"l", "element", "x"}, delta.ColumnChange{Type: delta.Long}, o))
		}
		x.append(`[{"id": 4, "added": 40, "the value": "d", "part": "x", "s": {"aa": 11}, "l": [{"x": 2, "yy": "n"}], "m": [{"key": "q", "value": {"z": 1, "w": "w"}}]}, {"id": 5, "part": "z"}]`)
		x.must(x.tab.DeleteWhere(ctx, expr.Eq(expr.Col("id"), expr.Lit(int64(2))), delta.ChangeOptions{}))
		x.must(x.tab.Update(ctx, delta.UpdateOptions{Where: expr.Eq(expr.Col("part"), expr.Lit("x")), Set: []delta.Assignment{{Column: "added", Value: expr.Lit(int64(99))}}}))
	}
	t.Logf("Spark %s", s.ready())
	for _, x := range tables {
		x.agree(x.path+" written by Cauce", 4)
	}
	for _, x := range tables {
		s.sql("ALTER TABLE " + x.sql() + " RENAME COLUMN `the value` TO val")
		s.sql("ALTER TABLE " + x.sql() + " ADD COLUMN (fresh STRING)")
		s.sql("ALTER TABLE " + x.sql() + " DROP COLUMN added")
		s.sql("MERGE INTO " + x.sql() + ` t USING (SELECT 1 AS id, 'merged' AS val UNION ALL SELECT 8, 'new') u ON t.id = u.id
			WHEN MATCHED THEN UPDATE SET t.val = u.val, t.fresh = 'f' WHEN NOT MATCHED THEN INSERT (id, val, part) VALUES (u.id, u.val, 'x')`)
		if widened(x) {
			s.sql("ALTER TABLE " + x.sql() + " ALTER COLUMN s.aa TYPE BIGINT")
		}
		s.sql("OPTIMIZE " + x.sql())
		s.do(map[string]string{"op": "checkpoint", "table": x.path})
		x.agree(x.path+" changed by Spark", 5)
		x.append(`[{"id": 9, "val": "last", "part": "y", "s": {"aa": 12}, "fresh": "ours"}]`)
		x.must(x.tab.RenameColumn(ctx, []string{"fresh"}, "stale", delta.AlterOptions{}))
		x.must(x.tab.Optimize(ctx, delta.OptimizeOptions{}))
		x.must(x.tab.Checkpoint(ctx))
		x.agree(x.path+" continued by Cauce", 6)
	}

	// A table of Spark's, clustered, whose columns we change.
	theirs := &schemaTable{t, s, python, nil, filepath.Join(dir, "theirs"), []string{"duckdb"}}
	s.sql("CREATE TABLE " + theirs.sql() + " (id INT, `a name` STRING, n STRUCT<q: INT>) USING delta CLUSTER BY (id) TBLPROPERTIES ('" + mode + "' = 'name', '" + widening + "' = 'true', '" + vectors + "' = 'true')")
	s.sql("INSERT INTO " + theirs.sql() + " VALUES (1, 'one', named_struct('q', 1)), (2, 'two', NULL)")
	if theirs.tab, err = delta.Open(ctx, store, "theirs", &delta.Options{Engine: e.Delta()}); err != nil {
		t.Fatal(err)
	}
	theirs.must(theirs.tab.RenameColumn(ctx, []string{"id"}, "key", delta.AlterOptions{}))
	theirs.must(theirs.tab.ChangeColumn(ctx, []string{"key"}, delta.ColumnChange{Type: delta.Long}, delta.AlterOptions{}))
	theirs.append(`[{"key": 5000000000, "a name": "three", "n": {"q": 3}}]`)
	theirs.must(theirs.tab.Optimize(ctx, delta.OptimizeOptions{}))
	theirs.must(theirs.tab.SetClusterBy(ctx, []string{"a name"}, delta.AlterOptions{}))
	theirs.agree("Spark's table changed by Cauce", 3)
	s.sql("OPTIMIZE " + theirs.sql() + " FULL")
	theirs.agree("and clustered by Spark", 3)

	// Features that are dropped here are gone for Spark, which then goes on.
	for _, x := range tables {
		if filepath.Base(x.path) != "named" {
			continue // mapping by id stays for ever
		}
		x.must(x.tab.SetProperties(ctx, map[string]string{"delta.dropFeatureTruncateHistory.retentionDuration": "interval 0 hours"}, delta.AlterOptions{}))
		features := []string{"deletionVectors", "columnMapping"}
		for _, f := range features {
			x.must(x.tab.DropFeature(ctx, f, delta.DropFeatureOptions{TruncateHistory: true}))
		}
		for _, f := range s.sql("DESCRIBE DETAIL " + x.sql())[0]["tableFeatures"].([]any) {
			if slices.Contains(features, fmt.Sprint(f)) {
				t.Errorf("%s has the feature %v still", x.path, f)
			}
		}
		s.sql("UPDATE " + x.sql() + " SET val = 'after' WHERE id = 9")
		x.agree(x.path+" without its features", 6)
	}
}
