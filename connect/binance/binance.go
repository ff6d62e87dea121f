// Package binance is a client of Binance's spot market data: it keeps a WebSocket connection to the exchange (or to
// whatever speaks its protocol, such as connect/simulate) alive and hands every trade event to a Sink, as the exchange
// wrote it.
//
// # What it promises
//
// An event that arrived is published, with the exchange's own bytes, under a message id made of stream kind, symbol
// and trade id; a Sink that knows repeated ids stores it once, however often the exchange or a reconnect repeats it.
// What did not arrive while no connection stood is missing: trade ids are consecutive per symbol, so the hole shows,
// and REST has the trades.
//
// # Connections
//
// A connection is replaced before it ends where that is known in advance: the exchange announced its shutdown, or the
// 24 hours it grants are almost over. The new connection then delivers before the old one is closed. A connection on
// which nothing arrives, not even the exchange's pings, is taken for dead. Between attempts the client waits, longer
// each time and by chance, and never attempts more often than the exchange allows.
package binance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/cauce-data/cauce/internal/live"
)

// DefaultURL is the exchange's address for market data, which needs no account.
const DefaultURL = "wss://data-stream.binance.vision"

// What the exchange allows: https://developers.binance.com, WebSocket streams, general information.
const (
	streamsMax      = 1024             // streams a connection
	attemptsMax     = 300              // connection attempts …
	attemptsOurs    = attemptsMax - 10 // … of which the client makes so many
	attemptsWindow  = 5 * time.Minute  // … in this time
	requestInterval = 300 * time.Millisecond
	urlStreamsMax   = 100 // streams named in the address; the others are subscribed to, lest the address gets too long
	chunk           = 100 // streams a SUBSCRIBE names
	closePatience   = time.Second
)

// ErrRefused says that the exchange understood a request and refused it for good: trying again is no use.
var ErrRefused = errors.New("exchange refuses the request")

// Options configure a Client. The zero value of each field means the default that stands beside it.
type Options struct {
	// URL is the exchange's address, DefaultURL. With a path that names streams (/ws/btcusdt@trade,
	// /stream?streams=…) it is used as it is.
	URL     string
	Symbols []string // such as BTCUSDT
	Channel string   // "trade", or "aggTrade"
	Streams []string // names such as btcusdt@trade, instead of Symbols and Channel
	// Microseconds asks for times in µs instead of ms.
	Microseconds bool
	Sink         live.Sink
	Log          *slog.Logger // silent

	IdleTimeout time.Duration // a connection on which nothing arrives so long is dead; 1 min
	MaxAge      time.Duration // a connection is replaced at this age; 23 h 50 min
	BackoffMin  time.Duration // 500 ms
	BackoffMax  time.Duration // 30 s
	// HTTPClient makes the connections; http.DefaultClient.
	HTTPClient *http.Client
}

// Client is a running connection to the exchange.
type Client struct {
	o       Options
	url     *url.URL // without streams to subscribe to later
	later   []string // streams that do not stand in url
	attempt []time.Time

	meter live.Meter
}

// New checks the options.
func New(o Options) (*Client, error) {
	if o.Sink == nil {
		return nil, errors.New("binance: no sink")
	}
	if o.URL == "" {
		o.URL = DefaultURL
	}
	if o.Channel == "" {
		o.Channel = "trade"
	}
	if o.Channel != "trade" && o.Channel != "aggTrade" {
		return nil, fmt.Errorf("binance: channel %q is not trade or aggTrade", o.Channel)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	for v, d := range map[*time.Duration]time.Duration{
		&o.IdleTimeout: time.Minute, &o.MaxAge: 23*time.Hour + 50*time.Minute, &o.BackoffMin: 500 * time.Millisecond, &o.BackoffMax: 30 * time.Second,
	} {
		if *v <= 0 {
			*v = d
		}
	}
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, fmt.Errorf("binance: %w", err)
	}
	switch u.Scheme {
	case "ws", "wss":
	case "http":
		u.Scheme = "ws"
	case "https":
		u.Scheme = "wss"
	default:
		return nil, fmt.Errorf("binance: address %q does not begin with ws:// or wss://", o.URL)
	}
	c := &Client{o: o, url: u}
	streams := o.Streams
	if len(streams) == 0 {
		for _, s := range o.Symbols {
			streams = append(streams, strings.ToLower(strings.TrimSpace(s))+"@"+o.Channel)
		}
	}
	named := namesStreams(u)
	switch {
	case named && len(streams) > 0:
		return nil, fmt.Errorf("binance: the address %s names streams, and so do the symbols", o.URL)
	case named:
	case len(streams) == 0:
		return nil, errors.New("binance: no symbols")
	case len(streams) > streamsMax:
		return nil, fmt.Errorf("binance: %d streams, a connection carries at most %d", len(streams), streamsMax)
	default:
		n := min(len(streams), urlStreamsMax)
		c.later = streams[n:]
		q := u.Query()
		q.Set("streams", strings.Join(streams[:n], "/"))
		u.Path = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), "/stream"), "/ws") + "/stream"
		u.RawQuery = q.Encode()
	}
	if o.Microseconds {
		q := u.Query()
		q.Set("timeUnit", "MICROSECOND")
		u.RawQuery = q.Encode()
	}
	// The exchange wants its separators as they are.
	u.RawQuery = strings.NewReplacer("%2F", "/", "%40", "@").Replace(u.RawQuery)
	return c, nil
}

// NamesStreams tells whether an address names the streams by itself, so that no symbols may be given beside it.
func NamesStreams(address string) bool {
	u, err := url.Parse(address)
	return err == nil && namesStreams(u)
}

func namesStreams(u *url.URL) bool {
	return strings.HasPrefix(u.Path, "/ws/") && len(u.Path) > len("/ws/") || u.Query().Get("streams") != ""
}

// Stats tells what the client did so far.
func (c *Client) Stats() live.Stats { return c.meter.Stats() }

// ending is how a connection ended.
type ending struct {
	s   *session
	err error
}

// Run keeps a connection until the context ends; then it flushes the sink and returns nil. It returns an error that
// wraps ErrRefused where trying again is no use, and the sink's error if it refuses an event.
func (c *Client) Run(ctx context.Context) error {
	err := c.run(ctx)
	flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if e := c.o.Sink.Flush(flush); e != nil {
		err = errors.Join(err, fmt.Errorf("binance: %w", e))
	}
	return err
}

func (c *Client) run(ctx context.Context) error {
	var current, next *session // next is to replace current
	endings := make(chan ending)
	live := 0
	inner, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		for ; live > 0; live-- {
			<-endings
		}
	}()
	begin := func() *session {
		s := &session{c: c, ready: make(chan struct{}), replace: make(chan struct{})}
		s.ctx, s.cancel = context.WithCancel(inner)
		live++
		go func() {
			err := s.run()
			endings <- ending{s, err}
		}()
		return s
	}
	failures := 0
	var retry <-chan time.Time // a connection is to be made then
	var pending time.Duration
	again := func(after time.Duration) {
		pending = max(after, c.allowed())
		retry = time.After(pending)
	}
	again(0)
	for {
		var replace, ready <-chan struct{}
		if current != nil && next == nil && retry == nil {
			replace = current.replace
		}
		if next != nil {
			ready = next.ready
		}
		select {
		case <-ctx.Done():
			return nil
		case <-retry:
			retry = nil
			c.attempt = append(c.attempt, time.Now())
			if current == nil {
				current = begin()
			} else {
				next = begin()
			}
		case <-replace:
			c.o.Log.Info("exchange connection is replaced before it ends")
			again(0)
		case <-ready:
			if current != nil {
				current.cancel()
			}
			current, next = next, nil
		case e := <-endings:
			live--
			e.s.cancel()
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(e.err, ErrRefused) || errors.Is(e.err, errSink) {
				return e.err
			}
			switch e.s {
			case next:
				next = nil
			case current:
				current, next = next, nil
			default: // replaced
				continue
			}
			if current != nil && e.s.lasted() {
				continue // its successor is there already
			}
			wait := c.o.BackoffMin
			if e.s.lasted() {
				failures = 0
			} else {
				failures++
				wait = min(c.o.BackoffMax, c.o.BackoffMin<<min(failures, 16))
			}
			wait = wait/2 + rand.N(wait/2+1)
			var limited *limitError
			if errors.As(e.err, &limited) {
				wait = max(wait, limited.after)
			}
			if current != nil && retry != nil {
				continue
			}
			again(wait)
			c.o.Log.Warn("exchange connection ended", "reason", e.err, "again_in", pending.Round(time.Millisecond))
		}
	}
}

// allowed is how long to wait until the exchange allows another attempt: no window that ends with it holds more than
// attemptsOurs.
func (c *Client) allowed() time.Duration {
	now := time.Now()
	if n := len(c.attempt) - attemptsOurs; n >= 0 {
		c.attempt = c.attempt[n:] // older ones say nothing any more
		return max(0, attemptsWindow-now.Sub(c.attempt[0]))
	}
	return 0
}

// errSink marks an error of the sink.
var errSink = errors.New("event is not taken")

// limitError says that the exchange asks to wait.
type limitError struct {
	status int
	after  time.Duration
}

func (e *limitError) Error() string {
	return fmt.Sprintf("exchange answers %d and asks to wait %s", e.status, e.after)
}

// session is one connection.
type session struct {
	c       *Client
	ctx     context.Context //nolint:containedctx // lives as long as the connection
	cancel  context.CancelFunc
	ws      *websocket.Conn
	ready   chan struct{} // closed with the first event
	replace chan struct{} // closed when the connection will end soon

	first   sync.Once
	replacd sync.Once
	got     atomic.Int64 // events
	heard   atomic.Int64 // when something arrived, in ns
}

// lasted tells that the connection was of use.
func (s *session) lasted() bool { return s.got.Load() > 0 }

func (s *session) soon() { s.replacd.Do(func() { close(s.replace) }) }

func (s *session) run() (err error) {
	c := s.c
	dial, done := context.WithTimeout(s.ctx, 15*time.Second)
	ws, resp, err := websocket.Dial(dial, c.url.String(), &websocket.DialOptions{
		HTTPClient:      c.o.HTTPClient,
		CompressionMode: websocket.CompressionDisabled,
		OnPingReceived: func(context.Context, []byte) bool {
			s.heard.Store(time.Now().UnixNano())
			return true // answered with a pong of the same payload
		},
	})
	done()
	if err != nil {
		return refusal(resp, err)
	}
	s.ws = ws
	defer c.meter.Opened()()
	ws.SetReadLimit(1 << 20)
	s.heard.Store(time.Now().UnixNano())
	c.o.Log.Info("exchange connection stands", "url", c.url.Redacted())

	// Reading goes on while the connection is closed in order: cancelling it would cut the connection.
	reading, stop := context.WithCancelCause(context.WithoutCancel(s.ctx))
	defer ws.CloseNow() //nolint:errcheck // whatever ended the session; waits where it is being closed in order
	defer context.AfterFunc(s.ctx, func() {
		late := time.AfterFunc(closePatience, func() { stop(s.ctx.Err()) })
		defer late.Stop()
		_ = ws.Close(websocket.StatusNormalClosure, "")
	})()
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer stop(nil)
	helpers.Go(func() { s.watch(reading, stop) })
	if len(c.later) > 0 {
		helpers.Go(func() {
			if err := s.subscribe(reading); err != nil {
				stop(err)
			}
		})
	}
	for {
		kind, frame, err := ws.Read(reading)
		if err != nil {
			if cause := context.Cause(reading); cause != nil {
				err = cause
			}
			return err
		}
		s.heard.Store(time.Now().UnixNano())
		if err := s.take(kind, frame); err != nil {
			_ = ws.Close(websocket.StatusNormalClosure, "")
			return err
		}
	}
}

// watch ends a connection on which nothing arrives, and has one replaced that will be closed for its age.
func (s *session) watch(ctx context.Context, stop context.CancelCauseFunc) {
	idle := s.c.o.IdleTimeout
	tick := time.NewTicker(max(idle/8, time.Millisecond))
	defer tick.Stop()
	age := time.NewTimer(s.c.o.MaxAge)
	defer age.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-age.C:
			s.soon()
		case <-tick.C:
			if quiet := time.Since(time.Unix(0, s.heard.Load())); quiet > idle {
				stop(fmt.Errorf("nothing arrived for %s", quiet.Round(time.Millisecond)))
				return
			}
		}
	}
}

// subscribe asks for the streams that do not stand in the address, slowly enough.
func (s *session) subscribe(ctx context.Context) error {
	for i, id := 0, 1; i < len(s.c.later); i, id = i+chunk, id+1 {
		q, err := json.Marshal(map[string]any{"method": "SUBSCRIBE", "params": s.c.later[i:min(i+chunk, len(s.c.later))], "id": id})
		if err != nil {
			return err
		}
		if err := s.ws.Write(ctx, websocket.MessageText, q); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(requestInterval):
		}
	}
	return nil
}

// message is what the client reads of a frame. Names that differ by case only are all declared: else the JSON library
// takes one for the other.
type message struct {
	Stream string          `json:"stream"`
	Data   json.RawMessage `json:"data"`

	Kind      string          `json:"e"`
	EventTime json.RawMessage `json:"E"`
	Symbol    string          `json:"s"`
	Upper     json.RawMessage `json:"S"`
	TradeID   json.RawMessage `json:"t"`
	TradeTime json.RawMessage `json:"T"`
	AggID     json.RawMessage `json:"a"`
	UpperA    json.RawMessage `json:"A"`
	Maker     json.RawMessage `json:"m"`
	BestMatch json.RawMessage `json:"M"` // spot only

	Result json.RawMessage `json:"result"`
	ID     json.RawMessage `json:"id"`
	Code   *int            `json:"code"`
	Msg    string          `json:"msg"`
	Error  *struct {
		Code int    `json:"code"`
		Msg  string `json:"msg"`
	} `json:"error"`
}

// market begins the message ids of events that are not of the spot market, whose trade ids run beside those of spot:
// only spot events say whether the trade was the best match.
func (m *message) market() string {
	if m.BestMatch == nil {
		return "um-"
	}
	return ""
}

// at is when the exchange made the event, in ms or µs; zero if it does not say.
func (m *message) at() time.Time {
	n, err := strconv.ParseInt(string(m.EventTime), 10, 64)
	switch {
	case err != nil || n <= 0:
		return time.Time{}
	case n >= 1e15: // µs since 2001; ms would be of the year 33658
		return time.UnixMicro(n)
	}
	return time.UnixMilli(n)
}

// take handles one frame.
func (s *session) take(kind websocket.MessageType, frame []byte) error {
	var (
		m      message
		stream string
	)
	if kind != websocket.MessageText || json.Unmarshal(frame, &m) != nil {
		return s.malformed(frame)
	}
	if m.Data != nil && m.Kind == "" {
		frame, stream = m.Data, m.Stream
		m = message{}
		if json.Unmarshal(frame, &m) != nil {
			return s.malformed(frame)
		}
	}
	c := s.c
	switch {
	case m.Error != nil:
		return fmt.Errorf("%w: %d: %s", ErrRefused, m.Error.Code, m.Error.Msg)
	case m.Code != nil && m.Kind == "":
		return fmt.Errorf("%w: %d: %s", ErrRefused, *m.Code, m.Msg)
	case m.ID != nil && m.Kind == "": // the answer to a subscription
		return nil
	case m.Kind == "serverShutdown":
		s.soon()
		return nil
	case m.Kind == "trade" && m.Symbol != "" && number(m.TradeID):
		return s.publish(m.Symbol, m.market()+"trade-"+m.Symbol+"-"+string(m.TradeID), frame, m.at())
	case m.Kind == "aggTrade" && m.Symbol != "" && number(m.AggID):
		return s.publish(m.Symbol, m.market()+"agg-"+m.Symbol+"-"+string(m.AggID), frame, m.at())
	case m.Kind == "trade" || m.Kind == "aggTrade": // without what makes it one
		return s.malformed(frame)
	}
	name := m.Kind
	if name == "" {
		_, name, _ = strings.Cut(stream, "@")
	}
	if c.meter.Ignored(name) {
		c.o.Log.Info("exchange sends events of a kind that is not used", "kind", name)
	}
	return nil
}

// number tells whether a JSON value is an id.
func number(b []byte) bool {
	_, err := strconv.ParseUint(string(b), 10, 64)
	return err == nil
}

// malformed publishes a frame that is no event, for quarantine to keep. Its id is made of its bytes.
func (s *session) malformed(frame []byte) error {
	h := fnv.New128a()
	_, _ = h.Write(frame)
	taken, err := s.hand(nil, "malformed-"+strconv.Itoa(len(frame))+"-"+fmt.Sprintf("%x", h.Sum(nil)), frame, "malformed")
	if taken && s.c.meter.Malformed() {
		s.c.o.Log.Warn("exchange sends frames that are no events", "first", string(frame[:min(len(frame), 200)]))
	}
	return err
}

func (s *session) publish(symbol, id string, frame []byte, at time.Time) error {
	taken, err := s.hand([]byte(symbol), id, frame, symbol)
	if err != nil {
		return err
	}
	s.got.Add(1)
	s.first.Do(func() { close(s.ready) })
	if taken {
		s.c.meter.Event(at)
	}
	return nil
}

// hand gives a message to the sink. The exchange does not wait and cuts off whoever does not read: a message for which the
// sink has no room is dropped and noted. REST has the trades.
func (s *session) hand(key []byte, id string, frame []byte, series string) (taken bool, err error) {
	err = s.c.o.Sink.Publish(s.ctx, key, id, frame)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, live.ErrFull):
		if s.c.meter.Dropped(series, id) {
			s.c.o.Log.Error("events are dropped; REST has them", "series", series, "first", id, "reason", err)
		}
		return false, nil
	}
	return false, s.sinkError(err)
}

func (s *session) sinkError(err error) error {
	if s.ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("binance: %w: %w", errSink, err)
}

// refusal explains an attempt that failed.
func refusal(resp *http.Response, err error) error {
	if resp == nil {
		return err
	}
	var body []byte
	if resp.Body != nil {
		body, _ = io.ReadAll(io.LimitReader(resp.Body, 300))
	}
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusTeapot:
		return &limitError{resp.StatusCode, retryAfter(resp.Header, 5*time.Second)}
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusUnavailableForLegalReasons:
		return fmt.Errorf("%w: %s: %s", ErrRefused, resp.Status, strings.TrimSpace(string(body)))
	}
	return err
}

// retryAfter reads the header by which the exchange asks to wait.
func retryAfter(h http.Header, unless time.Duration) time.Duration {
	if n, err := strconv.Atoi(h.Get("Retry-After")); err == nil && n >= 0 {
		return time.Duration(n) * time.Second
	}
	return unless
}
