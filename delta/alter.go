package delta

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cauce-data/cauce/delta/expr"
)

// AlterOptions say how a change of a table's schema, properties or protocol commits.
type AlterOptions struct {
	UserMetadata string
	DryRun       bool // all is checked, nothing is committed
	Hook         func(phase string)
}

// AlterResult says what a change of a table did.
type AlterResult struct {
	Version       Version // of the commit; of the table as it was read if nothing was committed
	Committed     bool
	CheckpointErr error // the checkpoint after the commit failed; the commit stands
}

// alteration is what one change commits. An empty operation: there is nothing to do.
type alteration struct {
	operation string
	params    map[string]string
	metadata  *Metadata
	protocol  *Protocol
	domain    *DomainMetadata
	readWhole bool // the change stands only as long as no other writer adds rows
}

// alter commits a change, which is planned anew after a lost race.
func (t *Table) alter(ctx context.Context, o AlterOptions, plan func(*Snapshot) (*alteration, error)) (*AlterResult, error) {
	for try := 1; ; try++ {
		s, err := t.Snapshot(ctx)
		if err != nil {
			return nil, err
		}
		if err := s.CheckWrite(); err != nil {
			return nil, fmt.Errorf("%s: %w", t, err)
		}
		a, err := plan(s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t, err)
		}
		if a.operation == "" {
			return &AlterResult{Version: s.Version()}, nil
		}
		x := t.Begin(s)
		if a.metadata != nil {
			x.SetMetadata(*a.metadata)
		}
		if a.protocol != nil {
			x.SetProtocol(*a.protocol)
		}
		if a.domain != nil {
			x.SetDomain(*a.domain)
		}
		if a.readWhole {
			x.ReadWhole()
		}
		if o.DryRun {
			if err := x.check(); err != nil {
				return nil, fmt.Errorf("%s: %w", t, err)
			}
			return &AlterResult{Version: s.Version()}, nil
		}
		done, err := x.Commit(ctx, CommitOptions{Operation: a.operation, Parameters: a.params, UserMetadata: o.UserMetadata, Hook: o.Hook})
		if errors.Is(err, ErrConflict) && try < t.opts.MaxTries {
			if err = t.pause(ctx, try); err == nil {
				continue
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t, err)
		}
		return &AlterResult{Version: done.Version, Committed: true, CheckpointErr: done.CheckpointErr}, nil
	}
}

// alterSchema commits another schema. edit gives its fields; meta may be changed further, but not in place.
func (t *Table) alterSchema(ctx context.Context, o AlterOptions, operation string, edit func(s *Snapshot, p map[string]string) ([]Field, error), more ...func(*Snapshot, *Metadata) error) (*AlterResult, error) {
	return t.alter(ctx, o, func(s *Snapshot) (*alteration, error) {
		a := &alteration{operation: operation, params: map[string]string{}}
		fields, err := edit(s, a.params)
		if err != nil {
			return nil, err
		}
		if fields == nil {
			return &alteration{}, nil
		}
		if a.metadata, a.protocol, err = s.withSchema(&Schema{Fields: fields}); err != nil {
			return nil, err
		}
		for _, f := range more {
			if err := f(s, a.metadata); err != nil {
				return nil, err
			}
		}
		return a, nil
	})
}

// Position is where a column stands among its siblings. The zero value: at the end, or where it is.
type Position struct {
	First bool
	After string // a sibling
}

func (p Position) String() string {
	if p.First {
		return "first"
	}
	return "after " + p.After
}

// place moves the last field to where it should stand.
func (p Position) place(fields []Field) ([]Field, error) {
	at := len(fields) - 1
	f, rest := fields[at], fields[:at:at]
	switch {
	case p.First:
		at = 0
	case p.After != "":
		i := (&Schema{Fields: rest}).Index(p.After)
		if i < 0 {
			return nil, fmt.Errorf("%w: %q, after which column %q should stand", ErrNoSuchColumn, p.After, f.Name)
		}
		at = i + 1
	}
	return slices.Insert(slices.Clone(rest), at, f), nil
}

// NewColumn is a column to be added.
type NewColumn struct {
	// Path is the column's name, behind the names of the structs that it is in: "address", "zip". The structs of an array
	// are reached by "element", those of a map by "key" and "value".
	Path     []string
	Type     Type
	Comment  string
	Position Position
}

// AddColumns adds columns, whose value in all rows there are is null. ErrAlter (an AlterError) if there is one of that name.
func (t *Table) AddColumns(ctx context.Context, columns []NewColumn, o AlterOptions) (*AlterResult, error) {
	return t.alterSchema(ctx, o, "ADD COLUMNS", func(s *Snapshot, params map[string]string) ([]Field, error) {
		if len(columns) == 0 {
			return nil, fmt.Errorf("%w: no columns to add", ErrSchema)
		}
		fields := s.schema.Fields
		var told []map[string]any
		for _, c := range columns {
			if len(c.Path) == 0 {
				return nil, fmt.Errorf("%w: a column to add without a name", ErrSchema)
			}
			f := Field{Name: c.Path[len(c.Path)-1], Type: c.Type, Nullable: true}
			if c.Comment != "" {
				f.Metadata = map[string]any{"comment": c.Comment}
			}
			if err := checkNewFields([]Field{f}, s.mapped()); err != nil {
				return nil, err
			}
			var err error
			add := func(siblings []Field) ([]Field, error) {
				if (&Schema{Fields: siblings}).Index(f.Name) >= 0 {
					return nil, &AlterError{Class: "FIELD_ALREADY_EXISTS", Column: strings.Join(c.Path, "."), Reason: "the table has a column of this name already"}
				}
				return c.Position.place(append(slices.Clone(siblings), f))
			}
			if len(c.Path) == 1 {
				fields, err = add(fields)
			} else {
				fields, err = editPath(fields, c.Path[:len(c.Path)-1], pathEdit{members: add})
			}
			if err != nil {
				return nil, err
			}
			told = append(told, tellColumn(c.Path, f, c.Position))
		}
		params["columns"] = plainJSON(told)
		return fields, nil
	})
}

// tellColumn is a column as commitInfo has it.
func tellColumn(path []string, f Field, p Position) map[string]any {
	meta := f.Metadata
	if meta == nil {
		meta = map[string]any{}
	}
	out := map[string]any{"column": map[string]any{"name": strings.Join(path, "."), "type": f.Type.json(), "nullable": f.Nullable, "metadata": meta}}
	if p != (Position{}) {
		out["position"] = p.String()
	}
	return out
}

// RenameColumn gives a column, or a member of a struct, another name. No file changes; the table's columns must be
// mapped (delta.columnMapping.mode).
func (t *Table) RenameColumn(ctx context.Context, path []string, name string, o AlterOptions) (*AlterResult, error) {
	var from []string
	return t.alterSchema(ctx, o, "RENAME COLUMN", func(s *Snapshot, params map[string]string) ([]Field, error) {
		if !s.mapped() {
			return nil, &AlterError{Class: "DELTA_UNSUPPORTED_RENAME_COLUMN", Column: strings.Join(path, "."), Reason: needsMapping("renamed")}
		}
		var err error
		if from, err = s.schema.resolve(path); err != nil {
			return nil, err
		}
		if err := s.checkDependents(from, "it cannot be renamed", "DEPENDENT_COLUMN_CHANGE"); err != nil {
			return nil, err
		}
		to := append(slices.Clone(from[:len(from)-1]), name)
		params["oldColumnPath"], params["newColumnPath"] = strings.Join(from, "."), strings.Join(to, ".")
		return editPath(s.schema.Fields, from, pathEdit{field: func(siblings []Field, i int) ([]Field, error) {
			if j := (&Schema{Fields: siblings}).Index(name); j >= 0 && j != i {
				return nil, &AlterError{Class: "FIELD_ALREADY_EXISTS", Column: strings.Join(to, "."), Reason: "the table has a column of this name already"}
			}
			siblings[i].Name = name
			return siblings, checkNewFields([]Field{{Name: name, Type: String}}, true)
		}})
	}, func(s *Snapshot, m *Metadata) error {
		m.PartitionColumns = slices.Clone(m.PartitionColumns)
		for i, p := range m.PartitionColumns {
			if len(from) == 1 && p == from[0] {
				m.PartitionColumns[i] = name
			}
		}
		renameInStatsColumns(m.Configuration, from, name)
		return nil
	})
}

func needsMapping(what string) string {
	return "columns can be " + what + " only in a table with " + propMappingMode + " = name (or id); ALTER TABLE … SET TBLPROPERTIES turns it on"
}

// DropColumnsOptions say how columns are dropped.
type DropColumnsOptions struct {
	AlterOptions
	IfExists bool // columns that are not there are no error
}

// DropColumns takes columns, or members of structs, out of the schema. Their values stay in the files that there are
// until these are rewritten; no reader sees them. The table's columns must be mapped (delta.columnMapping.mode).
func (t *Table) DropColumns(ctx context.Context, paths [][]string, o DropColumnsOptions) (*AlterResult, error) {
	var gone [][]string
	return t.alterSchema(ctx, o.AlterOptions, "DROP COLUMNS", func(s *Snapshot, params map[string]string) ([]Field, error) {
		if !s.mapped() {
			return nil, &AlterError{Class: "DELTA_UNSUPPORTED_DROP_COLUMN", Reason: needsMapping("dropped")}
		}
		fields := s.schema.Fields
		cluster, err := s.ClusterBy()
		if err != nil {
			return nil, err
		}
		gone = nil
		for _, path := range paths {
			p, err := (&Schema{Fields: fields}).resolve(path)
			if errors.Is(err, ErrNoSuchColumn) && o.IfExists {
				continue
			}
			if err != nil {
				return nil, err
			}
			name := strings.Join(p, ".")
			if len(p) == 1 && slices.Contains(s.metadata.PartitionColumns, p[0]) {
				return nil, &AlterError{Class: "DELTA_UNSUPPORTED_DROP_PARTITION_COLUMN", Column: name, Reason: "a partition column cannot be dropped"}
			}
			if len(p) == 1 && slices.Contains(cluster, p[0]) {
				return nil, &AlterError{Class: "DELTA_UNSUPPORTED_DROP_CLUSTERING_COLUMN", Column: name, Reason: "a clustering column cannot be dropped; CLUSTER BY other columns first"}
			}
			if err := s.checkDependents(p, "it cannot be dropped", "DEPENDENT_COLUMN_CHANGE"); err != nil {
				return nil, err
			}
			fields, err = editPath(fields, p, pathEdit{field: func(siblings []Field, i int) ([]Field, error) {
				if len(siblings) == 1 {
					return nil, &AlterError{Class: "DELTA_DROP_COLUMN_ON_SINGLE_FIELD_SCHEMA", Column: name, Reason: "it is the only one there"}
				}
				return slices.Delete(siblings, i, i+1), nil
			}})
			if err != nil {
				return nil, err
			}
			gone = append(gone, p)
		}
		if len(gone) == 0 {
			return nil, nil
		}
		if len(fields) == len(s.metadata.PartitionColumns) {
			return nil, &AlterError{Class: "DELTA_DROP_COLUMN_ON_SINGLE_FIELD_SCHEMA", Column: strings.Join(gone[0], "."), Reason: "only partition columns would be left"}
		}
		var names []string
		for _, p := range gone {
			names = append(names, strings.Join(p, "."))
		}
		params["columns"] = plainJSON(names)
		return fields, nil
	}, func(s *Snapshot, m *Metadata) error {
		for _, p := range gone {
			renameInStatsColumns(m.Configuration, p, "")
		}
		return nil
	})
}

// ColumnChange says what of a column changes; what is nil stays.
type ColumnChange struct {
	Type     Type    // wider, in a table with delta.enableTypeWidening (PROTOCOL.md, "Type Widening")
	Comment  *string // "": none
	Nullable bool    // true: the column may have nulls from now on
	// Default is SQL for the value of rows that give none, "" for no default. Rows there are keep their values.
	Default  *string
	Position Position
}

// ChangeColumn changes a column, or a member of a struct; the path may also end at the "element" of an array or the
// "key" or "value" of a map, whose type changes. No file changes.
func (t *Table) ChangeColumn(ctx context.Context, path []string, ch ColumnChange, o AlterOptions) (*AlterResult, error) {
	var changed Field
	return t.alterSchema(ctx, o, "CHANGE COLUMN", func(s *Snapshot, params map[string]string) ([]Field, error) {
		p, err := s.schema.resolve(path)
		if err != nil {
			return nil, err
		}
		name := strings.Join(p, ".")
		tell := func(f Field) {
			changed = f
			for k, v := range tellColumn(p, f, ch.Position) {
				if text, ok := v.(string); ok {
					params[k] = text
				} else {
					params[k] = plainJSON(v)
				}
			}
		}
		return editPath(s.schema.Fields, p, pathEdit{
			field: func(siblings []Field, i int) ([]Field, error) {
				f := siblings[i]
				set := func(key string, v any) {
					f.Metadata = maps.Clone(f.Metadata)
					if f.Metadata == nil {
						f.Metadata = map[string]any{}
					}
					if f.Metadata[key] = v; v == nil {
						delete(f.Metadata, key)
					}
				}
				if ch.Type != nil {
					if f.Type, err = keepInner(f.Type, ch.Type); err != nil {
						return nil, err
					}
				}
				if ch.Comment != nil {
					if set("comment", *ch.Comment); *ch.Comment == "" {
						set("comment", nil)
					}
				}
				if ch.Nullable {
					f.Nullable = true
				}
				if ch.Default != nil {
					if len(p) > 1 || f.Metadata[metaGeneration] != nil {
						return nil, &AlterError{Class: "DELTA_COLUMN_DEFAULT_NOT_SUPPORTED", Column: name, Reason: "only a column of the table itself that is not generated can have a default"}
					}
					if set(metaDefault, *ch.Default); *ch.Default == "" {
						set(metaDefault, nil)
					}
				}
				siblings[i] = f
				tell(f)
				if ch.Position == (Position{}) {
					return siblings, nil
				}
				return ch.Position.place(append(slices.Delete(siblings, i, i+1), f))
			},
			slot: func(t Type) (Type, error) {
				if ch.Type == nil || ch.Comment != nil || ch.Nullable || ch.Default != nil || ch.Position != (Position{}) {
					return nil, &AlterError{Class: "DELTA_UNSUPPORTED_ALTER_TABLE_CHANGE_COL_OP", Column: name, Reason: "only the type of elements, keys and values can change"}
				}
				tell(Field{Name: name, Type: ch.Type, Nullable: true})
				return keepInner(t, ch.Type)
			},
		})
	}, func(s *Snapshot, m *Metadata) error {
		if ch.Default == nil || *ch.Default == "" {
			return nil
		}
		if t.opts.Engine.Expressions == nil {
			return &UnsupportedError{What: "column default without an ExpressionParser in the Engine", Names: []string{changed.Name}}
		}
		only := &Schema{Fields: []Field{changed}}
		_, err := rulesOf(t.opts.Engine.Expressions, only, nil, expr.Timestamp(t.opts.Clock().UnixMicro()))
		return err
	})
}

// keepInner gives a new type the metadata (ids, comments) that the members of structs had in the old one; members
// cannot come or go so.
func keepInner(old, to Type) (Type, error) {
	bad := &AlterError{Class: "DELTA_UNSUPPORTED_ALTER_TABLE_CHANGE_COL_OP", Reason: fmt.Sprintf("type %s cannot become %s", old, to)}
	switch old := old.(type) {
	case *Struct:
		s, ok := to.(*Struct)
		if !ok || len(s.Fields) != len(old.Fields) {
			return nil, bad
		}
		out := &Struct{Fields: slices.Clone(old.Fields)}
		for i, f := range out.Fields {
			j := (&Schema{Fields: s.Fields}).Index(f.Name)
			if j < 0 {
				return nil, bad
			}
			t, err := keepInner(f.Type, s.Fields[j].Type)
			if err != nil {
				return nil, err
			}
			out.Fields[i].Type = t
		}
		return out, nil
	case *Array:
		a, ok := to.(*Array)
		if !ok {
			return nil, bad
		}
		e, err := keepInner(old.Element, a.Element)
		return &Array{Element: e, ContainsNull: old.ContainsNull}, err
	case *Map:
		m, ok := to.(*Map)
		if !ok {
			return nil, bad
		}
		k, err := keepInner(old.Key, m.Key)
		if err != nil {
			return nil, err
		}
		v, err := keepInner(old.Value, m.Value)
		return &Map{Key: k, Value: v, ValueContainsNull: old.ValueContainsNull}, err
	}
	switch to.(type) {
	case *Struct, *Array, *Map:
		return nil, bad
	}
	return to, nil
}

// pathEdit is what happens at the end of a path; what is nil is an error there.
type pathEdit struct {
	field   func(siblings []Field, i int) ([]Field, error) // the path names siblings[i], which are a copy
	members func(fields []Field) ([]Field, error)          // the path names a struct; its fields
	slot    func(t Type) (Type, error)                     // the path names the elements of an array, or keys or values of a map
}

// editPath copies fields with a change at a path.
func editPath(fields []Field, path []string, e pathEdit) ([]Field, error) {
	i := (&Schema{Fields: fields}).Index(path[0])
	if i < 0 {
		return nil, fmt.Errorf("%w: %q", ErrNoSuchColumn, path[0])
	}
	out := slices.Clone(fields)
	if len(path) == 1 && e.field != nil {
		return e.field(out, i)
	}
	t, err := editTypePath(out[i].Type, path[1:], e)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path[0], err)
	}
	out[i].Type = t
	return out, nil
}

func editTypePath(t Type, path []string, e pathEdit) (Type, error) {
	if len(path) == 0 {
		s, ok := t.(*Struct)
		switch {
		case ok && e.members != nil:
			fields, err := e.members(s.Fields)
			return &Struct{Fields: fields}, err
		case e.slot != nil:
			return e.slot(t)
		}
		return nil, fmt.Errorf("%w: type %s has no members", ErrNoSuchColumn, t)
	}
	at := func(name string) bool { return strings.EqualFold(path[0], name) }
	switch t := t.(type) {
	case *Struct:
		fields, err := editPath(t.Fields, path, e)
		return &Struct{Fields: fields}, err
	case *Array:
		if at("element") {
			in, err := editTypePath(t.Element, path[1:], e)
			return &Array{Element: in, ContainsNull: t.ContainsNull}, err
		}
	case *Map:
		switch {
		case at("key"):
			in, err := editTypePath(t.Key, path[1:], e)
			return &Map{Key: in, Value: t.Value, ValueContainsNull: t.ValueContainsNull}, err
		case at("value"):
			in, err := editTypePath(t.Value, path[1:], e)
			return &Map{Key: t.Key, Value: in, ValueContainsNull: t.ValueContainsNull}, err
		}
	}
	return nil, fmt.Errorf("%w: %q in type %s", ErrNoSuchColumn, path[0], t)
}

// resolve gives a path the names as the schema spells them.
func (s *Schema) resolve(path []string) ([]string, error) {
	if len(path) == 0 {
		return nil, fmt.Errorf("%w: an empty name", ErrNoSuchColumn)
	}
	var out []string
	var t Type = &Struct{Fields: s.Fields}
	for _, n := range path {
		switch in := t.(type) {
		case *Struct:
			i := (&Schema{Fields: in.Fields}).Index(n)
			if i < 0 {
				return nil, fmt.Errorf("%w: %q", ErrNoSuchColumn, strings.Join(path, "."))
			}
			n, t = in.Fields[i].Name, in.Fields[i].Type
		case *Array:
			if n, t = "element", in.Element; !strings.EqualFold(path[len(out)], n) {
				return nil, fmt.Errorf("%w: %q: an array has \"element\"", ErrNoSuchColumn, strings.Join(path, "."))
			}
		case *Map:
			switch {
			case strings.EqualFold(n, "key"):
				n, t = "key", in.Key
			case strings.EqualFold(n, "value"):
				n, t = "value", in.Value
			default:
				return nil, fmt.Errorf("%w: %q: a map has \"key\" and \"value\"", ErrNoSuchColumn, strings.Join(path, "."))
			}
		default:
			return nil, fmt.Errorf("%w: %q: %s has no members", ErrNoSuchColumn, strings.Join(path, "."), t)
		}
		out = append(out, n)
	}
	return out, nil
}

// ParseColumnPath reads the path of a column as SQL has it: names with dots between them, in backticks where they have
// dots themselves.
func ParseColumnPath(text string) ([]string, error) {
	paths, err := parseColumnPaths(text)
	if err != nil {
		return nil, err
	}
	if len(paths) != 1 {
		return nil, fmt.Errorf("%w: %q names %d columns, not one", ErrSchema, text, len(paths))
	}
	return paths[0], nil
}

// parseColumnPaths reads a list of paths with commas between them.
func parseColumnPaths(text string) ([][]string, error) {
	p := &typeParser{in: text}
	var out [][]string
	for {
		var path []string
		for {
			p.space()
			var name string
			if p.pos < len(p.in) && p.in[p.pos] == '`' {
				var err error
				if name, err = p.ident(); err != nil {
					return nil, err
				}
			} else {
				end := p.pos + strings.IndexAny(p.in[p.pos:]+",", ".,`")
				name, p.pos = strings.TrimSpace(p.in[p.pos:end]), end
			}
			if name == "" {
				return nil, fmt.Errorf("%w: %q: a name is missing", ErrSchema, text)
			}
			path = append(path, name)
			if !p.take('.') {
				break
			}
		}
		out = append(out, path)
		if !p.take(',') {
			break
		}
	}
	if p.space(); p.pos < len(p.in) {
		return nil, fmt.Errorf("%w: %q: unexpected %q", ErrSchema, text, p.in[p.pos:])
	}
	return out, nil
}

// renameInStatsColumns follows a rename in the list of columns that get statistics; to "" takes the column out of it.
func renameInStatsColumns(config map[string]string, path []string, to string) {
	list, ok := config[propStatsColumns]
	if !ok {
		return
	}
	paths, err := parseColumnPaths(list)
	if err != nil {
		return // another engine's spelling is left as it is
	}
	var out []string
	for _, p := range paths {
		if len(p) >= len(path) && overlap(p, path) {
			if to == "" {
				continue
			}
			p = slices.Clone(p)
			p[len(path)-1] = to
		}
		for i, n := range p {
			p[i] = quoteIdent(n)
		}
		out = append(out, strings.Join(p, "."))
	}
	if config[propStatsColumns] = strings.Join(out, ","); len(out) == 0 {
		delete(config, propStatsColumns)
	}
}
