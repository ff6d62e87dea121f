package delta

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/google/uuid"

	"github.com/cauce-data/cauce/objstore"
)

// PureGo is the Engine that needs nothing but Go: Parquet through arrow-go, keys in a hash table. It is what the zero
// value of Options.Engine stands for.
func PureGo() Engine {
	g := goEngine{newID: uuid.NewString}
	return Engine{Locator: g, Reader: g, FileWriter: g}
}

// goEngine implements the three parts of an Engine.
type goEngine struct{ newID func() string }

// engine is the table's engine, with the pure-Go implementation of what the user left out.
func (t *Table) engine() Engine {
	e := t.opts.Engine
	g := goEngine{newID: t.opts.NewID}
	if e.Locator == nil {
		e.Locator = g
	}
	if e.Reader == nil {
		e.Reader = g
	}
	if e.FileWriter == nil {
		e.FileWriter = g
	}
	return e
}

// readRows bounds the rows of a batch that the pure-Go reader returns.
const readRows = 64 << 10

// fileIndexColumn and rowColumn are the columns that ReadOptions.WithPosition adds.
const (
	fileIndexColumn = "_file_index"
	rowColumn       = "_row"
)

// storeFile reads an object at any offset, as the Parquet library wants it. Small objects are fetched whole: one
// request costs more than the bytes.
type storeFile struct {
	ctx   context.Context // of the one Read call that this lives in
	store objstore.Store
	key   string
	size  int64
	tail  []byte // the last bytes of the object
	pos   int64
}

const storeFileTail = 1 << 20

func openStoreFile(ctx context.Context, store objstore.Store, key string) (*storeFile, error) {
	f := &storeFile{ctx: ctx, store: store, key: key}
	info, err := store.Stat(ctx, key)
	if err != nil {
		return nil, err
	}
	f.size = info.Size
	n := min(f.size, 64<<10)
	if f.size <= storeFileTail {
		n = f.size
	}
	f.tail, err = store.GetRange(ctx, key, f.size-n, n)
	if err != nil {
		return nil, err
	}
	if int64(len(f.tail)) != n {
		return nil, fmt.Errorf("%s: %w", key, io.ErrUnexpectedEOF)
	}
	return f, nil
}

func (f *storeFile) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off > f.size {
		return 0, fmt.Errorf("%s: offset %d outside of %d bytes", f.key, off, f.size)
	}
	want := p
	if rest := f.size - off; int64(len(want)) > rest {
		want = want[:rest]
	}
	if at := off - (f.size - int64(len(f.tail))); at >= 0 {
		copy(want, f.tail[at:])
	} else {
		b, err := f.store.GetRange(f.ctx, f.key, off, int64(len(want)))
		if err != nil {
			return 0, err
		}
		if n := copy(want, b); n < len(want) {
			return n, io.ErrUnexpectedEOF
		}
	}
	if len(want) < len(p) {
		return len(want), io.EOF
	}
	return len(p), nil
}

func (f *storeFile) Read(p []byte) (int, error) {
	n, err := f.ReadAt(p, f.pos)
	f.pos += int64(n)
	return n, err
}

func (f *storeFile) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += f.pos
	case io.SeekEnd:
		offset += f.size
	}
	if offset < 0 {
		return 0, fmt.Errorf("%s: seek to %d", f.key, offset)
	}
	f.pos = offset
	return offset, nil
}

// Read implements Reader.
func (g goEngine) Read(ctx context.Context, table TableInfo, files []File, opts ReadOptions) iter.Seq2[arrow.RecordBatch, error] {
	return func(yield func(arrow.RecordBatch, error) bool) {
		plan, err := planRead(table, opts)
		if err != nil {
			yield(nil, err)
			return
		}
		for i := range files {
			var only *roaring64.Bitmap
			if opts.Rows != nil {
				if i >= len(opts.Rows) {
					yield(nil, fmt.Errorf("BUG: %d row sets for %d files", len(opts.Rows), len(files)))
					return
				}
				if only = opts.Rows[i]; only != nil && only.IsEmpty() {
					continue
				}
			}
			stopped, err := plan.readFile(ctx, files[i], i, only, yield)
			if err != nil {
				yield(nil, fmt.Errorf("%s: %w", files[i].Key, err))
				return
			}
			if stopped {
				return
			}
		}
	}
}

// readPlan is a projection of a table.
type readPlan struct {
	table   TableInfo
	mapping columnMapping
	fields  []Field
	part    []bool // the field is a partition column
	out     *arrow.Schema
	pos     bool
}

func planRead(table TableInfo, opts ReadOptions) (*readPlan, error) {
	p := &readPlan{table: table, mapping: mappingOf(table.Config), pos: opts.WithPosition}
	cols := opts.Columns
	if cols == nil {
		cols = table.Schema.Names()
	}
	var fields []arrow.Field
	for _, c := range cols {
		f, ok := table.Schema.Field(c)
		if !ok {
			return nil, fmt.Errorf("%w: %q", ErrNoSuchColumn, c)
		}
		p.fields = append(p.fields, f)
		part := false
		for _, n := range table.PartitionBy {
			part = part || n == f.Name
		}
		p.part = append(p.part, part)
		fields = append(fields, arrow.Field{Name: f.Name, Type: ArrowType(f.Type), Nullable: f.Nullable})
	}
	if p.pos {
		fields = append(fields, arrow.Field{Name: fileIndexColumn, Type: arrow.PrimitiveTypes.Int32},
			arrow.Field{Name: rowColumn, Type: arrow.PrimitiveTypes.Int64})
	}
	p.out = arrow.NewSchema(fields, nil)
	return p, nil
}

// openParquet opens a data file; the caller closes the reader.
func openParquet(ctx context.Context, store objstore.Store, key string) (pf *file.Reader, err error) {
	src, err := openStoreFile(ctx, store, key)
	if err != nil {
		return nil, err
	}
	defer func() {
		// The library checks much but not all of what a damaged footer may claim.
		if r := recover(); r != nil {
			pf, err = nil, fmt.Errorf("%w: damaged Parquet file: %v", ErrCorruptFile, r)
		}
	}()
	pf, err = file.NewParquetReader(src)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorruptFile, err)
	}
	return pf, nil
}

// ErrCorruptFile says that a data file is no readable Parquet file.
var ErrCorruptFile = errors.New("unreadable data file")

func (p *readPlan) readFile(ctx context.Context, f File, index int, only *roaring64.Bitmap, yield func(arrow.RecordBatch, error) bool) (stopped bool, err error) {
	pf, err := openParquet(ctx, p.table.Store, f.Key)
	if err != nil {
		return false, err
	}
	defer pf.Close()
	// A damaged file must not end the process, but a panic of the consumer is not ours to turn into an error.
	consuming := false
	emit := func(b arrow.RecordBatch, err error) bool {
		consuming = true
		ok := yield(b, err)
		consuming = false
		return ok
	}
	defer func() {
		if consuming {
			return
		}
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", ErrCorruptFile, r)
		}
	}()
	// Not in parallel: the library panics over some damaged pages, and in a goroutine of its own nobody could take that back.
	fr, err := pqarrow.NewFileReader(pf, pqarrow.ArrowReadProperties{BatchSize: readRows}, memory.DefaultAllocator)
	if err != nil {
		return false, err
	}
	calendar := LegacyCalendar(pf.MetaData().KeyValueMetadata())
	manifest := fr.Manifest
	have := make([]arrow.Field, len(manifest.Fields))
	for i := range manifest.Fields {
		have[i] = *manifest.Fields[i].Field
	}
	var leaves []int                    // read through the library's Arrow reader
	from := make([]int, len(p.fields))  // top-level field in the file, -1: none
	int96 := make([]int, len(p.fields)) // leaf that we decode ourselves, -1: none
	for i, fd := range p.fields {
		from[i], int96[i] = -1, -1
		if p.part[i] || fd.Type == Void {
			continue
		}
		j := p.mapping.find(have, fd)
		from[i] = j
		if j < 0 {
			continue
		}
		if sf := &manifest.Fields[j]; sf.IsLeaf() && pf.MetaData().Schema.Column(sf.ColIndex).PhysicalType() == parquet.Types.Int96 {
			int96[i] = sf.ColIndex
			continue
		}
		leaves = appendLeaves(leaves, &manifest.Fields[j])
	}
	var start int64
	for rg := range pf.NumRowGroups() {
		n := pf.MetaData().RowGroup(rg).NumRows()
		if only == nil || intersects(only, start, n) {
			stopped, err := p.readGroup(ctx, fr, rg, start, n, f, index, only, calendar, have, leaves, from, int96, emit)
			if stopped || err != nil {
				return stopped, err
			}
		}
		start += n
	}
	return false, nil
}

func appendLeaves(leaves []int, f *pqarrow.SchemaField) []int {
	if f.IsLeaf() {
		return append(leaves, f.ColIndex)
	}
	for i := range f.Children {
		leaves = appendLeaves(leaves, &f.Children[i])
	}
	return leaves
}

func intersects(set *roaring64.Bitmap, start, n int64) bool {
	it := set.Iterator()
	it.AdvanceIfNeeded(uint64(start))
	return it.HasNext() && it.PeekNext() < uint64(start+n)
}

func (p *readPlan) readGroup(ctx context.Context, fr *pqarrow.FileReader, rg int, start, n int64, f File, index int, only *roaring64.Bitmap,
	calendar Calendar, have []arrow.Field, leaves, from, int96 []int, yield func(arrow.RecordBatch, error) bool,
) (stopped bool, err error) {
	old := make([]arrow.Array, len(p.fields)) // whole INT96 columns of the row group
	defer func() {
		for _, a := range old {
			if a != nil {
				a.Release()
			}
		}
	}()
	for i, col := range int96 {
		if col >= 0 {
			a, err := readInt96(fr.ParquetReader().RowGroup(rg), col, n)
			if err != nil {
				return false, fmt.Errorf("column %s: %w", p.fields[i].Name, err)
			}
			old[i] = a
		}
	}
	emit := func(rec arrow.RecordBatch, at, rows int64) (bool, error) {
		live := liveRows(f.Deleted, only, start+at, rows)
		if live != nil && len(live) == 0 {
			return false, nil
		}
		out, err := p.assemble(ctx, rec, at, rows, start+at, live, f, index, calendar, have, from, old)
		if err != nil {
			return false, err
		}
		ok := yield(out, nil)
		out.Release()
		return !ok, nil
	}
	if len(leaves) == 0 {
		for at := int64(0); at < n; at += readRows {
			if stopped, err := emit(nil, at, min(readRows, n-at)); stopped || err != nil {
				return stopped, err
			}
		}
		return false, nil
	}
	rr, err := fr.GetRecordReader(ctx, leaves, []int{rg})
	if err != nil {
		return false, err
	}
	defer rr.Release()
	var at int64
	for rr.Next() {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		rec := rr.RecordBatch()
		rows := rec.NumRows()
		stopped, err := emit(rec, at, rows)
		if stopped || err != nil {
			return stopped, err
		}
		at += rows
	}
	if err := rr.Err(); err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("%w: %w", ErrCorruptFile, err)
	}
	if at != n {
		return false, fmt.Errorf("%w: row group %d has %d of %d rows", ErrCorruptFile, rg, at, n)
	}
	return false, nil
}

// liveRows lists the rows of [start, start+n), relative to start, that are wanted and not deleted; nil means all.
func liveRows(deleted, only *roaring64.Bitmap, start, n int64) []int64 {
	if only == nil && (deleted == nil || !intersects(deleted, start, n)) {
		return nil
	}
	out := make([]int64, 0, n)
	if only != nil {
		for _, r := range within(only, start, n) {
			if deleted == nil || !deleted.Contains(uint64(start+r)) {
				out = append(out, r)
			}
		}
		return out
	}
	gone := within(deleted, start, n)
	for r := int64(0); r < n; r++ {
		if len(gone) > 0 && gone[0] == r {
			gone = gone[1:]
			continue
		}
		out = append(out, r)
	}
	return out
}

func (p *readPlan) assemble(ctx context.Context, rec arrow.RecordBatch, at, rows, first int64, live []int64, f File, index int,
	calendar Calendar, have []arrow.Field, from []int, old []arrow.Array,
) (arrow.RecordBatch, error) {
	n := rows
	if live != nil {
		n = int64(len(live))
	}
	cols := make([]arrow.Array, 0, len(p.fields)+2)
	defer func() {
		for _, c := range cols {
			c.Release()
		}
	}()
	for i, fd := range p.fields {
		c, err := p.column(ctx, i, fd, rec, at, rows, n, live, f, calendar, have, from, old)
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", fd.Name, err)
		}
		cols = append(cols, c)
	}
	if p.pos {
		fb := array.NewInt32Builder(memory.DefaultAllocator)
		defer fb.Release()
		rb := array.NewInt64Builder(memory.DefaultAllocator)
		defer rb.Release()
		fb.Reserve(int(n))
		rb.Reserve(int(n))
		for k := range n {
			fb.UnsafeAppend(int32(index))
			if live != nil {
				rb.UnsafeAppend(first + live[k])
			} else {
				rb.UnsafeAppend(first + k)
			}
		}
		cols = append(cols, fb.NewArray(), rb.NewArray())
	}
	return array.NewRecordBatch(p.out, cols, n), nil
}

func (p *readPlan) column(ctx context.Context, i int, fd Field, rec arrow.RecordBatch, at, rows, n int64, live []int64, f File,
	calendar Calendar, have []arrow.Field, from []int, old []arrow.Array,
) (arrow.Array, error) {
	switch {
	case p.part[i]:
		v, err := ParsePartitionValue(fd.Type, f.Add.PartitionValues[fd.PhysicalName()])
		if err != nil {
			return nil, err
		}
		return constant(fd.Type, v, int(n))
	case from[i] < 0:
		return nullColumn(fd.Type, int(n)), nil
	}
	var raw arrow.Array
	if old[i] != nil {
		raw = array.NewSlice(old[i], at, at+rows)
		defer raw.Release()
	} else {
		want := have[from[i]].Name
		for j, rf := range rec.Schema().Fields() {
			if rf.Name == want {
				raw = rec.Column(j)
				break
			}
		}
		if raw == nil {
			return nil, fmt.Errorf("BUG: column %q was not read", want)
		}
	}
	conv, err := p.mapping.toType(ctx, raw, fd.Type)
	if err != nil {
		return nil, err
	}
	if calendar.Dates || calendar.INT96 {
		conv = calendar.rebase(conv, old[i] != nil)
	}
	if live == nil {
		return conv, nil
	}
	defer conv.Release()
	return takeArray(ctx, conv, live)
}

// readInt96 reads a column of Impala's old timestamps as µs. The library's own way goes through nanoseconds, which
// end in 2262.
func readInt96(rg *file.RowGroupReader, col int, n int64) (arrow.Array, error) {
	ccr, err := rg.Column(col)
	if err != nil {
		return nil, err
	}
	r, ok := ccr.(*file.Int96ColumnChunkReader)
	if !ok {
		return nil, fmt.Errorf("BUG: %T", ccr)
	}
	optional := r.Descriptor().MaxDefinitionLevel() > 0
	b := array.NewTimestampBuilder(memory.DefaultAllocator, &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"})
	defer b.Release()
	b.Reserve(int(n))
	const chunk = 8 << 10
	values := make([]parquet.Int96, chunk)
	defs := make([]int16, chunk)
	for done := int64(0); done < n; {
		total, got, err := r.ReadBatch(min(chunk, n-done), values, defs, nil)
		if err != nil {
			return nil, err
		}
		if total == 0 {
			return nil, io.ErrUnexpectedEOF
		}
		v := 0
		for k := range total {
			if optional && defs[k] == 0 {
				b.UnsafeAppendBoolToBitmap(false)
				continue
			}
			if v >= got {
				return nil, io.ErrUnexpectedEOF
			}
			nanos := binary.LittleEndian.Uint64(values[v][:8])
			days := int64(binary.LittleEndian.Uint32(values[v][8:])) - 2440588 // Julian day of 1970-01-01
			b.UnsafeAppend(arrow.Timestamp(days*86_400_000_000 + int64(nanos/1000)))
			v++
		}
		done += total
	}
	return b.NewArray(), nil
}
