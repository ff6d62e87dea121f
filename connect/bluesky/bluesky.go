// Package bluesky is a client of Bluesky's Jetstream, version 1: it keeps a WebSocket connection to a Jetstream server
// (or to whatever speaks its protocol, such as connect/simulate) alive and hands every event of the wanted collections
// to a Sink, as the server wrote it.
//
// # What it promises
//
// Jetstream keeps the events of some 36 hours and replays them from a cursor, a time in µs. The client keeps its cursor
// on disk, always behind what the Sink has made safe, and resumes a little before it, because the times of neighbouring
// events are not in order. What is replayed and was published already is dropped here; what another process had
// published comes again under the same message id, made of author, collection, record key and revision. Where a connection
// ends before it has come back to the cursor, the next one goes back half as far, or none would ever see a new event.
//
// # What the server does not say
//
// A cursor that is older than what the server keeps is moved forward without a word. The time of the first event shows
// it: the client reports the range of time that was not delivered, and notes it in its state file.
//
// Account and identity events come whatever collections are asked for; they are counted by kind and not published.
package bluesky

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
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"github.com/klauspost/compress/zstd"

	"github.com/cauce-data/cauce/internal/live"
)

// DefaultURL is one of the public servers, which need no account.
const DefaultURL = "wss://jetstream2.us-east.bsky.network/subscribe"

// Posts is the collection of posts.
const Posts = "app.bsky.feed.post"

// Lookback is how long the public servers keep events.
const Lookback = 36 * time.Hour

// What Jetstream allows and sends: https://github.com/bluesky-social/jetstream, README.
const (
	collectionsMax = 100
	frameBytesMax  = 8 << 20
	closePatience  = time.Second
	// seenMax bounds the ids that are remembered to drop what a replay repeats. Posts come at some 50 a second.
	seenMax = 1 << 16
	// aheadMax is how far an event's time may be ahead of this machine's clock and still move the cursor: a cursor in
	// the future means to the server that there is none.
	aheadMax = 5 * time.Minute
	// overlapMin is the least that a connection goes back, however soon connections end.
	overlapMin = 10 * time.Millisecond
)

// stateSource is what a state file is of.
const stateSource = "bluesky"

// ErrRefused says that the server understood the request and refused it for good: trying again is no use.
var ErrRefused = errors.New("Jetstream server refuses the request") //nolint:staticcheck // a name

// Options configure a Client. The zero value of each field means the default that stands beside it.
type Options struct {
	// URL is the server's address, DefaultURL; /subscribe is added where there is no path.
	URL string
	// Collections are those whose events are published: names, or prefixes such as app.bsky.graph.*; Posts.
	Collections []string
	// StateFile keeps the cursor; "": it is forgotten with the process.
	StateFile string
	// Since is where to begin if the state file has no cursor; zero: with what is live.
	Since time.Time
	// Overlap is how much before the cursor a connection resumes; 5 s.
	Overlap time.Duration
	// Dictionary, if not nil, asks for frames that are compressed with zstd and this dictionary, Jetstream's own.
	Dictionary []byte
	Sink       live.Sink
	Log        *slog.Logger // silent

	IdleTimeout time.Duration // a connection on which nothing arrives so long, not even a pong, is dead; 1 min
	SaveEvery   time.Duration // how often the cursor is saved; 1 s
	GapMin      time.Duration // a first event so much behind the cursor means that events are lost; 1 min
	BackoffMin  time.Duration // 500 ms
	BackoffMax  time.Duration // 30 s
	// HTTPClient makes the connections; http.DefaultClient.
	HTTPClient *http.Client
}

// Client is a running connection to a server.
type Client struct {
	o     Options
	url   *url.URL // without the cursor
	meter live.Meter
	seen  live.Seen
	zstd  *zstd.Decoder

	state  live.State // as it was found
	saving sync.Mutex
	saved  live.State   // as it stands on disk
	newest atomic.Int64 // time of the newest event that was handled, µs; 0: none
	ahead  bool         // the warning about times in the future is out
	// overlap is how far the next connection goes back: Options.Overlap, or less while connections end before they have
	// repeated that.
	overlap time.Duration
}

// New checks the options and reads the state file.
func New(o Options) (*Client, error) {
	if o.Sink == nil {
		return nil, errors.New("bluesky: no sink")
	}
	if o.URL == "" {
		o.URL = DefaultURL
	}
	if len(o.Collections) == 0 {
		o.Collections = []string{Posts}
	}
	if len(o.Collections) > collectionsMax {
		return nil, fmt.Errorf("bluesky: %d collections, a connection carries at most %d", len(o.Collections), collectionsMax)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	for v, d := range map[*time.Duration]time.Duration{
		&o.Overlap: 5 * time.Second, &o.IdleTimeout: time.Minute, &o.SaveEvery: time.Second, &o.GapMin: time.Minute,
		&o.BackoffMin: 500 * time.Millisecond, &o.BackoffMax: 30 * time.Second,
	} {
		if *v <= 0 {
			*v = d
		}
	}
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, fmt.Errorf("bluesky: %w", err)
	}
	switch u.Scheme {
	case "ws", "wss":
	case "http":
		u.Scheme = "ws"
	case "https":
		u.Scheme = "wss"
	default:
		return nil, fmt.Errorf("bluesky: address %q does not begin with ws:// or wss://", o.URL)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/subscribe"
	}
	q := u.Query()
	for _, name := range []string{"cursor", "wantedCollections", "compress"} {
		if q.Has(name) {
			return nil, fmt.Errorf("bluesky: the address %s says %s, which is an option of its own", o.URL, name)
		}
	}
	for _, c := range o.Collections {
		if name := strings.TrimSuffix(c, ".*"); name == "" || strings.ContainsAny(name, "* /") || !strings.Contains(name, ".") {
			return nil, fmt.Errorf("bluesky: %q is no collection; write a name such as %s, or a prefix such as app.bsky.graph.*", c, Posts)
		}
		q.Add("wantedCollections", c)
	}
	c := &Client{o: o, url: u, seen: live.Seen{Max: seenMax}, overlap: o.Overlap}
	if o.Dictionary != nil {
		q.Set("compress", "true")
		if c.zstd, err = zstd.NewReader(nil, zstd.WithDecoderDicts(o.Dictionary), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(4*frameBytesMax)); err != nil {
			return nil, fmt.Errorf("bluesky: the dictionary is none of zstd: %w", err)
		}
	}
	u.RawQuery = q.Encode()
	// Cursors are times, and the servers hold nearly the same events: a state serves whichever is asked, for whatever
	// collections.
	if c.state, err = live.Load(o.StateFile, stateSource); err != nil {
		return nil, err
	}
	c.saved = c.state
	if c.state.Cursor.IsZero() {
		c.state.Cursor = o.Since
	}
	if !c.state.Cursor.IsZero() {
		c.newest.Store(c.state.Cursor.UnixMicro())
	}
	return c, nil
}

// Stats tells what the client did so far.
func (c *Client) Stats() live.Stats { return c.meter.Stats() }

// Cursor is the time of the newest event that was handled; zero: there is none.
func (c *Client) Cursor() time.Time {
	if n := c.newest.Load(); n > 0 {
		return time.UnixMicro(n).UTC()
	}
	return time.Time{}
}

// Run keeps a connection until the context ends; then it flushes the sink, saves the cursor and returns nil. It returns
// an error that wraps ErrRefused where trying again is no use, and the sink's error if it refuses an event.
func (c *Client) Run(ctx context.Context) error {
	saving, stop := context.WithCancel(ctx)
	saved := make(chan error, 1)
	go func() { saved <- c.save(saving) }()
	err := c.run(ctx)
	stop()
	err = errors.Join(err, <-saved)
	flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if e := c.persist(flush); e != nil {
		err = errors.Join(err, fmt.Errorf("bluesky: %w", e))
	}
	return err
}

// save writes the cursor from time to time.
func (c *Client) save(ctx context.Context) error {
	tick := time.NewTicker(c.o.SaveEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			c.tryPersist(ctx)
		}
	}
}

// tryPersist is persist where a failure is no end: it is tried again each SaveEvery.
func (c *Client) tryPersist(ctx context.Context) {
	if err := c.persist(ctx); err != nil && ctx.Err() == nil {
		// What stands on disk only gets older: more is replayed after a restart, nothing is lost.
		c.o.Log.Warn("cursor is not saved", "error", err)
	}
}

// persist makes safe what was published, and only then moves the cursor on disk behind it.
func (c *Client) persist(ctx context.Context) error {
	c.saving.Lock()
	defer c.saving.Unlock()
	newest, lost := c.Cursor(), c.meter.Stats().Lost
	if err := c.o.Sink.Flush(ctx); err != nil {
		return err
	}
	s := live.State{Source: c.state.Source, Cursor: newest, Lost: append(slices.Clone(c.state.Lost), lost...)}
	if s.Cursor.Equal(c.saved.Cursor) && len(s.Lost) == len(c.saved.Lost) {
		return nil
	}
	if err := s.Save(c.o.StateFile); err != nil {
		return err
	}
	c.saved = s
	return nil
}

func (c *Client) run(ctx context.Context) error {
	for failures := 0; ; {
		s := &session{c: c, began: time.Now()}
		err := s.run(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, ErrRefused) || errors.Is(err, errSink) {
			return err
		}
		wait := c.o.BackoffMin
		// A sink without room ends each connection before what the sink refused: to go back less would pass it over.
		if s.got && !errors.Is(err, live.ErrFull) && !c.adapt(s) {
			failures = 0
		} else {
			failures++
			wait = min(c.o.BackoffMax, c.o.BackoffMin<<min(failures, 16))
		}
		wait = wait/2 + rand.N(wait/2+1)
		var limited *limitError
		if errors.As(err, &limited) {
			wait = max(wait, limited.after)
		}
		c.o.Log.Warn("Jetstream connection ended", "reason", err, "again_in", wait.Round(time.Millisecond))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// adapt decides from a connection that has ended how far the next one goes back. futile tells that it ended while it repeated
// what is known; one that lasted longer had nothing new to give.
func (c *Client) adapt(s *session) (futile bool) {
	headway := c.Cursor().Sub(s.resume)
	futile = headway <= 0 && time.Since(s.began) < c.o.Overlap
	switch {
	case futile:
		c.overlap = max(c.overlap/2, overlapMin)
		c.o.Log.Warn("Jetstream connection ended while it repeated known events; the next one goes back less", "overlap", c.overlap)
	case headway >= 2*c.overlap: // it would have repeated twice as much, too
		c.overlap = min(2*c.overlap, c.o.Overlap)
	}
	return futile
}

// errSink marks an error of the sink.
var errSink = errors.New("event is not taken")

// limitError says that the server asks to wait.
type limitError struct {
	status int
	after  time.Duration
}

func (e *limitError) Error() string {
	return fmt.Sprintf("server answers %d and asks to wait %s", e.status, e.after)
}

// session is one connection.
type session struct {
	c      *Client
	resume time.Time // the cursor without overlap; zero: none was sent
	began  time.Time
	got    bool // an event came

	heard atomic.Int64 // when something arrived, in ns
	busy  atomic.Bool  // an event waits for the sink
}

func (s *session) run(ctx context.Context) error {
	c := s.c
	u := *c.url
	if s.resume = c.Cursor(); !s.resume.IsZero() {
		q := u.Query()
		q.Set("cursor", strconv.FormatInt(s.resume.Add(-c.overlap).UnixMicro(), 10))
		u.RawQuery = q.Encode()
	}
	dial, done := context.WithTimeout(ctx, 15*time.Second)
	ws, resp, err := websocket.Dial(dial, u.String(), &websocket.DialOptions{
		HTTPClient:      c.o.HTTPClient,
		CompressionMode: websocket.CompressionDisabled,
		OnPingReceived: func(context.Context, []byte) bool {
			s.heard.Store(time.Now().UnixNano())
			return true // answered with a pong of the same payload
		},
		OnPongReceived: func(context.Context, []byte) { s.heard.Store(time.Now().UnixNano()) },
	})
	done()
	if err != nil {
		return refusal(resp, err)
	}
	defer c.meter.Opened()()
	ws.SetReadLimit(frameBytesMax)
	s.heard.Store(time.Now().UnixNano())
	c.o.Log.Info("Jetstream connection stands", "url", u.Redacted())

	// Reading goes on while the connection is closed in order: cancelling it would cut the connection.
	reading, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer ws.CloseNow() //nolint:errcheck // whatever ended the session; waits where it is being closed in order
	defer context.AfterFunc(ctx, func() {
		late := time.AfterFunc(closePatience, func() { stop(ctx.Err()) })
		defer late.Stop()
		_ = ws.Close(websocket.StatusNormalClosure, "")
	})()
	watched := make(chan struct{})
	go func() { defer close(watched); s.watch(reading, ws, stop) }()
	defer func() { <-watched }()
	defer stop(nil)
	for {
		kind, frame, err := ws.Read(reading)
		if err != nil {
			if cause := context.Cause(reading); cause != nil {
				err = cause
			}
			return err
		}
		s.heard.Store(time.Now().UnixNano())
		if kind == websocket.MessageBinary && c.zstd != nil {
			if plain, err := c.zstd.DecodeAll(frame, nil); err == nil {
				kind, frame = websocket.MessageText, plain
			}
		}
		s.busy.Store(true)
		err = s.take(ctx, kind == websocket.MessageText, frame)
		s.heard.Store(time.Now().UnixNano())
		s.busy.Store(false)
		if err != nil {
			_ = ws.Close(websocket.StatusNormalClosure, "")
			return err
		}
	}
}

// watch pings a connection on which nothing arrives, and ends it if nothing arrives then either.
func (s *session) watch(ctx context.Context, ws *websocket.Conn, stop context.CancelCauseFunc) {
	idle := s.c.o.IdleTimeout
	tick := time.NewTicker(max(idle/8, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		quiet := time.Since(time.Unix(0, s.heard.Load()))
		switch {
		case s.busy.Load(): // nobody reads while the sink makes the client wait
		case quiet > idle:
			stop(fmt.Errorf("nothing arrived for %s", quiet.Round(time.Millisecond)))
			return
		case quiet > idle/2:
			short, cancel := context.WithTimeout(ctx, idle/8)
			_ = ws.Ping(short) // its pong, or its absence, counts above
			cancel()
		}
	}
}

// message is what the client reads of an event.
type message struct {
	DID    string `json:"did"`
	TimeUS int64  `json:"time_us"`
	Kind   string `json:"kind"`
	Commit *struct {
		Rev        string          `json:"rev"`
		Operation  string          `json:"operation"`
		Collection string          `json:"collection"`
		RKey       string          `json:"rkey"`
		Record     json.RawMessage `json:"record"`
	} `json:"commit"`
}

// take handles one frame.
func (s *session) take(ctx context.Context, text bool, frame []byte) error {
	c := s.c
	var m message
	if !text || json.Unmarshal(frame, &m) != nil || m.TimeUS <= 0 || m.Kind == "" {
		return s.malformed(ctx, frame)
	}
	at := time.UnixMicro(m.TimeUS).UTC()
	if !s.got {
		s.got = true
		s.compare(at)
		c.begin(ctx, m.TimeUS)
	}
	if m.Kind != "commit" || m.Commit == nil {
		s.ignore(m.Kind)
		c.handled(m.TimeUS)
		return nil
	}
	k := m.Commit
	if !c.wanted(k.Collection) {
		s.ignore(k.Collection)
		c.handled(m.TimeUS)
		return nil
	}
	switch k.Operation {
	case "create", "update", "delete":
	case "":
		return s.malformed(ctx, frame)
	default: // of a kind that came later
		s.ignore(k.Collection + " " + k.Operation)
		c.handled(m.TimeUS)
		return nil
	}
	if m.DID == "" || k.RKey == "" || k.Rev == "" || k.Operation != "delete" && len(k.Record) == 0 {
		return s.malformed(ctx, frame)
	}
	key := m.DID + "/" + k.Collection + "/" + k.RKey
	id := "bluesky-" + key + "/" + k.Rev
	if c.seen.Has(id) {
		c.meter.Duplicate()
		return nil
	}
	if err := s.publish(ctx, []byte(key), id, frame); err != nil {
		return err
	}
	c.meter.Event(at)
	c.handled(m.TimeUS)
	return nil
}

// compare looks at the first event of a connection that resumed: a server that no longer has what the cursor names sends
// the oldest that it has, and does not say so.
func (s *session) compare(first time.Time) {
	if s.resume.IsZero() || first.Sub(s.resume) <= s.c.o.GapMin {
		return
	}
	reason := "the server had nothing in between"
	if age := time.Since(s.resume); age > Lookback-time.Hour {
		reason = fmt.Sprintf("the cursor was %s old; the public servers keep %s", age.Round(time.Minute), Lookback)
	}
	s.c.meter.Lost(live.Lost{From: s.resume, To: first, Reason: reason})
	s.c.o.Log.Error("events were not delivered", "from", s.resume.Format(time.RFC3339Nano), "to", first.Format(time.RFC3339Nano), "reason", reason)
}

// begin puts a cursor on disk before the first event that this client ever heard: a process that died without one would be
// followed by one that begins with what is live then, and what came in between would be missing.
func (c *Client) begin(ctx context.Context, us int64) {
	if c.newest.Load() > 0 {
		return
	}
	if c.handled(us - 1); c.newest.Load() == 0 {
		// This machine's clock is slow, or the event's time is wrong. The stream is at what is live, which is not older than
		// what a slow clock shows: from there all comes again, and more.
		c.newest.Store(time.Now().UnixMicro())
	}
	c.tryPersist(ctx)
}

// handled moves the cursor.
func (c *Client) handled(us int64) {
	if us <= c.newest.Load() {
		return
	}
	if at := time.UnixMicro(us); time.Until(at) > aheadMax {
		if !c.ahead {
			c.ahead = true
			c.o.Log.Warn("an event's time is in the future; it does not move the cursor", "time", at.UTC().Format(time.RFC3339Nano))
		}
		return
	}
	c.newest.Store(us)
}

// wanted tells whether a collection is asked for.
func (c *Client) wanted(collection string) bool {
	return slices.ContainsFunc(c.o.Collections, func(w string) bool {
		prefix, many := strings.CutSuffix(w, "*")
		return collection == w || many && strings.HasPrefix(collection, prefix)
	})
}

func (s *session) ignore(kind string) {
	if s.c.meter.Ignored(kind) {
		s.c.o.Log.Info("server sends events of a kind that is not used", "kind", kind)
	}
}

// malformed publishes a frame that is no event, for quarantine to keep. Its id is made of its bytes.
func (s *session) malformed(ctx context.Context, frame []byte) error {
	h := fnv.New128a()
	_, _ = h.Write(frame)
	id := "malformed-" + strconv.Itoa(len(frame)) + "-" + fmt.Sprintf("%x", h.Sum(nil))
	if s.c.seen.Has(id) {
		s.c.meter.Duplicate()
		return nil
	}
	if err := s.publish(ctx, nil, id, frame); err != nil {
		return err
	}
	if s.c.meter.Malformed() {
		s.c.o.Log.Warn("server sends frames that are no events", "first", string(frame[:min(len(frame), 200)]))
	}
	return nil
}

// publish hands an event to the sink. A sink that has no room ends the connection: the server keeps the event, and the
// cursor, which does not move, brings it again.
func (s *session) publish(ctx context.Context, key []byte, id string, frame []byte) error {
	err := s.c.o.Sink.Publish(ctx, key, id, frame)
	switch {
	case err == nil:
		s.c.seen.Add(id)
		return nil
	case ctx.Err() != nil, errors.Is(err, live.ErrFull):
		return err
	}
	return fmt.Errorf("bluesky: %w: %w", errSink, err)
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
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		after := 5 * time.Second
		if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && n >= 0 {
			after = time.Duration(n) * time.Second
		}
		return &limitError{resp.StatusCode, after}
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusUnavailableForLegalReasons:
		return fmt.Errorf("%w: %s: %s", ErrRefused, resp.Status, strings.TrimSpace(string(body)))
	}
	return err
}
