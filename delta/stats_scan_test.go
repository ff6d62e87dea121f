package delta

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/cauce-data/cauce/internal/testscale"
)

// parsedColumn is what ParseStats says of a column.
func parsedColumn(text, column string) (columnStat, bool) {
	st, err := ParseStats(text)
	if err != nil || text == "" {
		return columnStat{}, false
	}
	c := columnStat{numRecords: st.NumRecords, min: st.MinValues[column], max: st.MaxValues[column], nulls: -1}
	if n, ok := st.NullCount[column].(int64); ok {
		c.nulls = n
	}
	return c, true
}

// The short way through statistics gives what the long way gives, for statistics of any form.
func TestScanStats(t *testing.T) {
	r := rand.New(rand.NewPCG(testscale.Seed(t), 5))
	short := 0
	check := func(text string) {
		t.Helper()
		for _, column := range []string{"a", "b", "ä", "x y"} {
			want, wok := parsedColumn(text, column)
			got, gok := (&fileFacts{json: text}).columnStat(column)
			if wok != gok || !reflect.DeepEqual(got, want) {
				t.Fatalf("%s of %q: %+v %v, want %+v %v", column, text, got, gok, want, wok)
			}
		}
		if json.Valid([]byte(text)) {
			if _, ok := scanStats(text, "a"); ok {
				short++
			}
		}
	}
	for _, text := range []string{
		"", "{}", "null", "[]", `{"numRecords":3.0}`, `{"numRecords":"3"}`, `{"numRecords":-1}`, `{"numRecords":null}`, `{"NUMRECORDS":3}`,
		`{"numRecords":1,"numRecords":2}`, `{"minValues":{"a":1,"a":2}}`, `{"minValues":{"a":1},"minValues":{"b":2}}`, `{"minValues":null}`,
		`{"minValues":{"a":{"b":1}}}`, `{"minValues":{"\u0061":1}}`, `{"minValues":{"a":"\"\\}"},"maxValues":{"a":"}"}}`, `{"minValues":{"a":1}} x`,
		`{"minValues":{"a":1}`, `{"nullCount":{"a":1.5,"b":true}}`, `{"tightBounds":"no","minValues":{"a":1}}`, `{"tightBounds":false,"minValues":{"a":1}}`,
		` { "minValues" : { "a" : 12345678901234567890.123 , "b" : false } , "other" : [ { "]" : "}" } ] } `, `{"minValues":5,"maxValues":{"a":1}}`,
	} {
		check(text)
	}
	values := []string{"1", "-2.50", "1e400", `"x"`, `"ü\n\"]}"`, "true", "null", `{"c":[1,2]}`, `""`, "99999999999999999999"}
	names := []string{`"a"`, `"b"`, `"ä"`, `"x y"`, `"\u0061"`, `"c"`}
	space := func() string { return strings.Repeat(" ", r.IntN(2)) }
	for range 20_000 {
		var members []string
		for _, m := range []string{"numRecords", "minValues", "maxValues", "nullCount", "tightBounds", "later"} {
			if r.IntN(5) == 0 {
				continue
			}
			v := []string{"7", "0", "true", "null"}[r.IntN(4)]
			if strings.HasSuffix(m, "Values") || m == "nullCount" || m == "later" {
				var inner []string
				for range r.IntN(4) {
					inner = append(inner, names[r.IntN(len(names))]+space()+":"+space()+values[r.IntN(len(values))])
				}
				v = "{" + strings.Join(inner, ","+space()) + "}"
			}
			members = append(members, fmt.Sprintf("%q:%s%s", m, space(), v))
		}
		text := "{" + strings.Join(members, space()+",") + "}"
		if r.IntN(3) == 0 && len(text) > 0 { // damage it
			b := []byte(text)
			b[r.IntN(len(b))] = `{}[]",:\0x `[r.IntN(11)]
			text = string(b)
		}
		check(text)
	}
	if short < 2000 {
		t.Fatalf("only %d statistics took the short way", short)
	}
}
