package worker

import (
	"context"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/apache/arrow-go/v18/arrow/ipc"
	driver "github.com/duckdb/duckdb-go/v2"

	"github.com/cauce-data/cauce/engine/duckdb"
)

// Command is the first argument of a program that shall be a worker: its main calls Main and does nothing else.
const Command = "sql-worker"

// configVariable is the environment variable by which a process knows that it is a worker.
const configVariable = "CAUCE_SQL_WORKER"

// socketFD is the file descriptor of the socket to the parent.
const socketFD = 3

// batchRowsMax bounds one reply; larger batches are cut.
const batchRowsMax = 64 << 10

// cataloguesMax bounds the catalogues that a worker has; there is another one for each set of temporary tables. The pool counts
// them, for it sends those that a worker has not.
const cataloguesMax = 20

// Main is the whole life of a worker process; it gives the exit code. Its configuration comes from the pool.
func Main() int {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "sql worker:", err)
		return 1
	}
	return 0
}

func run() error {
	text := os.Getenv(configVariable)
	if text == "" {
		return errors.New("this command is started by cauce serve and does nothing for people")
	}
	var c config
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	if !c.Inside {
		return confine(c) // does not return where it works
	}
	if err := os.Unsetenv(configVariable); err != nil {
		return err
	}
	f := os.NewFile(socketFD, "parent")
	conn, err := net.FileConn(f)
	if err != nil {
		return fmt.Errorf("socket to the parent: %w", err)
	}
	defer conn.Close()
	if err := f.Close(); err != nil {
		return err
	}
	engine, err := duckdb.Open(duckdb.Options{TempDir: c.Temp, FileCache: true, MemoryLimit: strconv.FormatInt(c.MemoryLimit, 10) + "B"})
	if err != nil {
		return err
	}
	defer engine.Close()
	w := &process{engine: engine, enc: gob.NewEncoder(conn)}
	if err := w.open(c); err != nil {
		return err
	}
	return w.serve(gob.NewDecoder(conn))
}

// process is the worker's side of the socket. One statement runs at a time.
type process struct {
	engine    *duckdb.Engine
	session   *duckdb.Session
	enc       *gob.Encoder
	installed map[string]bool

	mu     sync.Mutex
	id     uint64             // of the running statement
	cancel context.CancelFunc // ends it
}

func (w *process) open(c config) error {
	ctx := context.Background()
	s, err := w.engine.NewSession(ctx)
	if err != nil {
		return err
	}
	if err := s.Exec(ctx, "SET max_temp_directory_size = '"+strconv.FormatInt(c.TempLimit, 10)+"B'"); err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	if err := w.engine.Lock(ctx, append(c.Readable, c.Temp)); err != nil {
		return err
	}
	w.installed = map[string]bool{}
	w.session, err = w.engine.NewSession(ctx)
	return err
}

func (w *process) serve(dec *gob.Decoder) error {
	work := make(chan message)
	failed := make(chan error, 1)
	go func() {
		defer close(work)
		for {
			var m message
			if err := dec.Decode(&m); err != nil {
				w.interrupt(0) // the parent has gone
				failed <- err
				return
			}
			if m.Cancel {
				w.interrupt(m.ID)
				continue
			}
			work <- m
		}
	}()
	for m := range work {
		if err := w.handle(m); err != nil {
			return err
		}
	}
	if err := <-failed; !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// interrupt ends the running statement, if it has this id; 0: whichever it is. A wish may come late.
func (w *process) interrupt(id uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cancel != nil && (id == 0 || id == w.id) {
		w.cancel()
	}
}

// handle runs one message; the error is one of the socket.
func (w *process) handle(m message) error {
	if m.Reset {
		err := w.session.Close()
		if err == nil {
			w.session, err = w.engine.NewSession(context.Background())
		}
		if err != nil {
			return err
		}
		return w.enc.Encode(reply{Done: true})
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.mu.Lock()
	w.cancel, w.id = cancel, m.ID
	w.mu.Unlock()
	err := w.statement(ctx, m.Request)
	w.mu.Lock()
	w.cancel = nil
	w.mu.Unlock()
	cancelled := ctx.Err() != nil
	cancel()
	if end := w.session.End(); err == nil && end != nil && !m.Request.Exec {
		err = end
	}
	var send *sendError
	if errors.As(err, &send) {
		return send.error
	}
	if err != nil {
		return w.enc.Encode(reply{Err: asError(cancelled, err)})
	}
	return w.enc.Encode(reply{Done: true})
}

// sendError is an error of the socket.
type sendError struct{ error }

func (w *process) send(r reply) error {
	if err := w.enc.Encode(r); err != nil {
		return &sendError{err}
	}
	return nil
}

func (w *process) statement(ctx context.Context, r *Request) error {
	s := w.session
	if r.Forget {
		for key := range w.installed {
			if err := s.Exec(ctx, "DROP SCHEMA "+key+" CASCADE"); err != nil {
				return fmt.Errorf("catalogue: %w", err)
			}
			delete(w.installed, key)
		}
	}
	if r.Key != "" && !w.installed[r.Key] {
		for _, sql := range r.Install {
			if err := s.Exec(ctx, sql); err != nil {
				return fmt.Errorf("catalogue: %w: %s", err, sql)
			}
		}
		w.installed[r.Key] = true
	}
	if err := s.SetTimeZone(ctx, r.Zone); err != nil {
		return err
	}
	if err := s.Begin(ctx, r.Steps); err != nil {
		return err
	}
	if r.Exec {
		return s.Exec(ctx, r.SQL)
	}
	params, columns, err := s.Describe(ctx, r.SQL)
	if err != nil {
		return err
	}
	if err := w.send(reply{Head: true, Params: params, Columns: columns}); err != nil || r.Describe {
		return err
	}
	rows, err := s.Query(ctx, r.SQL)
	if err != nil {
		return err
	}
	defer rows.Release()
	sink := &replyWriter{w: w}
	out := ipc.NewWriter(sink, ipc.WithSchema(rows.Schema()))
	for rows.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := rows.RecordBatch()
		for at := int64(0); at < b.NumRows(); at += batchRowsMax {
			part := b.NewSlice(at, min(at+batchRowsMax, b.NumRows()))
			err := out.Write(part)
			part.Release()
			if err == nil {
				err = sink.flush()
			}
			if err != nil {
				return err
			}
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	return sink.flush()
}

// replyWriter sends what is written to it as replies, when it is told to.
type replyWriter struct {
	w   *process
	buf []byte
}

func (r *replyWriter) Write(b []byte) (int, error) {
	r.buf = append(r.buf, b...)
	return len(b), nil
}

func (r *replyWriter) flush() error {
	if len(r.buf) == 0 {
		return nil
	}
	err := r.w.send(reply{Bytes: r.buf})
	r.buf = r.buf[:0]
	return err
}

func asError(cancelled bool, err error) *Error {
	e := &Error{Message: err.Error()}
	var d *driver.Error
	switch {
	case cancelled:
		e.Kind = KindCancelled
	case errors.As(err, new(*duckdb.ViewError)):
		e.Kind = KindView
	case errors.As(err, &d):
		e.Message = d.Msg
		kind, rest, ok := strings.Cut(d.Msg, " Error: ")
		if ok && !strings.ContainsAny(kind, ":\n") {
			e.Kind, e.Message = strings.ReplaceAll(kind, " ", ""), rest
		}
	}
	if e.Kind == "OutofMemory" {
		e.Message, _, _ = strings.Cut(e.Message, "\n")
	}
	return e
}
