package schedule

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// answers is a transport that gives its answers in order: a status, or 0 for none.
type answers struct {
	codes []int
	seen  []*http.Request
	body  string
}

func (a *answers) RoundTrip(r *http.Request) (*http.Response, error) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	code := a.codes[min(len(a.seen), len(a.codes)-1)]
	a.seen, a.body = append(a.seen, r), string(b)
	if code == 0 {
		return nil, io.ErrUnexpectedEOF
	}
	return &http.Response{StatusCode: code, Status: http.StatusText(code), Header: http.Header{}, Body: io.NopCloser(strings.NewReader("because")), Request: r}, nil
}

func TestWebhookTriesAgain(t *testing.T) {
	code := 3
	alert := AlertOf(EventFailed, Run{ID: "r1", Task: "batch", Status: StatusFailed, ExitCode: &code, Error: "no", Attempts: make([]Attempt, 2)})
	for _, c := range []struct {
		codes []int
		tries int
		took  time.Duration
		good  bool
	}{
		{[]int{204}, 1, 0, true},
		{[]int{0, 503, 429, 200}, 4, 7 * time.Second, true},
		{[]int{500}, 4, 7 * time.Second, false},
		{[]int{404}, 1, 0, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			a := &answers{codes: c.codes}
			begin := time.Now()
			err := Webhook{URL: "https://hooks.example.org/s3cret", Client: &http.Client{Transport: a}}.Send(context.Background(), alert)
			if (err == nil) != c.good || len(a.seen) != c.tries || time.Since(begin) != c.took {
				t.Errorf("%v: %v after %d tries and %v", c.codes, err, len(a.seen), time.Since(begin))
			}
			if err != nil && (strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), "hooks.example.org")) {
				t.Errorf("the error says %v", err)
			}
			var got map[string]any
			if err := json.Unmarshal([]byte(a.body), &got); err != nil || got["event"] != "failed" || got["exit_code"] != 3.0 || got["attempts"] != 2.0 || got["run"] != "r1" {
				t.Errorf("%v, %v", got, err)
			}
			for _, r := range a.seen {
				if r.Header.Get("Idempotency-Key") != "failed-batch-r1-2" || r.Header.Get("Content-Type") != "application/json" {
					t.Errorf("headers %v", r.Header)
				}
			}
		})
	}
}

// Who passes over what came before, by its key, must not pass over another alert: of another task of the run, of a run that
// fails once more, or of no run.
func TestAlertsHaveKeysOfTheirOwn(t *testing.T) {
	failed := Alert{Event: EventFailed, Task: "dag.batch", Run: "scheduled__2024-08-20T23:00:00+00:00", Attempts: 4}
	other, again, words := failed, failed, Alert{Event: "test", Task: "batch"}
	other.Task, again.Attempts = "dag.optimize", 8
	a := &answers{codes: []int{204}}
	for _, alert := range []Alert{failed, other, again, words, words, {Event: EventFailed, Task: "two\nlines", Run: "r1"}} {
		if err := (Webhook{URL: "https://hooks.example.org", Client: &http.Client{Transport: a}}).Send(t.Context(), alert); err != nil {
			t.Errorf("%+v: %v", alert, err)
		}
	}
	seen := map[string]bool{}
	for _, r := range a.seen {
		key := r.Header.Get("Idempotency-Key")
		if seen[key] {
			t.Errorf("two alerts have the key %q", key)
		}
		seen[key] = true
	}
	if len(seen) != 6 {
		t.Errorf("%d keys of 6 alerts", len(seen))
	}
}

// An alert that is not posted to where a webhook has moved is not taken for sent: pages there answer 200 to everybody.
func TestWebhookThatHasMoved(t *testing.T) {
	var got []string
	mux := http.NewServeMux()
	mux.HandleFunc("/new", func(w http.ResponseWriter, r *http.Request) {
		var a Alert
		if r.Method == http.MethodPost && json.NewDecoder(r.Body).Decode(&a) == nil {
			got = append(got, a.Task)
		}
	})
	for path, code := range map[string]int{"/301": 301, "/302": 302, "/303": 303, "/307": 307, "/308": 308} {
		mux.Handle(path, http.RedirectHandler("/new", code))
	}
	server := httptest.NewServer(mux)
	defer server.Close()
	for _, c := range []struct {
		path         string
		good, posted bool
	}{
		{"/301", false, false},
		{"/302", false, false},
		{"/303", true, false}, // it was taken where it was posted to
		{"/307", true, true},
		{"/308", true, true},
	} {
		got = nil
		err := Webhook{URL: server.URL + c.path}.Send(t.Context(), Alert{Event: EventFailed, Task: "batch", Run: "r1"})
		if (err == nil) != c.good || (len(got) == 1) != c.posted {
			t.Errorf("%s: %v; posted %q", c.path, err, got)
		}
		if err != nil && !strings.Contains(err.Error(), "has moved") {
			t.Errorf("%s: the error says %v", c.path, err)
		}
	}
}
