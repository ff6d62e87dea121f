package index

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/bits"
	"os"
	"slices"
	"sort"
	"sync/atomic"

	"github.com/zeebo/xxh3"
)

// segment holds the hashes of the keys of one data file, sorted. Once made it never changes.
//
// # Format
//
// All numbers are little-endian. Each section ends with a checksum of 8 bytes: XXH3 with a seed that depends on the
// segment's identity and on which section it is, so that nothing that was moved, or is left of another file, is taken for it.
//
//	magic     8  "CauceKI1"
//	buckets      one for each value of the leading bits of a hash; there are as many as make them bucketRows long on average:
//	             entries of 24 bytes, ordered by hash and row, and the checksum
//	               8 first part of the key's hash    4 second part    4 row of the data file    8 sequence
//	filter       blocks of 32 bytes, filterBits for each entry, and the checksum: a Bloom filter of which each key sets
//	             one bit in each of the 8 words of one block
//	starts       4 bytes for each bucket, the number of entries before it; 4, the number of all; and the checksum
//	tail     32  8 number of entries    16 identity    8 checksum
//
// A lookup reads the buckets of those keys that the filter lets pass, each with one read; of the keys that are not in the file
// that are some in a thousand.
type segment struct {
	id     identity
	n      int // entries
	shift  uint
	starts []uint32
	filter []byte // nil: it is read each time
	path   string
	body   []byte // the whole segment, in memory; nil: it is the file at path
	// touched is when the folder was last told that the segment is of use, in Unix seconds.
	touched atomic.Int64
}

const (
	segmentMagic = "CauceKI1"
	entryBytes   = 24
	sumBytes     = 8
	tailBytes    = 8 + 16 + sumBytes
	bucketRows   = 128
	blockBytes   = 32
	filterBits   = 16
	// bucketRowsMax bounds a bucket, and so what a lookup reads at once. Only keys that many rows share make one so long.
	bucketRowsMax = 1 << 16
	// entriesMax bounds a segment: rows have 32 bits.
	entriesMax = 1 << 32
)

// Sections behind the buckets, as checksums number them.
const (
	sectionFilter = -1 - iota
	sectionStarts
	sectionTail
)

var (
	// errDamaged says that a segment is not what was written.
	errDamaged = errors.New("damaged")
	// errUnfit says that no segment can be made of a file.
	errUnfit = errors.New("its keys do not fit a segment")
)

func (id identity) String() string { return hex.EncodeToString(id[:]) }

// sum is the checksum of a section.
func (id identity) sum(section int, data []byte) uint64 {
	return xxh3.HashSeed(data, binary.LittleEndian.Uint64(id[:])^binary.LittleEndian.Uint64(id[8:])+uint64(section)) //nolint:gosec // any 64 bits do
}

// shape is where the parts of a segment of n entries stand.
type shape struct {
	buckets, blocks      int
	shift                uint
	filter, starts, tail int64 // offsets
}

func shapeOf(n int64) shape {
	var s shape
	b := uint(0)
	for n>>b > bucketRows {
		b++
	}
	s.buckets, s.shift = 1<<b, 64-b
	s.blocks = int(n*filterBits/(8*blockBytes)) + 1
	s.filter = int64(len(segmentMagic)) + n*entryBytes + int64(s.buckets)*sumBytes
	s.starts = s.filter + int64(s.blocks)*blockBytes + sumBytes
	s.tail = s.starts + 4*int64(s.buckets+1) + sumBytes
	return s
}

// segmentBytes is the size of a segment of n entries.
func segmentBytes(n int64) int64 { return shapeOf(n).tail + tailBytes }

// size is the memory that a segment takes.
func (s *segment) size() int64 {
	if s.body != nil {
		return int64(len(s.body))
	}
	return int64(len(s.filter)) + 4*int64(len(s.starts))
}

func appendEntry(b []byte, e hashed) []byte {
	b = binary.LittleEndian.AppendUint64(b, e.hash)
	b = binary.LittleEndian.AppendUint32(b, e.more)
	b = binary.LittleEndian.AppendUint32(b, e.row)
	return binary.LittleEndian.AppendUint64(b, uint64(e.sequence)) //nolint:gosec // the same 64 bits
}

func entryAt(b []byte) hashed {
	_ = b[entryBytes-1]
	return hashed{
		hash: binary.LittleEndian.Uint64(b), more: binary.LittleEndian.Uint32(b[8:]), row: binary.LittleEndian.Uint32(b[12:]),
		sequence: int64(binary.LittleEndian.Uint64(b[16:])), //nolint:gosec // the same 64 bits
	}
}

// writeSegment writes a segment of n sorted entries.
func writeSegment(w io.Writer, id identity, n int64, sorted iter.Seq2[hashed, error]) error {
	if n >= entriesMax {
		return fmt.Errorf("%w: they are %d", errUnfit, n)
	}
	s := shapeOf(n)
	out := bufio.NewWriterSize(w, 1<<16)
	section := func(number int, data []byte) error {
		if _, err := out.Write(data); err != nil {
			return err
		}
		_, err := out.Write(binary.LittleEndian.AppendUint64(nil, id.sum(number, data)))
		return err
	}
	if _, err := out.WriteString(segmentMagic); err != nil {
		return err
	}
	filter := make([]byte, s.blocks*blockBytes)
	starts := make([]byte, 0, 4*(s.buckets+1))
	bucket := make([]byte, 0, 2*bucketRows*entryBytes)
	at, number := uint32(0), 0
	flush := func() error {
		if len(bucket) > bucketRowsMax*entryBytes {
			return fmt.Errorf("%w: %d rows are alike in them", errUnfit, len(bucket)/entryBytes)
		}
		starts = binary.LittleEndian.AppendUint32(starts, at)
		at += uint32(len(bucket) / entryBytes) //nolint:gosec // below entriesMax
		err := section(number, bucket)
		bucket, number = bucket[:0], number+1
		return err
	}
	for e, err := range sorted {
		if err != nil {
			return err
		}
		for int(e.hash>>s.shift) > number {
			if err := flush(); err != nil {
				return err
			}
		}
		addTo(filter, e)
		bucket = appendEntry(bucket, e)
	}
	for number < s.buckets {
		if err := flush(); err != nil {
			return err
		}
	}
	if int64(at) != n {
		return fmt.Errorf("BUG: a segment of %d entries got %d", n, at)
	}
	if err := section(sectionFilter, filter); err != nil {
		return err
	}
	if err := section(sectionStarts, binary.LittleEndian.AppendUint32(starts, at)); err != nil {
		return err
	}
	if err := section(sectionTail, append(binary.LittleEndian.AppendUint64(nil, uint64(n)), id[:]...)); err != nil { //nolint:gosec // not negative
		return err
	}
	return out.Flush()
}

// segmentInMemory is a segment that is kept in memory whole.
func segmentInMemory(id identity, s *sorter) (*segment, error) {
	var b bytes.Buffer
	b.Grow(int(segmentBytes(s.n)))
	if err := writeSegment(&b, id, s.n, s.sorted()); err != nil {
		return nil, err
	}
	seg, err := readSegment(bytes.NewReader(b.Bytes()), int64(b.Len()), id)
	if err != nil {
		return nil, err
	}
	seg.body = b.Bytes()
	sh := shapeOf(s.n)
	seg.filter = seg.body[sh.filter : sh.filter+int64(sh.blocks)*blockBytes]
	return seg, nil
}

// readSegment reads all of a segment but its buckets. Errors are those of r, or errDamaged.
func readSegment(r io.ReaderAt, size int64, id identity) (*segment, error) {
	if size < segmentBytes(0) {
		return nil, fmt.Errorf("%w: it has %d bytes", errDamaged, size)
	}
	tail, err := readSection(r, id, sectionTail, size-tailBytes, tailBytes-sumBytes)
	if err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint64(tail)
	if n >= entriesMax || segmentBytes(int64(n)) != size || identity(tail[8:]) != id {
		return nil, fmt.Errorf("%w: its tail is another's", errDamaged)
	}
	s := shapeOf(int64(n))
	seg := &segment{id: id, n: int(n), shift: s.shift, starts: make([]uint32, s.buckets+1)}
	starts, err := readSection(r, id, sectionStarts, s.starts, 4*len(seg.starts))
	if err != nil {
		return nil, err
	}
	for i := range seg.starts {
		seg.starts[i] = binary.LittleEndian.Uint32(starts[4*i:])
		if i > 0 && (seg.starts[i] < seg.starts[i-1] || seg.starts[i]-seg.starts[i-1] > bucketRowsMax) {
			return nil, fmt.Errorf("%w: bucket %d is out of place", errDamaged, i)
		}
	}
	if seg.starts[0] != 0 || uint64(seg.starts[s.buckets]) != n {
		return nil, fmt.Errorf("%w: its buckets are not all", errDamaged)
	}
	seg.filter, err = seg.readFilter(r)
	return seg, err
}

func (s *segment) readFilter(r io.ReaderAt) ([]byte, error) {
	sh := shapeOf(int64(s.n))
	return readSection(r, s.id, sectionFilter, sh.filter, sh.blocks*blockBytes)
}

// readSection reads n bytes and the checksum behind them.
func readSection(r io.ReaderAt, id identity, number int, at int64, n int) ([]byte, error) {
	return readInto(make([]byte, n+sumBytes), r, id, number, at)
}

func readInto(b []byte, r io.ReaderAt, id identity, number int, at int64) ([]byte, error) {
	switch got, err := r.ReadAt(b, at); {
	case got == len(b):
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("%w: it ends too early", errDamaged)
	default:
		return nil, err
	}
	n := len(b) - sumBytes
	if binary.LittleEndian.Uint64(b[n:]) != id.sum(number, b[:n]) {
		return nil, fmt.Errorf("%w: a checksum is wrong", errDamaged)
	}
	return b[:n], nil
}

// open gives the bytes of a segment. fs.ErrNotExist if its file was removed.
func (s *segment) open() (io.ReaderAt, func() error, error) {
	if s.body != nil {
		return bytes.NewReader(s.body), func() error { return nil }, nil
	}
	f, err := os.Open(s.path)
	if err != nil {
		return nil, nil, err
	}
	return f, f.Close, nil
}

// each calls found for each key of ask, sorted by hash, that the segment has too, and for each row that has it.
func (s *segment) each(ask []hashed, found func(ask, stored hashed)) (err error) {
	if s.n == 0 || len(ask) == 0 {
		return nil
	}
	r, done, err := s.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	filter := s.filter
	if filter == nil {
		if filter, err = s.readFilter(r); err != nil {
			return err
		}
	}
	var (
		buf    []byte
		bucket []byte // entries of the bucket that was read last
		number = -1   // of it
	)
	for _, a := range ask {
		if !mayHave(filter, a) {
			continue
		}
		if b := int(a.hash >> s.shift); b != number { //nolint:gosec // a number of a bucket
			n := int(s.starts[b+1]-s.starts[b])*entryBytes + sumBytes
			buf = slices.Grow(buf[:0], n)[:n]
			at := int64(len(segmentMagic)) + int64(s.starts[b])*entryBytes + int64(b)*sumBytes
			if bucket, err = readInto(buf, r, s.id, b, at); err != nil {
				return err
			}
			number = b
		}
		n := len(bucket) / entryBytes
		i := sort.Search(n, func(i int) bool { return binary.LittleEndian.Uint64(bucket[i*entryBytes:]) >= a.hash })
		for ; i < n; i++ {
			e := entryAt(bucket[i*entryBytes:])
			if e.hash != a.hash {
				break
			}
			if e.more == a.more {
				found(a, e)
			}
		}
	}
	return nil
}

// addTo sets a key's bits in a filter.
func addTo(filter []byte, e hashed) {
	b := blockOf(filter, e)
	for i, salt := range filterSalts {
		w := b[4*i : 4*i+4]
		binary.LittleEndian.PutUint32(w, binary.LittleEndian.Uint32(w)|1<<(e.more*salt>>27))
	}
}

// mayHave tells whether a filter lets a key pass.
func mayHave(filter []byte, e hashed) bool {
	b := blockOf(filter, e)
	for i, salt := range filterSalts {
		if binary.LittleEndian.Uint32(b[4*i:])&(1<<(e.more*salt>>27)) == 0 {
			return false
		}
	}
	return true
}

// blockOf is the block of a key. Sorted keys pass a filter from its beginning to its end.
func blockOf(filter []byte, e hashed) []byte {
	hi, _ := bits.Mul64(e.hash, uint64(len(filter)/blockBytes))
	return filter[hi*blockBytes : (hi+1)*blockBytes : (hi+1)*blockBytes]
}

// filterSalts make eight independent bits of one number; odd, as multiplication wants it.
var filterSalts = [8]uint32{0x9e3779b1, 0x85ebca6b, 0xc2b2ae35, 0x27d4eb2f, 0x165667b1, 0xd3a2646d, 0xfd7046c5, 0xb55a4f09}

// byHash orders entries as a segment has them.
func byHash(a, b hashed) int {
	switch {
	case a.hash < b.hash:
		return -1
	case a.hash > b.hash:
		return 1
	}
	return cmp.Compare(a.row, b.row)
}

// sortHashed sorts by hash, eight bits at a time, in place. Hashes are spread evenly, so that two or three rounds leave
// parts that are sorted by looking at them.
func sortHashed(h []hashed) { sortFrom(h, 64-8) }

// sortFrom sorts entries whose hashes differ only in the bits below shift + 8.
func sortFrom(h []hashed, shift int) {
	const few = 32
	if len(h) <= few {
		for i := 1; i < len(h); i++ {
			e, j := h[i], i
			for ; j > 0 && byHash(e, h[j-1]) < 0; j-- {
				h[j] = h[j-1]
			}
			h[j] = e
		}
		return
	}
	if shift < 0 { // many rows of one key
		slices.SortFunc(h, byHash)
		return
	}
	var next, end [1 << 8]int
	part := func(e *hashed) int { return int(e.hash >> shift & 0xff) } //nolint:gosec // 8 bits
	for i := range h {
		end[part(&h[i])]++
	}
	at := 0
	for b := range end {
		next[b] = at
		at += end[b]
		end[b] = at
	}
	for b := range end {
		for next[b] < end[b] {
			d := part(&h[next[b]])
			if d != b {
				h[next[b]], h[next[d]] = h[next[d]], h[next[b]]
			}
			next[d]++
		}
	}
	from := 0
	for _, to := range end {
		sortFrom(h[from:to], shift-8)
		from = to
	}
}
