package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cauce-data/cauce/schedule"
)

func newRuns(a *app) *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use:   "runs",
		Short: "List the runs of batch and maintenance on this machine, newest first",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			l, err := a.loadLake()
			if err != nil {
				return err
			}
			runs, err := schedule.List(runsDir(l), limit)
			if err != nil {
				return err
			}
			if runs == nil {
				runs = []schedule.Run{}
			}
			return a.print(struct {
				Runs []schedule.Run `json:"runs"`
			}{runs}, func(w io.Writer) error {
				g := newGrid("id", "task", "status", "started", "seconds", "attempts", "error").right(4, 5)
				for _, r := range runs {
					first, _, _ := strings.Cut(r.Error, "\n")
					g.row(r.ID, r.Task, string(r.Status), timeText(r.Started.Truncate(time.Second), true),
						fmt.Sprintf("%.1f", r.Ended.Sub(r.Started).Seconds()), fmt.Sprint(len(r.Attempts)), first)
				}
				return g.write(w)
			})
		},
	}
	cmd.Flags().IntVarP(&limit, "limit", "n", 20, "at most `N` runs")
	cmd.AddCommand(newRunsShow(a))
	return cmd
}
