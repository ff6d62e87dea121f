// Package pgcatalog makes PostgreSQL's system catalogue for an engine that is not PostgreSQL: the tables of pg_catalog and
// information_schema with the columns that PostgreSQL documents, its own rows under its own object identifiers, rows for
// the relations that are served, and the functions that clients ask it with. All of it is SQL for DuckDB.
package pgcatalog

import (
	"archive/zip"
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed" // the catalogue and the functions
	"encoding/csv"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

//go:embed catalog.zip
var archive []byte

//go:embed functions.sql
var functions string

//go:embed language.sql
var language string

//go:embed views.sql
var views string

// Relation is a relation that is served.
type Relation struct {
	Schema, Name string
	View         bool
	Comment      string
	Columns      []Column
	Key          []string // names of the columns of the primary key
	Rows         int64    // an estimate; -1: unknown
	Bytes        int64
	Definition   string // of a view
	Readers      []string
}

// Column is a column of a Relation.
type Column struct {
	Name     string
	Type     uint32 // object identifier
	Modifier int32  // -1: none
	NotNull  bool
	Comment  string
}

// Catalogue is the catalogue for one set of relations.
type Catalogue struct {
	// Key names it: the same relations have the same key. It is the schema in which its tables are in the worker.
	Key     string
	install []string
}

// Schemas of a worker: static is what every catalogue shares.
const static = "pg"

// TempSchema is the schema of a session's temporary tables, named as PostgreSQL names those of its sessions. Each sees but its own.
const TempSchema = "pg_temp_3"

// Owner is the role to which everything belongs.
const Owner = "cauce"

type staticTable struct {
	schema, name string
	columns      []staticColumn
	rows         bool // there is a file with its rows
}

type staticColumn struct{ name, typ string }

var load = sync.OnceValues(func() (map[string]*staticTable, error) {
	z, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		return nil, err
	}
	f, err := z.Open("columns.csv")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines, err := csv.NewReader(f).ReadAll()
	if err != nil {
		return nil, err
	}
	out := map[string]*staticTable{}
	for _, l := range lines {
		key := l[0] + "." + l[1]
		t := out[key]
		if t == nil {
			t = &staticTable{schema: l[0], name: l[1]}
			out[key] = t
		}
		t.columns = append(t.columns, staticColumn{l[2], l[3]})
	}
	for _, f := range z.File {
		if t := out["pg_catalog."+strings.TrimSuffix(f.Name, ".csv")]; t != nil {
			t.rows = true
		}
	}
	return out, nil
})

// ColumnOf is a column of one of PostgreSQL's own tables.
type ColumnOf struct{ Name, Type string }

// Columns gives the columns of one of PostgreSQL's own tables, with PostgreSQL's names of their types.
func Columns(table string) ([]ColumnOf, error) {
	tables, err := load()
	if err != nil {
		return nil, err
	}
	t := tables["pg_catalog."+table]
	if t == nil {
		return nil, fmt.Errorf("BUG: the catalogue has no %s", table)
	}
	out := make([]ColumnOf, len(t.columns))
	for i, c := range t.columns {
		out[i] = ColumnOf{c.name, c.typ}
	}
	return out, nil
}

// Records gives the names of the columns and the rows of one of PostgreSQL's own tables as texts; a null is an empty one.
func Records(table string) (columns []string, rows [][]string, err error) {
	tables, err := load()
	if err != nil {
		return nil, nil, err
	}
	t := tables["pg_catalog."+table]
	if t == nil || !t.rows {
		return nil, nil, fmt.Errorf("BUG: the catalogue has no rows of %s", table)
	}
	for _, c := range t.columns {
		columns = append(columns, c.name)
	}
	z, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		return nil, nil, err
	}
	f, err := z.Open(table + ".csv")
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	rows, err = csv.NewReader(f).ReadAll()
	return columns, rows, err
}

// Extract writes the rows of the static tables into a folder, from which workers read them.
func Extract(dir string) error {
	z, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			return err
		}
		text, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, f.Name), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// duckType gives DuckDB's type for one of PostgreSQL's.
func duckType(pg string) string {
	switch pg {
	case "oid", "regproc", "regclass", "regtype", "xid", "cid", "int8":
		return "BIGINT"
	case "int2":
		return "SMALLINT"
	case "int4":
		return "INTEGER"
	case "bool":
		return "BOOLEAN"
	case "float4":
		return "FLOAT"
	case "float8":
		return "DOUBLE"
	case "numeric":
		return "DECIMAL(38,0)"
	case "timestamptz":
		return "TIMESTAMPTZ"
	case "interval":
		return "INTERVAL"
	case "bytea":
		return "BLOB"
	case "int2vector", "_int2":
		return "SMALLINT[]"
	case "oidvector", "_oid":
		return "BIGINT[]"
	case "_int4":
		return "INTEGER[]"
	case "_float4":
		return "FLOAT[]"
	}
	if strings.HasPrefix(pg, "_") {
		return "VARCHAR[]"
	}
	return "VARCHAR"
}

// columnTypes gives the type of each column name whose tables agree about it.
var columnTypes = sync.OnceValue(func() map[string]string {
	out := map[string]string{}
	tables, err := load()
	if err != nil {
		return out
	}
	for _, t := range tables {
		if t.schema != "pg_catalog" {
			continue
		}
		for _, c := range t.columns {
			if had, ok := out[c.name]; ok && had != c.typ {
				out[c.name] = ""
			} else {
				out[c.name] = c.typ
			}
		}
	}
	return out
})

// ColumnType gives the name of the type of a column of pg_catalog; "" where there is no such column or tables differ.
func ColumnType(column string) string { return columnTypes()[column] }

// oids of types that the served columns do not have and the catalogue's do.
var typeOIDs = map[string]uint32{"oid": 26, "xid": 28, "name": 19, "char": 18, "regproc": 24, "int2vector": 22, "oidvector": 30}

// ColumnTypeOID is ColumnType as an object identifier, for the types that DuckDB does not have.
func ColumnTypeOID(column string) (uint32, bool) {
	oid, ok := typeOIDs[ColumnType(column)]
	return oid, ok
}

// Tables that a catalogue has for itself, with rows of the served relations.
var dynamic = []string{"pg_class", "pg_attribute", "pg_type", "pg_index", "pg_constraint", "pg_description", "pg_namespace", "pg_authid", "pg_database", "pg_depend"}

// Tables that functions.sql reads under other names of columns, so that no argument of a function is taken for one of them.
var mirrored = []string{
	"pg_class", "pg_attribute", "pg_type", "pg_index", "pg_constraint", "pg_description", "pg_namespace", "pg_authid", "pg_proc", "pg_collation", "pg_operator", "pg_opclass", "pg_opfamily",
}

// Has tells whether there is such a relation.
func Has(schema, name string) bool {
	tables, err := load()
	return err == nil && tables[schema+"."+name] != nil
}

// Table gives the schema and name in the worker of a relation of pg_catalog or information_schema.
func (c *Catalogue) Table(schema, name string) (workerSchema, workerName string, ok bool) {
	if !Has(schema, name) {
		return "", "", false
	}
	if schema == "information_schema" {
		return c.Key, "is_" + name, true
	}
	if slices.Contains(dynamic, name) || slices.Contains(viewNames(), name) {
		return c.Key, name, true
	}
	return static, name, true
}

// Function tells whether the catalogue defines a function.
func Function(name string) bool { return functionNames()[name] }

var functionNames = sync.OnceValue(func() map[string]bool {
	out := map[string]bool{}
	for _, s := range split(functions) {
		if rest, ok := strings.CutPrefix(s, "CREATE MACRO "); ok {
			name, _, _ := strings.Cut(rest, "(")
			out[strings.TrimPrefix(name, "@.")] = true
		}
	}
	return out
})

// viewNames are the views of pg_catalog that views.sql defines.
var viewNames = sync.OnceValue(func() []string {
	var out []string
	for _, s := range split(views) {
		if rest, ok := strings.CutPrefix(s, "CREATE VIEW @."); ok {
			name, _, _ := strings.Cut(rest, " ")
			out = append(out, name)
		}
	}
	return out
})

// split takes a file of statements apart; each ends with a semicolon at a line's end.
func split(text string) []string {
	var out []string
	for s := range strings.SplitSeq(text, ";\n") {
		var lines []string
		for l := range strings.SplitSeq(s, "\n") {
			if !strings.HasPrefix(strings.TrimSpace(l), "--") {
				lines = append(lines, l)
			}
		}
		if s = strings.TrimSpace(strings.Join(lines, "\n")); s != "" {
			out = append(out, s)
		}
	}
	return out
}

// LanguageSchema is the schema in a worker of functions that mean what PostgreSQL means and ask no catalogue.
const LanguageSchema = static

// Language is the SQL that makes the functions of LanguageSchema in a worker.
func Language() []string {
	out := []string{"CREATE SCHEMA IF NOT EXISTS " + LanguageSchema}
	for _, s := range split(language) {
		out = append(out, strings.Replace(s, "CREATE MACRO", "CREATE OR REPLACE MACRO", 1))
	}
	return out
}

// Install is the SQL that makes the catalogue in a worker; dir is the folder that Extract filled.
func (c *Catalogue) Install(dir string) []string {
	out := make([]string, len(c.install))
	for i, s := range c.install {
		out[i] = strings.ReplaceAll(s, "@dir@", dir)
	}
	return out
}

// Objects that belong to a relation have the identifiers after its own, in the order in which PostgreSQL would make them.
const (
	arrayType = iota + 1 // of its row type
	rowType
	toast // the table of its long values
	toastIndex
	keyIndex
	keyConstraint
)

// OID gives a relation its object identifier, which stays the same as long as its name does. The seven that follow belong to
// it too.
func OID(schema, name string) int64 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(schema + "." + name)) // never fails
	return 16384 + int64(h.Sum32()%(1<<27))*8
}

// Namespaces of the served relations.
var namespaces = map[string]int64{"pg_catalog": 11, "public": 2200}

// namespace gives the object identifier of a schema.
func namespace(schema string) int64 {
	if oid, ok := namespaces[schema]; ok {
		return oid
	}
	return OID("", schema)
}

// New makes the catalogue of relations that a role sees, in the database of the given name.
func New(database, role string, relations []Relation) (*Catalogue, error) {
	tables, err := load()
	if err != nil {
		return nil, fmt.Errorf("embedded catalogue: %w", err)
	}
	relations = slices.Clone(relations)
	slices.SortFunc(relations, func(a, b Relation) int {
		return cmp.Or(strings.Compare(a.Schema, b.Schema), strings.Compare(a.Name, b.Name))
	})
	c := &Catalogue{}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %s %v", database, role, relations))
	c.Key = "c_" + hex.EncodeToString(sum[:6])

	add := func(format string, args ...any) { c.install = append(c.install, fmt.Sprintf(format, args...)) }
	add("CREATE SCHEMA IF NOT EXISTS %s", static)
	add("CREATE SCHEMA IF NOT EXISTS %s", c.Key)
	names := make([]string, 0, len(tables))
	for k := range tables {
		names = append(names, k)
	}
	slices.Sort(names)
	own := viewNames()
	for _, k := range names {
		t := tables[k]
		if t.schema == "pg_catalog" && !slices.Contains(own, t.name) {
			add("%s", t.create())
		}
	}
	c.install = append(c.install, `CREATE TABLE IF NOT EXISTS pg.keywords AS SELECT * FROM read_csv('@dir@/pg_get_keywords.csv', header = false, all_varchar = true, auto_detect = false, columns = {word: 'VARCHAR', catcode: 'VARCHAR', barelabel: 'VARCHAR', catdesc: 'VARCHAR', baredesc: 'VARCHAR'})`)
	rows := c.rows(database, role, relations)
	for _, t := range dynamic {
		add("CREATE OR REPLACE TABLE %s.%s AS FROM %s.%s%s", c.Key, t, static, t, map[string]string{"pg_database": " WHERE false"}[t])
		if r := rows[t]; len(r) > 0 {
			add("INSERT INTO %s.%s BY NAME SELECT * FROM (VALUES %s) v(%s)", c.Key, t, strings.Join(r, ", "), rowColumns[t])
		}
	}
	sizes := []string{"(0, 0)"}
	definitions := []string{"(0, '')"}
	for _, r := range relations {
		sizes = append(sizes, fmt.Sprintf("(%d, %d)", OID(r.Schema, r.Name), r.Bytes))
		if r.View {
			definitions = append(definitions, fmt.Sprintf("(%d, %s)", OID(r.Schema, r.Name), text(r.Definition)))
		}
	}
	add("CREATE OR REPLACE TABLE %s.sizes AS SELECT * FROM (VALUES %s) v(oid, bytes)", c.Key, strings.Join(sizes, ", "))
	add("CREATE OR REPLACE TABLE %s.definitions AS SELECT * FROM (VALUES %s) v(oid, sql)", c.Key, strings.Join(definitions, ", "))
	for _, t := range mirrored {
		from := c.Key
		if !slices.Contains(dynamic, t) {
			from = static
		}
		var items []string
		for _, col := range tables["pg_catalog."+t].columns {
			items = append(items, quote(col.name)+" AS "+quote("cat_"+col.name))
		}
		add("CREATE OR REPLACE VIEW %s.m_%s AS SELECT %s FROM %s.%s", c.Key, t, strings.Join(items, ", "), from, t)
	}
	add("CREATE OR REPLACE VIEW %s.m_keywords AS SELECT word AS cat_word, catcode AS cat_catcode FROM %s.keywords", c.Key, static)
	add("CREATE OR REPLACE VIEW %[1]s.m_sizes AS SELECT oid AS cat_oid, bytes AS cat_bytes FROM %[1]s.sizes", c.Key)
	add("CREATE OR REPLACE VIEW %[1]s.m_definitions AS SELECT oid AS cat_oid, sql AS cat_sql FROM %[1]s.definitions", c.Key)
	fill := strings.NewReplacer("@.", c.Key+".", "@role@", text(role), "@database@", text(database), "@temp@", TempSchema)
	for _, s := range append(split(functions), split(views)...) {
		s = fill.Replace(s)
		s = strings.Replace(strings.Replace(s, "CREATE MACRO", "CREATE OR REPLACE MACRO", 1), "CREATE VIEW", "CREATE OR REPLACE VIEW", 1)
		c.install = append(c.install, s)
	}
	made := viewNames()
	for _, k := range names {
		if t := tables[k]; t.schema == "information_schema" && !slices.Contains(made, "is_"+t.name) {
			add("CREATE OR REPLACE VIEW %s.is_%s AS SELECT %s WHERE false", c.Key, t.name, t.nulls())
		}
	}
	return c, nil
}

func (t *staticTable) create() string {
	name := static + "." + quote(t.name)
	if !t.rows {
		return fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s AS SELECT %s WHERE false", name, t.nulls())
	}
	var cols, items []string
	for _, c := range t.columns {
		cols = append(cols, text(c.name)+": 'VARCHAR'")
		typ := duckType(c.typ)
		switch {
		case strings.HasSuffix(typ, "[]"):
			items = append(items, fmt.Sprintf("CAST(%[1]s::JSON AS %[2]s) AS %[1]s", quote(c.name), typ))
		default:
			items = append(items, fmt.Sprintf("CAST(%[1]s AS %[2]s) AS %[1]s", quote(c.name), typ))
		}
	}
	return fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s AS SELECT %s FROM read_csv('@dir@/%s.csv', header = false, auto_detect = false, delim = ',', quote = '\"', escape = '\"', nullstr = '', allow_quoted_nulls = false, columns = {%s})",
		name, strings.Join(items, ", "), t.name, strings.Join(cols, ", "))
}

func (t *staticTable) nulls() string {
	var items []string
	for _, c := range t.columns {
		items = append(items, "CAST(NULL AS "+duckType(c.typ)+") AS "+quote(c.name))
	}
	return strings.Join(items, ", ")
}

func text(s string) string  { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
func quote(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// rowColumns names the columns of the rows that rows makes.
var rowColumns = map[string]string{
	"pg_namespace": "oid, nspname, nspowner, nspacl",
	"pg_authid":    "oid, rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls, rolconnlimit",
	"pg_database":  "oid, datname, datdba, encoding, datlocprovider, datistemplate, datallowconn, datconnlimit, datfrozenxid, datminmxid, dattablespace, datcollate, datctype, datacl",
	"pg_class": "oid, relname, relnamespace, reltype, reloftype, relowner, relam, relfilenode, reltablespace, relpages, reltuples, relallvisible, reltoastrelid, relhasindex, relisshared, " +
		"relpersistence, relkind, relnatts, relchecks, relhasrules, relhastriggers, relhassubclass, relrowsecurity, relforcerowsecurity, relispopulated, relreplident, relispartition, relrewrite, relfrozenxid, relminmxid, relacl",
	"pg_attribute": "attrelid, attname, atttypid, attstattarget, attlen, attnum, attndims, attcacheoff, atttypmod, attbyval, attalign, attstorage, attcompression, attnotnull, atthasdef, " +
		"atthasmissing, attidentity, attgenerated, attisdropped, attislocal, attinhcount, attcollation",
	"pg_type": "oid, typname, typnamespace, typowner, typlen, typbyval, typtype, typcategory, typispreferred, typisdefined, typdelim, typrelid, typsubscript, typelem, typarray, typinput, typoutput, " +
		"typreceive, typsend, typmodin, typmodout, typanalyze, typalign, typstorage, typnotnull, typbasetype, typtypmod, typndims, typcollation",
	"pg_index": "indexrelid, indrelid, indnatts, indnkeyatts, indisunique, indnullsnotdistinct, indisprimary, indisexclusion, indimmediate, indisclustered, indisvalid, indcheckxmin, indisready, indislive, indisreplident, " +
		"indkey, indcollation, indclass, indoption",
	"pg_constraint": "oid, conname, connamespace, contype, condeferrable, condeferred, convalidated, conrelid, contypid, conindid, conparentid, confrelid, confupdtype, confdeltype, confmatchtype, conislocal, " +
		"coninhcount, connoinherit, conkey",
	"pg_description": "objoid, classoid, objsubid, description",
}

// typeFacts are the length, alignment, storage, collation and operator class of the types of served columns; -1, 'i' … for
// those that are missing.
var typeFacts = map[uint32]struct {
	length         int
	byValue        bool
	align, storage string
	collation      int
	operatorClass  int
}{
	16: {1, true, "c", "p", 0, 424}, 17: {-1, false, "i", "x", 0, 428}, 20: {8, true, "d", "p", 0, 3124}, 21: {2, true, "s", "p", 0, 1979}, 23: {4, true, "i", "p", 0, 1978},
	25: {-1, false, "i", "x", 100, 3126}, 700: {4, true, "i", "p", 0, 1970}, 701: {8, true, "d", "p", 0, 3123}, 1082: {4, true, "i", "p", 0, 3122}, 1083: {8, true, "d", "p", 0, 10036},
	1114: {8, true, "d", "p", 0, 3128}, 1184: {8, true, "d", "p", 0, 3127}, 1186: {16, false, "d", "p", 0, 10042}, 1700: {-1, false, "i", "m", 0, 3125}, 114: {-1, false, "i", "x", 0, 0},
}

// rows makes the rows of the served relations, as SQL of VALUES.
func (c *Catalogue) rows(database, role string, relations []Relation) map[string][]string {
	out := map[string][]string{}
	add := func(table, format string, args ...any) {
		out[table] = append(out[table], "("+fmt.Sprintf(format, args...)+")")
	}
	for _, s := range schemasOf(relations) {
		add("pg_namespace", "%d, %s, 10, ['cauce=UC/cauce', %s]", namespace(s), text(s), text(role+"=U/cauce"))
	}
	if role != Owner {
		add("pg_authid", "%d, %s, false, true, false, false, true, false, false, -1", OID("role", role), text(role))
	}
	add("pg_database", "%d, %s, 10, 6, 'c', false, true, -1, 717, 1, 1663, 'C.UTF-8', 'C.UTF-8', NULL", OID("database", database), text(database))
	for _, d := range []struct {
		oid             int
		name            string
		template, allow bool
	}{{1, "template1", true, true}, {4, "template0", true, false}, {5, "postgres", false, true}} {
		acl := "NULL::VARCHAR[]"
		if d.template {
			acl = "['=c/cauce', 'cauce=CTc/cauce']"
		}
		add("pg_database", "%d, %s, 10, 6, 'c', %t, %t, -1, 717, 1, 1663, 'C.UTF-8', 'C.UTF-8', %s", d.oid, text(d.name), d.template, d.allow, acl)
	}
	for _, d := range descriptions {
		add("pg_description", "%d, %d, 0, %s", d.object, d.class, text(d.text))
	}
	for _, r := range relations {
		oid, ns := OID(r.Schema, r.Name), namespace(r.Schema)
		kind, am, reltype := "r", 2, oid+rowType
		if r.View {
			kind, am = "v", 0
		}
		key := r.keyNumbers()
		pages, persistence, frozen, rep := (r.Bytes+8191)/8192, "p", 717, "d"
		if r.Schema == TempSchema {
			persistence = "t"
		}
		tuples := float64(r.Rows)
		if r.View {
			pages, tuples, frozen, rep = 0, 0, 0, "n"
		}
		long := int64(0)
		if !r.View && r.hasLongValues() {
			long = oid + toast
			c.toast(add, oid)
		}
		acl := fmt.Sprintf("['cauce=arwdDxt/cauce', %s]", text(role+"=r/cauce"))
		add("pg_class", "%d, %s, %d, %d, 0, 10, %d, %d, 0, %d, %g, 0, %d, %t, false, %s, %s, %d, 0, %t, false, false, false, false, true, %s, false, 0, %d, %d, %s",
			oid, text(r.Name), ns, reltype, am, map[bool]int64{true: 0, false: oid}[r.View], pages, tuples, long, len(key) > 0, text(persistence), text(kind), len(r.Columns), r.View, text(rep), frozen, min(frozen, 1), acl)
		add("pg_type", "%d, %s, %d, 10, -1, false, 'c', 'C', false, true, ',', %d, 0, 0, %d, 2290, 2291, 2402, 2403, 0, 0, 0, 'd', 'x', false, 0, -1, 0, 0", reltype, text(r.Name), ns, oid, oid+arrayType)
		add("pg_type", "%d, %s, %d, 10, -1, false, 'b', 'A', false, true, ',', 0, 6179, %d, 0, 750, 751, 2400, 2401, 0, 0, 3816, 'd', 'x', false, 0, -1, 0, 0", oid+arrayType, text("_"+r.Name), ns, reltype)
		for i, col := range r.Columns {
			c.attribute(add, oid, i+1, col, slices.Contains(key, i+1))
		}
		if r.Comment != "" {
			add("pg_description", "%d, 1259, 0, %s", oid, text(r.Comment))
		}
		if !r.View {
			c.systemAttributes(add, oid)
		}
		if len(key) > 0 {
			c.primaryKey(add, r, oid, ns, key)
		}
	}
	return out
}

func schemasOf(relations []Relation) []string {
	var out []string
	for _, r := range relations {
		if _, known := namespaces[r.Schema]; !known && !slices.Contains(out, r.Schema) {
			out = append(out, r.Schema)
		}
	}
	return out
}

// keyNumbers gives the numbers of the key's columns, in the key's order.
func (r *Relation) keyNumbers() []int {
	var out []int
	for _, k := range r.Key {
		for i, c := range r.Columns {
			if strings.EqualFold(c.Name, k) {
				out = append(out, i+1)
			}
		}
	}
	if len(out) != len(r.Key) {
		return nil // a role that does not see all of the key sees no key
	}
	return out
}

type adder func(table, format string, args ...any)

func (c *Catalogue) attribute(add adder, oid int64, number int, col Column, key bool) {
	f, ok := typeFacts[col.Type]
	dims := 0
	if !ok { // arrays
		f.length, f.align, f.storage, dims = -1, "i", "x", 1
	}
	add("pg_attribute", "%d, %s, %d, -1, %d, %d, %d, -1, %d, %t, %s, %s, '', %t, false, false, '', '', false, true, 0, %d",
		oid, text(col.Name), col.Type, f.length, number, dims, col.Modifier, f.byValue, text(f.align), text(f.storage), col.NotNull || key, f.collation)
	if col.Comment != "" {
		add("pg_description", "%d, 1259, %d, %s", oid, number, text(col.Comment))
	}
}

// descriptions are PostgreSQL's comments on objects that clients list.
var descriptions = []struct {
	object, class int
	text          string
}{
	{11, 2615, "system catalog schema"}, {99, 2615, "reserved schema for TOAST tables"}, {2200, 2615, "standard public schema"}, {13559, 3079, "PL/pgSQL procedural language"},
}

// hasLongValues tells whether PostgreSQL would keep values of a relation in a table beside it.
func (r *Relation) hasLongValues() bool {
	return slices.ContainsFunc(r.Columns, func(c Column) bool {
		f, ok := typeFacts[c.Type]
		return !ok || f.storage == "x"
	})
}

// toast is the table of a relation's long values, with its index, as PostgreSQL makes them.
func (c *Catalogue) toast(add adder, oid int64) {
	table, index, name := oid+toast, oid+toastIndex, fmt.Sprintf("pg_toast_%d", oid)
	add("pg_class", "%d, %s, 99, 0, 0, 10, 2, %d, 0, 0, -1, 0, 0, true, false, 'p', 't', 3, 0, false, false, false, false, false, true, 'n', false, 0, 717, 1, NULL", table, text(name), table)
	add("pg_class", "%d, %s, 99, 0, 0, 10, 403, %d, 0, 1, 0, 0, 0, false, false, 'p', 'i', 2, 0, false, false, false, false, false, true, 'n', false, 0, 0, 0, NULL", index, text(name+"_index"), index)
	for i, a := range []struct {
		name   string
		typ    int
		length int
		value  bool
	}{{"chunk_id", 26, 4, true}, {"chunk_seq", 23, 4, true}, {"chunk_data", 17, -1, false}} {
		for _, rel := range []int64{table, index} {
			if rel == table || i < 2 {
				add("pg_attribute", "%d, %s, %d, -1, %d, %d, 0, -1, -1, %t, 'i', 'p', '', false, false, false, '', '', false, true, 0, 0", rel, text(a.name), a.typ, a.length, i+1, a.value)
			}
		}
	}
	c.systemAttributes(add, table)
	add("pg_index", "%d, %d, 2, 2, true, false, true, false, true, false, true, false, true, true, false, [1, 2]::SMALLINT[], [0, 0]::BIGINT[], [1981, 1978]::BIGINT[], [0, 0]::SMALLINT[]", index, table)
}

// systemAttributes are the columns that every table of PostgreSQL has.
func (c *Catalogue) systemAttributes(add adder, oid int64) {
	for i, a := range []struct {
		name   string
		typ    int
		length int
		value  bool
		align  string
	}{{"ctid", 27, 6, false, "s"}, {"xmin", 28, 4, true, "i"}, {"cmin", 29, 4, true, "i"}, {"xmax", 28, 4, true, "i"}, {"cmax", 29, 4, true, "i"}, {"tableoid", 26, 4, true, "i"}} {
		add("pg_attribute", "%d, %s, %d, 0, %d, %d, 0, -1, -1, %t, %s, 'p', '', true, false, false, '', '', false, true, 0, 0", oid, text(a.name), a.typ, a.length, -(i + 1), a.value, text(a.align))
	}
}

func (c *Catalogue) primaryKey(add adder, r Relation, oid, ns int64, key []int) {
	index, name := oid+keyIndex, r.Name+"_pkey"
	numbers := make([]string, len(key))
	var collations, classes, options []string
	for i, k := range key {
		numbers[i] = strconv.Itoa(k)
		col := r.Columns[k-1]
		f := typeFacts[col.Type]
		collations = append(collations, strconv.Itoa(f.collation))
		classes = append(classes, strconv.Itoa(f.operatorClass))
		options = append(options, "0")
		c.attribute(add, index, i+1, Column{Name: col.Name, Type: col.Type, Modifier: col.Modifier}, false)
	}
	list := func(v []string, typ string) string { return "[" + strings.Join(v, ", ") + "]::" + typ + "[]" }
	add("pg_class", "%d, %s, %d, 0, 0, 10, 403, %d, 0, 1, 0, 0, 0, false, false, 'p', 'i', %d, 0, false, false, false, false, false, true, 'n', false, 0, 0, 0, NULL", index, text(name), ns, index, len(key))
	add("pg_index", "%d, %d, %d, %d, true, false, true, false, true, false, true, false, true, true, false, %s, %s, %s, %s",
		index, oid, len(key), len(key), list(numbers, "SMALLINT"), list(collations, "BIGINT"), list(classes, "BIGINT"), list(options, "SMALLINT"))
	add("pg_constraint", "%d, %s, %d, 'p', false, false, true, %d, 0, %d, 0, 0, ' ', ' ', ' ', true, 0, true, %s", oid+keyConstraint, text(name), ns, oid, index, list(numbers, "SMALLINT"))
}
