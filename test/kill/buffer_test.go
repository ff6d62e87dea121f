package kill

import (
	"encoding/json"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/test/lab"
)

// TestBufferHostKilled kills the process that hosts the stream buffer while a producer and the stream run in other
// processes: one of them takes over, and every event that the producer saw acknowledged reaches the table.
func TestBufferHostKilled(t *testing.T) {
	l := lab.NewLake(t)
	rnd := testscale.Rand(t)
	g := lab.NewGenerator(rnd, 3)
	var kills int
	var slowest time.Duration
	for i := range testscale.Turns(t, "buffer-kills") {
		held, sent := filepath.Join(t.TempDir(), "held.jsonl"), filepath.Join(t.TempDir(), "sent.jsonl")
		g.Events(t, held, 500)
		g.Events(t, sent, 1500)
		// The first process hosts. It sends slowly, so that it is there to be killed; what it did not send is sent below.
		host := l.Start(nil, "produce", "replay", held, "--rate", "20")
		waitForHost(t, l, func(pid int) bool { return pid == host.Pid() })
		stream := l.Start(nil, "run", "stream")
		producer := l.Start(nil, "produce", "replay", sent, "--rate", "750")
		time.Sleep(time.Duration(300+rnd.IntN(900)) * time.Millisecond)
		if !producer.Running() || !stream.Running() || !host.Running() {
			t.Fatalf("turn %d: a process has ended before the kill: producer %s%s stream %s host %s", i, producer.Stdout.String(), producer.Stderr.String(), stream.Stderr.String(), host.Stderr.String())
		}
		host.Kill()
		killed := time.Now()
		kills++
		waitForHost(t, l, func(pid int) bool { return pid == producer.Pid() || pid == stream.Pid() })
		slowest = max(slowest, time.Since(killed))
		if code := producer.Wait(time.Minute); code != 0 {
			t.Fatalf("turn %d: the producer ended with %d: %s", i, code, producer.Stderr.String())
		}
		stream.Signal(syscall.SIGTERM)
		if code := stream.Wait(time.Minute); code != 0 {
			t.Fatalf("turn %d: the stream ended with %d: %s", i, code, stream.Stderr.String())
		}
		l.Run("produce", "replay", held)
	}
	l.Run("run", "stream", "--available-now")
	if d := lab.Diff(g.Expected.Lines(), l.Rows()); d != "" {
		t.Errorf("after %d kills of the buffer's host: %s", kills, d)
	}
	t.Logf("REPORT: the buffer's host killed %d times, no acknowledged event lost; slowest take-over %v", kills, slowest.Round(time.Millisecond))
	if slowest > 5*time.Second {
		t.Errorf("a take-over took %v, more than 5 s", slowest)
	}
}

// waitForHost waits until the process that hosts the buffer, as the file beside it tells, is one that is wanted.
func waitForHost(t *testing.T, l *lab.Lake, wanted func(pid int) bool) {
	t.Helper()
	var seen string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		text, err := os.ReadFile(l.Path(".cauce/buffer/server.json"))
		if err != nil {
			continue
		}
		seen = string(text)
		var endpoint struct {
			PID int `json:"pid"`
		}
		if json.Unmarshal(text, &endpoint) == nil && wanted(endpoint.PID) {
			return
		}
	}
	t.Fatalf("nobody wanted hosts the buffer within 20 s; its file says %q", seen)
}
