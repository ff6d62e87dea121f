package flow

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cauce-data/cauce/connect/kafka"
	"github.com/cauce-data/cauce/connect/simulate"
	"github.com/cauce-data/cauce/internal/kafkatest"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/test/lab"
)

// message is what stands in a topic under one message id.
type message struct {
	Key, Value string
	Partition  int32
}

// readTopic reads a topic up to where it ends now, without the frames that were no events, whose number it tells. It fails
// where one id has two different messages.
func readTopic(t *testing.T, adm *kadm.Client, broker, topic string) (got map[string]message, malformed int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ends, err := adm.ListEndOffsets(ctx, topic)
	if err != nil {
		t.Fatal(err)
	}
	left := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	cl, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.ConsumeTopics(topic))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	got = map[string]message{}
	bad := map[string]bool{}
	for len(left) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("topic %s: %v", topic, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
			if len(r.Headers) != 1 || r.Headers[0].Key != kafka.IDHeader {
				t.Fatalf("topic %s: headers %v", topic, r.Headers)
			}
			id, m := string(r.Headers[0].Value), message{string(r.Key), string(r.Value), r.Partition}
			if strings.HasPrefix(id, "malformed-") {
				bad[id] = true
				return
			}
			if old, ok := got[id]; ok && old != m {
				t.Errorf("topic %s: %s is %v, and %v", topic, id, old, m)
			}
			got[id] = m
		})
	}
	return got, len(bad)
}

// script is a Python program that runs beside a test.
type script struct {
	cmd          *exec.Cmd
	stdout, said bytes.Buffer
}

func startScript(t *testing.T, python, path string, args ...string) *script {
	t.Helper()
	s := &script{cmd: exec.Command(python, append([]string{filepath.Join(prereq.Root(), path)}, args...)...)}
	s.cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	s.cmd.Stdout, s.cmd.Stderr = &s.stdout, &s.said
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.cmd.Process.Kill(); _ = s.cmd.Wait() })
	return s
}

// stop asks the program to end, which it must do well.
func (s *script) stop(t *testing.T) {
	t.Helper()
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	late := time.AfterFunc(time.Minute, func() { _ = s.cmd.Process.Kill() })
	defer late.Stop()
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("%s: %v: %s", s.cmd.Args[1], err, s.said.String())
	}
}

// TestTopicIsAnOpenContract: trades and aggregate trades of one simulated exchange go to one topic by `cauce produce
// binance`, and to another by examples/producers/binance.py. Both topics hold the same messages in the same partitions,
// and the tables that are made of them the same rows. A consumer group in Python reads the whole topic while the stream
// does, and neither disturbs the other.
func TestTopicIsAnOpenContract(t *testing.T) {
	python := prereq.Need(t, "venv")
	b := kafkatest.New(t, nil)
	const ours, theirs, group = "crypto_trades", "crypto_trades_python", "analysts"
	for _, topic := range []string{ours, theirs} {
		if err := b.CreateTopic(t.Context(), topic, 3, nil); err != nil {
			t.Fatal(err)
		}
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.Addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	adm := kadm.NewClient(cl)

	symbols := []string{"BTCUSDT", "ETHUSDT", "SOLUSDT", "BNBUSDT"}
	x, err := simulate.New(simulate.Options{Seed: testscale.Seed(t), Symbols: symbols, Faults: simulate.Faults{
		DuplicateEvery: 53, SwapEvery: 71, OldEvery: 37, UnknownEvery: 97, MalformedEvery: 211,
	}})
	if err != nil {
		t.Fatal(err)
	}
	var connected atomic.Int64
	srv := httptest.NewUnstartedServer(x.Handler())
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateHijacked { // from here on the connection gets every event
			connected.Add(1)
		}
	}
	srv.Start()
	t.Cleanup(func() { x.Close(); srv.Close() })
	url := "ws" + strings.TrimPrefix(srv.URL, "http")
	var streams []string
	for _, s := range symbols {
		streams = append(streams, strings.ToLower(s)+"@trade", strings.ToLower(s)+"@aggTrade")
	}
	step := func(n int) {
		t.Helper()
		if err := x.Step(n); err != nil {
			t.Fatal(err)
		}
	}

	lake := func(topic string) *lab.Lake {
		return lab.NewLakeOf(t, []byte(strings.Replace(sequencesLake, "    kind: embedded\n    topic: crypto_trades\n",
			fmt.Sprintf("    kind: kafka\n    topic: %s\n    kafka: {brokers: [%q]}\n", topic, b.Addr), 1)))
	}
	rows := func(l *lab.Lake) []string {
		t.Helper()
		return lab.Lines(t, []byte(l.Run("query", "SELECT "+strings.Join(frameColumns, ", ")+" FROM unified_events", "--format", "csv")), frameColumns)
	}
	one, two := lake(ours), lake(theirs)
	stream := one.Start(nil, "run", "stream", "--trigger", "100ms")
	producer := one.Start(nil, "produce", "binance", "--to", "kafka", "--url", url+"/stream?streams="+strings.Join(streams, "/"))
	example := startScript(t, python, "examples/producers/binance.py", "--url", url, "--streams", strings.Join(streams, ","), "--brokers", b.Addr, "--topic", theirs)
	for deadline := time.Now().Add(time.Minute); connected.Load() < 2; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) || !producer.Running() {
			t.Fatalf("%d connections to the exchange: %s", connected.Load(), producer.Stderr.String())
		}
	}

	// The foreign group begins in the middle: it has a backlog to read, and what comes.
	const trades = 4000
	step(trades / 2)
	foreign := startScript(t, python, "test/flow/consume.py", b.Addr, ours, group)
	for range 10 {
		time.Sleep(100 * time.Millisecond)
		step(trades / 20)
	}
	// Of the last trade the exchange may still hold back the frame, to swap it with one that never comes.
	var mine, other map[string]message
	var malformed int
	for deadline, same := time.Now().Add(time.Minute), 0; same < 2; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after a minute the topics hold %d and %d messages", len(mine), len(other))
		}
		mine, malformed = readTopic(t, adm, b.Addr, ours)
		other, _ = readTopic(t, adm, b.Addr, theirs)
		n := 0
		for id := range mine {
			if strings.HasPrefix(id, "trade-") {
				n++
			}
		}
		if same++; n < trades-1 || len(mine) != len(other) {
			same = 0
		}
	}
	producer.Signal(syscall.SIGTERM)
	if code := producer.Wait(time.Minute); code != 0 {
		t.Errorf("cauce produce ended with %d: %s", code, producer.Stderr.String())
	}
	example.stop(t)
	foreign.stop(t)
	if !stream.Running() {
		t.Errorf("the stream ended beside the foreign group: %s", stream.Stderr.String())
	}
	stream.Signal(syscall.SIGTERM)
	if code := stream.Wait(time.Minute); code != 0 {
		t.Errorf("the stream ended with %d: %s", code, stream.Stderr.String())
	}

	if !maps.Equal(mine, other) {
		for id, m := range mine {
			if o := other[id]; o != m {
				t.Fatalf("%s: cauce publishes %v, the example %v", id, m, o)
			}
		}
		t.Fatal("the example publishes what cauce does not")
	}
	read := map[string]message{}
	for line := range strings.Lines(foreign.stdout.String()) {
		var m struct {
			ID string
			message
		}
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		read[m.ID] = m.message
	}
	if !maps.Equal(mine, read) {
		t.Errorf("the foreign group read %d messages of %d, or others", len(read), len(mine))
	}
	lags, err := adm.Lag(t.Context(), group)
	if err != nil {
		t.Fatal(err)
	}
	if lag := lags[group]; lag.Error() != nil || len(lag.Lag[ours]) != 3 || lag.Lag.Total() != 0 {
		t.Errorf("the foreign group lags %d behind on %d partitions: %v", lag.Lag.Total(), len(lag.Lag[ours]), lag.Error())
	}

	one.Run("run", "stream", "--available-now")
	two.Run("run", "stream", "--available-now")
	got := rows(one)
	if d := lab.Diff(got, rows(two)); d != "" {
		t.Errorf("the rows of the example's messages: %s", d)
	}
	if len(got) != len(mine) {
		t.Errorf("%d rows of %d messages", len(got), len(mine))
	}
	missing := 0
	for _, s := range symbols {
		for _, tr := range x.Trades(s) {
			if row := wantFrame(t, fmt.Sprintf("%s-%d", s, tr.ID), units(tr.Price), units(tr.Quantity), tr.Time.UnixMilli(), tr.BuyerMaker); !slices.Contains(got, row) {
				missing++
			}
		}
	}
	if missing > 1 {
		t.Errorf("%d of %d trades are not in the table as they were made", missing, trades)
	}

	// A message without value is no event: it deletes nothing, and is kept in quarantine.
	quarantined := func() (n int) {
		t.Helper()
		for range strings.Lines(one.Run("query", "SELECT reason FROM quarantine", "--format", "csv")) {
			n++
		}
		return n - 1
	}
	if n := quarantined(); n != malformed || n == 0 {
		t.Errorf("%d messages are in quarantine, %d frames were no events", n, malformed)
	}
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: ours, Key: []byte("BTCUSDT")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	one.Run("run", "stream", "--available-now")
	if n := quarantined(); n != malformed+1 {
		t.Errorf("%d messages are in quarantine after one without value, %d before", n, malformed)
	}
	if d := lab.Diff(got, rows(one)); d != "" {
		t.Errorf("after a message without value: %s", d)
	}
	t.Logf("REPORT: %d messages of %d trades are the same from Go and Python, and so are their %d rows; a consumer group in Python read them beside the stream", len(mine), trades, len(got))
}

// units spells a number of units of 1e-8.
func units(v int64) string { return fmt.Sprintf("%d.%08d", v/1e8, v%1e8) }
