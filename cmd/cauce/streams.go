package main

import (
	"context"
	"fmt"
	"sync"

	"github.com/cauce-data/cauce/connect/buffer"
	"github.com/cauce-data/cauce/connect/kafka"
	"github.com/cauce-data/cauce/connect/pubsub"
	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/pipeline"
)

// streams opens the topics of a lake's sources, each where the lake file says that it is. The embedded buffer is hosted
// or joined when the first topic in it is opened. Close it after everything that it opened. Safe for concurrent use.
type streams struct {
	a    *app
	lake *pipeline.Lake

	mu  sync.Mutex
	buf *buffer.Buffer
}

// sink takes the events of a producer.
type sink interface {
	Publish(ctx context.Context, key []byte, id string, value []byte) error
	Flush(ctx context.Context) error
	Waiting() int64 // messages that are not acknowledged
	Close() error
}

func (a *app) streams(l *pipeline.Lake) *streams { return &streams{a: a, lake: l} }

// buffer hosts or joins the embedded buffer.
func (s *streams) buffer(ctx context.Context) (*buffer.Buffer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.buf == nil {
		b, err := s.a.openBuffer(ctx, s.lake)
		if err != nil {
			return nil, err
		}
		s.buf = b
	}
	return s.buf, nil
}

// source opens a stream for reading.
func (s *streams) source(ctx context.Context, src *pipeline.Source) (ingest.Source, error) {
	in, err := s.open(ctx, src)
	if err != nil {
		return nil, fmt.Errorf("source %s: %w", src.Name, err) // which names the topic, or the subscription
	}
	return in, nil
}

func (s *streams) open(ctx context.Context, src *pipeline.Source) (ingest.Source, error) {
	switch src.Kind {
	case pipeline.KindPubSub:
		return pubsub.OpenSource(ctx, pubsubConfig(s.a, src.PubSub, src.PubSub.Credentials), pubsub.SourceOptions{
			Name: src.Name, Topic: src.Topic, Subscription: src.PubSub.Subscription, AckDeadline: src.PubSub.AckDeadline,
			// A micro-batch that is merged, and the next one.
			HeldMax: 2 * s.lake.Stream.RowsMax, HeldBytesMax: 2 * s.lake.Stream.BytesMax,
		})
	case pipeline.KindKafka:
		k := src.Kafka
		return kafka.OpenSource(ctx, kafkaConfig(s.a, k, k.SASL), kafka.SourceOptions{
			Name: src.Name, Topic: src.Topic, Group: k.Group,
			Start:           kafka.Start{Latest: k.Start == pipeline.StartLatest, Time: k.StartTime, Offsets: k.StartOffsets},
			Partitions:      k.Assign,
			ReadUncommitted: k.Isolation == pipeline.IsolationUncommitted,
			BatchBytesMax:   2 * max(s.lake.Stream.BytesMax, batchBytesMin),
		})
	}
	b, err := s.buffer(ctx)
	if err != nil {
		return nil, err
	}
	var readers []string
	for _, o := range s.lake.Sources {
		if o.Kind == pipeline.KindEmbedded && o.Topic == src.Topic {
			readers = append(readers, o.Name)
		}
	}
	return b.Source(ctx, src.Topic, buffer.SourceOptions{Name: src.Name, Readers: readers})
}

// batchBytesMin is what a batch of messages may have where stream.bytes_max is small: topics take messages of many MiB.
const batchBytesMin = 64 << 20

// sink opens a stream for writing.
func (s *streams) sink(ctx context.Context, src *pipeline.Source) (sink, error) {
	var (
		out sink
		err error
	)
	switch src.Kind {
	case pipeline.KindKafka:
		out, err = kafka.NewSink(ctx, kafkaConfig(s.a, src.Kafka, src.Kafka.Producer), src.Topic, kafka.SinkOptions{})
	case pipeline.KindPubSub:
		out, err = pubsub.NewSink(ctx, pubsubConfig(s.a, src.PubSub, src.PubSub.ProducerCredentials), src.Topic,
			pubsub.SinkOptions{Ordering: src.PubSub.Ordering})
	default:
		var b *buffer.Buffer
		if b, err = s.buffer(ctx); err != nil {
			return nil, err
		}
		out, err = b.Sink(ctx, src.Topic, buffer.SinkOptions{})
	}
	if err != nil {
		return nil, fmt.Errorf("source %s: %w", src.Name, howToMake(err))
	}
	return out, nil
}

// Close leaves the buffer.
func (s *streams) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.buf == nil {
		return nil
	}
	return s.buf.Close()
}

func kafkaConfig(a *app, k *pipeline.Kafka, login pipeline.SASL) kafka.Config {
	return kafka.Config{
		Brokers: k.Brokers,
		SASL:    kafka.SASL{Mechanism: login.Mechanism, User: login.User, Password: login.Password},
		TLS:     kafka.TLS{Enabled: k.TLS.Enabled, CAFile: k.TLS.CAFile, CertFile: k.TLS.CertFile, KeyFile: k.TLS.KeyFile, ServerName: k.TLS.ServerName},
		Log:     a.logger(),
	}
}

func pubsubConfig(a *app, p *pipeline.PubSub, credentials string) pubsub.Config {
	return pubsub.Config{Project: p.Project, CredentialsFile: credentials, Log: a.logger()}
}

// openBuffer hosts or joins the lake's embedded buffer.
func (a *app) openBuffer(ctx context.Context, lake *pipeline.Lake) (*buffer.Buffer, error) {
	b, err := buffer.Open(ctx, buffer.Options{Dir: bufferDir(lake), Sync: lake.Buffer.Sync, Log: a.logger()})
	if err != nil {
		return nil, fmt.Errorf("buffer %s: %w", bufferDir(lake), err)
	}
	return b, nil
}
