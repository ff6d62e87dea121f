package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cauce-data/cauce/internal/airflowtest"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/internal/sparktest"
)

// history is phase 2: the batch role lands six days of CSV files, and the DAG processes them on Spark.
func (d *demo) history() {
	d.spark = sparktest.StartCluster(d.t, d.within("spark"))
	d.t.Cleanup(d.spark.Stop)
	stores, err := sparktest.LogStores(d.python, prereq.Need(d.t, "jars"), d.t.TempDir())
	if err != nil {
		d.t.Fatal(err)
	}
	jars := append(sparktest.Jars(d.t, prereq.Need(d.t, "jars"), prereq.Need(d.t, "s3a")), stores)
	d.sparkFlags = sparktest.SubmitFlags(d.t, d.spark.URL, "spark.jars="+strings.Join(jars, ","),
		// One core for each application, so that a stream and a batch run beside each other.
		"spark.cores.max=1", "spark.sql.shuffle.partitions=1", "spark.databricks.delta.snapshotPartitions=1",
		// Spark takes the keys of the role from the environment of who submits.
		"spark.hadoop.fs.s3a.endpoint="+d.s3.Endpoint, "spark.hadoop.fs.s3a.endpoint.region=us-east-1", "spark.hadoop.fs.s3a.path.style.access=true",
		"spark.hadoop.fs.s3a.connection.ssl.enabled=false", "spark.hadoop.fs.s3a.aws.credentials.provider=org.apache.hadoop.fs.s3a.SimpleAWSCredentialsProvider",
		// Spark writes beside Cauce, and deletes nothing (deploy/spark).
		"spark.delta.logStore.s3a.impl=com.cauce.delta.S3PutIfAbsentLogStore", "spark.sql.streaming.checkpointFileManagerClass=com.cauce.delta.S3CheckpointFileManager")
	d.say("Spark: a standalone master at %s, two workers", d.spark.URL)

	for _, f := range d.made.Files {
		d.land(f.Name, "downloads")
	}
	landed := 0
	for _, path := range d.landed {
		if sum(d, path) == sum(d, d.disk("raw/batch/"+filepath.Base(path))) {
			landed++
		}
	}
	d.equal("files landed whole", landed, len(d.made.Files), "SHA-256 of the files before landing and on the S3 server's disk")

	d.airflow = airflowtest.New(d.t, d.within("airflow"), d.env[roleNightly]...)
	d.as(roleBatch).Run(append([]string{"airflow", "render", "--out", filepath.Join(d.airflow.Dir, "dags"), "--dag-id", dagID, "--cauce", d.lake.Program(), "--engine", "spark"}, d.sparkFlags...)...)
	d.airflow.Until("the DAG", func() bool {
		return d.airflow.Call("PATCH", "/api/v2/dags/"+dagID, map[string]any{"is_paused": false}, nil) == http.StatusOK
	})
	d.say("Airflow at %s: API server, DAG processor and scheduler, the DAG %s with the rights of batch and maintenance", d.airflow.URL, dagID)

	d.night(1)
	var want, there figures
	d.ask(&want, "expect", d.spec(0, 0))
	d.ask(&there, "table", tableURL)
	d.equal("the table after the first night, by deltalake", there, want, "the CSV files, by Python's csv and decimal")
	d.equal("the same by cauce query", d.queried(""), want, "the CSV files, by Python's csv and decimal")
	d.quarantined(want.Bad)
	merges := d.epochs("history", "")
	d.holds("who wrote it", len(merges) == 1 && merges[0].Engine == "Spark", fmt.Sprint(merges), "one commit of Spark's with the files' progress", "the log entries on the S3 server's disk")
	d.night1 = travel{there.Version, time.Now(), want}
}

// quarantined compares what stands in quarantine with the records of the files that cannot be used.
func (d *demo) quarantined(want int) {
	d.t.Helper()
	var bad struct{ Rows int }
	d.ask(&bad, "quarantine", root+"/processed/quarantine")
	d.equal("records in quarantine, by deltalake", bad.Rows, want, "records of the CSV files without a price, quantity or time, or with too few fields, by Python")
}

// land puts a file of a folder under raw/batch/, as the batch role.
func (d *demo) land(name, folder string) {
	d.t.Helper()
	path := filepath.Join(d.within(folder), name)
	d.as(roleBatch).Run("land", path)
	d.landed = append(d.landed, path)
}

func sum(d *demo, path string) [sha256.Size]byte {
	b, err := os.ReadFile(path)
	if err != nil {
		d.t.Fatal(err)
	}
	return sha256.Sum256(b)
}

// night waits for the DAG's n-th run, and looks whether each of its tasks has succeeded. The scheduler makes the first by itself, that
// of last night; the others are triggered.
func (d *demo) night(n int) {
	d.t.Helper()
	start, run := time.Now(), ""
	if n > 1 {
		run = d.airflow.Trigger(dagID, time.Now().AddDate(0, 0, n-9).Format(time.DateOnly))
	}
	for ; run == ""; time.Sleep(time.Second) {
		var list struct {
			Runs []struct {
				ID string `json:"dag_run_id"`
			} `json:"dag_runs"`
		}
		d.airflow.Call("GET", "/api/v2/dags/"+dagID+"/dagRuns", nil, &list)
		switch {
		case len(list.Runs) > 0:
			run = list.Runs[0].ID
		case time.Since(start) > 3*time.Minute:
			d.t.Fatal("the scheduler of Airflow makes no run for last night")
		case d.t.Context().Err() != nil:
			d.t.FailNow()
		}
	}
	var state struct{ State string }
	d.airflow.Until("the end of "+run, func() bool {
		if d.t.Context().Err() != nil {
			d.t.FailNow()
		}
		d.airflow.Call("GET", "/api/v2/dags/"+dagID+"/dagRuns/"+url.PathEscape(run), nil, &state)
		return state.State == "success" || state.State == "failed"
	})
	var tasks struct {
		Instances []struct {
			Task  string `json:"task_id"`
			State string `json:"state"`
		} `json:"task_instances"`
	}
	d.airflow.Call("GET", "/api/v2/dags/"+dagID+"/dagRuns/"+url.PathEscape(run)+"/taskInstances", nil, &tasks)
	var got []string
	for _, t := range tasks.Instances {
		got = append(got, t.Task+" "+t.State)
	}
	slices.Sort(got)
	d.equal(fmt.Sprintf("tasks of the DAG in night %d", n), strings.Join(got, ", "), "batch success, checks success, new_files success, optimize success, publish success", "Airflow's REST API")
	d.say("night %d took %s", n, time.Since(start).Round(time.Second))
	if state.State != "success" {
		d.t.Errorf("night %d: %s", n, d.complaints())
	}
}

// complaints are what Airflow's tasks say of their errors.
func (d *demo) complaints() string {
	var b strings.Builder
	_ = filepath.WalkDir(filepath.Join(d.airflow.Dir, "logs"), func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.Contains(path, "attempt=") {
			return nil // it is only looked for what can be told
		}
		text, _ := os.ReadFile(path)
		for line := range strings.Lines(string(text)) {
			var l struct{ Level, Event string }
			if json.Unmarshal([]byte(line), &l) == nil && l.Level == "error" && b.Len() < 4000 {
				fmt.Fprintf(&b, "%s: %s\n", filepath.Base(filepath.Dir(path)), l.Event)
			}
		}
		return nil
	})
	return b.String()
}
