package peers

import (
	"regexp"
	"strings"

	"github.com/cauce-data/cauce/delta"
)

// feature is a row of the matrix: a table that uses one feature of the protocol, made by Cauce. To add one, add an entry.
type feature struct {
	name      string   // as the page has it
	features  []string // that the protocol must list, where it has lists
	config    map[string]string
	columns   []delta.Field // beside id, n, v and p
	extra     string        // SQL that follows the other columns of rows that are appended: ", 1 AS c"
	notNull   bool          // id is NOT NULL
	flat      bool          // no partitions; else by p
	mapped    bool          // columns can be renamed and dropped
	widens    bool          // the column w can be widened
	clusterBy []string
	prepare   func(x *entry) error
	// refuses names operations that this table does not take, with their errors.
	refuses map[string]error
	// readersRefuse names readers (Spark, deltalake, duckdb) that refuse the table, with a part of their error.
	readersRefuse map[string]string
	readsNull     map[string]string // readers that take a column for null, which is their fault
}

func (f feature) slug() string { return slug(f.name) }

// slug makes a folder's name of a name.
func slug(name string) string {
	return strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(name), "-"), "-")
}

func (f feature) schema() *delta.Schema {
	return &delta.Schema{Fields: append([]delta.Field{{Name: "id", Type: delta.Long, Nullable: !f.notNull}, {Name: "n", Type: delta.Long, Nullable: true},
		{Name: "v", Type: delta.String, Nullable: true}, {Name: "p", Type: delta.String, Nullable: true}}, f.columns...)}
}

func (f feature) partitionBy() []string {
	if f.flat {
		return nil
	}
	return []string{"p"}
}

var appendOnly = map[string]error{
	"overwrite": delta.ErrAppendOnly, "replaceWhere": delta.ErrAppendOnly, "dynamic overwrite": delta.ErrAppendOnly, "merge by key": delta.ErrAppendOnly,
	"MERGE INTO": delta.ErrAppendOnly, "UPDATE": delta.ErrAppendOnly, "DELETE": delta.ErrAppendOnly, "REORG PURGE": delta.ErrAppendOnly, "RESTORE": delta.ErrAppendOnly,
}

// mappedPartition: DuckDB's extension loses a mapped partition column that is not the first of the schema.
var mappedPartition = map[string]string{"duckdb": "p"}

var features = []feature{
	{name: "nothing special"},
	{name: "no partitions", flat: true},
	{name: "deletionVectors", features: []string{"deletionVectors"}, config: map[string]string{"delta.enableDeletionVectors": "true"}},
	{name: "appendOnly", config: map[string]string{"delta.appendOnly": "true"}, refuses: appendOnly},
	{name: "invariants (NOT NULL)", notNull: true, config: map[string]string{"delta.enableDeletionVectors": "true"}},
	{
		name: "checkConstraints", config: map[string]string{"delta.enableDeletionVectors": "true"}, features: []string{"checkConstraints"},
		prepare: func(x *entry) error {
			_, err := x.table.AddConstraint(x.ctx, "small", "n < 1000 AND v <> 'no'")
			return err
		},
	},
	{name: "changeDataFeed", features: []string{"changeDataFeed"}, config: map[string]string{"delta.enableChangeDataFeed": "true", "delta.enableDeletionVectors": "true"}},
	{
		name: "generatedColumns", columns: []delta.Field{{Name: "twice", Type: delta.Long, Nullable: true, Metadata: map[string]any{"delta.generationExpression": "n * 2"}}},
		config: map[string]string{"delta.enableDeletionVectors": "true"}, features: []string{"generatedColumns"},
	},
	{
		name: "allowColumnDefaults", columns: []delta.Field{{Name: "c", Type: delta.Integer, Nullable: true, Metadata: map[string]any{"CURRENT_DEFAULT": "7"}}},
		config: map[string]string{"delta.enableDeletionVectors": "true"}, features: []string{"allowColumnDefaults"},
	},
	{
		name: "timestampNtz", features: []string{"timestampNtz"}, columns: []delta.Field{{Name: "at", Type: delta.TimestampNTZ, Nullable: true}},
		extra: ", TIMESTAMP '2024-08-20 12:34:56' AS at", config: map[string]string{"delta.enableDeletionVectors": "true"},
	},
	{name: "inCommitTimestamp", features: []string{"inCommitTimestamp"}, config: map[string]string{"delta.enableInCommitTimestamps": "true", "delta.enableDeletionVectors": "true"}},
	{name: "rowTracking", features: []string{"rowTracking", "domainMetadata"}, config: map[string]string{"delta.enableRowTracking": "true", "delta.enableDeletionVectors": "true"}},
	{name: "columnMapping by name", features: []string{"columnMapping"}, mapped: true, config: map[string]string{"delta.columnMapping.mode": "name", "delta.enableDeletionVectors": "true"}, readsNull: mappedPartition},
	{name: "columnMapping by id", features: []string{"columnMapping"}, mapped: true, config: map[string]string{"delta.columnMapping.mode": "id", "delta.enableDeletionVectors": "true"}, readsNull: mappedPartition},
	{
		name: "typeWidening", features: []string{"typeWidening"}, widens: true, columns: []delta.Field{{Name: "w", Type: delta.Integer, Nullable: true}}, extra: ", CAST(5 AS INTEGER) AS w",
		config:        map[string]string{"delta.enableTypeWidening": "true", "delta.enableDeletionVectors": "true"},
		readersRefuse: map[string]string{"deltalake": "TypeWidening"},
	},
	{
		name: "clustering", features: []string{"clustering", "domainMetadata"}, flat: true, clusterBy: []string{"n"}, config: map[string]string{"delta.enableDeletionVectors": "true"},
		refuses: map[string]error{"ZORDER": delta.ErrClustered},
	},
	{name: "v2Checkpoint", features: []string{"v2Checkpoint"}, config: map[string]string{"delta.checkpointPolicy": "v2", "delta.enableDeletionVectors": "true"}},
}
