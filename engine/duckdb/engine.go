// Package duckdb is the embedded engine (DESIGN D6): it runs compiled plans over raw records, finds, reads and writes
// the rows of Delta tables, and answers queries, all inside one in-process DuckDB. It stands between pipeline and delta,
// which say what shall happen, and DuckDB's SQL, which does it; nothing outside this package sees that SQL.
//
// # Where rows live
//
// An epoch loads each input file or batch of records straight into a table of an in-memory database: raw fields are
// cast and checked while they are parsed, and what comes out is a relation that delta can look up and write without a
// copy through Arrow. The memory limit covers these tables; beyond it DuckDB moves them to the temporary folder.
//
// # Time
//
// Inside, a timestamp is DuckDB's TIMESTAMP and means UTC; it becomes TIMESTAMP WITH TIME ZONE only where rows leave
// (files, Arrow, queries), because casts between the two go through ICU and cost more than parsing the file.
package duckdb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/duckdb/duckdb-go/v2"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/pipeline"
)

// Options configure an Engine; the zero value works.
type Options struct {
	// MemoryLimit is what DuckDB may hold in memory, such as "2GB"; "" leaves DuckDB's own choice (80 % of the
	// machine). The process needs about 140 MB more.
	MemoryLimit string
	// Threads bounds DuckDB's threads; 0: one per processor.
	Threads int
	// TempDir takes what does not fit into memory, and files on their way to a store that is not local; "": a new
	// folder of the system's temporary folder, removed by Close.
	TempDir string
	// FileCache keeps what was read of data files in memory, up to the memory limit: for who asks the same files again and
	// again. A stream reads each of the files that it makes once or twice, and would fill the memory with them.
	FileCache bool
}

// Engine is one embedded DuckDB. It is safe for concurrent use.
type Engine struct {
	db       *sql.DB
	threads  int
	temp     string
	ownsTemp bool
	serial   atomic.Int64 // names of schemas and views
	shapes   shapeCache
	parsed   parsedCache

	mu       sync.Mutex
	programs map[*pipeline.Plan]*program

	crewMu sync.Mutex
	crews  int // callers that keep every processor busy with queries of their own
}

// Open starts a DuckDB.
func Open(o Options) (_ *Engine, err error) {
	e := &Engine{threads: o.Threads, temp: o.TempDir, programs: map[*pipeline.Plan]*program{}}
	if e.threads <= 0 {
		e.threads = runtime.GOMAXPROCS(0)
	}
	if e.temp == "" {
		if e.temp, err = os.MkdirTemp("", "cauce-duckdb-"); err != nil {
			return nil, fmt.Errorf("temporary folder for duckdb: %w", err)
		}
		e.ownsTemp = true
	} else if err := os.MkdirAll(e.temp, 0o755); err != nil {
		return nil, fmt.Errorf("temporary folder for duckdb: %w", err)
	}
	defer func() {
		if err != nil {
			_ = e.Close()
		}
	}()
	// Spilled blocks go to a folder of this engine's own, so that two processes may be given the same TempDir.
	spill, err := os.MkdirTemp(e.temp, "spill-")
	if err != nil {
		return nil, fmt.Errorf("temporary folder for duckdb: %w", err)
	}
	if !e.ownsTemp {
		e.ownsTemp, e.temp = true, spill
	}
	settings := []string{
		"SET TimeZone = 'UTC'",
		"SET temp_directory = " + quoteText(spill),
		"SET threads = " + strconv.Itoa(e.threads),
		"SET autoinstall_known_extensions = false",
		"SET autoload_known_extensions = false",
		"SET enable_progress_bar = false",
		// The allocator returns what a large epoch or a compaction has freed only where a thread asks for it; those of Go
		// that run queries never do.
		"SET allocator_background_threads = true",
		"SET enable_external_file_cache = " + strconv.FormatBool(o.FileCache),
	}
	if o.MemoryLimit != "" {
		settings = append(settings, "SET memory_limit = "+quoteText(o.MemoryLimit))
	}
	connector, err := duckdb.NewConnector("", func(c driver.ExecerContext) error {
		// Settings of the session; those of the instance are made once, below.
		_, err := c.ExecContext(context.Background(), "SET TimeZone = 'UTC'", nil)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open duckdb: %w", err)
	}
	e.db = sql.OpenDB(connector)
	e.db.SetMaxIdleConns(16)
	e.db.SetConnMaxIdleTime(10 * time.Minute)
	ctx := context.Background()
	err = e.with(ctx, func(c *conn) error {
		for _, s := range settings {
			if err := c.exec(ctx, s); err != nil {
				return err
			}
		}
		return registerFunctions(c.sql)
	})
	if err != nil {
		return nil, fmt.Errorf("open duckdb: %w", err)
	}
	keepPages(pagesKept) // refused, it costs time only
	return e, nil
}

// Close ends DuckDB and removes its temporary files. Everything made by the engine must be closed before.
func (e *Engine) Close() error {
	var errs []error
	if e.db != nil {
		errs = append(errs, e.db.Close())
	}
	if e.ownsTemp {
		errs = append(errs, os.RemoveAll(e.temp))
	}
	return errors.Join(errs...)
}

// Delta gives the engine's parts for the delta library.
func (e *Engine) Delta() delta.Engine {
	return delta.Engine{Locator: locator{e}, Reader: reader{e}, FileWriter: fileWriter{e}, Expressions: deltaParser{e}}
}

// crew takes DuckDB's own threads away until the returned function is called: for a caller that runs as many queries at
// once as there are processors. A query whose task such a thread has taken does not wait, it spins, and with more
// threads than processors the spinning takes a quarter of the machine from the work.
func (e *Engine) crew(ctx context.Context) (done func()) {
	if e.threads < 2 {
		return func() {}
	}
	// That the setting fails costs time and nothing else.
	set := func(threads int) {
		ctx := context.WithoutCancel(ctx)
		_ = e.with(ctx, func(c *conn) error { return c.exec(ctx, "SET threads = "+strconv.Itoa(threads)) })
	}
	e.crewMu.Lock()
	defer e.crewMu.Unlock()
	if e.crews++; e.crews == 1 {
		set(1)
	}
	return sync.OnceFunc(func() {
		e.crewMu.Lock()
		defer e.crewMu.Unlock()
		if e.crews--; e.crews == 0 {
			set(e.threads)
		}
	})
}

// name makes a name that nothing else in this engine has.
func (e *Engine) name(prefix string) string {
	return prefix + strconv.FormatInt(e.serial.Add(1), 10)
}

// conn is one connection of the pool, with the door for Arrow.
type conn struct {
	sql *sql.Conn
	raw *duckdb.Conn
}

// with lends a connection to f.
func (e *Engine) with(ctx context.Context, f func(*conn) error) error {
	c, err := e.acquire(ctx)
	if err != nil {
		return err
	}
	return errors.Join(f(c), c.release())
}

// acquire takes a connection; the caller releases it.
func (e *Engine) acquire(ctx context.Context) (*conn, error) {
	sc, err := e.db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("duckdb connection: %w", err)
	}
	c := &conn{sql: sc}
	err = sc.Raw(func(dc any) error {
		raw, ok := dc.(*duckdb.Conn)
		if !ok {
			return fmt.Errorf("BUG: %T is no duckdb connection", dc)
		}
		c.raw = raw
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, sc.Close())
	}
	return c, nil
}

func (c *conn) release() error { return c.sql.Close() }

func (c *conn) exec(ctx context.Context, query string) error {
	_, err := c.raw.ExecContext(ctx, query, nil)
	return wrapSQL(ctx, err)
}

// arrow runs a query; the caller releases the reader.
func (c *conn) arrow(ctx context.Context, query string) (array.RecordReader, error) {
	a, err := duckdb.NewArrowFromConn(c.raw)
	if err != nil {
		return nil, err
	}
	r, err := a.QueryContext(ctx, query)
	return r, wrapSQL(ctx, err)
}

// register makes an Arrow stream a view of this connection, good for one scan. The caller calls the returned function
// when the scan is over.
//
// DuckDB takes it that an Arrow stream gives just the columns that a query uses and the rows that its conditions want,
// and forgets the conditions; the driver's stream gives everything. A query that leaves out a column would read another's
// memory, and a WHERE would do nothing. So the columns travel inside one struct, and struct_insert, which costs nothing a
// row, keeps the optimizer from reaching through it.
func (c *conn) register(r array.RecordReader, name string) (func(), error) {
	a, err := duckdb.NewArrowFromConn(c.raw)
	if err != nil {
		return nil, err
	}
	s := newStructReader(r)
	raw := ownedName(name)
	release, err := a.RegisterView(s, raw)
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	done := func() {
		_ = c.exec(ctx, "DROP VIEW IF EXISTS "+quoteName(name))
		_ = c.exec(ctx, "DROP VIEW IF EXISTS "+quoteName(raw))
		freeOwned(raw)
		release()
	}
	var cols []string
	for _, f := range r.Schema().Fields() {
		cols = append(cols, "r."+quoteName(f.Name)+" AS "+quoteName(f.Name))
	}
	if err := c.exec(ctx, fmt.Sprintf("CREATE VIEW %s AS SELECT %s FROM (SELECT struct_insert(r, %s := 0) AS r FROM %s)",
		quoteName(name), strings.Join(cols, ", "), quoteName(name+"_z"), quoteName(raw))); err != nil {
		done()
		return nil, err
	}
	return done, nil
}

// structReader gives the batches of a stream as one struct column r.
type structReader struct {
	array.RecordReader
	schema *arrow.Schema
	batch  arrow.RecordBatch
	err    error
}

func newStructReader(r array.RecordReader) *structReader {
	return &structReader{RecordReader: r, schema: arrow.NewSchema([]arrow.Field{{Name: "r", Type: arrow.StructOf(r.Schema().Fields()...)}}, nil)}
}

func (s *structReader) Schema() *arrow.Schema { return s.schema }

func (s *structReader) Next() bool {
	if s.batch != nil {
		s.batch.Release()
		s.batch = nil
	}
	if s.err != nil || !s.RecordReader.Next() {
		return false
	}
	b := s.RecordReader.RecordBatch()
	st, err := array.NewStructArrayWithFields(b.Columns(), s.schema.Field(0).Type.(*arrow.StructType).Fields())
	if err != nil {
		s.err = err
		return false
	}
	s.batch = array.NewRecordBatch(s.schema, []arrow.Array{st}, b.NumRows())
	st.Release()
	return true
}

func (s *structReader) RecordBatch() arrow.RecordBatch { return s.batch }
func (s *structReader) Record() arrow.RecordBatch      { return s.batch }

func (s *structReader) Err() error {
	if s.err != nil {
		return s.err
	}
	return s.RecordReader.Err()
}

// each calls f for every row of a query. The values in row are f's only during the call.
func (c *conn) each(ctx context.Context, query string, f func(row []any) error) error {
	rows, err := c.raw.QueryContext(ctx, query, nil)
	if err != nil {
		return wrapSQL(ctx, err)
	}
	defer rows.Close()
	n := len(rows.Columns())
	vals := make([]driver.Value, n)
	out := make([]any, n)
	for {
		switch err := rows.Next(vals); {
		case err == nil:
		case errors.Is(err, errEOF):
			return nil
		default:
			return wrapSQL(ctx, err)
		}
		for i, v := range vals {
			out[i] = v
		}
		if err := f(out); err != nil {
			return err
		}
	}
}

// one reads the first row of a query.
func (c *conn) one(ctx context.Context, query string) ([]any, error) {
	var first []any
	err := c.each(ctx, query, func(row []any) error {
		if first == nil {
			first = append(first, row...)
		}
		return nil
	})
	return first, err
}

// wrapSQL lets a cancelled context show as such and not as DuckDB's "interrupted".
func wrapSQL(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return errors.Join(ctx.Err(), err)
	}
	return err
}

// quoteText makes an SQL text literal, or an expression of one with a NUL, at which DuckDB takes a statement to end.
func quoteText(s string) string {
	q := "'" + strings.ReplaceAll(s, "'", "''") + "'"
	if strings.IndexByte(s, 0) < 0 {
		return q
	}
	return "(" + strings.ReplaceAll(q, "\x00", "' || chr(0) || '") + ")"
}

// quoteName makes an SQL identifier.
func quoteName(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// quoteTexts makes an SQL list of texts.
func quoteTexts(ss []string) string {
	var b strings.Builder
	b.WriteByte('[')
	for i, s := range ss {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(quoteText(s))
	}
	b.WriteByte(']')
	return b.String()
}

// tempPath names a new file in the engine's temporary folder.
func (e *Engine) tempPath(prefix, suffix string) string {
	return filepath.Join(e.temp, e.name(prefix)+suffix)
}
