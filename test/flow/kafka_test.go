package flow

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/kafkatest"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/test/lab"
)

// TestKafkaIntoTheTable takes events through a real broker, with roles that may do only what they must, into the table:
// stopped, killed in every phase, beside batch, and twice at the same time.
func TestKafkaIntoTheTable(t *testing.T) {
	b := kafkatest.New(t, map[string]string{"producer": "pw-p", "stream": "pw-s"})
	ctx := t.Context()
	const topic, group = "crypto_trades", "cauce-live"
	if err := errors.Join(b.CreateTopic(ctx, topic, 3, nil), b.AllowProduce(ctx, "producer", topic), b.AllowConsume(ctx, "stream", topic, group)); err != nil {
		t.Fatal(err)
	}
	l := lab.NewKafkaLake(t, topic, b.Addr, `, group: cauce-live, sasl: {user: stream, password: "${env:STREAM_PASSWORD}"}, producer: {user: producer, password: "${env:PRODUCER_PASSWORD}"}`)
	l.Env = append(l.Env, "STREAM_PASSWORD=pw-s", "PRODUCER_PASSWORD=pw-p")
	g := lab.NewGenerator(testscale.Rand(t), 3)
	send := func(n int) {
		t.Helper()
		file := filepath.Join(t.TempDir(), fmt.Sprintf("events-%d.jsonl", time.Now().UnixNano()))
		g.Events(t, file, n)
		l.Run("produce", "replay", file)
	}
	check := func(what string) {
		t.Helper()
		if d := lab.Diff(g.Expected.Lines(), l.Rows()); d != "" {
			t.Fatalf("%s: %s", what, d)
		}
	}
	version := func() int64 {
		t.Helper()
		var s struct {
			Tables []struct{ Version int64 }
		}
		l.JSON(&s, "status")
		return s.Tables[0].Version
	}

	send(2000)
	l.Run("run", "stream", "--available-now")
	check("first run")
	before := version()
	l.Run("run", "stream", "--available-now")
	if after := version(); after != before {
		t.Errorf("a run with nothing to read made version %d of %d", after, before)
	}
	for _, phase := range []string{"reading", "files-written", "before-commit", "after-commit"} {
		send(300)
		p := l.Start([]string{"CAUCE_FAULT=kill@" + phase}, "run", "stream", "--available-now")
		if code := p.Wait(time.Minute); code != -1 {
			t.Fatalf("the stream ended with %d instead of being killed at %s: %s", code, phase, p.Stderr.String())
		}
		l.Run("run", "stream", "--available-now")
		check("killed at " + phase)
	}

	// Batch and two streams at once, the second started by mistake.
	g.History(t, l.Inbox(), 1, 1000, 0)
	one := l.Start(nil, "run", "stream", "--trigger", "100ms")
	two := l.Start(nil, "run", "stream", "--trigger", "100ms")
	for range 5 {
		send(200)
	}
	l.Run("run", "batch")
	l.Run("run", "stream", "--available-now")
	one.Signal(syscall.SIGTERM)
	two.Signal(syscall.SIGTERM)
	for _, p := range []*lab.Process{one, two} {
		if code := p.Wait(time.Minute); code != 0 {
			t.Errorf("a stream ended with %d: %s", code, p.Stderr.String())
		}
	}
	check("two streams")

	// The broker dies and comes back while the stream runs.
	s := l.Start(nil, "run", "stream", "--trigger", "100ms")
	send(100)
	b.Kill()
	time.Sleep(300 * time.Millisecond)
	if err := b.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	send(100)
	l.Run("run", "stream", "--available-now")
	if !s.Running() {
		t.Errorf("the stream did not survive the broker: %s", s.Stderr.String())
	}
	s.Signal(syscall.SIGTERM)
	if code := s.Wait(time.Minute); code != 0 {
		t.Errorf("the stream ended with %d: %s", code, s.Stderr.String())
	}
	check("broker killed")
	for _, word := range []string{"pw-s", "pw-p"} {
		if strings.Contains(s.Stderr.String()+l.Run("plan"), word) {
			t.Errorf("the password %s is shown", word)
		}
	}
}

// TestKafkaGaps: what the broker no longer has stops the stream with exit code 4 and is named; allowed, it is recorded.
func TestKafkaGaps(t *testing.T) {
	b := kafkatest.New(t, nil)
	ctx := t.Context()
	const topic = "crypto_trades"
	if err := b.CreateTopic(ctx, topic, 1, nil); err != nil {
		t.Fatal(err)
	}
	l := lab.NewKafkaLake(t, topic, b.Addr, "")
	g := lab.NewGenerator(testscale.Rand(t), 2)
	send := func(n int) {
		t.Helper()
		file := filepath.Join(t.TempDir(), fmt.Sprintf("events-%d.jsonl", time.Now().UnixNano()))
		g.Events(t, file, n)
		l.Run("produce", "replay", file)
	}
	stopped := func(what string, words ...string) {
		t.Helper()
		out, errs, code := l.Try("run", "stream", "--available-now")
		if code != 4 {
			t.Fatalf("%s: exit code %d, want 4: %s%s", what, code, out, errs)
		}
		for _, w := range words {
			if !strings.Contains(errs, w) {
				t.Errorf("%s: %q does not say %q", what, errs, w)
			}
		}
	}
	rows := func() int { return len(l.Rows()) }
	// foreseen asks whoever tells of the next run, before it.
	foreseen := func(what string, words ...string) {
		t.Helper()
		out, errs, code := l.Try("doctor")
		if code != 1 {
			t.Errorf("%s: the doctor's exit code is %d, want 1: %s%s", what, code, out, errs)
		}
		plan, _, code := l.Try("plan")
		if code != 4 {
			t.Errorf("%s: plan's exit code is %d, want 4", what, code)
		}
		for name, said := range map[string]string{"doctor": out, "status": l.Run("status"), "plan": plan} {
			for _, w := range append(words, "live", "a run would stop", "--allow-gap live") {
				if !strings.Contains(said, w) {
					t.Errorf("%s: %s does not say %q: %s", what, name, w, said)
				}
			}
		}
	}

	send(100)
	l.Run("run", "stream", "--available-now")
	var st struct {
		Sources []struct {
			Streams []struct{ Positions []struct{ Offset int64 } }
		}
	}
	l.JSON(&st, "status")
	first := st.Sources[1].Streams[0].Positions[0].Offset + 1
	send(100)
	if err := b.Truncate(ctx, topic, 0, 150); err != nil {
		t.Fatal(err)
	}
	had := rows()
	foreseen("expired", fmt.Sprintf("offsets %d to 149", first))
	stopped("expired", fmt.Sprintf("offsets %d to 149", first), "--allow-gap live", "cauce run batch history", "cauce produce replay FILE --source live")
	if rows() != had {
		t.Error("rows were read behind a gap that nobody allowed")
	}
	l.Run("run", "stream", "--available-now", "--allow-gap", "live")
	if rows() <= had {
		t.Error("nothing was read behind the gap")
	}
	if s := l.Run("status", "--json"); !strings.Contains(s, fmt.Sprintf(`"from":%d,"to":149`, first)) {
		t.Errorf("the gap is not in status: %s", s)
	}
	// What was allowed to be lost stays listed; this table has no ledger, so nothing more can be said, and that is no failure.
	if s := l.Run("gaps", "--json"); !strings.Contains(s, fmt.Sprintf(`"from":%d,"to":149`, first)) || !strings.Contains(s, `"ledger":false`) {
		t.Errorf("the gap is not among those of gaps: %s", s)
	}
	l.Run("run", "stream", "--available-now")

	if err := b.DeleteTopic(ctx, topic); err != nil {
		t.Fatal(err)
	}
	var err error
	for range 100 {
		if err = b.CreateTopic(ctx, topic, 1, nil); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	send(50)
	foreseen("made again", "made again", "all partitions")
	stopped("made again", "made again", "all partitions", "cauce run batch history")
	had = rows()
	l.Run("run", "stream", "--available-now", "--allow-gap", "live")
	if rows() <= had {
		t.Error("nothing was read of the new topic")
	}
	if s := l.Run("gaps"); !strings.Contains(s, "  all     -    -  ") {
		t.Errorf("the gap of the whole topic: %s", s)
	}
	send(30)
	toRead := regexp.MustCompile(`live: (?:a run would go on; )?3\d events to read`) // the generator repeats some
	if s := l.Run("plan"); !toRead.MatchString(s) || strings.Count(s, "goes on behind") != 1 {
		t.Errorf("plan, with 30 events behind the 50 of the new topic: %s", s)
	}
	if s := l.Run("doctor"); !toRead.MatchString(s) {
		t.Errorf("doctor: %s", s)
	}
	l.Run("run", "stream", "--available-now")
}
