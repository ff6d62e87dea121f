// Command demofull runs the whole architecture once, as `make demo-full`: Kafka, an S3 server that enforces the rights of roles, Spark,
// Airflow, Superset and a notebook around one lake, s3://mi-data-lake. Each phase ends with checks against figures that were computed
// outside Cauce; a page of them is written, and the exit code is 1 if one does not hold. docs/demo-full.md describes the run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/internal/testscale"
)

// options shape a run.
type options struct {
	dir      string
	seed     uint64
	until    int     // the last phase
	rate     float64 // trades a second
	pictures bool
}

// rateDefault makes some ten thousand live trades of a run.
const rateDefault = 60

// Exit codes beside 0.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

func main() { os.Exit(mainCode(os.Args[1:])) }

func mainCode(args []string) int {
	var o options
	flags := flag.NewFlagSet("demofull", flag.ContinueOnError)
	flags.StringVar(&o.dir, "dir", filepath.Join(prereq.Root(), ".cache", "demo-full"), "`folder` for everything that the run leaves; that of an earlier run is emptied first")
	flags.Uint64Var(&o.seed, "seed", 1, "what history and live trades are made from")
	flags.IntVar(&o.until, "until", len(acts), "stop after this `phase`")
	flags.Float64Var(&o.rate, "rate", rateDefault, "live trades a second")
	flags.BoolVar(&o.pictures, "pictures", false, "take pictures of the dashboard (needs Chromium)")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return exitUsage
	}
	if flags.NArg() > 0 || o.until < 1 || o.until > len(acts) || o.rate <= 0 {
		fmt.Fprintf(os.Stderr, "demofull: -until is a number from 1 to %d, -rate is greater than 0, and there are no other arguments\n", len(acts))
		return exitUsage
	}
	if err := empty(&o); err != nil {
		fmt.Fprintln(os.Stderr, "demofull:", err)
		return exitUsage
	}
	if err := os.Setenv(testscale.SizeEnv, testscale.Soak.String()); err != nil { // which the helpers of tests ask for
		fmt.Fprintln(os.Stderr, "demofull:", err)
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	adoptOrphans()
	r := newReport(os.Stdout)
	s := newStage(ctx, filepath.Join(o.dir, "tmp"))
	err := s.play(func() { run(s, r, o) })
	sweep()
	if errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "demofull: interrupted; everything it started has been ended")
		return exitInterrupted
	}
	if err != nil {
		r.Failed = err.Error()
	}
	return conclude(r, o)
}

// conclude prints the table and writes the page.
func conclude(r *report, o options) int {
	r.Took = time.Since(r.start)
	r.print()
	page := filepath.Join(o.dir, "checks.html")
	pictures, _ := filepath.Glob(filepath.Join(o.dir, "superset-*.png"))
	for i, p := range pictures {
		pictures[i] = filepath.Base(p)
	}
	if err := r.write(page, pictures); err != nil {
		fmt.Fprintln(os.Stderr, "demofull:", err)
		return exitFailed
	}
	fmt.Printf("the page of checks: file://%s\n", page)
	if !r.good() {
		return exitFailed
	}
	return 0
}

// marker stands in the folder of a run, which the next one may therefore empty.
const marker = "demo-full"

// empty makes the folder of the run.
func empty(o *options) error {
	dir, err := filepath.Abs(o.dir)
	if err != nil {
		return err
	}
	o.dir = dir
	if had, err := os.ReadDir(dir); err == nil && len(had) > 0 {
		if _, err := os.Stat(filepath.Join(dir, marker)); err != nil {
			return fmt.Errorf("-dir %s: the folder is not empty and no earlier run has made it; name another, or empty it yourself", dir)
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "tmp"), 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, marker), nil, 0o644)
}

// acts are the phases.
var acts = []struct {
	title string
	play  func(d *demo)
}{
	{"roles and folders", (*demo).roles},
	{"history, by the DAG on Spark", (*demo).history},
	{"live trades, while the DAG runs again", (*demo).live},
	{"OPTIMIZE, Z-order and time travel", (*demo).maintain},
	{"dashboard and notebook", (*demo).consume},
}

// run plays the phases.
func run(t testing.TB, r *report, o options) {
	d := newDemo(t, r, o)
	for i, a := range acts[:o.until] {
		end := r.begin(fmt.Sprint(i+1), a.title)
		a.play(d)
		end()
	}
}
