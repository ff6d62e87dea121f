// Package simulate plays outside systems that exist only here: an Exchange speaks the WebSocket and REST protocol of
// Binance's spot market data, Bluesky that of a Jetstream server, X that of the filtered stream. Each makes up its events
// from a seed. It stands where the real system would, in demos and in tests of clients, and it can misbehave in every
// way in which the real one does.
//
// # What is reproducible
//
// Event n of a system, such as a trade with its symbol, id, price, quantity, time and side, depends on the seed, the
// start time, the rate and the other options alone: not on the clock, nor on who listens. The journal gets every event
// before any client sees it, which makes it the oracle of a test: the ids that arrive somewhere must be the journal's.
package simulate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Options configure an Exchange. The zero value of each field means the default that stands beside it.
type Options struct {
	Seed    uint64
	Rate    float64   // trades a second, all symbols together; 100
	Count   int64     // Run ends after so many trades; 0: never
	Symbols []string  // BTCUSDT, ETHUSDT, SOLUSDT
	Start   time.Time // time of the first trade; now
	FirstID int64     // id of each symbol's first trade; 1
	Journal io.Writer // gets a JSON object a line for each trade: s, t, p, q, T, m

	PingEvery     time.Duration // 20 s
	PongTimeout   time.Duration // a client whose pong is missing so long is cut off; 1 min
	MaxAge        time.Duration // a connection ends after it; 24 h
	ShutdownGrace time.Duration // between the serverShutdown event and the end of the connection; 2 s
	// IncomingMax bounds the frames (pings, pongs and requests) that a client may send in a second; 5.
	IncomingMax int
	// ConnectMax bounds the connection attempts of an address in five minutes; 300.
	ConnectMax int
	// WeightMax bounds the request weight of an address in a minute; 6000.
	WeightMax int
	// HistoryMax bounds the trades of each symbol that REST still knows; 1,000,000.
	HistoryMax int
	// SkipEvery leaves out every so many-th id of each symbol: no trade has it, as it happens at the real exchange; 0: never.
	SkipEvery int64
	// ChecksumWrong is how many checksums of archives are wrong before they are right.
	ChecksumWrong int

	Faults Faults
	Log    *slog.Logger // nil: silent
}

// Faults says how the exchange misbehaves: each field after how many events of a connection it does so again; 0 never.
type Faults struct {
	DropEvery      int // cuts the TCP connection without a close frame
	ShutdownEvery  int // announces a shutdown, and closes the connection after ShutdownGrace
	HalfOpenEvery  int // falls silent without closing anything
	DuplicateEvery int // sends the last three events again
	SwapEvery      int // sends an event after the one that follows it
	MalformedEvery int // sends a frame that is no JSON
	UnknownEvery   int // sends an event of a kind that no client knows
	OldEvery       int // sends a trade as it was written once, with the ids of both orders
	LoseEvery      int // does not send the event at all; REST has it
}

// streamsMax is how many streams a connection may have.
const streamsMax = 1024

// logMax is how far a connection may lag behind before it is cut off.
const logMax = 100_000

// scale of prices and quantities: they have eight decimals.
const scale = 100_000_000

// Trade is one trade. Price and Quantity are in units of 1e-8.
type Trade struct {
	Symbol          string
	ID              int64
	Price, Quantity int64
	Time            time.Time // µs
	BuyerMaker      bool
}

// aggregate is the trades of one taker's order at one price.
type aggregate struct {
	Trade       // Quantity is the sum, ID the aggregate's own
	first, last int64
}

// event is what a stream carries.
type event struct {
	stream string // "btcusdt@trade"
	trade  Trade
	agg    *aggregate // nil: a trade event
}

// book is the state of one symbol.
type book struct {
	price  int64
	tick   int64
	nextID int64
	aggID  int64
	trades []Trade // the newest, ascending by id without a hole
	aggs   []aggregate
}

// Exchange makes trades and serves them. It is safe for concurrent use.
type Exchange struct {
	o Options

	mu      sync.Mutex
	rng     *rand.Rand
	made    int64
	books   map[string]*book
	order   aggregate // the order whose fills are being made
	fills   int       // of it that are still to come
	log     []event
	base    int64         // number of log[0] among all events
	changed chan struct{} // closed when the log gets longer
	guests  map[string]*guest
	conns   map[*conn]struct{}
	closed  bool
	served  sync.WaitGroup
}

// guest is what the exchange remembers of an address, for its limits.
type guest struct {
	connects []time.Time
	minute   time.Time
	weight   int
	over     int // requests since the weight was exceeded
}

// New makes an exchange that has no trades yet.
func New(o Options) (*Exchange, error) {
	if o.Rate == 0 {
		o.Rate = 100
	}
	if o.Rate < 0 || math.IsNaN(o.Rate) || o.Rate > 1e6 {
		return nil, fmt.Errorf("simulated exchange: rate %v is not between 0 and a million trades a second", o.Rate)
	}
	if len(o.Symbols) == 0 {
		o.Symbols = []string{"BTCUSDT", "ETHUSDT", "SOLUSDT"}
	}
	if o.Start.IsZero() {
		o.Start = time.Now()
	}
	o.Start = o.Start.UTC().Truncate(time.Microsecond)
	orDefault(&o.FirstID, 1)
	orDefault(&o.PingEvery, 20*time.Second)
	orDefault(&o.PongTimeout, time.Minute)
	orDefault(&o.MaxAge, 24*time.Hour)
	orDefault(&o.ShutdownGrace, 2*time.Second)
	orDefault(&o.IncomingMax, 5)
	orDefault(&o.ConnectMax, 300)
	orDefault(&o.WeightMax, 6000)
	orDefault(&o.HistoryMax, 1_000_000)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	x := &Exchange{
		o: o, rng: rand.New(rand.NewPCG(o.Seed, 0x9e3779b97f4a7c15)), books: map[string]*book{}, changed: make(chan struct{}),
		guests: map[string]*guest{}, conns: map[*conn]struct{}{},
	}
	for _, s := range o.Symbols {
		if s == "" || strings.ToUpper(s) != s || strings.ContainsAny(s, "@/ ") {
			return nil, fmt.Errorf("simulated exchange: symbol %q is not in upper case", s)
		}
		if x.books[s] != nil {
			return nil, fmt.Errorf("simulated exchange: symbol %s twice", s)
		}
		price := opening(s)
		b := &book{price: price, tick: scale / 100, nextID: o.FirstID, aggID: o.FirstID}
		for b.tick > 1 && b.tick*1000 > price {
			b.tick /= 10
		}
		x.books[s] = b
	}
	return x, nil
}

func orDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// opening is a symbol's first price.
func opening(symbol string) int64 {
	switch symbol {
	case "BTCUSDT":
		return 63_000 * scale
	case "ETHUSDT":
		return 2_600 * scale
	case "SOLUSDT":
		return 145 * scale
	case "BNBUSDT":
		return 570 * scale
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(symbol))
	return int64(h.Sum64()%1000+1) * scale / 10
}

// one makes the next trade. The lock is held.
func (x *Exchange) one() Trade {
	if x.fills == 0 {
		s := x.o.Symbols[x.rng.IntN(len(x.o.Symbols))]
		b := x.books[s]
		step := int64(math.Round(x.rng.NormFloat64() * 0.0002 * float64(b.price)))
		b.price = max(b.tick, (b.price+step)/b.tick*b.tick)
		x.fills = 1
		if x.rng.IntN(4) == 0 {
			x.fills += 1 + x.rng.IntN(3)
		}
		gap := float64(time.Second) / x.o.Rate
		at := time.Duration((float64(x.made) + x.rng.Float64()) * gap)
		x.order = aggregate{Trade: Trade{
			Symbol: s, ID: b.aggID, Price: b.price, Time: x.o.Start.Add(at).Truncate(time.Microsecond), BuyerMaker: x.rng.IntN(2) == 0,
		}, first: b.nextID}
		b.aggID++
	}
	b := x.books[x.order.Symbol]
	t := x.order.Trade
	t.ID = b.nextID
	t.Quantity = max(1, int64(math.Exp(x.rng.NormFloat64()*1.5-4)*1e5)) * (scale / 1e5)
	b.nextID++
	if x.o.SkipEvery > 0 && b.nextID%x.o.SkipEvery == 0 {
		b.nextID++
	}
	x.made++
	x.fills--
	x.order.Quantity += t.Quantity
	x.order.last = t.ID
	b.trades = append(b.trades, t)
	if len(b.trades) >= 2*x.o.HistoryMax {
		b.trades = append([]Trade(nil), b.trades[x.o.HistoryMax:]...)
	}
	name := strings.ToLower(t.Symbol)
	x.log = append(x.log, event{stream: name + "@trade", trade: t})
	if x.fills == 0 {
		a := x.order
		b.aggs = append(b.aggs, a)
		if len(b.aggs) >= 2*x.o.HistoryMax {
			b.aggs = append([]aggregate(nil), b.aggs[x.o.HistoryMax:]...)
		}
		x.log = append(x.log, event{stream: name + "@aggTrade", agg: &a})
	}
	return t
}

// Step makes n trades now and sends them to whoever listens.
func (x *Exchange) Step(n int) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	var lines bytes.Buffer
	for range n {
		t := x.one()
		if x.o.Journal != nil {
			lines.Write(appendJournal(nil, t))
		}
	}
	if x.o.Journal != nil {
		if _, err := x.o.Journal.Write(lines.Bytes()); err != nil {
			return fmt.Errorf("simulated exchange: journal: %w", err)
		}
	}
	if over := len(x.log) - logMax; over > logMax {
		x.log = append([]event(nil), x.log[over:]...)
		x.base += int64(over)
	}
	close(x.changed)
	x.changed = make(chan struct{})
	return nil
}

// Made is how many trades there are.
func (x *Exchange) Made() int64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.made
}

// Trades gives a symbol's trades that the exchange still knows, oldest first.
func (x *Exchange) Trades(symbol string) []Trade {
	x.mu.Lock()
	defer x.mu.Unlock()
	if b := x.books[symbol]; b != nil {
		return append([]Trade(nil), b.trades...)
	}
	return nil
}

// Run makes trades at the rate until the context ends, which is no error, or Count is reached.
func (x *Exchange) Run(ctx context.Context) error {
	return pace(ctx, x.o.Rate, x.o.Count, x.Made, x.Step)
}

// pace calls step so often that what made counts grows by rate a second, until the context ends, which is no error, or
// there are count (0: never).
func pace(ctx context.Context, rate float64, count int64, made func() int64, step func(n int) error) error {
	begin, before := time.Now(), made()
	tick := time.NewTicker(min(time.Second, max(5*time.Millisecond, time.Duration(float64(time.Second)/rate))))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		have := made()
		due := before + int64(time.Since(begin).Seconds()*rate)
		if count > 0 {
			due = min(due, count)
		}
		if due > have {
			if err := step(int(due - have)); err != nil {
				return err
			}
		}
		if count > 0 && due >= count {
			return nil
		}
	}
}

// System is an outside system that is played here: *Exchange, *Bluesky and *X are.
type System interface {
	Handler() http.Handler
	// Run makes events until the context ends, which is no error, or there are enough.
	Run(ctx context.Context) error
	// Close closes all connections; new ones are refused.
	Close()
}

// Serve answers on a listener and makes events, until the context ends; it returns when all connections are closed.
// Reaching Count ends the events, not the service.
func Serve(ctx context.Context, ln net.Listener, x System) error {
	srv := &http.Server{Handler: x.Handler(), ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(ln) }()
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	made := make(chan error, 1)
	go func() { made <- x.Run(running) }()
	var err error
	for waiting := true; waiting; {
		select {
		case <-ctx.Done():
			waiting = false
		case err = <-ended:
			waiting = false
		case err = <-made:
			made = nil
			waiting = err == nil
		}
	}
	cancel()
	if made != nil {
		<-made //nolint:errcheck // it ended because it was cancelled
	}
	x.Close()
	shut, done := context.WithTimeout(context.Background(), 2*time.Second)
	defer done()
	if e := srv.Shutdown(shut); e != nil {
		_ = srv.Close()
	}
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return err
}

// Close closes all connections; new ones are refused.
func (x *Exchange) Close() {
	x.mu.Lock()
	x.closed = true
	for c := range x.conns {
		c.cancel()
	}
	x.mu.Unlock()
	x.served.Wait()
}

// decimal is v/1e8 as the exchange writes it.
func decimal(v int64) string {
	s := strconv.FormatInt(v, 10)
	if len(s) <= 8 {
		s = strings.Repeat("0", 9-len(s)) + s
	}
	return s[:len(s)-8] + "." + s[len(s)-8:]
}

// quote is price x quantity with eight decimals.
func quote(price, quantity int64) string {
	hi, lo := price/scale, price%scale
	return decimal(hi*quantity + lo*quantity/scale)
}

func appendJournal(b []byte, t Trade) []byte {
	return fmt.Appendf(b, `{"s":"%s","t":%d,"p":"%s","q":"%s","T":%d,"m":%t}`+"\n", t.Symbol, t.ID, decimal(t.Price), decimal(t.Quantity), t.Time.UnixMilli(), t.BuyerMaker)
}

// appendEvent writes an event as a stream carries it.
func appendEvent(b []byte, e event, micros bool) []byte {
	at := func(t time.Time) int64 {
		if micros {
			return t.UnixMicro()
		}
		return t.UnixMilli()
	}
	if a := e.agg; a != nil {
		return fmt.Appendf(b, `{"e":"aggTrade","E":%d,"s":"%s","a":%d,"p":"%s","q":"%s","f":%d,"l":%d,"T":%d,"m":%t,"M":true}`,
			at(a.Time.Add(time.Millisecond)), a.Symbol, a.ID, decimal(a.Price), decimal(a.Quantity), a.first, a.last, at(a.Time), a.BuyerMaker)
	}
	t := e.trade
	return fmt.Appendf(b, `{"e":"trade","E":%d,"s":"%s","t":%d,"p":"%s","q":"%s","T":%d,"m":%t,"M":true}`,
		at(t.Time.Add(time.Millisecond)), t.Symbol, t.ID, decimal(t.Price), decimal(t.Quantity), at(t.Time), t.BuyerMaker)
}
