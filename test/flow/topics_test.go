package flow

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cauce-data/cauce/internal/kafkatest"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/test/lab"
)

// TestTopics makes the topic of the lake file, and looks at it: a second create leaves it alone, what differs from the
// lake file is a warning, and so is, for the doctor too, a retention that is shorter than the longest planned stop.
func TestTopics(t *testing.T) {
	b := kafkatest.New(t, nil)
	const topic = "crypto_trades"
	l := lab.NewKafkaLake(t, topic, b.Addr, ", partitions: 3, retention: 24h, longest_stop: 5d")
	type report struct {
		Topics []struct {
			Topic      string
			Created    bool
			Partitions int
			Retention  int64 `json:"retention_seconds"`
			Messages   int64
			Warnings   []string
		}
	}
	topics := func(verb string) report {
		t.Helper()
		var r report
		l.JSON(&r, "topics", verb)
		if len(r.Topics) != 1 || r.Topics[0].Topic != topic {
			t.Fatalf("topics %s: %+v", verb, r)
		}
		return r
	}
	if out, errs, code := l.Try("topics", "describe"); code != 1 || !strings.Contains(errs, "does not exist; make it with: cauce topics create") {
		t.Errorf("a topic that is not there: exit code %d, %s%s", code, out, errs)
	}
	made := topics("create").Topics[0]
	if !made.Created || made.Partitions != 3 || made.Retention != 24*3600 || made.Messages != 0 {
		t.Errorf("made: %+v", made)
	}
	const short = "it keeps messages for 1 day, less than the longest planned stop of 5 days"
	if len(made.Warnings) != 1 || !strings.Contains(made.Warnings[0], short) {
		t.Errorf("warnings: %q", made.Warnings)
	}
	if topics("create").Topics[0].Created {
		t.Error("it is made twice")
	}
	if out, errs, code := l.Try("topics", "create", "--replication", "-3"); code != 2 || !strings.Contains(errs, "--replication -3") {
		t.Errorf("a negative replication: exit code %d, %s%s", code, out, errs)
	}
	for replication, want := range map[string]bool{"1": false, "5": true} {
		out := l.Run("topics", "create", "--replication", replication)
		if strings.Contains(out, "it has 1 copy of each partition, --replication says 5") != want || strings.Count(out, "warning:") != map[bool]int{false: 1, true: 2}[want] {
			t.Errorf("--replication %s of a topic that is there: %s", replication, out)
		}
	}
	var doctor struct {
		OK     bool
		Checks []struct{ Check, Status, Detail string }
	}
	l.JSON(&doctor, "doctor")
	if !doctor.OK || !slices.ContainsFunc(doctor.Checks, func(c struct{ Check, Status, Detail string }) bool {
		return c.Check == "topic" && c.Status == "warning" && strings.Contains(c.Detail, short)
	}) {
		t.Errorf("doctor: %+v", doctor)
	}

	g := lab.NewGenerator(testscale.Rand(t), 3)
	file := filepath.Join(t.TempDir(), "events.jsonl")
	g.Events(t, file, 200)
	l.Run("produce", "replay", file, "--to", "kafka")
	if n := topics("describe").Topics[0].Messages; n < 200 {
		t.Errorf("%d messages after 200 events", n)
	}
	l.Run("run", "stream", "--available-now")
	if d := lab.Diff(g.Expected.Lines(), l.Rows()); d != "" {
		t.Error(d)
	}
	for _, to := range []string{"embedded", "carrier-pigeon"} {
		if out, errs, code := l.Try("produce", "replay", file, "--to", to); code != 2 || !strings.Contains(errs, to) {
			t.Errorf("--to %s: exit code %d, %s%s", to, code, out, errs)
		}
	}

	wide := lab.NewKafkaLake(t, topic, b.Addr, ", partitions: 6, retention: 7d, longest_stop: 12h")
	var r report
	wide.JSON(&r, "topics", "describe")
	if w := strings.Join(r.Topics[0].Warnings, "\n"); len(r.Topics[0].Warnings) != 2 ||
		!strings.Contains(w, "it has 3 partitions, the lake file says 6") || !strings.Contains(w, "it keeps messages for 1 day, the lake file says 7 days") {
		t.Errorf("a topic that differs: %q", w)
	}
}
