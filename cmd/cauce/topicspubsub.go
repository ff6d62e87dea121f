package main

import (
	"context"
	"fmt"
	"time"

	"github.com/cauce-data/cauce/connect/pubsub"
	"github.com/cauce-data/cauce/pipeline"
)

// createPubSub makes a source's topic and subscription in Pub/Sub.
func (a *app) createPubSub(ctx context.Context, s *pipeline.Source) (created bool, err error) {
	p := s.PubSub
	created, err = pubsub.CreateTopic(ctx, pubsubConfig(a, p, p.AdminCredentials), s.Topic, p.Subscription, pubsub.TopicOptions{
		Ordering: p.Ordering, Retention: p.Retention, AckDeadline: p.AckDeadline,
	})
	if err != nil {
		return created, fmt.Errorf("source %s: %w", s.Name, err)
	}
	return created, nil
}

// describePubSub asks Pub/Sub about a source's topic and subscription and compares the answer with what the lake file wants.
func (a *app) describePubSub(ctx context.Context, s *pipeline.Source) (topicReport, error) {
	p := s.PubSub
	c := pubsubConfig(a, p, p.AdminCredentials)
	t, err := pubsub.Describe(ctx, c, s.Topic, p.Subscription)
	if err != nil {
		return topicReport{}, fmt.Errorf("source %s: %w", s.Name, howToMake(err))
	}
	return topicReport{
		Source: s.Name, Kind: s.Kind, Topic: s.Topic, Subscription: p.Subscription, Incarnation: c.Incarnation(&t.Subscription),
		RetentionS: int64(t.Subscription.Retention / time.Second), RetentionB: -1, Messages: -1, Warnings: subscriptionWarnings(&t.Subscription, s),
	}, nil
}

// subscriptionWarnings are the ways in which a subscription may lose events, or differs from the lake file.
func subscriptionWarnings(t *pubsub.Subscription, s *pipeline.Source) []string {
	out := []string{}
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	p := s.PubSub
	switch {
	case t.Detached || t.Topic == "":
		say("subscription %s has lost its topic: it takes no more messages; delete it and make it anew", t.Name)
	case t.Topic != s.Topic:
		say("subscription %s reads topic %s, not %s", t.Name, t.Topic, s.Topic)
	}
	if t.Pushes {
		say("subscription %s sends its messages elsewhere, so the lake cannot pull them", t.Name)
	}
	if t.Retention > 0 && t.Retention < p.LongestStop {
		say("subscription %s keeps messages for %s, less than the longest planned stop of %s (pubsub.longest_stop): a stream that stands still so long loses events; raise its message retention",
			t.Name, days(t.Retention), days(p.LongestStop))
	}
	if t.Expires > 0 {
		say("subscription %s is deleted by the service after %s without a reader, with all that it holds; let it never expire", t.Name, days(t.Expires))
	}
	if t.DeadLetter != "" {
		say("subscription %s gives messages that were delivered %d times to %s: they never come into the table", t.Name, t.Attempts, t.DeadLetter)
	}
	if t.Filter != "" {
		say("subscription %s lets only messages pass that satisfy %s", t.Name, t.Filter)
	}
	if t.ID == "" {
		say("subscription %s was not made by cauce topics create: if it is deleted and made again nobody can tell, and what it held is missed in silence; a label %s with a value of its own mends that",
			t.Name, pubsub.IDLabel)
	}
	if t.Ordering != p.Ordering {
		say("message ordering is %t in subscription %s and %t in the lake file (pubsub.ordering)", t.Ordering, t.Name, p.Ordering)
	}
	if p.Retention > 0 && t.Retention != p.Retention {
		say("subscription %s keeps messages for %s, the lake file says %s", t.Name, days(t.Retention), days(p.Retention))
	}
	return out
}
