package pipeline

import (
	"fmt"
	"strings"
)

// Diagnostic is one finding in a lake file.
type Diagnostic struct {
	File   string
	Line   int // from 1; 0: the file as a whole
	Column int // from 1, in characters
	Msg    string
	Hint   string // what to do, "" if nothing is known
}

// String gives "file:line:column: message; hint".
func (d Diagnostic) String() string {
	var b strings.Builder
	b.WriteString(d.File)
	if d.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", d.Line, d.Column)
	}
	b.WriteString(": ")
	b.WriteString(d.Msg)
	if d.Hint != "" {
		b.WriteString("; ")
		b.WriteString(d.Hint)
	}
	return b.String()
}

// Diagnostics are all findings in a lake file, in the order of its lines. As an error it means that the file cannot be
// used.
type Diagnostics []Diagnostic

func (d Diagnostics) Error() string {
	lines := make([]string, len(d))
	for i, x := range d {
		lines[i] = x.String()
	}
	return strings.Join(lines, "\n")
}
