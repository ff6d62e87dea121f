package duckdb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/pipeline"
)

// epoch implements pipeline.Epoch. Each file, and each batch of records, becomes a part: a table of checked rows in a
// schema of the epoch's own. AddFile and AddRecords may be called concurrently; Finish comes after all of them.
type epoch struct {
	e          *Engine
	p          *program
	ingestedAt time.Time
	schema     string
	rules      *delta.RowRules // of the table; nil: not told

	mu       sync.Mutex
	parts    []*part
	next     int
	warnings []string
	closed   bool
	crewDone func() // gives DuckDB its threads back; nil: it has them
}

// part is what one file or one batch of records became.
type part struct {
	id    int
	table string // qualified and quoted
	file  *pipeline.RawFile
	recs  []pipeline.Record
	r     *rendering

	rows      int64 // in the table
	read      int64 // records read, good or bad
	filtered  int64 // records that the filter left out before the table
	positions bool  // the table has the position as a column; else it is rowid + 1
	origins   []string
	// structural are records that could not be taken apart: positions of a file, or indexes of recs.
	structural *roaring64.Bitmap
	reasons    map[int]string // of structural records of recs
	base       int64          // number of rows in the parts before
}

// NewEpoch begins the computation of one epoch.
func (e *Engine) NewEpoch(ctx context.Context, plan *pipeline.Plan, ingestedAt time.Time) (pipeline.Epoch, error) {
	p, err := e.program(plan)
	if err != nil {
		return nil, err
	}
	x := &epoch{e: e, p: p, ingestedAt: ingestedAt, schema: e.name("epoch_")}
	err = e.with(ctx, func(c *conn) error { return c.exec(ctx, "CREATE SCHEMA "+x.schema) })
	if err != nil {
		return nil, fmt.Errorf("begin epoch: %w", err)
	}
	return x, nil
}

// KeepRules implements pipeline.TableRuler.
func (x *epoch) KeepRules(rules *delta.RowRules) { x.rules = rules }

// ExpectFiles implements pipeline.FileExpecter: where there are enough files to keep the processors busy with one each,
// DuckDB's own threads would only be in the way.
func (x *epoch) ExpectFiles(sizes []int64) {
	var sum, greatest int64
	for _, n := range sizes {
		sum += n
		greatest = max(greatest, n)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.crewDone == nil && sum >= 2*int64(x.e.threads)*greatest {
		x.crewDone = x.e.crew(context.Background())
	}
}

// endCrew gives DuckDB its threads back. The caller holds x.mu.
func (x *epoch) endCrew() {
	if x.crewDone != nil {
		x.crewDone()
		x.crewDone = nil
	}
}

// Close implements pipeline.Epoch: it frees everything, the rows that Finish returned included.
func (x *epoch) Close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return nil
	}
	x.closed = true
	x.endCrew()
	ctx := context.Background()
	return x.e.with(ctx, func(c *conn) error { return c.exec(ctx, "DROP SCHEMA IF EXISTS "+x.schema+" CASCADE") })
}

func (x *epoch) newPart() *part {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.next++
	return &part{id: x.next, table: x.schema + ".part_" + strconv.Itoa(x.next)}
}

// keep makes a finished part one of the epoch, in the order of ids whatever order they end in.
func (x *epoch) keep(p *part, warnings ...string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	at, _ := slices.BinarySearchFunc(x.parts, p, func(a, b *part) int { return a.id - b.id })
	x.parts = slices.Insert(x.parts, at, p)
	x.warnings = append(x.warnings, warnings...)
}

// AddFile implements pipeline.Epoch.
func (x *epoch) AddFile(ctx context.Context, f *pipeline.RawFile) error {
	if err := x.addFile(ctx, f); err != nil {
		if f.Name == "" {
			return err
		}
		return fmt.Errorf("%s: %w", f.Name, err)
	}
	return nil
}

func (x *epoch) addFile(ctx context.Context, f *pipeline.RawFile) error {
	if x.p.plan.Source.Objects() {
		f = x.jsonFile(f)
	}
	if len(f.Fields) == 0 {
		// A file without a single record has no header to miss a column in.
		x.mu.Lock()
		defer x.mu.Unlock()
		x.warnings = append(x.warnings, f.Name+": the file is empty")
		return nil
	}
	var missing []string
	for _, r := range x.p.plan.Required {
		if !slices.Contains(f.Fields, r) {
			missing = append(missing, r)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("the file lacks the column %s that source %s needs; it has %s",
			strings.Join(missing, ", "), x.p.plan.Source.Name, strings.Join(f.Fields, ", "))
	}
	p := x.newPart()
	p.file, p.origins = f, []string{f.Origin}
	ok, warning, err := x.loadLines(ctx, p)
	if err != nil {
		return err
	}
	if !ok {
		if warning, err = x.loadExact(ctx, p); err != nil {
			return err
		}
		if p.read == 0 && x.p.plan.Source.Objects() {
			warning = "the file is empty"
		}
	}
	if f.Unchanged != nil {
		if err := f.Unchanged(ctx); err != nil {
			return errors.Join(err, x.drop(p))
		}
	}
	if warning != "" {
		x.keep(p, f.Name+": "+warning)
	} else {
		x.keep(p)
	}
	return nil
}

func (x *epoch) drop(p *part) error {
	ctx := context.Background()
	return x.e.with(ctx, func(c *conn) error { return c.exec(ctx, "DROP TABLE IF EXISTS "+p.table) })
}

// unknownFields is the SQL for unknown_fields: quarantine, over the fields of a file.
func (x *epoch) unknownFields(fields []string, columns map[string]string) string {
	if x.p.plan.Source.UnknownFields != pipeline.UnknownQuarantine {
		return ""
	}
	var unknown []string
	for _, f := range fields {
		if !slices.Contains(x.p.plan.RawFields, f) {
			unknown = append(unknown, columns[f])
		}
	}
	if len(unknown) == 0 {
		return ""
	}
	return "COALESCE(" + strings.Join(unknown, ", ") + ", NULL)"
}

// keepUnknown adds the SQL of unknown_fields: keep, over the fields of a file.
func (x *epoch) keepUnknown(fields []string, columns map[string]string) {
	if x.p.plan.Source.UnknownFields != pipeline.UnknownKeep || columns[pipeline.RawUnknown] != "" {
		return
	}
	var names, cols, members []string
	for _, f := range fields {
		if !slices.Contains(x.p.plan.RawFields, f) {
			names = append(names, f)
		}
	}
	slices.Sort(names)
	for _, n := range names {
		cols = append(cols, columns[n])
		members = append(members, "CASE WHEN "+columns[n]+" IS NOT NULL THEN "+quoteText(string(appendJSONText(nil, n))+":")+" || CAST(to_json("+columns[n]+") AS VARCHAR) END")
	}
	if len(names) > 0 {
		columns[pipeline.RawUnknown] = "(CASE WHEN COALESCE(" + strings.Join(cols, ", ") + ", NULL) IS NOT NULL THEN '{' || array_to_string(list_filter([" +
			strings.Join(members, ", ") + "], lambda m: m IS NOT NULL), ',') || '}' END)"
	}
}

// create makes a table from a query and tells its number of rows.
func (c *conn) create(ctx context.Context, table, query string) (int64, error) {
	var n int64
	err := c.each(ctx, "CREATE TABLE "+table+" AS "+query, func(row []any) error {
		n, _ = row[0].(int64)
		return nil
	})
	return n, err
}

// loadExact reads the file record by record with the reader that it came with.
func (x *epoch) loadExact(ctx context.Context, p *part) (warning string, err error) {
	f := p.file
	in := input{fields: map[string]string{}, name: f.Name, ingestedAt: x.ingestedAt, position: "pos"}
	for i, n := range f.Fields {
		in.fields[n] = "c" + strconv.Itoa(i)
	}
	if x.p.plan.Uses("occurrence") {
		in.occurrence = "occ"
	}
	p.positions = true
	p.structural = roaring64.New()
	nulls := x.p.plan.Source.CSV.NullValues
	var read int64
	occurrences := map[[2]uint64]int64{}
	err = x.loadRecords(ctx, p, in, f.Fields, func(ctx context.Context, b *recordBatches, send func(arrow.RecordBatch) bool) error {
		for row, err := range f.Rows(ctx) {
			if err != nil {
				return err
			}
			read++
			if row.Warning != "" {
				warning = row.Warning
			}
			if row.Err != "" || len(row.Values) != len(f.Fields) {
				p.structural.Add(uint64(row.Position))
				continue
			}
			for i, v := range row.Values {
				if (i >= len(row.Quoted) || !row.Quoted[i]) && (v == "" || slices.Contains(nulls, v)) {
					b.null(i)
				} else {
					b.text(i, v)
				}
			}
			if b.occurrence {
				k := lineHash(row)
				occurrences[k]++
				b.occ.Append(occurrences[k])
			}
			b.pos.Append(row.Position)
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
		return "", err
	}
	p.read = read
	p.filtered = read - int64(p.structural.GetCardinality()) - p.rows
	return warning, nil
}

// loadRecords makes the part's table of records that produce splits into the given fields and sends in batches.
func (x *epoch) loadRecords(ctx context.Context, p *part, in input, fields []string,
	produce func(ctx context.Context, b *recordBatches, send func(arrow.RecordBatch) bool) error,
) error {
	reads, err := x.p.newReads(fields)
	if err != nil {
		return err
	}
	if !in.records && x.p.plan.Source.UnknownFields != pipeline.UnknownIgnore {
		in.unknown = x.unknownFields(fields, in.fields)
		x.keepUnknown(fields, in.fields)
		for _, n := range fields {
			if !slices.Contains(x.p.plan.RawFields, n) {
				reads.readText(n)
			}
		}
	}
	in.from, in.reads = x.e.name("input_"), reads
	if p.r, err = x.p.render(in); err != nil {
		return err
	}
	b := newRecordBatches(reads)
	b.positions, b.occurrence, b.stream = in.position != "", in.occurrence != "", in.records
	stream := newBatchStream(ctx, b.arrowSchema(), func(ctx context.Context, send func(arrow.RecordBatch) bool) error {
		return produce(ctx, b, send)
	})
	err = x.e.with(ctx, func(c *conn) error {
		var err error
		p.rows, err = c.createFrom(ctx, p.table, p.r.sql, stream, in.from)
		return err
	})
	if streamErr := stream.stop(); streamErr != nil {
		return streamErr // DuckDB only knows that the stream failed
	}
	return err
}

// createFrom makes a table from a query over a stream of batches, which stands in it under the name view.
func (c *conn) createFrom(ctx context.Context, table, query string, b array.RecordReader, view string) (int64, error) {
	release, err := c.register(b, view)
	if err != nil {
		return 0, err
	}
	defer release()
	n, err := c.create(ctx, table, query)
	return n, errors.Join(err, c.exec(context.WithoutCancel(ctx), "DROP VIEW IF EXISTS "+view))
}
