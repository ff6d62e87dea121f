package kill

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cauce-data/cauce/connect/simulate"
	"github.com/cauce-data/cauce/internal/kafkatest"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/test/lab"
)

// TestKafkaUnderFire sends the trades of a simulated exchange that drops, doubles, swaps and loses events through
// producer, Kafka (each with a role that may do only its part) and stream into the table, while producer, broker and
// stream are killed at random and the broker stands still with its connections open. What nobody could have received is
// repaired over REST. Then the table has the exchange's trades, each once.
func TestKafkaUnderFire(t *testing.T) {
	b := kafkatest.New(t, map[string]string{"producer": "pw-p", "stream": "pw-s"})
	ctx, rnd := t.Context(), testscale.Rand(t)
	const topic = "crypto_trades"
	if err := errors.Join(b.CreateTopic(ctx, topic, 3, nil), b.AllowProduce(ctx, "producer", topic), b.AllowConsume(ctx, "stream", topic, "cauce-live")); err != nil {
		t.Fatal(err)
	}
	symbols := []string{"BTCUSDT", "ETHUSDT", "SOLUSDT"}
	x, err := simulate.New(simulate.Options{Seed: rnd.Uint64(), Rate: 300, Symbols: symbols, Faults: simulate.Faults{
		DropEvery: 401, HalfOpenEvery: 1511, DuplicateEvery: 53, SwapEvery: 71, LoseEvery: 97, MalformedEvery: 211, ShutdownEvery: 1009,
	}})
	if err != nil {
		t.Fatal(err)
	}
	var sockets atomic.Int64
	handler := x.Handler()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stream" {
			sockets.Add(1)
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { x.Close(); srv.Close() })

	l := lab.NewKafkaLake(t, topic, b.Addr, `, group: cauce-live, sasl: {user: stream, password: "${env:STREAM_PASSWORD}"}, producer: {user: producer, password: "${env:PRODUCER_PASSWORD}"}`)
	l.Env = append(l.Env, "STREAM_PASSWORD=pw-s", "PRODUCER_PASSWORD=pw-p")
	text, err := os.ReadFile(l.Path("lake.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	lake := strings.Replace(string(text), "    cluster_by:", "    ledger: {series: symbol, id: trade_id, day: event_date, unit: trades}\n    cluster_by:", 1)
	lake = strings.Replace(lake, "    rank: 1\n", "    rank: 1\n    repair: {kind: binance}\n", 1)
	if err := os.WriteFile(l.Path("lake.yaml"), []byte(lake), 0o600); err != nil {
		t.Fatal(err)
	}
	columns := []string{"event_id", "price", "quantity", "is_buyer_maker"}
	rows := func() []string {
		return lab.Lines(t, []byte(l.Run("query", "SELECT "+strings.Join(columns, ", ")+" FROM unified_events", "--format", "csv")), columns)
	}
	var producer, stream *lab.Process
	produce := func() {
		producer = l.Start(nil, "produce", "binance", "--url", "ws"+strings.TrimPrefix(srv.URL, "http"), "--symbols", strings.Join(symbols, ","))
	}
	read := func() { stream = l.Start(nil, "run", "stream", "--trigger", "100ms") }
	alive := func() {
		t.Helper()
		for _, p := range []*lab.Process{producer, stream} {
			if !p.Running() {
				t.Fatalf("cauce %s ended by itself: %s", strings.Join(p.Args, " "), p.Stderr.String())
			}
		}
	}
	// has tells whether the table has a trade of each symbol: what lies between two that it has can be missed.
	has := func(id func(trades []simulate.Trade) int64) bool {
		have := rows()
		for _, s := range symbols {
			trades := x.Trades(s)
			if len(trades) == 0 {
				return false
			}
			prefix := fmt.Sprintf("%s-%d|", s, id(trades))
			if !slices.ContainsFunc(have, func(r string) bool { return strings.HasPrefix(r, prefix) }) {
				return false
			}
		}
		return true
	}
	until := func(what string, step int, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(100 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: not within a minute: %s", what, producer.Stderr.String()+stream.Stderr.String())
			}
			alive()
			if err := x.Step(step); err != nil {
				t.Fatal(err)
			}
		}
	}

	produce()
	read()
	for deadline := time.Now().Add(30 * time.Second); sockets.Load() == 0 && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
	}
	time.Sleep(300 * time.Millisecond) // the answer to the connection is on its way
	if err := x.Step(20); err != nil {
		t.Fatal(err)
	}
	until("the first trades", 0, func() bool { return has(func(tr []simulate.Trade) int64 { return tr[0].ID }) })

	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		tick := time.NewTicker(33 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				done <- nil
				return
			case <-tick.C:
				if err := x.Step(10); err != nil {
					done <- err
					return
				}
			}
		}
	}()
	began := time.Now()
	kills := map[string]int{}
	total := 0
	for range testscale.Turns(t, "stream-kills") {
		time.Sleep(time.Duration(rnd.IntN(1000)) * time.Millisecond)
		alive()
		if rnd.IntN(4) == 0 {
			b.Pause()
			time.Sleep(time.Duration(500+rnd.IntN(1500)) * time.Millisecond)
			b.Resume()
			kills["(broker stood still)"]++
		}
		total++
		switch rnd.IntN(3) {
		case 0:
			kills["producer"]++
			producer.Kill()
			producer.Wait(time.Minute)
			produce()
		case 1:
			kills["stream"]++
			stream.Kill()
			stream.Wait(time.Minute)
			read()
		default:
			kills["broker"]++
			b.Kill()
			time.Sleep(time.Duration(rnd.IntN(500)) * time.Millisecond)
			if err := b.Restart(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	// A producer whose connection is half-open would wait for its silence to be noticed; another takes its place. It may
	// have been started a moment ago, too young to stop cleanly.
	producer.Kill()
	producer.Wait(time.Minute)
	n := sockets.Load()
	produce()
	until("a connection", 0, func() bool { return sockets.Load() > n })
	until("the last trades", 5, func() bool {
		time.Sleep(time.Second)
		return has(func(tr []simulate.Trade) int64 { return tr[len(tr)-1].ID })
	})
	for _, p := range []*lab.Process{producer, stream} {
		p.Signal(syscall.SIGTERM)
		if code := p.Wait(time.Minute); code != 0 {
			t.Errorf("cauce %s ended with %d: %s", strings.Join(p.Args, " "), code, p.Stderr.String())
		}
	}
	l.Run("run", "stream", "--available-now")
	before := len(rows())
	l.Run("gaps", "--repair", "--rest-url", srv.URL)

	var want []string
	for _, s := range symbols {
		for _, tr := range x.Trades(s) {
			want = append(want, fmt.Sprintf("%s-%d|%d.%08d|%d.%08d|%t", tr.Symbol, tr.ID, tr.Price/1e8, tr.Price%1e8, tr.Quantity/1e8, tr.Quantity%1e8, tr.BuyerMaker))
		}
	}
	slices.Sort(want)
	got := rows()
	if d := lab.Diff(want, got); d != "" {
		t.Error(d)
	}
	t.Logf("REPORT: %d kills in %v %s, %d connections to the exchange: %d trades made, %d came through, %d repaired over REST, each in the table once",
		total, time.Since(began).Round(time.Second), byPhase(kills), sockets.Load(), len(want), before, len(got)-before)
}
