package duckdb

import (
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

var idSchema = arrow.NewSchema([]arrow.Field{{Name: "g", Type: arrow.PrimitiveTypes.Int64}}, nil)

// idReader is an Arrow stream of one column g.
type idReader struct {
	next  func() (int64, bool)
	batch arrow.RecordBatch
}

func newIDReader(next func() (int64, bool)) *idReader { return &idReader{next: next} }

func (r *idReader) Schema() *arrow.Schema { return idSchema }

func (r *idReader) Next() bool {
	if r.batch != nil {
		r.batch.Release()
		r.batch = nil
	}
	b := array.NewInt64Builder(memory.DefaultAllocator)
	defer b.Release()
	const rowsMax = 64 << 10
	for b.Len() < rowsMax {
		v, ok := r.next()
		if !ok {
			break
		}
		b.Append(v)
	}
	if b.Len() == 0 {
		return false
	}
	a := b.NewArray()
	defer a.Release()
	r.batch = array.NewRecordBatch(idSchema, []arrow.Array{a}, int64(a.Len()))
	return true
}

func (r *idReader) RecordBatch() arrow.RecordBatch { return r.batch }
func (r *idReader) Record() arrow.RecordBatch      { return r.batch }
func (r *idReader) Err() error                     { return nil }
func (r *idReader) Retain()                        {}
func (r *idReader) Release()                       {}
