package simulate

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// words are what posts are made of: in several languages, with all that JSON must escape and CSV must quote.
var words = map[string][]string{
	"en": {"bitcoin", "sold", "the", "coffee", "again", "it's", "\"quoted\"", "today", "50%", "C:\\temp", "rain,", "#markets"},
	"es": {"hoy", "mañana", "el", "mercado", "subió", "¿por", "qué?", "niño", "café;", "señal", "bitcoin", "cauce"},
	"ja": {"今日", "天気", "観よう", "待って", "💦", "ネコ", "市場"},
	"ar": {"السوق", "اليوم", "صباح", "الخير"},
	"":   {"👩‍👩‍👧", "🏴‍☠️", "…", "\u00a0", "ok", "<b>", "null"},
}

var languages = []string{"en", "es", "ja", "ar", ""}

// phrase makes up a post's text and its language; "" if its author named none.
func phrase(rng *rand.Rand) (text, lang string) {
	lang = languages[rng.IntN(len(languages))]
	list := words[lang]
	n := 1 + rng.IntN(12)
	parts := make([]string, n)
	for i := range parts {
		parts[i] = list[rng.IntN(len(list))]
	}
	text = strings.Join(parts, " ")
	if rng.IntN(8) == 0 {
		text += "\nhttps://example.org/?a=1&b=2"
	}
	return text, lang
}

// quoted is a text as JSON.
func quoted(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		panic("BUG: a text is no JSON: " + err.Error())
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// sortable are the digits of a TID, in the order of their values.
const sortable = "234567abcdefghijklmnopqrstuvwxyz"

// tid is an identifier of the AT protocol made of a time and a clock's number: 13 digits that sort as their times do.
func tid(at time.Time, clock uint64) string {
	v := uint64(at.UnixMicro())<<10 | clock&0x3ff //nolint:gosec // times after 1970
	var b [13]byte
	for i := range slices.Backward(b[:]) {
		b[i] = sortable[v&31]
		v >>= 5
	}
	return string(b[:])
}

// digits makes up an id of n base-32 digits.
func digits(rng *rand.Rand, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = "abcdefghijklmnopqrstuvwxyz234567"[rng.IntN(32)]
	}
	return string(b)
}

// Refusals answer the first attempts to connect with a status each, such as 503, 429 and 401, before any succeeds.
type Refusals []int

// next takes the status of the next attempt; 0: it is not refused.
func (r *Refusals) next() (status int) {
	if len(*r) > 0 {
		status, *r = (*r)[0], (*r)[1:]
	}
	return status
}
