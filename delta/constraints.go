package delta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/cauce-data/cauce/delta/expr"
)

// ErrConstraint says that a row breaks a rule of the table (see ConstraintError).
var ErrConstraint = errors.New("row breaks a constraint of the table")

// ConstraintError says which rule a row breaks: a CHECK constraint, an invariant of a column, or the expression of a
// generated column (PROTOCOL.md, "CHECK Constraints", "Column Invariants", "Generated Columns"). A rule must be true;
// null breaks it too. It is Spark's DELTA_VIOLATE_CONSTRAINT_WITH_VALUES. errors.Is finds ErrConstraint.
type ConstraintError struct {
	Rule   string // "CHECK constraint", "invariant" or "generated column"
	Name   string // of the constraint, or the column
	SQL    string
	Row    int64  // ordinal in the rows that were to be written, from 0; -1: a row of the table
	Values string // of the columns that the rule is about
}

func (e *ConstraintError) Error() string {
	where := fmt.Sprintf("row %d", e.Row)
	if e.Row < 0 {
		where = "a row of the table"
	}
	return fmt.Sprintf("%s breaks %s %s (%s): %s", where, e.Rule, e.Name, e.SQL, e.Values)
}

// Is finds ErrConstraint.
func (e *ConstraintError) Is(target error) bool { return target == ErrConstraint }

const (
	constraintPrefix = "delta.constraints."
	metaInvariant    = "delta.invariants"
)

// ruleText is a rule of a table as its metadata has it.
type ruleText struct {
	rule, name, sql string
	column          int // of generated columns and defaults; -1
}

const (
	ruleCheck     = "CHECK constraint"
	ruleInvariant = "invariant"
	ruleGenerated = "generated column"
	ruleDefault   = "column default"
)

// ruleFeatures are the writer features under which rules must be kept.
var ruleFeatures = map[string]string{
	ruleCheck: "checkConstraints", ruleInvariant: "invariants", ruleGenerated: "generatedColumns", ruleDefault: "allowColumnDefaults",
}

// ruleTexts lists the rules of a table: CHECK constraints by name, then those of the columns.
func ruleTexts(s *Schema, config map[string]string) ([]ruleText, error) {
	var out []ruleText
	var names []string
	for k := range config {
		if strings.HasPrefix(k, constraintPrefix) {
			names = append(names, k)
		}
	}
	sort.Strings(names)
	for _, k := range names {
		out = append(out, ruleText{ruleCheck, strings.TrimPrefix(k, constraintPrefix), config[k], -1})
	}
	if s == nil {
		return out, nil
	}
	var bad error
	walkFields(s.Fields, func(f *Field) {
		if v, ok := f.Metadata[metaInvariant]; ok {
			text, _ := v.(string)
			var i struct {
				Expression struct {
					Expression string `json:"expression"`
				} `json:"expression"`
			}
			if err := json.Unmarshal([]byte(text), &i); err != nil {
				bad = fmt.Errorf("%w: invariant of column %q: %q: %w", ErrCorrupt, f.Name, text, err)
				return
			}
			out = append(out, ruleText{ruleInvariant, f.Name, i.Expression.Expression, -1})
		}
	})
	for i, f := range s.Fields {
		if v, ok := f.Metadata[metaGeneration].(string); ok {
			out = append(out, ruleText{ruleGenerated, f.Name, v, i})
		}
		if v, ok := f.Metadata[metaDefault].(string); ok {
			out = append(out, ruleText{ruleDefault, f.Name, v, i})
		}
	}
	return out, bad
}

// checkRules refuses rows of a table with rules for which there is no parser, or without a column that files could hold.
func checkRules(eng *Engine, p *Protocol, m *Metadata, s *Schema) error {
	if len(s.Fields) > 0 && !slices.ContainsFunc(s.Fields, func(f Field) bool { return f.Type != Void }) {
		return &UnsupportedError{What: "table whose columns are all of type", Names: []string{string(Void)}}
	}
	if eng.Expressions != nil {
		return nil
	}
	texts, err := ruleTexts(s, m.Configuration)
	if err != nil {
		return err
	}
	missing := map[string]bool{}
	for _, r := range texts {
		feature := ruleFeatures[r.rule]
		// Supported is not active, and active is not supported.
		if p.hasWriterFeature(feature) {
			missing[feature] = true
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return &UnsupportedError{What: "writer feature without an ExpressionParser in the Engine", Names: slices.Sorted(maps.Keys(missing))}
}

// tableRules are the rules of a table, bound to its schema.
type tableRules struct {
	schema   *Schema
	must     []boundRule // of which each must be true
	computed []boundRule // generated columns and defaults, by the order of the schema
}

type boundRule struct {
	ruleText
	tree expr.Expr     // qualified
	cond *expr.Program // of must: over rows with the table's width
}

// rulesOf reads and binds the rules of a table; nil if it has none.
func rulesOf(parser ExpressionParser, schema *Schema, config map[string]string, now expr.Timestamp) (*tableRules, error) {
	texts, err := ruleTexts(schema, config)
	if err != nil || len(texts) == 0 || parser == nil { // checkRules has refused what matters
		return nil, err
	}
	r := &tableRules{schema: schema}
	table := scope{tag: targetTag, schema: schema.Arrow()}
	for _, t := range texts {
		if t.sql == "" {
			return nil, fmt.Errorf("%w: %s %s has no expression", ErrCorrupt, t.rule, t.name)
		}
		tree, err := parser.ParseExpression(t.sql)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %s: %w", t.rule, t.name, t.sql, err)
		}
		b := boundRule{ruleText: t}
		if b.tree, err = qualify(tree, table); err != nil {
			return nil, fmt.Errorf("%s %s: %w", t.rule, t.name, err)
		}
		if t.column >= 0 {
			f := schema.Fields[t.column]
			if t.rule == ruleDefault && len(expr.Columns(b.tree)) > 0 {
				return nil, fmt.Errorf("%w: column default %s: %s names a column", expr.ErrType, t.name, t.sql)
			}
			if _, _, err := compileAssignment(b.tree, f.Type, now, table); err != nil {
				return nil, fmt.Errorf("%s %s: %w", t.rule, t.name, err)
			}
			r.computed = append(r.computed, b)
			if t.rule == ruleDefault {
				continue
			}
			b.tree = expr.NullSafeEq(expr.Column{Path: []string{targetTag, f.Name}}, b.tree)
		}
		if b.cond, err = compileCondition(b.tree, now, table); err != nil {
			return nil, fmt.Errorf("%s %s: %w", t.rule, t.name, err)
		}
		r.must = append(r.must, b)
	}
	return r, nil
}

// fill gives rows the generated columns and those with defaults that they lack.
func (r *tableRules) fill(rows Rows, now expr.Timestamp) (Rows, error) {
	have := rows.Schema()
	out := &filledRows{rows: rows}
	fields := slices.Clone(have.Fields())
	for _, b := range r.computed {
		f := r.schema.Fields[b.column]
		if fieldIndex(have, f.Name) >= 0 {
			continue
		}
		out.lacks = append(out.lacks, b)
		fields = append(fields, arrow.Field{Name: f.Name, Type: ArrowType(f.Type), Nullable: true})
	}
	if len(out.lacks) == 0 {
		return rows, nil
	}
	out.table, out.now = r.schema, now
	out.schema = arrow.NewSchema(fields, nil)
	return out, nil
}

// filledRows are rows with computed columns behind their own.
type filledRows struct {
	rows   Rows
	lacks  []boundRule
	table  *Schema
	now    expr.Timestamp
	schema *arrow.Schema
}

func (r *filledRows) Schema() *arrow.Schema { return r.schema }
func (r *filledRows) NumRows() int64        { return r.rows.NumRows() }

func (r *filledRows) UniqueBy(columns []string) bool {
	k, ok := r.rows.(KeyedRows)
	return ok && k.UniqueBy(columns)
}

func (r *filledRows) Read(ctx context.Context, columns []string, ordinals *roaring64.Bitmap) iter.Seq2[arrow.RecordBatch, error] {
	return func(yield func(arrow.RecordBatch, error) bool) {
		index, schema, err := projection(r.schema, columns)
		if err != nil {
			yield(nil, err)
			return
		}
		// What is read of the rows, and what is computed from it.
		own := r.rows.Schema()
		use := make([]bool, own.NumFields())
		compute := make([]*assigned, len(r.lacks))
		for _, j := range index {
			if j < own.NumFields() {
				use[j] = true
			}
		}
		var bind func(k int)
		bind = func(k int) {
			if compute[k] != nil {
				return
			}
			b := r.lacks[k]
			compute[k] = &assigned{text: b.sql}
			for _, p := range expr.Columns(b.tree) {
				if i := fieldIndex(own, p[1]); i >= 0 {
					use[i] = true
					continue
				}
				// A generated column may be about one with a default, which stands among the computed ones.
				for j, o := range r.lacks {
					if o.rule == ruleDefault && strings.EqualFold(o.name, p[1]) {
						bind(j)
					}
				}
			}
		}
		for _, j := range index {
			if j >= own.NumFields() {
				bind(j - own.NumFields())
			}
		}
		var inner []string
		for i, u := range use {
			if u {
				inner = append(inner, own.Field(i).Name)
			}
		}
		if len(inner) == 0 {
			inner = []string{own.Field(0).Name} // for the number of rows
		}
		table := scope{tag: targetTag, schema: r.table.Arrow()}
		for k := range r.lacks {
			if compute[k] == nil {
				continue
			}
			b := r.lacks[k]
			v, t, err := compileAssignment(b.tree, r.table.Fields[b.column].Type, r.now, table)
			if err != nil {
				yield(nil, fmt.Errorf("%s %s: %w", b.rule, b.name, err))
				return
			}
			compute[k].value, compute[k].typ = v, t
		}
		for b, err := range r.rows.Read(ctx, inner, ordinals) {
			if err != nil {
				yield(nil, err)
				return
			}
			out, err := r.compute(ctx, b, compute, index, schema)
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

func (r *filledRows) compute(ctx context.Context, b arrow.RecordBatch, compute []*assigned, index []int, schema *arrow.Schema) (arrow.RecordBatch, error) {
	wide := widePlaceholders(r.table, b)
	made := make([]arrow.Array, len(r.lacks))
	defer func() {
		for _, a := range made {
			if a != nil {
				a.Release()
			}
		}
	}()
	// Defaults first: generated columns may be about them.
	for _, rule := range []string{ruleDefault, ruleGenerated} {
		for k, c := range compute {
			if c == nil || r.lacks[k].rule != rule {
				continue
			}
			a, err := c.eval(ctx, wide)
			if err != nil {
				return nil, fmt.Errorf("%s %s: %w", rule, r.lacks[k].name, err)
			}
			made[k] = a
			wide = withColumn(wide, r.lacks[k].column, a)
		}
	}
	own := r.rows.Schema().NumFields()
	cols := make([]arrow.Array, len(index))
	for i, j := range index {
		if j >= own {
			cols[i] = made[j-own]
		} else {
			cols[i] = named(b, r.rows.Schema().Field(j).Name)
		}
	}
	fields := slices.Clone(schema.Fields())
	for i := range fields {
		fields[i].Type = cols[i].DataType()
	}
	return array.NewRecordBatch(arrow.NewSchema(fields, nil), cols, b.NumRows()), nil
}

// eval computes the column for a batch.
func (c *assigned) eval(ctx context.Context, b arrow.RecordBatch) (arrow.Array, error) {
	v, err := c.value.Eval(b)
	if err != nil || c.typ == nil {
		return v, err
	}
	defer v.Release()
	return mapNone.toType(ctx, v, c.typ)
}

// widePlaceholders puts the columns of a batch into the order and width of a table; those it lacks are null.
func widePlaceholders(s *Schema, b arrow.RecordBatch) arrow.RecordBatch {
	cols := make([]arrow.Array, len(s.Fields))
	fields := make([]arrow.Field, len(s.Fields))
	for i, f := range s.Fields {
		if cols[i] = named(b, f.Name); cols[i] == nil {
			cols[i] = nullColumn(f.Type, int(b.NumRows()))
		}
		fields[i] = arrow.Field{Name: f.Name, Type: cols[i].DataType(), Nullable: true}
	}
	return array.NewRecordBatch(arrow.NewSchema(fields, nil), cols, b.NumRows())
}

// withColumn is a batch with another column at a place.
func withColumn(b arrow.RecordBatch, at int, a arrow.Array) arrow.RecordBatch {
	cols, fields := slices.Clone(b.Columns()), slices.Clone(b.Schema().Fields())
	cols[at] = a
	fields[at].Type = a.DataType()
	return array.NewRecordBatch(arrow.NewSchema(fields, nil), cols, b.NumRows())
}

// verify makes sure that all rows but the skipped ones satisfy the rules, with the partition values that the table will have. What
// is generated is compared as it is.
func (r *tableRules) verify(ctx context.Context, rows Rows, skip *roaring64.Bitmap, partitionBy []string) error {
	if len(r.must) == 0 || rows.NumRows() == 0 {
		return nil
	}
	cols := r.columns(rows.Schema())
	if len(cols) == 0 {
		cols = []string{rows.Schema().Field(0).Name}
	}
	var stored []int
	for i, f := range r.schema.Fields {
		generated := slices.ContainsFunc(r.computed, func(b boundRule) bool { return b.rule == ruleGenerated && b.column == i })
		if !generated && slices.Contains(partitionBy, f.Name) {
			stored = append(stored, i)
		}
	}
	var at int64
	for b, err := range rows.Read(ctx, cols, nil) {
		if err != nil {
			return err
		}
		wide := widePlaceholders(r.schema, b)
		for _, i := range stored {
			wide = withColumn(wide, i, emptyAsNull(wide.Column(i)))
		}
		for i := range int(b.NumRows()) {
			o := at + int64(i)
			if skip != nil && skip.Contains(uint64(o)) {
				continue
			}
			if err := r.check(wide, i, o); err != nil {
				return err
			}
		}
		at += b.NumRows()
	}
	return nil
}

// columns are those of rows that the rules speak of.
func (r *tableRules) columns(rows *arrow.Schema) []string {
	use := map[string]bool{}
	for _, b := range r.must {
		for _, p := range expr.Columns(b.tree) {
			use[p[1]] = true
		}
	}
	var cols []string
	for _, f := range rows.Fields() {
		if tf, ok := r.schema.Field(f.Name); ok && use[tf.Name] {
			cols = append(cols, f.Name)
		}
	}
	return cols
}

// broken is the first rule that one row of a batch of the table's width breaks, nil if it keeps all. The error says that the rule
// cannot be computed for the row.
func (r *tableRules) broken(b arrow.RecordBatch, i int) (*boundRule, error) {
	for k := range r.must {
		m := &r.must[k]
		if ok, err := m.cond.True(b, i); err != nil || !ok {
			return m, err
		}
	}
	return nil, nil
}

// check evaluates the rules for one row of a batch of the table's width.
func (r *tableRules) check(b arrow.RecordBatch, i int, ordinal int64) error {
	m, err := r.broken(b, i)
	switch {
	case err != nil:
		return fmt.Errorf("%s %s (%s), row %d: %w", m.rule, m.name, m.sql, ordinal, err)
	case m == nil:
		return nil
	}
	var vals []string
	for _, p := range expr.Columns(m.tree) {
		v := "NULL"
		if c := named(b, p[1]); c.IsValid(i) {
			v = c.ValueStr(i)
		}
		vals = append(vals, p[1]+" = "+v)
	}
	return &ConstraintError{Rule: m.rule, Name: m.name, SQL: m.sql, Row: ordinal, Values: strings.Join(vals, ", ")}
}

// enforce prepares rows for being written: computed columns are filled in, and every rule is checked.
func enforce(ctx context.Context, eng Engine, info TableInfo, req *WriteRequest) error {
	now := expr.Timestamp(time.Now().UnixMicro())
	rules, err := rulesOf(eng.Expressions, info.Schema, info.Config, now)
	if err != nil || rules == nil {
		return err
	}
	if req.Rows, err = rules.fill(req.Rows, now); err != nil {
		return err
	}
	return rules.verify(ctx, req.Rows, req.Skip, info.PartitionBy)
}

// AddConstraint adds a CHECK constraint, in Spark's SQL, after making sure that every row of the table satisfies it
// (ErrConstraint if not). ErrProperty if the table has one of that name.
func (t *Table) AddConstraint(ctx context.Context, name, sql string) (Version, error) {
	return t.alterConstraint(ctx, name, func(s *Snapshot) (*alteration, error) {
		m := s.Metadata()
		key := constraintKey(m, name)
		if _, ok := m.Configuration[key]; ok {
			return nil, fmt.Errorf("%w: the table has a constraint %q already", ErrProperty, name)
		}
		if t.opts.Engine.Expressions == nil {
			return nil, &UnsupportedError{What: "constraint without an ExpressionParser in the Engine", Names: []string{name}}
		}
		rules, err := rulesOf(t.opts.Engine.Expressions, s.Schema(), map[string]string{key: sql}, 0)
		if err != nil {
			return nil, err
		}
		rules.must = slices.DeleteFunc(rules.must, func(b boundRule) bool { return b.rule != ruleCheck })
		cols, pick := neededColumns(s.Schema(), rules.must[0].tree)
		for b, err := range t.Scan(ctx, s, ScanOptions{Columns: cols}) {
			if err != nil {
				return nil, err
			}
			wide := pick(b)
			for i := range int(b.NumRows()) {
				if err := rules.check(wide, i, -1); err != nil {
					return nil, err
				}
			}
		}
		m.Configuration = maps.Clone(m.Configuration)
		m.Configuration[key] = sql
		return &alteration{operation: "ADD CONSTRAINT", params: map[string]string{"name": name, "expr": sql}, metadata: &m,
			protocol: s.protocol.raisedFor(&m, s.schema)}, nil
	})
}

// DropConstraint removes a CHECK constraint. ErrProperty if there is none and ifExists is false.
func (t *Table) DropConstraint(ctx context.Context, name string, ifExists bool) (Version, error) {
	return t.alterConstraint(ctx, name, func(s *Snapshot) (*alteration, error) {
		m := s.Metadata()
		key := constraintKey(m, name)
		if _, ok := m.Configuration[key]; !ok {
			if ifExists {
				return &alteration{}, nil
			}
			return nil, fmt.Errorf("%w: the table has no constraint %q", ErrProperty, name)
		}
		m.Configuration = maps.Clone(m.Configuration)
		delete(m.Configuration, key)
		return &alteration{operation: "DROP CONSTRAINT", params: map[string]string{"name": name}, metadata: &m}, nil
	})
}

// constraintKey is the property of a constraint; names compare in any case.
func constraintKey(m Metadata, name string) string {
	for k := range m.Configuration {
		if strings.EqualFold(k, constraintPrefix+name) {
			return k
		}
	}
	return constraintPrefix + strings.ToLower(name)
}

// alterConstraint commits a change of a constraint.
func (t *Table) alterConstraint(ctx context.Context, name string, plan func(*Snapshot) (*alteration, error)) (Version, error) {
	if name == "" {
		return 0, fmt.Errorf("%w: a constraint needs a name", ErrProperty)
	}
	res, err := t.alter(ctx, AlterOptions{}, func(s *Snapshot) (*alteration, error) {
		a, err := plan(s)
		if a != nil {
			a.readWhole = true
		}
		return a, err
	})
	if err != nil {
		return 0, err
	}
	return res.Version, nil
}

// startRules checks the rules of a new table.
func (t *Table) startRules(x *Tx, schema *Schema, config map[string]string) error {
	if err := checkRules(&t.opts.Engine, x.protocol, &Metadata{Configuration: config}, schema); err != nil {
		return err
	}
	_, err := rulesOf(t.opts.Engine.Expressions, schema, config, expr.Timestamp(t.opts.Clock().UnixMicro()))
	return err
}
