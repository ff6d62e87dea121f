package schedule

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	_ "time/tzdata" // the machine may have no time zones
)

func TestDoRetriesAndRecords(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		begin := time.Now()
		_, err := Do(context.Background(), Task{
			Name: "batch", Retries: 3, Backoff: time.Minute,
			Redact: func(s string) string { return strings.ReplaceAll(s, "s3cret", "***") },
			Run: func(_ context.Context, r *Run) error {
				if tries++; tries < 3 {
					r.Log.Warn("no luck with s3cret", "try", tries)
					return errors.New("not yet: s3cret")
				}
				r.SetResult(map[string]int{"rows_read": 7})
				return nil
			},
		}, DoOptions{Dir: dir})
		if err != nil || tries != 3 {
			t.Fatalf("%d tries: %v", tries, err)
		}
		if took := time.Since(begin); took != 3*time.Minute { // 1 + 2: the pause doubles
			t.Errorf("took %v", took)
		}
		_, err = Do(context.Background(), Task{
			Name: "other", Retries: 3, Retryable: func(error) bool { return false }, ExitCode: func(error) int { return 3 },
			Run: func(context.Context, *Run) error { return errors.New("hopeless") },
		}, DoOptions{Dir: dir})
		if err == nil {
			t.Error("no error")
		}
	})
	runs, err := List(dir, 0)
	if err != nil || len(runs) != 2 {
		t.Fatalf("%+v, %v", runs, err)
	}
	if r := runs[0]; r.Task != "other" || r.Status != StatusFailed || r.Error != "hopeless" || len(r.Attempts) != 1 || r.ExitCode == nil || *r.ExitCode != 3 {
		t.Errorf("%+v", r)
	}
	if r := runs[1]; r.Status != StatusOK || len(r.Attempts) != 3 || r.Attempts[0].Error != "not yet: ***" || r.Error != "" || r.ExitCode != nil {
		t.Errorf("%+v", r)
	}
	r, err := Load(dir, runs[1].ID[:len(runs[1].ID)-4])
	if err != nil || r.ID != runs[1].ID || string(r.Result) == "" {
		t.Errorf("%+v, %v", r, err)
	}
	log, err := LogOf(dir, r, 1<<20)
	if err != nil || !strings.Contains(string(log), "no luck with ***") || strings.Contains(string(log), "s3cret") || !strings.Contains(string(log), "the run succeeded") {
		t.Errorf("log %q, %v", log, err)
	}
	if end, err := LogOf(dir, r, 60); err != nil || len(end) > 60 || !strings.HasPrefix(string(end), "time=") && len(end) > 0 {
		t.Errorf("end of the log %q, %v", end, err)
	}
	if _, err := Load(dir, "nothing"); !errors.Is(err, ErrNoRun) {
		t.Error(err)
	}
}

// A try that does not end in time is ended and tried again.
func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		r, err := Do(context.Background(), Task{Name: "slow", Retries: 1, Backoff: time.Second, Timeout: time.Hour, Run: func(ctx context.Context, _ *Run) error {
			tries++
			<-ctx.Done()
			return ctx.Err()
		}}, DoOptions{})
		if !errors.Is(err, ErrTimeout) || tries != 2 || r.Status != StatusFailed || !strings.Contains(r.Error, "1h0m0s") {
			t.Errorf("%d tries, %+v: %v", tries, r, err)
		}
	})
}

// A run that an orchestrator asks for once more is not repeated when it has succeeded, and goes on in its record when it
// has not.
func TestRunIDs(t *testing.T) {
	dir := t.TempDir()
	ran := 0
	var fail error
	task := Task{Name: "batch", Run: func(_ context.Context, r *Run) error {
		ran++
		r.SetResult(ran)
		return fail
	}}
	const id = "cauce_lake.scheduled__2024-08-20T23:00:00+00:00"
	fail = errors.New("not yet")
	if r, err := Do(t.Context(), task, DoOptions{Dir: dir, ID: id}); err == nil || r.Status != StatusFailed {
		t.Fatalf("%+v, %v", r, err)
	}
	fail = nil
	if r, err := Do(t.Context(), task, DoOptions{Dir: dir, ID: id}); err != nil || r.Status != StatusOK || len(r.Attempts) != 2 || r.Repeated || r.ID != id {
		t.Fatalf("%+v, %v", r, err)
	}
	fail = errors.New("it ran again")
	r, err := Do(t.Context(), task, DoOptions{Dir: dir, ID: id})
	if err != nil || !r.Repeated || ran != 2 || string(r.Result) != "2" {
		t.Fatalf("%+v, %v, ran %d times", r, err, ran)
	}
	if r, err := Load(dir, id); err != nil || r.ID != id {
		t.Errorf("%+v, %v", r, err)
	}
	if runs, err := List(dir, 0); err != nil || len(runs) != 1 {
		t.Errorf("%+v, %v", runs, err)
	}
	for _, bad := range []string{"a/b", "../x", ".x", "a b", strings.Repeat("x", 201)} {
		if _, err := Do(t.Context(), task, DoOptions{Dir: dir, ID: bad}); err == nil || ran != 2 {
			t.Errorf("id %q is taken", bad)
		}
	}
	if _, err := Do(t.Context(), Task{Name: "other", Run: task.Run}, DoOptions{Dir: dir, ID: id}); err == nil || ran != 2 {
		t.Error("one id stands for runs of two tasks")
	}
}

func TestRunAtItsTimesNeverTwiceAtOnce(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{Dir: dir})
		var began []time.Time
		at, most := 0, 0
		err := s.Add(Task{Name: "slow", Cron: "0 * * * *", Run: func(ctx context.Context, _ *Run) error {
			began = append(began, time.Now())
			at++
			most = max(most, at)
			defer func() { at-- }()
			select { // longer than the time between two runs
			case <-ctx.Done():
			case <-time.After(90 * time.Minute):
			}
			return ctx.Err()
		}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Hour+30*time.Minute)
		defer cancel()
		if err := s.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if most != 1 || len(began) < 2 || at != 0 {
			t.Errorf("%d at once, %d runs, %d still running", most, len(began), at)
		}
		for _, b := range began {
			if b.Minute() != 0 || b.Second() != 0 {
				t.Errorf("ran at %v", b)
			}
		}
	})
}

// runFor runs a scheduler with some tasks for a while.
func runFor(t *testing.T, o Options, d time.Duration, tasks ...Task) {
	t.Helper()
	s := New(o)
	for _, task := range tasks {
		if err := s.Add(task); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

// A person may shorten a run's id; an orchestrator's is another run's as soon as it differs.
func TestRunIDsAreWhole(t *testing.T) {
	dir := t.TempDir()
	ran := 0
	task := Task{Name: "batch", Run: func(context.Context, *Run) error { ran++; return nil }}
	do := func(id string) {
		t.Helper()
		was := ran
		if r, err := Do(t.Context(), task, DoOptions{Dir: dir, ID: id}); err != nil || r.Repeated || ran != was+1 {
			t.Errorf("id %q: %+v, %v, ran %d times", id, r, err, ran-was)
		}
	}
	do("")
	do(time.Now().UTC().Format("20060102")) // the day with which the other's id begins
	for _, id := range []string{"nightly-10", "nightly-1", "10", "nightly"} {
		do(id)
	}
}

// What somebody asked of a task in part, such as one file once more, is not what was due.
func TestCatchUpAfterPartOfIt(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		n := 0
		task := Task{Name: "nightly", Cron: "0 1 * * *", CatchUp: true, Run: func(context.Context, *Run) error { n++; return nil }}
		o := Options{Dir: dir}
		runFor(t, o, 24*time.Hour, task)
		time.Sleep(72 * time.Hour)
		part := task
		part.Command = "cauce run batch --reprocess=true --file=a.csv"
		if _, err := Do(t.Context(), part, DoOptions{Dir: dir}); err != nil || n != 2 {
			t.Fatalf("%v, %d runs", err, n)
		}
		runFor(t, o, time.Minute, task)
		if n != 3 {
			t.Errorf("%d runs: what was missed does not run after a part of it", n)
		}
	})
}

// A task that runs seldom is not forgotten beside one that runs each minute.
func TestCatchUpBesideManyRuns(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		n := 0
		nightly := Task{Name: "nightly", Cron: "0 1 * * *", CatchUp: true, Run: func(context.Context, *Run) error { n++; return nil }}
		often := Task{Name: "often", Run: func(context.Context, *Run) error { return nil }}
		o := Options{Dir: dir}
		runFor(t, o, 24*time.Hour, nightly)
		for range runsMax + 2 {
			if _, err := Do(t.Context(), often, DoOptions{Dir: dir}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		time.Sleep(24 * time.Hour)
		if runFor(t, o, time.Minute, nightly); n != 2 {
			t.Errorf("%d runs: what was missed does not run", n)
		}
		if all, err := files(dir); err != nil || len(all) > runsMax+2 {
			t.Errorf("%d runs are kept, %v", len(all), err)
		}
	})
}

func TestCatchUp(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		n := 0
		task := Task{Name: "nightly", Cron: "0 1 * * *", CatchUp: true, Run: func(context.Context, *Run) error { n++; return nil }}
		o := Options{Dir: dir}
		runFor(t, o, time.Minute, task) // it never ran: nothing was missed
		if n != 0 {
			t.Fatalf("%d runs", n)
		}
		runFor(t, o, 24*time.Hour, task)
		if n != 1 {
			t.Fatalf("%d runs after a day", n)
		}
		time.Sleep(72 * time.Hour) // nothing runs for three nights
		lazy := task
		lazy.CatchUp = false
		runFor(t, o, time.Minute, lazy)
		if n != 1 {
			t.Errorf("%d runs: this task does not catch up", n)
		}
		runFor(t, o, time.Minute, task)
		if n != 2 {
			t.Errorf("%d runs: what was missed runs once", n)
		}
		runFor(t, o, time.Minute, task)
		if n != 2 {
			t.Errorf("%d runs: nothing was missed since", n)
		}
	})
}

// Tasks run after others: each time all of these have succeeded since, and not after a failure.
func TestAfter(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var ran []string
		fails := map[string]bool{}
		task := func(name, cron string, after ...string) Task {
			return Task{Name: name, Cron: cron, After: after, CatchUp: true, Run: func(context.Context, *Run) error {
				time.Sleep(time.Minute)
				if fails[name] {
					return errors.New("no")
				}
				ran = append(ran, name)
				return nil
			}}
		}
		tasks := []Task{task("a", "0 1 * * *"), task("b", "0 2 * * *"), task("c", "", "a", "b"), task("d", "", "c")}
		o := Options{Dir: dir}
		runFor(t, o, 24*time.Hour, tasks...)
		if got := strings.Join(ran, ""); got != "abcd" {
			t.Fatalf("ran %s", got)
		}
		fails["b"] = true
		runFor(t, o, 24*time.Hour, tasks...)
		if got := strings.Join(ran, ""); got != "abcda" {
			t.Fatalf("ran %s after b failed", got)
		}
		fails["b"] = false
		// The process ends between b and what runs after it; the next one goes on from the history.
		s := New(o)
		for _, task := range tasks[:2] {
			if err := s.Add(task); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Now(t.Context(), "b"); err != nil {
			t.Fatal(err)
		}
		runFor(t, o, 10*time.Minute, tasks...)
		if got := strings.Join(ran, ""); got != "abcdabcd" {
			t.Fatalf("ran %s after a restart", got)
		}
		if err := s.Now(t.Context(), "x"); err == nil || !strings.Contains(err.Error(), "a, b") {
			t.Error(err)
		}
	})
}

// Failures are told once they are final, and the success that follows.
func TestNotify(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var told []string
		n := 0
		task := Task{Name: "nightly", Cron: "0 1 * * *", Retries: 1, Backoff: time.Minute, Run: func(context.Context, *Run) error {
			if n++; n <= 4 { // two nights, two tries each
				return errors.New("no")
			}
			return nil
		}}
		o := Options{Dir: dir, Notify: func(e Event, r Run) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, string(e)+" "+string(r.Status))
		}}
		runFor(t, o, 24*time.Hour, task)
		runFor(t, o, 72*time.Hour, task)
		if want := []string{"failed failed", "failed failed", "recovered ok"}; !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
	})
}

// A run that cannot begin, such as for a disk that is full, is in no history: somebody is told of it, and of the first one after it.
func TestNotifyOfARunThatCannotBegin(t *testing.T) {
	dir := t.TempDir()
	lock := filepath.Join(dir, ".nightly.lock")
	if err := os.Mkdir(lock, 0o755); err != nil { // so that it cannot be locked
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var told []string
		ran := 0
		task := Task{Name: "nightly", Cron: "0 1 * * *", Run: func(context.Context, *Run) error { ran++; return nil }, ExitCode: func(error) int { return 1 }}
		runFor(t, Options{Dir: dir, Notify: func(e Event, r Run) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, string(e))
			if e == EventFailed {
				if err := os.Remove(lock); err != nil || r.Task != "nightly" || r.Trigger != TriggerCron || r.ExitCode == nil || !strings.Contains(r.Error, "nightly.lock") {
					t.Errorf("%v: %+v", err, r)
				}
			}
		}}, 48*time.Hour, task)
		if want := []string{"failed", "recovered"}; !slices.Equal(told, want) || ran != 1 {
			t.Errorf("told %q, want %q; it ran %d times", told, want, ran)
		}
	})
}

func TestAddRefuses(t *testing.T) {
	s := New(Options{})
	run := func(context.Context, *Run) error { return nil }
	for _, task := range []Task{
		{Name: "a", Cron: "not cron", Run: run},
		{Name: "a", Cron: "61 * * * *", Run: run},
		{Name: "a", Cron: "0 1 * * *"},
		{Name: "a", After: []string{"nobody"}, Run: run},
	} {
		if err := s.Add(task); err == nil {
			t.Errorf("%+v was added", task)
		}
	}
	if err := s.Add(Task{Name: "a", Cron: "0 1 * * *", Run: run}); err != nil {
		t.Error(err)
	}
	if err := s.Add(Task{Name: "a", Cron: "0 1 * * *", Run: run}); err == nil {
		t.Error("added twice")
	}
	if err := s.Add(Task{Name: "b", Cron: "0 1 * * *", After: []string{"a"}, Run: run}); err == nil {
		t.Error("both a time and a task to run after")
	}
}

// The test's own program is the other process: it runs a task that never ends.
func TestMain(m *testing.M) {
	if dir := os.Getenv("SCHEDULE_TEST_DIR"); dir != "" {
		_, _ = Do(context.Background(), Task{Name: "batch", Run: func(_ context.Context, r *Run) error {
			r.Log.Info("working")
			_ = os.WriteFile(filepath.Join(dir, "works"), nil, 0o644)
			select {}
		}}, DoOptions{Dir: dir})
	}
	os.Exit(m.Run())
}

// While another process runs a task, this one waits; when that process is killed its run is shown as interrupted, the
// scheduler tells of it once and runs the task again.
func TestProcessThatDies(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SCHEDULE_TEST_DIR="+dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }()
	for _, err := os.Stat(filepath.Join(dir, "works")); err != nil; _, err = os.Stat(filepath.Join(dir, "works")) {
		time.Sleep(5 * time.Millisecond)
	}
	runs, err := List(dir, 0)
	if err != nil || len(runs) != 1 || runs[0].Status != StatusRunning {
		t.Fatalf("%+v, %v", runs, err)
	}
	waiting, ran := make(chan string, 1), false
	task := Task{Name: "batch", Cron: "0 1 1 1 *", CatchUp: true, Run: func(context.Context, *Run) error { ran = true; return nil }}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := Do(ctx, task, DoOptions{Dir: dir, Waiting: func(pid string) { waiting <- pid }})
		done <- err
	}()
	if pid := <-waiting; pid == "" {
		t.Error("nobody knows who runs the task")
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || ran {
		t.Errorf("%v, ran %v", err, ran)
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	r, err := Load(dir, runs[0].ID)
	if err != nil || r.Status != StatusInterrupted || r.Error == "" {
		t.Fatalf("%+v, %v", r, err)
	}
	if log, err := LogOf(dir, r, 1<<20); err != nil || !strings.Contains(string(log), "working") {
		t.Errorf("log %q, %v", log, err)
	}
	var mu sync.Mutex
	var told []Event
	times := 0
	task.Run = func(context.Context, *Run) error { times++; return nil }
	for range 2 { // the second scheduler has nothing to catch up
		s := New(Options{Dir: dir, Notify: func(e Event, _ Run) { mu.Lock(); defer mu.Unlock(); told = append(told, e) }})
		if err := s.Add(task); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for range 300 { // until the history says that the task has run
				if last, err := lastOf(dir, task.Name); err == nil && last.Status == StatusOK {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			cancel()
		}()
		if err := s.Run(ctx); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(told)
	if want := []Event{EventInterrupted, EventRecovered}; !slices.Equal(told, want) || times != 1 {
		t.Errorf("told %v, ran %d times", told, times)
	}
	data, err := os.ReadFile(filepath.Join(dir, runs[0].file+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var kept struct{ Status Status }
	if err := json.Unmarshal(data, &kept); err != nil || kept.Status != StatusInterrupted {
		t.Errorf("kept as %v, %v", kept, err)
	}
}
