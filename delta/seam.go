package delta

import (
	"context"
	"iter"
	"time"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"

	"github.com/cauce-data/cauce/delta/expr"
	"github.com/cauce-data/cauce/objstore"
)

// Engine is how rows are found, read and written. delta plans, decides and commits; an Engine only moves rows. The
// zero value stands for the pure-Go implementation of each part; a host (such as DuckDB) may supply faster ones. All
// methods are safe for concurrent use.
type Engine struct {
	Locator    Locator
	Reader     Reader
	FileWriter FileWriter
	// Expressions parses the SQL that tables keep: CHECK constraints, invariants, generated columns, column defaults. nil:
	// a table that has one of these cannot be written.
	Expressions ExpressionParser
}

// ExpressionParser turns SQL into an expression tree. delta itself reads no SQL.
type ExpressionParser interface {
	// ParseExpression parses an expression in Spark's SQL, which is what table metadata holds. Columns come with their
	// names as written, one name for each part of a path.
	ParseExpression(sql string) (expr.Expr, error)
}

// Rows is a finite relation whose rows have ordinals 0 … NumRows()-1 that never change, so that it can be read more
// than once and in parts. The caller of delta owns and closes it after the operation.
//
// An Engine may recognise its own implementation (for instance a table inside the engine) and avoid the copy through
// Arrow; any Engine must accept any Rows.
type Rows interface {
	// Schema has the table's logical column names. Timestamps are timestamp[us, UTC], dates date32, decimals
	// decimal128, strings utf8.
	Schema() *arrow.Schema
	NumRows() int64
	// Read yields the rows with the given ordinals in ascending order (nil: all rows), with the given columns in
	// that order (nil: all). The consumer must not keep a batch beyond its iteration step without Retain.
	Read(ctx context.Context, columns []string, ordinals *roaring64.Bitmap) iter.Seq2[arrow.RecordBatch, error]
}

// KeyedRows is implemented by Rows that can vouch that no two rows are equal in the given columns; Merge then does
// not look for duplicates itself.
type KeyedRows interface {
	Rows
	UniqueBy(columns []string) bool
}

// PatchedRows is implemented by Rows that are others with a few values replaced. An Engine that knows the others may lay the
// values over them itself, and need not take all rows through Arrow.
type PatchedRows interface {
	Rows
	// Unpatched gives the Rows underneath, with the same ordinals, and the values that replace theirs. A column of Schema that
	// they lack is null where nothing replaces it.
	Unpatched() (Rows, []Patch)
}

// Patch are values of some columns, each row of them for the row with the ordinal beside it; -1: for none. No two are for one
// row, and all patches of some Rows have the same columns.
type Patch struct {
	Ordinals []int64
	Values   arrow.RecordBatch
}

// File is a live data file of a snapshot, as an Engine needs it.
type File struct {
	Add *Add
	// Key is the object key of the file in the table's store (decoded; relative to the store's root).
	Key string
	// Deleted holds the physical row numbers (0-based) that the file's deletion vector marks; nil if none.
	Deleted *roaring64.Bitmap
}

// TableInfo is what an Engine must know of the table whose files it touches.
type TableInfo struct {
	Store       objstore.Store
	Path        string // key prefix of the table's root in Store, without trailing slash
	Schema      *Schema
	PartitionBy []string // logical names
	Config      map[string]string
}

// Match says that a live stored row has the same key as a row of the source.
type Match struct {
	Source int64 // ordinal in the source Rows
	File   int   // index into the files given to Locate
	Row    int64 // physical row number in that file, 0-based
}

// Matches are the answer of Locate. Stored has one row per element of Match, in the same order, with the columns that
// were wanted (of the stored row). The caller calls Release.
type Matches struct {
	Match  []Match
	Stored arrow.RecordBatch // nil when nothing was wanted or nothing matched
}

// Release frees Stored.
func (m *Matches) Release() {
	if m != nil && m.Stored != nil {
		m.Stored.Release()
		m.Stored = nil
	}
}

// Locator finds stored rows by key.
type Locator interface {
	// Locate finds every live row (not marked in File.Deleted) of files whose values in keyColumns equal those of a
	// row of source; a null in a key equals nothing. A stored row may match several source rows and the other way
	// round. The order of the matches is not defined. want names stored columns to return, nil for none.
	Locate(ctx context.Context, table TableInfo, files []File, source Rows, keyColumns, want []string) (*Matches, error)
}

// SequenceLocator is implemented by a Locator that keeps a column beside the keys. Merge then asks for the column that
// decides first alone, and reads other stored columns only of rows that it leaves tied.
type SequenceLocator interface {
	Locator
	// HasSequence tells whether Locate, with this column as the only one wanted, mostly need not read the rows it found.
	HasSequence(table TableInfo, keyColumns []string, column string) bool
}

// ReadOptions narrow what a Reader returns.
type ReadOptions struct {
	Columns []string // logical names, nil: all
	// WithPosition adds, as last columns, "_file_index" int32 (index into files) and "_row" int64 (physical row number).
	WithPosition bool
	// Rows, if not nil, restricts each file (same index) to these physical rows; a nil element means all rows.
	Rows []*roaring64.Bitmap
}

// Reader reads live rows of data files in the table's logical schema: partition columns from
// Add.PartitionValues, missing columns as null, rows marked in File.Deleted left out. Order: files as given, rows as stored.
type Reader interface {
	Read(ctx context.Context, table TableInfo, files []File, opts ReadOptions) iter.Seq2[arrow.RecordBatch, error]
}

// WriteRequest asks a FileWriter to write rows as new data files.
type WriteRequest struct {
	Rows Rows
	// Skip holds ordinals of Rows that are not written; nil: all rows are written.
	Skip *roaring64.Bitmap
	// SortBy orders the rows inside each file (logical column names); nil: as they come.
	SortBy []string
	// FileBytesTarget bounds a file's size approximately; 0: the writer's default.
	FileBytesTarget int64
	// Compression is "snappy" (default) or "zstd".
	Compression string
}

// WrittenFile is a finished, durable data file that no commit names yet.
type WrittenFile struct {
	Path            string // as Add.Path: percent-encoded, relative to the table's root
	Key             string // object key in the store
	PartitionValues map[string]*string
	Size            int64 // bytes
	ModTime         time.Time
	NumRecords      int64
	Stats           *Stats // never nil; NumRecords at least
}

// FileWriter writes rows as Parquet files below the table's root, in hive-style folders
// (event_date=2024-08-20/part-….snappy.parquet), each with statistics, and makes them durable. On error it deletes
// what it wrote.
type FileWriter interface {
	Write(ctx context.Context, table TableInfo, req WriteRequest) ([]WrittenFile, error)
}
