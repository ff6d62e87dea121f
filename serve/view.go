package serve

import (
	"context"

	"github.com/cauce-data/cauce/engine/duckdb"
	"github.com/cauce-data/cauce/pipeline"
)

// view gives a view of the lake file: another SELECT, which reads its tables whole, whatever the role sees of them.
func (r *resolver) view(v *pipeline.View, n duckdb.Name) (duckdb.Relation, error) {
	if n.AtUnit == "version" && len(v.Tables) != 1 {
		return duckdb.Relation{}, errorf(CodeNotSupported, "view %s reads several tables, which have versions of their own: AT (TIMESTAMP => …) reads it as it was", v.Name)
	}
	r.views = true
	return duckdb.Relation{View: v.SQL, Names: &viewResolver{r, v, n}}, nil
}

// viewResolver gives the names of a view their meaning: it knows tables of the lake, with all their columns, and nothing
// else. For the rest of the statement it is the gate that it wraps.
type viewResolver struct {
	*resolver
	view *pipeline.View
	as   duckdb.Name // how the statement names the view: AT (…) is passed on to its tables
}

// Table implements duckdb.Resolver.
func (r *viewResolver) Table(ctx context.Context, n duckdb.Name) (duckdb.Relation, error) {
	t, ok := r.s.b.tableOfViews(n.Table)
	if !ok || n.Schema != "" || n.Catalog != "" || n.AtUnit != "" {
		return duckdb.Relation{}, errorf(CodeInternal, "view %s cannot be read: it names what is no table of the lake", r.view.Name)
	}
	rel, err := r.lakeTable(ctx, t, duckdb.Name{Table: t.name, AtUnit: r.as.AtUnit, At: r.as.At})
	if err != nil && r.as.AtUnit != "" { // the reason names the table
		err = errorf(CodeInvalidParameter, "view %q cannot be read AT (%s => %s): what it reads has no such version", r.view.Name, r.as.AtUnit, r.as.At)
	}
	return rel, err
}

// Function implements duckdb.Resolver: table functions that read the lake are none of a view's.
func (r *viewResolver) Function(context.Context, duckdb.Node) (duckdb.Relation, bool, error) {
	return duckdb.Relation{}, false, nil
}

// Expression implements duckdb.Resolver: views are written for cauce query, too, where format is DuckDB's.
func (r *viewResolver) Expression(n duckdb.Node) error {
	if n["class"] == "FUNCTION" && n["function_name"] == "format" {
		return nil
	}
	return r.expression(n)
}
