package delta

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// checkTypeChanges refuses a schema whose delta.typeChanges tell of a change that this reader does not know
// (PROTOCOL.md, "Type Widening", "Reader Requirements for Type Widening"): its files could not be read right.
func checkTypeChanges(p *Protocol, s *Schema) error {
	if !p.hasReaderFeature("typeWidening") && !p.hasReaderFeature("typeWidening-preview") {
		return nil
	}
	var unknown []string
	walkFields(s.Fields, func(f *Field) {
		changes, ok := f.Metadata[metaTypeChanges].([]any)
		if !ok && f.Metadata[metaTypeChanges] != nil {
			unknown = append(unknown, fmt.Sprintf("%s: %v", f.Name, f.Metadata[metaTypeChanges]))
		}
		for _, c := range changes {
			m, _ := c.(map[string]any)
			from, _ := m["fromType"].(string)
			to, _ := m["toType"].(string)
			// Between strings a change says nothing about files; Spark, too, lets such an entry be, though none should stand there.
			if !knownTypeChange(from, to) && (!isStringType(from) || !isStringType(to)) {
				unknown = append(unknown, fmt.Sprintf("%s: %q to %q", f.Name, from, to))
			}
		}
	})
	if len(unknown) > 0 {
		return &UnsupportedError{What: "type change", Names: unknown}
	}
	return nil
}

// isStringType reports whether a schema's name of a type is one of the forms of string: with a collation, char(n), varchar(n).
func isStringType(name string) bool {
	return name == "string" || strings.HasPrefix(name, "string ") || strings.HasPrefix(name, "char(") || strings.HasPrefix(name, "varchar(")
}

// knownTypeChange reports whether a type change is one of those that the protocol lists.
func knownTypeChange(from, to string) bool {
	a, err1 := parsePrimitiveJSON(from)
	b, err2 := parsePrimitiveJSON(to)
	if err1 != nil || err2 != nil || strings.HasPrefix(from, "string") || strings.HasPrefix(to, "string") {
		return false
	}
	ints := map[Type]int{Byte: 1, Short: 2, Integer: 3, Long: 4}
	if d, ok := b.(Decimal); ok {
		if e, ok := a.(Decimal); ok {
			return d.S >= e.S && d.P-d.S >= e.P-e.S
		}
		switch ints[a] {
		case 1, 2, 3:
			return d.P-d.S >= 10
		case 4:
			return d.P-d.S >= 20
		}
		return false
	}
	switch {
	case ints[a] > 0 && ints[b] > 0:
		return ints[a] <= ints[b]
	case b == Double:
		return a == Float || ints[a] >= 1 && ints[a] <= 3
	}
	return a == Date && b == TimestampNTZ
}

// wasFloat reports whether a column was of type float before it was widened.
func wasFloat(f Field) bool {
	changes, _ := f.Metadata[metaTypeChanges].([]any)
	for _, c := range changes {
		if m, ok := c.(map[string]any); ok && m["fromType"] == Float.String() && m["fieldPath"] == nil {
			return true
		}
	}
	return false
}

// metaTypeChanges is the record of the types that a column had.
const metaTypeChanges = "delta.typeChanges"

// widens reports whether types of the table may be widened.
func (s *Snapshot) widens() bool {
	return on(s.metadata, propTypeWidening) && s.protocol.hasWriterFeature("typeWidening") && s.protocol.hasReaderFeature("typeWidening")
}

// widenFor is the type that a column must get so that it holds values of another one, too. As with Spark, schema
// evolution only widens within a family: integers, floating point, decimals, dates to timestamps.
func widenFor(have, rows Type) (wide Type, ok bool) {
	switch have := have.(type) {
	case Decimal:
		d, ok := rows.(Decimal)
		if !ok {
			return nil, false
		}
		scale := max(have.S, d.S)
		w := Decimal{P: max(have.P-have.S, d.P-d.S) + scale, S: scale}
		return w, w != have && w.P <= 38
	case Primitive:
		p, same := rows.(Primitive)
		if !same || p == have || !knownTypeChange(have.String(), p.String()) {
			return nil, false
		}
		return p, have == Date || (have == Float) == (p == Double)
	case *Struct:
		s, isStruct := rows.(*Struct)
		if !isStruct {
			return nil, false
		}
		out := &Struct{Fields: slices.Clone(have.Fields)}
		for i, f := range out.Fields {
			for _, g := range s.Fields {
				if w, can := widenFor(f.Type, g.Type); can && strings.EqualFold(f.Name, g.Name) {
					out.Fields[i].Type, ok = w, true
				}
			}
		}
		return out, ok
	case *Array:
		if a, isArray := rows.(*Array); isArray {
			if w, can := widenFor(have.Element, a.Element); can {
				return &Array{Element: w, ContainsNull: have.ContainsNull}, true
			}
		}
	case *Map:
		m, isMap := rows.(*Map)
		if !isMap {
			return nil, false
		}
		out := &Map{Key: have.Key, Value: have.Value, ValueContainsNull: have.ValueContainsNull}
		if w, can := widenFor(have.Key, m.Key); can {
			out.Key, ok = w, true
		}
		if w, can := widenFor(have.Value, m.Value); can {
			out.Value, ok = w, true
		}
		return out, ok
	}
	return nil, false
}

// typeChange is one entry of delta.typeChanges.
type typeChange struct {
	column   []string // names
	from, to Type
	path     string // inside of arrays and maps: "element", "key", "value" and their combinations
}

// typeChanges gives the fields of a new schema with the record of how their types differ from those of the old one. A
// field is the same if its physical name is; one that has none yet is new, also where another has its name as its physical
// one. changed lists what was recorded.
func typeChanges(old, to []Field, above ...string) (out []Field, changed []typeChange, err error) {
	out = slices.Clone(to)
	for i := range out {
		f := &out[i]
		at := slices.IndexFunc(old, func(o Field) bool {
			return o.PhysicalName() == f.PhysicalName() && (o.Metadata[metaPhysicalName] == nil) == (f.Metadata[metaPhysicalName] == nil)
		})
		if at < 0 {
			continue
		}
		var own []typeChange
		if f.Type, own, changed, err = typeChangesIn(append(slices.Clone(above), f.Name), old[at].Type, f.Type, "", changed); err != nil {
			return nil, nil, err
		}
		if len(own) == 0 {
			continue
		}
		was, _ := f.Metadata[metaTypeChanges].([]any)
		was = slices.Clone(was)
		for _, c := range own {
			m := map[string]any{"fromType": c.from.String(), "toType": c.to.String()}
			if c.path != "" {
				m["fieldPath"] = c.path
			}
			was = append(was, m)
		}
		f.Metadata = maps.Clone(f.Metadata)
		if f.Metadata == nil {
			f.Metadata = map[string]any{}
		}
		f.Metadata[metaTypeChanges] = was
		changed = append(changed, own...)
	}
	return out, changed, nil
}

// typeChangesIn looks at one type; own are the changes that the field itself has to record.
func typeChangesIn(column []string, old, to Type, path string, changed []typeChange) (out Type, own, all []typeChange, err error) {
	refuse := &AlterError{Class: "DELTA_UNSUPPORTED_ALTER_TABLE_CHANGE_COL_OP", Column: strings.Join(column, "."),
		Reason: fmt.Sprintf("its type %s cannot become %s", old, to)}
	inside := func(what string, a, b Type) (Type, error) {
		if path != "" {
			what = path + "." + what
		}
		t, more, list, err := typeChangesIn(column, a, b, what, changed)
		own, changed = append(own, more...), list
		return t, err
	}
	switch old := old.(type) {
	case *Struct:
		s, ok := to.(*Struct)
		if !ok {
			return nil, nil, nil, refuse
		}
		fields, more, err := typeChanges(old.Fields, s.Fields, column...)
		return &Struct{Fields: fields}, nil, append(changed, more...), err
	case *Array:
		a, ok := to.(*Array)
		if !ok {
			return nil, nil, nil, refuse
		}
		e, err := inside("element", old.Element, a.Element)
		return &Array{Element: e, ContainsNull: a.ContainsNull}, own, changed, err
	case *Map:
		m, ok := to.(*Map)
		if !ok {
			return nil, nil, nil, refuse
		}
		k, err := inside("key", old.Key, m.Key)
		if err != nil {
			return nil, nil, nil, err
		}
		v, err := inside("value", old.Value, m.Value)
		return &Map{Key: k, Value: v, ValueContainsNull: m.ValueContainsNull}, own, changed, err
	}
	if old == to {
		return to, nil, changed, nil
	}
	if !knownTypeChange(old.String(), to.String()) {
		return nil, nil, nil, refuse
	}
	return to, []typeChange{{column, old, to, path}}, changed, nil
}
