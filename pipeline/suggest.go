package pipeline

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// suggest gives the hint for a name that is not known: the nearest of names, or all of them if none is near.
func suggest(got string, names []string) string {
	if n := nearest(got, names); n != "" {
		return "did you mean " + strconv.Quote(n) + "?"
	}
	if len(names) == 0 {
		return ""
	}
	if len(names) > 24 {
		return ""
	}
	return "it can be " + orList(names)
}

func orList(names []string) string {
	switch len(names) {
	case 0:
		return "nothing"
	case 1:
		return names[0]
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}

// nearest returns the name that is most like got, "" if none is like it.
func nearest(got string, names []string) string {
	g := fold(got)
	if g == "" || len(g) > 100 {
		return ""
	}
	best, bestDist := "", 1+max(1, len(g)/3)
	for _, n := range names {
		f := fold(n)
		d := distance(g, f)
		// A name cut short or run on is a likelier slip than as many random letters.
		if d >= bestDist && len(g) >= 3 && (strings.HasPrefix(f, g) || strings.HasPrefix(g, f) && len(f) >= 3) {
			d = bestDist - 1
		}
		if d < bestDist {
			best, bestDist = n, d
		}
	}
	return best
}

// fold reduces a name to what people remember of it: lower-case letters and digits.
func fold(s string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsLetter(c) || unicode.IsDigit(c) {
			return unicode.ToLower(c)
		}
		return -1
	}, s)
}

// distance is the number of letters to insert, delete, replace or swap with their neighbour (optimal string alignment).
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	prev2, prev, cur := make([]int, len(y)+1), make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(x); i++ {
		cur[0] = i
		for j := 1; j <= len(y); j++ {
			cost := 1
			if x[i-1] == y[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(y)]
}

// reserved are the words that SQL takes for itself.
var reserved = func() map[string]bool {
	m := map[string]bool{}
	for w := range strings.FieldsSeq(`all analyse analyze and anti any array as asc asof asymmetric at authorization between binary both by case cast check collate collation column
		concurrently constraint create cross current_date current_time current_timestamp default deferrable desc describe distinct do else end except
		exists extract false fetch for foreign freeze from full glob grant group having ilike in initially inner intersect interval into is isnull
		join lambda lateral leading left like limit localtime localtimestamp natural not notnull null offset on only or order outer overlaps pivot
		pivot_longer pivot_wider placing position positional primary qualify references returning right row select semi show similar some struct
		substring summarize symmetric table tablesample then to trailing trim true try_cast union unique unpack unpivot using values variadic
		verbose when where window with`) {
		m[w] = true
	}
	return m
}()

// operators and literals among the reserved words, which may well be meant as such.
var grammar = map[string]bool{"and": true, "or": true, "not": true, "in": true, "is": true, "like": true, "null": true, "true": true, "false": true, "case": true,
	"when": true, "then": true, "else": true, "end": true, "between": true, "cast": true, "try_cast": true, "as": true, "trim": true, "substring": true, "array": true, "struct": true}

// reservedHint finds a word in an expression that is probably meant as a name.
func reservedHint(sql string) string {
	inText := rune(0)
	word := ""
	for _, c := range sql + " " {
		switch {
		case inText != 0:
			if c == inText {
				inText = 0
			}
		case c == '\'' || c == '"':
			inText = c
		case c == '_' || unicode.IsLetter(c) || word != "" && unicode.IsDigit(c):
			word += string(c)
			continue
		}
		if w := strings.ToLower(word); reserved[w] && !grammar[w] {
			return fmt.Sprintf("SQL reserves the word %s: as a name it stands in double quotes, such as '\"%s\"'", word, word)
		}
		word = ""
	}
	return ""
}

// quoteName shows an SQL name as it must be written.
func quoteName(s string) string {
	plain := s != "" && !reserved[strings.ToLower(s)]
	for i, c := range s {
		if !(c == '_' || unicode.IsLetter(c) || i > 0 && unicode.IsDigit(c)) {
			plain = false
		}
	}
	if plain {
		return s
	}
	return fmt.Sprintf(`"%s"`, strings.ReplaceAll(s, `"`, `""`))
}
