package pipeline

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Bounds of a lake file; beyond them it is refused, so that no file can exhaust memory or stack.
const (
	fileBytesMax = 4 << 20
	depthMax     = 200     // nested collections
	valuesMax    = 200_000 // values after aliases are followed
)

// secret is a value that came from outside the lake file, and the reference that stands for it wherever it is shown.
type secret struct{ value, ref string }

// pos is a place in the lake file, both from 1; the zero value is the file as a whole.
type pos struct{ line, column int }

// value is a node of the lake file that has been checked against its shape. All methods accept nil, which is an absent
// value.
type value struct {
	at     pos
	text   string // of a scalar, references resolved
	shown  string // of a scalar, as written
	num    int64  // of an integer, a size or a duration (ns)
	flag   bool   // of a boolean
	quoted bool   // the text begins one column after at
	block  bool   // the text begins in a later line
	items  []*value
	keys   []entry
}

type entry struct {
	name string
	at   pos
	v    *value
}

func (v *value) get(name string) *value {
	if v != nil {
		for _, e := range v.keys {
			if e.name == name {
				return e.v
			}
		}
	}
	return nil
}

func (v *value) str(def string) string {
	if v == nil {
		return def
	}
	return v.text
}

// why gives the reason of an error about a value's text. A reason may quote parts of the text, so it stays hidden where
// the text came out of a reference.
func (v *value) why(err error) string {
	if v.text != v.shown {
		return "not valid once its references are resolved"
	}
	return err.Error()
}

func (v *value) int(def int64) int64 {
	if v == nil {
		return def
	}
	return v.num
}

func (v *value) bool(def bool) bool {
	if v == nil {
		return def
	}
	return v.flag
}

func (v *value) list() []*value {
	if v == nil {
		return nil
	}
	return v.items
}

func (v *value) strs() []string {
	if v == nil {
		return nil
	}
	s := make([]string, 0, len(v.items))
	for _, i := range v.items {
		s = append(s, i.text)
	}
	return s
}

// place gives the position, of the zero value for nil.
func (v *value) place() pos {
	if v == nil {
		return pos{}
	}
	return v.at
}

// reader turns the bytes of a lake file into values and collects what is wrong.
type reader struct {
	file    string
	dir     string
	lines   []string
	env     func(string) (string, bool)
	diags   Diagnostics
	secrets []secret
	anchors map[string]ast.Node
	count   int
}

func (r *reader) errorf(at pos, hint, format string, args ...any) {
	if n := len(r.lines); n > 0 && at.line > n { // the YAML library counts an end of file as a line
		at = pos{n, utf8.RuneCountInString(r.lines[n-1]) + 1}
	}
	if at.line > 0 && at.column < 1 {
		at.column = 1
	}
	r.diags = append(r.diags, Diagnostic{File: r.file, Line: at.line, Column: at.column, Msg: fmt.Sprintf(format, args...), Hint: hint})
}

// parse reads the text as one YAML document. A nil node means that diagnostics say why.
func (r *reader) parse(text []byte) (node ast.Node) {
	if len(text) > fileBytesMax {
		r.errorf(pos{}, "", "the lake file has %d bytes; at most %d are read", len(text), fileBytesMax)
		return nil
	}
	if i := invalidUTF8(text); i >= 0 {
		line := 1 + strings.Count(string(text[:i]), "\n")
		r.errorf(pos{line, 1}, "save it as UTF-8", "the lake file is not UTF-8: byte 0x%02x", text[i])
		return nil
	}
	s := strings.TrimPrefix(string(text), "\ufeff")
	s = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(s) // the three line breaks of YAML
	r.lines = strings.Split(s, "\n")
	if deepest(s) > depthMax {
		r.errorf(pos{}, "", "the lake file nests more than %d levels deep", depthMax)
		return nil
	}
	// The YAML library is fed with what people type; should it ever panic, that is an error in the file's favour.
	defer func() {
		if p := recover(); p != nil {
			r.errorf(pos{}, "", "the lake file is not YAML that can be read: %v", p)
			node = nil
		}
	}()
	f, err := parser.ParseBytes([]byte(s), 0, parser.AllowDuplicateMapKey())
	if err != nil {
		var se yaml.Error
		if errors.As(err, &se) {
			at := pos{}
			if t := se.GetToken(); t != nil && t.Position != nil {
				at = pos{t.Position.Line, t.Position.Column}
			}
			msg := se.GetMessage()
			hint := ""
			if !strings.Contains(msg, "end token") && !strings.Contains(msg, "end character") {
				hint = yamlHint(r.line(at.line))
			}
			r.errorf(at, hint, "not YAML: %s", msg)
			return nil
		}
		r.errorf(pos{}, "", "not YAML: %v", err)
		return nil
	}
	var docs []ast.Node
	for _, d := range f.Docs {
		if d != nil && d.Body != nil {
			if _, comment := d.Body.(*ast.CommentGroupNode); !comment {
				docs = append(docs, d.Body)
			}
		}
	}
	switch len(docs) {
	case 0:
		r.errorf(pos{}, "cauce init writes one to start from", "the lake file is empty")
		return nil
	case 1:
	default:
		r.errorf(nodePos(docs[1]), "remove the line ---", "the lake file holds more than one YAML document")
		return nil
	}
	r.anchors = map[string]ast.Node{}
	return docs[0]
}

func (r *reader) line(n int) string {
	if n < 1 || n > len(r.lines) {
		return ""
	}
	return r.lines[n-1]
}

// yamlHint guesses the two commonest reasons why a line is not YAML.
func yamlHint(line string) string {
	trimmed := strings.TrimLeft(line, " ")
	if strings.HasPrefix(trimmed, "\t") {
		return "indent with spaces, not tabs"
	}
	if _, v, ok := strings.Cut(trimmed, ": "); ok && strings.ContainsAny(v, ":{}[]#&*!|>%@`") && !strings.HasPrefix(v, `"`) {
		return `put values that hold special characters into double quotes`
	}
	return ""
}

func invalidUTF8(b []byte) int {
	for i := 0; i < len(b); {
		c, n := utf8.DecodeRune(b[i:])
		if c == utf8.RuneError && n <= 1 {
			return i
		}
		i += n
	}
	return -1
}

// deepest bounds how deep flow and block collections can nest, without parsing: open brackets and the widest indent.
func deepest(s string) int {
	open, most := 0, 0
	for line := range strings.Lines(s) {
		indent, dashes := 0, 0
		for _, c := range line {
			if c == ' ' {
				indent++
			} else if c == '-' || c == '?' {
				dashes++
			} else {
				break
			}
		}
		for i := range len(line) {
			switch line[i] {
			case '[', '{':
				open++
			case ']', '}':
				open = max(open-1, 0)
			}
			most = max(most, open)
		}
		most = max(most, dashes+min(indent, 1)+indent/8)
	}
	return most
}

func nodePos(n ast.Node) pos {
	switch x := n.(type) {
	case *ast.MappingNode:
		if !x.IsFlowStyle && len(x.Values) > 0 {
			return nodePos(x.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return nodePos(x.Key)
	}
	if n == nil {
		return pos{}
	}
	t := n.GetToken()
	if t == nil || t.Position == nil {
		return pos{}
	}
	return pos{t.Position.Line, t.Position.Column}
}

// pairs gives the key-value pairs of a mapping, with merge keys (<<) resolved; ok is false if n is no mapping.
func (r *reader) pairs(n ast.Node) (out []*ast.MappingValueNode, ok bool) {
	var values []*ast.MappingValueNode
	switch x := n.(type) {
	case *ast.MappingNode:
		values = x.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{x}
	default:
		return nil, false
	}
	var merged []*ast.MappingValueNode
	for _, p := range values {
		if _, merge := p.Key.(*ast.MergeKeyNode); !merge {
			out = append(out, p)
			continue
		}
		v := r.follow(p.Value)
		more, isMap := r.pairs(v)
		if !isMap {
			r.errorf(nodePos(p.Value), "", "<< needs a mapping, such as *name of an anchored one")
			continue
		}
		merged = append(merged, more...)
	}
	have := map[string]bool{}
	for _, p := range out {
		have[keyText(p.Key)] = true
	}
	for _, p := range merged {
		if k := keyText(p.Key); !have[k] {
			have[k] = true
			out = append(out, p)
		}
	}
	return out, true
}

func keyText(k ast.Node) string {
	switch x := k.(type) {
	case *ast.StringNode:
		return x.Value
	case *ast.MappingKeyNode:
		if x.Value != nil {
			return keyText(x.Value)
		}
	}
	if t := k.GetToken(); t != nil {
		return t.Value
	}
	return k.String()
}

// follow resolves anchors, aliases and tags down to the node that holds the value; nil if it cannot.
func (r *reader) follow(n ast.Node) ast.Node {
	for range depthMax {
		switch x := n.(type) {
		case *ast.AnchorNode:
			r.anchors[keyText(x.Name)] = x.Value
			n = x.Value
		case *ast.AliasNode:
			name := keyText(x.Value)
			target, ok := r.anchors[name]
			if !ok {
				r.errorf(nodePos(n), "", "alias *%s has no anchor &%s before it", name, name)
				return nil
			}
			n = target
		case *ast.TagNode:
			n = x.Value
		default:
			return n
		}
	}
	r.errorf(nodePos(n), "", "aliases refer to each other in a circle")
	return nil
}

// read checks a node against a shape. It returns nil where the node is absent (null) or wrong; diagnostics say which.
func (r *reader) read(n ast.Node, sh *shape, what string, depth int) *value {
	if r.count++; r.count > valuesMax || depth > depthMax {
		if r.count == valuesMax+1 || depth == depthMax+1 {
			r.errorf(nodePos(n), "", "the lake file is too large or nests too deep")
			r.count = valuesMax + 2
		}
		return nil
	}
	n = r.follow(n)
	if n == nil {
		return nil
	}
	if _, null := n.(*ast.NullNode); null {
		if sh.nullable {
			return nil
		}
		r.errorf(nodePos(n), sh.want(), "%s has no value", what)
		return nil
	}
	if sh.short != nil && isScalar(n) {
		v := r.read(n, sh.short, what, depth+1)
		if v == nil {
			return nil
		}
		return &value{at: v.at, keys: []entry{{name: sh.shortKey, at: v.at, v: v}}}
	}
	switch sh.kind {
	case kindObject, kindDict:
		return r.readMapping(n, sh, what, depth)
	case kindList:
		return r.readList(n, sh, what, depth)
	}
	return r.readScalar(n, sh, what)
}

func isScalar(n ast.Node) bool {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode, *ast.SequenceNode:
		return false
	}
	return true
}

func describe(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	}
	if t := n.GetToken(); t != nil {
		return strconv.Quote(clip(t.Value))
	}
	return "a value"
}

// clip shortens a text for a message.
func clip(s string) string {
	if utf8.RuneCountInString(s) <= 80 {
		return s
	}
	return string([]rune(s)[:77]) + "…"
}

func (r *reader) readMapping(n ast.Node, sh *shape, what string, depth int) *value {
	pairs, ok := r.pairs(n)
	if !ok {
		r.errorf(nodePos(n), sh.like(), "%s is %s, not a mapping", what, describe(n))
		return nil
	}
	v := &value{at: nodePos(n)}
	seen := map[string]pos{}
	meant := map[string]bool{} // keys that a misspelt one stands for
	for _, p := range pairs {
		at := nodePos(p.Key)
		name := keyText(p.Key)
		if first, dup := seen[name]; dup {
			r.errorf(at, "", "%s is given twice; first in line %d", strconv.Quote(clip(name)), first.line)
			continue
		}
		seen[name] = at
		if sh.kind == kindDict {
			if _, null := p.Value.(*ast.NullNode); null && strings.HasSuffix(name, ")") && strings.Contains(r.line(at.line), "(") {
				continue // the rest of an unquoted type with a comma; its beginning is reported
			}
			// A name stays known even if what it stands for is wrong.
			v.keys = append(v.keys, entry{name, at, r.read(p.Value, sh.elem, what+"."+name, depth+1)})
			continue
		}
		k := sh.key(name)
		if k == nil {
			if depth == 0 && strings.HasPrefix(name, "x-") {
				r.followAll(p.Value, depth+1)
				continue
			}
			meant[nearest(name, sh.keyNames())] = true
			r.errorf(at, unknownKeyHint(name, sh), "unknown key %s in %s", strconv.Quote(clip(name)), what)
			continue
		}
		label := name
		if depth > 0 {
			label = what + "." + name
		}
		if cv := r.read(p.Value, k.shape, label, depth+1); cv != nil {
			v.keys = append(v.keys, entry{name, at, cv})
		}
	}
	for _, k := range sh.keys {
		if _, given := seen[k.name]; k.required && !given && !meant[k.name] {
			r.errorf(v.at, k.shape.want(), "%s has no %s", what, k.name)
		}
	}
	return v
}

// followAll registers the anchors below a node that is otherwise ignored.
func (r *reader) followAll(n ast.Node, depth int) {
	if r.count++; r.count > valuesMax || depth > depthMax {
		return
	}
	if a, ok := n.(*ast.AliasNode); ok {
		_ = a
		return
	}
	n = r.follow(n)
	if pairs, ok := r.pairs(n); ok {
		for _, p := range pairs {
			r.followAll(p.Value, depth+1)
		}
	} else if s, ok := n.(*ast.SequenceNode); ok {
		for _, i := range s.Values {
			r.followAll(i, depth+1)
		}
	}
}

func unknownKeyHint(name string, sh *shape) string {
	if strings.ContainsAny(name, "()") {
		return "a value that holds a comma, such as DECIMAL(18,8), must be put into double quotes inside { }"
	}
	return suggest(name, sh.keyNames())
}

func (r *reader) readList(n ast.Node, sh *shape, what string, depth int) *value {
	v := &value{at: nodePos(n)}
	s, ok := n.(*ast.SequenceNode)
	if !ok {
		if !isScalar(n) || !sh.elem.scalar() {
			r.errorf(v.at, sh.like(), "%s is %s, not a list", what, describe(n))
			return nil
		}
		// One text stands for the list of it.
		if i := r.read(n, sh.elem, what, depth+1); i != nil {
			v.items = []*value{i}
			return v
		}
		return nil
	}
	for i, e := range s.Values {
		if iv := r.read(e, sh.elem, fmt.Sprintf("%s[%d]", what, i), depth+1); iv != nil {
			v.items = append(v.items, iv)
		}
	}
	return v
}

// unspaced gives the text of a scalar with a colon inside, such as localhost:9092, which the YAML library takes for a
// mapping where it stands in braces.
func unspaced(n ast.Node) (string, bool) {
	if one, ok := n.(*ast.MappingNode); ok && !one.IsFlowStyle && len(one.Values) == 1 {
		n = one.Values[0]
	}
	m, ok := n.(*ast.MappingValueNode)
	if !ok || m.Start == nil || m.Value == nil || !isScalar(m.Value) {
		return "", false
	}
	k, v := m.Key.GetToken(), m.Value.GetToken()
	if k == nil || v == nil || k.Position.Line != v.Position.Line || m.Start.Position.Column+1 != v.Position.Column || strings.ContainsAny(k.Value+v.Value, " \t\n") {
		return "", false
	}
	return k.Value + ":" + v.Value, true
}

func (r *reader) readScalar(n ast.Node, sh *shape, what string) *value {
	plain, joined := "", false
	if sh.kind == kindText {
		plain, joined = unspaced(n)
	}
	if !isScalar(n) && !joined {
		r.errorf(nodePos(n), sh.want(), "%s is %s", what, describe(n))
		return nil
	}
	v := &value{at: nodePos(n)}
	switch x := n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		v.shown = plain
	case *ast.StringNode:
		v.shown = x.Value
		src := []rune(r.line(v.at.line))
		if c := v.at.column - 1; c >= 0 && c < len(src) && (src[c] == '"' || src[c] == '\'') {
			v.quoted = true
		}
	case *ast.LiteralNode:
		v.block = true
		if x.Value != nil {
			v.shown = strings.TrimRight(x.Value.Value, "\n")
		}
	default:
		t := n.GetToken()
		if t == nil {
			r.errorf(v.at, sh.want(), "%s cannot be read", what)
			return nil
		}
		v.shown = t.Value
	}
	var ok bool
	if v.text, ok = r.expand(v, what); !ok {
		return nil
	}
	bad := func() *value {
		r.errorf(v.at, sh.like(), "%s: %s is not %s", what, strconv.Quote(clip(v.shown)), sh.noun())
		return nil
	}
	switch sh.kind {
	case kindInt:
		i, err := strconv.ParseInt(strings.ReplaceAll(v.text, "_", ""), 10, 64)
		if err != nil || i < sh.min || (sh.max != 0 && i > sh.max) {
			return bad()
		}
		v.num = i
	case kindBool:
		switch strings.ToLower(v.text) {
		case "true", "on", "yes":
			v.flag = true
		case "false", "off", "no":
		default:
			return bad()
		}
	case kindChoice:
		for _, e := range sh.enum {
			if strings.EqualFold(e, v.text) {
				v.text = e
				return v
			}
		}
		hint := suggest(v.shown, sh.enum)
		r.errorf(v.at, hint, "%s: %s is not known", what, strconv.Quote(clip(v.shown)))
		return nil
	case kindDuration:
		d, err := parseDuration(v.text)
		if err != nil || int64(d) < sh.min && sh.max == 0 {
			return bad()
		}
		if sh.max > 0 && (int64(d) < sh.min || int64(d) > sh.max) {
			r.errorf(v.at, "write it like "+sh.example, "%s: %s is not from %v to %v", what, strconv.Quote(clip(v.shown)), time.Duration(sh.min), time.Duration(sh.max))
			return nil
		}
		v.num = int64(d)
	case kindSize:
		b, err := ParseSize(v.text)
		if err != nil {
			return bad()
		}
		if b < sh.min {
			r.errorf(v.at, "write it like "+sh.example, "%s: %s is less than %d bytes", what, strconv.Quote(clip(v.shown)), sh.min)
			return nil
		}
		v.num = b
	case kindChar:
		if v.text == `\t` || strings.EqualFold(v.text, "tab") {
			v.text = "\t"
		}
		c, n := utf8.DecodeRuneInString(v.text)
		if n != len(v.text) || n == 0 || c == '\n' || c == '\r' {
			return bad()
		}
		v.num = int64(c)
	case kindText, kindSQL, kindType:
		if strings.TrimSpace(v.text) == "" && !sh.empty {
			r.errorf(v.at, sh.want(), "%s is empty", what)
			return nil
		}
	}
	return v
}

// expand resolves ${env:NAME}, ${env:NAME:-default} and ${file:PATH}; "$${" is a literal "${".
func (r *reader) expand(v *value, what string) (string, bool) {
	s := v.shown
	if !strings.Contains(s, "${") {
		return s, true
	}
	var b strings.Builder
	good := true
	for {
		i := strings.Index(s, "${")
		if i < 0 {
			b.WriteString(s)
			return b.String(), good
		}
		if i > 0 && s[i-1] == '$' {
			b.WriteString(s[:i-1] + "${")
			s = s[i+2:]
			continue
		}
		b.WriteString(s[:i])
		end := strings.IndexByte(s[i:], '}')
		if end < 0 {
			r.errorf(v.at, `write $${ for a literal ${`, "%s: ${ has no closing }", what)
			return "", false
		}
		ref := s[i : i+end+1]
		s = s[i+end+1:]
		text, isSecret, msg, hint := r.resolve(ref[2 : len(ref)-1])
		if msg != "" {
			r.errorf(v.at, hint, "%s: %s", what, msg)
			good = false
			continue
		}
		if isSecret && len(text) >= secretBytesMin {
			r.secrets = append(r.secrets, secret{text, ref})
		}
		b.WriteString(text)
	}
}

// secretBytesMin is how long a value is that is kept from being shown. A shorter one keeps no secret, and is part of words,
// numbers and addresses that have nothing to do with it.
const secretBytesMin = 4

func (r *reader) resolve(ref string) (text string, isSecret bool, msg, hint string) {
	kind, rest, _ := strings.Cut(ref, ":")
	switch kind {
	case "env":
		name, def, hasDefault := strings.Cut(rest, ":-")
		if val, ok := r.env(name); ok {
			return val, true, "", ""
		}
		if hasDefault {
			return def, false, "", ""
		}
		return "", false, fmt.Sprintf("the environment variable %s is not set", strconv.Quote(name)),
			fmt.Sprintf("set it, or give a default: ${env:%s:-…}", name)
	case "file":
		p := rest
		if !filepath.IsAbs(p) {
			p = filepath.Join(r.dir, p)
		}
		info, err := os.Stat(p)
		if err == nil && info.Mode().IsRegular() && info.Size() <= fileBytesMax {
			var b []byte
			if b, err = os.ReadFile(p); err == nil {
				return strings.TrimRight(string(b), "\r\n"), true, "", ""
			}
		}
		if err == nil {
			return "", false, fmt.Sprintf("${file:%s} is not a regular file of at most %d bytes", rest, fileBytesMax), ""
		}
		var pe *os.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return "", false, fmt.Sprintf("${file:%s} cannot be read: %v", rest, err), ""
	}
	return "", false, fmt.Sprintf("${%s} is not known", clip(ref)), "it can be ${env:NAME}, ${env:NAME:-default} or ${file:PATH}; write $${ for a literal ${"
}

// ParseDuration reads a duration as the lake file has it: "30s", "1h30m", "7d".
func ParseDuration(s string) (time.Duration, error) { return parseDuration(s) }

// parseDuration reads Go durations and days: "30s", "1h30m", "7d".
func parseDuration(s string) (time.Duration, error) {
	s = strings.TrimSpace(s)
	if d, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseInt(d, 10, 32)
		if err != nil || n < 0 || n > 36500 {
			return 0, fmt.Errorf("duration %q", s)
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	return time.ParseDuration(s)
}

// ParseSize reads a size as the lake file has it: "1048576", "128MiB", "64 MB", "1GiB".
func ParseSize(s string) (int64, error) {
	s = strings.TrimSpace(s)
	i := strings.IndexFunc(s, func(c rune) bool { return (c < '0' || c > '9') && c != '_' })
	unit := ""
	if i >= 0 {
		s, unit = s[:i], strings.ToLower(strings.TrimSpace(s[i:]))
	}
	n, err := strconv.ParseInt(strings.ReplaceAll(s, "_", ""), 10, 64)
	if err != nil {
		return 0, err
	}
	m, ok := map[string]int64{"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}[unit]
	if !ok || n > (1<<62)/m {
		return 0, fmt.Errorf("size %q", s)
	}
	return n * m, nil
}
