package duckdb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/schema"
	"golang.org/x/sync/errgroup"

	"github.com/cauce-data/cauce/delta"
)

// # Which files DuckDB may read by itself
//
// DuckDB takes the columns and types of many files from the first of them, unless it opens all first. A table's files
// may differ: columns were added, types widened, and other writers encode a type in another way. Where the log proves
// that a file is plain it is read as it is; else its footer is looked at, once, and files are grouped by what their
// columns really are. What DuckDB would read in another sense than the protocol (columns found by field id, renamed
// members of structs, variants, text without a mark, dates of the Julian calendar …) is read by delta's own reader and
// handed over as a table.

// plainByLog reports whether the log alone proves that DuckDB reads the columns of a file right: flat columns of one
// type for ever, each with a value in the file, times in the range of every encoding. Whether a writer took its times for
// wall clocks the log does not say: only in UTC does DuckDB read them as the same.
func plainByLog(f delta.File, columns []scanColumn, utc bool) bool {
	if len(columns) == 0 {
		return true
	}
	var records int64 = -1
	var nulls, least, most map[string]string
	members(f.Add.Stats, func(key, raw string) {
		switch key {
		case "numRecords":
			if n, err := strconv.ParseInt(raw, 10, 64); err == nil {
				records = n
			}
		case "nullCount":
			nulls = memberMap(raw)
		case "minValues":
			least = memberMap(raw)
		case "maxValues":
			most = memberMap(raw)
		}
	})
	for _, c := range columns {
		if c.partition {
			continue
		}
		switch c.field.Type.(type) {
		case *delta.Struct, *delta.Array, *delta.Map:
			return false
		}
		// Bytes and text are one to Parquet but for a mark: readParquet is told to take all for text.
		if c.field.Type == delta.Variant || c.field.Type == delta.Binary || c.field.Metadata["delta.typeChanges"] != nil || reservedColumn(c.physical) {
			return false
		}
		// A column without any value may not be in the file at all.
		n, err := strconv.ParseInt(nulls[c.physical], 10, 64)
		if err != nil || n < 0 || n >= records {
			return false
		}
		if !utc && isTime(c.field.Type) {
			return false
		}
		switch c.field.Type {
		case delta.Date, delta.Timestamp, delta.TimestampNTZ:
			// Before 1900 the calendar of the writer matters, and nanoseconds end in 2262.
			if lo, hi := least[c.physical], most[c.physical]; len(lo) < 12 || len(hi) < 12 || lo < `"1900` || hi > `"2200` {
				return false
			}
		}
	}
	return true
}

func isTime(t delta.Type) bool { return t == delta.Timestamp || t == delta.TimestampNTZ }

// hasTime reports whether a type is or holds one of times.
func hasTime(t delta.Type) bool {
	switch t := t.(type) {
	case *delta.Struct:
		return slices.ContainsFunc(t.Fields, func(f delta.Field) bool { return hasTime(f.Type) })
	case *delta.Array:
		return hasTime(t.Element)
	case *delta.Map:
		return hasTime(t.Key) || hasTime(t.Value)
	}
	return isTime(t)
}

// reservedColumn reports whether a name means something of its own to DuckDB's reader.
func reservedColumn(name string) bool {
	return slices.Contains([]string{"file_row_number", "file_index", "filename", "rowid"}, strings.ToLower(name))
}

func memberMap(object string) map[string]string {
	m := map[string]string{}
	members(object, func(k, v string) { m[k] = v })
	return m
}

// members calls f for the members of a JSON object, with the value's text. Names with escapes are passed as they
// stand, and a text that is no object has no members.
func members(s string, f func(key, raw string)) {
	s = strings.TrimSpace(s)
	if len(s) < 2 || s[0] != '{' {
		return
	}
	depth, start, key := 0, -1, ""
	end := func(i int) {
		if start >= 0 {
			f(key, strings.TrimSpace(s[start:i]))
		}
		start = -1
	}
	for i := 1; i < len(s); i++ {
		switch c := s[i]; c {
		case '"':
			from := i + 1
			for i++; i < len(s) && s[i] != '"'; i++ {
				if s[i] == '\\' {
					i++
				}
			}
			if i >= len(s) {
				return
			}
			if depth == 0 && start < 0 {
				key = s[from:i]
			}
		case ':':
			if depth == 0 && start < 0 {
				start = i + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				end(i)
				return
			}
			depth--
		case ',':
			if depth == 0 {
				end(i)
			}
		}
	}
}

// fileShape is what the footer of a data file tells of its columns.
type fileShape struct {
	root        *schema.GroupNode
	legacyDates bool // dates and timestamps are of the calendar of Spark 2 and Hive
	legacyINT96 bool
	twins       bool // two columns differ only in case
}

// shapeCache keeps the shapes of files, which never change under one name. Files of one writer share theirs. The zero value
// works.
type shapeCache struct {
	mu     sync.Mutex
	items  map[string]*fileShape
	shapes map[string]*fileShape // by all that they say
}

const shapeCacheMax = 20_000

func (c *shapeCache) get(key string) *fileShape {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.items[key]
}

func (c *shapeCache) put(key string, s *fileShape) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.items == nil || len(c.items) >= shapeCacheMax {
		c.items, c.shapes = map[string]*fileShape{}, map[string]*fileShape{}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%t %t\n", s.legacyDates, s.legacyINT96)
	schema.PrintSchema(s.root, &b, 0)
	if had := c.shapes[b.String()]; had != nil && had.root.Equals(s.root) {
		s = had
	} else {
		c.shapes[b.String()] = s
	}
	c.items[key] = s
}

func readShape(path string) (_ *fileShape, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %s: %v", delta.ErrCorruptFile, path, r)
		}
	}()
	pf, err := file.OpenParquetFile(path, false)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", delta.ErrCorruptFile, path, err)
	}
	defer func() { err = errors.Join(err, pf.Close()) }()
	md := pf.MetaData()
	s := &fileShape{root: md.Schema.Root()}
	r := delta.LegacyCalendar(md.KeyValueMetadata())
	s.legacyDates, s.legacyINT96 = r.Dates, r.INT96
	seen := map[string]bool{}
	for i := range s.root.NumFields() {
		n := strings.ToLower(s.root.Field(i).Name())
		s.twins = s.twins || seen[n] || reservedColumn(n)
		seen[n] = true
	}
	return s, nil
}

// fileGroup is files that one read_parquet reads, or that delta's own reader reads.
type fileGroup struct {
	files []int // indices
	// names are the columns of the files, as the wanted columns; "" for one that they lack. nil: as the log says.
	names []string
	odd   bool // not for DuckDB
}

// survey sorts files into groups, for a connection that reads them.
func (e *Engine) survey(ctx context.Context, c *conn, info delta.TableInfo, files []delta.File, paths []string, columns []scanColumn) ([]fileGroup, error) {
	utc := true
	if slices.ContainsFunc(columns, func(c scanColumn) bool { return !c.partition && hasTime(c.field.Type) }) {
		var err error
		if utc, err = c.utc(ctx); err != nil {
			return nil, err
		}
	}
	byID := strings.EqualFold(info.Config["delta.columnMapping.mode"], "id")
	var plain []int
	var rest []int
	for i, f := range files {
		if !byID && plainByLog(f, columns, utc) {
			plain = append(plain, i)
		} else {
			rest = append(rest, i)
		}
	}
	if len(plain) > 0 {
		// DuckDB takes the columns from the first file: whether the log speaks the truth of it is looked up.
		s, err := e.shape(files[plain[0]], paths[plain[0]])
		if err != nil {
			return nil, err
		}
		if !s.asLogged(columns, info.Config, utc) {
			plain, rest = nil, make([]int, len(files))
			for i := range rest {
				rest[i] = i
			}
		}
	}
	var out []fileGroup
	if len(plain) > 0 {
		out = append(out, fileGroup{files: plain})
	}
	if len(rest) == 0 {
		return out, nil
	}
	shapes := make([]*fileShape, len(rest))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(2, e.threads))
	for k, i := range rest {
		g.Go(func() error {
			if err := gctx.Err(); err != nil {
				return err
			}
			var err error
			shapes[k], err = e.shape(files[i], paths[i])
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	at := map[string]int{}
	for k, i := range rest {
		names, sign, odd := shapes[k].resolve(columns, info.Config, utc)
		if odd {
			names, sign = nil, "odd"
		}
		j, ok := at[sign]
		if !ok {
			j = len(out)
			at[sign] = j
			out = append(out, fileGroup{names: names, odd: odd})
		}
		out[j].files = append(out[j].files, i)
	}
	return out, nil
}

// shape looks at the footer of a file, or remembers it.
func (e *Engine) shape(f delta.File, path string) (*fileShape, error) {
	key := fmt.Sprintf("%s\x00%d\x00%d", path, f.Add.Size, f.Add.ModificationTime)
	if s := e.shapes.get(key); s != nil {
		return s, nil
	}
	s, err := readShape(path)
	if err == nil {
		e.shapes.put(key, s)
	}
	return s, err
}

// asLogged reports whether a file has the columns under the names that the log gives, in types that DuckDB reads right.
func (s *fileShape) asLogged(columns []scanColumn, config map[string]string, utc bool) bool {
	names, _, odd := s.resolve(columns, config, utc)
	if odd {
		return false
	}
	for i, c := range columns {
		if !c.partition && c.field.Type != delta.Void && !strings.EqualFold(names[i], c.physical) {
			return false
		}
	}
	return true
}

// resolve finds the columns in a file. sign tells apart files whose columns differ in name or type. utc says whether the
// file is read in that zone.
func (s *fileShape) resolve(columns []scanColumn, config map[string]string, utc bool) (names []string, sign string, odd bool) {
	if s.twins {
		return nil, "", true
	}
	mode := strings.ToLower(config["delta.columnMapping.mode"])
	if mode != "id" && mode != "name" {
		mode = ""
	}
	var b strings.Builder
	names = make([]string, len(columns))
	for i, c := range columns {
		if c.partition || c.field.Type == delta.Void {
			continue
		}
		n := s.find(c.field, mode)
		if n == nil {
			b.WriteString("-;")
			continue
		}
		if !s.native(n, c.field.Type, mode, utc) {
			return nil, "", true
		}
		names[i] = n.Name()
		signature(&b, n)
	}
	return names, b.String(), false
}

func (s *fileShape) find(f delta.Field, mode string) schema.Node {
	return findNode(s.root, f, mode)
}

// findNode finds a column among the members of a group, by the rules of the mode of column mapping.
func findNode(g *schema.GroupNode, f delta.Field, mode string) schema.Node {
	if mode == "id" {
		if id, ok := f.Metadata["delta.columnMapping.id"]; ok {
			for i := range g.NumFields() {
				if n := g.Field(i); n.FieldID() >= 0 && strconv.Itoa(int(n.FieldID())) == fmt.Sprint(id) {
					return n
				}
			}
			return nil
		}
		mode = "name" // a column that is none of the table's, such as _change_type
	}
	want := f.Name
	if mode == "name" {
		want = f.PhysicalName()
	}
	for i := range g.NumFields() {
		if n := g.Field(i); n.Name() == want {
			return n
		}
	}
	for i := range g.NumFields() {
		if n := g.Field(i); strings.EqualFold(n.Name(), want) {
			return n
		}
	}
	return nil
}

// native reports whether DuckDB, reading a column and casting it to the type, gives what the protocol says.
func (s *fileShape) native(n schema.Node, t delta.Type, mode string, utc bool) bool {
	if g, ok := n.(*schema.GroupNode); ok {
		return s.nativeGroup(g, t, mode, utc)
	}
	p, ok := n.(*schema.PrimitiveNode)
	if !ok || p.RepetitionType() == parquet.Repetitions.Repeated {
		return false
	}
	physical, logical := p.PhysicalType(), p.LogicalType()
	_, isDecimal := logical.(schema.DecimalLogicalType)
	isInt := physical == parquet.Types.Int32 || physical == parquet.Types.Int64
	if d, ok := t.(delta.Decimal); ok {
		if l, ok := logical.(schema.DecimalLogicalType); ok {
			return l.Precision() <= 38 && int(l.Scale()) <= d.S && int(l.Precision()-l.Scale()) <= d.P-d.S
		}
		return isInt && plainInt(logical)
	}
	switch t {
	case delta.Long, delta.Integer, delta.Short, delta.Byte:
		return isInt && !isDecimal && plainInt(logical)
	case delta.Float:
		return physical == parquet.Types.Float
	case delta.Double:
		return physical == parquet.Types.Float || physical == parquet.Types.Double || physical == parquet.Types.Int32 && plainInt(logical)
	case delta.Boolean:
		return physical == parquet.Types.Boolean
	case delta.String:
		switch logical.(type) {
		case schema.StringLogicalType, schema.EnumLogicalType:
			return physical == parquet.Types.ByteArray
		}
		return false
	case delta.Binary:
		_, none := logical.(schema.NoLogicalType)
		return physical == parquet.Types.ByteArray && (none || logical == nil)
	case delta.Date:
		_, date := logical.(schema.DateLogicalType)
		return date && !s.legacyDates
	case delta.Timestamp, delta.TimestampNTZ:
		if physical == parquet.Types.Int96 {
			return false // DuckDB's end in 2262
		}
		l, ok := logical.(schema.TimestampLogicalType)
		// The cast between wall clocks and instants goes by the zone.
		return ok && !s.legacyDates && l.TimeUnit() != schema.TimeUnitNanos && (utc || l.IsAdjustedToUTC() == (t == delta.Timestamp))
	}
	return false
}

func plainInt(l schema.LogicalType) bool {
	switch l := l.(type) {
	case nil, schema.NoLogicalType:
		return true
	case schema.IntLogicalType:
		return l.IsSigned()
	}
	return false
}

func (s *fileShape) nativeGroup(g *schema.GroupNode, t delta.Type, mode string, utc bool) bool {
	_, isList := g.LogicalType().(schema.ListLogicalType)
	_, isMap := g.LogicalType().(schema.MapLogicalType)
	switch t := t.(type) {
	case *delta.Struct:
		if isList || isMap || g.NumFields() != len(t.Fields) || len(t.Fields) == 0 {
			return false
		}
		for i := range t.Fields {
			f := t.Fields[i]
			// A cast between structs goes by name.
			n := findNode(g, f, mode)
			if n == nil || n.Name() != f.Name || !s.native(n, f.Type, mode, utc) {
				return false
			}
		}
		return true
	case *delta.Array:
		inner := onlyRepeated(g)
		if !isList || inner == nil || inner.NumFields() != 1 || inner.Name() == "array" || strings.HasSuffix(inner.Name(), "_tuple") {
			return false
		}
		return s.native(inner.Field(0), t.Element, mode, utc)
	case *delta.Map:
		inner := onlyRepeated(g)
		if !isMap || inner == nil || inner.NumFields() != 2 {
			return false
		}
		return s.native(inner.Field(0), t.Key, mode, utc) && s.native(inner.Field(1), t.Value, mode, utc)
	}
	return false
}

// onlyRepeated is the repeated group inside a list or map.
func onlyRepeated(g *schema.GroupNode) *schema.GroupNode {
	if g.NumFields() != 1 {
		return nil
	}
	inner, ok := g.Field(0).(*schema.GroupNode)
	if !ok || inner.RepetitionType() != parquet.Repetitions.Repeated {
		return nil
	}
	return inner
}

// signature spells a column's name and type.
func signature(b *strings.Builder, n schema.Node) {
	b.WriteString(strconv.Quote(n.Name()))
	switch n := n.(type) {
	case *schema.PrimitiveNode:
		fmt.Fprintf(b, ":%v:%v;", n.PhysicalType(), n.LogicalType())
	case *schema.GroupNode:
		b.WriteByte('{')
		for i := range n.NumFields() {
			signature(b, n.Field(i))
		}
		b.WriteByte('}')
	}
}
