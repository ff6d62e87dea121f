// Package enginetest is the conformance suite of delta.Engine: what a FileWriter, a Reader and a Locator must do, whoever
// implements them. The pure-Go engine and that of package engine/duckdb pass it.
package enginetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/objstore"
)

// Run runs the suite against an engine.
func Run(t *testing.T, engine delta.Engine) {
	t.Run("FileWriter", func(t *testing.T) { TestFileWriter(t, engine.FileWriter) })
	t.Run("Reader", func(t *testing.T) { TestReader(t, engine.Reader) })
	t.Run("Locator", func(t *testing.T) { TestLocator(t, engine.Locator) })
}

// schema is the table of the suite, partitioned by day and name.
func schema() *delta.Schema {
	return &delta.Schema{Fields: []delta.Field{
		{Name: "id", Type: delta.String, Nullable: true}, {Name: "n", Type: delta.Long, Nullable: true}, {Name: "price", Type: delta.Decimal{P: 18, S: 8}, Nullable: true},
		{Name: "day", Type: delta.Date, Nullable: true}, {Name: "at", Type: delta.Timestamp, Nullable: true}, {Name: "ok", Type: delta.Boolean, Nullable: true},
		{Name: "x", Type: delta.Double, Nullable: true}, {Name: "tags", Type: &delta.Array{Element: delta.String, ContainsNull: true}, Nullable: true},
		{Name: "s", Type: &delta.Struct{Fields: []delta.Field{{Name: "a", Type: delta.Integer, Nullable: true}}}, Nullable: true},
		{Name: "name", Type: delta.String, Nullable: true},
	}}
}

// suite is a table in a new folder.
type suite struct {
	t     *testing.T
	dir   string
	table delta.TableInfo
}

func newSuite(t *testing.T) *suite {
	t.Helper()
	dir := t.TempDir()
	store, err := objstore.NewLocal(dir)
	if err != nil {
		t.Fatal(err)
	}
	return &suite{t, dir, delta.TableInfo{Store: store, Path: "t", Schema: schema(), PartitionBy: []string{"day", "name"}, Config: map[string]string{}}}
}

// lines are rows as JSON, one object each; columns that are left out are null.
func (s *suite) rows(lines ...string) *delta.MemoryRows {
	s.t.Helper()
	return rowsOf(s.t, s.table.Schema.Arrow(), lines...)
}

func rowsOf(t *testing.T, schema *arrow.Schema, lines ...string) *delta.MemoryRows {
	t.Helper()
	b, _, err := array.RecordFromJSON(memory.DefaultAllocator, schema, strings.NewReader("["+strings.Join(lines, ",")+"]"))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	rows := delta.NewRows(schema, b)
	t.Cleanup(func() {
		if err := rows.Close(); err != nil {
			t.Error(err)
		}
	})
	return rows
}

// written makes files of what a writer wrote.
func written(w []delta.WrittenFile) []delta.File {
	var files []delta.File
	for _, f := range w {
		files = append(files, delta.File{Add: &delta.Add{Path: f.Path, PartitionValues: f.PartitionValues, Size: f.Size, ModificationTime: f.ModTime.UnixMilli(), Stats: f.Stats.JSON()}, Key: f.Key})
	}
	return files
}

// write writes files with the pure-Go writer, one for each element.
func (s *suite) write(files ...[]string) []delta.File {
	s.t.Helper()
	var out []delta.File
	for _, lines := range files {
		w, err := delta.PureGo().FileWriter.Write(context.Background(), s.table, delta.WriteRequest{Rows: s.rows(lines...)})
		if err != nil {
			s.t.Fatal(err)
		}
		out = append(out, written(w)...)
	}
	return out
}

// text prints rows in their order, one a line.
func text(t *testing.T, rows iter.Seq2[arrow.RecordBatch, error]) []string {
	t.Helper()
	var out []string
	for b, err := range rows {
		if err != nil {
			t.Fatal(err)
		}
		for i := range int(b.NumRows()) {
			var row []string
			for c, col := range b.Columns() {
				v := "-"
				if col.IsValid(i) {
					v = strings.Clone(col.ValueStr(i))
				}
				row = append(row, b.ColumnName(c)+"="+v)
			}
			out = append(out, strings.Join(row, " "))
		}
	}
	return out
}

func (s *suite) read(files []delta.File, o delta.ReadOptions) []string {
	s.t.Helper()
	return text(s.t, delta.PureGo().Reader.Read(context.Background(), s.table, files, o))
}

func equal(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

const (
	rowA = `{"id":"a","n":1,"price":"1.50000000","day":"2024-08-20","at":"2024-08-20T00:00:00.123456Z","ok":true,"x":0.5,"tags":["p",null],"s":{"a":7},"name":"spot"}`
	rowB = `{"id":"b","n":2,"price":"-2.00000001","day":"2024-08-20","at":"1969-12-31T23:59:59.999999Z","ok":false,"x":-1e300,"tags":[],"s":{"a":null},"name":"spot"}`
	rowC = `{"id":"c","n":9223372036854775807,"day":"2024-08-21","name":"a/b c%20=ñ:"}`
	rowD = `{"n":-1,"price":"9999999999.99999999","tags":null,"s":null,"name":null}`
)

// TestFileWriter tests a FileWriter. What it writes is read by the pure-Go reader.
func TestFileWriter(t *testing.T, w delta.FileWriter) {
	ctx := context.Background()
	t.Run("partitions, values and statistics", func(t *testing.T) {
		s := newSuite(t)
		got, err := w.Write(ctx, s.table, delta.WriteRequest{Rows: s.rows(rowA, rowB, rowC, rowD)})
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != 3 {
			t.Fatalf("%d files for three partitions", len(got))
		}
		folders := map[string]int64{}
		for _, f := range got {
			folders[filepath.ToSlash(filepath.Dir(strings.TrimPrefix(f.Key, "t/")))] = f.NumRecords
			if key, err := s.table.FileKey(f.Path); err != nil || key != f.Key {
				t.Errorf("path %q stands for %q, not for %q, %v", f.Path, key, f.Key, err)
			}
			info, err := s.table.Store.Stat(ctx, f.Key)
			if err != nil || info.Size != f.Size || info.ModTime.Sub(f.ModTime).Abs() > time.Minute {
				t.Errorf("%s is said to have %d bytes of %v: %+v, %v", f.Key, f.Size, f.ModTime, info, err)
			}
			if f.Stats == nil || f.Stats.NumRecords != f.NumRecords {
				t.Fatalf("%s: statistics %+v of %d rows", f.Key, f.Stats, f.NumRecords)
			}
		}
		// How the names of folders escape unusual characters is the writer's to say: partition values come from the log.
		if n := folders["day=2024-08-20/name=spot"]; n != 2 || len(folders) != 3 {
			t.Errorf("folders %v", folders)
		}
		lines := s.read(written(got), delta.ReadOptions{})
		sort.Strings(lines)
		want := text(t, s.rows(rowA, rowB, rowC, rowD).Read(ctx, nil, nil))
		sort.Strings(want)
		equal(t, "rows read back", lines, want)
		for _, f := range got {
			if f.NumRecords != 2 {
				continue
			}
			min, max := fmt.Sprint(f.Stats.MinValues["n"], f.Stats.MinValues["id"], f.Stats.MinValues["price"]), fmt.Sprint(f.Stats.MaxValues["n"], f.Stats.MaxValues["id"], f.Stats.MaxValues["price"])
			if min != "1a-2.00000001" || max != "2b1.50000000" && max != "2b1.5" {
				t.Errorf("bounds %s and %s in %s", min, max, f.Stats.JSON())
			}
		}
	})
	t.Run("bounds that hold", func(t *testing.T) { testBounds(t, w) })
	t.Run("some rows, sorted", func(t *testing.T) {
		s := newSuite(t)
		var lines []string
		for i := range 50 {
			lines = append(lines, fmt.Sprintf(`{"id":"r%02d","n":%d,"name":"one"}`, i, (i*37)%50))
		}
		skip := roaring64.BitmapOf(0, 7, 49)
		got, err := w.Write(ctx, s.table, delta.WriteRequest{Rows: s.rows(lines...), Skip: skip, SortBy: []string{"n"}, Compression: "zstd"})
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != 1 || got[0].NumRecords != 47 {
			t.Fatalf("%+v", got)
		}
		var want []string
		for n := range 50 {
			for i := range 50 {
				if (i*37)%50 == n && !skip.Contains(uint64(i)) {
					want = append(want, fmt.Sprintf("n=%d id=r%02d", n, i))
				}
			}
		}
		equal(t, "rows by n", s.read(written(got), delta.ReadOptions{Columns: []string{"n", "id"}}), want)
	})
	t.Run("nothing to write", func(t *testing.T) {
		s := newSuite(t)
		for what, req := range map[string]delta.WriteRequest{
			"no rows":      {Rows: s.rows()},
			"all left out": {Rows: s.rows(rowA, rowB), Skip: roaring64.BitmapOf(0, 1)},
		} {
			if got, err := w.Write(ctx, s.table, req); err != nil || len(got) != 0 {
				t.Errorf("%s: %+v, %v", what, got, err)
			}
		}
		if files := s.files(); len(files) != 0 {
			t.Errorf("files %v", files)
		}
	})
	t.Run("a size that is asked for", func(t *testing.T) {
		s := newSuite(t)
		var lines []string
		for i := range 20_000 {
			lines = append(lines, fmt.Sprintf(`{"id":"%032x","n":%d,"name":"one"}`, uint64(i)*0x9e3779b97f4a7c15, i))
		}
		rows := s.rows(lines...)
		got, err := w.Write(ctx, s.table, delta.WriteRequest{Rows: rows, FileBytesTarget: 1})
		if err != nil {
			t.Fatal(err)
		}
		total := int64(0)
		for _, f := range got {
			total += f.NumRecords
		}
		if total != 20_000 {
			t.Errorf("%d rows in %d files", total, len(got))
		}
	})
	t.Run("what was begun goes when the rows fail", func(t *testing.T) {
		s := newSuite(t)
		rows := &failing{s.rows(rowA, rowB, rowC)}
		if got, err := w.Write(ctx, s.table, delta.WriteRequest{Rows: rows}); !errors.Is(err, errFailing) || len(got) != 0 {
			t.Errorf("%+v, %v", got, err)
		}
		if files := s.files(); len(files) != 0 {
			t.Errorf("left behind: %v", files)
		}
	})
}

// testBounds writes values of which writers get the statistics wrong (PROTOCOL.md, "Per-file Statistics").
func testBounds(t *testing.T, w delta.FileWriter) {
	nullable := func(name string, typ delta.Type) delta.Field {
		return delta.Field{Name: name, Type: typ, Nullable: true}
	}
	s := newSuite(t)
	s.table.PartitionBy = nil
	s.table.Schema = &delta.Schema{Fields: []delta.Field{
		nullable("n", delta.Long), nullable("d", delta.Decimal{P: 38, S: 10}), nullable("zero", delta.Double), nullable("nan", delta.Double), nullable("f", delta.Float),
		nullable("at", delta.Timestamp), nullable("wall", delta.TimestampNTZ), nullable("s", delta.String), nullable("none", delta.Long),
		nullable("in", &delta.Struct{Fields: []delta.Field{nullable("x", delta.Long)}}),
	}}
	const least, most = "2024-08-20T12:34:56.123456", "2024-08-20T12:34:56.654321"
	long := strings.Repeat("é", 40)
	schema := s.table.Schema.Arrow()
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	for i := range 2 {
		first := i == 0
		pick := func(a, b string) string {
			if first {
				return a
			}
			return b
		}
		for c, v := range map[int]string{
			0: pick("9007199254740993", "-9223372036854775808"), 1: pick("1234567890123456789012345678.0123456789", "-0.0000000001"), 2: pick("-0", "0"), 3: pick("NaN", "1.5"), 4: pick("0.1", "-0.1"),
			5: pick(least, most) + "Z", 6: pick(least, most), 7: pick(long, long+"b"),
		} {
			if err := b.Field(c).AppendValueFromString(v); err != nil {
				t.Fatalf("%s: %v", schema.Field(c).Name, err)
			}
		}
		b.Field(8).AppendNull()
		in := b.Field(9).(*array.StructBuilder)
		if first { // a null struct has null members
			in.AppendNull()
			continue
		}
		in.Append(true)
		in.FieldBuilder(0).(*array.Int64Builder).Append(3)
	}
	rec := b.NewRecordBatch()
	defer rec.Release()
	rows := delta.NewRows(schema, rec)
	defer rows.Close()
	got, err := w.Write(context.Background(), s.table, delta.WriteRequest{Rows: rows})
	if err != nil || len(got) != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	text := got[0].Stats.JSON()
	st, err := delta.ParseStats(text)
	if err != nil {
		t.Fatal(err)
	}
	bad := func(what string) { t.Errorf("%s in %s", what, text) }
	lo, hi := func(c string) string { return fmt.Sprint(st.MinValues[c]) }, func(c string) string { return fmt.Sprint(st.MaxValues[c]) }
	if lo("n") != "-9223372036854775808" || hi("n") != "9007199254740993" {
		bad("integers that a float does not hold")
	}
	if lo("d") != "-0.0000000001" && lo("d") != "-1E-10" && lo("d") != "-1e-10" || hi("d") != "1234567890123456789012345678.0123456789" {
		bad("decimals of 38 digits")
	}
	for _, c := range []string{"zero", "f"} {
		l, lerr := strconv.ParseFloat(lo(c), 64)
		h, herr := strconv.ParseFloat(hi(c), 64)
		if lerr != nil || herr != nil || l > 0 || h < 0 || c == "zero" && (!math.Signbit(l) || math.Signbit(h)) || c == "f" && (float32(l) != -0.1 || float32(h) != 0.1) {
			bad("bounds of " + c)
		}
	}
	if _, there := st.MaxValues["nan"]; there {
		bad("a greatest number beside NaN, which is greater,")
	}
	for c, zone := range map[string]string{"at": "Z", "wall": ""} {
		for _, bound := range []struct {
			text  string
			value string
			holds func(bound, value time.Time) bool
		}{
			{lo(c), least, func(b, v time.Time) bool { return !b.After(v) }},
			// Whoever cuts it to milliseconds must still get a bound.
			{hi(c), most, func(b, v time.Time) bool { return !b.Truncate(time.Millisecond).Before(v) || b.Equal(v) }},
		} {
			at, err := time.Parse("2006-01-02T15:04:05.999999999Z07:00", strings.TrimSuffix(bound.text, zone)+"Z")
			value, verr := time.Parse("2006-01-02T15:04:05.999999999Z07:00", bound.value+"Z")
			if err != nil || verr != nil || !strings.HasSuffix(bound.text, zone) || !bound.holds(at, value) {
				bad("bound " + bound.text + " of " + c)
			}
		}
	}
	if l, h := lo("s"), hi("s"); l > long || utf8.RuneCountInString(l) > 32 || !utf8.ValidString(l) || !utf8.ValidString(h) || h < long+"b" && st.MaxValues["s"] != nil {
		bad("bounds of text")
	}
	if st.MinValues["none"] != nil || st.MaxValues["none"] != nil || st.NullCount["none"] != int64(2) {
		bad("a column of nulls")
	}
	if in, ok := st.NullCount["in"].(map[string]any); ok && in["x"] != int64(1) {
		bad("null count inside of a struct")
	}
}

// files lists what lies below the table's root.
func (s *suite) files() (out []string) {
	s.t.Helper()
	err := filepath.WalkDir(filepath.Join(s.dir, "t"), func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && !d.IsDir() {
			out = append(out, p)
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

var errFailing = errors.New("the rows failed")

// failing are Rows whose last row cannot be read.
type failing struct{ *delta.MemoryRows }

func (f *failing) NumRows() int64 { return f.MemoryRows.NumRows() + 1 }

func (f *failing) Read(ctx context.Context, columns []string, ordinals *roaring64.Bitmap) iter.Seq2[arrow.RecordBatch, error] {
	return func(yield func(arrow.RecordBatch, error) bool) {
		for b, err := range f.MemoryRows.Read(ctx, columns, ordinals) {
			if !yield(b, err) {
				return
			}
		}
		yield(nil, errFailing)
	}
}

// TestReader tests a Reader on files of the pure-Go writer.
func TestReader(t *testing.T, r delta.Reader) {
	ctx := context.Background()
	s := newSuite(t)
	files := s.write([]string{rowA, rowB}, []string{rowC}, []string{rowD},
		[]string{`{"id":"e0","n":10,"name":"spot"}`, `{"id":"e1","n":11,"name":"spot"}`, `{"id":"e2","n":12,"name":"spot"}`, `{"id":"e3","n":13,"name":"spot"}`})
	read := func(table delta.TableInfo, o delta.ReadOptions) []string {
		t.Helper()
		return text(t, r.Read(ctx, table, files, o))
	}
	var all []string
	for _, lines := range [][]string{{rowA, rowB}, {rowC}, {rowD}, {`{"id":"e0","n":10,"name":"spot"}`, `{"id":"e1","n":11,"name":"spot"}`, `{"id":"e2","n":12,"name":"spot"}`, `{"id":"e3","n":13,"name":"spot"}`}} {
		all = append(all, text(t, s.rows(lines...).Read(ctx, nil, nil))...)
	}
	equal(t, "all columns, in the order of files and rows", read(s.table, delta.ReadOptions{}), all)
	equal(t, "some columns, in another order", read(s.table, delta.ReadOptions{Columns: []string{"name", "id", "day"}}), []string{
		"name=spot id=a day=2024-08-20", "name=spot id=b day=2024-08-20", "name=a/b c%20=ñ: id=c day=2024-08-21", "name=- id=- day=-",
		"name=spot id=e0 day=-", "name=spot id=e1 day=-", "name=spot id=e2 day=-", "name=spot id=e3 day=-",
	})
	equal(t, "partition columns alone", read(s.table, delta.ReadOptions{Columns: []string{"day"}})[:3], []string{"day=2024-08-20", "day=2024-08-20", "day=2024-08-21"})
	byID := s.table
	byID.Config = map[string]string{"delta.columnMapping.mode": "id"}
	byID.Schema = &delta.Schema{Fields: slices.Clone(s.table.Schema.Fields)}
	for i := range byID.Schema.Fields {
		f := &byID.Schema.Fields[i]
		f.Metadata = map[string]any{"delta.columnMapping.id": json.Number(strconv.Itoa(i + 1)), "delta.columnMapping.physicalName": f.Name}
	}
	// PROTOCOL.md, "Column Mapping": in the mode id a name stands for nothing.
	equal(t, "columns by id, which the files have not", read(byID, delta.ReadOptions{Columns: []string{"n", "name"}})[:2], []string{"n=- name=spot", "n=- name=spot"})
	later := s.table
	later.Schema = &delta.Schema{Fields: append(slices.Clone(s.table.Schema.Fields), delta.Field{Name: "later", Type: delta.Date, Nullable: true})}
	equal(t, "a column that the files have not", read(later, delta.ReadOptions{Columns: []string{"later", "n"}})[:2], []string{"later=- n=1", "later=- n=2"})
	files[3].Deleted = roaring64.BitmapOf(0, 2)
	files[1].Deleted = roaring64.BitmapOf(0)
	equal(t, "rows that are marked are left out", read(s.table, delta.ReadOptions{Columns: []string{"n"}}), []string{"n=1", "n=2", "n=-1", "n=11", "n=13"})
	equal(t, "rows with their places", read(s.table, delta.ReadOptions{Columns: []string{"id"}, WithPosition: true}), []string{
		"id=a _file_index=0 _row=0", "id=b _file_index=0 _row=1", "id=- _file_index=2 _row=0", "id=e1 _file_index=3 _row=1", "id=e3 _file_index=3 _row=3",
	})
	equal(t, "only some rows of each file", read(s.table, delta.ReadOptions{Columns: []string{"n"}, WithPosition: true, Rows: []*roaring64.Bitmap{roaring64.BitmapOf(1), nil, roaring64.New(), roaring64.BitmapOf(1, 2)}}), []string{
		"n=2 _file_index=0 _row=1", "n=11 _file_index=3 _row=1",
	})
	equal(t, "no files", text(t, r.Read(ctx, s.table, nil, delta.ReadOptions{})), nil)
	gone := []delta.File{{Add: &delta.Add{Path: "gone.parquet", PartitionValues: map[string]*string{}}, Key: "t/gone.parquet"}}
	failed := false
	for _, err := range r.Read(ctx, s.table, gone, delta.ReadOptions{}) {
		failed = failed || err != nil
	}
	if !failed {
		t.Error("a file that is not there reads as empty")
	}
	t.Run("batches have the table's types", func(t *testing.T) {
		s, rows := nestedSuite(t)
		files := s.write(rows)
		want := s.table.Schema.Arrow()
		for _, o := range []delta.ReadOptions{{}, {Rows: []*roaring64.Bitmap{roaring64.BitmapOf(0, 1)}}} {
			equal(t, "rows", text(t, r.Read(ctx, s.table, files, o)), text(t, s.rows(rows...).Read(ctx, nil, nil)))
			for b, err := range r.Read(ctx, s.table, files, o) {
				if err != nil {
					t.Fatal(err)
				}
				for i, c := range b.Columns() {
					if !arrow.TypeEqual(c.DataType(), want.Field(i).Type) {
						t.Errorf("column %s is %s, want %s", want.Field(i).Name, c.DataType(), want.Field(i).Type)
					}
				}
			}
		}
	})
}

// nestedSuite is a table with NOT NULL inside of its columns, and rows for it.
func nestedSuite(t *testing.T) (*suite, []string) {
	t.Helper()
	s := newSuite(t)
	s.table.PartitionBy = nil
	inner := &delta.Struct{Fields: []delta.Field{{Name: "a", Type: delta.Integer}, {Name: "b", Type: delta.String, Nullable: true}}}
	s.table.Schema = &delta.Schema{Fields: []delta.Field{
		{Name: "id", Type: delta.String, Nullable: true},
		{Name: "s", Type: inner, Nullable: true},
		{Name: "l", Type: &delta.Array{Element: inner}, Nullable: true},
		{Name: "m", Type: &delta.Map{Key: delta.String, Value: inner}, Nullable: true},
		{Name: "d", Type: &delta.Struct{Fields: []delta.Field{{Name: "x", Type: inner}}}, Nullable: true},
	}}
	return s, []string{
		`{"id":"a","s":{"a":1,"b":"x"},"l":[{"a":2,"b":null}],"m":[{"key":"k","value":{"a":3,"b":null}}],"d":{"x":{"a":4,"b":null}}}`,
		`{"id":"b"}`,
	}
}

// TestLocator tests a Locator on files of the pure-Go writer.
func TestLocator(t *testing.T, l delta.Locator) {
	ctx := context.Background()
	s := newSuite(t)
	files := s.write([]string{rowA, rowB, rowD}, []string{`{"id":"a","n":5,"day":"2024-08-21","name":"spot"}`, `{"id":"z","n":6,"price":"1.5","day":"2024-08-21","name":"spot"}`}, []string{`{"n":7,"name":null}`})
	at := func(id string, n int) string { // the place of a row
		for i, line := range text(t, delta.PureGo().Reader.Read(ctx, s.table, files, delta.ReadOptions{Columns: []string{"id", "n"}, WithPosition: true})) {
			_ = i
			if strings.HasPrefix(line, fmt.Sprintf("id=%s n=%d ", id, n)) {
				return line[strings.Index(line, "_file"):]
			}
		}
		t.Fatalf("no row %s %d", id, n)
		return ""
	}
	find := func(keys, want []string, lines ...string) []string {
		t.Helper()
		m, err := l.Locate(ctx, s.table, files, s.rows(lines...), keys, want)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Release()
		var out []string
		for i, k := range m.Match {
			line := fmt.Sprintf("%d: _file_index=%d _row=%d", k.Source, k.File, k.Row)
			for c := range want {
				col := m.Stored.Column(c)
				v := "-"
				if col.IsValid(i) {
					v = col.ValueStr(i)
				}
				if d, ok := col.(*array.Decimal128); ok && v != "-" {
					v = d.Value(i).ToString(d.DataType().(*arrow.Decimal128Type).Scale)
				}
				line += " " + m.Stored.ColumnName(c) + "=" + v
			}
			out = append(out, line)
		}
		if len(want) > 0 && len(m.Match) > 0 && int(m.Stored.NumRows()) != len(m.Match) {
			t.Errorf("%d stored rows for %d matches", m.Stored.NumRows(), len(m.Match))
		}
		sort.Strings(out)
		return out
	}
	equal(t, "a key in several files, several rows of a key, a null", find([]string{"id"}, nil, `{"id":"a"}`, `{"id":"nobody"}`, `{"id":"a"}`, `{"n":1}`), sorted(
		"0: "+at("a", 1), "0: "+at("a", 5), "2: "+at("a", 1), "2: "+at("a", 5)))
	equal(t, "with stored columns", find([]string{"id"}, []string{"n", "day", "price"}, `{"id":"b"}`, `{"id":"z"}`), sorted(
		"0: "+at("b", 2)+" n=2 day=2024-08-20 price=-2.00000001", "1: "+at("z", 6)+" n=6 day=2024-08-21 price=1.50000000"))
	equal(t, "several columns, a partition's among them", find([]string{"day", "id"}, nil, `{"id":"a","day":"2024-08-21"}`, `{"id":"a","day":"2024-08-22"}`), []string{"0: " + at("a", 5)})
	equal(t, "a null in one of several columns", find([]string{"id", "n"}, nil, `{"n":7}`, `{"id":"a"}`), nil)
	equal(t, "by partition columns alone", find([]string{"name", "day"}, nil, `{"name":"spot","day":"2024-08-20"}`), sorted("0: "+at("a", 1), "0: "+at("b", 2)))
	equal(t, "by a decimal", find([]string{"price"}, []string{"id"}, `{"price":"1.50000000"}`), sorted("0: "+at("a", 1)+" id=a", "0: "+at("z", 6)+" id=z"))
	equal(t, "by a timestamp", find([]string{"at"}, []string{"id"}, `{"at":"2024-08-20T00:00:00.123456Z"}`, `{"at":"2024-08-20T00:00:00.123457Z"}`), []string{"0: " + at("a", 1) + " id=a"})
	for i, f := range files {
		if strings.Contains(at("a", 1), fmt.Sprintf("_file_index=%d ", i)) {
			row := uint64(at("a", 1)[len(at("a", 1))-1] - '0')
			f.Deleted = roaring64.BitmapOf(row)
			files[i] = f
			break
		}
	}
	equal(t, "rows that are marked are not found", find([]string{"n"}, nil, `{"n":1}`, `{"n":2}`), []string{"1: " + at("b", 2)})
	if m, err := l.Locate(ctx, s.table, nil, s.rows(rowA), []string{"id"}, []string{"n"}); err != nil || len(m.Match) != 0 {
		t.Errorf("no files: %+v, %v", m, err)
	}
	if m, err := l.Locate(ctx, s.table, files, s.rows(), []string{"id"}, nil); err != nil || len(m.Match) != 0 {
		t.Errorf("no source rows: %+v, %v", m, err)
	}
	t.Run("stored columns have the table's types", func(t *testing.T) {
		s, rows := nestedSuite(t)
		want := s.table.Schema.Names()
		m, err := l.Locate(ctx, s.table, s.write(rows), s.rows(rows...), []string{"id"}, want)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Stored.Release()
		for i, c := range m.Stored.Columns() {
			if f := s.table.Schema.Arrow().Field(i); !arrow.TypeEqual(c.DataType(), f.Type) {
				t.Errorf("column %s is %s, want %s", f.Name, c.DataType(), f.Type)
			}
		}
	})
}

func sorted(lines ...string) []string {
	sort.Strings(lines)
	return lines
}
