package delta

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cauce-data/cauce/objstore"
)

// pruneColumns is a table with every type that pruning looks at; p and q are partition columns.
var pruneColumns = []Field{
	{Name: "l", Type: Long, Nullable: true}, {Name: "i", Type: Integer, Nullable: true}, {Name: "d", Type: Decimal{30, 3}, Nullable: true},
	{Name: "f", Type: Float, Nullable: true}, {Name: "g", Type: Double, Nullable: true}, {Name: "s", Type: String, Nullable: true},
	{Name: "b", Type: Boolean, Nullable: true}, {Name: "a", Type: Date, Nullable: true}, {Name: "t", Type: Timestamp, Nullable: true},
	{Name: "u", Type: TimestampNTZ, Nullable: true}, {Name: "p", Type: Date, Nullable: true}, {Name: "q", Type: String, Nullable: true},
	{Name: "none", Type: Long, Nullable: true}, // without statistics
}

// drawValue draws a value of a column from a range so small that bounds are hit often.
func drawValue(t *rapid.T, typ Type) any {
	n := rapid.Int64Range(-3, 3).Draw(t, "n")
	switch typ {
	case Long, Integer:
		if typ == Long && rapid.IntRange(0, 5).Draw(t, "big") == 0 {
			return math.MaxInt64 - n - 3
		}
		return n
	case Float:
		if n == 3 {
			return math.NaN()
		}
		return float64(float32(n) / 10)
	case Double:
		if n == 3 {
			return math.NaN()
		}
		return float64(n) / 10
	case String:
		s := strings.Repeat("x", int(30+n)) + rapid.SampledFrom([]string{"", "a", "b", "~", "\x7f", "é", "\U0010ffff"}).Draw(t, "end")
		return s[int(rapid.Int64Range(0, 1).Draw(t, "cut"))*25:]
	case Boolean:
		return n > 0
	case Date:
		return Days(n)
	case Timestamp, TimestampNTZ:
		base := rapid.SampledFrom([]int64{0, 1_700_000_000_000_000, -3_000_000_000_000_000}).Draw(t, "base")
		return time.UnixMicro(base + n*400).UTC()
	default:
		return Number(fmt.Sprintf("%d.%03d", 12345678901234567+n, rapid.IntRange(0, 2).Draw(t, "frac")))
	}
}

// compareGo orders two values as SQL does; NaN is greater than every other number.
func compareGo(a, b any) int {
	cmp := func(x, y float64) int {
		switch {
		case math.IsNaN(x) && math.IsNaN(y), x == y:
			return 0
		case math.IsNaN(y), x < y:
			return -1
		}
		return 1
	}
	switch a := a.(type) {
	case int64:
		switch b := b.(type) {
		case float64:
			return cmp(float64(a), b)
		case Number:
			r, _ := new(big.Rat).SetString(string(b))
			return new(big.Rat).SetInt64(a).Cmp(r)
		}
		return cmpOf(a, b.(int64))
	case float64:
		switch b := b.(type) {
		case int64:
			return cmp(a, float64(b))
		case Number:
			f, _ := strconv.ParseFloat(string(b), 64)
			return cmp(a, f)
		}
		return cmp(a, b.(float64))
	case string:
		return strings.Compare(a, b.(string))
	case bool:
		x, y := 0, 0
		if a {
			x = 1
		}
		if b.(bool) {
			y = 1
		}
		return x - y
	case Days:
		return int(a) - int(b.(Days))
	case time.Time:
		return a.Compare(b.(time.Time))
	case Number:
		x, _ := new(big.Rat).SetString(string(a))
		switch b := b.(type) {
		case int64:
			return x.Cmp(new(big.Rat).SetInt64(b))
		case float64:
			f, _ := x.Float64()
			return cmp(f, b)
		}
		y, _ := new(big.Rat).SetString(string(b.(Number)))
		return x.Cmp(y)
	}
	panic(fmt.Sprintf("%T", a))
}

// eval gives SQL's three values: 1, 0, or -1 for null.
func eval(p Predicate, row map[string]any) int {
	yes := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	switch p := p.(type) {
	case Compare:
		v := row[p.Column]
		if v == nil || p.Value == nil {
			return -1
		}
		c := compareGo(v, p.Value)
		switch p.Op {
		case "=":
			return yes(c == 0)
		case "<>":
			return yes(c != 0)
		case "<":
			return yes(c < 0)
		case "<=":
			return yes(c <= 0)
		case ">":
			return yes(c > 0)
		default:
			return yes(c >= 0)
		}
	case In:
		res := 0
		for _, v := range p.Values {
			switch eval(Compare{p.Column, "=", v}, row) {
			case 1:
				return 1
			case -1:
				res = -1
			}
		}
		return res
	case IsNull:
		return yes(row[p.Column] == nil)
	case Not:
		switch eval(p.Inner, row) {
		case 1:
			return 0
		case 0:
			return 1
		}
		return -1
	case andPredicate:
		res := 1
		for _, q := range p {
			switch eval(q, row) {
			case 0:
				return 0
			case -1:
				res = -1
			}
		}
		return res
	case orPredicate:
		res := 0
		for _, q := range p {
			switch eval(q, row) {
			case 1:
				return 1
			case -1:
				res = -1
			}
		}
		return res
	}
	panic("predicate")
}

func drawPredicate(t *rapid.T, depth int) Predicate {
	k := rapid.IntRange(0, 9).Draw(t, "predicate")
	if depth == 0 {
		k = k % 6
	}
	f := rapid.SampledFrom(pruneColumns).Draw(t, "column")
	value := func() any {
		if rapid.IntRange(0, 11).Draw(t, "null") == 0 {
			return nil
		}
		v := drawValue(t, f.Type)
		// Values of a kindred type.
		if n, ok := v.(int64); ok && rapid.IntRange(0, 3).Draw(t, "kin") == 0 {
			switch rapid.IntRange(0, 1).Draw(t, "to") {
			case 0:
				return float64(n) + 0.5
			default:
				return Number(fmt.Sprint(n, ".0"))
			}
		}
		if x, ok := v.(float64); ok && !math.IsNaN(x) && rapid.IntRange(0, 3).Draw(t, "kin") == 0 {
			return int64(x)
		}
		return v
	}
	switch k {
	case 0:
		return IsNull{f.Name}
	case 1:
		vs := make([]any, rapid.IntRange(0, 3).Draw(t, "values"))
		for i := range vs {
			vs[i] = value()
		}
		return In{f.Name, vs}
	case 6:
		return And(drawPredicate(t, depth-1), drawPredicate(t, depth-1))
	case 7:
		return Or(drawPredicate(t, depth-1), drawPredicate(t, depth-1))
	case 8, 9:
		return Not{drawPredicate(t, depth-1)}
	}
	return Compare{f.Name, rapid.SampledFrom([]string{"=", "<>", "<", "<=", ">", ">="}).Draw(t, "op"), value()}
}

// statsOf makes the statistics of rows as writers do. style 0 keeps all digits; 1 cuts timestamps down to
// milliseconds, as Spark does. Writers leave NaN out of bounds; so must whoever reads them expect.
func statsOf(rows []map[string]any, style int) string {
	st := Stats{NumRecords: int64(len(rows)), MinValues: map[string]any{}, MaxValues: map[string]any{}, NullCount: map[string]any{}}
	for _, f := range pruneColumns {
		if f.Name == "p" || f.Name == "q" || f.Name == "none" {
			continue
		}
		nulls := int64(0)
		var lo, hi any
		for _, r := range rows {
			v := r[f.Name]
			if v == nil {
				nulls++
				continue
			}
			if x, ok := v.(float64); ok && math.IsNaN(x) {
				continue
			}
			if lo == nil || compareGo(v, lo) < 0 {
				lo = v
			}
			if hi == nil || compareGo(v, hi) > 0 {
				hi = v
			}
		}
		st.NullCount[f.Name] = nulls
		if lo == nil {
			continue
		}
		switch lo := lo.(type) {
		case int64:
			st.MinValues[f.Name], st.MaxValues[f.Name] = json.Number(fmt.Sprint(lo)), json.Number(fmt.Sprint(hi))
		case float64:
			bits := 64
			if f.Type == Float {
				bits = 32
			}
			st.MinValues[f.Name] = json.Number(strconv.FormatFloat(lo, 'g', -1, bits))
			st.MaxValues[f.Name] = json.Number(strconv.FormatFloat(hi.(float64), 'g', -1, bits))
		case string:
			st.MinValues[f.Name] = StatsMin(lo)
			if m, ok := StatsMax(hi.(string)); ok {
				st.MaxValues[f.Name] = m
			}
		case bool:
			st.MinValues[f.Name], st.MaxValues[f.Name] = lo, hi
		case Days:
			st.MinValues[f.Name], st.MaxValues[f.Name] = StatsDate(int32(lo)), StatsDate(int32(hi.(Days)))
		case time.Time:
			text := func(t time.Time) string { return StatsTimestamp(t.UnixMicro()) }
			if f.Type == TimestampNTZ {
				text = func(t time.Time) string { return StatsTimestampNTZ(t.UnixMicro()) }
			}
			if style == 1 {
				full := text
				text = func(t time.Time) string {
					s := full(t)
					zone := strings.TrimLeft(s[26:], "0123456789")
					return s[:23] + zone
				}
			}
			st.MinValues[f.Name], st.MaxValues[f.Name] = text(lo), text(hi.(time.Time))
		case Number:
			st.MinValues[f.Name], st.MaxValues[f.Name] = json.Number(lo), json.Number(hi.(Number))
		}
	}
	return st.JSON()
}

// TestPruneNeverLosesRows: a file that holds a row of the predicate is never left out; and pruning is worth something.
func TestPruneNeverLosesRows(t *testing.T) {
	tab, err := Create(context.Background(), objstore.NewMemory(nil), "t", CreateOptions{Schema: &Schema{Fields: pruneColumns}, PartitionBy: []string{"p", "q"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := mustSnapshot(t, tab)
	pruned, needless, cases := 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		rows := make([]map[string]any, rapid.IntRange(1, 4).Draw(t, "rows"))
		var day, q any
		if rapid.IntRange(0, 3).Draw(t, "day") > 0 {
			day = drawValue(t, Date)
		}
		if rapid.IntRange(0, 3).Draw(t, "q") > 0 {
			q = drawValue(t, String)
			if q == "" {
				q = nil
			}
		}
		for i := range rows {
			rows[i] = map[string]any{"p": day, "q": q}
			for _, f := range pruneColumns {
				if f.Name != "p" && f.Name != "q" && rapid.IntRange(0, 3).Draw(t, "has") > 0 {
					rows[i][f.Name] = drawValue(t, f.Type)
				}
			}
		}
		a := &Add{Path: "x", PartitionValues: map[string]*string{}, Stats: statsOf(rows, rapid.IntRange(0, 1).Draw(t, "style"))}
		for name, v := range map[string]any{"p": day, "q": q} {
			f, _ := s.Schema().Field(name)
			text, err := FormatPartitionValue(f.Type, v)
			if err != nil {
				t.Fatal(err)
			}
			a.PartitionValues[name] = text
		}
		if rapid.IntRange(0, 3).Draw(t, "vector") == 0 && len(rows) > 1 {
			// Rows that a vector marks are still in the statistics.
			rows = rows[:len(rows)-1]
			no := false
			st, _ := ParseStats(a.Stats)
			st.TightBounds = &no
			a.Stats = st.JSON()
		}
		for range 10 {
			p := drawPredicate(t, 2)
			has := false
			for _, r := range rows {
				has = has || eval(p, r) == 1
			}
			may := s.mayMatch(p, a)
			if has && !may {
				t.Fatalf("predicate %+v prunes a file with its rows:\n%v\n%s", p, rows, a.Stats)
			}
			cases++
			if !may {
				pruned++
			} else if !has {
				needless++
			}
		}
	})
	t.Logf("%d predicates: %d files pruned, %d read for nothing", cases, pruned, needless)
	if pruned < cases/5 {
		t.Errorf("only %d of %d files pruned", pruned, cases)
	}
}

func TestPrune(t *testing.T) {
	ctx := context.Background()
	tab, err := Create(ctx, objstore.NewMemory(nil), "t", CreateOptions{Schema: &Schema{Fields: pruneColumns}, PartitionBy: []string{"p", "q"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	x := tab.Begin(mustSnapshot(t, tab))
	add := func(path, day, stats string) {
		a := testAdd(path, "p", day, "q", "k")
		a.Stats = stats
		x.AddFile(a)
	}
	add("d1", "2024-08-20", `{"numRecords":2,"minValues":{"l":1,"t":"2024-08-20T00:00:00.000Z","s":"a"},"maxValues":{"l":9,"t":"2024-08-20T11:59:59.999Z","s":"m"},"nullCount":{"l":0,"s":2}}`)
	add("d2", "2024-08-21", `{"numRecords":2,"minValues":{"l":10},"maxValues":{"l":19},"nullCount":{"l":1}}`)
	add("d3", "2024-08-22", "")
	add("d4", "2024-08-23", `{"numRecords":2,"minValues":{"l":"x","t":5},"nullCount":{"l":"y"}}`)
	add("d5", "2024-08-24", `{`)
	if _, err := x.Commit(ctx, CommitOptions{}); err != nil {
		t.Fatal(err)
	}
	s := mustSnapshot(t, tab)
	day := func(s string) Days { d, _ := parseDate(s); return d }
	for _, c := range []struct {
		p    Predicate
		want string
	}{
		{nil, "d1 d2 d3 d4 d5"},
		{And(Compare{"p", ">=", day("2024-08-20")}, Compare{"P", "<=", day("2024-08-21")}), "d1 d2"},
		{Compare{"p", "=", "2024-08-22"}, "d3"},
		{Compare{"p", "=", "2024-8-22"}, "d1 d2 d3 d4 d5"}, // not a date as it should be: nothing is known
		{Compare{"l", ">", int64(9)}, "d2 d3 d4 d5"},
		{Compare{"l", "=", Number("9.5")}, "d3 d4 d5"},
		{Compare{"l", "<", int32(1)}, "d3 d4 d5"},
		{In{"l", []any{int64(0), int64(19)}}, "d2 d3 d4 d5"},
		{IsNull{"l"}, "d2 d3 d4 d5"},
		{Not{IsNull{"s"}}, "d2 d3 d4 d5"},
		{Compare{"l", "=", nil}, ""},
		{Compare{"unknown", "=", int64(1)}, "d1 d2 d3 d4 d5"},
		{Compare{"l", "~", int64(1)}, "d1 d2 d3 d4 d5"},
		{Compare{"l", "=", struct{}{}}, "d1 d2 d3 d4 d5"},
		{Or(Compare{"p", "=", day("2024-08-20")}, Compare{"unknown", "=", int64(1)}), "d1 d2 d3 d4 d5"},
		{Compare{"t", ">", time.Date(2024, 8, 20, 11, 59, 59, 999_500_000, time.UTC)}, "d1 d2 d3 d4 d5"}, // the maximum was cut
		{Compare{"t", ">", time.Date(2024, 8, 20, 12, 0, 0, 0, time.UTC)}, "d2 d3 d4 d5"},
		{Not{nil}, "d1 d2 d3 d4 d5"},
		{And(), "d1 d2 d3 d4 d5"},
		{Or(), ""},
	} {
		var got []string
		for _, a := range s.Prune(c.p) {
			got = append(got, a.Path)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%+v leaves %v, want %s", c.p, got, c.want)
		}
	}
}

func FuzzParseCommit(f *testing.F) {
	f.Add([]byte(`{"commitInfo":{"timestamp":1,"operationParameters":{"a":1,"b":"c","d":[1]},"x":{}}}` + "\n" + `{"add":{"path":"p","partitionValues":{"a":null},"size":1,"dataChange":true,"deletionVector":{"storageType":"u","pathOrInlineDv":"ab","offset":1,"sizeInBytes":1,"cardinality":1}}}`))
	f.Add([]byte(`{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["x"]}}` + "\n\n" + `{"unknown":{}}` + "\n" + `{"remove":{"path":"p","size":3}}` + "\r\n" + `{"txn":{"appId":"a","version":-1}}`))
	f.Add([]byte(`{"metaData":{"id":"i","format":{"provider":"parquet"},"schemaString":"{}","partitionColumns":null}}` + "\n" + `{"domainMetadata":{"domain":"d","configuration":"c","removed":true}}` + "\n" + `{"cdc":{"path":"x"}}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		c, err := parseCommit("k", 1, in)
		if err != nil {
			return
		}
		once, err := c.encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseCommit("k", 1, once)
		if err != nil {
			t.Fatalf("%q gives %s, which gives %v", in, once, err)
		}
		twice, err := again.encode()
		if err != nil || string(once) != string(twice) {
			t.Fatalf("%q gives\n%s, then\n%s, %v", in, once, twice, err)
		}
	})
}
