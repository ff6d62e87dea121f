package simulate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/klauspost/compress/zstd"
)

// BlueskyOptions configure a Bluesky. The zero value of each field means the default that stands beside it.
type BlueskyOptions struct {
	Seed    uint64
	Rate    float64   // events a second, of all kinds together; 100
	Count   int64     // Run ends after so many events; 0: never
	Authors int       // 40
	Start   time.Time // time of the first event; now
	Journal io.Writer // gets a JSON object a line for each event of a post: did, rkey, rev, op, time_us, text, lang
	// Lookback is how long events are kept: an older cursor is moved forward without a word; 36 h.
	Lookback   time.Duration
	PingEvery  time.Duration // 30 s
	Dictionary []byte        // of zstd, for clients that ask for compression; without one none is given
	Faults     BlueskyFaults
	Log        *slog.Logger // nil: silent
}

// BlueskyFaults says how the server misbehaves: each …Every after how many events of a connection it does so again; 0
// never.
type BlueskyFaults struct {
	DropEvery      int // cuts the TCP connection without a close frame
	HalfOpenEvery  int // falls silent without closing anything
	ReplayEvery    int // sends the last 20 events again
	SwapEvery      int // sends an event after the one that follows it
	MalformedEvery int // sends a frame that is no JSON
	UnknownEvery   int // sends an event of a kind that no client knows
	Refuse         Refusals
}

// replayed is how many events ReplayEvery repeats.
const replayed = 20

// blueskyLogMax bounds the events that are kept, beside Lookback.
const blueskyLogMax = 2_000_000

const postCollection = "app.bsky.feed.post"

// blueskyEvent is one event as it is sent.
type blueskyEvent struct {
	us         int64
	collection string // "" for those that every client gets
	body       []byte
}

// author is one account with its live posts.
type author struct {
	did   string
	clock uint64
	posts []string // record keys
}

// Bluesky is a Jetstream server, version 1. It is safe for concurrent use.
type Bluesky struct {
	o BlueskyOptions

	mu      sync.Mutex
	rng     *rand.Rand
	made    int64
	last    int64 // time of the newest event, µs
	seq     int64
	authors []*author
	log     []blueskyEvent // ascending by time
	base    int64          // number of log[0] among all events
	changed chan struct{}  // closed when the log gets longer
	conns   map[*blueskyConn]struct{}
	closed  bool
	served  sync.WaitGroup
}

// NewBluesky makes a server that has no events yet.
func NewBluesky(o BlueskyOptions) (*Bluesky, error) {
	orDefault(&o.Rate, 100)
	if o.Rate < 0 || math.IsNaN(o.Rate) || o.Rate > 1e6 {
		return nil, fmt.Errorf("simulated Bluesky: rate %v is not between 0 and a million events a second", o.Rate)
	}
	orDefault(&o.Authors, 40)
	orDefault(&o.Lookback, 36*time.Hour)
	orDefault(&o.PingEvery, 30*time.Second)
	if o.Start.IsZero() {
		o.Start = time.Now()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Faults.Refuse = slices.Clone(o.Faults.Refuse)
	b := &Bluesky{o: o, rng: rand.New(rand.NewPCG(o.Seed, 0x626c7565736b79)), changed: make(chan struct{}), conns: map[*blueskyConn]struct{}{}}
	for i := range o.Authors {
		b.authors = append(b.authors, &author{did: "did:plc:" + digits(b.rng, 24), clock: uint64(i)}) //nolint:gosec // few
	}
	return b, nil
}

// one makes the next event and, if it is a post's, its line of the journal. The lock is held.
func (b *Bluesky) one() (line []byte) {
	gap := float64(time.Second) / b.o.Rate
	at := b.o.Start.Add(time.Duration((float64(b.made) + b.rng.Float64()) * gap))
	us := max(at.UnixMicro(), b.last+1)
	b.made, b.last = b.made+1, us
	at = time.UnixMicro(us).UTC()
	a := b.authors[b.rng.IntN(len(b.authors))]
	commit := func(operation, collection, rkey, record string) blueskyEvent {
		var w bytes.Buffer
		fmt.Fprintf(&w, `{"did":"%s","time_us":%d,"kind":"commit","commit":{"rev":"%s","operation":"%s","collection":"%s","rkey":"%s"`,
			a.did, us, tid(at, a.clock), operation, collection, rkey)
		if record != "" {
			fmt.Fprintf(&w, `,"record":%s,"cid":"bafyrei%s"`, record, digits(b.rng, 52))
		}
		w.WriteString("}}")
		return blueskyEvent{us, collection, w.Bytes()}
	}
	rkey := tid(at, a.clock+512)
	created := at.Add(-time.Duration(b.rng.IntN(3000)) * time.Millisecond).Truncate(time.Millisecond)
	stamp := created.Format("2006-01-02T15:04:05.000Z")
	subject := func() string {
		return fmt.Sprintf(`{"cid":"bafyrei%s","uri":"at://did:plc:%s/app.bsky.feed.post/%s"}`, digits(b.rng, 52), digits(b.rng, 24), tid(created, 7))
	}
	post := func(operation, rkey string) blueskyEvent {
		record, text, lang := "", "", ""
		if operation != "delete" {
			text, lang = phrase(b.rng)
			langs := ""
			if lang != "" {
				langs = `"langs":["` + lang + `"],`
			}
			record = fmt.Sprintf(`{"$type":"%s","createdAt":"%s",%s"text":%s}`, postCollection, stamp, langs, quoted(text))
		}
		line = fmt.Appendf(nil, `{"did":"%s","rkey":"%s","rev":"%s","op":"%s","time_us":%d,"text":%s,"lang":"%s"}`+"\n", a.did, rkey, tid(at, a.clock), operation, us, quoted(text), lang)
		return commit(operation, postCollection, rkey, record)
	}
	var e blueskyEvent
	switch n := b.rng.IntN(100); {
	case n < 10 && len(a.posts) > 0:
		i := b.rng.IntN(len(a.posts))
		e = post("delete", a.posts[i])
		a.posts = slices.Delete(a.posts, i, i+1)
	case n < 18 && len(a.posts) > 0:
		e = post("update", a.posts[b.rng.IntN(len(a.posts))])
	case n < 70:
		e = post("create", rkey)
		a.posts = append(a.posts, rkey)
	case n < 85:
		e = commit("create", "app.bsky.feed.like", rkey, fmt.Sprintf(`{"$type":"app.bsky.feed.like","createdAt":"%s","subject":%s}`, stamp, subject()))
	case n < 90:
		e = commit("create", "app.bsky.feed.repost", rkey, fmt.Sprintf(`{"$type":"app.bsky.feed.repost","createdAt":"%s","subject":%s}`, stamp, subject()))
	case n < 95:
		e = commit("create", "app.bsky.graph.follow", rkey, fmt.Sprintf(`{"$type":"app.bsky.graph.follow","createdAt":"%s","subject":"did:plc:%s"}`, stamp, digits(b.rng, 24)))
	case n < 97:
		e = commit("delete", "app.bsky.graph.follow", rkey, "")
	default:
		b.seq++
		what, more := "identity", ""
		if n == 99 {
			what, more = "account", `"active":true,`
		}
		e = blueskyEvent{us, "", fmt.Appendf(nil, `{"did":"%s","time_us":%d,"kind":"%s","%s":{%s"did":"%s","seq":%d,"time":"%s"}}`, a.did, us, what, what, more, a.did, 34000000000+b.seq, stamp)}
	}
	b.log = append(b.log, e)
	return line
}

// Step makes n events now and sends them to whoever listens.
func (b *Bluesky) Step(n int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var lines bytes.Buffer
	for range n {
		lines.Write(b.one())
	}
	if b.o.Journal != nil {
		if _, err := b.o.Journal.Write(lines.Bytes()); err != nil {
			return fmt.Errorf("simulated Bluesky: journal: %w", err)
		}
	}
	if over := len(b.log) - blueskyLogMax; over > blueskyLogMax {
		b.log = slices.Clone(b.log[over:])
		b.base += int64(over)
	}
	close(b.changed)
	b.changed = make(chan struct{})
	return nil
}

// Made is how many events there are.
func (b *Bluesky) Made() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.made
}

// Run makes events at the rate until the context ends, which is no error, or Count is reached.
func (b *Bluesky) Run(ctx context.Context) error {
	return pace(ctx, b.o.Rate, b.o.Count, b.Made, b.Step)
}

// Close closes all connections; new ones are refused.
func (b *Bluesky) Close() {
	b.mu.Lock()
	b.closed = true
	for c := range b.conns {
		c.cancel()
	}
	b.mu.Unlock()
	b.served.Wait()
}

// Handler serves /subscribe.
func (b *Bluesky) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/subscribe", b.subscribe)
	return mux
}

// blueskyConn is one WebSocket connection.
type blueskyConn struct {
	ws       *websocket.Conn
	cancel   context.CancelFunc
	wanted   []string // collections, or prefixes that end in '*'; none: all
	compress *zstd.Encoder

	mu     sync.Mutex
	silent bool // half-open: nothing is sent or answered any more
}

func (c *blueskyConn) mute() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.silent
}

func (b *Bluesky) subscribe(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	status := b.o.Faults.Refuse.next()
	b.mu.Unlock()
	if status != 0 {
		w.Header().Set("Retry-After", "1")
		http.Error(w, http.StatusText(status), status)
		return
	}
	q := r.URL.Query()
	c := &blueskyConn{}
	for _, v := range q["wantedCollections"] {
		name := strings.TrimSuffix(v, ".*")
		if strings.ContainsAny(name, "* /") || !strings.Contains(name, ".") {
			http.Error(w, "invalid collection: "+v, http.StatusBadRequest)
			return
		}
		if name != v {
			name += ".*"
		}
		c.wanted = append(c.wanted, name)
	}
	if len(c.wanted) > 100 {
		http.Error(w, "too many wanted collections", http.StatusBadRequest)
		return
	}
	if q.Get("compress") == "true" || r.Header.Get("Socket-Encoding") == "zstd" {
		if b.o.Dictionary == nil {
			http.Error(w, "no compression", http.StatusBadRequest)
			return
		}
		var err error
		if c.compress, err = zstd.NewWriter(nil, zstd.WithEncoderDict(b.o.Dictionary), zstd.WithEncoderConcurrency(1)); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	// No cursor, or one of the future: what is live. One that is too old: the oldest event, without a word.
	from := int64(-1)
	if v := q.Get("cursor"); v != "" {
		cursor, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			http.Error(w, "invalid cursor: "+v, http.StatusBadRequest)
			return
		}
		if now := time.Now(); cursor <= now.UnixMicro() {
			from = max(cursor, now.Add(-b.o.Lookback).UnixMicro())
		}
	}
	// The client may make events as soon as it has the answer, and must then get them.
	b.mu.Lock()
	at := b.base + int64(len(b.log))
	if from >= 0 {
		at = b.base + int64(sort.Search(len(b.log), func(i int) bool { return b.log[i].us >= from }))
	}
	b.mu.Unlock()
	up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	ws, err := up.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c.ws, c.cancel = ws, cancel
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		ws.Close()
		return
	}
	b.conns[c] = struct{}{}
	b.served.Add(1)
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		delete(b.conns, c)
		b.mu.Unlock()
		b.served.Done()
	}()
	failed := make(chan error, 2)
	readDone, sendDone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(readDone)
		ws.SetReadLimit(1 << 20)
		ws.SetPingHandler(func(payload string) error {
			if c.mute() {
				return nil
			}
			return ws.WriteControl(websocket.PongMessage, []byte(payload), time.Now().Add(time.Second))
		})
		for {
			if _, _, err := ws.ReadMessage(); err != nil {
				failed <- err
				return
			}
		}
	}()
	go func() {
		defer close(sendDone)
		failed <- b.send(ctx, c, at)
	}()
	select {
	case err = <-failed:
	case <-ctx.Done():
		err = closing{websocket.CloseGoingAway, "server ends"}
	}
	b.o.Log.Debug("simulated Bluesky: connection ends", "remote", r.RemoteAddr, "reason", err)
	cancel()
	var cl closing
	if errors.As(err, &cl) && !c.mute() {
		_ = ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(cl.code, cl.reason), time.Now().Add(time.Second))
	} else if tcp, ok := ws.NetConn().(*net.TCPConn); ok && errors.Is(err, errCut) {
		_ = tcp.SetLinger(0)
	}
	ws.Close()
	<-readDone
	<-sendDone
}

// wants tells whether a client gets the events of a collection.
func (c *blueskyConn) wants(collection string) bool {
	return collection == "" || len(c.wanted) == 0 || slices.ContainsFunc(c.wanted, func(w string) bool {
		prefix, many := strings.CutSuffix(w, "*")
		return w == collection || many && strings.HasPrefix(collection, prefix)
	})
}

func (c *blueskyConn) frame(body []byte) error {
	if c.compress != nil {
		return c.ws.WriteMessage(websocket.BinaryMessage, c.compress.EncodeAll(body, nil))
	}
	return c.ws.WriteMessage(websocket.TextMessage, body)
}

// send gives the client its events, its pings and its faults. at is the number of the first event.
func (b *Bluesky) send(ctx context.Context, c *blueskyConn, at int64) error {
	f := b.o.Faults
	ping := time.NewTicker(b.o.PingEvery)
	defer ping.Stop()
	sent := 0
	var last [][]byte
	var held []byte // waits for its successor
	nth := func(every int) bool { return every > 0 && sent%every == 0 }
	for {
		b.mu.Lock()
		changed := b.changed
		at = max(at, b.base) // too old, and no word of it
		batch := b.log[at-b.base:]
		batch = batch[:min(len(batch), 256):min(len(batch), 256)]
		b.mu.Unlock()
		for _, e := range batch {
			at++
			if !c.wants(e.collection) || c.mute() {
				continue
			}
			sent++
			frames := [][]byte{e.body}
			switch {
			case held != nil:
				frames, held = append(frames, held), nil
			case nth(f.SwapEvery):
				frames, held = nil, e.body
			}
			if nth(f.MalformedEvery) {
				frames = append(frames, e.body[:len(e.body)/2])
			}
			if nth(f.UnknownEvery) {
				frames = append(frames, fmt.Appendf(nil, `{"did":"did:plc:%s","time_us":%d,"kind":"sync","sync":{"note":"of a kind that came later"}}`, strings.Repeat("a", 24), e.us))
			}
			if nth(f.ReplayEvery) {
				frames = append(frames, last...)
			}
			for _, body := range frames {
				if err := c.frame(body); err != nil {
					return err
				}
			}
			if last = append(last, e.body); len(last) > replayed {
				last = last[1:]
			}
			if nth(f.DropEvery) {
				return errCut
			}
			if nth(f.HalfOpenEvery) {
				c.mu.Lock()
				c.silent = true
				c.mu.Unlock()
			}
		}
		wait := changed
		if len(batch) > 0 {
			wait = make(chan struct{})
			close(wait)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wait:
		case <-overdue(held):
			if !c.mute() {
				if err := c.frame(held); err != nil {
					return err
				}
			}
			held = nil
		case <-ping.C:
			if !c.mute() {
				if err := c.ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(time.Second)); err != nil {
					return err
				}
			}
		}
	}
}
