package serve

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"

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
	Key     []string         `json:"-"` // of the lake file; nil where the role does not see all of it
	Arrow   *arrow.Schema    `json:"-"` // of its rows
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
		rel := Relation{Schema: SchemaPublic, Name: s.name, Comment: s.comment, Columns: columns(s.fields), Key: s.key, Arrow: arrowOf(s.fields)}
		if slices.ContainsFunc(s.key, func(k string) bool { return len(rel.Arrow.FieldIndices(k)) == 0 }) {
			rel.Key = nil
		}
		out = append(out, rel)
	}
	for _, v := range b.views(r) {
		out = append(out, Relation{Schema: SchemaPublic, Name: v.Name, View: true, Comment: v.Comment, Columns: columns(v.Columns), Arrow: arrowOf(v.Columns)})
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
		rel := Relation{Schema: SchemaLake, Name: name, View: true, Comment: v.comment, Columns: []RelationColumn{}, Arrow: arrow.NewSchema(v.fields, nil)}
		for _, f := range v.fields {
			rel.Columns = append(rel.Columns, RelationColumn{f.Name, f.Type.String()})
		}
		out = append(out, rel)
	}
	return out, nil
}

func arrowOf(fields []delta.Field) *arrow.Schema { return (&delta.Schema{Fields: fields}).Arrow() }
