package duckdb

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/compute"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/cauce-data/cauce/delta"
)

// relation is delta.KeyedRows inside DuckDB: the union of some tables, less the rows that have a status.
//
// # Ordinals
//
// Inside, a row is named by its global id: the number of rows in the tables before its own, plus its rowid. Those ids
// have holes where rows are left out; the ordinals that delta sees have none. Since few rows are left out, the ordinal
// is computed from the list of those that are.
type relation struct {
	e       *Engine
	schema  *delta.Schema
	arrow   *arrow.Schema
	key     []string // no two rows are equal in these columns; nil: not known
	parts   []relationPart
	total   int64
	without []int64 // global ids of rows that are left out, ascending
	patch   *patch  // nil: none
}

// patch is a table of values that replace those of some rows, in the form that leaves the engine: g is the global id of the row,
// and p0, p1, … are the values of columns of the relation, by their index. What has one is for writing: its rows come in any order.
type patch struct {
	table   string
	columns []int
}

func patched(i int) string { return "p" + strconv.Itoa(i) }

// relationPart is one table of a relation and the SQL of each column over it: in the form inside the engine, and in the
// one that leaves it.
type relationPart struct {
	table        string
	rows, base   int64
	status       bool     // the table has the column s; rows with a status are left out
	some         bool     // some are
	inner, outer []string // inner only of an epoch's rows: others only leave
}

func newRelation(e *Engine, s *delta.Schema, key []string) *relation {
	return &relation{e: e, schema: s, arrow: s.Arrow(), key: key}
}

func (r *relation) setParts(p []relationPart) {
	r.parts, r.total = p, 0
	for i := range p {
		p[i].some = p[i].status
		r.total += p[i].rows
	}
}

// exclude learns which rows are left out.
func (r *relation) exclude(ctx context.Context, c *conn) error {
	r.without = nil
	for i := range r.parts {
		p := &r.parts[i]
		if !p.status {
			continue
		}
		before := len(r.without)
		err := c.each(ctx, fmt.Sprintf("SELECT rowid + %d FROM %s WHERE %s IS NOT NULL", p.base, p.table, colStatus), func(row []any) error {
			r.without = append(r.without, integer(row[0]))
			return nil
		})
		if err != nil {
			return err
		}
		p.some = len(r.without) > before
	}
	slices.Sort(r.without)
	return nil
}

// global gives the global id of an ordinal.
func (r *relation) global(ordinal int64) int64 {
	k := sort.Search(len(r.without), func(i int) bool { return r.without[i]-int64(i) > ordinal })
	return ordinal + int64(k)
}

// ordinal gives the ordinal of a global id that is not left out.
func (r *relation) ordinal(global int64) int64 {
	k, _ := slices.BinarySearch(r.without, global)
	return global - int64(k)
}

// Schema implements delta.Rows.
func (r *relation) Schema() *arrow.Schema { return r.arrow }

// NumRows implements delta.Rows.
func (r *relation) NumRows() int64 { return r.total - int64(len(r.without)) }

// UniqueBy implements delta.KeyedRows.
func (r *relation) UniqueBy(columns []string) bool {
	if len(r.key) == 0 {
		return false
	}
	for _, k := range r.key {
		if !contains(columns, k) {
			return false
		}
	}
	return true
}

func (r *relation) columnName(n string) string {
	if i := r.schema.Index(n); i >= 0 {
		return r.schema.Fields[i].Name
	}
	return n
}

// query selects columns (nil: all; colGlobal is the global id) of all rows that are not left out, in the form inside the
// engine or, with leaving, in the one that leaves it.
func (r *relation) query(columns []string, leaving bool, where ...string) string {
	if columns == nil {
		columns = r.schema.Names()
	}
	var parts []string
	for i := range r.parts {
		parts = append(parts, r.partQuery(&r.parts[i], columns, leaving, where...))
	}
	if len(parts) > 0 {
		return strings.Join(parts, " UNION ALL ")
	}
	var sel []string
	for _, n := range columns {
		if n == colGlobal {
			sel = append(sel, "CAST(0 AS BIGINT) AS "+quoteName(colGlobal))
		} else if f, ok := r.schema.Field(n); ok {
			sel = append(sel, "CAST(NULL AS "+sqlType(f.Type, !leaving)+") AS "+quoteName(f.Name))
		}
	}
	return "SELECT " + strings.Join(sel, ", ") + " WHERE false"
}

func (r *relation) partQuery(p *relationPart, columns []string, leaving bool, where ...string) string {
	global := "rowid + " + strconv.FormatInt(p.base, 10)
	from := p.table
	var sel []string
	for _, n := range columns {
		if n == colGlobal {
			sel = append(sel, global+" AS "+quoteName(colGlobal))
			continue
		}
		i := r.schema.Index(n)
		if i < 0 {
			sel = append(sel, quoteName(n)) // DuckDB will say that it is unknown
			continue
		}
		forms := p.inner
		if leaving {
			forms = p.outer
		}
		sql := forms[i]
		if leaving && r.patch != nil && slices.Contains(r.patch.columns, i) {
			// The query inside has no rowid that could be meant; what is of other parts is left out, so that it is the smaller side.
			from = fmt.Sprintf("%s LEFT JOIN (FROM %s WHERE g >= %d AND g < %d) patch ON patch.g = %s", p.table, r.patch.table, p.base, p.base+p.rows, global)
			sql = "CASE WHEN patch.g IS NULL THEN " + sql + " ELSE patch." + patched(i) + " END"
		}
		sel = append(sel, sql+" AS "+quoteName(r.schema.Fields[i].Name))
	}
	q := "SELECT " + strings.Join(sel, ", ") + " FROM " + from
	conds := slices.Clone(where)
	if p.some {
		conds = append(conds, colStatus+" IS NULL")
	}
	if len(conds) > 0 {
		q += " WHERE " + strings.Join(conds, " AND ")
	}
	return q
}

// readPage bounds how many rows DuckDB materialises at a time for a reader outside. Tests make it small.
var readPage int64 = 250_000

// Read implements delta.Rows.
func (r *relation) Read(ctx context.Context, columns []string, ordinals *roaring64.Bitmap) iter.Seq2[arrow.RecordBatch, error] {
	return func(yield func(arrow.RecordBatch, error) bool) {
		if r.patch != nil {
			yield(nil, errors.New("BUG: patched rows are read"))
			return
		}
		if columns == nil {
			columns = r.schema.Names()
		}
		var fields []arrow.Field
		for _, n := range columns {
			i := r.schema.Index(n)
			if i < 0 {
				yield(nil, fmt.Errorf("rows have no column %s", n))
				return
			}
			fields = append(fields, r.arrow.Field(i))
		}
		schema := arrow.NewSchema(fields, nil)
		c, err := r.e.acquire(ctx)
		if err != nil {
			yield(nil, err)
			return
		}
		defer func() { _ = c.release() }()
		send := func(query string) bool {
			for b, err := range c.batches(ctx, query, schema) {
				if !yield(b, err) || err != nil {
					return false
				}
			}
			return true
		}
		if ordinals != nil && !ordinals.IsEmpty() && int64(ordinals.Maximum()) >= r.NumRows() {
			yield(nil, fmt.Errorf("row %d of %d was asked for", ordinals.Maximum(), r.NumRows()))
			return
		}
		if n := cardinality(ordinals); ordinals == nil || n > rangesMax && n*denseOneOf >= r.NumRows() {
			if ordinals != nil {
				plain := yield
				var at int64
				yield = func(b arrow.RecordBatch, err error) bool {
					if err != nil {
						return plain(nil, err)
					}
					from := at
					at += b.NumRows()
					some, err := pick(ctx, b, from, ordinals)
					if err != nil {
						return plain(nil, err)
					}
					defer some.Release()
					return some.NumRows() == 0 || plain(some, nil)
				}
			}
			for i := range r.parts {
				p := &r.parts[i]
				for from := int64(0); from < p.rows; from += readPage {
					var where []string
					if p.rows > readPage {
						where = []string{fmt.Sprintf("rowid >= %d AND rowid < %d", from, from+readPage)}
					}
					if !send(r.partQuery(p, columns, true, where...)) {
						return
					}
				}
			}
			return
		}
		for it := ordinals.Iterator(); it.HasNext(); {
			page := roaring64.New()
			var ranges [][2]int64 // of global ids, inclusive
			for n := int64(0); n < readPage && it.HasNext(); n++ {
				ord := it.Next()
				page.Add(ord)
				g := r.global(int64(ord)) //nolint:gosec // of a row
				if n := len(ranges); n > 0 && ranges[n-1][1] == g-1 {
					ranges[n-1][1] = g
				} else if n <= rangesMax {
					ranges = append(ranges, [2]int64{g, g})
				}
			}
			if len(ranges) > rangesMax {
				if !r.readJoined(ctx, columns, page, send, yield) {
					return
				}
				continue
			}
			for i := range r.parts {
				p := &r.parts[i]
				if cond := rangeCondition(ranges, p.base, p.rows); cond != "" && !send(r.partQuery(p, columns, true, cond)) {
					return
				}
			}
		}
	}
}

// readJoined sends the rows with the given ordinals. False: nobody wants more.
func (r *relation) readJoined(ctx context.Context, columns []string, ordinals *roaring64.Bitmap, send func(query string) bool, yield func(arrow.RecordBatch, error) bool) bool {
	table, drop, err := r.e.idTable(ctx, r, ordinals)
	defer drop()
	if err != nil {
		yield(nil, err)
		return false
	}
	var names []string
	for _, n := range columns {
		names = append(names, quoteName(r.columnName(n)))
	}
	return send(fmt.Sprintf("SELECT %s FROM (%s) WHERE %s IN (FROM %s) ORDER BY %[3]s",
		strings.Join(names, ", "), r.query(append(slices.Clone(columns), colGlobal), true), quoteName(colGlobal), table))
}

// Rows that are asked for by number come by their ranges where these are few, else by a join with the numbers or, where at least
// one of denseOneOf is asked for, out of all rows.
const (
	rangesMax  = 512
	denseOneOf = 4
)

func cardinality(b *roaring64.Bitmap) int64 {
	if b == nil {
		return 0
	}
	return int64(b.GetCardinality()) //nolint:gosec // of rows
}

// pick gives the rows of a batch, the first of which has the ordinal from, whose ordinals are wanted. The caller releases
// the result.
func pick(ctx context.Context, b arrow.RecordBatch, from int64, ordinals *roaring64.Bitmap) (arrow.RecordBatch, error) {
	mask := array.NewBooleanBuilder(memory.DefaultAllocator)
	defer mask.Release()
	n := int(b.NumRows())
	mask.Reserve(n)
	it := ordinals.Iterator()
	it.AdvanceIfNeeded(uint64(from)) //nolint:gosec // not negative
	for i := range n {
		wanted := it.HasNext() && it.PeekNext() == uint64(from)+uint64(i) //nolint:gosec // not negative
		if wanted {
			it.Next()
		}
		mask.UnsafeAppend(wanted)
	}
	m := mask.NewBooleanArray()
	defer m.Release()
	return compute.FilterRecordBatch(ctx, b, m, compute.DefaultFilterOptions())
}

// rangeCondition is the SQL that picks the ranges of global ids that lie in a part.
func rangeCondition(ranges [][2]int64, base, rows int64) string {
	var single, wide []string
	low, high := int64(-1), int64(-1)
	for _, g := range ranges {
		from, to := max(g[0]-base, 0), min(g[1]-base, rows-1)
		if from > to {
			continue
		}
		if low < 0 {
			low = from
		}
		high = to
		if from == to {
			single = append(single, strconv.FormatInt(from, 10))
		} else {
			wide = append(wide, fmt.Sprintf("rowid BETWEEN %d AND %d", from, to))
		}
	}
	if low < 0 {
		return ""
	}
	if len(single) > 0 {
		wide = append(wide, "rowid IN ("+strings.Join(single, ",")+")")
	}
	return fmt.Sprintf("rowid BETWEEN %d AND %d AND (%s)", low, high, strings.Join(wide, " OR "))
}

// batches runs a query and yields its batches under the given schema.
func (c *conn) batches(ctx context.Context, query string, schema *arrow.Schema) iter.Seq2[arrow.RecordBatch, error] {
	return func(yield func(arrow.RecordBatch, error) bool) {
		rd, err := c.arrow(ctx, query)
		if err != nil {
			yield(nil, err)
			return
		}
		defer rd.Release()
		for rd.Next() {
			b := rd.RecordBatch()
			if b.NumRows() == 0 {
				continue
			}
			out := b
			if schema != nil {
				out = underSchema(schema, b)
			} else {
				out.Retain()
			}
			more := yield(out, nil)
			out.Release()
			if !more {
				return
			}
		}
		if err := rd.Err(); err != nil {
			yield(nil, wrapSQL(ctx, err))
		}
	}
}

// underSchema gives a batch the types of a schema. DuckDB knows no NOT NULL inside of structs, lists and maps, and rows that it
// reads must meet those of others. The caller releases the result.
func underSchema(schema *arrow.Schema, b arrow.RecordBatch) arrow.RecordBatch {
	cols := slices.Clone(b.Columns())
	for i, c := range cols {
		want := schema.Field(i).Type
		if arrow.TypeEqual(c.DataType(), want) {
			continue
		}
		if d := retyped(c.Data(), want); d != nil {
			cols[i] = array.MakeFromData(d)
			d.Release()
			defer cols[i].Release()
		}
	}
	return array.NewRecordBatch(withTypes(schema, cols), cols, b.NumRows())
}

// retyped is the same data under a type that says only something else of what may be null, nil if it says more. The caller
// releases it.
func retyped(d arrow.ArrayData, want arrow.DataType) arrow.ArrayData {
	have := d.DataType()
	inner, ok := want.(arrow.NestedType)
	if !ok || have.ID() != want.ID() {
		if !arrow.TypeEqual(have, want) {
			return nil
		}
		d.Retain()
		return d
	}
	fields := inner.Fields()
	if s, ok := have.(*arrow.StructType); ok && !slices.EqualFunc(s.Fields(), fields, func(a, b arrow.Field) bool { return a.Name == b.Name }) {
		return nil
	}
	children := make([]arrow.ArrayData, len(fields))
	for i, f := range fields {
		if children[i] = retyped(d.Children()[i], f.Type); children[i] == nil {
			return nil
		}
		defer children[i].Release()
	}
	return array.NewData(want, d.Len(), d.Buffers(), children, d.NullN(), d.Offset())
}

// withTypes is the schema with the types that columns really have, where these are others: DuckDB gives variants as texts.
func withTypes(s *arrow.Schema, columns []arrow.Array) *arrow.Schema {
	same := true
	fields := s.Fields()
	for i, c := range columns {
		if t := c.DataType(); !arrow.TypeEqual(fields[i].Type, t) {
			fields[i].Type = t
			same = false
		}
	}
	if same {
		return s
	}
	return arrow.NewSchema(fields, nil)
}

// load makes any rows a relation of this engine; its own ones it takes as they are. The caller calls done.
func (e *Engine) load(ctx context.Context, rows delta.Rows, columns []string) (rel *relation, done func(), err error) {
	if r, ok := rows.(*relation); ok && r.e == e {
		return r, func() {}, nil
	}
	if p, ok := rows.(delta.PatchedRows); ok {
		under, patches := p.Unpatched()
		if r, ok := under.(*relation); ok && r.e == e && r.patch == nil && len(patches) > 0 {
			return r.patchedWith(ctx, rows.Schema(), patches)
		}
	}
	all, err := delta.SchemaFromArrow(rows.Schema())
	if err != nil {
		return nil, nil, err
	}
	s := all
	if columns != nil {
		s = &delta.Schema{}
		for _, n := range columns {
			f, ok := all.Field(n)
			if !ok {
				return nil, nil, fmt.Errorf("rows have no column %s", n)
			}
			s.Fields = append(s.Fields, f)
		}
	}
	rel = newRelation(e, s, nil)
	table := "main." + quoteName(e.name("rows_"))
	p := relationPart{table: table}
	var sel []string
	for i, f := range s.Fields {
		v := value(i)
		sel = append(sel, "CAST("+quoteName(f.Name)+" AS "+sqlType(f.Type, false)+") AS "+v)
		p.outer = append(p.outer, v)
	}
	stream := rowsStream(ctx, rows, s)
	err = e.with(ctx, func(c *conn) error {
		view := e.name("input_")
		var err error
		p.rows, err = c.createFrom(ctx, table, "SELECT "+strings.Join(sel, ", ")+" FROM "+view, stream, view)
		return err
	})
	if streamErr := stream.stop(); streamErr != nil {
		err = streamErr
	}
	done = e.dropper(ctx, table)
	if err != nil {
		done()
		return nil, nil, err
	}
	rel.setParts([]relationPart{p})
	return rel, done, nil
}

// patchedWith is the relation with other values in some rows. The caller calls done.
func (r *relation) patchedWith(ctx context.Context, schema *arrow.Schema, patches []delta.Patch) (_ *relation, done func(), err error) {
	s, err := delta.SchemaFromArrow(schema)
	if err != nil {
		return nil, nil, err
	}
	out := *r
	out.schema, out.arrow, out.parts = s, schema, nil
	for _, p := range r.parts {
		outer := p.outer
		p.inner, p.outer = nil, nil
		for _, f := range s.Fields {
			sql := "CAST(NULL AS " + sqlType(f.Type, false) + ")"
			if k := r.schema.Index(f.Name); k >= 0 {
				sql = outer[k]
			}
			p.outer = append(p.outer, sql)
		}
		out.parts = append(out.parts, p)
	}
	t := &patch{table: "main." + quoteName(r.e.name("patch_"))}
	fields := []arrow.Field{{Name: "g", Type: arrow.PrimitiveTypes.Int64}}
	sel := []string{"g"}
	for _, f := range patches[0].Values.Schema().Fields() {
		i := s.Index(f.Name)
		if i < 0 {
			return nil, nil, fmt.Errorf("BUG: rows without column %s have other values of it", f.Name)
		}
		fields = append(fields, arrow.Field{Name: patched(i), Type: f.Type, Nullable: true})
		t.columns = append(t.columns, i)
		sel = append(sel, "CAST("+patched(i)+" AS "+sqlType(s.Fields[i].Type, false)+") AS "+patched(i))
	}
	patchSchema := arrow.NewSchema(fields, nil)
	stream := newBatchStream(ctx, patchSchema, func(_ context.Context, send func(arrow.RecordBatch) bool) error {
		for _, p := range patches {
			b := array.NewInt64Builder(memory.DefaultAllocator)
			for _, o := range p.Ordinals {
				if o < 0 {
					b.Append(-1) // no row has it
				} else {
					b.Append(r.global(o))
				}
			}
			g := b.NewArray()
			batch := array.NewRecordBatch(patchSchema, append([]arrow.Array{g}, p.Values.Columns()...), p.Values.NumRows())
			g.Release()
			b.Release()
			if !send(batch) {
				return nil
			}
		}
		return nil
	})
	err = r.e.with(ctx, func(c *conn) error {
		view := r.e.name("input_")
		_, err := c.createFrom(ctx, t.table, "SELECT "+strings.Join(sel, ", ")+" FROM "+view+" WHERE g >= 0", stream, view)
		return err
	})
	if streamErr := stream.stop(); streamErr != nil {
		err = streamErr
	}
	done = r.e.dropper(ctx, t.table)
	if err != nil {
		done()
		return nil, nil, err
	}
	out.patch = t
	return &out, done, nil
}

// dropper drops a table, however the context has ended by then.
func (e *Engine) dropper(ctx context.Context, table string) func() {
	bg := context.WithoutCancel(ctx)
	return func() {
		_ = e.with(bg, func(c *conn) error { return c.exec(bg, "DROP TABLE IF EXISTS "+table) })
	}
}

// rowsStream shows columns of delta.Rows as an Arrow stream.
func rowsStream(ctx context.Context, rows delta.Rows, s *delta.Schema) *batchStream {
	var fields []arrow.Field
	for _, f := range s.Fields {
		for _, g := range rows.Schema().Fields() {
			if strings.EqualFold(g.Name, f.Name) {
				fields = append(fields, g)
				break
			}
		}
	}
	return newBatchStream(ctx, arrow.NewSchema(fields, nil), func(ctx context.Context, send func(arrow.RecordBatch) bool) error {
		for b, err := range rows.Read(ctx, s.Names(), nil) {
			if err != nil {
				return err
			}
			b.Retain() // the stream keeps it beyond this step
			if !send(b) {
				return nil
			}
		}
		return nil
	})
}
