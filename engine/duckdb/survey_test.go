package duckdb

import (
	"fmt"
	"testing"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/schema"
)

// Files of one writer share what is remembered of their columns; files that differ in anything do not.
func TestFilesShareTheirShape(t *testing.T) {
	shape := func(name string, id int32, length int, legacy bool) *fileShape {
		n, err := schema.NewPrimitiveNode(name, parquet.Repetitions.Optional, parquet.Types.FixedLenByteArray, id, int32(length))
		if err != nil {
			t.Fatal(err)
		}
		g, err := schema.NewGroupNode("schema", parquet.Repetitions.Required, schema.FieldList{n}, -1)
		if err != nil {
			t.Fatal(err)
		}
		return &fileShape{root: g, legacyDates: legacy}
	}
	var c shapeCache
	distinct := map[*fileShape]bool{}
	for i := range 100 {
		key := fmt.Sprint(i)
		c.put(key, shape("a", 1, 16, false))
		distinct[c.get(key)] = true
	}
	if len(distinct) != 1 {
		t.Errorf("100 files that are alike have %d shapes", len(distinct))
	}
	for i, s := range []*fileShape{shape("b", 1, 16, false), shape("a", 2, 16, false), shape("a", 1, 8, false), shape("a", 1, 16, true)} {
		key := fmt.Sprint("other ", i)
		c.put(key, s)
		distinct[c.get(key)] = true
	}
	if len(distinct) != 5 {
		t.Errorf("%d shapes, want 5", len(distinct))
	}
}
