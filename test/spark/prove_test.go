package spark

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cauce-data/cauce/engine/duckdb"
	"github.com/cauce-data/cauce/engine/spark"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/internal/sparktest"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/pipeline"
	"github.com/cauce-data/cauce/pipeline/prove"
)

// submit starts Spark from the wheel in this process's machine, with Delta's jars.
func submit(t *testing.T) spark.Submit {
	t.Helper()
	prereq.Need(t, "java")
	python := prereq.Need(t, "venv")
	tmp := t.TempDir()
	return spark.Submit{
		Command: []string{filepath.Join(filepath.Dir(python), "spark-submit")},
		Master:  "local[2]",
		Env:     []string{"PYSPARK_PYTHON=" + python, "SPARK_LOCAL_IP=127.0.0.1"},
		Conf: map[string]string{
			"spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false", "spark.driver.memory": "2g", "spark.local.dir": tmp,
			"spark.sql.shuffle.partitions": "2", "spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1",
			"spark.driver.extraJavaOptions": sparktest.ShortLived + " -Djava.io.tmpdir=" + tmp + " -Dderby.system.home=" + tmp,
		},
	}
}

// plans compiles every source of a lake file.
func plans(t *testing.T, text string) []*pipeline.Plan {
	t.Helper()
	parser, err := duckdb.NewParser()
	if err != nil {
		t.Fatal(err)
	}
	defer parser.Close()
	file := filepath.Join(t.TempDir(), "lake.yaml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	lake, err := pipeline.Load(file, pipeline.LoadOptions{Parser: parser, Env: os.LookupEnv})
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	var out []*pipeline.Plan
	for _, s := range lake.Sources {
		p, err := lake.Plan(s.Name)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

func embedded(t *testing.T, e *duckdb.Engine, plan *pipeline.Plan, records []prove.Record) map[int64]prove.Fate {
	t.Helper()
	ctx := context.Background()
	x, err := e.NewEpoch(ctx, plan, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	fates, err := prove.Run(ctx, plan, x, records)
	if err != nil {
		t.Fatal(err)
	}
	return fates
}

// one writes a lake file with a source of files whose raw fields a and b fill columns c0, c1 … by expressions.
func one(zone string, types, exprs []string) string {
	var columns, fields strings.Builder
	for i := range exprs {
		fmt.Fprintf(&columns, "      c%d: %q\n", i, types[i])
		fmt.Fprintf(&fields, "      c%d: %q\n", i, exprs[i])
	}
	return "version: 1\nstorage: file:./data\ntables:\n  t:\n    timezone: " + zone + "\n    columns:\n" + columns.String() +
		"sources:\n  s:\n    table: t\n    kind: files\n    location: [\"raw/batch/*.csv\"]\n    format: csv\n    csv: {header: true, optional: [a, b]}\n    fields:\n" + fields.String()
}

// plants are changes of meaning: what an expression means, and what an engine that reads it a little otherwise would make
// of it. The prover must see each of them; the witness is a value of the raw field a that shows it, where b is null.
var plants = []struct{ what, witness, typ, meant, planted string }{
	{"halves go to the even digit", "2.5", "DECIMAL(18,8)", "round(TRY_CAST(a AS DECIMAL(18,8)), 0)", "CASE WHEN TRY_CAST(a AS DECIMAL(18,8)) = 2.5 THEN 2 ELSE round(TRY_CAST(a AS DECIMAL(18,8)), 0) END"},
	{"ß becomes two letters", "ß", "STRING", "upper(a)", "replace(upper(a), 'ẞ', 'SS')"},
	{"a cast cuts decimals off", "12.5", "LONG", "TRY_CAST(a AS LONG)", "coalesce(TRY_CAST(a AS LONG), TRY_CAST(floor(TRY_CAST(a AS DECIMAL(18,8))) AS LONG))"},
	{"milliseconds are microseconds", "1724112000123", "TIMESTAMP", "to_event_time(TRY_CAST(a AS LONG))", "to_event_time(TRY_CAST(a AS LONG) * 1000)"},
	{"null makes a joined text null", "x", "STRING", "concat(a, b)", "a || b"},
	{"NaN is smaller than numbers", "NaN", "BOOLEAN", "TRY_CAST(a AS DOUBLE) > 1", "CASE WHEN TRY_CAST(a AS DOUBLE) = CAST('NaN' AS DOUBLE) THEN FALSE ELSE TRY_CAST(a AS DOUBLE) > 1 END"},
	{"$ matches before a last line feed", "b\nx", "BOOLEAN", "regexp_like(a, 'b$')", "regexp_like(a, '(?m)b$')"},
	{"null is the greatest", "x", "STRING", "greatest(a, b)", "CASE WHEN b IS NULL THEN b ELSE greatest(a, b) END"},
	{"every blank is trimmed", "\tx", "STRING", "trim(a)", "trim(a, ' ' || regexp_extract(a, '[\\t\\n\\r]'))"},
	{"letters are counted in UTF-16", "😀", "LONG", "length(a)", "length(replace(a, '😀', 'xx'))"},
	{"0 is the first letter", "BTC", "STRING", "substr(a, 0, 2)", "substr(a, 1, 2)"},
}

// Both engines make the same rows of the same records, and refuse the same records for the same reason: of the
// templates, of the examples, of the pinned functions' own examples, and of random lake files. Where one of them gives an
// expression another meaning, it is seen.
func TestBothEnginesGiveEveryRecordTheSameFate(t *testing.T) {
	s := submit(t)
	rng := testscale.Rand(t)
	var cases []spark.ProveCase
	var names, text []string
	add := func(name, lake string) {
		for _, p := range plans(t, lake) {
			records := prove.Records(p, rng, testscale.Count(t, "prove-records"))
			if strings.HasPrefix(name, "random-") {
				prove.MakeUnique(p, records, prove.LakeKey)
			}
			cases = append(cases, spark.ProveCase{Plan: p, Records: records})
			names, text = append(names, name+"/"+p.Source.Name), append(text, lake)
		}
	}
	for _, name := range pipeline.Templates() {
		lake, err := pipeline.Template(name, "")
		if err != nil {
			t.Fatal(err)
		}
		add("template "+name, lake)
	}
	for _, name := range []string{"orders", "coinbase", "binance-csv"} {
		lake, err := os.ReadFile(filepath.Join(prereq.Root(), "examples", name, "lake.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		add(name, string(lake))
	}
	// What random lake files have found.
	add("found once", one("Europe/Madrid", []string{"STRING", "LONG", "DECIMAL(38,10)", "DECIMAL(38,16)", "DOUBLE", "DOUBLE", "STRING"}, []string{
		"CAST(to_date(to_event_time('9999-12-31T23:59:59Z')) AS STRING)", "TRY_CAST(TRY_CAST('9223372036854775807' AS DOUBLE) AS LONG)",
		"CAST('-9999999999.99999999' AS DECIMAL(18,8)) - CAST('1' AS DECIMAL(18,8))", "CAST('99999999' AS DECIMAL(18,8)) * CAST('99999999' AS DECIMAL(18,8))",
		"TRY_CAST('3.4028235e38' AS FLOAT) + TRY_CAST('3.4028235e38' AS FLOAT)", "round(TRY_CAST('Infinity' AS FLOAT), -1)", "a",
	}))
	// A table has null for the empty value of a partition column.
	parted := strings.Replace(one("UTC", []string{"STRING", "STRING", "STRING"}, []string{"a", "b", "a || b"}), "    columns:\n", "    partition_by: [c0, c1]\n    key: [c0, c2]\n    columns:\n", 1)
	add("partitioned by texts", parted)
	texts := []string{"", "x", " ", "\x00"}
	last := &cases[len(cases)-1]
	last.Records = nil
	for _, a := range texts {
		for _, b := range texts {
			r := prove.Record{Position: int64(len(last.Records) + 1), Values: make([]*string, len(last.Plan.RawFields))}
			r.Values[slices.Index(last.Plan.RawFields, "a")], r.Values[slices.Index(last.Plan.RawFields, "b")] = &a, &b
			last.Records = append(last.Records, r)
		}
	}
	pinned, firstPinned := prove.PinnedCases(), len(cases)
	for _, c := range pinned {
		p := plans(t, c.Lake())[0]
		cases = append(cases, spark.ProveCase{Plan: p, Records: c.Records(p)})
		names, text = append(names, c.What), append(text, c.Lake())
	}
	add("constant that does not fit", one("UTC", []string{"INT", "STRING"}, []string{"3000000000 + 0", "a"}))
	for i := range testscale.Count(t, "prove-plans") {
		seed := rng.Uint64()
		add(fmt.Sprintf("random-%d", i), prove.Lake(rand.New(rand.NewPCG(seed, 0))))
	}
	// Of the pinned functions' examples those that fail have a plan each, since a record has one fate.
	type example struct {
		at      int // of its case
		sql     []string
		values  []string
		failing bool
	}
	var examples []example
	single := func(sql []string, values []string, failing bool) {
		types := slices.Repeat([]string{"STRING"}, len(sql)+1)
		var texts []string
		for _, x := range sql {
			texts = append(texts, "CAST("+x+" AS STRING)")
		}
		texts = append(texts, "a") // a file has at least one field
		examples = append(examples, example{len(cases), sql, values, failing})
		p := plans(t, one("UTC", types, texts))[0]
		cases = append(cases, spark.ProveCase{Plan: p, Records: []prove.Record{{Position: 1, Values: make([]*string, len(p.RawFields))}}})
		names, text = append(names, "examples of functions"), append(text, strings.Join(sql, "\n"))
	}
	var sql, values []string
	for _, f := range pipeline.Functions() {
		for _, x := range f.Examples {
			if x.Value == "fails" {
				single([]string{x.SQL}, nil, true)
				continue
			}
			sql, values = append(sql, x.SQL), append(values, x.Value)
		}
	}
	single(sql, values, false)
	// What is meant, and what the planted changes make of it, over the same records.
	var types, meant, planted []string
	for _, x := range plants {
		types, meant, planted = append(types, x.typ), append(meant, x.meant), append(planted, x.planted)
	}
	first := len(cases)
	for i, exprs := range [][]string{meant, planted} {
		add([]string{"meant", "planted"}[i], one("UTC", types, exprs))
	}
	cases[first].Records = prove.Records(cases[first].Plan, rng, 100)
	for _, x := range plants {
		r := prove.Record{Position: int64(len(cases[first].Records) + 1), Values: make([]*string, len(cases[first].Plan.RawFields))}
		r.Values[slices.Index(cases[first].Plan.RawFields, "a")] = &x.witness
		cases[first].Records = append(cases[first].Records, r)
	}
	cases[first+1].Records = cases[first].Records
	if !slices.Equal(cases[first].Plan.RawFields, cases[first+1].Plan.RawFields) {
		t.Fatalf("raw fields %v and %v", cases[first].Plan.RawFields, cases[first+1].Plan.RawFields)
	}

	start := time.Now()
	fates, errs, err := s.ProveFates(context.Background(), t.TempDir(), cases)
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	e, err := duckdb.Open(duckdb.Options{TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	var records, kept int
	owns := make([]map[int64]prove.Fate, len(cases))
	for i, c := range cases {
		if errs[i] != nil {
			t.Errorf("%s: %v\n%s", names[i], errs[i], text[i])
			continue
		}
		own := embedded(t, e, c.Plan, c.Records)
		owns[i] = own
		records += len(c.Records)
		for _, f := range own {
			if f.Row != nil {
				kept++
			}
		}
		if ds := prove.Compare(c.Plan, c.Records, own, fates[i]); len(ds) > 0 {
			t.Errorf("%s: %d of %d records differ\n%s%s", names[i], len(ds), len(c.Records), prove.Sample(c.Plan, ds, "embedded", "Spark", 3), text[i])
		}
	}
	t.Logf("REPORT: %d plans, %d records, %d became rows; Spark took %v", len(cases), records, kept, took.Round(time.Second))
	if kept*20 < records {
		t.Errorf("only %d of %d records became rows: that proves little", kept, records)
	}
	if t.Failed() {
		return
	}
	for i, c := range pinned {
		if fate := fates[firstPinned+i][1]; fate.String() != c.Want.String() {
			t.Errorf("%s: on Spark the record %v\nwant %v", c.What, fate, c.Want)
		}
	}
	for _, x := range examples {
		fate := fates[x.at][1]
		if x.failing {
			if fate.Rule == "" {
				t.Errorf("%s: Spark says %v, it must fail", x.sql[0], fate)
			}
			continue
		}
		for i, want := range x.values {
			switch {
			case i >= len(fate.Row):
				t.Fatalf("Spark says %v of the examples", fate)
			case fate.Row[i] == nil && want != "NULL" || fate.Row[i] != nil && *fate.Row[i] != want:
				t.Errorf("%s: Spark says %v, want %s", x.sql[i], fate, want)
			}
		}
	}
	// A renderer that says the planted for the meant is found out, whichever of the two it is.
	for i, x := range plants {
		for _, engines := range [][2]map[int64]prove.Fate{{owns[first], fates[first+1]}, {owns[first+1], fates[first]}} {
			differ := 0
			for _, d := range prove.Compare(cases[first].Plan, cases[first].Records, engines[0], engines[1]) {
				if i < len(d.A.Row) && i < len(d.B.Row) && shown(d.A.Row[i]) != shown(d.B.Row[i]) {
					differ++
				}
			}
			if differ == 0 {
				t.Errorf("nobody sees that %s: %s is the same as %s", x.what, x.meant, x.planted)
			}
		}
	}
}

func shown(s *string) string {
	if s == nil {
		return "NULL"
	}
	return strconv.Quote(*s)
}
