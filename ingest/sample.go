package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/pipeline"
)

// SampleOptions say what to sample. Source must be set, and Stream for a source that is one.
type SampleOptions struct {
	Source string
	N      int    // records; 0: 20
	File   string // key of the file; "": the first of the source that has records
	Stream Source
}

// SampleReport shows what becomes of records.
type SampleReport struct {
	Source string      `json:"source"`
	Table  string      `json:"table"`
	File   string      `json:"file,omitempty"`
	Rows   []SampleRow `json:"rows"`
}

// What becomes of a sampled record.
const (
	OutcomeRow         = "row"
	OutcomeFiltered    = "filtered"
	OutcomeQuarantined = "quarantined"
)

// SampleRow is one record on its way.
type SampleRow struct {
	Position int64             `json:"position"`
	Line     int64             `json:"line,omitempty"`
	Raw      string            `json:"raw"`
	Fields   map[string]string `json:"fields,omitempty"` // of a file's record
	Mapped   map[string]any    `json:"mapped,omitempty"` // after filter, fields and casts
	Final    map[string]any    `json:"final,omitempty"`  // after transform and expect: the row as it would stand in the table
	Outcome  string            `json:"outcome"`
	Rule     string            `json:"rule,omitempty"`
	Reason   string            `json:"reason,omitempty"`
}

// Sample takes the first records of a source through its plan, and writes nothing.
func (l *Lake) Sample(ctx context.Context, o SampleOptions) (*SampleReport, error) {
	src := l.lake.Source(o.Source)
	if src == nil {
		return nil, &UsageError{fmt.Sprintf("source %s: the lake file has none of that name; it has %s", o.Source, l.sourceNames())}
	}
	plan, err := l.lake.Plan(src.Name)
	if err != nil {
		return nil, err
	}
	if o.N <= 0 {
		o.N = 20
	}
	s := &sampler{l: l, report: &SampleReport{Source: src.Name, Table: src.Table, Rows: []SampleRow{}}, at: map[sampleID]int{}}
	if src.Streaming() {
		err = s.readStream(ctx, src, o)
	} else {
		err = s.readFile(ctx, src, o)
	}
	if s.closeFile != nil {
		defer func() { _ = s.closeFile() }()
	}
	if err != nil {
		return nil, fmt.Errorf("source %s: %w", src.Name, err)
	}
	if len(s.report.Rows) == 0 {
		return s.report, nil
	}
	// Every record shall be seen, also those that another one of the sample would beat.
	keyless := *plan.Table
	keyless.Key = nil
	final := *plan
	final.Table = &keyless
	final.Hash = plan.Hash + "-sample"
	lenient := keyless
	lenient.Columns = append([]pipeline.Column(nil), keyless.Columns...)
	for i := range lenient.Columns {
		lenient.Columns[i].NotNull = false // transform may yet fill it
	}
	mapped := final
	mapped.Table, mapped.Steps, mapped.Expect = &lenient, nil, nil
	mapped.Hash = plan.Hash + "-mapped"
	if err := s.pass(ctx, &mapped, func(r *SampleRow, v map[string]any) { r.Mapped = v }, nil); err != nil {
		return nil, err
	}
	err = s.pass(ctx, &final, func(r *SampleRow, v map[string]any) { r.Final, r.Outcome = v, OutcomeRow },
		func(r *SampleRow, b pipeline.BadRow) {
			r.Outcome, r.Rule, r.Reason = OutcomeQuarantined, b.Rule, b.Reason
		})
	return s.report, err
}

type sampleID struct {
	origin   string
	position int64
}

type sampler struct {
	l         *Lake
	report    *SampleReport
	at        map[sampleID]int // index into report.Rows
	file      *pipeline.RawFile
	records   []pipeline.Record
	closeFile func() error
}

func (s *sampler) add(origin string, r SampleRow) {
	r.Outcome = OutcomeFiltered // until it is seen elsewhere
	s.at[sampleID{origin, r.Position}] = len(s.report.Rows)
	s.report.Rows = append(s.report.Rows, r)
}

func (s *sampler) readFile(ctx context.Context, src *pipeline.Source, o SampleOptions) error {
	files, err := s.l.list(ctx, src)
	if err != nil {
		return err
	}
	for n, f := range files {
		if o.File != "" && f.Key != o.File {
			continue
		}
		raw, err := s.l.open(ctx, f, src)
		if err != nil {
			return err
		}
		s.closeFile = raw.Close
		s.report.File = f.Key
		var records []pipeline.RawRow
		for r, err := range raw.Rows(ctx) {
			if err != nil {
				return err
			}
			r.Values = append([]string(nil), r.Values...)
			records = append(records, r)
			row := SampleRow{Position: r.Position, Line: r.Line, Raw: r.Raw}
			for i, v := range r.Values {
				if i < len(raw.Fields) {
					if row.Fields == nil {
						row.Fields = map[string]string{}
					}
					row.Fields[raw.Fields[i]] = v
				}
			}
			s.add(raw.Origin, row)
			if len(records) == o.N {
				break
			}
		}
		if len(records) == 0 && o.File == "" && n < len(files)-1 { // an empty file shows nothing of the source
			if err := raw.Close(); err != nil {
				return err
			}
			s.closeFile = nil
			continue
		}
		sub := *raw
		sub.Path, sub.Plain, sub.Unchanged = "", false, nil
		fillFromSlice(&sub, records)
		s.file = &sub
		return nil
	}
	if o.File != "" {
		return fmt.Errorf("%s: not a file of the source", o.File)
	}
	return fmt.Errorf("no file matches %v", src.Location)
}

func (s *sampler) readStream(ctx context.Context, src *pipeline.Source, o SampleOptions) error {
	if o.Stream == nil {
		return fmt.Errorf("it is a stream, and none is open")
	}
	if err := o.Stream.Seek(ctx, nil); err != nil {
		return err
	}
	recs, err := o.Stream.Fetch(ctx, o.N, s.l.lake.Stream.BytesMax, 2*time.Second)
	if err != nil {
		return err
	}
	s.records = recs[:min(len(recs), o.N)]
	if err := s.l.decoded(ctx, src, s.records); err != nil {
		return err
	}
	for _, r := range s.records {
		raw := r.Value
		if r.Text != nil && raw != nil {
			raw = r.Text
		}
		s.add(r.Origin, SampleRow{Position: r.Offset, Raw: string(raw)})
	}
	return nil
}

// ownValue gives one value, ready for JSON, that does not point into the batch.
func ownValue(a arrow.Array, i int) (any, error) {
	if a.IsNull(i) {
		return nil, nil
	}
	switch v := a.GetOneForMarshal(i).(type) {
	case string:
		return strings.Clone(v), nil
	case bool, int8, int16, int32, int64, float32, float64:
		return v, nil
	default:
		b, err := json.Marshal(v)
		return json.RawMessage(b), err
	}
}

// finish ends the computation of a pass; a final one also refuses what the table would, if there is one.
func (s *sampler) finish(ctx context.Context, ep Epoch, plan *pipeline.Plan, final bool) (*EpochResult, error) {
	if !final {
		return ep.Finish(ctx)
	}
	t, err := s.l.catalog.Open(ctx, plan.Table.Name)
	if errors.Is(err, delta.ErrNotATable) {
		return ep.Finish(ctx)
	}
	if err == nil {
		_, err = t.Snapshot(ctx)
	}
	if err != nil {
		return nil, err
	}
	return s.l.finish(ctx, ep, t)
}

// pass runs the sample through a plan and tells of every row that comes out, and of every one that is refused.
func (s *sampler) pass(ctx context.Context, plan *pipeline.Plan, row func(*SampleRow, map[string]any), bad func(*SampleRow, pipeline.BadRow)) error {
	ep, _, err := s.l.newEpoch(ctx, plan)
	if err != nil {
		return err
	}
	defer ep.Close()
	if s.file != nil {
		err = ep.AddFile(ctx, s.file)
	} else {
		err = ep.AddRecords(ctx, s.records)
	}
	if err != nil {
		return err
	}
	res, err := s.finish(ctx, ep, plan, bad != nil)
	if err != nil {
		return err
	}
	for b, err := range res.Rows.Read(ctx, nil, nil) {
		if err != nil {
			return err
		}
		for i := range int(b.NumRows()) {
			v := map[string]any{}
			for c, f := range b.Schema().Fields() {
				if v[f.Name], err = ownValue(b.Column(c), i); err != nil {
					return err
				}
			}
			origin, _ := v[pipeline.ColumnOrigin].(string)
			var position int64
			switch p := v[pipeline.ColumnPosition].(type) {
			case int64:
				position = p
			default:
				_, _ = fmt.Sscan(fmt.Sprint(p), &position)
			}
			maps.DeleteFunc(v, func(name string, _ any) bool { return name != "" && name[0] == '_' && name != pipeline.ColumnDeleted })
			if k, ok := s.at[sampleID{origin, position}]; ok {
				row(&s.report.Rows[k], v)
			}
		}
	}
	if bad == nil || res.Bad == nil {
		return nil
	}
	for b, err := range res.Bad {
		if err != nil {
			return err
		}
		if k, ok := s.at[sampleID{b.Origin, b.Position}]; ok {
			bad(&s.report.Rows[k], b)
		}
	}
	return nil
}
