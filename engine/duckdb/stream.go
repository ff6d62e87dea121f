package duckdb

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/apache/arrow-go/v18/arrow"
)

// batchStream feeds Arrow batches to DuckDB. A goroutine of its own makes them: DuckDB asks for the next batch from a
// thread of C, where a Go iterator must not be resumed, and so the next batch is made while DuckDB takes the last one.
type batchStream struct {
	schema *arrow.Schema
	cancel context.CancelFunc
	ch     chan arrow.RecordBatch
	done   chan struct{} // closed when the goroutine has ended; err is set then
	err    error
	batch  arrow.RecordBatch
}

// newBatchStream starts produce, which calls send for each batch; send takes over the batch, and is false when nobody
// wants more. stop must be called.
func newBatchStream(ctx context.Context, schema *arrow.Schema, produce func(ctx context.Context, send func(arrow.RecordBatch) bool) error) *batchStream {
	ctx, cancel := context.WithCancel(ctx)
	s := &batchStream{schema: schema, cancel: cancel, ch: make(chan arrow.RecordBatch, 1), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		defer close(s.ch)
		s.err = produce(ctx, func(b arrow.RecordBatch) bool {
			select {
			case s.ch <- b:
				return true
			case <-ctx.Done():
				b.Release()
				return false
			}
		})
	}()
	return s
}

// openStream shows batches as a stream. The first batch tells how the types of schema are spelt; one of others ends the stream,
// because DuckDB takes a batch for what the stream's schema says. stop must be called where there is no error.
func openStream(ctx context.Context, schema *arrow.Schema, batches iter.Seq2[arrow.RecordBatch, error]) (*batchStream, error) {
	next, end := iter.Pull2(batches)
	b, err, more := next()
	if err != nil {
		end()
		return nil, err
	}
	if more {
		schema = withTypes(schema, b.Columns())
		b.Retain() // the stream keeps it beyond this step
	}
	return newBatchStream(ctx, schema, func(_ context.Context, send func(arrow.RecordBatch) bool) error {
		defer end()
		for more {
			if withTypes(schema, b.Columns()) != schema {
				err := fmt.Errorf("rows of two forms: %v and %v", schema, b.Schema())
				b.Release()
				return err
			}
			if !send(b) {
				return nil
			}
			if b, err, more = next(); err != nil {
				return err
			}
			if more {
				b.Retain()
			}
		}
		return nil
	}), nil
}

// stop ends the goroutine and frees what nobody took. It returns the error with which making batches ended, which DuckDB
// only knows as a text.
func (s *batchStream) stop() error {
	s.cancel()
	for b := range s.ch {
		b.Release()
	}
	<-s.done
	if s.batch != nil {
		s.batch.Release()
		s.batch = nil
	}
	if errors.Is(s.err, context.Canceled) {
		return nil // asked for just now; a context cancelled from outside shows in DuckDB's own error
	}
	return s.err
}

// Schema implements array.RecordReader.
func (s *batchStream) Schema() *arrow.Schema { return s.schema }

// Next implements array.RecordReader.
func (s *batchStream) Next() bool {
	if s.batch != nil {
		s.batch.Release()
	}
	var ok bool
	s.batch, ok = <-s.ch
	return ok
}

// RecordBatch implements array.RecordReader.
func (s *batchStream) RecordBatch() arrow.RecordBatch { return s.batch }

// Record implements array.RecordReader under its former name.
func (s *batchStream) Record() arrow.RecordBatch { return s.batch }

// Err implements array.RecordReader. It is called after Next was false, when the goroutine has ended or is about to.
func (s *batchStream) Err() error {
	select {
	case <-s.done:
		return s.err
	default:
		return nil
	}
}

// Retain implements array.RecordReader; the stream belongs to the call that made it.
func (s *batchStream) Retain() {}

// Release implements array.RecordReader.
func (s *batchStream) Release() {}
