package flightsql

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/cauce-data/cauce/serve"
)

const (
	header          = "authorization"
	tokenBytes      = 32
	tokenLifetime   = 12 * time.Hour
	tokensMax       = 10_000 // those that end first make place
	badPasswordWait = 300 * time.Millisecond
)

// tokens are what handshakes have given out. A token is random and long, and only its hash is kept.
type tokens struct {
	open  bool // no role has a password
	roles map[string]*serve.Role

	mu    sync.Mutex
	given map[[sha256.Size]byte]token
}

type token struct {
	role *serve.Role
	ends time.Time
}

func (t *tokens) init(b *serve.Backend) {
	t.open, t.roles, t.given = b.Open(), map[string]*serve.Role{}, map[[sha256.Size]byte]token{}
	for _, r := range b.Roles() {
		t.roles[strings.ToLower(r.Name)] = &r
	}
}

// password gives the role whose name and password these are; nil: there is none.
func (t *tokens) password(user, password string) *serve.Role {
	r := t.roles[strings.ToLower(user)]
	if t.open {
		return r
	}
	want := ""
	if r != nil {
		want = r.Password
	}
	// Hashes have one length, so that the comparison tells nothing of the password's.
	a, b := sha256.Sum256([]byte(want)), sha256.Sum256([]byte(password))
	if subtle.ConstantTimeCompare(a[:], b[:]) != 1 || r == nil || want == "" {
		return nil
	}
	return r
}

// give makes a token for a role.
func (t *tokens) give(r *serve.Role, now time.Time) (string, error) {
	raw := make([]byte, tokenBytes)
	if _, err := rand.Read(raw); err != nil {
		return "", err
	}
	text := base64.RawURLEncoding.EncodeToString(raw)
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.given) >= tokensMax {
		t.forget(now)
	}
	t.given[sha256.Sum256([]byte(text))] = token{r, now.Add(tokenLifetime)}
	return text, nil
}

// forget drops the tokens that have ended, or else the one that ends first.
func (t *tokens) forget(now time.Time) {
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

// role gives the role that a token stands for.
func (t *tokens) role(text string, now time.Time) *serve.Role {
	t.mu.Lock()
	defer t.mu.Unlock()
	got, ok := t.given[sha256.Sum256([]byte(text))]
	if !ok || now.After(got.ends) {
		return nil
	}
	return got.role
}

// credentials takes the header apart: "basic" and "bearer" are in lower case.
func credentialsOf(ctx context.Context) (scheme, value string) {
	md, _ := metadata.FromIncomingContext(ctx)
	for _, v := range md.Get(header) {
		scheme, value, _ = strings.Cut(strings.TrimSpace(v), " ")
		return strings.ToLower(scheme), strings.TrimSpace(value)
	}
	return "", ""
}

// basic gives the role of a header of basic authentication (RFC 7617).
func (s *Server) basic(value string) (*serve.Role, error) {
	text, err := base64.StdEncoding.DecodeString(value)
	if err != nil {
		if text, err = base64.RawStdEncoding.DecodeString(value); err != nil {
			return nil, status.Error(codes.Unauthenticated, "the header authorization is malformed")
		}
	}
	user, password, ok := strings.Cut(string(text), ":")
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "the header authorization is malformed")
	}
	r := s.tokens.password(user, password)
	if r == nil {
		if s.o.Observe.Refused != nil {
			s.o.Observe.Refused("password")
		}
		time.Sleep(badPasswordWait) // guessing costs
		if s.tokens.open {
			return nil, status.Errorf(codes.Unauthenticated, "role %q does not exist; the lake file has no roles: connect as %s", user, serve.ReaderRole)
		}
		return nil, status.Errorf(codes.Unauthenticated, "password authentication failed for user %q", user)
	}
	return r, nil
}

// handshake gives a token for a name and a password, in the header authorization as clients expect it.
func (s *Server) handshake(stream grpc.ServerStream) error {
	scheme, value := credentialsOf(stream.Context())
	var r *serve.Role
	var err error
	switch {
	case scheme == "basic":
		if r, err = s.basic(value); err != nil {
			return err
		}
	case scheme == "" && s.tokens.open:
		r = s.tokens.roles[serve.ReaderRole]
	default:
		return status.Error(codes.Unauthenticated, "a handshake wants the header authorization: Basic, with a role of the lake file and its password")
	}
	text, err := s.tokens.give(r, time.Now())
	if err != nil {
		return err
	}
	answer := metadata.Pairs(header, "Bearer "+text)
	if err := stream.SetHeader(answer); err != nil {
		return err
	}
	stream.SetTrailer(answer)
	return nil
}

type roleKey struct{}

// authenticate puts the caller's role into the context.
func (s *Server) authenticate(ctx context.Context) (context.Context, error) {
	scheme, value := credentialsOf(ctx)
	var r *serve.Role
	var err error
	switch {
	case scheme == "bearer":
		if r = s.tokens.role(value, time.Now()); r == nil {
			return nil, status.Error(codes.Unauthenticated, "the token is unknown or has ended; a handshake with a password gives another")
		}
	case scheme == "basic":
		if r, err = s.basic(value); err != nil {
			return nil, err
		}
	case scheme == "" && s.tokens.open:
		r = s.tokens.roles[serve.ReaderRole]
	default:
		return nil, status.Error(codes.Unauthenticated, "a role of the lake file and its password are wanted: the header authorization, Basic in a handshake or Bearer")
	}
	return context.WithValue(ctx, roleKey{}, r), nil
}

func roleOf(ctx context.Context) *serve.Role {
	r, _ := ctx.Value(roleKey{}).(*serve.Role)
	return r
}
