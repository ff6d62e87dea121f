package pgcatalog

import (
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"
)

// Type is a type of PostgreSQL as clients are told it.
type Type struct {
	OID      uint32
	Size     int16 // bytes; -1: variable
	Modifier int32 // -1: none
	Element  *Type // of an array; nil: it is none
}

// Text is the type of what has no other.
var Text = Type{pgtype.TextOID, -1, -1, nil}

var plainTypes = map[string]Type{
	"BOOLEAN": {pgtype.BoolOID, 1, -1, nil}, "TINYINT": {pgtype.Int2OID, 2, -1, nil}, "SMALLINT": {pgtype.Int2OID, 2, -1, nil}, "UTINYINT": {pgtype.Int2OID, 2, -1, nil},
	"INTEGER": {pgtype.Int4OID, 4, -1, nil}, "USMALLINT": {pgtype.Int4OID, 4, -1, nil}, "BIGINT": {pgtype.Int8OID, 8, -1, nil}, "UINTEGER": {pgtype.Int8OID, 8, -1, nil},
	"UBIGINT": {pgtype.NumericOID, -1, -1, nil}, "HUGEINT": {pgtype.NumericOID, -1, -1, nil}, "UHUGEINT": {pgtype.NumericOID, -1, -1, nil},
	"FLOAT": {pgtype.Float4OID, 4, -1, nil}, "DOUBLE": {pgtype.Float8OID, 8, -1, nil}, "DECIMAL": {pgtype.NumericOID, -1, -1, nil}, "VARCHAR": Text, "TEXT": Text,
	"BLOB": {pgtype.ByteaOID, -1, -1, nil}, "DATE": {pgtype.DateOID, 4, -1, nil}, "TIME": {pgtype.TimeOID, 8, -1, nil},
	"TIMESTAMP": {pgtype.TimestampOID, 8, -1, nil}, "TIMESTAMP_S": {pgtype.TimestampOID, 8, -1, nil}, "TIMESTAMP_MS": {pgtype.TimestampOID, 8, -1, nil},
	"TIMESTAMP_NS": {pgtype.TimestampOID, 8, -1, nil}, "TIMESTAMPTZ": {pgtype.TimestamptzOID, 8, -1, nil}, "INTERVAL": {pgtype.IntervalOID, 16, -1, nil},
	"UUID": {pgtype.UUIDOID, 16, -1, nil}, "STRUCT": {pgtype.JSONOID, -1, -1, nil}, "ROW": {pgtype.RecordOID, -1, -1, nil}, "OID": {pgtype.OIDOID, 4, -1, nil}, "MAP": {pgtype.JSONOID, -1, -1, nil},
}

// OIDArrayOID is the type of arrays of object identifiers, of which pgtype has no name.
const OIDArrayOID = 1028

var arrayOIDs = map[uint32]uint32{
	pgtype.BoolOID: pgtype.BoolArrayOID, pgtype.Int2OID: pgtype.Int2ArrayOID, pgtype.Int4OID: pgtype.Int4ArrayOID, pgtype.Int8OID: pgtype.Int8ArrayOID,
	pgtype.NumericOID: pgtype.NumericArrayOID, pgtype.Float4OID: pgtype.Float4ArrayOID, pgtype.Float8OID: pgtype.Float8ArrayOID, pgtype.TextOID: pgtype.TextArrayOID,
	pgtype.ByteaOID: pgtype.ByteaArrayOID, pgtype.DateOID: pgtype.DateArrayOID, pgtype.TimeOID: pgtype.TimeArrayOID, pgtype.TimestampOID: pgtype.TimestampArrayOID,
	pgtype.TimestamptzOID: pgtype.TimestamptzArrayOID, pgtype.IntervalOID: pgtype.IntervalArrayOID, pgtype.JSONOID: pgtype.JSONArrayOID,
	pgtype.UUIDOID: pgtype.UUIDArrayOID, pgtype.RecordOID: pgtype.RecordArrayOID,
	pgtype.OIDOID: OIDArrayOID, pgtype.NameOID: 1003, pgtype.QCharOID: 1002,
}

// ArrayOID gives the type of arrays of a type; 0: there are none that clients are told of.
func ArrayOID(element uint32) uint32 { return arrayOIDs[element] }

// TypeOf gives PostgreSQL's type for DuckDB's name of one: as results give it (STRUCT, DECIMAL(9,2), BIGINT[]), or as DESCRIBE
// does (STRUCT(a BIGINT), TIMESTAMP WITH TIME ZONE).
func TypeOf(duck string) Type {
	if elem, ok := strings.CutSuffix(duck, "[]"); ok {
		if strings.HasSuffix(elem, "[]") { // PostgreSQL's arrays of arrays are rectangles, lists of lists need not be
			return plainTypes["STRUCT"]
		}
		e := TypeOf(elem)
		if oid := arrayOIDs[e.OID]; oid != 0 {
			return Type{oid, -1, -1, &e}
		}
		return plainTypes["STRUCT"]
	}
	name, rest, _ := strings.Cut(duck, "(")
	switch {
	case name == "DECIMAL" && rest != "":
		var p, s int32
		if _, err := fmt.Sscanf(rest, "%d,%d)", &p, &s); err == nil {
			return Type{pgtype.NumericOID, -1, (p<<16 | s) + 4, nil}
		}
	case name == "TIMESTAMP WITH TIME ZONE":
		name = "TIMESTAMPTZ"
	}
	if t, ok := plainTypes[name]; ok {
		return t
	}
	return Text // ENUM, BIT …
}
