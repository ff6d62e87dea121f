package delta

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// TestRowsThatDoNotFitAreRefused offers rows with an unknown column, with other types and without a value that is NOT
// NULL to every way of writing. Each must say which column is wrong, and leave neither a version nor a file.
func TestRowsThatDoNotFitAreRefused(t *testing.T) {
	ctx := context.Background()
	store := tempStore(t)
	tab, err := Create(ctx, store, "items", CreateOptions{Schema: &Schema{Fields: []Field{
		{Name: "id", Type: String},
		{Name: "n", Type: Long, Nullable: true},
		{Name: "price", Type: Decimal{18, 8}, Nullable: true},
	}}, Config: map[string]string{"delta.enableDeletionVectors": "true"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, number := arrow.BinaryTypes.String, arrow.PrimitiveTypes.Int64
	// rows makes two rows; where null is set, the second has no value in its first column.
	rows := func(null bool, fields ...arrow.Field) Rows {
		sc := arrow.NewSchema(fields, nil)
		b := array.NewRecordBuilder(memory.DefaultAllocator, sc)
		defer b.Release()
		for i := range fields {
			for row := range 2 {
				switch f := b.Field(i).(type) {
				case *array.StringBuilder:
					if null && i == 0 && row == 1 {
						f.AppendNull()
					} else {
						f.Append(string(rune('a' + row)))
					}
				case *array.Int64Builder:
					f.Append(int64(row))
				case *array.Float64Builder:
					f.Append(0.5)
				}
			}
		}
		rec := b.NewRecordBatch()
		defer rec.Release()
		return NewRows(sc, rec)
	}
	field := func(name string, typ arrow.DataType) arrow.Field {
		return arrow.Field{Name: name, Type: typ, Nullable: true}
	}
	good := func() Rows { return rows(false, field("id", text), field("n", number)) }
	if _, err := tab.Append(ctx, good(), AppendOptions{}); err != nil {
		t.Fatal(err)
	}
	before := snap(t, tab)
	files := objects(t, store, "items")

	merge := MergeOptions{Key: []string{"id"}}
	ways := map[string]func(Rows) error{
		"append": func(r Rows) error { _, err := tab.Append(ctx, r, AppendOptions{}); return err },
		"overwrite": func(r Rows) error {
			_, err := tab.Overwrite(ctx, r, OverwriteOptions{})
			return err
		},
		"merge": func(r Rows) error { _, err := tab.Merge(ctx, r, merge); return err },
	}
	for way, write := range ways {
		for _, c := range []struct {
			name, column string
			rows         Rows
			want         error
		}{
			{"unknown column", "colour", rows(false, field("id", text), field("colour", text)), ErrSchemaMismatch},
			{"text for a number", "n", rows(false, field("id", text), field("n", text)), ErrSchemaMismatch},
			{"binary fractions for a decimal", "price", rows(false, field("id", text), field("price", arrow.PrimitiveTypes.Float64)), ErrSchemaMismatch},
			{"null in a NOT NULL column", "id", rows(true, field("id", text), field("n", number)), ErrNotNull},
			{"no NOT NULL column", "id", rows(false, field("n", number)), ErrNotNull},
		} {
			err := write(c.rows)
			if way == "merge" && c.column == "id" && err != nil {
				continue // the key: what a merge says of it is its own matter, as long as it refuses
			}
			if !errors.Is(err, c.want) {
				t.Errorf("%s, %s: %v", way, c.name, err)
			}
		}
		after := snap(t, tab)
		if after.Version() != before.Version() {
			t.Fatalf("%s: version %d after refused rows, %d before", way, after.Version(), before.Version())
		}
		if got := objects(t, store, "items"); !slices.Equal(got, files) {
			t.Errorf("%s: files %v after refused rows, %v before", way, got, files)
		}
	}
	if err := ways["merge"](good()); err != nil {
		t.Errorf("good rows are refused too: %v", err)
	}
}
