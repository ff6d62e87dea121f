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
	"github.com/cauce-data/cauce/internal/sparktest"
	"github.com/cauce-data/cauce/test/lab"
)

// submitFlags are the flags of `cauce spark submit` for a small local Spark with Delta Lake and Kafka. The environment that it
// needs is set for the test.
func submitFlags(t *testing.T) []string { return sparktest.SubmitFlags(t, "local[2]") }

// clusterFlags are submitFlags for a standalone master with two workers.
func clusterFlags(t *testing.T) []string { return sparktest.SubmitFlags(t, master(t)) }

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
