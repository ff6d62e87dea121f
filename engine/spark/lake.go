package spark

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/pipeline"
)

// App is what the driver runs: one source of a lake.
type App struct {
	Name string `json:"name"`
	Mode string `json:"mode"` // ModeBatch
	// Root is the lake's root as Hadoop names it: file:///…, s3a://…, gs://….
	Root       string            `json:"root"`
	Conf       map[string]string `json:"conf,omitempty"`
	Source     SourceSpec        `json:"source"`
	Table      TableSpec         `json:"table"`
	Quarantine TableSpec         `json:"quarantine"`
	Program    *Program          `json:"program"`
	Merge      Merge             `json:"merge"`
}

// Modes of an App.
const ModeBatch = "batch"

// SourceSpec is what the driver's readers must know of a source.
type SourceSpec struct {
	Name         string   `json:"name"`
	Kind         string   `json:"kind"`
	Location     []string `json:"location,omitempty"`
	Prefixes     []string `json:"prefixes,omitempty"`
	FromFilename string   `json:"from_filename,omitempty"` // in Python's spelling, which for named groups is RE2's
	Generation   string   `json:"generation,omitempty"`
	CSV          CSVSpec  `json:"csv"`
}

// CSVSpec is pipeline.CSV.
type CSVSpec struct {
	Delimiter  string   `json:"delimiter"`
	Quote      string   `json:"quote"`
	Header     string   `json:"header"`
	Encoding   string   `json:"encoding"`
	NullValues []string `json:"null_values"`
	Multiline  bool     `json:"multiline"`
	Columns    []string `json:"columns"`
	Optional   []string `json:"optional"`
	Named      []string `json:"named"` // fields that expressions name
}

// TableSpec is a table as the driver creates it where it is missing.
type TableSpec struct {
	Name        string            `json:"name"`
	Path        string            `json:"path"` // below the root
	Columns     []string          `json:"columns"`
	PartitionBy []string          `json:"partition_by"`
	Properties  map[string]string `json:"properties"`
	Deletes     bool              `json:"deletes"`
}

// Merge is the merge as SQL: s is a row of the epoch, t a stored one.
type Merge struct {
	Key       []string `json:"key"`
	Condition string   `json:"condition"`
	Greater   string   `json:"greater"` // the epoch's row wins
	Set       string   `json:"set"`
	Insert    string   `json:"insert"`
	// Conditions over the epoch's rows, each joined with the stored row of its key; t._old is null where there is none.
	Inserted string `json:"inserted"`
	Updated  string `json:"updated"`
	Deleted  string `json:"deleted"`
}

// NewBatch makes the App that reads the new files of a source. quarantine is the schema of the quarantine table, which
// lies at quarantinePath.
func NewBatch(l *pipeline.Lake, plan *pipeline.Plan, quarantine *delta.Schema, quarantinePath string) (*App, error) {
	src, t := plan.Source, plan.Table
	switch {
	case src.Streaming():
		return nil, fmt.Errorf("%w: source %s is a stream", ErrUnsupported, src.Name)
	case src.Format != pipeline.FormatCSV:
		return nil, fmt.Errorf("%w: source %s has files of format %s; Spark's side reads csv", ErrUnsupported, src.Name, src.Format)
	case src.OnReissue == pipeline.ReissueReplace:
		return nil, fmt.Errorf("%w: source %s has on_reissue: replace", ErrUnsupported, src.Name)
	}
	program, err := Compile(plan)
	if err != nil {
		return nil, fmt.Errorf("source %s: %w", src.Name, err)
	}
	root, err := hadoopURL(l.Storage)
	if err != nil {
		return nil, err
	}
	spec := SourceSpec{
		Name: src.Name, Kind: src.Kind, Location: src.Location, Prefixes: src.Prefixes(), Generation: src.Generation,
		CSV: CSVSpec{Delimiter: ",", Header: src.CSV.Header, Encoding: src.CSV.Encoding, NullValues: orEmpty(src.CSV.NullValues), Multiline: src.CSV.Multiline,
			Columns: orEmpty(src.CSV.Columns), Optional: orEmpty(src.CSV.Optional), Named: plan.RawFields},
	}
	if src.CSV.Delimiter != 0 {
		spec.CSV.Delimiter = string(src.CSV.Delimiter)
	}
	if src.CSV.Quote != 0 {
		spec.CSV.Quote = string(src.CSV.Quote)
	}
	if src.FromFilename != nil {
		spec.FromFilename = src.FromFilename.String()
	}
	app := &App{
		Name: "cauce batch " + src.Name, Mode: ModeBatch, Root: root, Source: spec, Program: program,
		Table:      tableSpec(t.Name, t.Location, t.DeltaSchema(), t.PartitionBy, map[string]string{}, t.Deletes),
		Quarantine: tableSpec("quarantine", quarantinePath, quarantine, nil, map[string]string{"delta.enableDeletionVectors": "true"}, false),
	}
	if t.DeletionVectors {
		app.Table.Properties["delta.enableDeletionVectors"] = "true"
	}
	app.Merge, err = merge(t)
	return app, err
}

func orEmpty(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

// hadoopURL is a root as Hadoop's file systems name it.
func hadoopURL(root string) (string, error) {
	scheme, rest, ok := strings.Cut(root, ":")
	if !ok {
		return "", fmt.Errorf("storage %s: not a URL", root)
	}
	switch scheme {
	case "file":
		return "file://" + filepath.ToSlash(filepath.Clean("/"+strings.TrimLeft(rest, "/"))), nil
	case "s3":
		return "s3a:" + rest, nil
	}
	return root, nil
}

func tableSpec(name, path string, schema *delta.Schema, partitionBy []string, props map[string]string, deletes bool) TableSpec {
	s := TableSpec{Name: name, Path: path, Properties: props, Deletes: deletes, PartitionBy: []string{}}
	for _, f := range schema.Fields {
		col := quoteName(f.Name) + " " + sqlType(f.Type)
		if !f.Nullable {
			col += " NOT NULL"
		}
		if c, ok := f.Metadata["comment"].(string); ok {
			col += " COMMENT " + quoteText(c)
		}
		s.Columns = append(s.Columns, col)
	}
	for _, p := range partitionBy {
		s.PartitionBy = append(s.PartitionBy, quoteName(p))
	}
	return s
}

func merge(t *pipeline.Table) (Merge, error) {
	var m Merge
	var on []string
	for _, k := range t.MergeKey() {
		m.Key = append(m.Key, quoteName(k))
		on = append(on, "t."+quoteName(k)+" = s."+quoteName(k))
	}
	m.Condition = strings.Join(on, " AND ")
	// The greatest order wins: the first term in which the two differ decides, and null is lowest (DESIGN D2).
	m.Greater = "false"
	for _, o := range slices.Backward(t.Order()) {
		s, stored := "s."+quoteName(o.Column), "t."+quoteName(o.Column)
		if o.Column == "" {
			h, err := rowHash(t, o.HashOf, "t.")
			if err != nil {
				return m, err
			}
			s, stored = "s."+colHash, h
		}
		m.Greater = fmt.Sprintf("CASE WHEN %[1]s <=> %[2]s THEN %[3]s WHEN %[2]s IS NULL THEN true WHEN %[1]s IS NULL THEN false ELSE %[1]s > %[2]s END", s, stored, m.Greater)
	}
	var same []string
	for _, c := range t.SameColumns() {
		same = append(same, "t."+quoteName(c)+" <=> s."+quoteName(c))
	}
	alike := "(" + strings.Join(same, " AND ") + ")"
	var set, columns, values []string
	for _, f := range t.DeltaSchema().Fields {
		n := quoteName(f.Name)
		v := "s." + n
		columns, values = append(columns, n), append(values, v)
		if strings.EqualFold(f.Name, pipeline.ColumnIngestedAt) {
			v = "CASE WHEN " + alike + " THEN t." + n + " ELSE " + v + " END"
		}
		set = append(set, "t."+n+" = "+v)
	}
	m.Set = strings.Join(set, ", ")
	m.Insert = "(" + strings.Join(columns, ", ") + ") VALUES (" + strings.Join(values, ", ") + ")"
	deletes := "false"
	if t.Deletes {
		deletes = "s." + pipeline.ColumnDeleted
	}
	m.Inserted = "t._old IS NULL AND NOT " + deletes
	m.Updated = "t._old AND NOT " + deletes + " AND NOT " + alike + " AND " + m.Greater
	m.Deleted = deletes + " AND (t._old IS NULL OR NOT " + alike + " AND " + m.Greater + ")"
	return m, nil
}
