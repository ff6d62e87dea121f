package pipeline

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The shape of a lake file is written once, here: the reader checks files against it, and the JSON Schema for editors
// and the reference in docs/lake-file.md are made from it.

type kind int

const (
	kindObject   kind = iota // a mapping with the listed keys
	kindDict                 // a mapping from names that the user chooses
	kindList                 // a list, or a single scalar that stands for the list of it
	kindText                 // any text
	kindSQL                  // an SQL expression
	kindType                 // a type of a column
	kindInt                  // an integer
	kindBool                 // true or false
	kindChoice               // one of enum
	kindDuration             // 30s, 1h30m, 7d
	kindSize                 // 134217728, 128MiB
	kindChar                 // a single character
)

type shape struct {
	kind kind
	doc  string
	keys []keyShape // of an object
	elem *shape     // of a dict or list
	enum []string   // of a choice
	// short is what may be written instead of an object; it is the value of shortKey.
	short    *shape
	shortKey string
	min, max int64
	nullable bool // may be left empty
	empty    bool // may be the empty text
	def      string
	example  string
}

type keyShape struct {
	name     string
	shape    *shape
	required bool
}

func (s *shape) key(name string) *keyShape {
	for i := range s.keys {
		if s.keys[i].name == name {
			return &s.keys[i]
		}
	}
	return nil
}

func (s *shape) keyNames() []string {
	var n []string
	for _, k := range s.keys {
		n = append(n, k.name)
	}
	return n
}

func (s *shape) scalar() bool { return s.kind >= kindText }

// noun names what the shape accepts.
func (s *shape) noun() string {
	switch s.kind {
	case kindObject, kindDict:
		return "a mapping"
	case kindList:
		return "a list"
	case kindSQL:
		return "an SQL expression"
	case kindType:
		return "a type"
	case kindInt:
		if s.min == s.max {
			return strconv.FormatInt(s.min, 10)
		}
		return fmt.Sprintf("a whole number from %d to %d", s.min, s.max)
	case kindBool:
		return "true or false"
	case kindChoice:
		return orList(s.enum)
	case kindDuration:
		return "a duration"
	case kindSize:
		return "a number of bytes"
	case kindChar:
		return "a single character"
	}
	return "a text"
}

// like is the hint where the message has said already what is wanted.
func (s *shape) like() string {
	if s.example == "" {
		return ""
	}
	return "write it like " + s.example
}

// want is the hint for a value that does not fit.
func (s *shape) want() string {
	w := "it must be " + s.noun()
	if s.example != "" {
		w += ", such as " + s.example
	}
	return w
}

func text(doc, example string) *shape { return &shape{kind: kindText, doc: doc, example: example} }
func sqlExpr(doc, example string) *shape {
	return &shape{kind: kindSQL, doc: doc, example: example}
}
func names(doc, example string) *shape {
	return &shape{kind: kindList, doc: doc, example: example, nullable: true, elem: &shape{kind: kindText}}
}
func choice(doc, def string, enum ...string) *shape {
	return &shape{kind: kindChoice, doc: doc, def: def, enum: enum}
}
func boolean(doc, def string) *shape { return &shape{kind: kindBool, doc: doc, def: def} }

var columnShape = &shape{
	kind: kindObject, example: `"DECIMAL(18,8)" or {type: STRING, not_null: true}`,
	doc: "The column's type, or a mapping with more about it.",
	keys: []keyShape{
		{"type", typeShape, true},
		{"not_null", boolean("Rows without a value in this column go to quarantine. A table that is stored without the rule keeps its schema: rows written before, or by others, may lack the value.", "false"), false},
		{"comment", text("What the column means; stored in the table.", `"price in USDT"`), false},
	},
	short: typeShape, shortKey: "type",
}

var typeShape = &shape{
	kind: kindType, example: "STRING, LONG, DECIMAL(18,8), TIMESTAMP or DATE",
	doc: "Any Delta type: STRING, LONG (BIGINT), INT, SHORT, BYTE, DOUBLE, FLOAT, DECIMAL(p,s), BOOLEAN, TIMESTAMP, TIMESTAMP_NTZ, DATE, BINARY, STRUCT<a: INT>, ARRAY<INT>, MAP<STRING, INT>. A type with a comma needs double quotes inside { }.",
}

var stepShape = &shape{
	kind: kindObject, example: `{set: {event_date: "to_date(event_time)"}} or {where: "symbol <> 'TEST'"}`,
	doc: "One step: set or where.",
	keys: []keyShape{
		{"set", &shape{kind: kindDict, elem: sqlExpr("The column's new value.", ""), example: `{event_date: "to_date(event_time)"}`,
			doc: "Gives columns new values. All expressions of one set see the row as it was before the step."}, false},
		{"where", sqlExpr("Rows for which this is not true are filtered out.", `"symbol <> 'TEST'"`), false},
	},
}

var expectShape = &shape{
	kind: kindObject, example: `{name: price_positive, check: "price > 0", on_fail: quarantine}`,
	doc: "A rule that every row must satisfy.",
	keys: []keyShape{
		{"name", text("Name of the rule; quarantine and reports show it.", "price_positive"), true},
		{"check", sqlExpr("The rule. A row passes only if it is true: null does not pass.", `"price > 0"`), true},
		{"on_fail", choice("What happens to a row that does not pass: warn counts it, quarantine keeps it out of the table, fail ends the run with exit code 3.", OnFailQuarantine, OnFailWarn, OnFailQuarantine, OnFailFail), false},
	},
}

var tableShape = &shape{
	kind: kindObject, example: "{columns: {id: LONG}, key: [id]}",
	doc: "A Delta table and the rules for its rows.",
	keys: []keyShape{
		{"location", text("Folder below the storage root. Default: processed/ and the table's name with '-' for '_'.", "processed/unified-events"), false},
		{"comment", text("What the table holds; stored in the table.", ""), false},
		{"columns", &shape{kind: kindDict, elem: columnShape, doc: "The columns, in order. Names beginning with '_' are reserved.", example: "{id: LONG, price: DOUBLE}"}, true},
		{"key", names("Columns that identify a row: of rows with the same key one stays. Empty: rows are appended, each exactly once.", "[event_id]"), false},
		{"sequence", names("Columns that tell which of two rows with the same key is newer; the greatest wins, nulls are lowest. A table with a key that a stream feeds must have it.", "[event_time]"), false},
		{"partition_by", names("Columns whose values become folders.", "[event_date]"), false},
		{"cluster_by", names("Columns that queries filter by most. Compaction (maintenance, `cauce table optimize`) sorts the files that it writes by them, so that queries read fewer row groups; commits do not, because sorting would delay them. `cauce table optimize --zorder` also gathers near rows in the same files.", "[symbol, event_time]"), false},
		{"transform", &shape{kind: kindList, elem: stepShape, nullable: true, doc: "The one list of steps that every row of every source passes, in order.", example: `[{set: {event_date: "to_date(event_time)"}}]`}, false},
		{"expect", &shape{kind: kindList, elem: expectShape, nullable: true, doc: "Rules that every row must satisfy, checked after transform.", example: `[{name: price_positive, check: "price > 0"}]`}, false},
		{"evolve", choice("Whether new columns of this file are added to an existing table (add_columns) or refused (none).", EvolveNone, EvolveNone, EvolveAddColumns), false},
		{"timezone", &shape{kind: kindText, doc: "Time zone of times that name none, and of to_date.", def: "UTC", example: "Europe/Madrid"}, false},
		{"deletion_vectors", boolean("Mark replaced rows in small side files (on) or rewrite the files that hold them (off), for readers without deletion vectors.", "on"), false},
		{"compression", choice("How Parquet files are compressed.", "snappy", "snappy", "zstd"), false},
		{"tombstone_retention", &shape{kind: kindDuration, min: int64(time.Hour), doc: "How long deletions are remembered, counted from the first column of sequence, which must be a time. Older ones are removed by maintenance, and a row that is not newer than the newest one removed and matches no stored row goes to quarantine, as it may have been deleted. Make it longer than the latest arrival. Default: for ever.", example: "90d"}, false},
		{"ledger", ledgerShape, false},
	},
}

var csvShape = &shape{
	kind: kindObject, example: `{delimiter: ";", decimal: ","}`,
	doc: "How CSV files are written.",
	keys: []keyShape{
		{"delimiter", &shape{kind: kindChar, doc: "Between fields; \"\\t\" or tab for a tab.", def: ",", example: `";"`}, false},
		{"quote", &shape{kind: kindText, empty: true, doc: "Around fields that hold the delimiter, quotes or line breaks; a quote inside is doubled. Empty: fields are never quoted.", def: `"`, example: `"'"`}, false},
		{"header", &shape{kind: kindChoice, enum: []string{HeaderAuto, HeaderTrue, HeaderFalse}, def: HeaderAuto, doc: "Whether the first record names the fields. auto: it does if no columns are given, or if it holds the name of a column given, of an optional field or of a field that an expression names."}, false},
		{"columns", names("Names of the fields of a file without header, in order.", "[time, price, quantity]"), false},
		{"optional", names("Fields that a file may lack; they are null then. A file without any other field that an expression names is refused.", "[symbol]"), false},
		{"encoding", &shape{kind: kindText, doc: "Character encoding; a byte order mark in the file wins.", def: "utf-8", example: "windows-1252"}, false},
		{"decimal", &shape{kind: kindChar, doc: "Decimal sign of numbers: '.' or ','. With ',' a number that holds a '.' is refused.", def: ".", example: `","`}, false},
		{"null_values", &shape{kind: kindList, elem: &shape{kind: kindText, empty: true}, nullable: true, doc: "Texts that mean null, beside the empty one.", example: `["NULL", "-"]`}, false},
		{"multiline", boolean("Whether quoted fields may hold line breaks.", "true"), false},
	},
}

var sourceShape = &shape{
	kind: kindObject, example: "{table: events, kind: files, location: raw/batch/*.csv}",
	doc: "Where rows of a table come from, and how raw fields become columns.",
	keys: []keyShape{
		{"table", text("The table that the rows go to.", "unified_events"), true},
		{"kind", &shape{kind: kindChoice, enum: []string{KindFiles, KindEmbedded, KindKafka, KindPubSub}, doc: "files: files under the storage root. embedded: a topic of the buffer that runs inside Cauce. kafka: a topic of Apache Kafka. pubsub: a topic of Google Pub/Sub."}, true},
		{"location", names("Patterns of files below the storage root: * within a folder, ** for any folders. Hidden files and names ending in .tmp or .part are never read; .gz, .zst and .zip are unpacked.", `["raw/batch/historico_*.csv*"]`), false},
		{"from_filename", text("Regular expression (RE2) with named groups, searched in the file's name; file_group('name') reads them.", `'^(?P<symbol>[A-Z0-9]+)-trades-'`), false},
		{"generation", text("Named group of from_filename whose value orders files of one record: of two files the one with the greater value wins. A date or time (2024-08-20, 20240820T130000) or a number (v7). Default: the file's time of last modification.", "version"), false},
		{"topic", text("Name of the topic.", "crypto_trades"), false},
		{"kafka", kafkaShape, false},
		{"pubsub", pubsubShape, false},
		{"format", &shape{kind: kindChoice, enum: []string{FormatCSV, FormatJSON, FormatJSONL, FormatParquet, FormatAvro}, doc: "Format of the records. json: an array of objects, or objects one after the other; jsonl: an object a line; what is missing in an object is null. Streams carry JSON, or Avro with a schema registry (kafka.registry). Default: csv for files, json for streams."}, false},
		{"csv", csvShape, false},
		{"rank", &shape{kind: kindInt, min: -1 << 31, max: 1<<31 - 1, doc: "Of rows with the same key and sequence the one of the higher rank wins. Give streams the higher rank.", def: "0", example: "1"}, false},
		{"on_reissue", choice("What a changed file of the same name does. merge: its rows are merged by their order, and rows that vanished stay. replace: the rows that stand under its predecessor are removed first. Tables without a key need replace, which is their default.", ReissueMerge, ReissueMerge, ReissueReplace), false},
		{"unknown_fields", choice("What happens to raw fields that nothing refers to. ignore: nothing. keep: they stand in the column _unknown, as JSON. quarantine: records that have some go to quarantine.", UnknownIgnore, UnknownIgnore, UnknownKeep, UnknownQuarantine), false},
		{"filter", sqlExpr("Records for which this is not true are left out. Raw fields are text.", `"e = 'trade'"`), false},
		{"fields", &shape{kind: kindDict, elem: sqlExpr("The column's value.", "to_event_time(time)"), nullable: true, example: "{trade_id: t, event_time: to_event_time(T)}", doc: "Columns from SQL expressions over raw fields, which are text; the result is cast to the column's type. A column that is not named here takes the raw field of the same name, if there is one."}, false},
		{"delete", sqlExpr("Records for which this is true delete the row with their key.", `"op = 'D'"`), false},
		{"produce", produceShape, false},
		{"repair", repairShape, false},
		{"archive", boolean("Keep every message of a stream as it came, with topic, partition, offset and key, in compressed files of JSON lines below raw/streaming/.", "false"), false},
	},
}

// taskShape is a task of the schedule; more are the keys that only some tasks have.
func taskShape(doc, catchUp string, more ...keyShape) *shape {
	return &shape{kind: kindObject, doc: doc, example: `{cron: "0 1 * * *"}`, keys: append(more, []keyShape{
		{"cron", text("When it runs: minute, hour, day of month, month, day of week. Where clocks change, a time that the day does not have is due when the clock has jumped over it, and one that it has twice is due once.", `"0 1 * * *"`), false},
		{"after", &shape{kind: kindList, elem: text("A task.", "batch"), doc: "Tasks instead of a time: it runs once each of them has succeeded since it last began.", example: "[batch]"}, false},
		{"timezone", &shape{kind: kindText, doc: "Time zone of cron. Default: schedule.timezone.", example: "Europe/Madrid"}, false},
		{"retries", &shape{kind: kindInt, max: 100, doc: "How often a failed run is tried again. What trying again cannot mend (exit codes 2, 3 and 4) is not.", def: "3", example: "3"}, false},
		{"backoff", &shape{kind: kindDuration, min: 1, doc: "Pause before the first retry; it doubles with each, up to an hour.", def: "30s", example: "30s"}, false},
		{"timeout", &shape{kind: kindDuration, min: 1_000_000_000, doc: "A try that takes longer is ended, and counts as failed.", def: "24h", example: "4h"}, false},
		{"catch_up", choice("once: when `cauce up` starts, the task runs if it was due since its last run, or if that did not come to its end; one run does the work of all that were missed. none: it waits for its next time.", catchUp, CatchUpOnce, CatchUpNone), false},
	}...)}
}

var lakeShape = &shape{
	kind: kindObject,
	doc:  "A Cauce lake: tables, the sources that fill them, and when.",
	keys: []keyShape{
		{"version", &shape{kind: kindInt, min: 1, max: 1, doc: "Version of the lake file's format: 1."}, true},
		{"storage", text("Root of the lake: a path relative to the lake file (file:./data) or a URL (s3://bucket/folder, gs://bucket/folder). --root and CAUCE_ROOT override it.", "file:./data"), true},
		{"tables", &shape{kind: kindDict, elem: tableShape, doc: "The tables by name.", example: "{events: {columns: {id: LONG}, key: [id]}}"}, true},
		{"sources", &shape{kind: kindDict, elem: sourceShape, nullable: true, doc: "The sources by name.", example: "{history: {table: events, kind: files, location: raw/batch/*.csv}}"}, false},
		{"stream", &shape{kind: kindObject, doc: "When a micro-batch ends: at the first of the three.", example: "{trigger: 30s}", keys: []keyShape{
			{"trigger", &shape{kind: kindDuration, min: 1_000_000, doc: "After this time.", def: "30s", example: "30s"}, false},
			{"rows_max", &shape{kind: kindInt, min: 1, max: 10_000_000, doc: "After this many records.", def: "200000", example: "10000"}, false},
			{"bytes_max", &shape{kind: kindSize, min: 1, doc: "After this many bytes.", def: "64MiB", example: "64MiB"}, false},
		}}, false},
		{"schedule", &shape{kind: kindObject, doc: "When `cauce up` runs tasks.", example: `{batch: {cron: "0 1 * * *"}}`, keys: []keyShape{
			{"timezone", &shape{kind: kindText, doc: "Time zone of the cron expressions.", def: "UTC", example: "Europe/Madrid"}, false},
			{"batch", taskShape("`cauce run batch`.", CatchUpOnce), false},
			{"maintenance", taskShape("OPTIMIZE and VACUUM as maintenance says.", CatchUpNone), false},
			{"tasks", &shape{kind: kindDict, elem: taskShape("A further batch or maintenance, at a time of its own.", CatchUpOnce,
				keyShape{"run", &shape{kind: kindChoice, enum: []string{RunBatch, RunMaintenance}, doc: "What it does."}, true},
				keyShape{"sources", &shape{kind: kindList, elem: text("A source.", "history"), doc: "Of a batch: the sources of files that it reads. Default: all.", example: "[history]"}, false},
				keyShape{"tables", &shape{kind: kindList, elem: text("A table.", "events"), doc: "Of maintenance: the tables that it looks after. Default: all.", example: "[events]"}, false},
			), doc: "Further tasks by name.", example: `{hourly: {run: batch, sources: [orders], cron: "0 * * * *"}}`}, false},
			{"alerts", &shape{kind: kindObject, doc: "Who is told of runs that fail, see docs/scheduling.md.", example: "{url: \"${env:ALERT_URL}\"}", keys: []keyShape{
				{"url", text("Address of a webhook: one JSON object is posted for each run that failed for good, each that was interrupted, and the first that succeeds after it.", "https://hooks.example.org/lake"), true},
			}}, false},
		}}, false},
		{"maintenance", &shape{kind: kindObject, doc: "What keeps tables fast and small; runs as schedule.maintenance says.", example: "{optimize: true, vacuum: true}", keys: []keyShape{
			{"optimize", boolean("Compact small files.", "true"), false},
			{"files_min", &shape{kind: kindInt, min: 2, max: 1_000_000, doc: "A partition with fewer small files is left alone.", def: "8", example: "8"}, false},
			{"file_bytes_target", &shape{kind: kindSize, min: 1 << 10, doc: "Size of compacted files.", def: "128MiB", example: "128MiB"}, false},
			{"vacuum", boolean("Delete files that no version within retention names.", "true"), false},
			{"retention", &shape{kind: kindDuration, doc: "How long removed files stay for readers and time travel; at least 7d.", def: "7d", example: "7d"}, false},
		}}, false},
		{"store", &shape{kind: kindObject, doc: "How a bucket is reached, beyond what the environment says: AWS_PROFILE, AWS_REGION, AWS_ENDPOINT_URL and the rest of AWS's variables and files; Google's application default credentials and STORAGE_EMULATOR_HOST.", example: "{region: eu-west-1}", keys: []keyShape{
			{"endpoint", text("Another server of S3's or Google's protocol.", "https://s3.example.org"), false},
			{"region", text("Region of an S3 bucket.", "eu-west-1"), false},
			{"profile", text("Profile of AWS's configuration files.", "lake"), false},
			{"role", text("ARN of an AWS role to assume.", "arn:aws:iam::123456789012:role/lake-batch"), false},
			{"external_id", text("What the role's trust policy asks for.", ""), false},
			{"path_style", &shape{kind: kindBool, doc: "Whether an S3 bucket stands in the path instead of the host name. Default: true with an endpoint.", example: "true"}, false},
			{"encryption", &shape{kind: kindChoice, enum: []string{"AES256", "aws:kms"}, doc: "Encryption at rest that is asked for with every object of S3. Default: the bucket's own."}, false},
			{"kms_key", text("Key that encrypts objects, of AWS KMS or Google Cloud KMS.", "alias/lake"), false},
			{"commit", choice("How a commit on S3 is made. conditional: by a conditional put. dynamodb: through an entry in DynamoDB, as the S3DynamoDBLogStore of Delta for Spark does, so that Spark may write the same table.", CommitConditional, CommitConditional, CommitDynamoDB), false},
			{"commit_table", &shape{kind: kindText, doc: "Table of DynamoDB, with the hash key tablePath and the range key fileName.", def: "delta_log", example: "delta_log"}, false},
			{"commit_scheme", &shape{kind: kindChoice, enum: []string{"s3a", "s3"}, doc: "Begins the paths of tables in DynamoDB; the same for every writer.", def: "s3a"}, false},
			{"cache", &shape{kind: kindSize, doc: "Most bytes of data files that are kept in .cauce/cache, so that they are fetched once; 0: none are kept.", def: "4GiB", example: "20GiB"}, false},
		}}, false},
		{"buffer", &shape{kind: kindObject, doc: "The embedded stream buffer in .cauce/buffer.", example: "{sync: always}", keys: []keyShape{
			{"sync", choice("interval: a power cut may cost the last second of events. always: each acknowledged event is on disk. A killed process loses nothing in either.", SyncInterval, SyncInterval, SyncAlways), false},
		}}, false},
		{"engine", &shape{kind: kindObject, doc: "The embedded engine, DuckDB.", example: "{memory_limit: 2GiB}", keys: []keyShape{
			{"memory_limit", &shape{kind: kindSize, min: 64 << 20, doc: "What DuckDB may hold in memory; beyond it rows go to .cauce/tmp, and what cannot go there fails with an error that says so. The process itself comes on top of that, and what `index.memory` says. Default: 80 % of the machine's memory.", example: "2GiB"}, false},
		}}, false},
		{"index", &shape{kind: kindObject, doc: "The index of keys in .cauce/index, with which streams find stored rows without reading data files. It is made again where it is missing.", example: "{disk: 20GiB}", keys: []keyShape{
			{"memory", &shape{kind: kindSize, min: 1 << 20, doc: "What a process keeps of it in memory, some 2 bytes for each row of the files that it looks keys up in; beyond, that is read from disk each time.", def: "256MiB", example: "256MiB"}, false},
			{"disk", &shape{kind: kindSize, doc: "Most bytes in .cauce/index, some 26 for each of those rows; what was not of use for longest goes first, and files that find no room are scanned. 0: nothing is written, and the index is in memory only, with 28 bytes a row.", def: "8GiB", example: "20GiB"}, false},
		}}, false},
		{"metrics", &shape{kind: kindObject, doc: "What `cauce up` tells monitoring systems.", example: "{listen: \"127.0.0.1:9464\"}", keys: []keyShape{
			{"listen", text("Address (host:port) on which /metrics, /healthz and /readyz are served, without authentication; nothing is served unless it is given. --metrics-listen overrides it.", "127.0.0.1:9464"), true},
		}}, false},
		{"shares", &shape{kind: kindDict, elem: shareShape, nullable: true, doc: "What is shared over Delta Sharing, by name.", example: "{partners: {tables: [events]}}"}, false},
		{"views", &shape{kind: kindDict, elem: viewShape, nullable: true, doc: "Named SELECTs for readers, by name; they appear beside the tables over `cauce serve`.", example: `{by_day: "SELECT event_date, count(*) AS n FROM events GROUP BY ALL"}`}, false},
		{"serve", serveShape, false},
		{"roles", &shape{kind: kindDict, elem: roleShape, nullable: true, doc: "Who may read over `cauce serve`, by name. Without any, `reader` may on loopback, with no password.", example: "{analyst: {password: \"${env:ANALYST_PASSWORD}\"}}"}, false},
	},
}

// defaultOf gives the default of a key by its path, such as "stream.trigger"; dict elements have the name "*".
func defaultOf(path string) string {
	s := lakeShape
	for p := range strings.SplitSeq(path, ".") {
		if p == "*" {
			s = s.elem
		} else if k := s.key(p); k != nil {
			s = k.shape
		} else {
			panic("BUG: no key " + path)
		}
	}
	return s.def
}
