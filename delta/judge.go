package delta

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// comparer orders rows of one batch against rows of another by OrderTerms. Both batches have the columns of the terms;
// the columns of a hash may be missing from terms that are not compared.
type comparer struct {
	terms []comparerTerm
	buf   []byte
}

type comparerTerm struct {
	a, b         arrow.Array
	aHash, bHash []canonColumn
	hash         bool
}

func newComparer(order []OrderTerm, a, b arrow.RecordBatch) *comparer {
	c := &comparer{}
	for _, t := range order {
		if t.Column != "" {
			c.terms = append(c.terms, comparerTerm{a: named(a, t.Column), b: named(b, t.Column)})
			continue
		}
		ct := comparerTerm{hash: true}
		var ac, bc []arrow.Array
		for _, n := range t.HashOf {
			ac, bc = append(ac, named(a, n)), append(bc, named(b, n))
		}
		if len(ac) > 0 && ac[0] != nil && bc[0] != nil {
			ct.aHash, ct.bHash = canonColumns(t.HashOf, ac), canonColumns(t.HashOf, bc)
		}
		c.terms = append(c.terms, ct)
	}
	return c
}

// named finds a column of a batch, nil if it has none.
func named(b arrow.RecordBatch, name string) arrow.Array {
	if i := fieldIndex(b.Schema(), name); i >= 0 {
		return b.Column(i)
	}
	return nil
}

// compare orders row i of the first batch against row j of the second by the first n terms.
func (c *comparer) compare(i, j, n int) int {
	for _, t := range c.terms[:n] {
		if t.hash {
			x, y := rowHash(&c.buf, t.aHash, i), rowHash(&c.buf, t.bHash, j)
			switch {
			case x < y:
				return -1
			case x > y:
				return 1
			}
			continue
		}
		if d := compareValues(t.a, i, t.b, j); d != 0 {
			return d
		}
	}
	return 0
}

// widen gives a batch the named columns in that order; those it lacks are null. b may be nil. The caller releases the
// result.
func widen(b arrow.RecordBatch, schema *Schema, columns []string, n int64) (arrow.RecordBatch, error) {
	fields := make([]arrow.Field, len(columns))
	cols := make([]arrow.Array, len(columns))
	for i, name := range columns {
		f, ok := schema.Field(name)
		if !ok {
			return nil, fmt.Errorf("%w: %q", ErrNoSuchColumn, name)
		}
		fields[i] = arrow.Field{Name: f.Name, Type: ArrowType(f.Type), Nullable: true}
		if b != nil {
			if c := named(b, name); c != nil {
				cols[i] = c
				continue
			}
		}
		cols[i] = nullColumn(f.Type, int(n))
		defer cols[i].Release()
	}
	return array.NewRecordBatch(arrow.NewSchema(fields, nil), cols, n), nil
}

// Bounds of the two ways to read what decides. A small source gets every column at once, in the pass that finds the
// keys. A large one, which may match millions of rows, gets the cheap columns first and the others, in parts, only
// for the rows that need them.
const (
	judgeWideRows  = 50_000
	judgeChunkRows = 250_000
)

// judge decides between source rows and the stored rows of their keys.
type judge struct {
	a     *mergeAttempt
	wide  bool
	plain int      // order terms that the first pass compares: those before the first hash
	apart bool     // rows that differ in the first order term are not equal in Same
	first []string // stored columns of the first pass
	rest  []string // stored columns of the second pass (empty if wide)
}

func newJudge(a *mergeAttempt) *judge {
	j := &judge{a: a, wide: a.src.NumRows() <= judgeWideRows}
	for j.plain < len(a.o.Order) && a.o.Order[j.plain].Column != "" {
		j.plain++
	}
	all := append(orderColumns(a.o.Order), a.o.Same...)
	if len(a.o.Same) > 0 {
		all = append(all, a.o.Carry...)
	}
	all = distinct(all)
	j.apart = j.plain > 0 && slices.Contains(a.o.Same, a.o.Order[0].Column)
	if l, ok := a.eng.Locator.(SequenceLocator); ok && j.plain > 0 && (j.apart || len(a.o.Same) == 0) &&
		l.HasSequence(a.info, a.o.Key, a.o.Order[0].Column) {
		j.wide, j.plain = false, 1
	}
	if j.wide {
		j.first = all
		return j
	}
	j.first = orderColumns(a.o.Order[:j.plain])
	if j.plain < len(a.o.Order) || len(a.o.Same) > 0 {
		j.rest = all
	}
	return j
}

func (j *judge) want() []string { return j.first }

// judgement is what judge found, by group: the matches of one source row.
type judgement struct {
	files    []File
	matches  []Match
	ordinals []int64 // source row of each group, ascending
	order    []int32 // indices into matches, by group
	start    []int32 // of each group in order, and the end of the last
	state    []int8  // by match: > 0 the source row is greater, < 0 it is not, 0 not known yet
	apart    []bool  // by match: known not to be equal in Same
	isRepl   []bool  // by match: Replace removes the stored row
	win      []bool  // the source row is greater than every stored row that stays
	same     []bool  // and equal in Same to one of them, or to one that Replace removes
	replaced []bool  // Replace removes a stored row of the key
	carryOrd []int64
	carry    []arrow.RecordBatch
}

func (g *judgement) release() {
	for _, b := range g.carry {
		b.Release()
	}
	g.carry = nil
}

func (g *judgement) group(i int) []int32 { return g.order[g.start[i]:g.start[i+1]] }

// beaters notes the stored rows that a group's source row lost to.
func (g *judgement) beaters(i int, to *losers) {
	for _, k := range g.group(i) {
		if m := g.matches[k]; g.state[k] < 0 {
			to.add(g.ordinals[i], canonicalPath(g.files[m.File].Add.Path), m.Row)
		}
	}
}

// mark notes the stored rows of a group as superseded.
func (g *judgement) mark(i int, marks map[string]*roaring64.Bitmap) {
	for _, k := range g.group(i) {
		m := g.matches[k]
		mark(marks, canonicalPath(g.files[m.File].Add.Path), m.Row)
	}
}

func (j *judge) judge(ctx context.Context, files []File, m *Matches) (*judgement, error) {
	a := j.a
	g := &judgement{files: files, matches: m.Match}
	paths := make([]*roaring64.Bitmap, len(files))
	if a.o.Replace != nil {
		for i, f := range files {
			paths[i] = a.marks[canonicalPath(f.Add.Path)]
		}
	}
	order := make([]int32, 0, len(m.Match))
	for k, x := range m.Match {
		if x.File < 0 || x.File >= len(files) || x.Source < 0 || x.Source >= int64(len(a.class)) {
			return nil, fmt.Errorf("BUG: the locator gave file %d, source row %d", x.File, x.Source)
		}
		if a.class[x.Source] != rowDup {
			order = append(order, int32(k))
		}
	}
	slices.SortFunc(order, func(x, y int32) int {
		p, q := m.Match[x], m.Match[y]
		return cmp.Or(cmp.Compare(p.Source, q.Source), cmp.Compare(p.File, q.File), cmp.Compare(p.Row, q.Row))
	})
	g.isRepl = make([]bool, len(m.Match))
	for at := 0; at < len(order); {
		end := at + 1
		for end < len(order) && m.Match[order[end]].Source == m.Match[order[at]].Source {
			end++
		}
		g.ordinals = append(g.ordinals, m.Match[order[at]].Source)
		g.start = append(g.start, int32(at))
		at = end
	}
	n := len(g.ordinals)
	g.order, g.start = order, append(g.start, int32(len(order)))
	g.win, g.same, g.replaced = make([]bool, n), make([]bool, n), make([]bool, n)
	for i := range n {
		for _, k := range g.group(i) {
			if p := paths[m.Match[k].File]; p != nil && p.Contains(uint64(m.Match[k].Row)) {
				g.isRepl[k], g.replaced[i] = true, true
			}
		}
	}
	if n == 0 {
		return g, nil
	}
	stored := m.Stored
	if stored == nil {
		if len(j.first) > 0 {
			return nil, fmt.Errorf("BUG: the locator gave no stored columns")
		}
		stored = array.NewRecordBatch(arrow.NewSchema(nil, nil), nil, int64(len(m.Match)))
		defer stored.Release()
	}
	src, err := readSource(ctx, a.src, a.info.Schema, j.first, bitmapOf(g.ordinals))
	if err != nil {
		return nil, err
	}
	defer src.Release()
	terms := j.plain
	if j.wide {
		terms = len(a.o.Order)
	}
	cmp := newComparer(a.o.Order[:terms], src, stored)
	g.state = make([]int8, len(m.Match))
	g.apart = make([]bool, len(m.Match))
	state := g.state
	for i := range n {
		for _, k := range g.group(i) {
			if j.apart && !j.wide {
				g.apart[k] = cmp.compare(i, int(k), 1) != 0
			}
			switch {
			case g.isRepl[k] || len(a.o.Order) == 0:
				state[k] = 1
			default:
				d := cmp.compare(i, int(k), terms)
				if d == 0 && terms == len(a.o.Order) {
					d = -1
				}
				state[k] = int8(d)
			}
		}
	}
	if j.wide {
		j.settle(g, 0, n)
		if len(a.o.Same) == 0 {
			return g, nil
		}
		return g, j.findSame(ctx, g, 0, n, src, stored, func(k int32) int { return int(k) })
	}
	if len(j.rest) == 0 {
		j.settle(g, 0, n)
		return g, nil
	}
	for from := 0; from < n; {
		to, rows := from, 0
		for to < n && (to == from || rows+len(g.group(to)) <= judgeChunkRows) {
			rows += len(g.group(to))
			to++
		}
		if err := j.second(ctx, g, from, to); err != nil {
			return nil, err
		}
		from = to
	}
	return g, nil
}

// second reads the remaining columns for the groups [from, to) that need them and decides those.
func (j *judge) second(ctx context.Context, g *judgement, from, to int) error {
	a, state := j.a, g.state
	var need []int
	for i := from; i < to; i++ {
		lost, open, alike := false, false, false
		for _, k := range g.group(i) {
			lost = lost || state[k] < 0
			open = open || state[k] == 0
			alike = alike || !g.apart[k]
		}
		if !lost && (open || alike && len(a.o.Same) > 0) {
			need = append(need, i)
		}
	}
	if len(need) == 0 {
		j.settle(g, from, to)
		return nil
	}
	hits := make([]*roaring64.Bitmap, len(g.files))
	for f := range hits {
		hits[f] = roaring64.New()
	}
	var ords []int64
	for _, i := range need {
		ords = append(ords, g.ordinals[i])
		for _, k := range g.group(i) {
			hits[g.matches[k].File].Add(uint64(g.matches[k].Row))
		}
	}
	src, err := readSource(ctx, a.src, a.info.Schema, j.rest, bitmapOf(ords))
	if err != nil {
		return err
	}
	defer src.Release()
	known := j.known(g, need)
	columns := slices.DeleteFunc(slices.Clone(j.rest), func(c string) bool { return containsFold(known, c) })
	if len(columns) == 0 { // a row is read by one column at least
		known, columns = nil, j.rest
	}
	stored, pos, err := readAt(ctx, a.eng.Reader, a.info, g.files, hits, columns)
	if err != nil {
		return err
	}
	defer func() { stored.Release() }()
	at := func(k int32) int {
		r, _ := pos.at(g.matches[k].File, g.matches[k].Row)
		return int(r)
	}
	if len(known) > 0 {
		from := make([]int64, stored.NumRows())
		for s, i := range need {
			for _, k := range g.group(i) {
				from[at(k)] = int64(s)
			}
		}
		whole, err := withColumns(ctx, stored, src, known, from)
		if err != nil {
			return err
		}
		stored.Release()
		stored = whole
	}
	cmp := newComparer(a.o.Order, src, stored)
	for s, i := range need {
		for _, k := range g.group(i) {
			if state[k] == 0 {
				state[k] = -1
				if cmp.compare(s, at(k), len(a.o.Order)) > 0 {
					state[k] = 1
				}
			}
		}
	}
	j.settle(g, from, to)
	if len(a.o.Same) == 0 {
		return nil
	}
	sub := make(map[int]int, len(need))
	for s, i := range need {
		sub[i] = s
	}
	return j.findSameAt(ctx, g, need, func(i int) int { return sub[i] }, src, stored, at)
}

// known are the columns of rest in which the stored rows of the given groups are what their source rows are: the key, and those
// by which every match is a tie so far. They need not be read, and a key is often the largest column.
func (j *judge) known(g *judgement, groups []int) []string {
	a := j.a
	out := slices.Clone(a.o.Key)
	tied := true
	for _, i := range groups {
		for _, k := range g.group(i) {
			tied = tied && g.state[k] == 0 && !g.isRepl[k]
		}
	}
	if tied {
		out = append(out, orderColumns(a.o.Order[:j.plain])...)
	}
	return slices.DeleteFunc(distinct(out), func(c string) bool {
		f, ok := a.info.Schema.Field(c)
		return !ok || !containsFold(j.rest, c) || !equalIsSame(f.Type)
	})
}

// equalIsSame tells whether values of a type that are equal are one value: -0.0 equals 0.0.
func equalIsSame(t Type) bool {
	switch t {
	case String, Long, Integer, Short, Byte, Boolean, Date, Timestamp, TimestampNTZ, Binary:
		return true
	}
	return false
}

func containsFold(names []string, name string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
}

// withColumns is a batch with further columns: those of another batch, of which from names the row for each. The caller releases it.
func withColumns(ctx context.Context, b, other arrow.RecordBatch, columns []string, from []int64) (arrow.RecordBatch, error) {
	fields, cols := slices.Clone(b.Schema().Fields()), slices.Clone(b.Columns())
	for _, n := range columns {
		i := fieldIndex(other.Schema(), n)
		if i < 0 {
			return nil, fmt.Errorf("BUG: no column %s in the source", n)
		}
		c, err := takeArray(ctx, other.Column(i), from)
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", n, err)
		}
		defer c.Release()
		fields, cols = append(fields, other.Schema().Field(i)), append(cols, c)
	}
	return array.NewRecordBatch(arrow.NewSchema(fields, nil), cols, b.NumRows()), nil
}

// settle turns the states of matches into winners and losers.
func (j *judge) settle(g *judgement, from, to int) {
	for i := from; i < to; i++ {
		g.win[i] = true
		for _, k := range g.group(i) {
			if g.state[k] < 0 {
				g.win[i] = false
			}
		}
	}
}

func (j *judge) findSame(ctx context.Context, g *judgement, from, to int, src, stored arrow.RecordBatch, at func(k int32) int) error {
	all := make([]int, 0, to-from)
	for i := from; i < to; i++ {
		all = append(all, i)
	}
	return j.findSameAt(ctx, g, all, func(i int) int { return i }, src, stored, at)
}

// findSameAt looks among the groups that won for rows that are equal in Same to a stored row, and keeps its Carry.
func (j *judge) findSameAt(ctx context.Context, g *judgement, groups []int, srcAt func(i int) int, src, stored arrow.RecordBatch, at func(k int32) int) error {
	a := j.a
	type pair struct{ x, y arrow.Array }
	var cols []pair
	for _, c := range a.o.Same {
		cols = append(cols, pair{named(src, c), named(stored, c)})
	}
	cmp := newComparer(a.o.Order, stored, stored)
	var ords, rows []int64
	for _, i := range groups {
		if !g.win[i] {
			continue
		}
		best := int32(-1)
		for _, k := range g.group(i) {
			equal := true
			for _, p := range cols {
				if compareValues(p.x, srcAt(i), p.y, at(k)) != 0 {
					equal = false
					break
				}
			}
			// Of several stored rows the greatest is the one that stood.
			if equal && (best < 0 || cmp.compare(at(k), at(best), len(a.o.Order)) > 0) {
				best = k
			}
		}
		if best < 0 {
			continue
		}
		g.same[i] = true
		if len(a.o.Carry) > 0 {
			ords = append(ords, g.ordinals[i])
			rows = append(rows, int64(at(best)))
		}
	}
	if len(ords) == 0 {
		return nil
	}
	carry, err := widen(stored, a.info.Schema, a.o.Carry, stored.NumRows())
	if err != nil {
		return err
	}
	defer carry.Release()
	b, err := takeBatch(ctx, carry, rows)
	if err != nil {
		return err
	}
	g.carryOrd = append(g.carryOrd, ords...)
	g.carry = append(g.carry, b)
	return nil
}

// takeCarry gives the carried values over to the caller; nil if there are none.
func (g *judgement) takeCarry() *carriedValues {
	if len(g.carryOrd) == 0 {
		return nil
	}
	c := &carriedValues{at: make(map[int64]carriedAt, len(g.carryOrd))}
	o := 0
	for i, b := range g.carry {
		b.Retain()
		c.batches = append(c.batches, b)
		for r := range b.NumRows() {
			c.at[g.carryOrd[o]] = carriedAt{int32(i), int32(r)}
			o++
		}
	}
	return c
}

func bitmapOf(ordinals []int64) *roaring64.Bitmap {
	b := roaring64.New()
	for _, o := range ordinals {
		b.Add(uint64(o))
	}
	return b
}

// carriedValues are the stored values of some columns that replace those of source rows.
type carriedValues struct {
	batches []arrow.RecordBatch // all with the same columns
	at      map[int64]carriedAt // by source ordinal
}

type carriedAt struct{ batch, row int32 }

// schema is that of the source, with the carried columns added where it lacks them.
func (c *carriedValues) schema(src *arrow.Schema, table *Schema) *arrow.Schema {
	fields := append([]arrow.Field{}, src.Fields()...)
	for _, f := range c.batches[0].Schema().Fields() {
		if i := fieldIndex(src, f.Name); i < 0 {
			fields = append(fields, f)
		} else {
			fields[i].Nullable = true
		}
	}
	return arrow.NewSchema(fields, nil)
}

// carriedRows are source rows with carried values laid over them.
type carriedRows struct {
	rows   Rows
	carry  *carriedValues
	schema *arrow.Schema
}

var _ PatchedRows = (*carriedRows)(nil)

func (r *carriedRows) Schema() *arrow.Schema { return r.schema }
func (r *carriedRows) NumRows() int64        { return r.rows.NumRows() }

// Unpatched implements PatchedRows.
func (r *carriedRows) Unpatched() (Rows, []Patch) {
	out := make([]Patch, len(r.carry.batches))
	for i, b := range r.carry.batches {
		out[i] = Patch{Ordinals: slices.Repeat([]int64{-1}, int(b.NumRows())), Values: b}
	}
	for ordinal, c := range r.carry.at {
		out[c.batch].Ordinals[c.row] = ordinal
	}
	return r.rows, out
}

func (r *carriedRows) Read(ctx context.Context, columns []string, ordinals *roaring64.Bitmap) iter.Seq2[arrow.RecordBatch, error] {
	return func(yield func(arrow.RecordBatch, error) bool) {
		_, schema, err := projection(r.schema, columns)
		if err != nil {
			yield(nil, err)
			return
		}
		var inner []string
		for _, f := range schema.Fields() {
			if i := fieldIndex(r.rows.Schema(), f.Name); i >= 0 {
				inner = append(inner, r.rows.Schema().Field(i).Name)
			}
		}
		if len(inner) == 0 {
			inner = []string{r.rows.Schema().Field(0).Name} // for the number of rows
		}
		var next func() int64
		if ordinals == nil {
			at := int64(-1)
			next = func() int64 { at++; return at }
		} else {
			it := ordinals.Iterator()
			next = func() int64 { return int64(it.Next()) }
		}
		for b, err := range r.rows.Read(ctx, inner, ordinals) {
			if err != nil {
				yield(nil, err)
				return
			}
			where := make([]carriedAt, b.NumRows())
			any := false
			for i := range where {
				c, ok := r.carry.at[next()]
				if !ok {
					c.batch = -1
				}
				where[i] = c
				any = any || ok
			}
			out, err := r.lay(ctx, b, schema, where, any)
			if err != nil {
				yield(nil, err)
				return
			}
			ok := yield(out, nil)
			out.Release()
			if !ok {
				return
			}
		}
	}
}

func (r *carriedRows) lay(ctx context.Context, b arrow.RecordBatch, schema *arrow.Schema, where []carriedAt, any bool) (arrow.RecordBatch, error) {
	cols := make([]arrow.Array, schema.NumFields())
	for i, f := range schema.Fields() {
		own := named(b, f.Name)
		ci := fieldIndex(r.carry.batches[0].Schema(), f.Name)
		if ci < 0 || !any {
			if own == nil {
				own = array.MakeArrayOfNull(memory.DefaultAllocator, f.Type, int(b.NumRows()))
				defer own.Release()
			}
			cols[i] = own
			continue
		}
		// Put the values that may be taken one behind another, then choose.
		var parts []arrow.Array
		base := int64(0)
		if own != nil {
			parts = append(parts, own)
			base = int64(own.Len())
		}
		starts := make([]int64, len(r.carry.batches))
		used := map[int32]bool{}
		for _, w := range where {
			used[w.batch] = true
		}
		for k, cb := range r.carry.batches {
			if used[int32(k)] {
				starts[k] = base
				parts = append(parts, cb.Column(ci))
				base += cb.NumRows()
			}
		}
		joined, err := array.Concatenate(parts, memory.DefaultAllocator)
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", f.Name, err)
		}
		idx := make([]int64, len(where))
		for k, w := range where {
			switch {
			case w.batch >= 0:
				idx[k] = starts[w.batch] + int64(w.row)
			case own != nil:
				idx[k] = int64(k)
			default:
				idx[k] = -1
			}
		}
		col, err := takeArray(ctx, joined, idx)
		joined.Release()
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", f.Name, err)
		}
		defer col.Release()
		cols[i] = col
	}
	return array.NewRecordBatch(schema, cols, b.NumRows()), nil
}

// losers are source rows that were not written, with the stored rows that are at least as great. There may be as many
// as source rows, so they are kept small.
type losers struct {
	paths []string
	index map[string]int32
	rows  []loser
}

type loser struct {
	ordinal, row int64
	path         int32
}

func (l *losers) add(ordinal int64, path string, row int64) {
	p, ok := l.index[path]
	if !ok {
		if l.index == nil {
			l.index = map[string]int32{}
		}
		p = int32(len(l.paths))
		l.index[path] = p
		l.paths = append(l.paths, path)
	}
	l.rows = append(l.rows, loser{ordinal, row, p})
}
