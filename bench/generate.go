package main

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// The data models a month of an exchange's trades. Every row is a pure function of the seed and its number, so history
// and events agree on keys without reading each other.
const (
	days       = 30
	dayMicros  = 86_400_000_000
	dirtyShare = 0.01
)

var (
	symbols   = []string{"BTCUSDT", "ETHUSDT", "BNBUSDT", "SOLUSDT", "XRPUSDT", "ADAUSDT", "DOGEUSDT", "AVAXUSDT", "DOTUSDT", "LINKUSDT"}
	basePrice = []float64{65000, 3400, 600, 150, 0.6, 0.45, 0.15, 35, 7, 15}
	firstDay  = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
)

// generator makes rows of one size of history.
type generator struct {
	seed uint64
	rows int64 // distinct trades of the history
}

// h is a random number that depends on the seed, a row's number and what it is for (splitmix64).
func (g generator) h(i int64, salt uint64) uint64 {
	z := uint64(i)*0x100000001B3 + salt*0x9E3779B1 + g.seed*0x85EBCA77C2B2AE63 + 0x9E3779B97F4A7C15
	z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
	z = (z ^ (z >> 27)) * 0x94D049BB133111EB
	return z ^ (z >> 31)
}

func (g generator) unit(i int64, salt uint64) float64 { return float64(g.h(i, salt)>>11) / (1 << 53) }

// firstOf is the number of the first row of a day.
func (g generator) firstOf(day int64) int64 { return day * g.rows / days }

func (g generator) dayOf(i int64) int64 {
	d := i * days / g.rows
	if i >= g.firstOf(d+1) {
		d++
	}
	return min(d, days-1)
}

// timeOf is the time of a history row in µs; rows are sorted by it within their day.
func (g generator) timeOf(i int64) int64 {
	d := g.dayOf(i)
	lo, hi := g.firstOf(d), g.firstOf(d+1)
	off := int64(float64(i-lo) / float64(hi-lo) * (dayMicros - 60_000_000))
	return firstDay.UnixMicro() + d*dayMicros + off + int64(g.h(i, 2)%1000)
}

// symbolOf prefers the first symbols, as traders do.
func (g generator) symbolOf(i int64) int {
	u := g.unit(i, 1)
	return min(int(u*u*float64(len(symbols))), len(symbols)-1)
}

// amounts are price and quantity in units of 1e-8; salt makes a correction differ from the row it corrects.
func (g generator) amounts(i int64, salt uint64) (price, quantity int64) {
	price = int64(math.Round(basePrice[g.symbolOf(i)]*(0.9+0.2*g.unit(i, 3+salt))*10000)) * 10000
	quantity = int64(math.Round(math.Exp(g.unit(i, 4+salt)*6-3)*1e4))*10_000 + 10_000
	return price, quantity
}

func tradeID(i int64) int64 { return i + 1_000_000 }

func appendDecimal(b []byte, v int64) []byte {
	b = strconv.AppendInt(b, v/1e8, 10)
	b = append(b, '.')
	frac := strconv.FormatInt(v%1e8+1e8, 10)
	return append(b, frac[1:]...)
}

// appendCSV appends one record. kind is what is dirty: 0 no price, 1 a quantity that is no number, 2 an ISO time, 3 a
// symbol in lower case between blanks; others are clean.
func (g generator) appendCSV(b []byte, i, at int64, salt uint64, kind int) []byte {
	price, quantity := g.amounts(i, salt)
	symbol := symbols[g.symbolOf(i)]
	if kind == 3 {
		b = append(b, ' ')
		for _, c := range []byte(symbol) {
			b = append(b, c|0x20)
		}
		b = append(b, ' ')
	} else {
		b = append(b, symbol...)
	}
	b = append(b, ',')
	b = strconv.AppendInt(b, tradeID(i), 10)
	b = append(b, ',')
	if kind != 0 {
		b = appendDecimal(b, price)
	}
	b = append(b, ',')
	if kind == 1 {
		b = append(b, "n/a"...)
	} else {
		b = appendDecimal(b, quantity)
	}
	b = append(b, ',')
	b = strconv.AppendFloat(b, float64(price)/1e8*float64(quantity)/1e8, 'f', 8, 64)
	b = append(b, ',')
	if kind == 2 {
		b = time.UnixMicro(at).UTC().AppendFormat(b, "2006-01-02T15:04:05.000000Z")
	} else {
		b = strconv.AppendInt(b, at, 10)
	}
	if g.h(i, 5)&1 == 1 {
		b = append(b, ",True,True\n"...)
	} else {
		b = append(b, ",False,True\n"...)
	}
	return b
}

// history writes a file a day and returns how many records they have.
func (g generator) history(dir string) (records int64, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, err
	}
	for d := range int64(days) {
		n, err := g.day(filepath.Join(dir, "historico_"+firstDay.AddDate(0, 0, int(d)).Format(time.DateOnly)+".csv"), d)
		if err != nil {
			return 0, err
		}
		records += n
	}
	return records, nil
}

func (g generator) day(path string, d int64) (records int64, err error) {
	f, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	fmt.Fprintln(w, "symbol,trade_id,price,qty,quote_qty,time,is_buyer_maker,is_best_match")
	var line, again []byte
	for i := g.firstOf(d); i < g.firstOf(d+1); i++ {
		kind, at := -1, g.timeOf(i)
		if g.unit(i, 9) < dirtyShare {
			kind = int(g.h(i, 10) % 6)
		}
		line = g.appendCSV(line[:0], i, at, 0, kind)
		switch kind {
		case 4: // an exact duplicate, at the end of the file
			again = append(again, line...)
			records++
		case 5: // a late correction with another price
			again = g.appendCSV(again, i, at+1_000_000, 20, -1)
			records++
		}
		records++
		if _, err := w.Write(line); err != nil {
			return 0, err
		}
	}
	if _, err := w.Write(again); err != nil {
		return 0, err
	}
	if err := w.Flush(); err != nil {
		return 0, err
	}
	return records, f.Close()
}

// events writes batch number b of the live events: a tenth of them correct existing trades of the newest window days
// (0: of all days), the others are new trades of the same days.
func (g generator) events(path string, b, rows, window int) error {
	if window == 0 {
		window = days
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	base := int64(b) * int64(rows)
	lo := g.firstOf(int64(days - window))
	span := g.rows - lo
	var line []byte
	for k := range int64(rows) {
		i, at := g.rows+10_000_000+base+k, int64(0)
		if k%10 == 0 {
			// One in each of as many equal parts, so that no key comes twice in a batch.
			part := span / int64((rows+9)/10)
			i = lo + k/10*part + int64(g.h(base+k, 11)%uint64(max(part, 1)))
			at = g.timeOf(i) + 2_000_000 // later than the history's row and its correction, on the same day
		} else {
			at = firstDay.UnixMicro() + int64(days-window)*dayMicros + int64(g.h(base+k, 12)%uint64(int64(window)*dayMicros))
		}
		at = at / 1000 * 1000
		price, quantity := g.amounts(i, 60+uint64(b))
		line = append(line[:0], `{"e":"trade","E":`...)
		line = strconv.AppendInt(line, at/1000, 10)
		line = append(line, `,"s":"`...)
		line = append(line, symbols[g.symbolOf(i)]...)
		line = append(line, `","t":`...)
		line = strconv.AppendInt(line, tradeID(i), 10)
		line = append(line, `,"p":"`...)
		line = appendDecimal(line, price)
		line = append(line, `","q":"`...)
		line = appendDecimal(line, quantity)
		line = append(line, `","T":`...)
		line = strconv.AppendInt(line, at/1000, 10)
		line = append(line, `,"m":`...)
		line = strconv.AppendBool(line, g.h(i, 5)&1 == 1)
		line = append(line, ",\"M\":true}\n"...)
		if _, err := w.Write(line); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Close()
}
