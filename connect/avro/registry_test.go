package avro

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"

	"github.com/cauce-data/cauce/pipeline"
)

const tradeSchema = `{"type":"record","name":"Trade","namespace":"x","fields":[{"name":"s","type":"string"},{"name":"t","type":"long"},
	{"name":"p","type":{"type":"bytes","logicalType":"decimal","precision":18,"scale":4}},{"name":"T","type":{"type":"long","logicalType":"timestamp-millis"}},
	{"name":"m","type":["null","boolean"],"default":null}]}`

// framed is a message in Confluent's wire format.
func framed(id int, value []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(id)), value...)
}

func encode(t testing.TB, s *avro.Schema, v any) []byte {
	t.Helper()
	b, err := s.Encode(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func decoder(t testing.TB, o RegistryOptions) *Decoder {
	t.Helper()
	d, err := NewDecoder(o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestMessagesOfARegistry: Avro values by their schemas, those that are made of others included, and JSON values; what nobody
// can decode says why, and what is no message of a registry stays as it is.
func TestMessagesOfARegistry(t *testing.T) {
	reg := srfake.New()
	t.Cleanup(reg.Close)
	register := func(subject string, s sr.Schema) int {
		t.Helper()
		id, _, err := reg.RegisterSchema(subject, s)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	trade := register("trades-value", sr.Schema{Schema: tradeSchema})
	side := register("side", sr.Schema{Schema: `{"type":"enum","name":"Side","namespace":"x","symbols":["buy","sell"]}`})
	order := sr.Schema{Schema: `{"type":"record","name":"Order","namespace":"x","fields":[{"name":"side","type":"x.Side"},{"name":"trade","type":"x.Trade"},{"name":"last","type":"x.Trade"}]}`,
		References: []sr.SchemaReference{{Name: "x.Side", Subject: "side", Version: 1}, {Name: "x.Trade", Subject: "trades-value", Version: 1}}}
	orders := register("orders-value", order)
	texts := register("texts-value", sr.Schema{Schema: `{"type":"object"}`, Type: sr.TypeJSON})
	proto := register("protos-value", sr.Schema{Schema: `syntax = "proto3"; message M { string s = 1; }`, Type: sr.TypeProtobuf})
	broken := 9001
	reg.SeedSchema("broken-value", 1, broken, sr.Schema{Schema: `{"type":"record"}`})

	ts := avro.MustParse(tradeSchema)
	event := map[string]any{"s": "BTCUSDT", "t": int64(7), "p": "60000.1250", "T": time.UnixMilli(1724112000123).UTC(), "m": true}
	value := encode(t, ts, event)
	text := `{"T":"2024-08-20T00:00:00.123Z","m":true,"p":60000.125,"s":"BTCUSDT","t":7}`
	var cache avro.SchemaCache
	for _, s := range []string{`{"type":"enum","name":"Side","namespace":"x","symbols":["buy","sell"]}`, tradeSchema} {
		if _, err := cache.Parse(s); err != nil {
			t.Fatal(err)
		}
	}
	os, err := cache.Parse(order.Schema)
	if err != nil {
		t.Fatal(err)
	}
	both := encode(t, os, map[string]any{"side": "sell", "trade": event, "last": event})

	cases := []struct {
		in        []byte
		text, bad string
	}{
		{in: framed(trade, value), text: text},
		{in: framed(orders, both), text: `{"last":` + text + `,"side":"sell","trade":` + text + `}`},
		{in: framed(texts, []byte(`{"a": 1}`)), text: `{"a": 1}`},
		{in: []byte(`{"plain": "JSON"}`)},
		{in: []byte{}},
		{in: nil},
		{in: framed(side, value), bad: "enum"},
		{in: framed(trade, value[:len(value)-3]), bad: "schema"},
		{in: framed(trade, append(bytes.Clone(value), 1, 2)), bad: "2 bytes follow"},
		{in: framed(proto, []byte("x")), bad: "PROTOBUF"},
		{in: framed(broken, value), bad: "schema 9001"},
		{in: framed(4242, value), bad: "does not know it"},
		{in: []byte{1, 0, 0, 0, 1, 9}, bad: "zero byte"},
		{in: []byte{0, 0, 0}, bad: "zero byte"},
		{in: []byte("hello"), bad: "zero byte"},
	}
	var recs []pipeline.Record
	for i, c := range cases {
		recs = append(recs, pipeline.Record{Offset: int64(i), Value: c.in})
	}
	asked := 0
	reg.Intercept(func(http.ResponseWriter, *http.Request) bool { asked++; return false })
	d := decoder(t, RegistryOptions{URL: reg.URL()})
	for range 2 {
		if err := d.Decode(t.Context(), recs); err != nil {
			t.Fatal(err)
		}
	}
	for i, c := range cases {
		if r := recs[i]; string(r.Text) != c.text || (r.Bad == "") != (c.bad == "") || !strings.Contains(r.Bad, c.bad) || !bytes.Equal(r.Value, c.in) {
			t.Errorf("%q: text %q, bad %q", c.in, r.Text, r.Bad)
		}
	}
	// Seven ids, one of which has two references.
	if asked != 7+2 {
		t.Errorf("the registry was asked %d times", asked)
	}

	// A key is decoded where there is no value, and only if somebody wants that; one that is plain text stays it.
	keys := func() []pipeline.Record {
		return []pipeline.Record{{Key: framed(trade, value)}, {Key: []byte("BTCUSDT-7")}, {Key: framed(texts, []byte(`"x"`)), Value: framed(trade, value)}}
	}
	recs = keys()
	if err := d.Decode(t.Context(), recs); err != nil || recs[0].Text != nil {
		t.Errorf("%v, %q", err, recs[0].Text)
	}
	d = decoder(t, RegistryOptions{URL: reg.URL(), Keys: true})
	recs = keys()
	if err := d.Decode(t.Context(), recs); err != nil || string(recs[0].Text) != text || recs[1].Text != nil || recs[1].Bad != "" || string(recs[2].Text) != text {
		t.Errorf("%v, %+v", err, recs)
	}
}

// TestRegistryThatDoesNotAnswer: a registry that is down is waited for, and nothing is called bad for that; one that
// refuses the credentials is an error.
func TestRegistryThatDoesNotAnswer(t *testing.T) {
	reg := srfake.New(srfake.WithAuth("Basic dTpwdw==")) // u:pw
	t.Cleanup(reg.Close)
	id, _, err := reg.RegisterSchema("trades-value", sr.Schema{Schema: tradeSchema})
	if err != nil {
		t.Fatal(err)
	}
	value := encode(t, avro.MustParse(tradeSchema), map[string]any{"s": "X", "t": int64(1), "p": "1.0000", "T": time.UnixMilli(0).UTC(), "m": nil})
	recs := []pipeline.Record{{Value: framed(id, value)}}
	down := 2
	reg.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
		if down--; down >= 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		return false
	})
	d := decoder(t, RegistryOptions{URL: reg.URL(), User: "u", Password: "pw"})
	if err := d.Decode(t.Context(), recs); err != nil || recs[0].Text == nil || recs[0].Bad != "" || down >= 0 {
		t.Errorf("%v: %+v", err, recs[0])
	}
	err = decoder(t, RegistryOptions{URL: reg.URL(), User: "u", Password: "wrong"}).Decode(t.Context(), []pipeline.Record{{Value: framed(id, value)}})
	if !errors.Is(err, ErrRegistry) || strings.Contains(err.Error(), "wrong") {
		t.Errorf("wrong password: %v", err)
	}
	reg.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	recs = []pipeline.Record{{Value: framed(id, value)}}
	err = decoder(t, RegistryOptions{URL: reg.URL(), User: "u", Password: "pw"}).Decode(ctx, recs)
	if !errors.Is(err, context.DeadlineExceeded) || recs[0].Bad != "" {
		t.Errorf("nobody listens: %v, %q", err, recs[0].Bad)
	}
	if _, err := NewDecoder(RegistryOptions{URL: reg.URL(), CAFile: "no-such-file"}); err == nil {
		t.Error("a file of certificates that is not there is accepted")
	}
}

// FuzzMessage gives foreign bytes to a decoder: it neither panics nor fails, and what it makes is JSON.
func FuzzMessage(f *testing.F) {
	reg := srfake.New()
	f.Cleanup(reg.Close)
	id, _, err := reg.RegisterSchema("trades-value", sr.Schema{Schema: tradeSchema})
	if err != nil {
		f.Fatal(err)
	}
	value := encode(f, avro.MustParse(tradeSchema), map[string]any{"s": "X", "t": int64(1), "p": "1.0000", "T": time.UnixMilli(0).UTC(), "m": true})
	f.Add(value)
	f.Add(value[:3])
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	d := decoder(f, RegistryOptions{URL: reg.URL()})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, in := range [][]byte{framed(id, b), b} {
			if len(in) >= headBytes && in[0] == 0 && binary.BigEndian.Uint32(in[1:headBytes]) != uint32(id) {
				continue // it would ask the registry
			}
			recs := []pipeline.Record{{Value: in}}
			if err := d.Decode(context.Background(), recs); err != nil {
				t.Fatal(err)
			}
			if r := recs[0]; r.Text != nil && !json.Valid(r.Text) {
				t.Fatalf("%q of %q", r.Text, in)
			}
		}
	})
}

// Texts that are no UTF-8 are told apart and not mended: of a message nothing is read, and a file's record is one that engines refuse.
func TestTextsThatAreNoUTF8(t *testing.T) {
	reg := srfake.New()
	t.Cleanup(reg.Close)
	id, _, err := reg.RegisterSchema("trades-value", sr.Schema{Schema: tradeSchema})
	if err != nil {
		t.Fatal(err)
	}
	ts := avro.MustParse(tradeSchema)
	message := func(s string) []byte {
		return framed(id, encode(t, ts, map[string]any{"s": s, "t": int64(1), "p": "1.0000", "T": time.UnixMilli(0).UTC(), "m": nil}))
	}
	recs := []pipeline.Record{{Value: message("caf\xe9")}, {Value: message("café")}}
	if err := decoder(t, RegistryOptions{URL: reg.URL()}).Decode(t.Context(), recs); err != nil {
		t.Fatal(err)
	}
	if r := recs[0]; r.Text != nil || !strings.Contains(r.Bad, "UTF-8") {
		t.Errorf("text %q, bad %q", r.Text, r.Bad)
	}
	if r := recs[1]; !strings.Contains(string(r.Text), `"s":"café"`) || r.Bad != "" {
		t.Errorf("text %q, bad %q", r.Text, r.Bad)
	}
	one, two := appendValue(nil, "caf\xe8"), appendValue(nil, "caf\xe9")
	if utf8.Valid(one) || bytes.Equal(one, two) {
		t.Errorf("two texts become %q and %q", one, two)
	}
}

// A message whose head is no id is bad, and does not stop those behind it where the registry refuses to be asked for it.
func TestHeadThatIsNoID(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/schemas/ids/7" {
			http.Error(w, `{"error_code":40002,"message":"no 32-bit integer"}`, http.StatusBadRequest)
			return
		}
		_, _ = w.Write([]byte(`{"schema":"\"long\""}`))
	}))
	t.Cleanup(srv.Close)
	recs := []pipeline.Record{{Value: []byte("\x00\xff\xfe\xfd\xfc garbage")}, {Value: framed(7, []byte{4})}}
	if err := decoder(t, RegistryOptions{URL: srv.URL}).Decode(t.Context(), recs); err != nil {
		t.Fatal(err)
	}
	if recs[0].Bad == "" || recs[0].Text != nil || string(recs[1].Text) != "2" {
		t.Errorf("%+v", recs)
	}
}

// A stream and a retry of quarantine in one process have one decoder.
func TestDecoderOfSeveral(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "7") {
			http.Error(w, `{"error_code":40403,"message":"Schema not found"}`, http.StatusNotFound)
			return
		}
		_, _ = w.Write([]byte(`{"schema":"\"long\""}`))
	}))
	t.Cleanup(srv.Close)
	d := decoder(t, RegistryOptions{URL: srv.URL})
	decode := func(id int) {
		recs := []pipeline.Record{{Value: framed(id, []byte{4})}}
		if err := d.Decode(t.Context(), recs); err != nil {
			t.Error(err)
		}
		if known := id%10 != 7; known != (string(recs[0].Text) == "2") || known != (recs[0].Bad == "") {
			t.Errorf("id %d: %+v", id, recs[0])
		}
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					decode(0)
				}
			}
		})
	}
	for id := range 300 {
		decode(id)
	}
	close(done)
	wg.Wait()
}

// Ids that no registry knows, as any message may name them, do not pile up.
func TestUnknownSchemasAreForgotten(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"error_code":40403,"message":"Schema not found"}`))
	}))
	defer srv.Close()
	d, err := NewDecoder(RegistryOptions{URL: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	d.schemas[7] = &schema{decode: func(v []byte) ([]byte, error) { return v, nil }}
	for id := range uint32(unknownMax + 100) {
		recs := []pipeline.Record{{Value: append(binary.BigEndian.AppendUint32([]byte{0}, 1000+id), "{}"...)}}
		if err := d.Decode(t.Context(), recs); err != nil || recs[0].Bad == "" {
			t.Fatalf("id %d: %q, %v", id, recs[0].Bad, err)
		}
	}
	if len(d.schemas) != 101 || d.unknown != 100 {
		t.Errorf("%d schemas are kept, %d of them unknown", len(d.schemas), d.unknown)
	}
	recs := []pipeline.Record{{Value: []byte("\x00\x00\x00\x00\x07{}")}}
	if err := d.Decode(t.Context(), recs); err != nil || string(recs[0].Text) != "{}" {
		t.Errorf("a schema that is known: %q, %q, %v", recs[0].Text, recs[0].Bad, err)
	}
}
