package duckdb

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/delta/expr"
	"github.com/cauce-data/cauce/pipeline"
)

// Statement is a statement that changes a Delta table, or (Reads) tells of one. Its shell (DELETE FROM … WHERE …) is taken apart here, because
// DuckDB's parser gives out the trees of SELECT statements only and knows neither OPTIMIZE nor RESTORE; every expression
// and query in it is parsed by DuckDB.
type Statement struct {
	// Kind is DELETE, TRUNCATE, UPDATE, INSERT, MERGE, OPTIMIZE, REORG, VACUUM, RESTORE, CREATE TABLE, or what ALTER TABLE does: ADD
	// CONSTRAINT, DROP CONSTRAINT, ADD COLUMNS, RENAME COLUMN, DROP COLUMNS, CHANGE COLUMN, SET TBLPROPERTIES, UNSET
	// TBLPROPERTIES, CLUSTER BY, DROP FEATURE. Those that read are DESCRIBE TABLE, DESCRIBE HISTORY, DESCRIBE DETAIL, SHOW
	// TBLPROPERTIES and SHOW PARTITIONS.
	Kind  string
	Table string // a name, or a path
	Alias string // of the table

	Where expr.Expr          // of DELETE, UPDATE, OPTIMIZE, and INSERT … REPLACE WHERE
	Set   []delta.Assignment // of UPDATE

	// Query gives the rows of INSERT and the source of MERGE.
	Query     string
	Columns   []string // of INSERT; nil: by position, or by name with ByName
	ByName    bool
	Overwrite bool                   // INSERT OVERWRITE
	Dynamic   []string               // of INSERT: the columns of PARTITION (…) or REPLACE USING (…), in which the rows replace others
	Merge     delta.MergeIntoOptions // of MERGE

	ZOrderBy   []string // of OPTIMIZE
	Full, Lite bool     // of OPTIMIZE and VACUUM
	DryRun     bool     // of VACUUM
	Retain     *time.Duration

	Version   *int64 // of RESTORE
	Timestamp string

	Constraint string // its name
	Check      expr.Expr
	IfExists   bool

	Create          *delta.CreateOptions
	NewColumns      []delta.NewColumn  // of ADD COLUMNS
	Path            []string           // of RENAME COLUMN and CHANGE COLUMN
	NewName         string             // of RENAME COLUMN
	Paths           [][]string         // of DROP COLUMNS
	Change          delta.ColumnChange // of CHANGE COLUMN
	Properties      map[string]string  // of SET TBLPROPERTIES
	Names           []string           // of UNSET TBLPROPERTIES and CLUSTER BY; the one key of SHOW TBLPROPERTIES t (key)
	Feature         string             // of DROP FEATURE
	TruncateHistory bool

	Extended bool // of DESCRIBE TABLE
	Limit    int  // of DESCRIBE HISTORY; 0: all
}

// ParseStatement parses a statement that changes a table or tells of one. Other text, such as a SELECT, gives nil; what begins like such
// a statement and is not one gives a *pipeline.SyntaxError.
func (e *Engine) ParseStatement(sql string) (*Statement, error) {
	p := &statementParser{e: e, sql: sql}
	if err := p.scan(); err != nil {
		return nil, nil //nolint:nilerr // DuckDB's parser says better what is wrong
	}
	if len(p.tokens) > 0 && p.tokens[len(p.tokens)-1].text == ";" {
		p.tokens = p.tokens[:len(p.tokens)-1]
	}
	var s *Statement
	var err error
	switch p.upper(0) {
	case "DELETE":
		s, err = p.delete()
	case "TRUNCATE":
		s, err = p.truncate()
	case "UPDATE":
		s, err = p.update()
	case "INSERT":
		s, err = p.insert()
	case "MERGE":
		s, err = p.merge()
	case "OPTIMIZE":
		s, err = p.optimize()
	case "REORG":
		s, err = p.reorg()
	case "VACUUM":
		s, err = p.vacuum()
	case "RESTORE":
		s, err = p.restore()
	case "ALTER":
		s, err = p.alter()
	case "DESCRIBE", "DESC":
		return p.describe()
	case "SHOW":
		return p.show()
	case "CREATE":
		if p.upper(1) != "TABLE" {
			return nil, nil
		}
		s, err = p.create()
	default:
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// token is a word, a name in quotes, a text, a number or a character.
type token struct {
	kind     byte // 'w' word, 'q' quoted name, 's' text, 'n' number, 'c' character
	text     string
	from, to int
	depth    int // of brackets and CASE … END around it
}

type statementParser struct {
	e      *Engine
	sql    string
	tokens []token
	at     int
}

func (p *statementParser) scan() error {
	sql := p.sql
	depth := 0
	add := func(kind byte, text string, from, to int) {
		t := token{kind, text, from, to, depth}
		if kind == 'c' && (text == "(" || text == "[" || text == "{") || kind == 'w' && strings.EqualFold(text, "case") {
			depth++
		}
		if kind == 'c' && (text == ")" || text == "]" || text == "}") || kind == 'w' && strings.EqualFold(text, "end") && depth > 0 {
			depth--
			t.depth = depth
		}
		p.tokens = append(p.tokens, t)
	}
	word := func(c byte) bool {
		return c == '_' || c == '$' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
	}
	for i := 0; i < len(sql); {
		c := sql[i]
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
		case strings.HasPrefix(sql[i:], "--"):
			n := strings.IndexByte(sql[i:], '\n')
			if n < 0 {
				return nil
			}
			i += n
		case strings.HasPrefix(sql[i:], "/*"):
			n := strings.Index(sql[i:], "*/")
			if n < 0 {
				return p.bad(i, "a comment has no end")
			}
			i += n + 2
		case c == '\'' || c == '"' || c == '`':
			var b strings.Builder
			j := i + 1
			for ; ; j++ {
				if j >= len(sql) {
					return p.bad(i, "a quote has no end")
				}
				if sql[j] == c {
					if j+1 < len(sql) && sql[j+1] == c {
						j++
					} else {
						break
					}
				}
				b.WriteByte(sql[j])
			}
			kind := byte('q')
			if c == '\'' {
				kind = 's'
			}
			add(kind, b.String(), i, j+1)
			i = j + 1
		case c >= '0' && c <= '9':
			j := i
			for j < len(sql) && (word(sql[j]) || sql[j] == '.') {
				j++
			}
			add('n', sql[i:j], i, j)
			i = j
		case word(c):
			j := i
			for j < len(sql) && word(sql[j]) {
				j++
			}
			add('w', sql[i:j], i, j)
			i = j
		default:
			add('c', sql[i:i+1], i, i+1)
			i++
		}
	}
	return nil
}

func (p *statementParser) bad(offset int, format string, args ...any) error {
	return &pipeline.SyntaxError{Offset: offset, Msg: syntaxMessage(p.sql, fmt.Sprintf(format, args...), offset)}
}

func (p *statementParser) here() int {
	if p.at < len(p.tokens) {
		return p.tokens[p.at].from
	}
	return len(p.sql)
}

// upper is the word at a place in upper case, "" if there is none.
func (p *statementParser) upper(at int) string {
	if at < len(p.tokens) && p.tokens[at].kind == 'w' {
		return strings.ToUpper(p.tokens[at].text)
	}
	return ""
}

// take goes past words, if they come next.
func (p *statementParser) take(words ...string) bool {
	for i, w := range words {
		if p.upper(p.at+i) != w {
			return false
		}
	}
	p.at += len(words)
	return true
}

func (p *statementParser) need(words ...string) error {
	if !p.take(words...) {
		return p.bad(p.here(), "%s is expected", strings.Join(words, " "))
	}
	return nil
}

func (p *statementParser) char(c string) bool {
	if p.at < len(p.tokens) && p.tokens[p.at].kind == 'c' && p.tokens[p.at].text == c {
		p.at++
		return true
	}
	return false
}

func (p *statementParser) end() error {
	if p.at < len(p.tokens) {
		return p.bad(p.here(), "the statement should end before %q", p.tokens[p.at].text)
	}
	return nil
}

// name reads an identifier.
func (p *statementParser) name(what string) (string, error) {
	if p.at < len(p.tokens) && (p.tokens[p.at].kind == 'w' || p.tokens[p.at].kind == 'q') {
		p.at++
		return p.tokens[p.at-1].text, nil
	}
	return "", p.bad(p.here(), "%s is expected", what)
}

// table reads the name of a table: a word, a path in any quotes, or delta.`path` as Spark has it.
func (p *statementParser) table() (string, error) {
	if p.at < len(p.tokens) && p.tokens[p.at].kind == 's' {
		p.at++
		return p.tokens[p.at-1].text, nil
	}
	n, err := p.name("a table")
	if err != nil {
		return "", err
	}
	if p.char(".") {
		if !strings.EqualFold(n, "delta") {
			return "", p.bad(p.here(), "tables have no schema: %s.", n)
		}
		if n, err = p.name("a path"); err != nil {
			return "", err
		}
		if !strings.ContainsAny(n, `/\`) {
			n = "./" + n
		}
	}
	return n, nil
}

// alias reads [AS] name, unless one of the words comes that may follow.
func (p *statementParser) alias(stop ...string) (string, error) {
	if p.take("AS") {
		return p.name("an alias")
	}
	if p.at >= len(p.tokens) {
		return "", nil
	}
	for _, s := range stop {
		if p.upper(p.at) == s {
			return "", nil
		}
	}
	if k := p.tokens[p.at].kind; k != 'w' && k != 'q' {
		return "", nil
	}
	return p.name("an alias")
}

// until finds the next of some words outside of brackets and CASE, or the end.
func (p *statementParser) until(words ...string) int {
	for i := p.at; i < len(p.tokens); i++ {
		if p.tokens[i].depth > 0 {
			continue
		}
		if p.upper(i) == "FROM" && i > p.at && p.upper(i-1) == "DISTINCT" {
			continue // IS DISTINCT FROM is a comparison
		}
		for _, w := range words {
			if p.upper(i) == w {
				return i
			}
		}
	}
	return len(p.tokens)
}

// text is the statement's text of the tokens from at up to end, and goes past them.
func (p *statementParser) text(end int) (string, int) {
	if end <= p.at {
		return "", p.here()
	}
	from, to := p.tokens[p.at].from, p.tokens[end-1].to
	p.at = end
	return p.sql[from:to], from
}

// expr parses the expression up to a token.
func (p *statementParser) expr(end int, what string) (expr.Expr, error) {
	text, from := p.text(end)
	if text == "" {
		return nil, p.bad(from, "%s is expected", what)
	}
	x, err := p.e.ParseExpression(text)
	if err != nil {
		var s *pipeline.SyntaxError
		if errors.As(err, &s) {
			off := -1
			if s.Offset >= 0 {
				off = from + s.Offset
			}
			return nil, &pipeline.SyntaxError{Offset: off, Msg: syntaxMessage(p.sql, s.Msg, off)}
		}
		return nil, err
	}
	return x, nil
}

// list gives the ends of the parts of a comma-separated list up to a token.
func (p *statementParser) list(end int) []int {
	var out []int
	base := 0
	if p.at < len(p.tokens) {
		base = p.tokens[p.at].depth
	}
	for i := p.at; i < end; i++ {
		if t := p.tokens[i]; t.kind == 'c' && t.text == "," && t.depth == base {
			out = append(out, i)
		}
	}
	return append(out, end)
}

func (p *statementParser) where(s *Statement) error {
	if !p.take("WHERE") {
		return p.end()
	}
	var err error
	if s.Where, err = p.expr(len(p.tokens), "a condition"); err != nil {
		return err
	}
	s.Where = withoutAlias(s.Where, s.Alias, s.Table)
	return nil
}

// withoutAlias leaves the table's alias (or name) out of the columns of a condition over one table.
func withoutAlias(e expr.Expr, names ...string) expr.Expr {
	return expr.Map(e, func(x expr.Expr) expr.Expr {
		if c, ok := x.(expr.Column); ok && len(c.Path) > 1 {
			for _, n := range names {
				if n != "" && strings.EqualFold(n, c.Path[0]) {
					return expr.Column{Path: c.Path[1:]}
				}
			}
		}
		return x
	})
}

func (p *statementParser) delete() (*Statement, error) {
	s := &Statement{Kind: "DELETE"}
	err := p.need("DELETE", "FROM")
	if err == nil {
		s.Table, err = p.table()
	}
	if err == nil {
		s.Alias, err = p.alias("WHERE")
	}
	if err == nil {
		err = p.where(s)
	}
	return s, err
}

func (p *statementParser) truncate() (s *Statement, err error) {
	s = &Statement{Kind: "TRUNCATE"}
	p.at++
	p.take("TABLE")
	if s.Table, err = p.table(); err != nil {
		return nil, err
	}
	return s, p.end()
}

func (p *statementParser) update() (*Statement, error) {
	s := &Statement{Kind: "UPDATE"}
	err := p.need("UPDATE")
	if err == nil {
		s.Table, err = p.table()
	}
	if err == nil {
		s.Alias, err = p.alias("SET")
	}
	if err == nil {
		err = p.need("SET")
	}
	if err == nil {
		s.Set, err = p.assignments(p.until("WHERE"), s.Alias, s.Table)
	}
	if err == nil {
		err = p.where(s)
	}
	for i := range s.Set {
		s.Set[i].Value = withoutAlias(s.Set[i].Value, s.Alias, s.Table)
	}
	return s, err
}

// assignments reads col = value, … up to a token. The column may stand behind one of the names of its table.
func (p *statementParser) assignments(end int, names ...string) ([]delta.Assignment, error) {
	var out []delta.Assignment
	for _, stop := range p.list(end) {
		from := p.here()
		col, err := p.name("a column")
		if err != nil {
			return nil, err
		}
		if p.char(".") {
			behind := false
			for _, n := range names {
				behind = behind || n != "" && strings.EqualFold(n, col)
			}
			if !behind {
				return nil, p.bad(from, "%s: members of structs cannot be set one by one; set the whole column", col)
			}
			if col, err = p.name("a column"); err != nil {
				return nil, err
			}
		}
		if !p.char("=") {
			return nil, p.bad(p.here(), "= is expected behind column %s", col)
		}
		v, err := p.expr(stop, "a value")
		if err != nil {
			return nil, err
		}
		out = append(out, delta.Assignment{Column: col, Value: v})
		if stop < end {
			p.at++ // the comma
		}
	}
	return out, nil
}

// columns reads a list of names in brackets.
func (p *statementParser) columns() ([]string, error) {
	var out []string
	for {
		c, err := p.name("a column")
		if err != nil {
			return nil, err
		}
		out = append(out, c)
		if p.char(")") {
			return out, nil
		}
		if !p.char(",") {
			return nil, p.bad(p.here(), "a comma or ) is expected")
		}
	}
}

func (p *statementParser) insert() (*Statement, error) {
	s := &Statement{Kind: "INSERT"}
	p.at++
	var err error
	switch {
	case p.take("OVERWRITE"):
		s.Overwrite = true
		p.take("TABLE")
	case p.take("INTO"):
		p.take("TABLE")
	default:
		return nil, p.bad(p.here(), "INTO or OVERWRITE is expected")
	}
	if s.Table, err = p.table(); err != nil {
		return nil, err
	}
	if p.take("PARTITION") {
		if !s.Overwrite {
			return nil, p.bad(p.here(), "PARTITION is of INSERT OVERWRITE; INSERT INTO puts each row into its partition")
		}
		if s.Dynamic, err = p.dynamic(); err != nil {
			return nil, err
		}
	}
	if p.at+1 < len(p.tokens) && p.tokens[p.at].text == "(" && p.upper(p.at+1) != "SELECT" && p.upper(p.at+1) != "VALUES" && p.upper(p.at+1) != "WITH" {
		p.at++
		if s.Columns, err = p.columns(); err != nil {
			return nil, err
		}
	}
	if p.take("BY", "NAME") {
		s.ByName = true
	}
	if p.take("REPLACE", "USING") {
		if s.Overwrite {
			return nil, p.bad(p.here(), "REPLACE USING is of INSERT INTO; with INSERT OVERWRITE it is PARTITION")
		}
		s.Overwrite = true
		if s.Dynamic, err = p.dynamic(); err != nil {
			return nil, err
		}
	}
	if p.take("REPLACE", "WHERE") {
		if s.Dynamic != nil {
			return nil, p.bad(p.here(), "the rows replace others by partition or by condition, not both")
		}
		// The condition ends where the query begins.
		if s.Where, err = p.expr(p.until("SELECT", "VALUES", "WITH", "FROM", "TABLE"), "a condition"); err != nil {
			return nil, err
		}
	}
	if s.ByName && s.Columns != nil {
		return nil, p.bad(p.here(), "BY NAME and a list of columns exclude each other")
	}
	for i := p.at + 1; i+1 < len(p.tokens); i++ {
		if before, after := p.tokens[i-1], p.tokens[i+1]; p.upper(i) == "DEFAULT" && before.kind == 'c' && strings.Contains("(,", before.text) && after.kind == 'c' && strings.Contains("),", after.text) {
			return nil, p.bad(p.tokens[i].from, "DEFAULT is no value here; columns that the list behind the table's name leaves out have their default")
		}
	}
	if s.Query, _ = p.text(len(p.tokens)); s.Query == "" {
		return nil, p.bad(len(p.sql), "VALUES or a query is expected")
	}
	return s, nil
}

// dynamic reads the columns, in brackets, in which new rows replace others.
func (p *statementParser) dynamic() ([]string, error) {
	if !p.char("(") {
		return nil, p.bad(p.here(), "( and partition columns are expected")
	}
	if p.at+1 < len(p.tokens) && p.tokens[p.at+1].text == "=" {
		return nil, p.bad(p.here(), "partition columns are named without values; INSERT INTO … REPLACE WHERE %s = … replaces one partition", p.tokens[p.at].text)
	}
	return p.columns()
}

func (p *statementParser) merge() (*Statement, error) {
	s := &Statement{Kind: "MERGE"}
	p.at++
	o := &s.Merge
	if p.take("WITH", "SCHEMA", "EVOLUTION") {
		o.SchemaEvolution = true
	}
	err := p.need("INTO")
	if err == nil {
		s.Table, err = p.table()
	}
	if err == nil {
		s.Alias, err = p.alias("USING")
	}
	if err == nil {
		err = p.need("USING")
	}
	if err != nil {
		return nil, err
	}
	// The source: a table or a query in brackets, with an alias.
	start := p.at
	var source string
	if p.char("(") {
		for p.at < len(p.tokens) && !(p.tokens[p.at].text == ")" && p.tokens[p.at].kind == 'c' && p.tokens[p.at].depth == 0) {
			p.at++
		}
		if !p.char(")") {
			return nil, p.bad(p.here(), ") is expected")
		}
		source = p.sql[p.tokens[start].from:p.tokens[p.at-1].to]
		s.Query = "SELECT * FROM " + source + " AS source"
	} else {
		if source, err = p.table(); err != nil {
			return nil, err
		}
		s.Query = "SELECT * FROM " + quoteName(source)
		o.SourceAlias = source
	}
	alias, err := p.alias("ON")
	if err != nil {
		return nil, err
	}
	if alias != "" {
		o.SourceAlias = alias
	}
	if o.TargetAlias = s.Alias; o.TargetAlias == "" {
		o.TargetAlias = s.Table
	}
	if strings.EqualFold(o.SourceAlias, o.TargetAlias) {
		return nil, p.bad(p.here(), "both sides are called %s; give one an alias", o.TargetAlias)
	}
	if err := p.need("ON"); err != nil {
		return nil, err
	}
	if o.On, err = p.expr(p.until("WHEN"), "a condition"); err != nil {
		return nil, err
	}
	for p.at < len(p.tokens) {
		c, err := p.clause(o.TargetAlias)
		if err != nil {
			return nil, err
		}
		o.Clauses = append(o.Clauses, c)
	}
	if len(o.Clauses) == 0 {
		return nil, p.bad(p.here(), "WHEN is expected")
	}
	return s, nil
}

func (p *statementParser) clause(target string) (c delta.MergeClause, err error) {
	if err := p.need("WHEN"); err != nil {
		return c, err
	}
	switch {
	case p.take("MATCHED"):
		c.Kind = delta.WhenMatched
	case p.take("NOT", "MATCHED", "BY", "SOURCE"):
		c.Kind = delta.WhenNotMatchedBySource
	case p.take("NOT", "MATCHED"):
		p.take("BY", "TARGET")
		c.Kind = delta.WhenNotMatched
	default:
		return c, p.bad(p.here(), "MATCHED or NOT MATCHED is expected")
	}
	if p.take("AND") {
		if c.Condition, err = p.expr(p.until("THEN"), "a condition"); err != nil {
			return c, err
		}
	}
	if err := p.need("THEN"); err != nil {
		return c, err
	}
	end := p.until("WHEN")
	switch {
	case p.take("DELETE"):
		c.Delete = true
	case p.take("UPDATE"):
		p.take("SET")
		if c.All = p.char("*") || p.at == end; !c.All {
			if c.Set, err = p.assignments(end, target); err != nil {
				return c, err
			}
		}
	case p.take("INSERT"):
		if c.All = p.char("*") || p.at == end; c.All {
			break
		}
		if !p.char("(") {
			return c, p.bad(p.here(), "* or the names of columns are expected behind INSERT")
		}
		cols, err := p.columns()
		if err != nil {
			return c, err
		}
		if err := p.need("VALUES"); err != nil {
			return c, err
		}
		if !p.char("(") {
			return c, p.bad(p.here(), "( is expected behind VALUES")
		}
		last := end - 1 // the closing bracket
		if last < p.at || p.tokens[last].text != ")" {
			return c, p.bad(p.here(), ") is expected")
		}
		for _, stop := range p.list(last) {
			if len(c.Set) == len(cols) {
				return c, p.bad(p.here(), "there are more values than columns")
			}
			v, err := p.expr(stop, "a value")
			if err != nil {
				return c, err
			}
			c.Set = append(c.Set, delta.Assignment{Column: cols[len(c.Set)], Value: v})
			p.at++
		}
		if len(c.Set) < len(cols) {
			return c, p.bad(p.here(), "there are fewer values than columns")
		}
		p.at = end
	default:
		return c, p.bad(p.here(), "UPDATE, DELETE or INSERT is expected")
	}
	if p.at != end {
		return c, p.bad(p.here(), "the clause should end before %q", p.tokens[p.at].text)
	}
	return c, nil
}

func (p *statementParser) optimize() (s *Statement, err error) {
	s = &Statement{Kind: "OPTIMIZE"}
	p.at++
	if s.Table, err = p.table(); err != nil {
		return nil, err
	}
	s.Full = p.take("FULL")
	if p.take("WHERE") {
		if s.Where, err = p.expr(p.until("ZORDER"), "a condition"); err != nil {
			return nil, err
		}
	}
	if p.take("ZORDER", "BY") {
		bracket := p.char("(")
		for {
			c, err := p.name("a column")
			if err != nil {
				return nil, err
			}
			s.ZOrderBy = append(s.ZOrderBy, c)
			if !p.char(",") {
				break
			}
		}
		if bracket && !p.char(")") {
			return nil, p.bad(p.here(), ") is expected")
		}
	}
	return s, p.end()
}

func (p *statementParser) reorg() (s *Statement, err error) {
	s = &Statement{Kind: "REORG"}
	p.at++
	p.take("TABLE")
	if s.Table, err = p.table(); err != nil {
		return nil, err
	}
	if p.take("WHERE") {
		if s.Where, err = p.expr(p.until("APPLY"), "a condition"); err != nil {
			return nil, err
		}
	}
	if err := p.need("APPLY"); err != nil {
		return nil, err
	}
	if !p.char("(") || !p.take("PURGE") || !p.char(")") {
		return nil, p.bad(p.here(), "(PURGE) is expected")
	}
	return s, p.end()
}

func (p *statementParser) vacuum() (s *Statement, err error) {
	s = &Statement{Kind: "VACUUM"}
	p.at++
	if s.Table, err = p.table(); err != nil {
		return nil, err
	}
	for p.at < len(p.tokens) {
		switch {
		case p.take("LITE"):
			s.Lite = true
		case p.take("FULL"):
		case p.take("DRY", "RUN"):
			s.DryRun = true
		case p.take("RETAIN"):
			if p.at >= len(p.tokens) || p.tokens[p.at].kind != 'n' {
				return nil, p.bad(p.here(), "a number of hours is expected")
			}
			h, err := strconv.ParseFloat(p.tokens[p.at].text, 64)
			if err != nil || h > 24*365*100 {
				return nil, p.bad(p.here(), "%s is no number of hours", p.tokens[p.at].text)
			}
			p.at++
			if err := p.need("HOURS"); err != nil {
				return nil, err
			}
			d := time.Duration(h * float64(time.Hour))
			s.Retain = &d
		default:
			return nil, p.bad(p.here(), "LITE, FULL, RETAIN n HOURS or DRY RUN is expected")
		}
	}
	return s, nil
}

func (p *statementParser) restore() (s *Statement, err error) {
	s = &Statement{Kind: "RESTORE"}
	p.at++
	p.take("TABLE")
	if s.Table, err = p.table(); err != nil {
		return nil, err
	}
	p.take("TO")
	switch {
	case p.take("VERSION", "AS", "OF"):
		if p.at >= len(p.tokens) || p.tokens[p.at].kind != 'n' {
			return nil, p.bad(p.here(), "a version is expected")
		}
		v, err := strconv.ParseInt(p.tokens[p.at].text, 10, 64)
		if err != nil {
			return nil, p.bad(p.here(), "%s is no version", p.tokens[p.at].text)
		}
		p.at++
		s.Version = &v
	case p.take("TIMESTAMP", "AS", "OF"):
		if p.at >= len(p.tokens) || p.tokens[p.at].kind != 's' {
			return nil, p.bad(p.here(), "a time in quotes is expected")
		}
		s.Timestamp = p.tokens[p.at].text
		p.at++
	default:
		return nil, p.bad(p.here(), "TO VERSION AS OF or TO TIMESTAMP AS OF is expected")
	}
	return s, p.end()
}

// InsertQuery gives the SELECT whose columns have the names and types of the columns of a table into which an INSERT
// goes by position; n is the number of columns that the statement's own query has.
func (s *Statement) InsertQuery(schema *delta.Schema, n int) (string, error) {
	cols := s.Columns
	if cols == nil {
		cols = schema.Names()
	}
	if n != len(cols) {
		return "", &StatementError{fmt.Errorf("INSERT gives %d values for %d columns (%s); name the columns that are given", n, len(cols), strings.Join(cols, ", "))}
	}
	var sel, names []string
	for i, c := range cols {
		f, ok := schema.Field(c)
		if !ok {
			return "", &StatementError{fmt.Errorf("%w: %q; there are %s", delta.ErrNoSuchColumn, c, strings.Join(schema.Names(), ", "))}
		}
		v := "c" + strconv.Itoa(i)
		names = append(names, v)
		sel = append(sel, castTo(v, f))
	}
	return "SELECT " + strings.Join(sel, ", ") + " FROM (" + s.Query + "\n) AS q(" + strings.Join(names, ", ") + ")", nil
}

// InsertByName is InsertQuery for columns that go by their names, which the statement's own query has.
func (s *Statement) InsertByName(schema *delta.Schema, have []string) (string, error) {
	var sel []string
	for _, c := range have {
		f, ok := schema.Field(c)
		if !ok {
			return "", &StatementError{fmt.Errorf("%w: %q; there are %s", delta.ErrNoSuchColumn, c, strings.Join(schema.Names(), ", "))}
		}
		sel = append(sel, castTo(quoteName(c), f))
	}
	return "SELECT " + strings.Join(sel, ", ") + " FROM (" + s.Query + "\n) AS q", nil
}

func castTo(v string, f delta.Field) string {
	return "CAST(" + v + " AS " + sqlType(f.Type, false) + ") AS " + quoteName(f.Name)
}

// Collect holds the rows of a result in this engine, so that they can be read more than once; beyond the memory limit they
// go to the temporary folder. The caller calls done.
func (e *Engine) Collect(ctx context.Context, r *Result) (rows delta.Rows, done func(), err error) {
	return e.load(ctx, &resultRows{r}, nil)
}

// resultRows show a result as rows that are read once.
type resultRows struct{ r *Result }

func (r *resultRows) Schema() *arrow.Schema { return r.r.Schema() }
func (r *resultRows) NumRows() int64        { return -1 }

func (r *resultRows) Read(ctx context.Context, _ []string, _ *roaring64.Bitmap) iter.Seq2[arrow.RecordBatch, error] {
	return r.r.Batches(ctx)
}
