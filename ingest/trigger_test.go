package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/pipeline"
)

// slowReader is a reader of a topic whose acknowledgement takes its time, as merging a large batch would.
type slowReader struct {
	*reader
	work time.Duration
}

func (r slowReader) Committed(ctx context.Context, pos map[int32]ingest.Position) error {
	time.Sleep(r.work)
	return r.reader.Committed(ctx, pos)
}

// filtering is an engine that leaves every record out, so that what is tested is when commits are made. DuckDB calls back
// from threads that no bubble of synctest knows.
type filtering struct{}

func (filtering) Delta() delta.Engine { return delta.PureGo() }

func (filtering) NewEpoch(_ context.Context, plan *pipeline.Plan, _ time.Time) (ingest.Epoch, error) {
	return &filteringEpoch{schema: plan.Table.DeltaSchema()}, nil
}

func (filtering) ReleaseMemory() {}

// noRows are unique by any key.
type noRows struct{ *delta.MemoryRows }

func (noRows) UniqueBy([]string) bool { return true }

type filteringEpoch struct {
	schema *delta.Schema
	read   int64
}

func (e *filteringEpoch) AddFile(context.Context, *pipeline.RawFile) error {
	return errors.New("no files")
}

func (e *filteringEpoch) AddRecords(_ context.Context, recs []pipeline.Record) error {
	e.read += int64(len(recs))
	return nil
}

func (e *filteringEpoch) Finish(context.Context) (*ingest.EpochResult, error) {
	return &ingest.EpochResult{Rows: noRows{delta.NewRows(e.schema.Arrow())}, Read: e.read, Filtered: e.read}, nil
}

func (e *filteringEpoch) Close() error { return nil }

// TestCommitsAreOneTriggerApart: with events that come all the time, commits are one trigger apart, however long the work
// on each takes, unless it takes longer; a batch that is full is committed at once.
func TestCommitsAreOneTriggerApart(t *testing.T) {
	lake := newWorld(t, tradesLake).cfg.Lake
	for _, c := range []struct {
		name          string
		trigger, work time.Duration
		every         time.Duration // between two events
		rowsMax       int
		want          time.Duration
	}{
		{"template", 30 * time.Second, 0, 700 * time.Millisecond, 0, 30 * time.Second},
		{"work counts into the trigger", 30 * time.Second, 11 * time.Second, 700 * time.Millisecond, 0, 30 * time.Second},
		{"quick", 250 * time.Millisecond, 20 * time.Millisecond, 10 * time.Millisecond, 0, 250 * time.Millisecond},
		{"work takes longer", 250 * time.Millisecond, time.Second, 100 * time.Millisecond, 0, time.Second},
		{"rows end a batch", 30 * time.Second, 0, time.Second, 10, 10 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, err := ingest.New(ingest.Config{Lake: lake, Store: objstore.NewMemory(nil), Engine: filtering{}})
				if err != nil {
					t.Fatal(err)
				}
				p := newTopic("trades")
				ctx, cancel := context.WithCancel(t.Context())
				const commits = 12
				var publishing sync.WaitGroup
				defer publishing.Wait()
				publishing.Go(func() {
					for i := 0; ctx.Err() == nil; i++ {
						trade(p, fmt.Sprint("t", i), "1", i%60)
						time.Sleep(c.every)
					}
				})
				var at []time.Time
				err = l.RunStream(ctx, slowReader{p.reader(), c.work}, ingest.StreamOptions{
					Source: "live", Trigger: c.trigger, RowsMax: c.rowsMax, NoMaintenance: true, OnEpoch: func(ingest.StreamReport) {
						if at = append(at, time.Now()); len(at) == commits {
							cancel()
						}
					},
				})
				if err != nil || len(at) != commits {
					t.Fatalf("%d commits, %v", len(at), err)
				}
				for i := 2; i < len(at); i++ { // the first does not wait, so that what is there is seen at once
					if d := at[i].Sub(at[i-1]); d < c.want*99/100 || d > c.want*101/100 {
						t.Errorf("commit %d came %s after the one before, want %s", i+1, d, c.want)
					}
				}
			})
		})
	}
}
