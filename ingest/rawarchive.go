package ingest

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"path"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/pipeline"
)

// StreamingPath is the folder below the root that keeps the messages of streams as they came, for sources that want it.
const StreamingPath = "raw/streaming"

// RawMessage is a line of a raw archive.
type RawMessage struct {
	Topic     string    `json:"topic"`
	Partition int32     `json:"partition"`
	Offset    int64     `json:"offset"`
	Time      time.Time `json:"time"` // the year 1 where it is one that JSON has no text for
	// Key is the message's key where it is text, KeyBytes any other; neither for a message without one.
	Key      string `json:"key,omitempty"`
	KeyBytes []byte `json:"key_bytes,omitzero"` // base64
	// Value is the message where it is JSON, Bytes any other; neither for a tombstone.
	Value json.RawMessage `json:"value,omitempty"`
	Bytes []byte          `json:"bytes,omitzero"` // base64
}

// rawArchive collects the messages of a micro-batch, compressed.
type rawArchive struct {
	buf bytes.Buffer
	zip *gzip.Writer
	n   int
}

func newRawArchive() *rawArchive {
	a := new(rawArchive)
	a.zip, _ = gzip.NewWriterLevel(&a.buf, gzip.BestSpeed) // the level is a valid one
	return a
}

func (a *rawArchive) add(recs []pipeline.Record) error {
	for i := range recs {
		r := &recs[i]
		m := RawMessage{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Time: markTime(r.Time).UTC()}
		if len(r.Key) > 0 && utf8.Valid(r.Key) {
			m.Key = string(r.Key)
		} else {
			m.KeyBytes = r.Key
		}
		if json.Valid(r.Value) && utf8.Valid(r.Value) {
			m.Value = r.Value
		} else {
			m.Bytes = r.Value
		}
		line, err := json.Marshal(m)
		if err != nil {
			return err
		}
		if _, err := a.zip.Write(append(line, '\n')); err != nil {
			return err
		}
		a.n++
	}
	return nil
}

// put writes the archive of one epoch: before its commit, so that no row is in the table whose message is not kept. A run
// that ends between the two leaves a file whose offsets come again in the next one.
func (a *rawArchive) put(ctx context.Context, store objstore.Store, source, incarnation string, epoch int64, at time.Time) error {
	if err := a.zip.Close(); err != nil {
		return err
	}
	name := fmt.Sprintf("%s-%s.jsonl.gz", strconv.FormatInt(epoch, 10), uuid.NewString())
	key := path.Join(StreamingPath, url.PathEscape(source), url.PathEscape(incarnation), at.UTC().Format(time.DateOnly), name)
	if err := store.Put(ctx, key, &a.buf, objstore.PutOptions{}); err != nil {
		return fmt.Errorf("archive of raw messages: %w", err)
	}
	return nil
}
