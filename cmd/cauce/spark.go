package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cauce-data/cauce/catalog"
	"github.com/cauce-data/cauce/engine/spark"
	"github.com/cauce-data/cauce/pipeline"
)

func newSpark(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "spark",
		Short: "Run the lake file on Apache Spark, into the same tables",
	}, newSparkRender(a), newSparkSubmit(a))
}

// sparkApps compiles every source of files for Spark.
func sparkApps(l *pipeline.Lake) ([]*spark.App, error) {
	var out []*spark.App
	for _, s := range l.Sources {
		if s.Streaming() {
			continue
		}
		plan, err := l.Plan(s.Name)
		if err != nil {
			return nil, err
		}
		app, err := spark.NewBatch(l, plan, catalog.QuarantineSchema(), catalog.QuarantinePath)
		if err != nil {
			return nil, &usageError{err: err}
		}
		out = append(out, app)
	}
	if len(out) == 0 {
		return nil, usagef("the lake file has no source of files")
	}
	return out, nil
}

func newSparkRender(a *app) *cobra.Command {
	var sf sparkFlags
	var out string
	cmd := &cobra.Command{
		Use:   "render",
		Short: "Write a PySpark application for each source of files: one driver and the compiled lake file",
		Long: `Writes a folder for each source of files: driver.py, the PySpark application, and app.json, the
compiled lake file. Neither needs Cauce any more. The command lines for spark-submit are printed.`,
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
			apps, err := sparkApps(l)
			if err != nil {
				return err
			}
			type rendered struct {
				Source string   `json:"source"`
				Folder string   `json:"folder"`
				Submit []string `json:"submit"`
			}
			report := struct {
				Applications []rendered `json:"applications"`
			}{}
			for _, app := range apps {
				dir := filepath.Join(out, app.Source.Name)
				if err := spark.Write(dir, app); err != nil {
					return err
				}
				report.Applications = append(report.Applications, rendered{app.Source.Name, dir, submit.CommandLine(dir)})
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
	Version         int64            `json:"version"`
	Epochs          int              `json:"epochs"`
	Warned          map[string]int64 `json:"warned,omitempty"`
	FailedFiles     []sparkFailed    `json:"failed_files"`
	Error           string           `json:"error,omitempty"`
}

type sparkFailed struct {
	Source string `json:"source"`
	File   string `json:"file"`
	Error  string `json:"error"`
}

func newSparkSubmit(a *app) *cobra.Command {
	var sf sparkFlags
	batch := &cobra.Command{
		Use:   "batch",
		Short: "Read the new files on Spark, as run batch does on this machine",
		Example: `  cauce spark submit batch --master 'local[4]' --submit-arg=--packages=io.delta:delta-spark_4.2_2.13:4.4.0
  cauce spark submit batch --master spark://host:7077 --conf spark.executor.memory=4g`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := a.loadLake()
			if err != nil {
				return err
			}
			apps, err := sparkApps(l)
			if err != nil {
				return err
			}
			sum := sparkReport{Version: -1, Warned: map[string]int64{}, FailedFiles: []sparkFailed{}}
			for _, app := range apps {
				var printed bytes.Buffer
				var log io.Writer = &printed
				if a.verbose {
					log = io.MultiWriter(&printed, a.stderr)
				}
				submit, err := sf.submit(log)
				if err != nil {
					return err
				}
				dir, err := os.MkdirTemp("", "cauce-spark-")
				if err != nil {
					return err
				}
				err = submit.Run(cmd.Context(), dir, app)
				_ = os.RemoveAll(dir)
				r, ok := driverReport(printed.Bytes())
				var failed *spark.FailedError
				switch {
				case err == nil && !ok:
					return fmt.Errorf("source %s: the Spark application ended without a report", app.Source.Name)
				case errors.As(err, &failed) && ok && r.Error != "":
					return &reported{code: failed.Code, msg: "source " + app.Source.Name + ": " + r.Error}
				case err != nil && !(errors.As(err, &failed) && ok):
					return fmt.Errorf("source %s: %w", app.Source.Name, err)
				}
				sum.add(r)
			}
			err = a.print(sum, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s read, %s: %d inserted, %d updated, %d unchanged, %d deleted, %d filtered, %d quarantined; version %d\n",
					count(int64(sum.FilesRead), "file"), count(sum.RowsRead, "row"), sum.RowsInserted, sum.RowsUpdated, sum.RowsUnchanged, sum.RowsDeleted, sum.RowsFiltered, sum.RowsQuarantined, sum.Version)
				for _, f := range sum.FailedFiles {
					if err == nil {
						_, err = fmt.Fprintf(w, "not read: %s: %s\n", f.File, f.Error)
					}
				}
				return err
			})
			if err == nil && len(sum.FailedFiles) > 0 {
				err = &reported{code: exitFailure, msg: count(int64(len(sum.FailedFiles)), "file") + " could not be read"}
			}
			return err
		},
	}
	sf.add(batch)
	return group(&cobra.Command{Use: "submit", Short: "Run a job on Spark and wait for it"}, batch)
}

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
	r.Version = max(r.Version, o.Version)
	r.Epochs += o.Epochs
	for k, n := range o.Warned {
		r.Warned[k] += n
	}
	r.FailedFiles = append(r.FailedFiles, o.FailedFiles...)
}

// driverReport finds the driver's line "cauce: {…}" among what Spark printed.
func driverReport(out []byte) (r sparkReport, ok bool) {
	s := bufio.NewScanner(bytes.NewReader(out))
	s.Buffer(nil, 16<<20)
	for s.Scan() {
		if doc, found := bytes.CutPrefix(s.Bytes(), []byte("cauce: ")); found {
			r = sparkReport{}
			ok = json.Unmarshal(doc, &r) == nil
		}
	}
	return r, ok
}
