package main

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/testscale"
)

// TestDemoFiguresAreQueries runs the demo with a seed of its own, repeats each closing command as printed and wants the
// same answer; then it runs what the demo says to try next.
func TestDemoFiguresAreQueries(t *testing.T) {
	testscale.NotAtShort(t, "the first block of README.md runs the demo")
	dir := t.TempDir()
	demo := shell(t, dir, "cauce demo 'my lake' --seed 20240820")
	lines := strings.Split(demo, "\n")
	figures := 0
	for i, line := range lines {
		command, ok := strings.CutPrefix(line, "$ ")
		if !ok {
			continue
		}
		figures++
		var want []string
		for _, l := range lines[i+1:] {
			if l == "" {
				break
			}
			want = append(want, l)
		}
		if got := strings.TrimRight(shell(t, dir, command), "\n"); got != strings.Join(want, "\n") {
			t.Errorf("%s\ngives\n%s\nthe demo printed\n%s", command, got, strings.Join(want, "\n"))
		}
	}
	if figures < 7 {
		t.Errorf("the demo closes with %d figures:\n%s", figures, demo)
	}
	_, next, _ := strings.Cut(demo, "Try next:\n")
	next, live, found := strings.Cut(next, "\n\nKeep it flowing")
	if !found {
		t.Fatalf("the demo does not say what to try next:\n%s", demo)
	}
	for _, command := range strings.Split(next, "\n") {
		if command = strings.TrimSpace(command); command != "" {
			shell(t, dir, command)
		}
	}
	// The long-running commands, together, for a moment; each must end well when it is told to.
	var all strings.Builder
	for _, command := range strings.Split(live, "\n")[1:] {
		if command = strings.TrimSpace(command); command != "" {
			all.WriteString(command + " & ")
		}
	}
	shell(t, dir, freePorts(t, all.String())+`sleep 3; for p in $(jobs -p); do kill $p; wait $p; done`)

	// What the making knows: every live trade is there, nothing is doubled, exactly the bad records are quarantined.
	lake := " --lake 'my lake/lake.yaml' --format csv"
	for sql, want := range map[string]string{
		"SELECT count(*) - count(DISTINCT event_id) AS n FROM unified_events":                            "0",
		"SELECT count(*) AS n FROM unified_events WHERE source = 'history'":                              "35850",
		"SELECT count(*) AS n FROM unified_events WHERE trade_id >= 3700000000 + 6 * 2000":               "3000",
		"SELECT count(*) AS n FROM quarantine":                                                           "150",
		"SELECT sum(n)::BIGINT AS n FROM (SELECT count(*) AS n FROM unified_events GROUP BY event_date)": "",
		"SELECT count(*) AS n FROM unified_events WHERE symbol <> upper(trim(symbol)) OR price <= 0":     "0",
		"SELECT count(*) AS n FROM unified_events WHERE event_date <> event_time::DATE OR price IS NULL": "0",
	} {
		got := strings.TrimSpace(strings.TrimPrefix(shell(t, dir, `cauce query "`+sql+`"`+lake), "n\n"))
		if want != "" && got != want {
			t.Errorf("%s: %s, want %s", sql, got, want)
		}
	}
	if out, err := command(t, dir, "cauce demo 'my lake'"); err == nil || !strings.Contains(out, "not empty") {
		t.Errorf("a second demo in the same folder: %v\n%s", err, out)
	}
}

// freePorts replaces each address of this host in a text by one whose port is free now, the same by the same.
func freePorts(t testing.TB, text string) string {
	t.Helper()
	free := map[string]string{}
	return regexp.MustCompile(`127\.0\.0\.1:\d+`).ReplaceAllStringFunc(text, func(address string) string {
		if free[address] == "" {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			free[address] = l.Addr().String()
		}
		return free[address]
	})
}

// shell runs a command line that must succeed.
func shell(t *testing.T, dir, line string) string {
	t.Helper()
	out, err := command(t, dir, line)
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return out
}

func command(t *testing.T, dir, line string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", line)
	cmd.Dir = dir
	var out, problems strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &problems
	err := cmd.Run()
	if err != nil {
		out.WriteString(problems.String())
	}
	return out.String(), err
}

// TestUpStopsCleanly runs everything in one process against a simulated exchange and ends it with SIGTERM.
func TestUpStopsCleanly(t *testing.T) {
	dir := t.TempDir()
	shell(t, dir, "cauce init .")
	address := freePorts(t, "127.0.0.1:1")
	exchange := exec.CommandContext(t.Context(), "cauce", "simulate", "exchange", "--listen", address, "--rate", "200")
	exchange.Dir = dir
	if err := exchange.Start(); err != nil {
		t.Fatal(err)
	}
	up := exec.CommandContext(t.Context(), "cauce", "up", "--json", "--url", "ws://"+address, "--trigger", "300ms", "--batch-now")
	up.Dir = dir
	var out, problems strings.Builder
	up.Stdout, up.Stderr = &out, &problems
	if err := up.Start(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		got, err := command(t, dir, `cauce query "SELECT count(*) >= 200 AS enough FROM unified_events" --format csv`)
		if err == nil && strings.Contains(got, "true") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("nothing arrives: %v\n%s\n%s", err, got, problems.String())
		}
		time.Sleep(100 * time.Millisecond)
	}
	// A second one of the same lake would read every event once more for nothing: it says who runs.
	if got, err := command(t, dir, "cauce up --no-produce; echo code $?"); err != nil || !strings.Contains(got, "code 2") {
		t.Errorf("a second up: %v\n%s", err, got)
	}
	if got := shell(t, dir, "cauce up --json --no-produce 2>/dev/null || true"); !strings.Contains(got, fmt.Sprintf("as process %d;", up.Process.Pid)) {
		t.Errorf("a second up prints %s", got)
	}
	for _, p := range []*exec.Cmd{up, exchange} {
		if err := p.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	if err := up.Wait(); err != nil {
		t.Errorf("up ends with %v\n%s", err, problems.String())
	}
	if err := exchange.Wait(); err != nil {
		t.Errorf("the exchange ends with %v", err)
	}
	if !strings.HasPrefix(out.String(), `{"streams":[{"source":"live"`) || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("up --json prints %s", out.String())
	}
	got := shell(t, dir, `cauce query "SELECT count(*) = count(DISTINCT event_id) AS ok FROM unified_events" --format csv`)
	if got != "ok\ntrue\n" {
		t.Errorf("after up: %s", got)
	}
	if runs, _ := filepath.Glob(filepath.Join(dir, ".cauce", "runs", "*.json")); len(runs) == 0 {
		t.Error("the batch of up is not in the history of runs")
	}
}
