package sharing

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/delta/expr"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/pipeline"
)

const asDelta = "responseformat=delta;readerfeatures=deletionvectors"

// lines reads a response of JSON lines.
func (f *fixture) lines(r *http.Response) []map[string]map[string]any {
	f.Helper()
	b := f.body(r)
	if r.StatusCode != http.StatusOK || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-ndjson") {
		f.Fatalf("%s %s: %d %s", r.Request.Method, r.Request.URL, r.StatusCode, b)
	}
	var out []map[string]map[string]any
	for dec := json.NewDecoder(bytes.NewReader(b)); ; {
		var l map[string]map[string]any
		if err := dec.Decode(&l); errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			f.Fatalf("%v in %s", err, b)
		}
		if len(l) != 1 {
			f.Fatalf("a line with %d keys: %v", len(l), l)
		}
		out = append(out, l)
	}
}

// got is a row as a client sees it, with the kind of change where it is one.
type got struct{ row, kind string }

// read does what a client does with the lines of files.
func (f *fixture) read(lines []map[string]map[string]any) []got {
	f.Helper()
	var out []got
	for _, l := range lines {
		for kind, v := range l {
			switch kind {
			case lineFile, lineAdd, lineRemove, lineCDF:
			default:
				continue
			}
			from, vector := v, (*delta.DeletionVector)(nil)
			if action, ok := v["deltaSingleAction"].(map[string]any); ok {
				for k, a := range action {
					kind, from = k, a.(map[string]any)
				}
				from["url"] = from["path"]
				if d := from["deletionVector"]; d != nil {
					b, err := json.Marshal(d)
					if err != nil || json.Unmarshal(b, &vector) != nil {
						f.Fatalf("vector %v: %v", d, err)
					}
				}
				if from["stats"] != nil && vector != nil && !strings.Contains(from["stats"].(string), `"tightBounds":false`) {
					f.Errorf("statistics of a file with a vector: %s", from["stats"])
				}
			}
			gone, err := delta.LoadVector(f.Context(), delta.TableInfo{}, vector)
			if err != nil {
				f.Fatal(err)
			}
			r := f.doAs("", "GET", from["url"].(string), "")
			b := f.body(r)
			if r.StatusCode != http.StatusOK {
				f.Fatalf("GET %s: %d %s", from["url"], r.StatusCode, b)
			}
			if size, ok := from["size"].(float64); ok && int(size) != len(b) {
				f.Errorf("%s has %d bytes, not %v", from["url"], len(b), size)
			}
			day, _ := from["partitionValues"].(map[string]any)["day"].(string)
			rows := f.parquet(b, day, gone)
			for i := range rows {
				switch kind {
				case "add":
					rows[i].kind = changeInsert
				case "remove":
					rows[i].kind = changeDelete
				}
			}
			out = append(out, rows...)
		}
	}
	slices.SortFunc(out, func(a, b got) int { return cmp.Or(strings.Compare(a.row, b.row), strings.Compare(a.kind, b.kind)) })
	return out
}

func (f *fixture) parquet(b []byte, day string, gone *roaring64.Bitmap) []got {
	f.Helper()
	pf, err := file.NewParquetReader(bytes.NewReader(b))
	if err != nil {
		f.Fatal(err)
	}
	defer pf.Close()
	r, err := pqarrow.NewFileReader(pf, pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
	if err != nil {
		f.Fatal(err)
	}
	t, err := r.ReadTable(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	defer t.Release()
	tr := array.NewTableReader(t, t.NumRows()+1)
	defer tr.Release()
	var out []got
	at := uint64(0)
	for tr.Next() {
		rec := tr.RecordBatch()
		col := func(name string) int {
			i := rec.Schema().FieldIndices(name)
			if len(i) != 1 {
				return -1
			}
			return i[0]
		}
		for i := range int(rec.NumRows()) {
			if gone != nil && gone.Contains(at) {
				at++
				continue
			}
			at++
			if c := col(pipeline.ColumnDeleted); c >= 0 && rec.Column(c).(*array.Boolean).IsValid(i) && rec.Column(c).(*array.Boolean).Value(i) {
				f.Errorf("a row that stands for a deletion is seen: %v", rec.Column(col("id")).ValueStr(i))
			}
			g := got{row: fmt.Sprintf("%s %g %s", rec.Column(col("id")).ValueStr(i), rec.Column(col("price")).(*array.Float64).Value(i), day[len(day)-2:])}
			if c := col(delta.ChangeTypeColumn); c >= 0 {
				g.kind = rec.Column(c).ValueStr(i)
			}
			out = append(out, g)
		}
	}
	return out
}

func TestRowsAreTheTables(t *testing.T) {
	rnd := testscale.Rand(t)
	for _, config := range []map[string]string{nil, {"delta.enableDeletionVectors": "false"}, {"delta.columnMapping.mode": "name"}} {
		f := newFixture(t, nil, config)
		features := asDelta
		if config["delta.columnMapping.mode"] != "" {
			features += ",columnmapping"
		}
		state := map[int64]row{}
		visible := [][]got{{}} // by version
		for range 8 {
			seen := map[int64]bool{}
			var rows []row
			for range 1 + rnd.IntN(12) {
				id := rnd.Int64N(20)
				if seen[id] {
					continue
				}
				seen[id] = true
				r := row{id: id, seq: state[id].seq + 1, price: float64(rnd.IntN(100)), day: 1 + rnd.IntN(3), deleted: rnd.IntN(4) == 0}
				rows, state[id] = append(rows, r), r
			}
			f.upsert(rows...)
			var now []got
			for _, r := range state {
				if !r.deleted {
					now = append(now, got{row: r.String()})
				}
			}
			slices.SortFunc(now, func(a, b got) int { return strings.Compare(a.row, b.row) })
			visible = append(visible, now)
		}
		for v, want := range visible {
			for _, caps := range []string{"responseformat=parquet", features} {
				if strings.Contains(caps, "delta") && config["delta.columnMapping.mode"] != "" {
					continue // the columns of files have physical names, which this test's client does not know
				}
				r := f.do("POST", tablePath+"/query", fmt.Sprintf(`{"version": %d}`, v), capabilitiesHeader, caps)
				if h := r.Header.Get("Delta-Table-Version"); h != strconv.Itoa(v) {
					t.Errorf("version %s, not %d", h, v)
				}
				rows := f.read(f.lines(r))
				for i := range rows {
					rows[i].kind = ""
				}
				if !slices.Equal(rows, want) && len(rows)+len(want) > 0 {
					t.Errorf("%v, version %d, %s:\n%v, not\n%v", config, v, caps, rows, want)
				}
			}
		}
		// The changes of each version lead from what was seen before it to what is seen after it.
		for _, caps := range []string{"responseformat=parquet", features} {
			if strings.Contains(caps, "delta") && config["delta.columnMapping.mode"] != "" {
				continue
			}
			for from := 1; from < len(visible); from++ {
				for to := from; to < len(visible); to += 3 {
					r := f.do("GET", fmt.Sprintf("%s/changes?startingVersion=%d&endingVersion=%d", tablePath, from, to), "", capabilitiesHeader, caps)
					rows := map[string]int{}
					for _, g := range visible[from-1] {
						rows[g.row]++
					}
					kinds := map[string]int{}
					for _, g := range f.read(f.lines(r)) {
						kinds[g.kind]++
						switch g.kind {
						case changeInsert, changePostimage:
							rows[g.row]++
						case changeDelete, changePreimage:
							rows[g.row]--
						default:
							t.Fatalf("kind of change %q", g.kind)
						}
					}
					maps.DeleteFunc(rows, func(_ string, n int) bool { return n == 0 })
					want := map[string]int{}
					for _, g := range visible[to] {
						want[g.row]++
					}
					if !maps.Equal(rows, want) {
						t.Errorf("%v, %s, changes %d to %d (%v) lead to %v, not %v", config, caps, from, to, kinds, rows, want)
					}
					if kinds[changePreimage] != kinds[changePostimage] {
						t.Errorf("%v, %s, changes %d to %d: halves of updates: %v", config, caps, from, to, kinds)
					}
				}
			}
		}
	}
}

func TestFilesSinceAVersion(t *testing.T) {
	f := newFixture(t, nil, nil)
	f.upsert(row{id: 1, seq: 1, price: 1, day: 1}, row{id: 2, seq: 1, price: 2, day: 1})
	f.upsert(row{id: 1, seq: 2, price: 5, day: 1})
	for _, caps := range []string{"responseformat=parquet", asDelta} {
		r := f.do("POST", tablePath+"/query", `{"startingVersion": 1, "endingVersion": 7, "includeHistoricalProtocol": true}`, capabilitiesHeader, caps)
		if r.Header.Get("Delta-Table-Version") != "1" {
			t.Errorf("headers: %v", r.Header)
		}
		lines := f.lines(r)
		adds := []string{}
		for _, l := range lines {
			for kind, v := range l {
				if a, ok := v["deltaSingleAction"].(map[string]any); ok {
					for k := range a {
						kind = k
					}
				}
				if kind == lineAdd || kind == lineRemove {
					adds = append(adds, fmt.Sprintf("%s %v", kind, v["version"]))
				}
			}
		}
		// The update marks a row of the first file: the file is removed and added again with its vector.
		slices.Sort(adds)
		if want := []string{"add 1", "add 2", "add 2", "remove 2"}; !slices.Equal(adds, want) {
			t.Errorf("%s: %v, not %v", caps, adds, want)
		}
	}
}

// Changes are read with the schema of the last version that was asked for, whatever the columns were called before.
func TestChangesBeforeARename(t *testing.T) {
	f := newFixture(t, nil, map[string]string{"delta.columnMapping.mode": "name"})
	f.upsert(row{id: 1, seq: 1, price: 1, day: 1})
	f.upsert(row{id: 1, seq: 2, price: 5, day: 1})
	f.upsert(row{id: 1, seq: 3, price: 5, day: 1, deleted: true})
	for from, to := range map[string]string{"id": "key", "name": "label"} {
		if _, err := f.table.RenameColumn(t.Context(), []string{from}, to, delta.AlterOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	f.lake.Table("events").Key = []string{"key"}
	for query, names := range map[string][2]string{
		"startingVersion=1":                                {"key", "label"},
		"startingVersion=1&endingVersion=3":                {"id", "name"},
		"startingVersion=1&includeHistoricalMetadata=true": {"id", "name"},
		"startingVersion=1&includeHistoricalProtocol=true": {"key", "label"},
	} {
		var rows []string
		lines := f.lines(f.do("GET", tablePath+"/changes?"+query, ""))
		if schema, _ := lines[1]["metaData"]["schemaString"].(string); !strings.Contains(schema, `"name":"`+names[1]+`"`) {
			t.Errorf("%s: the client is told %s", query, schema)
		}
		for _, l := range lines {
			cdf, ok := l[lineCDF]
			if !ok {
				continue
			}
			pf, err := file.NewParquetReader(bytes.NewReader(f.body(f.doAs("", "GET", cdf["url"].(string), ""))))
			if err != nil {
				t.Fatal(err)
			}
			r, err := pqarrow.NewFileReader(pf, pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
			if err != nil {
				t.Fatal(err)
			}
			all, err := r.ReadTable(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			tr := array.NewTableReader(all, 0)
			for tr.Next() {
				b := tr.RecordBatch()
				for i := range int(b.NumRows()) {
					var row []string
					for _, c := range []string{names[0], names[1], delta.ChangeTypeColumn} {
						v := "no such column"
						if at := b.Schema().FieldIndices(c); len(at) == 1 {
							v = b.Column(at[0]).ValueStr(i)
						}
						row = append(row, v)
					}
					rows = append(rows, strings.Join(row, " "))
				}
			}
			tr.Release()
			all.Release()
			_ = pf.Close()
		}
		slices.Sort(rows)
		if want := []string{"1 n1 delete", "1 n1 insert", "1 n1 update_postimage", "1 n1 update_preimage"}; !slices.Equal(rows, want) {
			t.Errorf("%s: %q, not %q", query, rows, want)
		}
	}
}

func TestLimitHint(t *testing.T) {
	f := newFixture(t, nil, nil)
	for day := range 5 {
		f.upsert(row{id: int64(day), seq: 1, price: 1, day: day + 1}, row{id: int64(100 + day), seq: 1, price: 1, day: day + 1, deleted: true})
	}
	count := func(body string) int {
		return len(f.lines(f.do("POST", tablePath+"/query", body, capabilitiesHeader, asDelta))) - 2
	}
	for limit, want := range map[int]int{0: 1, 1: 1, 2: 2, 4: 4, 9: 5} {
		if n := count(fmt.Sprintf(`{"limitHint": %d}`, limit)); n != want {
			t.Errorf("limit %d: %d files, not %d: rows that stand for deletions do not count", limit, n, want)
		}
	}
	// Statistics cannot tell how many rows satisfy a predicate.
	if n := count(`{"limitHint": 1, "predicateHints": ["price > 3"]}`); n != 5 {
		t.Errorf("a limit beside a predicate: %d files", n)
	}
}

func hint(op string, children ...string) string {
	return fmt.Sprintf(`{"op": %q, "children": [%s]}`, op, strings.Join(children, ","))
}

func leaf(op, name, value, kind string) string {
	return fmt.Sprintf(`{"op": %q, "name": %q, "value": %q, "valueType": %q}`, op, name, value, kind)
}

func TestHintsLeaveOutFiles(t *testing.T) {
	f := newFixture(t, nil, nil)
	for day := 1; day <= 4; day++ {
		f.upsert(row{id: int64(day), seq: 1, price: float64(day), day: day})
	}
	f.srv.o.Parse = func(sql string) (expr.Expr, error) {
		if sql != "id = 2" {
			return nil, fmt.Errorf("no")
		}
		return expr.Call{Func: "=", Args: []expr.Expr{expr.Column{Path: []string{"id"}}, expr.Literal{Value: int64(2)}}}, nil
	}
	days := func(fields map[string]any) string {
		t.Helper()
		b, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, l := range f.lines(f.do("POST", tablePath+"/query", string(b)))[2:] {
			out = append(out, l["file"]["partitionValues"].(map[string]any)["day"].(string)[9:])
		}
		slices.Sort(out)
		return strings.Join(out, "")
	}
	day := leaf("column", "day", "", "date")
	id := leaf("column", "ID", "", "long")
	lit := func(v, kind string) string { return leaf("literal", "", v, kind) }
	for h, want := range map[string]string{
		hint("equal", day, lit("2024-01-02", "date")):    "2",
		hint("equal", lit("2024-01-02", "date"), day):    "2",
		hint("lessThan", day, lit("2024-01-02", "date")): "1",
		hint("lessThan", lit("2024-01-02", "date"), day): "34",
		hint("greaterThanOrEqual", id, lit("3", "long")): "34",
		hint("lessThanOrEqual", id, lit("3", "long")):    "123",
		hint("not", hint("equal", id, lit("3", "long"))): "124",
		hint("isNull", id):              "",
		hint("not", hint("isNull", id)): "1234",
		hint("and", hint("greaterThan", id, lit("1", "long")), hint("lessThan", day, lit("2024-01-03", "date"))): "2",
		hint("or", hint("equal", id, lit("1", "long")), hint("equal", id, lit("4", "long"))):                     "14",
		hint("equal", leaf("column", "name", "", "string"), lit("n3", "string")):                                 "3",
		hint("equal", leaf("column", "at", "", "timestamp"), lit("2024-01-03T00:00:00.000001Z", "timestamp")):    "3",
		hint("equal", leaf("column", "price", "", "double"), lit("3", "double")):                                 "3",
		// What is not understood filters nothing, not even in parts.
		hint("not", hint("and", hint("equal", id, lit("3", "long")), hint("like", id))): "1234",
		hint("equal", leaf("column", "id", "", "string"), lit("3", "string")):           "1234",
		hint("equal", id, lit("x", "long")):                                             "1234",
		hint("equal", leaf("column", "none", "", "long"), lit("3", "long")):             "1234",
		hint("equal", id): "1234",
		`{"op": "equal"`:  "1234",
		strings.Repeat(`{"op":"not","children":[`, 5000) + hint("isNull", id) + strings.Repeat("]}", 5000): "1234",
	} {
		if got := days(map[string]any{"jsonPredicateHints": h}); got != want {
			t.Errorf("%.200s: days %s, not %s", h, got, want)
		}
	}
	if got := days(map[string]any{"predicateHints": []string{"id = 2"}}); got != "2" {
		t.Errorf("SQL: days %s", got)
	}
	if got := days(map[string]any{"predicateHints": []string{"id = 2", "what?"}}); got != "2" {
		t.Errorf("SQL, in parts: days %s", got)
	}
	if got := days(map[string]any{"predicateHints": []string{"what?"}}); got != "1234" {
		t.Errorf("SQL that is none: days %s", got)
	}
}

// FuzzJSONHints: whatever a client sends as predicates, nothing panics, and a predicate of another type is never used.
func FuzzJSONHints(f *testing.F) {
	id := leaf("column", "id", "", "long")
	f.Add(hint("equal", id, leaf("literal", "", "3", "long")))
	f.Add(hint("not", hint("isNull", id)))
	f.Add(hint("or", hint("lessThan", id, leaf("literal", "", "3", "long")), hint("equal", leaf("column", "day", "", "date"), leaf("literal", "", "2024-01-01", "date"))))
	f.Add(`{"op":"literal","value":1e999,"valueType":"double"}`)
	f.Add(strings.Repeat(`{"op":"not","children":[`, 200))
	schema := eventsSchema()
	f.Fuzz(func(t *testing.T, text string) {
		p, err := jsonHints(text, schema)
		if (p == nil) == (err == nil) {
			t.Fatalf("%q: predicate %v, error %v", text, p, err)
		}
	})
}

// FuzzCapabilities: any header is either understood or refused.
func FuzzCapabilities(f *testing.F) {
	f.Add(asDelta)
	f.Add("responseformat=delta,parquet;;readerfeatures=;includeendstreamaction=true")
	f.Fuzz(func(t *testing.T, header string) {
		c, err := parseCapabilities(header)
		if err == nil && len(c.formats) == 0 {
			t.Fatalf("%q: no format", header)
		}
	})
}
