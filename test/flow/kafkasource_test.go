package flow

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"

	"github.com/cauce-data/cauce/internal/kafkatest"
	"github.com/cauce-data/cauce/test/lab"
)

// forever keeps messages whose time is long past.
var forever = map[string]string{"retention.ms": "-1"}

// topicWriter publishes to one broker as its administrator.
type topicWriter struct {
	t  *testing.T
	cl *kgo.Client
}

func newTopicWriter(t *testing.T, b *kafkatest.Broker, opts ...kgo.Opt) *topicWriter {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(b.Admin), kgo.RecordPartitioner(kgo.ManualPartitioner())}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return &topicWriter{t, cl}
}

// put publishes one message; a nil value is a tombstone. ms is its time; 0: now.
func (w *topicWriter) put(topic string, partition int32, key string, value []byte, ms int64) {
	w.t.Helper()
	r := &kgo.Record{Topic: topic, Partition: partition, Key: []byte(key), Value: value}
	if ms > 0 {
		r.Timestamp = time.UnixMilli(ms)
	}
	if err := w.cl.ProduceSync(context.WithoutCancel(w.t.Context()), r).FirstErr(); err != nil {
		w.t.Fatal(err)
	}
}

func tick(id string, price string, ms int64) []byte {
	return fmt.Appendf(nil, `{"id":%q,"p":%s,"T":%d}`, id, price, ms)
}

// ids reads the keys of a lake's rows that are not deleted.
func ids(l *lab.Lake) []string {
	var rows []struct{ ID string }
	out := l.Run("query", "SELECT id FROM ticks ORDER BY id", "--format", "json")
	if err := json.Unmarshal([]byte(out), &rows); err != nil {
		return []string{out}
	}
	var got []string
	for _, r := range rows {
		got = append(got, r.ID)
	}
	return got
}

func sameIDs(t *testing.T, what string, l *lab.Lake, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := ids(l); !slices.Equal(got, want) {
		t.Errorf("%s: the table has %v, want %v", what, got, want)
	}
}

// TestKafkaSourceOptions: where reading begins, which partitions are read, every codec, encryption with SCRAM, and messages
// without value, against one real broker.
func TestKafkaSourceOptions(t *testing.T) {
	b := kafkatest.NewWith(t, kafkatest.Options{Users: map[string]string{"stream": "pw-s"}, TLS: true})
	ctx := t.Context()
	w := newTopicWriter(t, b)
	const base = 1724112000000
	topic := func(name string, partitions int32) {
		t.Helper()
		if err := errors.Join(b.CreateTopic(ctx, name, partitions, forever), b.AllowConsume(ctx, "stream", name, "none")); err != nil {
			t.Fatal(err)
		}
	}
	lake := func(topic, more string, source ...string) *lab.Lake {
		return lab.NewLakeOf(t, fmt.Appendf(nil, lab.TicksLake, topic, b.Admin, more, strings.Join(source, "\n")))
	}
	read := func(l *lab.Lake) { t.Helper(); l.Run("run", "stream", "--available-now") }
	fails := func(what string, l *lab.Lake, code int, words ...string) {
		t.Helper()
		_, errs, got := l.Try("run", "stream", "--available-now")
		if got != code {
			t.Errorf("%s: exit code %d, want %d: %s", what, got, code, errs)
		}
		for _, word := range words {
			if !strings.Contains(errs, word) {
				t.Errorf("%s: %q does not say %q", what, errs, word)
			}
		}
		if strings.Contains(errs, "pw-s") {
			t.Errorf("%s: the password is shown: %s", what, errs)
		}
	}

	t.Run("start", func(t *testing.T) {
		topic("starts", 2)
		for i := range int64(4) { // a0 to a3 in partition 0, b0 to b3 in partition 1, one a minute
			w.put("starts", 0, "", tick(fmt.Sprint("a", i), "1", base+i), base+60_000*i)
			w.put("starts", 1, "", tick(fmt.Sprint("b", i), "1", base+i), base+60_000*i)
		}
		earliest, latest := lake("starts", ""), lake("starts", ", start: latest")
		byTime, byOffset := lake("starts", ", start: 2024-08-20T00:02:00Z"), lake("starts", ", start: {offsets: {0: 3}}")
		assigned := lake("starts", ", assign: [1]")
		all := []*lab.Lake{earliest, latest, byTime, byOffset, assigned}
		for _, l := range all {
			read(l)
		}
		sameIDs(t, "latest", latest)
		w.put("starts", 0, "", tick("a4", "1", base), 0)
		w.put("starts", 1, "", tick("b4", "1", base), 0)
		for _, l := range all {
			read(l) // the table alone says from where
		}
		sameIDs(t, "earliest", earliest, "a0", "a1", "a2", "a3", "a4", "b0", "b1", "b2", "b3", "b4")
		sameIDs(t, "latest, what came since", latest, "a4", "b4")
		sameIDs(t, "time", byTime, "a2", "a3", "a4", "b2", "b3", "b4")
		sameIDs(t, "offsets", byOffset, "a3", "a4", "b0", "b1", "b2", "b3", "b4")
		sameIDs(t, "one partition", assigned, "b0", "b1", "b2", "b3", "b4")
		// A start that the lake file gives later changes nothing, and partitions that are assigned later are read from their
		// first message.
		rewrite(t, latest, ", start: latest", ", start: earliest")
		rewrite(t, assigned, ", assign: [1]", ", assign: [0, 1]")
		read(latest)
		read(assigned)
		sameIDs(t, "earliest, told too late", latest, "a4", "b4")
		sameIDs(t, "both partitions", assigned, "a0", "a1", "a2", "a3", "a4", "b0", "b1", "b2", "b3", "b4")
		fails("offset behind the end", lake("starts", ", start: {offsets: {1: 99}}"), 1, "partition 1", "start at offset 99", "0 to 4")
		fails("a partition to start in that is not there", lake("starts", ", start: {offsets: {7: 0}}"), 1, "no partition 7", "2 partitions")
		fails("a partition to read that is not there", lake("starts", ", assign: [0, 5]"), 1, "no partition 5", "kafka.assign")
	})

	t.Run("codecs", func(t *testing.T) {
		topic("codecs", 1)
		var want []string
		for name, codec := range map[string]kgo.CompressionCodec{
			"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
		} {
			c := newTopicWriter(t, b, kgo.ProducerBatchCompression(codec))
			var recs []*kgo.Record
			for i := range 50 { // a batch that is worth compressing
				recs = append(recs, &kgo.Record{Topic: "codecs", Value: tick(fmt.Sprintf("%s-%d", name, i), "1", base)})
			}
			if err := c.cl.ProduceSync(ctx, recs...).FirstErr(); err != nil {
				t.Fatal(err)
			}
			for i := range 50 {
				want = append(want, fmt.Sprintf("%s-%d", name, i))
			}
		}
		l := lake("codecs", "")
		read(l)
		sameIDs(t, "codecs", l, want...)
	})

	t.Run("encryption", func(t *testing.T) {
		topic("secret", 1)
		w.put("secret", 0, "", tick("a", "1", base), 0)
		ca, err := os.ReadFile(b.CA)
		if err != nil {
			t.Fatal(err)
		}
		encrypted := func(more string) *lab.Lake {
			l := lake("secret", more)
			rewrite(t, l, b.Admin, b.Addr)
			if err := os.WriteFile(l.Path("ca.pem"), ca, 0o600); err != nil {
				t.Fatal(err)
			}
			return l
		}
		for _, mechanism := range []string{"SCRAM-SHA-512", "SCRAM-SHA-256"} {
			l := encrypted(`, tls: {ca: ca.pem}, sasl: {mechanism: ` + mechanism + `, user: stream, password: "pw-s"}`)
			read(l)
			sameIDs(t, mechanism, l, "a")
		}
		fails("wrong password", encrypted(`, tls: {ca: ca.pem}, sasl: {user: stream, password: "pw-sx"}`), 1, "denies access", `user "stream" with SCRAM-SHA-512`)
		fails("no credentials", encrypted(`, tls: {ca: ca.pem}`), 1, b.Addr)
		fails("an authority that nobody knows", encrypted(`, tls: {}, sasl: {user: stream, password: "pw-s"}`), 1, "certificate", "kafka.tls.ca")
		fails("another name", encrypted(`, tls: {ca: ca.pem, server_name: kafka.example.com}, sasl: {user: stream, password: "pw-s"}`), 1, "kafka.example.com")
		fails("no encryption", encrypted(`, sasl: {user: stream, password: "pw-s"}`), 1, b.Addr, "kafka.tls")
	})

	t.Run("tombstones", func(t *testing.T) {
		topic("deletes", 1)
		w.put("deletes", 0, "a", tick("a", "1", base), base)
		w.put("deletes", 0, "b", tick("b", "1", base), base)
		w.put("deletes", 0, "c", tick("c", "1", base+5000), base)
		w.put("deletes", 0, "b", nil, base+1000)
		w.put("deletes", 0, "c", nil, base+1000) // older than the row
		w.put("deletes", 0, "\xff", nil, base+1000)
		off, on := lake("deletes", ""), lake("deletes", ", tombstones: {key: id, time: T}")
		read(off)
		sameIDs(t, "no tombstones", off, "a", "b", "c")
		read(on)
		sameIDs(t, "tombstones", on, "a", "c")
		if n := quarantined(t, on, "structure"); n != 1 {
			t.Errorf("%d records are in quarantine, want that of a key that is no text", n)
		}
		if n := quarantined(t, off, "structure"); n != 3 {
			t.Errorf("%d records are in quarantine, want the three without value", n)
		}
		// The row comes again when the key has a newer message.
		w.put("deletes", 0, "b", tick("b", "2", base+2000), base+2000)
		read(on)
		sameIDs(t, "b again", on, "a", "b", "c")

		topic("objects", 1)
		w.put("objects", 0, "", tick("a", "1", base), base)
		w.put("objects", 0, "", tick("b", "1", base), base)
		w.put("objects", 0, fmt.Sprintf(`{"id":"b","T":%d}`, base+1), nil, 0)
		w.put("objects", 0, `{"id":"a"}`, nil, base+1000)
		w.put("objects", 0, "a", nil, base+1000)
		w.put("objects", 0, "", []byte(`{"id":"d","p":1,"T":1,"\u0000tombstone":"true"}`), base)
		l := lake("objects", ", tombstones: {time: T}")
		read(l)
		sameIDs(t, "keys that are objects", l, "d")
		if n := quarantined(t, l, "structure"); n != 1 {
			t.Errorf("%d records are in quarantine, want the one whose key is no object", n)
		}
	})
}

// rewrite changes a lake file.
func rewrite(t *testing.T, l *lab.Lake, from, to string) {
	t.Helper()
	text, err := os.ReadFile(l.Path("lake.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), from) {
		t.Fatalf("the lake file has no %q", from)
	}
	if err := os.WriteFile(l.Path("lake.yaml"), []byte(strings.Replace(string(text), from, to, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// quarantined counts the unresolved records that broke a rule.
func quarantined(t *testing.T, l *lab.Lake, rule string) int {
	t.Helper()
	var q struct{ Rows []struct{ Rule string } }
	l.JSON(&q, "quarantine", "show")
	n := 0
	for _, r := range q.Rows {
		if r.Rule == rule {
			n++
		}
	}
	return n
}

// TestKafkaWithASchemaRegistry: Avro messages by their schemas in a real registry, two versions of one among them and one
// that is made of another; keys in Avro whose messages have no value; and messages that nobody can decode, which are kept
// byte for byte and tried again when the registry knows their schema.
func TestKafkaWithASchemaRegistry(t *testing.T) {
	url := kafkatest.NewRegistry(t)
	b := kafkatest.New(t, nil)
	ctx := t.Context()
	const topic, base = "ticks", 1724112000000
	if err := b.CreateTopic(ctx, topic, 1, forever); err != nil {
		t.Fatal(err)
	}
	w := newTopicWriter(t, b)
	cl, err := sr.NewClient(sr.URLs(url))
	if err != nil {
		t.Fatal(err)
	}
	register := func(subject, schema string, refs ...sr.SchemaReference) int {
		t.Helper()
		s, err := cl.CreateSchema(ctx, subject, sr.Schema{Schema: schema, References: refs})
		if err != nil {
			t.Fatal(err)
		}
		return s.ID
	}
	framed := func(id int, schema *avro.Schema, v any) []byte {
		t.Helper()
		value, err := schema.Encode(v)
		if err != nil {
			t.Fatal(err)
		}
		return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(id)), value...)
	}
	const price = `{"name":"p","type":{"type":"bytes","logicalType":"decimal","precision":18,"scale":4}}`
	const at = `{"name":"T","type":{"type":"long","logicalType":"timestamp-millis"}}`
	const first = `{"type":"record","name":"Tick","fields":[{"name":"id","type":"string"},` + price + `,` + at + `]}`
	const second = `{"type":"record","name":"Tick","fields":[{"name":"venue","type":["null","string"],"default":null},{"name":"id","type":"string"},` + price + `,` + at + `]}`
	const money = `{"type":"record","name":"Money","fields":[{"name":"amount","type":{"type":"bytes","logicalType":"decimal","precision":18,"scale":4}}]}`
	const key = `{"type":"record","name":"Key","fields":[{"name":"id","type":"string"}]}`
	const third = `{"type":"record","name":"Paid","fields":[{"name":"id","type":"string"},{"name":"price","type":"Money"},` + at + `]}`
	one, two, keys := register("ticks-value", first), register("ticks-value", second), register("ticks-key", key)
	register("money", money)
	three := register("paid-value", third, sr.SchemaReference{Name: "Money", Subject: "money", Version: 1})
	var cache avro.SchemaCache
	if _, err := cache.Parse(money); err != nil {
		t.Fatal(err)
	}
	paid, err := cache.Parse(third)
	if err != nil {
		t.Fatal(err)
	}
	time0 := time.UnixMilli(base).UTC()
	put := func(key string, value []byte) { t.Helper(); w.put(topic, 0, key, value, base+1000) }
	put("", framed(one, avro.MustParse(first), map[string]any{"id": "a", "p": "60000.1250", "T": time0}))
	put("", framed(two, avro.MustParse(second), map[string]any{"venue": "x", "id": "b", "p": "0.0001", "T": time0}))
	put("", framed(three, paid, map[string]any{"id": "c", "price": map[string]any{"amount": "7.0000"}, "T": time0}))
	put("", framed(one, avro.MustParse(first), map[string]any{"id": "d", "p": "1.0000", "T": time0}))
	put("", framed(one, avro.MustParse(first), map[string]any{"id": "e", "p": "-1.0000", "T": time0})) // breaks the expectation
	put(string(framed(keys, avro.MustParse(key), map[string]any{"id": "d"})), nil)
	later := one + 1000
	put("", framed(later, avro.MustParse(first), map[string]any{"id": "f", "p": "1.0000", "T": time0})) // the registry does not know the id
	put("", []byte{0, 0, 0, 0, byte(one), 0xff, 0xff})
	put("", tick("g", "3", base)) // JSON as it is

	l := lab.NewLakeOf(t, []byte(strings.Replace(fmt.Sprintf(lab.TicksLake, topic, b.Addr, fmt.Sprintf(", registry: {url: %q}, tombstones: {time: T}", url), "    format: avro"),
		"price: p, at: to_event_time(T)", `price: "coalesce(p, price.amount)", at: to_event_time(T)`, 1)))
	l.Run("run", "stream", "--available-now")
	sameIDs(t, "Avro", l, "a", "b", "c", "g")
	if got := l.Run("query", "SELECT id, price, \"at\" FROM ticks ORDER BY id", "--format", "csv"); !strings.Contains(got, "a,60000.1250,2024-08-20T00:00:00") || !strings.Contains(got, "c,7.0000,") {
		t.Errorf("%s", got)
	}
	var q struct {
		Rows []struct {
			Rule, Reason, Raw string
			RawBinary         []byte `json:"raw_binary"`
		}
	}
	l.JSON(&q, "quarantine", "show")
	what := map[string]string{}
	for _, r := range q.Rows {
		if len(r.RawBinary) < 5 || r.RawBinary[0] != 0 {
			t.Errorf("%s: the bytes of the message are not kept: %q", r.Reason, r.RawBinary)
		}
		what[r.Rule] += r.Reason + r.Raw + "\n"
	}
	if len(q.Rows) != 3 || !strings.Contains(what["price_positive"], `"id":"e"`) || !strings.Contains(what["structure"], fmt.Sprintf("schema %d", later)) || !strings.Contains(what["structure"], fmt.Sprintf("schema %d:", one)) {
		t.Errorf("%d records are in quarantine: %v", len(q.Rows), what)
	}
	if out := l.Run("sample", "live"); !strings.Contains(out, `"id":"a"`) {
		t.Errorf("sample shows no JSON: %s", out)
	}
	// Nothing of that changes when it is tried again with the rule mended.
	rewrite(t, l, "price > 0", "price <> 0")
	l.Run("quarantine", "retry")
	sameIDs(t, "tried again", l, "a", "b", "c", "e", "g")

	// A registry that cannot be reached stops nothing for good: the stream waits, and says so.
	dead := lab.NewLakeOf(t, []byte(strings.Replace(string(must(os.ReadFile(l.Path("lake.yaml")))), url, "http://127.0.0.1:1", 1)))
	p := dead.Start(nil, "run", "stream")
	for deadline := time.Now().Add(time.Minute); !strings.Contains(p.Stderr.String(), "schema registry"); time.Sleep(50 * time.Millisecond) {
		if !p.Running() || time.Now().After(deadline) {
			t.Fatalf("the stream does not wait for the registry: %s", p.Stderr.String())
		}
	}
	if _, err := os.Stat(filepath.Join(dead.Dir, "data/processed/_quarantine")); err == nil {
		t.Error("messages went to quarantine because the registry did not answer")
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}
