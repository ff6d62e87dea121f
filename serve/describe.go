package serve

import (
	"context"
	"errors"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/engine/duckdb"
	"github.com/cauce-data/cauce/pipeline"
	"github.com/cauce-data/cauce/serve/sqltext"
)

// Describes tells whether a statement may be one of those that read what the log tells of a table, in Spark's spelling:
// DESCRIBE HISTORY t and its like. They give rows, and can be no part of other statements.
func Describes(st *sqltext.Statement) bool {
	switch st.Word(0) {
	case "DESCRIBE", "DESC":
		return st.Text(1) != "(" && !duckdb.BeginsQuery(st.Word(1))
	case "SHOW":
		return len(st.Tokens) > 2 && (st.Word(1) == "TBLPROPERTIES" || st.Word(1) == "PARTITIONS")
	}
	return false
}

// described makes such a statement ready for a worker; nil where the statement is another one.
func (r *resolver) described(ctx context.Context, sql string) (*duckdb.Shipped, error) {
	if !Describes(sqltext.One(sql)) {
		return nil, nil
	}
	st, err := r.s.b.o.Engine.ParseStatement(sql)
	var syntax *pipeline.SyntaxError
	if errors.As(err, &syntax) {
		return nil, errorf(CodeSyntax, "%v", err)
	}
	if err != nil || st == nil || !st.Reads() {
		return nil, err
	}
	t, ok := r.s.b.table(r.s.Role, st.Table)
	if !ok {
		if v := r.s.b.view(r.s.Role, st.Table); v != nil {
			return nil, errorf(CodeNotSupported, "%s: %q is a view; write DESCRIBE SELECT * FROM %s or ask information_schema.columns", st.Kind, v.Name, v.Name)
		}
		return nil, errorf(CodeTable, "relation %q does not exist", st.Table)
	}
	// Conditions, figures and values of rows stand in the log, whichever columns they are about.
	if t.columns != nil && !st.OfColumns() {
		return nil, errorf(CodePermission, "permission denied: %s %s tells of more than the columns that role %s may read; DESCRIBE %s lists those", st.Kind, t.name, r.s.Role.Name, t.name)
	}
	n := duckdb.Name{Table: t.name}
	if err := r.asOf(&n, t.name); err != nil {
		return nil, err
	}
	rel, err := r.lakeTable(ctx, t, n)
	if err != nil {
		return nil, err
	}
	if rel.Snapshot == nil { // nothing has been written to it yet
		if !st.OfColumns() {
			return nil, r.s.b.notYet(t.name, delta.ErrNotATable)
		}
		var names, types []string
		for _, f := range r.s.b.declared(t) {
			names, types = append(names, f.Name), append(types, duckdb.TypeName(f.Type))
		}
		return r.s.b.o.Engine.ShipRelation(ctx, duckdb.DescribeColumns(names, types))
	}
	rows, err := st.Describe(ctx, rel.Snapshot, rel.Columns)
	if err != nil {
		var statement *duckdb.StatementError
		if errors.As(err, &statement) {
			return nil, errorf(CodeInvalidParameter, "%v", err)
		}
		return nil, err
	}
	return r.s.b.o.Engine.ShipRelation(ctx, rows)
}
