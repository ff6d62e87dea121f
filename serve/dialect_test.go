package serve

import (
	"strings"
	"testing"
)

// shown writes items with bars around them; a null is ∅.
func shown(items []*string) string {
	var b strings.Builder
	for _, i := range items {
		if i == nil {
			b.WriteString("|∅")
		} else {
			b.WriteString("|" + *i)
		}
	}
	return b.String()
}

// Texts of arrays are read as PostgreSQL reads them (documentation, "Array Input and Output Syntax").
func TestArrayLiteral(t *testing.T) {
	for text, want := range map[string]string{
		"{}": "", "{ }": "", "{a}": "|a", "{a,b}": "|a|b", `{"p", "f" , g }`: "|p|f|g", `{"a,b","c\"d","e\\f"}`: `|a,b|c"d|e\f`, "{NULL,\"NULL\",null}": "|∅|NULL|∅",
		`{a b, c\,d}`: "|a b|c,d", `{"",x}`: "||x",
	} {
		if got, err := arrayLiteral(text); err != nil || shown(got) != want {
			t.Errorf("%s: %s, %v; want %s", text, shown(got), err, want)
		}
	}
	for _, text := range []string{"", "{", "}", "a", "{a", "a}", `{"a}`, `{"a"b}`, `{"a""b"}`, "{a}}", "{{a}}"} {
		if got, err := arrayLiteral(text); err == nil {
			t.Errorf("%s was read as %s", text, shown(got))
		}
	}
}

func FuzzArrayLiteral(f *testing.F) {
	for _, s := range []string{"{}", `{"a, b" ,NULL,c\}}`, `{"\`, "{,}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		items, err := arrayLiteral(text)
		if err != nil {
			return
		}
		var quoted []string
		for _, i := range items {
			if i == nil {
				quoted = append(quoted, "NULL")
			} else {
				quoted = append(quoted, `"`+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(*i)+`"`)
			}
		}
		again, err := arrayLiteral("{" + strings.Join(quoted, ", ") + "}")
		if err != nil || shown(again) != shown(items) {
			t.Errorf("%q: %s, then %s, %v", text, shown(items), shown(again), err)
		}
	})
}
