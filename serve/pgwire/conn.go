package pgwire

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/xdg-go/scram"

	"github.com/cauce-data/cauce/serve"
)

// Bounds of a connection.
const (
	startupTimeout   = 15 * time.Second
	writeTimeout     = 5 * time.Minute // without a byte taken by the client
	lastWriteTimeout = time.Second     // of a session that ends
	messageBytesMax  = 16 << 20
	preparedMax      = 2000 // prepared statements, portals and cursors of a session
	badPasswordWait  = 300 * time.Millisecond
)

func sprintf(format string, args ...any) string { return fmt.Sprintf(format, args...) }

func stack() string { return string(debug.Stack()) }

// Transaction states, as ReadyForQuery tells them.
const (
	idle   = 'I'
	inside = 'T'
	failed = 'E'
)

// conn is one connection and, once it has started, one session.
type conn struct {
	s       *Server
	nc      net.Conn
	r       *peekReader
	be      *pgproto3.Backend
	unsent  int
	session *serve.Session
	pid     uint32
	secret  uint32
	types   *pgtype.Map
	// activity is what others see of the session; terminate ends the connection.
	activity  *serve.Activity
	terminate func()

	state      byte
	savepoints []savepoint
	prepared   map[string]*prepared
	portals    map[string]*portal
	cursors    map[string]*portal
	reported   map[string]string // parameters as the client knows them
	skipping   bool              // after an error of the extended protocol, until Sync

	ending  atomic.Bool
	mu      sync.Mutex
	running context.CancelCauseFunc
}

// errCancelled is why a statement ended that the client cancelled.
var errCancelled = &serve.Error{Code: serve.CodeCancelled, Message: "canceling statement due to user request"}

var errShutdown = &serve.Error{Code: serve.CodeShutdown, Message: "terminating connection due to administrator command"}

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{
		s: s, nc: nc, state: idle, prepared: map[string]*prepared{}, portals: map[string]*portal{}, cursors: map[string]*portal{}, types: pgtype.NewMap(),
	}
	c.attach(nc)
	return c
}

func (c *conn) attach(nc net.Conn) {
	c.nc = nc
	c.r = &peekReader{br: bufio.NewReaderSize(nc, 16<<10)}
	c.be = pgproto3.NewBackend(c.r, nc)
	c.be.SetMaxBodyLen(messageBytesMax)
}

// peekReader tells, while nobody reads, when the other side has gone.
type peekReader struct {
	br      *bufio.Reader
	peeking chan struct{}
}

func (r *peekReader) Read(p []byte) (int, error) {
	if r.peeking != nil {
		<-r.peeking
		r.peeking = nil
	}
	return r.br.Read(p)
}

// watch calls gone if the connection ends before anything else is read from it.
func (r *peekReader) watch(gone func()) {
	if r.peeking != nil {
		select {
		case <-r.peeking:
		default:
			return
		}
	}
	done := make(chan struct{})
	r.peeking = done
	go func() {
		defer close(done)
		if _, err := r.br.Peek(1); err != nil {
			gone()
		}
	}()
}

// interrupt cancels the running statement.
func (c *conn) interrupt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running != nil {
		c.running(errCancelled)
	}
}

// run is the life of a connection.
func (c *conn) run(ctx context.Context, full bool) {
	if err := c.nc.SetDeadline(time.Now().Add(startupTimeout)); err != nil {
		return
	}
	defer c.s.forget(c)
	if err := c.startup(full); err != nil {
		c.fatal(err)
		return
	}
	if c.session == nil { // a request to cancel, or a client that left
		return
	}
	if err := c.nc.SetDeadline(time.Time{}); err != nil {
		return
	}
	if f := c.s.o.Observe.Session; f != nil {
		f(1)
		defer f(-1)
	}
	defer c.session.Close()
	defer c.closeAll()
	stop := context.AfterFunc(ctx, func() {
		c.ending.Store(true)
		_ = c.nc.SetWriteDeadline(time.Now().Add(lastWriteTimeout))
		_ = c.nc.SetReadDeadline(time.Unix(1, 0)) // wakes the wait for the next message
	})
	defer stop()
	if err := c.loop(ctx); err != nil {
		c.fatal(err)
	}
}

// fatal tells the client why the connection ends, if it can still be told.
func (c *conn) fatal(err error) {
	var own *serve.Error
	if !errors.As(err, &own) {
		return // the connection itself is broken
	}
	_ = c.nc.SetWriteDeadline(time.Now().Add(lastWriteTimeout))
	c.be.Send(errorResponse("FATAL", own))
	_ = c.be.Flush() // it may have gone
}

func errorResponse(severity string, e *serve.Error) *pgproto3.ErrorResponse {
	return &pgproto3.ErrorResponse{
		Severity: severity, SeverityUnlocalized: severity, Code: e.Code, Message: validText(strings.ReplaceAll(e.Message, "\x00", "")), Hint: e.Hint, Position: int32(e.Position),
	}
}

func refusal(code, format string, args ...any) *serve.Error {
	return &serve.Error{Code: code, Message: sprintf(format, args...)}
}

// startup negotiates encryption, finds out who the client is, and makes the session.
func (c *conn) startup(full bool) error {
	for round := 0; ; round++ {
		if round > 4 {
			return refusal(serve.CodeProtocol, "too many requests before the start")
		}
		msg, err := c.be.ReceiveStartupMessage()
		if err != nil {
			if strings.Contains(err.Error(), "unknown startup message code") || strings.Contains(err.Error(), "invalid length") {
				return refusal(serve.CodeProtocol, "invalid startup packet")
			}
			return err
		}
		switch m := msg.(type) {
		case *pgproto3.SSLRequest:
			if c.s.o.TLS == nil || c.isTLS() {
				if _, err := c.nc.Write([]byte{'N'}); err != nil {
					return err
				}
				continue
			}
			if _, err := c.nc.Write([]byte{'S'}); err != nil {
				return err
			}
			t := tls.Server(c.nc, c.s.o.TLS)
			if err := t.Handshake(); err != nil {
				return err
			}
			c.attach(t) // what came before the handshake is dropped
		case *pgproto3.GSSEncRequest:
			if _, err := c.nc.Write([]byte{'N'}); err != nil {
				return err
			}
		case *pgproto3.CancelRequest:
			key := m.SecretKey
			if len(key) == 4 {
				c.s.cancel(m.ProcessID, binary.BigEndian.Uint32(key))
			}
			return nil
		case *pgproto3.StartupMessage:
			if full {
				c.s.refused("sessions")
				return refusal(serve.CodeTooMany, "sorry, too many clients already")
			}
			return c.start(m)
		}
	}
}

func (c *conn) isTLS() bool {
	_, ok := c.nc.(*tls.Conn)
	return ok
}

func (c *conn) remoteIsLoopback() bool {
	tcp, ok := c.nc.RemoteAddr().(*net.TCPAddr)
	return !ok || tcp.IP.IsLoopback()
}

func (c *conn) start(m *pgproto3.StartupMessage) error {
	user := m.Parameters["user"]
	if !c.isTLS() && !c.remoteIsLoopback() {
		c.s.refused("encryption")
		return &serve.Error{Code: serve.CodeBadAuthorization, Message: "the connection is not encrypted, which is wanted from other machines", Hint: "connect with sslmode=require or stricter"}
	}
	if m.Parameters["replication"] != "" && m.Parameters["replication"] != "false" {
		return refusal(serve.CodeNotSupported, "replication is not supported")
	}
	if user == "" {
		return refusal(serve.CodeBadAuthorization, "no PostgreSQL user name specified in startup packet")
	}
	r := c.s.roles[strings.ToLower(user)]
	if c.s.o.Backend.Open() {
		if r == nil {
			c.s.refused("role")
			return &serve.Error{Code: serve.CodeBadAuthorization, Message: sprintf("role %q does not exist", user), Hint: "the lake file has no roles; connect as " + serve.ReaderRole}
		}
	} else if err := c.authenticate(user, r); err != nil {
		return err
	}
	if db := m.Parameters["database"]; db != serve.Database {
		if db == "" {
			db = user
		}
		return &serve.Error{Code: serve.CodeNoDatabase, Message: sprintf("database %q does not exist", db), Hint: "the database is " + serve.Database}
	}
	if err := c.s.register(c); err != nil {
		return err
	}
	c.session = c.s.o.Backend.Session(r.Role, int(c.pid))
	if err := c.startupSettings(m.Parameters); err != nil {
		c.session.Close()
		c.session = nil
		return err
	}
	c.activity = c.s.o.Backend.Enter(c.session, c.nc.RemoteAddr(), c.interrupt, c.terminate)
	c.be.Send(&pgproto3.AuthenticationOk{})
	c.reported = map[string]string{}
	c.report()
	var key [4]byte
	binary.BigEndian.PutUint32(key[:], c.secret)
	c.be.Send(&pgproto3.BackendKeyData{ProcessID: c.pid, SecretKey: key[:]})
	return c.ready()
}

// startupSettings sets what the client asks for when it connects.
func (c *conn) startupSettings(params map[string]string) error {
	set := func(name, value string) error {
		if err := c.session.Set(name, value, false); err != nil {
			return serve.AsError(err)
		}
		return nil
	}
	for name, value := range params {
		switch strings.ToLower(name) {
		case "user", "database", "replication":
		case "options":
			words := strings.Fields(value)
			for i := 0; i < len(words); i++ {
				assignment := strings.TrimPrefix(words[i], "--")
				if words[i] == "-c" && i+1 < len(words) {
					i++
					assignment = words[i]
				} else {
					assignment = strings.TrimPrefix(assignment, "-c")
				}
				if k, v, ok := strings.Cut(assignment, "="); ok {
					if err := set(strings.ReplaceAll(k, "-", "_"), strings.ReplaceAll(v, `\ `, " ")); err != nil {
						return err
					}
				}
			}
		default:
			if strings.HasPrefix(name, "_pq_.") {
				continue
			}
			if err := set(name, value); err != nil {
				return err
			}
		}
	}
	return nil
}

// authenticate proves with SCRAM-SHA-256 that the client knows the role's password. A role that does not exist fails in the
// same way, after the same steps.
func (c *conn) authenticate(user string, r *role) error {
	wrong := refusal(serve.CodeBadPassword, "password authentication failed for user %q", user)
	known := r != nil
	stored := scram.StoredCredentials{}
	if known {
		stored = r.credentials
	} else {
		var err error
		if stored, err = credentials(user + c.nc.RemoteAddr().String()); err != nil {
			return err
		}
	}
	server, err := scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) { return stored, nil })
	if err != nil {
		return err
	}
	conversation := server.NewConversation()
	if err := c.be.SetAuthType(pgproto3.AuthTypeSASL); err != nil {
		return err
	}
	c.be.Send(&pgproto3.AuthenticationSASL{AuthMechanisms: []string{"SCRAM-SHA-256"}})
	if err := c.be.Flush(); err != nil {
		return err
	}
	msg, err := c.be.Receive()
	if err != nil {
		return err
	}
	initial, ok := msg.(*pgproto3.SASLInitialResponse)
	if !ok || initial.AuthMechanism != "SCRAM-SHA-256" {
		return refusal(serve.CodeProtocol, "client selected an invalid SASL authentication mechanism")
	}
	answer, err := conversation.Step(string(initial.Data))
	if err != nil {
		c.s.refused("password")
		return refusal(serve.CodeProtocol, "malformed SCRAM message")
	}
	if err := c.be.SetAuthType(pgproto3.AuthTypeSASLContinue); err != nil {
		return err
	}
	c.be.Send(&pgproto3.AuthenticationSASLContinue{Data: []byte(answer)})
	if err := c.be.Flush(); err != nil {
		return err
	}
	if msg, err = c.be.Receive(); err != nil {
		return err
	}
	response, ok := msg.(*pgproto3.SASLResponse)
	if !ok {
		return refusal(serve.CodeProtocol, "expected SASL response")
	}
	answer, err = conversation.Step(string(response.Data))
	if err != nil || !conversation.Valid() || !known {
		c.s.refused("password")
		time.Sleep(badPasswordWait) // guessing costs
		return wrong
	}
	c.be.Send(&pgproto3.AuthenticationSASLFinal{Data: []byte(answer)})
	return nil
}

// report tells the client the parameters that changed.
func (c *conn) report() {
	now := c.session.Reported()
	names := make([]string, 0, len(now))
	for name := range now {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if was, told := c.reported[name]; !told || was != now[name] {
			c.send(&pgproto3.ParameterStatus{Name: name, Value: now[name]})
		}
	}
	c.reported = now
}

func (c *conn) ready() error {
	c.activity.Rests(map[byte]string{idle: serve.StateIdle, inside: serve.StateInside, failed: serve.StateAborted}[c.state])
	c.send(&pgproto3.ReadyForQuery{TxStatus: c.state})
	return c.flush()
}

func (c *conn) send(m pgproto3.BackendMessage) { c.be.Send(m) }

func (c *conn) flush() error {
	c.unsent = 0
	if err := c.nc.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if c.ending.Load() { // looked at last: from here on the end of the session bounds what is sent
		return errShutdown
	}
	return c.be.Flush()
}

func (c *conn) zone() *time.Location {
	if loc, err := time.LoadLocation(c.session.Zone()); err == nil {
		return loc
	}
	return time.UTC
}

// loop reads messages until the client leaves.
func (c *conn) loop(ctx context.Context) error {
	for {
		deadline := time.Time{}
		if c.s.o.IdleTimeout > 0 {
			deadline = time.Now().Add(c.s.o.IdleTimeout)
		}
		if err := c.nc.SetReadDeadline(deadline); err != nil {
			return err
		}
		if ctx.Err() != nil { // looked at last: from here on the end of ctx wakes Receive
			return errShutdown
		}
		msg, err := c.be.Receive()
		if err != nil {
			var ne net.Error
			switch {
			case ctx.Err() != nil:
				return errShutdown
			case errors.As(err, &ne) && ne.Timeout():
				return refusal("57P05", "terminating connection due to idle-session timeout")
			case strings.Contains(err.Error(), "invalid") || strings.Contains(err.Error(), "unknown message type") || strings.Contains(err.Error(), "exceeds"):
				return refusal(serve.CodeProtocol, "invalid frontend message")
			}
			return err
		}
		if err := c.nc.SetReadDeadline(time.Time{}); err != nil {
			return err
		}
		if _, ok := msg.(*pgproto3.Terminate); ok {
			return nil
		}
		if err := c.message(ctx, msg); err != nil {
			return err
		}
	}
}

// message handles one message; the error is one of the connection.
func (c *conn) message(ctx context.Context, msg pgproto3.FrontendMessage) error {
	switch m := msg.(type) {
	case *pgproto3.Query:
		c.skipping = false
		return c.query(ctx, m.String)
	case *pgproto3.Sync:
		failed := c.skipping
		c.skipping = false
		if c.state == idle {
			c.closePortals()
			if err := c.session.End(ctx, failed); err != nil {
				c.failedStatement(err)
			}
		}
		c.report()
		return c.ready()
	case *pgproto3.Flush:
		return c.flush()
	}
	if c.skipping {
		return nil
	}
	var err error
	switch m := msg.(type) {
	case *pgproto3.Parse:
		err = c.parse(m)
	case *pgproto3.Bind:
		err = c.bind(ctx, m)
	case *pgproto3.Describe:
		err = c.describe(ctx, m)
	case *pgproto3.Execute:
		err = c.execute(ctx, m)
	case *pgproto3.Close:
		if m.ObjectType == 'S' {
			delete(c.prepared, m.Name)
		} else {
			c.closePortal(m.Name)
		}
		c.send(&pgproto3.CloseComplete{})
	case *pgproto3.FunctionCall:
		err = refusal(serve.CodeNotSupported, "function calls by the protocol are not supported")
	case *pgproto3.CopyData, *pgproto3.CopyDone, *pgproto3.CopyFail: // of a COPY that was refused
		return nil
	default:
		return refusal(serve.CodeProtocol, "unexpected message %T", msg)
	}
	if err != nil {
		if broken(err) {
			return err
		}
		c.failedStatement(err)
		c.skipping = true
		return c.flush()
	}
	return nil
}

// broken tells an error of the connection from one of a statement.
func broken(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) || errors.Is(err, net.ErrClosed) || errors.Is(err, errShutdown)
}

// failedStatement tells the client of an error. A transaction has failed with it.
func (c *conn) failedStatement(err error) {
	c.send(errorResponse("ERROR", serve.AsError(err)))
	if c.state == inside {
		c.state = failed
	}
}

// limit is the longest that a statement may take; 0: there is none.
func (c *conn) limit() time.Duration {
	limit := c.s.o.StatementTimeout
	if own := c.session.Timeout(); own > 0 && (limit == 0 || own < limit) {
		limit = own
	}
	return limit
}

// timed runs a statement under its time limits, so that it can be cancelled, and ends it when the client leaves.
func (c *conn) timed(ctx context.Context, sql string, f func(ctx context.Context) error) error {
	session := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if limit := c.limit(); limit > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, limit)
		defer stop()
	}
	c.mu.Lock()
	c.running = cancel
	c.mu.Unlock()
	c.r.watch(func() { cancel(cmp.Or(context.Cause(session), net.ErrClosed)) })
	application, _ := c.session.Show("application_name")
	c.activity.Runs(application, sql)
	start := time.Now()
	err := f(ctx)
	c.mu.Lock()
	c.running = nil
	c.mu.Unlock()
	if cause := context.Cause(ctx); err != nil && cause != nil && !broken(err) {
		switch {
		case serve.Waited(err) && errors.Is(cause, context.DeadlineExceeded): // says more
		case errors.Is(cause, context.DeadlineExceeded):
			err = refusal(serve.CodeCancelled, "canceling statement due to statement timeout")
		case !errors.Is(cause, context.Canceled):
			err = cause
		}
	}
	code := "00000"
	if err != nil {
		code = serve.AsError(err).Code
	}
	took := time.Since(start)
	if f := c.s.o.Observe.Statement; f != nil {
		f(took, code)
	}
	c.s.o.Backend.Log().Debug("statement", "role", c.session.Role.Name, "session", c.pid, "sql", clip(sql), "code", code, "seconds", took.Seconds(), "error", err)
	return err
}

func clip(s string) string {
	const most = 2000
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
