package delta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/cauce-data/cauce/delta/expr"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/objstore"
)

// dmlSchema is a table partitioned by p.
func dmlSchema() *Schema {
	return &Schema{Fields: []Field{
		{Name: "id", Type: Long, Nullable: true}, {Name: "k", Type: Integer, Nullable: true},
		{Name: "v", Type: String, Nullable: true}, {Name: "p", Type: String, Nullable: true},
	}}
}

// jsonRows are rows from JSON, one object a line.
func jsonRows(t testing.TB, schema *arrow.Schema, lines ...string) *MemoryRows {
	t.Helper()
	b, _, err := array.RecordFromJSON(memory.DefaultAllocator, schema, strings.NewReader("["+strings.Join(lines, ",")+"]"))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	return NewRows(schema, b)
}

func dmlTable(t testing.TB, config map[string]string, files ...[]string) *Table {
	t.Helper()
	return dmlTableOf(t, dmlSchema(), config, files...)
}

func dmlTableOf(t testing.TB, schema *Schema, config map[string]string, files ...[]string) *Table {
	t.Helper()
	ctx := context.Background()
	var by []string
	if _, ok := schema.Field("p"); ok {
		by = []string{"p"}
	}
	tab, err := Create(ctx, objstore.NewMemory(time.Now), "t", CreateOptions{Schema: schema, PartitionBy: by, Config: config}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if _, err := tab.Append(ctx, jsonRows(t, schema.Arrow(), f...), AppendOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return tab
}

// tableText is all rows, sorted, one a line, as JSON lists.
func tableText(t testing.TB, tab *Table) string {
	t.Helper()
	s, err := tab.Snapshot(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for b, err := range tab.Scan(context.Background(), s, ScanOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		for i := range int(b.NumRows()) {
			var row []string
			for _, c := range b.Columns() {
				if c.IsNull(i) {
					row = append(row, "-")
				} else {
					row = append(row, strings.Clone(c.ValueStr(i)))
				}
			}
			out = append(out, strings.Join(row, " "))
		}
	}
	sort.Strings(out)
	return strings.Join(out, "\n")
}

func fn(name string, args ...expr.Expr) expr.Expr { return expr.Call{Func: name, Args: args} }

var vectors = map[string]string{"delta.enableDeletionVectors": "true"}

// bothWays runs a test with deletion vectors and with copy on write.
func bothWays(t *testing.T, f func(t *testing.T, config map[string]string)) {
	t.Run("vectors", func(t *testing.T) { f(t, vectors) })
	t.Run("copy-on-write", func(t *testing.T) { f(t, nil) })
}

func TestDeleteWhere(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		where   expr.Expr
		left    string
		deleted int64
		removed int // whole files
	}{
		{fn("=", expr.Col("ID"), expr.Lit(2)), "1 - a x\n3 30 c x\n4 40 d y", 1, 0},
		{fn("=", expr.Col("p"), expr.Lit("x")), "4 40 d y", 3, 2},
		{fn(">", expr.Col("k"), expr.Lit(0)), "1 - a x", 3, 2},
		{expr.Not(fn(">", expr.Col("k"), expr.Lit(20))), "1 - a x\n3 30 c x\n4 40 d y", 1, 0}, // NOT null is null
		{fn("is null", expr.Col("k")), "2 20 b x\n3 30 c x\n4 40 d y", 1, 0},
		{expr.Lit(nil), "1 - a x\n2 20 b x\n3 30 c x\n4 40 d y", 0, 0},
		{fn("=", expr.Col("id"), expr.Lit(99)), "1 - a x\n2 20 b x\n3 30 c x\n4 40 d y", 0, 0},
		{nil, "", 4, 3},
	} {
		bothWays(t, func(t *testing.T, config map[string]string) {
			tab := dmlTable(t, config, []string{`{"id":1,"v":"a","p":"x"}`, `{"id":2,"k":20,"v":"b","p":"x"}`}, []string{`{"id":3,"k":30,"v":"c","p":"x"}`, `{"id":4,"k":40,"v":"d","p":"y"}`})
			before := tableText(t, tab)
			dry, err := tab.DeleteWhere(ctx, c.where, ChangeOptions{DryRun: true})
			if err != nil {
				t.Fatal(err)
			}
			if dry.Committed || tableText(t, tab) != before || dry.Deleted != c.deleted {
				t.Errorf("dry run of %v: %+v", c.where, dry)
			}
			res, err := tab.DeleteWhere(ctx, c.where, ChangeOptions{})
			if err != nil {
				t.Fatalf("%v: %v", c.where, err)
			}
			if got := tableText(t, tab); got != c.left || res.Deleted != c.deleted || res.Committed != (c.deleted > 0) {
				t.Errorf("%v: %+v leaves\n%s\nwant\n%s", c.where, res, got, c.left)
			}
			if config != nil && res.FilesRemoved != c.removed {
				t.Errorf("%v: %d files removed, want %d", c.where, res.FilesRemoved, c.removed)
			}
			h, err := tab.History(ctx, 1)
			if err != nil {
				t.Fatal(err)
			}
			if c.deleted > 0 && (h[0].Info.Operation != "DELETE" || h[0].Info.OperationMetrics["numDeletedRows"] != fmt.Sprint(c.deleted)) {
				t.Errorf("commit: %+v", h[0].Info)
			}
		})
	}
}

func TestTruncate(t *testing.T) {
	ctx := context.Background()
	bothWays(t, func(t *testing.T, config map[string]string) {
		tab := dmlTable(t, config, []string{`{"id":1,"v":"a","p":"x"}`, `{"id":2,"k":20,"v":"b","p":"x"}`}, []string{`{"id":4,"k":40,"v":"d","p":"y"}`})
		if _, err := tab.DeleteWhere(ctx, fn("=", expr.Col("id"), expr.Lit(2)), ChangeOptions{}); err != nil {
			t.Fatal(err)
		}
		before := tableText(t, tab)
		if dry, err := tab.Truncate(ctx, ChangeOptions{DryRun: true}); err != nil || dry.Committed || dry.Deleted != 2 || tableText(t, tab) != before {
			t.Errorf("dry run: %+v, %v", dry, err)
		}
		res, err := tab.Truncate(ctx, ChangeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got := tableText(t, tab); got != "" || res.Deleted != 2 || res.FilesRemoved != 2 || res.FilesAdded != 0 {
			t.Errorf("%+v leaves\n%s", res, got)
		}
		h, err := tab.History(ctx, 1)
		if err != nil {
			t.Fatal(err)
		}
		if m := h[0].Info.OperationMetrics; h[0].Info.Operation != "TRUNCATE" || len(h[0].Info.OperationParameters) != 0 || len(m) != 2 || m["numRemovedFiles"] != "2" || m["executionTimeMs"] == "" {
			t.Errorf("commit: %+v", h[0].Info)
		}
		if again, err := tab.Truncate(ctx, ChangeOptions{}); err != nil || again.Committed {
			t.Errorf("an empty table: %+v, %v", again, err)
		}
	})
}

func TestUpdate(t *testing.T) {
	ctx := context.Background()
	bothWays(t, func(t *testing.T, config map[string]string) {
		tab := dmlTable(t, config, []string{`{"id":1,"k":10,"v":"a","p":"x"}`, `{"id":2,"v":"b","p":"x"}`}, []string{`{"id":3,"k":30,"v":"c","p":"y"}`})
		set := func(where expr.Expr, set ...Assignment) (*ChangeResult, error) {
			return tab.Update(ctx, UpdateOptions{Where: where, Set: set})
		}
		// All values are those before; a row moves to another partition.
		res, err := set(fn("<", expr.Col("id"), expr.Lit(3)), Assignment{"K", fn("+", expr.Col("k"), expr.Lit(1))}, Assignment{"p", expr.Col("v")},
			Assignment{"v", expr.Lit(nil)})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := tableText(t, tab), "1 11 - a\n2 - - b\n3 30 c y"; got != want || res.Updated != 2 {
			t.Errorf("%+v\n%s\nwant\n%s", res, got, want)
		}
		if m := res.Metrics; m["numUpdatedRows"] != "2" || m["numCopiedRows"] != "0" {
			t.Errorf("metrics %v", m)
		}
		before := tableText(t, tab)
		for _, c := range []struct {
			set   []Assignment
			where expr.Expr
			want  error
		}{
			{[]Assignment{{"k", fn("%", expr.Lit(1), fn("-", expr.Col("id"), expr.Lit(3)))}}, nil, expr.ErrValue},
			{[]Assignment{{"k", expr.Lit(int64(1) << 40)}}, nil, expr.ErrValue},
			{[]Assignment{{"k", expr.Lit("1")}}, nil, expr.ErrType},
			{[]Assignment{{"k", expr.Lit(1)}, {"K", expr.Lit(1)}}, nil, expr.ErrType},
			{[]Assignment{{"nosuch", expr.Lit(1)}}, nil, ErrNoSuchColumn},
			{[]Assignment{{"k", expr.Col("nosuch")}}, nil, ErrNoSuchColumn},
			{[]Assignment{{"k", expr.Lit(1)}}, expr.Col("nosuch"), ErrNoSuchColumn},
			{[]Assignment{{"k", expr.Lit(1)}}, expr.Col("id"), expr.ErrType},
			{[]Assignment{{"k", expr.Lit(1)}}, fn("=", fn("/", expr.Lit(1), expr.Lit(0)), expr.Lit(1)), expr.ErrValue},
		} {
			if _, err := set(c.where, c.set...); !errors.Is(err, c.want) {
				t.Errorf("set %v where %v: %v, want %v", c.set, c.where, err, c.want)
			}
		}
		if got := tableText(t, tab); got != before {
			t.Errorf("refused updates changed the table:\n%s", got)
		}
	})
}

func TestAppendOnlyRefusesChanges(t *testing.T) {
	tab := dmlTable(t, map[string]string{"delta.appendOnly": "true"}, []string{`{"id":1,"p":"x"}`})
	if _, err := tab.DeleteWhere(context.Background(), nil, ChangeOptions{}); !errors.Is(err, ErrAppendOnly) {
		t.Errorf("delete: %v", err)
	}
	if _, err := tab.Truncate(context.Background(), ChangeOptions{}); !errors.Is(err, ErrAppendOnly) {
		t.Errorf("truncate: %v", err)
	}
}

var dmlSource = arrow.NewSchema([]arrow.Field{
	{Name: "id", Type: arrow.PrimitiveTypes.Int64, Nullable: true}, {Name: "k", Type: arrow.PrimitiveTypes.Int32, Nullable: true},
	{Name: "v", Type: arrow.BinaryTypes.String, Nullable: true}, {Name: "p", Type: arrow.BinaryTypes.String, Nullable: true},
}, nil)

func TestMergeInto(t *testing.T) {
	ctx := context.Background()
	tcol := func(n string) expr.Expr { return expr.Col("t", n) }
	scol := func(n string) expr.Expr { return expr.Col("s", n) }
	onID := expr.Eq(tcol("id"), scol("id"))
	all := func(k ClauseKind, cond expr.Expr) MergeClause {
		return MergeClause{Kind: k, Condition: cond, All: true}
	}
	stored := [][]string{{`{"id":1,"k":10,"v":"a","p":"x"}`, `{"id":2,"k":20,"v":"b","p":"x"}`}, {`{"id":3,"k":30,"v":"c","p":"y"}`, `{"k":0,"v":"null","p":"y"}`}}
	source := []string{`{"id":2,"k":21,"v":"B","p":"x"}`, `{"id":3,"k":5,"v":"C","p":"y"}`, `{"id":9,"k":90,"v":"new","p":"z"}`, `{"k":1,"v":"nullsrc","p":"z"}`}
	for name, c := range map[string]struct {
		on      expr.Expr
		clauses []MergeClause
		source  []string
		want    string
		counts  string // inserted updated deleted
		err     error
	}{
		"upsert": {onID, []MergeClause{all(WhenMatched, nil), all(WhenNotMatched, nil)}, nil,
			"- 0 null y\n- 1 nullsrc z\n1 10 a x\n2 21 B x\n3 5 C y\n9 90 new z", "2 2 0", nil},
		"null-safe": {expr.NullSafeEq(tcol("id"), scol("id")), []MergeClause{all(WhenMatched, nil)}, nil,
			"- 1 nullsrc z\n1 10 a x\n2 21 B x\n3 5 C y", "0 3 0", nil},
		"clauses in order": {onID, []MergeClause{
			{Kind: WhenMatched, Condition: fn(">", scol("k"), tcol("k")), Set: []Assignment{{"v", fn("||", tcol("v"), scol("v"))}}},
			{Kind: WhenMatched, Condition: fn("<", scol("k"), expr.Lit(10)), Delete: true},
			all(WhenMatched, nil),
			{Kind: WhenNotMatched, Condition: fn("is null", scol("id")), Set: []Assignment{{"id", expr.Lit(-1)}, {"p", expr.Lit("n")}}},
			{Kind: WhenNotMatched, Condition: fn(">", expr.Col("k"), expr.Lit(1000)), Set: []Assignment{{"id", expr.Lit(-2)}}},
			{Kind: WhenNotMatchedBySource, Condition: fn("is null", tcol("id")), Delete: true},
			{Kind: WhenNotMatchedBySource, Set: []Assignment{{"v", expr.Lit("gone")}}},
		}, nil, "-1 - - n\n1 10 gone x\n2 20 bB x", "1 2 2", nil},
		"insert only": {onID, []MergeClause{all(WhenNotMatched, fn("is not null", scol("id")))}, nil,
			"- 0 null y\n1 10 a x\n2 20 b x\n3 30 c y\n9 90 new z", "1 0 0", nil},
		"conditions of each side": {expr.And(onID, expr.Eq(tcol("p"), expr.Lit("x")), fn("<>", scol("v"), expr.Lit("new"))), []MergeClause{all(WhenMatched, nil), {Kind: WhenNotMatched, Set: []Assignment{{"id", scol("id")}}}}, nil,
			"- - - -\n- 0 null y\n1 10 a x\n2 21 B x\n3 - - -\n3 30 c y\n9 - - -", "3 1 0", nil},
		"other keys": {expr.Eq(fn("%", tcol("id"), expr.Lit(2)), fn("-", scol("id"), expr.Lit(9))), []MergeClause{{Kind: WhenMatched, Delete: true}},
			source[2:3], "- 0 null y\n1 10 a x\n3 30 c y", "0 0 1", nil},
		"no keys": {fn(">", scol("k"), fn("+", tcol("k"), expr.Lit(60))), []MergeClause{{Kind: WhenMatched, Set: []Assignment{{"k", scol("k")}}}}, source[2:3],
			"- 90 null y\n1 90 a x\n2 90 b x\n3 30 c y", "0 3 0", nil},
		"two source rows":              {onID, []MergeClause{all(WhenMatched, nil)}, append(source[:1:1], source[0]), "", "", ErrMultipleSourceRows},
		"two source rows, delete":      {onID, []MergeClause{{Kind: WhenMatched, Delete: true}}, append(source[:1:1], source[0]), "- 0 null y\n1 10 a x\n3 30 c y", "0 0 1", nil},
		"two source rows, cond delete": {onID, []MergeClause{{Kind: WhenMatched, Condition: expr.Lit(true), Delete: true}}, append(source[:1:1], source[0]), "", "", ErrMultipleSourceRows},
		"two source rows, one acts": {onID, []MergeClause{all(WhenMatched, fn("=", scol("v"), expr.Lit("B")))}, append(source[:1:1], `{"id":2,"v":"no"}`),
			"- 0 null y\n1 10 a x\n2 21 B x\n3 30 c y", "0 1 0", nil},
		"two source rows insert": {onID, []MergeClause{all(WhenNotMatched, nil)}, append(source[2:3:3], source[2]),
			"- 0 null y\n1 10 a x\n2 20 b x\n3 30 c y\n9 90 new z\n9 90 new z", "2 0 0", nil},
		"empty source": {onID, []MergeClause{all(WhenMatched, nil), {Kind: WhenNotMatchedBySource, Condition: fn("=", expr.Col("p"), expr.Lit("x")), Delete: true}}, []string{},
			"- 0 null y\n3 30 c y", "0 0 2", nil},
		"insert cannot see the table": {onID, []MergeClause{{Kind: WhenNotMatched, Set: []Assignment{{"id", tcol("id")}}}}, nil, "", "", ErrNoSuchColumn},
		"ambiguous name":              {onID, []MergeClause{{Kind: WhenMatched, Set: []Assignment{{"k", expr.Col("k")}}}}, nil, "", "", expr.ErrType},
		"dead clause":                 {onID, []MergeClause{all(WhenMatched, nil), {Kind: WhenMatched, Delete: true}}, nil, "", "", expr.ErrType},
		"no clause":                   {onID, nil, nil, "", "", expr.ErrType},
		"update all by source":        {onID, []MergeClause{all(WhenNotMatchedBySource, nil)}, nil, "", "", expr.ErrType},
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, config map[string]string) {
				tab := dmlTable(t, config, stored...)
				before := tableText(t, tab)
				src := c.source
				if src == nil {
					src = source
				}
				rows := jsonRows(t, dmlSource, src...)
				defer rows.Close()
				res, err := tab.MergeInto(ctx, rows, MergeIntoOptions{On: c.on, TargetAlias: "t", SourceAlias: "S", Clauses: c.clauses})
				if c.err != nil {
					if !errors.Is(err, c.err) || tableText(t, tab) != before {
						t.Errorf("%+v, %v; want %v and nothing changed", res, err, c.err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if got := tableText(t, tab); got != c.want {
					t.Errorf("%+v\n%s\nwant\n%s", res, got, c.want)
				}
				if got := fmt.Sprint(res.Inserted, res.Updated, res.Deleted); got != c.counts {
					t.Errorf("inserted, updated, deleted: %s, want %s", got, c.counts)
				}
			})
		})
	}
}

// The error says which key and which two source rows.
func TestMergeIntoNamesTheRows(t *testing.T) {
	tab := dmlTable(t, vectors, []string{`{"id":2,"k":20,"v":"b","p":"x"}`})
	rows := jsonRows(t, dmlSource, `{"id":7}`, `{"id":2,"v":"first"}`, `{"id":2,"v":"second"}`)
	defer rows.Close()
	_, err := tab.MergeInto(context.Background(), rows, MergeIntoOptions{On: expr.Eq(expr.Col("target", "id"), expr.Col("source", "id")), Clauses: []MergeClause{{Kind: WhenMatched, All: true}}})
	var m *MultipleSourceRowsError
	if !errors.As(err, &m) || m.Key != "id = 2" || m.Source != [2]int64{1, 2} || !strings.Contains(m.Rows[0], "first") || !strings.Contains(m.Rows[1], "second") {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestMergeIntoEvolvesTheSchema(t *testing.T) {
	ctx := context.Background()
	wide := arrow.NewSchema([]arrow.Field{{Name: "ID", Type: arrow.PrimitiveTypes.Int64, Nullable: true}, {Name: "v", Type: arrow.BinaryTypes.String, Nullable: true},
		{Name: "extra", Type: arrow.PrimitiveTypes.Float64, Nullable: true}, {Name: "unused", Type: arrow.PrimitiveTypes.Float64, Nullable: true}}, nil)
	lines := []string{`{"ID":1,"v":"A","extra":0.5}`, `{"ID":5,"v":"E","extra":1.5}`}
	on := expr.Eq(expr.Col("target", "id"), expr.Col("source", "id"))
	star := []MergeClause{{Kind: WhenMatched, All: true}, {Kind: WhenNotMatched, All: true}}
	merge := func(t *testing.T, config map[string]string, evolve bool, clauses []MergeClause) (*Table, error) {
		tab := dmlTable(t, config, []string{`{"id":1,"k":10,"v":"a","p":"x"}`, `{"id":2,"k":20,"v":"b","p":"x"}`})
		rows := jsonRows(t, wide, lines...)
		defer rows.Close()
		_, err := tab.MergeInto(ctx, rows, MergeIntoOptions{On: on, Clauses: clauses, SchemaEvolution: evolve})
		return tab, err
	}
	bothWays(t, func(t *testing.T, config map[string]string) {
		tab, err := merge(t, config, true, star)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := tableText(t, tab), "1 10 A x 0.5 -\n2 20 b x - -\n5 - E - 1.5 -"; got != want {
			t.Errorf("\n%s\nwant\n%s", got, want)
		}
		// An explicit assignment adds its own column only.
		tab, err = merge(t, config, true, []MergeClause{{Kind: WhenMatched, Set: []Assignment{{"extra", expr.Col("source", "extra")}}}})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := tableText(t, tab), "1 10 a x 0.5\n2 20 b x -"; got != want {
			t.Errorf("\n%s\nwant\n%s", got, want)
		}
	})
	if _, err := merge(t, vectors, false, star); !errors.Is(err, ErrNoSuchColumn) {
		t.Errorf("without evolution: %v", err)
	}
	if _, err := merge(t, vectors, true, []MergeClause{{Kind: WhenMatched, Set: []Assignment{{"extra2", expr.Lit(1)}}}}); !errors.Is(err, ErrNoSuchColumn) {
		t.Errorf("a new column from nothing: %v", err)
	}
}

// Statements that meet other commits are planned anew, and what comes out is what one after the other gives.
func TestChangesRace(t *testing.T) {
	ctx := context.Background()
	bothWays(t, func(t *testing.T, config map[string]string) {
		tab := dmlTable(t, config)
		var first []string
		for i := range 40 {
			first = append(first, fmt.Sprintf(`{"id":%d,"k":0,"p":"x"}`, i))
		}
		if _, err := tab.Append(ctx, jsonRows(t, dmlSource, first...), AppendOptions{}); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		errs := make(chan error, 10)
		run := func(f func() error) {
			wg.Add(1)
			go func() { defer wg.Done(); errs <- f() }()
		}
		open := func() *Table {
			o, err := Open(ctx, tab.Store(), tab.Path(), &Options{MaxTries: 100})
			if err != nil {
				t.Fatal(err)
			}
			return o
		}
		for range 2 {
			w := open()
			run(func() error {
				for range 3 {
					if _, err := w.Update(ctx, UpdateOptions{Set: []Assignment{{"k", fn("+", expr.Col("k"), expr.Lit(1))}}}); err != nil {
						return err
					}
				}
				return nil
			})
		}
		d := open()
		run(func() error {
			for i := range 4 {
				if _, err := d.DeleteWhere(ctx, expr.Eq(expr.Col("id"), expr.Lit(i)), ChangeOptions{}); err != nil {
					return err
				}
			}
			return nil
		})
		o := open()
		run(func() error {
			_, err := o.Optimize(ctx, OptimizeOptions{})
			return err
		})
		wg.Wait()
		close(errs)
		for err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
		var want []string
		for i := 4; i < 40; i++ {
			want = append(want, fmt.Sprintf("%d 6 - x", i))
		}
		sort.Strings(want)
		if got := tableText(t, tab); got != strings.Join(want, "\n") {
			t.Errorf("rows:\n%s", got)
		}
	})
}

// dmlRow is a row of the model.
type dmlRow struct {
	id, k *int64
	v     string
}

func (r dmlRow) json() string {
	m := map[string]any{"v": r.v, "p": r.v[:1]}
	if r.id != nil {
		m["id"] = *r.id
	}
	if r.k != nil {
		m["k"] = *r.k
	}
	b, _ := json.Marshal(m)
	return string(b)
}

func (r dmlRow) text() string {
	f := func(p *int64) string {
		if p == nil {
			return "-"
		}
		return fmt.Sprint(*p)
	}
	return f(r.id) + " " + f(r.k) + " " + r.v + " " + r.v[:1]
}

// TestChangesAgainstModel runs random statements on a table and on a list.
func TestChangesAgainstModel(t *testing.T) {
	ctx := context.Background()
	bothWays(t, func(t *testing.T, config map[string]string) {
		g := testscale.Rand(t)
		num := func(n int) *int64 {
			if g.IntN(6) == 0 {
				return nil
			}
			v := int64(g.IntN(n))
			return &v
		}
		row := func() dmlRow { return dmlRow{num(30), num(9), string("xyz"[g.IntN(3)]) + fmt.Sprint(g.IntN(5))} }
		var model []dmlRow
		tab := dmlTable(t, withFeed(config))
		told := Version(0)
		col := func(side, n string) expr.Expr { return expr.Col(side, n) }
		// is is a condition k <op> n or p = c on one side, in both worlds.
		is := func(side string) (expr.Expr, func(dmlRow) bool) {
			n, c := int64(g.IntN(9)), "xyz"[g.IntN(3)]
			name := func(n string) expr.Expr {
				if side == "" {
					return expr.Col(n)
				}
				return col(side, n)
			}
			switch g.IntN(4) {
			case 0:
				return fn("<", name("k"), expr.Lit(int64(n))), func(r dmlRow) bool { return r.k != nil && *r.k < n }
			case 1:
				return expr.Not(fn("=", name("k"), expr.Lit(int64(n)))), func(r dmlRow) bool { return r.k != nil && *r.k != n }
			case 2:
				return fn("=", name("p"), expr.Lit(string(c))), func(r dmlRow) bool { return r.v[0] == c }
			}
			return expr.Or(fn("is null", name("k")), fn("=", name("id"), expr.Lit(int64(n)))), func(r dmlRow) bool { return r.k == nil || r.id != nil && *r.id == n }
		}
		for step := range testscale.Count(t, "dml-steps") {
			var what string
			var err error
			switch g.IntN(5) {
			case 0:
				var lines []string
				for range 1 + g.IntN(12) {
					r := row()
					model, lines = append(model, r), append(lines, r.json())
				}
				what = "append"
				rows := jsonRows(t, dmlSource, lines...)
				_, err = tab.Append(ctx, rows, AppendOptions{})
				rows.Close()
			case 1:
				cond, f := is("")
				var left []dmlRow
				for _, r := range model {
					if !f(r) {
						left = append(left, r)
					}
				}
				what = fmt.Sprintf("delete where %v", cond)
				var res *ChangeResult
				if res, err = tab.DeleteWhere(ctx, cond, ChangeOptions{}); err == nil && int(res.Deleted) != len(model)-len(left) {
					t.Fatalf("step %d: %s: %d deleted, want %d", step, what, res.Deleted, len(model)-len(left))
				}
				model = left
			case 2:
				cond, f := is("")
				for i, r := range model {
					if f(r) {
						model[i].v = "y" + r.v
						if r.k != nil {
							k := (*r.k + 1) % 9
							model[i].k = &k
						}
						if len(model[i].v) > 8 {
							model[i].v = "y"
						}
					}
				}
				what = fmt.Sprintf("update where %v", cond)
				v := fn("||", expr.Lit("y"), expr.Col("v"))
				v = expr.Case{Whens: []expr.When{{Cond: fn(">", fn("length", v), expr.Lit(8)), Then: expr.Lit("y")}}, Else: v}
				_, err = tab.Update(ctx, UpdateOptions{Where: cond, Set: []Assignment{{"v", v}, {"p", expr.Lit("y")}, {"k", fn("%", fn("+", expr.Col("k"), expr.Lit(1)), expr.Lit(9))}}})
			default:
				model, what, err = mergeStep(t, tab, model, row, is, g.IntN)
			}
			if err != nil {
				t.Fatalf("step %d: %s: %v", step, what, err)
			}
			want := make([]string, len(model))
			for i, r := range model {
				want[i] = r.text()
			}
			sort.Strings(want)
			if got := tableText(t, tab); got != strings.Join(want, "\n") {
				t.Fatalf("step %d: %s\n%s\nwant\n%s", step, what, got, strings.Join(want, "\n"))
			}
			s, err := tab.Snapshot(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if s.Version() > told {
				told = s.Version()
				checkFeed(t, tab, told)
			}
		}
	})
}

// mergeStep is a random MERGE in both worlds.
func mergeStep(t *testing.T, tab *Table, model []dmlRow, row func() dmlRow, is func(string) (expr.Expr, func(dmlRow) bool), intn func(int) int) ([]dmlRow, string, error) {
	var source []dmlRow
	var lines []string
	seen := map[int64]bool{}
	for range intn(12) {
		r := row()
		if r.id != nil && seen[*r.id] && intn(8) > 0 {
			continue // mostly unique
		}
		if r.id != nil {
			seen[*r.id] = true
		}
		source, lines = append(source, r), append(lines, r.json())
	}
	on := expr.Eq(expr.Col("target", "id"), expr.Col("source", "id"))
	matches := func(t, s dmlRow) bool { return t.id != nil && s.id != nil && *t.id == *s.id }
	switch intn(4) {
	case 0:
		c, f := is("target")
		on = expr.And(on, c)
		inner := matches
		matches = func(t, s dmlRow) bool { return inner(t, s) && f(t) }
	case 1: // by an expression, which no index finds
		on = expr.Eq(fn("+", expr.Col("target", "id"), expr.Lit(0)), expr.Col("source", "id"))
	}
	type clause struct {
		cond func(t, s dmlRow) bool
		kind ClauseKind
		del  bool
		act  func(t, s dmlRow) dmlRow
	}
	var clauses []clause
	o := MergeIntoOptions{On: on}
	add := func(kind ClauseKind, side string) {
		for n := intn(3); n > 0; n-- {
			mc := MergeClause{Kind: kind}
			c := clause{kind: kind, cond: func(_, _ dmlRow) bool { return true }}
			if n > 1 || intn(2) == 0 {
				var f func(dmlRow) bool
				mc.Condition, f = is(side)
				c.cond = func(t, s dmlRow) bool {
					if side == "source" {
						return f(s)
					}
					return f(t)
				}
			}
			switch {
			case kind != WhenNotMatched && intn(3) == 0:
				mc.Delete, c.del = true, true
			case kind != WhenNotMatchedBySource && intn(2) == 0:
				mc.All = true
				c.act = func(_, s dmlRow) dmlRow { return s }
			case kind == WhenNotMatched:
				mc.Set = []Assignment{{"v", expr.Lit("z!")}, {"p", expr.Lit("z")}, {"id", expr.Col("id")}}
				c.act = func(_, s dmlRow) dmlRow { return dmlRow{id: s.id, v: "z!"} }
			case kind == WhenMatched:
				mc.Set = []Assignment{{"v", expr.Col("source", "v")}, {"p", expr.Col("source", "p")}}
				c.act = func(t, s dmlRow) dmlRow { return dmlRow{t.id, t.k, s.v} }
			default:
				mc.Set = []Assignment{{"k", expr.Col("id")}}
				c.act = func(t, _ dmlRow) dmlRow { return dmlRow{t.id, t.id, t.v} }
			}
			clauses, o.Clauses = append(clauses, c), append(o.Clauses, mc)
		}
	}
	add(WhenMatched, []string{"target", "source"}[intn(2)])
	add(WhenNotMatched, "source")
	add(WhenNotMatchedBySource, "target")
	if len(clauses) == 0 {
		return model, "", nil
	}
	first := func(kind ClauseKind, t, s dmlRow) *clause {
		for i, c := range clauses {
			if c.kind == kind && c.cond(t, s) {
				return &clauses[i]
			}
		}
		return nil
	}
	onlyDelete, n := false, 0
	for i, c := range clauses {
		if c.kind == WhenMatched {
			n++
			onlyDelete = n == 1 && c.del && o.Clauses[i].Condition == nil
		}
	}
	ambiguous := false
	var out []dmlRow
	used := make([]bool, len(source))
	for _, r := range model {
		hit, acts := false, []dmlRow(nil)
		var c *clause
		for i, s := range source {
			if !matches(r, s) {
				continue
			}
			hit, used[i] = true, true
			if x := first(WhenMatched, r, s); x != nil {
				c, acts = x, append(acts, s)
			}
		}
		switch {
		case len(acts) > 1 && !onlyDelete:
			ambiguous = true
		case len(acts) > 0 && c.del:
			continue
		case len(acts) > 0:
			r = c.act(r, acts[0])
		case !hit:
			if x := first(WhenNotMatchedBySource, r, dmlRow{}); x != nil {
				if x.del {
					continue
				}
				r = x.act(r, dmlRow{})
			}
		}
		out = append(out, r)
	}
	for i, s := range source {
		if x := first(WhenNotMatched, dmlRow{}, s); x != nil && !used[i] {
			out = append(out, x.act(dmlRow{}, s))
		}
	}
	rows := jsonRows(t, dmlSource, lines...)
	defer rows.Close()
	_, err := tab.MergeInto(context.Background(), rows, o)
	what := fmt.Sprintf("merge of %v on %v, clauses %+v", lines, on, o.Clauses)
	if ambiguous {
		if !errors.Is(err, ErrMultipleSourceRows) {
			return nil, what, fmt.Errorf("%w; want ErrMultipleSourceRows", err)
		}
		return model, what, nil
	}
	return out, what, err
}
