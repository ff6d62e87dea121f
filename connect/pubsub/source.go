package pubsub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	client "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cauce-data/cauce/internal/change"
	"github.com/cauce-data/cauce/pipeline"
)

// SourceOptions configure a Source. Topic and Subscription are mandatory.
type SourceOptions struct {
	Name         string // of the source in the lake file
	Topic        string
	Subscription string
	// AckDeadline is how long the service leaves messages with a process that was killed; it is prolonged while this one
	// lives. Between 10 s and 10 min, default 10 s.
	AckDeadline time.Duration
	// HeldMax and HeldBytesMax bound the messages that are here and not acknowledged, those of the micro-batch that is being
	// merged and of the next one included; defaults 400,000 and 128 MiB.
	HeldMax      int
	HeldBytesMax int64
	// WatchEvery is how often topic and subscription are looked at; default 30 s.
	WatchEvery time.Duration
}

// Source reads one topic through a subscription. It implements ingest.Queue: a message is acknowledged when Acknowledge
// says that it is in the table, and delivered again if this process ends before. Not safe for concurrent use.
//
// It asks for messages only when there is room for them (unary Pull, not StreamingPull), so that what is here is bounded
// whatever the service sends, and so that nothing but the deadline stands between a killed process and its successor.
type Source struct {
	c   Config
	o   SourceOptions
	cl  *client.Client
	sub *Subscription // as Incarnation saw it

	stop    context.CancelFunc // of what runs beside; nil: it does not run
	pullers sync.WaitGroup
	work    sync.WaitGroup // what prolongs deadlines
	watched time.Time
	silent  bool // the service did not answer when last looked at

	mu     sync.Mutex
	all    []*delivery          // held, in the order of their delivery: those that Fetch has given come first
	given  int                  // how many of them Fetch has given since the last Seek
	ids    map[string]*delivery // all, by message id
	bytes  int64
	asked  int           // messages that pullers have asked for
	err    error         // why the pullers ended
	quiet  time.Time     // since when nothing has come from a service that answers
	more   change.Signal // there is more in all, or an err
	room   change.Signal // there is less in all
	acked  change.Signal // something is acknowledged, or it is the end
	ending bool          // pullers ask no more
	closed bool
}

// delivery is one message that the service counts as being here.
type delivery struct {
	rec   pipeline.Record
	id    string // of the message
	ackID string // of its newest delivery
}

func (d *delivery) size() int64 { return int64(len(d.rec.Key) + len(d.rec.Value)) }

// OpenSource connects to the service and looks for topic and subscription.
func OpenSource(ctx context.Context, c Config, o SourceOptions) (*Source, error) {
	if o.AckDeadline <= 0 {
		o.AckDeadline = 10 * time.Second
	}
	if o.HeldMax <= 0 {
		o.HeldMax = 400_000
	}
	if o.HeldBytesMax <= 0 {
		o.HeldBytesMax = 128 << 20
	}
	if o.WatchEvery <= 0 {
		o.WatchEvery = 30 * time.Second
	}
	cl, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	s := &Source{c: c, o: o, cl: cl}
	if _, err := s.Incarnation(ctx); err != nil {
		_ = cl.Close()
		return nil, err
	}
	return s, nil
}

// Incarnation names project and subscription, and what marks a subscription that Cauce made.
func (s *Source) Incarnation(ctx context.Context) (string, error) {
	sub, err := s.look(ctx)
	if err != nil {
		return "", err
	}
	s.sub = sub
	return s.c.Incarnation(sub), nil
}

// look asks for the subscription and refuses one from which nothing can be read.
func (s *Source) look(ctx context.Context) (*Subscription, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	sub, err := describeSubscription(ctx, s.c, s.cl, s.o.Subscription)
	switch {
	case errors.Is(err, ErrNoSubscription):
		return nil, fmt.Errorf("%w; make it with: cauce topics create", err)
	case errors.Is(err, ErrDenied):
		return nil, fmt.Errorf("%w; the role of the streaming job needs pubsub.subscriptions.get and pubsub.subscriptions.consume on it", err)
	case err != nil:
		return nil, err
	case sub.Detached:
		return nil, fmt.Errorf("subscription %s is detached from its topic: it takes no more messages, and those that it had are gone; delete it and make it anew with: cauce topics create", sub.Name)
	case sub.Topic == "":
		return nil, fmt.Errorf("%w: the topic of subscription %s was deleted; delete the subscription too and make both anew with: cauce topics create", ErrNoTopic, sub.Name)
	case sub.Topic != s.o.Topic:
		return nil, fmt.Errorf("subscription %s reads topic %s, not %s; name the right one in pubsub.subscription", sub.Name, sub.Topic, s.o.Topic)
	case sub.Pushes:
		return nil, fmt.Errorf("subscription %s sends its messages elsewhere; the lake needs one that is pulled", sub.Name)
	}
	return sub, nil
}

// Drained tells whether nothing has come for so long that what was there has been read: what a killed process held comes back
// some time after its deadline, and the service does not say how long that is. While the service does not answer, no such
// time passes, for a request that waits for messages ends alike whether it was heard or not.
func (s *Source) Drained(ctx context.Context, _ map[int32]int64) (bool, error) {
	asked := time.Now()
	if _, err := s.look(ctx); err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(asked) > pullWait {
		s.quiet = time.Now()
	}
	return s.given == len(s.all) && time.Since(s.quiet) > 2*s.o.AckDeadline+time.Second, nil
}

// Ends gives nothing: the service does not tell how much there is.
func (s *Source) Ends(context.Context) (map[int32]int64, error) { return nil, nil }

// Seek begins to read. What Fetch has given before and Acknowledge has not named is given again. after says when the last
// message in the table was published: if the subscription has forgotten messages of since then, a *pipeline.GapError.
func (s *Source) Seek(ctx context.Context, after map[int32]pipeline.Position) error {
	if s.closed {
		return fmt.Errorf("subscription %s: %w", s.o.Subscription, ErrClosed)
	}
	if s.stop != nil {
		s.mu.Lock()
		s.given = 0
		s.mu.Unlock()
		return nil
	}
	if err := s.Probe(ctx, after); err != nil {
		return err
	}
	s.receive()
	return nil
}

// Probe tells whether the subscription may have forgotten messages since the last one in the table.
func (s *Source) Probe(_ context.Context, after map[int32]pipeline.Position) error {
	if pos, ok := after[0]; ok && !pos.Time.IsZero() && s.sub.Retention > 0 {
		if stood := time.Since(pos.Time); stood > s.sub.Retention {
			return &pipeline.GapError{
				Source: s.o.Name, Topic: s.o.Topic, From: pos.Offset + 1, To: -1,
				Reason: fmt.Sprintf("nothing was taken from subscription %s since a message of %s, and it keeps messages for %v only: those published from then until %s may be gone (an offset of Pub/Sub is the publish time in µs)",
					s.o.Subscription, pos.Time.UTC().Format(time.RFC3339), s.sub.Retention, time.Now().Add(-s.sub.Retention).UTC().Format(time.RFC3339)),
				After: now(),
			}
		}
	}
	return nil
}

// Renewed implements ingest.Aging: of two positions in a retention, Probe always finds one that is young enough.
func (s *Source) Renewed(_ context.Context, after map[int32]pipeline.Position) (map[int32]pipeline.Position, error) {
	at := after[0].Time
	if at.IsZero() || s.sub.Retention <= 0 || time.Since(at) < s.sub.Retention/2 {
		return nil, nil
	}
	return map[int32]pipeline.Position{0: *now()}, nil
}

// Succeeds implements ingest.Successor: the table has read this source through another subscription before. A
// subscription holds only what was published since it was made.
func (s *Source) Succeeds(previous []string) *pipeline.GapError {
	return &pipeline.GapError{
		Source: s.o.Name, Topic: s.o.Topic, From: 0, To: -1,
		Reason: fmt.Sprintf("the table has read this source through another subscription (%s), and this one is %s: what was published before it was made and is not in the table never comes",
			previous[len(previous)-1], s.c.Incarnation(s.sub)),
		After: now(),
	}
}

// now is where reading goes on when a gap is allowed: a subscription gives what it has, and only the time since which it is
// read begins anew.
func now() *pipeline.Position {
	at := time.Now().UTC().Truncate(time.Microsecond)
	return &pipeline.Position{Offset: at.UnixMicro(), Time: at}
}

// pullMax is how many messages one request asks for; the service gives at most so many.
const pullMax = 1000

// pullWait bounds how long a request stays open when there is nothing: Release waits for it, and by it the service ends a
// request that a killed process left open.
const pullWait = time.Second

// idsMax bounds the ids of one request, which may have half a megabyte.
const idsMax = 2000

// receive starts the pullers.
func (s *Source) receive() {
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	s.watched = time.Now()
	s.mu.Lock()
	s.all, s.given, s.bytes, s.ids, s.err = nil, 0, 0, map[string]*delivery{}, nil
	s.quiet = time.Now()
	s.ending = false
	s.mu.Unlock()
	pullers := 4
	if s.sub.Ordering {
		pullers = 1 // answers that overtake each other would lose the order
	}
	for range pullers {
		s.pullers.Go(func() {
			if err := s.pull(ctx); err != nil && ctx.Err() == nil {
				s.mu.Lock()
				s.err = fmt.Errorf("subscription %s: %w", s.o.Subscription, explain(s.c, err, ErrNoSubscription))
				s.more.Tell()
				s.mu.Unlock()
			}
		})
	}
	every := s.o.AckDeadline
	if s.sub.AckDeadline > 0 {
		every = min(every, s.sub.AckDeadline)
	}
	s.work.Go(func() { s.prolong(ctx, every) })
}

// pull asks for messages whenever there is room, until Release or until the service refuses for good.
func (s *Source) pull(ctx context.Context) error {
	const pauseMin, pauseMax = 100 * time.Millisecond, 5 * time.Second
	const idleMin, idleMax = 2 * time.Millisecond, 200 * time.Millisecond
	pause, idle := pauseMin, idleMin
	for {
		n := s.admit()
		if n == 0 {
			return nil
		}
		short, cancel := context.WithTimeout(ctx, pullWait)
		r, err := s.cl.SubscriptionAdminClient.Pull(short, &pubsubpb.PullRequest{Subscription: s.c.subscription(s.o.Subscription), MaxMessages: int32(n)}) //nolint:gosec // at most pullMax
		waited := short.Err() != nil
		cancel()
		s.take(n, r.GetReceivedMessages())
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil && len(r.GetReceivedMessages()) == 0 && !waited:
			// A service that holds back what follows an unacknowledged message of the same ordering key may say at once that
			// there is nothing.
			pause = pauseMin
			s.rest(ctx, idle)
			idle = min(2*idle, idleMax)
			continue
		case err == nil, waited:
			pause, idle = pauseMin, idleMin
			continue
		case !passing(err):
			return err
		}
		s.mu.Lock()
		s.quiet = time.Now()
		s.mu.Unlock()
		s.c.log().Debug("pubsub: no answer; asking again", "subscription", s.o.Subscription, "pause", pause.String(), "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, pauseMax)
	}
}

// rest waits, at most until something is acknowledged or Release ends the pullers.
func (s *Source) rest(ctx context.Context, d time.Duration) {
	s.mu.Lock()
	if s.ending {
		s.mu.Unlock()
		return
	}
	acked := s.acked.C()
	s.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-acked:
	case <-time.After(d):
	}
}

// passing tells whether asking again can help.
func passing(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Internal, codes.Aborted, codes.ResourceExhausted, codes.Unknown, codes.Canceled:
		return true
	}
	return false
}

// admit waits until there is room, and gives for how many messages there is; 0: none are wanted any more.
func (s *Source) admit() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.ending && len(s.all)+s.asked > 0 && (len(s.all)+s.asked >= s.o.HeldMax || s.bytes >= s.o.HeldBytesMax) {
		_ = s.room.Wait(context.Background(), &s.mu) // Release tells, too
	}
	if s.ending {
		return 0
	}
	n := max(1, min(pullMax, s.o.HeldMax-len(s.all)-s.asked))
	s.asked += n
	return n
}

// take keeps what was delivered to a request for n messages. A message that is here already only has a new id of its delivery, the one to acknowledge.
func (s *Source) take(n int, ms []*pubsubpb.ReceivedMessage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked -= n
	for _, m := range ms {
		if d, ok := s.ids[m.GetMessage().GetMessageId()]; ok {
			d.ackID = m.GetAckId()
			continue
		}
		d := &delivery{rec: s.record(m.GetMessage()), id: m.GetMessage().GetMessageId(), ackID: m.GetAckId()}
		s.all = append(s.all, d)
		s.ids[d.id] = d
		s.bytes += d.size()
	}
	if len(ms) > 0 {
		s.quiet = time.Now()
		s.more.Tell()
	}
	if len(ms) < n {
		s.room.Tell()
	}
}

// prolong keeps the service from giving what is here to somebody else, who gets it when every has passed.
func (s *Source) prolong(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		short, cancel := context.WithTimeout(ctx, every/2)
		if err := s.deadline(short, s.held(), s.o.AckDeadline); err != nil && ctx.Err() == nil {
			s.c.log().Debug("pubsub: deadlines are not prolonged; messages may come twice", "subscription", s.o.Subscription, "error", err)
		}
		cancel()
	}
}

// held are the ids of all deliveries.
func (s *Source) held() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]string, len(s.all))
	for i, d := range s.all {
		out[i] = d.ackID
	}
	return out
}

// deadline tells the service how long from now deliveries stay here; 0 gives them back.
func (s *Source) deadline(ctx context.Context, ids []string, d time.Duration) error {
	for chunk := range slices.Chunk(ids, idsMax) {
		err := s.cl.SubscriptionAdminClient.ModifyAckDeadline(ctx, &pubsubpb.ModifyAckDeadlineRequest{
			Subscription: s.c.subscription(s.o.Subscription), AckIds: chunk, AckDeadlineSeconds: int32(d / time.Second), //nolint:gosec // at most 600
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Source) record(m *pubsubpb.PubsubMessage) pipeline.Record {
	at := m.GetPublishTime().AsTime()
	r := pipeline.Record{
		Topic: s.o.Topic, Offset: at.UnixMicro(), Time: at, Value: m.GetData(),
		Origin: Kind + ":" + s.c.plainProject() + ":" + s.o.Topic + "/" + m.GetMessageId(),
	}
	if key := cmp.Or(m.GetOrderingKey(), m.GetAttributes()[AttributeKey]); key != "" {
		r.Key = []byte(key)
	}
	switch tombstone := m.GetAttributes()[AttributeTombstone] != ""; {
	case len(r.Value) > 0:
	case tombstone:
		r.Value = nil
	default:
		r.Value = []byte{}
	}
	return r
}

// Fetch returns the next messages, in the order of their delivery.
func (s *Source) Fetch(ctx context.Context, rowsMax int, bytesMax int64, wait time.Duration) ([]pipeline.Record, error) {
	if s.stop == nil {
		return nil, fmt.Errorf("subscription %s: Fetch before Seek", s.o.Subscription)
	}
	if rowsMax <= 0 {
		rowsMax = int(^uint(0) >> 1)
	}
	if err := s.watch(ctx); err != nil {
		return nil, err
	}
	var out []pipeline.Record
	var bytes int64
	full := func() bool { return len(out) >= rowsMax || bytesMax > 0 && bytes >= bytesMax }
	timer := time.NewTimer(wait)
	defer timer.Stop()
	late := false
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		for s.given < len(s.all) && !full() {
			d := s.all[s.given]
			out = append(out, d.rec)
			bytes += d.size()
			s.given++
		}
		switch {
		case full():
			return out, nil
		case s.err != nil && len(out) == 0:
			return nil, s.err
		}
		if late {
			return out, nil
		}
		more := s.more.C()
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			late = true
		case <-timer.C:
			late = true // what came at the same moment is taken once more, and no longer waited for
		case <-more:
		}
		s.mu.Lock()
		if err := ctx.Err(); err != nil && len(out) == 0 {
			return nil, err
		}
	}
}

// watch looks from time to time whether topic and subscription are still the same.
func (s *Source) watch(ctx context.Context) error {
	if time.Since(s.watched) < s.o.WatchEvery {
		return nil
	}
	s.watched = time.Now()
	sub, err := s.look(ctx)
	switch {
	case errors.Is(err, ErrUnavailable):
		if !s.silent {
			s.silent = true
			s.c.log().Warn("pubsub: the service does not answer; trying again", "subscription", s.o.Subscription, "error", err)
		}
		return nil // it comes back; a stream runs for ever
	case err != nil:
		return err
	case s.c.Incarnation(sub) != s.c.Incarnation(s.sub):
		return s.gap()
	}
	if s.silent {
		s.silent = false
		s.c.log().Warn("pubsub: the service answers again", "subscription", s.o.Subscription)
	}
	return nil
}

func (s *Source) gap() error {
	return &pipeline.GapError{Source: s.o.Name, Topic: s.o.Topic, From: 0, To: -1,
		Reason: fmt.Sprintf("subscription %s was deleted and made again: what it held and the table has not read is gone", s.o.Subscription)}
}

// Acknowledge tells the service that the oldest n messages that Fetch has given are in the table. Where it does not learn
// of it, it delivers them again, and they change nothing.
func (s *Source) Acknowledge(ctx context.Context, n int) error {
	s.mu.Lock()
	if n > s.given {
		s.mu.Unlock()
		return fmt.Errorf("BUG: %d messages are acknowledged, %d were given", n, s.given)
	}
	ids := make([]string, n)
	for i, d := range s.all[:n] {
		ids[i] = d.ackID
		s.bytes -= d.size()
		delete(s.ids, d.id)
	}
	clear(s.all[:n])
	s.all = s.all[n:]
	s.given -= n
	s.room.Tell()
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, closePatience)
	defer cancel()
	for chunk := range slices.Chunk(ids, idsMax) {
		err := s.cl.SubscriptionAdminClient.Acknowledge(ctx, &pubsubpb.AcknowledgeRequest{Subscription: s.c.subscription(s.o.Subscription), AckIds: chunk})
		if err != nil {
			return fmt.Errorf("subscription %s: %w", s.o.Subscription, explain(s.c, err, ErrNoSubscription))
		}
	}
	s.mu.Lock()
	s.quiet = time.Now() // a commit takes its time
	s.acked.Tell()
	s.mu.Unlock()
	return nil
}

// Committed does nothing: what is in the table is acknowledged message by message.
func (s *Source) Committed(context.Context, map[int32]pipeline.Position) error { return nil }

// Release gives everything that is not acknowledged back, so that another process gets it at once. Seek begins anew.
func (s *Source) Release() {
	if s.stop == nil {
		return
	}
	// The pullers end by themselves: a request that is given up may be answered all the same, and what it brings would be
	// nobody's until its deadline.
	s.mu.Lock()
	s.ending = true
	s.room.Tell()
	s.acked.Tell()
	s.mu.Unlock()
	s.pullers.Wait()
	s.stop()
	s.work.Wait()
	s.stop = nil
	ctx, cancel := context.WithTimeout(context.Background(), closePatience)
	defer cancel()
	if err := s.deadline(ctx, s.held(), 0); err != nil {
		s.c.log().Debug("pubsub: messages are not given back; they come again when their deadline has passed", "subscription", s.o.Subscription, "error", err)
	}
}

// Close gives back what is not acknowledged and ends the Source.
func (s *Source) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	s.Release()
	return s.cl.Close()
}

func isDenied(err error) bool {
	return errors.Is(err, ErrDenied) || status.Code(err) == codes.PermissionDenied
}
