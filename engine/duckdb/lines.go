package duckdb

import (
	"bytes"
	"context"
	"errors"
	"hash/maphash"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"
)

// # Reading CSV files line by line
//
// In nearly every CSV file a record is a line. Such files are split here, without a copy of each record, while they are
// read; whatever is of another kind goes to the reader that the file came with, which is exact in every case and gives
// the same records. DuckDB's own reader is not used: it hands over texts, whose exact casts then cost more than the
// reading, and it takes records for good that are not (one with an empty field too many).

const warnUnterminated = "last record is not terminated"

var (
	errBadRecord = errors.New("a record cannot be taken apart")
	errNotLines  = errors.New("records are not lines of bounded length")
)

// loadLines reads a file whose records are lines. ok is false, and nothing has happened, where they are not.
func (x *epoch) loadLines(ctx context.Context, p *part) (ok bool, warning string, err error) {
	f, c := p.file, x.p.plan.Source.CSV
	if f.Path == "" || !f.Plain || c.Delimiter <= 0 || c.Delimiter >= 0x80 || c.Quote >= 0x80 {
		return false, "", nil
	}
	// A position a row costs memory; it is the ordinal of the row unless rows are left out before.
	p.positions = x.p.plan.Filter != nil
	for {
		warning, err = x.tryLines(ctx, p, splitter{delimiter: byte(c.Delimiter), quote: byte(c.Quote), multiline: c.Multiline})
		switch {
		case err == nil:
			return true, warning, nil
		case errors.Is(err, errBadRecord) && !p.positions:
			p.positions = true
		case errors.Is(err, errNotLines):
			p.positions, p.structural = false, nil
			return false, "", x.drop(p)
		default:
			return false, "", err
		}
		if err := x.drop(p); err != nil {
			return false, "", err
		}
	}
}

func (x *epoch) tryLines(ctx context.Context, p *part, split splitter) (warning string, err error) {
	f := p.file
	in := input{fields: map[string]string{}, name: f.Name, ingestedAt: x.ingestedAt}
	for i, n := range f.Fields {
		in.fields[n] = "c" + strconv.Itoa(i)
	}
	if p.positions {
		in.position = "pos"
		p.structural = roaring64.New()
	}
	occurrences := map[[2]uint64]int64{}
	if x.p.plan.Uses("occurrence") {
		in.occurrence = "occ"
	}
	file, err := os.Open(f.Path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	nulls := x.p.plan.Source.CSV.NullValues
	var read int64
	err = x.loadRecords(ctx, p, in, f.Fields, func(ctx context.Context, b *recordBatches, send func(arrow.RecordBatch) bool) error {
		header := f.HasHeader
		values, quoted := make([]string, len(b.fields)), make([]bool, len(b.fields))
		sent := true
		unterminated, err := eachLine(ctx, file, func(line string) (bool, error) {
			if header {
				header = false
				// The names are known. A header that goes over several lines is for the exact reader.
				if err := split.record(line, values, quoted); errors.Is(err, errNotLines) {
					return false, err
				}
				return true, nil
			}
			read++
			if err := split.record(line, values, quoted); err != nil {
				if errors.Is(err, errBadRecord) && p.positions {
					p.structural.Add(uint64(read))
					return true, nil
				}
				return false, err
			}
			for i := range b.fields {
				if !b.fields[i].wanted() {
					continue
				}
				if v := values[i]; !quoted[i] && (v == "" || nulls != nil && slices.Contains(nulls, v)) {
					b.null(i)
				} else {
					b.text(i, v)
				}
			}
			if b.occurrence {
				k := [2]uint64{maphash.String(seedA, line), maphash.String(seedB, line)}
				occurrences[k]++
				b.occ.Append(occurrences[k])
			}
			if b.positions {
				b.pos.Append(read)
			}
			b.rows++
			if b.full() {
				sent = send(b.flush())
			}
			return sent, nil
		})
		if err != nil || !sent {
			return err
		}
		if b.rows > 0 {
			send(b.flush())
		}
		if unterminated && read > 0 {
			warning = warnUnterminated
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	p.read = read
	p.filtered = read - p.rows
	if p.structural != nil {
		p.filtered -= int64(p.structural.GetCardinality())
	}
	return warning, nil
}

// splitter takes lines apart by the rules of the exact reader.
type splitter struct {
	delimiter byte
	quote     byte // 0: fields are never quoted
	multiline bool // a quoted field may go on in the next line
}

// record fills values and quoted, which have the length of a record. Its errors are errBadRecord and errNotLines.
func (s splitter) record(line string, values []string, quoted []bool) error {
	if s.quote != 0 && strings.IndexByte(line, s.quote) >= 0 {
		return s.quotedRecord(line, values, quoted)
	}
	last := len(values) - 1
	for i := range values {
		quoted[i] = false
		k := strings.IndexByte(line, s.delimiter)
		if k < 0 != (i == last) {
			return errBadRecord
		}
		if k >= 0 {
			values[i], line = line[:k], line[k+1:]
		} else {
			values[i] = line
		}
	}
	return nil
}

func (s splitter) quotedRecord(line string, values []string, quoted []bool) error {
	q := string(rune(s.quote))
	bad := false
	for i := 0; ; i++ { // one field per turn
		var v string
		more := false
		isQuoted := line != "" && line[0] == s.quote
		if !isQuoted {
			v, line, more = strings.Cut(line, string(rune(s.delimiter)))
			bad = bad || strings.IndexByte(v, s.quote) >= 0
		} else {
			end, escaped := 1, false
			for {
				k := strings.IndexByte(line[end:], s.quote)
				if k < 0 {
					if s.multiline {
						return errNotLines
					}
					return errBadRecord
				}
				if end += k + 1; end < len(line) && line[end] == s.quote {
					escaped = true
					end++
					continue
				}
				break
			}
			v, line = line[1:end-1], line[end:]
			if escaped {
				v = strings.ReplaceAll(v, q+q, q)
			}
			if line != "" {
				if line[0] != s.delimiter {
					return errBadRecord
				}
				line, more = line[1:], true
			}
		}
		if bad {
			return errBadRecord
		}
		if i < len(values) {
			values[i], quoted[i] = v, isQuoted
		}
		if !more {
			if i != len(values)-1 {
				return errBadRecord
			}
			return nil
		}
	}
}

// lineBlock is how much of a file is read at once; no line may be longer.
const lineBlock = 1 << 20

var lineBlocks = sync.Pool{New: func() any { b := make([]byte, lineBlock); return &b }}

// eachLine calls each for the lines of a file that are not blank, without their ends, until it returns false.
// unterminated tells that the last one had no end.
func eachLine(ctx context.Context, r io.Reader, each func(line string) (bool, error)) (unterminated bool, err error) {
	block := lineBlocks.Get().(*[]byte)
	defer lineBlocks.Put(block)
	buf := *block
	kept := 0 // bytes of an unfinished line at the beginning of buf
	for {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		n, err := io.ReadFull(r, buf[kept:])
		last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			return false, err
		}
		n += kept
		end := bytes.LastIndexByte(buf[:n], '\n') + 1
		if last {
			unterminated = len(bytes.TrimSuffix(buf[end:n], []byte{'\r'})) > 0
			end = n
		} else if end == 0 {
			return false, errNotLines
		}
		// One copy of the block makes texts of all its fields.
		text := string(buf[:end])
		for text != "" {
			line := text
			if k := strings.IndexByte(text, '\n'); k >= 0 {
				line, text = text[:k], text[k+1:]
			} else {
				text = ""
			}
			if line = strings.TrimSuffix(line, "\r"); line == "" {
				continue
			}
			if more, err := each(line); err != nil || !more {
				return false, err
			}
		}
		if last {
			return unterminated, nil
		}
		kept = copy(buf, buf[end:n])
	}
}
