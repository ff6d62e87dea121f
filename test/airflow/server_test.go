package airflow

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/test/lab"
)

// server is an Airflow with an API server, a DAG processor and a scheduler, each a process group of its own.
type server struct {
	t     *testing.T
	dir   string
	bin   string
	env   []string
	url   string
	token string
	logs  map[string]string
}

// start starts one of Airflow's programs. kill ends it at once: alone, or with all that it has started.
func (s *server) start(words ...string) (kill func(alone bool)) {
	s.t.Helper()
	log := filepath.Join(s.dir, words[0]+".log")
	s.logs[words[0]] = log
	f, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(s.bin, words...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.dir, s.env, f, f
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); _ = f.Close(); close(done) }()
	var family []lab.Relative
	dead := false
	kill = func(alone bool) {
		if !dead {
			pid := cmd.Process.Pid
			family, dead = lab.Descendants(pid), true // tasks have groups of their own
			_ = syscall.Kill(pid, syscall.SIGKILL)
			if !alone {
				_ = syscall.Kill(-pid, syscall.SIGKILL)
			}
			<-done
		}
		for _, r := range family {
			if !alone {
				r.Kill()
			}
		}
	}
	s.t.Cleanup(func() { kill(false) })
	return kill
}

// newServer starts all of them.
func newServer(t *testing.T) (s *server, killScheduler func(alone bool)) {
	t.Helper()
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	_ = l.Close()
	s = &server{t: t, dir: dir, bin: prereq.Need(t, "airflow"), url: "http://" + address, logs: map[string]string{}}
	s.env = append(environment(dir),
		"AIRFLOW__CORE__EXECUTION_API_SERVER_URL="+s.url+"/execution/", "AIRFLOW__API__BASE_URL="+s.url, "AIRFLOW__API_AUTH__JWT_SECRET=for-this-test-alone-and-long-enough-for-hs512-0123456789abcdef",
		"AIRFLOW__API__SECRET_KEY=for-this-test-alone", "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS=True", "AIRFLOW__CORE__EXECUTOR=LocalExecutor", "AIRFLOW__CORE__PARALLELISM=2",
		"AIRFLOW__API__WORKERS=1", "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL=5", "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES=1",
		// What a dead scheduler leaves behind is found soon.
		"AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT=15", "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL=5",
		"AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC=3", "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL=5", "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD=10",
	)
	t.Cleanup(func() {
		for name, log := range s.logs {
			if b, err := os.ReadFile(log); err == nil && t.Failed() {
				t.Logf("%s:\n%s", name, b[max(0, len(b)-6000):])
			}
		}
	})
	migrate := exec.Command(s.bin, "db", "migrate")
	migrate.Dir, migrate.Env = dir, s.env
	if out, err := migrate.CombinedOutput(); err != nil {
		t.Fatalf("db migrate: %v\n%s", err, out)
	}
	s.start("api-server", "--host", "127.0.0.1", "--port", port)
	s.start("dag-processor")
	killScheduler = s.start("scheduler")
	s.until("an API", func() bool {
		var token struct {
			Token string `json:"access_token"`
		}
		if s.call("GET", "/auth/token", nil, &token) != http.StatusCreated {
			return false
		}
		s.token = token.Token
		return true
	})
	return s, killScheduler
}

// call asks the API; 0 where it does not answer.
func (s *server) call(method, path string, body, into any) int {
	s.t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		s.t.Fatal(err)
	}
	req, err := http.NewRequest(method, s.url+path, bytes.NewReader(b))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if s.token != "" {
		req.Header.Set("Authorization", "Bearer "+s.token)
	}
	resp, err := (&http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0
	}
	if into != nil && resp.StatusCode/100 == 2 {
		if err := json.Unmarshal(answer, into); err != nil {
			s.t.Fatalf("%s %s: %v in %q", method, path, err, answer)
		}
	}
	return resp.StatusCode
}

func (s *server) until(what string, is func() bool) {
	s.t.Helper()
	for end := time.Now().Add(10 * time.Minute); !is(); time.Sleep(time.Second) {
		if time.Now().After(end) {
			s.t.Fatalf("%s: not within ten minutes", what)
		}
	}
}

// trigger starts a run of the DAG.
func (s *server) trigger(dag, date string) (run string) {
	s.t.Helper()
	var r struct {
		ID string `json:"dag_run_id"`
	}
	if code := s.call("POST", "/api/v2/dags/"+dag+"/dagRuns", map[string]any{"logical_date": date + "T00:00:00Z"}, &r); code != http.StatusOK {
		s.t.Fatalf("a run for %s: %d", date, code)
	}
	return r.ID
}

// succeeds waits for the end of a run, which must be good.
func (s *server) succeeds(dag, run string) {
	s.t.Helper()
	var r struct{ State string }
	s.until("the end of run "+run, func() bool {
		s.call("GET", "/api/v2/dags/"+dag+"/dagRuns/"+url.PathEscape(run), nil, &r)
		return r.State == "success" || r.State == "failed"
	})
	if r.State != "success" {
		s.t.Fatalf("run %s: %s", run, r.State)
	}
}

// Under scheduler and API server: runs that are triggered by REST succeed, one that is cleared changes nothing, and a
// scheduler that is killed at random moments, alone or with all that it runs, leaves a table that the next one makes right.
func TestSchedulerOfAirflowKilled(t *testing.T) {
	kills := testscale.Count(t, "airflow-kills")
	if kills == 0 {
		t.Log("only make soak starts Airflow's servers")
		return
	}
	s, killScheduler := newServer(t)
	l := lab.NewLake(t)
	l.Append("schedule: {batch: {cron: \"0 1 * * *\", retries: 6, backoff: 1s, timeout: 10m}}\n")
	l.Run("airflow", "render", "--out", filepath.Join(s.dir, "dags"), "--dag-id", "nightly", "--cauce", l.Program())
	s.until("the DAG", func() bool {
		return s.call("PATCH", "/api/v2/dags/nightly", map[string]any{"is_paused": false}, nil) == http.StatusOK
	})
	day := time.Date(2024, 8, 19, 0, 0, 0, 0, time.UTC)
	next := func() string { day = day.AddDate(0, 0, 1); return day.Format(time.DateOnly) }
	var runs []string
	rows := 0
	for range 3 {
		d := next()
		trades(t, l, d, 1000*len(runs)+1, 20)
		rows += 20
		runs = append(runs, s.trigger("nightly", d))
		s.succeeds("nightly", runs[len(runs)-1])
	}
	n, version, entries := stands(t, l)
	if n != rows {
		t.Fatalf("%d rows, want %d", n, rows)
	}
	if picture := os.Getenv("CAUCE_AIRFLOW_PICTURE"); picture != "" {
		s.picture(picture)
	}
	if code := s.call("POST", "/api/v2/dags/nightly/clearTaskInstances", map[string]any{"dry_run": false, "dag_run_id": runs[1], "only_failed": false, "reset_dag_runs": true}, nil); code != http.StatusOK {
		t.Fatalf("clear: %d", code)
	}
	s.succeeds("nightly", runs[1])
	if r, v, e := stands(t, l); r != n || v != version || e != entries {
		t.Errorf("a cleared run left %d rows, version %d, %d log entries; before %d, %d, %d", r, v, e, n, version, entries)
	}
	rnd := testscale.Rand(t)
	phases, orphaned := map[string]int{}, 0
	for i := range kills {
		d := next()
		trades(t, l, d, 1000*(i+10)+1, 20)
		rows += 20
		run := s.trigger("nightly", d)
		wait := time.Duration(rnd.Int64N(int64(15 * time.Second)))
		time.Sleep(wait)
		var tasks struct {
			Instances []struct {
				Task  string `json:"task_id"`
				State string `json:"state"`
			} `json:"task_instances"`
		}
		s.call("GET", "/api/v2/dags/nightly/dagRuns/"+url.PathEscape(run)+"/taskInstances", nil, &tasks)
		// Alone it leaves its tasks at work, which the next one takes for its own or for dead, and runs again beside them.
		alone := rnd.IntN(2) == 0
		if alone {
			orphaned++
		}
		killScheduler(alone)
		for _, x := range tasks.Instances {
			if x.State == "running" || x.State == "queued" {
				phases[x.Task+" "+x.State]++
			}
		}
		killScheduler = s.start("scheduler")
		s.succeeds("nightly", run)
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

// picture takes one of the grid.
func (s *server) picture(path string) {
	s.t.Helper()
	chromium, err := prereq.Lookup("chromium")
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1400,800", "--virtual-time-budget=30000",
		"--user-data-dir="+s.t.TempDir(), "--screenshot="+path, fmt.Sprintf("%s/dags/nightly", s.url))
	cmd.Env = s.env
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Errorf("picture: %v\n%s", err, out)
	}
}
