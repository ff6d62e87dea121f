package pgwire

import (
	"encoding/binary"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/cauce-data/cauce/serve"
	"github.com/cauce-data/cauce/serve/pgcatalog"
)

// typeOfArrow gives PostgreSQL's type for a member of a row, of which the worker tells no name of a type.
func typeOfArrow(t arrow.DataType) pgcatalog.Type {
	switch t := t.(type) {
	case *arrow.StructType:
		if unnamed(t) {
			return pgcatalog.TypeOf("ROW")
		}
		return pgcatalog.TypeOf("STRUCT")
	case *arrow.MapType:
		return pgcatalog.TypeOf("MAP")
	case *arrow.ListType:
		e := typeOfArrow(t.Elem())
		if oid := pgcatalog.ArrayOID(e.OID); oid != 0 && e.Element == nil {
			return pgcatalog.Type{OID: oid, Size: -1, Modifier: -1, Element: &e}
		}
		return pgcatalog.TypeOf("STRUCT")
	case *arrow.TimestampType:
		if t.TimeZone != "" {
			return pgcatalog.TypeOf("TIMESTAMPTZ")
		}
		return pgcatalog.TypeOf("TIMESTAMP")
	}
	return pgcatalog.TypeOf(map[arrow.Type]string{
		arrow.BOOL: "BOOLEAN", arrow.INT8: "TINYINT", arrow.INT16: "SMALLINT", arrow.INT32: "INTEGER", arrow.INT64: "BIGINT", arrow.UINT8: "UTINYINT", arrow.UINT16: "USMALLINT", arrow.UINT32: "UINTEGER",
		arrow.UINT64: "UBIGINT", arrow.FLOAT32: "FLOAT", arrow.FLOAT64: "DOUBLE", arrow.DECIMAL128: "DECIMAL", arrow.DECIMAL256: "DECIMAL", arrow.BINARY: "BLOB", arrow.LARGE_BINARY: "BLOB",
		arrow.DATE32: "DATE", arrow.TIME64: "TIME", arrow.INTERVAL_MONTH_DAY_NANO: "INTERVAL", arrow.STRING: "VARCHAR", arrow.LARGE_STRING: "VARCHAR", arrow.DICTIONARY: "VARCHAR",
	}[t.ID()])
}

// unnamed tells the type of ROW(…), whose members have no names.
func unnamed(t *arrow.StructType) bool { return t.NumFields() > 0 && t.Field(0).Name == "" }

// columnType gives the type of a result's column.
func columnType(c serve.Column) pgcatalog.Type {
	t := pgcatalog.TypeOf(c.Type)
	if c.Catalogue == "" {
		return t
	}
	oid, ok := serve.CatalogueType(c.Catalogue)
	if t.OID == pgtype.Int8ArrayOID && oid != int2vectorOID && oid != oidvectorOID { // the catalogue has no other arrays of so wide numbers
		return pgcatalog.TypeOf("OID[]")
	}
	if !ok {
		return t
	}
	switch {
	case oid == pgtype.OIDOID && t.OID == pgtype.Int8OID, oid == pgtype.XIDOID && t.OID == pgtype.Int8OID:
		return pgcatalog.Type{OID: oid, Size: 4, Modifier: -1}
	case oid == pgtype.NameOID && t.OID == pgtype.TextOID:
		return pgcatalog.Type{OID: oid, Size: 64, Modifier: -1}
	case oid == pgtype.QCharOID && t.OID == pgtype.TextOID:
		return pgcatalog.Type{OID: oid, Size: 1, Modifier: -1}
	case oid == regprocOID && t.OID == pgtype.TextOID:
		return pgcatalog.Type{OID: oid, Size: 4, Modifier: -1}
	case (oid == int2vectorOID || oid == oidvectorOID) && t.Element != nil:
		return pgcatalog.Type{OID: oid, Size: -1, Modifier: -1, Element: &pgcatalog.Type{
			OID: map[uint32]uint32{int2vectorOID: pgtype.Int2OID, oidvectorOID: pgtype.OIDOID}[oid], Size: 2, Modifier: -1,
		}}
	}
	return t
}

// Object identifiers that pgtype has no names for.
const (
	int2vectorOID = 22
	regprocOID    = 24
	oidvectorOID  = 30
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
	1003: "VARCHAR[]", pgcatalog.OIDArrayOID: "BIGINT[]", 1002: "VARCHAR[]",
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
