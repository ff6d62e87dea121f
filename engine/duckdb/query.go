package duckdb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/duckdb/duckdb-go/v2"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/pipeline"
)

// QueryTable is a table or a view that a query may name.
type QueryTable struct {
	Name     string
	Snapshot *delta.Snapshot // of a table
	// Hide is an SQL condition that rows must meet to be seen, such as "NOT coalesce(_deleted, false)"; "" shows all.
	Hide string
	// View is the SELECT of a view, Reads the tables that it names; they must be among the query's.
	View  string
	Reads []string

	columns []string // those that may be seen; nil: all
}

// field finds a column that the statement can name. To it a column that may not be seen is none: the name then means
// something else, such as a column of an outer SELECT.
func (t *QueryTable) field(name string) (delta.Field, bool) {
	if t.columns != nil && !contains(t.columns, name) {
		return delta.Field{}, false
	}
	return t.Snapshot.Schema().Field(name)
}

// ErrStatement is returned (wrapped) for SQL that is not one SELECT over known tables.
var ErrStatement = errors.New("statement not allowed")

// What else is wrong with a statement (wrapped).
var (
	ErrFunction     = errors.New("there is no such table function")
	ErrNotSupported = errors.New("not supported")
	ErrRange        = errors.New("a number of the statement is out of range")
)

// Result is a running query. FilesTotal and FilesOpened count the data files of the tables that the query names and
// those of them that pruning left for DuckDB to open; BytesRead is the size in bytes of the latter.
type Result struct {
	FilesTotal  int
	FilesOpened int
	BytesRead   int64

	engine *Engine
	conn   *conn
	reader array.RecordReader
	scans  []*scan
}

// Schema gives names and Arrow types of the result's columns.
func (r *Result) Schema() *arrow.Schema { return r.reader.Schema() }

// Batches yields the rows once. A batch must not be kept beyond its iteration step without Retain.
func (r *Result) Batches(ctx context.Context) iter.Seq2[arrow.RecordBatch, error] {
	return func(yield func(arrow.RecordBatch, error) bool) {
		for r.reader.Next() {
			if err := ctx.Err(); err != nil {
				yield(nil, err)
				return
			}
			if !yield(r.reader.RecordBatch(), nil) {
				return
			}
		}
		if err := r.reader.Err(); err != nil {
			yield(nil, wrapSQL(ctx, err))
		}
	}
}

// Close ends the query and frees what it holds.
func (r *Result) Close() error {
	ctx := context.Background()
	var errs []error
	if r.reader != nil {
		r.reader.Release()
		r.reader = nil
	}
	if r.conn == nil {
		return nil
	}
	_ = r.conn.exec(ctx, "ROLLBACK") // fails where no transaction was begun
	for _, s := range r.scans {
		errs = append(errs, s.Close(ctx))
	}
	errs = append(errs, r.conn.release())
	r.conn = nil
	return errors.Join(errs...)
}

// TableNames lists the tables that a statement names, each once, as first written; names of its own WITH clauses are
// not among them. It refuses (ErrStatement) what is not one SELECT statement, and table functions that reach outside
// the lake.
func (e *Engine) TableNames(ctx context.Context, sql string) ([]string, error) {
	var names []string
	err := e.with(ctx, func(c *conn) error {
		q, err := parseQuery(ctx, c, sql, nil)
		if err != nil {
			return err
		}
		for _, r := range q.refs {
			if !slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, r.table) }) {
				names = append(names, r.table)
			}
		}
		return nil
	})
	return names, err
}

// Query runs one SELECT statement. Each table appears under its name as the rows of its snapshot; files that cannot
// hold a row that the statement's conditions on that table want are left out before DuckDB opens any. The caller closes
// the result.
func (e *Engine) Query(ctx context.Context, sql string, tables []QueryTable) (*Result, error) {
	return e.query(ctx, sql, tables, nil)
}

// QueryResolved is Query with names that a resolver gives their meaning: tables as they were, change feeds. Relations of a
// worker are not for it.
func (e *Engine) QueryResolved(ctx context.Context, sql string, r Resolver) (*Result, error) {
	return e.query(ctx, sql, nil, r)
}

func (e *Engine) query(ctx context.Context, sql string, tables []QueryTable, resolver Resolver) (_ *Result, err error) {
	c, err := e.acquire(ctx)
	if err != nil {
		return nil, err
	}
	r := &Result{engine: e, conn: c}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	// One transaction, so that now() is the same when files are chosen and when rows are; all that the query makes
	// vanishes with its end.
	if err := c.exec(ctx, "BEGIN TRANSACTION"); err != nil {
		return nil, err
	}
	var names *resolving
	if resolver != nil {
		names = &resolving{ctx: ctx, conn: c, r: resolver, names: new(int)}
	}
	q, err := parseQuery(ctx, c, sql, names)
	if err != nil {
		return nil, err
	}
	if resolver != nil {
		if sql, err = c.deserialize(ctx, q.node); err != nil {
			return nil, err
		}
		for _, s := range q.relations {
			if s.relation.Snapshot != nil {
				tables = append(tables, QueryTable{Name: s.name, Snapshot: s.relation.Snapshot, Hide: s.relation.Hide, columns: s.relation.Columns})
			} else if err := c.materialise(ctx, s); err != nil {
				return nil, err
			}
		}
	}
	byName := map[string]*QueryTable{}
	for i := range tables {
		byName[strings.ToLower(tables[i].Name)] = &tables[i]
	}
	for _, ref := range q.refs {
		if byName[strings.ToLower(ref.table)] == nil {
			return nil, fmt.Errorf("%w: no table %q; there are: %s", ErrStatement, ref.table, tableList(tables))
		}
	}
	snapshots := map[string]*QueryTable{}
	for name, t := range byName {
		if t.View == "" {
			snapshots[name] = t
		}
	}
	wanted, err := q.predicates(ctx, c, snapshots)
	if err != nil {
		return nil, err
	}
	var views []*QueryTable
	for name := range wanted {
		if t := byName[name]; t.View != "" {
			views = append(views, t)
		}
	}
	for _, v := range views {
		delete(wanted, strings.ToLower(v.Name))
		for _, name := range v.Reads { // its own conditions are not looked at
			wanted[strings.ToLower(name)] = nil
		}
	}
	for name, where := range wanted {
		t := byName[name]
		var files []delta.File
		if where == nil {
			files, err = t.Snapshot.Files(ctx)
		} else {
			files, err = t.Snapshot.Files(ctx, where)
		}
		if err != nil {
			return nil, err
		}
		r.FilesTotal += t.Snapshot.NumFiles()
		r.FilesOpened += len(files)
		for _, f := range files {
			r.BytesRead += f.Add.Size
		}
		s, body, err := e.queryScan(ctx, c, t.Snapshot, files, q.metadata, nil)
		if err != nil {
			return nil, err
		}
		r.scans = append(r.scans, s)
		if t.Hide != "" {
			body = "SELECT * FROM (" + body + "\n) WHERE " + t.Hide
		}
		if err := c.exec(ctx, "CREATE OR REPLACE TEMP VIEW "+quoteName(t.Name)+" AS "+body); err != nil {
			return nil, fmt.Errorf("table %s: %w", t.Name, err)
		}
	}
	for _, v := range views {
		if err := c.exec(ctx, "CREATE OR REPLACE TEMP VIEW "+quoteName(v.Name)+" AS "+v.View); err != nil {
			return nil, fmt.Errorf("view %s: %w", v.Name, err)
		}
	}
	if r.reader, err = c.arrow(ctx, sql); err != nil {
		var d *duckdb.Error
		if errors.As(err, &d) && (d.Type == duckdb.ErrorTypeBinder || d.Type == duckdb.ErrorTypeCatalog || d.Type == duckdb.ErrorTypeParser) {
			return nil, &StatementError{err}
		}
		return nil, err
	}
	return r, nil
}

// deserialize makes SQL of a tree.
func (c *conn) deserialize(ctx context.Context, n node) (string, error) {
	tree, err := json.Marshal(map[string]any{"error": false, "statements": []any{map[string]any{"node": n}}})
	if err != nil {
		return "", fmt.Errorf("tree of SQL: %w", err)
	}
	row, err := c.one(ctx, "SELECT json_deserialize_sql("+quoteText(string(tree))+")")
	if err != nil {
		return "", fmt.Errorf("statement: %w", err)
	}
	sql, _ := row[0].(string)
	return sql, nil
}

// expression makes SQL of the tree of an expression that names no table's columns.
func (c *conn) expression(ctx context.Context, n node) (string, error) {
	sql, err := c.deserialize(ctx, node{
		"type": "SELECT_NODE", "modifiers": []any{}, "cte_map": node{"map": []any{}}, "select_list": []any{n},
		"from_table":         node{"type": "EMPTY", "alias": "", "sample": nil},
		"aggregate_handling": "STANDARD_HANDLING", "group_expressions": []any{}, "group_sets": []any{},
	})
	return "(" + sql + "\n)", err
}

// materialise makes a table of a relation's rows.
func (c *conn) materialise(ctx context.Context, s shippedName) error {
	if s.relation.Stream != nil {
		stream, err := openStream(ctx, s.relation.Schema, s.relation.Stream(ctx))
		if err != nil {
			return err
		}
		view := s.name + "_rows"
		_, err = c.createFrom(ctx, quoteName(s.name), "SELECT * FROM "+quoteName(view), stream, view)
		if streamErr := stream.stop(); streamErr != nil {
			return streamErr // DuckDB only knows that the stream failed
		}
		return err
	}
	rows, err := array.NewRecordReader(s.relation.Schema, s.relation.Rows)
	if err != nil {
		return err
	}
	defer rows.Release()
	view := s.name + "_rows"
	_, err = c.createFrom(ctx, quoteName(s.name), "SELECT * FROM "+quoteName(view), rows, view)
	return err
}

// StatementError says that a statement is wrong in itself, such as one that names a column that its table lacks.
type StatementError struct{ Err error }

func (e *StatementError) Error() string { return e.Err.Error() }

// Unwrap gives DuckDB's own error.
func (e *StatementError) Unwrap() error { return e.Err }

func tableList(tables []QueryTable) string {
	if len(tables) == 0 {
		return "none"
	}
	names := make([]string, len(tables))
	for i, t := range tables {
		names[i] = t.Name
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// node is a part of a statement's tree as json_serialize_sql writes it.
type node = map[string]any

// tableRef is one place of a statement that names a table.
type tableRef struct {
	table string
	alias string
	// where are the conditions that a row of the table must meet at this place; nil where none are known.
	selectNode node
	// plainJoins says that leaving out rows that fail a null-rejecting condition of WHERE cannot change what the
	// SELECT gives: no ASOF or POSITIONAL join, no sample.
	plainJoins bool
	// inner says that the table is not joined from outside, so that conditions need not be null-rejecting.
	inner bool
	// siblings are all tables of the same FROM; alone says that nothing else stands in it.
	siblings []*tableRef
	alone    bool
}

// parsedQuery is a statement that passed the gate.
type parsedQuery struct {
	refs      []*tableRef
	metadata  bool          // it names the column _metadata
	node      node          // the tree
	strict    bool          // the statement is not trusted: its constants are not computed here unless they are cheap
	relations []shippedName // what a resolver put in the places of names
}

// metadataColumn is the struct of what is known of a row beside its values, under Spark's name. It is there only for
// statements that name it.
const metadataColumn = "_metadata"

// queryScan is the scan of a table for a query, and the SELECT over it.
func (e *Engine) queryScan(ctx context.Context, c *conn, snap *delta.Snapshot, files []delta.File, metadata bool, ship *Shipped) (*scan, string, error) {
	info := snap.TableInfo()
	if _, own := info.Schema.Field(metadataColumn); own || !metadata || !snap.RowTracking() {
		s, err := e.scan(ctx, c, info, files, scanOptions{Ship: ship})
		if err != nil {
			return nil, "", err
		}
		return s, s.SQL, nil
	}
	info, id, version, err := info.WithRowIDs()
	if err != nil {
		return nil, "", err
	}
	s, err := e.scan(ctx, c, info, files, scanOptions{Position: true, Ship: ship})
	if err != nil {
		return nil, "", err
	}
	var ids, versions []string
	number := func(v *int64) string {
		if v == nil {
			return "NULL"
		}
		return strconv.FormatInt(*v, 10)
	}
	for _, f := range files {
		ids, versions = append(ids, number(f.Add.BaseRowID)), append(versions, number(f.Add.DefaultRowCommitVersion))
	}
	at := func(list []string) string {
		return "CAST([" + strings.Join(list, ", ") + "] AS BIGINT[])[" + fileIndexColumn + "::BIGINT + 1]"
	}
	return s, fmt.Sprintf("SELECT * EXCLUDE (%s, %s, %s, %s), struct_pack(row_id := coalesce(%s, %s + %s), row_commit_version := coalesce(%s, %s)) AS %s FROM (%s\n)",
		quoteName(id.Name), quoteName(version.Name), fileIndexColumn, rowColumn, quoteName(id.Name), at(ids), rowColumn,
		quoteName(version.Name), at(versions), metadataColumn, s.SQL), nil
}

// allowedTableFunctions make rows out of their arguments alone.
var allowedTableFunctions = []string{"range", "generate_series", "unnest", "repeat", "repeat_row", "json_each", "json_tree", "generate_subscripts"}

// parseQuery is the gate: it parses a statement and finds the tables that it names. A resolver, if there is one, says what
// names mean and may change the tree.
func parseQuery(ctx context.Context, c *conn, sql string, resolver *resolving) (*parsedQuery, error) {
	options := ", skip_null := true, skip_empty := true, skip_default := true"
	if resolver != nil {
		options = "" // the tree becomes SQL again, which needs all of it
	}
	row, err := c.one(ctx, "SELECT json_serialize_sql("+quoteText(sql)+options+")::VARCHAR")
	if err != nil {
		return nil, err
	}
	text, _ := row[0].(string)
	var tree struct {
		Error      bool   `json:"error"`
		Type       string `json:"error_type"`
		Message    string `json:"error_message"`
		Position   string `json:"position"`
		Statements []struct {
			Node node `json:"node"`
		} `json:"statements"`
	}
	if err := decodeTree(text, &tree); err != nil {
		return nil, err
	}
	if tree.Error {
		if tree.Type == "not implemented" {
			return nil, notImplemented(sql, tree.Message)
		}
		offset := -1
		if n, err := strconv.Atoi(tree.Position); err == nil {
			offset = n
		}
		return nil, &pipeline.SyntaxError{Offset: offset, Msg: syntaxMessage(sql, tree.Message, offset)}
	}
	if n := len(tree.Statements); n != 1 {
		return nil, fmt.Errorf("%w: one SELECT statement is expected, not %d", ErrStatement, n)
	}
	w := &refWalker{resolver: resolver}
	if err := w.query(tree.Statements[0].Node, nil); err != nil {
		var f *tableFunctionError
		if errors.As(err, &f) {
			return nil, f.explain(ctx, c)
		}
		return nil, err
	}
	q := &parsedQuery{refs: w.refs, metadata: w.metadata, node: tree.Statements[0].Node}
	if w.resolver != nil {
		q.relations, q.strict = w.resolver.relations, true
	}
	return q, nil
}

// decodeTree reads what DuckDB's parser made of a statement. DuckDB writes a number that is too large as Infinity, which is no JSON.
func decodeTree(text string, into any) error {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	err := d.Decode(into)
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) && strings.HasPrefix(text[max(0, syntax.Offset-1):], "Infinity") {
		return fmt.Errorf("%w: DOUBLE holds up to 1.797e308", ErrRange)
	}
	if err != nil {
		return fmt.Errorf("tree of parsed SQL: %w", err)
	}
	return nil
}

// notImplemented says what DuckDB cannot make a tree of.
func notImplemented(sql, msg string) error {
	p := &statementParser{sql: sql}
	has := func(word string) bool {
		return slices.ContainsFunc(p.tokens, func(t token) bool { return t.kind == 'w' && strings.EqualFold(t.text, word) })
	}
	if err := p.scan(); err != nil {
		return err
	}
	switch {
	case has("PIVOT") && strings.HasPrefix(msg, "Only SELECT"): // it becomes several statements
		return fmt.Errorf("%w: PIVOT … ON; write SELECT … FROM t PIVOT (sum(b) FOR a IN (1, 2))", ErrNotSupported)
	case strings.HasPrefix(msg, "Only SELECT"):
		return fmt.Errorf("%w: only SELECT statements are", ErrStatement)
	case has("SYMMETRIC"):
		return fmt.Errorf("%w: BETWEEN SYMMETRIC; write BETWEEN least(a, b) AND greatest(a, b)", ErrNotSupported)
	}
	return fmt.Errorf("%w: %s", ErrNotSupported, msg)
}

// tableFunctionError is a call in FROM that the gate does not let pass.
type tableFunctionError struct{ name string }

func (e *tableFunctionError) Error() string {
	return fmt.Sprintf("%v: table function %s reaches outside the lake", ErrStatement, e.name)
}

// explain tells what is refused from what is not there.
func (e *tableFunctionError) explain(ctx context.Context, c *conn) error {
	row, err := c.one(ctx, "SELECT count(*) > 0 FROM duckdb_functions() WHERE function_type LIKE 'table%' AND function_name = lower("+quoteText(e.name)+")")
	if err != nil {
		return err
	}
	if known, _ := row[0].(bool); !known {
		return fmt.Errorf("%w: %s", ErrFunction, e.name)
	}
	return fmt.Errorf("%w: table function %s reaches outside the lake", ErrStatement, e.name)
}

// syntaxMessage points at the place of an error in the statement's text.
func syntaxMessage(sql, msg string, offset int) string {
	if offset < 0 || offset > len(sql) {
		return msg
	}
	line := 1 + strings.Count(sql[:offset], "\n")
	column := offset - strings.LastIndexByte(sql[:offset], '\n')
	return fmt.Sprintf("%s (line %d, column %d)", msg, line, column)
}

// refWalker finds the places that name tables. ctes are the names of WITH clauses in scope, as withName has them.
type refWalker struct {
	refs     []*tableRef
	metadata bool       // a column _metadata is named
	resolver *resolving // nil: names are those of the caller's tables
}

// query walks a query node: a SELECT, a set operation or a recursive WITH.
func (w *refWalker) query(n node, ctes map[string]bool) error {
	scope := map[string]bool{}
	for k := range ctes {
		scope[k] = true
	}
	if m, ok := n["cte_map"].(node); ok {
		for _, entry := range list(m["map"]) {
			name, _ := entry["key"].(string)
			if w.resolver != nil && strings.ContainsAny(name, `/\\.:`) {
				return fmt.Errorf("%w: WITH %q: a name like that of a file", ErrStatement, name)
			}
			if err := w.value(entry["value"], scope, nil); err != nil {
				return err
			}
			scope[withName(name)] = true
		}
	}
	if w.resolver != nil {
		if err := w.resolver.r.Select(n); err != nil {
			return err
		}
	}
	// An object with from_table is a SELECT.
	var refs []*tableRef
	if from, ok := n["from_table"].(node); ok {
		f := &fromWalker{w: w, ctes: scope, selectNode: n, alone: true, plain: n["sample"] == nil}
		if err := f.table(from, true); err != nil {
			return err
		}
		refs = f.refs
		for _, r := range refs {
			r.siblings, r.plainJoins, r.alone = refs, f.plain, f.alone && len(refs) == 1
		}
		w.refs = append(w.refs, refs...)
	}
	for k, v := range n {
		if k == "cte_map" || k == "from_table" {
			continue
		}
		inner := scope
		if name, ok := n["cte_name"].(string); ok && k == "right" {
			// A recursive WITH names itself there and nowhere else: in any other place DuckDB takes a table of that name.
			inner = with(scope, name)
		}
		if err := w.value(v, inner, nil); err != nil {
			return err
		}
	}
	return nil
}

// withName is what DuckDB compares of the name of a WITH: only letters of ASCII have cases there.
func withName(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, name)
}

func with(scope map[string]bool, name string) map[string]bool {
	out := map[string]bool{withName(name): true}
	for k := range scope {
		out[k] = true
	}
	return out
}

// anyNode reports whether one of a tree's nodes is such a one.
func anyNode(tree any, is func(node) bool) bool {
	below := func(e any) bool { return anyNode(e, is) }
	switch v := tree.(type) {
	case node:
		if is(v) {
			return true
		}
		for _, e := range v {
			if below(e) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, below)
	}
	return false
}

// value walks anything below a query node and goes on with query where a nested one begins.
func (w *refWalker) value(v any, ctes map[string]bool, _ *tableRef) error {
	switch v := v.(type) {
	case node:
		if w.resolver != nil && v["class"] != nil {
			if err := w.resolver.r.Expression(v); err != nil {
				return err
			}
		}
		if names, ok := v["column_names"].([]any); ok {
			w.metadata = w.metadata || slices.ContainsFunc(names, func(n any) bool { s, _ := n.(string); return strings.EqualFold(s, metadataColumn) })
		}
		if t, _ := v["type"].(string); strings.HasSuffix(t, "_NODE") && v["class"] == nil {
			return w.query(v, ctes)
		}
		if t, _ := v["type"].(string); t == "BASE_TABLE" || t == "TABLE_FUNCTION" || t == "SHOW_REF" {
			f := &fromWalker{w: w, ctes: ctes}
			if err := f.table(v, false); err != nil {
				return err
			}
			w.refs = append(w.refs, f.refs...)
			return nil
		}
		for _, e := range v {
			if err := w.value(e, ctes, nil); err != nil {
				return err
			}
		}
	case []any:
		for _, e := range v {
			if err := w.value(e, ctes, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// fromWalker walks the FROM of one SELECT.
type fromWalker struct {
	w          *refWalker
	ctes       map[string]bool
	selectNode node // nil: conditions are not known
	refs       []*tableRef
	alone      bool // only base tables so far
	plain      bool
}

func (f *fromWalker) table(n node, inner bool) error {
	if n["sample"] != nil {
		f.plain = false
	}
	switch t, _ := n["type"].(string); t {
	case "BASE_TABLE":
		name, _ := n["table_name"].(string)
		schema, _ := n["schema_name"].(string)
		catalog, _ := n["catalog_name"].(string)
		if schema == "" && catalog == "" && f.ctes[withName(name)] {
			f.alone = false
			return nil
		}
		if f.w.resolver != nil {
			table, err := f.w.resolver.table(n)
			if err != nil {
				return err
			}
			if table == "" { // the worker knows it
				f.alone = false
				return nil
			}
			name, schema, catalog = table, "", ""
		}
		if n["at_clause"] != nil {
			return fmt.Errorf("%w: AT (…) on table %s; --as-of reads an earlier version", ErrStatement, name)
		}
		if schema != "" || catalog != "" {
			return fmt.Errorf("%w: table %s is named with a schema; the lake's tables have none", ErrStatement, strings.TrimPrefix(catalog+"."+schema+"."+name, "."))
		}
		r := &tableRef{table: name, alias: name, selectNode: f.selectNode, inner: inner}
		if a, ok := n["alias"].(string); ok && a != "" {
			r.alias = a
		}
		if !absent(n["column_name_alias"]) { // columns have other names here
			r.selectNode = nil
		}
		f.refs = append(f.refs, r)
		return nil
	case "JOIN":
		refType, _ := n["ref_type"].(string)
		joinType, _ := n["join_type"].(string)
		if refType == "ASOF" || refType == "POSITIONAL" {
			f.plain = false
		}
		switch joinType {
		case "", "INNER":
		case "LEFT", "RIGHT", "OUTER", "FULL", "SEMI", "ANTI":
			inner = false
		default:
			inner, f.plain = false, false
		}
		for k, v := range n {
			var err error
			if side, ok := v.(node); ok && (k == "left" || k == "right") {
				err = f.table(side, inner)
			} else {
				err = f.w.value(v, f.ctes, nil)
			}
			if err != nil {
				return err
			}
		}
		return nil
	case "TABLE_FUNCTION":
		fn, _ := n["function"].(node)
		name, _ := fn["function_name"].(string)
		if f.w.resolver != nil {
			done, err := f.w.resolver.function(n, fn)
			if err != nil {
				return err
			}
			if done {
				f.alone = false
				return nil
			}
			name, _ = fn["function_name"].(string)
		}
		if !slices.Contains(allowedTableFunctions, strings.ToLower(name)) {
			return &tableFunctionError{name}
		}
	case "SHOW_REF":
		f.plain = false
		if f.w.resolver != nil && n["query"] == nil {
			return fmt.Errorf("%w: write DESCRIBE SELECT … or ask information_schema; DESCRIBE of a table stands alone", ErrStatement)
		}
		if n["query"] == nil {
			if name, ok := n["table_name"].(string); ok && name != "" && !strings.HasPrefix(name, `"`) && !f.ctes[withName(name)] {
				f.refs = append(f.refs, &tableRef{table: name, alias: name})
			}
		}
	case "EMPTY", "EMPTY_FROM":
		return nil
	}
	f.alone = false
	for _, v := range n {
		if err := f.w.value(v, f.ctes, nil); err != nil {
			return err
		}
	}
	return nil
}

// absent tells whether a part of a tree is not there.
func absent(v any) bool {
	items, ok := v.([]any)
	return v == nil || ok && len(items) == 0
}

// list gives the objects of a JSON array.
func list(v any) []node {
	items, _ := v.([]any)
	out := make([]node, 0, len(items))
	for _, i := range items {
		if n, ok := i.(node); ok {
			out = append(out, n)
		}
	}
	return out
}
