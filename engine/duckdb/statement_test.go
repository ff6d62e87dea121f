package duckdb

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/pipeline"
)

// text is a statement in one line.
func (s *Statement) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", s.Kind, s.Table)
	add := func(what string, v any, is bool) {
		if is {
			fmt.Fprintf(&b, " | %s %v", what, v)
		}
	}
	add("as", s.Alias, s.Alias != "")
	for _, a := range s.Set {
		add("set "+a.Column, a.Value, true)
	}
	add("where", s.Where, s.Where != nil)
	add("columns", s.Columns, s.Columns != nil)
	add("by name", "", s.ByName)
	add("overwrite", "", s.Overwrite)
	add("dynamic", s.Dynamic, s.Dynamic != nil)
	add("query", s.Query, s.Query != "")
	if s.Kind == "MERGE" {
		add("source", s.Merge.SourceAlias, s.Merge.SourceAlias != "")
		add("on", s.Merge.On, true)
		add("evolve", "", s.Merge.SchemaEvolution)
		for _, c := range s.Merge.Clauses {
			fmt.Fprintf(&b, " | %d", c.Kind)
			add("and", c.Condition, c.Condition != nil)
			add("delete", "", c.Delete)
			add("all", "", c.All)
			for _, a := range c.Set {
				add(a.Column, a.Value, true)
			}
		}
	}
	add("zorder", s.ZOrderBy, s.ZOrderBy != nil)
	add("full", "", s.Full)
	add("lite", "", s.Lite)
	add("dry", "", s.DryRun)
	if s.Retain != nil {
		add("retain", *s.Retain, true)
	}
	if s.Version != nil {
		add("version", *s.Version, true)
	}
	add("time", s.Timestamp, s.Timestamp != "")
	add("constraint", s.Constraint, s.Constraint != "")
	add("check", s.Check, s.Check != nil)
	add("if exists", "", s.IfExists)
	if c := s.Create; c != nil {
		add("schema", c.Schema.JSON(), true)
		add("partition by", c.PartitionBy, c.PartitionBy != nil)
		add("cluster by", c.ClusterBy, c.ClusterBy != nil)
		add("config", c.Config, c.Config != nil)
		add("comment", c.Description, c.Description != "")
		add("if not exists", "", c.IfNotExists)
	}
	for _, c := range s.NewColumns {
		add("add", c, true)
	}
	add("path", strings.Join(s.Path, "."), s.Path != nil)
	add("to", s.NewName, s.NewName != "")
	add("paths", s.Paths, s.Paths != nil)
	if c := s.Change; s.Kind == "CHANGE COLUMN" {
		add("type", c.Type, c.Type != nil)
		if c.Comment != nil {
			add("comment", *c.Comment, true)
		}
		add("nullable", "", c.Nullable)
		if c.Default != nil {
			add("default", *c.Default, true)
		}
		add("position", c.Position, c.Position != delta.Position{})
	}
	add("properties", s.Properties, s.Properties != nil)
	add("names", s.Names, s.Names != nil)
	add("feature", s.Feature, s.Feature != "")
	add("truncate", "", s.TruncateHistory)
	add("extended", "", s.Extended)
	add("limit", s.Limit, s.Limit != 0)
	return b.String()
}

func TestParseStatement(t *testing.T) {
	e := testEngine(t)
	for sql, want := range map[string]string{
		"delete from t": "DELETE t",
		"DELETE FROM t AS x WHERE x.a = 1 AND t.b > 2;":                                          "DELETE t | as x | where ((a = 1) AND (b > 2))",
		"DELETE FROM 'a/b' -- c\n WHERE s = 'it''s; --'":                                         "DELETE a/b | where (s = 'it\\'s; --')",
		"UPDATE t SET a = b + 1, \"B c\" = CASE WHEN x THEN 1 ELSE f(2, 3) END WHERE where_ = 1": "UPDATE t | set a (b + 1) | set B c CASE WHEN x THEN 1 ELSE f(2, 3) END | where (where_ = 1)",
		"UPDATE t SET d = 1e300, e = -1.5E-310, f = 12e2 WHERE d < 1e308":                        "UPDATE t | set d 1e+300D | set e -1.5e-310D | set f 1200 | where (d < 1e+308D)",
		"TRUNCATE TABLE t;":                                                "TRUNCATE t",
		"truncate delta.`a/b`":                                             "TRUNCATE a/b",
		"UPDATE t x SET x.a = x.b":                                         "UPDATE t | as x | set a b",
		"INSERT INTO t VALUES (1, 'a'), (2, 'b')":                          "INSERT t | query VALUES (1, 'a'), (2, 'b')",
		"INSERT INTO TABLE t (a, b) SELECT 1, 2":                           "INSERT t | columns [a b] | query SELECT 1, 2",
		"INSERT INTO t BY NAME SELECT 1 AS a":                              "INSERT t | by name  | query SELECT 1 AS a",
		"INSERT OVERWRITE t (SELECT 1)":                                    "INSERT t | overwrite  | query (SELECT 1)",
		"INSERT OVERWRITE TABLE t PARTITION (a, `b c`) (x, a) SELECT 1, 2": "INSERT t | columns [x a] | overwrite  | dynamic [a b c] | query SELECT 1, 2",
		"INSERT INTO t BY NAME REPLACE USING (d) SELECT 1 AS d":            "INSERT t | by name  | overwrite  | dynamic [d] | query SELECT 1 AS d",
		"INSERT INTO t REPLACE WHERE a IS DISTINCT FROM 1 FROM u":          "INSERT t | where (NOT (a <=> 1)) | query FROM u",
		"INSERT INTO t REPLACE WHERE a > 1 AND b = 2 SELECT 2, 2":          "INSERT t | where ((a > 1) AND (b = 2)) | query SELECT 2, 2",
		"MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *": "MERGE t | query SELECT * FROM \"s\" | source s | on (t.id = s.id) | 1 | all  | 2 | all ",
		"MERGE WITH SCHEMA EVOLUTION INTO t a USING (SELECT ')' AS x, (1)) b ON a.x = b.x WHEN MATCHED AND CASE WHEN b.x = 'WHEN' THEN true ELSE false END THEN DELETE WHEN NOT MATCHED BY TARGET AND b.x > '' THEN INSERT (x, y) VALUES (b.x, f(1, 2)) WHEN NOT MATCHED BY SOURCE THEN UPDATE SET a.x = NULL": "MERGE t | as a | query SELECT * FROM (SELECT ')' AS x, (1)) AS source | source b | on (a.x = b.x) | evolve  | 1 | and CASE WHEN (b.x = 'WHEN') THEN TRUE ELSE FALSE END | delete  | 2 | and (b.x > '') | x b.x | y f(1, 2) | 3 | x NULL",
		"OPTIMIZE t": "OPTIMIZE t",
		"OPTIMIZE t WHERE d >= '2024' ZORDER BY (a, \"b c\")": "OPTIMIZE t | where (d >= '2024') | zorder [a b c]",
		"OPTIMIZE delta.`x` FULL":                             "OPTIMIZE ./x | full ",
		"VACUUM t LITE RETAIN 12.5 HOURS DRY RUN":             "VACUUM t | lite  | dry  | retain 12h30m0s",
		"REORG TABLE t APPLY (PURGE)":                         "REORG t",
		"RESTORE TABLE t TO VERSION AS OF 3":                  "RESTORE t | version 3",
		"RESTORE t TO TIMESTAMP AS OF '2024-01-01'":           "RESTORE t | time 2024-01-01",
		"ALTER TABLE t ADD CONSTRAINT c CHECK (a > 0)":        "ADD CONSTRAINT t | constraint c | check (a > 0)",
		"ALTER TABLE t DROP CONSTRAINT IF EXISTS c":           "DROP CONSTRAINT t | constraint c | if exists ",
		"CREATE TABLE IF NOT EXISTS 'a/b' (id BIGINT NOT NULL COMMENT 'the, id', `p q` DECIMAL(10,2) DEFAULT coalesce(1, 2) COMMENT 'x', d DATE GENERATED ALWAYS AS (CAST(ts AS DATE)), s STRUCT<a: INT, b: MAP<STRING, ARRAY<INT>>>) USING delta PARTITIONED BY (d) CLUSTER BY (id, s) COMMENT 'c' TBLPROPERTIES ('delta.appendOnly' = 'true', delta.x = 1)": "CREATE TABLE a/b | schema " +
			`{"type":"struct","fields":[{"name":"id","type":"long","nullable":false,"metadata":{"comment":"the, id"}},{"name":"p q","type":"decimal(10,2)","nullable":true,"metadata":{"CURRENT_DEFAULT":"coalesce(1, 2)","comment":"x"}},{"name":"d","type":"date","nullable":true,"metadata":{"delta.generationExpression":"CAST(ts AS DATE)"}},{"name":"s","type":{"type":"struct","fields":[{"name":"a","type":"integer","nullable":true,"metadata":{}},{"name":"b","type":{"type":"map","keyType":"string","valueType":{"type":"array","elementType":"integer","containsNull":true},"valueContainsNull":true},"nullable":true,"metadata":{}}]},"nullable":true,"metadata":{}}]}` +
			" | partition by [d] | cluster by [id s] | config map[delta.appendOnly:true delta.x:1] | comment c | if not exists ",
		"ALTER TABLE t ADD COLUMN a.b INT COMMENT 'x' AFTER c":        "ADD COLUMNS t | add {[a b] integer x after c}",
		"ALTER TABLE t ADD COLUMNS (a INT FIRST, b STRING)":           "ADD COLUMNS t | add {[a] integer  first} | add {[b] string  after }",
		"ALTER TABLE t RENAME COLUMN s.`x y` TO z":                    "RENAME COLUMN t | path s.x y | to z",
		"ALTER TABLE t DROP COLUMN IF EXISTS a":                       "DROP COLUMNS t | if exists  | paths [[a]]",
		"ALTER TABLE t DROP COLUMNS (a, s.b)":                         "DROP COLUMNS t | paths [[a] [s b]]",
		"ALTER TABLE t ALTER COLUMN a.element TYPE BIGINT":            "CHANGE COLUMN t | path a.element | type long",
		"ALTER TABLE t CHANGE a COMMENT 'it''s'":                      "CHANGE COLUMN t | path a | comment it's",
		"ALTER TABLE t ALTER COLUMN a DROP NOT NULL":                  "CHANGE COLUMN t | path a | nullable ",
		"ALTER TABLE t ALTER COLUMN a SET DEFAULT 1 + 1":              "CHANGE COLUMN t | path a | default (1 + 1)",
		"ALTER TABLE t ALTER COLUMN a DROP DEFAULT":                   "CHANGE COLUMN t | path a | default ",
		"ALTER TABLE t ALTER COLUMN a AFTER b":                        "CHANGE COLUMN t | path a | position after b",
		"ALTER TABLE t SET TBLPROPERTIES ('a' = 'b', c.d = true)":     "SET TBLPROPERTIES t | properties map[a:b c.d:true]",
		"ALTER TABLE t UNSET TBLPROPERTIES IF EXISTS (delta.x, 'y')":  "UNSET TBLPROPERTIES t | if exists  | names [delta.x y]",
		"ALTER TABLE t CLUSTER BY (a, b)":                             "CLUSTER BY t | names [a b]",
		"ALTER TABLE t CLUSTER BY NONE":                               "CLUSTER BY t",
		"ALTER TABLE t DROP FEATURE deletionVectors TRUNCATE HISTORY": "DROP FEATURE t | feature deletionVectors | truncate ",
		"DESCRIBE t;":                                    "DESCRIBE TABLE t",
		"desc table 'a/b'":                               "DESCRIBE TABLE a/b",
		"DESCRIBE TABLE EXTENDED t":                      "DESCRIBE TABLE t | extended ",
		"DESCRIBE FORMATTED t":                           "DESCRIBE TABLE t | extended ",
		"DESCRIBE extended":                              "DESCRIBE TABLE extended",
		"DESCRIBE history":                               "DESCRIBE TABLE history",
		"DESCRIBE HISTORY delta.`a/b` LIMIT 3":           "DESCRIBE HISTORY a/b | limit 3",
		"DESCRIBE DETAIL \"detail\"":                     "DESCRIBE DETAIL detail",
		"SHOW TBLPROPERTIES t (delta.appendOnly)":        "SHOW TBLPROPERTIES t | names [delta.appendOnly]",
		"SHOW TBLPROPERTIES t":                           "SHOW TBLPROPERTIES t",
		"SHOW PARTITIONS t":                              "SHOW PARTITIONS t",
		"ALTER TABLE t DROP FEATURE variantType-preview": "DROP FEATURE t | feature variantType-preview",
	} {
		s, err := e.ParseStatement(sql)
		if err != nil {
			t.Errorf("%s: %v", sql, err)
			continue
		}
		if got := s.text(); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", sql, got, want)
		}
	}
	for _, sql := range []string{"SELECT 1", "", "  ", "WITH x AS (SELECT 1) SELECT * FROM x", "DROP TABLE t", "'DELETE", "FROM t", "DESCRIBE", "DESCRIBE SELECT 1", "DESCRIBE (SELECT 1)", "DESCRIBE FROM t", "SHOW", "SHOW TABLES", "SHOW ALL TABLES", "SHOW partitions"} {
		if s, err := e.ParseStatement(sql); s != nil || err != nil {
			t.Errorf("%s: %v, %v; want nothing", sql, s, err)
		}
	}
	for _, sql := range []string{
		"DELETE t", "DELETE FROM", "DELETE FROM t WHERE", "DELETE FROM t WHERE a = 1; DELETE FROM t", "DELETE FROM t WHERE a = (SELECT 1)", "DELETE FROM a.b", "DELETE FROM t x y",
		"TRUNCATE TABLE", "TRUNCATE t WHERE a = 1", "TRUNCATE TABLE t PARTITION (d = 1)",
		"UPDATE t", "UPDATE t SET", "UPDATE t SET a", "UPDATE t SET a = ", "UPDATE t SET a = 1,", "UPDATE t SET s.x = 1", "UPDATE t SET a = 1 WHERE",
		"INSERT t VALUES (1)", "INSERT INTO t", "INSERT INTO t (a", "INSERT INTO t (a) BY NAME SELECT 1", "INSERT INTO t PARTITION (d) SELECT 1", "INSERT OVERWRITE t PARTITION (d = 1) SELECT 1", "INSERT OVERWRITE t PARTITION (d)",
		"INSERT OVERWRITE t PARTITION SELECT 1", "INSERT OVERWRITE t REPLACE USING (d) SELECT 1", "INSERT INTO t REPLACE USING (d) REPLACE WHERE d = 1 SELECT 1", "INSERT INTO t REPLACE USING () SELECT 1", "MERGE INTO t", "MERGE INTO t USING s", "MERGE INTO t USING s ON a = b",
		"MERGE INTO t USING t ON a = b WHEN MATCHED THEN DELETE", "MERGE INTO t USING (s ON a = b WHEN MATCHED THEN DELETE", "MERGE INTO t USING s ON a = b WHEN MATCHED THEN", "MERGE INTO t USING s ON a = b WHEN NOT MATCHED THEN INSERT (a) VALUES (1, 2)",
		"MERGE INTO t USING s ON a = b WHEN NOT MATCHED THEN INSERT (a, b) VALUES (1)", "MERGE INTO t USING s ON a = b WHEN MATCHED THEN DELETE x", "OPTIMIZE", "OPTIMIZE t WHERE", "OPTIMIZE t ZORDER BY (", "VACUUM t RETAIN HOURS", "VACUUM t x", "VACUUM t RETAIN 1e9 HOURS",
		"RESTORE t", "RESTORE t TO VERSION AS OF x", "REORG TABLE t", "ALTER TABLE t", "ALTER TABLE t ADD CONSTRAINT c", "ALTER TABLE t ADD CONSTRAINT c CHECK", "ALTER TABLE t RENAME TO x",
		"DESCRIBE HISTORY t LIMIT", "DESCRIBE HISTORY t LIMIT 0", "DESCRIBE HISTORY t LIMIT 1.5", "DESCRIBE DETAIL t LIMIT 1", "DESCRIBE t x", "DESCRIBE TABLE EXTENDED t x", "SHOW TBLPROPERTIES t (", "SHOW TBLPROPERTIES t (a, b)", "SHOW PARTITIONS t x", "DESCRIBE a.b",
		"CREATE TABLE t", "CREATE TABLE t AS SELECT 1", "CREATE TABLE t (a)", "CREATE TABLE t (a INT", "CREATE TABLE t (a NOTYPE)", "CREATE TABLE t (a INT b)", "CREATE TABLE t (a MAP<INT)", "CREATE TABLE t (a INT) TBLPROPERTIES (x = )", "CREATE TABLE t (a INT) WHERE",
		"ALTER TABLE t ADD COLUMN", "ALTER TABLE t ADD COLUMNS (a INT", "ALTER TABLE t RENAME COLUMN a", "ALTER TABLE t DROP COLUMN", "ALTER TABLE t ALTER COLUMN a", "ALTER TABLE t ALTER COLUMN a TYPE", "ALTER TABLE t SET TBLPROPERTIES", "ALTER TABLE t CLUSTER BY", "ALTER TABLE t DROP FEATURE",
	} {
		var s *pipeline.SyntaxError
		if got, err := e.ParseStatement(sql); !errors.As(err, &s) {
			t.Errorf("%s: %v, %v; want a syntax error", sql, got, err)
		}
	}
	for sql, want := range map[string]string{
		"DELETE FROM t WHERE id = ":                        "incomplete (line 1, column 25)",
		"DELETE FROM t WHERE (id = 1":                      "incomplete",
		"UPDATE t SET s = {'a': 7, 'b': 'z'} WHERE id = 1": "line 1, column 19",
		"INSERT INTO t VALUES (1, DEFAULT)":                "have their default (line 1, column 26)",
		"INSERT INTO t (a) VALUES (1), (DEFAULT)":          "have their default",
	} {
		if _, err := e.ParseStatement(sql); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "at or near") {
			t.Errorf("%s: %v, want %s", sql, err, want)
		}
	}
}

func FuzzParseStatement(f *testing.F) {
	for _, s := range []string{"DELETE FROM t WHERE a = 1", "MERGE INTO t USING (SELECT 1) s ON a = b WHEN MATCHED THEN UPDATE SET a = CASE WHEN 1 THEN 2 END", "INSERT INTO t (a) VALUES (1)", "UPDATE t SET a = 1, b = (2", "VACUUM t RETAIN 1 HOURS", "CREATE TABLE t (a MAP<STRING, STRUCT<b: INT>> NOT NULL DEFAULT (1), c INT GENERATED ALWAYS AS (a + 1)) CLUSTER BY (a)", "ALTER TABLE t ADD COLUMNS (a.b INT FIRST, c STRING AFTER d)", "ALTER TABLE t SET TBLPROPERTIES (a.b = 'c')", "DESCRIBE HISTORY t LIMIT 2", "SHOW TBLPROPERTIES t ('x')"} {
		f.Add(s)
	}
	e, err := Open(Options{Threads: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { e.Close() })
	f.Fuzz(func(_ *testing.T, sql string) {
		_, _ = e.ParseStatement(sql)
		_, _ = deltaParser{e}.ParseExpression(sql)
	})
}

// The rows that a statement collects are those of its query, with the types that an INSERT wants.
func TestCollect(t *testing.T) {
	ctx := context.Background()
	e := testEngine(t)
	s := &Statement{Query: "SELECT i, '2024-01-0' || i, i / 2 FROM range(1, 4) r(i)"}
	schema := &delta.Schema{Fields: []delta.Field{{Name: "a", Type: delta.Short}, {Name: "when", Type: delta.Timestamp}, {Name: "half", Type: delta.Decimal{P: 5, S: 1}}}}
	sql, err := s.InsertQuery(schema, 3)
	if err != nil {
		t.Fatal(err)
	}
	r, err := e.Query(ctx, sql, nil)
	if err != nil {
		t.Fatal(err)
	}
	rows, done, err := e.Collect(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		var got []string
		for b, err := range rows.Read(ctx, nil, nil) {
			if err != nil {
				t.Fatal(err)
			}
			for i := range int(b.NumRows()) {
				got = append(got, fmt.Sprint(b.Column(0).ValueStr(i), " ", b.Column(1).ValueStr(i), " ", b.Column(2).ValueStr(i)))
			}
		}
		if fmt.Sprint(got) != "[1 2024-01-01T00:00:00Z 0.5 2 2024-01-02T00:00:00Z 1 3 2024-01-03T00:00:00Z 1.5]" || rows.NumRows() != 3 {
			t.Errorf("%d rows: %v", rows.NumRows(), got)
		}
	}
	if _, err := s.InsertQuery(schema, 2); err == nil {
		t.Error("two values for three columns are taken")
	}
}
