package x

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Rule says which posts the stream sends: those that match its value. The rules belong to the account and stay there.
type Rule struct {
	ID    string `json:"id,omitempty"`
	Value string `json:"value"`         // such as "bitcoin lang:en"
	Tag   string `json:"tag,omitempty"` // stands beside the posts that match
}

// rulesPath is where rules are read and changed.
const rulesPath = "/2/tweets/search/stream/rules"

// answer is what X says about rules.
type answer struct {
	Data []Rule `json:"data"`
	Meta struct {
		Summary struct {
			Created    int `json:"created"`
			NotCreated int `json:"not_created"`
			Deleted    int `json:"deleted"`
			NotDeleted int `json:"not_deleted"`
		} `json:"summary"`
	} `json:"meta"`
	Errors []problem `json:"errors"`
}

// Rules gives the account's rules.
func (c *Client) Rules(ctx context.Context) ([]Rule, error) {
	a, err := c.rules(ctx, http.MethodGet, nil)
	if err != nil {
		return nil, err
	}
	return a.Data, nil
}

// AddRules adds rules and gives them with their ids. A rule that is there already stays as it is and is not among them.
// X takes all of the others or none: one that it does not understand is an error.
func (c *Client) AddRules(ctx context.Context, rules []Rule) ([]Rule, error) {
	a, err := c.rules(ctx, http.MethodPost, map[string]any{"add": rules})
	if err != nil {
		return nil, err
	}
	for _, p := range a.Errors {
		if !strings.Contains(p.Title, "DuplicateRule") {
			return a.Data, fmt.Errorf("%w: %s", ErrRefused, p)
		}
	}
	return a.Data, nil
}

// DeleteRules deletes rules by id and tells how many there were.
func (c *Client) DeleteRules(ctx context.Context, ids []string) (int, error) {
	a, err := c.rules(ctx, http.MethodPost, map[string]any{"delete": map[string]any{"ids": ids}})
	if err != nil {
		return 0, err
	}
	if n := a.Meta.Summary.NotDeleted; n > 0 {
		text := strconv.Itoa(n) + " rules are not deleted"
		if len(a.Errors) > 0 {
			text += ": " + a.Errors[0].String()
		}
		return a.Meta.Summary.Deleted, fmt.Errorf("%w: %s", ErrRefused, text)
	}
	return a.Meta.Summary.Deleted, nil
}

func (c *Client) rules(ctx context.Context, method string, q any) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var body []byte
	if q != nil {
		var err error
		if body, err = json.Marshal(q); err != nil {
			return nil, fmt.Errorf("x: %w", err)
		}
	}
	resp, err := c.do(ctx, method, rulesPath, body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var a answer
	if err := json.NewDecoder(io.LimitReader(resp.Body, 16<<20)).Decode(&a); err != nil {
		return nil, fmt.Errorf("x: answer about rules: %w", err)
	}
	return &a, nil
}

// do sends one request. Any answer but success is an error: one that wraps ErrToken or ErrRefused, or a *statusError.
func (c *Client) do(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("x: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+c.o.Token)
	req.Header.Set("User-Agent", "cauce")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.o.HTTPClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("x: %w", err)
	}
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, c.refusal(resp)
}

// refusal explains an answer that is no success.
func (c *Client) refusal(resp *http.Response) error {
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	text := strings.TrimSpace(string(raw[:min(len(raw), 300)]))
	var p struct {
		problem
		Errors []problem `json:"errors"`
	}
	if json.Unmarshal(raw, &p) == nil {
		switch {
		case len(p.Errors) > 0:
			text = p.Errors[0].String()
		case p.problem.String() != "":
			text = p.problem.String()
		}
	}
	// Whatever an answer repeats of the request, the token is not shown.
	text = strings.ReplaceAll(text, c.o.Token, "…")
	switch code := resp.StatusCode; {
	case code == http.StatusUnauthorized:
		return fmt.Errorf("%w (401): %s; make a new one in X's developer portal, of the kind \"app-only bearer token\"", ErrToken, text)
	case code == http.StatusForbidden:
		return fmt.Errorf("%w (403): %s; the app, or its plan, may not read the filtered stream, or not with backfill", ErrRefused, text)
	case code == http.StatusTooManyRequests, code >= 500, code == http.StatusRequestTimeout:
		return &statusError{code, text, until(resp.Header, time.Now())}
	default:
		return fmt.Errorf("%w (%d): %s", ErrRefused, code, text)
	}
}

// until is when the headers of an answer allow another attempt; zero if they do not say.
func until(h http.Header, now time.Time) (at time.Time) {
	if n, err := strconv.Atoi(h.Get("Retry-After")); err == nil && n >= 0 {
		at = now.Add(time.Duration(n) * time.Second)
	}
	// The limit's window ends then; it is of interest only where nothing of it is left.
	if left := h.Get("x-rate-limit-remaining"); left == "" || left == "0" {
		if n, err := strconv.ParseInt(h.Get("x-rate-limit-reset"), 10, 64); err == nil && n > 0 {
			if reset := time.Unix(n, 0); reset.After(at) && reset.Sub(now) < 24*time.Hour {
				at = reset
			}
		}
	}
	return at
}

// IsLimited tells whether X asks to send less, and until when.
func IsLimited(err error) (until time.Time, limited bool) {
	var s *statusError
	if errors.As(err, &s) && s.status == http.StatusTooManyRequests {
		return s.until, true
	}
	return time.Time{}, false
}
