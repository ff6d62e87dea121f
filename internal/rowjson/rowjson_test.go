package rowjson

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/decimal256"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// TestAppend: each type keeps its value as text.
func TestAppend(t *testing.T) {
	at := time.Date(2024, 8, 20, 1, 2, 3, 456789000, time.UTC)
	s := arrow.NewSchema([]arrow.Field{
		{Name: "i", Type: arrow.PrimitiveTypes.Int64}, {Name: "u", Type: arrow.PrimitiveTypes.Uint64},
		{Name: "d", Type: &arrow.Decimal128Type{Precision: 38, Scale: 8}},
		{Name: "t", Type: &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}}, {Name: "w", Type: &arrow.TimestampType{Unit: arrow.Nanosecond}},
		{Name: "day", Type: arrow.FixedWidthTypes.Date32}, {Name: "f", Type: arrow.PrimitiveTypes.Float64}, {Name: "nan", Type: arrow.PrimitiveTypes.Float64},
		{Name: "s", Type: arrow.BinaryTypes.String}, {Name: "b", Type: arrow.BinaryTypes.Binary}, {Name: "null", Type: arrow.BinaryTypes.String},
		{Name: "l", Type: arrow.ListOf(arrow.PrimitiveTypes.Int32)},
		{Name: "st", Type: arrow.StructOf(arrow.Field{Name: "x", Type: arrow.BinaryTypes.String, Nullable: true})},
		{Name: "m", Type: arrow.MapOf(arrow.PrimitiveTypes.Int32, arrow.BinaryTypes.String)},
	}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, s)
	defer b.Release()
	b.Field(0).(*array.Int64Builder).Append(math.MinInt64)
	b.Field(1).(*array.Uint64Builder).Append(math.MaxUint64)
	d, err := decimal128.FromString("123456789012345678901234567890.12345678", 38, 8)
	if err != nil {
		t.Fatal(err)
	}
	b.Field(2).(*array.Decimal128Builder).Append(d)
	b.Field(3).(*array.TimestampBuilder).Append(arrow.Timestamp(at.UnixMicro()))
	b.Field(4).(*array.TimestampBuilder).Append(arrow.Timestamp(at.UnixNano() + 1))
	b.Field(5).(*array.Date32Builder).Append(arrow.Date32FromTime(at))
	b.Field(6).(*array.Float64Builder).Append(0.1)
	b.Field(7).(*array.Float64Builder).Append(math.NaN())
	b.Field(8).(*array.StringBuilder).Append("a\"\\\n\x01é")
	b.Field(9).(*array.BinaryBuilder).Append([]byte{0xff, 0})
	b.Field(10).AppendNull()
	l := b.Field(11).(*array.ListBuilder)
	l.Append(true)
	l.ValueBuilder().(*array.Int32Builder).AppendValues([]int32{1, 2}, nil)
	st := b.Field(12).(*array.StructBuilder)
	st.Append(true)
	st.FieldBuilder(0).AppendNull()
	m := b.Field(13).(*array.MapBuilder)
	m.Append(true)
	m.KeyBuilder().(*array.Int32Builder).Append(7)
	m.ItemBuilder().(*array.StringBuilder).Append("x")
	batch := b.NewRecordBatch()
	defer batch.Release()
	got := string(Append(nil, s, batch, 0))
	want := `{"i":-9223372036854775808,"u":18446744073709551615,"d":123456789012345678901234567890.12345678,` +
		`"t":"2024-08-20T01:02:03.456789Z","w":"2024-08-20T01:02:03.456789001","day":"2024-08-20","f":0.1,"nan":"NaN",` +
		`"s":"a\"\\\n\u0001é","b":"ff00","l":[1,2],"st":{"x":null},"m":{"7":"x"}}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if !json.Valid([]byte(got)) || strings.Contains(got, `"null"`) {
		t.Error("not JSON, or a null column is there")
	}
}

// TestDecimals: a decimal is its digits, however small it is, as in the JSON of a stream.
func TestDecimals(t *testing.T) {
	for _, c := range []struct {
		unscaled int64
		scale    int32
		want     string
	}{{1, 8, "0.00000001"}, {-5, 38, "-0.00000000000000000000000000000000000005"}, {0, 8, "0"}, {150, 2, "1.5"}, {-100, 2, "-1"}, {100, 0, "100"}, {12345678, 4, "1234.5678"}} {
		narrow := array.NewDecimal128Builder(memory.DefaultAllocator, &arrow.Decimal128Type{Precision: 38, Scale: c.scale})
		narrow.Append(decimal128.FromI64(c.unscaled))
		wide := array.NewDecimal256Builder(memory.DefaultAllocator, &arrow.Decimal256Type{Precision: 76, Scale: c.scale})
		wide.Append(decimal256.FromI64(c.unscaled))
		for _, a := range []arrow.Array{narrow.NewArray(), wide.NewArray()} {
			if got := string(appendValue(nil, a, 0)); got != c.want {
				t.Errorf("%d in %s is %s, want %s", c.unscaled, a.DataType(), got, c.want)
			}
		}
	}
}
