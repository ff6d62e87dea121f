package examples_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/cauce-data/cauce/connect/binance"
	"github.com/cauce-data/cauce/connect/simulate"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/internal/testscale"
)

// published is a message as a producer hands it to the topic.
type published struct {
	Key, ID, Value string
}

// topic is a Sink that keeps what is published.
type topic struct {
	mu       sync.Mutex
	messages []published
}

func (p *topic) Publish(_ context.Context, key []byte, id string, value []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.messages = append(p.messages, published{string(key), id, string(value)})
	return nil
}

func (p *topic) Flush(context.Context) error { return nil }

func (p *topic) all() []published {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.messages)
}

// produced runs the exchange's client against a server until it has published n messages, and returns them.
func produced(t *testing.T, url string, o binance.Options, n int, connected func()) []published {
	t.Helper()
	sink := &topic{}
	o.URL, o.Sink = "ws"+strings.TrimPrefix(url, "http"), sink
	c, err := binance.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- c.Run(ctx) }()
	for deadline, told := time.Now().Add(30*time.Second), false; len(sink.all()) < n && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if !told && c.Stats().Connected {
			told = true
			connected()
		}
	}
	cancel()
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	if m := sink.all(); len(m) >= n {
		return m
	}
	t.Fatalf("%d messages of %d: %+v", len(sink.all()), n, c.Stats())
	return nil
}

// serveFrames is an exchange that sends the given frames to its first client.
func serveFrames(t *testing.T, frames []string) string {
	t.Helper()
	var once sync.Once
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		up := websocket.Upgrader{}
		ws, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer ws.Close()
		once.Do(func() {
			for _, f := range frames {
				if ws.WriteMessage(websocket.TextMessage, []byte(f)) != nil {
					return
				}
			}
		})
		for {
			if _, _, err := ws.ReadMessage(); err != nil {
				return
			}
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// documentedFrames are written from the exchange's documentation, member by member: no recording holds a trade. The last
// symbol is one that has no letters of ASCII.
var documentedFrames = []string{
	`{"stream":"btcusdt@trade","data":{"e":"trade","E":1672515782136,"s":"BTCUSDT","t":12345,"p":"0.00100000","q":"100.00000000","T":1672515782136,"m":true,"M":true}}`,
	`{"stream":"btcusdt@trade","data":{"e":"trade","E":1672515782136,"s":"BTCUSDT","t":12346,"p":"0.00100000","q":"100.00000000","b":88,"a":50,"T":1672515782136,"m":true,"M":true}}`,
	`{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","E":1672515782136,"s":"BTCUSDT","a":12345,"p":"0.00100000","q":"100.00000000","f":100,"l":105,"T":1672515782136,"m":false,"M":true}}`,
	`{"stream":"btcusdt@trade","data":{"e":"trade","E":1672515782136,"T":1672515782133,"s":"BTCUSDT","t":12345,"p":"16500.30","q":"0.125","X":"MARKET","m":true}}`,
	`{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","E":1672515782136,"s":"BTCUSDT","a":12345,"p":"16500","q":"0.250","f":100,"l":105,"T":1672515782132,"m":false}}`,
	`{"stream":"币安人生usdt@trade","data":{"e":"trade","E":1672515782136,"s":"币安人生USDT","t":7,"p":"0.10000000","q":"1.00000000","T":1672515782136,"m":true,"M":true}}`,
}

// recordedFrames are those of the exchange's spot and futures streams in ../shared.
func recordedFrames(t *testing.T) (frames []string) {
	t.Helper()
	shared := prereq.Need(t, "shared")
	for _, name := range []string{"cryptofeed_BINANCE.ws.1.0.txt", "cryptofeed_BINANCE_FUTURES.ws.1.0.txt"} {
		text, err := os.ReadFile(filepath.Join(shared, "realdata", name))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if at := strings.Index(line, `{"stream":`); at >= 0 {
				frames = append(frames, strings.TrimSpace(line[at:]))
			}
		}
	}
	return frames
}

// contract holds the schemas of trades, by the beginning of their message ids.
func contract(t *testing.T) map[string]*jsonschema.Schema {
	t.Helper()
	return map[string]*jsonschema.Schema{
		"trade": compileSchema(t, "binance-trade.schema.json"), "agg": compileSchema(t, "binance-aggtrade.schema.json"),
		"um-trade": compileSchema(t, "binance-um-trade.schema.json"), "um-agg": compileSchema(t, "binance-um-aggtrade.schema.json"),
	}
}

// agree checks messages against docs/topic.md and its schemas, and counts them by kind: the value is valid under the
// schema of its kind and no other, the key is the symbol, the id is made of kind, symbol and number.
func agree(t *testing.T, schemas map[string]*jsonschema.Schema, messages []published) map[string]int {
	t.Helper()
	kinds := map[string]int{}
	for _, m := range messages {
		var v struct {
			Symbol string      `json:"s"`
			Upper  any         `json:"S"`
			Trade  json.Number `json:"t"`
			Time   any         `json:"T"`
			Agg    json.Number `json:"a"`
			UpperA any         `json:"A"`
		}
		if err := json.Unmarshal([]byte(m.Value), &v); err != nil {
			t.Fatalf("%v: %s", err, m.Value)
		}
		var kind string
		for k, s := range schemas {
			n := v.Trade
			if strings.HasSuffix(k, "agg") {
				n = v.Agg
			}
			err := valid(t, s, m.Value)
			if m.ID != fmt.Sprintf("%s-%s-%s", k, v.Symbol, n) {
				if err == nil {
					t.Errorf("the schema of %s takes the message %s: %s", k, m.ID, m.Value)
				}
				continue
			}
			kind = k
			if err != nil {
				t.Errorf("%s: %v\n%s", m.ID, err, m.Value)
			}
		}
		if kind == "" || m.Key != v.Symbol {
			t.Errorf("id %q and key %q of %s", m.ID, m.Key, m.Value)
		}
		kinds[kind]++
	}
	return kinds
}

// What the producer publishes of a simulated exchange, with times in ms and in µs, is what the contract says.
func TestSimulatedTradesAgreeWithTheContract(t *testing.T) {
	schemas := contract(t)
	for _, micros := range []bool{false, true} {
		for _, channel := range []string{"trade", "aggTrade"} {
			x, err := simulate.New(simulate.Options{Seed: testscale.Seed(t), Faults: simulate.Faults{OldEvery: 7, DuplicateEvery: 11, SwapEvery: 13, UnknownEvery: 17}})
			if err != nil {
				t.Fatal(err)
			}
			srv := httptest.NewServer(x.Handler())
			t.Cleanup(func() { x.Close(); srv.Close() })
			got := produced(t, srv.URL, binance.Options{Symbols: []string{"BTCUSDT", "ETHUSDT"}, Channel: channel, Microseconds: micros}, 100, func() {
				if err := x.Step(2000); err != nil {
					t.Error(err)
				}
			})
			want := strings.ToLower(strings.TrimSuffix(channel, "Trade"))
			if kinds := agree(t, schemas, got); len(kinds) != 1 || kinds[want] != len(got) {
				t.Errorf("%s: %v", channel, kinds)
			}
		}
	}
}

// What the exchange's documentation has, and what its streams were recorded to send, is what the contract says; and the
// contract refuses what is broken.
func TestDocumentedTradesAgreeWithTheContract(t *testing.T) {
	schemas := contract(t)
	got := produced(t, serveFrames(t, documentedFrames), binance.Options{Symbols: []string{"BTCUSDT"}}, len(documentedFrames), func() {})
	if kinds := agree(t, schemas, got); len(kinds) != 4 {
		t.Errorf("%v", kinds)
	}
	for _, m := range got {
		broken := 0
		for old, bad := range map[string]string{
			`"p":"`: `"p":"-`, `"q":"`: `"q":"1e`, `"E":1`: `"E":"1`, `"T":1`: `"T":-1`, `"m":true`: `"m":"true"`, `"m":false`: `"m":0`, `"s":"`: `"symbol":"`, `"t":1`: `"t":-1`,
			`"a":1`: `"a":0.1`, `"l":105,`: ``, `"e":"trade"`: `"e":"depthUpdate"`,
		} {
			text := strings.Replace(m.Value, old, bad, 1)
			if text == m.Value || !json.Valid([]byte(text)) {
				continue
			}
			broken++
			for kind, s := range schemas {
				if valid(t, s, text) == nil {
					t.Errorf("the schema of %s takes %s in the place of %s", kind, bad, old)
				}
			}
		}
		if broken < 6 {
			t.Errorf("%s was broken in %d ways only", m.Value, broken)
		}
	}
}

func TestRecordedTradesAgreeWithTheContract(t *testing.T) {
	got := produced(t, serveFrames(t, recordedFrames(t)), binance.Options{Symbols: []string{"BTCUSDT"}, Channel: "aggTrade"}, 93, func() {})
	if kinds := agree(t, contract(t), got); len(got) != 93 || kinds["agg"] != 2 || kinds["um-agg"] != 91 {
		t.Errorf("%d messages: %v", len(got), kinds)
	}
}

// The producer in Python makes of each frame the message that the other one makes, byte for byte.
func TestPythonMakesTheSameMessages(t *testing.T) {
	python := prereq.Need(t, "venv")
	frames := append(recordedFrames(t), documentedFrames...)
	want := produced(t, serveFrames(t, frames), binance.Options{Symbols: []string{"BTCUSDT"}}, 93+len(documentedFrames), func() {})
	cmd := exec.Command(python, "-c", "import json, sys, binance\nfor f in sys.stdin:\n  m = binance.message(f)\n  m and print(json.dumps(dict(zip(('Key', 'ID', 'Value'), m))))")
	cmd.Dir = "producers"
	cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1", "PYTHONUTF8=1")
	cmd.Stdin = strings.NewReader(strings.Join(frames, "\n"))
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, errs.String())
	}
	var got []published
	for line := range strings.Lines(string(out)) {
		var m published
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		got = append(got, m)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d messages, want %d:\n%v\n%v", len(got), len(want), got, want)
	}
}
