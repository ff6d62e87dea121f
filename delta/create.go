package delta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cauce-data/cauce/objstore"
)

// CreateOptions describe a new table.
type CreateOptions struct {
	Schema            *Schema
	PartitionBy       []string // columns of Schema, not all of them
	ClusterBy         []string // columns of Schema; not together with PartitionBy
	Config            map[string]string
	Name, Description string
	IfNotExists       bool // open a table that exists, whatever it is like
}

// Create makes an empty table. ErrTableExists if there is one, unless IfNotExists. The protocol is the lowest that
// schema and configuration need.
func Create(ctx context.Context, store objstore.Store, path string, c CreateOptions, opts *Options) (*Table, error) {
	t := newTable(store, path, opts)
	if err := checkIsolationOption(t.opts.Isolation); err != nil {
		return nil, err
	}
	if err := checkSchema(c.Schema, c.PartitionBy, mappingOf(c.Config) != mapNone); err != nil {
		return nil, err
	}
	config := maps.Clone(c.Config)
	if config == nil {
		config = map[string]string{}
	}
	protocol, err := protocolFor(c.Schema, config)
	if err != nil {
		return nil, err
	}
	if len(c.ClusterBy) > 0 {
		if len(c.PartitionBy) > 0 {
			return nil, &AlterError{Class: "DELTA_CLUSTER_BY_WITH_PARTITIONED_BY", Reason: "a table is partitioned or clustered, not both"}
		}
		if up := protocol.raised(featureOf("clustering")); up != nil {
			protocol = up
		}
	}
	if err := checkProperties(config); err != nil {
		return nil, err
	}
	switch _, err := t.Snapshot(ctx); {
	case err == nil && c.IfNotExists:
		return t, nil
	case err == nil:
		return nil, fmt.Errorf("%s: %w", t, ErrTableExists)
	case !errors.Is(err, ErrNotATable):
		return nil, err
	}
	now := t.opts.Clock().UnixMilli()
	partitions := make([]string, len(c.PartitionBy))
	for i, p := range c.PartitionBy {
		f, _ := c.Schema.Field(p)
		partitions[i] = f.Name
	}
	if on(&Metadata{Configuration: config}, propRowTracking) {
		nameRowIDColumns(config, t.opts.NewID)
	}
	x := t.Begin(&Snapshot{table: t, version: -1, txns: map[string]Txn{}, domains: map[string]DomainMetadata{}})
	schema := c.Schema
	if mappingOf(config) != mapNone {
		schema = &Schema{Fields: mapFields(schema.Fields, config, false, t.opts.NewID)}
		if err := checkMapping(schema); err != nil {
			return nil, err
		}
	} else {
		schema = &Schema{Fields: unmapFields(schema.Fields)}
	}
	x.SetProtocol(*protocol)
	x.SetMetadata(Metadata{
		ID: t.opts.NewID(), Name: c.Name, Description: c.Description, Format: Format{Provider: "parquet"},
		SchemaString: schema.JSON(), PartitionColumns: partitions, Configuration: config, CreatedTime: &now,
	})
	if err := t.startRules(x, schema, config); err != nil {
		return nil, err
	}
	if len(c.ClusterBy) > 0 {
		d, err := clusteringOf(schema, partitions, c.ClusterBy)
		if err != nil {
			return nil, err
		}
		x.SetDomain(d)
	}
	_, err = x.Commit(ctx, CommitOptions{Operation: "CREATE TABLE", Parameters: map[string]string{
		"clusterBy":   quoteJSON(c.ClusterBy),
		"partitionBy": jsonText(partitions), "properties": jsonText(config), "description": jsonText(c.Description), "isManaged": "false",
	}})
	if errors.Is(err, ErrTableExists) && c.IfNotExists {
		_, err = t.Snapshot(ctx)
	}
	if err != nil {
		return nil, err
	}
	return t, nil
}

func jsonText(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic("BUG: " + err.Error()) // strings, lists and maps of strings only
	}
	return string(b)
}

// checkSchema refuses a schema that no table may have.
func checkSchema(s *Schema, partitionBy []string, mapped bool) error {
	if s == nil || len(s.Fields) == 0 {
		return fmt.Errorf("%w: a table needs a column", ErrSchema)
	}
	seen := map[string]bool{}
	for _, f := range s.Fields {
		low := strings.ToLower(f.Name)
		if f.Name == "" || seen[low] {
			return fmt.Errorf("%w: column %q is empty or stands twice", ErrSchema, f.Name)
		}
		seen[low] = true
		if f.Type == nil {
			return fmt.Errorf("%w: column %q has no type", ErrSchema, f.Name)
		}
	}
	if err := checkNewFields(s.Fields, mapped); err != nil {
		return err
	}
	var used []string
	for _, p := range partitionBy {
		f, ok := s.Field(p)
		if !ok {
			return fmt.Errorf("%w: partition column %q is not in the schema", ErrSchema, p)
		}
		switch f.Type.(type) {
		case *Struct, *Array, *Map:
			return fmt.Errorf("%w: partition column %q has type %s; it must not be nested", ErrSchema, p, f.Type)
		}
		if slices.Contains(used, f.Name) {
			return fmt.Errorf("%w: partition column %q stands twice", ErrSchema, p)
		}
		used = append(used, f.Name)
	}
	if len(used) == len(s.Fields) {
		return fmt.Errorf("%w: a table needs a column that is no partition column", ErrSchema)
	}
	return nil
}

// unmappedForbidden are the characters that a name has only where columns are mapped.
const unmappedForbidden = " ,;{}()\n\t="

// checkNewFields refuses fields that no table of ours gets, those inside of structs, arrays and maps included.
func checkNewFields(fields []Field, mapped bool) error {
	var bad error
	walkFields(fields, func(f *Field) {
		if bad == nil && f.Name == "" {
			bad = fmt.Errorf("%w: a field without a name", ErrSchema)
		}
		if bad == nil && f.Type == nil {
			bad = fmt.Errorf("%w: column %q has no type", ErrSchema, f.Name)
		}
		// Parquet as Spark reads it cannot have these in names unless columns are mapped.
		if bad == nil && !mapped && strings.ContainsAny(f.Name, unmappedForbidden) {
			bad = fmt.Errorf("%w: column %q: a name must not have any of \" ,;{}()=\", tab or line break", ErrSchema, f.Name)
		}
		if bad == nil && (f.Type == Void || f.Type == Variant) {
			bad = &UnsupportedError{What: "type in a new table", Names: []string{f.Type.String() + " (column " + f.Name + ")"}}
		}
	})
	return bad
}
