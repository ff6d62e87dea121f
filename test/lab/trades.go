package lab

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Trade is one generated event.
type Trade struct {
	Symbol        string
	ID            int64
	Price, Amount int64 // in units of 1e-8
	TimeUS        int64 // µs since the epoch
	Maker         bool
}

// EventID is the key of the trade in the table.
func (t Trade) EventID() string { return fmt.Sprintf("%s-%d", t.Symbol, t.ID) }

// Row is what must stand in the table for a trade: the trade, and what decides which of two wins.
type Row struct {
	Trade
	Source               string // batch or stream
	Rank                 int
	Generation, Position int64
}

// after says that r wins over o, by the first columns of the table's order. The generator never makes two rows of one
// key that these leave undecided.
func (r Row) after(o Row) bool {
	for _, d := range []int64{r.TimeUS - o.TimeUS, int64(r.Rank - o.Rank), r.Generation - o.Generation, r.Position - o.Position} {
		if d != 0 {
			return d > 0
		}
	}
	return false
}

// Columns are the columns of unified_events that the generator knows, in the order of Row's text.
var Columns = []string{"event_id", "source", "symbol", "trade_id", "price", "quantity", "event_time", "is_buyer_maker", "event_date"}

// text is the row in the canonical form of Lines.
func (r Row) text() string {
	day := time.UnixMicro(r.TimeUS).UTC().Format(time.DateOnly)
	return strings.Join([]string{
		r.EventID(), r.Source, r.Symbol, fmt.Sprint(r.ID), decimal(r.Price), decimal(r.Amount), fmt.Sprint(r.TimeUS), fmt.Sprint(r.Maker), day,
	}, "|")
}

func decimal(v int64) string { return fmt.Sprintf("%d.%08d", v/1e8, v%1e8) }

// Expected is the table as the generator says it must be: for each key the row that wins. It shares no code with Cauce.
type Expected map[string]Row

// Put offers a row.
func (e Expected) Put(r Row) {
	old, ok := e[r.EventID()]
	if !ok || r.after(old) {
		e[r.EventID()] = r
	}
}

// Lines are the rows in the canonical form, sorted.
func (e Expected) Lines() []string {
	var lines []string
	for _, r := range e {
		lines = append(lines, r.text())
	}
	slices.Sort(lines)
	return lines
}

// Generator makes trades that are a pure function of its seed.
type Generator struct {
	Expected Expected
	rnd      *rand.Rand
	start    time.Time
	days     int
	next     int64
	made     []Trade
	files    int64
	offset   int64
}

// NewGenerator makes trades over the given number of days from 2024-08-18 on.
func NewGenerator(rnd *rand.Rand, days int) *Generator {
	return &Generator{Expected: Expected{}, rnd: rnd, start: time.Date(2024, 8, 18, 0, 0, 0, 0, time.UTC), days: days, next: 1_000_000}
}

var symbols = []string{"BTCUSDT", "ETHUSDT", "BNBUSDT", "SOLUSDT", "XRPUSDT"}

// trade makes a new trade on the given day, or one of any day where day < 0. Times are whole milliseconds, because the
// exchange's events have no finer ones.
func (g *Generator) trade(day int) Trade {
	if day < 0 {
		day = g.rnd.IntN(g.days)
	}
	g.next++
	t := Trade{
		Symbol: symbols[g.rnd.IntN(len(symbols))], ID: g.next,
		Price: 1 + g.rnd.Int64N(9e12), Amount: 1 + g.rnd.Int64N(1e10), Maker: g.rnd.IntN(2) == 0,
		TimeUS: g.start.AddDate(0, 0, day).UnixMicro() + g.rnd.Int64N(86_400_000-3_600_000)*1000,
	}
	g.made = append(g.made, t)
	return t
}

// again makes a correction of an earlier trade: another price, later by up to two days, so that some move to another
// partition; or, now and then, an outdated version of it that must lose.
func (g *Generator) again() Trade {
	t := g.made[g.rnd.IntN(len(g.made))]
	t.Price = 1 + g.rnd.Int64N(9e12)
	switch g.rnd.IntN(4) {
	case 0:
		t.TimeUS -= 1000 * (1 + g.rnd.Int64N(1000))
	case 1:
		t.TimeUS += 86_400_000_000 + 1000*g.rnd.Int64N(86_400_000)
	default:
		t.TimeUS += 1000 * (1 + g.rnd.Int64N(1000))
	}
	return t
}

// Made counts the records of a generated file.
type Made struct {
	Path            string
	Rows, Bad, Good int
}

// History writes dir/historico_<day>[_n].csv with n records of one day: new trades, a tenth corrections of earlier
// ones, and every bad-th record broken (0: none) in a way that must go to quarantine. Each file has its own
// modification time, a second after the one before.
func (g *Generator) History(t testing.TB, dir string, day, n, bad int) Made {
	t.Helper()
	name := fmt.Sprintf("historico_%s_%d.csv", g.start.AddDate(0, 0, day).Format(time.DateOnly), g.files)
	if g.files < int64(g.days) && int(g.files) == day {
		name = fmt.Sprintf("historico_%s.csv", g.start.AddDate(0, 0, day).Format(time.DateOnly))
	}
	g.files++
	mtime := time.Date(2024, 9, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(g.files) * time.Second)
	m := Made{Path: filepath.Join(dir, name), Rows: n}
	var out strings.Builder
	out.WriteString("symbol,trade_id,price,qty,quote_qty,time,is_buyer_maker,is_best_match\n")
	for i := 1; i <= n; i++ {
		tr := g.mix(day)
		price, when := decimal(tr.Price), fmt.Sprint(tr.TimeUS/1000)
		if bad > 0 && i%bad == 0 {
			m.Bad++
			switch g.rnd.IntN(3) {
			case 0:
				price = ""
			case 1:
				price = "-" + price
			case 2:
				when = "yesterday"
			}
		} else {
			m.Good++
			switch g.rnd.IntN(3) { // one instant in three spellings
			case 0:
				when = fmt.Sprint(tr.TimeUS)
			case 1:
				when = time.UnixMicro(tr.TimeUS).UTC().Format("2006-01-02T15:04:05.000Z")
			}
			g.Expected.Put(Row{Trade: tr, Source: "batch", Rank: 0, Generation: mtime.UnixMicro(), Position: int64(i)})
		}
		symbol := tr.Symbol
		if g.rnd.IntN(50) == 0 {
			symbol = " " + strings.ToLower(symbol)
		}
		fmt.Fprintf(&out, "%s,%d,%s,%s,0,%s,%s,True\n", symbol, tr.ID, price, decimal(tr.Amount), when, map[bool]string{true: "True", false: "false"}[tr.Maker])
	}
	write(t, m.Path, out.String())
	if err := os.Chtimes(m.Path, mtime, mtime); err != nil {
		t.Fatal(err)
	}
	return m
}

func (g *Generator) mix(day int) Trade {
	if len(g.made) > 0 && g.rnd.IntN(10) == 0 {
		return g.again()
	}
	return g.trade(day)
}

// Events writes n events of the exchange as JSON lines to path: new trades on the last two days, one in five a
// correction, and some lines that are no trade. They are expected in the order of the file, as if it is sent once; a
// correction that was sent again changes nothing.
func (g *Generator) Events(t testing.TB, path string, n int) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	for i := range n {
		tr := Trade{}
		if len(g.made) > 0 && g.rnd.IntN(5) == 0 {
			tr = g.again()
		} else {
			tr = g.trade(g.days - 1 - g.rnd.IntN(2))
		}
		// One event a millisecond and key: the offset, which the generator does not know when a producer is
		// interrupted and starts over, must decide nothing. Trades of one key differ in time or are the same.
		if old, ok := g.Expected[tr.EventID()]; ok && old.TimeUS == tr.TimeUS {
			tr = old.Trade
		}
		g.offset++
		g.Expected.Put(Row{Trade: tr, Source: "stream", Rank: 1, Position: g.offset})
		ms := tr.TimeUS / 1000
		fmt.Fprintf(w, `{"e":"trade","E":%d,"s":"%s","t":%d,"p":"%s","q":"%s","T":%d,"m":%v,"M":true}`+"\n", ms, tr.Symbol, tr.ID, decimal(tr.Price), decimal(tr.Amount), ms, tr.Maker)
		if i%97 == 0 {
			fmt.Fprintf(w, `{"e":"kline","E":%d,"s":"%s"}`+"\n", ms, tr.Symbol)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
