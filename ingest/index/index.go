// Package index finds stored rows by key without scanning their files again: it remembers, for each immutable data file,
// the hashes of its keys. It implements delta.Locator in front of another one.
//
// What it remembers are hints about files, never about the table: which file lives and which row is marked is told by
// the snapshot, with each call. So there is nothing to invalidate, any number of writers may work on the table, and
// files that are not remembered, or do not fit the memory allowed, are simply scanned.
//
// Beside each key it keeps the value of one more column, the one by which delta.Merge decides first. Most updates are
// decided by it, and then no stored row is read at all.
package index

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/zeebo/xxh3"
	"golang.org/x/sync/errgroup"

	"github.com/cauce-data/cauce/delta"
)

const (
	// bytesMax is the default of Options.BytesMax.
	bytesMax = 1 << 30
	// sourceRowsMax bounds the sources that are looked up here. Many keys are found faster by one join over the files.
	sourceRowsMax = 200_000
	// buildRowsMax bounds the rows whose keys one call reads, so that a table that is new to the process slows down
	// several calls a little instead of one a lot.
	buildRowsMax = 2_000_000
	// smallRows bounds files whose keys are read when they are first met, with the pure-Go reader, which has the least
	// to do before the first row: those that micro-batches leave behind.
	smallRows = 50_000
	// rowBytes is what a remembered row costs: two parts of its hash, its number, and its sequence.
	rowBytes = 8 + 4 + 4 + 8
	// unknownSequence stands for a null, and for the one number that is not told from it.
	unknownSequence = math.MinInt64
)

// Options shape an Index. The zero value works.
type Options struct {
	BytesMax int64        // memory for keys; default 1 GiB
	Log      *slog.Logger // nil: nothing is logged
}

// Index is a delta.Locator that remembers the keys of data files. Safe for concurrent use.
type Index struct {
	inner  delta.Locator
	reader delta.Reader
	small  delta.Reader
	o      Options
	seed   uint64 // nobody outside can make keys whose hashes collide

	mu    sync.Mutex
	files map[fileID]*file
	bytes int64
	clock int64
}

var _ delta.SequenceLocator = (*Index)(nil)

// fileID names a data file and the key columns that were read from it. Data files never change; size and time guard
// against a path that is used again after its file was deleted.
type fileID struct {
	path, columns string
	size, modTime int64
}

// file is what is remembered of one data file, sorted by hash. nil hash: only that it was asked for.
type file struct {
	asked int   // calls that wanted it
	used  int64 // clock of the last one
	gone  bool  // it is in the table no longer
	rows  int64
	hash  []uint64 // first part of the hash of each row's key
	more  []uint32 // second part
	row   []uint32 // physical row number
	// sequence is the value of column in each row, if a column was asked for with the keys.
	sequence []int64
	column   string
	// starts[b] is where hashes with the leading bits b begin; the last element is the number of rows.
	starts []uint32
	shift  uint
}

// New puts an Index before a Locator. The reader must be one that reads the same files.
func New(inner delta.Locator, reader delta.Reader, o Options) *Index {
	if o.BytesMax <= 0 {
		o.BytesMax = bytesMax
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Index{inner: inner, reader: reader, small: delta.PureGo().Reader, o: o, seed: rand.Uint64(), files: map[fileID]*file{}}
}

// HasSequence implements delta.SequenceLocator: columns whose values have 64 bits can be kept.
func (x *Index) HasSequence(table delta.TableInfo, _ []string, column string) bool {
	return sequenceType(table, column) != nil
}

// sequenceType is the type in memory of a column that can be kept, nil if it cannot.
func sequenceType(table delta.TableInfo, column string) arrow.DataType {
	f, ok := table.Schema.Field(column)
	if !ok || slices.ContainsFunc(table.PartitionBy, func(p string) bool { return strings.EqualFold(p, column) }) {
		return nil
	}
	switch f.Type {
	case delta.Long, delta.Timestamp:
		return delta.ArrowType(f.Type)
	}
	return nil
}

// sequenceAt is a value as it is kept.
func sequenceAt(a arrow.Array, i int) int64 {
	if a.IsNull(i) {
		return unknownSequence
	}
	switch a := a.(type) {
	case *array.Int64:
		return a.Value(i)
	case *array.Timestamp:
		if t, ok := a.DataType().(*arrow.TimestampType); ok && t.Unit == arrow.Microsecond {
			return int64(a.Value(i))
		}
	}
	return unknownSequence
}

// Locate implements delta.Locator.
func (x *Index) Locate(ctx context.Context, table delta.TableInfo, files []delta.File, source delta.Rows, keyColumns, want []string) (*delta.Matches, error) {
	if n := source.NumRows(); n == 0 || n > sourceRowsMax || len(files) == 0 || len(keyColumns) == 0 || !sameTypes(table, source, keyColumns) {
		return x.inner.Locate(ctx, table, files, source, keyColumns, want)
	}
	sequence := ""
	if len(want) == 1 && sequenceType(table, want[0]) != nil {
		sequence = want[0]
	}
	known := x.known(ctx, table, files, keyColumns, sequence)
	if len(known) == 0 {
		return x.inner.Locate(ctx, table, files, source, keyColumns, want)
	}
	keys, err := x.keys(ctx, source, keyColumns)
	if err != nil {
		return nil, err
	}
	hits, ok := x.lookUp(keys, files, known, inFiles(table, sequence))
	if !ok {
		return x.inner.Locate(ctx, table, files, source, keyColumns, want)
	}
	out := kept(table, hits, sequence)
	if out == nil {
		out, err = x.stored(ctx, table, files, hits, want)
	}
	if err != nil || len(known) == len(files) {
		return out, err
	}
	defer out.Release()
	var rest []delta.File
	var at []int
	for i, f := range files {
		if known[i] == nil {
			rest, at = append(rest, f), append(at, i)
		}
	}
	scanned, err := x.inner.Locate(ctx, table, rest, source, keyColumns, want)
	if err != nil {
		return nil, err
	}
	for i := range scanned.Match {
		scanned.Match[i].File = at[scanned.Match[i].File]
	}
	return join(out, scanned)
}

// sameTypes tells whether the source's key columns have the very types of the table's, so that equal keys have equal
// bytes.
func sameTypes(table delta.TableInfo, source delta.Rows, keyColumns []string) bool {
	s := source.Schema()
	for _, k := range keyColumns {
		f, ok := table.Schema.Field(k)
		if !ok {
			return false
		}
		same := false
		for _, c := range s.Fields() {
			if strings.EqualFold(c.Name, k) {
				same = arrow.TypeEqual(c.Type, delta.ArrowType(f.Type))
			}
		}
		if !same {
			return false
		}
	}
	return true
}

// inFiles says which columns of files, read in which types, the columns of the table are: other columns may get their
// names (PROTOCOL.md, "Column Mapping"), and they may get wider types ("Type Widening"), whose values have other bytes.
func inFiles(table delta.TableInfo, columns ...string) string {
	var b strings.Builder
	for _, c := range columns {
		if f, ok := table.Schema.Field(c); ok {
			b.WriteString(f.PhysicalName() + "\x00" + f.Type.String() + "\x00")
		}
	}
	return b.String()
}

// known gives, by index, the files whose keys are remembered, after reading those of files that were asked for before,
// and those of new small files beside them. A process that looks up once never pays for remembering.
func (x *Index) known(ctx context.Context, table delta.TableInfo, files []delta.File, keyColumns []string, sequence string) map[int]*file {
	columns := inFiles(table, keyColumns...)
	id := func(f delta.File) fileID {
		return fileID{f.Key, columns, f.Add.Size, f.Add.ModificationTime}
	}
	out := map[int]*file{}
	var build, fresh []int
	x.mu.Lock()
	x.clock++
	for i, f := range files {
		e := x.files[id(f)]
		if e == nil {
			e = &file{}
			x.files[id(f)] = e
		}
		e.asked++
		e.used = x.clock
		switch {
		case e.hash != nil:
			out[i] = e
		case e.asked > 1:
			build = append(build, i)
		case rowsOf(f) <= smallRows:
			fresh = append(fresh, i)
		}
	}
	if len(out)+len(build) > 0 {
		build = append(build, fresh...)
	}
	x.forget()
	free := x.o.BytesMax - x.bytes
	x.mu.Unlock()

	var (
		mu   sync.Mutex // guards read, free and out
		read int64
		g    errgroup.Group
	)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, i := range build {
		g.Go(func() error {
			mu.Lock()
			enough := read >= buildRowsMax || free <= 0
			mu.Unlock()
			if enough {
				return nil
			}
			e, err := x.build(ctx, table, files[i], keyColumns, sequence)
			if err != nil {
				// Who scans it will see the error, with all that is to be said about it.
				if ctx.Err() == nil {
					x.o.Log.Warn("keys of a data file cannot be read into the index", "file", files[i].Key, "error", err)
				}
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			read += max(e.rows, 1)
			if free -= e.size(); free < 0 {
				return nil
			}
			x.mu.Lock()
			if was := x.files[id(files[i])]; was == nil || was.hash == nil {
				e.asked, e.used, e.gone = 2, x.clock, was != nil && was.gone
				x.files[id(files[i])] = e
				x.bytes += e.size()
			}
			x.mu.Unlock()
			out[i] = e
			return nil
		})
	}
	_ = g.Wait() // what could not be read is scanned
	return out
}

// rowsOf is the number of rows of a file by its statistics, or very many.
func rowsOf(f delta.File) int64 {
	if st, err := delta.ParseStats(f.Add.Stats); err == nil && st != nil && st.NumRecords >= 0 && f.Add.Stats != "" {
		return st.NumRecords
	}
	return math.MaxInt64
}

func (f *file) size() int64 {
	return int64(len(f.hash))*rowBytes + int64(len(f.starts))*4
}

// forget drops files that nobody has asked for lately: compaction has removed them, or another table is at work. The
// caller holds the lock.
func (x *Index) forget() {
	const (
		idle     = 64 // calls
		idleGone = 2  // those that began before compaction may still ask
	)
	for id, f := range x.files {
		if unasked := x.clock - f.used; unasked > idle || f.gone && unasked > idleGone {
			x.bytes -= f.size()
			delete(x.files, id)
		}
	}
}

// Gone says that files, by the keys of their objects, have left their table, so that their keys need not be kept for calls
// to come. That is a hint like all others: they may come back.
func (x *Index) Gone(keys []string) {
	gone := make(map[string]bool, len(keys))
	for _, k := range keys {
		gone[k] = true
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for id, f := range x.files {
		f.gone = f.gone || gone[id.path]
	}
}

// Size is the memory that remembered keys take, in bytes, and the number of files.
func (x *Index) Size() (bytes int64, files int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, f := range x.files {
		if f.hash != nil {
			files++
		}
	}
	return x.bytes, files
}

// build reads the keys of a file, those of marked rows included: a restored version may have them back.
func (x *Index) build(ctx context.Context, table delta.TableInfo, f delta.File, keyColumns []string, sequence string) (*file, error) {
	f.Deleted = nil
	var h []hashed
	if n := rowsOf(f); n <= buildRowsMax { // growing step by step leaves as much behind again
		h = make([]hashed, 0, n)
	}
	var buf []byte
	n := len(keyColumns)
	columns := keyColumns
	if sequence != "" {
		columns = append(slices.Clone(keyColumns), sequence)
	}
	reader := x.reader
	if rowsOf(f) <= smallRows {
		reader = x.small
	}
	var rows int64
	for b, err := range reader.Read(ctx, table, []delta.File{f}, delta.ReadOptions{Columns: columns, WithPosition: true}) {
		if err != nil {
			return nil, err
		}
		at, ok := b.Column(len(columns) + 1).(*array.Int64)
		if !ok {
			return nil, fmt.Errorf("BUG: row numbers are %s", b.Column(len(columns)+1).DataType())
		}
		cols := b.Columns()[:n]
		rows += b.NumRows()
		h = slices.Grow(h, int(b.NumRows()))
		for i := range int(b.NumRows()) {
			if buf, ok = delta.AppendKey(buf[:0], cols, i); !ok {
				continue
			}
			r := at.Value(i)
			if r < 0 || r > 1<<32-1 {
				return nil, errors.New("more rows than an index holds")
			}
			e := x.hash(buf, r)
			if sequence != "" {
				e.sequence = sequenceAt(b.Column(n), i)
			}
			h = append(h, e)
		}
	}
	e := newFile(h, rows)
	e.column = inFiles(table, sequence)
	return e, nil
}

// hashed is a key's hash, with the number of its row: in the file, or in the source.
type hashed struct {
	hash uint64
	more uint32
	row  uint32
	// sequence is that of the row in the file.
	sequence int64
}

// hash is 96 bits of a seeded hash. Two different keys have the same with a probability of 2^-96: of 10,000 keys looked
// up each second among a thousand million, one would be mistaken in some 10^8 years.
func (x *Index) hash(key []byte, row int64) hashed {
	h := xxh3.Hash128Seed(key, x.seed)
	return hashed{hash: h.Hi, more: uint32(h.Lo), row: uint32(row)} //nolint:gosec // cut on purpose; rows are checked
}

func newFile(h []hashed, rows int64) *file {
	sortHashed(h)
	f := &file{rows: rows, hash: make([]uint64, len(h)), more: make([]uint32, len(h)), row: make([]uint32, len(h)), sequence: make([]int64, len(h))}
	for i, e := range h {
		f.hash[i], f.more[i], f.row[i], f.sequence[i] = e.hash, e.more, e.row, e.sequence
	}
	// About four rows a bucket: a lookup then touches one or two lines of memory.
	bits := uint(1)
	for 1<<bits < len(h)/4 {
		bits++
	}
	f.shift = 64 - bits
	f.starts = make([]uint32, 1<<bits+1)
	b := 0
	for i, v := range f.hash {
		for ; b <= int(v>>f.shift); b++ {
			f.starts[b] = uint32(i) //nolint:gosec // at most 2^32 rows
		}
	}
	for ; b < len(f.starts); b++ {
		f.starts[b] = uint32(len(h)) //nolint:gosec // at most 2^32 rows
	}
	return f
}

// sortHashed sorts by hash: by its leading byte first, then each part, which is quick because hashes are spread evenly.
func sortHashed(h []hashed) {
	compare := func(a, b hashed) int {
		switch {
		case a.hash < b.hash:
			return -1
		case a.hash > b.hash:
			return 1
		}
		return int(int64(a.row) - int64(b.row))
	}
	if len(h) < 1<<12 {
		slices.SortFunc(h, compare)
		return
	}
	const bits = 12
	var count [1<<bits + 1]int
	for i := range h {
		count[h[i].hash>>(64-bits)+1]++
	}
	for i := 1; i < len(count); i++ {
		count[i] += count[i-1]
	}
	at := count
	out := make([]hashed, len(h))
	for i := range h {
		b := h[i].hash >> (64 - bits)
		out[at[b]] = h[i]
		at[b]++
	}
	for b := range 1 << bits {
		slices.SortFunc(out[count[b]:count[b+1]], compare)
	}
	copy(h, out)
}

// keys are the hashes of the source's keys, sorted; those with a null are left out.
func (x *Index) keys(ctx context.Context, source delta.Rows, keyColumns []string) ([]hashed, error) {
	out := make([]hashed, 0, source.NumRows())
	var buf []byte
	var at int64
	for b, err := range source.Read(ctx, keyColumns, nil) {
		if err != nil {
			return nil, err
		}
		cols := b.Columns()[:len(keyColumns)]
		for i := range int(b.NumRows()) {
			var ok bool
			if buf, ok = delta.AppendKey(buf[:0], cols, i); ok {
				out = append(out, x.hash(buf, at+int64(i)))
			}
		}
		at += b.NumRows()
	}
	sortHashed(out)
	return out, nil
}

// hit is a stored row that has the key of a source row.
type hit struct {
	source   int64
	file     int
	row      int64
	sequence int64
}

// lookUp finds the keys in remembered files. ok is false if a stored row has the key of several source rows: that is
// rare, and better left to whoever joins.
func (x *Index) lookUp(keys []hashed, files []delta.File, known map[int]*file, sequence string) (hits []hit, ok bool) {
	for i := 1; i < len(keys); i++ {
		if keys[i].hash == keys[i-1].hash && keys[i].more == keys[i-1].more {
			return nil, false
		}
	}
	source := newFile(keys, 0)
	for i := range files {
		f := known[i]
		if f == nil || len(f.hash) == 0 || len(keys) == 0 {
			continue
		}
		deleted := files[i].Deleted
		found := func(sourceAt, fileAt int) {
			row := f.row[fileAt]
			if deleted != nil && deleted.Contains(uint64(row)) {
				return
			}
			h := hit{source: int64(source.row[sourceAt]), file: i, row: int64(row), sequence: unknownSequence}
			if sequence != "" && f.column == sequence {
				h.sequence = f.sequence[fileAt]
			}
			hits = append(hits, h)
		}
		// The smaller side asks, the larger one answers.
		if len(f.hash) < len(keys) {
			source.each(f, func(fileAt, sourceAt int) { found(sourceAt, fileAt) })
		} else {
			f.each(source, found)
		}
	}
	return hits, true
}

// each calls found for each key of ask that f has too, with its places in both.
func (f *file) each(ask *file, found func(askAt, at int)) {
	for k, h := range ask.hash {
		b := h >> f.shift
		for at := f.starts[b]; at < f.starts[b+1]; at++ {
			if f.hash[at] == h && f.more[at] == ask.more[k] {
				found(k, int(at))
			}
		}
	}
}

// kept makes an answer of what is kept; nil if a hit lacks it.
func kept(table delta.TableInfo, hits []hit, sequence string) *delta.Matches {
	if sequence == "" || len(hits) == 0 {
		return nil
	}
	out := &delta.Matches{Match: make([]delta.Match, len(hits))}
	values := make([]int64, len(hits))
	for i, h := range hits {
		if h.sequence == unknownSequence {
			return nil
		}
		out.Match[i] = delta.Match{Source: h.source, File: h.file, Row: h.row}
		values[i] = h.sequence
	}
	typ := sequenceType(table, sequence)
	f, _ := table.Schema.Field(sequence)
	data := array.NewData(typ, len(values), []*memory.Buffer{nil, memory.NewBufferBytes(arrow.Int64Traits.CastToBytes(values))}, nil, 0, 0)
	defer data.Release()
	column := array.MakeFromData(data)
	defer column.Release()
	out.Stored = array.NewRecordBatch(arrow.NewSchema([]arrow.Field{{Name: f.Name, Type: typ, Nullable: f.Nullable}}, nil), []arrow.Array{column}, int64(len(values)))
	return out
}

// stored reads the wanted columns of the hits, in the order in which the reader gives the rows.
func (x *Index) stored(ctx context.Context, table delta.TableInfo, files []delta.File, hits []hit, want []string) (*delta.Matches, error) {
	out := &delta.Matches{}
	if len(want) == 0 || len(hits) == 0 {
		for _, h := range hits {
			out.Match = append(out.Match, delta.Match{Source: h.source, File: h.file, Row: h.row})
		}
		return out, nil
	}
	type place struct {
		file int
		row  int64
	}
	source := make(map[place]int64, len(hits))
	index := map[int]int{} // of a file among those that are hit
	var back []int
	var hitFiles []delta.File
	var rows []*roaring64.Bitmap
	for _, h := range hits {
		source[place{h.file, h.row}] = h.source
		k, seen := index[h.file]
		if !seen {
			k = len(hitFiles)
			index[h.file] = k
			back = append(back, h.file)
			hitFiles = append(hitFiles, files[h.file])
			rows = append(rows, roaring64.New())
		}
		rows[k].Add(uint64(h.row)) //nolint:gosec // not negative
	}
	n := len(want)
	var batches []arrow.RecordBatch
	defer func() {
		for _, b := range batches {
			b.Release()
		}
	}()
	for b, err := range x.reader.Read(ctx, table, hitFiles, delta.ReadOptions{Columns: want, WithPosition: true, Rows: rows}) {
		if err != nil {
			return nil, fmt.Errorf("read stored rows: %w", err)
		}
		fileAt, ok := b.Column(n).(*array.Int32)
		rowAt, ok2 := b.Column(n + 1).(*array.Int64)
		if !ok || !ok2 {
			return nil, fmt.Errorf("BUG: positions are %s and %s", b.Column(n).DataType(), b.Column(n+1).DataType())
		}
		for i := range int(b.NumRows()) {
			p := place{back[fileAt.Value(i)], rowAt.Value(i)}
			s, ok := source[p]
			if !ok {
				return nil, fmt.Errorf("BUG: row %d of %s was read and not asked for", p.row, files[p.file].Key)
			}
			out.Match = append(out.Match, delta.Match{Source: s, File: p.file, Row: p.row})
		}
		batches = append(batches, array.NewRecordBatch(arrow.NewSchema(b.Schema().Fields()[:n], nil), b.Columns()[:n], b.NumRows()))
	}
	if len(out.Match) != len(hits) {
		return nil, fmt.Errorf("BUG: %d rows were read for %d keys", len(out.Match), len(hits))
	}
	var err error
	out.Stored, err = concatenate(batches)
	return out, err
}

// join puts two answers together and releases the second.
func join(a, b *delta.Matches) (*delta.Matches, error) {
	defer b.Release()
	out := &delta.Matches{Match: append(slices.Clone(a.Match), b.Match...)}
	var batches []arrow.RecordBatch
	for _, m := range []*delta.Matches{a, b} {
		if m.Stored != nil {
			batches = append(batches, m.Stored)
		}
	}
	if len(batches) == 0 {
		return out, nil
	}
	var err error
	out.Stored, err = concatenate(batches)
	return out, err
}

// concatenate makes one batch of several with the same columns.
func concatenate(batches []arrow.RecordBatch) (arrow.RecordBatch, error) {
	if len(batches) == 1 {
		batches[0].Retain()
		return batches[0], nil
	}
	schema := batches[0].Schema()
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
		parts := make([]arrow.Array, len(batches))
		for k, b := range batches {
			parts[k] = b.Column(i)
		}
		var err error
		if cols[i], err = array.Concatenate(parts, memory.DefaultAllocator); err != nil {
			return nil, fmt.Errorf("column %s: %w", schema.Field(i).Name, err)
		}
	}
	return array.NewRecordBatch(schema, cols, rows), nil
}
