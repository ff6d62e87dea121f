// Package usage counts what a store asks of its server, request by request: clouds bill by them. It stands between the
// clients of cloud stores and HTTP, so that pages of a listing, parts of an upload and repetitions count too.
package usage

import (
	"io"
	"maps"
	"net/http"
	"sync"
)

// Kind is a class of requests that clouds price alike.
type Kind string

// The kinds of requests.
const (
	Get    Kind = "get"    // reads of objects
	Head   Kind = "head"   // descriptions of objects
	Put    Kind = "put"    // writes of objects, parts of large ones included
	List   Kind = "list"   // pages of listings
	Delete Kind = "delete" // deletions
	Commit Kind = "commit" // calls of the commit coordinator
	Other  Kind = "other"
)

// Count is what was asked in one kind.
type Count struct {
	Requests int64 `json:"requests"`
	Failed   int64 `json:"failed,omitempty"` // of the requests: no answer, or one of 429 and 5xx
	Bytes    int64 `json:"bytes"`            // of bodies: sent by puts, received by all others
}

// Usage is a count by kind; kinds that never occurred are absent.
type Usage map[Kind]Count

// Total is the sum over all kinds.
func (u Usage) Total() Count {
	var t Count
	for _, c := range u {
		t.Requests, t.Failed, t.Bytes = t.Requests+c.Requests, t.Failed+c.Failed, t.Bytes+c.Bytes
	}
	return t
}

// Since is what was asked between an earlier count and this one.
func (u Usage) Since(earlier Usage) Usage {
	out := Usage{}
	for k, c := range u {
		e := earlier[k]
		c.Requests, c.Failed, c.Bytes = c.Requests-e.Requests, c.Failed-e.Failed, c.Bytes-e.Bytes
		if c != (Count{}) {
			out[k] = c
		}
	}
	return out
}

// Reporter is implemented by stores that count.
type Reporter interface {
	// Usage is what has been asked since the store was opened.
	Usage() Usage
}

// Of is the usage of a store, nil where it does not count.
func Of(store any) Usage {
	if r, ok := store.(Reporter); ok {
		return r.Usage()
	}
	return nil
}

// Counter counts. The zero value is ready; it is safe for concurrent use.
type Counter struct {
	mu sync.Mutex
	by map[Kind]Count
}

// Usage is what was counted so far.
func (c *Counter) Usage() Usage {
	c.mu.Lock()
	defer c.mu.Unlock()
	u := Usage{}
	maps.Copy(u, c.by)
	return u
}

func (c *Counter) add(k Kind, d Count) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by == nil {
		c.by = map[Kind]Count{}
	}
	t := c.by[k]
	c.by[k] = Count{t.Requests + d.Requests, t.Failed + d.Failed, t.Bytes + d.Bytes}
}

// Doer sends requests, as *http.Client does.
type Doer interface {
	Do(*http.Request) (*http.Response, error)
}

// Client counts what passes through a client. kind tells the kind of a request.
func (c *Counter) Client(next Doer, kind func(*http.Request) Kind) Doer {
	return client{c, next.Do, kind}
}

// Transport counts what passes through a transport; nil is http.DefaultTransport.
func (c *Counter) Transport(next http.RoundTripper, kind func(*http.Request) Kind) http.RoundTripper {
	if next == nil {
		next = http.DefaultTransport
	}
	return client{c, next.RoundTrip, kind}
}

type client struct {
	c    *Counter
	send func(*http.Request) (*http.Response, error)
	kind func(*http.Request) Kind
}

// RoundTrip makes a transport of it.
func (c client) RoundTrip(r *http.Request) (*http.Response, error) { return c.Do(r) }

// Do sends a request and counts it, and its bodies as they are read.
func (c client) Do(r *http.Request) (*http.Response, error) {
	k := c.kind(r)
	n := Count{Requests: 1}
	if k == Put && r.ContentLength > 0 {
		n.Bytes = r.ContentLength
	}
	resp, err := c.send(r)
	if err != nil || resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests {
		n.Failed = 1
	}
	c.c.add(k, n)
	if err == nil && k != Put {
		resp.Body = &body{resp.Body, c.c, k}
	}
	return resp, err
}

type body struct {
	io.ReadCloser
	c *Counter
	k Kind
}

// Read counts what comes.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.c.add(b.k, Count{Bytes: int64(n)})
	}
	return n, err
}
