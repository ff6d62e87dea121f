package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/objstore/fault"
)

// forgettingLake is deletingLake whose deletions are forgotten after two days.
var forgettingLake = strings.Replace(deletingLake, "    sequence: [event_time]\n", "    sequence: [event_time]\n    tombstone_retention: 2d\n", 1)

// TestNoDeletedRowComesBack takes histories with deletions through the lake in any order between files and events, with
// purges of old tombstones, interruptions and repetitions in between. Whatever was forgotten when, each live row is the
// one that the inputs alone make the winner of its key, and a winner that is not in the table is in quarantine.
func TestNoDeletedRowComesBack(t *testing.T) {
	rng := testscale.Rand(t)
	ctx := context.Background()
	lake := newWorld(t, forgettingLake)
	rounds := testscale.Count(t, "purges")
	var purged int64
	late := 0
	for round := range rounds {
		files, events := history(rng)
		want := winners(files, events)
		for want == nil { // the inputs alone do not say who wins, or that nobody does
			files, events = history(rng)
			want = winners(files, events)
		}
		for way := range 2 {
			w := lake.fork()
			p := newTopic("trades")
			var trace []string
			// interrupted runs something, now and then with the store gone at any of its calls, and then again.
			interrupted := func(what string, f func() error) {
				inner := w.store
				if rng.IntN(3) == 0 {
					broken := fault.New(inner)
					broken.CrashAt(1 + rng.IntN(30))
					w.store = broken
					w.reopen()
					if err := f(); err != nil && !broken.Crashed() {
						t.Fatalf("round %d, way %d, %s: %v\n%v", round, way, what, err, trace)
					}
					trace = append(trace, "interrupted "+what)
					w.store = inner
					w.reopen()
				}
				if err := f(); err != nil {
					t.Fatalf("round %d, way %d, %s: %v\n%v", round, way, what, err, trace)
				}
				trace = append(trace, what)
			}
			batch := func() error {
				_, err := w.RunBatch(ctx, ingest.BatchOptions{Sources: []string{"history"}, EpochFilesMax: 1 + rng.IntN(3)})
				return err
			}
			stream := func() error {
				_, err := w.stream(p.reader(), ingest.StreamOptions{RowsMax: 1 + rng.IntN(5)})
				return err
			}
			purge := func() error {
				r, err := w.Maintain(ctx, ingest.MaintainOptions{Tables: []string{"trades"}})
				if err == nil && r.Tables["trades"] != nil {
					purged += r.Tables["trades"].TombstonesPurged
				}
				return err
			}
			todo, said := shuffle(rng, files), 0
			for len(todo) > 0 || said < len(events) {
				if len(todo) > 0 && (said == len(events) || rng.IntN(2) == 0) {
					w.putRaw(todo[0].file, todo[0].minute, todo[0].text)
					trace = append(trace, fmt.Sprintf("put %s@%d", todo[0].file, todo[0].minute))
					todo = todo[1:]
					interrupted("batch", batch) // each issue before the next one replaces it
				} else {
					p.publish("%s", events[said].text)
					said++
					if rng.IntN(2) == 0 {
						interrupted("stream", stream)
					}
				}
				if rng.IntN(2) == 0 {
					interrupted("purge", purge)
				}
			}
			for range 2 {
				interrupted("batch", batch)
				interrupted("stream", stream)
				interrupted("purge", purge)
			}
			tab, err := w.Catalog().Open(ctx, "trades")
			if err != nil {
				t.Fatal(err)
			}
			if s, err := tab.Snapshot(ctx); err != nil || s.Version() == 0 {
				continue // nothing was read at all
			}
			var live []string
			for _, r := range w.scan("trades") {
				if r["_deleted"] == "true" {
					if at := r["event_time"]; at < start.Add(-48*time.Hour).Format("2006-01-02T15:04:05") {
						t.Errorf("round %d, way %d: the tombstone of %s, of %s, is still there", round, way, r["id"], at)
					}
					continue
				}
				live = append(live, r["id"]+" "+r["price"])
			}
			var kept []string
			for _, q := range w.quarantine(ingest.QuarantineFilter{Rule: ingest.RuleTombstones}) {
				kept = append(kept, q.Raw)
				late++
				if !strings.Contains(q.Reason, "may have been deleted") || !strings.Contains(q.Reason, "event_time") {
					t.Errorf("reason %q", q.Reason)
				}
			}
			for _, l := range live {
				if !slices.Contains(want, l) {
					t.Errorf("round %d, way %d: %s is in the table, the winners are %v\n%v", round, way, l, want, trace)
				}
			}
			for _, l := range want {
				id := strings.Fields(l)[0]
				if !slices.Contains(live, l) && !slices.ContainsFunc(kept, func(raw string) bool {
					return strings.HasPrefix(raw, id+",") || strings.Contains(raw, fmt.Sprintf(`"s":%q`, id))
				}) {
					t.Errorf("round %d, way %d: %s is neither in the table nor in quarantine\n%v\nlive %v", round, way, l, trace, live)
				}
			}
			if t.Failed() {
				return
			}
		}
	}
	if testscale.Current() != testscale.Short && (purged == 0 || late == 0) {
		t.Errorf("%d tombstones were purged and %d rows came late: the test has seen nothing", purged, late)
	}
	t.Logf("%d tombstones purged, %d rows in quarantine for it", purged, late)
}

// TestTombstonesArePurged: what is older than the retention goes, with its newest sequence in the table's properties; a
// dry run counts; a row that comes late is kept in quarantine until somebody says that it was not deleted, and a deletion
// that comes late hides nothing.
func TestTombstonesArePurged(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, forgettingLake)
	day := func(n int) string { return start.AddDate(0, 0, -n).Format("2006-01-02T15:04:05Z") }
	w.put("trades_1.csv", 0, header, "a,1,x,"+day(9), "b,2,x,"+day(9), "c,3,x,"+day(9), "d,4,x,"+day(9))
	w.batch(ingest.BatchOptions{Sources: []string{"history"}})
	w.put("trades_2.csv", 1, header, "a,1,gone,"+day(8), "b,1,gone,"+day(5), "c,1,gone,"+day(1))
	w.batch(ingest.BatchOptions{Sources: []string{"history"}})

	if r, err := w.PurgeTombstones(ctx, "trades", true); err != nil || r.Purged != 2 || r.UpTo != "" || w.version("trades") != 2 {
		t.Fatalf("dry run: %+v, %v", r, err)
	}
	r, err := w.PurgeTombstones(ctx, "trades", false)
	if err != nil || r.Purged != 2 || r.UpTo != "event_time=2024-08-15T12:00:00.000000Z" {
		t.Fatalf("%+v, %v", r, err)
	}
	if again, err := w.PurgeTombstones(ctx, "trades", false); err != nil || again.Purged != 0 || again.UpTo != r.UpTo || again.Version != r.Version {
		t.Fatalf("again: %+v, %v", again, err)
	}
	equal(t, "stored", w.rows("trades", "id", "_deleted"), []string{"c true", "d false"})

	w.put("trades_3.csv", 2, header, "a,1,back,"+day(9), "b,1,back,"+day(5), "e,5,late,"+day(6), "f,6,x,"+day(4), "d,5,x,"+day(7), "c,1,back,"+day(9), "g,1,gone,"+day(6))
	got := w.batch(ingest.BatchOptions{Sources: []string{"history"}})
	if got.RowsQuarantined != 3 || got.RowsInserted != 1 || got.RowsUpdated != 1 || got.RowsUnchanged != 2 {
		t.Errorf("batch: %+v", got.Counts)
	}
	q := w.quarantine(ingest.QuarantineFilter{})
	var raws []string
	for _, r := range q {
		raws = append(raws, r.Raw+" "+r.Rule)
	}
	slices.Sort(raws)
	equal(t, "quarantine", raws, []string{"a,1,back," + day(9) + " tombstone_retention", "b,1,back," + day(5) + " tombstone_retention", "e,5,late," + day(6) + " tombstone_retention"})

	// The stream is held to the same, and a second run does nothing.
	p := newTopic("trades")
	p.publish(`{"e":"trade","s":"a","p":"7","n":"live","T":%d}`, start.AddDate(0, 0, -8).UnixMilli())
	p.publish(`{"e":"trade","s":"h","p":"8","n":"live","T":%d}`, start.UnixMilli())
	p.publish(`{"e":"delete","s":"i","p":"1","n":"live","T":%d}`, start.AddDate(0, 0, -7).UnixMilli())
	reports, err := w.stream(p.reader(), ingest.StreamOptions{})
	if err != nil || len(reports) != 1 || reports[0].RowsQuarantined != 1 || reports[0].RowsInserted != 1 || reports[0].Rules[ingest.RuleTombstones] != 1 {
		t.Fatalf("stream: %+v, %v", reports, err)
	}
	equal(t, "live", w.rows("trades", "id", "price", "_deleted"), []string{"c 1 true", "d 5 false", "f 6 false", "h 8 false"})

	// A retry keeps them, and takes them where somebody vouches for them.
	kept, err := w.QuarantineRetry(ctx, ingest.QuarantineFilter{}, false)
	if err != nil || kept.Tried != 4 || kept.StillBad != 4 || kept.Resolved != 0 {
		t.Fatalf("retry: %+v, %v", kept, err)
	}
	var origin string
	for _, r := range w.quarantine(ingest.QuarantineFilter{}) {
		if strings.HasPrefix(r.Raw, "e,") {
			origin = r.Origin
		}
	}
	taken, err := w.QuarantineRetry(ctx, ingest.QuarantineFilter{Origin: origin}, true)
	if err != nil || taken.Resolved != 3 || taken.RowsInserted != 3 {
		t.Fatalf("retry of what is vouched for: %+v, %v", taken, err)
	}

	// What was forgotten stays so when the lake file says nothing of it any more.
	w.load(deletingLake)
	w.put("trades_4.csv", 3, header, "z,1,back,"+day(9))
	if got := w.batch(ingest.BatchOptions{Sources: []string{"history"}}); got.RowsQuarantined != 1 {
		t.Errorf("without tombstone_retention: %+v", got.Counts)
	}
	if _, err := w.PurgeTombstones(ctx, "trades", false); !errors.Is(err, ingest.ErrNoTombstoneRetention) {
		t.Errorf("purge without tombstone_retention: %v", err)
	}
}

// TestPurgeBesideWriters purges again and again while rows and deletions of the same keys arrive: no deleted row comes
// back through a race.
func TestPurgeBesideWriters(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, forgettingLake)
	rng := testscale.Rand(t)
	rounds := testscale.Count(t, "purges")
	p := newTopic("trades")
	best := map[string]int{} // minutes of the newest version of each key; odd: a deletion
	minute := 0
	done := make(chan error, 1)
	for range rounds {
		for range 6 {
			minute += 1 + rng.IntN(3)
			id, at, kind := fmt.Sprintf("k%d", rng.IntN(4)), minute, "trade"
			if rng.IntN(3) == 0 {
				at = max(at-10, at%2) // late
			}
			if at%2 == 1 {
				kind = "delete"
			}
			best[id] = max(best[id], at)
			p.publish(`{"e":%q,"s":%q,"p":"1","n":"live","T":%d}`, kind, id, start.AddDate(0, 0, -9).Add(time.Duration(at)*time.Minute).UnixMilli())
		}
		go func() {
			_, err := w.PurgeTombstones(ctx, "trades", false)
			done <- err
		}()
		if _, err := w.stream(p.reader(), ingest.StreamOptions{RowsMax: 2}); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil && !errors.Is(err, delta.ErrNotATable) { // the first may be before the first commit
			t.Fatal(err)
		}
	}
	for _, r := range w.scan("trades") {
		if r["_deleted"] == "true" {
			continue
		}
		at := start.AddDate(0, 0, -9).Add(time.Duration(best[r["id"]]) * time.Minute).Format("2006-01-02T15:04:05")
		if best[r["id"]]%2 == 1 || !strings.HasPrefix(r["event_time"], at) {
			t.Errorf("%s of %s is live; the newest of its key is of %s, deletion: %v", r["id"], r["event_time"], at, best[r["id"]]%2 == 1)
		}
	}
}
