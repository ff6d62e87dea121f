package delta

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/compute"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// ErrNoSuchColumn says that a named column does not exist.
var ErrNoSuchColumn = errors.New("no such column")

// NewRows makes Rows of batches in memory, numbered as they come. The batches are retained until Close; their schemas
// must have the fields of schema in the same order.
func NewRows(schema *arrow.Schema, batches ...arrow.RecordBatch) *MemoryRows {
	m := &MemoryRows{schema: schema}
	for _, b := range batches {
		if b.NumRows() == 0 {
			continue
		}
		b.Retain()
		m.batches = append(m.batches, b)
		m.starts = append(m.starts, m.n)
		m.n += b.NumRows()
	}
	return m
}

// MemoryRows are Rows held in memory.
type MemoryRows struct {
	schema  *arrow.Schema
	batches []arrow.RecordBatch
	starts  []int64 // ordinal of the first row of each batch
	n       int64
}

// Schema implements Rows.
func (m *MemoryRows) Schema() *arrow.Schema { return m.schema }

// NumRows implements Rows.
func (m *MemoryRows) NumRows() int64 { return m.n }

// Close releases the batches.
func (m *MemoryRows) Close() error {
	for _, b := range m.batches {
		b.Release()
	}
	m.batches, m.starts, m.n = nil, nil, 0
	return nil
}

// Read implements Rows.
func (m *MemoryRows) Read(ctx context.Context, columns []string, ordinals *roaring64.Bitmap) iter.Seq2[arrow.RecordBatch, error] {
	return func(yield func(arrow.RecordBatch, error) bool) {
		index, schema, err := projection(m.schema, columns)
		if err != nil {
			yield(nil, err)
			return
		}
		for i, b := range m.batches {
			if err := ctx.Err(); err != nil {
				yield(nil, err)
				return
			}
			p := project(b, schema, index)
			if ordinals != nil {
				sel := within(ordinals, m.starts[i], b.NumRows())
				q, err := takeBatch(ctx, p, sel)
				p.Release()
				if err != nil {
					yield(nil, err)
					return
				}
				p = q
			}
			ok := p.NumRows() == 0 || yield(p, nil)
			p.Release()
			if !ok {
				return
			}
		}
	}
}

// projection finds columns (nil: all) by name, exactly or else in any case.
func projection(schema *arrow.Schema, columns []string) (index []int, out *arrow.Schema, err error) {
	if columns == nil {
		index = make([]int, schema.NumFields())
		for i := range index {
			index[i] = i
		}
		return index, schema, nil
	}
	fields := make([]arrow.Field, len(columns))
	index = make([]int, len(columns))
	for i, c := range columns {
		j := fieldIndex(schema, c)
		if j < 0 {
			return nil, nil, fmt.Errorf("%w: %q", ErrNoSuchColumn, c)
		}
		index[i], fields[i] = j, schema.Field(j)
	}
	return index, arrow.NewSchema(fields, nil), nil
}

// fieldIndex finds a column by name, exactly or else in any case, as Delta compares names; -1 if there is none.
func fieldIndex(schema *arrow.Schema, name string) int {
	for i, f := range schema.Fields() {
		if f.Name == name {
			return i
		}
	}
	for i, f := range schema.Fields() {
		if strings.EqualFold(f.Name, name) {
			return i
		}
	}
	return -1
}

func project(b arrow.RecordBatch, schema *arrow.Schema, index []int) arrow.RecordBatch {
	cols := make([]arrow.Array, len(index))
	for i, j := range index {
		cols[i] = b.Column(j)
	}
	return array.NewRecordBatch(schema, cols, b.NumRows())
}

// within lists the members of a set in [start, start+n), relative to start.
func within(set *roaring64.Bitmap, start, n int64) []int64 {
	var out []int64
	it := set.Iterator()
	it.AdvanceIfNeeded(uint64(start))
	for it.HasNext() {
		v := int64(it.Next())
		if v >= start+n {
			break
		}
		out = append(out, v-start)
	}
	return out
}

// takeBatch copies the given rows of a batch, in the given order. The caller releases the result.
func takeBatch(ctx context.Context, b arrow.RecordBatch, rows []int64) (arrow.RecordBatch, error) {
	n := int64(len(rows))
	if n == b.NumRows() && ascendingRun(rows) {
		b.Retain()
		return b, nil
	}
	if n > 0 && ascendingRun(rows) {
		return b.NewSlice(rows[0], rows[0]+n), nil
	}
	cols := make([]arrow.Array, b.NumCols())
	defer func() {
		for _, c := range cols {
			if c != nil {
				c.Release()
			}
		}
	}()
	for i := range cols {
		c, err := takeArray(ctx, b.Column(i), rows)
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", b.ColumnName(i), err)
		}
		cols[i] = c
	}
	return array.NewRecordBatch(b.Schema(), cols, n), nil
}

func ascendingRun(rows []int64) bool {
	for i, r := range rows {
		if r != rows[0]+int64(i) {
			return false
		}
	}
	return true
}

// takeArray copies the given elements; -1 gives null. The caller releases the result.
func takeArray(ctx context.Context, a arrow.Array, rows []int64) (arrow.Array, error) {
	if len(rows) == 0 {
		return array.MakeArrayOfNull(memory.DefaultAllocator, a.DataType(), 0), nil
	}
	if a.DataType().ID() == arrow.NULL {
		return array.NewNull(len(rows)), nil
	}
	ib := array.NewInt64Builder(memory.DefaultAllocator)
	defer ib.Release()
	ib.Reserve(len(rows))
	for _, r := range rows {
		if r < 0 {
			ib.UnsafeAppendBoolToBitmap(false)
		} else {
			ib.UnsafeAppend(r)
		}
	}
	idx := ib.NewInt64Array()
	defer idx.Release()
	return compute.TakeArrayOpts(ctx, a, idx, compute.TakeOptions{BoundsCheck: false})
}

// collect reads all batches of a sequence into one; the caller releases it.
func collect(schema *arrow.Schema, seq iter.Seq2[arrow.RecordBatch, error]) (arrow.RecordBatch, error) {
	var batches []arrow.RecordBatch
	defer func() {
		for _, b := range batches {
			b.Release()
		}
	}()
	for b, err := range seq {
		if err != nil {
			return nil, err
		}
		b.Retain()
		batches = append(batches, b)
	}
	return concatBatches(schema, batches)
}

// concatBatches joins batches of one schema; the caller releases the result.
func concatBatches(schema *arrow.Schema, batches []arrow.RecordBatch) (arrow.RecordBatch, error) {
	switch len(batches) {
	case 0:
		cols := make([]arrow.Array, schema.NumFields())
		for i, f := range schema.Fields() {
			cols[i] = array.MakeArrayOfNull(memory.DefaultAllocator, f.Type, 0)
			defer cols[i].Release()
		}
		return array.NewRecordBatch(schema, cols, 0), nil
	case 1:
		batches[0].Retain()
		return batches[0], nil
	}
	var n int64
	for _, b := range batches {
		n += b.NumRows()
	}
	cols := make([]arrow.Array, batches[0].NumCols())
	defer func() {
		for _, c := range cols {
			if c != nil {
				c.Release()
			}
		}
	}()
	parts := make([]arrow.Array, len(batches))
	for i := range cols {
		for j, b := range batches {
			parts[j] = b.Column(i)
		}
		c, err := array.Concatenate(parts, memory.DefaultAllocator)
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", batches[0].ColumnName(i), err)
		}
		cols[i] = c
	}
	return array.NewRecordBatch(batches[0].Schema(), cols, n), nil
}

// someColumns is a view of some columns of rows.
type someColumns struct {
	Rows
	schema *arrow.Schema
}

func (r *someColumns) Schema() *arrow.Schema { return r.schema }

func (r *someColumns) Read(ctx context.Context, columns []string, ordinals *roaring64.Bitmap) iter.Seq2[arrow.RecordBatch, error] {
	if columns == nil {
		for _, f := range r.schema.Fields() {
			columns = append(columns, f.Name)
		}
	}
	return r.Rows.Read(ctx, columns, ordinals)
}
