package pubsub

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	client "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/cauce-data/cauce/internal/change"
)

// SinkOptions configure a Sink.
type SinkOptions struct {
	// Ordering publishes a message's key as its ordering key; without it the key is the attribute AttributeKey.
	Ordering         bool
	InFlightMax      int   // messages that wait for their acknowledgement; default 10,000
	InFlightBytesMax int64 // their bytes; default 64 MiB
	// OnAck is called with each acknowledged message's id, as the producer and as the service has it; it must not block.
	OnAck func(id, messageID string)
}

// Attributes of messages.
const (
	// AttributeKey holds the message's key where it is no ordering key.
	AttributeKey = "key"
	// AttributeTombstone marks a message without value, which the service takes only with an attribute.
	AttributeTombstone = "tombstone"
)

// Sink publishes to one topic. It waits for the service to come back as long as it takes; what it then repeats may stand
// in the topic twice, under two message ids. Messages of one key keep their order. Safe for concurrent use.
type Sink struct {
	c     Config
	topic string
	o     SinkOptions
	cl    *client.Client
	pub   *client.Publisher

	acked   atomic.Int64
	results chan result // in the order of publishing; as long as what may be in flight, so that sending never blocks
	done    chan struct{}

	mu      sync.Mutex
	closed  bool
	failed  error         // the first message that the service refused for good
	flying  int           // messages that wait for their acknowledgement …
	bytes   int64         // … and their bytes
	changed change.Signal // there are fewer
}

// result is a message that waits for its acknowledgement.
type result struct {
	id   string
	size int64
	r    *client.PublishResult
}

// outage is how long a request is tried again. Nobody wants a producer that gives up.
const outage = 30 * 24 * time.Hour

// NewSink connects to the service. The topic must exist.
func NewSink(ctx context.Context, c Config, topic string, o SinkOptions) (*Sink, error) {
	if o.InFlightMax <= 0 {
		o.InFlightMax = 10_000
	}
	if o.InFlightBytesMax <= 0 {
		o.InFlightBytesMax = 64 << 20
	}
	cl, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	short, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	// A role that may only publish may not look at the topic. Then the first message tells whether it exists.
	_, err = cl.TopicAdminClient.GetTopic(short, &pubsubpb.GetTopicRequest{Topic: c.topic(topic)})
	if err := explain(c, err, ErrNoTopic); err != nil && !isDenied(err) {
		_ = cl.Close()
		return nil, fmt.Errorf("topic %s: %w", topic, err)
	}
	s := &Sink{c: c, topic: topic, o: o, cl: cl, pub: cl.Publisher(topic), results: make(chan result, o.InFlightMax+1), done: make(chan struct{})}
	s.pub.EnableMessageOrdering = o.Ordering
	s.pub.PublishSettings.Timeout = outage
	s.pub.PublishSettings.DelayThreshold = 5 * time.Millisecond
	// Publish bounds what is in flight; the client's own bound must not make it wait.
	s.pub.PublishSettings.FlowControlSettings = client.FlowControlSettings{LimitExceededBehavior: client.FlowControlIgnore}
	go s.collect()
	return s, nil
}

// Publish hands over one message and returns as soon as there is room among those in flight; ctx bounds that wait and
// nothing else. The Sink keeps key and value until they are acknowledged: the caller must not change them. A nil value
// is a tombstone. id is the producer's own; the service gives each message another. After a message that the service
// refused for good Publish returns that error.
func (s *Sink) Publish(ctx context.Context, key []byte, id string, value []byte) error {
	size := int64(len(key) + len(value))
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.failed == nil && !s.closed && s.flying > 0 && (s.flying >= s.o.InFlightMax || s.bytes+size > s.o.InFlightBytesMax) {
		if err := s.changed.Wait(ctx, &s.mu); err != nil {
			return fmt.Errorf("topic %s: %w", s.topic, err)
		}
	}
	switch {
	case s.failed != nil:
		return s.failed
	case s.closed:
		return fmt.Errorf("topic %s: %w", s.topic, ErrClosed)
	}
	s.flying++
	s.bytes += size
	m := &client.Message{Data: value}
	attribute := func(name, text string) {
		if m.Attributes == nil {
			m.Attributes = map[string]string{}
		}
		m.Attributes[name] = text
	}
	switch {
	case len(key) == 0:
	case s.o.Ordering:
		m.OrderingKey = string(key)
	default:
		attribute(AttributeKey, string(key))
	}
	if value == nil {
		attribute(AttributeTombstone, "true")
	}
	// The order of publishing is the order of results: both happen under the lock.
	s.results <- result{id, size, s.pub.Publish(context.WithoutCancel(ctx), m)}
	return nil
}

// collect takes the acknowledgements, in the order of publishing, until Close.
func (s *Sink) collect() {
	defer close(s.done)
	for r := range s.results {
		messageID, err := r.r.Get(context.Background())
		if err == nil {
			s.acked.Add(1)
			if s.o.OnAck != nil {
				s.o.OnAck(r.id, messageID)
			}
		}
		s.mu.Lock()
		if err != nil && s.failed == nil {
			s.failed = fmt.Errorf("topic %s: %w", s.topic, explain(s.c, err, ErrNoTopic))
		}
		s.flying--
		s.bytes -= r.size
		s.changed.Tell()
		s.mu.Unlock()
	}
}

// Acked is the number of messages that the service has acknowledged.
func (s *Sink) Acked() int64 { return s.acked.Load() }

// Waiting is the number of messages in flight.
func (s *Sink) Waiting() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(s.flying)
}

// Flush waits until everything published so far is acknowledged.
func (s *Sink) Flush(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.flying > 0 && s.failed == nil {
		if err := s.changed.Wait(ctx, &s.mu); err != nil {
			return fmt.Errorf("topic %s: %w", s.topic, explain(s.c, err, ErrNoTopic))
		}
	}
	return s.failed
}

// Close flushes, at most for ten seconds, and ends the Sink. The error tells how many messages were left.
func (s *Sink) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closePatience)
	defer cancel()
	err := s.Flush(ctx)
	s.mu.Lock()
	left := s.flying
	if s.closed {
		s.mu.Unlock()
		return err
	}
	s.closed = true
	close(s.results)
	s.mu.Unlock()
	if left > 0 && err != nil {
		// The client goes on trying while the process lives; to wait for that would be to wait for the service.
		return fmt.Errorf("%w (%d messages are not acknowledged)", err, left)
	}
	s.pub.Stop()
	<-s.done
	return errors.Join(err, s.cl.Close())
}
