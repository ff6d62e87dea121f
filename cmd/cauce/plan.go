package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/cauce-data/cauce/ingest"
)

func newPlan(a *app) *cobra.Command {
	var (
		o     ingest.PlanOptions
		since string
	)
	cmd := &cobra.Command{
		Use:   "plan [SOURCE…]",
		Short: "Say what a run would read and change, writing nothing",
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Sources = args
			if since != "" {
				t, err := parseTime(since)
				if err != nil {
					return usagef("--since: %w", err)
				}
				o.Since = t
			}
			l, err := a.openLake(cmd.Context())
			if err != nil {
				return err
			}
			defer l.Close()
			p, err := l.ingest.Plan(cmd.Context(), o)
			if err != nil {
				return err
			}
			if err := a.print(p, func(w io.Writer) error { return printPlan(w, p) }); err != nil {
				return err
			}
			for _, t := range p.Tables {
				if t.Problem != "" {
					return &reported{code: exitUsage, msg: "a run would refuse table " + t.Name}
				}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.Reprocess, "reprocess", false, "as run batch --reprocess")
	f.StringVar(&o.FileGlob, "file", "", "with --reprocess: only files whose name matches this `pattern`")
	f.StringVar(&since, "since", "", "with --reprocess: only files modified since this `date`")
	return cmd
}

func printPlan(w io.Writer, p *ingest.PlanReport) error {
	for _, t := range p.Tables {
		switch {
		case t.Problem != "":
			fmt.Fprintf(w, "table %s: a run would refuse it: %s\n", t.Name, t.Problem)
		case !t.Exists:
			fmt.Fprintf(w, "table %s: would be created in %s\n", t.Name, t.Path)
		case len(t.AddColumns) > 0:
			fmt.Fprintf(w, "table %s: version %d; would get the columns %s\n", t.Name, t.Version, list(t.AddColumns))
		default:
			fmt.Fprintf(w, "table %s: version %d\n", t.Name, t.Version)
		}
	}
	for _, s := range p.Sources {
		if len(s.Files) == 0 && len(s.Streams) == 0 {
			fmt.Fprintf(w, "source %s: nothing to read (%s known)\n", s.Name, count(int64(s.FilesKnown), "file"))
			continue
		}
		if len(s.Files) > 0 {
			fmt.Fprintf(w, "source %s: %s, %s bytes to read into %s\n", s.Name, count(int64(len(s.Files)), "file"), thousands(s.BytesToDo), s.Table)
		}
		for _, f := range s.Files {
			fmt.Fprintf(w, "  %-9s %s (%s bytes)\n", f.Reason, f.File, thousands(f.Bytes))
		}
		for _, st := range s.Streams {
			for _, pos := range st.Positions {
				if pos.Offset < 0 {
					fmt.Fprintf(w, "source %s: partition %d begins with its first record\n", s.Name, pos.Partition)
					continue
				}
				fmt.Fprintf(w, "source %s: partition %d goes on behind %d\n", s.Name, pos.Partition, pos.Offset)
			}
		}
	}
	for _, s := range p.Warnings {
		if _, err := fmt.Fprintf(w, "warning: %s\n", s); err != nil {
			return err
		}
	}
	return nil
}
