package duckdb

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// What a scanner has seen of earlier records changes nothing: names in another order, names that nothing wants, nested ones, a name
// that occurs twice.
func TestScannerIsAsNewForEachRecord(t *testing.T) {
	fields := []string{"a", "b", "c.d", "c.e", "e.f"}
	names := rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "aa", ""})
	var object func(t *rapid.T, depth int) string
	object = func(t *rapid.T, depth int) string {
		var members []string
		for range rapid.IntRange(0, 5).Draw(t, "members") {
			v := rapid.SampledFrom([]string{`1`, `"x"`, `null`, `true`, `[1]`}).Draw(t, "value")
			if depth < 2 && rapid.IntRange(0, 2).Draw(t, "nested") == 0 {
				v = object(t, depth+1)
			}
			members = append(members, fmt.Sprintf("%q:%s", names.Draw(t, "name"), v))
		}
		return "{" + strings.Join(members, ",") + "}"
	}
	rapid.Check(t, func(t *rapid.T) {
		keep := rapid.Bool().Draw(t, "keep")
		used := newJSONScanner(fields)
		used.keep = keep
		for range rapid.IntRange(2, 6).Draw(t, "records") {
			record := object(t, 0)
			fresh := newJSONScanner(fields)
			fresh.keep = keep
			if a, b := used.record([]byte(record)), fresh.record([]byte(record)); a != nil || b != nil {
				t.Fatalf("%s: %v, %v", record, a, b)
			}
			if !slices.Equal(used.values, fresh.values) || used.unknown != fresh.unknown {
				t.Fatalf("%s: %v and %q, a new one gives %v and %q", record, used.values, used.unknown, fresh.values, fresh.unknown)
			}
		}
	})
}

// A member that has the field's whole name counts, wherever in the object it stands; else a.b reaches into a.
func TestNamesWithDots(t *testing.T) {
	for record, want := range map[string]string{
		`{"a.b":"own","a":{"b":"inner"}}`:           "own",
		`{"a":{"b":"inner"},"a.b":"own"}`:           "own",
		`{"a.b":null,"a":{"b":"inner"}}`:            "null",
		`{"a":{"b":"inner"},"a.b":null}`:            "null",
		`{"a.b":"old","a":{"b":"inner"},"a.b":"x"}`: "x",
		`{"a.b":"own","a":{"b":"inner"},"a":{}}`:    "own",
		`{"a":{"b":"inner"}}`:                       "inner",
		`{"a":{"b":"inner"},"a":{}}`:                "null",
	} {
		s := newJSONScanner([]string{"a", "a.b"})
		for range 2 { // the second time beside what it has seen
			if err := s.record([]byte(record)); err != nil {
				t.Fatal(err)
			}
			got := "null"
			if s.values[1].set {
				got = s.values[1].text
			}
			if got != want {
				t.Errorf("%s: a.b is %s, want %s", record, got, want)
			}
		}
	}
}
