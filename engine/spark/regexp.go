package spark

import (
	"fmt"
	"regexp/syntax"
	"strings"
	"unicode"
)

// javaPattern writes a regular expression of RE2's language in the language of java.util.regex, with the same meaning.
// The two share most of their syntax and differ in what it says: Java's '.' stops at more characters than \n, its '$'
// matches before a last line break, its \s and \b know other characters, its case folding is that of ASCII. So the
// pattern is parsed with RE2's rules and every node is spelled out in terms that leave nothing to Java's defaults.
func javaPattern(pattern string) (string, error) {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return "", fmt.Errorf("regular expression %q: %w", pattern, err)
	}
	var b strings.Builder
	if err := writeJava(&b, re); err != nil {
		return "", fmt.Errorf("regular expression %q: %w", pattern, err)
	}
	return b.String(), nil
}

const wordClass = `[0-9A-Za-z_]`

func writeJava(b *strings.Builder, re *syntax.Regexp) error {
	group := func(sub *syntax.Regexp) error {
		b.WriteString("(?:")
		err := writeJava(b, sub)
		b.WriteByte(')')
		return err
	}
	switch re.Op {
	case syntax.OpNoMatch:
		b.WriteString(`(?!)`)
	case syntax.OpEmptyMatch:
		b.WriteString(`(?:)`)
	case syntax.OpLiteral:
		for _, r := range re.Rune {
			writeRune(b, r, re.Flags&syntax.FoldCase != 0)
		}
	case syntax.OpCharClass:
		b.WriteByte('[')
		if len(re.Rune) == 0 {
			b.WriteString(`&&[^\x{0}-\x{10FFFF}]`)
		}
		for i := 0; i+1 < len(re.Rune); i += 2 {
			writeRange(b, re.Rune[i], re.Rune[i+1])
		}
		b.WriteByte(']')
	case syntax.OpAnyCharNotNL:
		b.WriteString(`[^\n]`)
	case syntax.OpAnyChar:
		b.WriteString(`[\x{0}-\x{10FFFF}]`)
	case syntax.OpBeginText:
		b.WriteString(`\A`)
	case syntax.OpEndText:
		b.WriteString(`\z`)
	case syntax.OpBeginLine:
		b.WriteString(`(?:\A|(?<=\n))`)
	case syntax.OpEndLine:
		b.WriteString(`(?:\z|(?=\n))`)
	case syntax.OpWordBoundary:
		b.WriteString(`(?:(?<=` + wordClass + `)(?!` + wordClass + `)|(?<!` + wordClass + `)(?=` + wordClass + `))`)
	case syntax.OpNoWordBoundary:
		b.WriteString(`(?:(?<=` + wordClass + `)(?=` + wordClass + `)|(?<!` + wordClass + `)(?!` + wordClass + `))`)
	case syntax.OpCapture:
		b.WriteByte('(')
		if err := writeJava(b, re.Sub[0]); err != nil {
			return err
		}
		b.WriteByte(')')
	case syntax.OpStar, syntax.OpPlus, syntax.OpQuest, syntax.OpRepeat:
		if err := group(re.Sub[0]); err != nil {
			return err
		}
		switch re.Op {
		case syntax.OpStar:
			b.WriteByte('*')
		case syntax.OpPlus:
			b.WriteByte('+')
		case syntax.OpQuest:
			b.WriteByte('?')
		case syntax.OpRepeat:
			switch {
			case re.Max == re.Min:
				fmt.Fprintf(b, "{%d}", re.Min)
			case re.Max < 0:
				fmt.Fprintf(b, "{%d,}", re.Min)
			default:
				fmt.Fprintf(b, "{%d,%d}", re.Min, re.Max)
			}
		}
		if re.Flags&syntax.NonGreedy != 0 {
			b.WriteByte('?')
		}
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			if sub.Op == syntax.OpAlternate {
				if err := group(sub); err != nil {
					return err
				}
			} else if err := writeJava(b, sub); err != nil {
				return err
			}
		}
	case syntax.OpAlternate:
		for i, sub := range re.Sub {
			if i > 0 {
				b.WriteByte('|')
			}
			if err := writeJava(b, sub); err != nil {
				return err
			}
		}
	default:
		return fmt.Errorf("BUG: no spelling for %v", re.Op)
	}
	return nil
}

func writeRune(b *strings.Builder, r rune, fold bool) {
	if !fold {
		fmt.Fprintf(b, `\x{%X}`, r)
		return
	}
	b.WriteByte('[')
	writeRange(b, r, r)
	for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
		writeRange(b, f, f)
	}
	b.WriteByte(']')
}

func writeRange(b *strings.Builder, lo, hi rune) {
	if lo == hi {
		fmt.Fprintf(b, `\x{%X}`, lo)
		return
	}
	fmt.Fprintf(b, `\x{%X}-\x{%X}`, lo, hi)
}
