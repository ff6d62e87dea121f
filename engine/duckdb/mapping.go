package duckdb

import (
	"fmt"
	"strings"

	"github.com/cauce-data/cauce/delta"
)

// physicalValue renames the members of structs inside of a value to their physical names (PROTOCOL.md, "Column
// Mapping"); depth tells the variables of nested functions apart.
func physicalValue(v string, t delta.Type, depth int) string {
	if !renames(t) {
		return v
	}
	x := fmt.Sprintf("x%d", depth)
	switch t := t.(type) {
	case *delta.Struct:
		var parts []string
		for _, f := range t.Fields {
			parts = append(parts, quoteName(f.PhysicalName())+" := "+physicalValue("struct_extract("+v+", "+quoteText(f.Name)+")", f.Type, depth))
		}
		return "CASE WHEN " + v + " IS NOT NULL THEN struct_pack(" + strings.Join(parts, ", ") + ") END"
	case *delta.Array:
		return "list_transform(" + v + ", lambda " + x + ": " + physicalValue(x, t.Element, depth+1) + ")"
	case *delta.Map:
		k, e := physicalValue(x+".key", t.Key, depth+1), physicalValue(x+".value", t.Value, depth+1)
		return "CASE WHEN " + v + " IS NOT NULL THEN map_from_entries(list_transform(map_entries(" + v + "), lambda " + x + ": struct_pack(key := " + k + ", value := " + e + "))) END"
	}
	return v
}

// renames reports whether a member of a struct inside of a type has another name in files.
func renames(t delta.Type) bool {
	switch t := t.(type) {
	case *delta.Struct:
		for _, f := range t.Fields {
			if f.Name != f.PhysicalName() || renames(f.Type) {
				return true
			}
		}
	case *delta.Array:
		return renames(t.Element)
	case *delta.Map:
		return renames(t.Key) || renames(t.Value)
	}
	return false
}

// fieldIDs is what COPY's option FIELD_IDS says of the columns of a mapped table; "" if its columns have no ids.
func fieldIDs(table delta.TableInfo) string {
	return idStruct(table.Schema.Fields, func(f delta.Field) bool {
		return f.Type == delta.Void || contains(table.PartitionBy, f.Name)
	})
}

func idStruct(fields []delta.Field, skip func(delta.Field) bool) string {
	var parts []string
	for _, f := range fields {
		if skip != nil && skip(f) {
			continue
		}
		var inner []string
		if id, ok := f.Metadata["delta.columnMapping.id"]; ok {
			inner = append(inner, fmt.Sprintf("__duckdb_field_id: %v", id))
		}
		inner = append(inner, idMembers(f.Type)...)
		if len(inner) > 0 {
			parts = append(parts, quoteName(f.PhysicalName())+": {"+strings.Join(inner, ", ")+"}")
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// idMembers are the entries of what is inside of a type.
func idMembers(t delta.Type) []string {
	under := func(name string, t delta.Type) []string {
		if in := idMembers(t); len(in) > 0 {
			return []string{name + ": {" + strings.Join(in, ", ") + "}"}
		}
		return nil
	}
	switch t := t.(type) {
	case *delta.Struct:
		if s := idStruct(t.Fields, nil); s != "" {
			return []string{strings.TrimSuffix(strings.TrimPrefix(s, "{"), "}")}
		}
	case *delta.Array:
		return under("element", t.Element)
	case *delta.Map:
		return append(under("key", t.Key), under("value", t.Value)...)
	}
	return nil
}
