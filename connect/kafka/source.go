package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

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
	// RenewAfter is how old a position is when Renewed looks what is behind it; default 10 min.
	RenewAfter time.Duration
	// BatchBytesMax bounds what a batch of messages may become when it is decompressed; default 128 MiB. What a broker sends
	// at once is bounded before that, so it is a small batch that becomes a large one.
	BatchBytesMax int64
}

// Source reads one topic by offset. It implements ingest.Source and is not safe for concurrent use.
type Source struct {
	c Config
	o SourceOptions

	admClient *kgo.Client
	adm       *kadm.Client

	topic   *Topic // as Incarnation saw it
	origin  map[int32]string
	client  *kgo.Client                 // reads; nil before Seek
	at      map[int32]pipeline.Position // of the last record of each partition that was taken from the client, or what Seek was told
	started map[int32]pipeline.Position // where reading began in partitions that the table does not know
	left    []pipeline.Record
	met     error     // comes when what is left has been given
	watched time.Time // when identity and partitions were last looked at
	silent  time.Time // since when no broker answers; zero: one does
	renewed time.Time // when Renewed last asked the broker
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
	if o.RenewAfter <= 0 {
		o.RenewAfter = 10 * time.Minute
	}
	if o.BatchBytesMax <= 0 {
		o.BatchBytesMax = 128 << 20
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

// Started are the positions behind which Seek began to read partitions that the table does not know yet. They belong into
// the table's progress, else a restart would begin elsewhere, and would not see what has gone of a partition that was empty.
func (s *Source) Started() map[int32]pipeline.Position { return s.started }

// Seek starts reading after positions; partitions without one begin with the earliest record, or, if there are no
// positions at all, where Start says.
func (s *Source) Seek(ctx context.Context, after map[int32]pipeline.Position) error {
	s.stop()
	if err := s.place(ctx, after); err != nil {
		return err
	}
	return s.consume(s.mine(s.topic))
}

// Probe tells what Seek would say of positions, without moving the Source.
func (s *Source) Probe(ctx context.Context, after map[int32]pipeline.Position) error {
	return (&Source{c: s.c, o: s.o, admClient: s.admClient, adm: s.adm, topic: s.topic}).place(ctx, after)
}

// place compares positions with the topic, and takes note of where reading goes on.
func (s *Source) place(ctx context.Context, after map[int32]pipeline.Position) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
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
	s.at = maps.Clone(after)
	if s.at == nil {
		s.at = map[int32]pipeline.Position{}
	}
	for _, p := range slices.Sorted(maps.Keys(after)) {
		if p >= t.Partitions && after[p].Offset >= 0 {
			return s.fewer(p, t)
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
	mine := s.mine(t)
	started := map[int32]pipeline.Position{}
	for _, p := range mine {
		pos, known := after[p]
		switch {
		case !known && len(after) == 0:
			next, err := s.start(ctx, p, starts[p], ends[p])
			if err != nil {
				return err
			}
			pos.Offset = next - 1
		case !known && len(s.o.Partitions) > 0:
			pos.Offset = starts[p] - 1 // named since
		case !known:
			pos.Offset = -1 // added since, with nothing in it
		}
		if s.at[p] = pos; !known {
			started[p] = pos
		}
		switch {
		case pos.Offset >= 0 && pos.Offset >= ends[p]:
			return s.lostEnd(ctx, p, starts[p], ends[p], fmt.Sprintf("the partition ends at offset %d, before the table's position: the broker lost its end", ends[p]-1))
		case pos.Offset < starts[p]-1:
			return s.expired(p, starts[p])
		}
		if pos.Offset < starts[p] || pos.Time.IsZero() {
			continue
		}
		// The record at the position must still carry the time that progress recorded, else the log is not the one that was read.
		is, _, err := s.peek(ctx, p, pos.Offset, 1)
		if err != nil {
			return err
		}
		if is != nil && is.Offset == pos.Offset && is.Timestamp.UnixMilli() != pos.Time.UnixMilli() {
			return s.lostEnd(ctx, p, starts[p], ends[p], fmt.Sprintf("the message at offset %d is of %s, but the one that was read was of %s: the broker lost messages and took others since",
				pos.Offset, is.Timestamp.UTC().Format(time.RFC3339Nano), pos.Time.UTC().Format(time.RFC3339Nano)))
		}
	}
	s.topic, s.started = t, started
	s.origin = map[int32]string{}
	s.watched, s.silent = time.Now(), time.Time{}
	return nil
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

// drainBytes is what Drained asks for at once: of markers there may be thousands, which a batch each would take for ever.
const drainBytes = 1 << 20

// peek asks the broker for so many bytes of what a partition has from an offset on, at least a batch, and gives the first
// record of it, or nil and the next offset to ask for: there were only entries that are no records, or, where that is the same
// offset, nothing. It is certain of that, as the client is not, which is silent while a broker is away.
func (s *Source) peek(ctx context.Context, p int32, offset int64, bytes int32) (first *kgo.Record, next int64, err error) {
	err = patiently(ctx, func() error {
		m, err := s.adm.Metadata(ctx, s.o.Topic)
		if err != nil {
			return s.away(err)
		}
		t := m.Topics[s.o.Topic]
		if err := cmp.Or(t.Err, t.Partitions[p].Err); err != nil {
			return explain(s.c, err)
		}
		req := kmsg.NewPtrFetchRequest()
		req.MaxWaitMillis, req.MinBytes, req.MaxBytes = 100, 1, bytes // the first batch comes whole
		isolation := kgo.ReadCommitted()
		if s.o.ReadUncommitted {
			isolation = kgo.ReadUncommitted()
		} else {
			req.IsolationLevel = 1
		}
		part := kmsg.NewFetchRequestTopicPartition()
		part.Partition, part.FetchOffset, part.PartitionMaxBytes = p, offset, bytes
		req.Topics = []kmsg.FetchRequestTopic{{Topic: s.o.Topic, TopicID: t.ID, Partitions: []kmsg.FetchRequestTopicPartition{part}}}
		r, err := s.admClient.Broker(int(t.Partitions[p].Leader)).RetriableRequest(ctx, req)
		if err != nil {
			return s.away(err)
		}
		resp := r.(*kmsg.FetchResponse)
		if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
			return explain(s.c, err)
		}
		if len(resp.Topics) == 0 && resp.ThrottleMillis > 0 {
			return kerr.ThrottlingQuotaExceeded // the client waits so long before it asks again
		}
		if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
			return fmt.Errorf("a broker gives %d topics where one partition was asked for", len(resp.Topics))
		}
		o := kgo.ProcessFetchPartitionOpts{Offset: offset, IsolationLevel: isolation, Topic: s.o.Topic, Partition: p}
		got, n := kgo.ProcessFetchPartition(o, &resp.Topics[0].Partitions[0], kgo.DefaultDecompressor(), nil)
		if got.Err != nil {
			return explain(s.c, got.Err)
		}
		if next = n; len(got.Records) > 0 {
			first = got.Records[0]
		}
		return nil
	})
	if err != nil {
		return nil, 0, fmt.Errorf("topic %s, partition %d, offset %d: %w", s.o.Topic, p, offset, err)
	}
	return first, next, nil
}

// away explains an error, and calls it ErrUnavailable if it passes when a broker is back.
func (s *Source) away(err error) error {
	explained := explain(s.c, err)
	if !errors.Is(explained, ErrUnavailable) && !errors.As(err, new(*kerr.Error)) && passing(err) {
		return fmt.Errorf("%w: %w", ErrUnavailable, explained)
	}
	return explained
}

// Drained tells whether the partitions have nothing but markers of transactions, and what else is no record, up to ends.
func (s *Source) Drained(ctx context.Context, ends map[int32]int64) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, r := range s.left {
		if end, ok := ends[r.Partition]; ok && r.Offset <= end {
			return false, nil
		}
	}
	for p, end := range ends {
		at, ok := s.at[p]
		for next := at.Offset + 1; ok && next <= end; {
			first, after, err := s.peek(ctx, p, next, drainBytes)
			if errors.Is(err, kerr.OffsetOutOfRange) {
				err = s.lost(ctx, p, err)
			}
			if err != nil {
				return false, err
			}
			if first != nil && first.Offset <= end {
				return false, nil
			}
			if first != nil || after == next {
				break
			}
			next = after
		}
	}
	return true, nil
}

// Renewed implements ingest.Aging: where nothing but markers of transactions stands behind a position, it moves over them. When
// all of a partition that has been quiet expires, nobody could tell any more that they were no messages.
func (s *Source) Renewed(ctx context.Context, after map[int32]pipeline.Position) (map[int32]pipeline.Position, error) {
	if time.Since(s.renewed) < s.o.RenewAfter || len(s.left) > 0 {
		return nil, nil
	}
	s.renewed = time.Now()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, ends, err := offsets(ctx, s.c, s.adm, s.o.Topic)
	if err != nil {
		return nil, err
	}
	moved := map[int32]pipeline.Position{}
	for p, at := range after {
		if at.Time.IsZero() || time.Since(at.Time) < s.o.RenewAfter || s.at[p].Offset != at.Offset {
			continue
		}
		next := at.Offset + 1
		for next < ends[p] {
			first, behind, err := s.peek(ctx, p, next, drainBytes)
			if err != nil {
				return nil, err
			}
			if first != nil || behind == next {
				break
			}
			next = behind
		}
		if next-1 > at.Offset {
			// The time stays that of the last message: were there one at the offset of a marker, it would be another log.
			at.Offset = next - 1
			moved[p], s.at[p] = at, at
		}
	}
	return moved, nil
}

// gap is one behind what was read of a partition.
func (s *Source) gap(p int32, to int64, reason string, after pipeline.Position) *pipeline.GapError {
	return &pipeline.GapError{Source: s.o.Name, Topic: s.o.Topic, Partition: p, From: s.at[p].Offset + 1, To: to, Reason: reason, After: &after}
}

func (s *Source) expired(p int32, first int64) error {
	return s.gap(p, first-1, fmt.Sprintf("they expired before they were read; the partition begins at offset %d", first),
		pipeline.Position{Offset: first - 1, Renewals: s.at[p].Renewals})
}

// lostEnd is a gap of unknown size at the end of what was read: the broker gives the offsets there to other messages, or has
// done so already. Nothing says exactly where those begin; what is not younger than the last message that was read counts as
// read too.
func (s *Source) lostEnd(ctx context.Context, p int32, first, end int64, reason string) error {
	next := first // nothing is known of the last message
	if at := s.at[p].Time; !at.IsZero() {
		l, err := s.adm.ListOffsetsAfterMilli(ctx, at.UnixMilli()+1, s.o.Topic)
		if err != nil {
			return fmt.Errorf("topic %s: offsets after %s: %w", s.o.Topic, at.Format(time.RFC3339), explain(s.c, err))
		}
		o, ok := l.Lookup(s.o.Topic, p)
		if o.Err != nil {
			return fmt.Errorf("topic %s, partition %d: offsets after %s: %w", s.o.Topic, p, at.Format(time.RFC3339), explain(s.c, o.Err))
		}
		if next = end; ok && o.Offset >= 0 {
			next = min(o.Offset, end)
		}
	}
	return s.gap(p, -1, reason, pipeline.Position{Offset: next - 1, Renewals: s.at[p].Renewals + 1})
}

func (s *Source) fewer(p int32, t *Topic) error {
	return s.gap(p, -1, fmt.Sprintf("the topic has %d partitions, fewer than it had", t.Partitions), pipeline.Position{Offset: -1, Renewals: s.at[p].Renewals + 1})
}

// another is a gap because the log itself is another one.
func (s *Source) another(reason string) *pipeline.GapError {
	return &pipeline.GapError{Source: s.o.Name, Topic: s.o.Topic, Partition: pipeline.AllPartitions, To: -1, Reason: reason}
}

func (s *Source) recreated() error {
	return s.another("the topic was deleted and made again: its offsets begin anew")
}

func (s *Source) deleted() error {
	return s.another("the topic was deleted")
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
		kgo.MaxDecompressBatchBytes(int(s.o.BatchBytesMax)),
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

func (s *Source) consume(partitions []int32) error {
	at := map[int32]kgo.Offset{}
	for _, p := range partitions {
		at[p] = kgo.NewOffset().At(s.at[p].Offset + 1)
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
	s.left, s.met = nil, nil
}

// passing tells whether the client gets over an error by itself: a broker is away, or not ready yet. What else goes wrong with
// what a broker has sent goes wrong again, and the client would ask for it for ever or pass over it.
func passing(err error) bool {
	if ke := (*kerr.Error)(nil); errors.As(err, &ke) {
		return ke.Retriable && !errors.Is(err, kerr.UnknownTopicOrPartition) && !errors.Is(err, kerr.UnknownTopicID)
	}
	// A name that is not known now, or a broker that ends the connection while it starts.
	return kgo.IsRetryableBrokerErr(err) || errors.As(err, new(net.Error)) || errors.Is(err, io.EOF) || errors.Is(err, context.DeadlineExceeded)
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
		if enough || s.met != nil || ctx.Err() != nil || left <= 0 && polled {
			break
		}
		if s.met = s.watch(ctx); s.met != nil {
			continue
		}
		pollCtx, cancel := context.WithTimeout(ctx, max(min(left, s.o.PollEvery), time.Millisecond))
		fs := s.client.PollRecords(pollCtx, min(rowsMax, pollRows)-n)
		cancel()
		s.met = s.keep(ctx, fs)
	}
	if err := ctx.Err(); err != nil && n == 0 {
		return nil, err
	}
	out := s.left[:n:n]
	if s.left = s.left[n:]; len(s.left) == 0 {
		s.left = nil // what comes next is not put behind it: records are large, and whoever has these may keep them
		return out, s.met
	}
	return out, nil
}

// pollRows bounds the records that are taken from the client at once. So many are given without waiting for more: they need
// not be moved, and the client receives the next ones while they are worked on.
const pollRows = 50_000

// keep takes over what a poll brought. Records come before the error of their partition.
func (s *Source) keep(ctx context.Context, fs kgo.Fetches) error {
	reset := map[int32]*kgo.ErrDataLoss{}
	fs.EachError(func(_ string, p int32, err error) {
		if loss := (*kgo.ErrDataLoss)(nil); errors.As(err, &loss) {
			reset[p] = loss
		}
	})
	s.left = slices.Grow(s.left, fs.NumRecords())
	fs.EachPartition(func(ft kgo.FetchTopicPartition) {
		n := len(ft.Records)
		if n == 0 || reset[ft.Partition] != nil { // which of them came before the loss, nobody knows
			return
		}
		for _, r := range ft.Records {
			s.left = append(s.left, s.record(r))
		}
		last := ft.Records[n-1]
		s.at[ft.Partition] = pipeline.Position{Offset: last.Offset, Time: last.Timestamp, Renewals: s.at[ft.Partition].Renewals}
	})
	if fs.NumRecords() > 0 {
		if !s.silent.IsZero() {
			s.c.log().Warn("kafka: reading goes on", "topic", s.o.Topic, "after", time.Since(s.silent).Round(time.Millisecond).String())
		}
		s.silent = time.Time{}
	}
	var failed error
	fs.EachError(func(_ string, p int32, err error) {
		var large *kgo.ErrDecompressTooLarge
		switch {
		case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil, errors.Is(err, context.Canceled):
		case errors.Is(err, kerr.OffsetOutOfRange), errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID):
			failed = cmp.Or(s.lost(ctx, p, err), failed)
		case reset[p] != nil:
			// The client has found the offset at which what was there and what is there part.
			after := s.at[p]
			if after.Offset >= reset[p].ResetTo {
				after = pipeline.Position{Offset: reset[p].ResetTo - 1, Renewals: after.Renewals + 1}
			}
			failed = s.gap(p, -1, fmt.Sprintf("the broker lost the end of the partition, from offset %d on", reset[p].ResetTo), after)
		case errors.As(err, &large):
			failed = fmt.Errorf("topic %s, partition %d: the messages at offsets %d to %d were sent as one batch, which becomes larger than %d MiB when it is decompressed; a greater stream.bytes_max, half of that, lets it in",
				s.o.Topic, p, large.Offset, large.NextOffset-1, s.o.BatchBytesMax>>20)
		case passing(err):
			if s.silent.IsZero() {
				s.silent = time.Now()
				s.c.log().Warn("kafka: reading is interrupted; trying again", "topic", s.o.Topic, "partition", p, "error", err)
			}
		default:
			failed = fmt.Errorf("topic %s, partition %d, behind offset %d: %w", s.o.Topic, p, s.at[p].Offset, explain(s.c, err))
		}
	})
	return failed
}

func (s *Source) record(r *kgo.Record) pipeline.Record {
	origin, ok := s.origin[r.Partition]
	if !ok {
		origin = pipeline.Origin(Kind, s.topic.Incarnation(), s.o.Topic, r.Partition, s.at[r.Partition])
		s.origin[r.Partition] = origin
	}
	return pipeline.Record{
		Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Time: r.Timestamp, Key: r.Key, Value: r.Value, Origin: origin,
	}
}

// lost says which offsets a broker no longer has; nil: a broker did not know the topic for a moment.
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
		return s.deleted()
	}
	if !errors.Is(cause, kerr.OffsetOutOfRange) {
		return nil // the client asks again
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
	switch next := s.at[p].Offset + 1; {
	case next < starts[p]:
		return s.expired(p, starts[p])
	case next > ends[p]:
		return s.lostEnd(ctx, p, starts[p], ends[p], fmt.Sprintf("the partition ends at offset %d, before what was read: the broker lost its end", ends[p]-1))
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
		return s.deleted()
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
		return s.fewer(t.Partitions, t)
	}
	s.silent = time.Time{}
	added := map[int32]kgo.Offset{}
	for _, p := range s.mine(t) {
		if _, ok := s.at[p]; !ok {
			// A partition that is new begins with its first record, whatever Start says: nothing of it is passed over.
			added[p] = kgo.NewOffset().At(0)
			s.at[p] = pipeline.Position{Offset: -1}
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
	return s.another(reason) // and Start says where reading begins
}
