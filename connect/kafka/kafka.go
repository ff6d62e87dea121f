// Package kafka connects the lake to Apache Kafka: a Source that reads a topic from any offset the broker still has, a
// Sink that publishes with acks=all and idempotence, and what an administrator of a topic needs. It speaks the wire
// protocol through franz-go.
//
// Offsets live in the lake's table and nowhere else: a Source never starts from what a consumer group has stored. Group
// offsets are only published, on request, so that lag monitors see them.
package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/cauce-data/cauce/pipeline"
)

// Kind begins the origin of every record that came from Kafka.
const Kind = "kafka"

// Errors to branch on.
var (
	// ErrUnavailable says that no broker could be reached for a while.
	ErrUnavailable = pipeline.Unavailable("no Kafka broker can be reached")
	// ErrDenied says that the broker refused the credentials or what they may do.
	ErrDenied = errors.New("the Kafka broker denies access")
	// ErrInsecure says that a broker and this side do not agree on how the connection is secured.
	ErrInsecure = errors.New("no secure connection to the Kafka broker")
	// ErrTLS says that a file of Config.TLS cannot be used.
	ErrTLS = errors.New("kafka.tls")
	// ErrNoTopic says that a topic does not exist.
	ErrNoTopic = errors.New("topic does not exist")
	// ErrClosed says that a Source or Sink has been closed.
	ErrClosed = errors.New("closed")
)

// How SASL authenticates.
const (
	SASLPlain       = "PLAIN"
	SASLSCRAMSHA256 = "SCRAM-SHA-256"
	SASLSCRAMSHA512 = "SCRAM-SHA-512"
)

// Config says how brokers are reached. Only Brokers is mandatory.
type Config struct {
	Brokers  []string // host:port
	ClientID string   // default "cauce"
	SASL     SASL
	TLS      TLS
	Log      *slog.Logger // nil: nothing is logged
}

// SASL are the credentials; the zero value is none.
type SASL struct {
	Mechanism string // SASLPlain, SASLSCRAMSHA256 or SASLSCRAMSHA512
	User      string
	Password  string
}

// TLS says how the connection is encrypted; the zero value is not at all.
type TLS struct {
	Enabled bool
	// CAFile holds the PEM certificates to trust; "": those of the system.
	CAFile string
	// CertFile and KeyFile are the client's own, for brokers that ask for them.
	CertFile, KeyFile string
	ServerName        string // "": the broker's host
}

func (t TLS) config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("%w: certificates to trust: %w", ErrTLS, err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%w: %s holds no PEM certificate", ErrTLS, t.CAFile)
		}
	}
	if (t.CertFile == "") != (t.KeyFile == "") {
		return nil, fmt.Errorf("%w: a client certificate needs both its certificate and its key file", ErrTLS)
	}
	if t.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("%w: client certificate: %w", ErrTLS, err)
		}
		c.Certificates = []tls.Certificate{cert}
	}
	return c, nil
}

func (s SASL) mechanism() (sasl.Mechanism, error) {
	switch strings.ToUpper(s.Mechanism) {
	case SASLPlain:
		return plain.Auth{User: s.User, Pass: s.Password}.AsMechanism(), nil
	case SASLSCRAMSHA256:
		return scram.Auth{User: s.User, Pass: s.Password}.AsSha256Mechanism(), nil
	case SASLSCRAMSHA512:
		return scram.Auth{User: s.User, Pass: s.Password}.AsSha512Mechanism(), nil
	}
	return nil, fmt.Errorf("kafka: SASL mechanism %q: known are %s, %s and %s", s.Mechanism, SASLPlain, SASLSCRAMSHA256, SASLSCRAMSHA512)
}

// options are what every client of this package has.
func (c Config) options() ([]kgo.Opt, error) {
	if len(c.Brokers) == 0 {
		return nil, errors.New("kafka: no broker is named")
	}
	id := c.ClientID
	if id == "" {
		id = "cauce"
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...),
		kgo.ClientID(id),
		kgo.DialTimeout(5 * time.Second),
		// A broker that answers nothing is as good as gone: try another, or the same again.
		kgo.RequestTimeoutOverhead(10 * time.Second),
		kgo.RetryBackoffFn(func(tries int) time.Duration {
			return min(100*time.Millisecond<<min(tries, 5), 2*time.Second)
		}),
		kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.MetadataMaxAge(30 * time.Second),
	}
	if c.TLS.Enabled {
		t, err := c.TLS.config()
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.DialTLSConfig(t))
	}
	if c.SASL.Mechanism != "" {
		m, err := c.SASL.mechanism()
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.SASL(m))
	}
	return opts, nil
}

func (c Config) log() *slog.Logger {
	if c.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Log
}

// patience bounds how long an operation that somebody waits for tries to reach a broker.
const patience = 30 * time.Second

// closePatience bounds how long Close waits for acknowledgements.
const closePatience = 10 * time.Second

// explain gives an error of the wire its class, and says what to do about it.
func explain(c Config, err error) error {
	var (
		refused   *net.OpError
		untrusted *tls.CertificateVerificationError
		noTLS     tls.RecordHeaderError
		ended     *kgo.ErrFirstReadEOF
	)
	brokers := strings.Join(c.Brokers, ", ")
	switch {
	case err == nil || errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, kerr.SaslAuthenticationFailed), errors.Is(err, kerr.UnsupportedSaslMechanism), errors.Is(err, kerr.IllegalSaslState):
		return fmt.Errorf("%w: user %q with %s: %w", ErrDenied, c.SASL.User, c.SASL.Mechanism, err)
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.GroupAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed):
		return fmt.Errorf("%w: the role of user %q does not allow it: %w", ErrDenied, c.SASL.User, err)
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID):
		return ErrNoTopic // the broker's own words say no more
	case errors.As(err, &untrusted):
		return fmt.Errorf("%w: the certificate of a broker of %s is not trusted (kafka.tls.ca names the file of those to trust, kafka.tls.server_name the broker's name): %w", ErrInsecure, brokers, err)
	case errors.As(err, &noTLS):
		return fmt.Errorf("%w: a broker of %s does not speak TLS at this address; leave kafka.tls out, or name its port for TLS: %w", ErrInsecure, brokers, err)
	case !c.TLS.Enabled && strings.Contains(err.Error(), "tls alert"): // the library has no type for it
		return fmt.Errorf("%w: a broker of %s wants TLS (kafka.tls): %w", ErrInsecure, brokers, err)
	case errors.As(err, &ended) && !c.TLS.Enabled:
		return fmt.Errorf("%w: a broker of %s ends the connection at once, as one does that wants TLS (kafka.tls) or credentials (kafka.sasl): %w", ErrInsecure, brokers, err)
	case errors.As(err, &ended):
		return fmt.Errorf("%w: a broker of %s ends the connection at once, as one does that wants credentials (kafka.sasl) or a client's certificate (kafka.tls.cert): %w", ErrInsecure, brokers, err)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &refused):
		return fmt.Errorf("%w (%s): %w", ErrUnavailable, brokers, err)
	}
	return err
}

// Permanent tells which errors of a Sink another try does not mend: somebody must change a role, a topic or a setting.
func Permanent(err error) bool {
	return errors.Is(err, ErrDenied) || errors.Is(err, ErrInsecure) || errors.Is(err, ErrNoTopic) || errors.Is(err, kerr.MessageTooLarge)
}

// Topic describes a topic as the cluster has it.
type Topic struct {
	Name       string
	Cluster    string // id of the cluster
	ID         string // id of the topic, which a topic of the same name made later does not share; "" before Kafka 2.8
	Partitions int32
	// Retention is how long the broker keeps messages; negative: for ever; 0: unknown, for lack of permission.
	Retention time.Duration
	// RetentionBytes bounds each partition; negative: no bound.
	RetentionBytes int64
	Compacted      bool
	Replication    int16
	Starts, Ends   map[int32]int64 // first offset and the one after the last
}

// Incarnation names the physical log: cluster and topic id.
func (t *Topic) Incarnation() string {
	id := t.ID
	if id == "" {
		id = "name"
	}
	return t.Cluster + "." + id
}

// describe asks the cluster about a topic.
func describe(ctx context.Context, c Config, adm *kadm.Client, topic string) (*Topic, error) {
	var m kadm.Metadata
	err := patiently(ctx, func() (err error) {
		m, err = adm.Metadata(ctx, topic)
		return explain(c, err)
	})
	if err != nil {
		return nil, err
	}
	d, ok := m.Topics[topic]
	if !ok {
		return nil, fmt.Errorf("%w", ErrNoTopic)
	}
	if d.Err != nil {
		return nil, explain(c, d.Err)
	}
	t := &Topic{Name: topic, Cluster: m.Cluster, Partitions: int32(len(d.Partitions))} //nolint:gosec // few
	if t.Cluster == "" {
		t.Cluster = "cluster"
	}
	if d.ID != (kadm.TopicID{}) {
		t.ID = base64.RawURLEncoding.EncodeToString(d.ID[:])
	}
	for _, p := range d.Partitions {
		t.Replication = int16(len(p.Replicas)) //nolint:gosec // few
	}
	return t, nil
}

// Describe tells what a cluster knows of a topic, offsets and retention included.
func Describe(ctx context.Context, c Config, topic string) (*Topic, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cl, adm, err := admin(c)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	t, err := describe(ctx, c, adm, topic)
	if err != nil {
		return nil, fmt.Errorf("topic %s: %w", topic, err)
	}
	if t.Starts, t.Ends, err = offsets(ctx, c, adm, topic); err != nil {
		return nil, fmt.Errorf("topic %s: %w", topic, err)
	}
	t.RetentionBytes = -1
	// Reading the configuration is a permission of its own, which a streaming job does not need.
	if rc, err := adm.DescribeTopicConfigs(ctx, topic); err == nil {
		for _, r := range rc {
			if r.Err != nil {
				continue
			}
			for _, kv := range r.Configs {
				var n int64
				switch kv.Key {
				case "retention.ms":
					if _, err := fmt.Sscan(kv.MaybeValue(), &n); err == nil {
						t.Retention = time.Duration(n) * time.Millisecond
						if n < 0 || n > int64(maxRetention/time.Millisecond) {
							t.Retention = -1
						}
					}
				case "retention.bytes":
					if _, err := fmt.Sscan(kv.MaybeValue(), &n); err == nil {
						t.RetentionBytes = n
					}
				case "cleanup.policy":
					t.Compacted = strings.Contains(kv.MaybeValue(), "compact")
				}
			}
		}
	}
	return t, nil
}

// maxRetention is beyond what a time.Duration holds.
const maxRetention = 290 * 365 * 24 * time.Hour

func admin(c Config) (*kgo.Client, *kadm.Client, error) {
	opts, err := c.options()
	if err != nil {
		return nil, nil, err
	}
	cl, err := kgo.NewClient(append(opts, kgo.RetryTimeout(patience))...)
	if err != nil {
		return nil, nil, fmt.Errorf("kafka: %w", err)
	}
	return cl, kadm.NewClient(cl), nil
}

// patiently tries again while no broker can be reached, until ctx ends.
func patiently(ctx context.Context, try func() error) error {
	for {
		err := try()
		passing := errors.Is(err, ErrUnavailable) || kerr.IsRetriable(err) && !errors.Is(err, ErrNoTopic)
		if !passing || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// offsets are the first offset of each partition and the one behind the last.
func offsets(ctx context.Context, c Config, adm *kadm.Client, topic string) (starts, ends map[int32]int64, err error) {
	read := func(list func(context.Context, ...string) (kadm.ListedOffsets, error)) (map[int32]int64, error) {
		var l kadm.ListedOffsets
		err := patiently(ctx, func() (err error) {
			if l, err = list(ctx, topic); err == nil {
				err = l.Error()
			}
			return explain(c, err)
		})
		if err != nil {
			return nil, err
		}
		out := map[int32]int64{}
		for p, o := range l[topic] {
			out[p] = o.Offset
		}
		return out, nil
	}
	if starts, err = read(adm.ListStartOffsets); err != nil {
		return nil, nil, err
	}
	ends, err = read(adm.ListEndOffsets)
	return starts, ends, err
}

// TopicOptions shape a new topic.
type TopicOptions struct {
	Partitions  int32         // default: the broker's
	Replication int16         // default: the broker's
	Retention   time.Duration // 0: the broker's; negative: for ever
}

// CreateTopic makes a topic. created is false if there was one of that name already, which stays as it is.
func CreateTopic(ctx context.Context, c Config, topic string, o TopicOptions) (created bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cl, adm, err := admin(c)
	if err != nil {
		return false, err
	}
	defer cl.Close()
	if o.Partitions <= 0 {
		o.Partitions = -1
	}
	if o.Replication <= 0 {
		o.Replication = -1
	}
	configs := map[string]*string{}
	if o.Retention != 0 {
		v := "-1"
		if o.Retention > 0 {
			v = fmt.Sprint(o.Retention.Milliseconds())
		}
		configs["retention.ms"] = &v
	}
	r, err := adm.CreateTopic(ctx, o.Partitions, o.Replication, configs, topic)
	if err == nil {
		err = r.Err
	}
	if errors.Is(err, kerr.TopicAlreadyExists) {
		return false, nil
	}
	if err != nil {
		if r.ErrMessage != "" {
			err = fmt.Errorf("%w (%s)", err, r.ErrMessage)
		}
		return false, fmt.Errorf("create topic %s: %w", topic, explain(c, err))
	}
	return true, nil
}
