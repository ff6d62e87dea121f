package spark

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/family"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/test/lab"
)

// A Spark application that is killed at a random moment, alone or with the program that submitted it: the next batch, on
// either engine, makes the table right.
func TestSparkDriverKilled(t *testing.T) {
	kills := testscale.Count(t, "spark-driver-kills")
	args := append([]string{"spark", "submit", "batch"}, submitFlags(t)...)
	rnd := testscale.Rand(t)
	l := lab.NewLake(t)
	g := lab.NewGenerator(rnd, 2)
	bad := g.History(t, l.Inbox(), 0, 200, 20).Bad
	l.Run("run", "batch") // so that there is a table
	took := 15 * time.Second
	if testscale.Current() == testscale.Soak { // how long a whole one takes here
		bad += g.History(t, l.Inbox(), 0, 200, 20).Bad
		began := time.Now()
		l.Run(args...)
		took = time.Since(began)
	}
	// What stands in the table's log and in progress tells how far an application came: progress is written before the commit.
	written := func() (n [2]int) {
		t.Helper()
		for i, pattern := range []string{filepath.Join(l.Table(), "_delta_log", "*.json"), l.Path("data/processed/_progress/history/files/*.json")} {
			files, err := filepath.Glob(pattern)
			if err != nil {
				t.Fatal(err)
			}
			n[i] = len(files)
		}
		return n
	}
	var unread, uncommitted, committed, ended int
	for i := 0; unread+uncommitted+committed < kills; i++ {
		bad += g.History(t, l.Inbox(), rnd.IntN(2), 200, 20).Bad
		before, began := written(), time.Now()
		p := l.Start(nil, args...)
		seen := map[family.Relative]bool{}
		for wait := began.Add(time.Duration(rnd.Int64N(int64(took)))); p.Running() && (time.Now().Before(wait) || len(seen) < 2); time.Sleep(50 * time.Millisecond) {
			for _, r := range family.Descendants(p.Pid()) {
				seen[r] = true
			}
		}
		late := !p.Running()
		if late {
			took = time.Since(began)
		}
		if rnd.IntN(2) == 0 {
			p.Kill()
		}
		for r := range seen {
			r.Kill()
		}
		if code := p.Wait(time.Minute); code == -2 {
			t.Fatalf("kill %d: cauce still waits for an application that is dead", i+1)
		}
		switch after := written(); {
		case late:
			ended++
		case after[0] > before[0]:
			committed++
		case after[1] > before[1]:
			uncommitted++
		default:
			unread++
		}
		engine := []string{"run", "batch"}
		if testscale.Current() == testscale.Soak && i%3 == 0 {
			engine = args
		}
		l.Run(engine...)
		if d := lab.Diff(g.Expected.Lines(), l.Rows()); d != "" {
			t.Fatalf("after kill %d and cauce %s: %s", i+1, engine[0], d)
		}
		if n := len(quarantine(l, "")) - 1; n != bad {
			t.Fatalf("after kill %d and cauce %s: %d rows in quarantine, want %d", i+1, engine[0], n, bad)
		}
	}
	t.Logf("REPORT: %d kills: %d before progress was written, %d between that and the commit, %d after the commit; %d times the application had ended before", kills, unread, uncommitted, committed, ended)
}
