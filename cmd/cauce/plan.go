package main

import (
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/pipeline"
)

func newPlan(a *app) *cobra.Command {
	var (
		o     ingest.PlanOptions
		since string
		noLag bool
	)
	cmd := &cobra.Command{
		Use:   "plan [SOURCE…]",
		Short: "Say what a run would read and change, writing nothing",
		Long: `Say what a run would read and change, writing nothing. Brokers and the buffer are asked how many events a stream
would read, and whether it would stop because of a gap, which --no-lag leaves out.

Exit code 2 where a run would refuse a table, 4 where it would stop at a gap.`,
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
			read := map[string][]ingest.StreamPlan{}
			for _, s := range p.Sources {
				if !noLag && l.Source(s.Name).Streaming() {
					read[s.Name] = s.Streams
				}
			}
			found := a.outlooks(cmd.Context(), l, read)
			sources := make([]sourcePlan, len(p.Sources))
			for i, s := range p.Sources {
				sources[i] = sourcePlan{s, found[s.Name]}
			}
			err = a.print(struct {
				*ingest.PlanReport
				Sources []sourcePlan `json:"sources"`
			}{p, sources}, func(w io.Writer) error { return printPlan(w, p, sources) })
			if err != nil {
				return err
			}
			for _, t := range p.Tables {
				if t.Problem != "" {
					return &reported{code: exitUsage, msg: "a run would refuse table " + t.Name}
				}
			}
			for _, s := range sources {
				if s.Stops != "" {
					return &reported{code: exitGap, msg: "a run would stop at a gap in source " + s.Name}
				}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVar(&noLag, "no-lag", false, "do not ask brokers and buffer")
	f.BoolVar(&o.Reprocess, "reprocess", false, "as run batch --reprocess")
	f.StringVar(&o.FileGlob, "file", "", "with --reprocess: only files whose name matches this `pattern`")
	f.StringVar(&since, "since", "", "with --reprocess: only files modified since this `date`")
	return cmd
}

// sourcePlan is ingest's with what only the streams themselves know.
type sourcePlan struct {
	ingest.SourcePlan
	streamOutlook
}

func printPlan(w io.Writer, p *ingest.PlanReport, sources []sourcePlan) error {
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
	for _, s := range sources {
		if s.Kind != pipeline.KindFiles {
			printStreamPlan(w, s)
			continue
		}
		if len(s.Files) == 0 {
			fmt.Fprintf(w, "source %s: nothing to read (%s known)\n", s.Name, count(int64(s.FilesKnown), "file"))
			continue
		}
		fmt.Fprintf(w, "source %s: %s, %s bytes to read into %s\n", s.Name, count(int64(len(s.Files)), "file"), thousands(s.BytesToDo), s.Table)
		for _, f := range s.Files {
			fmt.Fprintf(w, "  %-9s %s (%s bytes)\n", f.Reason, f.File, thousands(f.Bytes))
		}
	}
	for _, s := range p.Warnings {
		if _, err := fmt.Fprintf(w, "warning: %s\n", s); err != nil {
			return err
		}
	}
	return nil
}

// printStreamPlan says what a run would read of a stream. Where the table stands in other logs than the one that is there
// tells nothing of that.
func printStreamPlan(w io.Writer, s sourcePlan) {
	switch {
	case s.Stops != "":
		fmt.Fprintf(w, "source %s: a run would stop: %s\n", s.Name, s.Stops)
		return
	case s.Lag != nil && s.Lag.Error != "":
		fmt.Fprintf(w, "source %s: how much there is to read is not known: %s\n", s.Name, s.Lag.Error)
	case s.Lag != nil && s.Lag.Records == 0:
		fmt.Fprintf(w, "source %s: nothing to read\n", s.Name)
	case s.Lag != nil:
		fmt.Fprintf(w, "source %s: %s to read into %s\n", s.Name, count(s.Lag.Records, "event"), s.Table)
	}
	at := len(s.Streams) - 1
	if s.incarnation != "" {
		at = slices.IndexFunc(s.Streams, func(x ingest.StreamPlan) bool { return x.Incarnation == s.incarnation })
	}
	if at < 0 {
		return
	}
	for _, pos := range s.Streams[at].Positions {
		if pos.Offset < 0 {
			fmt.Fprintf(w, "source %s: partition %d begins with its first record\n", s.Name, pos.Partition)
			continue
		}
		fmt.Fprintf(w, "source %s: partition %d goes on behind %d\n", s.Name, pos.Partition, pos.Offset)
	}
}
