package pgwire

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/cauce-data/cauce/serve"
)

// pgType is a type of PostgreSQL as clients are told it.
type pgType struct {
	oid      uint32
	size     int16 // bytes; -1: variable
	modifier int32 // -1: none
	element  *pgType
}

var plainTypes = map[string]pgType{
	"BOOLEAN": {pgtype.BoolOID, 1, -1, nil}, "TINYINT": {pgtype.Int2OID, 2, -1, nil}, "SMALLINT": {pgtype.Int2OID, 2, -1, nil}, "UTINYINT": {pgtype.Int2OID, 2, -1, nil},
	"INTEGER": {pgtype.Int4OID, 4, -1, nil}, "USMALLINT": {pgtype.Int4OID, 4, -1, nil}, "BIGINT": {pgtype.Int8OID, 8, -1, nil}, "UINTEGER": {pgtype.Int8OID, 8, -1, nil},
	"UBIGINT": {pgtype.NumericOID, -1, -1, nil}, "HUGEINT": {pgtype.NumericOID, -1, -1, nil}, "UHUGEINT": {pgtype.NumericOID, -1, -1, nil},
	"FLOAT": {pgtype.Float4OID, 4, -1, nil}, "DOUBLE": {pgtype.Float8OID, 8, -1, nil}, "DECIMAL": {pgtype.NumericOID, -1, -1, nil}, "VARCHAR": textOf, "TEXT": textOf,
	"BLOB": {pgtype.ByteaOID, -1, -1, nil}, "DATE": {pgtype.DateOID, 4, -1, nil}, "TIME": {pgtype.TimeOID, 8, -1, nil},
	"TIMESTAMP": {pgtype.TimestampOID, 8, -1, nil}, "TIMESTAMP_S": {pgtype.TimestampOID, 8, -1, nil}, "TIMESTAMP_MS": {pgtype.TimestampOID, 8, -1, nil},
	"TIMESTAMP_NS": {pgtype.TimestampOID, 8, -1, nil}, "TIMESTAMPTZ": {pgtype.TimestamptzOID, 8, -1, nil}, "INTERVAL": {pgtype.IntervalOID, 16, -1, nil},
	"UUID": {pgtype.UUIDOID, 16, -1, nil}, "STRUCT": {pgtype.JSONOID, -1, -1, nil}, "ROW": {pgtype.RecordOID, -1, -1, nil}, "OID": {pgtype.OIDOID, 4, -1, nil}, "MAP": {pgtype.JSONOID, -1, -1, nil},
}

var textOf = pgType{pgtype.TextOID, -1, -1, nil}

// arrayOIDs gives the type of arrays of a type.
var arrayOIDs = map[uint32]uint32{
	pgtype.BoolOID: pgtype.BoolArrayOID, pgtype.Int2OID: pgtype.Int2ArrayOID, pgtype.Int4OID: pgtype.Int4ArrayOID, pgtype.Int8OID: pgtype.Int8ArrayOID,
	pgtype.NumericOID: pgtype.NumericArrayOID, pgtype.Float4OID: pgtype.Float4ArrayOID, pgtype.Float8OID: pgtype.Float8ArrayOID, pgtype.TextOID: pgtype.TextArrayOID,
	pgtype.ByteaOID: pgtype.ByteaArrayOID, pgtype.DateOID: pgtype.DateArrayOID, pgtype.TimeOID: pgtype.TimeArrayOID, pgtype.TimestampOID: pgtype.TimestampArrayOID,
	pgtype.TimestamptzOID: pgtype.TimestamptzArrayOID, pgtype.IntervalOID: pgtype.IntervalArrayOID, pgtype.JSONOID: pgtype.JSONArrayOID,
	pgtype.UUIDOID: pgtype.UUIDArrayOID, pgtype.RecordOID: pgtype.RecordArrayOID,
	pgtype.OIDOID: oidArrayOID, pgtype.NameOID: 1003, pgtype.QCharOID: 1002,
}

// typeOf gives PostgreSQL's type for one of DuckDB's.
func typeOf(duck string) pgType {
	if elem, ok := strings.CutSuffix(duck, "[]"); ok {
		if strings.HasSuffix(elem, "[]") { // PostgreSQL's arrays of arrays are rectangles, lists of lists need not be
			return plainTypes["STRUCT"]
		}
		e := typeOf(elem)
		if oid := arrayOIDs[e.oid]; oid != 0 {
			return pgType{oid, -1, -1, &e}
		}
		return plainTypes["STRUCT"]
	}
	if rest, ok := strings.CutPrefix(duck, "DECIMAL("); ok {
		var p, s int32
		if _, err := fmt.Sscanf(rest, "%d,%d)", &p, &s); err == nil {
			return pgType{pgtype.NumericOID, -1, (p<<16 | s) + 4, nil}
		}
	}
	if t, ok := plainTypes[duck]; ok {
		return t
	}
	return textOf // ENUM, BIT …
}

// typeOfArrow gives PostgreSQL's type for a member of a row, of which the worker tells no name of a type.
func typeOfArrow(t arrow.DataType) pgType {
	switch t := t.(type) {
	case *arrow.StructType:
		if unnamed(t) {
			return plainTypes["ROW"]
		}
		return plainTypes["STRUCT"]
	case *arrow.MapType:
		return plainTypes["MAP"]
	case *arrow.ListType:
		e := typeOfArrow(t.Elem())
		if oid := arrayOIDs[e.oid]; oid != 0 && e.element == nil {
			return pgType{oid, -1, -1, &e}
		}
		return plainTypes["STRUCT"]
	case *arrow.TimestampType:
		if t.TimeZone != "" {
			return plainTypes["TIMESTAMPTZ"]
		}
		return plainTypes["TIMESTAMP"]
	}
	return plainTypes[map[arrow.Type]string{
		arrow.BOOL: "BOOLEAN", arrow.INT8: "TINYINT", arrow.INT16: "SMALLINT", arrow.INT32: "INTEGER", arrow.INT64: "BIGINT", arrow.UINT8: "UTINYINT", arrow.UINT16: "USMALLINT", arrow.UINT32: "UINTEGER",
		arrow.UINT64: "UBIGINT", arrow.FLOAT32: "FLOAT", arrow.FLOAT64: "DOUBLE", arrow.DECIMAL128: "DECIMAL", arrow.DECIMAL256: "DECIMAL", arrow.BINARY: "BLOB", arrow.LARGE_BINARY: "BLOB",
		arrow.DATE32: "DATE", arrow.TIME64: "TIME", arrow.INTERVAL_MONTH_DAY_NANO: "INTERVAL", arrow.STRING: "VARCHAR", arrow.LARGE_STRING: "VARCHAR", arrow.DICTIONARY: "VARCHAR",
	}[t.ID()]]
}

// unnamed tells the type of ROW(…), whose members have no names.
func unnamed(t *arrow.StructType) bool { return t.NumFields() > 0 && t.Field(0).Name == "" }

// columnType gives the type of a result's column.
func columnType(c serve.Column) pgType {
	t := typeOf(c.Type)
	if c.Catalogue == "" {
		return t
	}
	oid, ok := serve.CatalogueType(c.Catalogue)
	if t.oid == pgtype.Int8ArrayOID && oid != int2vectorOID && oid != oidvectorOID { // the catalogue has no other arrays of so wide numbers
		return pgType{oidArrayOID, -1, -1, &pgType{pgtype.OIDOID, 4, -1, nil}}
	}
	if !ok {
		return t
	}
	switch {
	case oid == pgtype.OIDOID && t.oid == pgtype.Int8OID, oid == pgtype.XIDOID && t.oid == pgtype.Int8OID:
		return pgType{oid, 4, -1, nil}
	case oid == pgtype.NameOID && t.oid == pgtype.TextOID:
		return pgType{oid, 64, -1, nil}
	case oid == pgtype.QCharOID && t.oid == pgtype.TextOID:
		return pgType{oid, 1, -1, nil}
	case oid == regprocOID && t.oid == pgtype.TextOID:
		return pgType{oid, 4, -1, nil}
	case (oid == int2vectorOID || oid == oidvectorOID) && t.element != nil:
		return pgType{oid, -1, -1, &pgType{map[uint32]uint32{int2vectorOID: pgtype.Int2OID, oidvectorOID: pgtype.OIDOID}[oid], 2, -1, nil}}
	}
	return t
}

// Object identifiers that pgtype has no names for.
const (
	int2vectorOID = 22
	regprocOID    = 24
	oidvectorOID  = 30
	oidArrayOID   = 1028
	unknownOID    = 705
)

// parameterTypes gives DuckDB's type for the type that a client says a parameter has.
var parameterTypes = map[uint32]string{
	pgtype.BoolOID: "BOOLEAN", pgtype.Int2OID: "SMALLINT", pgtype.Int4OID: "INTEGER", pgtype.Int8OID: "BIGINT", pgtype.Float4OID: "FLOAT", pgtype.Float8OID: "DOUBLE",
	pgtype.DateOID: "DATE", pgtype.TimeOID: "TIME", pgtype.TimestampOID: "TIMESTAMP", pgtype.TimestamptzOID: "TIMESTAMPTZ", pgtype.IntervalOID: "INTERVAL",
	pgtype.ByteaOID: "BLOB", pgtype.UUIDOID: "UUID", pgtype.OIDOID: "BIGINT", pgtype.TextOID: "VARCHAR", pgtype.VarcharOID: "VARCHAR", pgtype.BPCharOID: "VARCHAR",
	pgtype.NameOID: "VARCHAR", unknownOID: "", pgtype.JSONOID: "JSON", pgtype.JSONBOID: "JSON",
	pgtype.BoolArrayOID: "BOOLEAN[]", pgtype.Int2ArrayOID: "SMALLINT[]", pgtype.Int4ArrayOID: "INTEGER[]", pgtype.Int8ArrayOID: "BIGINT[]",
	pgtype.Float4ArrayOID: "FLOAT[]", pgtype.Float8ArrayOID: "DOUBLE[]", pgtype.TextArrayOID: "VARCHAR[]", pgtype.VarcharArrayOID: "VARCHAR[]",
	pgtype.DateArrayOID: "DATE[]", pgtype.TimestampArrayOID: "TIMESTAMP[]", pgtype.TimestamptzArrayOID: "TIMESTAMPTZ[]", pgtype.NumericArrayOID: "DECIMAL(38,12)[]",
	pgtype.ByteaArrayOID: "BLOB[]", pgtype.UUIDArrayOID: "UUID[]", pgtype.TimeArrayOID: "TIME[]", pgtype.IntervalArrayOID: "INTERVAL[]",
	1003: "VARCHAR[]", oidArrayOID: "BIGINT[]", 1002: "VARCHAR[]",
}

// describedType gives DuckDB's type for a parameter of the given type whose value is not known yet.
func describedType(oid uint32) string {
	if oid == pgtype.NumericOID {
		return "DECIMAL(38,12)"
	}
	return parameterTypes[oid]
}

// parameterType gives DuckDB's type for a parameter of the given type and value. Decimals take the digits that they have and no
// more: where the common type of two decimals had more than 38 digits, DuckDB would round the other one, such as a column.
func parameterType(oid uint32, text *string) (string, error) {
	var numbers []*string
	switch {
	case oid == pgtype.NumericOID:
		numbers = []*string{text}
	case oid == pgtype.NumericArrayOID && text != nil:
		var err error
		if numbers, err = serve.ArrayItems(*text); err != nil {
			return "", err
		}
	default:
		return parameterTypes[oid], nil
	}
	typ, err := serve.NumericType(numbers...)
	if oid == pgtype.NumericArrayOID {
		typ += "[]"
	}
	return typ, err
}

// parameterText gives the text of a parameter's value.
func parameterText(m *pgtype.Map, oid uint32, format int16, value []byte) (*string, error) {
	if value == nil {
		return nil, nil
	}
	if format == pgtype.TextFormatCode || oid == pgtype.TextOID || oid == pgtype.VarcharOID || oid == pgtype.BPCharOID || oid == pgtype.NameOID || oid == pgtype.JSONOID {
		s := string(value)
		return &s, nil
	}
	t, ok := m.TypeForOID(oid)
	if !ok {
		return nil, &serve.Error{Code: serve.CodeNotSupported, Message: fmt.Sprintf("parameters of type %d are not read in binary", oid)}
	}
	if _, array := t.Codec.(*pgtype.ArrayCodec); array && len(value) >= 4 && binary.BigEndian.Uint32(value) > 1 {
		return nil, &serve.Error{Code: serve.CodeNotSupported, Message: "arrays of more than one dimension are not supported"}
	}
	v, err := t.Codec.DecodeValue(m, oid, format, value)
	if err != nil {
		return nil, &serve.Error{Code: "22P03", Message: fmt.Sprintf("parameter of type %s: %v", t.Name, err)}
	}
	out, err := m.Encode(oid, pgtype.TextFormatCode, v, nil)
	if err != nil {
		return nil, &serve.Error{Code: "22P03", Message: fmt.Sprintf("parameter of type %s: %v", t.Name, err)}
	}
	s := string(out)
	return &s, nil
}
