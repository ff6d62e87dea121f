package pipeline

import (
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Produce says which producer fills a topic.
type Produce struct {
	Kind    string   // ProduceBinance, ProduceBluesky or ProduceX
	URL     string   // "": the source's own
	RESTURL string   // of ProduceBinance: HTTP address for repairs; may be empty
	Symbols []string // of ProduceBinance: what to subscribe to
	Channel string   // of ProduceBinance: "trade" or "aggTrade"
	// Microseconds asks ProduceBinance for times in µs instead of ms.
	Microseconds bool
	// Collections are what to subscribe to, of ProduceBluesky.
	Collections []string
	// Dictionary is the file of Jetstream's zstd dictionary; "": frames are not compressed. Of ProduceBluesky.
	Dictionary string
	// Token is the bearer token of ProduceX.
	Token string
	// BackfillMinutes is how much of what was missed ProduceX asks for.
	BackfillMinutes int
	// SpoolBytesMax bounds what waits on disk for the topic.
	SpoolBytesMax int64
}

// Kinds of producers.
const (
	ProduceBinance = "binance" // the exchange's WebSocket market data
	ProduceBluesky = "bluesky" // Bluesky's Jetstream, version 1
	ProduceX       = "x"       // the filtered stream of X, version 2
)

// SpoolBytesMax is the default of produce.spool_max.
const SpoolBytesMax = 1 << 30

var produceShape = &shape{
	kind: kindObject, example: "{kind: binance, url: wss://data-stream.binance.vision, symbols: [BTCUSDT]}",
	doc: "A producer that `cauce up` runs to fill the topic, and the defaults of `cauce produce`.",
	keys: []keyShape{
		{"kind", choice("Which producer: an exchange's trades, posts of Bluesky (Jetstream), or posts of X (filtered stream).", "", ProduceBinance, ProduceBluesky, ProduceX), true},
		{"url", text("Address: ws:// or wss:// of binance and bluesky, http:// or https:// of x. binance must have it; the others have their public one.", "wss://data-stream.binance.vision"), false},
		{"rest_url", text("binance: HTTP address for repairs.", "https://data-api.binance.vision"), false},
		{"symbols", names("binance, which must have it: what to subscribe to.", "[BTCUSDT, ETHUSDT]"), false},
		{"channel", choice("binance: single trades or aggregate trades.", RepairTrade, RepairTrade, RepairAggTrade), false},
		{"microseconds", boolean("binance: ask for times in µs; to_event_time reads both.", "false"), false},
		{"collections", names("bluesky: collections to subscribe to. Default: posts.", "[app.bsky.feed.post]"), false},
		{"dictionary", text("bluesky: file of Jetstream's zstd dictionary, relative to the lake file; with it frames come compressed.", "zstd_dictionary"), false},
		{"token", &shape{kind: kindText, empty: true, doc: "x, which must have it when it runs: the app's bearer token, by reference.", example: `"${env:X_BEARER_TOKEN}"`}, false},
		{"backfill_minutes", &shape{kind: kindInt, max: 5, doc: "x: after a break of at most so many minutes what was missed is asked for; the account must allow it.", def: "0", example: "5"}, false},
		{"spool_max", &shape{kind: kindSize, min: 1 << 16, doc: "Events that the topic does not take yet wait on disk in .cauce/spool, at most so many bytes. Beyond, bluesky waits, because its server keeps events; of binance and x events are dropped, counted and named.", def: "1GiB", example: "1GiB"}, false},
	},
}

// produceKeys are the keys of a produce block that belong to some kinds only.
var produceKeys = map[string][]string{
	"rest_url": {ProduceBinance}, "symbols": {ProduceBinance}, "channel": {ProduceBinance}, "microseconds": {ProduceBinance},
	"collections": {ProduceBluesky}, "dictionary": {ProduceBluesky},
	"token": {ProduceX}, "backfill_minutes": {ProduceX},
}

// ProduceSchemes says how the address of a kind of producer begins.
func ProduceSchemes(kind string) []string {
	if kind == ProduceX {
		return []string{"http", "https"}
	}
	return []string{"ws", "wss"}
}

// CheckAddress says how an address must begin that does not begin with one of the schemes and a host.
func CheckAddress(address string, schemes ...string) error {
	u, err := url.Parse(address)
	if err == nil && slices.Contains(schemes, u.Scheme) && u.Host != "" {
		return nil
	}
	var begin []string
	for _, s := range schemes {
		begin = append(begin, s+"://")
	}
	return errors.New("it must begin with " + orList(begin))
}

func (b *builder) produce(v *value) *Produce {
	p := &Produce{
		Kind: v.get("kind").str(""), URL: v.get("url").str(""), RESTURL: v.get("rest_url").str(""), Symbols: v.get("symbols").strs(),
		Channel: v.get("channel").str(RepairTrade), Microseconds: v.get("microseconds").bool(false), Collections: v.get("collections").strs(), Dictionary: b.besideLake(v.get("dictionary"), "produce.dictionary"),
		Token: v.get("token").str(""), BackfillMinutes: int(v.get("backfill_minutes").int(0)), SpoolBytesMax: v.get("spool_max").int(SpoolBytesMax),
	}
	if p.Kind == "" {
		return p // reported as missing or unknown
	}
	for _, k := range v.keys {
		if kinds, ok := produceKeys[k.name]; ok && !slices.Contains(kinds, p.Kind) {
			b.r.errorf(k.at, "", "produce.%s has no meaning for kind %s", k.name, p.Kind)
		}
	}
	check := func(key string, schemes ...string) {
		uv := v.get(key)
		if uv == nil {
			return
		}
		if err := CheckAddress(uv.text, schemes...); err != nil {
			b.r.errorf(uv.at, err.Error(), "produce.%s: %s is no address", key, strconv.Quote(clip(uv.shown)))
		} else if strings.ContainsFunc(uv.text, unicode.IsSpace) {
			b.r.errorf(uv.at, "write it as %20 if it belongs there", "produce.%s: %s holds a blank", key, strconv.Quote(clip(uv.shown)))
		}
	}
	check("url", ProduceSchemes(p.Kind)...)
	check("rest_url", "http", "https")
	for key, list := range map[string][]string{"symbols": p.Symbols, "collections": p.Collections} {
		if s := v.get(key); s != nil && len(list) == 0 {
			b.r.errorf(s.at, "", "produce.%s is empty", key)
		}
	}
	if p.Kind == ProduceBinance {
		for _, key := range []string{"url", "symbols"} {
			if v.get(key) == nil {
				b.r.errorf(v.at, produceShape.like(), "produce of kind binance has no %s", key)
			}
		}
	}
	return p
}
