package serve

import (
	"strings"

	"github.com/cauce-data/cauce/engine/duckdb"
)

// Patterns of PostgreSQL's to_char, to_date and to_timestamp (documentation, "Template Patterns for Date/Time Formatting"). What is no
// pattern stands for itself; patterns that are not known here are refused.

// timePattern is one pattern.
type timePattern struct {
	format string // strftime's and strptime's
	bare   string // the same after FM: without zeros and blanks around; "" where it is refused
	// show gives the text where strftime has no form for it; it cannot be read.
	show func(v any) any
	wide int    // with blanks behind, without FM
	as   string // the function that the text goes through
}

var timePatterns = map[string]timePattern{
	"YYYY": {format: "%Y", bare: "%Y"}, "YYY": {show: lastOfYear(3)}, "YY": {format: "%y", bare: "%-y"}, "Y": {show: lastOfYear(1)}, "IYYY": {format: "%G", bare: "%G"},
	"Q": {show: part("quarter")}, "MM": {format: "%m", bare: "%-m"}, "CC": {show: padded(part("century"))}, "J": {show: func(v any) any {
		return asText(castOf(function("", "floor", function("", "julian", copied(v))), "BIGINT"))
	}},
	"WW": {show: padded(weeks("dayofyear"))}, "W": {show: weeks("day")}, "IW": {format: "%V"}, "DDD": {format: "%j", bare: "%-j"}, "DD": {format: "%d", bare: "%-d"},
	"D": {show: func(v any) any { return asText(operator("+", function("", "dayofweek", copied(v)), number(1))) }}, "ID": {format: "%u", bare: "%u"},
	"HH24": {format: "%H", bare: "%-H"}, "HH12": {format: "%I", bare: "%-I"}, "HH": {format: "%I", bare: "%-I"}, "MI": {format: "%M", bare: "%-M"}, "SS": {format: "%S", bare: "%-S"},
	"MS": {format: "%g"}, "US": {format: "%f"}, "AM": {format: "%p", bare: "%p"}, "PM": {format: "%p", bare: "%p"},
}

// wordPatterns are those whose letters say how the word is written.
var wordPatterns = map[string]timePattern{
	"MONTH": {format: "%B", bare: "%B", wide: 9}, "MON": {format: "%b", bare: "%b"}, "DAY": {format: "%A", bare: "%A", wide: 9}, "DY": {format: "%a", bare: "%a"},
}

// refusedPatterns are known to PostgreSQL alone.
var refusedPatterns = []string{
	"Y,YYY", "IYY", "IY", "I", "IDDD", "SSSSS", "SSSS", "FF1", "FF2", "FF3", "FF4", "FF5", "FF6", "TZH", "TZM", "TZ", "OF", "RM", "A.M.", "P.M.", "A.D.", "B.C.", "AD", "BC", "FX", "TM",
}

// timePatternMax is the length of the longest pattern.
const timePatternMax = 5

func part(name string) func(v any) any {
	return func(v any) any { return asText(castOf(function("", name, copied(v)), "BIGINT")) }
}

// weeks counts the weeks that began with the first day.
func weeks(days string) func(v any) any {
	return func(v any) any {
		return asText(operator("//", operator("+", function("", days, copied(v)), number(6)), number(7)))
	}
}

func padded(of func(v any) any) func(v any) any {
	return func(v any) any { return function("", "lpad", of(v), number(2), text("0")) }
}

func lastOfYear(digits int64) func(v any) any {
	return func(v any) any {
		return function("", "right", function("", "strftime", copied(v), text("%Y")), number(digits))
	}
}

func operator(name string, a, b any) duckdb.Node {
	n := function("", name, a, b)
	n["is_operator"] = true
	return n
}

// nextTimePattern gives the pattern at the beginning of s and its length; 0: there is none.
func nextTimePattern(s string) (p timePattern, n int, err error) {
	for n = min(timePatternMax, len(s)); n > 0; n-- {
		word := s[:n]
		upper := strings.ToUpper(word)
		lower := word == strings.ToLower(word)
		if w, ok := wordPatterns[upper]; ok {
			switch {
			case lower:
				w.as = "lower"
			case word == upper:
				w.as = "upper"
			case word[1:] != strings.ToLower(word[1:]):
				continue
			}
			return w, n, nil
		}
		if word != upper && !lower {
			continue
		}
		for _, r := range refusedPatterns {
			if upper == r {
				return p, 0, errorf(CodeNotSupported, "the pattern %q for times is not supported", word)
			}
		}
		if p, ok := timePatterns[upper]; ok {
			if lower && p.format == "%p" {
				p.as = "lower"
			}
			return p, n, nil
		}
	}
	return p, 0, nil
}

// eachTimePattern takes a pattern apart: literal is called for text that stands for itself, pattern for each pattern, with what FM says.
func eachTimePattern(s string, literal func(text string), pattern func(p timePattern, word string, fill bool) error) error {
	for s != "" {
		fill := true
		if len(s) > 2 && (s[:2] == "FM" || s[:2] == "fm") {
			fill, s = false, s[2:]
		}
		switch s[0] {
		case '"':
			s = s[1:]
			for s != "" && s[0] != '"' {
				if s[0] == '\\' && len(s) > 1 {
					s = s[1:]
				}
				literal(s[:1])
				s = s[1:]
			}
			s = strings.TrimPrefix(s, `"`)
			continue
		case '\\':
			if strings.HasPrefix(s, `\"`) {
				s = s[1:]
			}
			literal(s[:1])
			s = s[1:]
			continue
		}
		p, n, err := nextTimePattern(s)
		if err != nil {
			return err
		}
		if n == 0 {
			literal(s[:1])
			s = s[1:]
			continue
		}
		word := s[:n]
		s = s[n:]
		if suffix := strings.ToUpper(s[:min(2, len(s))]); suffix == "TH" || suffix == "SP" {
			e := errorf(CodeNotSupported, "the suffix %q in a pattern for times is not supported", s[:2])
			e.Hint = `a text that is no pattern stands in double quotes: "T"`
			return e
		}
		if err := pattern(p, word, fill); err != nil {
			return err
		}
	}
	return nil
}

// toChar is to_char(v, pattern) of a time.
func toChar(v any, pattern string) (duckdb.Node, error) {
	if first := strings.TrimPrefix(pattern, "FM"); first != "" && strings.IndexByte("09", first[0]) >= 0 {
		e := errorf(CodeNotSupported, "to_char of numbers is not supported")
		e.Hint = "round the number and cast it to text"
		return nil, e
	}
	var parts []any
	format := ""
	flush := func() {
		if format != "" {
			parts = append(parts, function("", "strftime", copied(v), text(format)))
		}
		format = ""
	}
	err := eachTimePattern(pattern, func(s string) {
		format += strings.ReplaceAll(s, "%", "%%")
	}, func(p timePattern, word string, fill bool) error {
		form := p.format
		if !fill {
			form = p.bare
		}
		switch {
		case p.show != nil && (fill || len(word) == 1):
			flush()
			parts = append(parts, p.show(v))
		case form == "":
			return errorf(CodeNotSupported, "the pattern %q for times is not supported", "FM"+word)
		case p.as != "" || fill && p.wide > 0:
			flush()
			item := any(function("", "strftime", copied(v), text(form)))
			if p.as != "" {
				item = function("", p.as, item)
			}
			if fill && p.wide > 0 {
				item = function("", "rpad", item, number(int64(p.wide)), text(" "))
			}
			parts = append(parts, item)
		default:
			format += form
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	flush()
	if len(parts) == 0 { // an empty pattern gives an empty text
		return text(""), nil
	}
	out := nodeOf(parts[0])
	for _, p := range parts[1:] {
		out = operator("||", out, p)
	}
	return out, nil
}

// readTimeFormat is the pattern of to_date and to_timestamp as strptime has it.
func readTimeFormat(pattern string) (string, error) {
	var b strings.Builder
	err := eachTimePattern(pattern, func(s string) {
		b.WriteString(strings.ReplaceAll(s, "%", "%%"))
	}, func(p timePattern, word string, _ bool) error {
		switch p.format {
		case "", "%V", "%u", "%G":
			return errorf(CodeNotSupported, "the pattern %q is not supported where times are read", word)
		}
		b.WriteString(p.format)
		return nil
	})
	return b.String(), err
}
