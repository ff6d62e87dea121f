package delta

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cauce-data/cauce/delta/expr"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/objstore/fault"
)

// noSleep makes retries immediate.
func noSleep(o Options) *Options {
	o.Sleep = func(ctx context.Context, _ time.Duration) error { return ctx.Err() }
	o.Jitter = func() float64 { return 0 }
	return &o
}

func faultTable(t *testing.T, c CreateOptions, opts *Options) (*Table, *fault.Store) {
	t.Helper()
	store := fault.New(objstore.NewMemory(nil))
	if c.Schema == nil {
		c.Schema = testSchema()
	}
	if opts == nil {
		opts = noSleep(Options{})
	}
	tab, err := Create(context.Background(), store, "t", c, opts)
	if err != nil {
		t.Fatal(err)
	}
	store.Clear()
	return tab, store
}

// append commits one file as a blind append.
func appendFile(t *testing.T, tab *Table, path string) *Committed {
	t.Helper()
	x := tab.Begin(mustSnapshot(t, tab))
	x.AddFile(testAdd(path))
	res, err := x.Commit(context.Background(), CommitOptions{BlindAppend: true})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// TestLostTryStands: where the answer to a try is lost, and what it wrote is found only by the next one, the commit is what
// the first one wrote, with its times, and the version's checksum agrees.
func TestLostTryStands(t *testing.T) {
	ctx := context.Background()
	now := time.UnixMilli(1_700_000_000_000)
	opts := noSleep(Options{MaxTries: 5, Clock: func() time.Time { now = now.Add(time.Second); return now }})
	tab, store := faultTable(t, CreateOptions{Config: map[string]string{"delta.enableInCommitTimestamps": "true", "delta.enableRowTracking": "true"}}, opts)
	x := tab.Begin(mustSnapshot(t, tab))
	x.AddFile(&Add{Path: "f", Size: 1, DataChange: true, Stats: Stats{NumRecords: 3}.JSON()})
	x.SetTxn(Txn{AppID: "app", Version: 1})
	store.Add(fault.Rule{Op: fault.PutIfAbsent, Key: "1.json", Nth: 1, Effect: fault.FailAfter, Err: objstore.ErrAmbiguous}, fault.Rule{Op: fault.Get, Key: "1.json", Nth: 1})
	res, err := x.Commit(ctx, CommitOptions{})
	if err != nil || res.Tries != 2 {
		t.Fatalf("%+v, error %v", res, err)
	}
	store.Clear()
	c, _, err := tab.readCommit(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	if *c.info.InCommitTimestamp != *res.Info.InCommitTimestamp || res.Snapshot.Time().UnixMilli() != *c.info.InCommitTimestamp || *res.Snapshot.txns["app"].LastUpdated != *c.txns[0].LastUpdated {
		t.Errorf("the log has %+v %+v, the writer believes %+v %+v", c.info, c.txns, res.Info, res.Snapshot.txns)
	}
	if ok, err := mustSnapshot(t, reopen(t, tab)).VerifyChecksum(ctx); !ok || err != nil {
		t.Errorf("checksum there %v, error %v", ok, err)
	}
}

// TestAmbiguousPut: whatever the store answers, the commit is there once, and Commit says so.
func TestAmbiguousPut(t *testing.T) {
	ctx := context.Background()
	network := fmt.Errorf("connection reset: %w", objstore.ErrAmbiguous)
	for _, c := range []struct {
		name  string
		rules []fault.Rule
		err   error // nil: the commit succeeds
		tries int
	}{
		{"lost answer", []fault.Rule{{Op: fault.PutIfAbsent, Nth: 1, Effect: fault.FailAfter, Err: network}}, nil, 1},
		{"lost answer, said as definite", []fault.Rule{{Op: fault.PutIfAbsent, Nth: 1, Effect: fault.FailAfter, Err: errors.New("EIO")}}, nil, 1},
		{"exists, but it is ours", []fault.Rule{{Op: fault.PutIfAbsent, Nth: 1, Effect: fault.FailAfter, Err: objstore.ErrExists}}, nil, 1},
		{"lost request", []fault.Rule{{Op: fault.PutIfAbsent, Nth: 1, Err: network}}, nil, 2},
		{"read back fails once", []fault.Rule{{Op: fault.PutIfAbsent, Nth: 1, Effect: fault.FailAfter, Err: network}, {Op: fault.Get, Key: "0001.json", Nth: 1}}, nil, 2},
		{"disk full", []fault.Rule{{Op: fault.PutIfAbsent, Err: fault.ErrDiskFull}}, syscall.ENOSPC, 1},
		{"never reaches the store", []fault.Rule{{Op: fault.PutIfAbsent, Err: network}}, ErrTooManyTries, 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			tab, store := faultTable(t, CreateOptions{}, noSleep(Options{MaxTries: 5}))
			x := tab.Begin(mustSnapshot(t, tab))
			x.AddFile(testAdd("f"))
			store.Add(c.rules...)
			res, err := x.Commit(ctx, CommitOptions{})
			if !errors.Is(err, c.err) {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			if n := store.Count(fault.PutIfAbsent, "1.json"); n != c.tries {
				t.Errorf("%d puts, want %d", n, c.tries)
			}
			store.Clear()
			s := mustSnapshot(t, reopen(t, tab))
			if c.err != nil {
				if s.Version() != 0 {
					t.Fatal("a commit that failed is there")
				}
				return
			}
			if res.Version != 1 || s.Version() != 1 || !slices.Equal(paths(s), []string{"f"}) {
				t.Fatalf("committed %d; version %d, files %v", res.Version, s.Version(), paths(s))
			}
			// The next commit goes on from there.
			if r := appendFile(t, tab, "g"); r.Version != 2 {
				t.Fatal(r.Version)
			}
		})
	}
}

// A statement whose every pause another writer uses to commit is not shut out: it reads what is new after it has paused.
func TestPausingWriterIsNotShutOut(t *testing.T) {
	ctx := context.Background()
	made := dmlTable(t, vectors, []string{`{"id":1,"k":1,"v":"a","p":"x"}`})
	other := func() {
		if _, err := made.Append(ctx, jsonRows(t, dmlSource, `{"id":2,"k":2,"v":"b","p":"x"}`), AppendOptions{}); err != nil {
			t.Error(err)
		}
	}
	tab, err := Open(ctx, made.Store(), made.Path(), &Options{MaxTries: 3, Sleep: func(context.Context, time.Duration) error {
		other()
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	first := true
	res, err := tab.DeleteWhere(ctx, expr.Eq(expr.Col("id"), expr.Lit(1)), ChangeOptions{Hook: func(phase string) {
		if phase == "before-commit" && first {
			first = false
			other()
		}
	}})
	if err != nil || res.Deleted != 1 || res.Replans != 0 {
		t.Fatalf("%+v, %v", res, err)
	}
}

// TestCommitCancelled: a caller that gives up during the put is told what happened, not left in doubt.
func TestCommitCancelled(t *testing.T) {
	tab, store := faultTable(t, CreateOptions{}, nil)
	ctx, cancel := context.WithCancel(context.Background())
	x := tab.Begin(mustSnapshot(t, tab))
	x.AddFile(testAdd("f"))
	store.Add(fault.Rule{Op: fault.PutIfAbsent, Nth: 1, Effect: fault.FailAfter, Err: context.Canceled})
	store.Intercept(func(op fault.Op, _ string) error {
		if op == fault.Get { // the commit is being read back
			cancel()
		}
		return nil
	})
	res, err := x.Commit(ctx, CommitOptions{})
	if err != nil || res.Version != 1 || ctx.Err() == nil {
		t.Fatal(res, err)
	}
}

// TestCrashAtEveryCall dies at every store call of a commit with its checkpoint, and looks at the table with new eyes:
// the commit is there whole or not at all, and the table goes on.
func TestCrashAtEveryCall(t *testing.T) {
	ctx := context.Background()
	for _, after := range []bool{false, true} { // the call in which it dies has done its work, or not
		crashes := 0
		for n := 1; ; n++ {
			tab, store := faultTable(t, CreateOptions{Config: map[string]string{"delta.checkpointInterval": "2"}}, nil)
			appendFile(t, tab, "f1")
			store.Clear()
			if after {
				store.Add(fault.Rule{Nth: n, Effect: fault.CrashAfter})
			} else {
				store.CrashAt(n)
			}
			fresh, err := Open(ctx, store, "t", noSleep(Options{}))
			var res *Committed
			if err == nil {
				var s *Snapshot
				if s, err = fresh.Snapshot(ctx); err == nil {
					x := fresh.Begin(s)
					x.AddFile(testAdd("f2"))
					x.RemoveFile(s.byPath()["f1"].Tombstone(1<<60, true))
					x.SetTxn(Txn{AppID: "a", Version: 7})
					res, err = x.Commit(ctx, CommitOptions{})
				}
			}
			crashed := store.Crashed()
			store.Clear()
			store.Revive()
			s := mustSnapshot(t, reopen(t, tab))
			switch v, _ := s.Txn("a"); {
			case s.Version() == 1 && slices.Equal(paths(s), []string{"f1"}) && v == 0:
				if err == nil {
					t.Fatalf("crash at %d: Commit said version %d, which is not there", n, res.Version)
				}
			case s.Version() == 2 && slices.Equal(paths(s), []string{"f2"}) && v == 7 && len(s.Tombstones()) == 1:
			default:
				t.Fatalf("crash at %d: version %d, files %v, txn %d", n, s.Version(), paths(s), v)
			}
			// Three more commits pass the next checkpoint.
			next := reopen(t, tab)
			for i := range 3 {
				appendFile(t, next, fmt.Sprint("g", i))
			}
			if got := mustSnapshot(t, reopen(t, tab)); got.NumFiles() != 4 || got.Version() != s.Version()+3 {
				t.Fatalf("crash at %d: then version %d with %v", n, got.Version(), paths(got))
			}
			if !crashed {
				break
			}
			crashes++
		}
		if crashes < 8 {
			t.Errorf("only %d points to crash at", crashes)
		}
		t.Logf("%d crashes survived", crashes)
	}
}

// TestReadErrors fails every read in turn: the caller gets the store's error, never another state of the table.
func TestReadErrors(t *testing.T) {
	ctx := context.Background()
	tab, store := faultTable(t, CreateOptions{Config: map[string]string{"delta.checkpointInterval": "3"}}, nil)
	for i := range 5 {
		appendFile(t, tab, fmt.Sprint("f", i))
	}
	for _, effect := range []fault.Effect{fault.FailBefore, fault.BreakRead} {
		for _, op := range []fault.Op{fault.Get, fault.GetRange, fault.Stat, fault.List} {
			for n := 1; n < 50; n++ {
				store.Clear()
				store.Add(fault.Rule{Op: op, Nth: n, Effect: effect, Err: errors.New("EIO")})
				fresh, err := Open(ctx, store, "t", nil)
				var s *Snapshot
				if err == nil {
					s, err = fresh.Snapshot(ctx)
				}
				if err == nil {
					if s.Version() != 5 || s.NumFiles() != 5 {
						t.Fatalf("%s %d: version %d, files %v", op, n, s.Version(), paths(s))
					}
				} else if !strings.Contains(err.Error(), "EIO") {
					t.Fatalf("%s %d: %v", op, n, err)
				}
				if store.Count(op, "") < n {
					break
				}
			}
		}
	}
}

// TestCheckpointFailureIsNoCommitFailure: the commit stands, and says what went wrong beside it.
func TestCheckpointFailureIsNoCommitFailure(t *testing.T) {
	tab, store := faultTable(t, CreateOptions{Config: map[string]string{"delta.checkpointInterval": "1"}}, nil)
	store.Add(fault.Rule{Op: fault.Put, Err: fault.ErrDiskFull})
	x := tab.Begin(mustSnapshot(t, tab))
	x.AddFile(testAdd("f"))
	res, err := x.Commit(context.Background(), CommitOptions{})
	if err != nil || res.Version != 1 || !errors.Is(res.CheckpointErr, syscall.ENOSPC) {
		t.Fatal(res, err)
	}
}

// TestManyWritersOverFaultyStore lets several writers with their own views of the table append, replace and record
// progress over a store that loses requests and answers. The model is what each Commit said: afterwards the table must
// hold exactly that. Commits with a doubt left (ErrAmbiguous) may be there or not.
func TestManyWritersOverFaultyStore(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		ctx := context.Background()
		inner := objstore.NewMemory(nil)
		store := fault.New(inner)
		opts := noSleep(Options{MaxTries: 100})
		interval := rapid.IntRange(1, 4).Draw(rt, "checkpointInterval")
		first, err := Create(ctx, store, "t", CreateOptions{Schema: testSchema(), Config: map[string]string{"delta.checkpointInterval": fmt.Sprint(interval)}}, opts)
		if err != nil {
			rt.Fatal(err)
		}
		// Faults in a drawn pattern; the schedule of goroutines adds its own.
		var mu sync.Mutex
		pattern := rapid.SliceOfN(rapid.IntRange(0, 9), 8, 40).Draw(rt, "faults")
		at := 0
		lost := 0
		store.Intercept(func(op fault.Op, key string) error {
			if op != fault.PutIfAbsent {
				return nil
			}
			mu.Lock()
			p := pattern[at%len(pattern)]
			at++
			mu.Unlock()
			switch p {
			case 0:
				return fmt.Errorf("request lost: %w", objstore.ErrAmbiguous)
			}
			return nil
		})
		for i, p := range pattern {
			if p == 1 {
				lost++
				store.Add(fault.Rule{Op: fault.PutIfAbsent, Nth: i + 1, Effect: fault.FailAfter, Err: fmt.Errorf("answer lost: %w", objstore.ErrAmbiguous)})
			}
		}
		writers := rapid.IntRange(1, 4).Draw(rt, "writers")
		each := rapid.IntRange(1, 6).Draw(rt, "commits")
		type outcome struct {
			file, removed string
			version       Version
		}
		var done []outcome
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				mine, err := Open(ctx, store, "t", opts)
				if err != nil {
					rt.Error(err)
					return
				}
				var own string
				for i := range each {
					s, err := mine.Snapshot(ctx)
					if err != nil {
						rt.Error(err)
						return
					}
					o := outcome{file: fmt.Sprintf("w%d-%d", w, i)}
					x := mine.Begin(s)
					x.AddFile(testAdd(o.file))
					x.SetTxn(Txn{AppID: fmt.Sprint("app", w), Version: int64(i)})
					if own != "" && i%2 == 1 {
						o.removed = own
						x.ReadFiles(own)
						x.RemoveFile(s.byPath()[own].Tombstone(1<<60, true))
					}
					res, err := x.Commit(ctx, CommitOptions{})
					if err != nil {
						rt.Error(err)
						return
					}
					own = o.file
					o.version = res.Version
					mu.Lock()
					done = append(done, o)
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if rt.Failed() {
			return
		}
		want := map[string]bool{}
		versions := map[Version]bool{}
		for _, o := range done {
			want[o.file] = true
			if versions[o.version] {
				rt.Fatalf("version %d was given twice", o.version)
			}
			versions[o.version] = true
		}
		for _, o := range done {
			delete(want, o.removed)
		}
		fresh, err := Open(ctx, inner, "t", nil)
		if err != nil {
			rt.Fatal(err)
		}
		for name, tab := range map[string]*Table{"fresh": fresh, "first": first} {
			s, err := tab.Snapshot(ctx)
			if err != nil {
				rt.Fatal(err)
			}
			if int(s.Version()) != len(done) {
				rt.Fatalf("%s: version %d after %d commits", name, s.Version(), len(done))
			}
			if s.NumFiles() != len(want) {
				rt.Fatalf("%s: files %v, want %v", name, paths(s), want)
			}
			for _, p := range paths(s) {
				if !want[p] {
					rt.Fatalf("%s: file %s is there", name, p)
				}
			}
			for w := range writers {
				if v, _ := s.Txn(fmt.Sprint("app", w)); v != int64(each-1) {
					rt.Fatalf("%s: writer %d is at %d", name, w, v)
				}
			}
		}
	})
}

// TestIncrementalEqualsFresh: a snapshot that grew commit by commit is the one that is read from scratch.
func TestIncrementalEqualsFresh(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		ctx := context.Background()
		store := objstore.NewMemory(nil)
		tab, err := Create(ctx, store, "", CreateOptions{Schema: testSchema(), Config: map[string]string{
			"delta.checkpointInterval": fmt.Sprint(rapid.IntRange(2, 9).Draw(rt, "interval")), "delta.enableDeletionVectors": "true"}}, nil)
		if err != nil {
			rt.Fatal(err)
		}
		for i := range rapid.IntRange(1, 12).Draw(rt, "commits") {
			s, err := tab.Snapshot(ctx)
			if err != nil {
				rt.Fatal(err)
			}
			x := tab.Begin(s)
			for j := range rapid.IntRange(0, 2).Draw(rt, "adds") {
				x.AddFile(testAdd(fmt.Sprintf("f%d-%d", i, j)))
			}
			for _, a := range s.Adds() {
				switch rapid.IntRange(0, 5).Draw(rt, "fate") {
				case 0:
					x.RemoveFile(a.Tombstone(time.Now().UnixMilli(), true))
				case 1:
					x.RemoveFile(a.Tombstone(time.Now().UnixMilli(), true))
					b := *a
					b.DeletionVector = &DeletionVector{StorageType: "i", PathOrInlineDv: fmt.Sprint("v", i), SizeInBytes: 1, Cardinality: 1}
					x.AddFile(&b)
				}
			}
			if i == 0 {
				p := s.Protocol()
				p.WriterFeatures = append(slices.Clone(p.WriterFeatures), "domainMetadata")
				x.SetProtocol(p)
			}
			if rapid.Bool().Draw(rt, "domain") {
				x.SetDomain(DomainMetadata{Domain: fmt.Sprint("d", i%3), Configuration: fmt.Sprint(i), Removed: i%5 == 4})
			}
			if _, err := x.Commit(ctx, CommitOptions{}); err != nil {
				rt.Fatal(err)
			}
		}
		grown, err := tab.Snapshot(ctx)
		if err != nil {
			rt.Fatal(err)
		}
		fresh, err := Open(ctx, store, "", nil)
		if err != nil {
			rt.Fatal(err)
		}
		read, err := fresh.Snapshot(ctx)
		if err != nil {
			rt.Fatal(err)
		}
		if a, b := stateText(grown), stateText(read); a != b {
			rt.Fatalf("grown:\n%s\nread:\n%s", a, b)
		}
	})
}

// stateText spells a snapshot's state in a canonical order.
func stateText(s *Snapshot) string {
	var lines []string
	for _, a := range s.Adds() {
		lines = append(lines, "add "+goldenFile(a)+" "+a.Stats)
	}
	for _, r := range s.Tombstones() {
		lines = append(lines, fmt.Sprintf("remove %s %s %d", r.Path, r.DeletionVector.UniqueID(), r.DeletionTimestamp))
	}
	for app, t := range s.Txns() {
		lines = append(lines, fmt.Sprintf("txn %s %d", app, t.Version))
	}
	for _, d := range s.Domains() {
		lines = append(lines, fmt.Sprintf("domain %+v", d))
	}
	slices.Sort(lines)
	m, _ := marshal(s.metadata)
	p, _ := marshal(s.protocol)
	return fmt.Sprintf("version %d time %d\n%s\n%s\n%s", s.Version(), s.Time().UnixMilli(), m, p, strings.Join(lines, "\n"))
}

// TestDamagedLog: what stands in the folder of a log by accident must not change what is read, and what breaks the log
// must be an error that says where.
func TestDamagedLog(t *testing.T) {
	ctx := context.Background()
	build := func(t *testing.T) (*Table, string) {
		tab := newTestTable(t, nil, CreateOptions{Config: map[string]string{"delta.checkpointInterval": "3"}})
		for i := range 7 {
			appendFile(t, tab, fmt.Sprint("f", i))
		}
		return tab, filepath.Join(tab.Store().(objstore.LocalPather).LocalPath("t"), "_delta_log")
	}
	write := func(name string, data []byte) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o666); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(names ...string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			for _, n := range names {
				if err := os.Remove(filepath.Join(dir, n)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	v := func(n int) string { return fmt.Sprintf("%020d", n) }
	for _, c := range []struct {
		name string
		do   func(*testing.T, string)
		want error
	}{
		{"strange names", func(t *testing.T, dir string) {
			for _, n := range []string{".tmp-1", "00.json", v(8) + ".json.tmp", v(8) + ".uuid.json", "." + v(8) + ".json", v(0) + "." + v(7) + ".compacted.json", v(7) + ".crc", "x", v(8) + ".checkpoint.0000000001.0000000002.parquet"} {
				write(n, []byte("junk"))(t, dir)
			}
		}, nil},
		{"hint is junk", write("_last_checkpoint", []byte("{")), nil},
		{"hint points past", write("_last_checkpoint", []byte(`{"version":77,"size":1}`)), nil},
		{"hint is negative", write("_last_checkpoint", []byte(`{"version":-7}`)), nil},
		{"hint is missing", remove("_last_checkpoint"), nil},
		{"newest checkpoint is damaged", write(v(6)+".checkpoint.parquet", []byte("PAR1 no PAR1")), nil},
		{"newest checkpoint is empty", write(v(6)+".checkpoint.parquet", nil), nil},
		{"newest checkpoint is gone, hint stays", remove(v(6) + ".checkpoint.parquet"), nil},
		{"old commits are gone", remove(v(0)+".json", v(1)+".json", v(2)+".json"), nil},
		{"commits up to the checkpoint are gone", remove(v(0)+".json", v(1)+".json", v(2)+".json", v(3)+".json", v(4)+".json", v(5)+".json", v(6)+".json"), nil},
		{"a gap", remove(v(6)+".checkpoint.parquet", v(5)+".json"), ErrCorrupt},
		{"a torn commit", write(v(7)+".json", []byte(`{"commitInfo":{}}`+"\n"+`{"add":{"path":"x`)), ErrCorrupt},
		{"a commit of another kind", write(v(7)+".json", []byte("\x00\x01binary")), ErrCorrupt},
		{"no log", func(t *testing.T, dir string) {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}, ErrNotATable},
	} {
		t.Run(c.name, func(t *testing.T) {
			tab, dir := build(t)
			want := stateText(mustSnapshot(t, tab))
			c.do(t, dir)
			fresh, err := Open(ctx, tab.Store(), "t", nil)
			if !errors.Is(err, c.want) {
				t.Fatalf("error %v, want %v", err, c.want)
			}
			if err == nil {
				if got := stateText(mustSnapshot(t, fresh)); got != want {
					t.Fatalf("state\n%s, want\n%s", got, want)
				}
			}
		})
	}
}

// TestTableVanishes: a cached table notices, within a bound, that it was removed or cleaned up behind it.
func TestTableVanishes(t *testing.T) {
	ctx := context.Background()
	now := time.Now()
	opts := &Options{Clock: func() time.Time { return now }}
	tab := newTestTable(t, opts, CreateOptions{})
	appendFile(t, tab, "f")
	if err := os.RemoveAll(tab.Store().(objstore.LocalPather).LocalPath("t")); err != nil {
		t.Fatal(err)
	}
	now = now.Add(2 * relistAfter)
	if _, err := tab.Snapshot(ctx); !errors.Is(err, ErrNotATable) {
		t.Fatal(err)
	}
}

func TestCommitBytes(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	ids := 0
	opts := &Options{Clock: func() time.Time { return now }, NewID: func() string { ids++; return fmt.Sprint("id-", ids) }}
	tab := newTestTable(t, opts, CreateOptions{PartitionBy: []string{"day"}, Config: map[string]string{"delta.enableDeletionVectors": "true"}})
	x := tab.Begin(mustSnapshot(t, tab))
	a := testAdd("day=2024-08-20/f%20x.parquet", "day", "2024-08-20")
	a.Stats = Stats{NumRecords: 3, MinValues: map[string]any{"name": "<&>"}}.JSON()
	x.AddFile(a)
	x.SetTxn(Txn{AppID: "app", Version: 1})
	if _, err := x.Commit(context.Background(), CommitOptions{Operation: "WRITE", Parameters: map[string]string{"mode": "Append"}, BlindAppend: true}); err != nil {
		t.Fatal(err)
	}
	var got []byte
	for v := range Version(2) {
		data, _, err := readObject(context.Background(), tab.Store(), tab.commitKey(v))
		if err != nil {
			t.Fatal(err)
		}
		got = append(append(got, data...), '\n')
	}
	golden := filepath.Join("testdata", "commits.jsonl")
	if os.Getenv("REWRITE") != "" {
		if err := os.MkdirAll("testdata", 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("commits\n%s, want\n%s", got, want)
	}
}
