// Package pubsub connects the lake to Google Pub/Sub: a Source that reads a topic through a subscription and
// acknowledges a message only when its row is in the table, a Sink that publishes with ordering keys, and what an
// administrator of a topic needs. It speaks to the service through Google's own client, and to the emulator where
// PUBSUB_EMULATOR_HOST is set.
//
// Pub/Sub has no offsets. It keeps each message until it is acknowledged, and may deliver it again at any time, in any
// order. So a record's position is its publish time in µs, its origin names its message id, and a message that comes
// again is the same row with the same order, which changes nothing.
package pubsub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"cloud.google.com/go/auth/credentials"
	client "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/google/uuid"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cauce-data/cauce/pipeline"
)

// Kind begins the origin of every record that came from Pub/Sub.
const Kind = "pubsub"

// Errors to branch on.
var (
	// ErrUnavailable says that the service could not be reached for a while.
	ErrUnavailable = pipeline.Unavailable("Pub/Sub cannot be reached")
	// ErrDenied says that the service refused the credentials or what they may do.
	ErrDenied = errors.New("Pub/Sub denies access")
	// ErrNoTopic says that a topic does not exist.
	ErrNoTopic = errors.New("topic does not exist")
	// ErrNoSubscription says that a subscription does not exist.
	ErrNoSubscription = errors.New("subscription does not exist")
	// ErrClosed says that a Source or Sink has been closed.
	ErrClosed = errors.New("closed")
)

// Config says how a project is reached. Only Project is mandatory.
type Config struct {
	Project string // id of the Google Cloud project
	// CredentialsFile is a key file; "": the credentials of the environment. The emulator wants none.
	CredentialsFile string
	Log             *slog.Logger // nil: nothing is logged
}

// EmulatorEnv names the environment variable with the address of an emulator that stands for the service.
const EmulatorEnv = "PUBSUB_EMULATOR_HOST"

// scope is what every client of this package asks for; roles say what it may do.
const scope = "https://www.googleapis.com/auth/pubsub"

func (c Config) connect(ctx context.Context) (*client.Client, error) {
	if c.Project == "" {
		return nil, errors.New("pubsub: no project is named")
	}
	opts := []option.ClientOption{
		// Requests into a connection that is half-open end by the keep-alive's own time limit, not by TCP's quarter of an hour.
		option.WithGRPCDialOption(grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 5 * time.Minute, Timeout: 20 * time.Second})),
	}
	if c.CredentialsFile != "" && os.Getenv(EmulatorEnv) == "" {
		//nolint:staticcheck // any kind of credentials will do, and the file is named by whoever runs the lake
		creds, err := credentials.DetectDefault(&credentials.DetectOptions{CredentialsFile: c.CredentialsFile, Scopes: []string{scope}})
		if err != nil {
			return nil, fmt.Errorf("pubsub: credentials %s: %w", c.CredentialsFile, err)
		}
		opts = append(opts, option.WithAuthCredentials(creds))
	}
	cl, err := client.NewClient(ctx, c.Project, opts...)
	if err != nil {
		return nil, fmt.Errorf("pubsub: project %s: %w", c.Project, err)
	}
	return cl, nil
}

func (c Config) log() *slog.Logger {
	if c.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Log
}

// where says which service is meant.
func (c Config) where() string {
	if host := os.Getenv(EmulatorEnv); host != "" {
		return "project " + c.Project + " of the emulator at " + host
	}
	return "project " + c.Project
}

func (c Config) topic(name string) string { return "projects/" + c.Project + "/topics/" + name }
func (c Config) subscription(name string) string {
	return "projects/" + c.Project + "/subscriptions/" + name
}

// patience bounds how long an operation that somebody waits for tries to reach the service.
const patience = 30 * time.Second

// closePatience bounds how long Close waits for acknowledgements.
const closePatience = 10 * time.Second

// deletedTopic is what a subscription says of a topic that is gone.
const deletedTopic = "_deleted-topic_"

// explain gives an error of the wire its class, and says what to do about it. missing is the class of NotFound.
func explain(c Config, err, missing error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	switch status.Code(err) {
	case codes.NotFound:
		return fmt.Errorf("%w in %s", missing, c.where()) // the service's own words say no more
	case codes.PermissionDenied, codes.Unauthenticated:
		return fmt.Errorf("%w in %s: %w", ErrDenied, c.where(), err)
	case codes.Unavailable, codes.DeadlineExceeded:
		return fmt.Errorf("%w (%s): %w", ErrUnavailable, c.where(), err)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w (%s): %w", ErrUnavailable, c.where(), err)
	}
	return err
}

// Permanent tells which errors of a Sink another try does not mend: somebody must change a role, a topic or a message.
func Permanent(err error) bool {
	return errors.Is(err, ErrDenied) || errors.Is(err, ErrNoTopic) || status.Code(err) == codes.InvalidArgument
}

// Topic describes a topic and one subscription of it as the service has them.
type Topic struct {
	Name string
	// ID is what CreateTopic marked the topic with; "": it was made by somebody else.
	ID           string
	Subscription Subscription
}

// Subscription describes a subscription as the service has it.
type Subscription struct {
	Name  string
	Topic string // without project; "" if it is deleted
	// ID is what CreateTopic marked the subscription with, and what one that is made anew does not share; "": it was made by
	// somebody else, and one that takes its place cannot be told from it.
	ID        string
	Ordering  bool
	Retention time.Duration // of messages that are not acknowledged
	// AckDeadline is how long a delivery stays with a reader that does not prolong it.
	AckDeadline time.Duration
	// Expires is after how long without a reader the service deletes it; 0: never.
	Expires time.Duration
	// DeadLetter is the topic that takes messages which were delivered Attempts times; "": none.
	DeadLetter string
	Attempts   int32
	Filter     string // only messages that it lets pass are delivered
	Detached   bool
	Pushes     bool // it sends messages elsewhere, so that they cannot be pulled
}

// IDLabel is the label by which a topic or subscription that Cauce made is known again.
const IDLabel = "cauce-id"

// Incarnation names the subscription as a log whose messages can be lost: another one has other messages.
func (c Config) Incarnation(s *Subscription) string {
	id := s.ID
	if id == "" {
		id = "unmarked"
	}
	return c.plainProject() + "." + s.Name + "." + id
}

// plainProject is the project without the colon of a domain, since colons part an origin.
func (c Config) plainProject() string { return strings.ReplaceAll(c.Project, ":", "/") }

func describeSubscription(ctx context.Context, c Config, cl *client.Client, name string) (*Subscription, error) {
	p, err := cl.SubscriptionAdminClient.GetSubscription(ctx, &pubsubpb.GetSubscriptionRequest{Subscription: c.subscription(name)})
	if err != nil {
		return nil, fmt.Errorf("subscription %s: %w", name, explain(c, err, ErrNoSubscription))
	}
	s := &Subscription{
		Name: name, ID: p.GetLabels()[IDLabel], Ordering: p.GetEnableMessageOrdering(),
		Retention: p.GetMessageRetentionDuration().AsDuration(), Expires: p.GetExpirationPolicy().GetTtl().AsDuration(),
		DeadLetter: p.GetDeadLetterPolicy().GetDeadLetterTopic(), Attempts: p.GetDeadLetterPolicy().GetMaxDeliveryAttempts(),
		AckDeadline: time.Duration(p.GetAckDeadlineSeconds()) * time.Second, Filter: p.GetFilter(), Detached: p.GetDetached(),
		Pushes: p.GetPushConfig().GetPushEndpoint() != "" || p.GetBigqueryConfig() != nil || p.GetCloudStorageConfig() != nil || p.GetBigtableConfig() != nil,
	}
	if t := p.GetTopic(); t != deletedTopic {
		s.Topic = strings.TrimPrefix(t, c.topic(""))
	}
	return s, nil
}

// Describe tells what the service knows of a topic and a subscription. The error is ErrNoTopic or ErrNoSubscription where
// one is missing.
func Describe(ctx context.Context, c Config, topic, subscription string) (*Topic, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cl, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	p, err := cl.TopicAdminClient.GetTopic(ctx, &pubsubpb.GetTopicRequest{Topic: c.topic(topic)})
	if err != nil {
		return nil, fmt.Errorf("topic %s: %w", topic, explain(c, err, ErrNoTopic))
	}
	s, err := describeSubscription(ctx, c, cl, subscription)
	if err != nil {
		return nil, err
	}
	return &Topic{Name: topic, ID: p.GetLabels()[IDLabel], Subscription: *s}, nil
}

// TopicOptions shape a new topic and its subscription.
type TopicOptions struct {
	Ordering    bool
	Retention   time.Duration // of the subscription; 0: the service's seven days
	AckDeadline time.Duration // of readers that do not choose one themselves; 0: the service's ten seconds
}

// CreateTopic makes a topic and a subscription of it. What is there already stays as it is; created is false if both
// were. The subscription never expires, whatever the lake's rest.
func CreateTopic(ctx context.Context, c Config, topic, subscription string, o TopicOptions) (created bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cl, err := c.connect(ctx)
	if err != nil {
		return false, err
	}
	defer cl.Close()
	made := func(err error) error {
		if status.Code(err) == codes.AlreadyExists {
			return nil
		}
		created = created || err == nil
		return err
	}
	_, err = cl.TopicAdminClient.CreateTopic(ctx, &pubsubpb.Topic{Name: c.topic(topic), Labels: map[string]string{IDLabel: uuid.NewString()}})
	if err := made(err); err != nil {
		return false, fmt.Errorf("create topic %s: %w", topic, explain(c, err, ErrNoTopic))
	}
	s := &pubsubpb.Subscription{
		Name: c.subscription(subscription), Topic: c.topic(topic), Labels: map[string]string{IDLabel: uuid.NewString()},
		EnableMessageOrdering: o.Ordering, AckDeadlineSeconds: int32(o.AckDeadline / time.Second), //nolint:gosec // at most 600
		ExpirationPolicy: &pubsubpb.ExpirationPolicy{},
	}
	if o.Retention > 0 {
		s.MessageRetentionDuration = durationpb.New(o.Retention)
	}
	_, err = cl.SubscriptionAdminClient.CreateSubscription(ctx, s)
	if err := made(err); err != nil {
		return created, fmt.Errorf("create subscription %s: %w", subscription, explain(c, err, ErrNoTopic))
	}
	return created, nil
}
