package delta

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/objstore/fault"
)

// hashOf is the logical hash without the column that it leaves out.
func hashOf(t testing.TB, tab *Table, s *Snapshot) string {
	t.Helper()
	h, err := LogicalHash(context.Background(), tab, s, "ingested_at")
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// objects lists the files below a table that are no business of the log's own.
func objects(t testing.TB, store objstore.Store, path string) []string {
	t.Helper()
	var out []string
	for info, err := range store.List(context.Background(), path+"/", "") {
		if err != nil {
			t.Fatal(err)
		}
		if !hiddenFile(strings.TrimPrefix(info.Key, path+"/")) {
			out = append(out, info.Key)
		}
	}
	return out
}

// named by the log: the files and vectors of a snapshot.
func liveObjects(t testing.TB, s *Snapshot) []string {
	t.Helper()
	keep := map[string]bool{}
	for _, a := range s.Adds() {
		if err := s.noteKeys(keep, a.Path, a.DeletionVector); err != nil {
			t.Fatal(err)
		}
	}
	return sortedKeys(keep)
}

// later is a clock far enough ahead that every file is old.
func later() time.Time { return time.Now().Add(400 * 24 * time.Hour) }

func TestOptimizePacksSmallFiles(t *testing.T) {
	ctx := context.Background()
	for _, z := range [][]string{nil, {"val", "seq"}} {
		t.Run(fmt.Sprint(z), func(t *testing.T) {
			tab := newItems(t, tempStore(t), true, nil)
			for i := range 30 {
				var items []item
				for k := range 4 {
					items = append(items, item{ID: fmt.Sprintf("k%03d", (i*7+k)%60), Day: int32(k % 2), Seq: int64(i), Val: fmt.Sprint("v", (i*31+k*17)%10), Pos: int64(k)})
				}
				mustMerge(t, tab, itemMerge(), items...)
			}
			before := snap(t, tab)
			hash := hashOf(t, tab, before)
			res, err := tab.Optimize(ctx, OptimizeOptions{ZOrderBy: z})
			if err != nil {
				t.Fatal(err)
			}
			after := snap(t, tab)
			if after.NumFiles() != 2 || res.FilesAdded != 2 || res.FilesRemoved != before.NumFiles() || res.Commits != 1 {
				t.Fatalf("%d files, %+v", after.NumFiles(), res)
			}
			if got := hashOf(t, tab, after); got != hash {
				t.Fatalf("hash %s, was %s", got, hash)
			}
			for _, a := range after.Adds() {
				if a.DataChange || a.DeletionVector != nil {
					t.Fatalf("%+v", a)
				}
			}
			res, err = tab.Optimize(ctx, OptimizeOptions{ZOrderBy: z})
			if err != nil || res.Commits != 0 || snap(t, tab).Version() != after.Version() {
				t.Fatalf("a second run: %+v, %v", res, err)
			}
		})
	}
}

func TestZOrderNarrowsBounds(t *testing.T) {
	ctx := context.Background()
	tab, err := Create(ctx, tempStore(t), "t", CreateOptions{Schema: itemSchema()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	var items []item
	for i := range 300_000 {
		items = append(items, item{ID: fmt.Sprint(i), Val: fmt.Sprintf("S%02d", rng.IntN(40)), Seq: int64(rng.IntN(1_000_000))})
	}
	rows := itemRows(items...)
	if _, err := tab.Append(ctx, rows, AppendOptions{}); err != nil {
		t.Fatal(err)
	}
	before := snap(t, tab)
	if _, err := tab.Optimize(ctx, OptimizeOptions{ZOrderBy: []string{"val", "seq"}, TargetBytes: before.Bytes() / 16}); err != nil {
		t.Fatal(err)
	}
	after := snap(t, tab)
	if hashOf(t, tab, before) != hashOf(t, tab, after) {
		t.Fatal("rows changed")
	}
	n := len(after.Prune(Compare{"val", "=", "S07"}))
	if after.NumFiles() < 3 {
		t.Fatalf("%d files, want at least 3", after.NumFiles())
	}
	if n*2 > after.NumFiles() {
		t.Fatalf("%d of %d files may hold the value", n, after.NumFiles())
	}
}

// Optimize gives way to a merge that changes its files, and loses nothing.
func TestOptimizeYieldsToMerge(t *testing.T) {
	ctx := context.Background()
	store := tempStore(t)
	tab := newItems(t, store, true, nil)
	var want []item
	for d := range 2 {
		for i := range 4 {
			x := item{ID: fmt.Sprintf("d%d-%d", d, i), Day: int32(d), Seq: 1}
			mustMerge(t, tab, itemMerge(), x)
			want = append(want, x)
		}
	}
	other, err := Open(ctx, store, "items", nil)
	if err != nil {
		t.Fatal(err)
	}
	once := sync.Once{}
	res, err := tab.Optimize(ctx, OptimizeOptions{Hook: func(phase string) {
		if phase != "before-commit" {
			return
		}
		once.Do(func() {
			want[0].Seq, want[0].Val = 2, "new"
			mustMerge(t, other, itemMerge(), want[0])
		})
	}})
	if err != nil {
		t.Fatal(err)
	}
	if res.Commits != 2 || res.Yielded != 0 {
		t.Fatalf("%+v", res)
	}
	s := snap(t, tab)
	if got := scanItems(t, tab, s); !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v", got)
	}
	if s.NumFiles() != 2 {
		t.Fatalf("%d files", s.NumFiles())
	}
	if _, err := tab.Vacuum(ctx, VacuumOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if got, want := objects(t, store, "items"), liveObjects(t, s); !reflect.DeepEqual(got, want) {
		t.Fatalf("after the vacuum\n%v\nnot\n%v", got, want)
	}
}

// Merges by several writers while one optimizes: every row is there once, as the model has it.
func TestMergeBesideOptimize(t *testing.T) {
	ctx := context.Background()
	store := tempStore(t)
	newItems(t, store, true, nil)
	opts := &Options{MaxTries: 500, MaxWait: time.Minute}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var mu sync.Mutex
	var all []item
	var wg sync.WaitGroup
	errs := make([]error, 4)
	stop := make(chan struct{})
	for w := range 3 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rng := rand.New(rand.NewPCG(seed, uint64(w)))
			tab, err := Open(ctx, store, "items", opts)
			if err != nil {
				errs[w] = err
				return
			}
			for i := range 8 {
				var b []item
				for k := range 6 {
					b = append(b, item{ID: fmt.Sprintf("k%02d", (rng.IntN(8)+k*8)%40), Day: int32(rng.IntN(2)), Val: fmt.Sprint(rng.IntN(3)), Seq: int64(rng.IntN(6)), Pos: int64(i), Origin: fmt.Sprint("w", w)})
				}
				mu.Lock()
				all = append(all, b...)
				mu.Unlock()
				if _, err := tab.Merge(ctx, itemRows(b...), itemMerge()); err != nil {
					errs[w] = err
					return
				}
			}
		}()
	}
	done := make(chan int)
	go func() {
		commits := 0
		defer func() { done <- commits }()
		tab, err := Open(ctx, store, "items", opts)
		if err != nil {
			errs[3] = err
			return
		}
		for {
			res, err := tab.Optimize(ctx, OptimizeOptions{})
			if err != nil {
				errs[3] = err
				return
			}
			commits += res.Commits
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	wg.Wait()
	close(stop)
	commits := <-done
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d commits of optimize", commits)
	tab, err := Open(ctx, store, "items", nil)
	if err != nil {
		t.Fatal(err)
	}
	s := snap(t, tab)
	if got, want := scanItems(t, tab, s), best(all); !reflect.DeepEqual(got, want) {
		t.Fatalf("got  %+v\nwant %+v", got, want)
	}
	old, err := Open(ctx, store, "items", &Options{Clock: later})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := old.Vacuum(ctx, VacuumOptions{}); err != nil {
		t.Fatal(err)
	}
	if got, want := objects(t, store, "items"), liveObjects(t, s); !reflect.DeepEqual(got, want) {
		t.Fatalf("after the vacuum\n%v\nnot\n%v", got, want)
	}
}

func TestVacuum(t *testing.T) {
	ctx := context.Background()
	store := tempStore(t)
	tab := newItems(t, store, true, nil)
	mustMerge(t, tab, itemMerge(), item{ID: "a", Seq: 1}, item{ID: "b", Seq: 1}, item{ID: "c", Seq: 1})
	mustMerge(t, tab, itemMerge(), item{ID: "a", Seq: 2})
	mustMerge(t, tab, itemMerge(), item{ID: "b", Seq: 2})
	put := func(key string) {
		if err := store.Put(ctx, "items/"+key, strings.NewReader("x"), objstore.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, k := range []string{"day=1970-01-01/part-stray.parquet", "_hidden/x", ".hidden", "_part=1/stray", "deletion_vector_stray.bin", "_change_data/cdc-1.parquet"} {
		put(k)
	}
	if _, err := tab.Vacuum(ctx, VacuumOptions{Retention: time.Hour}); !errors.Is(err, ErrRetention) {
		t.Fatal(err)
	}
	// Everything is young: nothing goes.
	res, err := tab.Vacuum(ctx, VacuumOptions{})
	if err != nil || len(res.Deleted) != 0 {
		t.Fatalf("%+v, %v", res, err)
	}
	s := snap(t, tab)
	want := append(liveObjects(t, s), "items/.hidden", "items/_hidden/x")
	sort.Strings(want)
	old, err := Open(ctx, store, "items", &Options{Clock: later})
	if err != nil {
		t.Fatal(err)
	}
	dry, err := old.Vacuum(ctx, VacuumOptions{DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	before := len(objects(t, store, "items"))
	res, err = old.Vacuum(ctx, VacuumOptions{})
	if err != nil || !reflect.DeepEqual(dry.Deleted, res.Deleted) || before-len(res.Deleted) != len(objects(t, store, "items")) {
		t.Fatalf("dry %+v, %+v, %v", dry, res, err)
	}
	// The strays and the vector that the second one replaced, but no live vector.
	if len(res.Deleted) != 5 {
		t.Fatalf("%v", res.Deleted)
	}
	if got := scanItems(t, tab, s); len(got) != 3 {
		t.Fatalf("%+v", got)
	}
	for _, k := range want {
		if _, err := store.Stat(ctx, k); err != nil {
			t.Fatal(err)
		}
	}
}

func TestVacuumKeepsWhatOlderVersionsNeed(t *testing.T) {
	ctx := context.Background()
	store := tempStore(t)
	tab := newItems(t, store, true, nil)
	mustMerge(t, tab, itemMerge(), item{ID: "a", Seq: 1}, item{ID: "b", Seq: 1})
	mustMerge(t, tab, itemMerge(), item{ID: "a", Seq: 2})
	if _, err := tab.Optimize(ctx, OptimizeOptions{}); err != nil {
		t.Fatal(err)
	}
	at := func(d time.Duration) *Table {
		tab, err := Open(ctx, store, "items", &Options{Clock: func() time.Time { return time.Now().Add(d) }})
		if err != nil {
			t.Fatal(err)
		}
		return tab
	}
	day := 24 * time.Hour
	for _, c := range []struct {
		after, retention time.Duration
		gone             bool
	}{{6 * day, 0, false}, {8 * day, 10 * day, false}, {8 * day, 0, true}} {
		res, err := at(c.after).Vacuum(ctx, VacuumOptions{Retention: c.retention})
		if err != nil || (len(res.Deleted) > 0) != c.gone {
			t.Fatalf("%v: %+v, %v", c, res, err)
		}
	}
	if got := scanItems(t, tab, snap(t, tab)); len(got) != 2 {
		t.Fatalf("%+v", got)
	}
}

func TestRestore(t *testing.T) {
	ctx := context.Background()
	store := tempStore(t)
	tab := newItems(t, store, true, nil)
	mustMerge(t, tab, itemMerge(), item{ID: "a", Seq: 1, Val: "x"}, item{ID: "b", Seq: 1})
	v1 := snap(t, tab)
	mustMerge(t, tab, itemMerge(), item{ID: "a", Seq: 2, Val: "y"}, item{ID: "c", Seq: 1})
	mustMerge(t, tab, itemMerge(), item{ID: "b", Seq: 2})
	want, hash := scanItems(t, tab, v1), hashOf(t, tab, v1)
	res, err := tab.Restore(ctx, v1.Version(), RestoreOptions{})
	if err != nil || !res.Committed {
		t.Fatalf("%+v, %v", res, err)
	}
	s := snap(t, reopen(t, tab))
	if got := scanItems(t, tab, s); !reflect.DeepEqual(got, want) || hashOf(t, tab, s) != hash {
		t.Fatalf("%+v", got)
	}
	if res, err = tab.Restore(ctx, v1.Version(), RestoreOptions{}); err != nil || res.Committed {
		t.Fatalf("%+v, %v", res, err)
	}
	if err := store.Delete(ctx, liveObjects(t, s)[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := tab.Restore(ctx, 0, RestoreOptions{}); err != nil {
		t.Fatal(err) // version 0 has no files
	}
	if _, err := tab.Restore(ctx, v1.Version(), RestoreOptions{}); !errors.Is(err, ErrFilesMissing) {
		t.Fatal(err)
	}
}

// The process ends at any call to the store, in a merge or an optimize. Afterwards the table is as before or as after,
// and a vacuum leaves exactly the files that the log names.
func TestCrashAnywhereLeaksNothing(t *testing.T) {
	testscale.NotAtShort(t, "a table for each call to the store")
	ctx := context.Background()
	ops := map[string]func(tab *Table) error{
		"merge": func(tab *Table) error {
			rows := itemRows(item{ID: "a", Seq: 5, Day: 1}, item{ID: "z", Seq: 5, Day: 2}, item{ID: "b", Seq: 0})
			_, err := tab.Merge(ctx, rows, itemMerge())
			return err
		},
		"optimize": func(tab *Table) error {
			_, err := tab.Optimize(ctx, OptimizeOptions{})
			return err
		},
	}
	for name, op := range ops {
		twoModes(t, func(t *testing.T, vectors bool) {
			for n := 1; ; n++ {
				inner := tempStore(t)
				tab := newItems(t, inner, vectors, nil)
				mustMerge(t, tab, itemMerge(), item{ID: "a", Seq: 1}, item{ID: "b", Seq: 1}, item{ID: "c", Seq: 1})
				mustMerge(t, tab, itemMerge(), item{ID: "c", Seq: 2}, item{ID: "d", Seq: 1})
				before := hashOf(t, tab, snap(t, tab))
				fs := fault.New(inner)
				broken, err := Open(ctx, fs, "items", nil)
				if err != nil {
					t.Fatal(err)
				}
				fs.CrashAt(n)
				opErr := op(broken)
				crashed := fs.Crashed()
				tab, err = Open(ctx, inner, "items", nil)
				if err != nil {
					t.Fatal(err)
				}
				mid := hashOf(t, tab, snap(t, tab))
				if err := op(tab); err != nil {
					t.Fatalf("%s again after a crash at call %d: %v", name, n, err)
				}
				s := snap(t, tab)
				after := hashOf(t, tab, s)
				if mid != before && mid != after {
					t.Fatalf("%s: crash at call %d: neither before nor after", name, n)
				}
				if opErr == nil && mid != after {
					t.Fatalf("%s: crash at call %d: success reported, but not there", name, n)
				}
				if _, err := tab.Vacuum(ctx, VacuumOptions{Force: true}); err != nil {
					t.Fatal(err)
				}
				if got, want := objects(t, inner, "items"), liveObjects(t, s); !reflect.DeepEqual(got, want) {
					t.Fatalf("%s: crash at call %d: after the vacuum\n%v\nnot\n%v", name, n, got, want)
				}
				if !crashed {
					if n < 5 {
						t.Fatalf("only %d calls", n)
					}
					break
				}
			}
		})
	}
}
