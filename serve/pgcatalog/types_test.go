package pgcatalog

import "testing"

// A type has one of PostgreSQL's, whether a result names it or DESCRIBE: clients look up in the catalogue what results have.
func TestTypeOf(t *testing.T) {
	for _, c := range []struct {
		result, describe string
		oid              uint32
		modifier         int32
	}{
		{"BIGINT", "BIGINT", 20, -1},
		{"DECIMAL(9,2)", "DECIMAL(9,2)", 1700, 9<<16 | 2 + 4},
		{"DECIMAL", "DECIMAL", 1700, -1},
		{"TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE", 1184, -1},
		{"TIMESTAMPTZ[]", "TIMESTAMP WITH TIME ZONE[]", 1185, -1},
		{"UUID", "UUID", 2950, -1},
		{"UUID[]", "UUID[]", 2951, -1},
		{"VARCHAR", "JSON", 25, -1}, // results do not tell them apart
		{"ENUM", "ENUM('a', 'b')", 25, -1},
		{"STRUCT", "STRUCT(a DECIMAL(9,2), b BIGINT[])", 114, -1},
		{"STRUCT[]", "STRUCT(a BIGINT)[]", 199, -1},
		{"MAP", "MAP(VARCHAR, BIGINT)", 114, -1},
		{"BIGINT[][]", "BIGINT[][]", 114, -1},
		{"", "", 25, -1},
	} {
		for _, name := range []string{c.result, c.describe} {
			if got := TypeOf(name); got.OID != c.oid || got.Modifier != c.modifier {
				t.Errorf("%s is %d with modifier %d, want %d and %d", name, got.OID, got.Modifier, c.oid, c.modifier)
			}
		}
	}
	if e := TypeOf("BIGINT[]").Element; e == nil || e.OID != 20 || e.Size != 8 {
		t.Errorf("elements of BIGINT[] are %+v", e)
	}
}
