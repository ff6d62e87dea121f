package serve

import "testing"

// What DuckDB's parser would forget, or take for another type, has a name of its own in its text.
func TestForParser(t *testing.T) {
	for sql, want := range map[string]string{
		"SELECT x::NUMERIC, CAST(x AS numeric), numeric '1'":                 "select x::cauce_numeric, cast(x as cauce_numeric), cauce_numeric '1'",
		"SELECT x::numeric(10, 2), CAST(x AS decimal(4))":                    "select x::numeric(10, 2), cast(x as decimal(4))",
		"SELECT numeric, t.decimal AS float FROM t AS numeric":               "select numeric, t.decimal as float from t as numeric",
		"SELECT TRY_CAST(x AS numeric), CAST((SELECT 1 AS char) AS varchar)": "select try_cast(x as numeric), cast((select 1 as char) as varchar)",
		"SELECT x::pg_catalog.float, x::float(53), x::float[]":               "select x::double, x::float(53), x::double[]",
		"SELECT x::varchar(3), x::character varying(3), x::char, 'a'::text":  "select x::cauce_varchar(3), x::cauce_varchar (3), x::cauce_bpchar, 'a'::text",
		`SELECT Price, "Price", 'Price', É FROM "T" Where A ~ 'X'`:           `select price, "Price", 'Price', É from "T" where a ~@ 'X'`,
		"/* a /* b */\n*/ SELECT '/*' -- /*\n, 1/*c*/+ 2":                    "            \n   select '/*'      \n, 1     + 2",
		"SELECT 1 /* a */ /* b /* c */":                                      "select 1         /*          ",
		"SELECT '{1}'::oid[], '{}'::jsonb":                                   "select '{1}'::cauce_oid[], '{}'::json",
	} {
		if got := forParser(sql); got != want {
			t.Errorf("%s\n got %s\nwant %s", sql, got, want)
		}
	}
}
