package duckdb

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"
)

// jsonScanner reads records that are JSON objects and picks the wanted fields out of them, each as text: texts
// unescaped, numbers, true and false as written, objects and arrays as their JSON text, null and what is missing as
// null. Names are case-exact; a.b reaches into objects, unless a member is called "a.b" itself. Of a name that occurs
// twice the last one counts. The whole record is checked by RFC 8259's grammar.
//
// NB: Go's JSON libraries match names without regard to case or build a map per record; exchanges send both "t" and
// "T", 10,000 times a batch.
type jsonScanner struct {
	root    *jsonNode
	values  []jsonValue
	unknown string // first member that nothing wants; with keep a JSON object of all that are not null, by name
	keep    bool
	rest    map[string]string
	s       string
	i       int
}

type jsonValue struct {
	text string
	set  bool
	own  bool // of a member that has the field's whole name, null or not: none that is reached into counts beside it
}

type jsonNode struct {
	field    int  // -1: not wanted itself
	own      bool // the member has the field's whole name
	children map[string]*jsonNode
	// seen are the first members of the last object: those of the next one mostly have the same names in the same order, and
	// are found without children.
	seen []jsonMember
}

type jsonMember struct {
	name string
	node *jsonNode // nil: nothing wants it
}

// jsonSeenMax bounds jsonNode.seen.
const jsonSeenMax = 64

// member finds the child for the i-th member of an object.
func (n *jsonNode) member(i int, name string) *jsonNode {
	if i < len(n.seen) && n.seen[i].name == name {
		return n.seen[i].node
	}
	c := n.children[name]
	switch {
	case i < len(n.seen):
		n.seen[i] = jsonMember{strings.Clone(name), c}
	case i == len(n.seen) && i < jsonSeenMax:
		n.seen = append(n.seen, jsonMember{strings.Clone(name), c})
	}
	return c
}

func newJSONScanner(fields []string) *jsonScanner {
	s := &jsonScanner{root: &jsonNode{field: -1}, values: make([]jsonValue, len(fields))}
	for i, f := range fields {
		s.root.add(f, i)
		s.root.child(f).own = true
		for j := 1; j < len(f)-1; j++ {
			if f[j] == '.' {
				s.root.path(strings.Split(f, "."), i)
				break
			}
		}
	}
	return s
}

func (n *jsonNode) child(name string) *jsonNode {
	if n.children == nil {
		n.children = map[string]*jsonNode{}
	}
	c := n.children[name]
	if c == nil {
		c = &jsonNode{field: -1}
		n.children[name] = c
	}
	return c
}

func (n *jsonNode) add(name string, field int) { n.child(name).field = field }

func (n *jsonNode) path(parts []string, field int) {
	for _, p := range parts[:len(parts)-1] {
		n = n.child(p)
	}
	n.add(parts[len(parts)-1], field)
}

const jsonDepthMax = 1000

func (s *jsonScanner) fail(format string, args ...any) error {
	return fmt.Errorf("no valid JSON: "+format+" at byte %d", append(args, s.i)...)
}

// record reads one record into values and unknown, which are parts of it: nobody may change it as long as they are of use.
func (s *jsonScanner) record(b []byte) error {
	clear(s.values)
	s.unknown = ""
	clear(s.rest)
	if len(b) == 0 {
		return fmt.Errorf("%w: the record is empty", errJSON)
	}
	if !utf8.Valid(b) {
		return fmt.Errorf("%w: the record is no valid UTF-8", errJSON)
	}
	s.s, s.i = unsafe.String(unsafe.SliceData(b), len(b)), 0 //nolint:gosec // records are not written to
	s.space()
	if s.i == len(s.s) || s.s[s.i] != '{' {
		if err := s.value(nil, 0); err != nil {
			return err
		}
		return fmt.Errorf("%w: the record is another kind of value", errJSON)
	}
	if err := s.value(s.root, 0); err != nil {
		return err
	}
	s.space()
	if s.i != len(s.s) {
		return s.fail("something follows the object")
	}
	if len(s.rest) > 0 {
		text := []byte{'{'}
		for _, n := range slices.Sorted(maps.Keys(s.rest)) {
			if len(text) > 1 {
				text = append(text, ',')
			}
			text = append(append(appendJSONText(text, n), ':'), s.rest[n]...)
		}
		s.unknown = string(append(text, '}'))
	}
	return nil
}

func (s *jsonScanner) space() {
	for s.i < len(s.s) {
		switch s.s[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

// value reads one value; n, if not nil, says what of it is wanted.
func (s *jsonScanner) value(n *jsonNode, depth int) error {
	if depth > jsonDepthMax {
		return s.fail("too deep nesting")
	}
	s.space()
	if s.i == len(s.s) {
		return s.fail("unexpected end")
	}
	start := s.i
	put := func(v jsonValue) {
		if n != nil && n.field >= 0 && (n.own || !s.values[n.field].own) {
			v.own = n.own
			s.values[n.field] = v
		}
	}
	set := func(text string) { put(jsonValue{text: text, set: true}) }
	switch c := s.s[s.i]; {
	case c == '{':
		if err := s.object(n, depth); err != nil {
			return err
		}
		set(s.s[start:s.i])
	case c == '[':
		if err := s.array(depth); err != nil {
			return err
		}
		set(s.s[start:s.i])
	case c == '"':
		t, err := s.text(n != nil && n.field >= 0)
		if err != nil {
			return err
		}
		set(t)
	case c == '-' || c >= '0' && c <= '9':
		if err := s.number(); err != nil {
			return err
		}
		set(s.s[start:s.i])
	case strings.HasPrefix(s.s[s.i:], "true"):
		s.i += 4
		set("true")
	case strings.HasPrefix(s.s[s.i:], "false"):
		s.i += 5
		set("false")
	case strings.HasPrefix(s.s[s.i:], "null"):
		s.i += 4
		put(jsonValue{})
	default:
		return s.fail("unexpected %q", rune(c))
	}
	return nil
}

func (s *jsonScanner) object(n *jsonNode, depth int) error {
	s.i++
	s.space()
	if s.i < len(s.s) && s.s[s.i] == '}' {
		s.i++
		return nil
	}
	for members := 0; ; members++ {
		s.space()
		if s.i == len(s.s) || s.s[s.i] != '"' {
			return s.fail("a member's name is expected")
		}
		name, err := s.text(true)
		if err != nil {
			return err
		}
		s.space()
		if s.i == len(s.s) || s.s[s.i] != ':' {
			return s.fail("a colon is expected")
		}
		s.i++
		var child *jsonNode
		if n != nil {
			child = n.member(members, name)
			if child == nil && n == s.root && s.unknown == "" && !s.keep {
				s.unknown = name
			}
			if child != nil {
				s.forget(child)
			}
		}
		s.space()
		start := s.i
		if err := s.value(child, depth+1); err != nil {
			return err
		}
		if s.keep && child == nil && n == s.root {
			if s.rest == nil {
				s.rest = map[string]string{}
			}
			if text := s.s[start:s.i]; text != "null" {
				s.rest[name] = text
			} else {
				delete(s.rest, name)
			}
		}
		s.space()
		if s.i == len(s.s) {
			return s.fail("unexpected end")
		}
		switch s.s[s.i] {
		case ',':
			s.i++
		case '}':
			s.i++
			return nil
		default:
			return s.fail("a comma or } is expected")
		}
	}
}

// forget drops what an earlier member of the same name gave.
func (s *jsonScanner) forget(n *jsonNode) {
	for _, c := range n.children {
		if c.field >= 0 && !s.values[c.field].own {
			s.values[c.field] = jsonValue{}
		}
		s.forget(c)
	}
}

func (s *jsonScanner) array(depth int) error {
	s.i++
	s.space()
	if s.i < len(s.s) && s.s[s.i] == ']' {
		s.i++
		return nil
	}
	for {
		if err := s.value(nil, depth+1); err != nil {
			return err
		}
		s.space()
		if s.i == len(s.s) {
			return s.fail("unexpected end")
		}
		switch s.s[s.i] {
		case ',':
			s.i++
		case ']':
			s.i++
			return nil
		default:
			return s.fail("a comma or ] is expected")
		}
	}
}

func (s *jsonScanner) digits() bool {
	start := s.i
	for s.i < len(s.s) && s.s[s.i] >= '0' && s.s[s.i] <= '9' {
		s.i++
	}
	return s.i > start
}

func (s *jsonScanner) number() error {
	if s.s[s.i] == '-' {
		s.i++
	}
	zero := s.i < len(s.s) && s.s[s.i] == '0'
	start := s.i
	if !s.digits() || zero && s.i > start+1 {
		return s.fail("bad number")
	}
	if s.i < len(s.s) && s.s[s.i] == '.' {
		s.i++
		if !s.digits() {
			return s.fail("bad number")
		}
	}
	if s.i < len(s.s) && (s.s[s.i] == 'e' || s.s[s.i] == 'E') {
		s.i++
		if s.i < len(s.s) && (s.s[s.i] == '+' || s.s[s.i] == '-') {
			s.i++
		}
		if !s.digits() {
			return s.fail("bad number")
		}
	}
	return nil
}

// text reads a quoted text; its value is only made if it is wanted and has escapes.
func (s *jsonScanner) text(wanted bool) (string, error) {
	s.i++
	start := s.i
	escaped := false
	for s.i < len(s.s) {
		switch c := s.s[s.i]; {
		case c == '"':
			t := s.s[start:s.i]
			s.i++
			if escaped && wanted {
				return unescape(t), nil
			}
			return t, nil
		case c == '\\':
			escaped = true
			s.i++
			if s.i == len(s.s) {
				return "", s.fail("unexpected end")
			}
			switch s.s[s.i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
				s.i++
			case 'u':
				if _, ok := hex4(s.s[s.i+1:]); !ok {
					return "", s.fail("bad escape")
				}
				s.i += 5
			default:
				return "", s.fail("bad escape")
			}
		case c < 0x20:
			return "", s.fail("a control character in a text")
		default:
			s.i++
		}
	}
	return "", s.fail("unexpected end")
}

func hex4(s string) (rune, bool) {
	if len(s) < 4 {
		return 0, false
	}
	for i := range 4 {
		c := s[i]
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F') {
			return 0, false
		}
	}
	v, err := strconv.ParseUint(s[:4], 16, 32)
	return rune(v), err == nil
}

// unescape undoes the escapes of a text that text has checked. A lone surrogate becomes U+FFFD, as in Go's library.
func unescape(t string) string {
	var b strings.Builder
	b.Grow(len(t))
	for i := 0; i < len(t); i++ {
		if t[i] != '\\' {
			b.WriteByte(t[i])
			continue
		}
		i++
		switch t[i] {
		case 'b':
			b.WriteByte('\b')
		case 'f':
			b.WriteByte('\f')
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case 't':
			b.WriteByte('\t')
		case 'u':
			r, _ := hex4(t[i+1:])
			i += 4
			if utf16.IsSurrogate(r) {
				if strings.HasPrefix(t[i+1:], `\u`) {
					if low, ok := hex4(t[i+3:]); ok {
						if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
							b.WriteRune(pair)
							i += 6
							continue
						}
					}
				}
				r = utf8.RuneError
			}
			b.WriteRune(r)
		default:
			b.WriteByte(t[i])
		}
	}
	return b.String()
}

// appendJSONText appends a text as JSON. HTML's characters stay as they are.
func appendJSONText(b []byte, text string) []byte {
	var out strings.Builder
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(text); err != nil {
		return append(b, `""`...) // a text always has a form
	}
	return append(b, strings.TrimSuffix(out.String(), "\n")...)
}
