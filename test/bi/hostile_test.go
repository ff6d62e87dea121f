package bi

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cauce-data/cauce/internal/testscale"
)

// hostileStatements must all fail, and change nothing. %s is the lake's folder.
var hostileStatements = []string{
	// Temporary tables.
	"SELECT * INTO TEMP x FROM read_text('/etc/passwd')", "CREATE TEMP TABLE x (a, b DEFAULT (SELECT max(content) FROM read_text('/etc/passwd'))) AS SELECT 1, 2",
	"CREATE TABLE pg_temp.x (a) WITH (b = 1) AS SELECT content FROM read_text('/etc/passwd')", "SELECT 1 INTO unified_events", "INSERT INTO pg_temp.unified_events VALUES (1)",
	// Files.
	"SELECT * FROM '/etc/passwd'", "SELECT * FROM \"/etc/passwd\"", "SELECT * FROM read_text('/etc/passwd')", "SELECT * FROM read_blob('/etc/passwd')",
	"SELECT * FROM read_csv('/etc/passwd')", "SELECT * FROM read_csv_auto('/etc/passwd')", "SELECT * FROM read_json('/etc/passwd')", "SELECT * FROM read_parquet('%s/data/**/*.parquet')",
	"SELECT * FROM parquet_scan('%s/data/**/*.parquet')", "SELECT * FROM parquet_metadata('%s/data/**/*.parquet')", "SELECT * FROM parquet_schema('x')", "SELECT * FROM parquet_kv_metadata('x')",
	"SELECT * FROM glob('/etc/*')", "SELECT * FROM sniff_csv('/etc/passwd')", "SELECT * FROM '%s/lake.yaml'", "SELECT * FROM 'data/processed/unified-events'", "FROM '/etc/hosts'",
	"SELECT * FROM delta_scan('%s/data/processed/unified-events')", "SELECT * FROM iceberg_scan('x')", "SELECT * FROM sqlite_scan('x', 'y')", "SELECT * FROM postgres_scan('x', 'y', 'z')",
	"SELECT (SELECT max(content) FROM read_text('/etc/passwd'))", "SELECT * FROM unified_events WHERE event_id IN (SELECT content FROM read_text('/etc/passwd'))",
	"WITH x AS (SELECT * FROM read_text('/etc/passwd')) SELECT * FROM x", "WITH \"/etc/passwd\" AS (SELECT 1) SELECT * FROM \"/etc/passwd\"",
	"SELECT * FROM unified_events JOIN LATERAL (SELECT * FROM read_text('/etc/passwd')) y ON true", "SELECT 1 UNION ALL SELECT content FROM read_text('/etc/passwd')",
	"SELECT * FROM (VALUES ((SELECT content FROM read_text('/etc/passwd')))) v", "SELECT 1 ORDER BY (SELECT content FROM read_text('/etc/passwd'))",
	"SELECT count(*) FILTER (WHERE (SELECT content FROM read_text('/etc/passwd')) = 'x') FROM unified_events", "SELECT sum(1) OVER (ORDER BY (SELECT content FROM read_text('/etc/passwd')))",
	"EXPLAIN SELECT * FROM read_text('/etc/passwd')", "EXPLAIN ANALYZE SELECT * FROM read_text('/etc/passwd')", "DESCRIBE SELECT * FROM read_text('/etc/passwd')",
	"DESCRIBE '/etc/passwd'", "DESCRIBE DETAIL delta.`/etc`", "DESCRIBE HISTORY \"../../etc\"", "SHOW TBLPROPERTIES '/tmp' (x)", "DESCRIBE DETAIL unified_events; DELETE FROM unified_events",
	"SUMMARIZE SELECT * FROM read_text('/etc/passwd')", "SELECT list_transform([1], x -> (SELECT content FROM read_text('/etc/passwd')))", "PIVOT read_csv('/etc/passwd') ON column0",
	"SELECT * FROM query('SELECT 1')", "SELECT * FROM query_table('unified_events')", "SELECT * FROM json_execute_serialized_sql('{}')", "SELECT pg_read_file('/etc/passwd')", "SELECT lo_import('/etc/passwd')",
	"SELECT getenv('HOME')", "SELECT * FROM \"file:///etc/passwd\"", "SELECT * FROM 'http://127.0.0.1:1/x.csv'", "SELECT * FROM 's3://bucket/x.parquet'",
	// COPY.
	"COPY unified_events TO '/tmp/cauce-hostile.csv'", "COPY (SELECT 1) TO '%s/data/x.csv'", "COPY unified_events FROM '/etc/passwd'", "COPY unified_events FROM STDIN", "COPY (SELECT 1) TO PROGRAM 'id'",
	"COPY (SELECT * FROM read_text('/etc/passwd')) TO STDOUT", "COPY (DELETE FROM unified_events RETURNING *) TO STDOUT", "EXPORT DATABASE '/tmp/cauce-hostile'", "IMPORT DATABASE '/tmp/x'",
	// Other databases, extensions, settings.
	"ATTACH '/tmp/cauce-hostile.db'", "ATTACH ':memory:' AS m", "DETACH memory", "USE memory", "INSTALL httpfs", "LOAD httpfs", "INSTALL '/tmp/x.duckdb_extension'", "FORCE INSTALL spatial FROM community",
	"SET memory_limit = '100GB'", "SET enable_external_access = true", "SET threads = 1000", "SET GLOBAL temp_directory = '/tmp'", "PRAGMA database_list", "PRAGMA memory_limit='1TB'", "RESET memory_limit",
	"SET allowed_directories = ['/']", "SET lock_configuration = false", "CALL pragma_version()", "CALL duckdb_settings()", "SELECT * FROM duckdb_settings()", "SELECT * FROM duckdb_secrets()",
	"SELECT * FROM duckdb_databases()", "SELECT * FROM pragma_database_size()", "SELECT * FROM pragma_table_info('x')", "CREATE SECRET s (TYPE s3)", "CREATE PERSISTENT SECRET s (TYPE s3)", "SELECT * FROM which_secret('x', 'y')",
	"CHECKPOINT; DROP TABLE unified_events", "FORCE CHECKPOINT", "VACUUM", "SELECT write_log('x')", "SELECT nextval('s')", "SELECT current_setting('memory_limit')", "SELECT set_config('memory_limit', '1TB', false)",
	// Changes.
	"INSERT INTO unified_events (event_id) VALUES ('x')", "UPDATE unified_events SET price = 1", "DELETE FROM unified_events", "TRUNCATE unified_events", "DROP TABLE unified_events", "DROP TABLE IF EXISTS unified_events CASCADE",
	"ALTER TABLE unified_events DROP COLUMN price", "CREATE TABLE x (a int)", "CREATE TABLE x AS SELECT * FROM unified_events", "CREATE VIEW x AS SELECT 1", "CREATE OR REPLACE VIEW unified_events AS SELECT 1",
	"CREATE TEMP VIEW unified_events AS SELECT 1", "CREATE SCHEMA x", "CREATE MACRO f() AS 1", "CREATE FUNCTION f() RETURNS int AS 'x'", "CREATE TYPE t AS INT", "CREATE SEQUENCE s", "CREATE INDEX i ON unified_events (price)",
	"MERGE INTO unified_events USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE", "WITH x AS (DELETE FROM unified_events RETURNING *) SELECT * FROM x", "SELECT * INTO x FROM unified_events",
	"INSERT INTO lake.runs VALUES (1)", "DROP SCHEMA public CASCADE", "GRANT ALL ON unified_events TO reader", "ALTER SYSTEM SET x = 1", "DO $$ BEGIN END $$", "PREPARE p AS DELETE FROM unified_events",
	"OPTIMIZE unified_events", "RESTORE TABLE unified_events TO VERSION AS OF 0", "SET ROLE postgres", "SET SESSION AUTHORIZATION postgres", "CREATE TEMP TABLE t AS SELECT * FROM read_text('/etc/passwd')",
	"CREATE TEMP TABLE t (a int) AS SELECT 1; COPY t TO '/tmp/cauce-hostile.csv'", "CREATE TEMP TABLE t (a int DEFAULT (SELECT 1))", "CREATE TEMP TABLE t (a int); INSERT INTO t SELECT * FROM read_csv('/etc/passwd')",
	// Tricks of the catalogue and of the parser.
	"SELECT * FROM main.sqlite_master", "SELECT * FROM sqlite_master", "SELECT * FROM temp.main.x", "SELECT * FROM system.main.duckdb_tables", "SELECT * FROM memory.main.x", "SELECT * FROM cauce_0_unified_events",
	"SELECT 1; DROP TABLE unified_events; --", "SELECT 1 -- \n; DELETE FROM unified_events", "/* x */ DELETE /* y */ FROM unified_events", "SELECT * FROM unified_events AT (VERSION => (SELECT 1))", "SELECT * FROM unified_events VERSION AS OF (SELECT 1)", "SELECT * FROM read_text('/etc/passwd') VERSION AS OF 1",
	"SELECT * FROM unified_events AT (VERSION => -1)", "SELECT * FROM table_changes('/etc/passwd', 0)", "SELECT * FROM table_changes((SELECT 'x'), 0)", "SELECT * FROM lake.nosuch", "SELECT * FROM other.public.unified_events",
	"SELECT $1", "SELECT 'a' || chr(0) || ", "SELECT", "((((((((((", "SELECT \"", "SELECT '", "SELECT $$", "\x01\x02", "BEGIN; SELECT nosuch; COMMIT", "FETCH BACKWARD 1 FROM c", "LOAD DATA INFILE 'x'",
}

// bombs take more than a statement may have; each fails with one of the codes of limits.
var bombs = []string{
	"SELECT count(*) FROM range(100000000000) a, range(100000000000) b",
	"SELECT sum(length(repeat('x', 200000000) || i::text)) FROM range(10000) t(i)",
	"SELECT list(repeat('x', 1000000)) FROM range(100000)",
	"WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT max(n) FROM r",
	"SELECT string_agg(repeat(i::text, 1000), '') FROM range(100000000) t(i)",
	"SELECT * FROM range(100000000000) ORDER BY hash(range) LIMIT 1 OFFSET 99999999999",
	"SELECT count(*) FROM unified_events a, unified_events b, unified_events c, unified_events d WHERE a.price + b.price > c.price * d.price",
	"SELECT max(i) FROM (SELECT unnest(range(1000000)) AS i FROM range(1000000))",
}

func TestHostileStatementsAreRefused(t *testing.T) {
	testscale.NotAtShort(t, "memory and endless joins are let go up to their limits")
	if len(hostileStatements) < 100 {
		t.Fatalf("%d statements", len(hostileStatements))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	l := newLake(t, "serve: {workers: 2, memory_limit: 128MiB, statement_timeout: 4s}\n")
	s := serveLake(t, l)
	before := treeHash(t, l.Path("data"))
	witness := watch(t, s)
	var wg sync.WaitGroup
	attack := func(mode string) {
		c, err := pgx.Connect(ctx, s.url("reader", "")+"?default_query_exec_mode="+mode)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close(ctx)
		for _, sql := range hostileStatements {
			if strings.Contains(sql, "%s") {
				sql = fmt.Sprintf(sql, l.Dir)
			}
			if c.IsClosed() {
				t.Errorf("the session ended before %q", sql)
				return
			}
			if _, err := c.Exec(ctx, sql); err == nil {
				t.Errorf("%s: %q was allowed", mode, sql)
			}
			if _, err := c.Exec(ctx, "ROLLBACK"); err != nil {
				t.Errorf("after %q: %v", sql, err)
				return
			}
		}
	}
	for _, mode := range []string{"simple_protocol", "exec"} {
		wg.Go(func() { attack(mode) })
	}
	wg.Go(func() {
		for _, sql := range bombs {
			c, err := pgx.Connect(ctx, s.url("reader", "")+"?default_query_exec_mode=simple_protocol")
			if err != nil {
				t.Error(err)
				return
			}
			_, err = c.Exec(ctx, sql)
			switch code(err) {
			case "57014", "53200", "53100", "22003", "XX000", "22000", "42601":
			default:
				t.Errorf("%s: %v", sql, err)
			}
			_ = c.Close(ctx)
		}
	})
	wg.Wait()
	witness()
	if treeHash(t, l.Path("data")) != before {
		t.Error("the lake's files have changed")
	}
	for _, path := range []string{"/tmp/cauce-hostile.csv", "/tmp/cauce-hostile.db", "/tmp/cauce-hostile"} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s was written", path)
		}
	}
	if !s.proc.Running() {
		t.Error("the server has ended")
	}
}

// watch asks the same question over and over in a session of its own, until the returned function is called, and at least
// three times however slow the machine is: it must be answered throughout.
func watch(t *testing.T, s *server) (stop func()) {
	t.Helper()
	c := s.connect()
	want := count(t, c, "SELECT count(*) FROM unified_events")
	done := make(chan struct{})
	var wg sync.WaitGroup
	asked := 0
	var worst time.Duration
	wg.Go(func() {
		for {
			select {
			case <-done:
				if asked >= 3 {
					return
				}
			default:
			}
			start := time.Now()
			var n int64
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
			err := c.QueryRow(ctx, "SELECT count(*) FROM unified_events").Scan(&n)
			cancel()
			if err != nil || n != want {
				t.Errorf("another session: %d rows, want %d, %v", n, want, err)
				return
			}
			asked++
			worst = max(worst, time.Since(start))
			time.Sleep(20 * time.Millisecond)
		}
	})
	return func() {
		close(done)
		wg.Wait()
		t.Logf("another session was answered %d times meanwhile; the slowest took %v", asked, worst)
	}
}

// message is one of the protocol, with its length.
func message(kind byte, body []byte) []byte {
	out := []byte{}
	if kind != 0 {
		out = append(out, kind)
	}
	out = binary.BigEndian.AppendUint32(out, uint32(len(body)+4))
	return append(out, body...)
}

// startupMessage begins a session.
func startupMessage(params ...string) []byte {
	body := binary.BigEndian.AppendUint32(nil, 196608)
	for _, p := range params {
		body = append(append(body, p...), 0)
	}
	return message(0, append(body, 0))
}

func TestHostileClientsHarmNobody(t *testing.T) {
	l := newLake(t, "serve: {workers: 2, statement_timeout: 5s, sessions_max: 200}\n")
	s := serveLake(t, l)
	before := treeHash(t, l.Path("data"))
	witness := watch(t, s)
	hello := startupMessage("user", "reader", "database", "lake")
	query := func(sql string) []byte { return message('Q', append([]byte(sql), 0)) }
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	// Each sends its bytes and reads what comes, at most for a moment.
	clients := map[string][]byte{
		"nothing":                    {},
		"half a length":              {0, 0},
		"a huge length":              {0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0},
		"a negative length":          {0xff, 0xff, 0xff, 0xff, 0, 3, 0, 0},
		"a length too short":         {0, 0, 0, 4},
		"an unknown version":         message(0, []byte{0, 99, 0, 0, 0}),
		"HTTP":                       []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"TLS without asking":         {0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03},
		"random bytes":               bytes.Repeat([]byte{0xde, 0xad, 0xbe, 0xef}, 5000),
		"no user":                    startupMessage("database", "lake"),
		"another user":               startupMessage("user", "postgres", "database", "lake"),
		"another database":           startupMessage("user", "reader", "database", "postgres"),
		"unterminated parameters":    message(0, append(binary.BigEndian.AppendUint32(nil, 196608), "user\x00reader"...)),
		"a setting that is none":     startupMessage("user", "reader", "database", "lake", "nosuch", "x"),
		"a wrong cancel":             message(0, binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, 80877102), 12345)),
		"cancel in a loop":           bytes.Repeat(message(0, binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, 80877102), 1)), 100),
		"SSL requests for ever":      bytes.Repeat(message(0, binary.BigEndian.AppendUint32(nil, 80877103)), 50),
		"an unknown message":         join(hello, message('!', []byte("x"))),
		"a message that never ends":  join(hello, []byte{'Q', 0x00, 0xff, 0xff, 0xff}, []byte("SELECT")),
		"a message of 2 GB":          join(hello, []byte{'Q', 0x7f, 0xff, 0xff, 0xff}),
		"a query without its end":    join(hello, message('Q', []byte("SELECT 1"))),
		"an empty query":             join(hello, query("")),
		"a text of null bytes":       join(hello, message('Q', make([]byte, 1000))),
		"text that is no UTF-8":      join(hello, query("SELECT '\xff\xfe'")),
		"a password nobody wants":    join(hello, message('p', []byte("x\x00"))),
		"copy data without a copy":   join(hello, message('d', []byte("x")), message('c', nil), message('f', []byte("x\x00"))),
		"bind of nothing":            join(hello, message('B', []byte("\x00nosuch\x00\x00\x00\x00\x00\x00\x00")), message('S', nil)),
		"bind with too many formats": join(hello, message('P', []byte("\x00SELECT $1\x00\x00\x00")), message('B', []byte("\x00\x00\x00\x01\x00\x09\xff\xff\x00\x00")), message('S', nil)),
		"bind with a bad length":     join(hello, message('P', []byte("\x00SELECT $1\x00\x00\x00")), message('B', []byte("\x00\x00\x00\x00\x00\x01\x7f\xff\xff\xff")), message('S', nil)),
		"execute of nothing":         join(hello, message('E', []byte("nosuch\x00\x00\x00\x00\x00")), message('S', nil)),
		"describe of an odd kind":    join(hello, message('D', []byte("Xnosuch\x00")), message('S', nil)),
		"parse with a cut list":      join(hello, message('P', []byte("\x00SELECT 1\x00\x00\x63")), message('S', nil)),
		"a function call":            join(hello, message('F', []byte{0, 0, 0, 1, 0, 0, 0, 0, 0, 0})),
		"70,000 parameters":          join(hello, query("SELECT $70000")),
		"a deep expression":          join(hello, query("SELECT "+strings.Repeat("(", 20000)+"1"+strings.Repeat(")", 20000))),
		"a statement of 8 MB":        join(hello, query("SELECT '"+strings.Repeat("x", 8<<20)+"'")),
		"a pipeline without reading": join(hello, bytes.Repeat(query("SELECT repeat('x', 100000)"), 200)),
		"leaves in the middle":       join(hello, query("SELECT * FROM unified_events a, unified_events b")),
	}
	if len(clients) < 20 {
		t.Fatalf("%d clients", len(clients))
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, 8)
	for name, sends := range clients {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			c, err := net.Dial("tcp", s.addr)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(500 * time.Millisecond))
			_, _ = c.Write(sends) // it may be closed by then
			buf := make([]byte, 4096)
			for {
				if _, err := c.Read(buf); err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	// More connections than there may be: they are told, and once they have gone, others come in.
	var many []net.Conn
	for range 500 {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			continue
		}
		_, _ = c.Write(hello)
		many = append(many, c)
	}
	for _, c := range many {
		_ = c.Close()
	}
	// A slow reader holds no worker.
	slow, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	if _, err := slow.Write(join(hello, query("SELECT repeat('x', 1000) FROM range(100000)"))); err != nil {
		t.Error(err)
	}
	witness()
	deadline := time.Now().Add(30 * time.Second)
	for {
		c, err := pgx.Connect(context.Background(), s.url("reader", ""))
		if err == nil {
			_ = c.Close(context.Background())
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no new session after the flood: %v", err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	if treeHash(t, l.Path("data")) != before {
		t.Error("the lake's files have changed")
	}
	if !s.proc.Running() {
		t.Error("the server has ended")
	}
}
