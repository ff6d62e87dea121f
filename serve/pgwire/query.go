package pgwire

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/cauce-data/cauce/serve"
	"github.com/cauce-data/cauce/serve/pgcatalog"
	"github.com/cauce-data/cauce/serve/sqltext"
)

// prepared is a prepared statement.
type prepared struct {
	st        *sqltext.Statement // nil: empty
	oids      []uint32           // of parameters, as the client said; 0: it did not
	described *serve.Rows        // types, once somebody asked
	told      bool               // the client was
}

// portal is a statement with its parameters, running or about to.
type portal struct {
	st      *sqltext.Statement
	from    *prepared // nil: the statement came without
	params  []serve.Param
	formats []int16

	started  bool
	rows     *serve.Rows // nil: it gives none
	tag      string      // of a statement without rows
	copy     *copyOptions
	encoders []encoder

	batch arrow.RecordBatch
	at    int
	sent  int64 // rows
	done  bool

	cancel context.CancelCauseFunc // of a statement that outlives the message that began it

	// cursor is where FETCH takes its rows from, fetch how many (-1: all).
	cursor *portal
	fetch  int64
}

// detach gives a context for a statement whose rows may be asked for by later messages. It has the time limit of a statement
// and ends with the portal.
func (c *conn) detach(ctx context.Context, p *portal) context.Context {
	run, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	p.cancel = cancel
	if limit := c.limit(); limit > 0 {
		timer := time.AfterFunc(limit, func() { cancel(context.DeadlineExceeded) })
		context.AfterFunc(run, func() { timer.Stop() })
	}
	return run
}

// follow lets a message's context end a detached statement, until stop is called.
func (p *portal) follow(ctx context.Context) (stop func() bool) {
	if p.cancel == nil {
		return func() bool { return true }
	}
	return context.AfterFunc(ctx, func() { p.cancel(context.Cause(ctx)) })
}

func (p *portal) close() {
	if p.cancel != nil {
		p.cancel(nil)
	}
	if p.rows != nil && p.cursor == nil {
		_ = p.rows.Close() // its statement has been told to end
	}
	p.rows = nil
}

func (c *conn) closePortal(name string) {
	if p := c.portals[name]; p != nil {
		p.close()
		delete(c.portals, name)
	}
}

func (c *conn) closePortals() {
	for name := range c.portals {
		c.closePortal(name)
	}
}

func (c *conn) closeCursors(all bool) {
	for name, p := range c.cursors {
		if all || !p.copyHold() {
			p.close()
			delete(c.cursors, name)
		}
	}
}

// copyHold tells a cursor that outlives its transaction; fetch is unused by cursors themselves.
func (p *portal) copyHold() bool { return p.fetch == holdCursor }

const holdCursor = -2

func (c *conn) closeAll() {
	c.closePortals()
	c.closeCursors(true)
}

// query is the simple protocol: one or more statements in a text.
func (c *conn) query(ctx context.Context, text string) error {
	c.closePortal("")
	list := sqltext.Split(text)
	if len(list) == 0 {
		c.send(&pgproto3.EmptyQueryResponse{})
	}
	var err error
	for _, st := range list {
		if len(list) > 1 && c.state == idle && !c.session.InTransaction() { // several statements are one, unless they say otherwise
			c.session.Begin()
		}
		p := &portal{st: st}
		err = c.timed(ctx, st.SQL, func(ctx context.Context) error {
			if err := c.begin(ctx, p); err != nil {
				return err
			}
			if p.rows != nil && p.copy == nil {
				c.send(&pgproto3.RowDescription{Fields: c.fields(p)})
			}
			return c.rows(p, 0)
		})
		p.close()
		if err != nil {
			if broken(err) {
				return err
			}
			c.failedStatement(err)
			break
		}
	}
	if c.state == idle {
		if err := c.session.End(ctx, err != nil); err != nil {
			c.failedStatement(err)
		}
	}
	c.report()
	return c.ready()
}

func (c *conn) parse(m *pgproto3.Parse) error {
	list := sqltext.Split(m.Query)
	if len(list) > 1 {
		return refusal(serve.CodeSyntax, "cannot insert multiple commands into a prepared statement")
	}
	if m.Name != "" && c.prepared[m.Name] != nil {
		return refusal(serve.CodeDuplicateStmt, "prepared statement %q already exists", m.Name)
	}
	if len(c.prepared) > preparedMax {
		return refusal(serve.CodeTooComplex, "the session has %d prepared statements; DEALLOCATE some", len(c.prepared))
	}
	p := &prepared{oids: append([]uint32(nil), m.ParameterOIDs...)}
	if len(list) == 1 {
		p.st = list[0]
		if c.state == failed && !endsTransaction(p.st) {
			return errFailed
		}
		for i, t := range p.st.Tokens {
			if t.Kind == sqltext.Param {
				n, err := strconv.Atoi(p.st.Text(i)[1:])
				if err != nil || n < 1 || n > 65535 {
					return refusal(serve.CodeParameter, "there is no parameter %s", p.st.Text(i))
				}
				for len(p.oids) < n {
					p.oids = append(p.oids, 0)
				}
			}
		}
	}
	c.prepared[m.Name] = p
	c.send(&pgproto3.ParseComplete{})
	return nil
}

var errFailed = &serve.Error{Code: serve.CodeFailed, Message: "current transaction is aborted, commands ignored until end of transaction block"}

func endsTransaction(st *sqltext.Statement) bool {
	switch st.Word(0) {
	case "COMMIT", "END", "ROLLBACK", "ABORT":
		return true
	}
	return false
}

// types describes a prepared statement, once.
func (c *conn) typesOf(ctx context.Context, p *prepared) (*serve.Rows, error) {
	if p.described != nil {
		return p.described, nil
	}
	d := &serve.Rows{}
	var err error
	switch kindOf(p.st) {
	case kindQuery:
		err = c.timed(ctx, p.st.SQL, func(ctx context.Context) error {
			var err error
			d, err = c.session.Describe(ctx, p.st, p.types())
			return err
		})
	case kindShow:
		d.Columns = []serve.Column{{Name: showName(p.st), Type: "VARCHAR"}}
		if showName(p.st) == "all" {
			d.Columns = []serve.Column{{Name: "name", Type: "VARCHAR"}, {Name: "setting", Type: "VARCHAR"}, {Name: "description", Type: "VARCHAR"}}
		}
	case kindFetch:
		if name, _, _, ferr := parseFetch(p.st); ferr == nil && c.cursors[name] != nil && p.st.Word(0) == "FETCH" {
			d.Columns = c.cursors[name].rows.Columns
		}
	}
	if err != nil {
		return nil, err
	}
	p.described = d
	return d, nil
}

// types are DuckDB's names of the types that the client gave to parameters.
func (p *prepared) types() []string {
	types := make([]string, len(p.oids))
	for i, oid := range p.oids {
		types[i] = describedType(oid)
	}
	return types
}

// unchanged refuses rows whose columns are others than those that the client was told when it prepared the statement, for it would
// take one column's values for another's: what the statement reads has changed.
func (c *conn) unchanged(ctx context.Context, p *portal) error {
	query := kindOf(p.st) == kindQuery
	same := func(now []serve.Column) bool {
		return slices.EqualFunc(p.from.described.Columns, now, func(a, b serve.Column) bool {
			return (a.Name == b.Name || !query) && columnType(a).OID == columnType(b).OID // one FETCH is for cursors over anything
		})
	}
	if p.from == nil || !p.from.told || same(p.rows.Columns) {
		return nil
	}
	if query { // the values of parameters may give other types than were foreseen
		d, err := c.session.Describe(ctx, p.st, p.from.types())
		if err != nil || same(d.Columns) {
			return err
		}
	}
	return refusal(serve.CodeNotSupported, "cached plan must not change result type")
}

// typed tells whether the client gave a parameter a type.
func (p *prepared) typed(i int) bool {
	return i < len(p.oids) && p.oids[i] != 0 && p.oids[i] != unknownOID
}

// oid gives the type of a parameter: the client's word, else what the statement tells, else text.
func (p *prepared) oid(i int) uint32 {
	if p.typed(i) {
		return p.oids[i]
	}
	if p.described != nil && i < len(p.described.Params) {
		if t := p.described.Params[i]; t != "" && t != "NULL" {
			return pgcatalog.TypeOf(t).OID
		}
	}
	return pgtype.TextOID
}

func (c *conn) bind(ctx context.Context, m *pgproto3.Bind) error {
	p := c.prepared[m.PreparedStatement]
	if p == nil {
		return refusal(serve.CodeStatementName, "prepared statement %q does not exist", m.PreparedStatement)
	}
	if m.DestinationPortal != "" && c.portals[m.DestinationPortal] != nil {
		return refusal(serve.CodeDuplicateCursor, "cursor %q already exists", m.DestinationPortal)
	}
	if len(c.portals) > preparedMax {
		return refusal(serve.CodeTooComplex, "the session has %d portals; close some", len(c.portals))
	}
	if p.st != nil && c.state == failed && !endsTransaction(p.st) {
		return errFailed
	}
	if len(m.Parameters) != len(p.oids) {
		return refusal(serve.CodeProtocol, "bind message supplies %d parameters, but prepared statement %q requires %d", len(m.Parameters), m.PreparedStatement, len(p.oids))
	}
	format := func(codes []int16, i int) (int16, error) {
		f := int16(pgtype.TextFormatCode)
		switch {
		case len(codes) == 1:
			f = codes[0]
		case i < len(codes):
			f = codes[i]
		}
		if f != pgtype.TextFormatCode && f != pgtype.BinaryFormatCode {
			return 0, refusal(serve.CodeInvalidParameter, "unsupported format code: %d", f)
		}
		return f, nil
	}
	// A binary value of a type that nobody named is read by the type that the statement gives it.
	for i := range m.Parameters {
		if f, err := format(m.ParameterFormatCodes, i); err != nil {
			return err
		} else if f == pgtype.BinaryFormatCode && p.oids[i] == 0 && p.st != nil {
			if _, err := c.typesOf(ctx, p); err != nil {
				return err
			}
		}
	}
	out := &portal{st: p.st, from: p, formats: append([]int16(nil), m.ResultFormatCodes...)}
	for _, f := range out.formats {
		if f != pgtype.TextFormatCode && f != pgtype.BinaryFormatCode {
			return refusal(serve.CodeInvalidParameter, "unsupported format code: %d", f)
		}
	}
	for i, v := range m.Parameters {
		f, _ := format(m.ParameterFormatCodes, i)
		oid := p.oid(i)
		text, err := parameterText(c.types, oid, f, v)
		if err != nil {
			return err
		}
		typ, err := parameterType(oid, text)
		if err != nil {
			return err
		}
		if v == nil && !p.typed(i) { // a null of no type takes that of what stands beside it
			typ = ""
		}
		out.params = append(out.params, serve.Param{Text: text, Type: typ})
	}
	c.closePortal(m.DestinationPortal)
	c.portals[m.DestinationPortal] = out
	c.send(&pgproto3.BindComplete{})
	return nil
}

func (c *conn) describe(ctx context.Context, m *pgproto3.Describe) error {
	if m.ObjectType == 'S' {
		p := c.prepared[m.Name]
		if p == nil {
			return refusal(serve.CodeStatementName, "prepared statement %q does not exist", m.Name)
		}
		if p.st == nil {
			c.send(&pgproto3.ParameterDescription{})
			c.send(&pgproto3.NoData{})
			return nil
		}
		if c.state == failed && !endsTransaction(p.st) {
			return errFailed
		}
		d, err := c.typesOf(ctx, p)
		if err != nil {
			return err
		}
		oids := make([]uint32, len(p.oids))
		for i := range oids {
			oids[i] = p.oid(i)
		}
		c.send(&pgproto3.ParameterDescription{ParameterOIDs: oids})
		c.sendFields(&portal{rows: d})
		p.told = true
		return nil
	}
	p := c.portals[m.Name]
	if cursor := c.cursors[m.Name]; p == nil && cursor != nil { // what DECLARE makes is a portal too
		c.sendFields(&portal{rows: cursor.rows})
		return nil
	}
	if p == nil {
		return refusal(serve.CodeCursorName, "portal %q does not exist", m.Name)
	}
	if p.st != nil && !p.started {
		switch kindOf(p.st) {
		case kindQuery, kindFetch, kindShow: // nothing but reading: it may begin now, and its types are those of its rows
			if err := c.timed(ctx, p.st.SQL, func(ctx context.Context) error {
				run := c.detach(ctx, p)
				defer p.follow(ctx)()
				return c.begin(run, p)
			}); err != nil {
				return err
			}
		}
	}
	c.sendFields(p)
	return nil
}

func (c *conn) sendFields(p *portal) {
	if p.rows == nil || p.copy != nil || len(p.rows.Columns) == 0 {
		c.send(&pgproto3.NoData{})
		return
	}
	c.send(&pgproto3.RowDescription{Fields: c.fields(p)})
}

func (p *portal) format(i int) int16 {
	switch {
	case len(p.formats) == 1:
		return p.formats[0]
	case i < len(p.formats):
		return p.formats[i]
	}
	return pgtype.TextFormatCode
}

func (c *conn) fields(p *portal) []pgproto3.FieldDescription {
	out := make([]pgproto3.FieldDescription, len(p.rows.Columns))
	for i, col := range p.rows.Columns {
		t := columnType(col)
		out[i] = pgproto3.FieldDescription{
			Name: []byte(validText(strings.ReplaceAll(col.Name, "\x00", ""))), DataTypeOID: t.OID, DataTypeSize: t.Size, TypeModifier: t.Modifier, Format: p.format(i),
		}
	}
	return out
}

func (c *conn) execute(ctx context.Context, m *pgproto3.Execute) error {
	p := c.portals[m.Portal]
	if p == nil {
		return refusal(serve.CodeCursorName, "portal %q does not exist", m.Portal)
	}
	if p.st == nil {
		c.send(&pgproto3.EmptyQueryResponse{})
		return nil
	}
	if c.state == idle && kindOf(p.st) == kindTable && !c.session.InTransaction() { // what comes until Sync is one transaction
		c.session.Begin()
	}
	return c.timed(ctx, p.st.SQL, func(ctx context.Context) error {
		run := ctx
		if !p.started && m.MaxRows > 0 { // its rows may be asked for piece by piece, after this message
			run = c.detach(ctx, p)
		}
		defer p.follow(ctx)()
		if !p.started {
			if err := c.begin(run, p); err != nil {
				return err
			}
		}
		return c.rows(p, int64(m.MaxRows))
	})
}

// rows sends rows of a portal that has begun, at most limit (0: all), and how that ended.
func (c *conn) rows(p *portal, limit int64) error {
	switch {
	case p.copy != nil:
		n, err := c.copyOut(p.rows, *p.copy)
		if err != nil {
			return err
		}
		c.send(&pgproto3.CommandComplete{CommandTag: []byte("COPY " + strconv.FormatInt(n, 10))})
		return nil
	case p.rows == nil:
		c.send(&pgproto3.CommandComplete{CommandTag: []byte(p.tag)})
		return nil
	}
	source := p
	if p.cursor != nil {
		source = p.cursor
		if p.fetch >= 0 && (limit == 0 || p.fetch-p.sent < limit) {
			limit = p.fetch - p.sent
			if limit <= 0 {
				return c.complete(p)
			}
		}
	}
	if p.encoders == nil {
		zone := c.zone()
		for i, col := range p.rows.Columns {
			p.encoders = append(p.encoders, newEncoder(columnType(col), p.format(i), zone))
		}
	}
	values := make([][]byte, len(p.encoders))
	buf := make([]byte, 0, 1024) // never nil: an empty text is not a null
	for n := int64(0); limit == 0 || n < limit; n++ {
		more, err := source.next()
		if err != nil {
			return err
		}
		if !more {
			return c.complete(p)
		}
		buf = buf[:0]
		type span struct{ from, to int }
		spans := make([]span, 0, 16)
		for i, encode := range p.encoders {
			col := source.batch.Column(i)
			if col.IsNull(source.at) {
				spans = append(spans, span{-1, -1})
				continue
			}
			from := len(buf)
			if buf, err = encode(buf, col, source.at); err != nil {
				return err
			}
			spans = append(spans, span{from, len(buf)})
		}
		for i, s := range spans {
			if values[i] = nil; s.from >= 0 {
				values[i] = buf[s.from:s.to:s.to]
			}
		}
		source.at++
		p.sent++
		c.send(&pgproto3.DataRow{Values: values})
		if c.unsent += len(buf) + 8; c.unsent > 32<<10 {
			if err := c.flush(); err != nil {
				return err
			}
		}
	}
	if p.cursor != nil && p.fetch >= 0 && p.sent >= p.fetch {
		return c.complete(p)
	}
	c.send(&pgproto3.PortalSuspended{})
	return nil
}

// next makes batch and at stand on the next row; false at the end.
func (p *portal) next() (bool, error) {
	for !p.done && (p.batch == nil || p.at >= int(p.batch.NumRows())) {
		b, err := p.rows.Next()
		if err != nil {
			return false, err
		}
		p.batch, p.at, p.done = b, 0, b == nil
	}
	return !p.done, nil
}

func (c *conn) complete(p *portal) error {
	verb := "SELECT "
	switch {
	case p.cursor != nil:
		verb = "FETCH "
	case p.tag != "":
		c.send(&pgproto3.CommandComplete{CommandTag: []byte(p.tag)})
		return nil
	}
	c.send(&pgproto3.CommandComplete{CommandTag: []byte(verb + strconv.FormatInt(p.sent, 10))})
	return nil
}

// begin starts a portal's statement.
func (c *conn) begin(ctx context.Context, p *portal) error {
	if c.state == failed && !endsTransaction(p.st) && p.st.Word(0) != "SAVEPOINT" {
		return errFailed
	}
	if c.state == failed && p.st.Word(0) == "SAVEPOINT" {
		return errFailed
	}
	p.started = true
	switch kindOf(p.st) {
	case kindQuery:
		rows, err := c.session.Query(ctx, p.st, p.params)
		if err != nil {
			return err
		}
		p.rows = rows
		if p.st.Word(0) == "EXPLAIN" {
			p.tag = "EXPLAIN"
		}
		return c.unchanged(ctx, p)
	case kindCopy:
		query, o, err := parseCopy(p.st)
		if err != nil {
			return err
		}
		p.copy = &o
		p.rows, err = c.session.Query(ctx, sqltext.One(query), p.params)
		return err
	case kindTable:
		var err error
		p.tag, err = c.session.Execute(ctx, p.st, p.params)
		return err
	}
	err := c.command(ctx, p)
	if errors.Is(err, errUnknownCommand) {
		p.tag, err = c.session.Execute(ctx, p.st, p.params)
	}
	if err == nil && p.rows != nil {
		err = c.unchanged(ctx, p)
	}
	return err
}
