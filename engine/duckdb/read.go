package duckdb

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/compute"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/cauce-data/cauce/delta"
)

// reader implements delta.Reader.
type reader struct{ e *Engine }

// Read implements delta.Reader. Whole files are read one by one, which keeps the order and bounds memory; rows picked
// from files are read in one query for as many files as follow one another.
func (r reader) Read(ctx context.Context, table delta.TableInfo, files []delta.File, opts delta.ReadOptions) iter.Seq2[arrow.RecordBatch, error] {
	if variantsAmong(table, opts.Columns) {
		return delta.PureGo().Reader.Read(ctx, table, files, opts)
	}
	return func(yield func(arrow.RecordBatch, error) bool) {
		columns := opts.Columns
		if columns == nil {
			columns = table.Schema.Names()
		}
		schema, err := wantedSchema(table, columns)
		if err != nil {
			yield(nil, err)
			return
		}
		fields := append(schema.Fields(), arrow.Field{Name: "_file_index", Type: arrow.PrimitiveTypes.Int32}, arrow.Field{Name: "_row", Type: arrow.PrimitiveTypes.Int64})
		job := &readJob{e: r.e, table: table, columns: columns, schema: arrow.NewSchema(fields, nil), withPosition: opts.WithPosition, yield: yield}
		err = r.e.with(ctx, func(c *conn) error {
			job.c = c
			for i := 0; i < len(files) && !job.ended; {
				if opts.Rows == nil || opts.Rows[i] == nil {
					if err := job.whole(ctx, i, files[i]); err != nil {
						return err
					}
					i++
					continue
				}
				n := i
				for n < len(files) && opts.Rows[n] != nil {
					n++
				}
				if err := job.picked(ctx, i, files[i:n], opts.Rows[i:n]); err != nil {
					return err
				}
				i = n
			}
			return nil
		})
		if err != nil && !job.ended {
			yield(nil, err)
		}
	}
}

type readJob struct {
	e            *Engine
	c            *conn
	table        delta.TableInfo
	columns      []string
	schema       *arrow.Schema // the columns and both positions
	withPosition bool
	yield        func(arrow.RecordBatch, error) bool
	ended        bool // the consumer wants no more
}

// send gives the consumer a batch of columns and positions; file is its index among all files.
func (j *readJob) send(b arrow.RecordBatch, file int) bool {
	n := len(j.columns)
	cols := append([]arrow.Array(nil), b.Columns()[:n]...)
	fields := append([]arrow.Field(nil), b.Schema().Fields()[:n]...)
	if j.withPosition {
		index := b.Column(n)
		if file > 0 {
			was := b.Column(n).(*array.Int32)
			ib := array.NewInt32Builder(memory.DefaultAllocator)
			for i := range was.Len() {
				ib.Append(was.Value(i) + int32(file))
			}
			index = ib.NewArray()
			ib.Release()
			defer index.Release()
		}
		cols = append(cols, index, b.Column(n+1))
		fields = append(fields, j.schema.Field(n), j.schema.Field(n+1))
	}
	out := array.NewRecordBatch(arrow.NewSchema(fields, nil), cols, b.NumRows())
	defer out.Release()
	j.ended = !j.yield(out, nil)
	return !j.ended
}

// whole reads all live rows of a file, in their order.
func (j *readJob) whole(ctx context.Context, at int, f delta.File) (err error) {
	s, err := j.e.scan(ctx, j.c, j.table, []delta.File{f}, scanOptions{Columns: j.columns, Position: true, Deleted: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close(ctx)) }()
	for b, err := range j.c.batches(ctx, s.SQL, j.schema) {
		if err != nil {
			return fmt.Errorf("%s: %w", f.Key, err)
		}
		live, err := withoutRows(ctx, b, len(j.columns)+1, f.Deleted)
		if err != nil {
			return err
		}
		ok := live.NumRows() == 0 || j.send(live, at)
		live.Release()
		if !ok {
			return nil
		}
	}
	return nil
}

// withoutRows leaves out the rows whose number, in column at, a vector marks. The caller releases the result.
func withoutRows(ctx context.Context, b arrow.RecordBatch, at int, deleted *roaring64.Bitmap) (arrow.RecordBatch, error) {
	b.Retain()
	if deleted == nil || deleted.IsEmpty() {
		return b, nil
	}
	defer b.Release()
	rows := b.Column(at).(*array.Int64)
	mask := array.NewBooleanBuilder(memory.DefaultAllocator)
	defer mask.Release()
	for i := range rows.Len() {
		mask.Append(!deleted.Contains(uint64(rows.Value(i))))
	}
	m := mask.NewBooleanArray()
	defer m.Release()
	return compute.FilterRecordBatch(ctx, b, m, compute.DefaultFilterOptions())
}

// picked reads the given live rows of files, the first of which has the index at.
func (j *readJob) picked(ctx context.Context, at int, files []delta.File, rows []*roaring64.Bitmap) error {
	var where []position
	for i, f := range files {
		pick := rows[i]
		if f.Deleted != nil {
			pick = roaring64.AndNot(pick, f.Deleted)
		}
		for it := pick.Iterator(); it.HasNext(); {
			where = append(where, position{file: i, row: int64(it.Next())})
		}
	}
	if len(where) == 0 {
		return nil
	}
	// Files without a pick are not opened, so that indices shift: the position says which file a row was picked from.
	picked := make([]int32, 0, len(files))
	seen := map[int]bool{}
	for _, p := range where {
		if !seen[p.file] {
			seen[p.file] = true
			picked = append(picked, int32(p.file))
		}
	}
	group := make([]int, len(picked))
	for i, p := range picked {
		group[i] = int(p)
	}
	extra := fmt.Sprintf("%s[a.f::BIGINT + 1] AS %s, a.r AS %s", indexList(group), fileIndexColumn, rowColumn)
	return j.e.readPositions(ctx, j.c, j.table, files, where, j.columns, extra, func(b arrow.RecordBatch) bool { return j.send(b, at) }, j.schema)
}
