package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cauce-data/cauce/engine/duckdb"
	"github.com/cauce-data/cauce/engine/spark"
	"github.com/cauce-data/cauce/pipeline"
	"github.com/cauce-data/cauce/pipeline/prove"
)

// sparkFlags say how a Spark is reached.
type sparkFlags struct {
	program string
	master  string
	conf    []string
	args    []string
}

func (f *sparkFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.program, "spark-submit", "spark-submit", "the spark-submit `program` of your Spark")
	cmd.Flags().StringVar(&f.master, "master", "", "Spark's master `URL`, such as local[4]; without it Spark's own configuration decides")
	cmd.Flags().StringArrayVar(&f.conf, "conf", nil, "a Spark `setting`, KEY=VALUE; may be given several times")
	cmd.Flags().StringArrayVar(&f.args, "submit-arg", nil, "a further `argument` for spark-submit; may be given several times")
}

func (f *sparkFlags) submit(log io.Writer) (spark.Submit, error) {
	s := spark.Submit{Command: []string{f.program}, Master: f.master, Conf: map[string]string{"spark.ui.showConsoleProgress": "false"}, Args: f.args, Log: log}
	for _, c := range f.conf {
		k, v, ok := strings.Cut(c, "=")
		if !ok {
			return s, usagef("--conf %s: want KEY=VALUE", c)
		}
		s.Conf[k] = v
	}
	return s, nil
}

func newProve(a *app) *cobra.Command {
	var sf sparkFlags
	var records, plans int
	var seed uint64
	cmd := &cobra.Command{
		Use:   "prove",
		Short: "Run the lake file's transformations on both engines over difficult records, and compare every row",
		Long: `Makes records that are meant to go wrong where engines differ (days with 23 hours, times in every
unit, decimals that almost fit, NaN, letters that become two, patterns that Java reads differently),
sends them through every source of the lake file on the embedded engine and on Apache Spark, and
compares what became of each: its row, or the rule that it broke and why. --plans adds random lake
files. Nothing is read from the lake or written to it.

The seed is printed; --seed makes the same records again. Exit code 1 if any record differs.`,
		Example: `  cauce prove --master 'local[2]'
  cauce prove --plans 200 --seed 42`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if records < 1 || plans < 0 {
				return usagef("--records wants a number from 1 on, and --plans one from 0 on")
			}
			if !cmd.Flags().Changed("seed") {
				seed = uint64(time.Now().UnixNano()) % 1_000_000_000
			}
			var log io.Writer
			if a.verbose {
				log = a.stderr
			}
			submit, err := sf.submit(log)
			if err != nil {
				return err
			}
			l, err := a.loadLake()
			if err != nil {
				return err
			}
			cases, err := proofs(l, rand.New(rand.NewPCG(seed, 0)), records, plans)
			if err != nil {
				return err
			}
			return a.prove(cmd.Context(), l, submit, cases, seed)
		},
	}
	sf.add(cmd)
	cmd.Flags().IntVar(&records, "records", 400, "records for each source")
	cmd.Flags().IntVar(&plans, "plans", 0, "random lake files beside this one")
	cmd.Flags().Uint64Var(&seed, "seed", 0, "of the records and random lake files (default: a new one)")
	return cmd
}

// proof is one plan with its records, and what they are called in the report.
type proof struct {
	name string
	text string // of a random lake file
	spark.ProveCase
}

// proofs makes records for each source of the lake and of random lake files.
func proofs(l *pipeline.Lake, rng *rand.Rand, records, plans int) ([]proof, error) {
	var out []proof
	add := func(l *pipeline.Lake, name, text string) error {
		for _, s := range l.Sources {
			p, err := l.Plan(s.Name)
			if err != nil {
				return err
			}
			c := spark.ProveCase{Plan: p, Records: prove.Records(p, rng, records)}
			if text != "" {
				prove.MakeUnique(p, c.Records, prove.LakeKey)
			}
			out = append(out, proof{name: name + s.Name, text: text, ProveCase: c})
		}
		return nil
	}
	if err := add(l, "", ""); err != nil {
		return nil, err
	}
	if plans == 0 {
		return out, nil
	}
	parser, err := duckdb.NewParser()
	if err != nil {
		return nil, err
	}
	defer parser.Close()
	for i := range plans {
		text := prove.Lake(rng)
		f, err := os.CreateTemp("", "cauce-prove-*.yaml")
		if err != nil {
			return nil, err
		}
		_, werr := f.WriteString(text)
		err = errors.Join(werr, f.Close())
		var random *pipeline.Lake
		if err == nil {
			random, err = pipeline.Load(f.Name(), pipeline.LoadOptions{Parser: parser})
		}
		if err := errors.Join(err, os.Remove(f.Name())); err != nil {
			return nil, fmt.Errorf("BUG: random lake file: %w\n%s", err, text)
		}
		if err := add(random, fmt.Sprintf("random %d ", i+1), text); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (a *app) prove(ctx context.Context, l *pipeline.Lake, submit spark.Submit, cases []proof, seed uint64) error {
	dir, err := os.MkdirTemp("", "cauce-prove-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	plain := make([]spark.ProveCase, len(cases))
	for i, c := range cases {
		plain[i] = c.ProveCase
	}
	fates, errs, err := submit.ProveFates(ctx, dir, plain)
	if err != nil {
		return err
	}
	engine, err := duckdb.Open(duckdb.Options{TempDir: dir})
	if err != nil {
		return err
	}
	defer engine.Close()

	type result struct {
		Source      string `json:"source"`
		Records     int    `json:"records"`
		Rows        int    `json:"rows"`
		Refused     int    `json:"refused"`
		Differences int    `json:"differences"`
		Unsupported string `json:"unsupported,omitempty"`
		sample      string
	}
	report := struct {
		OK      bool     `json:"ok"`
		Seed    uint64   `json:"seed"`
		Sources []result `json:"sources"`
	}{OK: true, Seed: seed, Sources: []result{}}
	differ := 0
	for i, c := range cases {
		r := result{Source: c.name, Records: len(c.Records)}
		if errs[i] != nil {
			if !errors.Is(errs[i], spark.ErrUnsupported) {
				return fmt.Errorf("source %s: %w", c.name, errs[i])
			}
			r.Unsupported = errs[i].Error()
			report.OK = false
			report.Sources = append(report.Sources, r)
			continue
		}
		own, err := provedHere(ctx, engine, c.ProveCase)
		if err != nil {
			return fmt.Errorf("source %s: %w", c.name, err)
		}
		for _, f := range own {
			if f.Row != nil {
				r.Rows++
			} else {
				r.Refused++
			}
		}
		ds := prove.Compare(c.Plan, c.Records, own, fates[i])
		if r.Differences = len(ds); r.Differences > 0 {
			report.OK = false
			r.sample = prove.Sample(c.Plan, ds, "embedded", "Spark", 5) + c.text
			differ += len(ds)
		}
		report.Sources = append(report.Sources, r)
	}
	err = a.print(report, func(w io.Writer) error {
		g := newGrid("source", "records", "rows", "refused", "different").right(1, 2, 3, 4)
		for _, r := range report.Sources {
			if r.Unsupported != "" {
				g.row(r.Source, fmt.Sprint(r.Records), "", "", r.Unsupported)
				continue
			}
			g.row(r.Source, fmt.Sprint(r.Records), fmt.Sprint(r.Rows), fmt.Sprint(r.Refused), fmt.Sprint(r.Differences))
		}
		if err := g.write(w); err != nil {
			return err
		}
		for _, r := range report.Sources {
			if r.sample != "" {
				if _, err := fmt.Fprintf(w, "\n%s:\n%s", r.Source, l.Redact(r.sample)); err != nil {
					return err
				}
			}
		}
		_, err := fmt.Fprintf(w, "\nseed %d\n", seed)
		return err
	})
	switch {
	case err != nil:
		return err
	case differ > 0:
		return &reported{code: exitFailure, msg: "the engines treat " + count(int64(differ), "record") + " differently"}
	case !report.OK:
		return &reported{code: exitFailure, msg: "Spark does not run every source of this lake file"}
	}
	return nil
}

func provedHere(ctx context.Context, e *duckdb.Engine, c spark.ProveCase) (map[int64]prove.Fate, error) {
	x, err := e.NewEpoch(ctx, c.Plan, time.Unix(0, 0))
	if err != nil {
		return nil, err
	}
	defer x.Close()
	return prove.Run(ctx, c.Plan, x, c.Records)
}
