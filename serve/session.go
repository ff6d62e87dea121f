package serve

import (
	"cmp"
	"context"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/engine/duckdb"
	"github.com/cauce-data/cauce/serve/sqltext"
	"github.com/cauce-data/cauce/serve/worker"
)

// Session is what one client has: who it is, its settings, its transaction and its temporary tables. It is used by one
// goroutine at a time.
type Session struct {
	b    *Backend
	Role *Role
	PID  int
	*Settings
	// AtUnit and At say, as AT (unit => at) does, which version of its tables a statement reads that does not say it; "": the
	// newest.
	AtUnit, At string

	tx     map[string]*delta.Snapshot // by table; nil: no transaction
	habit  worker.Habit
	pinned *worker.Pinned
	temps  temps
}

// Session opens a session for a role.
func (b *Backend) Session(r *Role, pid int) *Session {
	return &Session{b: b, Role: r, PID: pid, Settings: newSettings(r), temps: temps{tables: map[string]*temp{}}}
}

// Close gives back what the session holds.
func (s *Session) Close() {
	if s.pinned != nil {
		s.pinned.Close()
		s.pinned = nil
	}
}

// Begin starts a transaction: from its first statement on that reads a table, it sees one version of each.
func (s *Session) Begin() { s.tx = map[string]*delta.Snapshot{} }

// InTransaction tells whether there is one.
func (s *Session) InTransaction() bool { return s.tx != nil }

// End ends the transaction, if there is one. What it changed of temporary tables stays, or is undone.
func (s *Session) End(ctx context.Context, rollback bool) error {
	if s.tx == nil {
		return nil
	}
	s.tx = nil
	if rollback {
		return s.RollbackTo(ctx, 0)
	}
	return s.commitTemps(ctx)
}

// snapshot gives the version of a table that the session sees. In a transaction the first look takes all tables that
// the role reads, so that they are of one moment.
func (s *Session) snapshot(ctx context.Context, name string) (*delta.Snapshot, error) {
	if s.tx == nil {
		return s.b.snapshot(ctx, name)
	}
	if len(s.tx) == 0 {
		for _, name := range s.b.read(s.Role) {
			snap, err := s.b.snapshot(ctx, name)
			if notWritten(err) {
				continue
			}
			if err != nil {
				return nil, err
			}
			s.tx[name] = snap
		}
	}
	if snap := s.tx[name]; snap != nil {
		return snap, nil
	}
	return nil, s.b.notYet(name, delta.ErrNotATable)
}

// Param is the value of a parameter as text; nil is null.
type Param struct {
	Text *string
	Type string // DuckDB's name of the type; "": nobody said
}

// Column is a column of a result.
type Column struct {
	Name string
	Type string // DuckDB's name of the type
	// Catalogue is the column of PostgreSQL's catalogue that it shows, "" where it is none.
	Catalogue string
}

// Rows is a running statement. The caller closes it.
type Rows struct {
	Columns []Column
	Params  []string                 // of a described statement
	Read    map[string]delta.Version // the versions of the tables that the statement reads, by name

	result  *worker.Result
	reader  *ipc.Reader
	shipped *duckdb.Shipped
	local   []arrow.RecordBatch // instead of a worker's
	err     error
}

// open waits for the head of the worker's stream.
func (r *Rows) open() error {
	if r.reader == nil && r.err == nil {
		if r.reader, r.err = r.result.Rows(); r.err != nil {
			r.err = r.result.Err(r.err)
		}
	}
	return r.err
}

// Schema gives the types of the batches. It waits for the first one, and is asked before it is taken.
func (r *Rows) Schema() (*arrow.Schema, error) {
	if r.result == nil {
		if len(r.local) == 0 {
			return arrow.NewSchema(nil, nil), nil
		}
		return r.local[0].Schema(), nil
	}
	if err := r.open(); err != nil {
		return nil, err
	}
	return r.reader.Schema(), nil
}

// Next gives the next batch, good until the next call; nil at the end.
func (r *Rows) Next() (arrow.RecordBatch, error) {
	if r.result == nil {
		if len(r.local) == 0 {
			return nil, nil
		}
		b := r.local[0]
		r.local = r.local[1:]
		return b, nil
	}
	if r.err != nil {
		return nil, r.err
	}
	if err := r.open(); err != nil {
		return nil, err
	}
	if r.reader.Next() {
		return r.reader.RecordBatch(), nil
	}
	if r.err = r.result.Err(r.reader.Err()); r.err != nil {
		return nil, r.err
	}
	return nil, nil
}

// Close ends the statement.
func (r *Rows) Close() error {
	var errs []error
	if r.reader != nil {
		r.reader.Release()
	}
	if r.result != nil {
		errs = append(errs, r.result.Close())
	}
	if r.shipped != nil {
		errs = append(errs, r.shipped.Close())
	}
	return errors.Join(errs...)
}

// TextRows are rows of texts that no worker has made, such as those of SHOW.
func TextRows(names []string, rows ...[]string) *Rows {
	r := &Rows{}
	fields := make([]arrow.Field, len(names))
	for i, n := range names {
		fields[i] = arrow.Field{Name: n, Type: arrow.BinaryTypes.String, Nullable: true}
		r.Columns = append(r.Columns, Column{Name: n, Type: "VARCHAR"})
	}
	b := newBatch(fields)
	for _, row := range rows {
		for i, v := range row {
			b.Field(i).(*array.StringBuilder).Append(v)
		}
	}
	r.local = []arrow.RecordBatch{b.NewRecordBatch()}
	return r
}

// plan makes a query ready for a worker.
func (s *Session) plan(ctx context.Context, sql string, run bool) (*duckdb.Shipped, *resolver, error) {
	r := &resolver{s: s, run: run, ctx: ctx}
	shipped, err := s.ship(ctx, sql, r)
	return shipped, r, err
}

func (s *Session) ship(ctx context.Context, sql string, r *resolver) (*duckdb.Shipped, error) {
	if shipped, err := r.described(ctx, sql); shipped != nil || err != nil {
		return shipped, err
	}
	return s.b.o.Engine.Ship(ctx, forParser(sql), s.Zone(), r)
}

func (s *Session) run(ctx context.Context, q *worker.Request) (*worker.Result, error) {
	q.Zone = s.Zone()
	if s.pinned == nil {
		return s.b.o.Pool.Run(ctx, q, &s.habit)
	}
	if s.pinned.Lost() {
		s.Discard()
		return nil, errorf(CodeInternal, "the session's temporary tables are lost: the process that held them has ended")
	}
	return s.pinned.Run(ctx, q)
}

// Query runs a statement that gives rows: SELECT, VALUES, EXPLAIN of one, or what Describes.
func (s *Session) Query(ctx context.Context, st *sqltext.Statement, params []Param) (*Rows, error) {
	if c, ok := signalOf(st); ok {
		return s.send(c, params)
	}
	sql, prefix := st.SQL, ""
	if st.Word(0) == "EXPLAIN" {
		at, err := explained(st)
		if err != nil {
			return nil, err
		}
		prefix, sql = "EXPLAIN ", st.Rest(at)
	}
	sql = withValues(sqltext.One(sql), params)
	var out *Rows
	for {
		var err error
		if out, err = s.query(ctx, sql, prefix); err == nil {
			break
		}
		again, ok := withWholeTime(sql, err)
		if !ok {
			return nil, err
		}
		sql = again
	}
	if prefix != "" {
		return explainRows(out)
	}
	return out, nil
}

func (s *Session) query(ctx context.Context, sql, prefix string) (*Rows, error) {
	shipped, r, err := s.plan(ctx, sql, true)
	if err != nil {
		return nil, err
	}
	if prefix != "" && r.views && !s.Role.Whole() { // a plan shows what is inside the view, and how many rows there are
		return nil, errors.Join(errorf(CodePermission, "permission denied: EXPLAIN of a view is for roles that see everything"), shipped.Close())
	}
	q := &worker.Request{Steps: shipped.Steps, SQL: prefix + shipped.SQL, Spare: r.administers}
	r.catalogue(q)
	res, err := s.run(ctx, q)
	if err != nil {
		return nil, errors.Join(err, shipped.Close())
	}
	out := &Rows{result: res, shipped: shipped, Read: r.read, Columns: columns(res.Columns, shipped, r, prefix != "")}
	if shortTime.MatchString(sql) { // its error comes with the first rows
		if err := out.open(); err != nil {
			return nil, errors.Join(err, out.Close())
		}
	}
	return out, nil
}

var (
	badTime   = regexp.MustCompile(`invalid (timestamp|date) field format: "([^"]*)"`)
	shortTime = regexp.MustCompile(`(\d{4}-\d\d-\d\d)(?:[ T](\d\d:\d\d))? ?([+-]\d\d(?::?\d\d)?|[A-Za-z]\w*(?:/\w+)*)`)
)

// withWholeTime writes the text of a time that has a zone and no seconds, or is a date with a zone (drivers for JDBC send dates
// so), as DuckDB reads it; PostgreSQL takes it. It is called with the error by which DuckDB says that it wants a whole time there.
func withWholeTime(sql string, err error) (string, bool) {
	m := badTime.FindStringSubmatch(err.Error())
	if m == nil {
		return "", false
	}
	parts := shortTime.FindStringSubmatch(m[2])
	if parts == nil || parts[0] != m[2] {
		return "", false
	}
	with := parts[1]
	if m[1] == "timestamp" {
		with += " " + cmp.Or(parts[2], "00:00") + ":00"
		if parts[3] != "Z" && !strings.ContainsAny(parts[3][:1], "+-") { // the name of a zone
			with += " "
		}
		with += parts[3]
	}
	st := sqltext.One(sql)
	changed := false
	out := st.Replace(func(i int) (string, bool) {
		v, ok := st.Literal(i)
		if !ok || v != m[2] {
			return "", false
		}
		changed = true
		return sqltext.Quote(with), true
	})
	return out, changed
}

// Describe gives the types of a statement's parameters and columns. types are those that the client gave, "" for none.
func (s *Session) Describe(ctx context.Context, st *sqltext.Statement, types []string) (*Rows, error) {
	if c, ok := signalOf(st); ok {
		return c.columns(), nil
	}
	sql := st.SQL
	if st.Word(0) == "EXPLAIN" {
		return &Rows{Columns: []Column{{Name: "QUERY PLAN", Type: "VARCHAR"}}}, nil
	}
	typed := func(types []string) string {
		one := sqltext.One(sql)
		return one.Replace(func(i int) (string, bool) {
			if one.Tokens[i].Kind != sqltext.Param {
				return "", false
			}
			n, err := strconv.Atoi(one.Text(i)[1:])
			if err != nil || n < 1 || n > len(types) || types[n-1] == "" || types[n-1] == "VARCHAR" {
				return "", false
			}
			return "CAST($" + strconv.Itoa(n) + " AS " + types[n-1] + ")", true
		})
	}
	describe := func(sql string, infer bool) (*Rows, error) {
		r := &resolver{s: s, infer: infer, inferred: map[int]string{}, ctx: ctx}
		shipped, err := s.ship(ctx, sql, r)
		if err != nil {
			return nil, err
		}
		q := &worker.Request{Steps: shipped.Steps, SQL: shipped.SQL, Describe: true, Spare: r.administers}
		r.catalogue(q)
		res, err := s.run(ctx, q)
		err = errors.Join(err, shipped.Close())
		if res != nil {
			err = errors.Join(err, res.Close())
		}
		if err != nil {
			return nil, err
		}
		params := res.Params
		for at, typ := range r.inferred {
			for len(params) < at {
				params = append(params, "")
			}
			params[at-1] = typ
		}
		return &Rows{Params: params, Columns: columns(res.Columns, shipped, r, false)}, nil
	}
	rows, err := describe(typed(types), false)
	if err != nil {
		return nil, err
	}
	// What nothing tells is of the type that stands beside it, else text; then the columns are known too.
	if !rows.known(types) {
		if again, err := describe(typed(types), true); err == nil {
			rows = again
		}
	}
	if !rows.known(types) {
		all := make([]string, max(len(types), len(rows.Params)))
		copy(all, types)
		for i := range all {
			switch {
			case all[i] != "":
			case i < len(rows.Params) && rows.Params[i] != "" && rows.Params[i] != "NULL":
				all[i] = rows.Params[i]
			default:
				all[i] = "TEXT" // a cast, unlike VARCHAR
			}
		}
		if again, err := describe(typed(all), false); err == nil {
			again.Params = all
			rows = again
		}
	}
	return rows, nil
}

// known tells whether the types of all columns are, and of all parameters that have none of types.
func (r *Rows) known(types []string) bool {
	for _, c := range r.Columns {
		if c.Type == "" {
			return false
		}
	}
	for i, t := range r.Params {
		if (t == "" || t == "NULL") && (i >= len(types) || types[i] == "") {
			return false
		}
	}
	return len(r.Columns) > 0
}

// columns joins what the worker and what the tree tell of a result's columns.
func columns(types []duckdb.ColumnType, shipped *duckdb.Shipped, r *resolver, plain bool) []Column {
	out := make([]Column, len(types))
	for i, t := range types {
		out[i] = Column{Name: t.Name, Type: t.Type}
	}
	if plain || r == nil || !r.usesCatalogue {
		return out
	}
	star := false
	for _, c := range shipped.Columns {
		star = star || c.Star
	}
	for i := range out {
		switch {
		case star:
			out[i].Catalogue = out[i].Name
		case i < len(shipped.Columns):
			out[i].Catalogue = shipped.Columns[i].Column
		}
	}
	return out
}

// explained gives the place of the statement that an EXPLAIN is about. Options that ask for more or less detail change nothing.
func explained(st *sqltext.Statement) (int, error) {
	at := 1
	for st.Word(at) == "ANALYZE" || st.Word(at) == "VERBOSE" {
		at++
	}
	if st.Text(at) != "(" || st.Text(at+1) == "(" || duckdb.BeginsQuery(st.Word(at+1)) {
		return at, nil
	}
	for at++; at < len(st.Tokens) && st.Text(at) != ")"; at++ {
		if format := strings.ToUpper(strings.Trim(st.Text(at+1), "'")); st.Word(at) == "FORMAT" && format != "TEXT" {
			return 0, errorf(CodeNotSupported, "EXPLAIN (FORMAT %s): plans are given as text", format)
		}
	}
	return at + 1, nil
}

// explainRows makes one column of texts, a line a row, of DuckDB's answer to EXPLAIN.
func explainRows(r *Rows) (*Rows, error) {
	var lines [][]string
	for {
		b, err := r.Next()
		if err != nil {
			return nil, errors.Join(err, r.Close())
		}
		if b == nil {
			break
		}
		col, ok := b.Column(int(b.NumCols()) - 1).(*array.String)
		if !ok {
			continue
		}
		for i := range col.Len() {
			for line := range strings.SplitSeq(strings.TrimRight(col.Value(i), "\n"), "\n") {
				lines = append(lines, []string{strings.TrimRight(line, " ")})
			}
		}
	}
	return TextRows([]string{"QUERY PLAN"}, lines...), r.Close()
}

// withValues puts values in the places of parameters.
func withValues(st *sqltext.Statement, params []Param) string {
	return st.Replace(func(i int) (string, bool) {
		if st.Tokens[i].Kind != sqltext.Param {
			return "", false
		}
		n, err := strconv.Atoi(st.Text(i)[1:])
		if err != nil || n < 1 || n > len(params) {
			return "", false
		}
		p := params[n-1]
		switch {
		case p.Text == nil && p.Type == "":
			return "NULL", true
		case p.Text == nil:
			return "CAST(NULL AS " + p.Type + ")", true
		case p.Type == "BLOB":
			return "from_hex(" + sqltext.Quote(strings.TrimPrefix(*p.Text, `\x`)) + ")", true
		case p.Type == "" || p.Type == "VARCHAR" || p.Type == "NULL":
			return "(" + sqltext.Quote(*p.Text) + ")", true
		}
		return "CAST(" + sqltext.Quote(*p.Text) + " AS " + p.Type + ")", true
	})
}

// changing are the verbs of statements that PostgreSQL or DuckDB know and that no reader needs.
var changing = []string{
	"ALTER", "ATTACH", "CALL", "CHECKPOINT", "CLUSTER", "COMMENT", "CREATE", "DELETE", "DETACH", "DO", "DROP", "EXECUTE", "EXPORT", "FORCE", "GRANT", "IMPORT", "INSERT", "INSTALL", "LOAD",
	"MERGE", "NOTIFY", "OPTIMIZE", "PRAGMA", "PREPARE", "REASSIGN", "REFRESH", "REINDEX", "RESTORE", "REVOKE", "SECURITY", "TRUNCATE", "UPDATE", "USE", "VACUUM",
}

// readOnly refuses what is no query.
func readOnly(st *sqltext.Statement) error {
	verb := st.Word(0)
	if !slices.Contains(changing, verb) {
		return errorf(CodeSyntax, "syntax error at or near %q", st.Text(0))
	}
	e := errorf(CodeReadOnly, "cannot execute %s: this door to the lake is for reading", verb)
	e.Hint = temporaryHint
	return e
}

const temporaryHint = "temporary tables can be made (CREATE TEMPORARY TABLE … AS SELECT …); cauce query --write changes tables"

// columnDefinitions reads "(a int, b text not null)" from the i-th token on and writes it for DuckDB.
func columnDefinitions(st *sqltext.Statement, i int) (string, error) {
	var out []string
	var cur []string
	depth := 0
	for ; i < len(st.Tokens); i++ {
		text := st.Text(i)
		switch {
		case text == "(":
			depth++
			if depth > 1 {
				cur = append(cur, "(")
			}
		case text == ")":
			depth--
			if depth > 0 {
				cur = append(cur, ")")
			}
		case text == "," && depth == 1:
			out = append(out, strings.Join(cur, " "))
			cur = nil
		default:
			switch word := st.Word(i); {
			case len(cur) == 0:
				name, ok := st.Name(i)
				if !ok {
					return "", errorf(CodeSyntax, "syntax error at or near %q: the name of a column is wanted", text)
				}
				cur = append(cur, sqltext.QuoteName(name))
			case word == "COLLATE" || word == "DEFAULT" || word == "REFERENCES" || word == "CHECK" || word == "GENERATED" || word == "AS":
				return "", errorf(CodeNotSupported, "%s in a temporary table is not supported", word)
			case word != "" || st.Tokens[i].Kind == sqltext.Number || text == "," || text == "[" || text == "]":
				if len(cur) == 1 { // the type
					switch own := typeFor(st, i); own {
					case numericType: // a column has a fixed number of digits
						text = "DECIMAL(38,12)"
					case "double", "json":
						text = own
					}
				}
				cur = append(cur, text)
			default:
				return "", errorf(CodeSyntax, "syntax error at or near %q", text)
			}
		}
		if depth == 0 {
			break
		}
	}
	if len(cur) > 0 {
		out = append(out, strings.Join(cur, " "))
	}
	if len(out) == 0 {
		return "", errorf(CodeNotSupported, "a temporary table needs columns")
	}
	return strings.Join(out, ", "), nil
}
