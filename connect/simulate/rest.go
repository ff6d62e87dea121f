package simulate

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"sort"
	"strconv"
	"time"
)

// guestOf is what is known of a request's address. The lock is held.
func (x *Exchange) guestOf(r *http.Request) *guest {
	ip, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		ip = r.RemoteAddr
	}
	g := x.guests[ip]
	if g == nil {
		g = &guest{}
		x.guests[ip] = g
	}
	return g
}

// admit enforces the limit of connection attempts.
func (x *Exchange) admit(w http.ResponseWriter, r *http.Request) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	const window = 5 * time.Minute
	g := x.guestOf(r)
	now := time.Now()
	for len(g.connects) > 0 && now.Sub(g.connects[0]) > window {
		g.connects = g.connects[1:]
	}
	if len(g.connects) >= x.o.ConnectMax {
		w.Header().Set("Retry-After", strconv.Itoa(int(window.Seconds()-now.Sub(g.connects[0]).Seconds())+1))
		http.Error(w, "Too many connection attempts", http.StatusTooManyRequests)
		return false
	}
	g.connects = append(g.connects, now)
	return true
}

// routes adds the REST endpoints.
func (x *Exchange) routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /api/v3/ping", x.weighed(1, func(http.ResponseWriter, *http.Request) (any, error) { return struct{}{}, nil }))
	mux.HandleFunc("GET /api/v3/time", x.weighed(1, func(http.ResponseWriter, *http.Request) (any, error) {
		return map[string]int64{"serverTime": time.Now().UnixMilli()}, nil
	}))
	mux.HandleFunc("GET /api/v3/trades", x.weighed(25, x.trades))
	mux.HandleFunc("GET /api/v3/historicalTrades", x.weighed(25, x.trades))
	mux.HandleFunc("GET /api/v3/aggTrades", x.weighed(4, x.aggTrades))
	mux.HandleFunc("GET /fapi/v1/aggTrades", x.weighed(20, x.aggTrades))
	mux.HandleFunc("GET /data/spot/daily/{kind}/{symbol}/{file}", x.archive)
	mux.HandleFunc("GET /data/futures/um/daily/{kind}/{symbol}/{file}", x.archive)
}

// apiError is an error in the exchange's form.
type apiError struct {
	Code int    `json:"code"`
	Msg  string `json:"msg"`
}

func (e apiError) Error() string { return fmt.Sprintf("%d: %s", e.Code, e.Msg) }

// weighed enforces the limit of request weight: beyond it 429, and for a client that goes on 418.
func (x *Exchange) weighed(weight int, do func(http.ResponseWriter, *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		x.mu.Lock()
		g := x.guestOf(r)
		if now := time.Now(); now.Sub(g.minute) > time.Minute {
			g.minute, g.weight, g.over = now, 0, 0
		}
		g.weight += weight
		used, over := g.weight, 0
		if used > x.o.WeightMax {
			g.over++
			over = g.over
		}
		retry := int(time.Until(g.minute.Add(time.Minute)).Seconds()) + 1
		x.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-MBX-USED-WEIGHT-1M", strconv.Itoa(used))
		switch {
		case over > 3:
			w.Header().Set("Retry-After", "120")
			reply(w, http.StatusTeapot, apiError{-1003, "Way too much request weight used; IP banned."})
			return
		case over > 0:
			w.Header().Set("Retry-After", strconv.Itoa(retry))
			reply(w, http.StatusTooManyRequests, apiError{-1003, "Too much request weight used."})
			return
		}
		v, err := do(w, r)
		if err != nil {
			reply(w, http.StatusBadRequest, err)
			return
		}
		reply(w, http.StatusOK, v)
	}
}

func reply(w http.ResponseWriter, status int, v any) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client is gone, or it gets it
}

// query reads the parameters that both kinds of trades have. from is -1 if there is none.
func (x *Exchange) query(r *http.Request) (b *book, from int64, limit int, err error) {
	q := r.URL.Query()
	if q.Get("symbol") == "" {
		return nil, 0, 0, apiError{-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed."}
	}
	x.mu.Lock()
	b = x.books[q.Get("symbol")]
	x.mu.Unlock()
	if b == nil {
		return nil, 0, 0, apiError{-1121, "Invalid symbol."}
	}
	from, limit = -1, 500
	if s := q.Get("fromId"); s != "" {
		if from, err = strconv.ParseInt(s, 10, 64); err != nil || from < 0 {
			return nil, 0, 0, apiError{-1100, "Illegal characters found in parameter 'fromId'."}
		}
	}
	if s := q.Get("limit"); s != "" {
		if limit, err = strconv.Atoi(s); err != nil || limit < 1 {
			return nil, 0, 0, apiError{-1100, "Illegal characters found in parameter 'limit'."}
		}
	}
	return b, from, min(limit, 1000), nil
}

// part is the slice of a list from an id on, or its newest end.
func part[T any](list []T, id func(T) int64, from int64, limit int) []T {
	i := max(0, len(list)-limit)
	if from >= 0 {
		i = sort.Search(len(list), func(i int) bool { return id(list[i]) >= from })
	}
	return append([]T(nil), list[i:min(len(list), i+limit)]...)
}

func (x *Exchange) trades(_ http.ResponseWriter, r *http.Request) (any, error) {
	b, from, limit, err := x.query(r)
	if err != nil {
		return nil, err
	}
	x.mu.Lock()
	list := part(b.trades, func(t Trade) int64 { return t.ID }, from, limit)
	x.mu.Unlock()
	type row struct {
		ID           int64  `json:"id"`
		Price        string `json:"price"`
		Qty          string `json:"qty"`
		QuoteQty     string `json:"quoteQty"`
		Time         int64  `json:"time"`
		IsBuyerMaker bool   `json:"isBuyerMaker"`
		IsBestMatch  bool   `json:"isBestMatch"`
	}
	out := make([]row, len(list))
	for i, t := range list {
		out[i] = row{t.ID, decimal(t.Price), decimal(t.Quantity), quote(t.Price, t.Quantity), t.Time.UnixMilli(), t.BuyerMaker, true}
	}
	return out, nil
}

func (x *Exchange) aggTrades(_ http.ResponseWriter, r *http.Request) (any, error) {
	b, from, limit, err := x.query(r)
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	bound := func(name string, none int64) (int64, error) {
		s := q.Get(name)
		if s == "" {
			return none, nil
		}
		v, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return 0, apiError{-1100, "Illegal characters found in parameter '" + name + "'."}
		}
		return v, nil
	}
	const open = int64(1) << 62
	start, err := bound("startTime", -1)
	if err != nil {
		return nil, err
	}
	end, err := bound("endTime", open)
	if err != nil {
		return nil, err
	}
	x.mu.Lock()
	list := b.aggs
	if start >= 0 || end != open {
		i := sort.Search(len(list), func(i int) bool { return list[i].Time.UnixMilli() >= start })
		j := sort.Search(len(list), func(i int) bool { return list[i].Time.UnixMilli() > end })
		list = list[i:max(i, j)]
		if start >= 0 && from < 0 {
			from = 0
		}
	}
	list = part(list, func(a aggregate) int64 { return a.ID }, from, limit)
	x.mu.Unlock()
	type row struct {
		A     int64  `json:"a"`
		P     string `json:"p"`
		Q     string `json:"q"`
		F     int64  `json:"f"`
		L     int64  `json:"l"`
		T     int64  `json:"T"`
		Maker bool   `json:"m"`
		Best  bool   `json:"M"`
	}
	out := make([]row, len(list))
	for i, a := range list {
		out[i] = row{a.ID, decimal(a.Price), decimal(a.Quantity), a.first, a.last, a.Time.UnixMilli(), a.BuyerMaker, true}
	}
	return out, nil
}
