package airflow

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/airflowtest"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/internal/sparktest"
	"github.com/cauce-data/cauce/test/lab"
)

// home is an Airflow with a database and a folder of DAGs.
type home struct {
	t    *testing.T
	dags string
	in   io.Writer
	out  *bufio.Scanner
	log  bytes.Buffer
	mu   sync.Mutex // guards log
}

// answer is how a command of Airflow ended, and how the newest run of its DAG stands.
type answer struct {
	Error  string
	Run    string
	State  string
	Tasks  map[string]task
	Events int // of assets
	// Of the timetable:
	RunAfter, Start, End string
	Seconds              float64 // that a run may take
}

type task struct {
	State string
	Tries int
}

func (h *home) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.log.Write(b)
}

// newHome starts an Airflow that takes commands.
func newHome(t *testing.T) *home {
	t.Helper()
	python := filepath.Join(filepath.Dir(prereq.Need(t, "airflow")), "python")
	dir := t.TempDir()
	h := &home{t: t, dags: filepath.Join(dir, "dags")}
	if err := os.MkdirAll(h.dags, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, filepath.Join(prereq.Root(), "test", "airflow", "commands.py"))
	cmd.Env, cmd.Stderr = airflowtest.Environment(dir), h
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h.in, h.out = in, bufio.NewScanner(out)
	h.out.Buffer(nil, 1<<20)
	limit := time.AfterFunc(30*time.Minute, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() {
		limit.Stop()
		_ = in.Close()
		_ = cmd.Wait()
		if t.Failed() {
			h.mu.Lock()
			defer h.mu.Unlock()
			b := h.log.Bytes()
			t.Logf("Airflow says:\n%s", b[max(0, len(b)-20_000):])
		}
	})
	if a := h.run("db", "migrate"); a.Error != "" {
		t.Fatal(a.Error)
	}
	return h
}

// run runs a command of Airflow.
func (h *home) run(words ...string) answer {
	h.t.Helper()
	line, err := json.Marshal(words)
	if err != nil {
		h.t.Fatal(err)
	}
	if _, err := fmt.Fprintf(h.in, "%s\n", line); err != nil {
		h.t.Fatal(err)
	}
	if !h.out.Scan() {
		h.t.Fatalf("airflow %s: it ended without an answer", strings.Join(words, " "))
	}
	var raw struct {
		answer
		RunAfter string `json:"run_after"`
	}
	if err := json.Unmarshal(h.out.Bytes(), &raw); err != nil {
		h.t.Fatalf("airflow %s: %v in %q", strings.Join(words, " "), err, h.out.Bytes())
	}
	raw.answer.RunAfter = raw.RunAfter
	return raw.answer
}

// test runs `airflow dags test`, which must end in a state, with each task as it is told: "state" or "state*tries".
func (h *home) test(dag, date, state string, tasks map[string]string) answer {
	h.t.Helper()
	a := h.run("dags", "test", dag, date)
	if a.State != state || (a.Error == "") != (state == "success") {
		h.t.Fatalf("%s %s: %s (%s), want %s: %v", dag, date, a.State, a.Error, state, a.Tasks)
	}
	for name, want := range tasks {
		got := a.Tasks[name]
		if !strings.Contains(want, "*") {
			want += "*1"
		}
		if s := fmt.Sprintf("%s*%d", got.State, max(got.Tries, 1)); s != want {
			h.t.Errorf("%s %s: task %s is %s, want %s", dag, date, name, s, want)
		}
	}
	if h.t.Failed() {
		h.t.FailNow()
	}
	return a
}

const header = "symbol,trade_id,price,qty,quote_qty,time,is_buyer_maker,is_best_match\n"

// trades lands a file of a day with some trades.
func trades(t *testing.T, l *lab.Lake, day string, from, n int) {
	t.Helper()
	var b strings.Builder
	b.WriteString(header)
	at, err := time.Parse(time.DateOnly, day)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		fmt.Fprintf(&b, "BTCUSDT,%d,59000.5,0.25,1,%d,True,True\n", from+i, at.UnixMilli()+int64(i))
	}
	l.Write("data/raw/batch/historico_"+day+".csv", b.String())
}

// stands tells the number of rows, the table's version and the number of files in its log.
func stands(t *testing.T, l *lab.Lake) (rows, version, entries int) {
	t.Helper()
	var q struct {
		Rows    []struct{ N int }
		Version int
	}
	l.JSON(&q, "query", "SELECT count(*) AS n FROM unified_events")
	log, err := filepath.Glob(filepath.Join(l.Table(), "_delta_log", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	return q.Rows[0].N, q.Version, len(log)
}

// hook is a webhook that keeps what it is sent.
type hook struct {
	*httptest.Server
	mu   sync.Mutex
	sent []map[string]any
}

func newHook(t *testing.T) *hook {
	h := &hook{}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var doc map[string]any
		if err := json.NewDecoder(r.Body).Decode(&doc); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.sent = append(h.sent, doc)
	}))
	t.Cleanup(h.Close)
	return h
}

const scheduled = "schedule:\n  timezone: Europe/Madrid\n  batch: {cron: \"0 1 * * *\", retries: 2, backoff: 1s, timeout: 10m}\n"

// A batch on Airflow: each night reads what is new and nothing else, a try that dies is tried again, data that break a
// rule are not, and an interval that is run again changes nothing.
func TestDagOfABatch(t *testing.T) {
	h, hook := newHome(t), newHook(t)
	alerts := "  alerts: {url: \"" + hook.URL + "\"}\n"
	all := func(state string) map[string]string {
		return map[string]string{"new_files": state, "batch": state, "checks": state, "publish": state, "optimize": state}
	}

	nightly := lab.NewLake(t)
	nightly.Append(scheduled + alerts)
	nightly.Run("airflow", "render", "--out", h.dags, "--dag-id", "nightly", "--cauce", nightly.Program())
	trades(t, nightly, "2024-08-19", 1, 30)
	if a := h.test("nightly", "2024-08-19", "success", all("success")); a.Events != 1 {
		t.Errorf("%d events of assets after the first night", a.Events)
	}
	if rows, _, _ := stands(t, nightly); rows != 30 {
		t.Fatalf("%d rows after the first night", rows)
	}
	trades(t, nightly, "2024-08-20", 101, 12)
	h.test("nightly", "2024-08-20", "success", all("success"))
	rows, version, entries := stands(t, nightly)
	if rows != 42 {
		t.Fatalf("%d rows after the second night", rows)
	}
	var last struct {
		Runs []struct {
			ID     string
			Task   string
			Result struct {
				FilesRead int `json:"files_read"`
				RowsRead  int `json:"rows_read"`
			}
		}
	}
	nightly.JSON(&last, "runs")
	var seen bool
	for _, r := range last.Runs {
		if r.Task == "batch" && strings.Contains(r.ID, "2024-08-20") {
			seen = r.Result.FilesRead == 1 && r.Result.RowsRead == 12
		}
	}
	if !seen {
		t.Errorf("the second night did not read the second file alone: %+v", last.Runs)
	}
	// Nothing new: a success that commits nothing and tells nobody that something changed.
	quiet := all("success")
	quiet["publish"] = "skipped"
	h.test("nightly", "2024-08-21", "success", quiet)
	if r, v, e := stands(t, nightly); r != rows || v != version || e != entries {
		t.Errorf("a night without files left %d rows, version %d, %d log entries; before %d, %d, %d", r, v, e, rows, version, entries)
	}
	// An interval that is cleared and run again changes nothing; a file that has come since waits for its own night.
	trades(t, nightly, "2024-08-22", 201, 5)
	h.test("nightly", "2024-08-20", "success", all("success"))
	if r, v, e := stands(t, nightly); r != rows || v != version || e != entries {
		t.Errorf("the second night once more left %d rows, version %d, %d log entries; before %d, %d, %d", r, v, e, rows, version, entries)
	}
	h.test("nightly", "2024-08-22", "success", all("success"))
	if r, _, _ := stands(t, nightly); r != rows+5 {
		t.Errorf("%d rows at last, want %d", r, rows+5)
	}

	// The first try is killed before its commit, the second does the work.
	dying := lab.NewLake(t)
	dying.Append(scheduled + alerts)
	dying.Write("cauce.sh", "#!/bin/sh\ncase \"$1 $2\" in \"run batch\") [ -e \""+dying.Path("died")+"\" ] || { touch \""+dying.Path("died")+"\"; export CAUCE_FAULT=kill@before-commit; } ;; esac\nexec \""+dying.Program()+"\" \"$@\"\n")
	if err := os.Chmod(dying.Path("cauce.sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	dying.Run("airflow", "render", "--out", h.dags, "--dag-id", "dying", "--cauce", dying.Path("cauce.sh"))
	trades(t, dying, "2024-08-19", 1, 30)
	tried := all("success")
	tried["batch"] = "success*2"
	h.test("dying", "2024-08-19", "success", tried)
	if rows, _, _ := stands(t, dying); rows != 30 {
		t.Errorf("%d rows after a try that died", rows)
	}
	if _, err := os.Stat(dying.Path("died")); err != nil {
		t.Error("nothing died")
	}

	// Data that break a rule fail at once, somebody is told, and what runs after does not run.
	broken := lab.NewLake(t)
	text, err := os.ReadFile(broken.Path("lake.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	broken.Write("lake.yaml", strings.Replace(string(text), "price > 0\", on_fail: quarantine", "price > 0\", on_fail: fail", 1)+scheduled+alerts)
	broken.Run("airflow", "render", "--out", h.dags, "--dag-id", "broken", "--cauce", broken.Program())
	broken.Write("data/raw/batch/historico_2024-08-19.csv", header+"BTCUSDT,1,-5,1,1,1724025600000,True,True\n")
	failed := all("upstream_failed")
	failed["new_files"], failed["batch"] = "success", "failed"
	if a := h.test("broken", "2024-08-19", "failed", failed); a.Events != 0 {
		t.Errorf("%d events of assets of a night that failed", a.Events)
	}
	hook.mu.Lock()
	sent := hook.sent
	hook.mu.Unlock()
	if len(sent) != 1 || sent[0]["event"] != "failed" || sent[0]["task"] != "broken.batch" || !strings.Contains(fmt.Sprint(sent[0]["error"]), "ended with 3") {
		t.Errorf("alerts: %v", sent)
	}

	// Too much in quarantine fails the checks, and the night run again does not turn that into a success.
	dirty := lab.NewLake(t)
	dirty.Append(scheduled)
	dirty.Run("airflow", "render", "--out", h.dags, "--dag-id", "dirty", "--cauce", dirty.Program())
	dirty.Write("data/raw/batch/historico_2024-08-19.csv", header+"BTCUSDT,1,5,1,1,1724025600000,True,True\nBTCUSDT,2,-5,1,1,1724025600000,True,True\n")
	checked := all("upstream_failed")
	checked["new_files"], checked["batch"], checked["checks"] = "success", "success", "failed"
	h.test("dirty", "2024-08-19", "failed", checked)
	h.test("dirty", "2024-08-19", "failed", checked)

	// The next run is at 01:00 in the lake's zone, in summer, in winter, and where clocks change.
	for _, c := range []struct{ end, want string }{
		{"2024-08-20T01:00:00+02:00", "2024-08-21T01:00:00+02:00"},
		{"2024-01-20T01:00:00+01:00", "2024-01-21T01:00:00+01:00"},
		{"2024-03-31T01:00:00+01:00", "2024-04-01T01:00:00+02:00"},
		{"2024-10-27T01:00:00+02:00", "2024-10-28T01:00:00+01:00"},
	} {
		a := h.run("next", filepath.Join(h.dags, "nightly.py"), c.end)
		if !same(t, a.RunAfter, c.want) || !same(t, a.Start, c.end) || !same(t, a.End, c.want) {
			t.Errorf("after the interval that ends at %s: run after %s, interval %s to %s; want %s", c.end, a.RunAfter, a.Start, a.End, c.want)
		}
	}
}

// A stream that a gap has stopped is no matter of the batch: its files are read all the same.
func TestDagBesideAStreamWithAGap(t *testing.T) {
	h, l := newHome(t), lab.NewLake(t)
	l.Append(scheduled)
	l.Write("events.jsonl", `{"e":"trade","E":1,"s":"BTCUSDT","t":99,"p":"1","q":"1","T":1724112000123,"m":true}`+"\n")
	l.Run("produce", "replay", l.Path("events.jsonl"))
	if err := os.CopyFS(l.Path("earlier"), os.DirFS(l.Path(".cauce/buffer"))); err != nil {
		t.Fatal(err)
	}
	l.Run("produce", "replay", l.Path("events.jsonl"))
	l.Run("run", "stream", "--available-now")
	if err := errors.Join(os.RemoveAll(l.Path(".cauce/buffer")), os.Rename(l.Path("earlier"), l.Path(".cauce/buffer"))); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := l.Try("plan"); code != 4 {
		t.Fatalf("the buffer has lost its end, and plan ends with %d: %s", code, stderr)
	}
	l.Run("airflow", "render", "--out", h.dags, "--dag-id", "beside", "--cauce", l.Program())
	trades(t, l, "2024-08-19", 1, 30)
	h.test("beside", "2024-08-19", "success", map[string]string{"new_files": "success", "batch": "success", "checks": "success"})
	if rows, _, _ := stands(t, l); rows != 31 {
		t.Errorf("%d rows, want 31", rows)
	}
}

// The time of a run is over only when each of its tasks has had all its tries, with the pauses between them; and then somebody is
// told, though no task has failed.
func TestDagRunThatTakesTooLong(t *testing.T) {
	h, hook, l := newHome(t), newHook(t), lab.NewLake(t)
	l.Append("schedule:\n  batch: {cron: \"0 1 * * *\", retries: 4, backoff: 10m, timeout: 5m}\n  alerts: {url: \"" + hook.URL + "\"}\n")
	l.Run("airflow", "render", "--out", h.dags, "--dag-id", "late", "--cauce", l.Program())
	file := filepath.Join(h.dags, "late.py")
	// Airflow waits up to twice as long as it is told, and at most the hour of max_retry_delay: 20, 40, 60, 60 minutes.
	if a := h.run("over", file, "timed_out"); a.Error != "" || time.Duration(a.Seconds)*time.Second < 4*(5*5+20+40+60+60)*time.Minute {
		t.Errorf("a run may take %v (%s)", time.Duration(a.Seconds)*time.Second, a.Error)
	}
	h.run("over", file, "task_failure") // of that the task tells
	hook.mu.Lock()
	defer hook.mu.Unlock()
	if len(hook.sent) != 1 || hook.sent[0]["task"] != "late" || hook.sent[0]["run"] != "scheduled__2024-08-20" || !strings.Contains(fmt.Sprint(hook.sent[0]["error"]), "timed_out") {
		t.Errorf("alerts: %v", hook.sent)
	}
}

// same compares instants.
func same(t *testing.T, a, b string) bool {
	t.Helper()
	x, err := time.Parse(time.RFC3339, a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := time.Parse(time.RFC3339, b)
	if err != nil {
		t.Fatal(err)
	}
	return x.Equal(y)
}

// The same DAG with the batch on Spark.
func TestDagOnSpark(t *testing.T) {
	flags := sparktest.SubmitFlags(t, "local[2]")
	h := newHome(t)
	l := lab.NewLake(t)
	l.Append(scheduled)
	l.Run(append([]string{"airflow", "render", "--out", h.dags, "--dag-id", "spark", "--cauce", l.Program(), "--engine", "spark"}, flags...)...)
	trades(t, l, "2024-08-19", 1, 30)
	all := map[string]string{"new_files": "success", "batch": "success", "checks": "success", "publish": "success", "optimize": "success"}
	h.test("spark", "2024-08-19", "success", all)
	trades(t, l, "2024-08-20", 101, 12)
	h.test("spark", "2024-08-20", "success", all)
	rows, version, entries := stands(t, l)
	if rows != 42 {
		t.Errorf("%d rows after two nights on Spark", rows)
	}
	// The interval once more starts no Spark, and changes nothing; a file that has come since waits for its own night.
	trades(t, l, "2024-08-21", 201, 5)
	h.test("spark", "2024-08-20", "success", all)
	if r, v, e := stands(t, l); r != rows || v != version || e != entries {
		t.Errorf("the second night once more left %d rows, version %d, %d log entries; before %d, %d, %d", r, v, e, rows, version, entries)
	}
	// The embedded engine goes on from there, and has that file to read alone.
	var r struct {
		FilesRead int `json:"files_read"`
	}
	if l.JSON(&r, "run", "batch"); r.FilesRead != 1 {
		t.Errorf("the embedded engine reads %d files, want the one that Spark has not read", r.FilesRead)
	}
}
