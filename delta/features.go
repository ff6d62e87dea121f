package delta

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// feature is a table feature (PROTOCOL.md, "Table Features"): what this package does about it, and what makes a table
// need it. One table holds all of them; protocols are checked, made and raised by it alone.
type feature struct {
	name   string
	reader bool // it stands in readerFeatures, too
	// The old versions that imply it; 0: none does.
	readerVersion, writerVersion int

	read  bool // this package reads tables that have it
	write bool // this package writes them, as far as refuse allows
	needs []string

	// active reports whether schema or properties make use of it, so that the protocol must support it; nil: never.
	active func(m *Metadata, s *Schema) bool
	// refuse reports whether a table uses of it what cannot be written here, although write is set; nil: never.
	refuse func(m *Metadata, s *Schema) bool
}

// features is the table of features, in the order in which protocols list them.
var features = []feature{
	{name: "appendOnly", writerVersion: 2, write: true, active: byProperty(propAppendOnly)},
	{name: "invariants", writerVersion: 2, write: true, active: byColumn(metaInvariant)},
	{name: "checkConstraints", writerVersion: 3, write: true, active: func(m *Metadata, _ *Schema) bool {
		for k := range m.Configuration {
			if strings.HasPrefix(k, constraintPrefix) {
				return true
			}
		}
		return false
	}},
	{name: "changeDataFeed", writerVersion: 4, write: true, active: byProperty(propChangeFeed)},
	{name: "generatedColumns", writerVersion: 4, write: true, active: byColumn(metaGeneration)},
	{name: "columnMapping", reader: true, readerVersion: 2, writerVersion: 5, read: true, write: true, active: func(m *Metadata, _ *Schema) bool {
		return mappingOf(m.Configuration) != mapNone
	}},
	{name: "identityColumns", writerVersion: 6, write: true, active: byColumn(metaIdentity), refuse: byColumn(metaIdentity)},
	{name: "allowColumnDefaults", write: true, active: byColumn(metaDefault)},
	{name: "deletionVectors", reader: true, read: true, write: true, active: byProperty(propDeletionVectors)},
	{name: "timestampNtz", reader: true, read: true, write: true, active: byType(TimestampNTZ)},
	{name: "typeWidening", reader: true, read: true, write: true, active: byProperty(propTypeWidening)},
	{name: "typeWidening-preview", reader: true, read: true},
	{name: "domainMetadata", write: true},
	{name: "clustering", write: true, needs: []string{"domainMetadata"}},
	{name: "v2Checkpoint", reader: true, read: true, write: true, active: func(m *Metadata, _ *Schema) bool {
		return strings.EqualFold(m.Configuration[propCheckpointPolicy], "v2")
	}},
	{name: "inCommitTimestamp", write: true, active: byProperty(propICT)},
	{name: featureRowTracking, write: true, needs: []string{"domainMetadata"}, active: byProperty(propRowTracking)},
	{name: "vacuumProtocolCheck", reader: true, read: true, write: true},
	{name: "variantType", reader: true, read: true, active: byType(Variant)},
	{name: "variantType-preview", reader: true, read: true},
	{name: "variantShredding", reader: true, read: true, active: byProperty("delta.enableVariantShredding")},
	{name: "variantShredding-preview", reader: true, read: true},
	{name: "icebergCompatV1", needs: []string{"columnMapping"}, active: byProperty("delta.enableIcebergCompatV1")},
	{name: "icebergCompatV2", needs: []string{"columnMapping"}, active: byProperty("delta.enableIcebergCompatV2")},
}

// featureNamed finds a feature by its name, in any case.
func featureNamed(name string) (*feature, bool) {
	for i := range features {
		if strings.EqualFold(features[i].name, name) {
			return &features[i], true
		}
	}
	return nil, false
}

// featureOf is a feature that is in the table of features.
func featureOf(name string) *feature {
	f, ok := featureNamed(name)
	if !ok {
		panic("BUG: no feature " + name)
	}
	return f
}

func byProperty(name string) func(*Metadata, *Schema) bool {
	return func(m *Metadata, _ *Schema) bool { return on(m, name) }
}

// byColumn is for features of which the metadata of a column tells.
func byColumn(key string) func(*Metadata, *Schema) bool {
	return func(_ *Metadata, s *Schema) (found bool) {
		if s != nil {
			walkFields(s.Fields, func(f *Field) {
				_, ok := f.Metadata[key]
				found = found || ok
			})
		}
		return found
	}
}

// byType is for features of which a type tells, wherever it stands.
func byType(t Type) func(*Metadata, *Schema) bool {
	return func(_ *Metadata, s *Schema) (found bool) {
		if s != nil {
			walkTypes(s.Fields, func(x Type) { found = found || x == t })
		}
		return found
	}
}

// walkTypes calls f for the type of every field, and for those of elements, keys and values.
func walkTypes(fields []Field, f func(Type)) {
	var walk func(Type)
	walk = func(t Type) {
		f(t)
		switch t := t.(type) {
		case *Struct:
			walkTypes(t.Fields, f)
		case *Array:
			walk(t.Element)
		case *Map:
			walk(t.Key)
			walk(t.Value)
		}
	}
	for i := range fields {
		walk(fields[i].Type)
	}
}

// supports reports whether the protocol supports a feature, by list or by version.
func (p *Protocol) supports(f *feature) bool {
	writer := slices.Contains(p.WriterFeatures, f.name)
	if p.MinWriterVersion < 7 {
		writer = f.writerVersion > 0 && p.MinWriterVersion >= f.writerVersion
	}
	return writer && (!f.reader || p.hasReaderFeature(f.name))
}

// Features names, in order, the features that the protocol lists or that its versions stand for.
func (p Protocol) Features() []string {
	p.listFeatures(p.MinReaderVersion)
	out := slices.Concat(p.ReaderFeatures, p.WriterFeatures)
	slices.Sort(out)
	return slices.Compact(out)
}

// FeatureDeletionVectors is the name of the feature of tables whose files may have deletion vectors.
const FeatureDeletionVectors = "deletionVectors"

// With is the protocol raised by the least that supports a feature of this package.
func (p Protocol) With(name string) Protocol {
	if up := p.raised(featureOf(name)); up != nil {
		return *up
	}
	return p
}

// raised is the protocol raised by the least that supports a feature and those that it needs: nil if it does already.
func (p *Protocol) raised(f *feature) *Protocol {
	cur := p
	for _, n := range f.needs {
		if need, ok := featureNamed(n); ok {
			if up := cur.raised(need); up != nil {
				cur = up
			}
		}
	}
	if cur.supports(f) {
		if cur == p {
			return nil
		}
		return cur
	}
	n := *cur
	n.ReaderFeatures, n.WriterFeatures = slices.Clone(cur.ReaderFeatures), slices.Clone(cur.WriterFeatures)
	if f.writerVersion > 0 && n.MinWriterVersion < 7 {
		n.MinWriterVersion = max(n.MinWriterVersion, f.writerVersion)
	} else {
		n.listFeatures(n.MinReaderVersion)
		if !slices.Contains(n.WriterFeatures, f.name) {
			n.WriterFeatures = append(n.WriterFeatures, f.name)
		}
	}
	if !f.reader {
		return &n
	}
	if f.readerVersion > 0 && n.MinReaderVersion < 3 {
		n.MinReaderVersion = max(n.MinReaderVersion, f.readerVersion)
		return &n
	}
	n.listFeatures(3)
	if !slices.Contains(n.ReaderFeatures, f.name) {
		n.ReaderFeatures = append(n.ReaderFeatures, f.name)
	}
	return &n
}

// listFeatures turns what versions imply into lists: the writer's, and the reader's from reader version 3 on
// (PROTOCOL.md, "Table Features": whoever raises the version to 7 lists all that the old one stood for).
func (p *Protocol) listFeatures(reader int) {
	if p.MinWriterVersion < 7 {
		p.WriterFeatures = nil
		for _, f := range features {
			if f.writerVersion > 0 && p.MinWriterVersion >= f.writerVersion {
				p.WriterFeatures = append(p.WriterFeatures, f.name)
			}
		}
		p.MinWriterVersion = 7
	}
	if reader >= 3 && p.MinReaderVersion < 3 {
		p.ReaderFeatures = nil
		for _, f := range features {
			if f.readerVersion > 0 && p.MinReaderVersion >= f.readerVersion && slices.Contains(p.WriterFeatures, f.name) {
				p.ReaderFeatures = append(p.ReaderFeatures, f.name)
			}
		}
		p.MinReaderVersion = 3
	}
}

// raisedFor is the protocol raised by the least that schema and properties need; nil if it supports all of that.
func (p *Protocol) raisedFor(m *Metadata, s *Schema) *Protocol {
	var need []*feature
	lists := false
	for i := range features {
		f := &features[i]
		if f.active == nil || !f.active(m, s) || p.supports(f) {
			continue
		}
		// Tables of the preview have the feature under its other name.
		if pre, ok := featureNamed(f.name + "-preview"); ok && p.supports(pre) {
			continue
		}
		need = append(need, f)
		lists = lists || f.writerVersion == 0
	}
	cur := p
	if lists && p.MinWriterVersion < 7 {
		// Lists before versions: a version would imply features that nothing needs.
		n := *p
		n.listFeatures(n.MinReaderVersion)
		cur = &n
	}
	for _, f := range need {
		if up := cur.raised(f); up != nil {
			cur = up
		}
	}
	if cur == p {
		return nil
	}
	return cur
}

// featureProperty is the prefix of pseudo-properties that ask for a feature; they are never stored.
const featureProperty = "delta.feature."

// takeFeatureProperties moves what properties say of the protocol (delta.feature.NAME = supported, delta.minReaderVersion,
// delta.minWriterVersion) out of config into a protocol; nil if that changes nothing.
func takeFeatureProperties(config map[string]string, p *Protocol) (*Protocol, error) {
	cur := p
	for _, k := range sortedKeys(config) {
		v := config[k]
		switch {
		case strings.HasPrefix(strings.ToLower(k), featureProperty):
			delete(config, k)
			name := k[len(featureProperty):]
			f, ok := featureNamed(name)
			if !ok || !f.write {
				return nil, &UnsupportedError{What: "table feature to write", Names: []string{name}}
			}
			if v != "supported" && v != "enabled" {
				return nil, fmt.Errorf("%w: %s=%q: must be supported", ErrProperty, k, v)
			}
			if up := cur.raised(f); up != nil {
				cur = up
			}
		case k == propMinReader || k == propMinWriter:
			delete(config, k)
			n, err := strconv.Atoi(v)
			if most := map[string]int{propMinReader: 3, propMinWriter: 7}[k]; err != nil || n < 1 || n > most {
				return nil, fmt.Errorf("%w: %s=%q: must be a version from 1 to %d", ErrProperty, k, v, most)
			}
			up := *cur
			up.ReaderFeatures, up.WriterFeatures = slices.Clone(cur.ReaderFeatures), slices.Clone(cur.WriterFeatures)
			switch reader := k == propMinReader; {
			case reader && n <= up.MinReaderVersion, !reader && n <= up.MinWriterVersion:
				continue // a protocol is only ever raised
			case reader && n == 3:
				up.listFeatures(3)
			case !reader && n == 7:
				up.listFeatures(up.MinReaderVersion)
			case reader:
				up.MinReaderVersion = n
			default:
				up.MinWriterVersion = n
			}
			cur = &up
		}
	}
	if cur == p {
		return nil, nil
	}
	return cur, nil
}
