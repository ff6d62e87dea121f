package web

import (
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// A row keeps all its members, though none has a name.
func TestCellOfARow(t *testing.T) {
	member := func(typ arrow.DataType) arrow.Field { return arrow.Field{Type: typ, Nullable: true} }
	b := array.NewStructBuilder(memory.DefaultAllocator, arrow.StructOf(member(arrow.PrimitiveTypes.Int32), member(arrow.BinaryTypes.String), member(arrow.PrimitiveTypes.Int32)))
	b.Append(true)
	b.FieldBuilder(0).(*array.Int32Builder).Append(1)
	b.FieldBuilder(1).(*array.StringBuilder).Append("a")
	b.FieldBuilder(2).AppendNull()
	if got := cellText(b.NewArray(), 0); got != "(1,a,)" {
		t.Errorf("%s, want (1,a,)", got)
	}
}
