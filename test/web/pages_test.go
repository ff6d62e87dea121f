package web

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/loopback"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/pipeline"
	"github.com/cauce-data/cauce/schedule"
	"github.com/cauce-data/cauce/test/lab"
)

// PicturesEnv names a folder that gets a picture of every page.
const PicturesEnv = "CAUCE_PICTURES"

// pages starts `cauce up` with its pages and gives their address without the last slash.
func pages(t *testing.T, l *lab.Lake) (string, *lab.Process) {
	t.Helper()
	return open(t, l, "up", "--no-produce", "--no-repair", "--trigger", "200ms")
}

// open starts a command that serves pages.
func open(t *testing.T, l *lab.Lake, command ...string) (string, *lab.Process) {
	t.Helper()
	address := loopback.Free(t)
	p := l.Start(nil, append(command, "--http-listen", address)...)
	for until := time.Now().Add(time.Minute); time.Now().Before(until) && p.Running(); time.Sleep(50 * time.Millisecond) {
		r, err := http.Get("http://" + address + "/api/session")
		if err != nil {
			continue
		}
		if err := r.Body.Close(); err == nil && r.StatusCode == http.StatusOK {
			return "http://" + address, p
		}
	}
	p.Kill()
	p.Wait(time.Minute)
	t.Fatalf("no pages are served: %s", p.Stderr.String())
	return "", nil
}

// roles are those of a lake whose pages want a login.
const roles = `views:
  prices: SELECT symbol, price FROM unified_events
roles:
  all: {password: "${env:ALL}"}
  viewer: {password: "${env:VIEWER}", views: [prices]}
`

const badRow = "BTCUSDT,9999,not-a-price,0.25,,2024-08-20T00:00:01Z,true,true\n"

func history(t *testing.T, path string, first, n int, more string) {
	t.Helper()
	var b strings.Builder
	b.WriteString("symbol,trade_id,price,qty,quote_qty,time,is_buyer_maker,is_best_match\n")
	for i := range n {
		at := time.Date(2024, 8, 20, 0, 0, 0, 0, time.UTC).Add(time.Duration(first+i) * 10 * time.Second)
		fmt.Fprintf(&b, "BTCUSDT,%d,%.2f,0.25,,%s,true,true\n", first+i, 60000+400*math.Sin(float64(first+i)/150)+90*math.Sin(float64(first+i)/11), at.Format(time.RFC3339))
	}
	if err := os.WriteFile(path, []byte(b.String()+more), 0o600); err != nil {
		t.Fatal(err)
	}
}

// full serves a lake in which every page has something to show: history and stream, quarantine, a ledger, runs that went well
// and one that did not.
func full(t *testing.T) string {
	t.Helper()
	l := lab.NewLake(t)
	dir := l.Path("shown")
	l.Run("demo", dir)
	lake := []string{"--lake", filepath.Join(dir, "lake.yaml")}
	broken := filepath.Join(dir, "data", "raw", "batch", "historico_2024-08-22.csv.gz")
	if err := os.WriteFile(broken, []byte("this is no gzip"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := l.Try(append(lake, "run", "batch", "--run-id", "nightly")...); code != 1 {
		t.Fatalf("a batch with an unreadable file: exit code %d, %s", code, errs)
	}
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	l.Run(append(lake, "run", "batch")...)
	l.Run(append(lake, "run", "maintenance")...)
	url, _ := open(t, l, append(lake, "serve", "--pg-listen", "127.0.0.1:0")...)
	return url
}

const heldRun = "held"

// holdRun runs a batch that does nothing, in this process: it logs a line, another one when the file more is there, and succeeds
// when end is there. The caller calls what it returns.
func holdRun(t *testing.T, dir, more, end string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	began, done := make(chan struct{}), make(chan struct{})
	wait := func(path string) {
		for ctx.Err() == nil {
			if _, err := os.Stat(path); err == nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	go func() {
		defer close(done)
		_, err := schedule.Do(ctx, schedule.Task{Name: pipeline.RunBatch, Run: func(_ context.Context, run *schedule.Run) error {
			run.Log.Info("the first part")
			close(began)
			wait(more)
			for i := range 100 { // more than the page shows at once
				run.Log.Info("the second part", "line", i)
			}
			wait(end)
			return ctx.Err()
		}}, schedule.DoOptions{Dir: dir, ID: heldRun})
		if err != nil && ctx.Err() == nil {
			t.Error(err)
		}
	}()
	select {
	case <-began:
	case <-time.After(time.Minute):
		t.Error("the run does not begin")
	}
	return func() {
		cancel()
		<-done
	}
}

// TestPages walks through every page in a browser: light and dark, wide and narrow, with axe looking for what keeps
// people out; figures are those of the files, and a file that arrives is seen without a reload.
func TestPages(t *testing.T) {
	chromium, python := prereq.Need(t, "chromium"), prereq.Need(t, "venv")
	l := lab.NewLake(t)
	first, second := filepath.Join(t.TempDir(), "historico_2024-08-20.csv"), filepath.Join(t.TempDir(), "historico_2024-08-21.csv")
	history(t, first, 1, 1500, badRow)
	history(t, second, 2001, 25, "")
	l.Run("land", first)
	l.Run("run", "batch")
	broken := filepath.Join(l.Inbox(), "historico_2024-08-22.csv.gz")
	l.Write("data/raw/batch/historico_2024-08-22.csv.gz", "this is no gzip")
	if _, errs, code := l.Try("run", "batch", "--run-id", "failed"); code != 1 || !strings.Contains(errs, "historico_2024-08-22.csv.gz") {
		t.Fatalf("a batch with an unreadable file: exit code %d, %s", code, errs)
	}
	more, end := l.Path("more"), l.Path("end")
	defer holdRun(t, l.Path(".cauce/runs"), more, end)()
	var status struct {
		Tables []struct {
			Name    string
			Version int64
		}
	}
	l.JSON(&status, "status", "--no-lag")
	want, err := json.Marshal(map[string]any{
		"rows": 1500, "more": 25, "version": status.Tables[0].Version, "raw": strings.TrimSpace(badRow),
		"failed": "failed", "broken": broken, "held": heldRun, "log_more": more, "log_end": end,
	})
	if err != nil {
		t.Fatal(err)
	}
	expected := filepath.Join(t.TempDir(), "expected.json")
	if err := os.WriteFile(expected, want, 0o600); err != nil {
		t.Fatal(err)
	}
	url, up := pages(t, l)
	shown := full(t)
	guarded := lab.NewLake(t)
	guarded.Env = []string{"VIEWER=correct horse", "ALL=battery staple"}
	guarded.Append(roles)
	guarded.Run("land", first)
	guarded.Run("run", "batch")
	signIn, _ := pages(t, guarded)
	bin := l.Program()
	land := bin + " land --lake " + l.Path("lake.yaml") + " " + second + " && " + bin + " run batch --lake " + l.Path("lake.yaml")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	args := []string{"pages.py", chromium, url, signIn, shown, expected, land}
	if dir := os.Getenv(PicturesEnv); dir != "" {
		args = append(args, dir)
	}
	out, err := exec.CommandContext(ctx, python, args...).CombinedOutput()
	if t.Logf("%s", out); err != nil {
		t.Error(err)
	}
	up.Signal(syscall.SIGTERM)
	if code := up.Wait(time.Minute); code != 0 {
		t.Errorf("up ended with %d: %s", code, up.Stderr.String())
	}
}

// TestPagesRefuse asks the pages for what only pages of other sites would ask.
func TestPagesRefuse(t *testing.T) {
	l := lab.NewLake(t)
	l.Run("run", "batch", "--run-id", "first")
	const run = "first"
	url, _ := pages(t, l)
	own := func(r *http.Request) {
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Origin", url)
	}
	ask := func(method, path string, change func(*http.Request)) (int, string, http.Header) {
		r, err := http.NewRequestWithContext(t.Context(), method, url+path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		if change != nil {
			change(r)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body), resp.Header
	}
	for _, c := range []struct {
		name, method, path string
		change             func(*http.Request)
		code               int
	}{
		{"a page", "GET", "/table/unified_events", nil, 200},
		{"a page that is none", "GET", "/nosuch", nil, 404},
		{"a path out of the assets", "GET", "/assets/%2e%2e/web.go", nil, 404},
		{"another site's name for this address", "GET", "/api/status", func(r *http.Request) { r.Host = "evil.example" }, 421},
		{"a change without an origin", "POST", "/api/quarantine/retry", func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }, 403},
		{"a change of another origin", "POST", "/api/quarantine/retry", func(r *http.Request) {
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Origin", "http://evil.example")
		}, 403},
		{"a form of the same origin", "POST", "/api/quarantine/retry", func(r *http.Request) { r.Header.Set("Origin", url) }, 403},
		{"a retry without an origin", "POST", "/api/runs/" + run + "/retry", func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }, 403},
		{"a retry of another origin", "POST", "/api/runs/" + run + "/retry", func(r *http.Request) {
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Origin", "http://evil.example")
		}, 403},
		{"a retry by a form", "POST", "/api/runs/" + run + "/retry", func(r *http.Request) { r.Header.Set("Origin", url) }, 403},
		{"a retry by reading", "GET", "/api/runs/" + run + "/retry", nil, 404},
		{"a retry of what has succeeded", "POST", "/api/runs/" + run + "/retry", own, 409},
		{"a retry of a run that is none", "POST", "/api/runs/nosuch/retry", own, 404},
		{"a log from no number", "GET", "/api/runs/" + run + "/log?from=x", nil, 400},
		{"a log of a run that is none", "GET", "/api/runs/..%2f..%2flake.yaml/log", nil, 404},
		{"a version that is no number", "GET", "/api/table/unified_events/rows?limit=-1", nil, 400},
		{"a table that is none", "GET", "/api/table/x'y", nil, 400},
		{"a run that is none", "GET", "/api/runs/..%2f..%2flake.yaml", nil, 404},
	} {
		code, body, h := ask(c.method, c.path, c.change)
		if code != c.code {
			t.Errorf("%s: %d %s, want %d", c.name, code, body, c.code)
		}
		if p := h.Get("Content-Security-Policy"); !strings.Contains(p, "default-src 'none'") || strings.Contains(p, "unsafe") {
			t.Errorf("%s: policy %q", c.name, p)
		}
	}
	for name, more := range map[string]string{"no roles": "", "no serve.tls": roles} {
		l := lab.NewLake(t)
		l.Env = []string{"VIEWER=correct horse", "ALL=battery staple"}
		l.Append(more)
		if _, errs, code := l.Try("up", "--http-listen", "0.0.0.0:0", "--no-produce"); code != 2 || !strings.Contains(errs, name) {
			t.Errorf("an address that others reach, with %s: exit code %d, %s", name, code, errs)
		}
	}
}
