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
		Long: `List the runs that this lake's folder .cauce/runs keeps, newest first: of cauce up, of cauce run batch
(on Spark too) and of cauce run maintenance. A run whose process died is shown as interrupted.
cauce runs show ID prints one with its log.`,
		Args: cobra.NoArgs,
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
				g := newGrid("id", "task", "trigger", "status", "started", "seconds", "attempts", "error").right(5, 6)
				for _, r := range runs {
					first, _, _ := strings.Cut(r.Error, "\n")
					g.row(r.ID, r.Task, r.Trigger, string(r.Status), timeText(r.Started.Truncate(time.Second), true),
						runSeconds(r), fmt.Sprint(len(r.Attempts)), first)
				}
				return g.write(w)
			})
		},
	}
	cmd.Flags().IntVarP(&limit, "limit", "n", 20, "at most `N` runs")
	cmd.AddCommand(newRunsShow(a))
	return cmd
}

// runSeconds is how long a run took; "-" where nobody knows its end.
func runSeconds(r schedule.Run) string {
	if r.Ended.IsZero() {
		return "-"
	}
	return fmt.Sprintf("%.1f", r.Ended.Sub(r.Started).Seconds())
}
