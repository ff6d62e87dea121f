package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/cauce-data/cauce/catalog"
	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/objstore/usage"
	"github.com/cauce-data/cauce/pipeline"
	"github.com/cauce-data/cauce/schedule"
)

func newRun(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "run",
		Short: "Take new files or live events into the tables",
	}, newRunBatch(a), newRunStream(a), newRunMaintenance(a))
}

func newRunBatch(a *app) *cobra.Command {
	var (
		o     ingest.BatchOptions
		since string
		id    string
		now   bool
	)
	cmd := &cobra.Command{
		Use:   "batch [SOURCE…]",
		Short: "Take the files that are new under raw/batch/ into the tables",
		Long: `Take the files that are new into the tables: each once, whatever its name. A second run does nothing.
A file that cannot be read as a whole stays unread, the others go on, and the run ends with exit code 1.
Rows that fail a rule go to quarantine; they alone do not fail the run.

--reprocess reads known files again with the lake file as it is now; --file and --since narrow which.

A batch that another process runs on this machine is waited for. The run goes into the history (cauce runs).
--run-id names it there, for orchestrators: a run of that name that has succeeded is not repeated, its report is
printed again; one that failed or was interrupted goes on.`,
		Example: `  cauce run batch
  cauce run batch --reprocess --file "historico_2024-08-*"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Sources = args
			if err := checkRunID(id); err != nil {
				return err
			}
			if since != "" {
				t, err := parseTime(since)
				if err != nil {
					return usagef("--since: %w", err)
				}
				o.Since = t
			}
			if !o.Reprocess && (o.FileGlob != "" || since != "") {
				return usagef("--file and --since narrow a --reprocess; without it every new file is read")
			}
			l, err := a.openLake(cmd.Context())
			if err != nil {
				return err
			}
			defer l.Close()
			for _, name := range args {
				if s := l.Source(name); s == nil || s.Streaming() {
					return usagef("source %q: %s has no source of files with that name; it has %s", name, l.File, list(fileSources(l.Lake)))
				}
			}
			return a.runBatch(cmd.Context(), l, o, asked(cmd, args), id)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&now, "now", false, "run at once, as a manual run always does; schedulers may say so")
	f.BoolVar(&o.Reprocess, "reprocess", false, "read files again that were read before")
	f.StringVar(&o.FileGlob, "file", "", "with --reprocess: only files whose name matches this `pattern`")
	f.StringVar(&since, "since", "", "with --reprocess: only files modified since this `date`")
	addRunID(cmd, &id)
	return cmd
}

func addRunID(cmd *cobra.Command, id *string) {
	cmd.Flags().StringVar(id, "run-id", "", "`ID` of the run, as an orchestrator knows it: what has succeeded under it is not repeated")
}

func checkRunID(id string) error {
	if id == "" {
		return nil
	}
	if err := schedule.CheckID(id); err != nil {
		return usagef("--%w", err)
	}
	return nil
}

// asked is a command line as the history keeps it where it does not ask for just what the lake file's task does; "" else.
func asked(cmd *cobra.Command, args []string) string {
	words := append([]string{cmd.CommandPath()}, args...)
	for _, name := range []string{"reprocess", "file", "since"} {
		if f := cmd.Flags().Lookup(name); f != nil && f.Changed {
			words = append(words, "--"+name+"="+f.Value.String())
		}
	}
	if len(words) == 1 {
		return ""
	}
	return strings.Join(words, " ")
}

// record runs a task once, as a run of the history.
func (a *app) record(ctx context.Context, l *pipeline.Lake, t schedule.Task, id string) (*schedule.Run, error) {
	t.Redact, t.ExitCode = l.Redact, exitCode
	return schedule.Do(ctx, t, schedule.DoOptions{Dir: runsDir(l), ID: id, Log: a.logger(), Waiting: func(pid string) {
		a.note("%s: process %s runs it; waiting for its end", t.Name, pid)
	}})
}

func newRunMaintenance(a *app) *cobra.Command {
	var id string
	cmd := &cobra.Command{
		Use:   "maintenance [TABLE…]",
		Short: "Pack small files, and delete those that nothing needs, as the lake file's maintenance says",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkRunID(id); err != nil {
				return err
			}
			l, err := a.openLake(cmd.Context())
			if err != nil {
				return err
			}
			defer l.Close()
			for _, name := range args {
				if l.Table(name) == nil && name != catalog.Quarantine {
					return usagef("table %q: %s has no such table; it has %s", name, l.File, list(tableNames(l.Lake)))
				}
			}
			task := maintenanceTask(l, args)
			task.Command = asked(cmd, args)
			run, err := a.record(cmd.Context(), l.Lake, task, id)
			if run == nil || err != nil {
				return err
			}
			return a.print(run.Result, func(w io.Writer) error {
				var r ingest.MaintainReport
				if err := json.Unmarshal(run.Result, &r); err != nil {
					return err
				}
				for _, name := range slices.Sorted(maps.Keys(r.Tables)) {
					t := r.Tables[name]
					if _, err := fmt.Fprintf(w, "table %s: %s packed into %d, %s deleted, version %d\n", name,
						count(int64(t.FilesRemoved), "file"), t.FilesAdded, count(int64(t.FilesVacuumed), "file"), t.Version); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	addRunID(cmd, &id)
	return cmd
}

// maintenanceTask is maintenance of some tables, or of all.
func maintenanceTask(l *lake, tables []string) schedule.Task {
	return schedule.Task{
		Name: pipeline.RunMaintenance,
		Run: func(ctx context.Context, run *schedule.Run) error {
			r, err := l.ingest.WithLog(run.Log).Maintain(ctx, ingest.MaintainOptions{Tables: tables})
			if r != nil {
				run.SetResult(r)
				for name, t := range r.Tables {
					run.Log.Info("table "+name, "files_removed", t.FilesRemoved, "files_added", t.FilesAdded, "files_vacuumed", t.FilesVacuumed, "version", int64(t.Version))
				}
			}
			return err
		},
	}
}

// batchTask is a batch as a task: its report is the run's result, what it does is logged, and files that could not be
// read are an error.
func batchTask(l *lake, o ingest.BatchOptions) schedule.Task {
	return schedule.Task{
		Name: pipeline.RunBatch,
		Run: func(ctx context.Context, run *schedule.Run) error {
			told := o.OnEpoch
			o.OnEpoch = func(r ingest.EpochReport) {
				run.Log.Info("batch "+r.Source, "epoch", r.Epoch, "version", int64(r.Version), "rows", r.RowsRead, "inserted", r.RowsInserted,
					"updated", r.RowsUpdated, "quarantined", r.RowsQuarantined, "seconds", r.Seconds)
				if told != nil {
					told(r)
				}
			}
			defer func() { o.OnEpoch = told }()
			r, err := l.ingest.WithLog(run.Log).RunBatch(ctx, o)
			run.SetResult(r)
			run.Log.Info("batch", "files", r.FilesRead, "known", r.FilesSkipped, "rows", r.RowsRead, "inserted", r.RowsInserted, "updated", r.RowsUpdated,
				"quarantined", r.RowsQuarantined, "version", int64(r.Version), "seconds", r.Seconds)
			for _, w := range r.Warnings {
				run.Log.Info(w)
			}
			if err == nil && len(r.FailedFiles) > 0 {
				err = failedFiles(r)
			}
			return err
		},
	}
}

func fileSources(l *pipeline.Lake) []string {
	var names []string
	for _, s := range l.Sources {
		if !s.Streaming() {
			names = append(names, s.Name)
		}
	}
	return names
}

// runBatch runs a batch as a recorded task, prints its report and turns files that could not be read into exit code 1.
// command is what asked gives.
func (a *app) runBatch(ctx context.Context, l *lake, o ingest.BatchOptions, command, id string) error {
	asked := usage.Of(l.store)
	var mu sync.Mutex
	var rows, epochs int64
	o.OnEpoch = func(r ingest.EpochReport) {
		mu.Lock()
		defer mu.Unlock()
		rows += r.RowsRead
		epochs++
	}
	stop := a.tick(func() string {
		mu.Lock()
		defer mu.Unlock()
		return fmt.Sprintf("batch: %d rows in %d commits", rows, epochs)
	})
	task := batchTask(l, o)
	task.Command = command
	run, err := a.record(ctx, l.Lake, task, id)
	stop()
	if run == nil || run.Result == nil {
		return err
	}
	report := &ingest.BatchReport{}
	if uerr := json.Unmarshal(run.Result, report); uerr != nil {
		return errors.Join(err, uerr)
	}
	a.noteRepeated(run)
	result := struct {
		*ingest.BatchReport
		Requests usage.Usage `json:"requests,omitempty"` // of the storage's server, by kind
		runOutcome
	}{report, requests(l.store, asked), outcome(run, err)}
	if perr := a.print(result, func(w io.Writer) error {
		if err != nil && report.Epochs == 0 && len(report.FailedFiles) == 0 {
			return nil // it ended before it could know whether there is something new
		}
		if err := printBatch(w, report); err != nil {
			return err
		}
		if line := describeRequests(result.Requests); line != "" {
			fmt.Fprintln(w, line)
		}
		return nil
	}); perr != nil {
		return perr
	}
	return err
}

// runOutcome is what the report of a recorded run says of the run itself.
type runOutcome struct {
	RunID    string `json:"run_id"`
	Repeated bool   `json:"repeated,omitempty"` // an earlier run of this id stands for this one
	Attempts int    `json:"attempts"`           // of the run, in this process and earlier ones
	Error    string `json:"error,omitempty"`
	ExitCode int    `json:"exit_code"`
}

func outcome(run *schedule.Run, err error) runOutcome {
	o := runOutcome{RunID: run.ID, Repeated: run.Repeated, Attempts: len(run.Attempts), ExitCode: exitCode(err)}
	if err != nil {
		o.Error = err.Error()
	}
	return o
}

func (a *app) noteRepeated(run *schedule.Run) {
	if run.Repeated {
		a.note("run %s succeeded at %s and is not repeated; this is its report", run.ID, timeText(run.Ended.Truncate(time.Second), true))
	}
}

// unread tells of files that could not be read.
func unread(n int) string {
	if n == 1 {
		return "1 file could not be read and stays unread; correct or remove it"
	}
	return count(int64(n), "file") + " could not be read and stay unread; correct or remove them"
}

// failedFiles is the error of a run that left files unread.
func failedFiles(r *ingest.BatchReport) error {
	var b strings.Builder
	b.WriteString(unread(len(r.FailedFiles)) + ":")
	for _, f := range r.FailedFiles {
		fmt.Fprintf(&b, "\n  %s: %s", f.File, f.Error)
	}
	return &reported{code: exitFailure, msg: b.String()}
}

func asJSON(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return b
}

// count renders "1 row", "2 rows".
func count(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%s %ss", thousands(n), what)
}

// thousands groups digits: 1,234,567.
func thousands(n int64) string {
	s := fmt.Sprint(n)
	neg := strings.HasPrefix(s, "-")
	s = strings.TrimPrefix(s, "-")
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	if neg {
		return "-" + s
	}
	return s
}

func printBatch(w io.Writer, r *ingest.BatchReport) error {
	if r.FilesRead == 0 && len(r.FailedFiles) == 0 {
		if _, err := fmt.Fprintf(w, "nothing new: %s known already\n", count(int64(r.FilesSkipped), "file")); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(w, "%s read, %s known already, in %.1f s\n", count(int64(r.FilesRead), "file"), thousands(int64(r.FilesSkipped)), r.Seconds)
		if err := printCounts(w, r.Counts); err != nil {
			return err
		}
		names := make([]string, 0, len(r.Tables))
		for name := range r.Tables {
			names = append(names, name)
		}
		sort.Strings(names)
		for _, name := range names {
			fmt.Fprintf(w, "table %s is at version %d\n", name, r.Tables[name].Version)
		}
	}
	rules := make([]string, 0, len(r.Warned))
	for rule := range r.Warned {
		rules = append(rules, rule)
	}
	sort.Strings(rules)
	for _, rule := range rules {
		fmt.Fprintf(w, "warning: %s did not satisfy %s\n", count(r.Warned[rule], "row"), rule)
	}
	for _, s := range r.Warnings {
		if _, err := fmt.Fprintf(w, "warning: %s\n", s); err != nil {
			return err
		}
	}
	return nil
}

func printCounts(w io.Writer, c ingest.Counts) error {
	_, err := fmt.Fprintf(w, "%s read: %s inserted, %s updated, %s unchanged, %s quarantined, %s filtered, %s deleted\n",
		count(c.RowsRead, "row"), thousands(c.RowsInserted), thousands(c.RowsUpdated), thousands(c.RowsUnchanged),
		thousands(c.RowsQuarantined), thousands(c.RowsFiltered), thousands(c.RowsDeleted))
	if err == nil && c.RowsRemoved > 0 {
		_, err = fmt.Fprintf(w, "%s of earlier readings replaced\n", count(c.RowsRemoved, "row"))
	}
	return err
}

// streamTotals adds up the micro-batches of one stream for its closing report.
type streamTotals struct {
	mu      sync.Mutex
	Source  string `json:"source"`
	Epochs  int64  `json:"epochs"`
	Version int64  `json:"version"`
	ingest.Counts
	Seconds float64           `json:"seconds"`
	Gaps    []json.RawMessage `json:"gaps"`
	// Requests are those of the storage's server, by kind.
	Requests usage.Usage `json:"requests,omitempty"`
	started  time.Time
}

func newStreamTotals(source string) *streamTotals {
	return &streamTotals{Source: source, Version: -1, Gaps: []json.RawMessage{}, started: time.Now()}
}

func (t *streamTotals) add(r ingest.StreamReport) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.Epochs++
	t.Version = int64(r.Version)
	t.RowsRead += r.RowsRead
	t.RowsInserted += r.RowsInserted
	t.RowsUpdated += r.RowsUpdated
	t.RowsUnchanged += r.RowsUnchanged
	t.RowsQuarantined += r.RowsQuarantined
	t.RowsFiltered += r.RowsFiltered
	t.RowsDeleted += r.RowsDeleted
	for _, g := range r.Gaps {
		t.Gaps = append(t.Gaps, asJSON(g))
	}
}

func (t *streamTotals) line() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return fmt.Sprintf("stream %s: %s in %s", t.Source, count(t.RowsRead, "event"), batchCount(t.Epochs))
}

func newRunStream(a *app) *cobra.Command {
	var (
		o      ingest.StreamOptions
		source string
		gap    string
		listen string
	)
	cmd := &cobra.Command{
		Use:   "stream",
		Short: "Take live events out of a topic into their table, in micro-batches",
		Long: `Take live events out of a topic (of the embedded buffer, Kafka or Pub/Sub) into their table. A micro-batch ends by time, rows or bytes, as the
lake file says; its rows and the progress are one commit, so a stopped or killed stream goes on without loss or
duplicates. Runs until it is stopped (SIGINT, SIGTERM); --available-now processes what is there and ends.

If the topic no longer holds events that the table has not seen, the stream stops with exit code 4 and names
them; --allow-gap SOURCE records the gap and goes on.`,
		Example: `  cauce run stream
  cauce run stream --available-now --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := positive(cmd, "trigger", "rows-max"); err != nil {
				return err
			}
			l, err := a.openWatched(cmd.Context(), listen, false)
			if err != nil {
				return err
			}
			defer l.Close()
			if gap != "" {
				if source != "" && source != gap {
					return usagef("--source %s and --allow-gap %s name different sources", source, gap)
				}
				source, o.AllowGap = gap, true
			}
			src, err := streamSource(l.Lake, source, "")
			if err != nil {
				return err
			}
			o.Source = src.Name
			ctx := cmd.Context()
			st := a.streams(l.Lake)
			defer st.Close()
			totals := newStreamTotals(src.Name)
			report := func() error {
				totals.Seconds = time.Since(totals.started).Seconds()
				totals.Requests = requests(l.store, nil)
				return a.print(totals, func(w io.Writer) error {
					fmt.Fprintf(w, "stream %s: %s in %s\n", totals.Source, count(totals.RowsRead, "event"), batchCount(totals.Epochs))
					if err := printCounts(w, totals.Counts); err != nil {
						return err
					}
					if line := describeRequests(totals.Requests); line != "" {
						fmt.Fprintln(w, line)
					}
					return nil
				})
			}
			// A stream runs until it is stopped, be it before it has begun to read.
			stopped := func(err error) bool {
				return !o.AvailableNow && errors.Is(err, context.Canceled) && ctx.Err() != nil
			}
			l.watch.begin(streamPart(src.Name), nil)
			stream, err := st.source(ctx, src)
			if stopped(err) {
				return report()
			}
			if err != nil {
				return err
			}
			defer stream.Close()
			o.OnEpoch = totals.add
			l.watch.watchStream(ctx, st, src)
			l.watch.watchTables(ctx, l)
			if src.Kind == pipeline.KindEmbedded {
				l.watch.watchBuffer(ctx, st)
			}
			if !o.AvailableNow {
				a.note("stream %s: reading topic %s; stop with Ctrl-C", src.Name, src.Topic)
			}
			stop := a.tick(totals.line)
			err = l.ingest.RunStream(ctx, stream, o)
			stop()
			if err != nil && !stopped(err) {
				return err
			}
			return report()
		},
	}
	f := cmd.Flags()
	f.StringVar(&source, "source", "", "the lake file's stream to read (default: the only one)")
	f.BoolVar(&o.AvailableNow, "available-now", false, "process what is in the topic, then end")
	f.StringVar(&gap, "allow-gap", "", "record the gap that stops this `SOURCE` and go on behind it")
	f.DurationVar(&o.Trigger, "trigger", 0, "time between micro-batches (default: the lake file's)")
	f.IntVar(&o.RowsMax, "rows-max", 0, "events of a micro-batch at most (default: the lake file's)")
	f.StringVar(&listen, "metrics-listen", "", metricsListen)
	return cmd
}

// positive refuses flags that were given and are not greater than zero.
func positive(cmd *cobra.Command, flags ...string) error {
	for _, name := range flags {
		f := cmd.Flags().Lookup(name)
		if v := f.Value.String(); f.Changed && (strings.HasPrefix(v, "-") || strings.Trim(v, "0hms.") == "") {
			return usagef("--%s %s: it must be greater than 0", name, v)
		}
	}
	return nil
}

func batchCount(n int64) string {
	if n == 1 {
		return "1 micro-batch"
	}
	return thousands(n) + " micro-batches"
}
