package flow

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cauce-data/cauce/connect/simulate"
	"github.com/cauce-data/cauce/internal/kafkatest"
	"github.com/cauce-data/cauce/internal/loopback"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/test/lab"
)

// sample is what `cauce up` looks like at one moment.
type sample struct {
	at                       time.Duration // since the first commit
	memory                   float64       // bytes that no file backs
	resident                 float64       // bytes, the program's own code among them
	heap, fds, lag           float64
	files, filesMax, version float64
	log, progress            int // files
	stored                   int // files below the table's folder
}

// TestStreamForAnHour lets an exchange trade into Kafka and `cauce up` (producer, stream and maintenance, the lake file
// the template's) read it, at full size an hour after three quarters of one in which what has a bound fills: memory stays
// flat, logs and files grow no more than maintenance lets them, the commits are one trigger apart, and each trade is in the
// table once.
func TestStreamForAnHour(t *testing.T) {
	b := kafkatest.New(t, nil)
	const topic = "crypto_trades"
	if err := b.CreateTopic(t.Context(), topic, 3, nil); err != nil {
		t.Fatal(err)
	}
	lasts := time.Duration(testscale.Count(t, "stream-seconds")) * time.Second
	// DuckDB's queues of pages that it may evict grow to a bound that they reach after half an hour (docs/performance.md).
	warms := lasts * 3 / 4
	text, err := os.ReadFile(filepath.Join(prereq.Root(), "pipeline", "templates", "crypto.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	lake := string(text)
	replace := func(old, text string) {
		t.Helper()
		if !strings.Contains(lake, old) {
			t.Fatalf("the template has no %q", old)
		}
		lake = strings.Replace(lake, old, text, 1)
	}
	replace("    kind: embedded                # the buffer in .cauce/buffer; nothing to install\n    topic: crypto_trades\n",
		fmt.Sprintf("    kind: kafka\n    topic: %s\n    kafka: {brokers: [%q]}\n", topic, b.Addr))
	replace(`maintenance: {cron: "15 * * * *"}`, `maintenance: {cron: "*/10 * * * *"}`)
	trigger := 30 * time.Second
	if testscale.Current() != testscale.Soak { // the template's own needs its time
		trigger = 500 * time.Millisecond
		replace("stream: {trigger: 30s}", "stream: {trigger: 500ms}")
	}
	l := lab.NewLake(t)
	if err := os.WriteFile(l.Path("lake.yaml"), []byte(lake), 0o600); err != nil {
		t.Fatal(err)
	}
	const rate = 500
	symbols := []string{"BTCUSDT", "ETHUSDT"} // of the template
	x, err := simulate.New(simulate.Options{Seed: testscale.Seed(t), Rate: rate, Symbols: symbols})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(x.Handler())
	t.Cleanup(func() { x.Close(); srv.Close() })
	listen := loopback.Free(t)
	up := l.Start(nil, "up", "--url", "ws"+strings.TrimPrefix(srv.URL, "http"), "--no-repair", "--metrics-listen", listen)
	alive := func() {
		t.Helper()
		if !up.Running() {
			t.Fatalf("up ended by itself: %s", up.Stderr.String())
		}
	}

	for deadline := time.Now().Add(time.Minute); !ready(listen); time.Sleep(100 * time.Millisecond) {
		alive()
		if time.Now().After(deadline) {
			t.Fatalf("up is not ready within a minute: %s", up.Stderr.String())
		}
	}
	time.Sleep(time.Second) // the exchange's answer to the subscription is on its way
	trading, stop := context.WithCancel(t.Context())
	traded := make(chan error, 1)
	go func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-trading.Done():
				traded <- nil
				return
			case <-tick.C:
				if err := x.Step(rate / 50); err != nil {
					traded <- err
					return
				}
			}
		}
	}()
	var samples []sample
	var began time.Time
	every := lasts / 131 // no multiple of the trigger: samples fall everywhere between two commits
	for deadline := time.Now().Add(time.Minute); began.IsZero() || time.Since(began) < warms+lasts; time.Sleep(every) {
		alive()
		s, ok := look(t, l, up.Pid(), listen)
		if !ok {
			if began.IsZero() && time.Now().After(deadline) {
				t.Fatalf("no commit within a minute: %s", up.Stderr.String())
			}
			continue
		}
		if began.IsZero() {
			began = time.Now()
		}
		s.at = time.Since(began)
		samples = append(samples, s)
	}
	stop()
	if err := <-traded; err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, s := range symbols {
		for _, tr := range x.Trades(s) {
			want = append(want, fmt.Sprintf("%s-%d", tr.Symbol, tr.ID))
		}
	}
	slices.Sort(want)
	// What waits comes with the next triggers.
	for deadline := time.Now().Add(3*trigger + time.Minute); ; time.Sleep(time.Second) {
		alive()
		var n int
		if _, err := fmt.Sscan(strings.TrimPrefix(l.Run("query", "SELECT count(*) AS n FROM unified_events", "--format", "csv"), "n\n"), &n); err != nil {
			t.Fatal(err)
		}
		if n >= len(want) {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("%d of %d trades are in the table: %s", n, len(want), up.Stderr.String())
			break
		}
	}
	up.Signal(syscall.SIGTERM)
	if code := up.Wait(time.Minute); code != 0 {
		t.Errorf("up ended with %d: %s", code, up.Stderr.String())
	}
	got := strings.Split(strings.TrimSpace(l.Run("query", "SELECT event_id FROM unified_events", "--format", "csv")), "\n")[1:]
	slices.Sort(got)
	if d := lab.Diff(want, got); d != "" {
		t.Error(d)
	}
	if n := strings.Count(up.Stderr.String(), "failed and is started again"); n > 0 {
		t.Errorf("%d restarts: %s", n, up.Stderr.String())
	}

	quarter := func(i int, of func(sample) float64) float64 { // of what was measured; -1: before
		from, to := warms+lasts*time.Duration(i)/4, warms+lasts*time.Duration(i+1)/4
		if i < 0 {
			from, to = 0, warms
		}
		var v []float64
		for _, s := range samples {
			if s.at >= from && s.at < to {
				v = append(v, of(s))
			}
		}
		if len(v) < 5 {
			t.Fatalf("only %d samples between %s and %s", len(v), from, to)
		}
		slices.Sort(v)
		return v[len(v)/2]
	}
	last := samples[len(samples)-1]
	var most sample
	for _, s := range samples {
		most.memory, most.resident, most.filesMax, most.lag = max(most.memory, s.memory), max(most.resident, s.resident), max(most.filesMax, s.filesMax), max(most.lag, s.lag)
	}
	// Where commits are less than five seconds apart the index of keys keeps 2 bytes a row, and Go's collector lets as much again
	// become garbage. The rest is what samples differ by: they fall between and into micro-batches and compactions.
	slack := 16e6
	if testscale.Current() == testscale.Soak {
		slack = 8e6 // medians of 33 samples
	}
	rows := rate * lasts.Seconds()
	if was, is := quarter(0, func(s sample) float64 { return s.memory }), quarter(3, func(s sample) float64 { return s.memory }); is > was+rows*4+slack {
		t.Errorf("memory grew from %.0f to %.0f MB (medians of the first and the last quarter)", was/1e6, is/1e6)
	}
	if was, is := quarter(0, func(s sample) float64 { return s.fds }), quarter(3, func(s sample) float64 { return s.fds }); is > was+16 {
		t.Errorf("open files grew from %.0f to %.0f", was, is)
	}
	// The stream compacts after each 20 micro-batches, where a partition has 8 small files or more; it may give way once.
	if most.filesMax > 70 {
		t.Errorf("a partition had %.0f files", most.filesMax)
	}
	// A version has an entry and a checksum; the rest are checkpoints.
	if n := last.version + 1; float64(last.log) > 3*n+40 || float64(last.progress) > 2.5*n+20 {
		t.Errorf("%.0f versions left %d files in the log and %d of progress", n, last.log, last.progress)
	}
	gaps := spacing(t, l)
	median := gaps[len(gaps)/2]
	if median < trigger*9/10 || median > trigger*12/10+200*time.Millisecond {
		t.Errorf("commits are %s apart (median of %d), the trigger is %s", median, len(gaps), trigger)
	}
	if few := gaps[len(gaps)/10]; few < trigger*7/10 {
		t.Errorf("a tenth of the commits came %s or less after the one before, the trigger is %s", few, trigger)
	}
	t.Logf("REPORT: %s at %d trades a second, after %s of the same: %d trades, each in the table once; %d commits, %s apart (median; 10 %%: %s, 90 %%: %s), trigger %s",
		lasts, rate, warms, len(want), len(gaps)+1, median.Round(time.Millisecond), gaps[len(gaps)/10].Round(time.Millisecond), gaps[len(gaps)*9/10].Round(time.Millisecond), trigger)
	for i := -1; i < 4; i++ {
		name := "before"
		if i >= 0 {
			name = fmt.Sprintf("quarter %d", i+1)
		}
		t.Logf("REPORT: %s: memory %.0f MB (resident with the program %.0f), Go heap %.0f MB, %.0f open files, lag %.1f s, %.0f files in the table, %.0f in the fullest partition (medians)", name,
			quarter(i, func(s sample) float64 { return s.memory })/1e6, quarter(i, func(s sample) float64 { return s.resident })/1e6, quarter(i, func(s sample) float64 { return s.heap })/1e6, quarter(i, func(s sample) float64 { return s.fds }),
			quarter(i, func(s sample) float64 { return s.lag }), quarter(i, func(s sample) float64 { return s.files }), quarter(i, func(s sample) float64 { return s.filesMax }))
	}
	t.Logf("REPORT: greatest memory %.0f MB (resident %.0f), files of a partition %.0f, lag %.1f s; at the end version %.0f, %d files in the log, %d of progress, %d below the table",
		most.memory/1e6, most.resident/1e6, most.filesMax, most.lag, last.version, last.log, last.progress, last.stored)
}

// ready tells whether every part of a process works.
func ready(listen string) bool {
	resp, err := http.Get("http://" + listen + "/readyz")
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// look takes a sample; false: there is no commit of the stream yet, or no answer.
func look(t *testing.T, l *lab.Lake, pid int, listen string) (s sample, ok bool) {
	t.Helper()
	resp, err := http.Get("http://" + listen + "/metrics")
	if err != nil {
		return s, false
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		return s, false
	}
	v := map[string]float64{}
	for line := range strings.Lines(string(page)) {
		if name, value, found := strings.Cut(strings.TrimSpace(line), "} "); found {
			v[name+"}"], _ = strconv.ParseFloat(value, 64)
		} else if name, value, found := strings.Cut(strings.TrimSpace(line), " "); found {
			v[name], _ = strconv.ParseFloat(value, 64)
		}
	}
	s = sample{
		resident: v["process_resident_memory_bytes"], heap: v["go_memstats_heap_inuse_bytes"], fds: v["process_open_fds"],
		lag:   v[`cauce_source_lag_seconds{source="live"}`],
		files: v[`cauce_table_files{table="unified_events"}`], filesMax: v[`cauce_table_partition_files_max{table="unified_events"}`],
		version: v[`cauce_table_version{table="unified_events"}`],
	}
	if s.memory = anonymous(pid); s.memory == 0 {
		s.memory = s.resident
	}
	s.log, s.stored, s.progress = count(l.Path("data/processed/unified-events/_delta_log")), count(l.Table()), count(l.Path("data/processed/_progress"))
	return s, v[`cauce_source_epochs_total{kind="stream",source="live"}`] > 0 && s.files > 0
}

// anonymous is the memory of a process that no file backs, in bytes: what it keeps, its code and what it has mapped apart
// (proc_pid_status(5)). 0: the system does not tell, or the process has ended.
func anonymous(pid int) float64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(text), "RssAnon:")
	kb, _, _ := strings.Cut(rest, " kB")
	n, _ := strconv.ParseFloat(strings.TrimSpace(kb), 64)
	return n * 1024
}

// count is the number of files below a folder.
func count(dir string) (n int) {
	_ = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n++
		}
		return nil // files may go while they are counted
	})
	return n
}

// spacing gives the times between the stream's commits, by their files' modification, sorted.
func spacing(t *testing.T, l *lab.Lake) []time.Duration {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(l.Table(), "_delta_log", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	var gaps []time.Duration
	var before time.Time
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), `"operation":"MERGE"`) {
			continue
		}
		if !before.IsZero() {
			gaps = append(gaps, info.ModTime().Sub(before))
		}
		before = info.ModTime()
	}
	if len(gaps) < 5 {
		t.Fatalf("only %d commits", len(gaps)+1)
	}
	slices.Sort(gaps)
	return gaps
}
