package delta

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cauce-data/cauce/delta/expr"
)

// TestPlanningAnewPauses: an operation that another writer made void waits before it is planned anew, longer each time, and
// ends with what it was cancelled for while it waits.
func TestPlanningAnewPauses(t *testing.T) {
	ctx := context.Background()
	const lost = 4
	for _, c := range []struct {
		name string
		run  func(tab *Table, turn int64, hook func(string)) error
	}{
		{"append", func(tab *Table, turn int64, hook func(string)) error {
			_, err := tab.Append(ctx, itemRows(item{ID: "x", Seq: turn}), AppendOptions{Hook: hook})
			return err
		}},
		{"overwrite", func(tab *Table, turn int64, hook func(string)) error {
			_, err := tab.Overwrite(ctx, itemRows(item{ID: "x", Seq: turn}), OverwriteOptions{AppendOptions: AppendOptions{Hook: hook}})
			return err
		}},
		{"merge", func(tab *Table, turn int64, hook func(string)) error {
			o := itemMerge()
			o.Hook = hook
			_, err := tab.Merge(ctx, itemRows(item{ID: "x", Seq: turn}), o)
			return err
		}},
		{"restore", func(tab *Table, turn int64, hook func(string)) error {
			_, err := tab.Restore(ctx, 0, RestoreOptions{Hook: hook})
			return err
		}},
		{"properties", func(tab *Table, turn int64, hook func(string)) error {
			_, err := tab.SetProperties(ctx, map[string]string{"mine": fmt.Sprint(turn)}, AlterOptions{Hook: hook})
			return err
		}},
	} {
		other := newItems(t, tempStore(t), true, nil)
		mustMerge(t, other, itemMerge(), item{ID: "a", Seq: 1})
		var pauses []time.Duration
		var after error
		o := &Options{Jitter: func() float64 { return 1 }, Sleep: func(_ context.Context, d time.Duration) error {
			pauses = append(pauses, d)
			return after
		}}
		tab, err := Open(ctx, other.Store(), other.Path(), o)
		if err != nil {
			t.Fatal(err)
		}
		races := 0
		hook := func(phase string) {
			if phase == "before-commit" && races < lost {
				races++
				if _, err := other.SetProperties(ctx, map[string]string{"theirs": fmt.Sprint(races)}, AlterOptions{}); err != nil {
					t.Error(err)
				}
			}
		}
		if err := c.run(tab, 1, hook); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		// Each planning pauses once for its commit, which tells that it was lost, and once more when that cannot be mended.
		if races != lost || len(pauses) != 2*lost {
			t.Errorf("%s: %d races lost, %d pauses %v", c.name, races, len(pauses), pauses)
			continue
		}
		for i := 3; i < len(pauses); i += 2 {
			if pauses[i] <= pauses[i-2] {
				t.Errorf("%s: the pauses do not grow: %v", c.name, pauses)
				break
			}
		}
		mustMerge(t, other, itemMerge(), item{ID: "b", Seq: 1})
		races, after = 0, context.Canceled
		if err := c.run(tab, 2, hook); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: cancelled while it paused: %v", c.name, err)
		}
	}
}

// TestSlowPlanningIsTriedAgain: an operation that takes longer than MaxWait and loses is planned anew; one that loses
// again and again gives up when MaxWait has passed since the first time.
func TestSlowPlanningIsTriedAgain(t *testing.T) {
	ctx := context.Background()
	for name, run := range map[string]func(tab *Table, hook func(string)) error{
		"update": func(tab *Table, hook func(string)) error {
			_, err := tab.Update(ctx, UpdateOptions{ChangeOptions: ChangeOptions{Hook: hook}, Set: []Assignment{{"val", expr.Lit("new")}}})
			return err
		},
		"merge": func(tab *Table, hook func(string)) error {
			o := itemMerge()
			o.Hook = hook
			_, err := tab.Merge(ctx, itemRows(item{ID: "a", Seq: 2, Val: "new"}), o)
			return err
		},
	} {
		other := newItems(t, tempStore(t), true, nil)
		mustMerge(t, other, itemMerge(), item{ID: "a", Seq: 1, Val: "old"})
		now := time.Now()
		tab, err := Open(ctx, other.Store(), other.Path(), noSleep(Options{MaxWait: time.Minute, Clock: func() time.Time { return now }}))
		if err != nil {
			t.Fatal(err)
		}
		left, plannings := 0, 0
		hook := func(phase string) {
			if phase != "before-commit" {
				return
			}
			plannings++
			now = now.Add(90 * time.Second)
			if left--; left >= 0 {
				if _, err := other.SetProperties(ctx, map[string]string{"theirs": fmt.Sprint(left)}, AlterOptions{}); err != nil {
					t.Error(err)
				}
			}
		}
		left = 100
		if err := run(tab, hook); !errors.Is(err, ErrTooManyTries) || plannings != 2 {
			t.Errorf("%s: %d plannings: %v", name, plannings, err)
		}
		left, plannings = 1, 0
		if err := run(tab, hook); err != nil || plannings != 2 {
			t.Errorf("%s: %d plannings: %v", name, plannings, err)
		}
	}
}
