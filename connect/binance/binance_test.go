package binance

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cauce-data/cauce/connect/simulate"
	"github.com/cauce-data/cauce/internal/live"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/internal/testscale"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// memory is a Sink that keeps what it gets and drops repeated ids.
type memory struct {
	mu      sync.Mutex
	ids     map[string]int
	values  []string
	keys    []string
	flushes int
	fail    error
}

func (m *memory) Publish(_ context.Context, key []byte, id string, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	if m.ids == nil {
		m.ids = map[string]int{}
	}
	if m.ids[id]++; m.ids[id] == 1 {
		m.values, m.keys = append(m.values, string(value)), append(m.keys, string(key))
	}
	return nil
}

func (m *memory) Flush(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.flushes++
	return nil
}

func (m *memory) has(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ids[id] > 0
}

// pipes is a listener without a network, so that a test can run in a bubble with a clock of its own.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

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

func (p *pipes) client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			a, b := net.Pipe()
			select {
			case p.conns <- a:
				return b, nil
			case <-p.done:
				return nil, net.ErrClosed
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
	}}
}

// trade runs an exchange and a client on a clock of their own for a while, and returns what came of it: the sink, the
// client's figures, and the message ids of all trades made while the client was connected.
func trade(t *testing.T, for_ time.Duration, so simulate.Options, co Options) (sink *memory, stats live.Stats, made []string) {
	synctest.Test(t, func(t *testing.T) {
		var journal bytes.Buffer
		so.Symbols, so.Journal, so.Start = []string{"BTCUSDT"}, &journal, time.Now()
		x, err := simulate.New(so)
		must(t, err)
		ln := &pipes{make(chan net.Conn), make(chan struct{})}
		serving, stop := context.WithCancel(context.Background())
		served, ran := make(chan error, 1), make(chan error, 1)
		go func() { served <- simulate.Serve(serving, ln, x) }()
		sink = &memory{}
		co.URL, co.Symbols, co.Sink, co.HTTPClient = "ws://exchange", []string{" BTCUSDT"}, sink, ln.client()
		c, err := New(co)
		must(t, err)
		ctx, cancel := context.WithCancel(context.Background())
		go func() { ran <- c.Run(ctx) }()
		time.Sleep(for_)
		stats = c.Stats()
		begin := time.Now()
		cancel()
		must(t, <-ran)
		if took := time.Since(begin); took > 3*time.Second {
			t.Errorf("the client took %s to stop", took)
		}
		stop()
		must(t, <-served)
		if sink.flushes == 0 {
			t.Error("the sink was not flushed")
		}
		lines := bufio.NewScanner(&journal)
		for lines.Scan() {
			var v struct {
				S string `json:"s"`
				T int64  `json:"t"`
				U int64  `json:"T"`
			}
			must(t, json.Unmarshal(lines.Bytes(), &v))
			made = append(made, fmt.Sprintf("trade-%s-%d", v.S, v.T))
		}
	})
	return sink, stats, made
}

// missing are the trades that did not arrive, but for the few at both ends: the first ones may be older than the
// connection, the last ones be on their way.
func missing(sink *memory, made []string) (ids []string) {
	first := 0
	for first < len(made) && !sink.has(made[first]) {
		first++
	}
	last := len(made)
	for last > first && !sink.has(made[last-1]) {
		last--
	}
	if last-1 > first && !sink.has(made[last-2]) { // overtaken by the last, and on its way when the client was stopped
		last -= 2
	}
	for _, id := range made[first:last] {
		if !sink.has(id) {
			ids = append(ids, id)
		}
	}
	return ids
}

func TestEveryTradeArrivesAsItWasSent(t *testing.T) {
	sink, stats, made := trade(t, time.Minute, simulate.Options{Seed: 3, Rate: 50}, Options{})
	if lost := missing(sink, made); len(lost) > 0 || len(sink.values) < 2900 {
		t.Errorf("%d arrived, lost %v", len(sink.values), lost)
	}
	if !strings.HasPrefix(sink.values[0], `{"e":"trade","E":`) || !strings.HasSuffix(sink.values[0], `"M":true}`) || sink.keys[0] != "BTCUSDT" {
		t.Errorf("first: %s of %s", sink.values[0], sink.keys[0])
	}
	if stats.Rate < 45 || stats.Rate > 55 || !stats.Connected || stats.Reconnects != 0 || stats.Events < 2900 {
		t.Errorf("stats: %+v", stats)
	}
}

func TestAggregatesAndMicroseconds(t *testing.T) {
	sink, _, _ := trade(t, time.Minute, simulate.Options{Seed: 3, Rate: 50}, Options{Channel: "aggTrade", Microseconds: true})
	if !sink.has("agg-BTCUSDT-20") {
		t.Errorf("%d arrived, none of them aggregate 20", len(sink.values))
	}
	var v struct {
		Lower json.RawMessage `json:"t"`
		T     int64           `json:"T"`
	}
	must(t, json.Unmarshal([]byte(sink.values[5]), &v))
	if y := time.UnixMicro(v.T).Year(); y != 2000 { // the bubble's clock begins then
		t.Errorf("time %d is of %d", v.T, y)
	}
}

// The exchange ends each connection after 24 hours; the client replaces it before, and loses nothing. A glance makes the
// day short: under the race detector each tick of the bubble's clock counts.
func TestConnectionIsReplacedBeforeItsDayIsOver(t *testing.T) {
	day := time.Duration(testscale.Count(t, "day-minutes")) * time.Minute
	var o Options
	if day < 24*time.Hour {
		o.MaxAge = day - 10*time.Minute
	}
	span := 2*day + day/24
	sink, stats, made := trade(t, span, simulate.Options{Seed: 3, Rate: 0.2, MaxAge: day}, o)
	if lost := missing(sink, made); len(lost) > 0 || stats.Reconnects != 2 || len(sink.values) < int(0.195*span.Seconds()) {
		t.Errorf("%d arrived, %d reconnects, lost %v", len(sink.values), stats.Reconnects, lost)
	}
}

func TestAnnouncedShutdownLosesNothing(t *testing.T) {
	sink, stats, made := trade(t, 5*time.Minute, simulate.Options{Seed: 3, Rate: 20, Faults: simulate.Faults{ShutdownEvery: 500}}, Options{})
	if lost := missing(sink, made); len(lost) > 0 || stats.Reconnects < 10 {
		t.Errorf("%d arrived, %d reconnects, lost %v", len(sink.values), stats.Reconnects, lost)
	}
}

func TestDuplicatesAndSwappedNeighbours(t *testing.T) {
	sink, stats, made := trade(t, time.Minute,
		simulate.Options{Seed: 3, Rate: 50, Faults: simulate.Faults{DuplicateEvery: 7, SwapEvery: 11, UnknownEvery: 13, MalformedEvery: 17, OldEvery: 19}}, Options{})
	if lost := missing(sink, made); len(lost) > 0 {
		t.Errorf("lost %v", lost)
	}
	if old := slices.IndexFunc(sink.values, func(v string) bool { return strings.Contains(v, `,"b":88,"a":50,`) }); old < 0 {
		t.Error("no frame of the old form arrived")
	}
	twice, bad := 0, 0
	for id, n := range sink.ids {
		if n > 1 {
			twice++
		}
		if strings.HasPrefix(id, "malformed-") {
			bad++
		}
	}
	if twice < 500 || stats.Ignored < 200 || stats.Malformed < 150 || bad < 150 {
		t.Errorf("%d arrived twice, %d malformed kept; %+v", twice, bad, stats)
	}
}

func TestCutConnectionIsMadeAnew(t *testing.T) {
	sink, stats, made := trade(t, 5*time.Minute, simulate.Options{Seed: 3, Rate: 20, Faults: simulate.Faults{DropEvery: 500}}, Options{})
	if stats.Reconnects < 9 || stats.Reconnects > 12 {
		t.Errorf("%d reconnects", stats.Reconnects)
	}
	// Each reconnect misses what was traded during its back-off, at most half a second of 20 a second.
	if lost := missing(sink, made); len(lost) > int(stats.Reconnects)*12 {
		t.Errorf("%d reconnects lost %d", stats.Reconnects, len(lost))
	}
}

func TestHalfOpenConnectionIsNoticed(t *testing.T) {
	sink, stats, made := trade(t, 5*time.Minute, simulate.Options{Seed: 3, Rate: 20, Faults: simulate.Faults{HalfOpenEvery: 600}}, Options{})
	if stats.Reconnects < 2 || stats.Reconnects > 4 {
		t.Errorf("%d reconnects", stats.Reconnects)
	}
	if lost := missing(sink, made); len(lost) > int(stats.Reconnects)*20*70 {
		t.Errorf("%d reconnects lost %d", stats.Reconnects, len(lost))
	}
}

// Whatever the exchange does, what the stream lacks REST has.
func TestRESTFillsWhatTheStreamLost(t *testing.T) {
	x, err := simulate.New(simulate.Options{Seed: 5, Rate: 2000, Symbols: []string{"BTCUSDT"}, Faults: simulate.Faults{LoseEvery: 10, DropEvery: 300}})
	must(t, err)
	srv := httptest.NewServer(x.Handler())
	defer srv.Close()
	defer x.Close()
	sink := &memory{}
	c, err := New(Options{URL: srv.URL, Symbols: []string{"BTCUSDT"}, Sink: sink, BackoffMin: time.Millisecond})
	must(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	go func() { _ = x.Run(ctx) }()
	must(t, c.Run(ctx))
	rest := &REST{BaseURL: srv.URL}
	have := map[int64]bool{}
	all := x.Trades("BTCUSDT")
	gaps := 0
	for _, tr := range all {
		have[tr.ID] = sink.has(fmt.Sprintf("trade-BTCUSDT-%d", tr.ID))
		if !have[tr.ID] {
			gaps++
		}
	}
	for from := int64(1); from <= int64(len(all)); from += 1000 {
		list, err := rest.HistoricalTrades(context.Background(), "BTCUSDT", from, 1000)
		must(t, err)
		for _, tr := range list {
			have[tr.ID] = true
		}
	}
	for id, ok := range have {
		if !ok {
			t.Errorf("nobody has trade %d", id)
		}
	}
	if gaps == 0 || len(sink.values) == 0 {
		t.Errorf("%d arrived, %d did not", len(sink.values), gaps)
	}
	aggs, err := rest.AggTrades(context.Background(), "BTCUSDT", 1, 10)
	if err != nil || len(aggs) != 10 || aggs[0].First != 1 {
		t.Errorf("aggregates: %+v, %v", aggs, err)
	}
	var api *APIError
	if _, err := rest.AggTrades(context.Background(), "NOPE", -1, 10); !errors.As(err, &api) || api.Code != -1121 {
		t.Errorf("got %v", err)
	}
}

func TestManyStreamsAreSubscribedTo(t *testing.T) {
	symbols := make([]string, 250)
	for i := range symbols {
		symbols[i] = fmt.Sprintf("S%03dUSDT", i)
	}
	x, err := simulate.New(simulate.Options{Seed: 5, Rate: 1000, Symbols: symbols})
	must(t, err)
	srv := httptest.NewServer(x.Handler())
	defer srv.Close()
	defer x.Close()
	sink := &memory{}
	c, err := New(Options{URL: srv.URL, Symbols: symbols, Sink: sink})
	must(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ran := make(chan error)
	go func() { _ = x.Run(ctx) }()
	go func() { ran <- c.Run(ctx) }()
	for ctx.Err() == nil {
		sink.mu.Lock()
		seen := map[string]bool{}
		for _, k := range sink.keys {
			seen[k] = true
		}
		sink.mu.Unlock()
		if len(seen) == len(symbols) {
			cancel()
			must(t, <-ran)
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("not all symbols arrived")
	<-ran
}

// A connection with all the streams that the exchange allows stays within its limit of five messages a second, pongs
// included: the simulated exchange cuts off whoever exceeds it.
func TestSubscribingStaysWithinTheLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		symbols := make([]string, streamsMax)
		for i := range symbols {
			symbols[i] = fmt.Sprintf("S%04dUSDT", i)
		}
		var journal bytes.Buffer
		x, err := simulate.New(simulate.Options{Seed: 5, Rate: 50, Symbols: symbols, Journal: &journal, PingEvery: 2 * time.Second})
		must(t, err)
		ln := &pipes{make(chan net.Conn), make(chan struct{})}
		serving, stop := context.WithCancel(context.Background())
		served, ran := make(chan error, 1), make(chan error, 1)
		go func() { served <- simulate.Serve(serving, ln, x) }()
		sink := &memory{}
		c, err := New(Options{URL: "ws://exchange", Symbols: symbols, Sink: sink, HTTPClient: ln.client()})
		must(t, err)
		ctx, cancel := context.WithCancel(context.Background())
		go func() { ran <- c.Run(ctx) }()
		time.Sleep(10 * time.Second)
		from := x.Made()
		time.Sleep(time.Minute)
		to := x.Made()
		time.Sleep(time.Second)
		s := c.Stats()
		cancel()
		must(t, <-ran)
		stop()
		must(t, <-served)
		lines := strings.Split(journal.String(), "\n")
		for _, line := range lines[from:to] {
			var v struct {
				S string `json:"s"`
				T int64  `json:"t"`
				U int64  `json:"T"`
			}
			must(t, json.Unmarshal([]byte(line), &v))
			if !sink.has(fmt.Sprintf("trade-%s-%d", v.S, v.T)) {
				t.Fatalf("%s did not arrive", line)
			}
		}
		if s.Reconnects != 0 {
			t.Errorf("%d reconnects", s.Reconnects)
		}
	})
}

// Both of the exchange's envelopes, the combined and the bare one, give the same messages; what the exchange's
// documentation says of each field is kept as it came.
func TestBothEnvelopes(t *testing.T) {
	bare := []string{
		`{"e":"trade","E":1672515782136,"s":"BNBBTC","t":12345,"p":"0.00100000","q":"100.00000000","T":1672515782136,"m":true,"M":true}`,
		`{"e":"aggTrade","E":1672515782136000,"s":"BNBBTC","a":12345,"p":"0.001","q":"100","f":100,"l":105,"T":1672515782136000,"m":true,"M":true}`,
		// The order ids that trades had once mean nothing.
		`{"e":"trade","E":1672515782136,"s":"BNBBTC","t":12346,"p":"0.001","q":"100","b":88,"a":50,"T":1672515782136,"m":true,"M":true}`,
	}
	var got [2]*memory
	for i := range got {
		got[i] = &memory{}
		c, err := New(Options{Symbols: []string{"A"}, Sink: got[i]})
		must(t, err)
		s := &session{c: c, ctx: context.Background(), ready: make(chan struct{}), replace: make(chan struct{})}
		for _, frame := range bare {
			if i == 1 {
				frame = `{"stream":"bnbbtc@trade","data":` + frame + `}`
			}
			must(t, s.take(1, []byte(frame)))
		}
		if lag := time.Since(time.UnixMilli(1672515782136)) - c.Stats().Lag; lag < 0 || lag > time.Minute {
			t.Errorf("lag %s", c.Stats().Lag)
		}
	}
	for _, m := range got {
		if fmt.Sprint(m.values) != fmt.Sprint(bare) || fmt.Sprint(m.keys) != "[BNBBTC BNBBTC BNBBTC]" || !m.has("trade-BNBBTC-12345") || !m.has("agg-BNBBTC-12345") || !m.has("trade-BNBBTC-12346") {
			t.Errorf("%v of %v: %v", m.values, m.keys, m.ids)
		}
	}
}

// The exchange does not wait: what the sink has no room for is dropped, counted, and named by its ids.
func TestDroppedTradesAreNamed(t *testing.T) {
	c, err := New(Options{Symbols: []string{"A"}, Sink: &memory{fail: fmt.Errorf("disk: %w", live.ErrFull)}})
	must(t, err)
	s := &session{c: c, ctx: context.Background(), ready: make(chan struct{}), replace: make(chan struct{})}
	for id := range 10 {
		must(t, s.take(1, fmt.Appendf(nil, `{"e":"trade","E":1,"s":"BTCUSDT","t":%d,"p":"1","q":"1","T":1,"m":true,"M":true}`, 100+id)))
	}
	st := c.Stats()
	if st.Events != 0 || len(st.Dropped) != 1 || st.Dropped[0].Series != "BTCUSDT" || st.Dropped[0].Events != 10 || st.Dropped[0].First != "trade-BTCUSDT-100" || st.Dropped[0].Last != "trade-BTCUSDT-109" {
		t.Errorf("%+v", st)
	}
}

func TestLimitedAttemptsWaitAsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := &pipes{make(chan net.Conn), make(chan struct{})}
		var at []time.Time
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			at = append(at, time.Now())
			w.Header().Set("Retry-After", "90")
			w.WriteHeader(http.StatusTooManyRequests)
		})}
		go func() { _ = srv.Serve(ln) }()
		c, err := New(Options{URL: "ws://exchange", Symbols: []string{"A"}, Sink: &memory{}, HTTPClient: ln.client()})
		must(t, err)
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		must(t, c.Run(ctx))
		if len(at) != 4 || at[1].Sub(at[0]) < 90*time.Second {
			t.Errorf("attempts at %v", at)
		}
		srv.Close()
	})
}

// A server that refuses every connection at once must not bring the client beyond what the exchange allows.
func TestAttemptsStayBelowTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := &pipes{make(chan net.Conn), make(chan struct{})}
		var at []time.Time
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			at = append(at, time.Now())
			w.WriteHeader(http.StatusBadGateway)
		})}
		go func() { _ = srv.Serve(ln) }()
		c, err := New(Options{URL: "ws://exchange", Symbols: []string{"A"}, Sink: &memory{}, HTTPClient: ln.client(), BackoffMin: time.Millisecond, BackoffMax: 2 * time.Millisecond})
		must(t, err)
		ctx, cancel := context.WithTimeout(context.Background(), 11*time.Minute)
		defer cancel()
		must(t, c.Run(ctx))
		for i := range at {
			n := 0
			for _, o := range at[i:] {
				if o.Sub(at[i]) < 5*time.Minute {
					n++
				}
			}
			if n > attemptsOurs {
				t.Errorf("%d attempts within five minutes, of %d that the exchange allows and %d that the client makes", n, attemptsMax, attemptsOurs)
				break
			}
		}
		if len(at) < 600 {
			t.Errorf("%d attempts in 11 minutes", len(at))
		}
		srv.Close()
	})
}

func TestRefusalEndsTheClient(t *testing.T) {
	x, err := simulate.New(simulate.Options{})
	must(t, err)
	srv := httptest.NewServer(x.Handler())
	defer srv.Close()
	defer x.Close()
	c, err := New(Options{URL: srv.URL, Streams: []string{"nonsense"}, Sink: &memory{}})
	must(t, err)
	if err := c.Run(context.Background()); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "Invalid stream") {
		t.Errorf("got %v", err)
	}
}

func TestSinkErrorEndsTheClient(t *testing.T) {
	x, err := simulate.New(simulate.Options{Rate: 1000})
	must(t, err)
	srv := httptest.NewServer(x.Handler())
	defer srv.Close()
	defer x.Close()
	full := errors.New("no space")
	c, err := New(Options{URL: srv.URL, Symbols: []string{"BTCUSDT"}, Sink: &memory{fail: full}})
	must(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	go func() { _ = x.Run(ctx) }()
	if err := c.Run(ctx); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
}

func TestAddress(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want string // or the error
	}{
		{Options{Symbols: []string{"BTCUSDT", "ethusdt"}}, "wss://data-stream.binance.vision/stream?streams=btcusdt@trade/ethusdt@trade"},
		{Options{URL: "ws://h:1/", Symbols: []string{"A"}, Channel: "aggTrade"}, "ws://h:1/stream?streams=a@aggTrade"},
		{Options{URL: "ws://h:1/ws", Symbols: []string{"A"}}, "ws://h:1/stream?streams=a@trade"},
		{Options{URL: "http://h:1/stream", Symbols: []string{"A"}, Microseconds: true}, "ws://h:1/stream?streams=a@trade&timeUnit=MICROSECOND"},
		{Options{URL: "ws://h:1/ws/btcusdt@trade"}, "ws://h:1/ws/btcusdt@trade"},
		{Options{URL: "ws://h:1/stream?streams=a@trade/b@trade"}, "ws://h:1/stream?streams=a@trade/b@trade"},
		{Options{URL: "ws://h:1/ws/btcusdt@trade", Symbols: []string{"A"}}, "names streams"},
		{Options{URL: "ftp://h", Symbols: []string{"A"}}, "does not begin"},
		{Options{URL: "ws://h"}, "no symbols"},
		{Options{Symbols: []string{"A"}, Channel: "depth"}, "depth"},
		{Options{Streams: make([]string, 1025)}, "1025 streams"},
	} {
		c.o.Sink = &memory{}
		got := ""
		if client, err := New(c.o); err != nil {
			got = err.Error()
		} else {
			got = client.url.String()
		}
		if got != c.want && (strings.HasPrefix(c.want, "ws") || !strings.Contains(got, c.want)) {
			t.Errorf("%+v: got %s, want %s", c.o, got, c.want)
		}
	}
	if _, err := New(Options{Symbols: []string{"A"}}); err == nil {
		t.Error("no sink was taken")
	}
}

// Frames that were recorded from the exchange years ago must not harm a client of today.
func TestRecordedFrames(t *testing.T) {
	f, err := os.Open(filepath.Join(prereq.Need(t, "shared"), "realdata", "cryptofeed_BINANCE.ws.1.0.txt"))
	must(t, err)
	defer f.Close()
	sink := &memory{}
	c, err := New(Options{Symbols: []string{"A"}, Sink: sink})
	must(t, err)
	s := &session{c: c, ctx: context.Background(), ready: make(chan struct{}), replace: make(chan struct{})}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	n := 0
	for lines.Scan() {
		_, frame, ok := strings.Cut(lines.Text(), ": ")
		if !ok || !strings.HasPrefix(frame, "{") {
			continue
		}
		must(t, s.take(1, []byte(frame)))
		n++
	}
	stats := c.Stats()
	if n == 0 || stats.Malformed != 0 || stats.Events == 0 || stats.Events+stats.Ignored != int64(n) {
		t.Errorf("%d frames: %+v", n, stats)
	}
}

func FuzzTake(f *testing.F) {
	for _, s := range []string{
		`{"e":"trade","E":1,"s":"BTCUSDT","t":12,"p":"1","q":"2","T":3,"m":true}`, `{"stream":"x","data":{"e":"trade","s":"A","t":1}}`,
		`{"stream":"x","data":1}`, `{"e":"trade","t":"x"}`, `{"result":null,"id":1}`, `{"e":"serverShutdown","E":1}`, `[1]`, `{"t":{},"e":"depthUpdate","a":[]}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, frame string) {
		sink := &memory{}
		c, err := New(Options{Symbols: []string{"A"}, Sink: sink})
		must(t, err)
		s := &session{c: c, ctx: context.Background(), ready: make(chan struct{}), replace: make(chan struct{})}
		if err := s.take(1, []byte(frame)); err != nil && !errors.Is(err, ErrRefused) {
			t.Fatal(err)
		}
		if st := c.Stats(); st.Events+st.Malformed > 1 || int(st.Events+st.Malformed) != len(sink.values) {
			t.Fatalf("%+v counted, %d published", st, len(sink.values))
		}
	})
}
