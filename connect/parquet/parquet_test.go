package parquet

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"

	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/pipeline"
)

// asIs stages local files as they are: thousands of damaged ones need no hash.
type asIs struct{}

func (asIs) Stage(_ context.Context, store objstore.Store, info objstore.Info, _ *pipeline.Source, _ bool) (*pipeline.RawFile, error) {
	return &pipeline.RawFile{
		Name: info.Key, Path: store.(objstore.LocalPather).LocalPath(info.Key), Size: info.Size,
		Unchanged: func(context.Context) error { return nil }, Close: func() error { return nil },
	}, nil
}

// whole is a file of 100 rows, and what its rows are as texts.
func whole(t *testing.T, codec compress.Compression, version parquet.DataPageVersion) []byte {
	t.Helper()
	s := arrow.NewSchema([]arrow.Field{
		{Name: "id", Type: arrow.BinaryTypes.String, Nullable: true}, {Name: "n", Type: arrow.PrimitiveTypes.Int64, Nullable: true},
		{Name: "l", Type: arrow.ListOf(arrow.PrimitiveTypes.Int32), Nullable: true},
	}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, s)
	for i := range 100 {
		b.Field(0).(*array.StringBuilder).Append("abc")
		b.Field(1).(*array.Int64Builder).Append(int64(i))
		l := b.Field(2).(*array.ListBuilder)
		l.Append(true)
		l.ValueBuilder().(*array.Int32Builder).Append(int32(i))
	}
	var out bytes.Buffer
	w, err := pqarrow.NewFileWriter(s, &out, parquet.NewWriterProperties(parquet.WithCompression(codec), parquet.WithDataPageVersion(version)), pqarrow.DefaultWriterProps())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Write(b.NewRecordBatch()), w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// reader gives a function that reads a file of some content.
func reader(t *testing.T) func(content []byte) (texts []string, err error) {
	t.Helper()
	dir := t.TempDir()
	store, err := objstore.NewLocal(dir)
	if err != nil {
		t.Fatal(err)
	}
	return func(content []byte) (texts []string, err error) {
		if err := os.WriteFile(filepath.Join(dir, "a.parquet"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		info, err := store.Stat(t.Context(), "a.parquet")
		if err != nil {
			t.Fatal(err)
		}
		f, err := Opener{Stager: asIs{}}.Open(t.Context(), store, info, &pipeline.Source{Format: pipeline.FormatParquet})
		if err != nil {
			return nil, err
		}
		for row, err := range f.Rows(t.Context()) {
			if err != nil {
				return texts, err
			}
			texts = append(texts, row.Values[0])
		}
		return texts, nil
	}
}

// A damaged file is an error or other rows, whatever its bytes say, and never the end of the process.
func TestDamagedFiles(t *testing.T) {
	read := reader(t)
	for _, codec := range []compress.Compression{compress.Codecs.Uncompressed, compress.Codecs.Snappy, compress.Codecs.Zstd} {
		for _, version := range []parquet.DataPageVersion{parquet.DataPageV1, parquet.DataPageV2} {
			content := whole(t, codec, version)
			if got, err := read(content); err != nil || len(got) != 100 || got[7] != `{"id":"abc","n":7,"l":[7]}` {
				t.Fatalf("%v, version %v: %q, %v", codec, version, got[:min(len(got), 8)], err)
			}
			r, failed := rand.New(rand.NewPCG(1, 2)), 0
			for range 1000 {
				damaged := bytes.Clone(content)
				for range 1 + r.IntN(3) {
					damaged[r.IntN(len(damaged))] = byte(r.IntN(256))
				}
				if _, err := read(damaged); err != nil {
					failed++
				}
			}
			if failed == 0 {
				t.Errorf("%v, version %v: no damage was seen", codec, version)
			}
		}
	}
}

// A footer that says more of a column than the file has is refused before memory is asked for.
func TestColumnsLargerThanTheFile(t *testing.T) {
	read := reader(t)
	content := whole(t, compress.Codecs.Uncompressed, parquet.DataPageV1)
	p, err := file.NewParquetReader(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	chunk, err := p.MetaData().RowGroup(0).ColumnChunk(0)
	if err != nil {
		t.Fatal(err)
	}
	// Thrift's compact protocol: a field whose number is one more than that before it and that is a 64-bit integer.
	size := func(n int64) []byte { return binary.AppendVarint([]byte{0x16}, n) }
	at := len(content) - 8 - int(binary.LittleEndian.Uint32(content[len(content)-8:]))
	footer, said := content[at:len(content)-8], size(chunk.TotalCompressedSize())
	if !bytes.Contains(footer, said) {
		t.Fatal("the footer does not say the size")
	}
	for _, n := range []int64{1 << 34, 1 << 44, -1} {
		forged := bytes.ReplaceAll(bytes.Clone(footer), said, size(n))
		file := append(bytes.Clone(content[:at]), forged...)
		file = append(binary.LittleEndian.AppendUint32(file, uint32(len(forged))), "PAR1"...)
		if _, err := read(file); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "bytes") {
			t.Errorf("a column of %d bytes: %v", n, err)
		}
	}
}
