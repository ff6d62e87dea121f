package delta

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sort"
	"sync"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"golang.org/x/sync/errgroup"
)

// Files gives the live files that may hold rows of the predicates (none: all files), pruned as Prune does, with their
// deletion vectors loaded. The bitmaps are shared and must not be modified.
func (s *Snapshot) Files(ctx context.Context, where ...Predicate) ([]File, error) {
	var p Predicate
	if len(where) > 0 {
		p = And(where...)
	}
	return s.load(ctx, s.Prune(p))
}

// load makes Files of adds.
func (s *Snapshot) load(ctx context.Context, adds []*Add) ([]File, error) {
	info := s.TableInfo()
	out := make([]File, len(adds))
	var missing []int
	for i, a := range adds {
		key, err := info.FileKey(a.Path)
		if err != nil {
			return nil, err
		}
		out[i] = File{Add: a, Key: key}
		if a.DeletionVector != nil {
			if v, ok := s.table.vectors.get(a); ok {
				out[i].Deleted = v
			} else {
				missing = append(missing, i)
			}
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, i := range missing {
		g.Go(func() error {
			v, err := LoadVector(gctx, info, adds[i].DeletionVector)
			if err != nil {
				return fmt.Errorf("%s: %w", adds[i].Path, err)
			}
			out[i].Deleted = v
			s.table.vectors.put(adds[i].Path, adds[i].DeletionVector, v)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return out, nil
}

// vectorCache keeps for each file the deletion vector that was met last, so that those that a stream supersedes do not
// pile up. The zero value works.
type vectorCache struct {
	mu    sync.Mutex
	items map[string]cachedVector // by canonical path
	bytes uint64
}

type cachedVector struct {
	id    string // of its descriptor, which names its content for ever
	rows  *roaring64.Bitmap
	bytes uint64
}

const (
	vectorCacheBytes = 32 << 20
	// vectorBytes is what a bitmap of a few rows takes beside its serialised form, its place here included, as measured.
	vectorBytes = 640
)

func (c *vectorCache) get(a *Add) (*roaring64.Bitmap, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.items[canonicalPath(a.Path)]
	return v.rows, ok && v.id == a.DeletionVector.UniqueID()
}

func (c *vectorCache) put(path string, d *DeletionVector, rows *roaring64.Bitmap) {
	c.mu.Lock()
	defer c.mu.Unlock()
	path = canonicalPath(path)
	n := rows.GetSerializedSizeInBytes() + vectorBytes
	c.bytes -= c.items[path].bytes
	if c.items == nil || c.bytes+n > vectorCacheBytes {
		// Starting over is simple, and a table whose vectors do not fit reads them anyway.
		c.items, c.bytes = map[string]cachedVector{}, 0
	}
	c.items[path] = cachedVector{d.UniqueID(), rows, n}
	c.bytes += n
}

// numRecords is the number of physical rows of a file, from its statistics or else from its footer.
func numRecords(ctx context.Context, info TableInfo, f File) (int64, error) {
	if st, err := ParseStats(f.Add.Stats); err == nil && st.NumRecords >= 0 {
		return st.NumRecords, nil
	}
	pf, err := openParquet(ctx, info.Store, f.Key)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", f.Key, err)
	}
	defer pf.Close()
	return pf.NumRows(), nil
}

// fileRows are the live rows of files as Rows, read anew each time.
type fileRows struct {
	reader Reader
	info   TableInfo
	files  []File
	n      int64
}

// FileRows are the live rows of files, read anew each time that they are asked for.
func FileRows(ctx context.Context, r Reader, info TableInfo, files []File) (Rows, error) {
	return newFileRows(ctx, r, info, files)
}

func newFileRows(ctx context.Context, r Reader, info TableInfo, files []File) (*fileRows, error) {
	f := &fileRows{reader: r, info: info, files: files}
	for _, file := range files {
		n, err := numRecords(ctx, info, file)
		if err != nil {
			return nil, err
		}
		if file.Deleted != nil {
			n -= int64(file.Deleted.GetCardinality())
		}
		f.n += n
	}
	return f, nil
}

func (f *fileRows) Schema() *arrow.Schema { return f.info.Schema.Arrow() }
func (f *fileRows) NumRows() int64        { return f.n }

func (f *fileRows) Read(ctx context.Context, columns []string, ordinals *roaring64.Bitmap) iter.Seq2[arrow.RecordBatch, error] {
	return func(yield func(arrow.RecordBatch, error) bool) {
		var at int64
		for b, err := range f.reader.Read(ctx, f.info, f.files, ReadOptions{Columns: columns}) {
			if err != nil {
				yield(nil, err)
				return
			}
			n := b.NumRows()
			if ordinals != nil {
				sel := within(ordinals, at, n)
				at += n
				if len(sel) == 0 {
					continue
				}
				t, err := takeBatch(ctx, b, sel)
				if err != nil {
					yield(nil, err)
					return
				}
				ok := yield(t, nil)
				t.Release()
				if !ok {
					return
				}
				continue
			}
			if !yield(b, nil) {
				return
			}
		}
	}
}

// keyValues are the values that the source's rows have in one key column, each once, sorted; files whose bounds lie
// between two of them hold no match.
type keyValues struct {
	column string
	typ    Type
	kind   scalarKind
	ints   []int64  // of all kinds but kindString
	texts  []string // of kindString
}

func (k *keyValues) len() int { return len(k.ints) + len(k.texts) }

func (k *keyValues) at(i int) scalar {
	if k.kind == kindString {
		return scalar{kind: kindString, s: k.texts[i]}
	}
	return scalar{kind: k.kind, i: k.ints[i]}
}

// add takes the values of a column; false if one of them has no order here.
func (k *keyValues) add(col arrow.Array) bool {
	if s, ok := col.(*array.String); ok && k.typ == String {
		k.kind = kindString
		// One copy holds the text of all of them.
		text, offsets := string(s.ValueBytes()), s.ValueOffsets()
		for i := range s.Len() {
			if !s.IsNull(i) {
				k.texts = append(k.texts, text[offsets[i]-offsets[0]:offsets[i+1]-offsets[0]])
			}
		}
		return true
	}
	for i := range col.Len() {
		v, ok := goValue(col, i)
		if ok && v == nil {
			continue // equals nothing
		}
		b, known := newBound(k.typ, v)
		if !ok || !known || b.lo.kind == kindRat || b.lo.kind == kindString {
			return false
		}
		k.kind = b.lo.kind
		k.ints = append(k.ints, b.lo.i)
	}
	return true
}

func (k *keyValues) sort() {
	slices.Sort(k.ints)
	slices.Sort(k.texts)
	k.ints, k.texts = slices.Compact(k.ints), slices.Compact(k.texts)
}

// keyPruneRows bounds the number of source rows up to which their keys are compared with the files' statistics. A
// larger source touches almost every file anyway.
const keyPruneRows = 200_000

// sourceKeys collects the key values of rows, for pruning; nil where that is not worth while or not possible.
func sourceKeys(ctx context.Context, rows Rows, schema *Schema, columns []string) ([]keyValues, error) {
	if rows.NumRows() > keyPruneRows {
		return nil, nil
	}
	var out []keyValues
	var names []string
	for _, c := range columns {
		f, ok := schema.Field(c)
		if !ok {
			return nil, fmt.Errorf("%w: %q", ErrNoSuchColumn, c)
		}
		switch f.Type {
		case String, Long, Integer, Short, Byte, Date, Timestamp:
			out = append(out, keyValues{column: f.Name, typ: f.Type})
			names = append(names, f.Name)
		}
	}
	if len(names) == 0 {
		return nil, nil
	}
	for b, err := range rows.Read(ctx, names, nil) {
		if err != nil {
			return nil, err
		}
		for k := range out {
			if !out[k].add(b.Column(k)) {
				return nil, nil
			}
		}
	}
	for k := range out {
		out[k].sort()
	}
	return out, nil
}

// mayHoldKeys gives the adds whose statistics leave it open that they hold one of the keys. Partition values do not
// matter unless the column is part of the key: a row may have moved.
func (s *Snapshot) mayHoldKeys(adds []*Add, keys []keyValues) []*Add {
	if len(keys) == 0 {
		return adds
	}
	out := make([]*Add, 0, len(adds))
	for _, a := range adds {
		if s.mayHold(s.addFacts(a), keys) {
			out = append(out, a)
		}
	}
	return out
}

// liveMayHoldKeys is mayHoldKeys of all live files.
func (s *Snapshot) liveMayHoldKeys(keys []keyValues) []*Add {
	var out []*Add
	for f := range s.live.rows() {
		if len(keys) == 0 || s.mayHold(s.rowFacts(f), keys) {
			out = append(out, f.add(f.i))
		}
	}
	return out
}

func (s *Snapshot) mayHold(facts *fileFacts, keys []keyValues) bool {
	for n := range keys {
		k := &keys[n]
		c := facts.column(k.column)
		if c == nil {
			continue
		}
		if !c.mayValue {
			return false
		}
		first := 0 // of those that are not below the file
		if c.min != nil {
			first = sort.Search(k.len(), func(i int) bool { d, ok := k.at(i).compare(c.min.lo); return !ok || d >= 0 })
		}
		if first == k.len() {
			return false
		}
		if c.max != nil {
			if d, ok := k.at(first).compare(c.max.hi); ok && d > 0 {
				return false
			}
		}
	}
	return true
}
