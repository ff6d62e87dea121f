package spark

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cauce-data/cauce/engine/spark"
	"github.com/cauce-data/cauce/internal/kafkatest"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/pipeline"
	"github.com/cauce-data/cauce/test/lab"
)

// oddKeys are keys of messages that delete: names, objects, and what is neither.
var oddKeys = []string{
	"\xff", "", " ", "none", "a<&>\"\\\u2028\u007f\x01b", "{}", "{ }", "null", "[]", "1", `{"id":"a"} x`, `{"id":"\u0061","id":"e"}`, "{\"id\":\"\xff\"}", `{"id":NaN}`, `{"id":{"id":"a"}}`,
	`{"T":"soon","id":"a"}`, "\ufeff{}", `{"id":"a",}`, `{'id':1}`, "\t{\"id\":\n\"b\"}\r\n", "\u00a0{}", `{"id":"\ud800"}`, `{"id":Infinity}`, "{\"id\":\"a\nb\"}", `{"id":01}`,
}

// Messages without value delete, and a broker is asked over TLS with a client's certificate, on Spark as here: the first
// half is read there, the second here, and the tables are those of one engine.
func TestTombstonesOverTLSOnSpark(t *testing.T) {
	flags := submitFlags(t)
	b := kafkatest.NewWith(t, kafkatest.Options{TLS: true, ClientCerts: true})
	if err := b.CreateTopic(t.Context(), "ticks", 1, map[string]string{"retention.ms": "-1"}); err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.Admin), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic("ticks"))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	const base = 1724112000000
	var records []*kgo.Record
	send := func(key, value []byte, after int64) {
		records = append(records, &kgo.Record{Key: key, Value: value, Timestamp: time.UnixMilli(base + after)})
	}
	half := func(n int64) {
		t.Helper()
		at := n * 10_000
		tick := func(id, more string, after int64) {
			send(nil, fmt.Appendf(nil, `{"id":%q,"T":%d,%s,"less":null}`, id, base+at+after, more), at)
		}
		for _, id := range []string{"a", "b", "c", "d", "e"} {
			tick(id, `"p":"1","more":[1, "<é"]`, 0)
		}
		tick("f", `"p":-1`, 0)
		send(fmt.Appendf(nil, ` {"id":"a", "T": %d, "x":"y"} `, base+at+1), nil, at)
		send([]byte(`{"id":"b"}`), nil, at-5000) // older than the row
		tick("c", `"gone":"yes"`, 1)
		tick("d", `"p":1,"\u0000tombstone":"true"`, 2)
		for _, k := range oddKeys {
			send([]byte(k), nil, at+3)
		}
		send(nil, nil, at+3)
		if err := cl.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		records = nil
	}
	lake := func() *lab.Lake {
		return lab.NewLakeOf(t, fmt.Appendf(nil, lab.TicksLake, "ticks", b.Addr,
			fmt.Sprintf(", tls: {ca: %q, cert: %q, key: %q}, tombstones: {time: T}", b.CA, b.ClientCert, b.ClientKey),
			"    delete: \"gone = 'yes'\" # messages that say so delete, beside those without value\n    unknown_fields: keep"))
	}
	lines := func(l *lab.Lake, query string) []string {
		return strings.Split(strings.TrimSpace(l.Run("query", query, "--format", "jsonl")), "\n")
	}
	const rows = "SELECT * FROM ticks ORDER BY id"
	const bad = "SELECT position, rule, reason, raw, hex(raw_binary), hex(message_key) FROM quarantine ORDER BY position, rule"
	l, one := lake(), lake()
	same := func(what string) {
		t.Helper()
		if d := lab.Diff(lines(one, rows), lines(l, rows)); d != "" {
			t.Errorf("%s: tables differ (want: here, got: Spark): %s", what, d)
		}
		if d := lab.Diff(lines(one, bad), lines(l, bad)); d != "" {
			t.Errorf("%s: quarantine differs (want: here, got: Spark): %s", what, d)
		}
		if a, b := one.Run("table", "hash", "ticks"), l.Run("table", "hash", "ticks"); a != b {
			t.Errorf("%s: the tables' hashes differ", what)
		}
	}
	half(0)
	l.Run(append([]string{"spark", "submit", "stream", "--available-now"}, flags...)...)
	one.Run("run", "stream", "--available-now")
	same("the first half")
	half(1)
	l.Run("run", "stream", "--available-now")
	one.Run("run", "stream", "--available-now")
	same("both halves")
	got := lines(l, "SELECT id FROM ticks ORDER BY id")
	if want := []string{`{"id":"d"}`}; !slices.Equal(got, want) {
		t.Errorf("%s are left, want %s: of the others b and e were deleted by odd keys, a and c before", got, want)
	}
	if n := len(lines(l, bad)); n < 20 {
		t.Errorf("%d rows in quarantine: that proves little", n)
	}
	noSecrets(t, l, "PRIVATE KEY")
}

// What a message without value stands for is the same in the driver's Python as here, whatever its key is.
func TestTombstonesMeanTheSameInTheDriver(t *testing.T) {
	rng := testscale.Rand(t)
	keys := slices.Clone(oddKeys)
	for range testscale.Count(t, "prove-records") {
		k := []byte(oddKeys[rng.IntN(len(oddKeys))])
		for range rng.IntN(3) + 1 {
			i := rng.IntN(len(k) + 1)
			k = slices.Insert(k, i, `{}",:\ é`[rng.IntN(9)])
		}
		keys = append(keys, string(k))
	}
	type ask struct {
		Spec map[string]string `json:"spec"`
		Key  string            `json:"key"` // base64
		Time int64             `json:"time"`
	}
	var asks []ask
	var want []string
	for _, spec := range []map[string]string{{"key": "id", "time": "T"}, {"time": "T"}, {"key": "a <\"b"}, {}} {
		src := &pipeline.Source{Kafka: &pipeline.Kafka{Tombstones: &pipeline.Tombstones{Key: spec["key"], Time: spec["time"]}}}
		for _, k := range keys {
			at := rng.Int64N(2_000_000_000_000)
			text, gone, err := src.Object(&pipeline.Record{Key: []byte(k), Time: time.UnixMilli(at)})
			if err == nil && !gone {
				t.Fatalf("key %q is no deletion", k)
			}
			if err != nil {
				text = []byte("refused: " + err.Error())
			}
			asks, want = append(asks, ask{spec, base64.StdEncoding.EncodeToString([]byte(k)), at}), append(want, string(text))
		}
	}
	var got []string
	inDriver(t, `out = []
for x in json.load(sys.stdin):
    try:
        text = driver.tombstone(x["spec"], base64.b64decode(x["key"]), x["time"])
    except driver.JSONError as e:
        text = b"refused: " + str(e).encode()
    out.append(base64.b64encode(text).decode())
print(json.dumps(out))`, asks, &got)
	objects := 0
	for i, w := range want {
		g, err := base64.StdEncoding.DecodeString(got[i])
		if err != nil {
			t.Fatal(err)
		}
		// One JSON object may be written in several ways.
		var a, b any
		if json.Unmarshal([]byte(w), &a) == nil && json.Unmarshal(g, &b) == nil && reflect.DeepEqual(a, b) {
			objects++
			continue
		}
		if string(g) != w {
			k, _ := base64.StdEncoding.DecodeString(asks[i].Key)
			t.Errorf("the key %q with %v stands for %q in the driver, for %q here", k, asks[i].Spec, g, w)
		}
	}
	if objects*10 < len(want) {
		t.Errorf("only %d of %d keys stand for objects: that proves little", objects, len(want))
	}
}

// A byte that no JSON has there is named alike.
func TestCharactersAreShownAlikeInTheDriver(t *testing.T) {
	var got []string
	inDriver(t, `print(json.dumps([driver.go_char(c) for c in range(256)]))`, nil, &got)
	for c, g := range got {
		if want := fmt.Sprintf("%q", rune(c)); g != want {
			t.Errorf("byte %d is %s in the driver, %s here", c, g, want)
		}
	}
	if len(got) != 256 {
		t.Errorf("%d bytes", len(got))
	}
}

// A stream on Spark goes on however often another run was faster in its life, as long as it commits in between; one that loses
// time and again ends with the exit code of a conflict.
func TestStreamOutlivesRunsThatAreFaster(t *testing.T) {
	var got []string
	inDriver(t, `app = {"source": {"name": "live"}, "stream": {}}
sys.argv = ["driver.py", "app.json"]
driver.watch = lambda query, report: None

class Query:
    isActive = False
    def __init__(self, run):
        self.run = run
    def awaitTermination(self, seconds):
        runs.append(self.run)
        for _ in range(commits):
            self.run.committed(Table, {**dict.fromkeys(driver.COUNTS, 1), "warned": {}})
        if len(runs) > 60:
            return True
        self.run.error = driver.Moved("another one has the epoch")
        raise self.run.error

class Table:
    name, version = "trades", 7

class Stream:
    error = None
    def __init__(self, spark, app):
        pass
    def start(self, available_now):
        return Query(self)

driver.Stream = Stream
out = []
for commits in (1, 0):
    runs = []
    try:
        driver.stream(None, app)
        out.append(f"ended after {len(runs)}")
    except driver.Conflict:
        out.append(f"lost after {len(runs)}")
print(json.dumps(out))`, nil, &got)
	if want := []string{"ended after 61", "lost after 20"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// inDriver runs a program of Python beside the driver's code, with a value as JSON on its standard input and another on its
// standard output.
func inDriver(t *testing.T, program string, in, out any) {
	t.Helper()
	python, dir := prereq.Need(t, "venv"), t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "driver.py"), spark.Driver(), 0o600); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, "-c", "import base64, json, sys\nsys.dont_write_bytecode = True\nsys.setrecursionlimit(5000)\nimport driver\n"+program)
	var stderr bytes.Buffer
	cmd.Dir, cmd.Stdin, cmd.Stderr = dir, bytes.NewReader(text), &stderr
	answer, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.Bytes())
	}
	decode(t, string(answer), out)
}
