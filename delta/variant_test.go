package delta

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// TestShreddedVariantMembersHaveAnyName puts objects together whose members are called like the parts of a shredded variant,
// at every depth, with the members of groups required or optional as writers differ.
func TestShreddedVariantMembersHaveAnyName(t *testing.T) {
	meta := base64.StdEncoding.EncodeToString([]byte("\x01\x04\x00\x08\x0c\x11\x1c" + "metadata" + "name" + "value" + "typed_value"))
	group := func(nullable bool, typed arrow.DataType) arrow.DataType {
		return arrow.StructOf(arrow.Field{Name: "value", Type: arrow.BinaryTypes.Binary, Nullable: true}, arrow.Field{Name: "typed_value", Type: typed, Nullable: nullable})
	}
	for _, nullable := range []bool{true, false} {
		member := func(name string, typed arrow.DataType) arrow.Field {
			return arrow.Field{Name: name, Type: group(nullable, typed), Nullable: nullable}
		}
		object := arrow.StructOf(member("metadata", arrow.FixedWidthTypes.Boolean), member("name", arrow.BinaryTypes.String),
			member("typed_value", arrow.ListOfField(arrow.Field{Name: "element", Nullable: nullable, Type: group(nullable, arrow.StructOf(member("value", arrow.PrimitiveTypes.Int64)))})),
			member("value", arrow.PrimitiveTypes.Int64))
		shredded := arrow.StructOf(arrow.Field{Name: "metadata", Type: arrow.BinaryTypes.Binary, Nullable: nullable},
			arrow.Field{Name: "value", Type: arrow.BinaryTypes.Binary, Nullable: true}, arrow.Field{Name: "typed_value", Type: object, Nullable: true})
		part := func(json string) string { return fmt.Sprintf(`{"value":null,"typed_value":%s}`, json) }
		row := fmt.Sprintf(`[{"metadata":%q,"value":null,"typed_value":{"metadata":%s,"name":%s,"typed_value":%s,"value":%s}}, null, {"metadata":%q,"value":%q,"typed_value":null}]`,
			meta, part("true"), part(`"a"`), part("["+part(`{"value":`+part("8")+"}")+"]"), part("7"), meta, base64.StdEncoding.EncodeToString([]byte{12, 5}))
		arr, _, err := array.FromJSON(memory.DefaultAllocator, shredded, strings.NewReader(row))
		if err != nil {
			t.Fatal(err)
		}
		got, err := toVariant(context.Background(), arr.(*array.Struct), ArrowType(Variant))
		if err != nil {
			t.Fatal(err)
		}
		var texts []string
		s := got.(*array.Struct)
		for i := range s.Len() {
			if s.IsNull(i) {
				texts = append(texts, "-")
				continue
			}
			text, err := VariantJSON(s.Field(0).(*array.Binary).Value(i), s.Field(1).(*array.Binary).Value(i))
			if err != nil {
				t.Fatal(err)
			}
			texts = append(texts, text)
		}
		if got, want := strings.Join(texts, " "), `{"metadata":true,"name":"a","typed_value":[{"value":8}],"value":7} - 5`; got != want {
			t.Errorf("optional %v: %s, want %s", nullable, got, want)
		}
		got.Release()
		arr.Release()
	}
}
