package duckdb

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/ipc"

	"github.com/cauce-data/cauce/delta"
)

// Node is a part of a statement's tree as json_serialize_sql writes it.
type Node = map[string]any

// Name is how a statement names a table: schema and catalog are "" where it says none.
type Name struct {
	Catalog, Schema, Table string
	// AtUnit and At are of AT (VERSION => 3) or AT (TIMESTAMP => …): "version" or "timestamp", and the constant's text;
	// "" without.
	AtUnit, At string
}

// Relation is what stands for a name of a statement. One of Snapshot, Rows, Stream, View and Worker is set.
type Relation struct {
	// Snapshot is a table's version; Columns are those that may be seen (nil: all), Hide as in QueryTable.
	Snapshot *delta.Snapshot
	Columns  []string
	Hide     string
	// Rows are sent along, under Schema. Stream makes them step by step instead, so that more of them can be than memory
	// holds; it is read once, and a batch is used in its step only. Inner fields of its types may have other names than those
	// of Schema, the same in all batches.
	Schema *arrow.Schema
	Rows   []arrow.RecordBatch
	Stream func(ctx context.Context) iter.Seq2[arrow.RecordBatch, error]
	// View is another SELECT, whose names Names resolves. Nothing of the statement reaches into it: its names, and what it
	// leaves out, are its own.
	View  string
	Names Resolver
	// Worker is the name, quoted where it must be, of a relation that the worker has.
	Worker [2]string // schema, table
}

// Resolver gives the names of a statement their meaning. Everything that it does not know is refused.
type Resolver interface {
	// Table gives what stands for a table. What it does not know it refuses with ErrStatement.
	Table(ctx context.Context, n Name) (Relation, error)
	// Function gives what stands for a call in FROM; false leaves it to the list of allowed ones. It may change fn, the
	// tree of the call.
	Function(ctx context.Context, fn Node) (Relation, bool, error)
	// Select may change a SELECT before its parts are looked at. It is called for set operations too.
	Select(n Node) error
	// Expression may change the tree of an expression, or refuse it. It is called for each part, outer ones first.
	Expression(n Node) error
}

// Step is done in a worker before a statement runs: a temporary table is made of rows, or SQL is run.
type Step struct {
	Table string // made of Rows; "": SQL is run
	Items string // what is selected from the rows
	Rows  []byte // Arrow IPC stream
	SQL   string
	View  string // the name, for its readers, of the view that SQL makes
}

// ViewError says that a view cannot be made of its tables as they are at a version. What is wrong is not told: it would name
// what readers of the view may not see.
type ViewError struct{ View string }

func (e *ViewError) Error() string {
	return fmt.Sprintf("view %q cannot be read: its SELECT does not fit its tables as they are at this version", e.View)
}

// Shipped is a statement with all that another process needs to run it: it names only local files. Close it when the
// statement has run.
type Shipped struct {
	SQL         string
	Steps       []Step
	FilesTotal  int // data files of the tables that the statement names
	FilesOpened int
	BytesRead   int64 // size in bytes of the files that are opened
	Columns     []OutputColumn

	close []func() error
	names int // given to relations
}

// OutputColumn is what the tree tells of a column of a statement's result.
type OutputColumn struct {
	Column string // the last part of the column's name, where the item is nothing but a column
	Star   bool
}

// Close frees staged files.
func (s *Shipped) Close() error {
	var errs []error
	for _, f := range s.close {
		errs = append(errs, f())
	}
	s.close = nil
	return errors.Join(errs...)
}

func (s *Shipped) addRows(table, items string, schema *arrow.Schema, rows ...arrow.RecordBatch) error {
	var b bytes.Buffer
	w := ipc.NewWriter(&b, ipc.WithSchema(schema))
	for _, r := range rows {
		if err := w.Write(r); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	s.Steps = append(s.Steps, Step{Table: table, Items: items, Rows: b.Bytes()})
	return nil
}

// export writes a temporary table of the planner's connection to a file for the worker.
func (s *Shipped) export(ctx context.Context, e *Engine, c *conn, table string) (string, error) {
	path := e.tempPath("ship-", ".parquet")
	s.close = append(s.close, func() error {
		if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) { // it was not made
			return err
		}
		return nil
	})
	if err := c.exec(ctx, "COPY "+quoteName(table)+" TO "+quoteText(path)+" (FORMAT parquet)"); err != nil {
		return "", err
	}
	return "read_parquet(" + quoteText(globEscape.Replace(path)) + ")", nil
}

// addStream writes the rows of a relation to a file for the worker, under a name.
func (s *Shipped) addStream(ctx context.Context, e *Engine, c *conn, name string, rel Relation) error {
	stream, err := openStream(ctx, rel.Schema, rel.Stream(ctx))
	if err != nil {
		return err
	}
	view, file := e.name("stream_"), ""
	release, err := c.register(stream, view)
	if err == nil {
		file, err = s.export(ctx, e, c, view)
		release()
	}
	if streamErr := stream.stop(); streamErr != nil {
		return streamErr // DuckDB only knows that the stream failed
	}
	if err != nil {
		return err
	}
	s.Steps = append(s.Steps, Step{SQL: viewPrefix + quoteName(name) + " AS SELECT * FROM " + file})
	return nil
}

// shippedName is a relation under the name that it has in the statement that is sent.
type shippedName struct {
	name     string
	own      string // as the statement has it
	relation Relation
}

// resolving keeps what a resolver answered during one statement.
type resolving struct {
	ctx       context.Context
	conn      *conn
	r         Resolver
	inside    bool // a view
	names     *int // given to relations so far
	relations []shippedName
}

// table puts what stands for a table into its place in the tree, and gives its name there; "": the worker knows it.
func (w *resolving) table(n node) (_ string, err error) {
	name := Name{}
	name.Table, _ = n["table_name"].(string)
	name.Schema, _ = n["schema_name"].(string)
	name.Catalog, _ = n["catalog_name"].(string)
	if at, ok := n["at_clause"].(node); ok {
		name.AtUnit, _ = at["unit"].(string)
		name.AtUnit = strings.ToLower(name.AtUnit)
		if name.At, err = w.moment(at["expr"]); err != nil {
			return "", err
		}
		if name.At == "" {
			return "", fmt.Errorf("%w: AT (…) on table %s wants a constant: AT (VERSION => 3), AT (TIMESTAMP => '2024-08-20 12:00:00') or AT (TIMESTAMP => now() - INTERVAL 1 DAY)", ErrStatement, name.Table)
		}
	}
	rel, err := w.r.Table(w.ctx, name)
	if err != nil {
		return "", err
	}
	return w.put(n, name.Table, rel), nil
}

// moment gives the text of an AT (…) as DuckDB evaluates it in the session's zone, instants in ISO 8601; "": it is no constant, or
// NULL.
func (w *resolving) moment(expr any) (string, error) {
	n, _ := expr.(node)
	if n["class"] == "CONSTANT" {
		text, _ := constantText(n)
		return text, nil
	}
	if !constantTree(n, func(string) bool { return false }) || !cheapTree(n) {
		return "", nil
	}
	sql, err := w.conn.expression(w.ctx, n)
	if err != nil {
		return "", err
	}
	row, err := w.conn.one(w.ctx, "SELECT CASE WHEN typeof(v) = 'TIMESTAMP WITH TIME ZONE' THEN strftime(v::TIMESTAMPTZ AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S.%fZ') ELSE v::VARCHAR END FROM (SELECT "+sql+"\n AS v)")
	if err != nil {
		return "", &StatementError{err}
	}
	text, _ := row[0].(string)
	return text, nil
}

func (w *resolving) function(n, fn node) (bool, error) {
	rel, ok, err := w.r.Function(w.ctx, fn)
	if err != nil {
		return false, err
	}
	if !ok {
		// In PostgreSQL the alias of a function that gives one column names the column too; in DuckDB the name alone is a struct.
		name, _ := fn["function_name"].(string)
		if alias, _ := n["alias"].(string); alias != "" && absent(n["column_name_alias"]) && slices.Contains([]string{"generate_series", "range", "unnest"}, strings.ToLower(name)) {
			n["column_name_alias"] = []any{alias}
		}
		return false, nil
	}
	name, _ := fn["function_name"].(string)
	delete(n, "function")
	delete(n, "with_ordinality")
	n["type"] = "BASE_TABLE"
	w.put(n, name, rel)
	return true, nil
}

func (w *resolving) put(n node, own string, rel Relation) string {
	if a, _ := n["alias"].(string); a == "" {
		n["alias"] = own
	}
	n["schema_name"], n["catalog_name"], n["at_clause"] = "", "", nil
	if rel.Worker[1] != "" {
		n["schema_name"], n["table_name"] = rel.Worker[0], rel.Worker[1]
		return ""
	}
	name := fmt.Sprintf("cauce_%d_%s", *w.names, own)
	*w.names++
	if w.inside { // so that no WITH of the statement can take its place
		n["catalog_name"], n["schema_name"] = "temp", "main"
	}
	w.relations = append(w.relations, shippedName{name, own, rel})
	n["table_name"] = name
	if rel.Snapshot == nil {
		return ""
	}
	return name
}

// constantText gives the text of a constant, also where it is cast or has a sign.
func constantText(v any) (string, bool) {
	n, ok := v.(node)
	if !ok {
		return "", false
	}
	switch n["class"] {
	case "CAST":
		return constantText(n["child"])
	case "CONSTANT":
		val, _ := n["value"].(node)
		switch x := val["value"].(type) {
		case string:
			return x, true
		case json.Number:
			if _, text, _, ok := literalValue(n); ok { // the tree has a decimal's digits and where its point stands
				return text, true
			}
			return x.String(), true
		case bool:
			return fmt.Sprint(x), true
		}
	}
	return "", false
}

// ConstantText gives the text of a constant of a tree, also where it is cast.
func ConstantText(v any) (string, bool) { return constantText(v) }

// Ship makes a statement ready for a worker: the gate checks it, the resolver says what its names mean, and the files
// that it needs are chosen and made local. Nothing of the statement runs here but plain constants; zone is the time zone in
// which they are read.
func (e *Engine) Ship(ctx context.Context, sql, zone string, r Resolver) (_ *Shipped, err error) {
	c, err := e.acquire(ctx)
	if err != nil {
		return nil, err
	}
	out := &Shipped{}
	defer func() {
		_ = c.exec(context.WithoutCancel(ctx), "ROLLBACK") // fails where no transaction was begun
		_ = c.exec(context.WithoutCancel(ctx), "SET TimeZone = 'UTC'")
		err = errors.Join(err, c.release())
		if err != nil {
			err = errors.Join(err, out.Close())
		}
	}()
	if zone != "" && zone != "UTC" {
		if err := c.exec(ctx, "SET TimeZone = "+quoteText(zone)); err != nil {
			return nil, err
		}
	}
	if err := c.exec(ctx, "BEGIN TRANSACTION"); err != nil {
		return nil, err
	}
	q, err := parseQuery(ctx, c, sql, &resolving{ctx: ctx, conn: c, r: r, names: &out.names})
	if err != nil {
		return nil, err
	}
	out.Columns = outputColumns(q.node)
	out.SQL, err = e.shipQuery(ctx, c, out, q)
	return out, err
}

// shipQuery adds what a statement reads to out and gives its SQL.
func (e *Engine) shipQuery(ctx context.Context, c *conn, out *Shipped, q *parsedQuery) (string, error) {
	tables := map[string]*QueryTable{}
	for _, s := range q.relations {
		if s.relation.Snapshot != nil {
			tables[strings.ToLower(s.name)] = &QueryTable{Name: s.name, Snapshot: s.relation.Snapshot, Hide: s.relation.Hide, columns: s.relation.Columns}
		}
	}
	wanted, err := q.predicates(ctx, c, tables)
	if err != nil {
		return "", err
	}
	for _, s := range q.relations {
		if s.relation.View != "" {
			if err := e.shipView(ctx, c, out, s); err != nil {
				return "", err
			}
			continue
		}
		if s.relation.Stream != nil {
			if err := out.addStream(ctx, e, c, s.name, s.relation); err != nil {
				return "", err
			}
			continue
		}
		if s.relation.Snapshot == nil {
			if err := out.addRows(s.name, "*", s.relation.Schema, s.relation.Rows...); err != nil {
				return "", err
			}
			continue
		}
		if err := e.shipTable(ctx, c, out, s, wanted[strings.ToLower(s.name)], q.metadata); err != nil {
			return "", err
		}
	}
	return c.deserialize(ctx, q.node)
}

// shipView makes a view of the worker of another SELECT. Its LIMIT keeps conditions of the statement from being tried on
// rows that the view leaves out: what such a condition fails on, it tells. DuckDB 1.5 does not move conditions that can fail
// below others, as far as was tried; nothing promises that.
func (e *Engine) shipView(ctx context.Context, c *conn, out *Shipped, s shippedName) error {
	q, err := parseQuery(ctx, c, s.relation.View, &resolving{ctx: ctx, conn: c, r: s.relation.Names, inside: true, names: &out.names})
	if err != nil {
		return err
	}
	sql, err := e.shipQuery(ctx, c, out, q)
	if err != nil {
		return err
	}
	out.Steps = append(out.Steps, Step{View: s.own, SQL: "CREATE OR REPLACE TEMP VIEW " + quoteName(s.name) + " AS SELECT * FROM (" + sql + "\n) LIMIT 9223372036854775807"})
	return nil
}

func (e *Engine) shipTable(ctx context.Context, c *conn, out *Shipped, s shippedName, where delta.Predicate, metadata bool) error {
	snap := s.relation.Snapshot
	var files []delta.File
	var err error
	if where == nil {
		files, err = snap.Files(ctx)
	} else {
		files, err = snap.Files(ctx, where)
	}
	if err != nil {
		return err
	}
	out.FilesTotal += snap.NumFiles()
	out.FilesOpened += len(files)
	for _, f := range files {
		out.BytesRead += f.Add.Size
	}
	sc, body, err := e.queryScan(ctx, c, snap, files, metadata, out)
	if err != nil {
		return err
	}
	out.close = append(out.close, func() error { return sc.local.Close() })
	if s.relation.Hide != "" || s.relation.Columns != nil {
		items := "*"
		if s.relation.Columns != nil {
			quoted := make([]string, len(s.relation.Columns))
			for i, c := range s.relation.Columns {
				quoted[i] = quoteName(c)
			}
			items = strings.Join(quoted, ", ")
		}
		body = "SELECT " + items + " FROM (" + body + "\n)"
		if s.relation.Hide != "" {
			body += " WHERE " + s.relation.Hide
		}
	}
	out.Steps = append(out.Steps, Step{SQL: "CREATE OR REPLACE TEMP VIEW " + quoteName(s.name) + " AS " + body})
	return nil
}

// outputColumns reads the select list of a statement's first SELECT.
func outputColumns(n node) []OutputColumn {
	for {
		if left, ok := n["left"].(node); ok { // of a set operation
			n = left
			continue
		}
		break
	}
	var out []OutputColumn
	for _, item := range list(n["select_list"]) {
		var c OutputColumn
		switch item["class"] {
		case "COLUMN_REF":
			if names, _ := item["column_names"].([]any); len(names) > 0 {
				c.Column, _ = names[len(names)-1].(string)
			}
		case "STAR":
			c.Star = true
		}
		out = append(out, c)
	}
	return out
}

// StageDirs are the folders in which the files of shipped statements lie, beside those of stores on local disk.
func (e *Engine) StageDirs() []string { return []string{e.temp} }
