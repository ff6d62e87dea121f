package duckdb

import (
	"context"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/delta/expr"
	"github.com/cauce-data/cauce/pipeline"
)

// deltaParser is a delta.ExpressionParser: Spark's way of writing constants and names is put into DuckDB's, whose parser
// does the rest.
type deltaParser struct{ e *Engine }

var _ delta.ExpressionParser = deltaParser{}

func (p deltaParser) ParseExpression(sql string) (expr.Expr, error) {
	if v, ok := p.e.parsed.get(sql); ok {
		return v, nil
	}
	text, err := fromSpark(sql)
	if err != nil {
		return nil, err
	}
	v, err := p.e.ParseExpression(text)
	if err == nil {
		p.e.parsed.put(sql, v)
	}
	return v, err
}

// parsedCache keeps the trees of a table's rules, which every write needs. The zero value works.
type parsedCache struct {
	mu    sync.Mutex
	trees map[string]expr.Expr
}

const parsedCacheSize = 256

func (c *parsedCache) get(sql string) (expr.Expr, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.trees[sql]
	return v, ok
}

func (c *parsedCache) put(sql string, v expr.Expr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.trees == nil || len(c.trees) >= parsedCacheSize {
		c.trees = map[string]expr.Expr{}
	}
	c.trees[sql] = v
}

// ParseExpression parses an expression in DuckDB's SQL into delta's tree. What it means is then Spark's, in ANSI mode
// (see package delta/expr). The error is a *pipeline.SyntaxError.
func (e *Engine) ParseExpression(sql string) (out expr.Expr, err error) {
	if strings.TrimSpace(sql) == "" {
		return nil, &pipeline.SyntaxError{Offset: -1, Msg: "the expression is empty"}
	}
	err = e.with(context.Background(), func(c *conn) error {
		tree, err := c.serialize(context.Background(), selectPrefix+sql+"\n)")
		if err != nil {
			return inExpression(err, sql)
		}
		if len(tree.Statements) != 1 || !plainSelect(tree.Statements[0].Node) {
			return &pipeline.SyntaxError{Offset: -1, Msg: "one expression is expected"}
		}
		w := exprWalker{offset: len(selectPrefix), length: len(sql), delta: true}
		t, err := w.expr(tree.Statements[0].Node.SelectList[0], 0)
		if err != nil {
			return err
		}
		out, err = deltaExpr(t)
		return err
	})
	return out, err
}

// deltaFunctions are functions and operators of DuckDB's that have another name in Spark.
var deltaFunctions = map[string]string{
	"//": "div", "**": "pow", "^": "pow", "get_current_timestamp": "current_timestamp", "get_current_time": "current_timestamp",
	"today": "current_date", "starts_with": "startswith", "ends_with": "endswith", "^@": "startswith", "@": "abs",
	"len": "length", "strlen": "length", "array_extract": "",
}

func deltaExpr(e pipeline.Expr) (expr.Expr, error) {
	bad := func(format string, args ...any) error {
		return &pipeline.SyntaxError{Offset: -1, Msg: fmt.Sprintf(format, args...)}
	}
	switch e := e.(type) {
	case pipeline.Name:
		switch n := strings.ToLower(e.Name); n {
		case "current_timestamp", "current_date": // DuckDB's grammar has these without brackets, and takes them for names
			return expr.Call{Func: n}, nil
		}
		return expr.Column{Path: strings.Split(e.Name, "\x00")}, nil
	case pipeline.Literal:
		switch v := e.Value.(type) {
		case pipeline.Decimal:
			return expr.Literal{Value: expr.Decimal(v)}, nil
		case nil, bool, int64, string:
			return expr.Literal{Value: v}, nil
		}
		return nil, bad("a constant of Go type %T", e.Value)
	case pipeline.Cast:
		arg, err := deltaExpr(e.Arg)
		if err != nil {
			return nil, err
		}
		t, err := delta.ParseType(e.Type)
		if err != nil {
			return nil, bad("type %s: %v", e.Type, err)
		}
		if l, ok := arg.(expr.Literal); ok && !e.Try {
			if s, ok := l.Value.(string); ok {
				if v, ok := typedConstant(s, t); ok {
					return expr.Literal{Value: v}, nil
				}
			}
		}
		return expr.Cast{Arg: arg, Type: delta.ArrowType(t), Try: e.Try}, nil
	case pipeline.Case:
		var c expr.Case
		for _, w := range e.Whens {
			cond, err := deltaExpr(w.Cond)
			if err != nil {
				return nil, err
			}
			then, err := deltaExpr(w.Then)
			if err != nil {
				return nil, err
			}
			c.Whens = append(c.Whens, expr.When{Cond: cond, Then: then})
		}
		if e.Else != nil {
			x, err := deltaExpr(e.Else)
			if err != nil {
				return nil, err
			}
			c.Else = x
		}
		return c, nil
	case pipeline.Call:
		c := expr.Call{Func: e.Func}
		for _, a := range e.Args {
			x, err := deltaExpr(a)
			if err != nil {
				return nil, err
			}
			c.Args = append(c.Args, x)
		}
		if n := deltaFunctions[c.Func]; n != "" {
			c.Func = n
		}
		switch c.Func {
		case "date_part", "datepart": // EXTRACT(part FROM x)
			if l, ok := c.Args[0].(expr.Literal); ok && len(c.Args) == 2 {
				if s, ok := l.Value.(string); ok {
					return expr.Call{Func: strings.ToLower(s), Args: c.Args[1:]}, nil
				}
			}
		case "~~*", "!~~*":
			var l expr.Expr = expr.Call{Func: "like", Args: []expr.Expr{
				expr.Call{Func: "lower", Args: c.Args[:1]}, expr.Call{Func: "lower", Args: c.Args[1:]}}}
			if c.Func == "!~~*" {
				l = expr.Not(l)
			}
			return l, nil
		}
		return c, nil
	}
	return nil, bad("%T has no place in an expression", e)
}

// typedConstant reads the text of constants such as DATE '2024-08-20' that are written in the usual way; any other text
// stays a cast, which says what is wrong.
func typedConstant(s string, t delta.Type) (any, bool) {
	switch t {
	case delta.Date:
		if d, err := time.Parse("2006-01-02", s); err == nil {
			return expr.Date(d.Unix() / 86400), d.Unix()%86400 == 0
		}
	case delta.Double:
		if f, err := strconv.ParseFloat(s, 64); err == nil && !strings.ContainsAny(s, "xX_pP") {
			return f, true
		}
	case delta.Binary:
		var out []byte
		for i := 0; i < len(s); i++ {
			if strings.HasPrefix(s[i:], `\x`) && i+4 <= len(s) {
				if b, err := hex.DecodeString(s[i+2 : i+4]); err == nil {
					out = append(out, b...)
					i += 3
					continue
				}
			}
			out = append(out, s[i])
		}
		return out, true
	}
	return nil, false
}

// fromSpark rewrites the tokens of Spark's SQL that DuckDB's parser reads otherwise: names in backticks, texts in double
// quotes and with backslashes, numbers with a letter behind them, binary constants, <=>, ==, ! and DIV.
func fromSpark(sql string) (string, error) {
	var b strings.Builder
	bad := func(i int, format string, args ...any) (string, error) {
		return "", &pipeline.SyntaxError{Offset: i, Msg: fmt.Sprintf(format, args...)}
	}
	word := func(c byte) bool {
		return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
	}
	before := "" // the word that has just come
	for i := 0; i < len(sql); {
		c := sql[i]
		rest := sql[i:]
		if c != ' ' && !word(c) {
			before = ""
		}
		switch {
		case c == '`':
			name, n, ok := quoted(rest, false)
			if !ok {
				return bad(i, "a name in backticks has no end")
			}
			b.WriteString(quoteName(name))
			i += n
		case c == '\'' || c == '"':
			s, n, ok := quoted(rest, true)
			if !ok {
				return bad(i, "a text has no end")
			}
			if strings.ContainsRune(s, 0) {
				return bad(i, "a text must not have the character 0")
			}
			b.WriteString(quoteText(s))
			i += n
		case strings.HasPrefix(rest, "--"):
			if n := strings.IndexByte(rest, '\n'); n >= 0 {
				i += n
			} else {
				i = len(sql)
			}
			b.WriteByte(' ')
		case strings.HasPrefix(rest, "/*"):
			n := strings.Index(rest, "*/")
			if n < 0 {
				return bad(i, "a comment has no end")
			}
			i += n + 2
			b.WriteByte(' ')
		case strings.HasPrefix(rest, "<=>"):
			b.WriteString(" IS NOT DISTINCT FROM ")
			i += 3
		case strings.HasPrefix(rest, "=="):
			b.WriteString("=")
			i += 2
		case strings.HasPrefix(rest, "!=") || strings.HasPrefix(rest, "||"):
			b.WriteString(rest[:2])
			i += 2
		case c == '!':
			b.WriteString(" NOT ")
			i++
		case strings.IndexByte("$?:[]{};&|~^@#", c) >= 0:
			return bad(i, "%q has no place in an expression here", c)
		case c >= '0' && c <= '9' || c == '.' && len(rest) > 1 && rest[1] >= '0' && rest[1] <= '9':
			n := 0
			for n < len(rest) && (rest[n] >= '0' && rest[n] <= '9' || rest[n] == '.' ||
				(rest[n] == '+' || rest[n] == '-') && n > 0 && (rest[n-1] == 'e' || rest[n-1] == 'E') && strings.IndexAny(rest[:n], "eE") == n-1 ||
				(rest[n] == 'e' || rest[n] == 'E') && !strings.ContainsAny(rest[:n], "eE")) {
				n++
			}
			m := n
			for m < len(rest) && word(rest[m]) {
				m++
			}
			num := rest[:n]
			switch strings.ToUpper(rest[n:m]) {
			case "":
				if strings.ContainsAny(num, "eE") { // in Spark a DOUBLE, in DuckDB's tree a decimal
					num = "CAST('" + num + "' AS DOUBLE)"
				}
			case "L":
				num = "CAST(" + num + " AS BIGINT)"
			case "S":
				num = "CAST(" + num + " AS SMALLINT)"
			case "Y":
				num = "CAST(" + num + " AS TINYINT)"
			case "D":
				num = "CAST('" + num + "' AS DOUBLE)"
			case "F":
				num = "CAST('" + num + "' AS FLOAT)"
			case "BD":
			default:
				return bad(i, "%q is no number", rest[:m])
			}
			b.WriteString(num)
			i += m
		case word(c):
			n := 1
			for n < len(rest) && word(rest[n]) {
				n++
			}
			w := strings.ToLower(rest[:n])
			next := ""
			if n < len(rest) {
				next = rest[n : n+1]
			}
			switch {
			case (w == "x" || w == "r") && (next == "'" || next == `"`):
				end := strings.IndexByte(rest[n+1:], next[0])
				if end < 0 {
					return bad(i, "a text has no end")
				}
				body := rest[n+1 : n+1+end]
				if w == "r" {
					b.WriteString(quoteText(body))
				} else {
					raw, err := hex.DecodeString(body)
					if err != nil {
						return bad(i, "X'%s' is no binary constant: %v", body, err)
					}
					b.WriteString("CAST('")
					for _, x := range raw {
						fmt.Fprintf(&b, `\x%02X`, x)
					}
					b.WriteString("' AS BLOB)")
				}
				n += end + 2
			case w == "div":
				b.WriteString("//")
			case !grammar[w] && before != "as" && plainName(rest[n:]):
				b.WriteString(quoteName(rest[:n])) // many a keyword of DuckDB's is a name in Spark
			default:
				b.WriteString(rest[:n])
				if w == "current_timestamp" || w == "current_date" || w == "now" {
					// DuckDB's grammar has these without brackets.
					if t := strings.TrimLeft(rest[n:], " "); w != "now" && strings.HasPrefix(t, "(") {
						if t = strings.TrimLeft(t[1:], " "); strings.HasPrefix(t, ")") {
							n = len(rest) - len(t) + 1
						}
					}
				}
			}
			i += n
			before = w
			continue
		default:
			b.WriteByte(c)
			i++
		}
	}
	return b.String(), nil
}

// grammar are the words that mean something between the operands of an expression.
var grammar = func() map[string]bool {
	m := map[string]bool{}
	for w := range strings.FieldsSeq("and or not in is null like ilike rlike regexp between case when then else end cast try_cast as true false distinct from for escape exists " +
		"collate current_date current_timestamp unknown symmetric both leading trailing select interval") {
		m[w] = true
	}
	return m
}()

// plainName reports whether a word is a name and no function, typed constant or part of a date, by what follows it.
func plainName(rest string) bool {
	rest = strings.TrimLeft(rest, " \t\n")
	return rest == "" || !strings.HasPrefix(rest, "(") && !strings.HasPrefix(rest, "'") && !strings.HasPrefix(rest, `"`) && !strings.HasPrefix(strings.ToLower(rest)+" ", "from ")
}

// quoted reads a quoted token of Spark's: the quote is doubled, or in a text escaped with a backslash.
func quoted(s string, isText bool) (text string, n int, ok bool) {
	q := s[0]
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == q && i+1 < len(s) && s[i+1] == q:
			b.WriteByte(q)
			i++
		case s[i] == q:
			return b.String(), i + 1, true
		case s[i] == '\\' && isText && i+1 < len(s):
			i++
			switch s[i] {
			case 'n':
				b.WriteByte('\n')
			case 't':
				b.WriteByte('\t')
			case 'r':
				b.WriteByte('\r')
			case 'b':
				b.WriteByte('\b')
			case 'Z':
				b.WriteByte(26)
			case '0':
				b.WriteByte(0)
			case '%', '_':
				b.WriteByte('\\')
				b.WriteByte(s[i])
			case 'u':
				if i+5 <= len(s) {
					if r, err := strconv.ParseUint(s[i+1:i+5], 16, 32); err == nil {
						b.WriteRune(rune(r))
						i += 4
						continue
					}
				}
				b.WriteByte('u')
			default:
				b.WriteByte(s[i])
			}
		default:
			b.WriteByte(s[i])
		}
	}
	return "", 0, false
}
