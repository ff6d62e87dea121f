package web

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cauce-data/cauce/serve"
)

const (
	// cookieName is the cookie with the token of a login. It is of no use to scripts (HttpOnly) and not sent along with what
	// other sites ask for (SameSite=Strict).
	cookieName   = "cauce_session"
	sessionTime  = 12 * time.Hour // since the last request
	failuresMax  = 5              // of one address before it has to wait
	failuresKept = 10_000
	// failurePause is how long one failure counts.
	failurePause = 20 * time.Second
)

// guesses holds which addresses have failed to sign in of late.
type guesses struct {
	mu       sync.Mutex
	failures map[string]*failures // by address
}

// failures is a leaky bucket: full at failuresMax, it loses one in failurePause.
type failures struct {
	level float64
	at    time.Time
}

func newGuesses() *guesses { return &guesses{failures: map[string]*failures{}} }

// client is whom failures are counted for: an address, or the network of one of IPv6, which has many.
func client(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || ip.Unmap().Is4() {
		return host
	}
	p, err := ip.WithZone("").Prefix(64)
	if err != nil {
		return host
	}
	return p.String()
}

// wait tells how long a client has to wait before it may try again. A try counts as a failure until it is forgiven, so that
// many at once are no way around.
func (g *guesses) wait(who string) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	f := g.failures[who]
	if f == nil {
		if len(g.failures) >= failuresKept {
			for k, o := range g.failures {
				if o.leak(now); o.level == 0 {
					delete(g.failures, k)
				}
			}
			if len(g.failures) >= failuresKept { // so many addresses at once are an attack
				return failurePause
			}
		}
		f = &failures{at: now}
		g.failures[who] = f
	}
	f.leak(now)
	if f.level+1 > failuresMax {
		return time.Duration((f.level + 1 - failuresMax) * float64(failurePause))
	}
	f.level++
	return 0
}

func (f *failures) leak(now time.Time) {
	f.level = max(0, f.level-float64(now.Sub(f.at))/float64(failurePause))
	f.at = now
}

// forgive takes back the count of a try that was none.
func (g *guesses) forgive(who string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f := g.failures[who]; f != nil {
		f.level = max(0, f.level-1)
	}
}

type roleKey struct{}

// roleOf is who asks.
func roleOf(r *http.Request) *serve.Role {
	role, _ := r.Context().Value(roleKey{}).(*serve.Role)
	return role
}

// loginRoutes are what signs in and out, and tells a page who asks.
func (s *server) loginRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /api/session", func(w http.ResponseWriter, r *http.Request) {
		out := struct {
			Login bool   `json:"login"` // one must sign in
			User  string `json:"user"`  // who asks; "": nobody yet
			Whole bool   `json:"whole"` // the role sees everything, all pages among it
		}{Login: !s.o.SQL.Open()}
		if role := s.role(r); role != nil {
			out.User, out.Whole = role.Name, role.Whole()
		}
		answer(w, http.StatusOK, out)
	})
	mux.HandleFunc("POST /api/login", func(w http.ResponseWriter, r *http.Request) {
		var in struct{ Name, Password string }
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4096)).Decode(&in); err != nil {
			fail(w, http.StatusBadRequest, "name and password are wanted as JSON")
			return
		}
		who := client(r)
		if wait := s.guesses.wait(who); wait > 0 {
			seconds := int(wait.Seconds()) + 1
			w.Header().Set("Retry-After", strconv.Itoa(seconds))
			s.o.Log.Warn("web: too many failed logins", "client", who, "role", in.Name)
			fail(w, http.StatusTooManyRequests, "too many failed logins; try again in "+strconv.Itoa(seconds)+" s")
			return
		}
		role := s.o.SQL.Authenticate(in.Name, in.Password)
		if role == nil {
			s.o.Log.Warn("web: login failed", "client", who, "role", in.Name)
			fail(w, http.StatusUnauthorized, "this name and password do not belong together")
			return
		}
		s.guesses.forgive(who)
		token, err := s.logins.Give(role)
		if err != nil {
			fail(w, http.StatusInternalServerError, err.Error())
			return
		}
		s.o.Log.Info("web: login", "client", who, "role", role.Name)
		http.SetCookie(w, s.cookie(token, int(sessionTime.Seconds())))
		answer(w, http.StatusOK, map[string]any{"user": role.Name})
	})
	mux.HandleFunc("POST /api/logout", func(w http.ResponseWriter, r *http.Request) {
		if c, err := r.Cookie(cookieName); err == nil {
			s.logins.Revoke(c.Value)
		}
		http.SetCookie(w, s.cookie("", -1))
		answer(w, http.StatusOK, map[string]any{})
	})
}

func (s *server) cookie(value string, age int) *http.Cookie {
	return &http.Cookie{Name: cookieName, Value: value, Path: "/", MaxAge: age, HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: s.o.Secure}
}

// role gives who asks; nil: nobody who has signed in.
func (s *server) role(r *http.Request) *serve.Role {
	if s.o.SQL.Open() {
		return s.o.SQL.Roles()[0]
	}
	c, err := r.Cookie(cookieName)
	if err != nil {
		return nil
	}
	return s.logins.Role(c.Value)
}

// admit lets requests below /api/ pass that the role who asks may make: roles that see some tables or views have the page SQL
// alone, and nobody who had to sign in changes anything, for roles are of readers.
func (s *server) admit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := r.URL.Path
		if !strings.HasPrefix(path, "/api/") || path == "/api/session" || path == "/api/login" || path == "/api/logout" {
			next.ServeHTTP(w, r)
			return
		}
		role := s.role(r)
		switch sql := path == "/api/sql" || path == "/api/sql.csv" || path == "/api/sql/schema"; {
		case role == nil:
			fail(w, http.StatusUnauthorized, "sign in first")
			return
		case !sql && !role.Whole():
			fail(w, http.StatusForbidden, "the role "+role.Name+" sees some tables and views only, and those on the page SQL")
			return
		case r.Method != http.MethodGet && r.Method != http.MethodHead && !s.o.SQL.Open():
			fail(w, http.StatusForbidden, "roles read; on the machine of the lake cauce quarantine retry tries records again, and cauce run batch a batch")
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), roleKey{}, role)))
	})
}
