package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cauce-data/cauce/connect/kafka"
	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/engine/duckdb"
	"github.com/cauce-data/cauce/ingest"
)

// Exit codes are part of the command line's contract: scripts and schedulers branch on them.
const (
	exitFailure = 1 // something went wrong while working
	exitUsage   = 2 // bad use or configuration: calling again without a change is pointless
	// 3 (data broke a rule with on_fail: fail), 4 (the source no longer has records that the table has not seen) and
	// 5 (other writers kept winning) come from ingest.ExitCode.
)

// usageError marks an error as bad use or configuration.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &usageError{err: fmt.Errorf(format, args...)}
}

// reported ends a command with a code after it has already told what was wrong as part of its result.
type reported struct {
	code int
	msg  string // one line for people; "" if nothing is left to say
}

func (e *reported) Error() string { return e.msg }

// interrupted says that a signal ended the work early.
type interrupted struct{ signal os.Signal }

func (e *interrupted) Error() string {
	return fmt.Sprintf("stopped by %v before the end; what was committed stays, and the next run goes on from there", e.signal)
}

// exitCode maps an error to the code that the process ends with.
func exitCode(err error) int {
	var (
		rep   *reported
		usage *usageError
		sql   *duckdb.StatementError
	)
	switch {
	case err == nil:
		return 0
	case errors.As(err, &rep):
		return rep.code
	case errors.As(err, &usage), errors.As(err, &sql), errors.Is(err, delta.ErrNotATable), errors.Is(err, delta.ErrVersionNotFound),
		errors.Is(err, delta.ErrNoSuchColumn), errors.Is(err, delta.ErrClustered), errors.Is(err, kafka.ErrTLS):
		return exitUsage
	}
	return ingest.ExitCode(err)
}

// fail tells the user about err and gives the exit code. With --json a command that has not printed its object yet
// prints one that carries the error, so that a reader of standard output always finds exactly one.
func (a *app) fail(err error) int {
	code := exitCode(err)
	if err == nil {
		return code
	}
	msg := a.redact(strings.TrimRight(err.Error(), "\n"))
	if msg != "" {
		fmt.Fprintf(a.stderr, "cauce: %s\n", msg)
	}
	if a.json && !a.printed {
		out, _ := json.Marshal(struct {
			Error    string `json:"error"`
			ExitCode int    `json:"exit_code"`
		}{msg, code})
		fmt.Fprintf(a.stdout, "%s\n", out)
	}
	return code
}
