package ingest_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/cauce-data/cauce/ingest"
)

const header = "id,price,note,time"

func TestBatchReadsOnce(t *testing.T) {
	w := newWorld(t, tradesLake)
	w.put("trades_1.csv", 0, header,
		"a,1.5,x,2024-08-19T10:00:00Z",
		"b,2,x,2024-08-20T10:00:00Z",
		"c,-1,bad,2024-08-20T10:00:00Z",
		"d,3,drop,2024-08-20T10:00:00Z",
		"a,1.7,later,2024-08-19T11:00:00Z")
	w.put("trades_2.csv.gz", 1, header, "b,5000,zip,2024-08-21T10:00:00Z")
	for _, name := range []string{".trades_3.csv", "trades_4.csv.tmp", "trades_5.csv.part", "trades_1.csv.CHECKSUM"} {
		w.put(name, 0, "nothing to read")
	}
	r := w.batch(ingest.BatchOptions{Sources: []string{"history"}})
	if r.FilesRead != 2 || r.RowsRead != 6 || r.RowsInserted != 2 || r.RowsQuarantined != 1 || r.RowsFiltered != 1 || r.RowsUnchanged != 2 {
		t.Errorf("report: %+v", r)
	}
	if r.Warned["trades.cheap"] != 1 {
		t.Errorf("warned: %v", r.Warned)
	}
	want := []string{"a 1.7 later 2024-08-19", "b 5000 zip 2024-08-21"}
	equal(t, "rows", w.rows("trades", "id", "price", "note", "event_date"), want)

	v := r.Version
	for range 2 {
		w.reopen()
		r = w.batch(ingest.BatchOptions{})
		if r.FilesRead != 0 || r.RowsRead != 0 || r.Version != v || r.FilesSkipped != 2 {
			t.Errorf("second run: %+v", r)
		}
	}
	// A renamed copy is the same content.
	w.put("trades_9.csv", 5, header,
		"a,1.5,x,2024-08-19T10:00:00Z",
		"b,2,x,2024-08-20T10:00:00Z",
		"c,-1,bad,2024-08-20T10:00:00Z",
		"d,3,drop,2024-08-20T10:00:00Z",
		"a,1.7,later,2024-08-19T11:00:00Z")
	if r = w.batch(ingest.BatchOptions{}); r.FilesRead != 0 || r.Version != v || r.FilesSkipped != 3 {
		t.Errorf("copy: %+v", r)
	}
	equal(t, "rows", w.rows("trades", "id", "price", "note", "event_date"), want)
}

func TestBatchReissue(t *testing.T) {
	w := newWorld(t, tradesLake)
	w.put("trades_1.csv", 0, header, "a,1,x,2024-08-19T10:00:00Z", "b,2,x,2024-08-20T10:00:00Z", "c,3,x,2024-08-20T10:00:00Z")
	w.batch(ingest.BatchOptions{})
	// The same file again with one row corrected and one gone: merge changes what differs and keeps what is gone.
	w.put("trades_1.csv", 9, header, "a,1,x,2024-08-19T10:00:00Z", "b,2.5,x,2024-08-20T10:00:00Z")
	r := w.batch(ingest.BatchOptions{})
	if r.RowsUpdated != 1 || r.RowsUnchanged != 1 || r.RowsInserted != 0 {
		t.Errorf("report: %+v", r)
	}
	equal(t, "rows", w.rows("trades", "id", "price"), []string{"a 1", "b 2.5", "c 3"})

	// Without a key the reading is replaced as a whole.
	w.put("lines_1.csv", 0, "text,n", "one,1", "two,2", "two,2")
	w.put("lines_2.csv", 0, "text,n", "other,1")
	w.batch(ingest.BatchOptions{})
	equal(t, "lines", w.rows("lines", "text", "n"), []string{"one 1", "other 1", "two 2", "two 2"})
	w.put("lines_1.csv", 1, "text,n", "one,1", "three,3")
	r = w.batch(ingest.BatchOptions{})
	if r.RowsRemoved != 3 && r.RowsRemoved != 2 {
		t.Errorf("report: %+v", r)
	}
	equal(t, "lines", w.rows("lines", "text", "n"), []string{"one 1", "other 1", "three 3"})
	// An old content that comes back is a re-issue too.
	w.put("lines_1.csv", 2, "text,n", "one,1", "two,2", "two,2")
	w.batch(ingest.BatchOptions{})
	equal(t, "lines", w.rows("lines", "text", "n"), []string{"one 1", "other 1", "two 2", "two 2"})
}

func TestBatchReprocess(t *testing.T) {
	w := newWorld(t, tradesLake)
	w.put("trades_1.csv", 0, header, "a,1,x,2024-08-19T10:00:00Z", "b,2,x,2024-08-20T10:00:00Z", "c,-3,x,2024-08-20T10:00:00Z")
	w.put("trades_2.csv", 0, header, "d,4,x,2024-08-19T10:00:00Z")
	w.batch(ingest.BatchOptions{})
	stricter := strings.Replace(tradesLake, `check: "price > 0"`, `check: "price > 1 OR price < 0"`, 1)
	w.load(stricter)
	if r := w.batch(ingest.BatchOptions{}); r.FilesRead != 0 {
		t.Errorf("a changed lake file must not read again by itself: %+v", r)
	}
	r := w.batch(ingest.BatchOptions{Reprocess: true, FileGlob: "trades_1*"})
	if r.FilesRead != 1 || r.RowsRead != 3 || r.RowsQuarantined != 1 || r.RowsRemoved == 0 {
		t.Errorf("report: %+v", r)
	}
	equal(t, "rows", w.rows("trades", "id", "price"), []string{"b 2", "c -3", "d 4"})
	q, err := w.QuarantineShow(context.Background(), ingest.QuarantineFilter{})
	if err != nil {
		t.Fatal(err)
	}
	if len(q) != 1 || q[0].Position != 1 || q[0].Rule != "price_positive" || q[0].Line != 2 || !strings.HasPrefix(q[0].Raw, "a,1,x") {
		t.Errorf("quarantine: %+v", q)
	}
	if r = w.batch(ingest.BatchOptions{}); r.FilesRead != 0 || r.FilesSkipped != 2 {
		t.Errorf("after reprocessing: %+v", r)
	}
	// Back to the first rules: the record that was refused comes back, the other one goes.
	w.load(tradesLake)
	w.batch(ingest.BatchOptions{Reprocess: true})
	equal(t, "rows", w.rows("trades", "id", "price"), []string{"a 1", "b 2", "d 4"})
	if q, err = w.QuarantineShow(context.Background(), ingest.QuarantineFilter{All: true}); err != nil || len(q) != 1 || q[0].Position != 3 {
		t.Errorf("quarantine: %+v, %v", q, err)
	}
}

func TestBatchGoesOnWithoutBadFiles(t *testing.T) {
	w := newWorld(t, tradesLake)
	w.put("trades_1.csv", 0, header, "a,1,x,2024-08-19T10:00:00Z")
	w.put("trades_2.csv", 0, "id,note,time", "b,x,2024-08-19T10:00:00Z") // no price
	w.putRaw("raw/batch/trades_3.csv.gz", 0, "this is not gzip")
	w.putRaw("raw/batch/trades_4.csv", 0, "id,price,note,time\nz,1,x,2024-08-19T10:00:00Z\n\x00\xff\xfe\x00\x01binary\x00\n")
	w.put("trades_5.csv", 0, header)
	w.put("trades_6.csv", 0, header, "c,1,x,2024-08-19T10:00:00Z")
	for range 2 {
		r := w.batch(ingest.BatchOptions{})
		failed := map[string]bool{}
		for _, f := range r.FailedFiles {
			failed[f.File] = true
			if f.Error == "" || f.Source != "history" {
				t.Errorf("failed file: %+v", f)
			}
		}
		if !failed["raw/batch/trades_2.csv"] || !failed["raw/batch/trades_3.csv.gz"] {
			t.Errorf("failed: %+v", r.FailedFiles)
		}
	}
	got := w.rows("trades", "id")
	if strings.Join(got, "")[:2] != "ac" {
		t.Errorf("rows: %v", got)
	}
}

// A file whose name progress could not keep is not read, so that a re-issue of it does not stand beside its predecessor; under
// another name it is.
func TestBatchNamesThatAreNoUTF8(t *testing.T) {
	w := newWorld(t, tradesLake)
	put := func(name string, minute int, lines ...string) {
		w.put("lines_"+name+".csv", minute, append([]string{"text,n"}, lines...)...)
	}
	put("caf\xe9", 0, "a,1")
	put("café", 0, "b,1")
	for minute := range 2 {
		r := w.batch(ingest.BatchOptions{})
		if len(r.FailedFiles) != 1 || !strings.Contains(r.FailedFiles[0].Error, "UTF-8") {
			t.Errorf("failed: %+v", r.FailedFiles)
		}
		if p, err := w.Plan(t.Context(), ingest.PlanOptions{}); err != nil || len(p.Warnings) == 0 || !strings.Contains(p.Warnings[0], "UTF-8") {
			t.Errorf("plan: %+v, %v", p, err)
		}
		put("caf\xe9", minute+1, "a,1", "c,1")
	}
	if got := strings.Join(w.rows("lines", "text"), " "); got != "b" {
		t.Errorf("rows: %s", got)
	}
	put("renamed", 3, "a,1", "c,1")
	w.batch(ingest.BatchOptions{})
	if got := strings.Join(w.rows("lines", "text"), " "); got != "a b c" {
		t.Errorf("rows under another name: %s", got)
	}
}

func TestBatchFailRule(t *testing.T) {
	w := newWorld(t, strings.Replace(tradesLake, "on_fail: quarantine", "on_fail: fail", 1))
	w.put("trades_1.csv", 0, header, "a,-1,x,2024-08-19T10:00:00Z")
	w.put("lines_1.csv", 0, "text,n", "one,1")
	r, err := w.RunBatch(context.Background(), ingest.BatchOptions{})
	var rule *ingest.ExpectationError
	if !errors.As(err, &rule) || rule.Rule != "price_positive" || ingest.ExitCode(err) != 3 {
		t.Errorf("error: %v", err)
	}
	if r.RowsRead != 1 {
		t.Errorf("the other source must go on: %+v", r)
	}
	equal(t, "rows", w.rows("trades", "id"), nil)
}

func TestBatchSmallEpochs(t *testing.T) {
	w := newWorld(t, tradesLake)
	for i, line := range []string{"a,1,x,2024-08-19T10:00:00Z", "b,1,x,2024-08-19T10:00:00Z", "a,2,x,2024-08-19T11:00:00Z", "c,1,x,2024-08-19T10:00:00Z"} {
		w.put("trades_"+string(rune('1'+i))+".csv", i, header, line)
	}
	r := w.batch(ingest.BatchOptions{EpochFilesMax: 1})
	if r.Epochs != 4 || r.FilesRead != 4 {
		t.Errorf("report: %+v", r)
	}
	equal(t, "rows", w.rows("trades", "id", "price"), []string{"a 2", "b 1", "c 1"})
	w.reopen()
	if r = w.batch(ingest.BatchOptions{}); r.FilesSkipped != 4 || r.FilesRead != 0 {
		t.Errorf("second run: %+v", r)
	}
}

func TestUsage(t *testing.T) {
	w := newWorld(t, tradesLake)
	for _, name := range []string{"nobody", "live"} {
		if _, err := w.RunBatch(context.Background(), ingest.BatchOptions{Sources: []string{name}}); ingest.ExitCode(err) != 2 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := w.RunStream(context.Background(), newTopic("x").reader(), ingest.StreamOptions{Source: "history"}); ingest.ExitCode(err) != 2 {
		t.Errorf("history: %v", err)
	}
}

// TestBatchTellsItsOwnVersion: the version in the report is that of the run's own commit, whoever committed since.
func TestBatchTellsItsOwnVersion(t *testing.T) {
	w := newWorld(t, tradesLake)
	w.put("trades_1.csv", 0, header, "a,1,x,2024-08-19T00:00:00Z")
	p := newTopic("trades")
	p.publish(`{"e":"trade","s":"b","p":"7","n":"live","T":%d}`, start.UnixMilli())
	r := w.batch(ingest.BatchOptions{Sources: []string{"history"}, OnEpoch: func(ingest.EpochReport) {
		if _, err := w.stream(p.reader(), ingest.StreamOptions{}); err != nil {
			t.Error(err)
		}
	}})
	if r.Version != 1 || r.Tables["trades"].Version != 1 || w.version("trades") != 2 {
		t.Errorf("the report says version %d, the table is at %d", r.Version, w.version("trades"))
	}
	if again := w.batch(ingest.BatchOptions{Sources: []string{"history"}}); again.Version != 2 {
		t.Errorf("a run that commits nothing says version %d", again.Version)
	}
}
