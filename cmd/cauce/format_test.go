package main

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/file"
)

func sampleRows(t *testing.T) (*arrow.Schema, batches) {
	t.Helper()
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "s", Type: arrow.BinaryTypes.String, Nullable: true},
		{Name: "n", Type: arrow.PrimitiveTypes.Int64, Nullable: true},
		{Name: "d", Type: &arrow.Decimal128Type{Precision: 18, Scale: 8}, Nullable: true},
		{Name: "f", Type: arrow.PrimitiveTypes.Float64, Nullable: true},
		{Name: "t", Type: &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}, Nullable: true},
		{Name: "day", Type: arrow.FixedWidthTypes.Date32, Nullable: true},
		{Name: "l", Type: arrow.ListOf(arrow.PrimitiveTypes.Int32), Nullable: true},
		{Name: "st", Type: arrow.StructOf(arrow.Field{Name: "a", Type: arrow.BinaryTypes.String, Nullable: true}), Nullable: true},
	}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	b.Field(0).(*array.StringBuilder).AppendValues([]string{"a,\"b\"\n", "", "<ñ>"}, nil)
	b.Field(1).(*array.Int64Builder).AppendValues([]int64{math.MaxInt64, 0, -7}, []bool{true, false, true})
	for _, s := range []string{"59123.10000000", "-0.00000001", "0"} {
		v, err := decimal128.FromString(s, 18, 8)
		if err != nil {
			t.Fatal(err)
		}
		b.Field(2).(*array.Decimal128Builder).Append(v)
	}
	b.Field(3).(*array.Float64Builder).AppendValues([]float64{0.1, math.NaN(), 1e300}, nil)
	for _, s := range []string{"2024-08-20T00:00:00Z", "1969-12-31T23:59:59.999999Z", "2024-08-20T01:02:03.5Z"} {
		tm, _ := time.Parse(time.RFC3339Nano, s)
		b.Field(4).(*array.TimestampBuilder).Append(arrow.Timestamp(tm.UnixMicro()))
		b.Field(5).(*array.Date32Builder).Append(arrow.Date32FromTime(tm))
	}
	l := b.Field(6).(*array.ListBuilder)
	l.Append(true)
	l.ValueBuilder().(*array.Int32Builder).AppendValues([]int32{1, 2}, nil)
	l.Append(true)
	l.AppendNull()
	st := b.Field(7).(*array.StructBuilder)
	for _, s := range []string{"x", "y", "z"} {
		st.Append(true)
		st.FieldBuilder(0).(*array.StringBuilder).Append(s)
	}
	rec := b.NewRecordBatch()
	return schema, func(yield func(arrow.RecordBatch, error) bool) { yield(rec, nil) }
}

func TestFormats(t *testing.T) {
	schema, rows := sampleRows(t)
	for _, tt := range []struct{ format, want string }{
		{formatCSV, "s,n,d,f,t,day,l,st\n" +
			"\"a,\"\"b\"\"\n\",9223372036854775807,59123.10000000,0.1,2024-08-20T00:00:00Z,2024-08-20,\"[1,2]\",\"{\"\"a\"\":\"\"x\"\"}\"\n" +
			"\"\",,-0.00000001,NaN,1969-12-31T23:59:59.999999Z,1969-12-31,[],\"{\"\"a\"\":\"\"y\"\"}\"\n" +
			"<ñ>,-7,0.00000000,1e+300,2024-08-20T01:02:03.5Z,2024-08-20,,\"{\"\"a\"\":\"\"z\"\"}\"\n"},
		{formatJSONL, `{"s":"a,\"b\"\n","n":9223372036854775807,"d":59123.10000000,"f":0.1,"t":"2024-08-20T00:00:00Z","day":"2024-08-20","l":[1,2],"st":{"a":"x"}}
{"s":"","n":null,"d":-0.00000001,"f":"NaN","t":"1969-12-31T23:59:59.999999Z","day":"1969-12-31","l":[],"st":{"a":"y"}}
{"s":"<ñ>","n":-7,"d":0.00000000,"f":1e+300,"t":"2024-08-20T01:02:03.5Z","day":"2024-08-20","l":null,"st":{"a":"z"}}
`},
	} {
		var out bytes.Buffer
		if n, err := writeRows(&out, tt.format, schema, rows); err != nil || n != 3 {
			t.Fatalf("%s: %d rows, %v", tt.format, n, err)
		}
		if out.String() != tt.want {
			t.Errorf("%s:\n%s\nwant\n%s", tt.format, out.String(), tt.want)
		}
	}
}

func TestFormatJSONIsOneArray(t *testing.T) {
	schema, rows := sampleRows(t)
	var out bytes.Buffer
	if _, err := writeRows(&out, formatJSON, schema, rows); err != nil {
		t.Fatal(err)
	}
	var v []map[string]any
	if err := json.Unmarshal(out.Bytes(), &v); err != nil || len(v) != 3 {
		t.Fatalf("%d rows, %v:\n%s", len(v), err, out.String())
	}
}

func TestFormatTableEscapesControlCharacters(t *testing.T) {
	schema, rows := sampleRows(t)
	var out bytes.Buffer
	if _, err := writeRows(&out, formatTable, schema, rows); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimRight(out.String(), "\n"), "\n")
	if len(lines) != 6 || !strings.Contains(lines[2], `\n`) || lines[5] != "(3 rows)" {
		t.Errorf("table:\n%s", out.String())
	}
}

func TestFormatParquetIsReadable(t *testing.T) {
	schema, rows := sampleRows(t)
	var out bytes.Buffer
	if _, err := writeRows(&out, formatParquet, schema, rows); err != nil {
		t.Fatal(err)
	}
	r, err := file.NewParquetReader(bytes.NewReader(out.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if r.NumRows() != 3 {
		t.Errorf("%d rows", r.NumRows())
	}
}

func TestUniqueNames(t *testing.T) {
	schema := arrow.NewSchema([]arrow.Field{{Name: "n", Type: arrow.PrimitiveTypes.Int64}, {Name: "n", Type: arrow.PrimitiveTypes.Int64}, {Name: "n_1", Type: arrow.PrimitiveTypes.Int64}}, nil)
	got := strings.Join(uniqueNames(schema), " ")
	if got != "n n_1 n_1_1" {
		t.Errorf("names: %s", got)
	}
}

// Data cannot steer the terminal that shows it.
func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"a\tb": `a\tb`, "\x1b[2J": `\x1b[2J`, "\u009b2J": `\u009b2J`, "x\u202egnp.exe": `x\u202egnp.exe`, "a\xff": `a\xff`,
		"é 語 🎉": "é 語 🎉", `C:\x "y"`: `C:\x "y"`, "عربي": "عربي",
	} {
		if got := printable(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}
