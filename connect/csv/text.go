package csv

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

// signatures are the first bytes of files that are often taken for CSV and are not.
var signatures = []struct{ prefix, what string }{
	{"\x1f\x8b", "a gzip file; its name must end in .gz"},
	{"\x28\xb5\x2f\xfd", "a zstd file; its name must end in .zst"},
	{"PK\x03\x04", "a zip archive or an office document; the name of an archive must end in .zip"},
	{"PAR1", "a Parquet file"},
	{"%PDF-", "a PDF document"},
	{"\x7fELF", "a program"},
	{"\xd0\xcf\x11\xe0", "an old office document"},
}

// decoder gives the text of plain in UTF-8 without byte order mark. A mark wins over the configured name. Bytes that
// the encoding does not define come out as 0xFF, which no UTF-8 has, so that every reader finds the record bad.
// asIs tells that the text has the bytes of plain.
func decoder(plain io.Reader, name string) (text io.Reader, canonical string, asIs bool, err error) {
	b := bufio.NewReaderSize(plain, 64<<10)
	head, err := b.Peek(8)
	if err != nil && err != io.EOF { //nolint:errorlint // only the bare one is an end
		return nil, "", false, err
	}
	for _, s := range signatures {
		if bytes.HasPrefix(head, []byte(s.prefix)) {
			return nil, "", false, fmt.Errorf("%w: it looks like %s", ErrNotText, s.what)
		}
	}
	var enc encoding.Encoding
	canonical = strings.ToLower(name)
	switch {
	case bytes.HasPrefix(head, []byte("\xef\xbb\xbf")):
		_, err := b.Discard(3)
		return b, "utf-8", false, err
	case bytes.HasPrefix(head, []byte("\xff\xfe")):
		enc, canonical = unicode.UTF16(unicode.LittleEndian, unicode.ExpectBOM), "utf-16le"
	case bytes.HasPrefix(head, []byte("\xfe\xff")):
		enc, canonical = unicode.UTF16(unicode.BigEndian, unicode.ExpectBOM), "utf-16be"
	case name == "" || canonical == "utf-8" || canonical == "utf8":
		return b, "utf-8", true, nil
	default:
		if enc, err = htmlindex.Get(name); err != nil {
			return nil, "", false, fmt.Errorf("%w: %q", ErrEncoding, name)
		}
		if n, err := htmlindex.Name(enc); err == nil {
			canonical = n
		}
		if canonical == "utf-8" {
			return b, canonical, true, nil
		}
	}
	return transform.NewReader(b, transform.Chain(enc.NewDecoder(), undefined{})), canonical, false, nil
}

// undefined replaces U+FFFD, by which decoders mark what they can't decode, with 0xFF.
type undefined struct{ transform.NopResetter }

func (undefined) Transform(dst, src []byte, atEOF bool) (nDst, nSrc int, err error) {
	const mark = "\ufffd"
	for nSrc < len(src) {
		rest := src[nSrc:]
		n := bytes.Index(rest, []byte(mark))
		hit := n >= 0
		if !hit {
			n = len(rest)
			if !atEOF {
				for k := min(len(mark)-1, n); k > 0; k-- {
					if bytes.HasSuffix(rest, []byte(mark[:k])) {
						n -= k
						break
					}
				}
			}
		}
		c := copy(dst[nDst:], rest[:n])
		nDst += c
		nSrc += c
		switch {
		case c < n:
			return nDst, nSrc, transform.ErrShortDst
		case !hit && nSrc < len(src):
			return nDst, nSrc, transform.ErrShortSrc
		case hit:
			if nDst == len(dst) {
				return nDst, nSrc, transform.ErrShortDst
			}
			dst[nDst] = 0xff
			nDst++
			nSrc += len(mark)
		}
	}
	return nDst, nSrc, nil
}

// analysis finds out, chunk by chunk, whether a file is text and how its lines end.
type analysis struct {
	head       int64 // bytes judged as the beginning
	odd        int   // of them, bytes that text rarely has
	nul, other bool  // NUL bytes, invalid UTF-8
	lf, cr     int64
	crlf       int64
	lastCR     bool
	tail       []byte // beginning of a character that the chunk's end cuts
}

// textHead is how much of a file must look like text.
const textHead = 64 << 10

func (a *analysis) add(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	nul := bytes.IndexByte(b, 0)
	if a.head < textHead {
		h := b[:min(len(b), int(textHead-a.head))]
		if nul >= 0 && nul < len(h) {
			return fmt.Errorf("%w: byte %d is NUL (UTF-16 without a mark needs csv.encoding: utf-16le or utf-16be)", ErrNotText, a.head+int64(nul))
		}
		for i := 0; i < len(h); {
			c, n := utf8.DecodeRune(h[i:])
			if c == utf8.RuneError && n == 1 || c < ' ' && c != '\t' && c != '\n' && c != '\r' && c != '\f' {
				a.odd++
			}
			i += n
		}
		a.head += int64(len(h))
		if a.odd > 32 && int64(a.odd) > a.head/4 {
			return fmt.Errorf("%w: %d of its first %d bytes are control characters or invalid UTF-8", ErrNotText, a.odd, a.head)
		}
	}
	a.nul = a.nul || nul >= 0

	a.lf += int64(bytes.Count(b, []byte{'\n'}))
	if n := bytes.Count(b, []byte{'\r'}); n > 0 {
		a.cr += int64(n)
		a.crlf += int64(bytes.Count(b, []byte("\r\n")))
	}
	if a.lastCR && b[0] == '\n' {
		a.crlf++
	}
	a.lastCR = b[len(b)-1] == '\r'

	if a.other {
		return nil
	}
	for len(a.tail) > 0 && len(b) > 0 && !utf8.FullRune(a.tail) {
		a.tail = append(a.tail, b[0])
		b = b[1:]
	}
	if len(a.tail) > 0 && utf8.FullRune(a.tail) {
		if !utf8.Valid(a.tail) {
			a.other = true
			return nil
		}
		a.tail = a.tail[:0]
	}
	whole := len(b)
	for i := 1; i < utf8.UTFMax && i <= len(b); i++ {
		if utf8.RuneStart(b[len(b)-i]) {
			if !utf8.FullRune(b[len(b)-i:]) {
				whole = len(b) - i
			}
			break
		}
	}
	a.tail = append(a.tail, b[whole:]...)
	a.other = !utf8.Valid(b[:whole])
	return nil
}

// valid tells that the text is UTF-8 without NUL.
func (a *analysis) valid() bool { return !a.nul && !a.other && len(a.tail) == 0 }

// plain tells that the text is valid and all its lines end alike.
func (a *analysis) plain() bool {
	return a.valid() && (a.cr == 0 || a.cr == a.crlf && a.lf == a.crlf)
}

// carriageReturns tells that the lines of the text end with CR alone.
func (a *analysis) carriageReturns() bool { return a.cr > 0 && a.lf == 0 }

// contextReader ends reading when the context ends.
type contextReader struct {
	ctx context.Context //nolint:containedctx // lives as long as one copy
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
