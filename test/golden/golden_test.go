// Package golden reads the tables of other engines that come with their expected results, by every way that Cauce has.
package golden

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/delta/sparkjson"
	"github.com/cauce-data/cauce/engine/duckdb"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/objstore"
)

// The kinds of oracle that tables.tsv names.
const (
	sparkRows    = "spark-rows"
	upstreamRows = "upstream-rows"
	filesOnly    = "files-only"
	mustFail     = "must-fail"
	disputed     = "disputed"
)

type table struct {
	dir, origin, oracle, expected, upstream string
}

// expectation is what expected.json says.
type expectation struct {
	SnapshotError json.RawMessage `json:"snapshot_error"`
	Version       delta.Version   `json:"version"`
	NumFiles      int             `json:"numFiles"`
	SizeInBytes   int64           `json:"sizeInBytes"`
	NumRows       *int64          `json:"numRows"`
	RowsSHA256    string          `json:"rowsSha256"`
	Txns          [][]any         `json:"txns"`
	Domains       [][]any         `json:"domains"`
	Protocol      struct {
		Protocol delta.Protocol `json:"protocol"`
	} `json:"protocol"`
	MetaData struct {
		MetaData delta.Metadata `json:"metaData"`
	} `json:"metaData"`
	Versions map[string]struct {
		NumRows    int64           `json:"numRows"`
		RowsSHA256 string          `json:"rowsSha256"`
		Error      json.RawMessage `json:"error"`
	} `json:"versions"`
	CDF struct {
		StartingVersion *delta.Version  `json:"startingVersion"`
		Error           json.RawMessage `json:"error"`
	} `json:"cdf"`
}

func tables(t *testing.T) (root string, out []table) {
	root = filepath.Join(prereq.Need(t, "shared"), "delta-golden")
	f, err := os.Open(filepath.Join(root, "tables.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	sc.Scan()
	col := map[string]int{}
	for i, n := range strings.Split(sc.Text(), "\t") {
		col[n] = i
	}
	for sc.Scan() {
		c := strings.Split(sc.Text(), "\t")
		out = append(out, table{
			dir: c[col["table"]], origin: c[col["origin"]], oracle: c[col["oracle"]],
			expected: c[col["expected"]], upstream: c[col["upstream_expected"]],
		})
	}
	if err := sc.Err(); err != nil || len(out) == 0 {
		t.Fatalf("tables.tsv: %d tables, %v", len(out), err)
	}
	return root, out
}

// way is one way of reading the rows of a table.
type way struct {
	name string
	rows func(ctx context.Context, s *delta.Snapshot) iter.Seq2[arrow.RecordBatch, error]
	// engine reads the change feed too.
	engine delta.Engine
}

// ways are the three: the library alone, the library over DuckDB's reader, and SQL as `cauce query` runs it. A glance
// takes the first.
func ways(t *testing.T) []way {
	e, err := duckdb.Open(duckdb.Options{TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	scan := func(ctx context.Context, s *delta.Snapshot) iter.Seq2[arrow.RecordBatch, error] {
		return s.Table().Scan(ctx, s, delta.ScanOptions{})
	}
	query := func(ctx context.Context, s *delta.Snapshot) iter.Seq2[arrow.RecordBatch, error] {
		return func(yield func(arrow.RecordBatch, error) bool) {
			r, err := e.Query(ctx, "SELECT * FROM t", []duckdb.QueryTable{{Name: "t", Snapshot: s}})
			if err != nil {
				yield(nil, err)
				return
			}
			for b, err := range r.Batches(ctx) {
				if !yield(b, err) || err != nil {
					break
				}
			}
			if err := r.Close(); err != nil {
				yield(nil, err)
			}
		}
	}
	all := []way{{"pure Go", scan, delta.Engine{}}, {"DuckDB reader", scan, e.Delta()}, {"cauce query", query, e.Delta()}}
	if testscale.Current() == testscale.Short {
		return all[:1]
	}
	return all
}

// open opens a table as the command line does: its folder is the store's root.
func open(ctx context.Context, dir string, engine delta.Engine) (*delta.Table, error) {
	store, err := objstore.NewLocal(dir)
	if err != nil {
		return nil, err
	}
	return delta.Open(ctx, store, "", &delta.Options{Engine: engine})
}

// lines prints rows in the form of rows.jsonl, sorted.
func lines(fields []delta.Field, rows iter.Seq2[arrow.RecordBatch, error]) ([]string, error) {
	out := []string{}
	var buf []byte
	for b, err := range rows {
		if err != nil {
			return nil, err
		}
		for i := range int(b.NumRows()) {
			if buf, err = sparkjson.AppendRow(buf[:0], fields, b, i); err != nil {
				return nil, err
			}
			out = append(out, string(buf))
		}
	}
	sort.Strings(out)
	return out, nil
}

func digest(lines []string) string {
	h := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	return hex.EncodeToString(h[:])
}

func readLines(file string) ([]string, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	raw = bytes.TrimSuffix(raw, []byte("\n"))
	if len(raw) == 0 {
		return []string{}, nil
	}
	return strings.Split(string(raw), "\n"), nil
}

// javaHash is the name that Spark prints for a map's key of a nested type: the class and a hash of its bytes.
var javaHash = regexp.MustCompile(`org\.apache\.spark\.sql\.catalyst\.expressions\.Unsafe\w+@[0-9a-f]+`)

// same compares printed rows with the expected ones. Spark prints a map's key of a nested type as a hash of memory, so
// such rows are compared without those keys.
func same(got, want []string) error {
	if slices.Equal(got, want) {
		return nil
	}
	if slices.ContainsFunc(want, javaHash.MatchString) {
		got, want = slices.Clone(got), slices.Clone(want)
		for i := range want {
			want[i] = javaHash.ReplaceAllString(want[i], "?")
		}
		for i := range got {
			got[i] = nestedKey.ReplaceAllString(got[i], `{"?":`)
		}
		sort.Strings(want)
		sort.Strings(got)
	}
	if len(got) != len(want) {
		return fmt.Errorf("%d rows, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			return fmt.Errorf("row\n%s, want\n%s", got[i], want[i])
		}
	}
	return nil
}

// nestedKey is how sparkjson prints a map's key of an array type.
var nestedKey = regexp.MustCompile(`\{"\[[^"]*\]":`)

// tally counts what came out right.
type tally struct{ tables, versions, feeds int }

// TestGoldenTables reads every table in every version by every way, and demands the expected rows, values compared;
// tables that must be refused are refused with a typed error.
func TestGoldenTables(t *testing.T) {
	root, all := tables(t)
	counts := map[string]map[string]*tally{}
	sizes := map[string]int{}
	for _, g := range all {
		sizes[g.oracle]++
	}
	readers := ways(t)
	for _, w := range readers {
		counts[w.name] = map[string]*tally{}
		for _, g := range all {
			n := counts[w.name][g.oracle]
			if n == nil {
				n = &tally{}
				counts[w.name][g.oracle] = n
			}
			t.Run(strings.ReplaceAll(w.name, " ", "_")+"/"+g.dir, func(t *testing.T) {
				check(t, root, g, w, n)
				if !t.Failed() {
					n.tables++
				}
			})
		}
	}
	for _, reader := range readers {
		w := reader.name
		for _, oracle := range []string{sparkRows, upstreamRows, filesOnly, mustFail, disputed} {
			n := counts[w][oracle]
			line := fmt.Sprintf("%-13s %-13s %3d of %3d tables right", w, oracle, n.tables, sizes[oracle])
			if n.versions > 0 {
				line += fmt.Sprintf(", %d older versions", n.versions)
			}
			if n.feeds > 0 {
				line += fmt.Sprintf(", %d change feeds", n.feeds)
			}
			t.Logf("REPORT: %s", line)
			if n.tables != sizes[oracle] {
				t.Errorf("%s: %s: %d of %d tables", w, oracle, n.tables, sizes[oracle])
			}
		}
	}
}

// typed reports whether an error is one of those that a caller can tell apart.
func typed(err error) bool {
	return errors.Is(err, delta.ErrUnsupported) || errors.Is(err, delta.ErrCorrupt) || errors.Is(err, delta.ErrNotATable)
}

func check(t *testing.T, root string, g table, w way, n *tally) {
	ctx := context.Background()
	dir := filepath.Join(root, g.dir)
	tab, err := open(ctx, dir, w.engine)
	if g.oracle == mustFail {
		if err == nil {
			t.Fatal("the table was opened, and every engine refuses it")
		}
		if !typed(err) {
			t.Fatalf("the error has no type: %v", err)
		}
		return
	}
	if g.oracle == disputed {
		decide(ctx, t, commits(t, dir), w, tab, err)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := tab.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var want expectation
	if g.expected != "" {
		raw, err := os.ReadFile(filepath.Join(root, g.expected))
		if err != nil {
			t.Fatal(err)
		}
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.UseNumber()
		if err := dec.Decode(&want); err != nil {
			t.Fatal(err)
		}
		compareState(t, s, &want, filepath.Join(root, filepath.Dir(g.expected), "files.jsonl"))
	}
	if g.oracle == filesOnly {
		return
	}
	got, err := lines(s.Schema().Fields, w.rows(ctx, s))
	if err != nil {
		t.Fatal(err)
	}
	if g.expected != "" {
		rows, err := readLines(filepath.Join(root, filepath.Dir(g.expected), "rows.jsonl"))
		switch {
		case err == nil:
			if err := same(got, rows); err != nil {
				t.Error(err)
			}
		case want.NumRows == nil || int64(len(got)) != *want.NumRows || digest(got) != want.RowsSHA256:
			t.Errorf("%d rows with hash %s, want %v with %s", len(got), digest(got), want.NumRows, want.RowsSHA256)
		}
		checkVersions(t, ctx, tab, w, &want, n)
		checkFeed(t, ctx, tab, &want, filepath.Join(root, filepath.Dir(g.expected), "cdf.jsonl"), n)
	}
	if g.upstream != "" {
		checkUpstream(t, ctx, tab, w, filepath.Join(root, g.upstream), got, n)
	}
}

func checkVersions(t *testing.T, ctx context.Context, tab *delta.Table, w way, want *expectation, n *tally) {
	for name, v := range want.Versions {
		if len(v.Error) > 0 {
			continue // its files were vacuumed
		}
		number, err := strconv.ParseInt(name, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		s, err := tab.SnapshotAt(ctx, delta.Version(number))
		if err != nil {
			t.Errorf("version %d: %v", number, err)
			continue
		}
		got, err := lines(s.Schema().Fields, w.rows(ctx, s))
		if err != nil {
			t.Errorf("version %d: %v", number, err)
			continue
		}
		if int64(len(got)) != v.NumRows || digest(got) != v.RowsSHA256 {
			t.Errorf("version %d: %d rows with hash %s, want %d with %s", number, len(got), digest(got), v.NumRows, v.RowsSHA256)
			continue
		}
		n.versions++
	}
}

func checkFeed(t *testing.T, ctx context.Context, tab *delta.Table, want *expectation, file string, n *tally) {
	if want.CDF.StartingVersion == nil || len(want.CDF.Error) > 0 {
		return
	}
	rows, err := readLines(file)
	if err != nil {
		t.Fatal(err)
	}
	feed, err := tab.Changes(ctx, delta.ChangesOptions{From: *want.CDF.StartingVersion, To: -1})
	if err != nil {
		t.Fatal(err)
	}
	fields := slices.Clone(feed.Schema.Fields)
	got, err := lines(fields, feed.Batches(ctx))
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range got { // the expected rows are without the time
		at := strings.LastIndex(l, `,"_commit_timestamp":`)
		got[i] = l[:at] + "}"
	}
	sort.Strings(got)
	if err := same(got, rows); err != nil {
		t.Errorf("change feed: %v", err)
		return
	}
	n.feeds++
}

// compareState compares version, protocol, metadata, live files, applications and domains.
func compareState(t *testing.T, s *delta.Snapshot, want *expectation, list string) {
	t.Helper()
	if len(want.SnapshotError) > 0 {
		t.Fatalf("no oracle: %.200s", want.SnapshotError)
	}
	if s.Version() != want.Version {
		t.Errorf("version %d, want %d", s.Version(), want.Version)
	}
	p, wp := s.Protocol(), want.Protocol.Protocol
	sorted := func(l []string) []string { l = slices.Clone(l); sort.Strings(l); return l }
	if p.MinReaderVersion != wp.MinReaderVersion || p.MinWriterVersion != wp.MinWriterVersion ||
		!slices.Equal(sorted(p.ReaderFeatures), sorted(wp.ReaderFeatures)) || !slices.Equal(sorted(p.WriterFeatures), sorted(wp.WriterFeatures)) {
		t.Errorf("protocol %+v, want %+v", p, wp)
	}
	m, wm := s.Metadata(), want.MetaData.MetaData
	if m.ID != wm.ID || m.Name != wm.Name || m.SchemaString != wm.SchemaString || !slices.Equal(m.PartitionColumns, wm.PartitionColumns) {
		t.Errorf("metadata\n%+v, want\n%+v", m, wm)
	}
	if len(m.Configuration)+len(wm.Configuration) > 0 && !reflect.DeepEqual(m.Configuration, wm.Configuration) {
		t.Errorf("configuration %v, want %v", m.Configuration, wm.Configuration)
	}
	if s.NumFiles() != want.NumFiles || s.Bytes() != want.SizeInBytes {
		t.Errorf("%d files of %d bytes, want %d of %d", s.NumFiles(), s.Bytes(), want.NumFiles, want.SizeInBytes)
	}
	if expected, err := readLines(list); err == nil {
		var got, files []string
		for _, a := range s.Adds() {
			got = append(got, fileText(a))
		}
		for _, line := range expected {
			var a delta.Add
			if err := json.Unmarshal([]byte(line), &a); err != nil {
				t.Fatal(err)
			}
			files = append(files, fileText(&a))
		}
		sort.Strings(got)
		sort.Strings(files)
		if !slices.Equal(got, files) {
			for i := range min(len(got), len(files)) {
				if got[i] != files[i] {
					t.Errorf("file\n%s, want\n%s", got[i], files[i])
					break
				}
			}
			t.Errorf("%d files, want %d, or others", len(got), len(files))
		}
	}
	if len(s.Txns()) != len(want.Txns) {
		t.Errorf("txns %v, want %v", s.Txns(), want.Txns)
	}
	for _, x := range want.Txns {
		v, err := x[1].(json.Number).Int64()
		if got, ok := s.Txn(x[0].(string)); err != nil || !ok || got != v {
			t.Errorf("txn %v is %d", x, got)
		}
	}
	if len(s.Domains()) != len(want.Domains) {
		t.Errorf("domains %v, want %v", s.Domains(), want.Domains)
	}
	for _, x := range want.Domains {
		if d, ok := s.Domain(x[0].(string)); !ok || d.Configuration != x[1].(string) {
			t.Errorf("domain %v is %v", x, d)
		}
	}
}

// fileText spells what a live file is: path, partition values, size, vector and row ids.
func fileText(a *delta.Add) string {
	b, err := json.Marshal([]any{decoded(a.Path), a.PartitionValues, a.Size, a.DeletionVector, a.BaseRowID, a.DefaultRowCommitVersion})
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// commits is the text of a table's commits.
func commits(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "_delta_log", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, raw...)
	}
	return string(all)
}

func decoded(p string) string {
	if d, err := url.PathUnescape(p); err == nil {
		return d
	}
	return p
}

// checkUpstream compares with the Parquet files that the table's own project expects: one folder of them, or one for
// each version (DAT).
func checkUpstream(t *testing.T, ctx context.Context, tab *delta.Table, w way, dir string, latest []string, n *tally) {
	versions, err := filepath.Glob(filepath.Join(dir, "v*", "table_content"))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range versions {
		number, err := strconv.ParseInt(strings.TrimPrefix(filepath.Base(filepath.Dir(v)), "v"), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		s, err := tab.SnapshotAt(ctx, delta.Version(number))
		if err != nil {
			t.Errorf("version %d: %v", number, err)
			continue
		}
		got, err := lines(s.Schema().Fields, w.rows(ctx, s))
		if err != nil {
			t.Errorf("version %d: %v", number, err)
			continue
		}
		if err := same(got, upstream(t, v, s.Schema())); err != nil {
			t.Errorf("version %d: %v", number, err)
			continue
		}
		n.versions++
	}
	s, err := tab.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "latest")); err == nil {
		dir = filepath.Join(dir, "latest", "table_content")
	}
	if err := same(latest, upstream(t, dir, s.Schema())); err != nil {
		t.Error(err)
	}
}

// upstream reads expected rows with DuckDB's own reader, none of ours: columns by name, cast to the table's types.
func upstream(t *testing.T, dir string, schema *delta.Schema) []string {
	t.Helper()
	out, err := expectedParquet(dir, schema)
	if err != nil {
		t.Fatalf("expected rows in %s: %v", dir, err)
	}
	return out
}
