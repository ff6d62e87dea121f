package spark

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cauce-data/cauce/internal/kafkatest"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/test/lab"
)

// oddMessages are messages that must not become rows, with keys and without: no JSON in every way, and trades whose
// price is everything but a price.
func oddMessages(rng *rand.Rand) []*kgo.Record {
	var out []*kgo.Record
	add := func(value string) {
		r := &kgo.Record{Partition: int32(len(out) % 3), Value: []byte(value)}
		if len(out)%2 == 0 {
			r.Key = []byte{'k', byte(len(out))}
		}
		out = append(out, r)
	}
	for _, s := range []string{
		"", " ", "null", "[1]", `"x"`, "7", "{", "{}x", `{"e"}`, `{"e":}`, `{"e":"odd"`, `{"e":"odd",}`, `{"e":01}`, `{"e":-}`, `{"e":1.}`, `{"e":1e}`, `{"e":tru}`, `{"e":NaN}`,
		`{"e":"\x"}`, `{"e":"\u12"}`, "{\"e\":\"a\tb\"}", "{\"e\":\"\xff\"}", "\xff\xfe\x00", "{'e':1}", `{"é":nil}`, `{"e":"odd"} {"e":"odd"}`, "\ufeff{}", strings.Repeat("[", 1200), `{"a":` + strings.Repeat("[", 1005) + "1" + strings.Repeat("]", 1005) + "}",
	} {
		add(s)
	}
	for _, price := range []string{
		`"abc"`, `"-1"`, `-1`, `0`, `-0.0`, `1e400`, `0.123456789`, `99999999999999999999`, `true`, `null`, `""`, `" "`, `{"a": [1, {"b":"\u0041"}]}`, `[ 1 ,2 ]`, `"\u00e9\n\"\\\/"`, `"\ud83d\ude00"`, `"\ud800"`, `"\udc00x"`,
		`"\ud800\ud83d\ude00"`, `"\ud800A"`, `"😀` + "\u007f\u0085\u00a0\u00ad" + `"`, `"1","p":"x"`, `"1","p":null`, `"` + strings.Repeat("é", 150) + `"`,
	} {
		add(`{"e":"trade","E":1,"s":"ODD","t":` + fmt.Sprint(len(out)) + `,"q":"1","T":1724112000000,"m":true,"p":` + price + `}`)
	}
	text := `{"e": "odd", "E":1.5e+3,"s":"A\u00e9\ud83d\ude00", "n":{"a":[true,false,null,{"b":-0}]}, "p" :"1", "T":1724112000000}`
	for range 150 {
		b := []byte(text)
		for range rng.IntN(3) + 1 {
			switch i := rng.IntN(len(b)); rng.IntN(3) {
			case 0:
				b = slices.Delete(b, i, i+1)
			case 1:
				b[i] = text[rng.IntN(len(text))]
			case 2:
				b = slices.Insert(b, i, `{}[],:"\ue0`[rng.IntN(11)])
			}
		}
		// What NUL makes of a text is another matter, and a trade would be a row that nobody expects.
		if s := string(b); !strings.Contains(s, `\u0000`) && !strings.Contains(s, "trade") {
			add(s)
		}
	}
	out = append(out, &kgo.Record{Key: []byte("tombstone")})
	return out
}

// A stream moves between the embedded engine and Spark in both directions, also when Spark's driver is killed at the
// worst moments: each row once, the same rows and the same quarantine as if one engine had read it all.
func TestStreamMovesBetweenSparkAndHere(t *testing.T) {
	flags := clusterFlags(t)
	b := kafkatest.New(t, map[string]string{"producer": "pw-p", "stream": "pw-s"})
	ctx := t.Context()
	const topic = "crypto_trades"
	if err := errors.Join(b.CreateTopic(ctx, topic, 3, nil), b.AllowProduce(ctx, "producer", topic), b.AllowConsume(ctx, "stream", topic, "cauce-live")); err != nil {
		t.Fatal(err)
	}
	lake := func() *lab.Lake {
		l := lab.NewKafkaLake(t, topic, b.Addr, `, group: cauce-live, sasl: {user: stream, password: "${env:STREAM_PASSWORD}"}, producer: {user: producer, password: "${env:PRODUCER_PASSWORD}"}`)
		l.Env = append(l.Env, "STREAM_PASSWORD=pw-s", "PRODUCER_PASSWORD=pw-p")
		text, err := os.ReadFile(l.Path("lake.yaml"))
		if err == nil {
			err = os.WriteFile(l.Path("lake.yaml"), []byte(strings.Replace(string(text), "stream: {trigger: 1s}", "stream: {trigger: 30s}", 1)), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := lake()
	rng := testscale.Rand(t)
	g := lab.NewGenerator(rng, 3)
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.Admin), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic(topic))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	odd := oddMessages(rng)
	send := func(n int) {
		t.Helper()
		file := filepath.Join(t.TempDir(), fmt.Sprintf("events-%d.jsonl", time.Now().UnixNano()))
		g.Events(t, file, n)
		l.Run("produce", "replay", file)
		// A fourth of the odd messages each time, so that each engine meets some.
		k := min(len(odd), 60)
		if err := cl.ProduceSync(ctx, odd[:k]...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		odd = odd[k:]
	}
	check := func(what string) {
		t.Helper()
		if d := lab.Diff(g.Expected.Lines(), l.Rows()); d != "" {
			t.Fatalf("%s: %s", what, d)
		}
	}
	here := func(what string) {
		t.Helper()
		l.Run("run", "stream", "--available-now")
		check(what)
	}
	killed := func(phase string) {
		t.Helper()
		p := l.Start([]string{"CAUCE_FAULT=kill@" + phase}, append([]string{"spark", "submit", "stream", "--available-now", "--verbose"}, flags...)...)
		if code := p.Wait(5 * time.Minute); code == 0 || code == -2 || !strings.Contains(p.Stderr.String(), "cauce: kill@"+phase) {
			t.Fatalf("the driver ended with %d instead of being killed at %s: %s%s", code, phase, p.Stdout.String(), p.Stderr.String())
		}
	}

	send(500)
	here("embedded")
	send(300)
	killed("after-commit") // the rows are in the table, and nothing else knows of it
	check("Spark, killed after its commit")
	send(300)
	here("embedded after Spark")
	send(300)
	killed("before-commit") // progress and quarantine are written, and nothing of it counts
	kills := testscale.Count(t, "spark-kills")
	hit := map[string]int{"after-commit": 1, "before-commit": 1}
	for i := range kills - 2 {
		send(50)
		phase := []string{"reading", "before-commit", "after-commit"}[rng.IntN(3)]
		killed(phase)
		hit[phase]++
		if i%3 == 2 {
			here("embedded after several drivers were killed")
		}
	}

	// What the killed driver left is read by the next one, whose batches keep the lake file's trigger.
	p := l.Start(nil, append([]string{"spark", "submit", "stream", "--json"}, flags...)...)
	epochs := func() int {
		files, err := filepath.Glob(l.Path("data/processed/_progress/live/*/[0-9]*.json"))
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, f := range files {
			if !strings.Contains(filepath.Base(f), "-") {
				n++
			}
		}
		return n
	}
	for had, deadline := epochs(), time.Now().Add(8*time.Minute); epochs() < had+3; time.Sleep(2 * time.Second) {
		if !p.Running() || time.Now().After(deadline) {
			t.Fatalf("the stream on Spark made %d of 3 micro-batches: %s%s", epochs()-had, p.Stdout.String(), p.Stderr.String())
		}
		send(20)
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(3 * time.Minute); code != 0 {
		t.Fatalf("the stopped stream ended with %d: %s%s", code, p.Stdout.String(), p.Stderr.String())
	}
	var report struct {
		Epochs  int   `json:"epochs"`
		Rows    int64 `json:"rows_read"`
		Batches []struct {
			Timestamp time.Time
			Rows      int64
		}
	}
	decode(t, p.Stdout.String(), &report)
	if report.Epochs < 3 || len(report.Batches) < report.Epochs {
		t.Fatalf("the stream reports %d micro-batches and the progress of %d: %s", report.Epochs, len(report.Batches), p.Stdout.String())
	}
	var at []time.Time
	for _, x := range report.Batches {
		at = append(at, x.Timestamp)
	}
	// Spark begins a batch on the half minute, or, where the one before took longer than until then, right after it.
	for i := 1; i < len(at); i++ {
		if at[i].Unix()/30 == at[i-1].Unix()/30 {
			t.Errorf("two micro-batches in one half minute, the trigger is 30 s: %v", at)
		}
	}
	send(200)
	here("embedded after Spark's trigger")

	// Another lake reads the whole topic with one engine: the same rows, their origins and positions included.
	one := lake()
	one.Run("run", "stream", "--available-now")
	if a, b := tableHash(one), tableHash(l); a != b {
		t.Errorf("the table differs from that of one engine: %s", lab.Diff(one.Rows(), l.Rows()))
	}
	messages := func(l *lab.Lake) []string {
		out := l.Run("query", "SELECT source, origin, position, generation, topic, partition, \"offset\", rule, reason, raw, raw_bytes, hex(raw_binary), hex(message_key) FROM quarantine ORDER BY origin, position, rule", "--format", "jsonl")
		return strings.Split(strings.TrimSpace(out), "\n")
	}
	if d := lab.Diff(messages(one), messages(l)); d != "" {
		t.Errorf("quarantine differs from that of one engine: %s", d)
	}
	if n := len(messages(l)); n < 100 {
		t.Errorf("only %d messages went to quarantine: that proves little", n)
	}
	if rows := deltalake(t, l); rows != len(l.Rows()) {
		t.Errorf("deltalake sees %d rows, Cauce %d", rows, len(l.Rows()))
	}
	checkpoints, err := filepath.Glob(l.Path("data/raw/streaming/_checkpoints/live/*/*/offsets"))
	if err != nil || len(checkpoints) != kills+1 {
		t.Errorf("checkpoints %v, want one for each of %d killed drivers and one for the last (%v)", checkpoints, kills, err)
	}
	t.Logf("REPORT: %d rows, each once; drivers were killed at %v, and micro-batches of the last began at %v", len(l.Rows()), hit, at)
	noSecrets(t, l, "pw-s")
}

// Partitions and first offsets that the lake file names are those that Spark reads too, and the embedded engine goes on
// where Spark stopped.
func TestStreamStartsWhereTheLakeFileSays(t *testing.T) {
	flags := clusterFlags(t)
	b := kafkatest.New(t, map[string]string{"producer": "pw-p", "stream": "pw-s"})
	const topic = "crypto_trades"
	if err := errors.Join(b.CreateTopic(t.Context(), topic, 3, nil), b.AllowProduce(t.Context(), "producer", topic), b.AllowConsume(t.Context(), "stream", topic, "none")); err != nil {
		t.Fatal(err)
	}
	lake := func(where string) *lab.Lake {
		l := lab.NewKafkaLake(t, topic, b.Addr, `, `+where+`, sasl: {user: stream, password: "${env:STREAM_PASSWORD}"}, producer: {user: producer, password: "${env:PRODUCER_PASSWORD}"}`)
		l.Env = append(l.Env, "STREAM_PASSWORD=pw-s", "PRODUCER_PASSWORD=pw-p")
		return l
	}
	const where = "assign: [0, 2], start: {offsets: {0: 5}}"
	there, here := lake(where), lake(where)
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.Admin), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic(topic))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	sent := 0
	send := func() {
		t.Helper()
		for range 60 {
			value := fmt.Sprintf(`{"e":"trade","E":1724112000000,"s":"BTCUSDT","t":%d,"p":"1","q":"1","T":1724112000000,"m":true}`, sent)
			if err := cl.ProduceSync(t.Context(), &kgo.Record{Partition: int32(sent % 3), Value: []byte(value)}).FirstErr(); err != nil {
				t.Fatal(err)
			}
			sent++
		}
	}
	submit := append([]string{"spark", "submit", "stream", "--available-now"}, flags...)
	same := func(what string, rows int) {
		t.Helper()
		if n := len(here.Rows()); n != rows {
			t.Errorf("%s: the embedded engine has %d rows, want %d", what, n, rows)
		}
		if a, b := tableHash(here), tableHash(there); a != b {
			t.Errorf("%s: the table differs from that of the embedded engine: %s", what, lab.Diff(here.Rows(), there.Rows()))
		}
	}
	send()
	here.Run("run", "stream", "--available-now")
	there.Run(submit...)
	same("Spark's first run", 15+20)
	send()
	here.Run("run", "stream", "--available-now")
	there.Run("run", "stream", "--available-now")
	same("embedded after Spark", 35+40)
	send()
	here.Run("run", "stream", "--available-now")
	there.Run(submit...)
	same("Spark after embedded", 75+40)
	for where, want := range map[string]string{
		"start: {offsets: {1: 1000000}}": "partition 1: start at offset 1000000: the partition ",
		"assign: [7]":                    "there is no partition 7 to read (kafka.assign)",
	} {
		l := lake(where)
		p := l.Start(nil, submit...)
		if code := p.Wait(5 * time.Minute); code == 0 || !strings.Contains(p.Stderr.String(), want) {
			t.Errorf("%s: ended with %d: %s", where, code, p.Stderr.String())
		}
		if rows := len(l.Rows()); rows != 0 {
			t.Errorf("%s: %d rows", where, rows)
		}
	}
}

// noSecrets looks for secrets in what a lake keeps and in a rendered application.
func noSecrets(t *testing.T, l *lab.Lake, secrets ...string) {
	t.Helper()
	l.Run("spark", "render", "--out", "rendered")
	err := filepath.WalkDir(l.Dir, func(file string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(file)
		for _, s := range secrets {
			if strings.Contains(string(text), s) {
				t.Errorf("%s holds a secret: %s", file, s)
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// The stream of the template, on Kafka, is rendered with its trigger of half a minute.
func TestRenderedStreamHoldsTheTrigger(t *testing.T) {
	l := lab.NewLake(t)
	l.Run("init", "lake", "--template", "crypto")
	text, err := os.ReadFile(l.Path("lake/lake.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	kafka := strings.Replace(string(text), "    kind: embedded ", "    kind: kafka\n    kafka: {brokers: [\"localhost:9092\"]} ", 1)
	if kafka == string(text) {
		t.Fatalf("the template has no embedded stream: %s", text)
	}
	if err := os.WriteFile(l.Path("lake/lake.yaml"), []byte(kafka), 0o644); err != nil {
		t.Fatal(err)
	}
	l.Run("spark", "render", "--lake", "lake/lake.yaml", "--out", "out")
	files, err := filepath.Glob(l.Path("out/*/app.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		var app struct {
			Stream *struct {
				TriggerMillis int64 `json:"trigger_ms"`
			} `json:"stream"`
		}
		doc, err := os.ReadFile(f)
		if err == nil {
			err = json.Unmarshal(doc, &app)
		}
		if err != nil {
			t.Fatal(err)
		}
		if app.Stream != nil {
			if app.Stream.TriggerMillis != 30_000 {
				t.Errorf("%s: the trigger is %d ms, the template's 30 s", f, app.Stream.TriggerMillis)
			}
			return
		}
	}
	t.Errorf("no stream among %v", files)
}
