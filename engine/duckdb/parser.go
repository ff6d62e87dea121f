package duckdb

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/duckdb/duckdb-go/v2"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/pipeline"
)

// Parser turns SQL expressions into pipeline.Expr with DuckDB's own parser, so that what people type is the SQL they
// know. What the lake's language has no place for (sub-queries, windows, lambdas, parameters …) is refused here.
type Parser struct {
	mu     sync.Mutex
	engine *Engine
	conn   *conn
}

// NewParser starts a parser. It lives as long as the process and needs no closing; starting takes some 30 ms, the
// first time that something is parsed.
func NewParser() (*Parser, error) { return &Parser{}, nil }

// Close ends the parser's DuckDB.
func (p *Parser) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.engine == nil {
		return nil
	}
	_ = p.conn.release()
	err := p.engine.Close()
	p.engine, p.conn = nil, nil
	return err
}

const selectPrefix = "SELECT ("

// inExpression makes an error of the SELECT around an expression one of the expression.
func inExpression(err error, sql string) error {
	var s *pipeline.SyntaxError
	if errors.As(err, &s) && s.Offset >= 0 {
		if s.Offset -= len(selectPrefix); s.Offset >= len(sql) { // at the bracket behind it
			s.Msg = "the expression is incomplete"
		}
		s.Offset = min(max(s.Offset, 0), len(sql))
	}
	return err
}

// ParseExpr implements pipeline.Parser.
func (p *Parser) ParseExpr(sql string) (pipeline.Expr, error) {
	if strings.TrimSpace(sql) == "" {
		return nil, &pipeline.SyntaxError{Offset: -1, Msg: "the expression is empty"}
	}
	// The line break keeps a trailing comment from eating the bracket.
	tree, err := p.serialize(selectPrefix + sql + "\n)")
	if err != nil {
		return nil, inExpression(err, sql)
	}
	if len(tree.Statements) != 1 {
		return nil, &pipeline.SyntaxError{Offset: -1, Msg: "one expression is expected, not several statements"}
	}
	n := tree.Statements[0].Node
	if !plainSelect(n) {
		return nil, &pipeline.SyntaxError{Offset: -1, Msg: "an expression is expected, not a query"}
	}
	w := exprWalker{offset: len(selectPrefix), length: len(sql)}
	return w.expr(n.SelectList[0], 0)
}

func plainSelect(n *selectNode) bool {
	return n != nil && n.Type == "SELECT_NODE" && len(n.SelectList) == 1 && n.From != nil && n.From.Type == "EMPTY" &&
		isNull(n.Where) && isNull(n.Having) && isNull(n.Qualify) && len(n.Modifiers) == 0 && len(n.Groups) == 0
}

func isNull(m json.RawMessage) bool { return len(m) == 0 || string(m) == "null" }

type serialized struct {
	Error      bool   `json:"error"`
	Message    string `json:"error_message"`
	Position   string `json:"position"`
	Statements []struct {
		Node *selectNode `json:"node"`
	} `json:"statements"`
}

type selectNode struct {
	Type       string                 `json:"type"`
	SelectList []*exprNode            `json:"select_list"`
	From       *struct{ Type string } `json:"from_table"`
	Where      json.RawMessage        `json:"where_clause"`
	Having     json.RawMessage        `json:"having"`
	Qualify    json.RawMessage        `json:"qualify"`
	Modifiers  []json.RawMessage      `json:"modifiers"`
	Groups     []json.RawMessage      `json:"group_expressions"`
}

func (p *Parser) serialize(sql string) (*serialized, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ctx := context.Background()
	if err := p.open(ctx); err != nil {
		return nil, err
	}
	return p.conn.serialize(ctx, sql)
}

// open starts the parser's DuckDB at the first use. The caller holds mu.
func (p *Parser) open(ctx context.Context) error {
	if p.engine != nil {
		return nil
	}
	e, err := Open(Options{Threads: 1})
	if err != nil {
		return err
	}
	c, err := e.acquire(ctx)
	if err != nil {
		_ = e.Close()
		return err
	}
	p.engine, p.conn = e, c
	return nil
}

// Fits implements pipeline.Parser: the cast is the one that a run makes.
func (p *Parser) Fits(e pipeline.Expr, to delta.Type, zone string) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ctx := context.Background()
	r := &renderer{zone: zone}
	x, err := r.expr(e)
	if err != nil {
		return false, err
	}
	y := r.cast(x, to)
	if y.fail == "" {
		return true, nil
	}
	if err := p.open(ctx); err != nil {
		return false, err
	}
	row, err := p.conn.one(ctx, "SELECT ("+y.fail+") IS TRUE")
	if err != nil {
		return false, err
	}
	failed, _ := row[0].(bool)
	return !failed, nil
}

// ParseQuery implements pipeline.Parser: the statement passes the gate and is bound to empty tables of the relations'
// columns, so that what names nothing is found here.
func (p *Parser) ParseQuery(sql string, relations []pipeline.Relation) (_ *pipeline.Query, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ctx := context.Background()
	if err := p.open(ctx); err != nil {
		return nil, err
	}
	c := p.conn
	if err := c.exec(ctx, "BEGIN TRANSACTION"); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.exec(ctx, "ROLLBACK")) }()
	parsed, err := parseQuery(ctx, c, sql, nil)
	if err != nil {
		return nil, err
	}
	out := &pipeline.Query{}
	for _, r := range parsed.refs {
		out.Tables = append(out.Tables, r.table)
	}
	for _, r := range relations {
		columns := make([]string, len(r.Columns))
		for i, f := range r.Columns {
			columns[i] = quoteName(f.Name) + " " + sqlType(f.Type, false)
		}
		if err := c.exec(ctx, "CREATE TEMP TABLE "+quoteName(r.Name)+" ("+strings.Join(columns, ", ")+")"); err != nil {
			return nil, err
		}
	}
	rows, err := c.arrow(ctx, "SELECT * FROM ("+sql+"\n) LIMIT 0")
	if err != nil {
		var d *duckdb.Error
		if errors.As(err, &d) {
			first, _, _ := strings.Cut(d.Msg, "\n")
			return nil, &pipeline.SyntaxError{Offset: -1, Msg: first}
		}
		return nil, err
	}
	defer rows.Release()
	schema, err := delta.SchemaFromArrow(rows.Schema())
	if err != nil {
		return nil, fmt.Errorf("a column of its result: %w; cast it", err)
	}
	out.Columns = schema.Fields
	st, err := c.raw.PrepareContext(ctx, sql) // in a sub-query names that come twice are others
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	if stmt, ok := st.(*duckdb.Stmt); ok {
		for i := range out.Columns {
			if out.Columns[i].Name, err = stmt.ColumnName(i); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// serialize asks DuckDB's parser for the tree of SELECT statements.
func (c *conn) serialize(ctx context.Context, sql string) (*serialized, error) {
	row, err := c.one(ctx, "SELECT CAST(json_serialize_sql("+quoteText(sql)+") AS VARCHAR)")
	if err != nil {
		return nil, err
	}
	text, _ := row[0].(string)
	var s serialized
	if err := decodeTree(text, &s); err != nil {
		return nil, err
	}
	if s.Error {
		off := -1
		if n, err := strconv.Atoi(s.Position); err == nil {
			off = n
		}
		return nil, &pipeline.SyntaxError{Offset: off, Msg: s.Message}
	}
	return &s, nil
}

// exprNode is a parsed expression as json_serialize_sql writes it; only the fields of its class are set.
type exprNode struct {
	Class    string          `json:"class"`
	Type     string          `json:"type"`
	Alias    string          `json:"alias"`
	Location json.Number     `json:"query_location"`
	Names    []string        `json:"column_names"`
	Function string          `json:"function_name"`
	Schema   string          `json:"schema"`
	Children []*exprNode     `json:"children"`
	Filter   json.RawMessage `json:"filter"`
	Distinct bool            `json:"distinct"`
	OrderBys *struct {
		Orders []json.RawMessage `json:"orders"`
	} `json:"order_bys"`
	Left     *exprNode   `json:"left"`
	Right    *exprNode   `json:"right"`
	Child    *exprNode   `json:"child"`
	CastType *typeNode   `json:"cast_type"`
	TryCast  bool        `json:"try_cast"`
	Checks   []caseCheck `json:"case_checks"`
	Else     *exprNode   `json:"else_expr"`
	Input    *exprNode   `json:"input"`
	Lower    *exprNode   `json:"lower"`
	Upper    *exprNode   `json:"upper"`
	Value    *valueNode  `json:"value"`
}

type caseCheck struct {
	When *exprNode `json:"when_expr"`
	Then *exprNode `json:"then_expr"`
}

type typeNode struct {
	ID   string `json:"id"`
	Info *struct {
		Type   string    `json:"type"`
		Width  int       `json:"width"`
		Scale  int       `json:"scale"`
		Name   string    `json:"name"`
		Child  *typeNode `json:"child_type"`
		Fields []struct {
			First  string    `json:"first"`
			Second *typeNode `json:"second"`
		} `json:"child_types"`
	} `json:"type_info"`
}

type valueNode struct {
	Type   typeNode        `json:"type"`
	IsNull bool            `json:"is_null"`
	Value  json.RawMessage `json:"value"`
}

// exprWalker turns the tree into pipeline's, refusing what has no place there.
type exprWalker struct {
	offset int // of the expression in the statement
	length int
	// delta leaves apart what delta's expressions can say and pipeline's cannot: the names of a path, separated by zero
	// bytes, and <=>.
	delta bool
}

func (w exprWalker) refuse(n *exprNode, format string, args ...any) error {
	off := -1
	if n != nil {
		if v, err := strconv.ParseInt(n.Location.String(), 10, 64); err == nil && v >= int64(w.offset) && v <= int64(w.offset+w.length) {
			off = int(v) - w.offset
		}
	}
	return &pipeline.SyntaxError{Offset: off, Msg: fmt.Sprintf(format, args...)}
}

// exprDepthMax keeps a hostile expression from exhausting the stack.
const exprDepthMax = 400

var comparisons = map[string]string{
	"COMPARE_EQUAL": "=", "COMPARE_NOTEQUAL": "<>", "COMPARE_LESSTHAN": "<", "COMPARE_LESSTHANOREQUALTO": "<=",
	"COMPARE_GREATERTHAN": ">", "COMPARE_GREATERTHANOREQUALTO": ">=",
}

var operatorNames = map[string]string{"~~": "like", "+": "+", "-": "-", "*": "*", "/": "/", "%": "%", "||": "||"}

func (w exprWalker) expr(n *exprNode, depth int) (pipeline.Expr, error) {
	if n == nil {
		return nil, w.refuse(nil, "the expression is incomplete")
	}
	if depth > exprDepthMax {
		return nil, w.refuse(n, "the expression is nested too deeply")
	}
	if n.Alias != "" {
		return nil, w.refuse(n, "a name (%s) has no place inside an expression", n.Alias)
	}
	switch n.Class {
	case "COLUMN_REF":
		if w.delta {
			return pipeline.Name{Name: strings.Join(n.Names, "\x00")}, nil
		}
		return pipeline.Name{Name: strings.Join(n.Names, ".")}, nil
	case "CONSTANT":
		return w.constant(n, n.Value)
	case "COMPARISON":
		return w.comparison(n, depth)
	case "CONJUNCTION":
		f := "and"
		if n.Type == "CONJUNCTION_OR" {
			f = "or"
		}
		args, err := w.list(n.Children, depth)
		if err != nil {
			return nil, err
		}
		// Two arguments each, so that nobody else must know that DuckDB flattens them.
		e := args[0]
		for _, a := range args[1:] {
			e = pipeline.Call{Func: f, Args: []pipeline.Expr{e, a}}
		}
		return e, nil
	case "OPERATOR":
		return w.operator(n, depth)
	case "BETWEEN":
		in, err := w.list([]*exprNode{n.Input, n.Lower, n.Upper}, depth)
		if err != nil {
			return nil, err
		}
		return pipeline.Call{Func: "and", Args: []pipeline.Expr{
			pipeline.Call{Func: ">=", Args: []pipeline.Expr{in[0], in[1]}},
			pipeline.Call{Func: "<=", Args: []pipeline.Expr{in[0], in[2]}},
		}}, nil
	case "CAST":
		return w.cast(n, depth)
	case "CASE":
		return w.caseExpr(n, depth)
	case "FUNCTION":
		return w.function(n, depth)
	case "SUBQUERY":
		return nil, w.refuse(n, "a sub-query has no place in an expression")
	case "WINDOW":
		return nil, w.refuse(n, "a window function has no place in an expression: each record stands alone")
	case "LAMBDA":
		return nil, w.refuse(n, "a lambda has no place in an expression")
	case "PARAMETER":
		return nil, w.refuse(n, "a parameter has no place in an expression")
	case "STAR":
		return nil, w.refuse(n, "* has no place in an expression: name the field")
	}
	return nil, w.refuse(n, "this kind of expression (%s) is not supported", strings.ToLower(n.Class))
}

func (w exprWalker) list(ns []*exprNode, depth int) ([]pipeline.Expr, error) {
	out := make([]pipeline.Expr, 0, len(ns))
	for _, n := range ns {
		e, err := w.expr(n, depth+1)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

func (w exprWalker) comparison(n *exprNode, depth int) (pipeline.Expr, error) {
	// "x IS TRUE" comes as CAST(x AS BOOLEAN) IS NOT DISTINCT FROM true.
	if n.Type == "COMPARE_NOT_DISTINCT_FROM" || n.Type == "COMPARE_DISTINCT_FROM" {
		args, err := w.list([]*exprNode{n.Left, n.Right}, depth)
		if err != nil {
			return nil, err
		}
		same := nullSafeEqual(args[0], args[1])
		if w.delta {
			same = pipeline.Call{Func: "<=>", Args: args}
		}
		if n.Type == "COMPARE_DISTINCT_FROM" {
			return pipeline.Call{Func: "not", Args: []pipeline.Expr{same}}, nil
		}
		return same, nil
	}
	f, ok := comparisons[n.Type]
	if !ok {
		return nil, w.refuse(n, "this comparison (%s) is not supported", strings.ToLower(strings.TrimPrefix(n.Type, "COMPARE_")))
	}
	args, err := w.list([]*exprNode{n.Left, n.Right}, depth)
	if err != nil {
		return nil, err
	}
	return pipeline.Call{Func: f, Args: args}, nil
}

// nullSafeEqual is a IS NOT DISTINCT FROM b in the smaller language.
func nullSafeEqual(a, b pipeline.Expr) pipeline.Expr {
	is := func(x pipeline.Expr) pipeline.Expr { return pipeline.Call{Func: "is null", Args: []pipeline.Expr{x}} }
	isNot := func(x pipeline.Expr) pipeline.Expr {
		return pipeline.Call{Func: "is not null", Args: []pipeline.Expr{x}}
	}
	return pipeline.Case{Whens: []pipeline.When{
		{Cond: pipeline.Call{Func: "and", Args: []pipeline.Expr{isNot(a), isNot(b)}}, Then: pipeline.Call{Func: "=", Args: []pipeline.Expr{a, b}}},
	}, Else: pipeline.Call{Func: "and", Args: []pipeline.Expr{is(a), is(b)}}}
}

func (w exprWalker) operator(n *exprNode, depth int) (pipeline.Expr, error) {
	args, err := w.list(n.Children, depth)
	if err != nil {
		return nil, err
	}
	switch n.Type {
	case "OPERATOR_IS_NULL":
		return pipeline.Call{Func: "is null", Args: args}, nil
	case "OPERATOR_IS_NOT_NULL":
		return pipeline.Call{Func: "is not null", Args: args}, nil
	case "OPERATOR_NOT":
		return pipeline.Call{Func: "not", Args: args}, nil
	case "OPERATOR_COALESCE":
		return pipeline.Call{Func: "coalesce", Args: args}, nil
	case "COMPARE_IN":
		return pipeline.Call{Func: "in", Args: args}, nil
	case "COMPARE_NOT_IN":
		return pipeline.Call{Func: "not", Args: []pipeline.Expr{pipeline.Call{Func: "in", Args: args}}}, nil
	}
	return nil, w.refuse(n, "this operator (%s) is not supported", strings.ToLower(strings.TrimPrefix(n.Type, "OPERATOR_")))
}

func (w exprWalker) cast(n *exprNode, depth int) (pipeline.Expr, error) {
	t, err := w.castType(n, n.CastType)
	if err != nil {
		return nil, err
	}
	// TRUE and FALSE come as CAST('t' AS BOOLEAN).
	if c := n.Child; t == "boolean" && c != nil && c.Class == "CONSTANT" && c.Value != nil && !c.Value.IsNull && c.Value.Type.ID == "VARCHAR" {
		switch string(c.Value.Value) {
		case `"t"`:
			return pipeline.Literal{Value: true}, nil
		case `"f"`:
			return pipeline.Literal{Value: false}, nil
		}
	}
	arg, err := w.expr(n.Child, depth+1)
	if err != nil {
		return nil, err
	}
	return pipeline.Cast{Arg: arg, Type: t, Try: n.TryCast}, nil
}

var castTypes = map[string]string{
	"BOOLEAN": "boolean", "TINYINT": "byte", "SMALLINT": "short", "INTEGER": "integer", "BIGINT": "long",
	"FLOAT": "float", "DOUBLE": "double", "VARCHAR": "string", "BLOB": "binary", "DATE": "date",
	// Delta's timestamp is an instant; SQL's TIMESTAMP in a lake file means it too, as in Spark.
	"TIMESTAMP": "timestamp", "TIMESTAMP WITH TIME ZONE": "timestamp",
}

// userTypes are type names that DuckDB's parser does not know itself.
var userTypes = map[string]string{
	"long": "long", "string": "string", "byte": "byte", "short": "short", "binary": "binary",
	"timestamp_ntz": "timestamp_ntz", "timestampntz": "timestamp_ntz", "timestamptz": "timestamp",
}

func (w exprWalker) castType(n *exprNode, t *typeNode) (string, error) {
	if t == nil {
		return "", w.refuse(n, "the type of the cast is missing")
	}
	if s, ok := castTypes[t.ID]; ok {
		return s, nil
	}
	switch {
	case t.ID == "DECIMAL" && t.Info != nil:
		return fmt.Sprintf("decimal(%d,%d)", t.Info.Width, t.Info.Scale), nil
	case t.ID == "DECIMAL":
		return "", w.refuse(n, "a DECIMAL needs precision and scale, such as DECIMAL(18,8)")
	case t.Info != nil && t.Info.Name != "":
		if s, ok := userTypes[strings.ToLower(t.Info.Name)]; ok {
			return s, nil
		}
		return "", w.refuse(n, "unknown type %s", t.Info.Name)
	}
	return "", w.refuse(n, "type %s is not supported in a cast", t.ID)
}

func (w exprWalker) caseExpr(n *exprNode, depth int) (pipeline.Expr, error) {
	var c pipeline.Case
	for _, k := range n.Checks {
		pair, err := w.list([]*exprNode{k.When, k.Then}, depth)
		if err != nil {
			return nil, err
		}
		c.Whens = append(c.Whens, pipeline.When{Cond: pair[0], Then: pair[1]})
	}
	if n.Else != nil {
		e, err := w.expr(n.Else, depth+1)
		if err != nil {
			return nil, err
		}
		if l, ok := e.(pipeline.Literal); !ok || l.Value != nil {
			c.Else = e
		}
	}
	return c, nil
}

func (w exprWalker) function(n *exprNode, depth int) (pipeline.Expr, error) {
	switch {
	case !isNull(n.Filter):
		return nil, w.refuse(n, "FILTER has no place in an expression")
	case slices.Contains([]string{"list_value", "row", "struct_pack"}, strings.ToLower(n.Function)):
		return nil, w.refuse(n, "lists and structs have no place in an expression")
	case n.Distinct:
		return nil, w.refuse(n, "DISTINCT has no place in an expression")
	case n.OrderBys != nil && len(n.OrderBys.Orders) > 0:
		return nil, w.refuse(n, "ORDER BY has no place in an expression")
	case n.Schema != "" && n.Schema != "main":
		return nil, w.refuse(n, "functions have no schema: %s.%s", n.Schema, n.Function)
	}
	args, err := w.list(n.Children, depth)
	if err != nil {
		return nil, err
	}
	name := strings.ToLower(n.Function)
	switch {
	case name == "-" && len(args) == 1:
		if l, ok := negated(args[0]); ok {
			return l, nil
		}
		return pipeline.Call{Func: "neg", Args: args}, nil
	case name == "+" && len(args) == 1:
		return args[0], nil
	case name == "!~~":
		return pipeline.Call{Func: "not", Args: []pipeline.Expr{pipeline.Call{Func: "like", Args: args}}}, nil
	}
	if op, ok := operatorNames[name]; ok {
		// Left-deep chains of || arrive nested already; the arity is pipeline's to check.
		return pipeline.Call{Func: op, Args: args}, nil
	}
	return pipeline.Call{Func: name, Args: args}, nil
}

func negated(e pipeline.Expr) (pipeline.Expr, bool) {
	l, ok := e.(pipeline.Literal)
	if !ok {
		return nil, false
	}
	switch v := l.Value.(type) {
	case int64:
		return pipeline.Literal{Value: -v}, true
	case pipeline.Decimal:
		if strings.HasPrefix(string(v), "-") {
			return pipeline.Literal{Value: v[1:]}, true
		}
		return pipeline.Literal{Value: "-" + v}, true
	}
	return nil, false
}

func (w exprWalker) constant(n *exprNode, v *valueNode) (pipeline.Expr, error) {
	if v == nil {
		return nil, w.refuse(n, "a constant without value")
	}
	if v.IsNull {
		return pipeline.Literal{}, nil
	}
	raw := bytes.TrimSpace(v.Value)
	switch v.Type.ID {
	case "VARCHAR":
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return nil, w.refuse(n, "a text that cannot be read: %v", err)
		}
		return pipeline.Literal{Value: s}, nil
	case "BOOLEAN":
		return pipeline.Literal{Value: string(raw) == "true"}, nil
	case "TINYINT", "SMALLINT", "INTEGER", "BIGINT":
		i, err := strconv.ParseInt(string(raw), 10, 64)
		if err != nil {
			return nil, w.refuse(n, "the number %s is too large", raw)
		}
		return pipeline.Literal{Value: i}, nil
	case "HUGEINT":
		i, err := hugeint(raw)
		if err != nil || len(strings.TrimPrefix(i, "-")) > 38 {
			return nil, w.refuse(n, "the number is too large")
		}
		return pipeline.Literal{Value: pipeline.Decimal(i)}, nil
	case "DECIMAL":
		if v.Type.Info == nil {
			break
		}
		digits := string(raw)
		if strings.HasPrefix(digits, "{") {
			h, err := hugeint(raw)
			if err != nil {
				return nil, w.refuse(n, "a number that cannot be read: %v", err)
			}
			digits = h
		}
		neg := strings.HasPrefix(digits, "-")
		return pipeline.Literal{Value: pipeline.Decimal(pointed(strings.TrimPrefix(digits, "-"), neg, v.Type.Info.Scale))}, nil
	case "DOUBLE":
		// 1e3: read as the decimal that was written as far as that is known.
		if num, ok := parseNumber(string(raw)); ok {
			scale := max(-num.exp, 0)
			if d, ok := num.unscaled(38, scale); ok && (scale <= 38 || !w.delta) {
				return pipeline.Literal{Value: pipeline.Decimal(pointed(d, num.neg, scale))}, nil
			}
		}
		if w.delta {
			return pipeline.Cast{Arg: pipeline.Literal{Value: string(raw)}, Type: "double"}, nil // 1e300, 1e-300
		}
		return nil, w.refuse(n, "the number %s has more than 38 digits", raw)
	}
	return nil, w.refuse(n, "constants of type %s are not supported", v.Type.ID)
}

// hugeint reads DuckDB's 128-bit integers: a number, or {"upper": …, "lower": …}.
func hugeint(raw json.RawMessage) (string, error) {
	if len(raw) > 0 && raw[0] != '{' {
		return string(raw), nil
	}
	var h struct {
		Upper json.Number `json:"upper"`
		Lower json.Number `json:"lower"`
	}
	if err := json.Unmarshal(raw, &h); err != nil {
		return "", err
	}
	up, ok1 := new(big.Int).SetString(h.Upper.String(), 10)
	lo, ok2 := new(big.Int).SetString(h.Lower.String(), 10)
	if !ok1 || !ok2 {
		return "", fmt.Errorf("128-bit number %s", raw)
	}
	return up.Lsh(up, 64).Add(up, lo).String(), nil
}
