package pgwire

import (
	"encoding/binary"
	"math"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/cauce-data/cauce/serve"
	"github.com/cauce-data/cauce/serve/sqltext"
)

// copyOptions say how COPY … TO STDOUT writes.
type copyOptions struct {
	format     string // text, csv or binary
	delimiter  byte
	null       string
	header     bool
	quote      byte
	escape     byte
	forceQuote bool // every value
}

func notCopy(format string, args ...any) error {
	return &serve.Error{Code: serve.CodeSyntax, Message: sprintf(format, args...)}
}

// parseCopy reads COPY (query) TO STDOUT or COPY table [(columns)] TO STDOUT and gives the query.
func parseCopy(st *sqltext.Statement) (query string, o copyOptions, err error) {
	at := 1
	switch {
	case st.Text(at) == "(":
		end := closing(st, at)
		query = st.Between(at+1, end)
		at = end + 1
	default:
		start := at
		for at < len(st.Tokens) && st.Text(at) != "(" && st.Word(at) != "TO" && st.Word(at) != "FROM" {
			at++
		}
		table, columns := st.Between(start, at), "*"
		if st.Text(at) == "(" {
			end := closing(st, at)
			columns = st.Between(at+1, end)
			at = end + 1
		}
		query = "SELECT " + columns + " FROM " + table
	}
	switch {
	case st.Word(at) == "FROM":
		return "", o, &serve.Error{Code: serve.CodeReadOnly, Message: "cannot execute COPY FROM: this door to the lake is for reading"}
	case st.Word(at) != "TO":
		return "", o, notCopy("syntax error at or near %q", st.Text(at))
	case st.Word(at+1) != "STDOUT":
		return "", o, &serve.Error{Code: serve.CodePermission, Message: "COPY to a file of the server is not allowed", Hint: `COPY … TO STDOUT sends it to the client; psql has \copy`}
	}
	at += 2
	o = copyOptions{format: "text", quote: '"'}
	nullSet := false
	if st.Word(at) == "WITH" {
		at++
	}
	inside := st.Text(at) == "("
	if inside {
		at++
	}
	char := func(i int) (byte, error) {
		v, ok := st.Literal(i)
		if !ok || len(v) != 1 {
			return 0, notCopy("COPY: %s is no single one-byte character", st.Text(i))
		}
		return v[0], nil
	}
	word := func(i int) string { // in quotes or without
		if v, ok := st.Literal(i); ok {
			return v
		}
		v, _ := st.Name(i)
		return v
	}
	for at < len(st.Tokens) {
		option := st.Word(at)
		next := at + 1
		if st.Word(next) == "AS" {
			next++
		}
		switch option {
		case "FORMAT":
			o.format = strings.ToLower(word(next))
			at = next + 1
		case "CSV", "BINARY", "TEXT":
			o.format = strings.ToLower(option)
			at++
		case "DELIMITER":
			if o.delimiter, err = char(next); err != nil {
				return "", o, err
			}
			at = next + 1
		case "NULL":
			o.null, _ = st.Literal(next)
			nullSet = true
			at = next + 1
		case "HEADER":
			at++
			o.header = true
			switch v := strings.ToLower(strings.Trim(st.Text(at), "'")); v {
			case "true", "on", "1", "false", "off", "0":
				o.header = v == "true" || v == "on" || v == "1"
				at++
			}
		case "QUOTE":
			if o.quote, err = char(next); err != nil {
				return "", o, err
			}
			at = next + 1
		case "ESCAPE":
			if o.escape, err = char(next); err != nil {
				return "", o, err
			}
			at = next + 1
		case "ENCODING":
			if !serve.UTF8(word(next)) {
				return "", o, &serve.Error{Code: serve.CodeNotSupported, Message: sprintf("COPY: encoding %q is not supported: it is UTF8", word(next))}
			}
			at = next + 1
		case "FORCE", "FORCE_QUOTE":
			at++
			if st.Word(at) == "QUOTE" {
				at++
			}
			if st.Text(at) != "*" {
				return "", o, &serve.Error{Code: serve.CodeNotSupported, Message: "COPY: FORCE_QUOTE is supported for * only"}
			}
			o.forceQuote = true
			at++
		default:
			if t := st.Text(at); t == "," || inside && t == ")" {
				at++
				continue
			}
			return "", o, notCopy("COPY: option %q not recognized", st.Text(at))
		}
	}
	switch o.format {
	case "text":
		if o.delimiter == 0 {
			o.delimiter = '\t'
		}
		if !nullSet {
			o.null = `\N`
		}
	case "csv":
		if o.delimiter == 0 {
			o.delimiter = ','
		}
		if o.escape == 0 {
			o.escape = o.quote
		}
	case "binary":
	default:
		return "", o, &serve.Error{Code: serve.CodeInvalidParameter, Message: sprintf("COPY format %q not recognized: it is text, csv or binary", o.format)}
	}
	return query, o, o.check()
}

// check refuses, as PostgreSQL does, marks by which nobody could tell values from what stands between them.
func (o copyOptions) check() error {
	wrong := ""
	switch delimiter := string([]byte{o.delimiter}); {
	case o.format == "binary":
	case strings.ContainsAny(delimiter, "\r\n"), o.format == "text" && strings.ContainsAny(delimiter, `\.abcdefghijklmnopqrstuvwxyz0123456789`):
		wrong = sprintf("the delimiter cannot be %q", delimiter)
	case strings.ContainsAny(o.null, "\r\n"+delimiter):
		wrong = sprintf("the text of null, %q, cannot have the delimiter or the end of a line in it", o.null)
	case o.format == "csv" && o.delimiter == o.quote:
		wrong = "delimiter and quote must be different"
	case o.format == "csv" && strings.IndexByte(o.null, o.quote) >= 0:
		wrong = sprintf("the text of null, %q, cannot have the quote in it", o.null)
	}
	if wrong == "" {
		return nil
	}
	return &serve.Error{Code: serve.CodeInvalidParameter, Message: "COPY: " + wrong}
}

// closing gives the place of the bracket that closes the one at i.
func closing(st *sqltext.Statement, i int) int {
	depth := 0
	for ; i < len(st.Tokens); i++ {
		switch st.Text(i) {
		case "(":
			depth++
		case ")":
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return len(st.Tokens)
}

// copyOut sends rows as COPY does and gives their number.
func (c *conn) copyOut(rows *serve.Rows, o copyOptions) (n int64, err error) {
	format := int16(pgtype.TextFormatCode)
	if o.format == "binary" {
		format = pgtype.BinaryFormatCode
	}
	codes := make([]uint16, len(rows.Columns))
	encoders := make([]encoder, len(rows.Columns))
	for i, col := range rows.Columns {
		codes[i] = uint16(format)
		encoders[i] = newEncoder(columnType(col), format, c.zone())
	}
	// The first batch before the answer: until then an error is an error of the statement.
	batch, err := rows.Next()
	if err != nil {
		return 0, err
	}
	c.send(&pgproto3.CopyOutResponse{OverallFormat: byte(format), ColumnFormatCodes: codes})
	var buf, value []byte
	switch {
	case o.format == "binary":
		buf = append(buf, "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00"...)
	case o.header:
		for i, col := range rows.Columns {
			if i > 0 {
				buf = append(buf, o.delimiter)
			}
			buf = o.value(buf, []byte(col.Name))
		}
		buf = append(buf, '\n')
		c.send(&pgproto3.CopyData{Data: buf})
		buf = buf[:0]
	}
	for batch != nil {
		for row := range int(batch.NumRows()) {
			if o.format == "binary" {
				buf = binary.BigEndian.AppendUint16(buf, uint16(len(encoders)))
			}
			for i, encode := range encoders {
				col := batch.Column(i)
				if i > 0 && o.format != "binary" {
					buf = append(buf, o.delimiter)
				}
				if col.IsNull(row) {
					if o.format == "binary" {
						buf = binary.BigEndian.AppendUint32(buf, math.MaxUint32)
					} else {
						buf = append(buf, o.null...)
					}
					continue
				}
				if value, err = encode(value[:0], col, row); err != nil {
					return n, err
				}
				if o.format == "binary" {
					buf = binary.BigEndian.AppendUint32(buf, uint32(len(value)))
					buf = append(buf, value...)
				} else {
					buf = o.value(buf, value)
				}
			}
			if o.format != "binary" {
				buf = append(buf, '\n')
			}
			n++
			// One message for each row, as PostgreSQL does it: drivers such as ADBC's read no more of a message. What the
			// message holds is copied when it is sent.
			c.send(&pgproto3.CopyData{Data: buf})
			if c.unsent += len(buf) + 8; c.unsent > 32<<10 {
				if err := c.flush(); err != nil {
					return n, err
				}
			}
			buf = buf[:0]
		}
		if batch, err = rows.Next(); err != nil {
			return n, err
		}
	}
	if o.format == "binary" {
		buf = binary.BigEndian.AppendUint16(buf, math.MaxUint16)
	}
	if len(buf) > 0 {
		c.send(&pgproto3.CopyData{Data: buf})
	}
	c.send(&pgproto3.CopyDone{})
	return n, nil
}

// value appends a value that is not null, with what its format marks.
func (o copyOptions) value(dst, v []byte) []byte {
	if o.format == "text" {
		for _, c := range v {
			switch c {
			case '\\':
				dst = append(dst, `\\`...)
			case '\n':
				dst = append(dst, `\n`...)
			case '\r':
				dst = append(dst, `\r`...)
			case '\t':
				dst = append(dst, `\t`...)
			case '\b':
				dst = append(dst, `\b`...)
			case '\f':
				dst = append(dst, `\f`...)
			case '\v':
				dst = append(dst, `\v`...)
			case o.delimiter:
				dst = append(dst, '\\', c)
			default:
				dst = append(dst, c)
			}
		}
		return dst
	}
	if !o.forceQuote && string(v) != o.null && string(v) != `\.` && !strings.ContainsAny(string(v), "\r\n"+string([]byte{o.delimiter, o.quote})) {
		return append(dst, v...)
	}
	dst = append(dst, o.quote)
	for _, c := range v {
		if c == o.quote || c == o.escape {
			dst = append(dst, o.escape)
		}
		dst = append(dst, c)
	}
	return append(dst, o.quote)
}
