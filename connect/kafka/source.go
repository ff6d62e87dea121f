package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cauce-data/cauce/pipeline"
)

// Start says where reading begins in a topic of which the table has nothing yet. The zero value is the earliest record.
type Start struct {
	Latest  bool
	Time    time.Time       // the first record at or after it; zero: not by time
	Offsets map[int32]int64 // the first offset to read, by partition; partitions not named: the earliest record
}

// SourceOptions configure a Source. Topic is mandatory.
type SourceOptions struct {
	Name  string // of the source in the lake file
	Topic string
	Start Start
	// Partitions are the only ones to read; empty: all, those that are added later included.
	Partitions []int32
	// Group, if not "", is the consumer group under which committed offsets are published for lag monitors.
	Group string
	// ReadUncommitted also returns records of transactions that are open or were aborted.
	ReadUncommitted bool
	// PollEvery is how often the topic's identity and partitions are looked at; default 10 s.
	PollEvery time.Duration
}

// Source reads one topic by offset. It implements ingest.Source and is not safe for concurrent use.
type Source struct {
	c Config
	o SourceOptions

	admClient *kgo.Client
	adm       *kadm.Client

	topic   *Topic // as Incarnation saw it
	origin  map[int32]string
	client  *kgo.Client // reads; nil before Seek
	next    map[int32]int64
	started map[int32]pipeline.Position // where Start put partitions that the table does not know
	left    []pipeline.Record
	watched time.Time // when identity and partitions were last looked at
	silent  time.Time // since when no broker answers; zero: one does
}

// OpenSource connects to the cluster and looks for the topic.
func OpenSource(ctx context.Context, c Config, o SourceOptions) (*Source, error) {
	cl, adm, err := admin(c)
	if err != nil {
		return nil, err
	}
	if o.PollEvery <= 0 {
		o.PollEvery = 10 * time.Second
	}
	s := &Source{c: c, o: o, admClient: cl, adm: adm}
	if _, err := s.Incarnation(ctx); err != nil {
		cl.Close()
		return nil, err
	}
	return s, nil
}

// Incarnation names the cluster and the topic id.
func (s *Source) Incarnation(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	t, err := describe(ctx, s.c, s.adm, s.o.Topic)
	if errors.Is(err, ErrNoTopic) {
		return "", fmt.Errorf("topic %s: %w; make it with: cauce topics create", s.o.Topic, err)
	}
	if err != nil {
		return "", fmt.Errorf("topic %s: %w", s.o.Topic, err)
	}
	s.topic = t
	return t.Incarnation(), nil
}

// mine are the partitions that this source reads.
func (s *Source) mine(t *Topic) []int32 {
	var out []int32
	for p := range t.Partitions {
		if len(s.o.Partitions) == 0 || slices.Contains(s.o.Partitions, p) {
			out = append(out, p)
		}
	}
	return out
}

// Ends gives the last offset that exists now in each partition, -1 where nothing ever was.
func (s *Source) Ends(ctx context.Context) (map[int32]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, ends, err := offsets(ctx, s.c, s.adm, s.o.Topic)
	if err != nil {
		return nil, fmt.Errorf("topic %s: %w", s.o.Topic, err)
	}
	out := map[int32]int64{}
	for _, p := range s.mine(s.topic) {
		out[p] = ends[p] - 1
	}
	return out, nil
}

// Started are the positions that Start chose in Seek for partitions that the table does not know yet. They belong into
// the table's progress, else a restart would read from the earliest record.
func (s *Source) Started() map[int32]pipeline.Position { return s.started }

// Seek starts reading after positions; partitions without one begin with the earliest record, or, if there are no
// positions at all, where Start says.
func (s *Source) Seek(ctx context.Context, after map[int32]pipeline.Position) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s.stop()
	t, err := describe(ctx, s.c, s.adm, s.o.Topic)
	if err != nil {
		return fmt.Errorf("topic %s: %w", s.o.Topic, err)
	}
	if t.Incarnation() != s.topic.Incarnation() {
		return s.recreated()
	}
	starts, ends, err := offsets(ctx, s.c, s.adm, s.o.Topic)
	if err != nil {
		return fmt.Errorf("topic %s: %w", s.o.Topic, err)
	}
	for p, pos := range after {
		if p >= t.Partitions && pos.Offset >= 0 {
			return s.gap(p, pos.Offset+1, -1, fmt.Sprintf("the topic has %d partitions, fewer than it had", t.Partitions))
		}
	}
	for _, p := range s.o.Partitions {
		if p >= t.Partitions {
			return fmt.Errorf("topic %s has %d partitions: there is no partition %d to read (kafka.assign)", s.o.Topic, t.Partitions, p)
		}
	}
	for p := range s.o.Start.Offsets {
		if p >= t.Partitions && len(after) == 0 {
			return fmt.Errorf("topic %s has %d partitions: there is no partition %d to start in (kafka.start)", s.o.Topic, t.Partitions, p)
		}
	}
	next := map[int32]int64{}
	started := map[int32]pipeline.Position{}
	var verify []int32
	for _, p := range s.mine(t) {
		pos, ok := after[p]
		switch {
		case !ok && len(after) == 0:
			if next[p], err = s.start(ctx, p, starts[p], ends[p]); err != nil {
				return err
			}
			if s.o.Start.Latest || !s.o.Start.Time.IsZero() || len(s.o.Start.Offsets) > 0 {
				started[p] = pipeline.Position{Offset: next[p] - 1}
			}
		case !ok || pos.Offset < 0:
			next[p] = starts[p]
		case pos.Offset >= ends[p]:
			return s.gap(p, ends[p], pos.Offset, fmt.Sprintf("the partition ends at offset %d, before the table's position: the broker lost its end", ends[p]-1))
		case pos.Offset < starts[p]-1:
			return s.gap(p, pos.Offset+1, starts[p]-1, fmt.Sprintf("they expired before they were read; the partition begins at offset %d", starts[p]))
		default:
			next[p] = pos.Offset + 1
			if pos.Offset >= starts[p] && !pos.Time.IsZero() {
				verify = append(verify, p)
			}
		}
	}
	if err := s.verify(ctx, verify, after); err != nil {
		return err
	}
	s.topic, s.next, s.started = t, next, started
	s.origin = map[int32]string{}
	s.watched, s.silent = time.Now(), time.Time{}
	return s.consume()
}

// start is the first offset to read in a partition that the table does not know.
func (s *Source) start(ctx context.Context, p int32, first, end int64) (int64, error) {
	switch {
	case s.o.Start.Latest:
		return end, nil
	case !s.o.Start.Time.IsZero():
		l, err := s.adm.ListOffsetsAfterMilli(ctx, s.o.Start.Time.UnixMilli(), s.o.Topic)
		if err != nil {
			return 0, fmt.Errorf("topic %s: offsets after %s: %w", s.o.Topic, s.o.Start.Time.Format(time.RFC3339), explain(s.c, err))
		}
		o, ok := l.Lookup(s.o.Topic, p)
		if !ok || o.Offset < 0 {
			return end, nil
		}
		return o.Offset, o.Err
	}
	if at, ok := s.o.Start.Offsets[p]; ok {
		if first == end && at != end {
			return 0, fmt.Errorf("topic %s, partition %d: start at offset %d: the partition is empty, and its next offset is %d", s.o.Topic, p, at, end)
		}
		if at < first || at > end {
			return 0, fmt.Errorf("topic %s, partition %d: start at offset %d: the partition holds %d to %d", s.o.Topic, p, at, first, end-1)
		}
		return at, nil
	}
	return first, nil
}

// verify reads the record at each position again: it must still carry the time that progress recorded, else the log
// is not the one that was read.
func (s *Source) verify(ctx context.Context, parts []int32, after map[int32]pipeline.Position) error {
	if len(parts) == 0 {
		return nil
	}
	at := map[int32]kgo.Offset{}
	for _, p := range parts {
		at[p] = kgo.NewOffset().At(after[p].Offset)
	}
	cl, err := s.reader(at)
	if err != nil {
		return err
	}
	defer cl.Close()
	waiting := map[int32]bool{}
	for _, p := range parts {
		waiting[p] = true
	}
	// Behind the last record of a partition there may be nothing but a marker of a transaction, so that none comes.
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for len(waiting) > 0 {
		fs := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		var failed error
		fs.EachError(func(_ string, p int32, err error) {
			if !passing(err) {
				failed = fmt.Errorf("topic %s, partition %d: %w", s.o.Topic, p, explain(s.c, err))
			}
		})
		if failed != nil {
			return failed
		}
		var gap error
		fs.EachPartition(func(ft kgo.FetchTopicPartition) {
			if len(ft.Records) == 0 || !waiting[ft.Partition] {
				return
			}
			delete(waiting, ft.Partition)
			r, pos := ft.Records[0], after[ft.Partition]
			if r.Offset == pos.Offset && r.Timestamp.UnixMilli() != pos.Time.UnixMilli() {
				gap = s.gap(ft.Partition, pos.Offset+1, -1, fmt.Sprintf("the message at offset %d is of %s, but the one that was read was of %s: the broker lost messages and took others since",
					pos.Offset, r.Timestamp.UTC().Format(time.RFC3339Nano), pos.Time.UTC().Format(time.RFC3339Nano)))
			}
		})
		if gap != nil {
			return gap
		}
	}
	return nil
}

func (s *Source) gap(p int32, from, to int64, reason string) error {
	return &pipeline.GapError{Source: s.o.Name, Topic: s.o.Topic, Partition: p, From: from, To: to, Reason: reason}
}

func (s *Source) recreated() error {
	return s.gap(0, 0, -1, "the topic was deleted and made again: its offsets begin anew")
}

// reader is a client that reads partitions from offsets, and never jumps elsewhere by itself.
func (s *Source) reader(at map[int32]kgo.Offset, more ...kgo.Opt) (*kgo.Client, error) {
	opts, err := s.c.options()
	if err != nil {
		return nil, err
	}
	isolation := kgo.ReadCommitted()
	if s.o.ReadUncommitted {
		isolation = kgo.ReadUncommitted()
	}
	opts = append(opts,
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{s.o.Topic: at}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(isolation),
		kgo.FetchMaxWait(500*time.Millisecond),
		kgo.FetchMaxBytes(fetchBytes),
		kgo.FetchMaxPartitionBytes(fetchBytes/4),
		kgo.MaxConcurrentFetches(2),
		kgo.KeepRetryableFetchErrors(),
	)
	cl, err := kgo.NewClient(append(opts, more...)...)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	return cl, nil
}

// fetchBytes bounds what a broker sends at once; with two fetches in flight and one in hand, the client's memory.
const fetchBytes = 32 << 20

func (s *Source) consume() error {
	at := map[int32]kgo.Offset{}
	for p, n := range s.next {
		at[p] = kgo.NewOffset().At(n)
	}
	if len(at) == 0 {
		return fmt.Errorf("topic %s: none of the partitions %v exists", s.o.Topic, s.o.Partitions)
	}
	cl, err := s.reader(at)
	if err != nil {
		return err
	}
	s.client = cl
	return nil
}

func (s *Source) stop() {
	if s.client != nil {
		s.client.CloseAllowingRebalance()
		s.client = nil
	}
	s.left = nil
}

// passing tells whether the client gets over an error by itself.
func passing(err error) bool {
	if errors.Is(err, kerr.OffsetOutOfRange) || errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.UnknownTopicID) {
		return false
	}
	if ke := (*kerr.Error)(nil); errors.As(err, &ke) {
		return ke.Retriable
	}
	return !errors.Is(err, kgo.ErrClientClosed) && !errors.Is(err, context.Canceled)
}

// Fetch returns the next records, in order per partition.
func (s *Source) Fetch(ctx context.Context, rowsMax int, bytesMax int64, wait time.Duration) ([]pipeline.Record, error) {
	if s.client == nil {
		return nil, fmt.Errorf("topic %s: Fetch before Seek", s.o.Topic)
	}
	if rowsMax <= 0 {
		rowsMax = int(^uint(0) >> 1)
	}
	deadline := time.Now().Add(wait)
	n, bytes := 0, int64(0) // what is given, from the beginning of left
	for polled := false; ; polled = true {
		for n < min(len(s.left), rowsMax) && (bytesMax <= 0 || bytes < bytesMax) {
			bytes += int64(len(s.left[n].Value) + len(s.left[n].Key))
			n++
		}
		enough := n >= min(rowsMax, pollRows) || bytesMax > 0 && bytes >= bytesMax
		left := time.Until(deadline)
		if enough || ctx.Err() != nil || left <= 0 && polled {
			break
		}
		if err := s.watch(ctx); err != nil {
			return nil, err
		}
		pollCtx, cancel := context.WithTimeout(ctx, max(min(left, s.o.PollEvery), time.Millisecond))
		fs := s.client.PollRecords(pollCtx, min(rowsMax, pollRows)-n)
		cancel()
		if err := s.keep(ctx, fs); err != nil {
			return nil, err
		}
	}
	if err := ctx.Err(); err != nil && n == 0 {
		return nil, err
	}
	out := s.left[:n:n]
	if s.left = s.left[n:]; len(s.left) == 0 {
		s.left = nil // what comes next is not put behind it: records are large, and whoever has these may keep them
	}
	return out, nil
}

// pollRows bounds the records that are taken from the client at once. So many are given without waiting for more: they need
// not be moved, and the client receives the next ones while they are worked on.
const pollRows = 50_000

// keep takes over what a poll brought.
func (s *Source) keep(ctx context.Context, fs kgo.Fetches) error {
	var failed error
	fs.EachError(func(_ string, p int32, err error) {
		switch {
		case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil, errors.Is(err, context.Canceled):
		case errors.Is(err, kerr.OffsetOutOfRange), errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID):
			failed = s.lost(ctx, p, err)
		case passing(err):
			if s.silent.IsZero() {
				s.silent = time.Now()
				s.c.log().Warn("kafka: reading is interrupted; trying again", "topic", s.o.Topic, "partition", p, "error", err)
			}
		default:
			failed = fmt.Errorf("topic %s, partition %d: %w", s.o.Topic, p, explain(s.c, err))
		}
	})
	if failed != nil {
		return failed
	}
	s.left = slices.Grow(s.left, fs.NumRecords())
	fs.EachRecord(func(r *kgo.Record) {
		s.left = append(s.left, s.record(r))
		s.next[r.Partition] = r.Offset + 1
	})
	if fs.NumRecords() > 0 {
		if !s.silent.IsZero() {
			s.c.log().Info("kafka: reading goes on", "topic", s.o.Topic, "after", time.Since(s.silent).Round(time.Millisecond).String())
		}
		s.silent = time.Time{}
	}
	return nil
}

func (s *Source) record(r *kgo.Record) pipeline.Record {
	origin, ok := s.origin[r.Partition]
	if !ok {
		origin = fmt.Sprintf("%s:%s:%s/%d", Kind, s.topic.Incarnation(), s.o.Topic, r.Partition)
		s.origin[r.Partition] = origin
	}
	return pipeline.Record{
		Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Time: r.Timestamp, Key: r.Key, Value: r.Value, Origin: origin,
	}
}

// lost says which offsets a broker no longer has.
func (s *Source) lost(ctx context.Context, p int32, cause error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	// What the cluster says of a topic that was deleted or made again is old for a moment.
	var err error
	for range 10 {
		if err = s.compare(ctx, p); err != nil && (errors.As(err, new(*pipeline.GapError)) || !errors.Is(err, ErrNoTopic)) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(300 * time.Millisecond):
		}
	}
	if err != nil {
		return s.gap(p, s.next[p], -1, "the topic was deleted")
	}
	return fmt.Errorf("topic %s, partition %d: %w", s.o.Topic, p, explain(s.c, cause))
}

// compare holds what this source reads against what the cluster has. nil: they fit.
func (s *Source) compare(ctx context.Context, p int32) error {
	t, err := describe(ctx, s.c, s.adm, s.o.Topic)
	if err != nil {
		return fmt.Errorf("topic %s, partition %d: %w", s.o.Topic, p, err)
	}
	if t.Incarnation() != s.topic.Incarnation() {
		return s.recreated()
	}
	starts, ends, err := offsets(ctx, s.c, s.adm, s.o.Topic)
	if err != nil {
		return fmt.Errorf("topic %s, partition %d: %w", s.o.Topic, p, err)
	}
	switch next := s.next[p]; {
	case next < starts[p]:
		return s.gap(p, next, starts[p]-1, fmt.Sprintf("they expired before they were read; the partition begins at offset %d", starts[p]))
	case next > ends[p]:
		return s.gap(p, ends[p], next-1, fmt.Sprintf("the partition ends at offset %d, before what was read: the broker lost its end", ends[p]-1))
	}
	return nil
}

// watch looks from time to time whether the topic is still the same and has new partitions.
func (s *Source) watch(ctx context.Context) error {
	if time.Since(s.watched) < s.o.PollEvery {
		return nil
	}
	s.watched = time.Now()
	short, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	t, err := describe(short, s.c, s.adm, s.o.Topic)
	switch {
	case errors.Is(err, ErrNoTopic):
		return s.gap(0, s.next[0], -1, "the topic was deleted")
	case errors.Is(err, ErrDenied):
		return fmt.Errorf("topic %s: %w", s.o.Topic, err)
	case err != nil:
		if s.silent.IsZero() {
			s.silent = time.Now()
			s.c.log().Warn("kafka: no broker answers; trying again", "topic", s.o.Topic, "error", err)
		}
		return nil // brokers come back; a stream runs for ever
	case t.Incarnation() != s.topic.Incarnation():
		return s.recreated()
	case t.Partitions < s.topic.Partitions:
		return s.gap(t.Partitions, s.next[t.Partitions], -1, fmt.Sprintf("the topic has %d partitions, fewer than it had", t.Partitions))
	}
	s.silent = time.Time{}
	added := map[int32]kgo.Offset{}
	for _, p := range s.mine(t) {
		if _, ok := s.next[p]; !ok {
			// A partition that is new begins with its first record, whatever Start says: nothing of it was passed over.
			added[p] = kgo.NewOffset().AtStart()
			s.next[p] = 0
		}
	}
	if len(added) > 0 {
		s.c.log().Info("kafka: the topic has new partitions", "topic", s.o.Topic, "partitions", t.Partitions)
		s.client.AddConsumePartitions(map[string]map[int32]kgo.Offset{s.o.Topic: added})
	}
	s.topic = t
	return nil
}

// Committed publishes what is in the table under the consumer group, if there is one. Kafka keeps its messages
// whatever a reader does, so a failure is only a monitor's loss.
func (s *Source) Committed(ctx context.Context, pos map[int32]pipeline.Position) error {
	if s.o.Group == "" || len(pos) == 0 {
		return nil
	}
	short, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var offs kadm.Offsets
	for _, p := range slices.Sorted(maps.Keys(pos)) {
		offs.AddOffset(s.o.Topic, p, pos[p].Offset+1, -1)
	}
	r, err := s.adm.CommitOffsets(short, s.o.Group, offs)
	if err == nil {
		err = r.Error()
	}
	if err != nil && ctx.Err() == nil {
		s.c.log().Warn("kafka: the consumer group is not told what is in the table; lag monitors show more than there is",
			"group", s.o.Group, "error", explain(s.c, err))
	}
	return nil
}

// Close ends the Source.
func (s *Source) Close() error {
	s.stop()
	s.admClient.Close()
	return nil
}

// Succeeds implements ingest.Successor: the table has read this source from another log before, and the topic's id tells
// that this one is not that.
func (s *Source) Succeeds(previous []string) *pipeline.GapError {
	old := previous[len(previous)-1]
	reason := "the table has read this source from another log (" + old + "), and this is " + s.topic.Incarnation()
	for _, p := range previous {
		if cluster, _, ok := strings.Cut(p, "."); ok && cluster == s.topic.Cluster {
			reason = "the topic was deleted and made again since the table read it (topic id " + p + ", now " + s.topic.Incarnation() + "): what it held and the table has not read is gone"
		}
	}
	return &pipeline.GapError{Source: s.o.Name, Topic: s.o.Topic, From: 0, To: -1, Reason: reason}
}
