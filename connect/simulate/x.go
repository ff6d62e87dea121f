package simulate

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// XOptions configure an X. The zero value of each field means the default that stands beside it.
type XOptions struct {
	Seed    uint64
	Rate    float64   // posts a second; 20
	Count   int64     // Run ends after so many posts; 0: never
	Start   time.Time // time of the first post; now
	Token   string    // the bearer token that is taken; mandatory
	Rules   []string  // values of the rules that there are in the beginning
	Journal io.Writer // gets a JSON object a line for each post: id, first (of its edits), author_id, username, created_at, text, lang
	// KeepAlive is how often a line break is sent while there is nothing else; 20 s.
	KeepAlive time.Duration
	Faults    XFaults
	Log       *slog.Logger // nil: silent
}

// XFaults says how the stream misbehaves: each …Every after how many posts of a connection it does so again; 0 never.
type XFaults struct {
	DropEvery       int // cuts the TCP connection
	HalfOpenEvery   int // falls silent without closing anything, keep-alives included
	DisconnectEvery int // says that it ends for operational reasons, and ends
	ReplayEvery     int // sends the last 20 posts again
	MalformedEvery  int // sends a line that is no JSON
	UnknownEvery    int // sends a message of a kind that no client knows
	Refuse          Refusals
}

// xWindow is the window of the limits that 429 tells of.
const xWindow = 15 * time.Minute

// xPost is one post.
type xPost struct {
	id, first, author int64
	at                time.Time
	text, lang        string
}

// xRule is a rule of the account.
type xRule struct {
	ID    string `json:"id"`
	Value string `json:"value"`
	Tag   string `json:"tag,omitempty"`
}

// X is the filtered stream of X, version 2, with its rules. It is safe for concurrent use.
type X struct {
	o XOptions

	mu       sync.Mutex
	rng      *rand.Rand
	posts    []xPost
	last     int64 // id of the newest post
	rules    []xRule
	ruleID   int64
	changed  chan struct{} // closed when there are more posts
	stop     chan struct{} // closed by Close
	streamed bool          // a connection stands
	closed   bool
	served   sync.WaitGroup
}

// NewX makes a stream that has no posts yet.
func NewX(o XOptions) (*X, error) {
	orDefault(&o.Rate, 20)
	if o.Rate < 0 || math.IsNaN(o.Rate) || o.Rate > 1e6 {
		return nil, fmt.Errorf("simulated X: rate %v is not between 0 and a million posts a second", o.Rate)
	}
	if o.Token == "" {
		return nil, fmt.Errorf("simulated X: no bearer token is given that it would take")
	}
	orDefault(&o.KeepAlive, 20*time.Second)
	if o.Start.IsZero() {
		o.Start = time.Now()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Faults.Refuse = slices.Clone(o.Faults.Refuse)
	x := &X{o: o, rng: rand.New(rand.NewPCG(o.Seed, 0x78)), ruleID: 1_600_000_000_000_000_000, changed: make(chan struct{}), stop: make(chan struct{})}
	for _, v := range o.Rules {
		x.ruleID++
		x.rules = append(x.rules, xRule{ID: strconv.FormatInt(x.ruleID, 10), Value: v})
	}
	return x, nil
}

// xEpoch is the time from which the ids of posts count milliseconds.
const xEpoch = 1288834974657

// one makes the next post: a new one, or now and then an edit of a recent one. The lock is held.
func (x *X) one() xPost {
	n := len(x.posts)
	at := x.o.Start.Add(time.Duration((float64(n) + x.rng.Float64()) * float64(time.Second) / x.o.Rate)).UTC().Truncate(time.Millisecond)
	p := xPost{at: at, author: 1000 + x.rng.Int64N(50)}
	p.id = max(x.last+1, (at.UnixMilli()-xEpoch)<<22|x.rng.Int64N(1<<22))
	x.last, p.first = p.id, p.id
	p.text, p.lang = phrase(x.rng)
	if p.lang == "" {
		p.lang = "und"
	}
	if n > 0 && x.rng.IntN(10) == 0 {
		old := x.posts[n-1-x.rng.IntN(min(n, 20))]
		p.first, p.author = old.first, old.author
	}
	x.posts = append(x.posts, p)
	return p
}

// Step makes n posts now and sends them to whoever listens.
func (x *X) Step(n int) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	var lines bytes.Buffer
	for range n {
		p := x.one()
		fmt.Fprintf(&lines, `{"id":"%d","first":"%d","author_id":"%d","username":"user%[3]d","created_at":"%s","text":%s,"lang":"%s"}`+"\n",
			p.id, p.first, p.author, p.at.Format(xTime), quoted(p.text), p.lang)
	}
	if x.o.Journal != nil {
		if _, err := x.o.Journal.Write(lines.Bytes()); err != nil {
			return fmt.Errorf("simulated X: journal: %w", err)
		}
	}
	close(x.changed)
	x.changed = make(chan struct{})
	return nil
}

const xTime = "2006-01-02T15:04:05.000Z"

// Made is how many posts there are.
func (x *X) Made() int64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return int64(len(x.posts))
}

// Run makes posts at the rate until the context ends, which is no error, or Count is reached.
func (x *X) Run(ctx context.Context) error { return pace(ctx, x.o.Rate, x.o.Count, x.Made, x.Step) }

// Close closes all connections; new ones are refused.
func (x *X) Close() {
	x.mu.Lock()
	if !x.closed {
		x.closed = true
		close(x.stop)
	}
	x.mu.Unlock()
	x.served.Wait()
}

// Handler serves the stream and its rules.
func (x *X) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /2/tweets/search/stream", x.guarded(x.stream))
	mux.HandleFunc("GET /2/tweets/search/stream/rules", x.guarded(x.listRules))
	mux.HandleFunc("POST /2/tweets/search/stream/rules", x.guarded(x.changeRules))
	return mux
}

// xProblem answers with an error in X's form.
func xProblem(w http.ResponseWriter, status int, title, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"title": title, "detail": detail, "type": "about:blank", "status": status}) // the client is gone, or it gets it
}

// guarded lets only the bearer of the token in.
func (x *X) guarded(do http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+x.o.Token {
			xProblem(w, http.StatusUnauthorized, "Unauthorized", "Unauthorized")
			return
		}
		do(w, r)
	}
}

func (x *X) listRules(w http.ResponseWriter, _ *http.Request) {
	x.mu.Lock()
	rules := slices.Clone(x.rules)
	x.mu.Unlock()
	v := map[string]any{"meta": map[string]any{"sent": time.Now().UTC().Format(xTime), "result_count": len(rules)}}
	if len(rules) > 0 {
		v["data"] = rules
	}
	w.Header().Set("Content-Type", "application/json")
	reply(w, http.StatusOK, v)
}

func (x *X) changeRules(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Add    []xRule `json:"add"`
		Delete *struct {
			IDs []string `json:"ids"`
		} `json:"delete"`
	}
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&q); err != nil || len(q.Add) == 0 == (q.Delete == nil) {
		xProblem(w, http.StatusBadRequest, "Invalid Request", "One or more parameters to your request was invalid.")
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	meta := map[string]any{"sent": time.Now().UTC().Format(xTime)}
	w.Header().Set("Content-Type", "application/json")
	if q.Delete != nil {
		before := len(x.rules)
		x.rules = slices.DeleteFunc(x.rules, func(r xRule) bool { return slices.Contains(q.Delete.IDs, r.ID) })
		deleted := before - len(x.rules)
		meta["summary"] = map[string]int{"deleted": deleted, "not_deleted": len(q.Delete.IDs) - deleted}
		v := map[string]any{"meta": meta}
		if deleted < len(q.Delete.IDs) {
			v["errors"] = []map[string]any{{"title": "Invalid Request", "detail": "Rule does not exist"}}
		}
		reply(w, http.StatusOK, v)
		return
	}
	var errs []map[string]any
	var added []xRule
	for _, a := range q.Add {
		switch {
		case slices.ContainsFunc(x.rules, func(r xRule) bool { return r.Value == a.Value }):
			errs = append(errs, map[string]any{"value": a.Value, "title": "DuplicateRule", "type": "https://api.twitter.com/2/problems/duplicate-rules"})
		case strings.TrimSpace(a.Value) == "" || strings.ContainsAny(a.Value, `()"`):
			errs = append(errs, map[string]any{"value": a.Value, "title": "UnprocessableEntity", "details": []string{"the simulated X knows words and lang: only"}, "type": "https://api.twitter.com/2/problems/invalid-rules"})
		default:
			x.ruleID++
			added = append(added, xRule{ID: strconv.FormatInt(x.ruleID, 10), Value: a.Value, Tag: a.Tag})
		}
	}
	if slices.ContainsFunc(errs, func(e map[string]any) bool { return e["title"] != "DuplicateRule" }) {
		added = nil // all or none
	}
	x.rules = append(x.rules, added...)
	meta["summary"] = map[string]int{"created": len(added), "not_created": len(q.Add) - len(added), "valid": len(added), "invalid": len(q.Add) - len(added)}
	v := map[string]any{"meta": meta}
	if added != nil {
		v["data"] = added
	}
	if errs != nil {
		v["errors"] = errs
	}
	reply(w, http.StatusCreated, v)
}

// matches tells which rules a post matches: all their words stand in its text, and its language is theirs.
func (x *X) matches(p xPost) (rules []xRule) {
	text := strings.ToLower(p.text)
	for _, r := range x.rules {
		if !slices.ContainsFunc(strings.Fields(strings.ToLower(r.Value)), func(word string) bool {
			if lang, ok := strings.CutPrefix(word, "lang:"); ok {
				return lang != p.lang
			}
			return word != "*" && !strings.Contains(text, word)
		}) {
			rules = append(rules, r)
		}
	}
	return rules
}

// xLine is a post as the stream sends it.
func xLine(p xPost, rules []xRule) []byte {
	edits := fmt.Sprintf(`"%d"`, p.first)
	if p.first != p.id {
		edits += fmt.Sprintf(`,"%d"`, p.id)
	}
	matching := make([]string, len(rules))
	for i, r := range rules {
		matching[i] = fmt.Sprintf(`{"id":"%s","tag":%s}`, r.ID, quoted(r.Tag))
	}
	return fmt.Appendf(nil, `{"data":{"author_id":"%d","created_at":"%s","edit_history_tweet_ids":[%s],"id":"%d","lang":"%s","text":%s},`+
		`"includes":{"users":[{"id":"%[1]d","name":"User %[1]d","username":"user%[1]d"}]},"matching_rules":[%[7]s]}`,
		p.author, p.at.Format(xTime), edits, p.id, p.lang, quoted(p.text), strings.Join(matching, ","))
}

func (x *X) stream(w http.ResponseWriter, r *http.Request) {
	x.mu.Lock()
	status := x.o.Faults.Refuse.next()
	busy := x.streamed
	if status == 0 && !busy {
		x.streamed = true
		x.served.Add(1)
		defer func() {
			x.mu.Lock()
			x.streamed = false
			x.mu.Unlock()
			x.served.Done()
		}()
	}
	at := len(x.posts)
	x.mu.Unlock()
	switch {
	case status == http.StatusTooManyRequests:
		w.Header().Set("x-rate-limit-limit", "50")
		w.Header().Set("x-rate-limit-remaining", "0")
		w.Header().Set("x-rate-limit-reset", strconv.FormatInt(time.Now().Add(xWindow).Unix(), 10))
		xProblem(w, status, "Too Many Requests", "Too Many Requests")
		return
	case status != 0:
		xProblem(w, status, http.StatusText(status), "the simulated X refuses this attempt")
		return
	case busy:
		xProblem(w, http.StatusTooManyRequests, "ConnectionException", "This stream is currently at the maximum allowed connection limit.")
		return
	}
	if v := r.URL.Query().Get("backfill_minutes"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 || n > 5 {
			xProblem(w, http.StatusBadRequest, "Invalid Request", "backfill_minutes must be between 0 and 5")
			return
		}
		from := time.Now().Add(-time.Duration(n) * time.Minute)
		x.mu.Lock()
		for at > 0 && !x.posts[at-1].at.Before(from) {
			at--
		}
		x.mu.Unlock()
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w)
	_ = flush.Flush() // an error shows at the next write
	err := x.send(r.Context(), w, flush, at)
	x.o.Log.Debug("simulated X: connection ends", "remote", r.RemoteAddr, "reason", err)
}

// send gives the client its posts, keep-alives and faults. at is the number of the first post.
func (x *X) send(ctx context.Context, w io.Writer, flush *http.ResponseController, at int) error {
	f := x.o.Faults
	quiet := time.NewTimer(x.o.KeepAlive)
	defer quiet.Stop()
	sent := 0
	silent := false
	var last [][]byte
	nth := func(every int) bool { return every > 0 && sent%every == 0 }
	for {
		x.mu.Lock()
		changed := x.changed
		batch := x.posts[at:min(at+256, len(x.posts))]
		var lines [][]byte
		for _, p := range batch {
			if rules := x.matches(p); len(rules) > 0 {
				lines = append(lines, xLine(p, rules))
			}
		}
		x.mu.Unlock()
		at += len(batch)
		for _, line := range lines {
			if silent {
				break
			}
			sent++
			out := [][]byte{line}
			if nth(f.MalformedEvery) {
				out = append(out, line[:len(line)/2])
			}
			if nth(f.UnknownEvery) {
				out = append(out, []byte(`{"notice":{"text":"of a kind that came later"}}`))
			}
			if nth(f.ReplayEvery) {
				out = append(out, last...)
			}
			for _, l := range out {
				if _, err := w.Write(append(slices.Clone(l), '\r', '\n')); err != nil {
					return err
				}
			}
			if last = append(last, line); len(last) > replayed {
				last = last[1:]
			}
			if nth(f.DropEvery) {
				_ = flush.Flush() // the cut follows in any case
				return cut(w)
			}
			if nth(f.DisconnectEvery) {
				_, err := io.WriteString(w, `{"errors":[{"title":"operational-disconnect","disconnect_type":"UpstreamOperationalDisconnect","detail":"This stream has been disconnected upstream for operational reasons.","type":"https://api.twitter.com/2/problems/operational-disconnect"}]}`+"\r\n")
				return err
			}
			silent = silent || nth(f.HalfOpenEvery)
		}
		if len(lines) > 0 {
			if err := flush.Flush(); err != nil {
				return err
			}
			quiet.Reset(x.o.KeepAlive)
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-x.stop:
			return nil
		case <-changed:
		case <-quiet.C:
			quiet.Reset(x.o.KeepAlive)
			if silent {
				continue
			}
			if _, err := io.WriteString(w, "\r\n"); err != nil {
				return err
			}
			if err := flush.Flush(); err != nil {
				return err
			}
		}
	}
}

// cut ends a connection without a word.
func cut(w io.Writer) error {
	if h, ok := w.(http.Hijacker); ok {
		conn, _, err := h.Hijack()
		if err != nil {
			return err
		}
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
	}
	return errCut
}
