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
	Mode string `json:"mode"` // ModeBatch or ModeStream
	// Root is the lake's root as Hadoop names it: file:///…, s3a://…, gs://….
	Root       string            `json:"root"`
	Conf       map[string]string `json:"conf,omitempty"`
	Source     SourceSpec        `json:"source"`
	Table      TableSpec         `json:"table"`
	Quarantine TableSpec         `json:"quarantine"`
	Program    *Program          `json:"program"`
	Merge      Merge             `json:"merge"`
	// Reprocess, of a batch, reads files again that were read before; nil: only what is new.
	Reprocess *Reprocess `json:"reprocess,omitempty"`
	// Stream shapes the micro-batches of a stream; nil for a batch.
	Stream *StreamSpec `json:"stream,omitempty"`
}

// Modes of an App.
const (
	ModeBatch  = "batch"
	ModeStream = "stream"
)

// Reprocess narrows which files are read again. The zero value is all of them.
type Reprocess struct {
	All         bool   `json:"all"`            // true, so that the document of "all of them" is not empty
	File        string `json:"file,omitempty"` // pattern of file names; "": every one
	SinceMillis int64  `json:"since_ms,omitempty"`
}

// SourceSpec is what the driver's readers must know of a source.
type SourceSpec struct {
	Name         string   `json:"name"`
	Kind         string   `json:"kind"`
	Location     []string `json:"location,omitempty"`
	Prefixes     []string `json:"prefixes,omitempty"`
	FromFilename string   `json:"from_filename,omitempty"` // in Python's spelling, which for named groups is RE2's
	Generation   string   `json:"generation,omitempty"`
	CSV          CSVSpec  `json:"csv"`
	OnReissue    string   `json:"on_reissue,omitempty"`
	// Kafka is set for streams.
	Kafka *KafkaSpec `json:"kafka,omitempty"`
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
}

// Merge is the merge as SQL: s is a row of the epoch, t a stored one.
type Merge struct {
	Key       []string `json:"key"`
	Condition string   `json:"condition"`
	Greater   string   `json:"greater"` // the epoch's row wins
	Set       string   `json:"set"`
	Insert    string   `json:"insert"`
	// Alike says that the epoch's row and the stored one of its key differ in nothing that counts; Deletes that the epoch's
	// row is a deletion.
	Alike   string `json:"alike"`
	Deletes string `json:"deletes"`
}

// newApp makes what every App of a source has. quarantine is the schema of the quarantine table, which lies at
// quarantinePath.
func newApp(l *pipeline.Lake, plan *pipeline.Plan, mode string, quarantine *delta.Schema, quarantinePath string) (*App, error) {
	t := plan.Table
	program, err := Compile(plan)
	if err != nil {
		return nil, fmt.Errorf("source %s: %w", plan.Source.Name, err)
	}
	root, err := hadoopURL(l.Storage)
	if err != nil {
		return nil, err
	}
	app := &App{
		Name: "cauce " + mode + " " + plan.Source.Name, Mode: mode, Root: root, Program: program,
		Source:     SourceSpec{Name: plan.Source.Name, Kind: plan.Source.Kind},
		Table:      lakeTable(t),
		Quarantine: tableSpec("quarantine", quarantinePath, quarantine, nil, map[string]string{"delta.enableDeletionVectors": "true"}),
	}
	app.Merge, err = merge(t)
	return app, err
}

func lakeTable(t *pipeline.Table) TableSpec {
	props := map[string]string{}
	if t.DeletionVectors {
		props["delta.enableDeletionVectors"] = "true"
	}
	return tableSpec(t.Name, t.Location, t.DeltaSchema(), t.PartitionBy, props)
}

// NewBatch makes the App that reads the new files of a source.
func NewBatch(l *pipeline.Lake, plan *pipeline.Plan, quarantine *delta.Schema, quarantinePath string) (*App, error) {
	src := plan.Source
	switch {
	case src.Streaming():
		return nil, fmt.Errorf("%w: source %s is a stream", ErrUnsupported, src.Name)
	case src.Format != pipeline.FormatCSV:
		return nil, fmt.Errorf("%w: source %s has files of format %s; Spark's side reads csv", ErrUnsupported, src.Name, src.Format)
	}
	app, err := newApp(l, plan, ModeBatch, quarantine, quarantinePath)
	if err != nil {
		return nil, err
	}
	spec := SourceSpec{
		Name: src.Name, Kind: src.Kind, Location: src.Location, Prefixes: src.Prefixes(), Generation: src.Generation, OnReissue: src.OnReissue,
		CSV: CSVSpec{Delimiter: ",", Header: src.CSV.Header, Encoding: src.CSV.Encoding, NullValues: orEmpty(src.CSV.NullValues), Multiline: src.CSV.Multiline,
			Columns: orEmpty(src.CSV.Columns), Optional: orEmpty(src.CSV.Optional), Named: orEmpty(plan.RawFields)},
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
	app.Source = spec
	return app, nil
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

func tableSpec(name, path string, schema *delta.Schema, partitionBy []string, props map[string]string) TableSpec {
	s := TableSpec{Name: name, Path: path, Properties: props, PartitionBy: []string{}}
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
	m.Alike, m.Deletes = alike, "false"
	if t.Deletes {
		m.Deletes = "s." + pipeline.ColumnDeleted
	}
	return m, nil
}
