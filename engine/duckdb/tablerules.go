package duckdb

import (
	"context"
	"fmt"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/pipeline"
)

// rulePrefixes begin the names under which quarantine has the rules of a table.
var rulePrefixes = map[delta.RowRuleKind]string{
	delta.RuleNotNull: rulePrefixNotNull, delta.RuleCheck: "check:", delta.RuleInvariant: "invariant:", delta.RuleGenerated: "generated:",
}

// judge marks the rows that the table would refuse. It comes before winners are looked for: a row that cannot be stored must not
// win against one that can.
func (x *epoch) judge(ctx context.Context, rel *relation, res *pipeline.EpochResult) error {
	if x.rules == nil || !x.rules.Concern(rel.Schema()) {
		return nil
	}
	if err := x.e.with(ctx, func(c *conn) error { return rel.exclude(ctx, c) }); err != nil {
		return err
	}
	rows := map[string][]int64{} // global ids by rule
	rules := map[string]rule{}
	for b, err := range x.rules.Broken(ctx, rel) {
		if err != nil {
			return err
		}
		name := rulePrefixes[b.Rule.Kind] + b.Rule.Name
		if _, known := rules[name]; !known {
			rules[name] = x.tableRule(name, b.Rule)
		}
		rows[name] = append(rows[name], rel.global(b.Row))
	}
	for name, ids := range rows {
		for _, p := range x.parts {
			p.r.rules = append(p.r.rules, rules[name])
		}
		if err := x.mark(ctx, ids, func(p *part) int { return len(p.r.rules) }); err != nil {
			return err
		}
		res.Quarantined += int64(len(ids))
	}
	if len(rows) == 0 {
		return nil
	}
	return x.e.with(ctx, func(c *conn) error { return rel.exclude(ctx, c) })
}

func (x *epoch) tableRule(name string, t delta.RowRule) rule {
	r := rule{name: name, column: -1, text: t.SQL, describe: "is not true"}
	if t.Kind == delta.RuleNotNull {
		r.describe = "is null"
		return r
	}
	var columns pipeline.Call
	for _, c := range t.Columns {
		if x.p.index(c) >= 0 {
			columns.Args = append(columns.Args, pipeline.Name{Name: c})
		}
	}
	r.expr = columns
	return r
}

// mark gives the rows with these global ids a status.
func (x *epoch) mark(ctx context.Context, ids []int64, status func(p *part) int) error {
	return x.e.with(ctx, func(c *conn) error {
		table := x.schema + ".marked"
		defer func() { _ = c.exec(context.WithoutCancel(ctx), "DROP TABLE IF EXISTS "+table) }()
		next := 0
		view := x.e.name("input_")
		if _, err := c.createFrom(ctx, table, "SELECT g FROM "+view, newIDReader(func() (int64, bool) {
			if next++; next > len(ids) {
				return 0, false
			}
			return ids[next-1], true
		}), view); err != nil {
			return err
		}
		return x.markFrom(ctx, c, table, status)
	})
}

// markFrom gives the rows whose global ids stand in a table a status.
func (x *epoch) markFrom(ctx context.Context, c *conn, table string, status func(p *part) int) error {
	for _, p := range x.parts {
		err := c.exec(ctx, fmt.Sprintf("UPDATE %s SET %s = %d WHERE rowid IN (SELECT g - %d FROM %s WHERE g >= %d AND g < %d)",
			p.table, colStatus, status(p), p.base, table, p.base, p.base+p.rows))
		if err != nil {
			return err
		}
	}
	return nil
}
