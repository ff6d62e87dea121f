package prove

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cauce-data/cauce/pipeline"
)

// Pinned is a lake file whose expressions engines have read in different ways, one record that goes through it, and what
// becomes of it by docs/expressions.md. Spark gives just that, so an engine that does too agrees with it.
type Pinned struct {
	What   string
	Values map[string]string // of the record, by raw field
	Types  []string          // of the columns c0, c1 …
	Fields []string          // expressions that fill them
	Set    string            // what a transformation sets c0 to; "" if there is none
	Want   Fate
}

// Lake is the lake file as text.
func (p Pinned) Lake() string {
	var columns, fields strings.Builder
	for i, t := range p.Types {
		fmt.Fprintf(&columns, "      c%d: %q\n", i, t)
		fmt.Fprintf(&fields, "      c%d: %s\n", i, quoteYAML(p.Fields[i]))
	}
	set := ""
	if p.Set != "" {
		set = "    transform: [{set: {c0: " + quoteYAML(p.Set) + "}}]\n"
	}
	return "version: 1\nstorage: file:./data\ntables:\n  t:\n    columns:\n" + columns.String() + set +
		"sources:\n  s:\n    table: t\n    kind: files\n    location: [\"raw/batch/*.csv\"]\n    format: csv\n    csv: {header: true, optional: [" +
		strings.Join(slices.Sorted(maps.Keys(p.Values)), ", ") + "]}\n    fields:\n" + fields.String()
}

// Records is the record in the order of a plan's raw fields.
func (p Pinned) Records(plan *pipeline.Plan) []Record {
	r := Record{Position: 1, Values: make([]*string, len(plan.RawFields))}
	for name, v := range p.Values {
		if i := slices.Index(plan.RawFields, name); i >= 0 {
			r.Values[i] = &v
		}
	}
	return []Record{r}
}

// PinnedCases are what random lake files have found.
func PinnedCases() []Pinned {
	single := Pinned{
		What: "numbers of several types",
		// The FLOAT nearest to 1e-8 is below it, that nearest to 16777217 is 16777216, and that nearest to 0.1 above it.
		Values: map[string]string{"tiny": "0.00000001", "odd": "16777217", "tenth": "0.1", "zeros": "10e0000000000", "long": "123456789012345.678", "wide": "-0.10000000000000000000000000000000000001"},
	}
	var want []string
	for _, x := range []struct{ typ, sql, want string }{
		{"BOOLEAN", "TRY_CAST(tiny AS DECIMAL(18,8)) > TRY_CAST(tiny AS FLOAT)", "true"},
		{"BOOLEAN", "TRY_CAST(tiny AS FLOAT) = TRY_CAST(tiny AS DECIMAL(18,8))", "false"},
		{"BOOLEAN", "TRY_CAST(tiny AS FLOAT) IN (TRY_CAST(tiny AS DECIMAL(18,8)), 7)", "false"},
		{"BOOLEAN", "TRY_CAST(tenth AS FLOAT) BETWEEN 0 AND TRY_CAST(tenth AS DECIMAL(18,8))", "false"},
		{"BOOLEAN", "TRY_CAST(odd AS LONG) > TRY_CAST(odd AS FLOAT)", "true"},
		{"BOOLEAN", "nullif(TRY_CAST(odd AS LONG), TRY_CAST(odd AS FLOAT)) IS NULL", "false"},
		{"DOUBLE", "greatest(TRY_CAST(odd AS LONG), TRY_CAST(odd AS FLOAT))", "4170000010000000"},
		{"DOUBLE", "least(TRY_CAST(tenth AS DECIMAL(18,8)), TRY_CAST(tenth AS FLOAT))", "3fb999999999999a"},
		{"DOUBLE", "coalesce(TRY_CAST(odd AS LONG), TRY_CAST(tenth AS FLOAT))", "4170000010000000"},
		{"DOUBLE", "CASE WHEN tiny = odd THEN TRY_CAST(tenth AS FLOAT) ELSE TRY_CAST(tenth AS DECIMAL(18,8)) END", "3fb999999999999a"},
		{"DOUBLE", "round(TRY_CAST(tenth AS FLOAT), 1)", "3fb999999999999a"},
		{"SHORT", "zeros", "10"},
		{"LONG", "TRY_CAST(zeros AS LONG)", "10"},
		{"DECIMAL(18,8)", "zeros", "10.00000000"},
		{"DOUBLE", "TRY_CAST(long AS DECIMAL(18,3))", "42dc12218377de6b"},
		{"DOUBLE", "TRY_CAST(wide AS DECIMAL(38,38))", "bfb999999999999a"},
		{"FLOAT", "TRY_CAST(long AS DECIMAL(18,3))", "42dc122180000000"},
	} {
		single.Types, single.Fields, want = append(single.Types, x.typ), append(single.Fields, x.sql), append(want, x.want)
	}
	for i := range want {
		single.Want.Row = append(single.Want.Row, &want[i])
	}
	// A DECIMAL(38,20) has room for 18 digits before the point, a LONG and a DECIMAL(38,0) for more.
	wide := Pinned{
		What:   "decimals that have no type in common",
		Values: map[string]string{"fine": "1.00000000000000000001", "long": "9223372036854775807", "one": "1", "great": "99999999999999999999999999999999999999", "half": "0.50000000000000000000000000000000000001", "double": "190766505.79999998"},
	}
	for _, x := range []struct{ typ, sql, want string }{
		{"BOOLEAN", "TRY_CAST(fine AS DECIMAL(38,20)) > TRY_CAST(one AS LONG)", "true"},
		{"BOOLEAN", "TRY_CAST(fine AS DECIMAL(38,20)) < TRY_CAST(long AS LONG)", "true"},
		{"BOOLEAN", "TRY_CAST(one AS LONG) = TRY_CAST(fine AS DECIMAL(38,20))", "false"},
		{"BOOLEAN", "TRY_CAST(half AS DECIMAL(38,38)) IN (TRY_CAST(great AS DECIMAL(38,0)), TRY_CAST(long AS LONG), 1)", "false"},
		{"BOOLEAN", "TRY_CAST(great AS DECIMAL(38,0)) BETWEEN TRY_CAST(half AS DECIMAL(38,38)) AND 9223372036854775807", "false"},
		{"BOOLEAN", "nullif(TRY_CAST(great AS DECIMAL(38,0)), TRY_CAST(half AS DECIMAL(38,38))) > 0", "true"},
		{"STRING", "CAST(coalesce(TRY_CAST(fine AS DECIMAL(38,20)), TRY_CAST(long AS LONG)) AS STRING)", "1.00000000000000000001"},
		{"STRING", "CAST(coalesce(TRY_CAST(one AS LONG), TRY_CAST(fine AS DECIMAL(38,20))) AS STRING)", "1.00000000000000000000"},
		{"STRING", "CAST(CASE WHEN one = '1' THEN TRY_CAST(fine AS DECIMAL(38,20)) ELSE TRY_CAST(great AS DECIMAL(38,0)) END AS STRING)", "1.00000000000000000001"},
		{"STRING", "CAST(greatest(TRY_CAST(fine AS DECIMAL(38,20)), TRY_CAST(one AS LONG)) AS STRING)", "1.00000000000000000001"},
		{"DECIMAL(38,0)", "TRY_CAST(great AS DECIMAL(38,0)) % TRY_CAST(one AS DECIMAL(38,20))", "0"},
		{"DECIMAL(38,20)", "TRY_CAST(one AS INT) % CAST('0.00000000000000000001' AS DECIMAL(38,20))", "0.00000000000000000000"},
		{"DECIMAL(38,20)", "TRY_CAST(fine AS DECIMAL(38,20)) - TRY_CAST(one AS LONG)", "0.00000000000000000001"},
		{"DECIMAL(38,10)", "TRY_CAST(TRY_CAST(fine AS DECIMAL(38,20)) AS DECIMAL(38,10))", "NULL"},
		{"LONG", "TRY_CAST(TRY_CAST(fine AS DECIMAL(38,20)) AS LONG)", "NULL"},
		{"DECIMAL(38,0)", "- TRY_CAST(great AS DECIMAL(38,0))", "-99999999999999999999999999999999999999"},
		{"DECIMAL(38,0)", "abs(CAST('-99999999999999999999999999999999999999' AS DECIMAL(38,0)))", "99999999999999999999999999999999999999"},
		{"STRING", "CAST(- - - TRY_CAST(half AS DECIMAL(38,38)) AS STRING)", "-0.50000000000000000000000000000000000001"},
		{"STRING", "CAST(abs(- TRY_CAST(half AS DECIMAL(38,38))) AS STRING)", "0.50000000000000000000000000000000000001"},
		{"DECIMAL(18,8)", "TRY_CAST(TRY_CAST(double AS DOUBLE) AS DECIMAL(18,8))", "190766505.79999998"},
		{"STRING", "CAST(greatest(ceil(TRY_CAST(fine AS DECIMAL(38,20))), TRY_CAST('2.75' AS DECIMAL(18,8))) AS STRING)", "2.75000000"},
		{"STRING", "CAST(least(floor(TRY_CAST(fine AS DECIMAL(38,20))), TRY_CAST('0.75' AS DECIMAL(18,8))) AS STRING)", "0.75000000"},
		{"STRING", "CAST(coalesce(round(TRY_CAST('x' AS DECIMAL(38,20)), 2), TRY_CAST('0.755' AS DECIMAL(18,8))) AS STRING)", "0.75500000"},
		{"DECIMAL(38,10)", "TRY_CAST(great AS DECIMAL(38,0)) % CAST('-0.7000000003' AS DECIMAL(38,10))", "0.3942940433"},
		{"DECIMAL(38,38)", "- TRY_CAST(great AS DECIMAL(38,0)) % TRY_CAST('0.00000000000000000000000000000000000007' AS DECIMAL(38,38))", "-0.00000000000000000000000000000000000002"},
		{"DOUBLE", "round(TRY_CAST(double AS DOUBLE), TRY_CAST(one AS LONG))", "41a6bdbb5399999a"},
		{"DOUBLE", "round(TRY_CAST(double AS DOUBLE), TRY_CAST(long AS LONG))", "41a6bdbb53999999"},
		{"STRING", "substr('-', -2, 1)", ""},
		{"STRING", "substr('añ', -218969430895)", "añ"},
		{"STRING", "substr('ñu', -3, 2)", "ñ"},
		{"STRING", "substr(long, -21, 3)", "9"},
		{"STRING", "substr(great, TRY_CAST(double AS LONG), 2)", "NULL"},
		{"STRING", "substr(great, TRY_CAST(long AS LONG), TRY_CAST(long AS LONG))", ""},
		{"STRING", "substr('abc', 3, -2)", ""},
	} {
		wide.Types, wide.Fields = append(wide.Types, x.typ), append(wide.Fields, x.sql)
		if x.want == "NULL" {
			wide.Want.Row = append(wide.Want.Row, nil)
			continue
		}
		wide.Want.Row = append(wide.Want.Row, &x.want)
	}
	// The same numbers where one has no room among the others' decimals.
	var fail []Pinned
	for _, sql := range []string{
		"coalesce(TRY_CAST(long AS LONG), TRY_CAST(fine AS DECIMAL(38,20)))", "greatest(TRY_CAST(long AS LONG), TRY_CAST(fine AS DECIMAL(38,20)))",
		"CASE WHEN long > '1' THEN TRY_CAST(long AS LONG) ELSE TRY_CAST(fine AS DECIMAL(38,20)) END", "TRY_CAST(long AS LONG) + TRY_CAST(fine AS DECIMAL(38,20))",
	} {
		fail = append(fail, Pinned{
			What: "a number without room: " + sql, Values: wide.Values, Types: []string{"STRING"}, Fields: []string{"CAST(" + sql + " AS STRING)"},
			Want: Fate{Rule: "cast:c0", Reason: `long = "9223372036854775807", fine = "1.00000000000000000001" is no STRING`},
		})
	}
	return append(fail, single, wide, Pinned{
		What:   "quarantine shows a FLOAT with as few digits as read back the same",
		Values: map[string]string{"a": "666295223.944704985"},
		Types:  []string{"LONG", "FLOAT"}, Fields: []string{"0", "TRY_CAST(a AS FLOAT)"}, Set: "CAST(c1 * c1 * c1 AS LONG)",
		Want: Fate{Rule: "cast:c0", Reason: `c1 = "666295230.0" is no LONG`},
	})
}
