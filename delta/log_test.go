package delta

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

func testSchema() *Schema {
	return &Schema{Fields: []Field{
		{Name: "id", Type: Long, Nullable: true},
		{Name: "name", Type: String, Nullable: true},
		{Name: "day", Type: Date, Nullable: true},
	}}
}

func newTestTable(t *testing.T, opts *Options, c CreateOptions) *Table {
	t.Helper()
	if c.Schema == nil {
		c.Schema = testSchema()
	}
	tab, err := Create(context.Background(), localStore(t, t.TempDir()), "t", c, opts)
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

func testAdd(path string, values ...string) *Add {
	pv := map[string]*string{}
	for i := 0; i+1 < len(values); i += 2 {
		pv[values[i]] = &values[i+1]
	}
	return &Add{Path: path, PartitionValues: pv, Size: 10, ModificationTime: 1, DataChange: true}
}

func mustSnapshot(t *testing.T, tab *Table) *Snapshot {
	t.Helper()
	s, err := tab.Snapshot(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// byPath gives all live files by canonical path.
func (s *Snapshot) byPath() map[string]*Add {
	m := map[string]*Add{}
	for _, a := range s.Adds() {
		m[canonicalPath(a.Path)] = a
	}
	return m
}

func paths(s *Snapshot) []string {
	var out []string
	for _, a := range s.Adds() {
		out = append(out, a.Path)
	}
	return out
}

func TestCreateCommitCheckpointTravel(t *testing.T) {
	ctx := context.Background()
	tab := newTestTable(t, nil, CreateOptions{})
	if _, err := Create(ctx, tab.Store(), "t", CreateOptions{Schema: testSchema()}, nil); !errors.Is(err, ErrTableExists) {
		t.Fatalf("second Create: %v", err)
	}
	for i := 1; i <= 25; i++ {
		x := tab.Begin(mustSnapshot(t, tab))
		x.AddFile(testAdd(fmt.Sprintf("f%02d", i)))
		if i%5 == 0 {
			x.RemoveFile(x.Base().byPath()[fmt.Sprintf("f%02d", i-1)].Tombstone(time.Now().UnixMilli(), true))
		}
		x.SetTxn(Txn{AppID: "app", Version: int64(i)})
		res, err := x.Commit(ctx, CommitOptions{Operation: "WRITE", UserMetadata: fmt.Sprint("m", i)})
		if err != nil || res.CheckpointErr != nil || res.Version != Version(i) {
			t.Fatal(i, res, err)
		}
	}
	for _, tb := range []*Table{tab, reopen(t, tab)} {
		s := mustSnapshot(t, tb)
		if s.Version() != 25 || s.NumFiles() != 20 || len(s.Tombstones()) != 5 {
			t.Fatalf("version %d, %d files, %d tombstones", s.Version(), s.NumFiles(), len(s.Tombstones()))
		}
		if v, ok := s.Txn("app"); !ok || v != 25 {
			t.Fatal("txn", v, ok)
		}
		for v := Version(0); v <= 25; v++ {
			old, err := tb.SnapshotAt(ctx, v)
			if err != nil {
				t.Fatal(err)
			}
			if want := int(v) - int(v)/5; old.Version() != v || old.NumFiles() != want {
				t.Fatalf("version %d: %d files, want %d", v, old.NumFiles(), want)
			}
		}
		_, err := tb.SnapshotAt(ctx, 26)
		var ve *VersionError
		if !errors.As(err, &ve) || ve.Latest != 25 || ve.Earliest != 0 {
			t.Fatal(err)
		}
	}
	h, err := tab.History(ctx, 3)
	if err != nil || len(h) != 3 || h[0].Version != 25 || h[0].Info.UserMetadata != "m25" {
		t.Fatal(h, err)
	}
}

func reopen(t *testing.T, tab *Table) *Table {
	t.Helper()
	n, err := Open(context.Background(), tab.Store(), tab.Path(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestConcurrentAppendsAllLand(t *testing.T) {
	ctx := context.Background()
	tab := newTestTable(t, nil, CreateOptions{})
	const writers, each = 4, 20
	var wg sync.WaitGroup
	for w := range writers {
		mine := reopen(t, tab)
		wg.Go(func() {
			for i := range each {
				s, err := mine.Snapshot(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				x := mine.Begin(s)
				x.AddFile(testAdd(fmt.Sprintf("w%d-%d", w, i)))
				if _, err := x.Commit(ctx, CommitOptions{BlindAppend: true}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	s := mustSnapshot(t, tab)
	if s.Version() != writers*each || s.NumFiles() != writers*each {
		t.Fatalf("version %d with %d files", s.Version(), s.NumFiles())
	}
}
