package jsonl

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

func split(t *testing.T, text string, lines bool) (out []string) {
	t.Helper()
	s := &splitter{r: bufio.NewReader(strings.NewReader(text)), line: 1}
	next := s.value
	if lines {
		next = s.oneLine
	}
	for range 100 {
		row, err := next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		one := fmt.Sprintf("%d@%d %s", row.Line, row.Offset, strings.Join(row.Values, "|"))
		if row.Err != "" {
			one += "!" + row.Err
		}
		if row.Warning != "" {
			one += "?" + row.Warning
		}
		out = append(out, one)
	}
	t.Fatal("the splitter does not end")
	return nil
}

// TestSplit: each way of writing records gives the same ones; damage stays where it is.
func TestSplit(t *testing.T) {
	long := `{"a":"` + strings.Repeat("x", RecordBytesMax) + `"}`
	for _, x := range []struct {
		name  string
		lines bool
		text  string
		want  []string
	}{
		{"lines", true, "{\"a\":1}\n\n  \r\n{\"a\":2}\r\n{\"a\":3}", []string{`1@0 {"a":1}`, `4@13 {"a":2}`, `5@22 {"a":3}?last record is not terminated`}},
		{"bad line", true, "{\n{}\n", []string{"1@0 {", "2@2 {}"}},
		{"no line", true, "", nil},
		{"blank lines", true, "\n\n", nil},
		{"long line", true, long + "\n{}\n", []string{fmt.Sprintf("1@0 !the record has %d bytes, more than the %d that a record may have", len(long), RecordBytesMax), fmt.Sprintf("2@%d {}", len(long)+1)}},
		{"array", false, "[{\"a\":[1,{\"b\":\"]}\\\"\"}]},\n {}]\n", []string{`1@1 {"a":[1,{"b":"]}\""}]}`, `2@26 {}`}},
		{"empty array", false, " [ ] ", nil},
		{"nothing", false, "", nil},
		{"sequence", false, "{\"a\":1}{\"a\":2}\n{\n\"a\":3\n}", []string{`1@0 {"a":1}`, `1@7 {"a":2}`, "2@15 {\n\"a\":3\n}"}},
		{"other values", false, `[1, "x,]", null, [2], {}]`, []string{"1@1 1", `1@4 "x,]"`, "1@11 null", "1@17 [2]", "1@22 {}"}},
		{"cut in a record", false, `[{"a":1},{"a":`, []string{`1@1 {"a":1}`, "1@9 !the file ends within the record"}},
		{"cut behind a record", false, `[{"a":1},`, []string{`1@1 {"a":1}`, "1@9 !the array is not closed: the file seems to be cut"}},
		{"rest", false, `[{}] {}`, []string{"1@1 {}", "1@5 !something follows the array"}},
		{"stray bracket", false, "{}}{}", []string{"1@0 {}", "1@2 }", "1@3 {}"}},
		{"long value", false, "[" + long + ",{}]", []string{fmt.Sprintf("1@1 !the record has %d bytes, more than the %d that a record may have", len(long), RecordBytesMax), fmt.Sprintf("1@%d {}", len(long)+2)}},
	} {
		if got := split(t, x.text, x.lines); !slices.Equal(got, x.want) {
			t.Errorf("%s: %q, want %q", x.name, got, x.want)
		}
	}
}

// FuzzSplit: whatever the bytes, the splitter ends, and its records lie in the text in order.
func FuzzSplit(f *testing.F) {
	f.Add("[{\"a\":1},{}]", false)
	f.Add("{}\n{", true)
	f.Add("]\"\\", false)
	f.Fuzz(func(t *testing.T, text string, lines bool) {
		s := &splitter{r: bufio.NewReader(strings.NewReader(text)), line: 1}
		next := s.value
		if lines {
			next = s.oneLine
		}
		last := int64(-1)
		for {
			row, err := next()
			if err != nil {
				return
			}
			if row.Offset <= last || row.Offset > int64(len(text)) {
				t.Fatalf("a record at %d after one at %d of %d bytes", row.Offset, last, len(text))
			}
			last = row.Offset
			if len(row.Values) == 1 && text[row.Offset:row.Offset+row.RawBytes] != row.Values[0] {
				t.Fatalf("the record at %d is %q", row.Offset, row.Values[0])
			}
		}
	})
}
