// Package sqltext takes SQL text apart into tokens as PostgreSQL's lexer does: to split what a client sends into
// statements, to recognise commands that never reach an engine, and to put literals in the places of parameters. Of
// grammar it knows nothing but where Spark's time travel stands.
package sqltext

import (
	"strings"
	"unicode/utf8"
)

// Kind is the kind of a token.
type Kind int

// The kinds of tokens. White space and comments are none.
const (
	Word   Kind = iota // an identifier or key word, as written
	Quoted             // "an identifier", in its quotes
	Text               // 'a text', E'…', $tag$…$tag$ …
	Number
	Param // $1
	Symbol
)

// Token is a piece of the text: SQL[Start:End].
type Token struct {
	Kind       Kind
	Start, End int
}

// Statement is one statement of a text, without its semicolon.
type Statement struct {
	SQL    string
	Tokens []Token // their places are those in SQL
}

// Word gives the i-th token in upper case if it is a plain word, else "".
func (s *Statement) Word(i int) string {
	if i < 0 || i >= len(s.Tokens) || s.Tokens[i].Kind != Word {
		return ""
	}
	return strings.ToUpper(s.Text(i))
}

// Text gives the i-th token as it is written; "" beyond the end.
func (s *Statement) Text(i int) string {
	if i < 0 || i >= len(s.Tokens) {
		return ""
	}
	t := s.Tokens[i]
	return s.SQL[t.Start:t.End]
}

// Name gives the identifier that the i-th token is: plain words in lower case, quoted ones without quotes.
func (s *Statement) Name(i int) (string, bool) {
	if i < 0 || i >= len(s.Tokens) {
		return "", false
	}
	switch t := s.Text(i); s.Tokens[i].Kind {
	case Word:
		return strings.ToLower(t), true
	case Quoted:
		return strings.ReplaceAll(strings.TrimSuffix(t[1:], `"`), `""`, `"`), true
	}
	return "", false
}

// Literal gives the value of the i-th token if it is a text.
func (s *Statement) Literal(i int) (string, bool) {
	if i < 0 || i >= len(s.Tokens) || s.Tokens[i].Kind != Text {
		return "", false
	}
	return literal(s.Text(i)), true
}

// Rest is the text from the i-th token on.
func (s *Statement) Rest(i int) string {
	if i >= len(s.Tokens) {
		return ""
	}
	return s.SQL[s.Tokens[i].Start:]
}

// Between is the text from the i-th token up to the j-th, which is not part of it.
func (s *Statement) Between(i, j int) string {
	if i >= j || i >= len(s.Tokens) {
		return ""
	}
	if j >= len(s.Tokens) {
		return s.Rest(i)
	}
	return s.SQL[s.Tokens[i].Start:s.Tokens[j-1].End]
}

// Replace gives the text with tokens replaced; f gives false where a token stays.
func (s *Statement) Replace(f func(i int) (string, bool)) string {
	var b strings.Builder
	at := 0
	for i, t := range s.Tokens {
		if with, ok := f(i); ok {
			b.WriteString(s.SQL[at:t.Start])
			b.WriteString(with)
			at = t.End
		}
	}
	b.WriteString(s.SQL[at:])
	return b.String()
}

// Split takes a text apart into its statements; empty ones are left out.
func Split(sql string) []*Statement {
	var out []*Statement
	start := 0
	var tokens []Token
	end := func(at int) {
		if len(tokens) > 0 {
			// Comments before the first token stay; the places count from start.
			for i := range tokens {
				tokens[i].Start -= start
				tokens[i].End -= start
			}
			out = append(out, &Statement{SQL: sql[start:at], Tokens: tokens})
		}
		tokens = nil
	}
	l := lexer{s: sql}
	for {
		t, ok := l.next()
		if !ok {
			break
		}
		if t.Kind == Symbol && sql[t.Start] == ';' {
			end(t.Start)
			start = t.End
			continue
		}
		tokens = append(tokens, t)
	}
	end(len(sql))
	return out
}

// One is a text as a single statement; semicolons are tokens like others.
func One(sql string) *Statement {
	s := &Statement{SQL: sql}
	l := lexer{s: sql}
	for {
		t, ok := l.next()
		if !ok {
			return s
		}
		s.Tokens = append(s.Tokens, t)
	}
}

// WithoutComments writes blanks for comments, so that everything else stays in its place. Of one that does not end the beginning
// stays.
func WithoutComments(sql string) string {
	l := lexer{s: sql, blanks: []byte(sql)}
	for {
		if _, ok := l.next(); !ok {
			return string(l.blanks)
		}
	}
}

type lexer struct {
	s      string
	at     int
	blanks []byte // s with blanks for comments; nil: nobody wants it
}

// blank writes blanks from a place on.
func (l *lexer) blank(from int) {
	for i := from; i < l.at && l.blanks != nil; i++ {
		if l.s[i] != '\n' {
			l.blanks[i] = ' '
		}
	}
}

func (l *lexer) next() (Token, bool) {
	if !l.skip() {
		return Token{}, false
	}
	start := l.at
	kind := l.token()
	return Token{kind, start, l.at}, true
}

// skip passes white space and comments, which nest.
func (l *lexer) skip() bool {
	for l.at < len(l.s) {
		switch c := l.s[l.at]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v':
			l.at++
		case strings.HasPrefix(l.s[l.at:], "--"):
			start := l.at
			i := strings.IndexAny(l.s[l.at:], "\n\r")
			if i < 0 {
				l.at = len(l.s)
			} else {
				l.at += i
			}
			l.blank(start)
		case strings.HasPrefix(l.s[l.at:], "/*"):
			start, depth := l.at, 0
			for l.at < len(l.s) {
				switch {
				case strings.HasPrefix(l.s[l.at:], "/*"):
					depth++
					l.at += 2
				case strings.HasPrefix(l.s[l.at:], "*/"):
					depth--
					l.at += 2
				default:
					l.at++
				}
				if depth == 0 {
					break
				}
			}
			if depth > 0 {
				start += len("/*")
			}
			l.blank(start)
		default:
			return true
		}
	}
	return false
}

func (l *lexer) token() Kind {
	rest := l.s[l.at:]
	switch c := rest[0]; {
	case c == '\'':
		l.quoted('\'', false)
		return Text
	case (c == 'e' || c == 'E') && strings.HasPrefix(rest[1:], "'"):
		l.at++
		l.quoted('\'', true)
		return Text
	case (c == 'b' || c == 'B' || c == 'x' || c == 'X' || c == 'n' || c == 'N') && strings.HasPrefix(rest[1:], "'"):
		l.at++
		l.quoted('\'', false)
		return Text
	case c == '"':
		l.quoted('"', false)
		return Quoted
	case c == '$':
		if n := digits(rest[1:]); n > 0 {
			l.at += 1 + n
			return Param
		}
		if tag, ok := dollarTag(rest); ok {
			i := strings.Index(rest[len(tag):], tag)
			if i < 0 {
				l.at = len(l.s)
			} else {
				l.at += len(tag) + i + len(tag)
			}
			return Text
		}
		l.at++
		return Symbol
	case c >= '0' && c <= '9' || c == '.' && len(rest) > 1 && rest[1] >= '0' && rest[1] <= '9':
		l.number()
		return Number
	case letter(c):
		n := 1
		for n < len(rest) && (letter(rest[n]) || rest[n] >= '0' && rest[n] <= '9' || rest[n] == '$') {
			n++
		}
		l.at += n
		return Word
	}
	for _, two := range []string{"::", "<=", ">=", "<>", "!=", "||", "=>", ":=", "->>", "->"} {
		if strings.HasPrefix(rest, two) {
			l.at += len(two)
			return Symbol
		}
	}
	_, n := utf8.DecodeRuneInString(rest)
	l.at += n
	return Symbol
}

func letter(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= 0x80
}

func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}

func (l *lexer) number() {
	for l.at < len(l.s) {
		c := l.s[l.at]
		switch {
		case c >= '0' && c <= '9' || c == '.' || letter(c):
			l.at++
		case (c == '+' || c == '-') && (l.s[l.at-1] == 'e' || l.s[l.at-1] == 'E'):
			l.at++
		default:
			return
		}
	}
}

// quoted passes a quoted text; a doubled quote, and with escapes a backslash and what follows, belong to it.
func (l *lexer) quoted(quote byte, escapes bool) {
	l.at++
	for l.at < len(l.s) {
		switch c := l.s[l.at]; {
		case escapes && c == '\\' && l.at+1 < len(l.s):
			l.at += 2
		case c == quote && l.at+1 < len(l.s) && l.s[l.at+1] == quote:
			l.at += 2
		case c == quote:
			l.at++
			return
		default:
			l.at++
		}
	}
}

// dollarTag gives the $tag$ with which a text begins.
func dollarTag(s string) (string, bool) {
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '$':
			return s[:i+1], true
		case letter(c) || i > 1 && c >= '0' && c <= '9':
		default:
			return "", false
		}
	}
	return "", false
}

// literal is the value of a text token; escapes beyond the common ones stay as they are.
func literal(t string) string {
	if strings.HasPrefix(t, "$") {
		tag, ok := dollarTag(t)
		if !ok {
			return t
		}
		return strings.TrimSuffix(strings.TrimPrefix(t, tag), tag)
	}
	escapes := t[0] == 'e' || t[0] == 'E'
	if t[0] != '\'' {
		t = t[1:]
	}
	t = strings.ReplaceAll(strings.TrimSuffix(t[1:], "'"), "''", "'")
	if escapes {
		t = strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\t`, "\t", `\r`, "\r", `\'`, "'").Replace(t)
	}
	return t
}

// Quote makes a text literal.
func Quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// QuoteName makes an identifier.
func QuoteName(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
