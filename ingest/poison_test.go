package ingest_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/pipeline"
)

// poison are messages of which a stream can make nothing.
var poison = []struct {
	key, value []byte
}{
	{[]byte("k1"), []byte("no json")},
	{nil, []byte("{\"e\":\"trade\",\xff\xfe\x00}")}, // neither JSON nor UTF-8
	{[]byte{0xff}, []byte{}},
	{[]byte("k4"), []byte(`{"e":"trade","s":"x","p":"abc","n":"n","T":1724148000000}`)}, // a price that is none
	{nil, []byte(strings.Repeat("x", pipeline.RawBytesMax+10))},
}

func publishPoison(p *topic) {
	trade(p, "before", "1", 1)
	for _, m := range poison {
		p.publish("")
		r := &p.records[len(p.records)-1]
		r.Key, r.Value = m.key, m.value
	}
	trade(p, "after", "2", 2)
}

// TestPoisonIsKeptByteForByte: what a stream cannot read goes to quarantine with its topic, partition, offset, key and
// bytes; the stream goes on; and a retry gives the plan the very same messages.
func TestPoisonIsKeptByteForByte(t *testing.T) {
	w := newWorld(t, tradesLake)
	p := newTopic("trades")
	publishPoison(p)
	reports, err := w.stream(p.reader(), ingest.StreamOptions{})
	if err != nil || reports[0].RowsInserted != 2 || reports[0].RowsQuarantined != int64(len(poison)) {
		t.Fatalf("%+v, %v", reports, err)
	}
	rows := w.quarantine(ingest.QuarantineFilter{})
	if len(rows) != len(poison) {
		t.Fatalf("%d rows", len(rows))
	}
	for i, m := range poison {
		r := rows[i]
		if r.Topic != "trades" || r.Partition != 0 || r.Offset != int64(i+2) || !bytes.Equal(r.Key, m.key) || r.RawBytes != int64(len(m.value)) {
			t.Errorf("message %d: %+v", i, r)
		}
		got := []byte(r.Raw)
		if r.RawBinary != nil {
			got = r.RawBinary
		}
		if !bytes.Equal(got, m.value[:min(len(m.value), pipeline.RawBytesMax)]) {
			t.Errorf("message %d is kept as %.40q", i, got)
		}
	}

	// The lake file learns to read the price; nothing else has become readable.
	w.load(strings.Replace(tradesLake, "price: p, note: n", "price: \"CASE WHEN p = 'abc' THEN '5' ELSE p END\", note: n", 1))
	r, err := w.QuarantineRetry(t.Context(), ingest.QuarantineFilter{}, false)
	if err != nil || r.Tried != 5 || r.Resolved != 1 || r.StillBad != 3 || r.Missing != 1 || r.RowsInserted != 1 {
		t.Errorf("retry: %+v, %v", r, err)
	}
	for i, r := range w.quarantine(ingest.QuarantineFilter{})[:3] {
		if m := poison[i]; !bytes.Equal(r.Key, m.key) || i > 0 && !bytes.Equal(r.RawBinary, m.value) {
			t.Errorf("message %d after the retry: %+v", i, r)
		}
	}
}

func TestRawArchiveHoldsEveryMessage(t *testing.T) {
	w := newWorld(t, strings.Replace(tradesLake, "    topic: trades\n", "    topic: trades\n    archive: true\n", 1))
	p := newTopic("trades")
	publishPoison(p)
	for _, m := range []struct{ key, value []byte }{
		{[]byte("deleted"), nil},
		{[]byte{}, []byte(`{"e":"trade"}`)},
		{[]byte("line\nbreak "), []byte("{\"e\":\"\xff\"}")}, // JSON, but no text
	} {
		p.publish("")
		r := &p.records[len(p.records)-1]
		r.Key, r.Value = m.key, m.value
	}
	if _, err := w.stream(p.reader(), ingest.StreamOptions{RowsMax: 3}); err != nil {
		t.Fatal(err)
	}
	same := func(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }
	seen := 0
	for f, err := range w.store.List(context.Background(), ingest.StreamingPath+"/live/one/2024-08-20/", "") {
		if err != nil {
			t.Fatal(err)
		}
		in, _, err := w.store.Get(t.Context(), f.Key)
		if err != nil {
			t.Fatal(err)
		}
		z, err := gzip.NewReader(in)
		if err != nil {
			t.Fatal(err)
		}
		dec := json.NewDecoder(z)
		for {
			var m ingest.RawMessage
			if err := dec.Decode(&m); err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			want := p.records[m.Offset-1]
			got := []byte(m.Value)
			if m.Value == nil {
				got = m.Bytes
			}
			key := m.KeyBytes
			if m.Key != "" {
				key = []byte(m.Key)
			}
			if !same(key, want.Key) {
				t.Errorf("offset %d: key %q, want %q", m.Offset, key, want.Key)
			}
			if !same(got, want.Value) || m.Topic != "trades" || m.Time.Sub(want.Time) > time.Microsecond {
				t.Errorf("offset %d: %.40q", m.Offset, got)
			}
			seen++
		}
		_ = in.Close()
	}
	if seen != len(p.records) {
		t.Errorf("%d messages of %d are kept", seen, len(p.records))
	}
}
