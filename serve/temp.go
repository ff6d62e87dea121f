package serve

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/cauce-data/cauce/engine/duckdb"
	"github.com/cauce-data/cauce/serve/pgcatalog"
	"github.com/cauce-data/cauce/serve/sqltext"
	"github.com/cauce-data/cauce/serve/worker"
)

// temps are the temporary tables of a session. They are in its worker, whose statements are each a transaction of their own:
// what a transaction of the session changed is undone step by step.
type temps struct {
	tables  map[string]*temp // by their names in lower case: like all names here they are found in any case
	dropped []*temp          // by the transaction, so that they are still in the worker
	undo    []undo           // how to take back what the transaction did, in its order
	mark    int              // len(undo) at the newest savepoint
}

// temp is a temporary table.
type temp struct {
	name     string // as PostgreSQL folds it
	worker   string // its name in the worker, where a dropped table may still have its own
	onCommit string // DELETE (ROWS), DROP or "": PRESERVE ROWS
}

// undo takes back a change of a table.
type undo struct {
	table *temp
	run   func(ctx context.Context) error // nil: there is nothing to take back any more
}

// sql is the table in statements for the worker.
func (t *temp) sql() string { return tempCatalog + "." + sqltext.QuoteName(t.worker) }

// tempCatalog is where DuckDB keeps temporary tables.
const tempCatalog = "temp"

// isTempSchema tells the schema of temporary tables: the alias that every session has for its own, and its name in the catalogue.
func isTempSchema(name string) bool {
	return strings.EqualFold(name, "pg_temp") || strings.EqualFold(name, pgcatalog.TempSchema)
}

// temp gives a temporary table by its name; nil where there is none.
func (s *Session) temp(name string) *temp { return s.temps.tables[strings.ToLower(name)] }

// Discard forgets the session's temporary tables and what would have to be taken back of them.
func (s *Session) Discard() {
	s.Close()
	clear(s.temps.tables)
	s.temps.dropped = nil
	clear(s.temps.undo) // savepoints count them
}

// DropTemps drops the session's temporary tables.
func (s *Session) DropTemps(ctx context.Context) error {
	for _, t := range s.temps.tables {
		s.drop(t)
	}
	if s.tx == nil {
		return s.commitTemps(ctx)
	}
	return nil
}

// Savepoint marks a place to which RollbackTo can go back.
func (s *Session) Savepoint() int {
	s.temps.mark = len(s.temps.undo)
	return s.temps.mark
}

// RollbackTo takes back what the transaction has done to temporary tables since a savepoint; 0: all of it.
func (s *Session) RollbackTo(ctx context.Context, mark int) error {
	ctx = context.WithoutCancel(ctx) // half of it would be wrong
	var err error
	for i := len(s.temps.undo) - 1; i >= mark && err == nil; i-- {
		if take := s.temps.undo[i].run; take != nil {
			err = take(ctx)
		}
	}
	s.temps.undo, s.temps.mark = s.temps.undo[:mark], mark
	if err != nil {
		s.Discard()
		return errorf(CodeInternal, "the session's temporary tables are lost: %v", err)
	}
	s.unpin()
	return nil
}

// commitTemps ends a transaction for temporary tables: what it dropped goes, and what ON COMMIT says is done.
func (s *Session) commitTemps(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	s.temps.undo, s.temps.mark = nil, 0
	var errs []error
	for key, t := range s.temps.tables {
		switch t.onCommit {
		case "DROP":
			s.temps.dropped = append(s.temps.dropped, t)
			delete(s.temps.tables, key)
		case "DELETE":
			_, err := s.execTemp(ctx, "DELETE FROM "+t.sql(), nil, nil)
			errs = append(errs, err)
		}
	}
	for _, t := range s.temps.dropped {
		_, err := s.execTemp(ctx, "DROP TABLE "+t.sql(), nil, nil)
		errs = append(errs, err)
	}
	s.temps.dropped = nil
	if err := errors.Join(errs...); err != nil {
		s.Discard()
		return errorf(CodeInternal, "the session's temporary tables are lost: %v", err)
	}
	s.unpin()
	return nil
}

// unpin gives the worker to others when the session has no temporary tables.
func (s *Session) unpin() {
	if len(s.temps.tables) == 0 && len(s.temps.dropped) == 0 && len(s.temps.undo) == 0 {
		s.Close()
	}
}

func (s *Session) pin() error {
	if s.pinned != nil {
		return nil
	}
	var err error
	s.pinned, err = s.b.o.Pool.Pin()
	return err
}

// Execute runs a statement on a temporary table and gives the tag for the client. Everything else that is no query is
// refused.
func (s *Session) Execute(ctx context.Context, st *sqltext.Statement, params []Param) (tag string, err error) {
	if tag, err = s.execute(ctx, st, params); err != nil {
		s.unpin()
		return "", err
	}
	if s.tx == nil {
		err = s.commitTemps(ctx)
	}
	return tag, err
}

func (s *Session) execute(ctx context.Context, st *sqltext.Statement, params []Param) (string, error) {
	if at := intoOf(st); at >= 0 {
		create, err := selectInto(st, at)
		if err != nil {
			return "", err
		}
		return s.createTemp(ctx, create, params)
	}
	switch st.Word(0) {
	case "CREATE":
		return s.createTemp(ctx, st, params)
	case "INSERT":
		return s.insertTemp(ctx, st, params)
	case "DROP":
		return s.dropTemp(st)
	}
	return "", readOnly(st)
}

// intoOf gives the place of INTO in SELECT … INTO table …; -1 where the statement is another one.
func intoOf(st *sqltext.Statement) int {
	if w := st.Word(0); w != "SELECT" && w != "WITH" {
		return -1
	}
	depth := 0
	for i := range st.Tokens {
		switch st.Text(i) {
		case "(", "[", "{":
			depth++
		case ")", "]", "}":
			depth--
		}
		if depth > 0 || st.Word(i) != "INTO" {
			continue
		}
		switch before := st.Word(i - 1); {
		case before == "INSERT" || before == "MERGE": // WITH … INSERT INTO …
			return -1
		case before == "AS" || st.Text(i-1) == ".": // a name
			continue
		}
		return i
	}
	return -1
}

// MakesTable tells SELECT … INTO table … from other SELECTs.
func MakesTable(st *sqltext.Statement) bool { return intoOf(st) >= 0 }

// selectInto writes SELECT … INTO TEMP table … as CREATE TEMP TABLE table AS SELECT ….
func selectInto(st *sqltext.Statement, into int) (*sqltext.Statement, error) {
	at := into + 1
	if w := st.Word(at); w == "LOCAL" || w == "GLOBAL" {
		at++
	}
	temporary := st.Word(at) == "TEMP" || st.Word(at) == "TEMPORARY"
	if temporary {
		at++
	}
	if st.Word(at) == "TABLE" {
		at++
	}
	schema, _, end, err := relationName(st, at)
	if err != nil {
		return nil, err
	}
	if !temporary && !isTempSchema(schema) {
		e := errorf(CodeReadOnly, "cannot execute SELECT INTO: this door to the lake is for reading")
		e.Hint = temporaryHint
		return nil, e
	}
	return sqltext.One("CREATE TEMP TABLE " + st.Between(at, end) + " AS " + st.Between(0, into) + " " + st.Rest(end)), nil
}

// relationName reads the name of a relation from the i-th token on and gives the place behind it.
func relationName(st *sqltext.Statement, i int) (schema, name string, next int, err error) {
	name, ok := st.Name(i)
	if ok && st.Text(i+1) == "." {
		schema, i = name, i+2
		name, ok = st.Name(i)
	}
	if !ok {
		return "", "", 0, errorf(CodeSyntax, "syntax error at or near %q: a name is wanted", st.Text(i))
	}
	return schema, name, i + 1, nil
}

// tempNamed gives the temporary table that a schema, "" for none, and a name mean; nil where it is none.
func (s *Session) tempNamed(schema, name string) *temp {
	if schema != "" && !isTempSchema(schema) {
		return nil
	}
	return s.temp(name)
}

// createTemp runs CREATE [LOCAL|GLOBAL] TEMPORARY TABLE [IF NOT EXISTS] name (columns) or … AS query.
func (s *Session) createTemp(ctx context.Context, st *sqltext.Statement, params []Param) (string, error) {
	at := 1
	if w := st.Word(at); w == "LOCAL" || w == "GLOBAL" {
		at++
	}
	temporary := st.Word(at) == "TEMP" || st.Word(at) == "TEMPORARY"
	if temporary {
		at++
	}
	if st.Word(at) != "TABLE" {
		return "", readOnly(st)
	}
	at++
	exists := false
	if st.Word(at) == "IF" && st.Word(at+1) == "NOT" && st.Word(at+2) == "EXISTS" {
		exists = true
		at += 3
	}
	schema, name, at, err := relationName(st, at)
	switch {
	case err != nil:
		return "", err
	case !temporary && !isTempSchema(schema):
		return "", readOnly(st)
	case schema != "" && !isTempSchema(schema):
		return "", errorf("42P16", "cannot create temporary relation in non-temporary schema")
	}
	if had := s.temp(name); had != nil {
		if exists {
			return "CREATE TABLE", nil
		}
		e := errorf(CodeDuplicateTable, "relation %q already exists", had.name)
		if had.name != name {
			e.Hint = "temporary tables whose names differ in upper and lower case alone cannot be told apart here"
		}
		return "", e
	}
	columns := ""
	if st.Text(at) == "(" {
		columns, at = between(st, at)
	}
	onCommit, as, err := tableOptions(st, at)
	if err != nil {
		return "", err
	}
	if err := s.pin(); err != nil {
		return "", err
	}
	t := &temp{name: name, worker: s.workerName(name), onCommit: onCommit}
	tag := "CREATE TABLE"
	if as < 0 {
		definitions, err := columnDefinitions(sqltext.One(columns), 0)
		if err != nil {
			return "", err
		}
		if _, err := s.execTemp(ctx, "CREATE TEMP TABLE "+t.sql()+" ("+definitions+")", nil, nil); err != nil {
			return "", err
		}
	} else {
		names, err := columnNames(sqltext.One(columns))
		if err != nil {
			return "", err
		}
		query, noData := withData(st, as)
		shipped, r, err := s.plan(ctx, withValues(sqltext.One(query), params), true)
		if err != nil {
			return "", err
		}
		sql := "CREATE TEMP TABLE " + t.sql() + names + " AS " + shipped.SQL
		if noData {
			sql = "CREATE TEMP TABLE " + t.sql() + names + " AS SELECT * FROM (" + shipped.SQL + "\n) LIMIT 0"
		}
		n, err := s.execTemp(ctx, sql, shipped, r)
		if err != nil {
			return "", err
		}
		tag = "SELECT " + strconv.FormatInt(n, 10)
	}
	s.temps.tables[strings.ToLower(name)] = t
	s.changed(t, func(ctx context.Context) error {
		delete(s.temps.tables, strings.ToLower(name))
		_, err := s.execTemp(ctx, "DROP TABLE "+t.sql(), nil, nil)
		return err
	})
	return tag, nil
}

// changed notes how to take back a change of the transaction.
func (s *Session) changed(t *temp, run func(ctx context.Context) error) {
	s.temps.undo = append(s.temps.undo, undo{t, run})
}

// workerName gives a name that no other table in the worker has.
func (s *Session) workerName(name string) string {
	for taken := true; taken; {
		is := func(t *temp) bool { return strings.EqualFold(t.worker, name) }
		taken = slices.ContainsFunc(s.temps.dropped, is)
		for _, t := range s.temps.tables {
			taken = taken || is(t)
		}
		if taken {
			name += "_"
		}
	}
	return name
}

// between gives the text of the brackets that open at the i-th token, with them, and the place behind it.
func between(st *sqltext.Statement, i int) (text string, next int) {
	depth := 0
	for next = i; next < len(st.Tokens); next++ {
		switch st.Text(next) {
		case "(":
			depth++
		case ")":
			depth--
		}
		if depth == 0 {
			next++
			break
		}
	}
	return st.Between(i, next), next
}

// columnNames reads "(a, b)" and writes it for DuckDB; "" stays.
func columnNames(st *sqltext.Statement) (string, error) {
	if len(st.Tokens) == 0 {
		return "", nil
	}
	var names []string
	for i := 1; i < len(st.Tokens); i += 2 {
		name, ok := st.Name(i)
		if end := st.Text(i + 1); !ok || end != "," && (end != ")" || i+2 < len(st.Tokens)) {
			return "", errorf(CodeSyntax, "syntax error at or near %q", st.Text(i+1))
		}
		names = append(names, sqltext.QuoteName(name))
	}
	return " (" + strings.Join(names, ", ") + ")", nil
}

// tableOptions reads what stands between a table's columns and AS: as is the place of the query, -1 without.
func tableOptions(st *sqltext.Statement, at int) (onCommit string, as int, err error) {
	for at < len(st.Tokens) {
		switch word := st.Word(at); {
		case word == "AS":
			return onCommit, at + 1, nil
		case word == "ON" && st.Word(at+1) == "COMMIT":
			onCommit = st.Word(at + 2)
			at += 4
			switch rows := st.Word(at - 1); {
			case onCommit == "DROP":
				at--
			case onCommit == "DELETE" && rows == "ROWS":
			case onCommit == "PRESERVE" && rows == "ROWS":
				onCommit = ""
			default:
				return "", 0, errorf(CodeSyntax, "syntax error at or near %q", st.Text(at-2))
			}
		case word == "WITH" && st.Text(at+1) == "(": // storage parameters
			_, at = between(st, at+1)
		case word == "WITHOUT" && st.Word(at+1) == "OIDS", word == "USING", word == "TABLESPACE":
			at += 2
		default:
			return "", 0, errorf(CodeSyntax, "syntax error at or near %q", st.Text(at))
		}
	}
	return onCommit, -1, nil
}

// withData cuts WITH [NO] DATA off the end of a query.
func withData(st *sqltext.Statement, at int) (query string, no bool) {
	end := len(st.Tokens)
	if st.Word(end-1) == "DATA" {
		if st.Word(end-2) == "NO" && st.Word(end-3) == "WITH" {
			return st.Between(at, end-3), true
		}
		if st.Word(end-2) == "WITH" {
			return st.Between(at, end-2), false
		}
	}
	return st.Rest(at), false
}

func (s *Session) insertTemp(ctx context.Context, st *sqltext.Statement, params []Param) (string, error) {
	schema, name, at, err := relationName(st, 2)
	t := s.tempNamed(schema, name)
	if st.Word(1) != "INTO" || err != nil || t == nil {
		return "", readOnly(st)
	}
	into := ""
	if st.Text(at) == "(" && st.Word(at+1) != "SELECT" && st.Word(at+1) != "VALUES" {
		list, next := between(st, at)
		if into, err = columnNames(sqltext.One(list)); err != nil {
			return "", err
		}
		at = next
	}
	shipped, r, err := s.plan(ctx, withValues(sqltext.One(st.Rest(at)), params), true)
	if err != nil {
		return "", err
	}
	// What an earlier change of this table takes back is more than what this one would.
	if noted := slices.ContainsFunc(s.temps.undo[s.temps.mark:], func(u undo) bool { return u.table == t }); s.tx != nil && !noted {
		rows, err := s.execTemp(ctx, "SELECT count(*) FROM "+t.sql(), nil, nil)
		if err != nil {
			return "", errors.Join(err, shipped.Close())
		}
		s.changed(t, func(ctx context.Context) error {
			_, err := s.execTemp(ctx, fmt.Sprintf("DELETE FROM %s WHERE rowid IN (SELECT rowid FROM %[1]s ORDER BY rowid OFFSET %d)", t.sql(), rows), nil, nil)
			return err
		})
	}
	n, err := s.execTemp(ctx, "INSERT INTO "+t.sql()+into+" "+shipped.SQL, shipped, r)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("INSERT 0 %d", n), nil
}

// dropTemp runs DROP TABLE [IF EXISTS] name [CASCADE|RESTRICT].
func (s *Session) dropTemp(st *sqltext.Statement) (string, error) {
	if st.Word(1) != "TABLE" {
		return "", readOnly(st)
	}
	at, exists := 2, false
	if st.Word(at) == "IF" && st.Word(at+1) == "EXISTS" {
		at, exists = at+2, true
	}
	schema, name, at, err := relationName(st, at)
	if w := st.Word(at); err != nil || at < len(st.Tokens) && w != "CASCADE" && w != "RESTRICT" {
		return "", readOnly(st)
	}
	t := s.tempNamed(schema, name)
	if t == nil {
		if _, mine := s.b.table(s.Role, name); mine || s.b.view(s.Role, name) != nil {
			return "", readOnly(st)
		}
		if exists {
			return "DROP TABLE", nil
		}
		return "", errorf(CodeTable, "table %q does not exist", name)
	}
	s.drop(t)
	return "DROP TABLE", nil
}

// drop takes a table out of the session's; the worker's goes when the transaction is committed.
func (s *Session) drop(t *temp) {
	key := strings.ToLower(t.name)
	delete(s.temps.tables, key)
	s.temps.dropped = append(s.temps.dropped, t)
	s.changed(t, func(context.Context) error {
		s.temps.tables[key] = t
		s.temps.dropped = s.temps.dropped[:len(s.temps.dropped)-1] // changes are taken back in their order
		return nil
	})
}

// execTemp runs a statement that this package has put together and gives the number of rows that it made.
func (s *Session) execTemp(ctx context.Context, sql string, shipped *duckdb.Shipped, r *resolver) (n int64, err error) {
	q := &worker.Request{SQL: sql}
	if shipped != nil {
		q.Steps = shipped.Steps
		r.catalogue(q)
		defer func() { err = errors.Join(err, shipped.Close()) }()
	}
	res, err := s.run(ctx, q)
	if err != nil {
		return 0, err
	}
	rows := &Rows{result: res}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for {
		b, err := rows.Next()
		if err != nil {
			return 0, err
		}
		if b == nil {
			return n, nil
		}
		if b.NumRows() > 0 && b.NumCols() > 0 {
			if c, ok := b.Column(0).(*array.Int64); ok {
				n = c.Value(0)
			}
		}
	}
}

// tempRelations are the session's temporary tables for the catalogue.
func (s *Session) tempRelations(ctx context.Context) ([]pgcatalog.Relation, error) {
	var out []pgcatalog.Relation
	for _, t := range s.temps.tables {
		rel := pgcatalog.Relation{Schema: pgcatalog.TempSchema, Name: t.name, Rows: -1}
		res, err := s.run(ctx, &worker.Request{SQL: `SELECT column_name, column_type, "null" FROM (DESCRIBE ` + t.sql() + ")"})
		if err != nil {
			return nil, err
		}
		rows := &Rows{result: res}
		for {
			b, err := rows.Next()
			if err != nil {
				return nil, errors.Join(err, rows.Close())
			}
			if b == nil {
				break
			}
			for i := range int(b.NumRows()) {
				typ := pgcatalog.TypeOf(b.Column(1).ValueStr(i))
				rel.Columns = append(rel.Columns, pgcatalog.Column{Name: strings.Clone(b.Column(0).ValueStr(i)), Type: typ.OID, Modifier: typ.Modifier, NotNull: b.Column(2).ValueStr(i) == "NO"})
			}
		}
		if err := rows.Close(); err != nil {
			return nil, err
		}
		out = append(out, rel)
	}
	slices.SortFunc(out, func(a, b pgcatalog.Relation) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}
