package cloud

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cauce-data/cauce/internal/cloudtest"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/test/lab"
)

// TestRolesOnS3 runs a lake with the rights that deploy/terraform gives to its roles, on a server that enforces them: each
// role can do its work, and what it may not do is denied in words that help, and costs nothing.
func TestRolesOnS3(t *testing.T) {
	prereq.Need(t, "versitygw")
	srv := cloudtest.NewS3WithUsers(t)
	bucket := srv.Bucket(t, "lake")
	l := lab.NewLake(t)
	text, err := os.ReadFile(l.Path("lake.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	archived := strings.Replace(string(text), "    topic: crypto_trades\n", "    topic: crypto_trades\n    archive: true\n", 1)
	if err := os.WriteFile(l.Path("lake.yaml"), []byte(archived), 0o644); err != nil {
		t.Fatal(err)
	}
	env, keys := map[string][]string{}, map[string]string{}
	for _, role := range []string{"batch", "streaming", "reader", "maintenance", "producer"} {
		var policies []string
		if role != "producer" { // which sees no bucket
			policies = append(policies, cloudtest.RolePolicy(t, role, bucket))
		}
		access, secret := srv.User(t, role, policies...)
		keys[role] = access
		env[role] = append(cloudtest.AWSEnv(srv.Endpoint, access, secret), "CAUCE_ROOT=s3://"+bucket)
	}
	as := func(role string) *lab.Lake { l.Env = env[role]; return l }
	denied := func(role, needs string, args ...string) {
		t.Helper()
		out, errs, code := as(role).Try(append(args, "--json")...)
		var report struct {
			Error    string
			ExitCode int `json:"exit_code"`
			Checks   []struct{ Status, Detail string }
		}
		if err := json.Unmarshal([]byte(out), &report); err != nil {
			t.Fatalf("%s: %v: %v in %q, %s", role, args, err, out, errs)
		}
		if code != 2 || report.ExitCode != 2 {
			t.Errorf("%s: %v: exit code %d, %d in the answer: %s%s", role, args, code, report.ExitCode, out, errs)
		}
		for _, word := range []string{"denied to access key " + keys[role] + ": it needs " + needs, "s3://" + bucket, "use a role that has it"} {
			if !strings.Contains(report.Error, word) {
				t.Errorf("%s: %v: the error lacks %q: %s", role, args, word, report.Error)
			}
		}
	}

	g := lab.NewGenerator(testscale.Rand(t), 3)
	dir, events := t.TempDir(), filepath.Join(t.TempDir(), "events.jsonl")
	files := []string{g.History(t, dir, 0, 500, 20).Path, g.History(t, dir, 1, 500, 20).Path}
	g.Events(t, events, 300)

	denied("producer", "s3:GetObject on arn:aws:s3:::lake/raw/batch/", append([]string{"land"}, files...)...)
	denied("reader", "s3:GetObject on arn:aws:s3:::lake/raw/batch/", append([]string{"land"}, files...)...)
	denied("streaming", "s3:GetObject on arn:aws:s3:::lake/raw/batch/", append([]string{"land"}, files...)...)
	as("batch").Run(append([]string{"land"}, files...)...)
	denied("reader", "s3:PutObject on arn:aws:s3:::lake/processed/", "run", "batch")
	denied("producer", "s3:", "run", "batch")
	as("batch").Run("run", "batch")

	as("producer").Run("produce", "replay", events)
	// Batch may not write the archive: nothing is committed, and the events stay where they are.
	denied("batch", "s3:PutObject on arn:aws:s3:::lake/raw/streaming/", "run", "stream", "--available-now")
	denied("reader", "s3:PutObject on arn:aws:s3:::lake/raw/streaming/", "run", "stream", "--available-now")
	as("streaming").Run("run", "stream", "--available-now")
	if d := lab.Diff(g.Expected.Lines(), as("reader").Rows()); d != "" {
		t.Fatal(d)
	}

	hash := as("reader").Run("table", "hash", "unified_events")
	denied("producer", "s3:", "query", "SELECT count(*) FROM unified_events")
	denied("producer", "s3:", "status")
	denied("reader", "s3:PutObject on arn:aws:s3:::lake/processed/unified-events/", "query", "--write", "DELETE FROM unified_events WHERE event_date = DATE '2024-08-18'")
	denied("reader", "s3:PutObject on arn:aws:s3:::lake/processed/unified-events/", "table", "optimize", "unified_events")
	as("batch").Run("table", "optimize", "unified_events")
	denied("reader", "s3:PutObject on arn:aws:s3:::lake/processed/unified-events/", "table", "vacuum", "unified_events", "--retention", "0s", "--force")
	for _, role := range []string{"batch", "streaming"} {
		denied(role, "s3:DeleteObject on arn:aws:s3:::lake/processed/unified-events/", "table", "vacuum", "unified_events", "--retention", "0s", "--force")
	}
	for _, role := range []string{"batch", "streaming", "reader"} {
		if h := as(role).Run("table", "hash", "unified_events"); h != hash {
			t.Errorf("%s sees the table as %s, it was %s", role, h, hash)
		}
	}
	var vacuum struct {
		Files []string
	}
	as("maintenance").JSON(&vacuum, "table", "vacuum", "unified_events", "--retention", "0s", "--force")
	if len(vacuum.Files) == 0 {
		t.Errorf("maintenance deleted nothing: %+v", vacuum)
	}
	as("maintenance").Run("table", "optimize", "unified_events", "--zorder", "symbol")
	if d := lab.Diff(g.Expected.Lines(), as("reader").Rows()); d != "" {
		t.Fatal(d)
	}
}
