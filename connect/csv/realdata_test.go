package csv

import (
	stdcsv "encoding/csv"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/pipeline"
)

// The two real files, read through a real store: every record of encoding/csv, and how many people counted.
func TestRealFiles(t *testing.T) {
	dir := filepath.Join(prereq.Need(t, "shared"), "realdata")
	store, err := objstore.NewLocal(dir)
	must(t, err)
	headless := std
	headless.Columns = []string{"time", "price", "quantity", "kind"}
	for _, c := range []struct {
		name   string
		csv    pipeline.CSV
		header bool
		rows   int
	}{
		{"questdb_btc_trades.csv", std, true, 5882},
		{"gct_binance_BTCUSDT_trades_2020_11_16.csv", headless, false, 1000},
	} {
		f, err := open(t, Options{}, store, c.name, c.csv)
		must(t, err)
		if f.HasHeader != c.header || f.Path != store.LocalPath(c.name) {
			t.Errorf("%s: header %v, path %s", c.name, f.HasHeader, f.Path)
		}
		plain, err := os.Open(f.Path)
		must(t, err)
		defer plain.Close()
		want, err := stdcsv.NewReader(plain).ReadAll()
		must(t, err)
		if c.header {
			if !slices.Equal(want[0], f.Fields) {
				t.Errorf("%s: fields %q", c.name, f.Fields)
			}
			want = want[1:]
		}
		n := 0
		for r, err := range f.Rows(t.Context()) {
			must(t, err)
			if r.Err != "" || n >= len(want) || !slices.Equal(r.Values, want[n]) {
				t.Fatalf("%s: record %d is %+v", c.name, r.Position, r)
			}
			n++
		}
		if n != c.rows || len(want) != c.rows {
			t.Errorf("%s: %d records, encoding/csv %d, want %d", c.name, n, len(want), c.rows)
		}
	}
}
