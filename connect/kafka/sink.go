package kafka

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cauce-data/cauce/internal/change"
)

// IDHeader is the header that carries a message's id. Kafka stores again what another process had published; whoever must
// know such messages knows them by it.
const IDHeader = "message_id"

// SinkOptions configure a Sink.
type SinkOptions struct {
	InFlightMax      int   // messages that wait for their acknowledgement; default 50,000
	InFlightBytesMax int64 // their bytes; default 64 MiB
	// OnAck is called with each acknowledged message's id, partition and offset; it must not block.
	OnAck func(id string, partition int32, offset int64)
}

// Sink publishes to one topic, with acks=all and as an idempotent producer: while it lives, what it repeats after a
// broken connection is stored once, and messages of one key keep their order. It waits for brokers to come back as long
// as it takes. Safe for concurrent use.
type Sink struct {
	c     Config
	topic string
	o     SinkOptions
	cl    *kgo.Client

	acked   atomic.Int64
	mu      sync.Mutex
	failed  error         // the first message that the broker refused for good
	flying  int           // messages that wait for their acknowledgement …
	bytes   int64         // … and their bytes
	changed change.Signal // there are fewer
}

// NewSink connects to the cluster. The topic must exist.
func NewSink(ctx context.Context, c Config, topic string, o SinkOptions) (*Sink, error) {
	if o.InFlightMax <= 0 {
		o.InFlightMax = 50_000
	}
	if o.InFlightBytesMax <= 0 {
		o.InFlightBytesMax = 64 << 20
	}
	_, adm, err := admin(c)
	if err != nil {
		return nil, err
	}
	defer adm.Close()
	short, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := describe(short, c, adm, topic); err != nil {
		return nil, fmt.Errorf("topic %s: %w", topic, err)
	}
	batch, err := batchBytesMax(short, c, adm, topic)
	if err != nil {
		return nil, fmt.Errorf("topic %s: %w", topic, err)
	}
	opts, err := c.options()
	if err != nil {
		return nil, err
	}
	opts = append(opts,
		kgo.DefaultProduceTopic(topic),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		// Publish bounds what is in flight; the client's own bound must not make it wait.
		kgo.MaxBufferedRecords(2*o.InFlightMax),
		kgo.ProducerBatchMaxBytes(batch),
		kgo.WithCompressor(new(lz4Blocks)),
		// The same hash as the Java client's, so that a key has one partition whoever publishes it.
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
		// A broker may be away for as long as it likes. Only a topic that is not there is an error.
		kgo.UnknownTopicRetries(20),
	)
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	s := &Sink{c: c, topic: topic, o: o, cl: cl}
	return s, nil
}

// Bounds of what a batch of messages may have: where the topic does not say, and whatever it says.
const (
	batchBytesDefault = 1_000_012
	batchBytesLeast   = 512
	batchBytesMost    = 64 << 20
)

// batchBytesMax is what the topic takes as one batch of messages. The broker refuses a larger one for good, whatever its messages
// have, and the client one message that is larger. A role that may not look at it gets Kafka's default.
func batchBytesMax(ctx context.Context, c Config, adm *kadm.Client, topic string) (int32, error) {
	limit := int64(batchBytesDefault)
	err := patiently(ctx, func() error {
		topics, err := adm.DescribeTopicConfigs(ctx, topic)
		if err != nil {
			return explain(c, err)
		}
		for _, t := range topics {
			for _, kv := range t.Configs {
				if n, err := strconv.ParseInt(kv.MaybeValue(), 10, 64); err == nil && kv.Key == "max.message.bytes" {
					limit = n
				}
			}
		}
		return nil
	})
	if errors.Is(err, ErrUnavailable) {
		return 0, err
	}
	return int32(max(batchBytesLeast, min(limit, batchBytesMost))), nil
}

// Publish hands over one message and returns as soon as there is room among those in flight; ctx bounds that wait and
// nothing else: a message that was handed over is published, though ctx may end before the brokers are there. The Sink
// keeps key and value until they are acknowledged: the caller must not change them. A nil value is a tombstone. After a
// message that the broker refused for good Publish returns that error.
func (s *Sink) Publish(ctx context.Context, key []byte, id string, value []byte) error {
	size := int64(len(key) + len(value))
	if err := s.admit(ctx, size); err != nil {
		return err
	}
	rec := &kgo.Record{Key: key, Value: value}
	if id != "" {
		rec.Headers = []kgo.RecordHeader{{Key: IDHeader, Value: []byte(id)}}
	}
	s.cl.Produce(context.WithoutCancel(ctx), rec, func(r *kgo.Record, err error) {
		s.land(size)
		if err != nil {
			s.fail(err)
			return
		}
		s.acked.Add(1)
		if s.o.OnAck != nil {
			s.o.OnAck(id, r.Partition, r.Offset)
		}
	})
	return s.err()
}

// admit waits until there is room for a message.
func (s *Sink) admit(ctx context.Context, size int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.failed == nil && s.flying > 0 && (s.flying >= s.o.InFlightMax || s.bytes+size > s.o.InFlightBytesMax) {
		if err := s.changed.Wait(ctx, &s.mu); err != nil {
			return fmt.Errorf("topic %s: %w", s.topic, err)
		}
	}
	if s.failed != nil {
		return s.failed
	}
	s.flying++
	s.bytes += size
	return nil
}

// land makes room again.
func (s *Sink) land(size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flying--
	s.bytes -= size
	s.changed.Tell()
}

// Acked is the number of messages that the brokers have acknowledged.
func (s *Sink) Acked() int64 { return s.acked.Load() }

// Waiting is the number of messages in flight.
func (s *Sink) Waiting() int64 { return s.cl.BufferedProduceRecords() }

func (s *Sink) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return
	}
	if errors.Is(err, kerr.MessageTooLarge) {
		err = fmt.Errorf("a message is larger than the topic takes (max.message.bytes): %w", err)
	}
	s.failed = fmt.Errorf("topic %s: %w", s.topic, explain(s.c, err))
}

func (s *Sink) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// Flush waits until everything published so far is acknowledged.
func (s *Sink) Flush(ctx context.Context) error {
	if err := s.cl.Flush(ctx); err != nil {
		return fmt.Errorf("topic %s: %w", s.topic, explain(s.c, err))
	}
	return s.err()
}

// Close flushes, at most for ten seconds, and ends the Sink. The error tells how many messages were left.
func (s *Sink) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closePatience)
	defer cancel()
	err := s.Flush(ctx)
	if n := s.Waiting(); n > 0 && err != nil {
		err = fmt.Errorf("%w (%d messages are not acknowledged)", err, n)
	}
	s.cl.Close()
	return err
}
