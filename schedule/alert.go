package schedule

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/google/uuid"
)

// Alert is what a webhook is sent, as one JSON object.
type Alert struct {
	Event    Event     `json:"event"`
	Text     string    `json:"text"` // one line for people; chat services show it
	Lake     string    `json:"lake"` // the lake file
	Host     string    `json:"host"`
	Task     string    `json:"task"`
	Run      string    `json:"run"`
	Trigger  string    `json:"trigger,omitempty"`
	Status   Status    `json:"status,omitempty"`
	Started  time.Time `json:"started,omitzero"`
	Ended    time.Time `json:"ended,omitzero"`
	Attempts int       `json:"attempts"`
	ExitCode *int      `json:"exit_code,omitempty"`
	Error    string    `json:"error,omitempty"`
}

// AlertOf describes a run.
func AlertOf(e Event, r Run) Alert {
	return Alert{
		Event: e, Task: r.Task, Run: r.ID, Trigger: r.Trigger, Status: r.Status, Started: r.Started, Ended: r.Ended,
		Attempts: len(r.Attempts), ExitCode: r.ExitCode, Error: r.Error,
	}
}

// How a webhook is tried.
const (
	alertTries   = 4
	alertPause   = time.Second // before the second try; it doubles with each
	alertTimeout = 10 * time.Second
	redirectsMax = 10
)

// Webhook is an address that alerts are posted to.
type Webhook struct {
	URL    string
	Client *http.Client // nil: the default one
}

// key tells an alert from every other one: schedulers give all tasks of a run the same id, and a run may fail once more.
func (a Alert) key() string {
	run := a.Run
	if run == "" { // of no run: each is one of its own
		run = uuid.NewString()
	}
	return url.PathEscape(fmt.Sprintf("%s-%s-%s-%d", a.Event, a.Task, run, a.Attempts)) // a header is one line
}

// Send posts an alert, again after a failure that may pass: no answer, 429, 5xx. Every try carries the same Idempotency-Key.
func (w Webhook) Send(ctx context.Context, a Alert) error {
	body, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("alert: %w", err)
	}
	wait, key := alertPause, a.key()
	for try := 1; ; try++ {
		again, err := w.post(ctx, body, key)
		if err == nil || !again || try == alertTries {
			return err
		}
		if !pause(ctx, wait) {
			return err
		}
		wait *= 2
	}
}

// post is one try; again tells whether another one may help. Errors do not show the address, which may be a secret.
func (w Webhook) post(ctx context.Context, body []byte, key string) (again bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, alertTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL, bytes.NewReader(body))
	if err != nil {
		return false, errors.New("alert: the address of the webhook is none that can be posted to")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "cauce")
	req.Header.Set("Idempotency-Key", key)
	client := http.Client{}
	if w.Client != nil {
		client = *w.Client
	}
	client.CheckRedirect = keepsThePost
	resp, err := client.Do(req)
	if err != nil {
		return true, fmt.Errorf("alert: the webhook at %s does not answer: %w", req.URL.Host, unwrapURL(err))
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, 256))
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound:
		return false, fmt.Errorf("alert: the webhook at %s has moved (%s), and nothing was posted to the new address: write that into the lake file", req.URL.Host, resp.Status)
	}
	if resp.StatusCode/100 == 2 {
		return false, nil
	}
	return resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500,
		fmt.Errorf("alert: the webhook at %s answers %s: %q", req.URL.Host, resp.Status, bytes.TrimSpace(answer))
}

// keepsThePost follows a redirect as net/http does, but not one after which it would get the new address instead of posting to
// it: a page there that answers 200 has not heard of the alert. 303 says that what was posted has been taken.
func keepsThePost(req *http.Request, via []*http.Request) error {
	if req.Method != http.MethodPost && req.Response.StatusCode != http.StatusSeeOther && via[len(via)-1].Method == http.MethodPost {
		return http.ErrUseLastResponse
	}
	if len(via) >= redirectsMax {
		return fmt.Errorf("it leads from address to address, %d times", len(via))
	}
	return nil
}

// unwrapURL leaves the address out of an error of net/http.
func unwrapURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
