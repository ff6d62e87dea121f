package spark

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/pipeline"
	"github.com/cauce-data/cauce/pipeline/prove"
)

// ProveCase is a plan with the records that go through it.
type ProveCase struct {
	Plan    *pipeline.Plan
	Records []prove.Record
}

// ProveFates runs cases on Spark, all in one application, and tells what became of each record of each.
// An error of one case stands in errs at its place.
func (s Submit) ProveFates(ctx context.Context, dir string, cases []ProveCase) (fates []map[int64]prove.Fate, errs []error, err error) {
	type caseDoc struct {
		Program *Program    `json:"program"`
		Texts   [][2]string `json:"texts"` // SQL of each shown column, and "float" for those that are shown as bits
		Input   string      `json:"input"`
		Output  string      `json:"output"`
	}
	app := struct {
		Mode  string    `json:"mode"`
		Cases []caseDoc `json:"cases"`
	}{Mode: "prove"}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, nil, err
	}
	fates, errs = make([]map[int64]prove.Fate, len(cases)), make([]error, len(cases))
	at := make([]int, 0, len(cases))
	for i, c := range cases {
		program, err := Compile(c.Plan)
		if err != nil {
			errs[i] = err
			continue
		}
		d := caseDoc{Program: program, Input: filepath.Join(dir, fmt.Sprintf("in-%d.jsonl", i)), Output: filepath.Join(dir, fmt.Sprintf("out-%d.jsonl", i))}
		for _, col := range prove.Columns(c.Plan) {
			d.Texts = append(d.Texts, provedText(c.Plan, col))
		}
		if err := writeRecords(d.Input, c, len(program.RawFields)); err != nil {
			return nil, nil, err
		}
		app.Cases = append(app.Cases, d)
		at = append(at, i)
	}
	if err := s.Run(ctx, dir, app); err != nil {
		return nil, nil, err
	}
	for k, i := range at {
		fates[i], errs[i] = readFates(app.Cases[k].Output)
	}
	return fates, errs, nil
}

// provedText is the SQL of a column's value in the form of prove.Fate.
func provedText(plan *pipeline.Plan, col pipeline.Column) [2]string {
	x := quoteName(col.Name)
	for i, c := range plan.Table.Columns {
		if c.Name == col.Name {
			x = valueOf(i)
		}
	}
	switch kindOf(col.Type) {
	case kindFloat:
		return [2]string{"CAST(" + x + " AS DOUBLE)", "float"}
	case kindTime:
		return [2]string{"CAST(unix_micros(" + x + ") AS STRING)", ""}
	case kindWall:
		return [2]string{"CAST(unix_micros(CAST(" + x + " AS TIMESTAMP)) AS STRING)", ""}
	case kindDate:
		return [2]string{dateText(x), ""}
	case kindBinary:
		return [2]string{"lower(hex(" + x + "))", ""}
	}
	if col.Type == delta.String {
		return [2]string{x, ""}
	}
	return [2]string{"CAST(" + x + " AS STRING)", ""}
}

// writeRecords writes a line for each record; raw is the number of the raw fields, of which the last may be one that no
// record has.
func writeRecords(file string, c ProveCase, raw int) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	enc := json.NewEncoder(w)
	name := prove.FileName(c.Plan)
	seen := map[string]int64{}
	for _, r := range c.Records {
		values := make([]*string, raw)
		copy(values, r.Values)
		doc := map[string]any{"p": r.Position, "o": prove.Origin, "g": 0, "r": values}
		if !c.Plan.Source.Streaming() {
			text := prove.Raw(r)
			seen[text]++
			doc["g"], doc["fn"], doc["fg"], doc["occ"] = prove.Generation, path.Base(name), c.Plan.Source.FileGroups(name), seen[text]
		}
		if err := enc.Encode(doc); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Close()
}

func readFates(file string) (map[int64]prove.Fate, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := map[int64]prove.Fate{}
	dec := json.NewDecoder(bufio.NewReader(f))
	for dec.More() {
		var line struct {
			P      int64     `json:"p"`
			Row    []*string `json:"row"`
			Rule   string    `json:"rule"`
			Reason string    `json:"reason"`
			Error  string    `json:"error"`
		}
		if err := dec.Decode(&line); err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Base(file), err)
		}
		if line.Error != "" {
			return nil, fmt.Errorf("the plan is refused by Spark: %s", line.Error)
		}
		if _, twice := out[line.P]; twice {
			return nil, fmt.Errorf("record %s has two fates", strconv.FormatInt(line.P, 10))
		}
		out[line.P] = prove.Fate{Row: line.Row, Rule: line.Rule, Reason: line.Reason}
	}
	return out, nil
}
