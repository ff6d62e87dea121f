package simulate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cauce-data/cauce/internal/prereq"
)

var (
	eightDecimals = regexp.MustCompile(`^[0-9]+\.[0-9]{8}$`)
	inMillis      = regexp.MustCompile(`^1[0-9]{12}$`)
)

// form describes a frame's keys, in their order, with the types and spelling of their values.
func form(t *testing.T, frame []byte) []string {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(frame))
	d.UseNumber()
	var out []string
	key := ""
	expectKey := false
	for d.More() || len(out) > 0 {
		tok, err := d.Token()
		if err != nil {
			break
		}
		if s, ok := tok.(json.Delim); ok {
			out = append(out, key+s.String())
			key, expectKey = "", true
			continue
		}
		if expectKey {
			key, expectKey = tok.(string)+":", false
			continue
		}
		kind := fmt.Sprintf("%T", tok)
		switch v := tok.(type) {
		case json.Number:
			if inMillis.MatchString(v.String()) {
				kind = "time in ms"
			}
		case string:
			if eightDecimals.MatchString(v) {
				kind = "eight decimals"
			} else if key == "e:" {
				kind = v
			}
		}
		out = append(out, key+kind)
		key, expectKey = "", true
	}
	return out
}

// TestFramesAreTheExchanges holds the simulator's frames against recorded ones: the same envelope, keys, order, types
// and spelling. Of trades there is no recording; the exchange's documentation gives their frame.
func TestFramesAreTheExchanges(t *testing.T) {
	var recorded []byte
	text, err := os.ReadFile(filepath.Join(prereq.Need(t, "shared"), "realdata", "cryptofeed_BINANCE.ws.1.0.txt"))
	must(t, err)
	for line := range strings.Lines(string(text)) {
		if at := strings.Index(line, `{"stream":`); at >= 0 && strings.Contains(line, `"e":"aggTrade"`) {
			recorded = []byte(strings.TrimSpace(line[at:]))
		}
	}
	documented := []byte(`{"stream":"bnbbtc@trade","data":{"e":"trade","E":1672515782136,"s":"BNBBTC","t":12345,"p":"0.00100000","q":"100.00000000","T":1672515782136,"m":true,"M":true}}`)

	x := newExchange(t, Options{Seed: 1, Symbols: []string{"BTCUSDT"}})
	_, url := serve(t, x)
	c := dial(t, url+"/stream?streams=btcusdt@trade/btcusdt@aggTrade")
	must(t, x.Step(20))
	seen := map[string]bool{}
	for range 20 {
		frame := read(t, c)
		want, kind := documented, "trade"
		if strings.Contains(frame, `"e":"aggTrade"`) {
			want, kind = recorded, "aggTrade"
		}
		seen[kind] = true
		if got, want := form(t, []byte(frame)), form(t, want); len(want) < 12 || !slices.Equal(got, want) {
			t.Fatalf("%s\nhas the form  %q\nthe exchange's %q", frame, got, want)
		}
		if !strings.HasPrefix(frame, `{"stream":"btcusdt@`+kind+`","data":{`) {
			t.Errorf("envelope of %s", frame)
		}
	}
	if !seen["trade"] || !seen["aggTrade"] {
		t.Errorf("seen: %v", seen)
	}
}
