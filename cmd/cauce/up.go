package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/cauce-data/cauce/connect/spool"
	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/pipeline"
	"github.com/cauce-data/cauce/schedule"
)

// Pauses before a part of `up` that failed is started again.
const (
	restartPauseMin = time.Second
	restartPauseMax = time.Minute
)

func newUp(a *app) *cobra.Command {
	var u up
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run everything in one process: producers, streams, the nightly batch, maintenance, SQL for others",
		Long: `Run everything that the lake file names in one process: the producer of each stream that has one, the
streams, the repair of what they miss, the tasks of its schedule at their times, and PostgreSQL's protocol where serve.pg_listen
names an address. What fails is tried again; a gap in a source or a broken
rule with on_fail: fail ends the process with its exit code. Stops cleanly on SIGINT and SIGTERM.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			u.a = a
			a.verbose = a.verbose || !a.quiet // an operator's log is the point of a long-running process
			u.log = a.logger()
			if err := positive(cmd, "trigger"); err != nil {
				return err
			}
			if err := checkAddress("rest-url", u.restURL, "http", "https"); err != nil {
				return err
			}
			l, err := a.openWatched(cmd.Context(), u.listen, true)
			if err != nil {
				return err
			}
			defer l.Close()
			release, err := lockUp(l.Lake)
			if err != nil {
				return err
			}
			defer release()
			u.l = l
			return u.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&u.url, "url", "", "`address` for the producers instead of the lake file's")
	f.StringVar(&u.restURL, "rest-url", "", "HTTP `address` for repairs instead of the lake file's")
	f.StringVar(&u.listen, "metrics-listen", "", metricsListen+"; the lake file's metrics.listen is the default")
	f.StringVar(&u.shares, "share-listen", "", "serve shares on this `address` of this machine, such as "+defaultShareListen+" (default: none; cauce share serve has TLS)")
	f.StringVar(&u.pages, "http-listen", "", httpListen)
	f.BoolVar(&u.noRepair, "no-repair", false, "do not fetch what the tables lack")
	f.BoolVar(&u.noProduce, "no-produce", false, "do not start producers")
	f.BoolVar(&u.batchNow, "batch-now", false, "run the batch once at the start as well")
	f.DurationVar(&u.trigger, "trigger", 0, "time between micro-batches (default: the lake file's)")
	return cmd
}

type up struct {
	a         *app
	l         *lake
	log       *slog.Logger
	url       string
	restURL   string
	listen    string
	shares    string
	pages     string
	noProduce bool
	noRepair  bool
	batchNow  bool
	trigger   time.Duration
	totals    []*streamTotals
}

func (u *up) run(ctx context.Context) error {
	start := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	var streams []*pipeline.Source
	for _, s := range u.l.Sources {
		if s.Streaming() {
			streams = append(streams, s)
		}
	}
	u.l.watch.watchTables(ctx, u.l)
	if err := u.oneKind(streams); err != nil {
		return err
	}
	if len(streams) > 0 {
		st := u.a.streams(u.l.Lake)
		defer st.Close()
		if slices.ContainsFunc(streams, func(s *pipeline.Source) bool { return s.Kind == pipeline.KindEmbedded }) {
			u.l.watch.watchBuffer(ctx, st)
		}
		for _, src := range streams {
			switch p := src.Produce; {
			case p == nil || u.noProduce:
			case p.Kind == pipeline.ProduceX && p.Token == "":
				u.log.Warn("producer "+src.Name+" is not started: X wants a bearer token, and produce.token is empty", "lake", u.l.File)
			default:
				g.Go(func() error {
					return u.keep(ctx, "producer "+src.Name, func() error { return u.produce(ctx, st, src) })
				})
			}
			totals := newStreamTotals(src.Name)
			u.totals = append(u.totals, totals)
			u.l.watch.watchStream(ctx, st, src)
			g.Go(func() error {
				return u.keep(ctx, "stream "+src.Name, func() error { return u.stream(ctx, st, src, totals) })
			})
		}
	}
	for _, src := range streams {
		if src.Repair == nil || u.l.Table(src.Table).Ledger == nil || u.noRepair {
			continue
		}
		f := u.fetcher(src)
		g.Go(func() error {
			return u.keep(ctx, "repair "+src.Name, func() error { return u.repair(ctx, src, f) })
		})
	}
	sched, err := u.schedule(true)
	if err != nil {
		return err
	}
	g.Go(func() error { return sched.Run(ctx) })
	if u.shares != "" {
		g.Go(func() error { return u.a.serveShares(ctx, u.l, shareServer{listen: u.shares}) })
	}
	if u.batchNow {
		g.Go(func() error { return u.fatal(sched.Now(ctx, pipeline.RunBatch)) })
	}
	if o := u.l.Lake.Serve; o.PGListen != "" || o.FlightListen != "" || u.pages != "" {
		d, err := u.a.openDoor(u.l, o.PGListen, o.FlightListen)
		if err != nil {
			return err
		}
		served := make(chan struct{})
		g.Go(func() error { defer close(served); return u.a.serveWeb(ctx, u.l, u.pages, d, sched) })
		g.Go(func() error {
			err := d.serve(ctx)
			<-served
			return errors.Join(err, d.close())
		})
	}
	u.log.Info("up", "lake", u.l.File, "streams", len(streams), "tasks", u.times())
	err = g.Wait()
	if err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	u.log.Info("stopped", "after", time.Since(start).Round(time.Second).String())
	if u.totals == nil {
		u.totals = []*streamTotals{}
	}
	return u.a.print(struct {
		Streams []*streamTotals `json:"streams"`
		Seconds float64         `json:"seconds"`
	}{u.totals, time.Since(start).Seconds()}, func(w io.Writer) error {
		for _, t := range u.totals {
			if _, err := fmt.Fprintln(w, t.line()); err != nil {
				return err
			}
		}
		return nil
	})
}

// keep runs a part until ctx ends, again after each failure, with growing pauses. What trying again cannot mend (bad
// configuration, a gap, a broken rule) ends everything.
func (u *up) keep(ctx context.Context, name string, part func() error) error {
	pause := restartPauseMin
	for {
		began := time.Now()
		u.l.watch.begin(name, nil)
		err := part()
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			err = errors.New("it ended by itself")
		}
		if fatal := u.fatal(err); fatal != nil {
			return fmt.Errorf("%s: %w", name, fatal)
		}
		if time.Since(began) > restartPauseMax {
			pause = restartPauseMin
		}
		u.l.watch.restarted(name, err)
		u.log.Error(name+" failed and is started again", "error", err, "pause", pause.String())
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, restartPauseMax)
	}
}

// fatal gives err back if trying again cannot mend it. Rights that a bucket's owner grants count from then on without a
// change here.
func (u *up) fatal(err error) error {
	if errors.Is(err, objstore.ErrDenied) {
		return nil
	}
	switch exitCode(err) {
	case 0, exitFailure, 5:
		return nil
	}
	return err
}

// oneKind refuses an address for producers that cannot share one.
func (u *up) oneKind(streams []*pipeline.Source) error {
	kind := ""
	for _, s := range streams {
		if s.Produce == nil || u.url == "" || u.noProduce {
			continue
		}
		if kind != "" && kind != s.Produce.Kind {
			return usagef("--url names one address, and the lake file has producers of kind %s and %s; give each its own produce.url", kind, s.Produce.Kind)
		}
		kind = s.Produce.Kind
	}
	if kind != "" {
		return checkAddress("url", u.url, pipeline.ProduceSchemes(kind)...)
	}
	return nil
}

func (u *up) produce(ctx context.Context, st *streams, src *pipeline.Source) error {
	p := *src.Produce
	if u.url != "" {
		p.URL = u.url
	}
	live, err := st.producer(ctx, src, p, u.log)
	if errors.Is(err, spool.ErrBusy) {
		return errors.New(err.Error()) // no reason to end everything: the other one may end, and then it is tried again
	}
	if err != nil {
		return err
	}
	u.l.watch.produce(src.Name, live.stats)
	return errors.Join(live.run(ctx), live.close())
}

func (u *up) stream(ctx context.Context, st *streams, src *pipeline.Source, totals *streamTotals) error {
	s, err := st.source(ctx, src)
	if err != nil {
		return err
	}
	defer s.Close()
	return u.l.ingest.RunStream(ctx, s, ingest.StreamOptions{
		Source: src.Name, Trigger: u.trigger, OnEpoch: func(r ingest.StreamReport) {
			totals.add(r)
			u.log.Info("stream "+src.Name, "version", int64(r.Version), "rows", r.RowsRead, "inserted", r.RowsInserted,
				"updated", r.RowsUpdated, "quarantined", r.RowsQuarantined, "seconds", r.Seconds)
		},
	})
}

// schedule makes the scheduler of the lake file's tasks.
func (u *up) schedule(alerts bool) (*schedule.Scheduler, error) {
	o := schedule.Options{Dir: runsDir(u.l.Lake), Log: u.log}
	if alerts && u.l.Schedule.AlertURL != "" {
		o.Notify = func(e schedule.Event, r schedule.Run) {
			if err := sendAlert(context.Background(), u.l.Lake, schedule.AlertOf(e, r)); err != nil {
				u.log.Error("nobody could be told of a run", "task", r.Task, "run", r.ID, "event", string(e), "error", err)
			}
		}
	}
	s := schedule.New(o)
	tasks := u.l.Schedule.Tasks
	for _, name := range []string{pipeline.RunMaintenance, pipeline.RunBatch} { // without a time: for those who ask for a run
		if u.l.Schedule.Task(name) == nil {
			tasks = append([]*pipeline.Task{{Name: name, Run: name}}, tasks...)
		}
	}
	for _, p := range tasks {
		if err := s.Add(u.task(p)); err != nil {
			return nil, usagef("schedule: %w", err)
		}
	}
	return s, nil
}

// task is one task of the lake file. What trying again cannot mend is not tried again.
func (u *up) task(p *pipeline.Task) schedule.Task {
	var t schedule.Task
	switch p.Run {
	case pipeline.RunMaintenance:
		t = maintenanceTask(u.l, p.Tables)
	default:
		t = batchTask(u.l, ingest.BatchOptions{Sources: p.Sources})
		batch := t.Run
		t.Run = func(ctx context.Context, r *schedule.Run) error {
			err := batch(ctx, r)
			if err == nil {
				u.statements(ctx)
			}
			return err
		}
	}
	run := t.Run
	t.Run = func(ctx context.Context, r *schedule.Run) error {
		defer u.l.engine.ReleaseMemory() // the streams beside it need a part of what it took
		return run(ctx, r)
	}
	t.Name, t.Cron, t.Location, t.After = p.Name, p.Cron, p.Timezone, p.After
	t.Retries, t.Backoff, t.Timeout, t.CatchUp = p.Retries, p.Backoff, p.Timeout, p.CatchUp == pipeline.CatchUpOnce
	t.Redact, t.ExitCode = u.l.Redact, exitCode
	t.Retryable = func(err error) bool { return u.fatal(err) == nil }
	return t
}

// times tells when tasks run.
func (u *up) times() string {
	var out []string
	for _, t := range u.l.Schedule.Tasks {
		switch {
		case len(t.After) > 0:
			out = append(out, t.Name+" after "+strings.Join(t.After, ", "))
		default:
			if next, err := schedule.Next(t.Cron, t.Timezone, time.Now()); err == nil {
				out = append(out, t.Name+" at "+next.Format(time.RFC3339))
			}
		}
	}
	return strings.Join(out, "; ")
}
