// Package flightsql serves Arrow Flight SQL (Apache Arrow documentation, "Arrow Flight SQL"), so that ADBC and JDBC drivers
// for it, and everything built on them, take results as Arrow batches, without a conversion to rows: statements, prepared
// statements, transactions, the calls of the catalogue, TLS, and bearer tokens that a handshake with a password gives. What a
// statement means, and who may see what, is package serve's, as for every other door.
//
// A statement runs when its flight is asked for (GetFlightInfo), once. Its rows are taken from the worker as fast as that
// makes them, and wait here until the ticket is redeemed (DoGet), which it is once and by the same role; a ticket that nobody
// redeems is forgotten.
package flightsql

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	fsql "github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"golang.org/x/net/netutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/cauce-data/cauce/serve"
)

// Bounds of the server.
const (
	messageBytesMax = 16 << 20         // that a client may send at once
	unpackedMax     = 64 << 20         // that compressed values which a client sends may take
	batchBytesMax   = 4 << 20          // that a client is sent at once, where rows are not larger
	streamsMax      = 100              // calls at the same time on one connection
	ticketLifetime  = time.Minute      // until a result is asked for
	stateLifetime   = time.Hour        // of prepared statements and transactions since they were last used
	ticketsMax      = 500              // results that wait
	statesMax       = 5000             // prepared statements, and transactions
	sweepEvery      = 10 * time.Second // what is too old is forgotten
	stopWait        = 5 * time.Second  // that running calls have when the server stops
)

// Options configure a Server. Backend must be set.
type Options struct {
	Backend *serve.Backend
	// TLS is the server's certificate; nil: connections are not encrypted, and only loopback is served.
	TLS *tls.Config
	// StatementTimeout bounds every statement; 0: there is none.
	StatementTimeout time.Duration
	SessionsMax      int    // connections at the same time; 0: 400
	Version          string // of the program
	Observe          serve.Observer
}

// Server answers Flight SQL. Serve runs it.
type Server struct {
	fsql.BaseServer
	o      Options
	tokens *serve.Tokens // what handshakes have given out

	mu           sync.Mutex
	results      map[string]*result
	prepared     map[string]*prepared
	transactions map[string]*transaction
	info         map[uint32]bool // what the server tells of itself
}

// New makes a server.
func New(o Options) (*Server, error) {
	if o.SessionsMax <= 0 {
		o.SessionsMax = 400
	}
	s := &Server{o: o, tokens: serve.NewTokens(tokenLifetime, false), results: map[string]*result{}, prepared: map[string]*prepared{}, transactions: map[string]*transaction{}, info: map[uint32]bool{}}
	s.Alloc = memory.DefaultAllocator
	return s, s.registerInfo()
}

// Serve accepts connections until ctx ends; then it ends what runs and waits for it.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	if err := s.o.Backend.CheckListen(l.Addr(), s.o.TLS != nil); err != nil {
		return errors.Join(err, l.Close())
	}
	options := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(messageBytesMax), grpc.MaxConcurrentStreams(streamsMax), grpc.ConnectionTimeout(15 * time.Second),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 2 * time.Minute}),
		grpc.ChainUnaryInterceptor(s.unary), grpc.ChainStreamInterceptor(s.stream),
	}
	if s.o.TLS != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(s.o.TLS)))
	}
	server := grpc.NewServer(options...)
	flight.RegisterFlightServiceServer(server, guarded{fsql.NewFlightServer(s), s})
	var work sync.WaitGroup
	defer work.Wait()
	defer s.closeAll()
	done := make(chan struct{})
	defer close(done)
	work.Go(func() {
		tick := time.NewTicker(sweepEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				s.sweep(time.Now())
			case <-done:
				return
			}
		}
	})
	stop := context.AfterFunc(ctx, func() {
		hard := time.AfterFunc(stopWait, server.Stop)
		defer hard.Stop()
		server.GracefulStop()
	})
	defer stop()
	if err := server.Serve(netutil.LimitListener(l, s.o.SessionsMax)); err != nil && ctx.Err() == nil {
		return fmt.Errorf("flight: %w", err)
	}
	server.Stop() // waits for the handlers
	return nil
}

// unary and stream know the caller, and keep a bug in one call from ending the others.
func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (out any, err error) {
	defer s.recovered(info.FullMethod, &err)
	if ctx, err = s.authenticate(ctx); err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

type withContext struct {
	grpc.ServerStream
	ctx context.Context
}

func (w *withContext) Context() context.Context { return w.ctx }

func (s *Server) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	defer s.recovered(info.FullMethod, &err)
	if strings.HasSuffix(info.FullMethod, "/Handshake") {
		return s.handshake(stream)
	}
	ctx, err := s.authenticate(stream.Context())
	if err != nil {
		return err
	}
	return handler(srv, &withContext{stream, ctx})
}

// guarded is a Flight server that is spared messages which the library takes for granted.
type guarded struct {
	flight.FlightServer
	s *Server
}

// DoPut implements flight.FlightServer.
func (g guarded) DoPut(stream flight.FlightService_DoPutServer) error {
	call := fsql.NewFlightServerWithAllocator(g.s, &bounded{memory.DefaultAllocator, unpackedMax})
	return call.DoPut(&described{FlightService_DoPutServer: stream})
}

// bounded is memory for what a client sends in one call. Compressed values say themselves how many bytes they will be, and without
// a bound the library believes it: Go ends a process that cannot have the memory it asks for.
type bounded struct {
	memory.Allocator
	left int
}

// Allocate implements memory.Allocator.
func (b *bounded) Allocate(size int) []byte {
	b.take(size)
	return b.Allocator.Allocate(size)
}

// Reallocate implements memory.Allocator.
func (b *bounded) Reallocate(size int, old []byte) []byte {
	b.take(size - len(old))
	return b.Allocator.Reallocate(size, old)
}

// take panics where too much is wanted; the library's reader makes an error of it.
func (b *bounded) take(n int) {
	if b.left -= max(n, 0); b.left < 0 {
		panic(&serve.Error{Code: serve.CodeLimit, Message: fmt.Sprintf("the values take more than %d bytes", unpackedMax)})
	}
}

// described is a stream whose first message has a descriptor, which the later ones have too.
type described struct {
	flight.FlightService_DoPutServer
	first *flight.FlightDescriptor
}

func (d *described) Recv() (*flight.FlightData, error) {
	m, err := d.FlightService_DoPutServer.Recv()
	if err != nil {
		return nil, err
	}
	if d.first == nil {
		if d.first = m.GetFlightDescriptor(); d.first == nil {
			return nil, status.Error(codes.InvalidArgument, "the first message of DoPut has no descriptor")
		}
	}
	if m.FlightDescriptor == nil {
		m.FlightDescriptor = d.first
	}
	return m, nil
}

func (s *Server) recovered(method string, err *error) {
	if p := recover(); p != nil {
		s.o.Backend.Log().Error("BUG: a call of Flight SQL ended", "method", method, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		*err = status.Error(codes.Internal, "the call could not be handled")
	}
}

// statusCodes are gRPC's codes for SQLSTATEs, and for their classes.
var statusCodes = map[string]codes.Code{
	serve.CodeReadOnly: codes.PermissionDenied, serve.CodePermission: codes.PermissionDenied, serve.CodeTable: codes.NotFound, serve.CodeNotSupported: codes.Unimplemented,
	serve.CodeCancelled: codes.Canceled, serve.CodeShutdown: codes.Unavailable, "22": codes.InvalidArgument, "42": codes.InvalidArgument, "28": codes.Unauthenticated, "53": codes.ResourceExhausted,
	"54": codes.ResourceExhausted,
}

// statusOf gives an error of a statement the code of gRPC; the SQLSTATE stands in the message.
func statusOf(err error) error {
	if err == nil {
		return nil
	}
	if _, is := status.FromError(err); is {
		return err
	}
	e := serve.AsError(err)
	code, ok := statusCodes[e.Code]
	if !ok {
		if code, ok = statusCodes[e.Code[:2]]; !ok {
			code = codes.Internal
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		code = codes.DeadlineExceeded
	}
	message := e.Message
	if e.Hint != "" {
		message += "; " + e.Hint
	}
	return status.Errorf(code, "%s (SQLSTATE %s)", strings.ToValidUTF8(message, "\uFFFD"), e.Code)
}
