package delta

import (
	"slices"
	"sort"
	"strconv"
	"strings"
)

// hasWriterFeature reports whether the protocol supports a feature, by list or by version.
func (p *Protocol) hasWriterFeature(name string) bool {
	if p.MinWriterVersion >= 7 {
		return slices.Contains(p.WriterFeatures, name)
	}
	f, ok := featureNamed(name)
	return ok && f.writerVersion > 0 && p.MinWriterVersion >= f.writerVersion
}

func (p *Protocol) hasReaderFeature(name string) bool {
	if p.MinReaderVersion >= 3 {
		return slices.Contains(p.ReaderFeatures, name)
	}
	return name == "columnMapping" && p.MinReaderVersion == 2
}

// checkRead refuses a table whose protocol asks of readers what is not implemented.
func checkRead(p *Protocol, m *Metadata) error {
	if p.MinReaderVersion > 3 {
		return &UnsupportedError{What: "reader version", Names: []string{strconv.Itoa(p.MinReaderVersion)}}
	}
	var missing []string
	if p.MinReaderVersion == 3 {
		for _, n := range p.ReaderFeatures {
			if f, ok := featureNamed(n); !ok || !f.read || f.name != n {
				missing = append(missing, n)
			}
		}
	}
	switch mode := columnMappingMode(p, m); mode {
	case "none", "name", "id":
	default:
		return &UnsupportedError{What: "column mapping mode", Names: []string{mode}}
	}
	if len(missing) > 0 {
		sort.Strings(missing)
		return &UnsupportedError{What: "reader feature", Names: missing}
	}
	if m != nil && m.Format.Provider != "" && m.Format.Provider != "parquet" {
		return &UnsupportedError{What: "file format", Names: []string{m.Format.Provider}}
	}
	return nil
}

// columnMappingMode is the mode that a reader must honour: without support in the protocol the property says nothing
// (PROTOCOL.md, "Column Mapping"). Spark keeps it in the case in which it was set.
func columnMappingMode(p *Protocol, m *Metadata) string {
	if m == nil || !p.hasReaderFeature("columnMapping") {
		return "none"
	}
	switch mode := strings.ToLower(m.Configuration[propMappingMode]); mode {
	case "", "none":
		return "none"
	default:
		return mode
	}
}

// checkWrite refuses to write to a table whose protocol or metadata asks of writers what is not implemented.
func checkWrite(p *Protocol, m *Metadata, s *Schema) error {
	if p.MinWriterVersion > 7 {
		return &UnsupportedError{What: "writer version", Names: []string{strconv.Itoa(p.MinWriterVersion)}}
	}
	missing := map[string]bool{}
	if p.MinWriterVersion == 7 {
		for _, n := range p.WriterFeatures {
			if f, ok := featureNamed(n); !ok || !f.write || f.name != n {
				missing[n] = true
			}
		}
	}
	// Supported is not active: a table of protocol 1/4 may never have used what its writer version stands for. And what
	// is active must not be written without, whatever the protocol says; constraints, generated columns and defaults are
	// checkRules' to judge.
	for i := range features {
		f := &features[i]
		if f.active != nil && !f.write && f.active(m, s) || f.refuse != nil && p.supports(f) && f.refuse(m, s) {
			missing[f.name] = true
		}
	}
	if on(m, propRowTracking) && !p.hasWriterFeature(featureRowTracking) {
		missing[featureRowTracking] = true
	}
	if len(missing) > 0 {
		names := make([]string, 0, len(missing))
		for n := range missing {
			names = append(names, n)
		}
		sort.Strings(names)
		return &UnsupportedError{What: "writer feature", Names: names}
	}
	// PROTOCOL.md, "Void Type": files leave such columns out, which they cannot do inside of others.
	inside := false
	if s != nil {
		walkTypes(s.Fields, func(t Type) {
			switch t := t.(type) {
			case *Struct:
				inside = inside || slices.ContainsFunc(t.Fields, func(f Field) bool { return f.Type == Void })
			case *Array:
				inside = inside || t.Element == Void
			case *Map:
				inside = inside || t.Key == Void || t.Value == Void
			}
		})
	}
	if inside {
		return &UnsupportedError{What: "type inside of a column", Names: []string{string(Void)}}
	}
	return nil
}

func on(m *Metadata, property string) bool {
	return strings.EqualFold(m.Configuration[property], "true")
}

// walkFields calls f for every field, those inside structs, arrays and maps included.
func walkFields(fields []Field, f func(*Field)) {
	var walk func(Type)
	walk = func(t Type) {
		switch t := t.(type) {
		case *Struct:
			walkFields(t.Fields, f)
		case *Array:
			walk(t.Element)
		case *Map:
			walk(t.Key)
			walk(t.Value)
		}
	}
	for i := range fields {
		f(&fields[i])
		walk(fields[i].Type)
	}
}

// protocolFor is the lowest protocol that a new table of this schema and these properties needs, and all that the
// properties ask for beyond; pseudo-properties that do so are taken out of config.
func protocolFor(s *Schema, config map[string]string) (*Protocol, error) {
	p := &Protocol{MinReaderVersion: 1, MinWriterVersion: 2}
	if asked, err := takeFeatureProperties(config, p); err != nil {
		return nil, err
	} else if asked != nil {
		p = asked
	}
	if up := p.raisedFor(&Metadata{Configuration: config}, s); up != nil {
		p = up
	}
	return p, nil
}
