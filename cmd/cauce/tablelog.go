package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cauce-data/cauce/delta"
)

var comparison = regexp.MustCompile(`^\s*([^<>=!]+?)\s*(<=|>=|<>|!=|=|<|>)\s*(.*?)\s*$`)

// parseWhere reads comparisons such as "event_date >= 2024-08-20"; several must all hold.
func parseWhere(s *delta.Snapshot, list []string) (delta.Predicate, error) {
	var all []delta.Predicate
	for _, text := range list {
		m := comparison.FindStringSubmatch(text)
		if m == nil {
			return nil, usagef("--where %q: write it as COLUMN=VALUE, or with < <= > >= <>", text)
		}
		f, ok := s.Schema().Field(m[1])
		if !ok {
			return nil, usagef("--where %q: the table has no column %q; it has %s", text, m[1], columnNames(s.Schema()))
		}
		raw := strings.Trim(m[3], `'"`)
		v, err := delta.ParsePartitionValue(f.Type, &raw)
		if err != nil {
			return nil, usagef("--where %q: %w", text, err)
		}
		all = append(all, delta.Compare{Column: f.Name, Op: m[2], Value: v})
	}
	if len(all) == 0 {
		return nil, nil
	}
	return delta.And(all...), nil
}

// optimizeResult is what `table optimize` and `table reorg` say.
type optimizeResult struct {
	Table   string            `json:"table"`
	Before  tableShape        `json:"before"`
	After   tableShape        `json:"after"`
	Seconds float64           `json:"seconds"`
	Yielded int               `json:"yielded"` // groups of files left alone because a writer changed them meanwhile
	Metrics map[string]string `json:"metrics"` // Spark's names
}

// runOptimize runs an OPTIMIZE or REORG and prints what it changed.
func (a *app) runOptimize(cmd *cobra.Command, table, what string, options func(*delta.Snapshot) (delta.OptimizeOptions, error)) error {
	ctx := cmd.Context()
	t, err := a.openTable(ctx, table)
	if err != nil {
		return err
	}
	s, err := t.Snapshot(ctx)
	if err != nil {
		return fmt.Errorf("table %s: %w", table, err)
	}
	o, err := options(s)
	if err != nil {
		return err
	}
	before := shapeOf(t, s)
	if o.Hook, err = hookFromEnv(); err != nil {
		return err
	}
	start := time.Now()
	done, err := t.Optimize(ctx, o)
	if err != nil {
		return fmt.Errorf("%s %s: %w", what, table, err)
	}
	if s, err = t.Snapshot(ctx); err != nil {
		return fmt.Errorf("table %s: %w", table, err)
	}
	if done.Metrics == nil {
		done.Metrics = map[string]string{}
	}
	result := optimizeResult{table, before, shapeOf(t, s), time.Since(start).Seconds(), done.Yielded, done.Metrics}
	return a.print(result, func(w io.Writer) error {
		if done.Commits == 0 {
			_, err := fmt.Fprintf(w, "nothing to do: %v\n", result.Before)
			return err
		}
		_, err := fmt.Fprintf(w, "before  %v\nafter   %v\n", result.Before, result.After)
		return err
	})
}

func newTableReorg(a *app) *cobra.Command {
	var where []string
	cmd := &cobra.Command{
		Use:   "reorg TABLE",
		Short: "Write the files that have deletion vectors anew, without the deleted rows",
		Long: `Write the files that have deletion vectors anew, without the deleted rows: SQL's REORG TABLE … APPLY (PURGE). No
row changes. cauce table vacuum deletes the old files when their retention is over; only then is the data gone.`,
		Example: `  cauce table reorg unified_events --where event_date=2024-08-20`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runOptimize(cmd, args[0], "reorg", func(s *delta.Snapshot) (delta.OptimizeOptions, error) {
				p, err := parseWhere(s, where)
				return delta.OptimizeOptions{Purge: true, Where: p}, err
			})
		},
	}
	cmd.Flags().StringArrayVar(&where, "where", nil, "only files that may hold such rows, as `COLUMN=VALUE`; several must all hold")
	return cmd
}

func newTableCheckpoint(a *app) *cobra.Command {
	var o delta.CheckpointOptions
	cmd := &cobra.Command{
		Use:   "checkpoint TABLE",
		Short: "Write a checkpoint of the newest version, so that readers need not read the commits before it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.openTable(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			v, err := t.CheckpointAs(cmd.Context(), o)
			if errors.Is(err, delta.ErrProperty) {
				return usagef("%w", err)
			}
			if err != nil {
				return fmt.Errorf("checkpoint %s: %w", args[0], err)
			}
			return a.print(struct {
				Table   string `json:"table"`
				Version int64  `json:"version"`
			}{args[0], int64(v)}, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "version %d has a checkpoint\n", v)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&o.Format, "format", "", "of the manifest of a V2 checkpoint (delta.checkpointPolicy=v2): json or parquet")
	cmd.Flags().BoolVar(&o.Classic, "classic", false, "give a V2 checkpoint the classic name, by which older programs find the protocol")
	return cmd
}

// lastProgress refuses commits that hold the newest progress of a source: where the file that names it is missing, it is
// read from the commit.
func lastProgress(s *delta.Snapshot, commits []delta.Commit) error {
	for _, c := range commits {
		for _, x := range c.Txns {
			if last, ok := s.Txn(x.AppID); ok && last == x.Version && strings.HasPrefix(x.AppID, "cauce/") {
				return fmt.Errorf("version %d holds the last progress of source %s; clean up with a longer --retention, or after its next run", c.Version, x.AppID)
			}
		}
	}
	return nil
}

func newTableCleanup(a *app) *cobra.Command {
	var o delta.CleanupOptions
	cmd := &cobra.Command{
		Use:   "cleanup TABLE",
		Short: "Delete log entries that are older than the retention and behind a checkpoint",
		Long: `Delete log entries that are older than the retention and that no younger version needs: commits before the newest
checkpoint that is old enough, older checkpoints, and sidecars that no checkpoint names any more. Versions before that
checkpoint cannot be read afterwards. Data files are not touched; cauce table vacuum deletes those.
Nothing is deleted while one of the commits holds the last progress of a source of the lake.`,
		Example: `  cauce table cleanup data/processed/unified-events --dry-run`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.Retention < 0 {
				return usagef("--retention %v: it cannot be negative", o.Retention)
			}
			t, err := a.openTable(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			s, err := t.Snapshot(cmd.Context())
			if err != nil {
				return fmt.Errorf("table %s: %w", args[0], err)
			}
			o.Before = func(_ context.Context, commits []delta.Commit) error { return lastProgress(s, commits) }
			r, err := t.CleanupLog(cmd.Context(), o)
			if err != nil {
				return fmt.Errorf("clean up the log of %s: %w", args[0], err)
			}
			if r.Deleted == nil {
				r.Deleted = []string{}
			}
			return a.print(struct {
				Table    string   `json:"table"`
				DryRun   bool     `json:"dry_run"`
				Deleted  []string `json:"deleted"`
				Earliest int64    `json:"earliest"`
			}{args[0], o.DryRun, r.Deleted, int64(r.Earliest)}, func(w io.Writer) error {
				verb := "deleted"
				if o.DryRun {
					verb = "would delete"
					for _, k := range r.Deleted {
						fmt.Fprintln(w, k)
					}
				}
				_, err := fmt.Fprintf(w, "%s %s; version %d is the first that can be read\n", verb, count(int64(len(r.Deleted)), "object"), r.Earliest)
				return err
			})
		},
	}
	cmd.Flags().DurationVar(&o.Retention, "retention", 0, "keep entries younger than this (default: the table's delta.logRetentionDuration, 30 days)")
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "only list them")
	return cmd
}
