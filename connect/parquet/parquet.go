// Package parquet reads Parquet files as records: each row becomes the text of a JSON object, which engines read with
// the scanner that reads streams too, so that fields are text as everywhere and a row that does not fit is kept as one
// can read it. It stands between staged files and engines.
package parquet

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"

	"github.com/cauce-data/cauce/internal/rowjson"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/pipeline"
)

// ErrCorrupt says that a file is no Parquet file, or a damaged one.
var ErrCorrupt = errors.New("no readable Parquet file")

// batchRows bounds the rows that are decoded at once.
const batchRows = 4096

// Stager makes a file ready at a local path (connect/csv.Opener).
type Stager interface {
	Stage(ctx context.Context, store objstore.Store, info objstore.Info, src *pipeline.Source, binary bool) (*pipeline.RawFile, error)
}

// Opener makes Parquet files ready for reading. It is safe for concurrent use.
type Opener struct{ Stager Stager }

// Open makes one file ready; each of its records has one value, the text of an object. Position is the ordinal of the
// row. The caller closes the file. A file without a readable footer gives ErrCorrupt.
func (o Opener) Open(ctx context.Context, store objstore.Store, info objstore.Info, src *pipeline.Source) (_ *pipeline.RawFile, err error) {
	f, err := o.Stager.Stage(ctx, store, info, src, true)
	if err != nil {
		return nil, err
	}
	if f.Size > 0 { // an empty file has no rows in every format
		r, _, err := open(f.Path)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w: %w", f.Name, ErrCorrupt, err), f.Close())
		}
		if err := r.ParquetReader().Close(); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	f.Rows = func(ctx context.Context) iter.Seq2[pipeline.RawRow, error] {
		return rows(ctx, f, nil, false)
	}
	f.RowsAt = func(ctx context.Context, positions []int64) iter.Seq2[pipeline.RawRow, error] {
		return rows(ctx, f, positions, true)
	}
	return f, nil
}

// open opens the file of a path. The library panics on some damaged files.
func open(path string) (_ *pqarrow.FileReader, _ *arrow.Schema, err error) {
	defer recoverCorrupt(&err)
	in, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	p, err := file.NewParquetReader(in)
	if err != nil {
		return nil, nil, errors.Join(err, in.Close())
	}
	if err := fits(p, in); err != nil {
		return nil, nil, errors.Join(err, p.Close())
	}
	r, err := pqarrow.NewFileReader(p, pqarrow.ArrowReadProperties{BatchSize: batchRows}, memory.DefaultAllocator)
	if err != nil {
		return nil, nil, errors.Join(err, p.Close())
	}
	s, err := r.Schema()
	if err != nil {
		return nil, nil, errors.Join(err, p.Close())
	}
	return r, s, nil
}

// fits tells that no column is larger than the file: the library asks for as much memory as the footer says, and Go ends a process
// that cannot have it.
func fits(p *file.Reader, in *os.File) error {
	st, err := in.Stat()
	if err != nil {
		return err
	}
	for g := range p.NumRowGroups() {
		group := p.MetaData().RowGroup(g)
		for c := range group.NumColumns() {
			chunk, err := group.ColumnChunk(c)
			if err != nil {
				return err
			}
			if n := chunk.TotalCompressedSize(); n < 0 || n > st.Size() {
				return fmt.Errorf("%w: column %d of row group %d has %d bytes, the file %d", ErrCorrupt, c, g, n, st.Size())
			}
		}
	}
	return nil
}

func recoverCorrupt(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: %v", ErrCorrupt, p)
	}
}

func rows(ctx context.Context, f *pipeline.RawFile, positions []int64, some bool) iter.Seq2[pipeline.RawRow, error] {
	return func(yield func(pipeline.RawRow, error) bool) {
		fail := func(err error) {
			if u := f.Unchanged(ctx); errors.Is(u, pipeline.ErrChanged) {
				err = u
			}
			yield(pipeline.RawRow{}, fmt.Errorf("%s: %w", f.Name, err))
		}
		if f.Size == 0 {
			return
		}
		r, schema, err := open(f.Path)
		if err != nil {
			fail(err)
			return
		}
		defer r.ParquetReader().Close()
		rec, err := records(ctx, r)
		if err != nil {
			fail(err)
			return
		}
		defer rec.Release()
		var text []byte
		position := int64(0)
		for !some || len(positions) > 0 {
			batch, err := next(rec)
			if err != nil {
				fail(fmt.Errorf("%w: %w", ErrCorrupt, err))
				return
			}
			if batch == nil {
				break
			}
			for i := range int(batch.NumRows()) {
				position++
				if some {
					for len(positions) > 0 && positions[0] < position {
						positions = positions[1:]
					}
					if len(positions) == 0 || positions[0] != position {
						continue
					}
				}
				if text, err = appendRow(text[:0], schema, batch, i); err != nil {
					fail(fmt.Errorf("record %d: %w", position, err))
					return
				}
				row := pipeline.RawRow{
					Position: position, Values: []string{string(text)},
					Raw: string(text[:min(len(text), pipeline.RawBytesMax)]), RawBytes: int64(len(text)),
				}
				if !yield(row, nil) {
					return
				}
			}
		}
		if err := f.Unchanged(ctx); err != nil {
			yield(pipeline.RawRow{}, err)
		}
	}
}

// records reads a file from its beginning.
func records(ctx context.Context, r *pqarrow.FileReader) (_ pqarrow.RecordReader, err error) {
	defer recoverCorrupt(&err)
	return r.GetRecordReader(ctx, nil, nil)
}

// appendRow is rowjson.Append for columns that need not be what their lengths say.
func appendRow(b []byte, schema *arrow.Schema, batch arrow.RecordBatch, i int) (_ []byte, err error) {
	defer recoverCorrupt(&err)
	return rowjson.Append(b, schema, batch, i), nil
}

// next gives the next batch, which lives until the next call; nil at the end.
func next(r pqarrow.RecordReader) (b arrow.RecordBatch, err error) {
	defer recoverCorrupt(&err)
	if r.Next() {
		return r.RecordBatch(), nil
	}
	if err := r.Err(); err != nil && err.Error() != "EOF" {
		return nil, err
	}
	return nil, nil
}
