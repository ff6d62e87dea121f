// Package jsonl splits files of JSON into records: an object a line (jsonl), or an array of objects or objects one after
// the other (json). It stands between staged files and engines: what an object says is the engine's to read, with the
// same scanner that reads the records of streams, and a record that is no object is refused there, with its text.
package jsonl

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"

	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/pipeline"
)

// RecordBytesMax is the longest record that is read; a longer one goes to quarantine with what fits there.
const RecordBytesMax = 2 << 20

// Stager makes a file ready at a local path, as UTF-8 (connect/csv.Opener).
type Stager interface {
	Stage(ctx context.Context, store objstore.Store, info objstore.Info, src *pipeline.Source, binary bool) (*pipeline.RawFile, error)
}

// Opener makes JSON files ready for reading. It is safe for concurrent use.
type Opener struct{ Stager Stager }

// Open makes one file ready; each of its records has one value, the text of an object. The caller closes the file.
func (o Opener) Open(ctx context.Context, store objstore.Store, info objstore.Info, src *pipeline.Source) (*pipeline.RawFile, error) {
	f, err := o.Stager.Stage(ctx, store, info, src, false)
	if err != nil {
		return nil, err
	}
	lines := src.Format == pipeline.FormatJSONL
	f.Rows = func(ctx context.Context) iter.Seq2[pipeline.RawRow, error] {
		return records(ctx, f, lines, func(int64) bool { return true })
	}
	f.RowsAt = func(ctx context.Context, positions []int64) iter.Seq2[pipeline.RawRow, error] {
		return records(ctx, f, lines, func(p int64) bool {
			for len(positions) > 0 && positions[0] < p {
				positions = positions[1:]
			}
			return len(positions) > 0 && positions[0] == p
		})
	}
	return f, nil
}

func records(ctx context.Context, f *pipeline.RawFile, lines bool, want func(int64) bool) iter.Seq2[pipeline.RawRow, error] {
	return func(yield func(pipeline.RawRow, error) bool) {
		file, err := os.Open(f.Path)
		if err != nil {
			if u := f.Unchanged(ctx); errors.Is(u, pipeline.ErrChanged) {
				err = u
			}
			yield(pipeline.RawRow{}, fmt.Errorf("%s: %w", f.Name, err))
			return
		}
		defer file.Close()
		s := &splitter{r: bufio.NewReaderSize(file, 256<<10), line: 1}
		next := s.value
		if lines {
			next = s.oneLine
		}
		for n := int64(1); ; n++ {
			if n&1023 == 0 && ctx.Err() != nil {
				yield(pipeline.RawRow{}, ctx.Err())
				return
			}
			row, err := next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				yield(pipeline.RawRow{}, fmt.Errorf("%s: %w", f.Name, err))
				return
			}
			row.Position = n
			if want(n) && !yield(row, nil) {
				return
			}
		}
		if err := f.Unchanged(ctx); err != nil {
			yield(pipeline.RawRow{}, err)
		}
	}
}

// splitter cuts a text into records. What begins a record in the middle of damage is decided by brackets alone, so one
// bad record does not take the following ones with it, unless it leaves a bracket or a quote open.
type splitter struct {
	r      *bufio.Reader
	offset int64
	line   int64
	buf    []byte // the record so far, at most RecordBytesMax bytes and one more
	size   int64  // of the record, with what no longer fits into buf
	array  bool   // the file is an array that has not ended yet
	ended  bool   // the array has ended
	told   bool   // that the array has no end
}

func (s *splitter) begin() pipeline.RawRow {
	s.buf, s.size = s.buf[:0], 0
	return pipeline.RawRow{Line: s.line, Offset: s.offset}
}

func (s *splitter) byte() (byte, error) {
	c, err := s.r.ReadByte()
	if err != nil {
		return 0, err
	}
	s.offset++
	if c == '\n' {
		s.line++
	}
	return c, nil
}

func (s *splitter) keep(c byte) {
	s.size++
	if len(s.buf) <= RecordBytesMax {
		s.buf = append(s.buf, c)
	}
}

// end makes a row of what was kept.
func (s *splitter) end(row pipeline.RawRow, bad string) pipeline.RawRow {
	text := string(s.buf)
	row.RawBytes = s.size
	row.Raw = text[:min(len(text), pipeline.RawBytesMax)]
	switch {
	case bad != "":
		row.Err = bad
	case s.size > RecordBytesMax:
		row.Err = fmt.Sprintf("the record has %d bytes, more than the %d that a record may have", s.size, RecordBytesMax)
	default:
		row.Values = []string{text}
	}
	return row
}

// oneLine reads the next line that is not blank.
func (s *splitter) oneLine() (pipeline.RawRow, error) {
	for {
		row := s.begin()
		terminated := false
		for !terminated {
			part, err := s.r.ReadSlice('\n')
			s.offset += int64(len(part))
			terminated = bytes.HasSuffix(part, []byte("\n"))
			if terminated {
				s.line++
				part = part[:len(part)-1]
			}
			s.size += int64(len(part))
			s.buf = append(s.buf, part[:min(len(part), max(0, RecordBytesMax+1-len(s.buf)))]...)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
				return row, err
			}
		}
		if n := len(s.buf); s.size == int64(n) && n > 0 && s.buf[n-1] == '\r' {
			s.buf, s.size = s.buf[:n-1], s.size-1
		}
		if len(bytes.TrimSpace(s.buf)) > 0 || s.size > int64(len(s.buf)) {
			if !terminated {
				row.Warning = "last record is not terminated"
			}
			return s.end(row, ""), nil
		}
		if !terminated {
			return row, io.EOF
		}
	}
}

// value reads the next value of an array or of a sequence.
func (s *splitter) value() (pipeline.RawRow, error) {
	var c byte
	var err error
	first := s.offset == 0
	row := s.begin()
	for {
		row.Line, row.Offset = s.line, s.offset
		if c, err = s.byte(); err != nil {
			if errors.Is(err, io.EOF) && s.array && !s.told {
				s.told = true
				return s.end(row, "the array is not closed: the file seems to be cut"), nil
			}
			return row, err
		}
		switch {
		case c == ' ', c == '\t', c == '\n', c == '\r':
			continue
		case c == '[' && first && !s.array:
			s.array = true
			first = false
			continue
		case c == ',' && s.array:
			continue
		case c == ']' && s.array:
			s.array, s.ended = false, true
			continue
		}
		break
	}
	s.keep(c)
	depth, quoted := 0, false
	for {
		switch {
		case quoted && c == '\\':
			if c, err = s.byte(); err == nil {
				s.keep(c)
			}
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{', c == '[':
			depth++
		case c == '}', c == ']':
			depth--
		}
		if err == nil && depth <= 0 && !quoted {
			if s.size > 1 || c == '}' || c == ']' {
				switch s.buf[0] {
				case '{', '[', '"', '}', ']':
					return s.close(row), nil
				}
			}
			next, peekErr := s.r.Peek(1)
			if peekErr != nil || bytes.IndexByte([]byte(" \t\r\n,]{[\""), next[0]) >= 0 {
				return s.close(row), nil
			}
		}
		if err == nil {
			c, err = s.byte()
		}
		if errors.Is(err, io.EOF) {
			s.told = true
			return s.end(row, "the file ends within the record"), nil
		}
		if err != nil {
			return row, err
		}
		s.keep(c)
	}
}

func (s *splitter) close(row pipeline.RawRow) pipeline.RawRow {
	if s.ended {
		return s.end(row, "something follows the array")
	}
	return s.end(row, "")
}
