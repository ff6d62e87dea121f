package delta

import (
	"slices"
	"sort"
	"strconv"
	"strings"
)

// readerFeatures are the reader features that this package honours.
var readerFeatures = map[string]bool{
	"columnMapping":            true,
	"deletionVectors":          true,
	"timestampNtz":             true,
	"typeWidening":             true,
	"typeWidening-preview":     true,
	"v2Checkpoint":             true,
	"vacuumProtocolCheck":      true,
	"variantShredding":         true,
	"variantShredding-preview": true,
	"variantType":              true,
	"variantType-preview":      true,
}

// writerFeatures are the writer features under which this package may write. Those of activeFeatures are fine only
// as long as the table makes no use of them.
var writerFeatures = map[string]bool{
	"appendOnly":          true,
	"invariants":          true,
	"checkConstraints":    true,
	"changeDataFeed":      true,
	"generatedColumns":    true,
	"columnMapping":       true,
	"identityColumns":     true,
	"allowColumnDefaults": true,
	"deletionVectors":     true,
	"timestampNtz":        true,
	"domainMetadata":      true,
	"clustering":          true,
	"v2Checkpoint":        true,
	"inCommitTimestamp":   true,
	"vacuumProtocolCheck": true,
	"rowTracking":         true,
}

// legacyFeatures are what the old writer versions stand for (PROTOCOL.md, "Features implied by legacy versions").
var legacyFeatures = []struct {
	version int
	name    string
}{
	{2, "appendOnly"}, {2, "invariants"}, {3, "checkConstraints"}, {4, "changeDataFeed"}, {4, "generatedColumns"},
	{5, "columnMapping"}, {6, "identityColumns"},
}

// hasWriterFeature reports whether the protocol supports a feature, by list or by version.
func (p *Protocol) hasWriterFeature(name string) bool {
	if p.MinWriterVersion >= 7 {
		return slices.Contains(p.WriterFeatures, name)
	}
	for _, f := range legacyFeatures {
		if f.name == name {
			return p.MinWriterVersion >= f.version
		}
	}
	return false
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
		for _, f := range p.ReaderFeatures {
			if !readerFeatures[f] {
				missing = append(missing, f)
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
// (PROTOCOL.md, "Column Mapping").
func columnMappingMode(p *Protocol, m *Metadata) string {
	if m == nil || !p.hasReaderFeature("columnMapping") {
		return "none"
	}
	switch mode := m.Configuration["delta.columnMapping.mode"]; mode {
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
		for _, f := range p.WriterFeatures {
			if !writerFeatures[f] {
				missing[f] = true
			}
		}
	}
	// Supported is not active: a table of protocol 1/4 may never have used what its writer version stands for.
	if columnMappingMode(p, m) != "none" {
		missing["columnMapping"] = true
	}
	if on(m, "delta.enableRowTracking") && !p.hasWriterFeature("rowTracking") {
		missing["rowTracking"] = true
	}
	if s != nil {
		walkFields(s.Fields, func(f *Field) {
			// Constraints, generated columns and defaults are checkRules' to judge.
			if _, ok := f.Metadata["delta.identity.start"]; ok && p.hasWriterFeature("identityColumns") {
				missing["identityColumns"] = true
			}
		})
	}
	if len(missing) > 0 {
		names := make([]string, 0, len(missing))
		for n := range missing {
			names = append(names, n)
		}
		sort.Strings(names)
		return &UnsupportedError{What: "writer feature", Names: names}
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

// protocolFor is the lowest protocol that a new table of this schema and configuration needs.
func protocolFor(s *Schema, config map[string]string) *Protocol {
	var reader, writer []string
	m := &Metadata{Configuration: config}
	if on(m, "delta.enableDeletionVectors") {
		reader = append(reader, "deletionVectors")
	}
	ntz := false
	for i := range s.Fields {
		walkFields(s.Fields[i:i+1], func(f *Field) {
			ntz = ntz || f.Type == TimestampNTZ
			switch t := f.Type.(type) {
			case *Array:
				ntz = ntz || t.Element == TimestampNTZ
			case *Map:
				ntz = ntz || t.Key == TimestampNTZ || t.Value == TimestampNTZ
			}
		})
	}
	if ntz {
		reader = append(reader, "timestampNtz")
	}
	if config["delta.checkpointPolicy"] == "v2" {
		reader = append(reader, "v2Checkpoint")
	}
	if on(m, "delta.enableInCommitTimestamps") {
		writer = append(writer, "inCommitTimestamp")
	}
	if on(m, "delta.enableRowTracking") {
		writer = append(writer, "domainMetadata", "rowTracking")
	}
	if len(reader)+len(writer) == 0 {
		return &Protocol{MinReaderVersion: 1, MinWriterVersion: 2}
	}
	p := &Protocol{MinReaderVersion: 1, MinWriterVersion: 7}
	p.WriterFeatures = append([]string{"appendOnly", "invariants"}, append(reader, writer...)...)
	if len(reader) > 0 {
		p.MinReaderVersion = 3
		p.ReaderFeatures = reader
	}
	return p
}
