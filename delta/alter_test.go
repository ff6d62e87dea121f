package delta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/cauce-data/cauce/delta/expr"
	"github.com/cauce-data/cauce/objstore"
)

// rowsIn are rows of a snapshot's schema.
func rowsIn(t *testing.T, s *Schema, text string) *MemoryRows {
	t.Helper()
	b, _, err := array.RecordFromJSON(memory.DefaultAllocator, s.Arrow(), strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return NewRows(b.Schema(), b)
}

func alterTable(t *testing.T, schema string, c CreateOptions, opts *Options) *Table {
	t.Helper()
	typ, err := ParseType("STRUCT<" + schema + ">")
	if err != nil {
		t.Fatal(err)
	}
	c.Schema = &Schema{Fields: typ.(*Struct).Fields}
	tab, err := Create(context.Background(), objstore.NewMemory(time.Now), "t", c, opts)
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

func appendJSON(t *testing.T, tab *Table, text string) {
	t.Helper()
	if _, err := tab.Append(context.Background(), rowsIn(t, mustSnapshot(t, tab).Schema(), text), AppendOptions{}); err != nil {
		t.Fatal(err)
	}
}

var byNames = map[string]string{propMappingMode: "name"}

// The protocol that properties and types ask for is the least that supports them, and a table that drops a feature goes
// back to the oldest protocol that says the same.
func TestProtocolIsTheLeast(t *testing.T) {
	for _, c := range []struct{ schema, config, want string }{
		{"a: INT", "", "1/2"},
		{"a: INT", "delta.appendOnly=true", "1/2"},
		{"a: INT", "delta.enableChangeDataFeed=true", "1/4"},
		{"a: INT", "delta.columnMapping.mode=name", "2/5"},
		{"a: TIMESTAMP_NTZ", "", "3/7 r:timestampNtz w:appendOnly,invariants,timestampNtz"},
		{"a: MAP<STRING, ARRAY<TIMESTAMP_NTZ>>", "", "3/7 r:timestampNtz w:appendOnly,invariants,timestampNtz"},
		{"a: INT", "delta.enableInCommitTimestamps=true", "1/7 r: w:appendOnly,invariants,inCommitTimestamp"},
		{"a: INT", "delta.enableInCommitTimestamps=true delta.columnMapping.mode=id", "2/7 r: w:appendOnly,invariants,columnMapping,inCommitTimestamp"},
		{"a: INT", "delta.enableTypeWidening=true delta.columnMapping.mode=id", "3/7 r:columnMapping,typeWidening w:appendOnly,invariants,columnMapping,typeWidening"},
		{"a: INT", "delta.enableRowTracking=true", "1/7 r: w:appendOnly,invariants,domainMetadata,rowTracking"},
		{"a: INT", "delta.feature.clustering=supported", "1/7 r: w:appendOnly,invariants,domainMetadata,clustering"},
		{"a: INT", "delta.feature.checkConstraints=supported", "1/3"},
		{"a: INT", "delta.minReaderVersion=2 delta.minWriterVersion=5", "2/5"},
		{"a: INT", "delta.minReaderVersion=3 delta.minWriterVersion=7 delta.checkpointPolicy=v2", "3/7 r:v2Checkpoint w:appendOnly,invariants,v2Checkpoint"},
	} {
		config := map[string]string{}
		for _, kv := range strings.Fields(c.config) {
			k, v, _ := strings.Cut(kv, "=")
			config[k] = v
		}
		tab := alterTable(t, c.schema, CreateOptions{Config: config}, nil)
		if got := protocolShort(mustSnapshot(t, tab).protocol); got != c.want {
			t.Errorf("%s %s: created with %s, want %s", c.schema, c.config, got, c.want)
		}
		for k := range mustSnapshot(t, tab).metadata.Configuration {
			if strings.HasPrefix(k, featureProperty) || k == propMinReader {
				t.Errorf("%s was stored", k)
			}
		}
		if strings.Contains(c.schema, "NTZ") {
			continue
		}
		// The same, asked of a table that is there.
		tab = alterTable(t, c.schema, CreateOptions{}, nil)
		if config[propMappingMode] == "id" {
			config[propMappingMode] = "name"
		}
		if _, err := tab.SetProperties(context.Background(), config, AlterOptions{}); err != nil {
			t.Errorf("%s: %v", c.config, err)
		}
		if got := protocolShort(mustSnapshot(t, tab).protocol); got != c.want && !strings.Contains(c.config, "RowTracking") {
			t.Errorf("%s %s: raised to %s, want %s", c.schema, c.config, got, c.want)
		}
	}
	for from, want := range map[string]string{"2/5": "1/4", "3/7 columnMapping,timestampNtz": "3/7 r:timestampNtz w:appendOnly,invariants,timestampNtz", "3/7 columnMapping": "1/2"} {
		p := &Protocol{MinReaderVersion: 2, MinWriterVersion: 5}
		if list, ok := strings.CutPrefix(from, "3/7 "); ok {
			p = &Protocol{MinReaderVersion: 3, MinWriterVersion: 7, ReaderFeatures: strings.Split(list, ","), WriterFeatures: append([]string{"appendOnly", "invariants"}, strings.Split(list, ",")...)}
		}
		if got := protocolShort(p.without(featureOf("columnMapping"))); got != want {
			t.Errorf("%s without columnMapping is %s, want %s", from, got, want)
		}
	}
}

func protocolShort(p *Protocol) string {
	out := fmt.Sprintf("%d/%d", p.MinReaderVersion, p.MinWriterVersion)
	if p.MinWriterVersion == 7 {
		out += " r:" + strings.Join(p.ReaderFeatures, ",") + " w:" + strings.Join(p.WriterFeatures, ",")
	}
	return out
}

// What cannot be changed is refused under Spark's names, and nothing is committed.
func TestAlterRefuses(t *testing.T) {
	ctx := context.Background()
	mapped := CreateOptions{PartitionBy: []string{"p"}, Config: maps.Clone(byNames)}
	rules := &Options{Engine: Engine{Expressions: testSQL}}
	const schema = "id: BIGINT, k: INT, p: STRING, s: STRUCT<a: INT>, l: ARRAY<INT>"
	plain := CreateOptions{Config: map[string]string{"delta.constraints.small": "k < 100"}}
	id := map[string]string{propMappingMode: "id"}
	for class, c := range map[string]struct {
		create CreateOptions
		change func(tab *Table) error
	}{
		"DELTA_UNSUPPORTED_RENAME_COLUMN":         {plain, func(tab *Table) error { return second(tab.RenameColumn(ctx, []string{"k"}, "x", AlterOptions{})) }},
		"DELTA_UNSUPPORTED_DROP_COLUMN":           {plain, func(tab *Table) error { return second(tab.DropColumns(ctx, [][]string{{"k"}}, DropColumnsOptions{})) }},
		"DELTA_UNSUPPORTED_DROP_PARTITION_COLUMN": {mapped, func(tab *Table) error { return second(tab.DropColumns(ctx, [][]string{{"P"}}, DropColumnsOptions{})) }},
		"DELTA_DROP_COLUMN_ON_SINGLE_FIELD_SCHEMA": {mapped, func(tab *Table) error {
			return second(tab.DropColumns(ctx, [][]string{{"s", "a"}}, DropColumnsOptions{}))
		}},
		"DELTA_UNSUPPORTED_DROP_CLUSTERING_COLUMN": {CreateOptions{ClusterBy: []string{"k"}, Config: byNames}, func(tab *Table) error { return second(tab.DropColumns(ctx, [][]string{{"k"}}, DropColumnsOptions{})) }},
		"FIELD_ALREADY_EXISTS":                     {mapped, func(tab *Table) error { return second(tab.RenameColumn(ctx, []string{"k"}, "ID", AlterOptions{})) }},
		"DELTA_CONSTRAINT_DEPENDENT_COLUMN_CHANGE": {CreateOptions{Config: map[string]string{propMappingMode: "name", "delta.constraints.small": "k < 100"}}, func(tab *Table) error { return second(tab.RenameColumn(ctx, []string{"k"}, "x", AlterOptions{})) }},
		"DELTA_UNSUPPORTED_ALTER_TABLE_CHANGE_COL_OP": {mapped, func(tab *Table) error {
			return second(tab.ChangeColumn(ctx, []string{"k"}, ColumnChange{Type: Long}, AlterOptions{}))
		}},
		"DELTA_CONSTRAINT_DATA_TYPE_MISMATCH": {CreateOptions{Config: map[string]string{propTypeWidening: "true", "delta.constraints.small": "k < 100"}}, func(tab *Table) error {
			return second(tab.ChangeColumn(ctx, []string{"k"}, ColumnChange{Type: Long}, AlterOptions{}))
		}},
		"DELTA_UNSUPPORTED_COLUMN_MAPPING_MODE_CHANGE": {plain, func(tab *Table) error { return second(tab.SetProperties(ctx, id, AlterOptions{})) }},
		"DELTA_CANNOT_MODIFY_TABLE_PROPERTY": {mapped, func(tab *Table) error {
			return second(tab.SetProperties(ctx, map[string]string{propMaxColumnID: "1"}, AlterOptions{}))
		}},
		"DELTA_ADD_CONSTRAINTS": {plain, func(tab *Table) error {
			return second(tab.SetProperties(ctx, map[string]string{"delta.constraints.x": "k > 0"}, AlterOptions{}))
		}},
		"DELTA_ALTER_TABLE_CLUSTER_BY_ON_PARTITIONED_TABLE_NOT_ALLOWED": {mapped, func(tab *Table) error { return second(tab.SetClusterBy(ctx, []string{"k"}, AlterOptions{})) }},
		"DELTA_CLUSTERING_COLUMNS_DATATYPE_NOT_SUPPORTED":               {plain, func(tab *Table) error { return second(tab.SetClusterBy(ctx, []string{"l"}, AlterOptions{})) }},
		"DELTA_CLUSTER_BY_INVALID_NUM_COLUMNS": {plain, func(tab *Table) error {
			return second(tab.SetClusterBy(ctx, []string{"id", "k", "p", "s", "l"}, AlterOptions{}))
		}},
		"DELTA_FEATURE_DROP_FEATURE_NOT_PRESENT":        {plain, func(tab *Table) error { return second(tab.DropFeature(ctx, "deletionVectors", DropFeatureOptions{})) }},
		"DELTA_FEATURE_DROP_UNSUPPORTED_CLIENT_FEATURE": {plain, func(tab *Table) error { return second(tab.DropFeature(ctx, "zebra", DropFeatureOptions{})) }},
		"DELTA_FEATURE_DROP_NONREMOVABLE_FEATURE":       {plain, func(tab *Table) error { return second(tab.DropFeature(ctx, "appendOnly", DropFeatureOptions{})) }},
		"DELTA_FEATURE_DROP_CONFLICT_REVALIDATION_FAIL": {plain, func(tab *Table) error { return second(tab.DropFeature(ctx, "checkConstraints", DropFeatureOptions{})) }},
		"DELTA_FEATURE_DROP_HISTORY_TRUNCATION_NOT_ALLOWED": {plain, func(tab *Table) error {
			return second(tab.DropFeature(ctx, "checkConstraints", DropFeatureOptions{TruncateHistory: true}))
		}},
		"DELTA_FEATURE_DROP_DEPENDENT_FEATURE": {CreateOptions{ClusterBy: []string{"k"}}, func(tab *Table) error { return second(tab.DropFeature(ctx, "domainMetadata", DropFeatureOptions{})) }},
	} {
		c.create.Config = maps.Clone(c.create.Config)
		tab := alterTable(t, schema, c.create, rules)
		err := c.change(tab)
		var a *AlterError
		if !errors.As(err, &a) || a.Class != class || !errors.Is(err, ErrAlter) {
			t.Errorf("%s: %v", class, err)
		}
		if v := mustSnapshot(t, tab).Version(); v != 0 {
			t.Errorf("%s: version %d was committed", class, v)
		}
	}
	tab := alterTable(t, schema, mapped, nil)
	for what, err := range map[string]error{
		"rename":          second(tab.RenameColumn(ctx, []string{"nothing"}, "x", AlterOptions{})),
		"rename in array": second(tab.RenameColumn(ctx, []string{"l", "x"}, "x", AlterOptions{})),
		"drop":            second(tab.DropColumns(ctx, [][]string{{"s", "zz"}}, DropColumnsOptions{})),
		"after":           second(tab.AddColumns(ctx, []NewColumn{{Path: []string{"n"}, Type: Long, Position: Position{After: "zz"}}}, AlterOptions{})),
		"cluster":         second(alterTable(t, schema, CreateOptions{}, nil).SetClusterBy(ctx, []string{"zz"}, AlterOptions{})),
	} {
		if !errors.Is(err, ErrNoSuchColumn) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, err := range map[string]error{
		"unknown":  second(tab.SetProperties(ctx, map[string]string{"delta.zebra": "1"}, AlterOptions{})),
		"value":    second(tab.SetProperties(ctx, map[string]string{"delta.APPENDONLY": "perhaps"}, AlterOptions{})),
		"version":  second(tab.SetProperties(ctx, map[string]string{propMinReader: "4"}, AlterOptions{})),
		"unset":    second(tab.UnsetProperties(ctx, []string{"nothing"}, false, AlterOptions{})),
		"interval": second(tab.SetProperties(ctx, map[string]string{propTruncateRetention: "long"}, AlterOptions{})),
	} {
		if !errors.Is(err, ErrProperty) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, err := range map[string]error{
		"feature": second(tab.SetProperties(ctx, map[string]string{"delta.feature.icebergCompatV2": "supported"}, AlterOptions{})),
		"active":  second(tab.SetProperties(ctx, map[string]string{"delta.enableIcebergCompatV2": "true"}, AlterOptions{})),
		"type":    second(tab.AddColumns(ctx, []NewColumn{{Path: []string{"v"}, Type: Variant}}, AlterOptions{})),
	} {
		if !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if v := mustSnapshot(t, tab).Version(); v != 0 {
		t.Errorf("version %d was committed", v)
	}
}

func second[T any](_ T, err error) error { return err }

// What a table holds that this package knows nothing of, and what a column says of itself, stay through every change.
func TestUnknownMetadataStays(t *testing.T) {
	ctx := context.Background()
	store := objstore.NewMemory(time.Now)
	log := `{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["columnMapping","typeWidening"],"writerFeatures":["appendOnly","invariants","columnMapping","typeWidening","domainMetadata"]}}
{"metaData":{"id":"x","name":"n","description":"d","format":{"provider":"parquet","options":{"o":"p"}},"schemaString":"{\"type\":\"struct\",\"fields\":[{\"name\":\"a\",\"type\":\"integer\",\"nullable\":true,\"metadata\":{\"delta.columnMapping.id\":1,\"delta.columnMapping.physicalName\":\"col-a\",\"zebra\":{\"deep\":[1,2.50]},\"comment\":\"c\"}},{\"name\":\"b\",\"type\":\"string\",\"nullable\":true,\"metadata\":{\"delta.columnMapping.id\":2,\"delta.columnMapping.physicalName\":\"b\",\"__CHAR_VARCHAR_TYPE_STRING\":\"varchar(10)\"}}]}","partitionColumns":[],"configuration":{"delta.columnMapping.mode":"name","delta.columnMapping.maxColumnId":"7","delta.enableTypeWidening":"true","delta.newer.thing":"on","mine":"1"},"createdTime":5}}
{"domainMetadata":{"domain":"zebra","configuration":"{\"x\":1}","removed":false}}
{"somethingNew":{"a":1}}
`
	if err := store.PutIfAbsent(ctx, "_delta_log/00000000000000000000.json", []byte(log)); err != nil {
		t.Fatal(err)
	}
	tab, err := Open(ctx, store, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	appendJSON(t, tab, `[{"a": 1, "b": "x"}, {"a": 2}]`)
	tag := "kept"
	if _, err := tab.RenameColumn(ctx, []string{"A"}, "aa", AlterOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		second(tab.AddColumns(ctx, []NewColumn{{Path: []string{"n"}, Type: Long, Position: Position{First: true}}}, AlterOptions{})),
		second(tab.ChangeColumn(ctx, []string{"aa"}, ColumnChange{Type: Long}, AlterOptions{})),
		second(tab.SetProperties(ctx, map[string]string{"mine": "2", "delta.enableChangeDataFeed": "true"}, AlterOptions{})),
		second(tab.Append(ctx, rowsIn(t, &Schema{Fields: []Field{{Name: "more", Type: Date}}}, `[{"more": "2024-01-01"}]`), AppendOptions{Evolve: true})),
		second(tab.DeleteWhere(ctx, expr.Eq(expr.Col("aa"), expr.Lit(2)), ChangeOptions{CopyOnWrite: true})),
		second(tab.Optimize(ctx, OptimizeOptions{})),
		second(tab.Restore(ctx, 1, RestoreOptions{})),
		second(tab.Restore(ctx, 5, RestoreOptions{})),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s := mustSnapshot(t, tab)
	m := s.Metadata()
	f, _ := s.Schema().Field("aa")
	zebra, _ := json.Marshal(f.Metadata["zebra"])
	b, _ := s.Schema().Field("b")
	d, _ := s.Domain("zebra")
	if string(zebra) != `{"deep":[1,2.50]}` || f.Comment() != "c" || f.PhysicalName() != "col-a" || b.Metadata["__CHAR_VARCHAR_TYPE_STRING"] != "varchar(10)" ||
		m.Configuration["delta.newer.thing"] != "on" || m.Configuration["mine"] != "2" || m.Name != "n" || m.Description != "d" || m.Format.Options["o"] != "p" ||
		m.ID != "x" || *m.CreatedTime != 5 || d.Configuration != `{"x":1}` || m.Configuration[propMaxColumnID] != "9" {
		t.Errorf("metadata %+v, column %+v, domain %+v", m, f, d)
	}
	if got := fmt.Sprint(f.Metadata[metaTypeChanges]); got != "[map[fromType:integer toType:long]]" {
		t.Errorf("type changes %s", got)
	}
	// Tags of a file stay with it when a vector is put beside it.
	x := tab.Begin(s)
	for _, a := range s.Prune(nil) {
		x.RemoveFile(a.Tombstone(1, false))
		a.Tags, a.DataChange = map[string]*string{"zebra": &tag}, false
		x.AddFile(a)
	}
	if _, err := x.Commit(ctx, CommitOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := tab.SetProperties(ctx, map[string]string{propDeletionVectors: "true"}, AlterOptions{}); err != nil {
		t.Fatal(err)
	}
	appendJSON(t, tab, `[{"aa": 7}, {"aa": 8}]`)
	x = tab.Begin(mustSnapshot(t, tab))
	for _, a := range mustSnapshot(t, tab).Prune(nil) {
		x.RemoveFile(a.Tombstone(1, false))
		a.Tags, a.DataChange = map[string]*string{"zebra": &tag}, false
		x.AddFile(a)
	}
	if _, err := x.Commit(ctx, CommitOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := tab.DeleteWhere(ctx, expr.Eq(expr.Col("aa"), expr.Lit(7)), ChangeOptions{}); err != nil {
		t.Fatal(err)
	}
	vectors := 0
	for _, a := range mustSnapshot(t, tab).Adds() {
		if a.Tags["zebra"] == nil || *a.Tags["zebra"] != tag {
			t.Errorf("%s has the tags %v", a.Path, a.Tags)
		}
		if a.DeletionVector != nil {
			vectors++
		}
	}
	if vectors != 1 {
		t.Errorf("%d files have a vector", vectors)
	}
}

// Every type change of Spark's list is made, in partition columns, in nested ones and in ordinary ones; files of the old
// type read right, statistics prune no row away, and history keeps the old type.
func TestWidenedColumnsReadRight(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct{ from, to, value, want string }{
		{"TINYINT", "SMALLINT", "5", "5"}, {"TINYINT", "INT", "5", "5"}, {"TINYINT", "BIGINT", "-5", "-5"}, {"TINYINT", "DECIMAL(10,0)", "5", "5"}, {"TINYINT", "DOUBLE", "5", "5"},
		{"SMALLINT", "INT", "300", "300"}, {"SMALLINT", "BIGINT", "300", "300"}, {"SMALLINT", "DECIMAL(12,2)", "300", "300"}, {"SMALLINT", "DOUBLE", "300", "300"},
		{"INT", "BIGINT", "70000", "70000"}, {"INT", "DECIMAL(12,2)", "70000", "70000"}, {"INT", "DOUBLE", "70000", "70000"}, {"BIGINT", "DECIMAL(20,0)", "5000000000", "5000000000"},
		{"FLOAT", "DOUBLE", "1.1", fmt.Sprint(float64(float32(1.1)))}, {"DECIMAL(5,2)", "DECIMAL(9,4)", `"1.25"`, "1.25"}, {"DATE", "TIMESTAMP_NTZ", `"2024-01-31"`, "2024-01-31 00:00:00"},
	} {
		tab := alterTable(t, fmt.Sprintf("v: %[1]s, s: STRUCT<x: %[1]s>, l: ARRAY<%[1]s>, m: MAP<STRING, ARRAY<%[1]s>>, p: %[1]s", c.from),
			CreateOptions{PartitionBy: []string{"p"}, Config: map[string]string{propTypeWidening: "true"}}, nil)
		appendJSON(t, tab, fmt.Sprintf(`[{"v": %[1]s, "s": {"x": %[1]s}, "l": [%[1]s, null], "m": [{"key": "k", "value": [%[1]s]}], "p": %[1]s}]`, c.value))
		to, err := ParseType(c.to)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"v", "s.x", "l.element", "m.value.element", "p"} {
			if _, err := tab.ChangeColumn(ctx, strings.Split(path, "."), ColumnChange{Type: to}, AlterOptions{}); err != nil {
				t.Fatalf("%s to %s: %s: %v", c.from, c.to, path, err)
			}
		}
		fresh, err := Open(ctx, tab.Store(), "t", nil)
		if err != nil {
			t.Fatal(err)
		}
		s := mustSnapshot(t, fresh)
		for n, want := range map[string]string{"l": "element", "m": "value.element"} {
			f, _ := s.Schema().Field(n)
			if got := fmt.Sprint(f.Metadata[metaTypeChanges]); !strings.Contains(got, "fieldPath:"+want) {
				t.Errorf("%s to %s: column %s says %s", c.from, c.to, n, got)
			}
		}
		rows := 0
		for b, err := range fresh.Scan(ctx, s, ScanOptions{}) {
			if err != nil {
				t.Fatalf("%s to %s: %v", c.from, c.to, err)
			}
			rows += int(b.NumRows())
			for _, n := range []string{"v", "p"} {
				col := b.Column(s.Schema().Index(n))
				want := c.want
				if n == "p" && c.from == "FLOAT" {
					want = "1.1" // a partition value is text that is read in the new type
				}
				if got := col.ValueStr(0); got != want && strings.TrimSuffix(got, ".000000") != want && strings.ReplaceAll(got, "T", " ") != want {
					t.Errorf("%s to %s: column %s is %s, want %s", c.from, c.to, n, got, want)
				}
			}
			for _, n := range []string{"s", "l", "m"} {
				if got := b.Column(s.Schema().Index(n)).ValueStr(0); got == "" || strings.Contains(got, "null}") {
					t.Errorf("%s to %s: column %s is %s", c.from, c.to, n, got)
				}
			}
		}
		if rows != 1 {
			t.Errorf("%s to %s: %d rows", c.from, c.to, rows)
		}
		if c.from == "FLOAT" {
			// The statistics say 1.1, the value is a little more.
			for _, where := range []Predicate{Compare{"v", ">", 1.1}, Compare{"v", "=", float64(float32(1.1))}, Compare{"v", "<", 1.1000001}} {
				if n := len(s.Prune(where)); n != 1 {
					t.Errorf("%v prunes the file of the row", where)
				}
			}
		}
		old, err := fresh.SnapshotAt(ctx, 1)
		if err != nil {
			t.Fatal(err)
		}
		from, _ := ParseType(c.from)
		if f, _ := old.Schema().Field("v"); f.Type != from {
			t.Errorf("version 1 has %s", f.Type)
		}
		// What cannot be: back again.
		if _, err := fresh.ChangeColumn(ctx, []string{"v"}, ColumnChange{Type: from}, AlterOptions{}); !errors.Is(err, ErrAlter) {
			t.Errorf("%s back to %s: %v", c.to, c.from, err)
		}
	}
}

// Schema evolution widens columns within a family if the table says so, in each operation that evolves; a value that does
// not fit otherwise stays an error.
func TestEvolutionWidens(t *testing.T) {
	ctx := context.Background()
	wide := &Schema{Fields: []Field{{Name: "id", Type: Long, Nullable: true}, {Name: "f", Type: Double, Nullable: true}, {Name: "d", Type: Decimal{10, 3}, Nullable: true}}}
	const row = `[{"id": 5000000000, "f": 1e300, "d": "1.125"}]`
	for op, run := range map[string]func(tab *Table) error{
		"append": func(tab *Table) error {
			return second(tab.Append(ctx, rowsIn(t, wide, row), AppendOptions{Evolve: true}))
		},
		"merge by key": func(tab *Table) error {
			return second(tab.Merge(ctx, rowsIn(t, wide, row), MergeOptions{Key: []string{"id"}, Order: []OrderTerm{{Column: "f"}}, Evolve: true}))
		},
		"replace where": func(tab *Table) error {
			return second(tab.ReplaceWhere(ctx, fn(">", expr.Col("id"), expr.Lit(10)), rowsIn(t, wide, row), true, ChangeOptions{}))
		},
		"merge": func(tab *Table) error {
			return second(tab.MergeInto(ctx, rowsIn(t, wide, row), MergeIntoOptions{
				TargetAlias: "t", SourceAlias: "s", On: expr.Eq(expr.Col("t", "id"), expr.Col("s", "id")), SchemaEvolution: true,
				Clauses: []MergeClause{{Kind: WhenMatched, All: true}, {Kind: WhenNotMatched, All: true}},
			}))
		},
	} {
		for _, vectors := range []string{"true", "false"} {
			tab := alterTable(t, "id: INT, f: FLOAT, d: DECIMAL(5,2)", CreateOptions{Config: map[string]string{propTypeWidening: "true", propDeletionVectors: vectors, propChangeFeed: "true"}}, nil)
			appendJSON(t, tab, `[{"id": 1, "f": 0.5, "d": "2.25"}]`)
			if err := run(tab); err != nil {
				t.Fatalf("%s: %v", op, err)
			}
			s := mustSnapshot(t, tab)
			if got := s.Schema().String(); got != "struct<id: long, f: double, d: decimal(10,3)>" {
				t.Errorf("%s: %s", op, got)
			}
			if got := tableText(t, tab); !strings.Contains(got, "5000000000") || !strings.Contains(got, "2.25") || !strings.Contains(got, "1e+300") {
				t.Errorf("%s: %s", op, got)
			}
			if s.Version() != 2 {
				t.Errorf("%s made versions up to %d", op, s.Version())
			}
		}
		tab := alterTable(t, "id: INT, f: FLOAT, d: DECIMAL(5,2)", CreateOptions{}, nil)
		if err := run(tab); err == nil {
			t.Errorf("%s into a table without type widening is no error: %s", op, mustSnapshot(t, tab).Schema())
		} else if v := mustSnapshot(t, tab).Version(); v != 0 {
			t.Errorf("%s that failed made version %d", op, v)
		}
	}
}

// A feature that readers must know goes in two steps: out of the table, then, when no version that can be read uses it,
// out of the protocol. The rows stay, and files can be read without the feature.
func TestDropFeatureOfReaders(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		feature string
		config  map[string]string
		use     func(tab *Table) error
	}{
		{"deletionVectors", map[string]string{propDeletionVectors: "true"}, func(tab *Table) error {
			return second(tab.DeleteWhere(ctx, expr.Eq(expr.Col("id"), expr.Lit(2)), ChangeOptions{}))
		}},
		{"columnMapping", map[string]string{propMappingMode: "id"}, func(tab *Table) error {
			return second(tab.RenameColumn(ctx, []string{"k"}, "kk", AlterOptions{}))
		}},
		{"typeWidening", map[string]string{propTypeWidening: "true"}, func(tab *Table) error {
			return second(tab.ChangeColumn(ctx, []string{"k"}, ColumnChange{Type: Long}, AlterOptions{}))
		}},
		{"v2Checkpoint", map[string]string{propCheckpointPolicy: "v2"}, func(tab *Table) error { return second(tab.Checkpoint(ctx)) }},
	} {
		t.Run(c.feature, func(t *testing.T) {
			now := time.Now()
			clock := func() time.Time { return now }
			store := objstore.NewMemory(clock)
			typ, _ := ParseType("STRUCT<id: BIGINT, k: INT, p: STRING>")
			config := maps.Clone(c.config)
			config[propRowTracking] = "true"
			tab, err := Create(ctx, store, "t", CreateOptions{Schema: &Schema{Fields: typ.(*Struct).Fields}, PartitionBy: []string{"p"}, Config: config}, &Options{Clock: clock})
			if err != nil {
				t.Fatal(err)
			}
			appendJSON(t, tab, `[{"id": 1, "k": 10, "p": "a"}, {"id": 2, "k": 20, "p": "a"}, {"id": 3, "k": 30, "p": "b"}]`)
			if err := c.use(tab); err != nil {
				t.Fatal(err)
			}
			before, ids := tableText(t, tab), rowIDText(t, tab)
			dry, err := tab.DropFeature(ctx, c.feature, DropFeatureOptions{AlterOptions: AlterOptions{DryRun: true}})
			if err != nil || dry.Committed {
				t.Fatal(dry, err)
			}
			var a *AlterError
			for range 2 {
				if _, err := tab.DropFeature(ctx, c.feature, DropFeatureOptions{}); !errors.As(err, &a) || a.Class != "DELTA_FEATURE_DROP_WAIT_FOR_RETENTION_PERIOD" {
					t.Fatal(err)
				}
			}
			if _, err := tab.DropFeature(ctx, c.feature, DropFeatureOptions{TruncateHistory: true}); !errors.As(err, &a) || a.Class != "DELTA_FEATURE_DROP_WAIT_FOR_RETENTION_PERIOD" {
				t.Fatal(err)
			}
			if got := tableText(t, tab); got != before {
				t.Fatalf("rows were\n%s\nand are\n%s", before, got)
			}
			now = now.Add(25 * time.Hour)
			appendJSON(t, tab, `[]`)
			done, err := tab.DropFeature(ctx, c.feature, DropFeatureOptions{TruncateHistory: true})
			if err != nil || !done.Committed {
				t.Fatal(done, err)
			}
			fresh, err := Open(ctx, store, "t", nil)
			if err != nil {
				t.Fatal(err)
			}
			s := mustSnapshot(t, fresh)
			if s.protocol.supports(featureOf(c.feature)) || s.protocol.MinReaderVersion != 1 {
				t.Errorf("protocol %s", protocolShort(s.protocol))
			}
			if got, id := tableText(t, fresh), rowIDText(t, fresh); got != before || id != ids {
				t.Errorf("rows were\n%s%s\nand are\n%s%s", before, ids, got, id)
			}
			for _, f := range s.Schema().Fields {
				for k := range f.Metadata {
					t.Errorf("column %s has %s still", f.Name, k)
				}
			}
			h, err := fresh.History(ctx, 1)
			if err != nil || h[0].Info.Operation != "DROP FEATURE" {
				t.Errorf("%v %v", h, err)
			}
		})
	}
}

// rowIDText lists the rows with their ids.
func rowIDText(t *testing.T, tab *Table) string {
	t.Helper()
	var out []string
	for b, err := range tab.Scan(context.Background(), mustSnapshot(t, tab), ScanOptions{Columns: []string{"id"}, RowTracking: true}) {
		if err != nil {
			t.Fatal(err)
		}
		for i := range int(b.NumRows()) {
			out = append(out, b.Column(0).ValueStr(i)+":"+b.Column(1).ValueStr(i))
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// A writer of rows that loses a race to a rename or a wider type looks at its rows again; two changes of the schema at the
// same time both happen, and an operation that evolves the schema and fails leaves no trace in the table's cache.
func TestSchemaChangesBesideWriters(t *testing.T) {
	ctx := context.Background()
	tab := alterTable(t, "id: INT, v: STRING", CreateOptions{Config: map[string]string{propMappingMode: "name", propTypeWidening: "true"}}, nil)
	other, err := Open(ctx, tab.Store(), "t", nil)
	if err != nil {
		t.Fatal(err)
	}
	once := func(f func() error) func(string) {
		done := false
		return func(phase string) {
			if phase == "before-commit" && !done {
				done = true
				if err := f(); err != nil {
					t.Error(err)
				}
			}
		}
	}
	rows := rowsIn(t, &Schema{Fields: []Field{{Name: "id", Type: Integer, Nullable: true}}}, `[{"id": 1}]`)
	if _, err := tab.Append(ctx, rows, AppendOptions{Hook: once(func() error {
		return second(other.ChangeColumn(ctx, []string{"id"}, ColumnChange{Type: Long}, AlterOptions{}))
	})}); err != nil {
		t.Fatal(err)
	}
	if _, err := tab.RenameColumn(ctx, []string{"v"}, "w", AlterOptions{Hook: once(func() error {
		return second(other.AddColumns(ctx, []NewColumn{{Path: []string{"n"}, Type: Long}}, AlterOptions{}))
	})}); err != nil {
		t.Fatal(err)
	}
	if got := mustSnapshot(t, tab).Schema().String(); got != "struct<id: long, w: string, n: long>" {
		t.Error(got)
	}
	// An append that adds a column loses a race to rows, and then its store fails.
	more := rowsIn(t, &Schema{Fields: []Field{{Name: "id", Type: Long, Nullable: true}, {Name: "late", Type: Long, Nullable: true}}}, `[{"id": 2, "late": 3}]`)
	failed := errors.New("no")
	lost, stop := context.WithCancelCause(ctx)
	_, err = tab.Append(lost, more, AppendOptions{Evolve: true, Hook: once(func() error {
		appendJSON(t, other, `[{"id": 9}]`)
		stop(failed)
		return nil
	})})
	if err == nil {
		t.Fatal("the append should have failed")
	}
	if got := mustSnapshot(t, tab).Schema().String(); got != "struct<id: long, w: string, n: long>" {
		t.Errorf("after a failed evolution the table is %s", got)
	}
	if got, want := tableText(t, tab), tableText(t, other); got != want || math.Abs(float64(len(got))) == 0 {
		t.Errorf("%s is not %s", got, want)
	}
}

// A new column may get the name that another had before it was renamed, and in files still has.
func TestNewColumnWithTheNameOfARenamedOne(t *testing.T) {
	ctx := context.Background()
	for _, typ := range []Type{String, Long, Integer} {
		for how, add := range map[string]func(tab *Table) error{
			"added": func(tab *Table) error {
				return second(tab.AddColumns(ctx, []NewColumn{{Path: []string{"a"}, Type: typ}}, AlterOptions{}))
			},
			"evolved": func(tab *Table) error {
				rows := rowsIn(t, &Schema{Fields: []Field{{Name: "id", Type: Long, Nullable: true}, {Name: "a", Type: typ, Nullable: true}}}, `[]`)
				return second(tab.Append(ctx, rows, AppendOptions{Evolve: true}))
			},
		} {
			t.Run(fmt.Sprint(typ, " ", how), func(t *testing.T) {
				tab := alterTable(t, "id: BIGINT, a: INT", CreateOptions{Config: map[string]string{propTypeWidening: "true"}}, nil)
				appendJSON(t, tab, `[{"id": 1, "a": 7}]`)
				if _, err := tab.SetProperties(ctx, byNames, AlterOptions{}); err != nil {
					t.Fatal(err)
				}
				if _, err := tab.RenameColumn(ctx, []string{"a"}, "b", AlterOptions{}); err != nil {
					t.Fatal(err)
				}
				if err := add(tab); err != nil {
					t.Fatal(err)
				}
				f, _ := mustSnapshot(t, tab).Schema().Field("a")
				if f.Type != typ || f.Metadata[metaTypeChanges] != nil || f.PhysicalName() == "a" {
					t.Errorf("the new column is %s with %v", f.Type, f.Metadata)
				}
				if got, want := tableText(t, tab), "1 7 -"; got != want {
					t.Errorf("%q, want %q", got, want)
				}
			})
		}
	}
}

// Spark and Delta's kernel read the mode of column mapping in any case.
func TestMappingModeInAnyCase(t *testing.T) {
	ctx := context.Background()
	for mode, mapped := range map[string]bool{"Name": true, "ID": true, "None": false} {
		config := map[string]string{propMappingMode: strings.ToLower(mode)}
		tab := alterTable(t, "id: BIGINT, v: STRING", CreateOptions{Config: config}, nil)
		appendJSON(t, tab, `[{"id": 1, "v": "a"}]`)
		x := tab.Begin(mustSnapshot(t, tab))
		meta := x.Base().Metadata()
		meta.Configuration = maps.Clone(meta.Configuration)
		meta.Configuration[propMappingMode] = mode
		c := &commit{version: x.Base().Version() + 1, metadata: &meta}
		data, err := c.encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := tab.Store().PutIfAbsent(ctx, tab.commitKey(c.version), data); err != nil {
			t.Fatal(err)
		}
		s, err := tab.Snapshot(ctx)
		if err != nil {
			t.Errorf("mode %s: %v", mode, err)
			continue
		}
		appendJSON(t, tab, `[{"id": 2, "v": "b"}]`)
		if got := tableText(t, tab); got != "1 a\n2 b" || s.mapped() != mapped {
			t.Errorf("mode %s: mapped %v, rows %q", mode, s.mapped(), got)
		}
	}
}
