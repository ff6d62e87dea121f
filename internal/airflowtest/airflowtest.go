// Package airflowtest runs a real Apache Airflow (from .cache/airflow, which test/setup.sh gets from PyPI): its API server, its DAG
// processor and its scheduler.
package airflowtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/family"
	"github.com/cauce-data/cauce/internal/loopback"
	"github.com/cauce-data/cauce/internal/prereq"
)

// Environment is what Airflow's programs need: everything below one folder, and nothing asked of the network.
func Environment(dir string) []string {
	return append(os.Environ(),
		"AIRFLOW_HOME="+dir, "AIRFLOW__CORE__DAGS_FOLDER="+filepath.Join(dir, "dags"), "AIRFLOW__CORE__LOAD_EXAMPLES=False",
		"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=sqlite:///"+filepath.Join(dir, "airflow.db"), "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED=False",
		"AIRFLOW__LOGGING__BASE_LOG_FOLDER="+filepath.Join(dir, "logs"), "NO_PROXY=127.0.0.1,localhost", "no_proxy=127.0.0.1,localhost",
		"PYTHONWARNINGS=ignore", "PYTHONDONTWRITEBYTECODE=1",
	)
}

// Server is an Airflow with an API server, a DAG processor and a scheduler, each a process group of its own.
type Server struct {
	Dir string // AIRFLOW_HOME; its DAGs are in dags
	URL string

	t     testing.TB
	bin   string
	env   []string
	token string
	logs  map[string]string
	stops map[string]func(alone bool) // by program
}

// start starts one of Airflow's programs.
func (s *Server) start(words ...string) {
	s.t.Helper()
	log := filepath.Join(s.Dir, words[0]+".log")
	s.logs[words[0]] = log
	f, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(s.bin, words...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.Dir, s.env, f, f
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); _ = f.Close(); close(done) }()
	var started []family.Relative
	dead := false
	stop := func(alone bool) {
		if !dead {
			pid := cmd.Process.Pid
			started, dead = family.Descendants(pid), true // tasks have groups of their own
			_ = syscall.Kill(pid, syscall.SIGKILL)
			if !alone {
				_ = syscall.Kill(-pid, syscall.SIGKILL)
			}
			<-done
		}
		for _, r := range started {
			if !alone {
				r.Kill()
			}
		}
	}
	s.stops[words[0]] = stop
	s.t.Cleanup(func() { stop(false) })
}

// StartScheduler starts a scheduler, as after KillScheduler.
func (s *Server) StartScheduler() { s.start("scheduler") }

// KillScheduler ends the scheduler at once: alone, or with all that it has started.
func (s *Server) KillScheduler(alone bool) { s.stops["scheduler"](alone) }

// Stop ends everything.
func (s *Server) Stop() {
	for _, stop := range s.stops {
		stop(false)
	}
}

// New starts all of them in a folder, with further environment variables ("NAME=value") for what tasks run; they end with the test.
// Without Airflow the test is skipped by name.
func New(t testing.TB, dir string, more ...string) *Server {
	t.Helper()
	address := loopback.Free(t)
	_, port, _ := net.SplitHostPort(address)
	s := &Server{Dir: dir, URL: "http://" + address, t: t, bin: prereq.Need(t, "airflow"), logs: map[string]string{}, stops: map[string]func(bool){}}
	s.env = append(append(Environment(dir), more...),
		"AIRFLOW__CORE__EXECUTION_API_SERVER_URL="+s.URL+"/execution/", "AIRFLOW__API__BASE_URL="+s.URL, "AIRFLOW__API_AUTH__JWT_SECRET=for-this-test-alone-and-long-enough-for-hs512-0123456789abcdef",
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
	s.StartScheduler()
	s.Until("an API", func() bool {
		var token struct {
			Token string `json:"access_token"`
		}
		if s.Call("GET", "/auth/token", nil, &token) != http.StatusCreated {
			return false
		}
		s.token = token.Token
		return true
	})
	return s
}

// Call asks the API; 0 where it does not answer.
func (s *Server) Call(method, path string, body, into any) int {
	s.t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		s.t.Fatal(err)
	}
	req, err := http.NewRequest(method, s.URL+path, bytes.NewReader(b))
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

// Until waits until something is so, ten minutes at most.
func (s *Server) Until(what string, is func() bool) {
	s.t.Helper()
	for end := time.Now().Add(10 * time.Minute); !is(); time.Sleep(time.Second) {
		if time.Now().After(end) {
			s.t.Fatalf("%s: not within ten minutes", what)
		}
	}
}

// Trigger starts a run of the DAG.
func (s *Server) Trigger(dag, date string) (run string) {
	s.t.Helper()
	var r struct {
		ID string `json:"dag_run_id"`
	}
	if code := s.Call("POST", "/api/v2/dags/"+dag+"/dagRuns", map[string]any{"logical_date": date + "T00:00:00Z"}, &r); code != http.StatusOK {
		s.t.Fatalf("a run for %s: %d", date, code)
	}
	return r.ID
}

// Succeeds waits for the end of a run, which must be good.
func (s *Server) Succeeds(dag, run string) {
	s.t.Helper()
	var r struct{ State string }
	s.Until("the end of run "+run, func() bool {
		s.Call("GET", "/api/v2/dags/"+dag+"/dagRuns/"+url.PathEscape(run), nil, &r)
		return r.State == "success" || r.State == "failed"
	})
	if r.State != "success" {
		s.t.Fatalf("run %s: %s", run, r.State)
	}
}

// Picture takes one of a DAG's grid, as a PNG file.
func (s *Server) Picture(dag, path string) {
	s.t.Helper()
	chromium, err := prereq.Lookup("chromium")
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1400,800", "--virtual-time-budget=30000",
		"--user-data-dir="+s.t.TempDir(), "--screenshot="+path, fmt.Sprintf("%s/dags/%s", s.URL, dag))
	cmd.Env = s.env
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Errorf("picture: %v\n%s", err, out)
	}
}
