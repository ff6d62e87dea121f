package kill

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/test/lab"
)

// A scheduler that dies in the middle of a batch: the run is shown as interrupted with its log, the next scheduler tells
// of it and runs the batch by itself; and after many deaths at random moments the table is right.
func TestSchedulerKilled(t *testing.T) {
	testscale.NotAtShort(t, "each life is seconds of work")
	var mu sync.Mutex
	var told []string
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var a struct{ Event, Task string }
		if err := json.NewDecoder(r.Body).Decode(&a); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		told = append(told, a.Task+" "+a.Event)
	}))
	defer hook.Close()
	l := lab.NewLake(t)
	l.Append("schedule: {batch: {cron: \"0 1 1 1 *\"}, maintenance: {after: batch}, alerts: {url: \"" + hook.URL + "\"}}\n")
	rnd := testscale.Rand(t)
	g := lab.NewGenerator(rnd, 3)
	bad := g.History(t, l.Inbox(), 0, 300, 50).Bad

	type run struct{ ID, Task, Trigger, Status, Log string }
	newest := func(task string) run {
		t.Helper()
		var list struct{ Runs []run }
		l.JSON(&list, "runs")
		for _, r := range list.Runs {
			if r.Task == task {
				return r
			}
		}
		return run{}
	}
	p := l.Start([]string{"CAUCE_FAULT=kill@before-commit"}, "up", "--no-produce", "--batch-now")
	if code := p.Wait(2 * time.Minute); code != -1 {
		t.Fatalf("up ended with %d instead of being killed: %s", code, p.Stderr.String())
	}
	dead := newest("batch")
	if dead.Status != "interrupted" {
		t.Fatalf("the run of a killed process is %+v", dead)
	}
	var shown run
	if l.JSON(&shown, "runs", "show", dead.ID); !strings.Contains(shown.Log, "a try begins") {
		t.Errorf("its log is %q", shown.Log)
	}
	p = l.Start(nil, "up", "--no-produce")
	for end := time.Now().Add(2 * time.Minute); newest("batch").Trigger != "catch-up" || newest("maintenance").Status != "ok"; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) || !p.Running() {
			t.Fatalf("nothing is made up for: %+v, %+v\n%s", newest("batch"), newest("maintenance"), p.Stderr.String())
		}
	}
	p.Kill()
	p.Wait(time.Minute)
	if r := newest("maintenance"); r.Trigger != "after" {
		t.Errorf("maintenance: %+v", r)
	}
	mu.Lock()
	if want := []string{"batch interrupted", "batch recovered"}; !slices.Equal(slices.Sorted(slices.Values(told)), want) {
		t.Errorf("told %q, want %q", told, want)
	}
	mu.Unlock()
	if d := lab.Diff(g.Expected.Lines(), l.Rows()); d != "" {
		t.Fatal(d)
	}

	// By chance, over the time that such a batch and what runs after it take here. What a killed one left is made right by the
	// next batch, or taken up by the next scheduler, which may be killed in turn.
	log := filepath.Join(t.TempDir(), "phases")
	took := time.Second
	hit := map[string]int{}
	check := func() {
		t.Helper()
		l.Run("run", "batch")
		if d := lab.Diff(g.Expected.Lines(), l.Rows()); d != "" {
			t.Fatalf("after the kills %s: %s", byPhase(hit), d)
		}
		var q struct{ Rows []struct{ N int } }
		if l.JSON(&q, "query", "SELECT count(*) AS n FROM quarantine"); q.Rows[0].N != bad {
			t.Fatalf("after the kills %s: %d rows in quarantine, want %d", byPhase(hit), q.Rows[0].N, bad)
		}
	}
	for turn := range testscale.Turns(t, "scheduler-kills") {
		bad += g.History(t, l.Inbox(), rnd.IntN(3), 1000, 100).Bad
		before, began := newest("batch").ID, time.Now()
		p := l.Start([]string{"CAUCE_FAULT_LOG=" + log}, "up", "--no-produce", "--batch-now")
		if turn == 0 { // how long it takes
			for end := began.Add(2 * time.Minute); newest("batch").ID == before || newest("batch").Status != "ok"; time.Sleep(50 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("no batch: %s", p.Stderr.String())
				}
			}
			took = time.Since(began)
		} else {
			time.Sleep(time.Duration(rnd.Int64N(int64(took))))
		}
		p.Kill()
		p.Wait(time.Minute)
		if turn > 0 {
			hit[lastPhase(log, p.Pid())]++
			if rnd.IntN(2) == 0 {
				check()
			}
		}
	}
	check()
	var list struct{ Runs []run }
	l.JSON(&list, "runs", "-n", "1000")
	interrupted := 0
	for _, r := range list.Runs {
		switch r.Status {
		case "interrupted":
			interrupted++
		case "ok":
		default:
			t.Errorf("run %+v", r)
		}
	}
	t.Logf("REPORT: %d kills by chance %s, %d of them in a run; a batch took %v", sum(hit), byPhase(hit), interrupted-1, took.Round(time.Millisecond))
}
