package delta

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/cauce-data/cauce/delta/expr"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/objstore"
)

// trackedRow is what a scan says of a row beside its values.
type trackedRow struct{ id, version int64 }

// trackedRows reads the column key of a version, which must be unique, with row ids and commit versions, and makes sure
// that no id stands twice.
func trackedRowsOf(t *testing.T, tab *Table, s *Snapshot, key string) map[string]trackedRow {
	t.Helper()
	out, seen := map[string]trackedRow{}, map[int64]string{}
	for b, err := range tab.Scan(context.Background(), s, ScanOptions{Columns: []string{key}, RowTracking: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if n := b.NumCols(); n != 3 || b.ColumnName(1) != RowIDColumn || b.ColumnName(2) != RowCommitVersionColumn {
			t.Fatalf("columns %v", b.Schema())
		}
		for i := range int(b.NumRows()) {
			k := b.Column(0).ValueStr(i)
			r := trackedRow{b.Column(1).(*array.Int64).Value(i), b.Column(2).(*array.Int64).Value(i)}
			if other, ok := seen[r.id]; ok {
				t.Fatalf("version %d: rows %s and %s have the id %d", s.Version(), other, k, r.id)
			}
			if _, ok := out[k]; ok {
				t.Fatalf("version %d: %s stands twice", s.Version(), k)
			}
			seen[r.id], out[k] = k, r
		}
	}
	return out
}

func TestRowIDsOfSparksTable(t *testing.T) {
	dir := filepath.Join(prereq.Need(t, "shared"), "delta-golden", "spark-generated", "rowtracking_cow")
	tab, err := Open(context.Background(), localStore(t, dir), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	at := func(v Version) map[string]trackedRow {
		s, err := tab.SnapshotAt(context.Background(), v)
		if err != nil {
			t.Fatal(err)
		}
		return trackedRowsOf(t, tab, s, "id")
	}
	one, two, three := at(1), at(2), at(3)
	for k, was := range one {
		is, ok := two[k]
		if !ok || is.id != was.id {
			t.Fatalf("row %s: %+v, after an update %+v", k, was, is)
		}
		if want := map[bool]int64{true: 2, false: 1}[len(k) == 1]; is.version != want {
			t.Errorf("row %s: commit version %d after an update of ids below 10, not %d", k, is.version, want)
		}
	}
	kept := 0
	for k, is := range three {
		if was, ok := two[k]; ok {
			kept++
			if was.id != is.id {
				t.Errorf("row %s: %+v, after a merge %+v", k, was, is)
			}
		} else if is.id < 400 || is.version != 3 {
			t.Errorf("inserted row %s: %+v", k, is)
		}
	}
	if len(one) != 200 || kept != 175 || len(three) != 235 {
		t.Errorf("%d rows, then %d kept of %d", len(one), kept, len(three))
	}
	plain := newTestTable(t, nil, CreateOptions{})
	for _, err := range plain.Scan(context.Background(), mustSnapshot(t, plain), ScanOptions{RowTracking: true}) {
		if !errors.Is(err, ErrRowTracking) {
			t.Errorf("a scan for row ids of a table without: %v", err)
		}
	}
}

// TestRowIDsStay does every operation on tables with row tracking and compares ids and commit versions.
func TestRowIDsStay(t *testing.T) {
	for _, c := range [][2]string{{"true", "none"}, {"false", "none"}, {"true", "name"}, {"false", "id"}} {
		t.Run("vectors "+c[0]+" mapping "+c[1], func(t *testing.T) { testRowIDsStay(t, c[0], c[1]) })
	}
}

func testRowIDsStay(t *testing.T, vectors, mapping string) {
	ctx := context.Background()
	conf := map[string]string{"delta.enableRowTracking": "true", "delta.enableDeletionVectors": vectors, "delta.enableChangeDataFeed": "true"}
	if mapping != "none" {
		conf["delta.columnMapping.mode"] = mapping
	}
	tab, err := Create(ctx, objstore.NewMemory(nil), "t", CreateOptions{Schema: simSchema(), Config: conf}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var now map[string]trackedRow
	// step runs an operation. changed are the rows that it changes, fresh those that are new, by id.
	step := func(what string, do func() error, changed, fresh, gone []string) {
		t.Helper()
		was := now
		if err := do(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		s := mustSnapshot(t, tab)
		now = trackedRowsOf(t, tab, s, "id")
		v := int64(s.Version())
		for k, r := range now {
			old, known := was[k]
			switch {
			case slices.Contains(fresh, k):
				for o, x := range was {
					if x.id >= r.id {
						t.Errorf("%s: new row %s has the id %d, %s had %d", what, k, r.id, o, x.id)
					}
				}
				if r.version != v {
					t.Errorf("%s: new row %s has the commit version %d, not %d", what, k, r.version, v)
				}
			case !known:
				t.Errorf("%s: row %s came from nowhere", what, k)
			case old.id != r.id:
				t.Errorf("%s: row %s had the id %d, now %d", what, k, old.id, r.id)
			case slices.Contains(changed, k) && r.version != v:
				t.Errorf("%s: row %s was changed, and has the commit version %d, not %d", what, k, r.version, v)
			case !slices.Contains(changed, k) && r.version != old.version:
				t.Errorf("%s: row %s was not changed, and has the commit version %d, not %d", what, k, r.version, old.version)
			}
		}
		if len(now) != len(was)+len(fresh)-len(gone) {
			t.Errorf("%s: %d rows, then %d", what, len(was), len(now))
		}
		if c, _, err := tab.readCommit(ctx, s.Version()); err != nil || c.info.Tags[tagRowsPreserved] != "true" {
			t.Errorf("%s: tags %v, error %v", what, c.info.Tags, err)
		}
	}
	appends := func(ids ...string) func() error {
		return func() error {
			var rows []simRow
			for _, id := range ids {
				rows = append(rows, simRow{ID: id, Day: "d0", Seq: 1})
			}
			r := simRows(rows)
			defer r.Close()
			_, err := tab.Append(ctx, r, AppendOptions{})
			return err
		}
	}
	col := func(n string) expr.Expr { return expr.Column{Path: []string{n}} }
	where := func(id string) expr.Expr { return expr.Eq(col("id"), expr.Lit(id)) }
	step("append", appends("a", "b", "c", "d"), nil, []string{"a", "b", "c", "d"}, nil)
	step("append", appends("e", "f"), nil, []string{"e", "f"}, nil)
	step("update", func() error {
		_, err := tab.Update(ctx, UpdateOptions{Where: where("b"), Set: []Assignment{{Column: "seq", Value: expr.Lit(int64(2))}}})
		return err
	}, []string{"b"}, nil, nil)
	step("update again", func() error {
		_, err := tab.Update(ctx, UpdateOptions{Where: where("b"), Set: []Assignment{{Column: "day", Value: expr.Lit("d1")}}})
		return err
	}, []string{"b"}, nil, nil)
	step("delete", func() error { _, err := tab.DeleteWhere(ctx, where("c"), ChangeOptions{}); return err }, nil, nil, []string{"c"})
	step("merge", func() error {
		r := simRows([]simRow{{"a", "d0", 5}, {"e", "d0", 5}, {"g", "d0", 5}, {"b", "d1", 1}})
		defer r.Close()
		_, err := tab.Merge(ctx, r, MergeOptions{Key: []string{"id"}, Order: []OrderTerm{{Column: "seq"}}})
		return err
	}, []string{"a", "e"}, []string{"g"}, nil)
	step("optimize", func() error { _, err := tab.Optimize(ctx, OptimizeOptions{}); return err }, nil, nil, nil)
	step("merge into", func() error {
		r := simRows([]simRow{{"a", "d0", 9}, {"h", "d0", 9}, {"d", "d0", 0}})
		defer r.Close()
		_, err := tab.MergeInto(ctx, r, MergeIntoOptions{
			On: expr.Eq(expr.Column{Path: []string{"target", "id"}}, expr.Column{Path: []string{"source", "id"}}),
			Clauses: []MergeClause{
				{Kind: WhenMatched, Condition: expr.Eq(expr.Column{Path: []string{"source", "seq"}}, expr.Lit(int64(0))), Delete: true},
				{Kind: WhenMatched, All: true},
				{Kind: WhenNotMatched, All: true},
				{Kind: WhenNotMatchedBySource, Condition: where("f"), Set: []Assignment{{Column: "seq", Value: expr.Lit(int64(77))}}},
			},
		})
		return err
	}, []string{"a", "f"}, []string{"h"}, []string{"d"})
	step("z-order", func() error {
		_, err := tab.Optimize(ctx, OptimizeOptions{ZOrderBy: []string{"seq"}})
		return err
	}, nil, nil, nil)
	before := mustSnapshot(t, tab).Version()
	kept := now
	step("replace where", func() error {
		r := simRows([]simRow{{"z", "d1", 1}})
		defer r.Close()
		_, err := tab.ReplaceWhere(ctx, expr.Eq(col("day"), expr.Lit("d1")), r, false, ChangeOptions{})
		return err
	}, nil, []string{"z"}, []string{"b"})
	step("overwrite", func() error {
		r := simRows([]simRow{{"y", "d1", 1}})
		defer r.Close()
		_, err := tab.Overwrite(ctx, r, OverwriteOptions{})
		return err
	}, nil, []string{"y"}, sortedKeys(now))
	if _, err := tab.Restore(ctx, before, RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	if now = trackedRowsOf(t, tab, mustSnapshot(t, tab), "id"); fmt.Sprint(now) != fmt.Sprint(kept) {
		t.Errorf("restored:\n%v\nbefore:\n%v", now, kept)
	}
	step("append", appends("i"), nil, []string{"i"}, nil)
	checkIDsUnique(t, tab)
}

// checkIDsUnique makes sure that no two files were ever given overlapping row ids, and none above the mark.
func checkIDsUnique(t *testing.T, tab *Table) {
	t.Helper()
	if err := idsUnique(tab); err != nil {
		t.Error(err)
	}
}

func idsUnique(tab *Table) error {
	ctx := context.Background()
	s, err := tab.Snapshot(ctx)
	if err != nil {
		return err
	}
	type span struct {
		from, to int64
		path     string
	}
	given := map[string]span{}
	mark := int64(-1)
	for v := Version(0); v <= s.Version(); v++ {
		c, _, err := tab.readCommit(ctx, v)
		if err != nil {
			return err
		}
		for _, d := range c.domains {
			if d.Domain == rowTrackingDomain {
				now, err := (&Snapshot{domains: map[string]DomainMetadata{d.Domain: d}}).rowIDMark()
				if err != nil {
					return err
				}
				if now <= mark {
					return fmt.Errorf("version %d: high-water mark %d after %d", v, now, mark)
				}
				mark = now
			}
		}
		for _, a := range c.adds {
			if a.BaseRowID == nil || a.DefaultRowCommitVersion == nil {
				continue
			}
			st, err := ParseStats(a.Stats)
			if err != nil {
				return err
			}
			n := span{*a.BaseRowID, *a.BaseRowID + st.NumRecords, canonicalPath(a.Path)}
			if was, ok := given[n.path]; ok {
				if was != n {
					return fmt.Errorf("version %d: %s had the ids %d to %d, now %d to %d", v, n.path, was.from, was.to, n.from, n.to)
				}
				continue
			}
			for _, o := range given {
				if n.from < o.to && o.from < n.to {
					return fmt.Errorf("version %d: the ids %d to %d of %s overlap those of %s, %d to %d", v, n.from, n.to, n.path, o.path, o.from, o.to)
				}
			}
			if n.to-1 > mark {
				return fmt.Errorf("version %d: %s has ids up to %d, the mark is %d", v, n.path, n.to-1, mark)
			}
			given[n.path] = n
		}
	}
	return nil
}

func TestEnableRowTrackingLater(t *testing.T) {
	ctx := context.Background()
	tab, err := Create(ctx, objstore.NewMemory(nil), "t", CreateOptions{Schema: simSchema(), Config: map[string]string{"delta.enableDeletionVectors": "true"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func(n int) { backfillFiles = n }(backfillFiles)
	backfillFiles = 2
	for i := range 5 {
		r := simRows([]simRow{{fmt.Sprint("a", i), "d0", 1}, {fmt.Sprint("b", i), "d0", 1}})
		if _, err := tab.Append(ctx, r, AppendOptions{}); err != nil {
			t.Fatal(err)
		}
		r.Close()
	}
	if _, err := tab.DeleteWhere(ctx, expr.Eq(expr.Column{Path: []string{"id"}}, expr.Lit("b3")), ChangeOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := tab.EnableRowTracking(ctx); err != nil {
		t.Fatal(err)
	}
	s := mustSnapshot(t, tab)
	rows := trackedRowsOf(t, tab, s, "id")
	if len(rows) != 9 {
		t.Errorf("%d rows", len(rows))
	}
	var ops []string
	h, err := tab.History(ctx, 5)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range h {
		ops = append(ops, c.Info.Operation)
	}
	if want := []string{"SET TBLPROPERTIES", opBackfill, opBackfill, opBackfill, "UPGRADE PROTOCOL"}; !slices.Equal(ops, want) {
		t.Errorf("commits %q", ops)
	}
	if v, err := tab.EnableRowTracking(ctx); err != nil || v != s.Version() {
		t.Errorf("again: version %d, error %v", v, err)
	}
	// What was removed before and comes back has the ids that its file was given last.
	if _, err := tab.DeleteWhere(ctx, nil, ChangeOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := tab.Restore(ctx, s.Version(), RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := trackedRowsOf(t, tab, mustSnapshot(t, tab), "id"); fmt.Sprint(got) != fmt.Sprint(rows) {
		t.Errorf("restored:\n%v\nbefore:\n%v", got, rows)
	}
	checkIDsUnique(t, tab)
}

func TestRowIDsAreGivenAnewAfterALostRace(t *testing.T) {
	ctx := context.Background()
	tab, err := Create(ctx, objstore.NewMemory(nil), "t", CreateOptions{Schema: simSchema(), Config: map[string]string{"delta.enableRowTracking": "true"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	file := func(path string, rows int64) *Add {
		return &Add{Path: path, Size: 1, DataChange: true, Stats: Stats{NumRecords: rows}.JSON()}
	}
	x, y := tab.Begin(mustSnapshot(t, tab)), tab.Begin(mustSnapshot(t, tab))
	x.AddFile(file("x", 10))
	y.AddFile(file("y", 5))
	tries := 0
	for _, tx := range []*Tx{x, y} {
		done, err := tx.Commit(ctx, CommitOptions{BlindAppend: true})
		if err != nil {
			t.Fatal(err)
		}
		tries += done.Tries
	}
	s := mustSnapshot(t, tab)
	a, _ := s.File("x")
	b, _ := s.File("y")
	if tries != 3 || *a.BaseRowID != 0 || *b.BaseRowID != 10 || *b.DefaultRowCommitVersion != 2 {
		t.Errorf("%d tries; x from %d, y from %d in version %d", tries, *a.BaseRowID, *b.BaseRowID, *b.DefaultRowCommitVersion)
	}
	if d, _ := s.Domain("delta.rowTracking"); d.Configuration != `{"rowIdHighWaterMark":14,"domainName":"delta.rowTracking"}` {
		t.Error(d)
	}
	checkIDsUnique(t, tab)
	z := tab.Begin(s)
	z.SetDomain(rowIDDomain(3))
	if _, err := z.Commit(ctx, CommitOptions{}); !errors.Is(err, ErrDomain) {
		t.Errorf("the mark was set by hand: %v", err)
	}
	w := tab.Begin(s)
	w.AddFile(&Add{Path: "w", Size: 1, DataChange: true})
	if _, err := w.Commit(ctx, CommitOptions{}); !errors.Is(err, ErrRowIDsWithoutStats) {
		t.Errorf("a file without statistics: %v", err)
	}
}

// TestBackfillBesideWriters enables row tracking while another writer deletes, merges and optimizes, with each of its
// operations between two steps of the backfill, and each step of the backfill inside one of the operations.
func TestBackfillBesideWriters(t *testing.T) {
	defer func(n int) { backfillFiles = n }(backfillFiles)
	backfillFiles = 2
	ctx := context.Background()
	for _, op := range []string{"append", "delete", "update", "merge", "optimize"} {
		for _, inside := range []bool{false, true} {
			t.Run(fmt.Sprint(op, " inside ", inside), func(t *testing.T) {
				store := objstore.NewMemory(nil)
				tab, err := Create(ctx, store, "t", CreateOptions{Schema: simSchema(), Config: map[string]string{"delta.enableDeletionVectors": "true"}}, nil)
				if err != nil {
					t.Fatal(err)
				}
				for i := range 4 {
					r := simRows([]simRow{{fmt.Sprint("a", i), "d0", 1}, {fmt.Sprint("b", i), "d0", 1}})
					if _, err := tab.Append(ctx, r, AppendOptions{}); err != nil {
						t.Fatal(err)
					}
					r.Close()
				}
				other, err := Open(ctx, store, "t", nil)
				if err != nil {
					t.Fatal(err)
				}
				want := 8
				id := expr.Column{Path: []string{"id"}}
				run := func(tab *Table, hook func(string)) error {
					switch op {
					case "append":
						want = 9
						r := simRows([]simRow{{"c", "d0", 1}})
						defer r.Close()
						_, err := tab.Append(ctx, r, AppendOptions{Hook: hook})
						return err
					case "delete":
						want = 7
						_, err := tab.DeleteWhere(ctx, expr.Eq(id, expr.Lit("a1")), ChangeOptions{Hook: hook})
						return err
					case "update":
						_, err := tab.Update(ctx, UpdateOptions{ChangeOptions: ChangeOptions{Hook: hook}, Where: expr.Eq(id, expr.Lit("a1")), Set: []Assignment{{Column: "seq", Value: expr.Lit(int64(9))}}})
						return err
					case "merge":
						want = 9
						r := simRows([]simRow{{"a1", "d0", 9}, {"c", "d0", 1}})
						defer r.Close()
						_, err := tab.Merge(ctx, r, MergeOptions{Key: []string{"id"}, Order: []OrderTerm{{Column: "seq"}}, Hook: hook})
						return err
					}
					_, err := tab.Optimize(ctx, OptimizeOptions{Hook: hook})
					return err
				}
				if inside {
					once := false
					err = run(other, func(phase string) {
						if phase == "before-commit" && !once {
							once = true
							if _, err := tab.EnableRowTracking(ctx); err != nil {
								t.Error(err)
							}
						}
					})
				} else {
					// The protocol first, then the backfill meets the operation.
					s := mustSnapshot(t, tab)
					x := tab.Begin(s)
					x.SetProtocol(*s.protocol.raised(featureOf(featureRowTracking)))
					if _, err := x.Commit(ctx, CommitOptions{}); err != nil {
						t.Fatal(err)
					}
					s = mustSnapshot(t, tab)
					if err := run(other, nil); err != nil {
						t.Fatal(err)
					}
					_, err = tab.backfill(ctx, s, s.untracked(100), 0)
					if err == nil {
						_, err = tab.EnableRowTracking(ctx)
					}
				}
				if err != nil {
					t.Fatal(err)
				}
				if rows := trackedRowsOf(t, tab, mustSnapshot(t, tab), "id"); len(rows) != want {
					t.Errorf("%d rows, not %d: %v", len(rows), want, rows)
				}
				checkIDsUnique(t, tab)
			})
		}
	}
}

func TestInCommitTimestampsRise(t *testing.T) {
	ctx := context.Background()
	now := time.UnixMilli(1_800_000_000_000)
	store := objstore.NewMemory(func() time.Time { return now })
	opts := &Options{Clock: func() time.Time { return now }}
	tab, err := Create(ctx, store, "t", CreateOptions{Schema: testSchema()}, opts)
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Second)
	appendFile(t, tab, "a")
	// They are turned on by a writer whose clock is behind; the log entries before carry the store's time.
	modified := now
	now = now.Add(-time.Hour)
	s := mustSnapshot(t, tab)
	x := tab.Begin(s)
	m := s.Metadata()
	m.Configuration = map[string]string{propICT: "true"}
	x.SetMetadata(m)
	x.SetProtocol(*s.protocol.raised(featureOf("inCommitTimestamp")))
	if _, err := x.Commit(ctx, CommitOptions{}); err != nil {
		t.Fatal(err)
	}
	on := mustSnapshot(t, tab)
	if on.Config(propICTVersion) != "2" || on.Config(propICTTime) != fmt.Sprint(on.Time().UnixMilli()) || !on.Time().After(modified) {
		t.Errorf("enabled in version %s at %s, log entry before of %s", on.Config(propICTVersion), on.Config(propICTTime), modified)
	}
	// Two writers with one clock that stands still; the second loses a race and takes the later time.
	y, z := tab.Begin(on), tab.Begin(on)
	y.AddFile(testAdd("y"))
	z.AddFile(testAdd("z"))
	for _, x := range []*Tx{y, z} {
		if _, err := x.Commit(ctx, CommitOptions{BlindAppend: true}); err != nil {
			t.Fatal(err)
		}
	}
	for v, want := Version(3), on.Time(); v <= 4; v++ {
		want = want.Add(time.Millisecond)
		s, err := tab.SnapshotAt(ctx, v)
		if err != nil || !s.Time().Equal(want) {
			t.Errorf("version %d is of %s, not %s; error %v", v, s.Time(), want, err)
		}
		if at, err := tab.SnapshotAsOf(ctx, want); err != nil || at.Version() != v {
			t.Errorf("as of %s: version %d, error %v", want, at.Version(), err)
		}
	}
	if at, err := tab.SnapshotAsOf(ctx, modified); err != nil || at.Version() != 1 {
		t.Errorf("as of the last time of a log entry: version %v, error %v", at, err)
	}
	// A restore to a version from before turns them off; turned on again, they count from there.
	if _, err := tab.Restore(ctx, 1, RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	if s := mustSnapshot(t, tab); s.Config(propICT) != "" {
		t.Errorf("restored with %v", s.metadata.Configuration)
	}
	again := tab.Begin(mustSnapshot(t, tab))
	again.SetMetadata(on.Metadata())
	if _, err := again.Commit(ctx, CommitOptions{}); err != nil {
		t.Fatal(err)
	}
	if s := mustSnapshot(t, tab); s.Config(propICTVersion) != "6" {
		t.Errorf("turned on again with %v", s.metadata.Configuration)
	}
	for _, e := range []struct {
		at   time.Time
		want Version
	}{{mustSnapshot(t, tab).Time(), 6}, {now.Add(time.Hour), 6}} {
		if at, err := tab.SnapshotAsOf(ctx, e.at); err != nil || at.Version() != e.want {
			t.Errorf("as of %s: %v, error %v", e.at, at, err)
		}
	}
}

// A merge is about to replace a row when a winner gives that row another key, and with it takes its id along: the merge's
// row must not have the id, too. Where the winner has a row of the same key, the merge's row takes over its id.
func TestMergeGivesUpIDsThatAWinnerMoved(t *testing.T) {
	ctx := context.Background()
	id := expr.Column{Path: []string{"id"}}
	for _, vectors := range []string{"true", "false"} {
		for what, c := range map[string]struct {
			winner func(tab *Table) error
			want   map[string]int64 // ids; -1: a new one
		}{
			"moved": {func(tab *Table) error {
				_, err := tab.Update(ctx, UpdateOptions{Where: expr.Eq(id, expr.Lit("k")), Set: []Assignment{{Column: "id", Value: expr.Lit("k2")}}})
				return err
			}, map[string]int64{"k": -1, "k2": 1, "other": 0, "new": -1}},
			"deleted": {func(tab *Table) error {
				_, err := tab.DeleteWhere(ctx, expr.Eq(id, expr.Lit("k")), ChangeOptions{})
				return err
			}, map[string]int64{"k": -1, "other": 0, "new": -1}},
			"merged": {func(tab *Table) error {
				r := simRows([]simRow{{"k", "d0", 3}, {"new", "d0", 3}})
				defer r.Close()
				_, err := tab.Merge(ctx, r, MergeOptions{Key: []string{"id"}, Order: []OrderTerm{{Column: "seq"}}})
				return err
			}, map[string]int64{"k": 1, "other": 0, "new": 3}},
			"packed": {func(tab *Table) error { _, err := tab.Optimize(ctx, OptimizeOptions{}); return err }, map[string]int64{"k": 1, "other": 0, "new": -1}},
		} {
			t.Run(what+" vectors "+vectors, func(t *testing.T) {
				tab, err := Create(ctx, objstore.NewMemory(nil), "t", CreateOptions{Schema: simSchema(), Config: map[string]string{"delta.enableRowTracking": "true", "delta.enableDeletionVectors": vectors}}, nil)
				if err != nil {
					t.Fatal(err)
				}
				for _, k := range []string{"other", "k"} {
					r := simRows([]simRow{{k, "d0", 1}})
					if _, err := tab.Append(ctx, r, AppendOptions{}); err != nil {
						t.Fatal(err)
					}
					r.Close()
				}
				r := simRows([]simRow{{"k", "d0", 9}, {"new", "d0", 9}})
				defer r.Close()
				once := false
				_, err = tab.Merge(ctx, r, MergeOptions{Key: []string{"id"}, Order: []OrderTerm{{Column: "seq"}}, Hook: func(phase string) {
					if phase == "before-commit" && !once {
						once = true
						if err := c.winner(tab); err != nil {
							t.Error(err)
						}
					}
				}})
				if err != nil {
					t.Fatal(err)
				}
				got := trackedRowsOf(t, tab, mustSnapshot(t, tab), "id")
				if len(got) != len(c.want) {
					t.Errorf("rows %v", got)
				}
				for k, want := range c.want {
					if r, ok := got[k]; !ok || want >= 0 && r.id != want || want < 0 && r.id < 2 {
						t.Errorf("row %s: %+v, want id %d", k, r, want)
					}
				}
				checkIDsUnique(t, tab)
			})
		}
	}
}

// Columns that come with the rows do not cost the others their ids.
func TestRowIDsStayWhileTheSchemaGrows(t *testing.T) {
	ctx := context.Background()
	for _, vectors := range []string{"true", "false"} {
		t.Run("vectors "+vectors, func(t *testing.T) {
			tab, err := Create(ctx, objstore.NewMemory(nil), "t", CreateOptions{Schema: simSchema(), Config: map[string]string{
				"delta.enableRowTracking": "true", "delta.enableDeletionVectors": vectors, "delta.enableTypeWidening": "true", "delta.enableChangeDataFeed": "true",
			}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			r := simRows([]simRow{{"a", "d0", 1}, {"b", "d0", 1}, {"c", "d0", 1}})
			defer r.Close()
			if _, err := tab.Append(ctx, r, AppendOptions{}); err != nil {
				t.Fatal(err)
			}
			source := func(column, text string) Rows {
				schema := &Schema{Fields: append(simSchema().Fields, Field{Name: column, Type: String, Nullable: true})}
				rec, _, err := array.RecordFromJSON(memory.DefaultAllocator, schema.Arrow(), strings.NewReader(text))
				if err != nil {
					t.Fatal(err)
				}
				defer rec.Release()
				return NewRows(schema.Arrow(), rec)
			}
			was := trackedRowsOf(t, tab, mustSnapshot(t, tab), "id")
			if _, err := tab.Merge(ctx, source("x", `[{"id":"a","day":"d0","seq":2,"x":"new"},{"id":"d","day":"d0","seq":2}]`), MergeOptions{Key: []string{"id"}, Evolve: true}); err != nil {
				t.Fatal(err)
			}
			_, err = tab.MergeInto(ctx, source("y", `[{"id":"b","day":"d0","seq":3,"y":"new"},{"id":"e","day":"d0","seq":3}]`), MergeIntoOptions{
				On:              expr.Eq(expr.Column{Path: []string{"target", "id"}}, expr.Column{Path: []string{"source", "id"}}),
				Clauses:         []MergeClause{{Kind: WhenMatched, All: true}, {Kind: WhenNotMatched, All: true}},
				SchemaEvolution: true,
			})
			if err != nil {
				t.Fatal(err)
			}
			s := mustSnapshot(t, tab)
			is := trackedRowsOf(t, tab, s, "id")
			if len(s.Schema().Fields) != 5 || len(is) != 5 {
				t.Errorf("columns %v, rows %v", s.Schema().Names(), is)
			}
			for k, w := range was {
				if is[k].id != w.id || (k == "c") != (is[k].version == w.version) {
					t.Errorf("row %s: %+v, then %+v", k, w, is[k])
				}
			}
			checkIDsUnique(t, tab)
		})
	}
}

// A table that another engine has freed from row tracking has no mark of the ids that were given out. A version from
// before, restored, has its ids again, and no row that comes later may have one of them.
func TestRestoredRowIDsAreNotGivenAgain(t *testing.T) {
	ctx := context.Background()
	tab := alterTable(t, "id: BIGINT, v: STRING", CreateOptions{Config: map[string]string{propRowTracking: "true"}}, nil)
	appendJSON(t, tab, `[{"id": 1, "v": "a"}, {"id": 2, "v": "b"}]`)
	if _, err := tab.Update(ctx, UpdateOptions{Where: expr.Eq(expr.Col("id"), expr.Lit(1)), Set: []Assignment{{Column: "v", Value: expr.Lit("c")}}}); err != nil {
		t.Fatal(err)
	}
	tracked := mustSnapshot(t, tab)
	before := trackedRowsOf(t, tab, tracked, "id")

	// What Spark's DROP FEATURE leaves, and an overwrite.
	d, _ := tracked.Domain(rowTrackingDomain)
	d.Removed = true
	p, meta := tracked.Protocol(), tracked.Metadata()
	p.WriterFeatures = slices.DeleteFunc(slices.Clone(p.WriterFeatures), func(f string) bool { return f == featureRowTracking })
	meta.Configuration = map[string]string{}
	c := &commit{version: tracked.Version() + 1, protocol: &p, metadata: &meta, domains: []DomainMetadata{d}}
	data, err := c.encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := tab.Store().PutIfAbsent(ctx, tab.commitKey(c.version), data); err != nil {
		t.Fatal(err)
	}
	if _, err := tab.Overwrite(ctx, rowsIn(t, tracked.Schema(), `[{"id": 3, "v": "d"}]`), OverwriteOptions{}); err != nil {
		t.Fatal(err)
	}

	if _, err := tab.Restore(ctx, tracked.Version(), RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := trackedRowsOf(t, tab, mustSnapshot(t, tab), "id"); !maps.Equal(got, before) {
		t.Errorf("restored are %v, not %v", got, before)
	}
	appendJSON(t, tab, `[{"id": 4, "v": "e"}, {"id": 5, "v": "f"}]`)
	trackedRowsOf(t, tab, mustSnapshot(t, tab), "id")
}
