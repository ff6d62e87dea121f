package main

import (
	"encoding/json"
	"fmt"
	"io"
	"sort"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cauce-data/cauce/ingest"
)

func newSample(a *app) *cobra.Command {
	var n int
	cmd := &cobra.Command{
		Use:   "sample SOURCE",
		Short: "Show what the lake file makes of a source's first records, writing nothing",
		Long: `Show what the lake file makes of a source's first records, writing nothing: each raw record, the columns that its
fields give, and the final row, or the rule that sends it to quarantine.`,
		Example: `  cauce sample history -n 5`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if n <= 0 {
				return usagef("-n %d: it must be greater than 0", n)
			}
			ctx := cmd.Context()
			l, err := a.openLake(cmd.Context())
			if err != nil {
				return err
			}
			defer l.Close()
			o := ingest.SampleOptions{Source: args[0], N: n}
			if src := l.Source(args[0]); src != nil && src.Streaming() {
				st := a.streams(l.Lake)
				defer st.Close()
				stream, err := st.source(ctx, src)
				if err != nil {
					return err
				}
				defer stream.Close()
				o.Stream = stream
			}
			s, err := l.ingest.Sample(ctx, o)
			if err != nil {
				return err
			}
			return a.print(s, func(w io.Writer) error { return printSample(w, s) })
		},
	}
	cmd.Flags().IntVarP(&n, "records", "n", 20, "show this many `records`")
	return cmd
}

func printSample(w io.Writer, s *ingest.SampleReport) error {
	if s.File != "" {
		fmt.Fprintf(w, "%s\n", s.File)
	}
	for _, r := range s.Rows {
		fmt.Fprintf(w, "\n%d  %s\n", r.Position, printable(r.Raw))
		if len(r.Mapped) > 0 {
			fmt.Fprintf(w, "   mapped       %s\n", assignments(r.Mapped))
		}
		if len(r.Final) > 0 {
			fmt.Fprintf(w, "   final        %s\n", assignments(r.Final))
		}
		if r.Rule != "" {
			fmt.Fprintf(w, "   %-12s %s: %s\n", r.Outcome, r.Rule, r.Reason)
		} else if len(r.Final) == 0 {
			fmt.Fprintf(w, "   %s\n", r.Outcome)
		}
	}
	if len(s.Rows) == 0 {
		_, err := fmt.Fprintln(w, "there is nothing to sample")
		return err
	}
	return nil
}

// assignments renders a row as "a=1 b=x", in the order of the names.
func assignments(m map[string]any) string {
	names := make([]string, 0, len(m))
	for name := range m {
		if !strings.HasPrefix(name, "_") {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	var b strings.Builder
	for i, name := range names {
		if i > 0 {
			b.WriteByte(' ')
		}
		v := m[name]
		if v == nil {
			v = "NULL"
		}
		if raw, ok := v.(json.RawMessage); ok {
			v = string(raw) // nested values
		}
		fmt.Fprintf(&b, "%s=%s", name, printable(fmt.Sprint(v)))
	}
	return b.String()
}
