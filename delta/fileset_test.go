package delta

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/objstore"
)

// randomAdd gives an action with every member there or not.
func randomAdd(r *rand.Rand, name string) *Add {
	a := &Add{Path: name, Size: r.Int64N(1000), ModificationTime: r.Int64N(1 << 40), DataChange: r.IntN(2) == 0}
	text := func() *string { s := fmt.Sprint("v", r.IntN(5)); return &s }
	if r.IntN(10) > 0 {
		a.PartitionValues = map[string]*string{}
		for _, k := range []string{"day", "city"} {
			switch r.IntN(3) {
			case 0:
				a.PartitionValues[k] = nil
			case 1:
				a.PartitionValues[k] = text()
			}
		}
	}
	if r.IntN(4) > 0 {
		a.Stats = fmt.Sprintf(`{"numRecords":%d}`, r.IntN(100))
	}
	if r.IntN(4) == 0 {
		a.Tags = map[string]*string{"INSERTION_TIME": text(), "none": nil}
	}
	if r.IntN(3) == 0 {
		a.DeletionVector = &DeletionVector{StorageType: "u", PathOrInlineDv: fmt.Sprint("dv", r.IntN(3)), SizeInBytes: 40, Cardinality: 1}
		if r.IntN(2) == 0 {
			o := int32(r.IntN(3))
			a.DeletionVector.Offset = &o
		}
	}
	if r.IntN(3) == 0 {
		v := r.Int64N(1 << 50)
		w := r.Int64N(1 << 20)
		a.BaseRowID, a.DefaultRowCommitVersion = &v, &w
	}
	if r.IntN(5) == 0 {
		p := "liquid"
		a.ClusteringProvider = &p
	}
	return a
}

// A set of files, changed through many snapshots, holds what a plain map would hold, in the order of arrival, and every
// older snapshot still holds what it held.
func TestFileSetAgainstMap(t *testing.T) {
	seed := testscale.Seed(t)
	r := rand.New(rand.NewPCG(seed, 1))
	type state struct {
		set  fileSet
		want []*Add
	}
	var states []state
	var set fileSet
	var want []*Add
	check := func(s state) {
		t.Helper()
		var got []*Add
		var size int64
		for f := range s.set.rows() {
			got = append(got, f.add(f.i))
			size += f.add(f.i).Size
		}
		if len(got) != len(s.want) || s.set.n != len(s.want) || size != s.set.bytes {
			t.Fatalf("%d files and %d bytes counted, %d of %d bytes there, %d wanted", s.set.n, s.set.bytes, len(got), size, len(s.want))
		}
		for i := range got {
			if !reflect.DeepEqual(got[i], s.want[i]) {
				t.Fatalf("file %d is\n%+v\nnot\n%+v", i, got[i], s.want[i])
			}
		}
	}
	for range 300 {
		b := newFileSetBuilder(set)
		want = append([]*Add(nil), want...)
		for range r.IntN(40) {
			if len(want) > 0 && r.IntN(5) < 2 {
				i := r.IntN(len(want))
				if !b.kill(want[i].Path, want[i].DeletionVector) {
					t.Fatalf("%s was there", want[i].Path)
				}
				want = append(want[:i:i], want[i+1:]...)
				continue
			}
			a := randomAdd(r, fmt.Sprintf("dir/f%d%%20x", r.IntN(3000)))
			for i, w := range want {
				if w.key() == a.key() {
					want = append(want[:i:i], want[i+1:]...)
					break
				}
			}
			b.kill(a.Path, a.DeletionVector)
			b.add(a)
			want = append(want, a)
		}
		if b.kill("nowhere", nil) {
			t.Fatal("a file that never was has been taken out")
		}
		set = b.finish()
		states = append(states, state{set, want})
		check(states[len(states)-1])
		if n := len(set.chunks); n > 20 {
			t.Fatalf("%d chunks for %d files", n, set.n)
		}
	}
	for _, s := range states {
		check(s)
	}
}

// What a checkpoint gives column by column is what it gives row by row.
func TestCheckpointColumnsAgainstRows(t *testing.T) {
	seed := testscale.Seed(t)
	r := rand.New(rand.NewPCG(seed, 2))
	ctx := context.Background()
	store := tempStore(t)
	for round := range 8 {
		n := []int{0, 1, 7, 1000, 1024, 1025, 5000, checkpointGroupRows + 10}[round]
		var adds []*Add
		var actions iter.Seq[*checkpointAction] = func(yield func(*checkpointAction) bool) {
			if !yield(&checkpointAction{wireAction: wireAction{Protocol: &Protocol{MinReaderVersion: 1, MinWriterVersion: 2}}}) {
				return
			}
			for i := range n {
				if r.IntN(10) == 0 && !yield(&checkpointAction{wireAction: wireAction{Remove: &Remove{Path: fmt.Sprint("r", i), DeletionTimestamp: int64(i)}}}) {
					return
				}
				a := randomAdd(r, fmt.Sprint("f", i))
				a.DataChange = false
				if a.PartitionValues == nil {
					a.PartitionValues = map[string]*string{}
				}
				adds = append(adds, a)
				if !yield(&checkpointAction{wireAction: wireAction{Add: a}}) {
					return
				}
			}
		}
		var buf bytes.Buffer
		if _, err := encodeCheckpoint(&buf, plainShape, actions); err != nil {
			t.Fatal(err)
		}
		key := fmt.Sprint("c", round)
		if err := store.Put(ctx, key, io.Reader(&buf), objstore.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		others := 0
		chunks, err := readCheckpointAdds(ctx, store, key, true, func(a *checkpointAction) error {
			if a.Add != nil {
				return fmt.Errorf("the file with %d adds was read row by row", n)
			}
			others++
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		b := newFileSetBuilder(fileSet{})
		b.take(chunks)
		set := b.finish()
		var got []*Add
		for f := range set.rows() {
			got = append(got, f.add(f.i))
		}
		if len(got) != len(adds) || set.n != len(adds) || others == 0 {
			t.Fatalf("%d adds of %d, %d other actions", len(got), len(adds), others)
		}
		for i := range adds {
			if !reflect.DeepEqual(got[i], adds[i]) {
				t.Fatalf("add %d is\n%+v\nnot\n%+v", i, got[i], adds[i])
			}
			if _, _, ok := set.find(adds[i].Path, nil); !ok {
				t.Fatalf("%s is not found", adds[i].Path)
			}
		}
	}
}

// A snapshot that follows the log commit by commit is the one that is read at once.
func TestSnapshotFollowsLog(t *testing.T) {
	ctx := context.Background()
	tab := newTestTable(t, nil, CreateOptions{})
	r := rand.New(rand.NewPCG(testscale.Seed(t), 3))
	for i := range 150 {
		s := mustSnapshot(t, tab)
		x := tab.Begin(s)
		n := 0
		for _, a := range s.Adds() {
			if r.IntN(8) == 0 && n < 5 {
				x.RemoveFile(a.Tombstone(time.Now().UnixMilli(), true))
				n++
			}
		}
		for k := range r.IntN(4) + 1 {
			a := randomAdd(r, fmt.Sprintf("f%d-%d", i, k))
			a.DataChange, a.DeletionVector, a.PartitionValues = true, nil, map[string]*string{}
			x.AddFile(a)
		}
		if _, err := x.Commit(ctx, CommitOptions{Operation: "WRITE"}); err != nil {
			t.Fatal(err)
		}
		if i%37 == 0 {
			followed, fresh := mustSnapshot(t, tab), mustSnapshot(t, newTable(tab.store, tab.path, nil))
			if followed.Version() != fresh.Version() || followed.NumFiles() != fresh.NumFiles() || followed.Bytes() != fresh.Bytes() {
				t.Fatalf("%d: %d files of %d bytes, %d of %d bytes", followed.Version(), followed.NumFiles(), followed.Bytes(), fresh.NumFiles(), fresh.Bytes())
			}
			for _, a := range fresh.Adds() {
				b, ok := followed.File(a.Path)
				if !ok || b.Stats != a.Stats || b.Size != a.Size {
					t.Fatalf("%s: %+v, %+v", a.Path, a, b)
				}
			}
			if x, y := len(followed.Tombstones()), len(fresh.Tombstones()); x != y {
				t.Fatalf("%d tombstones, %d", x, y)
			}
		}
	}
}
