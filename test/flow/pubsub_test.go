package flow

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/pubsubtest"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/test/lab"
)

// TestPubSubIntoTheTable takes events through Pub/Sub into a table with a key and into one without, with a process that is
// killed in every phase: the first has what was published, the second each message once.
func TestPubSubIntoTheTable(t *testing.T) {
	srv := pubsubtest.New(t)
	const topic = "crypto_trades"
	l := lab.NewPubSubLake(t, topic, pubsubtest.Project, ", ack_deadline: 10s, retention: 1d, longest_stop: 5d")
	g := lab.NewGenerator(testscale.Rand(t), 3)
	if out, errs, code := l.Try("topics", "describe"); code != 1 || !strings.Contains(errs, "topic does not exist in project") ||
		!strings.Contains(errs, "make it with: cauce topics create") || strings.Contains(errs, "rpc error") {
		t.Errorf("a topic that is not there: exit code %d, %s%s", code, out, errs)
	}
	none := filepath.Join(t.TempDir(), "none.jsonl")
	if err := os.WriteFile(none, []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, errs, code := l.Try("produce", "replay", none, "--source", "live"); code != 1 || !strings.Contains(errs, "make it with: cauce topics create") || strings.Contains(errs, "rpc error") {
		t.Errorf("a producer without a topic: exit code %d, %s%s", code, out, errs)
	}
	if out, errs, code := l.Try("run", "stream", "--source", "live"); code != 1 || !strings.Contains(errs, "cauce topics create") {
		t.Errorf("a stream without a subscription: exit code %d, %s%s", code, out, errs)
	}
	var made struct {
		Topics []struct {
			Topic, Subscription string
			Created             bool
			Retention           int64 `json:"retention_seconds"`
			Warnings            []string
		}
	}
	l.JSON(&made, "topics", "create")
	const short = "keeps messages for 1 day, less than the longest planned stop of 5 days"
	if len(made.Topics) != 2 || !made.Topics[0].Created || made.Topics[0].Subscription != topic+"-log" || made.Topics[1].Retention != 86400 ||
		len(made.Topics[1].Warnings) != 1 || !strings.Contains(made.Topics[1].Warnings[0], short) {
		t.Errorf("topics create: %+v", made)
	}
	if l.JSON(&made, "topics", "create"); made.Topics[0].Created {
		t.Error("it is made twice")
	}
	var doctor struct {
		OK     bool
		Checks []struct{ Check, Status, Detail string }
	}
	if l.JSON(&doctor, "doctor"); !doctor.OK || !slices.ContainsFunc(doctor.Checks, func(c struct{ Check, Status, Detail string }) bool {
		return c.Check == "topic" && c.Status == "warning" && strings.Contains(c.Detail, short)
	}) {
		t.Errorf("doctor: %+v", doctor)
	}
	if err := srv.CreateSubscription(t.Context(), topic, "witness"); err != nil {
		t.Fatal(err)
	}

	send := func(n int) {
		t.Helper()
		file := filepath.Join(t.TempDir(), fmt.Sprintf("events-%d.jsonl", time.Now().UnixNano()))
		g.Events(t, file, n)
		l.Run("produce", "replay", file, "--to", "pubsub", "--source", "live")
		if n <= 100 {
			l.Run("produce", "replay", file, "--to", "pubsub", "--source", "live") // again, as a producer that started over
		}
	}
	// Whoever is killed leaves its messages with the service, which gives them to the next when the deadline has passed.
	for _, phase := range []string{"files-written", "after-commit"} {
		send(100)
		if testscale.Count(t, "pubsub-phase-kills") == 0 {
			continue
		}
		for _, source := range []string{"live", "log"} {
			p := l.Start([]string{"CAUCE_FAULT=kill@" + phase}, "run", "stream", "--trigger", "200ms", "--source", source)
			if code := p.Wait(time.Minute); code != -1 {
				t.Fatalf("the stream ended with %d instead of being killed at %s: %s", code, phase, p.Stderr.String())
			}
		}
	}
	send(200)
	live := l.Start(nil, "run", "stream", "--available-now", "--source", "live")
	l.Run("run", "stream", "--available-now", "--source", "log")
	if code := live.Wait(2 * time.Minute); code != 0 {
		t.Fatalf("the stream ended with %d: %s", code, live.Stderr.String())
	}
	if d := lab.Diff(g.Expected.Lines(), l.Rows()); d != "" {
		t.Error(d)
	}
	published, err := srv.Drain(t.Context(), "witness", 2*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for id, data := range published {
		if strings.Contains(string(data), `"e":"trade"`) {
			want = append(want, "pubsub:"+pubsubtest.Project+":"+topic+"/"+id)
		}
	}
	slices.Sort(want)
	got := lab.Lines(t, []byte(l.Run("query", "SELECT _origin FROM messages", "--format", "csv")), []string{"_origin"})
	if d := lab.Diff(want, got); d != "" || len(want) < 600 {
		t.Errorf("messages without a key, of %d that were published: %s", len(want), d)
	}
	var why struct {
		Versions []struct {
			Origin struct{ Kind, Topic, Message string }
		}
	}
	key := strings.SplitN(g.Expected.Lines()[0], "|", 2)[0]
	l.JSON(&why, "why", key, "--table", "unified_events")
	if len(why.Versions) == 0 || why.Versions[0].Origin.Topic != topic || why.Versions[0].Origin.Kind != "pubsub" || why.Versions[0].Origin.Message == "" {
		t.Errorf("why %s: %+v", key, why)
	}
}
