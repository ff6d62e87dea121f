package flow

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/test/lab"
)

// answer is what `cauce query --json` prints.
type answer struct {
	Rows        []map[string]any `json:"rows"`
	Version     int64            `json:"version"`
	FilesTotal  int              `json:"files_total"`
	FilesOpened int              `json:"files_opened"`
	BytesRead   int64            `json:"bytes_read"`
}

const csvHeader = "symbol,trade_id,price,qty,quote_qty,time,is_buyer_maker,is_best_match\n"

// land puts a file into a folder outside the lake and lands it by the command.
func land(t *testing.T, l *lab.Lake, name, text string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	l.Run("land", path)
}

func TestLayoutOnDisk(t *testing.T) {
	l := lab.NewLake(t)
	land(t, l, "historico_2024-08-20.csv", csvHeader+
		"BTCUSDT,1,59000.5,0.1,0,1724155200000,True,True\n"+
		"BTCUSDT,2,-1,0.1,0,1724155200000,True,True\n")
	l.Run("run", "batch", "--now")
	if _, err := os.Stat(l.Path("data/raw/batch/historico_2024-08-20.csv")); err != nil {
		t.Error(err)
	}
	want := regexp.MustCompile(`^event_date=2024-08-20/part-[^/]*\.snappy\.parquet$`)
	files := lab.FilesOnDisk(t, l.Table())
	if len(files) != 1 || !want.MatchString(files[0]) {
		t.Errorf("the table's files are %v", files)
	}
	for _, path := range []string{
		"data/processed/unified-events/_delta_log/00000000000000000000.json", "data/processed/quarantine/_delta_log/00000000000000000000.json",
		"data/processed/_progress/history/files",
	} {
		if _, err := os.Stat(l.Path(path)); err != nil {
			t.Error(err)
		}
	}
}

// TestEveryRowOfALargeHistoryArrives compares every row of some larger files, and the ones in quarantine, with the
// generator's.
func TestEveryRowOfALargeHistoryArrives(t *testing.T) {
	l := lab.NewLake(t)
	g := lab.NewGenerator(testscale.Rand(t), 3)
	rows, bad := testscale.Count(t, "flow-rows"), 0
	for day := range 3 {
		bad += g.History(t, l.Inbox(), day, rows/3, 200).Bad
	}
	var r report
	l.JSON(&r, "run", "batch")
	if r.FilesRead != 3 || r.RowsRead != int64(rows/3*3) || r.Quarantined != int64(bad) {
		t.Errorf("%+v, the generator made %d rows, %d of them bad", r, rows/3*3, bad)
	}
	if d := lab.Diff(g.Expected.Lines(), l.Rows()); d != "" {
		t.Error(d)
	}
}

// TestRowThatMovesToAnotherDateStaysOne: the lookup must not assume that a key stays in its partition.
func TestRowThatMovesToAnotherDateStaysOne(t *testing.T) {
	l := lab.NewLake(t)
	land(t, l, "historico_2024-08-20.csv", csvHeader+"BTCUSDT,1,1,1,0,1724155200000,True,True\nBTCUSDT,2,1,1,0,1724155200000,True,True\n")
	l.Run("run", "batch", "--now")
	land(t, l, "historico_2024-08-21.csv", csvHeader+"BTCUSDT,1,2,1,0,1724241600000,True,True\n")
	var r struct {
		Inserted int64 `json:"rows_inserted"`
		Updated  int64 `json:"rows_updated"`
	}
	l.JSON(&r, "run", "batch", "--now")
	if r.Inserted != 0 || r.Updated != 1 {
		t.Errorf("%d inserted and %d updated, want 0 and 1", r.Inserted, r.Updated)
	}
	got := l.Run("query", "SELECT event_id, event_date, price FROM unified_events ORDER BY event_id", "--format", "csv")
	if want := "event_id,event_date,price\nBTCUSDT-1,2024-08-21,2.00000000\nBTCUSDT-2,2024-08-20,1.00000000\n"; got != want {
		t.Errorf("the table is\n%s, want\n%s", got, want)
	}
}

// TestOptimizeAndZOrderKeepEveryRow packs many small files, then sorts them, and compares the rows' hash.
func TestOptimizeAndZOrderKeepEveryRow(t *testing.T) {
	l := lab.NewLake(t)
	l.Append("maintenance: {optimize: false}\n") // the stream would pack the files by itself
	g := lab.NewGenerator(testscale.Rand(t), 2)
	files := testscale.Count(t, "optimize-files")
	file := filepath.Join(t.TempDir(), "events.jsonl")
	g.Events(t, file, 10*files)
	l.Run("produce", "replay", file)
	l.Run("run", "stream", "--available-now", "--rows-max", "20")
	before := data(lab.NamedFiles(t, l.Table()))
	if len(before) < files {
		t.Fatalf("%d data files, want at least %d", len(before), files)
	}
	const point = "SELECT count(*) AS n FROM unified_events WHERE symbol = 'BTCUSDT'"
	hash := hashOf(t, l)
	var a answer
	l.JSON(&a, "query", point)
	report := fmt.Sprintf("REPORT: %d files, %d opened for one symbol", len(before), a.FilesOpened)
	n := a.Rows[0]["n"]
	for _, args := range [][]string{
		{"table", "optimize", "unified_events"},
		{"table", "optimize", "unified_events", "--zorder", "symbol"},
	} {
		l.Run(args...)
		if got := hashOf(t, l); got != hash {
			t.Errorf("%v: the rows' hash is %s, was %s", args, got, hash)
		}
		l.JSON(&a, "query", point)
		if a.Rows[0]["n"] != n {
			t.Errorf("%v: %v rows of the symbol, was %v", args, a.Rows[0]["n"], n)
		}
		report += fmt.Sprintf("; after %s %d files, %d opened", strings.Join(args[1:], " "), len(data(lab.NamedFiles(t, l.Table()))), a.FilesOpened)
	}
	t.Log(report + "; hash " + hash)
	if d := lab.Diff(g.Expected.Lines(), l.Rows()); d != "" {
		t.Error(d)
	}
	if after := data(lab.NamedFiles(t, l.Table())); len(after)*10 > len(before) {
		t.Errorf("%d files were packed into %d only", len(before), len(after))
	}
}

// data leaves out deletion vectors.
func data(files []string) []string {
	return slices.DeleteFunc(files, func(f string) bool { return !strings.HasSuffix(f, ".parquet") })
}

func hashOf(t *testing.T, l *lab.Lake) string {
	t.Helper()
	var h map[string]any
	if err := json.Unmarshal([]byte(l.Run("table", "hash", "unified_events", "--json")), &h); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(h["hash"])
}
