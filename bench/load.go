package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// loadColumns are the columns that every program computes from the CSV files.
var loadColumns = []string{"event_id", "symbol", "trade_id", "price", "qty", "quote_qty", "event_time", "is_buyer_maker", "event_date"}

// load measures CSV files of rows records, 1 % of them dirty, becoming a table: cleaned, one row a key, the newest wins.
func (b *bench) load(rows int) error {
	history, err := b.history(rows)
	if err != nil {
		return err
	}
	type program struct {
		name, kind, table string
		work              func(table string) (usage, error)
		runs              []usage
		files             int
		bytes             int64
	}
	work := filepath.Join(b.dir, "load")
	lake := filepath.Join(work, "cauce")
	programs := []*program{
		{name: "DuckDB, CSV to Parquet (floor)", kind: "parquet", table: filepath.Join(work, "duckdb"), work: func(table string) (usage, error) {
			u, _, err := b.script("duckdb_limit.py", "w1", "--csv", history, "--table", table)
			return u, err
		}},
		{name: "Cauce", kind: "delta", table: lakeTable(lake), work: func(string) (usage, error) {
			u, _, err := run(lake, b.cauce, "run", "batch", "--json")
			return u, err
		}},
		{name: "polars + delta-rs", kind: "delta", table: filepath.Join(work, "deltars"), work: func(table string) (usage, error) {
			u, _, err := b.script("deltars.py", "w1", "--csv", history, "--table", table)
			return u, err
		}},
	}
	for try := range b.tries {
		for _, p := range programs {
			if err := os.RemoveAll(p.table); err != nil {
				return err
			}
			if p.name == "Cauce" {
				if err := newLake(lake, history); err != nil {
					return err
				}
			} else if err := os.MkdirAll(filepath.Dir(p.table), 0o755); err != nil {
				return err
			}
			u, err := p.work(p.table)
			if err != nil {
				return err
			}
			p.runs = append(p.runs, u)
			fmt.Fprintf(os.Stderr, "bench: load %d, try %d, %s: %.2f s\n", rows, try+1, p.name, u.Wall.Seconds())
		}
	}
	hashes := map[string]string{}
	for _, p := range programs {
		if p.files, p.bytes, err = size(p.table); err != nil {
			return err
		}
		if hashes[p.name], err = b.rowHash(p.kind, p.table, loadColumns...); err != nil {
			return err
		}
	}
	if err := sameRows(hashes); err != nil {
		return err
	}
	floor := spreadOf(seconds(programs[0].runs, wall)).Median
	for _, p := range programs {
		w := spreadOf(seconds(p.runs, wall))
		fmt.Fprintf(b.out, "| %d | %s | %s | %.2f | %s | %.0f | %d | %.0f |\n", rows, p.name, w, w.Median/floor,
			spreadOf(seconds(p.runs, cpu)), spreadOf(seconds(p.runs, peak)).Max, p.files, float64(p.bytes)/1e6)
	}
	return os.RemoveAll(work)
}
