package ingest_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cauce-data/cauce/ingest"
)

// TestMaintenanceTidiesProgress: what a summary covers goes once the summary is old enough, except what tells that rows
// in quarantine count; and nothing is read again afterwards.
func TestMaintenanceTidiesProgress(t *testing.T) {
	w := newWorld(t, tradesLake)
	ctx := context.Background()
	p := newTopic("trades")
	for i := range 45 {
		w.clock.at = w.clock.at.Add(5 * time.Minute)
		line := fmt.Sprintf("t%d,1,x,2024-08-20T10:00:00Z", i)
		if i == 9 {
			line += "\nbad,nothing,x,2024-08-20T10:00:00Z"
		}
		w.put(fmt.Sprintf("trades_%02d.csv", i), i, header, line)
		w.batch(ingest.BatchOptions{Sources: []string{"history"}})
		trade(p, fmt.Sprintf("s%d", i), "3", 2)
		if i == 4 {
			p.publish(`{"e":"trade","s":"bad","p":"x","n":"live","T":1}`)
		}
		if r, err := w.stream(p.reader(), ingest.StreamOptions{}); err != nil || len(r) != 1 {
			t.Fatalf("%v, %v", r, err)
		}
	}
	names := func(folder string) (out []string) {
		for f, err := range w.store.List(ctx, ingest.ProgressPath+"/"+folder+"/", "") {
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, f.Key[strings.LastIndexByte(f.Key, '/')+1:])
		}
		return out
	}
	count := func(folder, suffix string) (n int) {
		for _, name := range names(folder) {
			if strings.HasSuffix(name, suffix) {
				n++
			}
		}
		return n
	}
	check := func(what string, removed int, each ...int) {
		t.Helper()
		hash, rows := w.hash("trades"), len(w.scan("trades"))
		r, err := w.Maintain(ctx, ingest.MaintainOptions{})
		if err != nil || r.ProgressRemoved != removed {
			t.Errorf("%s: %d files removed, want %d, %v", what, r.ProgressRemoved, removed, err)
		}
		for i, folder := range []string{"history/files", "live/one"} {
			if n := len(names(folder)); n != each[i] {
				t.Errorf("%s: %d files in %s, want %d: %v", what, n, folder, each[i], names(folder))
			}
		}
		w.reopen()
		if b := w.batch(ingest.BatchOptions{Sources: []string{"history"}}); b.FilesRead != 0 || b.FilesSkipped != 45 {
			t.Errorf("%s: the batch read %d files again", what, b.FilesRead)
		}
		if s, err := w.stream(p.reader(), ingest.StreamOptions{}); err != nil || len(s) != 0 || w.hash("trades") != hash || len(w.scan("trades")) != rows {
			t.Errorf("%s: the stream goes on with %+v, %v", what, s, err)
		}
		q, err := w.QuarantineShow(ctx, ingest.QuarantineFilter{})
		if err != nil || len(q) != 2 {
			t.Errorf("%s: quarantine %+v, %v", what, q, err)
		}
	}
	// 45 epochs, as many winner files, and summaries of 20 and 40. The younger one may be news to a run under way.
	if n, m := len(names("history/files")), count("history/files", ".compact.json"); n != 92 || m != 2 {
		t.Fatalf("%d files, %d of them summaries", n, m)
	}
	// One winner file of 20 stays for quarantine, and of files the epoch file too.
	check("the younger summary is fresh", 2*39-1, 92-38, 92-39)
	w.clock.at = w.clock.at.Add(2 * time.Hour)
	check("both are old", 2*41, 92-79, 92-80)
	check("nothing is left to do", 0, 92-79, 92-80)
	if !slices.Contains(names("history/files"), "10.json") {
		t.Errorf("the winner file of the quarantined row's epoch is gone: %v", names("history/files"))
	}
	// What was quarantined in an epoch whose progress is gone can still be tried again.
	if got, err := w.QuarantineRetry(ctx, ingest.QuarantineFilter{}, false); err != nil || got.StillBad != 2 {
		t.Errorf("retry: %+v, %v", got, err)
	}
}
