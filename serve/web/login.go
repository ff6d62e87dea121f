package web

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
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

// A login makes a random token, which only the browser knows: here its hash names the session. The cookie is of no use to
// scripts (HttpOnly) and not sent along with what other sites ask for (SameSite=Strict).
const (
	cookieName   = "cauce_session"
	sessionTime  = 12 * time.Hour // since the last request
	sessionsMax  = 10_000
	failuresMax  = 5 // of one address before it has to wait
	failuresKept = 10_000
	// failurePause is how long one failure counts.
	failurePause = 20 * time.Second
)

type login struct {
	role *serve.Role
	ends time.Time
}

// logins holds who is signed in, and which addresses have failed to of late.
type logins struct {
	mu       sync.Mutex
	sessions map[[sha256.Size]byte]*login
	failures map[string]*failures // by address
	now      func() time.Time
}

// failures is a leaky bucket: full at failuresMax, it loses one in failurePause.
type failures struct {
	level float64
	at    time.Time
}

func newLogins() *logins {
	return &logins{sessions: map[[sha256.Size]byte]*login{}, failures: map[string]*failures{}, now: time.Now}
}

// open makes a session and gives its token.
func (l *logins) open(role *serve.Role) (string, error) {
	raw := make([]byte, 32)
	if _, err := rand.Read(raw); err != nil {
		return "", err
	}
	token := base64.RawURLEncoding.EncodeToString(raw)
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for k, s := range l.sessions {
		if now.After(s.ends) || len(l.sessions) >= sessionsMax {
			delete(l.sessions, k)
		}
	}
	l.sessions[sha256.Sum256([]byte(token))] = &login{role, now.Add(sessionTime)}
	return token, nil
}

// of gives the role of a request's session; nil without one.
func (l *logins) of(r *http.Request) *serve.Role {
	c, err := r.Cookie(cookieName)
	if err != nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sessions[sha256.Sum256([]byte(c.Value))]
	if s == nil || l.now().After(s.ends) {
		return nil
	}
	s.ends = l.now().Add(sessionTime)
	return s.role
}

func (l *logins) close(r *http.Request) {
	if c, err := r.Cookie(cookieName); err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.sessions, sha256.Sum256([]byte(c.Value)))
	}
}

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
func (l *logins) wait(who string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	f := l.failures[who]
	if f == nil {
		if len(l.failures) >= failuresKept {
			for k, o := range l.failures {
				if o.leak(now); o.level == 0 {
					delete(l.failures, k)
				}
			}
			if len(l.failures) >= failuresKept { // so many addresses at once are an attack
				return failurePause
			}
		}
		f = &failures{at: now}
		l.failures[who] = f
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
func (l *logins) forgive(who string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.failures[who]; f != nil {
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
		if wait := s.logins.wait(who); wait > 0 {
			seconds := int(wait.Seconds()) + 1
			w.Header().Set("Retry-After", strconv.Itoa(seconds))
			s.o.Log.Warn("web: too many failed logins", "client", who, "role", in.Name)
			fail(w, http.StatusTooManyRequests, "too many failed logins; try again in "+strconv.Itoa(seconds)+" s")
			return
		}
		role, ok := s.o.SQL.Authenticate(in.Name, in.Password)
		if !ok {
			s.o.Log.Warn("web: login failed", "client", who, "role", in.Name)
			fail(w, http.StatusUnauthorized, "this name and password do not belong together")
			return
		}
		s.logins.forgive(who)
		token, err := s.logins.open(role)
		if err != nil {
			fail(w, http.StatusInternalServerError, err.Error())
			return
		}
		s.o.Log.Info("web: login", "client", who, "role", role.Name)
		http.SetCookie(w, s.cookie(token, int(sessionTime.Seconds())))
		answer(w, http.StatusOK, map[string]any{"user": role.Name})
	})
	mux.HandleFunc("POST /api/logout", func(w http.ResponseWriter, r *http.Request) {
		s.logins.close(r)
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
		return &serve.Role{Name: serve.ReaderRole}
	}
	return s.logins.of(r)
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
			fail(w, http.StatusForbidden, "roles read; cauce quarantine retry, on the machine of the lake, tries records again")
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), roleKey{}, role)))
	})
}
