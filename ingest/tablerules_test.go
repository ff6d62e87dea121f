package ingest_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/engine/duckdb"
	"github.com/cauce-data/cauce/ingest"
)

// ruledEngine is storeEngine for tables with constraints.
type ruledEngine struct{ *duckdb.Engine }

func (e ruledEngine) Delta() delta.Engine {
	return delta.Engine{Expressions: e.Engine.Delta().Expressions}
}

// TestRowsThatTheTableRefuses: a row that breaks a rule of the table alone goes to quarantine, from files and streams, and wins
// against no row that keeps it.
func TestRowsThatTheTableRefuses(t *testing.T) {
	w := newWorld(t, strings.Replace(tradesLake, "columns: {text: STRING, n: LONG}", `columns: {text: "STRUCT<a: STRING NOT NULL, l: ARRAY<STRUCT<x: INT NOT NULL>>>", n: LONG}`, 1))
	w.cfg.Engine = ruledEngine{engine(t)}
	w.reopen()
	table, err := w.Catalog().Ensure(context.Background(), "trades")
	if err != nil {
		t.Fatal(err)
	}
	for name, sql := range map[string]string{"low": "price < 500", "known": "note IS NOT NULL AND note <> 'nobody'"} {
		if _, err := table.AddConstraint(t.Context(), name, sql); err != nil {
			t.Fatal(err)
		}
	}
	w.put("trades_1.csv", 0, "id,price,note,time", "a,1,x,1724148000000", "a,600,x,1724148000001", "b,-1,x,1724148000000", "c,700,nobody,1724148000000", "d,4,nobody,1724148000000")
	w.put("lines_1.csv", 0, "text,n", `"{""a"":""x"",""l"":[{""x"":1}]}",1`, `"{""l"":[]}",2`, `"{""a"":""x"",""l"":[{""x"":1},{}]}",3`, ",4")
	r := w.batch(ingest.BatchOptions{})
	if r.RowsInserted != 3 || r.RowsQuarantined != 6 {
		t.Errorf("batch: %+v", r.Counts)
	}
	w.put("trades_2.csv", 1, "id,price,note,time", "e,5,x,1724148000000")
	w.batch(ingest.BatchOptions{})
	p := newTopic("trades")
	trade(p, "f", "1", 1)
	trade(p, "f", "501", 2)
	reports, err := w.stream(p.reader(), ingest.StreamOptions{})
	if err != nil || reports[0].RowsInserted != 1 || reports[0].RowsQuarantined != 1 {
		t.Errorf("stream: %+v, %v", reports, err)
	}
	equal(t, "rows", w.rows("trades", "id", "price"), []string{"a 1", "e 5", "f 1"})
	equal(t, "rows without a key", w.rows("lines", "n"), []string{"1", "4"})
	var got []string
	for _, q := range w.quarantine(ingest.QuarantineFilter{}) {
		got = append(got, q.Rule+": "+q.Reason)
	}
	equal(t, "quarantine", got, []string{
		`check:low: price = "600.0000": price < 500 is not true`,
		`price_positive: price = "-1.0000": price > 0 is not true`,
		`check:known: note = "nobody": note IS NOT NULL AND note <> 'nobody' is not true`,
		`check:known: note = "nobody": note IS NOT NULL AND note <> 'nobody' is not true`,
		`not_null:text.a: text.a is null`,
		`not_null:text.l.element.x: text.l.element.x is null`,
		`check:low: price = "501.0000": price < 500 is not true`,
	})

	// Without the constraint what comes later is judged, also by a stream that runs and waits, whoever has dropped it; and a retry
	// brings the rows in.
	w.reopen()
	ctx, stop := context.WithCancel(t.Context())
	trade(p, "g", "2", 3)
	var later []ingest.StreamReport
	err = w.RunStream(ctx, p.reader(), ingest.StreamOptions{Source: "live", NoMaintenance: true, Trigger: time.Millisecond, OnEpoch: func(r ingest.StreamReport) {
		if later = append(later, r); len(later) > 1 {
			stop()
			return
		}
		if _, err := table.DropConstraint(ctx, "low", false); err != nil { // of another process
			t.Error(err)
			stop()
		}
		trade(p, "h", "502", 4)
	}})
	if err != nil || len(later) != 2 || later[1].RowsInserted != 1 {
		t.Errorf("stream: %+v, %v", later, err)
	}
	retried, err := w.QuarantineRetry(t.Context(), ingest.QuarantineFilter{Rule: "check:low"}, false)
	if err != nil || retried.Tried != 2 || retried.Resolved != 2 {
		t.Errorf("retry: %+v, %v", retried, err)
	}
	equal(t, "rows after the retry", w.rows("trades", "id", "price"), []string{"a 600", "e 5", "f 501", "g 2", "h 502"})
}

// TestSampleKnowsTheRulesOfTheTable: what a run brings to quarantine is no row in a sample.
func TestSampleKnowsTheRulesOfTheTable(t *testing.T) {
	w := newWorld(t, tradesLake)
	w.cfg.Engine = ruledEngine{engine(t)}
	w.reopen()
	w.put("trades_1.csv", 0, "id,price,note,time", "a,1,x,1724148000000", "b,600,x,1724148000000")
	sample := func() (out []string) {
		r, err := w.Sample(t.Context(), ingest.SampleOptions{Source: "history"})
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range r.Rows {
			out = append(out, strings.TrimSpace(x.Outcome+" "+x.Rule))
		}
		return out
	}
	equal(t, "before there is a table", sample(), []string{"row", "row"})
	table, err := w.Catalog().Ensure(t.Context(), "trades")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := table.AddConstraint(t.Context(), "low", "price < 500"); err != nil {
		t.Fatal(err)
	}
	equal(t, "sample", sample(), []string{"row", "quarantined check:low"})
	w.batch(ingest.BatchOptions{})
	equal(t, "rows", w.rows("trades", "id"), []string{"a"})
}
