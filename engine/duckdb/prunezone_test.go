package duckdb

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/objstore"
)

// The zone of a session says when a day begins and what a time without a zone means: no file is left out whose rows it makes match.
func TestPrunesInTheZoneOfTheSession(t *testing.T) {
	ctx := context.Background()
	e := testEngine(t)
	store, err := objstore.NewLocal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := &delta.Schema{Fields: []delta.Field{
		{Name: "day", Type: delta.Date, Nullable: true}, {Name: "ts", Type: delta.Timestamp, Nullable: true}, {Name: "wall", Type: delta.TimestampNTZ, Nullable: true},
	}}
	tab, err := delta.Create(ctx, store, "t", delta.CreateOptions{Schema: s}, nil)
	if err != nil {
		t.Fatal(err)
	}
	const files = 6
	for i := range files {
		b, _, err := array.RecordFromJSON(memory.DefaultAllocator, s.Arrow(), strings.NewReader(fmt.Sprintf(
			`[{"day": "2024-08-%02d", "ts": "2024-08-%02dT12:00:00Z", "wall": "2024-08-%02dT12:00:00"}]`, 20+i, 20+i, 20+i)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tab.Append(ctx, delta.NewRows(b.Schema(), b), delta.AppendOptions{}); err != nil {
			t.Fatal(err)
		}
		b.Release()
	}
	snap, err := tab.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	tables := map[string]*QueryTable{"t": {Name: "t", Snapshot: snap}}
	c, err := e.acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = c.exec(ctx, "SET TimeZone = 'UTC'")
		_ = c.release()
	}()
	var rows []arrow.RecordBatch
	for b, err := range tab.Scan(ctx, snap, delta.ScanOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		b.Retain()
		defer b.Release()
		rows = append(rows, b)
	}
	rr, err := array.NewRecordReader(rows[0].Schema(), rows)
	if err != nil {
		t.Fatal(err)
	}
	done, err := c.register(rr, "all_rows")
	if err != nil {
		t.Fatal(err)
	}
	defer rr.Release()
	if err := c.exec(ctx, "CREATE TEMP TABLE plain AS SELECT * FROM all_rows"); err != nil {
		t.Fatal(err)
	}
	done()
	pruned := 0
	for _, zone := range []string{"UTC", "Asia/Tokyo", "America/Los_Angeles", "Pacific/Kiritimati", "Pacific/Pago_Pago"} {
		if err := c.exec(ctx, "SET TimeZone = '"+zone+"'"); err != nil {
			t.Fatal(err)
		}
		for _, column := range []string{"day", "ts", "wall"} {
			for _, op := range []string{"=", "<>", "<", "<=", ">", ">="} {
				for _, value := range []string{
					"TIMESTAMP '2024-08-22 00:00:00'", "TIMESTAMP '2024-08-22 05:00:00'", "TIMESTAMP '2024-08-22 12:00:00'", "TIMESTAMP '2024-08-22 20:00:00'", "DATE '2024-08-22'", "'2024-08-22'",
					"TIMESTAMPTZ '2024-08-22 00:00:00'", "TIMESTAMPTZ '2024-08-22 05:00:00+09'", "TIMESTAMPTZ '2024-08-22 12:00:00+00'", "TIMESTAMPTZ '2024-08-21 15:00:00+00'", "TIMESTAMPTZ '2024-08-22 00:00:00+00'",
					"'2024-08-22 12:00:00'", "'2024-08-22 12:00:00+00'",
				} {
					where := column + " " + op + " " + value
					row, err := c.one(ctx, "SELECT count(*) FROM plain WHERE "+where)
					if err != nil {
						continue // a text that is no value of the column
					}
					if err := c.exec(ctx, "BEGIN TRANSACTION"); err != nil {
						t.Fatal(err)
					}
					q, err := parseQuery(ctx, c, "SELECT * FROM t WHERE "+where, nil)
					if err != nil {
						t.Fatal(err)
					}
					p, err := q.predicates(ctx, c, tables)
					if err != nil {
						t.Fatal(err)
					}
					_ = c.exec(ctx, "ROLLBACK")
					kept := len(snap.Prune(p["t"]))
					if want := integer(row[0]); int64(kept) < want {
						t.Errorf("%s: %s: %d files for %d rows", zone, where, kept, want)
					}
					if kept < files {
						pruned++
					}
				}
			}
		}
	}
	t.Logf("%d conditions left files out", pruned)
}
