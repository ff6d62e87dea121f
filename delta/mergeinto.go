package delta

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"

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
