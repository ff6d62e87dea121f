package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/internal/demodata"
	"github.com/cauce-data/cauce/objstore/usage"
	"github.com/cauce-data/cauce/pipeline"
)

// Bounds of `cauce bench`.
const (
	benchRowsMax    = 20_000_000 // the history is made in memory, some 90 bytes a row
	benchBatchesMax = 10_000
	benchEventsMax  = 1_000_000
	benchKnown      = 10 // one event of so many has the key of a row that is there
)

func newBench(a *app) *cobra.Command {
	b := bench{a: a}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure what this machine and this storage give: history, micro-batches, queries, OPTIMIZE",
		Long: `Measure what this machine and this storage give. Sample history becomes a table, micro-batches of events are
merged into it, one event of ten with the key of a row that is there, queries are asked and the small files packed, each
step with its seconds, its rows a second and, in a bucket, its requests and bytes.

It works in a lake of its own: in a temporary folder, or under --root, where nothing may be yet. All that it wrote is
deleted at the end, unless --keep is given. Nothing else should run meanwhile; a figure is of one run.`,
		Example: `  cauce bench
  cauce bench --rows 5000000 --batches 50
  cauce bench --root s3://my-bucket/bench --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("lake") {
				return usagef("bench works in a lake of its own, so that no figure of it stands in yours; --root names the storage to measure")
			}
			for _, n := range []struct {
				flag        string
				value, most int
			}{{"rows", b.rows, benchRowsMax}, {"batches", b.batches, benchBatchesMax}, {"events", b.events, benchEventsMax}} {
				if n.value < 1 || n.value > n.most {
					return usagef("--%s %d: it must be between 1 and %s", n.flag, n.value, thousands(int64(n.most)))
				}
			}
			return b.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.IntVar(&b.rows, "rows", 500_000, "rows of history")
	f.IntVar(&b.batches, "batches", 20, "micro-batches")
	f.IntVar(&b.events, "events", 10_000, "events of a micro-batch")
	f.Uint64Var(&b.seed, "seed", 1, "what history and events are made from")
	f.BoolVar(&b.keep, "keep", false, "leave the lake where it is")
	return cmd
}

type bench struct {
	a                     *app
	rows, batches, events int
	seed                  uint64
	keep                  bool

	dir     string
	l       *lake
	history *demodata.History
	steps   []benchStep
}

// benchStep is one line of the report.
type benchStep struct {
	Step        string      `json:"step"`
	Rows        int64       `json:"rows"`
	Seconds     float64     `json:"seconds"`
	MedianMS    float64     `json:"median_ms,omitempty"` // of a micro-batch, from one commit to the next
	MaxMS       float64     `json:"max_ms,omitempty"`
	FilesOpened *int        `json:"files_opened,omitempty"` // of a query
	FilesTotal  *int        `json:"files_total,omitempty"`
	FilesPacked *int        `json:"files_packed,omitempty"` // by OPTIMIZE
	Requests    usage.Usage `json:"requests,omitempty"`     // of the storage's server, by kind
}

func (b *bench) run(ctx context.Context) (err error) {
	if b.dir, err = os.MkdirTemp("", "cauce-bench-"); err != nil {
		return fmt.Errorf("folder of the measurement: %w", err)
	}
	defer func() {
		if !b.keep {
			err = errors.Join(err, os.RemoveAll(b.dir))
		}
	}()
	text, err := pipeline.Template("crypto", "")
	if err != nil {
		return err
	}
	b.a.lakeFile = filepath.Join(b.dir, "lake.yaml")
	if err := os.WriteFile(b.a.lakeFile, []byte(text), 0o644); err != nil {
		return fmt.Errorf("lake file: %w", err)
	}
	def, err := b.a.loadLake()
	if err != nil {
		return err
	}
	if b.l, err = b.a.open(ctx, def); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.l.Close()) }()
	if err := b.l.mustBeEmpty(ctx); err != nil {
		return err
	}
	defer func() {
		if !b.keep {
			// Also after an interruption, or the next measurement would find the place in use.
			err = errors.Join(err, b.l.deleteAll(context.WithoutCancel(ctx)))
		}
	}()
	for _, step := range []func(context.Context) error{b.load, b.merge, b.queries, b.optimize} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return b.report()
}

// measure times a step and counts its requests.
func (b *bench) measure(name string, work func(*benchStep) error) error {
	b.a.note("%s …", name)
	s := benchStep{Step: name}
	asked, start := usage.Of(b.l.store), time.Now()
	if err := work(&s); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	s.Seconds, s.Requests = time.Since(start).Seconds(), requests(b.l.store, asked)
	b.steps = append(b.steps, s)
	return nil
}

// load lands the sample history and has a batch read it.
func (b *bench) load(ctx context.Context) error {
	const days = 6
	perDay := max(1, b.rows/(days*len(demodata.Symbols)))
	var err error
	if b.history, err = demodata.Generate(demodata.Options{Seed: b.seed, Today: time.Now(), TradesPerDay: perDay}); err != nil {
		return err
	}
	var paths []string
	for _, f := range b.history.Files {
		path := filepath.Join(b.dir, f.Name)
		if err := os.WriteFile(path, f.Data, 0o644); err != nil {
			return fmt.Errorf("sample history: %w", err)
		}
		paths = append(paths, path)
	}
	b.history.Files = nil // as large as the history
	if err := b.measure("land files", func(s *benchStep) error {
		landed, err := b.l.ingest.Land(ctx, paths, ingest.LandOptions{})
		s.Rows = int64(b.history.Records)
		if err == nil && len(landed.Files) != len(paths) {
			err = fmt.Errorf("%d of %d files landed", len(landed.Files), len(paths))
		}
		return err
	}); err != nil {
		return err
	}
	return b.measure("batch", func(s *benchStep) error {
		r, err := b.l.ingest.RunBatch(ctx, ingest.BatchOptions{})
		if err != nil {
			return err
		}
		s.Rows = r.RowsRead
		if len(r.FailedFiles) > 0 {
			return failedFiles(r)
		}
		return nil
	})
}

// merge puts the events into the buffer, where they cost the stream nothing any more, and merges them.
func (b *bench) merge(ctx context.Context) error {
	src, err := streamSource(b.l.Lake, "", "")
	if err != nil {
		return err
	}
	st := b.a.streams(b.l.Lake)
	defer st.Close()
	out, err := st.sink(ctx, src)
	if err != nil {
		return err
	}
	if err := errors.Join(b.publish(ctx, out), out.Close()); err != nil {
		return err
	}
	in, err := st.source(ctx, src)
	if err != nil {
		return err
	}
	defer in.Close()
	return b.measure("micro-batches", func(s *benchStep) error {
		var ms []float64
		last := time.Now()
		err := b.l.ingest.RunStream(ctx, in, ingest.StreamOptions{
			Source: src.Name, AvailableNow: true, RowsMax: b.events,
			OnEpoch: func(r ingest.StreamReport) {
				s.Rows += r.RowsRead
				ms = append(ms, float64(time.Since(last).Microseconds())/1e3)
				last = time.Now()
			},
		})
		if len(ms) > 0 {
			slices.Sort(ms)
			s.MedianMS, s.MaxMS = ms[len(ms)/2], ms[len(ms)-1]
		}
		return err
	})
}

// publish sends the events of all micro-batches: trades that follow the history, and some of its last ones again.
func (b *bench) publish(ctx context.Context, out sink) error {
	r := rand.New(rand.NewPCG(b.seed, 0xbe9c4))
	now, next := time.Now(), map[string]int64{}
	for _, s := range demodata.Symbols {
		next[s.Name] = b.history.NextID[s.Name]
	}
	for i := range b.batches * b.events {
		symbol := demodata.Symbols[i%len(demodata.Symbols)].Name
		id := next[symbol]
		if back := r.Int64N(1000) + 1; i%benchKnown == 0 && id > b.history.NextID[symbol]-1 {
			id -= back
		} else {
			next[symbol]++
		}
		cents := b.history.LastPrice[symbol] + r.Int64N(100)
		at := now.Add(time.Duration(i) * time.Microsecond)
		event := fmt.Sprintf(`{"e":"trade","E":%d,"s":"%s","t":%d,"p":"%d.%02d","q":"0.%05d","T":%d,"m":%t}`,
			at.UnixMilli(), symbol, id, cents/100, cents%100, r.IntN(100_000)+1, at.UnixMilli(), r.IntN(2) == 0)
		if err := out.Publish(ctx, []byte(symbol), "bench-"+strconv.Itoa(i), []byte(event)); err != nil {
			return err
		}
	}
	return out.Flush(ctx)
}

// queries asks for everything, and for one symbol of one day.
func (b *bench) queries(ctx context.Context) error {
	yesterday := time.Now().UTC().AddDate(0, 0, -1).Format(time.DateOnly)
	for _, q := range []struct{ name, sql string }{
		{"query of all rows", `SELECT symbol, count(*), sum(price::DOUBLE * quantity) FROM unified_events GROUP BY symbol`},
		{"query of one day", `SELECT count(*), max(price) FROM unified_events WHERE event_date = DATE '` + yesterday + `' AND symbol = 'BTCUSDT'`},
	} {
		if err := b.measure(q.name, func(s *benchStep) error {
			r, err := b.l.query(ctx, q.sql, "")
			if err != nil {
				return err
			}
			defer r.Close()
			for batch, err := range r.Batches(ctx) {
				if err != nil {
					return err
				}
				s.Rows += batch.NumRows()
			}
			s.FilesOpened, s.FilesTotal = &r.FilesOpened, &r.FilesTotal
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// optimize packs what the micro-batches left.
func (b *bench) optimize(ctx context.Context) error {
	return b.measure("OPTIMIZE", func(s *benchStep) error {
		t, err := b.l.ingest.Catalog().Open(ctx, demoTable)
		if err != nil {
			return err
		}
		r, err := t.Optimize(ctx, delta.OptimizeOptions{SortBy: b.a.clusterBy(demoTable)})
		if err != nil {
			return err
		}
		s.FilesPacked = &r.FilesRemoved
		return nil
	})
}

func (b *bench) report() error {
	result := struct {
		Storage string      `json:"storage"`
		Kept    string      `json:"kept,omitempty"` // folder of the lake file, with --keep
		Steps   []benchStep `json:"steps"`
	}{Storage: b.l.Storage, Steps: b.steps}
	if b.keep {
		result.Kept = b.dir
	}
	return b.a.print(result, func(w io.Writer) error {
		fmt.Fprintf(w, "storage %s\n", b.l.Storage)
		g := newGrid("step", "rows", "seconds", "rows a second", "median ms", "max ms", "files", "requests", "bytes").right(1, 2, 3, 4, 5, 6, 7, 8)
		for _, s := range b.steps {
			row := []string{s.Step, thousands(s.Rows), fmt.Sprintf("%.3f", s.Seconds), "", "", "", "", "", ""}
			if s.Rows > 0 && s.FilesOpened == nil {
				row[3] = thousands(int64(float64(s.Rows) / s.Seconds))
			}
			if s.MedianMS > 0 {
				row[4], row[5] = fmt.Sprintf("%.0f", s.MedianMS), fmt.Sprintf("%.0f", s.MaxMS)
			}
			for _, files := range []*int{s.FilesOpened, s.FilesPacked} {
				if files != nil {
					row[6] = thousands(int64(*files))
				}
			}
			if total := s.Requests.Total(); total.Requests > 0 {
				row[7], row[8] = thousands(total.Requests), thousands(total.Bytes)
			}
			g.row(row...)
		}
		if err := g.write(w); err != nil {
			return err
		}
		if b.keep {
			fmt.Fprintf(w, "the lake stays: cauce --lake %s status\n", shellQuote(b.a.lakeFile))
		}
		return nil
	})
}
