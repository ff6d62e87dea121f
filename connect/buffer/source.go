package buffer

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cauce-data/cauce/pipeline"
)

// partition is the only one that a topic has.
const partition = 0

// fetchBytes bounds what one request to the server brings. It must exceed any message, else that one never comes.
const fetchBytes = 2 * payloadMax

// fetchRows bounds the messages of one request.
const fetchRows = 4096

// positionsStream keeps the last position that each of several readers of a topic has committed.
const positionsStream = "positions"

// SourceOptions configure a Source.
type SourceOptions struct {
	// Name is the source's name in the lake file.
	Name string
	// Readers names all of the lake's sources that read the topic, this one included. A message is kept until all of
	// them have committed it. Empty: this source alone.
	Readers []string
}

// Source reads one topic. It implements ingest.Source and is not safe for concurrent use.
type Source struct {
	b     *Buffer
	topic string
	o     SourceOptions

	incarnation string
	origin      string
	at          pipeline.Position // of the last record that was taken from the server, or what Seek was told
	next        uint64            // offset of the next record that Fetch takes from the server
	consumer    jetstream.Consumer
	left        []pipeline.Record // taken from the server but not returned
	met         error             // a gap behind what is left
	idle        time.Time         // when the last record came, or the log was last looked at
	down        time.Time         // since when no host can be reached; zero: one can
	ripe        []pipeline.Position
}

// Source opens a topic for reading, making it if it is missing. Reading begins with Seek.
func (b *Buffer) Source(ctx context.Context, topic string, o SourceOptions) (*Source, error) {
	s := &Source{b: b, topic: topic, o: o}
	if _, err := s.Incarnation(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// info describes the stream as it is now.
func (s *Source) info(ctx context.Context) (jetstream.Stream, *jetstream.StreamInfo, error) {
	st, err := s.b.stream(ctx, s.topic)
	if err != nil {
		return nil, nil, err
	}
	var info *jetstream.StreamInfo
	err = s.b.retry(ctx, func(ctx context.Context) (err error) {
		info, err = st.Info(ctx)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("topic %s: %w", s.topic, err)
	}
	return st, info, nil
}

// Incarnation is the topic's UUID.
func (s *Source) Incarnation(ctx context.Context) (string, error) {
	_, info, err := s.info(ctx)
	if err != nil {
		return "", err
	}
	return info.Config.Metadata[metaIncarnation], nil
}

// Ends gives the offset of the newest record; -1 if there never was one.
func (s *Source) Ends(ctx context.Context) (map[int32]int64, error) {
	_, info, err := s.info(ctx)
	if err != nil {
		return nil, err
	}
	end := int64(-1)
	if info.State.LastSeq > 0 {
		end = int64(info.State.LastSeq)
	}
	return map[int32]int64{partition: end}, nil
}

// Drained tells whether everything up to ends has been taken. Where the last messages are gone, that is a gap.
func (s *Source) Drained(ctx context.Context, ends map[int32]int64) (bool, error) {
	_, info, err := s.info(ctx)
	if err != nil {
		return false, err
	}
	if end := min(ends[partition], int64(info.State.LastSeq)); int64(s.next) > end {
		return len(s.left) == 0 || s.left[0].Offset > end, nil
	}
	return false, s.hole(ctx)
}

// Seek starts reading after a position; without one, with the earliest record. The record at the position must still
// be there with the time that was recorded: that proves that the topic is the one that was read.
func (s *Source) Seek(ctx context.Context, after map[int32]pipeline.Position) error {
	st, info, err := s.info(ctx)
	if err != nil {
		return err
	}
	s.reset()
	s.incarnation = info.Config.Metadata[metaIncarnation]
	first, last := max(int64(info.State.FirstSeq), 1), int64(info.State.LastSeq)
	pos, ok := after[partition]
	if !ok || pos.Offset < 0 {
		pos = pipeline.Position{Offset: first - 1, Renewals: pos.Renewals}
	}
	s.at, s.next = pos, uint64(pos.Offset)+1
	s.origin = pipeline.Origin(Kind, s.incarnation, s.topic, partition, pos)
	switch {
	case pos.Offset > last:
		return s.lostEnd(ctx, st, info, fmt.Sprintf("the buffer ends at offset %d, before the table's position: it was replaced or lost its end", last))
	case pos.Offset < first-1:
		return s.gap(first-1, fmt.Sprintf("the buffer begins at offset %d", first))
	case pos.Offset < first, pos.Time.IsZero():
		return nil // there is no record at the position, and none is missing behind it
	}
	var msg *jetstream.RawStreamMsg
	err = s.b.retry(ctx, func(ctx context.Context) (err error) {
		msg, err = st.GetMsg(ctx, uint64(pos.Offset))
		return err
	})
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		gap := s.gap(pos.Offset, fmt.Sprintf("the message at offset %d, which proves that the buffer is the one that was read, is gone", pos.Offset))
		gap.To = -1
		return gap
	}
	if err != nil {
		return fmt.Errorf("topic %s: %w", s.topic, err)
	}
	// Progress may keep times in µs.
	if msg.Time.UnixMicro() != pos.Time.UnixMicro() {
		return s.lostEnd(ctx, st, info, fmt.Sprintf("the message at offset %d is of %s, but the one that was read was of %s: the buffer was replaced or lost its end",
			pos.Offset, msg.Time.UTC().Format(time.RFC3339Nano), pos.Time.UTC().Format(time.RFC3339Nano)))
	}
	return nil
}

// Probe tells what Seek would say of positions, without moving the Source.
func (s *Source) Probe(ctx context.Context, after map[int32]pipeline.Position) error {
	return (&Source{b: s.b, topic: s.topic, o: s.o}).Seek(ctx, after)
}

// gap is one behind what was read, up to and including an offset, behind which reading may go on.
func (s *Source) gap(to int64, reason string) *pipeline.GapError {
	return &pipeline.GapError{
		Source: s.o.Name, Topic: s.topic, Partition: partition, From: int64(s.next), To: to, Reason: reason,
		After: &pipeline.Position{Offset: to, Renewals: s.at.Renewals},
	}
}

// lostEnd is a gap of unknown size at the end of what was read: the buffer gives the offsets there to other messages, or
// has done so already. The server stamps messages as they come, so those that are not younger than the last one that was
// read were read as well, and the rest is new.
func (s *Source) lostEnd(ctx context.Context, st jetstream.Stream, info *jetstream.StreamInfo, reason string) error {
	first, last := max(info.State.FirstSeq, 1), info.State.LastSeq
	var failed error
	n := sort.Search(int(last+1-first), func(i int) bool { //nolint:gosec // no buffer has so many
		msg, err := s.from(ctx, st, first+uint64(i)) //nolint:gosec // as above
		failed = errors.Join(failed, err)
		return failed != nil || msg == nil || msg.Time.UnixMicro() > s.at.Time.UnixMicro()
	})
	if failed != nil {
		return failed
	}
	gap := s.gap(int64(first)+int64(n)-1, reason)
	gap.To, gap.After.Renewals = -1, gap.After.Renewals+1
	return gap
}

// from gives the first message that is there from an offset on; nil: there is none.
func (s *Source) from(ctx context.Context, st jetstream.Stream, seq uint64) (msg *jetstream.RawStreamMsg, err error) {
	err = s.b.retry(ctx, func(ctx context.Context) (err error) {
		msg, err = st.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(streamName(s.topic)))
		return err
	})
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("topic %s: %w", s.topic, err)
	}
	return msg, nil
}

// Succeeds implements ingest.Successor: the table has read this source from another log before. What that one still held is not
// here.
func (s *Source) Succeeds(previous []string) *pipeline.GapError {
	return &pipeline.GapError{
		Source: s.o.Name, Topic: s.topic, Partition: partition, From: 0, To: -1,
		Reason: "the table has read this source from another log (" + previous[len(previous)-1] + ") than this buffer: what that one held and the table has not read is not here",
	}
}

func (s *Source) reset() {
	s.consumer, s.left, s.met, s.ripe = nil, nil, nil, nil
	s.idle, s.down = time.Now(), time.Time{}
}

// Fetch returns the next records. A limit that is not positive is none. While no process hosts the buffer there are
// no records; that is an error only after half a minute.
func (s *Source) Fetch(ctx context.Context, rowsMax int, bytesMax int64, wait time.Duration) ([]pipeline.Record, error) {
	if s.incarnation == "" {
		return nil, fmt.Errorf("topic %s: Fetch before Seek", s.topic)
	}
	if rowsMax <= 0 {
		rowsMax = int(^uint(0) >> 1)
	}
	var out []pipeline.Record
	var bytes int64
	full := func() bool { return len(out) >= rowsMax || bytesMax > 0 && bytes >= bytesMax }
	take := func() {
		n := 0
		for n < len(s.left) && !full() {
			out = append(out, s.left[n])
			bytes += int64(len(s.left[n].Value) + len(s.left[n].Key))
			n++
		}
		s.left = s.left[n:]
	}
	deadline := time.Now().Add(wait)
	for {
		take()
		if full() {
			return out, nil
		}
		if s.met != nil {
			return out, s.met
		}
		if err := ctx.Err(); err != nil {
			return out, err
		}
		remaining := time.Until(deadline)
		if remaining <= 0 && (len(out) > 0 || wait > 0) {
			return out, nil
		}
		err := s.fill(ctx, min(rowsMax-len(out), fetchRows), remaining)
		switch {
		case errors.As(err, new(*pipeline.GapError)):
			s.met = err
		case err == nil:
			s.down = time.Time{}
			if len(s.left) == 0 && remaining <= 0 {
				return out, nil
			}
		case ctx.Err() != nil:
			return out, ctx.Err()
		case transient(err):
			s.consumer = nil
			if s.down.IsZero() {
				s.down = time.Now()
			}
			if time.Since(s.down) > patience {
				return out, fmt.Errorf("topic %s: no host can be reached: %w", s.topic, err)
			}
			if time.Until(deadline) <= 0 {
				return out, nil
			}
			_ = pause(ctx, backoff())
		default:
			return out, err
		}
	}
}

// fill takes records from the server into s.left, in order and without a hole.
func (s *Source) fill(ctx context.Context, rows int, wait time.Duration) error {
	if s.consumer == nil {
		if err := s.consume(ctx); err != nil {
			return err
		}
	}
	var batch jetstream.MessageBatch
	var err error
	if wait < 5*time.Millisecond {
		// NB: FetchNoWait has no bound in bytes, so few messages are asked for.
		batch, err = s.consumer.FetchNoWait(min(rows, 64))
	} else {
		// The request is kept short: when the host dies during it nothing tells.
		batch, err = s.consumer.Fetch(rows, jetstream.FetchMaxWait(min(wait, time.Second)), jetstream.FetchMaxBytes(fetchBytes))
	}
	if err != nil {
		return err
	}
	got := 0
	for msg := range batch.Messages() {
		meta, err := msg.Metadata()
		if err != nil {
			s.consumer = nil
			return fmt.Errorf("topic %s: %w", s.topic, err)
		}
		if meta.Sequence.Stream != s.next {
			s.consumer = nil
			if meta.Sequence.Stream < s.next {
				return nil
			}
			return s.hole(ctx)
		}
		r := pipeline.Record{
			Topic: s.topic, Partition: partition, Offset: int64(s.next), Time: meta.Timestamp.UTC(), Value: msg.Data(), Origin: s.origin,
		}
		if r.Key, err = keyOf(msg.Headers()); err != nil {
			return fmt.Errorf("topic %s offset %d: %w", s.topic, r.Offset, err)
		}
		s.left = append(s.left, r)
		s.at.Offset, s.at.Time = r.Offset, r.Time
		s.next++
		got++
	}
	if err := batch.Error(); err != nil {
		s.consumer = nil
		if got > 0 || errors.Is(err, jetstream.ErrConsumerDeleted) || errors.Is(err, jetstream.ErrConsumerNotFound) {
			return nil
		}
		return err
	}
	if got > 0 {
		s.idle = time.Now()
		return nil
	}
	if time.Since(s.idle) > 2*time.Second { // nothing comes: is that because nothing is there?
		return s.look(ctx)
	}
	return nil
}

// keyOf is the key of a message; nil: it has none.
func keyOf(h nats.Header) ([]byte, error) {
	if k := h.Get(headerKey); k != "" {
		return []byte(k), nil
	}
	k := h.Get(headerKeyBase64)
	if k == "" {
		return nil, nil
	}
	b, err := base64.StdEncoding.DecodeString(k)
	if err != nil {
		return nil, fmt.Errorf("header %s: %w", headerKeyBase64, err)
	}
	return b, nil
}

// consume makes a consumer that begins at s.next. It keeps nothing at the server that must survive.
func (s *Source) consume(ctx context.Context) error {
	if err := s.look(ctx); err != nil {
		return err
	}
	once, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	c, err := s.b.js.CreateConsumer(once, streamName(s.topic), jetstream.ConsumerConfig{
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       s.next,
		AckPolicy:         jetstream.AckNonePolicy,
		MemoryStorage:     true,
		InactiveThreshold: time.Minute,
		Replicas:          1,
	})
	if err != nil {
		return err
	}
	s.consumer = c
	return nil
}

// look compares the log with what is expected of it.
func (s *Source) look(ctx context.Context) error {
	once, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	st, err := s.b.js.Stream(once, streamName(s.topic))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("topic %s: %w", s.topic, ErrReplaced)
	}
	if err != nil {
		return err
	}
	info := st.CachedInfo()
	if info.Config.Metadata[metaIncarnation] != s.incarnation {
		return fmt.Errorf("topic %s: %w", s.topic, ErrReplaced)
	}
	s.idle = time.Now()
	switch {
	case info.State.FirstSeq > s.next:
		return s.gap(int64(info.State.FirstSeq)-1, fmt.Sprintf("the buffer begins at offset %d", info.State.FirstSeq))
	case info.State.LastSeq+1 < s.next:
		return s.lostEnd(ctx, st, info, fmt.Sprintf("the buffer ends at offset %d, before what was read: it was replaced or lost its end", info.State.LastSeq))
	case info.State.LastSeq >= s.next:
		s.consumer = nil // records are there and do not come
	}
	return nil
}

// hole finds out why the record at s.next did not come: it may have been lost on the way.
func (s *Source) hole(ctx context.Context) error {
	if err := s.look(ctx); err != nil {
		return err
	}
	st, info, err := s.info(ctx)
	if err != nil {
		return err
	}
	switch msg, err := s.from(ctx, st, s.next); {
	case err != nil:
		return err
	case msg == nil && info.State.LastSeq >= s.next:
		return s.gap(int64(info.State.LastSeq), "the messages are gone from the end of the buffer")
	case msg != nil && msg.Sequence > s.next:
		return s.gap(int64(msg.Sequence)-1, "the messages are gone from the middle of the buffer")
	}
	return nil
}

// Committed lets the buffer forget what all readers have in the table. It keeps the message at the position, by which
// Seek knows the topic again, and messages younger than DuplicatesWindow, by whose ids it knows repeated ones.
func (s *Source) Committed(ctx context.Context, pos map[int32]pipeline.Position) error {
	p, ok := pos[partition]
	if !ok || p.Offset < 0 {
		return nil
	}
	offset := p.Offset
	if others := slices.DeleteFunc(slices.Clone(s.o.Readers), func(n string) bool { return n == s.o.Name }); len(others) > 0 {
		slowest, err := s.share(ctx, offset, others)
		if err != nil {
			return fmt.Errorf("topic %s: %w", s.topic, err)
		}
		offset = slowest
	}
	s.ripe = append(s.ripe, pipeline.Position{Offset: offset, Time: p.Time})
	var purge int64
	n := 0
	for n < len(s.ripe) && time.Since(s.ripe[n].Time) > DuplicatesWindow {
		purge = max(purge, s.ripe[n].Offset)
		n++
	}
	s.ripe = s.ripe[n:]
	if purge <= 1 {
		return nil
	}
	st, _, err := s.info(ctx)
	if err != nil {
		return err
	}
	err = s.b.retry(ctx, func(ctx context.Context) error { return st.Purge(ctx, jetstream.WithPurgeSequence(uint64(purge))) })
	if err != nil {
		return fmt.Errorf("topic %s: %w", s.topic, err)
	}
	return nil
}

// share records this reader's position and returns the least of all readers' (0 if one never committed).
func (s *Source) share(ctx context.Context, offset int64, others []string) (int64, error) {
	subject := func(reader string) string {
		return positionsStream + "." + streamName(s.topic) + "." + streamName(reader) + "." + s.incarnation
	}
	least := offset
	err := s.b.retry(ctx, func(ctx context.Context) error {
		st, err := s.b.js.Stream(ctx, positionsStream)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			st, err = s.b.js.CreateStream(ctx, jetstream.StreamConfig{
				Name: positionsStream, Subjects: []string{positionsStream + ".>"}, Storage: jetstream.FileStorage, MaxMsgsPerSubject: 1, Replicas: 1,
			})
			if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
				st, err = s.b.js.Stream(ctx, positionsStream)
			}
		}
		if err != nil {
			return err
		}
		if _, err := s.b.js.PublishMsg(ctx, &nats.Msg{Subject: subject(s.o.Name), Data: strconv.AppendInt(nil, offset, 10)}); err != nil {
			return err
		}
		least = offset
		for _, r := range others {
			msg, err := st.GetLastMsgForSubject(ctx, subject(r))
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				least = 0
				continue
			}
			if err != nil {
				return err
			}
			n, err := strconv.ParseInt(string(msg.Data), 10, 64)
			if err != nil {
				return fmt.Errorf("position of %s: %w", r, err)
			}
			least = min(least, n)
		}
		return nil
	})
	return least, err
}

// Close ends reading.
func (s *Source) Close() error {
	if c := s.consumer; c != nil && s.b.nc.IsConnected() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = s.b.js.DeleteConsumer(ctx, streamName(s.topic), c.CachedInfo().Name) // else it ends by itself, idle for a minute
	}
	s.reset()
	s.incarnation = ""
	return nil
}
