package web

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cauce-data/cauce/test/lab"
)

// TestPagesLogin: with roles in the lake file nothing is answered without a login, a role gets what it may see and no more,
// its cookie is kept from scripts and other sites, and who guesses passwords has to wait.
func TestPagesLogin(t *testing.T) {
	l := lab.NewLake(t)
	l.Env = []string{"VIEWER=correct horse", "ALL=battery staple"}
	l.Append(roles)
	first := filepath.Join(t.TempDir(), "historico_2024-08-20.csv")
	history(t, first, 1, 20, "")
	l.Run("land", first)
	l.Run("run", "batch")
	base, _ := pages(t, l)
	ask := func(method, path, cookie, body string) (int, string, http.Header) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, base+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if method == http.MethodPost {
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Origin", base)
		}
		if cookie != "" {
			r.Header.Set("Cookie", cookie)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b), resp.Header
	}
	login := func(name, password string) (int, string, http.Header) {
		t.Helper()
		body, err := json.Marshal(map[string]string{"name": name, "password": password})
		if err != nil {
			t.Fatal(err)
		}
		return ask("POST", "/api/login", "", string(body))
	}
	session := func(name, password string) string {
		t.Helper()
		code, body, h := login(name, password)
		set := h.Get("Set-Cookie")
		if code != http.StatusOK || !strings.Contains(set, "HttpOnly") || !strings.Contains(set, "SameSite=Strict") || !strings.Contains(set, "Path=/") {
			t.Fatalf("login of %s: %d %s, cookie %q", name, code, body, set)
		}
		cookie, _, _ := strings.Cut(set, ";")
		return cookie
	}
	sql := func(s string) string { return "/api/sql?sql=" + url.QueryEscape(s) }
	paths := []string{"/api/lake", "/api/status", "/api/table/unified_events", "/api/table/unified_events/rows", "/api/table/unified_events/history", "/api/table/unified_events/difference?from=0&to=1",
		"/api/runs", "/api/quarantine", "/api/gaps"}
	for _, path := range append([]string{sql("SELECT 1"), "/api/sql.csv?sql=SELECT+1", "/api/sql/schema"}, paths...) {
		for _, cookie := range []string{"", "cauce_session=guessed", "cauce_session="} {
			if code, body, _ := ask("GET", path, cookie, ""); code != http.StatusUnauthorized {
				t.Errorf("%s with cookie %q: %d %s", path, cookie, code, body)
			}
		}
	}
	all, viewer := session("all", "battery staple"), session("VIEWER", "correct horse")
	for _, path := range paths {
		if code, body, _ := ask("GET", path, all, ""); code != http.StatusOK {
			t.Errorf("the role that sees everything: %s: %d %s", path, code, body)
		}
		if code, body, _ := ask("GET", path, viewer, ""); code != http.StatusForbidden {
			t.Errorf("the role that sees a view: %s: %d %s", path, code, body)
		}
	}
	for _, c := range []struct {
		cookie, sql string
		code        int
		says        string
	}{
		{all, "SELECT count(*) FROM unified_events", 200, `[["20"]]`},
		{viewer, "SELECT count(*) FROM prices", 200, `[["20"]]`},
		{viewer, "SELECT count(*) FROM unified_events", 400, "does not exist"},
		{viewer, "SELECT quantity FROM prices", 400, "42703"},
		{viewer, "SELECT current_user", 200, "viewer"},
	} {
		if code, body, _ := ask("GET", sql(c.sql), c.cookie, ""); code != c.code || !strings.Contains(body, c.says) {
			t.Errorf("%s: %d %s, want %d and %s", c.sql, code, body, c.code, c.says)
		}
	}
	if _, body, _ := ask("GET", "/api/sql/schema", viewer, ""); strings.Contains(body, "unified_events") || strings.Contains(body, "quantity") || !strings.Contains(body, "prices") {
		t.Errorf("the role that sees a view is told of %s", body)
	}
	var list struct{ Runs []struct{ ID string } }
	l.JSON(&list, "runs")
	if len(list.Runs) != 1 {
		t.Fatalf("runs: %+v", list)
	}
	for _, path := range []string{"/api/quarantine/retry", "/api/runs/" + list.Runs[0].ID + "/retry"} {
		for _, cookie := range []string{all, viewer} {
			if code, body, _ := ask("POST", path, cookie, "{}"); code != http.StatusForbidden {
				t.Errorf("a reader changes something: POST %s: %d %s", path, code, body)
			}
		}
		if code, body, _ := ask("POST", path, "", "{}"); code != http.StatusUnauthorized {
			t.Errorf("nobody changes something: POST %s: %d %s", path, code, body)
		}
	}
	if code, body, _ := ask("GET", "/api/runs/"+list.Runs[0].ID+"/log", viewer, ""); code != http.StatusForbidden {
		t.Errorf("the role that sees a view reads a log: %d %s", code, body)
	}
	if code, _, _ := ask("POST", "/api/logout", viewer, "{}"); code != http.StatusOK {
		t.Errorf("logout: %d", code)
	}
	if code, _, _ := ask("GET", sql("SELECT 1"), viewer, ""); code != http.StatusUnauthorized {
		t.Errorf("after the logout the cookie still opens: %d", code)
	}
	// Wrong passwords, and a right one among them that must not wash them away.
	codes := map[int]int{}
	for i := range 12 {
		name, password := "viewer", "wrong"
		if i == 3 {
			name, password = "all", "battery staple"
		}
		code, body, h := login(name, password)
		if codes[code]++; code == http.StatusTooManyRequests && (h.Get("Retry-After") == "" || !strings.Contains(body, "try again in")) {
			t.Errorf("too many tries: %s, Retry-After %q", body, h.Get("Retry-After"))
		}
	}
	if codes[http.StatusUnauthorized] < 5 || codes[http.StatusUnauthorized] > 6 || codes[http.StatusTooManyRequests] < 4 {
		t.Errorf("12 tries were answered with %v", codes)
	}
	if code, _, _ := login("viewer", "correct horse"); code != http.StatusTooManyRequests {
		t.Errorf("who has guessed too often signs in with the right password at once: %d", code)
	}
	if code, _, _ := ask("GET", sql("SELECT 1"), all, ""); code != http.StatusOK {
		t.Errorf("who is signed in is thrown out by the guesses of others: %d", code)
	}
}
