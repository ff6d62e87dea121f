package delta

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/cauce-data/cauce/delta/expr"
	"github.com/cauce-data/cauce/objstore"
)

// knownSQL is an ExpressionParser that knows some texts.
type knownSQL map[string]expr.Expr

func (k knownSQL) ParseExpression(sql string) (expr.Expr, error) {
	if e, ok := k[sql]; ok {
		return e, nil
	}
	return nil, fmt.Errorf("%q is not known to this test", sql)
}

var testSQL = knownSQL{
	"k > 0":         fn(">", expr.Col("k"), expr.Lit(0)),
	"k < 100":       fn("<", expr.Col("K"), expr.Lit(100)),
	"id * 2":        fn("*", expr.Col("id"), expr.Lit(2)),
	"k + 1":         fn("+", expr.Col("k"), expr.Lit(1)),
	"7":             expr.Lit(7),
	"now()":         fn("now"),
	"upper(v)":      fn("upper", expr.Col("v")),
	"nosuch":        expr.Col("nosuch"),
	"v":             expr.Col("v"),
	"id <> 666":     fn("<>", expr.Col("id"), expr.Lit(666)),
	"p IS NOT NULL": fn("is not null", expr.Col("p")),
}

// ruledTable has an invariant, generated columns (one of them the partition) and defaults.
func ruledTable(t *testing.T, config map[string]string) *Table {
	t.Helper()
	meta := func(k, v string) map[string]any { return map[string]any{k: v} }
	s := &Schema{Fields: []Field{
		{Name: "id", Type: Long, Metadata: meta("delta.invariants", `{"expression":{"expression":"id <> 666"}}`)},
		{Name: "k", Type: Integer, Nullable: true, Metadata: meta(metaDefault, "7")},
		{Name: "v", Type: String, Nullable: true},
		{Name: "twice", Type: Long, Metadata: meta(metaGeneration, "id * 2")},
		{Name: "next", Type: Long, Nullable: true, Metadata: meta(metaGeneration, "k + 1")},
		{Name: "made", Type: Timestamp, Nullable: true, Metadata: meta(metaDefault, "now()")},
		{Name: "p", Type: String, Nullable: true, Metadata: meta(metaGeneration, "upper(v)")},
	}}
	all := map[string]string{"delta.constraints.small": "k < 100"}
	for k, v := range config {
		all[k] = v
	}
	tab, err := Create(context.Background(), objstore.NewMemory(time.Now), "t", CreateOptions{Schema: s, PartitionBy: []string{"p"}, Config: all}, &Options{Engine: Engine{Expressions: testSQL}})
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

// withoutMade is the table's text without the time of its rows, which must be there.
func withoutMade(t *testing.T, tab *Table) string {
	t.Helper()
	var out []string
	for _, l := range strings.Split(tableText(t, tab), "\n") {
		f := strings.Split(l, " ")
		if len(f) < 7 {
			continue
		}
		if f[5] == "-" {
			t.Errorf("%s: no time", l)
		}
		out = append(out, strings.Join(append(f[:5], f[len(f)-1]), " "))
	}
	return strings.Join(out, "\n")
}

func TestRulesOnEveryWritePath(t *testing.T) {
	ctx := context.Background()
	bothWays(t, func(t *testing.T, config map[string]string) {
		tab := ruledTable(t, config)
		s, err := tab.Snapshot(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range []string{"checkConstraints", "invariants", "generatedColumns", "allowColumnDefaults"} {
			if p := s.Protocol(); !p.hasWriterFeature(f) {
				t.Errorf("the protocol %+v lacks %s", p, f)
			}
		}
		narrow := arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}, {Name: "v", Type: arrow.BinaryTypes.String, Nullable: true}}, nil)
		withK := arrow.NewSchema(append(narrow.Fields(), arrow.Field{Name: "k", Type: arrow.PrimitiveTypes.Int32, Nullable: true}), nil)
		withTwice := arrow.NewSchema(append(narrow.Fields(), arrow.Field{Name: "twice", Type: arrow.PrimitiveTypes.Int64, Nullable: true}), nil)
		appendRows := func(schema *arrow.Schema, lines ...string) error {
			_, err := tab.Append(ctx, jsonRows(t, schema, lines...), AppendOptions{})
			return err
		}
		expect := func(want string) {
			t.Helper()
			if got := withoutMade(t, tab); got != want {
				t.Errorf("rows\n%s\nwant\n%s", got, want)
			}
		}
		// Defaults and generated columns, one of them about a default.
		if err := errors.Join(appendRows(narrow, `{"id":1,"v":"a"}`), appendRows(withK, `{"id":2,"v":"b","k":5}`), appendRows(withTwice, `{"id":3,"v":"c","twice":6}`)); err != nil {
			t.Fatal(err)
		}
		expect("1 7 a 2 8 A\n2 5 b 4 6 B\n3 7 c 6 8 C")
		// What breaks a rule is refused, on every path; null breaks it too.
		refused := func(err error, rule, name string, row int64) {
			t.Helper()
			var c *ConstraintError
			if !errors.As(err, &c) || !errors.Is(err, ErrConstraint) || c.Rule != rule || c.Name != name || c.Row != row {
				t.Errorf("%v; want %s %s in row %d", err, rule, name, row)
			}
		}
		refused(appendRows(withK, `{"id":4,"v":"d","k":1}`, `{"id":5,"k":100}`), ruleCheck, "small", 1)
		refused(appendRows(withK, `{"id":5}`), ruleCheck, "small", 0) // k is given, and null
		refused(appendRows(withTwice, `{"id":5,"twice":11}`), ruleGenerated, "twice", 0)
		refused(appendRows(narrow, `{"id":666}`), ruleInvariant, "id", 0)
		_, err = tab.Overwrite(ctx, jsonRows(t, withK, `{"id":5,"k":100}`), OverwriteOptions{})
		refused(err, ruleCheck, "small", 0)
		_, err = tab.Merge(ctx, jsonRows(t, withK, `{"id":5,"k":100}`), MergeOptions{Key: []string{"id"}})
		refused(err, ruleCheck, "small", 0)
		_, err = tab.Update(ctx, UpdateOptions{Set: []Assignment{{"k", fn("+", expr.Col("k"), expr.Lit(94))}}, Where: fn("<", expr.Col("id"), expr.Lit(3))})
		refused(err, ruleCheck, "small", 0)
		_, err = tab.Update(ctx, UpdateOptions{Set: []Assignment{{"twice", expr.Lit(1)}}})
		refused(err, ruleGenerated, "twice", 0)
		on := expr.Eq(expr.Col("target", "id"), expr.Col("source", "id"))
		_, err = tab.MergeInto(ctx, jsonRows(t, withK, `{"id":5,"k":100}`), MergeIntoOptions{On: on, Clauses: []MergeClause{{Kind: WhenNotMatched, Set: []Assignment{{"id", expr.Col("id")}, {"k", expr.Col("k")}}}}})
		refused(err, ruleCheck, "small", 0)
		_, err = tab.ReplaceWhere(ctx, expr.Eq(expr.Col("id"), expr.Lit(5)), jsonRows(t, withK, `{"id":5,"k":100}`), false, ChangeOptions{})
		refused(err, ruleCheck, "small", 0)
		expect("1 7 a 2 8 A\n2 5 b 4 6 B\n3 7 c 6 8 C")
		// Changes compute generated columns anew; inserts get defaults; rows move with their partition.
		if _, err := tab.Update(ctx, UpdateOptions{Set: []Assignment{{"id", fn("+", expr.Col("id"), expr.Lit(10))}, {"v", expr.Lit("z")}}, Where: expr.Eq(expr.Col("id"), expr.Lit(2))}); err != nil {
			t.Fatal(err)
		}
		if _, err := tab.MergeInto(ctx, jsonRows(t, withK, `{"id":12,"k":1,"v":"q"}`, `{"id":20,"k":2,"v":"w"}`), MergeIntoOptions{On: on, Clauses: []MergeClause{
			{Kind: WhenMatched, Set: []Assignment{{"k", expr.Col("source", "k")}}},
			{Kind: WhenNotMatched, Set: []Assignment{{"id", expr.Col("id")}, {"v", expr.Col("v")}}}}}); err != nil {
			t.Fatal(err)
		}
		expect("1 7 a 2 8 A\n12 1 z 24 2 Z\n20 7 w 40 8 W\n3 7 c 6 8 C")
		if _, err := tab.Merge(ctx, jsonRows(t, withK, `{"id":1,"k":9,"v":"m"}`), MergeOptions{Key: []string{"id"}}); err != nil {
			t.Fatal(err)
		}
		expect("1 9 m 2 10 M\n12 1 z 24 2 Z\n20 7 w 40 8 W\n3 7 c 6 8 C")
	})
}

func TestAddAndDropConstraint(t *testing.T) {
	ctx := context.Background()
	tab := dmlTable(t, nil, []string{`{"id":1,"k":5,"p":"x"}`})
	if _, err := tab.AddConstraint(ctx, "pos", "k > 0"); !errors.Is(err, ErrUnsupported) {
		t.Errorf("without a parser: %v", err)
	}
	tab, err := Open(ctx, tab.Store(), tab.Path(), &Options{Engine: Engine{Expressions: testSQL}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tab.AddConstraint(ctx, "Pos", "k > 0"); err != nil {
		t.Fatal(err)
	}
	if _, err := tab.AddConstraint(ctx, "POS", "k < 100"); !errors.Is(err, ErrProperty) {
		t.Errorf("the same name: %v", err)
	}
	s, err := tab.Snapshot(ctx)
	if err != nil || s.Config("delta.constraints.pos") != "k > 0" || s.Protocol().MinWriterVersion != 3 {
		t.Errorf("%v: %v, %+v", err, s.Metadata().Configuration, s.Protocol())
	}
	if _, err := tab.Append(ctx, jsonRows(t, dmlSource, `{"id":2,"k":0}`), AppendOptions{}); !errors.Is(err, ErrConstraint) {
		t.Errorf("append: %v", err)
	}
	// Without a parser the table is refused by name, and still read.
	blind, err := Open(ctx, tab.Store(), tab.Path(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var u *UnsupportedError
	if _, err := blind.Append(ctx, jsonRows(t, dmlSource, `{"id":2,"k":1}`), AppendOptions{}); !errors.As(err, &u) || u.Names[0] != "checkConstraints" {
		t.Errorf("without a parser: %v", err)
	}
	if got := tableText(t, blind); got != "1 5 - x" {
		t.Errorf("rows %s", got)
	}
	if _, err := tab.DropConstraint(ctx, "nosuch", false); !errors.Is(err, ErrProperty) {
		t.Errorf("drop: %v", err)
	}
	if _, err := tab.DropConstraint(ctx, "nosuch", true); err != nil {
		t.Errorf("drop: %v", err)
	}
	if _, err := tab.DropConstraint(ctx, "POS", false); err != nil {
		t.Fatal(err)
	}
	if _, err := tab.Append(ctx, jsonRows(t, dmlSource, `{"id":2}`), AppendOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := tab.AddConstraint(ctx, "pos", "k > 0"); !errors.Is(err, ErrConstraint) { // null
		t.Errorf("rows that break it: %v", err)
	}
	for _, sql := range []string{"nosuch", "v", "not known"} {
		if _, err := tab.AddConstraint(ctx, "bad", sql); err == nil {
			t.Errorf("%s is taken", sql)
		}
	}
}

func TestReplaceWhere(t *testing.T) {
	ctx := context.Background()
	bothWays(t, func(t *testing.T, config map[string]string) {
		tab := dmlTable(t, config, []string{`{"id":1,"k":10,"p":"x"}`, `{"id":2,"k":20,"p":"x"}`, `{"id":3,"k":30,"p":"y"}`})
		cond := fn(">=", expr.Col("k"), expr.Lit(20))
		res, err := tab.ReplaceWhere(ctx, cond, jsonRows(t, dmlSource, `{"id":9,"k":99,"p":"y"}`), false, ChangeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := tableText(t, tab), "1 10 - x\n9 99 - y"; got != want || res.Deleted != 2 || res.Inserted != 1 {
			t.Errorf("%+v\n%s\nwant\n%s", res, got, want)
		}
		for _, line := range []string{`{"id":9,"k":9,"p":"y"}`, `{"id":9,"p":"y"}`} {
			if _, err := tab.ReplaceWhere(ctx, cond, jsonRows(t, dmlSource, line), false, ChangeOptions{}); !errors.Is(err, ErrOutsideOfPredicate) {
				t.Errorf("%s: %v", line, err)
			}
		}
		h, err := tab.History(ctx, 1)
		if err != nil || h[0].Info.Operation != "WRITE" || h[0].Info.OperationParameters["predicate"] != `["(k >= 20)"]` {
			t.Errorf("%v: %+v", err, h)
		}
	})
}

func TestDynamicPartitionOverwrite(t *testing.T) {
	ctx := context.Background()
	tab := dmlTable(t, nil, []string{`{"id":1,"p":"x"}`, `{"id":2,"p":"y"}`, `{"id":3}`}, []string{`{"id":4,"p":"x"}`})
	before := tableText(t, tab)
	for _, o := range []struct {
		OverwriteOptions
		files int
		rows  int64
	}{{OverwriteOptions{DryRun: true}, 4, 4}, {OverwriteOptions{DryRun: true, Dynamic: true}, 3, 3}, {OverwriteOptions{DryRun: true, Where: Compare{"p", "=", "y"}}, 1, 1}} {
		dry, err := tab.Overwrite(ctx, jsonRows(t, dmlSource, `{"id":8,"p":"x"}`, `{"id":9}`), o.OverwriteOptions)
		if err != nil || dry.Committed || dry.Rows != 2 || dry.FilesRemoved != o.files || dry.RowsRemoved != o.rows || tableText(t, tab) != before {
			t.Errorf("dry run: %+v, %v; want %d rows removed", dry, err, o.rows)
		}
	}
	res, err := tab.Overwrite(ctx, jsonRows(t, dmlSource, `{"id":8,"p":"x"}`, `{"id":9}`), OverwriteOptions{Dynamic: true})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := tableText(t, tab), "2 - - y\n8 - - x\n9 - - -"; got != want || res.FilesRemoved != 3 || res.RowsRemoved != 3 {
		t.Errorf("%+v\n%s\nwant\n%s", res, got, want)
	}
	// No rows replace nothing.
	if _, err := tab.Overwrite(ctx, jsonRows(t, dmlSource), OverwriteOptions{Dynamic: true}); err != nil {
		t.Fatal(err)
	}
	if got := tableText(t, tab); strings.Count(got, "\n") != 2 {
		t.Errorf("rows\n%s", got)
	}
}
