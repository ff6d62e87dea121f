package delta

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/cauce-data/cauce/delta/expr"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/objstore/fault"
)

// TestChangesSurviveFaults stops the store at each call of a statement in turn, and lets each write fail before and after
// it is done: the table is as it was or as it should be, the answer says which, and a repetition finishes the work.
func TestChangesSurviveFaults(t *testing.T) {
	ctx := context.Background()
	const before, after = "1 10 a x\n2 20 b x\n3 30 c y", "1 10 A x\n2 21 b x\n4 - new y"
	on := expr.Eq(expr.Col("target", "id"), expr.Col("source", "id"))
	run := func(tab *Table) (*ChangeResult, error) {
		rows := jsonRows(t, dmlSource, `{"id":1,"v":"A"}`, `{"id":2,"k":21}`, `{"id":4,"v":"new","p":"y"}`)
		defer rows.Close()
		o := MergeIntoOptions{On: on, Clauses: []MergeClause{
			{Kind: WhenMatched, Condition: fn("is not null", expr.Col("source", "k")), Set: []Assignment{{"k", expr.Col("source", "k")}}},
			{Kind: WhenMatched, Set: []Assignment{{"v", expr.Col("source", "v")}}},
			{Kind: WhenNotMatched, All: true},
			{Kind: WhenNotMatchedBySource, Delete: true},
		}}
		o.Txn = &Txn{AppID: "test", Version: 1}
		return tab.MergeInto(ctx, rows, o)
	}
	bothWays(t, func(t *testing.T, config map[string]string) {
		for _, kind := range []string{"crash", "before", "after"} {
			seen := map[string]bool{}
			for n := 1; ; n++ {
				made := dmlTable(t, config, []string{`{"id":1,"k":10,"v":"a","p":"x"}`, `{"id":2,"k":20,"v":"b","p":"x"}`}, []string{`{"id":3,"k":30,"v":"c","p":"y"}`})
				store := fault.New(made.Store())
				opts := noSleep(Options{MaxTries: 3})
				tab, err := Open(ctx, store, made.Path(), opts)
				if err != nil {
					t.Fatal(err)
				}
				calls := len(store.Calls())
				switch kind {
				case "crash":
					store.CrashAt(calls + n)
				case "before":
					store.Add(fault.Rule{Op: fault.Put, Nth: n, Effect: fault.FailBefore, Err: errors.New("refused")}, fault.Rule{Op: fault.PutIfAbsent, Nth: n, Effect: fault.FailBefore, Err: errors.New("refused")})
				case "after":
					store.Add(fault.Rule{Op: fault.Put, Nth: n, Effect: fault.FailAfter, Err: fmt.Errorf("lost: %w", objstore.ErrAmbiguous)}, fault.Rule{Op: fault.PutIfAbsent, Nth: n, Effect: fault.FailAfter, Err: fmt.Errorf("lost: %w", objstore.ErrAmbiguous)})
				}
				_, err = run(tab)
				total := len(store.Calls()) - calls
				store.Revive()
				store.Clear()
				fresh, oerr := Open(ctx, made.Store(), made.Path(), nil)
				if oerr != nil {
					t.Fatal(oerr)
				}
				got := tableText(t, fresh)
				seen[got] = true
				switch {
				case err == nil && got != after, got != before && got != after:
					t.Fatalf("%s at call %d: %v leaves\n%s", kind, n, err, got)
				case err != nil && got == after && !errors.Is(err, objstore.ErrAmbiguous) && kind != "crash":
					t.Fatalf("%s at call %d: %v, and yet the commit is there", kind, n, err)
				}
				if _, err := run(fresh); (got == after) != errors.Is(err, ErrTxnApplied) || got == before && err != nil {
					t.Fatalf("%s at call %d: again: %v", kind, n, err)
				}
				if got := tableText(t, fresh); got != after {
					t.Fatalf("%s at call %d: again leaves\n%s", kind, n, got)
				}
				if err == nil && (kind != "crash" || n > total) && n > 4 {
					break
				}
				if n > testscale.Count(t, "faults") {
					t.Fatalf("the store was called more than %d times", n)
				}
			}
			if !seen[after] || kind != "after" && !seen[before] {
				t.Errorf("%s: saw only %v", kind, seen)
			}
		}
	})
}
