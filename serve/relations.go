package serve

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/cauce-data/cauce/catalog"
	"github.com/cauce-data/cauce/delta"
)

// Kinds of relations, as catalogues name them.
const (
	KindTable = "TABLE"
	KindView  = "VIEW"
)

// Relation is a table or view that a role sees.
type Relation struct {
	Schema, Name string
	Kind         string // KindTable or KindView
	Key          []string
	Columns      *arrow.Schema
}

// Relations lists the tables and views of the session's role, by schema and name, as the session's transaction sees them.
func (s *Session) Relations(ctx context.Context) ([]Relation, error) {
	shapes, err := s.b.shapes(ctx, s.Role, s.snapshot)
	if err != nil {
		return nil, err
	}
	var out []Relation
	for name, v := range systemViews {
		out = append(out, Relation{Schema: SchemaLake, Name: name, Kind: KindView, Columns: arrow.NewSchema(v.fields, nil)})
	}
	for _, v := range s.b.views(s.Role) {
		out = append(out, Relation{Schema: SchemaPublic, Name: v.Name, Kind: KindView, Columns: (&delta.Schema{Fields: v.Columns}).Arrow()})
	}
	for _, t := range shapes {
		columns := (&delta.Schema{Fields: t.fields}).Arrow()
		key := t.key
		for _, k := range key {
			if len(columns.FieldIndices(k)) == 0 { // a role that does not see all of the key sees no key
				key = nil
				break
			}
		}
		out = append(out, Relation{Schema: SchemaPublic, Name: t.name, Kind: KindTable, Key: key, Columns: columns})
		if t.name == catalog.Quarantine {
			out = append(out, Relation{Schema: SchemaLake, Name: t.name, Kind: KindView, Columns: columns})
		}
	}
	slices.SortFunc(out, func(a, b Relation) int {
		return cmp.Or(strings.Compare(a.Schema, b.Schema), strings.Compare(a.Name, b.Name))
	})
	return out, nil
}

// CheckListen refuses an address that others than this machine reach, unless there are roles and a certificate.
func (b *Backend) CheckListen(addr net.Addr, encrypted bool) error {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || tcp.IP.IsLoopback() {
		return nil
	}
	switch {
	case b.Open():
		return fmt.Errorf("%s is reachable from other machines, and the lake file has no roles: add roles with passwords, or listen on 127.0.0.1", addr)
	case !encrypted:
		return fmt.Errorf("%s is reachable from other machines, and the lake file has no serve.tls: name a certificate, or listen on 127.0.0.1", addr)
	}
	return nil
}
