package duckdb

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/cauce-data/cauce/pipeline"
)

// recordBatches builds Arrow batches of raw records: of each field what reads says, then where wanted pos, occ, rec, o
// and u.
type recordBatches struct {
	positions  bool
	occurrence bool
	stream     bool

	fields  []rawColumn
	natives []*nativeColumn // in the order of reads
	pos     *array.Int64Builder
	occ     *array.Int64Builder
	rec     *array.Int32Builder
	origin  *array.Int32Builder
	unknown *array.StringBuilder
	rows    int
	bytes   int
	schema  *arrow.Schema
}

// rawColumn takes the values of one field.
type rawColumn struct {
	text    *array.StringBuilder // nil: nothing reads it
	natives []*nativeColumn
}

func (f *rawColumn) wanted() bool { return f.text != nil || len(f.natives) > 0 }

// Bounds of a batch.
const (
	batchRowsMax  = 16 << 10
	batchBytesMax = 8 << 20
)

func newRecordBatches(reads *rawReads) *recordBatches {
	b := &recordBatches{fields: make([]rawColumn, len(reads.fields))}
	mem := memory.DefaultAllocator
	for i, n := range reads.texts {
		if n > 0 {
			b.fields[i].text = array.NewStringBuilder(mem)
		}
	}
	for _, n := range reads.natives {
		f := &b.fields[n.field]
		c := newNativeColumn(n, reads.zone)
		f.natives = append(f.natives, c)
		b.natives = append(b.natives, c)
	}
	b.pos, b.occ = array.NewInt64Builder(mem), array.NewInt64Builder(mem)
	b.rec, b.origin = array.NewInt32Builder(mem), array.NewInt32Builder(mem)
	b.unknown = array.NewStringBuilder(mem)
	return b
}

func (b *recordBatches) full() bool { return b.rows >= batchRowsMax || b.bytes >= batchBytesMax }

func (b *recordBatches) null(i int) {
	f := &b.fields[i]
	if f.text != nil {
		f.text.AppendNull()
	}
	for _, n := range f.natives {
		n.null()
	}
}

func (b *recordBatches) text(i int, s string) {
	f := &b.fields[i]
	if f.text != nil {
		f.text.Append(s)
		b.bytes += len(s)
	}
	for _, n := range f.natives {
		n.text(s)
	}
}

// arrowSchema is called when it is settled what the batches have beside the fields.
func (b *recordBatches) arrowSchema() *arrow.Schema {
	if b.schema != nil {
		return b.schema
	}
	var f []arrow.Field
	for i := range b.fields {
		if b.fields[i].text != nil {
			f = append(f, arrow.Field{Name: "c" + strconv.Itoa(i), Type: arrow.BinaryTypes.String, Nullable: true})
		}
	}
	for k, n := range b.natives {
		f = append(f, arrow.Field{Name: "n" + strconv.Itoa(k), Type: n.arrowType(), Nullable: true},
			arrow.Field{Name: "f" + strconv.Itoa(k), Type: arrow.FixedWidthTypes.Boolean})
	}
	b.positions = b.positions || len(f) == 0 // a batch has at least one column
	if b.positions {
		f = append(f, arrow.Field{Name: "pos", Type: arrow.PrimitiveTypes.Int64})
	}
	if b.occurrence {
		f = append(f, arrow.Field{Name: "occ", Type: arrow.PrimitiveTypes.Int64})
	}
	if b.stream {
		f = append(f, arrow.Field{Name: colRecord, Type: arrow.PrimitiveTypes.Int32}, arrow.Field{Name: colOrigin, Type: arrow.PrimitiveTypes.Int32},
			arrow.Field{Name: colUnknown, Type: arrow.BinaryTypes.String, Nullable: true})
	}
	b.schema = arrow.NewSchema(f, nil)
	return b.schema
}

// flush makes a batch of what was appended.
func (b *recordBatches) flush() arrow.RecordBatch {
	var cols []arrow.Array
	for i := range b.fields {
		if t := b.fields[i].text; t != nil {
			cols = append(cols, t.NewArray())
		}
	}
	for _, n := range b.natives {
		values, failed := n.flush()
		cols = append(cols, values, failed)
	}
	if b.positions {
		cols = append(cols, b.pos.NewArray())
	}
	if b.occurrence {
		cols = append(cols, b.occ.NewArray())
	}
	if b.stream {
		cols = append(cols, b.rec.NewArray(), b.origin.NewArray(), b.unknown.NewArray())
	}
	batch := array.NewRecordBatch(b.arrowSchema(), cols, int64(b.rows))
	for _, c := range cols {
		c.Release()
	}
	b.rows, b.bytes = 0, 0
	return batch
}

var (
	seedA = maphash.MakeSeed()
	seedB = maphash.MakeSeed()
)

// lineHash tells identical lines of a file, within one process, with 128 bits. Of a line longer than what is kept of it
// the length counts too.
func lineHash(r pipeline.RawRow) [2]uint64 {
	s := r.Raw
	if int64(len(s)) != r.RawBytes {
		s += "\x00" + strconv.FormatInt(r.RawBytes, 10)
	}
	return [2]uint64{maphash.String(seedA, s), maphash.String(seedB, s)}
}

// AddRecords implements pipeline.Epoch for JSON records.
func (x *epoch) AddRecords(ctx context.Context, recs []pipeline.Record) error {
	if len(recs) == 0 {
		return nil
	}
	p := x.newPart()
	p.recs = recs
	p.positions = true
	p.reasons = map[int]string{}
	p.read = int64(len(recs))
	in := input{fields: map[string]string{}, position: "pos", records: true, ingestedAt: x.ingestedAt}
	raw := x.p.plan.RawFields
	for i, n := range raw {
		in.fields[n] = "c" + strconv.Itoa(i)
	}
	reportUnknown := x.p.plan.Source.UnknownFields == pipeline.UnknownQuarantine
	if reportUnknown {
		in.unknown = colUnknown
	}
	keepUnknown := x.p.plan.Source.UnknownFields == pipeline.UnknownKeep
	if keepUnknown {
		in.fields[pipeline.RawUnknown] = colUnknown
	}
	scan := newJSONScanner(raw)
	scan.keep = keepUnknown
	tombstone := slices.Index(raw, pipeline.RawTombstone)
	origins := map[string]int32{}
	var o int32 // the origin of the record before: records of a partition come together
	err := x.loadRecords(ctx, p, in, raw, func(_ context.Context, b *recordBatches, send func(arrow.RecordBatch) bool) error {
		for i := range p.recs {
			r := &p.recs[i]
			if err := scan.recordOf(x.p.plan.Source, r, tombstone); err != nil {
				p.reasons[i] = err.Error()
				continue
			}
			for f := range raw {
				if v := scan.values[f]; v.set {
					b.text(f, v.text)
				} else {
					b.null(f)
				}
			}
			if len(p.origins) == 0 || r.Origin != p.origins[o] {
				var ok bool
				if o, ok = origins[r.Origin]; !ok {
					o = int32(len(p.origins))
					origins[r.Origin] = o
					p.origins = append(p.origins, r.Origin)
				}
			}
			b.pos.Append(r.Offset)
			b.rec.Append(int32(i))
			b.origin.Append(o)
			if (reportUnknown || keepUnknown) && scan.unknown != "" {
				b.unknown.Append(scan.unknown)
			} else {
				b.unknown.AppendNull()
			}
			b.rows++
			if b.full() && !send(b.flush()) {
				return nil
			}
		}
		if b.rows > 0 {
			send(b.flush())
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("source %s: %w", x.p.plan.Source.Name, err)
	}
	p.filtered = p.read - p.rows - int64(len(p.reasons))
	x.keep(p)
	return nil
}

var errJSON = errors.New("no JSON object")

// recordOf reads the raw fields of a stream's record. tombstone is the field of pipeline.RawTombstone; -1: nobody asks for it.
func (s *jsonScanner) recordOf(src *pipeline.Source, r *pipeline.Record, tombstone int) error {
	text, gone, err := src.Object(r)
	if err != nil {
		clear(s.values)
		s.unknown = ""
		return err
	}
	if err := s.record(text); err != nil {
		return err
	}
	if tombstone >= 0 {
		s.values[tombstone] = jsonValue{}
	}
	if gone {
		s.unknown = "" // what else the key says is nobody's
		s.values[tombstone] = jsonValue{text: "true", set: true}
	}
	return nil
}
