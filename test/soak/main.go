// Command soak runs the scenarios of `make soak`: the tests with the full counts, one at a time. A scenario that has
// passed at the present commit is not run again, so that an interrupted soak goes on where it stopped. Each result is
// written to docs/evidence/ with its date, seed and commit.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/internal/testscale"
)

// scenario is one test with its full count; without a test it is the Fuzz targets of all packages.
type scenario struct{ name, what, pkg, test string }

var scenarios = []scenario{
	{"kills", "kill -9 of batch, stream, optimize and vacuum in every phase", "./test/kill", "TestKillInEveryPhase"},
	{"buffer-kills", "kill -9 of the buffer's host while producer and stream run in other processes", "./test/kill", "TestBufferHostKilled"},
	{"scheduler-kills", "kill -9 of cauce up in the middle of its batch", "./test/kill", "TestSchedulerKilled"},
	{"spark-driver-kills", "kill -9 of a batch on Spark, with and without who submitted it", "./test/spark", "TestSparkDriverKilled"},
	{"airflow-spark", "nights of Airflow on Spark, one of them again", "./test/airflow", "TestDagOnSpark"},
	{"airflow-kills", "Airflow's scheduler, DAG processor and API server: runs triggered by REST, one cleared, kill -9 of the scheduler", "./test/airflow", "TestSchedulerOfAirflowKilled"},
	{"stream-kills", "kill -9 of producer, Kafka broker and stream job while a faulty exchange trades; what was lost is repaired over REST", "./test/kill", "TestKafkaUnderFire"},
	{"stream-hour", "an hour of an exchange, Kafka, stream and maintenance, after 45 minutes of the same: memory flat, logs and files bounded, the 30 s trigger seen", "./test/flow", "TestStreamForAnHour"},
	{"pubsub-kills", "kill -9 of producer and stream jobs while trades go through Pub/Sub, the same ones again after each kill", "./test/kill", "TestPubSubUnderFire"},
	{"peers", "other engines read and change what Cauce wrote", "./test/peers", "TestEnginesReadWhatCauceWrote"},
	{"writers", "eight Cauce processes change one local table for ten minutes; Spark reads every version", "./test/peers", "TestCauceProcessesWriteSideBySide"},
	{"spark-writers", "Spark and six Cauce processes change one local table for ten minutes; Spark reads every version", "./test/peers", "TestSparkAndCauceWriteSideBySide"},
	{"spark-kills", "kill -9 of Spark's driver while a stream moves between it and the embedded engine", "./test/spark", "TestStreamMovesBetweenSparkAndHere"},
	{"prove", "200 random lake files give every record the same fate on Spark and here", "./test/spark", "TestBothEnginesGiveEveryRecordTheSameFate"},
	{"matrix", "tables with each feature, written by each operation, every version read by Spark, delta-rs and DuckDB", "./test/peers", "TestDeltaMatrix"},
	{"dynamodb-writers", "processes commit to one table on S3 through DynamoDB for five minutes, some of them killed", "./test/cloud", "TestWritersCommitThroughDynamoDB"},
	{"demo-full", "the whole architecture as one run, with a page of checks", "./test/demofull", "TestWholeArchitecture"},
	{"fuzz", "foreign bytes of every kind, a minute for each target", "./...", ""},
	{"simulation", "10,000 seed-driven histories of many writers over a faulty store, against a model", "./delta", "TestSimulation"},
}

// fuzzTime is how long each Fuzz target goes on.
const fuzzTime = "60s"

func main() {
	tags := flag.String("tags", "", "build tags")
	flag.Parse()
	os.Exit(mainCode(*tags, flag.Args()))
}

func mainCode(tags string, names []string) int {
	root := prereq.Root()
	commit := commitOf(root)
	fmt.Printf("soak at commit %s\n", commit)
	failed := 0
	for _, s := range scenarios {
		if len(names) > 0 && !slices.Contains(names, s.name) {
			continue
		}
		done := filepath.Join(root, ".cache", "soak", commit, s.name)
		if _, err := os.Stat(done); err == nil && !strings.HasSuffix(commit, "+") {
			fmt.Printf("%s: passed before at this commit\n", s.name)
			continue
		}
		ok, err := s.run(root, tags, commit)
		if err == nil && ok {
			err = mark(done)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "soak: %s: %v\n", s.name, err)
		}
		if err != nil || !ok {
			failed++
		}
	}
	if failed > 0 {
		return 1
	}
	return 0
}

func mark(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, nil, 0o644)
}

// commitOf names the commit; a + says that the tree has further changes.
func commitOf(root string) string {
	out, err := exec.Command("git", "-C", root, "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return "unknown+"
	}
	commit := strings.TrimSpace(string(out))
	if exec.Command("git", "-C", root, "diff", "--quiet", "HEAD").Run() != nil {
		commit += "+"
	}
	return commit
}

// run runs the scenario and writes its evidence.
func (s scenario) run(root, tags, commit string) (ok bool, err error) {
	seed := os.Getenv(testscale.SeedEnv)
	if seed == "" {
		seed = fmt.Sprint(time.Now().UnixNano() % 1_000_000_000)
	}
	fmt.Printf("%s: %s, seed %s\n", s.name, s.what, seed)
	start := time.Now()
	var out bytes.Buffer
	run := func(words ...string) error {
		cmd := exec.Command("go", words...)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), testscale.SeedEnv+"="+seed)
		cmd.Stdout = io.MultiWriter(os.Stdout, &out)
		cmd.Stderr = cmd.Stdout
		return cmd.Run()
	}
	var runErr error
	if s.test == "" {
		runErr = fuzz(root, tags, s.pkg, &out, run)
	} else {
		runErr = run("run", "./test/run", "-size", "soak", "-tags", tags, "-timeout", "6h", "-run", "^"+s.test+"$", s.pkg)
	}
	result := "passed"
	if runErr != nil {
		result = "failed"
	}
	text := fmt.Sprintf("# %s: %s\n\n%s\n\n- date: %s\n- commit: %s\n- seed: %s (`%s=%s make soak SCENARIOS=%s`)\n- machine: %s/%s, %d cores\n- took: %s\n\n```\n%s```\n",
		s.name, result, s.what, start.UTC().Format("2006-01-02 15:04 MST"), commit, seed, testscale.SeedEnv, seed, s.name,
		runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), time.Since(start).Round(time.Second), clean(root, out.String()))
	path := filepath.Join(root, "docs", "evidence", start.UTC().Format(time.DateOnly)+"-"+s.name+".md")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return false, err
	}
	return runErr == nil, os.WriteFile(path, []byte(text), 0o644)
}

// fuzz runs every Fuzz target of the packages, one at a time as the go command demands, and keeps the last line of each.
func fuzz(root, tags, pkgs string, out *bytes.Buffer, run func(...string) error) error {
	list := exec.Command("go", "test", "-tags", tags, "-list", "^Fuzz", pkgs)
	list.Dir, list.Stderr = root, os.Stderr
	text, err := list.Output()
	if err != nil {
		return fmt.Errorf("list of Fuzz targets: %w", err)
	}
	targets, all := []string{}, 0
	var failed error
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "Fuzz"):
			targets = append(targets, words[0])
		case len(words) > 1 && words[0] == "ok":
			for _, target := range targets {
				before := out.Len()
				err := run("test", "-tags", tags, "-run", "^$", "-fuzz", "^"+target+"$", "-fuzztime", fuzzTime, "-fuzzminimizetime", "1s", "-parallel", "2", words[1])
				if err != nil {
					failed = errors.Join(failed, fmt.Errorf("%s %s: %w", words[1], target, err))
					continue
				}
				lines := strings.Split(strings.TrimSpace(out.String()[before:]), "\n")
				out.Truncate(before)
				fmt.Fprintf(out, "%s %s %s\n", words[1], target, lines[max(0, len(lines)-3)])
				all++
			}
			targets = targets[:0]
		}
	}
	fmt.Fprintf(out, "%d targets found nothing\n", all)
	return failed
}

var folders = regexp.MustCompile(`/tmp/[A-Za-z0-9_./-]+`)

// clean takes out what is only true of this machine, and bounds the output.
func clean(root, text string) string {
	text = strings.ReplaceAll(text, root+"/", "")
	text = folders.ReplaceAllString(text, "/tmp/…")
	const most = 20_000
	if len(text) > most {
		text = "…\n" + text[len(text)-most:]
	}
	return text
}
