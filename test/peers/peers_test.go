package peers

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/test/lab"
)

// stored are the columns of which every reader must return the same values: those of the generator, and those that
// Cauce adds to each row.
var stored = slices.Concat(lab.Columns, []string{"ingested_at", "_rank", "_generation", "_position", "_origin"})

// TestEnginesReadWhatCauceWrote has batch, stream and optimize write one table, vectors and checkpoints present, reads
// it by five readers, and demands the generator's rows of each. Spark then merges, optimises and checkpoints it, Cauce
// goes on, and all read it again.
func TestEnginesReadWhatCauceWrote(t *testing.T) {
	python := prereq.Need(t, "venv")
	s := startSpark(t)
	l := lab.NewLake(t)
	g := lab.NewGenerator(testscale.Rand(t), 3)
	rows := testscale.Count(t, "peer-rows")

	for day := range 3 {
		g.History(t, l.Inbox(), day, rows/4, 100)
	}
	l.Run("run", "batch", "--now")
	for i := range 12 {
		stream(t, l, g, rows/48)
		if i == 5 {
			l.Run("table", "optimize", "unified_events")
		}
	}
	g.History(t, l.Inbox(), 1, rows/20, 0)
	l.Run("run", "batch", "--now")

	vectors := liveVectors(t, l)
	checkpoints, err := filepath.Glob(filepath.Join(l.Table(), "_delta_log", "*.checkpoint*.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(l.Table(), "_delta_log", "_last_checkpoint")); err != nil || len(checkpoints) == 0 || vectors == 0 {
		t.Fatalf("the table shows too little: %d live deletion vectors, %d checkpoints, %v", vectors, len(checkpoints), err)
	}
	t.Logf("REPORT: Spark %s, deltalake, DuckDB, cauce query and the pure-Go scan: %d rows, %d live deletion vectors, %d checkpoints",
		s.ready(), len(g.Expected), vectors, len(checkpoints))
	readByAll(t, "written by Cauce", python, s, l, g.Expected)

	// Spark changes some rows that Cauce wrote, removes some, adds some. Its rows order themselves after Cauce's by time.
	table := "delta.`" + l.Table() + "`"
	var changed, removed int
	for id, row := range g.Expected {
		switch row.ID % 7 {
		case 0:
			delete(g.Expected, id)
			removed++
		case 1:
			row.Price += 1e8
			row.Amount = 5e7
			g.Expected[id] = row
			changed++
		}
	}
	added := lab.Row{Trade: lab.Trade{Symbol: "SPARK", ID: 1, Price: 123456789, Amount: 1, TimeUS: 1724155200000000}, Source: "spark"}
	g.Expected.Put(added)
	s.sql("MERGE INTO " + table + ` t USING (
		SELECT event_id, trade_id, price + 1 AS price FROM ` + table + ` WHERE trade_id % 7 IN (0, 1)
		UNION ALL SELECT 'SPARK-1', 1, 1.23456789) s
		ON t.event_id = s.event_id
		WHEN MATCHED AND s.trade_id % 7 = 0 THEN DELETE
		WHEN MATCHED THEN UPDATE SET t.price = s.price, t.quantity = 0.5
		WHEN NOT MATCHED THEN INSERT (event_id, source, symbol, trade_id, price, quantity, event_time, is_buyer_maker, event_date, ingested_at, _rank, _generation, _position, _origin)
			VALUES (s.event_id, 'spark', 'SPARK', s.trade_id, s.price, 0.00000001, TIMESTAMP '2024-08-20 12:00:00', false, DATE '2024-08-20', TIMESTAMP '2024-08-20 12:00:00', 0, 0, 1, 'spark')`)
	t.Logf("REPORT: Spark MERGE changed %d rows, deleted %d, inserted 1", changed, removed)
	readByAll(t, "merged by Spark", python, s, l, g.Expected)

	s.sql("OPTIMIZE " + table)
	s.do(map[string]any{"op": "checkpoint", "table": l.Table()})
	readByAll(t, "optimised by Spark", python, s, l, g.Expected)

	stream(t, l, g, rows/40)
	g.History(t, l.Inbox(), 2, rows/20, 0)
	l.Run("run", "batch", "--now")
	l.Run("table", "optimize", "unified_events")
	stream(t, l, g, rows/40)
	readByAll(t, "continued by Cauce", python, s, l, g.Expected)
}

// stream sends new events through the buffer into the table.
func stream(t *testing.T, l *lab.Lake, g *lab.Generator, n int) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "events.jsonl")
	g.Events(t, file, n)
	l.Run("produce", "replay", file)
	l.Run("run", "stream", "--available-now")
}

// readByAll reads the table by each reader and compares.
func readByAll(t *testing.T, state, python string, s *spark, l *lab.Lake, want lab.Expected) {
	t.Helper()
	wanted := want.Lines()
	readers := []struct {
		name string
		read func() []byte
	}{
		{"cauce query", func() []byte {
			return []byte(l.Run("query", "SELECT * FROM unified_events", "--format", "csv"))
		}},
		{"cauce table scan", func() []byte { return []byte(l.Run("table", "scan", l.Table(), "--format", "csv")) }},
		{"deltalake", func() []byte { return readPython(t, python, "deltalake", l.Table()) }},
		{"duckdb", func() []byte { return readPython(t, python, "duckdb", l.Table()) }},
		{"spark", func() []byte { return s.csv(l.Table()) }},
	}
	var first []string
	for _, r := range readers {
		text := r.read()
		if d := lab.Diff(wanted, lab.Lines(t, text, lab.Columns)); d != "" {
			t.Errorf("%s, read by %s: not the generator's rows: %s", state, r.name, d)
		}
		all := lab.Lines(t, text, stored)
		if first == nil {
			first = all
		} else if d := lab.Diff(first, all); d != "" {
			t.Errorf("%s, read by %s: not the rows of %s: %s", state, r.name, readers[0].name, d)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
}

func readPython(t *testing.T, python, reader, table string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "rows.csv")
	if text, err := exec.Command(python, "readers.py", reader, table, out).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", reader, err, tail(text))
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// liveVectors counts the data files of the newest snapshot that have a deletion vector.
func liveVectors(t *testing.T, l *lab.Lake) int {
	t.Helper()
	ctx := context.Background()
	store, err := objstore.NewLocal(l.Path("data"))
	if err != nil {
		t.Fatal(err)
	}
	table, err := delta.Open(ctx, store, "processed/unified-events", nil)
	if err != nil {
		t.Fatal(err)
	}
	snap, err := table.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, add := range snap.Adds() {
		if add.DeletionVector != nil {
			n++
		}
	}
	return n
}

// TestPythonReadersSeeGoldenVectors makes sure that the readers of this package honour deletion vectors themselves, on
// a table of another writer; else agreement on Cauce's tables would prove nothing.
func TestPythonReadersSeeGoldenVectors(t *testing.T) {
	python, shared := prereq.Need(t, "venv"), prereq.Need(t, "shared")
	table := filepath.Join(shared, "delta-golden", "dat", "reader_tests", "generated", "deletion_vectors", "delta")
	var rows []string
	for _, reader := range []string{"deltalake", "duckdb"} {
		lines := lab.Lines(t, readPython(t, python, reader, table), []string{"letter", "int", "date"})
		if rows != nil && !slices.Equal(rows, lines) {
			t.Errorf("duckdb reads %v, deltalake %v", lines, rows)
		}
		rows = lines
	}
	if len(rows) != 1 || strings.Contains(fmt.Sprint(rows), "a|") {
		t.Errorf("the table has one live row, these are: %v", rows)
	}
}
