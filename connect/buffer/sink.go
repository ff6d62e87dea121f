package buffer

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"github.com/cauce-data/cauce/internal/change"
)

// headerKey carries a message's key; headerKeyBase64 one that a header line would not carry as it is.
const (
	headerKey       = "Cauce-Key"
	headerKeyBase64 = "Cauce-Key-Base64"
)

// headBytesMax bounds key and id as the header carries them: the server takes 64 KiB of header, names of lines included.
const headBytesMax = 63 << 10

// How long a Sink waits before it publishes again: when acknowledgements stay away, and after a refusal.
const (
	ackPatience   = 3 * time.Second
	refusalPause  = 250 * time.Millisecond
	closePatience = 5 * time.Second
)

// SinkOptions configure a Sink.
type SinkOptions struct {
	InFlightMax      int   // messages that wait for their acknowledgement; default 4096
	InFlightBytesMax int64 // their bytes; default 32 MiB
	// OnAck is called with each acknowledged message's id and offset, in no particular order; it must not block.
	OnAck func(id string, offset int64)
}

// Sink publishes to one topic. A message is safe when its acknowledgement is there; until then the Sink keeps it and
// publishes it again, with the same id, whenever the host changes. So the order of messages is kept, and none is
// stored twice, as long as a change of hosts takes less than DuplicatesWindow. Sinks are safe for concurrent use.
type Sink struct {
	b     *Buffer
	topic string
	name  string // of the stream and its subject
	o     SinkOptions
	id    string // begins the ids of messages that have none
	inbox string
	sub   *nats.Subscription
	stop  context.CancelFunc
	done  sync.WaitGroup
	again chan struct{} // publish again what is not acknowledged

	mu       sync.Mutex
	queue    []*message          // in order of publishing; acknowledged ones leave from the front
	waiting  map[uint64]*message // not acknowledged, by number
	bytes    int64
	next     uint64
	conns    uint64    // how often the connection had been made anew when the queue was last published
	progress time.Time // of the last acknowledgement or first message
	refused  error     // why the server refuses messages
	since    time.Time // of refused
	missing  bool      // the topic is gone
	closed   bool
	changed  change.Signal // the queue gets shorter
}

type message struct {
	n     uint64
	id    string
	msg   *nats.Msg
	size  int64
	acked bool
}

// Sink opens a topic for publishing, making it if it is missing.
func (b *Buffer) Sink(ctx context.Context, topic string, o SinkOptions) (*Sink, error) {
	if _, err := b.stream(ctx, topic); err != nil {
		return nil, err
	}
	if o.InFlightMax <= 0 {
		o.InFlightMax = 4096
	}
	if o.InFlightBytesMax <= 0 {
		o.InFlightBytesMax = 32 << 20
	}
	background, stop := context.WithCancel(context.Background())
	s := &Sink{
		b: b, topic: topic, name: streamName(topic), o: o, id: uuid.NewString(), inbox: nats.NewInbox() + ".", stop: stop,
		again: make(chan struct{}, 1), waiting: map[uint64]*message{}, conns: b.nc.Stats().Reconnects,
	}
	var err error
	if s.sub, err = b.nc.Subscribe(s.inbox+"*", s.acknowledge); err != nil {
		stop()
		return nil, fmt.Errorf("topic %s: %w", topic, err)
	}
	_ = s.sub.SetPendingLimits(-1, -1) // bounded by what is in flight
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		stop()
		return nil, ErrClosed
	}
	b.sinks[s] = struct{}{}
	b.mu.Unlock()
	s.done.Add(1)
	go s.repeat(background)
	return s, nil
}

// Publish hands over one message and returns, without waiting for its acknowledgement, as soon as there is room among
// those in flight. A message whose id the buffer has seen within DuplicatesWindow is dropped; with an empty id it is
// unlike any other. The Sink keeps value until it is acknowledged: the caller must not change it.
func (s *Sink) Publish(ctx context.Context, key []byte, id string, value []byte) error {
	line, text := keyLine(key)
	head := len(text) + len(header(id))
	size := int64(len(value) + head + 64)
	switch {
	case size > MessageBytesMax:
		return fmt.Errorf("topic %s: %w: %d bytes, at most %d", s.topic, ErrTooLarge, len(value), MessageBytesMax)
	case head > headBytesMax:
		return fmt.Errorf("topic %s: %w: key and id take %d bytes, at most %d", s.topic, ErrTooLarge, head, headBytesMax)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.closed && len(s.queue) > 0 && (len(s.queue) >= s.o.InFlightMax || s.bytes+size > s.o.InFlightBytesMax) {
		if err := s.wait(ctx); err != nil {
			return err
		}
	}
	if s.closed {
		return fmt.Errorf("topic %s: %w", s.topic, ErrClosed)
	}
	s.next++
	if id == "" {
		id = s.id + "-" + strconv.FormatUint(s.next, 10)
	}
	m := &message{n: s.next, id: id, size: size, msg: &nats.Msg{
		Subject: s.name,
		Reply:   s.inbox + strconv.FormatUint(s.next, 10),
		Header:  nats.Header{nats.MsgIdHdr: []string{header(id)}},
		Data:    value,
	}}
	if text != "" {
		m.msg.Header[line] = []string{text}
	}
	if len(s.queue) == 0 {
		s.progress = time.Now()
	}
	s.queue = append(s.queue, m)
	s.waiting[m.n] = m
	s.bytes += size
	if s.refused != nil || s.missing || s.b.nc.Stats().Reconnects != s.conns {
		s.wake() // it goes out after those before it
		return nil
	}
	if err := s.b.nc.PublishMsg(m.msg); err != nil {
		s.wake()
	}
	return nil
}

// plain tells that a header line carries a text as it is: nothing in it ends the line, and no blank is at its ends.
func plain(v string) bool {
	return !strings.ContainsAny(v, "\r\n") && strings.TrimSpace(v) == v
}

// keyLine is the header line that carries a key; no text for a message without one.
func keyLine(key []byte) (line, text string) {
	if k := string(key); plain(k) {
		return headerKey, k
	}
	return headerKeyBase64, base64.StdEncoding.EncodeToString(key)
}

// header is an id that a header line carries. Nobody reads it back.
func header(id string) string {
	if plain(id) {
		return id
	}
	return strconv.QuoteToASCII(id)
}

// wait releases the lock until the queue gets shorter. A server that refuses for long ends it.
func (s *Sink) wait(ctx context.Context) error {
	changed := s.changed.C()
	tick := time.NewTimer(time.Second)
	defer tick.Stop()
	s.mu.Unlock()
	var err error
	select {
	case <-changed:
	case <-tick.C:
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.mu.Lock()
	if err == nil && s.refused != nil && time.Since(s.since) > patience {
		err = s.refused
	}
	if err != nil {
		return fmt.Errorf("topic %s: %w", s.topic, err)
	}
	return nil
}

// Waiting is the number of messages that are not acknowledged.
func (s *Sink) Waiting() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(len(s.waiting))
}

// Flush waits until everything published so far is acknowledged.
func (s *Sink) Flush(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for last := s.next; len(s.queue) > 0 && s.queue[0].n <= last; {
		if s.closed {
			return fmt.Errorf("topic %s: %w", s.topic, ErrClosed)
		}
		if err := s.wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Close flushes, at most for five seconds, and ends the Sink.
func (s *Sink) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closePatience)
	defer cancel()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.mu.Unlock()
	err := s.Flush(ctx)
	s.mu.Lock()
	if left := len(s.queue); left > 0 && err != nil {
		err = fmt.Errorf("%w (%d messages are not acknowledged)", err, left)
	}
	s.closed = true
	s.changed.Tell()
	s.mu.Unlock()
	s.b.mu.Lock()
	delete(s.b.sinks, s)
	s.b.mu.Unlock()
	s.stop()
	s.done.Wait()
	_ = s.sub.Unsubscribe()
	return err
}

func (s *Sink) wake() {
	select {
	case s.again <- struct{}{}:
	default:
	}
}

// acknowledge takes the server's answer to one message.
func (s *Sink) acknowledge(answer *nats.Msg) {
	n, err := strconv.ParseUint(answer.Subject[len(s.inbox):], 10, 64)
	if err != nil {
		return
	}
	if len(answer.Data) == 0 { // nobody listens: the topic is gone, or the server not ready
		s.mu.Lock()
		s.missing = true
		s.mu.Unlock()
		s.wake()
		return
	}
	var ack struct {
		Seq   int64 `json:"seq"`
		Error *struct {
			Code        int    `json:"err_code"`
			Description string `json:"description"`
		} `json:"error"`
	}
	if err := json.NewDecoder(bytes.NewReader(answer.Data)).Decode(&ack); err != nil {
		return
	}
	s.mu.Lock()
	if ack.Error != nil {
		if s.refused == nil {
			s.since = time.Now()
			s.b.o.Log.Warn("stream buffer refuses messages", "topic", s.topic, "reason", ack.Error.Description)
		}
		s.refused = fmt.Errorf("%w: %s", ErrFull, ack.Error.Description)
		s.mu.Unlock()
		s.wake()
		return
	}
	m := s.waiting[n]
	if m == nil {
		s.mu.Unlock()
		return
	}
	delete(s.waiting, n)
	m.acked = true
	s.progress = time.Now()
	drop := 0
	for drop < len(s.queue) && s.queue[drop].acked {
		s.bytes -= s.queue[drop].size
		s.queue[drop] = nil
		drop++
	}
	if drop > 0 {
		s.queue = s.queue[drop:]
		s.changed.Tell()
	}
	s.mu.Unlock()
	if s.o.OnAck != nil {
		s.o.OnAck(m.id, ack.Seq)
	}
}

// repeat publishes the queue again when something tells that messages may be lost.
func (s *Sink) repeat(ctx context.Context) {
	defer s.done.Done()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		late := false
		select {
		case <-ctx.Done():
			return
		case <-s.again:
		case <-tick.C:
			s.mu.Lock()
			late = len(s.queue) > 0 && time.Since(s.progress) > ackPatience
			s.mu.Unlock()
			if !late {
				continue
			}
		}
		if !s.b.nc.IsConnected() {
			continue // the reconnect wakes us
		}
		s.mu.Lock()
		refused, missing := s.refused != nil, s.missing
		s.mu.Unlock()
		if refused || missing {
			if pause(ctx, refusalPause) != nil {
				return
			}
		}
		if missing {
			if _, err := s.b.stream(ctx, s.topic); err != nil {
				s.wake()
				continue
			}
		}
		s.publishAgain(refused)
	}
}

// publishAgain publishes everything that is not acknowledged, in order. Where the server refuses messages the first
// one is a probe, so that a full buffer is not flooded.
func (s *Sink) publishAgain(probe bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	conns := s.b.nc.Stats().Reconnects
	first := true
	if probe {
		before := s.refused
		for _, m := range s.queue {
			if !m.acked {
				answer, err := s.probe(m)
				if err != nil {
					s.wake()
					return
				}
				s.mu.Unlock()
				s.acknowledge(answer)
				s.mu.Lock()
				break
			}
		}
		if s.refused != before { //nolint:errorlint // the very same value, not its kind
			return
		}
		s.refused = nil
	}
	s.missing = false
	for _, m := range s.queue {
		if m.acked {
			continue
		}
		if first {
			s.progress, first = time.Now(), false
		}
		if err := s.b.nc.PublishMsg(m.msg); err != nil {
			s.wake()
			return
		}
	}
	s.conns = conns
}

// probe publishes one message and waits for the answer.
func (s *Sink) probe(m *message) (*nats.Msg, error) {
	s.mu.Unlock()
	defer s.mu.Lock()
	answer, err := s.b.nc.RequestMsg(&nats.Msg{Subject: m.msg.Subject, Header: m.msg.Header, Data: m.msg.Data}, 2*time.Second)
	if err != nil {
		return nil, err
	}
	answer.Subject = m.msg.Reply
	return answer, nil
}
