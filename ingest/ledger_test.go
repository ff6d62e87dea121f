package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cauce-data/cauce/engine/duckdb"
	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/internal/testscale"
)

const ledgerLake = `
version: 1
storage: file:./data
tables:
  trades:
    columns: {id: {type: STRING, not_null: true}, symbol: STRING, n: LONG, price: DOUBLE, event_time: TIMESTAMP, event_date: DATE}
    key: [id]
    sequence: [event_time]
    partition_by: [event_date]
    transform: [{set: {id: "symbol || '-' || n", event_date: to_date(event_time)}}]
    expect: [{name: price_positive, check: "price > 0", on_fail: quarantine}]
    ledger: {series: symbol, id: n, day: event_date, unit: trades}
sources:
  history:
    table: trades
    kind: files
    location: ["raw/batch/*.csv"]
    fields: {symbol: symbol, n: n, price: price, event_time: to_event_time(time)}
  live:
    table: trades
    kind: embedded
    topic: trades
    fields: {symbol: s, n: t, price: p, event_time: to_event_time(T)}
    rank: 1
    repair: {kind: binance, ids_max: 100}
`

// exchange is an outside system that has some ids.
type exchange struct {
	has   map[int64]bool
	first int64 // the least id that it still shows
	err   error // after its first answer
	asked [][2]int64
	zip   string
	zips  int // how often it was fetched
}

func (x *exchange) Name() string { return "binance" }

func tradeLine(id int64) string {
	return fmt.Sprintf(`{"s":"BTC","t":%d,"p":"1","T":%d}`, id, start.Add(time.Duration(id)*time.Second).UnixMilli())
}

func (x *exchange) Fetch(_ context.Context, symbol string, from, to int64) iter.Seq2[ingest.RepairRecord, error] {
	x.asked = append(x.asked, [2]int64{from, to})
	return func(yield func(ingest.RepairRecord, error) bool) {
		for _, id := range slices.Sorted(maps.Keys(x.has)) {
			if x.has[id] && id >= max(from, x.first) && id <= to && !yield(ingest.RepairRecord{ID: id, Value: []byte(tradeLine(id))}, nil) {
				return
			}
		}
		if x.err != nil {
			yield(ingest.RepairRecord{}, x.err)
		}
	}
}

func (x *exchange) Archive(_ context.Context, symbol, day, dir string) (string, error) {
	if x.zip == "" {
		return "", ingest.ErrNoArchive
	}
	x.zips++
	p := filepath.Join(dir, symbol+"-"+day+".csv")
	return p, os.WriteFile(p, []byte(x.zip), 0o600)
}

func ids(from, to int64) map[int64]bool {
	m := map[int64]bool{}
	for i := from; i <= to; i++ {
		m[i] = true
	}
	return m
}

func (w *world) gaps(o ingest.GapsOptions) *ingest.GapsReport {
	w.t.Helper()
	r, err := w.Gaps(context.Background(), o)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func holesText(r *ingest.GapsReport) (out []string) {
	for _, h := range r.Holes {
		out = append(out, fmt.Sprintf("%s %d-%d %s", h.Series, h.From, h.To, h.Owner))
	}
	return out
}

func statements(r *ingest.GapsReport) (out []string) {
	for _, d := range r.Days {
		out = append(out, d.Statement)
	}
	return out
}

// A day lacks its first ids as much as any other, also where what lies before is left out.
func TestLedgerSinceADayWithoutItsFirstIDs(t *testing.T) {
	w := newWorld(t, ledgerLake)
	w.put("a.csv", 0, "symbol,n,price,time", "BTC,1,1,2024-08-17T10:00:00Z", "BTC,3,1,2024-08-17T10:00:00Z", "BTC,4,1,2024-08-18T10:00:00Z", "ETH,1,1,2024-08-18T10:00:00Z", "XRP,1,1,2024-08-16T10:00:00Z", "SOL,1,1,2024-06-01T10:00:00Z")
	w.put("b.csv", 0, "symbol,n,price,time", "BTC,7,1,2024-08-19T10:00:00Z", "ETH,2,1,2024-08-19T10:00:00Z", "XRP,3,1,2024-08-19T10:00:00Z")
	w.put("c.csv", 0, "symbol,n,price,time", "BTC,8,1,2024-08-20T10:00:00Z", "ETH,3,1,2024-08-20T10:00:00Z", "SOL,4,1,2024-08-20T10:00:00Z")
	w.batch(ingest.BatchOptions{})
	r := w.gaps(ingest.GapsOptions{Since: "2024-08-19"})
	equal(t, "holes", holesText(r), []string{"BTC 5-6 ours", "SOL 2-3 ours", "XRP 2-2 ours"})
	if r.Missing != 5 {
		t.Errorf("%d missing", r.Missing)
	}
	equal(t, "statements", statements(r), []string{
		"2024-08-19 BTC: incomplete, 1 trades, ids 7..7, some missing before the first",
		"2024-08-19 ETH: complete, 1 trades, ids 2..2",
		"2024-08-19 XRP: incomplete, 1 trades, ids 3..3, some missing before the first",
		"2024-08-20 BTC: complete so far, 1 trades, ids 8..8",
		"2024-08-20 ETH: complete so far, 1 trades, ids 3..3",
		"2024-08-20 SOL: incomplete, 1 trades, ids 4..4, some missing before the first",
	})
	x := &exchange{has: ids(1, 8)}
	if _, err := w.Repair(context.Background(), ingest.RepairOptions{Source: "live", Fetcher: x, GapsOptions: ingest.GapsOptions{Since: "2024-08-19"}}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(x.asked, [][2]int64{{4, 7}, {1, 4}, {1, 3}}) {
		t.Errorf("asked for %v", x.asked)
	}
}

// The last day of a series ends where its file does. Of what came in a stream nobody knows whether more would have come, until
// something does.
func TestLedgerOfADayWithAnOpenEnd(t *testing.T) {
	w := newWorld(t, ledgerLake)
	w.put("a.csv", 0, "symbol,n,price,time", "ETH,1,1,2024-08-18T10:00:00Z", "ETH,2,1,2024-08-18T11:00:00Z")
	w.batch(ingest.BatchOptions{})
	said := func() []string { return statements(w.gaps(ingest.GapsOptions{})) }
	s := &partitioned{}
	trade := func(id int64, at string) {
		day, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		s.add(0, fmt.Sprintf(`{"s":"BTC","t":%d,"p":"1","T":%d}`, id, day.UnixMilli()))
	}
	trade(1, "2024-08-18T10:00:00Z")
	trade(2, "2024-08-18T12:00:00Z")
	if _, err := w.stream(s, ingest.StreamOptions{}); err != nil {
		t.Fatal(err)
	}
	equal(t, "the stream died", said(), []string{"2024-08-18 BTC: complete so far, 2 trades, ids 1..2", "2024-08-18 ETH: complete, 2 trades, ids 1..2"})
	trade(3, "2024-08-19T00:00:01Z")
	if _, err := w.stream(s, ingest.StreamOptions{}); err != nil {
		t.Fatal(err)
	}
	equal(t, "it goes on", said(), []string{"2024-08-18 BTC: complete, 2 trades, ids 1..2", "2024-08-18 ETH: complete, 2 trades, ids 1..2", "2024-08-19 BTC: complete so far, 1 trades, ids 3..3"})
}

// What a file has behind the last id of a series, or before the first, and is in quarantine, may be ids of that day.
func TestLedgerOfADayWhoseEndIsInQuarantine(t *testing.T) {
	w := newWorld(t, ledgerLake)
	w.put("a.csv", 0, "symbol,n,price,time", "BTC,1,1,2024-08-18T10:00:00Z", "BTC,2,-1,2024-08-18T11:00:00Z", "ETH,1,1,2024-08-18T10:00:00Z")
	w.put("b.csv", 0, "symbol,n,price,time", "XRP,1,-1,2024-08-18T10:00:00Z", "XRP,2,1,2024-08-18T11:00:00Z")
	w.batch(ingest.BatchOptions{})
	r := w.gaps(ingest.GapsOptions{})
	equal(t, "statements", statements(r), []string{
		"2024-08-18 BTC: complete so far, 1 trades, ids 1..1", "2024-08-18 ETH: complete, 1 trades, ids 1..1", "2024-08-18 XRP: complete from its first id on, 1 trades, ids 2..2",
	})
	if n := r.Tables[0].Quarantined; n != 2 {
		t.Errorf("%d quarantined", n)
	}
	w.put("c.csv", 0, "symbol,n,price,time", "BTC,3,1,2024-08-19T10:00:00Z")
	w.batch(ingest.BatchOptions{})
	equal(t, "a later id", statements(w.gaps(ingest.GapsOptions{Series: "BTC"})), []string{
		"2024-08-18 BTC: incomplete, 1 trades, ids 1..1, 1 missing", "2024-08-19 BTC: incomplete, 1 trades, ids 3..3, some missing before the first",
	})
}

// The first day of a series begins with the first id of its file. A stream may have begun at noon, and what came before then is
// missing, unless ids begin there.
func TestLedgerOfADayWithAnOpenBegin(t *testing.T) {
	w := newWorld(t, ledgerLake)
	w.put("a.csv", 0, "symbol,n,price,time", "ETH,70,1,2024-08-18T10:00:00Z", "ETH,71,1,2024-08-19T10:00:00Z")
	w.batch(ingest.BatchOptions{})
	s := &partitioned{}
	trade := func(symbol string, id int64, at string) {
		day, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		s.add(0, fmt.Sprintf(`{"s":"%s","t":%d,"p":"1","T":%d}`, symbol, id, day.UnixMilli()))
	}
	trade("BTC", 7000, "2024-08-18T12:00:00Z")
	trade("BTC", 7001, "2024-08-19T00:00:01Z")
	trade("BTC", 7002, "2024-08-20T00:00:01Z")
	trade("NEW", 1, "2024-08-18T12:00:00Z")
	trade("NEW", 2, "2024-08-19T12:00:00Z")
	if _, err := w.stream(s, ingest.StreamOptions{}); err != nil {
		t.Fatal(err)
	}
	of := func(o ingest.GapsOptions) []string { return statements(w.gaps(o)) }
	equal(t, "BTC", of(ingest.GapsOptions{Series: "BTC"}), []string{
		"2024-08-18 BTC: complete from its first id on, 1 trades, ids 7000..7000", "2024-08-19 BTC: complete, 1 trades, ids 7001..7001", "2024-08-20 BTC: complete so far, 1 trades, ids 7002..7002",
	})
	equal(t, "BTC, later", of(ingest.GapsOptions{Series: "BTC", Since: "2024-08-19"}), []string{"2024-08-19 BTC: complete, 1 trades, ids 7001..7001", "2024-08-20 BTC: complete so far, 1 trades, ids 7002..7002"})
	equal(t, "ETH", of(ingest.GapsOptions{Series: "ETH"}), []string{"2024-08-18 ETH: complete, 1 trades, ids 70..70", "2024-08-19 ETH: complete, 1 trades, ids 71..71"})
	equal(t, "NEW", of(ingest.GapsOptions{Series: "NEW"}), []string{"2024-08-18 NEW: complete, 1 trades, ids 1..1", "2024-08-19 NEW: complete so far, 1 trades, ids 2..2"})
}

func TestLedgerNamesHolesAndTheirOwners(t *testing.T) {
	w := newWorld(t, ledgerLake)
	if r := w.gaps(ingest.GapsOptions{}); r.Tables[0].Version != -1 || r.Missing != 0 {
		t.Errorf("before the first run: %+v", r)
	}
	line := func(symbol string, id int, day string) string {
		return fmt.Sprintf("%s,%d,1,%sT10:00:00Z", symbol, id, day)
	}
	w.put("a.csv", 0, "symbol,n,price,time",
		line("BTC", 1, "2024-08-19"), line("BTC", 2, "2024-08-19"), line("BTC", 4, "2024-08-19"), // 3: not in the file
		"BTC,5,-1,2024-08-19T10:00:00Z", // quarantine
		line("BTC", 6, "2024-08-19"), line("ETH", 10, "2024-08-19"), line("ETH", 11, "2024-08-19"))
	w.batch(ingest.BatchOptions{})
	p := newTopic("trades")
	for _, id := range []int64{7, 8, 10, 14, 13} { // 9, 11 and 12 did not come
		p.publish("%s", tradeLine(id))
	}
	if _, err := w.stream(p.reader(), ingest.StreamOptions{}); err != nil {
		t.Fatal(err)
	}
	r := w.gaps(ingest.GapsOptions{})
	equal(t, "holes", holesText(r), []string{"BTC 3-3 source", "BTC 5-5 ours", "BTC 9-9 ours", "BTC 11-12 ours"})
	equal(t, "statements", statements(r), []string{
		"2024-08-19 BTC: incomplete, 4 trades, ids 1..6, 1 missing, 1 ids that the source itself lacks",
		"2024-08-19 ETH: complete from its first id on, 2 trades, ids 10..11",
		"2024-08-20 BTC: incomplete, 5 trades, ids 7..14, 3 missing",
	})
	if r.Missing != 4 || r.Tables[0].Quarantined != 1 || r.Days[0].Files != 4 || r.Days[2].Streams != 5 {
		t.Errorf("%+v", r)
	}
	if !strings.Contains(r.Holes[1].Why, "quarantine") {
		t.Errorf("why of 5: %s", r.Holes[1].Why)
	}
	equal(t, "since", holesText(w.gaps(ingest.GapsOptions{Since: "2024-08-20"})), []string{"BTC 9-9 ours", "BTC 11-12 ours"})
	equal(t, "series", holesText(w.gaps(ingest.GapsOptions{Series: "ETH"})), nil)

	// The exchange has 5, 9 and 11, but no 12.
	x := &exchange{has: ids(1, 100)}
	delete(x.has, 12)
	o := ingest.RepairOptions{Source: "live", Fetcher: x}
	rep, err := w.Repair(t.Context(), o)
	if err != nil || rep.Holes != 3 || rep.Fetched != 3 || rep.RowsInserted != 3 || rep.Absent != 1 || rep.Epochs != 1 {
		t.Fatalf("%+v, %v", rep, err)
	}
	r = w.gaps(ingest.GapsOptions{})
	equal(t, "holes after", holesText(r), []string{"BTC 3-3 source", "BTC 12-12 source"})
	if r.Missing != 0 || r.Days[2].State != ingest.DaySoFar || r.Days[2].Repaired != 3 {
		t.Errorf("%+v", r.Days)
	}
	// It is remembered by the table, so nobody is asked again; and asking for all again changes no row.
	w.reopen()
	x.asked = nil
	if rep, err = w.Repair(t.Context(), o); err != nil || len(x.asked) != 0 || rep.Epochs != 0 {
		t.Errorf("again: %+v, asked %v, %v", rep, x.asked, err)
	}
	o.All = true
	if rep, err = w.Repair(t.Context(), o); err != nil || rep.RowsInserted != 1 || rep.RowsUpdated != 0 {
		t.Errorf("all: %+v, %v", rep, err)
	}
	// Behind the last id there is no hole to see: the exchange is asked.
	if rep, err = w.Repair(t.Context(), ingest.RepairOptions{Source: "live", Fetcher: x, Tail: true}); err != nil || rep.RowsInserted != 86 || len(rep.Warnings) != 0 {
		t.Errorf("tail: %+v, %v", rep, err)
	}
	equal(t, "holes at last", holesText(w.gaps(ingest.GapsOptions{})), []string{"BTC 12-12 source"})
	// The stream goes on as if nothing had been: a repair is no other log of it.
	p.publish("%s", tradeLine(101))
	if reports, err := w.stream(p.reader(), ingest.StreamOptions{}); err != nil || len(reports) != 1 || reports[0].RowsInserted != 1 {
		t.Errorf("stream after repair: %+v, %v", reports, err)
	}
}

// What the exchange no longer shows is not taken for what it never had, and what came before an error is kept.
func TestRepairIsSureOfWhatItSays(t *testing.T) {
	w := newWorld(t, ledgerLake)
	p := newTopic("trades")
	for _, id := range []int64{1, 5, 20} {
		p.publish("%s", tradeLine(id))
	}
	if _, err := w.stream(p.reader(), ingest.StreamOptions{}); err != nil {
		t.Fatal(err)
	}
	x := &exchange{has: ids(1, 100), first: 3}
	rep, err := w.Repair(t.Context(), ingest.RepairOptions{Source: "live", Fetcher: x})
	if err != nil || rep.Fetched != 2+14 || rep.Absent != 0 || len(rep.Warnings) != 1 {
		t.Fatalf("%+v, %v", rep, err)
	}
	equal(t, "holes", holesText(w.gaps(ingest.GapsOptions{})), []string{"BTC 2-2 ours"})

	w = newWorld(t, ledgerLake)
	p = newTopic("trades")
	for _, id := range []int64{1, 5, 20} {
		p.publish("%s", tradeLine(id))
	}
	if _, err := w.stream(p.reader(), ingest.StreamOptions{}); err != nil {
		t.Fatal(err)
	}
	x = &exchange{has: ids(1, 100), err: errors.New("banned")}
	if rep, err = w.Repair(t.Context(), ingest.RepairOptions{Source: "live", Fetcher: x}); err == nil || rep.RowsInserted != 3 {
		t.Fatalf("%+v, %v", rep, err)
	}
	equal(t, "holes after the ban", holesText(w.gaps(ingest.GapsOptions{})), []string{"BTC 6-19 ours"})
	// Only what was missing before too is asked for.
	x.err, x.asked = nil, nil
	before := []ingest.Hole{{Table: "trades", Series: "BTC", From: 10, To: 12}}
	if rep, err = w.Repair(t.Context(), ingest.RepairOptions{Source: "live", Fetcher: x, Before: before}); err != nil || rep.RowsInserted != 3 {
		t.Fatalf("%+v, %v", rep, err)
	}
	equal(t, "asked", []string{fmt.Sprint(x.asked)}, []string{"[[9 13]]"})
}

func TestRepairFromTheArchive(t *testing.T) {
	w := newWorld(t, ledgerLake)
	p := newTopic("trades")
	for _, id := range []int64{1, 300} {
		p.publish("%s", tradeLine(id))
	}
	if _, err := w.stream(p.reader(), ingest.StreamOptions{}); err != nil {
		t.Fatal(err)
	}
	x := &exchange{has: ids(1, 1000)}
	o := ingest.RepairOptions{Source: "live", Fetcher: x, TempDir: t.TempDir()}
	rep, err := w.Repair(t.Context(), o)
	if err != nil || len(rep.Warnings) != 2 || rep.Fetched != 0 {
		t.Fatalf("without an archive: %+v, %v", rep, err)
	}
	var b strings.Builder
	b.WriteString("symbol,n,price,time\n")
	for id := int64(1); id <= 300; id++ {
		if id != 77 {
			fmt.Fprintf(&b, "BTC,%d,1,%d\n", id, start.Add(time.Duration(id)*time.Second).UnixMilli())
		}
	}
	x.zip = b.String()
	if rep, err = w.Repair(t.Context(), o); err != nil || len(rep.Archives) != 1 || rep.RowsInserted != 297 || rep.Fetched != 0 {
		t.Fatalf("%+v, %v", rep, err)
	}
	equal(t, "holes", holesText(w.gaps(ingest.GapsOptions{})), []string{"BTC 77-77 source"})
	if d := w.gaps(ingest.GapsOptions{}).Days[0]; d.Files != 297 || d.Streams != 2 {
		t.Errorf("%+v", d)
	}
}

// An archive that does not fill a hole, as its rows are in quarantine, is not fetched by each look of cauce up.
func TestRepairRemembersArchives(t *testing.T) {
	w := newWorld(t, ledgerLake)
	p := newTopic("trades")
	for _, id := range []int64{1, 200} {
		p.publish("%s", tradeLine(id))
	}
	if _, err := w.stream(p.reader(), ingest.StreamOptions{}); err != nil {
		t.Fatal(err)
	}
	x := &exchange{zip: "symbol,n,price,time\nBTC,2,-1,2024-08-20T12:00:00Z\n"}
	o := ingest.RepairOptions{Source: "live", Fetcher: x, TempDir: t.TempDir(), Had: map[string]time.Time{}}
	for _, c := range []struct {
		after time.Duration
		zips  int
	}{{0, 1}, {time.Minute, 1}, {time.Hour, 2}} {
		w.clock.mu.Lock()
		w.clock.at = w.clock.at.Add(c.after)
		w.clock.mu.Unlock()
		r, err := w.Repair(t.Context(), o)
		if err != nil || x.zips != c.zips || len(r.Warnings) == 0 {
			t.Errorf("after %s: fetched %d times, want %d: %v, %v", c.after, x.zips, c.zips, r.Warnings, err)
		}
	}
}

// The archives of two markets have the same names and other trades: one is not read as the other's, nor replaces it.
func TestRepairKeepsArchivesOfMarketsApart(t *testing.T) {
	text := strings.Replace(ledgerLake, "repair: {kind: binance, ids_max: 100}", `repair: {kind: binance, channel: aggTrade, market: um, series: "{symbol}-um", ids_max: 100}`, 1)
	text = strings.Replace(text, `{set: {id: "symbol || '-' || n", event_date: to_date(event_time)}}`, `{set: {event_date: to_date(event_time)}}`, 1)
	text = strings.Replace(text, "series: symbol,", `series: "substr(id, 1, length(id) - length(CAST(n AS STRING)) - 1)",`, 1)
	text = strings.Replace(text, "fields: {symbol: symbol,", `fields: {id: "symbol || '-' || n", symbol: symbol,`, 1)
	text = strings.Replace(text, "fields: {symbol: s,", `fields: {id: "s || '-um-' || t", symbol: s,`, 1)
	w := newWorld(t, text)
	w.put("BTC-2024-08-20.csv", 0, "symbol,n,price,time", "BTC,1,1,2024-08-19T10:00:00Z", "BTC,2,1,2024-08-19T10:00:00Z")
	w.batch(ingest.BatchOptions{})
	p := newTopic("trades")
	for _, id := range []int64{1, 200} {
		p.publish("%s", tradeLine(id))
	}
	if _, err := w.stream(p.reader(), ingest.StreamOptions{}); err != nil {
		t.Fatal(err)
	}
	before := w.rows("trades", "id", "price")
	x := &exchange{zip: "symbol,n,price,time\nBTC,2,77,2024-08-19T11:00:00Z\n"}
	rep, err := w.Repair(t.Context(), ingest.RepairOptions{Source: "live", Fetcher: x, TempDir: t.TempDir()})
	if err != nil || len(rep.Archives) != 1 {
		t.Fatalf("%+v, %v", rep, err)
	}
	equal(t, "rows of the other market", w.rows("trades", "id", "price"), before)
	if _, err := w.store.Stat(t.Context(), "raw/batch/um/BTC-2024-08-20.csv"); err != nil {
		t.Error(err)
	}
}

// The ledger agrees with a count that knows nothing of ranges, whatever is missing.
func TestLedgerAgainstSets(t *testing.T) {
	rng := testscale.Rand(t)
	for range 6 {
		w := newWorld(t, ledgerLake)
		have := map[int64]bool{}
		p := newTopic("trades")
		for range 60 {
			id := 1 + rng.Int64N(90)
			have[id] = true
			// The time of an id is anywhere in three days: days interleave.
			p.publish(`{"s":"BTC","t":%d,"p":"1","T":%d}`, id, start.Add(time.Duration(id%3)*24*time.Hour).UnixMilli())
		}
		if _, err := w.stream(p.reader(), ingest.StreamOptions{}); err != nil {
			t.Fatal(err)
		}
		var lo, hi int64 = 1 << 60, 0
		for id := range have {
			lo, hi = min(lo, id), max(hi, id)
		}
		r := w.gaps(ingest.GapsOptions{})
		missing := map[int64]bool{}
		for _, h := range r.Holes {
			for id := h.From; id <= h.To; id++ {
				missing[id] = true
			}
		}
		for id := lo; id <= hi; id++ {
			if have[id] == missing[id] {
				t.Fatalf("id %d: in the table %t, in a hole %t; %v", id, have[id], missing[id], holesText(r))
			}
		}
		if want := hi - lo + 1 - int64(len(have)); r.Missing != want {
			t.Fatalf("%d missing, want %d", r.Missing, want)
		}
	}
}

// TestLedgerOfExtremeIDs: an id at the end of the range of integers, as any message may bring, is an id like others, and
// a negative one is none.
func TestLedgerOfExtremeIDs(t *testing.T) {
	const top = math.MaxInt64
	type row struct {
		series string
		id     int64
		days   int
	}
	for _, c := range []struct {
		rows    []row
		holes   []string
		missing int64
		asked   [][2]int64
	}{
		{rows: []row{{"BTC", math.MinInt64, 0}, {"BTC", 5, 0}, {"BTC", 7, 0}}, holes: []string{"BTC 6-6 ours"}, missing: 1, asked: [][2]int64{{5, 7}, {7, 108}}},
		{rows: []row{{"BTC", -9e18, 0}, {"BTC", 9e18, 0}}, asked: [][2]int64{{9e18, 9e18 + 101}}},
		{rows: []row{{"BTC", math.MinInt64, 0}, {"BTC", -1, 1}}},
		{rows: []row{{"BTC", 0, 0}, {"BTC", top, 0}}, holes: []string{fmt.Sprintf("BTC 1-%d ours", top-1)}, missing: top - 1},
		{rows: []row{{"BTC", top, 0}, {"BTC", top, 1}, {"BTC", top - 2, 1}}, holes: []string{fmt.Sprintf("BTC %d-%d ours", top-1, top-1)}, missing: 1, asked: [][2]int64{{top - 2, top}}},
		{rows: []row{{"BTC", top - 3, 0}}, asked: [][2]int64{{top - 3, top}}},
		{rows: []row{{"BTC", 0, 0}, {"BTC", top, 1}, {"ETH", 0, 0}, {"ETH", top, 1}}, holes: []string{fmt.Sprintf("BTC 1-%d ours", top-1), fmt.Sprintf("ETH 1-%d ours", top-1)}, missing: top},
	} {
		w := newWorld(t, ledgerLake)
		p := newTopic("trades")
		for _, r := range c.rows {
			p.publish(`{"s":%q,"t":%d,"p":"1","T":%d}`, r.series, r.id, start.AddDate(0, 0, r.days).UnixMilli())
		}
		if _, err := w.stream(p.reader(), ingest.StreamOptions{}); err != nil {
			t.Fatal(err)
		}
		r := w.gaps(ingest.GapsOptions{})
		equal(t, "holes", holesText(r), c.holes)
		if r.Missing != c.missing {
			t.Errorf("%v: %d missing, want %d", c.rows, r.Missing, c.missing)
		}
		x := new(exchange)
		if _, err := w.Repair(context.Background(), ingest.RepairOptions{Source: "live", Fetcher: x, TempDir: w.dir, Tail: true}); err != nil || !slices.Equal(x.asked, c.asked) {
			t.Errorf("%v: asked for %v, want %v; %v", c.rows, x.asked, c.asked, err)
		}
	}
}

var _ ingest.LedgerEngine = (*duckdb.Engine)(nil)

// TestLedgerOfSeveralSequences: trades, aggregate trades and futures with equal numbers land in one table under keys of
// their own, and the ledger keeps them apart; a repair fetches the series that are its source's.
func TestLedgerOfSeveralSequences(t *testing.T) {
	source := func(name, mark, market string) string {
		return fmt.Sprintf(`
  %s:
    table: trades
    kind: embedded
    topic: %s
    fields: {id: "upper(s) || '%s-' || t", symbol: s, n: t, price: p, event_time: to_event_time(T)}
    rank: 1
    repair: {kind: binance, channel: aggTrade, series: "{symbol}%s"%s}`, name, name, mark, mark, market)
	}
	text := strings.Replace(ledgerLake, `{set: {id: "symbol || '-' || n", event_date: to_date(event_time)}}`, `{set: {event_date: to_date(event_time)}}`, 1)
	text = strings.Replace(text, "series: symbol,", `series: "substr(id, 1, length(id) - length(CAST(n AS STRING)) - 1)",`, 1)
	text = text[:strings.Index(text, "  live:")] + strings.TrimPrefix(source("spot", "", "")+source("agg", "-agg", "")+source("um", "-um", ", market: um"), "\n") + "\n"
	text = strings.Replace(text, "fields: {symbol: symbol, n: n,", "fields: {id: \"symbol || '-' || n\", symbol: symbol, n: n,", 1)
	w := newWorld(t, text)
	for _, name := range []string{"spot", "agg", "um"} {
		p := newTopic(name)
		for _, id := range []int64{1, 2, 4} {
			p.publish("%s", tradeLine(id))
		}
		if r, err := w.stream(p.reader(), ingest.StreamOptions{Source: name}); err != nil || r[0].RowsInserted != 3 {
			t.Fatalf("%s: %+v, %v", name, r, err)
		}
	}
	equal(t, "holes", holesText(w.gaps(ingest.GapsOptions{})), []string{"BTC 3-3 ours", "BTC-agg 3-3 ours", "BTC-um 3-3 ours"})
	x := &exchange{has: ids(1, 10)}
	if r, err := w.Repair(t.Context(), ingest.RepairOptions{Source: "agg", Fetcher: x}); err != nil || r.RowsInserted != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	equal(t, "holes after", holesText(w.gaps(ingest.GapsOptions{})), []string{"BTC 3-3 ours", "BTC-um 3-3 ours"})
	if v := w.why("trades", "BTC-agg-3").Versions; len(v) != 1 || v[0].Origin.Kind != "rest" || v[0].Origin.Topic != "BTC-agg" || v[0].Origin.Offset != 3 || v[0].Origin.Source != "agg" {
		t.Errorf("%+v", v)
	}
}

// A table without a key may hold an id twice: that fills no hole, and is told.
func TestLedgerCountsIDsNotRows(t *testing.T) {
	text := strings.Replace(ledgerLake, "key: [id]\n    sequence: [event_time]", "key: []", 1)
	w := newWorld(t, strings.Replace(text, "    location: [\"raw/batch/*.csv\"]", "    location: [\"raw/batch/*.csv\"]\n    on_reissue: replace", 1))
	w.put("a.csv", 0, "symbol,n,price,time", "BTC,1,1,2024-08-19T10:00:00Z", "BTC,2,1,2024-08-19T10:00:00Z", "BTC,4,1,2024-08-19T10:00:00Z")
	w.put("b.csv", 0, "symbol,n,price,time", "BTC,2,1,2024-08-19T10:00:00Z", "BTC,5,1,2024-08-19T10:00:00Z")
	w.batch(ingest.BatchOptions{})
	r := w.gaps(ingest.GapsOptions{})
	if d := r.Days[0]; d.Doubled != 1 || d.Rows != 5 || d.From != 1 || d.To != 5 {
		t.Errorf("%+v", d)
	}
	equal(t, "holes", holesText(r), []string{"BTC 3-3 source"})
}

// Which of two rows with the same id is read first is chance, and says nothing of whose a hole beside it is.
func TestLedgerOfDoubledIDsIsNotChance(t *testing.T) {
	for _, first := range []string{"a.csv", "b.csv"} {
		w := newWorld(t, strings.Replace(ledgerLake, "key: [id]\n    sequence: [event_time]", "key: []", 1))
		for _, name := range slices.Compact([]string{first, "a.csv", "b.csv"}) {
			if name == "a.csv" {
				w.put(name, 0, "symbol,n,price,time", "BTC,1,1,2024-08-19T10:00:00Z", "BTC,2,1,2024-08-19T10:00:00Z", "BTC,4,1,2024-08-19T10:00:00Z")
			} else {
				w.put(name, 0, "symbol,n,price,time", "BTC,2,1,2024-08-19T10:00:00Z", "BTC,5,1,2024-08-19T10:00:00Z")
			}
			w.batch(ingest.BatchOptions{})
		}
		equal(t, first+" first", holesText(w.gaps(ingest.GapsOptions{})), []string{"BTC 3-3 source"})
	}
}
