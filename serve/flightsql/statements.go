package flightsql

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/flight"
	fsql "github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cauce-data/cauce/serve"
	"github.com/cauce-data/cauce/serve/sqltext"
)

// result is a statement that runs or has run, and waits for its ticket.
type result struct {
	role    *serve.Role
	rows    *serve.Rows
	schema  *arrow.Schema
	cancel  context.CancelCauseFunc
	expires time.Time
	taken   bool // it is being sent
	sql     string
	start   time.Time
}

// prepared is a prepared statement with the parameters that were bound last.
type prepared struct {
	role        *serve.Role
	st          *sqltext.Statement
	transaction string
	columns     *arrow.Schema
	used        time.Time
	params      []serve.Param
}

// transaction is a session whose statements read one version of each table.
type transaction struct {
	role *serve.Role
	used time.Time

	mu      sync.Mutex // one statement begins at a time
	session *serve.Session
}

var (
	errCancelled = &serve.Error{Code: serve.CodeCancelled, Message: "canceling statement due to user request"}
	errTimeout   = &serve.Error{Code: serve.CodeCancelled, Message: "canceling statement due to statement timeout"}
)

// newHandle is the name of something, which nobody can guess.
func newHandle() (string, error) {
	b := make([]byte, 16)
	_, err := rand.Read(b)
	return string(b), err
}

func unknown(what string) error {
	return status.Errorf(codes.NotFound, "there is no such %s: it has ended, or never was", what)
}

// sweep forgets what nobody has used for too long.
func (s *Server) sweep(now time.Time) {
	var ended []*result
	s.mu.Lock()
	for k, r := range s.results {
		if !r.taken && now.After(r.expires) {
			ended = append(ended, r)
			delete(s.results, k)
		}
	}
	for k, p := range s.prepared {
		if now.Sub(p.used) > stateLifetime {
			delete(s.prepared, k)
		}
	}
	for k, t := range s.transactions {
		if now.Sub(t.used) > stateLifetime {
			delete(s.transactions, k)
		}
	}
	s.mu.Unlock()
	for _, r := range ended {
		r.close()
	}
}

func (s *Server) closeAll() {
	s.mu.Lock()
	all := s.results
	s.results = map[string]*result{}
	s.mu.Unlock()
	for _, r := range all {
		if !r.taken {
			r.close()
		}
	}
}

func (r *result) close() {
	r.cancel(errCancelled)
	_ = r.rows.Close() // its statement has been told to end
}

// session gives the session in which a statement runs, and how to leave it.
func (s *Server) session(role *serve.Role, id string) (*serve.Session, func(), error) {
	if id == "" {
		own := s.o.Backend.Session(role, 0)
		return own, own.Close, nil
	}
	s.mu.Lock()
	t := s.transactions[id]
	if t != nil {
		t.used = time.Now()
	}
	s.mu.Unlock()
	if t == nil || t.role != role {
		return nil, nil, unknown("transaction")
	}
	t.mu.Lock()
	return t.session, t.mu.Unlock, nil
}

// parse takes one statement.
func parse(sql string) (*sqltext.Statement, error) {
	list := sqltext.Split(sql)
	if len(list) != 1 {
		return nil, status.Errorf(codes.InvalidArgument, "one statement is wanted, not %d (SQLSTATE %s)", len(list), serve.CodeSyntax)
	}
	st, err := numbered(list[0])
	if err != nil {
		return nil, statusOf(err)
	}
	return st, nil
}

// run starts a statement. It goes on when ctx has ended, unless it ends before the first rows are there.
func (s *Server) run(ctx context.Context, st *sqltext.Statement, params []serve.Param, tx string) (*result, error) {
	if n := parameters(st); n != len(params) {
		return nil, statusOf(&serve.Error{Code: serve.CodeProtocol, Message: fmt.Sprintf("the statement has %d parameters, and %d values are bound", n, len(params))})
	}
	r := &result{role: roleOf(ctx), sql: st.SQL, start: time.Now(), expires: time.Now().Add(ticketLifetime)}
	err := r.begin(ctx, s, st, params, tx)
	if err != nil {
		s.observe(r, err)
		return nil, statusOf(err)
	}
	return r, nil
}

func (r *result) begin(ctx context.Context, s *Server, st *sqltext.Statement, params []serve.Param, tx string) error {
	session, leave, err := s.session(r.role, tx)
	if err != nil {
		return err
	}
	defer leave()
	running, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	r.cancel = cancel
	if limit := s.o.StatementTimeout; limit > 0 {
		timer := time.AfterFunc(limit, func() { cancel(errTimeout) })
		context.AfterFunc(running, func() { timer.Stop() })
	}
	stop := context.AfterFunc(ctx, func() { cancel(errCancelled) })
	defer stop()
	if r.rows, err = session.Query(running, st, params); err == nil {
		if r.schema, err = r.rows.Schema(); err != nil {
			err = errors.Join(err, r.rows.Close())
		}
	}
	if err == nil {
		return nil
	}
	if cause := context.Cause(running); cause != nil && (!serve.Waited(err) || !errors.Is(cause, errTimeout)) {
		err = cause
	}
	cancel(nil)
	return err
}

func (s *Server) observe(r *result, err error) {
	code := "00000"
	if err != nil {
		code = serve.AsError(err).Code
	}
	took := time.Since(r.start)
	if f := s.o.Observe.Statement; f != nil {
		f(took, code)
	}
	s.o.Backend.Log().Debug("statement", "door", "flight", "role", r.role.Name, "sql", clip(r.sql), "code", code, "seconds", took.Seconds(), "error", err)
}

func clip(s string) string {
	const most = 2000
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// keep puts a result under a handle, from which its ticket is made.
func (s *Server) keep(r *result, desc *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	handle, err := newHandle()
	if err == nil {
		s.mu.Lock()
		if len(s.results) < ticketsMax {
			s.results[handle] = r
		} else {
			err = status.Errorf(codes.ResourceExhausted, "%d results wait to be fetched, and no more may; fetch or cancel some", ticketsMax)
		}
		s.mu.Unlock()
	}
	if err != nil {
		r.close()
		return nil, err
	}
	ticket, err := fsql.CreateStatementQueryTicket([]byte(handle))
	if err != nil {
		return nil, err
	}
	return &flight.FlightInfo{
		Schema: flight.SerializeSchema(r.schema, s.Alloc), FlightDescriptor: desc, Endpoint: []*flight.FlightEndpoint{{Ticket: &flight.Ticket{Ticket: ticket}}},
		TotalRecords: -1, TotalBytes: -1,
	}, nil
}

// GetFlightInfoStatement starts a statement.
func (s *Server) GetFlightInfoStatement(ctx context.Context, q fsql.StatementQuery, desc *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	st, err := parse(q.GetQuery())
	if err != nil {
		return nil, err
	}
	r, err := s.run(ctx, st, nil, string(q.GetTransactionId()))
	if err != nil {
		return nil, err
	}
	return s.keep(r, desc)
}

// DoGetStatement sends the rows of a statement that was started.
func (s *Server) DoGetStatement(ctx context.Context, t fsql.StatementQueryTicket) (*arrow.Schema, <-chan flight.StreamChunk, error) {
	handle := string(t.GetStatementHandle())
	s.mu.Lock()
	r := s.results[handle]
	ok := r != nil && r.role == roleOf(ctx) && !r.taken
	if ok {
		r.taken = true
	}
	s.mu.Unlock()
	if !ok {
		return nil, nil, unknown("ticket")
	}
	return r.schema, s.send(ctx, r, func() {
		s.mu.Lock()
		delete(s.results, handle)
		s.mu.Unlock()
	}), nil
}

// send gives a result's batches, cut to what clients take at once, and closes it.
func (s *Server) send(ctx context.Context, r *result, done func()) <-chan flight.StreamChunk {
	out := make(chan flight.StreamChunk)
	go func() {
		defer close(out)
		defer done()
		defer r.close()
		stop := context.AfterFunc(ctx, func() { r.cancel(errCancelled) })
		defer stop()
		put := func(c flight.StreamChunk) bool {
			select {
			case out <- c:
				return true
			case <-ctx.Done():
				if c.Data != nil {
					c.Data.Release()
				}
				return false
			}
		}
		for {
			b, err := r.rows.Next()
			if err != nil || b == nil {
				s.observe(r, err)
				if err != nil {
					put(flight.StreamChunk{Err: statusOf(err)})
				}
				return
			}
			for at, step := int64(0), rowsAtOnce(b); at < b.NumRows(); at += step {
				if !put(flight.StreamChunk{Data: b.NewSlice(at, min(at+step, b.NumRows()))}) {
					s.observe(r, errCancelled)
					return
				}
			}
		}
	}()
	return out
}

// rowsAtOnce is how many rows of a batch one message may have.
func rowsAtOnce(b arrow.RecordBatch) int64 {
	bytes := uint64(0)
	for _, c := range b.Columns() {
		bytes += c.Data().SizeInBytes()
	}
	if bytes <= batchBytesMax {
		return max(1, b.NumRows())
	}
	return max(1, int64(float64(b.NumRows())*batchBytesMax/float64(bytes)))
}

// columnsOf gives the types of a statement's rows and of its parameters, without running it.
func (s *Server) columnsOf(ctx context.Context, st *sqltext.Statement, tx string) (columns *arrow.Schema, params []string, err error) {
	session, leave, err := s.session(roleOf(ctx), tx)
	if err != nil {
		return nil, nil, err
	}
	defer leave()
	d, err := session.Describe(ctx, st, nil)
	if err != nil {
		return nil, nil, err
	}
	if st.Word(0) == "EXPLAIN" {
		return arrow.NewSchema([]arrow.Field{{Name: d.Columns[0].Name, Type: arrow.BinaryTypes.String, Nullable: true}}, nil), nil, nil
	}
	// DuckDB names types in words; the engine tells Arrow's by a result of no rows.
	values := make([]serve.Param, len(d.Params))
	for i, t := range d.Params {
		values[i].Type = t
	}
	none := st
	if !serve.Describes(st) { // those give few rows
		none = sqltext.One("SELECT * FROM (" + st.SQL + "\n) AS cauce_rows LIMIT 0")
	}
	rows, err := session.Query(ctx, none, values)
	if err != nil {
		return nil, nil, err
	}
	columns, err = rows.Schema()
	if err = errors.Join(err, rows.Close()); err != nil {
		return nil, nil, err
	}
	fields := columns.Fields()
	for i := range fields { // two columns of one name have got others
		if i < len(d.Columns) {
			fields[i].Name = d.Columns[i].Name
		}
	}
	return arrow.NewSchema(fields, nil), d.Params, nil
}

// GetSchemaStatement describes a statement.
func (s *Server) GetSchemaStatement(ctx context.Context, q fsql.StatementQuery, _ *flight.FlightDescriptor) (*flight.SchemaResult, error) {
	st, err := parse(q.GetQuery())
	if err != nil {
		return nil, err
	}
	columns, _, err := s.columnsOf(ctx, st, string(q.GetTransactionId()))
	if err != nil {
		return nil, statusOf(err)
	}
	return &flight.SchemaResult{Schema: flight.SerializeSchema(columns, s.Alloc)}, nil
}

// CreatePreparedStatement prepares a statement and describes it.
func (s *Server) CreatePreparedStatement(ctx context.Context, q fsql.ActionCreatePreparedStatementRequest) (out fsql.ActionCreatePreparedStatementResult, err error) {
	st, err := parse(q.GetQuery())
	if err != nil {
		return out, err
	}
	p := &prepared{role: roleOf(ctx), st: st, transaction: string(q.GetTransactionId()), used: time.Now()}
	columns, params, err := s.columnsOf(ctx, st, p.transaction)
	if err != nil {
		return out, statusOf(err)
	}
	p.columns = columns
	handle, err := newHandle()
	if err != nil {
		return out, err
	}
	s.mu.Lock()
	full := len(s.prepared) >= statesMax
	if !full {
		s.prepared[handle] = p
	}
	s.mu.Unlock()
	if full {
		return out, status.Errorf(codes.ResourceExhausted, "there are %d prepared statements; close some", statesMax)
	}
	fields := make([]arrow.Field, len(params))
	for i, t := range params {
		fields[i] = arrow.Field{Name: fmt.Sprintf("$%d", i+1), Type: parameterType(t), Nullable: true}
	}
	update := false
	return fsql.ActionCreatePreparedStatementResult{Handle: []byte(handle), DatasetSchema: columns, ParameterSchema: arrow.NewSchema(fields, nil), IsUpdate: &update}, nil
}

// preparedOf gives a copy of the caller's prepared statement.
func (s *Server) preparedOf(ctx context.Context, handle []byte) (*prepared, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.prepared[string(handle)]
	if p == nil || p.role != roleOf(ctx) {
		return nil, unknown("prepared statement")
	}
	p.used = time.Now()
	own := *p
	return &own, nil
}

// ClosePreparedStatement forgets a prepared statement.
func (s *Server) ClosePreparedStatement(ctx context.Context, q fsql.ActionClosePreparedStatementRequest) error {
	if _, err := s.preparedOf(ctx, q.GetPreparedStatementHandle()); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.prepared, string(q.GetPreparedStatementHandle()))
	return nil
}

// DoPutPreparedStatementQuery binds parameters: one batch of one row.
func (s *Server) DoPutPreparedStatementQuery(ctx context.Context, q fsql.PreparedStatementQuery, r flight.MessageReader, _ flight.MetadataWriter) ([]byte, error) {
	if _, err := s.preparedOf(ctx, q.GetPreparedStatementHandle()); err != nil {
		return nil, err
	}
	params, err := bound(r)
	if err != nil {
		return nil, statusOf(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.prepared[string(q.GetPreparedStatementHandle())]; p != nil {
		p.params = params
	}
	return q.GetPreparedStatementHandle(), nil
}

// GetFlightInfoPreparedStatement starts a prepared statement with the parameters that were bound.
func (s *Server) GetFlightInfoPreparedStatement(ctx context.Context, q fsql.PreparedStatementQuery, desc *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	p, err := s.preparedOf(ctx, q.GetPreparedStatementHandle())
	if err != nil {
		return nil, err
	}
	r, err := s.run(ctx, p.st, p.params, p.transaction)
	if err != nil {
		return nil, err
	}
	return s.keep(r, desc)
}

// DoGetPreparedStatement runs a prepared statement, for clients whose ticket is the command.
func (s *Server) DoGetPreparedStatement(ctx context.Context, q fsql.PreparedStatementQuery) (*arrow.Schema, <-chan flight.StreamChunk, error) {
	p, err := s.preparedOf(ctx, q.GetPreparedStatementHandle())
	if err != nil {
		return nil, nil, err
	}
	r, err := s.run(ctx, p.st, p.params, p.transaction)
	if err != nil {
		return nil, nil, err
	}
	return r.schema, s.send(ctx, r, func() {}), nil
}

// GetSchemaPreparedStatement describes a prepared statement.
func (s *Server) GetSchemaPreparedStatement(ctx context.Context, q fsql.PreparedStatementQuery, _ *flight.FlightDescriptor) (*flight.SchemaResult, error) {
	p, err := s.preparedOf(ctx, q.GetPreparedStatementHandle())
	if err != nil {
		return nil, err
	}
	return &flight.SchemaResult{Schema: flight.SerializeSchema(p.columns, s.Alloc)}, nil
}

// BeginTransaction starts a transaction: its statements read one version of each table.
func (s *Server) BeginTransaction(ctx context.Context, _ fsql.ActionBeginTransactionRequest) ([]byte, error) {
	handle, err := newHandle()
	if err != nil {
		return nil, err
	}
	role := roleOf(ctx)
	t := &transaction{role: role, used: time.Now(), session: s.o.Backend.Session(role, 0)}
	t.session.Begin()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.transactions) >= statesMax {
		return nil, status.Errorf(codes.ResourceExhausted, "there are %d transactions; end some", statesMax)
	}
	s.transactions[handle] = t
	return []byte(handle), nil
}

// EndTransaction ends a transaction; there is nothing to undo.
func (s *Server) EndTransaction(ctx context.Context, q fsql.ActionEndTransactionRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := string(q.GetTransactionId())
	if t := s.transactions[id]; t == nil || t.role != roleOf(ctx) {
		return unknown("transaction")
	}
	delete(s.transactions, id)
	return nil
}

// CancelFlightInfo ends a statement whose rows wait or are being sent.
func (s *Server) CancelFlightInfo(ctx context.Context, q *flight.CancelFlightInfoRequest) (flight.CancelFlightInfoResult, error) {
	found := false
	for _, e := range q.GetInfo().GetEndpoint() {
		t, err := fsql.GetStatementQueryTicket(e.GetTicket())
		if err != nil {
			continue
		}
		handle := string(t.GetStatementHandle())
		s.mu.Lock()
		r := s.results[handle]
		mine := r != nil && r.role == roleOf(ctx)
		waits := mine && !r.taken
		if waits {
			delete(s.results, handle)
		}
		s.mu.Unlock()
		if waits {
			r.close()
		} else if mine {
			r.cancel(errCancelled)
		}
		found = found || mine
	}
	if !found {
		return flight.CancelFlightInfoResult{Status: flight.CancelStatusNotCancellable}, unknown("statement")
	}
	return flight.CancelFlightInfoResult{Status: flight.CancelStatusCancelled}, nil
}

// readOnly refuses what would change something.
func readOnly(sql string) error {
	verb, _, _ := strings.Cut(strings.TrimSpace(sql), " ")
	return status.Errorf(codes.PermissionDenied, "cannot execute %s: this door to the lake is for reading; cauce query --write changes tables (SQLSTATE %s)", clip(strings.ToUpper(verb)), serve.CodeReadOnly)
}

// DoPutCommandStatementUpdate refuses statements that change something.
func (s *Server) DoPutCommandStatementUpdate(_ context.Context, q fsql.StatementUpdate) (int64, error) {
	return 0, readOnly(q.GetQuery())
}

// DoPutPreparedStatementUpdate refuses statements that change something.
func (s *Server) DoPutPreparedStatementUpdate(ctx context.Context, q fsql.PreparedStatementUpdate, _ flight.MessageReader) (int64, error) {
	p, err := s.preparedOf(ctx, q.GetPreparedStatementHandle())
	if err != nil {
		return 0, err
	}
	return 0, readOnly(p.st.SQL)
}

// DoPutCommandStatementIngest refuses to load rows.
func (s *Server) DoPutCommandStatementIngest(_ context.Context, _ fsql.StatementIngest, _ flight.MessageReader) (int64, error) {
	return 0, readOnly("INSERT")
}
