package ingest_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/objstore/fault"
)

// fork is a world of its own with the objects of w.
func (w *world) fork() *world {
	w.t.Helper()
	ctx := context.Background()
	out := &world{t: w.t, dir: w.dir, lake: w.lake, clock: &clock{at: w.clock.now(), run: w.clock.run}, cfg: w.cfg}
	out.cfg.Clock = out.clock.now
	out.store = memory(out.clock.now)
	for f, err := range w.store.List(ctx, "", "") {
		if err != nil {
			w.t.Fatal(err)
		}
		data, err := w.store.GetRange(ctx, f.Key, 0, -1)
		if err != nil {
			w.t.Fatal(err)
		}
		if err := out.store.Put(ctx, f.Key, bytes.NewReader(data), putAt(f.ModTime)); err != nil {
			w.t.Fatal(err)
		}
	}
	out.reopen()
	return out
}

// TestCrashAtEveryStoreCall stops a run at each call of the store in turn, as a killed process stops, before the call
// and after it. A new process then finishes the work: the table, what is quarantined and what is known to be read are
// as if nothing had happened.
func TestCrashAtEveryStoreCall(t *testing.T) {
	base := newWorld(t, tradesLake)
	base.put("trades_1.csv", 0, header, "a,1,x,2024-08-19T10:00:00Z", "b,2,x,2024-08-20T10:00:00Z", "q,-2,x,2024-08-20T10:00:00Z")
	p := newTopic("trades")
	trade(p, "a", "7", -3000)
	trade(p, "n", "1", 2)
	base.batch(ingest.BatchOptions{})
	if _, err := base.stream(p.reader(), ingest.StreamOptions{}); err != nil {
		t.Fatal(err)
	}
	base.put("trades_1.csv", 9, header, "a,1.5,x,2024-08-19T10:00:00Z", "b,2,x,2024-08-20T10:00:00Z", "q,-2,x,2024-08-20T10:00:00Z")
	base.put("trades_2.csv", 9, header, "c,1,x,2024-08-21T10:00:00Z", "r,-1,x,2024-08-20T10:00:00Z")
	trade(p, "b", "9", 3)
	trade(p, "c", "-9", 3)

	work := func(w *world) error {
		if _, err := w.RunBatch(context.Background(), ingest.BatchOptions{EpochFilesMax: 1}); err != nil {
			return err
		}
		_, err := w.stream(p.reader(), ingest.StreamOptions{RowsMax: 1})
		return err
	}
	state := func(w *world) string {
		var q []string
		for _, r := range w.quarantine(ingest.QuarantineFilter{}) {
			q = append(q, fmt.Sprint(r.Source, r.Origin, r.Position, r.Rule))
		}
		slices.Sort(q)
		return w.hash("trades") + "\n" + strings.Join(q, "\n")
	}
	calm := base.fork()
	counted := fault.New(calm.store)
	calm.cfg.Store, calm.store = counted, counted
	calm.reopen()
	if err := work(calm); err != nil {
		t.Fatal(err)
	}
	want := state(calm)
	calls := len(counted.Calls())
	t.Logf("%d calls of the store", calls)
	rng := testscale.Rand(t)
	tried, crashed, share := 0, 0, testscale.Count(t, "crash-share")
	for n := 1; n <= calls; n++ {
		// Every call is too slow for each run of the tests; together the seeds come by all of them.
		if rng.IntN(100) >= share {
			continue
		}
		w := base.fork()
		inner := w.store
		broken := fault.New(inner)
		if rng.IntN(2) == 0 {
			broken.CrashAt(n)
		} else {
			broken.Add(fault.Rule{Nth: n, Effect: fault.CrashAfter})
		}
		w.store = broken
		w.reopen()
		tried++
		err := work(w)
		if broken.Crashed() {
			crashed++
		} else if err != nil {
			t.Fatalf("before a crash at call %d: %v", n, err)
		}
		w.store = inner
		w.reopen()
		if err := work(w); err != nil {
			t.Fatalf("after a crash at call %d: %v", n, err)
		}
		if got := state(w); got != want {
			t.Fatalf("after a crash at call %d (%v):\n got %s\nwant %s\nrows %v", n, counted.Calls()[n-1], got, want, w.rows("trades", "id", "price"))
		}
		v := w.version("trades")
		if err := work(w); err != nil || w.version("trades") != v {
			t.Fatalf("after a crash at call %d the work is never done: %v", n, err)
		}
	}
	// Files are opened several at once, so that a run may need some calls fewer than the calm one.
	if crashed*2 < tried {
		t.Errorf("only %d of %d crashes happened", crashed, tried)
	}
}

// A lost answer of the commit is settled by reading the commit back, and a store that fails now and then is no reason
// to lose or double a row.
func TestFailingStore(t *testing.T) {
	for _, rule := range []fault.Rule{
		{Op: fault.PutIfAbsent, Key: "processed/trades/_delta_log", Nth: 1, Effect: fault.FailAfter},
		{Op: fault.Put, Key: ingest.ProgressPath, Nth: 1, Effect: fault.FailBefore},
		{Op: fault.PutIfAbsent, Key: ingest.ProgressPath, Nth: 1, Effect: fault.FailBefore},
		{Op: fault.Put, Key: "processed/trades", Nth: 1, Effect: fault.FailBefore, Err: fault.ErrDiskFull},
		{Op: fault.Get, Key: "raw/batch/trades_1", Nth: 1, Effect: fault.BreakRead},
	} {
		t.Run(fmt.Sprintf("%s %s %d", rule.Op, rule.Key, rule.Effect), func(t *testing.T) {
			w := newWorld(t, tradesLake)
			w.put("trades_0.csv", 0, header, "z,1,x,2024-08-19T10:00:00Z")
			w.batch(ingest.BatchOptions{})
			w.put("trades_1.csv", 0, header, "a,1,x,2024-08-19T10:00:00Z")
			w.put("trades_2.csv", 0, header, "b,1,x,2024-08-19T10:00:00Z")
			good := w.store
			w.store = fault.New(good, rule)
			w.reopen()
			r, err := w.RunBatch(context.Background(), ingest.BatchOptions{EpochFilesMax: 1})
			t.Logf("read %d, failed %v, %v", r.FilesRead, r.FailedFiles, err)
			if rule.Effect == fault.BreakRead {
				// A file that cannot be read is told, and the others go on.
				if err != nil || len(r.FailedFiles) != 1 || r.FailedFiles[0].File != "raw/batch/trades_1.csv" || r.RowsInserted != 1 {
					t.Errorf("%v, %v, %+v", err, r.FailedFiles, r.Counts)
				}
			}
			w.store = good
			w.reopen()
			w.batch(ingest.BatchOptions{})
			equal(t, "rows", w.rows("trades", "id"), []string{"a", "b", "z"})
		})
	}
}
