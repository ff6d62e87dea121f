package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cauce-data/cauce/connect/kafka"
	"github.com/cauce-data/cauce/connect/pubsub"
	"github.com/cauce-data/cauce/pipeline"
)

func newTopics(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "topics",
		Short: "Make and look at the topics of the lake file",
		Long: `Make and look at the topics of Kafka and Pub/Sub that the lake file's sources read, and the subscriptions of
Pub/Sub. Topics of the embedded buffer need no making.
The credentials are those of kafka.admin in the lake file, else of kafka.producer; for Pub/Sub those of
pubsub.admin_credentials, else of pubsub.producer_credentials.`,
	}, newTopicsCreate(a), newTopicsDescribe(a))
}

// topicReport is what `cauce topics` prints of one topic.
type topicReport struct {
	Source       string   `json:"source"`
	Kind         string   `json:"kind"` // kafka or pubsub
	Topic        string   `json:"topic"`
	Subscription string   `json:"subscription,omitempty"` // of pubsub
	Created      bool     `json:"created"`
	Incarnation  string   `json:"incarnation"` // cluster and topic id; project, subscription and its mark
	Partitions   int32    `json:"partitions"`  // of kafka, as are the next
	Replication  int16    `json:"replication"`
	RetentionS   int64    `json:"retention_seconds"` // -1: for ever, 0: not known, for lack of permission
	RetentionB   int64    `json:"retention_bytes"`   // of each partition; -1: no bound
	Messages     int64    `json:"messages"`          // offsets between the first and the end; transactions take some; -1: the service does not tell
	Warnings     []string `json:"warnings"`
}

// line says in words what the topic is.
func (t topicReport) line() string {
	verb := "there"
	if t.Created {
		verb = "created"
	}
	if t.Kind == pipeline.KindPubSub {
		return fmt.Sprintf("%s: %s; subscription %s, kept %s", t.Topic, verb, t.Subscription, t.kept())
	}
	return fmt.Sprintf("%s: %s; %s, replication %d, kept %s; %s offsets", t.Topic, verb, count(int64(t.Partitions), "partition"),
		t.Replication, t.kept(), thousands(t.Messages))
}

// kept says in words for how long the broker keeps messages.
func (t topicReport) kept() string {
	var s string
	switch {
	case t.RetentionS < 0:
		s = "for ever"
	case t.RetentionS == 0:
		s = "for an unknown time"
	default:
		s = "for " + days(time.Duration(t.RetentionS)*time.Second)
	}
	if t.RetentionB >= 0 {
		s += fmt.Sprintf(", at most %s bytes a partition", thousands(t.RetentionB))
	}
	return s
}

func copies(n int16) string {
	if n == 1 {
		return "1 copy"
	}
	return fmt.Sprintf("%d copies", n)
}

// days prints whole days as such, since nobody reads 168h0m0s as a week.
func days(d time.Duration) string {
	if day := 24 * time.Hour; d >= day && d%day == 0 {
		return count(int64(d/day), "day")
	}
	return d.String()
}

// topicSources are the sources that a topics command means: the named one, or all whose topics are made by hand.
func topicSources(lake *pipeline.Lake, name string) ([]*pipeline.Source, error) {
	if name != "" {
		s, err := streamSource(lake, name, "")
		if err == nil && s.Kind == pipeline.KindEmbedded {
			err = usagef("source %q is of kind %s: its topic is made when the first event comes", name, s.Kind)
		}
		return []*pipeline.Source{s}, err
	}
	var out []*pipeline.Source
	for _, s := range lake.Sources {
		if s.Kind == pipeline.KindKafka || s.Kind == pipeline.KindPubSub {
			out = append(out, s)
		}
	}
	if len(out) == 0 {
		return nil, usagef("%s has no source of kind kafka or pubsub; topics of the embedded buffer are made when the first event comes", lake.File)
	}
	return out, nil
}

// describeTopic asks the broker about a source's topic and compares the answer with what the lake file wants.
func (a *app) describeTopic(ctx context.Context, s *pipeline.Source) (topicReport, error) {
	if s.Kind == pipeline.KindPubSub {
		return a.describePubSub(ctx, s)
	}
	t, err := kafka.Describe(ctx, kafkaConfig(a, s.Kafka, s.Kafka.Admin), s.Topic)
	if err != nil {
		return topicReport{}, fmt.Errorf("source %s: %w", s.Name, howToMake(err))
	}
	r := topicReport{
		Source: s.Name, Kind: s.Kind, Topic: s.Topic, Incarnation: t.Incarnation(), Partitions: t.Partitions, Replication: t.Replication,
		RetentionS: int64(t.Retention / time.Second), RetentionB: t.RetentionBytes, Warnings: topicWarnings(t, s.Kafka),
	}
	if t.Retention < 0 {
		r.RetentionS = -1
	}
	for p, end := range t.Ends {
		r.Messages += end - t.Starts[p]
	}
	return r, nil
}

// howToMake adds to the error of a topic that does not exist how it is made.
func howToMake(err error) error {
	if errors.Is(err, kafka.ErrNoTopic) || errors.Is(err, pubsub.ErrNoTopic) || errors.Is(err, pubsub.ErrNoSubscription) {
		return fmt.Errorf("%w; make it with: cauce topics create", err)
	}
	return err
}

// topicWarnings are the ways in which a topic may lose events, or differs from the lake file.
func topicWarnings(t *kafka.Topic, k *pipeline.Kafka) []string {
	out := []string{}
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	switch {
	case t.Retention == 0:
		say("its retention is unknown, for the role may not read the topic's configuration (DescribeConfigs)")
	case t.Retention > 0 && t.Retention < k.LongestStop:
		say("it keeps messages for %s, less than the longest planned stop of %s (kafka.longest_stop): a stream that stands still so long loses events; raise retention.ms",
			days(t.Retention), days(k.LongestStop))
	}
	if t.RetentionBytes >= 0 {
		say("retention.bytes lets it forget messages before their time when a partition passes %s bytes", thousands(t.RetentionBytes))
	}
	if t.Compacted {
		say("it is compacted: of several messages with one key only the last is sure to be read")
	}
	if k.Partitions > 0 && int(t.Partitions) != k.Partitions {
		say("it has %s, the lake file says %d", count(int64(t.Partitions), "partition"), k.Partitions)
	}
	if k.Retention > 0 && t.Retention != 0 && t.Retention != k.Retention {
		kept := "messages for ever"
		if t.Retention > 0 {
			kept = "messages for " + days(t.Retention)
		}
		say("it keeps %s, the lake file says %s", kept, days(k.Retention))
	}
	return out
}

func newTopicsCreate(a *app) *cobra.Command {
	var (
		source      string
		replication int16
	)
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make the topics of the lake file that do not exist yet",
		Long: `Make the topics of the lake file: those of Kafka with its partitions and retention (kafka.partitions,
kafka.retention), those of Pub/Sub with their subscription (pubsub.ordering, pubsub.retention).
What exists stays as it is; where it differs from the lake file or from --replication, a warning says so.`,
		Example: `  cauce topics create
  cauce topics create --source live --replication 3`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("replication") && replication < 0 {
				return usagef("--replication %d: it must not be less than 0", replication)
			}
			return a.topics(cmd.Context(), source, replication, func(ctx context.Context, s *pipeline.Source) (bool, error) {
				if s.Kind == pipeline.KindPubSub {
					return a.createPubSub(ctx, s)
				}
				created, err := kafka.CreateTopic(ctx, kafkaConfig(a, s.Kafka, s.Kafka.Admin), s.Topic, kafka.TopicOptions{
					Partitions:  int32(s.Kafka.Partitions), //nolint:gosec // at most 100,000
					Replication: replication, Retention: s.Kafka.Retention,
				})
				if err != nil {
					err = fmt.Errorf("source %s: %w", s.Name, err)
				}
				return created, err
			})
		},
	}
	cmd.Flags().StringVar(&source, "source", "", "only the topic of this source (default: of all)")
	cmd.Flags().Int16Var(&replication, "replication", 0, "copies of each partition of Kafka (0: the broker's default)")
	return cmd
}

func newTopicsDescribe(a *app) *cobra.Command {
	var source string
	cmd := &cobra.Command{
		Use:   "describe",
		Short: "Show partitions, retention and messages of the lake file's topics",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.topics(cmd.Context(), source, 0, nil)
		},
	}
	cmd.Flags().StringVar(&source, "source", "", "only the topic of this source (default: of all)")
	return cmd
}

// topics makes, if create is given, and describes the topics of the lake's sources, each topic once. replication is how
// many copies a topic of Kafka shall have; 0: any number.
func (a *app) topics(ctx context.Context, source string, replication int16, create func(context.Context, *pipeline.Source) (bool, error)) error {
	lake, err := a.loadLake()
	if err != nil {
		return err
	}
	sources, err := topicSources(lake, source)
	if err != nil {
		return err
	}
	reports := []topicReport{}
	seen := map[string]bool{}
	for _, s := range sources {
		id := s.Kind + ":" + s.Topic
		if k := s.Kafka; k != nil {
			id += ":" + strings.Join(k.Brokers, ",")
		}
		if p := s.PubSub; p != nil {
			id += ":" + p.Project + "/" + p.Subscription
		}
		if seen[id] {
			continue
		}
		seen[id] = true
		var created bool
		if create != nil {
			if created, err = create(ctx, s); err != nil {
				return err
			}
		}
		r, err := a.describeNew(ctx, s, created)
		if err != nil {
			return err
		}
		if s.Kind == pipeline.KindKafka && replication > 0 && r.Replication != replication {
			r.Warnings = append(r.Warnings, fmt.Sprintf("it has %s of each partition, --replication says %d", copies(r.Replication), replication))
		}
		reports = append(reports, r)
	}
	return a.print(struct {
		Topics []topicReport `json:"topics"`
	}{reports}, func(w io.Writer) error {
		for _, r := range reports {
			if _, err := fmt.Fprintln(w, r.line()); err != nil {
				return err
			}
			for _, warning := range r.Warnings {
				if _, err := fmt.Fprintf(w, "  warning: %s\n", warning); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// describeNew is describeTopic, but waits for a topic that was made a moment ago: the controller knows it before the
// brokers do.
func (a *app) describeNew(ctx context.Context, s *pipeline.Source, created bool) (topicReport, error) {
	deadline := time.Now().Add(20 * time.Second)
	for {
		r, err := a.describeTopic(ctx, s)
		if err == nil || !created || ctx.Err() != nil || time.Now().After(deadline) {
			r.Created = created
			return r, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}
