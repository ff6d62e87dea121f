package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/airflowtest"
	"github.com/cauce-data/cauce/internal/cloudtest"
	"github.com/cauce-data/cauce/internal/demodata"
	"github.com/cauce-data/cauce/internal/kafkatest"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/internal/sparktest"
	"github.com/cauce-data/cauce/test/lab"
)

// The names of the architecture.
const (
	bucket   = "mi-data-lake"
	root     = "s3://" + bucket
	tableURL = root + "/processed/unified-events"
	topic    = "crypto_trades"
	table    = "unified_events"
	dagID    = "nightly"
)

// The roles of deploy/terraform. Each part of the run is done by the one that is there for it.
const (
	roleProducer    = "producer"
	roleBatch       = "batch"
	roleStreaming   = "streaming"
	roleReader      = "reader"
	roleMaintenance = "maintenance"
	// The DAG's last task is maintenance: its worker has the rights of batch and of maintenance.
	roleNightly = "nightly"
)

var roles = []string{roleProducer, roleBatch, roleStreaming, roleReader, roleMaintenance, roleNightly}

// demo is the run: the parts of the architecture that are up, and what is known about what must be in the lake.
type demo struct {
	t testing.TB
	*report
	o options

	python, clients string // interpreters: of the figures, of the notebook
	s3              *cloudtest.S3
	kafka           *kafkatest.Broker
	spark           *sparktest.Cluster
	airflow         *airflowtest.Server
	lake            *lab.Lake
	env             map[string][]string // by role
	keys            map[string]string   // access keys of roles
	sparkFlags      []string            // of cauce spark submit
	made            *demodata.History
	landed          []string // files of history as they lie outside the lake, in the order of landing
	log             string   // the simulated exchange's own
	night1          travel
	exchange        *lab.Process
	producer        *lab.Process
	stream          *lab.Process // embedded
	pg              string       // address of PostgreSQL's protocol
}

// travel is a state of the table that later phases come back to.
type travel struct {
	version int64
	at      time.Time
	want    figures
}

func newDemo(t testing.TB, r *report, o options) *demo {
	d := &demo{t: t, report: r, o: o, env: map[string][]string{}, keys: map[string]string{}, log: filepath.Join(o.dir, "exchange.jsonl")}
	// All of them at once: nobody wants to wait for ten minutes to hear that Superset is missing.
	d.python, d.clients = prereq.Need(t, "venv"), prereq.Need(t, "clients")
	prereq.Need(t, "java")
	prereq.Need(t, "javac")
	prereq.Need(t, "kafka")
	prereq.Need(t, "jars")
	prereq.Need(t, "s3a")
	prereq.Need(t, "versitygw")
	prereq.Need(t, "airflow")
	prereq.Need(t, "superset")
	if o.pictures {
		prereq.Need(t, "chromium")
	}
	r.Parts = parts()
	return d
}

// parts names what the architecture is made of, with its versions.
func parts() (out []string) {
	for _, p := range []struct{ name, file string }{
		{"Apache Kafka", "kafka/kafka-clients-*.jar"}, {"Apache Spark", "venv/lib/python*/site-packages/pyspark-*.dist-info"},
		{"Delta Lake for Spark", "jars/delta-spark_*_2.13-*.jar"}, {"Hadoop's S3 client", "s3a/hadoop-aws-*.jar"},
		{"Apache Airflow", "airflow/lib/python*/site-packages/apache_airflow-*.dist-info"}, {"Apache Superset", "superset/lib/python*/site-packages/apache_superset-*.dist-info"},
		{"deltalake", "venv/lib/python*/site-packages/deltalake-*.dist-info"},
	} {
		found, err := filepath.Glob(filepath.Join(prereq.Root(), ".cache", filepath.FromSlash(p.file)))
		if err == nil && len(found) > 0 {
			name := strings.TrimSuffix(strings.TrimSuffix(filepath.Base(found[0]), ".jar"), ".dist-info")
			out = append(out, p.name+" "+name[strings.LastIndexByte(name, '-')+1:])
		}
	}
	if v, err := os.ReadFile(filepath.Join(prereq.Root(), ".cache", "bin", ".versitygw")); err == nil {
		out = append(out, "versitygw "+strings.TrimSpace(string(v)))
	}
	return out
}

// as is the lake for a role.
func (d *demo) as(role string) *lab.Lake { return d.lake.With(d.env[role]...) }

// disk is the path of an object in the S3 server's own folder, which is how the run looks at the bucket without Cauce.
func (d *demo) disk(key string) string { return d.s3.Path(bucket, key) }

// objects are the objects of the bucket below a prefix, with size and time of modification, as the server's folder has them.
func (d *demo) objects(prefix string) map[string]string {
	d.t.Helper()
	out := map[string]string{}
	top := d.disk("")
	err := filepath.WalkDir(d.disk(prefix), func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, path)
		out[filepath.ToSlash(rel)] = fmt.Sprintf("%d bytes of %s", info.Size(), info.ModTime())
		return err
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return out
}

// figures are those of a table, or of what it must hold.
type figures struct {
	Rows            int
	Price, Quantity string         // exact sums
	By              map[string]int // rows by "source day"
	Version         int64
	Bad, Records    int // of files of history: records that cannot be used, and all
}

// String is what is compared.
func (f figures) String() string {
	var by []string
	for _, k := range slices.Sorted(maps.Keys(f.By)) {
		by = append(by, fmt.Sprintf("%s: %d", k, f.By[k]))
	}
	return fmt.Sprintf("%d rows, prices %s, quantities %s; %s", f.Rows, f.Price, f.Quantity, strings.Join(by, ", "))
}

// figuresOf asks figures.py, with the keys of the reader role.
func (d *demo) ask(into any, args ...string) {
	d.t.Helper()
	cmd := exec.CommandContext(d.t.Context(), d.python, append([]string{filepath.Join(prereq.Root(), "test", "demofull", "figures.py")}, args...)...)
	cmd.Env = append(os.Environ(), d.env[roleReader]...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, into)
	}
	if err != nil {
		d.t.Fatalf("figures.py %s: %v\n%s%s", args[0], err, out, errs.String())
	}
}

// spec is what figures.py computes the wanted rows from: the files landed so far, and trades of the exchange's log from one line to
// another.
func (d *demo) spec(from, to int) string {
	s := map[string]any{"files": d.landed}
	if to > from {
		s["log"], s["from"], s["to"] = d.log, from, to
	}
	text, err := json.Marshal(s)
	if err != nil {
		d.t.Fatal(err)
	}
	return string(text)
}

// queried are the figures that cauce query gives, of a version or time; "" is the newest version.
func (d *demo) queried(asOf string) figures {
	d.t.Helper()
	args := []string{"query", "SELECT source, event_date, count(*) AS n, sum(price) AS price, sum(quantity) AS quantity FROM " + table + " GROUP BY ALL", "--format", "csv"}
	if asOf != "" {
		args = append(args, "--as-of", asOf)
	}
	rows, err := csv.NewReader(strings.NewReader(d.as(roleReader).Run(args...))).ReadAll()
	if err != nil || len(rows) == 0 {
		d.t.Fatalf("cauce query: %v in %v", err, rows)
	}
	var parts []group
	for _, r := range rows[1:] {
		parts = append(parts, group{r[0], r[1], json.Number(r[2]), r[3], r[4]})
	}
	return d.sum(parts)
}

// group are the figures of a source and day.
type group struct {
	Source, Day     string
	N               json.Number
	Price, Quantity string
}

// sum puts groups together.
func (d *demo) sum(groups []group) figures {
	d.t.Helper()
	f := figures{By: map[string]int{}}
	var sums [2]big.Rat
	for _, g := range groups {
		n, err := g.N.Int64()
		if err != nil {
			d.t.Fatal(err)
		}
		f.Rows += int(n)
		f.By[g.Source+" "+g.Day] = int(n)
		for i, text := range []string{g.Price, g.Quantity} {
			v, ok := new(big.Rat).SetString(text)
			if !ok {
				d.t.Fatalf("%q is no decimal", text)
			}
			sums[i].Add(&sums[i], v)
		}
	}
	f.Price, f.Quantity = sums[0].FloatString(8), sums[1].FloatString(8)
	return f
}

// sparkSQL are the figures that Spark SQL gives of versions, in a job of the reader role.
func (d *demo) sparkSQL(versions ...string) []figures {
	d.t.Helper()
	words := slices.Clone(d.sparkFlags)
	words = append(words, "--conf", "spark.sql.extensions=io.delta.sql.DeltaSparkSessionExtension", "--conf", "spark.sql.catalog.spark_catalog=org.apache.spark.sql.delta.catalog.DeltaCatalog",
		filepath.Join(prereq.Root(), "test", "demofull", "sparksql.py"), strings.Replace(tableURL, "s3:", "s3a:", 1))
	cmd := exec.CommandContext(d.t.Context(), words[1], append(words[2:], versions...)...)
	cmd.Env = append(os.Environ(), d.env[roleReader]...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	_, line, found := bytes.Cut(out, []byte("figures: "))
	if err != nil || !found {
		b := errs.Bytes()
		d.t.Fatalf("Spark SQL: %v\n%s%s", err, out, b[max(0, len(b)-4000):])
	}
	var lists [][]group
	if err := json.Unmarshal(line, &lists); err != nil {
		d.t.Fatalf("Spark SQL: %v in %s", err, line)
	}
	var fs []figures
	for _, l := range lists {
		fs = append(fs, d.sum(l))
	}
	return fs
}

// commit is an entry of the table's log, as it lies in the server's folder.
type commit struct {
	Version   int64
	Operation string
	Engine    string
	App       string // application id of its txn; "": it has none
	Epoch     int64
}

// commits reads the table's log from its first entry on.
func (d *demo) commits() []commit {
	d.t.Helper()
	var out []commit
	for v := int64(0); ; v++ {
		text, err := os.ReadFile(d.disk(fmt.Sprintf("processed/unified-events/_delta_log/%020d.json", v)))
		if os.IsNotExist(err) {
			return out
		}
		if err != nil {
			d.t.Fatal(err)
		}
		c := commit{Version: v}
		for line := range bytes.Lines(text) {
			var a struct {
				CommitInfo *struct{ Operation, EngineInfo string }
				Txn        *struct {
					AppID   string `json:"appId"`
					Version int64
				}
			}
			if err := json.Unmarshal(line, &a); err != nil {
				d.t.Fatalf("log entry %d: %v", v, err)
			}
			if a.CommitInfo != nil {
				c.Operation, c.Engine = a.CommitInfo.Operation, engineOf(a.CommitInfo.EngineInfo)
			}
			if a.Txn != nil {
				c.App, c.Epoch = a.Txn.AppID, a.Txn.Version
			}
		}
		out = append(out, c)
	}
}

// engineOf shortens a commit's engineInfo.
func engineOf(info string) string {
	if strings.Contains(strings.ToLower(info), "spark") {
		return "Spark"
	}
	return "Cauce"
}

// epochs are the commits of a source, with which engine.
func (d *demo) epochs(source, engine string) (out []commit) {
	d.t.Helper()
	for _, c := range d.commits() {
		if strings.HasPrefix(c.App, "cauce/1/"+source+"/") && (engine == "" || c.Engine == engine) {
			out = append(out, c)
		}
	}
	return out
}

// until waits for something that one of the started processes does; it fails when that ends.
func (d *demo) until(what string, p *lab.Process, is func() bool) {
	d.t.Helper()
	for end := time.Now().Add(8 * time.Minute); !is(); time.Sleep(500 * time.Millisecond) {
		if d.t.Context().Err() != nil {
			d.t.FailNow()
		}
		if p != nil && !p.Running() {
			d.t.Fatalf("%s: cauce %s ended before\n%s%s", what, strings.Join(p.Args, " "), p.Stdout.String(), p.Stderr.String())
		}
		if time.Now().After(end) {
			said := ""
			if p != nil {
				said = p.Stderr.String()
			}
			d.t.Fatalf("%s: not within eight minutes\n%s", what, said)
		}
	}
}

// answers says that somebody listens at an address.
func answers(address string) bool {
	c, err := net.DialTimeout("tcp", address, time.Second)
	return err == nil && c.Close() == nil
}

// within makes a folder of the run.
func (d *demo) within(name string) string {
	dir := filepath.Join(d.o.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		d.t.Fatal(err)
	}
	return dir
}
