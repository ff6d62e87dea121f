package duckdb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/duckdb/duckdb-go/v2"
)

// Session is one connection of a worker, for shipped statements. It runs any SQL: the gate is the planner's.
type Session struct {
	e     *Engine
	c     *conn
	zone  string
	steps []Step // of the last statement, whose tables and views are still there
}

// ColumnType is a column of a result: its name and its type in DuckDB's SQL.
type ColumnType struct {
	Name string
	Type string
}

// Lock ends what SQL may change of this engine, and what it may read beyond the folders.
func (e *Engine) Lock(ctx context.Context, readable []string) error {
	return e.with(ctx, func(c *conn) error {
		for _, s := range []string{
			"SET allowed_directories = " + quoteTexts(readable),
			"SET enable_external_access = false",
			"SET allow_community_extensions = false",
		} {
			if err := c.exec(ctx, s); err != nil {
				return err
			}
		}
		return nil
	})
}

// NewSession takes a connection. Close it.
func (e *Engine) NewSession(ctx context.Context) (*Session, error) {
	c, err := e.acquire(ctx)
	if err != nil {
		return nil, err
	}
	return &Session{e: e, c: c}, nil
}

// Close gives the connection up; what it holds vanishes.
func (s *Session) Close() error { return s.c.release() }

// SetTimeZone sets the zone in which times are read and cut.
func (s *Session) SetTimeZone(ctx context.Context, zone string) error {
	if zone == "" || zone == s.zone {
		return nil
	}
	if err := s.c.exec(ctx, "SET TimeZone = "+quoteText(zone)); err != nil {
		return err
	}
	s.zone = zone
	return nil
}

// Exec runs SQL that gives no rows.
func (s *Session) Exec(ctx context.Context, sql string) error { return s.c.exec(ctx, sql) }

// Begin does the steps of a statement. End undoes them.
func (s *Session) Begin(ctx context.Context, steps []Step) error {
	for _, st := range steps {
		s.steps = append(s.steps, st)
		if st.Table == "" {
			err := s.c.exec(ctx, st.SQL)
			if err != nil && st.View != "" && ctx.Err() == nil {
				err = &ViewError{st.View}
			}
			if err != nil {
				return err
			}
			continue
		}
		if err := s.fill(ctx, st); err != nil {
			return fmt.Errorf("rows of %s: %w", st.Table, err)
		}
	}
	return nil
}

func (s *Session) fill(ctx context.Context, st Step) error {
	r, err := ipc.NewReader(bytes.NewReader(st.Rows))
	if err != nil {
		return err
	}
	defer r.Release()
	view := s.e.name("cauce_in_")
	release, err := s.c.register(r, view)
	if err != nil {
		return err
	}
	defer release()
	return s.c.exec(ctx, fmt.Sprintf("CREATE OR REPLACE TEMP TABLE %s AS SELECT %s FROM %s", quoteName(st.Table), st.Items, quoteName(view)))
}

// End drops what the steps of a statement made.
func (s *Session) End() error {
	ctx := context.Background()
	var errs []error
	for i := len(s.steps) - 1; i >= 0; i-- {
		switch st := s.steps[i]; {
		case st.Table != "":
			errs = append(errs, s.c.exec(ctx, "DROP TABLE IF EXISTS "+quoteName(st.Table)))
		case strings.HasPrefix(st.SQL, viewPrefix):
			name, _, _ := strings.Cut(st.SQL[len(viewPrefix):], " AS ")
			errs = append(errs, s.c.exec(ctx, "DROP VIEW IF EXISTS "+name))
		}
	}
	s.steps = nil
	return errors.Join(errs...)
}

const viewPrefix = "CREATE OR REPLACE TEMP VIEW "

// Describe gives the types of a statement's parameters ($1 …) and of its columns. A type that nothing tells is "".
func (s *Session) Describe(ctx context.Context, sql string) (params []string, columns []ColumnType, err error) {
	st, err := s.c.raw.PrepareContext(ctx, sql)
	if err != nil {
		return nil, nil, wrapSQL(ctx, err)
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	stmt, ok := st.(*duckdb.Stmt)
	if !ok {
		return nil, nil, fmt.Errorf("BUG: %T is no duckdb statement", st)
	}
	byNumber := map[int]string{}
	most := 0
	for i := 1; i <= stmt.NumInput(); i++ {
		name, err := stmt.ParamName(i)
		if err != nil {
			return nil, nil, err
		}
		at, err := strconv.Atoi(name)
		if err != nil {
			at = i
		}
		t, err := stmt.ParamType(i)
		if err != nil {
			return nil, nil, err
		}
		if byNumber[at] = typeText(t); t == duckdb.TYPE_LIST {
			byNumber[at] = "VARCHAR[]" // of what, nothing tells; texts become anything
		}
		most = max(most, at)
	}
	for i := 1; i <= most; i++ {
		params = append(params, byNumber[i])
	}
	n, err := stmt.ColumnCount()
	if err != nil {
		return nil, nil, err
	}
	for i := range n {
		name, err := stmt.ColumnName(i)
		if err != nil {
			return nil, nil, err
		}
		info, err := stmt.ColumnTypeInfo(i)
		if err != nil { // known only when parameters are, or of rows, whose members have no names
			t, err := stmt.ColumnType(i)
			if err != nil {
				return nil, nil, err
			}
			columns = append(columns, ColumnType{Name: name, Type: rowTypes[t]})
			continue
		}
		columns = append(columns, ColumnType{Name: name, Type: typeInfoText(info)})
	}
	return params, columns, nil
}

// Query runs a statement; the caller releases the reader.
func (s *Session) Query(ctx context.Context, sql string) (array.RecordReader, error) {
	return s.c.arrow(ctx, sql)
}

var typeTexts = map[duckdb.Type]string{
	duckdb.TYPE_BOOLEAN: "BOOLEAN", duckdb.TYPE_TINYINT: "TINYINT", duckdb.TYPE_SMALLINT: "SMALLINT", duckdb.TYPE_INTEGER: "INTEGER",
	duckdb.TYPE_BIGINT: "BIGINT", duckdb.TYPE_UTINYINT: "UTINYINT", duckdb.TYPE_USMALLINT: "USMALLINT", duckdb.TYPE_UINTEGER: "UINTEGER",
	duckdb.TYPE_UBIGINT: "UBIGINT", duckdb.TYPE_HUGEINT: "HUGEINT", duckdb.TYPE_UHUGEINT: "UHUGEINT", duckdb.TYPE_FLOAT: "FLOAT", duckdb.TYPE_DOUBLE: "DOUBLE",
	duckdb.TYPE_TIMESTAMP: "TIMESTAMP", duckdb.TYPE_TIMESTAMP_S: "TIMESTAMP_S", duckdb.TYPE_TIMESTAMP_MS: "TIMESTAMP_MS",
	duckdb.TYPE_TIMESTAMP_NS: "TIMESTAMP_NS", duckdb.TYPE_TIMESTAMP_TZ: "TIMESTAMPTZ", duckdb.TYPE_DATE: "DATE", duckdb.TYPE_TIME: "TIME",
	duckdb.TYPE_TIME_TZ: "TIMETZ", duckdb.TYPE_INTERVAL: "INTERVAL", duckdb.TYPE_VARCHAR: "VARCHAR", duckdb.TYPE_BLOB: "BLOB",
	duckdb.TYPE_DECIMAL: "DECIMAL", duckdb.TYPE_UUID: "UUID", duckdb.TYPE_BIT: "BIT", duckdb.TYPE_ENUM: "ENUM", duckdb.TYPE_LIST: "LIST",
	duckdb.TYPE_ARRAY: "LIST", duckdb.TYPE_STRUCT: "STRUCT", duckdb.TYPE_MAP: "MAP", duckdb.TYPE_SQLNULL: "NULL",
}

// rowTypes are the types that hold values of ROW(…).
var rowTypes = map[duckdb.Type]string{duckdb.TYPE_STRUCT: "ROW", duckdb.TYPE_LIST: "ROW[]"}

func typeText(t duckdb.Type) string { return typeTexts[t] }

func typeInfoText(info duckdb.TypeInfo) string {
	switch d := info.Details().(type) {
	case *duckdb.DecimalDetails:
		return fmt.Sprintf("DECIMAL(%d,%d)", d.Width, d.Scale)
	case *duckdb.ListDetails:
		return typeInfoText(d.Child) + "[]"
	case *duckdb.ArrayDetails:
		return typeInfoText(d.Child) + "[]"
	}
	return typeText(info.InternalType())
}
