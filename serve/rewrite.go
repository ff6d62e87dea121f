package serve

import (
	"strings"

	"github.com/cauce-data/cauce/serve/sqltext"
)

// forParser writes what PostgreSQL's grammar has and DuckDB's parser refuses, or reads otherwise, so that the tree keeps its
// meaning: OPERATOR(pg_catalog.~), COLLATE pg_catalog.default, types with a schema, and ~, which DuckDB's parser takes for a
// match of the whole text, Spark's VERSION AS OF, and key words that are values. Names without quotes are put in lower case, and
// types that DuckDB's parser takes for others get names of their own. Comments go: of those that nest that parser takes a time that
// grows with the square of their depth, and nothing can end it.
func forParser(sql string) string {
	st := sqltext.One(sqltext.TimeTravel(sqltext.WithoutComments(sql)))
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
	casts := castTypes(st)
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
		case st.Word(i) != "" && isType(st, i, casts) && typeFor(st, i) != "":
			with[i] = typeFor(st, i)
			if st.Word(i) == "CHARACTER" && st.Word(i+1) == "VARYING" {
				drop[i+1] = true
			}
		case st.Word(i) == "PG_CATALOG" && st.Text(i+1) == "." && (st.Text(i-1) == "::" || st.Word(i-1) == "AS"):
			drop[i], drop[i+1] = true, true
		case valueWords[st.Word(i)] != "" && st.Text(i-1) != "." && st.Word(i-1) != "AS" && st.Text(i+1) != "(":
			with[i] = valueWords[st.Word(i)] + "()"
		case st.Word(i) != "" && st.Text(i) != folded(st.Text(i)):
			with[i] = folded(st.Text(i)) // a name without quotes is in lower case
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

// Types that DuckDB's parser takes for its own, and forgets how they were written. The resolver knows them.
const (
	ownType     = "cauce_"
	oidType     = ownType + "oid"     // DuckDB: BIGINT
	numericType = ownType + "numeric" // without digits; DuckDB: DECIMAL(18,3)
	varcharType = ownType + "varchar" // with a length
	charType    = ownType + "bpchar"  // with or without one
)

// typeFor gives what stands for the type at i; "" leaves it.
func typeFor(st *sqltext.Statement, i int) string {
	long := st.Text(i+1) == "("
	switch word := st.Word(i); word {
	case "OID":
		return oidType
	case "NUMERIC", "DECIMAL", "DEC":
		if !long {
			return numericType
		}
	case "FLOAT": // DuckDB: 4 bytes
		if !long {
			return "double"
		}
	case "VARCHAR":
		if long {
			return varcharType
		}
	case "CHAR", "CHARACTER", "BPCHAR":
		switch {
		case st.Word(i+1) == "VARYING":
			if st.Text(i+2) == "(" {
				return varcharType
			}
		case long || word != "BPCHAR":
			return charType
		}
	case "JSONB":
		return "json"
	}
	return ""
}

// castTypes finds the places where CAST(… AS has its type.
func castTypes(st *sqltext.Statement) map[int]bool {
	out := map[int]bool{}
	var open []bool // brackets; true: CAST's
	for i := range st.Tokens {
		switch {
		case st.Text(i) == "(":
			open = append(open, st.Word(i-1) == "CAST")
		case st.Text(i) == ")" && len(open) > 0:
			open = open[:len(open)-1]
		case st.Word(i) == "AS" && len(open) > 0 && open[len(open)-1]:
			out[i+1] = true
		}
	}
	return out
}

// isType tells whether a type begins at i: behind ::, in a CAST, or before a text.
func isType(st *sqltext.Statement, i int, casts map[int]bool) bool {
	at := i
	if st.Text(i-1) == "." && st.Word(i-2) == "PG_CATALOG" {
		at = i - 2
	}
	if st.Text(at-1) == "::" || casts[at] {
		return true
	}
	_, literal := st.Literal(i + 1)
	return literal && st.Word(at-1) != "AS"
}

// folded is a name without quotes as PostgreSQL takes it.
func folded(name string) string {
	return strings.Map(func(c rune) rune {
		if c >= 'A' && c <= 'Z' {
			return c - 'A' + 'a'
		}
		return c
	}, name)
}

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
