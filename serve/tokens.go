package serve

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"sync"
	"time"
)

// tokensMax bounds the tokens of a door; those that end first make place.
const tokensMax = 10_000

// Tokens stand for roles that have shown their password. A token is random and long, and only its hash is kept, so that
// nobody who sees this memory can use it. Safe for concurrent use.
type Tokens struct {
	lifetime time.Duration
	renewed  bool

	mu    sync.Mutex
	given map[[sha256.Size]byte]token
}

type token struct {
	role *Role
	ends time.Time
}

// NewTokens makes tokens that end after lifetime: since they were given, or, if they are renewed, since they were last used.
func NewTokens(lifetime time.Duration, renewed bool) *Tokens {
	return &Tokens{lifetime: lifetime, renewed: renewed, given: map[[sha256.Size]byte]token{}}
}

// Give makes a token for a role.
func (t *Tokens) Give(r *Role) (string, error) {
	raw := make([]byte, 32)
	if _, err := rand.Read(raw); err != nil {
		return "", err
	}
	text, now := base64.RawURLEncoding.EncodeToString(raw), time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.given) >= tokensMax {
		t.forget(now)
	}
	t.given[sha256.Sum256([]byte(text))] = token{r, now.Add(t.lifetime)}
	return text, nil
}

// forget drops the tokens that have ended, or else the one that ends first.
func (t *Tokens) forget(now time.Time) {
	var first [sha256.Size]byte
	ends := time.Time{}
	dropped := false
	for k, v := range t.given {
		switch {
		case now.After(v.ends):
			delete(t.given, k)
			dropped = true
		case ends.IsZero() || v.ends.Before(ends):
			first, ends = k, v.ends
		}
	}
	if !dropped {
		delete(t.given, first)
	}
}

// Role gives the role that a token stands for; nil: the token is unknown or has ended.
func (t *Tokens) Role(text string) *Role {
	key, now := sha256.Sum256([]byte(text)), time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	got, ok := t.given[key]
	if !ok || now.After(got.ends) {
		return nil
	}
	if t.renewed {
		got.ends = now.Add(t.lifetime)
		t.given[key] = got
	}
	return got.role
}

// Revoke ends a token.
func (t *Tokens) Revoke(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.given, sha256.Sum256([]byte(text)))
}
