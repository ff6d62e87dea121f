package spark

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"time"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/pipeline"
)

// Environment variables from which the driver of a stream takes what stands in no file: the password of Kafka's user, and
// the key of the client's certificate as PEM of PKCS #8, the one form that Kafka's Java client reads.
const (
	PasswordEnv = "CAUCE_KAFKA_PASSWORD"
	KeyEnv      = "CAUCE_KAFKA_KEY"
)

// StreamSecrets is the environment, as NAME=VALUE, that the driver of a Kafka source needs.
func StreamSecrets(src *pipeline.Source) ([]string, error) {
	var env []string
	if src.Kafka.SASL.Mechanism != "" {
		env = append(env, PasswordEnv+"="+src.Kafka.SASL.Password)
	}
	if t := src.Kafka.TLS; t.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("source %s: the client's certificate: %w", src.Name, err)
		}
		key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
		if err != nil {
			return nil, fmt.Errorf("source %s: the key of the client's certificate: %w", src.Name, err)
		}
		env = append(env, KeyEnv+"="+string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
	}
	return env, nil
}

// StreamSpec shapes the micro-batches of a stream.
type StreamSpec struct {
	TriggerMillis int64 `json:"trigger_ms"` // from the begin of one to that of the next
	RowsMax       int   `json:"rows_max"`   // messages of one, at most
	AvailableNow  bool  `json:"available_now"`
}

// KafkaSpec says how a topic is reached and read.
type KafkaSpec struct {
	Topic      string            `json:"topic"`
	Brokers    []string          `json:"brokers"`
	Properties map[string]string `json:"properties"` // of Kafka's Java clients
	SASL       *SASLSpec         `json:"sasl,omitempty"`
	// PasswordEnv names the environment variable that holds the password of SASL's user.
	PasswordEnv string `json:"password_env,omitempty"`
	// KeyEnv names the one that holds the key of the client's certificate, which stands in Properties.
	KeyEnv    string `json:"key_env,omitempty"`
	Isolation string `json:"isolation"` // read_committed or read_uncommitted
	// Assign are the only partitions to read; empty: all.
	Assign []int32 `json:"assign,omitempty"`
	// Start is earliest, latest, time (then StartMillis, since 1970) or offsets (then StartOffsets, by partition); it counts
	// while the table has nothing of the topic.
	Start        string          `json:"start"`
	StartMillis  int64           `json:"start_ms,omitempty"`
	StartOffsets map[int32]int64 `json:"start_offsets,omitempty"`
	Group        string          `json:"group,omitempty"`
	// Tombstones says how messages without value delete rows; nil: they go to quarantine.
	Tombstones *TombstoneSpec `json:"tombstones,omitempty"`
}

// TombstoneSpec is pipeline.Tombstones.
type TombstoneSpec struct {
	Key  string `json:"key,omitempty"`
	Time string `json:"time,omitempty"`
}

// SASLSpec are credentials without their password.
type SASLSpec struct {
	Mechanism string `json:"mechanism"`
	User      string `json:"user"`
}

// Defaults where the lake file says nothing. A micro-batch of Spark's is worth its overhead only if it may be large.
const (
	streamTrigger = 30 * time.Second
	streamRowsMax = 10_000_000
)

// NewStream makes the App that takes the messages of a Kafka topic into their table.
func NewStream(l *pipeline.Lake, plan *pipeline.Plan, quarantine *delta.Schema, quarantinePath string) (*App, error) {
	src := plan.Source
	switch {
	case src.Kind != pipeline.KindKafka:
		return nil, fmt.Errorf("%w: source %s is of kind %s; Spark's side reads files and kafka", ErrUnsupported, src.Name, src.Kind)
	case src.Archive:
		return nil, fmt.Errorf("%w: source %s has archive: true", ErrUnsupported, src.Name)
	case src.Kafka.Registry != nil:
		return nil, fmt.Errorf("%w: source %s has kafka.registry", ErrUnsupported, src.Name)
	}
	app, err := newApp(l, plan, ModeStream, quarantine, quarantinePath)
	if err != nil {
		return nil, err
	}
	k := src.Kafka
	spec := &KafkaSpec{Topic: src.Topic, Brokers: k.Brokers, Isolation: k.Isolation, Assign: k.Assign, Start: k.Start, StartOffsets: k.StartOffsets, Group: k.Group, Properties: map[string]string{}}
	if k.Start == "" {
		spec.Start = pipeline.StartEarliest
	}
	if k.Isolation == "" {
		spec.Isolation = pipeline.IsolationCommitted
	}
	if !k.StartTime.IsZero() {
		spec.Start, spec.StartMillis = pipeline.StartTime, k.StartTime.UnixMilli()
	}
	if t := k.Tombstones; t != nil {
		spec.Tombstones = &TombstoneSpec{Key: t.Key, Time: t.Time}
	}
	protocol := "PLAINTEXT"
	if k.SASL.Mechanism != "" {
		protocol = "SASL_PLAINTEXT"
		spec.SASL, spec.PasswordEnv = &SASLSpec{Mechanism: k.SASL.Mechanism, User: k.SASL.User}, PasswordEnv
	}
	if t := k.TLS; t.Enabled {
		if protocol = "SSL"; k.SASL.Mechanism != "" {
			protocol = "SASL_SSL"
		}
		if t.ServerName != "" {
			return nil, fmt.Errorf("%w: source %s has kafka.tls.server_name; Kafka's Java client holds a certificate against the broker's host alone", ErrUnsupported, src.Name)
		}
		if t.CAFile != "" {
			certs, err := os.ReadFile(t.CAFile)
			if err != nil {
				return nil, fmt.Errorf("source %s: certificates to trust: %w", src.Name, err)
			}
			spec.Properties["ssl.truststore.type"], spec.Properties["ssl.truststore.certificates"] = "PEM", string(certs)
		}
		if t.CertFile != "" {
			chain, err := os.ReadFile(t.CertFile)
			if err != nil {
				return nil, fmt.Errorf("source %s: the client's certificate: %w", src.Name, err)
			}
			spec.Properties["ssl.keystore.type"], spec.Properties["ssl.keystore.certificate.chain"] = "PEM", string(chain)
			spec.KeyEnv = KeyEnv
		}
	}
	spec.Properties["security.protocol"] = protocol
	app.Source.Kafka = spec
	app.Stream = &StreamSpec{TriggerMillis: streamTrigger.Milliseconds(), RowsMax: streamRowsMax}
	if l.Stream.Trigger > 0 {
		app.Stream.TriggerMillis = l.Stream.Trigger.Milliseconds()
	}
	if l.Stream.RowsMax > 0 {
		app.Stream.RowsMax = l.Stream.RowsMax
	}
	return app, nil
}
