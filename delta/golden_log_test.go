package delta

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strings"
	"testing"

	"github.com/cauce-data/cauce/internal/prereq"
)

type goldenTable struct {
	dir, oracle, expected string
}

func goldenTables(t *testing.T) (root string, tables []goldenTable) {
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
		tables = append(tables, goldenTable{dir: c[col["table"]], oracle: c[col["oracle"]], expected: c[col["expected"]]})
	}
	return root, tables
}

// TestGoldenLogs reads the log of every table of other engines, and compares what it says with what Spark makes of it:
// version, protocol, metadata, live files, applications and domains. Features that only matter to rows do not stop it.
func TestGoldenLogs(t *testing.T) {
	root, tables := goldenTables(t)
	store := localStore(t, root)
	ctx := context.Background()
	compared, refused := 0, 0
	for _, g := range tables {
		t.Run(g.dir, func(t *testing.T) {
			tab := newTable(store, g.dir, nil)
			s, err := tab.load(ctx, -1)
			if g.oracle == "must-fail" {
				if err == nil {
					err = s.finish(nil)
				}
				if !errors.Is(err, ErrUnsupported) && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNotATable) {
					t.Fatalf("error %v, want a typed one", err)
				}
				refused++
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := s.finish(nil); err != nil {
				if !errors.Is(err, ErrUnsupported) {
					t.Fatal(err)
				}
				t.Log("rows are refused: ", err)
				refused++
			}
			if g.expected == "" || g.oracle == "disputed" {
				return
			}
			compareGolden(t, s, filepath.Join(root, g.expected))
			compared++
		})
	}
	t.Logf("%d tables compared, %d refused", compared, refused)
	if compared < 120 {
		t.Errorf("only %d tables compared", compared)
	}
}

func compareGolden(t *testing.T, s *Snapshot, file string) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var want struct {
		SnapshotError json.RawMessage `json:"snapshot_error"`
		Version       Version         `json:"version"`
		Protocol      struct {
			Protocol Protocol `json:"protocol"`
		} `json:"protocol"`
		MetaData struct {
			MetaData Metadata `json:"metaData"`
		} `json:"metaData"`
		NumFiles    int     `json:"numFiles"`
		SizeInBytes int64   `json:"sizeInBytes"`
		Txns        [][]any `json:"txns"`
		Domains     [][]any `json:"domains"`
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(&want); err != nil {
		t.Fatal(err)
	}
	if len(want.SnapshotError) > 0 {
		t.Logf("no oracle: %.200s", want.SnapshotError)
		return
	}
	if s.version != want.Version {
		t.Errorf("version %d, want %d", s.version, want.Version)
	}
	p, wp := *s.protocol, want.Protocol.Protocol
	for _, l := range [][]string{p.ReaderFeatures, p.WriterFeatures, wp.ReaderFeatures, wp.WriterFeatures} {
		sort.Strings(l)
	}
	if p.MinReaderVersion != wp.MinReaderVersion || p.MinWriterVersion != wp.MinWriterVersion ||
		strings.Join(p.ReaderFeatures, ",") != strings.Join(wp.ReaderFeatures, ",") || strings.Join(p.WriterFeatures, ",") != strings.Join(wp.WriterFeatures, ",") {
		t.Errorf("protocol %+v, want %+v", p, wp)
	}
	m, wm := s.metadata, want.MetaData.MetaData
	if m.ID != wm.ID || m.Name != wm.Name || m.SchemaString != wm.SchemaString || strings.Join(m.PartitionColumns, ",") != strings.Join(wm.PartitionColumns, ",") {
		t.Errorf("metadata\n%+v, want\n%+v", m, wm)
	}
	if len(m.Configuration)+len(wm.Configuration) > 0 && !reflect.DeepEqual(m.Configuration, wm.Configuration) {
		t.Errorf("configuration %v, want %v", m.Configuration, wm.Configuration)
	}
	if s.NumFiles() != want.NumFiles || s.Bytes() != want.SizeInBytes {
		t.Errorf("%d files of %d bytes, want %d of %d", s.NumFiles(), s.Bytes(), want.NumFiles, want.SizeInBytes)
	}
	var got []string
	for _, a := range s.Adds() {
		got = append(got, goldenFile(a))
	}
	var files []string
	list, err := os.ReadFile(filepath.Join(filepath.Dir(file), "files.jsonl"))
	if err == nil {
		for _, line := range bytes.Split(bytes.TrimSpace(list), []byte("\n")) {
			if len(line) == 0 {
				continue
			}
			var a Add
			if err := json.Unmarshal(line, &a); err != nil {
				t.Fatal(err)
			}
			files = append(files, goldenFile(&a))
		}
		sort.Strings(got)
		sort.Strings(files)
		if !reflect.DeepEqual(got, files) {
			for i := range min(len(got), len(files)) {
				if got[i] != files[i] {
					t.Errorf("file\n%s, want\n%s", got[i], files[i])
					break
				}
			}
			t.Errorf("%d files, want %d", len(got), len(files))
		}
	} else if want.NumFiles > 0 {
		t.Logf("no list of files: %v", err)
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
	if len(s.domains) != len(want.Domains) {
		t.Errorf("domains %v, want %v", s.domains, want.Domains)
	}
	for _, x := range want.Domains {
		if d, ok := s.Domain(x[0].(string)); !ok || d.Configuration != x[1].(string) {
			t.Errorf("domain %v is %v", x, d)
		}
	}
}

// goldenFile spells what a live file is: its path (decoded), partition values, size, vector and row ids.
func goldenFile(a *Add) string {
	path := canonicalPath(a.Path)
	pv, _ := json.Marshal(a.PartitionValues)
	dv, _ := json.Marshal(a.DeletionVector)
	rows, _ := json.Marshal([]*int64{a.BaseRowID, a.DefaultRowCommitVersion})
	size, _ := json.Marshal(a.Size)
	return strings.Join([]string{path, string(pv), string(size), string(dv), string(rows)}, " ")
}
