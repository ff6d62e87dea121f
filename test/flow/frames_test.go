package flow

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/test/lab"
)

// sequencesLake reads spot trades, aggregate trades and futures of one topic into one table.
const sequencesLake = `version: 1
storage: file:./data
tables:
  unified_events:
    columns:
      event_id: {type: STRING, not_null: true}
      symbol: STRING
      price: "DECIMAL(18,8)"
      quantity: "DECIMAL(18,8)"
      event_time: TIMESTAMP
      is_buyer_maker: BOOLEAN
    key: [event_id]
    sequence: [event_time]
sources:
  live:
    table: unified_events
    kind: embedded
    topic: crypto_trades
    format: json
    filter: e IN ('trade', 'aggTrade')
    fields:
      event_id: s || CASE WHEN M IS NULL THEN '-um' ELSE '' END || CASE WHEN e = 'aggTrade' THEN '-agg' ELSE '' END || '-' || coalesce(t, a)
      symbol: s
      price: p
      quantity: q
      event_time: to_event_time(T)
      is_buyer_maker: to_boolean(m)
`

var frameColumns = []string{"event_id", "price", "quantity", "event_time", "is_buyer_maker"}

// produceFrames sends frames over a WebSocket to `cauce produce binance`, streams until the table has the wanted rows,
// and returns them with what the producer says that it did.
func produceFrames(t *testing.T, frames []string, want int) (rows []string, kinds map[string]int64, events int64) {
	t.Helper()
	var served atomic.Bool
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		up := websocket.Upgrader{}
		ws, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer ws.Close()
		if served.CompareAndSwap(false, true) {
			for _, f := range frames {
				if ws.WriteMessage(websocket.TextMessage, []byte(f)) != nil {
					return
				}
			}
		}
		for {
			if _, _, err := ws.ReadMessage(); err != nil {
				return
			}
		}
	}))
	t.Cleanup(srv.Close)
	l := lab.NewLake(t)
	if err := os.WriteFile(l.Path("lake.yaml"), []byte(sequencesLake), 0o600); err != nil {
		t.Fatal(err)
	}
	p := l.Start(nil, "produce", "binance", "--json", "--symbols", "BTCUSDT", "--channel", "aggTrade", "--url", "ws"+strings.TrimPrefix(srv.URL, "http"))
	for deadline := time.Now().Add(30 * time.Second); ; {
		l.Run("run", "stream", "--available-now")
		rows = lab.Lines(t, []byte(l.Run("query", "SELECT "+strings.Join(frameColumns, ", ")+" FROM unified_events", "--format", "csv")), frameColumns)
		if len(rows) >= want || time.Now().After(deadline) || !p.Running() {
			break
		}
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(30 * time.Second); code != 0 {
		t.Fatalf("the producer ended with %d: %s", code, p.Stderr.String())
	}
	var out struct {
		Events int64
		Kinds  map[string]int64 `json:"ignored_kinds"`
	}
	if err := json.Unmarshal(p.Stdout.Bytes(), &out); err != nil {
		t.Fatalf("%v in %q", err, p.Stdout.String())
	}
	// What came behind the last event that was waited for is in the table too.
	l.Run("run", "stream", "--available-now")
	rows = lab.Lines(t, []byte(l.Run("query", "SELECT "+strings.Join(frameColumns, ", ")+" FROM unified_events", "--format", "csv")), frameColumns)
	return rows, out.Kinds, out.Events
}

// wantFrame is the row of a trade, in the table's canonical form.
func wantFrame(t *testing.T, id, price, quantity string, ms int64, maker bool) string {
	t.Helper()
	text := fmt.Sprintf("%s\n%s,%s,%s,%s,%t\n", strings.Join(frameColumns, ","), id, price, quantity,
		time.UnixMilli(ms).UTC().Format(time.RFC3339Nano), maker)
	return lab.Lines(t, []byte(text), frameColumns)[0]
}

// TestRecordedFramesLand sends the recorded frames of the exchange's spot and futures streams through producer, buffer
// and stream: every aggregate trade is in the table, and every other frame is counted by its kind.
func TestRecordedFramesLand(t *testing.T) {
	shared := prereq.Need(t, "shared")
	var frames, want []string
	kinds := map[string]int64{}
	for _, name := range []string{"cryptofeed_BINANCE.ws.1.0.txt", "cryptofeed_BINANCE_FUTURES.ws.1.0.txt"} {
		text, err := os.ReadFile(filepath.Join(shared, "realdata", name))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			at := strings.Index(line, `{"stream":`)
			if at < 0 {
				continue
			}
			frame := strings.TrimSpace(line[at:])
			frames = append(frames, frame)
			var f struct {
				Stream string
				Data   map[string]any
			}
			if err := json.Unmarshal([]byte(frame), &f); err != nil {
				t.Fatal(err)
			}
			kind, _ := f.Data["e"].(string)
			if kind == "" {
				_, kind, _ = strings.Cut(f.Stream, "@")
			}
			if kind != "aggTrade" {
				kinds[kind]++
				continue
			}
			id := f.Data["s"].(string) + "-agg-"
			if strings.Contains(name, "FUTURES") {
				id = f.Data["s"].(string) + "-um-agg-"
			}
			want = append(want, wantFrame(t, fmt.Sprintf("%s%.0f", id, f.Data["a"]), f.Data["p"].(string), f.Data["q"].(string), int64(f.Data["T"].(float64)), f.Data["m"].(bool)))
		}
	}
	slices.Sort(want)
	if len(want) != 93 {
		t.Fatalf("the recordings hold %d aggregate trades", len(want))
	}
	rows, ignored, events := produceFrames(t, frames, len(want))
	if d := lab.Diff(want, rows); d != "" {
		t.Error(d)
	}
	if !maps.Equal(kinds, ignored) {
		t.Errorf("other kinds: counted %v, recorded %v", ignored, kinds)
	}
	t.Logf("REPORT: %d recorded frames: %d aggregate trades in the table, not used: %v", len(frames), events, ignored)
}

// TestIdsOfDifferentSequences lands a spot trade, a spot aggregate and a futures trade with the same symbol and number,
// in frames written from the exchange's documentation: three rows, each value where it belongs.
func TestIdsOfDifferentSequences(t *testing.T) {
	frames := []string{
		`{"stream":"btcusdt@trade","data":{"e":"trade","E":1672515782136,"s":"BTCUSDT","t":1,"p":"16500.10000000","q":"0.50000000","T":1672515782135,"m":true,"M":true}}`,
		`{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","E":1672515782136,"s":"BTCUSDT","a":1,"p":"16500.20000000","q":"0.75000000","f":100,"l":105,"T":1672515782134,"m":false,"M":true}}`,
		`{"stream":"btcusdt@trade","data":{"e":"trade","E":1672515782136,"T":1672515782133,"s":"BTCUSDT","t":1,"p":"16500.30","q":"0.125","X":"MARKET","m":true}}`,
		`{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","E":1672515782136,"s":"BTCUSDT","a":1,"p":"16500.40","q":"0.250","f":100,"l":105,"T":1672515782132,"m":false}}`,
		// The order ids b and a that spot trades had once are accepted and mean nothing.
		`{"stream":"btcusdt@trade","data":{"e":"trade","E":1672515782136,"s":"BTCUSDT","t":2,"p":"16500.50000000","q":"1.00000000","b":88,"a":50,"T":1672515782131,"m":true,"M":true}}`,
	}
	want := []string{
		wantFrame(t, "BTCUSDT-1", "16500.1", "0.5", 1672515782135, true),
		wantFrame(t, "BTCUSDT-agg-1", "16500.2", "0.75", 1672515782134, false),
		wantFrame(t, "BTCUSDT-um-1", "16500.3", "0.125", 1672515782133, true),
		wantFrame(t, "BTCUSDT-um-agg-1", "16500.4", "0.25", 1672515782132, false),
		wantFrame(t, "BTCUSDT-2", "16500.5", "1", 1672515782131, true),
	}
	slices.Sort(want)
	rows, _, events := produceFrames(t, frames, len(want))
	if d := lab.Diff(want, rows); d != "" {
		t.Error(d)
	}
	if events != int64(len(frames)) {
		t.Errorf("%d events of %d frames", events, len(frames))
	}
}
