package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cauce-data/cauce/pipeline"
	"github.com/cauce-data/cauce/schedule"
)

// alertPatience bounds how long a process waits until somebody has been told of a run.
const alertPatience = time.Minute

// sendAlert posts an alert to the lake file's webhook.
func sendAlert(ctx context.Context, l *pipeline.Lake, a schedule.Alert) error {
	ctx, cancel := context.WithTimeout(ctx, alertPatience)
	defer cancel()
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	a.Lake, a.Host = l.File, host
	a.Text = fmt.Sprintf("cauce: task %s %s (run %s on %s, lake %s)", a.Task, a.Event, a.Run, host, l.File)
	if a.Error != "" {
		a.Error = l.Redact(a.Error)
		first, _, _ := strings.Cut(a.Error, "\n")
		a.Text += ": " + first
	}
	return schedule.Webhook{URL: l.Schedule.AlertURL}.Send(ctx, a)
}

func newAlert(a *app) *cobra.Command {
	alert := schedule.Alert{Event: schedule.EventFailed}
	var event string
	cmd := &cobra.Command{
		Use:   "alert",
		Short: "Post an alert to the lake file's webhook, for other schedulers and to try it",
		Long: `Post an alert to the webhook that the lake file names (schedule.alerts.url), as cauce up does for its own runs.
Schedulers such as Airflow call it when a task has failed for good; by hand it shows whether the address is right.
Where the lake file names no webhook, this says so and does nothing.`,
		Example: `  cauce alert --event test --task batch`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := a.loadLake()
			if err != nil {
				return err
			}
			alert.Event = schedule.Event(event)
			result := struct {
				Sent bool `json:"sent"`
			}{l.Schedule.AlertURL != ""}
			if result.Sent {
				if err := sendAlert(cmd.Context(), l, alert); err != nil {
					return err
				}
			}
			return a.print(result, func(w io.Writer) error {
				text := "sent"
				if !result.Sent {
					text = "nobody is told: the lake file has no schedule.alerts.url"
				}
				_, err := fmt.Fprintln(w, text)
				return err
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&event, "event", string(schedule.EventFailed), "what happened: a `word` such as failed, recovered or test")
	f.StringVar(&alert.Task, "task", "", "the `name` of the task")
	f.StringVar(&alert.Run, "run-id", "", "`ID` of the run")
	f.StringVar(&alert.Error, "error", "", "`text` of the error")
	f.IntVar(&alert.Attempts, "attempts", 0, "`number` of tries")
	return cmd
}
