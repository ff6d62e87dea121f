package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/cauce-data/cauce/catalog"
	"github.com/cauce-data/cauce/pipeline"
)

// completeNames gives each command below cmd whose argument is a table or a source the names of the lake file for the
// shell's completion. A table may be a path as well, so files are offered where no name fits.
func completeNames(a *app, cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		completeNames(a, c)
		_, args, _ := strings.Cut(c.Use, " ")
		var names func(*pipeline.Lake) []string
		switch {
		case c.ValidArgsFunction != nil:
			continue
		case strings.HasPrefix(strings.Trim(args, "["), "TABLE"):
			names = tableNames
		case strings.HasPrefix(strings.Trim(args, "["), "SOURCE"):
			names = sourceNames
		default:
			continue
		}
		many := strings.Contains(args, "…")
		c.ValidArgsFunction = func(_ *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) > 0 && !many {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			l, err := a.loadLake()
			if err != nil { // whoever completes a command has no use for why
				return nil, cobra.ShellCompDirectiveDefault
			}
			var out []cobra.Completion
			for _, n := range names(l) {
				if strings.HasPrefix(n, toComplete) {
					out = append(out, n)
				}
			}
			if len(out) == 0 {
				return nil, cobra.ShellCompDirectiveDefault
			}
			return out, cobra.ShellCompDirectiveNoFileComp
		}
	}
}

func tableNames(l *pipeline.Lake) []string {
	var out []string
	for _, t := range l.Tables {
		out = append(out, t.Name)
	}
	return append(out, catalog.Quarantine)
}

func sourceNames(l *pipeline.Lake) []string {
	var out []string
	for _, s := range l.Sources {
		out = append(out, s.Name)
	}
	return out
}
