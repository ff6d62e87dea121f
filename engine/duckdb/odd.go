package duckdb

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/cauce-data/cauce/delta"
)

// oddFiles reads files with delta's own reader into a temporary table and gives the SQL that selects from it. Variants
// become JSON.
func (s *scan) oddFiles(ctx context.Context, e *Engine, info delta.TableInfo, files []delta.File, group []int, columns []scanColumn, o scanOptions) (string, error) {
	members := make([]delta.File, len(group))
	for i, at := range group {
		members[i] = files[at]
		if o.Deleted {
			members[i].Deleted = nil
		}
	}
	names := make([]string, len(columns))
	var fields []arrow.Field
	for i, c := range columns {
		names[i] = c.field.Name
		fields = append(fields, arrow.Field{Name: c.field.Name, Type: jsonType(c.field.Type), Nullable: true})
	}
	fields = append(fields, arrow.Field{Name: fileIndexColumn, Type: arrow.PrimitiveTypes.Int32}, arrow.Field{Name: rowColumn, Type: arrow.PrimitiveTypes.Int64})
	schema := arrow.NewSchema(fields, nil)
	rows := delta.PureGo().Reader.Read(ctx, info, members, delta.ReadOptions{Columns: names, WithPosition: true})
	stream := newBatchStream(ctx, schema, func(ctx context.Context, send func(arrow.RecordBatch) bool) error {
		for b, err := range rows {
			if err != nil {
				return err
			}
			out, err := jsonBatch(schema, columns, b)
			if err != nil {
				return err
			}
			if !send(out) {
				return nil
			}
		}
		return nil
	})
	var sel, items []string
	for _, c := range columns {
		sel = append(sel, fmt.Sprintf("CAST(%[1]s AS %[2]s) AS %[1]s", quoteName(c.field.Name), sqlType(c.field.Type, false)))
		items = append(items, quoteName(c.field.Name))
	}
	sel = append(sel, fileIndexColumn, rowColumn)
	name, view := e.name("cauce_odd_"), e.name("cauce_odd_in_")
	s.temps = append(s.temps, name)
	err := func() error {
		release, err := s.conn.register(stream, view)
		if err != nil {
			return err
		}
		defer release()
		return s.conn.exec(ctx, fmt.Sprintf("CREATE TEMP TABLE %s AS SELECT %s FROM %s", quoteName(name), strings.Join(sel, ", "), quoteName(view)))
	}()
	if streamErr := stream.stop(); streamErr != nil {
		err = streamErr
	}
	if err != nil {
		return "", err
	}
	from := quoteName(name)
	if s.ship != nil {
		if from, err = s.ship.export(ctx, e, s.conn, name); err != nil {
			return "", err
		}
	}
	if o.Position {
		items = append(items, fmt.Sprintf("CAST(%s[%s::BIGINT + 1] AS INTEGER) AS %s", indexList(group), fileIndexColumn, fileIndexColumn), rowColumn)
	}
	if len(items) == 0 {
		items = []string{"NULL"}
	}
	return "SELECT " + strings.Join(items, ", ") + " FROM " + from, nil
}

// hasVariant reports whether a type is or holds a variant.
func hasVariant(t delta.Type) bool {
	switch t := t.(type) {
	case *delta.Struct:
		for _, f := range t.Fields {
			if hasVariant(f.Type) {
				return true
			}
		}
	case *delta.Array:
		return hasVariant(t.Element)
	case *delta.Map:
		return hasVariant(t.Key) || hasVariant(t.Value)
	}
	return t == delta.Variant
}

// variantsAmong reports whether one of the columns of a table (nil: any) holds variants, which pass between delta and
// an engine as the protocol's struct and not as JSON.
func variantsAmong(table delta.TableInfo, columns []string) bool {
	if columns == nil {
		columns = table.Schema.Names()
	}
	for _, n := range columns {
		if f, ok := table.Schema.Field(n); ok && hasVariant(f.Type) {
			return true
		}
	}
	return false
}

// jsonType is the Arrow type of a Delta type with text in the place of variants, and of columns without a type.
func jsonType(t delta.Type) arrow.DataType {
	switch t := t.(type) {
	case *delta.Struct:
		fields := make([]arrow.Field, len(t.Fields))
		for i, f := range t.Fields {
			fields[i] = arrow.Field{Name: f.Name, Type: jsonType(f.Type), Nullable: true}
		}
		return arrow.StructOf(fields...)
	case *delta.Array:
		return arrow.ListOf(jsonType(t.Element))
	case *delta.Map:
		return arrow.MapOf(jsonType(t.Key), jsonType(t.Value))
	}
	if t == delta.Variant || t == delta.Void {
		return arrow.BinaryTypes.String
	}
	return delta.ArrowType(t)
}

func jsonBatch(schema *arrow.Schema, columns []scanColumn, b arrow.RecordBatch) (arrow.RecordBatch, error) {
	cols := make([]arrow.Array, b.NumCols())
	var made []arrow.Array
	defer func() {
		for _, a := range made {
			a.Release()
		}
	}()
	for i := range cols {
		cols[i] = b.Column(i)
		if i >= len(columns) {
			continue
		}
		a, err := jsonArray(columns[i].field.Type, cols[i])
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", columns[i].field.Name, err)
		}
		made = append(made, a)
		cols[i] = a
	}
	return array.NewRecordBatch(schema, cols, b.NumRows()), nil
}

// jsonArray gives an array of delta's reader the type of jsonType. The caller releases it.
func jsonArray(t delta.Type, a arrow.Array) (arrow.Array, error) {
	want := jsonType(t)
	rebuilt := func(children ...arrow.ArrayData) arrow.Array {
		d := a.Data()
		out := array.NewData(want, d.Len(), d.Buffers(), children, d.NullN(), d.Offset())
		defer out.Release()
		return array.MakeFromData(out)
	}
	child := func(t delta.Type, d arrow.ArrayData) (arrow.Array, error) {
		raw := array.MakeFromData(d)
		defer raw.Release()
		return jsonArray(t, raw)
	}
	switch t := t.(type) {
	case *delta.Struct:
		children := make([]arrow.ArrayData, len(t.Fields))
		for i, f := range t.Fields {
			c, err := child(f.Type, a.Data().Children()[i])
			if err != nil {
				return nil, err
			}
			defer c.Release()
			children[i] = c.Data()
		}
		return rebuilt(children...), nil
	case *delta.Array:
		c, err := child(t.Element, a.Data().Children()[0])
		if err != nil {
			return nil, err
		}
		defer c.Release()
		return rebuilt(c.Data()), nil
	case *delta.Map:
		entries := a.Data().Children()[0]
		kv := make([]arrow.ArrayData, 2)
		for i, et := range []delta.Type{t.Key, t.Value} {
			c, err := child(et, entries.Children()[i])
			if err != nil {
				return nil, err
			}
			defer c.Release()
			kv[i] = c.Data()
		}
		ed := array.NewData(want.(*arrow.MapType).Elem(), entries.Len(), entries.Buffers(), kv, entries.NullN(), entries.Offset())
		defer ed.Release()
		return rebuilt(ed), nil
	}
	switch t {
	case delta.Void:
		return array.MakeArrayOfNull(memory.DefaultAllocator, want, a.Len()), nil
	case delta.Variant:
		st, ok := a.(*array.Struct)
		if !ok || st.NumField() != 2 {
			return nil, fmt.Errorf("BUG: a variant as %s", a.DataType())
		}
		meta, ok1 := st.Field(0).(*array.Binary)
		value, ok2 := st.Field(1).(*array.Binary)
		if !ok1 || !ok2 {
			return nil, errors.New("BUG: a variant without its members")
		}
		b := array.NewStringBuilder(memory.DefaultAllocator)
		defer b.Release()
		for i := range st.Len() {
			if st.IsNull(i) {
				b.AppendNull()
				continue
			}
			text, err := delta.VariantJSON(meta.Value(i), value.Value(i))
			if err != nil {
				return nil, err
			}
			b.Append(text)
		}
		return b.NewArray(), nil
	}
	a.Retain()
	return a, nil
}
