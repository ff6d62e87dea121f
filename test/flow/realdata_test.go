package flow

import (
	"encoding/json"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/test/lab"
)

// summary is what a table of trades, or a file of them, comes to.
type summary struct {
	N             int64  `json:"n"`
	Price, Amount string // exact sums
	First, Last   int64  // µs since the epoch
	Lines         int64  // distinct records
}

// TestRealFilesAreReadExactly loads recorded files of two exchanges with the examples' lake files and compares counts,
// exact sums and the range of times with what Python reads. One of them has no header, no id, whole seconds, and 45
// lines that are like others.
func TestRealFilesAreReadExactly(t *testing.T) {
	shared, python := prereq.Need(t, "shared"), prereq.Need(t, "python")
	for _, c := range []struct {
		example, kind, file, table, amount string
		rows, lines                        int64
	}{
		{"coinbase", "coinbase", "questdb_btc_trades.csv", "coinbase_trades", "amount", 5882, 0},
		{"binance-csv", "binance", "gct_binance_BTCUSDT_trades_2020_11_16.csv", "btcusdt_trades", "quantity", 1000, 955},
	} {
		t.Run(c.example, func(t *testing.T) {
			raw := filepath.Join(shared, "realdata", c.file)
			out, err := exec.Command(python, "summary.py", c.kind, raw).Output()
			if err != nil {
				t.Fatal(err)
			}
			var want summary
			if err := json.Unmarshal(out, &want); err != nil {
				t.Fatal(err)
			}
			if want.N != c.rows || c.lines != 0 && want.Lines != c.lines {
				t.Fatalf("Python reads %d records, %d distinct", want.N, want.Lines)
			}
			l := lab.NewExample(t, c.example)
			copyTo(t, raw, filepath.Join(l.Inbox(), c.file))
			var first report
			l.JSON(&first, "run", "batch")
			if first.FilesRead != 1 || first.RowsRead != c.rows || first.Inserted != c.rows || first.Quarantined != 0 {
				t.Errorf("the first run: %+v", first)
			}
			var a answer
			l.JSON(&a, "query", "SELECT count(*) AS n, sum(price)::VARCHAR AS price, sum("+c.amount+")::VARCHAR AS amount, epoch_us(min(event_time)) AS first, epoch_us(max(event_time)) AS last FROM "+c.table)
			text, err := json.Marshal(a.Rows[0])
			if err != nil {
				t.Fatal(err)
			}
			var got summary
			if err := json.Unmarshal(text, &got); err != nil {
				t.Fatalf("%v in %s", err, text)
			}
			if got.N != want.N || got.First != want.First || got.Last != want.Last || !sameNumber(got.Price, want.Price) || !sameNumber(got.Amount, want.Amount) {
				t.Errorf("the table has %+v, the file %+v", got, want)
			}
			t.Logf("REPORT: %s: %d rows, sums %s and %s as Python has them", c.file, got.N, got.Price, got.Amount)

			copyTo(t, raw, filepath.Join(l.Inbox(), "another_name.csv"))
			for _, run := range []string{"a renamed copy", "nothing new"} {
				var again report
				l.JSON(&again, "run", "batch")
				if again.Version != first.Version || again.RowsRead != 0 {
					t.Errorf("%s: %+v after version %d", run, again, first.Version)
				}
			}
		})
	}
}

// report is the part of `cauce run batch --json` that the tests look at.
type report struct {
	FilesRead   int   `json:"files_read"`
	RowsRead    int64 `json:"rows_read"`
	Inserted    int64 `json:"rows_inserted"`
	Updated     int64 `json:"rows_updated"`
	Unchanged   int64 `json:"rows_unchanged"`
	Quarantined int64 `json:"rows_quarantined"`
	Version     int64 `json:"version"`
}

func sameNumber(a, b string) bool {
	x, ok := new(big.Rat).SetString(a)
	y, ok2 := new(big.Rat).SetString(b)
	return ok && ok2 && x.Cmp(y) == 0
}

func copyTo(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, text, 0o644); err != nil {
		t.Fatal(err)
	}
}
