package delta

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sort"
	"strings"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/cauce-data/cauce/delta/expr"
)

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
