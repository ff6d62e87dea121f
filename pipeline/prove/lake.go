package prove

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/cauce-data/cauce/pipeline"
)

// LakeKey is the raw field that fills the key of a random lake file.
const LakeKey = "k"

// MakeUnique gives the records different values of a raw field, so that none is lost to another.
func MakeUnique(plan *pipeline.Plan, records []Record, field string) {
	for i, f := range plan.RawFields {
		if f != field {
			continue
		}
		for n := range records {
			v := strconv.FormatInt(records[n].Position, 10)
			records[n].Values[i] = &v
		}
	}
}

// Lake writes a random lake file with one table and one source, as text: columns of every plain type, and fields,
// transformations and expectations made of the pinned functions and operators.
func Lake(rng *rand.Rand) string {
	g := &generator{rng: rng}
	var b strings.Builder
	zone := pick(rng, []string{"UTC", "UTC", "Europe/Madrid", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"})
	fmt.Fprintf(&b, "version: 1\nstorage: file:./data\ntables:\n  t:\n    timezone: %s\n    columns:\n", zone)
	types := []string{"STRING", "LONG", "INT", "DECIMAL(18,8)", "DECIMAL(28,8)", "DECIMAL(38,10)", "DECIMAL(38,20)", "DECIMAL(38,0)", "DECIMAL(38,37)", "DECIMAL(38,38)", "DECIMAL(4,4)", "DOUBLE", "FLOAT", "BOOLEAN", "DATE", "TIMESTAMP", "SHORT", "STRING", "TIMESTAMP"}
	for i := range 7 {
		c := genColumn{name: fmt.Sprintf("c%d", i), typ: pick(rng, types)}
		g.columns = append(g.columns, c)
	}
	b.WriteString("      k: {type: STRING, not_null: true}\n")
	for _, c := range g.columns {
		fmt.Fprintf(&b, "      %s: %s\n", c.name, quoteYAML(c.typ))
	}
	b.WriteString("    key: [k]\n")
	g.raw = false
	b.WriteString("    transform:\n")
	for range rng.IntN(3) + 1 {
		if rng.IntN(4) == 0 {
			fmt.Fprintf(&b, "      - where: %s\n", quoteYAML("coalesce("+g.expr("bool", 2)+", true)"))
			continue
		}
		c := pick(rng, g.columns)
		fmt.Fprintf(&b, "      - set: {%s: %s}\n", c.name, quoteYAML(g.value(c, 3)))
	}
	b.WriteString("    expect:\n")
	for i := range rng.IntN(2) + 1 {
		fmt.Fprintf(&b, "      - {name: rule%d, check: %s, on_fail: quarantine}\n", i, quoteYAML("coalesce("+g.expr("bool", 2)+", true)"))
	}
	g.raw = true
	b.WriteString("sources:\n  s:\n    table: t\n    kind: files\n    location: [\"raw/batch/*.csv\"]\n    format: csv\n    csv: {header: true, optional: [a, b, c, d, e]}\n    fields:\n      k: k\n")
	for _, c := range g.columns {
		if rng.IntN(3) == 0 {
			fmt.Fprintf(&b, "      %s: %s\n", c.name, quoteYAML(g.value(c, 2)))
			continue
		}
		// A record that one column refuses tells nothing of the others: most must take what comes.
		f := pick(rng, rawNames)
		switch {
		case c.kind() == "text":
		case rng.IntN(6) > 0:
			f = "TRY_CAST(" + f + " AS " + c.typ + ")"
		case c.kind() == "timestamp":
			f = "to_event_time(" + f + ")"
		}
		fmt.Fprintf(&b, "      %s: %s\n", c.name, quoteYAML(f))
	}
	if rng.IntN(3) == 0 {
		fmt.Fprintf(&b, "    filter: %s\n", quoteYAML("coalesce("+g.expr("bool", 2)+", true)"))
	}
	return b.String()
}

func quoteYAML(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

var rawNames = []string{"a", "b", "c", "d", "e"}

type genColumn struct{ name, typ string }

func (c genColumn) kind() string {
	switch {
	case c.typ == "STRING":
		return "text"
	case strings.HasPrefix(c.typ, "DECIMAL"):
		return "decimal"
	case c.typ == "DOUBLE" || c.typ == "FLOAT":
		return "float"
	case c.typ == "BOOLEAN":
		return "bool"
	case c.typ == "DATE":
		return "date"
	case c.typ == "TIMESTAMP":
		return "timestamp"
	}
	return "int"
}

type generator struct {
	rng     *rand.Rand
	raw     bool
	columns []genColumn
}

// value is a random expression for a column. A constant that does not fit is refused when the lake file is read, so that what is
// to fail in a run is no constant as it is written.
func (g *generator) value(c genColumn, depth int) string {
	e := g.expr(c.kind(), depth)
	if (c.typ == "INT" || c.typ == "SHORT") && len(e) > 5 && strings.Trim(e, "()- 0123456789") == "" {
		e += " + 0"
	}
	return e
}

// leaf is a name or a constant of a kind.
func (g *generator) leaf(kind string) string {
	r := g.rng
	if !g.raw {
		var fit []string
		for _, c := range g.columns {
			if c.kind() == kind {
				fit = append(fit, c.name)
			}
		}
		if len(fit) > 0 && r.IntN(4) > 0 {
			return pick(r, fit)
		}
	} else if r.IntN(4) > 0 {
		f := pick(r, rawNames)
		cast, strict := "TRY_CAST", r.IntN(6) == 0
		if strict {
			cast = "CAST"
		}
		switch kind {
		case "text":
			return f
		case "int":
			return cast + "(" + f + " AS " + pick(r, []string{"LONG", "INT", "SHORT"}) + ")"
		case "decimal":
			return cast + "(" + f + " AS " + pick(r, []string{"DECIMAL(18,8)", "DECIMAL(18,8)", "DECIMAL(38,20)", "DECIMAL(38,1)"}) + ")"
		case "float":
			return cast + "(" + f + " AS " + pick(r, []string{"DOUBLE", "DOUBLE", "FLOAT"}) + ")"
		case "bool":
			if !strict {
				return "TRY_CAST(" + f + " AS BOOLEAN)"
			}
			return "to_boolean(" + f + ")"
		case "date":
			return cast + "(" + f + " AS DATE)"
		case "timestamp":
			if !strict {
				return "TRY_CAST(" + f + " AS TIMESTAMP)"
			}
			return pick(r, []string{"to_event_time(" + f + ")", cast + "(" + f + " AS TIMESTAMP)", "to_event_time(" + f + ", '%d.%m.%Y %H:%M')", "to_event_time(" + f + ", '%b %d %Y')"})
		}
	}
	switch kind {
	case "text":
		return "'" + strings.ReplaceAll(pick(r, []string{"", "a", "ß", "BTC", "-", "%", "İx", "\\", "12", " b "}), "'", "''") + "'"
	case "int":
		return pick(r, []string{"0", "1", "-1", "7", "100", "9223372036854775807", "3000000000"})
	case "decimal":
		return pick(r, []string{"CAST(1.5 AS DECIMAL(18,8))", "CAST(0.00000001 AS DECIMAL(18,8))", "CAST('-9999999999.99999999' AS DECIMAL(18,8))", "CAST(2 AS DECIMAL(18,8))", "CAST('0.00000000000000000001' AS DECIMAL(38,20))", "CAST('-99999999999999999999999999999999999999' AS DECIMAL(38,0))"})
	case "float":
		return pick(r, []string{"CAST('1.5' AS DOUBLE)", "CAST('NaN' AS DOUBLE)", "CAST('-0.0' AS DOUBLE)", "CAST('1e300' AS DOUBLE)", "CAST('0.1' AS DOUBLE)", "CAST('Infinity' AS DOUBLE)"})
	case "bool":
		return pick(r, []string{"TRUE", "FALSE", "NULL"})
	case "date":
		return pick(r, []string{"CAST('2024-03-31' AS DATE)", "CAST('0001-01-01' AS DATE)", "CAST('2024-08-20' AS DATE)"})
	}
	return pick(r, []string{"to_event_time(1724112000)", "to_event_time('2024-03-31 02:30:00')", "to_event_time('2024-10-27T00:30:00Z')"})
}

// expr is a random expression of a kind.
func (g *generator) expr(kind string, depth int) string {
	r := g.rng
	if depth == 0 || r.IntN(5) == 0 {
		return g.leaf(kind)
	}
	e := func(k string) string { return g.expr(k, depth-1) }
	if r.IntN(6) == 0 {
		return pick(r, []string{
			"CASE WHEN " + e("bool") + " THEN " + e(kind) + " ELSE " + e(kind) + " END",
			"coalesce(" + e(kind) + ", " + e(kind) + ")",
			"nullif(" + e(kind) + ", " + e(kind) + ")",
			"greatest(" + e(kind) + ", " + e(kind) + ")",
			"least(" + e(kind) + ", " + e(kind) + ")",
		})
	}
	switch kind {
	case "text":
		return pick(r, []string{
			"upper(" + e("text") + ")", "lower(" + e("text") + ")", "trim(" + e("text") + ")", "ltrim(" + e("text") + ", 'a0 ')", "rtrim(" + e("text") + ")",
			"substr(" + e("text") + ", " + pick(r, []string{"1", "2", "0", "-2", "-7", "400", e("int")}) + ", " + pick(r, []string{"1", "3", "0", "-1", "1000", e("int")}) + ")", "substr(" + e("text") + ", " + pick(r, []string{"1", "3", "0", "-1", e("int")}) + ")",
			"replace(" + e("text") + ", " + pick(r, []string{"'a'", "''", "'é'", "'.'"}) + ", 'b')", "concat(" + e("text") + ", " + e("int") + ", NULL)", "(" + e("text") + " || " + e("text") + ")",
			"split_part(" + e("text") + ", " + pick(r, []string{"'-'", "'a'", "' '"}) + ", " + pick(r, []string{"1", "2", "-1", "9"}) + ")",
			"regexp_extract(" + e("text") + ", '" + pick(r, patterns) + "')", "CAST(" + e("int") + " AS STRING)", "CAST(" + e("decimal") + " AS STRING)", "CAST(" + e("date") + " AS STRING)",
			"CAST(" + e("timestamp") + " AS STRING)", "CAST(" + e("bool") + " AS STRING)",
		})
	case "int":
		return pick(r, []string{
			"(" + e("int") + " + " + e("int") + ")", "(" + e("int") + " - " + e("int") + ")", "(" + e("int") + " * " + e("int") + ")", "(" + e("int") + " % " + e("int") + ")",
			"(- " + e("int") + ")", "abs(" + e("int") + ")", "length(" + e("text") + ")", "round(" + e("int") + ", " + pick(r, []string{"0", "2", "-1", "-2"}) + ")", "TRY_CAST(" + e("decimal") + " AS LONG)", "TRY_CAST(" + e("float") + " AS LONG)", "TRY_CAST(" + e("text") + " AS INT)",
		})
	case "decimal":
		return pick(r, []string{
			"(" + e("decimal") + " + " + e("decimal") + ")", "(" + e("decimal") + " - " + e("decimal") + ")", "(" + e("decimal") + " % " + e("decimal") + ")", "(- " + e("decimal") + ")", "abs(" + e("decimal") + ")",
			"round(" + e("decimal") + ", " + pick(r, []string{"0", "2", "8"}) + ")", "floor(" + e("decimal") + ")", "ceil(" + e("decimal") + ")", "TRY_CAST(" + e("float") + " AS DECIMAL(18,8))", "TRY_CAST(" + e("text") + " AS DECIMAL(28,8))", "TRY_CAST(" + e("int") + " AS DECIMAL(18,8))",
			"(TRY_CAST(" + e("decimal") + " AS DECIMAL(28,8)) * TRY_CAST(" + e("decimal") + " AS DECIMAL(38,20)))", "(TRY_CAST(" + e("decimal") + " AS DECIMAL(18,8)) * " + e("int") + ")",
			"(" + e("int") + " " + pick(r, []string{"+", "-", "%"}) + " " + e("decimal") + ")", "TRY_CAST(" + e("decimal") + " AS " + pick(r, []string{"DECIMAL(38,20)", "DECIMAL(38,37)", "DECIMAL(20,0)"}) + ")",
			pick(r, []string{"coalesce", "greatest", "least"}) + "(" + e("decimal") + ", " + e("int") + ")", "CASE WHEN " + e("bool") + " THEN " + e("int") + " ELSE " + e("decimal") + " END",
		})
	case "float":
		return pick(r, []string{
			"(" + e("float") + " + " + e("float") + ")", "(" + e("float") + " - " + e("float") + ")", "(" + e("float") + " * " + e("float") + ")", "(" + e("float") + " / " + e("float") + ")", "(" + e("int") + " / " + e("int") + ")", "(" + e("decimal") + " / " + e("int") + ")",
			"abs(" + e("float") + ")", "(- " + e("float") + ")", "round(" + e("float") + ", " + pick(r, []string{"0", "1", "2", "-1"}) + ")", "floor(" + e("float") + ")", "ceil(" + e("float") + ")", "TRY_CAST(" + e("decimal") + " AS DOUBLE)", "TRY_CAST(" + e("text") + " AS DOUBLE)", "TRY_CAST(" + e("float") + " AS FLOAT)",
		})
	case "bool":
		k := pick(r, []string{"text", "int", "decimal", "float", "timestamp", "date"})
		return pick(r, []string{
			"(" + e(k) + " " + pick(r, []string{"=", "<>", "<", "<=", ">", ">="}) + " " + e(k) + ")", "(" + e("bool") + " AND " + e("bool") + ")", "(" + e("bool") + " OR " + e("bool") + ")", "(NOT " + e("bool") + ")",
			"(" + e(k) + " IS NULL)", "(" + e(k) + " IN (" + e(k) + ", " + e(k) + "))", "(" + e("text") + " LIKE " + pick(r, []string{"'a%'", "'_'", "'%\\%'", "'%é%'", "'%_%'"}) + ")",
			"regexp_like(" + e("text") + ", '" + pick(r, patterns) + "')", "(" + e("int") + " < " + e("decimal") + ")", "(" + e("decimal") + " IN (" + e("int") + ", " + e("decimal") + "))", "(" + e("decimal") + " > " + e("float") + ")",
		})
	case "date":
		return pick(r, []string{"to_date(" + e("timestamp") + ")", "TRY_CAST(" + e("text") + " AS DATE)", g.leaf("date")})
	}
	return pick(r, []string{"to_event_time(" + e("int") + ")", "TRY_CAST(" + e("text") + " AS TIMESTAMP)", g.leaf("timestamp")})
}

// patterns are regular expressions that RE2 and Java read differently, or would.
var patterns = []string{`^[A-Z]+$`, `.`, `.+`, `\s`, `\bUSD\b`, `(?i)straße`, `(?i)k`, `[^a-z]+`, `a|ab`, `(a*)+`, `\d{2,3}`, `[[:alpha:]]+`, `\pL+`, `^$`, `x*$`, `(?s).*`, `(?m)^b$`, `[\w.-]+`, `é`, `\x{1F600}`}
