package prove

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/cauce-data/cauce/pipeline"
)

// Origin and Generation are those of every record.
const (
	Origin     = "f:0000000000000000"
	Generation = 7
)

// FileName is the file from which the records of a source of files come.
func FileName(plan *pipeline.Plan) string {
	if len(plan.Source.Location) == 0 {
		return "raw/batch/prove.csv"
	}
	// A name that the source's own pattern matches, so that file_group finds its groups where names have no others.
	name := strings.NewReplacer("**", "x", "*", "", "?", "x").Replace(plan.Source.Location[0])
	return name
}

// Run feeds the records to an epoch of an engine that runs in this process and tells what became of each.
func Run(ctx context.Context, plan *pipeline.Plan, epoch pipeline.Epoch, records []Record) (map[int64]Fate, error) {
	if err := feed(ctx, plan, epoch, records); err != nil {
		return nil, err
	}
	res, err := epoch.Finish(ctx)
	if err != nil {
		return nil, err
	}
	out := map[int64]Fate{}
	for b, err := range res.Rows.Read(ctx, nil, nil) {
		if err != nil {
			return nil, err
		}
		if err := rows(plan, b, out); err != nil {
			return nil, err
		}
	}
	for b, err := range res.Bad {
		if err != nil {
			return nil, err
		}
		out[b.Position] = Fate{Rule: b.Rule, Reason: b.Reason}
	}
	return out, nil
}

func feed(ctx context.Context, plan *pipeline.Plan, epoch pipeline.Epoch, records []Record) error {
	if plan.Source.Streaming() || plan.Source.Objects() {
		recs := make([]pipeline.Record, len(records))
		for i, r := range records {
			recs[i] = pipeline.Record{Topic: "t", Offset: r.Position, Origin: Origin, Value: object(plan.RawFields, r.Values)}
		}
		return epoch.AddRecords(ctx, recs)
	}
	return epoch.AddFile(ctx, &pipeline.RawFile{
		Name: FileName(plan), Origin: Origin, Generation: Generation, Fields: plan.RawFields, HasHeader: true,
		Rows: func(context.Context) iter.Seq2[pipeline.RawRow, error] {
			return func(yield func(pipeline.RawRow, error) bool) {
				for _, r := range records {
					row := pipeline.RawRow{Position: r.Position, Line: r.Position + 1, Raw: Raw(r), Values: make([]string, len(r.Values)), Quoted: make([]bool, len(r.Values))}
					row.RawBytes = int64(len(row.Raw))
					for i, v := range r.Values {
						if v != nil {
							row.Values[i], row.Quoted[i] = *v, true
						}
					}
					if !yield(row, nil) {
						return
					}
				}
			}
		},
		Unchanged: func(context.Context) error { return nil },
	})
}

// Raw is a text that stands for a record; records are identical if their texts are.
func Raw(r Record) string {
	parts := make([]string, len(r.Values))
	for i, v := range r.Values {
		if v != nil {
			parts[i] = strconv.Quote(*v)
		}
	}
	return strings.Join(parts, ",")
}

// object writes a record as a JSON object; a.b is a member of the object a.
func object(fields []string, values []*string) []byte {
	root := map[string]any{}
	for i, f := range fields {
		at := root
		path := strings.Split(f, ".")
		for _, p := range path[:len(path)-1] {
			next, ok := at[p].(map[string]any)
			if !ok {
				next = map[string]any{}
				at[p] = next
			}
			at = next
		}
		if values[i] != nil {
			at[path[len(path)-1]] = *values[i]
		}
	}
	text, err := json.Marshal(root)
	if err != nil {
		panic("BUG: an object of texts cannot be written: " + err.Error())
	}
	return text
}

// rows adds the rows of a batch.
func rows(plan *pipeline.Plan, b arrow.RecordBatch, out map[int64]Fate) error {
	index := func(name string) (int, error) {
		for i, f := range b.Schema().Fields() {
			if strings.EqualFold(f.Name, name) {
				return i, nil
			}
		}
		return 0, fmt.Errorf("BUG: the engine's rows lack column %s", name)
	}
	at, err := index(pipeline.ColumnPosition)
	if err != nil {
		return err
	}
	positions, ok := b.Column(at).(*array.Int64)
	if !ok {
		return fmt.Errorf("BUG: %s is %s", pipeline.ColumnPosition, b.Column(at).DataType())
	}
	for r := range int(b.NumRows()) {
		f := Fate{Row: []*string{}}
		for _, c := range Columns(plan) {
			i, err := index(c.Name)
			if err != nil {
				return err
			}
			f.Row = append(f.Row, text(b.Column(i), r))
		}
		out[positions.Value(r)] = f
	}
	return nil
}

// text writes a value so that two values that differ in any way have two texts: timestamps as µs since 1970, floats as
// their bits.
func text(a arrow.Array, i int) *string {
	if a.IsNull(i) {
		return nil
	}
	var s string
	switch a := a.(type) {
	case *array.Timestamp:
		unit := a.DataType().(*arrow.TimestampType).Unit
		s = strconv.FormatInt(a.Value(i).ToTime(unit).UnixMicro(), 10)
	case *array.Date32:
		s = a.Value(i).ToTime().Format(time.DateOnly)
	case *array.Float64:
		s = bits(a.Value(i))
	case *array.Float32:
		s = bits(float64(a.Value(i)))
	case *array.Binary:
		s = fmt.Sprintf("%x", a.Value(i))
	case *array.Decimal128:
		s = a.Value(i).ToString(a.DataType().(arrow.DecimalType).GetScale())
	case *array.String:
		s = strings.Clone(a.Value(i)) // the batch is freed
	default:
		s = a.ValueStr(i)
	}
	return &s
}

func bits(v float64) string {
	if math.IsNaN(v) {
		return "nan"
	}
	return fmt.Sprintf("%016x", math.Float64bits(v))
}
