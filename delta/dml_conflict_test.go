package delta

import (
	"context"
	"errors"
	"testing"

	"github.com/cauce-data/cauce/delta/expr"
)

// TestChangesFollowConflictRules lets another writer commit right before a statement does, and looks at whether it was
// planned anew and what came out: by Spark's rules at both levels of isolation.
func TestChangesFollowConflictRules(t *testing.T) {
	ctx := context.Background()
	kIs := func(n int) expr.Expr { return expr.Eq(expr.Col("k"), expr.Lit(n)) }
	appendRow := func(line string) func(*testing.T, *Table) {
		return func(t *testing.T, other *Table) {
			rows := jsonRows(t, dmlSource, line)
			defer rows.Close()
			if _, err := other.Append(ctx, rows, AppendOptions{}); err != nil {
				t.Error(err)
			}
		}
	}
	del := func(cond expr.Expr) func(*testing.T, *Table) {
		return func(t *testing.T, other *Table) {
			if _, err := other.DeleteWhere(ctx, cond, ChangeOptions{}); err != nil {
				t.Error(err)
			}
		}
	}
	const before = "1 10 a x\n2 20 b x\n3 30 c y"
	for _, c := range []struct {
		name      string
		meanwhile func(*testing.T, *Table)
		serial    string // rows and replans of UPDATE … SET v = 'U' WHERE k = 20 at Serializable
		replans   int    // with deletion vectors none where moved is set: the plan is moved to the newer version
		moved     bool
		weak      string // at WriteSerializable; "": the same
	}{
		{"an append that may match", appendRow(`{"id":9,"k":20,"v":"n","p":"x"}`), "1 10 a x\n2 20 U x\n3 30 c y\n9 20 U x", 1, true, "1 10 a x\n2 20 U x\n3 30 c y\n9 20 n x"},
		{"an append that cannot match", appendRow(`{"id":9,"k":99,"v":"n","p":"x"}`), "1 10 a x\n2 20 U x\n3 30 c y\n9 99 n x", 0, false, ""},
		{"a delete in another file", del(kIs(30)), "1 10 a x\n2 20 U x", 0, false, ""},
		{"a delete in the same file", del(kIs(10)), "2 20 U x\n3 30 c y", 1, true, ""},
		{"a delete of the same row", del(kIs(20)), "1 10 a x\n3 30 c y", 1, false, ""},
		{"a new constraint", func(t *testing.T, other *Table) {
			if _, err := other.AddConstraint(ctx, "small", "k < 100"); err != nil {
				t.Error(err)
			}
		}, "1 10 a x\n2 20 U x\n3 30 c y", 1, false, ""},
		{"files packed", func(t *testing.T, other *Table) {
			appendRow(`{"id":8,"k":80,"v":"h","p":"x"}`)(t, other)
			if _, err := other.Optimize(ctx, OptimizeOptions{}); err != nil {
				t.Error(err)
			}
		}, "1 10 a x\n2 20 U x\n3 30 c y\n8 80 h x", 1, false, ""},
	} {
		for _, level := range []string{isolationSerializable, isolationWriteSerializable} {
			t.Run(c.name+"/"+level, func(t *testing.T) {
				bothWays(t, func(t *testing.T, config map[string]string) {
					made := dmlTable(t, config, []string{`{"id":1,"k":10,"v":"a","p":"x"}`, `{"id":2,"k":20,"v":"b","p":"x"}`}, []string{`{"id":3,"k":30,"v":"c","p":"y"}`})
					if got := tableText(t, made); got != before {
						t.Fatal(got)
					}
					open := func() *Table {
						tab, err := Open(ctx, made.Store(), made.Path(), &Options{Isolation: level, Engine: Engine{Expressions: testSQL}})
						if err != nil {
							t.Fatal(err)
						}
						return tab
					}
					tab, other, done := open(), open(), false
					o := UpdateOptions{Where: kIs(20), Set: []Assignment{{"v", expr.Lit("U")}}}
					o.Hook = func(phase string) {
						if phase == "before-commit" && !done {
							done = true
							c.meanwhile(t, other)
						}
					}
					res, err := tab.Update(ctx, o)
					if err != nil {
						t.Fatal(err)
					}
					want, replans := c.serial, c.replans
					if config != nil && c.moved {
						replans = 0
					}
					if level == isolationWriteSerializable && c.weak != "" {
						want, replans = c.weak, 0
					}
					if got := tableText(t, tab); got != want || res.Replans != replans {
						t.Errorf("planned anew %d times, want %d; rows\n%s\nwant\n%s", res.Replans, replans, got, want)
					}
				})
			})
		}
	}
}

// A MERGE is about the keys of its source: rows of other keys that come meanwhile do not disturb it.
func TestMergeIntoReadsItsKeys(t *testing.T) {
	ctx := context.Background()
	clauses := []MergeClause{{Kind: WhenMatched, All: true}, {Kind: WhenNotMatched, All: true}}
	for _, c := range []struct {
		clauses []MergeClause
		line    string // appended meanwhile
		replans int
		want    string
	}{
		{clauses, `{"id":9,"k":9,"p":"x"}`, 0, "1 1 - x\n5 50 m x\n9 9 - x"},
		{clauses, `{"id":5,"k":9,"p":"x"}`, 1, "1 1 - x\n5 50 m x"},
		{append(clauses[:2:2], MergeClause{Kind: WhenNotMatchedBySource, Delete: true}), `{"id":9,"k":9,"p":"x"}`, 1, "5 50 m x"},
	} {
		tab := dmlTable(t, vectors, []string{`{"id":1,"k":1,"p":"x"}`})
		other, err := Open(ctx, tab.Store(), tab.Path(), nil)
		if err != nil {
			t.Fatal(err)
		}
		rows, done := jsonRows(t, dmlSource, `{"id":5,"k":50,"v":"m","p":"x"}`), false
		o := MergeIntoOptions{On: expr.Eq(expr.Col("target", "id"), expr.Col("source", "id")), Clauses: c.clauses}
		o.Hook = func(phase string) {
			if phase == "before-commit" && !done {
				done = true
				if _, err := other.Append(ctx, jsonRows(t, dmlSource, c.line), AppendOptions{}); err != nil {
					t.Error(err)
				}
			}
		}
		res, err := tab.MergeInto(ctx, rows, o)
		if err != nil {
			t.Fatal(err)
		}
		if got := tableText(t, tab); got != c.want || res.Replans != c.replans {
			t.Errorf("%s meanwhile: planned anew %d times, want %d; rows\n%s\nwant\n%s", c.line, res.Replans, c.replans, got, c.want)
		}
	}
}

// A statement with a txn happens once.
func TestChangesTxn(t *testing.T) {
	ctx := context.Background()
	tab := dmlTable(t, vectors, []string{`{"id":1,"k":1,"p":"x"}`})
	o := UpdateOptions{Set: []Assignment{{"k", fn("+", expr.Col("k"), expr.Lit(1))}}}
	o.Txn = &Txn{AppID: "app", Version: 7}
	if _, err := tab.Update(ctx, o); err != nil {
		t.Fatal(err)
	}
	if _, err := tab.Update(ctx, o); !errors.Is(err, ErrTxnApplied) {
		t.Errorf("again: %v", err)
	}
	if got := tableText(t, tab); got != "1 2 - x" {
		t.Errorf("rows %s", got)
	}
}

// What a statement wrote and did not commit is deleted.
func TestChangesLeaveNothingBehind(t *testing.T) {
	ctx := context.Background()
	bothWays(t, func(t *testing.T, config map[string]string) {
		tab := dmlTable(t, config, []string{`{"id":1,"k":1,"p":"x"}`, `{"id":2,"k":0,"p":"x"}`})
		count := func() (n int) {
			for _, err := range tab.Store().List(ctx, tab.Path(), "") {
				if err != nil {
					t.Fatal(err)
				}
				n++
			}
			return n
		}
		before := count()
		stop, cancel := context.WithCancel(ctx)
		o := UpdateOptions{Where: fn(">", expr.Col("k"), expr.Lit(0)), Set: []Assignment{{"k", expr.Lit(5)}}}
		o.Hook = func(phase string) {
			if phase == "before-commit" {
				if count() == before {
					t.Error("nothing had been written")
				}
				if _, err := tab.DeleteWhere(ctx, nil, ChangeOptions{}); err != nil {
					t.Error(err)
				}
				cancel()
			}
		}
		if _, err := tab.Update(stop, o); !errors.Is(err, context.Canceled) {
			t.Fatalf("update: %v", err)
		}
		if got := count(); got != before+2 { // the commit of the DELETE and its checksum
			t.Errorf("%d objects, had %d", got, before)
		}
		if _, err := tab.Update(ctx, UpdateOptions{Set: []Assignment{{"k", fn("/", expr.Lit(1), fn("-", expr.Col("k"), expr.Col("k")))}}}); err != nil {
			t.Errorf("an update of no rows: %v", err)
		}
	})
}
