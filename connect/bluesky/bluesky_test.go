package bluesky

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
	"github.com/klauspost/compress/zstd"

	"github.com/cauce-data/cauce/connect/simulate"
	"github.com/cauce-data/cauce/internal/live"
	"github.com/cauce-data/cauce/internal/prereq"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// memory is a Sink that counts what it gets by id.
type memory struct {
	mu      sync.Mutex
	ids     map[string]int
	values  []string
	keys    []string
	flushes int
	fail    error
	room    int // with fail: so many messages are taken first
}

func (m *memory) Publish(_ context.Context, key []byte, id string, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		if m.room--; m.room < 0 {
			return m.fail
		}
	}
	if m.ids == nil {
		m.ids = map[string]int{}
	}
	m.ids[id]++
	m.values, m.keys = append(m.values, string(value)), append(m.keys, string(key))
	return nil
}

func (m *memory) Flush(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.flushes++
	return nil
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

// stage is a simulated server and what stands around it, inside a bubble.
type stage struct {
	t       *testing.T
	server  *simulate.Bluesky
	journal bytes.Buffer
	ln      *pipes
	stop    func()
	state   string
}

func newStage(t *testing.T, o simulate.BlueskyOptions) *stage {
	s := &stage{t: t, ln: &pipes{make(chan net.Conn), make(chan struct{})}, state: filepath.Join(t.TempDir(), "state.json")}
	o.Journal = &s.journal
	server, err := simulate.NewBluesky(o)
	must(t, err)
	s.server = server
	serving, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- simulate.Serve(serving, s.ln, server) }()
	s.stop = func() {
		cancel()
		must(t, <-served)
	}
	return s
}

// run runs a client for a while.
func (s *stage) run(for_ time.Duration, o Options) live.Stats {
	s.t.Helper()
	o.URL, o.StateFile, o.HTTPClient = "ws://jetstream", s.state, s.ln.client()
	c, err := New(o)
	must(s.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- c.Run(ctx) }()
	time.Sleep(for_)
	stats := c.Stats()
	begin := time.Now()
	cancel()
	must(s.t, <-ran)
	if took := time.Since(begin); took > 3*time.Second {
		s.t.Errorf("the client took %s to stop", took)
	}
	return stats
}

// posted are the message ids of the posts' events that were made, oldest first.
func (s *stage) posted() (ids []string) {
	lines := bufio.NewScanner(bytes.NewReader(s.journal.Bytes()))
	for lines.Scan() {
		var v struct{ DID, Rkey, Rev string }
		must(s.t, json.Unmarshal(lines.Bytes(), &v))
		ids = append(ids, "bluesky-"+v.DID+"/"+Posts+"/"+v.Rkey+"/"+v.Rev)
	}
	return ids
}

// missing counts the events of posts, from the first that arrived on, that did not arrive, but for those of the last
// moment.
func missing(m *memory, posted []string) (n int) {
	first := 0
	for first < len(posted) && m.ids[posted[first]] == 0 {
		first++
	}
	last := len(posted)
	for last > first && m.ids[posted[last-1]] == 0 {
		last--
	}
	if last-1 > first && m.ids[posted[last-2]] == 0 { // overtaken by the last, and on its way when the client was stopped
		last -= 2
	}
	for _, id := range posted[first:last] {
		if m.ids[id] == 0 {
			n++
		}
	}
	return n
}

// Whatever the server does, each event of a post arrives once: it is replayed from the cursor, and what is replayed is
// known.
func TestEveryPostArrivesOnceWhateverTheServerDoes(t *testing.T) {
	for name, f := range map[string]simulate.BlueskyFaults{
		"nothing":                             {},
		"cuts":                                {DropEvery: 900},
		"half-open":                           {HalfOpenEvery: 1500},
		"cuts before the overlap is repeated": {DropEvery: 150, SwapEvery: 11},
		"replays":                             {ReplayEvery: 7, SwapEvery: 11},
		"noise":                               {MalformedEvery: 17, UnknownEvery: 13},
		"all":                                 {DropEvery: 901, HalfOpenEvery: 1511, ReplayEvery: 53, SwapEvery: 71, MalformedEvery: 211, UnknownEvery: 97, Refuse: simulate.Refusals{503, 429, 502}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, simulate.BlueskyOptions{Seed: 3, Rate: 50, Faults: f})
				sink := &memory{}
				stats := s.run(3*time.Minute, Options{Sink: sink})
				s.stop()
				if n := missing(sink, s.posted()); n > 0 || stats.Events < 2500 {
					t.Errorf("%d events, %d missing", stats.Events, n)
				}
				for id, n := range sink.ids {
					if n > 1 {
						t.Fatalf("%s was published %d times", id, n)
					}
				}
				if f.DropEvery > 0 && stats.Reconnects < 3 || f.HalfOpenEvery > 0 && stats.Reconnects < 1 || name == "nothing" && stats.Reconnects != 0 {
					t.Errorf("%d reconnects", stats.Reconnects)
				}
				if (f.DropEvery > 0 || f.ReplayEvery > 0) && stats.Duplicates == 0 {
					t.Error("no duplicates")
				}
				if (stats.Malformed > 0) != (f.MalformedEvery > 0) || (stats.IgnoredKinds["sync"] > 0) != (f.UnknownEvery > 0) || stats.IgnoredKinds["identity"] == 0 || stats.IgnoredKinds["account"] == 0 {
					t.Errorf("%+v", stats)
				}
				if len(stats.Lost) > 0 || f.HalfOpenEvery == 0 && stats.Lag > time.Minute {
					t.Errorf("%+v", stats)
				}
			})
		})
	}
}

// A client that is stopped, or killed, goes on where its cursor stands.
func TestCursorOutlivesTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, simulate.BlueskyOptions{Seed: 3, Rate: 20})
		sink := &memory{}
		for range 5 {
			s.run(time.Minute, Options{Sink: sink})
			time.Sleep(2 * time.Minute)
		}
		stats := s.run(2*time.Minute, Options{Sink: sink})
		s.stop()
		if n := missing(sink, s.posted()); n > 0 || len(stats.Lost) > 0 {
			t.Errorf("%d missing, %+v", n, stats)
		}
		// Each start resumes a little earlier, and the new process does not know what the old one published.
		twice := 0
		for _, n := range sink.ids {
			if n > 1 {
				twice++
			}
		}
		if twice == 0 || twice > 5*int(6*20) {
			t.Errorf("%d events came twice", twice)
		}
	})
}

// What was asked for before is not missed because more is asked for, or less.
func TestCursorOutlivesOtherCollections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, simulate.BlueskyOptions{Seed: 3, Rate: 20})
		sink := &memory{}
		for _, collections := range [][]string{nil, {Posts, "app.bsky.feed.like"}, {Posts}} {
			s.run(time.Minute, Options{Sink: sink, Collections: collections})
			time.Sleep(2 * time.Minute)
		}
		s.stop()
		if n := missing(sink, s.posted()); n > 0 {
			t.Errorf("%d missing", n)
		}
	})
}

// A process that dies in its first second leaves a cursor that brings all that it heard, and what came after, again.
func TestCursorIsThereBeforeTheFirstEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, simulate.BlueskyOptions{Seed: 3, Rate: 20})
		sink := &witness{state: s.state}
		s.run(time.Minute, Options{Sink: sink})
		s.stop()
		var first struct {
			TimeUS int64 `json:"time_us"`
		}
		must(t, json.Unmarshal([]byte(sink.first), &first))
		if sink.cursor.IsZero() || !sink.cursor.Before(time.UnixMicro(first.TimeUS)) || time.UnixMicro(first.TimeUS).Sub(sink.cursor) > time.Second {
			t.Errorf("the cursor is %s when the first post comes, of %s", sink.cursor, time.UnixMicro(first.TimeUS).UTC())
		}
	})
}

// witness notes what cursor stands on disk when the first message is handed over.
type witness struct {
	memory
	state, first string
	cursor       time.Time
}

func (w *witness) Publish(ctx context.Context, key []byte, id string, value []byte) error {
	if w.first == "" {
		w.first = string(value)
		s, err := live.Load(w.state, stateSource)
		if err != nil {
			return err
		}
		w.cursor = s.Cursor
	}
	return w.memory.Publish(ctx, key, id, value)
}

// The cursor on disk is never ahead of what the sink has made safe.
func TestCursorFollowsTheSink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, simulate.BlueskyOptions{Seed: 3, Rate: 20})
		sink := &stuck{}
		c, err := New(Options{URL: "ws://jetstream", StateFile: s.state, HTTPClient: s.ln.client(), Sink: sink})
		must(t, err)
		ctx, cancel := context.WithCancel(context.Background())
		ran := make(chan error, 1)
		go func() { ran <- c.Run(ctx) }()
		time.Sleep(time.Minute)
		if _, err := os.Stat(s.state); err == nil {
			t.Error("a cursor was saved though nothing is safe")
		}
		cancel()
		if err := <-ran; err == nil || !strings.Contains(err.Error(), "not safe") {
			t.Errorf("Run: %v", err)
		}
		s.stop()
	})
}

// stuck takes messages and never has them safe.
type stuck struct{ memory }

func (*stuck) Flush(context.Context) error { return errors.New("not safe") }

// A sink that has no room costs nothing but time.
func TestFullSinkLosesNothing(t *testing.T) {
	for room := 300; room < 304; room++ { // some events are overtaken by the one before which the room ends
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t, simulate.BlueskyOptions{Seed: 3, Rate: 20, Faults: simulate.BlueskyFaults{SwapEvery: 3}})
			sink := &memory{fail: live.ErrFull, room: room}
			time.AfterFunc(2*time.Minute, func() {
				sink.mu.Lock()
				sink.fail = nil
				sink.mu.Unlock()
			})
			stats := s.run(5*time.Minute, Options{Sink: sink})
			s.stop()
			if n := missing(sink, s.posted()); n > 0 || stats.Events < 3000 || len(stats.Dropped) > 0 {
				t.Errorf("room for %d: %d missing, %+v", room, n, stats)
			}
		})
	}
}

// A cursor that is older than what the server keeps is clamped without a word: the range is told, and kept.
func TestClampedCursorIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, simulate.BlueskyOptions{Seed: 3, Rate: 0.2})
		sink := &memory{}
		s.run(10*time.Minute, Options{Sink: sink})
		left := time.Now()
		time.Sleep(48 * time.Hour)
		stats := s.run(10*time.Minute, Options{Sink: sink})
		if len(stats.Lost) != 1 {
			t.Fatalf("lost: %+v", stats.Lost)
		}
		l := stats.Lost[0]
		if d := left.Sub(l.From); d < -time.Second || d > 10*time.Second {
			t.Errorf("lost from %s, the client ended at %s", l.From, left)
		}
		if d := l.To.Sub(l.From); d < 11*time.Hour+50*time.Minute || d > 12*time.Hour+10*time.Minute || !strings.Contains(l.Reason, "48h") {
			t.Errorf("lost: %s, %s", d, l.Reason)
		}
		// Within what the server keeps nothing is lost, and what was lost stays on record.
		time.Sleep(30 * time.Hour)
		if stats := s.run(10*time.Minute, Options{Sink: sink}); len(stats.Lost) != 0 {
			t.Errorf("lost: %+v", stats.Lost)
		}
		s.stop()
		state, err := live.Load(s.state, stateSource)
		must(t, err)
		if len(state.Lost) != 1 || !state.Lost[0].To.Equal(l.To) {
			t.Errorf("on record: %+v", state)
		}
	})
}

func TestSilentConnectionIsAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, simulate.BlueskyOptions{Seed: 3, Rate: 0.001, PingEvery: 24 * time.Hour})
		stats := s.run(time.Hour, Options{Sink: &memory{}})
		s.stop()
		if stats.Reconnects != 0 || !stats.Connected {
			t.Errorf("%+v: the client's own pings keep it alive", stats)
		}
	})
}

func TestCompressedFrames(t *testing.T) {
	samples := [][]byte{}
	for i := range 64 {
		samples = append(samples, fmt.Appendf(nil, `{"did":"did:plc:%x","time_us":%d,"kind":"commit","commit":{"rev":"3","operation":"create","collection":"app.bsky.feed.post","rkey":"%[1]x"`, i*7919, i*104729))
	}
	dict, err := zstd.BuildDict(zstd.BuildDictOptions{ID: 7, Contents: samples, History: bytes.Join(samples[:8], nil), Offsets: [3]int{1, 4, 8}})
	must(t, err)
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, simulate.BlueskyOptions{Seed: 3, Rate: 20, Dictionary: dict})
		sink := &memory{}
		stats := s.run(time.Minute, Options{Sink: sink, Dictionary: dict})
		s.stop()
		if n := missing(sink, s.posted()); n > 0 || stats.Events < 600 || stats.Malformed > 0 || !strings.HasPrefix(sink.values[0], `{"did":`) {
			t.Errorf("%d missing, %+v", n, stats)
		}
	})
}

// All 152 recorded events are sent: each event of a post is published as it is, the others are counted by kind.
func TestRecordedEvents(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(prereq.Need(t, "shared"), "realdata", "bluesky_jetstream_v1_expected.jsonl"))
	must(t, err)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		up := websocket.Upgrader{}
		ws, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer ws.Close()
		for line := range strings.Lines(string(text)) {
			if ws.WriteMessage(websocket.TextMessage, []byte(strings.TrimSpace(line))) != nil {
				return
			}
		}
		_, _, _ = ws.ReadMessage()
	}))
	defer srv.Close()
	sink := &memory{}
	c, err := New(Options{URL: srv.URL, Sink: sink})
	must(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	ran := make(chan error, 1)
	go func() { ran <- c.Run(ctx) }()
	for s := c.Stats(); s.Events+s.Ignored < 152 && ctx.Err() == nil; s = c.Stats() {
		time.Sleep(5 * time.Millisecond)
	}
	cancel()
	must(t, <-ran)
	s := c.Stats()
	want := map[string]int64{
		"app.bsky.feed.like": 105, "app.bsky.feed.repost": 15, "app.bsky.graph.follow": 9, "fm.teal.alpha.actor.status": 1,
		"app.bsky.graph.block": 1, "app.bsky.actor.status": 1, "identity": 1, "account": 1,
	}
	if s.Events != 18 || s.Malformed != 0 || !maps.Equal(s.IgnoredKinds, want) {
		t.Errorf("%+v", s)
	}
	for i, v := range sink.values {
		if !strings.Contains(string(text), v+"\n") || !strings.Contains(v, sink.keys[i][strings.LastIndex(sink.keys[i], "/")+1:]) {
			t.Errorf("%s of %s was not sent so", v, sink.keys[i])
		}
	}
}

func TestRefusals(t *testing.T) {
	server, err := simulate.NewBluesky(simulate.BlueskyOptions{Faults: simulate.BlueskyFaults{Refuse: simulate.Refusals{http.StatusForbidden}}})
	must(t, err)
	srv := httptest.NewServer(server.Handler())
	defer srv.Close()
	defer server.Close()
	c, err := New(Options{URL: srv.URL, Sink: &memory{}})
	must(t, err)
	if err := c.Run(context.Background()); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "403") {
		t.Errorf("got %v", err)
	}
	full := errors.New("no space")
	if c, err = New(Options{URL: srv.URL, Sink: &memory{fail: full}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	go func() { _ = server.Run(ctx) }()
	if err := c.Run(ctx); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
}

func TestOptions(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want string // the address, or a part of the error
	}{
		{Options{}, "wss://jetstream2.us-east.bsky.network/subscribe?wantedCollections=app.bsky.feed.post"},
		{Options{URL: "http://h:1", Collections: []string{"app.bsky.graph.*", Posts}}, "ws://h:1/subscribe?wantedCollections=app.bsky.graph.%2A&wantedCollections=app.bsky.feed.post"},
		{Options{URL: "ws://h/x/subscribe?maxMessageSizeBytes=9"}, "ws://h/x/subscribe?maxMessageSizeBytes=9&wantedCollections=app.bsky.feed.post"},
		{Options{URL: "ws://h/subscribe?cursor=1"}, "cursor"},
		{Options{URL: "ftp://h"}, "does not begin"},
		{Options{Collections: []string{"posts"}}, `"posts" is no collection`},
		{Options{Collections: make([]string, 101)}, "101 collections"},
		{Options{Dictionary: []byte("x")}, "dictionary"},
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
	if _, err := New(Options{}); err == nil {
		t.Error("no sink was taken")
	}
}

// An event whose time lies in the future must not become the cursor: the server would take it for none.
func TestTimeInTheFutureIsNoCursor(t *testing.T) {
	c, err := New(Options{Sink: &memory{}})
	must(t, err)
	now := time.Now().UnixMicro()
	c.handled(now)
	c.handled(now + time.Hour.Microseconds())
	if got := c.newest.Load(); got != now {
		t.Errorf("cursor %d, want %d", got, now)
	}
}

// A machine whose clock is slow has a cursor all the same: without one, what comes while no connection stands would be missing.
func TestSlowClockHasACursor(t *testing.T) {
	c, err := New(Options{Sink: &memory{}, StateFile: filepath.Join(t.TempDir(), "state.json")})
	must(t, err)
	now := time.Now().UnixMicro()
	s := &session{c: c}
	must(t, s.take(t.Context(), true, fmt.Appendf(nil, `{"did":"did:plc:a","time_us":%d,"kind":"identity"}`, now+time.Hour.Microseconds())))
	state, err := live.Load(c.o.StateFile, stateSource)
	must(t, err)
	if got := state.Cursor.UnixMicro(); got < now || got > now+time.Minute.Microseconds() {
		t.Errorf("the cursor is %s", state.Cursor)
	}
}

func FuzzTake(f *testing.F) {
	for _, s := range []string{
		`{"did":"did:plc:a","time_us":1,"kind":"commit","commit":{"rev":"3","operation":"create","collection":"app.bsky.feed.post","rkey":"k","record":{}}}`,
		`{"did":"did:plc:a","time_us":1,"kind":"commit","commit":{"rev":"3","operation":"delete","collection":"app.bsky.feed.post","rkey":"k"}}`,
		`{"did":"did:plc:a","time_us":1,"kind":"identity","identity":{}}`, `{"time_us":-1,"kind":"commit"}`, `{"kind":"commit","time_us":1,"commit":null}`, `[]`, `{"time_us":1e99}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, frame string) {
		sink := &memory{}
		c, err := New(Options{Sink: sink})
		must(t, err)
		s := &session{c: c}
		must(t, s.take(context.Background(), true, []byte(frame)))
		if st := c.Stats(); st.Events+st.Malformed+st.Ignored != 1 || st.Events+st.Malformed != int64(len(sink.values)) {
			t.Fatalf("%+v, %d published", st, len(sink.values))
		}
	})
}
