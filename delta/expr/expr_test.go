package expr_test

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/memory"

	. "github.com/cauce-data/cauce/delta/expr"
)

func call(f string, args ...any) Expr {
	c := Call{Func: f}
	for _, a := range args {
		if e, ok := a.(Expr); ok {
			c.Args = append(c.Args, e)
		} else {
			c.Args = append(c.Args, Lit(a))
		}
	}
	return c
}

func cast(e any, t arrow.DataType) Expr {
	x, ok := e.(Expr)
	if !ok {
		x = Lit(e)
	}
	return Cast{Arg: x, Type: t}
}

var (
	i32, i64, f32 = arrow.PrimitiveTypes.Int32, arrow.PrimitiveTypes.Int64, arrow.PrimitiveTypes.Float32
	text, date    = arrow.BinaryTypes.String, arrow.FixedWidthTypes.Date32
	boolT         = arrow.FixedWidthTypes.Boolean
	instant       = &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}
)

func dec(p, s int32) arrow.DataType { return &arrow.Decimal128Type{Precision: p, Scale: s} }

// one is a batch of one row without columns.
func one() arrow.RecordBatch { return array.NewRecordBatch(arrow.NewSchema(nil, nil), nil, 1) }

// TestMeaning has the values that Spark 4 gives in ANSI mode; an error stands for Spark's error.
func TestMeaning(t *testing.T) {
	null := Lit(nil)
	for _, c := range []struct {
		e    Expr
		want any
	}{
		// Three values.
		{And(Lit(true), null), nil}, {And(Lit(false), null), false}, {And(null, Lit(false)), false},
		{Or(Lit(true), null), true}, {Or(Lit(false), null), nil}, {Not(null), nil},
		{Eq(null, Lit(1)), nil}, {NullSafeEq(null, Lit(1)), false}, {NullSafeEq(null, null), true},
		{call("in", 1, 2, null), nil}, {call("in", 1, 1, null), true}, {call("in", 1, 2, 3), false}, {call("in", null, 1), nil},
		{call("is null", null), true}, {call("is not null", null), false},
		{Between(Lit(2), Lit(1), Lit(3)), true}, {Between(Lit(2), null, Lit(1)), false},
		// Numbers.
		{call("/", 7, 2), 3.5}, {call("div", -7, 2), int64(-3)}, {call("%", -7, 2), int64(-1)}, {call("%", -7, -1), int64(0)},
		{call("+", 2147483647, 1), ErrValue}, {call("+", int64(math.MaxInt64), 1), ErrValue}, {call("*", int64(math.MinInt64), -1), ErrValue},
		{call("neg", int64(math.MinInt64)), ErrValue}, {call("abs", -3), int64(3)}, {call("-", 3, 5), int64(-2)},
		{call("/", 1, 0), ErrValue}, {call("%", 1, 0), ErrValue}, {call("/", 1.0, 0.0), ErrValue},
		{call("+", Decimal("0.1"), Decimal("0.2")), Decimal("0.3")}, {call("*", Decimal("1.5"), Decimal("1.5")), Decimal("2.25")},
		{call("/", Decimal("1.0"), Decimal("3.0")), Decimal("0.333333")}, {call("%", Decimal("5.5"), Decimal("2")), Decimal("1.5")},
		{Eq(Lit(Decimal("1.0")), Lit(1)), true}, {call("<", Decimal("0.1"), 0.2), true},
		{Eq(Lit(math.NaN()), Lit(math.NaN())), true}, {call(">", math.NaN(), math.Inf(1)), true}, {Eq(Lit(0.0), Lit(math.Copysign(0, -1))), true},
		{call("round", Decimal("2.5")), Decimal("3")}, {call("round", Decimal("-2.45"), 1), Decimal("-2.5")}, {call("round", 2.5), 3.0},
		{call("round", int64(1234567890123456789), -1), int64(1234567890123456790)}, {call("round", -15, -1), int64(-20)}, {call("round", 44, -2), int64(0)},
		{call("round", int64(math.MaxInt64), -1), ErrValue}, {call("round", 2147483647, -1), ErrValue},
		{call("floor", -1.5), int64(-2)}, {call("ceil", Decimal("1.01")), Decimal("2")},
		{call("greatest", 1, null, 3), int64(3)}, {call("least", null, null), nil}, {call("coalesce", null, 2), int64(2)},
		{call("nullif", 1, 1), nil}, {call("if", null, 1, 2), int64(2)},
		// Casts.
		{cast("12", i32), int64(12)}, {cast(" 12 ", i32), int64(12)}, {cast("1x", i32), ErrValue}, {Cast{Arg: Lit("1x"), Type: i32, Try: true}, nil},
		{cast(int64(1)<<40, i32), ErrValue}, {cast(1.9, i32), int64(1)}, {cast(-1.9, i32), int64(-1)}, {cast(math.NaN(), i64), ErrValue},
		{cast("yes", boolT), true}, {cast("maybe", boolT), ErrValue}, {cast(2, boolT), true}, {cast(true, text), "true"},
		{cast(1e7, text), "1.0E7"}, {cast(0.001, text), "0.001"}, {cast(0.1, text), "0.1"}, {cast(Decimal("1.50"), text), "1.50"},
		{cast("1.005", dec(5, 2)), Decimal("1.01")}, {cast("1000", dec(5, 2)), ErrValue}, {cast(Decimal("1.005"), dec(5, 2)), Decimal("1.01")},
		{cast("2024-08-20", date), Date(19955)}, {cast("2024-02-30", date), ErrValue}, {cast(Date(0), text), "1970-01-01"},
		{cast("2024-08-20 01:02:03.5", instant), Timestamp(1724115723_500000)}, {cast("2024-08-20T01:02:03+02:00", instant), Timestamp(1724108523_000000)},
		{cast(Timestamp(-1), date), Date(-1)}, {cast(Date(1), instant), Timestamp(86_400_000_000)}, {cast(Timestamp(-1), i64), int64(-1)},
		{Eq(Lit("5"), Lit(5)), true}, {Eq(Lit("2024-08-20"), Lit(Date(19955))), true}, {call("<", Date(1), Timestamp(86_400_000_001)), true},
		// Text.
		{call("||", "a", 1), "a1"}, {call("concat", "a", null), nil}, {call("like", "a_c", `a\_c`), true}, {call("like", "abc", `a\_c`), false},
		{call("like", "aXbXc", "a%b_c"), true}, {call("like", "ab", `a\`), ErrValue}, {call("like", "", "%"), true},
		{call("substring", "hello", 2, 3), "ell"}, {call("substring", "hello", -3, 2), "ll"}, {call("substring", "hello", -9, 5), "h"}, {call("substring", "ñandú", 5), "ú"},
		{call("length", "ñ"), int64(1)}, {call("upper", "ñ"), "Ñ"}, {call("trim", "  a "), "a"}, {call("instr", "ñab", "b"), int64(3)},
		{call("md5", "a"), "0cc175b9c0f1b6a831c399e269772661"}, {call("replace", "aa", "a", "b"), "bb"}, {call("left", "abc", 2), "ab"}, {call("right", "abc", 2), "bc"},
		// Times.
		{call("year", Date(19955)), int64(2024)}, {call("hour", Timestamp(1724115723_500000)), int64(1)}, {call("quarter", Date(19955)), int64(3)},
		{call("date_add", Date(0), -1), Date(-1)}, {call("datediff", Date(3), Date(1)), int64(2)}, {call("+", Date(1), 1), Date(2)},
		{call("date_trunc", "month", Timestamp(1724115723_500000)), Timestamp(1722470400_000000)}, {call("date_trunc", "hour", Timestamp(-1)), Timestamp(-3_600_000_000)},
		{call("to_date", Timestamp(-1)), Date(-1)}, {call("dayofweek", Date(19955)), int64(3)}, {call("weekofyear", Date(19955)), int64(34)},
		{call("date_format", Timestamp(1724115723_500000), "yyyy-MM-dd'T'HH:mm:ss.SSS ''d"), "2024-08-20T01:02:03.500 '20"}, {call("date_format", Date(19955), "MMM"), ErrValue},
		{call("trunc", Date(19955), "MM"), Date(19936)}, {call("trunc", Date(19955), "week"), Date(19954)}, {call("trunc", Date(19955), "hour"), nil},
		{call("sign", -3), -1.0}, {call("lpad", "ab", 5, "xy"), "xyxab"}, {call("rpad", "ab", 1), "a"}, {call("lpad", "7", 3), "  7"}, {call("isnull", nil), true}, {call("isnotnull", nil), false},
		// Wrong in themselves.
		{call("nosuch", 1), ErrType}, {And(Lit(1), Lit(true)), ErrType}, {call("+", true, 1), ErrType}, {Col("x"), ErrType}, {call("abs"), ErrType},
		{call("current_timestamp"), ErrType}, {Case{}, ErrType}, {Eq(Lit(true), Lit(Date(1))), ErrType}, {nil, ErrType}, {Not(nil), ErrType},
		{Case{Whens: []When{{Lit(false), Lit(1)}, {null, Lit(2)}}}, nil}, {Case{Whens: []When{{Lit(true), Lit(1)}}, Else: Lit(2.5)}, 1.0},
		// Constants of one type beside a decimal number: each has its digits.
		{Case{Whens: []When{{Lit(false), Lit(1)}, {Lit(true), Lit(1000)}}, Else: cast(1, dec(5, 2))}, Decimal("1000.00")},
		{call("coalesce", cast(nil, i32), cast(100_000, i32), cast(1, dec(5, 2))), Decimal("100000.00")}, {call("greatest", 1, cast(100_000, i32), cast(1, dec(5, 2))), Decimal("100000.00")},
		// What is not reached has no errors.
		{Case{Whens: []When{{Lit(true), Lit(1)}}, Else: call("%", 1, 0)}, int64(1)}, {And(Lit(false), Eq(call("%", 1, 0), Lit(1))), false},
	} {
		b := one()
		p, err := Compile(c.e, Columnar(b.Schema()), Options{})
		var got any
		if err == nil {
			got, err = p.Value(b, 0)
		}
		if want, isErr := c.want.(error); isErr {
			if !errors.Is(err, want) {
				t.Errorf("%v: %v, %v; want %v", c.e, got, err, want)
			}
			continue
		}
		if err != nil || got != c.want {
			t.Errorf("%v: %v (%T), %v; want %v (%T)", c.e, got, got, err, c.want, c.want)
		}
	}
}

func TestNow(t *testing.T) {
	b := one()
	p, err := Compile(call("current_date"), Columnar(b.Schema()), Options{Now: 86_400_000_000*3 + 5})
	if err != nil {
		t.Fatal(err)
	}
	if v, err := p.Value(b, 0); v != Date(3) || err != nil {
		t.Errorf("%v, %v", v, err)
	}
}

// batch has a column of each type, with nulls, some of them inside a struct.
func batch(t *testing.T) arrow.RecordBatch {
	t.Helper()
	st := arrow.StructOf(arrow.Field{Name: "x", Type: i64, Nullable: true}, arrow.Field{Name: "Deep.er", Type: text, Nullable: true})
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "id", Type: i64}, {Name: "S", Type: st, Nullable: true}, {Name: "l", Type: arrow.ListOf(i32), Nullable: true},
		{Name: "d", Type: dec(10, 2), Nullable: true}, {Name: "f", Type: f32, Nullable: true},
	}, nil)
	r := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer r.Release()
	for i := range 6 {
		r.Field(0).(*array.Int64Builder).Append(int64(i))
		s := r.Field(1).(*array.StructBuilder)
		if i%3 == 0 {
			s.AppendNull()
		} else {
			s.Append(true)
		}
		if i%3 != 0 {
			x := s.FieldBuilder(0).(*array.Int64Builder)
			if i%2 == 0 {
				x.Append(int64(10 * i))
			} else {
				x.AppendNull()
			}
			s.FieldBuilder(1).(*array.StringBuilder).Append(fmt.Sprint("t", i))
		}
		l := r.Field(2).(*array.ListBuilder)
		l.Append(i != 4)
		l.ValueBuilder().(*array.Int32Builder).Append(int32(i))
		r.Field(3).(*array.Decimal128Builder).Append(decimal128.FromI64(int64(i * 150)))
		r.Field(4).(*array.Float32Builder).Append(float32(i) / 10)
	}
	return r.NewRecordBatch()
}

func TestColumns(t *testing.T) {
	whole := batch(t)
	defer whole.Release()
	b := whole.NewSlice(1, 6) // ids 1 … 5, so that offsets matter
	defer b.Release()
	eval := func(e Expr) string {
		t.Helper()
		p, err := Compile(e, Columnar(b.Schema()), Options{})
		if err != nil {
			return err.Error()
		}
		a, err := p.Eval(b)
		if err != nil {
			return err.Error()
		}
		defer a.Release()
		if !arrow.TypeEqual(a.DataType(), p.Type) {
			t.Errorf("%v: %s, but the program says %s", e, a.DataType(), p.Type)
		}
		return fmt.Sprint(a)
	}
	for _, c := range []struct {
		e    Expr
		want string
	}{
		{Col("ID"), "[1 2 3 4 5]"},
		{Col("s", "x"), "[(null) 20 (null) 40 (null)]"},
		{Col("s", "deep.er"), `["t1" "t2" (null) "t4" "t5"]`},
		{call("+", Col("d"), Decimal("0.5")), "[2 3.5 5 6.5 8]"},
		{call("*", Col("f"), Cast{Arg: Lit(10), Type: f32}), "[1 2 3 4 5]"}, {call("+", Col("f"), 1), "[1.1000000014901161 1.2000000029802322 1.300000011920929 1.4000000059604645 1.5]"},
		{Case{Whens: []When{{call("<", Col("id"), 3), Col("l")}}}, "[[1] [2] (null) (null) (null)]"},
		{Case{Whens: []When{{call(">", Col("id"), 2), Col("l")}}}, "[(null) (null) [3] (null) [5]]"},
		{Col("s", "nosuch"), "bad expression: s.nosuch: no member nosuch"},
		{Col("nosuch"), "bad expression: no column nosuch; there are: id, S, l, d, f"},
		{call("%", 7, call("-", Col("id"), 3)), "row 2: expression has no value: division of 7 by zero"},
	} {
		if got := eval(c.e); got != c.want {
			t.Errorf("%v: %s; want %s", c.e, got, c.want)
		}
	}
	p, err := Compile(call(">", Col("s", "x"), 20), Columnar(b.Schema()), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if rows, err := p.Filter(b); fmt.Sprint(rows) != "[3]" || err != nil {
		t.Errorf("filter: %v, %v", rows, err)
	}
	p, err = Compile(Col("id"), Columnar(b.Schema()), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Filter(b); !errors.Is(err, ErrType) {
		t.Errorf("a number as a condition: %v", err)
	}
}

func TestAs(t *testing.T) {
	b := one()
	for _, c := range []struct {
		e    Expr
		t    arrow.DataType
		want any
	}{
		{Lit(5), i64, int64(5)}, {Lit(int64(1) << 40), i32, ErrValue}, {Lit("5"), i32, ErrType}, {Lit(5), text, "5"}, {Lit(true), i32, ErrType},
		{Lit(nil), date, nil}, {Lit(Date(1)), instant, Timestamp(86_400_000_000)}, {Lit(2.5), i32, int64(2)}, {Lit(Decimal("1.255")), dec(4, 2), Decimal("1.26")},
	} {
		p, err := As(c.e, c.t, Columnar(b.Schema()), Options{})
		var got any
		if err == nil {
			got, err = p.Value(b, 0)
		}
		if want, isErr := c.want.(error); isErr && !errors.Is(err, want) || !isErr && (err != nil || got != c.want) {
			t.Errorf("%v as %s: %v, %v; want %v", c.e, c.t, got, err, c.want)
		}
	}
}

func TestText(t *testing.T) {
	for _, c := range []struct {
		e    Expr
		want string
	}{
		{And(Eq(Col("a b", "select"), Lit("it's\\")), Not(call("is null", Col("c")))), "((`a b`.`select` = 'it\\'s\\\\') AND (NOT (c IS NULL)))"},
		{call("in", Col("a"), 1, nil), "(a IN (1, NULL))"},
		{Cast{Arg: Lit(Decimal("1.5")), Type: dec(9, 1), Try: true}, "TRY_CAST(1.5 AS DECIMAL(9,1))"},
		{Case{Whens: []When{{Lit(true), Lit(Date(0))}}, Else: Lit(Timestamp(0))}, "CASE WHEN TRUE THEN DATE '1970-01-01' ELSE TIMESTAMP '1970-01-01 00:00:00Z' END"},
		{call("neg", Lit([]byte{1, 0xab})), "(- X'01AB')"},
	} {
		if got := c.e.String(); got != c.want {
			t.Errorf("%s; want %s", got, c.want)
		}
	}
	e := And(Eq(Col("a", "b"), Col("A", "B")), Or(Lit(true), Eq(Cast{Arg: Col("c"), Type: i64}, Lit(1))))
	if got := fmt.Sprint(Columns(e)); got != "[[a b] [c]]" {
		t.Errorf("columns: %s", got)
	}
	if got := len(Conjuncts(And(e, Lit(true)))); got != 3 {
		t.Errorf("%d conjuncts", got)
	}
	renamed := Map(e, func(x Expr) Expr {
		if c, ok := x.(Column); ok && c.Path[0] == "c" {
			return Col("z")
		}
		return x
	})
	if got := renamed.String(); got != "((a.b = A.B) AND (TRUE OR (CAST(z AS BIGINT) = 1)))" {
		t.Errorf("renamed: %s", got)
	}
	deep := Lit(true)
	for range 10_000 {
		deep = Not(deep)
	}
	if _, err := Compile(deep, Columnar(arrow.NewSchema(nil, nil)), Options{}); !errors.Is(err, ErrType) {
		t.Errorf("a deep expression: %v", err)
	}
}
