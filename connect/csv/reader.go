package csv

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/cauce-data/cauce/pipeline"
)

// RecordBytesMax bounds one record: a longer one is a bad row, and memory stays bounded whatever a file holds.
const RecordBytesMax = 2 << 20

// Reasons that stand in RawRow.Err and RawRow.Warning.
const (
	errBareQuote    = "a quote stands inside a field that does not begin with one"
	errInnerQuote   = "a quote inside a quoted field is not doubled"
	errUnclosed     = "a quoted field is not closed"
	errLineInQuotes = "the line ends inside a quoted field, and csv.multiline is off"
	errNUL          = "the record holds a NUL byte"
	warnEnd         = "the last record is not terminated"
)

// dialect says how records are written.
type dialect struct {
	delimiter []byte
	quote     []byte // empty: fields are never quoted
	multiline bool   // quoted fields may hold line breaks
	fields    int    // how many fields a record must have; 0: any number
	valid     bool   // the input is known to be UTF-8 without NUL
	encoding  string // of the original, for messages
}

// span is one field inside a record.
type span struct {
	from, to int  // without the quotes
	quoted   bool // stood in quotes
	escaped  bool // holds doubled quotes
}

// reader splits a file into records, exactly and in bounded memory.
//
// Of a record that breaks the rules of quoting only the first line is bad, and reading goes on with the next line: a
// single stray quote must not swallow what follows. The search for the closing quote, which such a line causes, ends
// at the next quote of the file, where no line before it can cause another; so the whole stays linear.
type reader struct {
	d     dialect
	src   io.Reader
	buf   []byte // buf[start:end] is read but not consumed
	start int
	end   int
	eof   bool
	err   error // of src

	offset   int64 // of buf[start] in the input
	line     int64 // on which buf[start] lies, from 1
	position int64 // of the last record
	spans    []span
}

func newReader(src io.Reader, d dialect) *reader {
	return &reader{d: d, src: src, buf: make([]byte, 256<<10), line: 1}
}

// fill reads more input, growing the buffer; it reports false if there is no more or the buffer has its greatest size.
func (r *reader) fill() bool {
	if r.eof {
		return false
	}
	if r.start > 0 {
		copy(r.buf, r.buf[r.start:r.end])
		r.end -= r.start
		r.start = 0
	}
	if r.end == len(r.buf) {
		if len(r.buf) > RecordBytesMax {
			return false
		}
		grown := make([]byte, min(2*len(r.buf), RecordBytesMax+64<<10))
		copy(grown, r.buf[:r.end])
		r.buf = grown
	}
	for empty := 0; ; empty++ {
		n, err := r.src.Read(r.buf[r.end:])
		r.end += n
		if err != nil {
			r.eof = true
			if !errors.Is(err, io.EOF) {
				r.err = err
			}
			return n > 0
		}
		if n > 0 {
			return true
		}
		if empty == 100 {
			r.eof, r.err = true, io.ErrNoProgress
			return false
		}
	}
}

// consume passes over n bytes that hold so many line ends.
func (r *reader) consume(n, lines int) {
	r.start += n
	r.offset += int64(n)
	r.line += int64(lines)
}

// next finds the next record. It returns false at the end of the input and on errors of the source. The row is filled
// only if want returns true for its position.
func (r *reader) next(row *pipeline.RawRow, want func(position int64) bool) (bool, error) {
	for {
		b := r.buf[r.start:r.end]
		nl := bytes.IndexByte(b, '\n')
		if nl < 0 && !r.eof {
			if r.fill() {
				continue
			}
			if !r.eof {
				return r.longLine(row, want)
			}
			b = r.buf[r.start:r.end]
		}
		if r.err != nil {
			return false, r.err
		}
		if len(b) == 0 {
			return false, nil
		}
		line, size, lines := b, len(b), 0
		if nl >= 0 {
			line, size, lines = b[:nl], nl+1, 1
		}
		line = bytes.TrimSuffix(line, []byte{'\r'})
		if len(line) == 0 { // a blank line is no record
			r.consume(size, lines)
			continue
		}
		if nl < 0 && len(line) > RecordBytesMax || nl > RecordBytesMax {
			return r.longLine(row, want)
		}
		if len(r.d.quote) == 0 || index(line, r.d.quote) < 0 {
			r.position++
			if want(r.position) {
				r.split(line)
				r.emit(row, line, "", nl < 0)
			}
			r.consume(size, lines)
			return true, nil
		}
		rec, size, lines, bad, more := r.quotedRecord(b)
		if more {
			if r.fill() {
				continue
			}
			if r.err != nil {
				return false, r.err
			}
			b = r.buf[r.start:r.end]
			if r.eof {
				rec, size, lines, bad, more = r.quotedRecord(b)
			}
		}
		if more || len(rec) > RecordBytesMax {
			bad = errUnclosed + fmt.Sprintf(" within %d bytes", RecordBytesMax)
		}
		if bad != "" {
			if nl = bytes.IndexByte(b, '\n'); nl >= 0 {
				line, size, lines = b[:nl], nl+1, 1
			} else {
				line, size, lines = b, len(b), 0
			}
			rec = bytes.TrimSuffix(line, []byte{'\r'})
		}
		r.position++
		if want(r.position) {
			r.emit(row, rec, bad, b[size-1] != '\n')
		}
		r.consume(size, lines)
		return true, nil
	}
}

// split finds the fields of a record without quotes.
func (r *reader) split(line []byte) {
	r.spans = r.spans[:0]
	at := 0
	for {
		i := index(line[at:], r.d.delimiter)
		if i < 0 {
			r.spans = append(r.spans, span{from: at, to: len(line)})
			return
		}
		r.spans = append(r.spans, span{from: at, to: at + i})
		at += i + len(r.d.delimiter)
	}
}

// quotedRecord finds the record at the beginning of b, which has a quote in its first line. It returns the record
// without its line end, how many bytes and lines it takes, or why it is bad; more means that b ends too early to tell.
func (r *reader) quotedRecord(b []byte) (rec []byte, size, lines int, bad string, more bool) {
	d := &r.d
	r.spans = r.spans[:0]
	at := 0
	for { // one field per turn; at stands where it begins
		if !bytes.HasPrefix(b[at:], d.quote) {
			if len(b)-at < len(d.quote) && !r.eof {
				return nil, 0, 0, "", true
			}
			end := bytes.IndexByte(b[at:], '\n')
			if end < 0 {
				if !r.eof {
					return nil, 0, 0, "", true
				}
				end = len(b) - at
			}
			rest := b[at : at+end]
			if i := index(rest, d.delimiter); i >= 0 {
				if index(rest[:i], d.quote) >= 0 {
					return nil, 0, 0, errBareQuote, false
				}
				r.spans = append(r.spans, span{from: at, to: at + i})
				at += i + len(d.delimiter)
				continue
			}
			rest = bytes.TrimSuffix(rest, []byte{'\r'})
			if index(rest, d.quote) >= 0 {
				return nil, 0, 0, errBareQuote, false
			}
			r.spans = append(r.spans, span{from: at, to: at + len(rest)})
			rec = b[:at+len(rest)]
			size = at + end
			if size < len(b) {
				size++
				lines++
			}
			return rec, size, lines, "", false
		}

		f := span{from: at + len(d.quote), quoted: true}
		at = f.from
		for {
			i := index(b[at:], d.quote)
			inside := b[at:]
			if i >= 0 {
				inside = b[at : at+i]
			}
			if n := bytes.Count(inside, []byte{'\n'}); n > 0 {
				if !d.multiline {
					return nil, 0, 0, errLineInQuotes, false
				}
				lines += n
			}
			if i < 0 {
				if r.eof {
					return nil, 0, 0, errUnclosed, false
				}
				return nil, 0, 0, "", true
			}
			f.to = at + i
			at = f.to + len(d.quote)
			if bytes.HasPrefix(b[at:], d.quote) {
				f.escaped = true
				at += len(d.quote)
				continue
			}
			break
		}
		rest := b[at:]
		if !r.eof && len(rest) < max(2, len(d.quote), len(d.delimiter)) {
			return nil, 0, 0, "", true
		}
		r.spans = append(r.spans, f)
		switch {
		case bytes.HasPrefix(rest, d.delimiter):
			at += len(d.delimiter)
		case len(rest) == 0:
			return b[:at], at, lines, "", false
		case rest[0] == '\n':
			return b[:at], at + 1, lines + 1, "", false
		case rest[0] == '\r' && len(rest) == 1: // only at the end of the input
			return b[:at], at + 1, lines, "", false
		case rest[0] == '\r' && rest[1] == '\n':
			return b[:at], at + 2, lines + 1, "", false
		default:
			return nil, 0, 0, errInnerQuote, false
		}
	}
}

// longLine passes over a line that is too long to be a record, keeping the beginning of its text.
func (r *reader) longLine(row *pipeline.RawRow, want func(int64) bool) (bool, error) {
	r.position++
	keep := want(r.position)
	if keep {
		raw := r.buf[r.start:min(r.end, r.start+pipeline.RawBytesMax)]
		*row = pipeline.RawRow{Position: r.position, Line: r.line, Offset: r.offset, Raw: printable(cut(raw))}
	}
	var size int64
	var last byte
	for {
		b := r.buf[r.start:r.end]
		if nl := bytes.IndexByte(b, '\n'); nl >= 0 {
			if nl > 0 {
				last = b[nl-1]
			}
			size += int64(nl)
			r.consume(nl+1, 1)
			break
		}
		if len(b) > 0 {
			last = b[len(b)-1]
		}
		size += int64(len(b))
		r.consume(len(b), 0)
		if !r.fill() {
			if r.err != nil {
				return false, r.err
			}
			if keep {
				row.Warning = warnEnd
			}
			break
		}
	}
	if last == '\r' {
		size--
	}
	if keep {
		row.RawBytes = size
		row.Err = fmt.Sprintf("the line has %d bytes, more than the %d that a record may have", size, RecordBytesMax)
	}
	return true, nil
}

// emit fills row with the record whose fields stand in r.spans.
func (r *reader) emit(row *pipeline.RawRow, rec []byte, bad string, unterminated bool) {
	*row = pipeline.RawRow{Position: r.position, Line: r.line, Offset: r.offset, RawBytes: int64(len(rec)), Err: bad}
	if unterminated {
		row.Warning = warnEnd
	}
	switch {
	case bad != "":
	case r.d.fields > 0 && len(r.spans) != r.d.fields:
		row.Err = fmt.Sprintf("the record has %d fields, expected %d", len(r.spans), r.d.fields)
	case !r.d.valid && bytes.IndexByte(rec, 0) >= 0:
		row.Err = errNUL
	case !r.d.valid && !utf8.Valid(rec):
		row.Err = fmt.Sprintf("the record is not valid %s at its byte %d", r.d.encoding, invalidAt(rec)+1)
	}
	if row.Err != "" {
		row.Raw = printable(cut(rec))
		return
	}
	text := string(rec)
	row.Values = make([]string, len(r.spans))
	for i, s := range r.spans {
		v := text[s.from:s.to]
		if s.quoted {
			if row.Quoted == nil {
				row.Quoted = make([]bool, len(r.spans))
			}
			row.Quoted[i] = true
			if s.escaped {
				q := string(r.d.quote)
				v = strings.ReplaceAll(v, q+q, q)
			}
		}
		row.Values[i] = v
	}
	row.Raw = text
	if len(text) > pipeline.RawBytesMax {
		row.Raw = string(cut(rec))
	}
}

// index is bytes.Index, quick for the usual single byte.
func index(b, sep []byte) int {
	if len(sep) == 1 {
		return bytes.IndexByte(b, sep[0])
	}
	return bytes.Index(b, sep)
}

// cut shortens raw text to what is kept, at the border of a character.
func cut(b []byte) []byte {
	if len(b) <= pipeline.RawBytesMax {
		return b
	}
	n := pipeline.RawBytesMax
	for i := 0; i < utf8.UTFMax && n > 0 && !utf8.RuneStart(b[n]); i++ {
		n--
	}
	return b[:n]
}

// printable is b as valid text without NUL, in which each byte that is not stands as \xNN: quarantine keeps text.
func printable(b []byte) string {
	if utf8.Valid(b) && bytes.IndexByte(b, 0) < 0 {
		return string(b)
	}
	out := make([]byte, 0, len(b)+len(b)/8)
	for len(b) > 0 && len(out) < pipeline.RawBytesMax-3 {
		c, n := utf8.DecodeRune(b)
		if c == 0 || c == utf8.RuneError && n == 1 {
			out = fmt.Appendf(out, `\x%02x`, b[0])
		} else {
			out = append(out, b[:n]...)
		}
		b = b[n:]
	}
	if len(out) > pipeline.RawBytesMax {
		out = cut(out)
	}
	return string(out)
}

// invalidAt is the index of the first byte that is not UTF-8.
func invalidAt(b []byte) int {
	for i := 0; i < len(b); {
		c, n := utf8.DecodeRune(b[i:])
		if c == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}
