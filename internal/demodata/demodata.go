// Package demodata makes the sample history of `cauce demo`: trades of several days as an exchange and its users would
// leave them behind, some of them dirty. It stands before everything else and knows nothing of Cauce; the same seed and
// day give the same bytes.
package demodata

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// Symbols are the traded pairs, with the price in cents and the first trade id from which each begins.
var Symbols = []struct {
	Name    string
	Price   int64
	FirstID int64
}{
	{"BTCUSDT", 59_000_00, 3_700_000_000},
	{"ETHUSDT", 2_600_00, 3_700_000_000},
	{"SOLUSDT", 145_00, 3_700_000_000},
}

// File is one file as it would lie in a download folder.
type File struct {
	Name    string
	Data    []byte
	ModTime time.Time
}

// History is what Generate makes. The counts are known from the making, so a test can compare them with what a lake
// has read.
type History struct {
	// Files are to be landed first, Reissue (the same name as one of them) after they have been read.
	Files   []File
	Reissue File
	// Records counts the records of Files and, apart, of Reissue.
	Records, ReissueRecords int
	// Trades counts the distinct trades whose rows are good, after the re-issue.
	Trades int
	// Bad counts the records that no lake can use, by what is wrong with them.
	Bad map[string]int
	// Corrected and Added count the trades that only the re-issued file has right, or has at all.
	Corrected, Added int
	// NextID is the id that follows the last trade, LastPrice the last price in cents, by symbol.
	NextID    map[string]int64
	LastPrice map[string]int64
}

// Options say how much history there shall be.
type Options struct {
	Seed uint64
	// Today is the day after the last day of history; only its date in UTC counts.
	Today time.Time
	// TradesPerDay is the number of trades of each symbol on each day; 0 means 2,000.
	TradesPerDay int
}

type trade struct {
	id         int64
	cents      int64 // price
	lots       int64 // quantity in 1/100,000
	at         time.Time
	buyerMaker bool
}

func (t trade) price() string { return fmt.Sprintf("%d.%02d", t.cents/100, t.cents%100) }
func (t trade) qty() string   { return fmt.Sprintf("%d.%05d", t.lots/100_000, t.lots%100_000) }

// quote is price times quantity, exact: cents and 1/100,000 make seven places.
func (t trade) quote() string {
	v := t.cents * t.lots
	return fmt.Sprintf("%d.%07d", v/10_000_000, v%10_000_000)
}

// Generate makes six days of history that end before today.
func Generate(o Options) (*History, error) {
	if o.TradesPerDay <= 0 {
		o.TradesPerDay = 2000
	}
	g := &generator{
		r: rand.New(rand.NewPCG(o.Seed, 0xca0ce)),
		n: o.TradesPerDay,
		h: &History{Bad: map[string]int{}, NextID: map[string]int64{}, LastPrice: map[string]int64{}},
	}
	for _, s := range Symbols {
		g.h.NextID[s.Name] = s.FirstID
		g.h.LastPrice[s.Name] = s.Price
	}
	today := o.Today.UTC().Truncate(24 * time.Hour)
	day := func(back int) time.Time { return today.AddDate(0, 0, -back) }
	// The days differ as real deliveries do; each line below is one day.
	g.plain(day(6))
	if err := g.gzipped(day(5)); err != nil {
		return nil, err
	}
	g.untidy(day(4))
	if err := g.archive(day(3)); err != nil {
		return nil, err
	}
	g.dirty(day(2))
	g.reissued(day(1))
	return g.h, nil
}

type generator struct {
	r *rand.Rand
	n int
	h *History
}

// trades makes one symbol's trades of one day: consecutive ids, a price that walks, times that never go back.
func (g *generator) trades(symbol string, day time.Time) []trade {
	step := 24 * time.Hour / time.Duration(g.n)
	out := make([]trade, g.n)
	for i := range out {
		p := g.h.LastPrice[symbol]
		p += int64(g.r.NormFloat64() * float64(p) / 4000)
		p = max(p, 100)
		g.h.LastPrice[symbol] = p
		out[i] = trade{
			id:         g.h.NextID[symbol],
			cents:      p,
			lots:       1 + g.r.Int64N(150_000),
			at:         day.Add(time.Duration(i)*step + time.Duration(g.r.Int64N(int64(step)))).Truncate(time.Microsecond),
			buyerMaker: g.r.IntN(2) == 0,
		}
		g.h.NextID[symbol]++
	}
	return out
}

const header = "symbol,trade_id,price,qty,quote_qty,time,is_buyer_maker,is_best_match"

func name(day time.Time) string { return "historico_" + day.Format("2006-01-02") + ".csv" }

func (g *generator) add(name string, data []byte, day time.Time) {
	// A day's file is delivered in the night that follows it.
	g.h.Files = append(g.h.Files, File{Name: name, Data: data, ModTime: day.AddDate(0, 0, 1).Add(45 * time.Minute)})
}

func row(symbol string, t trade, at string) string {
	return fmt.Sprintf("%s,%d,%s,%s,%s,%s,%t,true", symbol, t.id, t.price(), t.qty(), t.quote(), at, t.buyerMaker)
}

func millis(t trade) string { return fmt.Sprint(t.at.UnixMilli()) }

// plain: a clean file with times in milliseconds.
func (g *generator) plain(day time.Time) {
	var b bytes.Buffer
	b.WriteString(header + "\n")
	for _, s := range Symbols {
		for _, t := range g.trades(s.Name, day) {
			b.WriteString(row(s.Name, t, millis(t)) + "\n")
			g.good(1)
		}
	}
	g.add(name(day), b.Bytes(), day)
}

func (g *generator) good(n int) {
	g.h.Records += n
	g.h.Trades += n
}

func (g *generator) bad(why string) {
	g.h.Records++
	g.h.Bad[why]++
}

// gzipped: compressed, with times in seconds and fractions lost, and each hundredth row delivered twice.
func (g *generator) gzipped(day time.Time) error {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	fmt.Fprintln(z, header)
	for _, s := range Symbols {
		for i, t := range g.trades(s.Name, day) {
			line := row(s.Name, t, fmt.Sprint(t.at.Unix()))
			fmt.Fprintln(z, line)
			g.good(1)
			if i%100 == 99 {
				fmt.Fprintln(z, line)
				g.h.Records++
			}
		}
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("compress the history of %s: %w", day.Format(time.DateOnly), err)
	}
	g.add(name(day)+".gz", b.Bytes(), day)
	return nil
}

// untidy: another order of the columns, ISO 8601 times, CRLF, quotes, spaces and small letters in the symbol, booleans
// in every spelling. All of it can be read.
func (g *generator) untidy(day time.Time) {
	var b bytes.Buffer
	b.WriteString("time,symbol,trade_id,qty,price,quote_qty,is_best_match,is_buyer_maker\r\n")
	spell := [][2]string{{"false", "true"}, {"False", "True"}, {"FALSE", "TRUE"}}
	for _, s := range Symbols {
		for i, t := range g.trades(s.Name, day) {
			symbol := s.Name
			switch i % 4 {
			case 1:
				symbol = strings.ToLower(symbol)
			case 2:
				symbol = `"  ` + symbol + ` "`
			}
			maker := spell[i%3][0]
			if t.buyerMaker {
				maker = spell[i%3][1]
			}
			fmt.Fprintf(&b, "%s,%s,%d,%s,%q,%s,true,%s\r\n", t.at.Format("2006-01-02T15:04:05.000000Z"), symbol, t.id,
				t.qty(), t.price(), t.quote(), maker)
			g.good(1)
		}
	}
	g.add(name(day), b.Bytes(), day)
}

// archive: the exchange's own daily archive for the first symbol, a zip without a header and with times in
// microseconds; the other symbols as usual.
func (g *generator) archive(day time.Time) error {
	var b, inner bytes.Buffer
	b.WriteString(header + "\n")
	for i, s := range Symbols {
		for _, t := range g.trades(s.Name, day) {
			if i == 0 {
				maker := "False"
				if t.buyerMaker {
					maker = "True"
				}
				fmt.Fprintf(&inner, "%d,%s,%s,%s,%d,%s,True\n", t.id, t.price(), t.qty(), t.quote(), t.at.UnixMicro(), maker)
			} else {
				b.WriteString(row(s.Name, t, millis(t)) + "\n")
			}
			g.good(1)
		}
	}
	base := Symbols[0].Name + "-trades-" + day.Format("2006-01-02")
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	w, err := z.CreateHeader(&zip.FileHeader{Name: base + ".csv", Method: zip.Deflate, Modified: day.AddDate(0, 0, 1)})
	if err == nil {
		if _, err = w.Write(inner.Bytes()); err == nil {
			err = z.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("archive %s: %w", base, err)
	}
	g.add(base+".zip", out.Bytes(), day)
	g.add(name(day), b.Bytes(), day)
	return nil
}

// dirty: rows that nobody can use stand among the good ones.
func (g *generator) dirty(day time.Time) {
	var b bytes.Buffer
	b.WriteString(header + "\n")
	for _, s := range Symbols {
		for i, t := range g.trades(s.Name, day) {
			if i%40 != 39 {
				b.WriteString(row(s.Name, t, millis(t)) + "\n")
				g.good(1)
				continue
			}
			f := strings.Split(row(s.Name, t, millis(t)), ",")
			switch i / 40 % 6 {
			case 0:
				f[2] = ""
				g.bad("no price")
			case 1:
				f[3] = "-" + f[3]
				g.bad("negative quantity")
			case 2:
				f[5] = "yesterday"
				g.bad("no time")
			case 3:
				f[2] = "n/a"
				g.bad("price is no number")
			case 4:
				f = f[:5]
				g.bad("too few fields")
			case 5:
				f[3] = "0"
				g.bad("zero quantity")
			}
			b.WriteString(strings.Join(f, ",") + "\n")
		}
	}
	g.add(name(day), b.Bytes(), day)
}

// reissued: the first delivery lacks the last tenth of the day and has some prices wrong; the second is right.
func (g *generator) reissued(day time.Time) {
	var first, second bytes.Buffer
	first.WriteString(header + "\n")
	second.WriteString(header + "\n")
	for _, s := range Symbols {
		for i, t := range g.trades(s.Name, day) {
			line := row(s.Name, t, millis(t)) + "\n"
			second.WriteString(line)
			g.h.ReissueRecords++
			g.h.Trades++
			switch {
			case i >= g.n-g.n/10:
				g.h.Added++
				continue
			case i%50 == 49:
				wrong := t
				wrong.cents += 1000
				line = row(s.Name, wrong, millis(t)) + "\n"
				g.h.Corrected++
			}
			first.WriteString(line)
			g.h.Records++
		}
	}
	g.add(name(day), first.Bytes(), day)
	g.h.Reissue = File{Name: name(day), Data: second.Bytes(), ModTime: day.AddDate(0, 0, 1).Add(3 * time.Hour)}
}
