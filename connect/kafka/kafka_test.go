package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cauce-data/cauce/connect/kafka"
	"github.com/cauce-data/cauce/internal/kafkatest"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/pipeline"
)

// publish sends messages lo … hi-1 with fifty keys and waits until the broker has them.
func publish(t *testing.T, c kafka.Config, topic string, lo, hi int) {
	t.Helper()
	sink, err := kafka.NewSink(t.Context(), c, topic, kafka.SinkOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := lo; i < hi; i++ {
		if err := sink.Publish(t.Context(), fmt.Appendf(nil, "k%d", i%50), strconv.Itoa(i), fmt.Appendf(nil, `{"n":%d}`, i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, c kafka.Config, o kafka.SourceOptions) *kafka.Source {
	t.Helper()
	o.Name = "live"
	s, err := kafka.OpenSource(t.Context(), c, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// fetch reads n records, and checks that offsets grow in each partition.
func fetch(t *testing.T, s *kafka.Source, n int) []pipeline.Record {
	t.Helper()
	var out []pipeline.Record
	last := map[int32]int64{}
	deadline := time.Now().Add(30 * time.Second)
	for len(out) < n {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d records after 30 s", len(out), n)
		}
		recs, err := s.Fetch(t.Context(), n-len(out), 0, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range recs {
			if at, ok := last[r.Partition]; ok && r.Offset <= at {
				t.Fatalf("partition %d: offset %d after %d", r.Partition, r.Offset, at)
			}
			last[r.Partition] = r.Offset
		}
		out = append(out, recs...)
	}
	return out
}

func positions(recs []pipeline.Record) map[int32]pipeline.Position {
	pos := map[int32]pipeline.Position{}
	for _, r := range recs {
		pos[r.Partition] = pipeline.Position{Offset: r.Offset, Time: r.Time}
	}
	return pos
}

func values(recs []pipeline.Record) []string {
	var out []string
	for _, r := range recs {
		out = append(out, string(r.Value))
	}
	slices.Sort(out)
	return out
}

func gapOf(t *testing.T, err error) *pipeline.GapError {
	t.Helper()
	var gap *pipeline.GapError
	if !errors.As(err, &gap) {
		t.Fatalf("got %v, want a gap", err)
	}
	return gap
}

// TestBroker runs everything that needs a broker against one, each part on topics of its own.
func TestBroker(t *testing.T) {
	users := map[string]string{"producer": "p-secret", "stream": "s-secret"}
	b := kafkatest.New(t, users)
	c := kafka.Config{Brokers: []string{b.Admin}}
	ctx := t.Context()
	topic := func(t *testing.T, partitions int32) string {
		t.Helper()
		name := "t" + strconv.FormatUint(rand.Uint64(), 36)
		if err := b.CreateTopic(ctx, name, partitions, nil); err != nil {
			t.Fatal(err)
		}
		return name
	}

	t.Run("backlog", func(t *testing.T) {
		name := topic(t, 3)
		s := open(t, c, kafka.SourceOptions{Topic: name})
		if l, err := s.Backlog(ctx, nil); err != nil || l.Sum() != 0 || l.Age(time.Now()) != 0 {
			t.Fatalf("an empty topic: %+v, %v", l, err)
		}
		began := time.Now().Add(-time.Second)
		publish(t, c, name, 0, 300)
		if err := s.Seek(ctx, nil); err != nil {
			t.Fatal(err)
		}
		recs := fetch(t, s, 300)
		after := positions(recs)
		// The last of each partition is taken back: three wait, and the oldest is the oldest of them.
		oldest := time.Now()
		for p, pos := range after {
			if pos.Time.Before(oldest) {
				oldest = pos.Time
			}
			after[p] = pipeline.Position{Offset: pos.Offset - 1}
		}
		l, err := s.Backlog(ctx, after)
		if err != nil || l.Sum() != 3 || !l.Oldest.Equal(oldest) {
			t.Errorf("%+v, %v; want 3 records, the oldest of %s", l, err, oldest)
		}
		if l, err := s.Backlog(ctx, nil); err != nil || l.Sum() != 300 || l.Oldest.Before(began) {
			t.Errorf("nothing is read: %+v, %v", l, err)
		}
		if l, err := s.Backlog(ctx, positions(recs)); err != nil || l.Sum() != 0 || !l.Oldest.IsZero() {
			t.Errorf("all is read: %+v, %v", l, err)
		}
		if err := s.Probe(ctx, after); err != nil {
			t.Error(err)
		}
		// Asking has not moved the source.
		publish(t, c, name, 300, 310)
		fetch(t, s, 10)
		// What the start passes over does not wait.
		late := open(t, c, kafka.SourceOptions{Topic: name, Start: kafka.Start{Latest: true}})
		if l, err := late.Backlog(ctx, nil); err != nil || l.Sum() != 0 {
			t.Errorf("from the latest: %+v, %v", l, err)
		}
		if l, err := late.Backlog(ctx, after); err != nil || l.Sum() != 13 {
			t.Errorf("from where the table is: %+v, %v", l, err)
		}
	})

	t.Run("resume", func(t *testing.T) {
		name := topic(t, 3)
		publish(t, c, name, 0, 1000)
		s := open(t, c, kafka.SourceOptions{Topic: name})
		if err := s.Seek(ctx, nil); err != nil {
			t.Fatal(err)
		}
		first := fetch(t, s, 400)
		again := open(t, c, kafka.SourceOptions{Topic: name})
		if err := again.Seek(ctx, positions(first)); err != nil {
			t.Fatal(err)
		}
		// A partition of which nothing was read has no position: it begins with its first record.
		rest := fetch(t, again, 600)
		var want []string
		for i := range 1000 {
			want = append(want, fmt.Sprintf(`{"n":%d}`, i))
		}
		slices.Sort(want)
		if got := values(append(first, rest...)); !slices.Equal(got, want) {
			t.Errorf("%d records, not the 1000 that were published, each once", len(got))
		}
		ends, err := s.Ends(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var n int64
		for _, e := range ends {
			n += e + 1
		}
		if n != 1000 {
			t.Errorf("ends %v stand for %d records", ends, n)
		}
	})

	t.Run("start", func(t *testing.T) {
		name := topic(t, 1)
		publish(t, c, name, 0, 100)
		between := time.Now().Add(50 * time.Millisecond)
		time.Sleep(100 * time.Millisecond) // the broker keeps milliseconds
		publish(t, c, name, 100, 150)
		for _, tc := range []struct {
			start kafka.Start
			first int64
		}{
			{kafka.Start{}, 0}, {kafka.Start{Time: between}, 100}, {kafka.Start{Offsets: map[int32]int64{0: 42}}, 42}, {kafka.Start{Time: time.Now().Add(time.Hour)}, 150},
			{kafka.Start{Latest: true}, 150},
		} {
			s := open(t, c, kafka.SourceOptions{Topic: name, Start: tc.start})
			if err := s.Seek(ctx, nil); err != nil {
				t.Fatal(err)
			}
			if at, ok := s.Started()[0]; !ok || at.Offset+1 != tc.first {
				t.Errorf("start %+v begins behind %+v, want offset %d", tc.start, at, tc.first)
			}
			if tc.first < 150 {
				if got := fetch(t, s, 1)[0].Offset; got != tc.first {
					t.Errorf("start %+v reads offset %d first, want %d", tc.start, got, tc.first)
				}
			}
		}
		s := open(t, c, kafka.SourceOptions{Topic: name, Start: kafka.Start{Offsets: map[int32]int64{0: 1000}}})
		if err := s.Seek(ctx, nil); err == nil {
			t.Error("a start beyond the end is accepted")
		}
	})

	t.Run("expired", func(t *testing.T) {
		name := topic(t, 1)
		publish(t, c, name, 0, 100)
		s := open(t, c, kafka.SourceOptions{Topic: name})
		if err := s.Seek(ctx, nil); err != nil {
			t.Fatal(err)
		}
		pos := positions(fetch(t, s, 10))
		if err := b.Truncate(ctx, name, 0, 60); err != nil {
			t.Fatal(err)
		}
		again := open(t, c, kafka.SourceOptions{Topic: name})
		gap := gapOf(t, again.Seek(ctx, pos))
		if gap.From != 10 || gap.To != 59 || gap.After == nil || *gap.After != (pipeline.Position{Offset: 59}) {
			t.Errorf("gap %+v, want 10 to 59", gap)
		}
		// Expired up to the position itself, nothing is missing.
		if err := again.Seek(ctx, map[int32]pipeline.Position{0: {Offset: 59}}); err != nil {
			t.Error(err)
		}
		// Expired while it reads: the source stops as well, and does not jump.
		slow := open(t, c, kafka.SourceOptions{Topic: name})
		if err := slow.Seek(ctx, map[int32]pipeline.Position{0: {Offset: 99}}); err == nil {
			if err := b.Truncate(ctx, name, 0, 100); err != nil {
				t.Fatal(err)
			}
		}
		publish(t, c, name, 100, 110)
		if got := fetch(t, slow, 10)[0].Offset; got != 100 {
			t.Errorf("first offset %d", got)
		}
	})

	t.Run("expired in a partition that was empty", func(t *testing.T) {
		name := topic(t, 2)
		s := open(t, c, kafka.SourceOptions{Topic: name})
		if err := s.Seek(ctx, nil); err != nil {
			t.Fatal(err)
		}
		started := s.Started()
		if len(started) != 2 || started[0].Offset != -1 || started[1].Offset != -1 {
			t.Fatalf("reading began behind %v", started)
		}
		publish(t, c, name, 0, 500)
		if err := b.Truncate(ctx, name, 1, 20); err != nil {
			t.Fatal(err)
		}
		for _, after := range []map[int32]pipeline.Position{started, {0: {Offset: -1}}} {
			gap := gapOf(t, s.Seek(ctx, after))
			if gap.Partition != 1 || gap.From != 0 || gap.To != 19 {
				t.Errorf("%v: gap %+v, want 0 to 19 of partition 1", after, gap)
			}
			after[1] = *gap.After
			if err := s.Seek(ctx, after); err != nil {
				t.Error(err)
			}
		}
	})

	t.Run("lost end", func(t *testing.T) {
		name := topic(t, 1)
		publish(t, c, name, 0, 20)
		s := open(t, c, kafka.SourceOptions{Topic: name})
		if err := s.Seek(ctx, nil); err != nil {
			t.Fatal(err)
		}
		read := fetch(t, s, 20)
		time.Sleep(10 * time.Millisecond) // the broker keeps milliseconds
		publish(t, c, name, 20, 30)
		for what, pos := range map[string]pipeline.Position{
			"beyond the end":         {Offset: 50, Time: read[19].Time, Renewals: 1},
			"another message":        {Offset: 25, Time: read[19].Time, Renewals: 1},
			"at a time not known":    {Offset: 50, Renewals: 1},
			"later than all that is": {Offset: 50, Time: time.Now().Add(time.Hour), Renewals: 1},
		} {
			gap := gapOf(t, s.Seek(ctx, map[int32]pipeline.Position{0: pos}))
			want := map[string]int64{"beyond the end": 19, "another message": 19, "at a time not known": -1, "later than all that is": 29}[what]
			if gap.From != pos.Offset+1 || gap.To != -1 || *gap.After != (pipeline.Position{Offset: want, Renewals: 2}) {
				t.Errorf("%s: %+v, behind %+v; want offset %d", what, gap, gap.After, want)
			}
			if err := s.Seek(ctx, map[int32]pipeline.Position{0: *gap.After}); err != nil {
				t.Error(err)
			} else if want < 29 {
				if r := fetch(t, s, 1)[0]; r.Offset != want+1 || r.Origin != read[0].Origin+"~2" {
					t.Errorf("%s: reading goes on with %+v", what, r)
				}
			}
		}
		gap := gapOf(t, s.Seek(ctx, map[int32]pipeline.Position{0: {Offset: 29}, 3: {Offset: 7}}))
		if gap.Partition != 3 || *gap.After != (pipeline.Position{Offset: -1, Renewals: 1}) {
			t.Errorf("fewer partitions: %+v", gap)
		}
		if err := s.Seek(ctx, map[int32]pipeline.Position{0: {Offset: 29}, 3: *gap.After}); err != nil {
			t.Error(err)
		}
	})

	t.Run("drained", func(t *testing.T) {
		name := topic(t, 1)
		s := open(t, c, kafka.SourceOptions{Topic: name})
		drained := func(want bool) {
			t.Helper()
			ends, err := s.Ends(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := s.Drained(ctx, ends); err != nil || got != want {
				t.Errorf("ends %v: drained is %t, %v", ends, got, err)
			}
		}
		if err := s.Seek(ctx, nil); err != nil {
			t.Fatal(err)
		}
		drained(true)
		cl, err := kgo.NewClient(kgo.SeedBrokers(b.Admin), kgo.TransactionalID(name), kgo.DefaultProduceTopic(name))
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		transaction := func(how kgo.TransactionEndTry) {
			t.Helper()
			if err := cl.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			if err := cl.ProduceSync(ctx, kgo.StringRecord("{}")).FirstErr(); err != nil {
				t.Fatal(err)
			}
			if err := cl.EndTransaction(ctx, how); err != nil {
				t.Fatal(err)
			}
		}
		transaction(kgo.TryCommit)
		drained(false)
		fetch(t, s, 1)
		drained(true) // behind the record there is the marker alone
		transaction(kgo.TryAbort)
		transaction(kgo.TryAbort)
		drained(true)
		transaction(kgo.TryCommit)
		drained(false)
		fetch(t, s, 1)
		drained(true)

		ends, err := s.Ends(ctx)
		if err != nil {
			t.Fatal(err)
		}
		ends[0] += 10
		b.Pause()
		defer b.Resume()
		short, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		if got, err := s.Drained(short, ends); got || !errors.Is(err, kafka.ErrUnavailable) {
			t.Errorf("the broker does not answer: drained is %t, %v", got, err)
		}
	})

	// A small batch may become a large one. It is neither taken in nor passed over.
	t.Run("decompression", func(t *testing.T) {
		name := topic(t, 1)
		publish(t, c, name, 0, 3)
		cl, err := kgo.NewClient(kgo.SeedBrokers(b.Admin), kgo.ProducerBatchCompression(kgo.ZstdCompression()), kgo.BrokerMaxWriteBytes(1<<28),
			kgo.ProducerBatchMaxBytes(1<<26), kgo.MaxBufferedBytes(1<<28))
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		if err := cl.ProduceSync(ctx, &kgo.Record{Topic: name, Value: make([]byte, 20<<20)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		publish(t, c, name, 3, 6)
		s := open(t, c, kafka.SourceOptions{Topic: name, BatchBytesMax: 16 << 20})
		if err := s.Seek(ctx, nil); err != nil {
			t.Fatal(err)
		}
		fetch(t, s, 3)
		for range 2 {
			recs, err := s.Fetch(ctx, 100, 0, 5*time.Second)
			if err == nil || !strings.Contains(err.Error(), "offsets 3 to 3") || !strings.Contains(err.Error(), "16 MiB") {
				t.Errorf("%d records, %v", len(recs), err)
			}
		}
		s = open(t, c, kafka.SourceOptions{Topic: name})
		if err := s.Seek(ctx, nil); err != nil {
			t.Fatal(err)
		}
		fetch(t, s, 7)
	})

	// Nobody can tell what has expired. So a position moves over what is no message while it is there.
	t.Run("expired markers", func(t *testing.T) {
		name := topic(t, 1)
		producer, err := kgo.NewClient(kgo.SeedBrokers(b.Admin), kgo.DefaultProduceTopic(name), kgo.TransactionalID(name))
		if err != nil {
			t.Fatal(err)
		}
		defer producer.Close()
		transaction := func(value string, end kgo.TransactionEndTry) {
			t.Helper()
			if err := producer.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			if err := producer.ProduceSync(ctx, &kgo.Record{Value: []byte(value)}).FirstErr(); err != nil {
				t.Fatal(err)
			}
			if err := producer.EndTransaction(ctx, end); err != nil {
				t.Fatal(err)
			}
		}
		transaction("kept", kgo.TryCommit)   // at 0, its marker at 1
		transaction("aborted", kgo.TryAbort) // at 2, its marker at 3
		s := open(t, c, kafka.SourceOptions{Topic: name, RenewAfter: time.Nanosecond})
		if err := s.Seek(ctx, nil); err != nil {
			t.Fatal(err)
		}
		after := positions(fetch(t, s, 1))
		moved, err := s.Renewed(ctx, after)
		if err != nil || moved[0].Offset != 3 || !moved[0].Time.Equal(after[0].Time) {
			t.Fatalf("%+v is renewed to %+v, %v", after, moved, err)
		}
		if again, err := s.Renewed(ctx, moved); err != nil || len(again) > 0 {
			t.Errorf("once more: %+v, %v", again, err)
		}
		if err := s.Probe(ctx, moved); err != nil {
			t.Errorf("while the markers are there: %v", err)
		}
		if err := b.Truncate(ctx, name, 0, 4); err != nil {
			t.Fatal(err)
		}
		if err := s.Seek(ctx, moved); err != nil {
			t.Errorf("when all has expired: %v", err)
		}
		transaction("next", kgo.TryCommit)
		if r := fetch(t, s, 1); string(r[0].Value) != "next" || r[0].Offset != 4 {
			t.Errorf("%+v comes next", r)
		}
		// What is a message is passed over by nobody.
		s = open(t, c, kafka.SourceOptions{Topic: name, RenewAfter: time.Nanosecond})
		if err := s.Seek(ctx, moved); err != nil {
			t.Fatal(err)
		}
		if moved, err := s.Renewed(ctx, moved); err != nil || len(moved) > 0 {
			t.Errorf("a message waits, and the position is renewed to %+v, %v", moved, err)
		}
	})

	// What one batch may have is the topic's to say: a message that it takes is sent, and many small ones are no large one.
	t.Run("message sizes", func(t *testing.T) {
		noise := rand.NewChaCha8([32]byte{1}) // what cannot be compressed
		for _, tc := range []struct {
			max, messages, size int
			refused             string
		}{
			{max: 3_000_000, messages: 1, size: 2_000_000},
			{max: 100_000, messages: 3000, size: 1000},
			{max: 100_000, messages: 1, size: 200_000, refused: "larger than the topic takes (max.message.bytes)"},
		} {
			name := "t" + strconv.FormatUint(rand.Uint64(), 36)
			if err := b.CreateTopic(ctx, name, 1, map[string]string{"max.message.bytes": strconv.Itoa(tc.max)}); err != nil {
				t.Fatal(err)
			}
			sink, err := kafka.NewSink(ctx, c, name, kafka.SinkOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for i := range tc.messages {
				value := make([]byte, tc.size)
				_, _ = noise.Read(value)
				if err := sink.Publish(ctx, []byte("k"), strconv.Itoa(i), value); err != nil {
					break // Flush says so, too
				}
			}
			err = sink.Flush(ctx)
			switch {
			case tc.refused != "":
				if err == nil || !strings.Contains(err.Error(), tc.refused) || !kafka.Permanent(err) {
					t.Errorf("a message of %d bytes, where the topic takes %d: %v", tc.size, tc.max, err)
				}
			case err != nil || sink.Acked() != int64(tc.messages):
				t.Errorf("%d of %d messages of %d bytes, where the topic takes %d: %v", sink.Acked(), tc.messages, tc.size, tc.max, err)
			}
			_ = sink.Close() // the refusal again
		}
	})

	t.Run("replaced", func(t *testing.T) {
		name := topic(t, 1)
		publish(t, c, name, 0, 20)
		s := open(t, c, kafka.SourceOptions{Topic: name, PollEvery: 50 * time.Millisecond})
		if err := s.Seek(ctx, nil); err != nil {
			t.Fatal(err)
		}
		pos := positions(fetch(t, s, 20))
		wrong := map[int32]pipeline.Position{0: {Offset: 5, Time: pos[0].Time.Add(-time.Hour)}}
		gapOf(t, open(t, c, kafka.SourceOptions{Topic: name}).Seek(ctx, wrong))
		gapOf(t, open(t, c, kafka.SourceOptions{Topic: name}).Seek(ctx, map[int32]pipeline.Position{0: {Offset: 50}}))
		gapOf(t, open(t, c, kafka.SourceOptions{Topic: name}).Seek(ctx, map[int32]pipeline.Position{0: pos[0], 1: {Offset: 3}}))

		before, err := s.Incarnation(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.DeleteTopic(ctx, name); err != nil {
			t.Fatal(err)
		}
		for try := 0; ; try++ { // deletion is not at once
			if err = b.CreateTopic(ctx, name, 1, nil); err == nil || try > 100 {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		if err != nil {
			t.Fatal(err)
		}
		publish(t, c, name, 0, 30)
		deadline := time.Now().Add(20 * time.Second)
		for err == nil {
			if time.Now().After(deadline) {
				t.Fatal("reading goes on in a topic that was made anew")
			}
			_, err = s.Fetch(ctx, 100, 0, 100*time.Millisecond)
		}
		gapOf(t, err)
		after, err := s.Incarnation(ctx)
		if err != nil || after == before {
			t.Errorf("incarnation %s after %s (%v)", after, before, err)
		}
	})

	t.Run("partitions", func(t *testing.T) {
		name := topic(t, 1)
		s := open(t, c, kafka.SourceOptions{Topic: name, PollEvery: 50 * time.Millisecond, Start: kafka.Start{Latest: true}})
		if err := s.Seek(ctx, nil); err != nil {
			t.Fatal(err)
		}
		if err := b.AddPartitions(ctx, name, 4); err != nil {
			t.Fatal(err)
		}
		publish(t, c, name, 0, 500)
		if got := len(positions(fetch(t, s, 500))); got != 4 {
			t.Errorf("read from %d partitions, want 4", got)
		}
		one := open(t, c, kafka.SourceOptions{Topic: name, Partitions: []int32{2}})
		if err := one.Seek(ctx, nil); err != nil {
			t.Fatal(err)
		}
		if recs := fetch(t, one, 1); recs[0].Partition != 2 {
			t.Errorf("partition %d", recs[0].Partition)
		}
	})

	t.Run("roles", func(t *testing.T) {
		name := topic(t, 1)
		const group = "cauce-live"
		if err := errors.Join(b.AllowProduce(ctx, "producer", name), b.AllowConsume(ctx, "stream", name, group)); err != nil {
			t.Fatal(err)
		}
		as := func(user, password string) kafka.Config {
			return kafka.Config{Brokers: []string{b.Addr}, SASL: kafka.SASL{Mechanism: kafka.SASLSCRAMSHA512, User: user, Password: password}}
		}
		publish(t, as("producer", users["producer"]), name, 0, 50)
		s := open(t, as("stream", users["stream"]), kafka.SourceOptions{Topic: name, Group: group})
		if err := s.Seek(ctx, nil); err != nil {
			t.Fatal(err)
		}
		pos := positions(fetch(t, s, 50))
		if err := s.Committed(ctx, pos); err != nil {
			t.Error(err)
		}
		if _, err := kafka.OpenSource(ctx, as("stream", "wrong"), kafka.SourceOptions{Topic: name}); !errors.Is(err, kafka.ErrDenied) {
			t.Errorf("a wrong password gives %v", err)
		}
		other := topic(t, 1)
		if _, err := kafka.NewSink(ctx, as("producer", users["producer"]), other, kafka.SinkOptions{}); err == nil {
			t.Error("the producer reaches another topic")
		}
		sink, err := kafka.NewSink(ctx, as("stream", users["stream"]), name, kafka.SinkOptions{})
		if err == nil {
			err = sink.Publish(ctx, nil, "", []byte("{}"))
			err = errors.Join(err, sink.Flush(ctx))
			sink.Close()
		}
		if !errors.Is(err, kafka.ErrDenied) {
			t.Errorf("the streaming role may write: %v", err)
		}
		reader := open(t, as("producer", users["producer"]), kafka.SourceOptions{Topic: name})
		err = reader.Seek(ctx, nil)
		for i := 0; err == nil && i < 20; i++ {
			_, err = reader.Fetch(ctx, 1, 0, 200*time.Millisecond)
		}
		if !errors.Is(err, kafka.ErrDenied) {
			t.Errorf("the producing role may read: %v", err)
		}
	})

	t.Run("create and describe", func(t *testing.T) {
		name := "made" + strconv.FormatUint(rand.Uint64(), 36)
		made, err := kafka.CreateTopic(ctx, c, name, kafka.TopicOptions{Partitions: 5, Retention: 48 * time.Hour})
		if err != nil || !made {
			t.Fatal(made, err)
		}
		if made, err = kafka.CreateTopic(ctx, c, name, kafka.TopicOptions{Partitions: 9}); err != nil || made {
			t.Fatal(made, err)
		}
		d, err := kafka.Describe(ctx, c, name)
		if err != nil {
			t.Fatal(err)
		}
		if d.Partitions != 5 || d.Retention != 48*time.Hour || d.Compacted || len(d.Ends) != 5 {
			t.Errorf("%+v", d)
		}
		if _, err := kafka.Describe(ctx, c, "no-such-topic"); !errors.Is(err, kafka.ErrNoTopic) {
			t.Errorf("a missing topic gives %v", err)
		}
	})

	if testscale.Current() == testscale.Short {
		return
	}
	// The last, for it kills the broker.
	t.Run("killed broker", func(t *testing.T) {
		name := topic(t, 2)
		sink, err := kafka.NewSink(ctx, c, name, kafka.SinkOptions{})
		if err != nil {
			t.Fatal(err)
		}
		s := open(t, c, kafka.SourceOptions{Topic: name})
		if err := s.Seek(ctx, nil); err != nil {
			t.Fatal(err)
		}
		const n = 30_000
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := range n {
				if err := sink.Publish(ctx, fmt.Appendf(nil, "k%d", i%10), "", fmt.Appendf(nil, `{"n":%d}`, i)); err != nil {
					t.Error(err)
					return
				}
				if i%100 == 0 {
					time.Sleep(5 * time.Millisecond) // so that it lasts beyond the kills
				}
			}
			if err := sink.Flush(ctx); err != nil {
				t.Error(err)
			}
		})
		seen := map[string]int{}
		wg.Go(func() {
			deadline := time.Now().Add(90 * time.Second)
			for len(seen) < n && time.Now().Before(deadline) {
				recs, err := s.Fetch(ctx, 5000, 0, 200*time.Millisecond)
				if err != nil {
					t.Error(err)
					return
				}
				for _, r := range recs {
					seen[string(r.Value)]++
				}
			}
		})
		for range 2 {
			time.Sleep(300 * time.Millisecond)
			b.Kill()
			if err := b.Restart(ctx); err != nil {
				t.Fatal(err)
			}
		}
		wg.Wait()
		if err := sink.Close(); err != nil {
			t.Error(err)
		}
		doubled := 0
		for _, k := range seen {
			doubled += k - 1
		}
		if len(seen) != n || doubled > 0 {
			t.Errorf("%d of %d messages, %d doubled", len(seen), n, doubled)
		}
	})
}
