package cloudtest

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Effect is what a Proxy does to a request.
type Effect int

// The effects.
const (
	SlowDown    Effect = iota // 503 SlowDown, and nothing is done
	FailAfter                 // the server does its work, and the answer is 500
	ResetBefore               // the connection is reset before the server hears of it
	ResetAfter                // the server does its work, and the connection is reset instead of an answer
	CutBody                   // half of the answer's body comes, then a reset
	Expired                   // 400 ExpiredToken, as when temporary credentials have run out
	StaleList                 // a listing is answered as it was when it was last asked for
	Slow                      // everything works, 200 ms later
	Hang                      // the server does not hear of it, and nothing answers until the client goes
)

// Rule is a fault of a Proxy.
type Rule struct {
	Method string // "" matches every one
	Path   string // part of path and query that must occur; "" matches every one
	Nth    int    // the n-th matching request from 1; 0: every one
	Times  int    // how many from the n-th on; 0: one, if Nth is set
	Effect Effect

	seen int
}

// Request is one that came through a Proxy.
type Request struct {
	Method, Path, Query string
}

// Proxy stands before a server and fails. It speaks enough of S3 and GCS to fail in their words.
type Proxy struct {
	URL string

	backend string
	srv     *httptest.Server
	next    *http.Transport

	mu       sync.Mutex
	rules    []*Rule
	random   *rand.Rand
	rate     float64
	effects  []Effect
	requests []Request
	injected map[Effect]int
	lists    map[string]*answer
	drop     string
}

// answer is a whole answer of the server.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// NewProxy starts a proxy before the server at a URL ("http://host:port").
func NewProxy(t testing.TB, backend string) *Proxy {
	t.Helper()
	p := &Proxy{
		backend: strings.TrimPrefix(backend, "http://"), next: &http.Transport{MaxIdleConnsPerHost: 100}, injected: map[Effect]int{}, lists: map[string]*answer{},
	}
	p.srv = httptest.NewServer(p)
	p.URL = p.srv.URL
	t.Cleanup(func() { p.srv.CloseClientConnections(); p.srv.Close(); p.next.CloseIdleConnections() })
	return p
}

// Host is host:port of the proxy.
func (p *Proxy) Host() string { return strings.TrimPrefix(p.URL, "http://") }

// Add adds rules behind those there are; the first that matches a request decides.
func (p *Proxy) Add(rules ...Rule) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range rules {
		p.rules = append(p.rules, &r)
	}
}

// Random lets a part of all requests, from 0 to 1, suffer one of the effects.
func (p *Proxy) Random(r *rand.Rand, rate float64, effects ...Effect) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.random, p.rate, p.effects = r, rate, effects
}

// Clear removes all faults and forgets the requests.
func (p *Proxy) Clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules, p.random, p.requests, p.injected = nil, nil, nil, map[Effect]int{}
}

// DropParameter lets a parameter of requests get lost on the way, as with a server that does not know it.
func (p *Proxy) DropParameter(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop = name
}

// Requests are those that came since Clear.
func (p *Proxy) Requests() []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Request(nil), p.requests...)
}

// Injected is how often each effect struck.
func (p *Proxy) Injected() map[Effect]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[Effect]int{}
	for k, v := range p.injected {
		out[k] = v
	}
	return out
}

// decide finds what happens to a request; -1: nothing.
func (p *Proxy) decide(r *http.Request) Effect {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests = append(p.requests, Request{r.Method, r.URL.Path, r.URL.RawQuery})
	effect := Effect(-1)
	for _, rule := range p.rules {
		if rule.Method != "" && rule.Method != r.Method || !strings.Contains(r.URL.Path+"?"+r.URL.RawQuery, rule.Path) {
			continue
		}
		rule.seen++
		times := max(rule.Times, 1)
		if rule.Nth == 0 || rule.seen >= rule.Nth && rule.seen < rule.Nth+times {
			effect = rule.Effect
			break
		}
	}
	if effect < 0 && p.random != nil && p.random.Float64() < p.rate {
		effect = p.effects[p.random.IntN(len(p.effects))]
	}
	if effect >= 0 {
		p.injected[effect]++
	}
	return effect
}

func isList(r *http.Request) bool {
	return r.Method == http.MethodGet && (r.URL.Query().Has("list-type") || strings.HasSuffix(r.URL.Path, "/o"))
}

// ServeHTTP passes a request on, or not.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	effect := p.decide(r)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	switch effect {
	case SlowDown:
		fail(w, http.StatusServiceUnavailable, "SlowDown", "Please reduce your request rate.")
		return
	case Expired:
		fail(w, http.StatusBadRequest, "ExpiredToken", "The provided token has expired.")
		return
	case ResetBefore:
		reset(w, nil)
		return
	case Hang:
		<-r.Context().Done()
		return
	case Slow:
		time.Sleep(200 * time.Millisecond)
	case StaleList:
		p.mu.Lock()
		old := p.lists[r.URL.String()]
		p.mu.Unlock()
		if old != nil {
			old.write(w)
			return
		}
	}
	a, err := p.forward(r, body)
	if err != nil {
		reset(w, nil)
		return
	}
	switch effect {
	case FailAfter:
		fail(w, http.StatusInternalServerError, "InternalError", "We encountered an internal error. Please try again.")
		return
	case ResetAfter:
		reset(w, nil)
		return
	case CutBody:
		reset(w, a)
		return
	}
	if isList(r) {
		p.mu.Lock()
		p.lists[r.URL.String()] = a
		p.mu.Unlock()
	}
	a.write(w)
}

func (p *Proxy) forward(r *http.Request, body []byte) (*answer, error) {
	out := r.Clone(r.Context())
	out.URL.Scheme, out.URL.Host, out.RequestURI = "http", p.backend, ""
	out.Host, out.Body, out.ContentLength = p.backend, io.NopCloser(bytes.NewReader(body)), int64(len(body))
	if strings.HasPrefix(r.Header.Get("Authorization"), "AWS4") {
		out.Host = r.Host // the signature covers the name by which the client knows the server
	}
	p.mu.Lock()
	if p.drop != "" {
		q := out.URL.Query()
		q.Del(p.drop)
		out.URL.RawQuery = q.Encode()
	}
	p.mu.Unlock()
	if len(body) == 0 {
		out.Body = http.NoBody
	}
	resp, err := p.next.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if l := resp.Header.Get("Location"); l != "" {
		resp.Header.Set("Location", strings.Replace(l, p.backend, r.Host, 1))
	}
	return &answer{resp.StatusCode, resp.Header, b}, nil
}

func (a *answer) head(w http.Header) {
	for k, v := range a.header {
		w[k] = v
	}
	if a.header.Get("Content-Length") == "" {
		w.Set("Content-Length", strconv.Itoa(len(a.body)))
	}
}

func (a *answer) write(w http.ResponseWriter) {
	a.head(w.Header())
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body)
}

func fail(w http.ResponseWriter, status int, code, msg string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>`+code+`</Code><Message>`+msg+`</Message><RequestId>1</RequestId></Error>`)
}

// reset ends a connection, after half of an answer if there is one.
func reset(w http.ResponseWriter, a *answer) {
	if a != nil {
		a.head(w.Header())
		w.WriteHeader(a.status)
		_, _ = w.Write(a.body[:len(a.body)/2])
		_ = http.NewResponseController(w).Flush()
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok && a == nil {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}
