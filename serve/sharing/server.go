// Package sharing is a server of the Delta Sharing protocol over the lake's tables: it tells recipients which tables they
// may read, at which version, and gives them URLs of data files that expire. It stands between a catalogue of Delta tables
// and clients that have nothing but a profile file; no row passes through it, but for those of files that have to be
// rewritten because the client cannot leave out rows that no longer count.
package sharing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cauce-data/cauce/catalog"
	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/delta/expr"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/pipeline"
)

// Prefix is the path below which a Server answers; the endpoint of a profile ends with it.
const Prefix = "/delta-sharing"

// Schema is the one schema of every share.
const Schema = "public"

// URLLifetime is how long the URL of a data file is good.
const URLLifetime = time.Hour

// DefaultCopyBytes bounds the rewritten files that are kept.
const DefaultCopyBytes = 4 << 30

// Options configure a Server. All but Parse, BaseURL, CopyBytes, Log and Now must be set.
type Options struct {
	Lake    *pipeline.Lake
	Catalog *catalog.Catalog
	Store   objstore.Store // of the lake's root
	// Dir is the folder of local state: recipients, the secret that signs URLs, rewritten files.
	Dir string
	// Parse reads the SQL of predicateHints; nil: they are not used.
	Parse func(sql string) (expr.Expr, error)
	// BaseURL is how clients reach the server, up to and with Prefix, where that is not what they call it by themselves
	// (a proxy stands before it).
	BaseURL   string
	CopyBytes int64 // most bytes of rewritten files that are kept; 0: DefaultCopyBytes
	Log       *slog.Logger
	Now       func() time.Time
}

// Server answers the protocol's requests. Make it with New.
type Server struct {
	o      Options
	people *Recipients
	secret []byte
	copies *copies
	hidden *hiddenRows
	mux    *http.ServeMux
}

// New makes the server of a lake. Its folder is made where it is missing.
func New(o Options) (*Server, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.CopyBytes == 0 {
		o.CopyBytes = DefaultCopyBytes
	}
	o.BaseURL = strings.TrimRight(o.BaseURL, "/")
	people, err := OpenRecipients(o.Dir)
	if err != nil {
		return nil, err
	}
	secret, err := loadSecret(filepath.Join(o.Dir, "secret"))
	if err != nil {
		return nil, err
	}
	c, err := newCopies(filepath.Join(o.Dir, "copies"), o.CopyBytes, o.Now)
	if err != nil {
		return nil, err
	}
	s := &Server{o: o, people: people, secret: secret, copies: c, hidden: newHiddenRows(), mux: http.NewServeMux()}
	s.routes()
	return s, nil
}

func (s *Server) routes() {
	get := func(pattern string, f handler) { s.handle("GET", pattern, f) }
	get("/shares", s.listShares)
	get("/shares/{share}", s.getShare)
	get("/shares/{share}/schemas", s.listSchemas)
	get("/shares/{share}/schemas/{schema}/tables", s.listTables)
	get("/shares/{share}/all-tables", s.listAllTables)
	const table = "/shares/{share}/schemas/{schema}/tables/{table}"
	get(table, s.tableVersion)
	get(table+"/version", s.tableVersion)
	get(table+"/metadata", s.tableMetadata)
	s.handle("POST", table+"/query", s.query)
	get(table+"/changes", s.changes)
	s.mux.HandleFunc(Prefix+"/", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, nil, errorf(http.StatusNotFound, codeNotFound, "%s %s is not part of the protocol; an endpoint ends with %s/", r.Method, r.URL.Path, Prefix))
	})
}

// handler answers one kind of request of a recipient whose token is good.
type handler func(w http.ResponseWriter, r *http.Request, who *Recipient) error

func (s *Server) handle(method, pattern string, f handler) {
	s.mux.HandleFunc(method+" "+Prefix+pattern, func(w http.ResponseWriter, r *http.Request) {
		who, err := s.authenticate(r)
		if err == nil {
			err = f(w, r, who)
		}
		if err != nil {
			s.fail(w, r, who, err)
			return
		}
		s.o.Log.Info("share", "recipient", who.ID, "share", who.Share, "method", r.Method, "path", r.URL.Path)
	})
}

// ServeHTTP answers requests below Prefix.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if strings.HasPrefix(r.URL.Path, Prefix+"/files/") {
		s.serveFile(w, r) // not through the mux, which would lead a path with dots to another one
		return
	}
	s.mux.ServeHTTP(w, r)
}

// The protocol's errors are {errorCode, message}; these codes are those of its reference server, as far as it has one.
const (
	codeUnauthenticated = "UNAUTHENTICATED"
	codeDenied          = "PERMISSION_DENIED"
	codeNotFound        = "RESOURCE_DOES_NOT_EXIST"
	codeMalformed       = "MALFORMED_REQUEST"
	codeParameter       = "INVALID_PARAMETER_VALUE"
	codeUnsupported     = "UNSUPPORTED_OPERATION"
	codeInternal        = "INTERNAL_ERROR"
)

// requestError is an error that the client may see.
type requestError struct {
	status  int
	code    string
	message string
}

func (e *requestError) Error() string { return e.message }

func errorf(status int, code, format string, args ...any) error {
	return &requestError{status, code, fmt.Sprintf(format, args...)}
}

func badParameter(format string, args ...any) error {
	return errorf(http.StatusBadRequest, codeParameter, format, args...)
}

// public is what a client may know of an error. What lies below (paths, addresses of stores) is for the log alone.
func public(err error) *requestError {
	var (
		own         *requestError
		version     *delta.VersionError
		unsupported *delta.UnsupportedError
	)
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &version):
		return &requestError{http.StatusBadRequest, codeParameter, version.Error()}
	case errors.Is(err, delta.ErrNoChangeData):
		return &requestError{http.StatusBadRequest, codeUnsupported, "the change data feed of these versions was not recorded: the table's property delta.enableChangeDataFeed was not true"}
	case errors.As(err, &unsupported):
		return &requestError{http.StatusBadRequest, codeUnsupported, unsupported.Error()}
	case errors.Is(err, delta.ErrNotATable):
		return &requestError{http.StatusNotFound, codeNotFound, "nothing has been written to the table yet"}
	case errors.Is(err, objstore.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return &requestError{http.StatusNotFound, codeNotFound, "files of that version have been removed since (VACUUM); a newer version can be read"}
	case errors.Is(err, objstore.ErrUnavailable):
		return &requestError{http.StatusServiceUnavailable, codeInternal, "the lake's storage cannot be reached; try again later"}
	}
	return &requestError{http.StatusInternalServerError, codeInternal, "the server could not answer; its log says why"}
}

func (s *Server) fail(w http.ResponseWriter, r *http.Request, who *Recipient, err error) {
	if r.Context().Err() != nil {
		return // nobody listens
	}
	e := public(err)
	level := slog.LevelInfo
	if e.status >= 500 {
		level = slog.LevelError
	}
	id := ""
	if who != nil {
		id = who.ID
	}
	s.o.Log.Log(r.Context(), level, "share: refused", "recipient", id, "method", r.Method, "path", r.URL.Path, "status", e.status, "error", err)
	if e.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="delta-sharing"`)
	}
	writeJSON(w, e.status, map[string]string{"errorCode": e.code, "message": e.message})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // a client that has gone misses nothing
}

// authenticate finds the recipient of a bearer token (RFC 6750).
func (s *Server) authenticate(r *http.Request) (*Recipient, error) {
	kind, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(kind, "Bearer") || token == "" {
		return nil, errorf(http.StatusUnauthorized, codeUnauthenticated, "a bearer token is needed: use the profile file that you were given")
	}
	who, err := s.people.find(token)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errorf(http.StatusUnauthorized, codeUnauthenticated, "the bearer token is not known, or has been revoked")
	}
	if err != nil {
		return nil, err
	}
	if who.expired(s.o.Now()) {
		return nil, errorf(http.StatusUnauthorized, codeUnauthenticated, "the bearer token expired at %s; ask for a new profile file", who.Expires.Format(time.RFC3339))
	}
	return who, nil
}

// base is the URL below which this server's paths stand, as the client reaches it.
func (s *Server) base(r *http.Request) string {
	if s.o.BaseURL != "" {
		return s.o.BaseURL
	}
	u := url.URL{Scheme: "http", Host: r.Host, Path: Prefix}
	if r.TLS != nil {
		u.Scheme = "https"
	}
	return u.String()
}

// shared is one table as a share has it.
type shared struct {
	share   string
	name    string
	history bool
	deletes bool     // it has rows marked _deleted, which are to be hidden: newAnswer says so
	key     []string // of the lake file; none: rows are told apart by origin and position
}

// tables lists what a recipient may read, in the order of the lake file.
func (s *Server) tables(who *Recipient) []shared {
	history := who.History
	names := who.Tables
	decl := s.o.Lake.Share(who.Share)
	if decl == nil && who.Declared {
		return nil // a share that is gone is not one without bounds
	}
	if decl != nil {
		history = history && decl.History
		if len(names) == 0 {
			names = decl.Tables
		} else { // what the share no longer has, nobody sees
			var still []string
			for _, n := range names {
				if len(decl.Tables) == 0 || containsFold(decl.Tables, n) {
					still = append(still, n)
				}
			}
			if names = still; len(names) == 0 {
				return nil
			}
		}
	}
	var out []shared
	for _, t := range s.o.Lake.Tables {
		if len(names) == 0 || containsFold(names, t.Name) {
			out = append(out, shared{share: who.Share, name: t.Name, history: history, key: t.Key})
		}
	}
	if containsFold(names, catalog.Quarantine) { // only where it is named: it holds raw records
		out = append(out, shared{share: who.Share, name: catalog.Quarantine, history: history})
	}
	return out
}

func containsFold(names []string, name string) bool {
	for _, n := range names {
		if strings.EqualFold(n, name) {
			return true
		}
	}
	return false
}

// open finds the table of a request's path.
func (s *Server) open(ctx context.Context, r *http.Request, who *Recipient) (shared, *delta.Table, error) {
	if err := s.checkShare(r, who); err != nil {
		return shared{}, nil, err
	}
	if err := checkSchema(r); err != nil {
		return shared{}, nil, err
	}
	name := r.PathValue("table")
	for _, t := range s.tables(who) {
		if strings.EqualFold(t.name, name) {
			table, err := s.o.Catalog.Open(ctx, t.name)
			return t, table, err
		}
	}
	return shared{}, nil, errorf(http.StatusNotFound, codeNotFound, "table %q: it does not exist in share %s", clip(name), who.Share)
}

func (s *Server) checkShare(r *http.Request, who *Recipient) error {
	if name := r.PathValue("share"); !strings.EqualFold(name, who.Share) {
		return errorf(http.StatusNotFound, codeNotFound, "share %q: it does not exist, or is not yours", clip(name))
	}
	return nil
}

func checkSchema(r *http.Request) error {
	if name := r.PathValue("schema"); !strings.EqualFold(name, Schema) {
		return errorf(http.StatusNotFound, codeNotFound, "schema %q: it does not exist; there is %s", clip(name), Schema)
	}
	return nil
}

// clip shortens what a client sent before it is shown.
func clip(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}

// loadSecret reads the key that signs URLs, and makes it the first time.
func loadSecret(path string) ([]byte, error) {
	for range 2 {
		b, err := os.ReadFile(path)
		if err == nil && len(b) >= secretBytes {
			return b, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("secret of shared URLs: %w", err)
		}
		if err == nil {
			return nil, fmt.Errorf("secret of shared URLs: %s has %d bytes, not %d; delete it, and URLs that were given out end", path, len(b), secretBytes)
		}
		if err := writeNew(path, randomBytes(secretBytes)); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("secret of shared URLs: %w", err)
		}
	}
	return os.ReadFile(path)
}
