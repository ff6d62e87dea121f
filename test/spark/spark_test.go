// Package spark runs lake files on a real Apache Spark beside the embedded engine, and demands the same tables of both.
package spark

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/test/lab"
)

// submitFlags are the flags of `cauce spark submit` for a small local Spark with Delta Lake and Kafka. The environment that it
// needs is set for the test.
func submitFlags(t *testing.T) []string { return sparkFlags(t, "local[2]") }

// clusterFlags are submitFlags for a standalone master with two workers.
func clusterFlags(t *testing.T) []string { return sparkFlags(t, master(t)) }

func sparkFlags(t *testing.T, master string) []string {
	t.Helper()
	prereq.Need(t, "java")
	python, jars := prereq.Need(t, "venv"), prereq.Need(t, "jars")
	t.Setenv("PYSPARK_PYTHON", python)
	t.Setenv("SPARK_LOCAL_IP", "127.0.0.1")
	all, err := filepath.Glob(filepath.Join(jars, "*.jar"))
	if err != nil {
		t.Fatal(err)
	}
	tmp := t.TempDir()
	flags := []string{"--spark-submit", filepath.Join(filepath.Dir(python), "spark-submit"), "--master", master}
	for _, c := range []string{
		"spark.jars=" + strings.Join(all, ","), "spark.ui.enabled=false", "spark.driver.memory=1g", "spark.executor.memory=1g", "spark.local.dir=" + tmp,
		"spark.sql.shuffle.partitions=2", "spark.databricks.delta.snapshotPartitions=2", "spark.driver.host=127.0.0.1", "spark.driver.bindAddress=127.0.0.1",
		"spark.sql.warehouse.dir=" + filepath.Join(tmp, "warehouse"), "spark.driver.extraJavaOptions=" + shortLived + " -Djava.io.tmpdir=" + tmp + " -Dderby.system.home=" + tmp,
		"spark.executor.extraJavaOptions=" + shortLived,
	} {
		flags = append(flags, "--conf", c)
	}
	return flags
}

// shortLived spares a JVM that lives for seconds the compiler for those that live for days.
const shortLived = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"

// put lands a file with a fixed time of modification, since that is part of what a row stores.
func put(t *testing.T, l *lab.Lake, name string, body []byte) {
	t.Helper()
	file := filepath.Join(l.Inbox(), name)
	if err := os.WriteFile(file, body, 0o644); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 678_000_000, time.UTC)
	if err := os.Chtimes(file, at, at); err != nil {
		t.Fatal(err)
	}
}

func decode(t *testing.T, text string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), v); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
}

func tableHash(l *lab.Lake) string { return l.Run("table", "hash", "unified_events") }

// quarantine lists what stands in quarantine, without what depends on the run; more columns are named "x, y, ".
func quarantine(l *lab.Lake, more string) []string {
	out := l.Run("query", "SELECT \"table\", source, origin, position, "+more+"file, line, rule, reason, raw, raw_bytes, raw_offset FROM quarantine ORDER BY file, position, rule", "--format", "csv")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return lines
}

// deltalake counts the rows of the lake's table as delta-rs sees them.
func deltalake(t *testing.T, l *lab.Lake) int {
	t.Helper()
	cmd := exec.Command(prereq.Need(t, "venv"), "-c", `import sys
import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder
print(pa.table(QueryBuilder().register("t", DeltaTable(sys.argv[1])).execute("select count(*) as n from t").read_all())["n"][0])`, l.Table())
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("deltalake: %v", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
