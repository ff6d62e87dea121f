// Package pipeline says what shall happen to data: it reads the lake file (tables, sources, mappings, transformations,
// expectations), finds every mistake in it with its line and column, and compiles each source into one Plan that batch
// and stream share. It stands between the file that a person writes and the engines that move rows; it names no engine,
// takes the SQL parser as an interface, and does no I/O beyond reading the lake file and what the file refers to.
package pipeline

import (
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/cauce-data/cauce/delta"
)

// System columns stand in every table beside the declared ones (DESIGN D2): they hold the winning order of the row, so
// that a late arrival is compared with what is stored and never with today's configuration.
const (
	ColumnRank       = "_rank"       // INT: Source.Rank
	ColumnGeneration = "_generation" // LONG: µs; 0 for streams
	ColumnPosition   = "_position"   // LONG: ordinal in the file, or offset
	ColumnOrigin     = "_origin"     // STRING: which file or partition
	ColumnDeleted    = "_deleted"    // BOOLEAN: only in tables whose sources delete
	ColumnUnknown    = "_unknown"    // STRING: only in tables of which a source keeps unknown fields; see RawUnknown
)

// RawUnknown is the name under which a plan refers to all raw fields of a record that no expression names: the text of a
// JSON object of those that are not null, by name; null if there is none. No field can be called so.
const RawUnknown = "\x00unknown"

// ColumnIngestedAt is the one declared column that an engine fills by itself: with the time of the epoch, if the lake
// file declares it and no source maps it. It is no part of a row's identity or of the table's logical hash.
const ColumnIngestedAt = "ingested_at"

// Lake is a valid lake file.
type Lake struct {
	File string // absolute path of the lake file
	Dir  string // its folder
	// Storage is the root of the lake as an absolute URL (file:, s3:, gs:); LoadOptions.Root overrides what the file says.
	Storage     string
	Tables      []*Table  // in the order of the file
	Sources     []*Source // in the order of the file
	Stream      Stream
	Schedule    Schedule
	Maintenance Maintenance
	Store       Store
	Buffer      Buffer
	Engine      Engine
	Index       Index
	Metrics     Metrics
	Shares      []Share // in the order of the file
	Serve       Serve
	Views       []*View // in the order of the file
	Roles       []Role  // in the order of the file
	// Warnings are findings that do not stop the lake from working as written but are probably not meant.
	Warnings Diagnostics

	plans   map[string]*Plan
	secrets []secret
}

// Store says how a bucket is reached. Empty fields leave it to the environment.
type Store struct {
	Endpoint, Region, Profile, Role, ExternalID string
	PathStyle                                   *bool
	Encryption, KMSKey                          string
	Commit                                      string // CommitConditional or CommitDynamoDB
	CommitTable, CommitScheme                   string // of DynamoDB
	CacheBytes                                  int64
}

// What Store.Commit may be.
const (
	CommitConditional = "conditional"
	CommitDynamoDB    = "dynamodb"
)

// DefaultCacheBytes is Store.CacheBytes where no lake file says it.
const DefaultCacheBytes = 4 << 30

// Table returns the table with this name; nil if there is none. Names ignore case, as SQL does.
func (l *Lake) Table(name string) *Table {
	for _, t := range l.Tables {
		if strings.EqualFold(t.Name, name) {
			return t
		}
	}
	return nil
}

// Source returns the source with this name; nil if there is none.
func (l *Lake) Source(name string) *Source {
	for _, s := range l.Sources {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// StateDir is the folder of local state (buffer, caches, run history) beside the lake file.
func (l *Lake) StateDir() string { return filepath.Join(l.Dir, ".cauce") }

// Redact replaces in s every value of 4 bytes and more that came out of ${env:…} or ${file:…} by the reference itself. Whatever shows text
// that may hold such a value (a storage URL, an address) passes it through here.
func (l *Lake) Redact(s string) string {
	for _, x := range l.secrets {
		s = strings.ReplaceAll(s, x.value, x.ref)
	}
	return s
}

// Column is a declared column of a table.
type Column struct {
	Name    string
	Type    delta.Type
	NotNull bool
	Comment string
}

// Table is a declared table.
type Table struct {
	Name     string
	Location string // key prefix below the root, such as "processed/unified-events"
	Comment  string
	Columns  []Column
	Key      []string // empty: rows are appended, each exactly once
	Sequence []string // which of two rows with the same key is newer
	// PartitionBy and ClusterBy have the spelling of Columns, as have Key and Sequence.
	PartitionBy []string
	ClusterBy   []string
	Transform   []Step
	Expect      []Expectation
	Evolve      string // EvolveNone or EvolveAddColumns
	Timezone    *time.Location
	// DeletionVectors false means copy-on-write.
	DeletionVectors bool
	Compression     string // "snappy" or "zstd"
	// Deletes is true if some source of the table has a delete expression; the table then has the column _deleted.
	Deletes bool
	// TombstoneRetention is how long after their sequence deletions are remembered; 0: for ever. Only where the table has
	// a key, deletes, and the first column of Sequence is a time.
	TombstoneRetention time.Duration
	// Ledger tells whether the table is complete; nil: nothing does.
	Ledger *Ledger
}

// What Table.Evolve may be.
const (
	EvolveNone       = "none"
	EvolveAddColumns = "add_columns"
)

// Column returns the declared column with this name, ignoring case.
func (t *Table) Column(name string) (Column, bool) {
	for _, c := range t.Columns {
		if strings.EqualFold(c.Name, name) {
			return c, true
		}
	}
	return Column{}, false
}

// DeltaSchema is the schema of the Delta table: the declared columns, then the system columns.
func (t *Table) DeltaSchema() *delta.Schema {
	s := &delta.Schema{Fields: make([]delta.Field, 0, len(t.Columns)+5)}
	for _, c := range t.Columns {
		f := delta.Field{Name: c.Name, Type: c.Type, Nullable: !c.NotNull}
		if c.Comment != "" {
			f.Metadata = map[string]any{"comment": c.Comment}
		}
		s.Fields = append(s.Fields, f)
	}
	s.Fields = append(s.Fields,
		delta.Field{Name: ColumnRank, Type: delta.Primitive("integer"), Nullable: true},
		delta.Field{Name: ColumnGeneration, Type: delta.Primitive("long"), Nullable: true},
		delta.Field{Name: ColumnPosition, Type: delta.Primitive("long"), Nullable: true},
		delta.Field{Name: ColumnOrigin, Type: delta.Primitive("string"), Nullable: true},
	)
	if t.Deletes {
		s.Fields = append(s.Fields, delta.Field{Name: ColumnDeleted, Type: delta.Primitive("boolean"), Nullable: true})
	}
	return s
}

// HideDeleted is the SQL condition by which rows that stand for deletions are left out of a table of the lake with these columns; "":
// there are none. What the lake file says does not count: a source may have deleted rows that is no longer in it, and a version may be
// older than the first deletion.
func HideDeleted(s *delta.Schema) string {
	if _, ok := s.Field(ColumnDeleted); !ok {
		return ""
	}
	return "NOT coalesce(" + ColumnDeleted + ", false)"
}

// Order is the winning order of rows with the same key (DESIGN D2): the greatest wins.
func (t *Table) Order() []delta.OrderTerm {
	o := make([]delta.OrderTerm, 0, len(t.Sequence)+5)
	for _, c := range t.Sequence {
		o = append(o, delta.OrderTerm{Column: c})
	}
	return append(o,
		delta.OrderTerm{Column: ColumnRank},
		delta.OrderTerm{Column: ColumnGeneration},
		delta.OrderTerm{Column: ColumnPosition},
		delta.OrderTerm{HashOf: t.MappedColumns()},
		delta.OrderTerm{Column: ColumnOrigin},
	)
}

// MappedColumns are the columns that come from the data: the declared ones except ingested_at.
func (t *Table) MappedColumns() []string {
	m := make([]string, 0, len(t.Columns))
	for _, c := range t.Columns {
		if !strings.EqualFold(c.Name, ColumnIngestedAt) {
			m = append(m, c.Name)
		}
	}
	return m
}

// SameColumns are the columns in which a stored and an arriving row must agree to count as unchanged: MappedColumns,
// and _deleted where the table has it.
func (t *Table) SameColumns() []string {
	m := t.MappedColumns()
	if t.Deletes {
		m = append(m, ColumnDeleted)
	}
	return m
}

// MergeKey is the key by which rows are merged: Key, or origin and position for a table without one.
func (t *Table) MergeKey() []string {
	if len(t.Key) == 0 {
		return []string{ColumnOrigin, ColumnPosition}
	}
	return t.Key
}

// Step is one step of a table's transformations; exactly one of its fields is set.
type Step struct {
	Set   []Mapping // all of them see the row as it was before the step
	Where string    // rows for which it is not true are filtered out
}

// Mapping gives a column the value of an SQL expression.
type Mapping struct {
	Column string
	SQL    string
}

// Expectation is a rule that rows must satisfy. A row passes only if Check is true; null does not pass.
type Expectation struct {
	Name   string
	Check  string // SQL
	OnFail string // OnFailWarn, OnFailQuarantine or OnFailFail
}

// What Expectation.OnFail may be.
const (
	OnFailWarn       = "warn"       // count, keep the row
	OnFailQuarantine = "quarantine" // the row goes to quarantine
	OnFailFail       = "fail"       // the run ends with exit code 3 and commits nothing
)

// Kinds of sources.
const (
	KindFiles    = "files"
	KindEmbedded = "embedded"
	KindKafka    = "kafka"
	KindPubSub   = "pubsub"
)

// Formats of records.
const (
	FormatCSV     = "csv"
	FormatJSON    = "json"    // a stream's record is an object; a file is an array of objects, or objects one after the other
	FormatJSONL   = "jsonl"   // an object a line
	FormatParquet = "parquet" // values become JSON
	FormatAvro    = "avro"    // object container files; values become JSON
)

// Source is a declared source of a table.
type Source struct {
	Name  string
	Table string // name of the table, in its spelling
	Kind  string // one of the Kind constants
	// Location holds patterns of object keys below the root: "raw/batch/historico_*.csv*". "**" stands for any folders.
	Location []string // for files
	// FromFilename has named groups that file_group reads out of a file's base name; nil: none.
	FromFilename *regexp.Regexp
	// Generation names the group of FromFilename that holds a file's generation; "": its time of last modification is.
	Generation string
	Topic      string  // for streams
	Kafka      *Kafka  // for KindKafka
	PubSub     *PubSub // for KindPubSub
	Format     string  // one of the Format constants
	CSV        CSV
	Rank       int32
	// OnReissue says what a changed file of the same name does: ReissueMerge or ReissueReplace.
	OnReissue string
	// UnknownFields says what happens to raw fields that nothing refers to: UnknownIgnore, UnknownKeep or
	// UnknownQuarantine.
	UnknownFields string
	Filter        string    // SQL over raw fields; "" for none
	Fields        []Mapping // SQL over raw fields
	Delete        string    // SQL over raw fields: rows for which it is true are deletions; "" for none
	// Produce says how `cauce up` fills the topic by itself; nil: something else does.
	Produce *Produce
	// Archive keeps the messages as they came, below raw/streaming/.
	Archive bool
	// Repair says where what the table's ledger lacks is fetched; nil: nowhere.
	Repair *Repair
}

// What Source.OnReissue may be.
const (
	ReissueMerge   = "merge"   // its rows are merged by their order; rows that vanished stay
	ReissueReplace = "replace" // rows standing under the predecessor are removed in the same commit
)

// What Source.UnknownFields may be.
const (
	UnknownIgnore     = "ignore"
	UnknownKeep       = "keep" // in ColumnUnknown
	UnknownQuarantine = "quarantine"
)

// Streaming tells whether the source is a stream.
func (s *Source) Streaming() bool { return s.Kind != KindFiles }

// Objects tells whether the source's records are texts of JSON objects, as they come from streams and from all files
// but CSV.
func (s *Source) Objects() bool { return s.Format != FormatCSV && s.Format != "" }

// Matches tells whether the object key, relative to the root, is a file of this source.
func (s *Source) Matches(key string) bool {
	for _, p := range s.Location {
		if matchKey(p, key) {
			return true
		}
	}
	return false
}

// Prefixes are the folders below which Location can match, each without a trailing slash, without those that lie
// below another.
func (s *Source) Prefixes() []string {
	var out []string
	for _, p := range s.Location {
		dir := path.Dir(p)
		if i := strings.IndexAny(p, `*?[\`); i >= 0 {
			dir = path.Dir(p[:i] + "x")
		}
		if dir == "." {
			return []string{""}
		}
		out = append(out, dir)
	}
	return outermost(out)
}

// FileGroups gives the named groups of FromFilename for a file, nil if its name does not match.
func (s *Source) FileGroups(name string) map[string]string {
	if s.FromFilename == nil {
		return nil
	}
	m := s.FromFilename.FindStringSubmatch(path.Base(name))
	if m == nil {
		return nil
	}
	g := make(map[string]string, len(m))
	for i, n := range s.FromFilename.SubexpNames() {
		if n != "" {
			g[n] = m[i]
		}
	}
	return g
}

// GenerationOf gives the generation that a file's name gives it: a date, or a date and a time, as µs since the epoch; any
// other digits as the number that they are. Only for sources that have Generation.
func (s *Source) GenerationOf(key string) (int64, error) {
	text, ok := s.FileGroups(key)[s.Generation]
	if !ok {
		return 0, fmt.Errorf("the name does not match from_filename, which holds the file's generation")
	}
	for _, layout := range generationLayouts {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UnixMicro(), nil
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("generation %q in the name is no date, time or number", text)
	}
	return n, nil
}

var generationLayouts = []string{
	"2006-01-02", "20060102", "2006-01-02T15:04:05", "20060102T150405", "20060102150405", "2006-01-02_15-04-05",
	"2006-01-02T15:04:05Z07:00", "20060102T150405Z07:00",
}

// CSV says how the records of a CSV file are written.
type CSV struct {
	Delimiter rune // ',' unless the file says otherwise
	Quote     rune // '"'; 0: fields are never quoted
	// Header is HeaderAuto, HeaderTrue or HeaderFalse.
	Header string
	// Encoding is a name of the WHATWG encoding standard, in lower case, such as "utf-8" or "windows-1252". A byte
	// order mark wins over it.
	Encoding string
	// Decimal is the decimal sign of numbers: '.' or ','. The compiled plan takes care of it, readers need not.
	Decimal rune
	// NullValues are the texts, beside an unquoted empty field, that mean null.
	NullValues []string
	// Multiline says that quoted fields may hold line breaks.
	Multiline bool
	// Columns names the fields of a file that has no header, in order.
	Columns []string
	// Optional names fields that a file may lack; they are null then. Any other field that an expression names must
	// be in the file.
	Optional []string

	// named are the fields that the source's expressions name; the plan's compiler fills it for HasHeader.
	named []string
}

// What CSV.Header may be.
const (
	HeaderAuto  = "auto"
	HeaderTrue  = "true"
	HeaderFalse = "false"
)

// HasHeader tells whether the first record of a file is a header. With HeaderAuto a file has a header if no Columns
// are declared, or if some value of the first record is the name of a declared column, of an optional field or of a
// field that an expression of the source names.
func (c CSV) HasHeader(first []string) bool {
	switch c.Header {
	case HeaderTrue:
		return true
	case HeaderFalse:
		return false
	}
	if len(c.Columns) == 0 {
		return true
	}
	for _, v := range first {
		v = strings.TrimSpace(v)
		for _, names := range [...][]string{c.Columns, c.Optional, c.named} {
			for _, n := range names {
				if strings.EqualFold(n, v) {
					return true
				}
			}
		}
	}
	return false
}

// Stream says when a micro-batch ends: when the first of the three is reached.
type Stream struct {
	Trigger  time.Duration
	RowsMax  int
	BytesMax int64
}

// Schedule says when tasks run by themselves under `cauce up`, and what `cauce airflow render` makes of it.
type Schedule struct {
	Timezone *time.Location
	Tasks    []*Task // those of schedule.batch and schedule.maintenance have these names; a task comes behind those it runs after
	AlertURL string  // "": nobody is told
}

// Task returns the task with this name; nil if there is none.
func (s Schedule) Task(name string) *Task {
	for _, t := range s.Tasks {
		if t.Name == name {
			return t
		}
	}
	return nil
}

// Task is one scheduled task.
type Task struct {
	Name     string
	Run      string // RunBatch or RunMaintenance
	Sources  []string
	Tables   []string
	Cron     string // five fields; "": it runs after others
	Timezone *time.Location
	After    []string
	Retries  int
	Backoff  time.Duration // pause before the first retry; doubles with each
	Timeout  time.Duration // of one try
	CatchUp  string        // CatchUpOnce or CatchUpNone
}

// What a Task may do; also the names of the two tasks that have keys of their own.
const (
	RunBatch       = "batch"
	RunMaintenance = "maintenance"
)

// What Task.CatchUp may be.
const (
	CatchUpOnce = "once"
	CatchUpNone = "none"
)

// Maintenance says what keeps tables fast and small.
type Maintenance struct {
	Optimize        bool          // compact small files
	FilesMin        int           // a partition with fewer small files is left alone
	FileBytesTarget int64         // size of compacted files
	Vacuum          bool          // delete files that no version within Retention names
	Retention       time.Duration // at least 168h
}

// Buffer configures the embedded stream buffer.
type Buffer struct {
	Sync string // SyncInterval or SyncAlways
}

// Engine configures the embedded engine.
type Engine struct {
	MemoryLimit int64 // bytes that DuckDB may hold in memory; 0: its own choice
}

// Index bounds the index of keys.
type Index struct {
	MemoryBytes int64
	DiskBytes   int64 // 0: it is in memory only
}

// Metrics says where `cauce up` serves what monitoring systems ask for.
type Metrics struct {
	Listen string // host:port; "": nowhere
}

// What Buffer.Sync may be.
const (
	SyncInterval = "interval" // a power cut may cost the last second; a killed process loses nothing
	SyncAlways   = "always"   // each acknowledged event is on disk
)

// matchKey matches an object key with a pattern of path.Match syntax in which a whole segment "**" stands for any
// number of segments.
func matchKey(pattern, key string) bool {
	return matchSegments(strings.Split(pattern, "/"), strings.Split(key, "/"))
}

func matchSegments(p, k []string) bool {
	for len(p) > 0 {
		if p[0] == "**" {
			for i := 0; i <= len(k); i++ {
				if matchSegments(p[1:], k[i:]) {
					return true
				}
			}
			return false
		}
		if len(k) == 0 {
			return false
		}
		if ok, err := path.Match(p[0], k[0]); err != nil || !ok {
			return false
		}
		p, k = p[1:], k[1:]
	}
	return len(k) == 0
}

// outermost drops duplicates and folders that lie below another one of the list.
func outermost(dirs []string) []string {
	var out []string
	for i, d := range dirs {
		keep := true
		for j, o := range dirs {
			if (d == o && j < i) || (d != o && strings.HasPrefix(d, o+"/")) {
				keep = false
			}
		}
		if keep {
			out = append(out, d)
		}
	}
	return out
}
