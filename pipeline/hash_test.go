package pipeline_test

import (
	"strings"
	"testing"
)

// TestPlanHash: the hash changes with everything that decides which rows a record becomes, so that `plan --reprocess`
// and quarantine can tell an old reading from a new one; and with nothing else.
func TestPlanHash(t *testing.T) {
	const text = `version: 1
storage: ./data
tables:
  t:
    columns: {id: LONG, n: LONG, d: "DECIMAL(18,8)", day: DATE}
    key: [id]
    sequence: [n]
    timezone: UTC
    transform: [{set: {n: n + 1}}, {where: n > 0}]
    expect: [{name: e, check: n > 0, on_fail: quarantine}]
sources:
  s:
    table: t
    kind: files
    location: ["raw/batch/*.csv"]
    from_filename: '_(?P<v>[0-9]+)_(?P<w>[0-9]+)'
    generation: v
    csv: {delimiter: ",", null_values: ["-"]}
    rank: 0
    filter: id <> 'x'
    fields: {id: id, n: n}
    unknown_fields: ignore
`
	hash := func(old, new string) string {
		t.Helper()
		if old != "" && strings.Count(text, old) != 1 {
			t.Fatalf("%q stands %d times in the lake file", old, strings.Count(text, old))
		}
		l, err := load(strings.Replace(text, old, new, 1))
		if err != nil {
			t.Fatalf("%s: %v", new, err)
		}
		p, err := l.Plan(l.Sources[0].Name)
		if err != nil {
			t.Fatal(err)
		}
		return p.Hash
	}
	was := hash("", "")
	if len(was) != 64 || was != hash("", "") {
		t.Fatalf("hash %q is no SHA-256, or not the same twice", was)
	}
	seen := map[string]string{was: "the file as it is"}
	for _, x := range [][2]string{
		{"n: LONG,", "n: INT,"},
		{"n: LONG,", "n: {type: LONG, not_null: true},"},
		{"key: [id]", "key: [id, day]"},
		{"sequence: [n]", "sequence: [n, day]"},
		{"timezone: UTC", "timezone: Europe/Madrid"},
		{"{n: n + 1}", "{n: n + 2}"},
		{"{where: n > 0}", "{where: n >= 0}"},
		{"check: n > 0", "check: n > 1"},
		{"on_fail: quarantine", "on_fail: warn"},
		{`_(?P<v>[0-9]+)_(?P<w>`, `-(?P<v>[0-9]+)_(?P<w>`},
		{"generation: v", "generation: w"},
		{`delimiter: ","`, `delimiter: ";"`},
		{`["-"]`, `["NULL"]`},
		{"rank: 0", "rank: 1"},
		{"filter: id <> 'x'", "filter: id <> 'y'"},
		{"n: n}", "n: CAST(n AS LONG) + 1}"},
		{"unknown_fields: ignore", "unknown_fields: quarantine"},
		{"unknown_fields: ignore", "unknown_fields: keep"},
		{`csv: {delimiter: ",", null_values: ["-"]}`, "format: jsonl"},
	} {
		h := hash(x[0], x[1])
		if before, ok := seen[h]; ok {
			t.Errorf("%s has the hash of %s", x[1], before)
		}
		seen[h] = x[1]
	}
	for _, x := range [][2]string{
		{"storage: ./data", "storage: ./other"},
		{"columns:", "comment: what it holds\n    columns:"},
		{`["raw/batch/*.csv"]`, `["raw/other/*.csv"]`},
		{"timezone: UTC", "timezone: UTC\n    compression: zstd"},
		{"timezone: UTC", "timezone: UTC\n    cluster_by: [day]"},
		{"filter: id <> 'x'", "filter: \"id   <>   'x'\""},
		{"unknown_fields: ignore", "unknown_fields: ignore\n    on_reissue: replace"},
		{"  s:\n", "  other_name:\n"},
	} {
		if hash(x[0], x[1]) != was {
			t.Errorf("%s changes the hash, but no row", x[1])
		}
	}
}
