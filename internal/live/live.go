// Package live holds what every client of a live source needs and none owns: the contract of the sink that it publishes
// to, figures of what arrived, the ids that came before, and how far it has got, kept on disk. It knows no source.
package live

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// ErrFull is wrapped by a Sink's error when it has no room for a message and does not wait for some.
var ErrFull = errors.New("no room for more events")

// Sink takes events. *buffer.Sink, *kafka.Sink and *spool.Spool are some.
type Sink interface {
	// Publish hands over one message; it may block. A message whose id was published before may be dropped. An error
	// that wraps ErrFull says that this message is not taken; any other that the Sink is of no use any more.
	Publish(ctx context.Context, key []byte, id string, value []byte) error
	// Flush waits until everything published is safe: it survives the death of this process, and a power cut as far as
	// the lake file's buffer.sync says.
	Flush(ctx context.Context) error
}

// kindsMax bounds the kinds of events, and the series of dropped ones, that are counted by name.
const kindsMax = 100

// Stats are a client's figures.
type Stats struct {
	Events     int64 `json:"events"`     // published
	Duplicates int64 `json:"duplicates"` // of those that arrived, known already and not published again
	Ignored    int64 `json:"ignored"`    // of kinds that nobody asked for
	// IgnoredKinds are the ignored events by their kind.
	IgnoredKinds map[string]int64 `json:"ignored_kinds,omitempty"`
	Malformed    int64            `json:"malformed"`  // published as they are, so that quarantine keeps them
	Reconnects   int64            `json:"reconnects"` // connections after the first
	Rate         float64          `json:"rate"`       // events a second, of about the last ten seconds
	Lag          time.Duration    `json:"-"`          // between the last event's own time and its arrival; 0: unknown
	Connected    bool             `json:"connected"`
	Last         time.Time        `json:"last"` // when the last event came; zero: none did
	// Dropped are events that arrived and were not taken, because the sink had no room and the source cannot wait.
	Dropped []Dropped `json:"dropped,omitempty"`
	// Lost are times whose events the source did not deliver.
	Lost []Lost `json:"lost,omitempty"`
}

// Dropped tells of events of one series that were not taken.
type Dropped struct {
	Series string    `json:"series"` // such as a symbol
	Events int64     `json:"events"`
	First  string    `json:"first"` // id of the first of them …
	Last   string    `json:"last"`  // … and of the last
	From   time.Time `json:"from"`
	To     time.Time `json:"to"`
}

// Lost is a range of time whose events the source did not deliver.
type Lost struct {
	From   time.Time `json:"from"`
	To     time.Time `json:"to"`
	Reason string    `json:"reason"`
}

// Meter counts what a client receives. The zero value is ready; it is safe for concurrent use.
type Meter struct {
	mu       sync.Mutex
	s        Stats
	connects int64
	open     int
	kinds    map[string]int64
	dropped  map[string]*Dropped
	windows  [11]int64 // events per second, in a ring
	second   int64     // to which windows belongs
}

// Event counts an event that was published. at is its own time, zero if it has none.
func (m *Meter) Event(at time.Time) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.s.Events++
	m.s.Last = now
	if !at.IsZero() {
		m.s.Lag = max(0, now.Sub(at))
	}
	m.advance(now.Unix())
	m.windows[m.second%int64(len(m.windows))]++
}

// Duplicate counts an event that had come before.
func (m *Meter) Duplicate() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.s.Duplicates++
}

// Ignored counts an event of a kind that nobody asked for, and tells whether it is the first of its kind.
func (m *Meter) Ignored(kind string) (first bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.s.Ignored++
	if m.kinds == nil {
		m.kinds = map[string]int64{}
	}
	if _, known := m.kinds[kind]; !known && len(m.kinds) >= kindsMax {
		kind = "other"
	}
	m.kinds[kind]++
	return m.kinds[kind] == 1
}

// Malformed counts what is no event, and tells whether it is the first.
func (m *Meter) Malformed() (first bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.s.Malformed++
	return m.s.Malformed == 1
}

// Dropped notes an event that was not taken, and tells whether it is the first of its series.
func (m *Meter) Dropped(series, id string) (first bool) {
	now := time.Now().UTC()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dropped == nil {
		m.dropped = map[string]*Dropped{}
	}
	if m.dropped[series] == nil && len(m.dropped) >= kindsMax {
		series = "other"
	}
	d := m.dropped[series]
	if d == nil {
		d = &Dropped{Series: series, First: id, From: now}
		m.dropped[series] = d
	}
	d.Events++
	d.Last, d.To = id, now
	return d.Events == 1
}

// Lost notes a range of time whose events did not come.
func (m *Meter) Lost(l Lost) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.s.Lost) < kindsMax {
		m.s.Lost = append(m.s.Lost, l)
	}
}

// Opened counts a connection that stands; the returned function says that it has ended.
func (m *Meter) Opened() (closed func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.connects++
	m.open++
	return sync.OnceFunc(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.open--
	})
}

// Stats are the figures so far.
func (m *Meter) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.advance(time.Now().Unix())
	var sum int64
	for i, n := range m.windows {
		if int64(i) != m.second%int64(len(m.windows)) { // the second that is not over does not count
			sum += n
		}
	}
	s := m.s
	s.Rate = float64(sum) / float64(len(m.windows)-1)
	s.Reconnects, s.Connected = max(0, m.connects-1), m.open > 0
	s.IgnoredKinds, s.Lost = maps.Clone(m.kinds), slices.Clone(m.s.Lost)
	for _, d := range m.dropped {
		s.Dropped = append(s.Dropped, *d)
	}
	slices.SortFunc(s.Dropped, func(a, b Dropped) int { return strings.Compare(a.Series, b.Series) })
	return s
}

// advance moves the ring of seconds on. The lock is held.
func (m *Meter) advance(now int64) {
	n := int64(len(m.windows))
	for s := max(m.second+1, now-n+1); s <= now; s++ {
		m.windows[s%n] = 0
	}
	m.second = max(m.second, now)
}

// Seen remembers the newest ids: at least Max of them, at most twice as many. Not safe for concurrent use.
type Seen struct {
	Max         int
	young, aged map[string]struct{}
}

// Has tells whether an id is remembered.
func (s *Seen) Has(id string) bool {
	if _, ok := s.young[id]; ok {
		return true
	}
	_, ok := s.aged[id]
	return ok
}

// Add remembers an id.
func (s *Seen) Add(id string) {
	if len(s.young) >= s.Max {
		s.aged, s.young = s.young, nil
	}
	if s.young == nil {
		s.young = map[string]struct{}{}
	}
	s.young[id] = struct{}{}
}
