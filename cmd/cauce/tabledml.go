package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// quotedTable names a table inside a statement.
func quotedTable(name string) string { return "'" + strings.ReplaceAll(name, "'", "''") + "'" }

// runStatement runs a statement that a command of `cauce table` has put together.
func (a *app) runStatement(cmd *cobra.Command, sql string, dryRun bool) error {
	l, err := a.openQueryLake(cmd.Context(), cmd.Flags().Changed("lake"))
	if err != nil {
		return err
	}
	defer l.Close()
	s, err := l.parseStatement(sql)
	if err != nil {
		return err
	}
	if s == nil {
		return usagef("%s: a quote has no end", sql)
	}
	res, err := a.execute(cmd.Context(), l, s, dryRun)
	if err != nil {
		return err
	}
	return a.print(res, res.write)
}

func newTableDelete(a *app) *cobra.Command {
	var where string
	var all, dryRun bool
	cmd := &cobra.Command{
		Use:   "delete TABLE",
		Short: "Delete the rows for which a condition is true",
		Long: `Delete the rows for which a condition is true (not false, not null), in one commit. The same as
cauce query --write "DELETE FROM TABLE WHERE …".`,
		Example: `  cauce table delete unified_events --where "price > 1e6" --dry-run`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			sql := "DELETE FROM " + quotedTable(args[0])
			switch {
			case where != "" && !all:
				sql += " WHERE " + where
			case where != "" || !all:
				return usagef("which rows? give --where, or --all for every row")
			}
			return a.runStatement(cmd, sql, dryRun)
		},
	}
	cmd.Flags().StringVar(&where, "where", "", "the `condition`")
	cmd.Flags().BoolVar(&all, "all", false, "delete every row")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say how many rows")
	return cmd
}

func newTableTruncate(a *app) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "truncate TABLE",
		Short: "Delete every row of a table",
		Long: `Delete every row of a table, in one commit; its schema and properties stay, and earlier versions can be read and restored
until cauce table vacuum deletes their files. The same as cauce query --write "TRUNCATE TABLE TABLE".`,
		Example: `  cauce table truncate ./staging --dry-run`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runStatement(cmd, "TRUNCATE TABLE "+quotedTable(args[0]), dryRun)
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say how many rows")
	return cmd
}

func newTableUpdate(a *app) *cobra.Command {
	var where string
	var set []string
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "update TABLE",
		Short: "Give columns new values in the rows for which a condition is true",
		Long: `Give columns new values in the rows for which a condition is true, in one commit. The same as
cauce query --write "UPDATE TABLE SET … WHERE …".`,
		Example: `  cauce table update unified_events --set "source = upper(source)" --where "symbol = 'BTCUSDT'"`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(set) == 0 {
				return usagef("what shall change? give --set \"COLUMN = VALUE\"")
			}
			sql := "UPDATE " + quotedTable(args[0]) + " SET " + strings.Join(set, ", ")
			if where != "" {
				sql += " WHERE " + where
			}
			return a.runStatement(cmd, sql, dryRun)
		},
	}
	cmd.Flags().StringArrayVar(&set, "set", nil, "`COLUMN = VALUE`; several are possible")
	cmd.Flags().StringVar(&where, "where", "", "the `condition`; without one every row is changed")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say how many rows")
	return cmd
}

func newTableInsert(a *app) *cobra.Command {
	var using, replace string
	var byPosition, overwrite, partitions, dryRun bool
	cmd := &cobra.Command{
		Use:   "insert TABLE",
		Short: "Add the rows of a query to a table, or put them in the place of others",
		Long: `Add the rows of a query to a table, in one commit: columns go to those of their names, and what the query does not give
gets its default. --overwrite removes all other rows, --overwrite-partitions those of the partitions that the new rows are in
(Spark's dynamic partition overwrite), --replace-where those for which a condition is true, which the new rows must satisfy.
The same as cauce query --write "INSERT INTO TABLE BY NAME …", "INSERT OVERWRITE …", "INSERT INTO … REPLACE USING (…)" and
"INSERT INTO … REPLACE WHERE …".`,
		Example: `  cauce table insert prices --using "SELECT 1 AS id, 2.5 AS price"
  cauce table insert prices --replace-where "day = '2024-08-20'" --using "SELECT * FROM corrected" --dry-run`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if using == "" {
				return usagef("which rows? give --using \"SELECT …\"")
			}
			if overwrite && (partitions || replace != "") {
				return usagef("--overwrite replaces every row; leave it or what else says which rows out")
			}
			if partitions && replace != "" {
				return usagef("--overwrite-partitions and --replace-where both say which rows are replaced; leave one out")
			}
			sql := "INSERT INTO " + quotedTable(args[0])
			if overwrite {
				sql = "INSERT OVERWRITE " + quotedTable(args[0])
			}
			if !byPosition {
				sql += " BY NAME"
			}
			if partitions {
				by, err := a.partitionBy(cmd, args[0])
				if err != nil {
					return err
				}
				sql += " REPLACE USING (" + by + ")"
			}
			if replace != "" {
				sql += " REPLACE WHERE " + replace
			}
			return a.runStatement(cmd, sql+"\n"+using, dryRun)
		},
	}
	cmd.Flags().StringVar(&using, "using", "", "the `query` whose rows are added")
	cmd.Flags().BoolVar(&byPosition, "by-position", false, "the query's columns are the table's in their order, whatever they are called")
	cmd.Flags().BoolVar(&overwrite, "overwrite", false, "remove all rows that are there")
	cmd.Flags().BoolVar(&partitions, "overwrite-partitions", false, "remove the rows of the partitions that new rows are in")
	cmd.Flags().StringVar(&replace, "replace-where", "", "remove the rows for which this `condition` is true")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say how many rows")
	return cmd
}

// partitionBy lists the partition columns of a table, as SQL names them.
func (a *app) partitionBy(cmd *cobra.Command, table string) (string, error) {
	t, err := a.openTable(cmd.Context(), table)
	if err != nil {
		return "", err
	}
	s, err := t.Snapshot(cmd.Context())
	if err != nil {
		return "", fmt.Errorf("table %s: %w", table, err)
	}
	by := s.PartitionBy()
	if len(by) == 0 {
		return "", usagef("--overwrite-partitions: table %s has none; --overwrite replaces all of its rows", table)
	}
	for i, n := range by {
		by[i] = `"` + strings.ReplaceAll(n, `"`, `""`) + `"`
	}
	return strings.Join(by, ", "), nil
}

func newTableMerge(a *app) *cobra.Command {
	var using, on string
	var when []string
	var evolve, dryRun bool
	cmd := &cobra.Command{
		Use:   "merge TABLE",
		Short: "Merge the rows of a query into a table",
		Long: `Merge the rows of a query (the source) into a table (the target), in one commit, with the clauses of SQL's MERGE.
Without --when matched rows are replaced and others inserted. The same as cauce query --write "MERGE INTO …".`,
		Example: `  cauce table merge prices --using "SELECT 1 AS id, 2.5 AS price" --on "target.id = source.id"`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if using == "" || on == "" {
				return usagef("a merge needs --using \"SELECT …\" and --on \"target.id = source.id\"")
			}
			if len(when) == 0 {
				when = []string{"MATCHED THEN UPDATE SET *", "NOT MATCHED THEN INSERT *"}
			}
			sql := "MERGE "
			if evolve {
				sql += "WITH SCHEMA EVOLUTION "
			}
			sql += "INTO " + quotedTable(args[0]) + " AS target USING (" + using + "\n) AS source ON " + on
			for _, w := range when {
				sql += " WHEN " + w
			}
			return a.runStatement(cmd, sql, dryRun)
		},
	}
	cmd.Flags().StringVar(&using, "using", "", "the `query` whose rows are merged")
	cmd.Flags().StringVar(&on, "on", "", "the `condition` under which rows match")
	cmd.Flags().StringArrayVar(&when, "when", nil, "a `clause`, such as \"MATCHED AND source.gone THEN DELETE\"; several, in order")
	cmd.Flags().BoolVar(&evolve, "evolve", false, "add columns to the table that only the source has")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say how many rows")
	return cmd
}
