package csv

import (
	"archive/zip"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/cauce-data/cauce/objstore"
)

// packing is how a file is compressed. Its name says so; the content must agree.
type packing int

const (
	uncompressed packing = iota
	gzipped
	zstandard
	zipped
)

func compression(key string) packing {
	switch strings.ToLower(path.Ext(key)) {
	case ".gz", ".gzip":
		return gzipped
	case ".zst", ".zstd":
		return zstandard
	case ".zip":
		return zipped
	}
	return uncompressed
}

// reader decompresses. An empty file is empty in every packing.
func (p packing) reader(b *bufio.Reader) (io.ReadCloser, error) {
	if _, err := b.Peek(1); err == io.EOF { //nolint:errorlint // only the bare one is an end
		return io.NopCloser(b), nil
	} else if err != nil {
		return nil, err
	}
	switch p {
	case gzipped:
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, p.explain(err)
		}
		return z, nil
	case zstandard:
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, p.explain(err)
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(b), nil
}

// explain gives damage in the compressed data its class; other errors, such as the store's, stay as they are.
func (p packing) explain(err error) error {
	var damage flate.CorruptInputError
	switch p {
	case gzipped:
		if errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &damage) {
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
	case zstandard:
		for _, e := range []error{
			zstd.ErrMagicMismatch, zstd.ErrWindowSizeExceeded, zstd.ErrWindowSizeTooSmall, zstd.ErrCRCMismatch, zstd.ErrBlockTooSmall,
			zstd.ErrReservedBlockType, zstd.ErrCompressedSizeTooBig, zstd.ErrUnexpectedBlockSize, zstd.ErrUnknownDictionary,
			zstd.ErrFrameSizeMismatch, zstd.ErrFrameSizeExceeded, zstd.ErrDecoderSizeExceeded, io.ErrUnexpectedEOF,
		} {
			if errors.Is(err, e) {
				return fmt.Errorf("%w: zstd: %w", ErrCorrupt, err)
			}
		}
	case zipped:
		if errors.Is(err, zip.ErrFormat) || errors.Is(err, zip.ErrChecksum) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &damage) {
			return fmt.Errorf("%w: zip: %w", ErrCorrupt, err)
		}
		if errors.Is(err, zip.ErrAlgorithm) {
			return fmt.Errorf("%w: %w", ErrArchive, err)
		}
	}
	return err
}

// unzip decodes the one data file of an archive. An archive has its directory at its end, so one that is not a local
// file is copied first.
func (s *stage) unzip(raw io.Reader) error {
	var archive *os.File
	var err error
	if lp, ok := s.store.(objstore.LocalPather); ok {
		if _, err := io.Copy(io.Discard, contextReader{s.ctx, raw}); err != nil {
			return err
		}
		archive, err = os.Open(lp.LocalPath(s.key))
	} else {
		if archive, err = s.o.tempFile(); err != nil {
			return err
		}
		copied := archive.Name()
		defer os.Remove(copied)
		_, err = io.Copy(archive, contextReader{s.ctx, raw})
	}
	if archive != nil {
		defer archive.Close()
	}
	if err != nil {
		return err
	}
	st, err := archive.Stat()
	if err != nil {
		return err
	}
	if st.Size() == 0 {
		return s.decode(bytes.NewReader(nil), "")
	}
	z, err := zip.NewReader(archive, st.Size())
	if err != nil {
		return zipped.explain(err)
	}
	z.RegisterDecompressor(zstd.ZipMethodWinZip, zstd.ZipDecompressor())
	var data []*zip.File
	for _, f := range z.File {
		if !strings.HasSuffix(f.Name, "/") && !strings.HasPrefix(f.Name, "__MACOSX/") && !strings.HasPrefix(path.Base(f.Name), ".") {
			data = append(data, f)
		}
	}
	if len(data) != 1 {
		if len(data) == 0 {
			return fmt.Errorf("%w: it holds none", ErrArchive)
		}
		names := make([]string, 0, 4)
		for _, f := range data {
			if len(names) == 3 {
				names = append(names, "…")
				break
			}
			names = append(names, f.Name)
		}
		return fmt.Errorf("%w: it holds %d: %s; unpack it and land the files one by one", ErrArchive, len(data), strings.Join(names, ", "))
	}
	if data[0].Flags&1 != 0 {
		return fmt.Errorf("%w: %s is encrypted", ErrArchive, data[0].Name)
	}
	member, err := data[0].Open()
	if err != nil {
		return zipped.explain(err)
	}
	defer member.Close()
	return zipped.explain(s.decode(member, ""))
}
