package serve

import (
	"strconv"
	"strings"

	"github.com/cauce-data/cauce/engine/duckdb"
	"github.com/cauce-data/cauce/serve/pgcatalog"
)

// What PostgreSQL means by text that DuckDB reads otherwise, or refuses, where the tree of a statement shows it.

// anyOf takes x = ANY (array) apart; ok is false for everything else, such as ANY of a query.
func anyOf(n duckdb.Node) (call duckdb.Node, ok bool) {
	if n["class"] != "SUBQUERY" || n["subquery_type"] != "ANY" {
		return nil, false
	}
	inner := nodeOf(nodeOf(n["subquery"])["node"])
	items, _ := inner["select_list"].([]any)
	if t := nodeOf(inner["from_table"])["type"]; len(items) != 1 || t != "EMPTY" && t != "EMPTY_FROM" {
		return nil, false
	}
	call = nodeOf(items[0])
	children, _ := call["children"].([]any)
	return call, call["class"] == "FUNCTION" && call["function_name"] == "unnest" && len(children) == 1
}

// literalArray gives the items of '{a,b}', as PostgreSQL reads a text without a type where an array is wanted.
func literalArray(v any) (items []*string, ok bool, err error) {
	n := nodeOf(v)
	if n["class"] != "CONSTANT" {
		return nil, false, nil
	}
	s, isText := duckdb.ConstantText(n)
	if !isText || !strings.HasPrefix(s, "{") {
		return nil, false, nil
	}
	items, err = arrayLiteral(s)
	return items, err == nil, err
}

func null() duckdb.Node {
	n := text("")
	n["value"] = duckdb.Node{"type": duckdb.Node{"id": "NULL", "type_info": nil}, "is_null": true}
	return n
}

// inList makes x = ANY ('{a,b}') the list x IN ('a', 'b'): the items take the type of x.
func (r *resolver) inList(n duckdb.Node) error {
	call, ok := anyOf(n)
	if !ok || n["comparison_type"] != "COMPARE_EQUAL" {
		return nil
	}
	items, ok, err := literalArray(call["children"].([]any)[0])
	if !ok || err != nil {
		return err
	}
	if len(items) == 0 { // true of nothing
		set(n, duckdb.Node{"class": "CONSTANT", "type": "VALUE_CONSTANT", "value": duckdb.Node{"type": duckdb.Node{"id": "BOOLEAN", "type_info": nil}, "is_null": false, "value": false}})
		return nil
	}
	children := []any{n["child"]}
	for _, i := range items {
		if i == nil {
			children = append(children, null())
		} else {
			children = append(children, text(*i))
		}
	}
	set(n, duckdb.Node{"class": "OPERATOR", "type": "COMPARE_IN", "children": children})
	return nil
}

// anyInJoin makes x = ANY (array) in the condition of an outer join a call, because there DuckDB allows no subquery. Only a
// whole term of the condition is changed: there, false and null are one.
func anyInJoin(condition any) {
	n := nodeOf(condition)
	if n["type"] == "CONJUNCTION_AND" {
		children, _ := n["children"].([]any)
		for _, c := range children {
			anyInJoin(c)
		}
		return
	}
	if call, ok := anyOf(n); ok && n["comparison_type"] == "COMPARE_EQUAL" {
		if _, literal, _ := literalArray(call["children"].([]any)[0]); !literal {
			set(n, function("", "list_contains", call["children"].([]any)[0], n["child"]))
		}
	}
}

// joins calls anyInJoin for the outer joins of a FROM and nullAsText for its queries, and gives the tables by alias.
func joins(from any, tables map[string][2]string) {
	n := nodeOf(from)
	switch n["type"] {
	case "JOIN":
		joins(n["left"], tables)
		joins(n["right"], tables)
		if n["join_type"] != "INNER" {
			anyInJoin(n["condition"])
		}
	case "SUBQUERY":
		inner := nodeOf(nodeOf(n["subquery"])["node"])
		items, _ := inner["select_list"].([]any)
		for _, i := range items {
			if inner["type"] == "SELECT_NODE" {
				nullAsText(nodeOf(i))
			}
		}
	case "BASE_TABLE":
		schema, _ := n["schema_name"].(string)
		name, _ := n["table_name"].(string)
		alias, _ := n["alias"].(string)
		if alias == "" {
			alias = name
		}
		tables[strings.ToLower(alias)] = [2]string{strings.ToLower(schema), strings.ToLower(name)}
	}
}

// tableOIDs gives the column tableoid, which every table of PostgreSQL has, its value: it is known from FROM.
func (r *resolver) tableOIDs(v any, tables map[string][2]string) error {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			if err := r.tableOIDs(e, tables); err != nil {
				return err
			}
		}
	case duckdb.Node:
		if from, ok := v["from_table"]; ok { // a query inside: its own aliases hide these
			inner := map[string][2]string{}
			joins(from, inner)
			hidden := map[string][2]string{}
			for k, t := range tables {
				if _, own := inner[k]; !own {
					hidden[k] = t
				}
			}
			if len(inner) > 0 {
				delete(hidden, "")
			}
			tables = hidden
		}
		if v["class"] == "COLUMN_REF" {
			return r.tableOID(v, tables)
		}
		for _, e := range v {
			if err := r.tableOIDs(e, tables); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *resolver) tableOID(n duckdb.Node, tables map[string][2]string) error {
	names, _ := n["column_names"].([]any)
	if len(names) == 0 || len(names) > 2 {
		return nil
	}
	if last, _ := names[len(names)-1].(string); !strings.EqualFold(last, "tableoid") {
		return nil
	}
	alias := ""
	if len(names) == 2 {
		alias, _ = names[0].(string)
	}
	t, ok := tables[strings.ToLower(alias)]
	if !ok {
		return nil
	}
	if t[0] == "" {
		t[0] = SchemaPublic
		if pgcatalog.Has("pg_catalog", t[1]) {
			t[0] = "pg_catalog"
		}
	}
	call, err := r.catalogueCall("to_regclass", text(t[0]+"."+t[1]))
	if err == nil {
		set(n, call)
	}
	return err
}

// dialect changes a SELECT before its parts are looked at.
func (r *resolver) dialect(n duckdb.Node) error {
	from, ok := n["from_table"]
	if !ok {
		return nil
	}
	tables := map[string][2]string{}
	joins(from, tables)
	if len(tables) == 1 {
		for _, t := range tables {
			tables[""] = t
		}
	}
	if len(tables) == 0 {
		return nil
	}
	for k, v := range n {
		if k != "from_table" && k != "cte_map" {
			if err := r.tableOIDs(v, tables); err != nil {
				return err
			}
		}
	}
	return nil
}

// item changes an item of a select list: a series makes rows, and outside of any other query a null is a text.
func item(n duckdb.Node, outermost bool) {
	for at := n; at != nil; at = nodeOf(at["child"]) { // below casts
		if at["class"] == "FUNCTION" && at["function_name"] == "generate_series" {
			call := clone(at)
			set(at, function("", "unnest", call))
			return
		}
		if at["class"] != "CAST" {
			break
		}
	}
	if outermost {
		nullAsText(n)
	}
}

// nullAsText gives a null that nothing gives a type the one that PostgreSQL does.
func nullAsText(n duckdb.Node) {
	if n["class"] == "CONSTANT" && nodeOf(nodeOf(n["value"])["type"])["id"] == "NULL" {
		set(n, asText(clone(n)))
	}
}

// escapes are the calls of LIKE and its kin with a sign that takes the meaning of % and _: in PostgreSQL it is \, in DuckDB there
// is none.
var escapes = map[string]string{"~~": "like_escape", "!~~": "not_like_escape", "~~*": "ilike_escape", "!~~*": "not_ilike_escape"}

// like gives LIKE the escape sign of PostgreSQL, where that can make a difference.
func like(n duckdb.Node, name string) {
	children, _ := n["children"].([]any)
	if len(children) != 2 || nodeOf(children[1])["class"] == "PARAMETER" {
		return
	}
	if s, constant := duckdb.ConstantText(children[1]); constant && !strings.Contains(s, `\`) {
		return
	}
	set(n, function("", escapes[name], children[0], children[1], text(`\`)))
}

// isArray tells whether an expression is ARRAY[…] or ARRAY(SELECT …).
func isArray(v any) bool {
	n := nodeOf(v)
	if n["type"] == "ARRAY_CONSTRUCTOR" || n["class"] == "FUNCTION" && n["function_name"] == "list_value" {
		return true
	}
	inner := nodeOf(nodeOf(n["subquery"])["node"])
	items, _ := inner["select_list"].([]any)
	if n["class"] != "SUBQUERY" || len(items) != 1 {
		return false
	}
	return nodeOf(nodeOf(items[0])["else_expr"])["function_name"] == "array_agg"
}

// format is PostgreSQL's format(pattern, …) (documentation, "format"), without widths. DuckDB has another function of that name.
func (r *resolver) format(children []any) (duckdb.Node, error) {
	if len(children) == 0 {
		return nil, errorf(CodeFunction, "function format() does not exist")
	}
	pattern, ok := duckdb.ConstantText(children[0])
	if !ok {
		return nil, errorf(CodeNotSupported, "format wants a constant pattern")
	}
	parts := []any{text("")}
	for next := 1; ; {
		plain, rest, more := strings.Cut(pattern, "%")
		if plain != "" {
			parts = append(parts, text(plain))
		}
		if !more {
			return function("", "concat", parts...), nil // a null counts as empty
		}
		if digits := len(rest) - len(strings.TrimLeft(rest, "0123456789")); digits > 0 && strings.HasPrefix(rest[digits:], "$") {
			n, err := strconv.Atoi(rest[:digits])
			if err != nil || n < 1 {
				return nil, errorf(CodeInvalidParameter, "format specifies argument 0, but arguments are numbered from 1")
			}
			next, rest = n, rest[digits+1:]
		}
		if rest == "" {
			return nil, errorf(CodeInvalidParameter, "unterminated format() type specifier")
		}
		kind := rest[0]
		pattern = rest[1:]
		if kind == '%' {
			parts = append(parts, text("%"))
			continue
		}
		if strings.IndexByte("sIL", kind) < 0 {
			if strings.IndexByte("-*0123456789", kind) >= 0 {
				return nil, errorf(CodeNotSupported, "a width in format() is not supported")
			}
			return nil, errorf(CodeInvalidParameter, "unrecognized format() type specifier %q", string(kind))
		}
		if next >= len(children) {
			return nil, errorf(CodeInvalidParameter, "too few arguments for format()")
		}
		arg := asText(nodeOf(copied(children[next]))) // it may be named twice
		next++
		if kind != 's' {
			call, err := r.catalogueCall(map[byte]string{'I': "format_ident", 'L': "quote_nullable"}[kind], arg)
			if err != nil {
				return nil, err
			}
			arg = call
		}
		parts = append(parts, arg)
	}
}

// copied is a tree of its own: what changes one in place leaves the other alone.
func copied(v any) any {
	switch v := v.(type) {
	case duckdb.Node:
		out := make(duckdb.Node, len(v))
		for k, e := range v {
			out[k] = copied(e)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = copied(e)
		}
		return out
	}
	return v
}
