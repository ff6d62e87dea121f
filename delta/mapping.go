package delta

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

// Column mapping (PROTOCOL.md, "Column Mapping"): each field has an id and a physical name that never change, so that
// columns can be renamed and dropped without touching a file.
const (
	metaColumnID     = "delta.columnMapping.id"
	metaPhysicalName = "delta.columnMapping.physicalName"
	metaNestedIDs    = "delta.columnMapping.nested.ids"
)

// mapFields gives every field that has none an id above all that were ever used, and a physical name: its own name if
// the files of the table have it under that already (the table is being upgraded), else one that nothing else has. It
// changes config's delta.columnMapping.maxColumnId and returns a copy of the fields.
func mapFields(fields []Field, config map[string]string, upgrade bool, newID func() string) []Field {
	last, _ := strconv.ParseInt(config[propMaxColumnID], 10, 64)
	walkFields(fields, func(f *Field) {
		if id, ok := columnID(*f); ok {
			last = max(last, id)
		}
	})
	out := editFields(fields, func(f *Field) {
		id, hasID := f.Metadata[metaColumnID]
		name, hasName := f.Metadata[metaPhysicalName]
		if hasID && hasName {
			return
		}
		if !hasID {
			last++
			id = json.Number(strconv.FormatInt(last, 10))
		}
		if !hasName {
			if name = "col-" + newID(); upgrade {
				name = f.Name
			}
		}
		f.Metadata = maps.Clone(f.Metadata)
		if f.Metadata == nil {
			f.Metadata = map[string]any{}
		}
		f.Metadata[metaColumnID], f.Metadata[metaPhysicalName] = id, name
	})
	config[propMaxColumnID] = strconv.FormatInt(last, 10)
	return out
}

// maxColumnID is the greatest id that any of the metadata tells of, "" if none does.
func maxColumnID(of ...*Metadata) string {
	best, text := int64(-1), ""
	for _, m := range of {
		if n, err := strconv.ParseInt(m.Configuration[propMaxColumnID], 10, 64); err == nil && n > best {
			best, text = n, m.Configuration[propMaxColumnID]
		}
	}
	return text
}

// unmapFields takes ids and physical names out of the metadata of fields.
func unmapFields(fields []Field) []Field {
	return editFields(fields, func(f *Field) {
		for _, k := range []string{metaColumnID, metaPhysicalName, metaNestedIDs} {
			if _, ok := f.Metadata[k]; ok {
				f.Metadata = maps.Clone(f.Metadata)
				delete(f.Metadata, k)
			}
		}
	})
}

// editFields copies fields, those inside of structs, arrays and maps included, and lets edit change each copy; edit may
// not change maps in place.
func editFields(fields []Field, edit func(*Field)) []Field {
	out := slices.Clone(fields)
	for i := range out {
		edit(&out[i])
		out[i].Type = editType(out[i].Type, edit)
	}
	return out
}

func editType(t Type, edit func(*Field)) Type {
	switch t := t.(type) {
	case *Struct:
		return &Struct{Fields: editFields(t.Fields, edit)}
	case *Array:
		return &Array{Element: editType(t.Element, edit), ContainsNull: t.ContainsNull}
	case *Map:
		return &Map{Key: editType(t.Key, edit), Value: editType(t.Value, edit), ValueContainsNull: t.ValueContainsNull}
	}
	return t
}

// columnID is the id of a field under column mapping.
func columnID(f Field) (int64, bool) {
	text, ok := fieldID(f)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil
}

// checkMapping refuses a mapping that no reader could follow: a field without id or name, or two with the same.
func checkMapping(s *Schema) error {
	ids, names := map[int64]string{}, map[string]string{}
	var bad error
	note := func(err error) {
		if bad == nil {
			bad = err
		}
	}
	var walk func(fields []Field, at string)
	var walkIn func(t Type, at string)
	walkIn = func(t Type, at string) {
		switch t := t.(type) {
		case *Struct:
			walk(t.Fields, at)
		case *Array:
			walkIn(t.Element, at+".element")
		case *Map:
			walkIn(t.Key, at+".key")
			walkIn(t.Value, at+".value")
		}
	}
	walk = func(fields []Field, at string) {
		for _, f := range fields {
			id, ok := columnID(f)
			name, named := f.Metadata[metaPhysicalName].(string)
			if !ok || !named || name == "" {
				note(fmt.Errorf("%w: column mapping: column %q has no id or no physical name", ErrSchema, f.Name))
				return
			}
			if was, twice := ids[id]; twice {
				note(fmt.Errorf("%w: column mapping: columns %q and %q have the same id %d", ErrSchema, was, f.Name, id))
			}
			path := at + "." + name
			if was, twice := names[path]; twice {
				note(fmt.Errorf("%w: column mapping: columns %q and %q have the same physical name %q", ErrSchema, was, f.Name, name))
			}
			ids[id], names[path] = f.Name, f.Name
			walkIn(f.Type, path)
		}
	}
	walk(s.Fields, "")
	return bad
}

// PhysicalPartitionBy lists the names that the partition columns have in partitionValues.
func (t TableInfo) PhysicalPartitionBy() []string {
	out := make([]string, len(t.PartitionBy))
	for i, n := range t.PartitionBy {
		out[i] = n
		if f, ok := t.Schema.Field(n); ok {
			out[i] = f.PhysicalName()
		}
	}
	return out
}

// physicalArrow is the Arrow schema of a data file: physical names, and ids as Parquet's field_id.
func physicalArrow(fields []Field) []arrow.Field {
	out := make([]arrow.Field, len(fields))
	for i, f := range fields {
		out[i] = arrow.Field{Name: f.PhysicalName(), Type: physicalType(f.Type), Nullable: f.Nullable}
		if id, ok := fieldID(f); ok {
			out[i].Metadata = arrow.NewMetadata([]string{parquetFieldID}, []string{id})
		}
	}
	return out
}

const parquetFieldID = "PARQUET:field_id"

func physicalType(t Type) arrow.DataType {
	switch t := t.(type) {
	case *Struct:
		return arrow.StructOf(physicalArrow(t.Fields)...)
	case *Array:
		return arrow.ListOfField(arrow.Field{Name: "element", Type: physicalType(t.Element), Nullable: t.ContainsNull})
	case *Map:
		m := arrow.MapOf(physicalType(t.Key), physicalType(t.Value))
		m.SetItemNullable(t.ValueContainsNull)
		return m
	}
	return ArrowType(t)
}

// renamed gives a batch other names, inner ones too; the types of schema have the layout of its own.
func renamed(b arrow.RecordBatch, schema *arrow.Schema) arrow.RecordBatch {
	cols := make([]arrow.Array, b.NumCols())
	for i := range cols {
		d := retyped(b.Column(i).Data(), schema.Field(i).Type)
		cols[i] = array.MakeFromData(d)
		d.Release()
	}
	out := array.NewRecordBatch(schema, cols, b.NumRows())
	for _, c := range cols {
		c.Release()
	}
	return out
}
