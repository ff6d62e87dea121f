package kill

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/pubsubtest"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/test/lab"
)

// TestPubSubUnderFire publishes 2,000 trades over 20 ordering keys, while producer and stream jobs are killed at random; a
// producer that was killed starts its file over, so that the same trades come again under other message ids. The table with
// a key has each trade once, the one without each message that the service took once. Two jobs read the first, by mistake:
// nothing is doubled.
func TestPubSubUnderFire(t *testing.T) {
	srv := pubsubtest.New(t)
	rnd := testscale.Rand(t)
	const topic, trades, files = "crypto_trades", 2000, 10
	l := lab.NewPubSubLake(t, topic, pubsubtest.Project, ", ack_deadline: 10s")
	l.Run("topics", "create")
	if err := srv.CreateSubscription(t.Context(), topic, "witness"); err != nil {
		t.Fatal(err)
	}
	var want []string
	for f := range files {
		var text strings.Builder
		for i := f * trades / files; i < (f+1)*trades/files; i++ {
			at := time.Date(2024, 8, 20, 0, 0, 0, 0, time.UTC).Add(time.Duration(i) * time.Second).UnixMilli()
			fmt.Fprintf(&text, `{"e":"trade","E":%d,"s":"K%02d","t":%d,"p":"%d.5","q":"1","T":%d,"m":false,"M":true}`+"\n", at, i%20, i, i+1, at)
			want = append(want, fmt.Sprintf("K%02d-%d|%d.50000000", i%20, i, i+1))
		}
		if err := os.WriteFile(filepath.Join(l.Dir, fmt.Sprintf("events-%d.jsonl", f)), []byte(text.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(want)
	replay := func(f int, rate int) *lab.Process {
		return l.Start(nil, "produce", "replay", fmt.Sprintf("events-%d.jsonl", f), "--to", "pubsub", "--source", "live", "--rate", fmt.Sprint(rate))
	}
	read := func(source string) *lab.Process {
		return l.Start(nil, "run", "stream", "--trigger", "200ms", "--source", source)
	}
	names := []string{"live", "live", "log"}
	jobs := make([]*lab.Process, len(names))
	for i, n := range names {
		jobs[i] = read(n)
	}
	sent := map[int]bool{}
	send := func(f int) {
		t.Helper()
		p := replay(f, 0)
		if code := p.Wait(time.Minute); code != 0 {
			t.Fatalf("the producer ended with %d: %s", code, p.Stderr.String())
		}
		sent[f] = true
	}
	gaveWay := 0
	// alive starts again the job that gave way to the other one of its source; any other end is a failure.
	alive := func() {
		t.Helper()
		for i, p := range jobs {
			if p.Running() {
				continue
			}
			if code := p.Wait(0); code != 5 || !strings.Contains(p.Stderr.String(), "another run of this source") {
				t.Fatalf("the stream %s ended with %d: %s", names[i], code, p.Stderr.String())
			}
			gaveWay++
			jobs[i] = read(names[i])
		}
	}
	kills := map[string]int{}
	turn := 0
	for range testscale.Turns(t, "pubsub-kills") {
		f := turn % files
		turn++
		alive()
		p := replay(f, 250)
		time.Sleep(time.Duration(200+rnd.IntN(1300)) * time.Millisecond)
		if v := rnd.IntN(6); v < len(jobs) {
			kills["stream "+names[v]]++
			jobs[v].Kill()
			jobs[v].Wait(time.Minute)
			jobs[v] = read(names[v])
			if code := p.Wait(time.Minute); code != 0 {
				t.Fatalf("the producer ended with %d: %s", code, p.Stderr.String())
			}
			sent[f] = true
			continue
		}
		kills["producer"]++
		p.Kill()
		p.Wait(time.Minute)
		send(f)
	}
	for f := range files {
		if !sent[f] {
			send(f)
		}
	}
	published, err := srv.Drain(t.Context(), "witness", 3*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for id := range published {
		ids = append(ids, "pubsub:"+pubsubtest.Project+":"+topic+"/"+id)
	}
	slices.Sort(ids)
	origins := func() []string {
		return lab.Lines(t, []byte(l.Run("query", "SELECT _origin FROM messages", "--format", "csv")), []string{"_origin"})
	}
	rows := func() []string {
		return lab.Lines(t, []byte(l.Run("query", "SELECT event_id, price FROM unified_events", "--format", "csv")), []string{"event_id", "price"})
	}
	// What killed jobs held comes back when its deadline has passed.
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(500 * time.Millisecond) {
		alive()
		if len(origins()) >= len(ids) && len(rows()) >= trades {
			break
		}
	}
	for i, p := range jobs {
		p.Signal(syscall.SIGTERM)
		if code := p.Wait(time.Minute); code != 0 {
			t.Errorf("the stream %s ended with %d: %s", names[i], code, p.Stderr.String())
		}
	}
	if d := lab.Diff(want, rows()); d != "" {
		t.Errorf("trades: %s", d)
	}
	if d := lab.Diff(ids, origins()); d != "" {
		t.Errorf("messages: %s", d)
	}
	t.Logf("REPORT: %s: %d kills %s; %d trades were published in %d messages, each in its table once; a second job gave way %d times",
		srv.Kind, turn, byPhase(kills), trades, len(ids), gaveWay)
}
