package bi

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cauce-data/cauce/test/lab"
)

// Roles see the views that the lake file gives them, and nothing through them of what the views leave out: not by a
// statement that puts its own tables, columns or conditions in the way, not by plans, statistics, the catalogue, older
// versions, errors or the change feed.
func TestRolesSeeTheirViews(t *testing.T) {
	ctx := context.Background()
	l := newLake(t, `views:
  btc:
    sql: |
      SELECT event_id, price AS paid, event_time, format('{:.1f}', 1.25) AS shown FROM unified_events
      WHERE symbol = 'BTCUSDT' AND symbol IN (SELECT symbol FROM unified_events WHERE symbol LIKE 'BTC%')
    comment: what Bitcoin cost
  by_day: "SELECT event_date, symbol, count(*) AS trades FROM unified_events GROUP BY ALL"
roles:
  all: {password: "${env:PASSWORD}"}
  viewer: {password: "${env:PASSWORD}", views: [btc]}
  both: {password: "${env:PASSWORD}", tables: {unified_events: [event_id]}, views: [by_day]}
serve: {workers: 1}
`, "PASSWORD=correct horse")
	s := serveLake(t, l)
	open := func(user string) *pgx.Conn {
		t.Helper()
		cfg, err := pgx.ParseConfig(s.url("x", "") + "?sslmode=disable")
		if err != nil {
			t.Fatal(err)
		}
		cfg.User, cfg.Password = user, "correct horse"
		c, err := pgx.ConnectConfig(ctx, cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close(ctx) })
		return c
	}
	all, viewer, both := open("all"), open("viewer"), open("both")

	const bitcoin = "SELECT count(*) FROM unified_events WHERE symbol = 'BTCUSDT'"
	want, total := count(t, all, bitcoin), count(t, all, "SELECT count(*) FROM unified_events")
	if want == 0 || want == total {
		t.Fatalf("%d of %d rows are Bitcoin's: nothing would be seen", want, total)
	}
	t.Run("what is seen", func(t *testing.T) {
		if got := count(t, viewer, "SELECT count(*) FROM btc"); got != want {
			t.Errorf("the view has %d rows, want %d", got, want)
		}
		if got := one(t, viewer, "SELECT sum(paid)::text FROM public.btc b WHERE b.event_id LIKE 'BTC%'"); got != one(t, all, "SELECT sum(price)::text FROM unified_events WHERE symbol = 'BTCUSDT'") {
			t.Errorf("the view's prices come to %s", got)
		}
		if got := count(t, both, "SELECT sum(trades)::bigint FROM by_day"); got != total {
			t.Errorf("by_day counts %d rows, want %d", got, total)
		}
		if got := count(t, both, "SELECT count(event_id) FROM unified_events"); got != total {
			t.Errorf("the table beside the view has %d rows, want %d", got, total)
		}
		if got, old := count(t, viewer, "SELECT count(*) FROM btc AT (VERSION => 1)"), count(t, all, strings.Replace(bitcoin, "unified_events", "unified_events AT (VERSION => 1)", 1)); got != old || got >= want {
			t.Errorf("the view at version 1 has %d rows, want %d", got, old)
		}
		if got := one(t, viewer, "SELECT string_agg(table_name, ',' ORDER BY table_name) FROM information_schema.tables WHERE table_schema = 'public'"); got != "btc" {
			t.Errorf("the catalogue shows %s", got)
		}
		if got := one(t, both, "SELECT string_agg(table_name || '.' || column_name, ',' ORDER BY table_name, ordinal_position) FROM information_schema.columns WHERE table_schema = 'public'"); got != "by_day.event_date,by_day.symbol,by_day.trades,unified_events.event_id" {
			t.Errorf("the catalogue shows %s", got)
		}
		if got := one(t, viewer, "SELECT min(shown) || format('%s', max(shown)) FROM btc"); got != "1.21.2" && got != "1.31.3" { // DuckDB's format inside, PostgreSQL's outside
			t.Errorf("format in the view and outside: %s", got)
		}
		if got := one(t, viewer, "SELECT obj_description('btc'::regclass)"); got != "what Bitcoin cost" {
			t.Errorf("the view's comment is %q", got)
		}
		if got := one(t, all, "SELECT CASE WHEN pg_total_relation_size('unified_events') = pg_table_size(c.oid) AND pg_relation_size('public.unified_events', 'main') > 0 THEN 'equal' END FROM pg_class c WHERE c.relname = 'unified_events'"); got != "equal" {
			t.Errorf("sizes by name and by number: %s", got)
		}
		if got := one(t, all, "SELECT pg_get_viewdef('btc'::regclass)"); !strings.Contains(got, "BTCUSDT") {
			t.Errorf("the definition is %s", got)
		}
		if got := one(t, viewer, "SELECT pg_get_viewdef('btc'::regclass)"); strings.Contains(got, "unified_events") {
			t.Errorf("the definition tells a role that sees only the view: %s", got)
		}
		// A transaction sees one version of what its views read.
		tx, err := viewer.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		before := count(t, viewer, "SELECT count(*) FROM btc")
		l.Run("table", "restore", "data/processed/unified-events", "--version", "1")
		if n := count(t, viewer, "SELECT count(*) FROM btc"); n != before {
			t.Errorf("in a transaction the view goes from %d rows to %d", before, n)
		}
		if err := tx.Rollback(ctx); err != nil {
			t.Fatal(err)
		}
		if n := count(t, viewer, "SELECT count(*) FROM btc"); n >= before {
			t.Errorf("the next transaction does not see the commit: %d rows", n)
		}
		l.Run("table", "restore", "data/processed/unified-events", "--version", "2")
	})
	refused := func(c *pgx.Conn, who string, statements map[string]string) {
		t.Helper()
		for sql, want := range statements {
			_, err := c.Exec(ctx, sql)
			if err == nil || code(err) != want {
				t.Errorf("%s: %s: %v, want %s", who, sql, err, want)
			}
			for _, hidden := range []string{"ETHUSDT", "SOLUSDT", "quantity", "is_buyer_maker"} {
				if err != nil && strings.Contains(err.Error(), hidden) && !strings.Contains(sql, hidden) {
					t.Errorf("%s: %s: the error tells %s: %v", who, sql, hidden, err)
				}
			}
		}
	}
	t.Run("what is not", func(t *testing.T) {
		refused(viewer, "viewer", map[string]string{
			"SELECT * FROM unified_events":                        "42P01",
			"SELECT * FROM public.unified_events":                 "42P01",
			"SELECT * FROM unified_events AT (VERSION => 1)":      "42P01",
			"SELECT * FROM by_day":                                "42P01",
			"SELECT * FROM cauce_0_unified_events":                "42P01",
			"SELECT * FROM temp.main.cauce_1_unified_events, btc": "0A000",
			"SELECT * FROM main.cauce_1_unified_events, btc":      "42P01",
			`WITH cauce_1_unified_events AS (WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 2) SELECT * FROM cauce_1_unified_events)
				SELECT c FROM btc, cauce_1_unified_events c`: "42P01",
			`SELECT c FROM btc, (WITH RECURSIVE cauce_1_unified_events AS ((SELECT t::text AS v FROM cauce_1_unified_events t) UNION ALL
				(SELECT v FROM cauce_1_unified_events WHERE false)) SELECT v FROM cauce_1_unified_events) c`: "42P01",
			"WITH \"duc\u212adb_views\" AS (SELECT 1) SELECT sql FROM duckdb_views, btc":                                                                             "42P01",
			"WITH RECURSIVE duckdb_views AS ((SELECT sql FROM duckdb_views) UNION ALL (SELECT sql FROM duckdb_views WHERE false)) SELECT sql FROM duckdb_views, btc": "42P01",
			"SELECT * FROM table_changes('unified_events', 0)":                                                                                                       "42P01",
			"SELECT * FROM table_changes('btc', 0)":                                                                                                                  "42P01",
			"SELECT symbol FROM btc":                                                                                                                                 "42703",
			"SELECT price FROM btc":                                                                                                                                  "42703",
			"SELECT * FROM btc WHERE quantity > 0":                                                                                                                   "42703",
			"SELECT (SELECT symbol) FROM btc":                                                                                                                        "42703",
			"SELECT unified_events.symbol FROM btc":                                                                                                                  "42601",
			"SELECT _metadata FROM btc":                                                                                                                              "42703",
			"SELECT filename FROM btc":                                                                                                                               "42703",
			"SELECT file_row_number FROM btc":                                                                                                                        "42703",
			"SELECT * FROM btc AT (VERSION => 99)":                                                                                                                   "22023",
			"EXPLAIN SELECT * FROM btc":                                                                                                                              "42501",
			"EXPLAIN ANALYZE SELECT * FROM btc":                                                                                                                      "42501",
			"SELECT stats(paid) FROM btc":                                                                                                                            "42501",
			"SELECT * FROM quarantine":                                                                                                                               "42501",
			"SELECT * FROM lake.quarantine":                                                                                                                          "42501",
			"SELECT * FROM lake.runs":                                                                                                                                "42501",
			"SELECT * FROM lake.gaps":                                                                                                                                "42501",
			"SELECT 'unified_events'::regclass":                                                                                                                      "42P01",
			"SELECT pg_total_relation_size('unified_events')":                                                                                                        "42P01",
			"DROP TABLE btc":                                                                                                                                         "25006",
			"INSERT INTO btc SELECT * FROM btc":                                                                                                                      "25006",
			"COPY unified_events TO STDOUT":                                                                                                                          "42P01",
			"DECLARE c CURSOR FOR SELECT * FROM unified_events":                                                                                                      "25P01",
			"CREATE TEMP TABLE mine AS SELECT * FROM unified_events":                                                                                                 "42P01",
			"SELECT * FROM query_table('cauce_1_unified_events'), btc":                                                                                               "42501",
			"SELECT * FROM btc, LATERAL (SELECT * FROM unified_events)":                                                                                              "42P01",
		})
		refused(both, "both", map[string]string{
			"SELECT symbol FROM unified_events": "42703",
			"SELECT * FROM btc":                 "42P01",
			"SELECT price FROM by_day":          "42703",
			"SELECT event_date FROM unified_events JOIN by_day ON symbol = 'x' WHERE unified_events.event_date IS NULL": "42703",
		})
		for _, view := range []string{"versions", "files", "partitions"} {
			if n := count(t, viewer, "SELECT count(*) FROM lake."+view); n != 0 {
				t.Errorf("lake.%s tells a role without tables of %d things", view, n)
			}
		}
		for _, sql := range []string{`SELECT count(*) FROM lake.files`, `SELECT count(*) FROM lake.partitions`, `SELECT count(parameters) FROM lake.versions`} {
			if n := count(t, both, sql); n != 0 { // folders are named for event_date, which the role does not see
				t.Errorf("%s is %d for a role that sees one column", sql, n)
			}
		}
	})
	// A statement cannot put anything in the place of what a view reads.
	t.Run("what is put in the way", func(t *testing.T) {
		for i := range 4 {
			name := fmt.Sprintf("cauce_%d_unified_events", i)
			sql := fmt.Sprintf(`WITH %[1]s AS (SELECT 'ETH' AS event_id, 1.0 AS price, now() AS event_time, 'BTCUSDT' AS symbol),
				unified_events AS (SELECT * FROM %[1]s) SELECT count(*) FROM btc`, name)
			if got := count(t, viewer, sql); got != want {
				t.Errorf("WITH %s: %d rows, want %d", name, got, want)
			}
			if got := count(t, viewer, `SELECT count(*) FROM (SELECT 'BTCUSDT' AS symbol, true AS is_buyer_maker) AS `+name+`, btc`); got != want {
				t.Errorf("beside %s: %d rows, want %d", name, got, want)
			}
		}
		if _, err := viewer.Exec(ctx, "CREATE TEMP TABLE unified_events AS SELECT 'x' AS event_id, 1.0 AS price, now() AS event_time, 'BTCUSDT' AS symbol"); err != nil {
			t.Fatal(err)
		}
		if got := count(t, viewer, "SELECT count(*) FROM btc"); got != want {
			t.Errorf("with a temporary table of the table's name the view has %d rows, want %d", got, want)
		}
		if _, err := viewer.Exec(ctx, "DROP TABLE unified_events"); err != nil {
			t.Fatal(err)
		}
	})
	// A condition that fails on a row tells of the row, so it must see none that the view leaves out.
	t.Run("conditions that fail", func(t *testing.T) {
		for _, condition := range []string{
			"CAST(CASE WHEN event_id LIKE 'BTC%' THEN '1' ELSE event_id END AS integer) = 1",
			"CASE WHEN event_id LIKE 'BTC%' THEN true ELSE error('saw ' || event_id) END",
			"1 / (CASE WHEN event_id LIKE 'BTC%' THEN 1 ELSE 0 END) = 1",
		} {
			var n int64
			if err := viewer.QueryRow(ctx, "SELECT count(*) FROM btc WHERE "+condition).Scan(&n); err != nil || n != want {
				t.Errorf("%s: %d rows, %v; want %d", condition, n, err, want)
			}
		}
	})
}

// TestEmptyLake: tables, views and what the lake tells of itself are there, with their columns and without rows, before
// anything has been written.
func TestEmptyLake(t *testing.T) {
	l := lab.NewLake(t)
	l.Append("views: {by_day: \"SELECT event_date, count(*) AS n FROM unified_events GROUP BY ALL\"}\n")
	s := serveLake(t, l)
	c := s.connect()
	for _, name := range []string{"unified_events", "by_day", "lake.quarantine", "quarantine", "lake.versions", "lake.files", "lake.partitions", "lake.runs", "lake.gaps"} {
		rows, err := c.Query(t.Context(), "SELECT * FROM "+name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		columns, n := len(rows.FieldDescriptions()), 0
		for rows.Next() {
			n++
		}
		if err := rows.Err(); err != nil || n != 0 {
			t.Errorf("%s: %d rows, %v", name, n, err)
		}
		schema, relation, qualified := strings.Cut(name, ".")
		if !qualified {
			schema, relation = "public", name
		}
		if want := count(t, c, "SELECT count(*) FROM information_schema.columns WHERE table_schema = $1 AND table_name = $2", schema, relation); int64(columns) != want || want == 0 {
			t.Errorf("%s has %d columns, the catalogue says %d", name, columns, want)
		}
	}
	if n := count(t, c, "SELECT count(*) FROM unified_events e JOIN by_day d USING (event_date) WHERE e.price > 1 AND e.event_time > now()"); n != 0 {
		t.Errorf("%d rows in an empty lake", n)
	}
	var first [3]*string
	if err := c.QueryRow(t.Context(), "DESCRIBE unified_events").Scan(&first[0], &first[1], &first[2]); err != nil || *first[0] != "event_id" {
		t.Errorf("DESCRIBE: %v, %v", first, err)
	}
	for _, sql := range []string{"DESCRIBE HISTORY unified_events", "DESCRIBE EXTENDED unified_events", "SHOW PARTITIONS unified_events", "SELECT * FROM unified_events AT (VERSION => 0)", "SELECT * FROM table_changes('unified_events', 0)"} {
		if _, err := c.Exec(t.Context(), sql); code(err) != "42P01" || !strings.Contains(err.Error(), "nothing has been written") {
			t.Errorf("%s: %v", sql, err)
		}
	}
	// What is written while a session is open is in its next statement.
	lab.NewGenerator(rand.New(rand.NewPCG(8, 9)), 3).History(t, l.Inbox(), 0, 100, 0)
	l.Run("run", "batch")
	if n := count(t, c, "SELECT count(*) FROM unified_events"); n != int64(len(l.Rows())) || n == 0 {
		t.Errorf("%d rows after the first batch, cauce query gives %d", n, len(l.Rows()))
	}
}
