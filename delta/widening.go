package delta

import (
	"fmt"
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
		changes, ok := f.Metadata["delta.typeChanges"].([]any)
		if !ok && f.Metadata["delta.typeChanges"] != nil {
			unknown = append(unknown, fmt.Sprintf("%s: %v", f.Name, f.Metadata["delta.typeChanges"]))
		}
		for _, c := range changes {
			m, _ := c.(map[string]any)
			from, _ := m["fromType"].(string)
			to, _ := m["toType"].(string)
			if !knownTypeChange(from, to) {
				unknown = append(unknown, fmt.Sprintf("%s: %q to %q", f.Name, from, to))
			}
		}
	})
	if len(unknown) > 0 {
		return &UnsupportedError{What: "type change", Names: unknown}
	}
	return nil
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
