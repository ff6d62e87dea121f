package bi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cauce-data/cauce/internal/loopback"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/serve/pgcatalog"
	"github.com/cauce-data/cauce/test/lab"
)

// shop is a lake with the tables that the captured statements name.
const shop = `version: 1
storage: file:./data
tables:
  orders:
    comment: "one row per order"
    columns:
      order_id: {type: LONG, not_null: true, comment: "the shop's number"}
      customer_id: LONG
      status: STRING
      amount: "DECIMAL(12,2)"
      ordered_on: TIMESTAMP
      ts: TIMESTAMP
      tags: "ARRAY<STRING>"
      attrs: STRING
      lat: DOUBLE
    key: [order_id]
    sequence: [ts]
  customers:
    columns: {customer_id: {type: LONG, not_null: true}, name: STRING}
    key: [customer_id]
    sequence: [name]
  orders_daily:
    columns: {day: {type: DATE, not_null: true}, n: LONG}
    key: [day]
    sequence: [n]
sources:
  orders: {table: orders, kind: files, location: raw/batch/orders*.csv, format: csv, csv: {header: auto, optional: [attrs, tags]},
    fields: {order_id: id, customer_id: customer, status: status, amount: amount, ordered_on: to_event_time(happened), ts: to_event_time(happened), lat: lat}}
  customers: {table: customers, kind: files, location: raw/batch/customers*.csv, format: csv, csv: {header: auto}, fields: {customer_id: id, name: name}}
  daily: {table: orders_daily, kind: files, location: raw/batch/daily*.csv, format: csv, csv: {header: auto}, fields: {day: "to_date(to_event_time(happened))", n: n}}
serve: {workers: 1, statement_timeout: 60s}
`

// shopInPostgreSQL makes the same in PostgreSQL. Cauce adds columns to each table. A line that begins with CREATE and those
// after it make one relation: they are run in the order of the identifiers that Cauce gives, because PostgreSQL's grow.
const shopInPostgreSQL = `
CREATE TABLE public.orders (order_id bigint NOT NULL, customer_id bigint, status text, amount numeric(12,2), ordered_on timestamptz, ts timestamptz, tags text[], attrs text, lat float8,
  _rank integer, _generation bigint, _position bigint, _origin text, PRIMARY KEY (order_id));
COMMENT ON TABLE public.orders IS 'one row per order'; COMMENT ON COLUMN public.orders.order_id IS 'the shop''s number';
CREATE TABLE public.customers (customer_id bigint NOT NULL, name text, _rank integer, _generation bigint, _position bigint, _origin text, PRIMARY KEY (customer_id));
CREATE TABLE public.orders_daily (day date NOT NULL, n bigint, _rank integer, _generation bigint, _position bigint, _origin text, PRIMARY KEY (day));
CREATE TABLE public.quarantine ("table" text, source text, origin text, "position" bigint, generation bigint, file text, line bigint, topic text, partition integer, "offset" bigint, rule text, reason text,
  raw text, raw_bytes bigint, raw_offset bigint, plan text, epoch bigint, progress text, quarantined_at timestamptz, resolved_at timestamptz, raw_binary bytea, message_key bytea, message_time timestamptz);
COMMENT ON TABLE public.quarantine IS 'records that did not fit, with the reason';
CREATE VIEW lake.quarantine AS SELECT NULL::text AS "table", NULL::text AS source, NULL::text AS origin, NULL::bigint AS "position", NULL::bigint AS generation, NULL::text AS file, NULL::bigint AS line, NULL::text AS topic, NULL::integer AS partition, NULL::bigint AS "offset", NULL::text AS rule, NULL::text AS reason, NULL::text AS raw, NULL::bigint AS raw_bytes, NULL::bigint AS raw_offset, NULL::text AS plan, NULL::bigint AS epoch, NULL::text AS progress, NULL::timestamptz AS quarantined_at, NULL::timestamptz AS resolved_at, NULL::bytea AS raw_binary, NULL::bytea AS message_key, NULL::timestamptz AS message_time;
COMMENT ON VIEW lake.quarantine IS 'records that did not fit, with the reason';
CREATE VIEW lake.versions AS SELECT ''::text AS "table", 0::bigint AS version, now() AS committed_at, ''::text AS operation, 0::bigint AS files_added, 0::bigint AS files_removed, ''::text AS engine, ''::text AS parameters;
COMMENT ON VIEW lake.versions IS 'the commits of each table, newest first';
CREATE VIEW lake.files AS SELECT ''::text AS "table", 0::bigint AS version, ''::text AS path, ''::text AS partition, 0::bigint AS bytes, 0::bigint AS rows, 0::bigint AS deleted_rows, now() AS modified_at;
COMMENT ON VIEW lake.files IS 'the live data files of each table';
CREATE VIEW lake.partitions AS SELECT ''::text AS "table", 0::bigint AS version, ''::text AS partition, 0::bigint AS files, 0::bigint AS bytes, 0::bigint AS rows, 0::bigint AS deleted_rows;
COMMENT ON VIEW lake.partitions IS 'each table''s partitions: files, bytes, rows';
CREATE VIEW lake.runs AS SELECT ''::text AS id, ''::text AS task, ''::text AS trigger, ''::text AS status, now() AS started_at, now() AS ended_at, 0::bigint AS attempts, ''::text AS error;
COMMENT ON VIEW lake.runs IS 'the runs of tasks, newest first';
CREATE VIEW lake.gaps AS SELECT ''::text AS "table", ''::text AS series, 0::bigint AS from_id, 0::bigint AS to_id, 0::bigint AS ids, ''::text AS from_day, ''::text AS to_day, ''::text AS owner, ''::text AS why;
COMMENT ON VIEW lake.gaps IS 'ranges of ids that tables with a ledger lack';
INSERT INTO public.orders (order_id, customer_id, status, amount, ordered_on, ts, lat) VALUES (1, 7, 'paid', 12.50, '2026-01-05 10:00:00+00', '2026-01-05 10:00:00+00', 40.4), (2, 8, 'open', 3.00, '2026-01-06 11:00:00+00', '2026-01-06 11:00:00+00', NULL), (3, 7, 'paid', 99.99, '2026-02-01 12:00:00+00', '2026-02-01 12:00:00+00', 41.5);
INSERT INTO public.customers (customer_id, name) VALUES (7, 'Ana'), (8, 'Luis');
INSERT INTO public.orders_daily (day, n) VALUES ('2026-01-05', 1);
CREATE ROLE reader LOGIN;
GRANT USAGE ON SCHEMA lake TO reader;
GRANT SELECT ON ALL TABLES IN SCHEMA public, lake TO reader;
`

// newShop makes the lake shop with a few rows.
func newShop(t *testing.T) *lab.Lake {
	t.Helper()
	l := lab.NewLakeOf(t, []byte(shop))
	for name, text := range map[string]string{
		"orders.csv":    "id,customer,status,amount,happened,lat\n1,7,paid,12.50,2026-01-05T10:00:00Z,40.4\n2,8,open,3.00,2026-01-06T11:00:00Z,\n3,7,paid,99.99,2026-02-01T12:00:00Z,41.5\n",
		"customers.csv": "id,name\n7,Ana\n8,Luis\n",
		"daily.csv":     "happened,n\n2026-01-05T00:00:00Z,1\n",
	} {
		if err := os.WriteFile(filepath.Join(l.Inbox(), name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l.Run("run", "batch")
	return l
}

// captured is a statement that a client sent.
type captured struct {
	file string
	sql  string
}

var captures = regexp.MustCompile(`(?m)^-- @ (?:simple|extended).*$`)

// readCaptured reads the captured statements, each once, with their parameters in their places.
func readCaptured(t *testing.T) []captured {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(prereq.Need(t, "shared"), "bi", "catalog-queries", "*.sql"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	parameter := regexp.MustCompile(`\$(\d+) = ('(?:[^']|'')*'|NULL)`)
	var out []captured
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range captures.Split(string(text), -1)[1:] {
			values := map[string]string{}
			var lines []string
			for line := range strings.SplitSeq(block, "\n") {
				if strings.HasPrefix(line, "-- @") {
					for _, m := range parameter.FindAllStringSubmatch(line, -1) {
						values[m[1]] = m[2]
					}
					continue
				}
				lines = append(lines, line)
			}
			sql := strings.TrimSpace(strings.Join(lines, "\n"))
			sql = regexp.MustCompile(`\$(\d+)`).ReplaceAllStringFunc(sql, func(p string) string {
				if v, ok := values[p[1:]]; ok {
					return "(" + v + ")"
				}
				return p
			})
			sql = strings.ReplaceAll(sql, "gold", "public")
			c := captured{filepath.Base(f), sql}
			if sql != "" && !slices.Contains(out, c) {
				out = append(out, c)
			}
		}
	}
	return out
}

// startPostgreSQL starts a new PostgreSQL and gives its address.
func startPostgreSQL(t *testing.T) string {
	t.Helper()
	bin := prereq.Need(t, "postgres")
	dir, err := os.MkdirTemp("", "cauce-pg-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	as := asNobody(t, dir)
	run := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, name), args...)
		cmd.SysProcAttr = as
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "HOME="+dir)
		return cmd
	}
	data := filepath.Join(dir, "data")
	if out, err := run("initdb", "-D", data, "-U", "cauce", "-A", "trust", "--locale=C.UTF-8", "-E", "UTF8", "-N").CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	addr := loopback.Free(t)
	_, port, _ := strings.Cut(addr, ":")
	server := run("postgres", "-D", data, "-p", port, "-k", "", "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "default_transaction_isolation=repeatable read")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Signal(os.Interrupt)
		_ = server.Wait()
	})
	ctx := context.Background()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		c, err := pgx.Connect(ctx, "postgres://cauce@"+addr+"/postgres")
		if err != nil {
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
			continue
		}
		if _, err := c.Exec(ctx, "CREATE DATABASE lake"); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(ctx); err != nil {
			t.Fatal(err)
		}
		break
	}
	c, err := pgx.Connect(ctx, "postgres://cauce@"+addr+"/lake")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	if _, err := c.PgConn().Exec(ctx, inOrderOfOIDs(shopInPostgreSQL)).ReadAll(); err != nil {
		t.Fatal(err)
	}
	return addr
}

var relationMade = regexp.MustCompile(`^CREATE (?:TABLE|VIEW) (\w+)\.(\w+)`)

// inOrderOfOIDs sorts the pieces of shopInPostgreSQL that make relations.
func inOrderOfOIDs(script string) string {
	type piece struct {
		oid  int64
		text string
	}
	var pieces []piece
	var rest strings.Builder
	for line := range strings.Lines(script) {
		m := relationMade.FindStringSubmatch(line)
		switch {
		case m != nil:
			pieces = append(pieces, piece{pgcatalog.OID(m[1], m[2]), line})
		case len(pieces) > 0 && (strings.HasPrefix(line, "COMMENT") || strings.HasPrefix(line, "  ")):
			pieces[len(pieces)-1].text += line
		default:
			rest.WriteString(line)
		}
	}
	slices.SortFunc(pieces, func(a, b piece) int { return cmp.Compare(a.oid, b.oid) })
	out := "CREATE SCHEMA lake;\n"
	for _, p := range pieces {
		out += p.text
	}
	return out + rest.String()
}

// answer is what a server gives: rows of texts, or an error.
type answer struct {
	columns []string
	rows    []string
	err     error
}

// ask runs a statement in the simple protocol.
func ask(c *pgconn.PgConn, sql string) answer {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var a answer
	results, err := c.Exec(ctx, sql).ReadAll()
	for _, r := range results {
		a.columns = nil
		for _, f := range r.FieldDescriptions {
			a.columns = append(a.columns, f.Name)
		}
		for _, row := range r.Rows {
			var cells []string
			for _, v := range row {
				if v == nil {
					cells = append(cells, "∅")
				} else {
					cells = append(cells, normal(string(v)))
				}
			}
			a.rows = append(a.rows, strings.Join(cells, "|"))
		}
		if r.Err != nil {
			err = r.Err
		}
	}
	a.err = err
	named := func(row string) bool { return strings.Contains(row, "pg_toast_#") } // the order is that of identifiers
	if !strings.Contains(strings.ToUpper(sql), "ORDER BY") || slices.ContainsFunc(a.rows, named) {
		slices.Sort(a.rows)
	}
	return a
}

var (
	ownOID = regexp.MustCompile(`(\b|pg_toast_)(1[6-9]\d{3}|[2-9]\d{4}|\d{6,10})(\b|_index)`)
	sizes  = regexp.MustCompile(`^\d+ (bytes|kB|MB)$`)
)

// normal takes away what no two servers have in common: identifiers of objects that were made, sizes on disk, versions of
// the build, numbers of processes.
func normal(v string) string {
	switch {
	case strings.HasPrefix(v, "PostgreSQL 15"):
		return "PostgreSQL 15"
	case sizes.MatchString(v):
		return "size"
	}
	return ownOID.ReplaceAllString(v, "${1}#${3}")
}

// tellPlaces gives the rows in PostgreSQL the places that those of the lake came from.
func tellPlaces(t *testing.T, addr string, ours *pgconn.PgConn) {
	t.Helper()
	ctx := context.Background()
	owner, err := pgconn.Connect(ctx, "postgres://cauce@"+addr+"/lake")
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close(ctx)
	for table, key := range map[string]string{"orders": "order_id", "customers": "customer_id", "orders_daily": "day"} {
		rows, err := ours.Exec(ctx, "SELECT "+key+", _rank, _generation, _position, _origin FROM "+table).ReadAll()
		if err != nil || len(rows) != 1 || len(rows[0].Rows) == 0 {
			t.Fatalf("%s: %v", table, err)
		}
		for _, r := range rows[0].Rows {
			sql := fmt.Sprintf("UPDATE public.%s SET _rank = '%s', _generation = '%s', _position = '%s', _origin = '%s' WHERE %s = '%s'", table, r[1], r[2], r[3], r[4], key, r[0])
			if _, err := owner.Exec(ctx, sql).ReadAll(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// The statements that clients were seen to send get PostgreSQL's answers: the same columns, rows and values.
func TestCatalogueAnswersAsPostgreSQL(t *testing.T) {
	statements := readCaptured(t)
	addr := startPostgreSQL(t)
	s := serveLake(t, newShop(t))
	ctx := context.Background()
	connect := func(addr string) *pgconn.PgConn {
		c, err := pgconn.Connect(ctx, "postgres://reader@"+addr+"/lake?application_name=catalogue")
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	theirs, ours := connect(addr), connect(s.addr)
	tellPlaces(t, addr, ours)
	oids := func(c *pgconn.PgConn) *strings.Replacer {
		var pairs []string
		for oid, table := range map[string]string{"16388": "orders", "16395": "customers", "16405": "orders_daily"} {
			r, err := c.Exec(ctx, "SELECT oid FROM pg_class WHERE relname = '"+table+"'").ReadAll()
			if err != nil || len(r[0].Rows) != 1 {
				t.Fatalf("%s: %v", table, err)
			}
			pairs = append(pairs, oid, string(r[0].Rows[0][0]))
		}
		return strings.NewReplacer(pairs...)
	}
	toTheirs, toOurs := oids(theirs), oids(ours)
	same := map[string]int{}
	all := map[string]int{}
	good := 0
	var report strings.Builder
	for _, st := range statements {
		if theirs.IsClosed() {
			theirs = connect(addr)
		}
		if ours.IsClosed() {
			ours = connect(s.addr)
		}
		if strings.Contains(st.sql, "pg_sleep") { // it was cancelled
			continue
		}
		want, got := ask(theirs, toTheirs.Replace(st.sql)), ask(ours, toOurs.Replace(st.sql))
		if strings.Contains(st.sql, "pg_backend_pid") && len(want.rows) == 1 && len(got.rows) == 1 { // each server has its own
			got.rows[0] = want.rows[0]
		}
		all[st.file]++
		if diff := differ(want, got); diff == "" {
			same[st.file]++
			good++
		} else {
			fmt.Fprintf(&report, "%s: %s\n    %s\n", st.file, clip(st.sql), diff)
		}
		if want.err != nil || got.err != nil {
			_ = ask(theirs, "ROLLBACK")
			_ = ask(ours, "ROLLBACK")
		}
	}
	var lines []string
	total := 0
	for f, n := range all {
		total += n
		lines = append(lines, fmt.Sprintf("%s %d of %d", f, same[f], n))
	}
	slices.Sort(lines)
	t.Logf("statements of clients answered as PostgreSQL does: %d of %d\n%s", good, total, strings.Join(lines, "\n"))
	if path := os.Getenv("CAUCE_BI_REPORT"); path != "" {
		if err := os.WriteFile(path, []byte(report.String()), 0o644); err != nil {
			t.Error(err)
		}
	}
	if good < answeredAtLeast {
		t.Errorf("%d statements are answered as PostgreSQL does, %d were:\n%s", good, answeredAtLeast, report.String())
	}
}

// answeredAtLeast is how many captured statements were answered right; fewer is a step back.
const answeredAtLeast = 341

func differ(want, got answer) string {
	switch {
	case want.err != nil && got.err != nil:
		return ""
	case want.err != nil:
		return fmt.Sprintf("PostgreSQL fails (%v), the lake gives %d rows", want.err, len(got.rows))
	case got.err != nil:
		var e *pgconn.PgError
		if errors.As(got.err, &e) {
			return "error " + e.Code + " " + clip(e.Message)
		}
		return got.err.Error()
	case !slices.Equal(want.columns, got.columns):
		return fmt.Sprintf("columns %v, want %v", got.columns, want.columns)
	case len(want.rows) != len(got.rows):
		return fmt.Sprintf("%d rows, want %d; extra %s; missing %s", len(got.rows), len(want.rows), first(got.rows, want.rows), first(want.rows, got.rows))
	}
	for i := range want.rows {
		if want.rows[i] != got.rows[i] {
			return fmt.Sprintf("row %d of %d:\n      %s\n want %s", i, len(want.rows), clip(got.rows[i]), clip(want.rows[i]))
		}
	}
	return ""
}

// first gives the first of some rows that others lack.
func first(of, in []string) string {
	for _, r := range of {
		if !slices.Contains(in, r) {
			return clip(r)
		}
	}
	return "none"
}

func clip(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 400 {
		return s[:400] + "…"
	}
	return s
}
