package spark

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cauce-data/cauce/engine/duckdb"
	"github.com/cauce-data/cauce/engine/spark"
	"github.com/cauce-data/cauce/internal/prereq"
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
			"spark.driver.extraJavaOptions": "-Djava.io.tmpdir=" + tmp + " -Dderby.system.home=" + tmp,
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

// Both engines make the same rows of the same records, and refuse the same records for the same reason: of the
// templates, of the examples, and of random lake files.
func TestBothEnginesGiveEveryRecordTheSameFate(t *testing.T) {
	s := submit(t)
	rng := testscale.Rand(t)
	var cases []spark.ProveCase
	var names, texts []string
	add := func(name, text string) {
		for _, p := range plans(t, text) {
			records := prove.Records(p, rng, testscale.Count(t, "prove-records"))
			if strings.HasPrefix(name, "random-") {
				prove.MakeUnique(p, records, prove.LakeKey)
			}
			cases = append(cases, spark.ProveCase{Plan: p, Records: records})
			names, texts = append(names, name+"/"+p.Source.Name), append(texts, text)
		}
	}
	for _, name := range []string{"orders", "coinbase", "binance-csv"} {
		text, err := os.ReadFile(filepath.Join(prereq.Root(), "examples", name, "lake.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		add(name, string(text))
	}
	for i := range testscale.Count(t, "prove-plans") {
		seed := rng.Uint64()
		add(fmt.Sprintf("random-%d", i), prove.Lake(rand.New(rand.NewPCG(seed, 0))))
	}
	fates, errs, err := s.ProveFates(context.Background(), t.TempDir(), cases)
	if err != nil {
		t.Fatal(err)
	}
	e, err := duckdb.Open(duckdb.Options{TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	var records, kept int
	for i, c := range cases {
		if errs[i] != nil {
			t.Errorf("%s: %v\n%s", names[i], errs[i], texts[i])
			continue
		}
		own := embedded(t, e, c.Plan, c.Records)
		records += len(c.Records)
		for _, f := range own {
			if f.Row != nil {
				kept++
			}
		}
		if ds := prove.Compare(c.Plan, c.Records, own, fates[i]); len(ds) > 0 {
			t.Errorf("%s: %d of %d records differ\n%s%s", names[i], len(ds), len(c.Records), prove.Sample(c.Plan, ds, "embedded", "Spark", 3), texts[i])
		}
	}
	t.Logf("%d plans, %d records, %d became rows", len(cases), records, kept)
	if kept*20 < records {
		t.Errorf("only %d of %d records became rows: that proves little", kept, records)
	}
}
