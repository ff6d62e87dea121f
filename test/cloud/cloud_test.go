package cloud

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/cloudtest"
	"github.com/cauce-data/cauce/internal/loopback"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/test/lab"
)

// bucket is a lake in a bucket that is reached through a proxy.
type bucket struct {
	*lab.Lake
	root  string
	proxy *cloudtest.Proxy
}

func s3Bucket(t *testing.T) *bucket {
	t.Helper()
	prereq.Need(t, "versitygw")
	srv := cloudtest.NewS3(t)
	b := &bucket{Lake: lab.NewLake(t), root: "s3://" + srv.Bucket(t, "lake") + "/some/prefix", proxy: cloudtest.NewProxy(t, srv.Endpoint)}
	b.Env = append(srv.Env(b.proxy.URL), "CAUCE_ROOT="+b.root)
	return b
}

func gcsBucket(t *testing.T) *bucket {
	t.Helper()
	prereq.Need(t, "fake-gcs-server")
	srv := cloudtest.NewGCS(t)
	b := &bucket{Lake: lab.NewLake(t), root: "gs://" + srv.Bucket(t, "lake") + "/some/prefix", proxy: cloudtest.NewProxy(t, "http://"+srv.Host)}
	b.Env = append(srv.Env(b.proxy.Host()), "CAUCE_ROOT="+b.root)
	return b
}

type usage map[string]struct{ Requests, Failed, Bytes int64 }

type answer struct {
	Rows        []map[string]any
	Version     int64
	FilesTotal  int `json:"files_total"`
	FilesOpened int `json:"files_opened"`
	Requests    usage
}

// dataFiles are the data files that the proxy saw asked for, each once.
func (b *bucket) dataFiles() map[string]bool {
	out := map[string]bool{}
	for _, r := range b.proxy.Requests() {
		if r.Method == http.MethodGet && strings.HasSuffix(r.Path, ".parquet") && !strings.Contains(r.Path, "_delta_log") {
			out[r.Path] = true
		}
	}
	return out
}

func TestLakeOnS3(t *testing.T)  { wholeLake(t, s3Bucket(t)) }
func TestLakeOnGCS(t *testing.T) { wholeLake(t, gcsBucket(t)) }

// wholeLake goes through everything that a lake does, in a bucket, and compares every row with the generator's.
func wholeLake(t *testing.T, l *bucket) {
	g := lab.NewGenerator(testscale.Rand(t), 3)
	dir, bad := t.TempDir(), 0
	var landed []string
	for day := range 3 {
		m := g.History(t, dir, day, 2000, 100)
		landed, bad = append(landed, m.Path), bad+m.Bad
	}
	l.Run(append([]string{"land"}, landed...)...)
	var batch struct {
		FilesRead int   `json:"files_read"`
		RowsRead  int64 `json:"rows_read"`
		Bad       int   `json:"rows_quarantined"`
		Requests  usage
	}
	l.JSON(&batch, "run", "batch")
	if batch.FilesRead != 3 || batch.RowsRead != 6000 || batch.Bad != bad || batch.Requests["put"].Requests == 0 {
		t.Fatalf("batch: %+v", batch)
	}
	// A second run finds by the listing alone that there is nothing new.
	l.proxy.Clear()
	l.JSON(&batch, "run", "batch")
	if batch.FilesRead != 0 || batch.RowsRead != 0 {
		t.Fatalf("second batch: %+v", batch)
	}
	for _, r := range l.proxy.Requests() {
		if strings.Contains(r.Path, "historico_") {
			t.Errorf("a known file was asked for: %+v", r)
		}
	}
	events := filepath.Join(t.TempDir(), "events.jsonl")
	g.Events(t, events, 1500)
	l.Run("produce", "replay", events)
	l.Run("run", "stream", "--available-now")
	same := func(when string) {
		t.Helper()
		if d := lab.Diff(g.Expected.Lines(), l.Rows()); d != "" {
			t.Fatalf("%s: %s", when, d)
		}
	}
	same("batch and stream")
	hash := l.Run("table", "hash", "unified_events")

	// A cold query for one day opens no file of another; a warm one opens none at all.
	cold := "SELECT count(*) AS n, sum(price) AS s FROM unified_events WHERE event_date = DATE '2024-08-18'"
	var first, second answer
	if err := os.RemoveAll(l.Path(".cauce/cache")); err != nil {
		t.Fatal(err)
	}
	l.proxy.Clear()
	l.JSON(&first, "query", cold)
	opened := l.dataFiles()
	if len(opened) == 0 || len(opened) != first.FilesOpened || first.FilesOpened >= first.FilesTotal {
		t.Errorf("%d files were asked for, the query says %d of %d", len(opened), first.FilesOpened, first.FilesTotal)
	}
	for f := range opened {
		if !strings.Contains(f, "event_date=2024-08-18") {
			t.Errorf("a query for 2024-08-18 opened %s", f)
		}
	}
	var asked int64
	for _, c := range first.Requests {
		asked += c.Requests
	}
	if n := int64(len(l.proxy.Requests())); n != asked {
		t.Errorf("the query says that it made %d requests, the server saw %d: %+v", asked, n, first.Requests)
	}
	l.proxy.Clear()
	l.JSON(&second, "query", cold)
	if n := len(l.dataFiles()); n != 0 {
		t.Errorf("a warm query asked for %d data files", n)
	}

	for _, c := range [][]string{
		{"table", "optimize", "unified_events", "--zorder", "symbol"}, {"table", "vacuum", "unified_events", "--retention", "0s", "--force"},
		{"doctor"}, {"status"}, {"plan"}, {"quarantine", "show"}, {"gaps"}, {"table", "history", "unified_events"}, {"table", "describe", "unified_events"},
		{"table", "scan", l.root + "/processed/unified-events", "--columns", "event_id"}, {"sample", "history"}, {"check"},
		{"query", "SELECT count(*) FROM '" + l.root + "/processed/unified-events'"},
	} {
		l.Run(c...)
	}
	if h := l.Run("table", "hash", "unified_events"); h != hash {
		t.Errorf("maintenance changed the table from %s to %s", hash, h)
	}
	same("after maintenance")
	var quarantined answer
	l.JSON(&quarantined, "query", "SELECT count(*) AS n FROM quarantine")
	if n, ok := quarantined.Rows[0]["n"].(float64); !ok || int(n) != bad {
		t.Errorf("quarantine has %v rows, want %d", quarantined.Rows[0]["n"], bad)
	}
	if out, errs, code := l.Try("demo", filepath.Join(t.TempDir(), "demo")); code != 2 || !strings.Contains(errs, "not empty") {
		t.Errorf("demo over a lake: %d %s%s", code, out, errs)
	}
}

func TestWritersMeetOnS3(t *testing.T)  { writersMeet(t, s3Bucket(t)) }
func TestWritersMeetOnGCS(t *testing.T) { writersMeet(t, gcsBucket(t)) }

// writersMeet lets a stream, a batch and OPTIMIZE write one table at the same time while the store fails at random.
func writersMeet(t *testing.T, l *bucket) {
	rnd := testscale.Rand(t)
	g := lab.NewGenerator(rnd, 3)
	effects := []cloudtest.Effect{cloudtest.SlowDown, cloudtest.ResetBefore, cloudtest.FailAfter, cloudtest.ResetAfter, cloudtest.CutBody, cloudtest.StaleList}
	bad, struck := 0, map[cloudtest.Effect]bool{}
	for turn := range testscale.Count(t, "bucket-turns") {
		l.proxy.Clear()
		dir := t.TempDir()
		for range 3 {
			m := g.History(t, dir, rnd.IntN(3), 300, 50)
			bad += m.Bad
			l.Run("land", m.Path)
		}
		events := filepath.Join(dir, "events.jsonl")
		g.Events(t, events, 1000)
		l.proxy.Random(rnd, 0.04, effects...)
		work := map[string]*lab.Process{
			"stream": l.Start(nil, "run", "stream", "--trigger", "200ms"),
			"batch":  l.Start(nil, "run", "batch"),
			"replay": l.Start(nil, "produce", "replay", events, "--rate", "700"),
		}
		if turn > 0 {
			work["optimize"] = l.Start(nil, "table", "optimize", "unified_events")
		}
		for _, name := range []string{"replay", "batch", "optimize"} {
			if p := work[name]; p != nil {
				// Nothing may be lost; work may end with an error that says that the storage fails.
				if code := p.Wait(3 * time.Minute); code != 0 && code != 1 && code != 5 {
					t.Fatalf("%s ended with %d: %s%s", name, code, p.Stdout.String(), p.Stderr.String())
				}
			}
		}
		l.proxy.Random(nil, 0)
		stop(t, work["stream"])
		l.Run("run", "batch")
		l.Run("run", "stream", "--available-now")
		if d := lab.Diff(g.Expected.Lines(), l.Rows()); d != "" {
			t.Fatalf("turn %d, faults %v: %s", turn, l.proxy.Injected(), d)
		}
		for e := range l.proxy.Injected() {
			struck[e] = true
		}
		t.Logf("turn %d: faults %v in %d requests", turn, l.proxy.Injected(), len(l.proxy.Requests()))
	}
	if len(struck) < 3 {
		t.Errorf("only %d kinds of faults struck", len(struck))
	}
	var quarantined answer
	l.JSON(&quarantined, "query", "SELECT count(*) AS n FROM quarantine")
	if n, ok := quarantined.Rows[0]["n"].(float64); !ok || int(n) != bad {
		t.Errorf("quarantine has %v rows, want %d", quarantined.Rows[0]["n"], bad)
	}
}

// stop ends a stream in order; one that a fault has ended already is fine.
func stop(t *testing.T, p *lab.Process) {
	t.Helper()
	p.Signal(15)
	if code := p.Wait(time.Minute); code == -2 {
		t.Fatalf("the stream does not stop: %s", p.Stderr.String())
	}
}

// TestCredentialsThatExpire: work stops with words that say so, nothing is lost, and it goes on when they are renewed.
func TestCredentialsThatExpire(t *testing.T) {
	l := s3Bucket(t)
	g := lab.NewGenerator(testscale.Rand(t), 1)
	m := g.History(t, t.TempDir(), 0, 500, 0)
	l.Run("land", m.Path)
	// They expire when the commit is about to be written.
	l.proxy.Add(cloudtest.Rule{Path: "_delta_log/0000000000000000000", Method: "PUT", Nth: 1, Times: 1000, Effect: cloudtest.Expired})
	out, errs, code := l.Try("run", "batch", "--json")
	var report struct {
		Error    string
		ExitCode int `json:"exit_code"`
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil || code != 1 || report.ExitCode != 1 || !strings.Contains(report.Error, "expired; sign in again") {
		t.Fatalf("exit code %d, %v: %s%s", code, err, out, errs)
	}
	l.proxy.Clear()
	l.Run("run", "batch")
	if d := lab.Diff(g.Expected.Lines(), l.Rows()); d != "" {
		t.Fatal(d)
	}
}

// TestDoctorOnAnUnsafeStore: a server that does not know conditional puts is found out before a table is written.
func TestDoctorOnAnUnsafeStore(t *testing.T) {
	l := gcsBucket(t)
	l.proxy.DropParameter("ifGenerationMatch")
	out, errs, code := l.Try("doctor")
	if code != 1 || !strings.Contains(out, "UNSAFE") || !strings.Contains(out, "ifGenerationMatch") {
		t.Fatalf("exit code %d: %s%s", code, out, errs)
	}
}

// TestInitInABucket: the lake file names the bucket, the folders are there, and nobody takes them for data; nothing stands where
// tables will, or Spark would make none.
func TestInitInABucket(t *testing.T) {
	l := s3Bucket(t)
	if err := os.Remove(l.Path("lake.yaml")); err != nil {
		t.Fatal(err)
	}
	l.Env = append(l.Env, "CAUCE_ROOT=")
	out, errs, code := l.Try("init", ".", "--template", "crypto", "--storage", "s3://nowhere/lake", "--folders")
	if code != 2 || !strings.Contains(errs, "no such bucket: s3://nowhere") {
		t.Errorf("a bucket that is not there: %d %s%s", code, out, errs)
	}
	var made struct {
		Storage string
		Folders []string
	}
	l.JSON(&made, "init", ".", "--template", "crypto", "--storage", l.root, "--folders")
	if made.Storage != l.root || len(made.Folders) != 3 {
		t.Errorf("init: %+v", made)
	}
	g := lab.NewGenerator(testscale.Rand(t), 1)
	l.Run("land", g.History(t, t.TempDir(), 0, 200, 0).Path)
	l.Run("run", "batch")
	l.Run("table", "vacuum", "unified_events", "--retention", "0s", "--force")
	var n answer
	l.JSON(&n, "query", "SELECT count(*) AS n FROM unified_events")
	if got := n.Rows[0]["n"]; got != float64(len(g.Expected.Lines())) {
		t.Errorf("%v rows, want %d", got, len(g.Expected.Lines()))
	}
	l.Run("doctor")
}

// TestBenchInABucket: each step has its requests, all of them are what the server saw, and the place is left empty, or the
// second measurement would be refused.
func TestBenchInABucket(t *testing.T) {
	l := s3Bucket(t)
	for range 2 {
		l.proxy.Clear()
		var report struct {
			Storage string
			Steps   []struct {
				Step     string
				Requests usage
			}
		}
		l.JSON(&report, "bench", "--rows", "1800", "--batches", "2", "--events", "100", "-q")
		counted := int64(0)
		for _, s := range report.Steps {
			n := int64(0)
			for _, c := range s.Requests {
				n += c.Requests
			}
			// The data files are in the cache: they were written here.
			if n == 0 && !strings.HasPrefix(s.Step, "query") {
				t.Errorf("%s: no request", s.Step)
			}
			counted += n
		}
		if seen := int64(len(l.proxy.Requests())); counted == 0 || counted > seen {
			t.Errorf("%d requests are told, the server saw %d", counted, seen)
		}
	}
}

// TestMetricsCountRequests: what a watched stream asks of the bucket is served, and is what the server saw.
func TestMetricsCountRequests(t *testing.T) {
	l := s3Bucket(t)
	g := lab.NewGenerator(testscale.Rand(t), 1)
	events := filepath.Join(t.TempDir(), "events.jsonl")
	g.Events(t, events, 200)
	l.Run("produce", "replay", events)
	listen := loopback.Free(t)
	l.proxy.Clear()
	l.proxy.Add(cloudtest.Rule{Method: "PUT", Nth: 2, Effect: cloudtest.SlowDown})
	stream := l.Start(nil, "run", "stream", "--trigger", "200ms", "--metrics-listen", listen)
	var page string
	for deadline := time.Now().Add(time.Minute); !strings.Contains(page, `cauce_source_records_read_total{source="live"} 203`); time.Sleep(50 * time.Millisecond) {
		if page = get("http://" + listen + "/metrics"); time.Now().After(deadline) {
			t.Fatalf("nothing was read: %s%s", page, stream.Stderr.String())
		}
	}
	// It goes on asking, now and then: what was served lies between what the server had seen before and after.
	before := len(l.proxy.Requests())
	page = get("http://" + listen + "/metrics")
	after := len(l.proxy.Requests())
	stop(t, stream)
	sum := func(metric string) (n int) {
		for line := range strings.Lines(page) {
			if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && strings.HasPrefix(name, metric+"{kind=") {
				v, err := strconv.ParseFloat(value, 64)
				if err != nil {
					t.Fatal(err)
				}
				n += int(v)
			}
		}
		return n
	}
	if n := sum("cauce_store_requests_total"); n < before-1 || n > after || n < 10 {
		t.Errorf("%d requests are served, the server saw %d before and %d after", n, before, after)
	}
	if n := sum("cauce_store_failed_requests_total"); n != 1 {
		t.Errorf("%d failed requests are served, want 1", n)
	}
	if !strings.Contains(page, `cauce_store_bytes_total{kind="put"} `) || sum("cauce_store_bytes_total") < 1000 {
		t.Errorf("bytes: %d in\n%s", sum("cauce_store_bytes_total"), page)
	}
}

// get is the body of an answer; "" if there is none.
func get(url string) string {
	resp, err := http.Get(url) //nolint:noctx // a test's own server
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return string(b)
}
