package serve

import (
	"context"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/engine/duckdb"
	"github.com/cauce-data/cauce/pipeline"
	"github.com/cauce-data/cauce/serve/pgcatalog"
)

// resolver gives the names of one statement their meaning for a session. It is the gate: what it does not know, no worker
// ever sees.
type resolver struct {
	s   *Session
	run bool // the statement will run; it is not only described
	// infer gives parameters of operators the type of what stands on the other side, which DuckDB does not tell.
	infer    bool
	inferred map[int]string // types of parameters that the tree tells and DuckDB does not, by number; nil: nobody asks

	ctx           context.Context
	usesCatalogue bool
	usesLanguage  bool
	administers   bool // pg_stat_activity is read
	cat           *pgcatalog.Catalogue
	selects       int                      // SELECTs seen so far
	views         bool                     // a view is read
	dated         string                   // what is read as of the session's AT
	read          map[string]delta.Version // versions of the tables that are read, by name
}

// Table implements duckdb.Resolver.
func (r *resolver) Table(ctx context.Context, n duckdb.Name) (duckdb.Relation, error) {
	if n.Catalog != "" && !strings.EqualFold(n.Catalog, Database) {
		return duckdb.Relation{}, errorf(CodeNotSupported, "cross-database references are not implemented: %q.%q.%q", n.Catalog, n.Schema, n.Table)
	}
	if t := r.s.tempNamed(n.Schema, n.Table); t != nil {
		if n.AtUnit != "" {
			return duckdb.Relation{}, errorf(CodeNotSupported, "temporary table %q has no versions: AT (…) is for tables of the lake", t.name)
		}
		return duckdb.Relation{Worker: [2]string{tempCatalog, t.worker}}, nil
	}
	name := strings.ToLower(n.Table)
	switch schema := strings.ToLower(n.Schema); {
	case schema == "pg_catalog" || schema == "information_schema":
		return r.catalogueTable(schema, name)
	case schema == "" && strings.HasPrefix(name, "pg_") && pgcatalog.Has("pg_catalog", name):
		return r.catalogueTable("pg_catalog", name)
	}
	schemas := []string{strings.ToLower(n.Schema)}
	if n.Schema == "" {
		schemas = append(r.s.SearchPath(), SchemaLake)
	}
	for _, schema := range schemas {
		switch schema {
		case SchemaPublic:
			if t, ok := r.s.b.table(r.s.Role, n.Table); ok {
				if err := r.asOf(&n, t.name); err != nil {
					return duckdb.Relation{}, err
				}
				return r.lakeTable(ctx, t, n)
			}
			if v := r.s.b.view(r.s.Role, n.Table); v != nil {
				if err := r.asOf(&n, v.Name); err != nil {
					return duckdb.Relation{}, err
				}
				return r.view(v, n)
			}
		case SchemaLake:
			if v := lakeViews[name]; v != nil {
				if n.At != "" {
					return duckdb.Relation{}, errorf(CodeNotSupported, "lake.%s has no versions: AT (…) is for tables", n.Table)
				}
				return v(ctx, r.s)
			}
		}
	}
	name = n.Table
	if n.Schema != "" {
		name = n.Schema + "." + n.Table
	}
	return duckdb.Relation{}, errorf(CodeTable, "relation %q does not exist", name)
}

func (r *resolver) lakeTable(ctx context.Context, t table, n duckdb.Name) (duckdb.Relation, error) {
	var snap *delta.Snapshot
	var err error
	if n.AtUnit == "" {
		snap, err = r.s.snapshot(ctx, t.name)
	} else {
		snap, err = r.at(ctx, t, n)
	}
	if n.AtUnit == "" && notWritten(err) { // it is declared, so the catalogue shows it: what asks for it finds it empty
		return emptyRelation(arrowOf(r.s.b.declared(t))), nil
	}
	if err != nil {
		return duckdb.Relation{}, err
	}
	if r.read == nil {
		r.read = map[string]delta.Version{}
	}
	r.read[t.name] = snap.Version()
	columns := t.columns
	if columns != nil { // only those that this version has, as they are written there
		columns = []string{}
		for _, f := range t.visible(snap.Schema().Fields) {
			columns = append(columns, f.Name)
		}
		if len(columns) == 0 {
			return duckdb.Relation{}, errorf(CodePermission, "permission denied for table %s: none of its columns may be read", t.name)
		}
	}
	return duckdb.Relation{Snapshot: snap, Columns: columns, Hide: pipeline.HideDeleted(snap.Schema())}, nil
}

// asOf gives a name that has no AT that of the session. Versions are of one table, so it can be but one of a statement's.
func (r *resolver) asOf(n *duckdb.Name, name string) error {
	if n.AtUnit != "" || r.s.AtUnit == "" {
		return nil
	}
	n.AtUnit, n.At = r.s.AtUnit, r.s.At
	if n.AtUnit == "version" && r.dated != "" && r.dated != name {
		return errorf(CodeInvalidParameter, "version %s: the statement reads %s and %s, which have versions of their own; ask for a time, or write AT (VERSION => …) behind a name", n.At, r.dated, name)
	}
	r.dated = name
	return nil
}

// at gives a table as it was.
func (r *resolver) at(ctx context.Context, t table, n duckdb.Name) (*delta.Snapshot, error) {
	d, err := r.s.b.o.Ingest.Catalog().Open(ctx, t.name)
	if err != nil {
		return nil, r.s.b.notYet(t.name, err)
	}
	var snap *delta.Snapshot
	switch n.AtUnit {
	case "version":
		v, err := strconv.ParseInt(n.At, 10, 64)
		if err != nil || v < 0 {
			return nil, errorf(CodeInvalidParameter, "AT (VERSION => %s): versions are whole numbers from 0 on", n.At)
		}
		if snap, err = d.SnapshotAt(ctx, delta.Version(v)); err != nil {
			return nil, errorf(CodeInvalidParameter, "table %s, version %d: %v", t.name, v, err)
		}
	case "timestamp":
		at, err := r.s.instant(n.At)
		if err != nil {
			return nil, err
		}
		if snap, err = d.SnapshotAsOf(ctx, at); err != nil {
			return nil, errorf(CodeInvalidParameter, "table %s at %s: %v", t.name, n.At, err)
		}
	default:
		return nil, errorf(CodeSyntax, "AT (%s => …): it is VERSION or TIMESTAMP", n.AtUnit)
	}
	return snap, nil
}

var instantForms = []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02 15:04:05.999999999Z07", "2006-01-02 15:04:05.999999999", "2006-01-02T15:04:05.999999999", "2006-01-02 15:04", time.DateOnly}

// instant reads a time in the session's zone.
func (s *Session) instant(text string) (time.Time, error) {
	loc, err := time.LoadLocation(s.Zone())
	if err != nil {
		return time.Time{}, err
	}
	for _, form := range instantForms {
		if t, err := time.ParseInLocation(form, strings.TrimSpace(text), loc); err == nil {
			return t, nil
		}
	}
	return time.Time{}, errorf("22007", "invalid input syntax for type timestamp: %q; write it as 2024-08-20 12:00:00 or 2024-08-20T12:00:00Z", text)
}

// Function implements duckdb.Resolver.
func (r *resolver) Function(ctx context.Context, fn duckdb.Node) (duckdb.Relation, bool, error) {
	name, _ := fn["function_name"].(string)
	schema, _ := fn["schema"].(string)
	switch {
	case strings.EqualFold(name, "table_changes") && (schema == "" || strings.EqualFold(schema, SchemaLake)):
		rel, err := r.changes(ctx, fn)
		return rel, true, err
	case strings.EqualFold(name, "pg_get_keywords"):
		_, err := r.needCatalogue()
		return duckdb.Relation{Worker: [2]string{"pg", "keywords"}}, true, err
	case strings.EqualFold(name, "pg_partition_ancestors") || strings.EqualFold(name, "pg_partition_tree"): // nothing is partitioned in PostgreSQL's sense
		fn["function_name"], fn["schema"], fn["children"] = "unnest", "", []any{castTo(function("", "list_value"), "BIGINT")}
		return duckdb.Relation{}, false, nil
	case schema != "" && !strings.EqualFold(schema, "pg_catalog"):
		return duckdb.Relation{}, false, errorf(CodeFunction, "function %s.%s does not exist", schema, name)
	}
	fn["schema"] = ""
	return duckdb.Relation{}, false, nil
}

// changes is table_changes('table', from [, to]): the change feed.
func (r *resolver) changes(ctx context.Context, fn duckdb.Node) (duckdb.Relation, error) {
	name, o, err := duckdb.ChangesCall(fn)
	if err != nil {
		return duckdb.Relation{}, errorf(CodeInvalidParameter, "%v", err)
	}
	t, ok := r.s.b.table(r.s.Role, strings.TrimPrefix(name, SchemaPublic+"."))
	if !ok {
		return duckdb.Relation{}, errorf(CodeTable, "relation %q does not exist", name)
	}
	return r.s.changes(ctx, t, o, r.run)
}

// forbidden are functions of DuckDB that tell of the machine or of the engine's own state, or run other SQL.
var forbidden = map[string]bool{
	"getenv": true, "write_log": true, "nextval": true, "currval": true, "json_execute_serialized_sql": true, "json_serialize_sql": true, "json_deserialize_sql": true,
	"json_serialize_plan": true, "query": true, "query_table": true, "sql_auto_complete": true, "enable_logging": true, "disable_logging": true,
	"set_config": true, "current_query": true, "current_connection_id": true, "current_transaction_id": true, "current_query_id": true,
	"getvariable": true, "stats": true, "add_parquet_key": true, "pg_read_file": true, "pg_ls_dir": true, "lo_import": true, "lo_export": true, "dblink": true,
}

// Select implements duckdb.Resolver: it gives the items of a select list the names that PostgreSQL gives them.
func (r *resolver) Select(n duckdb.Node) error {
	nameColumns(nodeOf(n["from_table"]))
	items, _ := n["select_list"].([]any)
	r.selects++
	outermost := r.selects == 1
	for _, i := range items {
		it, ok := i.(duckdb.Node)
		if !ok {
			continue
		}
		name := columnName(it)
		item(it, outermost)
		if err := r.show(it, outermost); err != nil {
			return err
		}
		if a, _ := it["alias"].(string); a != "" {
			continue
		}
		if name != "" {
			it["alias"] = name
		}
	}
	return r.dialect(n)
}

// columnName is the name of a result's column by PostgreSQL's rules; "" leaves it.
func columnName(n duckdb.Node) string {
	switch n["class"] {
	case "STAR", "COLUMN_REF":
		return "" // its own
	}
	if name, _ := figure(n); name != "" {
		return name
	}
	return "?column?"
}

// figure is PostgreSQL's FigureColname: the name that an expression suggests, and whether it is more than that of a type or
// of CASE, which give way to what encloses them.
func figure(n duckdb.Node) (name string, strong bool) {
	switch n["class"] {
	case "COLUMN_REF":
		if names, _ := n["column_names"].([]any); len(names) > 0 {
			name, _ = names[len(names)-1].(string)
		}
		return name, true
	case "FUNCTION", "WINDOW":
		if op, _ := n["is_operator"].(bool); op {
			return "", false
		}
		switch name, _ = n["function_name"].(string); name {
		case "count_star":
			name = "count"
		case "date_part":
			if n["schema"] == "main" { // the parser makes a call of EXTRACT
				name = "extract"
			}
		case "list_value":
			name = "array"
		case "struct_pack":
			name = "row"
		default:
			for word, call := range valueWords {
				if name == call {
					name = word
				}
			}
		}
		return strings.ToLower(name), true
	case "CASE":
		if other, ok := n["else_expr"].(duckdb.Node); ok {
			if name, strong = figure(other); strong {
				return name, true
			}
		}
		return "case", false
	case "CAST":
		if child, ok := n["child"].(duckdb.Node); ok {
			if name, strong = figure(child); strong {
				return name, true
			}
		}
		typ, _ := n["cast_type"].(duckdb.Node)
		return typeName(typ), false
	case "CONSTANT":
		return "", false
	case "OPERATOR":
		switch n["type"] {
		case "OPERATOR_COALESCE":
			return "coalesce", true
		case "ARRAY_CONSTRUCTOR":
			return "array", true
		case "GROUPING_FUNCTION":
			return "grouping", true
		case "ARRAY_EXTRACT", "STRUCT_EXTRACT":
			if children, _ := n["children"].([]any); len(children) > 0 {
				if c, ok := children[0].(duckdb.Node); ok {
					return figure(c)
				}
			}
		}
	case "SUBQUERY":
		switch n["subquery_type"] {
		case "EXISTS":
			return "exists", true
		case "SCALAR":
			return firstColumn(n["subquery"])
		}
	}
	return "", false
}

// firstColumn is the name of the only column of a subquery.
func firstColumn(q any) (string, bool) {
	query, _ := q.(duckdb.Node)
	inner, _ := query["node"].(duckdb.Node)
	items, _ := inner["select_list"].([]any)
	if len(items) == 0 {
		return "", false
	}
	item, ok := items[0].(duckdb.Node)
	if !ok {
		return "", false
	}
	if alias, _ := item["alias"].(string); alias != "" {
		return alias, true
	}
	return figure(item)
}

// typeName gives PostgreSQL's short name of a type of the tree.
func typeName(t duckdb.Node) string {
	id, _ := t["id"].(string)
	switch id {
	case "UNBOUND":
		if info, ok := t["type_info"].(duckdb.Node); ok {
			s, _ := info["name"].(string)
			return strings.TrimPrefix(strings.ToLower(s), ownType)
		}
	case "INTEGER":
		return "int4"
	case "BIGINT":
		return "int8"
	case "SMALLINT":
		return "int2"
	case "VARCHAR":
		return "text"
	case "BOOLEAN":
		return "bool"
	case "DOUBLE":
		return "float8"
	case "FLOAT":
		return "float4"
	case "DECIMAL":
		return "numeric"
	case "TIMESTAMP WITH TIME ZONE":
		return "timestamptz"
	case "BLOB":
		return "bytea"
	case "TIME WITH TIME ZONE":
		return "timetz"
	case "LIST":
		return typeName(nodeOf(nodeOf(t["type_info"])["child_type"]))
	}
	return strings.ToLower(id)
}

// Expression implements duckdb.Resolver.
func (r *resolver) Expression(n duckdb.Node) error {
	if done, err := r.meaning(n); done || err != nil {
		return err
	}
	return r.expression(n)
}

// expression is Expression for what means the same in a view of the lake file, which cauce query reads too.
func (r *resolver) expression(n duckdb.Node) error {
	switch n["class"] {
	case "COLUMN_REF":
		return r.column(n)
	case "FUNCTION", "WINDOW":
		return r.call(n)
	case "CAST":
		return r.cast(n)
	case "SUBQUERY":
		return r.inList(n)
	case "OPERATOR":
		if n["type"] == "ARRAY_EXTRACT" {
			r.subscript(n)
		}
	}
	return nil
}

// column drops the schema of qualified names and gives key words that are values theirs.
func (r *resolver) column(n duckdb.Node) error {
	names, _ := n["column_names"].([]any)
	first, _ := names[0].(string)
	if len(names) == 1 {
		switch strings.ToLower(first) {
		case "current_user", "session_user", "user", "current_role":
			setText(n, r.s.Role.Name)
		case "current_catalog":
			setText(n, Database)
		case "current_schema":
			setText(n, SchemaPublic)
		}
		return nil
	}
	if len(names) == 4 && strings.EqualFold(first, Database) {
		names = names[1:]
		first, _ = names[0].(string)
	}
	if len(names) >= 3 {
		switch strings.ToLower(first) {
		case SchemaPublic, SchemaLake, "pg_catalog", "information_schema":
			names = names[1:]
		}
	}
	n["column_names"] = names
	return nil
}

// setText makes a node the constant of a text. It keeps its name.
func setText(n duckdb.Node, v string) {
	set(n, duckdb.Node{"class": "CONSTANT", "type": "VALUE_CONSTANT", "value": duckdb.Node{"type": duckdb.Node{"id": "VARCHAR", "type_info": nil}, "is_null": false, "value": v}})
}

// set puts another expression in a node's place; its alias stays.
func set(n, with duckdb.Node) {
	alias, _ := n["alias"].(string)
	if alias == "" && n["class"] == "COLUMN_REF" {
		if names, _ := n["column_names"].([]any); len(names) > 0 {
			alias, _ = names[len(names)-1].(string)
		}
	}
	clear(n)
	for k, v := range with {
		n[k] = v
	}
	n["alias"] = alias
	n["query_location"] = uint64(math.MaxUint64)
}

// function makes the tree of a call.
func function(schema, name string, args ...any) duckdb.Node {
	if args == nil {
		args = []any{}
	}
	return duckdb.Node{
		"class": "FUNCTION", "type": "FUNCTION", "alias": "", "query_location": uint64(math.MaxUint64), "function_name": name, "schema": schema, "catalog": "",
		"children": args, "filter": nil, "order_bys": duckdb.Node{"type": "ORDER_MODIFIER", "orders": []any{}}, "distinct": false, "is_operator": false, "export_state": false,
	}
}

func (r *resolver) call(n duckdb.Node) error {
	name, _ := n["function_name"].(string)
	schema, _ := n["schema"].(string)
	name = strings.ToLower(name)
	switch {
	case schema == "" || slices.Contains([]string{"main", "pg_catalog", "information_schema"}, strings.ToLower(schema)):
		n["schema"] = ""
	case r.cat != nil && schema == r.cat.Key, schema == pgcatalog.LanguageSchema: // put there by this resolver
		return nil
	default:
		return errorf(CodeFunction, "function %s.%s does not exist", schema, name)
	}
	if c, _ := n["catalog"].(string); c != "" && !strings.EqualFold(c, Database) && c != "system" {
		return errorf(CodeFunction, "function %s.%s.%s does not exist", c, schema, name)
	}
	n["catalog"] = ""
	children, _ := n["children"].([]any)
	switch name {
	case "~@", "~*", "!~@", "!~*": // ~ matches anywhere
		m := function("", "regexp_matches", children...)
		if strings.HasSuffix(name, "*") {
			m["children"] = append(children, text("i"))
		}
		if strings.HasPrefix(name, "!") {
			m = duckdb.Node{"class": "OPERATOR", "type": "OPERATOR_NOT", "alias": "", "query_location": uint64(math.MaxUint64), "children": []any{m}}
		}
		set(n, m)
		return nil
	case "~~", "!~~", "~~*", "!~~*":
		like(n, name)
		return nil
	case "||":
		concatenate(n, children)
		return nil
	case "pg_table_size", "pg_relation_size", "pg_total_relation_size", "pg_indexes_size": // a relation may be given by its name
		if len(children) > 0 {
			if v, ok := duckdb.ConstantText(children[0]); ok && strings.Trim(v, "0123456789") != "" {
				call, err := r.catalogueCall("regclass_in", text(v))
				if err != nil {
					return err
				}
				children[0] = call
			}
		}
	case "format":
		call, err := r.format(children)
		if err != nil {
			return err
		}
		set(n, call)
		return nil
	case "version":
		setText(n, fmt.Sprintf("PostgreSQL %s (Cauce)", ServerVersion))
		return nil
	case "current_database", "current_catalog":
		setText(n, Database)
		return nil
	case "current_schema":
		setText(n, SchemaPublic)
		return nil
	case "pg_backend_pid":
		set(n, number(int64(r.s.PID)))
		return nil
	case "pg_cancel_backend", "pg_terminate_backend": // see signalOf
		e := errorf(CodeNotSupported, "%s is a statement of its own here: SELECT %[1]s(PID)", name)
		e.Hint = "SELECT pid FROM pg_stat_activity … gives the process ids"
		return e
	case "current_setting":
		if len(children) > 0 {
			if name, ok := duckdb.ConstantText(children[0]); ok {
				v, known := r.s.Show(name)
				if !known && len(children) == 1 {
					return errorf(CodeUndefinedObject, "unrecognized configuration parameter %q", name)
				}
				setText(n, v)
				return nil
			}
		}
		return errorf(CodeNotSupported, "current_setting wants a constant")
	case "set_config":
		if len(children) == 3 {
			name, ok1 := duckdb.ConstantText(children[0])
			value, ok2 := duckdb.ConstantText(children[1])
			local, _ := duckdb.ConstantText(children[2])
			if ok1 && ok2 {
				if r.run {
					if err := r.s.Set(name, value, strings.HasPrefix(local, "t")); err != nil {
						return err
					}
				}
				setText(n, value)
				return nil
			}
		}
		return errorf(CodeNotSupported, "set_config wants constants")
	case "unnest": // of a parameter: its type must be known
		if len(children) == 1 {
			_, literal, err := literalArray(children[0])
			if err != nil {
				return err
			}
			if c, ok := children[0].(duckdb.Node); ok && (literal || c["class"] == "PARAMETER") {
				children[0] = castTo(c, "VARCHAR")
			}
		}
	}
	if (name == "to_date" || name == "to_timestamp") && len(children) == 2 {
		pattern, err := constantPattern(name, children[1])
		if err == nil {
			pattern, err = readTimeFormat(pattern)
		}
		if err != nil {
			return err
		}
		c := asText(function("", "strptime", asText(nodeOf(children[0])), text(pattern)))
		c["cast_type"] = duckdb.Node{"id": map[bool]string{true: "DATE", false: "TIMESTAMP WITH TIME ZONE"}[name == "to_date"], "type_info": nil}
		set(n, c)
		return nil
	}
	if name == "to_char" && len(children) == 2 {
		pattern, err := constantPattern(name, children[1])
		if err != nil {
			return err
		}
		shown, err := toChar(children[0], pattern)
		if err == nil {
			set(n, shown)
		}
		return err
	}
	if pgcatalog.Function(name) {
		cat, err := r.needCatalogue()
		n["function_name"], n["schema"] = name, ""
		if err == nil {
			n["schema"] = cat.Key
		}
		return err
	}
	if name == "json_build_object" || name == "jsonb_build_object" {
		n["function_name"] = "json_object"
	}
	if forbidden[name] || strings.HasPrefix(name, "duckdb_") || strings.HasPrefix(name, "pragma_") || strings.HasPrefix(name, "read_") || strings.HasPrefix(name, "scan_") {
		return errorf(CodePermission, "permission denied for function %s", name)
	}
	return nil
}

func nodeOf(v any) duckdb.Node {
	n, _ := v.(duckdb.Node)
	return n
}

// text makes the tree of a text.
func text(v string) duckdb.Node {
	n := duckdb.Node{}
	setText(n, v)
	return n
}

func number(v int64) duckdb.Node {
	return duckdb.Node{
		"class": "CONSTANT", "type": "VALUE_CONSTANT", "alias": "", "query_location": uint64(math.MaxUint64),
		"value": duckdb.Node{"type": duckdb.Node{"id": "BIGINT", "type_info": nil}, "is_null": false, "value": v},
	}
}

// castOf makes the tree of a cast to a plain type.
func castOf(child duckdb.Node, typ string) duckdb.Node {
	return duckdb.Node{
		"class": "CAST", "type": "OPERATOR_CAST", "alias": "", "query_location": uint64(math.MaxUint64), "child": child, "try_cast": false,
		"cast_type": duckdb.Node{"id": typ, "type_info": nil},
	}
}

// castTo makes the tree of a cast to a list of a plain type.
func castTo(child duckdb.Node, element string) duckdb.Node {
	return duckdb.Node{
		"class": "CAST", "type": "OPERATOR_CAST", "alias": "", "query_location": uint64(math.MaxUint64), "child": child, "try_cast": false,
		"cast_type": duckdb.Node{"id": "LIST", "type_info": duckdb.Node{
			"type": "LIST_TYPE_INFO", "alias": "", "extension_info": nil, "child_type": duckdb.Node{"id": element, "type_info": nil},
		}},
	}
}

// hexBytes is the form of bytea that PostgreSQL writes; DuckDB takes it for one byte and letters.
var hexBytes = regexp.MustCompile(`^\\x([0-9a-fA-F]{2})*$`)

// cast gives texts of arrays and of bytes the form that DuckDB reads.
func (r *resolver) cast(n duckdb.Node) error {
	typ, _ := n["cast_type"].(duckdb.Node)
	child, _ := n["child"].(duckdb.Node)
	if typ == nil || child == nil {
		return nil
	}
	if done, err := r.registeredCast(n, child); done || err != nil {
		return err
	}
	if v, isText := duckdb.ConstantText(child); isText && typ["id"] == "BLOB" && child["class"] == "CONSTANT" && hexBytes.MatchString(v) {
		n["child"] = function("", "from_hex", text(v[2:]))
		return nil
	}
	if v, isText := duckdb.ConstantText(child); isText && typ["id"] == "DECIMAL" && child["class"] == "CONSTANT" {
		if plain := plainNumeric(v); plain != v && nodeOf(nodeOf(child["value"])["type"])["id"] == "VARCHAR" {
			n["child"] = text(plain)
		}
		return nil
	}
	if id, _ := typ["id"].(string); id == "LIST" && child["class"] == "CONSTANT" {
		if v, ok := child["value"].(duckdb.Node); ok {
			if s, ok := v["value"].(string); ok && strings.HasPrefix(s, "{") {
				items, err := arrayLiteral(s)
				if err != nil {
					return err
				}
				args := make([]any, len(items))
				for i, item := range items {
					if item == nil {
						args[i] = null()
						continue
					}
					element := nodeOf(nodeOf(typ["type_info"])["child_type"])
					switch {
					case element["id"] == "DECIMAL":
						args[i] = text(plainNumeric(*item))
					case element["id"] == "BLOB" && hexBytes.MatchString(*item):
						args[i] = function("", "from_hex", text((*item)[2:]))
					default:
						args[i] = text(*item)
					}
				}
				n["child"] = function("", "list_value", args...)
			}
		}
	}
	return nil
}

func isBlank(c byte) bool { return strings.IndexByte(" \t\n\r\v\f", c) >= 0 }

// arrayLiteral reads the text of a one-dimensional array, {a,"b c",NULL}.
func arrayLiteral(s string) ([]*string, error) {
	bad := errorf("22P02", "malformed array literal: %q", s)
	if len(s) < 2 || s[0] != '{' || s[len(s)-1] != '}' {
		return nil, bad
	}
	s = s[1 : len(s)-1]
	var out []*string
	if strings.TrimSpace(s) == "" {
		return out, nil
	}
	for at := 0; ; {
		var b strings.Builder
		quoted := false
		for at < len(s) && isBlank(s[at]) {
			at++
		}
		for at < len(s) && s[at] != ',' {
			switch c := s[at]; {
			case quoted && isBlank(c): // between the closing quote and the comma
			case quoted:
				return nil, bad
			case c == '"':
				quoted = true
				for at++; at < len(s) && s[at] != '"'; at++ {
					if s[at] == '\\' && at+1 < len(s) {
						at++
					}
					b.WriteByte(s[at])
				}
				if at == len(s) {
					return nil, bad
				}
			case c == '{':
				return nil, errorf(CodeNotSupported, "arrays of more than one dimension are not supported")
			case c == '}':
				return nil, bad
			case c == '\\' && at+1 < len(s):
				at++
				b.WriteByte(s[at])
			default:
				b.WriteByte(c)
			}
			at++
		}
		item := b.String()
		if !quoted {
			item = strings.TrimSpace(item)
		}
		if !quoted && strings.EqualFold(item, "null") {
			out = append(out, nil)
		} else {
			out = append(out, &item)
		}
		if at >= len(s) {
			return out, nil
		}
		at++
	}
}
