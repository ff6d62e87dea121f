package flow

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/kafkatest"
	"github.com/cauce-data/cauce/internal/pubsubtest"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/test/lab"
)

// Two streams are started on one source by mistake: one works, the other says that it waits, and goes on when the first is
// killed. Nothing is lost, and nothing doubled.

func TestSecondStreamOfTheBuffer(t *testing.T) {
	secondStream(t, lab.NewLake(t))
}

func TestSecondStreamOfKafka(t *testing.T) {
	b := kafkatest.New(t, nil)
	const topic = "crypto_trades"
	if err := b.CreateTopic(t.Context(), topic, 3, nil); err != nil {
		t.Fatal(err)
	}
	secondStream(t, lab.NewKafkaLake(t, topic, b.Addr, ""))
}

func TestSecondStreamOfPubSub(t *testing.T) {
	pubsubtest.New(t)
	l := lab.NewPubSubLake(t, "crypto_trades", pubsubtest.Project, ", ack_deadline: 10s")
	l.Run("topics", "create")
	secondStream(t, l)
}

func secondStream(t *testing.T, l *lab.Lake) {
	t.Helper()
	g := lab.NewGenerator(testscale.Rand(t), 2)
	send := func(n int) {
		t.Helper()
		file := filepath.Join(t.TempDir(), fmt.Sprintf("events-%d.jsonl", time.Now().UnixNano()))
		g.Events(t, file, n)
		l.Run("produce", "replay", file, "--source", "live", "--rate", "500")
	}
	await := func(what string, ready func() bool) {
		t.Helper()
		for deadline := time.Now().Add(2 * time.Minute); !ready(); time.Sleep(100 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: not within two minutes: %s", what, lab.Diff(g.Expected.Lines(), l.Rows()))
			}
		}
	}
	complete := func() bool { return lab.Diff(g.Expected.Lines(), l.Rows()) == "" }

	send(50) // the table exists
	l.Run("run", "stream", "--available-now", "--source", "live")
	streams := []*lab.Process{
		l.Start(nil, "run", "stream", "--source", "live", "--trigger", "50ms"),
		l.Start(nil, "run", "stream", "--source", "live", "--trigger", "50ms"),
	}
	const waits = "this one waits"
	var waiting *lab.Process
	await("one waits", func() bool {
		send(100)
		for _, s := range streams {
			if !s.Running() {
				t.Fatalf("a stream ended: %s", s.Stderr.String())
			}
			if strings.Contains(s.Stderr.String(), waits) {
				waiting = s
			}
		}
		return waiting != nil
	})
	await("all rows, with two streams", complete)
	for _, s := range streams {
		if s != waiting {
			s.Kill()
		}
	}
	send(100)
	await("all rows, after one was killed", complete)
	if !waiting.Running() {
		t.Errorf("the stream that waited ended: %s", waiting.Stderr.String())
	}
	waiting.Signal(syscall.SIGTERM)
	if code := waiting.Wait(time.Minute); code != 0 {
		t.Errorf("the stream that waited ended with %d: %s", code, waiting.Stderr.String())
	}
	if d := lab.Diff(g.Expected.Lines(), l.Rows()); d != "" {
		t.Error(d)
	}
}
