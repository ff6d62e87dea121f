// Command bench measures Cauce beside its peers on the same work, interleaved in one run on this machine: the load of
// a CSV history into a merged table, against DuckDB's plain CSV to partitioned Parquet and against polars + delta-rs;
// and micro-batches of 10,000 events with 10 % updates, against delta-rs. All tables must have the same row hash at
// the end, or there is no result. With -part log it measures package delta on logs of many files and commits
// instead, with -part drain events that wait in Apache Kafka, against Spark Structured Streaming, and with -part freshness
// how soon a reader sees what was produced, with -part s3 history and micro-batches in a bucket, with requests and bytes, and with -part serve the doors for clients. The peers run by the scripts in ../shared/bench; every program is timed from outside.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/cauce-data/cauce/internal/prereq"
)

type bench struct {
	dir, python, shared, cauce string
	tries, batches             int
	out                        io.Writer
}

func main() {
	if err := mainErr(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func mainErr() error {
	b := &bench{}
	var load, micro, report, part, files, work string
	var commits, events, rows int
	var peer bool
	var lasts, trigger time.Duration
	var rate int
	flag.StringVar(&b.dir, "dir", filepath.Join(prereq.Root(), ".cache", "bench"), "folder for data and tables; the generated data is kept")
	flag.StringVar(&b.cauce, "cauce", filepath.Join(prereq.Root(), "bin", "cauce"), "the program")
	flag.IntVar(&b.tries, "tries", 3, "runs of each load, in turn")
	flag.IntVar(&b.batches, "batches", 20, "micro-batches of 10,000 events in each series")
	flag.StringVar(&load, "load", "1000000,5000000,20000000", "history sizes to load, in rows; empty: none")
	flag.StringVar(&micro, "micro", "500000,5000000,20000000", "table sizes that micro-batches go into, in rows; empty: none")
	flag.StringVar(&report, "report", "", "also write the report to this file")
	flag.StringVar(&part, "part", "", "\"log\": only logs of many files and many commits, without peers; \"drain\": only events that wait in Kafka; \"freshness\": only how soon events are seen; \"s3\": only history and micro-batches in a bucket; \"serve\": only clients of cauce serve; empty: history and micro-batches")
	flag.IntVar(&events, "events", 1_000_000, "events that wait in Kafka, with -part drain")
	flag.IntVar(&rows, "rows", 5_000_000, "rows in the table before, with -part drain, freshness, s3 and serve")
	flag.IntVar(&rate, "rate", 2000, "events a second, with -part freshness and serve")
	flag.DurationVar(&lasts, "lasts", 5*time.Minute, "how long events are produced, with -part freshness, and each part with many sessions takes, with -part serve")
	flag.DurationVar(&trigger, "trigger", 250*time.Millisecond, "the stream's trigger, with -part freshness")
	flag.BoolVar(&peer, "peer", true, "also let Spark do it, with -part drain")
	flag.StringVar(&files, "files", "100000,1000000", "numbers of files, with -part log")
	flag.IntVar(&commits, "commits", 100_000, "greatest number of commits, with -part log")
	flag.StringVar(&work, "child", "", "used by -part log for the processes that it measures")
	flag.Parse()
	if work != "" {
		return child(work, b.dir)
	}
	var err error
	if part == "log" {
		if b.dir, err = filepath.Abs(b.dir); err != nil {
			return err
		}
		counts, err := sizes(files)
		if err != nil {
			return err
		}
		b.out = os.Stdout
		fmt.Fprintf(b.out, "%s, %d processors, %s; %s\n", time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), memory(), model())
		return b.log(counts, commits)
	}
	if b.python, err = prereq.Lookup("venv"); err != nil {
		return fmt.Errorf("%w; make setup installs the peers", err)
	}
	shared, err := prereq.Lookup("shared")
	if err != nil {
		return fmt.Errorf("%w; it holds the peers' scripts", err)
	}
	b.shared = filepath.Join(shared, "bench")
	if b.dir, err = filepath.Abs(b.dir); err != nil {
		return err
	}
	if b.cauce, err = filepath.Abs(b.cauce); err != nil {
		return err
	}
	b.out = os.Stdout
	if report != "" {
		f, err := os.Create(report)
		if err != nil {
			return err
		}
		defer f.Close()
		b.out = io.MultiWriter(os.Stdout, f)
	}
	switch part {
	case "drain", "freshness", "s3", "serve":
		fmt.Fprintf(b.out, "%s, %d processors, %s; %s\n", time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), memory(), model())
		if part == "drain" {
			return b.drain(context.Background(), events, rows, peer)
		}
		if part == "s3" {
			return b.s3(rows)
		}
		if part == "serve" {
			return b.serve(context.Background(), rows, rate, lasts)
		}
		return b.freshness(context.Background(), rate, rows, lasts, trigger)
	case "":
	default:
		return fmt.Errorf("-part %q: it must be log, drain, freshness, s3 or serve", part)
	}
	loads, err := sizes(load)
	if err != nil {
		return err
	}
	micros, err := sizes(micro)
	if err != nil {
		return err
	}
	fmt.Fprintf(b.out, "%s, %d processors, %s; %s\n", time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), memory(), model())
	if len(loads) > 0 {
		fmt.Fprintf(b.out, "\n### CSV history to table\n\nTime is that of the whole process, start to exit. %d runs each, in turn; median (least–greatest).\n\n", b.tries)
		fmt.Fprintln(b.out, "| rows | program | seconds | × floor | CPU s | peak MB | files | MB written |\n|---|---|---|---|---|---|---|---|")
	}
	for _, n := range loads {
		if err := b.load(n); err != nil {
			return fmt.Errorf("load of %d rows: %w", n, err)
		}
	}
	if len(micros) > 0 {
		fmt.Fprintf(b.out, "\n### Micro-batches of 10,000 events, 10 %% of them updates\n\nMilliseconds from commit to commit, the first two of each series left out; %d batches a series.\n\n", b.batches)
		fmt.Fprintln(b.out, "| rows in table | keys | program | ms, median (least–greatest) | CPU s a batch | peak MB | files a batch | MB a batch | delta-rs ÷ Cauce |\n|---|---|---|---|---|---|---|---|---|")
	}
	for _, n := range micros {
		for _, window := range []int{2, 0} {
			if err := b.micro(n, window); err != nil {
				return fmt.Errorf("micro-batches into %d rows: %w", n, err)
			}
		}
	}
	fmt.Fprintln(b.out, "\nAll tables of a line's group had the same row hash, read by DuckDB's delta extension.")
	return nil
}

func sizes(list string) ([]int, error) {
	var out []int
	for _, s := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' }) {
		n, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil || n <= 0 {
			return nil, fmt.Errorf("%q is not a number of rows", s)
		}
		out = append(out, n)
	}
	return out, nil
}

func memory() string {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return "memory unknown"
	}
	var kb int
	if _, err := fmt.Sscanf(string(b), "MemTotal: %d kB", &kb); err != nil {
		return "memory unknown"
	}
	return fmt.Sprintf("%d GB", kb>>20)
}

func model() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return runtime.GOARCH
}

// script runs one of the peers' scripts.
func (b *bench) script(name string, args ...string) (usage, []byte, error) {
	return run(b.dir, b.python, append([]string{filepath.Join(b.shared, name)}, args...)...)
}

// generate makes data once; done is its folder.
func (b *bench) generate(done string, args ...string) error {
	if _, err := os.Stat(done); err == nil {
		return nil
	}
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return err
	}
	part := done + ".part"
	if err := os.RemoveAll(part); err != nil {
		return err
	}
	if _, _, err := b.script("gen_events.py", append(args, "--out", part)...); err != nil {
		return err
	}
	return os.Rename(part, done)
}

func (b *bench) history(rows int) (string, error) {
	dir := filepath.Join(b.dir, fmt.Sprintf("history-%d", rows))
	return dir, b.generate(dir, "history", "--rows", strconv.Itoa(rows), "--dirty", "0.01")
}

// rowHash reads a table with DuckDB and condenses the given columns of all rows.
func (b *bench) rowHash(kind, table string, columns ...string) (string, error) {
	_, out, err := run(b.dir, b.python, append([]string{filepath.Join(prereq.Root(), "bench", "rowhash.py"), kind, table}, columns...)...)
	return strings.TrimSpace(string(out)), err
}

// sameRows demands one row hash of all tables.
func sameRows(hashes map[string]string) error {
	var first string
	for _, h := range hashes {
		if first == "" {
			first = h
		}
		if h != first {
			return fmt.Errorf("the tables differ (rows, distinct event_id, hash): %v", hashes)
		}
	}
	if first == "" {
		return errors.New("no table to compare")
	}
	return nil
}
