package web

import (
	"context"
	"encoding/csv"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/serve"
	"github.com/cauce-data/cauce/serve/sqltext"
)

// Bounds of the page SQL: rows that it shows, and the length of a statement.
const (
	gridRowsMax   = 5000
	gridRows      = 1000
	statementsMax = 64 << 10
)

// sqlRoutes are what the page SQL asks. A statement goes the way of PostgreSQL's door: through the gate, with the rights of
// the role, into a worker, within its limits. A client that goes away ends its statement.
func (s *server) sqlRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /api/sql/schema", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), patience)
		defer cancel()
		relations, err := s.o.SQL.Relations(ctx, roleOf(r))
		if err != nil {
			s.o.Log.Warn("web: "+r.URL.Path, "error", err)
			fail(w, http.StatusInternalServerError, err.Error())
			return
		}
		answer(w, http.StatusOK, map[string]any{"relations": relations})
	})
	mux.HandleFunc("GET /api/sql", s.statement(s.grid))
	mux.HandleFunc("GET /api/sql.csv", s.statement(s.export))
}

// sqlError is what a refused or failed statement is told with.
type sqlError struct {
	Error    string `json:"error"`
	Code     string `json:"code"` // SQLSTATE
	Hint     string `json:"hint,omitempty"`
	Position int    `json:"position,omitempty"` // in characters from 1
}

// statement runs the statement of a request and hands its rows to show. An error before the first byte is answered.
func (s *server) statement(show func(w http.ResponseWriter, r *http.Request, rows *serve.Rows, began time.Time) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		began, q := time.Now(), r.URL.Query()
		ctx, cancel := r.Context(), context.CancelFunc(func() {})
		if s.o.StatementTimeout > 0 {
			ctx, cancel = context.WithTimeout(ctx, s.o.StatementTimeout)
		}
		defer cancel()
		out := &started{ResponseWriter: w}
		err := s.query(ctx, q.Get("sql"), q.Get("version"), q.Get("time"), roleOf(r), func(rows *serve.Rows) error { return show(out, r.WithContext(ctx), rows, began) })
		code := "00000"
		var e *serve.Error
		if err != nil {
			if ctx.Err() != nil {
				err = errors.Join(ctx.Err(), err)
			}
			e = serve.AsError(err)
			code = e.Code
		}
		took := time.Since(began)
		s.o.Log.Debug("statement", "door", "web", "role", roleOf(r).Name, "code", code, "seconds", took.Seconds(), "sql", q.Get("sql"))
		if s.o.Statement != nil {
			s.o.Statement(took, code)
		}
		switch {
		case err == nil:
		case out.begun: // the client must not take what it has for the whole
			panic(http.ErrAbortHandler)
		default:
			status := http.StatusBadRequest
			if code == serve.CodeInternal {
				status = http.StatusInternalServerError
				s.o.Log.Warn("web: "+r.URL.Path, "error", err)
			}
			answer(w, status, sqlError{e.Message, e.Code, e.Hint, e.Position})
		}
	}
}

// started tells whether anything has been written.
type started struct {
	http.ResponseWriter
	begun bool
}

func (s *started) Write(b []byte) (int, error) {
	s.begun = true
	return s.ResponseWriter.Write(b)
}

func (s *server) query(ctx context.Context, text, version, at string, role *serve.Role, show func(*serve.Rows) error) error {
	if len(text) > statementsMax {
		return &serve.Error{Code: serve.CodeTooComplex, Message: "the statement is longer than 64 KiB"}
	}
	list := sqltext.Split(text)
	switch {
	case len(list) == 0:
		return &serve.Error{Code: serve.CodeSyntax, Message: "there is no statement"}
	case len(list) > 1:
		return &serve.Error{Code: serve.CodeSyntax, Message: "one statement at a time", Hint: "take out all but one"}
	}
	session := s.o.SQL.Session(role, 0)
	defer session.Close()
	switch {
	case version != "" && at != "":
		return &serve.Error{Code: serve.CodeInvalidParameter, Message: "a version or a time, not both"}
	case version != "":
		session.AtUnit, session.At = "version", version
	case at != "":
		session.AtUnit, session.At = "timestamp", at
	}
	// A transaction, so that all that the statement names is of one moment.
	session.Begin()
	rows, err := session.Query(ctx, list[0], nil)
	if err != nil {
		return err
	}
	return errors.Join(show(rows), rows.Close())
}

// cells gives the rows as texts, null for null, until f says false.
func cells(rows *serve.Rows, f func(row []*string) bool) error {
	for {
		b, err := rows.Next()
		if err != nil || b == nil {
			return err
		}
		for i := range int(b.NumRows()) {
			row := make([]*string, b.NumCols())
			for k, c := range b.Columns() {
				if c.IsValid(i) {
					v := strings.Clone(cellText(c, i)) // the batch goes when the next one comes
					row[k] = &v
				}
			}
			if !f(row) {
				return nil
			}
		}
	}
}

// cellText is a value as cauce query writes it to CSV: times of an instant are in UTC.
func cellText(c arrow.Array, i int) string {
	row, ok := c.(*array.Struct)
	if !ok || row.NumField() == 0 || row.DataType().(*arrow.StructType).Field(0).Name != "" {
		return c.ValueStr(i)
	}
	members := make([]string, row.NumField()) // of ROW(…): they have no names, which JSON would need
	for f := range members {
		if m := row.Field(f); m.IsValid(i) {
			members[f] = cellText(m, i)
		}
	}
	return "(" + strings.Join(members, ",") + ")"
}

// grid answers with the first rows of a statement's result.
func (s *server) grid(w http.ResponseWriter, r *http.Request, rows *serve.Rows, began time.Time) error {
	limit, err := number(r, "limit", gridRows)
	if err != nil {
		return &serve.Error{Code: serve.CodeInvalidParameter, Message: err.Error()}
	}
	limit = min(limit, gridRowsMax)
	type column struct {
		Name string `json:"name"`
		Type string `json:"type"` // DuckDB's name
	}
	out := struct {
		Columns []column                 `json:"columns"`
		Rows    [][]*string              `json:"rows"`
		More    bool                     `json:"more"` // the result has more rows than these
		Seconds float64                  `json:"seconds"`
		Read    map[string]delta.Version `json:"read"` // versions of the tables that were read
	}{Columns: []column{}, Rows: [][]*string{}, Read: rows.Read}
	for _, c := range rows.Columns {
		out.Columns = append(out.Columns, column{c.Name, c.Type})
	}
	err = cells(rows, func(row []*string) bool {
		if int64(len(out.Rows)) >= limit {
			out.More = true
			return false
		}
		out.Rows = append(out.Rows, row)
		return true
	})
	if err != nil {
		return err
	}
	out.Seconds = time.Since(began).Seconds()
	answer(w, http.StatusOK, out)
	return nil
}

// export answers with all rows as CSV (RFC 4180) with a header; null is an empty field.
func (s *server) export(w http.ResponseWriter, _ *http.Request, rows *serve.Rows, _ time.Time) error {
	h := w.Header()
	h.Set("Content-Type", "text/csv; charset=utf-8; header=present")
	h.Set("Content-Disposition", `attachment; filename="cauce-`+strconv.FormatInt(time.Now().Unix(), 10)+`.csv"`)
	h.Set("Cache-Control", "no-store")
	out := csv.NewWriter(w)
	var names []string
	for _, c := range rows.Columns {
		names = append(names, c.Name)
	}
	// The header is kept back until there is a row, so that an early error can still be told.
	pending := true
	head := func() error {
		if !pending {
			return nil
		}
		pending = false
		return out.Write(names)
	}
	var werr error
	record := make([]string, len(names))
	err := cells(rows, func(row []*string) bool {
		if werr = head(); werr != nil {
			return false
		}
		for i, v := range row {
			record[i] = ""
			if v != nil {
				record[i] = *v
			}
		}
		werr = out.Write(record)
		return werr == nil
	})
	if err == nil {
		err = werr
	}
	if err == nil {
		err = head()
	}
	if err != nil {
		h.Del("Content-Disposition")
		return err
	}
	out.Flush()
	return out.Error()
}
