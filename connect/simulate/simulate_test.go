package simulate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
	"pgregory.net/rapid"

	"github.com/cauce-data/cauce/internal/testscale"
)

var start = time.Date(2024, 8, 20, 10, 0, 0, 0, time.UTC)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newExchange(t testing.TB, o Options) *Exchange {
	t.Helper()
	if o.Start.IsZero() {
		o.Start = start
	}
	x, err := New(o)
	must(t, err)
	return x
}

// The same seed gives the same trades, however they are asked for; another seed gives others.
func TestTradesDependOnTheSeedAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		steps := rapid.SliceOfN(rapid.IntRange(1, 40), 1, 8).Draw(t, "steps")
		var a, b, c bytes.Buffer
		n := 0
		x, _ := New(Options{Seed: seed, Start: start, Journal: &a})
		for _, s := range steps {
			_ = x.Step(s)
			n += s
		}
		y, _ := New(Options{Seed: seed, Start: start, Journal: &b})
		_ = y.Step(n)
		if a.String() != b.String() {
			t.Fatalf("steps %v give other trades than %d at once", steps, n)
		}
		z, _ := New(Options{Seed: seed + 1, Start: start, Journal: &c})
		_ = z.Step(n)
		if n > 3 && a.String() == c.String() {
			t.Fatal("another seed gives the same trades")
		}
	})
}

func TestTradesAreSound(t *testing.T) {
	var journal bytes.Buffer
	x := newExchange(t, Options{Seed: 1, Rate: 1000, FirstID: 500, Journal: &journal})
	must(t, x.Step(5000))
	next := map[string]int64{}
	var last int64
	for line := range strings.Lines(journal.String()) {
		var v struct {
			S, P, Q string
			T       int64 `json:"T"`
			Lower   int64 `json:"t"`
			M       bool
		}
		must(t, json.Unmarshal([]byte(line), &v))
		if next[v.S] == 0 {
			next[v.S] = 500
		}
		if v.Lower != next[v.S] {
			t.Fatalf("%s: id %d, want %d", v.S, v.Lower, next[v.S])
		}
		next[v.S]++
		if v.T < last || v.T < start.UnixMilli() || v.T > start.Add(6*time.Second).UnixMilli() {
			t.Fatalf("time %d after %d", v.T, last)
		}
		last = v.T
		for _, d := range []string{v.P, v.Q} {
			r, ok := new(big.Rat).SetString(d)
			if !ok || r.Sign() <= 0 || len(d)-strings.IndexByte(d, '.') != 9 {
				t.Fatalf("decimal %q", d)
			}
		}
	}
	if len(next) != 3 || x.Made() != 5000 {
		t.Errorf("%d symbols, %d trades", len(next), x.Made())
	}
}

func TestDecimal(t *testing.T) {
	for v, want := range map[int64]string{0: "0.00000000", 1: "0.00000001", scale: "1.00000000", 6301234000000: "63012.34000000", -5: ""} {
		if want != "" && decimal(v) != want {
			t.Errorf("%d: %s", v, decimal(v))
		}
	}
	if q := quote(63_012_34000000, 1230000); q != "775.05178200" {
		t.Errorf("quote: %s", q)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []Options{{Rate: -1}, {Symbols: []string{"btcusdt"}}, {Symbols: []string{"A", "A"}}, {Symbols: []string{""}}} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}

func serve(t *testing.T, x System) (httpURL, wsURL string) {
	t.Helper()
	s := httptest.NewServer(x.Handler())
	t.Cleanup(func() {
		x.Close()
		s.Close()
	})
	return s.URL, "ws" + strings.TrimPrefix(s.URL, "http")
}

func tryDial(url string) (*websocket.Conn, error) {
	c, resp, err := websocket.DefaultDialer.Dial(url, nil)
	if err != nil && resp != nil {
		err = fmt.Errorf("%s: %w", resp.Status, err)
	}
	return c, err
}

func dial(t *testing.T, url string) *websocket.Conn {
	t.Helper()
	c, _, err := websocket.DefaultDialer.Dial(url, nil)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func read(t *testing.T, c *websocket.Conn) string {
	t.Helper()
	must(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
	_, b, err := c.ReadMessage()
	must(t, err)
	return string(b)
}

func ask(t *testing.T, c *websocket.Conn, q string) string {
	t.Helper()
	must(t, c.WriteMessage(websocket.TextMessage, []byte(q)))
	return read(t, c)
}

// An event that waits for its successor comes without one too: the last of all is not lost.
func TestSwappedEventComesAlone(t *testing.T) {
	x := newExchange(t, Options{Seed: 7, Symbols: []string{"BTCUSDT"}, Faults: Faults{SwapEvery: 2}})
	_, ws := serve(t, x)
	trades := dial(t, ws+"/ws/btcusdt@trade")
	b := newBluesky(t, BlueskyOptions{Seed: 1, Faults: BlueskyFaults{SwapEvery: 2}})
	_, ws = serve(t, b)
	posts := dial(t, ws+"/subscribe")
	must(t, x.Step(2))
	must(t, b.Step(2))
	for range 2 {
		read(t, trades)
		read(t, posts)
	}
}

func TestStreams(t *testing.T) {
	var journal bytes.Buffer
	x := newExchange(t, Options{Seed: 7, Symbols: []string{"BTCUSDT"}, Journal: &journal, IncomingMax: 100})
	_, ws := serve(t, x)
	raw := dial(t, ws+"/ws/btcusdt@trade")
	combined := dial(t, ws+"/stream?streams=btcusdt@trade/btcusdt@aggTrade&timeUnit=MICROSECOND")
	later := dial(t, ws+"/ws")
	if got := ask(t, later, `{"method":"SUBSCRIBE","params":["btcusdt@aggTrade"],"id":1}`); got != `{"result":null,"id":1}` {
		t.Errorf("subscribe: %s", got)
	}
	if got := ask(t, later, `{"method":"LIST_SUBSCRIPTIONS","id":"x"}`); got != `{"result":["btcusdt@aggTrade"],"id":"x"}` {
		t.Errorf("list: %s", got)
	}
	for q, want := range map[string]string{
		`{"method":"SUBSCRIBE","params":["nonsense"],"id":1}`:       `{"code":2,`,
		`{"method":"DANCE","id":1}`:                                 `{"code":2,`,
		`{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":{}}`: `{"code":2,`,
		`{"method":`: `{"code":3,`,
		`{"method":"SET_PROPERTY","params":["colour",true],"id":1}`:    `{"code":0,`,
		`{"method":"GET_PROPERTY","params":["combined"],"id":2}`:       `{"result":false,"id":2}`,
		`{"method":"UNSUBSCRIBE","params":["btcusdt@trade"],"id":3}`:   `{"result":null,"id":3}`,
		`{"method":"SET_PROPERTY","params":["combined",false],"id":4}`: `{"result":null,"id":4}`,
	} {
		if got := ask(t, later, q); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s", q, got)
		}
	}
	must(t, x.Step(50))
	trades := x.Trades("BTCUSDT")
	for _, tr := range trades {
		want := fmt.Sprintf(`{"e":"trade","E":%d,"s":"BTCUSDT","t":%d,"p":"%s","q":"%s","T":%d,"m":%t,"M":true}`,
			tr.Time.Add(time.Millisecond).UnixMilli(), tr.ID, decimal(tr.Price), decimal(tr.Quantity), tr.Time.UnixMilli(), tr.BuyerMaker)
		if got := read(t, raw); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	}
	var envelope struct {
		Stream string
		Data   struct {
			S string `json:"s"`
			T int64  `json:"T"`
		}
	}
	must(t, json.Unmarshal([]byte(read(t, combined)), &envelope))
	if envelope.Stream != "btcusdt@trade" || envelope.Data.T != trades[0].Time.UnixMicro() {
		t.Errorf("combined: %+v", envelope)
	}
	// The aggregates cover every trade once.
	next := int64(1)
	for next < 45 {
		var a struct{ F, L int64 }
		must(t, json.Unmarshal([]byte(read(t, later)), &a))
		if a.F != next || a.L < a.F {
			t.Fatalf("aggregate of %d to %d, want it to begin at %d", a.F, a.L, next)
		}
		next = a.L + 1
	}
	for _, path := range []string{"/ws/nonsense", "/stream?streams=BTCUSDT@trade"} {
		if _, resp, err := websocket.DefaultDialer.Dial(ws+path, nil); err == nil || resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s was taken", path)
		}
	}
}

func TestREST(t *testing.T) {
	x := newExchange(t, Options{Seed: 7, Symbols: []string{"BTCUSDT"}, WeightMax: 400})
	must(t, x.Step(3000))
	url, _ := serve(t, x)
	get := func(path string, status int, out any) http.Header {
		t.Helper()
		resp, err := http.Get(url + path)
		must(t, err)
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		must(t, err)
		if resp.StatusCode != status {
			t.Fatalf("%s: %s: %s", path, resp.Status, b)
		}
		if out != nil {
			must(t, json.Unmarshal(b, out))
		}
		return resp.Header
	}
	var trades []struct {
		ID                   int64
		Price, Qty, QuoteQty string
		Time                 int64
	}
	h := get("/api/v3/historicalTrades?symbol=BTCUSDT&fromId=1000&limit=1000", 200, &trades)
	all := x.Trades("BTCUSDT")
	if len(trades) != 1000 || trades[0].ID != 1000 || trades[999].ID != 1999 || trades[5].Price != decimal(all[1004].Price) ||
		trades[5].Time != all[1004].Time.UnixMilli() || h.Get("X-MBX-USED-WEIGHT-1M") != "25" {
		t.Errorf("%d trades, first %+v", len(trades), trades[0])
	}
	get("/api/v3/trades?symbol=BTCUSDT&limit=10", 200, &trades)
	if len(trades) != 10 || trades[9].ID != 3000 {
		t.Errorf("newest: %+v", trades)
	}
	get("/api/v3/historicalTrades?symbol=BTCUSDT&fromId=9999", 200, &trades)
	if len(trades) != 0 {
		t.Errorf("beyond the end: %+v", trades)
	}
	var aggs []struct{ A, F, L, T int64 }
	get("/api/v3/aggTrades?symbol=BTCUSDT&fromId=1", 200, &aggs)
	if len(aggs) != 500 || aggs[0].F != 1 {
		t.Errorf("aggregates: %d", len(aggs))
	}
	for i, a := range aggs[1:] {
		if a.F != aggs[i].L+1 || a.A != aggs[i].A+1 {
			t.Fatalf("aggregate %+v follows %+v", a, aggs[i])
		}
	}
	from := aggs[100].T
	get(fmt.Sprintf("/api/v3/aggTrades?symbol=BTCUSDT&startTime=%d&endTime=%d", from, from+1000), 200, &aggs)
	for _, a := range aggs {
		if a.T < from || a.T > from+1000 {
			t.Errorf("aggregate of %d, asked for %d to %d", a.T, from, from+1000)
		}
	}
	var e apiError
	get("/api/v3/aggTrades?symbol=NOPE", 400, &e)
	if e.Code != -1121 {
		t.Errorf("unknown symbol: %+v", e)
	}
	get("/api/v3/historicalTrades", 400, &e)
	if e.Code != -1102 {
		t.Errorf("no symbol: %+v", e)
	}
	get("/api/v3/aggTrades?symbol=BTCUSDT&fromId=x", 400, &e)
	for range 20 {
		resp, err := http.Get(url + "/api/v3/historicalTrades?symbol=BTCUSDT")
		must(t, err)
		resp.Body.Close()
		if resp.StatusCode == http.StatusTooManyRequests && resp.Header.Get("Retry-After") == "" {
			t.Error("429 without Retry-After")
		}
	}
	if h := get("/api/v3/time", 418, &e); h.Get("Retry-After") != "120" {
		t.Errorf("banned: %v", h)
	}
}

// pipes is a listener without a network, so that a test can run in a bubble with a clock of its own.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func newPipes() *pipes { return &pipes{make(chan net.Conn), make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	select {
	case <-p.done:
	default:
		close(p.done)
	}
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	a, b := net.Pipe()
	select {
	case p.conns <- a:
		return b, nil
	case <-p.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// bubble runs an exchange and one client connection on a clock of their own. It returns how the connection ended and
// after how long.
func bubble(t *testing.T, o Options, client func(*websocket.Conn)) (ended error, after time.Duration) { //nolint:staticcheck // the error is what is asked for
	synctest.Test(t, func(t *testing.T) {
		o.Symbols, o.Rate = []string{"BTCUSDT"}, 1
		x := newExchange(t, o)
		ln := newPipes()
		ctx, cancel := context.WithCancel(context.Background())
		served := make(chan error)
		go func() { served <- Serve(ctx, ln, x) }()
		d := websocket.Dialer{NetDialContext: ln.dial}
		c, _, err := d.Dial("ws://exchange/ws/btcusdt@trade", nil)
		must(t, err)
		begin := time.Now()
		if client != nil {
			client(c)
		}
		for ended == nil {
			_, _, ended = c.ReadMessage()
		}
		after = time.Since(begin)
		c.Close()
		cancel()
		must(t, <-served)
	})
	return ended, after
}

func wantClose(t *testing.T, err error, code int) {
	t.Helper()
	var ce *websocket.CloseError
	if !errors.As(err, &ce) || ce.Code != code {
		t.Errorf("ended with %v, want code %d", err, code)
	}
}

func TestConnectionLivesADay(t *testing.T) {
	day, pings := time.Duration(testscale.Count(t, "day-minutes"))*time.Minute, 0
	var o Options
	if day < 24*time.Hour { // a glance; see the table
		o.MaxAge = day
	}
	err, after := bubble(t, o, func(c *websocket.Conn) {
		c.SetPingHandler(func(p string) error {
			pings++
			if len(p) < 8 {
				t.Errorf("payload %q", p)
			}
			return c.WriteControl(websocket.PongMessage, []byte(p), time.Now().Add(time.Second))
		})
	})
	wantClose(t, err, websocket.CloseGoingAway)
	if most := int(day / (20 * time.Second)); after < day-time.Second || after > day+time.Minute || pings < most-20 || pings > most {
		t.Errorf("lived %s with %d pings", after, pings)
	}
}

func TestMissingPongCuts(t *testing.T) {
	err, after := bubble(t, Options{}, func(c *websocket.Conn) { c.SetPingHandler(func(string) error { return nil }) })
	wantClose(t, err, websocket.ClosePolicyViolation)
	if after < 80*time.Second || after > 85*time.Second {
		t.Errorf("cut after %s, want 20 s + 1 min", after)
	}
}

func TestWrongPongCuts(t *testing.T) {
	err, after := bubble(t, Options{}, func(c *websocket.Conn) {
		c.SetPingHandler(func(p string) error {
			return c.WriteControl(websocket.PongMessage, []byte(p+"x"), time.Now().Add(time.Second))
		})
	})
	wantClose(t, err, websocket.ClosePolicyViolation)
	if after > 21*time.Second {
		t.Errorf("cut after %s", after)
	}
}

func TestTooManyFramesCut(t *testing.T) {
	err, _ := bubble(t, Options{}, func(c *websocket.Conn) {
		go func() {
			for i := range 6 {
				_ = c.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, `{"method":"LIST_SUBSCRIPTIONS","id":%d}`, i))
			}
		}()
	})
	wantClose(t, err, websocket.ClosePolicyViolation)
}

func TestShutdownIsAnnounced(t *testing.T) {
	var frames []string
	err, _ := bubble(t, Options{Faults: Faults{ShutdownEvery: 3}}, func(c *websocket.Conn) {
		for range 4 {
			_, b, err := c.ReadMessage()
			must(t, err)
			frames = append(frames, string(b))
		}
	})
	wantClose(t, err, websocket.CloseGoingAway)
	if !strings.Contains(frames[3], "serverShutdown") {
		t.Errorf("frames: %q", frames)
	}
}

func TestTooManyStreamsAndConnections(t *testing.T) {
	x := newExchange(t, Options{ConnectMax: 3})
	_, ws := serve(t, x)
	c := dial(t, ws+"/ws")
	names := make([]string, 1025)
	for i := range names {
		names[i] = fmt.Sprintf("s%d@trade", i)
	}
	q, err := json.Marshal(map[string]any{"method": "SUBSCRIBE", "params": names, "id": 1})
	must(t, err)
	if got := ask(t, c, string(q)); !strings.Contains(got, "too many streams") {
		t.Errorf("got %s", got)
	}
	_, _, err = c.ReadMessage()
	wantClose(t, err, websocket.ClosePolicyViolation)
	dial(t, ws+"/ws")
	dial(t, ws+"/ws")
	_, resp, err := websocket.DefaultDialer.Dial(ws+"/ws", nil)
	if err == nil || resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" {
		t.Errorf("the fourth attempt: %v, %v", resp, err)
	}
}
