package duckdb

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	duck "github.com/duckdb/duckdb-go/v2"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/objstore"
)

// fileWriter implements delta.FileWriter with DuckDB's COPY.
type fileWriter struct{ e *Engine }

// writeJob is one Write.
type writeJob struct {
	e      *Engine
	table  delta.TableInfo
	req    delta.WriteRequest
	dir    string // where COPY writes: the table's root on local disk, or a temporary folder
	local  objstore.LocalPather
	id     string // part of every file name of this write
	serial int
	rel    *relation
	over   func(*relation) string // the query of the rows to write of a relation that has some parts of rel
}

// sharedRowsMin is the number of rows from which a write is shared. A partitioned COPY keeps little more than one
// processor busy; but every share may add a file to each partition.
const sharedRowsMin = 500_000

// Write implements delta.FileWriter.
func (w fileWriter) Write(ctx context.Context, table delta.TableInfo, req delta.WriteRequest) (files []delta.WrittenFile, err error) {
	if req.Rows.NumRows() == 0 {
		return nil, nil
	}
	rel, done, err := w.e.load(ctx, req.Rows, nil)
	if err != nil {
		return nil, err
	}
	defer done()
	j := &writeJob{e: w.e, table: table, req: req, id: uuid.NewString()}
	if l, ok := table.Store.(objstore.LocalPather); ok {
		j.local, j.dir = l, l.LocalPath(table.Path)
	} else {
		j.dir = w.e.tempPath("write_", "")
		defer os.RemoveAll(j.dir)
	}
	if err := os.MkdirAll(j.dir, 0o755); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			j.undo(context.WithoutCancel(ctx), files)
			files = nil
		}
	}()
	from, cleanup, err := j.source(ctx, rel)
	if err != nil {
		return nil, err
	}
	defer cleanup()
	if files, err = j.copyAll(ctx, from, rel.NumRows()); err != nil {
		return files, err
	}
	return files, j.settle(ctx, files)
}

// source is the query of the rows to write, in the table's columns and types.
func (j *writeJob) source(ctx context.Context, rel *relation) (query string, cleanup func(), err error) {
	cleanup = func() {}
	var conds []string
	if j.req.Skip != nil && !j.req.Skip.IsEmpty() {
		const listMax = 200
		if j.req.Skip.GetCardinality() > listMax {
			table, drop, err := j.e.idTable(ctx, rel, j.req.Skip)
			if err != nil {
				return "", cleanup, err
			}
			cleanup = drop
			conds = append(conds, quoteName(colGlobal)+" NOT IN (SELECT g FROM "+table+")")
		} else {
			var ids []string
			for it := j.req.Skip.Iterator(); it.HasNext(); {
				ids = append(ids, strconv.FormatInt(rel.global(int64(it.Next())), 10))
			}
			conds = append(conds, quoteName(colGlobal)+" NOT IN ("+strings.Join(ids, ",")+")")
		}
	}
	var cols, sel []string
	for _, f := range j.table.Schema.Fields {
		if f.Type == delta.Void {
			continue // has no form in Parquet
		}
		typ := sqlType(f.Type, false)
		i := rel.schema.Index(f.Name)
		if i < 0 {
			sel = append(sel, physicalValue("CAST(NULL AS "+typ+")", f.Type, 0)+" AS "+quoteName(f.PhysicalName()))
			continue
		}
		have := rel.schema.Fields[i]
		cols = append(cols, have.Name)
		v := quoteName(have.Name)
		if !delta.SameType(have.Type, f.Type) {
			v = "CAST(" + v + " AS " + typ + ")"
		}
		v = physicalValue(v, f.Type, 0)
		if have.Name != f.PhysicalName() || v != quoteName(have.Name) {
			v += " AS " + quoteName(f.PhysicalName())
		}
		sel = append(sel, v)
	}
	if len(conds) > 0 {
		cols = append(cols, colGlobal)
	}
	over := func(r *relation) string {
		q := "SELECT " + strings.Join(sel, ", ") + " FROM (" + r.query(cols, true) + ")"
		if len(conds) > 0 {
			q += " WHERE " + strings.Join(conds, " AND ")
		}
		return q
	}
	j.rel, j.over = rel, over
	return over(rel), cleanup, nil
}

// of is the query of the rows to write of some parts.
func (j *writeJob) of(parts ...relationPart) string {
	some := *j.rel
	some.parts = parts
	return j.over(&some)
}

// shares are the rows to write in several queries over neighbouring parts, for writing them at once; less than two
// where that is not worth while.
func (j *writeJob) shares() []string {
	if j.rel.total < sharedRowsMin {
		return nil
	}
	var out []string
	from, rows := 0, int64(0)
	for i, p := range j.rel.parts {
		rows += p.rows
		if rows >= j.rel.total*int64(len(out)+1)/int64(j.e.threads) || i == len(j.rel.parts)-1 {
			out = append(out, j.of(j.rel.parts[from:i+1]...))
			from = i + 1
		}
	}
	return out
}

// idTable makes a table g of the global ids of some ordinals.
func (e *Engine) idTable(ctx context.Context, rel *relation, ordinals *roaring64.Bitmap) (table string, drop func(), err error) {
	table = "main." + quoteName(e.name("ids_"))
	drop = e.dropper(ctx, table)
	it := ordinals.Iterator()
	b := newIDReader(func() (int64, bool) {
		if !it.HasNext() {
			return 0, false
		}
		return rel.global(int64(it.Next())), true
	})
	err = e.with(ctx, func(c *conn) error {
		view := e.name("input_")
		_, err := c.createFrom(ctx, table, "SELECT g FROM "+view, b, view)
		return err
	})
	return table, drop, err
}

// partitionColumn is the physical name and type of a partition column.
type partitionColumn struct {
	name string
	typ  delta.Type
}

func partitionColumns(table delta.TableInfo) []partitionColumn {
	var out []partitionColumn
	for _, n := range table.PartitionBy {
		if f, ok := table.Schema.Field(n); ok {
			out = append(out, partitionColumn{f.PhysicalName(), f.Type})
		}
	}
	return out
}

// bytesPerRow guesses how large a row is in Parquet, for cutting files to their target size.
func bytesPerRow(s *delta.Schema) int64 {
	n := int64(0)
	for _, f := range s.Fields {
		switch kindOf(f.Type) {
		case kindBool:
			n++
		case kindText, kindBinary, kindNested:
			n += 12
		default:
			n += 6
		}
	}
	return max(n, 1)
}

// copyAll writes the files. A partitioned COPY neither keeps an order nor bounds a file, and it costs more than a COPY a
// partition where each part of the rows has few partitions, as files of one day have. Many small partitions go out in
// one COPY, or in several at once.
func (j *writeJob) copyAll(ctx context.Context, from string, rows int64) ([]delta.WrittenFile, error) {
	parts := partitionColumns(j.table)
	var order []string
	for _, s := range j.req.SortBy {
		if f, ok := j.table.Schema.Field(s); ok {
			order = append(order, quoteName(f.PhysicalName()))
		}
	}
	orderBy := ""
	if len(order) > 0 {
		orderBy = " ORDER BY " + strings.Join(order, ", ")
	}
	target := j.req.FileBytesTarget
	tooLarge := target > 0 && rows*bytesPerRow(j.table.Schema) > target
	if len(parts) == 0 {
		return j.copy(ctx, from+orderBy, "", nil, tooLarge)
	}
	apart := orderBy != "" || tooLarge
	if !apart && j.rel.total < sharedRowsMin {
		files, err := j.copy(ctx, from, "", parts, false)
		if err != nil || !j.overwritten(ctx, files) {
			return files, err
		}
		apart = true
	}
	groups, err := j.groups(ctx, parts)
	if err != nil {
		return nil, err
	}
	scanned := int64(0)
	for _, g := range groups {
		scanned += g.scanned
	}
	if !apart && scanned > j.rel.total*3/2 {
		var files []delta.WrittenFile
		if shares := j.shares(); len(shares) > 1 {
			files, err = j.copyShares(ctx, shares, parts)
		} else {
			files, err = j.copy(ctx, from, "", parts, false)
		}
		if err != nil || !j.overwritten(ctx, files) {
			return files, err
		}
	}
	if len(groups) >= j.e.threads {
		defer j.e.crew(ctx)()
	}
	out := make([][]delta.WrittenFile, len(groups))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(j.e.threads, 1))
	sel := ""
	for _, f := range j.table.Schema.Fields {
		if f.Type != delta.Void && !contains(j.table.PartitionBy, f.Name) {
			if sel != "" {
				sel += ", "
			}
			sel += quoteName(f.PhysicalName())
		}
	}
	for i, gr := range groups {
		g.Go(func() error {
			k := *j
			k.serial = i
			large := target > 0 && gr.rows*bytesPerRow(j.table.Schema) > target
			query := "SELECT " + sel + " FROM (" + j.of(gr.parts...) + ")"
			if gr.cond != "" {
				query += " WHERE " + gr.cond
			}
			files, err := k.copy(gctx, query+orderBy, gr.folder, nil, large)
			for n := range files {
				files[n].PartitionValues = gr.values
			}
			out[i] = files
			return err
		})
	}
	err = g.Wait()
	var all []delta.WrittenFile
	for _, f := range out {
		all = append(all, f...)
	}
	return all, err
}

// overwritten tells whether two partitions were written to one file, and removes all files then: a partitioned COPY gives
// null and the text that hive calls its folder one folder, and both the same name in it.
func (j *writeJob) overwritten(ctx context.Context, files []delta.WrittenFile) bool {
	seen := map[string]bool{}
	for _, f := range files {
		seen[f.Path] = true
	}
	if len(seen) == len(files) {
		return false
	}
	j.undo(ctx, files)
	return true
}

// partitionGroup is the rows of one partition.
type partitionGroup struct {
	folder  string
	values  map[string]*string
	rows    int64
	parts   []relationPart // that have rows of the partition
	scanned int64          // rows of these parts
	cond    string         // which of their rows are the partition's; "": all
}

// groups finds the partitions of the rows to write, in the order of their folders.
func (j *writeJob) groups(ctx context.Context, parts []partitionColumn) ([]*partitionGroup, error) {
	var order, names, texts []string
	for _, p := range parts {
		order = append(order, p.name)
		names = append(names, quoteName(p.name))
		texts = append(texts, "CAST("+quoteName(p.name)+" AS VARCHAR)")
	}
	type count struct {
		values []*string
		rows   int64
	}
	counts := make([][]count, len(j.rel.parts))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(j.e.threads, 1))
	for i, p := range j.rel.parts {
		g.Go(func() error {
			return j.e.with(gctx, func(c *conn) error {
				query := "SELECT " + strings.Join(texts, ", ") + ", count(*) FROM (" + j.of(p) + ") GROUP BY " + strings.Join(names, ", ")
				return c.each(gctx, query, func(row []any) error {
					n := count{rows: integer(row[len(parts)])}
					for k := range parts {
						var v *string
						if s, ok := row[k].(string); ok {
							v = &s
						}
						n.values = append(n.values, v)
					}
					counts[i] = append(counts[i], n)
					return nil
				})
			})
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	byFolder := map[string]*partitionGroup{}
	for i, p := range j.rel.parts {
		for _, n := range counts[i] {
			values := map[string]*string{}
			var conds []string
			for k, c := range parts {
				if n.values[k] == nil {
					conds = append(conds, names[k]+" IS NULL")
					values[c.name] = nil
					continue
				}
				conds = append(conds, names[k]+" = CAST("+quoteText(*n.values[k])+" AS "+sqlType(c.typ, false)+")")
				s, err := partitionText(c.typ, *n.values[k])
				if err != nil {
					return nil, err
				}
				values[c.name] = s
			}
			// Null and the empty text share a folder, but they are two partitions.
			id := delta.PartitionFolder(order, values) + "\x00" + strings.Join(conds, " AND ")
			gr := byFolder[id]
			if gr == nil {
				gr = &partitionGroup{folder: delta.PartitionFolder(order, values), values: values}
				byFolder[id] = gr
			}
			gr.parts = append(gr.parts, p)
			gr.rows += n.rows
			gr.scanned += p.rows
			if len(counts[i]) > 1 {
				gr.cond = strings.Join(conds, " AND ")
			}
		}
	}
	var out []*partitionGroup
	for _, id := range slices.Sorted(maps.Keys(byFolder)) {
		out = append(out, byFolder[id])
	}
	return out, nil
}

// copyShares runs one partitioned COPY for each share, at the same time.
func (j *writeJob) copyShares(ctx context.Context, shares []string, parts []partitionColumn) ([]delta.WrittenFile, error) {
	if len(shares) >= j.e.threads {
		defer j.e.crew(ctx)()
	}
	out := make([][]delta.WrittenFile, len(shares))
	g, gctx := errgroup.WithContext(ctx)
	for i, query := range shares {
		g.Go(func() (err error) {
			k := *j
			k.serial = i
			out[i], err = k.copy(gctx, query, "", parts, false)
			return err
		})
	}
	err := g.Wait()
	var all []delta.WrittenFile
	for _, f := range out {
		all = append(all, f...)
	}
	return all, err
}

// copy runs one COPY. folder, relative to the table's root, is where unpartitioned rows go.
func (j *writeJob) copy(ctx context.Context, query, folder string, parts []partitionColumn, split bool) ([]delta.WrittenFile, error) {
	codec := j.req.Compression
	if codec == "" {
		codec = "snappy"
	}
	opts := []string{"FORMAT parquet", "COMPRESSION " + quoteText(codec), "RETURN_STATS"}
	if ids := fieldIDs(j.table); ids != "" {
		opts = append(opts, "FIELD_IDS "+ids)
	}
	dir := filepath.Join(j.dir, filepath.FromSlash(folder))
	target := ""
	stem := fmt.Sprintf("%05d-%s.c000.%s", j.serial, j.id, codec)
	switch {
	case len(parts) > 0:
		var names []string
		for _, p := range parts {
			names = append(names, quoteName(p.name))
		}
		opts = append(opts, "PARTITION_BY ("+strings.Join(names, ", ")+")", "WRITE_PARTITION_COLUMNS false", "OVERWRITE_OR_IGNORE",
			"FILENAME_PATTERN "+quoteText(fmt.Sprintf("part-%04d{i}-%s.c000.%s", j.serial, j.id, codec)))
		target = dir
	case split:
		opts = append(opts, "FILE_SIZE_BYTES "+strconv.FormatInt(j.req.FileBytesTarget, 10), "OVERWRITE_OR_IGNORE",
			"FILENAME_PATTERN "+quoteText("part-{i}-"+stem))
		target = dir
	default:
		target = filepath.Join(dir, "part-"+stem+".parquet")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var out []delta.WrittenFile
	err := j.e.with(ctx, func(c *conn) error {
		return c.each(ctx, "COPY ("+query+") TO "+quoteText(target)+" ("+strings.Join(opts, ", ")+")", func(row []any) error {
			f, err := j.written(row, parts)
			if err != nil {
				return err
			}
			if f.NumRecords == 0 {
				return os.Remove(row[0].(string)) // a COPY without partitions writes a file for no rows, too
			}
			out = append(out, f)
			return nil
		})
	})
	sort.Slice(out, func(a, b int) bool { return out[a].Path < out[b].Path })
	return out, err
}

// written reads one line of what RETURN_STATS tells.
func (j *writeJob) written(row []any, parts []partitionColumn) (delta.WrittenFile, error) {
	var f delta.WrittenFile
	name, _ := row[0].(string)
	rel, err := filepath.Rel(j.dir, name)
	if err != nil {
		return f, err
	}
	rel = filepath.ToSlash(rel)
	f.Path = delta.EncodePath(rel)
	f.Key = path.Join(j.table.Path, rel)
	f.NumRecords = integer(row[1])
	f.Size = integer(row[2])
	f.ModTime = time.Now()
	f.Stats = fileStats(j.table, f.NumRecords, texts2(row[4]))
	f.PartitionValues = map[string]*string{}
	keys := texts(row[5])
	for _, p := range parts {
		v, ok := keys[p.name]
		if !ok || v == nil {
			f.PartitionValues[p.name] = nil
			continue
		}
		if f.PartitionValues[p.name], err = partitionText(p.typ, *v); err != nil {
			return f, err
		}
	}
	return f, nil
}

// partitionText turns DuckDB's text of a value into the one of partitionValues.
func partitionText(t delta.Type, s string) (*string, error) {
	switch t {
	case delta.Timestamp, delta.TimestampNTZ:
		us, ok := parseISO(s, time.UTC)
		if !ok {
			return nil, fmt.Errorf("partition value %q is no timestamp", s)
		}
		return delta.FormatPartitionValue(t, time.UnixMicro(us).UTC())
	case delta.Binary:
		b, err := unblob(s)
		if err != nil {
			return nil, err
		}
		return delta.FormatPartitionValue(t, b)
	}
	if s == "" {
		return nil, nil
	}
	return &s, nil
}

// unblob undoes DuckDB's text of a BLOB, in which \xAA stands for bytes that are no printable ASCII.
func unblob(s string) ([]byte, error) {
	var out []byte
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && s[i+1] == 'x' {
			b, err := strconv.ParseUint(s[i+2:i+4], 16, 8)
			if err != nil {
				return nil, fmt.Errorf("binary partition value %q: %w", s, err)
			}
			out = append(out, byte(b))
			i += 3
			continue
		}
		out = append(out, s[i])
	}
	return out, nil
}

// texts reads a MAP(VARCHAR, VARCHAR) of the driver.
func texts(v any) map[string]*string {
	out := map[string]*string{}
	pairs(v, func(k string, v any) {
		if s, ok := v.(string); ok {
			out[k] = &s
		} else {
			out[k] = nil
		}
	})
	return out
}

func texts2(v any) map[string]map[string]*string {
	out := map[string]map[string]*string{}
	pairs(v, func(k string, v any) { out[k] = texts(v) })
	return out
}

func pairs(v any, f func(k string, v any)) {
	switch m := v.(type) {
	case duck.Map:
		for k, v := range m {
			if s, ok := k.(string); ok {
				f(s, v)
			}
		}
	case duck.OrderedMap:
		for _, k := range m.Keys() {
			if s, ok := k.(string); ok {
				v, _ := m.Get(k)
				f(s, v)
			}
		}
	case *duck.OrderedMap:
		if m != nil {
			pairs(*m, f)
		}
	}
}

// fileStats turns DuckDB's statistics into Delta's (PROTOCOL.md, "Per-file Statistics").
func fileStats(table delta.TableInfo, rows int64, columns map[string]map[string]*string) *delta.Stats {
	st := &delta.Stats{NumRecords: rows, MinValues: map[string]any{}, MaxValues: map[string]any{}, NullCount: map[string]any{}}
	leaves := 32
	if v, ok := table.Config["delta.dataSkippingNumIndexedCols"]; ok {
		if n, err := strconv.Atoi(v); err == nil && n >= -1 {
			leaves = n
		}
	}
	if leaves < 0 {
		leaves = 1 << 30
	}
	var put func(fields []delta.Field, prefix string, top bool, lo, hi, nulls map[string]any)
	put = func(fields []delta.Field, prefix string, top bool, lo, hi, nulls map[string]any) {
		for _, f := range fields {
			if top && contains(table.PartitionBy, f.Name) {
				continue
			}
			name := prefix + quoteName(f.PhysicalName())
			if s, ok := f.Type.(*delta.Struct); ok {
				l, h, n := map[string]any{}, map[string]any{}, map[string]any{}
				put(s.Fields, name+".", false, l, h, n)
				for _, p := range []struct{ to, from map[string]any }{{lo, l}, {hi, h}, {nulls, n}} {
					if len(p.from) > 0 {
						p.to[f.PhysicalName()] = p.from
					}
				}
				continue
			}
			if leaves <= 0 {
				return
			}
			leaves--
			c, ok := columns[name]
			if !ok {
				continue
			}
			if n := c["null_count"]; n != nil {
				if k, err := strconv.ParseInt(*n, 10, 64); err == nil {
					nulls[f.PhysicalName()] = k
				}
			}
			if nan := c["has_nan"]; nan != nil && *nan != "false" {
				continue // DuckDB leaves NaN out of its bounds
			}
			if v := c["min"]; v != nil {
				if b, ok := statsBound(f.Type, *v, false); ok {
					lo[f.PhysicalName()] = b
				}
			}
			if v := c["max"]; v != nil {
				if b, ok := statsBound(f.Type, *v, true); ok {
					hi[f.PhysicalName()] = b
				}
			}
		}
	}
	put(table.Schema.Fields, "", true, st.MinValues, st.MaxValues, st.NullCount)
	return st
}

// duckStringMax is below the length at which DuckDB cuts the strings of its statistics.
const duckStringMax = 200

func statsBound(t delta.Type, s string, upper bool) (any, bool) {
	switch kindOf(t) {
	case kindInt:
		return json.Number(s), true
	case kindDecimal:
		return json.Number(s), true
	case kindFloat:
		n, ok := parseNumber(s)
		if !ok {
			return nil, false // an infinity
		}
		if n.digits == "" { // the two zeros compare equal: each bound takes the one farther out
			if upper {
				return json.Number("0.0"), true
			}
			return json.Number("-0.0"), true
		}
		return json.Number(strings.TrimPrefix(s, "+")), true
	case kindDate:
		if _, ok := parseDate(s); !ok {
			return nil, false // years beyond four digits
		}
		return s, true
	case kindTime, kindWall:
		us, ok := parseISO(s, time.UTC)
		if !ok {
			return nil, false
		}
		// Readers that know only milliseconds cut the text: the maximum is rounded up so that it stays a bound.
		ms := us / 1000
		if us%1000 != 0 && us < 0 {
			ms--
		}
		if upper && ms*1000 != us {
			ms++
		}
		if t == delta.Timestamp {
			return delta.StatsTimestamp(ms * 1000), true
		}
		return delta.StatsTimestampNTZ(ms * 1000), true
	case kindText:
		if !utf8.ValidString(s) {
			if len(s) < duckStringMax {
				return nil, false
			}
			s = strings.ToValidUTF8(s, "") // cut inside a character
			if upper {
				return nil, false
			}
		}
		if upper {
			b, ok := delta.StatsMax(s)
			return b, ok
		}
		return delta.StatsMin(s), true
	}
	return nil, false
}

// settle makes the files durable, or takes them to a store that is not local.
func (j *writeJob) settle(ctx context.Context, files []delta.WrittenFile) error {
	if len(files) == 0 {
		return nil
	}
	keys := make([]string, len(files))
	for i, f := range files {
		keys[i] = f.Key
	}
	if j.local != nil {
		return j.local.Sync(ctx, keys...)
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for i := range files {
		g.Go(func() error {
			rel := strings.TrimPrefix(strings.TrimPrefix(files[i].Key, j.table.Path), "/")
			local := filepath.Join(j.dir, filepath.FromSlash(rel))
			r, err := os.Open(local)
			if err != nil {
				return err
			}
			defer r.Close()
			if err := j.table.Store.Put(gctx, files[i].Key, r, objstore.PutOptions{}); err != nil {
				return err
			}
			if k, ok := j.table.Store.(objstore.Keeper); ok {
				_ = k.Keep(files[i].Key, local) // whoever reads it next need not fetch it
			}
			return nil
		})
	}
	return g.Wait()
}

// undo removes what an unsuccessful write left: the files that are known, and those that a COPY had begun.
func (j *writeJob) undo(ctx context.Context, files []delta.WrittenFile) {
	for _, f := range files {
		_ = j.table.Store.Delete(ctx, f.Key)
	}
	if j.local == nil {
		return
	}
	_ = filepath.WalkDir(j.dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // what cannot be seen is left to VACUUM
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), "_delta_log") {
			return filepath.SkipDir
		}
		if !d.IsDir() && strings.Contains(d.Name(), j.id) {
			_ = os.Remove(p)
		}
		return nil
	})
}
