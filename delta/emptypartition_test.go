package delta

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/cauce-data/cauce/objstore"
)

// A table has null for the empty value of a partition column: where null is not allowed, neither is that.
func TestEmptyPartitionValuesKeepTheRules(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		typ    Type
		null   bool
		config map[string]string
		want   error
	}{
		{typ: String, want: ErrNotNull},
		{typ: Binary, want: ErrNotNull},
		{typ: String, null: true, config: map[string]string{"delta.constraints.there": "p IS NOT NULL"}, want: ErrConstraint},
		{typ: String, null: true},
	} {
		s := &Schema{Fields: []Field{{Name: "id", Type: Long, Nullable: true}, {Name: "p", Type: c.typ, Nullable: c.null}}}
		tab, err := Create(ctx, objstore.NewMemory(nil), "t", CreateOptions{Schema: s, PartitionBy: []string{"p"}, Config: c.config}, &Options{Engine: Engine{Expressions: testSQL}})
		if err != nil {
			t.Fatal(err)
		}
		for text, want := range map[string]error{`[{"id": 1, "p": "eA=="}, {"id": 2, "p": "eQ=="}]`: nil, `[{"id": 1, "p": "eA=="}, {"id": 2, "p": ""}]`: c.want} {
			b, _, err := array.RecordFromJSON(memory.DefaultAllocator, s.Arrow(), strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tab.Append(ctx, NewRows(b.Schema(), b), AppendOptions{}); !errors.Is(err, want) || want != nil && !strings.Contains(err.Error(), "row 1") {
				t.Errorf("%s, null %t, %v: %s: %v, want %v", c.typ, c.null, c.config, text, err, want)
			}
			b.Release()
		}
	}
}
