// Package worker runs shipped statements in processes of their own, so that no statement can harm the one that serves: a
// worker has no credentials and, where the system can forbid it, no network; it reads the files that its statement names,
// writes to one temporary folder, and is killed and replaced when it takes more memory or time than it may. Pool is the
// parent's side, Main the worker's; between them is a socket with gob messages that carry Arrow.
package worker

import (
	"github.com/cauce-data/cauce/engine/duckdb"
)

// Request is one statement for a worker.
type Request struct {
	// Install is run once in each worker's process for each Key, before the statement; "" is none.
	Key     string
	Install []string
	Forget  bool // what was installed before; the pool sets it

	Zone     string        // time zone of the statement; "": as before
	Steps    []duckdb.Step // undone after the statement
	SQL      string
	Describe bool // only types
	Exec     bool // gives no rows
	Spare    bool // may have the worker that is kept for those who look what the others do
}

// message is what the parent sends: a request, the wish to end the running one, or to forget the session's tables.
type message struct {
	ID      uint64 // of the request, or of the one to end
	Request *Request
	Cancel  bool
	Reset   bool
}

// reply is what a worker sends: columns first, then bytes of an Arrow IPC stream, then Done or an error.
type reply struct {
	Params  []string
	Columns []duckdb.ColumnType
	Head    bool // Params and Columns are set
	Bytes   []byte
	Err     *Error
	Done    bool
}

// Error is an error of a statement in a worker.
type Error struct {
	Kind    string // DuckDB's class, such as "Binder"
	Message string
}

func (e *Error) Error() string { return e.Message }

// Kinds of errors that the pool itself makes.
const (
	KindMemory    = "OutOfMemory" // the limit of memory
	KindDied      = "Died"        // the process ended by itself
	KindBusy      = "Busy"        // the queue is full
	KindWaited    = "Waited"      // its time passed before a worker was free
	KindSpool     = "Spool"       // the result is larger than may be kept
	KindCancelled = "Interrupt"
	KindView      = "View" // a view does not fit its tables
)

// config is what a worker's process is told when it starts.
type config struct {
	Readable    []string // folders
	Temp        string   // its own folder
	MemoryLimit int64    // bytes for DuckDB
	TempLimit   int64    // bytes in Temp
	Inside      bool     // the limits are set; this is the second stage
}
