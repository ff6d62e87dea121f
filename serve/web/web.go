// Package web serves pages about a lake: how data flows and where it stands, the table's versions and files, runs,
// streams, quarantine and completeness. The pages are a program of the browser in assets/, embedded; they ask the JSON
// addresses below /api/, each of which answers from the lake as it is at that moment. Nothing is loaded from elsewhere: the
// libraries that the pages use lie in assets/lib, bundled by editor/.
package web

import (
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/pipeline"
	"github.com/cauce-data/cauce/schedule"
	"github.com/cauce-data/cauce/serve"
)

//go:embed assets
var assets embed.FS

// Options say what is shown. Lake, Ingest, RunsDir and SQL are mandatory.
type Options struct {
	Lake    *pipeline.Lake
	Ingest  *ingest.Lake
	RunsDir string // where the schedule keeps its history
	// SQL answers the page SQL. Its roles sign in; where it has none, the pages are open.
	SQL              *serve.Backend
	StatementTimeout time.Duration                         // 0: none
	Statement        func(took time.Duration, code string) // is told of each statement, with its SQLSTATE; may be nil
	Secure           bool                                  // the pages are served over TLS
	Version          string                                // of the program
	// Lags asks how much of each stream waits, by source; nil: it is not shown. The values are shown as JSON.
	Lags LagFunc
	// Retry tries a run once more that has ended without success, beside the pages, and returns when it has begun. nil: no run
	// can be tried again.
	Retry func(r *schedule.Run) error
	// Doors are addresses of other services of this process, for the page Connect.
	Doors []Door
	Log   *slog.Logger
}

// Door is a way to the data that this process opens.
type Door struct {
	Kind    string `json:"kind"`    // "postgres" or "flight"
	Address string `json:"address"` // HOST:PORT or URL
	User    string `json:"user"`    // a name under which one may connect
}

// policy is the Content-Security-Policy of every answer: nothing from elsewhere, no inline code.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// CheckListen refuses an address that others than this machine reach, unless there are roles that sign in and a certificate.
func CheckListen(addr net.Addr, o Options) error {
	tcp, ok := addr.(*net.TCPAddr)
	switch {
	case ok && tcp.IP.IsLoopback():
		return nil
	case o.SQL.Open():
		return fmt.Errorf("%s is reachable from other machines, and the lake file has no roles that could sign in: add roles with passwords, or listen on 127.0.0.1", addr)
	case !o.Secure:
		return fmt.Errorf("%s is reachable from other machines, and the lake file has no serve.tls: name a certificate, or listen on 127.0.0.1", addr)
	}
	return nil
}

// Handler serves the pages below / and what they ask below /api/; CheckListen says where it may listen.
func Handler(o Options) http.Handler {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &server{o: o, logins: serve.NewTokens(sessionTime, true), guesses: newGuesses()}
	mux := http.NewServeMux()
	s.routes(mux)
	s.sqlRoutes(mux)
	s.loginRoutes(mux)
	root, err := fs.Sub(assets, "assets")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	files := http.FileServerFS(root)
	mux.HandleFunc("GET /assets/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-cache") // they change with the binary
		http.StripPrefix("/assets", files).ServeHTTP(w, r)
	})
	// Every page is the same document; its program reads the address.
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		if !page(r.URL.Path) {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Cache-Control", "no-cache")
		http.ServeFileFS(w, r, root, "page.html")
	})
	return s.guard(s.admit(mux))
}

// page tells whether an address is one of a page.
func page(path string) bool {
	first, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	switch first {
	case "", "streaming", "quarantine", "gaps", "connect", "sql":
		return rest == ""
	case "table", "runs":
		return !strings.Contains(rest, "/")
	}
	return false
}

// guard refuses what pages of other sites make a browser do: names that only point here by a trick of DNS (which bring no
// cookie where one signs in), changes that another origin asks for, and statements that it would have run.
func (s *server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		if s.o.SQL.Open() && !local(r.Host) {
			fail(w, http.StatusMisdirectedRequest, "the pages are served under this machine's own name only, such as localhost; asked for: "+r.Host)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			origin, err := url.Parse(r.Header.Get("Origin"))
			if err != nil || origin.Host != r.Host || r.Header.Get("Content-Type") != "application/json" {
				fail(w, http.StatusForbidden, "only the pages themselves may change anything")
				return
			}
		}
		if site := r.Header.Get("Sec-Fetch-Site"); strings.HasPrefix(r.URL.Path, "/api/") && (site == "cross-site" || site == "same-site") {
			fail(w, http.StatusForbidden, "only the pages themselves may ask for this")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// local tells whether the host of a request is a name of this machine for itself.
func local(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && ip.IsLoopback()
}

// answer writes v as JSON.
func answer(w http.ResponseWriter, code int, v any) {
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // a browser that has gone misses nothing
}

// fail answers with an error as the pages show it.
func fail(w http.ResponseWriter, code int, text string) {
	answer(w, code, map[string]string{"error": text})
}

// patience bounds each answer.
const patience = 30 * time.Second
