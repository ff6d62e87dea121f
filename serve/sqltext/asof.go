package sqltext

import "slices"

// afterTable are the words that may follow a table in FROM and are no alias of it.
var afterTable = []string{
	"AS", "AT", "WHERE", "GROUP", "ORDER", "LIMIT", "OFFSET", "FETCH", "HAVING", "WINDOW", "QUALIFY", "JOIN", "INNER", "LEFT", "RIGHT", "FULL", "OUTER", "CROSS", "NATURAL",
	"ASOF", "POSITIONAL", "SEMI", "ANTI", "ON", "USING", "UNION", "EXCEPT", "INTERSECT", "TABLESAMPLE", "PIVOT", "UNPIVOT", "SELECT", "FOR", "WHEN", "RETURNING",
}

// TimeTravel writes Spark's t VERSION AS OF 3 and t TIMESTAMP AS OF '2024-08-20' as DuckDB has it: t AT (VERSION => 3). An alias,
// which stands behind the one and before the other, changes places with it. Nothing else is touched: VERSION AS OF followed by a
// number or a text means nothing else in SQL.
func TimeTravel(sql string) string {
	s := One(sql)
	with := map[int]string{} // by token; "" takes it out
	for i := 1; i < len(s.Tokens); i++ {
		unit := ""
		switch s.Word(i) {
		case "VERSION", "SYSTEM_VERSION":
			unit = "VERSION"
		case "TIMESTAMP", "SYSTEM_TIME":
			unit = "TIMESTAMP"
		}
		if unit == "" || s.Word(i+1) != "AS" || s.Word(i+2) != "OF" {
			continue
		}
		end := i + 3
		if unit == "TIMESTAMP" && (s.Word(end) == "TIMESTAMP" || s.Word(end) == "DATE") {
			end++
		}
		if end >= len(s.Tokens) || s.Tokens[end].Kind != Text && (s.Tokens[end].Kind != Number || unit != "VERSION") {
			continue
		}
		end++
		at := "AT (" + unit + " => " + sql[s.Tokens[i+3].Start:s.Tokens[end-1].End] + ")"
		from := i
		if s.Word(i-1) == "FOR" {
			from--
		}
		for k := from; k < end; k++ {
			with[k] = ""
		}
		last := s.alias(end)
		if last < 0 {
			with[i] = at
			i = end - 1
			continue
		}
		with[last] = s.Text(last) + " " + at
		i = last
	}
	if len(with) == 0 || len(One(sql+"\nx").Tokens) != len(s.Tokens)+1 { // or a quote has no end, of which the parser tells
		return sql
	}
	return s.Replace(func(i int) (string, bool) {
		text, ok := with[i]
		return text, ok
	})
}

// alias gives the last token of the alias of a table that begins at a token: [AS] name [(columns)]; -1 if there is none.
func (s *Statement) alias(at int) int {
	if s.Word(at) == "AS" {
		at++
	} else if slices.Contains(afterTable, s.Word(at)) {
		return -1
	}
	if _, ok := s.Name(at); !ok {
		return -1
	}
	if s.Text(at+1) != "(" {
		return at
	}
	for end := at + 2; end < len(s.Tokens); end++ {
		if s.Text(end) == ")" {
			return end
		}
	}
	return at
}
