package delta

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/cauce-data/cauce/objstore"
)

// PROTOCOL.md, "Per-file Statistics": what is kept of long strings bounds them.
func TestStatsStringBounds(t *testing.T) {
	letters := []rune{'a', 'z', '~', 0x7F, 0x80, 'é', 0xFFFD, 0xFFFF, 0x10000, utf8.MaxRune}
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringOfN(rapid.RuneFrom(letters), 0, 80, -1).Draw(t, "s")
		lo := StatsMin(s)
		if lo > s || utf8.RuneCountInString(lo) > statsStringMax || !utf8.ValidString(lo) {
			t.Fatalf("lower bound %q of %q", lo, s)
		}
		hi, ok := StatsMax(s)
		if ok && (hi < s || !utf8.ValidString(hi)) {
			t.Fatalf("upper bound %q of %q", hi, s)
		}
		if !ok && strings.Trim(s[len(lo):], string(utf8.MaxRune)) != "" {
			t.Fatalf("no upper bound of %q", s)
		}
		if utf8.RuneCountInString(s) <= statsStringMax && (lo != s || hi != s || !ok) {
			t.Fatalf("a short string is not kept: %q %q", lo, hi)
		}
	})
	long := strings.Repeat("x", 32)
	for in, want := range map[string]string{
		long + "a": long + "\x7f", long + "\x7f": long + string(utf8.MaxRune), long + "é": long + string(utf8.MaxRune),
		long + string(utf8.MaxRune) + "b": long + string(utf8.MaxRune) + "\x7f",
	} {
		if got, ok := StatsMax(in); !ok || got != want {
			t.Errorf("upper bound of %q is %q, want %q", in, got, want)
		}
	}
	for _, in := range []string{long + string(utf8.MaxRune), long + "a\xff", "a\xff"} {
		if got, ok := StatsMax(in); ok {
			t.Errorf("upper bound of %q is %q, want none", in, got)
		}
	}
}

func TestParseStats(t *testing.T) {
	s, err := ParseStats(`{"numRecords":3,"minValues":{"d":12345678901234567890123456789.012345678,"n":{"x":9007199254740993}},"maxValues":{"s":"z","b":true},"nullCount":{"d":0,"n":{"x":3.0},"bad":"x"},"tightBounds":false,"new":[1]}`)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.JSON(); got != `{"numRecords":3,"minValues":{"d":12345678901234567890123456789.012345678,"n":{"x":9007199254740993}},"maxValues":{"b":true,"s":"z"},"nullCount":{"d":0,"n":{"x":3}},"tightBounds":false}` {
		t.Error(got)
	}
	if s, err := ParseStats(""); err != nil || s.NumRecords != -1 || s.JSON() != "{}" {
		t.Error(s, err)
	}
	for _, in := range []string{"{", "[]", `{"numRecords":-1}`, `{"numRecords":"x"}`, `{"numRecords":1.5}`, `{"minValues":3}`} {
		if _, err := ParseStats(in); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func FuzzParseStats(f *testing.F) {
	f.Add(`{"numRecords":3,"minValues":{"a":1e5},"nullCount":{"a":{"b":1}},"tightBounds":true}`)
	f.Fuzz(func(t *testing.T, in string) {
		s, err := ParseStats(in)
		if err != nil {
			return
		}
		again, err := ParseStats(s.JSON())
		if err != nil || again.JSON() != s.JSON() {
			t.Fatalf("%q gives %s, which gives %v", in, s.JSON(), err)
		}
	})
}

func TestPartitionValues(t *testing.T) {
	at := time.Date(2024, 8, 20, 12, 34, 56, 789_000_000, time.UTC)
	for _, c := range []struct {
		typ  Type
		v    any
		text string
	}{
		{String, "a/b=c %é", "a/b=c %é"}, {Long, int64(-5), "-5"}, {Integer, int64(7), "7"}, {Boolean, true, "true"},
		{Date, Days(19955), "2024-08-20"}, {Date, Days(-719162), "0001-01-01"}, {Timestamp, at, "2024-08-20T12:34:56.789000Z"},
		{Date, Days(2932897), "+10000-01-01"}, {Date, Days(time.Date(-44, 3, 15, 0, 0, 0, 0, time.UTC).Unix() / 86400), "-0044-03-15"}, {Timestamp, at.AddDate(10000, 0, 0), "+12024-08-20T12:34:56.789000Z"},
		{TimestampNTZ, at.AddDate(-2025, 0, 0), "-0001-08-20 12:34:56.789000"},
		{TimestampNTZ, at, "2024-08-20 12:34:56.789000"}, {Decimal{10, 2}, Number("12.30"), "12.30"}, {Double, 1.5, "1.5"},
		{Double, math.Inf(1), "Infinity"}, {Double, 1e300, "1E+300"}, {Float, float64(float32(0.1)), "0.1"}, {Binary, []byte{0, 255, 'a'}, "\x00ÿa"},
	} {
		s, err := FormatPartitionValue(c.typ, c.v)
		if err != nil || s == nil || *s != c.text {
			t.Errorf("%v of %s is %v, %v; want %q", c.v, c.typ, s, err, c.text)
			continue
		}
		back, err := ParsePartitionValue(c.typ, s)
		if err != nil || !sameValue(back, c.v) {
			t.Errorf("%q as %s is %#v, %v; want %#v", *s, c.typ, back, err, c.v)
		}
	}
	// The empty string and null cannot be told apart.
	empty := ""
	for _, p := range []*string{nil, &empty} {
		if v, err := ParsePartitionValue(String, p); v != nil || err != nil {
			t.Error(v, err)
		}
	}
	if s, err := FormatPartitionValue(String, ""); s != nil || err != nil {
		t.Error(s, err)
	}
	// Both forms of timestamps, with and without fraction and zone.
	for in, want := range map[string]string{
		"2024-08-20 12:34:56": "2024-08-20T12:34:56Z", "2024-08-20 12:34:56.5": "2024-08-20T12:34:56.5Z", "2024-08-20T12:34:56.123456Z": "2024-08-20T12:34:56.123456Z",
		"2024-08-20T12:34:56+02:00": "2024-08-20T10:34:56Z", "2024-08-20": "2024-08-20T00:00:00Z", "2024-08-20 12:34:56.123-0330": "2024-08-20T16:04:56.123Z",
		"10000-01-01 00:30:00.5+01:00": "9999-12-31T23:30:00.5Z",
	} {
		v, err := ParsePartitionValue(Timestamp, &in)
		if err != nil || v.(time.Time).Format(time.RFC3339Nano) != want {
			t.Errorf("%q is %v, %v; want %s", in, v, err, want)
		}
	}
	for _, c := range []struct {
		typ Type
		s   string
	}{{Long, "x"}, {Long, "1.5"}, {Boolean, "yes"}, {Date, "20.08.2024"}, {Date, "2024-13-01"}, {Date, "2023-02-29"}, {Date, "24-08-20"}, {Date, "+99999999-01-01"}, {Date, "9999999-01-01"}, {Date, "2024-08-20 "}, {Timestamp, "noon"}, {Timestamp, "2024-08-20T12:34"},
		{Decimal{5, 1}, "1/3"}, {Decimal{5, 1}, "1e999999999"}, {Decimal{5, 1}, "10000"}, {Decimal{5, 1}, "-1e4"}, {Decimal{5, 5}, "1"}, {Decimal{5, 1}, "1.25"},
		{Byte, "128"}, {Byte, "-129"}, {Short, "32768"}, {Integer, "2147483648"}, {Long, "9223372036854775808"}, {Double, "one"}, {&Array{Element: Long}, "[1]"}} {
		if v, err := ParsePartitionValue(c.typ, &c.s); err == nil {
			t.Errorf("%q as %s is %v", c.s, c.typ, v)
		}
	}
	if _, err := FormatPartitionValue(Date, "2024-08-20"); err == nil {
		t.Error("a string is taken for a date")
	}
}

func sameValue(a, b any) bool {
	if x, ok := a.(time.Time); ok {
		y, ok := b.(time.Time)
		return ok && x.Equal(y)
	}
	if x, ok := a.([]byte); ok {
		y, ok := b.([]byte)
		return ok && string(x) == string(y)
	}
	return a == b
}

func FuzzPartitionValue(f *testing.F) {
	for _, s := range []string{"", "2024-08-20", "2024-08-20 12:34:56.123", "1e5", "-0.0", "true", "NaN", "\x00ÿ"} {
		f.Add(s)
	}
	types := []Type{String, Long, Boolean, Date, Timestamp, TimestampNTZ, Float, Double, Binary, Decimal{38, 10}, Decimal{5, 0}}
	f.Fuzz(func(t *testing.T, in string) {
		for _, typ := range types {
			v, err := ParsePartitionValue(typ, &in)
			if err != nil || v == nil {
				continue
			}
			s, err := FormatPartitionValue(typ, v)
			if err != nil {
				t.Fatalf("%q as %s is %#v, which cannot be written: %v", in, typ, v, err)
			}
			if s == nil {
				continue
			}
			back, err := ParsePartitionValue(typ, s)
			if err != nil {
				t.Fatalf("%q as %s is %#v, written %q: %v", in, typ, v, *s, err)
			}
			if x, ok := v.(float64); ok && math.IsNaN(x) {
				continue
			}
			if !sameValue(v, back) {
				t.Fatalf("%q as %s is %#v, written %q, read %#v", in, typ, v, *s, back)
			}
		}
	})
}

// FACTS of the protocol: a path is an RFC 2396 URI, decoded once; hive's own escaping lies below.
func TestPaths(t *testing.T) {
	day, odd := "2024-08-20", "a b/c%d:é"
	folder := PartitionFolder([]string{"day", "s", "n"}, map[string]*string{"day": &day, "s": &odd, "n": nil})
	if want := "day=2024-08-20/s=a b%2Fc%25d%3Aé/n=__HIVE_DEFAULT_PARTITION__"; folder != want {
		t.Fatalf("folder %q, want %q", folder, want)
	}
	path := EncodePath(folder + "/part-0.parquet")
	if want := "day=2024-08-20/s=a%20b%252Fc%2525d%253A%C3%A9/n=__HIVE_DEFAULT_PARTITION__/part-0.parquet"; path != want {
		t.Fatalf("path %q, want %q", path, want)
	}
	info := TableInfo{Store: objstore.NewMemory(nil), Path: "lake/t"}
	if key, err := info.FileKey(path); err != nil || key != "lake/t/"+folder+"/part-0.parquet" {
		t.Fatalf("key %q, %v", key, err)
	}
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.StringMatching(`[ -~éü/]{1,20}x`).Draw(t, "path")
		p = strings.Trim(p, "/")
		if back, err := decodePath(EncodePath(p)); err != nil || back != p {
			t.Fatalf("%q encoded is %q, decoded %q, %v", p, EncodePath(p), back, err)
		}
	})
	local := localStore(t, t.TempDir())
	root := strings.TrimPrefix(local.URL(), "file://")
	info = TableInfo{Store: local, Path: "t"}
	for in, want := range map[string]string{
		"file:" + root + "/t/x": "t/x", "file://" + root + "/other/x%20y": "other/x y", root + "/t/x": "t/x", "x+y": "t/x+y", "a:b": "t/a:b",
		"s3%3A//b/x": "t/s3:/b/x", "abc%3Ad": "t/abc:d", "p=1/abc:d": "t/p=1/abc:d",
	} {
		if got, err := info.FileKey(in); err != nil || got != want {
			t.Errorf("%q is %q, %v; want %q", in, got, err, want)
		}
	}
	for in, want := range map[string]error{
		"s3://bucket/x": ErrUnsupported, "/elsewhere/x": ErrUnsupported, "file:/elsewhere/x": ErrUnsupported, "../x": ErrCorrupt, "a/../../x": ErrCorrupt, "%zz": ErrCorrupt,
	} {
		if got, err := info.FileKey(in); !errors.Is(err, want) {
			t.Errorf("%q is %q, %v; want %v", in, got, err, want)
		}
	}
}

func TestParseInterval(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"interval 30 days": 720 * time.Hour, "7 days": 168 * time.Hour, "INTERVAL 1 week 2 hours": 170 * time.Hour, "interval 0 seconds": 0, "interval 5 minute": 5 * time.Minute,
	} {
		if got, err := parseInterval(in); err != nil || got != want {
			t.Errorf("%q is %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "interval", "1", "1 month", "x days", "-1 days", "interval 99999999999 weeks", "1 days 2"} {
		if got, err := parseInterval(in); err == nil {
			t.Errorf("%q is %v", in, got)
		}
	}
}
