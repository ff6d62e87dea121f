package duckdb

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/pipeline"
)

// program is a plan as this engine runs it. It is the same for every file and batch; what differs (which raw fields
// exist, the file's name) enters when a part is rendered.
type program struct {
	plan    *pipeline.Plan
	columns []column
	fieldOf map[string]pipeline.Expr
}

// column is a declared column of the table.
type column struct {
	pipeline.Column
	kind kind
	// constant columns have one value for all records of a part; they are not stored with the rows.
	constant bool
}

// rule is one way for a row not to reach the table. Its number stands in the row's status.
type rule struct {
	name     string // as BadRow.Rule
	filter   bool   // the row is dropped, not quarantined
	fails    bool   // on_fail: fail
	column   int    // of casts and not-null checks; else -1
	expr     pipeline.Expr
	fromRaw  bool   // expr names raw fields, not columns
	text     string // SQL of a rule of the table, which expr is not
	describe string
}

// rulePrefixNotNull begins the names of rules that a null breaks.
const rulePrefixNotNull = "not_null:"

// statusLost marks rows that lost against another row of the epoch with the same key.
const statusLost = 65535

// Names inside a part's table. Raw names of files and columns never appear there, since DuckDB's names ignore case.
const (
	colStatus   = "s"
	colPosition = "p"
	colRecord   = "rec" // index in the records of AddRecords
	colOrigin   = "o"   // index in the origins of the part
	colDeleted  = "d"
	colUnknown  = "u" // name of a field that nothing refers to
	colGlobal   = "%gid"
)

func value(i int) string { return "v" + strconv.Itoa(i) }

func (e *Engine) program(plan *pipeline.Plan) (*program, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if p, ok := e.programs[plan]; ok {
		return p, nil
	}
	p, err := newProgram(plan)
	if err != nil {
		return nil, err
	}
	if len(e.programs) > 64 { // plans made on the fly must not pile up
		clear(e.programs)
	}
	e.programs[plan] = p
	return p, nil
}

func newProgram(plan *pipeline.Plan) (*program, error) {
	p := &program{plan: plan, fieldOf: map[string]pipeline.Expr{}}
	for _, f := range plan.Fields {
		p.fieldOf[strings.ToLower(f.Column)] = f.Expr
	}
	set := map[string]bool{}
	for _, s := range plan.Steps {
		for _, a := range s.Set {
			set[strings.ToLower(a.Column)] = true
		}
	}
	for _, c := range plan.Table.Columns {
		name := strings.ToLower(c.Name)
		p.columns = append(p.columns, column{
			Column:   c,
			kind:     kindOf(c.Type),
			constant: !set[name] && constantExpr(p.fieldOf[name]),
		})
	}
	for _, a := range plan.Fields {
		if p.index(a.Column) < 0 {
			return nil, fmt.Errorf("BUG: plan of source %s maps the unknown column %s", plan.Source.Name, a.Column)
		}
	}
	return p, nil
}

// constantExpr tells whether an expression has one value for all records of a file. nil is NULL.
func constantExpr(e pipeline.Expr) bool {
	constant := true
	pipeline.Walk(e, func(e pipeline.Expr) {
		switch e := e.(type) {
		case pipeline.Name:
			constant = false
		case pipeline.Call:
			if e.Func == "occurrence" {
				constant = false
			}
		case pipeline.Cast, pipeline.Case:
			constant = false // may fail, which is for a row's status to say
		}
	})
	return constant
}

func names(e pipeline.Expr) []string {
	var out []string
	seen := map[string]bool{}
	pipeline.Walk(e, func(e pipeline.Expr) {
		if n, ok := e.(pipeline.Name); ok && !seen[n.Name] {
			seen[n.Name] = true
			out = append(out, n.Name)
		}
	})
	return out
}

func (p *program) index(column string) int {
	for i, c := range p.columns {
		if strings.EqualFold(c.Name, column) {
			return i
		}
	}
	return -1
}

func (p *program) zone() string {
	if z := p.plan.Table.Timezone; z != nil {
		return z.String()
	}
	return "UTC"
}

// input describes the raw records that a part is made of.
type input struct {
	from     string            // SQL of the relation that has the raw fields
	fields   map[string]string // raw name -> its column in from
	name     string            // object key of the file, "" for streams
	position string            // SQL of the record's position in from; "" if it is the row's ordinal in the part's table
	records  bool              // from has the records of a stream, with colRecord and colOrigin, which the part's table keeps
	unknown  string            // SQL that is not null where a record has fields that nothing refers to
	// occurrence is the SQL of occurrence(); "" for streams, where it is 1.
	occurrence string
	reads      *rawReads // what of the raw fields the query reads is noted here; nil: all of them are columns of text
	ingestedAt time.Time // of the epoch
}

// rendering is the SQL that makes a part's table, and what its numbers mean.
type rendering struct {
	sql       string
	rules     []rule
	constants map[int]string // SQL of constant columns by index
}

// render writes the query that turns raw records into checked rows:
//
//	raw -> filter, fields -> casts -> step, casts -> step, casts … -> not-null checks, expectations
//
// Each arrow is a sub-query, so that no value is computed twice. The status s is the number of the first rule that the
// row broke, null if none; values that failed are null.
func (p *program) render(in input) (*rendering, error) {
	out := &rendering{constants: map[int]string{}}
	plan := p.plan
	addRule := func(r rule) int {
		out.rules = append(out.rules, r)
		return len(out.rules)
	}
	raw := &renderer{zone: p.zone(), fileName: path.Base(in.name), groups: plan.Source.FileGroups(in.name), occurrence: in.occurrence, reads: in.reads}
	raw.name = func(n string) (rendered, error) {
		if c, ok := in.fields[n]; ok {
			return rendered{value: c, kind: kindText, plain: true, field: n, isField: in.reads.readText(n)}, nil
		}
		return rendered{value: "CAST(NULL AS VARCHAR)", kind: kindText, plain: true}, nil
	}
	var keep []string
	if in.records {
		keep = append(keep, colRecord, colOrigin)
	}
	sel := slices.Clone(keep)
	if in.position != "" {
		keep = append(keep, colPosition)
	}
	status := "NULL" // status before the layer that is being written

	// Filter and fields.
	if in.position != "" {
		sel = append(sel, in.position+" AS "+colPosition)
	}
	var where string
	checks := statusChain{}
	if in.unknown != "" {
		checks.add(in.unknown+" IS NOT NULL", addRule(rule{name: ruleUnknown, column: -1, describe: "the record has a field to which nothing refers"}))
	}
	if plan.Filter != nil {
		f, err := raw.expr(plan.Filter)
		if err != nil {
			return nil, fmt.Errorf("filter: %w", err)
		}
		where = f.value
		if f.fail != "" {
			where = "(" + f.value + ") IS TRUE OR (" + f.fail + ")"
			checks.add(f.fail, addRule(rule{name: "filter", column: -1, expr: plan.Filter, fromRaw: true, describe: "the filter cannot be computed"}))
		}
	}
	mapped := make([]rendered, len(p.columns)) // the columns' values before their cast, as the next layer sees them
	for i, c := range p.columns {
		e := p.fieldOf[strings.ToLower(c.Name)]
		if e == nil {
			mapped[i] = rendered{value: "NULL", plain: true}
			if strings.EqualFold(c.Name, pipeline.ColumnIngestedAt) {
				mapped[i] = rendered{value: timestampSQL(in.ingestedAt), kind: kindTime, plain: true}
			}
			continue
		}
		x, err := raw.expr(e)
		if err != nil {
			return nil, fmt.Errorf("field %s: %w", c.Name, err)
		}
		if x.fail != "" {
			checks.add(x.fail, addRule(rule{name: "cast:" + c.Name, column: i, expr: e, fromRaw: true, describe: "is no " + typeName(c.Type)}))
		}
		if c.constant {
			mapped[i] = rendered{value: x.value, kind: x.kind, plain: true}
			continue
		}
		if n, ok := raw.native(x, c.Type, false); ok {
			failed := "x" + strconv.Itoa(i)
			sel = append(sel, n.value+" AS "+value(i), n.fail+" AS "+failed)
			mapped[i] = rendered{value: value(i), kind: c.kind, plain: true, failed: failed}
			continue
		}
		sel = append(sel, x.value+" AS "+value(i))
		mapped[i] = rendered{value: value(i), kind: x.kind, plain: true}
	}
	if plan.Delete != nil {
		d, err := raw.expr(plan.Delete)
		if err != nil {
			return nil, fmt.Errorf("delete: %w", err)
		}
		if d.fail != "" {
			checks.add(d.fail, addRule(rule{name: "delete", column: -1, expr: plan.Delete, fromRaw: true, describe: "delete cannot be computed"}))
		}
		sel = append(sel, "("+d.value+") IS TRUE AS "+colDeleted)
		keep = append(keep, colDeleted)
	}
	sel = append(sel, checks.sql(status)+" AS "+colStatus)
	query := "SELECT " + strings.Join(sel, ", ") + " FROM " + in.from
	if where != "" {
		query += " WHERE " + where
	}

	// layer puts a sub-query around the query: casts of mapped values to the columns' types.
	casts := func(changed func(i int) bool, exprOf func(i int) (pipeline.Expr, bool)) {
		r := &renderer{zone: p.zone()}
		sel := append([]string(nil), keep...)
		checks := statusChain{}
		for i, c := range p.columns {
			if c.constant {
				if changed(i) {
					y := r.cast(mapped[i], c.Type)
					if y.fail != "" {
						e, fromRaw := exprOf(i)
						checks.add(y.fail, addRule(rule{name: "cast:" + c.Name, column: i, expr: e, fromRaw: fromRaw, describe: "is no " + typeName(c.Type)}))
					}
					out.constants[i] = y.value
					mapped[i] = rendered{value: y.value, kind: c.kind, plain: true}
				}
				continue
			}
			x := mapped[i]
			if x.failed != "" {
				e, fromRaw := exprOf(i)
				sel = append(sel, x.failed)
				checks.add(x.failed, addRule(rule{name: "cast:" + c.Name, column: i, expr: e, fromRaw: fromRaw, describe: "is no " + typeName(c.Type)}))
			} else if changed(i) {
				y := r.cast(x, c.Type)
				if y.fail != "" {
					// The text stays beside the value for one layer, so that failing can be told from null.
					e, fromRaw := exprOf(i)
					sel = append(sel, x.value+" AS x"+strconv.Itoa(i))
					fail := value(i) + " IS NULL AND x" + strconv.Itoa(i) + " IS NOT NULL"
					if x.kind == kindText {
						fail += " AND " + notBlank("x"+strconv.Itoa(i))
					}
					checks.add(fail, addRule(rule{name: "cast:" + c.Name, column: i, expr: e, fromRaw: fromRaw, describe: "is no " + typeName(c.Type)}))
				}
				x = y
			}
			if x.value == value(i) {
				sel = append(sel, value(i))
			} else {
				sel = append(sel, x.value+" AS "+value(i))
			}
			mapped[i] = rendered{value: value(i), kind: c.kind, plain: true}
		}
		sel = append(sel, colStatus)
		query = "SELECT " + strings.Join(sel, ", ") + " FROM (" + query + ")"
		if len(checks) > 0 {
			sel = append([]string(nil), keep...)
			for i, c := range p.columns {
				if !c.constant {
					sel = append(sel, value(i))
				}
			}
			sel = append(sel, checks.sql(colStatus)+" AS "+colStatus)
			query = "SELECT " + strings.Join(sel, ", ") + " FROM (" + query + ")"
		}
	}
	casts(func(int) bool { return true }, func(i int) (pipeline.Expr, bool) {
		return p.fieldOf[strings.ToLower(p.columns[i].Name)], true
	})

	// Steps. From here on names are columns.
	cols := p.columnRenderer(func(i int) string {
		if s, ok := out.constants[i]; ok {
			return s
		}
		return value(i)
	})
	for n, step := range plan.Steps {
		checks := statusChain{}
		sel := append([]string(nil), keep...)
		changed := map[int]pipeline.Expr{}
		if step.Where != nil {
			w, err := cols.expr(step.Where)
			if err != nil {
				return nil, fmt.Errorf("transform step %d: %w", n+1, err)
			}
			if w.fail != "" {
				checks.add(w.fail, addRule(rule{name: "transform:" + strconv.Itoa(n+1), column: -1, expr: step.Where, describe: "the condition cannot be computed"}))
			}
			checks.add("("+w.value+") IS NOT TRUE", addRule(rule{name: "where", filter: true, column: -1, expr: step.Where}))
		}
		next := append([]rendered(nil), mapped...)
		for _, a := range step.Set {
			i := p.index(a.Column)
			if i < 0 {
				return nil, fmt.Errorf("BUG: transform step %d sets the unknown column %s", n+1, a.Column)
			}
			x, err := cols.expr(a.Expr)
			if err != nil {
				return nil, fmt.Errorf("transform step %d, %s: %w", n+1, a.Column, err)
			}
			if x.fail != "" {
				checks.add(x.fail, addRule(rule{name: "cast:" + p.columns[i].Name, column: i, expr: a.Expr, describe: "is no " + typeName(p.columns[i].Type)}))
			}
			changed[i] = a.Expr
			next[i] = x
		}
		for i, c := range p.columns {
			if c.constant {
				continue
			}
			if next[i].value == value(i) {
				sel = append(sel, value(i))
			} else {
				sel = append(sel, next[i].value+" AS "+value(i))
			}
			mapped[i] = rendered{value: value(i), kind: next[i].kind, plain: true}
		}
		sel = append(sel, checks.sql(colStatus)+" AS "+colStatus)
		query = "SELECT " + strings.Join(sel, ", ") + " FROM (" + query + ")"
		if len(changed) > 0 {
			casts(func(i int) bool { _, ok := changed[i]; return ok }, func(i int) (pipeline.Expr, bool) { return changed[i], false })
		}
	}

	// A table stores the empty value of a partition column as null (PROTOCOL.md, "Partition Value Serialization"): as a key it would
	// never be met again.
	sel = slices.Clone(keep)
	nulled := false
	for i, c := range p.columns {
		empty := map[kind]string{kindText: "''", kindBinary: "''::BLOB"}[c.kind]
		if !contains(plan.Table.PartitionBy, c.Name) {
			empty = ""
		}
		switch {
		case c.constant && empty != "":
			out.constants[i] = "NULLIF(" + out.constants[i] + ", " + empty + ")"
		case c.constant:
		case empty != "":
			nulled = true
			sel = append(sel, "NULLIF("+value(i)+", "+empty+") AS "+value(i))
		default:
			sel = append(sel, value(i))
		}
	}
	if nulled {
		query = "SELECT " + strings.Join(append(sel, colStatus), ", ") + " FROM (" + query + ")"
	}

	// Not-null checks and expectations.
	checks = statusChain{}
	for i, c := range p.columns {
		if c.NotNull || contains(plan.Table.Key, c.Name) {
			v := value(i)
			if s, ok := out.constants[i]; ok {
				v = s
			}
			checks.add(v+" IS NULL", addRule(rule{name: rulePrefixNotNull + c.Name, column: i, expr: p.fieldOf[strings.ToLower(c.Name)], fromRaw: true, describe: "is null"}))
		}
	}
	for i, c := range p.columns {
		if !contains(plan.Table.PartitionBy, c.Name) {
			continue
		}
		v := value(i)
		if s, ok := out.constants[i]; ok {
			v = s
		}
		switch c.kind {
		case kindText:
			v = "strlen(url_encode(" + v + "))"
		case kindBinary:
			v = "6 * octet_length(" + v + ")" // its text has four characters a byte, of which one is escaped
		default:
			continue
		}
		checks.add(v+" > "+strconv.Itoa(pipeline.PartitionValueMax(c.Name)), addRule(rule{name: "partition:" + c.Name, column: i, expr: pipeline.Name{Name: c.Name}, describe: "is too long for the name of a folder"}))
	}
	for _, x := range plan.Expect {
		if x.OnFail == pipeline.OnFailWarn {
			continue // counted in the end, for rows that are kept
		}
		v, err := cols.expr(x.Check)
		if err != nil {
			return nil, fmt.Errorf("expectation %s: %w", x.Name, err)
		}
		cond := "(" + v.value + ") IS NOT TRUE"
		if plan.Delete != nil {
			cond = "NOT " + colDeleted + " AND " + cond // a deletion has no values to expect anything of
		}
		checks.add(cond, addRule(rule{name: x.Name, column: -1, expr: x.Check, fails: x.OnFail == pipeline.OnFailFail, describe: "is not true"}))
	}
	sel = append([]string(nil), keep...)
	for i, c := range p.columns {
		if !c.constant {
			sel = append(sel, value(i))
		}
	}
	sel = append(sel, "CAST("+checks.sql(colStatus)+" AS USMALLINT) AS "+colStatus)
	out.sql = "SELECT " + strings.Join(sel, ", ") + " FROM (" + query + ")"
	return out, nil
}

// columnRenderer renders expressions over declared columns; sql gives a column's SQL.
func (p *program) columnRenderer(sql func(i int) string) *renderer {
	return &renderer{zone: p.zone(), name: func(n string) (rendered, error) {
		i := p.index(n)
		if i < 0 {
			return rendered{}, fmt.Errorf("BUG: unknown column %s", n)
		}
		return rendered{value: sql(i), kind: p.columns[i].kind, plain: true, typ: p.columns[i].Type}, nil
	}}
}

// statusChain is CASE WHEN … THEN number …: the first rule that a row broke.
type statusChain []string

func (s *statusChain) add(cond string, number int) {
	*s = append(*s, fmt.Sprintf("WHEN %s THEN %d", cond, number))
}

func (s statusChain) sql(before string) string {
	if len(s) == 0 {
		if before == "NULL" {
			return "CAST(NULL AS INTEGER)"
		}
		return before
	}
	chain := "CASE " + strings.Join(s, " ") + " END"
	if before == "NULL" {
		return chain
	}
	return "CASE WHEN " + before + " IS NOT NULL THEN " + before + " " + strings.Join(s, " ") + " END"
}

func contains(list []string, name string) bool {
	for _, s := range list {
		if strings.EqualFold(s, name) {
			return true
		}
	}
	return false
}

func typeName(t delta.Type) string { return strings.ToUpper(t.String()) }

// timestampSQL is a constant inside the engine.
func timestampSQL(t time.Time) string {
	return "make_timestamp(" + strconv.FormatInt(t.UnixMicro(), 10) + ")"
}
