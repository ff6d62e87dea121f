package bi

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// sameAsPostgreSQL are statements that DuckDB alone would read otherwise, a line each.
const sameAsPostgreSQL = `
SELECT 1.23456789::numeric, cast(0.00012345 AS numeric) * 1000000, 12345678901234567890::numeric, '1e-5'::numeric, numeric '1.50', '-.5'::dec, NULL::numeric, CAST('7' AS pg_catalog.numeric)
SELECT round(amount::numeric, 1), amount::numeric, amount::NUMERIC(12, 1), (order_id + 1)::numeric FROM orders ORDER BY order_id
SELECT sum(amount)::numeric, round(avg(amount)::numeric, 2), max(order_id)::numeric, round((sum(amount) / 7)::numeric, 4) FROM orders
SELECT status, round(avg(lat)::numeric, 3) FROM orders GROUP BY status HAVING count(lat)::numeric > 0.5
SELECT ('1.' || order_id)::numeric + 1 FROM orders ORDER BY 1
SELECT '{1.5,2.25}'::numeric[], '{1e-3}'::numeric[], 'NaN'::numeric
SELECT numeric FROM (SELECT 1 AS numeric) t
SELECT 16777217::float, '0.1'::float, cast(1 AS float(24)), float '2.5', 16777217::real
SELECT extract(second FROM ts + interval '1.5 seconds'), date_part('seconds', ts + interval '1.25 seconds'), extract(milliseconds FROM time '12:00:01.0015'), extract(second FROM interval '-1.5 seconds'), date_part('minute', ts) FROM orders ORDER BY order_id
SELECT to_char(ts, 'FMMonth FMDD, YYYY'), to_char(ts, 'MONTH|Month|month|MON Mon mon'), to_char(ts, 'DAY|Day|FMDay|dy Dy DY'), to_char(ts, 'Mon-YY') FROM orders ORDER BY order_id
SELECT to_char(ts, 'YYYY-"Q"Q'), to_char(ts, 'DDD FMDDD D ID'), to_char(ts, 'IYYY-IW WW W CC J YYY Y'), to_char(ts, 'yyyy-mm-dd"T"hh24:mi:ss.US MS'), to_char(ts, 'FMHH12:MI PM am'), to_char(ts, 'YYYY-MM-01 100%') FROM orders ORDER BY order_id
SELECT to_char(date '2024-12-30', 'IYYY-"W"IW Dy'), to_char(NULL::timestamp, 'YYYY Q') IS NULL, to_date('05 Aug 2024', 'DD Mon YYYY'), to_date('240805', 'YYMMDD')
SELECT row(1, 'a,b', NULL, true, 'q"\x', ''), (1, row(2, 'x y'))
SELECT array_agg((order_id, status) ORDER BY order_id) FROM orders
SELECT 'abcdef'::varchar(2), 'abcdef'::char(3), 'ab'::character varying(1), cast('xyz' AS char), 12345::varchar(3), left(status, 3)::char(2) FROM orders
SELECT '12:34:56+02'::timetz, date '4713-01-01 BC', timestamp '0044-03-15 12:00:00 BC', '2024-01-01 AD'::date
SELECT round(2.5::float8), round(-3.5::float8), round(2.5), round(1.005::float8::numeric, 2), round(lat) FROM orders ORDER BY order_id
SELECT '5.7'::int
SELECT ' 42 '::int, '-1'::bigint, 5.7::int, 2.5::float8::int
SELECT ARRAY[1, 2]::text, '{a,"b c"}'::text[]::text, ARRAY['x', NULL, '', 'null']::text, array_agg(order_id ORDER BY order_id)::text FROM orders
SELECT '{1,2}'::int[] || 3, 0 || ARRAY[1], '{1}'::int[] || '{2}'::int[]
SELECT '{1,2}'::oid[], '{a}'::name[], ('{"a": 1}'::jsonb) ->> 'a'
VALUES (1, 'x'), (2, 'y')
SELECT column2 FROM (VALUES (1, 2)) t
SELECT * FROM (VALUES (1, 2)) t(x)
SELECT grouping(status), count(*) FROM orders GROUP BY GROUPING SETS ((status), ()) ORDER BY 1, 2
SELECT 1 A, Status, STATUS::TEXT, Max(Order_Id) MX, "status" AS "S" FROM Orders o GROUP BY 2 ORDER BY O.Status
SELECT pg_typeof(1), pg_typeof('x'::text), pg_typeof(amount), pg_typeof(ts), pg_typeof(lat), pg_typeof(tags), pg_typeof(date '2024-01-01'), pg_typeof(timestamp '2024-01-01') FROM orders LIMIT 1
SELECT 'int'::regtype, to_regtype('float8'), 'int'::regtype::oid, 'pg_class'::regclass, to_regclass('orders')
SELECT has_column_privilege('orders', 'amount', 'select'), has_column_privilege('reader', 'orders', 'amount', 'SELECT'), has_column_privilege('orders', 'amount', 'insert')
`

// notHere are statements that PostgreSQL answers and the lake refuses.
var notHere = map[string]string{
	"SELECT ('0.1234567890123' || order_id)::numeric FROM orders": "22023", "SELECT to_char(ts, 'TZ') FROM orders": "0A000", "SELECT to_char(ts, 'DDTHH24') FROM orders": "0A000",
	"SELECT to_char(1234.5, '9,999.00')": "0A000", "SELECT '{{1,2},{3,4}}'::int[]": "0A000", "SELECT '{abc}'::varchar(2)[]": "0A000", "SELECT '1e-39'::numeric": "22003", "SELECT 5::bit(3)": "0A000",
}

var trailingZeros = regexp.MustCompile(`(\.\d*?)0+\b`)

// plain takes away zeros at the end of numbers: the values of a column have as many digits as the widest.
func plain(v string) string {
	return regexp.MustCompile(`\.(\D|$)`).ReplaceAllString(trailingZeros.ReplaceAllString(v, "$1"), "$1")
}

// with runs a statement with parameters, given as type and text, and gives the rows as texts.
func with(t *testing.T, c *pgconn.PgConn, sql string, oids []uint32, values []string) ([]string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var params [][]byte
	for _, v := range values {
		params = append(params, []byte(v))
	}
	r := c.ExecParams(ctx, sql, params, oids, nil, nil).Read()
	var rows []string
	for _, row := range r.Rows {
		var cells []string
		for _, v := range row {
			cells = append(cells, plain(string(v)))
		}
		rows = append(rows, strings.Join(cells, "|"))
	}
	return rows, r.Err
}

// Statements mean what they mean in PostgreSQL where DuckDB would take them otherwise, or are refused.
func TestStatementsMeanWhatPostgreSQLMeans(t *testing.T) {
	addr := startPostgreSQL(t)
	s := serveLake(t, newShop(t))
	ctx := context.Background()
	connect := func(addr string) *pgconn.PgConn {
		c, err := pgconn.Connect(ctx, "postgres://reader@"+addr+"/lake")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close(ctx) })
		return c
	}
	theirs, ours := connect(addr), connect(s.addr)
	for sql := range strings.Lines(strings.TrimSpace(sameAsPostgreSQL)) {
		sql = strings.TrimSpace(sql)
		want, got := ask(theirs, sql), ask(ours, sql)
		for i := range want.rows {
			want.rows[i] = plain(want.rows[i])
		}
		for i := range got.rows {
			got.rows[i] = plain(got.rows[i])
		}
		if diff := differ(want, got); diff != "" {
			t.Errorf("%s\n    %s", sql, diff)
		}
		if want.err != nil && code(want.err) != code(got.err) {
			t.Errorf("%s: %v, want %v", sql, got.err, want.err)
		}
	}
	for sql, want := range notHere {
		if got := ask(ours, sql); code(got.err) != want {
			t.Errorf("%s: %v, %v; want %s", sql, got.rows, got.err, want)
		}
	}
	t.Run("numbers beside columns", func(t *testing.T) { // a parameter does not round what stands beside it
		number := []uint32{pgtype.NumericOID}
		for _, sql := range []string{
			"SELECT sum(CASE WHEN status = 'paid' THEN amount ELSE $1 END) FROM orders", "SELECT sum(coalesce(amount, $1)) FROM orders", "SELECT greatest(amount, $1), least(amount, $1), nullif(amount, $1) FROM orders",
			"SELECT amount FROM orders UNION ALL SELECT $1 ORDER BY 1", "SELECT amount + $1, amount * $1, amount > $1 FROM orders", "VALUES (1.55), ($1)", "SELECT $1", "SELECT order_id FROM orders WHERE amount IN ($1, 3)",
		} {
			for _, v := range []string{"0", "7", "12.50", "1E-7", "0.00000000000000000001", "1e+5", "-99999999.125", "123456789012345678901234"} {
				want, err := with(t, theirs, sql, number, []string{v})
				if err != nil {
					t.Fatal(err)
				}
				if got, err := with(t, ours, sql, number, []string{v}); err != nil || !slices.Equal(got, want) {
					t.Errorf("%s with %s: %v, %v; want %v", sql, v, got, err, want)
				}
			}
		}
		for _, v := range []string{"{1.1234567890123456,3}", "{}", "{NULL,0.5}"} {
			if got, err := with(t, ours, "SELECT $1", []uint32{pgtype.NumericArrayOID}, []string{v}); err != nil || len(got) != 1 || got[0] != v {
				t.Errorf("array %s: %v, %v", v, got, err)
			}
		}
		if got, err := with(t, ours, "SELECT $1", number, []string{"NaN"}); err != nil || got[0] != "NaN" {
			t.Errorf("NaN: %v, %v", got, err)
		}
		if got, err := with(t, ours, "SELECT $1", number, []string{"0.1000000000000000055511151231257827021181583404541015625"}); code(err) != "22003" {
			t.Errorf("more digits than there are: %v, %v", got, err)
		}
	})
	t.Run("types of parameters", func(t *testing.T) {
		for sql, want := range map[string][]uint32{
			"SELECT $1 + 1": {pgtype.Int4OID}, "SELECT amount + $1 FROM orders": {pgtype.NumericOID}, "SELECT amount * $1, status || $2 FROM orders": {pgtype.NumericOID, pgtype.TextOID},
			"SELECT * FROM generate_series(1, $1)": {pgtype.Int4OID}, "SELECT order_id FROM orders WHERE order_id + $1 = 5": {pgtype.Int8OID}, "SELECT $1::uuid": {pgtype.UUIDOID},
			"SELECT $1::int[], $2::numeric[], $3::oid[], $4::timestamptz[]": {pgtype.Int4ArrayOID, pgtype.NumericArrayOID, 1028, pgtype.TimestamptzArrayOID}, "SELECT $1::numeric": {pgtype.NumericOID},
			"SELECT coalesce(amount, $1) FROM orders": {pgtype.NumericOID}, "SELECT $1": {pgtype.TextOID},
		} {
			theirs, err := theirs.Prepare(ctx, "", sql, nil)
			if err != nil {
				t.Fatal(err)
			}
			ours, err := ours.Prepare(ctx, "", sql, nil)
			if err != nil || !slices.Equal(ours.ParamOIDs, want) || !slices.Equal(theirs.ParamOIDs, want) {
				t.Errorf("%s: %v, PostgreSQL %v; want %v; %v", sql, ours, theirs.ParamOIDs, want, err)
			}
		}
	})
}
