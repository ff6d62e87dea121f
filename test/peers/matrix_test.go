package peers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/delta/expr"
	"github.com/cauce-data/cauce/engine/duckdb"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/objstore"
)

var rewrite = flag.Bool("rewrite", false, "write the pages of docs/ that tests make, instead of comparing them")

// The matrix: for each feature a table is written by every operation, one version after another; every version is read
// by the other programs; then Spark changes copies of the table, and Cauce reads them and goes on (spark_changes_test.go).
// A feature is one entry of features (features_test.go), an operation one of operations.

// model is what the table must hold: a row by its id. The columns of a feature are compared between the readers only.
type model map[int64]mrow

type mrow struct {
	n    int64
	v, p string
}

func (m model) text() string {
	var out []string
	for id, r := range m {
		out = append(out, fmt.Sprintf("id=%d n=%d v=%s p=%s", id, r.n, r.v, r.p))
	}
	sort.Strings(out)
	return strings.Join(out, "\n")
}

// put makes SQL of rows and the change of the model.
func (m model) put(rows model) { maps.Copy(m, rows) }

func (m model) sql(extra string) string {
	var out []string
	for _, id := range slices.Sorted(maps.Keys(m)) {
		r := m[id]
		out = append(out, fmt.Sprintf("SELECT CAST(%d AS BIGINT) AS id, CAST(%d AS BIGINT) AS n, '%s' AS v, '%s' AS p%s", id, r.n, r.v, r.p, extra))
	}
	return strings.Join(out, " UNION ALL ")
}

// operation is a column of the matrix.
type operation struct {
	name  string
	only  func(f feature) bool // nil: for every table
	run   func(x *entry) error
	apply func(m model, x *entry)
}

func appendRows(rows model, evolve bool) operation {
	return operation{
		name: "append",
		run: func(x *entry) error {
			extra := x.extra
			if evolve {
				extra += ", 'new' AS more"
			}
			return x.rows(rows.sql(extra), func(in delta.Rows) error {
				_, err := x.table.Append(x.ctx, in, delta.AppendOptions{Evolve: evolve})
				return err
			})
		},
		apply: func(m model, _ *entry) { m.put(rows) },
	}
}

func removeIf(m model, f func(id int64, r mrow) bool) {
	maps.DeleteFunc(m, func(id int64, r mrow) bool { return f(id, r) })
}

const lastOperation = "VACUUM"

var operations = []operation{
	appendRows(model{1: {10, "a", "x"}, 2: {20, "b", "y"}, 3: {30, "c", "x"}, 4: {40, "d", "z"}, 5: {50, "e", "x"}}, false),
	{
		name: "overwrite",
		run: func(x *entry) error {
			return x.rows(first.sql(x.extra), func(in delta.Rows) error {
				_, err := x.table.Overwrite(x.ctx, in, delta.OverwriteOptions{})
				return err
			})
		},
		apply: func(m model, _ *entry) { clear(m); m.put(first) },
	},
	{
		name: "replaceWhere",
		run: func(x *entry) error {
			return x.rows(replaced.sql(x.extra), func(in delta.Rows) error {
				_, err := x.table.ReplaceWhere(x.ctx, expr.Eq(expr.Col("v"), expr.Lit("c")), in, false, delta.ChangeOptions{})
				return err
			})
		},
		apply: func(m model, _ *entry) {
			removeIf(m, func(_ int64, r mrow) bool { return r.v == "c" })
			m.put(replaced)
		},
	},
	{
		name: "dynamic overwrite",
		run: func(x *entry) error {
			return x.rows(dynamic.sql(x.extra), func(in delta.Rows) error {
				_, err := x.table.Overwrite(x.ctx, in, delta.OverwriteOptions{Dynamic: true})
				return err
			})
		},
		apply: func(m model, x *entry) {
			removeIf(m, func(_ int64, r mrow) bool { return r.p == "y" || x.flat })
			m.put(dynamic)
		},
	},
	{
		name: "merge by key",
		run: func(x *entry) error {
			return x.rows(upserts.sql(x.extra), func(in delta.Rows) error {
				_, err := x.table.Merge(x.ctx, in, delta.MergeOptions{Key: []string{"id"}})
				return err
			})
		},
		apply: func(m model, _ *entry) { m.put(upserts) },
	},
	{
		name: "MERGE INTO",
		run: func(x *entry) error {
			return x.statement(mergeInto("t", merged))
		},
		apply: func(m model, x *entry) { m.merge(merged) },
	},
	{
		name: "UPDATE",
		run:  func(x *entry) error { return x.statement("UPDATE t SET n = n + 1, v = 'up' WHERE id % 2 = 0") },
		apply: func(m model, _ *entry) {
			for id, r := range m {
				if id%2 == 0 {
					m[id] = mrow{r.n + 1, "up", r.p}
				}
			}
		},
	},
	{
		name:  "DELETE",
		run:   func(x *entry) error { return x.statement("DELETE FROM t WHERE n > 40") },
		apply: func(m model, _ *entry) { removeIf(m, func(_ int64, r mrow) bool { return r.n > 40 }) },
	},
	{
		name: "OPTIMIZE",
		run: func(x *entry) error {
			_, err := x.table.Optimize(x.ctx, delta.OptimizeOptions{})
			return err
		},
	},
	{
		name: "ZORDER",
		run: func(x *entry) error {
			for _, rows := range []model{{201: {1, "q", "x"}}, {202: {2, "r", "x"}}} {
				if x.clusterBy != nil {
					break // refused below, and nothing else shall have happened
				}
				if err := appendRows(rows, false).run(x); err != nil {
					return err
				}
			}
			_, err := x.table.Optimize(x.ctx, delta.OptimizeOptions{ZOrderBy: []string{"n"}})
			return err
		},
		apply: func(m model, _ *entry) { m.put(model{201: {1, "q", "x"}, 202: {2, "r", "x"}}) },
	},
	{
		name: "REORG PURGE",
		run: func(x *entry) error {
			if err := x.statement("DELETE FROM t WHERE id = 201"); err != nil {
				return err
			}
			_, err := x.table.Optimize(x.ctx, delta.OptimizeOptions{Purge: true})
			return err
		},
		apply: func(m model, _ *entry) { delete(m, 201) },
	},
	{
		name: "RESTORE",
		run: func(x *entry) error {
			_, err := x.table.Restore(x.ctx, x.versions["overwrite"], delta.RestoreOptions{})
			return err
		},
		apply: func(m model, _ *entry) { clear(m); m.put(first) },
	},
	{
		name: "add column",
		run:  appendRows(evolved, true).run, apply: func(m model, _ *entry) { m.put(evolved) },
	},
	{
		name: "rename column", only: func(f feature) bool { return f.mapped },
		run: func(x *entry) error {
			_, err := x.table.RenameColumn(x.ctx, []string{"more"}, "more, (renamed)", delta.AlterOptions{})
			return err
		},
	},
	{
		name: "drop column", only: func(f feature) bool { return f.mapped },
		run: func(x *entry) error {
			_, err := x.table.DropColumns(x.ctx, [][]string{{"more, (renamed)"}}, delta.DropColumnsOptions{})
			return err
		},
	},
	{
		name: "widen type", only: func(f feature) bool { return f.widens },
		run: func(x *entry) error {
			_, err := x.table.ChangeColumn(x.ctx, []string{"w"}, delta.ColumnChange{Type: delta.Long}, delta.AlterOptions{})
			return err
		},
	},
	{
		name: "checkpoint",
		run: func(x *entry) error {
			_, err := x.table.Checkpoint(x.ctx)
			return err
		},
	},
	{
		// The last one: older versions cannot be read afterwards.
		name: lastOperation,
		run: func(x *entry) error {
			_, err := x.table.Vacuum(x.ctx, delta.VacuumOptions{Force: true})
			return err
		},
	},
}

// The rows of the operations.
var (
	first    = model{1: {10, "a", "x"}, 2: {20, "b", "y"}, 3: {30, "c", "x"}, 4: {40, "d", "z"}, 5: {50, "e", "x"}, 6: {60, "f", "y"}}
	replaced = model{30: {33, "c", "z"}, 31: {34, "c", "x"}}
	dynamic  = model{60: {66, "g", "y"}}
	upserts  = model{1: {11, "A", "x"}, 5: {55, "E", "z"}, 70: {70, "h", "w"}}
	merged   = model{1: {-1, "", "x"}, 4: {44, "", "z"}, 80: {81, "i", "y"}}
	evolved  = model{90: {90, "k", "x"}, 91: {91, "l", "w"}}
)

// mergeInto is the MERGE of these tests, in words that both Spark and Cauce take.
func mergeInto(table string, source model) string {
	return "MERGE INTO " + table + " AS t USING (" + source.sql("") + ") AS s ON t.id = s.id WHEN MATCHED AND s.n < 0 THEN DELETE WHEN MATCHED THEN UPDATE SET n = s.n " +
		"WHEN NOT MATCHED AND s.n >= 0 THEN INSERT (id, n, v, p) VALUES (s.id, s.n, s.v, s.p) " +
		"WHEN NOT MATCHED BY SOURCE AND t.n % 4 = 0 THEN UPDATE SET v = 'late' WHEN NOT MATCHED BY SOURCE AND t.n > 990 THEN DELETE"
}

// merge is what mergeInto does.
func (m model) merge(source model) {
	for id, r := range m {
		s, matched := source[id]
		switch {
		case matched && s.n < 0:
			delete(m, id)
		case matched:
			m[id] = mrow{s.n, r.v, r.p}
		case r.n%4 == 0:
			m[id] = mrow{r.n, "late", r.p}
		case r.n > 990:
			delete(m, id)
		}
	}
	for id, s := range source {
		if _, there := m[id]; !there && s.n >= 0 {
			m[id] = s
		}
	}
}

// entry is a feature under test: its table and what has been seen of it.
type entry struct {
	feature
	*ours
	ctx      context.Context
	m        *matrix
	path     string // the table's folder
	rowsOf   model
	versions map[string]delta.Version // after each operation
	states   []state                  // to be read by the others
	cells    map[string]string
	readers  map[string]string
	protocol string
	after    string // of a copy for Spark: the operation after which it was made
}

// state is what a version must be to every reader.
type state struct {
	operation string
	version   delta.Version
	columns   []string
	text      string
}

// rows runs a query in DuckDB and gives its rows.
func (x *entry) rows(sql string, f func(delta.Rows) error) error {
	r, err := x.e.Query(x.ctx, sql, nil)
	if err != nil {
		return err
	}
	defer r.Close()
	rows, done, err := x.e.Collect(x.ctx, r)
	if err != nil {
		return err
	}
	defer done()
	return f(rows)
}

// statement runs SQL; parts of the model that a table without partitions or deletion vectors has otherwise are the same.
func (x *entry) statement(sql string) error { return x.run(sql) }

// matrix is the whole.
type matrix struct {
	t       *testing.T
	e       *duckdb.Engine
	dir     string
	store   objstore.Store
	entries []*entry
	copies  []*entry // for Spark to change
	each    bool     // after each operation, not after the last one alone
}

// read gives the rows of a version by the pure-Go reader, having made sure that DuckDB's reader of Cauce gives the same.
func (x *entry) read(operation string) state {
	x.t.Helper()
	var texts []string
	var st state
	for _, engine := range []delta.Engine{delta.PureGo(), x.e.Delta()} {
		tab, err := delta.Open(x.ctx, x.m.store, x.table.Path(), &delta.Options{Engine: engine})
		if err != nil {
			x.t.Fatalf("%s after %s: %v", x.name, operation, err)
		}
		s, err := tab.Snapshot(x.ctx)
		if err != nil {
			x.t.Fatalf("%s after %s: %v", x.name, operation, err)
		}
		st = state{operation: operation, version: s.Version()}
		for _, f := range s.Schema().Fields {
			st.columns = append(st.columns, f.Name)
		}
		o := &ours{x.t, x.e, tab}
		texts = append(texts, alike(o.texts(tab.Scan(x.ctx, s, delta.ScanOptions{}))))
	}
	if texts[0] != texts[1] {
		x.t.Errorf("%s after %s: the pure-Go reader gives\n%s\nDuckDB's\n%s", x.name, operation, texts[0], texts[1])
	}
	st.text = texts[0]
	if got, want := base(st.text), x.rowsOf.text(); got != want {
		x.t.Errorf("%s after %s: the rows are\n%s\nwant\n%s", x.name, operation, got, want)
	}
	return st
}

// base keeps of each row the columns that the model knows.
func base(text string) string {
	if text == "" {
		return ""
	}
	var out []string
	for _, line := range strings.Split(text, "\n") {
		var keep []string
		for _, c := range []string{"id", "n", "v", "p"} {
			for _, f := range strings.Split(line, " ") {
				if strings.HasPrefix(f, c+"=") {
					keep = append(keep, f)
				}
			}
		}
		out = append(out, strings.Join(keep, " "))
	}
	sort.Strings(out)
	return strings.Join(out, "\n")
}

var (
	instant = regexp.MustCompile(`(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.0+)?(?:Z|\+00:00|\+00)?`)
	truth   = regexp.MustCompile(`=(True|False)\b`)
)

// alike takes out in what programs spell the same value differently.
func alike(text string) string {
	text = instant.ReplaceAllString(text, "${1}T${2}")
	return truth.ReplaceAllStringFunc(text, strings.ToLower)
}

// write makes the table of a feature and runs all operations.
func (x *entry) write() {
	tab, err := delta.Create(x.ctx, x.m.store, x.slug(), delta.CreateOptions{Schema: x.schema(), PartitionBy: x.partitionBy(), ClusterBy: x.clusterBy, Config: x.config}, &delta.Options{Engine: x.e.Delta()})
	if err != nil {
		x.t.Fatalf("%s: %v", x.name, err)
	}
	x.ours = &ours{x.t, x.e, tab}
	if x.prepare != nil {
		if err := x.prepare(x); err != nil {
			x.t.Fatalf("%s: %v", x.name, err)
		}
	}
	for _, op := range operations {
		if op.name == lastOperation {
			continue // after the others have read what it deletes
		}
		x.operate(op)
	}
	s, err := x.table.Snapshot(x.ctx)
	if err != nil {
		x.t.Fatal(err)
	}
	p := s.Protocol()
	x.protocol = fmt.Sprintf("%d, %d", p.MinReaderVersion, p.MinWriterVersion)
	for _, want := range x.features {
		if !slices.Contains(p.WriterFeatures, want) {
			x.t.Errorf("%s: the protocol has not the feature %s: %+v", x.name, want, p)
		}
	}
}

func (x *entry) operate(op operation) {
	if op.only != nil && !op.only(x.feature) {
		x.cells[op.name] = "—"
		return
	}
	err := op.run(x)
	if want, refused := x.refuses[op.name]; refused {
		if !errors.Is(err, want) {
			x.t.Errorf("%s: %s: error %v, want %v", x.name, op.name, err, want)
		}
		x.cells[op.name] = "refused: " + want.Error()
		return
	}
	if err != nil {
		x.t.Fatalf("%s: %s: %v", x.name, op.name, err)
	}
	if op.apply != nil {
		op.apply(x.rowsOf, x)
	}
	st := x.read(op.name)
	x.versions[op.name] = st.version
	x.states = append(x.states, st)
	x.cells[op.name] = "yes"
	if op.name == lastOperation || x.m.each {
		x.copyForSpark(op.name)
	}
}

// peer is one of the Python readers, asked line by line.
func peer(t *testing.T, python, reader string, states []*entry) map[*entry][]answer {
	t.Helper()
	var in bytes.Buffer
	var of []*entry
	for _, x := range states {
		for _, st := range x.states {
			line, err := json.Marshal(map[string]any{"table": x.path, "version": st.version, "columns": st.columns})
			if err != nil {
				t.Fatal(err)
			}
			in.Write(append(line, '\n'))
			of = append(of, x)
		}
	}
	cmd := exec.Command(python, "readers.py", reader)
	cmd.Stdin = &in
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", reader, err, tail(errs.Bytes()))
	}
	answers := map[*entry][]answer{}
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	if len(lines) != len(of) {
		t.Fatalf("%s gave %d answers to %d questions", reader, len(lines), len(of))
	}
	for i, line := range lines {
		var a answer
		if err := json.Unmarshal(line, &a); err != nil {
			t.Fatalf("%s: %v in %q", reader, err, line)
		}
		answers[of[i]] = append(answers[of[i]], a)
	}
	return answers
}

// judge compares what a reader gave with a state, or its refusal with the one that is expected.
func (x *entry) judge(reader string, st state, a answer) {
	x.t.Helper()
	refusal := x.readersRefuse[reader]
	switch {
	case refusal != "" && a.Failed == "":
		x.t.Errorf("%s: %s reads the table after %s; it was to refuse it by %q", x.name, reader, st.operation, refusal)
	case refusal != "" && !strings.Contains(a.Failed, refusal):
		x.t.Errorf("%s: %s refuses the table after %s with %q, not by %q", x.name, reader, st.operation, a.Failed, refusal)
	case refusal != "":
		x.readers[reader] = "refused: " + refusal
		return
	case a.Failed != "":
		x.t.Errorf("%s: %s cannot read version %d, after %s: %s", x.name, reader, st.version, st.operation, a.Failed)
	default:
		want := st.text
		if x.readsNull[reader] != "" {
			lines := regexp.MustCompile(`\b`+x.readsNull[reader]+`=\S*`).ReplaceAllString(want, x.readsNull[reader]+"=-")
			sorted := strings.Split(lines, "\n")
			sort.Strings(sorted)
			want = strings.Join(sorted, "\n")
		}
		if got := alike(textOf(a.Rows, st.columns)); got != want {
			x.t.Errorf("%s: %s reads after %s\n%s\nwant\n%s", x.name, reader, st.operation, got, want)
		}
	}
	if x.readsNull[reader] != "" {
		x.readers[reader] = "reads the partition column as null unless it is the first of the schema"
	} else {
		x.readers[reader] = "reads"
	}
}

func (x *entry) sparkQuery(st state) string {
	return fmt.Sprintf("SELECT `%s` FROM delta.`%s` VERSION AS OF %d", strings.Join(st.columns, "`, `"), x.path, st.version)
}

// TestDeltaMatrix makes docs/delta-matrix.md: tables with each feature, written by each operation of Cauce, read by Spark,
// delta-rs and DuckDB's extension, then changed by Spark, read by all again and changed again by Cauce.
func TestDeltaMatrix(t *testing.T) {
	python := prereq.Need(t, "venv")
	s := startSpark(t)
	e, err := duckdb.Open(duckdb.Options{TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	m := &matrix{t: t, e: e, dir: t.TempDir(), each: testscale.Current() == testscale.Soak}
	if m.store, err = objstore.NewLocal(m.dir); err != nil {
		t.Fatal(err)
	}
	for _, f := range features {
		x := &entry{feature: f, ours: &ours{t: t, e: e}, ctx: context.Background(), m: m, rowsOf: model{}, versions: map[string]delta.Version{},
			cells: map[string]string{}, readers: map[string]string{}}
		x.path = filepath.Join(m.dir, x.slug())
		m.entries = append(m.entries, x)
		x.write()
	}
	if t.Failed() {
		return
	}
	m.readByOthers(python, s, m.entries, m.each)
	if t.Failed() {
		return
	}
	for _, x := range m.entries {
		x.states = nil
		x.operate(operations[len(operations)-1])
	}
	m.readByOthers(python, nil, m.entries, false) // Spark reads these when it changes them
	if t.Failed() {
		return
	}
	m.changedBySpark(s)
	m.readByOthers(python, s, m.copies, m.each)
	if t.Failed() {
		return
	}
	m.page()
}

// readByOthers has the others read all states of tables. Spark, which is slow, reads one of each table unless all is set,
// or none if it is nil.
func (m *matrix) readByOthers(python string, s *spark, entries []*entry, all bool) {
	states := 0
	for _, reader := range []string{"deltalake", "duckdb"} {
		for x, answers := range peer(m.t, python, reader, entries) {
			for i, a := range answers {
				x.judge(reader, x.states[i], a)
			}
			states += len(answers)
		}
	}
	m.t.Logf("REPORT: %d states of %d tables read by delta-rs and DuckDB", states/2, len(entries))
	if s == nil {
		return
	}
	rnd := testscale.Rand(m.t)
	type question struct {
		x  *entry
		st state
	}
	var asked []question
	var texts []string
	for _, x := range entries {
		pick := rnd.IntN(len(x.states))
		for i, st := range x.states {
			if all || i == pick {
				asked = append(asked, question{x, st})
				texts = append(texts, x.sparkQuery(st))
			}
		}
	}
	for i, a := range s.each(texts) {
		asked[i].x.judge("Spark", asked[i].st, a)
	}
	m.t.Logf("REPORT: %d states of them by Spark %s", len(asked), s.ready())
}

// page compares docs/delta-matrix.md with what was seen, or writes it.
func (m *matrix) page() {
	var b strings.Builder
	b.WriteString(`# What Cauce writes, and who reads it

This page is made by a test, which fails when it is not true any more:
` + "`go test -tags duckdb_arrow ./test/peers -run TestDeltaMatrix -rewrite`" + ` writes it anew.

A table with each feature is written by each operation in turn. After each of them the rows of the new version are
compared: those of a model, of Cauce's two readers, of delta-rs and of DuckDB's delta extension; Spark with Delta Lake reads some
of the versions of each table. Then Spark changes copies of the tables, by MERGE, OPTIMIZE, VACUUM and a checkpoint; after each of these
steps Cauce's two readers must give the rows of the model, and when Cauce has gone on, all read both its version and Spark's last one.
A copy is made when all operations are done, and in ` + "`make soak SCENARIOS=matrix`" + ` after each of them; there Spark reads every version, too.
"refused" means that the program refuses the table or the operation with an error that names the reason; that, too, is tested.

## Written by Cauce

`)
	b.WriteString("| table with |")
	for _, op := range operations {
		b.WriteString(" " + op.name + " |")
	}
	b.WriteString("\n|" + strings.Repeat("---|", len(operations)+1) + "\n")
	for _, x := range m.entries {
		b.WriteString("| " + x.name + " |")
		for _, op := range operations {
			b.WriteString(" " + x.cells[op.name] + " |")
		}
		b.WriteString("\n")
	}
	b.WriteString("\n## Read by others\n\n| table with | protocol | Spark | delta-rs | DuckDB |\n|---|---|---|---|---|\n")
	for _, x := range m.entries {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", x.name, x.protocol, x.readers["Spark"], x.readers["deltalake"], x.readers["duckdb"])
	}
	m.changes(&b)
	file := filepath.Join(prereq.Root(), "docs", "delta-matrix.md")
	if *rewrite {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			m.t.Fatal(err)
		}
		return
	}
	there, err := os.ReadFile(file)
	if err != nil {
		m.t.Fatal(err)
	}
	if string(there) != b.String() {
		m.t.Errorf("docs/delta-matrix.md does not say what was seen; -rewrite makes it:\n%s", b.String())
	}
}
