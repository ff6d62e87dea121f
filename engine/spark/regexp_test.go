package spark

import "testing"

func TestPatternsAreSpelledOutForJava(t *testing.T) {
	for _, c := range []struct{ re2, java string }{
		{`^a.$`, `\A\x{61}[^\n]\z`},
		{`(?m)^b$`, `(?:\A|(?<=\n))\x{62}(?:\z|(?=\n))`},
		{`a|bc`, `\x{61}|\x{62}\x{63}`},
		{`(?i)k`, `[\x{4B}\x{6B}\x{212A}]`},
		{`[^a-z]+?`, `(?:[\x{0}-\x{60}\x{7B}-\x{10FFFF}])+?`},
		{`x{2,3}(y)`, `(?:\x{78}){2,3}(\x{79})`},
	} {
		got, err := javaPattern(c.re2)
		if err != nil {
			t.Fatal(err)
		}
		if got != c.java {
			t.Errorf("%s\n got %s\nwant %s", c.re2, got, c.java)
		}
	}
}
