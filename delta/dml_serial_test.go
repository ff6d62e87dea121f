package delta

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sort"
	"strings"
	"sync"
	"testing"

	"github.com/cauce-data/cauce/delta/expr"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/objstore/fault"
)

// TestStatementsAreSerializable lets several writers run random statements on one table, over a store that loses requests
// and answers. Every version must be what the statements give one after another, in the order of their versions.
func TestStatementsAreSerializable(t *testing.T) {
	bothWays(t, func(t *testing.T, config map[string]string) {
		seed := testscale.Seed(t)
		for round := range testscale.Count(t, "dml-steps") / 20 {
			serialRound(t, withFeed(config), rand.New(rand.NewPCG(seed, uint64(round))))
		}
	})
}

// serialOp is a statement of the test in both worlds.
type serialOp struct {
	text  string
	run   func(*Table) (Version, bool, error) // the version committed, if one was
	model func([]dmlRow) []dmlRow
}

func serialRound(t *testing.T, config map[string]string, g *rand.Rand) {
	ctx := context.Background()
	made := dmlTable(t, config)
	store := fault.New(made.Store())
	for _, op := range []fault.Op{fault.Put, fault.PutIfAbsent} {
		for range g.IntN(4) {
			// An answer that is lost: the commit or file is there.
			store.Add(fault.Rule{Op: op, Nth: 1 + g.IntN(60), Effect: fault.FailAfter, Err: fmt.Errorf("answer lost: %w", objstore.ErrAmbiguous)})
		}
	}
	type done struct {
		op      serialOp
		version Version
	}
	var mu sync.Mutex
	var log []done
	var wg sync.WaitGroup
	for range 2 + g.IntN(3) {
		ops := make([]serialOp, 3+g.IntN(5))
		for i := range ops {
			ops[i] = randomSerialOp(t, g)
		}
		wg.Go(func() {
			tab, err := Open(ctx, store, made.Path(), noSleep(Options{MaxTries: 200}))
			if err != nil {
				t.Error(err)
				return
			}
			for _, op := range ops {
				v, committed, err := op.run(tab)
				switch {
				case errors.Is(err, objstore.ErrAmbiguous):
					// A data file whose put is in doubt ends the statement before its commit.
				case err != nil:
					t.Errorf("%s: %v", op.text, err)
				case committed:
					mu.Lock()
					log = append(log, done{op, v})
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	sort.Slice(log, func(i, j int) bool { return log[i].version < log[j].version })
	tab, err := Open(ctx, made.Store(), made.Path(), nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := tab.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if int(s.Version()) < len(log) {
		t.Fatalf("%d commits make version %d", len(log), s.Version())
	}
	var model []dmlRow
	story := ""
	at := 0
	for v := Version(1); v <= s.Version(); v++ {
		if at < len(log) && log[at].version == v {
			model = log[at].op.model(model)
			story += fmt.Sprintf("\n%d %s", v, log[at].op.text)
			at++
		} else if h, err := tab.History(ctx, 0); err != nil {
			t.Fatal(err)
		} else if by := h[s.Version()-v].Info.Operation; by != "OPTIMIZE" && by != "REORG" {
			t.Fatalf("version %d, %s, was made by nobody", v, by)
		}
		var got, want []string
		for r, n := range rowTexts(t, tab, v) {
			for range n {
				got = append(got, r)
			}
		}
		for _, r := range model {
			want = append(want, r.text())
		}
		sort.Strings(got)
		sort.Strings(want)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("version %d has\n%s\nwant\n%s\nafter%s", v, strings.Join(got, "\n"), strings.Join(want, "\n"), story)
		}
		checkFeed(t, tab, v)
	}
}

func randomSerialOp(t *testing.T, g *rand.Rand) serialOp {
	ctx := context.Background()
	n, c := int64(g.IntN(6)), "xyz"[g.IntN(3)]
	conds := []struct {
		e expr.Expr
		f func(dmlRow) bool
	}{
		{fn("<", expr.Col("k"), expr.Lit(n)), func(r dmlRow) bool { return r.k != nil && *r.k < n }},
		{expr.Eq(expr.Col("p"), expr.Lit(string(c))), func(r dmlRow) bool { return r.v[0] == c }},
		{expr.Eq(expr.Col("id"), expr.Lit(n)), func(r dmlRow) bool { return r.id != nil && *r.id == n }},
	}
	cond := conds[g.IntN(len(conds))]
	rows := func(unique bool) (out []dmlRow, lines []string) {
		for i := range 1 + g.IntN(4) {
			id, k := int64(g.IntN(6)), int64(g.IntN(6))
			if unique {
				id = (n + int64(i)) % 6
			}
			r := dmlRow{&id, &k, string("xyz"[g.IntN(3)]) + fmt.Sprint(g.IntN(5))}
			out, lines = append(out, r), append(lines, r.json())
		}
		return out, lines
	}
	changed := func(r *ChangeResult, err error) (Version, bool, error) {
		if err != nil {
			return 0, false, err
		}
		return r.Version, r.Committed, nil
	}
	switch g.IntN(7) {
	case 0, 1:
		more, lines := rows(false)
		return serialOp{"append " + strings.Join(lines, " "), func(tab *Table) (Version, bool, error) {
			in := jsonRows(t, dmlSource, lines...)
			defer in.Close()
			r, err := tab.Append(ctx, in, AppendOptions{})
			if err != nil {
				return 0, false, err
			}
			return r.Version, r.Committed, nil
		}, func(m []dmlRow) []dmlRow { return append(m[:len(m):len(m)], more...) }}
	case 2:
		return serialOp{fmt.Sprint("delete ", cond.e), func(tab *Table) (Version, bool, error) { return changed(tab.DeleteWhere(ctx, cond.e, ChangeOptions{})) },
			func(m []dmlRow) (out []dmlRow) {
				for _, r := range m {
					if !cond.f(r) {
						out = append(out, r)
					}
				}
				return out
			}}
	case 3, 4:
		set := []Assignment{{"k", fn("%", fn("+", expr.Col("k"), expr.Lit(1)), expr.Lit(7))}, {"v", expr.Lit("y!")}, {"p", expr.Lit("y")}}
		return serialOp{fmt.Sprint("update ", cond.e), func(tab *Table) (Version, bool, error) {
			return changed(tab.Update(ctx, UpdateOptions{Where: cond.e, Set: set}))
		}, func(m []dmlRow) (out []dmlRow) {
			for _, r := range m {
				if cond.f(r) {
					r.v = "y!"
					if r.k != nil {
						k := (*r.k + 1) % 7
						r.k = &k
					}
				}
				out = append(out, r)
			}
			return out
		}}
	case 5:
		source, lines := rows(true)
		o := MergeIntoOptions{On: expr.Eq(expr.Col("target", "id"), expr.Col("source", "id")), Clauses: []MergeClause{{Kind: WhenMatched, All: true}, {Kind: WhenNotMatched, All: true}}}
		return serialOp{"merge " + strings.Join(lines, " "), func(tab *Table) (Version, bool, error) {
			in := jsonRows(t, dmlSource, lines...)
			defer in.Close()
			return changed(tab.MergeInto(ctx, in, o))
		}, func(m []dmlRow) (out []dmlRow) {
			used := map[int64]bool{}
			for _, r := range m {
				for _, s := range source {
					if r.id != nil && *r.id == *s.id {
						r = s
						used[*s.id] = true
						break
					}
				}
				out = append(out, r)
			}
			for _, s := range source {
				if !used[*s.id] {
					out = append(out, s)
				}
			}
			return out
		}}
	}
	return serialOp{"optimize", func(tab *Table) (Version, bool, error) {
		_, err := tab.Optimize(ctx, OptimizeOptions{Purge: n%2 == 0})
		return 0, false, err
	}, nil}
}
