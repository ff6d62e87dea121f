package duckdb

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/cauce-data/cauce/delta"
)

// locator implements delta.Locator with a join over the key columns of the files. DuckDB hands the bounds of the keys
// down to the scan, which skips row groups by their statistics.
type locator struct{ e *Engine }

// Locate implements delta.Locator: the keys first, and then only of the rows that matched the wanted columns.
func (l locator) Locate(ctx context.Context, table delta.TableInfo, files []delta.File, source delta.Rows, keyColumns, want []string) (_ *delta.Matches, err error) {
	out := &delta.Matches{}
	if len(files) == 0 || source.NumRows() == 0 {
		return out, nil
	}
	if variantsAmong(table, append([]string{}, want...)) {
		return delta.PureGo().Locator.Locate(ctx, table, files, source, keyColumns, want)
	}
	if len(keyColumns) == 0 {
		return nil, errors.New("no key columns to look up")
	}
	rel, done, err := l.e.load(ctx, source, keyColumns)
	if err != nil {
		return nil, err
	}
	defer done()
	c, err := l.e.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.release()) }()
	// Rows that vectors mark are sorted out below: few match, and the scan need not look at each.
	s, err := l.e.scan(ctx, c, table, files, scanOptions{Columns: keyColumns, Position: true, Deleted: true})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close(ctx)) }()
	var on []string
	for _, k := range keyColumns {
		f, ok := table.Schema.Field(k)
		if !ok {
			return nil, fmt.Errorf("%w: %q", delta.ErrNoSuchColumn, k)
		}
		on = append(on, fmt.Sprintf("p.%s = k.%s", quoteName(f.Name), quoteName(rel.columnName(k))))
	}
	query := fmt.Sprintf("SELECT k.%s::BIGINT, p.%s, p.%s FROM (%s) p JOIN (%s) k ON %s", quoteName(colGlobal), fileIndexColumn, rowColumn,
		s.SQL, rel.query(append(append([]string(nil), keyColumns...), colGlobal), true), strings.Join(on, " AND "))
	for b, err := range c.batches(ctx, query, nil) {
		if err != nil {
			return nil, fmt.Errorf("look up keys: %w", err)
		}
		global, file, row := b.Column(0).(*array.Int64), b.Column(1).(*array.Int32), b.Column(2).(*array.Int64)
		for i := range int(b.NumRows()) {
			m := delta.Match{Source: rel.ordinal(global.Value(i)), File: int(file.Value(i)), Row: row.Value(i)}
			if d := files[m.File].Deleted; d != nil && d.Contains(uint64(m.Row)) {
				continue
			}
			out.Match = append(out.Match, m)
		}
	}
	if len(want) == 0 || len(out.Match) == 0 {
		return out, nil
	}
	out.Stored, err = l.stored(ctx, c, table, files, out.Match, want)
	return out, err
}

// stored reads columns of the matched rows, one row per match and in the same order.
func (l locator) stored(ctx context.Context, c *conn, table delta.TableInfo, files []delta.File, matches []delta.Match, want []string) (_ arrow.RecordBatch, err error) {
	at := make([]position, len(matches))
	for i, m := range matches {
		at[i] = position{file: m.File, row: m.Row}
	}
	schema, err := wantedSchema(table, want)
	if err != nil {
		return nil, err
	}
	var batches []arrow.RecordBatch
	defer func() {
		for _, b := range batches {
			b.Release()
		}
	}()
	err = l.e.readPositions(ctx, c, table, files, at, want, "", func(b arrow.RecordBatch) bool {
		b.Retain()
		batches = append(batches, b)
		return true
	}, schema)
	if err != nil {
		return nil, err
	}
	b, err := concatenate(schema, batches)
	if err != nil {
		return nil, err
	}
	if int(b.NumRows()) != len(matches) {
		b.Release()
		return nil, fmt.Errorf("BUG: %d rows were read for %d matches", b.NumRows(), len(matches))
	}
	return b, nil
}

// position is a row of a file, by its index among the files given.
type position struct {
	file int
	row  int64
}

// readPositions reads columns of the rows at the given positions, in the order given; extra is SQL for more columns.
func (e *Engine) readPositions(ctx context.Context, c *conn, table delta.TableInfo, files []delta.File, at []position, columns []string, extra string, yield func(arrow.RecordBatch) bool, schema *arrow.Schema) (err error) {
	// Only the files that are hit are opened.
	index := map[int]int{}
	var hit []delta.File
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema([]arrow.Field{
		{Name: "n", Type: arrow.PrimitiveTypes.Int64}, {Name: "f", Type: arrow.PrimitiveTypes.Int32}, {Name: "r", Type: arrow.PrimitiveTypes.Int64}}, nil))
	defer b.Release()
	for i, p := range at {
		k, ok := index[p.file]
		if !ok {
			k = len(hit)
			index[p.file] = k
			hit = append(hit, files[p.file])
		}
		b.Field(0).(*array.Int64Builder).Append(int64(i))
		b.Field(1).(*array.Int32Builder).Append(int32(k))
		b.Field(2).(*array.Int64Builder).Append(p.row)
	}
	s, err := e.scan(ctx, c, table, hit, scanOptions{Columns: columns, Position: true, Deleted: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close(ctx)) }()
	name, err := s.table(ctx, e, "cauce_at_", b, "n, f, r")
	if err != nil {
		return err
	}
	var sel []string
	for _, n := range columns {
		f, _ := table.Schema.Field(n)
		sel = append(sel, "p."+quoteName(f.Name))
	}
	if extra != "" {
		sel = append(sel, extra)
	}
	if len(sel) == 0 {
		sel = []string{"a.n"}
	}
	query := fmt.Sprintf("SELECT %s FROM (%s) p JOIN %s a ON p.%s = a.r AND p.%s = a.f ORDER BY a.n",
		strings.Join(sel, ", "), s.SQL, quoteName(name), rowColumn, fileIndexColumn)
	for b, err := range c.batches(ctx, query, schema) {
		if err != nil {
			return fmt.Errorf("read stored rows: %w", err)
		}
		if !yield(b) {
			return nil
		}
	}
	return nil
}

// wantedSchema is the Arrow schema of some columns of a table.
func wantedSchema(table delta.TableInfo, want []string) (*arrow.Schema, error) {
	fields := make([]arrow.Field, len(want))
	for i, n := range want {
		f, ok := table.Schema.Field(n)
		if !ok {
			return nil, fmt.Errorf("%w: %q", delta.ErrNoSuchColumn, n)
		}
		fields[i] = arrow.Field{Name: f.Name, Type: delta.ArrowType(f.Type), Nullable: f.Nullable}
	}
	return arrow.NewSchema(fields, nil), nil
}

// concatenate makes one batch of several.
func concatenate(schema *arrow.Schema, batches []arrow.RecordBatch) (arrow.RecordBatch, error) {
	if len(batches) == 1 {
		batches[0].Retain()
		return batches[0], nil
	}
	cols := make([]arrow.Array, schema.NumFields())
	defer func() {
		for _, c := range cols {
			if c != nil {
				c.Release()
			}
		}
	}()
	var rows int64
	for _, b := range batches {
		rows += b.NumRows()
	}
	for i := range cols {
		if len(batches) == 0 {
			cols[i] = array.MakeArrayOfNull(memory.DefaultAllocator, schema.Field(i).Type, 0)
			continue
		}
		var parts []arrow.Array
		for _, b := range batches {
			parts = append(parts, b.Column(i))
		}
		var err error
		if cols[i], err = array.Concatenate(parts, memory.DefaultAllocator); err != nil {
			return nil, err
		}
	}
	if len(batches) > 0 {
		schema = batches[0].Schema()
	}
	return array.NewRecordBatch(schema, cols, rows), nil
}
