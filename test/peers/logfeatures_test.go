package peers

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/delta/expr"
	"github.com/cauce-data/cauce/engine/duckdb"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/objstore"
)

// logTable is a table of the features that concern the log, which Cauce and Spark change in turn.
type logTable struct {
	*testing.T
	spark *spark
	tab   *delta.Table
	path  string
}

var logSchema = &delta.Schema{Fields: []delta.Field{{Name: "id", Type: delta.Long, Nullable: true}, {Name: "v", Type: delta.String, Nullable: true}, {Name: "at", Type: delta.Timestamp, Nullable: true}}}

func (l *logTable) sql() string { return "delta.`" + l.path + "`" }

func openLogTable(t *testing.T, s *spark, path string) *logTable {
	t.Helper()
	store, err := objstore.NewLocal(path)
	if err != nil {
		t.Fatal(err)
	}
	tab, err := delta.Open(context.Background(), store, "", &delta.Options{Engine: duckdbEngine(t)})
	if err != nil {
		t.Fatal(err)
	}
	return &logTable{t, s, tab, path}
}

func duckdbEngine(t *testing.T) delta.Engine {
	t.Helper()
	e, err := duckdb.Open(duckdb.Options{TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e.Delta()
}

func (l *logTable) rows(from, to int64, v string) *delta.MemoryRows {
	schema := logSchema.Arrow()
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	for id := from; id < to; id++ {
		b.Field(0).(*array.Int64Builder).Append(id)
		b.Field(1).(*array.StringBuilder).Append(v)
		b.Field(2).(*array.TimestampBuilder).Append(arrow.Timestamp(1_724_155_200_123_456 + id))
	}
	rec := b.NewRecordBatch()
	defer rec.Release()
	return delta.NewRows(schema, rec)
}

func (l *logTable) must(what string, err error) {
	l.Helper()
	if err != nil {
		l.Fatalf("%s: %v", what, err)
	}
}

func (l *logTable) append(from, to int64, v string) {
	l.Helper()
	r := l.rows(from, to, v)
	defer r.Close()
	_, err := l.tab.Append(context.Background(), r, delta.AppendOptions{})
	l.must("append", err)
}

func (l *logTable) snapshot() *delta.Snapshot {
	l.Helper()
	s, err := l.tab.Snapshot(context.Background())
	l.must("snapshot", err)
	return s
}

// tracked is a row with its id and commit version.
type tracked struct {
	v           string
	id, version int64
}

func (l *logTable) ours() map[int64]tracked {
	l.Helper()
	out := map[int64]tracked{}
	for b, err := range l.tab.Scan(context.Background(), l.snapshot(), delta.ScanOptions{Columns: []string{"id", "v"}, RowTracking: true}) {
		l.must("scan", err)
		for i := range int(b.NumRows()) {
			out[b.Column(0).(*array.Int64).Value(i)] = tracked{strings.Clone(b.Column(1).ValueStr(i)), b.Column(2).(*array.Int64).Value(i), b.Column(3).(*array.Int64).Value(i)}
		}
	}
	return out
}

func number(v any) int64 {
	n, _ := strconv.ParseFloat(fmt.Sprint(v), 64)
	return int64(n)
}

func (l *logTable) sparks() map[int64]tracked {
	l.Helper()
	out := map[int64]tracked{}
	for _, r := range l.spark.sql("SELECT id, v, _metadata.row_id AS r, _metadata.row_commit_version AS c FROM " + l.sql()) {
		out[number(r["id"])] = tracked{fmt.Sprint(r["v"]), number(r["r"]), number(r["c"])}
	}
	return out
}

// agree compares what both read, has Spark look at the checksum, and Cauce at the one that Spark or Cauce wrote.
func (l *logTable) agree(state string) map[int64]tracked {
	l.Helper()
	a, b := l.ours(), l.sparks()
	if !maps.Equal(a, b) {
		l.Fatalf("%s: Cauce reads\n%v\nSpark reads\n%v", state, a, b)
	}
	sum := l.spark.do(map[string]string{"op": "checksum", "table": l.path}).Rows[0]
	if sum["there"] != true || sum["valid"] != true || number(sum["version"]) != int64(l.snapshot().Version()) {
		l.Fatalf("%s: checksum %v", state, sum)
	}
	if ok, err := l.snapshot().VerifyChecksum(context.Background()); !ok || err != nil {
		l.Fatalf("%s: checksum there %v, error %v", state, ok, err)
	}
	return a
}

// kept makes sure that rows keep their ids, and that those whose value stays keep their commit versions.
func (l *logTable) kept(state string, was, is map[int64]tracked) {
	l.Helper()
	same := 0
	for k, r := range is {
		o, ok := was[k]
		if !ok {
			continue
		}
		same++
		if o.id != r.id || (o.v == r.v) != (o.version == r.version) {
			l.Errorf("%s: row %d was %+v, is %+v", state, k, o, r)
		}
	}
	if same == 0 {
		l.Errorf("%s: no row stayed", state)
	}
}

func col(name string) expr.Expr { return expr.Column{Path: []string{name}} }

// change does what Cauce can do to rows. n tells the rounds apart.
func (l *logTable) change(n int64) {
	l.Helper()
	ctx := context.Background()
	v := fmt.Sprint("cauce", n)
	l.append(100*n, 100*n+10, v)
	_, err := l.tab.Update(ctx, delta.UpdateOptions{Where: expr.Eq(col("id"), expr.Lit(100*n+1)), Set: []delta.Assignment{{Column: "v", Value: expr.Lit(v + " updated")}}})
	l.must("update", err)
	_, err = l.tab.DeleteWhere(ctx, expr.Eq(col("id"), expr.Lit(100*n+2)), delta.ChangeOptions{})
	l.must("delete", err)
	r := l.rows(100*n+8, 100*n+12, v+" merged")
	defer r.Close()
	_, err = l.tab.Merge(ctx, r, delta.MergeOptions{Key: []string{"id"}, Txn: &delta.Txn{AppID: "peers", Version: n}})
	l.must("merge", err)
	_, err = l.tab.Optimize(ctx, delta.OptimizeOptions{})
	l.must("optimize", err)
	l.append(100*n+20, 100*n+22, v)
}

// TestLogFeaturesWithSpark has Cauce and Spark change tables in turn that have row tracking, in-commit timestamps, V2
// checkpoints, domain metadata and version checksums: both read the same rows with the same ids, and each takes the
// other's checksums and checkpoints.
func TestLogFeaturesWithSpark(t *testing.T) {
	ctx := context.Background()
	python := prereq.Need(t, "venv")
	s := startSpark(t)
	create := func(t *testing.T, config map[string]string) *logTable {
		path := filepath.Join(t.TempDir(), "t")
		store, err := objstore.NewLocal(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := delta.Create(ctx, store, "", delta.CreateOptions{Schema: logSchema, Config: config}, nil); err != nil {
			t.Fatal(err)
		}
		return openLogTable(t, s, path)
	}
	one := create(t, map[string]string{
		"delta.enableRowTracking": "true", "delta.enableInCommitTimestamps": "true", "delta.enableDeletionVectors": "true",
		"delta.checkpointPolicy": "v2", "delta.checkpointInterval": "4", "delta.checkpoint.writeStatsAsStruct": "true",
	})
	_, err := one.tab.SetDomain(ctx, "com.example.app", `{"a": 1}`)
	one.must("domain", err)
	one.change(1)
	t.Logf("REPORT: Spark %s and Cauce change tables in turn", s.ready())

	t.Run("tracked rows", func(t *testing.T) {
		l := openLogTable(t, s, one.path)
		was := l.agree("written by Cauce")
		s.sql("UPDATE " + l.sql() + " SET v = 'spark' WHERE id IN (103, 108)")
		s.sql("MERGE INTO " + l.sql() + " t USING (SELECT explode(array(104L, 150L)) AS id) s ON t.id = s.id WHEN MATCHED THEN UPDATE SET t.v = 'spark merged' WHEN NOT MATCHED THEN INSERT (id, v) VALUES (s.id, 'spark')")
		s.sql("OPTIMIZE " + l.sql())
		is := l.agree("changed by Spark")
		l.kept("changed by Spark", was, is)
		s.do(map[string]string{"op": "checkpoint", "table": l.path})
		l = openLogTable(t, s, l.path)
		l.change(2)
		now := l.agree("continued by Cauce")
		l.kept("continued by Cauce", is, now)
		if d, ok := l.snapshot().Domain("com.example.app"); !ok || d.Configuration != `{"a": 1}` {
			t.Errorf("domain %+v", d)
		}
		// Time travel by in-commit timestamps, of both writers' versions.
		h, err := l.tab.History(ctx, 0)
		l.must("history", err)
		for _, c := range h[:len(h)-1] {
			if c.Info.InCommitTimestamp == nil {
				t.Errorf("version %d of %s has no in-commit timestamp", c.Version, c.Info.EngineInfo)
			}
		}
		for _, c := range []delta.Commit{h[1], h[len(h)/2]} {
			got := s.sql(fmt.Sprintf("SELECT count(*) AS n FROM %s TIMESTAMP AS OF '%s'", l.sql(), c.Time.UTC().Format("2006-01-02 15:04:05.000")))
			at, err := l.tab.SnapshotAsOf(ctx, c.Time)
			l.must("as of", err)
			n := 0
			for b, err := range l.tab.Scan(ctx, at, delta.ScanOptions{Columns: []string{"id"}}) {
				l.must("scan", err)
				n += int(b.NumRows())
			}
			if number(got[0]["n"]) != int64(n) || at.Version() != c.Version {
				t.Errorf("as of version %d Spark counts %v, Cauce %d", c.Version, got[0]["n"], n)
			}
		}
	})

	t.Run("enabled later", func(t *testing.T) {
		for _, by := range []string{"Cauce", "Spark"} {
			config := map[string]string{"delta.enableDeletionVectors": "true"}
			if by == "Cauce" {
				config["delta.columnMapping.mode"] = "name"
			}
			l := create(t, config)
			l.append(0, 5, "a")
			l.append(5, 10, "b")
			_, err := l.tab.DeleteWhere(ctx, expr.Eq(col("id"), expr.Lit(int64(3))), delta.ChangeOptions{})
			l.must("delete", err)
			if by == "Cauce" {
				_, err = l.tab.EnableRowTracking(ctx)
				l.must("enable", err)
			} else {
				s.sql("ALTER TABLE " + l.sql() + " SET TBLPROPERTIES ('delta.enableRowTracking' = 'true')")
			}
			was := l.agree("row tracking enabled by " + by)
			s.sql("UPDATE " + l.sql() + " SET v = 'spark' WHERE id = 4")
			is := l.agree("then updated by Spark")
			l.kept("updated by Spark", was, is)
			l.change(1)
			l.kept("continued by Cauce", is, l.agree("then changed by Cauce"))
		}
	})

	t.Run("a new table of Spark's", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "t")
		s.sql("CREATE TABLE delta.`" + path + "` (id BIGINT, v STRING, at TIMESTAMP) USING delta CLUSTER BY (id)")
		l := openLogTable(t, s, path)
		p := l.snapshot().Protocol()
		t.Logf("REPORT: a new table of Spark's has reader %d, writer %d, features %v", p.MinReaderVersion, p.MinWriterVersion, p.WriterFeatures)
		l.change(1)
		s.sql("INSERT INTO " + l.sql() + " VALUES (900, 'spark', NULL)")
		l.change(2)
		if n := number(s.sql("SELECT count(*) AS n FROM " + l.sql())[0]["n"]); n != 27 {
			t.Errorf("%d rows", n)
		}
		if sum := s.do(map[string]string{"op": "checksum", "table": path}).Rows[0]; sum["there"] != true || sum["valid"] != true {
			t.Errorf("checksum %v", sum)
		}
	})

	t.Run("checkpoints for every reader", func(t *testing.T) {
		for name, c := range map[string]struct {
			config  map[string]string
			options delta.CheckpointOptions
		}{
			"V2 JSON":         {map[string]string{"delta.checkpointPolicy": "v2"}, delta.CheckpointOptions{Format: "json", SidecarActions: 3}},
			"V2 Parquet":      {map[string]string{"delta.checkpointPolicy": "v2", "delta.checkpoint.writeStatsAsStruct": "true"}, delta.CheckpointOptions{Format: "parquet", SidecarActions: 3}},
			"V2 classic name": {map[string]string{"delta.checkpointPolicy": "v2"}, delta.CheckpointOptions{Classic: true}},
			"structs alone":   {map[string]string{"delta.checkpoint.writeStatsAsJson": "false", "delta.checkpoint.writeStatsAsStruct": "true"}, delta.CheckpointOptions{}},
		} {
			config := maps.Clone(c.config)
			config["delta.enableDeletionVectors"] = "true"
			l := create(t, config)
			for i := range int64(4) {
				l.append(10*i, 10*i+10, "a")
			}
			_, err := l.tab.DeleteWhere(ctx, expr.Eq(col("id"), expr.Lit(int64(7))), delta.ChangeOptions{})
			l.must("delete", err)
			v, err := l.tab.CheckpointAs(ctx, c.options)
			l.must("checkpoint", err)
			// Only the checkpoint can tell: the commits before it are gone, and the checksums too.
			old, err := filepath.Glob(filepath.Join(l.path, "_delta_log", "0*"))
			l.must("list", err)
			for _, f := range old {
				if strings.HasSuffix(f, ".crc") || strings.HasSuffix(f, ".json") && !strings.Contains(f, "checkpoint") && filepath.Base(f) < fmt.Sprintf("%020d", v) {
					l.must("remove", os.Remove(f))
				}
			}
			l.append(50, 52, "b")
			ids := func(out []string) string { sort.Strings(out); return strings.Join(out, " ") }
			var want, spark []string
			for i := range int64(52) {
				if i != 7 && (i < 40 || i >= 50) {
					want = append(want, fmt.Sprint(i))
				}
			}
			for _, r := range s.sql("SELECT id FROM " + l.sql() + " WHERE at > TIMESTAMP '2024-01-01 00:00:00'") {
				spark = append(spark, fmt.Sprint(number(r["id"])))
			}
			got := map[string]string{"Spark": ids(spark)}
			for _, reader := range []string{"deltalake", "duckdb"} {
				var read []string
				for i, line := range strings.Split(strings.TrimSpace(string(readPython(t, python, reader, l.path))), "\n") {
					if i > 0 {
						read = append(read, strings.Split(line, ",")[0])
					}
				}
				got[reader] = ids(read)
			}
			for _, reader := range slices.Sorted(maps.Keys(got)) {
				if w := ids(slices.Clone(want)); got[reader] != w {
					t.Errorf("%s, read by %s: %s\nnot %s", name, reader, got[reader], w)
				}
			}
			// Spark changes it, and Cauce reads on from Spark's checkpoint.
			s.sql("DELETE FROM " + l.sql() + " WHERE id >= 50")
			s.do(map[string]string{"op": "checkpoint", "table": l.path})
			fresh := openLogTable(t, s, l.path)
			n := 0
			for b, err := range fresh.tab.Scan(ctx, fresh.snapshot(), delta.ScanOptions{}) {
				l.must("scan", err)
				n += int(b.NumRows())
			}
			if n != 39 {
				t.Errorf("%s: %d rows after Spark's checkpoint", name, n)
			}
		}
	})
}
