package pipeline_test

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"golang.org/x/text/encoding/charmap"

	"github.com/cauce-data/cauce/pipeline"
)

// TestInfer runs testdata/infer/*.txt: the beginning of a CSV file each, and the lake file made from it, which must
// load.
func TestInfer(t *testing.T) {
	datadriven.Walk(t, "testdata/infer", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd != "infer" {
				d.Fatalf(t, "unknown command %s", d.Cmd)
			}
			file := "sample.csv"
			d.MaybeScanArgs(t, "file", &file)
			var o pipeline.InferOptions
			for _, a := range d.CmdArgs {
				switch a.Key {
				case "key":
					o.Key = a.Vals
				case "time":
					o.Time = a.Vals[0]
				}
			}
			text := strings.ReplaceAll(d.Input, "<TAB>", "\t") + "\n"
			if d.HasArg("latin1") {
				enc, err := charmap.Windows1252.NewEncoder().String(text)
				if err != nil {
					d.Fatalf(t, "%v", err)
				}
				text = enc
			}
			name := filepath.Join(t.TempDir(), file)
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				d.Fatalf(t, "%v", err)
			}
			inf, err := pipeline.Infer(name, o)
			if err != nil {
				return strings.ReplaceAll(fmt.Sprintf("error: %v\n", err), filepath.Dir(name)+"/", "")
			}
			var b strings.Builder
			for _, w := range inf.Warnings {
				fmt.Fprintf(&b, "warning: %s\n", w)
			}
			b.WriteString(strings.ReplaceAll(inf.Text, "\n\n", "\n"))
			l, err := load(inf.Text)
			if err != nil {
				d.Fatalf(t, "the inferred lake file does not load:\n%v\n%s", err, inf.Text)
			}
			for _, w := range l.Warnings {
				fmt.Fprintf(&b, "lake warning: %s\n", w)
			}
			if s := l.Source("files"); !s.Matches("raw/batch/" + file) {
				d.Fatalf(t, "location %v does not match %s", s.Location, file)
			}
			return b.String()
		})
	})
}

func TestInferPackedFiles(t *testing.T) {
	const text = "id,price\n1,2.50\n2,3.75\n"
	dir := t.TempDir()
	var gz, zp bytes.Buffer
	g := gzip.NewWriter(&gz)
	_, _ = g.Write([]byte(text))
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(&zp)
	w, err := z.Create("a.csv")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write([]byte(text))
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"a.csv": []byte(text), "a.csv.gz": gz.Bytes(), "a.zip": zp.Bytes()} {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		inf, err := pipeline.Infer(p, pipeline.InferOptions{Table: "t"})
		if err != nil {
			t.Fatal(err)
		}
		if inf.Rows != 2 || !strings.Contains(inf.Text, "id: LONG") {
			t.Errorf("%s: %d rows\n%s", name, inf.Rows, inf.Text)
		}
	}
	if inf, err := pipeline.Infer(dir, pipeline.InferOptions{}); err != nil || inf.Rows != 2 {
		t.Errorf("a folder: %v", err)
	}
	if _, err := pipeline.Infer(t.TempDir(), pipeline.InferOptions{}); err == nil || !strings.Contains(err.Error(), "no CSV file") {
		t.Errorf("an empty folder: %v", err)
	}
}

// A sample that ends in the middle of a record, or of a character, is cut back to its last whole record.
func TestInferCutSample(t *testing.T) {
	var b strings.Builder
	b.WriteString("id;ciudad\n")
	for i := range 1000 {
		fmt.Fprintf(&b, "%d;Málaga ñandú\n", i)
	}
	p := filepath.Join(t.TempDir(), "x.csv")
	if err := os.WriteFile(p, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for max := int64(100); max < 140; max++ {
		inf, err := pipeline.Infer(p, pipeline.InferOptions{BytesMax: max})
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(inf.Text, "encoding") || len(inf.Warnings) > 0 || !strings.Contains(inf.Text, "key: [id]") {
			t.Fatalf("%d bytes: %v\n%s", max, inf.Warnings, inf.Text)
		}
	}
}

func FuzzInfer(f *testing.F) {
	for _, s := range []string{"a,b\n1,2\n", "1605499846,15993.5,0.026472,ANY\n", "a;b\n1,5;x\n", "\"a\"\"b\",\"\n", "id\n1\n1\n", "\xff\xfea\x00", "order,when,a.b,Ñ\n1,20.08.2024,x,y\n", "a\tb\n-\t1\n"} {
		f.Add([]byte(s))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		p := filepath.Join(dir, fmt.Sprintf("f%d.csv", os.Getpid()))
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		inf, err := pipeline.Infer(p, pipeline.InferOptions{Table: "t"})
		if err != nil {
			return
		}
		if _, err := load(inf.Text); err != nil {
			t.Fatalf("does not load: %v\n%s", err, inf.Text)
		}
	})
}
