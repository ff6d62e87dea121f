package binance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// DefaultRESTURL is the exchange's address for market data over HTTP, which needs no account.
const DefaultRESTURL = "https://data-api.binance.vision"

// DefaultFuturesURL is the address of USD-M futures.
const DefaultFuturesURL = "https://fapi.binance.com"

// Trade is a trade as REST gives it. Prices and quantities stay text: they are decimals.
type Trade struct {
	ID           int64  `json:"id"`
	Price        string `json:"price"`
	Quantity     string `json:"qty"`
	QuoteQty     string `json:"quoteQty"`
	Time         int64  `json:"time"` // ms, or µs if asked for
	IsBuyerMaker bool   `json:"isBuyerMaker"`
	IsBestMatch  bool   `json:"isBestMatch"`
}

// AggTrade is an aggregate trade as REST gives it.
type AggTrade struct {
	ID           int64  `json:"a"`
	Price        string `json:"p"`
	Quantity     string `json:"q"`
	First        int64  `json:"f"`
	Last         int64  `json:"l"`
	Time         int64  `json:"T"`
	IsBuyerMaker bool   `json:"m"`
	IsBestMatch  bool   `json:"M"`
}

// weightMax and futuresWeightMax leave a part of the 6,000 and 2,400 that an address may use in a minute to others.
const (
	weightMax        = 5000
	futuresWeightMax = 2000
)

func (r *REST) root() string {
	if r.Futures {
		return "/fapi/v1"
	}
	return "/api/v3"
}

func (r *REST) weightMax() int {
	if r.Futures {
		return futuresWeightMax
	}
	return weightMax
}

// APIError is an answer by which the exchange refuses a request.
type APIError struct {
	Status int    `json:"-"`
	Code   int    `json:"code"`
	Msg    string `json:"msg"`
}

func (e *APIError) Error() string {
	return fmt.Sprintf("exchange answers %d: %d: %s", e.Status, e.Code, e.Msg)
}

// REST reads trades over HTTP. It waits as the exchange asks, and slows down before it must.
type REST struct {
	BaseURL string       // DefaultRESTURL, or DefaultFuturesURL
	Futures bool         // USD-M futures instead of spot
	Client  *http.Client // http.DefaultClient
	// WaitMax bounds one wait that the exchange asks for; 2 min. A longer one is an error, and so is every request until
	// it is over: none is sent.
	WaitMax time.Duration

	mu    sync.Mutex
	until time.Time // when the exchange wants to hear of us again
}

// pause is how long the exchange still wants to hear nothing.
func (r *REST) pause() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Until(r.until)
}

func (r *REST) pauseFor(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at := time.Now().Add(d); at.After(r.until) {
		r.until = at
	}
}

// HistoricalTrades gives up to limit (at most 1,000) trades of a symbol from an id on, ascending; from < 0: the newest.
func (r *REST) HistoricalTrades(ctx context.Context, symbol string, from int64, limit int) ([]Trade, error) {
	var out []Trade
	return out, r.list(ctx, r.root()+"/historicalTrades", symbol, from, limit, &out)
}

// AggTrades gives up to limit (at most 1,000) aggregate trades of a symbol from an id on, ascending; from < 0: the newest.
func (r *REST) AggTrades(ctx context.Context, symbol string, from int64, limit int) ([]AggTrade, error) {
	var out []AggTrade
	return out, r.list(ctx, r.root()+"/aggTrades", symbol, from, limit, &out)
}

func (r *REST) list(ctx context.Context, path, symbol string, from int64, limit int, out any) error {
	base := r.BaseURL
	if base == "" {
		base = DefaultRESTURL
		if r.Futures {
			base = DefaultFuturesURL
		}
	}
	q := url.Values{"symbol": {symbol}, "limit": {strconv.Itoa(limit)}}
	if from >= 0 {
		q.Set("fromId", strconv.FormatInt(from, 10))
	}
	address := strings.TrimSuffix(base, "/") + path + "?" + q.Encode()
	bound := r.WaitMax
	if bound <= 0 {
		bound = 2 * time.Minute
	}
	for attempt := 0; ; attempt++ {
		if wait := r.pause(); wait > bound {
			return fmt.Errorf("binance: %s of %s: the exchange wants no request for %s", path, symbol, wait.Round(time.Second))
		} else if wait > 0 {
			if err := sleep(ctx, wait); err != nil {
				return err
			}
		}
		wait, err := r.once(ctx, address, out)
		if err == nil {
			return nil
		}
		if wait == 0 || attempt == 5 || ctx.Err() != nil {
			return fmt.Errorf("binance: %s of %s: %w", path, symbol, err)
		}
		if wait > bound {
			return fmt.Errorf("binance: %s of %s: %w; it asks to wait %s", path, symbol, err, wait)
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// once makes one request; a wait says that another attempt after it may succeed.
func (r *REST) once(ctx context.Context, address string, out any) (wait time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return 0, err
	}
	client := r.Client
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return time.Second, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return time.Second, err
	}
	if resp.StatusCode != http.StatusOK {
		e := &APIError{Status: resp.StatusCode}
		if json.Unmarshal(body, e) != nil {
			e.Msg = strings.TrimSpace(string(body[:min(len(body), 200)]))
		}
		switch {
		case resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusTeapot:
			wait := retryAfter(resp.Header, 10*time.Second)
			r.pauseFor(wait)
			return wait, e
		case resp.StatusCode >= 500:
			return time.Second, e
		}
		return 0, e
	}
	if err := json.Unmarshal(body, out); err != nil {
		return 0, fmt.Errorf("answer: %w", err)
	}
	if used, err := strconv.Atoi(resp.Header.Get("X-MBX-USED-WEIGHT-1M")); err == nil && used > r.weightMax() {
		if err := sleep(ctx, time.Second); err != nil && !errors.Is(err, context.Canceled) {
			return 0, err
		}
	}
	return 0, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
