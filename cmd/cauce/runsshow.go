package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/cauce-data/cauce/schedule"
)

func newRunsShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show ID",
		Short: "Show one run with its attempts and its result",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := a.loadLake()
			if err != nil {
				return err
			}
			run, err := schedule.Load(runsDir(l), args[0])
			if errors.Is(err, schedule.ErrNoRun) {
				return &usageError{err: err}
			}
			if err != nil {
				return err
			}
			return a.print(run, func(w io.Writer) error {
				text, err := json.MarshalIndent(run, "", "  ")
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(w, "%s\n", text)
				return err
			})
		},
	}
}
