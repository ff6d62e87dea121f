package pipeline

import "github.com/cauce-data/cauce/delta"

// Expr is a node of the lake file's one expression language (DESIGN D8): SQL expressions, parsed by the engine's own
// parser into this tree, checked here against the pinned functions, and rendered by each engine.
type Expr interface{ isExpr() }

// Literal is a constant. Value is nil (NULL), bool, int64, string, or Decimal.
type Literal struct{ Value any }

// Decimal is an exact decimal constant as written, such as "0.10".
type Decimal string

// Name refers to a raw field (in filter and fields) or a column (in transform and expect); case-exact for raw fields.
// A raw JSON path has its parts joined with dots.
type Name struct{ Name string }

// Call applies a pinned function or operator. Operators have their SQL spelling as Func, in lower case: "+", "-",
// "*", "/", "%", "||", "=", "<>", "<", "<=", ">", ">=", "and", "or", "not", "is null", "is not null", "in", "like", "neg".
type Call struct {
	Func string
	Args []Expr
}

// Cast converts to a Delta type ("decimal(18,8)", "long" …). Strict: a value that does not fit, or would lose digits,
// is a failed cast; Try gives null instead.
type Cast struct {
	Arg  Expr
	Type string
	Try  bool
}

// Case is CASE WHEN … THEN … ELSE … END.
type Case struct {
	Whens []When
	Else  Expr // nil: NULL
}

// When is one branch of Case.
type When struct{ Cond, Then Expr }

// Results are what a Case may become: of each branch, and last of ELSE.
func (c Case) Results() []Expr {
	var out []Expr
	for _, w := range c.Whens {
		out = append(out, w.Then)
	}
	if c.Else == nil {
		return append(out, Literal{})
	}
	return append(out, c.Else)
}

func (Literal) isExpr() {}
func (Name) isExpr()    {}
func (Call) isExpr()    {}
func (Cast) isExpr()    {}
func (Case) isExpr()    {}

// Parser turns the text of an SQL expression into an Expr. engine/duckdb implements it with DuckDB's own parser.
type Parser interface {
	ParseExpr(sql string) (Expr, error) // *SyntaxError where the text is not an expression
	// ParseQuery checks one SELECT over some relations. The error says what is wrong with it: *SyntaxError where its text is
	// no SELECT, else any other.
	ParseQuery(sql string, relations []Relation) (*Query, error)
	// Fits tells whether an expression that names nothing becomes a value of a type, by the rules of a strict Cast in a zone.
	Fits(e Expr, to delta.Type, zone string) (bool, error)
}

// Relation is a table as a query sees it.
type Relation struct {
	Name    string
	Columns []delta.Field
}

// Query is what is known of a SELECT.
type Query struct {
	Tables  []string      // that it names
	Columns []delta.Field // of its result
}

// SyntaxError is a parse error at a byte offset of the expression's text (-1 if unknown).
type SyntaxError struct {
	Offset int
	Msg    string
}

func (e *SyntaxError) Error() string { return e.Msg }
