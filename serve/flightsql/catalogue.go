package flightsql

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight"
	fsql "github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql/schema_ref"

	"github.com/cauce-data/cauce/serve"
)

// command answers GetFlightInfo of a call of the catalogue: its ticket is the command itself.
func (s *Server) command(desc *flight.FlightDescriptor, columns *arrow.Schema) (*flight.FlightInfo, error) {
	return &flight.FlightInfo{
		Schema: flight.SerializeSchema(columns, s.Alloc), FlightDescriptor: desc, Endpoint: []*flight.FlightEndpoint{{Ticket: &flight.Ticket{Ticket: desc.GetCmd()}}},
		TotalRecords: -1, TotalBytes: -1,
	}, nil
}

// batch gives the rows that fill makes as a stream.
func (s *Server) batch(columns *arrow.Schema, fill func(b *array.RecordBuilder)) (*arrow.Schema, <-chan flight.StreamChunk, error) {
	b := array.NewRecordBuilder(s.Alloc, columns)
	defer b.Release()
	fill(b)
	out := make(chan flight.StreamChunk, 1)
	out <- flight.StreamChunk{Data: b.NewRecordBatch()}
	close(out)
	return columns, out, nil
}

func none(*array.RecordBuilder) {}

func put(b *array.RecordBuilder, i int, v string) { b.Field(i).(*array.StringBuilder).Append(v) }

// like matches a name with a pattern of LIKE; \ escapes.
func like(pattern, name string) bool {
	p, n := []rune(pattern), []rune(name)
	// at[j]: the pattern so far matches n[:j]
	at := make([]bool, len(n)+1)
	at[0] = true
	for i := 0; i < len(p); i++ {
		next := make([]bool, len(n)+1)
		c := p[i]
		escaped := c == '\\' && i+1 < len(p)
		if escaped {
			i++
			c = p[i]
		}
		switch {
		case !escaped && c == '%':
			seen := false
			for j := range next {
				seen = seen || at[j]
				next[j] = seen
			}
		default:
			for j, r := range n {
				next[j+1] = at[j] && (r == c || !escaped && c == '_')
			}
		}
		at = next
	}
	return at[len(n)]
}

func matches(pattern *string, name string) bool { return pattern == nil || like(*pattern, name) }

// ours tells whether a call asks about the one catalogue.
func ours(catalog *string) bool { return catalog == nil || *catalog == serve.Database }

// GetFlightInfoCatalogs implements the call GetCatalogs.
func (s *Server) GetFlightInfoCatalogs(_ context.Context, desc *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	return s.command(desc, schema_ref.Catalogs)
}

// DoGetCatalogs gives the one database.
func (s *Server) DoGetCatalogs(context.Context) (*arrow.Schema, <-chan flight.StreamChunk, error) {
	return s.batch(schema_ref.Catalogs, func(b *array.RecordBuilder) { put(b, 0, serve.Database) })
}

// GetFlightInfoSchemas implements the call GetDbSchemas.
func (s *Server) GetFlightInfoSchemas(_ context.Context, _ fsql.GetDBSchemas, desc *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	return s.command(desc, schema_ref.DBSchemas)
}

// DoGetDBSchemas gives the schemas with the lake's tables and views.
func (s *Server) DoGetDBSchemas(_ context.Context, q fsql.GetDBSchemas) (*arrow.Schema, <-chan flight.StreamChunk, error) {
	return s.batch(schema_ref.DBSchemas, func(b *array.RecordBuilder) {
		for _, name := range []string{serve.SchemaLake, serve.SchemaPublic} {
			if ours(q.GetCatalog()) && matches(q.GetDBSchemaFilterPattern(), name) {
				put(b, 0, serve.Database)
				put(b, 1, name)
			}
		}
	})
}

// relations lists what the caller sees, by schema and name, as the protocol orders tables.
func (s *Server) relations(ctx context.Context) ([]serve.Relation, error) {
	list, err := s.o.Backend.Relations(ctx, roleOf(ctx))
	slices.SortFunc(list, func(a, b serve.Relation) int {
		return cmp.Or(strings.Compare(a.Schema, b.Schema), strings.Compare(a.Name, b.Name))
	})
	return list, statusOf(err)
}

// Kinds of relations.
const (
	kindTable = "TABLE"
	kindView  = "VIEW"
)

func kindOf(r serve.Relation) string {
	if r.View {
		return kindView
	}
	return kindTable
}

func tablesColumns(q fsql.GetTables) *arrow.Schema {
	if q.GetIncludeSchema() {
		return schema_ref.TablesWithIncludedSchema
	}
	return schema_ref.Tables
}

// GetFlightInfoTables implements the call GetTables.
func (s *Server) GetFlightInfoTables(_ context.Context, q fsql.GetTables, desc *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	return s.command(desc, tablesColumns(q))
}

// DoGetTables gives the tables and views that the caller's role sees.
func (s *Server) DoGetTables(ctx context.Context, q fsql.GetTables) (*arrow.Schema, <-chan flight.StreamChunk, error) {
	list, err := s.relations(ctx)
	if err != nil {
		return nil, nil, err
	}
	return s.batch(tablesColumns(q), func(b *array.RecordBuilder) {
		for _, r := range list {
			if !ours(q.GetCatalog()) || !matches(q.GetDBSchemaFilterPattern(), r.Schema) || !matches(q.GetTableNameFilterPattern(), r.Name) ||
				len(q.GetTableTypes()) > 0 && !slices.Contains(q.GetTableTypes(), kindOf(r)) {
				continue
			}
			for i, v := range []string{serve.Database, r.Schema, r.Name, kindOf(r)} {
				put(b, i, v)
			}
			if q.GetIncludeSchema() {
				fields := slices.Clone(r.Arrow.Fields())
				for i := range fields {
					m := fsql.NewColumnMetadataBuilder().CatalogName(serve.Database).SchemaName(r.Schema).TableName(r.Name).IsReadOnly(true)
					if t, ok := fields[i].Type.(*arrow.Decimal128Type); ok {
						m = m.Precision(t.Precision).Scale(t.Scale)
					}
					fields[i].Metadata = m.Metadata()
				}
				b.Field(4).(*array.BinaryBuilder).Append(flight.SerializeSchema(arrow.NewSchema(fields, nil), s.Alloc))
			}
		}
	})
}

// GetFlightInfoTableTypes implements the call GetTableTypes.
func (s *Server) GetFlightInfoTableTypes(_ context.Context, desc *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	return s.command(desc, schema_ref.TableTypes)
}

// DoGetTableTypes gives the kinds of relations.
func (s *Server) DoGetTableTypes(context.Context) (*arrow.Schema, <-chan flight.StreamChunk, error) {
	return s.batch(schema_ref.TableTypes, func(b *array.RecordBuilder) {
		put(b, 0, kindTable)
		put(b, 0, kindView)
	})
}

// GetFlightInfoPrimaryKeys implements the call GetPrimaryKeys.
func (s *Server) GetFlightInfoPrimaryKeys(_ context.Context, _ fsql.TableRef, desc *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	return s.command(desc, schema_ref.PrimaryKeys)
}

// DoGetPrimaryKeys gives the key of the lake file.
func (s *Server) DoGetPrimaryKeys(ctx context.Context, q fsql.TableRef) (*arrow.Schema, <-chan flight.StreamChunk, error) {
	list, err := s.relations(ctx)
	if err != nil {
		return nil, nil, err
	}
	return s.batch(schema_ref.PrimaryKeys, func(b *array.RecordBuilder) {
		for _, r := range list {
			if !ours(q.Catalog) || q.DBSchema != nil && *q.DBSchema != r.Schema || !strings.EqualFold(q.Table, r.Name) {
				continue
			}
			for i, k := range r.Key {
				for j, v := range []string{serve.Database, r.Schema, r.Name, k} {
					put(b, j, v)
				}
				b.Field(4).(*array.Int32Builder).Append(int32(i + 1))
				put(b, 5, r.Name+"_pkey")
			}
		}
	})
}

// GetFlightInfoExportedKeys implements the call GetExportedKeys.
func (s *Server) GetFlightInfoExportedKeys(_ context.Context, _ fsql.TableRef, desc *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	return s.command(desc, schema_ref.ExportedKeys)
}

// DoGetExportedKeys gives none: there are no foreign keys.
func (s *Server) DoGetExportedKeys(context.Context, fsql.TableRef) (*arrow.Schema, <-chan flight.StreamChunk, error) {
	return s.batch(schema_ref.ExportedKeys, none)
}

// GetFlightInfoImportedKeys implements the call GetImportedKeys.
func (s *Server) GetFlightInfoImportedKeys(_ context.Context, _ fsql.TableRef, desc *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	return s.command(desc, schema_ref.ImportedKeys)
}

// DoGetImportedKeys gives none: there are no foreign keys.
func (s *Server) DoGetImportedKeys(context.Context, fsql.TableRef) (*arrow.Schema, <-chan flight.StreamChunk, error) {
	return s.batch(schema_ref.ImportedKeys, none)
}

// GetFlightInfoCrossReference implements the call GetCrossReference.
func (s *Server) GetFlightInfoCrossReference(_ context.Context, _ fsql.CrossTableRef, desc *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	return s.command(desc, schema_ref.CrossReference)
}

// DoGetCrossReference gives none: there are no foreign keys.
func (s *Server) DoGetCrossReference(context.Context, fsql.CrossTableRef) (*arrow.Schema, <-chan flight.StreamChunk, error) {
	return s.batch(schema_ref.CrossReference, none)
}
