package serve

import (
	"encoding/json"
	"math"
	"regexp"
	"slices"
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

// never is the condition that is true of nothing.
func never() duckdb.Node {
	n := text("")
	n["value"] = duckdb.Node{"type": duckdb.Node{"id": "BOOLEAN", "type_info": nil}, "is_null": false, "value": false}
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
		set(n, never())
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
		if n["class"] == "CAST" && nodeOf(n["cast_type"])["id"] == "TIME WITH TIME ZONE" { // a result's times have no zone
			set(n, asText(clone(n)))
		}
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

// isList is isArray for casts to arrays and calls that give one, too.
func isList(v any) bool {
	n := nodeOf(v)
	return isArray(n) || n["class"] == "CAST" && nodeOf(n["cast_type"])["id"] == "LIST" || arrayFunctions[functionName(n)]
}

// arrayFunctions give arrays.
var arrayFunctions = map[string]bool{"array_agg": true, "string_to_array": true, "array_append": true, "array_prepend": true, "array_cat": true, "array_remove": true}

// isElement tells whether an expression is seen to be no array.
func isElement(v any) bool {
	n := nodeOf(v)
	switch n["class"] {
	case "CAST":
		id := nodeOf(n["cast_type"])["id"]
		return id != "LIST" && id != "UNBOUND"
	case "CONSTANT":
		id := nodeOf(nodeOf(n["value"])["type"])["id"]
		return id != "VARCHAR" && id != "NULL"
	}
	return false
}

// concatenate gives || of an array its meaning: an element is added, and an array that is null counts as empty.
func concatenate(n duckdb.Node, children []any) {
	if len(children) != 2 {
		return
	}
	switch a, b := children[0], children[1]; {
	case isList(a) && isElement(b):
		set(n, function("", "list_append", a, b))
	case isElement(a) && isList(b):
		set(n, function("", "list_prepend", a, b))
	case isArray(a) || isArray(b):
		set(n, function("", "list_concat", a, b))
	}
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

// constantPattern gives the pattern of to_char and its kin; while a statement is described, a parameter has none yet.
func constantPattern(name string, v any) (string, error) {
	pattern, ok := duckdb.ConstantText(v)
	if !ok && nodeOf(v)["class"] != "PARAMETER" {
		return "", errorf(CodeNotSupported, "%s wants a constant pattern", name)
	}
	return pattern, nil
}

// meaning gives calls and casts that DuckDB knows too, and takes otherwise, the meaning that they have in PostgreSQL. done: nothing
// more is to be changed.
func (r *resolver) meaning(n duckdb.Node) (done bool, err error) {
	switch n["class"] {
	case "FUNCTION":
		return r.callMeaning(n), nil
	case "CAST":
		return r.castMeaning(n)
	}
	return false, nil
}

// subsecond are the parts of a time that are no whole numbers, under all their names.
var subsecond = map[string]string{
	"second": "extract_seconds", "seconds": "extract_seconds", "sec": "extract_seconds", "secs": "extract_seconds", "s": "extract_seconds",
	"millisecond": "extract_milliseconds", "milliseconds": "extract_milliseconds", "msec": "extract_milliseconds", "msecs": "extract_milliseconds", "ms": "extract_milliseconds",
}

func (r *resolver) callMeaning(n duckdb.Node) (done bool) {
	children, _ := n["children"].([]any)
	name, _ := n["function_name"].(string)
	schema, _ := n["schema"].(string)
	if schema != "" && schema != "main" && schema != "pg_catalog" {
		return false
	}
	if r.infer && (name == "generate_series" || name == "range") { // one whose bounds are not known has no columns either
		for i, c := range children {
			if at := parameterNumber(c); at > 0 {
				r.inferred[at] = "INTEGER"
				children[i] = castOf(number(1), "INTEGER")
			}
		}
	}
	if op, _ := n["is_operator"].(bool); r.infer && op && len(children) == 2 {
		for i, c := range children {
			if other := children[1-i]; nodeOf(c)["class"] == "PARAMETER" && nodeOf(other)["class"] != "PARAMETER" {
				children[i] = likeOther(c, other)
			}
		}
	}
	switch name {
	case "round":
		switch len(children) {
		case 1:
			set(n, r.languageCall("round", children...))
			return true
		case 2:
			if _, constant := duckdb.ConstantText(children[1]); constant { // DuckDB rounds decimals to a constant place alone
				set(n, r.languageCall("round_to", children...))
				return true
			}
		}
	case "date_part":
		if len(children) != 2 {
			return false
		}
		field, _ := duckdb.ConstantText(children[0])
		if f := subsecond[strings.ToLower(field)]; f != "" {
			call := r.languageCall(f, children[1])
			if schema != "main" { // not EXTRACT, which gives a numeric
				call = castOf(call, "DOUBLE")
			}
			set(n, call)
			return true
		}
	case "pg_typeof":
		if len(children) == 1 {
			set(n, r.languageCall("pg_typeof", children...))
			return true
		}
	}
	return false
}

// likeOther is a value with the type of another one.
func likeOther(value, other any) duckdb.Node {
	return duckdb.Node{
		"class": "CASE", "type": "CASE_EXPR", "alias": "", "query_location": uint64(math.MaxUint64),
		"case_checks": []any{duckdb.Node{"when_expr": never(), "then_expr": copied(other)}}, "else_expr": value,
	}
}

// decimalType is the tree of DECIMAL(width,scale).
func decimalType(width, scale int) duckdb.Node {
	return duckdb.Node{"id": "DECIMAL", "type_info": duckdb.Node{"type": "DECIMAL_TYPE_INFO", "alias": "", "extension_info": nil, "width": width, "scale": scale}}
}

func doubleType() duckdb.Node { return duckdb.Node{"id": "DOUBLE", "type_info": nil} }

// wholeTypes gives PostgreSQL's names of the types whose texts have no point.
var wholeTypes = map[string]string{"SMALLINT": "smallint", "INTEGER": "integer", "BIGINT": "bigint"}

var wholeText = regexp.MustCompile(`^\s*[+-]?[0-9]+\s*$`)

// beforeChrist is a date, and perhaps a time, of an era, as PostgreSQL writes it.
var beforeChrist = regexp.MustCompile(`(?i)^\s*(\d+-\d+-\d+)(.*?)\s*(BC|AD)\s*$`)

func (r *resolver) castMeaning(n duckdb.Node) (done bool, err error) {
	typ, child := nodeOf(n["cast_type"]), nodeOf(n["child"])
	constant, isText := "", false
	if child["class"] == "CONSTANT" {
		if value := nodeOf(child["value"]); nodeOf(value["type"])["id"] == "VARCHAR" {
			constant, isText = value["value"].(string)
		}
	}
	id, _ := typ["id"].(string)
	switch name := castType(n); {
	case name == numericType:
		return true, r.numericCast(n, child)
	case name == varcharType || name == charType:
		length := json.Number("1") // of char; varchar has its length
		if modifiers, _ := nodeOf(typ["type_info"])["user_type_modifiers"].([]any); len(modifiers) == 1 {
			length, _ = nodeOf(modifiers[0])["value"].(json.Number)
		}
		chars, err := length.Int64()
		if err != nil || chars < 1 {
			return false, errorf(CodeInvalidParameter, "length for type %s must be at least 1", strings.TrimPrefix(name, ownType))
		}
		set(n, r.languageCall("cut", child, number(chars)))
		return true, nil
	case id == "LIST":
		if at := parameterNumber(child); at > 0 && r.inferred != nil { // DuckDB tells that it is a list, and not of what
			r.inferred[at] = elementType(typ) + "[]"
		}
		return r.listCast(n, child)
	case isText && wholeTypes[id] != "" && !wholeText.MatchString(constant) && !isTry(n):
		return false, errorf(CodeCast, "invalid input syntax for type %s: %q", wholeTypes[id], constant)
	case isText && (id == "DATE" || id == "TIMESTAMP" || id == "TIMESTAMP WITH TIME ZONE"):
		if m := beforeChrist.FindStringSubmatch(constant); m != nil {
			era := " (BC)"
			if strings.EqualFold(m[3], "AD") {
				era = ""
			}
			n["child"] = text(m[1] + era + m[2])
		}
	case id == "BIT":
		return false, errorf(CodeNotSupported, "the type bit is not supported")
	case id == "VARCHAR" && isList(child):
		set(n, r.languageCall("array_text", child))
		return true, nil
	}
	return false, nil
}

func isTry(n duckdb.Node) bool {
	try, _ := n["try_cast"].(bool)
	return try
}

func functionName(n duckdb.Node) string {
	if n["class"] != "FUNCTION" {
		return ""
	}
	name, _ := n["function_name"].(string)
	return name
}

// numericCast makes a cast to numeric without digits keep those of the value, where DuckDB would take DECIMAL(18,3). Of a text that is
// no constant nothing tells how many there are: see pg.numeric. A double stays one, because no number of digits holds all doubles.
func (r *resolver) numericCast(n, child duckdb.Node) error {
	switch child["class"] {
	case "CONSTANT":
		value := nodeOf(child["value"])
		typ := nodeOf(value["type"])
		if null, _ := value["is_null"].(bool); null {
			n["cast_type"] = decimalType(1, 0)
			return nil
		}
		var digits string
		switch v := value["value"].(type) {
		case string:
			digits = v
		case json.Number:
			digits = v.String()
		}
		switch typ["id"] {
		case "VARCHAR", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UBIGINT":
			width, scale, double, err := numericShape(&digits)
			if err != nil {
				return err
			}
			if n["cast_type"] = decimalType(width, scale); double {
				n["cast_type"] = doubleType()
			} else if typ["id"] == "VARCHAR" {
				n["child"] = text(plainNumeric(digits))
			}
			return nil
		}
	case "PARAMETER": // while the statement is described
		n["cast_type"] = decimalType(38, 12)
		return nil
	}
	if aggregated(child) { // DuckDB does not tell the type of what is computed over several rows before it chooses pg.numeric's form
		zero := castOf(number(0), "DECIMAL")
		zero["cast_type"] = decimalType(1, 0)
		set(n, operator("+", child, zero))
		return nil
	}
	set(n, r.languageCall("numeric", child))
	return nil
}

// aggregates are functions over several rows.
var aggregates = map[string]bool{
	"sum": true, "avg": true, "mean": true, "min": true, "max": true, "count": true, "count_star": true, "first": true, "last": true, "any_value": true, "arg_min": true, "arg_max": true,
	"min_by": true, "max_by": true, "median": true, "mode": true, "product": true, "quantile": true, "quantile_cont": true, "quantile_disc": true, "percentile_cont": true, "percentile_disc": true,
	"stddev": true, "stddev_pop": true, "stddev_samp": true, "variance": true, "var_pop": true, "var_samp": true, "corr": true, "covar_pop": true, "covar_samp": true,
	"regr_avgx": true, "regr_avgy": true, "regr_count": true, "regr_intercept": true, "regr_r2": true, "regr_slope": true, "regr_sxx": true, "regr_sxy": true, "regr_syy": true,
	"bit_and": true, "bit_or": true, "fsum": true, "favg": true, "kahan_sum": true, "sumkahan": true, "geomean": true, "geometric_mean": true, "approx_quantile": true, "approx_count_distinct": true,
	"sem": true, "mad": true, "skewness": true, "kurtosis": true, "entropy": true, "weighted_avg": true,
}

// aggregated tells whether an expression is computed over several rows of its own query.
func aggregated(v any) bool {
	switch v := v.(type) {
	case []any:
		return slices.ContainsFunc(v, aggregated)
	case duckdb.Node:
		if v["class"] == "WINDOW" || aggregates[functionName(v)] {
			return true
		}
		if v["class"] == "SUBQUERY" {
			return false
		}
		for _, e := range v {
			if aggregated(e) {
				return true
			}
		}
	}
	return false
}

// parameterNumber gives the number of a parameter; 0: it is none.
func parameterNumber(v any) int {
	n := nodeOf(v)
	id, _ := n["identifier"].(string)
	at, err := strconv.Atoi(id)
	if n["class"] != "PARAMETER" || err != nil {
		return 0
	}
	return at
}

// elementType gives DuckDB's name of the type of a list's elements, or one of those that pgwire knows beside.
func elementType(list duckdb.Node) string {
	element := nodeOf(nodeOf(list["type_info"])["child_type"])
	info := nodeOf(element["type_info"])
	switch id, _ := element["id"].(string); id {
	case "UNBOUND":
		name, _ := info["name"].(string)
		switch name = strings.ToLower(name); {
		case name == numericType:
			return "DECIMAL"
		case numberTypes[name]:
			return "OID"
		}
		return "VARCHAR"
	case "TIMESTAMP WITH TIME ZONE":
		return "TIMESTAMPTZ"
	default:
		return id
	}
}

// listCast gives the elements of a cast to an array their type.
func (r *resolver) listCast(n, child duckdb.Node) (done bool, err error) {
	info := nodeOf(nodeOf(n["cast_type"])["type_info"])
	element := nodeOf(info["child_type"])
	if element["id"] != "UNBOUND" {
		return false, nil
	}
	name, _ := nodeOf(element["type_info"])["name"].(string)
	switch name = strings.ToLower(name); {
	case name == numericType:
		literal, err := literalItems(child)
		if err != nil {
			return false, err
		}
		if literal == nil && child["class"] != "PARAMETER" {
			set(n, r.languageCall("numerics", child))
			return true, nil
		}
		if info["child_type"] = decimalType(38, 12); literal != nil {
			width, scale, double, err := numericShape(literal...)
			if err != nil {
				return false, err
			}
			if info["child_type"] = decimalType(width, scale); double {
				info["child_type"] = doubleType()
			}
		}
	case name == varcharType || name == charType:
		return false, errorf(CodeNotSupported, "an array of %s with a length is not supported", strings.TrimPrefix(name, ownType))
	case numberTypes[name]:
		info["child_type"] = duckdb.Node{"id": "BIGINT", "type_info": nil}
	case textTypes[name]:
		info["child_type"] = duckdb.Node{"id": "VARCHAR", "type_info": nil}
	}
	return false, nil
}

// literalItems gives the items of an array that is written as a text; nil: it is none.
func literalItems(child duckdb.Node) ([]*string, error) {
	items, ok, err := literalArray(child)
	if !ok {
		return nil, err
	}
	return append([]*string{}, items...), nil
}

// nameColumns gives the columns of VALUES the names that PostgreSQL gives them.
func nameColumns(from duckdb.Node) {
	names, _ := from["expected_names"].([]any)
	rows, _ := from["values"].([]any)
	if from["type"] != "EXPRESSION_LIST" || len(names) > 0 || len(rows) == 0 {
		return
	}
	first, _ := rows[0].([]any)
	for i := range first {
		names = append(names, "column"+strconv.Itoa(i+1))
	}
	from["expected_names"] = names
}
