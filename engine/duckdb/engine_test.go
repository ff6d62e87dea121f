package duckdb

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// TestMemoryLimit: the setting is DuckDB's limit; rows beyond it go to the folder, and what cannot go there fails with an
// error that says so.
func TestMemoryLimit(t *testing.T) {
	ctx := context.Background()
	e, err := Open(Options{MemoryLimit: "67108864B", Threads: 1, TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	err = e.with(ctx, func(c *conn) error {
		row, err := c.one(ctx, "SELECT current_setting('memory_limit')")
		if err != nil || row[0] != "64.0 MiB" {
			t.Errorf("the limit is %v, %v", row, err)
		}
		// 160 MB of rows that cannot be compressed.
		if err := c.exec(ctx, "CREATE TABLE spilled AS SELECT hash(i) AS a, hash(i + 1) AS b FROM range(10_000_000) r(i)"); err != nil {
			return err
		}
		if row, err := c.one(ctx, "SELECT count(*), (SELECT sum(size) FROM duckdb_temporary_files()) > 50_000_000 FROM spilled WHERE a = hash(7)"); err != nil || row[0] != int64(1) || row[1] != true {
			t.Errorf("%v, %v", row, err)
		}
		// One value cannot leave.
		if _, err := c.one(ctx, "SELECT length(string_agg(hash(i)::VARCHAR, ',')) FROM range(10_000_000) r(i)"); err == nil || !strings.Contains(err.Error(), "Out of Memory") {
			t.Errorf("a value of 200 MB: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// DuckDB hands projections and conditions down to Arrow streams, which know nothing of them: a registered stream must
// answer as a table does.
func TestRegisteredStreamAnswersAsATable(t *testing.T) {
	ctx := context.Background()
	e := testEngine(t)
	s := arrow.NewSchema([]arrow.Field{{Name: "a", Type: arrow.BinaryTypes.String, Nullable: true}, {Name: "b", Type: arrow.BinaryTypes.String, Nullable: true},
		{Name: "c", Type: arrow.PrimitiveTypes.Int64, Nullable: true}}, nil)
	rec, _, err := array.RecordFromJSON(memory.DefaultAllocator, s, strings.NewReader(`[{"a":"x","b":"y","c":7},{"a":null,"b":"y2","c":8},{"a":"x3","b":null,"c":null}]`))
	if err != nil {
		t.Fatal(err)
	}
	defer rec.Release()
	c, err := e.acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer c.release()
	if err := c.exec(ctx, "CREATE TABLE plain AS SELECT * FROM (VALUES ('x','y',7::BIGINT), (NULL,'y2',8), ('x3',NULL,NULL)) v(a,b,c)"); err != nil {
		t.Fatal(err)
	}
	rows := func(table, query string) string {
		var out []string
		if err := c.each(ctx, fmt.Sprintf(query, table), func(row []any) error { out = append(out, fmt.Sprint(row...)); return nil }); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		slices.Sort(out)
		return strings.Join(out, "\n")
	}
	for _, q := range []string{
		"SELECT * FROM %s", "SELECT c FROM %s", "SELECT c, a FROM %s", "SELECT count(*) FROM %s", "SELECT b FROM %s WHERE c = 7", "SELECT a FROM %s WHERE b = 'y2'",
		"SELECT count(*) FROM %s WHERE c = 9", "SELECT c FROM %s WHERE a IS NULL", "SELECT c FROM %s WHERE b IN ('y', 'q') AND c > 0", "SELECT max(c) FROM %s WHERE a LIKE 'x%%'",
		"SELECT p.c FROM %s p JOIN (SELECT 'y2' AS b) k USING (b)",
	} {
		rr, err := array.NewRecordReader(s, []arrow.RecordBatch{rec})
		if err != nil {
			t.Fatal(err)
		}
		done, err := c.register(rr, "stream")
		if err != nil {
			t.Fatal(err)
		}
		got := rows("stream", q)
		done()
		if want := rows("plain", q); got != want {
			t.Errorf("%s:\n got %q\nwant %q", q, got, want)
		}
	}
}
