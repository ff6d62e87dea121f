package x

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cauce-data/cauce/connect/simulate"
	"github.com/cauce-data/cauce/internal/live"
)

const token = "AAAAtoken%3D"

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// memory is a Sink that counts what it gets by id.
type memory struct {
	mu     sync.Mutex
	ids    map[string]int
	values []string
	keys   []string
	fail   error
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
	m.ids[id]++
	m.values, m.keys = append(m.values, string(value)), append(m.keys, string(key))
	return nil
}

func (m *memory) Flush(context.Context) error { return nil }

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

// run runs a client on a handler for a while, inside a bubble.
func run(t *testing.T, ln *pipes, state string, for_ time.Duration, o Options) live.Stats {
	t.Helper()
	o.URL, o.Token, o.StateFile, o.HTTPClient = "http://x", token, state, ln.client()
	c, err := New(o)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- c.Run(ctx) }()
	time.Sleep(for_)
	stats := c.Stats()
	begin := time.Now()
	cancel()
	must(t, <-ran)
	if took := time.Since(begin); took > time.Second {
		t.Errorf("the client took %s to stop", took)
	}
	return stats
}

// play runs a simulated X inside a bubble until stop is called.
func play(t *testing.T, o simulate.XOptions, journal *bytes.Buffer) (ln *pipes, stop func()) {
	t.Helper()
	o.Token, o.Journal = token, journal
	if o.Rules == nil {
		o.Rules = []string{"*"}
	}
	x, err := simulate.NewX(o)
	must(t, err)
	ln = &pipes{make(chan net.Conn), make(chan struct{})}
	serving, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- simulate.Serve(serving, ln, x) }()
	return ln, func() {
		cancel()
		must(t, <-served)
	}
}

// missing are the posts between the first and the last that arrived that did not.
func missing(t *testing.T, m *memory, journal []byte) (at []time.Time) {
	t.Helper()
	type post struct {
		ID      string    `json:"id"`
		Created time.Time `json:"created_at"`
	}
	var all []post
	lines := bufio.NewScanner(bytes.NewReader(journal))
	for lines.Scan() {
		var p post
		must(t, json.Unmarshal(lines.Bytes(), &p))
		all = append(all, p)
	}
	has := func(p post) bool { return m.ids["x-"+p.ID] > 0 }
	first, last := slices.IndexFunc(all, has), len(all)
	for last > 0 && !has(all[last-1]) {
		last--
	}
	for _, p := range all[max(first, 0):last] {
		if !has(p) {
			at = append(at, p.Created)
		}
	}
	return at
}

// Whatever the stream does, with backfill every post arrives once.
func TestEveryPostArrivesOnceWhateverTheStreamDoes(t *testing.T) {
	for name, f := range map[string]simulate.XFaults{
		"nothing":     {},
		"cuts":        {DropEvery: 400},
		"half-open":   {HalfOpenEvery: 500},
		"disconnects": {DisconnectEvery: 601},
		"noise":       {ReplayEvery: 7, MalformedEvery: 17, UnknownEvery: 13},
		"all":         {DropEvery: 701, HalfOpenEvery: 811, DisconnectEvery: 607, ReplayEvery: 53, MalformedEvery: 97, UnknownEvery: 89, Refuse: simulate.Refusals{503, 500}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var journal bytes.Buffer
				ln, stop := play(t, simulate.XOptions{Seed: 3, Rate: 5, Faults: f}, &journal)
				sink := &memory{}
				stats := run(t, ln, "", 10*time.Minute, Options{Sink: sink, BackfillMinutes: 5})
				stop()
				if lost := missing(t, sink, journal.Bytes()); len(lost) > 0 || stats.Events < 2000 || len(stats.Lost) > 0 {
					t.Errorf("%d events, %d missing, told lost: %v", stats.Events, len(lost), stats.Lost)
				}
				for id, n := range sink.ids {
					if n > 1 {
						t.Fatalf("%s was published %d times", id, n)
					}
				}
				if (name == "nothing" || name == "noise") != (stats.Reconnects == 0) {
					t.Errorf("%d reconnects", stats.Reconnects)
				}
				if name != "nothing" && stats.Duplicates == 0 {
					t.Error("no duplicates")
				}
				if (stats.Malformed > 0) != (f.MalformedEvery > 0) || (stats.IgnoredKinds["notice"] > 0) != (f.UnknownEvery > 0) {
					t.Errorf("%+v", stats)
				}
			})
		})
	}
}

// What did not come, and cannot come any more, is told: every missing post lies in a range that is.
func TestWhatIsLostIsTold(t *testing.T) {
	for _, backfill := range []int{0, 5} {
		synctest.Test(t, func(t *testing.T) {
			var journal bytes.Buffer
			ln, stop := play(t, simulate.XOptions{Seed: 3, Rate: 5, Faults: simulate.XFaults{DropEvery: 500, HalfOpenEvery: 811}}, &journal)
			sink := &memory{}
			state := filepath.Join(t.TempDir(), "state.json")
			lost := run(t, ln, state, 5*time.Minute, Options{Sink: sink, BackfillMinutes: backfill}).Lost
			time.Sleep(12 * time.Minute)
			lost = append(lost, run(t, ln, state, 5*time.Minute, Options{Sink: sink, BackfillMinutes: backfill}).Lost...)
			stop()
			gone := missing(t, sink, journal.Bytes())
			for _, at := range gone {
				if !slices.ContainsFunc(lost, func(l live.Lost) bool {
					return !at.Before(l.From.Add(-2*time.Second)) && !at.After(l.To.Add(2*time.Second))
				}) {
					t.Fatalf("the post of %s is missing, and nobody tells: %v", at, lost)
				}
			}
			if len(gone) < 7*60*5 || backfill == 5 && (len(lost) != 1 || lost[0].To.Sub(lost[0].From) < 6*time.Minute || lost[0].To.Sub(lost[0].From) > 8*time.Minute) {
				t.Errorf("%d posts are missing, told: %v", len(gone), lost)
			}
			s, err := live.Load(state, "x http://x")
			must(t, err)
			if len(s.Lost) != len(lost) {
				t.Errorf("on record are %v", s.Lost)
			}
		})
	}
}

// A process that dies in its first second has noted that it heard the stream: the next one asks for what it missed.
func TestStateIsThereBeforeTheFirstPost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var journal bytes.Buffer
		ln, stop := play(t, simulate.XOptions{Seed: 3, Rate: 5}, &journal)
		sink := &witness{state: filepath.Join(t.TempDir(), "state.json")}
		begin := time.Now()
		run(t, ln, sink.state, time.Minute, Options{Sink: sink, BackfillMinutes: 5})
		stop()
		if len(sink.ids) == 0 || sink.cursor.Before(begin) || sink.cursor.After(begin.Add(time.Second)) {
			t.Errorf("of %d posts, the first found the state of %s; the run began at %s", len(sink.ids), sink.cursor, begin)
		}
	})
}

// witness notes what state stands on disk when the first post is handed over.
type witness struct {
	memory
	state  string
	cursor time.Time
}

func (w *witness) Publish(ctx context.Context, key []byte, id string, value []byte) error {
	if len(w.ids) == 0 {
		s, err := live.Load(w.state, "x http://x")
		if err != nil {
			return err
		}
		w.cursor = s.Cursor
	}
	return w.memory.Publish(ctx, key, id, value)
}

// attempts answers every attempt with a status, until the context's end, and tells when they came.
func attempts(t *testing.T, for_ time.Duration, answer func(n int, w http.ResponseWriter)) (pauses []time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var at []time.Time
		ln := &pipes{make(chan net.Conn), make(chan struct{})}
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			at = append(at, time.Now())
			answer(len(at), w)
		})}
		go func() { _ = srv.Serve(ln) }()
		run(t, ln, "", for_, Options{Sink: &memory{}})
		must(t, srv.Close())
		for i := 1; i < len(at); i++ {
			pauses = append(pauses, at[i].Sub(at[i-1]))
		}
	})
	return pauses
}

// X's rules for reconnecting: the pause after each class of error, its growth and its bound.
func TestPausesAreThosePrescribed(t *testing.T) {
	reset := func(w http.ResponseWriter) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			_ = conn.Close()
		}
	}
	status := func(code int) func(int, http.ResponseWriter) {
		return func(_ int, w http.ResponseWriter) { w.WriteHeader(code) }
	}
	for name, c := range map[string]struct {
		answer func(int, http.ResponseWriter)
		for_   time.Duration
		want   func(n int) time.Duration // the n-th pause, from 1
		least  int
	}{
		"network": {func(_ int, w http.ResponseWriter) { reset(w) }, 20 * time.Minute,
			func(n int) time.Duration { return min(time.Duration(n)*250*time.Millisecond, 16*time.Second) }, 70},
		"503": {status(503), time.Hour, func(n int) time.Duration { return min(5*time.Second<<min(n-1, 9), 320*time.Second) }, 14},
		"429": {status(429), 2 * time.Hour, func(n int) time.Duration { return min(time.Minute<<min(n-1, 9), 16*time.Minute) }, 9},
		"429 until": {func(_ int, w http.ResponseWriter) {
			w.Header().Set("x-rate-limit-remaining", "0")
			w.Header().Set("x-rate-limit-reset", strconv.FormatInt(time.Now().Add(15*time.Minute).Unix(), 10))
			w.WriteHeader(http.StatusTooManyRequests)
		}, time.Hour, func(int) time.Duration { return 15 * time.Minute }, 3},
		"429 Retry-After": {func(_ int, w http.ResponseWriter) {
			w.Header().Set("Retry-After", "1000")
			w.WriteHeader(http.StatusTooManyRequests)
		}, time.Hour, func(int) time.Duration { return 1000 * time.Second }, 3},
		// A post in between begins anew.
		"ends after a post": {func(_ int, w http.ResponseWriter) {
			_, _ = w.Write([]byte(`{"data":{"id":"1"}}` + "\r\n"))
		}, time.Minute, func(int) time.Duration { return 250 * time.Millisecond }, 100},
	} {
		t.Run(name, func(t *testing.T) {
			pauses := attempts(t, c.for_, c.answer)
			if len(pauses) < c.least {
				t.Errorf("%d attempts: %v", len(pauses), pauses)
			}
			for i, p := range pauses {
				want := c.want(i + 1)
				// Never less; at most a tenth and a moment more. What names a second names its beginning.
				if p < want-time.Second*time.Duration(min(1, strings.Count(name, "until"))) || p > want*11/10+2*time.Second {
					t.Fatalf("pause %d is %s, prescribed are %s", i+1, p, want)
				}
			}
		})
	}
}

// A stream without its keep-alives is dead, one with them alive, however few posts come.
func TestKeepAlive(t *testing.T) {
	for every, want := range map[time.Duration]int64{20 * time.Second: 0, 10 * time.Minute: 60} {
		synctest.Test(t, func(t *testing.T) {
			var journal bytes.Buffer
			ln, stop := play(t, simulate.XOptions{Rate: 0.0001, KeepAlive: every}, &journal)
			stats := run(t, ln, "", time.Hour, Options{Sink: &memory{}})
			stop()
			if stats.Reconnects < want || want == 0 && stats.Reconnects > 0 {
				t.Errorf("keep-alive every %s: %d reconnects", every, stats.Reconnects)
			}
		})
	}
}

func TestRefusalsAreClearAndHideTheToken(t *testing.T) {
	var log bytes.Buffer
	for code, want := range map[int]struct {
		is   error
		text string
	}{
		401: {ErrToken, "make a new one"}, 403: {ErrRefused, "may not read the filtered stream"}, 400: {ErrRefused, "(400)"}, 404: {ErrRefused, "(404)"},
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(code)
			fmt.Fprintf(w, `{"title":"No","detail":"you sent %s"}`, r.Header.Get("Authorization"))
		}))
		c, err := New(Options{URL: srv.URL, Token: token, Sink: &memory{}, Log: slog.New(slog.NewTextHandler(&log, nil))})
		must(t, err)
		err = c.Run(context.Background())
		if !errors.Is(err, want.is) || !strings.Contains(err.Error(), want.text) || !strings.Contains(err.Error(), "No: you sent Bearer …") {
			t.Errorf("%d: %v", code, err)
		}
		if strings.Contains(err.Error()+log.String(), token) {
			t.Errorf("%d: the token is shown: %v %s", code, err, log.String())
		}
		if _, err := c.Rules(context.Background()); !errors.Is(err, want.is) || strings.Contains(err.Error(), token) {
			t.Errorf("%d: %v", code, err)
		}
		srv.Close()
	}
	e := &statusError{status: 503, text: "t", until: time.Unix(1e9, 0)}
	if got := e.Error(); !strings.Contains(got, "503 Service Unavailable") || !strings.Contains(got, "2001-09-09T01:46:40Z") {
		t.Errorf("got %s", got)
	}
	full := errors.New("no space")
	x, err := simulate.NewX(simulate.XOptions{Token: token, Rules: []string{"*"}})
	must(t, err)
	srv := httptest.NewServer(x.Handler())
	defer srv.Close()
	defer x.Close()
	c, err := New(Options{URL: srv.URL, Token: token, Sink: &memory{fail: full}})
	must(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	go func() { _ = x.Run(ctx) }()
	if err := c.Run(ctx); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
}

// A sink without room does not stop the stream: what was dropped is counted and named.
func TestDroppedPostsAreNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var journal bytes.Buffer
		ln, stop := play(t, simulate.XOptions{Seed: 3, Rate: 5}, &journal)
		stats := run(t, ln, "", time.Minute, Options{Sink: &memory{fail: fmt.Errorf("disk: %w", live.ErrFull)}})
		stop()
		if len(stats.Dropped) != 1 || stats.Dropped[0].Events < 250 || stats.Dropped[0].First == stats.Dropped[0].Last || stats.Events != 0 || stats.Reconnects != 0 {
			t.Errorf("%+v", stats)
		}
	})
}

func TestRules(t *testing.T) {
	x, err := simulate.NewX(simulate.XOptions{Token: token, Seed: 5})
	must(t, err)
	srv := httptest.NewServer(x.Handler())
	defer srv.Close()
	defer x.Close()
	sink := &memory{}
	c, err := New(Options{URL: srv.URL + "/", Token: token, Sink: sink})
	must(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if r, err := c.Rules(ctx); err != nil || len(r) != 0 {
		t.Fatalf("%v, %v", r, err)
	}
	added, err := c.AddRules(ctx, []Rule{{Value: "bitcoin lang:en", Tag: "btc"}, {Value: "mercado"}})
	if err != nil || len(added) != 2 || added[0].ID == "" || added[0].Tag != "btc" {
		t.Fatalf("%v, %v", added, err)
	}
	if again, err := c.AddRules(ctx, []Rule{{Value: "mercado"}}); err != nil || len(again) != 0 {
		t.Errorf("a rule that is there already: %v, %v", again, err)
	}
	if _, err := c.AddRules(ctx, []Rule{{Value: "new"}, {Value: `"`}}); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), `"\""`) {
		t.Errorf("a rule that X does not understand: %v", err)
	}
	list, err := c.Rules(ctx)
	if err != nil || len(list) != 2 {
		t.Errorf("%v, %v", list, err)
	}
	ran := make(chan error, 1)
	go func() { ran <- c.Run(ctx) }()
	for !c.Stats().Connected && ctx.Err() == nil {
		time.Sleep(5 * time.Millisecond)
	}
	must(t, x.Step(500))
	for c.Stats().Events < 50 && ctx.Err() == nil {
		time.Sleep(5 * time.Millisecond)
	}
	cancel()
	must(t, <-ran)
	for i, v := range sink.values {
		if !strings.Contains(v, "mercado") && !(strings.Contains(v, "bitcoin") && strings.Contains(v, `"lang":"en"`)) || !strings.Contains(v, `"edit_history_tweet_ids":["`+sink.keys[i]+`"`) {
			t.Fatalf("no rule, or another key than %s: %s", sink.keys[i], v)
		}
	}
	if n, err := c.DeleteRules(context.Background(), []string{added[0].ID}); err != nil || n != 1 {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := c.DeleteRules(context.Background(), []string{"7"}); !errors.Is(err, ErrRefused) {
		t.Errorf("a rule that is not there: %v", err)
	}
}

func TestOptions(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{}, "there is none"},
		{Options{Token: "a\nb"}, "line ends"},
		{Options{Token: "a", BackfillMinutes: 6}, "6 minutes"},
		{Options{Token: "a", URL: "ws://h"}, "does not begin"},
		{Options{Token: "a", URL: "http://api.example.com"}, "without encryption"},
		{Options{Token: "a", URL: "http://127.0.0.1:9"}, ""},
		{Options{Token: "a"}, ""},
	} {
		_, err := New(c.o)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.o, err)
		}
	}
}

func FuzzTake(f *testing.F) {
	for _, s := range []string{
		`{"data":{"id":"1","text":"a","edit_history_tweet_ids":["1"]}}`, `{"data":{}}`, `{"data":null}`, `{"errors":[{"title":"x","disconnect_type":"y"}]}`, `{"errors":[]}`, `[]`, `{"data":{"id":1}}`, `{}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		sink := &memory{}
		c, err := New(Options{Token: token, Sink: sink})
		must(t, err)
		_, err = c.take(context.Background(), []byte(line))
		if st := c.Stats(); err == nil && st.Events+st.Malformed+st.Ignored != 1 || st.Events+st.Malformed != int64(len(sink.values)) {
			t.Fatalf("%+v, %d published, %v", st, len(sink.values), err)
		}
	})
}
