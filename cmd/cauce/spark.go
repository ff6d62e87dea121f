package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cauce-data/cauce/catalog"
	"github.com/cauce-data/cauce/engine/spark"
	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/pipeline"
	"github.com/cauce-data/cauce/schedule"
)

func newSpark(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "spark",
		Short: "Run the lake file on Apache Spark, into the same tables",
	}, newSparkRender(a), newSparkSubmit(a))
}

// sparkApps compiles sources of files for Spark: those named, or all.
func sparkApps(l *pipeline.Lake, names []string) ([]*spark.App, error) {
	var out []*spark.App
	for _, name := range names {
		if s := l.Source(name); s == nil || s.Streaming() {
			return nil, usagef("source %q: the lake file has no source of files with that name; it has %s", name, list(fileSources(l)))
		}
	}
	for _, s := range l.Sources {
		if s.Streaming() || len(names) > 0 && !slices.Contains(names, s.Name) {
			continue
		}
		plan, err := l.Plan(s.Name)
		if err != nil {
			return nil, err
		}
		app, err := spark.NewBatch(l, plan, catalog.QuarantineSchema(), catalog.QuarantinePath)
		if err != nil {
			return nil, sparkRefusal(err)
		}
		out = append(out, app)
	}
	if len(out) == 0 {
		return nil, usagef("the lake file has no source of files")
	}
	return out, nil
}

// sparkRefusal makes what Spark's side does not have an error of use.
func sparkRefusal(err error) error {
	if errors.Is(err, spark.ErrUnsupported) {
		return &usageError{err: err}
	}
	return err
}

func sparkStream(l *pipeline.Lake, src *pipeline.Source) (*spark.App, error) {
	plan, err := l.Plan(src.Name)
	if err != nil {
		return nil, err
	}
	app, err := spark.NewStream(l, plan, catalog.QuarantineSchema(), catalog.QuarantinePath)
	return app, sparkRefusal(err)
}

func newSparkRender(a *app) *cobra.Command {
	var sf sparkFlags
	var out string
	cmd := &cobra.Command{
		Use:   "render",
		Short: "Write a PySpark application for each source: one driver and the compiled lake file",
		Long: `Writes a folder for each source of files and each topic of Kafka: driver.py, the PySpark application,
and app.json, the compiled lake file. Neither needs Cauce any more. The command lines for spark-submit are
printed, with the packages of Spark 4.2 unless --submit-arg or --conf names packages or jars. Streams of other kinds stay where they are and are named.

The password of a Kafka user is in none of the files: the driver takes it from the environment variable
` + spark.PasswordEnv + `, and the key of a client's certificate (PEM, PKCS #8) from ` + spark.KeyEnv + `. A stream's driver takes the argument --available-now, a batch's --reprocess.`,
		Example: "  cauce spark render --out spark --master spark://host:7077",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			submit, err := sf.submit(nil)
			if err != nil {
				return err
			}
			l, err := a.loadLake()
			if err != nil {
				return err
			}
			var apps []*spark.App
			if len(fileSources(l)) > 0 {
				if apps, err = sparkApps(l, nil); err != nil {
					return err
				}
			}
			left := []string{}
			for _, src := range l.Sources {
				switch {
				case src.Kind == pipeline.KindKafka:
					app, err := sparkStream(l, src)
					if err != nil {
						return err
					}
					apps = append(apps, app)
				case src.Streaming():
					left = append(left, src.Name)
				}
			}
			if len(apps) == 0 {
				return usagef("the lake file has no source of files or of kind kafka")
			}
			type rendered struct {
				Source string   `json:"source"`
				Folder string   `json:"folder"`
				Submit []string `json:"submit"`
			}
			report := struct {
				Applications []rendered `json:"applications"`
				Left         []string   `json:"left"` // sources that Spark's side does not read
			}{Left: left}
			for _, app := range apps {
				dir := filepath.Join(out, app.Source.Name)
				if err := spark.Write(dir, app); err != nil {
					return err
				}
				report.Applications = append(report.Applications, rendered{app.Source.Name, dir, submit.WithPackages(app.Mode).CommandLine(dir)})
			}
			return a.print(report, func(w io.Writer) error {
				for _, r := range report.Applications {
					words := make([]string, len(r.Submit))
					for i, s := range r.Submit {
						words[i] = shellQuote(s)
					}
					if _, err := fmt.Fprintln(w, strings.Join(words, " ")); err != nil {
						return err
					}
				}
				if len(left) > 0 {
					a.note("not rendered, because Spark's side reads files and kafka: %s", strings.Join(left, ", "))
				}
				return nil
			})
		},
	}
	sf.add(cmd)
	cmd.Flags().StringVar(&out, "out", "spark", "the `folder` to write")
	return cmd
}

// sparkReport is what the driver prints of a batch, and the sum of several.
type sparkReport struct {
	FilesRead       int              `json:"files_read"`
	FilesSkipped    int              `json:"files_skipped"`
	RowsRead        int64            `json:"rows_read"`
	RowsInserted    int64            `json:"rows_inserted"`
	RowsUpdated     int64            `json:"rows_updated"`
	RowsUnchanged   int64            `json:"rows_unchanged"`
	RowsQuarantined int64            `json:"rows_quarantined"`
	RowsFiltered    int64            `json:"rows_filtered"`
	RowsDeleted     int64            `json:"rows_deleted"`
	RowsRemoved     int64            `json:"rows_removed"`
	Version         int64            `json:"version"`
	Epochs          int              `json:"epochs"`
	Warned          map[string]int64 `json:"warned,omitempty"`
	FailedFiles     []sparkFailed    `json:"failed_files"`
}

type sparkFailed struct {
	Source string `json:"source"`
	File   string `json:"file"`
	Error  string `json:"error"`
}

func newSparkSubmit(a *app) *cobra.Command {
	return group(&cobra.Command{Use: "submit", Short: "Run a job on Spark and wait for it"},
		newSparkBatch(a), newSparkStream(a), newSparkOptimize(a), newSparkVacuum(a))
}

// runSpark runs an application to its end and reads its report into into. An error of the application's own has its exit
// code; a report that comes with exit code 1 is one all the same, which says what failed.
func (a *app) runSpark(ctx context.Context, sf *sparkFlags, name string, graceful bool, env []string, doc, into any) error {
	printed := &driverOutput{}
	var log io.Writer = printed
	if a.verbose {
		log = io.MultiWriter(printed, a.stderr)
	}
	submit, err := sf.submit(log)
	if err != nil {
		return err
	}
	submit.Graceful, submit.Env = graceful, env
	dir, err := os.MkdirTemp("", "cauce-spark-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	err = submit.Run(ctx, dir, doc)
	var said struct {
		Error string `json:"error"`
	}
	ok := json.Unmarshal(printed.report, &said) == nil && json.Unmarshal(printed.report, into) == nil
	var failed *spark.FailedError
	switch {
	case err == nil && !ok:
		return fmt.Errorf("%s: the Spark application ended without a report", name)
	case errors.As(err, &failed) && ok && said.Error != "":
		return &reported{code: failed.Code, msg: said.Error}
	case err != nil && !(errors.As(err, &failed) && ok):
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func newSparkBatch(a *app) *cobra.Command {
	var sf sparkFlags
	var reprocess bool
	var glob, since, id string
	cmd := &cobra.Command{
		Use:   "batch [SOURCE…]",
		Short: "Read the new files on Spark, as run batch does on this machine",
		Long: `Runs the batch of all sources of files, or of those named, on Spark, one application each, and waits for it.

It is the same task as run batch: one that another process runs on this machine, on whichever engine, is waited
for, the run goes into the history (cauce runs), and --run-id names it there: a run of that name that has
succeeded is not repeated, its report is printed again.`,
		Example: `  cauce spark submit batch --master 'local[4]' --submit-arg=--packages=io.delta:delta-spark_4.2_2.13:4.4.0
  cauce spark submit batch --master spark://host:7077 --conf spark.executor.memory=4g`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkRunID(id); err != nil {
				return err
			}
			if !reprocess && (glob != "" || since != "") {
				return usagef("--file and --since narrow a --reprocess; without it every new file is read")
			}
			again := &spark.Reprocess{All: true, File: glob}
			if since != "" {
				t, err := parseTime(since)
				if err != nil {
					return usagef("--since: %w", err)
				}
				again.SinceMillis = t.UnixMilli()
			}
			l, err := a.loadLake()
			if err != nil {
				return err
			}
			apps, err := sparkApps(l, args)
			if err != nil {
				return err
			}
			for _, app := range apps {
				if reprocess {
					app.Reprocess = again
				}
			}
			return a.runBatchOnSpark(cmd.Context(), l, &sf, apps, cmp.Or(asked(cmd, args), cmd.CommandPath()), id)
		},
	}
	sf.add(cmd)
	f := cmd.Flags()
	f.BoolVar(&reprocess, "reprocess", false, "read files again that were read before")
	f.StringVar(&glob, "file", "", "with --reprocess: only files whose name matches this `pattern`")
	f.StringVar(&since, "since", "", "with --reprocess: only files modified since this `date`")
	addRunID(cmd, &id)
	return cmd
}

// runBatchOnSpark runs a batch as a recorded task, the same one as run batch is, and prints its report.
func (a *app) runBatchOnSpark(ctx context.Context, l *pipeline.Lake, sf *sparkFlags, apps []*spark.App, command, id string) error {
	run, err := a.record(ctx, l, schedule.Task{Name: pipeline.RunBatch, Command: command, Run: func(ctx context.Context, run *schedule.Run) error {
		sum := sparkReport{Version: -1, Warned: map[string]int64{}, FailedFiles: []sparkFailed{}}
		defer func() { run.SetResult(sum) }() // also of what was done before an error
		for _, app := range apps {
			var r sparkReport
			if err := a.runSpark(ctx, sf, "source "+app.Source.Name, false, nil, app, &r); err != nil {
				return err
			}
			run.Log.Info("batch "+app.Source.Name, "engine", "spark", "files", r.FilesRead, "known", r.FilesSkipped, "rows", r.RowsRead, "inserted", r.RowsInserted,
				"updated", r.RowsUpdated, "quarantined", r.RowsQuarantined, "version", r.Version)
			sum.add(r)
		}
		if n := len(sum.FailedFiles); n > 0 {
			return &reported{code: exitFailure, msg: unread(n)}
		}
		return nil
	}}, id)
	if run == nil || run.Result == nil {
		return err
	}
	var sum sparkReport
	if uerr := json.Unmarshal(run.Result, &sum); uerr != nil {
		return errors.Join(err, uerr)
	}
	a.noteRepeated(run)
	result := struct {
		sparkReport
		runOutcome
	}{sum, outcome(run, err)}
	if perr := a.print(result, func(w io.Writer) error {
		if err != nil && sum.Epochs == 0 && len(sum.FailedFiles) == 0 {
			return nil // it ended before it could know whether there is something new
		}
		_, err := fmt.Fprintf(w, "%s read, %s: %d inserted, %d updated, %d unchanged, %d deleted, %d filtered, %d quarantined; version %d\n",
			count(int64(sum.FilesRead), "file"), count(sum.RowsRead, "row"), sum.RowsInserted, sum.RowsUpdated, sum.RowsUnchanged, sum.RowsDeleted, sum.RowsFiltered, sum.RowsQuarantined, sum.Version)
		if err == nil && sum.RowsRemoved > 0 {
			_, err = fmt.Fprintf(w, "%s of earlier readings replaced\n", count(sum.RowsRemoved, "row"))
		}
		for _, f := range sum.FailedFiles {
			if err == nil {
				_, err = fmt.Fprintf(w, "not read: %s: %s\n", f.File, f.Error)
			}
		}
		return err
	}); perr != nil {
		return perr
	}
	return err
}

// sparkStreamReport is what the driver prints of a stream when it ends.
type sparkStreamReport struct {
	Source string `json:"source"`
	Epochs int64  `json:"epochs"`
	ingest.Counts
	Version int64             `json:"version"`
	Warned  map[string]int64  `json:"warned,omitempty"`
	Batches []json.RawMessage `json:"batches"` // Spark's query progress of the last of them
}

func newSparkStream(a *app) *cobra.Command {
	var sf sparkFlags
	var source string
	var now bool
	var trigger time.Duration
	cmd := &cobra.Command{
		Use:   "stream",
		Short: "Take the messages of a Kafka topic into their table on Spark, as run stream does on this machine",
		Long: `Runs Structured Streaming over the topic of a source of kind kafka. Each micro-batch is one MERGE with its
progress in the same commit, so that a stopped or killed stream goes on without loss or duplicates, here or with
cauce run stream. Runs until it is stopped (SIGINT, SIGTERM); --available-now processes what is there and ends.

If the topic no longer holds messages that the table has not seen, the stream stops with exit code 4 and names
them; cauce run stream --allow-gap SOURCE records the gap, and either goes on behind it.`,
		Example: `  cauce spark submit stream --master 'local[4]' --submit-arg=--packages=io.delta:delta-spark_4.2_2.13:4.4.0,org.apache.spark:spark-sql-kafka-0-10_2.13:4.2.0
  cauce spark submit stream --master spark://host:7077 --available-now`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := a.loadLake()
			if err != nil {
				return err
			}
			src, err := streamSource(l, source, "")
			if err != nil {
				return err
			}
			app, err := sparkStream(l, src)
			if err != nil {
				return err
			}
			app.Stream.AvailableNow = now
			if cmd.Flags().Changed("trigger") {
				if trigger < time.Millisecond {
					return usagef("--trigger %s: it must be a millisecond or more", trigger)
				}
				app.Stream.TriggerMillis = trigger.Milliseconds()
			}
			env, err := spark.StreamSecrets(src)
			if err != nil {
				return err
			}
			if !now {
				a.note("stream %s: reading topic %s on Spark; stop with Ctrl-C", src.Name, src.Topic)
			}
			r := sparkStreamReport{Version: -1}
			if err := a.runSpark(cmd.Context(), &sf, "source "+src.Name, true, env, app, &r); err != nil {
				return err
			}
			return a.print(r, func(w io.Writer) error {
				fmt.Fprintf(w, "stream %s: %s in %s\n", r.Source, count(r.RowsRead, "event"), batchCount(r.Epochs))
				return printCounts(w, r.Counts)
			})
		},
	}
	sf.add(cmd)
	f := cmd.Flags()
	f.StringVar(&source, "source", "", "the lake file's stream to read (default: the only one)")
	f.BoolVar(&now, "available-now", false, "process what is in the topic, then end")
	f.DurationVar(&trigger, "trigger", 0, "time between micro-batches (default: the lake file's)")
	return cmd
}

// sparkTables are the lake's tables of these names; all without names.
func sparkTables(l *pipeline.Lake, names []string) ([]*pipeline.Table, error) {
	if len(names) == 0 {
		return l.Tables, nil
	}
	var out []*pipeline.Table
	for _, n := range names {
		t := l.Table(n)
		if t == nil {
			var have []string
			for _, t := range l.Tables {
				have = append(have, t.Name)
			}
			return nil, usagef("table %q is not in %s; it has %s", n, l.File, list(have))
		}
		out = append(out, t)
	}
	return out, nil
}

// sparkMaintained is what became of a table.
type sparkMaintained struct {
	Version      int64 `json:"version"`
	Changed      bool  `json:"changed"`
	FilesAdded   int64 `json:"files_added"`
	FilesRemoved int64 `json:"files_removed"`
	FilesDeleted int64 `json:"files_deleted"` // by VACUUM
}

// maintainOnSpark runs an application of maintenance and prints what it did.
func (a *app) maintainOnSpark(ctx context.Context, sf *sparkFlags, app *spark.Maintain) error {
	var r struct {
		Tables map[string]sparkMaintained `json:"tables"`
	}
	if err := a.runSpark(ctx, sf, app.What, false, nil, app, &r); err != nil {
		return err
	}
	return a.print(r, func(w io.Writer) error {
		for _, name := range slices.Sorted(maps.Keys(r.Tables)) {
			t := r.Tables[name]
			var err error
			if app.What == "optimize" {
				_, err = fmt.Fprintf(w, "%s: %s replaced by %d; version %d\n", name, count(t.FilesRemoved, "file"), t.FilesAdded, t.Version)
			} else {
				_, err = fmt.Fprintf(w, "%s: %s deleted; version %d\n", name, count(t.FilesDeleted, "file"), t.Version)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func newSparkOptimize(a *app) *cobra.Command {
	var sf sparkFlags
	var columns []string
	cmd := &cobra.Command{
		Use:   "optimize [TABLE…]",
		Short: "Pack small files on Spark, the rows in Z-order",
		Long: `Runs Delta Lake's OPTIMIZE on tables of the lake, all without names. Rows are put in Z-order of the table's
cluster_by, or of the columns of --z-order; --z-order "" only packs.`,
		Example: "  cauce spark submit optimize unified_events --z-order symbol,event_time --master spark://host:7077",
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := a.loadLake()
			if err != nil {
				return err
			}
			tables, err := sparkTables(l, args)
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("z-order") {
				columns = nil
			} else if columns == nil {
				columns = []string{}
			}
			for _, c := range columns {
				for _, t := range tables {
					if _, ok := t.Column(c); !ok {
						return usagef("--z-order: table %s has no column %s", t.Name, c)
					}
				}
			}
			app, err := spark.NewOptimize(l, tables, columns)
			if err != nil {
				return err
			}
			return a.maintainOnSpark(cmd.Context(), &sf, app)
		},
	}
	sf.add(cmd)
	cmd.Flags().StringSliceVar(&columns, "z-order", nil, "the `columns` whose near values come together (default: the table's cluster_by)")
	return cmd
}

func newSparkVacuum(a *app) *cobra.Command {
	var sf sparkFlags
	var retention time.Duration
	cmd := &cobra.Command{
		Use:     "vacuum [TABLE…]",
		Short:   "Delete on Spark what no version within the retention names",
		Example: `  cauce spark submit vacuum --retention 240h --master spark://host:7077`,
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := a.loadLake()
			if err != nil {
				return err
			}
			tables, err := sparkTables(l, args)
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("retention") {
				retention = max(l.Maintenance.Retention, vacuumRetentionMin)
			}
			if retention < vacuumRetentionMin {
				return usagef("--retention %s: Spark's side keeps at least %s, in which readers of older versions and writers end", retention, vacuumRetentionMin)
			}
			app, err := spark.NewVacuum(l, tables, retention)
			if err != nil {
				return err
			}
			return a.maintainOnSpark(cmd.Context(), &sf, app)
		},
	}
	sf.add(cmd)
	cmd.Flags().DurationVar(&retention, "retention", 0, "how long what is no longer part of the table is kept (default: the lake file's)")
	return cmd
}

// vacuumRetentionMin is the retention below which Delta Lake refuses to delete.
const vacuumRetentionMin = 168 * time.Hour

func (r *sparkReport) add(o sparkReport) {
	r.FilesRead += o.FilesRead
	r.FilesSkipped += o.FilesSkipped
	r.RowsRead += o.RowsRead
	r.RowsInserted += o.RowsInserted
	r.RowsUpdated += o.RowsUpdated
	r.RowsUnchanged += o.RowsUnchanged
	r.RowsQuarantined += o.RowsQuarantined
	r.RowsFiltered += o.RowsFiltered
	r.RowsDeleted += o.RowsDeleted
	r.RowsRemoved += o.RowsRemoved
	r.Version = max(r.Version, o.Version)
	r.Epochs += o.Epochs
	for k, n := range o.Warned {
		r.Warned[k] += n
	}
	r.FailedFiles = append(r.FailedFiles, o.FailedFiles...)
}

// driverOutput keeps the driver's line "cauce: {…}" out of what Spark prints, which may be much over time.
type driverOutput struct {
	line   []byte // the unfinished last one
	report []byte // JSON
}

// driverLineMax bounds a line; no report is longer.
const driverLineMax = 16 << 20

// Write takes lines in any pieces.
func (o *driverOutput) Write(p []byte) (int, error) {
	for _, part := range bytes.SplitAfter(p, []byte{'\n'}) {
		if len(o.line)+len(part) <= driverLineMax {
			o.line = append(o.line, part...)
		}
		if bytes.HasSuffix(part, []byte{'\n'}) {
			if doc, is := bytes.CutPrefix(o.line, []byte("cauce: ")); is && bytes.HasPrefix(doc, []byte{'{'}) {
				o.report = bytes.Clone(doc)
			}
			o.line = o.line[:0]
		}
	}
	return len(p), nil
}
