package serve

import (
	"net"
	"slices"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/cauce-data/cauce/engine/duckdb"
	"github.com/cauce-data/cauce/serve/pgcatalog"
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
	a := &Activity{pid: s.PID, role: s.Role, client: client, began: now, interrupt: interrupt, terminate: terminate, state: StateIdle, changed: now}
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
		sql = sql[:most]
		for !utf8.ValidString(sql) {
			sql = sql[:len(sql)-1]
		}
	}
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
