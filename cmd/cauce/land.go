package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/cauce-data/cauce/ingest"
)

func newLand(a *app) *cobra.Command {
	var o ingest.LandOptions
	cmd := &cobra.Command{
		Use:   "land FILE…",
		Short: "Put files under raw/batch/, whole or not at all",
		Long: `Put files under raw/batch/ of the lake's root, each whole or not at all, with its own time of modification.
A FILE.CHECKSUM beside a file (sha256, as exchanges publish them) is verified first.`,
		Example: `  cauce land ~/Downloads/historico_2024-08-20.csv`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := a.openLake(cmd.Context())
			if err != nil {
				return err
			}
			defer l.Close()
			r, err := l.ingest.Land(cmd.Context(), args, o)
			if err != nil {
				return err
			}
			return a.print(r, func(w io.Writer) error {
				for _, f := range r.Files {
					verified := ""
					if f.Verified {
						verified = ", checksum verified"
					}
					fmt.Fprintf(w, "%s: %s (%s bytes%s)\n", f.Key, f.Status, thousands(f.Bytes), verified)
				}
				for _, s := range r.Warnings {
					fmt.Fprintf(w, "warning: %s\n", s)
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&o.Dir, "dir", "raw/batch", "`folder` below the root")
	return cmd
}
