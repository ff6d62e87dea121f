// Package catalog turns the names of a lake file into Delta tables: it knows where a table lies, creates it the first
// time it is needed, and holds the stored schema against the declared one. It stands between pipeline, which declares
// tables, and everything that reads or writes them.
package catalog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/pipeline"
)

// Quarantine is the name of the system table that keeps the records which did not fit (DESIGN D9).
const Quarantine = "quarantine"

// QuarantinePath is where the quarantine table lies below the root.
const QuarantinePath = "processed/quarantine"

// ErrNoTable is returned (wrapped, with the name) for a name that the lake file does not declare.
var ErrNoTable = errors.New("no such table")

// SchemaError says that a stored table is not what the lake file declares.
type SchemaError struct {
	Table string
	Path  string
	Msg   string
	Hint  string
}

func (e *SchemaError) Error() string {
	s := fmt.Sprintf("table %s (%s): %s", e.Table, e.Path, e.Msg)
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}

// Catalog finds the tables of one lake. It is safe for concurrent use.
type Catalog struct {
	lake  *pipeline.Lake
	store objstore.Store
	opts  *delta.Options

	mu   sync.Mutex
	open map[string]*delta.Table // by path; a Table caches its snapshot, so it is worth keeping
}

// New returns the catalog of a lake whose root is store. opts go to every table; nil stands for the zero value.
func New(lake *pipeline.Lake, store objstore.Store, opts *delta.Options) *Catalog {
	return &Catalog{lake: lake, store: store, opts: opts, open: map[string]*delta.Table{}}
}

// Names are the tables that exist by declaration: the lake file's in its order, then the system tables.
func (c *Catalog) Names() []string {
	out := make([]string, 0, len(c.lake.Tables)+1)
	for _, t := range c.lake.Tables {
		out = append(out, t.Name)
	}
	return append(out, Quarantine)
}

// Path is the key prefix of a table below the root.
func (c *Catalog) Path(name string) (string, error) {
	if t := c.lake.Table(name); t != nil {
		return t.Location, nil
	}
	if strings.EqualFold(name, Quarantine) {
		return QuarantinePath, nil
	}
	return "", fmt.Errorf("%w: %s; the lake has %s", ErrNoTable, name, strings.Join(c.Names(), ", "))
}

// Open opens a table that exists. A declared table that no run has created yet gives delta.ErrNotATable.
func (c *Catalog) Open(ctx context.Context, name string) (*delta.Table, error) {
	path, err := c.Path(name)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	t := c.open[path]
	c.mu.Unlock()
	if t != nil {
		return t, nil
	}
	t, err = delta.Open(ctx, c.store, path, c.opts)
	if err != nil {
		return nil, err
	}
	return c.keep(path, t), nil
}

// keep remembers an open table; of two concurrent openings the first stays.
func (c *Catalog) keep(path string, t *delta.Table) *delta.Table {
	c.mu.Lock()
	defer c.mu.Unlock()
	if had := c.open[path]; had != nil {
		return had
	}
	c.open[path] = t
	return t
}

// Ensure opens a table for writing: it creates the table where it is missing, checks the stored schema against the
// declared one, and adds columns where the lake file allows that (evolve: add_columns). Anything else that differs is
// a *SchemaError.
func (c *Catalog) Ensure(ctx context.Context, name string) (*delta.Table, error) {
	path, err := c.Path(name)
	if err != nil {
		return nil, err
	}
	want := c.declared(name)
	t, err := c.Open(ctx, name)
	if errors.Is(err, delta.ErrNotATable) {
		t, err = delta.Create(ctx, c.store, path, delta.CreateOptions{
			Schema:      want.schema,
			PartitionBy: want.partitionBy,
			Config:      want.config,
			Name:        want.name,
			Description: want.comment,
			IfNotExists: true,
		}, c.opts)
		if err == nil {
			t = c.keep(path, t)
		}
	}
	if err != nil {
		return nil, err
	}
	if err := c.conform(ctx, t, path, want); err != nil {
		return nil, err
	}
	return t, nil
}

// declaration is what a table must be.
type declaration struct {
	name, comment string
	schema        *delta.Schema
	partitionBy   []string
	config        map[string]string
	evolve        bool
	system        map[string]bool // columns that Cauce owns: added without being asked
}

func (c *Catalog) declared(name string) declaration {
	t := c.lake.Table(name)
	if t == nil {
		return declaration{
			name:    Quarantine,
			comment: "records that did not fit, with the reason",
			schema:  QuarantineSchema(),
			config:  map[string]string{"delta.enableDeletionVectors": "true"},
			evolve:  true,
		}
	}
	d := declaration{
		name:        t.Name,
		comment:     t.Comment,
		schema:      t.DeltaSchema(),
		partitionBy: t.PartitionBy,
		config:      map[string]string{},
		evolve:      t.Evolve == pipeline.EvolveAddColumns,
		// A source that begins to delete, or to keep unknown fields, says by that alone that the column is wanted.
		system: map[string]bool{pipeline.ColumnDeleted: true, pipeline.ColumnUnknown: true},
	}
	if t.DeletionVectors {
		d.config["delta.enableDeletionVectors"] = "true"
	}
	return d
}

// Difference compares a stored schema with what the lake file declares for the table: the columns that a writer would
// add, and what cannot be reconciled (nil when nothing).
func (c *Catalog) Difference(name string, s *delta.Snapshot) (add []delta.Field, err error) {
	path, err := c.Path(name)
	if err != nil {
		return nil, err
	}
	return difference(s, path, c.declared(name))
}

func difference(s *delta.Snapshot, path string, want declaration) (add []delta.Field, err error) {
	fail := func(hint, format string, args ...any) error {
		return &SchemaError{Table: want.name, Path: path, Msg: fmt.Sprintf(format, args...), Hint: hint}
	}
	stored := s.Schema()
	if !equalFold(s.PartitionBy(), want.partitionBy) {
		return nil, fail("a table's partitioning cannot change: give the new table another location, or set partition_by back",
			"it is partitioned by (%s), the lake file says (%s)", strings.Join(s.PartitionBy(), ", "), strings.Join(want.partitionBy, ", "))
	}
	for _, f := range want.schema.Fields {
		have, ok := stored.Field(f.Name)
		switch {
		case !ok && !want.evolve && !want.system[f.Name]:
			return nil, fail("set evolve: add_columns to add it",
				"the lake file declares column %s %s, which the stored table does not have", f.Name, f.Type)
		case !ok && !f.Nullable:
			return nil, fail("declare it without not_null",
				"column %s is declared NOT NULL but cannot be added so: the rows that are there have no value", f.Name)
		case !ok:
			add = append(add, f)
		case have.Type.String() != f.Type.String():
			return nil, fail("declare the stored type, or give the new table another location",
				"column %s is stored as %s, the lake file says %s", f.Name, have.Type, f.Type)
		case f.Nullable && !have.Nullable:
			return nil, fail("declare it with not_null: true",
				"column %s is stored as NOT NULL, the lake file allows nulls", f.Name)
		}
	}
	for _, f := range stored.Fields {
		if _, ok := want.schema.Field(f.Name); !ok && !f.Nullable {
			return nil, fail("declare it", "the stored table demands a value for column %s, which the lake file does not declare", f.Name)
		}
	}
	return add, nil
}

// conform brings a stored table up to its declaration or says why it cannot be.
func (c *Catalog) conform(ctx context.Context, t *delta.Table, path string, want declaration) error {
	const tries = 5 // another process may add the same columns at the same moment
	for try := 1; ; try++ {
		s, err := t.Snapshot(ctx)
		if err != nil {
			return err
		}
		add, err := difference(s, path, want)
		if err != nil || len(add) == 0 {
			return err
		}
		columns := make([]delta.NewColumn, len(add))
		for i, f := range add {
			columns[i] = delta.NewColumn{Path: []string{f.Name}, Type: f.Type, Comment: f.Comment()}
		}
		_, err = t.AddColumns(ctx, columns, delta.AlterOptions{})
		if err == nil {
			return nil
		}
		// Another run may have added them meanwhile, which an ALTER refuses.
		if !errors.Is(err, delta.ErrConflict) && !errors.Is(err, delta.ErrAlter) || try == tries {
			return fmt.Errorf("add columns to table %s: %w", want.name, err)
		}
	}
}

func equalFold(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !strings.EqualFold(a[i], b[i]) {
			return false
		}
	}
	return true
}

// QuarantineSchema is the schema of the quarantine table. A row's id is (source, origin, position, rule).
func QuarantineSchema() *delta.Schema {
	text, long, at := delta.Primitive("string"), delta.Primitive("long"), delta.Primitive("timestamp")
	field := func(name string, t delta.Type) delta.Field { return delta.Field{Name: name, Type: t, Nullable: true} }
	return &delta.Schema{Fields: []delta.Field{
		field("table", text),
		field("source", text),
		field("origin", text),     // as the table's _origin
		field("position", long),   // as the table's _position
		field("generation", long), // as the table's _generation
		field("file", text),
		field("line", long),
		field("topic", text),
		field("partition", delta.Primitive("integer")),
		field("offset", long),
		field("rule", text),
		field("reason", text),
		field("raw", text),        // the record's text, at most 1 MiB
		field("raw_bytes", long),  // length of the whole record
		field("raw_offset", long), // where it begins in the decompressed file
		field("plan", text),       // hash of the plan that refused it
		field("epoch", long),
		field("progress", text), // the progress file of that epoch: the row counts if that file won
		field("quarantined_at", at),
		field("resolved_at", at),                        // when a retry brought the record into the table; null while it is open
		field("raw_binary", delta.Primitive("binary")),  // a stream's message where raw cannot be exactly that
		field("message_key", delta.Primitive("binary")), // of a stream's message
		field("message_time", at),                       // of a stream's message
	}}
}
