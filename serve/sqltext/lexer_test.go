package sqltext

import (
	"slices"
	"strings"
	"testing"
)

func TestStatementsAreSplitWherePostgreSQLDoes(t *testing.T) {
	for _, c := range []struct {
		sql  string
		want []string
	}{
		{"", nil},
		{" ;; -- nothing\n /* ; /* nested ; */ ; */ ;", nil},
		{"select 1; select 2;", []string{"select 1", "select 2"}},
		{"select ';', \"a;b\", E'\\';', $$;$$, $x$;$$;$x$; b", []string{"select ';', \"a;b\", E'\\';', $$;$$, $x$;$$;$x$", "b"}},
		{"select 'a''; b'", []string{"select 'a''; b'"}},
		{"select 'unterminated; b", []string{"select 'unterminated; b"}},
		{"select $1;x", []string{"select $1", "x"}},
	} {
		var got []string
		for _, s := range Split(c.sql) {
			got = append(got, strings.TrimSpace(s.SQL))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", c.sql, got, c.want)
		}
	}
}

func TestTokens(t *testing.T) {
	s := One(`Fetch forward 5 from "na""me" -- c
	where a::int=$12 and b = E'x\'y' or 1.5e-3`)
	var got []string
	for i := range s.Tokens {
		got = append(got, s.Text(i))
	}
	want := []string{"Fetch", "forward", "5", "from", `"na""me"`, "where", "a", "::", "int", "=", "$12", "and", "b", "=", `E'x\'y'`, "or", "1.5e-3"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if n, ok := s.Name(4); !ok || n != `na"me` {
		t.Errorf("name %q", n)
	}
	if v, ok := s.Literal(14); !ok || v != "x'y" {
		t.Errorf("literal %q", v)
	}
	if got := s.Replace(func(i int) (string, bool) { return "'p'", s.Tokens[i].Kind == Param }); !strings.Contains(got, "a::int='p' and") {
		t.Errorf("replaced: %q", got)
	}
}

func FuzzSplit(f *testing.F) {
	f.Add("select 1; select $$a;$$ -- c\n/* x */")
	f.Add("E'\\")
	f.Add("'")
	f.Add("$a$")
	f.Fuzz(func(t *testing.T, sql string) {
		for _, s := range Split(sql) {
			at := 0
			for i, tok := range s.Tokens {
				if tok.Start < at || tok.End <= tok.Start || tok.End > len(s.SQL) {
					t.Fatalf("token %d of %q lies at %d to %d", i, s.SQL, tok.Start, tok.End)
				}
				at = tok.End
				s.Name(i)
				s.Literal(i)
				s.Word(i)
			}
		}
		One(sql)
	})
}
