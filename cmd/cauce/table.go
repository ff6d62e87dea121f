package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cauce-data/cauce/catalog"
	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/objstore"
)

func newTable(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "table",
		Short: "Read and look after single Delta tables, the lake's by name or any by path",
	}, newTableScan(a), newTableFiles(a), newTableCDF(a), newTableHistory(a), newTableDescribe(a),
		newTableInsert(a), newTableDelete(a), newTableTruncate(a), newTableUpdate(a), newTableMerge(a), newTableCreate(a), newTableAlter(a), newTableProperties(a), newTableOptimize(a), newTableReorg(a), newTableVacuum(a), newTablePurge(a), newTableRestore(a),
		newTableCheckpoint(a), newTableCleanup(a), newTableHash(a))
}

// openTable opens the lake's table of that name, or the Delta table at a path or URL.
func (a *app) openTable(ctx context.Context, arg string) (*delta.Table, error) {
	byName := !strings.ContainsAny(arg, `/\`) && !isTableFolder(arg)
	if byName {
		l, err := a.loadLake()
		if err != nil {
			return nil, fmt.Errorf("table %s: it is no folder with a _delta_log, and as a name it needs a lake: %w", arg, err)
		}
		store, err := openStore(ctx, l.Storage, l)
		if err != nil {
			return nil, err
		}
		t, err := catalog.New(l, store, deltaOptions()).Open(ctx, arg)
		if errors.Is(err, delta.ErrNotATable) {
			return nil, usagef("table %s: nothing has been written to it yet; cauce run batch or cauce run stream does", arg)
		}
		return t, err
	}
	store, err := openTableStore(ctx, arg)
	if err != nil {
		return nil, err
	}
	t, err := delta.Open(ctx, store, "", deltaOptions())
	if err != nil {
		return nil, fmt.Errorf("table %s: %w", arg, err)
	}
	return t, nil
}

// openTableStore opens the store whose root is the table itself.
func openTableStore(ctx context.Context, arg string) (objstore.Store, error) {
	if strings.Contains(arg, "://") || strings.HasPrefix(arg, "file:") {
		return openStore(ctx, arg, nil)
	}
	path, err := filepath.Abs(arg)
	if err != nil {
		return nil, fmt.Errorf("table %s: %w", arg, err)
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, usagef("table %s: no such folder", arg)
	}
	return objstore.NewLocal(path)
}

func isTableFolder(path string) bool {
	info, err := os.Stat(filepath.Join(path, "_delta_log"))
	return err == nil && info.IsDir()
}

// versionFlags are how a user names a state of the table.
type versionFlags struct {
	version   int64
	timestamp string
}

func (v *versionFlags) add(cmd *cobra.Command, what string) {
	cmd.Flags().Int64Var(&v.version, "version", -1, what+" this `version`")
	cmd.Flags().StringVar(&v.timestamp, "timestamp", "", what+" the version of this `time`")
	cmd.MarkFlagsMutuallyExclusive("version", "timestamp")
}

func (v *versionFlags) snapshot(ctx context.Context, t *delta.Table) (*delta.Snapshot, error) {
	switch {
	case v.timestamp != "":
		at, err := parsePastTime(v.timestamp)
		if err != nil {
			return nil, usagef("--timestamp: %w", err)
		}
		return t.SnapshotAsOf(ctx, at)
	case v.version >= 0:
		return t.SnapshotAt(ctx, delta.Version(v.version))
	}
	return t.Snapshot(ctx)
}

func newTableScan(a *app) *cobra.Command {
	var (
		at      versionFlags
		format  string
		columns []string
		rowIDs  bool
	)
	cmd := &cobra.Command{
		Use:   "scan TABLE",
		Short: "Print the rows of a Delta table",
		Long: `Print the rows of a Delta table, read by the pure-Go reader of the delta library, without DuckDB.
TABLE is a folder, a URL (file:, s3://, gs://), or the name of a table of the lake.`,
		Example: `  cauce table scan data/processed/unified-events --version 0 --format csv`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			t, err := a.openTable(ctx, args[0])
			if err != nil {
				return err
			}
			s, err := at.snapshot(ctx, t)
			if err != nil {
				return fmt.Errorf("table %s: %w", args[0], err)
			}
			schema := s.Schema()
			for i, c := range columns {
				f, ok := schema.Field(c)
				if !ok {
					return usagef("table %s has no column %q; it has %s", args[0], c, columnNames(schema))
				}
				columns[i] = f.Name
			}
			if len(columns) > 0 {
				narrow := &delta.Schema{}
				for _, c := range columns {
					f, _ := schema.Field(c)
					narrow.Fields = append(narrow.Fields, f)
				}
				schema = narrow
			}
			if rowIDs {
				if !s.RowTracking() {
					return fmt.Errorf("table %s version %d: %w; set its property delta.enableRowTracking to true", args[0], s.Version(), delta.ErrRowTracking)
				}
				schema = &delta.Schema{Fields: append(slices.Clone(schema.Fields), delta.Field{Name: delta.RowIDColumn, Type: delta.Long}, delta.Field{Name: delta.RowCommitVersionColumn, Type: delta.Long})}
			}
			rows := batches(t.Scan(ctx, s, delta.ScanOptions{Columns: columns, RowTracking: rowIDs}))
			if a.json {
				head := resultHead{Version: versionOf(s), FilesTotal: s.NumFiles(), FilesOpened: s.NumFiles(), BytesRead: s.Bytes()}
				return a.printResult(func() resultHead { return head }, schema.Arrow(), rows, t.Store())
			}
			return writeDeltaRows(a.stdout, format, schema, rows)
		},
	}
	at.add(cmd, "read")
	cmd.Flags().StringVar(&format, "format", formatJSONL, "jsonl, csv, json, table or parquet")
	cmd.Flags().StringSliceVar(&columns, "columns", nil, "only these columns")
	cmd.Flags().BoolVar(&rowIDs, "row-ids", false, "also "+delta.RowIDColumn+" and "+delta.RowCommitVersionColumn+", where row tracking is enabled")
	return cmd
}

func columnNames(s *delta.Schema) string {
	names := make([]string, len(s.Fields))
	for i, f := range s.Fields {
		names[i] = f.Name
	}
	return strings.Join(names, ", ")
}

func versionOf(s *delta.Snapshot) *int64 {
	v := int64(s.Version())
	return &v
}

// tableFile is one live data file as `table files` shows it.
type tableFile struct {
	Path      string             `json:"path"`
	Partition map[string]*string `json:"partition"`
	Rows      *int64             `json:"rows"` // live rows; null where the log has no statistics
	Deleted   int64              `json:"deleted"`
	Bytes     int64              `json:"bytes"`
	Modified  time.Time          `json:"modified"`
}

func describeFiles(s *delta.Snapshot) []tableFile {
	files := []tableFile{}
	for _, add := range s.Adds() {
		f := tableFile{
			Path: add.Path, Partition: add.PartitionValues, Bytes: add.Size,
			Modified: time.UnixMilli(add.ModificationTime).UTC(),
		}
		if add.DeletionVector != nil {
			f.Deleted = add.DeletionVector.Cardinality
		}
		if stats, err := delta.ParseStats(add.Stats); err == nil && add.Stats != "" {
			live := stats.NumRecords - f.Deleted
			f.Rows = &live
		}
		files = append(files, f)
	}
	sort.Slice(files, func(i, j int) bool { return files[i].Path < files[j].Path })
	return files
}

func newTableFiles(a *app) *cobra.Command {
	var at versionFlags
	cmd := &cobra.Command{
		Use:   "files TABLE",
		Short: "List the data files that a version of a table consists of",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.openTable(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			s, err := at.snapshot(cmd.Context(), t)
			if err != nil {
				return fmt.Errorf("table %s: %w", args[0], err)
			}
			if a.json { // one object a line: a table may have a million files
				return writeFiles(a.stdout, s)
			}
			files := describeFiles(s)
			return a.print(nil, func(w io.Writer) error {
				g := newGrid("path", "rows", "deleted", "bytes", "modified").right(1, 2, 3)
				for _, f := range files {
					rows := "?"
					if f.Rows != nil {
						rows = strconv.FormatInt(*f.Rows, 10)
					}
					g.row(f.Path, rows, strconv.FormatInt(f.Deleted, 10), strconv.FormatInt(f.Bytes, 10), timeText(f.Modified, true))
				}
				return g.write(w)
			})
		},
	}
	at.add(cmd, "list")
	return cmd
}

// commitLine is one commit as `table history` shows it.
type commitLine struct {
	Version    int64             `json:"version"`
	Time       time.Time         `json:"time"`
	Operation  string            `json:"operation"`
	Parameters map[string]string `json:"parameters,omitempty"`
	Metrics    map[string]string `json:"metrics,omitempty"`
	Engine     string            `json:"engine,omitempty"`
	UserData   string            `json:"user_metadata,omitempty"`
}

func newTableHistory(a *app) *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use:   "history TABLE",
		Short: "List the commits of a table, newest first",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.openTable(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			commits, err := t.History(cmd.Context(), limit)
			if err != nil {
				return fmt.Errorf("table %s: %w", args[0], err)
			}
			lines := []commitLine{}
			for _, c := range commits {
				lines = append(lines, commitLine{
					Version: int64(c.Version), Time: c.Time.UTC(), Operation: c.Info.Operation, Parameters: c.Info.OperationParameters,
					Metrics: c.Info.OperationMetrics, Engine: c.Info.EngineInfo, UserData: c.Info.UserMetadata,
				})
			}
			return a.print(struct {
				Commits []commitLine `json:"commits"`
			}{lines}, func(w io.Writer) error {
				g := newGrid("version", "time", "operation", "by", "metrics").right(0)
				for _, c := range lines {
					g.row(strconv.FormatInt(c.Version, 10), timeText(c.Time, true), c.Operation, c.Engine, metricsText(c.Metrics))
				}
				return g.write(w)
			})
		},
	}
	cmd.Flags().IntVarP(&limit, "limit", "n", 0, "only the newest `N` commits (0: all that the log has)")
	return cmd
}

// metricsText shows the numbers of a commit that are not zero, in the order of their names.
func metricsText(m map[string]string) string {
	keys := make([]string, 0, len(m))
	for k, v := range m {
		if v != "0" && strings.HasPrefix(k, "num") {
			keys = append(keys, k)
		}
	}
	sort.Strings(keys)
	for i, k := range keys {
		keys[i] = k + "=" + m[k]
	}
	return strings.Join(keys, " ")
}

func newTableDescribe(a *app) *cobra.Command {
	var at versionFlags
	cmd := &cobra.Command{
		Use:   "describe TABLE",
		Short: "Show the schema, partitioning, properties and size of a table",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.openTable(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			s, err := at.snapshot(cmd.Context(), t)
			if err != nil {
				return fmt.Errorf("table %s: %w", args[0], err)
			}
			d := describe(t, s)
			switch ok, err := s.VerifyChecksum(cmd.Context()); {
			case err != nil:
				d.Checksum = err.Error()
			case ok:
				d.Checksum = checksumAgrees
			default:
				d.Checksum = "none"
			}
			return a.print(d, func(w io.Writer) error { return printDescription(w, d) })
		},
	}
	at.add(cmd, "describe")
	return cmd
}

// checksumAgrees says of a version that it is what its writer said (delta.Snapshot.VerifyChecksum).
const checksumAgrees = "agrees"

type column struct {
	Name     string `json:"name"`
	Type     string `json:"type"`
	Nullable bool   `json:"nullable"`
}

type description struct {
	Location       string            `json:"location"`
	ID             string            `json:"id"`
	Name           string            `json:"name,omitempty"`
	Version        int64             `json:"version"`
	Time           time.Time         `json:"time"`
	Columns        []column          `json:"columns"`
	PartitionBy    []string          `json:"partition_by"`
	Properties     map[string]string `json:"properties"`
	ReaderVersion  int               `json:"min_reader_version"`
	WriterVersion  int               `json:"min_writer_version"`
	ReaderFeatures []string          `json:"reader_features"`
	WriterFeatures []string          `json:"writer_features"`
	Files          int               `json:"files"`
	Bytes          int64             `json:"bytes"`
	Rows           *int64            `json:"rows"` // null where a file has no statistics
	RowTracking    bool              `json:"row_tracking"`
	Checksum       string            `json:"checksum"` // agrees, none, or how the version differs from what its writer said
}

func describe(t *delta.Table, s *delta.Snapshot) description {
	m, p := s.Metadata(), s.Protocol()
	d := description{
		Location: strings.TrimSuffix(t.Store().URL()+"/"+t.Path(), "/"), ID: m.ID, Name: m.Name,
		Version: int64(s.Version()), Time: s.Time().UTC(), PartitionBy: s.PartitionBy(), Properties: m.Configuration,
		ReaderVersion: p.MinReaderVersion, WriterVersion: p.MinWriterVersion,
		ReaderFeatures: p.ReaderFeatures, WriterFeatures: p.WriterFeatures,
		Columns: []column{}, RowTracking: s.RowTracking(),
	}
	for _, f := range s.Schema().Fields {
		d.Columns = append(d.Columns, column{f.Name, f.Type.String(), f.Nullable})
	}
	var rows int64
	known := true
	for _, f := range describeFiles(s) {
		d.Files++
		d.Bytes += f.Bytes
		if f.Rows == nil {
			known = false
		} else {
			rows += *f.Rows
		}
	}
	if known {
		d.Rows = &rows
	}
	return d
}

func printDescription(w io.Writer, d description) error {
	rows := "unknown number of rows"
	if d.Rows != nil {
		rows = count(*d.Rows, "row")
	}
	fmt.Fprintf(w, "%s\nversion %d of %s: %s, %s, %s bytes\n", d.Location, d.Version, timeText(d.Time, true), rows,
		count(int64(d.Files), "file"), thousands(d.Bytes))
	if len(d.PartitionBy) > 0 {
		fmt.Fprintf(w, "partitioned by %s\n", strings.Join(d.PartitionBy, ", "))
	}
	fmt.Fprintf(w, "protocol: reader %d, writer %d", d.ReaderVersion, d.WriterVersion)
	if len(d.WriterFeatures) > 0 {
		fmt.Fprintf(w, " (%s)", strings.Join(d.WriterFeatures, ", "))
	}
	if d.Checksum != checksumAgrees && d.Checksum != "none" {
		fmt.Fprintf(w, "\nversion checksum: %s", d.Checksum)
	}
	fmt.Fprint(w, "\n\n")
	g := newGrid("column", "type", "nullable")
	for _, c := range d.Columns {
		nullable := "yes"
		if !c.Nullable {
			nullable = "no"
		}
		g.row(c.Name, c.Type, nullable)
	}
	if err := g.write(w); err != nil {
		return err
	}
	if len(d.Properties) > 0 {
		fmt.Fprintln(w)
		keys := make([]string, 0, len(d.Properties))
		for k := range d.Properties {
			keys = append(keys, k)
		}
		sort.Strings(keys)
		g := newGrid("property", "value")
		for _, k := range keys {
			g.row(k, d.Properties[k])
		}
		return g.write(w)
	}
	return nil
}

func newTableHash(a *app) *cobra.Command {
	var (
		at      versionFlags
		exclude []string
	)
	cmd := &cobra.Command{
		Use:   "hash TABLE",
		Short: "Print a hash of a table's rows that does not depend on their order or files",
		Long: `Print a hash of a table's rows that does not depend on their order, on how they are spread over files, or on
deletion vectors. Two tables with the same rows have the same hash; ingested_at is left out.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.openTable(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			s, err := at.snapshot(cmd.Context(), t)
			if err != nil {
				return fmt.Errorf("table %s: %w", args[0], err)
			}
			h, err := delta.LogicalHash(cmd.Context(), t, s, exclude...)
			if err != nil {
				return fmt.Errorf("table %s: %w", args[0], err)
			}
			return a.print(struct {
				Version int64  `json:"version"`
				Hash    string `json:"hash"`
			}{int64(s.Version()), h}, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, h)
				return err
			})
		},
	}
	at.add(cmd, "hash")
	cmd.Flags().StringSliceVar(&exclude, "exclude", []string{"ingested_at"}, "leave these columns out")
	return cmd
}
