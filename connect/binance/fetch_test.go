package binance_test

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cauce-data/cauce/connect/binance"
	"github.com/cauce-data/cauce/connect/simulate"
)

func played(t *testing.T, o simulate.Options, trades int) (address string, requests *atomic.Int64) {
	t.Helper()
	x, err := simulate.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Step(trades); err != nil {
		t.Fatal(err)
	}
	requests = new(atomic.Int64)
	h := x.Handler()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	return srv.URL, requests
}

func TestEventsPassOverIDsThatDoNotExist(t *testing.T) {
	address, requests := played(t, simulate.Options{Symbols: []string{"BTCUSDT"}, SkipEvery: 10}, 3000)
	r := &binance.REST{BaseURL: address}
	var got []int64
	err := r.Events(t.Context(), "trade", "BTCUSDT", 5, 2505, func(e binance.Event) bool {
		got = append(got, e.ID)
		if want := fmt.Sprintf(`{"e":"trade","E":%d,"s":"BTCUSDT","t":%d,`, e.Time.UnixMilli(), e.ID); !strings.HasPrefix(string(e.Value), want) {
			t.Fatalf("event %s, want %s…", e.Value, want)
		}
		return true
	})
	if err != nil || len(got) != 2501-250 || got[0] != 5 || got[len(got)-1] != 2505 {
		t.Fatalf("%d events, %v", len(got), err)
	}
	if n := requests.Load(); n != 3 {
		t.Errorf("%d requests for three pages", n)
	}
	n := 0
	if err := r.Events(t.Context(), "aggTrade", "BTCUSDT", 1, 50, func(e binance.Event) bool { n++; return n < 7 }); err != nil || n != 7 {
		t.Errorf("%d aggregate trades, %v", n, err)
	}
	n = 0
	um := &binance.REST{BaseURL: address, Futures: true}
	if err := um.Events(t.Context(), "aggTrade", "BTCUSDT", 1, 9, func(binance.Event) bool { n++; return true }); err != nil || n != 9 {
		t.Errorf("%d aggregate trades of futures, %v", n, err)
	}
	err = r.Events(t.Context(), "trade", "NONE", 1, 50, func(binance.Event) bool { return true })
	if !binance.UnknownSymbol(err) {
		t.Errorf("unknown symbol: %v", err)
	}
}

// A client that is told to wait sends nothing until then: whoever goes on is banned.
func TestRESTSendsNothingWhileItMustWait(t *testing.T) {
	address, requests := played(t, simulate.Options{Symbols: []string{"BTCUSDT"}, WeightMax: 60}, 100)
	r := &binance.REST{BaseURL: address, WaitMax: time.Millisecond}
	ask := func() error {
		_, err := r.HistoricalTrades(context.Background(), "BTCUSDT", 1, 10)
		return err
	}
	var api *binance.APIError
	for i := range 3 {
		if err := ask(); (err == nil) != (i < 2) || i == 2 && (!errors.As(err, &api) || api.Status != http.StatusTooManyRequests) {
			t.Fatalf("request %d: %v", i, err)
		}
	}
	before := requests.Load()
	for range 5 {
		if err := ask(); err == nil || !strings.Contains(err.Error(), "wants no request for") {
			t.Fatalf("while it must wait: %v", err)
		}
	}
	if n := requests.Load() - before; n != 0 {
		t.Errorf("%d requests were sent all the same", n)
	}
}

func TestArchiveAgreesWithItsChecksum(t *testing.T) {
	day := time.Date(2024, 8, 20, 23, 59, 0, 0, time.UTC)
	o := simulate.Options{Symbols: []string{"BTCUSDT"}, Start: day, Rate: 10, ChecksumWrong: 1}
	address, _ := played(t, o, 2000)
	dir := t.TempDir()
	a := binance.Archive{BaseURL: address}
	path, err := a.Daily(t.Context(), "trades", "BTCUSDT", "2024-08-20", dir)
	if err != nil {
		t.Fatal(err) // wrong once, then right
	}
	z, err := zip.OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	if len(z.File) != 1 || z.File[0].Name != "BTCUSDT-trades-2024-08-20.csv" || filepath.Base(path) != "BTCUSDT-trades-2024-08-20.zip" {
		t.Errorf("%s holds %v", path, z.File)
	}
	if _, err := os.Stat(path + ".CHECKSUM"); err != nil {
		t.Error(err)
	}
	um := binance.Archive{BaseURL: address, Futures: true}
	if p, err := um.Daily(t.Context(), "aggTrades", "BTCUSDT", "2024-08-20", t.TempDir()); err != nil || filepath.Base(p) != "BTCUSDT-aggTrades-2024-08-20.zip" {
		t.Errorf("futures: %s, %v", p, err)
	}
	if _, err := a.Daily(t.Context(), "trades", "BTCUSDT", "2024-08-21", dir); !errors.Is(err, binance.ErrNoArchive) {
		t.Errorf("a day that is not over: %v", err)
	}
	o.ChecksumWrong = 2
	address, _ = played(t, o, 2000)
	dir = t.TempDir()
	_, err = binance.Archive{BaseURL: address}.Daily(t.Context(), "trades", "BTCUSDT", "2024-08-20", dir)
	if err == nil || !strings.Contains(err.Error(), "checksum file says") {
		t.Errorf("wrong twice: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("a file that is not what it should be stays behind: %v", left)
	}
}
