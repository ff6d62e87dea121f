package peers

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cauce-data/cauce/delta"
)

// The second half of the matrix: Spark changes copies of the tables that Cauce wrote; Cauce reads what became of them, and
// goes on.

// The rows of MERGE as Spark runs it, and then Cauce.
var (
	sparkMerges = model{2: {-1, "", "y"}, 3: {333, "", "x"}, 300: {3, "spark", "x"}}
	thenMerged  = model{3: {-1, "", "x"}, 4: {4, "", "z"}, 400: {400, "last", "y"}}
)

// sparkStep is something that Spark does to a table.
type sparkStep struct {
	name string
	sql  func(x *entry) string // nil: a checkpoint
	// done reports whether it has left its trace. Spark finds nothing to do in some tables, but not in most.
	done func(before, after folder) bool
}

// folder is what a table's folder holds.
type folder struct {
	version     delta.Version
	data        int // files with rows
	checkpoints int
}

var sparkSteps = []sparkStep{
	{"MERGE", func(x *entry) string {
		if x.noMerge() {
			return "INSERT INTO " + x.sparkName() + " (id, n, v, p) VALUES (300, 3, 'spark', 'x')"
		}
		return mergeInto(x.sparkName(), sparkMerges)
	}, func(before, after folder) bool { return after.version == before.version+1 }},
	{"OPTIMIZE", func(x *entry) string { return "OPTIMIZE " + x.sparkName() },
		func(before, after folder) bool { return after.version > before.version }},
	{"VACUUM", func(x *entry) string { return "VACUUM " + x.sparkName() + " RETAIN 0 HOURS" },
		func(before, after folder) bool { return after.data < before.data }},
	{"checkpoint", nil, func(_, after folder) bool { return after.checkpoints > 0 }},
}

func (x *entry) noMerge() bool     { return x.refuses["MERGE INTO"] != nil }
func (x *entry) sparkName() string { return "delta.`" + x.path + "`" }

// copyForSpark copies the table as it is after an operation into a folder of its own.
func (x *entry) copyForSpark(operation string) {
	x.t.Helper()
	c := *x
	c.after, c.rowsOf = operation, maps.Clone(x.rowsOf)
	c.states, c.cells, c.readers = nil, map[string]string{}, map[string]string{}
	name := x.slug() + "-after-" + slug(operation)
	c.path = filepath.Join(x.m.dir, name)
	if err := os.CopyFS(c.path, os.DirFS(x.path)); err != nil {
		x.t.Fatal(err)
	}
	tab, err := delta.Open(x.ctx, x.m.store, name, &delta.Options{Engine: x.e.Delta()})
	if err != nil {
		x.t.Fatalf("%s: %v", name, err)
	}
	c.ours = &ours{x.t, x.e, tab}
	x.m.copies = append(x.m.copies, &c)
}

func (x *entry) folder() (f folder) {
	x.t.Helper()
	s, err := x.table.Snapshot(x.ctx)
	if err != nil {
		x.t.Fatalf("%s: %v", x.path, err)
	}
	f.version = s.Version()
	checkpoints, err := filepath.Glob(filepath.Join(x.path, "_delta_log", fmt.Sprintf("%020d.checkpoint*", f.version)))
	if err != nil {
		x.t.Fatal(err)
	}
	f.checkpoints = len(checkpoints)
	for _, pattern := range []string{"*.parquet", "*/*.parquet"} {
		found, err := filepath.Glob(filepath.Join(x.path, pattern))
		if err != nil {
			x.t.Fatal(err)
		}
		f.data += len(slices.DeleteFunc(found, func(p string) bool { return strings.Contains(p, "_delta_log") }))
	}
	return f
}

// changedBySpark has Spark change the copies step by step, and Cauce read them after each and go on after the last.
func (m *matrix) changedBySpark(s *spark) {
	s.sql("SET spark.databricks.delta.retentionDurationCheck.enabled = false")
	defer s.sql("RESET spark.databricks.delta.retentionDurationCheck.enabled")
	for _, step := range sparkSteps {
		start := time.Now()
		before := make([]folder, len(m.copies))
		var texts []string
		for i, x := range m.copies {
			before[i] = x.folder()
			if step.sql != nil {
				texts = append(texts, step.sql(x))
			} else {
				s.do(map[string]any{"op": "checkpoint", "table": x.path})
			}
		}
		answers := s.each(texts)
		done := 0
		for i, x := range m.copies {
			if answers != nil && answers[i].Failed != "" {
				m.t.Fatalf("%s after %s: Spark's %s: %s", x.name, x.after, step.name, answers[i].Failed)
			}
			x.cells[step.name] = "yes"
			if step.name == "MERGE" {
				if x.noMerge() {
					x.cells[step.name] = "INSERT"
					x.rowsOf.put(model{300: sparkMerges[300]})
				} else {
					x.rowsOf.merge(sparkMerges)
				}
			}
			x.states = []state{x.read(fmt.Sprintf("%s and Spark's %s", x.after, step.name))}
			if step.done(before[i], x.folder()) {
				done++
			}
		}
		m.t.Logf("REPORT: Spark's %s changed %d of %d tables, Cauce read them all: %v", step.name, done, len(m.copies), time.Since(start).Round(time.Second))
		if done*2 < len(m.copies) || done < len(m.copies) && (step.name == "MERGE" || step.name == "checkpoint") {
			m.t.Errorf("Spark's %s changed %d of %d tables only", step.name, done, len(m.copies))
		}
	}
	for _, x := range m.copies {
		op := operation{
			name:  "MERGE INTO",
			run:   func(x *entry) error { return x.statement(mergeInto("t", thenMerged)) },
			apply: func(m model, _ *entry) { m.merge(thenMerged) },
		}
		x.cells["then"] = "MERGE"
		if x.noMerge() {
			op = appendRows(model{400: thenMerged[400]}, false)
			x.cells["then"] = "append"
		}
		if err := op.run(x); err != nil {
			m.t.Fatalf("%s after %s and Spark's changes: %s: %v", x.name, x.after, op.name, err)
		}
		op.apply(x.rowsOf, x)
		x.states = append(x.states, x.read(fmt.Sprintf("%s, Spark's changes and %s", x.after, op.name)))
	}
}

// changes writes the page's table of what Spark changed.
func (m *matrix) changes(b *strings.Builder) {
	b.WriteString("\n## Changed by Spark, read and changed again by Cauce\n\n| table with |")
	for _, step := range sparkSteps {
		b.WriteString(" Spark's " + step.name + " |")
	}
	b.WriteString(" then Cauce's | Cauce | Spark | delta-rs | DuckDB |\n|" + strings.Repeat("---|", len(sparkSteps)+6) + "\n")
	for _, x := range m.copies {
		if x.after != lastOperation {
			continue
		}
		b.WriteString("| " + x.name + " |")
		for _, step := range sparkSteps {
			b.WriteString(" " + x.cells[step.name] + " |")
		}
		fmt.Fprintf(b, " %s | reads | %s | %s | %s |\n", x.cells["then"], x.readers["Spark"], x.readers["deltalake"], x.readers["duckdb"])
	}
}
