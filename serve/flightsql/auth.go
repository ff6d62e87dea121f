package flightsql

import (
	"context"
	"encoding/base64"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/cauce-data/cauce/serve"
)

const (
	header          = "authorization"
	tokenLifetime   = 12 * time.Hour
	badPasswordWait = 300 * time.Millisecond
)

// password gives the role whose name and password these are; nil: there is none. Where the lake file has no roles the
// reader needs none.
func (s *Server) password(user, password string) *serve.Role {
	if s.o.Backend.Open() && strings.EqualFold(user, serve.ReaderRole) {
		return s.reader()
	}
	return s.o.Backend.Authenticate(user, password)
}

// reader is the only role of a lake file that has none.
func (s *Server) reader() *serve.Role { return s.o.Backend.Roles()[0] }

// credentialsOf takes the header apart: "basic" and "bearer" are in lower case.
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
	r := s.password(user, password)
	if r == nil {
		if s.o.Observe.Refused != nil {
			s.o.Observe.Refused("password")
		}
		time.Sleep(badPasswordWait) // guessing costs
		if s.o.Backend.Open() {
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
	case scheme == "" && s.o.Backend.Open():
		r = s.reader()
	default:
		return status.Error(codes.Unauthenticated, "a handshake wants the header authorization: Basic, with a role of the lake file and its password")
	}
	text, err := s.tokens.Give(r)
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
		if r = s.tokens.Role(value); r == nil {
			return nil, status.Error(codes.Unauthenticated, "the token is unknown or has ended; a handshake with a password gives another")
		}
	case scheme == "basic":
		if r, err = s.basic(value); err != nil {
			return nil, err
		}
	case scheme == "" && s.o.Backend.Open():
		r = s.reader()
	default:
		return nil, status.Error(codes.Unauthenticated, "a role of the lake file and its password are wanted: the header authorization, Basic in a handshake or Bearer")
	}
	return context.WithValue(ctx, roleKey{}, r), nil
}

func roleOf(ctx context.Context) *serve.Role {
	r, _ := ctx.Value(roleKey{}).(*serve.Role)
	return r
}
