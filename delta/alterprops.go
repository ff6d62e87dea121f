package delta

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// ownProperties are kept by writers; nobody sets them.
var ownProperties = map[string]bool{
	propMaxColumnID: true, propICTVersion: true, propICTTime: true,
	propRowIDColumn: true, propRowVersionColumn: true,
	"delta.requireCheckpointProtectionBeforeVersion": true,
}

// SetProperties sets properties of the table. A property that a table feature hangs on raises the protocol by the least
// that supports it; delta.feature.NAME = supported, delta.minReaderVersion and delta.minWriterVersion do that alone and
// are not stored. ErrProperty for a delta.* property that is not known or has a bad value, ErrAlter for one that cannot
// change so.
func (t *Table) SetProperties(ctx context.Context, properties map[string]string, o AlterOptions) (*AlterResult, error) {
	tracked := false
	for k, v := range properties {
		// The rows there are get their ids in commits before the one that sets the property.
		if canonicalProperty(k) == propRowTracking && strings.EqualFold(v, "true") && !o.DryRun {
			s, err := t.Snapshot(ctx)
			if err != nil {
				return nil, err
			}
			v, err := t.EnableRowTracking(ctx)
			if err != nil {
				return nil, err
			}
			tracked = v != s.Version()
		}
	}
	res, err := t.alter(ctx, o, func(s *Snapshot) (*alteration, error) {
		set := map[string]string{}
		for k, v := range properties {
			set[canonicalProperty(k)] = v
		}
		told := plainJSON(set)
		protocol, err := takeFeatureProperties(set, s.protocol)
		if err != nil {
			return nil, err
		}
		if protocol == nil {
			protocol = s.protocol
		}
		meta := *s.metadata
		meta.Configuration = maps.Clone(meta.Configuration)
		if meta.Configuration == nil {
			meta.Configuration = map[string]string{}
		}
		schema := s.schema
		for _, k := range sortedKeys(set) {
			if was, ok := meta.Configuration[k]; ok && was == set[k] {
				continue
			}
			if err := s.checkSettable(k, set[k]); err != nil {
				return nil, err
			}
			meta.Configuration[k] = set[k]
		}
		if err := checkProperties(set); err != nil {
			return nil, err
		}
		if mode := mappingOf(meta.Configuration); mode != mapNone && !s.mapped() {
			// PROTOCOL.md, "Column Mapping": files there are have the columns under their names.
			schema = &Schema{Fields: mapFields(unmapFields(schema.Fields), meta.Configuration, true, t.opts.NewID)}
			if err := checkMapping(schema); err != nil {
				return nil, err
			}
			meta.SchemaString = schema.JSON()
		}
		if up := protocol.raisedFor(&meta, schema); up != nil {
			protocol = up
		}
		a := &alteration{operation: "SET TBLPROPERTIES", params: map[string]string{"properties": told}}
		if !maps.Equal(meta.Configuration, s.metadata.Configuration) {
			a.metadata = &meta
		}
		if protocol != s.protocol {
			a.protocol = protocol
		}
		switch {
		case a.metadata == nil && a.protocol == nil:
			return &alteration{}, nil
		case len(set) == 0:
			a.operation, a.params = "UPGRADE PROTOCOL", map[string]string{"newProtocol": plainJSON(a.protocol)}
		}
		return a, nil
	})
	if err == nil {
		res.Committed = res.Committed || tracked
	}
	return res, err
}

// canonicalProperty gives a delta.* property the spelling that the protocol has for it.
func canonicalProperty(name string) string {
	for k := range properties {
		if strings.EqualFold(k, name) {
			return k
		}
	}
	for _, k := range []string{propMinReader, propMinWriter} {
		if strings.EqualFold(k, name) {
			return k
		}
	}
	return name
}

// checkSettable refuses to set a property that is not the user's to set, or not so.
func (s *Snapshot) checkSettable(name, value string) error {
	switch {
	case ownProperties[name]:
		return &AlterError{Class: "DELTA_CANNOT_MODIFY_TABLE_PROPERTY", Column: name, Reason: "writers keep this property themselves"}
	case strings.HasPrefix(strings.ToLower(name), constraintPrefix):
		return &AlterError{Class: "DELTA_ADD_CONSTRAINTS", Column: name, Reason: "use ALTER TABLE … ADD CONSTRAINT and DROP CONSTRAINT"}
	case name == propMappingMode:
		is := columnMappingMode(s.protocol, s.metadata)
		switch {
		case is == value:
		case is != "none" && value == "none":
			return &AlterError{Class: "DELTA_UNSUPPORTED_COLUMN_MAPPING_MODE_CHANGE", Column: name,
				Reason: "ALTER TABLE … DROP FEATURE columnMapping ends the mapping, which rewrites the table"}
		case is != "none" || value == "id":
			return &AlterError{Class: "DELTA_UNSUPPORTED_COLUMN_MAPPING_MODE_CHANGE", Column: name,
				Reason: fmt.Sprintf("the mode cannot go from %s to %s; a table there is can only go from none to name", is, value)}
		}
	case name == propChangeFeed && strings.EqualFold(value, "true"):
		for _, c := range []string{ChangeTypeColumn, "_commit_version", "_commit_timestamp"} {
			if _, ok := s.schema.Field(c); ok {
				return &AlterError{Class: "RESERVED_CDC_COLUMNS_ON_WRITE", Column: c, Reason: "the change data feed has a column of this name; rename the table's first"}
			}
		}
	}
	return nil
}

// UnsetProperties takes properties away from the table. ErrProperty for one that is not set, unless ifExists.
func (t *Table) UnsetProperties(ctx context.Context, names []string, ifExists bool, o AlterOptions) (*AlterResult, error) {
	return t.alter(ctx, o, func(s *Snapshot) (*alteration, error) {
		meta := *s.metadata
		meta.Configuration = maps.Clone(meta.Configuration)
		var told []string
		for _, n := range names {
			n = canonicalProperty(n)
			told = append(told, n)
			if _, ok := meta.Configuration[n]; !ok {
				if !ifExists {
					return nil, fmt.Errorf("%w: %q is not set (DELTA_UNSET_NON_EXISTENT_PROPERTY)", ErrProperty, n)
				}
				continue
			}
			value := ""
			if n == propMappingMode {
				value = "none"
			}
			if err := s.checkSettable(n, value); err != nil {
				return nil, err
			}
			delete(meta.Configuration, n)
		}
		if len(meta.Configuration) == len(s.metadata.Configuration) {
			return &alteration{}, nil
		}
		return &alteration{operation: "UNSET TBLPROPERTIES", metadata: &meta,
			params: map[string]string{"properties": plainJSON(told), "ifExists": fmt.Sprint(ifExists)}}, nil
	})
}

// SetClusterBy has the table clustered by columns from now on, by none if there are none: OPTIMIZE clusters (see
// OptimizeOptions.Full). ErrAlter for a partitioned table.
func (t *Table) SetClusterBy(ctx context.Context, columns []string, o AlterOptions) (*AlterResult, error) {
	return t.alter(ctx, o, func(s *Snapshot) (*alteration, error) {
		if len(s.metadata.PartitionColumns) > 0 {
			return nil, &AlterError{Class: "DELTA_ALTER_TABLE_CLUSTER_BY_ON_PARTITIONED_TABLE_NOT_ALLOWED", Reason: "a table is partitioned or clustered, not both"}
		}
		old, unknown := s.ClusterBy() // what cannot be read is replaced
		d, err := clusteringOf(s.stored, nil, columns)
		if err != nil {
			return nil, err
		}
		var names []string
		for _, c := range columns {
			f, _ := s.schema.Field(c)
			names = append(names, f.Name)
		}
		if _, is := s.Domain(clusteringDomain); unknown == nil && slices.Equal(names, old) && (is || len(columns) == 0) {
			return &alteration{}, nil
		}
		return &alteration{operation: "CLUSTER BY", domain: &d, protocol: s.protocol.raised(featureOf("clustering")),
			params: map[string]string{"oldClusteringColumns": strings.Join(old, ","), "newClusteringColumns": strings.Join(names, ",")}}, nil
	})
}
