package index_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"pgregory.net/rapid"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/ingest/index"
	"github.com/cauce-data/cauce/objstore"
)

// counting notes how many files a Locator had to scan.
type counting struct {
	delta.Locator
	files, calls int
}

func (c *counting) Locate(ctx context.Context, table delta.TableInfo, files []delta.File, source delta.Rows, key, want []string) (*delta.Matches, error) {
	c.calls++
	c.files += len(files)
	return c.Locator.Locate(ctx, table, files, source, key, want)
}

var schema = &delta.Schema{Fields: []delta.Field{
	{Name: "k", Type: delta.String, Nullable: true}, {Name: "n", Type: delta.Long, Nullable: true},
	{Name: "day", Type: delta.Integer, Nullable: true}, {Name: "v", Type: delta.Long, Nullable: true},
}}

// process is an Index that can be another one from a step to the next, as it is after a restart.
type process struct{ *index.Index }

// harm does something to a file of a folder of segments.
func harm(t *rapid.T, dir string) {
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	check := func(err error) {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if len(files) == 0 || rapid.IntRange(0, 9).Draw(t, "folder") == 0 {
		check(os.RemoveAll(dir))
		if rapid.Bool().Draw(t, "a file instead") {
			check(os.WriteFile(dir, nil, 0o600))
		}
		return
	}
	name := rapid.SampledFrom(files).Draw(t, "file")
	b, err := os.ReadFile(name)
	check(err)
	other := rapid.SampledFrom(files).Draw(t, "other")
	at := rapid.IntRange(0, max(len(b)-1, 0)).Draw(t, "at")
	switch rapid.SampledFrom([]string{"cut", "flip", "zero", "remove", "replace", "grow"}).Draw(t, "harm") {
	case "cut":
		check(os.Truncate(name, int64(at)))
	case "flip":
		if len(b) > 0 {
			b[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
			check(os.WriteFile(name, b, 0o600))
		}
	case "zero":
		clear(b[at:min(at+4096, len(b))])
		check(os.WriteFile(name, b, 0o600))
	case "remove":
		check(os.Remove(name))
	case "replace":
		o, err := os.ReadFile(other)
		check(err)
		check(os.WriteFile(name, o, 0o600))
	case "grow":
		check(os.WriteFile(name, append(b, b...), 0o600))
	}
}

type row struct {
	k    string
	null bool
	n    int64
	day  int32
	v    int64
}

func rowsOf(rows []row) *delta.MemoryRows {
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema.Arrow())
	defer b.Release()
	for _, r := range rows {
		if r.null {
			b.Field(0).AppendNull()
		} else {
			b.Field(0).(*array.StringBuilder).Append(r.k)
		}
		b.Field(1).(*array.Int64Builder).Append(r.n)
		b.Field(2).(*array.Int32Builder).Append(r.day)
		b.Field(3).(*array.Int64Builder).Append(r.v)
	}
	return delta.NewRows(b.Schema(), b.NewRecordBatch())
}

func newTable(t *rapid.T, eng delta.Engine) *delta.Table {
	tbl, err := delta.Create(context.Background(), objstore.NewMemory(nil), "t", delta.CreateOptions{
		Schema: schema, PartitionBy: []string{"day"}, Config: map[string]string{"delta.enableDeletionVectors": "true"},
	}, &delta.Options{Engine: eng})
	if err != nil {
		t.Fatal(err)
	}
	return tbl
}

// TestSameTableWithAndWithout runs one random history of merges, compactions and restores on two tables, one of which
// finds its rows through an Index. They must be equal after each step, whatever fits the Index's memory.
func TestSameTableWithAndWithout(t *testing.T) {
	var scanned, plain int
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		inner, all := &counting{Locator: delta.PureGo().Locator}, &counting{Locator: delta.PureGo().Locator}
		eng, ref := delta.PureGo(), delta.PureGo()
		const ample = 1 << 30
		bytesMax := rapid.SampledFrom([]int64{1, 700, 5_000, ample}).Draw(t, "bytes")
		o := index.Options{BytesMax: bytesMax}
		if rapid.Bool().Draw(t, "disk") {
			dir, err := os.MkdirTemp("", "index-*")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = os.RemoveAll(dir) }()
			o.Dir, o.DiskBytesMax = dir, rapid.SampledFrom([]int64{1, 5_000, ample}).Draw(t, "disk bytes")
		}
		x := &process{index.New(inner, eng.Reader, o)}
		eng.Locator, ref.Locator = x, all
		spoiled := bytesMax != ample || o.Dir != "" && o.DiskBytesMax != ample
		a, b := newTable(t, eng), newTable(t, ref)
		key := rapid.SampledFrom([][]string{{"k"}, {"k", "n"}}).Draw(t, "key")
		for step := range rapid.IntRange(3, 14).Draw(t, "steps") {
			switch op := rapid.SampledFrom([]string{"merge", "merge", "merge", "merge", "optimize", "restore", "restart", "harm"}).Draw(t, "op"); op {
			case "restart":
				x.Index = index.New(inner, eng.Reader, o)
				spoiled = spoiled || o.Dir == ""
			case "harm": // as a crash, a bad disk or a person may leave the folder
				if o.Dir != "" {
					harm(t, o.Dir)
					spoiled = true
				}
			case "merge":
				var rows []row
				for range rapid.IntRange(1, 30).Draw(t, "rows") {
					rows = append(rows, row{
						k: fmt.Sprint("key-", rapid.IntRange(0, 25).Draw(t, "k")), null: rapid.IntRange(0, 20).Draw(t, "null") == 0,
						n: rapid.Int64Range(0, 1).Draw(t, "n"), day: rapid.Int32Range(0, 3).Draw(t, "day"), v: rapid.Int64Range(0, 9).Draw(t, "v"),
					})
				}
				o := delta.MergeOptions{Key: key, Order: []delta.OrderTerm{{Column: "v"}, {Column: "day"}, {Column: "n"}}, Same: []string{"v"}, Carry: []string{"day"}}
				ra, errA := a.Merge(ctx, rowsOf(rows), o)
				rb, errB := b.Merge(ctx, rowsOf(rows), o)
				if errA != nil || errB != nil {
					t.Fatal(errA, errB)
				}
				if ra.Inserted != rb.Inserted || ra.Updated != rb.Updated || ra.Unchanged != rb.Unchanged || ra.Lost != rb.Lost {
					t.Fatalf("step %d: %+v with the index, %+v without", step, *ra, *rb)
				}
			case "optimize":
				for _, tbl := range []*delta.Table{a, b} {
					if _, err := tbl.Optimize(ctx, delta.OptimizeOptions{}); err != nil {
						t.Fatal(err)
					}
				}
			case "restore":
				s, err := b.Snapshot(ctx)
				if err != nil {
					t.Fatal(err)
				}
				v := delta.Version(rapid.Int64Range(0, int64(s.Version())).Draw(t, "version"))
				for _, tbl := range []*delta.Table{a, b} {
					if _, err := tbl.Restore(ctx, v, delta.RestoreOptions{}); err != nil {
						t.Fatal(err)
					}
				}
			}
			var hash [2]string
			for i, tbl := range []*delta.Table{a, b} {
				s, err := tbl.Snapshot(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if hash[i], err = delta.LogicalHash(ctx, tbl, s); err != nil {
					t.Fatal(err)
				}
			}
			if hash[0] != hash[1] {
				t.Fatalf("step %d: with the index the table is another", step)
			}
		}
		if !spoiled { // else it may rightly leave files to scans
			scanned += inner.files
			plain += all.files
		}
	})
	if plain > 300 && scanned*10 > plain*9 { // few and short histories say nothing
		t.Errorf("the index left %d of %d files to scans: it answers nothing", scanned, plain)
	}
}

// TestLocate compares answers with those of the plain Locator: many rows a file, so that buckets and the sort matter,
// marked rows, several stored rows of one key, and files of which some are not remembered.
func TestLocate(t *testing.T) {
	ctx := t.Context()
	inner := &counting{Locator: delta.PureGo().Locator}
	eng := delta.PureGo()
	tbl, err := delta.Create(ctx, objstore.NewMemory(nil), "t", delta.CreateOptions{Schema: schema, PartitionBy: []string{"day"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var rows []row
	for i := range 40_000 {
		rows = append(rows, row{k: fmt.Sprint("key-", i%30_000), n: int64(i), day: int32(i % 3), v: int64(i)})
	}
	s, files := appended(t, tbl, rows)
	x := index.New(inner, eng.Reader, index.Options{})
	var src []row
	for i := 0; i < 35_000; i += 7 {
		src = append(src, row{k: fmt.Sprint("key-", i), null: i%70 == 0})
	}
	source := rowsOf(src)
	answer := func(l delta.Locator, files []delta.File, want []string) []string {
		t.Helper()
		m, err := l.Locate(ctx, s.TableInfo(), files, source, []string{"k"}, want)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Release()
		var out []string
		for i, h := range m.Match {
			line := fmt.Sprint(h.Source, files[h.File].Key, h.Row)
			if want != nil {
				line += m.Stored.Column(0).ValueStr(i) + " " + m.Stored.Column(1).ValueStr(i)
			}
			out = append(out, line)
		}
		slices.Sort(out)
		return out
	}
	for round := range 4 {
		some := files[:1+round%len(files)]
		for _, want := range [][]string{nil, {"n", "v"}} {
			before := inner.files
			got, expected := answer(x, some, want), answer(delta.PureGo().Locator, some, want)
			if len(expected) == 0 || !slices.Equal(got, expected) {
				t.Fatalf("round %d: %d matches, want %d", round, len(got), len(expected))
			}
			if round == 3 && inner.files != before {
				t.Errorf("%d files were scanned although all were asked for before", inner.files-before)
			}
		}
	}
	if bytes, n := x.Size(); n != len(files) || bytes < 40_000*16 {
		t.Errorf("%d files in %d bytes are remembered", n, bytes)
	}
	// Files that have left the table are forgotten soon, and those that come back are found all the same.
	var gone []string
	for _, f := range files[1:] {
		gone = append(gone, f.Key)
	}
	x.Gone(gone)
	for range 4 {
		answer(x, files[:1], nil)
	}
	if bytes, n := x.Size(); n != 1 || bytes > 40_000*16 {
		t.Errorf("%d files in %d bytes are remembered after all but one have gone", n, bytes)
	}
	for range 3 {
		if got, expected := answer(x, files, nil), answer(delta.PureGo().Locator, files, nil); !slices.Equal(got, expected) {
			t.Fatalf("%d matches, want %d", len(got), len(expected))
		}
	}
}

// TestTablesDoNotForgetEachOther has a table ask again after another one has asked very often: its files are still known.
func TestTablesDoNotForgetEachOther(t *testing.T) {
	ctx := t.Context()
	inner := &counting{Locator: delta.PureGo().Locator}
	x := index.New(inner, delta.PureGo().Reader, index.Options{})
	store := objstore.NewMemory(nil)
	ask := make([]func(), 2)
	for i := range ask {
		tbl, err := delta.Create(ctx, store, fmt.Sprint("t", i), delta.CreateOptions{Schema: schema}, nil)
		if err != nil {
			t.Fatal(err)
		}
		s, files := appended(t, tbl, []row{{k: "a"}, {k: "b"}})
		ask[i] = func() {
			t.Helper()
			m, err := x.Locate(index.Repeated(ctx), s.TableInfo(), files, rowsOf([]row{{k: "b"}}), []string{"k"}, nil)
			if err != nil {
				t.Fatal(err)
			}
			m.Release()
		}
	}
	slow, fast := ask[0], ask[1]
	slow()
	for range 200 {
		fast()
	}
	if _, n := x.Size(); n != 2 {
		t.Errorf("%d files are remembered, want one of each table", n)
	}
}

// TestFiltersOfSlowTablesStayOnDisk: a table that asks seldom takes no memory for the rows that are added, and finds them all the same.
func TestFiltersOfSlowTablesStayOnDisk(t *testing.T) {
	for pause, memory := range map[time.Duration]bool{10 * time.Millisecond: true, 30 * time.Second: false} {
		synctest.Test(t, func(t *testing.T) {
			ctx := t.Context()
			x := index.New(delta.PureGo().Locator, delta.PureGo().Reader, index.Options{Dir: t.TempDir()})
			tbl, err := delta.Create(ctx, objstore.NewMemory(nil), "t", delta.CreateOptions{Schema: schema}, nil)
			if err != nil {
				t.Fatal(err)
			}
			var bytes []int64
			for i := range 4 {
				var rows []row
				for j := range 1000 {
					rows = append(rows, row{k: fmt.Sprint(i, "-", j)})
				}
				s, files := appended(t, tbl, rows)
				m, err := x.Locate(index.Repeated(ctx), s.TableInfo(), files, rowsOf(rows[:10]), []string{"k"}, nil)
				if err != nil {
					t.Fatal(err)
				}
				if n := len(m.Match); n != 10 {
					t.Errorf("%d of 10 keys are found", n)
				}
				m.Release()
				n, _ := x.Size()
				bytes = append(bytes, n)
				time.Sleep(pause)
			}
			if grew := bytes[3]-bytes[1] > 2*1000; grew != memory {
				t.Errorf("calls each %s: the index takes %v bytes", pause, bytes)
			}
		})
	}
}

// TestTablesWithCommonFiles has a clone of a table ask for the table's files after that has asked very often.
func TestTablesWithCommonFiles(t *testing.T) {
	ctx := t.Context()
	x := index.New(&counting{Locator: delta.PureGo().Locator}, delta.PureGo().Reader, index.Options{})
	tbl, err := delta.Create(ctx, objstore.NewMemory(nil), "t", delta.CreateOptions{Schema: schema}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, files := appended(t, tbl, []row{{k: "a"}, {k: "b"}})
	ask := func(path string) {
		t.Helper()
		info := s.TableInfo()
		info.Path = path
		m, err := x.Locate(index.Repeated(ctx), info, files, rowsOf([]row{{k: "b"}}), []string{"k"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		m.Release()
	}
	for range 200 {
		ask("t")
	}
	ask("clone")
	if _, n := x.Size(); n != 1 {
		t.Errorf("%d files are remembered after the clone has asked, want 1", n)
	}
}

// TestColumnsThatChange has a column get the name that the key had, and the key another type, between merges of one
// process: what is remembered of the files must not be taken for the new key.
func TestColumnsThatChange(t *testing.T) {
	ctx := context.Background()
	eng := delta.PureGo()
	eng.Locator = index.New(eng.Locator, eng.Reader, index.Options{})
	ids := &delta.Schema{Fields: []delta.Field{
		{Name: "id", Type: delta.Decimal{P: 5, S: 1}, Nullable: true}, {Name: "other", Type: delta.Decimal{P: 5, S: 1}, Nullable: true},
	}}
	tbl, err := delta.Create(ctx, objstore.NewMemory(nil), "t", delta.CreateOptions{Schema: ids, Config: map[string]string{
		"delta.columnMapping.mode": "name", "delta.enableTypeWidening": "true", "delta.enableDeletionVectors": "true",
	}}, &delta.Options{Engine: eng})
	if err != nil {
		t.Fatal(err)
	}
	merge := func(rows string) *delta.MergeResult {
		t.Helper()
		s, err := tbl.Snapshot(ctx)
		if err != nil {
			t.Fatal(err)
		}
		b, _, err := array.RecordFromJSON(memory.DefaultAllocator, s.Schema().Arrow(), strings.NewReader(rows))
		if err != nil {
			t.Fatal(err)
		}
		res, err := tbl.Merge(ctx, delta.NewRows(b.Schema(), b), delta.MergeOptions{Key: []string{"id"}, Order: []delta.OrderTerm{{Column: "other"}}})
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	alter := func(_ *delta.AlterResult, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	merge(`[{"id": "1.0", "other": "7.0"}, {"id": "2.0", "other": "8.0"}]`)
	for range 3 { // the file is remembered
		if res := merge(`[{"id": "1.0", "other": "7.0"}]`); res.Inserted != 0 {
			t.Fatalf("%+v", *res)
		}
	}
	alter(tbl.ChangeColumn(ctx, []string{"id"}, delta.ColumnChange{Type: delta.Decimal{P: 8, S: 3}}, delta.AlterOptions{}))
	for range 3 {
		if res := merge(`[{"id": "1.000", "other": "7.0"}]`); res.Inserted != 0 {
			t.Fatalf("after the key was widened: %+v", *res)
		}
	}
	alter(tbl.RenameColumn(ctx, []string{"id"}, "was", delta.AlterOptions{}))
	alter(tbl.RenameColumn(ctx, []string{"other"}, "id", delta.AlterOptions{}))
	alter(tbl.RenameColumn(ctx, []string{"was"}, "other", delta.AlterOptions{}))
	if res := merge(`[{"id": "1.0", "other": "9.000"}, {"id": "8.0", "other": "9.000"}]`); res.Inserted != 1 || res.Updated != 1 {
		t.Fatalf("after names were swapped: %+v", *res)
	}
}

// TestSegmentsOutliveTheProcess: what one process has read of the keys no other reads again, and what is damaged is made again.
func TestSegmentsOutliveTheProcess(t *testing.T) {
	ctx := t.Context()
	tbl, err := delta.Create(ctx, objstore.NewMemory(nil), "t", delta.CreateOptions{Schema: schema, PartitionBy: []string{"day"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var rows, src []row
	for i := range 3000 {
		rows = append(rows, row{k: fmt.Sprint("key-", i), day: int32(i % 3), v: int64(i)})
		if i%5 == 0 { // half of them stand in one of the files
			src = append(src, row{k: fmt.Sprint("key-", i*2)})
		}
	}
	s, files := appended(t, tbl, rows)
	dir := filepath.Join(t.TempDir(), "index")
	var log bytes.Buffer
	inner := &counting{Locator: delta.PureGo().Locator}
	start := func() *index.Index {
		return index.New(inner, delta.PureGo().Reader, index.Options{Dir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))})
	}
	source := rowsOf(src)
	// locate gives the number of files that were scanned.
	locate := func(x *index.Index) int {
		t.Helper()
		before := inner.files
		m, err := x.Locate(ctx, s.TableInfo(), files, source, []string{"k"}, []string{"v"})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Release()
		if len(m.Match) != 300 || m.Stored.NumRows() != 300 {
			t.Fatalf("%d keys are found", len(m.Match))
		}
		return inner.files - before
	}
	x := start()
	if n := locate(x); n != 3 {
		t.Errorf("%d files were scanned, want all: whoever looks once does not remember", n)
	}
	if n := locate(x); n != 0 {
		t.Errorf("%d files were scanned at the second time", n)
	}
	if bytes, n := x.Size(); n != 3 || bytes > 3000*3 {
		t.Errorf("%d segments take %d bytes of memory", n, bytes)
	}
	if n := locate(start()); n != 0 {
		t.Errorf("another process scanned %d files", n)
	}
	if log.Len() > 0 {
		t.Errorf("logged: %s", &log)
	}
	segments, err := filepath.Glob(filepath.Join(dir, "*.keys"))
	if err != nil || len(segments) != 3 {
		t.Fatalf("segments: %v, %v", segments, err)
	}
	// One is cut short, one loses a bit among its entries, one is gone.
	running := start()
	locate(running)
	for i, harm := range []func(string) error{
		func(name string) error { return os.Truncate(name, 5000) },
		func(name string) error {
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			for i := 8; i < 24_000; i += 24 { // each key's
				b[i] ^= 1
			}
			return os.WriteFile(name, b, 0o600)
		},
		os.Remove,
	} {
		if err := harm(segments[i]); err != nil {
			t.Fatal(err)
		}
	}
	if n := locate(running); n != 3 {
		t.Errorf("%d files were scanned by a running process, want those three", n)
	}
	if n := strings.Count(log.String(), "level=WARN"); n != 2 || !strings.Contains(log.String(), "it is made again") {
		t.Errorf("warnings: %s", &log)
	}
	locate(running)
	log.Reset()
	if n := locate(start()); n != 0 || log.Len() > 0 {
		t.Errorf("%d files were scanned after the segments were made again; logged: %s", n, &log)
	}
	// Segments of files that left the table go with them.
	var gone []string
	for _, f := range files[1:] {
		gone = append(gone, f.Key)
	}
	running.Gone(gone)
	for range 4 {
		m, err := running.Locate(ctx, s.TableInfo(), files[:1], source, []string{"k"}, []string{"v"})
		if err != nil {
			t.Fatal(err)
		}
		m.Release()
	}
	if segments, err = filepath.Glob(filepath.Join(dir, "*.keys")); err != nil || len(segments) != 1 {
		t.Errorf("segments: %v, %v", segments, err)
	}
}

// TestFolderThatCannotBeUsed: without a folder the index works in memory.
func TestFolderThatCannotBeUsed(t *testing.T) {
	ctx := t.Context()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	vanishing := filepath.Join(t.TempDir(), "index")
	for _, dir := range []string{filepath.Join(file, "index"), vanishing} {
		var log bytes.Buffer
		inner := &counting{Locator: delta.PureGo().Locator}
		eng := delta.PureGo()
		x := index.New(inner, eng.Reader, index.Options{Dir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))})
		eng.Locator = x
		tbl, err := delta.Create(ctx, objstore.NewMemory(nil), "t", delta.CreateOptions{
			Schema: schema, Config: map[string]string{"delta.enableDeletionVectors": "true"},
		}, &delta.Options{Engine: eng})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 4 {
			if _, err := tbl.Merge(ctx, rowsOf([]row{{k: "a", v: int64(i)}, {k: fmt.Sprint(i), v: 1}}), delta.MergeOptions{Key: []string{"k"}, Order: []delta.OrderTerm{{Column: "v"}}}); err != nil {
				t.Fatal(err)
			}
			if i == 1 && dir == vanishing {
				if err := os.RemoveAll(dir); err != nil {
					t.Fatal(err)
				}
			}
		}
		if bytes, n := x.Size(); n == 0 || bytes < 100 {
			t.Errorf("%d segments in %d bytes of memory", n, bytes)
		}
		if !strings.Contains(log.String(), "in memory") {
			t.Errorf("logged: %s", &log)
		}
	}
}

// appended gives a table more rows, and then its snapshot and files.
func appended(t *testing.T, tbl *delta.Table, rows []row) (*delta.Snapshot, []delta.File) {
	t.Helper()
	if _, err := tbl.Append(t.Context(), rowsOf(rows), delta.AppendOptions{}); err != nil {
		t.Fatal(err)
	}
	s, err := tbl.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	files, err := s.Files(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s, files
}
