package delta

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"

	"github.com/cauce-data/cauce/objstore"
)

// Bounds of the pure-Go writer.
const (
	writeFileBytes   = 128 << 20 // default of WriteRequest.FileBytesTarget
	writeGroupRows   = 128 << 10 // rows of a Parquet row group
	writeOpenBytes   = 256 << 20 // all unfinished files together
	writeOpenFiles   = 256       // unfinished files at a time
	writeChunkRows   = 32 << 10  // rows between two looks at the size
	openFileOverhead = 256 << 10 // what an unfinished file costs before its first byte
)

// Write implements FileWriter.
func (g goEngine) Write(ctx context.Context, table TableInfo, req WriteRequest) (written []WrittenFile, err error) {
	w, err := g.newWriter(table, req)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			w.undo(ctx)
			written = nil
		}
	}()
	var ordinals *roaring64.Bitmap
	if req.Skip != nil && !req.Skip.IsEmpty() {
		ordinals = roaring64.New()
		ordinals.AddRange(0, uint64(req.Rows.NumRows()))
		ordinals.AndNot(req.Skip)
		if ordinals.IsEmpty() {
			return nil, nil
		}
	}
	for b, err := range req.Rows.Read(ctx, w.source, ordinals) {
		if err != nil {
			return nil, err
		}
		for at := int64(0); at < b.NumRows(); at += writeChunkRows {
			s := b.NewSlice(at, min(at+writeChunkRows, b.NumRows()))
			err := w.add(ctx, s)
			s.Release()
			if err != nil {
				return nil, err
			}
		}
	}
	if err := w.finish(ctx); err != nil {
		return nil, err
	}
	return w.done, nil
}

// tableWriter spreads rows over partitions and files.
type tableWriter struct {
	table  TableInfo
	newID  func() string
	codec  compress.Compression
	ext    string
	target int64
	sortBy []int // indices in the file's columns

	source []string      // columns read from the rows
	part   []int         // index of each partition column in source, in PartitionBy's order; -1: the rows lack it
	fields []Field       // columns of the files
	from   []int         // index in source of each file column, -1: null
	schema *arrow.Schema // of the rows, with the table's names
	inFile *arrow.Schema // of the files, with physical names and field ids

	open map[string]*partFile
	keys []byte
	done []WrittenFile
	n    int // files begun
}

// partFile is an unfinished file.
type partFile struct {
	values  map[string]*string
	path    string // below the table's root
	buf     bytes.Buffer
	w       *pqarrow.FileWriter
	stats   *fileStats
	pending []arrow.RecordBatch // rows held back for sorting
	held    int64               // their bytes
}

func (g goEngine) newWriter(table TableInfo, req WriteRequest) (*tableWriter, error) {
	w := &tableWriter{table: table, newID: g.newID, target: req.FileBytesTarget, open: map[string]*partFile{}}
	if w.target <= 0 {
		w.target = writeFileBytes
	}
	switch strings.ToLower(req.Compression) {
	case "", "snappy":
		w.codec, w.ext = compress.Codecs.Snappy, ".c000.snappy.parquet"
	case "zstd":
		w.codec, w.ext = compress.Codecs.Zstd, ".c000.zstd.parquet"
	default:
		return nil, &UnsupportedError{What: "compression", Names: []string{req.Compression}}
	}
	have := req.Rows.Schema()
	index := map[string]int{} // table column -> place in source
	for _, f := range table.Schema.Fields {
		if j := fieldIndex(have, f.Name); j >= 0 {
			index[f.Name] = len(w.source)
			w.source = append(w.source, have.Field(j).Name)
		}
	}
	at := func(name string) int {
		if i, ok := index[name]; ok {
			return i
		}
		return -1
	}
	isPart := map[string]bool{}
	for _, n := range table.PartitionBy {
		isPart[n] = true
		w.part = append(w.part, at(n))
	}
	var arrowFields []arrow.Field
	for _, f := range table.Schema.Fields {
		if isPart[f.Name] || f.Type == Void {
			continue
		}
		w.fields = append(w.fields, f)
		w.from = append(w.from, at(f.Name))
		arrowFields = append(arrowFields, arrow.Field{Name: f.Name, Type: ArrowType(f.Type), Nullable: f.Nullable})
	}
	w.schema = arrow.NewSchema(arrowFields, nil)
	w.inFile = arrow.NewSchema(physicalArrow(w.fields), nil)
	for _, c := range req.SortBy {
		i := fieldIndex(w.schema, c)
		if i < 0 {
			if _, ok := table.Schema.Field(c); ok {
				continue // a partition column: all rows of a file are alike
			}
			return nil, fmt.Errorf("%w: %q", ErrNoSuchColumn, c)
		}
		w.sortBy = append(w.sortBy, i)
	}
	return w, nil
}

func (w *tableWriter) add(ctx context.Context, b arrow.RecordBatch) error {
	out, err := w.shape(ctx, b)
	if err != nil {
		return err
	}
	defer out.Release()
	if len(w.part) == 0 {
		return w.put(ctx, "", nil, out)
	}
	// Group the rows by partition, in the order in which partitions first occur.
	groups := map[string]int{}
	var rows [][]int64
	for i := range int(b.NumRows()) {
		w.keys = w.keys[:0]
		for _, j := range w.part {
			if j < 0 || b.Column(j).IsNull(i) {
				w.keys = append(w.keys, 0)
				continue
			}
			w.keys = appendKey(append(w.keys, 1), b.Column(j), i)
		}
		g, ok := groups[string(w.keys)]
		if !ok {
			g = len(rows)
			groups[string(w.keys)] = g
			rows = append(rows, nil)
		}
		rows[g] = append(rows[g], int64(i))
	}
	keys := make([]string, len(rows))
	for k, g := range groups {
		keys[g] = k
	}
	for g, idx := range rows {
		values := func() (map[string]*string, error) {
			m := make(map[string]*string, len(w.part))
			for k, j := range w.part {
				f, _ := w.table.Schema.Field(w.table.PartitionBy[k])
				var v any
				if j >= 0 {
					var ok bool
					if v, ok = goValue(b.Column(j), int(idx[0])); !ok {
						return nil, &UnsupportedError{What: "type of a partition column", Names: []string{f.Type.String()}}
					}
				}
				s, err := FormatPartitionValue(f.Type, v)
				if err != nil {
					return nil, fmt.Errorf("partition column %s: %w", f.Name, err)
				}
				m[f.PhysicalName()] = s
			}
			return m, nil
		}
		sub, err := takeBatch(ctx, out, idx)
		if err != nil {
			return err
		}
		err = w.put(ctx, keys[g], values, sub)
		sub.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

// shape makes the columns of a file of the columns of the rows.
func (w *tableWriter) shape(ctx context.Context, b arrow.RecordBatch) (arrow.RecordBatch, error) {
	cols := make([]arrow.Array, len(w.fields))
	defer func() {
		for _, c := range cols {
			if c != nil {
				c.Release()
			}
		}
	}()
	for i, f := range w.fields {
		if w.from[i] < 0 {
			cols[i] = nullColumn(f.Type, int(b.NumRows()))
		} else {
			c, err := mapNone.toType(ctx, b.Column(w.from[i]), f.Type)
			if err != nil {
				return nil, fmt.Errorf("column %q: %w", f.Name, err)
			}
			cols[i] = c
		}
		if !f.Nullable && cols[i].NullN() > 0 {
			for r := range cols[i].Len() {
				if cols[i].IsNull(r) {
					return nil, &NotNullError{Column: f.Name, Row: int64(r)}
				}
			}
		}
	}
	return array.NewRecordBatch(w.schema, cols, b.NumRows()), nil
}

// properties are those of a file. Columns of floating point numbers have no statistics in it: by the Parquet format bounds
// leave NaN out, and DuckDB takes bounds for all values, so that NaN would pass a filter that it must fail. Files are left
// out by the bounds in the log, which know NaN.
func (w *tableWriter) properties() (*parquet.WriterProperties, error) {
	options := []parquet.WriterProperty{
		parquet.WithCompression(w.codec), parquet.WithMaxRowGroupLength(writeGroupRows),
		parquet.WithStoreDecimalAsInteger(true), parquet.WithCreatedBy("cauce"),
	}
	plain := parquet.NewWriterProperties(options...)
	sc, err := pqarrow.ToParquet(w.inFile, plain, pqarrow.NewArrowWriterProperties())
	if err != nil {
		return nil, err
	}
	for i := range sc.NumColumns() {
		if c := sc.Column(i); c.PhysicalType() == parquet.Types.Float || c.PhysicalType() == parquet.Types.Double {
			options = append(options, parquet.WithStatsFor(c.Path(), false))
		}
	}
	return parquet.NewWriterProperties(options...), nil
}

func (w *tableWriter) put(ctx context.Context, key string, values func() (map[string]*string, error), b arrow.RecordBatch) error {
	f := w.open[key]
	if f == nil {
		for len(w.open) > 0 && (len(w.open) >= writeOpenFiles || w.openBytes() > writeOpenBytes) {
			if err := w.closeLargest(ctx); err != nil {
				return err
			}
		}
		f = &partFile{stats: newFileStats(w.fields, statsLeaves(w.table.Config))}
		if values != nil {
			v, err := values()
			if err != nil {
				return err
			}
			f.values = v
		} else {
			f.values = map[string]*string{}
		}
		name := fmt.Sprintf("part-%05d-%s%s", w.n, w.newID(), w.ext)
		w.n++
		if len(w.part) > 0 {
			name = PartitionFolder(w.table.PhysicalPartitionBy(), f.values) + "/" + name
		}
		f.path = name
		props, err := w.properties()
		if err != nil {
			return err
		}
		pw, err := pqarrow.NewFileWriter(w.inFile, &f.buf, props, pqarrow.NewArrowWriterProperties())
		if err != nil {
			return err
		}
		f.w = pw
		w.open[key] = f
	}
	if len(w.sortBy) > 0 {
		b.Retain()
		f.pending = append(f.pending, b)
		f.held += batchBytes(b)
		// Sorting needs the rows in memory; about a quarter of that is what they take in the file.
		if f.held/4 >= w.target {
			return w.close(ctx, key)
		}
	} else {
		if err := w.write(f, b); err != nil {
			return err
		}
		if f.bytes() >= w.target {
			return w.close(ctx, key)
		}
	}
	if w.openBytes() > writeOpenBytes {
		return w.closeLargest(ctx)
	}
	return nil
}

func (w *tableWriter) write(f *partFile, b arrow.RecordBatch) error {
	f.stats.add(b)
	out := renamed(b, w.inFile)
	defer out.Release()
	return f.w.WriteBuffered(out)
}

func (f *partFile) bytes() int64 {
	return int64(f.buf.Len()) + f.w.RowGroupTotalBytesWritten()
}

func (w *tableWriter) openBytes() int64 {
	n := int64(len(w.open)) * openFileOverhead
	for _, f := range w.open {
		n += f.bytes() + f.held
	}
	return n
}

func batchBytes(b arrow.RecordBatch) int64 {
	var n int64
	for _, c := range b.Columns() {
		switch c := c.(type) {
		case *array.String:
			n += int64(c.Len())*5 + int64(len(c.ValueBytes()))
		case *array.Binary:
			n += int64(c.Len())*5 + int64(len(c.ValueBytes()))
		case *array.Decimal128:
			n += int64(c.Len()) * 16
		default:
			n += int64(c.Len()) * 9
		}
	}
	return n
}

func (w *tableWriter) closeLargest(ctx context.Context) error {
	var best string
	var most int64 = -1
	for k, f := range w.open {
		if n := f.bytes() + f.held; n > most || n == most && k < best {
			best, most = k, n
		}
	}
	return w.close(ctx, best)
}

func (w *tableWriter) close(ctx context.Context, key string) error {
	f := w.open[key]
	delete(w.open, key)
	defer f.release()
	if len(f.pending) > 0 {
		all, err := concatBatches(w.schema, f.pending)
		if err != nil {
			return err
		}
		sorted, err := sortBatch(ctx, all, w.sortBy)
		all.Release()
		if err != nil {
			return err
		}
		defer sorted.Release()
		if err := w.write(f, sorted); err != nil {
			return err
		}
	}
	if err := f.w.Close(); err != nil {
		return err
	}
	full := joinKey(w.table.Path, f.path)
	// Noted before the write: an error leaves it unknown whether the object is there.
	w.done = append(w.done, WrittenFile{
		Path: EncodePath(f.path), Key: full, PartitionValues: f.values, Size: int64(f.buf.Len()),
		NumRecords: f.stats.rows, Stats: f.stats.stats(),
	})
	if err := w.table.Store.Put(ctx, full, bytes.NewReader(f.buf.Bytes()), objstore.PutOptions{}); err != nil {
		return err
	}
	w.done[len(w.done)-1].ModTime = time.Now()
	return nil
}

func (f *partFile) release() {
	for _, b := range f.pending {
		b.Release()
	}
	f.pending, f.held = nil, 0
}

func (w *tableWriter) finish(ctx context.Context) error {
	keys := make([]string, 0, len(w.open))
	for k := range w.open {
		keys = append(keys, k)
	}
	sort.Slice(keys, func(i, j int) bool { return w.open[keys[i]].path < w.open[keys[j]].path })
	for _, k := range keys {
		if err := w.close(ctx, k); err != nil {
			return err
		}
	}
	return nil
}

// undo removes what was written. The context may be the reason for the error, so it is not used to clean up.
func (w *tableWriter) undo(ctx context.Context) {
	for _, f := range w.open {
		f.release()
	}
	deleteFiles(context.WithoutCancel(ctx), w.table.Store, w.done)
}

// deleteFiles removes files that no commit names. What cannot be removed is left to Vacuum.
func deleteFiles(ctx context.Context, store objstore.Store, files []WrittenFile) {
	for _, f := range files {
		if err := store.Delete(ctx, f.Key); err != nil && !errors.Is(err, objstore.ErrNotFound) {
			continue
		}
	}
}

// sortBatch orders the rows of a batch by columns, stable, nulls first.
func sortBatch(ctx context.Context, b arrow.RecordBatch, by []int) (arrow.RecordBatch, error) {
	idx := make([]int64, b.NumRows())
	for i := range idx {
		idx[i] = int64(i)
	}
	cols := make([]arrow.Array, len(by))
	for i, c := range by {
		cols[i] = b.Column(c)
	}
	sort.SliceStable(idx, func(x, y int) bool {
		for _, c := range cols {
			if d := compareValues(c, int(idx[x]), c, int(idx[y])); d != 0 {
				return d < 0
			}
		}
		return false
	})
	return takeBatch(ctx, b, idx)
}
