package flightsql

import (
	"context"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight"
	fsql "github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql/schema_ref"
	pb "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// registerInfo says what the server is (CommandGetSqlInfo).
func (s *Server) registerInfo() error {
	for id, v := range map[fsql.SqlInfo]any{
		fsql.SqlInfoFlightSqlServerName:               "Cauce",
		fsql.SqlInfoFlightSqlServerVersion:            s.o.Version,
		fsql.SqlInfoFlightSqlServerArrowVersion:       arrow.PkgVersion,
		fsql.SqlInfoFlightSqlServerReadOnly:           true,
		fsql.SqlInfoFlightSqlServerSql:                true,
		fsql.SqlInfoFlightSqlServerSubstrait:          false,
		fsql.SqlInfoFlightSqlServerTransaction:        int32(fsql.SqlTransactionTransaction),
		fsql.SqlInfoFlightSqlServerCancel:             true,
		fsql.SqlInfoFlightSqlServerBulkIngestion:      false,
		fsql.SqlInfoFlightSqlServerStatementTimeout:   int32(s.o.StatementTimeout.Milliseconds()),
		fsql.SqlInfoFlightSqlServerTransactionTimeout: int32(stateLifetime.Milliseconds()),
		fsql.SqlInfoDDLCatalog:                        false,
		fsql.SqlInfoDDLSchema:                         false,
		fsql.SqlInfoDDLTable:                          false,
		fsql.SqlInfoIdentifierCase:                    int64(fsql.SqlCaseSensitivityCaseInsensitive),
		fsql.SqlInfoIdentifierQuoteChar:               `"`,
		fsql.SqlInfoQuotedIdentifierCase:              int64(fsql.SqlCaseSensitivityCaseInsensitive),
		fsql.SqlInfoAllTablesAreASelectable:           true,
		fsql.SqlInfoNullOrdering:                      int64(fsql.SqlNullOrderingSortAtEnd),
		fsql.SqlInfoSearchStringEscape:                `\`,
		fsql.SqlInfoExtraNameChars:                    "$",
		fsql.SqlInfoSupportsColumnAliasing:            true,
		fsql.SqlInfoNullPlusNullIsNull:                true,
		fsql.SqlInfoSupportsTableCorrelationNames:     true,
		fsql.SqlInfoSupportsExpressionsInOrderBy:      true,
		fsql.SqlInfoSupportsOrderByUnrelated:          true,
		fsql.SqlInfoSupportsLikeEscapeClause:          true,
		fsql.SqlInfoSupportsNonNullableColumns:        true,
		fsql.SqlInfoSchemaTerm:                        "schema",
		fsql.SqlInfoCatalogTerm:                       "database",
		fsql.SqlInfoCatalogAtStart:                    true,
		fsql.SqlInfoSelectForUpdateSupported:          false,
		fsql.SqlInfoStoredProceduresSupported:         false,
		fsql.SqlInfoCorrelatedSubqueriesSupported:     true,
		fsql.SqlInfoTransactionsSupported:             true,
		fsql.SqlInfoBatchUpdatesSupported:             false,
		fsql.SqlInfoSavePointsSupported:               false,
		fsql.SqlInfoNamedParametersSupported:          false,
	} {
		if err := s.RegisterSqlInfo(id, v); err != nil {
			return err
		}
		s.info[uint32(id)] = true
	}
	return nil
}

// asked is a call of GetSqlInfo without the numbers that the server knows nothing about.
type asked []uint32

func (a asked) GetInfo() []uint32 { return a }

// DoGetSqlInfo tells what was asked for, as far as it is known.
func (s *Server) DoGetSqlInfo(ctx context.Context, q fsql.GetSqlInfo) (*arrow.Schema, <-chan flight.StreamChunk, error) {
	known := slices.DeleteFunc(slices.Clone(q.GetInfo()), func(id uint32) bool { return !s.info[id] })
	if len(known) == 0 && len(q.GetInfo()) > 0 {
		return nil, nil, status.Error(codes.NotFound, "nothing is known of what was asked for")
	}
	return s.BaseServer.DoGetSqlInfo(ctx, asked(known))
}

// xdbcTypes are the types of columns. Size is in digits, characters or bytes; 0: there is no limit.
var xdbcTypes = []struct {
	name           string
	id             pb.XdbcDataType
	size           int32
	prefix, suffix string
	params         []string
	scale          int32 // the greatest; -1: none
	radix          int32 // 0: no number
}{
	{"BIGINT", pb.XdbcDataType_XDBC_BIGINT, 19, "", "", nil, 0, 10},
	{"TINYINT", pb.XdbcDataType_XDBC_TINYINT, 3, "", "", nil, 0, 10},
	{"BOOLEAN", pb.XdbcDataType_XDBC_BIT, 1, "", "", nil, -1, 0},
	{"BLOB", pb.XdbcDataType_XDBC_VARBINARY, 0, "from_hex('", "')", nil, -1, 0},
	{"DECIMAL", pb.XdbcDataType_XDBC_DECIMAL, 38, "", "", []string{"precision", "scale"}, 38, 10},
	{"INTEGER", pb.XdbcDataType_XDBC_INTEGER, 10, "", "", nil, 0, 10},
	{"SMALLINT", pb.XdbcDataType_XDBC_SMALLINT, 5, "", "", nil, 0, 10},
	{"FLOAT", pb.XdbcDataType_XDBC_REAL, 24, "", "", nil, -1, 2},
	{"DOUBLE", pb.XdbcDataType_XDBC_DOUBLE, 53, "", "", nil, -1, 2},
	{"VARCHAR", pb.XdbcDataType_XDBC_VARCHAR, 0, "'", "'", nil, -1, 0},
	{"DATE", pb.XdbcDataType_XDBC_DATE, 10, "DATE '", "'", nil, -1, 0},
	{"TIMESTAMP", pb.XdbcDataType_XDBC_TIMESTAMP, 26, "TIMESTAMP '", "'", nil, 6, 0},
	{"TIMESTAMPTZ", pb.XdbcDataType_XDBC_TIMESTAMP, 32, "TIMESTAMPTZ '", "'", nil, 6, 0},
}

// GetFlightInfoXdbcTypeInfo implements the call GetXdbcTypeInfo.
func (s *Server) GetFlightInfoXdbcTypeInfo(_ context.Context, _ fsql.GetXdbcTypeInfo, desc *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	return s.command(desc, schema_ref.XdbcTypeInfo)
}

// DoGetXdbcTypeInfo lists the types of columns, as ODBC and JDBC number them.
func (s *Server) DoGetXdbcTypeInfo(_ context.Context, q fsql.GetXdbcTypeInfo) (*arrow.Schema, <-chan flight.StreamChunk, error) {
	return s.batch(schema_ref.XdbcTypeInfo, func(b *array.RecordBuilder) {
		number := func(i int, v int32, known bool) {
			if f := b.Field(i).(*array.Int32Builder); known {
				f.Append(v)
			} else {
				f.AppendNull()
			}
		}
		word := func(i int, v string) {
			if v == "" {
				b.Field(i).AppendNull()
			} else {
				put(b, i, v)
			}
		}
		flag := func(i int, v bool) { b.Field(i).(*array.BooleanBuilder).Append(v) }
		for _, t := range xdbcTypes {
			if d := q.GetDataType(); d != nil && *d != int32(t.id) {
				continue
			}
			put(b, 0, t.name)
			number(1, int32(t.id), true)
			number(2, t.size, t.size > 0)
			word(3, t.prefix)
			word(4, t.suffix)
			params := b.Field(5).(*array.ListBuilder)
			params.Append(len(t.params) > 0)
			for _, p := range t.params {
				params.ValueBuilder().(*array.StringBuilder).Append(p)
			}
			number(6, int32(pb.Nullable_NULLABILITY_NULLABLE), true)
			flag(7, t.id == pb.XdbcDataType_XDBC_VARCHAR)
			number(8, int32(pb.Searchable_SEARCHABLE_FULL), true)
			flag(9, false)
			flag(10, false)
			flag(11, false)
			put(b, 12, t.name)
			number(13, 0, t.scale >= 0)
			number(14, t.scale, t.scale >= 0)
			number(15, int32(t.id), true)
			number(16, 0, false)
			number(17, t.radix, t.radix > 0)
			number(18, 0, false)
		}
	})
}
