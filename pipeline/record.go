package pipeline

import (
	"context"
	"errors"
	"iter"
	"time"
)

// Record is one message of a stream, as its source delivered it.
type Record struct {
	Topic     string
	Partition int32
	Offset    int64     // position in the partition; becomes _position
	Time      time.Time // the server's time of the message
	Key       []byte
	Value     []byte // nil is a tombstone
	Origin    string // becomes _origin: "<kind>:<incarnation>:<topic>/<partition>"
	// Text is what Value says as JSON, or of a tombstone what Key says, where the message carries another format, such as
	// Avro; nil: they are read as they are.
	Text []byte
	// Bad is why the message cannot be decoded; "": nothing is known against it.
	Bad string
}

// RawFile is one input file made ready for reading: decompressed and transcoded to UTF-8 without byte order mark on
// local disk, with everything that identifies its rows. Whoever made it deletes Path with Close.
type RawFile struct {
	// Name is the object key of the file relative to the storage root: "raw/batch/historico_2024-08-20.csv.gz".
	Name string
	// Path is a local plain UTF-8 file. It may be the original itself where that is plain, local and UTF-8.
	Path string
	// Origin becomes _origin: "f:" and 16 hex digits of the SHA-256 of the original bytes.
	Origin string
	SHA256 string // hex, of the original bytes
	Size   int64  // bytes of the original
	// Generation becomes _generation: last-modified time of the original in µs since the epoch.
	Generation int64
	ModTime    time.Time
	ETag       string // the store's
	// Fields are the names of the fields in file order: from the header, or from the source's configuration.
	Fields []string
	// HasHeader tells that the first record is a header; it has no position.
	HasHeader bool
	// Rows reads every record exactly, good or bad, in file order; an engine may use its own faster reader where
	// that gives the same records, and must use this one where its own reader meets a record it cannot split.
	Rows func(ctx context.Context) iter.Seq2[RawRow, error]
	// RowsAt reads only the records at these positions, which ascend; others are passed over cheaply. It fetches the
	// text and line of records whose casts failed in an engine that read Path with its own reader.
	RowsAt func(ctx context.Context, positions []int64) iter.Seq2[RawRow, error]
	// Plain tells that Path is valid UTF-8 without NUL and that all its lines end alike, in \n or in \r\n, with no other
	// \r: an engine's own reader then splits it as Rows does, unless it meets a record it must reject.
	Plain bool
	// Unchanged returns an error that wraps ErrChanged if the original is no longer the file that was hashed. Whoever
	// read Path by itself calls it afterwards; Rows and RowsAt do so at their end.
	Unchanged func(ctx context.Context) error
	// Close removes temporary files; nil when there are none.
	Close func() error
}

// ErrChanged says that a file changed while it was read, so that nothing read from it is worth keeping; the next run
// finds it whole.
var ErrChanged = errors.New("file changed while it was read")

// RawRow is one record of a file.
type RawRow struct {
	Position int64    // ordinal among all records of the decompressed file, header excluded, from 1
	Line     int64    // line on which the record begins, from 1
	Offset   int64    // byte offset of the record in the decompressed file
	Values   []string // one per field; nil when the record is structurally bad
	Quoted   []bool   // per field: it stood in quotes, so that "" is an empty text and no null; nil: none was quoted
	Raw      string   // the record's text, at most RawBytesMax bytes
	RawBytes int64    // length of the whole record in bytes
	Err      string   // why the record is structurally bad: wrong number of fields, quote errors, invalid UTF-8 …; "" if good
	Warning  string   // for example "last record is not terminated"
}

// RawBytesMax bounds the raw text kept for a bad row; of a longer one file, byte offset and length are kept.
const RawBytesMax = 1 << 20

// BadRow is a record that goes to quarantine.
type BadRow struct {
	Origin     string
	Position   int64
	Generation int64
	File       string // for files
	Line       int64  // for files
	Topic      string // for streams
	Partition  int32
	Offset     int64
	Rule       string // "cast:price", "not_null:event_time", "structure", or the expectation's name
	Reason     string // which value, why
	Raw        string
	RawBytes   int64 // length of the whole raw record
	RawOffset  int64 // byte offset in the decompressed file
	// RawBinary is the message of a stream where Raw, which is text, cannot be exactly that: it is no UTF-8, it is empty and
	// no tombstone, or Raw is what it says as JSON. nil everywhere else.
	RawBinary []byte
	Key       []byte    // of the message; nil: none
	Time      time.Time // of the message; zero: none is known
}
