package serve

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/engine/duckdb"
	"github.com/cauce-data/cauce/pipeline"
	"github.com/cauce-data/cauce/serve/worker"
)

// Error is an error with its SQLSTATE (PostgreSQL documentation, Appendix A).
type Error struct {
	Code     string
	Message  string
	Hint     string
	Position int // in characters from 1; 0: none
}

func (e *Error) Error() string { return e.Message }

// The SQLSTATEs that Cauce gives.
const (
	CodeProtocol         = "08P01"
	CodeNotSupported     = "0A000"
	CodeCast             = "22P02"
	CodeData             = "22000"
	CodeOutOfRange       = "22003"
	CodeDivisionByZero   = "22012"
	CodeInvalidParameter = "22023"
	CodeCursorState      = "24000"
	CodeReadOnly         = "25006"
	CodeNoTransaction    = "25P01"
	CodeFailed           = "25P02"
	CodeStatementName    = "26000"
	CodeBadPassword      = "28P01"
	CodeBadAuthorization = "28000"
	CodeNoDatabase       = "3D000"
	CodeCursorName       = "34000"
	CodeNoSavepoint      = "3B001"
	CodePermission       = "42501"
	CodeSyntax           = "42601"
	CodeColumn           = "42703"
	CodeUndefinedObject  = "42704"
	CodeDuplicateCursor  = "42P03"
	CodeDuplicateStmt    = "42P05"
	CodeDuplicateTable   = "42P07"
	CodeFunction         = "42883"
	CodeTable            = "42P01"
	CodeParameter        = "42P02"
	CodeDatatype         = "42804"
	CodeDisk             = "53100"
	CodeMemory           = "53200"
	CodeTooMany          = "53300"
	CodeLimit            = "53400"
	CodeTooComplex       = "54000"
	CodeCancelled        = "57014"
	CodeShutdown         = "57P01"
	CodeInternal         = "XX000"
)

func errorf(code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// workerKinds gives the SQLSTATE of DuckDB's classes of errors.
var workerKinds = map[string]string{
	"Parser": CodeSyntax, "Syntax": CodeSyntax, "Binder": CodeSyntax, "Catalog": CodeTable, "Conversion": CodeCast, "OutofRange": CodeOutOfRange,
	"InvalidInput": CodeInvalidParameter, "Permission": CodePermission, "NotImplemented": CodeNotSupported, "OutofMemory": CodeMemory,
	"IO": CodeInternal, "Constraint": "23000", "MismatchType": CodeDatatype, "Mismatch": CodeDatatype, "Decimal": CodeOutOfRange, "DivideByZero": CodeDivisionByZero,
	worker.KindMemory: CodeMemory, worker.KindDied: CodeInternal, worker.KindBusy: CodeTooMany, worker.KindSpool: CodeDisk, worker.KindCancelled: CodeCancelled, worker.KindWaited: CodeCancelled,
	worker.KindView: CodeInvalidParameter,
}

// noRelation is what the catalogue's regclass_in says.
var noRelation = regexp.MustCompile(`^relation ".*" does not exist$`)

// AsError gives any error its SQLSTATE.
func AsError(err error) *Error {
	var own *Error
	if errors.As(err, &own) {
		return own
	}
	var w *worker.Error
	if errors.As(err, &w) {
		e := &Error{Code: workerKinds[w.Kind], Message: firstLine(w.Message)}
		switch {
		case e.Code == "":
			e.Code = CodeInternal
		case w.Kind == worker.KindCancelled:
			e.Message = "canceling statement due to user request"
		case w.Kind == worker.KindWaited:
			e.Message = "canceling statement due to statement timeout: " + w.Message
			e.Hint = "end the long ones where they were asked (Ctrl-C, Cancel); serve.statement_timeout bounds them, serve.workers lets more run"
		case w.Kind == "Binder" && strings.Contains(w.Message, "olumn"):
			e.Code = CodeColumn
		case (w.Kind == "Catalog" || w.Kind == "Binder") && strings.Contains(w.Message, "unction"):
			e.Code = CodeFunction
		case w.Kind == "InvalidInput" && noRelation.MatchString(e.Message):
			e.Code = CodeTable
		case w.Kind == "Catalog" && strings.Contains(w.Message, "Type with name"):
			e.Code = CodeUndefinedObject
		}
		return e
	}
	var syntax *pipeline.SyntaxError
	var statement *duckdb.StatementError
	switch {
	case errors.As(err, &syntax):
		return &Error{Code: CodeSyntax, Message: syntax.Msg, Position: max(0, syntax.Offset+1)}
	case errors.As(err, &statement):
		return &Error{Code: CodeSyntax, Message: firstLine(err.Error())}
	case errors.Is(err, duckdb.ErrFunction):
		return &Error{Code: CodeFunction, Message: err.Error()}
	case errors.Is(err, duckdb.ErrNotSupported):
		return &Error{Code: CodeNotSupported, Message: err.Error()}
	case errors.Is(err, duckdb.ErrRange):
		return &Error{Code: CodeOutOfRange, Message: err.Error()}
	case errors.Is(err, duckdb.ErrStatement):
		return &Error{Code: CodePermission, Message: err.Error()}
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{Code: CodeCancelled, Message: "canceling statement due to statement timeout"}
	case errors.Is(err, context.Canceled):
		return &Error{Code: CodeCancelled, Message: "canceling statement due to user request"}
	case errors.Is(err, delta.ErrNotATable):
		return &Error{Code: CodeTable, Message: err.Error(), Hint: "nothing has been written to the table yet"}
	}
	return &Error{Code: CodeInternal, Message: firstLine(err.Error())}
}

// Waited tells whether a statement's time passed before a worker was free for it.
func Waited(err error) bool {
	var w *worker.Error
	return errors.As(err, &w) && w.Kind == worker.KindWaited
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n\nLINE ")
	return strings.TrimSpace(s)
}
