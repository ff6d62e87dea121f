// Package avro reads Avro: object container files, and messages whose schemas are in a registry. Each value becomes the text
// of a JSON object, which engines read with the scanner that reads streams too. It stands between staged files, or streams,
// and engines.
package avro

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"math/big"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/avro"
	"github.com/twmb/avro/ocf"

	"github.com/cauce-data/cauce/internal/rowjson"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/pipeline"
)

// ErrCorrupt says that a file is no Avro container, or a damaged one.
var ErrCorrupt = errors.New("no readable Avro file")

// blockBytesMax bounds one decompressed block; writers make blocks of some 64 KiB.
const blockBytesMax = 64 << 20

// Stager makes a file ready at a local path (connect/csv.Opener).
type Stager interface {
	Stage(ctx context.Context, store objstore.Store, info objstore.Info, src *pipeline.Source, binary bool) (*pipeline.RawFile, error)
}

// Opener makes Avro files ready for reading. It is safe for concurrent use.
type Opener struct{ Stager Stager }

// Open makes one file ready; each of its records has one value, the text of an object. Position is the ordinal of the
// value. The caller closes the file. A file without a readable header gives ErrCorrupt.
func (o Opener) Open(ctx context.Context, store objstore.Store, info objstore.Info, src *pipeline.Source) (*pipeline.RawFile, error) {
	f, err := o.Stager.Stage(ctx, store, info, src, true)
	if err != nil {
		return nil, err
	}
	if f.Size > 0 { // an empty file has no records in every format
		r, err := open(f.Path)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", f.Name, err), f.Close())
		}
		if err := r.Close(); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	f.Rows = func(ctx context.Context) iter.Seq2[pipeline.RawRow, error] {
		return rows(ctx, f, func(int64) (bool, bool) { return true, false })
	}
	f.RowsAt = func(ctx context.Context, positions []int64) iter.Seq2[pipeline.RawRow, error] {
		return rows(ctx, f, func(p int64) (want, done bool) {
			for len(positions) > 0 && positions[0] < p {
				positions = positions[1:]
			}
			return len(positions) > 0 && positions[0] == p, len(positions) == 0
		})
	}
	return f, nil
}

// reader decodes the values of a container.
type reader struct {
	*ocf.Reader
	file *os.File
}

func (r *reader) Close() error { return errors.Join(r.Reader.Close(), r.file.Close()) }

func open(path string) (*reader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	r, err := ocf.NewReader(f, ocf.WithMaxDecompressedBlockBytes(blockBytesMax), ocf.WithMaxBlockBytes(blockBytesMax), ocf.WithReaderSchemaFunc(own))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrCorrupt, err), f.Close())
	}
	return &reader{r, f}, nil
}

// own is the file's schema with ownTypes.
func own(r *ocf.Reader) (*avro.Schema, error) { return avro.Parse(r.Schema().String(), ownTypes()...) }

// ownTypes are the logical types whose Go values do not say what they were as texts: a date is no midnight, and a local
// time has no zone.
func ownTypes() []avro.SchemaOpt {
	local := func(name string, at func(int64) time.Time) avro.SchemaOpt {
		return avro.WithCustomType(avro.NewCustomType(name, nil, func(n int64, _ *avro.SchemaNode) (string, error) {
			return at(n).UTC().Format("2006-01-02T15:04:05.999999999"), nil
		}))
	}
	return []avro.SchemaOpt{
		avro.WithCustomType(avro.NewCustomType("date", nil, func(days int32, _ *avro.SchemaNode) (string, error) {
			return time.Unix(int64(days)*86400, 0).UTC().Format(time.DateOnly), nil
		})),
		local("local-timestamp-millis", time.UnixMilli), local("local-timestamp-micros", time.UnixMicro),
		local("local-timestamp-nanos", func(n int64) time.Time { return time.Unix(n/1e9, n%1e9) }),
	}
}

func rows(ctx context.Context, f *pipeline.RawFile, pick func(position int64) (want, done bool)) iter.Seq2[pipeline.RawRow, error] {
	return func(yield func(pipeline.RawRow, error) bool) {
		fail := func(err error) {
			if u := f.Unchanged(ctx); errors.Is(u, pipeline.ErrChanged) {
				err = u
			}
			yield(pipeline.RawRow{}, fmt.Errorf("%s: %w", f.Name, err))
		}
		if f.Size == 0 {
			return
		}
		r, err := open(f.Path)
		if err != nil {
			fail(err)
			return
		}
		defer r.Close()
		for position := int64(1); ; position++ {
			if position&1023 == 0 && ctx.Err() != nil {
				yield(pipeline.RawRow{}, ctx.Err())
				return
			}
			var v any
			if err := r.Decode(&v); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				fail(fmt.Errorf("%w: record %d: %w", ErrCorrupt, position, err))
				return
			}
			want, done := pick(position)
			if done {
				break
			}
			if !want {
				continue
			}
			text := string(appendValue(nil, v))
			if !yield(pipeline.RawRow{Position: position, Values: []string{text}, Raw: text[:min(len(text), pipeline.RawBytesMax)], RawBytes: int64(len(text))}, nil) {
				return
			}
		}
		if err := f.Unchanged(ctx); err != nil {
			yield(pipeline.RawRow{}, err)
		}
	}
}

// appendValue appends a decoded value as JSON. Names of an object are sorted, so that one value has one text.
func appendValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...)
	case bool:
		return strconv.AppendBool(b, v)
	case int32:
		return strconv.AppendInt(b, int64(v), 10)
	case int64:
		return strconv.AppendInt(b, v, 10)
	case float32:
		return rowjson.AppendFloat(b, float64(v), 32)
	case float64:
		return rowjson.AppendFloat(b, v, 64)
	case string:
		return rowjson.AppendText(b, v)
	case []byte:
		return rowjson.AppendBytes(b, v)
	case [16]byte: // a UUID
		return rowjson.AppendText(b, fmt.Sprintf("%x-%x-%x-%x-%x", v[:4], v[4:6], v[6:8], v[8:10], v[10:]))
	case time.Time:
		return rowjson.AppendText(b, v.UTC().Format(time.RFC3339Nano))
	case time.Duration: // a time of day
		return rowjson.AppendText(b, time.Unix(0, int64(v)).UTC().Format("15:04:05.999999999"))
	case *big.Rat:
		digits, _ := v.FloatPrec()
		return append(b, v.FloatString(digits)...)
	case []any:
		b = append(b, '[')
		for i, x := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendValue(b, x)
		}
		return append(b, ']')
	case map[string]any:
		b = append(b, '{')
		for i, name := range slices.Sorted(maps.Keys(v)) {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(rowjson.AppendText(b, name), ':')
			b = appendValue(b, v[name])
		}
		return append(b, '}')
	}
	return rowjson.AppendText(b, fmt.Sprint(v))
}
