package pipeline

import (
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Serve configures `cauce serve`.
type Serve struct {
	PGListen         string // host:port of PostgreSQL's protocol; "": the command's default
	FlightListen     string // host:port of Arrow Flight SQL; "": it is not served
	TLSCert, TLSKey  string // PEM files, absolute; "": no TLS
	MemoryLimit      int64  // bytes that DuckDB may hold in one worker
	Workers          int    // 0: one per processor
	StatementTimeout time.Duration
	IdleTimeout      time.Duration // of a session that asks nothing; 0: none
	SessionsMax      int
}

// Role is who may read over `cauce serve`.
type Role struct {
	Name     string
	Password string
	// Tables and Views are what the role sees; both empty: everything.
	Tables []RoleTable
	Views  []string // names as views declares them
}

// RoleTable is a table that a role sees.
type RoleTable struct {
	Name    string
	Columns []string // nil: all
}

var serveShape = &shape{kind: kindObject, doc: "How `cauce serve` answers SQL.", example: "{pg_listen: \"127.0.0.1:5432\"}", keys: []keyShape{
	{"pg_listen", text("Address (host:port) for PostgreSQL's protocol. `cauce up` serves it too where this is given. An address other than loopback needs roles and tls.", "127.0.0.1:5432"), false},
	{"flight_listen", text("Address (host:port) for Arrow Flight SQL, which is served only where this is given. An address other than loopback needs roles and tls.", "127.0.0.1:32010"), false},
	{"tls", &shape{kind: kindObject, doc: "Certificate of the server. With it, PostgreSQL's connections from other machines must be encrypted, those of loopback may be, and Flight SQL is always.", example: "{cert: server.crt, key: server.key}", keys: []keyShape{
		{"cert", text("PEM file with the certificate and those above it, relative to the lake file.", "server.crt"), true},
		{"key", text("PEM file with its key.", "server.key"), true},
	}}, false},
	{"memory_limit", &shape{kind: kindSize, min: 64 << 20, doc: "What one statement may hold in memory; what is larger goes to .cauce/tmp as far as it can, else the statement fails.", def: "1GiB", example: "2GiB"}, false},
	{"workers", &shape{kind: kindInt, min: 1, max: 256, doc: "Statements that run at the same time, each in a process of its own; those that have run for half a second make room for others, up to four for each, and give way to them. Default: one per processor.", example: "4"}, false},
	{"statement_timeout", &shape{kind: kindDuration, min: 1_000_000, doc: "The longest that a statement may take; sessions may set a shorter one.", def: "10m", example: "10m"}, false},
	{"idle_timeout", &shape{kind: kindDuration, min: 1_000_000, doc: "A session that asks nothing for so long is ended.", def: "8h", example: "8h"}, false},
	{"sessions_max", &shape{kind: kindInt, min: 1, max: 100_000, doc: "Connections at the same time.", def: "400", example: "400"}, false},
}}

var roleShape = &shape{
	kind: kindObject, doc: "A name under which people and tools connect to `cauce serve`.", example: "{password: \"${env:ANALYST_PASSWORD}\", tables: {events: [id, price]}}",
	keys: []keyShape{
		{"password", text("Its password; let it come from the environment or from a file.", "${env:ANALYST_PASSWORD}"), true},
		{"tables", &shape{kind: kindDict, doc: "The tables that the role sees, each with the columns that it sees (none given: all). Default: every table, or none where views is given.", example: "{events: [id, price]}",
			elem: names("The columns that the role sees; none: all.", "[id, price]")}, false},
		{"views", &shape{kind: kindList, elem: &shape{kind: kindText}, doc: "The views that the role sees, of those in views. Default: every view, or none where tables is given.", example: "[by_day]"}, false},
	},
}

// serve reads the keys serve and roles.
func (b *builder) serve(v *value) {
	l := b.lake
	s := v.get("serve")
	num := func(key string) int64 {
		if x := s.get(key); x != nil {
			return x.num
		}
		switch def := defaultOf("serve." + key); key {
		case "memory_limit":
			n, err := ParseSize(def)
			if err != nil {
				panic("BUG: default of serve." + key)
			}
			return n
		case "statement_timeout", "idle_timeout":
			d, err := parseDuration(def)
			if err != nil {
				panic("BUG: default of serve." + key)
			}
			return int64(d)
		default:
			n, _ := strconv.ParseInt(def, 10, 64) // workers has none
			return n
		}
	}
	file := func(x *value) string {
		if x == nil || filepath.IsAbs(x.text) {
			return x.str("")
		}
		return filepath.Join(l.Dir, x.text)
	}
	l.Serve = Serve{
		PGListen: s.get("pg_listen").str(""), FlightListen: s.get("flight_listen").str(""), TLSCert: file(s.get("tls").get("cert")), TLSKey: file(s.get("tls").get("key")),
		MemoryLimit: num("memory_limit"), Workers: int(num("workers")), SessionsMax: int(num("sessions_max")),
		StatementTimeout: time.Duration(num("statement_timeout")), IdleTimeout: time.Duration(num("idle_timeout")),
	}
	for _, key := range []string{"pg_listen", "flight_listen"} {
		if x := s.get(key); x != nil {
			if host, port, err := net.SplitHostPort(x.text); err != nil || host == "" || port == "" {
				b.r.errorf(x.at, "host and port, such as 127.0.0.1:5432; 0.0.0.0 for every address of the machine", "serve.%s: %s is no address to listen on", key, strconv.Quote(clip(x.shown)))
			}
		}
	}
	roles := v.get("roles")
	if roles == nil {
		return
	}
	for _, e := range roles.keys {
		b.name(e, "role")
		r := Role{Name: e.name}
		if p := e.v.get("password"); p != nil {
			r.Password = p.text
			if r.Password == "" {
				b.r.errorf(p.at, "", "role %s has an empty password", e.name)
			}
			if p.text == p.shown {
				b.warnf(p.at, `write it as "${env:NAME}" or "${file:PATH}"`, "the password of role %s stands in the lake file for everybody to read", e.name)
			}
		}
		if tables := e.v.get("tables"); tables != nil {
			for _, te := range tables.keys {
				b.roleTable(&r, te)
			}
		}
		if views := e.v.get("views"); views != nil {
			for _, x := range views.items {
				b.roleView(&r, x)
			}
		}
		if e.v != nil {
			for _, k := range e.v.keys { // an empty list must not come to mean everything
				if (k.name == "tables" || k.name == "views") && len(k.v.keys)+len(k.v.items) == 0 {
					b.r.errorf(k.at, "leave the key out, or name what the role may see", "role %s: %s names nothing", e.name, k.name)
				}
			}
		}
		for _, o := range l.Roles {
			if strings.EqualFold(o.Name, r.Name) {
				b.r.errorf(e.at, "names ignore case", "role %s is declared twice", r.Name)
			}
		}
		l.Roles = append(l.Roles, r)
	}
}

func (b *builder) roleView(r *Role, x *value) {
	view := b.lake.View(x.text)
	if view == nil {
		var all []string
		for _, o := range b.lake.Views {
			all = append(all, o.Name)
		}
		b.r.errorf(x.at, suggest(x.text, all), "role %s: there is no view %s", r.Name, strconv.Quote(clip(x.shown)))
		return
	}
	r.Views = append(r.Views, view.Name)
}

func (b *builder) roleTable(r *Role, e entry) {
	t := b.lake.Table(e.name)
	if t == nil && !strings.EqualFold(e.name, "quarantine") {
		var all []string
		for _, o := range b.lake.Tables {
			all = append(all, o.Name)
		}
		b.r.errorf(e.at, suggest(e.name, all), "role %s: there is no table %s", r.Name, strconv.Quote(clip(e.name)))
		return
	}
	rt := RoleTable{Name: e.name}
	if e.v != nil {
		for _, c := range e.v.items {
			if t != nil {
				if _, ok := t.Column(c.text); !ok && t.DeltaSchema().Index(c.text) < 0 {
					b.r.errorf(c.at, "", "role %s: table %s has no column %s", r.Name, t.Name, strconv.Quote(clip(c.shown)))
				}
			}
			rt.Columns = append(rt.Columns, c.text)
		}
	}
	r.Tables = append(r.Tables, rt)
}
