package kill

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/test/lab"
)

// TestNothingIsAcknowledgedBeforeTheCommit kills the stream between its data files and its commit, and right after the
// commit. The events must still be in the buffer, or already in the table; both times the next run goes on by itself.
func TestNothingIsAcknowledgedBeforeTheCommit(t *testing.T) {
	for _, phase := range []string{"files-written", "before-commit", "after-commit"} {
		t.Run(phase, func(t *testing.T) {
			l := lab.NewLake(t)
			g := lab.NewGenerator(testscale.Rand(t), 2)
			for range 2 { // the second time the table has something to update
				file := filepath.Join(t.TempDir(), "events.jsonl")
				g.Events(t, file, 300)
				l.Run("produce", "replay", file)
				p := l.Start([]string{"CAUCE_FAULT=kill@" + phase}, "run", "stream", "--available-now")
				if code := p.Wait(time.Minute); code != -1 {
					t.Fatalf("the stream ended with %d instead of being killed: %s", code, p.Stderr.String())
				}
				l.Run("run", "stream", "--available-now")
				if d := lab.Diff(g.Expected.Lines(), l.Rows()); d != "" {
					t.Fatal(d)
				}
			}
		})
	}
}
