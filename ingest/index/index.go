// Package index finds stored rows by key without scanning their files again: it remembers, for each immutable data file,
// the hashes of its keys, in a segment on local disk. It implements delta.Locator in front of another one.
//
// What it remembers are hints about files, never about the table: which file lives and which row is marked is told by
// the snapshot, with each call. So there is nothing to invalidate, any number of processes may share the segments, and
// files that are not remembered, or do not fit what is allowed, are simply scanned. A segment that is damaged or missing
// is a file that is not remembered; it is made again.
//
// Beside each key it keeps the value of one more column, the one by which delta.Merge decides first. Most updates are
// decided by it, and then no stored row is read at all.
package index

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/zeebo/xxh3"
	"golang.org/x/sync/errgroup"

	"github.com/cauce-data/cauce/delta"
)

const (
	// bytesMax and diskBytesMax are the defaults of Options.
	bytesMax     = 256 << 20
	diskBytesMax = 8 << 30

	// sourceRowsFew are looked up here in any table, and up to sourceRowsMax in one that has tableRowsPerKey times as many rows: many
	// keys are found faster by one join over all rows, unless these are very many.
	sourceRowsFew   = 200_000
	sourceRowsMax   = 2_000_000
	tableRowsPerKey = 32
	// buildRowsMax bounds the rows whose keys one call reads, so that a table without segments slows down several calls
	// a little instead of one a lot; repeatedRowsMax does so where calls are known to be repeated: what is not read at
	// once is scanned until it is, and to scan costs half as much as to read.
	buildRowsMax    = 2_000_000
	repeatedRowsMax = 20_000_000
	// smallRows bounds files whose keys are read when they are first met, with the pure-Go reader, which has the least
	// to do before the first row: those that micro-batches leave behind.
	smallRows = 50_000
	// slowly is how long a table leaves between its calls if it is not worth memory: to read a filter of a million rows takes a
	// millisecond or two.
	slowly = 5 * time.Second
	// unknownSequence stands for a null, and for the one number that is not told from it.
	unknownSequence = math.MinInt64
)

// Options shape an Index. The zero value works.
type Options struct {
	// Dir is the folder of the segments; it is made when it is needed. "": they are kept in memory.
	Dir string
	// BytesMax bounds the memory for what is kept of the segments, some 2 bytes a row; beyond it, and for tables that ask
	// seldom, that is read each time.
	// Segments that have no place on disk are kept in memory whole, and are not made beyond it. Default 256 MiB.
	BytesMax int64
	// DiskBytesMax bounds Dir, some 26 bytes a row; what was not of use for longest is forgotten first. Default 8 GiB.
	DiskBytesMax int64
	Log          *slog.Logger // nil: nothing is logged
}

// Index is a delta.Locator that remembers the keys of data files. Safe for concurrent use.
type Index struct {
	inner  delta.Locator
	reader delta.Reader
	small  delta.Reader
	o      Options

	opened sync.Once
	folder *folder // nil: segments are kept in memory
	seed   uint64  // nobody outside can make keys whose hashes collide

	mu     sync.Mutex
	files  map[identity]*file
	tables map[string]*asking
	bytes  int64 // memory that segments take
}

// asking is how a table asks. Each has its own pace, so that one that commits all the time does not make another's files
// look forgotten.
type asking struct {
	calls int64
	at    time.Time     // of the last one
	pause time.Duration // before it; 0: it is the first
}

var _ delta.SequenceLocator = (*Index)(nil)

// identity names a data file, and the columns that were read from it, among all of all lakes: a segment with another one is
// of no use. It depends on the seed.
type identity [16]byte

// identity of a file. Data files never change; size and time guard against a path that is used again after its file was
// deleted.
func (x *Index) identity(table delta.TableInfo, f delta.File, columns string) identity {
	b := make([]byte, 0, 256)
	for _, part := range []string{table.Store.URL(), f.Key, columns} {
		b = binary.AppendUvarint(b, uint64(len(part)))
		b = append(b, part...)
	}
	b = binary.AppendVarint(b, f.Add.Size)
	b = binary.AppendVarint(b, f.Add.ModificationTime)
	return identity(xxh3.Hash128Seed(b, x.seed).Bytes())
}

// file is what is remembered of one data file.
type file struct {
	path  string   // key of its object
	table *asking  // its table
	asked int      // calls that wanted it
	used  int64    // number of the last one among those of the table
	gone  bool     // it is in the table no longer
	unfit bool     // no segment can be made of it
	seg   *segment // nil: only that it was asked for
}

// New puts an Index before a Locator. The reader must be one that reads the same files. It does no I/O.
func New(inner delta.Locator, reader delta.Reader, o Options) *Index {
	if o.BytesMax <= 0 {
		o.BytesMax = bytesMax
	}
	if o.DiskBytesMax <= 0 {
		o.DiskBytesMax = diskBytesMax
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Index{inner: inner, reader: reader, small: delta.PureGo().Reader, o: o, files: map[identity]*file{}, tables: map[string]*asking{}}
}

// open finds out where segments are kept.
func (x *Index) open() {
	x.opened.Do(func() {
		x.seed = rand.Uint64()
		if x.o.Dir == "" {
			return
		}
		d, err := openFolder(x.o.Dir, x.o.DiskBytesMax, x.o.Log)
		if err != nil {
			x.o.Log.Warn("the index of keys is kept in memory only, because its folder cannot be used", "folder", x.o.Dir, "error", err)
			return
		}
		x.folder, x.seed = d, d.seed
	})
}

type repeated struct{}

// Repeated says that calls of Locate under the context are followed by others for the same table, as those of a stream are:
// what the first one remembers pays.
func Repeated(ctx context.Context) context.Context { return context.WithValue(ctx, repeated{}, true) }

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
	if n := source.NumRows(); n == 0 || len(files) == 0 || len(keyColumns) == 0 || joined(n, files) || !sameTypes(table, source, keyColumns) {
		return x.inner.Locate(ctx, table, files, source, keyColumns, want)
	}
	x.open()
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
	hits, ok := x.lookUp(keys, files, known, sequence != "")
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

// joined tells whether a join finds the keys of n source rows faster.
func joined(n int64, files []delta.File) bool {
	switch {
	case n <= sourceRowsFew:
		return false
	case n > sourceRowsMax:
		return true
	}
	var rows int64
	for _, f := range files {
		r := rowsOf(f)
		if r > math.MaxInt64-rows {
			return false
		}
		if rows += r; rows >= tableRowsPerKey*n {
			return false
		}
	}
	return true
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

// known gives, by index, the files whose segments are there, after making those of files that were asked for before, and
// those of new small files beside them; of all files if calls are Repeated. A process that looks up once never pays for
// remembering.
func (x *Index) known(ctx context.Context, table delta.TableInfo, files []delta.File, keyColumns []string, sequence string) map[int]*segment {
	columns := inFiles(table, keyColumns...)
	if sequence != "" {
		columns += "\x00" + inFiles(table, sequence)
	}
	ids := make([]identity, len(files))
	for i, f := range files {
		ids[i] = x.identity(table, f, columns)
	}
	out := map[int]*segment{}
	var absent []int
	x.mu.Lock()
	name := table.Store.URL() + "\x00" + table.Path
	t := x.tables[name]
	if t == nil {
		t = new(asking)
		x.tables[name] = t
	}
	now := time.Now()
	if t.calls++; !t.at.IsZero() {
		t.pause = now.Sub(t.at)
	}
	t.at = now
	for i, f := range files {
		e := x.files[ids[i]]
		if e == nil {
			e = &file{path: f.Key, table: t}
			x.files[ids[i]] = e
		}
		e.asked++
		e.table, e.used = t, t.calls // a clone of a table has files of its origin
		if e.seg != nil {
			out[i] = e.seg
		} else {
			absent = append(absent, i)
		}
	}
	x.forget()
	x.mu.Unlock()

	absent = slices.DeleteFunc(absent, func(i int) bool {
		seg := x.load(ids[i], files[i].Key)
		if seg != nil {
			out[i] = x.keep(t, ids[i], files[i].Key, seg)
		}
		return seg != nil
	})
	if x.folder != nil {
		for _, seg := range out {
			x.folder.touch(seg)
		}
	}

	again, rowsMax := ctx.Value(repeated{}) != nil, int64(buildRowsMax)
	if again {
		rowsMax = repeatedRowsMax
	}
	var build, fresh []int
	x.mu.Lock()
	for _, i := range absent {
		switch e := x.files[ids[i]]; {
		case e == nil || e.unfit:
		case again || e.asked > 1:
			build = append(build, i)
		case rowsOf(files[i]) <= smallRows:
			fresh = append(fresh, i)
		}
	}
	x.mu.Unlock()
	if len(out)+len(build) > 0 {
		build = append(build, fresh...)
	}
	var (
		mu   sync.Mutex // guards read and out
		read int64
		g    errgroup.Group
	)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, i := range build {
		g.Go(func() error {
			mu.Lock()
			enough := read >= rowsMax
			mu.Unlock()
			if enough || !x.room(files[i]) {
				return nil
			}
			seg, rows, err := x.build(ctx, table, files[i], ids[i], keyColumns, sequence)
			mu.Lock()
			defer mu.Unlock()
			read += max(rows, 1)
			if err != nil {
				// Who scans it will see the error, with all that is to be said about it.
				if ctx.Err() == nil {
					x.o.Log.Warn("the keys of a data file are not in the index; it is scanned", "file", files[i].Key, "error", err)
				}
				if errors.Is(err, errUnfit) {
					x.mu.Lock()
					if e := x.files[ids[i]]; e != nil {
						e.unfit = true
					}
					x.mu.Unlock()
				}
				return nil
			}
			out[i] = x.keep(t, ids[i], files[i].Key, seg)
			return nil
		})
	}
	_ = g.Wait() // what could not be read is scanned
	return out
}

// load takes a segment from the folder; nil if there is none that is whole.
func (x *Index) load(id identity, path string) *segment {
	if x.folder == nil {
		return nil
	}
	seg, err := x.folder.load(id)
	switch {
	case err == nil:
		return seg
	case !errors.Is(err, fs.ErrNotExist):
		x.damaged(id, path, err)
	}
	return nil
}

// damaged throws a segment away that cannot be read.
func (x *Index) damaged(id identity, path string, err error) {
	x.o.Log.Warn("a segment of the index of keys cannot be read; it is made again from its data file", "segment", id.String(), "file", path, "error", err)
	if x.folder != nil {
		x.folder.remove(id)
	}
}

// keep remembers a segment, or gives the one that somebody else was faster to make.
func (x *Index) keep(t *asking, id identity, path string, seg *segment) *segment {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.files[id]
	if e == nil {
		e = &file{path: path, table: t, asked: 1, used: t.calls}
		x.files[id] = e
	}
	if e.seg == nil {
		if seg.body == nil && (x.bytes+seg.size() > x.o.BytesMax || t.pause > slowly) {
			seg.filter = nil // it is read each time
		}
		e.seg = seg
		x.bytes += seg.size()
	}
	return e.seg
}

// room tells whether a segment may be made of a file.
func (x *Index) room(f delta.File) bool {
	rows := rowsOf(f)
	if rows == math.MaxInt64 {
		rows = 1 << 20
	}
	bytes := segmentBytes(rows)
	if x.folder != nil && x.folder.usable() {
		return x.folder.room(bytes)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.bytes+bytes <= x.o.BytesMax
}

// rowsOf is the number of rows of a file by its statistics, or very many.
func rowsOf(f delta.File) int64 {
	if st, err := delta.ParseStats(f.Add.Stats); err == nil && st != nil && st.NumRecords >= 0 && f.Add.Stats != "" {
		return st.NumRecords
	}
	return math.MaxInt64
}

// forget drops files that their table has not asked for lately, since compaction has removed them, and those of tables that
// do not ask any more. The caller holds the lock.
func (x *Index) forget() {
	const (
		idle      = 64 // calls of the table
		idleGone  = 2  // those that began before compaction may still ask
		idleTable = time.Hour
	)
	now := time.Now()
	for id, f := range x.files {
		if unasked := f.table.calls - f.used; unasked > idle || f.gone && unasked > idleGone || now.Sub(f.table.at) > idleTable {
			if f.seg != nil {
				x.bytes -= f.seg.size()
			}
			if f.gone && x.folder != nil {
				x.folder.remove(id)
			}
			delete(x.files, id)
		}
	}
	maps.DeleteFunc(x.tables, func(_ string, t *asking) bool { return now.Sub(t.at) > idleTable })
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
	for _, f := range x.files {
		f.gone = f.gone || gone[f.path]
	}
}

// Size is the memory that segments take, in bytes, and the number of files that have one in use.
func (x *Index) Size() (bytes int64, files int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, f := range x.files {
		if f.seg != nil {
			files++
		}
	}
	return x.bytes, files
}

// build makes the segment of a file, with the keys of marked rows: a restored version may have them back. rows are those that
// were read.
func (x *Index) build(ctx context.Context, table delta.TableInfo, f delta.File, id identity, keyColumns []string, sequence string) (seg *segment, rows int64, err error) {
	f.Deleted = nil
	disk := x.folder != nil && x.folder.usable()
	s := &sorter{}
	if disk {
		s.dir = x.folder.dir
	}
	defer func() { err = errors.Join(err, s.close()) }()
	s.expect(rowsOf(f))
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
	for b, err := range reader.Read(ctx, table, []delta.File{f}, delta.ReadOptions{Columns: columns, WithPosition: true}) {
		if err != nil {
			return nil, rows, err
		}
		at, ok := b.Column(len(columns) + 1).(*array.Int64)
		if !ok {
			return nil, rows, fmt.Errorf("BUG: row numbers are %s", b.Column(len(columns)+1).DataType())
		}
		cols := b.Columns()[:n]
		rows += b.NumRows()
		for i := range int(b.NumRows()) {
			if buf, ok = delta.AppendKey(buf[:0], cols, i); !ok {
				continue
			}
			r := at.Value(i)
			if r < 0 || r > 1<<32-1 {
				return nil, rows, fmt.Errorf("%w: it has more rows than a segment holds", errUnfit)
			}
			e := x.hash(buf, r)
			if sequence != "" {
				e.sequence = sequenceAt(b.Column(n), i)
			}
			if err := s.add(e); err != nil {
				return nil, rows, err
			}
		}
	}
	if err := s.sort(); err != nil {
		return nil, rows, err
	}
	if disk {
		seg, err := x.folder.write(id, s)
		if err == nil || errors.Is(err, errUnfit) || s.spilled() {
			return seg, rows, err
		}
		x.o.Log.Warn("a segment of the index of keys cannot be written; it is kept in memory", "folder", x.folder.dir, "error", err)
		if !x.room(f) {
			return nil, rows, err
		}
	}
	seg, err = segmentInMemory(id, s)
	return seg, rows, err
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

// lookUp finds the keys in the files that are known, and takes those out of known whose segment fails. ok is false if a stored
// row has the key of several source rows: that is rare, and better left to whoever joins.
func (x *Index) lookUp(keys []hashed, files []delta.File, known map[int]*segment, sequence bool) (hits []hit, ok bool) {
	for i := 1; i < len(keys); i++ {
		if keys[i].hash == keys[i-1].hash && keys[i].more == keys[i-1].more {
			return nil, false
		}
	}
	found, failed := make([][]hit, len(files)), make([]error, len(files))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i := range files {
		seg, deleted := known[i], files[i].Deleted
		if seg == nil {
			continue
		}
		g.Go(func() error {
			failed[i] = seg.each(keys, func(ask, stored hashed) {
				if deleted != nil && deleted.Contains(uint64(stored.row)) {
					return
				}
				h := hit{source: int64(ask.row), file: i, row: int64(stored.row), sequence: unknownSequence}
				if sequence {
					h.sequence = stored.sequence
				}
				found[i] = append(found[i], h)
			})
			return nil
		})
	}
	_ = g.Wait() // a file whose segment fails is scanned
	for i, err := range failed {
		if err != nil {
			found[i] = nil
			x.drop(known[i], files[i].Key, err)
			delete(known, i)
		}
	}
	return slices.Concat(found...), true
}

// drop forgets a segment that failed. One that somebody removed is only missing.
func (x *Index) drop(seg *segment, path string, err error) {
	x.mu.Lock()
	e := x.files[seg.id]
	mine := e != nil && e.seg == seg
	if mine {
		x.bytes -= seg.size()
		e.seg = nil
	}
	x.mu.Unlock()
	if mine && !errors.Is(err, fs.ErrNotExist) {
		x.damaged(seg.id, path, err)
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
