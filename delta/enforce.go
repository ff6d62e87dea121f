package delta

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// ErrSchemaMismatch says that rows do not fit the table's schema: an unknown column, or one of another type.
var ErrSchemaMismatch = errors.New("rows do not fit the table's schema")

// ErrNotNull says that a row has a null in a column that is NOT NULL (see NotNullError).
var ErrNotNull = errors.New("null in a NOT NULL column")

// NotNullError says where a NOT NULL column has a null. errors.Is finds ErrNotNull.
type NotNullError struct {
	Column string
	Row    int64 // ordinal in the rows that were to be written, from 0; -1 if the column is missing altogether
}

func (e *NotNullError) Error() string {
	if e.Row < 0 {
		return fmt.Sprintf("column %q is NOT NULL, but the rows do not have it", e.Column)
	}
	return fmt.Sprintf("column %q is NOT NULL, but row %d has a null", e.Column, e.Row)
}

// Is finds ErrNotNull.
func (e *NotNullError) Is(target error) bool { return target == ErrNotNull }

// fit checks rows against a table's schema and returns them in its form: columns named as the table names them, types
// as its Arrow schema has them. Rows that have that form already are returned as they are, so that an engine can
// recognise its own. Columns that the rows lack must be nullable; the FileWriter fills them with nulls; those that are
// generated or have a default are computed before. grown is the schema that the table must get for the rows, nil if its
// own will do: new columns, and wider types, as far as can says; else they are an error.
func fit(rows Rows, schema *Schema, can growth) (out Rows, grown *Schema, err error) {
	to := slices.Clone(schema.Fields)
	changed := false
	src := rows.Schema()
	have := make(map[string]bool, src.NumFields())
	names := make([]string, src.NumFields())
	types := make([]Type, src.NumFields())
	same := true
	for i, f := range src.Fields() {
		tf, ok := schema.Field(f.Name)
		if !ok {
			if !can.add {
				return nil, nil, fmt.Errorf("%w: the table has no column %q", ErrSchemaMismatch, f.Name)
			}
			t, err := TypeFromArrow(f.Type)
			if err != nil {
				return nil, nil, fmt.Errorf("column %q: %w", f.Name, err)
			}
			if t == Void {
				return nil, nil, fmt.Errorf("%w: column %q has no type", ErrSchemaMismatch, f.Name)
			}
			tf = Field{Name: f.Name, Type: t, Nullable: true}
			to, changed = append(to, tf), true
		}
		if have[tf.Name] {
			return nil, nil, fmt.Errorf("%w: column %q occurs twice", ErrSchemaMismatch, f.Name)
		}
		have[tf.Name] = true
		if !canHold(tf.Type, f.Type) && can.widen {
			if at, err := TypeFromArrow(f.Type); err == nil {
				if wide, ok := widenFor(tf.Type, at); ok {
					tf.Type, changed = wide, true
					to[schema.Index(tf.Name)].Type = wide
				}
			}
		}
		if !canHold(tf.Type, f.Type) {
			return nil, nil, fmt.Errorf("%w: column %q is %s, the rows have %s", ErrSchemaMismatch, tf.Name, tf.Type, f.Type)
		}
		names[i], types[i] = tf.Name, tf.Type
		same = same && tf.Name == f.Name && arrow.TypeEqual(f.Type, ArrowType(tf.Type))
	}
	for _, f := range schema.Fields {
		if !f.Nullable && !have[f.Name] && !hasRule(f) {
			return nil, nil, &NotNullError{Column: f.Name, Row: -1}
		}
	}
	if changed {
		grown = &Schema{Fields: to}
	}
	if same {
		return rows, grown, nil
	}
	fields := make([]arrow.Field, len(names))
	for i := range fields {
		fields[i] = arrow.Field{Name: names[i], Type: ArrowType(types[i]), Nullable: src.Field(i).Nullable}
	}
	return &fittedRows{rows: rows, schema: arrow.NewSchema(fields, nil), types: types}, grown, nil
}

// canHold reports whether values of an Arrow type can be stored in a column without a cast that could lose anything.
// Which values fit is checked when they are read.
func canHold(t Type, a arrow.DataType) bool {
	if arrow.TypeEqual(a, ArrowType(t)) || a.ID() == arrow.NULL {
		return true
	}
	if d, ok := a.(*arrow.DictionaryType); ok {
		return canHold(t, d.ValueType)
	}
	switch t := t.(type) {
	case *Struct:
		s, ok := a.(*arrow.StructType)
		if !ok {
			return false
		}
		found := 0
		for _, f := range t.Fields {
			j := mapNone.find(s.Fields(), f)
			if j < 0 {
				if !f.Nullable {
					return false
				}
				continue
			}
			found++
			if !canHold(f.Type, s.Field(j).Type) {
				return false
			}
		}
		return found == s.NumFields()
	case *Array:
		l, ok := a.(arrow.ListLikeType)
		if _, isMap := a.(*arrow.MapType); isMap {
			return false
		}
		return ok && canHold(t.Element, l.Elem())
	case *Map:
		m, ok := a.(*arrow.MapType)
		return ok && canHold(t.Key, m.KeyType()) && canHold(t.Value, m.ItemType())
	case Decimal:
		d, ok := a.(arrow.DecimalType)
		return ok && int(d.GetScale()) <= t.S && int(d.GetPrecision()-d.GetScale()) <= t.P-t.S
	case Primitive:
		at, err := TypeFromArrow(a)
		if err != nil {
			return false
		}
		if at == t {
			return true // another layout of the same type: large strings, other time units
		}
		rank := map[Type]int{Byte: 1, Short: 2, Integer: 3, Long: 4}
		if rank[t] > 0 && rank[at] > 0 {
			return rank[at] <= rank[t]
		}
		return t == Double && at == Float
	}
	return false
}

// fittedRows are rows converted to a table's types as they are read.
type fittedRows struct {
	rows   Rows
	schema *arrow.Schema
	types  []Type
}

func (r *fittedRows) Schema() *arrow.Schema { return r.schema }
func (r *fittedRows) NumRows() int64        { return r.rows.NumRows() }

func (r *fittedRows) UniqueBy(columns []string) bool {
	k, ok := r.rows.(KeyedRows)
	return ok && k.UniqueBy(columns)
}

func (r *fittedRows) Read(ctx context.Context, columns []string, ordinals *roaring64.Bitmap) iter.Seq2[arrow.RecordBatch, error] {
	return func(yield func(arrow.RecordBatch, error) bool) {
		index, schema, err := projection(r.schema, columns)
		if err != nil {
			yield(nil, err)
			return
		}
		inner := make([]string, len(index))
		for i, j := range index {
			inner[i] = r.rows.Schema().Field(j).Name
		}
		for b, err := range r.rows.Read(ctx, inner, ordinals) {
			if err != nil {
				yield(nil, err)
				return
			}
			out, err := r.convert(ctx, b, schema, index)
			if err != nil {
				yield(nil, err)
				return
			}
			ok := yield(out, nil)
			out.Release()
			if !ok {
				return
			}
		}
	}
}

func (r *fittedRows) convert(ctx context.Context, b arrow.RecordBatch, schema *arrow.Schema, index []int) (arrow.RecordBatch, error) {
	cols := make([]arrow.Array, len(index))
	defer func() {
		for _, c := range cols {
			if c != nil {
				c.Release()
			}
		}
	}()
	for i, j := range index {
		c, err := mapNone.toType(ctx, b.Column(i), r.types[j])
		if err != nil {
			return nil, fmt.Errorf("column %q: %w", schema.Field(i).Name, err)
		}
		cols[i] = c
	}
	return array.NewRecordBatch(schema, cols, b.NumRows()), nil
}

// checkNotNull makes sure that no written file holds a null in a NOT NULL column. The writer's statistics answer for
// almost every column, so the rows are not read again; where they say nothing, or say there is one, the column is.
func checkNotNull(ctx context.Context, rows Rows, skip *roaring64.Bitmap, schema *Schema, partitionBy []string, files []WrittenFile) error {
	for _, f := range schema.Fields {
		if f.Nullable || fieldIndex(rows.Schema(), f.Name) < 0 {
			continue
		}
		known := true
		for _, w := range files {
			if slices.Contains(partitionBy, f.Name) {
				if v, ok := w.PartitionValues[f.PhysicalName()]; !ok || v == nil {
					known = false
				}
				continue
			}
			n, ok := w.Stats.NullCount[f.PhysicalName()].(int64)
			if !ok || n != 0 {
				known = false
				break
			}
		}
		if known {
			continue
		}
		row, err := firstNull(ctx, rows, skip, f.Name, slices.Contains(partitionBy, f.Name))
		if err != nil {
			return err
		}
		if row >= 0 {
			return &NotNullError{Column: f.Name, Row: row}
		}
	}
	return nil
}

// checkNested makes sure that no row has a null where a type inside of its columns does not allow one: in a field of a
// struct that is there, as an element or as a value. Files have no statistics of these, so such columns are read.
func checkNested(ctx context.Context, rows Rows, skip *roaring64.Bitmap, schema *Schema) error {
	var columns []string
	var types []Type
	for _, f := range schema.Fields {
		if fieldIndex(rows.Schema(), f.Name) >= 0 && forbidsNulls(f.Type) {
			columns, types = append(columns, f.Name), append(types, f.Type)
		}
	}
	if len(columns) == 0 {
		return nil
	}
	var at int64
	for b, err := range rows.Read(ctx, columns, nil) {
		if err != nil {
			return err
		}
		for c, col := range b.Columns() {
			for i := range col.Len() {
				if col.IsNull(i) || skip != nil && skip.Contains(uint64(at+int64(i))) {
					continue
				}
				if path, found := nullInside(col, types[c], i); found {
					return &NotNullError{Column: columns[c] + path, Row: at + int64(i)}
				}
			}
		}
		at += b.NumRows()
	}
	return nil
}

// forbidsNulls reports whether something inside of a type must not be null.
func forbidsNulls(t Type) bool {
	switch t := t.(type) {
	case *Struct:
		return slices.ContainsFunc(t.Fields, func(f Field) bool { return !f.Nullable || forbidsNulls(f.Type) })
	case *Array:
		return !t.ContainsNull || forbidsNulls(t.Element)
	case *Map:
		return !t.ValueContainsNull || forbidsNulls(t.Key) || forbidsNulls(t.Value)
	}
	return false
}

// nullInside finds a null that the type forbids inside of a value that is not null itself.
func nullInside(a arrow.Array, t Type, i int) (path string, found bool) {
	each := func(values arrow.Array, name string, nullable bool, inner Type, from, to int64) (string, bool) {
		if nullable && !forbidsNulls(inner) {
			return "", false
		}
		for j := int(from); j < int(to); j++ {
			if values.IsNull(j) {
				if !nullable {
					return name, true
				}
			} else if path, found := nullInside(values, inner, j); found {
				return name + path, true
			}
		}
		return "", false
	}
	switch t := t.(type) {
	case *Struct:
		st, ok := a.(*array.Struct)
		if !ok {
			return "", false
		}
		members := st.DataType().(*arrow.StructType)
		for _, f := range t.Fields {
			k, there := members.FieldIdx(f.Name)
			if !there {
				if !f.Nullable {
					return "." + f.Name, true
				}
				continue
			}
			if path, found := each(st.Field(k), "."+f.Name, f.Nullable, f.Type, int64(i), int64(i)+1); found {
				return path, true
			}
		}
	case *Array:
		if l, ok := a.(array.ListLike); ok {
			from, to := l.ValueOffsets(i)
			return each(l.ListValues(), ".element", t.ContainsNull, t.Element, from, to)
		}
	case *Map:
		if m, ok := a.(*array.Map); ok {
			from, to := m.ValueOffsets(i)
			if path, found := each(m.Keys(), ".key", true, t.Key, from, to); found { // Arrow has no null keys
				return path, true
			}
			return each(m.Items(), ".value", t.ValueContainsNull, t.Value, from, to)
		}
	}
	return "", false
}

// firstNull is the first row with a null in a column, or with what a partition column has null for; -1: none.
func firstNull(ctx context.Context, rows Rows, skip *roaring64.Bitmap, column string, partition bool) (int64, error) {
	var at int64
	for b, err := range rows.Read(ctx, []string{column}, nil) {
		if err != nil {
			return -1, err
		}
		c := b.Column(0)
		if partition {
			c = emptyAsNull(c)
		}
		if c.NullN() > 0 {
			for i := range c.Len() {
				if c.IsNull(i) && (skip == nil || !skip.Contains(uint64(at+int64(i)))) {
					return at + int64(i), nil
				}
			}
		}
		at += b.NumRows()
	}
	return -1, nil
}

// nullColumn is a column of nulls.
func nullColumn(t Type, n int) arrow.Array {
	return array.MakeArrayOfNull(memory.DefaultAllocator, ArrowType(t), n)
}

// emptyAsNull is a partition column as a table has it: the empty value is null (PROTOCOL.md, "Partition Value Serialization").
func emptyAsNull(a arrow.Array) arrow.Array {
	type texts interface {
		arrow.Array
		ValueLen(i int) int
	}
	v, ok := a.(texts)
	empty := func(i int) bool { return v.IsValid(i) && v.ValueLen(i) == 0 }
	some := false
	for i := 0; ok && !some && i < a.Len(); i++ {
		some = empty(i)
	}
	if !some {
		return a
	}
	b := array.NewBuilder(memory.DefaultAllocator, a.DataType())
	defer b.Release()
	for i := range a.Len() {
		if a.IsNull(i) || empty(i) {
			b.AppendNull()
			continue
		}
		switch b := b.(type) {
		case *array.StringBuilder:
			b.Append(a.(*array.String).Value(i))
		case *array.BinaryBuilder:
			b.Append(a.(*array.Binary).Value(i))
		default:
			return a
		}
	}
	return b.NewArray()
}
