package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// record is one event.
type record struct {
	key   []byte // nil: it has none; an empty one counts as none
	id    string
	value []byte // nil: a tombstone
}

const (
	headBytes = 8
	flagNil   = 1
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	// errShort says that a record is not all there.
	errShort = errors.New("record is cut off")
	errWrong = errors.New("record is damaged")
)

func uvarintBytes(n int) int { return len(binary.AppendUvarint(nil, uint64(n))) } //nolint:gosec // not negative

// size is how many bytes the record takes in a segment.
func (r record) size() int64 {
	return int64(headBytes + 1 + uvarintBytes(len(r.key)) + len(r.key) + uvarintBytes(len(r.id)) + len(r.id) + len(r.value))
}

// appendRecord writes a record as a segment has it.
func appendRecord(b []byte, r record) ([]byte, error) {
	size := r.size()
	if size > recordMax {
		return nil, fmt.Errorf("an event of %d bytes is longer than %d", size, recordMax)
	}
	b = slices.Grow(b, int(size))
	begin := len(b)
	b = append(b, make([]byte, headBytes)...)
	flags := byte(0)
	if r.value == nil {
		flags = flagNil
	}
	b = append(b, flags)
	b = append(binary.AppendUvarint(b, uint64(len(r.key))), r.key...)
	b = append(binary.AppendUvarint(b, uint64(len(r.id))), r.id...)
	b = append(b, r.value...)
	body := b[begin+headBytes:]
	binary.LittleEndian.PutUint32(b[begin:], uint32(len(body))) //nolint:gosec // bounded above
	binary.LittleEndian.PutUint32(b[begin+4:], crc32.Checksum(body, castagnoli))
	return b, nil
}

// parseRecord reads the record at the beginning of b and tells its length. The record's slices are b's.
func parseRecord(b []byte) (r record, n int, err error) {
	if len(b) < headBytes {
		return r, 0, errShort
	}
	length := binary.LittleEndian.Uint32(b)
	if length < 3 || length > recordMax {
		return r, 0, errWrong
	}
	if n = headBytes + int(length); len(b) < n {
		return r, 0, errShort
	}
	body := b[headBytes:n]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(b[4:]) {
		return r, 0, errWrong
	}
	flags, body := body[0], body[1:]
	take := func() ([]byte, bool) {
		size, w := binary.Uvarint(body)
		if w <= 0 || size > uint64(len(body)-w) {
			return nil, false
		}
		v := body[w : w+int(size)] //nolint:gosec // bounded above
		body = body[w+int(size):]  //nolint:gosec // bounded above
		return v, true
	}
	key, ok := take()
	if !ok {
		return record{}, 0, errWrong
	}
	id, ok := take()
	if !ok {
		return record{}, 0, errWrong
	}
	r = record{key: key, id: string(id), value: body}
	if len(key) == 0 {
		r.key = nil
	}
	if flags&flagNil != 0 {
		r.value = nil
	}
	return r, n, nil
}

// bytes is what the file "sent" holds.
func (p place) bytes() []byte {
	b := binary.LittleEndian.AppendUint64(nil, p.segment)
	b = binary.LittleEndian.AppendUint64(b, uint64(p.offset)) //nolint:gosec // not negative
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// parsePlace reads what the file "sent" holds; ok is false where it holds nothing of use.
func parsePlace(b []byte) (p place, ok bool) {
	if len(b) != 20 || crc32.Checksum(b[:16], castagnoli) != binary.LittleEndian.Uint32(b[16:]) {
		return place{}, false
	}
	p = place{binary.LittleEndian.Uint64(b), int64(binary.LittleEndian.Uint64(b[8:]))} //nolint:gosec // checked here
	return p, p.offset >= 0
}

const segmentExt = ".seg"

func (s *Spool) path(n uint64) string {
	return filepath.Join(s.o.Dir, fmt.Sprintf("%016x%s", n, segmentExt))
}

// recover takes stock of the folder.
func (s *Spool) recover() error {
	name := filepath.Join(s.o.Dir, "sent")
	b, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	at, known := parsePlace(b)
	if s.sent, err = os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.o.Dir) // sorted
	if err != nil {
		return err
	}
	var numbers []uint64
	for _, e := range entries {
		if text, ok := strings.CutSuffix(e.Name(), segmentExt); ok {
			n, err := strconv.ParseUint(text, 16, 64)
			if err != nil {
				return fmt.Errorf("%s is no segment", e.Name())
			}
			numbers = append(numbers, n)
		}
	}
	for i, n := range numbers {
		if known && n < at.segment {
			if err := os.Remove(s.path(n)); err != nil {
				return err
			}
			continue
		}
		from := int64(0)
		if known && n == at.segment {
			from = at.offset
		}
		if err := s.scan(n, from, i == len(numbers)-1); err != nil {
			return err
		}
	}
	switch {
	case len(s.segments) == 0: // the first event makes one
		s.at = place{segment: at.segment + 1}
	case known && at.segment == s.segments[0].n:
		s.at = place{at.segment, min(at.offset, s.segments[0].size)}
	default:
		s.at = place{segment: s.segments[0].n}
	}
	// A segment that a power cut has shortened grows again: what will stand there is not sent.
	if _, err := s.sent.WriteAt(s.at.bytes(), 0); err != nil {
		return err
	}
	if len(s.segments) == 0 {
		return nil
	}
	last := s.segments[len(s.segments)-1]
	if s.w, err = os.OpenFile(s.path(last.n), os.O_WRONLY, 0); err != nil {
		return err
	}
	if err := s.w.Truncate(last.size); err != nil {
		return err
	}
	_, err = s.w.Seek(last.size, 0)
	return err
}

// scan counts the records of a segment that are not sent, those from byte from on. What stands before is not looked at, so
// that damage there costs nothing.
func (s *Spool) scan(n uint64, from int64, last bool) error {
	b, err := os.ReadFile(s.path(n))
	if err != nil {
		return err
	}
	seg := &segment{n: n}
	s.segments = append(s.segments, seg)
	if from > int64(len(b)) { // a power cut has shortened it, and all of it is sent
		for {
			_, size, err := parseRecord(b[seg.size:])
			if err != nil {
				return nil
			}
			seg.size += int64(size)
		}
	}
	for seg.size = from; seg.size < int64(len(b)); {
		rest := b[seg.size:]
		_, size, err := parseRecord(rest)
		if err != nil {
			if last && err == errShort && !wholeBehind(rest) { //nolint:errorlint // parseRecord's own
				break
			}
			kept, e := s.keep(n, seg.size, rest)
			if e != nil {
				return fmt.Errorf("%s is damaged at byte %d, and what is lost cannot be copied: %w", s.path(n), seg.size, e)
			}
			s.damaged += int64(len(rest))
			s.o.Log.Error("events in the spool are damaged and lost", "segment", s.path(n), "at_byte", seg.size, "bytes", len(rest), "reason", err, "copy", kept)
			break
		}
		s.events++
		s.bytes += int64(size)
		seg.size += int64(size)
	}
	return nil
}

// wholeBehind tells whether a whole record stands somewhere behind the beginning of b. A record before it was whole too
// once, and was not cut off but has lost its length.
func wholeBehind(b []byte) bool {
	most := 1 << 30 // bytes to look at, since any four may pass for a length; beyond, damage is assumed
	for i := 1; i+headBytes < len(b); i++ {
		if _, _, err := parseRecord(b[i:]); err == nil {
			return true
		}
		if n := int64(binary.LittleEndian.Uint32(b[i:])); n <= int64(len(b)-i-headBytes) {
			most -= int(n)
		}
		if most < 0 {
			return true
		}
	}
	return false
}

// keep copies what cannot be read of a segment to a file that nothing reads or removes.
func (s *Spool) keep(n uint64, at int64, rest []byte) (string, error) {
	name := filepath.Join(s.o.Dir, fmt.Sprintf("%016x-%d.damaged", n, at))
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return "", err
	}
	_, err = f.Write(rest)
	return name, errors.Join(err, f.Sync(), f.Close(), s.syncFolder())
}

// room sees to it that there is a segment to write to. The lock is held.
func (s *Spool) room() error {
	n := s.at.segment
	if len(s.segments) > 0 {
		last := s.segments[len(s.segments)-1]
		// A segment is left when it is long, and earlier when all of it is sent, so that little stays on disk.
		if last.size < s.o.segmentBytes && (s.events > 0 || last.size < s.o.segmentBytes/16) {
			return nil
		}
		n = last.n + 1
	}
	f, err := os.OpenFile(s.path(n), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if s.w != nil {
		err = errors.Join(s.flush(), s.w.Close())
	}
	s.w = f
	s.segments = append(s.segments, &segment{n: n})
	if err = errors.Join(err, s.syncFolder()); err != nil {
		// Nobody knows what of it will stand on disk.
		s.fail(fmt.Errorf("spool %s: %w", s.o.Dir, err))
		return s.failed
	}
	return nil
}

// syncFolder makes a new segment's name durable.
func (s *Spool) syncFolder() error {
	d, err := os.Open(s.o.Dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
