package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cauce-data/cauce/delta"
)

// tableShape is what OPTIMIZE and RESTORE change: files before and after, with their rows.
type tableShape struct {
	Version int64  `json:"version"`
	Files   int    `json:"files"`
	Rows    *int64 `json:"rows"`
	Bytes   int64  `json:"bytes"`
}

func shapeOf(t *delta.Table, s *delta.Snapshot) tableShape {
	d := describe(t, s)
	return tableShape{d.Version, d.Files, d.Rows, d.Bytes}
}

func (s tableShape) String() string {
	rows := "an unknown number of rows"
	if s.Rows != nil {
		rows = count(*s.Rows, "row")
	}
	return fmt.Sprintf("version %d: %s, %s, %s bytes", s.Version, count(int64(s.Files), "file"), rows, thousands(s.Bytes))
}

// hookFromEnv is faultHook for commands that open a table without a lake.
func hookFromEnv() (func(string), error) { return faultHook(os.Getenv) }

func newTableOptimize(a *app) *cobra.Command {
	var (
		zorder, where []string
		target        string
		full          bool
	)
	cmd := &cobra.Command{
		Use:   "optimize TABLE",
		Short: "Write small files and files with deleted rows anew as fewer larger ones",
		Long: `Write small files, and files with deleted rows, anew as fewer larger ones. No row changes; writers that run at
the same time go on. Rows of the new files are sorted by the table's cluster_by. With --zorder every file is written anew so that rows near each other in these columns stand
in the same files, and a query on them opens fewer. A table with clustering columns (CLUSTER BY) is clustered by them:
only what has been written since the last time is touched, or all of it with --full.`,
		Example: `  cauce table optimize unified_events --zorder symbol,event_time`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			bytesTarget, err := parseBytes(target)
			if err != nil {
				return usagef("--target: %w", err)
			}
			return a.runOptimize(cmd, args[0], "optimize", func(s *delta.Snapshot) (delta.OptimizeOptions, error) {
				p, err := parseWhere(s, where)
				if err != nil {
					return delta.OptimizeOptions{}, err
				}
				for i, c := range zorder {
					f, ok := s.Schema().Field(c)
					if !ok {
						return delta.OptimizeOptions{}, usagef("--zorder: table %s has no column %q; it has %s", args[0], c, columnNames(s.Schema()))
					}
					zorder[i] = f.Name
				}
				return delta.OptimizeOptions{
					Where: p, ZOrderBy: zorder, SortBy: a.clusterBy(args[0]), TargetBytes: bytesTarget, Full: full,
				}, nil
			})
		},
	}
	cmd.Flags().StringArrayVar(&where, "where", nil, "only files that may hold such rows, as `COLUMN=VALUE`; several must all hold")
	cmd.Flags().BoolVar(&full, "full", false, "cluster all files of a clustered table anew")
	cmd.Flags().StringSliceVar(&zorder, "zorder", nil, "columns by which rows are clustered")
	cmd.Flags().StringVar(&target, "target", "", "`size` of the files written, such as 128MB")
	return cmd
}

// parseBytes reads sizes such as 64MB or 1GiB; "" is 0.
func parseBytes(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	upper := strings.ToUpper(strings.TrimSpace(s))
	for _, u := range []struct {
		suffix string
		factor float64
	}{
		{"KIB", 1 << 10}, {"MIB", 1 << 20}, {"GIB", 1 << 30}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"B", 1}, {"", 1},
	} {
		number, ok := strings.CutSuffix(upper, u.suffix)
		if !ok {
			continue
		}
		var v float64
		var rest string
		if n, _ := fmt.Sscanf(strings.TrimSpace(number)+" ", "%g%s", &v, &rest); n != 1 || v <= 0 {
			break
		}
		return int64(v * u.factor), nil
	}
	return 0, fmt.Errorf("%q is not a size; write it as 64MB or 1GiB", s)
}

func newTableVacuum(a *app) *cobra.Command {
	var o delta.VacuumOptions
	cmd := &cobra.Command{
		Use:   "vacuum TABLE",
		Short: "Delete files that no version within the retention needs",
		Long: `Delete files that no version within the retention needs. Time travel to versions older than the retention ends.
A retention below 168h (a week) can break readers and writers that are under way, so it also needs --force.`,
		Example: `  cauce table vacuum unified_events --dry-run`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if o.Retention < 0 {
				return usagef("--retention %v: it cannot be negative", o.Retention)
			}
			if !cmd.Flags().Changed("retention") {
				o.Force = false // nothing shorter than the table's own has been asked for
			} else if o.Retention < 168*time.Hour && !o.Force {
				return usagef("--retention %v: below 168h readers and writers under way may lose files; --force does it all the same", o.Retention)
			}
			t, err := a.openTable(ctx, args[0])
			if err != nil {
				return err
			}
			hook, err := hookFromEnv()
			if err != nil {
				return err
			}
			o.Hook = hook
			r, err := t.Vacuum(ctx, o)
			if err != nil {
				return fmt.Errorf("vacuum %s: %w", args[0], err)
			}
			if r.Deleted == nil {
				r.Deleted = []string{}
			}
			result := struct {
				Table  string   `json:"table"`
				DryRun bool     `json:"dry_run"`
				Files  []string `json:"files"`
				Bytes  int64    `json:"bytes"`

				Metrics map[string]string `json:"metrics"`
			}{args[0], o.DryRun, r.Deleted, r.Bytes, r.Metrics}
			return a.print(result, func(w io.Writer) error {
				verb := "deleted"
				if o.DryRun {
					verb = "would delete"
					for _, f := range r.Deleted {
						fmt.Fprintln(w, f)
					}
				}
				_, err := fmt.Fprintf(w, "%s %s, %s bytes\n", verb, count(int64(len(r.Deleted)), "file"), thousands(r.Bytes))
				return err
			})
		},
	}
	f := cmd.Flags()
	f.DurationVar(&o.Retention, "retention", 0, "keep what versions younger than this need (default: the table's own, a week)")
	f.BoolVar(&o.DryRun, "dry-run", false, "only list the files")
	f.BoolVar(&o.Lite, "lite", false, "take the files from the log instead of listing the folder: fast, but files that no commit ever named stay")
	f.BoolVar(&o.Force, "force", false, "allow a retention below 168h")
	return cmd
}

func newTableRestore(a *app) *cobra.Command {
	var at versionFlags
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "restore TABLE",
		Short: "Make an older version the newest one again",
		Long: `Make an older version the newest one again, as a new commit: nothing is lost, and the restore itself can be
undone. What sources have read stays recorded: use cauce run batch --reprocess to read files again.`,
		Example: `  cauce table restore unified_events --version 12`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if at.version < 0 && at.timestamp == "" {
				return usagef("restore which version? give --version or --timestamp; cauce table history %s lists them", args[0])
			}
			t, err := a.openTable(ctx, args[0])
			if err != nil {
				return err
			}
			s, err := t.Snapshot(ctx)
			if err != nil {
				return fmt.Errorf("table %s: %w", args[0], err)
			}
			to, err := at.snapshot(ctx, t)
			if err != nil {
				return fmt.Errorf("table %s: %w", args[0], err)
			}
			before, verb := shapeOf(t, s), "would restore"
			if _, err := t.Restore(ctx, to.Version(), delta.RestoreOptions{DryRun: dryRun}); err != nil {
				return fmt.Errorf("restore %s to version %d: %w", args[0], to.Version(), err)
			}
			if !dryRun {
				verb = "restored"
				if s, err = t.Snapshot(ctx); err != nil {
					return fmt.Errorf("table %s: %w", args[0], err)
				}
			} else {
				s = to
			}
			result := struct {
				Table    string     `json:"table"`
				DryRun   bool       `json:"dry_run"`
				Restored int64      `json:"restored"`
				Before   tableShape `json:"before"`
				After    tableShape `json:"after"`
			}{args[0], dryRun, int64(to.Version()), before, shapeOf(t, s)}
			return a.print(result, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s version %d\nbefore  %v\nafter   %v\n", verb, result.Restored, result.Before, result.After)
				return err
			})
		},
	}
	at.add(cmd, "restore")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only show what the table would be")
	return cmd
}

// clusterBy gives the columns by which the lake file wants a table's files sorted; nil for tables opened by path.
func (a *app) clusterBy(arg string) []string {
	if strings.ContainsAny(arg, `/\`) || isTableFolder(arg) {
		return nil
	}
	l, err := a.loadLake()
	if err != nil {
		return nil // the table was opened through it before, so this is about a file that changes just now
	}
	if t := l.Table(arg); t != nil {
		return t.ClusterBy
	}
	return nil
}
