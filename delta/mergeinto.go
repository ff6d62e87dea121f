package delta

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

	"github.com/cauce-data/cauce/delta/expr"
)

// ClauseKind says which rows a clause of MergeInto is about.
type ClauseKind int

// The kinds of clause.
const (
	WhenMatched            ClauseKind = iota + 1 // pairs of a table's row and a source row
	WhenNotMatched                               // source rows that no row of the table matches: they are inserted
	WhenNotMatchedBySource                       // rows of the table that no source row matches
)

// MergeClause is one WHEN … THEN. Of the clauses of a kind the first whose condition is true acts.
type MergeClause struct {
	Kind ClauseKind
	// Condition is about both sides (WhenMatched), the source (WhenNotMatched) or the table (WhenNotMatchedBySource);
	// nil: always.
	Condition expr.Expr
	// Delete removes the row; not for WhenNotMatched. Else the row is updated or inserted:
	Delete bool
	// Set gives columns their values. An update keeps the others, an insert gives them their default.
	Set []Assignment
	// All sets every column of the table to the source's column of that name ("SET *", "INSERT *"); not together with
	// Set, and not for WhenNotMatchedBySource.
	All bool
}

// MergeIntoOptions are a MERGE INTO as SQL has it.
type MergeIntoOptions struct {
	ChangeOptions
	// On says which rows match. Conjuncts that compare a column of the table with one of the source find the rows fast.
	On expr.Expr
	// TargetAlias and SourceAlias are what expressions call the two sides; "": target and source. A column that only
	// one side has needs none.
	TargetAlias, SourceAlias string
	Clauses                  []MergeClause
	// SchemaEvolution adds columns to the table that only the source has and that All or an assignment names; a column
	// that only the table has keeps its value in updates and is null in inserts by All (WITH SCHEMA EVOLUTION).
	SchemaEvolution bool
}

// MergeInto is SQL's MERGE with every clause. The source is read more than once.
//
// Errors beside those of DeleteWhere: *MultipleSourceRowsError if several source rows would change one row of the table
// (unless the only matched clause deletes without a condition), and those of constraints. For upserts of streams and
// files, whose result must not depend on their order, use Merge.
func (t *Table) MergeInto(ctx context.Context, source Rows, o MergeIntoOptions) (*ChangeResult, error) {
	if o.TargetAlias == "" {
		o.TargetAlias = "target"
	}
	if o.SourceAlias == "" {
		o.SourceAlias = "source"
	}
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("merge into %s: %w", t, err)
	}
	// The source in Delta's types.
	schema, err := SchemaFromArrow(source.Schema())
	if err != nil {
		return nil, fmt.Errorf("merge into %s: source: %w", t, err)
	}
	for i := range schema.Fields {
		schema.Fields[i].Nullable = true
	}
	fitted, _, err := fit(source, schema, growth{})
	if err != nil {
		return nil, fmt.Errorf("merge into %s: source: %w", t, err)
	}
	return t.change(ctx, o.ChangeOptions, "MERGE", &mergeInto{o: o, source: fitted, schema: schema})
}

func (o *MergeIntoOptions) check() error {
	if o.On == nil {
		return fmt.Errorf("%w: a MERGE needs a condition", expr.ErrType)
	}
	if strings.EqualFold(o.TargetAlias, o.SourceAlias) {
		return fmt.Errorf("%w: both sides are called %s", expr.ErrType, o.SourceAlias)
	}
	if len(o.Clauses) == 0 {
		return fmt.Errorf("%w: a MERGE needs a WHEN clause", expr.ErrType)
	}
	open := map[ClauseKind]bool{} // an unconditional clause came
	for i, c := range o.Clauses {
		what := fmt.Sprintf("clause %d", i+1)
		switch {
		case c.Kind < WhenMatched || c.Kind > WhenNotMatchedBySource:
			return fmt.Errorf("%w: %s has no kind", expr.ErrType, what)
		case open[c.Kind]:
			return fmt.Errorf("%w: %s never acts: one of its kind before it has no condition", expr.ErrType, what)
		case c.Delete && (c.Kind == WhenNotMatched || c.All || len(c.Set) > 0):
			return fmt.Errorf("%w: %s deletes, so it sets nothing and is about stored rows", expr.ErrType, what)
		case c.All && (c.Kind == WhenNotMatchedBySource || len(c.Set) > 0):
			return fmt.Errorf("%w: %s sets all columns from the source; it needs a source row and no further assignments", expr.ErrType, what)
		case !c.Delete && !c.All && len(c.Set) == 0:
			return fmt.Errorf("%w: %s does nothing", expr.ErrType, what)
		}
		open[c.Kind] = c.Condition == nil
	}
	return nil
}

// mergeInto plans a MERGE.
type mergeInto struct {
	o      MergeIntoOptions
	source Rows
	schema *Schema // of source
}

// boundClause is a clause bound to a snapshot.
type boundClause struct {
	MergeClause
	index  int // among o.Clauses
	where  expr.Expr
	cond   *expr.Program // nil: always
	assign *assigner
}

func (b *boundClause) acts(r arrow.RecordBatch, i int) (bool, error) {
	if b.cond == nil {
		return true, nil
	}
	ok, err := b.cond.True(r, i)
	if err != nil {
		return false, fmt.Errorf("%s: %w", b.Condition, err)
	}
	return ok, nil
}

// firstClause finds the clause that acts on a row, -1 if none does.
func firstClause(clauses []*boundClause, r arrow.RecordBatch, i int) (int, error) {
	for k, c := range clauses {
		if ok, err := c.acts(r, i); err != nil || ok {
			return k, err
		}
	}
	return -1, nil
}

// pair is a stored row and a source row that match.
type pair struct {
	file   int32
	clause int32 // of the matched clauses; -1: none acts
	row    int64
	source int64
}

// mergePlan is a MERGE bound to a snapshot.
type mergePlan struct {
	*mergeInto
	c              *change
	target, source scope
	on             onCondition
	matched        []*boundClause
	inserts        []*boundClause
	bySource       []*boundClause

	files []File // that may hold matches
	pairs []pair
	// matchedRows are the rows of files that match a source row, matchedSource the source rows that match a row.
	matchedRows   []*roaring64.Bitmap
	matchedSource *roaring64.Bitmap
}

func (m *mergeInto) plan(ctx context.Context, c *change) error {
	p := &mergePlan{mergeInto: m, c: c, matchedSource: roaring64.New()}
	p.target = scope{tag: targetTag, alias: m.o.TargetAlias, schema: c.base.Schema().Arrow()}
	p.source = scope{tag: sourceTag, alias: m.o.SourceAlias, schema: m.source.Schema()}
	if err := p.bind(); err != nil {
		return err
	}
	c.res.SourceRows = m.source.NumRows()
	if err := p.match(ctx); err != nil {
		return err
	}
	if err := p.unique(ctx); err != nil {
		return err
	}
	if err := p.change(); err != nil {
		return err
	}
	if err := p.insert(ctx); err != nil {
		return err
	}
	return p.rest(ctx)
}

// bind qualifies and compiles what the options say, and evolves the schema.
func (p *mergePlan) bind() error {
	c := p.c
	// Names mean what they mean in the table as it is; what is computed sees the table as it will be.
	target := p.target
	on, err := qualify(p.o.On, target, p.source)
	if err != nil {
		return err
	}
	sets, err := p.grow()
	if err != nil {
		return err
	}
	if _, err := compileCondition(on, c.now, p.target, p.source); err != nil {
		return err
	}
	if err := p.on.split(p, on); err != nil {
		return err
	}
	for i, cl := range p.o.Clauses {
		b := &boundClause{MergeClause: cl, index: i}
		scopes := []scope{p.target, p.source}
		switch cl.Kind {
		case WhenNotMatched:
			scopes = scopes[1:]
			p.inserts = append(p.inserts, b)
		case WhenNotMatchedBySource:
			scopes = scopes[:1]
			p.bySource = append(p.bySource, b)
		default:
			p.matched = append(p.matched, b)
		}
		narrow := slices.Clone(scopes)
		if narrow[0].tag == targetTag {
			narrow[0] = target
		}
		if b.where, err = qualify(cl.Condition, narrow...); err != nil {
			return err
		}
		if b.where != nil {
			if b.cond, err = compileCondition(b.where, c.now, scopes...); err != nil {
				return err
			}
		}
		if !cl.Delete {
			if b.assign, err = c.assigner(sets[i], cl.Kind == WhenNotMatched, true, scopes...); err != nil {
				return fmt.Errorf("clause %d: %w", i+1, err)
			}
		}
	}
	return nil
}

// grow gives the assignments of all clauses and evolves the schema as they need.
func (p *mergePlan) grow() ([][]Assignment, error) {
	c := p.c
	sets := make([][]Assignment, len(p.o.Clauses))
	to := slices.Clone(c.base.Schema().Fields)
	grown := false
	can := c.base.growth(p.o.SchemaEvolution)
	for i, cl := range p.o.Clauses {
		set, add, err := p.assignments(cl)
		if err != nil {
			return nil, err
		}
		sets[i] = set
		for _, f := range add {
			if !slices.ContainsFunc(to, func(x Field) bool { return strings.EqualFold(x.Name, f.Name) }) {
				to, grown = append(to, f), true
			}
		}
		if !can.widen {
			continue
		}
		for _, a := range set {
			// A column that is assigned a wider column of the source is widened.
			col, ok := a.Value.(expr.Column)
			at := (&Schema{Fields: to}).Index(a.Column)
			if !ok || at < 0 || len(col.Path) != 2 || col.Path[0] != sourceTag {
				continue
			}
			f, _ := p.schema.Field(col.Path[1])
			if wide, ok := widenFor(to[at].Type, f.Type); ok {
				to[at].Type, grown = wide, true
			}
		}
	}
	if !grown {
		return sets, nil
	}
	if err := c.evolve(&Schema{Fields: to}); err != nil {
		return nil, err
	}
	p.target.schema = c.base.Schema().Arrow()
	return sets, nil
}

// assignments are those of a clause, qualified, and the columns that they add to the table.
func (p *mergePlan) assignments(cl MergeClause) (set []Assignment, extra []Field, err error) {
	have := p.c.base.Schema()
	fromSource := func(f Field) Assignment {
		return Assignment{Column: f.Name, Value: expr.Column{Path: []string{sourceTag, f.Name}}}
	}
	if cl.All {
		for _, f := range have.Fields {
			s, ok := p.schema.Field(f.Name)
			switch {
			case ok:
				a := fromSource(s)
				a.Column = f.Name
				set = append(set, a)
			case !p.o.SchemaEvolution && !hasRule(f):
				return nil, nil, fmt.Errorf("%w: the source has no column %q, which \"*\" sets", ErrNoSuchColumn, f.Name)
			}
		}
		if p.o.SchemaEvolution {
			for _, f := range p.schema.Fields {
				if _, ok := have.Field(f.Name); !ok {
					set, extra = append(set, fromSource(f)), append(extra, f)
				}
			}
		}
		return set, extra, p.storable(extra)
	}
	scopes := []scope{p.target, p.source}
	switch cl.Kind {
	case WhenNotMatched:
		scopes = scopes[1:]
	case WhenNotMatchedBySource:
		scopes = scopes[:1]
	}
	for _, a := range cl.Set {
		v, err := qualify(a.Value, scopes...)
		if err != nil {
			return nil, nil, err
		}
		set = append(set, Assignment{Column: a.Column, Value: v})
		if _, ok := have.Field(a.Column); ok || !p.o.SchemaEvolution {
			continue
		}
		// Spark adds a column that is assigned the source's column of the same name.
		if col, ok := v.(expr.Column); ok && len(col.Path) == 2 && col.Path[0] == sourceTag && strings.EqualFold(col.Path[1], a.Column) {
			f, _ := p.schema.Field(a.Column)
			extra = append(extra, f)
		}
	}
	return set, extra, p.storable(extra)
}

func (p *mergePlan) storable(extra []Field) error {
	for _, f := range extra {
		if f.Type == Void {
			return fmt.Errorf("%w: column %q has no type", ErrSchemaMismatch, f.Name)
		}
	}
	return nil
}

// onCondition is the condition of a MERGE, taken apart.
type onCondition struct {
	keys   []equiKey
	target expr.Expr // what concerns the table alone
	source expr.Expr // what concerns the source alone
	rest   expr.Expr // all others
	// whole is target and source and rest, which a pair with equal keys must satisfy; nil: nothing.
	whole *expr.Program
}

// equiKey is a comparison of an expression over the table with one over the source.
type equiKey struct {
	target, source expr.Expr
	nullSafe       bool
	// column and from are set where both sides are plain columns whose values the table's column can hold.
	column, from string
}

func (o *onCondition) split(p *mergePlan, on expr.Expr) error {
	var target, source, rest, whole []expr.Expr
	for _, e := range expr.Conjuncts(on) {
		switch tags := tagsOf(e); {
		case tags == "t":
			target = append(target, e)
		case tags == "s":
			source = append(source, e)
		default:
			if k, ok := p.equiKey(e); ok {
				o.keys = append(o.keys, k)
				continue
			}
			rest = append(rest, e)
		}
		whole = append(whole, e)
	}
	all := func(es []expr.Expr) expr.Expr {
		if len(es) == 0 {
			return nil
		}
		return expr.And(es...)
	}
	o.target, o.source, o.rest = all(target), all(source), all(rest)
	if w := all(whole); w != nil {
		var err error
		if o.whole, err = compileCondition(w, p.c.now, p.target, p.source); err != nil {
			return err
		}
	}
	return nil
}

// tagsOf says which sides an expression is about: "", "t", "s" or "ts".
func tagsOf(e expr.Expr) string {
	var t, s string
	for _, p := range expr.Columns(e) {
		if p[0] == targetTag {
			t = "t"
		} else {
			s = "s"
		}
	}
	return t + s
}

func (p *mergePlan) equiKey(e expr.Expr) (k equiKey, ok bool) {
	c, isCall := e.(expr.Call)
	if !isCall || c.Func != "=" && c.Func != "<=>" {
		return k, false
	}
	k = equiKey{target: c.Args[0], source: c.Args[1], nullSafe: c.Func == "<=>"}
	if tagsOf(k.target) == "s" {
		k.target, k.source = k.source, k.target
	}
	if tagsOf(k.target) != "t" || tagsOf(k.source) != "s" {
		return k, false
	}
	// Both sides in the type in which SQL compares them.
	scopes := []scope{p.target, p.source}
	both, err := expr.Compile(expr.Case{Whens: []expr.When{{Cond: expr.Lit(true), Then: k.target}}, Else: k.source}, resolver(scopes...), expr.Options{Now: p.c.now})
	if err != nil || arrow.IsNested(both.Type.ID()) || both.Type.ID() == arrow.NULL {
		return k, false
	}
	tc, ok1 := k.target.(expr.Column)
	sc, ok2 := k.source.(expr.Column)
	if ok1 && ok2 && len(tc.Path) == 2 && len(sc.Path) == 2 && !k.nullSafe {
		f, _ := p.c.base.Schema().Field(tc.Path[1])
		i := fieldIndex(p.source.schema, sc.Path[1])
		if f.Type != Float && f.Type != Double && canHold(f.Type, p.source.schema.Field(i).Type) {
			k.column, k.from = f.Name, p.source.schema.Field(i).Name
		}
	}
	k.target, k.source = expr.Cast{Arg: k.target, Type: both.Type}, expr.Cast{Arg: k.source, Type: both.Type}
	return k, true
}

// match finds the pairs of rows that match, and which clause acts on each.
func (p *mergePlan) match(ctx context.Context) error {
	c := p.c
	prune := And()
	if p.on.target != nil {
		prune = targetPredicate(p.on.target)
	}
	reads := prune
	adds := c.base.Prune(prune)
	// Plain key columns leave out files by their statistics.
	var plain []equiKey
	for _, k := range p.on.keys {
		if k.column != "" && !slices.ContainsFunc(plain, func(x equiKey) bool { return x.column == k.column }) {
			plain = append(plain, k)
		}
	}
	var keyed Rows
	var columns []string
	if len(plain) > 0 {
		var err error
		if keyed, columns, err = p.keyRows(plain); err != nil {
			return err
		}
		keys, err := sourceKeys(ctx, keyed, c.base.Schema(), columns)
		if err != nil {
			return err
		}
		adds = c.base.mayHoldKeys(adds, keys)
		reads = And(prune, keysPredicate(keys))
	}
	if len(p.bySource) == 0 {
		c.reads = []Predicate{reads}
	}
	var err error
	if p.files, err = c.base.load(ctx, adds); err != nil {
		return err
	}
	p.matchedRows = make([]*roaring64.Bitmap, len(p.files))
	if len(p.files) == 0 || p.mergeInto.source.NumRows() == 0 {
		return nil
	}
	// What the conditions need of the source stays in memory.
	es := []expr.Expr{p.on.target, p.on.source, p.on.rest}
	for _, b := range p.matched {
		es = append(es, b.where)
	}
	side, err := p.sourceSide(ctx, es)
	if err != nil {
		return err
	}
	defer side.Release()
	if len(plain) == len(p.on.keys) && len(plain) > 0 {
		return p.locate(ctx, keyed, columns, side, es)
	}
	return p.join(ctx, side, es)
}

// keyRows are the source with its key columns named as the table's.
func (p *mergePlan) keyRows(keys []equiKey) (Rows, []string, error) {
	fields := make([]arrow.Field, len(keys))
	from := make([]string, len(keys))
	var names []string
	sub := &Schema{}
	for i, k := range keys {
		f, _ := p.source.schema.FieldsByName(k.from)
		fields[i], from[i] = f[0], k.from
		fields[i].Name = k.column
		names = append(names, k.column)
		tf, _ := p.c.base.Schema().Field(k.column)
		tf.Nullable = true
		sub.Fields = append(sub.Fields, tf)
	}
	fitted, _, err := fit(&renamedRows{rows: p.mergeInto.source, from: from, schema: arrow.NewSchema(fields, nil)}, sub, growth{})
	return fitted, names, err
}

// renamedRows are columns of other rows under other names.
type renamedRows struct {
	rows   Rows
	from   []string
	schema *arrow.Schema
}

func (r *renamedRows) Schema() *arrow.Schema { return r.schema }
func (r *renamedRows) NumRows() int64        { return r.rows.NumRows() }

func (r *renamedRows) Read(ctx context.Context, columns []string, ordinals *roaring64.Bitmap) iter.Seq2[arrow.RecordBatch, error] {
	return func(yield func(arrow.RecordBatch, error) bool) {
		index, schema, err := projection(r.schema, columns)
		if err != nil {
			yield(nil, err)
			return
		}
		inner := make([]string, len(index))
		for i, j := range index {
			inner[i] = r.from[j]
		}
		for b, err := range r.rows.Read(ctx, inner, ordinals) {
			if err != nil {
				yield(nil, err)
				return
			}
			out := array.NewRecordBatch(schema, b.Columns(), b.NumRows())
			ok := yield(out, nil)
			out.Release()
			if !ok {
				return
			}
		}
	}
}

// sourceSide reads the source's columns that expressions use, in the width of its schema; unused ones are placeholders.
func (p *mergePlan) sourceSide(ctx context.Context, es []expr.Expr) (arrow.RecordBatch, error) {
	use := map[string]bool{}
	for _, e := range es {
		for _, path := range expr.Columns(e) {
			if path[0] == sourceTag {
				use[path[1]] = true
			}
		}
	}
	var names []string
	for _, f := range p.source.schema.Fields() {
		if use[f.Name] {
			names = append(names, f.Name)
		}
	}
	n := p.mergeInto.source.NumRows()
	var got arrow.RecordBatch
	if len(names) > 0 {
		b, err := readSource(ctx, p.mergeInto.source, p.schema, names, nil)
		if err != nil {
			return nil, err
		}
		defer b.Release()
		got = b
	}
	cols := make([]arrow.Array, p.source.schema.NumFields())
	fields := make([]arrow.Field, len(cols))
	none := array.NewNull(int(n))
	defer none.Release()
	for i, f := range p.source.schema.Fields() {
		cols[i] = none
		if use[f.Name] {
			cols[i] = named(got, f.Name)
		}
		fields[i] = arrow.Field{Name: f.Name, Type: cols[i].DataType(), Nullable: true}
	}
	return array.NewRecordBatch(arrow.NewSchema(fields, nil), cols, n), nil
}

// mergeChunkPairs bounds the pairs that are evaluated at once.
const mergeChunkPairs = 65_536

// decide evaluates conditions of candidate pairs: row i of stored, which has the table's width, with source row src[i],
// at file and row at(i).
func (p *mergePlan) decide(ctx context.Context, stored arrow.RecordBatch, side arrow.RecordBatch, src []int64, at func(i int) (int, int64)) error {
	plain := p.on.whole == nil
	for _, b := range p.matched {
		plain = plain && b.cond == nil
	}
	var both arrow.RecordBatch
	if !plain {
		s, err := takeBatch(ctx, side, src)
		if err != nil {
			return err
		}
		defer s.Release()
		both = beside(stored, s)
	}
	for i := range src {
		if p.on.whole != nil {
			ok, err := p.on.whole.True(both, i)
			if err != nil {
				return fmt.Errorf("%s: %w", p.o.On, err)
			}
			if !ok {
				continue
			}
		}
		clause, err := firstClause(p.matched, both, i)
		if err != nil {
			return err
		}
		file, row := at(i)
		if p.matchedRows[file] == nil {
			p.matchedRows[file] = roaring64.New()
		}
		p.matchedRows[file].Add(uint64(row))
		p.matchedSource.Add(uint64(src[i]))
		if clause >= 0 {
			p.pairs = append(p.pairs, pair{int32(file), int32(clause), row, src[i]})
		}
	}
	return nil
}

// beside puts the columns of two batches of equal length side by side.
func beside(a, b arrow.RecordBatch) arrow.RecordBatch {
	return array.NewRecordBatch(arrow.NewSchema(append(slices.Clone(a.Schema().Fields()), b.Schema().Fields()...), nil),
		append(slices.Clone(a.Columns()), b.Columns()...), a.NumRows())
}

// locate lets the engine find the rows with equal keys.
func (p *mergePlan) locate(ctx context.Context, keyed Rows, columns []string, side arrow.RecordBatch, es []expr.Expr) error {
	c := p.c
	cols, pick := neededColumns(c.base.Schema(), es...)
	needs := false
	for _, e := range es {
		needs = needs || strings.HasPrefix(tagsOf(orTrue(e)), "t")
	}
	if !needs {
		cols = nil
	}
	m, err := c.eng.Locator.Locate(ctx, c.base.TableInfo(), p.files, keyed, columns, cols)
	if err != nil {
		return fmt.Errorf("look up keys: %w", err)
	}
	defer m.Release()
	if len(m.Match) == 0 {
		return nil
	}
	stored := m.Stored
	if stored == nil {
		none := array.NewNull(len(m.Match))
		stored = array.NewRecordBatch(arrow.NewSchema([]arrow.Field{{Name: "none", Type: arrow.Null, Nullable: true}}, nil), []arrow.Array{none}, int64(len(m.Match)))
		defer stored.Release()
	}
	for from := 0; from < len(m.Match); from += mergeChunkPairs {
		to := min(from+mergeChunkPairs, len(m.Match))
		src := make([]int64, to-from)
		for i := range src {
			src[i] = m.Match[from+i].Source
		}
		part := stored.NewSlice(int64(from), int64(to))
		err := p.decide(ctx, pick(part), side, src, func(i int) (int, int64) { x := m.Match[from+i]; return x.File, x.Row })
		part.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

func orTrue(e expr.Expr) expr.Expr {
	if e == nil {
		return expr.Lit(true)
	}
	return e
}

// join finds the pairs itself: by a hash table of the keys, or without keys by comparing each with each.
func (p *mergePlan) join(ctx context.Context, side arrow.RecordBatch, es []expr.Expr) error {
	c := p.c
	var tkeys, skeys []expr.Expr
	for _, k := range p.on.keys {
		tkeys, skeys = append(tkeys, k.target), append(skeys, k.source)
	}
	// The keys of the source.
	full, err := p.sourceSide(ctx, skeys)
	if err != nil {
		return err
	}
	defer full.Release()
	programs := func(ks []expr.Expr, s scope) ([]*expr.Program, error) {
		out := make([]*expr.Program, len(ks))
		for i, k := range ks {
			var err error
			if out[i], err = expr.Compile(k, resolver(s), expr.Options{Now: c.now}); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	sp, err := programs(skeys, p.source)
	if err != nil {
		return err
	}
	tp, err := programs(tkeys, p.target)
	if err != nil {
		return err
	}
	first, next := map[string]int64{}, map[int64]int64{}
	err = p.eachKey(sp, full, func(i int, key []byte) error {
		o := int64(i)
		if was, ok := first[string(key)]; ok {
			next[o] = was
		}
		first[string(key)] = o
		return nil
	})
	if err != nil {
		return err
	}
	cols, pick := neededColumns(c.base.Schema(), append(slices.Clone(es), tkeys...)...)
	for b, err := range c.eng.Reader.Read(ctx, c.base.TableInfo(), p.files, ReadOptions{Columns: cols, WithPosition: true}) {
		if err != nil {
			return err
		}
		n := int(b.NumCols())
		fileAt, rowAt := b.Column(n-2).(*array.Int32), b.Column(n-1).(*array.Int64)
		wide := pick(b)
		var rows, src []int64
		flush := func() error {
			if len(rows) == 0 {
				return nil
			}
			stored, err := takeBatch(ctx, wide, rows)
			if err != nil {
				return err
			}
			defer stored.Release()
			err = p.decide(ctx, stored, side, src, func(i int) (int, int64) { return int(fileAt.Value(int(rows[i]))), rowAt.Value(int(rows[i])) })
			rows, src = rows[:0], src[:0]
			return err
		}
		err = p.eachKey(tp, wide, func(i int, key []byte) error {
			for o, ok := first[string(key)]; ok; o, ok = next[o] {
				rows, src = append(rows, int64(i)), append(src, o)
				if len(rows) >= mergeChunkPairs {
					if err := flush(); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err == nil {
			err = flush()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// eachKey calls f with the key of each row that has one: a null in a comparison by = equals nothing.
func (p *mergePlan) eachKey(progs []*expr.Program, b arrow.RecordBatch, f func(i int, key []byte) error) error {
	cols := make([]arrow.Array, len(progs))
	defer func() {
		for _, c := range cols {
			if c != nil {
				c.Release()
			}
		}
	}()
	for i, pr := range progs {
		a, err := pr.Eval(b)
		if err != nil {
			return fmt.Errorf("%s: %w", p.o.On, err)
		}
		cols[i] = a
	}
	var key []byte
next:
	for i := range int(b.NumRows()) {
		key = key[:0]
		for k, c := range cols {
			switch {
			case c.IsValid(i):
				key = append(key, 1)
				key = appendKey(key, c, i)
			case p.on.keys[k].nullSafe:
				key = append(key, 0)
			default:
				continue next
			}
		}
		if err := f(i, key); err != nil {
			return err
		}
	}
	return nil
}

// unique makes sure that at most one source row acts on a stored row, and orders the pairs by file and row.
func (p *mergePlan) unique(ctx context.Context) error {
	sort.Slice(p.pairs, func(i, j int) bool {
		a, b := p.pairs[i], p.pairs[j]
		if a.file != b.file {
			return a.file < b.file
		}
		if a.row != b.row {
			return a.row < b.row
		}
		return a.source < b.source
	})
	onlyDelete := len(p.matched) == 1 && p.matched[0].Delete && p.matched[0].cond == nil
	out := p.pairs[:0]
	for i, x := range p.pairs {
		if i > 0 {
			if last := out[len(out)-1]; last.file == x.file && last.row == x.row {
				if onlyDelete {
					continue
				}
				return p.ambiguous(ctx, last.source, x.source)
			}
		}
		out = append(out, x)
	}
	p.pairs = out
	return nil
}

func (p *mergePlan) ambiguous(ctx context.Context, a, b int64) error {
	var keys []string
	for _, k := range p.on.keys {
		if c, ok := k.source.(expr.Cast).Arg.(expr.Column); ok {
			keys = append(keys, c.Path[1])
		}
	}
	pair, err := sourcePair(ctx, p.mergeInto.source, p.schema, p.source.schema, keys, a, b)
	if err != nil {
		return err
	}
	return &MultipleSourceRowsError{On: p.o.On.String(), Key: pair.key, Source: pair.at, Rows: pair.rows}
}

// change marks the rows that matched clauses change, and makes the new ones.
func (p *mergePlan) change() error {
	c := p.c
	byClause := make([][]pair, len(p.matched))
	for _, x := range p.pairs {
		byClause[x.clause] = append(byClause[x.clause], x)
		mark(c.marks, canonicalPath(p.files[x.file].Add.Path), x.row)
	}
	for k, b := range p.matched {
		pairs := byClause[k]
		if len(pairs) == 0 {
			continue
		}
		before := p.storedOf(pairs)
		if b.Delete {
			c.matchDeleted += int64(len(pairs))
			c.told = append(c.told, rowChange{changeDelete, before})
			continue
		}
		c.matchUpdated += int64(len(pairs))
		after := &derivedRows{schema: c.info.Schema.Arrow(), n: int64(len(pairs))}
		if c.base.RowTracking() {
			after.schema = withIDField(after.schema, c.info.Config[propRowIDColumn])
		}
		after.read = func(ctx context.Context) iter.Seq2[arrow.RecordBatch, error] { return p.updated(ctx, pairs, b.assign) }
		c.out = append(c.out, after)
		c.told = append(c.told, rowChange{changePreimage, before}, rowChange{changePostimage, c.withoutIDs(after)})
	}
	return nil
}

// storedOf are the stored rows of pairs, which are in order of file and row.
func (p *mergePlan) storedOf(pairs []pair) Rows {
	files, hits := p.hits(pairs)
	return p.c.storedRows(files, hits)
}

func (p *mergePlan) hits(pairs []pair) (files []File, hits []*roaring64.Bitmap) {
	last := int32(-1)
	for _, x := range pairs {
		if x.file != last {
			files, hits = append(files, p.files[x.file]), append(hits, roaring64.New())
			last = x.file
		}
		hits[len(hits)-1].Add(uint64(x.row))
	}
	return files, hits
}

// updated yields the new rows of pairs.
func (p *mergePlan) updated(ctx context.Context, pairs []pair, as *assigner) iter.Seq2[arrow.RecordBatch, error] {
	c := p.c
	return func(yield func(arrow.RecordBatch, error) bool) {
		for from := 0; from < len(pairs); from += mergeChunkPairs {
			part := pairs[from:min(from+mergeChunkPairs, len(pairs))]
			b, err := p.updatedPart(ctx, c, part, as)
			if err != nil {
				yield(nil, err)
				return
			}
			ok := yield(b, nil)
			b.Release()
			if !ok {
				return
			}
		}
	}
}

func (p *mergePlan) updatedPart(ctx context.Context, c *change, part []pair, as *assigner) (arrow.RecordBatch, error) {
	files, hits := p.hits(part)
	info, reader, names := c.base.TableInfo(), c.eng.Reader, c.base.Schema().Names()
	if c.base.RowTracking() {
		wide, id, _, err := info.WithRowIDs()
		if err != nil {
			return nil, err
		}
		info, reader, names = wide, trackedReader{reader}, append(names, id.Name)
	}
	stored, _, err := readAt(ctx, reader, info, files, hits, names)
	if err != nil {
		return nil, err
	}
	defer stored.Release()
	var ids arrow.Array
	if c.base.RowTracking() {
		n := int(stored.NumCols()) - 1
		ids = stored.Column(n)
		stored = array.NewRecordBatch(arrow.NewSchema(stored.Schema().Fields()[:n], nil), stored.Columns()[:n], stored.NumRows())
		defer stored.Release()
	}
	ords := roaring64.New()
	for _, x := range part {
		ords.Add(uint64(x.source))
	}
	s, err := p.sourceRows(ctx, ords)
	if err != nil {
		return nil, err
	}
	defer s.Release()
	idx := make([]int64, len(part))
	for i, x := range part {
		idx[i] = int64(ords.Rank(uint64(x.source))) - 1
	}
	aligned, err := takeBatch(ctx, s, idx)
	if err != nil {
		return nil, err
	}
	defer aligned.Release()
	if ids == nil {
		return as.apply(ctx, beside(stored, aligned))
	}
	return withIDs(ids, c.info.Config[propRowIDColumn], func() (arrow.RecordBatch, error) { return as.apply(ctx, beside(stored, aligned)) })
}

// sourceRows reads all columns of source rows.
func (p *mergePlan) sourceRows(ctx context.Context, ords *roaring64.Bitmap) (arrow.RecordBatch, error) {
	names := make([]string, p.source.schema.NumFields())
	for i, f := range p.source.schema.Fields() {
		names[i] = f.Name
	}
	return readSource(ctx, p.mergeInto.source, p.schema, names, ords)
}

// insert finds the source rows that match nothing.
func (p *mergePlan) insert(ctx context.Context) error {
	if len(p.inserts) == 0 {
		return nil
	}
	c := p.c
	lists := make([]*roaring64.Bitmap, len(p.inserts))
	for i := range lists {
		lists[i] = roaring64.New()
	}
	var at int64
	for b, err := range p.mergeInto.source.Read(ctx, nil, nil) {
		if err != nil {
			return err
		}
		for i := range int(b.NumRows()) {
			o := uint64(at + int64(i))
			if p.matchedSource.Contains(o) {
				continue
			}
			k, err := firstClause(p.inserts, b, i)
			if err != nil {
				return err
			}
			if k >= 0 {
				lists[k].Add(o)
			}
		}
		at += b.NumRows()
	}
	for k, b := range p.inserts {
		n := int64(lists[k].GetCardinality())
		if n == 0 {
			continue
		}
		c.res.Inserted += n
		rows := &derivedRows{schema: c.info.Schema.Arrow(), n: n}
		rows.read = func(ctx context.Context) iter.Seq2[arrow.RecordBatch, error] {
			return assignEach(ctx, b.assign, p.mergeInto.source.Read(ctx, nil, lists[k]))
		}
		c.out = append(c.out, rows)
		c.told = append(c.told, rowChange{changeInsert, rows})
	}
	return nil
}

// assignEach makes table rows of each batch.
func assignEach(ctx context.Context, as *assigner, in iter.Seq2[arrow.RecordBatch, error]) iter.Seq2[arrow.RecordBatch, error] {
	return func(yield func(arrow.RecordBatch, error) bool) {
		for b, err := range in {
			if err == nil {
				b, err = as.apply(ctx, b)
			}
			if err != nil {
				yield(nil, err)
				return
			}
			ok := yield(b, nil)
			b.Release()
			if !ok {
				return
			}
		}
	}
}

// rest finds the rows of the table that match no source row and that a clause changes.
func (p *mergePlan) rest(ctx context.Context) error {
	if len(p.bySource) == 0 {
		return p.sum()
	}
	c := p.c
	matched := map[string]*roaring64.Bitmap{}
	for i, f := range p.files {
		matched[canonicalPath(f.Add.Path)] = p.matchedRows[i]
	}
	may := make([]Predicate, len(p.bySource))
	es := make([]expr.Expr, len(p.bySource))
	for i, b := range p.bySource {
		may[i], es[i] = And(), b.where
		if b.where != nil {
			may[i] = targetPredicate(b.where)
		}
	}
	files, err := c.base.load(ctx, c.base.Prune(Or(may...)))
	if err != nil || len(files) == 0 {
		return errors.Join(err, p.sum())
	}
	hits := make([][]*roaring64.Bitmap, len(p.bySource))
	for k := range hits {
		hits[k] = make([]*roaring64.Bitmap, len(files))
	}
	cols, pick := neededColumns(c.base.Schema(), es...)
	for b, err := range c.eng.Reader.Read(ctx, c.base.TableInfo(), files, ReadOptions{Columns: cols, WithPosition: true}) {
		if err != nil {
			return err
		}
		n := int(b.NumCols())
		fileAt, rowAt := b.Column(n-2).(*array.Int32), b.Column(n-1).(*array.Int64)
		wide := pick(b)
		for i := range int(b.NumRows()) {
			f, row := int(fileAt.Value(i)), uint64(rowAt.Value(i))
			path := canonicalPath(files[f].Add.Path)
			if m := matched[path]; m != nil && m.Contains(row) {
				continue
			}
			k, err := firstClause(p.bySource, wide, i)
			if err != nil {
				return err
			}
			if k < 0 {
				continue
			}
			if hits[k][f] == nil {
				hits[k][f] = roaring64.New()
			}
			hits[k][f].Add(row)
			mark(c.marks, path, int64(row))
		}
	}
	for k, b := range p.bySource {
		var some []File
		var rows []*roaring64.Bitmap
		for i, h := range hits[k] {
			if h != nil {
				some, rows = append(some, files[i]), append(rows, h)
			}
		}
		if len(some) == 0 {
			continue
		}
		before := c.storedRows(some, rows)
		n := before.NumRows()
		if b.Delete {
			c.restDeleted += n
			c.told = append(c.told, rowChange{changeDelete, before})
			continue
		}
		c.restUpdated += n
		after, err := c.changed(b.assign, some, rows)
		if err != nil {
			return err
		}
		c.out = append(c.out, after)
		c.told = append(c.told, rowChange{changePreimage, before}, rowChange{changePostimage, c.withoutIDs(after)})
	}
	return p.sum()
}

func (p *mergePlan) sum() error {
	c := p.c
	c.res.Updated, c.res.Deleted = c.matchUpdated+c.restUpdated, c.matchDeleted+c.restDeleted
	return nil
}

// clauseText is a clause as Spark's operationParameters have it.
type clauseText struct {
	Predicate  string `json:"predicate,omitempty"`
	ActionType string `json:"actionType"`
}

func (m *mergeInto) parameters() map[string]string {
	lists := map[ClauseKind][]clauseText{WhenMatched: {}, WhenNotMatched: {}, WhenNotMatchedBySource: {}}
	for _, c := range m.o.Clauses {
		t := clauseText{ActionType: "update"}
		switch {
		case c.Delete:
			t.ActionType = "delete"
		case c.Kind == WhenNotMatched:
			t.ActionType = "insert"
		}
		if c.Condition != nil {
			t.Predicate = c.Condition.String()
		}
		lists[c.Kind] = append(lists[c.Kind], t)
	}
	return map[string]string{
		"predicate":                    plainJSON([]string{m.o.On.String()}),
		"matchedPredicates":            plainJSON(lists[WhenMatched]),
		"notMatchedPredicates":         plainJSON(lists[WhenNotMatched]),
		"notMatchedBySourcePredicates": plainJSON(lists[WhenNotMatchedBySource]),
	}
}

// metrics are Spark's operationMetrics of a MERGE.
func (m *mergeInto) metrics(c *change) map[string]string {
	n := func(v int64) string { return strconv.FormatInt(v, 10) }
	r := &c.res
	return map[string]string{
		"numSourceRows":                          n(r.SourceRows),
		"numTargetRowsInserted":                  n(r.Inserted),
		"numTargetRowsUpdated":                   n(r.Updated),
		"numTargetRowsDeleted":                   n(r.Deleted),
		"numTargetRowsMatchedUpdated":            n(c.matchUpdated),
		"numTargetRowsMatchedDeleted":            n(c.matchDeleted),
		"numTargetRowsNotMatchedBySourceUpdated": n(c.restUpdated),
		"numTargetRowsNotMatchedBySourceDeleted": n(c.restDeleted),
		"numTargetRowsCopied":                    n(r.Copied),
		"numOutputRows":                          n(r.Inserted + r.Updated + r.Copied),
		"numTargetFilesAdded":                    n(int64(c.filesAdded)),
		"numTargetFilesRemoved":                  n(int64(c.filesRemoved)),
		"numTargetBytesAdded":                    n(c.bytesAdded),
		"numTargetBytesRemoved":                  n(c.bytesRemoved),
		"numTargetChangeFilesAdded":              n(int64(len(c.feedFiles))),
		"numTargetDeletionVectorsAdded":          n(int64(c.dvAdded + c.dvUpdated)),
		"numTargetDeletionVectorsUpdated":        n(int64(c.dvUpdated)),
		"numTargetDeletionVectorsRemoved":        n(int64(c.dvRemoved + c.dvUpdated)),
		"scanTimeMs":                             n(c.scan.Milliseconds()),
		"rewriteTimeMs":                          n(c.write.Milliseconds()),
		"executionTimeMs":                        n(c.t.opts.Clock().Sub(c.began).Milliseconds()),
	}
}

// hasRule reports whether a column that is not given gets a value: it is generated or has a default.
func hasRule(f Field) bool {
	return f.Metadata[metaGeneration] != nil || f.Metadata[metaDefault] != nil
}

const (
	metaGeneration = "delta.generationExpression"
	metaDefault    = "CURRENT_DEFAULT"
	metaIdentity   = "delta.identity.start"
)
