package flow

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/test/lab"
)

// edit replaces text that stands once in the lake file.
func edit(t *testing.T, l *lab.Lake, from, to string) {
	t.Helper()
	text, err := os.ReadFile(l.Path("lake.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(text), from) != 1 {
		t.Fatalf("%q does not stand once in the lake file", from)
	}
	if err := os.WriteFile(l.Path("lake.yaml"), []byte(strings.Replace(string(text), from, to, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestSchemaIsEnforced brings rows and lake files that do not fit the stored table. Rows go to quarantine with the
// column named, lake files are refused with the column named, and a column is added only where the lake file says so.
func TestSchemaIsEnforced(t *testing.T) {
	l := lab.NewLake(t)
	land(t, l, "historico_2024-08-19.csv", csvHeader+"BTCUSDT,1,59000.5,0.1,0,1724065200000,True,True\n")
	l.Run("run", "batch")
	columns := func() string {
		var d struct {
			Columns []struct {
				Name string `json:"name"`
				Type string `json:"type"`
			} `json:"columns"`
			Version int64 `json:"version"`
		}
		l.JSON(&d, "table", "describe", "unified_events")
		return fmt.Sprint(d.Columns)
	}
	stored := columns()

	// A wrong type, a value out of range, a missing value of a NOT NULL column: the rows stay outside.
	land(t, l, "historico_2024-08-20.csv", csvHeader+
		"BTCUSDT,2,cheap,0.1,0,1724151600000,True,True\n"+
		"BTCUSDT,3,12345678901.5,0.1,0,1724151600000,True,True\n"+
		"BTCUSDT,,59000.5,0.1,0,1724151600000,True,True\n"+
		"BTCUSDT,5,59000.5,0.1,0,1724151600000,True,True\n")
	var r report
	l.JSON(&r, "run", "batch")
	if r.RowsRead != 4 || r.Inserted != 1 || r.Quarantined != 3 {
		t.Errorf("%+v", r)
	}
	reasons := l.Run("query", "SELECT rule, reason FROM quarantine ORDER BY position", "--format", "csv")
	for i, want := range []string{"price", "price", "event_id"} {
		if line := strings.Split(reasons, "\n")[i+1]; !strings.Contains(line, want) {
			t.Errorf("bad row %d: %q does not name %s", i, line, want)
		}
	}

	// A lake file that says something else than the table: refused, and nothing changes.
	for _, c := range []struct{ from, to, names string }{
		{`quantity: "DECIMAL(18,8)"`, `quantity: DOUBLE`, "quantity"},
		{"      event_date: DATE\n", "      event_date: DATE\n      venue: STRING\n", "venue"},
		{"    partition_by: [event_date]\n", "", "partition"},
	} {
		edit(t, l, c.from, c.to)
		land(t, l, "historico_2024-08-21.csv", csvHeader+"BTCUSDT,6,59000.5,0.1,0,1724238000000,True,True\n")
		_, problem, code := l.Try("run", "batch")
		if code != 2 || !strings.Contains(problem, c.names) {
			t.Errorf("%s: exit code %d, %s", c.to, code, problem)
		}
		if c.to != "" {
			edit(t, l, c.to, c.from)
		} else {
			edit(t, l, "    cluster_by:", c.from+"    cluster_by:")
		}
	}
	if got := columns(); got != stored {
		t.Errorf("columns %s, before %s", got, stored)
	}

	// The same new column, allowed.
	edit(t, l, "      event_date: DATE\n", "      event_date: DATE\n      venue: STRING\n")
	edit(t, l, "    cluster_by:", "    evolve: add_columns\n    cluster_by:")
	edit(t, l, `fields: {source: "'batch'",`, `fields: {source: "'batch'", venue: "'spot'",`)
	l.Run("run", "batch")
	got := l.Run("query", "SELECT trade_id, venue FROM unified_events ORDER BY trade_id", "--format", "csv")
	if got != "trade_id,venue\n1,\n5,\n6,spot\n" {
		t.Errorf("after adding a column:\n%s", got)
	}
}

// TestTimeTravelShowsEachVersion keeps what the generator expects after each commit and asks for it later, by version
// and by time, after updates, deletion vectors and OPTIMIZE have changed every file.
func TestTimeTravelShowsEachVersion(t *testing.T) {
	l := lab.NewLake(t)
	g := lab.NewGenerator(testscale.Rand(t), 3)
	type state struct {
		version int64
		lines   []string
		at      time.Time
	}
	var states []state
	for day := range 3 {
		g.History(t, l.Inbox(), day, 300, 0)
		var r report
		l.JSON(&r, "run", "batch")
		states = append(states, state{r.Version, g.Expected.Lines(), time.Now()})
		time.Sleep(20 * time.Millisecond) // the log's times are whole milliseconds
	}
	l.Run("table", "optimize", "unified_events", "--zorder", "symbol")
	asOf := func(at string) []string {
		return lab.Lines(t, []byte(l.Run("query", "SELECT "+strings.Join(lab.Columns, ", ")+" FROM unified_events", "--format", "csv", "--as-of", at)), lab.Columns)
	}
	for i, s := range states {
		if d := lab.Diff(s.lines, asOf(fmt.Sprint(s.version))); d != "" {
			t.Errorf("version %d: %s", s.version, d)
		}
		if d := lab.Diff(s.lines, asOf(s.at.UTC().Format(time.RFC3339Nano))); d != "" {
			t.Errorf("the time after commit %d: %s", i, d)
		}
	}
	if d := lab.Diff(states[2].lines, l.Rows()); d != "" {
		t.Errorf("now: %s", d)
	}
	var h struct {
		Commits []json.RawMessage `json:"commits"`
	}
	l.JSON(&h, "table", "history", "unified_events")
	if len(h.Commits) < 5 { // creation, three batches, OPTIMIZE
		t.Errorf("the history has %d commits", len(h.Commits))
	}
}
