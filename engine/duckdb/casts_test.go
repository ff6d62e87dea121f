package duckdb

import (
	"context"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // the machine may have no time zones

	"github.com/apache/arrow-go/v18/arrow"
	"pgregory.net/rapid"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/pipeline"
)

// castColumn casts texts as a plan does and gives each result as text; "fails" where the row fails, "null" for null.
func castColumn(t testing.TB, e *Engine, typ delta.Type, texts []string) []string {
	t.Helper()
	r := &renderer{zone: "UTC"}
	x := r.cast(rendered{value: "x", kind: kindText, plain: true}, typ)
	fail := x.fail
	if fail == "" {
		fail = "false"
	}
	var vals []string
	for i, s := range texts {
		vals = append(vals, fmt.Sprintf("(%d, %s)", i, quoteText(s)))
	}
	var out []string
	err := e.with(context.Background(), func(c *conn) error {
		return c.each(context.Background(), fmt.Sprintf("SELECT CASE WHEN %s THEN 'fails' ELSE COALESCE(CAST(%s AS VARCHAR), 'null') END FROM (VALUES %s) v(n, x) ORDER BY n",
			fail, x.value, strings.Join(vals, ", ")), func(row []any) error {
			out = append(out, row[0].(string))
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestCastsFromText(t *testing.T) {
	e := testEngine(t)
	for _, c := range []struct{ typ, text, want string }{
		{"long", "12", "12"}, {"long", " 12 ", "12"}, {"long", "+12", "12"}, {"long", "12.0", "12"}, {"long", "1.2e1", "12"}, {"long", "007", "7"},
		{"long", "12.5", "fails"}, {"long", "1_000", "fails"}, {"long", "0x1F", "fails"}, {"long", "9223372036854775808", "fails"}, {"long", "-9223372036854775808", "-9223372036854775808"},
		{"long", "", "null"}, {"long", "  ", "null"}, {"long", "n/a", "fails"}, {"integer", "2147483648", "fails"}, {"byte", "128", "fails"}, {"short", "-32768", "-32768"},
		{"decimal(18,8)", "3.844E-5", "0.00003844"}, {"decimal(18,8)", "0.000000019", "fails"}, {"decimal(18,8)", "1.1000000000", "1.10000000"}, {"decimal(18,8)", "1_0.5", "fails"},
		{"decimal(18,8)", "12345678901", "fails"}, {"decimal(18,8)", ".5", "0.50000000"}, {"decimal(18,8)", "5.", "5.00000000"}, {"decimal(18,8)", "-0", "0.00000000"}, {"decimal(18,8)", "1e400", "fails"},
		{"decimal(28,8)", "12345678901234567890.12345678", "12345678901234567890.12345678"}, {"decimal(28,8)", "1.5", "1.50000000"}, {"decimal(38,0)", strings.Repeat("9", 38), strings.Repeat("9", 38)},
		{"boolean", "TRUE", "true"}, {"boolean", " t", "true"}, {"boolean", "Off", "false"}, {"boolean", "2", "fails"},
		{"double", "1.5e3", "1500.0"}, {"double", "1_0", "fails"}, {"double", "1e400", "fails"}, {"double", "NaN", "nan"}, {"float", "1e39", "fails"},
		{"date", "2024-08-20", "2024-08-20"}, {"date", "2024-8-20", "fails"}, {"date", "2023-02-29", "fails"}, {"date", "epoch", "fails"}, {"date", "2024-08-20 10:00:00", "fails"}, {"date", "10000-01-01", "fails"}, {"date", "0044-03-15 (BC)", "fails"},
		{"timestamp", "2024-08-20T02:00:00+02:00", "2024-08-20 00:00:00"}, {"timestamp", "2024-08-20", "2024-08-20 00:00:00"}, {"timestamp", "1724112000", "fails"}, {"timestamp", "infinity", "fails"},
		{"timestamp_ntz", "2024-08-20 01:02:03.5", "2024-08-20 01:02:03.5"}, {"timestamp_ntz", "2024-08-20T01:02:03Z", "fails"},
	} {
		typ, err := delta.ParseType(c.typ)
		if err != nil {
			t.Fatal(err)
		}
		if got := castColumn(t, e, typ, []string{c.text})[0]; got != c.want {
			t.Errorf("CAST(%q AS %s) = %s, want %s", c.text, c.typ, got, c.want)
		}
	}
}

var numberText = rapid.Custom(func(t *rapid.T) string {
	return rapid.SampledFrom([]string{"", "-", "+", " "}).Draw(t, "sign") + rapid.StringMatching(`[0-9]{0,21}`).Draw(t, "whole") +
		rapid.SampledFrom([]string{"", ".", "_"}).Draw(t, "point") + rapid.StringMatching(`[0-9]{0,11}0{0,3}`).Draw(t, "fraction") + rapid.SampledFrom([]string{"", "e3", "E-5", "e+2", "e-12", "x", " "}).Draw(t, "end")
})

// A decimal is what exact arithmetic says it is, or the cast fails.
func TestDecimalsAreExact(t *testing.T) {
	e := testEngine(t)
	rapid.Check(t, func(rt *rapid.T) {
		p := rapid.IntRange(1, 38).Draw(rt, "precision")
		typ := delta.Decimal{P: p, S: rapid.IntRange(0, p).Draw(rt, "scale")}
		texts := rapid.SliceOfN(numberText, 30, 30).Draw(rt, "texts")
		for i, got := range castColumn(t, e, typ, texts) {
			s := strings.Trim(texts[i], blanks)
			want, ok := new(big.Rat).SetString(s)
			ok = ok && !strings.ContainsAny(s, "_x") && strings.ContainsAny(strings.FieldsFunc(s+"!", func(r rune) bool { return r == 'e' || r == 'E' || r == '!' })[0], "0123456789")
			if ok {
				scaled := new(big.Rat).Mul(want, new(big.Rat).SetInt(pow10(typ.S)))
				ok = scaled.IsInt() && scaled.Num().CmpAbs(pow10(typ.P)) < 0
			}
			switch {
			case s == "" && got != "null", s != "" && !ok && got != "fails":
				rt.Fatalf("%q as %s gives %s", texts[i], typ, got)
			case ok:
				v, isNumber := new(big.Rat).SetString(got)
				if !isNumber || v.Cmp(want) != 0 {
					rt.Fatalf("%q as %s gives %s", texts[i], typ, got)
				}
			}
		}
	})
}

func TestEventTimes(t *testing.T) {
	madrid, err := time.LoadLocation("Europe/Madrid")
	if err != nil {
		t.Fatal(err)
	}
	for s, want := range map[string]string{
		"1724112000": "2024-08-20T00:00:00Z", "1724112000.5": "2024-08-20T00:00:00.5Z", "1724112000123": "2024-08-20T00:00:00.123Z", "1724112000123456": "2024-08-20T00:00:00.123456Z",
		"1724112000123456789": "2024-08-20T00:00:00.123456Z", "-1": "1969-12-31T23:59:59Z", "1.724112e9": "2024-08-20T00:00:00Z",
		"2024-08-20T00:00:00": "2024-08-19T22:00:00Z", "2024-01-20 00:00": "2024-01-19T23:00:00Z", "2024-08-20T00:00:00.123456789Z": "2024-08-20T00:00:00.123456Z", "20240820T101112Z": "2024-08-20T10:11:12Z",
		"2024-08-20 10:00:00 UTC": "2024-08-20T10:00:00Z", "2024-08-20T10:00:00-0330": "2024-08-20T13:30:00Z", "2024-08-20": "2024-08-19T22:00:00Z",
		"2024-13-01": "", "2024-08-20T25:00:00": "", "yesterday": "", "1e30": "", "2024-08-20T10:00:00+": "", "0x10": "", "99999999999999999999": "",
	} {
		us, ok := parseEventTime(s, madrid)
		got := ""
		if ok {
			got = time.UnixMicro(us).UTC().Format(time.RFC3339Nano)
		}
		if got != want {
			t.Errorf("%q is %q, want %q", s, got, want)
		}
	}
}

// A time that clocks skip counts with the offset before the change, one that they show twice with the first pass, east and
// west of Greenwich, whether it is read from a text or cast from what a clock showed.
func TestTimesThatClocksSkipOrShowTwice(t *testing.T) {
	e := testEngine(t)
	for _, c := range []struct{ zone, shown, want string }{
		{"Europe/Madrid", "2024-03-31 02:30:00", "2024-03-31T01:30:00Z"},
		{"Europe/Madrid", "2024-10-27 02:30:00", "2024-10-27T00:30:00Z"},
		{"Europe/Madrid", "2024-10-27 03:00:00", "2024-10-27T02:00:00Z"},
		{"America/New_York", "2024-03-10 02:30:00", "2024-03-10T07:30:00Z"},
		{"America/New_York", "2024-03-10 03:00:00", "2024-03-10T07:00:00Z"},
		{"America/New_York", "2024-11-03 01:30:00", "2024-11-03T05:30:00Z"},
		{"Australia/Lord_Howe", "2024-10-06 02:15:00", "2024-10-05T15:45:00Z"},
		{"Australia/Lord_Howe", "2024-04-07 01:45:00", "2024-04-06T14:45:00Z"},
		{"America/Sao_Paulo", "2018-11-04 00:00:00", "2018-11-04T03:00:00Z"},
		{"Pacific/Apia", "2011-12-30 12:00:00", "2011-12-30T22:00:00Z"}, // a day that Samoa did not have
		{"Pacific/Apia", "2011-12-31 00:00:00", "2011-12-30T10:00:00Z"},
	} {
		z, err := zone(c.zone)
		if err != nil {
			t.Fatal(err)
		}
		read, ok := parseEventTime(c.shown, z)
		if got := time.UnixMicro(read).UTC().Format(time.RFC3339); !ok || got != c.want {
			t.Errorf("%s in %s is read as %s, want %s", c.shown, c.zone, got, c.want)
		}
		r := &renderer{zone: c.zone}
		sql := "SELECT epoch_us(" + r.cast(rendered{value: "TIMESTAMP " + quoteText(c.shown), kind: kindWall}, delta.Timestamp).value + ")"
		err = e.with(context.Background(), func(conn *conn) error {
			return conn.each(context.Background(), sql, func(row []any) error {
				if got := time.UnixMicro(row[0].(int64)).UTC().Format(time.RFC3339); got != c.want {
					t.Errorf("%s in %s is cast to %s, want %s", c.shown, c.zone, got, c.want)
				}
				return nil
			})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Eight digits are no time, with blanks around them either.
func TestDaysWithoutDashesAreNoTimes(t *testing.T) {
	for _, s := range []string{"20240820", " 20240820 ", "20240820  "} {
		if us, ok := parseISO(s, time.UTC); ok {
			t.Errorf("%q is %d", s, us)
		}
	}
}

// The scanner accepts what encoding/json accepts as an object, and finds the same values.
func FuzzJSONRecord(f *testing.F) {
	for _, s := range []string{`{"t":1,"T":"x"}`, `{"a":{"b":[1,{"c":null}]},"a.b":3}`, `{"t":1e5,"t":null}`, `{"s":"\ud83d\ude00\n"}`, `[1]`, `{`, `{"a":01}`, `{"a":"\x"}`, `{} x`, ``} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := newJSONScanner([]string{"t", "T", "a.b", "s"})
		err := s.record(b)
		var want map[string]json.RawMessage
		jerr := json.Unmarshal(b, &want)
		if err == nil && jerr != nil {
			t.Fatalf("%q: accepted, encoding/json says %v", b, jerr)
		}
		if err != nil {
			return // UTF-8 is checked more strictly
		}
		for i, n := range []string{"t", "T"} {
			raw, ok := want[n]
			ok = ok && string(raw) != "null"
			if ok != s.values[i].set {
				t.Fatalf("%q: %s set is %t", b, n, s.values[i].set)
			}
			var text string
			if ok && json.Unmarshal(raw, &text) == nil && text != s.values[i].text {
				t.Fatalf("%q: %s is %q, want %q", b, n, s.values[i].text, text)
			}
		}
	})
}

// nativeCast casts texts while they are read, as castColumn does in SQL.
func nativeCast(t testing.TB, e *Engine, typ delta.Type, eventTime bool, texts []string) []string {
	t.Helper()
	reads := &rawReads{zone: time.UTC, fields: []string{"x"}, at: map[string]int{"x": 0}, texts: []int{1}}
	value, failed, ok := reads.native("x", typ, eventTime)
	if !ok {
		t.Fatalf("%s is not cast while it is read", typ)
	}
	ctx := context.Background()
	b := newRecordBatches(reads)
	stream := newBatchStream(ctx, b.arrowSchema(), func(_ context.Context, send func(arrow.RecordBatch) bool) error {
		for _, s := range texts {
			b.text(0, s)
			b.rows++
		}
		send(b.flush())
		return nil
	})
	var out []string
	err := e.with(ctx, func(c *conn) error {
		view := e.name("input_")
		release, err := c.register(stream, view)
		if err != nil {
			return err
		}
		defer release()
		return c.each(ctx, fmt.Sprintf("SELECT CASE WHEN %s THEN 'fails' ELSE COALESCE(CAST(%s AS VARCHAR), 'null') END FROM %s", failed, value, view), func(row []any) error {
			out = append(out, row[0].(string))
			return nil
		})
	})
	if streamErr := stream.stop(); streamErr != nil || err != nil {
		t.Fatal(err, streamErr)
	}
	return out
}

// A cast means the same whether it is made while a record is read or in SQL.
func TestNativeCastsEqualSQL(t *testing.T) {
	e := testEngine(t)
	word := rapid.SampledFrom([]string{"true", "False", "T", "YES", "off", " no ", "nan", "-Infinity", "2024-08-20", "2024-02-30", "20240820", "2024-08-20T10:11:12.5Z", "2024-08-20 10:11:12",
		"2024-08-20T10:11:12+02:00", "1724112000", "1724112000123", "1724112000123456", "99999999999999999", "100000000000000000", "", " ", "\t", "día", "-1", "0001-01-01", "9999-12-31T23:59:59.999999Z"})
	cell := rapid.OneOf(numberText, word)
	rapid.Check(t, func(rt *rapid.T) {
		texts := rapid.SliceOfN(cell, 30, 30).Draw(rt, "texts")
		p := rapid.IntRange(1, 38).Draw(rt, "precision")
		for _, typ := range []delta.Type{delta.Long, delta.Integer, delta.Short, delta.Byte, delta.Double, delta.Boolean, delta.Date, delta.Timestamp, delta.TimestampNTZ,
			delta.Decimal{P: p, S: rapid.IntRange(0, p).Draw(rt, "scale")}} {
			got, want := nativeCast(t, e, typ, false, texts), castColumn(t, e, typ, texts)
			for i := range texts {
				if got[i] != want[i] {
					rt.Fatalf("%q as %s: %s while it is read, %s in SQL", texts[i], typ, got[i], want[i])
				}
			}
		}
		for i, got := range nativeCast(t, e, delta.Timestamp, true, texts) {
			us, ok := parseEventTime(texts[i], time.UTC)
			want := "fails"
			if ok {
				want = time.UnixMicro(us).UTC().Format("2006-01-02 15:04:05.999999")
			} else if strings.Trim(texts[i], blanks) == "" {
				want = "null"
			}
			if got != want {
				rt.Fatalf("to_event_time(%q) is %s, not %s", texts[i], got, want)
			}
		}
	})
}

// The text of a decimal has a digit before the point whatever its type (docs/canonical-text.md): Spark's and the pure-Go
// engine's have one.
func TestTextOfDecimals(t *testing.T) {
	e := testEngine(t)
	for _, c := range []struct {
		typ        delta.Decimal
		text, want string
	}{
		{delta.Decimal{P: 4, S: 4}, "0.25", "0.2500"}, {delta.Decimal{P: 4, S: 4}, "-0.0001", "-0.0001"}, {delta.Decimal{P: 4, S: 4}, "0", "0.0000"},
		{delta.Decimal{P: 5, S: 4}, "-0.25", "-0.2500"}, {delta.Decimal{P: 5, S: 0}, "12", "12"}, {delta.Decimal{P: 20, S: 20}, "-.5", "-0.50000000000000000000"},
	} {
		x := fmt.Sprintf("CAST('%s' AS %s)", c.text, sqlType(c.typ, true))
		for what, sql := range map[string]string{"text": textOf(rendered{value: x, kind: kindDecimal}), "canonical text": canonical(c.typ, x)} {
			err := e.with(context.Background(), func(conn *conn) error {
				return conn.each(context.Background(), "SELECT "+sql, func(row []any) error {
					if row[0] != c.want {
						t.Errorf("%s of %s in %s: %v, want %s", what, c.text, c.typ, row[0], c.want)
					}
					return nil
				})
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Characters are counted alike in a column that DuckDB knows to be ASCII and in one that it does not, of which its own substr takes
// other ones where the first stands before the text.
func TestSubstrCountsAlike(t *testing.T) {
	e := testEngine(t)
	whole := func(sql string) rendered { return rendered{value: sql, kind: kindInt} }
	for _, text := range []string{"abc", "añc", ""} {
		letters := []rune(text)
		want := func(from, to int64) string { // as positions from 0, the last one left out
			n := int64(len(letters))
			from, to = min(max(from, 0), n), min(max(to, 0), n)
			return string(letters[from:max(from, to)])
		}
		es := []pipeline.Expr{pipeline.Name{Name: "t"}, pipeline.Name{Name: "s"}, pipeline.Name{Name: "c"}}
		args := []rendered{{value: "t", kind: kindText}, whole("s"), whole("c")}
		sql := "SELECT s, c, " + substr(es, args) + ", " + substr(es[:2], args[:2]) + " FROM (SELECT " + quoteText(text) + " AS t, unnest(range(-6, 7)) AS s), " +
			"(SELECT unnest([-9223372036854775808, -2, -1, 0, 1, 2, 3, 4, 5, 6, 9223372036854775807]) AS c)"
		rows := 0
		err := e.with(context.Background(), func(conn *conn) error {
			return conn.each(context.Background(), sql, func(row []any) error {
				rows++
				from, count := row[0].(int64), row[1].(int64)
				first := int64(-1)
				switch {
				case from > 0:
					first = from - 1
				case from < 0:
					first = int64(len(letters)) + from
				}
				if some := want(first, first+min(max(count, 0), 100)); row[2] != some {
					t.Errorf("substr(%q, %d, %d) is %q, want %q", text, from, count, row[2], some)
				}
				if all := want(first, 100); row[3] != all {
					t.Errorf("substr(%q, %d) is %q, want %q", text, from, row[3], all)
				}
				return nil
			})
		})
		if err != nil || rows != 13*11 {
			t.Fatalf("%d rows, %v", rows, err)
		}
	}
}
