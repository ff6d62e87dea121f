package ingest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/array"
	arrowmemory "github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/cauce-data/cauce/catalog"
	"github.com/cauce-data/cauce/connect/csv"
	"github.com/cauce-data/cauce/connect/jsonl"
	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/objstore/fault"
)

func (w *world) quarantine(f ingest.QuarantineFilter) []ingest.QuarantineRow {
	w.t.Helper()
	q, err := w.QuarantineShow(context.Background(), f)
	if err != nil {
		w.t.Fatal(err)
	}
	return q
}

// looser lets through what tradesLake refuses.
var looser = strings.Replace(tradesLake, `check: "price > 0"`, `check: "price > -10"`, 1)

func TestQuarantineRetry(t *testing.T) {
	for name, gone := range map[string]bool{"file there": false, "file gone": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tradesLake)
			w.put("trades_1.csv", 0, header, "a,1,x,2024-08-19T10:00:00Z", "b,-2,x,2024-08-19T10:00:00Z", "c,x,x,2024-08-19T10:00:00Z", `d,-3,"quoted, note",2024-08-19T10:00:00Z`)
			p := newTopic("trades")
			trade(p, "e", "-4", 0)
			w.batch(ingest.BatchOptions{})
			if _, err := w.stream(p.reader(), ingest.StreamOptions{}); err != nil {
				t.Fatal(err)
			}
			if q := w.quarantine(ingest.QuarantineFilter{}); len(q) != 4 {
				t.Fatalf("%+v", q)
			}
			if gone {
				if err := w.store.Delete(context.Background(), "raw/batch/trades_1.csv"); err != nil {
					t.Fatal(err)
				}
			}
			r, err := w.QuarantineRetry(context.Background(), ingest.QuarantineFilter{}, false)
			if err != nil || r.Tried != 4 || r.StillBad != 4 || r.Resolved != 0 {
				t.Fatalf("%+v, %v", r, err)
			}
			w.load(looser)
			r, err = w.QuarantineRetry(context.Background(), ingest.QuarantineFilter{}, false)
			if err != nil || r.Tried != 4 || r.Resolved != 3 || r.StillBad != 1 || r.RowsInserted != 3 || r.Missing != 0 {
				t.Fatalf("%+v, %v", r, err)
			}
			equal(t, "rows", w.rows("trades", "id", "price", "note", "_position", "_rank"),
				[]string{"a 1 x 1 0", "b -2 x 2 0", "d -3 quoted, note 4 0", "e -4 live 1 1"})
			if q := w.quarantine(ingest.QuarantineFilter{}); len(q) != 1 || q[0].Rule != "cast:price" {
				t.Errorf("%+v", q)
			}
			if q := w.quarantine(ingest.QuarantineFilter{All: true}); len(q) != 4 {
				t.Errorf("%+v", q)
			}
			// A retry is an epoch like any other: batch and stream go on, and nothing is read twice.
			if r := w.batch(ingest.BatchOptions{}); r.FilesRead != 0 {
				t.Errorf("%+v", r)
			}
			if r, err := w.stream(p.reader(), ingest.StreamOptions{}); err != nil || len(r) != 0 {
				t.Errorf("%+v, %v", r, err)
			}
			st, err := w.Status(context.Background())
			if err != nil || len(st.Quarantine) != 1 || st.Quarantine[0].Rows != 1 {
				t.Errorf("%+v, %v", st, err)
			}
		})
	}
}

// A record that is refused by another rule than before has one row in quarantine, not two.
func TestQuarantineRetryOtherRule(t *testing.T) {
	w := newWorld(t, tradesLake)
	w.put("trades_1.csv", 0, header, "a,-1,x,2024-08-19T10:00:00Z")
	w.batch(ingest.BatchOptions{})
	w.load(strings.Replace(tradesLake, `{name: price_positive, check: "price > 0"`, `{name: other, check: "price > 5"`, 1))
	if r, err := w.QuarantineRetry(context.Background(), ingest.QuarantineFilter{}, false); err != nil || r.StillBad != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	if q := w.quarantine(ingest.QuarantineFilter{All: true}); len(q) != 1 || q[0].Rule != "other" || q[0].State != ingest.StateOpen {
		t.Errorf("%+v", q)
	}
}

// linesLake feeds a table without a key from files.
const linesLake = `
version: 1
storage: file:./data
tables:
  lines:
    columns: {text: STRING, n: LONG}
    key: []
    %s
sources:
  text:
    table: lines
    kind: files
    location: ["raw/batch/lines_*.csv"]
    format: csv
    fields: {text: text, n: "%s"}
`

// numbersAbove is a linesLake that reads zz as -1 and quarantines what is not above a number.
func numbersAbove(n int) string {
	return fmt.Sprintf(linesLake, fmt.Sprintf(`expect: [{name: above, check: "n > %d"}]`, n), "CASE WHEN n = 'zz' THEN -1 ELSE CAST(n AS BIGINT) END")
}

// A retry that refuses a record by another rule and dies at any of its commits leaves the record one row in quarantine,
// and later one row in a table without a key, which nothing but origin and position would keep single.
func TestQuarantineRetryDies(t *testing.T) {
	for _, gone := range []bool{false, true} {
		for nth := 1; ; nth++ {
			w := newWorld(t, fmt.Sprintf(linesLake, "", "n"))
			w.put("lines_1.csv", 0, "text,n", "a,1", "b,zz", "c,3")
			w.batch(ingest.BatchOptions{})
			good := w.store
			broken := fault.New(good)
			broken.Add(fault.Rule{Op: fault.PutIfAbsent, Key: "quarantine/_delta_log/", Nth: nth, Effect: fault.Crash})
			w.store = broken
			w.load(numbersAbove(0))
			_, died := w.QuarantineRetry(context.Background(), ingest.QuarantineFilter{}, false)
			w.store = good
			w.load(numbersAbove(0))
			if q := w.quarantine(ingest.QuarantineFilter{All: true}); len(q) != 1 {
				t.Fatalf("commit %d: %+v", nth, q)
			}
			if gone {
				if err := good.Delete(context.Background(), "raw/batch/lines_1.csv"); err != nil {
					t.Fatal(err)
				}
			}
			w.load(numbersAbove(-5))
			r, err := w.QuarantineRetry(context.Background(), ingest.QuarantineFilter{}, false)
			if err != nil || r.Tried != 1 || r.Resolved != 1 || r.RowsInserted != 1 {
				t.Errorf("commit %d: %+v, %v", nth, r, err)
			}
			equal(t, "rows", w.rows("lines", "text", "n"), []string{"a 1", "b -1", "c 3"})
			if died == nil {
				break
			}
		}
	}
}

// A record with several rows in quarantine is one record.
func TestQuarantineRetryOfTwoRows(t *testing.T) {
	for _, gone := range []bool{false, true} {
		for _, above := range []int{-5, 0} {
			w := newWorld(t, fmt.Sprintf(linesLake, "", "n"))
			w.put("lines_1.csv", 0, "text,n", "a,1", "b,zz", "c,3")
			w.batch(ingest.BatchOptions{})
			w.refuseAgain("above")
			w.refuseAgain("older")
			if q := w.quarantine(ingest.QuarantineFilter{}); len(q) != 3 {
				t.Fatalf("%+v", q)
			}
			if gone {
				if err := w.store.Delete(context.Background(), "raw/batch/lines_1.csv"); err != nil {
					t.Fatal(err)
				}
			}
			w.load(numbersAbove(above))
			r, err := w.QuarantineRetry(context.Background(), ingest.QuarantineFilter{}, false)
			if err != nil || r.Tried != 1 || r.Resolved+r.StillBad != 1 {
				t.Errorf("%+v, %v", r, err)
			}
			want, state := []string{"a 1", "b -1", "c 3"}, ingest.StateResolved
			if above == 0 {
				want, state = []string{"a 1", "c 3"}, ingest.StateOpen
			}
			equal(t, "rows", w.rows("lines", "text", "n"), want)
			if q := w.quarantine(ingest.QuarantineFilter{All: true}); len(q) != 1 || q[0].State != state {
				t.Errorf("%+v", q)
			}
		}
	}
}

// refuseAgain gives the rows of quarantine copies with another rule.
func (w *world) refuseAgain(rule string) {
	w.t.Helper()
	ctx := context.Background()
	q, err := w.Catalog().Open(ctx, catalog.Quarantine)
	if err != nil {
		w.t.Fatal(err)
	}
	s, err := q.Snapshot(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	b := array.NewStringBuilder(arrowmemory.DefaultAllocator)
	defer b.Release()
	for rows, err := range q.Scan(ctx, s, delta.ScanOptions{}) {
		if err != nil {
			w.t.Fatal(err)
		}
		for range rows.NumRows() {
			b.Append(rule)
		}
		rules := b.NewArray()
		defer rules.Release()
		copied, err := rows.SetColumn(rows.Schema().FieldIndices("rule")[0], rules)
		if err != nil {
			w.t.Fatal(err)
		}
		defer copied.Release()
		if _, err := q.Merge(ctx, delta.NewRows(copied.Schema(), copied), delta.MergeOptions{Key: []string{"source", "origin", "position", "rule"}}); err != nil {
			w.t.Fatal(err)
		}
		return
	}
}

// Quarantine is read in pieces: one row does not cost the memory of all, and a retry takes some records at a time.
func TestQuarantineInPieces(t *testing.T) {
	w := newWorld(t, tradesLake)
	p := newTopic("trades")
	const n = 80
	for range n {
		p.publish("%s", strings.Repeat("x", 1<<20))
	}
	if _, err := w.stream(p.reader(), ingest.StreamOptions{BytesMax: 8 << 20}); err != nil {
		t.Fatal(err)
	}
	p.records = nil
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	q := w.quarantine(ingest.QuarantineFilter{Limit: 1})
	runtime.ReadMemStats(&after)
	if len(q) != 1 || q[0].Offset != 1 || len(q[0].Raw) != 1<<20 || q[0].State != ingest.StateOpen {
		t.Errorf("%d rows", len(q))
	}
	if mb := (after.TotalAlloc - before.TotalAlloc) >> 20; mb > n {
		t.Errorf("%d MB were allocated to show one row", mb)
	}
	r, err := w.QuarantineRetry(context.Background(), ingest.QuarantineFilter{}, false)
	if err != nil || r.Tried != n || r.StillBad != n || r.Epochs != 2 {
		t.Errorf("%+v, %v", r, err)
	}
}

// A value that is too long for the name of its partition's folder goes to quarantine, and does not stop the stream.
func TestLongPartitionValues(t *testing.T) {
	w := newWorld(t, strings.Replace(tradesLake, "partition_by: [event_date]", "partition_by: [note]", 1))
	local, err := objstore.NewLocal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w.store, w.cfg.Store, w.cfg.Engine = local, local, engine(t)
	w.reopen()
	p := newTopic("trades")
	for _, s := range []struct {
		id, note string
		n        int
	}{
		{"fits", "n", 250}, {"long", "n", 251}, {"endless", "n", 5000}, {"fits too", "ñ", 41}, {"more than it seems", "ñ", 42}, {"slashes", "/", 83}, {"more slashes", "/", 84}, {"short", "\u0000 /:", 3},
	} {
		note := strings.Repeat(s.note, s.n)
		text, err := json.Marshal(note)
		if err != nil {
			t.Fatal(err)
		}
		p.publish(`{"e":"trade","s":%q,"p":"1","n":%s,"T":1724148000000}`, s.id, text)
	}
	r, err := w.stream(p.reader(), ingest.StreamOptions{})
	if err != nil || len(r) != 1 || r[0].RowsInserted != 4 {
		t.Fatalf("%+v, %v", r, err)
	}
	equal(t, "rows", w.rows("trades", "id", "note"), []string{
		"fits " + strings.Repeat("n", 250), "fits too " + strings.Repeat("ñ", 41), "short " + strings.Repeat("\x00 /:", 3), "slashes " + strings.Repeat("/", 83),
	})
	q := w.quarantine(ingest.QuarantineFilter{})
	if len(q) != 4 {
		t.Fatalf("%d rows in quarantine", len(q))
	}
	for _, r := range q {
		if r.Rule != "partition:note" || !strings.HasPrefix(r.Reason, `note = "`) || !strings.HasSuffix(r.Reason, " is too long for the name of a folder") {
			t.Errorf("%s: %s", r.Rule, r.Reason)
		}
	}
}

// Rows of an epoch that was never committed do not count: they are pending until another epoch covers their records.
func TestQuarantinePending(t *testing.T) {
	w := newWorld(t, tradesLake)
	w.put("trades_0.csv", 0, header, "z,1,x,2024-08-19T10:00:00Z")
	w.batch(ingest.BatchOptions{})
	w.put("trades_1.csv", 0, header, "a,1,x,2024-08-19T10:00:00Z", "b,-2,x,2024-08-19T10:00:00Z")
	good := w.store
	broken := fault.New(good)
	broken.Add(fault.Rule{Op: fault.PutIfAbsent, Key: "processed/trades/_delta_log", Effect: fault.Crash})
	w.store = broken
	w.reopen()
	if _, err := w.RunBatch(context.Background(), ingest.BatchOptions{}); err == nil {
		t.Fatal("no error from a store that crashed")
	}
	w.store = good
	w.reopen()
	if q := w.quarantine(ingest.QuarantineFilter{}); len(q) != 0 {
		t.Errorf("counts already: %+v", q)
	}
	if q := w.quarantine(ingest.QuarantineFilter{All: true}); len(q) != 1 || q[0].State != ingest.StatePending {
		t.Errorf("%+v", q)
	}
	// The next run has other rules, under which the record fits: the pending row vanishes.
	w.load(looser)
	w.batch(ingest.BatchOptions{})
	if q := w.quarantine(ingest.QuarantineFilter{All: true}); len(q) != 1 || q[0].State != ingest.StateSuperseded {
		t.Errorf("%+v", q)
	}
	if _, err := w.Maintain(context.Background(), ingest.MaintainOptions{}); err != nil {
		t.Fatal(err)
	}
	if q := w.quarantine(ingest.QuarantineFilter{All: true}); len(q) != 0 {
		t.Errorf("%+v", q)
	}
	equal(t, "rows", w.rows("trades", "id"), []string{"a", "b", "z"})
}

func TestSampleAndPlan(t *testing.T) {
	w := newWorld(t, tradesLake)
	w.put("trades_1.csv", 0, header, "a,1,x,2024-08-19T10:00:00Z", "a,-2,x,2024-08-19T10:00:00Z", "c,3,drop,2024-08-19T10:00:00Z", "a,4,x,2024-08-19T10:00:00Z")
	before := 0
	for _, err := range w.store.List(context.Background(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		before++
	}
	s, err := w.Sample(context.Background(), ingest.SampleOptions{Source: "history", N: 3})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Rows) != 3 || s.Rows[0].Outcome != ingest.OutcomeRow || s.Rows[1].Rule != "price_positive" || s.Rows[2].Outcome != ingest.OutcomeFiltered {
		t.Fatalf("%+v", s)
	}
	if r := s.Rows[0]; r.Fields["price"] != "1" || r.Final["event_date"] != "2024-08-19" || r.Mapped["id"] != "a" || r.Mapped["event_date"] != nil {
		t.Errorf("%+v", r)
	}
	w.put("trades_0.csv", 0)
	w.put("trades_00.csv", 0, header)
	if s, err = w.Sample(context.Background(), ingest.SampleOptions{Source: "history"}); err != nil || s.File != "raw/batch/trades_1.csv" || len(s.Rows) != 4 {
		t.Errorf("files without records before the first that has some: %+v, %v", s, err)
	}
	for _, name := range []string{"trades_0.csv", "trades_00.csv"} {
		if err := w.store.Delete(context.Background(), "raw/batch/"+name); err != nil {
			t.Fatal(err)
		}
	}
	p := newTopic("trades")
	trade(p, "e", "-4", 0)
	if s, err = w.Sample(context.Background(), ingest.SampleOptions{Source: "live", Stream: p.reader()}); err != nil || len(s.Rows) != 1 || s.Rows[0].Rule != "price_positive" {
		t.Errorf("%+v, %v", s, err)
	}
	plan := func() map[string]string {
		t.Helper()
		r, err := w.Plan(context.Background(), ingest.PlanOptions{})
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]string{}
		for _, s := range r.Sources {
			for _, f := range s.Files {
				out[f.File] = f.Reason
			}
		}
		return out
	}
	if got := plan(); len(got) != 1 || got["raw/batch/trades_1.csv"] != "new" {
		t.Errorf("plan: %v", got)
	}
	after := 0
	for range w.store.List(context.Background(), "", "") {
		after++
	}
	if before != after {
		t.Errorf("plan or sample wrote something")
	}
	w.batch(ingest.BatchOptions{})
	w.put("trades_2.csv", 1, header, "a,1,x,2024-08-19T10:00:00Z", "a,-2,x,2024-08-19T10:00:00Z", "c,3,drop,2024-08-19T10:00:00Z", "a,4,x,2024-08-19T10:00:00Z")
	w.put("trades_1.csv", 1, header, "a,1,x,2024-08-19T10:00:00Z")
	if got := plan(); got["raw/batch/trades_1.csv"] != "reissued" || got["raw/batch/trades_2.csv"] != "copy" {
		t.Errorf("plan: %v", got)
	}
}

// TestPlanOfASource: what a run of one source would do says nothing of a table that it does not open.
func TestPlanOfASource(t *testing.T) {
	w := newWorld(t, tradesLake)
	w.put("lines_1.csv", 0, "text,n", "a,1")
	w.batch(ingest.BatchOptions{})
	w.load(strings.Replace(tradesLake, "n: LONG", "n: STRING", 1))
	for source, refused := range map[string]bool{"history": false, "text": true} {
		p, err := w.Plan(t.Context(), ingest.PlanOptions{Sources: []string{source}})
		if err != nil || len(p.Tables) != 1 || (p.Tables[0].Problem != "") != refused {
			t.Errorf("plan of %s: %+v, %v", source, p, err)
		}
		if _, err := w.RunBatch(t.Context(), ingest.BatchOptions{Sources: []string{source}}); (err != nil) != refused {
			t.Errorf("batch of %s: %v", source, err)
		}
	}
	if p, err := w.Plan(t.Context(), ingest.PlanOptions{}); err != nil || len(p.Tables) != 2 {
		t.Errorf("plan of all: %+v, %v", p, err)
	}
}

// keyedLake reads a Kafka topic; its verb stands where kafka.tombstones may.
const keyedLake = `
version: 1
storage: file:./data
tables:
  trades:
    columns: {id: {type: STRING, not_null: true}, price: "DECIMAL(18,4)", event_time: TIMESTAMP}
    key: [id]
    sequence: [event_time]
sources:
  live:
    table: trades
    kind: kafka
    topic: trades
    kafka: {brokers: ["127.0.0.1:9092"]%s}
    format: json
    fields: {id: s, price: p, event_time: to_event_time(T)}
`

// TestRetryOfATombstoneKnowsItsTime: a message without value that was refused, because the lake file did not say what it
// means, deletes once the lake file says so; when it was published is what orders it.
func TestRetryOfATombstoneKnowsItsTime(t *testing.T) {
	w := newWorld(t, fmt.Sprintf(keyedLake, ""))
	p := newTopic("trades")
	trade(p, "a", "1", 0)
	trade(p, "b", "1", 0)
	trade(p, "c", "1", 5) // newer than its deletion
	for _, key := range []string{"a", "c"} {
		p.publish("")
		p.records[len(p.records)-1].Key, p.records[len(p.records)-1].Value = []byte(key), nil
	}
	if _, err := w.stream(p.reader(), ingest.StreamOptions{}); err != nil {
		t.Fatal(err)
	}
	q := w.quarantine(ingest.QuarantineFilter{})
	if len(q) != 2 || q[0].MessageTime == nil || !q[0].MessageTime.Equal(start.Add(4*time.Second)) {
		t.Fatalf("%+v", q)
	}
	w.load(fmt.Sprintf(keyedLake, ", tombstones: {key: s, time: T}"))
	r, err := w.QuarantineRetry(context.Background(), ingest.QuarantineFilter{}, false)
	if err != nil || r.Resolved != 2 || r.StillBad != 0 || r.RowsDeleted != 1 || r.RowsUnchanged != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	equal(t, "rows", w.rows("trades", "id", "_deleted", "event_time"), []string{
		"a true 2024-08-20T12:00:04Z", "b - 2024-08-20T12:00:00Z", "c - 2024-08-20T12:05:00Z",
	})
}

// TestRetryOfAnEmptyMessageDeletesNothing: a message of no bytes is no message without value, whatever its key; it stays
// what it was.
func TestRetryOfAnEmptyMessageDeletesNothing(t *testing.T) {
	w := newWorld(t, fmt.Sprintf(keyedLake, ", tombstones: {key: s, time: T}"))
	p := newTopic("trades")
	trade(p, "a", "1", 0)
	for _, m := range []struct{ key, value []byte }{{[]byte("a"), []byte{}}, {[]byte{}, []byte{}}, {nil, []byte{}}, {nil, nil}} {
		p.publish("")
		r := &p.records[len(p.records)-1]
		r.Key, r.Value = m.key, m.value
	}
	if _, err := w.stream(p.reader(), ingest.StreamOptions{}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		rows := w.quarantine(ingest.QuarantineFilter{})
		if len(rows) != 4 {
			t.Fatalf("%+v", rows)
		}
		for i, q := range rows {
			if (q.RawBinary != nil) != (i < 3) || (q.Key != nil) != (i < 2) {
				t.Errorf("message %d is kept with the key %#v and the value %#v", i, q.Key, q.RawBinary)
			}
		}
		r, err := w.QuarantineRetry(t.Context(), ingest.QuarantineFilter{}, false)
		if err != nil || r.Tried != 4 || r.StillBad != 4 || r.RowsDeleted != 0 {
			t.Errorf("%+v, %v", r, err)
		}
	}
	equal(t, "rows", w.rows("trades", "id", "price", "_deleted"), []string{"a 1 false"})
}

// TestQuarantinedMessageNamesItsPlace: the first partition and the first offset are 0, and are said.
func TestQuarantinedMessageNamesItsPlace(t *testing.T) {
	for _, c := range []struct {
		row  ingest.QuarantineRow
		want string
	}{
		{ingest.QuarantineRow{Topic: "trades"}, `0 0`},
		{ingest.QuarantineRow{Topic: "trades", Partition: 3, Offset: 9}, `3 9`},
		{ingest.QuarantineRow{File: "a.csv"}, `<nil> <nil>`},
	} {
		text, err := json.Marshal([]ingest.QuarantineRow{c.row})
		if err != nil {
			t.Fatal(err)
		}
		var rows []map[string]any
		if err := json.Unmarshal(text, &rows); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(rows[0]["partition"], " ", rows[0]["offset"]); got != c.want {
			t.Errorf("%s, want %s: %s", got, c.want, text)
		}
	}
}

// Where records are counted otherwise than when they came into quarantine, those at their positions are others.
func TestRetryWithAnotherHeader(t *testing.T) {
	with := func(header string) string {
		return strings.Replace(tradesLake, "fields: {text: text, n: n}", "csv: {header: "+header+", columns: [text, n]}\n    fields: {text: text, n: n}", 1)
	}
	w := newWorld(t, with("false"))
	w.put("lines_1.csv", 0, "text,n", "one,1", "two,2")
	w.batch(ingest.BatchOptions{})
	w.load(strings.Replace(with("true"), ", columns: [text, n]", "", 1))
	r, err := w.QuarantineRetry(context.Background(), ingest.QuarantineFilter{}, false)
	if err != nil || r.Tried != 1 || r.Missing != 1 || r.Resolved != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	equal(t, "rows", w.rows("lines", "text", "n"), []string{"one 1", "two 2"})
}

// A file that came again with its columns in another order does not say what the columns of its predecessor's records were.
func TestRetryAfterAReissueWithOtherColumns(t *testing.T) {
	w := newWorld(t, tradesLake)
	w.put("trades_1.csv", 0, header, "a,1,x,2024-08-19T10:00:00Z", "b,-2,7,2024-08-19T10:00:00Z")
	w.batch(ingest.BatchOptions{})
	w.put("trades_1.csv", 1, "id,note,price,time", "a,x,1,2024-08-19T10:00:00Z")
	w.batch(ingest.BatchOptions{})
	w.load(looser)
	r, err := w.QuarantineRetry(context.Background(), ingest.QuarantineFilter{}, false)
	if err != nil || r.Tried != 1 || r.Resolved != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	equal(t, "rows", w.rows("trades", "id", "price", "note"), []string{"a 1 x", "b -2 7"})
}

// Quarantine shows bytes that are no text in another way. A record is not made of that when its file is gone.
func TestRetryOfARecordThatIsNoText(t *testing.T) {
	objects := strings.Replace(tradesLake, "format: csv\n    fields: {text: text, n: n}", "format: jsonl\n    fields: {text: text, n: n}", 1)
	for _, c := range []struct{ lake, table, file, good, bad string }{
		{tradesLake, "trades", "trades_1.csv", header + "\na,1,x,2024-08-19T10:00:00Z\n", "caf\xe8,2,x,2024-08-19T10:00:00Z\ncaf\xff\xff\xff,3,x,2024-08-19T10:00:00Z\n"},
		{objects, "lines", "lines_1.csv", `{"text":"` + strings.Repeat("a", 500) + `","n":1}` + "\n", `{"text":"caf` + "\xe8" + `","n":2}` + "\n" + `{"text":"caf` + "\xff\xff\xff" + `","n":3}` + "\n"},
	} {
		w := newWorld(t, c.lake)
		if c.table == "lines" {
			w.cfg.Opener = jsonl.Opener{Stager: csv.NewOpener(csv.Options{TempDir: w.dir})}
			w.reopen()
		}
		w.putRaw("raw/batch/"+c.file, 0, c.good+c.bad)
		w.batch(ingest.BatchOptions{})
		if q := w.quarantine(ingest.QuarantineFilter{}); len(q) != 2 {
			t.Fatalf("%s: quarantine has %+v", c.file, q)
		}
		if err := w.store.Delete(t.Context(), "raw/batch/"+c.file); err != nil {
			t.Fatal(err)
		}
		r, err := w.QuarantineRetry(t.Context(), ingest.QuarantineFilter{}, false)
		if err != nil || r.Tried != 2 || r.Resolved != 0 || r.Missing != 2 || len(w.scan(c.table)) != 1 {
			t.Errorf("%s: %+v, %v; the table has %d rows", c.file, r, err, len(w.scan(c.table)))
		}
	}
}
