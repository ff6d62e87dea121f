package pipeline

import (
	"net/url"
	"strings"
)

// Plan is a source compiled for engines. The order for each record is: Filter, Fields, cast to the columns' types,
// then Steps (each followed by the cast of the columns that it set), not-null checks, Expect.
//
// In Filter, Fields and Delete a Name is a raw field, which is text or null; everywhere else it is a declared column in
// the spelling of the table. Names, functions, number and kinds of arguments have been checked.
type Plan struct {
	Source *Source
	Table  *Table
	// RawFields are the raw fields that Filter, Fields and Delete read, sorted.
	RawFields []string
	// Required are those raw fields that a file must have, sorted; a file that lacks one is refused as a whole.
	Required []string
	// Implied are the columns that no field maps and that a raw field of the same name fills if a record has it. Fields
	// holds their assignments too.
	Implied []string
	Filter  Expr // nil: every record passes. A record passes only if it is true.
	// Fields has one assignment for each column that is mapped or implied, in the order of the table's columns. Columns
	// without one start as null (ingested_at: the time of the epoch).
	Fields []Assign
	Delete Expr // nil: never. A record is a deletion only if it is true.
	Steps  []CompiledStep
	Expect []CompiledExpectation
	// Hash is the hex SHA-256 of everything that decides which rows a record becomes.
	Hash string
}

// Uses tells whether a function stands in what reads a record: Filter, Fields and Delete.
func (p *Plan) Uses(function string) bool {
	found := false
	look := func(e Expr) {
		Walk(e, func(e Expr) {
			c, ok := e.(Call)
			found = found || ok && c.Func == function
		})
	}
	look(p.Filter)
	look(p.Delete)
	for _, f := range p.Fields {
		look(f.Expr)
	}
	return found
}

// PartitionValueMax is how many bytes the value of a partition column may take in the name of its folder, column=value: file
// systems take 255 for a name. Letters, digits and the characters - . _ ~ take one byte each, and others three for each
// byte of theirs, as DuckDB writes names of folders, which escapes no less than Spark does. A row with a longer value goes
// to quarantine, on every engine and store.
func PartitionValueMax(column string) int {
	return 255 - len("=") - len(strings.ReplaceAll(url.QueryEscape(column), "+", "%20"))
}

// Assign gives a column the value of an expression, cast to the column's type.
type Assign struct {
	Column string
	Expr   Expr
}

// CompiledStep is a Step; exactly one field is set.
type CompiledStep struct {
	Set   []Assign
	Where Expr
}

// CompiledExpectation is an Expectation.
type CompiledExpectation struct {
	Name   string
	Check  Expr
	OnFail string
}
