package pipeline_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/pipeline"
)

// sqlParser is a small parser of SQL expressions, enough for the lake files of the tests, so that they need no engine.
type sqlParser struct{}

func (sqlParser) ParseExpr(sql string) (e pipeline.Expr, err error) {
	p := &parse{sql: sql}
	defer func() {
		if r := recover(); r != nil {
			se, ok := r.(*pipeline.SyntaxError)
			if !ok {
				panic(r)
			}
			e, err = nil, se
		}
	}()
	p.next()
	e = p.expr(0)
	if p.tok != "" {
		p.fail("syntax error at or near %q", p.tok)
	}
	return e, nil
}

func (sqlParser) ParseQuery(string, []pipeline.Relation) (*pipeline.Query, error) {
	return nil, errors.New("these tests have no engine that knows queries")
}

func (sqlParser) Fits(pipeline.Expr, delta.Type, string) (bool, error) { return true, nil }

type parse struct {
	sql        string
	start, end int // of tok
	tok        string
	kind       byte // 'n'ame, '0' number, ''' text, '"' quoted name, or the operator itself
	depth      int
}

func (p *parse) fail(format string, args ...any) {
	panic(&pipeline.SyntaxError{Offset: p.start, Msg: fmt.Sprintf(format, args...)})
}

func (p *parse) next() {
	i := p.end
	for i < len(p.sql) && (p.sql[i] == ' ' || p.sql[i] == '\n' || p.sql[i] == '\t') {
		i++
	}
	p.start = i
	if i == len(p.sql) {
		p.tok, p.kind, p.end = "", 0, i
		return
	}
	c := p.sql[i]
	switch {
	case c == '\'' || c == '"':
		var b strings.Builder
		for i++; ; i++ {
			if i >= len(p.sql) {
				p.fail("unterminated quoted text")
			}
			if p.sql[i] == c {
				if i+1 < len(p.sql) && p.sql[i+1] == c {
					i++
				} else {
					break
				}
			}
			b.WriteByte(p.sql[i])
		}
		p.tok, p.kind, p.end = b.String()+" ", c, i+1
	case c >= '0' && c <= '9':
		for i < len(p.sql) && (p.sql[i] >= '0' && p.sql[i] <= '9' || p.sql[i] == '.') {
			i++
		}
		p.tok, p.kind, p.end = p.sql[p.start:i], '0', i
	case c == '_' || unicode.IsLetter(rune(c)) || c >= 0x80:
		for i < len(p.sql) && (p.sql[i] == '_' || p.sql[i] >= 0x80 || unicode.IsLetter(rune(p.sql[i])) || unicode.IsDigit(rune(p.sql[i]))) {
			i++
		}
		p.tok, p.kind, p.end = p.sql[p.start:i], 'n', i
	default:
		n := 1
		if i+2 <= len(p.sql) {
			switch p.sql[i : i+2] {
			case "<>", "<=", ">=", "||", "!=":
				n = 2
			}
		}
		p.tok, p.kind, p.end = p.sql[i:i+n], c, i+n
	}
}

func (p *parse) is(word string) bool {
	return (p.kind == 'n' || p.kind != '\'' && p.kind != '"') && strings.EqualFold(p.tok, word)
}

func (p *parse) accept(word string) bool {
	if p.is(word) {
		p.next()
		return true
	}
	return false
}

func (p *parse) expect(word string) {
	if !p.accept(word) {
		p.fail("syntax error at or near %q, expected %s", p.tok, word)
	}
}

var precedence = map[string]int{"or": 1, "and": 2, "=": 4, "<>": 4, "!=": 4, "<": 4, "<=": 4, ">": 4, ">=": 4, "like": 5, "in": 5, "is": 5, "not": 5, "between": 5, "||": 6, "+": 7, "-": 7, "*": 8, "/": 8, "%": 8}

func (p *parse) expr(min int) pipeline.Expr {
	if p.depth++; p.depth > 200 {
		p.fail("too deep")
	}
	defer func() { p.depth-- }()
	e := p.unary()
	for {
		op := strings.ToLower(p.tok)
		prec, ok := precedence[op]
		if !ok || prec <= min || p.kind == '\'' || p.kind == '"' {
			return e
		}
		p.next()
		switch op {
		case "not":
			p.expect("like")
			e = pipeline.Call{Func: "not", Args: []pipeline.Expr{pipeline.Call{Func: "like", Args: []pipeline.Expr{e, p.expr(5)}}}}
		case "is":
			name := "is null"
			if p.accept("not") {
				name = "is not null"
			}
			p.expect("null")
			e = pipeline.Call{Func: name, Args: []pipeline.Expr{e}}
		case "in":
			p.expect("(")
			e = pipeline.Call{Func: "in", Args: append([]pipeline.Expr{e}, p.list()...)}
		case "!=":
			e = pipeline.Call{Func: "<>", Args: []pipeline.Expr{e, p.expr(prec)}}
		case "between":
			lo := p.expr(5)
			p.expect("and")
			hi := p.expr(5)
			e = pipeline.Call{Func: "and", Args: []pipeline.Expr{pipeline.Call{Func: ">=", Args: []pipeline.Expr{e, lo}}, pipeline.Call{Func: "<=", Args: []pipeline.Expr{e, hi}}}}
		default:
			e = pipeline.Call{Func: op, Args: []pipeline.Expr{e, p.expr(prec)}}
		}
	}
}

func (p *parse) list() (args []pipeline.Expr) {
	for !p.accept(")") {
		if len(args) > 0 {
			p.expect(",")
		}
		args = append(args, p.expr(0))
	}
	return args
}

func (p *parse) unary() pipeline.Expr {
	switch {
	case p.kind == 0:
		p.fail("syntax error at end of input")
	case p.accept("not"):
		return pipeline.Call{Func: "not", Args: []pipeline.Expr{p.expr(3)}}
	case p.accept("-"):
		return pipeline.Call{Func: "neg", Args: []pipeline.Expr{p.expr(8)}}
	case p.accept("("):
		e := p.expr(0)
		p.expect(")")
		return e
	case p.accept("case"):
		var c pipeline.Case
		for p.accept("when") {
			w := pipeline.When{Cond: p.expr(0)}
			p.expect("then")
			w.Then = p.expr(0)
			c.Whens = append(c.Whens, w)
		}
		if p.accept("else") {
			c.Else = p.expr(0)
		}
		p.expect("end")
		return c
	case p.is("cast") || p.is("try_cast"):
		c := pipeline.Cast{Try: p.is("try_cast")}
		p.next()
		p.expect("(")
		c.Arg = p.expr(0)
		p.expect("as")
		from := p.start
		for depth := 0; depth > 0 || !p.is(")"); p.next() {
			switch p.kind {
			case 0:
				p.fail("syntax error at end of input")
			case '(':
				depth++
			case ')':
				depth--
			}
		}
		c.Type = strings.TrimSpace(p.sql[from:p.start])
		p.next()
		return c
	}
	tok, kind := p.tok, p.kind
	switch kind {
	case '\'':
		p.next()
		return pipeline.Literal{Value: tok[:len(tok)-1]}
	case '0':
		p.next()
		if n, err := strconv.ParseInt(tok, 10, 64); err == nil {
			return pipeline.Literal{Value: n}
		}
		return pipeline.Literal{Value: pipeline.Decimal(tok)}
	case 'n', '"':
		if kind == 'n' {
			switch strings.ToLower(tok) {
			case "null":
				p.next()
				return pipeline.Literal{}
			case "true", "false":
				p.next()
				return pipeline.Literal{Value: strings.EqualFold(tok, "true")}
			}
		}
		if kind == '"' {
			tok = tok[:len(tok)-1]
		}
		p.next()
		if kind == 'n' && p.accept("(") {
			return pipeline.Call{Func: strings.ToLower(tok), Args: p.list()}
		}
		for p.accept(".") {
			part := p.tok
			if p.kind == '"' {
				part = part[:len(part)-1]
			} else if p.kind != 'n' {
				p.fail("syntax error at or near %q", p.tok)
			}
			tok += "." + part
			p.next()
		}
		return pipeline.Name{Name: tok}
	}
	p.fail("syntax error at or near %q", tok)
	return nil
}
