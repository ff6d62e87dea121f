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

	"github.com/cauce-data/cauce/pipeline"
)

// epoch implements pipeline.Epoch. Each file, and each batch of records, becomes a part: a table of checked rows in a
// schema of the epoch's own. AddFile and AddRecords may be called concurrently; Finish comes after all of them.
type epoch struct {
	e          *Engine
	p          *program
	ingestedAt time.Time
	schema     string

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
	ok, warning, err := x.loadFast(ctx, p)
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

const warnUnterminated = "last record is not terminated"

// loadFast reads the file with DuckDB's CSV reader. ok is false, and nothing has happened, where that reader would not
// split the file as the exact one does, or met a record that it rejects.
func (x *epoch) loadFast(ctx context.Context, p *part) (ok bool, warning string, err error) {
	f, src := p.file, x.p.plan.Source
	if f.Path == "" || !f.Plain || len(f.Fields) == 0 {
		return false, "", nil
	}
	shape, err := scanCSV(ctx, f.Path, src.CSV.Delimiter, src.CSV.Quote)
	if err != nil {
		return false, "", err
	}
	occurrence := x.p.usesOccurrence()
	if !shape.exact || shape.multiline && !src.CSV.Multiline || len(f.Fields) == 1 && shape.quotes ||
		occurrence && (shape.quotes || len(src.CSV.NullValues) > 0) {
		return false, "", nil
	}
	records := shape.records
	if f.HasHeader {
		records--
	}
	if records < 0 {
		return false, "", nil
	}
	in := input{fields: map[string]string{}, name: f.Name, ingestedAt: x.ingestedAt}
	var columns, all []string
	for i, n := range f.Fields {
		c := "c" + strconv.Itoa(i)
		columns = append(columns, "'"+c+"':'VARCHAR'")
		all = append(all, c)
		in.fields[n] = c
	}
	in.unknown = x.unknownFields(f.Fields, in.fields)
	x.keepUnknown(f.Fields, in.fields)
	quote, escape := "''", "''"
	if shape.quotes {
		quote = quoteText(string(src.CSV.Quote))
		escape = quote
	}
	line := `'\n'`
	if shape.crlf {
		line = `'\r\n'`
	}
	nulls := append([]string{""}, src.CSV.NullValues...)
	in.from = fmt.Sprintf("read_csv(%s, columns={%s}, auto_detect=false, header=%t, delim=%s, quote=%s, escape=%s, new_line=%s, nullstr=%s, "+
		"allow_quoted_nulls=false, comment='', strict_mode=true, null_padding=false, ignore_errors=false, max_line_size=%d, parallel=%t)",
		quoteText(f.Path), strings.Join(columns, ", "), f.HasHeader, quoteText(string(src.CSV.Delimiter)), quote, escape, line,
		quoteTexts(nulls), 2*recordBytesMax, !shape.multiline)
	if x.p.plan.Filter != nil || occurrence {
		// Rows will be left out or reordered: the position must be taken before. row_number() follows the file's order.
		in.from = "(SELECT *, row_number() OVER () AS n FROM " + in.from + ")"
		in.position = "n"
		p.positions = true
	}
	if occurrence {
		in.from = "(SELECT *, row_number() OVER (PARTITION BY " + strings.Join(all, ", ") + " ORDER BY n) AS occ FROM " + in.from + ")"
		in.occurrence = "occ"
	}
	if p.r, err = x.p.render(in); err != nil {
		return false, "", err
	}
	err = x.e.with(ctx, func(c *conn) error {
		p.rows, err = c.create(ctx, p.table, p.r.sql)
		return err
	})
	if err != nil {
		if ctx.Err() != nil {
			return false, "", err
		}
		p.positions = false
		return false, "", x.drop(p) // the exact reader will say what is wrong, if anything is
	}
	if x.p.plan.Filter == nil && p.rows != records || p.rows > records {
		p.positions = false
		return false, "", x.drop(p)
	}
	p.read, p.filtered = records, records-p.rows
	if shape.unterminated && records > 0 {
		warning = warnUnterminated
	}
	return true, warning, nil
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
	b := newRecordBatches(len(f.Fields))
	for i, n := range f.Fields {
		in.fields[n] = "c" + strconv.Itoa(i)
	}
	in.unknown = x.unknownFields(f.Fields, in.fields)
	x.keepUnknown(f.Fields, in.fields)
	if x.p.usesOccurrence() {
		b.occurrence = true
		in.occurrence = "occ"
	}
	p.positions = true
	p.structural = roaring64.New()
	nulls := x.p.plan.Source.CSV.NullValues
	var read int64
	occurrences := map[[2]uint64]int64{}
	stream := newBatchStream(ctx, b.arrowSchema(), func(ctx context.Context, send func(arrow.RecordBatch) bool) error {
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
	if err := x.loadArrow(ctx, p, in, stream); err != nil {
		return "", err
	}
	p.read = read
	p.filtered = read - int64(p.structural.GetCardinality()) - p.rows
	return warning, nil
}

// loadArrow makes the part's table from batches, and ends the stream.
func (x *epoch) loadArrow(ctx context.Context, p *part, in input, b *batchStream) error {
	err := x.e.with(ctx, func(c *conn) error {
		in.from = x.e.name("input_")
		var err error
		if p.r, err = x.p.render(in); err != nil {
			return err
		}
		p.rows, err = c.createFrom(ctx, p.table, p.r.sql, b, in.from)
		return err
	})
	if streamErr := b.stop(); streamErr != nil {
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
