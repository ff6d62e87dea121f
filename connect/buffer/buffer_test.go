package buffer

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/cauce-data/cauce/pipeline"
)

// TestMain lets the test program play the processes that share a buffer: with CAUCE_BUFFER_ROLE set it is one of them.
func TestMain(m *testing.M) {
	if role := os.Getenv("CAUCE_BUFFER_ROLE"); role != "" {
		if err := play(role, os.Getenv("CAUCE_BUFFER_DIR"), os.Getenv("CAUCE_BUFFER_NAME")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// play is one process: it publishes numbered messages, or reads, and tells each acknowledged or read one on its
// standard output, until its standard input ends.
func play(role, dir, name string) error {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	b, err := Open(ctx, Options{Dir: dir, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(os.Stdout, 64)
	var mu sync.Mutex
	say := func(format string, v ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(out, format+"\n", v...)
		out.Flush() // what is said before a kill must be known
	}
	switch role {
	case "produce":
		s, err := b.Sink(ctx, "t", SinkOptions{InFlightMax: 64, OnAck: func(id string, offset int64) { say("%s %d", id, offset) }})
		if err != nil {
			return err
		}
		for i := 0; ctx.Err() == nil; i++ {
			id := name + "-" + strconv.Itoa(i)
			if err := s.Publish(ctx, []byte(name), id, []byte(`{"id":"`+id+`"}`)); err != nil && ctx.Err() == nil {
				return err
			}
			if i%16 == 0 {
				_ = pause(ctx, time.Millisecond)
			}
		}
		if err := s.Close(); err != nil {
			return err
		}
	case "read":
		s, err := b.Source(ctx, "t", SourceOptions{Name: name})
		if err == nil {
			err = s.Seek(ctx, nil)
		}
		if err != nil && ctx.Err() == nil { // else it was told to end before it began to read
			return err
		}
		for ctx.Err() == nil {
			recs, err := s.Fetch(ctx, 100, 1<<20, 100*time.Millisecond)
			if err != nil && ctx.Err() == nil {
				return err
			}
			for _, r := range recs {
				say("%d %s", r.Offset, r.Value)
			}
		}
	}
	return b.Close()
}

type process struct {
	cmd   *exec.Cmd
	stdin io.Closer
	said  []string
	done  chan struct{}
}

func start(t *testing.T, role, dir, name string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(os.Args[0]), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), "CAUCE_BUFFER_ROLE="+role, "CAUCE_BUFFER_DIR="+dir, "CAUCE_BUFFER_NAME="+name)
	p.cmd.Stderr = os.Stderr
	in, err := p.cmd.StdinPipe()
	must(t, err)
	p.stdin = in
	out, err := p.cmd.StdoutPipe()
	must(t, err)
	must(t, p.cmd.Start())
	go func() {
		defer close(p.done)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			p.said = append(p.said, lines.Text())
		}
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
		_ = p.cmd.Wait()
	})
	return p
}

// end lets the process finish and returns what it said.
func (p *process) end(t *testing.T) []string {
	t.Helper()
	p.stdin.Close()
	<-p.done
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("process ended with %v", err)
	}
	return p.said
}

// kill ends the process at once and returns what it had said.
func (p *process) kill() []string {
	_ = p.cmd.Process.Kill()
	<-p.done
	_ = p.cmd.Wait()
	return p.said
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func openBuffer(t *testing.T, dir string) *Buffer {
	t.Helper()
	b, err := Open(testContext(t), Options{Dir: dir})
	must(t, err)
	t.Cleanup(func() { must(t, b.Close()) })
	return b
}

func publish(t *testing.T, b *Buffer, topic string, from, n int) {
	t.Helper()
	ctx := testContext(t)
	s, err := b.Sink(ctx, topic, SinkOptions{})
	must(t, err)
	for i := from; i < from+n; i++ {
		must(t, s.Publish(ctx, []byte("K"+strconv.Itoa(i%3)), topic+"-"+strconv.Itoa(i), []byte(strconv.Itoa(i))))
	}
	must(t, s.Flush(ctx))
	must(t, s.Close())
}

// fetchAll reads until the end that exists now.
func fetchAll(t *testing.T, s *Source) []pipeline.Record {
	t.Helper()
	ctx := testContext(t)
	ends, err := s.Ends(ctx)
	must(t, err)
	var out []pipeline.Record
	for int64(s.next-1) < ends[0] || len(s.left) > 0 {
		recs, err := s.Fetch(ctx, 1000, 1<<20, 100*time.Millisecond)
		must(t, err)
		out = append(out, recs...)
	}
	return out
}

func source(t *testing.T, b *Buffer, topic string, o SourceOptions) *Source {
	t.Helper()
	s, err := b.Source(testContext(t), topic, o)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

func TestRecordsComeBackInOrder(t *testing.T) {
	ctx := testContext(t)
	dir := t.TempDir()
	b := openBuffer(t, dir)
	if !b.Hosting() {
		t.Error("the only process does not host")
	}
	other := openBuffer(t, dir)
	if other.Hosting() {
		t.Error("two host")
	}
	s := source(t, other, "crypto_trades", SourceOptions{Name: "live"})
	must(t, s.Seek(ctx, nil))
	if recs, err := s.Fetch(ctx, 10, 1000, 50*time.Millisecond); err != nil || len(recs) != 0 {
		t.Errorf("empty topic: %v, %v", recs, err)
	}
	ends, err := s.Ends(ctx)
	must(t, err)
	if ends[0] != -1 {
		t.Errorf("empty topic ends at %d", ends[0])
	}
	publish(t, b, "crypto_trades", 0, 1000)
	publish(t, b, "crypto_trades", 0, 10) // repeated ids are dropped
	publish(t, b, "other topic/ü", 0, 7)
	recs := fetchAll(t, s)
	inc, err := s.Incarnation(ctx)
	must(t, err)
	if len(recs) != 1000 {
		t.Fatalf("got %d records", len(recs))
	}
	for i, r := range recs {
		if string(r.Value) != strconv.Itoa(i) || r.Offset != int64(i+1) || string(r.Key) != "K"+strconv.Itoa(i%3) ||
			r.Origin != "embedded:"+inc+":crypto_trades/0" || r.Topic != "crypto_trades" || time.Since(r.Time) > time.Minute {
			t.Fatalf("record %d: %+v", i, r)
		}
	}
	must(t, s.Seek(ctx, map[int32]pipeline.Position{0: {Offset: 990, Time: recs[989].Time.Truncate(time.Microsecond)}}))
	if recs := fetchAll(t, s); len(recs) != 10 || recs[0].Offset != 991 {
		t.Errorf("after a seek: %d records", len(recs))
	}
	topics, err := other.Topics(ctx)
	must(t, err)
	if len(topics) != 2 || topics[0].Name != "crypto_trades" || topics[0].Last != 1000 || topics[1].Name != "other topic/ü" {
		t.Errorf("topics: %+v", topics)
	}
}

// Keys are bytes, whatever a header line makes of them.
func TestKeysComeBackAsTheyWere(t *testing.T) {
	ctx := testContext(t)
	b := openBuffer(t, t.TempDir())
	keys := []string{
		"plain", "", " ", "\t", "\n", "a\r\nNats-Msg-Id: b", " outer blanks ", `"quoted"`, `"\n"`, "\"\\n\"\n", "\xff\xfe", "\x00", "\u00a0ü\u2028", "a:b", strings.Repeat("k\n", 20_000),
	}
	p, err := b.Sink(ctx, "keys", SinkOptions{})
	must(t, err)
	for i, k := range keys {
		must(t, p.Publish(ctx, []byte(k), k[:min(len(k), 10)]+strconv.Itoa(i), []byte("v")))
	}
	must(t, p.Close())
	s := source(t, b, "keys", SourceOptions{})
	must(t, s.Seek(ctx, nil))
	recs := fetchAll(t, s)
	if len(recs) != len(keys) {
		t.Fatalf("%d records", len(recs))
	}
	for i, r := range recs {
		if string(r.Key) != keys[i] {
			t.Errorf("%.40q came back as %.40q", keys[i], r.Key)
		}
	}
}

func TestFetchKeepsItsBounds(t *testing.T) {
	ctx := testContext(t)
	b := openBuffer(t, t.TempDir())
	publish(t, b, "t", 0, 100)
	s := source(t, b, "t", SourceOptions{})
	if _, err := s.Fetch(ctx, 1, 1, 0); err == nil {
		t.Error("Fetch before Seek gave no error")
	}
	must(t, s.Seek(ctx, nil))
	recs, err := s.Fetch(ctx, 7, 0, time.Minute)
	must(t, err)
	if len(recs) != 7 {
		t.Errorf("by rows: %d", len(recs))
	}
	recs, err = s.Fetch(ctx, 0, 20, time.Minute)
	must(t, err)
	if n := len(recs); n < 4 || n > 7 { // keys and values have 3 to 4 bytes
		t.Errorf("by bytes: %d", n)
	}
	recs, err = s.Fetch(ctx, 3, 0, 0)
	must(t, err)
	if len(recs) != 3 {
		t.Errorf("without waiting: %d", len(recs))
	}
	begin := time.Now()
	rest, err := s.Fetch(ctx, 0, 0, 300*time.Millisecond)
	must(t, err)
	if took := time.Since(begin); took < 250*time.Millisecond || took > 5*time.Second {
		t.Errorf("waited %s", took)
	}
	if last := rest[len(rest)-1]; last.Offset != 100 {
		t.Errorf("the last offset is %d", last.Offset)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.Fetch(cancelled, 1, 1, time.Minute); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestGaps(t *testing.T) {
	ctx := testContext(t)
	b := openBuffer(t, t.TempDir())
	publish(t, b, "t", 0, 20)
	s := source(t, b, "t", SourceOptions{Name: "live"})
	must(t, s.Seek(ctx, nil))
	recs := fetchAll(t, s)
	at := func(offset int64, when time.Time) map[int32]pipeline.Position {
		return map[int32]pipeline.Position{0: {Offset: offset, Time: when}}
	}
	wantGap := func(what string, err error, from, to, after int64, renewals int) {
		t.Helper()
		var gap *pipeline.GapError
		if !errors.As(err, &gap) || gap.From != from || gap.To != to || gap.Source != "live" || gap.Topic != "t" ||
			gap.After == nil || *gap.After != (pipeline.Position{Offset: after, Renewals: renewals}) {
			t.Fatalf("%s: got %v, %+v", what, err, gap)
		}
	}
	older := recs[4].Time.Add(-time.Millisecond)
	read := slices.IndexFunc(recs, func(r pipeline.Record) bool { return r.Time.UnixMicro() > older.UnixMicro() })
	wantGap("another time", s.Seek(ctx, at(5, older)), 6, -1, int64(read), 1)
	wantGap("beyond the end", s.Seek(ctx, at(30, recs[19].Time)), 31, -1, 20, 1)
	wantGap("beyond the end, at a time that is not known", s.Seek(ctx, at(30, time.Time{})), 31, -1, 0, 1)

	st, err := b.stream(ctx, "t")
	must(t, err)
	must(t, s.Seek(ctx, at(3, recs[2].Time)))
	must(t, st.Purge(ctx, jetstream.WithPurgeSequence(10)))
	_, err = s.Fetch(ctx, 100, 0, 100*time.Millisecond)
	wantGap("purged ahead of the reader", err, 4, 9, 9, 0)
	wantGap("purged before the seek", s.Seek(ctx, at(5, recs[4].Time)), 6, 9, 9, 0)
	must(t, s.Seek(ctx, at(9, time.Time{})))
	must(t, s.Seek(ctx, at(9, recs[8].Time))) // behind it nothing is missing
	must(t, s.Seek(ctx, at(10, recs[9].Time)))
	must(t, st.DeleteMsg(ctx, 13))
	must(t, st.DeleteMsg(ctx, 14))
	got, err := s.Fetch(ctx, 100, 0, 100*time.Millisecond)
	if wantGap("a hole", err, 13, 14, 14, 0); len(got) != 2 {
		t.Errorf("%d messages before the hole, want 2", len(got))
	}
	wantGap("the proof is gone", s.Seek(ctx, at(13, recs[12].Time)), 14, -1, 13, 0)
	must(t, s.Seek(ctx, at(14, time.Time{})))
	if got, err = s.Fetch(ctx, 1, 0, time.Second); err != nil || len(got) != 1 || got[0].Offset != 15 || got[0].Origin != recs[0].Origin {
		t.Errorf("after the gap was allowed: %+v, %v", got, err)
	}
	must(t, st.DeleteMsg(ctx, 20))
	must(t, s.Seek(ctx, at(19, recs[18].Time)))
	_, err = s.Drained(ctx, map[int32]int64{0: 20})
	wantGap("the last one is gone", err, 20, 20, 20, 0)
}

// A power cut may cost the buffer its end. Of several readers each finds that by itself, reads only what has come since, and
// takes none of it for what had those offsets before.
func TestLostEnd(t *testing.T) {
	ctx := testContext(t)
	b := openBuffer(t, t.TempDir())
	publish(t, b, "t", 0, 5)
	readers := []*Source{source(t, b, "t", SourceOptions{Name: "a"}), source(t, b, "t", SourceOptions{Name: "b"})}
	must(t, readers[0].Seek(ctx, nil))
	recs := fetchAll(t, readers[0])
	at := map[int32]pipeline.Position{0: {Offset: 5, Time: recs[4].Time}}

	// Removing messages 4 and 5 and what the server remembers of them leaves what its recovery leaves.
	st, err := b.stream(ctx, "t")
	must(t, err)
	cfg := st.CachedInfo().Config
	must(t, b.js.DeleteStream(ctx, streamName("t")))
	_, err = b.js.CreateStream(ctx, cfg)
	must(t, err)
	publish(t, b, "t", 0, 3)
	st, err = b.stream(ctx, "t")
	must(t, err)
	third, err := st.GetMsg(ctx, 3)
	must(t, err)
	at[0] = pipeline.Position{Offset: 5, Time: third.Time.Add(time.Millisecond)}
	time.Sleep(5 * time.Millisecond)

	for _, more := range []int{0, 1, 3} { // with three more, the position is no longer beyond the end
		publish(t, b, "t", 100+more, more)
		for _, s := range readers {
			err := s.Seek(ctx, at)
			var gap *pipeline.GapError
			if !errors.As(err, &gap) || gap.From != 6 || gap.To != -1 {
				t.Fatalf("%v", err)
			}
			must(t, s.Seek(ctx, map[int32]pipeline.Position{0: *gap.After}))
			info, err := st.Info(ctx)
			must(t, err)
			got := fetchAll(t, s)
			if len(got) != int(info.State.LastSeq)-3 || len(got) > 0 && (got[0].Offset != 4 || got[0].Origin == recs[0].Origin) {
				t.Errorf("%s reads %d messages of %d, %+v", s.o.Name, len(got), info.State.LastSeq-3, got)
			}
		}
	}
}

func TestTopicMadeAnewWhileItIsRead(t *testing.T) {
	ctx := testContext(t)
	b := openBuffer(t, t.TempDir())
	publish(t, b, "t", 0, 5)
	s := source(t, b, "t", SourceOptions{Name: "live"})
	must(t, s.Seek(ctx, nil))
	if n := len(fetchAll(t, s)); n != 5 {
		t.Fatalf("got %d records", n)
	}
	sink, err := b.Sink(ctx, "t", SinkOptions{})
	must(t, err)
	must(t, b.js.DeleteStream(ctx, streamName("t")))
	must(t, sink.Publish(ctx, nil, "", []byte("x")))
	must(t, sink.Flush(ctx)) // the sink makes the topic again
	for limit := time.Now().Add(20 * time.Second); ; {
		_, err = s.Fetch(ctx, 10, 0, 50*time.Millisecond)
		if err != nil || time.Now().After(limit) {
			break
		}
	}
	if !errors.Is(err, ErrReplaced) {
		t.Errorf("got %v", err)
	}
}

func TestCommittedKeepsWhatIsNeeded(t *testing.T) {
	ctx := testContext(t)
	b := openBuffer(t, t.TempDir())
	publish(t, b, "t", 0, 50)
	first := func() int64 {
		topics, err := b.Topics(ctx)
		must(t, err)
		for _, i := range topics {
			if i.Name == "t" {
				return i.First
			}
		}
		return -1
	}
	s := source(t, b, "t", SourceOptions{Name: "live"})
	must(t, s.Seek(ctx, nil))
	recs := fetchAll(t, s)
	old := time.Now().Add(-2 * DuplicatesWindow)
	commit := func(s *Source, offset int64, when time.Time) {
		t.Helper()
		must(t, s.Committed(ctx, map[int32]pipeline.Position{0: {Offset: offset, Time: when}}))
	}
	commit(s, 10, recs[9].Time)
	if first() != 1 {
		t.Errorf("young messages were purged: the first is %d", first())
	}
	commit(s, 20, old)
	if first() != 1 {
		t.Errorf("the order of commits was not kept: the first is %d", first())
	}
	must(t, s.Seek(ctx, nil))
	commit(s, 20, old)
	if first() != 20 {
		t.Errorf("the first is %d, want the one at the position", first())
	}
	must(t, s.Seek(ctx, map[int32]pipeline.Position{0: {Offset: 20, Time: recs[19].Time}}))

	both := []string{"a", "b"}
	a, c := source(t, b, "t", SourceOptions{Name: "a", Readers: both}), source(t, b, "t", SourceOptions{Name: "b", Readers: both})
	must(t, a.Seek(ctx, nil))
	must(t, c.Seek(ctx, nil))
	commit(a, 40, old)
	if first() != 20 {
		t.Errorf("a reader that never committed lost messages: the first is %d", first())
	}
	commit(c, 30, old)
	if first() != 30 {
		t.Errorf("the slower of two readers stands at 30, the first is %d", first())
	}
}

func TestFullBufferRefuses(t *testing.T) {
	ctx := testContext(t)
	b, err := Open(ctx, Options{Dir: t.TempDir(), BytesMax: 64 << 10})
	must(t, err)
	defer b.Close()
	s, err := b.Sink(ctx, "t", SinkOptions{InFlightMax: 4})
	must(t, err)
	short, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for i := 0; err == nil && i < 1000; i++ {
		err = s.Publish(short, nil, "", make([]byte, 4<<10))
	}
	if err == nil {
		t.Fatal("a bounded buffer took everything")
	}
	s.mu.Lock()
	refused := s.refused
	s.mu.Unlock()
	if !errors.Is(refused, ErrFull) {
		t.Errorf("the sink holds %v", refused)
	}
	st, err := b.stream(ctx, "t")
	must(t, err)
	must(t, st.Purge(ctx)) // space again: the sink goes on by itself
	must(t, s.Flush(ctx))
	if err := s.Publish(ctx, make([]byte, 64<<10), "", nil); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a key of 64 KiB: %v", err)
	}
	if err := s.Publish(ctx, nil, "", make([]byte, MessageBytesMax)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
	must(t, s.Publish(ctx, []byte("a\r\nb"), "line\nbreak", []byte("x")))
	must(t, s.Flush(ctx))
}

func TestServerFileIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "buffer")
	b := openBuffer(t, dir)
	st, err := os.Stat(filepath.Join(dir, "server.json"))
	must(t, err)
	if st.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v", st.Mode())
	}
	must(t, b.Close())
	if _, err := os.Stat(filepath.Join(dir, "server.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("server.json is left behind: %v", err)
	}
	if _, err := b.Sink(testContext(t), "t", SinkOptions{}); err == nil {
		t.Error("a closed buffer opened a sink")
	}
	if _, err := Open(testContext(t), Options{Dir: dir, Sync: "sometimes"}); err == nil {
		t.Error("an unknown sync was taken")
	}
}

// The host leaves in an orderly way while another process of the folder publishes and reads.
func TestTakeOverAfterClose(t *testing.T) {
	ctx := testContext(t)
	dir := t.TempDir()
	host, err := Open(ctx, Options{Dir: dir, Sync: "always"})
	must(t, err)
	b := openBuffer(t, dir)
	sink, err := b.Sink(ctx, "t", SinkOptions{})
	must(t, err)
	s := source(t, b, "t", SourceOptions{})
	must(t, s.Seek(ctx, nil))
	for i := range 100 {
		must(t, sink.Publish(ctx, nil, strconv.Itoa(i), []byte(strconv.Itoa(i))))
		if i == 50 {
			must(t, host.Close())
		}
	}
	must(t, sink.Flush(ctx))
	if !b.Hosting() {
		t.Error("nobody took over")
	}
	recs := fetchAll(t, s)
	if len(recs) != 100 {
		t.Fatalf("got %d records", len(recs))
	}
	for i, r := range recs {
		if string(r.Value) != strconv.Itoa(i) {
			t.Fatalf("record %d is %s", i, r.Value)
		}
	}
}

// The process that hosts is killed again and again while producers and a reader run in other processes. Whatever a
// producer was told to be acknowledged must be there, once; and the reader must have seen each offset once, in order.
func TestKilledHostLosesNothing(t *testing.T) {
	kills := 12
	if testing.Short() {
		kills = 4
	}
	if n, err := strconv.Atoi(os.Getenv("CAUCE_TEST_KILLS")); err == nil {
		kills = n
	}
	dir := t.TempDir()
	running := map[int]*process{}
	launch := func(name string) {
		p := start(t, "produce", dir, name)
		running[p.cmd.Process.Pid] = p
	}
	for i := range 3 {
		launch(fmt.Sprintf("p%d", i))
	}
	hostPID := func(not int) int {
		for begin := time.Now(); ; {
			text, err := os.ReadFile(filepath.Join(dir, "server.json"))
			var e endpoint
			if err == nil && json.Unmarshal(text, &e) == nil && e.PID != not {
				return e.PID
			}
			if time.Since(begin) > 20*time.Second {
				t.Fatalf("nobody hosts 20 s after process %d was killed", not)
			}
			time.Sleep(2 * time.Millisecond)
		}
	}
	pid := hostPID(0)
	reader := start(t, "read", dir, "reader") // joins after a producer hosts; may host itself later
	running[reader.cmd.Process.Pid] = reader
	var acked []string
	var longest time.Duration
	killed := 0
	for killed < kills {
		time.Sleep(time.Duration(100+killed*37%200) * time.Millisecond) // let it work: the kill shall hit it busy
		p := running[pid]
		if p == nil {
			t.Fatalf("process %d hosts and is not ours", pid)
		}
		if p == reader { // the reader's whole output is wanted: end it in order, and read anew
			delete(running, pid)
			checkReader(t, p.end(t))
			reader = start(t, "read", dir, "reader")
			running[reader.cmd.Process.Pid] = reader
		} else {
			delete(running, pid)
			acked = append(acked, p.kill()...)
			killed++
			launch(fmt.Sprintf("k%d", killed))
		}
		begin := time.Now()
		pid = hostPID(pid)
		longest = max(longest, time.Since(begin))
	}
	time.Sleep(200 * time.Millisecond)
	for _, p := range running {
		if p != reader {
			acked = append(acked, p.end(t)...)
		}
	}
	checkReader(t, reader.end(t))
	if longest > 5*time.Second {
		t.Errorf("a take-over took %s", longest)
	}

	b := openBuffer(t, dir)
	s := source(t, b, "t", SourceOptions{})
	must(t, s.Seek(testContext(t), nil))
	at := map[string]int64{}
	for _, r := range fetchAll(t, s) {
		var v struct{ ID string }
		must(t, json.Unmarshal(r.Value, &v))
		if other, twice := at[v.ID]; twice {
			t.Errorf("%s stands at %d and %d", v.ID, other, r.Offset)
		}
		at[v.ID] = r.Offset
	}
	for _, line := range acked {
		id, offset, _ := strings.Cut(line, " ")
		if n, err := strconv.ParseInt(offset, 10, 64); err != nil || at[id] != n {
			t.Errorf("%s was acknowledged at %s and stands at %d", id, offset, at[id])
		}
	}
	if len(acked) < 100*kills {
		t.Errorf("only %d messages were acknowledged", len(acked))
	}
	t.Logf("%d kills, %d acknowledged, %d stored, longest take-over %s", kills, len(acked), len(at), longest.Round(time.Millisecond))
}

func checkReader(t *testing.T, lines []string) {
	t.Helper()
	for i, l := range lines {
		offset, _, _ := strings.Cut(l, " ")
		if offset != strconv.Itoa(i+1) {
			t.Fatalf("the reader's record %d has offset %s", i+1, offset)
		}
	}
	if len(lines) == 0 {
		t.Log("the reader saw nothing")
	}
}

func BenchmarkPublish(b *testing.B) {
	ctx := context.Background()
	buf, err := Open(ctx, Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer buf.Close()
	s, err := buf.Sink(ctx, "t", SinkOptions{})
	if err != nil {
		b.Fatal(err)
	}
	value := []byte(`{"e":"trade","E":1724112000123,"s":"BTCUSDT","t":123456789,"p":"63012.34000000","q":"0.01230000","T":1724112000122,"m":true,"M":true}`)
	b.ResetTimer()
	for i := range b.N {
		if err := s.Publish(ctx, []byte("BTCUSDT"), "BTCUSDT-"+strconv.Itoa(i), value); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Flush(ctx); err != nil {
		b.Fatal(err)
	}
}
