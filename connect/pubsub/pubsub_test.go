package pubsub_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cauce-data/cauce/connect/pubsub"
	"github.com/cauce-data/cauce/internal/pubsubtest"
	"github.com/cauce-data/cauce/pipeline"
)

const (
	topic = "trades"
	sub   = "trades-lake"
)

var config = pubsub.Config{Project: pubsubtest.Project}

func create(t *testing.T, o pubsub.TopicOptions) {
	t.Helper()
	if made, err := pubsub.CreateTopic(t.Context(), config, topic, sub, o); err != nil || !made {
		t.Fatalf("made %t, %v", made, err)
	}
}

func open(t *testing.T, o pubsub.SourceOptions) *pubsub.Source {
	t.Helper()
	o.Name, o.Topic, o.Subscription = "live", topic, sub
	s, err := pubsub.OpenSource(t.Context(), config, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func publish(t *testing.T, ordering bool, keys, n int) {
	t.Helper()
	s, err := pubsub.NewSink(t.Context(), config, topic, pubsub.SinkOptions{Ordering: ordering})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := s.Publish(t.Context(), fmt.Appendf(nil, "k%d", i%keys), fmt.Sprint(i), fmt.Appendf(nil, `{"n":%d}`, i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s.Acked() != int64(n) || s.Waiting() != 0 {
		t.Fatalf("%d of %d acknowledged, %d wait", s.Acked(), n, s.Waiting())
	}
}

// fetch takes n records out of a source.
func fetch(t *testing.T, s *pubsub.Source, n int) []pipeline.Record {
	t.Helper()
	var out []pipeline.Record
	for deadline := time.Now().Add(30 * time.Second); len(out) < n && time.Now().Before(deadline); {
		recs, err := s.Fetch(t.Context(), n-len(out), 0, 200*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, recs...)
	}
	if len(out) != n {
		t.Fatalf("%d records, want %d", len(out), n)
	}
	return out
}

func TestMessagesArriveInTheOrderOfTheirKey(t *testing.T) {
	pubsubtest.New(t)
	create(t, pubsub.TopicOptions{Ordering: true})
	publish(t, true, 4, 100)
	s := open(t, pubsub.SourceOptions{})
	if err := s.Seek(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	last, origins := map[string]int{}, map[string]bool{}
	for _, r := range fetch(t, s, 100) {
		var n int
		if _, err := fmt.Sscanf(string(r.Value), `{"n":%d}`, &n); err != nil {
			t.Fatal(err)
		}
		if before, ok := last[string(r.Key)]; ok && n <= before || string(r.Key) != fmt.Sprintf("k%d", n%4) {
			t.Errorf("key %s: %d came after %d", r.Key, n, before)
		}
		last[string(r.Key)] = n
		if id, ok := strings.CutPrefix(r.Origin, "pubsub:"+pubsubtest.Project+":"+topic+"/"); !ok || id == "" || r.Offset != r.Time.UnixMicro() {
			t.Errorf("origin %s, position %d", r.Origin, r.Offset)
		}
		if origins[r.Origin] {
			t.Errorf("%s comes twice", r.Origin)
		}
		origins[r.Origin] = true
	}
}

// What was given and not acknowledged comes again: after a Seek from memory, after the end of the source from the service.
// What was acknowledged does not.
func TestOnlyAcknowledgedMessagesAreForgotten(t *testing.T) {
	pubsubtest.New(t)
	create(t, pubsub.TopicOptions{})
	publish(t, false, 5, 50)
	ctx := t.Context()
	s := open(t, pubsub.SourceOptions{})
	if _, err := s.Fetch(ctx, 1, 0, 0); err == nil {
		t.Error("Fetch before Seek")
	}
	if err := s.Seek(ctx, nil); err != nil {
		t.Fatal(err)
	}
	first := fetch(t, s, 50)
	if err := s.Acknowledge(ctx, 20); err != nil {
		t.Fatal(err)
	}
	if err := s.Seek(ctx, nil); err != nil {
		t.Fatal(err)
	}
	again := fetch(t, s, 30)
	for i, r := range again {
		if r.Origin != first[20+i].Origin || string(r.Key) != string(first[20+i].Key) {
			t.Errorf("record %d after Seek: %s, want %s", i, r.Origin, first[20+i].Origin)
		}
	}
	if err := s.Acknowledge(ctx, 10); err != nil {
		t.Fatal(err)
	}
	if err := s.Acknowledge(ctx, 21); err == nil {
		t.Error("more is acknowledged than was given")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Seek(ctx, nil); !errors.Is(err, pubsub.ErrClosed) {
		t.Errorf("Seek after Close: %v", err)
	}

	began := time.Now()
	s = open(t, pubsub.SourceOptions{})
	if err := s.Seek(ctx, nil); err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{}
	for _, r := range first[30:] {
		want[r.Origin] = true
	}
	for _, r := range fetch(t, s, 20) {
		if !want[r.Origin] {
			t.Errorf("%s came again", r.Origin)
		}
		delete(want, r.Origin)
	}
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("they came back after %v: Close did not give them back", took)
	}
	if recs, err := s.Fetch(ctx, 10, 0, time.Second); err != nil || len(recs) != 0 {
		t.Errorf("%d more, %v", len(recs), err)
	}
}

// However much waits, only so much is here: the rest comes when something is acknowledged.
func TestHeldMessagesAreBounded(t *testing.T) {
	pubsubtest.NewInProcess(t)
	create(t, pubsub.TopicOptions{})
	publish(t, false, 10, 500)
	ctx := t.Context()
	s := open(t, pubsub.SourceOptions{HeldMax: 64})
	if err := s.Seek(ctx, nil); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for len(seen) < 500 {
		recs, err := s.Fetch(ctx, 500, 0, 300*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		if len(recs) > 64 {
			t.Fatalf("%d records are here, at most 64 may be", len(recs))
		}
		if len(recs) == 0 {
			t.Fatalf("nothing comes after %d", len(seen))
		}
		for _, r := range recs {
			seen[r.Origin] = true
		}
		if err := s.Acknowledge(ctx, len(recs)); err != nil {
			t.Fatal(err)
		}
	}
}

// What stands in the way of reading is said before anything is read, or as soon as it happens.
func TestWhatCannotBeRead(t *testing.T) {
	srv := pubsubtest.NewInProcess(t)
	ctx := t.Context()
	try := func(o pubsub.SourceOptions) error {
		s, err := pubsub.OpenSource(ctx, config, o)
		if err == nil {
			_ = s.Close()
		}
		return err
	}
	o := pubsub.SourceOptions{Name: "live", Topic: topic, Subscription: sub}
	if err := try(o); !errors.Is(err, pubsub.ErrNoSubscription) || !strings.Contains(err.Error(), "cauce topics create") {
		t.Errorf("no subscription: %v", err)
	}
	if _, err := pubsub.NewSink(ctx, config, topic, pubsub.SinkOptions{}); !errors.Is(err, pubsub.ErrNoTopic) {
		t.Errorf("no topic: %v", err)
	}
	if _, err := pubsub.Describe(ctx, config, topic, sub); !errors.Is(err, pubsub.ErrNoTopic) {
		t.Errorf("describe: %v", err)
	}
	create(t, pubsub.TopicOptions{Ordering: true, Retention: time.Hour})
	if made, err := pubsub.CreateTopic(ctx, config, topic, sub, pubsub.TopicOptions{}); made || err != nil {
		t.Errorf("made twice: %t, %v", made, err)
	}
	d, err := pubsub.Describe(ctx, config, topic, sub)
	if err != nil || !d.Subscription.Ordering || d.Subscription.Retention != time.Hour || d.Subscription.ID == "" || d.Subscription.Topic != topic {
		t.Errorf("describe: %+v, %v", d, err)
	}
	other := o
	other.Topic = "others"
	if err := try(other); err == nil || !strings.Contains(err.Error(), "reads topic trades, not others") {
		t.Errorf("of another topic: %v", err)
	}

	s := open(t, pubsub.SourceOptions{WatchEvery: time.Millisecond})
	var gap *pipeline.GapError
	old := time.Now().Add(-2 * time.Hour)
	if err := s.Seek(ctx, map[int32]pipeline.Position{0: {Offset: old.UnixMicro(), Time: old}}); !errors.As(err, &gap) || gap.From != old.UnixMicro()+1 {
		t.Errorf("a position that is older than what the subscription keeps: %v", err)
	}
	if err := s.Seek(ctx, map[int32]pipeline.Position{0: {Offset: 1, Time: time.Now().Add(-time.Minute)}}); err != nil {
		t.Errorf("a position of a minute ago: %v", err)
	}
	for age, want := range map[time.Duration]bool{10 * time.Minute: false, 31 * time.Minute: true} {
		at := time.Now().Add(-age)
		moved, err := s.Renewed(ctx, map[int32]pipeline.Position{0: {Offset: at.UnixMicro(), Time: at}})
		if due := len(moved) > 0; err != nil || due != want {
			t.Errorf("a position of %s ago, where messages are kept for an hour, is renewed: %t, %v", age, due, err)
		}
	}
	gone := func(what string, want func(error) bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; {
			_, err := s.Fetch(ctx, 1, 0, 50*time.Millisecond)
			if err != nil {
				if !want(err) {
					t.Errorf("%s: %v", what, err)
				}
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: nothing is said", what)
			}
		}
	}
	before, err := s.Incarnation(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.DeleteSubscription(ctx, sub); err != nil {
		t.Fatal(err)
	}
	gone("the subscription is deleted", func(err error) bool { return errors.Is(err, pubsub.ErrNoSubscription) })
	if made, err := pubsub.CreateTopic(ctx, config, topic, sub, pubsub.TopicOptions{}); !made || err != nil {
		t.Fatalf("made again: %t, %v", made, err)
	}
	s.Release()
	after, err := s.Incarnation(ctx)
	if err != nil || after == before {
		t.Errorf("a subscription that was made again is %s, as before: %v", after, err)
	}
	if g := s.Succeeds([]string{before}); g == nil || !strings.Contains(g.Error(), "another subscription") {
		t.Errorf("what it follows: %v", g)
	}
	if err := s.Seek(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if err := srv.DeleteSubscription(ctx, sub); err != nil {
		t.Fatal(err)
	}
	if _, err := pubsub.CreateTopic(ctx, config, topic, sub, pubsub.TopicOptions{}); err != nil {
		t.Fatal(err)
	}
	gone("the subscription is made again while it is read", func(err error) bool {
		return errors.As(err, &gap) || errors.Is(err, pubsub.ErrNoSubscription)
	})
	s.Release()
	if err := srv.DeleteTopic(ctx, topic); err != nil {
		t.Fatal(err)
	}
	if err := try(o); !errors.Is(err, pubsub.ErrNoTopic) {
		t.Errorf("the topic is deleted: %v", err)
	}
}

// A tombstone and an empty message are two things.
func TestTombstones(t *testing.T) {
	pubsubtest.NewInProcess(t)
	create(t, pubsub.TopicOptions{})
	for _, ordering := range []bool{true, false} {
		s, err := pubsub.NewSink(t.Context(), config, topic, pubsub.SinkOptions{Ordering: ordering})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Publish(t.Context(), []byte("k"), "1", nil); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := s.Publish(t.Context(), nil, "2", []byte("x")); !errors.Is(err, pubsub.ErrClosed) {
			t.Errorf("Publish after Close: %v", err)
		}
	}
	s := open(t, pubsub.SourceOptions{})
	if err := s.Seek(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	for _, r := range fetch(t, s, 2) {
		if r.Value != nil || string(r.Key) != "k" {
			t.Errorf("%+v", r)
		}
	}
}

// The sink waits where the service does not answer, and loses nothing when it comes back. A message that can never be
// taken ends it.
func TestSinkRefusesWhatTheServiceRefuses(t *testing.T) {
	srv := pubsubtest.NewInProcess(t)
	create(t, pubsub.TopicOptions{})
	s, err := pubsub.NewSink(t.Context(), config, topic, pubsub.SinkOptions{Ordering: true, InFlightMax: 8})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Publish(t.Context(), []byte("k"), "1", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := srv.DeleteTopic(t.Context(), topic); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if err = s.Publish(t.Context(), []byte("k"), fmt.Sprint(i), []byte("{}")); err != nil {
			break
		}
	}
	if err == nil {
		err = s.Flush(t.Context())
	}
	if !errors.Is(err, pubsub.ErrNoTopic) {
		t.Errorf("a topic that was deleted: %v", err)
	}
	if err := s.Close(); !errors.Is(err, pubsub.ErrNoTopic) {
		t.Errorf("Close: %v", err)
	}
}

func TestClosedSourcesAndSinksLeaveNothingBehind(t *testing.T) {
	pubsubtest.NewInProcess(t)
	create(t, pubsub.TopicOptions{Ordering: true})
	before := runtime.NumGoroutine()
	for range 3 {
		publish(t, true, 2, 10)
		s := open(t, pubsub.SourceOptions{})
		if err := s.Seek(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		fetch(t, s, 1)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var n int
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if n = runtime.NumGoroutine(); n <= before+5 {
			return
		}
	}
	t.Errorf("%d goroutines, %d before", n, before)
}
