package main

import (
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/cauce-data/cauce/ingest"
)

func newStatus(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show tables, how far each source has been read, and quarantine",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := a.openLake()
			if err != nil {
				return err
			}
			defer l.Close()
			s, err := l.ingest.Status(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(s, func(w io.Writer) error { return printStatus(w, s) })
		},
	}
}

func printStatus(w io.Writer, s *ingest.Status) error {
	g := newGrid("table", "version", "of", "rows", "files", "bytes", "partitions").right(1, 3, 4, 5, 6)
	for _, t := range s.Tables {
		if !t.Exists {
			g.row(t.Name, "-", "nothing written yet", "-", "-", "-", "-")
			continue
		}
		rows := "?"
		if t.Rows >= 0 {
			rows = thousands(t.Rows)
		}
		g.row(t.Name, strconv.FormatInt(int64(t.Version), 10), timeText(t.Time.Truncate(time.Second), true), rows,
			thousands(int64(t.Files)), thousands(t.Bytes), thousands(int64(t.Partitions)))
	}
	if err := g.write(w); err != nil {
		return err
	}
	fmt.Fprintln(w)
	g = newGrid("source", "table", "kind", "commits", "read so far").right(3)
	for _, src := range s.Sources {
		g.row(src.Name, src.Table, src.Kind, thousands(src.Epoch), readSoFar(src))
	}
	if err := g.write(w); err != nil {
		return err
	}
	if len(s.Quarantine) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	g = newGrid("quarantine", "source", "rule", "rows").right(3)
	for _, q := range s.Quarantine {
		g.row(q.Table, q.Source, q.Rule, thousands(q.Rows))
	}
	return g.write(w)
}

func readSoFar(src ingest.SourceStatus) string {
	if len(src.Streams) == 0 {
		return count(int64(src.Files), "file")
	}
	// The newest incarnation is the one that goes on.
	last := src.Streams[len(src.Streams)-1]
	text := ""
	for _, p := range last.Positions {
		if text != "" {
			text += ", "
		}
		text += fmt.Sprintf("partition %d up to %d", p.Partition, p.Offset)
		if !p.Time.IsZero() {
			text += " (" + timeText(p.Time.Truncate(time.Millisecond), true) + ")"
		}
	}
	if len(last.Gaps) > 0 {
		text += fmt.Sprintf("; %s allowed", count(int64(len(last.Gaps)), "gap"))
	}
	return text
}
