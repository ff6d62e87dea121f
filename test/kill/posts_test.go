package kill

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cauce-data/cauce/connect/kafka"
	"github.com/cauce-data/cauce/connect/simulate"
	"github.com/cauce-data/cauce/internal/kafkatest"
	"github.com/cauce-data/cauce/internal/lockbuf"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/test/lab"
)

// TestPostsAndTradesUnderFire sends posts of a simulated Bluesky and a simulated X, and trades of a simulated exchange, all
// of them with faults, through three producers, Kafka and three streams into one table, while producers, broker and
// streams are killed at random and the broker is away for seconds. Then the table has of each post its last state, with
// deletions as tombstones, and every trade; and what stands in Kafka twice has one message id.
func TestPostsAndTradesUnderFire(t *testing.T) {
	b := kafkatest.New(t, nil)
	ctx, rnd := t.Context(), testscale.Rand(t)
	topics := []string{"crypto_trades", "bluesky_posts", "x_posts"}
	for _, topic := range topics {
		if err := b.CreateTopic(ctx, topic, 2, nil); err != nil {
			t.Fatal(err)
		}
	}
	var blueskyJournal, xJournal lockbuf.Buffer
	exchange, err := simulate.New(simulate.Options{Seed: rnd.Uint64(), Rate: 100, Symbols: []string{"BTCUSDT"}, Faults: simulate.Faults{DropEvery: 601, DuplicateEvery: 31, LoseEvery: 97}})
	if err != nil {
		t.Fatal(err)
	}
	jetstream, err := simulate.NewBluesky(simulate.BlueskyOptions{Seed: rnd.Uint64(), Rate: 150, Journal: &blueskyJournal, Faults: simulate.BlueskyFaults{
		DropEvery: 1501, ReplayEvery: 61, SwapEvery: 37, MalformedEvery: 211, UnknownEvery: 83, Refuse: simulate.Refusals{503},
	}})
	if err != nil {
		t.Fatal(err)
	}
	xs, err := simulate.NewX(simulate.XOptions{Seed: rnd.Uint64(), Rate: 40, Token: "s3cret-bearer", Rules: []string{"*"}, Journal: &xJournal, Faults: simulate.XFaults{ReplayEvery: 41, MalformedEvery: 101, UnknownEvery: 67}})
	if err != nil {
		t.Fatal(err)
	}
	var names = []string{"trades", "bluesky", "x"}
	commands := map[string][]string{"trades": {"produce", "binance", "--symbols", "BTCUSDT"}, "bluesky": {"produce", "bluesky"}, "x": {"produce", "x"}}
	systems := map[string]simulate.System{"trades": exchange, "bluesky": jetstream, "x": xs}
	sockets := map[string]*atomic.Int64{}
	urls := map[string]string{}
	for _, name := range names {
		n, handler := &atomic.Int64{}, systems[name].Handler()
		sockets[name] = n
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/stream") || r.URL.Path == "/subscribe" {
				n.Add(1)
			}
			handler.ServeHTTP(w, r)
		}))
		t.Cleanup(func() { systems[name].Close(); srv.Close() })
		urls[name] = srv.URL
	}

	l := lab.NewExample(t, "social")
	text, err := os.ReadFile(l.Path("lake.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	lake := strings.ReplaceAll(string(text), "    kind: embedded\n", fmt.Sprintf("    kind: kafka\n    kafka: {brokers: [%q]}\n", b.Addr))
	if err := os.WriteFile(l.Path("lake.yaml"), []byte(lake), 0o600); err != nil {
		t.Fatal(err)
	}
	l.Env = append(l.Env, "X_BEARER_TOKEN=s3cret-bearer")

	processes := map[string]*lab.Process{}
	begin := func(name string) {
		args := []string{"up", "--no-produce", "--no-repair", "--trigger", "200ms"}
		if name != "streams" {
			url := urls[name]
			if name != "x" {
				url = "ws" + strings.TrimPrefix(url, "http")
			}
			args = append(slices.Clone(commands[name]), "--json", "--url", url)
		}
		processes[name] = l.Start(nil, args...)
	}
	all := append(slices.Clone(names), "streams")
	alive := func() {
		t.Helper()
		for name, p := range processes {
			if !p.Running() {
				t.Fatalf("%s ended by itself: %s", name, p.Stderr.String())
			}
		}
	}
	for _, name := range all {
		begin(name)
	}
	// What is made before a producer listens is nobody's loss.
	for deadline := time.Now().Add(time.Minute); sockets["trades"].Load() == 0 || sockets["bluesky"].Load() < 2 || sockets["x"].Load() == 0; time.Sleep(20 * time.Millisecond) {
		alive()
		if time.Now().After(deadline) {
			t.Fatal("no connections within a minute")
		}
	}
	time.Sleep(300 * time.Millisecond) // the answers to the connections are on their way
	making, stop := context.WithCancel(ctx)
	var made sync.WaitGroup
	for _, s := range systems {
		made.Go(func() {
			if err := s.Run(making); err != nil {
				t.Error(err)
			}
		})
	}
	kills := map[string]int{}
	total := 0
	began := time.Now()
	for range testscale.Turns(t, "stream-kills") {
		total++
		pause := time.Duration(500+rnd.IntN(1500)) * time.Millisecond
		if total == 1 {
			pause = 500 * time.Millisecond
		}
		time.Sleep(pause)
		alive()
		if total == 2 || total > 1 && rnd.IntN(4) == 0 {
			kills["broker"]++
			b.Kill()
			// The producers go on, and one of them begins anew, while the broker is away.
			time.Sleep(time.Duration(500+rnd.IntN(3000)) * time.Millisecond)
			name := names[rnd.IntN(len(names))]
			kills[name+" (no broker)"]++
			processes[name].Kill()
			processes[name].Wait(time.Minute)
			begin(name)
			if err := b.Restart(ctx); err != nil {
				t.Fatal(err)
			}
			continue
		}
		name := all[rnd.IntN(len(all))]
		if total == 1 {
			name = "bluesky" // which has listened for a second or less
		}
		kills[name]++
		processes[name].Kill()
		processes[name].Wait(time.Minute)
		begin(name)
	}
	time.Sleep(2 * time.Second)
	stop()
	made.Wait()

	// Of each post the last state counts.
	type post struct{ text, lang string }
	posts, deleted := map[string]post{}, map[string]bool{}
	for line := range strings.Lines(blueskyJournal.String()) {
		var e struct{ DID, Rkey, Op, Text, Lang string }
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		id := "bluesky-" + e.DID + "/" + e.Rkey
		if delete(posts, id); e.Op == "delete" {
			deleted[id] = true
		} else {
			posts[id] = post{e.Text, e.Lang}
		}
	}
	for line := range strings.Lines(xJournal.String()) { // in the order of their ids
		var e struct{ First, Text, Lang string }
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		posts["x-"+e.First] = post{e.Text, e.Lang}
	}
	rows := func() map[string]post {
		var list []struct{ ID, Text, Lang string }
		if err := json.Unmarshal([]byte(l.Run("query", "SELECT event_id AS id, text, coalesce(lang, '') AS lang FROM unified_events WHERE kind = 'post'", "--format", "json")), &list); err != nil {
			t.Fatal(err)
		}
		got := map[string]post{}
		for _, r := range list {
			if _, twice := got[r.ID]; twice {
				t.Fatalf("%s stands in the table twice", r.ID)
			}
			got[r.ID] = post{r.Text, r.Lang}
		}
		return got
	}
	differs := func(got map[string]post) string {
		for id, p := range posts {
			if got[id] != p {
				return fmt.Sprintf("%s is %+v, want %+v", id, got[id], p)
			}
		}
		for id := range got {
			if _, ok := posts[id]; !ok {
				return id + " should not be there"
			}
		}
		return ""
	}
	var difference string
	for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(500 * time.Millisecond) {
		alive()
		if difference = differs(rows()); difference == "" || time.Now().After(deadline) {
			break
		}
	}
	if difference != "" {
		id, _, _ := strings.Cut(difference, " ")
		t.Error(difference + biography(t, l, b.Addr, topics, id, blueskyJournal.String()+xJournal.String()))
	}
	for _, name := range all {
		p := processes[name]
		p.Signal(syscall.SIGTERM)
		if code := p.Wait(time.Minute); code != 0 {
			t.Errorf("%s ended with %d: %s", name, code, p.Stderr.String())
		}
		if name != "streams" && !strings.Contains(p.Stdout.String(), `"spool":{"bytes":0,"events":0}`) {
			t.Errorf("%s leaves events behind: %s", name, p.Stdout.String())
		}
		if strings.Contains(p.Stdout.String()+p.Stderr.String(), "s3cret-bearer") {
			t.Errorf("%s shows the bearer token", name)
		}
	}
	for _, name := range names {
		l.Run("run", "stream", "--available-now", "--source", name)
	}
	tombstones := 0
	scan := bufio.NewScanner(strings.NewReader(l.Run("table", "scan", "unified_events", "--format", "jsonl")))
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		var r struct {
			ID      string `json:"event_id"`
			Deleted bool   `json:"_deleted"`
		}
		if err := json.Unmarshal(scan.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		if r.Deleted {
			tombstones++
		}
		if r.Deleted != deleted[r.ID] {
			t.Fatalf("%s: _deleted is %t%s", r.ID, r.Deleted, biography(t, l, b.Addr, topics, r.ID, blueskyJournal.String()))
		}
	}
	if tombstones != len(deleted) {
		t.Errorf("%d tombstones of %d deletions", tombstones, len(deleted))
	}
	// The exchange does not repeat what nobody heard: REST has it.
	l.Try("gaps", "--repair", "--tail", "--rest-url", urls["trades"])
	var want []string
	for _, tr := range exchange.Trades("BTCUSDT") {
		want = append(want, fmt.Sprintf("%s-%d", tr.Symbol, tr.ID))
	}
	slices.Sort(want)
	if d := lab.Diff(want, lab.Lines(t, []byte(l.Run("query", "SELECT event_id FROM unified_events WHERE kind = 'trade'", "--format", "csv")), []string{"event_id"})); d != "" {
		t.Errorf("trades: %s", d)
	}
	messages, twice := messageIDs(t, b.Addr, topics)
	if twice == 0 {
		t.Log("no message stands in Kafka twice")
	}
	t.Logf("REPORT: %d kills in %v %s; %d posts and %d tombstones of Bluesky and X, %d trades, each in the table once; %d messages in Kafka, %d of them again under their id",
		total, time.Since(began).Round(time.Second), byPhase(kills), len(posts), tombstones, len(want), messages, twice)
}

// biography tells what is known of a post: what was made of it, what stands in Kafka, and what became of that.
func biography(t *testing.T, l *lab.Lake, broker string, topics []string, id, journal string) string {
	t.Helper()
	var w strings.Builder
	_, key, _ := strings.Cut(id, "-")
	mark := key[strings.LastIndex(key, "/")+1:]
	for line := range strings.Lines(journal) {
		if strings.Contains(line, mark) {
			w.WriteString("\n  made: " + strings.TrimSpace(line))
		}
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.ConsumeTopics(topics...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for found := true; found; {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		fetches := cl.PollFetches(ctx)
		cancel()
		found = fetches.NumRecords() > 0
		fetches.EachRecord(func(r *kgo.Record) {
			if strings.Contains(string(r.Value), mark) {
				fmt.Fprintf(&w, "\n  sent: %s %d@%d %s: %s", r.Topic, r.Partition, r.Offset, r.Timestamp.UTC().Format(time.RFC3339Nano), r.Value)
			}
		})
	}
	for _, table := range []string{"unified_events", "quarantine"} {
		for line := range strings.Lines(l.Run("table", "scan", table, "--format", "jsonl")) {
			if strings.Contains(line, mark) {
				w.WriteString("\n  " + table + ": " + strings.TrimSpace(line))
			}
		}
	}
	return w.String()
}

// messageIDs reads topics as any consumer would, and demands that equal messages have equal ids and different ones
// different ids. It tells how many messages there are, and how many of them had come before.
func messageIDs(t *testing.T, broker string, topics []string) (messages, twice int) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.ConsumeTopics(topics...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	values, ids := map[string]string{}, map[string]string{}
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		fetches := cl.PollFetches(ctx)
		cancel()
		if err := fetches.Err(); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if fetches.NumRecords() == 0 {
			return messages, twice
		}
		fetches.EachRecord(func(r *kgo.Record) {
			messages++
			id := ""
			for _, h := range r.Headers {
				if h.Key == kafka.IDHeader {
					id = string(h.Value)
				}
			}
			if id == "" {
				t.Fatalf("a message without an id: %s", r.Value)
			}
			value := r.Topic + string(r.Value)
			if before, ok := values[id]; ok {
				twice++
				if before != value {
					t.Fatalf("id %s is that of two messages: %s and %s", id, before, value)
				}
			}
			if before, ok := ids[value]; ok && before != id {
				t.Fatalf("one message has the ids %s and %s: %s", before, id, value)
			}
			values[id], ids[value] = value, id
		})
	}
}
