package serve

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/cauce-data/cauce/catalog"
	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/engine/duckdb"
	"github.com/cauce-data/cauce/serve/pgcatalog"
	"github.com/cauce-data/cauce/serve/worker"
)

// CatalogueType gives the object identifier of the type of a column of PostgreSQL's catalogue, by the column's name, where it
// is one that DuckDB does not have: oid, name, "char" …
func CatalogueType(column string) (uint32, bool) {
	return pgcatalog.ColumnTypeOID(strings.ToLower(column))
}

// catalogue adds to a request what the worker needs of PostgreSQL's catalogue.
func (r *resolver) catalogue(q *worker.Request) {
	switch {
	case r.usesCatalogue:
		q.Key, q.Install = r.cat.Key, append(pgcatalog.Language(), r.cat.Install(r.s.b.o.CatalogueDir)...)
	case r.usesLanguage:
		q.Key, q.Install = pgcatalog.LanguageSchema, pgcatalog.Language()
	}
}

// languageCall makes the tree of a call of one of the functions that mean what PostgreSQL means.
func (r *resolver) languageCall(name string, args ...any) duckdb.Node {
	r.usesLanguage = true
	return function(pgcatalog.LanguageSchema, name, args...)
}

// needCatalogue gives the catalogue of what the session's role sees. It is made at most once for a statement.
func (r *resolver) needCatalogue() (*pgcatalog.Catalogue, error) {
	r.usesCatalogue = true
	if r.cat != nil {
		return r.cat, nil
	}
	relations, err := r.s.b.relations(r.ctx, r.s.Role, r.s.snapshot)
	if err != nil {
		return nil, err
	}
	own, err := r.s.tempRelations(r.ctx)
	if err != nil {
		return nil, err
	}
	relations = append(relations, own...)
	key := fmt.Sprint(r.s.Role.Name, relations)
	b := r.s.b
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.cat = b.catalogues[key]; r.cat != nil {
		return r.cat, nil
	}
	if r.cat, err = pgcatalog.New(Database, r.s.Role.Name, relations); err != nil {
		return nil, err
	}
	if len(b.catalogues) >= cataloguesMax {
		clear(b.catalogues)
	}
	b.catalogues[key] = r.cat
	return r.cat, nil
}

// cataloguesMax bounds the catalogues that are remembered; another one is made in a millisecond.
const cataloguesMax = 100

// relations lists what the catalogue shows beside PostgreSQL's own.
func (b *Backend) relations(ctx context.Context, r *Role, at func(ctx context.Context, name string) (*delta.Snapshot, error)) ([]pgcatalog.Relation, error) {
	shapes, err := b.shapes(ctx, r, at)
	if err != nil {
		return nil, err
	}
	var out []pgcatalog.Relation
	for _, s := range shapes {
		rel := pgcatalog.Relation{Schema: SchemaPublic, Name: s.name, Comment: s.comment, Key: s.key, Rows: roughly(s.rows), Bytes: roughly(s.bytes)}
		for _, f := range s.fields {
			oid, mod := postgresType(f.Type)
			comment, _ := f.Metadata["comment"].(string)
			rel.Columns = append(rel.Columns, pgcatalog.Column{Name: f.Name, Type: oid, Modifier: mod, NotNull: !f.Nullable, Comment: comment})
		}
		out = append(out, rel)
		if s.name == catalog.Quarantine {
			rel.Schema, rel.View, rel.Key, rel.Definition = SchemaLake, true, nil, " SELECT * FROM public."+catalog.Quarantine+";"
			out = append(out, rel)
		}
	}
	for _, v := range b.views(r) {
		rel := pgcatalog.Relation{Schema: SchemaPublic, Name: v.Name, View: true, Comment: v.Comment, Definition: " " + v.SQL + ";", Rows: -1}
		if !r.Whole() { // it names what the role does not see
			rel.Definition = " SELECT * FROM public." + v.Name + ";"
		}
		for _, f := range v.Columns {
			oid, mod := postgresType(f.Type)
			rel.Columns = append(rel.Columns, pgcatalog.Column{Name: f.Name, Type: oid, Modifier: mod})
		}
		out = append(out, rel)
	}
	for name, v := range systemViews {
		rel := pgcatalog.Relation{Schema: SchemaLake, Name: name, View: true, Comment: v.comment, Definition: " SELECT * FROM lake." + name + ";"}
		for _, f := range v.fields {
			oid := uint32(25)
			switch f.Type.ID() {
			case arrow.INT64:
				oid = 20
			case arrow.TIMESTAMP:
				oid = 1184
			}
			rel.Columns = append(rel.Columns, pgcatalog.Column{Name: f.Name, Type: oid, Modifier: -1})
		}
		out = append(out, rel)
	}
	slices.SortFunc(out, func(a, b pgcatalog.Relation) int { return strings.Compare(a.Schema+"."+a.Name, b.Schema+"."+b.Name) })
	return out, nil
}

// roughly gives the first two digits of n: sizes in the catalogue are estimates, and each other catalogue has to be made.
func roughly(n int64) int64 {
	unit := int64(1)
	for n/unit >= 100 {
		unit *= 10
	}
	return n / unit * unit
}

// postgresType gives the object identifier and modifier of PostgreSQL's type for one of Delta's.
func postgresType(t delta.Type) (oid uint32, modifier int32) {
	switch t := t.(type) {
	case delta.Decimal:
		return 1700, (int32(t.P)<<16 | int32(t.S)) + 4
	case *delta.Array:
		if elem, _ := postgresType(t.Element); pgcatalog.ArrayOID(elem) != 0 {
			return pgcatalog.ArrayOID(elem), -1
		}
		return 114, -1
	}
	switch t {
	case delta.Boolean:
		return 16, -1
	case delta.Byte, delta.Short:
		return 21, -1
	case delta.Integer:
		return 23, -1
	case delta.Long:
		return 20, -1
	case delta.Float:
		return 700, -1
	case delta.Double:
		return 701, -1
	case delta.String:
		return 25, -1
	case delta.Binary:
		return 17, -1
	case delta.Date:
		return 1082, -1
	case delta.Timestamp:
		return 1184, -1
	case delta.TimestampNTZ:
		return 1114, -1
	}
	return 114, -1
}

// catalogueTable gives a relation of pg_catalog or information_schema.
func (r *resolver) catalogueTable(schema, name string) (duckdb.Relation, error) {
	if schema == "pg_catalog" {
		switch name {
		case "pg_settings":
			return r.settings()
		case "pg_stat_activity":
			return r.activity()
		}
	}
	cat, err := r.needCatalogue()
	if err != nil {
		return duckdb.Relation{}, err
	}
	ws, wn, ok := cat.Table(schema, name)
	if !ok {
		return duckdb.Relation{}, errorf(CodeTable, "relation %q does not exist", schema+"."+name)
	}
	return duckdb.Relation{Worker: [2]string{ws, wn}}, nil
}

// settings is the view pg_settings: what PostgreSQL tells of its parameters, with this session's values.
func (r *resolver) settings() (duckdb.Relation, error) {
	names, records, err := pgcatalog.Records("pg_settings")
	if err != nil {
		return duckdb.Relation{}, err
	}
	types := map[string]arrow.DataType{"enumvals": arrow.ListOf(textType), "sourceline": arrow.PrimitiveTypes.Int32, "pending_restart": arrow.FixedWidthTypes.Boolean}
	fields := make([]arrow.Field, len(names))
	for i, n := range names {
		fields[i] = arrow.Field{Name: n, Type: textType, Nullable: true}
		if t := types[n]; t != nil {
			fields[i].Type = t
		}
	}
	b := newBatch(fields)
	defer b.Release()
	for _, rec := range records {
		value, known := r.s.Show(rec[0])
		for i, name := range names {
			v := rec[i]
			switch name {
			case "setting", "boot_val", "reset_val":
				if known {
					v = value
				}
			case "source":
				v = "default"
			}
			switch f := b.Field(i).(type) {
			case *array.StringBuilder:
				if v == "" && name != "setting" || name == "sourcefile" {
					f.AppendNull()
				} else {
					f.Append(v)
				}
			case *array.ListBuilder:
				var all []string
				if v != "" {
					if err := json.Unmarshal([]byte(v), &all); err != nil {
						return duckdb.Relation{}, err
					}
				}
				f.Append(v != "")
				for _, e := range all {
					f.ValueBuilder().(*array.StringBuilder).Append(e)
				}
			case *array.BooleanBuilder:
				f.Append(false)
			default:
				f.AppendNull()
			}
		}
	}
	rec := b.NewRecordBatch()
	return duckdb.Relation{Schema: rec.Schema(), Rows: []arrow.RecordBatch{rec}}, nil
}

// catalogueCall makes the tree of a call of one of the catalogue's functions.
func (r *resolver) catalogueCall(name string, args ...any) (duckdb.Node, error) {
	cat, err := r.needCatalogue()
	if err != nil {
		return nil, err
	}
	return function(cat.Key, name, args...), nil
}

// vectors are columns whose type is int2vector or oidvector: their subscripts begin at 0.
var vectors = map[string]bool{"indkey": true, "indclass": true, "indcollation": true, "indoption": true, "i_indoption": true, "proargtypes": true, "tgattr": true, "prattrs": true}

func columnRef(n any) string {
	c, ok := n.(duckdb.Node)
	if !ok || c["class"] != "COLUMN_REF" {
		return ""
	}
	names, _ := c["column_names"].([]any)
	if len(names) == 0 {
		return ""
	}
	s, _ := names[len(names)-1].(string)
	return strings.ToLower(s)
}

// subscript corrects subscripts of vectors.
func (r *resolver) subscript(n duckdb.Node) {
	children, _ := n["children"].([]any)
	if len(children) != 2 || !vectors[columnRef(children[0])] || n["corrected"] != nil {
		return
	}
	children[1] = function("", "+", children[1], number(1))
	children[1].(duckdb.Node)["is_operator"] = true
}

// registered are the types whose values are names of objects for people and numbers inside.
var registered = map[string]string{"regclass": "to_regclass", "regtype": "to_regtype", "regproc": "to_regproc", "regprocedure": "to_regproc", "regnamespace": "to_regnamespace", "regrole": "to_regrole"}

// textTypes and numberTypes are other types that DuckDB does not know.
var (
	textTypes   = map[string]bool{"name": true, "char": true, "aclitem": true, "pg_node_tree": true, "citext": true, "inet": true, "cstring": true}
	numberTypes = map[string]bool{"xid": true, "cid": true, "oid": true, oidType: true}
)

// castType gives the name of the type of a cast to one that DuckDB does not know.
func castType(n duckdb.Node) string {
	typ, _ := n["cast_type"].(duckdb.Node)
	if id, _ := typ["id"].(string); id != "UNBOUND" {
		return ""
	}
	info, _ := typ["type_info"].(duckdb.Node)
	name, _ := info["name"].(string)
	return strings.ToLower(name)
}

// show makes an item of a select list show the name of an object, where its type is one of registered.
func (r *resolver) show(item duckdb.Node, outermost bool) error {
	kind := ""
	value := any(clone(item))
	switch name := castType(item); {
	case item["class"] == "CAST" && registered[name] != "":
		child := nodeOf(item["child"])
		if kind = name; child["class"] != "CONSTANT" && child["class"] != "PARAMETER" {
			value = child
		} else if !outermost {
			return nil
		}
	case item["class"] == "CAST":
		return nil
	case outermost && strings.HasPrefix(functionName(item), "to_reg"):
		kind = strings.TrimPrefix(functionName(item), "to_")
	}
	if kind == "regprocedure" {
		kind = "regproc"
	}
	if kind != "" {
		call, err := r.catalogueCall(kind+"_out", value)
		if err != nil {
			return err
		}
		set(item, call)
		return nil
	}
	if column := columnRef(item); outermost && column != "" && pgcatalog.ColumnType(column) == "regproc" {
		call, err := r.catalogueCall("regproc_out", clone(item))
		if err != nil {
			return err
		}
		set(item, call)
	}
	return nil
}

func clone(n duckdb.Node) duckdb.Node {
	out := duckdb.Node{}
	for k, v := range n {
		out[k] = v
	}
	out["alias"] = ""
	return out
}

// registeredCast gives casts to and from the types of registered, and of vectors, their meaning.
func (r *resolver) registeredCast(n, child duckdb.Node) (done bool, err error) {
	name := castType(n)
	typ, _ := n["cast_type"].(duckdb.Node)
	plain := func(id string) {
		n["cast_type"] = duckdb.Node{"id": id, "type_info": nil}
	}
	switch {
	case registered[name] != "":
		switch child["class"] {
		case "CONSTANT", "PARAMETER":
			v, isText := duckdb.ConstantText(child)
			if isText && v != "" && strings.Trim(v, "0123456789") == "" {
				plain("BIGINT")
				return true, nil
			}
			call, err := r.catalogueCall(map[bool]string{true: "regclass_in", false: registered[name]}[name == "regclass"], asText(child))
			if err != nil {
				return false, err
			}
			set(n, call)
			return true, nil
		}
		plain("BIGINT")
		return true, nil
	case textTypes[name]:
		plain("VARCHAR")
	case numberTypes[name]:
		plain("BIGINT")
	}
	if id, _ := typ["id"].(string); id != "VARCHAR" {
		return false, nil
	}
	if inner := castType(child); child["class"] == "CAST" && registered[inner] != "" {
		value, _ := child["child"].(duckdb.Node)
		if value == nil {
			return false, nil
		}
		if value["class"] == "CONSTANT" {
			value = clone(child)
		}
		call, err := r.catalogueCall(map[bool]string{true: "regproc", false: inner}[inner == "regprocedure"]+"_out", value)
		if err != nil {
			return false, err
		}
		set(n, call)
		return true, nil
	}
	switch column := columnRef(child); {
	case vectors[column]:
		set(n, function("", "array_to_string", child, text(" ")))
		return true, nil
	case column != "" && pgcatalog.ColumnType(column) == "regproc":
		call, err := r.catalogueCall("regproc_out", child)
		if err != nil {
			return false, err
		}
		set(n, call)
		return true, nil
	}
	return false, nil
}

func asText(child duckdb.Node) duckdb.Node { return castOf(child, "VARCHAR") }
