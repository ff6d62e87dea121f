package delta

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/objstore"
)

// Every table of other engines that this package may write to survives a vacuum after all retentions have passed, with
// each row that it had: live deletion vectors above all, which another implementation deletes.
func TestGoldenTablesSurviveVacuum(t *testing.T) {
	testscale.NotAtShort(t, "each table is copied, twice")
	root, tables := goldenTables(t)
	ctx := context.Background()
	done, vectors, deleted := 0, 0, 0
	for _, g := range tables {
		src := filepath.Join(root, g.dir)
		if tab, err := Open(ctx, localStore(t, src), "", nil); err != nil {
			continue // refused, or not read: other tests say whether that is right
		} else if s := mustSnapshot(t, tab); s.CheckWrite() != nil {
			continue
		}
		for _, lite := range []bool{false, true} {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(src)); err != nil {
				t.Fatal(err)
			}
			far := func() time.Time { return time.Now().AddDate(1, 0, 0) }
			tab, err := Open(ctx, localStore(t, dir), "", &Options{Clock: far})
			if err != nil {
				t.Fatal(err)
			}
			before, err := LogicalHash(ctx, tab, mustSnapshot(t, tab))
			if err != nil {
				continue
			}
			res, err := tab.Vacuum(ctx, VacuumOptions{Lite: lite})
			if lite && errors.Is(err, ErrLogCleanedUp) {
				continue
			}
			if err != nil {
				t.Fatalf("%s: %v", g.dir, err)
			}
			fresh, err := Open(ctx, localStore(t, dir), "", nil)
			if err != nil {
				t.Fatalf("%s after the vacuum: %v", g.dir, err)
			}
			s := mustSnapshot(t, fresh)
			if after, err := LogicalHash(ctx, fresh, s); err != nil || after != before {
				t.Fatalf("%s after the vacuum (lite: %v) of %v: %v; hash %s, was %s", g.dir, lite, res.Deleted, err, after, before)
			}
			for _, a := range s.Adds() {
				if a.DeletionVector != nil && a.DeletionVector.StorageType != "i" {
					vectors++
				}
			}
			done, deleted = done+1, deleted+len(res.Deleted)
		}
	}
	t.Logf("%d vacuums, %d files deleted, %d live deletion-vector files kept", done, deleted, vectors)
	if done < 40 || deleted == 0 || vectors < 10 {
		t.Fatalf("only %d vacuums, %d files deleted, %d live deletion vectors", done, deleted, vectors)
	}
}

// A lite vacuum deletes what commits removed, nothing else, and begins the next time where it ended.
func TestVacuumLite(t *testing.T) {
	ctx := context.Background()
	store := tempStore(t)
	tab := newItems(t, store, true, nil)
	mustMerge(t, tab, itemMerge(), item{ID: "a", Seq: 1}, item{ID: "b", Seq: 1}, item{ID: "c", Seq: 1})
	mustMerge(t, tab, itemMerge(), item{ID: "a", Seq: 2})
	mustMerge(t, tab, itemMerge(), item{ID: "b", Seq: 2})
	if _, err := tab.Optimize(ctx, OptimizeOptions{}); err != nil {
		t.Fatal(err)
	}
	const stray = "items/day=1970-01-01/part-stray.parquet"
	if err := store.Put(ctx, stray, strings.NewReader("x"), objstore.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	s := snap(t, tab)
	want := append(liveObjects(t, s), stray)
	slices.Sort(want)
	if res, err := tab.Vacuum(ctx, VacuumOptions{Lite: true}); err != nil || len(res.Deleted) > 0 {
		t.Fatalf("young files went: %+v, %v", res, err)
	}
	old, err := Open(ctx, store, "items", &Options{Clock: later})
	if err != nil {
		t.Fatal(err)
	}
	res, err := old.Vacuum(ctx, VacuumOptions{Lite: true})
	if err != nil || len(res.Deleted) == 0 {
		t.Fatalf("%+v, %v", res, err)
	}
	if got := objects(t, store, "items"); !reflect.DeepEqual(got, want) {
		t.Fatalf("after a lite vacuum\n%v\nnot\n%v", got, want)
	}
	history, err := old.History(ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	end, start := history[0].Info, history[1].Info
	n := fmt.Sprint(len(res.Deleted))
	if start.Operation != "VACUUM START" || start.OperationMetrics["numFilesToDelete"] != n || start.OperationMetrics["sizeOfDataToDelete"] != fmt.Sprint(res.Bytes) ||
		end.Operation != "VACUUM END" || end.OperationMetrics["numDeletedFiles"] != n || end.OperationParameters["status"] != "COMPLETED" {
		t.Fatalf("%+v\n%+v", start, end)
	}
	// Version 0 is not needed any more; without what the first vacuum noted it would be.
	if err := store.Delete(ctx, tab.commitKey(0)); err != nil {
		t.Fatal(err)
	}
	if err := old.writeCheckpointForTest(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := old.Vacuum(ctx, VacuumOptions{Lite: true}); err != nil {
		t.Fatal(err)
	}
	if err := store.Delete(ctx, tab.logKey(vacuumInfoName)); err != nil {
		t.Fatal(err)
	}
	if _, err := old.Vacuum(ctx, VacuumOptions{Lite: true}); !errors.Is(err, ErrLogCleanedUp) {
		t.Fatal(err)
	}
}

func (t *Table) writeCheckpointForTest(ctx context.Context) error {
	_, err := t.Checkpoint(ctx)
	return err
}

// An inventory stands for the listing: what it does not name stays.
func TestVacuumInventory(t *testing.T) {
	ctx := context.Background()
	store := tempStore(t)
	tab := newItems(t, store, true, nil)
	mustMerge(t, tab, itemMerge(), item{ID: "a", Seq: 1})
	for _, k := range []string{"named.parquet", "unnamed.parquet"} {
		if err := store.Put(ctx, "items/"+k, strings.NewReader("x"), objstore.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	live := liveObjects(t, snap(t, tab))
	res, err := tab.Vacuum(ctx, VacuumOptions{Force: true, Inventory: func(yield func(objstore.Info, error) bool) {
		_ = yield(objstore.Info{Key: "items/named.parquet"}, nil) && yield(objstore.Info{Key: live[0]}, nil) && yield(objstore.Info{Key: "elsewhere"}, nil)
	}})
	if err != nil || !slices.Equal(res.Deleted, []string{"items/named.parquet"}) {
		t.Fatalf("%+v, %v", res, err)
	}
}

// REORG PURGE rewrites the files with deletion vectors, all of them and no other.
func TestPurge(t *testing.T) {
	ctx := context.Background()
	tab := newItems(t, tempStore(t), true, nil)
	mustMerge(t, tab, itemMerge(), item{ID: "a", Seq: 1}, item{ID: "b", Seq: 1}, item{ID: "c", Seq: 1})
	mustMerge(t, tab, itemMerge(), item{ID: "d", Seq: 1, Day: 9})
	mustMerge(t, tab, itemMerge(), item{ID: "a", Seq: 2, Day: 5})
	s := snap(t, tab)
	hash := hashOf(t, tab, s)
	clean := map[string]bool{}
	marked := 0
	for _, a := range s.Adds() {
		if a.DeletionVector == nil {
			clean[a.Path] = true
		} else {
			marked++
		}
	}
	res, err := tab.Optimize(ctx, OptimizeOptions{Purge: true})
	if err != nil || marked == 0 || res.VectorsRemoved != marked || res.FilesRemoved != marked || res.Metrics["numDeletionVectorsRemoved"] != fmt.Sprint(marked) {
		t.Fatalf("%d files with vectors: %+v, %v", marked, res, err)
	}
	s = snap(t, reopen(t, tab))
	for _, a := range s.Adds() {
		if a.DeletionVector != nil {
			t.Errorf("%s still has a deletion vector", a.Path)
		}
		delete(clean, a.Path)
	}
	if len(clean) > 0 || hashOf(t, tab, s) != hash {
		t.Fatalf("rewritten without need: %v", clean)
	}
	history, err := tab.History(ctx, 1)
	if err != nil || history[0].Info.Operation != "REORG" || history[0].Info.OperationParameters["applyPurge"] != "true" {
		t.Fatalf("%+v, %v", history, err)
	}
	if res, err := tab.Optimize(ctx, OptimizeOptions{Purge: true}); err != nil || res.Commits != 0 {
		t.Fatalf("%+v, %v", res, err)
	}
}

// OPTIMIZE of a clustered table touches the files that have come since, and small cubes, and leaves large cubes and the
// files of other implementations alone.
func TestClustering(t *testing.T) {
	ctx := context.Background()
	tab, err := Create(ctx, tempStore(t), "items", CreateOptions{Schema: itemSchema(), Config: map[string]string{"delta.enableDeletionVectors": "true"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := snap(t, tab)
	x := tab.Begin(s)
	p := s.Protocol()
	p.MinWriterVersion = 7
	p.WriterFeatures = append(slices.Clone(p.WriterFeatures), "clustering", "domainMetadata")
	x.SetProtocol(p)
	x.SetDomain(DomainMetadata{Domain: clusteringDomain, Configuration: `{"clusteringColumns":[["val"],["seq"]]}`})
	if _, err := x.Commit(ctx, CommitOptions{Operation: "CLUSTER BY"}); err != nil {
		t.Fatal(err)
	}
	if by, err := snap(t, tab).ClusterBy(); err != nil || !slices.Equal(by, []string{"val", "seq"}) {
		t.Fatal(by, err)
	}
	for i := range 4 {
		mustMerge(t, tab, itemMerge(), item{ID: fmt.Sprint("a", i), Val: "v", Seq: int64(i)}, item{ID: fmt.Sprint("b", i), Val: "w", Seq: int64(i)})
	}
	hash := hashOf(t, tab, snap(t, tab))
	if _, err := tab.Optimize(ctx, OptimizeOptions{ZOrderBy: []string{"val"}}); !errors.Is(err, ErrClustered) {
		t.Fatal(err)
	}
	optimize := func(o OptimizeOptions, removed int) {
		t.Helper()
		res, err := tab.Optimize(ctx, o)
		if err != nil || res.FilesRemoved != removed {
			t.Fatalf("%+v, %v; %d files were to be clustered", res, err, removed)
		}
		if s := snap(t, reopen(t, tab)); hashOf(t, tab, s) != hash {
			t.Fatal("rows changed")
		}
	}
	optimize(OptimizeOptions{}, 4)
	optimize(OptimizeOptions{}, 0)
	for _, a := range snap(t, tab).Adds() {
		if cubeOf(a, `["val","seq"]`) == "" {
			t.Fatalf("%+v is in no cube", a)
		}
	}
	// A small cube goes on growing; a large one, and the files of others, are left alone. Sizes are what the log says.
	mustMerge(t, tab, itemMerge(), item{ID: "c", Val: "x"})
	hash = hashOf(t, tab, snap(t, tab))
	optimize(OptimizeOptions{}, 2)
	change := func(f func(a *Add)) {
		t.Helper()
		x := tab.Begin(snap(t, tab))
		for _, a := range snap(t, tab).Adds() {
			x.RemoveFile(a.Tombstone(1, false))
			a.DataChange = false
			a.Path = strings.Clone(a.Path)
			f(a)
			x.AddFile(a)
		}
		if _, err := x.Commit(ctx, CommitOptions{Operation: "TEST"}); err != nil {
			t.Fatal(err)
		}
	}
	change(func(a *Add) { a.Size = cubeBytes })
	mustMerge(t, tab, itemMerge(), item{ID: "d", Val: "y"})
	hash = hashOf(t, tab, snap(t, tab))
	optimize(OptimizeOptions{}, 1)
	change(func(a *Add) { other := "liquid"; a.ClusteringProvider = &other })
	optimize(OptimizeOptions{}, 0)
	optimize(OptimizeOptions{Full: true}, 2)
}

// A table that is said to be clustered by a column that it does not have, or in a way that is not known here, can be clustered
// otherwise.
func TestClusteringThatCannotBeReadIsReplaced(t *testing.T) {
	ctx := context.Background()
	for _, was := range []string{`{"clusteringColumns":[["gone"]]}`, `{"clusteringColumns":[["val","inner"]]}`, `{`} {
		for _, by := range [][]string{nil, {"seq"}} {
			tab, err := Create(ctx, tempStore(t), "items", CreateOptions{Schema: itemSchema(), ClusterBy: []string{"val"}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			x := tab.Begin(snap(t, tab))
			x.SetDomain(DomainMetadata{Domain: clusteringDomain, Configuration: was})
			if _, err := x.Commit(ctx, CommitOptions{Operation: "CLUSTER BY"}); err != nil {
				t.Fatal(err)
			}
			if _, err := tab.SetClusterBy(ctx, by, AlterOptions{}); err != nil {
				t.Fatalf("%s: %v", was, err)
			}
			if is, err := snap(t, tab).ClusterBy(); err != nil || !slices.Equal(is, by) {
				t.Errorf("%s: clustered by %q, %v; want %q", was, is, err, by)
			}
		}
	}
}

// A restored table is clustered as it was then, also where a column that it is clustered by now did not exist yet.
func TestRestoreBringsTheClusteringBack(t *testing.T) {
	ctx := context.Background()
	tab, err := Create(ctx, tempStore(t), "items", CreateOptions{Schema: itemSchema(), ClusterBy: []string{"val"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	mustMerge(t, tab, itemMerge(), item{ID: "a", Val: "v"})
	clustered := snap(t, tab).Version()
	if _, err := tab.SetClusterBy(ctx, nil, AlterOptions{}); err != nil {
		t.Fatal(err)
	}
	plain := snap(t, tab).Version()
	if _, err := tab.AddColumns(ctx, []NewColumn{{Path: []string{"more"}, Type: String}}, AlterOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := tab.SetClusterBy(ctx, []string{"more"}, AlterOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, to := range []struct {
		version Version
		by      []string
	}{{plain, nil}, {clustered, []string{"val"}}, {plain, nil}, {0, []string{"val"}}} {
		if _, err := tab.Restore(ctx, to.version, RestoreOptions{}); err != nil {
			t.Fatal(err)
		}
		if by, err := snap(t, reopen(t, tab)).ClusterBy(); err != nil || !slices.Equal(by, to.by) {
			t.Fatalf("restored to version %d: clustered by %q, %v; want %q", to.version, by, err, to.by)
		}
		if _, err := tab.Optimize(ctx, OptimizeOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// The log is cleaned of UUID-named checkpoints and of sidecars that no checkpoint left names, of nothing else.
func TestCleanupSidecars(t *testing.T) {
	ctx := context.Background()
	now := time.Now()
	tab := newTestTable(t, &Options{Clock: func() time.Time { return now }}, CreateOptions{})
	key := func(name string) string { return tab.logKey(name) }
	var keep, gone []string
	for v := Version(1); v <= 6; v++ {
		appendFile(t, tab, fmt.Sprint("f", v))
		if v != 2 && v != 4 {
			continue
		}
		// A V2 checkpoint as another writer writes it: JSON at the top, the files in a sidecar.
		s := mustSnapshot(t, tab)
		sidecar, top := fmt.Sprintf("%036d.parquet", v), fmt.Sprintf("%020d.checkpoint.%036d.json", v, v)
		var text strings.Builder
		for a := range s.checkpointActions() {
			if a.Add == nil && a.Remove == nil {
				b, err := marshal(a.wireAction)
				if err != nil {
					t.Fatal(err)
				}
				text.Write(append(b, '\n'))
			}
		}
		fmt.Fprintf(&text, `{"checkpointMetadata":{"version":%d}}`+"\n"+`{"sidecar":{"path":%q,"sizeInBytes":1,"modificationTime":1}}`+"\n", v, sidecar)
		var file strings.Builder
		if _, err := encodeCheckpoint(&file, plainShape, func(yield func(*checkpointAction) bool) {
			for a := range s.checkpointActions() {
				if (a.Add != nil || a.Remove != nil) && !yield(a) {
					return
				}
			}
		}); err != nil {
			t.Fatal(err)
		}
		for name, content := range map[string]string{"_sidecars/" + sidecar: file.String(), top: text.String()} {
			if err := tab.store.Put(ctx, key(name), io.Reader(strings.NewReader(content)), objstore.PutOptions{}); err != nil {
				t.Fatal(err)
			}
			if v == 2 {
				gone = append(gone, key(name))
			} else {
				keep = append(keep, key(name))
			}
		}
	}
	if err := tab.store.Put(ctx, key("_sidecars/orphan.parquet"), strings.NewReader("x"), objstore.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	for v := Version(0); v < 4; v++ {
		gone = append(gone, tab.commitKey(v), tab.checksumKey(v))
	}
	for v := Version(4); v <= 6; v++ {
		keep = append(keep, tab.commitKey(v), tab.checksumKey(v))
	}
	want := stateText(mustSnapshot(t, tab))
	if res, err := tab.CleanupLog(ctx, CleanupOptions{}); err != nil || len(res.Deleted) > 0 {
		t.Fatalf("young entries went: %+v, %v", res, err)
	}
	now = now.AddDate(0, 2, 0)
	res, err := tab.CleanupLog(ctx, CleanupOptions{})
	gone = append(gone, key("_sidecars/orphan.parquet"))
	slices.Sort(gone)
	slices.Sort(res.Deleted)
	if err != nil || !slices.Equal(res.Deleted, gone) {
		t.Fatalf("deleted\n%s\nnot\n%s\n%v", strings.Join(res.Deleted, "\n"), strings.Join(gone, "\n"), err)
	}
	for _, k := range keep {
		if _, err := tab.store.Stat(ctx, k); err != nil {
			t.Error(err)
		}
	}
	if got := stateText(mustSnapshot(t, reopen(t, tab))); got != want {
		t.Fatalf("state\n%s, want\n%s", got, want)
	}
}
