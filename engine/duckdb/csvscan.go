package duckdb

import (
	"bytes"
	"context"
	"io"
	"os"
)

// csvShape is what a look at the bytes of a CSV file tells: whether DuckDB's reader will split it into the same records
// as the exact reader does, and how many.
type csvShape struct {
	exact        bool  // every quote opens or closes a field or is doubled, no blank line, no huge line
	records      int64 // header included
	quotes       bool
	crlf         bool
	multiline    bool // some quoted field holds a line break
	unterminated bool // the last record has no line end
}

const (
	scanBlock = 1 << 20
	// A record is shorter than two blocks if every block ends a line; DuckDB is told so.
	recordBytesMax = 2 * scanBlock
)

// scanCSV reads a file of valid UTF-8 whose lines all end alike. quote 0 means that nothing is quoted.
func scanCSV(ctx context.Context, path string, delimiter, quote rune) (csvShape, error) {
	var s csvShape
	f, err := os.Open(path)
	if err != nil {
		return s, err
	}
	defer f.Close()
	if delimiter >= 0x80 || quote >= 0x80 {
		return s, nil // the exact reader knows
	}
	q, d := byte(quote), byte(delimiter)
	s.exact = true
	buf := make([]byte, scanBlock)
	last := byte('\n') // the byte before the block
	before := byte('\n')
	inQuotes := false // a field is open at the end of the last block
	closing := false  // the last byte was a quote that closes the field or is the first of two
	sinceLine := 0
	for {
		if err := ctx.Err(); err != nil {
			return s, err
		}
		n, err := io.ReadFull(f, buf)
		b := buf[:n]
		if n > 0 {
			if !inQuotes && !closing && (quote == 0 || bytes.IndexByte(b, q) < 0) {
				lines := bytes.Count(b, []byte{'\n'})
				s.records += int64(lines)
				if lines == 0 {
					sinceLine++
				} else {
					sinceLine = 0
				}
				if b[0] == '\n' && (last == '\n' || last == '\r' && before == '\n') || b[0] == '\r' && last == '\n' ||
					bytes.Contains(b, []byte("\n\n")) || bytes.Contains(b, []byte("\n\r")) {
					s.exact = false
				}
				if !s.crlf && bytes.IndexByte(b, '\r') >= 0 {
					s.crlf = true
				}
				if n > 1 {
					before = b[n-2]
				} else {
					before = last
				}
				last = b[n-1]
			} else {
				s.quotes = true
				had := s.records
				prev, prev2 := last, before
				for _, c := range b {
					switch {
					case closing: // after a quote inside a quoted field
						closing = false
						switch c {
						case q:
							prev2, prev = prev, 0 // a doubled quote: the field stays open
							continue
						case d, '\n', '\r':
							inQuotes = false
						default:
							s.exact = false
							inQuotes = false
						}
					case inQuotes:
						switch c {
						case q:
							closing = true
						case '\n':
							s.multiline = true
						}
						prev2, prev = prev, 0
						continue
					}
					switch c {
					case '\n':
						if prev == '\n' || prev == '\r' && prev2 == '\n' {
							s.exact = false
						}
						s.records++
					case '\r':
						s.crlf = true
					case q:
						if prev == d || prev == '\n' {
							inQuotes = true
						} else {
							s.exact = false
						}
					}
					prev2, prev = prev, c
					if !s.exact {
						break
					}
				}
				if s.records == had {
					sinceLine++
				} else {
					sinceLine = 0
				}
				last, before = prev, prev2
				if !s.exact {
					return s, nil
				}
			}
			if sinceLine > 0 && n == scanBlock {
				s.exact = false
			}
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			break
		}
		if err != nil {
			return s, err
		}
		if !s.exact {
			return s, nil
		}
	}
	if closing { // the file ends right after a closing quote
		inQuotes = false
		last = q
	}
	if inQuotes {
		s.exact = false
	}
	if last != '\n' {
		s.unterminated = true
		s.records++
	}
	return s, nil
}
