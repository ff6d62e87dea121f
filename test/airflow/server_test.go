package airflow

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/airflowtest"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/test/lab"
)

// Under scheduler and API server: runs that are triggered by REST succeed, one that is cleared changes nothing, and a
// scheduler that is killed at random moments, alone or with all that it runs, leaves a table that the next one makes right.
func TestSchedulerOfAirflowKilled(t *testing.T) {
	kills := testscale.Count(t, "airflow-kills")
	if kills == 0 {
		t.Log("only make soak starts Airflow's servers")
		return
	}
	s := airflowtest.New(t, t.TempDir())
	l := lab.NewLake(t)
	l.Append("schedule: {batch: {cron: \"0 1 * * *\", retries: 6, backoff: 1s, timeout: 10m}}\n")
	l.Run("airflow", "render", "--out", filepath.Join(s.Dir, "dags"), "--dag-id", "nightly", "--cauce", l.Program())
	s.Until("the DAG", func() bool {
		return s.Call("PATCH", "/api/v2/dags/nightly", map[string]any{"is_paused": false}, nil) == http.StatusOK
	})
	day := time.Date(2024, 8, 19, 0, 0, 0, 0, time.UTC)
	next := func() string { day = day.AddDate(0, 0, 1); return day.Format(time.DateOnly) }
	var runs []string
	rows := 0
	for range 3 {
		d := next()
		trades(t, l, d, 1000*len(runs)+1, 20)
		rows += 20
		runs = append(runs, s.Trigger("nightly", d))
		s.Succeeds("nightly", runs[len(runs)-1])
	}
	n, version, entries := stands(t, l)
	if n != rows {
		t.Fatalf("%d rows, want %d", n, rows)
	}
	if picture := os.Getenv("CAUCE_AIRFLOW_PICTURE"); picture != "" {
		s.Picture("nightly", picture)
	}
	if code := s.Call("POST", "/api/v2/dags/nightly/clearTaskInstances", map[string]any{"dry_run": false, "dag_run_id": runs[1], "only_failed": false, "reset_dag_runs": true}, nil); code != http.StatusOK {
		t.Fatalf("clear: %d", code)
	}
	s.Succeeds("nightly", runs[1])
	if r, v, e := stands(t, l); r != n || v != version || e != entries {
		t.Errorf("a cleared run left %d rows, version %d, %d log entries; before %d, %d, %d", r, v, e, n, version, entries)
	}
	rnd := testscale.Rand(t)
	phases, orphaned := map[string]int{}, 0
	for i := range kills {
		d := next()
		trades(t, l, d, 1000*(i+10)+1, 20)
		rows += 20
		run := s.Trigger("nightly", d)
		wait := time.Duration(rnd.Int64N(int64(15 * time.Second)))
		time.Sleep(wait)
		var tasks struct {
			Instances []struct {
				Task  string `json:"task_id"`
				State string `json:"state"`
			} `json:"task_instances"`
		}
		s.Call("GET", "/api/v2/dags/nightly/dagRuns/"+url.PathEscape(run)+"/taskInstances", nil, &tasks)
		// Alone it leaves its tasks at work, which the next one takes for its own or for dead, and runs again beside them.
		alone := rnd.IntN(2) == 0
		if alone {
			orphaned++
		}
		s.KillScheduler(alone)
		for _, x := range tasks.Instances {
			if x.State == "running" || x.State == "queued" {
				phases[x.Task+" "+x.State]++
			}
		}
		s.StartScheduler()
		s.Succeeds("nightly", run)
		if n, _, _ := stands(t, l); n != rows {
			t.Fatalf("kill %d after %v: %d rows, want %d", i+1, wait, n, rows)
		}
	}
	var counted []string
	for _, name := range slices.Sorted(maps.Keys(phases)) {
		counted = append(counted, fmt.Sprintf("%s %d", name, phases[name]))
	}
	t.Logf("REPORT: three runs by REST, one of them cleared; %d kills, %d of the scheduler alone and the others with all that it ran; tasks queued or running then: %s", kills, orphaned, strings.Join(counted, ", "))
}
