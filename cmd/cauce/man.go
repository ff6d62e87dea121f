package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// newMan writes the manual pages that a release ships. It is hidden: --help says the same to people.
func newMan(a *app) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:    "man",
		Short:  "Write the manual pages, one for each command",
		Args:   cobra.NoArgs,
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := os.MkdirAll(out, 0o755); err != nil {
				return usagef("--out %s: %w", out, err)
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true
			if err := doc.GenManTree(root, &doc.GenManHeader{Title: "CAUCE", Section: "1", Source: "Cauce " + version, Manual: "Cauce"}, out); err != nil {
				return err
			}
			return a.print(struct {
				Folder string `json:"folder"`
			}{out}, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, out)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&out, "out", "man", "`folder` for the pages")
	return cmd
}
