package serve

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/cauce-data/cauce/catalog"
	"github.com/cauce-data/cauce/delta"
)

// Relation is what a role may name in FROM.
type Relation struct {
	Schema  string           `json:"schema"`
	Name    string           `json:"name"`
	View    bool             `json:"view"`
	Comment string           `json:"comment,omitempty"`
	Columns []RelationColumn `json:"columns"`
}

// RelationColumn is a column of a Relation.
type RelationColumn struct {
	Name string `json:"name"`
	Type string `json:"type"` // Delta's name; Arrow's in the schema lake
}

// Relations lists what a role may read: tables, views and what the lake tells of itself.
func (b *Backend) Relations(ctx context.Context, r *Role) ([]Relation, error) {
	shapes, err := b.shapes(ctx, r, b.snapshot)
	if err != nil {
		return nil, err
	}
	columns := func(fields []delta.Field) []RelationColumn {
		out := []RelationColumn{}
		for _, f := range fields {
			out = append(out, RelationColumn{f.Name, f.Type.String()})
		}
		return out
	}
	out := []Relation{}
	for _, s := range shapes {
		out = append(out, Relation{Schema: SchemaPublic, Name: s.name, Comment: s.comment, Columns: columns(s.fields)})
	}
	for _, v := range b.views(r) {
		out = append(out, Relation{Schema: SchemaPublic, Name: v.Name, View: true, Comment: v.Comment, Columns: columns(v.Columns)})
	}
	// What was declared comes before the lake's own table of quarantined records.
	own := func(r Relation) int {
		if r.Name == catalog.Quarantine {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(out, func(a, b Relation) int {
		return cmp.Or(cmp.Compare(own(a), own(b)), cmp.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)))
	})
	for _, name := range slices.Sorted(maps.Keys(systemViews)) {
		if !r.Whole() && (name == "runs" || name == "gaps") {
			continue
		}
		v := systemViews[name]
		rel := Relation{Schema: SchemaLake, Name: name, View: true, Comment: v.comment, Columns: []RelationColumn{}}
		for _, f := range v.fields {
			rel.Columns = append(rel.Columns, RelationColumn{f.Name, f.Type.String()})
		}
		out = append(out, rel)
	}
	return out, nil
}
