package duckdb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cauce-data/cauce/delta"
)

// predicates gives for each table that the statement names (in lower case) the condition that any row it can use must
// meet; nil: every row may be used. A table named in several places gets the conditions of all of them, joined by OR.
//
// Only conditions of WHERE are used, in the SELECT that names the table. A condition that is not true for nulls may be
// applied to a table of an outer join too: the rows that it leaves out, and the null-extended rows that then take their
// place, both fail it in WHERE.
func (q *parsedQuery) predicates(ctx context.Context, c *conn, tables map[string]*QueryTable) (map[string]delta.Predicate, error) {
	out := map[string]delta.Predicate{}
	all := map[string]bool{}
	parts := map[string][]delta.Predicate{}
	for _, r := range q.refs {
		name := strings.ToLower(r.table)
		out[name] = nil
		if all[name] {
			continue
		}
		p, failed, err := r.predicate(ctx, c, tables, q.strict, q.names(tables))
		if err != nil {
			return nil, err
		}
		if failed {
			// A constant that cannot be evaluated is the statement's own error, to be reported when it runs. It may
			// have spoilt the transaction.
			for _, r := range q.refs {
				out[strings.ToLower(r.table)] = nil
			}
			return out, errors.Join(c.exec(ctx, "ROLLBACK"), c.exec(ctx, "BEGIN TRANSACTION"))
		}
		if p == nil {
			all[name] = true
			continue
		}
		parts[name] = append(parts[name], p)
	}
	for name, ps := range parts {
		if !all[name] {
			out[name] = delta.Or(ps...)
		}
	}
	return out, nil
}

func (r *tableRef) predicate(ctx context.Context, c *conn, tables map[string]*QueryTable, strict bool, named func(string) bool) (_ delta.Predicate, failed bool, _ error) {
	if r.selectNode == nil || !r.plainJoins {
		return nil, false, nil
	}
	where, ok := r.selectNode["where_clause"].(node)
	if !ok {
		return nil, false, nil
	}
	p := &pruner{ctx: ctx, conn: c, ref: r, tables: tables, strict: strict, named: named}
	pred := p.condition(where)
	return pred, p.failed, ctx.Err()
}

// pruner turns conditions on one table into a predicate that is implied by them.
type pruner struct {
	ctx    context.Context
	conn   *conn
	ref    *tableRef
	tables map[string]*QueryTable
	failed bool // a constant could not be evaluated
	strict bool // only constants that cost nothing are evaluated
	asked  int  // constants that DuckDB has evaluated
	// named tells whether the statement may mean a column by a name that DuckDB takes for a function where there is none.
	named func(name string) bool
}

// askedMax bounds the constants of a reference that DuckDB evaluates, with a statement or more for each: beyond them conditions
// choose no files.
const askedMax = 100

var comparisonOps = map[string]string{
	"COMPARE_EQUAL": "=", "COMPARE_NOTEQUAL": "<>", "COMPARE_LESSTHAN": "<", "COMPARE_LESSTHANOREQUALTO": "<=",
	"COMPARE_GREATERTHAN": ">", "COMPARE_GREATERTHANOREQUALTO": ">=",
}

var flipped = map[string]string{"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}

// condition gives a predicate that every row meets for which n can be true; nil where nothing can be said.
func (p *pruner) condition(n node) delta.Predicate {
	kind, _ := n["type"].(string)
	// A collation of one side is that of the whole comparison: values that are not the same are then equal, and in another order.
	if !strings.HasPrefix(kind, "CONJUNCTION_") && collated(n) {
		return nil
	}
	switch kind {
	case "CONJUNCTION_AND":
		var ps []delta.Predicate
		for _, ch := range list(n["children"]) {
			if q := p.condition(ch); q != nil {
				ps = append(ps, q)
			}
		}
		if len(ps) == 0 {
			return nil
		}
		return delta.And(ps...)
	case "CONJUNCTION_OR":
		var ps []delta.Predicate
		for _, ch := range list(n["children"]) {
			q := p.condition(ch)
			if q == nil {
				return nil
			}
			ps = append(ps, q)
		}
		return delta.Or(ps...)
	case "COMPARE_BETWEEN":
		input, _ := n["input"].(node)
		lower, _ := n["lower"].(node)
		upper, _ := n["upper"].(node)
		var ps []delta.Predicate
		if q := p.compare(">=", input, lower); q != nil {
			ps = append(ps, q)
		}
		if q := p.compare("<=", input, upper); q != nil {
			ps = append(ps, q)
		}
		if len(ps) == 0 {
			return nil
		}
		return delta.And(ps...)
	case "COMPARE_IN":
		children := list(n["children"])
		if len(children) < 2 {
			return nil
		}
		var ps []delta.Predicate
		for _, v := range children[1:] {
			q := p.compare("=", children[0], v)
			if q == nil {
				return nil
			}
			ps = append(ps, q)
		}
		return delta.Or(ps...)
	case "OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL":
		children := list(n["children"])
		if len(children) != 1 {
			return nil
		}
		f, ok := p.column(children[0])
		switch {
		case !ok:
			return nil
		case kind == "OPERATOR_IS_NOT_NULL":
			return delta.Not{Inner: delta.IsNull{Column: f.Name}}
		case p.ref.inner:
			return delta.IsNull{Column: f.Name}
		}
		return nil
	}
	if op, ok := comparisonOps[kind]; ok {
		left, _ := n["left"].(node)
		right, _ := n["right"].(node)
		if q := p.compare(op, left, right); q != nil {
			return q
		}
		return p.compare(flipped[op], right, left)
	}
	return nil
}

// collated reports whether a tree names a collation.
func collated(tree node) bool {
	return anyNode(tree, func(n node) bool {
		name, _ := n["collation"].(string)
		return n["class"] == "COLLATE" || name != ""
	})
}

// column finds the column of the pruned table that n names.
func (p *pruner) column(n node) (delta.Field, bool) {
	if n["type"] != "COLUMN_REF" {
		return delta.Field{}, false
	}
	names, _ := n["column_names"].([]any)
	var parts []string
	for _, v := range names {
		s, _ := v.(string)
		parts = append(parts, s)
	}
	t := p.tables[strings.ToLower(p.ref.table)]
	if t == nil {
		return delta.Field{}, false
	}
	switch len(parts) {
	case 1:
		f, ok := t.field(parts[0])
		if !ok || p.ref.alone {
			return f, ok
		}
		// Among several tables a bare name belongs to this one only if every other is known not to have it.
		for _, s := range p.ref.siblings {
			if s == p.ref {
				continue
			}
			other := p.tables[strings.ToLower(s.table)]
			if other == nil {
				return f, false
			}
			if _, has := other.Snapshot.Schema().Field(parts[0]); has {
				return f, false
			}
		}
		return f, len(p.ref.siblings) > 1 && p.onlyTables()
	case 2:
		if !strings.EqualFold(parts[0], p.ref.alias) {
			return delta.Field{}, false
		}
		for _, s := range p.ref.siblings { // the same alias twice would be ambiguous
			if s != p.ref && strings.EqualFold(s.alias, p.ref.alias) {
				return delta.Field{}, false
			}
		}
		return t.field(parts[1])
	}
	return delta.Field{}, false
}

// onlyTables reports whether the FROM of the reference holds base tables only, whose columns are known.
func (p *pruner) onlyTables() bool {
	from, _ := p.ref.selectNode["from_table"].(node)
	return baseTablesOnly(from)
}

func baseTablesOnly(n node) bool {
	switch n["type"] {
	case "BASE_TABLE":
		return absent(n["column_name_alias"])
	case "JOIN":
		left, _ := n["left"].(node)
		right, _ := n["right"].(node)
		return left != nil && right != nil && baseTablesOnly(left) && baseTablesOnly(right)
	}
	return false
}

// compare gives the predicate "column op value" where left is a column of the table and right a constant.
func (p *pruner) compare(op string, left, right node) delta.Predicate {
	f, ok := p.column(left)
	if !ok || right == nil {
		return nil
	}
	v, ok := p.constant(right, f.Type)
	if !ok {
		return nil
	}
	if v == nil { // nothing compares with null
		return delta.Or()
	}
	// A date column against an instant: the implied comparison with the instant's day.
	if t, isTime := v.(time.Time); isTime && f.Type == delta.Date {
		day := delta.Days(floorDiv(t.UnixMicro(), 86_400_000_000))
		switch op {
		case ">", ">=":
			return delta.Compare{Column: f.Name, Op: ">=", Value: day}
		case "<", "<=":
			return delta.Compare{Column: f.Name, Op: "<=", Value: day}
		case "=":
			return delta.Compare{Column: f.Name, Op: "=", Value: day}
		}
		return nil
	}
	return delta.Compare{Column: f.Name, Op: op, Value: v}
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// volatileFunctions give another value at each call.
var volatileFunctions = []string{"random", "uuid", "gen_random_uuid", "uuidv4", "uuidv7", "nextval", "currval", "setseed", "sleep_ms", "getvariable"}

// constant evaluates an expression that names no column of any table, as DuckDB does; ok is false for what is none, or
// has a type for which there is no sure comparison.
func (p *pruner) constant(n node, t delta.Type) (v any, ok bool) {
	if !constantTree(n, p.named) || p.strict && !cheapTree(n) {
		return nil, false
	}
	plainText := n["class"] == "CONSTANT"
	typ, text, isNull, ok := literalValue(n)
	if !ok && inexact(n) { // as SQL again it would be exact
		value, _ := n["value"].(node)
		number, plain := value["value"].(json.Number)
		f, err := number.Float64()
		return f, plain && err == nil && n["class"] == "CONSTANT" && exact(t) // the column's values become as inexact
	}
	if !ok {
		if p.asked++; p.asked > askedMax {
			return nil, false
		}
		sql, err := p.conn.expression(p.ctx, n)
		if err != nil {
			p.failed = true
			return nil, false
		}
		row, err := p.conn.one(p.ctx, "SELECT typeof(v), CASE typeof(v) WHEN 'TIMESTAMP' THEN coalesce(epoch_us(v::TIMESTAMP)::VARCHAR, v::VARCHAR) WHEN 'TIMESTAMP WITH TIME ZONE' THEN coalesce(epoch_us(v::TIMESTAMPTZ)::VARCHAR, v::VARCHAR) ELSE v::VARCHAR END FROM (SELECT "+sql+"\n AS v)")
		if err != nil || len(row) != 2 {
			p.failed = true
			return nil, false
		}
		typ, _ = row[0].(string)
		text, ok = row[1].(string)
		isNull = !ok
	}
	if isNull {
		return nil, true
	}
	switch {
	case typ == "VARCHAR" && plainText && t == delta.Date:
		// A text literal takes the type of the column that it is compared with.
		return p.days(text)
	case typ == "VARCHAR" && plainText && t == delta.Timestamp:
		if p.asked++; p.asked > askedMax {
			return nil, false
		}
		return p.instant(quoteText(text) + "::TIMESTAMPTZ")
	case typ == "VARCHAR":
		return text, t == delta.String
	case typ == "DATE":
		return p.days(text)
	case strings.HasPrefix(typ, "TIMESTAMP") && strings.HasSuffix(text, "infinity"): // before or after all times, and no number
		return nil, false
	case typ == "TIMESTAMP" && t == delta.Timestamp: // a wall clock becomes an instant in the zone of the session
		return p.instant("make_timestamp(" + text + ")::TIMESTAMPTZ")
	case typ == "TIMESTAMP WITH TIME ZONE" && t == delta.Date: // the days of the column begin in the zone of the session
		return p.instant("make_timestamptz(" + text + ")::TIMESTAMP")
	case typ == "TIMESTAMP" || typ == "TIMESTAMP WITH TIME ZONE":
		us, err := strconv.ParseInt(text, 10, 64)
		// The column's wall clocks become instants, whose order is another one where a zone has turned its clocks back.
		same := typ == "TIMESTAMP WITH TIME ZONE" && t == delta.Timestamp || typ == "TIMESTAMP" && t != delta.Timestamp || t == delta.TimestampNTZ && p.utc()
		return time.UnixMicro(us).UTC(), same && err == nil
	case typ == "BOOLEAN":
		return text == "true", t == delta.Boolean
	case slices.Contains(integerTypes, typ), strings.HasPrefix(typ, "DECIMAL"):
		return delta.Number(text), exact(t)
	}
	return nil, false
}

// exact reports whether a type is one of exact numbers.
func exact(t delta.Type) bool {
	_, dec := t.(delta.Decimal)
	return dec || t == delta.Long || t == delta.Integer || t == delta.Short || t == delta.Byte
}

// inexact reports whether a tree has a number such as 1e0, of which SQL that is made of the tree makes 1.0.
func inexact(tree node) bool {
	return anyNode(tree, func(n node) bool {
		of, _ := n["type"].(node)
		return of["id"] == "DOUBLE" || of["id"] == "FLOAT"
	})
}

// literalValue gives the type and text of what a statement says without an expression, as DuckDB would; ok is false for all else.
func literalValue(n node) (typ, text string, isNull, ok bool) {
	if n["class"] == "CAST" && n["try_cast"] != true {
		child, _ := n["child"].(node)
		to, _ := n["cast_type"].(node)
		from, text, _, ok := literalValue(child)
		typ, _ := to["id"].(string)
		bits := map[string]int{"SMALLINT": 16, "INTEGER": 32, "BIGINT": 64}[typ]
		switch {
		case !ok || from != "VARCHAR":
		case typ == "DATE":
			_, err := time.Parse(time.DateOnly, text)
			return typ, text, false, err == nil
		case bits > 0:
			v, err := strconv.ParseInt(text, 10, bits)
			return typ, text, false, err == nil && strconv.FormatInt(v, 10) == text
		}
		return "", "", false, false
	}
	if n["class"] != "CONSTANT" {
		return "", "", false, false
	}
	value, _ := n["value"].(node)
	of, _ := value["type"].(node)
	typ, _ = of["id"].(string)
	if value["is_null"] == true {
		return typ, "", true, true
	}
	switch v := value["value"].(type) {
	case nil: // trees may leave out what is empty
		return typ, "", false, typ == "VARCHAR"
	case string:
		return typ, v, false, typ == "VARCHAR"
	case bool:
		return typ, strconv.FormatBool(v), false, typ == "BOOLEAN"
	case json.Number:
		text = v.String()
		if typ != "DECIMAL" {
			return typ, text, false, slices.Contains(integerTypes, typ)
		}
		info, _ := of["type_info"].(node)
		scale, err := strconv.Atoi(fmt.Sprint(info["scale"]))
		if err != nil || scale == 0 {
			return typ, text, false, err == nil
		}
		digits, negative := strings.CutPrefix(text, "-")
		digits = strings.Repeat("0", max(0, scale+1-len(digits))) + digits
		at := len(digits) - scale
		return typ, map[bool]string{true: "-"}[negative] + digits[:at] + "." + digits[at:], false, true
	}
	return "", "", false, false
}

var integerTypes = []string{"TINYINT", "SMALLINT", "INTEGER", "BIGINT"}

func (p *pruner) days(text string) (any, bool) {
	if t, err := time.Parse(time.DateOnly, text); err == nil {
		return delta.Days(floorDiv(t.Unix(), 86_400)), true
	}
	if p.asked++; p.asked > askedMax {
		return nil, false
	}
	row, err := p.conn.one(p.ctx, "SELECT date_diff('day', DATE '1970-01-01', TRY_CAST("+quoteText(text)+" AS DATE))")
	if err != nil || len(row) != 1 {
		p.failed = true
		return nil, false
	}
	d, ok := row[0].(int64)
	return delta.Days(d), ok
}

// utc tells whether the session's zone is sure to be UTC.
func (p *pruner) utc() bool {
	is, err := p.conn.utc(p.ctx)
	p.failed = p.failed || err != nil
	return is
}

// utc tells whether the session's zone is sure to be UTC.
func (c *conn) utc(ctx context.Context) (bool, error) {
	row, err := c.one(ctx, "SELECT current_setting('TimeZone')")
	return err == nil && len(row) == 1 && row[0] == "UTC", err
}

// instant evaluates a timestamp; one without a zone is given as if its wall clock were that of UTC.
func (p *pruner) instant(sql string) (any, bool) {
	row, err := p.conn.one(p.ctx, "SELECT epoch_us("+sql+")")
	if err != nil || len(row) != 1 {
		p.failed = true
		return nil, false
	}
	us, ok := row[0].(int64)
	return time.UnixMicro(us).UTC(), ok
}

// names tells of a name whether the statement may mean a column by it: one of its tables has such a column, one of its parts
// gives something this name, or it reads what has columns that are not known here.
func (q *parsedQuery) names(tables map[string]*QueryTable) func(name string) bool {
	return func(name string) bool {
		for _, t := range tables {
			if _, has := t.Snapshot.Schema().Field(name); has {
				return true
			}
		}
		unknown := func(r *tableRef) bool { return tables[strings.ToLower(r.table)] == nil }
		other := func(s shippedName) bool { return s.relation.Snapshot == nil }
		return slices.ContainsFunc(q.refs, unknown) || slices.ContainsFunc(q.relations, other) || gives(q.node, name)
	}
}

// gives reports whether a name stands anywhere in a tree but where it means a column.
func gives(v any, name string) bool {
	switch v := v.(type) {
	case node:
		for k, e := range v {
			if k != "column_names" && (strings.EqualFold(k, name) || gives(e, name)) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, func(e any) bool { return gives(e, name) })
	case string:
		return strings.EqualFold(v, name)
	}
	return false
}

// constantTree reports whether an expression has no part that could be a column, a sub-query or a volatile function.
// A name that DuckDB takes for a function, such as current_date, is a constant.
func constantTree(v any, named func(name string) bool) bool {
	switch v := v.(type) {
	case node:
		switch v["class"] {
		case "COLUMN_REF":
			names, _ := v["column_names"].([]any)
			if len(names) != 1 {
				return false
			}
			s, _ := names[0].(string)
			switch strings.ToLower(s) {
			case "current_date", "current_timestamp", "localtimestamp", "today":
				return !named(s)
			}
			return false
		case "SUBQUERY", "PARAMETER", "WINDOW", "LAMBDA", "STAR", "POSITIONAL_REFERENCE", "DEFAULT":
			return false
		case "FUNCTION":
			if s, _ := v["function_name"].(string); slices.Contains(volatileFunctions, strings.ToLower(s)) {
				return false
			}
		}
		for _, e := range v {
			if !constantTree(e, named) {
				return false
			}
		}
	case []any:
		for _, e := range v {
			if !constantTree(e, named) {
				return false
			}
		}
	}
	return true
}

// cheapFunctions are what cheapTree lets pass: functions that make a value no larger than their arguments.
var cheapFunctions = []string{"+", "-", "now", "date_trunc", "to_days", "to_hours", "to_minutes", "to_seconds", "to_months", "to_quarters", "to_years", "to_weeks", "trunc",
	"strptime", "to_timestamp", "date_add", "last_day", "make_date", "make_timestamp", "today", "current_date", "current_timestamp", "get_current_timestamp", "current_localtimestamp", "date_part", "timezone", "lower", "upper"}

// cheapTree reports whether a constant may be evaluated in this process for a statement that is not trusted: it calls
// nothing that could take long or much.
func cheapTree(v any) bool {
	switch v := v.(type) {
	case node:
		if v["class"] == "FUNCTION" {
			if s, _ := v["function_name"].(string); !slices.Contains(cheapFunctions, strings.ToLower(s)) {
				return false
			}
		}
		for _, e := range v {
			if !cheapTree(e) {
				return false
			}
		}
	case []any:
		if len(v) > 100 {
			return false
		}
		for _, e := range v {
			if !cheapTree(e) {
				return false
			}
		}
	case string:
		return len(v) < 10_000
	}
	return true
}
