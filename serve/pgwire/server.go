// Package pgwire serves PostgreSQL's wire protocol, version 3 (PostgreSQL documentation, "Frontend/Backend Protocol"), so
// that every tool with a driver for PostgreSQL reads the lake: simple and extended queries, text and binary values, portals
// and cursors, COPY … TO STDOUT, cancelling, TLS and SCRAM. What a statement means is package serve's.
package pgwire

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/xdg-go/scram"

	"github.com/cauce-data/cauce/serve"
)

// Options configure a Server. Backend must be set.
type Options struct {
	Backend *serve.Backend
	// TLS is the server's certificate; nil: connections are not encrypted, and only loopback is served.
	TLS *tls.Config
	// StatementTimeout bounds every statement, IdleTimeout a session that asks nothing; 0: none.
	StatementTimeout, IdleTimeout time.Duration
	SessionsMax                   int // 0: 400
	Observe                       serve.Observer
}

// Server accepts connections. Serve runs it.
type Server struct {
	o     Options
	roles map[string]*role

	mu       sync.Mutex
	sessions map[uint32]*conn // by process id
	serial   uint32
	open     atomic.Int64
	work     sync.WaitGroup
}

// role is a role with what SCRAM needs.
type role struct {
	*serve.Role
	credentials scram.StoredCredentials
}

// New makes a server.
func New(o Options) (*Server, error) {
	if o.SessionsMax <= 0 {
		o.SessionsMax = 400
	}
	s := &Server{o: o, roles: map[string]*role{}, sessions: map[uint32]*conn{}}
	for _, r := range o.Backend.Roles() {
		entry := &role{Role: r}
		if !o.Backend.Open() {
			var err error
			if entry.credentials, err = credentials(r.Password); err != nil {
				return nil, fmt.Errorf("password of role %s: %w", r.Name, err)
			}
		}
		s.roles[strings.ToLower(r.Name)] = entry
	}
	return s, nil
}

// credentials are what is kept of a password (RFC 5802).
func credentials(password string) (scram.StoredCredentials, error) {
	client, err := scram.SHA256.NewClient("", password, "")
	if err != nil {
		return scram.StoredCredentials{}, err
	}
	salt := make([]byte, 16)
	if _, err := rand.Read(salt); err != nil {
		return scram.StoredCredentials{}, err
	}
	return client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: string(salt), Iters: 4096})
}

// Serve accepts connections until ctx ends; then it ends all sessions and waits for them.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	if err := s.o.Backend.CheckListen(l.Addr(), s.o.TLS != nil); err != nil {
		return errors.Join(err, l.Close())
	}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	defer s.work.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() || isTooManyFiles(err) {
				time.Sleep(50 * time.Millisecond)
				continue
			}
			return fmt.Errorf("accept: %w", err)
		}
		s.work.Go(func() { s.handle(ctx, c) })
	}
}

func isTooManyFiles(err error) bool { return strings.Contains(err.Error(), "too many open files") }

func (s *Server) handle(ctx context.Context, nc net.Conn) {
	defer nc.Close()
	if tcp, ok := nc.(*net.TCPConn); ok {
		_ = tcp.SetKeepAlive(true)
	}
	defer func() {
		if p := recover(); p != nil { // a bug must not take the other sessions along
			s.o.Backend.Log().Error("BUG: a session ended", "panic", fmt.Sprint(p), "stack", stack())
		}
	}()
	n := s.open.Add(1)
	defer s.open.Add(-1)
	c := newConn(s, nc)
	if n > int64(s.o.SessionsMax)+16 { // not even a word: each connection costs
		s.refused("sessions")
		return
	}
	// Whoever ends the session, what it runs ends with that reason.
	own, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	c.terminate = func() { end(errShutdown) }
	defer context.AfterFunc(ctx, c.terminate)()
	c.run(own, n > int64(s.o.SessionsMax))
}

func (s *Server) refused(why string) {
	if s.o.Observe.Refused != nil {
		s.o.Observe.Refused(why)
	}
}

// register gives a session its process id and its secret key.
func (s *Server) register(c *conn) error {
	var secret [4]byte
	if _, err := rand.Read(secret[:]); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		s.serial++
		if s.serial > 1<<30 {
			s.serial = 1
		}
		if s.sessions[s.serial] == nil {
			break
		}
	}
	c.pid, c.secret = s.serial, binary.BigEndian.Uint32(secret[:])
	s.sessions[c.pid] = c
	return nil
}

func (s *Server) forget(c *conn) {
	if c.activity != nil {
		s.o.Backend.Leave(c.activity)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.pid != 0 {
		delete(s.sessions, c.pid)
	}
}

// cancel ends what a session is running; a wrong key does nothing.
func (s *Server) cancel(pid, secret uint32) {
	s.mu.Lock()
	c := s.sessions[pid]
	s.mu.Unlock()
	if c != nil && c.secret == secret {
		c.interrupt()
	}
}

// Sessions is the number of sessions.
func (s *Server) Sessions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions)
}
