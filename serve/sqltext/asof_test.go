package sqltext

import (
	"slices"
	"testing"
)

func TestTimeTravel(t *testing.T) {
	for _, c := range []struct{ sql, want string }{
		{"SELECT * FROM t VERSION AS OF 3", "SELECT * FROM t AT (VERSION => 3)   "},
		{"select * from t version as of '3' where a = 1", "select * from t AT (VERSION => '3')    where a = 1"},
		{"SELECT * FROM t TIMESTAMP AS OF '2024-08-20' AS a", "SELECT * FROM t     AS a AT (TIMESTAMP => '2024-08-20')"},
		{"SELECT * FROM t FOR SYSTEM_TIME AS OF TIMESTAMP '2024-08-20' a JOIN u FOR VERSION AS OF 2 ON a.id = u.id", "SELECT * FROM t       a AT (TIMESTAMP => TIMESTAMP '2024-08-20') JOIN u  AT (VERSION => 2)    ON a.id = u.id"},
		{"SELECT * FROM t SYSTEM_VERSION AS OF 1 x(a, b), u TIMESTAMP AS OF DATE '2024-08-20'", "SELECT * FROM t     x(a, b) AT (VERSION => 1), u AT (TIMESTAMP => DATE '2024-08-20')    "},
		{"SELECT (SELECT count(*) FROM \"t\" VERSION AS OF 1) - n FROM 'a/b' VERSION /* which */ AS OF 2 \"x y\" LIMIT 1", "SELECT (SELECT count(*) FROM \"t\" AT (VERSION => 1)   ) - n FROM 'a/b'  /* which */    \"x y\" AT (VERSION => 2) LIMIT 1"},
		{"FROM t VERSION AS OF 1 SELECT a UNION FROM t VERSION AS OF 2", "FROM t AT (VERSION => 1)    SELECT a UNION FROM t AT (VERSION => 2)   "},
		{"SELECT 1 -- FROM t\n FROM t -- VERSION AS OF 1\n VERSION AS OF 2 -- a", "SELECT 1 -- FROM t\n FROM t -- VERSION AS OF 1\n AT (VERSION => 2)    -- a"},
	} {
		if got := TimeTravel(c.sql); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.sql, got, c.want)
		}
	}
	// What is no time travel stays as it is.
	for _, sql := range []string{
		"", "VERSION AS OF 1", "SELECT 'FROM t VERSION AS OF 1'", "SELECT $$t VERSION AS OF 1$$, E't\\' VERSION AS OF 1'", "SELECT \"t VERSION AS OF 1\" FROM \"VERSION\" AS OF", "SELECT version AS of FROM t",
		"SELECT a version, 1 AS of, 2 FROM t", "SELECT CAST(x AS TIMESTAMP) AS of, '1'", "SELECT * FROM t VERSION AS OF x", "SELECT * FROM t VERSION AS OF", "SELECT * FROM t TIMESTAMP AS OF 3", "SELECT * FROM t AT (VERSION => 3) a",
		"SELECT 1 /* t VERSION AS OF 1 /* nested */ VERSION AS OF 2 */", "SELECT * FROM t version AS \"of\" 3",
		"SELECT * FROM t TIMESTAMP AS OF '2024", "SELECT * FROM t VERSION AS OF 3 \"a", "SELECT * FROM t VERSION AS OF 3 /* a",
	} {
		if got := TimeTravel(sql); got != sql {
			t.Errorf("%s has become %s", sql, got)
		}
	}
}

// Texts, quoted names and comments of a statement are never changed by it.
func FuzzTimeTravel(f *testing.F) {
	for _, s := range []string{"SELECT * FROM t VERSION AS OF 3 AS a(b, c)", "a FOR TIMESTAMP AS OF '1' \"x\"", "$$ version as of 1 $$ version as of 1", "x VERSION AS OF 1 (", "x VERSION AS OF 1 AS"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		count := func(sql string) []string {
			var out []string
			s := One(sql)
			for i, tok := range s.Tokens {
				if tok.Kind == Text || tok.Kind == Quoted {
					out = append(out, s.Text(i))
				}
			}
			slices.Sort(out)
			return out
		}
		if got := TimeTravel(sql); !slices.Equal(count(got), count(sql)) {
			t.Errorf("%q becomes %q", sql, got)
		}
	})
}
