package simulate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// Handler serves the exchange: /ws, /stream and the REST endpoints.
func (x *Exchange) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/ws", x.socket)
	mux.HandleFunc("/ws/{streams...}", x.socket)
	mux.HandleFunc("/stream", x.socket)
	x.routes(mux)
	return mux
}

var (
	streamName = regexp.MustCompile(`^[a-z0-9]+@(trade|aggTrade)$`)
	requestID  = regexp.MustCompile(`^(null|[0-9]+|"[^"]{0,36}")$`)
)

// conn is one WebSocket connection.
type conn struct {
	x        *Exchange
	ws       *websocket.Conn
	combined bool
	micros   bool
	cancel   context.CancelFunc

	write sync.Mutex // frames are written one at a time

	mu      sync.Mutex
	streams map[string]bool
	ping    string    // payload of the ping that waits for its pong
	pinged  time.Time // when it was sent
	recent  []time.Time
	silent  bool // half-open: nothing is sent or answered any more
}

// errCut ends a connection without a close frame.
var errCut = errors.New("connection is cut")

// closing ends a connection with a close frame.
type closing struct {
	code   int
	reason string
}

func (c closing) Error() string { return c.reason }

func (x *Exchange) socket(w http.ResponseWriter, r *http.Request) {
	if !x.admit(w, r) {
		return
	}
	combined := r.URL.Path == "/stream"
	var names []string
	if combined {
		names = strings.FieldsFunc(r.URL.Query().Get("streams"), func(c rune) bool { return c == '/' })
	} else if s := r.PathValue("streams"); s != "" {
		names = strings.Split(s, "/")
	}
	streams := map[string]bool{}
	for _, n := range names {
		if !streamName.MatchString(n) {
			http.Error(w, fmt.Sprintf("Invalid stream: %s", n), http.StatusBadRequest)
			return
		}
		streams[n] = true
	}
	if len(streams) > streamsMax {
		http.Error(w, "Too many streams", http.StatusBadRequest)
		return
	}
	// The client may make trades as soon as it has the answer, and must then get them.
	x.mu.Lock()
	cursor := x.base + int64(len(x.log))
	x.mu.Unlock()
	up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	ws, err := up.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c := &conn{
		x: x, ws: ws, combined: combined, cancel: cancel, streams: streams,
		micros: strings.EqualFold(r.URL.Query().Get("timeUnit"), "MICROSECOND"),
	}
	x.mu.Lock()
	if x.closed {
		x.mu.Unlock()
		ws.Close()
		return
	}
	x.conns[c] = struct{}{}
	seed := x.o.Seed + uint64(cursor)
	x.served.Add(1)
	x.mu.Unlock()
	defer func() {
		x.mu.Lock()
		delete(x.conns, c)
		x.mu.Unlock()
		x.served.Done()
	}()

	failed := make(chan error, 2)
	readDone := make(chan struct{})
	go func() {
		defer close(readDone)
		failed <- c.read()
	}()
	sendDone := make(chan struct{})
	go func() {
		defer close(sendDone)
		failed <- c.send(ctx, cursor, rand.New(rand.NewPCG(seed, 1)))
	}()
	select {
	case err = <-failed:
	case <-ctx.Done():
		err = closing{websocket.CloseGoingAway, "exchange ends"}
	}
	x.o.Log.Debug("simulated exchange: connection ends", "remote", r.RemoteAddr, "reason", err)
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

func (c *conn) mute() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.silent
}

// read takes what the client sends.
func (c *conn) read() error {
	c.ws.SetReadLimit(64 << 10)
	c.ws.SetPingHandler(func(payload string) error {
		if err := c.count(); err != nil {
			return err
		}
		if c.mute() {
			return nil
		}
		return c.ws.WriteControl(websocket.PongMessage, []byte(payload), time.Now().Add(time.Second))
	})
	c.ws.SetPongHandler(func(payload string) error {
		if err := c.count(); err != nil {
			return err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		switch payload {
		case "": // an unsolicited pong is allowed and counts for nothing
		case c.ping:
			c.ping = ""
		default:
			return closing{websocket.ClosePolicyViolation, "Invalid pong payload"}
		}
		return nil
	})
	for {
		_, b, err := c.ws.ReadMessage()
		if err != nil {
			return err
		}
		if err := c.count(); err != nil {
			return err
		}
		if c.mute() {
			continue
		}
		answer, fatal := c.request(b)
		if err := c.frame(answer); err != nil {
			return err
		}
		if fatal != nil {
			return fatal
		}
	}
}

// count enforces the limit of incoming frames.
func (c *conn) count() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	c.recent = slices.DeleteFunc(c.recent, func(t time.Time) bool { return now.Sub(t) > time.Second })
	c.recent = append(c.recent, now)
	if len(c.recent) > c.x.o.IncomingMax {
		return closing{websocket.ClosePolicyViolation, "Too many requests"}
	}
	return nil
}

// request answers one JSON request.
func (c *conn) request(b []byte) (answer []byte, fatal error) {
	var q struct {
		Method string            `json:"method"`
		Params []json.RawMessage `json:"params"`
		ID     json.RawMessage   `json:"id"`
	}
	refuse := func(code int, msg string) []byte {
		b, _ := json.Marshal(map[string]any{"code": code, "msg": msg})
		return b
	}
	if err := json.Unmarshal(b, &q); err != nil {
		return refuse(3, "Invalid JSON: "+err.Error()), nil
	}
	if len(q.ID) == 0 {
		q.ID = json.RawMessage("null")
	}
	if !requestID.Match(q.ID) {
		return refuse(2, "Invalid request: request ID must be an unsigned integer or a string"), nil
	}
	result := "null"
	c.mu.Lock()
	defer c.mu.Unlock()
	switch q.Method {
	case "SUBSCRIBE", "UNSUBSCRIBE":
		if len(q.Params) == 0 {
			return refuse(2, "Invalid request: no stream names"), nil
		}
		names := make([]string, len(q.Params))
		for i, p := range q.Params {
			if json.Unmarshal(p, &names[i]) != nil || !streamName.MatchString(names[i]) {
				return refuse(2, "Invalid request: invalid stream"), nil
			}
		}
		for _, n := range names {
			if q.Method == "SUBSCRIBE" {
				c.streams[n] = true
			} else {
				delete(c.streams, n)
			}
		}
		if len(c.streams) > streamsMax {
			return refuse(2, "Invalid request: too many streams"), closing{websocket.ClosePolicyViolation, "Too many streams"}
		}
	case "LIST_SUBSCRIPTIONS":
		list := make([]string, 0, len(c.streams))
		for n := range c.streams {
			list = append(list, n)
		}
		slices.Sort(list)
		b, _ := json.Marshal(list)
		result = string(b)
	case "SET_PROPERTY":
		if len(q.Params) != 2 || string(q.Params[0]) != `"combined"` || json.Unmarshal(q.Params[1], &c.combined) != nil {
			return refuse(0, "Unknown property"), nil
		}
	case "GET_PROPERTY":
		if len(q.Params) != 1 || string(q.Params[0]) != `"combined"` {
			return refuse(0, "Unknown property"), nil
		}
		result = fmt.Sprint(c.combined)
	default:
		return refuse(2, fmt.Sprintf("Invalid request: unknown method %q", q.Method)), nil
	}
	return fmt.Appendf(nil, `{"result":%s,"id":%s}`, result, q.ID), nil
}

func (c *conn) frame(b []byte) error {
	c.write.Lock()
	defer c.write.Unlock()
	return c.ws.WriteMessage(websocket.TextMessage, b)
}

// overdue fires when an event of SwapEvery has waited long enough for the one that is to overtake it: the last of all has none. nil
// is no event.
func overdue(held []byte) <-chan time.Time {
	if held == nil {
		return nil
	}
	return time.After(200 * time.Millisecond)
}

// send gives the client its events, its pings and its faults.
func (c *conn) send(ctx context.Context, cursor int64, rng *rand.Rand) error {
	x := c.x
	f := x.o.Faults
	ping := time.NewTicker(x.o.PingEvery)
	defer ping.Stop()
	late := time.NewTicker(max(time.Millisecond, min(x.o.PongTimeout/4, time.Second)))
	defer late.Stop()
	age := time.NewTimer(x.o.MaxAge)
	defer age.Stop()
	var shutdown <-chan time.Time
	sent := 0
	var last [][]byte // the newest frames
	var held []byte   // waits for its successor
	nth := func(every int) bool { return every > 0 && sent%every == 0 }
	for {
		x.mu.Lock()
		changed := x.changed
		behind := cursor < x.base
		var batch []event
		if !behind {
			batch = x.log[cursor-x.base:]
			batch = batch[:min(len(batch), 256):min(len(batch), 256)]
		}
		x.mu.Unlock()
		if behind {
			return closing{websocket.ClosePolicyViolation, "Client is too slow"}
		}
		for _, e := range batch {
			cursor++
			c.mu.Lock()
			wanted, combined := c.streams[e.stream] && !c.silent, c.combined
			c.mu.Unlock()
			if !wanted {
				continue
			}
			sent++
			var b bytes.Buffer
			if combined {
				fmt.Fprintf(&b, `{"stream":"%s","data":`, e.stream)
			}
			body := appendEvent(nil, e, c.micros)
			if e.agg == nil && nth(f.OldEvery) {
				body = bytes.Replace(body, []byte(`,"T":`), []byte(`,"b":88,"a":50,"T":`), 1)
			}
			b.Write(body)
			if combined {
				b.WriteByte('}')
			}
			frames := [][]byte{b.Bytes()}
			switch {
			case nth(f.LoseEvery):
				frames = nil
			case held != nil:
				frames, held = append(frames, held), nil
			case nth(f.SwapEvery):
				frames, held = nil, b.Bytes()
			}
			if nth(f.MalformedEvery) {
				frames = append(frames, b.Bytes()[:b.Len()/2])
			}
			if nth(f.UnknownEvery) {
				frames = append(frames, fmt.Appendf(nil, `{"e":"systemNotice","E":%d,"note":"of a kind that came later"}`, time.Now().UnixMilli()))
			}
			if nth(f.DuplicateEvery) {
				frames = append(frames, last...)
			}
			for _, b := range frames {
				if err := c.frame(b); err != nil {
					return err
				}
			}
			if last = append(last, b.Bytes()); len(last) > 3 {
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
			if nth(f.ShutdownEvery) && shutdown == nil {
				if err := c.frame(fmt.Appendf(nil, `{"e":"serverShutdown","E":%d}`, time.Now().UnixMilli())); err != nil {
					return err
				}
				shutdown = time.After(x.o.ShutdownGrace)
			}
		}
		wait := changed
		if len(batch) > 0 {
			ready := make(chan struct{})
			close(ready)
			wait = ready
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
		case <-shutdown:
			return closing{websocket.CloseGoingAway, "Server is shutting down"}
		case <-age.C:
			return closing{websocket.CloseGoingAway, "Connection is too old"}
		case <-ping.C:
			c.mu.Lock()
			payload, quiet := c.ping, c.silent
			if payload == "" && !quiet {
				payload = fmt.Sprintf("%016x", rng.Uint64())
				c.ping, c.pinged = payload, time.Now()
			}
			c.mu.Unlock()
			if !quiet {
				if err := c.ws.WriteControl(websocket.PingMessage, []byte(payload), time.Now().Add(time.Second)); err != nil {
					return err
				}
			}
		case <-late.C:
			c.mu.Lock()
			missing := c.ping != "" && !c.silent && time.Since(c.pinged) > x.o.PongTimeout
			c.mu.Unlock()
			if missing {
				return closing{websocket.ClosePolicyViolation, "Pong timeout"}
			}
		}
	}
}
