package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/engine/duckdb"
)

// createTable runs CREATE TABLE. Only tables by path are made so: those of a lake are what the lake file says.
func (a *app) createTable(ctx context.Context, l *lake, s *duckdb.Statement, dryRun bool) (*statementResult, error) {
	if !strings.ContainsAny(s.Table, `/\`) {
		return nil, usagef("CREATE TABLE %s: a table of the lake is declared in the lake file and made by the first run; a table of its own needs a path, such as './%s'", s.Table, s.Table)
	}
	if !strings.Contains(s.Table, "://") && !strings.HasPrefix(s.Table, "file:") {
		if err := os.MkdirAll(s.Table, 0o755); err != nil {
			return nil, fmt.Errorf("CREATE TABLE %s: %w", s.Table, err)
		}
	}
	store, err := openTableStore(ctx, s.Table)
	if err != nil {
		return nil, err
	}
	res := &statementResult{Statement: s.Kind, Table: s.Table, DryRun: dryRun}
	opts := &delta.Options{EngineInfo: engineInfo(), Engine: l.engine.Delta()}
	t, err := delta.Open(ctx, store, "", opts)
	switch {
	case err == nil && s.Create.IfNotExists:
		snap, err := t.Snapshot(ctx)
		if err != nil {
			return nil, err
		}
		res.Version = int64(snap.Version())
		return res, nil
	case err == nil:
		return nil, usagef("CREATE TABLE %s: %w; IF NOT EXISTS leaves it as it is", s.Table, delta.ErrTableExists)
	case !errors.Is(err, delta.ErrNotATable):
		return nil, err
	case dryRun:
		return nil, usagef("--dry-run: CREATE TABLE has none")
	}
	if _, err := delta.Create(ctx, store, "", *s.Create, opts); err != nil {
		return nil, alterError(fmt.Errorf("CREATE TABLE %s: %w", s.Table, err))
	}
	res.Committed = true
	return res, nil
}

// alter runs what ALTER TABLE does to the schema, the properties and the protocol; ok is false for other statements.
func alter(ctx context.Context, t *delta.Table, s *duckdb.Statement, o delta.AlterOptions) (res *delta.AlterResult, ok bool, err error) {
	switch s.Kind {
	case "ADD COLUMNS":
		res, err = t.AddColumns(ctx, s.NewColumns, o)
	case "RENAME COLUMN":
		res, err = t.RenameColumn(ctx, s.Path, s.NewName, o)
	case "DROP COLUMNS":
		res, err = t.DropColumns(ctx, s.Paths, delta.DropColumnsOptions{AlterOptions: o, IfExists: s.IfExists})
	case "CHANGE COLUMN":
		res, err = t.ChangeColumn(ctx, s.Path, s.Change, o)
	case "SET TBLPROPERTIES":
		res, err = t.SetProperties(ctx, s.Properties, o)
	case "UNSET TBLPROPERTIES":
		res, err = t.UnsetProperties(ctx, s.Names, s.IfExists, o)
	case "CLUSTER BY":
		res, err = t.SetClusterBy(ctx, s.Names, o)
	case "DROP FEATURE":
		res, err = t.DropFeature(ctx, s.Feature, delta.DropFeatureOptions{AlterOptions: o, TruncateHistory: s.TruncateHistory})
	default:
		return nil, false, nil
	}
	return res, true, alterError(err)
}

// alterError tells changes that were asked for wrongly from work that failed.
func alterError(err error) error {
	for _, bad := range []error{delta.ErrAlter, delta.ErrProperty, delta.ErrSchema} {
		if errors.Is(err, bad) {
			return &usageError{err: err}
		}
	}
	return err
}

func newTableCreate(a *app) *cobra.Command {
	var columns, properties []string
	var partitionBy, clusterBy []string
	var comment string
	var ifNotExists bool
	cmd := &cobra.Command{
		Use:   "create PATH",
		Short: "Make an empty table",
		Long: `Make an empty table at a path. Columns are written as in SQL: a name, a type, and NOT NULL, DEFAULT, GENERATED ALWAYS AS
(…) or COMMENT, if need be. The same as cauce query --write "CREATE TABLE 'PATH' (…)".`,
		Example: `  cauce table create ./events --column "id BIGINT NOT NULL" --column "day DATE" --partition-by day --property delta.columnMapping.mode=name`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(columns) == 0 {
				return usagef("which columns? give --column \"NAME TYPE\"")
			}
			sql := "CREATE TABLE "
			if ifNotExists {
				sql += "IF NOT EXISTS "
			}
			path := args[0]
			if !strings.ContainsAny(path, `/\`) {
				path = "./" + path
			}
			sql += quotedTable(path) + " (" + strings.Join(columns, ", ") + ")"
			quoted := func(names []string) string {
				out := make([]string, len(names))
				for i, n := range names {
					out[i] = "`" + strings.ReplaceAll(n, "`", "``") + "`"
				}
				return " (" + strings.Join(out, ", ") + ")"
			}
			if len(partitionBy) > 0 {
				sql += " PARTITIONED BY" + quoted(partitionBy)
			}
			if len(clusterBy) > 0 {
				sql += " CLUSTER BY" + quoted(clusterBy)
			}
			if comment != "" {
				sql += " COMMENT " + quotedTable(comment)
			}
			if len(properties) > 0 {
				list, err := propertyList(properties)
				if err != nil {
					return err
				}
				sql += " TBLPROPERTIES " + list
			}
			return a.runStatement(cmd, sql, false)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&columns, "column", nil, "a column, as `\"NAME TYPE …\"`; several, in order")
	f.StringSliceVar(&partitionBy, "partition-by", nil, "partition columns")
	f.StringSliceVar(&clusterBy, "cluster-by", nil, "clustering columns")
	f.StringArrayVar(&properties, "property", nil, "a table property, as `KEY=VALUE`; several are possible")
	f.StringVar(&comment, "comment", "", "what the table is")
	f.BoolVar(&ifNotExists, "if-not-exists", false, "leave a table that is there as it is")
	return cmd
}

// propertyList is KEY=VALUE arguments as SQL has them.
func propertyList(args []string) (string, error) {
	var parts []string
	for _, p := range args {
		k, v, ok := strings.Cut(p, "=")
		if !ok || k == "" {
			return "", usagef("property %q: write it as KEY=VALUE", p)
		}
		parts = append(parts, quotedTable(k)+" = "+quotedTable(v))
	}
	return "(" + strings.Join(parts, ", ") + ")", nil
}

func newTableAlter(a *app) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "alter TABLE CHANGE",
		Short: "Change columns, properties, clustering or features of a table",
		Long: `Change columns, properties, clustering or features of a table, in one commit; no row changes. The same as
cauce query --write "ALTER TABLE TABLE CHANGE". Changes are:

  ADD COLUMN name type [COMMENT 'text'] [FIRST | AFTER column]      RENAME COLUMN name TO new      DROP COLUMN [IF EXISTS] name
  ALTER COLUMN name TYPE type | COMMENT 'text' | DROP NOT NULL | SET DEFAULT value | DROP DEFAULT | FIRST | AFTER column
  ADD CONSTRAINT name CHECK (condition)      DROP CONSTRAINT [IF EXISTS] name
  SET TBLPROPERTIES (key = value, …)      UNSET TBLPROPERTIES [IF EXISTS] (key, …)
  CLUSTER BY (columns) | CLUSTER BY NONE      DROP FEATURE name [TRUNCATE HISTORY]`,
		Example: `  cauce table alter ./events "RENAME COLUMN ts TO event_time"`,
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runStatement(cmd, "ALTER TABLE "+quotedTable(args[0])+" "+strings.Join(args[1:], " "), dryRun)
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only check whether it can be done")
	return cmd
}

func newTableProperties(a *app) *cobra.Command {
	var set, unset []string
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "properties TABLE",
		Short: "Show, set or unset table properties",
		Long: `Show the properties of a table and the features that its protocol lists, or set or unset some. Setting a property that a
table feature hangs on raises the protocol, so that older programs may not be able to use the table any more.`,
		Example: `  cauce table properties ./events --set delta.enableChangeDataFeed=true`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(set) > 0 && len(unset) > 0:
				return usagef("--set and --unset are two changes; make one after the other")
			case len(set) > 0:
				list, err := propertyList(set)
				if err != nil {
					return err
				}
				return a.runStatement(cmd, "ALTER TABLE "+quotedTable(args[0])+" SET TBLPROPERTIES "+list, dryRun)
			case len(unset) > 0:
				var names []string
				for _, n := range unset {
					names = append(names, quotedTable(n))
				}
				return a.runStatement(cmd, "ALTER TABLE "+quotedTable(args[0])+" UNSET TBLPROPERTIES ("+strings.Join(names, ", ")+")", dryRun)
			}
			t, err := a.openTable(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			s, err := t.Snapshot(cmd.Context())
			if err != nil {
				return fmt.Errorf("table %s: %w", args[0], err)
			}
			return a.printProperties(args[0], s)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&set, "set", nil, "`KEY=VALUE`; several are possible")
	f.StringArrayVar(&unset, "unset", nil, "`KEY`; several are possible")
	f.BoolVar(&dryRun, "dry-run", false, "only check whether it can be done")
	return cmd
}

func (a *app) printProperties(name string, s *delta.Snapshot) error {
	p, m := s.Protocol(), s.Metadata()
	result := struct {
		Table            string            `json:"table"`
		Version          int64             `json:"version"`
		MinReaderVersion int               `json:"min_reader_version"`
		MinWriterVersion int               `json:"min_writer_version"`
		ReaderFeatures   []string          `json:"reader_features"`
		WriterFeatures   []string          `json:"writer_features"`
		Properties       map[string]string `json:"properties"`
	}{name, int64(s.Version()), p.MinReaderVersion, p.MinWriterVersion, p.ReaderFeatures, p.WriterFeatures, m.Configuration}
	if result.Properties == nil {
		result.Properties = map[string]string{}
	}
	return a.print(result, func(w io.Writer) error {
		fmt.Fprintf(w, "protocol   reader %d, writer %d\n", p.MinReaderVersion, p.MinWriterVersion)
		if len(p.WriterFeatures) > 0 {
			fmt.Fprintf(w, "features   %s\n", strings.Join(p.WriterFeatures, ", "))
		}
		names := make([]string, 0, len(m.Configuration))
		for k := range m.Configuration {
			names = append(names, k)
		}
		sort.Strings(names)
		for _, k := range names {
			fmt.Fprintf(w, "%s = %s\n", k, m.Configuration[k])
		}
		return nil
	})
}
