package pipeline

import (
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/cauce-data/cauce/delta"
)

// Ledger says how a table shows that it is complete: its rows carry ids that are consecutive within a series, so that an
// id which is not there is a row which is missing.
type Ledger struct {
	Series    Expr   // over the table's columns, a text: the sequence to which a row's id belongs
	SeriesSQL string // as the lake file has it
	ID        string // integer column: consecutive within a series
	Day       string // DATE column by which the statements are made
	Unit      string // what the rows are called in statements
}

// LedgerDay is what a table has of one series on one day. Ids are never negative, so that no range is longer than an int64.
type LedgerDay struct {
	Series string
	Day    string // 2024-08-20; "" for rows without one
	Rows   int64
	IDs    int64 // distinct ids
	From   int64 // least and greatest id
	To     int64
	// Of the rows: those that stand under a file, and those that a repair fetched. The others came in streams.
	Files, Repaired int64
}

// LedgerRange is a range of consecutive ids within a series and a day, both ends inclusive, with the places that its ends
// came from.
type LedgerRange struct {
	Series   string
	Day      string
	From, To int64
	// Where the rows at both ends came from: one place each, several where an id stands several times.
	FromPlaces, ToPlaces []LedgerPlace
}

// LedgerPlace is where a row came from: its columns _origin and _position.
type LedgerPlace struct {
	Origin   string
	Position int64
}

// Repair says where the rows that a table lacks can be fetched.
type Repair struct {
	Kind       string // RepairBinance
	RESTURL    string // "" for the exchange's own
	ArchiveURL string // "" for the exchange's own
	Market     string // RepairSpot or RepairUM
	Channel    string // RepairTrade or RepairAggTrade
	// Series is the pattern of the series that this source can fetch: "{symbol}" stands for the symbol.
	Series string
	Every  time.Duration // how often `cauce up` looks for holes
	// IDsMax is the greatest hole that is fetched id by id; greater ones are fetched from the archive.
	IDsMax int64
}

// What Repair.Kind, Repair.Channel and Repair.Market may be.
const (
	RepairBinance  = "binance"
	RepairTrade    = "trade"
	RepairAggTrade = "aggTrade"
	RepairSpot     = "spot"
	RepairUM       = "um" // USD-M futures
)

var repairSymbol = regexp.MustCompile(`^[^\s{}/-]+$`)

// Symbol gives the symbol of a series; false if the series is none of this source.
func (r *Repair) Symbol(series string) (string, bool) {
	before, after, _ := strings.Cut(r.Series, "{symbol}")
	s, ok := strings.CutPrefix(series, before)
	if !ok {
		return "", false
	}
	s, ok = strings.CutSuffix(s, after)
	return s, ok && repairSymbol.MatchString(s)
}

var ledgerShape = &shape{
	kind: kindObject, example: "{series: symbol, id: trade_id, day: event_date, unit: trades}",
	doc: "Which ids tell that the table is complete: `cauce gaps` names those that are missing.",
	keys: []keyShape{
		{"series", sqlExpr("The sequence to which a row's id belongs, a text.", "symbol"), true},
		{"id", text("Column of an integer type whose values are consecutive within a series; negative ones do not count.", "trade_id"), true},
		{"day", text("Column of type DATE by which statements are made; best one of partition_by.", "event_date"), true},
		{"unit", &shape{kind: kindText, doc: "What rows are called in statements.", def: "rows", example: "trades"}, false},
	},
}

var repairShape = &shape{
	kind: kindObject, example: "{kind: binance, rest_url: https://data-api.binance.vision}",
	doc: "Where `cauce gaps --repair` and `cauce up` fetch the rows that the table's ledger lacks. A source whose produce block is of kind binance has it by itself.",
	keys: []keyShape{
		{"kind", choice("Which exchange.", "", RepairBinance), true},
		{"rest_url", text("HTTP address. Default: that of produce, else the exchange's.", "https://data-api.binance.vision"), false},
		{"archive_url", text("Address of the daily archives. Default: the exchange's.", "https://data.binance.vision"), false},
		{"market", choice("Which market: spot, or um for USD-M futures, whose single trades need a key, so that only aggTrade can be fetched.", RepairSpot, RepairSpot, RepairUM), false},
		{"channel", choice("Which ids the series counts. A producer of aggTrade beside it makes that the default.", RepairTrade, RepairTrade, RepairAggTrade), false},
		{"series", &shape{kind: kindText, doc: "The series that are fetched here; {symbol} stands for the symbol, which holds no '-'.", def: "{symbol}", example: `"{symbol}-agg"`}, false},
		{"every", &shape{kind: kindDuration, min: 1_000_000, doc: "How often `cauce up` looks for holes.", def: "1m", example: "5m"}, false},
		{"ids_max", &shape{kind: kindInt, min: 1, max: 100_000_000, doc: "A hole of more ids is fetched from the archive, day by day.", def: "100000", example: "100000"}, false},
	},
}

// ledger reads tables.*.ledger.
func (b *builder) ledger(t *Table, v *value) *Ledger {
	if v == nil {
		return nil
	}
	l := &Ledger{Unit: v.get("unit").str(defaultOf("tables.*.ledger.unit"))}
	column := func(key, want string, fits func(delta.Type) bool) string {
		cv := v.get(key)
		if cv == nil || len(t.Columns) == 0 {
			return ""
		}
		c, ok := t.Column(cv.text)
		if !ok {
			var all []string
			for _, c := range t.Columns {
				all = append(all, c.Name)
			}
			b.r.errorf(cv.at, suggest(cv.text, all), "ledger.%s: unknown column %s of table %s", key, strconv.Quote(clip(cv.shown)), t.Name)
			return ""
		}
		if !fits(c.Type) {
			b.r.errorf(cv.at, "", "ledger.%s: column %s is of type %s; it must be %s", key, c.Name, strings.ToUpper(c.Type.String()), want)
		}
		return c.Name
	}
	l.ID = column("id", "LONG, INT, SHORT or BYTE", func(t delta.Type) bool { return typeOf(t) == typeInt })
	l.Day = column("day", "DATE", func(t delta.Type) bool { return typeOf(t) == typeDate })
	if s := v.get("series"); s != nil && len(t.Columns) > 0 {
		l.SeriesSQL = s.text
		e, typ, ok := b.compile(exprText{s.text, s, t.Name + ".ledger.series"}, scope{table: t})
		if ok && typ != typeText && typ != typeAny {
			b.r.errorf(s.at, "CAST(… AS STRING) makes it one", "ledger.series: %s is %s, not a text", strconv.Quote(clip(s.shown)), typ)
		}
		l.Series = e
	}
	return l
}

// repair reads sources.*.repair.
func (b *builder) repair(v *value, p *Produce) *Repair {
	channel := RepairTrade
	if p != nil && p.Kind == ProduceBinance {
		channel = p.Channel
	} else if p = nil; v == nil {
		return nil
	}
	every, err := parseDuration(defaultOf("sources.*.repair.every"))
	if err != nil {
		panic("BUG: default of repair.every")
	}
	idsMax, err := strconv.ParseInt(defaultOf("sources.*.repair.ids_max"), 10, 64)
	if err != nil {
		panic("BUG: default of repair.ids_max")
	}
	r := &Repair{
		Kind: v.get("kind").str(RepairBinance), RESTURL: v.get("rest_url").str(""), ArchiveURL: v.get("archive_url").str(""),
		Market: v.get("market").str(RepairSpot), Channel: v.get("channel").str(channel), Series: v.get("series").str(defaultOf("sources.*.repair.series")),
		Every: every, IDsMax: v.get("ids_max").int(idsMax),
	}
	if m := v.get("market"); m != nil && r.Market == RepairUM && r.Channel != RepairAggTrade {
		b.r.errorf(m.at, "write channel: aggTrade beside it", "repair.market: single trades of um need a key")
	}
	if e := v.get("every"); e != nil {
		r.Every = time.Duration(e.num)
	}
	if r.RESTURL == "" && p != nil {
		r.RESTURL = p.RESTURL
	}
	if p != nil && strings.HasPrefix(p.URL, "ws://") {
		// An exchange without TLS is one that is played on a machine nearby: it is its own REST interface and archive.
		if u, err := url.Parse(p.URL); err == nil {
			local := "http://" + u.Host
			if r.RESTURL == "" {
				r.RESTURL = local
			}
			if r.ArchiveURL == "" {
				r.ArchiveURL = local
			}
		}
	}
	if s := v.get("series"); s != nil && strings.Count(s.text, "{symbol}") != 1 {
		b.r.errorf(s.at, `write it like "{symbol}-agg"`, "repair.series: %s names {symbol} not once", strconv.Quote(clip(s.shown)))
	}
	for _, key := range []string{"rest_url", "archive_url"} {
		uv := v.get(key)
		if uv == nil {
			continue
		}
		if err := CheckAddress(uv.text, "http", "https"); err != nil {
			b.r.errorf(uv.at, err.Error(), "repair.%s: %s is no address", key, strconv.Quote(clip(uv.shown)))
		}
	}
	return r
}
