// Package replay sends recorded events into a stream: files of JSON objects, one a line. It stands between such a file
// and a Sink, in place of the live source that the events came from.
//
// # Running twice
//
// Each event's message id is made of the run and the line's number: a Sink that drops ids which it has seen drops none of
// another run, since equal lines of two files, or of two recordings in one file, may be two events. So a rerun adds every
// event once more to the stream, as a real source that repeats itself does; a table with a key then counts them as
// unchanged, one without a key has them twice.
package replay

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/klauspost/compress/zstd"
)

// LineBytesMax bounds one event.
const LineBytesMax = 4 << 20

// Sink takes events. *buffer.Sink is one.
type Sink interface {
	// Publish hands over one message; it may block. A message whose id was published before is dropped.
	Publish(ctx context.Context, key []byte, id string, value []byte) error
	// Flush waits until everything published is safe.
	Flush(ctx context.Context) error
}

// Options configure a replay.
type Options struct {
	Sink Sink
	// Key names the field of the events that becomes the messages' key; "" is "s", the symbol. Events without it have
	// no key.
	Key string
	// Rate bounds the events a second; 0: as fast as the sink takes them.
	Rate float64
}

// Stats counts what was sent.
type Stats struct {
	Events  int64         `json:"events"`
	Bytes   int64         `json:"bytes"`
	Bad     int64         `json:"bad"` // of the events: lines that are no JSON object, sent as they are, for quarantine to keep
	Elapsed time.Duration `json:"elapsed"`
}

// File replays a file; .gz and .zst are decompressed.
func File(ctx context.Context, path string, o Options) (Stats, error) {
	f, err := os.Open(path)
	if err != nil {
		return Stats{}, fmt.Errorf("replay: %w", err)
	}
	defer f.Close()
	var r io.Reader = f
	switch strings.ToLower(filepath.Ext(path)) {
	case ".gz":
		z, err := gzip.NewReader(f)
		if err != nil {
			return Stats{}, fmt.Errorf("replay %s: %w", path, err)
		}
		defer z.Close()
		r = z
	case ".zst":
		z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return Stats{}, fmt.Errorf("replay %s: %w", path, err)
		}
		defer z.Close()
		r = z
	}
	s, err := Run(ctx, r, o)
	if err != nil {
		return s, fmt.Errorf("replay %s: %w", path, err)
	}
	return s, nil
}

// Run replays what r yields and flushes the sink. Blank lines are passed over. When the context ends, what was sent is
// flushed and the context's error returned.
func Run(ctx context.Context, r io.Reader, o Options) (s Stats, err error) {
	if o.Sink == nil {
		return s, errors.New("no sink")
	}
	if o.Rate < 0 {
		return s, fmt.Errorf("rate %v is negative", o.Rate)
	}
	if o.Key == "" {
		o.Key = "s"
	}
	run := "replay-" + uuid.NewString() + "-"
	begin := time.Now()
	defer func() {
		flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		err = errors.Join(err, o.Sink.Flush(flush))
		s.Elapsed = time.Since(begin)
	}()
	b := bufio.NewReaderSize(r, 256<<10)
	for number := int64(1); ; number++ {
		line, err := readLine(b)
		if err == io.EOF { //nolint:errorlint // only the bare one is an end
			return s, nil
		}
		if err != nil {
			return s, fmt.Errorf("line %d: %w", number, err)
		}
		if number == 1 {
			line = bytes.TrimPrefix(line, []byte("\ufeff"))
		}
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		if o.Rate > 0 {
			due := begin.Add(time.Duration(float64(s.Events) / o.Rate * float64(time.Second)))
			if err := sleep(ctx, time.Until(due)); err != nil {
				return s, err
			}
		}
		if err := ctx.Err(); err != nil {
			return s, err
		}
		key, ok := field(line, o.Key)
		if !ok {
			s.Bad++
		}
		id := run + strconv.FormatInt(number, 10)
		if err := o.Sink.Publish(ctx, key, id, bytes.Clone(line)); err != nil {
			return s, fmt.Errorf("line %d: %w", number, err)
		}
		s.Events++
		s.Bytes += int64(len(line))
	}
}

// readLine reads one line of bounded length; io.EOF only if there is none.
func readLine(b *bufio.Reader) ([]byte, error) {
	line, err := b.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		if errors.Is(err, io.EOF) && len(line) > 0 {
			err = nil
		}
		return line, err
	}
	long := bytes.Clone(line)
	for errors.Is(err, bufio.ErrBufferFull) {
		line, err = b.ReadSlice('\n')
		if long = append(long, line...); len(long) > LineBytesMax {
			return nil, fmt.Errorf("longer than %d bytes", LineBytesMax)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return long, err
}

// field gives the text of an object's field; not ok if the line is no object.
func field(line []byte, name string) (key []byte, ok bool) {
	var object map[string]json.RawMessage
	if json.Unmarshal(line, &object) != nil || object == nil {
		return nil, false
	}
	v, ok := object[name]
	if !ok || string(v) == "null" {
		return nil, true
	}
	var text string
	if json.Unmarshal(v, &text) == nil {
		return []byte(text), true
	}
	return v, true
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
