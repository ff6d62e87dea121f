package demodata

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

var today = time.Date(2024, 8, 21, 13, 0, 0, 0, time.UTC)

func TestSameSeedSameBytes(t *testing.T) {
	a, err := Generate(Options{Seed: 7, Today: today, TradesPerDay: 500})
	if err != nil {
		t.Fatal(err)
	}
	b, _ := Generate(Options{Seed: 7, Today: today.Add(5 * time.Hour), TradesPerDay: 500})
	c, _ := Generate(Options{Seed: 8, Today: today, TradesPerDay: 500})
	for i := range a.Files {
		if a.Files[i].Name != b.Files[i].Name || !bytes.Equal(a.Files[i].Data, b.Files[i].Data) || !a.Files[i].ModTime.Equal(b.Files[i].ModTime) {
			t.Errorf("file %s differs between two runs of one seed", a.Files[i].Name)
		}
	}
	if bytes.Equal(a.Files[0].Data, c.Files[0].Data) {
		t.Error("another seed gives the same history")
	}
}

func TestCountsAreThoseOfTheFiles(t *testing.T) {
	h, err := Generate(Options{Seed: 1, Today: today, TradesPerDay: 480})
	if err != nil {
		t.Fatal(err)
	}
	if h.Trades+sum(h.Bad) != 6*len(Symbols)*480 {
		t.Errorf("%d good and %v bad trades", h.Trades, h.Bad)
	}
	for why, n := range h.Bad {
		if n == 0 {
			t.Errorf("no row with %s", why)
		}
	}
	if len(h.Bad) != 6 {
		t.Errorf("kinds of bad rows: %v", h.Bad)
	}
	records := strings.Count(string(h.Reissue.Data), "\n") - 1
	if records != h.ReissueRecords || h.Corrected == 0 || h.Added != 3*48 {
		t.Errorf("re-issue has %d records, counted %d, %d corrected, %d added", records, h.ReissueRecords, h.Corrected, h.Added)
	}
	var names []string
	for _, f := range h.Files {
		names = append(names, f.Name)
	}
	want := "historico_2024-08-15.csv historico_2024-08-16.csv.gz historico_2024-08-17.csv BTCUSDT-trades-2024-08-18.zip " +
		"historico_2024-08-18.csv historico_2024-08-19.csv historico_2024-08-20.csv"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("files %s\nwant  %s", got, want)
	}
}

func sum(m map[string]int) int {
	n := 0
	for _, v := range m {
		n += v
	}
	return n
}
