package duckdb

import (
	"context"
	"iter"

	"github.com/cauce-data/cauce/pipeline"
)

// fieldUnknown is the field under which a file of JSON tells the members that nothing refers to: all of them as the plan
// means it, or the name of the first for unknown_fields: quarantine.
const fieldUnknown = pipeline.RawUnknown

// ruleUnknown is the rule of unknown_fields: quarantine.
const ruleUnknown = "unknown_fields"

// jsonFile makes a file whose records are texts of JSON objects one whose records have the plan's raw fields, read by
// the scanner that reads streams too. A record that is no object becomes a bad one.
func (x *epoch) jsonFile(f *pipeline.RawFile) *pipeline.RawFile {
	raw := x.p.plan.RawFields
	unknown := x.p.plan.Source.UnknownFields != pipeline.UnknownIgnore
	out := *f
	out.Plain, out.HasHeader = false, false
	out.Fields = append(raw[:len(raw):len(raw)], fieldUnknown)
	parse := func(rows iter.Seq2[pipeline.RawRow, error]) iter.Seq2[pipeline.RawRow, error] {
		return func(yield func(pipeline.RawRow, error) bool) {
			scan := newJSONScanner(raw)
			scan.keep = x.p.plan.Source.UnknownFields == pipeline.UnknownKeep
			values, set := make([]string, len(out.Fields)), make([]bool, len(out.Fields))
			for row, err := range rows {
				if err == nil && row.Err == "" && len(row.Values) == 1 {
					if bad := scan.record([]byte(row.Values[0])); bad != nil {
						row.Err, row.Values = bad.Error(), nil
					} else {
						for i, v := range scan.values {
							values[i], set[i] = v.text, v.set
						}
						last := len(raw)
						values[last], set[last] = "", false
						if unknown && scan.unknown != "" {
							values[last], set[last] = scan.unknown, true
						}
						row.Values, row.Quoted = values, set // a text that is set is no null, even an empty one
					}
				}
				if !yield(row, err) {
					return
				}
			}
		}
	}
	out.Rows = func(ctx context.Context) iter.Seq2[pipeline.RawRow, error] { return parse(f.Rows(ctx)) }
	out.RowsAt = func(ctx context.Context, at []int64) iter.Seq2[pipeline.RawRow, error] {
		return parse(rowsAt(ctx, f, at))
	}
	return &out
}
