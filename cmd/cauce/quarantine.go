package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cauce-data/cauce/connect/pubsub"
	"github.com/cauce-data/cauce/ingest"
)

func newQuarantine(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "quarantine",
		Short: "Look at the records that did not fit, and try them again",
	}, newQuarantineShow(a), newQuarantineRetry(a))
}

func quarantineFlags(cmd *cobra.Command, f *ingest.QuarantineFilter) {
	cmd.Flags().StringVar(&f.Source, "source", "", "only records of this source")
	cmd.Flags().StringVar(&f.Table, "table", "", "only records meant for this table")
	cmd.Flags().StringVar(&f.Rule, "rule", "", "only records that broke this rule, such as cast:price")
	cmd.Flags().StringVar(&f.Origin, "origin", "", "only records of this origin (the rows' _origin)")
}

// checkQuarantineFilter refuses a name that neither the lake file nor a record in quarantine has: it is mistyped, and what
// it selects is not "nothing".
func checkQuarantineFilter(ctx context.Context, l *lake, f ingest.QuarantineFilter) error {
	var tables []string
	rules := []string{"structure", "unknown_fields", ingest.RuleTombstones}
	var columns []string // their rules
	for _, t := range l.Tables {
		tables = append(tables, t.Name)
		for _, e := range t.Expect {
			rules = append(rules, e.Name)
		}
		for _, c := range t.Columns {
			columns = append(columns, "cast:"+c.Name, "not_null:"+c.Name, "partition:"+c.Name)
		}
	}
	for _, x := range []struct {
		flag, value string
		known       bool
		only        ingest.QuarantineFilter
		hint        string
	}{
		{"source", f.Source, l.Source(f.Source) != nil, ingest.QuarantineFilter{Source: f.Source}, "its sources are: " + list(sourceNames(l.Lake))},
		{"table", f.Table, l.Table(f.Table) != nil, ingest.QuarantineFilter{Table: f.Table}, "its tables are: " + list(tables)},
		{"rule", f.Rule, slices.Contains(rules, f.Rule) || slices.Contains(columns, f.Rule), ingest.QuarantineFilter{Rule: f.Rule},
			"its rules are: " + list(rules) + ", and cast:COLUMN, not_null:COLUMN and partition:COLUMN of its tables' columns"},
	} {
		if x.value == "" || x.known {
			continue
		}
		x.only.All, x.only.Limit = true, 1
		rows, err := l.ingest.QuarantineShow(ctx, x.only)
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			return usagef("--%s %s: no record in quarantine, and nothing in %s, has this name; %s", x.flag, x.value, l.File, x.hint)
		}
	}
	return nil
}

// place names where a bad record stands.
func place(r ingest.QuarantineRow) string {
	if r.File != "" && r.Line == 0 {
		return r.File + " record " + strconv.FormatInt(r.Position, 10) // of a file without lines
	}
	if r.File != "" {
		return r.File + ":" + strconv.FormatInt(r.Line, 10)
	}
	if _, id, ok := strings.Cut(r.Origin, ":"+r.Topic+"/"); ok && strings.HasPrefix(r.Origin, pubsub.Kind+":") {
		return r.Topic + " message " + id // its offset is a time, which other messages may have too
	}
	return fmt.Sprintf("%s/%d@%d", r.Topic, r.Partition, r.Offset)
}

func newQuarantineShow(a *app) *cobra.Command {
	var f ingest.QuarantineFilter
	cmd := &cobra.Command{
		Use:   "show",
		Short: "List records in quarantine with rule, reason and raw text",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := a.openLake(cmd.Context())
			if err != nil {
				return err
			}
			defer l.Close()
			if err := checkQuarantineFilter(cmd.Context(), l, f); err != nil {
				return err
			}
			rows, err := l.ingest.QuarantineShow(cmd.Context(), f)
			if err != nil {
				return err
			}
			if rows == nil {
				rows = []ingest.QuarantineRow{}
			}
			return a.print(struct {
				Rows []ingest.QuarantineRow `json:"rows"`
			}{rows}, func(w io.Writer) error {
				if len(rows) == 0 {
					_, err := fmt.Fprintln(w, "nothing is in quarantine")
					return err
				}
				g := newGrid("source", "at", "rule", "reason", "raw", "state")
				for _, r := range rows {
					g.row(r.Source, place(r), r.Rule, r.Reason, shorten(r.Raw, 80), r.State)
				}
				return g.write(w)
			})
		},
	}
	quarantineFlags(cmd, &f)
	cmd.Flags().BoolVar(&f.All, "all", false, "also records that a retry has resolved")
	cmd.Flags().IntVarP(&f.Limit, "limit", "n", 100, "at most `N` records (0: all)")
	return cmd
}

// shorten cuts a text for display.
func shorten(s string, most int) string {
	r := []rune(s)
	if len(r) <= most {
		return s
	}
	return string(r[:most-1]) + "…"
}

func newQuarantineRetry(a *app) *cobra.Command {
	var f ingest.QuarantineFilter
	var acceptLate bool
	cmd := &cobra.Command{
		Use:   "retry",
		Short: "Run records in quarantine through the lake file as it is now",
		Long: `Run records in quarantine through the lake file as it is now. What passes is merged into its table first and
then marked as resolved; the rest stays. Records of the rule tombstone_retention came after deletions as old as they
were forgotten: they stay too, unless --accept-late says that they were not deleted.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := a.openLake(cmd.Context())
			if err != nil {
				return err
			}
			defer l.Close()
			if err := checkQuarantineFilter(cmd.Context(), l, f); err != nil {
				return err
			}
			r, err := l.ingest.QuarantineRetry(cmd.Context(), f, acceptLate)
			if err != nil {
				return err
			}
			return a.print(r, func(w io.Writer) error {
				fmt.Fprintf(w, "%s tried: %s resolved, %s still bad, %s could not be read again\n",
					count(r.Tried, "record"), thousands(r.Resolved), thousands(r.StillBad), thousands(r.Missing))
				for _, s := range r.Warnings {
					fmt.Fprintf(w, "warning: %s\n", s)
				}
				return nil
			})
		},
	}
	quarantineFlags(cmd, &f)
	cmd.Flags().BoolVar(&acceptLate, "accept-late", false, "also merge records whose deletion may have been forgotten (tombstone_retention)")
	return cmd
}
