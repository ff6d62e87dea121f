package duckdb

import (
	"strings"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/delta/expr"
)

// definition is a column as CREATE TABLE and ADD COLUMNS define it.
type definition struct {
	path     []string
	field    delta.Field
	position delta.Position
	from     int // of its text
}

// path reads a column's name with the names of the structs around it.
func (p *statementParser) path() ([]string, error) {
	var out []string
	for {
		n, err := p.name("a column")
		if err != nil {
			return nil, err
		}
		if out = append(out, n); !p.char(".") {
			return out, nil
		}
	}
}

// typ reads a type: a word, and what stands in brackets behind it.
func (p *statementParser) typ() (delta.Type, error) {
	from := p.here()
	start := p.at
	if p.upper(p.at) == "" {
		return nil, p.bad(from, "a type is expected")
	}
	p.at++
	for open, shut := range map[string]string{"(": ")", "<": ">"} {
		if p.at >= len(p.tokens) || p.tokens[p.at].text != open || p.tokens[p.at].kind != 'c' {
			continue
		}
		for depth := 0; ; p.at++ {
			if p.at >= len(p.tokens) {
				return nil, p.bad(from, "%s is expected", shut)
			}
			if t := p.tokens[p.at]; t.kind == 'c' && t.text == open {
				depth++
			} else if t.kind == 'c' && t.text == shut {
				if depth--; depth == 0 {
					break
				}
			}
		}
		p.at++
		break
	}
	t, err := delta.ParseType(p.sql[p.tokens[start].from:p.tokens[p.at-1].to])
	if err != nil {
		return nil, p.bad(from, "%v", err)
	}
	return t, nil
}

// quoted reads a text.
func (p *statementParser) quoted(what string) (string, error) {
	if p.at < len(p.tokens) && p.tokens[p.at].kind == 's' {
		p.at++
		return p.tokens[p.at-1].text, nil
	}
	return "", p.bad(p.here(), "%s in quotes is expected", what)
}

// definitions reads columns with commas between them up to a token.
func (p *statementParser) definitions(end int) ([]definition, error) {
	var out []definition
	for {
		d, err := p.definition(end)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
		if p.at == end {
			return out, nil
		}
		if !p.char(",") {
			return nil, p.bad(p.here(), "a comma or the end of the column is expected, not %q", p.tokens[p.at].text)
		}
	}
}

func (p *statementParser) definition(end int) (d definition, err error) {
	d.from = p.here()
	if d.path, err = p.path(); err != nil {
		return d, err
	}
	d.field = delta.Field{Name: d.path[len(d.path)-1], Nullable: true, Metadata: map[string]any{}}
	if d.field.Type, err = p.typ(); err != nil {
		return d, err
	}
	for p.at < end {
		switch {
		case p.take("NOT", "NULL"):
			d.field.Nullable = false
		case p.take("NULL"):
		case p.take("COMMENT"):
			text, err := p.quoted("a comment")
			if err != nil {
				return d, err
			}
			d.field.Metadata["comment"] = text
		case p.take("DEFAULT"):
			x, err := p.expr(p.valueEnd(end), "a value")
			if err != nil {
				return d, err
			}
			d.field.Metadata["CURRENT_DEFAULT"] = x.String()
		case p.take("GENERATED"):
			if p.take("BY", "DEFAULT") || p.upper(p.at+2) == "IDENTITY" {
				return d, &StatementError{&delta.UnsupportedError{What: "writer feature", Names: []string{"identityColumns"}}}
			}
			if err := p.need("ALWAYS", "AS"); err != nil {
				return d, err
			}
			x, err := p.bracket("an expression")
			if err != nil {
				return d, err
			}
			d.field.Metadata["delta.generationExpression"] = x.String()
		case p.take("FIRST"):
			d.position = delta.Position{First: true}
		case p.take("AFTER"):
			if d.position.After, err = p.name("a column"); err != nil {
				return d, err
			}
		default:
			return d, nil
		}
	}
	return d, nil
}

// valueEnd finds where the value of a DEFAULT ends: at the next comma, or at what else may follow in a definition.
func (p *statementParser) valueEnd(end int) int {
	stop := p.list(end)[0]
	for i := p.at; i < stop; i++ {
		if p.tokens[i].depth != p.tokens[p.at].depth {
			continue
		}
		switch p.upper(i) {
		case "COMMENT", "FIRST", "AFTER", "GENERATED":
			return i
		case "NOT":
			if p.upper(i+1) == "NULL" && i > p.at && p.upper(i-1) != "IS" {
				return i
			}
		}
	}
	return stop
}

// bracket reads an expression in brackets.
func (p *statementParser) bracket(what string) (expr.Expr, error) {
	end, err := p.bracketEnd()
	if err != nil {
		return nil, err
	}
	x, err := p.expr(end, what)
	p.at = end + 1
	return x, err
}

// bracketEnd goes into brackets and gives the place of the closing one.
func (p *statementParser) bracketEnd() (int, error) {
	open := p.at
	if !p.char("(") {
		return 0, p.bad(p.here(), "( is expected")
	}
	for i := p.at; i < len(p.tokens); i++ {
		if t := p.tokens[i]; t.kind == 'c' && t.text == ")" && t.depth == p.tokens[open].depth {
			return i, nil
		}
	}
	return 0, p.bad(p.here(), ") is expected")
}

// properties reads ('key' = 'value', …); without values for UNSET.
func (p *statementParser) properties(values bool) (map[string]string, []string, error) {
	if !p.char("(") {
		return nil, nil, p.bad(p.here(), "( is expected")
	}
	set := map[string]string{}
	var names []string
	for {
		var key string
		if p.at < len(p.tokens) && p.tokens[p.at].kind == 's' {
			key = p.tokens[p.at].text
			p.at++
		} else {
			path, err := p.path()
			if err != nil {
				return nil, nil, err
			}
			key = strings.Join(path, ".")
		}
		if values {
			p.char("=")
			if p.at >= len(p.tokens) || p.tokens[p.at].kind == 'c' {
				return nil, nil, p.bad(p.here(), "a value for %s is expected", key)
			}
			set[key] = p.tokens[p.at].text
			p.at++
		}
		names = append(names, key)
		if p.char(")") {
			return set, names, nil
		}
		if !p.char(",") {
			return nil, nil, p.bad(p.here(), "a comma or ) is expected")
		}
	}
}

func (p *statementParser) create() (s *Statement, err error) {
	s = &Statement{Kind: "CREATE TABLE", Create: &delta.CreateOptions{Schema: &delta.Schema{}}}
	c := s.Create
	p.at += 2
	c.IfNotExists = p.take("IF", "NOT", "EXISTS")
	if s.Table, err = p.table(); err != nil {
		return nil, err
	}
	end, err := p.bracketEnd()
	if err != nil {
		return nil, p.bad(p.here(), "the columns in brackets are expected (CREATE TABLE … AS is not supported: create the table, then INSERT)")
	}
	defs, err := p.definitions(end)
	if err != nil {
		return nil, err
	}
	p.at = end + 1
	for _, d := range defs {
		if len(d.path) > 1 || d.position != (delta.Position{}) {
			return nil, p.bad(d.from, "%s: a new table's columns stand in the order given, members of structs in their type", d.field.Name)
		}
		c.Schema.Fields = append(c.Schema.Fields, d.field)
	}
	names := func() ([]string, error) {
		if !p.char("(") {
			return nil, p.bad(p.here(), "( is expected")
		}
		return p.columns()
	}
	for p.at < len(p.tokens) {
		switch {
		case p.take("USING"):
			if err = p.need("DELTA"); err != nil {
				return nil, err
			}
		case p.take("PARTITIONED", "BY"):
			if c.PartitionBy, err = names(); err != nil {
				return nil, err
			}
		case p.take("CLUSTER", "BY"):
			if c.ClusterBy, err = names(); err != nil {
				return nil, err
			}
		case p.take("COMMENT"):
			if c.Description, err = p.quoted("a comment"); err != nil {
				return nil, err
			}
		case p.take("TBLPROPERTIES"):
			if c.Config, _, err = p.properties(true); err != nil {
				return nil, err
			}
		default:
			return nil, p.bad(p.here(), "PARTITIONED BY, CLUSTER BY, COMMENT or TBLPROPERTIES is expected")
		}
	}
	return s, nil
}

func (p *statementParser) alter() (s *Statement, err error) {
	s = &Statement{}
	p.at++
	if err := p.need("TABLE"); err != nil {
		return nil, err
	}
	if s.Table, err = p.table(); err != nil {
		return nil, err
	}
	switch {
	case p.take("ADD", "CONSTRAINT"):
		s.Kind = "ADD CONSTRAINT"
		if s.Constraint, err = p.name("a name"); err != nil {
			return nil, err
		}
		if err := p.need("CHECK"); err != nil {
			return nil, err
		}
		s.Check, err = p.expr(len(p.tokens), "a condition in brackets")
		return s, err
	case p.take("DROP", "CONSTRAINT"):
		s.Kind = "DROP CONSTRAINT"
		s.IfExists = p.take("IF", "EXISTS")
		if s.Constraint, err = p.name("a name"); err != nil {
			return nil, err
		}
		return s, p.end()
	case p.take("ADD", "COLUMN"), p.take("ADD", "COLUMNS"):
		return p.addColumns(s)
	case p.take("RENAME", "COLUMN"):
		s.Kind = "RENAME COLUMN"
		if s.Path, err = p.path(); err != nil {
			return nil, err
		}
		if err := p.need("TO"); err != nil {
			return nil, err
		}
		if s.NewName, err = p.name("a name"); err != nil {
			return nil, err
		}
		return s, p.end()
	case p.take("DROP", "COLUMN"), p.take("DROP", "COLUMNS"):
		s.Kind = "DROP COLUMNS"
		s.IfExists = p.take("IF", "EXISTS")
		bracket := p.char("(")
		for {
			path, err := p.path()
			if err != nil {
				return nil, err
			}
			if s.Paths = append(s.Paths, path); !p.char(",") {
				break
			}
		}
		if bracket && !p.char(")") {
			return nil, p.bad(p.here(), ") is expected")
		}
		return s, p.end()
	case p.take("ALTER"), p.take("CHANGE"):
		return p.changeColumn(s)
	case p.take("SET", "TBLPROPERTIES"):
		s.Kind = "SET TBLPROPERTIES"
		if s.Properties, _, err = p.properties(true); err != nil {
			return nil, err
		}
		return s, p.end()
	case p.take("UNSET", "TBLPROPERTIES"):
		s.Kind = "UNSET TBLPROPERTIES"
		s.IfExists = p.take("IF", "EXISTS")
		if _, s.Names, err = p.properties(false); err != nil {
			return nil, err
		}
		return s, p.end()
	case p.take("CLUSTER", "BY"):
		s.Kind = "CLUSTER BY"
		if p.take("NONE") {
			return s, p.end()
		}
		if !p.char("(") {
			return nil, p.bad(p.here(), "NONE or ( is expected")
		}
		if s.Names, err = p.columns(); err != nil {
			return nil, err
		}
		return s, p.end()
	case p.take("DROP", "FEATURE"):
		s.Kind = "DROP FEATURE"
		if p.at < len(p.tokens) && p.tokens[p.at].kind == 's' {
			s.Feature, err = p.quoted("a feature")
		} else if s.Feature, err = p.name("a feature"); err == nil && p.at+1 < len(p.tokens) && p.char("-") { // typeWidening-preview
			var rest string
			rest, err = p.name("a feature")
			s.Feature += "-" + rest
		}
		if err != nil {
			return nil, err
		}
		s.TruncateHistory = p.take("TRUNCATE", "HISTORY")
		return s, p.end()
	}
	return nil, p.bad(p.here(), "ADD COLUMN, RENAME COLUMN, DROP COLUMN, ALTER COLUMN, ADD CONSTRAINT, DROP CONSTRAINT, SET TBLPROPERTIES, UNSET TBLPROPERTIES, CLUSTER BY or DROP FEATURE is expected")
}

func (p *statementParser) addColumns(s *Statement) (*Statement, error) {
	s.Kind = "ADD COLUMNS"
	end, bracket := len(p.tokens), false
	if p.at < len(p.tokens) && p.tokens[p.at].text == "(" {
		var err error
		if end, err = p.bracketEnd(); err != nil {
			return nil, err
		}
		bracket = true
	}
	defs, err := p.definitions(end)
	if err != nil {
		return nil, err
	}
	if bracket {
		p.at = end + 1
	}
	for _, d := range defs {
		refuse := func(class, reason string) error {
			return &StatementError{&delta.AlterError{Class: class, Column: strings.Join(d.path, "."), Reason: reason}}
		}
		switch {
		case !d.field.Nullable:
			return nil, refuse("DELTA_OPERATION_NOT_ALLOWED", "a column that is added is null in all rows there are, so it cannot be NOT NULL")
		case d.field.Metadata["CURRENT_DEFAULT"] != nil:
			return nil, refuse("WRONG_COLUMN_DEFAULTS_FOR_DELTA_ALTER_TABLE_ADD_COLUMN_NOT_SUPPORTED", "add the column, then give it a default (ALTER COLUMN … SET DEFAULT)")
		case d.field.Metadata["delta.generationExpression"] != nil:
			return nil, refuse("DELTA_OPERATION_NOT_ALLOWED", "only a new table can have generated columns")
		}
		s.NewColumns = append(s.NewColumns, delta.NewColumn{Path: d.path, Type: d.field.Type, Comment: d.field.Comment(), Position: d.position})
	}
	return s, p.end()
}

func (p *statementParser) changeColumn(s *Statement) (*Statement, error) {
	s.Kind = "CHANGE COLUMN"
	p.take("COLUMN")
	var err error
	if s.Path, err = p.path(); err != nil {
		return nil, err
	}
	c := &s.Change
	switch {
	case p.take("TYPE"):
		if c.Type, err = p.typ(); err != nil {
			return nil, err
		}
	case p.take("COMMENT"):
		text, err := p.quoted("a comment")
		if err != nil {
			return nil, err
		}
		c.Comment = &text
	case p.take("DROP", "NOT", "NULL"):
		c.Nullable = true
	case p.take("SET", "NOT", "NULL"):
		return nil, &StatementError{&delta.AlterError{Class: "DELTA_UNSUPPORTED_ALTER_TABLE_CHANGE_COL_OP", Column: strings.Join(s.Path, "."),
			Reason: "a column cannot become NOT NULL; ADD CONSTRAINT … CHECK (… IS NOT NULL) does the same"}}
	case p.take("SET", "DEFAULT"):
		x, err := p.expr(len(p.tokens), "a value")
		if err != nil {
			return nil, err
		}
		text := x.String()
		c.Default = &text
	case p.take("DROP", "DEFAULT"):
		none := ""
		c.Default = &none
	case p.take("FIRST"):
		c.Position.First = true
	case p.take("AFTER"):
		if c.Position.After, err = p.name("a column"); err != nil {
			return nil, err
		}
	default:
		return nil, p.bad(p.here(), "TYPE, COMMENT, DROP NOT NULL, SET DEFAULT, DROP DEFAULT, FIRST or AFTER is expected")
	}
	return s, p.end()
}
