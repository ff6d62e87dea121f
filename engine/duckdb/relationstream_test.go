package duckdb

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/cauce-data/cauce/delta"
)

// The rows of a relation with a stream are never all in memory, wherever they go, and its error is the statement's.
func TestStreamedRelation(t *testing.T) {
	ctx := context.Background()
	const batches, rows = 200, 1000
	inner := func(name string) arrow.DataType {
		return arrow.ListOfField(arrow.Field{Name: name, Type: arrow.PrimitiveTypes.Int64, Nullable: true})
	}
	schema := func(name string) *arrow.Schema {
		return arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}, {Name: "x y", Type: arrow.BinaryTypes.String, Nullable: true}, {Name: "l", Type: inner(name), Nullable: true}}, nil)
	}
	mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
	var most int
	stream := func(fail error, at int) func(context.Context) iter.Seq2[arrow.RecordBatch, error] {
		return func(context.Context) iter.Seq2[arrow.RecordBatch, error] {
			return func(yield func(arrow.RecordBatch, error) bool) {
				b := array.NewRecordBuilder(mem, schema("item")) // the field in the list is called otherwise than in the relation's schema
				defer b.Release()
				for k := range batches {
					if fail != nil && k == at {
						yield(nil, fail)
						return
					}
					for i := range rows {
						b.Field(0).(*array.Int64Builder).Append(int64(k*rows + i))
						b.Field(1).(*array.StringBuilder).Append(strings.Repeat("x", 100))
						l := b.Field(2).(*array.ListBuilder)
						l.Append(true)
						l.ValueBuilder().(*array.Int64Builder).Append(int64(i))
					}
					out := b.NewRecordBatch()
					most = max(most, mem.CurrentAlloc())
					more := yield(out, nil)
					out.Release()
					if !more {
						return
					}
				}
			}
		}
	}
	e := testEngine(t)
	const sql = "WITH c AS (SELECT * FROM changes) SELECT count(*) || ' ' || sum(a.id) || ' ' || min(a.\"x y\") || ' ' || sum(b.l[1]) AS s FROM c a JOIN c b USING (id) WHERE a.id >= 10"
	want := fmt.Sprintf("%d %d %s %d", batches*rows-10, batches*rows*(batches*rows-1)/2-45, strings.Repeat("x", 100), batches*rows*(rows-1)/2-45)
	one := func(r array.RecordReader) string {
		t.Helper()
		defer r.Release()
		got := ""
		for r.Next() {
			got = strings.Clone(r.RecordBatch().Column(0).ValueStr(0)) // of memory that the reader frees
		}
		if r.Err() != nil {
			t.Fatal(r.Err())
		}
		return got
	}
	// here runs the statement in this engine, there as a worker does.
	ways := map[string]func(rel Relation) (string, error){
		"here": func(rel Relation) (string, error) {
			r, err := e.QueryResolved(ctx, sql, onlyRelation{rel})
			if err != nil {
				return "", err
			}
			defer func() {
				if err := r.Close(); err != nil {
					t.Error(err)
				}
			}()
			r.reader.Retain()
			return one(r.reader), nil
		},
		"there": func(rel Relation) (string, error) {
			s, err := e.Ship(ctx, sql, "UTC", onlyRelation{rel})
			if err != nil {
				return "", err
			}
			for _, st := range s.Steps {
				if len(st.Rows) > 0 {
					t.Errorf("%d bytes of rows are sent", len(st.Rows))
				}
			}
			w, err := e.NewSession(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.Begin(ctx, s.Steps); err != nil {
				t.Fatal(err)
			}
			r, err := w.Query(ctx, s.SQL)
			if err != nil {
				t.Fatal(err)
			}
			got := one(r)
			if err := errors.Join(w.End(), w.Close(), s.Close()); err != nil {
				t.Error(err)
			}
			return got, nil
		},
	}
	for name, run := range ways {
		t.Run(name, func(t *testing.T) {
			mem, most = memory.NewCheckedAllocator(memory.NewGoAllocator()), 0
			got, err := run(Relation{Schema: schema("element"), Stream: stream(nil, 0)})
			if err != nil || got != want {
				t.Errorf("%s, %v; want %s", got, err, want)
			}
			if all := batches * rows * 100; most == 0 || most > all/8 {
				t.Errorf("%d bytes of at least %d were in memory at once", most, all)
			}
			for _, at := range []int{0, 1, 150} {
				if got, err := run(Relation{Schema: schema("element"), Stream: stream(fmt.Errorf("version 3: %w", delta.ErrNoChangeData), at)}); !errors.Is(err, delta.ErrNoChangeData) {
					t.Errorf("an error at batch %d: %s, %v", at, got, err)
				}
			}
			if got, err := run(Relation{Schema: schema("element"), Stream: func(context.Context) iter.Seq2[arrow.RecordBatch, error] {
				return func(func(arrow.RecordBatch, error) bool) {}
			}}); err != nil || got != array.NullValueStr {
				t.Errorf("no rows: %s, %v", got, err)
			}
			two := func(context.Context) iter.Seq2[arrow.RecordBatch, error] {
				return func(yield func(arrow.RecordBatch, error) bool) {
					for b, err := range stream(nil, 0)(ctx) {
						if !yield(b, err) {
							return
						}
						fields := b.Schema().Fields()
						fields[1].Type = fields[0].Type
						other := array.NewRecordBatch(arrow.NewSchema(fields, nil), []arrow.Array{b.Column(0), b.Column(0), b.Column(2)}, b.NumRows())
						more := yield(other, nil)
						other.Release()
						if !more {
							return
						}
					}
				}
			}
			if _, err := run(Relation{Schema: schema("element"), Stream: two}); err == nil || !strings.Contains(err.Error(), "rows of two forms") {
				t.Errorf("batches of two forms: %v", err)
			}
		})
	}
	left, err := os.ReadDir(e.temp)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range left {
		if strings.HasPrefix(f.Name(), "ship-") {
			t.Errorf("%s is left", f.Name())
		}
	}
}
