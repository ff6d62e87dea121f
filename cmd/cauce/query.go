package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/spf13/cobra"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/engine/duckdb"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/objstore/usage"
	"github.com/cauce-data/cauce/pipeline"
)

func newQuery(a *app) *cobra.Command {
	var asOf, format, output string
	var write, dryRun bool
	cmd := &cobra.Command{
		Use:   `query ["SELECT …"]`,
		Short: "Ask the tables with SQL",
		Long: `Ask the tables with SQL (DuckDB's dialect), by the names they have in the lake file; quarantine is one more.
A path in quotes is a table too: SELECT * FROM 'data/processed/unified-events'. Only data files that can hold
matching rows are opened. Without SQL it reads a statement from standard input,
and on a terminal it is an interactive shell.

With --write it also runs statements that change one table: DELETE, TRUNCATE, UPDATE, INSERT, MERGE INTO, OPTIMIZE, REORG,
VACUUM, RESTORE, CREATE TABLE and ALTER TABLE, in Delta's spelling; --dry-run says what they would do. Expressions in
them mean what they mean in Spark (ANSI mode). Without a lake file tables are named by their paths.

What the log tells of a table is read with Spark's statements: DESCRIBE HISTORY t [LIMIT n], DESCRIBE DETAIL t,
DESCRIBE [TABLE] [EXTENDED] t, SHOW TBLPROPERTIES t [(key)], SHOW PARTITIONS t.

--as-of reads a table as it was: a version number, or a time (2024-08-20, 2024-08-20T13:45:00Z). In SQL:
FROM unified_events VERSION AS OF 3, or TIMESTAMP AS OF '2024-08-20 13:45:00', several versions beside each other too, as
Spark has it; DuckDB's AT (VERSION => 3) is the same;
FROM table_changes('unified_events', 3, 5) are the changes of versions 3 to 5 (where delta.enableChangeDataFeed is set).
--json prints {columns, rows, version, files_total, files_opened, bytes_read} and, in a bucket, requests; --format json only the rows.`,
		Example: `  cauce query "SELECT symbol, count(*) AS n FROM unified_events GROUP BY symbol" --format csv
  cauce query "SELECT count(*) FROM unified_events" --as-of 3
  cauce query --write "DELETE FROM unified_events WHERE price > 1e6" --dry-run`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			switch format {
			case formatTable, formatCSV, formatJSON, formatJSONL, formatParquet:
			default:
				return usagef("--format %q: it is one of table, csv, json, jsonl, parquet", format)
			}
			if a.json && (cmd.Flags().Changed("format") || output != "") {
				return usagef("--json prints one object of its own form; leave --format and --output out, or say --format json without --json")
			}
			if err := checkAsOf(asOf); err != nil {
				return err
			}
			if dryRun && !write {
				return usagef("--dry-run is about statements that change a table; they need --write")
			}
			l, err := a.openQueryLake(ctx, cmd.Flags().Changed("lake"))
			if err != nil {
				return err
			}
			defer l.Close()
			var sql string
			switch {
			case len(args) == 1:
				sql = args[0]
			case isTerminal(a.stdin):
				if l.ingest == nil {
					_, err := a.loadLake()
					return err
				}
				return a.shell(ctx, l, asOf, write)
			default:
				in, err := io.ReadAll(a.stdin)
				if err != nil {
					return fmt.Errorf("statement from standard input: %w", err)
				}
				sql = string(in)
			}
			if strings.TrimSpace(sql) == "" {
				return usagef("there is no statement; write it as an argument: cauce query \"SELECT …\"")
			}
			if format == formatParquet && output == "" && a.stdoutIsTerminal() {
				return usagef("--format parquet writes binary data; name a file with --output FILE")
			}
			stmt, err := l.parseStatement(sql)
			if err == nil {
				err = statementAllowed(stmt, write)
			}
			if err != nil {
				return err
			}
			if stmt != nil && !stmt.Reads() {
				if asOf != "" || output != "" || cmd.Flags().Changed("format") {
					return usagef("--as-of, --format and --output are about queries; %s changes a table", stmt.Kind)
				}
				res, err := a.execute(ctx, l, stmt, dryRun)
				if err != nil {
					return err
				}
				return a.print(res, res.write)
			}
			if dryRun {
				return usagef("--dry-run is about statements that change a table; this is a query")
			}
			var r *result
			if stmt != nil {
				r, err = a.described(ctx, l, stmt, asOf)
			} else {
				r, err = a.runQuery(ctx, l, sql, asOf)
			}
			if err != nil {
				return err
			}
			defer r.Close()
			if a.json {
				return a.printResult(r.head, r.Schema(), r.Batches(ctx), l.store)
			}
			if output != "" {
				return writeFile(output, func(w io.Writer) error {
					_, err := writeRows(w, format, r.Schema(), r.Batches(ctx))
					return err
				})
			}
			_, err = writeRows(a.stdout, format, r.Schema(), r.Batches(ctx))
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&asOf, "as-of", "", "read the table as of this `VERSION or TIME`")
	f.StringVar(&format, "format", formatTable, "table, csv, json, jsonl or parquet")
	f.BoolVar(&write, "write", false, "allow statements that change a table")
	f.BoolVar(&dryRun, "dry-run", false, "with --write: only say what a statement would change")
	f.StringVarP(&output, "output", "o", "", "write to this `file` instead of standard output")
	return cmd
}

// writeFile creates or replaces a file whole or not at all.
func writeFile(path string, write func(w io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".cauce-*")
	if err != nil {
		return fmt.Errorf("--output: %w", err)
	}
	err = write(f)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// result is a running query with the versions that it reads.
type result struct {
	*duckdb.Result
	versions map[string]int64 // by table name
}

// query runs one statement over snapshots of the tables that it names.
func (l *lake) query(ctx context.Context, sql, asOf string) (*result, error) {
	named, err := l.engine.TableNames(ctx, sql)
	if err != nil {
		return nil, &usageError{err: err}
	}
	named, tables := l.expandViews(named)
	if asOf != "" && len(named) != 1 {
		return nil, usagef("--as-of needs a query over one table; this one names %s", list(named))
	}
	r := &result{versions: map[string]int64{}}
	for _, name := range named {
		t, q, err := l.openNamed(ctx, name)
		if err != nil {
			return nil, err
		}
		if q.Snapshot, err = snapshotAsOf(ctx, t, asOf); err != nil {
			return nil, fmt.Errorf("table %s: %w", name, err)
		}
		q.Hide = l.hides(q)
		tables = append(tables, q)
		r.versions[q.Name] = int64(q.Snapshot.Version())
	}
	if r.Result, err = l.engine.Query(ctx, sql, tables); err != nil {
		return nil, err
	}
	return r, nil
}

// openNamed opens a table that a query names, and says how it shows itself there; the snapshot is still to be set.
func (l *lake) openNamed(ctx context.Context, name string) (*delta.Table, duckdb.QueryTable, error) {
	q := duckdb.QueryTable{Name: name}
	if strings.ContainsAny(name, `/\`) { // any Delta table by its path, in double quotes or single ones
		store, err := openTableStore(ctx, name)
		if err != nil {
			return nil, q, err
		}
		t, err := delta.Open(ctx, store, "", deltaOptions())
		if err != nil {
			return nil, q, fmt.Errorf("table %s: %w", name, err)
		}
		return t, q, nil
	}
	t, err := l.ingest.Catalog().Open(ctx, name)
	if errors.Is(err, delta.ErrNotATable) {
		return nil, q, usagef("table %s: nothing has been written to it yet; cauce run batch or cauce run stream does", name)
	}
	if declared := l.Table(name); declared != nil && err == nil {
		q.Name = declared.Name
	}
	return t, q, err
}

// hides says which rows of a table at its snapshot are not seen.
func (l *lake) hides(q duckdb.QueryTable) string {
	if l.Lake == nil || l.Table(q.Name) == nil {
		return "" // one that others wrote, or quarantine
	}
	return pipeline.HideDeleted(q.Snapshot.Schema())
}

// expandViews puts the tables that views read in the place of the views' names.
func (l *lake) expandViews(named []string) (tables []string, views []duckdb.QueryTable) {
	add := func(name string) {
		if !slices.ContainsFunc(tables, func(n string) bool { return strings.EqualFold(n, name) }) {
			tables = append(tables, name)
		}
	}
	for _, name := range named {
		var v *pipeline.View
		if l.Lake != nil { // tables by their paths need none
			v = l.View(name)
		}
		if v == nil {
			add(name)
			continue
		}
		views = append(views, duckdb.QueryTable{Name: v.Name, View: v.SQL, Reads: v.Tables})
		for _, t := range v.Tables {
			add(t)
		}
	}
	return tables, views
}

// snapshotAsOf reads --as-of: a version number, or a time.
func snapshotAsOf(ctx context.Context, t *delta.Table, asOf string) (*delta.Snapshot, error) {
	if err := checkAsOf(asOf); err != nil {
		return nil, err
	}
	if asOf == "" {
		return t.Snapshot(ctx)
	}
	if v, err := strconv.ParseInt(asOf, 10, 64); err == nil {
		return t.SnapshotAt(ctx, delta.Version(v))
	}
	at, err := parsePastTime(asOf)
	if err != nil {
		return nil, err
	}
	return t.SnapshotAsOf(ctx, at)
}

// checkAsOf tells whether a text names a version or a time; "" names the newest version.
func checkAsOf(asOf string) error {
	if v, err := strconv.ParseInt(asOf, 10, 64); err == nil {
		if v < 0 {
			return usagef("--as-of %s: versions begin at 0", asOf)
		}
		return nil
	}
	if asOf == "" {
		return nil
	}
	if _, err := parseTime(asOf); err != nil {
		return usagef("--as-of %q: neither a version number nor a time such as 2024-08-20T13:45:00Z", asOf)
	}
	if _, err := parsePastTime(asOf); err != nil {
		return usagef("--as-of: %w", err)
	}
	return nil
}

// resultHead is what --json tells beside the rows.
type resultHead struct {
	Version     *int64           `json:"version"` // of the one table; null if there are several or none
	Versions    map[string]int64 `json:"versions,omitempty"`
	FilesTotal  int              `json:"files_total"`
	FilesOpened int              `json:"files_opened"`
	BytesRead   int64            `json:"bytes_read"`
	Requests    usage.Usage      `json:"requests,omitempty"` // of the storage's server, by kind
}

func (r *result) head() resultHead {
	h := resultHead{FilesTotal: r.FilesTotal, FilesOpened: r.FilesOpened, BytesRead: r.BytesRead}
	if len(r.versions) > 1 {
		h.Versions = r.versions
	} else {
		for _, v := range r.versions {
			h.Version = &v
		}
	}
	return h
}

// withRequests adds what the whole command asked of the storage's server.
func withRequests(h resultHead, store objstore.Store) resultHead {
	h.Requests = requests(store, nil)
	return h
}

// printResult prints a result as the one JSON object of --json.
func (a *app) printResult(head func() resultHead, schema *arrow.Schema, rows batches, store objstore.Store) error {
	body, err := jsonRows(schema, rows)
	if err != nil {
		return err
	}
	return a.printJSON(struct {
		resultBody
		resultHead
	}{body, withRequests(head(), store)})
}

// resultBody are the rows of a result as --json prints them.
type resultBody struct {
	Columns []jsonColumn    `json:"columns"`
	Rows    json.RawMessage `json:"rows"`
}

type jsonColumn struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

func jsonRows(schema *arrow.Schema, rows batches) (resultBody, error) {
	var b bytes.Buffer
	if _, err := writeRows(&b, formatJSON, schema, rows); err != nil {
		return resultBody{}, err
	}
	out := resultBody{Columns: []jsonColumn{}, Rows: b.Bytes()}
	names := uniqueNames(schema)
	for i, f := range schema.Fields() {
		out.Columns = append(out.Columns, jsonColumn{names[i], sqlType(f.Type)})
	}
	return out, nil
}
