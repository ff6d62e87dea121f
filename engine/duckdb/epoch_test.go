package duckdb

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"pgregory.net/rapid"

	"github.com/cauce-data/cauce/connect/csv"
	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/delta/enginetest"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/pipeline"
)

const testLake = `version: 1
storage: file:./data
tables:
  events:
    columns:
      id: {type: STRING, not_null: true}
      n: LONG
      price: DECIMAL(18,8)
      ts: TIMESTAMP
      ingested_at: TIMESTAMP
      day: DATE
    key: [id]
    sequence: [ts]
    partition_by: [day]
    transform:
      - set: {id: "upper(trim(id))", day: "to_date(ts)"}
      - where: "coalesce(id, '') <> 'TEST'"
    expect: [{name: positive, check: "price > 0", on_fail: quarantine}, {name: large, check: "n > 10", on_fail: warn}]
sources:
  files: {table: events, kind: files, location: ["raw/batch/*.csv"], format: csv, csv: {header: true}, fields: {id: id, n: n, price: price, ts: to_event_time(ts)}}
  live: {table: events, kind: embedded, topic: t, format: json, filter: "e = 'x'", fields: {id: id, n: N, price: data.p, ts: to_event_time(T)}, rank: 1}
`

func testPlan(t testing.TB, source string) *pipeline.Plan {
	t.Helper()
	p, err := NewParser()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	file := filepath.Join(t.TempDir(), "lake.yaml")
	if err := os.WriteFile(file, []byte(testLake), 0o644); err != nil {
		t.Fatal(err)
	}
	lake, err := pipeline.Load(file, pipeline.LoadOptions{Parser: p})
	if err != nil {
		t.Fatal(err)
	}
	plan, err := lake.Plan(source)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// rawFile makes a CSV text ready as a batch does.
func rawFile(t testing.TB, src *pipeline.Source, name, body string) *pipeline.RawFile {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o644); err != nil {
		t.Fatal(err)
	}
	store, err := objstore.NewLocal(dir)
	if err != nil {
		t.Fatal(err)
	}
	f, err := csv.NewOpener(csv.Options{TempDir: dir}).Open(context.Background(), store, objstore.Info{Key: name}, src)
	if err != nil {
		t.Fatal(err)
	}
	f.Name, f.Origin, f.Generation = "raw/batch/"+name, "f:"+name, 7
	return f
}

type outcome struct {
	Rows                              []string
	Bad                               []string
	Read, Filtered, Quarantined, Lost int64
	Warned                            map[string]int64
}

func finish(t testing.TB, x pipeline.Epoch) outcome {
	t.Helper()
	ctx := context.Background()
	res, err := x.Finish(ctx)
	if err != nil {
		t.Fatal(err)
	}
	o := outcome{Read: res.Read, Filtered: res.Filtered, Quarantined: res.Quarantined, Lost: res.Lost, Warned: res.Warned}
	for b, err := range res.Rows.Read(ctx, nil, nil) {
		if err != nil {
			t.Fatal(err)
		}
		for i := range int(b.NumRows()) {
			var s []string
			for c := range int(b.NumCols()) {
				s = append(s, b.Column(c).ValueStr(i))
			}
			o.Rows = append(o.Rows, strings.Join(s, "|"))
		}
	}
	slices.Sort(o.Rows)
	for b, err := range res.Bad {
		if err != nil {
			t.Fatal(err)
		}
		o.Bad = append(o.Bad, fmt.Sprintf("%s %d %s %s", b.Origin, b.Position, b.Rule, b.Reason))
	}
	slices.Sort(o.Bad)
	if o.Read != int64(len(o.Rows))+o.Lost+o.Filtered+o.Quarantined || o.Quarantined != int64(len(o.Bad)) {
		t.Fatalf("the counts do not add up: %+v", o)
	}
	return o
}

var epochTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func runFiles(t testing.TB, e *Engine, plan *pipeline.Plan, files ...*pipeline.RawFile) outcome {
	t.Helper()
	x, err := e.NewEpoch(context.Background(), plan, epochTime)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	for _, f := range files {
		if err := x.AddFile(context.Background(), f); err != nil {
			t.Fatal(err)
		}
	}
	return finish(t, x)
}

// What the reader of lines makes of a file is what the exact reader makes of it, row for row.
func TestLinesEqualExactReader(t *testing.T) {
	e, plan := testEngine(t), testPlan(t, "files")
	counted := *plan
	counted.Fields = slices.Clone(plan.Fields)
	for i := range counted.Fields {
		if counted.Fields[i].Column == "n" {
			counted.Fields[i].Expr = pipeline.Call{Func: "occurrence"}
		}
	}
	cell := rapid.SampledFrom([]string{"", " a ", "b", "TEST", "12", "12.5", "1e3", "-1", "0.5", "n/a", "1724112000", "1724112000123", "2024-08-20T00:00:00Z", "día", `"q,1"`, `""`, `"a""b"`, `"12"`,
		`"n/a"`, "1.123456789", `a"b`, `"a"b`, `"a`, "\"two\nlines\"", "\"\r\n\"", "\r", " \t"})
	name := rapid.SampledFrom([]string{"id", `"id"`, "\"i\nd\""})
	rapid.Check(t, func(rt *rapid.T) {
		end := rapid.SampledFrom([]string{"\n", "\r\n"}).Draw(rt, "line end")
		var b strings.Builder
		src := *plan.Source
		src.CSV.Multiline = rapid.Bool().Draw(rt, "multiline")
		first := name.Draw(rt, "first name")
		if !src.CSV.Multiline {
			first = "id"
		}
		b.WriteString(first + ",n,price,ts" + end)
		wild := rapid.IntRange(0, 2).Draw(rt, "wild") > 0 // else no record is bad
		for range rapid.IntRange(0, 12).Draw(rt, "rows") {
			n := 4
			if wild && rapid.IntRange(0, 20).Draw(rt, "ragged") == 0 {
				n = rapid.IntRange(0, 5).Draw(rt, "fields")
			}
			var cells []string
			for range n {
				c := cell.Draw(rt, "cell")
				if !wild {
					c = strings.Trim(c, "\"\r")
					c = strings.ReplaceAll(strings.ReplaceAll(c, `"`, ""), "\n", "")
				}
				cells = append(cells, c)
			}
			b.WriteString(strings.Join(cells, ",") + end)
		}
		body := b.String()
		if rapid.Bool().Draw(rt, "unterminated") {
			body = strings.TrimSuffix(body, end)
		}
		if rapid.Bool().Draw(rt, "nulls") {
			src.CSV.NullValues = []string{"n/a"}
		}
		src.CSV.Header, src.CSV.Columns = pipeline.HeaderTrue, nil
		p := *plan
		if rapid.Bool().Draw(rt, "occurrence") {
			p = counted
		}
		p.Source = &src
		if !strings.HasPrefix(body, "id,") && !strings.HasPrefix(body, `"id",`) {
			p.Required = nil
		}
		fast := rawFile(t, &src, "a.csv", body)
		exact := *fast
		exact.Path = ""
		exact.Rows = fast.Rows
		got, want := runFiles(t, e, &p, fast), runFiles(t, e, &p, &exact)
		if !reflect.DeepEqual(got, want) {
			rt.Fatalf("%q\nlines %+v\nexact %+v", body, got, want)
		}
	})
}

func TestRulesOfAnEpoch(t *testing.T) {
	e, plan := testEngine(t), testPlan(t, "files")
	o := runFiles(t, e, plan, rawFile(t, plan.Source, "a.csv", "id,n,price,ts\na,12,1.5,1724112000\n a ,3,2,1724112001\nb,1.5,1,1724112000\n,1,1,1724112000\nc,20,0,1724112000\nTEST,1,1,1724112000\nd,20,1,never\ne,20,1.123456789,1724112000\nshort\n"))
	wantBad := []string{
		`f:a.csv 3 cast:n n = "1.5" is no LONG`, `f:a.csv 4 not_null:id id is null (id = null)`, `f:a.csv 5 positive price = "0.00000000": price > 0 is not true`,
		`f:a.csv 7 cast:ts ts = "never" is no TIMESTAMP`, `f:a.csv 8 cast:price price = "1.123456789" is no DECIMAL(18,8)`,
	}
	if len(o.Bad) != 6 || !slices.Equal(slices.DeleteFunc(slices.Clone(o.Bad), func(s string) bool { return strings.Contains(s, "structure") }), wantBad) {
		t.Errorf("bad rows:\n%s", strings.Join(o.Bad, "\n"))
	}
	if len(o.Rows) != 1 || !strings.HasPrefix(o.Rows[0], "A|3|2|2024-08-20T00:00:01Z|") || o.Lost != 1 || o.Filtered != 1 || o.Warned["large"] != 1 {
		t.Errorf("%+v", o)
	}
}

func TestStreamRecords(t *testing.T) {
	e, plan := testEngine(t), testPlan(t, "live")
	x, err := e.NewEpoch(context.Background(), plan, epochTime)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	var recs []pipeline.Record
	for i, v := range []string{
		`{"e":"x","id":"a","N":12,"T":1724112000123,"t":"other","data":{"p":"1.50"}}`, `{"e":"y"}`, `{"e":"x","id":"a","N":13,"T":1724112000123,"data":{"p":1.6}}`,
		`not json`, ``, `{"e":"x","id":"b","N":"1.5","T":1,"data":{"p":1}}`,
	} {
		recs = append(recs, pipeline.Record{Topic: "t", Offset: int64(i + 1), Value: []byte(v), Origin: "embedded:u:t/0"})
	}
	recs = append(recs, recs[0]) // delivered twice
	if err := x.AddRecords(context.Background(), recs); err != nil {
		t.Fatal(err)
	}
	o := finish(t, x)
	if len(o.Rows) != 1 || !strings.HasPrefix(o.Rows[0], "A|13|1.6|2024-08-20T00:00:00.123Z|2026-01-02T03:04:05Z|2024-08-20|1|0|3|embedded:u:t/0") || o.Lost != 2 || o.Filtered != 1 || len(o.Bad) != 3 {
		t.Errorf("%+v", o)
	}
}

// DuckDB's parts of delta.Engine and the pure-Go ones find, write and read the same rows.
func TestDeltaPartsEqualPureGo(t *testing.T) {
	ctx := context.Background()
	e, plan := testEngine(t), testPlan(t, "files")
	var b strings.Builder
	b.WriteString("id,n,price,ts\n")
	for i := range 3000 {
		fmt.Fprintf(&b, "k%d,%d,%d.25,%d\n", i, i, i+1, 1724112000+i*100)
	}
	x, err := e.NewEpoch(ctx, plan, epochTime)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if err := x.AddFile(ctx, rawFile(t, plan.Source, "a.csv", b.String())); err != nil {
		t.Fatal(err)
	}
	res, err := x.Finish(ctx)
	if err != nil {
		t.Fatal(err)
	}
	store, err := objstore.NewLocal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	table := delta.TableInfo{Store: store, Path: "t", Schema: plan.Table.DeltaSchema(), PartitionBy: []string{"day"}}
	skip := roaring64.BitmapOf(5, 6, 7, 2999)
	hashes := map[string]string{}
	for name, eng := range map[string]delta.Engine{"duckdb": e.Delta(), "go": delta.PureGo()} {
		for _, sorted := range [][]string{nil, {"n"}} {
			written, err := eng.FileWriter.Write(ctx, table, delta.WriteRequest{Rows: res.Rows, Skip: skip, SortBy: sorted})
			if err != nil {
				t.Fatal(err)
			}
			var files []delta.File
			var stats []string
			for _, w := range written {
				files = append(files, delta.File{Add: &delta.Add{Path: w.Path, PartitionValues: w.PartitionValues, Size: w.Size, Stats: w.Stats.JSON()}, Key: w.Key})
				stats = append(stats, *w.PartitionValues["day"]+w.Stats.JSON())
			}
			slices.Sort(stats)
			hashes[fmt.Sprint("statistics ", name, sorted)] = strings.Join(stats, "\n")
			for reader, r := range map[string]delta.Engine{"duckdb": e.Delta(), "go": delta.PureGo()} {
				var h delta.RowsHash
				for batch, err := range r.Reader.Read(ctx, table, files, delta.ReadOptions{}) {
					if err != nil {
						t.Fatal(err)
					}
					h.Add(batch)
				}
				hashes[fmt.Sprint("rows ", name, sorted, reader)] = h.String()
				m, err := r.Locator.Locate(ctx, table, files, res.Rows, []string{"id"}, []string{"n", "ts"})
				if err != nil {
					t.Fatal(err)
				}
				if len(m.Match) != 2996 || m.Stored.NumRows() != 2996 {
					t.Fatalf("%d of 2996 rows were found by %s", len(m.Match), reader)
				}
				for i, k := range m.Match {
					if m.Stored.Column(0).ValueStr(i) != fmt.Sprint(k.Source) {
						t.Fatalf("%s: source row %d was given the stored row %s", reader, k.Source, m.Stored.Column(0).ValueStr(i))
					}
				}
				m.Release()
			}
		}
	}
	for _, what := range []string{"rows", "statistics"} {
		one := ""
		for k, h := range hashes {
			if !strings.HasPrefix(k, what) {
				continue
			}
			if one == "" {
				one = h
			}
			if h != one {
				t.Errorf("%s differ: %s\n%s\nis not\n%s", what, k, h, one)
			}
		}
	}
}

// Rows keep the order of their file, by which their position is known, however many threads take them from the reader.
func TestPositionsOfALargeFile(t *testing.T) {
	e, err := Open(Options{Threads: 4, TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	const n = 300_000 // more than two row groups of DuckDB
	var b strings.Builder
	b.WriteString("id,n,price,ts\n")
	for i := range n {
		fmt.Fprintf(&b, "k%d,%d,1.5,1724112000\n", i, i+1)
	}
	plan := testPlan(t, "files")
	x, err := e.NewEpoch(context.Background(), plan, epochTime)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if err := x.AddFile(context.Background(), rawFile(t, plan.Source, "a.csv", b.String())); err != nil {
		t.Fatal(err)
	}
	res, err := x.Finish(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for batch, err := range res.Rows.Read(context.Background(), []string{"n", pipeline.ColumnPosition}, nil) {
		if err != nil {
			t.Fatal(err)
		}
		for i := range int(batch.NumRows()) {
			if a, b := batch.Column(0).ValueStr(i), batch.Column(1).ValueStr(i); a != b {
				t.Fatalf("record %s of the file has the position %s", a, b)
			}
		}
		rows += int(batch.NumRows())
	}
	if rows != n {
		t.Fatalf("%d rows of %d", rows, n)
	}
}

// FuzzNativeCasts demands that the short ways to numbers give what the exact ones do.
func FuzzNativeCasts(f *testing.F) {
	for _, s := range []string{"", "-", ".", "-.5", "1.", "007", "-0", "999999999999999999", "1234567890.12345678", "12345678901.5", "1e5", " 1", "0.000000001", "99999999999999999999"} {
		f.Add(s, uint8(18), uint8(8))
	}
	f.Fuzz(func(t *testing.T, s string, p, scale uint8) {
		precision := int(p)%38 + 1
		sc := int(scale) % (precision + 1)
		if v, ok := shortLong(s); ok {
			if w, wok := parseLong(s); !wok || v != w {
				t.Fatalf("%q: %d, exactly %d %t", s, v, w, wok)
			}
		}
		v, ok := parseDecimal128(s, precision, sc)
		w, wok := decimalText(s, precision, sc)
		if ok != wok || ok && v.ToString(int32(sc)) != w {
			t.Fatalf("%q as DECIMAL(%d,%d): %s %t, exactly %s %t", s, precision, sc, v.ToString(int32(sc)), ok, w, wok)
		}
	})
}

// The engine does what the suite of delta demands.
func TestEngineConforms(t *testing.T) { enginetest.Run(t, testEngine(t).Delta()) }
