package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// lakeFile gives Cauce the columns, types and rules that the peers' scripts use.
const lakeFile = `version: 1
storage: file:./data
tables:
  unified_events:
    columns:
      event_id: {type: STRING, not_null: true}
      source: STRING
      symbol: STRING
      trade_id: LONG
      price: "DECIMAL(18,8)"
      qty: "DECIMAL(18,8)"
      quote_qty: "DECIMAL(18,8)"
      event_time: TIMESTAMP
      is_buyer_maker: BOOLEAN
      ingested_at: TIMESTAMP
      event_date: DATE
    key: [event_id]
    sequence: [event_time]
    partition_by: [event_date]
    transform:
      - set: {symbol: "upper(trim(symbol))"}
      - set: {event_id: "symbol || '-' || trade_id", event_date: "to_date(event_time)"}
    expect:
      - {name: complete, check: "symbol <> '' AND trade_id IS NOT NULL AND price IS NOT NULL AND qty IS NOT NULL AND event_time IS NOT NULL", on_fail: quarantine}
sources:
  history:
    table: unified_events
    kind: files
    location: ["raw/batch/historico_*.csv"]
    format: csv
    fields: {source: "'batch'", symbol: symbol, trade_id: trade_id, price: price, qty: qty, quote_qty: quote_qty,
             event_time: to_event_time(time), is_buyer_maker: "to_boolean(is_buyer_maker)"}
    rank: 0
  live:
    table: unified_events
    kind: embedded
    topic: trades
    format: json
    filter: "e = 'trade'"
    fields: {source: "'stream'", symbol: s, trade_id: t, price: p, qty: q, event_time: to_event_time(T), is_buyer_maker: "to_boolean(m)"}
    rank: 1
stream: {trigger: 100ms, rows_max: 10000}
`

// newLake makes a lake in dir with the history's files landed, which costs nothing: they are hard links.
func newLake(dir, history string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	inbox := filepath.Join(dir, "data", "raw", "batch")
	if err := os.MkdirAll(inbox, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "lake.yaml"), []byte(lakeFile), 0o644); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(history, "*.csv"))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("%s holds no CSV file", history)
	}
	for _, f := range files {
		if err := os.Link(f, filepath.Join(inbox, filepath.Base(f))); err != nil {
			return err
		}
	}
	return nil
}

func lakeTable(lake string) string { return filepath.Join(lake, "data", "processed", "unified-events") }
