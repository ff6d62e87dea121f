package duckdb

import (
	"context"
	"fmt"
	"testing"

	"github.com/cauce-data/cauce/delta"
)

// Values inside of structs, lists and maps are cast as strictly as others.
func TestNestedCastsLoseNothing(t *testing.T) {
	e := testEngine(t)
	for _, c := range []struct{ typ, text, want string }{ // want "": the cast fails
		{"ARRAY<INT>", "[1,2.0,null,\" 3 \",\"\"]", "[1, 2, NULL, 3, NULL]"},
		{"ARRAY<INT>", "[2147483648]", ""},
		{"ARRAY<INT>", "[1.5]", ""},
		{"ARRAY<INT>", "[[1]]", ""},
		{"ARRAY<INT>", "[1] [2]", ""},
		{"ARRAY<INT>", `{"x":1}`, ""},
		{"ARRAY<INT>", "[]", "[]"},
		{"ARRAY<ARRAY<INT>>", `[[1],null,"[2]"]`, "[[1], NULL, [2]]"},
		{"ARRAY<BYTE>", "[128]", ""},
		{"ARRAY<BYTE>", "[-128,127]", "[-128, 127]"},
		{"ARRAY<LONG>", "[9007199254740993]", "[9007199254740993]"},
		{"ARRAY<DECIMAL(38,10)>", "[1234567890123456789012345678.0123456789]", "[1234567890123456789012345678.0123456789]"},
		{"ARRAY<DECIMAL(10,2)>", "[0.005]", ""},
		{"ARRAY<DOUBLE>", `[0.1,1e300,"NaN",-0.5]`, "[0.1, 1e+300, nan, -0.5]"},
		{"ARRAY<DOUBLE>", "[1e400]", ""},
		{"ARRAY<DOUBLE>", `["Infinity","-inf","+inf"]`, "[inf, -inf, inf]"},
		{"ARRAY<FLOAT>", `["Infinity",0.1,16777217]`, "[inf, 0.1, 16777216.0]"},
		{"ARRAY<BOOLEAN>", `[true,"no",1]`, "[true, false, true]"},
		{"ARRAY<DATE>", `["2024-08-20"]`, "[2024-08-20]"},
		{"ARRAY<DATE>", `["2024-02-30"]`, ""},
		{"ARRAY<TIMESTAMP>", `["2024-08-20T10:00:00"]`, "['2024-08-20 08:00:00+00']"},
		{"ARRAY<TIMESTAMP_NTZ>", `["2024-08-20T10:00:00.5"]`, "['2024-08-20 10:00:00.5']"},
		{"ARRAY<STRING>", `["a",1.50,true,{"x":[1]},null,""]`, `[a, 1.50, true, '{"x":[1]}', NULL, '']`},
		{"STRUCT<x: INT, y: STRING>", `{"y":"q","x":1,"z":3}`, "{'x': 1, 'y': q}"},
		{"STRUCT<x: INT, y: STRING>", `{"x":1,"x":2}`, "{'x': 2, 'y': NULL}"},
		{"STRUCT<x: INT, y: STRING>", `{"X":1}`, "{'x': NULL, 'y': NULL}"},
		{"STRUCT<x: INT, y: STRING>", `{"x":1.5}`, ""},
		{"STRUCT<x: INT, y: STRING>", `[1,"a"]`, ""},
		{"STRUCT<x: INT, y: STRING>", `{"x":`, ""},
		{"MAP<STRING, INT>", `{"k":1,"k":2,"":3}`, "{k=2, ''=3}"},
		{"MAP<STRING, INT>", `{"k":"x"}`, ""},
		{"MAP<INT, STRING>", `{"1":"a","01":"b"}`, "{1=b}"},
		{"MAP<INT, STRING>", `{"x":"a"}`, ""},
	} {
		typ, err := delta.ParseType(c.typ)
		if err != nil {
			t.Fatal(err)
		}
		r := &renderer{zone: "Europe/Madrid"}
		v := r.fromText("x", typ)
		err = e.with(context.Background(), func(k *conn) error {
			row, err := k.one(context.Background(), "SELECT CAST("+v+" AS VARCHAR) FROM (SELECT "+quoteText(c.text)+" AS x)")
			if err != nil {
				return err
			}
			got, _ := row[0].(string)
			if got != c.want {
				return fmt.Errorf("%s as %s gives %q, not %q", c.text, c.typ, got, c.want)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}
