package serve

import (
	"strings"

	"github.com/cauce-data/cauce/serve/sqltext"
)

// forParser writes what PostgreSQL's grammar has and DuckDB's parser refuses, or reads otherwise, so that the tree keeps its
// meaning: OPERATOR(pg_catalog.~), COLLATE pg_catalog.default, types with a schema, and ~, which DuckDB's parser takes for a
// match of the whole text, Spark's VERSION AS OF, and key words that are values. Names that AS gives without quotes are put in lower case.
func forParser(sql string) string {
	st := sqltext.One(sqltext.TimeTravel(sql))
	n := len(st.Tokens)
	drop := make([]bool, n)
	with := map[int]string{}
	operator := func(i int) string { // the symbols from i on that stand together, as one operator
		var b strings.Builder
		for ; i < n && st.Tokens[i].Kind == sqltext.Symbol && strings.Contains("~!@#%^&|`?<>=*/+-", st.Text(i)[:1]); i++ {
			if b.Len() > 0 && st.Tokens[i-1].End != st.Tokens[i].Start {
				break
			}
			b.WriteString(st.Text(i))
		}
		return b.String()
	}
	for i := 0; i < n; i++ {
		switch {
		case st.Word(i) == "OPERATOR" && st.Text(i+1) == "(":
			at := i + 2
			if st.Word(at) == "PG_CATALOG" && st.Text(at+1) == "." {
				at += 2
			}
			op := operator(at)
			end := at
			for end < n && st.Text(end) != ")" {
				end++
			}
			if op != "" && end < n {
				for j := i; j <= end; j++ {
					drop[j] = true
				}
				with[i] = matchOperator(op)
				i = end
			}
		case st.Word(i) == "COLLATE":
			at := i + 1
			if st.Word(at) == "PG_CATALOG" && st.Text(at+1) == "." {
				at += 2
			}
			name, _ := st.Name(at)
			switch strings.ToLower(name) {
			case "default", "c", "posix", "c.utf-8", "en_us.utf-8":
				for j := i; j <= at; j++ {
					drop[j] = true
				}
				i = at
			}
		case st.Word(i) == "OID" && (st.Text(i-1) == "::" || st.Word(i-2) == "PG_CATALOG" && st.Text(i-3) == "::"):
			with[i] = oidType
		case st.Word(i) == "PG_CATALOG" && st.Text(i+1) == "." && (st.Text(i-1) == "::" || st.Word(i-1) == "AS"):
			drop[i], drop[i+1] = true, true
		case st.Word(i-1) == "AS" && st.Word(i) != "" && st.Text(i) != strings.ToLower(st.Text(i)):
			with[i] = strings.ToLower(st.Text(i)) // a name without quotes is in lower case
		case valueWords[st.Word(i)] != "" && st.Text(i-1) != "." && st.Word(i-1) != "AS" && st.Text(i+1) != "(":
			with[i] = valueWords[st.Word(i)] + "()"
		case st.Tokens[i].Kind == sqltext.Symbol && (st.Text(i) == "~" || st.Text(i) == "!"):
			op := operator(i)
			if op == "~" || op == "!~" {
				for j := range op {
					drop[i+j] = true
				}
				with[i] = matchOperator(op)
			}
			i += len(op) - 1
		}
	}
	return st.Replace(func(i int) (string, bool) {
		if t, ok := with[i]; ok {
			return t, true
		}
		return "", drop[i]
	})
}

// oidType stands for the type oid, which DuckDB's parser takes for its own BIGINT.
const oidType = "cauce_oid"

// valueWords are key words that are values, as calls: the name of a column may be the same, and in a tree it looks the same.
var valueWords = map[string]string{
	"CURRENT_DATE": "current_date", "CURRENT_TIMESTAMP": "get_current_timestamp", "LOCALTIMESTAMP": "current_localtimestamp", "CURRENT_TIME": "get_current_time", "LOCALTIME": "current_localtime",
}

// matchOperator spells the operators of regular expressions so that the parser leaves them alone; the resolver knows them.
func matchOperator(op string) string {
	switch op {
	case "~":
		return "~@"
	case "!~":
		return "!~@"
	}
	return op
}
