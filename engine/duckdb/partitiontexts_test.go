package duckdb

import (
	"strings"
	"testing"

	"github.com/cauce-data/cauce/delta"
)

// Texts that in the name of a folder would stand for no value are themselves.
func TestPartitionTextsThatLookLikeNull(t *testing.T) {
	e := testEngine(t)
	tab := valuesTable(t, "t", []delta.Field{{Name: "i", Type: delta.Long, Nullable: true}, {Name: "s", Type: delta.String, Nullable: true}}, []string{"s"},
		`[{"i": 1, "s": "null"}, {"i": 2, "s": "NULL"}, {"i": 3, "s": "Null"}, {"i": 4, "s": null}, {"i": 5, "s": "a"}, {"i": 6, "s": "__HIVE_DEFAULT_PARTITION__"}]`)
	for sql, want := range map[string]string{
		"SELECT i || coalesce(s, '-') FROM t": "1null 2NULL 3Null 4- 5a 6__HIVE_DEFAULT_PARTITION__",
		"SELECT i FROM t WHERE s = 'null'":    "1",
		"SELECT i FROM t WHERE s IS NULL":     "4",
	} {
		if got, _ := firstColumn(t, e, sql, tab); strings.Join(got, " ") != want {
			t.Errorf("%s: %v, not %s", sql, got, want)
		}
	}
}

// A partition column may have a name that no folder has as it is.
func TestPartitionNamesThatAreEscaped(t *testing.T) {
	e := testEngine(t)
	tab := valuesTable(t, "t", []delta.Field{{Name: "i", Type: delta.Long, Nullable: true}, {Name: "a:b", Type: delta.String, Nullable: true}}, []string{"a:b"},
		`[{"i": 1, "a:b": "x"}, {"i": 2, "a:b": "y"}]`)
	if got, _ := firstColumn(t, e, `SELECT i FROM t WHERE "a:b" = 'y'`, tab); strings.Join(got, " ") != "2" {
		t.Errorf("%v, not 2", got)
	}
}
