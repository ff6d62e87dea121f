package pgwire

import (
	"fmt"
	"strconv"
	"strings"

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
	"STRUCT": {pgtype.JSONOID, -1, -1, nil}, "MAP": {pgtype.JSONOID, -1, -1, nil},
}

var textOf = pgType{pgtype.TextOID, -1, -1, nil}

// arrayOIDs gives the type of arrays of a type.
var arrayOIDs = map[uint32]uint32{
	pgtype.BoolOID: pgtype.BoolArrayOID, pgtype.Int2OID: pgtype.Int2ArrayOID, pgtype.Int4OID: pgtype.Int4ArrayOID, pgtype.Int8OID: pgtype.Int8ArrayOID,
	pgtype.NumericOID: pgtype.NumericArrayOID, pgtype.Float4OID: pgtype.Float4ArrayOID, pgtype.Float8OID: pgtype.Float8ArrayOID, pgtype.TextOID: pgtype.TextArrayOID,
	pgtype.ByteaOID: pgtype.ByteaArrayOID, pgtype.DateOID: pgtype.DateArrayOID, pgtype.TimeOID: pgtype.TimeArrayOID, pgtype.TimestampOID: pgtype.TimestampArrayOID,
	pgtype.TimestamptzOID: pgtype.TimestamptzArrayOID, pgtype.IntervalOID: pgtype.IntervalArrayOID, pgtype.JSONOID: pgtype.JSONArrayOID,
	pgtype.OIDOID: 1028, pgtype.NameOID: 1003, pgtype.QCharOID: 1002,
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
	return textOf // UUID, ENUM, BIT …
}

// columnType gives the type of a result's column.
func columnType(c serve.Column) pgType {
	t := typeOf(c.Type)
	if c.Catalogue == "" {
		return t
	}
	oid, ok := serve.CatalogueType(c.Catalogue)
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
	1003: "VARCHAR[]", 1028: "BIGINT[]", 1002: "VARCHAR[]",
}

// parameterType gives DuckDB's type for a parameter of the given type and value. Decimals take the digits that they have.
func parameterType(oid uint32, text *string) string {
	if oid != pgtype.NumericOID {
		return parameterTypes[oid]
	}
	if text == nil {
		return "DECIMAL(38,12)"
	}
	_, frac, _ := strings.Cut(*text, ".")
	if strings.ContainsAny(*text, "eENI") || len(frac) > 38 {
		return "DOUBLE"
	}
	return "DECIMAL(38," + strconv.Itoa(min(len(frac), 38)) + ")"
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
