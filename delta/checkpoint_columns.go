package delta

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
	"golang.org/x/sync/errgroup"
)

// The adds of a Parquet checkpoint are read column by column into the columns of chunks: no row becomes a struct, and
// the columns, of which the statistics are by far the largest, are decoded beside each other. What makes this possible
// is that the protocol fixes the members' types; a file that has others is read row by row instead.

// addLeaves are the columns of a checkpoint's add action that are read, with their physical types.
var addLeaves = map[string][]parquet.Type{
	"add.path":                            {parquet.Types.ByteArray},
	"add.partitionValues.key_value.key":   {parquet.Types.ByteArray},
	"add.partitionValues.key_value.value": {parquet.Types.ByteArray},
	"add.size":                            {parquet.Types.Int64},
	"add.modificationTime":                {parquet.Types.Int64},
	"add.dataChange":                      {parquet.Types.Boolean},
	"add.stats":                           {parquet.Types.ByteArray},
	"add.tags.key_value.key":              {parquet.Types.ByteArray},
	"add.tags.key_value.value":            {parquet.Types.ByteArray},
	"add.deletionVector.storageType":      {parquet.Types.ByteArray},
	"add.deletionVector.pathOrInlineDv":   {parquet.Types.ByteArray},
	"add.deletionVector.offset":           {parquet.Types.Int32},
	"add.deletionVector.sizeInBytes":      {parquet.Types.Int32},
	"add.deletionVector.cardinality":      {parquet.Types.Int64},
	"add.deletionVector.maxRowIndex":      {parquet.Types.Int64}, // of no use here
	"add.baseRowId":                       {parquet.Types.Int64},
	"add.defaultRowCommitVersion":         {parquet.Types.Int64},
	"add.clusteringProvider":              {parquet.Types.ByteArray},
}

// addColumns finds the leaf columns of add by path; ok is false if there are none or the file has another shape.
func addColumns(pf *file.Reader) (cols map[string]int, ok bool) {
	sc := pf.MetaData().Schema
	cols = map[string]int{}
	for i := range sc.NumColumns() {
		c := sc.Column(i)
		path := c.ColumnPath()
		if len(path) < 2 || path[0] != "add" || strings.HasSuffix(path[1], "_parsed") {
			continue
		}
		name := path.String()
		want, known := addLeaves[name]
		if !known {
			if _, taken := addMembers[path[1]]; taken {
				return nil, false // a member that is known, in a form that is not
			}
			continue
		}
		if c.PhysicalType() != want[0] {
			return nil, false
		}
		inMap := len(path) == 4
		if inMap && c.MaxRepetitionLevel() != 1 || !inMap && c.MaxRepetitionLevel() != 0 {
			return nil, false
		}
		cols[name] = i
	}
	for _, m := range []string{"add.partitionValues.key_value.", "add.tags.key_value."} {
		_, k := cols[m+"key"]
		_, v := cols[m+"value"]
		if k != v {
			return nil, false
		}
	}
	_, path := cols["add.path"]
	_, stats := cols["add.stats"]
	return cols, path && stats
}

var addMembers = func() map[string]bool {
	m := map[string]bool{}
	for name := range addLeaves {
		m[strings.Split(name, ".")[1]] = true
	}
	return m
}()

// leafReader steps through the values of a leaf column, nulls included.
type leafReader[T any] struct {
	read     func(n int64, vals []T, defs, reps []int16) (int64, int, error)
	maxDef   int16
	batch    int // values read at once
	vals     []T
	defs     []int16
	reps     []int16
	n, i, v  int // levels held, the next one, the next value
	def, rep int16
	val      T // valid until the next step
	err      error
}

// leafBatch bounds what is read at once. The checkpoint of a small table has a few values in each of its many columns,
// and buffers for more would cost more than reading them.
const leafBatch = 1024

// step goes to the next level; false at the end or on an error.
func (l *leafReader[T]) step() bool {
	if l.i == l.n {
		if l.err != nil {
			return false
		}
		if l.vals == nil {
			l.vals, l.defs, l.reps = make([]T, l.batch), make([]int16, l.batch), make([]int16, l.batch)
		}
		n, _, err := l.read(int64(l.batch), l.vals, l.defs, l.reps)
		if err != nil || n <= 0 {
			l.err = err
			return false
		}
		l.n, l.i, l.v = int(n), 0, 0
	}
	l.def, l.rep = l.maxDef, 0
	if l.maxDef > 0 {
		l.def = l.defs[l.i]
	}
	l.rep = l.reps[l.i]
	l.i++
	if l.def == l.maxDef {
		l.val = l.vals[l.v]
		l.v++
	}
	return true
}

// null reports whether the level that was stepped to holds no value.
func (l *leafReader[T]) null() bool { return l.def < l.maxDef }

// newLeaf opens a leaf column of a row group.
func newLeaf[T any](rg *file.RowGroupReader, col int) (*leafReader[T], error) {
	c, err := rg.Column(col)
	if err != nil {
		return nil, err
	}
	meta, err := rg.MetaData().ColumnChunk(col)
	if err != nil {
		return nil, err
	}
	l := &leafReader[T]{maxDef: c.Descriptor().MaxDefinitionLevel(), batch: int(max(1, min(leafBatch, meta.NumValues())))}
	var read any
	switch c := c.(type) {
	case *file.ByteArrayColumnChunkReader:
		read = c.ReadBatchInPage
	case *file.Int64ColumnChunkReader:
		read = c.ReadBatchInPage
	case *file.Int32ColumnChunkReader:
		read = c.ReadBatchInPage
	case *file.BooleanColumnChunkReader:
		read = c.ReadBatchInPage
	}
	ok := false
	l.read, ok = read.(func(int64, []T, []int16, []int16) (int64, int, error))
	if !ok {
		return nil, fmt.Errorf("column %d has the type %T", col, c)
	}
	return l, nil
}

// columnRange is the part of the adds of a row group that goes to one chunk.
type columnRange struct {
	rows int // of the file, adds or not

	path       texts
	present    []bool
	stats      texts
	tags       texts
	part       []uint32
	hasPart    []bool
	dict       *mapDict
	size       []int64
	time       []int64
	vector     []*DeletionVector // nil: none in the range
	baseRow    []int64
	rowVersion []int64
	provider   []string
}

// readAddColumns reads the adds of an open checkpoint file. The order is that of the file.
func readAddColumns(ctx context.Context, pf *file.Reader, cols map[string]int) ([]*fileChunk, error) {
	groups := pf.NumRowGroups()
	ranges := make([][]*columnRange, groups)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(2, runtime.GOMAXPROCS(0)))
	for k := range groups {
		rows := pf.MetaData().RowGroup(k).NumRows()
		if rows < 0 || rows > math.MaxInt32 {
			return nil, fmt.Errorf("row group %d claims %d rows", k, rows)
		}
		for rows > 0 {
			n := min(rows, chunkRows)
			ranges[k] = append(ranges[k], &columnRange{rows: int(n)})
			rows -= n
		}
		task := func(f func(rg *file.RowGroupReader) error) {
			g.Go(func() (err error) {
				defer func() {
					if p := recover(); p != nil {
						err = fmt.Errorf("checkpoint: %v", p)
					}
				}()
				if err := gctx.Err(); err != nil {
					return err
				}
				return f(pf.RowGroup(k))
			})
		}
		// The largest first.
		task(func(rg *file.RowGroupReader) error {
			return readText(rg, cols["add.stats"], ranges[k], func(r *columnRange, t texts, _ []bool) { r.stats = t })
		})
		task(func(rg *file.RowGroupReader) error {
			return readText(rg, cols["add.path"], ranges[k], func(r *columnRange, t texts, p []bool) { r.path, r.present = t, p })
		})
		task(func(rg *file.RowGroupReader) error { return readAddMaps(rg, cols, ranges[k]) })
		task(func(rg *file.RowGroupReader) error { return readAddNumbers(rg, cols, ranges[k]) })
		task(func(rg *file.RowGroupReader) error { return readAddVectors(rg, cols, ranges[k]) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var out []*fileChunk
	for _, rs := range ranges {
		for i, r := range rs {
			c, err := r.chunk()
			if err != nil {
				return nil, err
			}
			rs[i] = nil
			if c.n > 0 {
				out = append(out, c)
			}
		}
	}
	return out, nil
}

var errShortColumn = errors.New("a column has fewer rows than its row group")

// readText reads a text column of a row group, range by range.
func readText(rg *file.RowGroupReader, col int, ranges []*columnRange, take func(*columnRange, texts, []bool)) error {
	l, err := newLeaf[parquet.ByteArray](rg, col)
	if err != nil {
		return err
	}
	meta, err := rg.MetaData().ColumnChunk(col)
	if err != nil {
		return err
	}
	total := 0
	for _, r := range ranges {
		total += r.rows
	}
	for _, r := range ranges {
		var sb strings.Builder
		// The estimate saves copies; a file that lies about its size gains nothing by it.
		if est := meta.TotalUncompressedSize() / int64(max(1, total)) * int64(r.rows); est > 0 && meta.TotalCompressedSize() > 0 {
			sb.Grow(int(min(est, 64<<20, 64*meta.TotalCompressedSize())))
		}
		var end []uint32
		var present []bool
		for range r.rows {
			if !l.step() {
				return errors.Join(errShortColumn, l.err)
			}
			if !l.null() {
				if sb.Len()+len(l.val) > 1<<32-1 {
					return fmt.Errorf("more than 4 GiB of text in %d rows", r.rows)
				}
				sb.Write(l.val)
			}
			end = append(end, uint32(sb.Len()))
			present = append(present, !l.null())
		}
		take(r, texts{text: sb.String(), end: end}, present)
	}
	return nil
}

// readAddMaps reads partitionValues and tags.
func readAddMaps(rg *file.RowGroupReader, cols map[string]int, ranges []*columnRange) error {
	m, err := newMapReader(rg, cols, "add.partitionValues.key_value.")
	if err != nil {
		return err
	}
	var scratch []byte
	for _, r := range ranges {
		r.dict = &mapDict{}
		if m == nil {
			continue
		}
		ids := map[string]uint32{}
		for range r.rows {
			var ok bool
			if scratch, ok, err = m.next(scratch[:0]); err != nil {
				return err
			}
			id, known := ids[string(scratch)]
			if !known {
				id = uint32(len(r.dict.encoded))
				s := string(scratch)
				r.dict.encoded = append(r.dict.encoded, s)
				ids[s] = id
			}
			r.part, r.hasPart = append(r.part, id), append(r.hasPart, ok)
		}
		r.dict.decode()
	}
	t, err := newMapReader(rg, cols, "add.tags.key_value.")
	if err != nil || t == nil {
		return err
	}
	for _, r := range ranges {
		var sb strings.Builder
		var end []uint32
		for range r.rows {
			var ok bool
			if scratch, ok, err = t.next(scratch[:0]); err != nil {
				return err
			}
			if ok {
				if sb.Len()+len(scratch) > 1<<32-1 {
					return fmt.Errorf("more than 4 GiB of tags in %d rows", r.rows)
				}
				sb.Write(scratch)
			}
			end = append(end, uint32(sb.Len()))
		}
		if sb.Len() > 0 {
			r.tags = texts{text: sb.String(), end: end}
		}
	}
	return nil
}

// mapReader steps through the rows of a map of texts.
type mapReader struct {
	keys, values *leafReader[parquet.ByteArray]
	ahead        bool // the current level is the first of the next row
	entries      []byte
}

func newMapReader(rg *file.RowGroupReader, cols map[string]int, prefix string) (*mapReader, error) {
	k, ok := cols[prefix+"key"]
	if !ok {
		return nil, nil //nolint:nilnil // no such column is no error
	}
	var m mapReader
	var err error
	if m.keys, err = newLeaf[parquet.ByteArray](rg, k); err != nil {
		return nil, err
	}
	if m.values, err = newLeaf[parquet.ByteArray](rg, cols[prefix+"value"]); err != nil {
		return nil, err
	}
	return &m, nil
}

// next appends the map of the next row in the form of encodeMap; ok is false, and the map empty, if it is null.
func (m *mapReader) next(b []byte) (out []byte, ok bool, err error) {
	step := func() bool {
		k, v := m.keys.step(), m.values.step()
		if k != v {
			err = errors.Join(errShortColumn, m.keys.err, m.values.err)
		}
		return k && v
	}
	if !m.ahead && !step() {
		return nil, false, errors.Join(errShortColumn, m.keys.err, err)
	}
	m.entries = m.entries[:0]
	n := 0
	// Below the level of an entry's key: an empty map is one level lower, a null one two or more.
	ok = m.keys.def >= m.keys.maxDef-1
	for {
		if !m.keys.null() {
			n++
			m.entries = appendEntry(m.entries, m.keys.val, m.values)
		}
		m.ahead = step()
		if !m.ahead || m.keys.rep == 0 {
			break
		}
	}
	if err == nil {
		err = m.keys.err
	}
	if err != nil {
		return nil, false, err
	}
	b = appendUvarint(b, uint64(n))
	return append(b, m.entries...), ok, nil
}

func appendEntry(b []byte, key []byte, value *leafReader[parquet.ByteArray]) []byte {
	b = appendUvarint(b, uint64(len(key)))
	b = append(b, key...)
	if value.null() {
		return append(b, 0)
	}
	b = appendUvarint(b, uint64(len(value.val))+1)
	return append(b, value.val...)
}

func appendUvarint(b []byte, v uint64) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

// readAddNumbers reads size, modificationTime, baseRowId, defaultRowCommitVersion and clusteringProvider.
func readAddNumbers(rg *file.RowGroupReader, cols map[string]int, ranges []*columnRange) error {
	for _, c := range []struct {
		name     string
		into     func(*columnRange) *[]int64
		required bool
	}{
		{"add.size", func(r *columnRange) *[]int64 { return &r.size }, true},
		{"add.modificationTime", func(r *columnRange) *[]int64 { return &r.time }, true},
		{"add.baseRowId", func(r *columnRange) *[]int64 { return &r.baseRow }, false},
		{"add.defaultRowCommitVersion", func(r *columnRange) *[]int64 { return &r.rowVersion }, false},
	} {
		col, ok := cols[c.name]
		if !ok {
			continue
		}
		l, err := newLeaf[int64](rg, col)
		if err != nil {
			return err
		}
		for _, r := range ranges {
			into, any := c.into(r), false
			for range r.rows {
				if !l.step() {
					return errors.Join(errShortColumn, l.err)
				}
				v := int64(absent)
				if !l.null() {
					v, any = l.val, true
				}
				*into = append(*into, v)
			}
			if !any && !c.required {
				*into = nil
			}
		}
	}
	col, ok := cols["add.clusteringProvider"]
	if !ok {
		return nil
	}
	l, err := newLeaf[parquet.ByteArray](rg, col)
	if err != nil {
		return err
	}
	names := map[string]string{}
	for _, r := range ranges {
		any := false
		for range r.rows {
			if !l.step() {
				return errors.Join(errShortColumn, l.err)
			}
			name := ""
			if !l.null() {
				if name, ok = names[string(l.val)]; !ok {
					name = string(l.val)
					names[name] = name
				}
				any = true
			}
			r.provider = append(r.provider, name)
		}
		if !any {
			r.provider = nil
		}
	}
	return nil
}

// readAddVectors reads the deletion vectors' descriptors.
func readAddVectors(rg *file.RowGroupReader, cols map[string]int, ranges []*columnRange) error {
	const dv = "add.deletionVector."
	kind, ok := cols[dv+"storageType"]
	if !ok {
		return nil
	}
	for _, name := range []string{"pathOrInlineDv", "sizeInBytes", "cardinality"} {
		if _, ok := cols[dv+name]; !ok {
			return fmt.Errorf("deletionVector without %s", name)
		}
	}
	storage, err := newLeaf[parquet.ByteArray](rg, kind)
	if err != nil {
		return err
	}
	path, err := newLeaf[parquet.ByteArray](rg, cols[dv+"pathOrInlineDv"])
	if err != nil {
		return err
	}
	size, err := newLeaf[int32](rg, cols[dv+"sizeInBytes"])
	if err != nil {
		return err
	}
	cardinality, err := newLeaf[int64](rg, cols[dv+"cardinality"])
	if err != nil {
		return err
	}
	var offset *leafReader[int32]
	if col, ok := cols[dv+"offset"]; ok {
		if offset, err = newLeaf[int32](rg, col); err != nil {
			return err
		}
	}
	kinds := map[string]string{}
	for _, r := range ranges {
		for i := range r.rows {
			if !storage.step() || !path.step() || !size.step() || !cardinality.step() || offset != nil && !offset.step() {
				return errors.Join(errShortColumn, storage.err, path.err, size.err, cardinality.err)
			}
			if storage.null() || path.null() {
				if storage.null() != path.null() {
					return errors.New("deletionVector without storageType or pathOrInlineDv")
				}
				continue
			}
			kind, ok := kinds[string(storage.val)]
			if !ok {
				kind = string(storage.val)
				kinds[kind] = kind
			}
			v := &DeletionVector{StorageType: kind, PathOrInlineDv: string(path.val)}
			if !size.null() {
				v.SizeInBytes = size.val
			}
			if !cardinality.null() {
				v.Cardinality = cardinality.val
			}
			if offset != nil && !offset.null() {
				o := offset.val
				v.Offset = &o
			}
			if r.vector == nil {
				r.vector = make([]*DeletionVector, r.rows)
			}
			r.vector[i] = v
		}
	}
	return nil
}

// chunk keeps the rows of the range that are adds.
func (r *columnRange) chunk() (*fileChunk, error) {
	c := &fileChunk{dict: r.dict, paths: texts{text: r.path.text}, stats: texts{text: r.stats.text}, tags: texts{text: r.tags.text}}
	at := func(col []int64, i int) int64 {
		if col == nil || col[i] == absent {
			return 0
		}
		return col[i]
	}
	noPartition := -1
	if r.provider != nil {
		c.providers = []*string{nil}
	}
	providers := map[string]uint16{"": 0}
	for i := range r.rows {
		if !r.present[i] {
			if r.size != nil && r.size[i] != absent {
				return nil, errors.New("checkpoint: add without a path")
			}
			continue
		}
		if r.path.at(i) == "" {
			return nil, errors.New("checkpoint: add without a path")
		}
		c.paths.end = append(c.paths.end, r.path.end[i])
		if len(r.stats.text) > 0 {
			c.stats.end = append(c.stats.end, r.stats.end[i])
		}
		if r.tags.end != nil {
			c.tags.end = append(c.tags.end, r.tags.end[i])
		}
		if r.part != nil && r.hasPart[i] {
			c.part = append(c.part, r.part[i])
		} else {
			if noPartition < 0 {
				noPartition = len(c.dict.encoded)
				c.dict.encoded = append(c.dict.encoded, string(encodeMap(nil, nil)))
				c.dict.decode()
			}
			c.part = append(c.part, uint32(noPartition))
		}
		c.flags = append(c.flags, flagPartition|flagSize)
		c.size, c.time = append(c.size, at(r.size, i)), append(c.time, at(r.time, i))
		if r.vector != nil {
			v := int32(-1)
			if r.vector[i] != nil {
				v = int32(len(c.vectors))
				c.vectors = append(c.vectors, r.vector[i])
			}
			c.vector = append(c.vector, v)
		}
		if r.baseRow != nil {
			c.baseRow = append(c.baseRow, r.baseRow[i])
		}
		if r.rowVersion != nil {
			c.rowVersion = append(c.rowVersion, r.rowVersion[i])
		}
		if r.provider != nil {
			id, ok := providers[r.provider[i]]
			if !ok && len(c.providers) < 1<<16-1 {
				name := r.provider[i]
				id = uint16(len(c.providers))
				c.providers = append(c.providers, &name)
				providers[name] = id
			}
			c.provider = append(c.provider, id)
		}
		c.n++
	}
	return c, nil
}
