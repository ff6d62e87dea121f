package spark

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/pipeline"
)

// Columns that the driver's readers give each record beside its raw fields r0, r1 …, in the order of Program.RawFields.
const (
	colPosition   = "p"    // BIGINT
	colOrigin     = "o"    // STRING
	colGeneration = "g"    // BIGINT
	colFileName   = "fn"   // STRING: base name of the file
	colGroups     = "fg"   // MAP<STRING,STRING>: groups of from_filename
	colOccurrence = "occ"  // BIGINT
	colAt         = "at"   // TIMESTAMP: of the epoch
	colUnknown    = "u"    // STRING: name of a field to which nothing refers
	colStatus     = "s"    // INT: number of the first rule that the row broke, from 1; null: none
	colDeleted    = "d"    // BOOLEAN
	colHash       = "_row" // STRING: 16 hex digits of the row hash
)

// Rule names shared with engine/duckdb; they stand in quarantine.
const (
	ruleUnknown = "unknown_fields"
)

// Program is a plan as Spark SQL.
type Program struct {
	// Hash is that of the plan: pipeline.Plan.Hash.
	Hash string `json:"hash"`
	// RawFields are the plan's, and pipeline.RawUnknown where unknown fields are kept.
	RawFields []string `json:"raw_fields"`
	Required  []string `json:"required"`
	// UsesOccurrence and UsesUnknown say which of the readers' costly columns are looked at.
	UsesOccurrence bool `json:"uses_occurrence"`
	UsesUnknown    bool `json:"uses_unknown"`
	// Layers are applied one after the other: a condition, then the whole list of columns.
	Layers []Layer `json:"layers"`
	Rules  []Rule  `json:"rules"`
	Warn   []Warn  `json:"warn,omitempty"`
	// Final are the columns of the table, system columns included, of a row without status.
	Final []string `json:"final"`
	// RowHash is the row hash over Final's columns.
	RowHash string `json:"row_hash"`
	// Window orders the rows of one key, the winner first.
	Window []string `json:"window"`
}

// Layer is one SELECT.
type Layer struct {
	Where  string   `json:"where,omitempty"`
	Select []string `json:"select"`
}

// Rule is one way for a row not to reach the table.
type Rule struct {
	Name   string `json:"name"`
	Filter bool   `json:"filter,omitempty"` // the row is dropped, not quarantined
	Fails  bool   `json:"fails,omitempty"`  // on_fail: fail
	Reason string `json:"reason,omitempty"` // SQL of the reason
}

// Warn is an expectation with on_fail: warn; the column is true for rows that break it.
type Warn struct {
	Name   string `json:"name"`
	Column string `json:"column"`
}

// compiler writes the layers of one plan.
type compiler struct {
	plan    *pipeline.Plan
	zone    string
	out     *Program
	fieldOf map[string]pipeline.Expr
	mapped  []rendered // each column's value as the next layer sees it
	carry   []string   // columns that pass through every layer
	temps   int        // how many temporary columns there are
}

func valueOf(i int) string { return "v" + strconv.Itoa(i) }
func rawOf(i int) string   { return "r" + strconv.Itoa(i) }

// Compile renders a plan. It fails with ErrUnsupported where the plan uses what Spark's side does not have.
func Compile(plan *pipeline.Plan) (*Program, error) {
	c := &compiler{plan: plan, zone: "UTC", fieldOf: map[string]pipeline.Expr{},
		out: &Program{Hash: plan.Hash, RawFields: orEmpty(plan.RawFields), Required: orEmpty(plan.Required), Rules: []Rule{}}}
	if z := plan.Table.Timezone; z != nil {
		c.zone = z.String()
	}
	if plan.Table.TombstoneRetention > 0 {
		return nil, fmt.Errorf("%w: table %s has tombstone_retention: rows whose deletion may have been forgotten are kept out by cauce run only", ErrUnsupported, plan.Table.Name)
	}
	for _, col := range plan.Table.Columns {
		if kindOf(col.Type) == kindNested {
			return nil, fmt.Errorf("%w: column %s of table %s has the type %s", ErrUnsupported, col.Name, plan.Table.Name, strings.ToUpper(col.Type.String()))
		}
	}
	for _, f := range plan.Fields {
		c.fieldOf[strings.ToLower(f.Column)] = f.Expr
	}
	if plan.Source.UnknownFields == pipeline.UnknownKeep {
		c.out.RawFields = append(slices.Clone(c.out.RawFields), pipeline.RawUnknown)
	}
	c.out.UsesUnknown = plan.Source.UnknownFields == pipeline.UnknownQuarantine
	c.out.UsesOccurrence = usesOccurrence(plan)
	if err := c.fields(); err != nil {
		return nil, err
	}
	c.casts(func(int) bool { return true }, func(i int) (pipeline.Expr, bool) { return c.fieldOf[strings.ToLower(plan.Table.Columns[i].Name)], true })
	for n, step := range plan.Steps {
		if err := c.step(n, step); err != nil {
			return nil, err
		}
	}
	if err := c.checks(); err != nil {
		return nil, err
	}
	return c.out, c.finish()
}

func usesOccurrence(plan *pipeline.Plan) bool {
	found := false
	look := func(e pipeline.Expr) {
		pipeline.Walk(e, func(e pipeline.Expr) {
			if call, ok := e.(pipeline.Call); ok && call.Func == "occurrence" {
				found = true
			}
		})
	}
	look(plan.Filter)
	look(plan.Delete)
	for _, f := range plan.Fields {
		look(f.Expr)
	}
	return found
}

func names(e pipeline.Expr) []string {
	var out []string
	pipeline.Walk(e, func(e pipeline.Expr) {
		if n, ok := e.(pipeline.Name); ok && !slices.Contains(out, n.Name) {
			out = append(out, n.Name)
		}
	})
	return out
}

// status is CASE WHEN … THEN number …: the first rule that a row broke.
type status []string

func (s *status) add(cond string, number int) {
	*s = append(*s, fmt.Sprintf("WHEN %s THEN %d", cond, number))
}

func (s status) sql(before string) string {
	switch {
	case len(s) == 0:
		return before
	case before == "CAST(NULL AS INT)":
		return "CASE " + strings.Join(s, " ") + " END"
	}
	return "CASE WHEN " + before + " IS NOT NULL THEN " + before + " " + strings.Join(s, " ") + " END"
}

// layer adds a layer after those of the temporary columns that it names. in are the columns that it may name beside them.
func (c *compiler) layer(r *renderer, in []string, l Layer) {
	have := slices.Clone(in)
	for _, temps := range r.temps {
		c.out.Layers = append(c.out.Layers, Layer{Select: append(slices.Clone(have), temps...)})
		for _, t := range temps {
			have = append(have, t[strings.LastIndex(t, " AS ")+len(" AS "):])
		}
	}
	c.out.Layers = append(c.out.Layers, l)
}

func (c *compiler) rule(r Rule) int {
	c.out.Rules = append(c.out.Rules, r)
	return len(c.out.Rules)
}

// column gives the index of a declared column.
func (c *compiler) column(name string) int {
	return slices.IndexFunc(c.plan.Table.Columns, func(x pipeline.Column) bool { return strings.EqualFold(x.Name, name) })
}

func (c *compiler) rawRenderer() *renderer {
	return &renderer{zone: c.zone, next: &c.temps, name: func(n string) (rendered, error) {
		if i := slices.Index(c.out.RawFields, n); i >= 0 {
			return rendered{value: rawOf(i), kind: kindText}, nil
		}
		return rendered{value: "CAST(NULL AS STRING)", kind: kindText}, nil
	}}
}

func (c *compiler) columnRenderer() *renderer {
	return &renderer{zone: c.zone, next: &c.temps, name: func(n string) (rendered, error) {
		i := c.column(n)
		if i < 0 {
			return rendered{}, fmt.Errorf("BUG: unknown column %s", n)
		}
		typ := c.plan.Table.Columns[i].Type
		return rendered{value: valueOf(i), kind: kindOf(typ), typ: typ}, nil
	}}
}

const noStatus = "CAST(NULL AS INT)"

// fields writes the first layer: filter, fields, delete.
func (c *compiler) fields() error {
	plan, raw := c.plan, c.rawRenderer()
	for i := range c.out.RawFields {
		c.carry = append(c.carry, rawOf(i))
	}
	c.carry = append(c.carry, "meta", colPosition, colOrigin, colGeneration, colUnknown)
	sel := slices.Clone(c.carry)
	var checks status
	where := ""
	if c.out.UsesUnknown {
		checks.add(colUnknown+" IS NOT NULL", c.rule(Rule{Name: ruleUnknown,
			Reason: "concat('the record has the field ', cauce_quote(" + colUnknown + "), ', to which nothing refers')"}))
	}
	if plan.Filter != nil {
		f, err := raw.expr(plan.Filter)
		if err != nil {
			return fmt.Errorf("filter: %w", err)
		}
		where = "(" + f.value + ") IS TRUE"
		if f.fail != "" {
			where += " OR (" + f.fail + ")"
			checks.add(f.fail, c.rule(Rule{Name: "filter", Reason: c.reason("filter", -1, plan.Filter, true, "the filter cannot be computed")}))
		}
	}
	for i, col := range plan.Table.Columns {
		e := c.fieldOf[strings.ToLower(col.Name)]
		x := rendered{value: "NULL"}
		switch {
		case e != nil:
			var err error
			if x, err = raw.expr(e); err != nil {
				return fmt.Errorf("field %s: %w", col.Name, err)
			}
			if x.fail != "" {
				checks.add(x.fail, c.rule(Rule{Name: "cast:" + col.Name, Reason: c.reason("cast:"+col.Name, i, e, true, "is no "+typeName(col.Type))}))
			}
		case strings.EqualFold(col.Name, pipeline.ColumnIngestedAt):
			x = rendered{value: colAt, kind: kindTime}
		}
		if x.kind == kindNull {
			x.value = "CAST(" + x.value + " AS STRING)"
		}
		sel = append(sel, x.value+" AS "+valueOf(i))
		c.mapped = append(c.mapped, rendered{value: valueOf(i), kind: x.kind})
	}
	deleted := "false"
	if plan.Delete != nil {
		d, err := raw.expr(plan.Delete)
		if err != nil {
			return fmt.Errorf("delete: %w", err)
		}
		if d.fail != "" {
			checks.add(d.fail, c.rule(Rule{Name: "delete", Reason: c.reason("delete", -1, plan.Delete, true, "delete cannot be computed")}))
		}
		deleted = "(" + d.value + ") IS TRUE"
	}
	c.carry = append(c.carry, colDeleted)
	sel = append(sel, deleted+" AS "+colDeleted, checks.sql(noStatus)+" AS "+colStatus)
	c.layer(raw, []string{"*"}, Layer{Where: where, Select: sel})
	return nil
}

// casts writes the cast of changed columns to their types, and the layer that tells a failed cast from a null.
func (c *compiler) casts(changed func(i int) bool, exprOf func(i int) (pipeline.Expr, bool)) {
	r := &renderer{zone: c.zone, next: &c.temps}
	before := append(c.same(), colStatus)
	sel := slices.Clone(c.carry)
	var checks status
	for i, col := range c.plan.Table.Columns {
		x := c.mapped[i]
		if changed(i) {
			y := r.cast(x, col.Type)
			if y.fail != "" {
				e, fromRaw := exprOf(i)
				sel = append(sel, x.value+" AS x"+strconv.Itoa(i))
				fail := valueOf(i) + " IS NULL AND x" + strconv.Itoa(i) + " IS NOT NULL"
				if x.kind == kindText {
					fail += " AND " + notBlank("x"+strconv.Itoa(i))
				}
				checks.add(fail, c.rule(Rule{Name: "cast:" + col.Name, Reason: c.reason("cast:"+col.Name, i, e, fromRaw, "is no "+typeName(col.Type))}))
			}
			x = y
		}
		sel = append(sel, x.value+" AS "+valueOf(i))
		c.mapped[i] = rendered{value: valueOf(i), kind: kindOf(col.Type)}
	}
	c.layer(r, before, Layer{Select: append(sel, colStatus)})
	if len(checks) > 0 {
		c.out.Layers = append(c.out.Layers, Layer{Select: append(c.same(), checks.sql(colStatus)+" AS "+colStatus)})
	}
}

// same passes every column on.
func (c *compiler) same() []string {
	sel := slices.Clone(c.carry)
	for i := range c.plan.Table.Columns {
		sel = append(sel, valueOf(i))
	}
	return sel
}

func (c *compiler) step(n int, step pipeline.CompiledStep) error {
	cols := c.columnRenderer()
	sel := slices.Clone(c.carry)
	var checks status
	changed := map[int]pipeline.Expr{}
	if step.Where != nil {
		w, err := cols.expr(step.Where)
		if err != nil {
			return fmt.Errorf("transform step %d: %w", n+1, err)
		}
		if w.fail != "" {
			name := "transform:" + strconv.Itoa(n+1)
			checks.add(w.fail, c.rule(Rule{Name: name, Reason: c.reason(name, -1, step.Where, false, "the condition cannot be computed")}))
		}
		checks.add("("+w.value+") IS NOT TRUE", c.rule(Rule{Name: "where", Filter: true}))
	}
	next := slices.Clone(c.mapped)
	for _, a := range step.Set {
		i := c.column(a.Column)
		if i < 0 {
			return fmt.Errorf("BUG: transform step %d sets the unknown column %s", n+1, a.Column)
		}
		x, err := cols.expr(a.Expr)
		if err != nil {
			return fmt.Errorf("transform step %d, %s: %w", n+1, a.Column, err)
		}
		col := c.plan.Table.Columns[i]
		if x.fail != "" {
			checks.add(x.fail, c.rule(Rule{Name: "cast:" + col.Name, Reason: c.reason("cast:"+col.Name, i, a.Expr, false, "is no "+typeName(col.Type))}))
		}
		if x.kind == kindNull {
			x.value = "CAST(" + x.value + " AS STRING)"
		}
		changed[i], next[i] = a.Expr, x
	}
	for i := range c.plan.Table.Columns {
		sel = append(sel, next[i].value+" AS "+valueOf(i))
		c.mapped[i] = rendered{value: valueOf(i), kind: next[i].kind}
	}
	c.layer(cols, append(c.same(), colStatus), Layer{Select: append(sel, checks.sql(colStatus)+" AS "+colStatus)})
	if len(changed) > 0 {
		c.casts(func(i int) bool { _, ok := changed[i]; return ok }, func(i int) (pipeline.Expr, bool) { return changed[i], false })
	}
	return nil
}

// checks writes the not-null checks and the expectations.
func (c *compiler) checks() error {
	t, cols := c.plan.Table, c.columnRenderer()
	// A table stores the empty value of a partition column as null (PROTOCOL.md, "Partition Value Serialization"): as a key it would
	// never be met again.
	sel, nulled := slices.Clone(c.carry), false
	for i, col := range t.Columns {
		empty := map[kind]string{kindText: "''", kindBinary: "X''"}[kindOf(col.Type)]
		if empty == "" || !slices.ContainsFunc(t.PartitionBy, func(p string) bool { return strings.EqualFold(p, col.Name) }) {
			sel = append(sel, valueOf(i))
			continue
		}
		nulled = true
		sel = append(sel, "nullif("+valueOf(i)+", "+empty+") AS "+valueOf(i))
	}
	if nulled {
		c.out.Layers = append(c.out.Layers, Layer{Select: append(sel, colStatus)})
	}
	var checks status
	var warned []string
	for i, col := range t.Columns {
		isKey := slices.ContainsFunc(t.Key, func(k string) bool { return strings.EqualFold(k, col.Name) })
		if !col.NotNull && !isKey {
			continue
		}
		name := "not_null:" + col.Name
		checks.add(valueOf(i)+" IS NULL", c.rule(Rule{Name: name, Reason: c.reason(name, i, c.fieldOf[strings.ToLower(col.Name)], true, "is null")}))
	}
	for i, col := range t.Columns {
		if !slices.ContainsFunc(t.PartitionBy, func(p string) bool { return strings.EqualFold(p, col.Name) }) {
			continue
		}
		bytes := "octet_length(" + valueOf(i) + ")"
		switch kindOf(col.Type) {
		case kindText:
			bytes += " + 2 * octet_length(regexp_replace(" + valueOf(i) + ", '[A-Za-z0-9_.~-]', ''))"
		case kindBinary:
			bytes = "6 * " + bytes
		default:
			continue
		}
		name := "partition:" + col.Name
		checks.add(bytes+" > "+strconv.Itoa(pipeline.PartitionValueMax(col.Name)), c.rule(Rule{Name: name, Reason: c.reason(name, i, pipeline.Name{Name: col.Name}, false, "is too long for the name of a folder")}))
	}
	for _, x := range c.plan.Expect {
		v, err := cols.expr(x.Check)
		if err != nil {
			return fmt.Errorf("expectation %s: %w", x.Name, err)
		}
		cond := "(" + v.value + ") IS NOT TRUE"
		if c.plan.Delete != nil {
			cond = "NOT " + colDeleted + " AND " + cond // a deletion has no values to expect anything of
		}
		if x.OnFail == pipeline.OnFailWarn {
			warn := "w" + strconv.Itoa(len(c.out.Warn))
			c.out.Warn = append(c.out.Warn, Warn{Name: x.Name, Column: warn})
			warned = append(warned, cond+" AS "+warn)
			continue
		}
		checks.add(cond, c.rule(Rule{Name: x.Name, Fails: x.OnFail == pipeline.OnFailFail, Reason: c.reason(x.Name, -1, x.Check, false, "is not true")}))
	}
	c.layer(cols, append(c.same(), colStatus), Layer{Select: append(append(c.same(), warned...), checks.sql(colStatus)+" AS "+colStatus)})
	return nil
}

// reason is the SQL of what quarantine says of a row, in the very words of engine/duckdb: the values that the rule
// looked at, and what is wrong with them.
func (c *compiler) reason(rule string, column int, e pipeline.Expr, fromRaw bool, describe string) string {
	var vals []string
	for _, n := range names(e) {
		v := "CAST(NULL AS STRING)"
		if fromRaw {
			if i := slices.Index(c.out.RawFields, n); i >= 0 {
				v = rawOf(i)
			}
		} else if i := c.column(n); i >= 0 {
			v = shown(c.plan.Table.Columns[i].Type, valueOf(i))
		}
		vals = append(vals, "concat("+quoteText(n+" = ")+", coalesce(cauce_quote("+v+"), 'null'))")
	}
	list := "concat_ws(', ', " + strings.Join(vals, ", ") + ")"
	name, isNull := strings.CutPrefix(rule, "not_null:")
	switch {
	case isNull && len(vals) == 0:
		return quoteText(name + " is null")
	case isNull:
		return "concat(" + quoteText(name+" is null (") + ", " + list + ", ')')"
	case column < 0 && e != nil:
		text := c.ruleText(rule) + " " + describe
		if len(vals) == 0 {
			return quoteText(text)
		}
		return "concat(" + list + ", " + quoteText(": "+text) + ")"
	case len(vals) == 0:
		return quoteText(describe)
	}
	return "concat(" + list + ", " + quoteText(" "+describe) + ")"
}

// shown is a column's value as text for people.
func shown(t delta.Type, x string) string {
	switch kindOf(t) {
	case kindText:
		return x
	case kindDate:
		return dateText(x)
	case kindFloat:
		if t == delta.Float {
			return "cauce_float_text(CAST(" + x + " AS DOUBLE), true)"
		}
		return "cauce_float_text(" + x + ", false)"
	}
	return "CAST(" + x + " AS STRING)"
}

func (c *compiler) ruleText(rule string) string {
	for _, e := range c.plan.Table.Expect {
		if e.Name == rule {
			return e.Check
		}
	}
	return rule
}

func typeName(t delta.Type) string { return strings.ToUpper(t.String()) }

// finish writes the table's columns, the row hash and the winning order.
func (c *compiler) finish() error {
	t := c.plan.Table
	for i, col := range t.Columns {
		c.out.Final = append(c.out.Final, valueOf(i)+" AS "+quoteName(col.Name))
	}
	c.out.Final = append(c.out.Final,
		fmt.Sprintf("CAST(%d AS INT) AS %s", c.plan.Source.Rank, pipeline.ColumnRank),
		colGeneration+" AS "+pipeline.ColumnGeneration,
		colPosition+" AS "+pipeline.ColumnPosition,
		colOrigin+" AS "+pipeline.ColumnOrigin)
	if t.Deletes {
		c.out.Final = append(c.out.Final, colDeleted+" AS "+pipeline.ColumnDeleted)
	}
	for _, o := range t.Order() {
		if o.Column != "" {
			c.out.Window = append(c.out.Window, quoteName(o.Column)+" DESC NULLS LAST")
			continue
		}
		h, err := rowHash(t, o.HashOf, "")
		if err != nil {
			return err
		}
		c.out.RowHash = h
		c.out.Window = append(c.out.Window, colHash+" DESC")
	}
	return nil
}

// rowHash is the SQL of the first 16 hex digits of MD5 over the canonical text of the columns (docs/canonical-text.md).
func rowHash(t *pipeline.Table, columns []string, prefix string) (string, error) {
	cols := slices.Clone(columns)
	slices.Sort(cols)
	var parts []string
	for _, n := range cols {
		col, ok := t.Column(n)
		if !ok {
			return "", fmt.Errorf("BUG: unknown column %s", n)
		}
		text, err := canonical(col.Type, prefix+quoteName(col.Name))
		if err != nil {
			return "", err
		}
		parts = append(parts, "coalesce(concat("+quoteText(col.Name)+", '\x1f', "+text+", '\x1e'), '')")
	}
	if len(parts) == 0 {
		return "''", nil
	}
	return "left(md5(concat(" + strings.Join(parts, ", ") + ")), 16)", nil
}

// canonical is the SQL of a value's canonical text; null gives null.
func canonical(t delta.Type, x string) (string, error) {
	switch kindOf(t) {
	case kindText:
		return x, nil
	case kindDate:
		return dateText(x), nil
	case kindBool, kindInt, kindDecimal:
		return "CAST(" + x + " AS STRING)", nil
	case kindTime:
		return "CAST(unix_micros(" + x + ") AS STRING)", nil
	case kindWall:
		return "CAST(unix_micros(CAST(" + x + " AS TIMESTAMP)) AS STRING)", nil
	case kindBinary:
		return "lower(hex(" + x + "))", nil
	case kindFloat:
		return "CAST(CASE WHEN " + x + " IS NOT NULL THEN xxhash64(CAST(" + x + " AS DOUBLE)) END AS STRING)", nil
	}
	return "", fmt.Errorf("%w: the type %s", ErrUnsupported, t)
}
