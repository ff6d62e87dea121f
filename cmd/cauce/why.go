package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cauce-data/cauce/ingest"
)

func newWhy(a *app) *cobra.Command {
	var table string
	cmd := &cobra.Command{
		Use:   "why KEY…",
		Short: "Say where a row came from, which commit wrote it, and what it was before",
		Long: `Say where the row with a key came from: the file and line, or the topic, partition and offset; which commit wrote
it; and the same of the row's earlier versions, as far as the log and the data files still have them. A key of several
columns is written as several arguments, in the order of the table's key.`,
		Example: `  cauce why BTCUSDT-3814021
  cauce why 4711 2 --table orders`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := a.openLake(cmd.Context())
			if err != nil {
				return err
			}
			defer l.Close()
			if table == "" {
				var names []string
				for _, t := range l.Tables {
					names = append(names, t.Name)
				}
				if len(names) != 1 {
					return usagef("%s has several tables (%s); choose one with --table", l.File, list(names))
				}
				table = names[0]
			}
			r, err := l.ingest.Why(cmd.Context(), table, args)
			if err != nil {
				return err
			}
			return a.print(r, func(w io.Writer) error { return printWhy(w, r) })
		},
	}
	cmd.Flags().StringVar(&table, "table", "", "the lake's table that has the row (default: the only one)")
	return cmd
}

func printWhy(w io.Writer, r *ingest.WhyReport) error {
	state := "in the table"
	if !r.Live {
		state = "no longer in the table"
	}
	fmt.Fprintf(w, "%s %s: %s, %s\n", r.Table, printable(strings.Join(r.Key, ", ")), state, count(int64(len(r.Versions)), "version"))
	for i, v := range r.Versions {
		verb := "written"
		if v.Deleted {
			verb = "deleted"
		}
		what := verb + " by version " + strconv.FormatInt(int64(v.Version), 10)
		if v.Version < 0 {
			what = verb + " by a commit that the log no longer has"
		} else {
			what += " (" + v.Operation + ") at " + timeText(v.Time.Truncate(time.Second), true)
		}
		if i > 0 {
			what = "before: " + what
		}
		fmt.Fprintln(w, what)
		o := v.Origin
		for _, line := range originLines(o) {
			fmt.Fprintln(w, "  "+printable(line))
		}
		var cells []string
		for _, c := range v.Columns {
			if c.Text == nil {
				cells = append(cells, c.Name+"=NULL")
			} else {
				cells = append(cells, c.Name+"="+*c.Text)
			}
		}
		fmt.Fprintln(w, "  "+printable(strings.Join(cells, " ")))
	}
	if r.Vacuumed > 0 {
		fmt.Fprintf(w, "%s that may have held earlier versions have been vacuumed\n", count(int64(r.Vacuumed), "data file"))
	}
	if r.Oldest > 0 {
		fmt.Fprintf(w, "the log begins at version %d; what was before it cannot be told\n", r.Oldest)
	}
	return nil
}

func originLines(o ingest.RowOrigin) []string {
	var out []string
	run := ""
	if o.Source != "" {
		run = fmt.Sprintf(", source %s, epoch %d", o.Source, o.Epoch)
		if o.Epoch == 0 {
			run = ", source " + o.Source
		}
	}
	switch {
	case o.Kind == "file" && len(o.Files) > 0 && o.Line > 0:
		out = append(out, fmt.Sprintf("from %s:%d (record %d)%s", o.Files[0], o.Line, o.Position, run), "raw: "+shorten(o.Raw, 200))
	case o.Kind == "file" && len(o.Files) > 0 && !o.Gone:
		out = append(out, fmt.Sprintf("from %s, record %d%s", o.Files[0], o.Position, run))
	case o.Kind == "file" && len(o.Files) > 0:
		out = append(out, fmt.Sprintf("from %s, record %d%s; the file is no longer there, or is another one now", o.Files[0], o.Position, run))
	case o.Kind == "file":
		out = append(out, fmt.Sprintf("from a file that is no longer known, %s, record %d", o.Origin, o.Position))
	case o.Kind == "rest":
		out = append(out, fmt.Sprintf("fetched by a repair from %s: %s id %d%s", o.Incarnation, o.Topic, o.Offset, run))
	case o.Message != "":
		out = append(out, fmt.Sprintf("from %s topic %s, message %s of %s (project %s)%s", o.Kind, o.Topic, o.Message,
			time.UnixMicro(o.Position).UTC().Format(time.RFC3339Nano), o.Incarnation, run))
	case o.Topic != "":
		out = append(out, fmt.Sprintf("from %s topic %s, partition %d, offset %d (incarnation %s)%s", o.Kind, o.Topic, o.Partition, o.Offset, o.Incarnation, run))
	case o.Origin == "":
		out = append(out, "by a statement, or by another program: the row names no origin")
	default:
		out = append(out, "from "+o.Origin+", position "+strconv.FormatInt(o.Position, 10)+run)
	}
	return out
}
