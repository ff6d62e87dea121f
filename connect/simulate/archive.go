package simulate

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// microsFrom is the day from which the exchange's archives have times in microseconds.
var microsFrom = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

// archive serves the daily files as the exchange's archive does: a zip of one CSV without header, and its checksum
// beside it. A day is there once a trade of a later day has been made.
func (x *Exchange) archive(w http.ResponseWriter, r *http.Request) {
	kind, symbol, file := r.PathValue("kind"), r.PathValue("symbol"), r.PathValue("file")
	name, sum := strings.CutSuffix(file, ".CHECKSUM")
	text, ok := strings.CutPrefix(name, symbol+"-"+kind+"-")
	text, zipped := strings.CutSuffix(text, ".zip")
	day, err := time.Parse(time.DateOnly, text)
	if !ok || !zipped || err != nil || kind != "trades" && kind != "aggTrades" {
		http.NotFound(w, r)
		return
	}
	body, ok := x.archived(kind, symbol, day)
	if !ok {
		http.NotFound(w, r)
		return
	}
	if !sum {
		w.Header().Set("Content-Type", "application/zip")
		_, _ = w.Write(body) // the client is gone, or it gets it
		return
	}
	digest := sha256.Sum256(body)
	x.mu.Lock()
	if x.o.ChecksumWrong > 0 {
		x.o.ChecksumWrong--
		digest[0] ^= 0xff
	}
	x.mu.Unlock()
	fmt.Fprintf(w, "%s  %s\n", hex.EncodeToString(digest[:]), name)
}

func (x *Exchange) archived(kind, symbol string, day time.Time) ([]byte, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	b, newest := x.books[symbol], time.Time{}
	for _, o := range x.books {
		if n := len(o.trades); n > 0 && o.trades[n-1].Time.After(newest) {
			newest = o.trades[n-1].Time
		}
	}
	end := day.AddDate(0, 0, 1)
	if b == nil || newest.Before(end) {
		return nil, false
	}
	of := func(t time.Time) bool { return !t.Before(day) && t.Before(end) }
	at := func(t time.Time) int64 {
		if day.Before(microsFrom) {
			return t.UnixMilli()
		}
		return t.UnixMicro()
	}
	truth := map[bool]string{true: "True", false: "False"}
	var csv bytes.Buffer
	for _, t := range b.trades {
		if kind == "trades" && of(t.Time) {
			fmt.Fprintf(&csv, "%d,%s,%s,%s,%d,%s,True\n", t.ID, decimal(t.Price), decimal(t.Quantity), quote(t.Price, t.Quantity), at(t.Time), truth[t.BuyerMaker])
		}
	}
	for _, a := range b.aggs {
		if kind == "aggTrades" && of(a.Time) {
			fmt.Fprintf(&csv, "%d,%s,%s,%d,%d,%d,%s,True\n", a.ID, decimal(a.Price), decimal(a.Quantity), a.first, a.last, at(a.Time), truth[a.BuyerMaker])
		}
	}
	if csv.Len() == 0 {
		return nil, false
	}
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	f, err := z.CreateHeader(&zip.FileHeader{Name: symbol + "-" + kind + "-" + day.Format(time.DateOnly) + ".csv", Method: zip.Deflate, Modified: end})
	if err == nil {
		_, err = f.Write(csv.Bytes())
	}
	if err == nil {
		err = z.Close()
	}
	return out.Bytes(), err == nil
}
