package schedule

import (
	"context"
	"encoding/json"
	"errors"
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
		err := Do(context.Background(), dir, Task{Name: "batch", Retries: 3, Backoff: time.Minute, Run: func(_ context.Context, r *Run) error {
			if tries++; tries < 3 {
				return errors.New("not yet")
			}
			r.Result = json.RawMessage(`{"rows_read":7}`)
			return nil
		}})
		if err != nil || tries != 3 {
			t.Fatalf("%d tries: %v", tries, err)
		}
		if took := time.Since(begin); took != 3*time.Minute { // 1 + 2: the pause doubles
			t.Errorf("took %v", took)
		}
		err = Do(context.Background(), dir, Task{Name: "other", Retries: 3, Retryable: func(error) bool { return false }, Run: func(context.Context, *Run) error {
			return errors.New("hopeless")
		}})
		if err == nil {
			t.Error("no error")
		}
	})
	runs, err := List(dir, 0)
	if err != nil || len(runs) != 2 {
		t.Fatalf("%+v, %v", runs, err)
	}
	if r := runs[0]; r.Task != "other" || r.Status != StatusFailed || r.Error != "hopeless" || len(r.Attempts) != 1 {
		t.Errorf("%+v", r)
	}
	if r := runs[1]; r.Status != StatusOK || len(r.Attempts) != 3 || r.Attempts[0].Error != "not yet" || r.Error != "" {
		t.Errorf("%+v", r)
	}
	r, err := Load(dir, runs[1].ID[:len(runs[1].ID)-4])
	if err != nil || r.ID != runs[1].ID {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := Load(dir, "nothing"); !errors.Is(err, ErrNoRun) {
		t.Error(err)
	}
}

func TestRunAtItsTimesNeverTwiceAtOnce(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s, err := New(Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		var began []time.Time
		at, most := 0, 0
		err = s.Add(Task{Name: "slow", Cron: "0 * * * *", Run: func(ctx context.Context, _ *Run) error {
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
			if b.Minute() != 0 {
				t.Errorf("ran at %v", b)
			}
		}
	})
}

func TestCatchUp(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		n := 0
		task := Task{Name: "nightly", Cron: "0 1 * * *", CatchUp: true, Run: func(context.Context, *Run) error { n++; return nil }}
		run := func(d time.Duration) {
			t.Helper()
			s, err := New(Options{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Add(task); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), d)
			defer cancel()
			if err := s.Run(ctx); err != nil {
				t.Fatal(err)
			}
		}
		run(time.Minute) // it never ran: nothing was missed
		if n != 0 {
			t.Fatalf("%d runs", n)
		}
		run(24 * time.Hour)
		if n != 1 {
			t.Fatalf("%d runs after a day", n)
		}
		time.Sleep(72 * time.Hour) // nothing runs for three nights
		run(time.Minute)
		if n != 2 {
			t.Errorf("%d runs: what was missed runs once", n)
		}
		run(time.Minute)
		if n != 2 {
			t.Errorf("%d runs: nothing was missed since", n)
		}
	})
}

func TestAddRefuses(t *testing.T) {
	s, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	run := func(context.Context, *Run) error { return nil }
	for _, task := range []Task{{Name: "a", Cron: "not cron", Run: run}, {Name: "a", Cron: "61 * * * *", Run: run}, {Name: "a", Cron: "0 1 * * *"}} {
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
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	next, err := Next("0 1 * * *", berlin, time.Date(2024, 8, 20, 12, 0, 0, 0, time.UTC))
	if err != nil || !next.Equal(time.Date(2024, 8, 20, 23, 0, 0, 0, time.UTC)) {
		t.Errorf("%v, %v", next, err)
	}
}
