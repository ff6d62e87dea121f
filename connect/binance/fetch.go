package binance

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// DefaultArchiveURL is the exchange's address of daily and monthly files.
const DefaultArchiveURL = "https://data.binance.vision"

// ErrNoArchive says that there is no file of a day, or none yet: they appear on the day after.
var ErrNoArchive = errors.New("the exchange has no archive of that day")

// pageMax is how many trades one request may ask for.
const pageMax = 1000

// UnknownSymbol tells whether an error is the exchange's answer that it does not know the symbol.
func UnknownSymbol(err error) bool {
	var e *APIError
	return errors.As(err, &e) && e.Code == -1121
}

// An Event is a trade in the form of the stream's event, as if the socket had carried it.
type Event struct {
	ID    int64
	Time  time.Time
	Value []byte
}

// Events calls f for the trades (channel "trade") or aggregate trades ("aggTrade") of a symbol with ids from..to that
// exist, ascending, until f returns false. Missing ids are passed over. from below 0 means 0.
func (r *REST) Events(ctx context.Context, channel, symbol string, from, to int64, f func(Event) bool) error {
	from = max(from, 0)
	for from <= to {
		limit := int(min(to-from+1, pageMax))
		var page []Event
		if channel == "aggTrade" {
			list, err := r.AggTrades(ctx, symbol, from, limit)
			if err != nil {
				return err
			}
			for _, t := range list {
				page = append(page, Event{t.ID, stamp(t.Time), fmt.Appendf(nil, `{"e":"aggTrade","E":%d,"s":%q,"a":%d,"p":%q,"q":%q,"f":%d,"l":%d,"T":%d,"m":%t,"M":%t}`,
					t.Time, symbol, t.ID, t.Price, t.Quantity, t.First, t.Last, t.Time, t.IsBuyerMaker, t.IsBestMatch)})
			}
		} else {
			list, err := r.HistoricalTrades(ctx, symbol, from, limit)
			if err != nil {
				return err
			}
			for _, t := range list {
				page = append(page, Event{t.ID, stamp(t.Time), fmt.Appendf(nil, `{"e":"trade","E":%d,"s":%q,"t":%d,"p":%q,"q":%q,"T":%d,"m":%t,"M":%t}`,
					t.Time, symbol, t.ID, t.Price, t.Quantity, t.Time, t.IsBuyerMaker, t.IsBestMatch)})
			}
		}
		if len(page) == 0 {
			return nil
		}
		for _, e := range page {
			if e.ID < from {
				return fmt.Errorf("binance: %s of %s: id %d came in answer to ids from %d on", channel, symbol, e.ID, from)
			}
			if e.ID > to {
				return nil
			}
			if !f(e) {
				return nil
			}
			from = e.ID + 1
		}
	}
	return nil
}

// stamp reads a time in ms or µs.
func stamp(v int64) time.Time {
	if v > 1e14 {
		return time.UnixMicro(v).UTC()
	}
	return time.UnixMilli(v).UTC()
}

// Archive is the exchange's archive of daily files.
type Archive struct {
	BaseURL string       // DefaultArchiveURL
	Futures bool         // USD-M futures instead of spot
	Client  *http.Client // http.DefaultClient
}

// archiveBytesMax bounds a daily file; the greatest of today have some hundred MB.
const archiveBytesMax = 4 << 30

// Daily downloads the file of a day (2024-08-20) of kind "trades" or "aggTrades" into a folder and gives its path. It
// must agree with its checksum, which is kept beside it: a file that does not is fetched once more, because both are
// replaced now and then, one after the other. ErrNoArchive (wrapped) if there is none.
func (a Archive) Daily(ctx context.Context, kind, symbol, day, dir string) (string, error) {
	base := a.BaseURL
	if base == "" {
		base = DefaultArchiveURL
	}
	name := symbol + "-" + kind + "-" + day + ".zip"
	market := "spot"
	if a.Futures {
		market = "futures/um"
	}
	address := strings.TrimSuffix(base, "/") + "/data/" + market + "/daily/" + kind + "/" + symbol + "/" + name
	path := filepath.Join(dir, name)
	var err error
	for range 2 {
		var sum []byte
		if sum, err = a.fetch(ctx, address+".CHECKSUM", path+".CHECKSUM"); err != nil {
			return "", fmt.Errorf("binance: %s: %w", name, err)
		}
		want, _, _ := strings.Cut(strings.TrimSpace(string(sum)), " ")
		var got []byte
		if got, err = a.fetch(ctx, address, path); err != nil {
			return "", fmt.Errorf("binance: %s: %w", name, err)
		}
		if strings.EqualFold(hex.EncodeToString(got), want) {
			return path, nil
		}
		err = fmt.Errorf("binance: %s: its SHA-256 is %s, its checksum file says %s", address, hex.EncodeToString(got), want)
	}
	return "", errors.Join(err, os.Remove(path), os.Remove(path+".CHECKSUM"))
}

// fetch downloads to a file. It gives the content of a checksum file, and the SHA-256 of any other.
func (a Archive) fetch(ctx context.Context, address, path string) (_ []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	client := a.Client
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return nil, ErrNoArchive
	default:
		return nil, fmt.Errorf("%s answers %s", address, resp.Status)
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	digest := sha256.New()
	var head strings.Builder
	out := io.MultiWriter(f, digest)
	if strings.HasSuffix(path, ".CHECKSUM") {
		if _, err := io.Copy(io.MultiWriter(f, &head), io.LimitReader(resp.Body, 1<<10)); err != nil {
			return nil, err
		}
		return []byte(head.String()), nil
	}
	n, err := io.Copy(out, io.LimitReader(resp.Body, archiveBytesMax+1))
	if err == nil && n > archiveBytesMax {
		err = fmt.Errorf("%s has more than %d bytes", address, int64(archiveBytesMax))
	}
	return digest.Sum(nil), err
}
