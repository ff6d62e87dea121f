package bi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sys/unix"

	"github.com/cauce-data/cauce/internal/family"
	"github.com/cauce-data/cauce/internal/prereq"
)

// code gives the SQLSTATE of an error.
func code(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return fmt.Sprint(err)
}

func TestSQLOverTheWire(t *testing.T) {
	ctx := context.Background()
	l := newLake(t, "serve: {workers: 2}\n")
	s := serveLake(t, l)
	c := s.connect()

	want := len(l.Rows())
	if got := count(t, c, "SELECT count(*) FROM unified_events"); got != int64(want) {
		t.Errorf("%d rows over the wire, cauce query gives %d", got, want)
	}
	t.Run("values", func(t *testing.T) {
		for _, c := range []struct{ sql, want string }{
			{"SELECT 1::smallint", "1"}, {"SELECT 'é'", "é"}, {"SELECT NULL::text", "<nil>"}, {"SELECT true", "true"}, {"SELECT DATE '2024-02-29'", "2024-02-29 00:00:00 +0000 UTC"},
			{"SELECT TIMESTAMP '2024-08-20 12:00:00.000001'", "2024-08-20 12:00:00.000001 +0000 UTC"}, {"SELECT 1.5e300", "1.5e+300"}, {"SELECT '\\x41'::bytea", "[65]"},
			{"SELECT ARRAY[1, NULL, 3]", "[1 <nil> 3]"}, {"SELECT {'a': 1}", "map[a:1]"},
			// PostgreSQL's documentation, "String Functions", "format" and "Mathematical Functions".
			{"SELECT initcap('hi THOMAS, o''neil é1a')", "Hi Thomas, O'Neil É1a"}, {"SELECT width_bucket(5.35, 0.024, 10.06, 5)", "3"}, {"SELECT width_bucket(10, 10, 0, 4)", "1"},
			{"SELECT format('Hello %s, %1$s%%', 'World')", "Hello World, World%"}, {"SELECT format('INSERT INTO %I VALUES(%L)', 'Foo bar', E'O\\'Reilly')", `INSERT INTO "Foo bar" VALUES('O''Reilly')`},
			{"SELECT format('%2$s|%1$s|%L|', 1, NULL)", "|1|NULL|"}, {"SELECT format('%L', NULL)", "NULL"}, {"SELECT quote_literal(E'a\\\\b')", `E'a\\b'`},
			{"SELECT current_timestamp::text <> '' AND current_date::text = current_timestamp::date::text AND current_date::timestamp <= localtimestamp AND localtime::text <> ''", "true"},
			{"SELECT (SELECT current_date::text) = current_timestamp::date::text", "true"}, // a result's column has the name of what is cast
			{`SELECT "current_date"::text FROM (SELECT 'a column' AS current_date) t`, "a column"}, {"SELECT t.current_date::text FROM (SELECT 'a column' AS current_date) t", "a column"},
			{"SELECT TIMESTAMPTZ '2024-08-20 12:00+02' = '2024-08-20 10:00:00Z'", "true"}, {"SELECT '2024-08-20T12:00Z'::timestamptz = '2024-08-20 12:00 UTC'::timestamptz", "true"},
			{"SELECT TIMESTAMPTZ '2024-08-20 12:00 America/New_York' = '2024-08-20 16:00:00+00'", "true"}, {"SELECT TIMESTAMP '2024-08-20 +02:00'", "2024-08-20 00:00:00 +0000 UTC"},
			{"SELECT 'abc' ~ 'b'", "true"}, {"SELECT 'abc' !~ '^b'", "true"}, {"SELECT 'ABC' ~* 'b'", "true"},
		} {
			binary := s.connect()
			if got := one(t, binary, c.sql); got != c.want {
				t.Errorf("%s: %s, want %s", c.sql, got, c.want)
			}
		}
		for _, v := range []string{"0.00000000", "1.50000000", "-12345678901234.00000001", "0.00000001", "99999999999999999999.12345678"} {
			if got := one(t, c, "SELECT ($1::decimal(38,8))::text", v); got != v {
				t.Errorf("decimal %s comes back as %s", v, got)
			}
			var n string // what pgx makes of the binary form
			if err := c.QueryRow(ctx, "SELECT $1::decimal(38,8)", v).Scan(&n); err != nil || n != v {
				t.Errorf("decimal %s in binary: %s, %v", v, n, err)
			}
		}
	})
	t.Run("parameters", func(t *testing.T) {
		id := one(t, c, "SELECT event_id FROM unified_events ORDER BY 1 LIMIT 1")
		if n := count(t, c, "SELECT count(*) FROM unified_events WHERE event_id = $1", id); n != 1 {
			t.Errorf("%d rows by a text parameter", n)
		}
		if n := count(t, c, "SELECT count(*) FROM unified_events WHERE symbol = ANY($1)", []string{"BTCUSDT", "ETHUSDT"}); n == 0 || n == int64(want) {
			t.Errorf("%d rows by an array", n)
		}
		all := count(t, c, "SELECT count(*) FROM unified_events WHERE event_date >= $1 AND event_time < $2 AND price > $3",
			time.Date(2024, 8, 1, 0, 0, 0, 0, time.UTC), time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), 0)
		if all != int64(want) {
			t.Errorf("%d rows by date, time and number, want %d", all, want)
		}
		if got := one(t, c, "SELECT $1::text", "O'Reilly; DROP TABLE x -- $2"); got != "O'Reilly; DROP TABLE x -- $2" {
			t.Errorf("text parameter: %s", got)
		}
	})
	t.Run("time travel", func(t *testing.T) {
		var v struct {
			Rows []struct{ N int64 } `json:"rows"`
		}
		for _, version := range []string{"1", "2"} {
			l.JSON(&v, "query", "SELECT count(*) AS n FROM unified_events", "--as-of", version)
			for _, sql := range []string{"AT (VERSION => " + version + ")", "VERSION AS OF " + version, "FOR SYSTEM_VERSION AS OF '" + version + "' AS E WHERE e.symbol <> 'VERSION AS OF 0'"} {
				if got := count(t, c, "SELECT count(*) FROM unified_events "+sql); got != v.Rows[0].N {
					t.Errorf("%s: %d rows, cauce query gives %d", sql, got, v.Rows[0].N)
				}
			}
		}
		at := one(t, c, `SELECT committed_at::text FROM lake.versions WHERE "table" = 'unified_events' AND version = 1`)
		l.JSON(&v, "query", "SELECT count(*) AS n FROM unified_events", "--as-of", "1")
		for _, sql := range []string{
			"AT (TIMESTAMP => '" + at + "')", "TIMESTAMP AS OF '" + at + "' e",
			"AT (TIMESTAMP => CAST('" + at + "' AS TIMESTAMPTZ))", "AT (TIMESTAMP => TIMESTAMPTZ '" + at + "' + INTERVAL 1 DAY - INTERVAL 24 HOURS)", "AT (VERSION => 3 - 2)",
		} {
			if got := count(t, c, "SELECT count(*) FROM unified_events "+sql); got != v.Rows[0].N {
				t.Errorf("%s: %d rows, want %d", sql, got, v.Rows[0].N)
			}
		}
		diff := count(t, c, "SELECT (SELECT count(*) FROM unified_events) - (SELECT count(*) FROM unified_events AT (VERSION => 1))")
		if diff != int64(want)-v.Rows[0].N {
			t.Errorf("difference of versions: %d", diff)
		}
		if _, err := c.Exec(ctx, "SELECT * FROM unified_events VERSION AS OF 999"); code(err) != "22023" {
			t.Errorf("a version that is not: %v", err)
		}
		if got := count(t, c, "SELECT count(*) FROM unified_events AT (TIMESTAMP => now())"); got != int64(want) {
			t.Errorf("%d rows now, want %d", got, want)
		}
		// A date is its midnight, when there was no table yet.
		if _, err := c.Exec(ctx, "SELECT * FROM unified_events AT (TIMESTAMP => CAST('"+at+"' AS DATE))"); code(err) != "22023" {
			t.Errorf("before the table: %v", err)
		}
		for _, sql := range []string{"AT (TIMESTAMP => CAST('noon' AS TIMESTAMP))", "AT (TIMESTAMP => NULL)", "AT (VERSION => (SELECT 1))", "AT (VERSION => e.n)", "AT (VERSION => random())"} {
			if _, err := c.Exec(ctx, "SELECT * FROM unified_events "+sql); code(err)[:2] != "42" && code(err)[:2] != "22" && code(err) != "0A000" {
				t.Errorf("%s: %v", sql, err)
			} else {
				t.Log(sql, err)
			}
		}
	})
	t.Run("what the log tells", func(t *testing.T) {
		rows := func(sql string) []map[string]any {
			t.Helper()
			r, err := c.Query(ctx, sql)
			if err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
			out, err := pgx.CollectRows(r, pgx.RowToMap)
			if err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
			return out
		}
		history := rows("DESCRIBE HISTORY unified_events LIMIT 2")
		newest := count(t, c, `SELECT max(version) FROM lake.versions WHERE "table" = 'unified_events'`)
		if len(history) != 2 || history[0]["version"] != newest || history[1]["version"] != newest-1 || !strings.Contains(fmt.Sprint(history[0]["operationMetrics"]), "numOutputRows") {
			t.Errorf("history of %d versions: %v", newest, history)
		}
		if d := rows("DESCRIBE DETAIL unified_events"); len(d) != 1 || d[0]["format"] != "delta" || fmt.Sprint(d[0]["partitionColumns"]) != "[event_date]" || d[0]["minReaderVersion"] != int32(3) {
			t.Errorf("detail: %v", d)
		}
		if d := rows("desc unified_events"); len(d) < 5 || d[0]["col_name"] != "event_id" || d[0]["data_type"] != "string" {
			t.Errorf("columns: %v", d)
		}
		if p := rows("SHOW TBLPROPERTIES unified_events ('delta.minReaderVersion')"); len(p) != 1 || p[0]["value"] != "3" {
			t.Errorf("properties: %v", p)
		}
		days := count(t, c, "SELECT count(DISTINCT event_date) FROM unified_events")
		if p := rows("SHOW PARTITIONS unified_events"); int64(len(p)) != days {
			t.Errorf("%d partitions of %d days", len(p), days)
		}
		for sql, want := range map[string]string{
			"DESCRIBE HISTORY nosuch": "42P01", "DESCRIBE DETAIL '/etc/passwd'": "42P01", "DESCRIBE DETAIL": "42P01", "DESCRIBE HISTORY unified_events LIMIT 0": "42601",
			"SHOW PARTITIONS quarantine x": "42601",
		} {
			if _, err := c.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); code(err) != want {
				t.Errorf("%s: %v, want %s", sql, err, want)
			}
		}
	})
	t.Run("the lake's views", func(t *testing.T) {
		if got := count(t, c, `SELECT sum(rows)::bigint FROM lake.files WHERE "table" = 'unified_events'`); got != int64(want) {
			t.Errorf("lake.files counts %d rows, want %d", got, want)
		}
		if got := count(t, c, `SELECT sum(rows)::bigint FROM lake.partitions WHERE "table" = 'unified_events'`); got != int64(want) {
			t.Errorf("lake.partitions counts %d rows, want %d", got, want)
		}
		if got := count(t, c, "SELECT count(*) FROM lake.quarantine"); got == 0 {
			t.Error("lake.quarantine is empty")
		}
		for _, v := range []string{"runs", "gaps", "versions"} {
			count(t, c, "SELECT count(*) FROM lake."+v)
		}
	})
	t.Run("change feed", func(t *testing.T) {
		if _, err := c.Exec(ctx, "SELECT * FROM table_changes('unified_events', 1)"); code(err) != "22023" || !strings.Contains(err.Error(), "change data") {
			t.Errorf("a table without a feed: %v", err)
		}
	})
	t.Run("codes", func(t *testing.T) {
		for _, c := range []struct{ sql, code string }{
			{"SELEC 1", "42601"}, {"SELECT * FROM nosuch", "42P01"}, {"SELECT nosuch FROM unified_events", "42703"}, {"SELECT nosuch(1)", "42883"},
			{"SELECT 'x'::int", "22P02"}, {"INSERT INTO unified_events VALUES (1)", "25006"}, {"DELETE FROM unified_events", "25006"}, {"FETCH 1 FROM nosuch", "34000"},
			{"DECLARE c CURSOR FOR SELECT 1", "25P01"}, {"SET nosuch = 1", "42704"}, {"SET TimeZone = 'Nowhere'", "22023"}, {"SHOW nosuch", "42704"},
			{"SELECT * FROM read_text('/etc/passwd')", "42501"}, {"SELECT * FROM json_array_elements('[1,2]')", "42883"}, {"SELECT 1e400::float8", "22003"}, {"SELECT 5 BETWEEN SYMMETRIC 10 AND 1", "0A000"},
			{"PIVOT unified_events ON symbol USING count(*)", "0A000"}, {"EXPLAIN (FORMAT json) SELECT 1", "0A000"},
			{"COPY (SELECT 1) TO STDOUT (FORMAT csv, ENCODING 'latin1')", "0A000"}, {"COPY (SELECT 1) TO STDOUT (FORMAT 'xml')", "22023"},
			{"COPY (SELECT 'a\\nb', NULL) TO STDOUT (DELIMITER 'n')", "22023"}, {"COPY (SELECT 1, 2) TO STDOUT (DELIMITER E'\\n')", "22023"}, {"COPY (SELECT NULL, 1) TO STDOUT (NULL E'a\\tb')", "22023"},
			{"COPY (SELECT 1) TO STDOUT CSV DELIMITER ';' QUOTE ';'", "22023"}, {"COPY (SELECT 1) TO STDOUT CSV NULL '\"'", "22023"},
			{"EXECUTE nosuch", "25006"}, {"ROLLBACK TO SAVEPOINT x", "25P01"},
		} {
			fresh := s.connect("default_query_exec_mode=simple_protocol")
			if _, err := fresh.Exec(ctx, c.sql); code(err) != c.code {
				t.Errorf("%s: %v, want %s", c.sql, err, c.code)
			}
		}
	})
	t.Run("transactions", func(t *testing.T) { transactions(t, s) })
	t.Run("cursors", func(t *testing.T) {
		tx, err := c.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(ctx) }()
		if _, err := tx.Exec(ctx, "DECLARE x CURSOR FOR SELECT event_id FROM unified_events ORDER BY 1"); err != nil {
			t.Fatal(err)
		}
		seen := 0
		for {
			rows, err := tx.Query(ctx, "FETCH 100 FROM x")
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for rows.Next() {
				n++
			}
			if rows.Err() != nil {
				t.Fatal(rows.Err())
			}
			if seen += n; n == 0 {
				break
			}
		}
		if seen != want {
			t.Errorf("a cursor gave %d rows, want %d", seen, want)
		}
	})
	t.Run("temporary tables", func(t *testing.T) {
		tmp := s.connect("default_query_exec_mode=simple_protocol")
		for _, sql := range []string{
			"CREATE LOCAL TEMPORARY TABLE probe (a INTEGER, b VARCHAR(20) NOT NULL) ON COMMIT PRESERVE ROWS",
			"INSERT INTO probe (a, b) VALUES (1, 'x'), (2, 'y')",
			"CREATE TEMP TABLE days AS SELECT event_date, count(*) AS n FROM unified_events GROUP BY 1",
		} {
			if _, err := tmp.Exec(ctx, sql); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
		}
		if n := count(t, tmp, "SELECT sum(n)::bigint FROM days"); n != int64(want) {
			t.Errorf("a temporary table of %d rows, want %d", n, want)
		}
		if n := count(t, tmp, "SELECT count(*) FROM probe, unified_events"); n != 2*int64(want) {
			t.Errorf("a join of a temporary table and the lake's: %d", n)
		}
		if _, err := s.connect().Exec(ctx, "SELECT * FROM probe"); code(err) != "42P01" {
			t.Errorf("another session sees the table: %v", err)
		}
		if _, err := tmp.Exec(ctx, "DROP TABLE probe"); err != nil {
			t.Error(err)
		}
	})
	t.Run("names of temporary tables", func(t *testing.T) {
		tmp := s.connect("default_query_exec_mode=simple_protocol")
		do := func(sql string) {
			t.Helper()
			if _, err := tmp.Exec(ctx, sql); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
		}
		is := func(sql, want string) {
			t.Helper()
			if got := one(t, tmp, sql); got != want {
				t.Errorf("%s: %s, want %s", sql, got, want)
			}
		}
		// What Tableau sends when it connects, and reads of it.
		do(`CREATE LOCAL TEMPORARY TABLE "#Tableau_1_Connect" ("COL" INTEGER NOT NULL, "Price" NUMERIC(18, 8)) ON COMMIT PRESERVE ROWS`)
		do(`INSERT INTO "#Tableau_1_Connect" ("COL") VALUES (1)`)
		is(`SELECT "COL" FROM "#Tableau_1_Connect"`, "1")
		is(`SELECT "X"."COL" FROM "pg_temp"."#Tableau_1_Connect" "X" JOIN unified_events ON true LIMIT 1`, "1")
		is(`WITH "#Tableau_1_Connect" AS (SELECT 2 AS "COL") SELECT "#Tableau_1_Connect"."COL" * t."COL" FROM pg_temp."#Tableau_1_Connect" t, "#Tableau_1_Connect"`, "2")
		do(`SELECT symbol, count(*) AS N INTO TEMPORARY TABLE Counted FROM unified_events GROUP BY 1`)
		is("SELECT sum(n)::bigint FROM pg_temp.COUNTED", fmt.Sprint(want))
		do("CREATE TABLE pg_temp.named (A, \"B\") ON COMMIT PRESERVE ROWS AS SELECT 1, 2")
		is(`SELECT a + "B" FROM named`, "3")
		is("SELECT string_agg(relname, ',' ORDER BY relname) FROM pg_class WHERE relpersistence = 't' AND pg_table_is_visible(oid) AND relnamespace = pg_my_temp_schema()", "#Tableau_1_Connect,counted,named")
		is("SELECT count(*) FROM pg_tables WHERE schemaname LIKE 'pg\\_temp\\_%'", "3")
		is("SELECT table_type FROM information_schema.tables WHERE table_name = 'counted'", "LOCAL TEMPORARY")
		is(`SELECT string_agg(column_name || ' ' || data_type || ' ' || is_nullable, ',' ORDER BY ordinal_position) FROM information_schema.columns WHERE table_name = '#Tableau_1_Connect'`, "COL integer NO,Price numeric YES")
		is(`SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = '"#Tableau_1_Connect"'::regclass AND attname = 'Price'`, "numeric(18,8)")
		do("CREATE TEMP TABLE unified_events AS SELECT 7 AS n") // stands before the lake's
		is("SELECT n FROM unified_events", "7")
		is("SELECT count(*) FROM public.unified_events", fmt.Sprint(want))
		is("SELECT relpersistence::text FROM pg_class WHERE oid = 'unified_events'::regclass", "t")
		do("DROP TABLE pg_temp.unified_events")
		is("SELECT count(*) FROM unified_events", fmt.Sprint(want))
		if got := count(t, s.connect(), "SELECT count(*) FROM pg_class WHERE relpersistence = 't'"); got != 0 {
			t.Errorf("another session sees %d temporary tables in the catalogue", got)
		}
		for sql, want := range map[string]string{
			"SELECT 1 INTO t": "25006", "SELECT 1 INTO public.t": "25006", "CREATE TEMP TABLE public.t (a int)": "42P16", "CREATE TEMP TABLE counted (a int)": "42P07", `CREATE TEMP TABLE "Counted" (a int)`: "42P07",
			"CREATE TABLE t (a int)": "25006", "SELECT * FROM counted VERSION AS OF 1": "0A000", "SELECT * FROM pg_temp.unified_events": "42P01", "DROP TABLE pg_temp.nosuch": "42P01",
			"CREATE TEMP TABLE t (a int) ON COMMIT": "42601", "CREATE TEMP TABLE t (a, (SELECT 1)) AS SELECT 1": "42601",
		} {
			if _, err := tmp.Exec(ctx, sql); code(err) != want {
				t.Errorf("%s: %v, want %s", sql, err, want)
			}
		}
	})
	t.Run("transactions of temporary tables", func(t *testing.T) {
		tmp := s.connect("default_query_exec_mode=simple_protocol")
		for _, step := range []struct{ do, ask, want string }{
			{"BEGIN; CREATE TEMP TABLE y AS SELECT 1 AS a; ROLLBACK", "SELECT count(*) FROM y", "42P01"},
			{"BEGIN; CREATE TEMP TABLE y AS SELECT 1 AS a; COMMIT", "SELECT sum(a)::text FROM y", "1"},
			{"BEGIN; INSERT INTO y VALUES (2); INSERT INTO y VALUES (3)", "SELECT sum(a)::text FROM y", "6"},
			{"ROLLBACK", "SELECT sum(a)::text FROM y", "1"},
			{"BEGIN; INSERT INTO y VALUES (2); SAVEPOINT s; INSERT INTO y VALUES (3); DROP TABLE y; CREATE TEMP TABLE y AS SELECT 10 AS a; INSERT INTO y VALUES (11)", "SELECT sum(a)::text FROM y", "21"},
			{"ROLLBACK TO s", "SELECT sum(a)::text FROM y", "3"},
			{"INSERT INTO y VALUES (4); RELEASE s; COMMIT", "SELECT sum(a)::text FROM y", "7"},
			{"BEGIN; DROP TABLE y; ROLLBACK", "SELECT sum(a)::text FROM y", "7"},
			{"BEGIN; DROP TABLE y; CREATE TEMP TABLE y AS SELECT 5 AS a; COMMIT", "SELECT sum(a)::text FROM y", "5"},
			{"INSERT INTO y VALUES (6); SELECT nosuch", "SELECT sum(a)::text FROM y", "5"}, // several statements are one transaction
			{"INSERT INTO y VALUES (6); ROLLBACK", "SELECT sum(a)::text FROM y", "5"},
			{"INSERT INTO y VALUES (6); ROLLBACK; BEGIN; COMMIT; INSERT INTO y VALUES (7); SELECT nosuch", "SELECT sum(a)::text FROM y", "5"}, // and so are those behind its end
			{"BEGIN; SAVEPOINT s; INSERT INTO y VALUES (8); DISCARD TEMP", "SELECT count(*) FROM y", "42P01"},
			{"ROLLBACK TO s; INSERT INTO y VALUES (9); ROLLBACK TO s", "SELECT sum(a)::text FROM y", "5"},
			{"COMMIT", "SELECT sum(a)::text FROM y", "5"},
			{"BEGIN; INSERT INTO y VALUES (7); SELECT nosuch", "", ""},
			{"COMMIT", "SELECT sum(a)::text FROM y", "5"}, // of a transaction that failed
			{"BEGIN; CREATE TEMP TABLE d ON COMMIT DROP AS SELECT 1 AS a", "SELECT sum(a)::text FROM d", "1"},
			{"COMMIT", "SELECT count(*) FROM d", "42P01"},
			{"CREATE TEMP TABLE d (a int) ON COMMIT DROP", "SELECT count(*) FROM d", "42P01"},
			{"CREATE TEMP TABLE r (a int) ON COMMIT DELETE ROWS; INSERT INTO r VALUES (1)", "SELECT count(*)::text FROM r", "0"},
			{"BEGIN; INSERT INTO r VALUES (1)", "SELECT count(*)::text FROM r", "1"},
			{"COMMIT", "SELECT count(*)::text FROM r", "0"},
			{"DISCARD TEMP", "SELECT count(*) FROM r", "42P01"},
		} {
			_, err := tmp.Exec(ctx, step.do)
			if err != nil && !strings.Contains(step.do, "nosuch") {
				t.Fatalf("%s: %v", step.do, err)
			}
			if step.ask == "" {
				continue
			}
			var got string
			if err := tmp.QueryRow(ctx, step.ask).Scan(&got); err != nil {
				got = code(err)
			}
			if got != step.want {
				t.Errorf("after %s: %s: %s, want %s", step.do, step.ask, got, step.want)
			}
		}
	})
	t.Run("prepared statements and tables that change", func(t *testing.T) {
		tmp := s.connect() // it keeps statements with the columns that it was told
		ask := func(sql string, args ...any) (string, error) {
			rows, err := tmp.Query(ctx, sql, args...)
			if err != nil {
				return "", err
			}
			values, err := pgx.CollectOneRow(rows, pgx.RowToMap)
			return fmt.Sprint(values), err
		}
		for _, c := range []struct{ sql, want string }{{"SELECT 'x' AS a", "map[a:x]"}, {"SELECT 'y' AS b", "map[a:y]"}, {"SELECT 1 AS b", "0A000"}} {
			tx, err := tmp.Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(ctx, "DECLARE c CURSOR FOR "+c.sql); err != nil {
				t.Fatal(err)
			}
			got, err := ask("FETCH 1 FROM c")
			if err != nil {
				got = code(err)
			}
			if got != c.want {
				t.Errorf("a cursor over %s: %s, want %s", c.sql, got, c.want)
			}
			if err := tx.Rollback(ctx); err != nil {
				t.Fatal(err)
			}
		}
		queries := map[string][]any{"SELECT * FROM y": nil, "SELECT * FROM y WHERE a = $1": {"a"}, "SELECT a FROM y": nil, "SELECT $1::int AS n, a FROM y": {nil}}
		for i, columns := range []string{"'a' AS a, 'b' AS b", "'b' AS b, 'a' AS a", "'a' AS a", "'a' AS a, 1 AS b", "'a' AS a, 1::bigint AS b"} {
			for _, do := range []string{"DROP TABLE IF EXISTS y", "CREATE TEMP TABLE y AS SELECT " + columns} {
				if _, err := tmp.Exec(ctx, do); err != nil {
					t.Fatalf("%s: %v", do, err)
				}
			}
			for sql, args := range queries {
				got, err := ask(sql, args...)
				if changed := i > 0 && strings.Contains(sql, "*"); changed != (code(err) == "0A000") {
					t.Errorf("%s: %s: %s, %v", columns, sql, got, err)
				}
				want, err := ask(sql, append([]any{pgx.QueryExecModeDescribeExec}, args...)...)
				if err != nil {
					t.Fatalf("%s: %s: %v", columns, sql, err)
				}
				if got, err = ask(sql, args...); err != nil || got != want { // it has been prepared again
					t.Errorf("%s: %s: %s, %v; want %s", columns, sql, got, err, want)
				}
			}
		}
	})
	t.Run("batches into temporary tables", func(t *testing.T) {
		tmp := s.connect()
		if _, err := tmp.Exec(ctx, "CREATE TEMP TABLE y (a int)"); err != nil {
			t.Fatal(err)
		}
		for _, step := range []struct {
			statements []string
			fails      bool
			want       int64
		}{
			{[]string{"INSERT INTO y VALUES (1)", "INSERT INTO y VALUES (2)"}, false, 2},
			{[]string{"INSERT INTO y VALUES (3)", "INSERT INTO y VALUES ('x')"}, true, 2}, // what is sent together is one transaction
			{[]string{"INSERT INTO y VALUES (3)", "COMMIT", "INSERT INTO y VALUES ('x')"}, true, 3},
			{[]string{"BEGIN", "INSERT INTO y VALUES (4)"}, false, 4},
			{[]string{"ROLLBACK", "INSERT INTO y VALUES (5)"}, false, 4},
		} {
			b := &pgx.Batch{}
			for _, sql := range step.statements {
				b.Queue(sql)
			}
			if err := tmp.SendBatch(ctx, b).Close(); (err != nil) != step.fails {
				t.Errorf("%v: %v", step.statements, err)
			}
			if got := count(t, tmp, "SELECT count(*) FROM y"); got != step.want {
				t.Errorf("%v: %d rows, want %d", step.statements, got, step.want)
			}
		}
	})
	t.Run("cursors beside other statements", func(t *testing.T) {
		const rows = 1_000_000
		tmp := s.connect("default_query_exec_mode=simple_protocol")
		for _, sql := range []string{fmt.Sprintf("CREATE TEMP TABLE numbers AS SELECT i::int AS i, repeat('x', 100) AS x FROM range(%d) t(i)", rows), "BEGIN", "DECLARE c CURSOR FOR SELECT i, x FROM numbers ORDER BY i"} {
			if _, err := tmp.Exec(ctx, sql); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
		}
		next := 0
		fetch := func(n string) {
			t.Helper()
			got, err := tmp.Query(ctx, "FETCH "+n+" FROM c")
			if err != nil {
				t.Fatal(err)
			}
			defer got.Close()
			for got.Next() {
				var i int
				if err := got.Scan(&i, nil); err != nil || i != next {
					t.Fatalf("the cursor gives %d, %v; want %d", i, err, next)
				}
				next++
			}
			if err := got.Err(); err != nil {
				t.Fatal(err)
			}
		}
		fetch("10")
		if got := one(t, tmp, "SELECT 'another'"); got != "another" {
			t.Errorf("a statement beside the cursor gives %s", got)
		}
		fetch("10")
		if got := count(t, tmp, "SELECT count(*) FROM numbers"); got != rows {
			t.Errorf("the table beside the cursor has %d rows", got)
		}
		fetch("ALL")
		if next != rows {
			t.Errorf("the cursor gave %d rows, want %d", next, rows)
		}
	})
	t.Run("cancel and time-out", func(t *testing.T) {
		endless := "SELECT count(*) FROM range(10000000000) a, range(10000000000) b"
		short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
		own := s.connect("default_query_exec_mode=simple_protocol")
		pid := own.PgConn()
		go func() {
			<-short.Done()
			_ = pid.CancelRequest(ctx)
		}()
		if _, err := own.Exec(ctx, endless); code(err) != "57014" {
			t.Errorf("a cancelled statement: %v", err)
		}
		if _, err := own.Exec(ctx, "SET statement_timeout = '200ms'"); err != nil {
			t.Error(err)
		}
		if _, err := own.Exec(ctx, endless); code(err) != "57014" || !strings.Contains(err.Error(), "timeout") {
			t.Errorf("a statement beyond its time: %v", err)
		}
		if got := one(t, own, "SELECT 1"); got != "1" {
			t.Errorf("afterwards: %s", got)
		}
	})
	t.Run("stop", func(t *testing.T) {
		s.proc.Signal(syscall.SIGTERM)
		if code := s.proc.Wait(30 * time.Second); code != 0 {
			t.Errorf("exit code %d after SIGTERM: %s", code, s.proc.Stderr.String())
		}
		left, err := filepath.Glob(l.Path(".cauce/tmp/sql/*"))
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %v %v", left, err)
		}
	})
}

// TestLongStatementsMakeRoom: statements that do not end hold up nobody, and the processors are the others' first; where there are so
// many that it is of no use, who waited is told for what.
func TestLongStatementsMakeRoom(t *testing.T) {
	l := newLake(t, "serve: {workers: 1}\n")
	s := serveLake(t, l)
	want := int64(len(l.Rows()))
	ctx, cancel := context.WithCancel(t.Context())
	var endless sync.WaitGroup
	defer endless.Wait()
	defer cancel()
	begin := func() {
		c := s.connect("default_query_exec_mode=simple_protocol")
		endless.Go(func() {
			_, _ = c.Exec(ctx, "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT max(n) FROM r")
		})
	}
	other := s.connect("default_query_exec_mode=simple_protocol")
	if _, err := other.Exec(ctx, "SET statement_timeout = '1min'"); err != nil {
		t.Fatal(err)
	}
	own, err := unix.Getpriority(unix.PRIO_PROCESS, 0) // the system call gives 20 less the niceness
	if err != nil {
		t.Fatal(err)
	}
	if own < 6 {
		t.Fatalf("the tests run at a niceness of %d: nobody can give way to them", 20-own)
	}
	// behind is how many workers give way to others.
	behind := func() (n int) {
		for _, r := range family.Descendants(s.proc.Pid()) {
			if p, err := unix.Getpriority(unix.PRIO_PROCESS, r.Pid); err == nil && p == own-5 {
				n++
			}
		}
		return n
	}
	soon := func(n int) {
		t.Helper()
		for until := time.Now().Add(time.Minute); behind() != n; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(until) {
				t.Fatalf("%d workers give way, want %d", behind(), n)
			}
		}
	}
	for n := range 4 {
		begin()
		soon(n + 1)
		for range 3 {
			if n := count(t, other, "SELECT count(*) FROM unified_events"); n != want {
				t.Errorf("%d rows beside statements that do not end, want %d", n, want)
			}
		}
	}
	begin()
	if _, err := other.Exec(ctx, "SET statement_timeout = '2s'"); err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		_, err := other.Exec(ctx, "SELECT count(*) FROM unified_events")
		if err == nil && time.Now().Before(until) { // the last one has not begun yet
			continue
		}
		var e *pgconn.PgError
		if !errors.As(err, &e) || e.Code != "57014" || !strings.Contains(e.Message, "5 statements run, the longest for") || !strings.Contains(e.Hint, "serve.workers") {
			t.Errorf("who waits for five statements that do not end: %v", err)
		}
		break
	}
	// Who looks what they do waits for nobody, and ends them.
	if _, err := other.Exec(ctx, "RESET statement_timeout"); err != nil { // a worker may have to be started
		t.Fatal(err)
	}
	if n := count(t, other, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'WITH RECURSIVE%' AND state = 'active'"); n != 5 {
		t.Errorf("%d statements that do not end are shown", n)
	}
	for range 5 {
		pid := one(t, other, "SELECT min(pid) FROM pg_stat_activity WHERE query LIKE 'WITH RECURSIVE%' AND state = 'active'")
		if got := one(t, other, "SELECT pg_terminate_backend("+pid+")"); got != "true" {
			t.Fatalf("session %s is ended: %s", pid, got)
		}
		for until := time.Now().Add(time.Minute); count(t, other, "SELECT count(*) FROM pg_stat_activity WHERE pid = "+pid) > 0 && time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		}
	}
	endless.Wait()
	soon(0)
	if _, err := other.Exec(t.Context(), "SET statement_timeout = 0"); err != nil {
		t.Fatal(err)
	}
	if n := count(t, other, "SELECT count(*) FROM unified_events"); n != want {
		t.Errorf("%d rows afterwards, want %d", n, want)
	}
}

// transactions: a transaction reads one version of the table, the next one the commits that came in between.
func transactions(t *testing.T, s *server) {
	ctx := context.Background()
	c := s.connect("default_query_exec_mode=simple_protocol")
	before := count(t, c, "SELECT count(*) FROM unified_events")
	tx, err := c.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	inside := func() (n int64) {
		if err := tx.QueryRow(ctx, "SELECT count(*) FROM unified_events").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := inside(); n != before {
		t.Errorf("%d rows at the beginning, %d before", n, before)
	}
	s.lake.Run("query", "--write", "DELETE FROM unified_events WHERE symbol = 'XRPUSDT'")
	if n := inside(); n != before {
		t.Errorf("a commit is seen inside a transaction: %d rows, %d before", n, before)
	}
	if n := count(t, s.connect(), "SELECT count(*) FROM unified_events WHERE symbol = 'XRPUSDT'"); n != 0 {
		t.Errorf("another session still sees %d rows", n)
	}
	if _, err := tx.Exec(ctx, "SELECT nosuch"); err == nil {
		t.Error("no error")
	}
	if _, err := tx.Exec(ctx, "SELECT 1"); code(err) != "25P02" {
		t.Errorf("after an error: %v", err)
	}
	if err := tx.Rollback(ctx); err != nil {
		t.Error(err)
	}
	if n := count(t, c, "SELECT count(*) FROM unified_events"); n >= before {
		t.Errorf("the next transaction does not see the commit: %d rows", n)
	}
	s.lake.Run("table", "restore", "data/processed/unified-events", "--version", "2")
	if n := count(t, c, "SELECT count(*) FROM unified_events"); n != before {
		t.Errorf("%d rows after the restore, want %d", n, before)
	}
}

// Roles see what the lake file gives them, with a password, and over TLS where there is a certificate.
func TestRolesSeeTheirTables(t *testing.T) {
	ctx := context.Background()
	l := newLake(t, `roles:
  all: {password: "${env:ALL_PASSWORD}"}
  some: {password: "${env:SOME_PASSWORD}", tables: {unified_events: [event_id, symbol, event_date]}}
serve: {tls: {cert: server.crt, key: server.key}, workers: 1}
`, "ALL_PASSWORD=correct horse", "SOME_PASSWORD=battery-staple")
	cert(t, l.Dir)
	s := serveLake(t, l)
	open := func(user, password, options string) (*pgx.Conn, error) {
		cfg, err := pgx.ParseConfig(s.url("x", "") + options)
		if err != nil {
			t.Fatal(err)
		}
		cfg.User, cfg.Password = user, password
		c, err := pgx.ConnectConfig(ctx, cfg)
		if err == nil {
			t.Cleanup(func() { _ = c.Close(ctx) })
		}
		return c, err
	}
	for _, c := range []struct{ user, password, code string }{
		{"all", "wrong", "28P01"}, {"all", "", "28P01"}, {"nobody", "correct horse", "28P01"}, {"reader", "x", "28P01"},
	} {
		if _, err := open(c.user, c.password, "?sslmode=disable"); err == nil || c.password != "" && code(err) != c.code {
			t.Errorf("%s with password %q: %v", c.user, c.password, err)
		}
	}
	all, err := open("all", "correct horse", "?sslmode=require")
	if err != nil {
		t.Fatal(err)
	}
	if n := count(t, all, "SELECT count(DISTINCT price) FROM unified_events"); n == 0 {
		t.Error("no prices")
	}
	some, err := open("some", "battery-staple", "?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	for sql, want := range map[string]string{
		"SELECT price FROM unified_events": "42703", "SELECT * FROM quarantine": "42501", "SELECT * FROM lake.quarantine": "42501", "SELECT * FROM lake.runs": "42501",
		"SELECT count(unified_events.price) FROM unified_events": "42703", "SELECT symbol FROM unified_events": "", "SELECT * FROM unified_events AT (VERSION => 1)": "",
		"DESCRIBE unified_events": "", "DESCRIBE EXTENDED unified_events": "42501", "DESCRIBE HISTORY unified_events": "42501", "DESCRIBE DETAIL unified_events": "42501",
		"SHOW PARTITIONS unified_events": "42501", "SHOW TBLPROPERTIES unified_events": "42501", "DESCRIBE DETAIL quarantine": "42P01",
		"SELECT price FROM unified_events AT (VERSION => 1)": "42703", "SELECT symbol FROM unified_events WHERE price > 0": "42703",
	} {
		if _, err := some.Exec(ctx, sql); err == nil && want != "" || err != nil && code(err) != want {
			t.Errorf("%s: %v, want %q", sql, err, want)
		}
	}
	rows, err := some.Query(ctx, "SELECT * FROM unified_events LIMIT 1")
	if err != nil {
		t.Fatal(err)
	}
	rows.Close()
	if n := len(rows.FieldDescriptions()); n != 3 {
		t.Errorf("the role sees %d columns, want 3", n)
	}
	if described := texts(t, some, "DESCRIBE unified_events"); strings.Contains(described, "price") || !strings.Contains(described, "symbol") {
		t.Errorf("the role's columns: %s", described)
	}
	if got := texts(t, some, "SELECT has_column_privilege('unified_events', c, 'select') FROM (VALUES ('price'), ('symbol')) v(c) ORDER BY c"); got != "false true" {
		t.Errorf("privileges on price and symbol: %s", got)
	}
}

// texts gives the first column of a statement's rows.
func texts(t testing.TB, c *pgx.Conn, sql string) string {
	t.Helper()
	r, err := c.Query(context.Background(), sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	var out []string
	for r.Next() {
		v, err := r.Values()
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		out = append(out, fmt.Sprint(v[0]))
	}
	if r.Err() != nil {
		t.Fatalf("%s: %v", sql, r.Err())
	}
	return strings.Join(out, " ")
}

// cert writes a self-signed certificate.
func cert(t testing.TB, dir string) {
	t.Helper()
	key, crt := selfSigned(t)
	for name, text := range map[string][]byte{"server.key": key, "server.crt": crt} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSessionsSeeEachOther: who administers the server finds what others run, and ends it.
func TestSessionsSeeEachOther(t *testing.T) {
	ctx := t.Context()
	l := newLake(t, `roles:
  all: {password: "one"}
  other: {password: "two"}
serve: {workers: 2}
`)
	s := serveLake(t, l)
	open := func(user, password, name string) *pgx.Conn {
		t.Helper()
		cfg, err := pgx.ParseConfig(s.url("x", "") + "?sslmode=disable&application_name=" + name)
		if err != nil {
			t.Fatal(err)
		}
		cfg.User, cfg.Password = user, password
		c, err := pgx.ConnectConfig(ctx, cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close(context.Background()) })
		return c
	}
	look, busy, stranger := open("all", "one", "look"), open("all", "one", "busy"), open("other", "two", "stranger")
	open("other", "two", "bad%ff") // is shown nevertheless
	const endless = "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT max(n) FROM r"
	state := func(name, want string) {
		t.Helper()
		got := ""
		for until := time.Now().Add(time.Minute); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
			if got = one(t, look, "SELECT coalesce(min(state), 'none') FROM pg_stat_activity WHERE application_name = $1", name); got == want {
				return
			}
		}
		t.Fatalf("session %s is %s, want %s", name, got, want)
	}
	ended := make(chan error, 1)
	run := func() { _, err := busy.Exec(ctx, endless); ended <- err }
	go run()
	state("busy", "active")
	row := func(c *pgx.Conn) string {
		return one(t, c, `SELECT concat_ws('|', datname, usename, query, client_addr, client_port > 0, xact_start <= now(), query_start >= backend_start, backend_type, wait_event)
			FROM pg_catalog.pg_stat_activity WHERE application_name = 'busy'`)
	}
	if got, want := row(look), "lake|all|"+endless+"|127.0.0.1|true|true|true|client backend"; got != want {
		t.Errorf("its row is %s, want %s", got, want)
	}
	if got, want := row(stranger), "lake|all|<insufficient privilege>"; got != want {
		t.Errorf("another role sees %s, want %s", got, want)
	}
	if n := count(t, look, "SELECT count(*) FROM pg_stat_activity a JOIN pg_database d ON d.oid = a.datid JOIN pg_roles r ON r.oid = a.usesysid WHERE a.pid = pg_backend_pid() AND a.state = 'active'"); n != 1 {
		t.Errorf("%d rows of the session itself", n)
	}
	pid := count(t, look, "SELECT pid FROM pg_stat_activity WHERE application_name = 'busy'")
	if _, err := stranger.Exec(ctx, "SELECT pg_cancel_backend($1)", pid); code(err) != "42501" {
		t.Errorf("another role cancels: %v", err)
	}
	// What is no statement of its own ends nobody, however it is asked.
	for _, sql := range []string{
		"SELECT pg_cancel_backend(pid) FROM pg_stat_activity", "EXPLAIN SELECT pg_terminate_backend(%d)", "SELECT pg_terminate_backend(%d) WHERE false",
		"SELECT CASE WHEN false THEN pg_cancel_backend(%d) END", "SELECT pg_cancel_backend(%d), 1", "SELECT * FROM (SELECT pg_terminate_backend(%d)) LIMIT 0",
	} {
		if strings.Contains(sql, "%d") {
			sql = fmt.Sprintf(sql, pid)
		}
		if _, err := look.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); code(err) != "0A000" {
			t.Errorf("%s: %v", sql, err)
		}
	}
	if _, err := look.Prepare(ctx, "end", "SELECT pg_catalog.pg_terminate_backend($1::int) AS ended"); err != nil {
		t.Error(err)
	}
	for sql, want := range map[string]string{"SELECT pg_cancel_backend(-1)": "false", "SELECT pg_cancel_backend('0') AS x": "false", "SELECT pg_cancel_backend($1)": "<nil>"} {
		var args []any
		if want == "<nil>" {
			args = []any{nil}
		}
		if got := one(t, look, sql, args...); got != want {
			t.Errorf("%s: %s, want %s", sql, got, want)
		}
	}
	for _, sql := range []string{"SELECT pg_cancel_backend('')", "SELECT pg_cancel_backend('x')"} {
		if _, err := look.Exec(ctx, sql); code(err) != "22P02" {
			t.Errorf("%s: %v", sql, err)
		}
	}
	if got := one(t, look, "SELECT 1"); got != "1" {
		t.Error(got)
	}
	state("busy", "active")
	if got := one(t, look, "SELECT pg_cancel_backend($1)", pid); got != "true" {
		t.Errorf("cancelled: %s", got)
	}
	if err := <-ended; code(err) != "57014" {
		t.Errorf("the cancelled statement: %v", err)
	}
	state("busy", "idle")
	if _, err := busy.Exec(ctx, "BEGIN"); err != nil {
		t.Fatal(err)
	}
	state("busy", "idle in transaction")
	if _, err := busy.Exec(ctx, "SELECT no_such_column FROM unified_events"); err == nil {
		t.Error("no error")
	}
	state("busy", "idle in transaction (aborted)")
	if _, err := busy.Exec(ctx, "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	state("busy", "idle")
	go run()
	state("busy", "active")
	if got := one(t, look, "end", pid); got != "true" {
		t.Errorf("terminated: %s", got)
	}
	if err := <-ended; code(err) != "57P01" {
		t.Errorf("the terminated statement: %v", err)
	}
	state("busy", "none")
	if err := busy.Ping(ctx); err == nil {
		t.Error("the connection lives on")
	}
	if _, err := stranger.Exec(ctx, "SELECT pg_terminate_backend(pg_backend_pid())"); err != nil && code(err) != "57P01" { // it may have its answer by then
		t.Errorf("a session ends itself: %v", err)
	}
	state("stranger", "none")
	// Who does not read ends, too.
	slow := open("all", "one", "slow")
	rows, err := slow.Query(ctx, "SELECT repeat('x', 1000) FROM range(1000000)", pgx.QueryExecModeSimpleProtocol)
	if err != nil || !rows.Next() {
		t.Fatal(err)
	}
	if got := one(t, look, "end", count(t, look, "SELECT pid FROM pg_stat_activity WHERE application_name = 'slow'")); got != "true" {
		t.Errorf("terminated: %s", got)
	}
	state("slow", "none")
	rows.Close()
	if n := count(t, look, "SELECT count(*) FROM pg_stat_activity"); n != 2 {
		t.Errorf("%d sessions are left", n)
	}
}

func TestPsql(t *testing.T) {
	psql := prereq.Need(t, "psql")
	l := newLake(t, "serve: {workers: 1}\n")
	s := serveLake(t, l, "--json")
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(psql, append([]string{"-X", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", s.port, "-U", "reader", "lake"}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("psql %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	if got := strings.TrimSpace(run("-At", "-c", "SELECT count(*) FROM unified_events")); got != fmt.Sprint(len(l.Rows())) {
		t.Errorf("psql counts %s rows", got)
	}
	csv := run("-c", `\copy (SELECT symbol, count(*) AS n FROM unified_events GROUP BY 1 ORDER BY 1) TO STDOUT CSV HEADER`)
	if want := l.Run("query", "SELECT symbol, count(*) AS n FROM unified_events GROUP BY 1 ORDER BY 1", "--format", "csv"); csv != want {
		t.Errorf("\\copy gave\n%s\nwant\n%s", csv, want)
	}
	if out := run("-c", `SET TimeZone = 'Europe/Madrid'`, "-c", `SELECT TIMESTAMPTZ '2024-08-20 12:00:00+00'`, "-At"); !strings.Contains(out, "2024-08-20 14:00:00+02") {
		t.Errorf("time zone: %s", out)
	}
	if out := run("-At", "-v", "FETCH_COUNT=100", "-c", "SELECT event_id FROM unified_events"); strings.Count(out, "\n") != len(l.Rows()) {
		t.Errorf("with FETCH_COUNT psql prints %d lines", strings.Count(out, "\n"))
	}
	s.proc.Signal(syscall.SIGTERM)
	if code := s.proc.Wait(30 * time.Second); code != 0 {
		t.Errorf("exit code %d after SIGTERM", code)
	}
	var out struct{ Sessions, Statements int64 }
	if err := json.Unmarshal(s.proc.Stdout.Bytes(), &out); err != nil || out.Sessions < 4 || out.Statements < 5 {
		t.Errorf("--json: %s, %v", s.proc.Stdout.String(), err)
	}
}
