package flightsql

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight"

	"github.com/cauce-data/cauce/serve"
	"github.com/cauce-data/cauce/serve/sqltext"
)

// parameterTypes gives Arrow's type for DuckDB's name of a parameter's type.
var parameterTypes = map[string]arrow.DataType{
	"BOOLEAN": arrow.FixedWidthTypes.Boolean, "TINYINT": arrow.PrimitiveTypes.Int8, "SMALLINT": arrow.PrimitiveTypes.Int16, "INTEGER": arrow.PrimitiveTypes.Int32,
	"BIGINT": arrow.PrimitiveTypes.Int64, "UTINYINT": arrow.PrimitiveTypes.Uint8, "USMALLINT": arrow.PrimitiveTypes.Uint16, "UINTEGER": arrow.PrimitiveTypes.Uint32,
	"UBIGINT": arrow.PrimitiveTypes.Uint64, "FLOAT": arrow.PrimitiveTypes.Float32, "DOUBLE": arrow.PrimitiveTypes.Float64, "DATE": arrow.FixedWidthTypes.Date32,
	"TIME": arrow.FixedWidthTypes.Time64us, "TIMESTAMP": &arrow.TimestampType{Unit: arrow.Microsecond}, "TIMESTAMPTZ": &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"},
	"BLOB": arrow.BinaryTypes.Binary, "DECIMAL": &arrow.Decimal128Type{Precision: 38, Scale: 12},
}

// parameterType is parameterTypes with text for what it lacks: texts become anything.
func parameterType(duck string) arrow.DataType {
	if t, ok := parameterTypes[duck]; ok {
		return t
	}
	if elem, ok := strings.CutSuffix(duck, "[]"); ok {
		return arrow.ListOf(parameterType(elem))
	}
	return arrow.BinaryTypes.String
}

// numbered writes ?, of which the protocol knows no numbers, as $1, $2 ….
func numbered(st *sqltext.Statement) (*sqltext.Statement, error) {
	n := 0
	sql := st.Replace(func(i int) (string, bool) {
		if st.Text(i) != "?" {
			return "", false
		}
		n++
		return "$" + strconv.Itoa(n), true
	})
	if n == 0 {
		return st, nil
	}
	if parameters(st) > 0 {
		return nil, &serve.Error{Code: serve.CodeParameter, Message: "parameters are either all ? or all $1, $2 …"}
	}
	return sqltext.One(sql), nil
}

// parameters is the greatest number of a parameter of a statement.
func parameters(st *sqltext.Statement) (most int) {
	for i, t := range st.Tokens {
		if t.Kind == sqltext.Param {
			n, _ := strconv.Atoi(st.Text(i)[1:]) // what is beyond an int is beyond what is bound, too
			most = max(most, n)
		}
	}
	return most
}

// bound reads the values of parameters: the one row of what a client sends.
func bound(r flight.MessageReader) ([]serve.Param, error) {
	var out []serve.Param
	rows := int64(0)
	for r.Next() {
		b := r.RecordBatch()
		if rows += b.NumRows(); rows > 1 {
			return nil, &serve.Error{Code: serve.CodeNotSupported, Message: "a query takes one set of parameters; run it once for each"}
		}
		if b.NumRows() == 0 {
			continue
		}
		for i, c := range b.Columns() {
			p, err := param(c)
			if err != nil {
				return nil, fmt.Errorf("parameter $%d: %w", i+1, err)
			}
			out = append(out, p)
		}
	}
	return out, r.Err()
}

// param gives the first value of an array as text, with DuckDB's name of its type.
func param(a arrow.Array) (serve.Param, error) {
	typ, err := duckType(a.DataType())
	if err != nil {
		return serve.Param{}, err
	}
	p := serve.Param{Type: typ}
	if isNull(a, 0) {
		return p, nil
	}
	text, err := valueText(a, 0)
	p.Text = &text
	return p, err
}

// isNull tells a null also where the array itself does not: in arrays of nothing else, and behind an index.
func isNull(a arrow.Array, i int) bool {
	switch a := a.(type) {
	case *array.Null:
		return true
	case *array.Dictionary:
		return a.IsNull(i) || isNull(a.Dictionary(), a.GetValueIndex(i))
	case array.ExtensionArray:
		return isNull(a.Storage(), i)
	}
	return a.IsNull(i)
}

// duckType gives DuckDB's name of a type; "" of one that says nothing.
func duckType(t arrow.DataType) (string, error) {
	switch t := t.(type) {
	case *arrow.NullType:
		return "", nil
	case *arrow.Decimal128Type:
		return fmt.Sprintf("DECIMAL(%d,%d)", t.Precision, t.Scale), nil
	case *arrow.TimestampType:
		if t.TimeZone != "" {
			return "TIMESTAMPTZ", nil
		}
		return "TIMESTAMP", nil
	case *arrow.ListType:
		elem, err := duckType(t.Elem())
		if elem == "" { // of nulls
			elem = "VARCHAR"
		}
		return elem + "[]", err
	case *arrow.DictionaryType:
		return duckType(t.ValueType)
	case arrow.ExtensionType:
		return duckType(t.StorageType())
	}
	names := map[arrow.Type]string{
		arrow.BOOL: "BOOLEAN", arrow.INT8: "TINYINT", arrow.INT16: "SMALLINT", arrow.INT32: "INTEGER", arrow.INT64: "BIGINT", arrow.UINT8: "UTINYINT", arrow.UINT16: "USMALLINT",
		arrow.UINT32: "UINTEGER", arrow.UINT64: "UBIGINT", arrow.FLOAT32: "FLOAT", arrow.FLOAT64: "DOUBLE", arrow.STRING: "VARCHAR", arrow.LARGE_STRING: "VARCHAR",
		arrow.STRING_VIEW: "VARCHAR", arrow.BINARY: "BLOB", arrow.LARGE_BINARY: "BLOB", arrow.DATE32: "DATE", arrow.DATE64: "DATE", arrow.TIME32: "TIME", arrow.TIME64: "TIME",
	}
	if name := names[t.ID()]; name != "" {
		return name, nil
	}
	return "", &serve.Error{Code: serve.CodeNotSupported, Message: fmt.Sprintf("values of type %s are not taken", t)}
}

const timeForm = "2006-01-02 15:04:05.999999999"

// valueText gives a value that is not null as DuckDB reads it.
func valueText(a arrow.Array, i int) (string, error) {
	switch a := a.(type) {
	case *array.String:
		return a.Value(i), nil
	case *array.LargeString:
		return a.Value(i), nil
	case *array.StringView:
		return a.Value(i), nil
	case *array.Binary:
		return `\x` + hex.EncodeToString(a.Value(i)), nil
	case *array.LargeBinary:
		return `\x` + hex.EncodeToString(a.Value(i)), nil
	case *array.Timestamp:
		t := a.DataType().(*arrow.TimestampType)
		zone := ""
		if t.TimeZone != "" {
			zone = "+00"
		}
		return a.Value(i).ToTime(t.Unit).UTC().Format(timeForm) + zone, nil
	case *array.Float64:
		return strconv.FormatFloat(a.Value(i), 'g', -1, 64), nil
	case *array.Float32:
		return strconv.FormatFloat(float64(a.Value(i)), 'g', -1, 32), nil
	case *array.Decimal128:
		return a.Value(i).ToString(a.DataType().(*arrow.Decimal128Type).Scale), nil
	case *array.Dictionary:
		return valueText(a.Dictionary(), a.GetValueIndex(i))
	case array.ExtensionArray:
		return valueText(a.Storage(), i)
	case *array.List:
		from, to := a.ValueOffsets(i)
		items := make([]string, 0, to-from)
		for j := from; j < to; j++ {
			if isNull(a.ListValues(), int(j)) {
				items = append(items, "NULL")
				continue
			}
			item, err := valueText(a.ListValues(), int(j))
			if err != nil {
				return "", err
			}
			items = append(items, `"`+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(item)+`"`)
		}
		return "{" + strings.Join(items, ",") + "}", nil // the gate reads arrays as PostgreSQL writes them
	}
	return a.ValueStr(i), nil
}
