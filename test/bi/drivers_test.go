package bi

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/test/lab"
)

// TestDriversReadWhatIsWritten has drivers read a table while a stream writes it: the same values by each, in text and
// binary, through cursors and COPY; one version in a transaction; PostgreSQL's classes of errors; reflection.
func TestDriversReadWhatIsWritten(t *testing.T) {
	l, file := knownHistory(t)
	stop := writeOn(t, l)
	s := serveLake(t, l)
	host, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		t.Fatal(err)
	}
	waitForEvents(t, s)
	for _, d := range []struct {
		name    string
		command func(t *testing.T) *exec.Cmd
	}{
		{"Python", func(t *testing.T) *exec.Cmd {
			return exec.Command(prereq.Need(t, "venv"), "drivers.py", host, port, file)
		}},
		{"ADBC", func(t *testing.T) *exec.Cmd {
			return exec.Command(prereq.Need(t, "venv"), "adbc.py", "postgresql", s.url("reader", ""), file)
		}},
		{"JDBC", func(t *testing.T) *exec.Cmd {
			return jdbc(t, "read", "jdbc:postgresql://"+s.addr+"/lake?user=reader", tsv(file))
		}},
		{"node-postgres", func(t *testing.T) *exec.Cmd {
			cmd := exec.Command(prereq.Need(t, "node"), "drivers.cjs", host, port, file)
			cmd.Env = append(os.Environ(), "NODE_PATH="+prereq.Need(t, "node-postgres"))
			return cmd
		}},
		{"ODBC", func(t *testing.T) *exec.Cmd {
			return exec.Command(prereq.Need(t, "venv"), "odbc.py", "read", prereq.Need(t, "psqlodbc"), host, port, file)
		}},
	} {
		t.Run(d.name, func(t *testing.T) { t.Logf("REPORT: %s", output(t, d.command(t))) })
	}
	stop()
}

// waitForEvents waits until the stream has written something.
func waitForEvents(t *testing.T, s *server) {
	t.Helper()
	c := s.connect()
	for deadline := time.Now().Add(2 * time.Minute); count(t, c, "SELECT count(*) FROM unified_events WHERE source = 'stream'") == 0; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the stream writes nothing")
		}
	}
}

// writeOn has a stream write the lake's table, a commit every few events, until the returned function is called.
func writeOn(t *testing.T, l *lab.Lake) (stop func()) {
	t.Helper()
	gen := lab.NewGenerator(testscale.Rand(t), 3)
	events := filepath.Join(t.TempDir(), "events.jsonl")
	gen.Events(t, events, 300)
	stream := l.Start(nil, "run", "stream", "--trigger", "100ms", "--rows-max", "50")
	l.Run("produce", "replay", events)
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(time.Second):
			}
			gen.Events(t, events, 50)
			if _, stderr, code := l.Try("produce", "replay", events); code != 0 {
				t.Errorf("cauce produce replay: %d %s", code, stderr)
				return
			}
		}
	})
	return func() {
		close(done)
		wg.Wait()
		stream.Signal(syscall.SIGTERM)
		if code := stream.Wait(time.Minute); code != 0 {
			t.Errorf("the stream ended with %d: %s", code, stream.Stderr.String())
		}
	}
}

// knownHistory makes a lake with rows that are known, and a file that holds them: as JSON for scripts, and beside it, with
// the ending .tsv, as lines.
func knownHistory(t *testing.T, env ...string) (l *lab.Lake, file string) {
	t.Helper()
	l = lab.NewLake(t)
	l.Env = env
	const rows = 700
	text := "symbol,trade_id,price,qty,quote_qty,time,is_buyer_maker,is_best_match\n"
	want := make([][]any, rows)
	for i := range rows {
		at := time.Date(2024, 8, 19, 23, 58, 0, 0, time.UTC).Add(time.Duration(i) * 333 * time.Millisecond)
		id, price := i+1, fmt.Sprintf("%d.%08d", 60000+i, i*12345%100000000)
		maker := []string{"true", "false"}[i%2]
		text += "BTCUSDT," + strconv.Itoa(id) + "," + price + ",0.5,," + at.Format("2006-01-02T15:04:05.000Z") + "," + maker + ",true\n"
		want[i] = []any{"BTCUSDT-" + strconv.Itoa(id), "BTCUSDT", id, price, at.Format("2006-01-02T15:04:05.000+00:00"), i%2 == 0, at.Format("2006-01-02")}
	}
	if err := os.WriteFile(filepath.Join(l.Inbox(), "historico_2024-08-19.csv"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	l.Run("run", "batch")
	expected, err := json.Marshal(map[string]any{"rows": want, "last": rows})
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "expected.json")
	var lines strings.Builder
	for _, r := range want {
		fmt.Fprintf(&lines, "%v\t%v\t%v\t%v\t%v\t%v\t%v\n", r...)
	}
	for name, text := range map[string][]byte{file: expected, tsv(file): []byte(lines.String())} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return l, file
}

func tsv(file string) string { return strings.TrimSuffix(file, ".json") + ".tsv" }

// output runs a command and gives what it prints; a failure is the test's.
func output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	limit := time.AfterFunc(4*time.Minute, func() { _ = cmd.Process.Kill() })
	defer limit.Stop()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %v\n%s%s", cmd.Args, err, stdout.String(), stderr.String())
	}
	return stdout.String()
}

// jdbc compiles the program JDBC and gives the command that runs it.
func jdbc(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	jars, err := filepath.Glob(filepath.Join(prereq.Need(t, "pgjdbc"), "*.jar"))
	if err != nil {
		t.Fatal(err)
	}
	classes := t.TempDir()
	path := strings.Join(append(jars, classes), string(os.PathListSeparator))
	output(t, exec.Command(prereq.Need(t, "javac"), "-Xlint:all,-try", "-Werror", "-cp", path, "-d", classes, "JDBC.java"))
	return exec.Command(prereq.Need(t, "java"), append([]string{"-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", path, "JDBC"}, args...)...)
}

// The functions with which JDBC and ODBC ask for the catalogue answer as with a PostgreSQL.
func TestMetadataOfDriversIsPostgreSQLs(t *testing.T) {
	theirs := startPostgreSQL(t)
	s := serveLake(t, newShop(t))
	for _, d := range []struct {
		name    string
		command func(t *testing.T, addr string) *exec.Cmd
	}{
		{"JDBC", func(t *testing.T, addr string) *exec.Cmd {
			return jdbc(t, "metadata", "jdbc:postgresql://"+addr+"/lake?user=reader")
		}},
		{"ODBC", func(t *testing.T, addr string) *exec.Cmd {
			host, port, _ := net.SplitHostPort(addr)
			return exec.Command(prereq.Need(t, "venv"), "odbc.py", "metadata", prereq.Need(t, "psqlodbc"), host, port)
		}},
	} {
		t.Run(d.name, func(t *testing.T) {
			want, got := answers(output(t, d.command(t, theirs))), answers(output(t, d.command(t, s.addr)))
			if len(want) < 20 || len(want) != len(got) {
				t.Fatalf("%d calls, %d with a PostgreSQL", len(got), len(want))
			}
			rows := 0
			for call, lines := range want {
				rows += len(lines)
				slices.Sort(lines)
				slices.Sort(got[call])
				if diff := lab.Diff(lines, got[call]); diff != "" {
					t.Errorf("%s\n%s", call, diff)
				}
			}
			t.Logf("REPORT: %d calls of %s with the answers of a PostgreSQL, %d lines", len(want), d.name, rows)
		})
	}
}

var buildOfPostgreSQL = regexp.MustCompile(`15\.18( \([^)]*\))?|15\.0\.18`)

// answers takes what a program prints apart by calls; a call's line begins with #.
func answers(text string) map[string][]string {
	out := map[string][]string{}
	call := ""
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		if strings.HasPrefix(line, "# ") {
			call = line
			out[call] = nil
			continue
		}
		if cells := strings.Split(line, "|"); strings.HasPrefix(call, "# getFunctions") && len(cells) > 3 {
			cells[3] = "" // PostgreSQL's descriptions of its own functions are not in Cauce's catalogue
			line = strings.Join(cells, "|")
		}
		out[call] = append(out[call], normal(buildOfPostgreSQL.ReplaceAllString(line, "15.18")))
	}
	return out
}
