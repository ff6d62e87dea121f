package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/ingest"
)

func trade(p *topic, id, price string, minute int) {
	p.publish(`{"e":"trade","s":%q,"p":%q,"n":"live","T":%d}`, id, price, start.Add(time.Duration(minute)*time.Minute).UnixMilli())
}

func TestStreamResumesFromTheTableAlone(t *testing.T) {
	w := newWorld(t, tradesLake)
	p := newTopic("trades")
	trade(p, "a", "1", 1)
	trade(p, "b", "2", 1)
	p.publish(`{"e":"other"}`)
	trade(p, "a", "3", 2)
	reports, err := w.stream(p.reader(), ingest.StreamOptions{RowsMax: 3})
	if err != nil || len(reports) != 2 {
		t.Fatalf("%d reports, %v", len(reports), err)
	}
	if r := reports[0]; r.RowsRead != 3 || r.RowsFiltered != 1 || r.RowsInserted != 2 || r.Epoch != 1 {
		t.Errorf("first: %+v", r)
	}
	if r := reports[1]; r.RowsUpdated != 1 || r.Epoch != 2 || len(r.Ranges) != 1 || r.Ranges[0].From != 4 {
		t.Errorf("second: %+v", r)
	}
	for _, phase := range []string{"fetch", "compute", "progress", "locate", "write", "commit", "confirm", "acknowledge"} {
		if _, ok := reports[0].Phases[phase]; !ok {
			t.Errorf("phase %s is not reported", phase)
		}
	}
	if p.committed[0].Offset != 4 {
		t.Errorf("committed: %v", p.committed)
	}
	equal(t, "rows", w.rows("trades", "id", "price", "_rank"), []string{"a 3 1", "b 2 1"})

	v := w.version("trades")
	w.reopen()
	if reports, err = w.stream(p.reader(), ingest.StreamOptions{}); err != nil || len(reports) != 0 || w.version("trades") != v {
		t.Errorf("nothing new: %v, %v", reports, err)
	}
	trade(p, "c", "5", 3)
	p.publish(`{"e":"trade","s":"bad","p":"x","n":"live","T":1}`)
	p.publish(`no json`)
	w.reopen()
	reports, err = w.stream(p.reader(), ingest.StreamOptions{})
	if err != nil || len(reports) != 1 || reports[0].RowsRead != 3 || reports[0].RowsInserted != 1 || reports[0].RowsQuarantined != 2 {
		t.Fatalf("%+v, %v", reports, err)
	}
	q, err := w.QuarantineShow(context.Background(), ingest.QuarantineFilter{Source: "live"})
	if err != nil || len(q) != 2 || q[0].Offset != 6 || q[0].Topic != "trades" || q[0].Line != 0 || !strings.Contains(q[0].Raw, `"bad"`) {
		t.Errorf("quarantine: %+v, %v", q, err)
	}
}

func TestStreamGap(t *testing.T) {
	w := newWorld(t, tradesLake)
	p := newTopic("trades")
	for i := range 10 {
		trade(p, fmt.Sprint("t", i), "1", i)
		if i == 2 {
			if _, err := w.stream(p.reader(), ingest.StreamOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	p.first = 7
	_, err := w.stream(p.reader(), ingest.StreamOptions{})
	var gap *ingest.GapError
	if !errors.As(err, &gap) || gap.From != 4 || gap.To != 6 || ingest.ExitCode(err) != 4 {
		t.Fatalf("error: %v", err)
	}
	for _, word := range []string{"offsets 4 to 6", "--allow-gap live", "to fill it afterwards: cauce land FILE… and cauce run batch history", "or cauce produce replay FILE --source live"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%v does not say %q", err, word)
		}
	}
	reports, err := w.stream(p.reader(), ingest.StreamOptions{AllowGap: true})
	if err != nil || len(reports) != 2 || reports[0].Kind != ingest.KindGap || reports[0].Gaps[0].From != 4 || reports[1].RowsInserted != 4 {
		t.Fatalf("%+v, %v", reports, err)
	}
	if reports[1].Incarnation != "one" {
		t.Errorf("the log is the same as before: %+v", reports[1])
	}
	st, err := w.Status(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	gaps := 0
	for _, s := range st.Sources {
		for _, x := range s.Streams {
			gaps += len(x.Gaps)
		}
	}
	if gaps != 1 {
		t.Errorf("status: %+v", st.Sources)
	}
	if len(w.scan("trades")) != 7 {
		t.Errorf("rows: %v", w.rows("trades", "id"))
	}
}

// A topic that was made anew has another incarnation: its offsets have nothing to do with those before.
func TestStreamNewIncarnation(t *testing.T) {
	w := newWorld(t, tradesLake)
	p := newTopic("trades")
	trade(p, "a", "1", 1)
	trade(p, "b", "1", 1)
	if _, err := w.stream(p.reader(), ingest.StreamOptions{}); err != nil {
		t.Fatal(err)
	}
	q := newTopic("trades")
	q.incarnation = "two"
	trade(q, "c", "1", 1)
	if r, err := w.stream(q.reader(), ingest.StreamOptions{}); err != nil || len(r) != 1 || r[0].Epoch != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	equal(t, "rows", w.rows("trades", "id"), []string{"a", "b", "c"})

	// More of them, with names in no order: status counts the commits of all and lists the last one last.
	want := []string{"one", "two"}
	for i, inc := range []string{"b", "d", "a", "e", "c"} {
		w.clock.at = w.clock.at.Add(time.Minute)
		q.incarnation = inc
		trade(q, inc, "1", 1)
		if _, err := w.stream(q.reader(), ingest.StreamOptions{}); err != nil {
			t.Fatal(err)
		}
		want = append(want, inc)
		st, err := w.Status(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		s := st.Sources[slices.IndexFunc(st.Sources, func(s ingest.SourceStatus) bool { return s.Name == "live" })]
		var got []string
		for _, x := range s.Streams {
			got = append(got, x.Incarnation)
		}
		equal(t, "incarnations", got, want)
		if s.Epoch != int64(3+i) {
			t.Errorf("%d commits of %d incarnations that had one each", s.Epoch, 3+i)
		}
	}
}

func TestTwoStreamsOfOneSource(t *testing.T) {
	w := newWorld(t, tradesLake)
	p := newTopic("trades")
	const n = 300
	for i := range n {
		trade(p, fmt.Sprint("t", i), "1", i%60)
	}
	var mu sync.Mutex
	read := map[int64]int{} // epochs that were committed
	var rows int64
	var wg sync.WaitGroup
	for range 3 {
		l, err := ingest.New(w.cfg)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			in := p.reader()
			in.most = 7
			err := l.RunStream(context.Background(), in, ingest.StreamOptions{
				Source: "live", AvailableNow: true, NoMaintenance: true, RowsMax: 20,
				OnEpoch: func(r ingest.StreamReport) {
					mu.Lock()
					defer mu.Unlock()
					read[r.Epoch]++
					rows += r.RowsRead
				},
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for e, times := range read {
		if times != 1 {
			t.Errorf("epoch %d was committed %d times", e, times)
		}
	}
	if rows != n || len(w.scan("trades")) != n {
		t.Errorf("%d rows read, %d in the table, want %d", rows, len(w.scan("trades")), n)
	}
}

// Separate processes write batch and stream at once: nobody sees an error, and no row is lost or doubled.
func TestBatchBesideStream(t *testing.T) {
	w := newWorld(t, tradesLake)
	p := newTopic("trades")
	want := map[string]bool{}
	for i := range 100 {
		id := fmt.Sprint("t", i)
		want[id] = true
		trade(p, id, "1", i%60)
	}
	for f := range 6 {
		lines := []string{header}
		for i := range 20 {
			id := fmt.Sprint("t", f*17+i)
			want[id] = true
			lines = append(lines, id+",7,old,2024-08-20T09:00:00Z")
		}
		w.put(fmt.Sprintf("trades_%d.csv", f), f, lines...)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		in := p.reader()
		err := w.RunStream(context.Background(), in, ingest.StreamOptions{Source: "live", AvailableNow: true, RowsMax: 15})
		if err != nil {
			t.Error(err)
		}
	})
	for range 2 {
		l, err := ingest.New(w.cfg)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if r, err := l.RunBatch(context.Background(), ingest.BatchOptions{Sources: []string{"history"}, EpochFilesMax: 1}); err != nil {
				t.Errorf("%+v: %v", r, err)
			}
		})
	}
	wg.Wait()
	got := w.scan("trades")
	for _, r := range got {
		if !want[r["id"]] {
			t.Errorf("row %v twice or from nowhere", r)
		}
		delete(want, r["id"])
		if live := r["_rank"] == "1"; live != (r["price"] == "1") {
			t.Errorf("row %v", r)
		}
	}
	if len(want) > 0 {
		t.Errorf("lost: %v", want)
	}
	// Whoever won, the progress says that everything has been read.
	w.reopen()
	if r := w.batch(ingest.BatchOptions{}); r.FilesRead != 0 {
		t.Errorf("read again: %+v", r)
	}
}

func TestStreamStops(t *testing.T) {
	w := newWorld(t, tradesLake)
	p := newTopic("trades")
	trade(p, "a", "1", 1)
	ctx, cancel := context.WithCancel(context.Background())
	err := w.RunStream(ctx, p.reader(), ingest.StreamOptions{
		Source: "live", Trigger: 10 * time.Millisecond, OnEpoch: func(ingest.StreamReport) { cancel() },
	})
	if err != nil {
		t.Errorf("a stream that is stopped ends without error: %v", err)
	}
	equal(t, "rows", w.rows("trades", "id"), []string{"a"})
}

// TestProgressIsInTheTable forgets one part of the progress after the other: what is known by the commit is found
// there, and what is lost is read again without changing a row.
func TestProgressIsInTheTable(t *testing.T) {
	w := newWorld(t, tradesLake)
	ctx := context.Background()
	remove := func(what func(name string) bool) (n int) {
		for f, err := range w.store.List(ctx, ingest.ProgressPath+"/", "") {
			if err != nil {
				t.Fatal(err)
			}
			if what(f.Key[strings.LastIndexByte(f.Key, '/')+1:]) {
				n++
				if err := w.store.Delete(ctx, f.Key); err != nil {
					t.Fatal(err)
				}
			}
		}
		return n
	}
	for i := range 45 { // longer than a chain may grow without a summary
		w.put(fmt.Sprintf("trades_%02d.csv", i), i, header, fmt.Sprintf("t%d,1,x,2024-08-20T10:00:00Z", i))
		w.batch(ingest.BatchOptions{Sources: []string{"history"}})
	}
	again := func(files int) {
		t.Helper()
		hash, rows := w.hash("trades"), len(w.scan("trades"))
		w.reopen()
		r := w.batch(ingest.BatchOptions{Sources: []string{"history"}})
		if r.FilesRead != files || r.RowsInserted != 0 || w.hash("trades") != hash || len(w.scan("trades")) != rows {
			t.Errorf("%d files read, want %d: %+v", r.FilesRead, files, r)
		}
	}
	again(0)
	if n := remove(func(name string) bool { return strings.HasSuffix(name, ".compact.json") }); n != 2 {
		t.Errorf("%d summaries", n)
	}
	again(0) // the chain alone
	if n := remove(func(name string) bool { return name == "45.json" }); n != 1 {
		t.Errorf("%d winner files removed", n)
	}
	again(0) // the commit knows its epoch file
	if _, err := w.store.Stat(ctx, ingest.ProgressPath+"/history/files/45.json"); err != nil {
		t.Errorf("the winner file must have been made again: %v", err)
	}
	remove(func(name string) bool { return strings.HasPrefix(name, "30-") })
	again(30) // files 1 to 30 are forgotten
	remove(func(string) bool { return true })
	again(45)
	again(0)
	// A progress folder that belongs to a table that is gone says nothing about the one that stands there now.
	for f, err := range w.store.List(ctx, "processed/trades/", "") {
		if err != nil {
			t.Fatal(err)
		}
		if err := w.store.Delete(ctx, f.Key); err != nil {
			t.Fatal(err)
		}
	}
	w.reopen()
	if r := w.batch(ingest.BatchOptions{Sources: []string{"history"}}); r.RowsInserted != 45 {
		t.Errorf("into a new table: %+v", r)
	}
	again(0)
}

// Each commit of a source carries one txn, and names its progress file.
func TestCommitNamesProgress(t *testing.T) {
	w := newWorld(t, tradesLake)
	w.put("trades_1.csv", 0, header, "a,1,x,2024-08-19T10:00:00Z")
	w.batch(ingest.BatchOptions{Sources: []string{"history"}})
	w.put("trades_2.csv", 0, header, "b,1,drop,2024-08-19T10:00:00Z")
	w.batch(ingest.BatchOptions{Sources: []string{"history"}}) // changes no row, and commits all the same
	tab, err := w.Catalog().Open(context.Background(), "trades")
	if err != nil {
		t.Fatal(err)
	}
	s, err := tab.Snapshot(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if v, ok := s.Txn("cauce/1/history/files"); !ok || v != 2 {
		t.Errorf("txn: %d %v", v, ok)
	}
	h, err := tab.History(context.Background(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range h {
		if c.Version > 0 && !strings.HasPrefix(c.Info.UserMetadata, fmt.Sprintf("processed/_progress/history/files/%d-", c.Version)) {
			t.Errorf("version %d: userMetadata %q", c.Version, c.Info.UserMetadata)
		}
	}
	if s.Version() != delta.Version(2) {
		t.Errorf("version %d", s.Version())
	}
}
