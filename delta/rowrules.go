package delta

import (
	"context"
	"iter"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/cauce-data/cauce/delta/expr"
)

// RowRule is a rule of a table that each row keeps or breaks by itself.
type RowRule struct {
	Kind    RowRuleKind
	Name    string   // of the constraint; or the column, with the path inside of it
	SQL     string   // "" of NOT NULL
	Columns []string // of which it speaks
}

// RowRuleKind says what a RowRule is.
type RowRuleKind string

// Kinds of RowRules.
const (
	RuleNotNull   RowRuleKind = "NOT NULL"
	RuleCheck     RowRuleKind = ruleCheck
	RuleInvariant RowRuleKind = ruleInvariant
	RuleGenerated RowRuleKind = ruleGenerated
)

// BrokenRow is a row that breaks a rule.
type BrokenRow struct {
	Row  int64 // ordinal in the rows
	Rule RowRule
}

// RowRules tell beforehand which rows a table would refuse. Writing them is refused as a whole.
type RowRules struct {
	schema *Schema
	rules  *tableRules // nil: none
	now    expr.Timestamp
}

// RowRules are the rules of the table as the snapshot has it.
func (s *Snapshot) RowRules() (*RowRules, error) {
	r := &RowRules{schema: s.Schema(), now: expr.Timestamp(s.table.opts.Clock().UnixMicro())}
	var err error
	r.rules, err = rulesOf(s.table.opts.Engine.Expressions, r.schema, s.Metadata().Configuration, r.now)
	return r, err
}

// required are the columns of rows in which or inside of which a null could stand that the table forbids.
func (r *RowRules) required(rows *arrow.Schema) []Field {
	var out []Field
	for _, f := range r.schema.Fields {
		if i := fieldIndex(rows, f.Name); i >= 0 && (forbidsNulls(f.Type) || !f.Nullable && rows.Field(i).Nullable) {
			out = append(out, f)
		}
	}
	return out
}

// Concern tells whether rows of a schema could break a rule.
func (r *RowRules) Concern(rows *arrow.Schema) bool {
	return r.rules != nil && len(r.rules.must) > 0 || len(r.required(rows)) > 0
}

// Broken yields the rows that break a rule, each with the first that it breaks, by ascending ordinals. A rule that cannot be
// computed for a row is broken.
func (r *RowRules) Broken(ctx context.Context, rows Rows) iter.Seq2[BrokenRow, error] {
	return func(yield func(BrokenRow, error) bool) {
		if !r.Concern(rows.Schema()) {
			return
		}
		required := r.required(rows.Schema())
		rows, _, err := fit(rows, r.schema, growth{})
		if err == nil && r.rules != nil {
			rows, err = r.rules.fill(rows, r.now)
		}
		if err != nil {
			yield(BrokenRow{}, err)
			return
		}
		var columns []string
		if r.rules != nil {
			columns = r.rules.columns(rows.Schema())
		}
		for _, f := range required {
			if !slices.Contains(columns, f.Name) {
				columns = append(columns, f.Name)
			}
		}
		if len(columns) == 0 { // a rule without a column
			columns = []string{rows.Schema().Field(0).Name}
		}
		var at int64
		for b, err := range rows.Read(ctx, columns, nil) {
			if err != nil {
				yield(BrokenRow{}, err)
				return
			}
			wide := widePlaceholders(r.schema, b)
			for i := range int(b.NumRows()) {
				if rule, broken := r.first(required, wide, i); broken && !yield(BrokenRow{at + int64(i), rule}, nil) {
					return
				}
			}
			at += b.NumRows()
		}
	}
}

// first is the first rule that a row of a batch of the table's width breaks.
func (r *RowRules) first(required []Field, b arrow.RecordBatch, i int) (RowRule, bool) {
	for _, f := range required {
		c := named(b, f.Name)
		if c.IsNull(i) {
			if !f.Nullable {
				return RowRule{Kind: RuleNotNull, Name: f.Name, Columns: []string{f.Name}}, true
			}
		} else if path, found := nullInside(c, f.Type, i); found {
			return RowRule{Kind: RuleNotNull, Name: f.Name + path, Columns: []string{f.Name}}, true
		}
	}
	if r.rules == nil {
		return RowRule{}, false
	}
	m, _ := r.rules.broken(b, i)
	if m == nil {
		return RowRule{}, false
	}
	rule := RowRule{Kind: RowRuleKind(m.rule), Name: m.name, SQL: m.sql}
	for _, p := range expr.Columns(m.tree) {
		if !slices.Contains(rule.Columns, p[1]) {
			rule.Columns = append(rule.Columns, p[1])
		}
	}
	return rule, true
}
