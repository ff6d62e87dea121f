package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/cauce-data/cauce/pipeline"
)

// problem is a finding in a lake file as --json shows it.
type problem struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

func problems(d pipeline.Diagnostics) []problem {
	out := []problem{}
	for _, x := range d {
		out = append(out, problem{x.File, x.Line, x.Column, x.Msg, x.Hint})
	}
	return out
}

func newCheck(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Find every mistake in the lake file, without touching data",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			type report struct {
				OK       bool      `json:"ok"`
				File     string    `json:"file"`
				Tables   []string  `json:"tables"`
				Sources  []string  `json:"sources"`
				Errors   []problem `json:"errors"`
				Warnings []problem `json:"warnings"`
				ExitCode int       `json:"exit_code"`
			}
			r := report{File: a.lakeFile, Tables: []string{}, Sources: []string{}, Errors: []problem{}, Warnings: []problem{}}
			l, err := a.loadLake()
			var found pipeline.Diagnostics
			switch {
			case errors.As(err, &found):
				r.Errors, r.ExitCode = problems(found), exitUsage
				if a.json {
					if err := a.printJSON(r); err != nil {
						return err
					}
				}
				return &usageError{err: found}
			case err != nil:
				return err
			}
			r.OK, r.File, r.Warnings = true, l.File, problems(l.Warnings)
			for _, t := range l.Tables {
				r.Tables = append(r.Tables, t.Name)
			}
			for _, s := range l.Sources {
				r.Sources = append(r.Sources, s.Name)
			}
			return a.print(r, func(w io.Writer) error {
				for _, d := range l.Warnings {
					fmt.Fprintf(w, "warning: %v\n", d)
				}
				_, err := fmt.Fprintf(w, "%s is right: tables %s; sources %s\n", a.lakeFile, list(r.Tables), list(r.Sources))
				return err
			})
		},
	}
}
