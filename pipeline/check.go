package pipeline

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/cauce-data/cauce/delta"
)

// exprText is an SQL expression of the lake file with its place.
type exprText struct {
	sql  string
	at   *value
	what string // "sources.live.filter"
}

// scope is what an expression may refer to.
type scope struct {
	// raw: names are raw fields of a source; else they are columns of a table.
	raw    bool
	source *Source
	table  *Table
	// fields are the raw fields that exist, nil if that is not known before a file is seen.
	fields []string
}

// typeOf classifies a column's type.
func typeOf(t delta.Type) sqlType {
	switch x := t.(type) {
	case delta.Decimal:
		return typeDecimal
	case delta.Primitive:
		switch x {
		case "string":
			return typeText
		case "boolean":
			return typeBool
		case "long", "integer", "short", "byte":
			return typeInt
		case "double", "float":
			return typeFloat
		case "timestamp", "timestamp_ntz":
			return typeTimestamp
		case "date":
			return typeDate
		}
	}
	return typeOther
}

// compile parses and checks an expression; ok is false if diagnostics were written.
func (b *builder) compile(x exprText, sc scope) (e Expr, t sqlType, ok bool) {
	if x.at == nil {
		return nil, typeAny, false
	}
	before := len(b.r.diags)
	defer func() {
		// What is wrong in a text that came out of a reference cannot be told without showing parts of it.
		if x.at.text != x.at.shown && len(b.r.diags) > before {
			b.r.diags = b.r.diags[:before]
			b.r.errorf(x.at.at, "", "%s: %s is not a valid expression once its references are resolved", x.what, strconv.Quote(clip(x.at.shown)))
		}
	}()
	e, err := b.parser.ParseExpr(x.sql)
	if err != nil {
		at, hint := x.at.at, ""
		var se *SyntaxError
		if errors.As(err, &se) {
			at, hint = b.r.inside(x.at, se.Offset), reservedHint(x.sql)
		}
		b.r.errorf(at, hint, "%s: %s: not an SQL expression: %v", x.what, strconv.Quote(clip(x.at.shown)), err)
		return nil, typeAny, false
	}
	c := &checker{b: b, x: x, sc: sc, good: true}
	e, t = c.check(e, 0)
	return e, t, c.good
}

// checker walks one expression.
type checker struct {
	b    *builder
	x    exprText
	sc   scope
	good bool
}

// errorf reports a mistake at the first place of the word in the expression's text.
func (c *checker) errorf(word, hint, format string, args ...any) {
	c.good = false
	at := c.x.at.at
	if i := findWord(c.x.sql, word); i >= 0 {
		at = c.b.r.inside(c.x.at, i)
	}
	c.b.r.errorf(at, hint, "%s: %s", c.x.what, fmt.Sprintf(format, args...))
}

const exprDepthMax = 500

// check resolves names and checks functions; it returns the expression as engines get it.
func (c *checker) check(e Expr, depth int) (Expr, sqlType) {
	if depth > exprDepthMax {
		if c.good {
			c.errorf("", "", "the expression nests too deep")
		}
		return e, typeAny
	}
	switch x := e.(type) {
	case nil:
		return nil, typeAny
	case Literal:
		switch x.Value.(type) {
		case string:
			return x, typeText
		case bool:
			return x, typeBool
		case int64:
			return x, typeInt
		case Decimal:
			return x, typeDecimal
		}
		return x, typeAny
	case Name:
		return c.name(x)
	case Cast:
		return c.cast(x, depth)
	case Case:
		return c.cases(x, depth)
	case Call:
		return c.call(x, depth)
	}
	c.errorf("", "", "this kind of expression cannot be used (%T)", e)
	return e, typeAny
}

func (c *checker) name(n Name) (Expr, sqlType) {
	if c.sc.raw {
		if c.sc.fields != nil && !slices.Contains(c.sc.fields, n.Name) {
			c.errorf(lastPart(n.Name), suggest(n.Name, c.sc.fields), "unknown field %s: it is not among csv.columns of source %s", strconv.Quote(n.Name), c.sc.source.Name)
		}
		return n, typeText
	}
	col, ok := c.sc.table.Column(n.Name)
	if !ok {
		var all []string
		for _, x := range c.sc.table.Columns {
			all = append(all, x.Name)
		}
		if len(all) == 0 {
			c.good = false // what is wrong with the columns is reported
		} else if isSystemColumn(n.Name) {
			c.errorf(n.Name, "", "column %s is filled after transform and expect", strconv.Quote(n.Name))
		} else {
			c.errorf(lastPart(n.Name), suggest(n.Name, all), "unknown column %s of table %s", strconv.Quote(n.Name), c.sc.table.Name)
		}
		return n, typeAny
	}
	if strings.EqualFold(col.Name, ColumnIngestedAt) {
		c.errorf(n.Name, "", "column %s is the time of the run: a row that depends on it would differ each time it is read", strconv.Quote(n.Name))
	}
	return Name{Name: col.Name}, typeOf(col.Type)
}

func (c *checker) cast(x Cast, depth int) (Expr, sqlType) {
	t, err := delta.ParseType(x.Type)
	if err != nil {
		word, _, _ := strings.Cut(x.Type, "(")
		c.errorf(word, typeHint(x.Type), "CAST to unknown type %s", strconv.Quote(clip(x.Type)))
		return x, typeAny
	}
	arg, from := c.check(x.Arg, depth+1)
	to := typeOf(t)
	if why := castRefused(from, to); why != "" {
		c.errorf(x.Type, why, "%s cannot be cast to %s", from, strings.ToUpper(t.String()))
	}
	if c.sc.raw && from == typeText {
		arg = c.decimalSign(arg, t)
	}
	return Cast{Arg: arg, Type: t.String(), Try: x.Try}, to
}

// castRefused says what to write instead of a cast that has no pinned meaning; "" if it has one.
func castRefused(from, to sqlType) string {
	if from == typeAny || from == to || from == typeText {
		return ""
	}
	switch {
	case from.number() && to.number(), from.number() && to == typeText && from != typeFloat:
		return ""
	case to == typeText && (from == typeBool || from == typeDate || from == typeTimestamp):
		return ""
	case from == typeTimestamp && to == typeDate:
		return "write to_date(…), which knows the table's time zone"
	case from.number() && to == typeTimestamp:
		return "write to_event_time(…), which knows seconds, ms, µs and ns by their size"
	case from.number() && to == typeBool:
		return "write a comparison, such as x <> 0"
	case from == typeBool && to.number():
		return "write CASE WHEN x THEN 1 ELSE 0 END"
	}
	return "no meaning is defined for this cast"
}

// decimalSign rewrites a text that will be cast to a number, of a source with decimal comma: ',' becomes '.', and a '.'
// becomes something that no number holds, because it could be a decimal point as well as a thousands separator.
func (c *checker) decimalSign(e Expr, to delta.Type) Expr {
	s := c.sc.source
	if s == nil || s.Kind != KindFiles || s.CSV.Decimal != ',' {
		return e
	}
	if k := typeOf(to); k != typeDecimal && k != typeFloat {
		return e
	}
	if _, lit := e.(Literal); lit {
		return e
	}
	return Call{"replace", []Expr{Call{"replace", []Expr{e, Literal{"."}, Literal{"'"}}}, Literal{","}, Literal{"."}}}
}

func (c *checker) cases(x Case, depth int) (Expr, sqlType) {
	out := Case{Whens: make([]When, 0, len(x.Whens))}
	var types []sqlType
	for _, w := range x.Whens {
		cond, ct := c.check(w.Cond, depth+1)
		if ct != typeBool && ct != typeAny {
			c.errorf("when", compareHint(ct), "the condition of WHEN is %s, not a boolean", ct)
		}
		then, tt := c.check(w.Then, depth+1)
		types = append(types, tt)
		out.Whens = append(out.Whens, When{cond, then})
	}
	if x.Else != nil {
		e, t := c.check(x.Else, depth+1)
		out.Else = e
		types = append(types, t)
	}
	t, ok := common(types)
	if !ok {
		c.errorf("case", "CAST the results to one type", "the results of CASE are of several types: %s", typeList(types))
	}
	return out, t
}

func (c *checker) call(x Call, depth int) (Expr, sqlType) {
	out := Call{Func: x.Func, Args: make([]Expr, len(x.Args))}
	types := make([]sqlType, len(x.Args))
	op, isOp := operators[x.Func]
	f := function(strings.ToLower(x.Func))
	if !isOp && f == nil {
		c.errorf(x.Func, functionHint(x.Func), "unknown function %s", x.Func)
		for _, a := range x.Args {
			c.check(a, depth+1)
		}
		return x, typeAny
	}
	for i, a := range x.Args {
		out.Args[i], types[i] = c.check(a, depth+1)
	}
	if isOp {
		if len(x.Args) < op.min || op.max >= 0 && len(x.Args) > op.max {
			c.errorf("", "", "operator %s has %d operands", strings.ToUpper(x.Func), len(x.Args))
			return out, typeAny
		}
		c.operands(x, op, types)
		return out, op.result(types)
	}
	out.Func = f.Name
	if len(x.Args) < f.ArgsMin || f.ArgsMax >= 0 && len(x.Args) > f.ArgsMax {
		c.errorf(x.Func, "write "+f.Signature, "%s has %d arguments", f.Name, len(x.Args))
		return out, typeAny
	}
	if f.RecordOnly && !c.sc.raw {
		c.errorf(x.Func, "map it to a column in the fields of a source, and use the column here", "%s() knows the record's file; it can only stand in filter, fields and delete of a source", f.Name)
	} else if f.FilesOnly && c.sc.source != nil && c.sc.source.Streaming() {
		c.errorf(x.Func, "", "%s() needs a source of files; %s is of kind %s", f.Name, c.sc.source.Name, c.sc.source.Kind)
	}
	for i, t := range types {
		k := f.args[min(i, len(f.args)-1)]
		if !k.accepts(t) {
			c.errorf(x.Func, argHint(k, t, x.Args[i]), "argument %d of %s is %s; it must be %s", i+1, f.Signature, t, k)
		}
	}
	if len(f.args) > 0 && f.args[0] == sameArg {
		if _, ok := common(types); !ok {
			c.errorf(x.Func, "CAST them to one type", "the arguments of %s are of several types: %s", f.Signature, typeList(types))
		}
	}
	if f.check != nil {
		if err := f.check(out.Args); err != nil {
			c.errorf(x.Func, "", "%s: %v", f.Name, err)
		}
	}
	if f.Name == "file_group" {
		c.fileGroup(x)
	}
	if f.Name == "round" && types[0] == typeDecimal && len(out.Args) > 1 {
		if _, ok := out.Args[1].(Literal); !ok {
			c.errorf(x.Func, "", "round: the digits of a decimal must be a literal number, since its type depends on them")
		}
	}
	return out, f.result(types)
}

func (c *checker) fileGroup(x Call) {
	name, ok := literalText(x.Args[0])
	if !ok {
		c.errorf(x.Func, "", "the name of file_group must be a literal text, such as file_group('symbol')")
		return
	}
	s := c.sc.source
	if s == nil || s.Streaming() {
		return
	}
	if s.FromFilename == nil {
		if !c.b.badFilename[s.Name] {
			c.errorf(x.Func, "give it, such as from_filename: '^(?P<"+name+">[A-Z]+)-'", "file_group('%s'): source %s has no from_filename", name, s.Name)
		}
		return
	}
	var groups []string
	for _, g := range s.FromFilename.SubexpNames() {
		if g != "" {
			groups = append(groups, g)
		}
	}
	if !slices.Contains(groups, name) {
		c.errorf(name, suggest(name, groups), "from_filename of source %s has no group %s", s.Name, strconv.Quote(name))
	}
}

// exact is the type of integers and decimals.
func (c *checker) exact(e Expr) delta.Decimal {
	return ExactType(e, func(name string) delta.Type {
		if c.sc.raw {
			return nil
		}
		col, _ := c.sc.table.Column(name)
		return col.Type
	})
}

func (c *checker) operands(x Call, op operator, types []sqlType) {
	name := strings.ToUpper(x.Func)
	if x.Func == "neg" {
		name = "-"
	}
	for i, t := range types {
		if !op.args.accepts(t) {
			c.errorf(wordOf(x.Args[i]), argHint(op.args, t, x.Args[i]), "operand %s of %s is %s; it must be %s", showExpr(x.Args[i]), name, t, op.args)
		}
	}
	if x.Func == "*" && slices.Contains(types, typeDecimal) {
		a, b := c.exact(x.Args[0]), c.exact(x.Args[1])
		if n := a.S + b.S; n > digitsMax {
			c.errorf(wordOf(x.Args[0]), "CAST one of them to fewer decimals, or to DOUBLE", "%s * %s has %d decimals, and a decimal at most %d", showExpr(x.Args[0]), showExpr(x.Args[1]), n, digitsMax)
		}
	}
	if op.args != sameArg {
		return
	}
	if _, ok := common(types); !ok {
		c.errorf(wordOf(x.Args[0]), mixHint(x, types, c.sc.raw), "%s compares %s", name, typeList(types))
	} else if t, _ := common(types); t == typeOther {
		c.errorf(wordOf(x.Args[0]), "", "%s cannot compare nested or binary values", name)
	}
}

// mixHint proposes the cast that makes a comparison one of equal types.
func mixHint(x Call, types []sqlType, raw bool) string {
	var txt, other = -1, typeAny
	for i, t := range types {
		if t == typeText {
			if _, lit := x.Args[i].(Literal); !lit || txt < 0 {
				txt = i
			}
		} else if t != typeAny {
			other = t
		}
	}
	if txt < 0 {
		if slices.Contains(types, typeDate) && slices.Contains(types, typeTimestamp) {
			return "write to_date(…) around the timestamp"
		}
		if slices.Contains(types, typeTimestamp) {
			return "write to_event_time(…) around the number"
		}
		return "CAST one of them"
	}
	s := showExpr(x.Args[txt])
	why := ""
	if _, isName := x.Args[txt].(Name); isName && raw {
		why = "raw fields are text: "
	}
	switch other {
	case typeInt:
		return why + "write CAST(" + s + " AS LONG)"
	case typeDecimal:
		return why + "write CAST(" + s + " AS DECIMAL(18,8))"
	case typeFloat:
		return why + "write CAST(" + s + " AS DOUBLE)"
	case typeTimestamp:
		return why + "write to_event_time(" + s + ")"
	case typeDate:
		return why + "write CAST(" + s + " AS DATE)"
	case typeBool:
		return why + "write to_boolean(" + s + ")"
	}
	return ""
}

func argHint(k argKind, got sqlType, arg Expr) string {
	s := showExpr(arg)
	switch {
	case k == boolArg:
		return compareHint(got)
	case k == numberArg && got == typeText:
		return "write CAST(" + s + " AS DECIMAL(18,8))"
	case k == intArg && got == typeText:
		return "write CAST(" + s + " AS LONG)"
	case k == timestampArg && (got == typeText || got.number()):
		return "write to_event_time(" + s + ")"
	case (k == textArg || k == textLikeArg) && castRefused(got, typeText) == "":
		return "write CAST(" + s + " AS STRING)"
	}
	return ""
}

func compareHint(t sqlType) string {
	if t == typeText {
		return "compare it, such as x = 'true', or write to_boolean(x)"
	}
	return "compare it, such as x <> 0"
}

// showExpr shows a short expression in a message, "…" for a long one.
func showExpr(e Expr) string {
	s := Format(e)
	if utf8.RuneCountInString(s) > 40 {
		return "…"
	}
	return s
}

// wordOf is a word by which an expression can be found in its text.
func wordOf(e Expr) string {
	w := ""
	Walk(e, func(e Expr) {
		if w != "" {
			return
		}
		switch x := e.(type) {
		case Name:
			w = lastPart(x.Name)
		case Call:
			if _, op := operators[x.Func]; !op {
				w = x.Func
			}
		}
	})
	return w
}

func typeList(types []sqlType) string {
	var out []string
	for _, t := range types {
		if s := t.String(); t != typeAny && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	if len(out) < 2 {
		return strings.Join(out, "")
	}
	return strings.Join(out[:len(out)-1], ", ") + " with " + out[len(out)-1]
}

func lastPart(name string) string { return name[strings.LastIndexByte(name, '.')+1:] }

func isSystemColumn(name string) bool {
	for _, s := range []string{ColumnRank, ColumnGeneration, ColumnPosition, ColumnOrigin, ColumnDeleted, ColumnUnknown} {
		if strings.EqualFold(s, name) {
			return true
		}
	}
	return false
}

// assignable says why a value of the type cannot become a column's value; "" if it can.
func assignable(from sqlType, to delta.Type) (hint string, ok bool) {
	k := typeOf(to)
	unknown := to == delta.Type(delta.Primitive("void")) // which is reported
	if unknown || from == typeAny || from == typeText || from == k || k == typeOther && from == typeOther {
		return "", true
	}
	if why := castRefused(from, k); why != "" {
		return why, false
	}
	return "", true
}

var typeNames = []string{"STRING", "LONG", "BIGINT", "INT", "INTEGER", "SHORT", "SMALLINT", "BYTE", "TINYINT", "DOUBLE", "FLOAT", "REAL", "DECIMAL(18,8)", "DECIMAL", "BOOLEAN", "TIMESTAMP", "TIMESTAMP_NTZ", "DATE", "BINARY", "STRUCT", "ARRAY", "MAP"}

// otherTypeNames are types of other databases.
var otherTypeNames = map[string]string{
	"VARCHAR": "STRING", "TEXT": "STRING", "CHAR": "STRING", "NVARCHAR": "STRING", "UUID": "STRING", "JSON": "STRING", "STR": "STRING",
	"INT8": "LONG", "INT64": "LONG", "HUGEINT": "DECIMAL(38,0)", "INT4": "INT", "INT32": "INT", "INT2": "SHORT", "INT16": "SHORT", "UINT64": "DECIMAL(20,0)", "UBIGINT": "DECIMAL(20,0)",
	"FLOAT8": "DOUBLE", "FLOAT64": "DOUBLE", "FLOAT4": "FLOAT", "FLOAT32": "FLOAT", "NUMERIC": "DECIMAL(18,8)", "NUMBER": "DECIMAL(18,8)", "MONEY": "DECIMAL(18,2)",
	"BOOL": "BOOLEAN", "DATETIME": "TIMESTAMP", "TIMESTAMPTZ": "TIMESTAMP", "TIME": "TIMESTAMP", "BLOB": "BINARY", "BYTES": "BINARY", "LIST": "ARRAY", "OBJECT": "STRUCT",
}

// typeHint says what to write instead of a type that cannot be read.
func typeHint(got string) string {
	if strings.Count(got, "(") > strings.Count(got, ")") || strings.Count(got, "<") > strings.Count(got, ">") {
		return "a type with a comma must be put into double quotes inside { }, such as \"DECIMAL(18,8)\""
	}
	word, rest, _ := strings.Cut(strings.TrimSpace(got), "(")
	word = strings.ToUpper(strings.TrimSpace(word))
	if to, ok := otherTypeNames[word]; ok {
		if (word == "NUMERIC" || word == "NUMBER") && rest != "" {
			to = "DECIMAL(" + rest
		}
		return "write " + to
	}
	if word == "DECIMAL" {
		return "write DECIMAL(p,s) with p from 1 to 38 and s from 0 to p, such as DECIMAL(18,8)"
	}
	if n := nearest(word, typeNames); n != "" {
		return "did you mean " + n + "?"
	}
	return typeShape.want()
}

// findWord finds a name in an SQL text outside of text literals, ignoring case; -1 if it is not there.
func findWord(sql, word string) int {
	if word == "" {
		return -1
	}
	isWord := func(c byte) bool {
		return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
	}
	for pass := range 2 { // exact case first
		inText := false
		for i := 0; i+len(word) <= len(sql); i++ {
			if sql[i] == '\'' {
				inText = !inText
				continue
			}
			hit := sql[i:i+len(word)] == word || pass == 1 && strings.EqualFold(sql[i:i+len(word)], word)
			if hit && !inText && (i == 0 || !isWord(sql[i-1])) && (i+len(word) == len(sql) || !isWord(sql[i+len(word)])) {
				return i
			}
		}
	}
	return -1
}

// inside gives the place of a byte offset in a scalar's text. Where the text does not stand in the file as it is
// (escapes, folded lines, references) the place of the scalar must do.
func (r *reader) inside(v *value, offset int) pos {
	if v == nil {
		return pos{}
	}
	if offset < 0 || offset > len(v.text) || v.text != v.shown {
		return v.at
	}
	before := v.text[:offset]
	row := strings.Count(before, "\n")
	lines := strings.Split(v.text, "\n")
	inRow := before[strings.LastIndexByte(before, '\n')+1:]
	if v.block {
		first := v.at.line + 1
		for first <= len(r.lines) && strings.TrimSpace(r.line(first)) == "" {
			first++
		}
		src := r.line(first + row)
		if i := strings.Index(src, lines[row]); i >= 0 {
			return pos{first + row, utf8.RuneCountInString(src[:i]) + utf8.RuneCountInString(inRow) + 1}
		}
		return v.at
	}
	if row > 0 {
		return v.at
	}
	src := []rune(r.line(v.at.line))
	start := v.at.column - 1
	if v.quoted {
		start++
	}
	if start < 0 || start > len(src) || !strings.HasPrefix(string(src[start:]), v.text) {
		return v.at
	}
	return pos{v.at.line, start + utf8.RuneCountInString(inRow) + 1}
}
