package delta

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"pgregory.net/rapid"
)

// drawType draws a type that Arrow can hold.
func drawType(t *rapid.T, depth int) Type {
	kinds := 14
	if depth > 0 {
		kinds = 17
	}
	switch k := rapid.IntRange(0, kinds).Draw(t, "kind"); k {
	case 0:
		return String
	case 1:
		return Long
	case 2:
		return Integer
	case 3:
		return Short
	case 4:
		return Byte
	case 5:
		return Float
	case 6:
		return Double
	case 7:
		return Boolean
	case 8:
		return Binary
	case 9:
		return Date
	case 10:
		return Timestamp
	case 11:
		return TimestampNTZ
	case 12, 13, 14:
		p := rapid.IntRange(1, 38).Draw(t, "precision")
		return Decimal{p, rapid.IntRange(0, p).Draw(t, "scale")}
	case 15:
		return &Array{Element: drawType(t, depth-1), ContainsNull: rapid.Bool().Draw(t, "null")}
	case 16:
		return &Map{Key: drawType(t, 0), Value: drawType(t, depth-1), ValueContainsNull: rapid.Bool().Draw(t, "null")}
	default:
		return &Struct{Fields: drawFields(t, depth-1)}
	}
}

func drawFields(t *rapid.T, depth int) []Field {
	names := rapid.SliceOfNDistinct(rapid.StringMatching("[a-zA-Zé_ `:<,>.]{0,6}x"), 1, 4, strings.ToLower).Draw(t, "names")
	out := make([]Field, len(names))
	for i, n := range names {
		out[i] = Field{Name: n, Type: drawType(t, depth), Nullable: rapid.Bool().Draw(t, "nullable")}
		if rapid.Bool().Draw(t, "comment") {
			out[i].Metadata = map[string]any{"comment": "c<&>", "n": json.Number("12345678901234567890"), "o": map[string]any{"k": true}}
		} else {
			out[i].Metadata = map[string]any{}
		}
	}
	return out
}

func stripMetadata(s *Schema) *Schema {
	c, err := ParseSchema(s.JSON())
	if err != nil {
		panic(err)
	}
	walkFields(c.Fields, func(f *Field) { f.Metadata = nil })
	return c
}

func TestSchemaRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &Schema{Fields: drawFields(t, 3)}
		back, err := ParseSchema(s.JSON())
		if err != nil || !reflect.DeepEqual(s, back) {
			t.Fatalf("JSON %s gives %v, %v", s.JSON(), back, err)
		}
		plain := stripMetadata(s)
		typ, err := ParseType(s.String())
		if err != nil || !reflect.DeepEqual(typ, &Struct{Fields: plain.Fields}) {
			t.Fatalf("type %s gives %v, %v", s, typ, err)
		}
		if !SameType(typ, &Struct{Fields: s.Fields}) {
			t.Fatalf("%s is not the same as itself", s)
		}
		viaArrow, err := SchemaFromArrow(s.Arrow())
		if err != nil || !reflect.DeepEqual(viaArrow, plain) {
			t.Fatalf("Arrow gives %v, want %v (%v)", viaArrow, plain, err)
		}
	})
}

func TestParseType(t *testing.T) {
	for in, want := range map[string]string{
		"STRING": "string", "BIGINT": "long", "LONG": "long", "INT": "integer", "SmallInt": "short", "TINYINT": "byte",
		"DECIMAL(18,8)": "decimal(18,8)", "decimal": "decimal(10,0)", "NUMERIC(5)": "decimal(5,0)", " decimal ( 3 , 2 ) ": "decimal(3,2)",
		"TIMESTAMP": "timestamp", "timestamp_ntz": "timestamp_ntz", "VARCHAR(20)": "string", "REAL": "float", "bytea": "binary",
		"STRUCT<a: INT, b STRING NOT NULL>":                           "struct<a: integer, b: string not null>",
		"struct<`a b`:int,`c``d`:array<map<string,double not null>>>": "struct<`a b`: integer, `c``d`: array<map<string, double not null>>>",
		"ARRAY<DECIMAL(10,2)>":                                        "array<decimal(10,2)>",
		"struct<event.time: timestamp>":                               "struct<`event.time`: timestamp>",
		"struct<>":                                                    "struct<>",
	} {
		got, err := ParseType(in)
		if err != nil || got.String() != want {
			t.Errorf("%q = %v, %v; want %s", in, got, err, want)
		}
	}
	for _, in := range []string{"", "strin", "decimal(39,2)", "decimal(3,4)", "decimal(3,-1)", "decimal(0,0)", "decimal(3", "array", "array<>", "array<int", "map<int>",
		"struct<a int", "struct<a: int, A: long>", "int int", "struct<a: int not>", "struct<: int>", "struct<`a: int>", "varchar(x)", strings.Repeat("array<", 200)} {
		if got, err := ParseType(in); !errors.Is(err, ErrSchema) {
			t.Errorf("%.40q = %v, %v; want an error", in, got, err)
		}
	}
}

func TestParseSchemaOfOthers(t *testing.T) {
	for in, want := range map[string]error{
		`{"type":"struct","fields":[{"name":"a","type":"long","nullable":true,"metadata":{},"new":1}],"extra":2}`: nil,
		`{"type":"struct","fields":[{"name":"a","type":"long"}]}`:                                                 nil,
		`{"type":"struct"}`: nil,
		`{"type":"struct","fields":[{"name":"a","type":"interval day"}]}`:                    ErrUnsupported,
		`{"type":"struct","fields":[{"name":"a","type":{"type":"udt","class":"x"}}]}`:        ErrUnsupported,
		`{"type":"struct","fields":[{"name":"a","type":{"type":"cube"}}]}`:                   ErrUnsupported,
		`{"type":"struct","fields":[{"name":"a","type":"long"},{"name":"A","type":"long"}]}`: ErrSchema,
		`{"type":"struct","fields":[{"type":"long"}]}`:                                       ErrSchema,
		`{"type":"struct","fields":[{"name":"a"}]}`:                                          ErrSchema,
		`{"type":"struct","fields":[{"name":"a","type":"decimal(99,1)"}]}`:                   ErrSchema,
		`"long"`:                                ErrSchema,
		``:                                      ErrSchema,
		`{`:                                     ErrSchema,
		`[]`:                                    ErrSchema,
		`{"type":"array","elementType":"long"}`: ErrSchema,
		strings.Repeat(`{"type":"array","elementType":`, 200) + `"long"` + strings.Repeat(`}`, 200): ErrSchema,
	} {
		_, err := ParseSchema(in)
		if !errors.Is(err, want) || (want == nil) != (err == nil) {
			t.Errorf("%.80s: %v, want %v", in, err, want)
		}
	}
}

func TestSchemaFieldAnyCase(t *testing.T) {
	s := testSchema()
	if f, ok := s.Field("NAME"); !ok || f.Name != "name" {
		t.Error(f, ok)
	}
	if _, ok := s.Field("nam"); ok {
		t.Error("a part of a name is found")
	}
}

func TestSchemaFromArrowRefuses(t *testing.T) {
	a := arrow.NewSchema([]arrow.Field{{Name: "good", Type: arrow.PrimitiveTypes.Int64}, {Name: "bad", Type: arrow.PrimitiveTypes.Uint64}}, nil)
	if _, err := SchemaFromArrow(a); !errors.Is(err, ErrSchema) || !strings.Contains(err.Error(), `"bad"`) {
		t.Error(err)
	}
}

func FuzzParseSchema(f *testing.F) {
	f.Add(testSchema().JSON())
	f.Add(`{"type":"struct","fields":[{"name":"a","type":{"type":"map","keyType":"string","valueType":{"type":"array","elementType":"decimal(3,1)","containsNull":false},"valueContainsNull":true},"nullable":false,"metadata":{"delta.columnMapping.physicalName":"p","n":1e3}}]}`)
	f.Fuzz(func(t *testing.T, in string) {
		s, err := ParseSchema(in)
		if err != nil {
			return
		}
		again, err := ParseSchema(s.JSON())
		if err != nil || again.JSON() != s.JSON() {
			t.Fatalf("%q gives %s, which gives %v", in, s.JSON(), err)
		}
		_ = s.Arrow()
	})
}

func FuzzParseType(f *testing.F) {
	f.Add("struct<`a b`:int not null, c: map<string, array<decimal(3,1)>>>")
	f.Fuzz(func(t *testing.T, in string) {
		typ, err := ParseType(in)
		if err != nil {
			return
		}
		again, err := ParseType(typ.String())
		if err != nil || !SameType(typ, again) {
			t.Fatalf("%q is %s, which is %v, %v", in, typ, again, err)
		}
	})
}
