// Package x is a client of the filtered stream of X, API version 2: it keeps one HTTP connection to the stream (or to
// whatever speaks its protocol, such as connect/simulate) alive and hands every post to a Sink, as the stream wrote it.
// It also manages the rules that say which posts come.
//
// # What it promises
//
// A post that arrived is published, under a message id made of its id; a post that comes again is dropped here. After a
// break the client asks for what it missed, where the account allows that (BackfillMinutes). What it did not get back is
// told as a range of time, and stays in the state file: the stream itself does not keep posts.
//
// # Connections
//
// The stream sends a line break every 20 seconds when there is nothing else: a connection without one is dead. How long
// to wait between attempts X prescribes: after an error of the network 250 ms more each time, up to 16 s; after an error
// of HTTP 5 s, doubled up to 320 s; when told to send less a minute, doubled, or until the time that the answer names.
//
// The bearer token is sent in a header and nowhere else; no error and no line of the log has it.
package x

import (
	"bufio"
	"bytes"
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

	"github.com/cauce-data/cauce/internal/live"
)

// DefaultURL is the address of the API.
const DefaultURL = "https://api.x.com"

// What X prescribes: https://docs.x.com/x-api, handling disconnections.
const (
	networkStep = 250 * time.Millisecond // added after each error of the network …
	networkMax  = 16 * time.Second       // … up to this
	httpFirst   = 5 * time.Second        // after an error of HTTP, doubled …
	httpMax     = 320 * time.Second      // … up to this
	limitFirst  = time.Minute            // after 429, doubled …
	limitMax    = 16 * time.Minute       // … up to this: the windows of the limits are 15 minutes
	backfillMax = 5                      // minutes
	lineMax     = 1 << 20
	seenMax     = 1 << 16
)

// Errors to branch on. Trying again is no use.
var (
	// ErrRefused says that X understood a request and refused it for good.
	ErrRefused = errors.New("X refuses the request") //nolint:staticcheck // a name
	// ErrToken says that there is no bearer token, or that X does not take it.
	ErrToken = errors.New("X does not take the bearer token") //nolint:staticcheck // a name
)

// fields are what the stream is asked to say of a post and its author.
const fields = "tweet.fields=id,text,created_at,author_id,lang,edit_history_tweet_ids,in_reply_to_user_id,conversation_id,referenced_tweets&expansions=author_id&user.fields=id,name,username"

// Options configure a Client. The zero value of each field means the default that stands beside it.
type Options struct {
	URL   string // DefaultURL
	Token string // the app's bearer token; mandatory
	// BackfillMinutes is how much of what was missed in a break is asked for: 0 to 5. Only some accounts may.
	BackfillMinutes int
	// StateFile keeps when the last post came; "": it is forgotten with the process.
	StateFile string
	Sink      live.Sink
	Log       *slog.Logger // silent

	IdleTimeout time.Duration // a connection on which nothing arrives so long is dead; 30 s
	SaveEvery   time.Duration // how often the state is saved; 1 s
	// HTTPClient makes the connections; http.DefaultClient. It must have no timeout of its own.
	HTTPClient *http.Client
}

// Client is a running connection to the stream.
type Client struct {
	o     Options
	base  string // without a slash at the end
	meter live.Meter
	seen  live.Seen

	state  live.State
	saving sync.Mutex
	saved  live.State   // as it stands on disk
	heard  atomic.Int64 // when something arrived from the stream, in ns; 0: never
}

// New checks the options and reads the state file.
func New(o Options) (*Client, error) {
	if o.Token == "" {
		return nil, fmt.Errorf("%w: there is none", ErrToken)
	}
	if strings.ContainsFunc(o.Token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, fmt.Errorf("%w: it holds blanks, line ends or letters that no token has", ErrToken)
	}
	if o.BackfillMinutes < 0 || o.BackfillMinutes > backfillMax {
		return nil, fmt.Errorf("x: %d minutes of backfill; it is 0 to %d", o.BackfillMinutes, backfillMax)
	}
	if o.URL == "" {
		o.URL = DefaultURL
	}
	u, err := url.Parse(o.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("x: address %q does not begin with http:// or https://", o.URL)
	}
	if u.Scheme == "http" && !loopback(u.Hostname()) {
		return nil, fmt.Errorf("x: address %s would carry the bearer token without encryption; write https://", u.Redacted())
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	for v, d := range map[*time.Duration]time.Duration{&o.IdleTimeout: 30 * time.Second, &o.SaveEvery: time.Second} {
		if *v <= 0 {
			*v = d
		}
	}
	if o.HTTPClient == nil {
		o.HTTPClient = http.DefaultClient
	}
	c := &Client{o: o, base: strings.TrimSuffix(o.URL, "/"), seen: live.Seen{Max: seenMax}}
	if c.state, err = live.Load(o.StateFile, "x "+c.base); err != nil {
		return nil, err
	}
	c.saved = c.state
	if !c.state.Cursor.IsZero() {
		c.heard.Store(c.state.Cursor.UnixNano())
	}
	return c, nil
}

// loopback tells whether a host is this machine: there the stream is a simulated one.
func loopback(host string) bool {
	return host == "localhost" || host == "::1" || strings.HasPrefix(host, "127.") || !strings.Contains(host, ".")
}

// Stats tells what the client did so far.
func (c *Client) Stats() live.Stats { return c.meter.Stats() }

// Run keeps a connection until the context ends; then it flushes the sink, saves the state and returns nil. It returns
// an error that wraps ErrToken or ErrRefused where trying again is no use, and the sink's error if it refuses a post.
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
		err = errors.Join(err, fmt.Errorf("x: %w", e))
	}
	return err
}

// save writes the state from time to time.
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
		c.o.Log.Warn("state is not saved", "error", err)
	}
}

// persist makes safe what was published, and only then notes that the stream was heard until then.
func (c *Client) persist(ctx context.Context) error {
	c.saving.Lock()
	defer c.saving.Unlock()
	s := live.State{Source: c.state.Source, Lost: append(c.state.Lost[:len(c.state.Lost):len(c.state.Lost)], c.meter.Stats().Lost...)}
	if n := c.heard.Load(); n > 0 {
		s.Cursor = time.Unix(0, n).UTC()
	}
	if err := c.o.Sink.Flush(ctx); err != nil {
		return err
	}
	if s.Cursor.Equal(c.saved.Cursor) && len(s.Lost) == len(c.saved.Lost) {
		return nil
	}
	if err := s.Save(c.o.StateFile); err != nil {
		return err
	}
	c.saved = s
	return nil
}

// backoff is how long to wait before the next attempt: by class of error, growing with each.
type backoff struct{ network, http, limit int }

// next gives the pause after an error. Chance adds up to a tenth, so that clients do not come in step.
func (b *backoff) next(err error, now time.Time) time.Duration {
	var wait time.Duration
	var status *statusError
	switch {
	case !errors.As(err, &status):
		b.network++
		wait = min(time.Duration(b.network)*networkStep, networkMax)
	case status.status == http.StatusTooManyRequests:
		wait = min(limitFirst<<min(b.limit, 10), limitMax)
		b.limit++
		// What the answer says counts if it is more.
		wait = max(wait, status.until.Sub(now))
	default:
		wait = min(httpFirst<<min(b.http, 10), httpMax)
		b.http++
		wait = max(wait, status.until.Sub(now))
	}
	return wait + rand.N(wait/10+1)
}

func (c *Client) run(ctx context.Context) error {
	var b backoff
	for {
		got, err := c.stream(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, ErrRefused) || errors.Is(err, ErrToken) || errors.Is(err, errSink) {
			return err
		}
		if got {
			b = backoff{}
		}
		wait := b.next(err, time.Now())
		c.o.Log.Warn("connection to X ended", "reason", err, "again_in", wait.Round(time.Millisecond))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// errSink marks an error of the sink.
var errSink = errors.New("post is not taken")

// statusError is an answer that is worth another try later.
type statusError struct {
	status int
	text   string
	until  time.Time // when the answer allows it; zero: it does not say
}

func (e *statusError) Error() string {
	s := fmt.Sprintf("X answers %d %s: %s", e.status, http.StatusText(e.status), e.text)
	if !e.until.IsZero() {
		s += "; it asks to wait until " + e.until.UTC().Format(time.RFC3339)
	}
	return s
}

// stream is one connection; got tells that something arrived on it.
func (c *Client) stream(ctx context.Context) (got bool, err error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var before time.Time // when the stream was heard last
	if n := c.heard.Load(); n > 0 {
		before = time.Unix(0, n).UTC()
	}
	q, backfill := fields, 0
	if missed := time.Since(before); !before.IsZero() && c.o.BackfillMinutes > 0 {
		backfill = min(c.o.BackfillMinutes, int(missed/time.Minute)+1)
		q += "&backfill_minutes=" + strconv.Itoa(backfill)
	}
	// A connection that does not come about is as dead as one that falls silent.
	idle := time.AfterFunc(c.o.IdleTimeout, func() { stop(fmt.Errorf("nothing arrived for %s", c.o.IdleTimeout)) })
	defer idle.Stop()
	resp, err := c.do(ctx, http.MethodGet, "/2/tweets/search/stream?"+q, nil)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return false, err
	}
	defer resp.Body.Close()
	defer c.meter.Opened()()
	c.o.Log.Info("connection to X stands", "url", c.base, "backfill_minutes", backfill)
	now := time.Now()
	behind := backfill > 0 // what was missed is still coming
	if !before.IsZero() {
		c.missed(before, now.Add(-time.Duration(backfill)*time.Minute).UTC(), now)
	} else {
		// A process that died without a state would be followed by one that asks for no backfill and misses nothing that it knows of.
		c.heard.CompareAndSwap(0, now.UnixNano())
		c.tryPersist(ctx)
	}
	lines := bufio.NewReaderSize(resp.Body, 64<<10)
	for {
		line, err := readLine(lines)
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			if errors.Is(err, io.EOF) {
				err = errors.New("the stream ended")
			}
			return got, err
		}
		got = true
		idle.Stop() // the sink may take its time
		made := time.Now()
		if line = bytes.TrimSpace(line); len(line) == 0 {
			behind = false
		} else {
			at, err := c.take(ctx, line)
			if err != nil {
				return got, err
			}
			if behind = behind && at.Before(now); behind {
				// A connection that ends now must be followed by one that asks for the rest.
				made = at.Add(-disorder)
			}
		}
		if n := made.UnixNano(); n > c.heard.Load() {
			c.heard.Store(n)
		}
		idle.Reset(c.o.IdleTimeout)
	}
}

// disorder is how much later than a younger post one may come.
const disorder = 5 * time.Second

// missed tells of the time between what was heard last and what comes again.
func (c *Client) missed(heard, from, now time.Time) {
	if !from.After(heard) {
		return
	}
	reason := "no connection stood, and no backfill was asked for"
	if c.o.BackfillMinutes > 0 {
		reason = fmt.Sprintf("no connection stood for %s, of which %d minutes came back", now.Sub(heard).Round(time.Second), c.o.BackfillMinutes)
	}
	c.meter.Lost(live.Lost{From: heard, To: from, Reason: reason})
	c.o.Log.Error("posts of this time did not come", "from", heard.Format(time.RFC3339Nano), "to", from.Format(time.RFC3339Nano), "reason", reason)
}

// readLine reads one line of bounded length.
func readLine(b *bufio.Reader) ([]byte, error) {
	var long []byte
	for {
		part, err := b.ReadSlice('\n')
		switch {
		case err == nil && long == nil:
			return bytes.Clone(part), nil // the sink keeps it
		case err == nil:
			return append(long, part...), nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err // a line that is cut off was not sent whole
		}
		if long = append(long, part...); len(long) > lineMax {
			return nil, fmt.Errorf("a line is longer than %d bytes", lineMax)
		}
	}
}

// message is what the client reads of a line.
type message struct {
	Data *struct {
		ID      string   `json:"id"`
		Created string   `json:"created_at"`
		Edits   []string `json:"edit_history_tweet_ids"`
	} `json:"data"`
	Errors []problem `json:"errors"`
}

// problem is how X describes an error.
type problem struct {
	Title      string `json:"title"`
	Detail     string `json:"detail"`
	Message    string `json:"message"`
	Type       string `json:"type"`
	Disconnect string `json:"disconnect_type"`
	Value      string `json:"value"`
}

func (p problem) String() string {
	text := p.Title
	for _, more := range []string{p.Detail, p.Message} {
		if more != "" && more != text {
			if text != "" {
				text += ": "
			}
			text += more
		}
	}
	if p.Value != "" {
		text += " (" + strconv.Quote(p.Value) + ")"
	}
	return text
}

// take handles one line; at is when its post was made, zero if it is none or does not say.
func (c *Client) take(ctx context.Context, line []byte) (at time.Time, err error) {
	var m message
	if json.Unmarshal(line, &m) != nil {
		return at, c.malformed(ctx, line)
	}
	if m.Data == nil {
		if len(m.Errors) == 0 {
			c.ignore(line)
			return at, nil
		}
		p := m.Errors[0]
		if p.Disconnect != "" || strings.Contains(p.Type, "operational-disconnect") {
			return at, fmt.Errorf("the stream is ended by X: %s", p)
		}
		c.o.Log.Warn("the stream tells of an error", "error", p.String())
		c.meter.Ignored("errors")
		return at, nil
	}
	if m.Data.ID == "" {
		return at, c.malformed(ctx, line)
	}
	if at, err = time.Parse(time.RFC3339, m.Data.Created); err != nil {
		at = time.Time{}
	}
	id := "x-" + m.Data.ID
	if c.seen.Has(id) {
		c.meter.Duplicate()
		return at, nil
	}
	// An edit is a post of its own; the first of its history is what stays the same.
	key := m.Data.ID
	if len(m.Data.Edits) > 0 && m.Data.Edits[0] != "" {
		key = m.Data.Edits[0]
	}
	taken, err := c.publish(ctx, []byte(key), id, line)
	if taken {
		c.meter.Event(at)
	}
	return at, err
}

// ignore counts a line of a kind that is not used by its first member.
func (c *Client) ignore(line []byte) {
	kind := "empty"
	d := json.NewDecoder(bytes.NewReader(line))
	if _, err := d.Token(); err == nil {
		if name, err := d.Token(); err == nil {
			if s, ok := name.(string); ok {
				kind = s
			}
		}
	}
	if c.meter.Ignored(kind) {
		c.o.Log.Info("the stream sends messages of a kind that is not used", "kind", kind)
	}
}

// malformed publishes a line that is no post, for quarantine to keep. Its id is made of its bytes.
func (c *Client) malformed(ctx context.Context, line []byte) error {
	h := fnv.New128a()
	_, _ = h.Write(line)
	id := "malformed-" + strconv.Itoa(len(line)) + "-" + fmt.Sprintf("%x", h.Sum(nil))
	if c.seen.Has(id) {
		c.meter.Duplicate()
		return nil
	}
	taken, err := c.publish(ctx, nil, id, line)
	if taken && c.meter.Malformed() {
		c.o.Log.Warn("the stream sends lines that are no posts", "first", string(line[:min(len(line), 200)]))
	}
	return err
}

// publish hands a message to the sink. The stream does not wait and cuts off whoever does not read: a post for which the
// sink has no room is dropped and noted.
func (c *Client) publish(ctx context.Context, key []byte, id string, line []byte) (taken bool, err error) {
	err = c.o.Sink.Publish(ctx, key, id, line)
	switch {
	case err == nil:
		c.seen.Add(id)
		return true, nil
	case errors.Is(err, live.ErrFull):
		if c.meter.Dropped("posts", id) {
			c.o.Log.Error("posts are dropped", "first", id, "reason", err)
		}
		return false, nil
	case ctx.Err() != nil:
		return false, err
	}
	return false, fmt.Errorf("x: %w: %w", errSink, err)
}
