package csv

import (
	stdcsv "encoding/csv"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/cauce-data/cauce/pipeline"
)

var comma = dialect{delimiter: []byte(","), quote: []byte(`"`), multiline: true, encoding: "utf-8"}

func all(int64) bool { return true }

func readAll(t testing.TB, src io.Reader, d dialect) []pipeline.RawRow {
	t.Helper()
	r := newReader(src, d)
	var out []pipeline.RawRow
	for {
		var row pipeline.RawRow
		ok, err := r.next(&row, all)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return out
		}
		out = append(out, row)
	}
}

func TestRecords(t *testing.T) {
	three := comma
	three.fields = 3
	lines := three
	lines.multiline = false
	bare := three
	bare.quote = nil
	semi := three
	semi.delimiter, semi.quote = []byte(";"), []byte("'")
	wide := three
	wide.delimiter, wide.quote = []byte("¦"), []byte("«")
	for _, c := range []struct {
		name string
		d    dialect
		in   string
		want string // position@line+offset/bytes: values or error
	}{
		{"plain", three, "a,b,c\nd,e,f\n", "1@1+0/5: a|b|c\n2@2+6/5: d|e|f\n"},
		{"crlf", three, "a,b,c\r\nd,e,f\r\n", "1@1+0/5: a|b|c\n2@2+7/5: d|e|f\n"},
		{"blank lines", three, "\n\r\na,b,c\n\n\nd,e,f\n\n", "1@3+3/5: a|b|c\n2@6+11/5: d|e|f\n"},
		{"quoted", three, "\"a\",\"b,1\",\"c \"\"x\"\"\"\n", "1@1+0/19: 'a'|'b,1'|'c \"x\"'\n"},
		{"empty text and null", three, "\"\",,\n", "1@1+0/4: ''||\n"},
		{"several lines", three, "a,\"b\n1\r\n2\",c\nd,e,f\n", "1@1+0/12: a|'b\n1\r\n2'|c\n2@4+13/5: d|e|f\n"},
		{"several lines not allowed", lines, "a,\"b\n1\",c\nd,e,f\n",
			"1@1+0/4: the line ends inside a quoted field, and csv.multiline is off\n2@2+5/4: a quote stands inside a field that does not begin with one\n3@3+10/5: d|e|f\n"},
		{"ragged", three, "a,b\na,b,c,d\nd,e,f\n", "1@1+0/3: the record has 2 fields, expected 3\n2@2+4/7: the record has 4 fields, expected 3\n3@3+12/5: d|e|f\n"},
		{"bare quote", three, "a,b\"x,c\nd,e,f\n", "1@1+0/7: a quote stands inside a field that does not begin with one\n2@2+8/5: d|e|f\n"},
		{"inner quote", three, "a,\"b\"x,c\nd,e,f\n", "1@1+0/8: a quote inside a quoted field is not doubled\n2@2+9/5: d|e|f\n"},
		{"stray quote costs one line", three, "a,\"b,c\nd,e,f\ng,h,\"i\"\n",
			"1@1+0/6: a quote inside a quoted field is not doubled\n2@2+7/5: d|e|f\n3@3+13/7: g|h|'i'\n"},
		{"never closed", three, "a,\"b,c\nd,e,f\n", "1@1+0/6: a quoted field is not closed\n2@2+7/5: d|e|f\n"},
		{"unterminated", three, "a,b,c\nd,e,f", "1@1+0/5: a|b|c\n2@2+6/5: d|e|f (the last record is not terminated)\n"},
		{"unterminated quoted", three, "a,b,\"c\"", "1@1+0/7: a|b|'c' (the last record is not terminated)\n"},
		{"unterminated in quotes", three, "a,b,\"c", "1@1+0/6: a quoted field is not closed (the last record is not terminated)\n"},
		{"unterminated ragged", three, "a,b", "1@1+0/3: the record has 2 fields, expected 3 (the last record is not terminated)\n"},
		{"unterminated cr", three, "a,b,c\r", "1@1+0/5: a|b|c (the last record is not terminated)\n"},
		{"invalid utf-8", three, "a,b\xff,c\nd,e,f\n", "1@1+0/6: the record is not valid utf-8 at its byte 4\n2@2+7/5: d|e|f\n"},
		{"nul", three, "a,b\x00,c\nd,e,f\n", "1@1+0/6: the record holds a NUL byte\n2@2+7/5: d|e|f\n"},
		{"no quotes", bare, "a,\"b,c\n", "1@1+0/6: a|\"b|c\n"},
		{"other signs", semi, "a;'b;''1';c\"\n", "1@1+0/12: a|'b;'1'|c\"\n"},
		{"wide signs", wide, "a¦«b¦««1«¦c\n", "1@1+0/18: a|'b¦«1'|c\n"},
		{"empty", three, "", ""},
		{"only blank", three, "\n\r\n\n", ""},
	} {
		for _, size := range []int{0, 1} {
			t.Run(fmt.Sprintf("%s/%d", c.name, size), func(t *testing.T) {
				var src io.Reader = strings.NewReader(c.in)
				if size == 1 {
					src = iotest.OneByteReader(src)
				}
				var got strings.Builder
				for _, r := range readAll(t, src, c.d) {
					fmt.Fprintf(&got, "%d@%d+%d/%d: ", r.Position, r.Line, r.Offset, r.RawBytes)
					if r.Err != "" {
						got.WriteString(r.Err)
						if r.Values != nil {
							t.Error("a bad row has values")
						}
					}
					for i, v := range r.Values {
						if i > 0 {
							got.WriteByte('|')
						}
						if r.Quoted != nil && r.Quoted[i] {
							v = "'" + v + "'"
						}
						got.WriteString(v)
					}
					if r.Warning != "" {
						got.WriteString(" (" + r.Warning + ")")
					}
					got.WriteByte('\n')
					end := r.Offset + r.RawBytes
					if raw := c.in[r.Offset:end]; utf8.ValidString(raw) && !strings.Contains(raw, "\x00") && r.Raw != raw {
						t.Errorf("raw text %q, in the file %q", r.Raw, raw)
					}
				}
				if got.String() != c.want {
					t.Errorf("got\n%swant\n%s", got.String(), c.want)
				}
			})
		}
	}
}

func TestRawTextOfInvalidBytes(t *testing.T) {
	d := comma
	d.fields = 1
	rows := readAll(t, strings.NewReader("a\xff\x00é\n"), d)
	if len(rows) != 1 || rows[0].Raw != `a\xff\x00é` {
		t.Errorf("got %+v", rows)
	}
}

// field yields texts that press on the rules.
var field = rapid.StringOfN(rapid.SampledFrom([]rune("ab1 ,\"\n\r;é漢\t")), 0, 6, -1)

// Well-formed input must give the values and positions of encoding/csv, which is the reference.
func TestReaderEqualsEncodingCSV(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 4).Draw(t, "fields")
		records := rapid.SliceOfN(rapid.SliceOfN(field, n, n), 0, 8).Draw(t, "records")
		var b strings.Builder
		w := stdcsv.NewWriter(&b)
		w.UseCRLF = rapid.Bool().Draw(t, "crlf")
		if err := w.WriteAll(records); err != nil {
			t.Fatal(err)
		}
		in := b.String()
		if rapid.Bool().Draw(t, "cut") {
			in = strings.TrimSuffix(strings.TrimSuffix(in, "\n"), "\r")
		}
		in = strings.Repeat("\n", rapid.IntRange(0, 2).Draw(t, "blank")) + in

		ref := stdcsv.NewReader(strings.NewReader(in))
		d := comma
		d.fields = n
		r := newReader(chunks{strings.NewReader(in), rapid.IntRange(1, 9).Draw(t, "chunk")}, d)
		for i := int64(1); ; i++ {
			want, err := ref.Read()
			var row pipeline.RawRow
			ok, e := r.next(&row, all)
			if e != nil {
				t.Fatal(e)
			}
			if errors.Is(err, io.EOF) {
				if ok {
					t.Fatalf("one record too many: %+v", row)
				}
				return
			}
			if err != nil {
				t.Fatalf("reference: %v", err)
			}
			if !ok || row.Err != "" {
				t.Fatalf("record %d: %v, ok %v; want %q", i, row.Err, ok, want)
			}
			line, _ := ref.FieldPos(0)
			if row.Position != i || row.Line != int64(line) {
				t.Fatalf("record %d: position %d, line %d, want line %d", i, row.Position, row.Line, line)
			}
			if end := ref.InputOffset(); !strings.HasPrefix(in[row.Offset+row.RawBytes:end], in[row.Offset+row.RawBytes:end]) ||
				strings.Trim(in[row.Offset+row.RawBytes:end], "\r\n") != "" {
				t.Fatalf("record %d ends at %d, want %d", i, row.Offset+row.RawBytes, end)
			}
			got := slices.Clone(row.Values)
			for j := range got { // encoding/csv drops the \r of a \r\n inside quotes
				got[j] = strings.ReplaceAll(got[j], "\r\n", "\n")
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("record %d: %q, want %q", i, got, want)
			}
		}
	})
}

// chunks reads at most n bytes at a time.
type chunks struct {
	r io.Reader
	n int
}

func (c chunks) Read(p []byte) (int, error) { return c.r.Read(p[:min(len(p), c.n)]) }

// zeros yields n bytes of one kind.
type zeros struct {
	n int64
	c byte
}

func (z *zeros) Read(p []byte) (int, error) {
	if z.n == 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), z.n)]
	for i := range p {
		p[i] = z.c
	}
	z.n -= int64(len(p))
	return len(p), nil
}

func TestLongLineInBoundedMemory(t *testing.T) {
	const size = 64 << 20
	for _, prefix := range []string{"", `"`} {
		d := comma
		d.fields = 2
		src := io.MultiReader(strings.NewReader("a,b\n"+prefix), &zeros{size, 'x'}, strings.NewReader("\r\nc,d\n"))
		r := newReader(src, d)
		var rows []pipeline.RawRow
		for {
			var row pipeline.RawRow
			ok, err := r.next(&row, all)
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			rows = append(rows, row)
		}
		if len(rows) != 3 {
			t.Fatalf("got %d rows", len(rows))
		}
		long := rows[1]
		if long.RawBytes != size+int64(len(prefix)) || len(long.Raw) != pipeline.RawBytesMax || long.Err == "" || long.Offset != 4 {
			t.Errorf("long line: %d bytes, %d kept, offset %d, error %q", long.RawBytes, len(long.Raw), long.Offset, long.Err)
		}
		if last := rows[2]; last.Position != 3 || last.Line != 3 || last.Err != "" || last.Offset != int64(4+size+len(prefix)+2) {
			t.Errorf("after the long line: %+v", last)
		}
		if cap(r.buf) > RecordBytesMax+1<<20 {
			t.Errorf("buffer grew to %d", cap(r.buf))
		}
	}
}

func TestQuotedFieldLongerThanARecord(t *testing.T) {
	d := comma
	d.fields = 2
	body := strings.Repeat("x,y\n", RecordBytesMax/4+10)
	rows := readAll(t, strings.NewReader("a,\"b\n"+body+"c,d\"\n"), d)
	if len(rows[0].Raw) > 4 || rows[0].Err == "" || rows[0].Raw != `a,"b` || rows[0].RawBytes != 4 {
		t.Fatalf("first: %d bytes, %q", rows[0].RawBytes, rows[0].Err)
	}
	if want := RecordBytesMax/4 + 12; len(rows) != want {
		t.Errorf("got %d rows, want %d", len(rows), want)
	}
	for i, r := range rows[1 : len(rows)-1] {
		if r.Err != "" || r.Line != int64(i+2) {
			t.Fatalf("row %d: %+v", i, r)
		}
	}
}

func TestSourceErrorIsReported(t *testing.T) {
	broken := errors.New("disk on fire")
	r := newReader(io.MultiReader(strings.NewReader("a,b\nc,\"d"), iotest.ErrReader(broken)), comma)
	var row pipeline.RawRow
	var err error
	for ok := true; ok; {
		ok, err = r.next(&row, all)
	}
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

// FuzzReader holds what must be true of any input: it ends, positions and offsets ascend, no byte is in two records
// or in none, memory stays bounded, text is valid, and passing over records does not change the others.
func FuzzReader(f *testing.F) {
	for _, s := range []string{"a,b\n", "a,\"b\n1\",c\r\nx", "\"", "\"\"\"", "a\"b\n\"c\n\"d\"e\n", "\r\r\n\n\r", "\xff,\x00\n", "\"a\"\r", "«a«,«b"} {
		f.Add(s, uint8(3), uint8(0))
	}
	f.Fuzz(func(t *testing.T, in string, chunk, kind uint8) {
		d := comma
		d.fields = 2
		d.multiline = kind&1 == 0
		if kind&2 != 0 {
			d.delimiter, d.quote = []byte("¦"), []byte("«")
		}
		if kind&4 != 0 {
			d.quote = nil
		}
		rows := readAll(t, chunks{strings.NewReader(in), int(chunk%16) + 1}, d)
		var end int64
		for i, r := range rows {
			if r.Position != int64(i+1) || r.Offset < end || r.RawBytes <= 0 {
				t.Fatalf("row %d: %+v, the last one ended at %d", i, r, end)
			}
			if gap := in[end:r.Offset]; strings.Trim(gap, "\r\n") != "" {
				t.Fatalf("%q stands between records", gap)
			}
			if r.Line != int64(1+strings.Count(in[:r.Offset], "\n")) {
				t.Fatalf("row %d: line %d", i, r.Line)
			}
			if !utf8.ValidString(r.Raw) || (r.Err == "") != (len(r.Values) == 2) {
				t.Fatalf("row %d: %+v", i, r)
			}
			end = r.Offset + r.RawBytes
		}
		if strings.Trim(in[end:], "\r\n") != "" {
			t.Fatalf("%q was not read", in[end:])
		}
		r := newReader(strings.NewReader(in), d)
		for i := 0; ; i++ {
			var row pipeline.RawRow
			ok, err := r.next(&row, func(p int64) bool { return p%3 == 0 })
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				if i != len(rows) {
					t.Fatalf("%d records when some are passed over, else %d", i, len(rows))
				}
				break
			}
			if (i+1)%3 == 0 && !reflect.DeepEqual(row, rows[i]) {
				t.Fatalf("row %d: %+v when others are passed over, else %+v", i, row, rows[i])
			}
		}
	})
}

func BenchmarkReader(b *testing.B) {
	line := "BTCUSDT,123456789,63012.34000000,0.01230000,775.05,1724112000123,true,true\n"
	in := strings.Repeat(line, 200000)
	d := comma
	d.fields = 8
	for _, some := range []bool{false, true} {
		b.Run(fmt.Sprintf("skip=%v", some), func(b *testing.B) {
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			for range b.N {
				r := newReader(strings.NewReader(in), d)
				var row pipeline.RawRow
				for {
					ok, err := r.next(&row, func(p int64) bool { return !some })
					if err != nil {
						b.Fatal(err)
					}
					if !ok {
						break
					}
				}
			}
		})
	}
}
