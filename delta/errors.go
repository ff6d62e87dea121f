package delta

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Sentinels for what a caller branches on; test with errors.Is. Those with more to tell have a type beside them.
var (
	// ErrNotATable says that there is no Delta log under a path.
	ErrNotATable = errors.New("not a Delta table")
	// ErrTableExists says that Create found a table.
	ErrTableExists = errors.New("table already exists")
	// ErrVersionNotFound says that a version or time cannot be read (see VersionError).
	ErrVersionNotFound = errors.New("version not available")
	// ErrCorrupt is the class of errors about a log that breaks the protocol.
	ErrCorrupt = errors.New("corrupt Delta log")
	// ErrUnsupported is the class of errors about protocol features that are not implemented (see UnsupportedError).
	ErrUnsupported = errors.New("unsupported")
	// ErrProperty says that a table property has a bad name or value.
	ErrProperty = errors.New("bad table property")
	// ErrDomain says that the metadata of a domain must not be changed by hand: its name begins with "delta.".
	ErrDomain = errors.New("system-controlled metadata domain")
	// ErrAppendOnly says that a commit would remove data of a table with delta.appendOnly.
	ErrAppendOnly = errors.New("table is append-only")
	// ErrTooManyTries says that a commit lost more races than its bound allows.
	ErrTooManyTries = errors.New("commit gave up")

	// ErrConflict is the class of all conflicts (see ConflictError).
	ErrConflict = errors.New("conflict with a concurrent commit")
	// ErrConcurrentAppend says that a winner added files that the transaction would have read.
	ErrConcurrentAppend = errors.New("files were added by a concurrent commit")
	// ErrConcurrentDeleteRead says that a winner removed files that the transaction read.
	ErrConcurrentDeleteRead = errors.New("files that were read were removed by a concurrent commit")
	// ErrConcurrentDeleteDelete says that a winner removed files that the transaction removes.
	ErrConcurrentDeleteDelete = errors.New("the same files were removed by a concurrent commit")
	// ErrTxnApplied says that the table has a txn of the same application already, at or past the transaction's version.
	ErrTxnApplied = errors.New("a concurrent or earlier commit of the same application exists")
	// ErrConcurrentTransaction is ErrTxnApplied under the name that Spark has for it.
	ErrConcurrentTransaction = ErrTxnApplied
	// ErrMetadataChanged says that a winner changed the table's metadata or the domain metadata of the transaction.
	ErrMetadataChanged = errors.New("the metadata was changed by a concurrent commit")
	// ErrProtocolChanged says that a winner changed the table's protocol.
	ErrProtocolChanged = errors.New("the protocol was changed by a concurrent commit")
)

// ConflictKind says which rule a conflict broke.
type ConflictKind int

// The kinds of conflict, with the sentinel that errors.Is finds for each.
const (
	ConcurrentAppend       ConflictKind = iota + 1 // ErrConcurrentAppend
	ConcurrentDeleteRead                           // ErrConcurrentDeleteRead
	ConcurrentDeleteDelete                         // ErrConcurrentDeleteDelete
	ConcurrentTransaction                          // ErrTxnApplied
	MetadataChanged                                // ErrMetadataChanged
	ProtocolChanged                                // ErrProtocolChanged
)

func (k ConflictKind) sentinel() error {
	switch k {
	case ConcurrentAppend:
		return ErrConcurrentAppend
	case ConcurrentDeleteRead:
		return ErrConcurrentDeleteRead
	case ConcurrentDeleteDelete:
		return ErrConcurrentDeleteDelete
	case ConcurrentTransaction:
		return ErrTxnApplied
	case MetadataChanged:
		return ErrMetadataChanged
	case ProtocolChanged:
		return ErrProtocolChanged
	}
	return ErrConflict
}

// String names the kind.
func (k ConflictKind) String() string { return k.sentinel().Error() }

// ConflictError says why a transaction cannot follow a commit that another writer made. errors.Is finds ErrConflict
// and the sentinel of its kind.
type ConflictError struct {
	Kind    ConflictKind
	Version Version // the commit that won
	Detail  string  // file, application or domain, where there is one
}

func (e *ConflictError) Error() string {
	msg := fmt.Sprintf("version %d: %s", e.Version, e.Kind)
	if e.Detail != "" {
		msg += ": " + e.Detail
	}
	return msg
}

// Is finds ErrConflict and the sentinel of the kind.
func (e *ConflictError) Is(target error) bool {
	return target == ErrConflict || target == e.Kind.sentinel()
}

// VersionError says which versions can be read instead of the one asked for. errors.Is finds ErrVersionNotFound.
type VersionError struct {
	Version          Version   // asked for, if Time is zero
	Time             time.Time // asked for, if not zero
	Earliest, Latest Version   // what is available
	EarliestTime     time.Time // time of Earliest, only where Time was asked for
}

func (e *VersionError) Error() string {
	if !e.Time.IsZero() {
		return fmt.Sprintf("no version at %s: the first that is available is %d of %s, the last is %d",
			e.Time.UTC().Format(time.RFC3339Nano), e.Earliest, e.EarliestTime.UTC().Format(time.RFC3339Nano), e.Latest)
	}
	return fmt.Sprintf("version %d is not available: versions %d to %d are", e.Version, e.Earliest, e.Latest)
}

// Is finds ErrVersionNotFound.
func (e *VersionError) Is(target error) bool { return target == ErrVersionNotFound }

// UnsupportedError names what of the protocol is used by a table and not implemented here. errors.Is finds
// ErrUnsupported.
type UnsupportedError struct {
	What  string   // "reader feature", "writer feature", "type", "reader version" …
	Names []string // as the protocol spells them
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("unsupported %s: %s", e.What, strings.Join(e.Names, ", "))
}

// Is finds ErrUnsupported.
func (e *UnsupportedError) Is(target error) bool { return target == ErrUnsupported }

// CorruptError says where a log breaks the protocol. errors.Is finds ErrCorrupt.
type CorruptError struct {
	Key  string // object
	Line int    // from 1, 0 if it is not one line
	Err  error
}

func (e *CorruptError) Error() string {
	if e.Line > 0 {
		return fmt.Sprintf("%s: line %d: %v", e.Key, e.Line, e.Err)
	}
	return fmt.Sprintf("%s: %v", e.Key, e.Err)
}

// Is finds ErrCorrupt.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

// Unwrap gives the reason.
func (e *CorruptError) Unwrap() error { return e.Err }

// ErrAlter is the class of errors about changes of a table's schema, properties or protocol that are refused (see
// AlterError).
var ErrAlter = errors.New("the table cannot be changed so")

// AlterError says why a change of a table's schema, properties or protocol is refused. errors.Is finds ErrAlter.
type AlterError struct {
	Class  string // the name that Spark has for it, such as DELTA_UNSUPPORTED_RENAME_COLUMN
	Column string // or feature, or property; "" if it is about none
	Reason string
}

func (e *AlterError) Error() string {
	if e.Column == "" {
		return e.Reason + " (" + e.Class + ")"
	}
	return fmt.Sprintf("%s: %s (%s)", e.Column, e.Reason, e.Class)
}

// Is finds ErrAlter.
func (e *AlterError) Is(target error) bool { return target == ErrAlter }
