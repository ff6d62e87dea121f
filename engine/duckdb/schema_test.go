package duckdb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/schema"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/delta/expr"
	"github.com/cauce-data/cauce/internal/rowjson"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/objstore"
)

func deltaType(t *testing.T, text string) delta.Type {
	t.Helper()
	typ, err := delta.ParseType(text)
	if err != nil {
		t.Fatal(err)
	}
	return typ
}

// shapeSchema is a schema with everything that column mapping must name inside of a file.
func shapeSchema(t *testing.T) *delta.Schema {
	return &delta.Schema{Fields: []delta.Field{
		{Name: "k", Type: delta.Integer, Nullable: true},
		{Name: "part", Type: delta.String, Nullable: true},
		{Name: "v", Type: delta.String, Nullable: true},
		{Name: "s", Type: deltaType(t, "STRUCT<a: INT, b: STRUCT<c: STRING, d: SMALLINT>>"), Nullable: true},
		{Name: "arr", Type: deltaType(t, "ARRAY<STRUCT<x: INT, y: ARRAY<INT>>>"), Nullable: true},
		{Name: "m", Type: deltaType(t, "MAP<STRING, STRUCT<z: INT>>"), Nullable: true},
	}}
}

// genValue makes a random value of a type, in the shape that encoding/json and Arrow agree on.
func genValue(r *rand.Rand, t delta.Type, depth int) any {
	if depth > 0 && r.IntN(5) == 0 {
		return nil
	}
	switch t := t.(type) {
	case *delta.Struct:
		m := map[string]any{}
		for _, f := range t.Fields {
			m[f.Name] = genValue(r, f.Type, depth+1)
		}
		return m
	case *delta.Array:
		l := []any{}
		for range r.IntN(3) {
			l = append(l, genValue(r, t.Element, depth+1))
		}
		return l
	case *delta.Map:
		l := []any{}
		for i := range r.IntN(3) {
			l = append(l, map[string]any{"key": "k" + strconv.Itoa(i), "value": genValue(r, t.Value, depth+1)})
		}
		return l
	}
	switch t {
	case delta.String:
		return []string{"", "a", "b'c", "ñ", strings.Repeat("long ", 10)}[r.IntN(5)]
	case delta.Float, delta.Double:
		return float64(r.IntN(1000)) / 8
	}
	return float64(r.IntN(100))
}

// rowsOf makes Arrow rows of rows in JSON's shape.
func rowsOf(t *testing.T, s *delta.Schema, rows []map[string]any) *delta.MemoryRows {
	t.Helper()
	if rows == nil {
		rows = []map[string]any{}
	}
	text, err := json.Marshal(rows)
	if err != nil {
		t.Fatal(err)
	}
	b, _, err := array.RecordFromJSON(memory.DefaultAllocator, s.Arrow(), strings.NewReader(string(text)))
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return delta.NewRows(b.Schema(), b)
}

// lines are rows as sorted text; members of structs come by name, and nulls count as missing.
func lines(rows []map[string]any) []string {
	var strip func(v any) any
	strip = func(v any) any {
		switch v := v.(type) {
		case map[string]any:
			out := map[string]any{}
			for k, e := range v {
				if e = strip(e); e != nil {
					out[k] = e
				}
			}
			return out
		case []any:
			out := make([]any, len(v))
			for i := range v {
				out[i] = strip(v[i])
			}
			return out
		case int, int64:
			return json.Number(fmt.Sprint(v))
		case float64:
			return json.Number(strconv.FormatFloat(v, 'f', -1, 64))
		case json.Number:
			if f, err := v.Float64(); err == nil {
				return json.Number(strconv.FormatFloat(f, 'f', -1, 64))
			}
		}
		return v
	}
	out := make([]string, 0, len(rows))
	for _, r := range rows {
		b, err := json.Marshal(strip(r))
		if err != nil {
			panic(err)
		}
		out = append(out, string(b))
	}
	sort.Strings(out)
	return out
}

// readRows reads a snapshot with a reader, each map as a list of entries as rowsOf has it.
func readRows(t *testing.T, tab *delta.Table, s *delta.Snapshot) []map[string]any {
	t.Helper()
	var out []map[string]any
	for b, err := range tab.Scan(context.Background(), s, delta.ScanOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, batchRows(t, s.Schema(), b)...)
	}
	return out
}

func batchRows(t *testing.T, s *delta.Schema, b arrow.RecordBatch) []map[string]any {
	t.Helper()
	var out []map[string]any
	for i := range int(b.NumRows()) {
		d := json.NewDecoder(strings.NewReader(string(rowjson.Append(nil, b.Schema(), b, i))))
		d.UseNumber()
		row := map[string]any{}
		if err := d.Decode(&row); err != nil {
			t.Fatal(err)
		}
		for _, f := range s.Fields {
			row[f.Name] = entries(f.Type, row[f.Name])
		}
		out = append(out, row)
	}
	return out
}

// entries turns objects that stand for maps into sorted lists of entries.
func entries(t delta.Type, v any) any {
	switch t := t.(type) {
	case *delta.Struct:
		if m, ok := v.(map[string]any); ok {
			for _, f := range t.Fields {
				m[f.Name] = entries(f.Type, m[f.Name])
			}
		}
	case *delta.Array:
		if l, ok := v.([]any); ok {
			for i := range l {
				l[i] = entries(t.Element, l[i])
			}
		}
	case *delta.Map:
		m, ok := v.(map[string]any)
		if !ok {
			return v
		}
		l := []any{}
		for _, k := range slices.Sorted(maps.Keys(m)) {
			l = append(l, map[string]any{"key": k, "value": entries(t.Value, m[k])})
		}
		return l
	}
	return v
}

// TestWritersOfMappedTablesAgree has both writers write one mapped table, with partitions and nested columns: the same
// names and field ids in the files, the same statistics and partition values, and the same rows for both readers.
func TestWritersOfMappedTablesAgree(t *testing.T) {
	ctx := context.Background()
	e := testEngine(t)
	r := testscale.Rand(t)
	for _, mode := range []string{"name", "id"} {
		for _, part := range []bool{false, true} {
			t.Run(fmt.Sprint(mode, " partitioned ", part), func(t *testing.T) {
				dir := t.TempDir()
				store, err := objstore.NewLocal(dir)
				if err != nil {
					t.Fatal(err)
				}
				o := delta.CreateOptions{Schema: shapeSchema(t), Config: map[string]string{"delta.columnMapping.mode": mode}}
				if part {
					o.PartitionBy = []string{"part"}
				}
				tab, err := delta.Create(ctx, store, "t", o, nil)
				if err != nil {
					t.Fatal(err)
				}
				snap, err := tab.Snapshot(ctx)
				if err != nil {
					t.Fatal(err)
				}
				var rows []map[string]any
				for range 50 {
					rows = append(rows, genValue(r, &delta.Struct{Fields: o.Schema.Fields}, 0).(map[string]any))
				}
				want := lines(emptyPartitionIsNull(rows, part))
				seen := map[string]string{}
				for name, eng := range map[string]delta.Engine{"duckdb": e.Delta(), "go": delta.PureGo()} {
					src := rowsOf(t, o.Schema, rows)
					written, err := eng.FileWriter.Write(ctx, snap.TableInfo(), delta.WriteRequest{Rows: src})
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					var files []delta.File
					var told []string
					for _, w := range written {
						files = append(files, delta.File{Add: &delta.Add{Path: w.Path, PartitionValues: w.PartitionValues, Size: w.Size, Stats: w.Stats.JSON()}, Key: w.Key})
						pv, err := json.Marshal(w.PartitionValues)
						if err != nil {
							t.Fatal(err)
						}
						for _, f := range snap.Schema().Fields[4:] {
							delete(w.Stats.NullCount, f.PhysicalName()) // DuckDB does not count the nulls of lists and maps
						}
						told = append(told, fmt.Sprintln(string(pv), w.Stats.JSON(), footer(t, filepath.Join(dir, w.Key))))
					}
					sort.Strings(told)
					seen[name] = strings.Join(told, "")
					for reader, re := range map[string]delta.Engine{"duckdb": e.Delta(), "go": delta.PureGo()} {
						var got []map[string]any
						for b, err := range re.Reader.Read(ctx, snap.TableInfo(), files, delta.ReadOptions{}) {
							if err != nil {
								t.Fatalf("written by %s, read by %s: %v", name, reader, err)
							}
							got = append(got, batchRows(t, snap.Schema(), b)...)
						}
						if g := lines(got); !slices.Equal(g, want) {
							t.Fatalf("written by %s, read by %s:\n%s\nnot\n%s", name, reader, strings.Join(g, "\n"), strings.Join(want, "\n"))
						}
					}
				}
				if seen["go"] != seen["duckdb"] {
					t.Errorf("Go writes\n%s\nDuckDB writes\n%s", seen["go"], seen["duckdb"])
				}
			})
		}
	}
}

// emptyPartitionIsNull is what partition values make of the empty string.
func emptyPartitionIsNull(rows []map[string]any, part bool) []map[string]any {
	var out []map[string]any
	for _, r := range rows {
		r = maps.Clone(r)
		if part && r["part"] == "" {
			r["part"] = nil
		}
		out = append(out, r)
	}
	return out
}

// footer lists the columns of a Parquet file with their ids.
func footer(t *testing.T, path string) string {
	t.Helper()
	f, err := file.OpenParquetFile(path, false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []string
	var walk func(n schema.Node, at string)
	walk = func(n schema.Node, at string) {
		if n.FieldID() > 0 {
			out = append(out, fmt.Sprintf("%s=%d", at, n.FieldID()))
		}
		if g, ok := n.(*schema.GroupNode); ok {
			for i := range g.NumFields() {
				walk(g.Field(i), at+"/"+g.Field(i).Name())
			}
		}
	}
	walk(f.MetaData().Schema.Root(), "")
	return strings.Join(out, " ")
}

// shaped is a table under test with a model of what it should hold.
type shaped struct {
	*testing.T
	r      *rand.Rand
	tables []*delta.Table // one for each engine; any of them may write
	fields []delta.Field
	rows   []map[string]any
	next   int
	past   []shapedState
}

type shapedState struct {
	version delta.Version
	fields  []delta.Field
	rows    []map[string]any
}

func deepRows(rows []map[string]any) []map[string]any {
	text, _ := json.Marshal(rows)
	var out []map[string]any
	_ = json.Unmarshal(text, &out)
	return out
}

// paths lists the columns and members of structs.
func (x *shaped) paths() [][]string {
	var out [][]string
	var walk func(t delta.Type, at []string)
	walk = func(t delta.Type, at []string) {
		switch t := t.(type) {
		case *delta.Struct:
			for _, f := range t.Fields {
				p := append(slices.Clone(at), f.Name)
				out = append(out, p)
				walk(f.Type, p)
			}
		case *delta.Array:
			walk(t.Element, append(slices.Clone(at), "element"))
		case *delta.Map:
			walk(t.Value, append(slices.Clone(at), "value"))
		}
	}
	walk(&delta.Struct{Fields: x.fields}, nil)
	return out
}

// at calls f with every object of the model that holds the last name of a path.
func at(v any, path []string, f func(m map[string]any, name string)) {
	switch v := v.(type) {
	case map[string]any:
		if len(path) == 1 {
			f(v, path[0])
			return
		}
		at(v[path[0]], path[1:], f)
	case []any:
		for _, e := range v {
			if path[0] == "value" {
				at(e.(map[string]any)["value"], path[1:], f)
			} else {
				at(e, path[1:], f)
			}
		}
	}
}

// step does one random thing to a table and to the model.
func (x *shaped) step() string {
	ctx, tab := context.Background(), x.tables[x.r.IntN(len(x.tables))]
	must := func(err error) {
		x.Helper()
		if err != nil {
			x.Fatal(err)
		}
	}
	key := func() string { return x.fields[0].Name }
	edit := func(path []string, f func(m map[string]any, name string)) {
		for _, r := range x.rows {
			at(r, path, f)
		}
	}
	fresh := func() string { x.next++; return "n" + strconv.Itoa(x.next) }
	switch x.r.IntN(13) {
	case 0, 1, 2:
		var more []map[string]any
		for range 1 + x.r.IntN(6) {
			more = append(more, genValue(x.r, &delta.Struct{Fields: x.fields}, 0).(map[string]any))
		}
		_, err := tab.Append(ctx, rowsOf(x.T, &delta.Schema{Fields: x.fields}, more), delta.AppendOptions{})
		must(err)
		x.rows = append(x.rows, more...)
		return "append"
	case 3, 4:
		all := x.paths()
		p := all[x.r.IntN(len(all))]
		name := fresh()
		_, err := tab.RenameColumn(ctx, p, name, delta.AlterOptions{})
		must(err)
		edit(p, func(m map[string]any, old string) {
			if v, ok := m[old]; ok {
				m[name] = v
				delete(m, old)
			}
		})
		return "rename " + strings.Join(p, ".") + " to " + name
	case 5:
		typ := []string{"INT", "STRING", "STRUCT<q: INT, w: STRING>", "SMALLINT", "FLOAT"}[x.r.IntN(5)]
		p := []string{fresh()}
		var structs [][]string
		for _, q := range x.paths() {
			if _, ok := typeAt(&delta.Struct{Fields: x.fields}, q).(*delta.Struct); ok {
				structs = append(structs, q)
			}
		}
		if len(structs) > 0 && x.r.IntN(2) == 0 {
			p = append(slices.Clone(structs[x.r.IntN(len(structs))]), p[0])
		}
		_, err := tab.AddColumns(ctx, []delta.NewColumn{{Path: p, Type: deltaType(x.T, typ), Position: delta.Position{First: len(p) > 1 && x.r.IntN(2) == 0}}}, delta.AlterOptions{})
		must(err)
		return "add " + strings.Join(p, ".") + " " + typ
	case 6:
		all := x.paths()[2:] // key and partition stay
		if len(all) == 0 {
			return "nothing to drop"
		}
		p := all[x.r.IntN(len(all))]
		_, err := tab.DropColumns(ctx, [][]string{p}, delta.DropColumnsOptions{})
		var refused *delta.AlterError
		if errors.As(err, &refused) {
			return "drop refused: " + refused.Class
		}
		must(err)
		edit(p, func(m map[string]any, name string) { delete(m, name) })
		return "drop " + strings.Join(p, ".")
	case 7:
		var narrow [][]string
		wider := map[delta.Type]delta.Type{delta.Byte: delta.Short, delta.Short: delta.Integer, delta.Integer: delta.Long, delta.Float: delta.Double}
		for _, q := range x.paths() {
			if wider[typeAt(&delta.Struct{Fields: x.fields}, q)] != nil {
				narrow = append(narrow, q)
			}
		}
		if len(narrow) == 0 {
			return "nothing to widen"
		}
		p := narrow[x.r.IntN(len(narrow))]
		to := wider[typeAt(&delta.Struct{Fields: x.fields}, p)]
		_, err := tab.ChangeColumn(ctx, p, delta.ColumnChange{Type: to}, delta.AlterOptions{})
		must(err)
		return "widen " + strings.Join(p, ".") + " to " + to.String()
	case 8:
		n := x.r.IntN(100)
		_, err := tab.DeleteWhere(ctx, expr.Call{Func: "<", Args: []expr.Expr{expr.Col(key()), expr.Lit(int64(n))}}, delta.ChangeOptions{CopyOnWrite: x.r.IntN(2) == 0})
		must(err)
		x.rows = slices.DeleteFunc(x.rows, func(r map[string]any) bool { k, ok := r[key()].(float64); return ok && k < float64(n) })
		return fmt.Sprintf("delete %s < %d", key(), n)
	case 9:
		n := x.r.IntN(100)
		_, err := tab.Update(ctx, delta.UpdateOptions{
			ChangeOptions: delta.ChangeOptions{CopyOnWrite: x.r.IntN(2) == 0},
			Where:         expr.Eq(expr.Col(key()), expr.Lit(int64(n))), Set: []delta.Assignment{{Column: x.fields[1].Name, Value: expr.Lit("upd")}},
		})
		must(err)
		for _, r := range x.rows {
			if k, ok := r[key()].(float64); ok && k == float64(n) {
				r[x.fields[1].Name] = "upd"
			}
		}
		return fmt.Sprintf("update where %s = %d", key(), n)
	case 10:
		// The rows' key is of a wider type than the table's may be: schema evolution widens it.
		s := slices.Clone(x.fields)
		s[0].Type = delta.Long
		row := genValue(x.r, &delta.Struct{Fields: s}, 0).(map[string]any)
		k := float64(x.r.IntN(100))
		row[key()] = k
		_, err := tab.Merge(ctx, rowsOf(x.T, &delta.Schema{Fields: s}, []map[string]any{row}), delta.MergeOptions{
			Key: []string{key()}, Order: []delta.OrderTerm{{Column: key()}}, Replace: &delta.Replace{
				Columns: []string{key()}, Rows: rowsOf(x.T, &delta.Schema{Fields: s[:1]}, []map[string]any{{key(): k}}),
			}, Evolve: true,
		})
		must(err)
		x.rows = slices.DeleteFunc(x.rows, func(r map[string]any) bool { return r[key()] == k })
		x.rows = append(x.rows, row)
		return fmt.Sprintf("replace %s = %v", key(), k)
	case 11:
		_, err := tab.Optimize(ctx, delta.OptimizeOptions{})
		must(err)
		return "optimize"
	}
	was := x.past[x.r.IntN(len(x.past))]
	_, err := tab.Restore(ctx, was.version, delta.RestoreOptions{})
	must(err)
	x.rows = deepRows(was.rows)
	return fmt.Sprintf("restore %d", was.version)
}

func typeAt(t delta.Type, path []string) delta.Type {
	if len(path) == 0 {
		return t
	}
	switch t := t.(type) {
	case *delta.Struct:
		for _, f := range t.Fields {
			if f.Name == path[0] {
				return typeAt(f.Type, path[1:])
			}
		}
	case *delta.Array:
		return typeAt(t.Element, path[1:])
	case *delta.Map:
		return typeAt(t.Value, path[1:])
	}
	return nil
}

// TestSchemaChangesKeepRows renames, adds, drops and widens columns of tables, nested ones too, between changes of rows
// by both engines, and compares both readers with a model after each step; so it does with tables that were upgraded to
// column mapping when they had rows.
func TestSchemaChangesKeepRows(t *testing.T) {
	ctx := context.Background()
	r := testscale.Rand(t)
	e := testEngine(t)
	for _, mode := range []string{"name", "id", "upgraded"} {
		t.Run(mode, func(t *testing.T) {
			store, err := objstore.NewLocal(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			config := map[string]string{"delta.columnMapping.mode": mode, "delta.enableTypeWidening": "true", "delta.enableDeletionVectors": "true", "delta.enableChangeDataFeed": "true"}
			if mode == "upgraded" {
				delete(config, "delta.columnMapping.mode")
			}
			s := shapeSchema(t)
			tab, err := delta.Create(ctx, store, "t", delta.CreateOptions{Schema: s, PartitionBy: []string{"part"}, Config: config}, nil)
			if err != nil {
				t.Fatal(err)
			}
			fast, err := delta.Open(ctx, store, "t", &delta.Options{Engine: e.Delta()})
			if err != nil {
				t.Fatal(err)
			}
			x := &shaped{T: t, r: r, tables: []*delta.Table{tab, fast}, fields: s.Fields}
			if mode == "upgraded" {
				for _, tab := range x.tables {
					row := genValue(r, &delta.Struct{Fields: s.Fields}, 0).(map[string]any)
					if _, err := tab.Append(ctx, rowsOf(t, s, []map[string]any{row}), delta.AppendOptions{}); err != nil {
						t.Fatal(err)
					}
					x.rows = append(x.rows, row)
				}
				if _, err := tab.SetProperties(ctx, map[string]string{"delta.columnMapping.mode": "name"}, delta.AlterOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			var did []string
			var last int64
			for range testscale.Turns(t, "schema-steps") {
				snap, err := tab.Snapshot(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if len(x.past) > 3 {
					x.past = x.past[1:]
				}
				x.past = append(x.past, shapedState{snap.Version(), snap.Schema().Fields, deepRows(x.rows)})
				x.rows = deepRows(x.rows)
				did = append(did, x.step())
				for i, tab := range x.tables {
					snap, err := tab.Snapshot(ctx)
					if err != nil {
						t.Fatal(err)
					}
					x.fields = snap.Schema().Fields
					x.rows = emptyPartitionIsNullAt(x.rows, x.fields[1].Name)
					if got, want := lines(readRows(t, tab, snap)), lines(x.rows); !slices.Equal(got, want) {
						t.Fatalf("reader %d after\n%s\nreads\n%s\nnot\n%s", i, strings.Join(did, "\n"), strings.Join(got, "\n"), strings.Join(want, "\n"))
					}
					id, err := strconv.ParseInt(snap.Config("delta.columnMapping.maxColumnId"), 10, 64)
					if err != nil || id < last {
						t.Fatalf("after %s the greatest column id is %d, %v; it was %d", did[len(did)-1], id, err, last)
					}
					last = id
				}
			}
			t.Logf("%d steps", len(did))
		})
	}
}

func emptyPartitionIsNullAt(rows []map[string]any, name string) []map[string]any {
	for _, r := range rows {
		if r[name] == "" {
			r[name] = nil
		}
	}
	return rows
}

// A writer may spell columns in its files in another case than the table. Both readers find them, also when the table has been
// upgraded to column mapping, which makes of the table's names those that columns have in files.
func TestNamesInFilesAreOfAnyCase(t *testing.T) {
	ctx := context.Background()
	e := testEngine(t)
	store, err := objstore.NewLocal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	fields := func(id, s, x string) *delta.Schema {
		return &delta.Schema{Fields: []delta.Field{
			{Name: id, Type: delta.Long, Nullable: true}, {Name: s, Type: &delta.Struct{Fields: []delta.Field{{Name: x, Type: delta.String, Nullable: true}}}, Nullable: true},
		}}
	}
	tab, err := delta.Create(ctx, store, "t", delta.CreateOptions{Schema: fields("id", "s", "x")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	snap, err := tab.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	info := snap.TableInfo()
	info.Schema = fields("ID", "S", "X")
	rows := rowsOf(t, info.Schema, []map[string]any{{"ID": 7, "S": map[string]any{"X": "seven"}}})
	written, err := delta.PureGo().FileWriter.Write(ctx, info, delta.WriteRequest{Rows: rows})
	if err != nil {
		t.Fatal(err)
	}
	x := tab.Begin(snap)
	x.AddFile(&delta.Add{Path: written[0].Path, PartitionValues: map[string]*string{}, Size: written[0].Size, DataChange: true})
	if _, err := x.Commit(ctx, delta.CommitOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"none", "name"} {
		if _, err := tab.SetProperties(ctx, map[string]string{"delta.columnMapping.mode": mode}, delta.AlterOptions{}); err != nil {
			t.Fatal(err)
		}
		for name, o := range map[string]*delta.Options{"go": nil, "duckdb": {Engine: e.Delta()}} {
			reader, err := delta.Open(ctx, store, "t", o)
			if err != nil {
				t.Fatal(err)
			}
			if snap, err = reader.Snapshot(ctx); err != nil {
				t.Fatal(err)
			}
			want := lines([]map[string]any{{"id": 7, "s": map[string]any{"x": "seven"}}})
			if got := lines(readRows(t, reader, snap)); !slices.Equal(got, want) {
				t.Errorf("mode %s: %s reads %s, not %s", mode, name, got, want)
			}
		}
	}
}
