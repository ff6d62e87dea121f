package sharing

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	tokenBytes  = 32
	secretBytes = 32
	idDigits    = 32 // of a recipient's id: the first half of the token's hash
)

// Recipient is somebody who was given a token. The token itself is kept nowhere: it is random and long, so its SHA-256
// says nothing about it.
type Recipient struct {
	ID      string   `json:"id"`
	Share   string   `json:"share"`
	Tables  []string `json:"tables,omitempty"` // none: all that the share has
	History bool     `json:"history"`          // older versions and the change feed may be read
	// Declared tells that the lake file said what the share has. Where it no longer does, nothing is left to read.
	Declared bool      `json:"declared,omitempty"`
	Created  time.Time `json:"created"`
	Expires  time.Time `json:"expires,omitzero"` // zero: never
	Hash     string    `json:"token_sha256"`     // hexadecimal
	// Damaged says why nothing but the id is known, in what List gives: nobody can read with the token.
	Damaged error `json:"-"`
}

func (r *Recipient) expired(now time.Time) bool { return !r.Expires.IsZero() && !now.Before(r.Expires) }

// Recipients are the recipients of a lake's shares, one file each, named for the hash of its token: a look-up is one read,
// and who is revoked is gone at once for every process.
type Recipients struct{ dir string }

// OpenRecipients opens the recipients kept under a folder of state; it is made where it is missing.
func OpenRecipients(dir string) (*Recipients, error) {
	r := &Recipients{dir: filepath.Join(dir, "recipients")}
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return nil, fmt.Errorf("recipients of shares: %w", err)
	}
	return r, nil
}

// Add makes a recipient of the given share, tables, history and expiry, and returns it with its token.
func (r *Recipients) Add(who Recipient, now time.Time) (Recipient, string, error) {
	token := base64.RawURLEncoding.EncodeToString(randomBytes(tokenBytes))
	who.Hash = hashToken(token)
	who.ID = who.Hash[:idDigits]
	who.Created = now.UTC().Truncate(time.Second)
	who.Expires = who.Expires.UTC().Truncate(time.Second)
	b, err := json.MarshalIndent(who, "", "  ")
	if err != nil {
		return Recipient{}, "", err
	}
	if err := writeNew(r.path(who.ID), append(b, '\n')); err != nil {
		return Recipient{}, "", fmt.Errorf("recipient of share %s: %w", who.Share, err)
	}
	return who, token, nil
}

// List gives all recipients, oldest first, the damaged ones included: one of them must not keep the others from being revoked.
func (r *Recipients) List() ([]Recipient, error) {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return nil, fmt.Errorf("recipients of shares: %w", err)
	}
	var out []Recipient
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || !isID(id) {
			continue
		}
		who, err := r.byID(id)
		if errors.Is(err, fs.ErrNotExist) {
			continue // revoked meanwhile
		}
		if err != nil {
			who = &Recipient{ID: id, Damaged: err}
		}
		out = append(out, *who)
	}
	slices.SortFunc(out, func(a, b Recipient) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out, nil
}

// Revoke forgets a recipient. Tokens and URLs of the recipient are refused from then on, but for pre-signed URLs of a
// cloud, which end by themselves.
func (r *Recipients) Revoke(id string) error {
	if !isID(id) {
		return fmt.Errorf("recipient %q: %w", id, fs.ErrNotExist)
	}
	return os.Remove(r.path(id))
}

func (r *Recipients) path(id string) string { return filepath.Join(r.dir, id+".json") }

func (r *Recipients) byID(id string) (*Recipient, error) {
	if !isID(id) {
		return nil, fmt.Errorf("recipient %q: %w", id, fs.ErrNotExist)
	}
	b, err := os.ReadFile(r.path(id))
	if err != nil {
		return nil, err
	}
	var who Recipient
	if err := json.Unmarshal(b, &who); err != nil {
		return nil, fmt.Errorf("recipient %s: %s: %w", id, r.path(id), err)
	}
	if who.ID != id || len(who.Hash) != sha256.Size*2 || who.Share == "" {
		return nil, fmt.Errorf("recipient %s: %s does not hold what its name says; revoke it and make a new one", id, r.path(id))
	}
	return &who, nil
}

// find gives the recipient of a token; fs.ErrNotExist if there is none.
func (r *Recipients) find(token string) (*Recipient, error) {
	hash := hashToken(token)
	who, err := r.byID(hash[:idDigits])
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare([]byte(who.Hash), []byte(hash)) != 1 {
		return nil, fs.ErrNotExist
	}
	return who, nil
}

func hashToken(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

func isID(s string) bool {
	return len(s) == idDigits && strings.Trim(s, "0123456789abcdef") == ""
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

// writeNew makes a file that only its owner can read, whole or not at all; fs.ErrExist if there is one.
func writeNew(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Link(f.Name(), path)
	}
	return errors.Join(err, os.Remove(f.Name()))
}

// Profile is a profile file (PROTOCOL.md, "Profile File Format").
type Profile struct {
	Version  int        `json:"shareCredentialsVersion"`
	Endpoint string     `json:"endpoint"`
	Token    string     `json:"bearerToken"`
	Expires  *time.Time `json:"expirationTime,omitempty"`
}

// NewProfile is the profile of a recipient.
func NewProfile(endpoint string, who Recipient, token string) Profile {
	p := Profile{Version: 1, Endpoint: endpoint, Token: token}
	if !who.Expires.IsZero() {
		p.Expires = &who.Expires
	}
	return p
}
