package duckdb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"golang.org/x/sync/errgroup"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/objstore/cache"
)

// fileShift puts a file's index above its row numbers in one BIGINT: no Parquet file has 2^40 rows.
const fileShift = 40

// Names of the positions that the SQL of a scan gives with its rows. They are none that a column of a table is likely to
// have, as _row is.
const (
	fileIndexColumn = "_cauce_file_index_"
	rowColumn       = "_cauce_row_"
)

// scanOptions say what a scan gives.
type scanOptions struct {
	Ship     *Shipped // take along what the SQL names, for another process
	Columns  []string // logical names, nil: all of the table
	Position bool     // add fileIndexColumn INTEGER (into the files given) and rowColumn BIGINT (physical row number)
	Deleted  bool     // keep the rows that deletion vectors mark
}

// scan is the SQL that reads data files in the table's logical schema.
type scan struct {
	// SQL is a SELECT statement. It names temporary tables of the connection that made it.
	SQL   string
	conn  *conn
	temps []string // temporary tables
	local *localFiles
	ship  *Shipped // not nil: another process will run SQL, and needs what it names
}

// Close drops what the scan needed.
func (s *scan) Close(ctx context.Context) error {
	var errs []error
	for _, t := range s.temps {
		errs = append(errs, s.conn.exec(context.WithoutCancel(ctx), "DROP TABLE IF EXISTS "+quoteName(t)))
	}
	return errors.Join(append(errs, s.local.Close())...)
}

// scan prepares reading files: partition columns from the log, columns that files lack as null, physical types made
// those of the table, rows that deletion vectors mark left out.
func (e *Engine) scan(ctx context.Context, c *conn, info delta.TableInfo, files []delta.File, o scanOptions) (_ *scan, err error) {
	s := &scan{conn: c, local: &localFiles{}, ship: o.Ship}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close(ctx))
		}
	}()
	columns, err := scanColumns(info, o.Columns)
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		s.SQL = emptyScan(columns, o.Position)
		return s, nil
	}
	if s.local, err = e.localFiles(ctx, info.Store, files); err != nil {
		return nil, err
	}
	groups, err := e.survey(ctx, c, info, files, s.local.paths, columns)
	if err != nil {
		return nil, err
	}
	var parts []string
	for _, g := range groups {
		if g.odd {
			sql, err := s.oddFiles(ctx, e, info, files, g.files, columns, o)
			if err != nil {
				return nil, err
			}
			parts = append(parts, sql)
			continue
		}
		// Files with and without deletion vectors are read apart, so that the many without pay nothing for the few with.
		var plain, marked []int
		for _, i := range g.files {
			if f := files[i]; !o.Deleted && f.Deleted != nil && !f.Deleted.IsEmpty() {
				marked = append(marked, i)
			} else {
				plain = append(plain, i)
			}
		}
		for _, part := range []struct {
			files  []int
			marked bool
		}{{plain, false}, {marked, true}} {
			if len(part.files) == 0 {
				continue
			}
			sql, err := s.group(ctx, e, info, files, part.files, g.names, columns, o, part.marked)
			if err != nil {
				return nil, err
			}
			parts = append(parts, sql)
		}
	}
	s.SQL = strings.Join(parts, " UNION ALL ")
	return s, nil
}

// scanColumn is one column of a scan.
type scanColumn struct {
	field     delta.Field
	physical  string // name in the files and in partitionValues
	partition bool
}

func scanColumns(info delta.TableInfo, names []string) ([]scanColumn, error) {
	mapped := false
	switch strings.ToLower(info.Config["delta.columnMapping.mode"]) {
	case "name", "id":
		mapped = true
	}
	column := func(f delta.Field) scanColumn {
		c := scanColumn{field: f, physical: f.Name}
		if p, ok := f.Metadata["delta.columnMapping.physicalName"].(string); ok && mapped {
			c.physical = p
		}
		c.partition = slices.ContainsFunc(info.PartitionBy, func(p string) bool { return strings.EqualFold(p, f.Name) })
		return c
	}
	if names == nil {
		out := make([]scanColumn, len(info.Schema.Fields))
		for i, f := range info.Schema.Fields {
			out[i] = column(f)
		}
		return out, nil
	}
	out := make([]scanColumn, len(names))
	for i, n := range names {
		f, ok := info.Schema.Field(n)
		if !ok {
			return nil, fmt.Errorf("%w: %q", delta.ErrNoSuchColumn, n)
		}
		out[i] = column(f)
	}
	return out, nil
}

func emptyScan(columns []scanColumn, position bool) string {
	var items []string
	for _, c := range columns {
		items = append(items, fmt.Sprintf("NULL::%s AS %s", sqlType(c.field.Type, false), quoteName(c.field.Name)))
	}
	if position {
		items = append(items, "NULL::INTEGER AS "+fileIndexColumn, "NULL::BIGINT AS "+rowColumn)
	}
	if len(items) == 0 {
		items = []string{"NULL"}
	}
	return "SELECT " + strings.Join(items, ", ") + " WHERE false"
}

// group reads the files with the given indices. names are what the wanted columns are called in the files, "" for one
// that they lack; nil: as the log says.
func (s *scan) group(ctx context.Context, e *Engine, info delta.TableInfo, files []delta.File, group []int, names []string, columns []scanColumn, o scanOptions, marked bool) (string, error) {
	paths := make([]string, len(group))
	members := make([]delta.File, len(group))
	for i, at := range group {
		paths[i], members[i] = s.local.paths[at], files[at]
	}
	var partition []scanColumn
	for _, c := range columns {
		if c.partition {
			partition = append(partition, c)
		}
	}
	// DuckDB leaves out files by filters on hive columns and counts file_index anew over the rest: where file_index is
	// needed, the values come from the log.
	byFolder := len(partition) > 0 && !marked && !o.Position && foldersTellPartitions(info, members)
	source := readParquet(paths, byFolder, partition, names == nil)
	var items []string
	for i, c := range columns {
		typ, name, physical := sqlType(c.field.Type, false), quoteName(c.field.Name), c.physical
		if names != nil {
			physical = names[i]
		}
		switch {
		case c.partition && byFolder:
			items = append(items, fmt.Sprintf("CAST(p.%s AS %s) AS %s", quoteName(c.physical), typ, name))
		case c.partition:
			values, err := partitionList(members, c)
			if err != nil {
				return "", err
			}
			items = append(items, fmt.Sprintf("%s[p.file_index::BIGINT + 1] AS %s", values, name))
		case physical == "", c.field.Type == delta.Void:
			items = append(items, fmt.Sprintf("NULL::%s AS %s", typ, name))
		default:
			items = append(items, fmt.Sprintf("CAST(p.%s AS %s) AS %s", quoteName(physical), typ, name))
		}
	}
	if o.Position {
		// DuckDB counts the files of the group; the caller's index is that of all files.
		index := "p.file_index"
		if !identity(group) {
			index = indexList(group) + "[p.file_index::BIGINT + 1]"
		}
		items = append(items, "CAST("+index+" AS INTEGER) AS "+fileIndexColumn, "p.file_row_number AS "+rowColumn)
	}
	if len(items) == 0 {
		items = []string{"NULL"}
	}
	sql := "SELECT " + strings.Join(items, ", ") + " FROM " + source + " p"
	if marked {
		name, err := s.deletedTable(ctx, e, members)
		if err != nil {
			return "", err
		}
		sql += fmt.Sprintf(" ANTI JOIN %s d ON (p.file_index::BIGINT << %d) + p.file_row_number = d.k", quoteName(name), fileShift)
	}
	return sql, nil
}

func identity(group []int) bool {
	for i, at := range group {
		if i != at {
			return false
		}
	}
	return true
}

// readParquet is the table function over local files. Its virtual columns file_index and file_row_number tell where a
// row comes from. text says that columns without a mark are text.
func readParquet(paths []string, byFolder bool, partition []scanColumn, text bool) string {
	quoted := make([]string, len(paths))
	for i, p := range paths {
		quoted[i] = globEscape.Replace(p)
	}
	sql := "read_parquet(" + quoteTexts(quoted) + ", hive_partitioning = " + strconv.FormatBool(byFolder)
	if text {
		sql += ", binary_as_string = true"
	}
	if byFolder {
		var types []string
		for _, c := range partition {
			types = append(types, quoteText(c.physical)+": "+sqlType(c.field.Type, false))
		}
		sql += ", hive_types = {" + strings.Join(types, ", ") + "}"
	}
	return sql + ")"
}

// globEscape keeps DuckDB from taking characters of a path for a pattern.
var globEscape = strings.NewReplacer("[", "[[]", "*", "[*]", "?", "[?]")

// hiveNull is hive's folder name for a null partition value.
const hiveNull = "__HIVE_DEFAULT_PARTITION__"

// plain tells whether a text stands in a path as it is.
func plain(s string) bool {
	return strings.Trim(s, "0123456789-_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

// foldersTellPartitions reports whether each file lies in the hive folder that its partition values in the log give,
// in plain characters. The engine may then take the values from the path, which costs nothing a row. A path proves
// nothing by itself (PROTOCOL.md, "Partition Value Serialization"): a file elsewhere makes the values come from the log.
func foldersTellPartitions(info delta.TableInfo, files []delta.File) bool {
	if strings.Contains(info.Path, "=") || strings.Contains(info.Store.URL(), "=") {
		return false
	}
	if _, ok := info.Store.(objstore.LocalPather); !ok {
		return false
	}
	names := make([]string, len(info.PartitionBy))
	cols, err := scanColumns(info, info.PartitionBy)
	if err != nil {
		return false
	}
	for i, c := range cols {
		if c.field.Type != delta.Date && c.field.Type != delta.Long && c.field.Type != delta.Integer && c.field.Type != delta.String {
			return false
		}
		if names[i] = c.physical; !plain(c.physical) { // DuckDB does not undo hive's escapes in names
			return false
		}
	}
	for _, f := range files {
		for _, v := range f.Add.PartitionValues {
			// In a path DuckDB takes the word NULL, in any case, and hive's name of null for no value.
			if v != nil && (strings.EqualFold(*v, "null") || strings.EqualFold(*v, hiveNull) || !plain(*v)) {
				return false
			}
		}
		if path.Dir(f.Key) != path.Join(info.Path, delta.PartitionFolder(names, f.Add.PartitionValues)) {
			return false
		}
	}
	return true
}

// partitionList is an SQL list of the files' values of a partition column, to be indexed by file_index + 1. A join would
// do the same, but DuckDB 1.5.5 forgets a volatile filter over a join beside an anti join.
func partitionList(members []delta.File, c scanColumn) (string, error) {
	typ := sqlType(c.field.Type, false)
	var b strings.Builder
	b.WriteByte('[')
	for i, f := range members {
		if i > 0 {
			b.WriteByte(',')
		}
		v := f.Add.PartitionValues[c.physical]
		if v == nil || *v == "" {
			b.WriteString("NULL")
			continue
		}
		text, err := partitionValueText(c.field.Type, v)
		if err != nil {
			return "", fmt.Errorf("%s: partition column %s: %w", f.Add.Path, c.field.Name, err)
		}
		if c.field.Type == delta.Binary {
			b.WriteString("unhex(" + quoteText(text) + ")")
		} else {
			b.WriteString(quoteText(text))
		}
	}
	b.WriteString("]::" + typ + "[]")
	return "(" + b.String() + ")", nil
}

func indexList(group []int) string {
	var b strings.Builder
	b.WriteString("([")
	for i, at := range group {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(at))
	}
	b.WriteString("]::INTEGER[])")
	return b.String()
}

// partitionValueText is a form of a partition value that DuckDB casts to the column's type without doubt.
func partitionValueText(t delta.Type, v *string) (string, error) {
	switch t {
	case delta.Timestamp, delta.TimestampNTZ, delta.Binary:
		val, err := delta.ParsePartitionValue(t, v)
		if err != nil {
			return "", err
		}
		if b, ok := val.([]byte); ok {
			return fmt.Sprintf("%X", b), nil
		}
		if tm, ok := val.(interface{ Format(string) string }); ok {
			if t == delta.Timestamp {
				return tm.Format("2006-01-02 15:04:05.000000") + "+00", nil
			}
			return tm.Format("2006-01-02 15:04:05.000000"), nil
		}
	}
	return *v, nil
}

// deletedTable makes a temporary table of the positions that deletion vectors mark, keyed by file and row.
func (s *scan) deletedTable(ctx context.Context, e *Engine, members []delta.File) (string, error) {
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema([]arrow.Field{{Name: "k", Type: arrow.PrimitiveTypes.Int64}}, nil))
	defer b.Release()
	k := b.Field(0).(*array.Int64Builder)
	for i, f := range members {
		k.Reserve(int(f.Deleted.GetCardinality()))
		for it := f.Deleted.Iterator(); it.HasNext(); {
			k.Append(int64(i)<<fileShift + int64(it.Next()))
		}
	}
	return s.table(ctx, e, "cauce_deleted_", b, "k")
}

// table makes a temporary table of what a builder holds.
func (s *scan) table(ctx context.Context, e *Engine, prefix string, b *array.RecordBuilder, items string) (string, error) {
	rec := b.NewRecordBatch()
	defer rec.Release()
	if s.ship != nil {
		name := e.name(prefix)
		return name, s.ship.addRows(name, items, rec.Schema(), rec)
	}
	rr, err := array.NewRecordReader(rec.Schema(), []arrow.RecordBatch{rec})
	if err != nil {
		return "", err
	}
	defer rr.Release()
	view := e.name(prefix + "in_")
	release, err := s.conn.register(rr, view)
	if err != nil {
		return "", err
	}
	defer release()
	name := e.name(prefix)
	if err := s.conn.exec(ctx, fmt.Sprintf("CREATE TEMP TABLE %s AS SELECT %s FROM %s", quoteName(name), items, quoteName(view))); err != nil {
		return "", err
	}
	s.temps = append(s.temps, name)
	return name, s.conn.exec(ctx, "DROP VIEW IF EXISTS "+quoteName(view))
}

// localFiles are data files as paths that DuckDB can open.
type localFiles struct {
	paths []string // as the files given
	dir   string   // of staged copies, "" if none
}

// Close removes staged copies.
func (l *localFiles) Close() error {
	if l == nil || l.dir == "" {
		return nil
	}
	return os.RemoveAll(l.dir)
}

// localFiles gives each file a local path: its own where the store is local, else that of a copy.
func (e *Engine) localFiles(ctx context.Context, store objstore.Store, files []delta.File) (*localFiles, error) {
	l := &localFiles{paths: make([]string, len(files))}
	if lp, ok := store.(objstore.LocalPather); ok {
		for i, f := range files {
			l.paths[i] = lp.LocalPath(f.Key)
		}
		return l, nil
	}
	var err error
	if l.dir, err = os.MkdirTemp(e.temp, "stage-"); err != nil {
		return nil, fmt.Errorf("stage data files: %w", err)
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i, f := range files {
		l.paths[i] = path.Join(l.dir, strconv.Itoa(i)+".parquet")
		g.Go(func() error { return cache.Fetch(gctx, store, f.Key, f.Add.Size, l.paths[i]) })
	}
	if err := g.Wait(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}
