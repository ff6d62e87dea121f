package pipeline_test

import (
	"strings"
	"testing"

	"github.com/cauce-data/cauce/pipeline"
)

func TestTemplatesLoadWithoutWarnings(t *testing.T) {
	for _, name := range pipeline.Templates() {
		text, err := pipeline.Template(name, "")
		if err != nil {
			t.Fatal(err)
		}
		l, err := load(text)
		if err != nil {
			t.Fatalf("template %s:\n%v", name, err)
		}
		if len(l.Warnings) > 0 {
			t.Errorf("template %s:\n%v", name, l.Warnings)
		}
		for _, s := range l.Sources {
			if _, err := l.Plan(s.Name); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestTemplateStorage(t *testing.T) {
	for storage, want := range map[string]string{"": "file:///lake/data", "s3://bucket/lake": "s3://bucket/lake", "/abs/da ta": "file:///abs/da%20ta", `./a"b: #c`: `file:///lake/a%22b:%20%23c`} {
		text, err := pipeline.Template("crypto", storage)
		if err != nil {
			t.Fatal(err)
		}
		l, err := load(text)
		if err != nil {
			t.Fatalf("storage %q: %v", storage, err)
		}
		if l.Storage != want {
			t.Errorf("storage %q: got %s, want %s", storage, l.Storage, want)
		}
	}
	if _, err := pipeline.Template("cripto", ""); err == nil || !strings.Contains(err.Error(), `did you mean "crypto"?`) {
		t.Errorf("got %v, want the nearest template", err)
	}
}

// DESIGN 5: the batch source reads files with a header in any order and the exchange's headerless archives.
func TestCryptoTemplateHistory(t *testing.T) {
	text, err := pipeline.Template("crypto", "")
	if err != nil {
		t.Fatal(err)
	}
	l, err := load(text)
	if err != nil {
		t.Fatal(err)
	}
	s := l.Source("history")
	for _, c := range []struct {
		first  string
		header bool
	}{
		{"symbol,trade_id,price,qty,quote_qty,time,is_buyer_maker,is_best_match", true},
		{"is_buyer_maker,time,symbol,price,trade_id,qty,quote_qty,is_best_match", true},
		{"Symbol,Trade_ID,Price,Qty,Quote_Qty,Time,Is_Buyer_Maker,Is_Best_Match", true},
		{"3814021,60000.10000000,0.50000000,30000.05,1724112000123,True,True", false},
	} {
		if got := s.CSV.HasHeader(strings.Split(c.first, ",")); got != c.header {
			t.Errorf("first record %q: header %v, want %v", c.first, got, c.header)
		}
	}
	for key, want := range map[string]bool{
		"raw/batch/historico_2024-08-20.csv": true, "raw/batch/historico_2024-08-20.csv.gz": true, "raw/batch/BTCUSDT-trades-2024-08-20.zip": true,
		"raw/batch/BTCUSDT-trades-2024-08-20.zip.CHECKSUM": false, "raw/batch/deep/x.csv": false, "raw/x.csv": false,
	} {
		if got := s.Matches(key); got != want {
			t.Errorf("%s matches: %v, want %v", key, got, want)
		}
	}
	if g := s.FileGroups("raw/batch/BTCUSDT-trades-2024-08-20.zip"); g["symbol"] != "BTCUSDT" {
		t.Errorf("file groups %v", g)
	}
	if g := s.FileGroups("raw/batch/historico_2024-08-20.csv"); g["symbol"] != "" {
		t.Errorf("file groups %v", g)
	}
	p, err := l.Plan("history")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(p.Required, " "); got != "is_buyer_maker price qty time trade_id" {
		t.Errorf("required fields: %s", got)
	}
	if got := strings.Join(s.Prefixes(), " "); got != "raw/batch" {
		t.Errorf("prefixes: %s", got)
	}
	live := l.Source("live")
	if live.Rank <= s.Rank {
		t.Errorf("rank %d of the stream is not above %d", live.Rank, s.Rank)
	}
	if live.Produce == nil || live.Produce.Symbols[0] != "BTCUSDT" {
		t.Errorf("producer %+v", live.Produce)
	}
}
