package delta

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/objstore"
)

func ptr[T any](v T) *T { return &v }

// sampleActions has each action once with every member, and once with as few as possible.
func sampleActions() []*checkpointAction {
	wire := func(w wireAction) *checkpointAction { return &checkpointAction{wireAction: w} }
	return []*checkpointAction{
		wire(wireAction{Protocol: &Protocol{MinReaderVersion: 3, MinWriterVersion: 7, ReaderFeatures: []string{"deletionVectors"}, WriterFeatures: []string{"deletionVectors", "appendOnly"}}}),
		wire(wireAction{Protocol: &Protocol{MinReaderVersion: 1, MinWriterVersion: 2}}),
		wire(wireAction{Metadata: &Metadata{ID: "id", Name: "n", Description: "d", Format: Format{Provider: "parquet", Options: map[string]string{}},
			SchemaString: `{"type":"struct","fields":[]}`, PartitionColumns: []string{"a", "b"}, Configuration: map[string]string{"k": "v", "l": ""}, CreatedTime: ptr(int64(5)), named: true, described: true}}),
		wire(wireAction{Txn: &Txn{AppID: "app", Version: 7, LastUpdated: ptr(int64(9))}}),
		wire(wireAction{Txn: &Txn{AppID: "app2", Version: 0}}),
		wire(wireAction{DomainMetadata: &DomainMetadata{Domain: "d", Configuration: "{}"}}),
		wire(wireAction{Add: &Add{Path: "a%20b=1/x.parquet", PartitionValues: map[string]*string{"a b": ptr("1"), "c": nil}, Size: 12, ModificationTime: 34,
			Stats: `{"numRecords":3}`, Tags: map[string]*string{"t": ptr("u")}, BaseRowID: ptr(int64(4)), DefaultRowCommitVersion: ptr(int64(2)), ClusteringProvider: ptr("liquid"),
			DeletionVector: &DeletionVector{StorageType: "u", PathOrInlineDv: "ab", Offset: ptr(int32(1)), SizeInBytes: 36, Cardinality: 2}}}),
		wire(wireAction{Add: &Add{Path: "y.parquet", PartitionValues: map[string]*string{}}}),
		wire(wireAction{Remove: &Remove{Path: "z.parquet", DeletionTimestamp: 77, ExtendedFileMetadata: true, PartitionValues: map[string]*string{"c": nil}, Size: ptr(int64(3)),
			DeletionVector: &DeletionVector{StorageType: "i", PathOrInlineDv: "wi5b=", SizeInBytes: 4, Cardinality: 1}}}),
		wire(wireAction{Remove: &Remove{Path: "w.parquet"}}),
	}
}

func readAll(t *testing.T, store objstore.Store, key string) ([]*checkpointAction, error) {
	t.Helper()
	var out []*checkpointAction
	err := readCheckpointFile(context.Background(), store, key, func(a *checkpointAction) error { out = append(out, a); return nil })
	return out, err
}

func localStore(t *testing.T, dir string) objstore.Store {
	t.Helper()
	s, err := objstore.NewLocal(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCheckpointFileKeepsEveryAction(t *testing.T) {
	store := localStore(t, t.TempDir())
	want := sampleActions()
	// More rows than one batch holds, so that flushing in the middle is seen.
	for range checkpointBatchRows {
		want = append(want, sampleActions()[7])
	}
	rows, size, err := writeCheckpointFile(context.Background(), store, "t/_delta_log/c.parquet", plainShape, slices.Values(want))
	if err != nil {
		t.Fatal(err)
	}
	info, err := store.Stat(context.Background(), "t/_delta_log/c.parquet")
	if err != nil || info.Size != size || rows != int64(len(want)) {
		t.Fatalf("wrote %d rows and %d bytes, want %d rows and %d bytes (%v)", rows, size, len(want), info.Size, err)
	}
	got, err := readAll(t, store, "t/_delta_log/c.parquet")
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("%d actions read, %d written", len(got), len(want))
	}
	for i := range want {
		if !reflect.DeepEqual(got[i], want[i]) {
			g, _ := marshal(got[i].wireAction)
			w, _ := marshal(want[i].wireAction)
			t.Fatalf("action %d:\n got %s\nwant %s", i, g, w)
		}
	}
}

func TestCheckpointFileDamaged(t *testing.T) {
	dir := t.TempDir()
	store := localStore(t, dir)
	if _, _, err := writeCheckpointFile(context.Background(), store, "c.parquet", plainShape, slices.Values(sampleActions())); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(dir, "c.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	damaged := map[string][]byte{
		"empty":     {},
		"not it":    []byte(strings.Repeat("garbage ", 40)),
		"cut":       whole[:len(whole)/2],
		"no footer": whole[:len(whole)-8],
		"footer":    append(bytes.Clone(whole[:len(whole)-20]), bytes.Repeat([]byte{0xff}, 20)...),
	}
	for name, b := range damaged {
		if err := os.WriteFile(filepath.Join(dir, "d.parquet"), b, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := readAll(t, store, "d.parquet"); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: error %v, want ErrCorrupt", name, err)
		}
	}
	if _, err := readAll(t, store, "missing.parquet"); !errors.Is(err, objstore.ErrNotFound) {
		t.Errorf("missing: error %v, want ErrNotFound", err)
	}
}

func FuzzReadCheckpointFile(f *testing.F) {
	dir := f.TempDir()
	store, err := objstore.NewLocal(dir)
	if err != nil {
		f.Fatal(err)
	}
	if _, _, err := writeCheckpointFile(context.Background(), store, "c.parquet", plainShape, slices.Values(sampleActions())); err != nil {
		f.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(dir, "c.parquet"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Fuzz(func(t *testing.T, b []byte) {
		store := localStore(t, t.TempDir())
		if err := store.Put(context.Background(), "c.parquet", bytes.NewReader(b), objstore.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		_, _ = readAll(t, store, "c.parquet")
	})
}

// Checkpoints of other writers: every Parquet checkpoint of the golden tables is read, and names at least one file,
// protocol or metadata.
func TestCheckpointFilesOfOtherWriters(t *testing.T) {
	root := prereq.Need(t, "shared")
	var files int
	err := filepath.WalkDir(filepath.Join(root, "delta-golden"), func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Base(filepath.Dir(p)) != "_delta_log" || !strings.HasSuffix(p, ".parquet") || !strings.Contains(d.Name(), ".checkpoint.") {
			return err
		}
		if strings.Contains(p, "corrupt") || strings.Contains(p, "invalid") {
			return nil
		}
		if st, err := d.Info(); err != nil || st.Size() == 0 {
			return err
		}
		files++
		store := localStore(t, filepath.Dir(p))
		actions, err := readAll(t, store, d.Name())
		if err != nil {
			t.Errorf("%s: %v", p, err)
			return nil
		}
		if len(actions) == 0 && strings.Count(d.Name(), ".") == 2 { // one of several parts may be empty
			t.Errorf("%s: no action", p)
		}
		for _, a := range actions {
			if a.Add != nil && a.Add.Stats != "" {
				if _, err := ParseStats(a.Add.Stats); err != nil {
					t.Errorf("%s: %s: %v", p, a.Add.Path, err)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files == 0 {
		t.Fatal("no checkpoint found")
	}
	t.Logf("%d checkpoint files read", files)
}

// staleOnce is a store whose next listing lacks the newest object.
type staleOnce struct {
	objstore.Store
	stale bool
}

func (s *staleOnce) List(ctx context.Context, prefix, startAfter string) iter.Seq2[objstore.Info, error] {
	var all []objstore.Info
	for info, err := range s.Store.List(ctx, prefix, startAfter) {
		if err != nil {
			return func(yield func(objstore.Info, error) bool) { yield(info, err) }
		}
		all = append(all, info)
	}
	if s.stale {
		all, s.stale = all[:len(all)-1], false
	}
	return func(yield func(objstore.Info, error) bool) {
		for _, info := range all {
			if !yield(info, nil) {
				return
			}
		}
	}
}

// A torn checkpoint is stood in for by its commit, also where the first listing does not show that commit yet.
func TestTornCheckpointBesideAStaleListing(t *testing.T) {
	ctx, mem := context.Background(), objstore.NewMemory(nil)
	tab, err := Create(ctx, mem, "t", CreateOptions{Schema: simSchema()}, &Options{NoChecksum: true})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		if _, err := tab.Append(ctx, simRows([]simRow{{fmt.Sprint("a", i), "d0", 1}}), AppendOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := mem.Put(ctx, "t/_delta_log/00000000000000000004.checkpoint.parquet", strings.NewReader("PAR1 and no more"), objstore.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	again, err := Open(ctx, &staleOnce{mem, true}, "t", nil)
	if err != nil {
		t.Fatal(err)
	}
	if v := mustSnapshot(t, again).Version(); v != 4 {
		t.Errorf("version %d, want 4", v)
	}
}
