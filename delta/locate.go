package delta

import (
	"context"
	"fmt"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

// keyTable finds the ordinals of source rows by their key.
type keyTable struct {
	first map[string]int64 // key -> first ordinal
	next  map[int64]int64  // further ordinals of the same key, as a chain
}

// buildKeys reads the key columns of rows. A row with a null in its key equals nothing and is left out.
func buildKeys(ctx context.Context, rows Rows, columns []string) (*keyTable, error) {
	t := &keyTable{first: make(map[string]int64, rows.NumRows())}
	var at int64
	var buf []byte
	for b, err := range rows.Read(ctx, columns, nil) {
		if err != nil {
			return nil, err
		}
		for i := range int(b.NumRows()) {
			var ok bool
			if buf, ok = rowKey(buf[:0], b.Columns()[:len(columns)], i); !ok {
				continue
			}
			o := at + int64(i)
			if was, dup := t.first[string(buf)]; dup {
				if t.next == nil {
					t.next = map[int64]int64{}
				}
				t.next[o] = was
			}
			t.first[string(buf)] = o
		}
		at += b.NumRows()
	}
	return t, nil
}

// rowKey appends the bytes of a key; ok is false if a column of it is null.
func rowKey(buf []byte, cols []arrow.Array, i int) (key []byte, ok bool) {
	for _, c := range cols {
		if c.IsNull(i) {
			return buf, false
		}
		buf = appendKey(buf, c, i)
	}
	return buf, true
}

// Locate implements Locator: the source's keys go into a hash table, the key columns of the files pass by it, and only
// then are the wanted columns of the rows that matched read.
func (g goEngine) Locate(ctx context.Context, table TableInfo, files []File, source Rows, keyColumns, want []string) (*Matches, error) {
	out := &Matches{}
	if len(files) == 0 || source.NumRows() == 0 {
		return out, nil
	}
	if len(keyColumns) == 0 {
		return nil, fmt.Errorf("no key columns to look up")
	}
	sub := &Schema{}
	for _, c := range keyColumns {
		f, ok := table.Schema.Field(c)
		if !ok {
			return nil, fmt.Errorf("%w: %q", ErrNoSuchColumn, c)
		}
		f.Nullable = true
		sub.Fields = append(sub.Fields, f)
	}
	keys, err := columnsOf(source, keyColumns)
	if err != nil {
		return nil, err
	}
	fitted, _, err := fit(keys, sub, growth{})
	if err != nil {
		return nil, err
	}
	known, err := buildKeys(ctx, fitted, keyColumns)
	if err != nil {
		return nil, err
	}
	if len(known.first) == 0 {
		return out, nil
	}
	hits := make([]*roaring64.Bitmap, len(files))
	for i := range hits {
		hits[i] = roaring64.New()
	}
	var buf []byte
	for b, err := range g.Read(ctx, table, files, ReadOptions{Columns: keyColumns, WithPosition: true}) {
		if err != nil {
			return nil, err
		}
		cols := b.Columns()
		n := len(cols)
		fileAt, rowAt := cols[n-2].(*array.Int32), cols[n-1].(*array.Int64)
		for i := range int(b.NumRows()) {
			var ok bool
			if buf, ok = rowKey(buf[:0], cols[:n-2], i); !ok {
				continue
			}
			o, ok := known.first[string(buf)]
			if !ok {
				continue
			}
			m := Match{Source: o, File: int(fileAt.Value(i)), Row: rowAt.Value(i)}
			hits[m.File].Add(uint64(m.Row))
			out.Match = append(out.Match, m)
			for {
				if o, ok = known.next[o]; !ok {
					break
				}
				m.Source = o
				out.Match = append(out.Match, m)
			}
		}
	}
	if len(want) == 0 || len(out.Match) == 0 {
		return out, nil
	}
	stored, index, err := readAt(ctx, g, table, files, hits, want)
	if err != nil {
		return nil, err
	}
	defer stored.Release()
	idx := make([]int64, len(out.Match))
	for i, m := range out.Match {
		j, ok := index.at(m.File, m.Row)
		if !ok {
			return nil, fmt.Errorf("BUG: row %d of %s was found and is gone", m.Row, files[m.File].Key)
		}
		idx[i] = j
	}
	if out.Stored, err = takeBatch(ctx, stored, idx); err != nil {
		return nil, err
	}
	return out, nil
}

// columnsOf is a view of some columns of rows.
func columnsOf(rows Rows, columns []string) (Rows, error) {
	_, schema, err := projection(rows.Schema(), columns)
	if err != nil {
		return nil, err
	}
	return &someColumns{Rows: rows, schema: schema}, nil
}

// positions says where in a batch the rows of readAt are.
type positions struct {
	hits   []*roaring64.Bitmap
	starts []int64
}

// at finds a row that was asked for.
func (p *positions) at(file int, row int64) (int64, bool) {
	if !p.hits[file].Contains(uint64(row)) {
		return 0, false
	}
	return p.starts[file] + int64(p.hits[file].Rank(uint64(row))) - 1, true
}

// readAt reads columns of the given live rows into one batch, in order of file and row. The caller releases it.
func readAt(ctx context.Context, r Reader, table TableInfo, files []File, hits []*roaring64.Bitmap, columns []string) (arrow.RecordBatch, *positions, error) {
	p := &positions{hits: hits, starts: make([]int64, len(files))}
	var n int64
	for i, h := range hits {
		p.starts[i] = n
		n += int64(h.GetCardinality())
	}
	fields := make([]arrow.Field, len(columns))
	for i, c := range columns {
		f, ok := table.Schema.Field(c)
		if !ok {
			return nil, nil, fmt.Errorf("%w: %q", ErrNoSuchColumn, c)
		}
		fields[i] = arrow.Field{Name: f.Name, Type: ArrowType(f.Type), Nullable: f.Nullable}
	}
	b, err := collect(arrow.NewSchema(fields, nil), r.Read(ctx, table, files, ReadOptions{Columns: columns, Rows: hits}))
	if err != nil {
		return nil, nil, err
	}
	if b.NumRows() != n {
		b.Release()
		return nil, nil, fmt.Errorf("BUG: the reader gave %d of %d rows", b.NumRows(), n)
	}
	return b, p, nil
}

// AppendKey appends the bytes that stand for the key of a row to buf: two keys of the same column types are equal exactly
// if their bytes are. ok is false if a column is null: such a key equals nothing. Locators that keep keys use it.
func AppendKey(buf []byte, key []arrow.Array, row int) (_ []byte, ok bool) {
	return rowKey(buf, key, row)
}
