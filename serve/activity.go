package serve

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/cauce-data/cauce/engine/duckdb"
	"github.com/cauce-data/cauce/serve/pgcatalog"
	"github.com/cauce-data/cauce/serve/sqltext"
)

// States of a session, as pg_stat_activity has them.
const (
	StateActive  = "active"
	StateIdle    = "idle"
	StateInside  = "idle in transaction"
	StateAborted = "idle in transaction (aborted)"
)

// Activity is what one client is doing, for others to see in pg_stat_activity and to end with pg_cancel_backend. Safe for
// concurrent use.
type Activity struct {
	pid    int
	role   *Role
	client net.Addr
	began  time.Time
	// interrupt ends the running statement, terminate the connection.
	interrupt, terminate func()

	mu                        sync.Mutex
	application, query, state string
	transaction, ran, changed time.Time // when each began; zero: never
}

// Enter notes a client until Leave. interrupt ends what it runs, if anything, and terminate its connection.
func (b *Backend) Enter(s *Session, client net.Addr, interrupt, terminate func()) *Activity {
	now := time.Now()
	application, _ := s.Show("application_name")
	a := &Activity{pid: s.PID, role: s.Role, client: client, began: now, interrupt: interrupt, terminate: terminate,
		application: strings.ToValidUTF8(application, "?"), state: StateIdle, changed: now}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clients[a.pid] = a
	return a
}

// Leave forgets a client.
func (b *Backend) Leave(a *Activity) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.clients[a.pid] == a {
		delete(b.clients, a.pid)
	}
}

// Runs notes the statement that begins.
func (a *Activity) Runs(application, sql string) {
	const most = 1024 // bytes; PostgreSQL's track_activity_query_size
	if len(sql) > most {
		sql = sql[:most] // cut inside a character, perhaps
	}
	application, sql = strings.ToValidUTF8(application, "?"), strings.ToValidUTF8(sql, "?")
	a.mu.Lock()
	defer a.mu.Unlock()
	a.application, a.query, a.state = application, sql, StateActive
	a.ran = time.Now()
	a.changed = a.ran
	if a.transaction.IsZero() {
		a.transaction = a.ran
	}
}

// Rests notes that the client has its answer, and the state in which that leaves it.
func (a *Activity) Rests(state string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.state == state {
		return
	}
	a.state, a.changed = state, time.Now()
	if state == StateIdle {
		a.transaction = time.Time{}
	}
}

// A signal is SELECT pg_cancel_backend(PID) or SELECT pg_terminate_backend(PID). It is a statement of its own and runs in this
// process: part of another statement it would be evaluated when that is planned, and in a worker it would wait for what it should end.
type signal struct {
	name string // of the function
	as   string // of the column
	// Whom it is for: the session itself, the number that a parameter has (0: none), or a number.
	own bool
	arg int
	pid string
}

// signalOf tells whether a statement is a signal.
func signalOf(st *sqltext.Statement) (signal, bool) {
	var c signal
	at := 0
	next := func(want string) bool {
		ok := st.Word(at) == want || st.Word(at) == "" && st.Text(at) == want
		if ok {
			at++
		}
		return ok
	}
	if !next("SELECT") || next("PG_CATALOG") && !next(".") {
		return c, false
	}
	if c.name = strings.ToLower(st.Word(at)); c.name != "pg_cancel_backend" && c.name != "pg_terminate_backend" {
		return c, false
	}
	c.as = c.name
	if at++; !next("(") {
		return c, false
	}
	minus := next("-")
	switch text, isText := st.Literal(at); {
	case at >= len(st.Tokens):
		return c, false
	case st.Tokens[at].Kind == sqltext.Number:
		c.pid = st.Text(at)
	case isText:
		c.pid = text
	case st.Tokens[at].Kind == sqltext.Param:
		if c.arg, _ = strconv.Atoi(st.Text(at)[1:]); c.arg < 1 {
			return c, false
		}
	case st.Word(at) == "PG_BACKEND_PID" && st.Text(at+1) == "(" && st.Text(at+2) == ")":
		c.own = true
		at += 2
	default:
		return c, false
	}
	if minus {
		c.pid = "-" + c.pid
	}
	if at++; next("::") && !next("INT") && !next("INT4") && !next("INTEGER") || !next(")") {
		return c, false
	}
	if as := next("AS"); as || at < len(st.Tokens) {
		var ok bool
		if c.as, ok = st.Name(at); !ok {
			return c, false
		}
		at++
	}
	return c, at == len(st.Tokens)
}

// columns describe the answer.
func (c signal) columns() *Rows {
	r := &Rows{Columns: []Column{{Name: c.as, Type: "BOOLEAN"}}}
	for range c.arg {
		r.Params = append(r.Params, "INTEGER")
	}
	return r
}

// send does what the signal says. The answer is false where there is no such client, and null for a null.
func (s *Session) send(c signal, params []Param) (*Rows, error) {
	text, known := c.pid, true
	switch {
	case c.arg > len(params):
		return nil, errorf(CodeProtocol, "there is no parameter $%d", c.arg)
	case c.arg > 0 && params[c.arg-1].Text == nil:
		known = false
	case c.arg > 0:
		text = *params[c.arg-1].Text
	case c.own:
		text = strconv.Itoa(s.PID)
	}
	out := c.columns()
	b := newBatch([]arrow.Field{{Name: c.as, Type: arrow.FixedWidthTypes.Boolean, Nullable: true}})
	defer b.Release()
	to := b.Field(0).(*array.BooleanBuilder)
	if known {
		pid, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil {
			return nil, errorf("22P02", "invalid input syntax for type integer: %q", text)
		}
		done, err := s.signal(pid, c.name == "pg_terminate_backend")
		if err != nil {
			return nil, err
		}
		to.Append(done)
	} else {
		to.AppendNull()
	}
	out.local = []arrow.RecordBatch{b.NewRecordBatch()}
	return out, nil
}

// signal does what pg_cancel_backend and pg_terminate_backend do. False: there is no such client.
func (s *Session) signal(pid int, terminate bool) (bool, error) {
	s.b.mu.Lock()
	a := s.b.clients[pid]
	s.b.mu.Unlock()
	switch {
	case a == nil:
		return false, nil
	case a.role != s.Role:
		what := map[bool]string{false: "cancel query", true: "terminate process"}[terminate]
		return false, &Error{Code: CodePermission, Message: "permission denied to " + what, Hint: "only a session of the same role may do that"}
	case terminate:
		a.terminate()
	default:
		a.interrupt()
	}
	return true, nil
}

// activity is the view pg_stat_activity: the clients of this server. Of another role's it shows what PostgreSQL shows.
func (r *resolver) activity() (duckdb.Relation, error) {
	r.administers = true
	if _, err := r.needCatalogue(); err != nil { // it has the types of the columns
		return duckdb.Relation{}, err
	}
	columns, err := pgcatalog.Columns("pg_stat_activity")
	if err != nil {
		return duckdb.Relation{}, err
	}
	var fields []arrow.Field
	for _, c := range columns {
		f := arrow.Field{Name: c.Name, Type: textType, Nullable: true}
		switch c.Type {
		case "oid", "xid", "int8":
			f.Type = longType
		case "int4":
			f.Type = arrow.PrimitiveTypes.Int32
		case "timestamptz":
			f.Type = timeType
		}
		fields = append(fields, f)
	}
	r.s.b.mu.Lock()
	var clients []*Activity
	for _, a := range r.s.b.clients {
		clients = append(clients, a)
	}
	r.s.b.mu.Unlock()
	slices.SortFunc(clients, func(a, b *Activity) int { return a.pid - b.pid })
	b := newBatch(fields)
	defer b.Release()
	for _, a := range clients {
		row := a.row(a.role == r.s.Role)
		for i, f := range fields {
			appendValue(b.Field(i), row[f.Name])
		}
	}
	rec := b.NewRecordBatch()
	return duckdb.Relation{Schema: rec.Schema(), Rows: []arrow.RecordBatch{rec}}, nil
}

// row gives the values by column.
func (a *Activity) row(own bool) map[string]any {
	a.mu.Lock()
	defer a.mu.Unlock()
	row := map[string]any{
		"datid": pgcatalog.OID("database", Database), "datname": Database, "pid": int64(a.pid), "usesysid": pgcatalog.OID("role", a.role.Name), "usename": a.role.Name,
		"application_name": a.application,
	}
	if !own {
		row["query"] = "<insufficient privilege>"
		return row
	}
	moment := func(column string, t time.Time) {
		if !t.IsZero() {
			row[column] = t
		}
	}
	moment("backend_start", a.began)
	moment("xact_start", a.transaction)
	moment("query_start", a.ran)
	moment("state_change", a.changed)
	row["state"], row["query"], row["backend_type"] = a.state, a.query, "client backend"
	if a.state != StateActive {
		row["wait_event_type"], row["wait_event"] = "Client", "ClientRead"
	}
	if a.client != nil {
		host, port, err := net.SplitHostPort(a.client.String())
		if n, perr := strconv.ParseInt(port, 10, 32); err == nil && perr == nil {
			row["client_addr"], row["client_port"] = host, n
		}
	}
	return row
}
