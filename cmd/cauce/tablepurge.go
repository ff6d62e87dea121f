package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/cauce-data/cauce/catalog"
	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/ingest"
)

func newTablePurge(a *app) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "purge TABLE",
		Short: "Forget deletions that are older than the table's tombstone_retention",
		Long: `Remove the tombstones (rows with _deleted = true) of a table of the lake that are older than its tombstone_retention, as
maintenance does. The commit notes the newest sequence that was removed. A row at or below it that matches no stored
row may be one that was deleted: it goes to quarantine under the rule tombstone_retention.`,
		Example: `  cauce table purge posts --dry-run`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := a.openLake(cmd.Context())
			if err != nil {
				return err
			}
			defer l.Close()
			r, err := l.ingest.PurgeTombstones(cmd.Context(), args[0], dryRun)
			switch {
			case errors.Is(err, catalog.ErrNoTable), errors.Is(err, ingest.ErrNoTombstoneRetention):
				return usagef("table %s: %w", args[0], err)
			case errors.Is(err, delta.ErrNotATable):
				return usagef("table %s: nothing has been written to it yet; cauce run batch or cauce run stream does", args[0])
			case err != nil:
				return fmt.Errorf("purge %s: %w", args[0], err)
			}
			return a.print(r, func(w io.Writer) error {
				what := "removed"
				if dryRun {
					what = "would be removed"
				}
				if _, err := fmt.Fprintf(w, "%s %s\n", count(r.Purged, "tombstone"), what); err != nil || r.UpTo == "" {
					return err
				}
				_, err := fmt.Fprintf(w, "deletions are forgotten up to %s\n", r.UpTo)
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only count")
	return cmd
}
