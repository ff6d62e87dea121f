package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/cauce-data/cauce/schedule"
)

// runLogShown bounds the log that runs show prints; all of it stands in .cauce/runs.
const runLogShown = 256 << 10

func newRunsShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show ID",
		Short: "Show one run with its attempts, its result and its log",
		Long:  "Show one run. The ID may be shortened to an unambiguous beginning or end.",
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
			log, err := schedule.LogOf(runsDir(l), run, runLogShown)
			if err != nil {
				return err
			}
			return a.print(struct {
				*schedule.Run
				Log string `json:"log"`
			}{run, string(log)}, func(w io.Writer) error { return printRun(w, run, log) })
		},
	}
}

func printRun(w io.Writer, r *schedule.Run, log []byte) error {
	fmt.Fprintf(w, "run       %s\ntask      %s (%s, process %d)\nstatus    %s\nstarted   %s\nseconds   %s\n",
		r.ID, r.Task, r.Trigger, r.PID, r.Status, timeText(r.Started.Truncate(time.Second), true), runSeconds(*r))
	if r.Command != "" {
		fmt.Fprintf(w, "command   %s\n", r.Command)
	}
	if r.ExitCode != nil {
		fmt.Fprintf(w, "exit code %d\n", *r.ExitCode)
	}
	if r.Error != "" {
		fmt.Fprintf(w, "error     %s\n", r.Error)
	}
	for i, at := range r.Attempts {
		text := "ok"
		if at.Error != "" {
			text = at.Error
		}
		fmt.Fprintf(w, "attempt %d %s, %.1f s: %s\n", i+1, timeText(at.Started.Truncate(time.Second), true), at.Ended.Sub(at.Started).Seconds(), text)
	}
	if len(r.Result) > 0 {
		fmt.Fprintf(w, "result    %s\n", r.Result)
	}
	if len(log) > 0 {
		fmt.Fprintln(w)
	}
	_, err := w.Write(log)
	return err
}
