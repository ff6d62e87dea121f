package main

import (
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/pipeline"
)

func newStatus(a *app) *cobra.Command {
	var noLag bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show tables, how far each source has been read, lag and throughput of streams, and quarantine",
		Long: `Show tables, how far each source has been read, and quarantine, from the tables alone. Rows of a table are those
that are stored: deletions that it remembers, which queries leave out, are among them. Of each stream the
events a second of the last commits are shown (up to 64, with no pause of five minutes between them), and how
many events wait behind the table's position and how long the oldest has waited, and whether a run would stop
because of a gap: for that the broker or the buffer is asked, which --no-lag leaves out.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := a.openLake(cmd.Context())
			if err != nil {
				return err
			}
			defer l.Close()
			s, err := l.ingest.Status(cmd.Context())
			if err != nil {
				return err
			}
			sources := a.sourceStatuses(cmd.Context(), l, s, !noLag)
			return a.print(struct {
				*ingest.Status
				Sources []sourceStatus `json:"sources"`
			}{s, sources}, func(w io.Writer) error { return printStatus(w, s, sources) })
		},
	}
	cmd.Flags().BoolVar(&noLag, "no-lag", false, "do not ask brokers and buffer")
	return cmd
}

func printStatus(w io.Writer, s *ingest.Status, sources []sourceStatus) error {
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
	if err := printStreams(w, sources); err != nil || len(s.Quarantine) == 0 {
		return err
	}
	fmt.Fprintln(w)
	g = newGrid("quarantine", "source", "rule", "rows").right(3)
	for _, q := range s.Quarantine {
		g.row(q.Table, q.Source, q.Rule, thousands(q.Rows))
	}
	return g.write(w)
}

// printStreams shows lag and throughput of the streams, if there are any.
func printStreams(w io.Writer, sources []sourceStatus) error {
	g := newGrid("stream", "waiting", "oldest", "events/s", "last commit").right(1, 2, 3)
	n := 0
	for _, s := range sources {
		if s.Lag == nil && s.Recent == nil {
			continue
		}
		n++
		waiting, oldest, rate, last := "?", "?", "-", "-"
		if s.Lag != nil && s.Lag.Error == "" {
			waiting, oldest = thousands(s.Lag.Records), "-"
			if s.Lag.Records > 0 {
				oldest = time.Duration(s.Lag.Seconds * float64(time.Second)).Round(100 * time.Millisecond).String()
			}
		}
		if s.Recent != nil {
			rate = strconv.FormatFloat(s.Recent.PerSecond, 'f', 1, 64)
			last = timeText(s.Recent.Last.Truncate(time.Second), true)
		}
		g.row(s.Name, waiting, oldest, rate, last)
	}
	if n > 0 {
		fmt.Fprintln(w)
		if err := g.write(w); err != nil {
			return err
		}
	}
	for _, s := range sources {
		if s.Lag != nil && s.Lag.Error != "" {
			if _, err := fmt.Fprintf(w, "stream %s: how much waits is not known: %s\n", s.Name, s.Lag.Error); err != nil {
				return err
			}
		}
		if s.Stops != "" {
			if _, err := fmt.Fprintf(w, "stream %s: a run would stop: %s\n", s.Name, s.Stops); err != nil {
				return err
			}
		}
	}
	return nil
}

func readSoFar(src ingest.SourceStatus) string {
	if len(src.Streams) == 0 && src.Kind != pipeline.KindFiles {
		return "nothing yet"
	}
	if len(src.Streams) == 0 {
		return count(int64(src.Files), "file")
	}
	last := src.Streams[len(src.Streams)-1]
	text := ""
	for _, p := range last.Positions {
		if text != "" {
			text += ", "
		}
		switch {
		case p.Offset < 0:
			text += fmt.Sprintf("partition %d nothing yet", p.Partition)
			continue
		case src.Kind == pipeline.KindPubSub: // no log: its offset is the time of publishing
			text += "messages published up to " + timeText(p.Time.Truncate(time.Millisecond), true)
			continue
		}
		text += fmt.Sprintf("partition %d up to %d", p.Partition, p.Offset)
		if !p.Time.IsZero() {
			text += " (" + timeText(p.Time.Truncate(time.Millisecond), true) + ")"
		}
	}
	gaps := 0
	for _, s := range src.Streams {
		gaps += len(s.Gaps)
	}
	if gaps > 0 {
		text += fmt.Sprintf("; %s allowed", count(int64(gaps), "gap"))
	}
	return text
}
