package main

import (
	"bytes"
	_ "embed" // the DAG
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/spf13/cobra"

	"github.com/cauce-data/cauce/pipeline"
)

//go:embed airflow/dag.py.tmpl
var dagText string

// dagTemplate has delimiters of its own, since Airflow's templates have those of Go.
var dagTemplate = template.Must(template.New("dag.py").Delims("[[", "]]").Funcs(template.FuncMap{"py": pyLiteral}).Parse(dagText))

// airflowDAG is what a DAG is rendered from.
type airflowDAG struct {
	DagID, Task, Program, Lake string
	Sources, Files             []string // those that the task names, and those that it reads
	Batch, Tables              []string
	Cron, Timezone             string
	Retries                    int
	Backoff, Timeout, Wait     float64 // seconds
	QuarantineMax              float64
}

func (d airflowDAG) render() ([]byte, error) {
	var b bytes.Buffer
	err := dagTemplate.Execute(&b, d)
	return b.Bytes(), err
}

// pyLiteral writes a text, or a list of them, as Python does.
func pyLiteral(v any) string {
	switch v := v.(type) {
	case string:
		return strconv.QuoteToASCII(v) // the escapes that Go uses for printable text and control characters are Python's
	case []string:
		out := make([]string, len(v))
		for i, s := range v {
			out[i] = pyLiteral(s)
		}
		return "[" + strings.Join(out, ", ") + "]"
	}
	panic(fmt.Sprintf("BUG: no Python literal for %T", v))
}

func newAirflow(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "airflow",
		Short: "Run the lake's batch on Apache Airflow",
	}, newAirflowRender(a))
}

var goodDagID = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,100}$`)

func newAirflowRender(a *app) *cobra.Command {
	var (
		sf                         sparkFlags
		out, dagID, lake, bin, eng string
		wait                       time.Duration
		quarantineMax              float64
	)
	cmd := &cobra.Command{
		Use:   "render",
		Short: "Write a DAG for Airflow 3: the batch at its time, with checks, retries, OPTIMIZE and alerts",
		Long: `Writes a Python file with a DAG for each batch of the lake file's schedule that has a time (schedule.batch and
batches of schedule.tasks): new files are listed, the batch runs, its result is checked, the tables are published as
Assets, small files are packed. Time and zone, retries, back-off and timeout are the lake file's; without
schedule.batch the batch runs at 01:00. Copy the file into Airflow's folder of DAGs.

--engine embedded runs cauce run batch on the worker; --engine spark runs cauce spark submit batch there, with the
flags for Spark.`,
		Example: `  cauce airflow render --out dags --lake-path /opt/lake/lake.yaml
  cauce airflow render --out dags --engine spark --master spark://host:7077`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			l, err := a.loadLake()
			if err != nil {
				return err
			}
			if lake == "" {
				lake = l.File
			}
			if dagID == "" {
				dagID = "cauce_" + regexp.MustCompile(`[^A-Za-z0-9_]+`).ReplaceAllString(filepath.Base(filepath.Dir(lake)), "_")
			}
			if !goodDagID.MatchString(dagID) {
				return usagef("--dag-id %q: up to 100 letters, digits and _ . -", dagID)
			}
			if wait < 0 || wait > 7*24*time.Hour {
				return usagef("--wait %v: want a time from 0 to 168h", wait)
			}
			if quarantineMax < 0 || quarantineMax > 1 {
				return usagef("--quarantine-max %v: want a share from 0 to 1", quarantineMax)
			}
			if len(fileSources(l)) == 0 {
				return usagef("the lake file has no source of files: there is no batch to run; streams run under cauce up or cauce run stream")
			}
			batch, err := dagBatch(eng, &sf)
			if err != nil {
				return err
			}
			tasks := l.Schedule.Tasks
			if l.Schedule.Task(pipeline.RunBatch) == nil {
				tasks = append([]*pipeline.Task{nightly(l)}, tasks...)
			}
			type rendered struct {
				DagID string `json:"dag_id"`
				File  string `json:"file"`
				Cron  string `json:"cron"`
				Zone  string `json:"timezone"`
			}
			report := struct {
				Dags    []rendered `json:"dags"`
				LeftOut []string   `json:"left_out"` // tasks of the schedule that are no batch at a time of their own
			}{[]rendered{}, []string{}}
			if err := os.MkdirAll(out, 0o755); err != nil {
				return err
			}
			for _, t := range tasks {
				if t.Run != pipeline.RunBatch || t.Cron == "" {
					report.LeftOut = append(report.LeftOut, t.Name)
					continue
				}
				if strings.HasPrefix(t.Cron, "@every") {
					return usagef("task %s: its time is %q, and Airflow knows none like it; write five fields, such as \"0 * * * *\"", t.Name, t.Cron)
				}
				d := airflowDAG{
					DagID: dagID, Task: t.Name, Program: bin, Lake: lake, Sources: t.Sources, Batch: append(batch[:len(batch):len(batch)], t.Sources...), Tables: batchTables(l, t),
					Cron: t.Cron, Timezone: t.Timezone.String(), Retries: t.Retries, Backoff: t.Backoff.Seconds(), Timeout: t.Timeout.Seconds(),
					Wait: wait.Seconds(), QuarantineMax: quarantineMax, Files: t.Sources,
				}
				if len(d.Files) == 0 {
					d.Files = fileSources(l)
				}
				if t.Name != pipeline.RunBatch {
					d.DagID, d.Task = dagID+"."+t.Name, "tasks."+t.Name
				}
				text, err := d.render()
				if err != nil {
					return err
				}
				file := filepath.Join(out, d.DagID+".py")
				if err := os.WriteFile(file, text, 0o644); err != nil {
					return err
				}
				report.Dags = append(report.Dags, rendered{d.DagID, file, d.Cron, d.Timezone})
			}
			return a.print(report, func(w io.Writer) error {
				for _, d := range report.Dags {
					fmt.Fprintf(w, "%s: DAG %s at %s, %s\n", d.File, d.DagID, d.Cron, d.Zone)
				}
				for _, name := range report.LeftOut {
					if _, err := fmt.Fprintf(w, "left out: task %s is no batch with a time of its own\n", name); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&out, "out", "dags", "the `folder` to write")
	f.StringVar(&dagID, "dag-id", "", "the DAG's `ID` (default: cauce_ and the name of the lake file's folder)")
	f.StringVar(&lake, "lake-path", "", "`path` of the lake file on Airflow's workers (default: where it is here)")
	f.StringVar(&bin, "cauce", "cauce", "the `program` on Airflow's workers")
	f.StringVar(&eng, "engine", engineEmbedded, "where the batch runs: embedded or spark")
	f.DurationVar(&wait, "wait", 0, "how `long` each run waits for a new file before it goes on without one")
	f.Float64Var(&quarantineMax, "quarantine-max", 0.1, "the `share` of rows in quarantine above which a run fails")
	sf.add(cmd)
	return cmd
}

// Where a batch may run.
const (
	engineEmbedded = "embedded"
	engineSpark    = "spark"
)

// dagBatch is the command of a batch.
func dagBatch(engine string, sf *sparkFlags) ([]string, error) {
	switch engine {
	case engineEmbedded:
		return []string{"run", "batch"}, nil
	case engineSpark:
		if _, err := sf.submit(nil); err != nil {
			return nil, err
		}
		args := []string{"spark", "submit", "batch", "--spark-submit", sf.program}
		if sf.master != "" {
			args = append(args, "--master", sf.master)
		}
		for _, c := range sf.conf {
			args = append(args, "--conf", c)
		}
		for _, s := range sf.args {
			args = append(args, "--submit-arg="+s)
		}
		return args, nil
	}
	return nil, usagef("--engine %q: want %s or %s", engine, engineEmbedded, engineSpark)
}

// nightly is the batch of a lake file that gives it no time.
func nightly(l *pipeline.Lake) *pipeline.Task {
	return &pipeline.Task{
		Name: pipeline.RunBatch, Run: pipeline.RunBatch, Cron: "0 1 * * *", Timezone: l.Schedule.Timezone,
		Retries: 3, Backoff: 30 * time.Second, Timeout: 24 * time.Hour,
	}
}

// batchTables are the tables that a batch fills.
func batchTables(l *pipeline.Lake, t *pipeline.Task) []string {
	names := t.Sources
	if len(names) == 0 {
		names = fileSources(l)
	}
	var out []string
	for _, table := range l.Tables {
		for _, n := range names {
			if l.Source(n).Table == table.Name {
				out = append(out, table.Name)
				break
			}
		}
	}
	return out
}
