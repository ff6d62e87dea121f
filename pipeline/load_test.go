package pipeline_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/cauce-data/cauce/pipeline"
)

// parse loads a text as a lake file that stands at /lake/lake.yaml.
func load(text string) (*pipeline.Lake, error) {
	return pipeline.Parse("/lake/lake.yaml", []byte(text), pipeline.LoadOptions{Parser: sqlParser{}, Env: func(name string) (string, bool) {
		v, ok := map[string]string{"TOKEN": "s3cret-value", "EMPTY": "", "TYPE": "DECMAL(18,8)"}[name]
		return v, ok
	}})
}

// TestLakeFiles runs testdata/*.txt: a lake file each, and what Load says to it. "load" prints diagnostics, or the
// plans and warnings; "expr" puts one expression into the filter, a field, the transform or the expectation of a small
// lake file.
func TestLakeFiles(t *testing.T) {
	datadriven.Walk(t, "testdata/lake", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			text := d.Input
			switch d.Cmd {
			case "load":
			case "expr":
				text = exprLake(d)
			default:
				d.Fatalf(t, "unknown command %s", d.Cmd)
			}
			l, err := load(text)
			if err != nil {
				var diags pipeline.Diagnostics
				if !errors.As(err, &diags) {
					d.Fatalf(t, "not diagnostics: %v", err)
				}
				return strings.ReplaceAll(err.Error(), "/lake/lake.yaml", "lake.yaml") + "\n"
			}
			var b strings.Builder
			for _, w := range l.Warnings {
				fmt.Fprintf(&b, "warning: %s\n", strings.ReplaceAll(w.String(), "/lake/lake.yaml", "lake.yaml"))
			}
			if d.Cmd == "expr" {
				p, err := l.Plan("s")
				if err != nil {
					d.Fatalf(t, "%v", err)
				}
				for _, e := range []pipeline.Expr{p.Filter, p.Delete} {
					if e != nil {
						fmt.Fprintln(&b, pipeline.Format(e))
					}
				}
				for _, f := range p.Fields {
					if d.HasArg("field") && f.Column == "x" {
						fmt.Fprintln(&b, pipeline.Format(f.Expr))
					}
				}
				for _, s := range p.Steps {
					fmt.Fprintln(&b, pipeline.Format(s.Set[0].Expr))
				}
				for _, x := range p.Expect {
					fmt.Fprintln(&b, pipeline.Format(x.Check))
				}
				return b.String()
			}
			describe(&b, l)
			return strings.ReplaceAll(b.String(), "\x00", "<NUL>") // else the file is no text
		})
	})
}

// exprLake is a lake file with the expression of the input in the place that the argument names.
func exprLake(d *datadriven.TestData) string {
	quoted := strconv.Quote(strings.TrimSpace(d.Input))
	places := map[string]string{"filter": "", "field": "", "set": "", "expect": "", "kind": "kind: files, location: raw/*.csv", "type": "STRING", "csv": ""}
	for _, a := range d.CmdArgs {
		v := quoted
		if len(a.Vals) > 0 {
			v = strings.Join(a.Vals, ",")
		}
		switch a.Key {
		case "filter":
			places["filter"] = "\n    filter: " + v
		case "delete":
			places["filter"] = "\n    delete: " + v
		case "field":
			places["field"] = "\n    fields: {x: " + v + "}"
		case "set":
			places["set"] = "\n    transform: [{set: {x: " + v + "}}]"
		case "expect":
			places["expect"] = "\n    expect: [{name: e, check: " + v + "}]"
		case "stream":
			places["kind"] = "kind: embedded, topic: t"
		case "type":
			places["type"] = `"` + v + `"`
		case "csv":
			places["csv"] = "\n    csv: {" + v + "}\n    from_filename: '^(?P<symbol>[A-Z]+)-'"
		}
	}
	return "version: 1\nstorage: ./data\ntables:\n  t:\n    columns: {id: STRING, x: " + places["type"] + ", n: LONG, price: \"DECIMAL(18,8)\", f: DOUBLE, at: TIMESTAMP, day: DATE, ok: BOOLEAN, ingested_at: TIMESTAMP, tags: \"ARRAY<STRING>\"}\n    key: [id]\n    sequence: [at]" +
		places["set"] + places["expect"] + "\nsources:\n  s:\n    table: t\n    " + strings.ReplaceAll(places["kind"], ", ", "\n    ") + places["csv"] + places["filter"] + places["field"] + "\n"
}

func describe(b *strings.Builder, l *pipeline.Lake) {
	fmt.Fprintf(b, "storage %s\n", l.Redact(l.Storage))
	for _, t := range l.Tables {
		fmt.Fprintf(b, "table %s at %s key=%v sequence=%v partition=%v merge key=%v same=%v\n", t.Name, t.Location, t.Key, t.Sequence, t.PartitionBy, t.MergeKey(), t.SameColumns())
		fmt.Fprintf(b, "  %s\n", t.DeltaSchema())
	}
	for _, s := range l.Sources {
		p, err := l.Plan(s.Name)
		if err != nil {
			fmt.Fprintf(b, "source %s: %v\n", s.Name, err)
			continue
		}
		fmt.Fprintf(b, "source %s -> %s kind=%s rank=%d reissue=%s\n  raw=%v required=%v implied=%v\n", s.Name, s.Table, s.Kind, s.Rank, s.OnReissue, p.RawFields, p.Required, p.Implied)
		if p.Filter != nil {
			fmt.Fprintf(b, "  filter %s\n", pipeline.Format(p.Filter))
		}
		if p.Delete != nil {
			fmt.Fprintf(b, "  delete %s\n", pipeline.Format(p.Delete))
		}
		for _, f := range p.Fields {
			fmt.Fprintf(b, "  %s = %s\n", f.Column, pipeline.Format(f.Expr))
		}
		for _, st := range p.Steps {
			if st.Where != nil {
				fmt.Fprintf(b, "  where %s\n", pipeline.Format(st.Where))
			}
			for _, a := range st.Set {
				fmt.Fprintf(b, "  set %s = %s\n", a.Column, pipeline.Format(a.Expr))
			}
		}
		for _, x := range p.Expect {
			fmt.Fprintf(b, "  expect %s (%s) %s\n", x.Name, x.OnFail, pipeline.Format(x.Check))
		}
	}
	fmt.Fprintf(b, "stream %v/%d/%d buffer %s\n", l.Stream.Trigger, l.Stream.RowsMax, l.Stream.BytesMax, l.Buffer.Sync)
	for _, t := range l.Schedule.Tasks {
		fmt.Fprintf(b, "task %s: %s%v%v %q %v after %v x%d %v/%v catch_up=%s\n", t.Name, t.Run, t.Sources, t.Tables, t.Cron, t.Timezone, t.After, t.Retries, t.Backoff, t.Timeout, t.CatchUp)
	}
}

func TestLoadMissingFile(t *testing.T) {
	_, err := pipeline.Load(filepath.Join(t.TempDir(), "lake.yaml"), pipeline.LoadOptions{Parser: sqlParser{}})
	if !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("got %v, want a missing file", err)
	}
}

// FuzzLoad looks for lake files that make Load panic, hang, or find a place outside of the file.
func FuzzLoad(f *testing.F) {
	seeds, err := filepath.Glob("testdata/lake/*.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range seeds {
		b, err := os.ReadFile(s)
		if err != nil {
			f.Fatal(err)
		}
		for part := range strings.SplitSeq(string(b), "\nload\n") {
			text, _, _ := strings.Cut(part, "\n----\n")
			f.Add([]byte(text))
		}
	}
	for _, name := range pipeline.Templates() {
		text, err := pipeline.Template(name, "")
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := load(string(b))
		if err == nil {
			for _, s := range l.Sources {
				if _, err := l.Plan(s.Name); err != nil {
					t.Fatalf("a lake without diagnostics has no plan: %v", err)
				}
			}
			return
		}
		var diags pipeline.Diagnostics
		if !errors.As(err, &diags) || len(diags) == 0 {
			t.Fatalf("not diagnostics: %v", err)
		}
		lines := 1 + strings.Count(string(b), "\n") + strings.Count(string(b), "\r")
		for _, d := range diags {
			if d.Line < 0 || d.Line > lines || d.Line > 0 && d.Column < 1 {
				t.Fatalf("a place outside of the %d lines: %v", lines, d)
			}
			if strings.Contains(d.String(), "s3cret-value") && !strings.Contains(string(b), "s3cret-value") {
				t.Fatalf("a secret is shown: %v", d)
			}
		}
	})
}
