package spark

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/test/lab"
)

// conformance are CSV files of every kind that people send, good and bad, for the template lake's history.
func conformance(t *testing.T) map[string][]byte {
	t.Helper()
	const head = "symbol,trade_id,price,qty,quote_qty,time,is_buyer_maker,is_best_match\n"
	pack := func(name, body string) []byte {
		var b bytes.Buffer
		switch filepath.Ext(name) {
		case ".gz":
			w := gzip.NewWriter(&b)
			_, _ = w.Write([]byte(body))
			_ = w.Close()
		case ".zst":
			w, err := zstd.NewWriter(&b)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = w.Write([]byte(body))
			_ = w.Close()
		case ".zip":
			w := zip.NewWriter(&b)
			f, err := w.Create("inside.csv")
			if err != nil {
				t.Fatal(err)
			}
			_, _ = f.Write([]byte(body))
			_ = w.Close()
		default:
			b.WriteString(body)
		}
		return b.Bytes()
	}
	out := map[string][]byte{}
	for name, body := range map[string]string{
		"historico_plain.csv":     head + "BTCUSDT,1,10.5,1,10.5,1724112000000,True,True\nETHUSDT,1,2.25,3,6.75,1724112000001,false,True\nbtcusdt ,2,0.00000001,1,1,1724112001,TRUE,\n",
		"historico_quotes.csv":    head + "\"BTCUSDT\",3,\"10,5\",1,1,1724112000000,True,True\n\"BTC\"\"X\",4,1,1,1,1724112000000,True,True\n\"BT\nC\",5,1,1,1,1724112000000,True,True\nBTC\"X,6,1,1,1,1724112000000,True,True\n\"BTC\"X,7,1,1,1,1724112000000,True,True\n",
		"historico_bom.csv":       "\ufeff" + strings.ReplaceAll(head, "\n", "\r\n") + "BTCUSDT,8,1.5,2,3,2024-08-20T00:00:00+02:00,1,1\r\n\r\nBTCUSDT,9,1.5,2,3,2024-08-20 12:00:00,0,1\r\n",
		"historico_ragged.csv":    head + "BTCUSDT,10,1,1,1,1724112000000,True\nBTCUSDT,11,1,1,1,1724112000000,True,True,extra\nBTCUSDT,12,1,1,1,1724112000000,True,True\n",
		"historico_dirty.csv":     head + "BTCUSDT,13,,1,1,1724112000000,True,True\nBTCUSDT,14,-1,1,1,1724112000000,True,True\nBTCUSDT,15,1.123456789,1,1,1724112000000,True,True\nBTCUSDT,16,abc,1,1,1724112000000,True,True\nBTCUSDT,17,1,1,1,yesterday,True,True\nBTCUSDT,18,1,1,1,1724112000000,maybe,True\n,19,1,1,1,1724112000000,True,True\nBTCUSDT,x,1,1,1,1724112000000,True,True\nB\xffC,21,1,1,1,1724112000000,True,True\n",
		"historico_unknown.csv":   "symbol,trade_id,price,qty,time,is_buyer_maker,z,\"a \"\"b\"\" é\"\nBTCUSDT,40,1,1,1724112000000,True,\"q\"\"\\/<\x1f\x7f\u2028é\",\"\"\nBTCUSDT,41,1,1,1724112000000,True,,\n",
		"historico_order.csv":     "time,price,qty,trade_id,symbol,is_buyer_maker\n1724112000000,5,5,22,SOLUSDT,true\n1724112000000123,5,5,23,SOLUSDT,true",
		"historico_cr.csv":        strings.ReplaceAll(head+"BTCUSDT,28,3,1,1,1724112000000,True,True\nBTCUSDT,29,3,1,1,1724112000000,True,True\n", "\n", "\r"),
		"historico_small.csv.gz":  head + "BTCUSDT,24,1e1,1,1,1724112000000,True,True\n",
		"historico_small.csv.zip": head + "BTCUSDT,25,1,1,1,1724112000000,True,True\nBTCUSDT,1,10.5,1,10.5,1724112000000,True,True\nBTCUSDT,1,11,1,10.5,1724112000001,True,True\n",
		"historico_small.csv.zst": head + "BTCUSDT,26,1,1,1,1724112000000,True,True\n",
		"historico_empty.csv":     "",
		"historico_header.csv":    head,
		"historico_binary.csv":    "\x7fELF\x02\x01\x01\x00\x00",
		"historico_mixed.csv":     strings.TrimSuffix(head, "\n") + "\rBTCUSDT,30,1,1,1,1724112000000,True,True\nBTCUSDT,31,1,1,1,1724112000000,True,True\n",
		"historico_missing.csv":   "symbol,trade_id\nBTCUSDT,27\n",
	} {
		out[name] = pack(name, body)
	}
	return out
}

// The files of a lake give the same table and the same quarantine on Spark as here, and either goes on where the other
// left off: with new files, with files that were issued anew, with files that are read again, and after the other has
// packed the table.
func TestBatchOnSparkIsTheBatchHere(t *testing.T) {
	prereq.Need(t, "jars")
	flags := clusterFlags(t)
	files := conformance(t)
	here, there := lab.NewLake(t), lab.NewLake(t)
	for _, l := range []*lab.Lake{here, there} {
		text, err := os.ReadFile(l.Path("lake.yaml"))
		if err == nil {
			err = os.WriteFile(l.Path("lake.yaml"), []byte(strings.Replace(string(text), "    rank: 0\n", "    rank: 0\n    on_reissue: replace\n    unknown_fields: keep\n", 1)), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		for name, body := range files {
			put(t, l, name, body)
		}
	}
	type report struct {
		FilesRead       int                            `json:"files_read"`
		RowsRead        int64                          `json:"rows_read"`
		RowsInserted    int64                          `json:"rows_inserted"`
		RowsUpdated     int64                          `json:"rows_updated"`
		RowsUnchanged   int64                          `json:"rows_unchanged"`
		RowsQuarantined int64                          `json:"rows_quarantined"`
		RowsFiltered    int64                          `json:"rows_filtered"`
		RowsRemoved     int64                          `json:"rows_removed"`
		FailedFiles     []struct{ File, Error string } `json:"failed_files"`
	}
	sum := func(l *lab.Lake, args ...string) report {
		t.Helper()
		var r report
		out, errs, code := l.Try(append(args, "--json")...)
		if code != 1 || strings.Contains(out, `"error":"source`) { // some files cannot be read, and nothing else is wrong
			t.Fatalf("cauce %s: exit code %d\n%s%s", strings.Join(args, " "), code, out, errs)
		}
		decode(t, out, &r)
		return r
	}
	own, sparks := sum(here, "run", "batch"), sum(there, append([]string{"spark", "submit", "batch"}, flags...)...)
	if !reflect.DeepEqual(own, sparks) {
		t.Errorf("counts\nhere  %+v\nSpark %+v", own, sparks)
	}
	if a, b := tableHash(here), tableHash(there); a != b {
		t.Errorf("tables differ: %s", lab.Diff(here.Rows(), there.Rows()))
	}
	if d := lab.Diff(quarantine(here, "generation, "), quarantine(there, "generation, ")); d != "" {
		t.Errorf("quarantine differs (want: here, got: Spark): %s", d)
	}
	// Nothing is new to either, and a file that lands is read once, whoever comes first.
	if r := sum(there, "run", "batch"); r.FilesRead != 0 || r.RowsRead != 0 {
		t.Errorf("the embedded engine read again what Spark had read: %+v", r)
	}
	for _, l := range []*lab.Lake{here, there} {
		put(t, l, "historico_later.csv", []byte("symbol,trade_id,price,qty,time,is_buyer_maker\nBTCUSDT,1,12,1,1724112000002,True\nBTCUSDT,30,1,1,1724112000002,True\n"))
	}
	if a, b := sum(here, "run", "batch"), sum(there, "run", "batch"); !reflect.DeepEqual(a, b) || a.RowsUpdated != 1 {
		t.Errorf("counts after Spark\nhere  %+v\nthere %+v", a, b)
	}
	if a, b := tableHash(here), tableHash(there); a != b {
		t.Errorf("tables differ after the embedded engine went on: %s", lab.Diff(here.Rows(), there.Rows()))
	}
	both := func(what string) {
		t.Helper()
		if d := lab.Diff(here.Rows(), there.Rows()); d != "" {
			t.Errorf("%s: tables differ (want: here, got: Spark): %s", what, d)
		}
		// The generation of what is read again is the time of that run.
		if d := lab.Diff(quarantine(here, ""), quarantine(there, "")); d != "" {
			t.Errorf("%s: quarantine differs (want: here, got: Spark): %s", what, d)
		}
	}
	// A new file, and one that was issued anew with fewer rows: those that are missing go.
	for _, l := range []*lab.Lake{here, there} {
		put(t, l, "historico_last.csv", []byte("symbol,trade_id,price,qty,time,is_buyer_maker\nBTCUSDT,1,13,1,1724112000003,True\nBTCUSDT,31,1,1,1724112000002,True\n"))
		put(t, l, "historico_ragged.csv", []byte("symbol,trade_id,price,qty,time,is_buyer_maker\nBTCUSDT,11,1,1,1724112000000,True\nBTCUSDT,,1,1,1724112000000,True\n"))
	}
	submit := append([]string{"spark", "submit", "batch"}, flags...)
	if a, b := sum(here, "run", "batch"), sum(there, submit...); !reflect.DeepEqual(a, b) || b.FilesRead != 2 || b.RowsRemoved != 1 {
		t.Errorf("counts with a file issued anew\nhere  %+v\nSpark %+v", a, b)
	}
	both("issued anew")
	if a, b := tableHash(here), tableHash(there); a != b {
		t.Error("tables differ in their system columns after a file was issued anew")
	}
	// Read again: the reading of today wins, and nothing of the one before stays.
	again := []string{"--reprocess", "--file", "historico_[dq]*"}
	var a, b report
	here.JSON(&a, append([]string{"run", "batch"}, again...)...)
	there.JSON(&b, append(append(submit, again...), "--run-id", "again-1")...)
	if !reflect.DeepEqual(a, b) || b.FilesRead != 2 {
		t.Errorf("counts of files read again\nhere  %+v\nSpark %+v", a, b)
	}
	both("read again")
	// The run is in the history, and one that has succeeded under its ID is not repeated: there is no Spark to repeat it.
	var repeated struct {
		report
		RunID    string `json:"run_id"`
		Repeated bool   `json:"repeated"`
	}
	there.JSON(&repeated, append([]string{"spark", "submit", "batch", "--spark-submit", "./no-spark-here", "--run-id", "again-1"}, again...)...)
	if repeated.RunID != "again-1" || !repeated.Repeated || !reflect.DeepEqual(repeated.report, b) {
		t.Errorf("the run that was asked for again: %+v, want the report %+v", repeated, b)
	}
	if out := there.Run("runs", "show", "again-1"); !strings.Contains(out, "engine=spark") {
		t.Errorf("cauce runs show says nothing of Spark: %s", out)
	}

	// Spark packs what both wrote, in Z-order, and deletes what nothing names and nothing else; Cauce writes on.
	var packed, emptied struct {
		Tables map[string]struct {
			Version int  `json:"version"`
			Changed bool `json:"changed"`
			Added   int  `json:"files_added"`
			Removed int  `json:"files_removed"`
			Deleted int  `json:"files_deleted"`
		}
	}
	there.JSON(&packed, append([]string{"spark", "submit", "optimize", "unified_events", "--z-order", "symbol,event_time"}, flags...)...)
	if p := packed.Tables["unified_events"]; !p.Changed || p.Added == 0 || p.Removed <= p.Added {
		t.Errorf("OPTIMIZE on Spark: %+v", packed)
	}
	both("packed by Spark")
	before := there.Run("query", "SELECT * FROM unified_events ORDER BY event_id", "--as-of", strconv.Itoa(packed.Tables["unified_events"].Version-1))
	stray := filepath.Join(there.Table(), "event_date=2024-08-20", "part-00000-stray.c000.snappy.parquet")
	if err := os.WriteFile(stray, []byte("PAR1"), 0o644); err != nil {
		t.Fatal(err)
	}
	if old := time.Now().AddDate(0, -3, 0); os.Chtimes(stray, old, old) != nil {
		t.Fatal("the stray file keeps its time")
	}
	named := lab.NamedFiles(t, there.Table())
	there.JSON(&emptied, append([]string{"spark", "submit", "vacuum", "unified_events", "--retention", "168h"}, submitFlags(t)...)...)
	if v := emptied.Tables["unified_events"]; v.Deleted != 1 {
		t.Errorf("VACUUM on Spark: %+v, want one file deleted", emptied)
	}
	if _, err := os.Stat(stray); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the stray file after VACUUM: %v", err)
	}
	for _, f := range named {
		if _, err := os.Stat(filepath.Join(there.Table(), f)); err != nil {
			t.Errorf("a file of the table after VACUUM: %v", err)
		}
	}
	both("vacuumed by Spark")
	if d := lab.Diff(strings.Split(before, "\n"), strings.Split(there.Run("query", "SELECT * FROM unified_events ORDER BY event_id", "--as-of", strconv.Itoa(packed.Tables["unified_events"].Version-1)), "\n")); d != "" {
		t.Errorf("the version before OPTIMIZE, after VACUUM: %s", d)
	}
	for _, l := range []*lab.Lake{here, there} {
		put(t, l, "historico_after.csv", []byte("symbol,trade_id,price,qty,time,is_buyer_maker\nBTCUSDT,1,14,1,1724112000004,True\nSOLUSDT,22,1,1,1724112000002,True\n"))
	}
	if a, b := sum(here, "run", "batch"), sum(there, "run", "batch"); !reflect.DeepEqual(a, b) || b.RowsUpdated != 2 {
		t.Errorf("counts after maintenance\nhere  %+v\nthere %+v", a, b)
	}
	both("after maintenance")
	if rows := deltalake(t, there); rows != len(here.Rows()) {
		t.Errorf("deltalake sees %d rows, Cauce %d", rows, len(here.Rows()))
	}

	// A table that has forgotten deletions takes no rows from Spark, which could bring one of them back.
	there.Run("table", "properties", "unified_events", "--set", ingest.PropTombstonesPurged+"=event_time=2024-08-20 00:00:00")
	put(t, there, "historico_purged.csv", []byte("symbol,trade_id,price,qty,time,is_buyer_maker\nBTCUSDT,50,14,1,1724112000004,True\n"))
	kept := tableHash(there)
	out, errs, code := there.Try(append([]string{"spark", "submit", "batch", "--json"}, submitFlags(t)...)...)
	if code != 2 || !strings.Contains(out, ingest.PropTombstonesPurged) {
		t.Errorf("a batch into a table that has forgotten deletions: exit code %d\n%s%s", code, out, errs)
	}
	if tableHash(there) != kept {
		t.Error("the refused batch changed the table")
	}
}
