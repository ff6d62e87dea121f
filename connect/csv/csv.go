// Package csv stands between the CSV files of a store and the engines that read them: it makes a file ready for
// reading (decompressed, in UTF-8, on local disk), identifies it by the hash of its original bytes, decides whether it
// has a header, and splits it into records exactly, each with its position, line, byte offset and raw text.
//
// # Records
//
// A record ends with \n or \r\n; a file without any \n is read as one with \n in the place of each \r. Blank lines are no records. Fields may stand in quotes; inside, a quote is doubled,
// and line breaks are kept as they are where csv.multiline allows them. The rules are those of encoding/csv without
// LazyQuotes, but for two points: a \r\n inside quotes keeps its \r, and a record that breaks the rules costs its
// first line only.
//
// A record is bad, and keeps its position, if it has the wrong number of fields, breaks the rules of quoting, holds a
// NUL or bytes that its encoding does not define, or is longer than RecordBytesMax.
package csv

import "errors"

// Errors that concern a file as a whole; nothing of it is read.
var (
	// ErrNotText says that a file is no text at all.
	ErrNotText = errors.New("not a text file")
	// ErrCorrupt says that a compressed file is damaged.
	ErrCorrupt = errors.New("compressed file is damaged")
	// ErrArchive says that a zip archive does not hold exactly one readable data file.
	ErrArchive = errors.New("zip archive does not hold exactly one readable data file")
	// ErrEncoding says that an encoding is not known.
	ErrEncoding = errors.New("encoding is not known")
	// ErrHeader says that a header can't be used.
	ErrHeader = errors.New("header can't be used")
	// ErrLineEnds says that a file's lines end in several ways, of which one is CR alone.
	ErrLineEnds = errors.New("line ends are mixed")
	// ErrMissingField says that a file lacks a field that the lake file names and does not call optional.
	ErrMissingField = errors.New("field is missing")
	// ErrDangling says that a link leads nowhere.
	ErrDangling = errors.New("link leads to a file that does not exist")
	// ErrTooLarge says that a file is larger than Options.StagedBytesMax after decompression.
	ErrTooLarge = errors.New("decompressed file is too large")
)
