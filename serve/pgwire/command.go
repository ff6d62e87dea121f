package pgwire

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/cauce-data/cauce/serve"
	"github.com/cauce-data/cauce/serve/sqltext"
)

// kind is what a statement is, as far as this package must know.
type kind int

const (
	kindCommand kind = iota
	kindQuery
	kindCopy
	kindFetch
	kindShow
	kindTable // CREATE, SELECT INTO, INSERT, DROP of temporary tables
)

func kindOf(st *sqltext.Statement) kind {
	if serve.Describes(st) {
		return kindQuery
	}
	if serve.MakesTable(st) {
		return kindTable
	}
	switch st.Word(0) {
	case "SELECT", "WITH", "VALUES", "TABLE", "FROM", "EXPLAIN", "SUMMARIZE", "DESCRIBE", "PIVOT", "UNPIVOT":
		return kindQuery
	case "COPY":
		return kindCopy
	case "FETCH", "MOVE":
		return kindFetch
	case "SHOW":
		return kindShow
	case "CREATE", "INSERT", "DROP":
		return kindTable
	case "":
		if st.Text(0) == "(" {
			return kindQuery
		}
	}
	return kindCommand
}

var errUnknownCommand = errors.New("not a command of this package")

// command runs what never reaches an engine: transactions, settings, cursors.
func (c *conn) command(ctx context.Context, p *portal) error {
	st := p.st
	verb := st.Word(0)
	p.tag = verb
	switch verb {
	case "BEGIN", "START":
		return c.beginTransaction(p)
	case "COMMIT", "END":
		p.tag = "COMMIT"
		if st.Word(1) == "PREPARED" {
			return refusal(serve.CodeNotSupported, "prepared transactions are not supported")
		}
		return c.endTransaction(ctx, p, false)
	case "ROLLBACK", "ABORT":
		p.tag = "ROLLBACK"
		return c.rollback(ctx, p)
	case "SAVEPOINT":
		name, ok := st.Name(1)
		switch {
		case !ok:
			return refusal(serve.CodeSyntax, "SAVEPOINT wants a name")
		case c.state == idle:
			return refusal(serve.CodeNoTransaction, "SAVEPOINT can only be used in transaction blocks")
		case len(c.savepoints) > preparedMax:
			return refusal(serve.CodeTooComplex, "the transaction has %d savepoints", len(c.savepoints))
		}
		c.savepoints = append(c.savepoints, savepoint{name, c.session.Savepoint()})
		return nil
	case "RELEASE":
		at := 1
		if st.Word(at) == "SAVEPOINT" {
			at++
		}
		return c.toSavepoint(ctx, st, at, false)
	case "SET":
		return c.set(st)
	case "RESET":
		name, _ := st.Name(1)
		if st.Word(1) == "SESSION" || st.Word(1) == "ROLE" { // AUTHORIZATION
			return nil
		}
		return c.session.Reset(name)
	case "SHOW":
		return c.show(p)
	case "DISCARD":
		p.tag = "DISCARD " + st.Word(1)
		switch st.Word(1) {
		case "ALL":
			if c.state != idle {
				return refusal("25001", "DISCARD ALL cannot run inside a transaction block")
			}
			c.closeCursors(true)
			clear(c.prepared)
			c.session.Discard()
			return c.session.Reset("all")
		case "TEMP", "TEMPORARY":
			return c.session.DropTemps(ctx)
		}
		return nil
	case "DECLARE":
		return c.declare(ctx, p)
	case "FETCH", "MOVE":
		return c.fetch(p)
	case "CLOSE":
		p.tag = "CLOSE CURSOR"
		if st.Word(1) == "ALL" {
			c.closeCursors(true)
			return nil
		}
		name, _ := st.Name(1)
		if c.cursors[name] == nil {
			return refusal(serve.CodeCursorName, "cursor %q does not exist", name)
		}
		c.cursors[name].close()
		delete(c.cursors, name)
		return nil
	case "DEALLOCATE":
		at := 1
		if st.Word(at) == "PREPARE" {
			at++
		}
		if st.Word(at) == "ALL" {
			p.tag = "DEALLOCATE ALL"
			clear(c.prepared)
			return nil
		}
		name, _ := st.Name(at)
		if c.prepared[name] == nil {
			return refusal(serve.CodeStatementName, "prepared statement %q does not exist", name)
		}
		delete(c.prepared, name)
		return nil
	case "LISTEN", "UNLISTEN", "ANALYZE", "CHECKPOINT": // nothing to do
		return nil
	case "LOCK":
		p.tag = "LOCK TABLE"
		return nil
	}
	return errUnknownCommand
}

func (c *conn) notice(code, message string) {
	c.send(&pgproto3.NoticeResponse{Severity: "WARNING", SeverityUnlocalized: "WARNING", Code: code, Message: message})
}

func (c *conn) beginTransaction(p *portal) error {
	p.tag = "BEGIN"
	if p.st.Word(0) == "START" {
		p.tag = "START TRANSACTION"
	}
	if c.state != idle {
		c.notice("25001", "there is already a transaction in progress")
		return nil
	}
	c.state = inside
	c.session.Save()
	c.session.Begin()
	return c.transactionModes(p.st, 1)
}

// transactionModes reads ISOLATION LEVEL … , READ ONLY, READ WRITE, [NOT] DEFERRABLE. Every level is a snapshot.
func (c *conn) transactionModes(st *sqltext.Statement, at int) error {
	for ; at < len(st.Tokens); at++ {
		switch st.Word(at) {
		case "ISOLATION":
			level := strings.ToLower(st.Between(at+2, at+3))
			if second := st.Word(at + 3); second == "READ" || second == "COMMITTED" || second == "UNCOMMITTED" {
				level += " " + strings.ToLower(second)
			}
			if err := c.session.Set("transaction_isolation", level, true); err != nil {
				return err
			}
			at += 3
		case "READ":
			value := "on"
			if st.Word(at+1) == "WRITE" {
				value = "off"
			}
			if err := c.session.Set("transaction_read_only", value, true); err != nil {
				return err
			}
			at++
		}
	}
	return nil
}

func (c *conn) endTransaction(ctx context.Context, p *portal, rollback bool) error {
	if c.state == idle {
		c.notice(serve.CodeNoTransaction, "there is no transaction in progress")
		return c.session.End(ctx, rollback) // but there may be that of several statements in one message
	}
	if c.state == failed {
		p.tag, rollback = "ROLLBACK", true
	}
	chain := p.st.Word(1) == "AND" && p.st.Word(2) == "CHAIN"
	err := c.closeTransaction(ctx, p, rollback)
	if chain && err == nil {
		c.state = inside
		c.session.Save()
		c.session.Begin()
	}
	return err
}

func (c *conn) closeTransaction(ctx context.Context, own *portal, rollback bool) error {
	for name, p := range c.portals {
		if p != own {
			p.close()
			delete(c.portals, name)
		}
	}
	c.closeCursors(false)
	c.session.Restore(rollback)
	c.savepoints = nil
	c.state = idle
	return c.session.End(ctx, rollback)
}

func (c *conn) rollback(ctx context.Context, p *portal) error {
	st := p.st
	at := 1
	if w := st.Word(at); w == "WORK" || w == "TRANSACTION" {
		at++
	}
	if st.Word(at) == "TO" {
		at++
		if st.Word(at) == "SAVEPOINT" {
			at++
		}
		return c.toSavepoint(ctx, st, at, true)
	}
	if st.Word(1) == "PREPARED" {
		return refusal(serve.CodeNotSupported, "prepared transactions are not supported")
	}
	return c.endTransaction(ctx, p, true)
}

// savepoint is a place in a transaction; mark is the session's.
type savepoint struct {
	name string
	mark int
}

// toSavepoint forgets the savepoints after a name; rolling back keeps the named one and mends the transaction.
func (c *conn) toSavepoint(ctx context.Context, st *sqltext.Statement, at int, rollback bool) error {
	name, ok := st.Name(at)
	if !ok {
		return refusal(serve.CodeSyntax, "syntax error at or near %q", st.Text(at))
	}
	if c.state == idle {
		return refusal(serve.CodeNoTransaction, "%s can only be used in transaction blocks", st.Word(0))
	}
	i := -1
	for j, s := range c.savepoints {
		if s.name == name {
			i = j
		}
	}
	if i < 0 {
		return refusal(serve.CodeNoSavepoint, "savepoint %q does not exist", name)
	}
	if rollback {
		c.savepoints = c.savepoints[:i+1]
		c.state = inside
		return c.session.RollbackTo(ctx, c.savepoints[i].mark)
	}
	c.savepoints = c.savepoints[:i]
	return nil
}

// set runs SET [SESSION|LOCAL] name {TO|=} value, and its special forms.
func (c *conn) set(st *sqltext.Statement) error {
	at, local := 1, false
	switch st.Word(at) {
	case "SESSION":
		at++
		if st.Word(at) == "CHARACTERISTICS" {
			for i := at; i < len(st.Tokens); i++ {
				if st.Word(i) == "READ" && st.Word(i+1) == "ONLY" {
					return c.session.Set("default_transaction_read_only", "on", false)
				}
				if st.Word(i) == "READ" && st.Word(i+1) == "WRITE" {
					return c.session.Set("default_transaction_read_only", "off", false)
				}
			}
			return nil
		}
	case "LOCAL":
		at++
		local = true
	}
	switch st.Word(at) {
	case "TRANSACTION":
		return c.transactionModes(st, at+1)
	case "TIME":
		value := strings.Trim(st.Rest(at+2), "'")
		return c.session.Set("timezone", value, local)
	case "ROLE", "AUTHORIZATION":
		name, _ := st.Name(at + 1)
		if lit, ok := st.Literal(at + 1); ok {
			name = lit
		}
		if name == "none" || name == "default" || strings.EqualFold(name, c.session.Role.Name) {
			return nil
		}
		return refusal(serve.CodePermission, "permission denied to set role %q", name)
	case "NAMES", "SCHEMA":
		value, _ := st.Literal(at + 1)
		return c.session.Set(st.Word(at), value, local)
	case "CONSTRAINTS":
		return nil
	}
	name, ok := st.Name(at)
	if !ok {
		return refusal(serve.CodeSyntax, "syntax error at or near %q", st.Text(at))
	}
	at++
	for st.Text(at) == "." {
		part, _ := st.Name(at + 1)
		name, at = name+"."+part, at+2
	}
	if st.Word(at) != "TO" && st.Text(at) != "=" {
		return refusal(serve.CodeSyntax, "syntax error at or near %q", st.Text(at))
	}
	at++
	if st.Word(at) == "DEFAULT" && at+1 == len(st.Tokens) {
		return c.session.Reset(name)
	}
	var parts []string
	for ; at < len(st.Tokens); at++ {
		switch lit, isText := st.Literal(at); {
		case isText:
			parts = append(parts, lit)
		case st.Text(at) == ",":
			parts = append(parts, ", ")
		default:
			if n, ok := st.Name(at); ok {
				parts = append(parts, n)
			} else {
				parts = append(parts, st.Text(at))
			}
		}
	}
	return c.session.Set(name, strings.Join(parts, ""), local)
}

// showName gives the parameter that SHOW asks for.
func showName(st *sqltext.Statement) string {
	name := strings.ToLower(st.Rest(1))
	if n, ok := st.Name(1); ok && len(st.Tokens) == 2 {
		name = n
	}
	switch strings.Join(strings.Fields(name), " ") {
	case "transaction isolation level":
		return "transaction_isolation"
	case "time zone":
		return "TimeZone"
	case "session authorization":
		return "session_authorization"
	}
	return name
}

func (c *conn) show(p *portal) error {
	name := showName(p.st)
	switch name {
	case "all":
		var rows [][]string
		for _, n := range c.session.Names() {
			v, _ := c.session.Show(n)
			rows = append(rows, []string{n, v, ""})
		}
		p.rows = serve.TextRows([]string{"name", "setting", "description"}, rows...)
		return nil
	case "tables": // DuckDB's
		return refusal(serve.CodeUndefinedObject, "unrecognized configuration parameter %q; the tables stand in information_schema.tables", name)
	}
	v, ok := c.session.Show(name)
	if !ok {
		return refusal(serve.CodeUndefinedObject, "unrecognized configuration parameter %q", name)
	}
	p.rows = serve.TextRows([]string{name}, []string{v})
	p.tag = "SHOW"
	return nil
}

// declare runs DECLARE name [options] CURSOR [WITH|WITHOUT HOLD] FOR query.
func (c *conn) declare(ctx context.Context, p *portal) error {
	st := p.st
	p.tag = "DECLARE CURSOR"
	name, ok := st.Name(1)
	if !ok {
		return refusal(serve.CodeSyntax, "DECLARE wants a name")
	}
	cursor := &portal{started: true}
	at := 2
	for ; at < len(st.Tokens) && st.Word(at) != "CURSOR"; at++ {
		switch st.Word(at) {
		case "BINARY":
			cursor.formats = []int16{1}
		case "SCROLL":
			if st.Word(at-1) != "NO" {
				return refusal(serve.CodeNotSupported, "cursors that scroll are not supported; they go forward only")
			}
		}
	}
	at++
	if st.Word(at) == "WITH" && st.Word(at+1) == "HOLD" {
		cursor.fetch = holdCursor
		at += 2
	} else if st.Word(at) == "WITHOUT" {
		at += 2
	}
	if st.Word(at) != "FOR" {
		return refusal(serve.CodeSyntax, "syntax error at or near %q", st.Text(at))
	}
	switch {
	case c.state == idle && cursor.fetch != holdCursor:
		return refusal(serve.CodeNoTransaction, "DECLARE CURSOR can only be used in transaction blocks")
	case c.cursors[name] != nil:
		return refusal(serve.CodeDuplicateCursor, "cursor %q already exists", name)
	case len(c.cursors) > preparedMax:
		return refusal(serve.CodeTooComplex, "the session has %d cursors; close some", len(c.cursors))
	}
	run := c.detach(ctx, cursor)
	defer cursor.follow(ctx)()
	var err error
	if cursor.rows, err = c.session.Query(run, sqltext.One(st.Rest(at+1)), p.params); err != nil {
		cursor.close()
		return err
	}
	c.cursors[name] = cursor
	return nil
}

// parseFetch reads FETCH or MOVE [direction] [FROM|IN] name; n is -1 for all.
func parseFetch(st *sqltext.Statement) (name string, n int64, move bool, err error) {
	move = st.Word(0) == "MOVE"
	last := len(st.Tokens) - 1
	name, ok := st.Name(last)
	if !ok || last < 1 {
		return "", 0, move, refusal(serve.CodeSyntax, "FETCH wants the name of a cursor")
	}
	var words []string
	for i := 1; i < last; i++ {
		if w := strings.ToUpper(st.Text(i)); w != "FROM" && w != "IN" {
			words = append(words, w)
		}
	}
	if len(words) > 0 && words[0] == "FORWARD" {
		words = words[1:]
	}
	switch {
	case len(words) == 0 || slices.Equal(words, []string{"NEXT"}):
		return name, 1, move, nil
	case slices.Equal(words, []string{"ALL"}):
		return name, -1, move, nil
	case len(words) == 1:
		if n, err := strconv.ParseInt(words[0], 10, 64); err == nil && n >= 0 {
			return name, n, move, nil
		}
	}
	return "", 0, move, &serve.Error{Code: "55000", Message: "cursor can only scan forward", Hint: "FETCH NEXT, FETCH n, FETCH ALL"}
}

func (c *conn) fetch(p *portal) error {
	name, n, move, err := parseFetch(p.st)
	if err != nil {
		return err
	}
	cursor := c.cursors[name]
	if cursor == nil {
		return refusal(serve.CodeCursorName, "cursor %q does not exist", name)
	}
	if move {
		moved := int64(0)
		for ; n < 0 || moved < n; moved++ {
			more, err := cursor.next()
			if err != nil {
				return err
			}
			if !more {
				break
			}
			cursor.at++
		}
		p.tag = "MOVE " + strconv.FormatInt(moved, 10)
		return nil
	}
	p.cursor, p.fetch, p.rows = cursor, n, cursor.rows
	if len(p.formats) == 0 {
		p.formats = cursor.formats
	}
	return nil
}
