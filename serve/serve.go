// Package serve answers SQL of people and tools over the lake's tables: it decides what a statement's names mean for the
// role that asks, takes the snapshots that it reads, and hands it to a worker process. The doors (serve/pgwire …) speak the
// protocols; serve/worker runs the statements.
package serve

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cauce-data/cauce/catalog"
	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/engine/duckdb"
	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/pipeline"
	"github.com/cauce-data/cauce/serve/pgcatalog"
	"github.com/cauce-data/cauce/serve/worker"
)

// Database is the name of the one database that clients see.
const Database = "lake"

// ReaderRole is who connects where the lake file has no roles.
const ReaderRole = "reader"

// Schemas of the database.
const (
	SchemaPublic = "public" // the lake's tables
	SchemaLake   = "lake"   // what the lake tells of itself
)

// Options configure a Backend. All but RunsDir must be set.
type Options struct {
	Lake   *pipeline.Lake
	Ingest *ingest.Lake
	Engine *duckdb.Engine // plans statements; they run in Pool
	Pool   *worker.Pool
	Log    *slog.Logger
	// RunsDir is the folder of the run history; "": there is none.
	RunsDir string
	// CatalogueDir is where pgcatalog.Extract has put its files; workers must be able to read it.
	CatalogueDir string
}

// Observer is told what happens; nil functions are not called.
type Observer struct {
	// Session is called with +1 and -1.
	Session func(change int)
	// Statement is called at the end of each statement: its code is "00000" or an SQLSTATE.
	Statement func(took time.Duration, code string)
	// Refused is called for a connection that was not accepted: "password", "sessions" …
	Refused func(why string)
}

// Backend is what all sessions of a lake share.
type Backend struct {
	o     Options
	roles []*Role

	mu         sync.Mutex
	catalogues map[string]*pgcatalog.Catalogue // by what they show
	clients    map[int]*Activity               // by process id
}

// New returns the backend of a lake.
func New(o Options) *Backend {
	return &Backend{o: o, roles: rolesOf(o.Lake), catalogues: map[string]*pgcatalog.Catalogue{}, clients: map[int]*Activity{}}
}

// Pool gives the workers.
func (b *Backend) Pool() *worker.Pool { return b.o.Pool }

// Log gives the log.
func (b *Backend) Log() *slog.Logger { return b.o.Log }

// Role is who may ask, and what. A role without Tables and Views sees everything; one that has either sees what they name.
type Role struct {
	Name     string
	Password string
	Tables   map[string][]string // columns by table name in lower case, nil: all columns
	Views    map[string]bool     // by name in lower case
}

// Whole tells whether the role sees everything.
func (r *Role) Whole() bool { return r.Tables == nil && r.Views == nil }

// sees tells whether a table may be read, and its columns (nil: all).
func (r *Role) sees(table string) (columns []string, ok bool) {
	if r.Whole() {
		return nil, true
	}
	columns, ok = r.Tables[strings.ToLower(table)]
	return columns, ok
}

// views lists the views that a role sees.
func (b *Backend) views(r *Role) []*pipeline.View {
	var out []*pipeline.View
	for _, v := range b.o.Lake.Views {
		if r.Whole() || r.Views[strings.ToLower(v.Name)] {
			out = append(out, v)
		}
	}
	return out
}

func (b *Backend) view(r *Role, name string) *pipeline.View {
	for _, v := range b.views(r) {
		if strings.EqualFold(v.Name, name) {
			return v
		}
	}
	return nil
}

// Roles lists the roles of the lake file; without any there is ReaderRole, which needs no password.
func (b *Backend) Roles() []*Role { return b.roles }

func rolesOf(l *pipeline.Lake) []*Role {
	var out []*Role
	for _, r := range l.Roles {
		role := &Role{Name: r.Name, Password: r.Password}
		if len(r.Tables) > 0 {
			role.Tables = map[string][]string{}
			for _, t := range r.Tables {
				role.Tables[strings.ToLower(t.Name)] = t.Columns
			}
		}
		if len(r.Views) > 0 {
			role.Views = map[string]bool{}
			for _, v := range r.Views {
				role.Views[strings.ToLower(v)] = true
			}
		}
		out = append(out, role)
	}
	if len(out) == 0 {
		out = append(out, &Role{Name: ReaderRole})
	}
	return out
}

// Authenticate gives the role of a name whose password it is; nil: there is none. It is the same *Role each time.
func (b *Backend) Authenticate(name, password string) *Role {
	// Hashes have one length, so that the comparison tells nothing of the password's.
	given := sha256.Sum256([]byte(password))
	for _, r := range b.roles {
		want := sha256.Sum256([]byte(r.Password))
		if strings.EqualFold(r.Name, name) && subtle.ConstantTimeCompare(given[:], want[:]) == 1 && r.Password != "" {
			return r
		}
	}
	return nil
}

// Open tells whether anybody may connect without a password.
func (b *Backend) Open() bool { return len(b.o.Lake.Roles) == 0 }

// table is one of the lake's tables as a role sees it.
type table struct {
	name    string
	columns []string // nil: all
	key     []string
	comment string
}

// tables lists the tables that a role sees, whether or not they have been written yet.
func (b *Backend) tables(r *Role) []table {
	var out []table
	for _, t := range b.o.Lake.Tables {
		if columns, ok := r.sees(t.Name); ok {
			v := table{name: t.Name, columns: columns, key: t.Key, comment: t.Comment}
			out = append(out, v)
		}
	}
	if columns, ok := r.sees(catalog.Quarantine); ok {
		out = append(out, table{name: catalog.Quarantine, columns: columns, comment: "records that did not fit, with the reason"})
	}
	return out
}

func (b *Backend) table(r *Role, name string) (table, bool) {
	for _, t := range b.tables(r) {
		if strings.EqualFold(t.name, name) {
			return t, true
		}
	}
	return table{}, false
}

// read lists the tables whose rows a role's statements can use, be it through views.
func (b *Backend) read(r *Role) []string {
	var out []string
	for _, t := range b.tables(r) {
		out = append(out, t.name)
	}
	for _, v := range b.views(r) {
		out = append(out, v.Tables...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// tableOfViews is a table with all its columns, as views read it whoever asks them.
func (b *Backend) tableOfViews(name string) (table, bool) {
	return b.table(&Role{}, name)
}

func (b *Backend) snapshot(ctx context.Context, name string) (*delta.Snapshot, error) {
	t, err := b.o.Ingest.Catalog().Open(ctx, name)
	if err != nil {
		return nil, b.notYet(name, err)
	}
	return t.Snapshot(ctx)
}

func (b *Backend) notYet(name string, err error) error {
	if errors.Is(err, delta.ErrNotATable) {
		return &Error{Code: CodeTable, Message: "relation \"" + name + "\" has no versions: nothing has been written to it yet", Hint: "cauce run batch or cauce run stream writes it"}
	}
	return err
}

// tableShape is what the catalogue tells of a table.
type tableShape struct {
	table
	fields []delta.Field
	rows   int64 // -1: unknown
	bytes  int64
}

// shapes lists the tables that a role sees and that exist.
func (b *Backend) shapes(ctx context.Context, r *Role, at func(ctx context.Context, name string) (*delta.Snapshot, error)) ([]tableShape, error) {
	var out []tableShape
	for _, t := range b.tables(r) {
		s, err := at(ctx, t.name)
		if notWritten(err) {
			out = append(out, tableShape{table: t, fields: b.declared(t)})
			continue
		}
		if err != nil {
			return nil, err
		}
		shape := tableShape{table: t, fields: t.visible(s.Schema().Fields)}
		for _, a := range s.Adds() {
			n, _ := fileCounts(a)
			if rows, known := n.(int64); known && shape.rows >= 0 {
				shape.rows += rows
			} else {
				shape.rows = -1
			}
			shape.bytes += a.Size
		}
		out = append(out, shape)
	}
	slices.SortFunc(out, func(a, b tableShape) int { return cmp.Compare(a.name, b.name) })
	return out, nil
}

func (b *Backend) declared(t table) []delta.Field {
	if d := b.o.Lake.Table(t.name); d != nil {
		return t.visible(d.DeltaSchema().Fields)
	}
	return t.visible(catalog.QuarantineSchema().Fields)
}

// visible gives the fields that may be seen.
func (t *table) visible(fields []delta.Field) []delta.Field {
	if t.columns == nil {
		return fields
	}
	var out []delta.Field
	for _, f := range fields {
		if slices.ContainsFunc(t.columns, func(c string) bool { return strings.EqualFold(c, f.Name) }) {
			out = append(out, f)
		}
	}
	return out
}
