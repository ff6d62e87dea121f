package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/live"
	"github.com/cauce-data/cauce/internal/lockbuf"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/internal/testscale"
)

// ask gives the answer of an HTTP server; code 0: there is none.
func ask(url string) (code int, body string) {
	resp, err := http.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

// samples reads an answer of /metrics: values by series.
func samples(text string) map[string]float64 {
	out := map[string]float64{}
	for line := range strings.Lines(text) {
		if i := strings.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			var v float64
			if _, err := fmt.Sscan(line[i+1:], &v); err == nil {
				out[line[:i]] = v
			}
		}
	}
	return out
}

// TestMonitoring watches `cauce up` from outside: it is not ready, and says why, while the exchange is away; it counts
// what the table gets; what alert rules and dashboard ask for is served; its log is JSON.
func TestMonitoring(t *testing.T) {
	testscale.NotAtShort(t, "rates are of seconds")
	dir := t.TempDir()
	shell(t, dir, "cauce init .")
	file := filepath.Join(dir, "lake.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	address, listen := freePorts(t, "127.0.0.1:1"), freePorts(t, "127.0.0.1:1")
	lake := strings.Replace(string(text), "    produce: ", "    repair: {kind: binance, every: 1s}\n    produce: ", 1)
	if err := os.WriteFile(file, []byte(lake+"metrics: {listen: "+listen+"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	start := func(args ...string) (*exec.Cmd, *lockbuf.Buffer) {
		t.Helper()
		cmd, log := exec.CommandContext(t.Context(), "cauce", args...), &lockbuf.Buffer{}
		cmd.Dir, cmd.Stderr = dir, log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd, log
	}
	up, log := start("up", "--url", "ws://"+address, "--trigger", "100ms", "--log-format", "json")
	until := func(what string, ok func() (bool, string)) {
		t.Helper()
		for deadline := time.Now().Add(40 * time.Second); ; time.Sleep(100 * time.Millisecond) {
			good, got := ok()
			if good {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %s\n%s", what, got, log.String())
			}
		}
	}
	until("not ready without an exchange", func() (bool, string) {
		code, body := ask("http://" + listen + "/readyz")
		var r readyReport
		if code != http.StatusServiceUnavailable || json.Unmarshal([]byte(body), &r) != nil || r.Ready {
			return false, body
		}
		producer, stream := false, false
		for _, p := range r.Parts {
			producer = producer || p.Name == "producer live" && !p.Ready && strings.Contains(p.Why, "has not connected")
			stream = stream || p.Name == "stream live" && p.Ready && p.Why == ""
		}
		return producer && stream, body
	})
	if code, body := ask("http://" + listen + "/healthz"); code != http.StatusOK || !strings.Contains(body, `"ok"`) {
		t.Errorf("healthz: %d %s", code, body)
	}
	exchange, _ := start("simulate", "exchange", "--listen", address, "--rate", "300", "--malformed-every", "40", "--unknown-every", "60", "--lose-every", "90")
	until("ready", func() (bool, string) {
		code, body := ask("http://" + listen + "/readyz")
		return code == http.StatusOK, body
	})
	var page string
	var m map[string]float64
	until("everything is counted", func() (bool, string) {
		_, page = ask("http://" + listen + "/metrics")
		m = samples(page)
		for _, s := range []string{
			`cauce_source_rows_total{outcome="inserted",source="live"}`, `cauce_source_quarantined_total{rule="structure",source="live"}`,
			`cauce_producer_events_total{source="live"}`, `cauce_table_files{table="unified_events"}`, `cauce_buffer_messages{topic="crypto_trades"}`,
			`cauce_epoch_phase_seconds_count{phase="locate",source="live"}`, `cauce_maintenance_runs_total{result="ok",table="unified_events"}`,
			`cauce_source_epochs_total{kind="repair",source="live"}`, `process_resident_memory_bytes`,
			`cauce_table_commits_total{table="quarantine"}`, `cauce_table_files_added_total{table="quarantine"}`, `cauce_table_bytes_added_total{table="quarantine"}`,
		} {
			if m[s] == 0 {
				return false, s + " is 0 in\n" + page
			}
		}
		_, seen := m[`cauce_ledger_missing{table="unified_events"}`]
		_, lag := m[`cauce_source_lag_seconds{source="live"}`]
		return seen && lag, page
	})
	sum := 0.0
	for _, o := range outcomes {
		sum += m[fmt.Sprintf(`cauce_source_rows_total{outcome=%q,source="live"}`, o)]
	}
	if read := m[`cauce_source_records_read_total{source="live"}`]; sum != read {
		t.Errorf("%v records were read, but %v rows have an outcome", read, sum)
	}
	served := filepath.Join(t.TempDir(), "metrics.txt")
	if err := os.WriteFile(served, []byte(page), 0o600); err != nil {
		t.Fatal(err)
	}
	monitoring := filepath.Join(prereq.Root(), "deploy", "monitoring")
	check := exec.CommandContext(t.Context(), "go", "run", "-C", filepath.Join(prereq.Root(), "tools", "promcheck"), ".",
		served, filepath.Join(monitoring, "alerts.yaml"), filepath.Join(monitoring, "dashboard.json"))
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("alert rules and dashboard: %v\n%s", err, out)
	} else {
		t.Logf("%s", out)
	}

	// Another process sees lag and throughput too.
	var st struct {
		Sources []struct {
			Name   string
			Lag    *lagStatus
			Recent *struct {
				Records   int64
				PerSecond float64 `json:"per_second"`
			}
		}
	}
	if err := json.Unmarshal([]byte(shell(t, dir, "cauce status --json")), &st); err != nil {
		t.Fatal(err)
	}
	for _, s := range st.Sources {
		if s.Name == "live" && (s.Lag == nil || s.Lag.Error != "" || s.Recent == nil || s.Recent.PerSecond <= 0 || s.Recent.Records <= 0) {
			t.Errorf("status of live: %+v, %+v", s.Lag, s.Recent)
		}
	}
	for _, p := range []*exec.Cmd{up, exchange} {
		if err := p.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	if err := up.Wait(); err != nil {
		t.Errorf("up ends with %v\n%s", err, log.String())
	}
	_ = exchange.Wait()
	for s := bufio.NewScanner(strings.NewReader(log.String())); s.Scan(); {
		var line struct {
			Time  time.Time
			Level string
			Msg   string
		}
		if err := json.Unmarshal(s.Bytes(), &line); err != nil || line.Msg == "" || line.Time.IsZero() {
			t.Fatalf("a line of the log is %q", s.Text())
		}
	}
	// What was not in the table when the process ended waits: status counts it without one that runs.
	got := shell(t, dir, "cauce produce replay events.jsonl --json >/dev/null 2>&1 || true; echo '{\"e\":\"trade\",\"s\":\"A\",\"t\":1,\"p\":\"1\",\"q\":\"1\",\"T\":1,\"m\":true}' > e.jsonl; cauce produce replay e.jsonl >/dev/null; cauce status --json")
	if err := json.Unmarshal([]byte(got), &st); err != nil {
		t.Fatal(err)
	}
	for _, s := range st.Sources {
		if s.Name == "live" && (s.Lag == nil || s.Lag.Records < 1) {
			t.Errorf("status of live with an event that waits: %+v", s.Lag)
		}
	}
}

// TestNothingIsServedUnasked: without the flag or the key of the lake file there is no listener, and the monitor that is
// not there takes every call.
func TestNothingIsServedUnasked(t *testing.T) {
	a := &app{stderr: io.Discard}
	m, err := a.monitor("")
	if m != nil || err != nil {
		t.Fatalf("%v, %v", m, err)
	}
	m.begin("x", nil)
	m.report("x", nil)
	m.restarted("x", io.EOF)
	m.produce("x", nil)
	m.watchStream(t.Context(), nil, nil)
	m.watchBuffer(t.Context(), nil)
	m.watchTables(t.Context(), nil)
	if m.observer().Epoch != nil {
		t.Error("somebody listens")
	}
	m.Close()
	if _, err := a.monitor("127.0.0.1:no"); exitCode(err) != exitUsage {
		t.Errorf("a bad address: %v", err)
	}
}

// TestReadinessSaysWhy: what is not ready, since when and why; profiles are served on loopback only.
func TestReadinessSaysWhy(t *testing.T) {
	a := &app{stderr: io.Discard}
	m, err := a.monitor("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	url := "http://" + m.addr.String()
	m.begin("stream a", nil)
	m.begin("producer a", func() string { return producerStats{Stats: live.Stats{Connected: true}}.why() })
	expect := func(code int, want string) {
		t.Helper()
		if got, body := ask(url + "/readyz"); got != code || !strings.Contains(body, want) {
			t.Errorf("%d %s, want %d %s", got, body, code, want)
		}
	}
	expect(http.StatusServiceUnavailable, `{"name":"stream a","ready":false,"why":"`+starting)
	m.report("stream a", nil)
	expect(http.StatusOK, `"ready":true`)
	m.restarted("stream a", fmt.Errorf("disk full"))
	expect(http.StatusServiceUnavailable, `"why":"disk full"`)
	if _, page := ask(url + "/metrics"); samples(page)[`cauce_part_restarts_total{part="stream a"}`] != 1 || samples(page)[`cauce_part_ready{part="producer a"}`] != 1 {
		t.Errorf("metrics:\n%s", page)
	}
	if code, _ := ask(url + "/debug/pprof/"); code != http.StatusOK {
		t.Errorf("profiles: %d", code)
	}
}
