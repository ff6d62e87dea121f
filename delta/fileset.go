package delta

import (
	"encoding/binary"
	"hash/maphash"
	"iter"
	"math"
	"slices"
	"strings"
	"sync"
)

// The files of a snapshot are not kept as Add structs: a million of them would be a gigabyte of small objects for the
// garbage collector to walk. They stand column by column in chunks that never change once they are part of a snapshot;
// a snapshot is a list of chunks, each with a bitmap of the rows that are no longer live. The next snapshot shares the
// chunks and copies the bitmaps it changes, so that following the log costs what the commits hold, not what the table
// holds. Small chunks are merged as they pile up.

const (
	// chunkRows bounds the rows of a chunk, and with them what one change of its bitmap copies (8 KiB).
	chunkRows = 1 << 16
	// chunkText bounds the text of one column of a chunk: offsets have 32 bits, and a chunk is rewritten as a whole.
	chunkText = 1 << 30
	// absent stands for a number that an action does not have.
	absent = math.MinInt64
)

// Flags of a row.
const (
	flagDataChange = 1 << iota
	flagExtended   // remove.extendedFileMetadata
	flagSize       // remove.size is there
	flagPartition  // partitionValues is there
)

// texts are the strings of a column behind one another; end nil: all are empty.
type texts struct {
	text string
	end  []uint32
}

func (t *texts) at(i int) string {
	if t.end == nil {
		return ""
	}
	from := uint32(0)
	if i > 0 {
		from = t.end[i-1]
	}
	return t.text[from:t.end[i]]
}

// fileChunk holds add actions, or remove actions without stats and tags, column by column. Optional columns are nil if
// no row has them.
type fileChunk struct {
	n     int
	paths texts // as the log has them
	stats texts // JSON
	tags  texts // see encodeMap

	part []uint32 // into dict
	dict *mapDict

	size  []int64
	time  []int64 // modificationTime of adds, deletionTimestamp of removes
	flags []uint8

	vector     []int32 // into vectors, -1: none
	vectors    []*DeletionVector
	baseRow    []int64
	rowVersion []int64
	provider   []uint16 // into providers, 0: none
	providers  []*string

	once  sync.Once
	index []uint32 // open addressing by the hash of the canonical path: row + 1
}

var pathSeed = maphash.MakeSeed()

func (c *fileChunk) indexed() {
	c.once.Do(func() {
		if c.index != nil {
			return
		}
		c.index = make([]uint32, indexSize(c.n))
		for i := range c.n {
			c.insert(i)
		}
	})
}

func indexSize(n int) int {
	size := 16
	for size < 2*n {
		size *= 2
	}
	return size
}

func (c *fileChunk) insert(i int) {
	mask := uint64(len(c.index) - 1)
	h := maphash.String(pathSeed, canonicalPath(c.paths.at(i))) & mask
	for c.index[h] != 0 {
		h = (h + 1) & mask
	}
	c.index[h] = uint32(i + 1)
}

// rowsOf yields the rows with a canonical path.
func (c *fileChunk) rowsOf(path string, hash uint64) iter.Seq[int] {
	return func(yield func(int) bool) {
		mask := uint64(len(c.index) - 1)
		for h := hash & mask; c.index[h] != 0; h = (h + 1) & mask {
			i := int(c.index[h] - 1)
			if canonicalPath(c.paths.at(i)) == path && !yield(i) {
				return
			}
		}
	}
}

func (c *fileChunk) dv(i int) *DeletionVector {
	if c.vector == nil || c.vector[i] < 0 {
		return nil
	}
	return c.vectors[c.vector[i]]
}

func (c *fileChunk) partition(i int) map[string]*string {
	if c.flags[i]&flagPartition == 0 {
		return nil
	}
	return c.dict.at(c.part[i])
}

func optionalInt(col []int64, i int) *int64 {
	if col == nil || col[i] == absent {
		return nil
	}
	v := col[i]
	return &v
}

// add gives the row as the action it was made of. Maps and the vector are shared.
func (c *fileChunk) add(i int) *Add {
	a := &Add{
		Path: c.paths.at(i), PartitionValues: c.partition(i), Size: c.size[i], ModificationTime: c.time[i],
		DataChange: c.flags[i]&flagDataChange != 0, Stats: c.stats.at(i), DeletionVector: c.dv(i),
		BaseRowID: optionalInt(c.baseRow, i), DefaultRowCommitVersion: optionalInt(c.rowVersion, i),
	}
	if t := c.tags.at(i); t != "" {
		a.Tags = decodeMap(t)
	}
	if c.provider != nil {
		a.ClusteringProvider = c.providers[c.provider[i]]
	}
	return a
}

func (c *fileChunk) remove(i int) *Remove {
	r := &Remove{
		Path: c.paths.at(i), DeletionTimestamp: c.time[i], DataChange: c.flags[i]&flagDataChange != 0,
		ExtendedFileMetadata: c.flags[i]&flagExtended != 0, PartitionValues: c.partition(i), DeletionVector: c.dv(i),
		BaseRowID: optionalInt(c.baseRow, i), DefaultRowCommitVersion: optionalInt(c.rowVersion, i),
	}
	if c.flags[i]&flagSize != 0 {
		size := c.size[i]
		r.Size = &size
	}
	return r
}

// mapDict is a dictionary of maps in their encoded form.
type mapDict struct {
	encoded []string
	maps    []map[string]*string // nil: too many to keep decoded
}

// decodedMaps bounds the maps of a dictionary that are kept decoded.
const decodedMaps = 4096

func (d *mapDict) at(i uint32) map[string]*string {
	if d.maps != nil {
		return d.maps[i]
	}
	return decodeMap(d.encoded[i])
}

// decode fills maps if they are few.
func (d *mapDict) decode() {
	if len(d.encoded) > decodedMaps {
		d.maps = nil
		return
	}
	for i := len(d.maps); i < len(d.encoded); i++ {
		d.maps = append(d.maps, decodeMap(d.encoded[i]))
	}
}

// encodeMap appends a map as length and text of each key and value, by key; the length of a value is one greater, and 0
// stands for null. An empty map has the length 0 before it, so that it differs from no map.
func encodeMap(b []byte, m map[string]*string) []byte {
	b = binary.AppendUvarint(b, uint64(len(m)))
	if len(m) == 1 {
		for k, v := range m {
			return encodeEntry(b, k, v)
		}
	}
	for _, k := range sortedKeys(m) {
		b = encodeEntry(b, k, m[k])
	}
	return b
}

func encodeEntry(b []byte, k string, v *string) []byte {
	b = binary.AppendUvarint(b, uint64(len(k)))
	b = append(b, k...)
	if v == nil {
		return append(b, 0)
	}
	b = binary.AppendUvarint(b, uint64(len(*v))+1)
	return append(b, *v...)
}

// decodeMap is the inverse of encodeMap. The texts share the memory of s.
func decodeMap(s string) map[string]*string {
	pos := 0
	number := func() int {
		var v uint64
		for shift := 0; ; shift += 7 {
			b := s[pos]
			pos++
			v |= uint64(b&0x7f) << shift
			if b < 0x80 {
				return int(v)
			}
		}
	}
	n := number()
	m := make(map[string]*string, n)
	for range n {
		l := number()
		k := s[pos : pos+l]
		pos += l
		l = number()
		if l == 0 {
			m[k] = nil
			continue
		}
		v := s[pos : pos+l-1]
		pos += l - 1
		m[k] = &v
	}
	return m
}

// chunkBuilder grows a chunk. The chunk can be looked at while it grows.
type chunkBuilder struct {
	c                  *fileChunk
	paths, stats, tags strings.Builder
	ids                map[string]uint32 // of encoded maps
	providerIDs        map[string]uint16
	scratch            []byte
}

func newChunkBuilder() *chunkBuilder {
	return &chunkBuilder{c: &fileChunk{dict: &mapDict{}, index: make([]uint32, 16)}, ids: map[string]uint32{}}
}

func (b *chunkBuilder) full() bool {
	return b.c.n >= chunkRows || b.paths.Len() >= chunkText || b.stats.Len() >= chunkText || b.tags.Len() >= chunkText
}

// text appends a string to a column; the column begins with the first that is not empty.
func (b *chunkBuilder) text(t *texts, sb *strings.Builder, s string) {
	if s == "" && t.end == nil {
		return
	}
	for len(t.end) < b.c.n {
		t.end = append(t.end, 0)
	}
	sb.WriteString(s)
	t.text = sb.String()
	t.end = append(t.end, uint32(sb.Len()))
}

func (b *chunkBuilder) number(col *[]int64, v *int64) {
	if v == nil && *col == nil {
		return
	}
	for len(*col) < b.c.n {
		*col = append(*col, absent)
	}
	if v == nil {
		*col = append(*col, absent)
	} else {
		*col = append(*col, *v)
	}
}

func (b *chunkBuilder) dv(v *DeletionVector) {
	c := b.c
	if v == nil && c.vector == nil {
		return
	}
	for len(c.vector) < c.n {
		c.vector = append(c.vector, -1)
	}
	if v == nil {
		c.vector = append(c.vector, -1)
		return
	}
	c.vector = append(c.vector, int32(len(c.vectors)))
	c.vectors = append(c.vectors, v)
}

func (b *chunkBuilder) clusteredBy(p *string) {
	c := b.c
	if p == nil && c.provider == nil {
		return
	}
	if c.providers == nil {
		c.providers, b.providerIDs = []*string{nil}, map[string]uint16{}
	}
	for len(c.provider) < c.n {
		c.provider = append(c.provider, 0)
	}
	if p == nil {
		c.provider = append(c.provider, 0)
		return
	}
	id, ok := b.providerIDs[*p]
	if !ok && len(c.providers) < math.MaxUint16 {
		v := strings.Clone(*p)
		id = uint16(len(c.providers))
		c.providers = append(c.providers, &v)
		b.providerIDs[v] = id
	}
	c.provider = append(c.provider, id)
}

// mapID finds or makes the place of an encoded map in the dictionary.
func (b *chunkBuilder) mapID(encoded []byte) uint32 {
	id, ok := b.ids[string(encoded)]
	if !ok {
		id = uint32(len(b.c.dict.encoded))
		s := string(encoded)
		b.c.dict.encoded = append(b.c.dict.encoded, s)
		b.ids[s] = id
	}
	return id
}

func (b *chunkBuilder) partition(m map[string]*string) {
	b.scratch = encodeMap(b.scratch[:0], m)
	b.c.part = append(b.c.part, b.mapID(b.scratch))
}

// done counts the row whose columns have been appended, and indexes it.
func (b *chunkBuilder) done() {
	c := b.c
	c.n++
	if 2*c.n > len(c.index) {
		c.index = make([]uint32, 2*len(c.index))
		for i := range c.n {
			c.insert(i)
		}
		return
	}
	c.insert(c.n - 1)
}

func (b *chunkBuilder) add(a *Add) {
	c := b.c
	b.text(&c.paths, &b.paths, a.Path)
	b.text(&c.stats, &b.stats, a.Stats)
	tags := ""
	if a.Tags != nil {
		tags = string(encodeMap(nil, a.Tags))
	}
	b.text(&c.tags, &b.tags, tags)
	b.partition(a.PartitionValues)
	flags := uint8(flagSize)
	if a.DataChange {
		flags |= flagDataChange
	}
	if a.PartitionValues != nil {
		flags |= flagPartition
	}
	c.flags = append(c.flags, flags)
	c.size, c.time = append(c.size, a.Size), append(c.time, a.ModificationTime)
	b.dv(a.DeletionVector)
	b.number(&c.baseRow, a.BaseRowID)
	b.number(&c.rowVersion, a.DefaultRowCommitVersion)
	b.clusteredBy(a.ClusteringProvider)
	b.done()
}

func (b *chunkBuilder) remove(r *Remove) {
	c := b.c
	b.text(&c.paths, &b.paths, r.Path)
	b.partition(r.PartitionValues)
	var flags uint8
	var size int64
	if r.DataChange {
		flags |= flagDataChange
	}
	if r.ExtendedFileMetadata {
		flags |= flagExtended
	}
	if r.PartitionValues != nil {
		flags |= flagPartition
	}
	if r.Size != nil {
		flags |= flagSize
		size = *r.Size
	}
	c.flags = append(c.flags, flags)
	c.size, c.time = append(c.size, size), append(c.time, r.DeletionTimestamp)
	b.dv(r.DeletionVector)
	b.number(&c.baseRow, r.BaseRowID)
	b.number(&c.rowVersion, r.DefaultRowCommitVersion)
	b.done()
}

// row copies a row of another chunk.
func (b *chunkBuilder) row(from *fileChunk, i int) {
	c := b.c
	b.text(&c.paths, &b.paths, from.paths.at(i))
	b.text(&c.stats, &b.stats, from.stats.at(i))
	b.text(&c.tags, &b.tags, from.tags.at(i))
	b.scratch = append(b.scratch[:0], from.dict.encoded[from.part[i]]...)
	c.part = append(c.part, b.mapID(b.scratch))
	c.flags = append(c.flags, from.flags[i])
	c.size, c.time = append(c.size, from.size[i]), append(c.time, from.time[i])
	b.dv(from.dv(i))
	b.number(&c.baseRow, optionalInt(from.baseRow, i))
	b.number(&c.rowVersion, optionalInt(from.rowVersion, i))
	var provider *string
	if from.provider != nil {
		provider = from.providers[from.provider[i]]
	}
	b.clusteredBy(provider)
	b.done()
}

// seal ends the growing.
func (b *chunkBuilder) seal() *fileChunk {
	c := b.c
	c.dict.decode()
	// Columns that began late or ended early are filled up to the number of rows.
	for _, t := range []*texts{&c.paths, &c.stats, &c.tags} {
		for t.end != nil && len(t.end) < c.n {
			t.end = append(t.end, uint32(len(t.text)))
		}
	}
	return c
}

// liveChunk is a chunk with the rows of it that are no longer live.
type liveChunk struct {
	*fileChunk
	dead  []uint64 // nil: none
	alive int
}

func (l *liveChunk) live(i int) bool { return l.dead == nil || l.dead[i>>6]&(1<<(i&63)) == 0 }

// fileSet is a list of file actions with unique keys, in the order in which they came. It never changes.
type fileSet struct {
	chunks []liveChunk
	n      int
	bytes  int64
	// Of the deletion vectors: how many, and how many rows they mark. Not kept of removes.
	vectors, marked int64
}

// count adds a row to the sums, or with -1 takes it away.
func (s *fileSet) count(c *fileChunk, i int, by int64) {
	s.n += int(by)
	s.bytes += by * c.size[i]
	if dv := c.dv(i); dv != nil {
		s.vectors += by
		s.marked += by * dv.Cardinality
	}
}

// fileRow is a row of a set.
type fileRow struct {
	*fileChunk
	i int
}

// rows yields the live rows.
func (s *fileSet) rows() iter.Seq[fileRow] {
	return func(yield func(fileRow) bool) {
		for c := range s.chunks {
			l := &s.chunks[c]
			for i := range l.n {
				if l.live(i) && !yield(fileRow{l.fileChunk, i}) {
					return
				}
			}
		}
	}
}

// find gives the live row of a canonical path; with vector only if its deletion vector has that id.
func (s *fileSet) find(path string, vector *string) (chunk, row int, ok bool) {
	hash := maphash.String(pathSeed, path)
	for c := len(s.chunks) - 1; c >= 0; c-- {
		l := &s.chunks[c]
		l.indexed()
		for i := range l.rowsOf(path, hash) {
			if l.live(i) && (vector == nil || l.dv(i).UniqueID() == *vector) {
				return c, i, true
			}
		}
	}
	return 0, 0, false
}

// fileSetBuilder makes the next set from one.
type fileSetBuilder struct {
	set   fileSet
	owned []bool // whether the bitmap of the chunk is ours to change
	tail  *chunkBuilder
}

func newFileSetBuilder(from fileSet) *fileSetBuilder {
	b := &fileSetBuilder{set: from}
	b.set.chunks = slices.Clone(from.chunks)
	b.owned = make([]bool, len(b.set.chunks))
	return b
}

// kill takes a logical file out and tells whether it was there.
func (b *fileSetBuilder) kill(path string, dv *DeletionVector) bool {
	id := dv.UniqueID()
	c, i, ok := b.set.find(canonicalPath(path), &id)
	if !ok {
		return false
	}
	l := &b.set.chunks[c]
	if l.dead == nil || !b.owned[c] {
		rows := l.n
		if b.tail != nil && l.fileChunk == b.tail.c {
			rows = chunkRows // it still grows
		}
		dead := make([]uint64, (rows+63)/64)
		copy(dead, l.dead)
		l.dead = dead
		b.owned[c] = true
	}
	l.dead[i>>6] |= 1 << (i & 63)
	l.alive--
	b.set.count(l.fileChunk, i, -1)
	return true
}

// grow gives the chunk that takes the next row.
func (b *fileSetBuilder) grow() *chunkBuilder {
	if b.tail != nil && b.tail.full() {
		b.tail.seal()
		b.tail = nil
	}
	if b.tail == nil {
		b.tail = newChunkBuilder()
		b.set.chunks = append(b.set.chunks, liveChunk{fileChunk: b.tail.c})
		b.owned = append(b.owned, true)
	}
	return b.tail
}

func (b *fileSetBuilder) grown() {
	l := &b.set.chunks[len(b.set.chunks)-1]
	l.alive++
	b.set.count(l.fileChunk, l.n-1, 1)
}

func (b *fileSetBuilder) add(a *Add) {
	b.grow().add(a)
	b.grown()
}

func (b *fileSetBuilder) remove(r *Remove) {
	b.grow().remove(r)
	b.grown()
}

// take appends whole chunks, whose keys nothing else has.
func (b *fileSetBuilder) take(chunks []*fileChunk) {
	if b.tail != nil {
		b.tail.seal()
		b.tail = nil
	}
	for _, c := range chunks {
		if c.n == 0 {
			continue
		}
		b.set.chunks = append(b.set.chunks, liveChunk{fileChunk: c, alive: c.n})
		b.owned = append(b.owned, true)
		b.set.n += c.n
		for _, n := range c.size {
			b.set.bytes += n
		}
		for _, v := range c.vector {
			if v >= 0 {
				b.set.vectors++
				b.set.marked += c.vectors[v].Cardinality
			}
		}
	}
}

// takeSet appends a whole set, whose keys nothing else has.
func (b *fileSetBuilder) takeSet(s fileSet) {
	for _, l := range s.chunks {
		b.take([]*fileChunk{l.fileChunk})
		c := len(b.set.chunks) - 1
		if l.alive < l.n {
			b.set.chunks[c], b.owned[c] = l, false
			for i := range l.n {
				if !l.live(i) {
					b.set.count(l.fileChunk, i, -1)
				}
			}
		}
	}
}

// expire forgets the oldest chunks all of whose times lie before one. Single rows are left to who reads them.
func (b *fileSetBuilder) expire(before int64) {
	n := 0
	for _, l := range b.set.chunks {
		if b.tail != nil && b.tail.c == l.fileChunk || slices.Max(l.time) >= before {
			break
		}
		b.set.n -= l.alive
		n++
	}
	b.set.chunks, b.owned = b.set.chunks[n:], b.owned[n:]
}

// finish gives the set. Chunks of which most is dead are written anew, and small ones are merged, so that their number
// stays logarithmic and each row is copied a logarithmic number of times.
func (b *fileSetBuilder) finish() fileSet {
	if b.tail != nil {
		b.tail.seal()
		b.tail = nil
	}
	out := b.set.chunks[:0]
	for _, l := range b.set.chunks {
		switch {
		case l.alive == 0:
		case l.alive < l.n/2:
			out = append(out, mergeChunks(l))
		default:
			out = append(out, l)
		}
	}
	for len(out) >= 2 {
		x, y := out[len(out)-2], out[len(out)-1]
		if x.alive > 2*y.alive || x.alive+y.alive > chunkRows || len(x.stats.text)+len(y.stats.text) > chunkText/16 {
			break
		}
		out = append(out[:len(out)-2], mergeChunks(x, y))
	}
	b.set.chunks = out
	return b.set
}

// mergeChunks copies the live rows of chunks into one.
func mergeChunks(from ...liveChunk) liveChunk {
	b := newChunkBuilder()
	for k := range from {
		l := &from[k]
		for i := range l.n {
			if l.live(i) {
				b.row(l.fileChunk, i)
			}
		}
	}
	c := b.seal()
	return liveChunk{fileChunk: c, alive: c.n}
}
