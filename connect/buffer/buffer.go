// Package buffer is the durable stream buffer that needs no server of its own: NATS JetStream, embedded, in a folder
// beside the lake file (DESIGN D10). It stands between producers, which publish to a Sink, and ingest, which reads a
// Source; both may live in any number of processes of one machine.
//
// # Who hosts
//
// Two servers on one folder lose data silently, so a folder is opened only under its lock. The process that holds the
// lock hosts the server on a free loopback port, and writes the port and a token beside the folder, readable by its
// user only; every other process is a client. When the host ends, however it ends, the kernel frees the lock, the
// clients race for it, and the winner hosts. What was not acknowledged is published again with the same message id,
// which the server drops if it has it.
//
// # What survives
//
// An acknowledged message survives the death of any process. What a power cut may cost, Options.Sync says.
//
// # Incarnations
//
// Every topic has a UUID of its own, stored with the topic's messages: its incarnation, without which an offset means
// nothing. A topic made anew has another one, which is a gap for a table that has read the former. A gap that is allowed
// changes nothing here: it moves the position of the one reader for which it is allowed, and every other one finds it by itself.
package buffer

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	mrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sys/unix"
)

// Kind is the lake file's name of this buffer, and begins the origin of its records.
const Kind = "embedded"

// MessageBytesMax bounds one message.
const MessageBytesMax = payloadMax - 64<<10

// payloadMax is the server's bound, headers included; it advises against more.
const payloadMax = 8 << 20

// DuplicatesWindow is how long a message id is remembered.
const DuplicatesWindow = 2 * time.Minute

// patience bounds how long an operation waits for a host.
const patience = 30 * time.Second

// Errors of this package.
var (
	// ErrClosed says that the buffer or a part of it was closed.
	ErrClosed = errors.New("stream buffer is closed")
	// ErrFull says that the buffer refuses messages, because its bound or the disk is reached.
	ErrFull = errors.New("stream buffer refuses messages")
	// ErrTooLarge says that a message exceeds MessageBytesMax, or that its key and id do not fit into a header.
	ErrTooLarge = errors.New("message is too large")
	// ErrReplaced says that a topic was made anew while it was read.
	ErrReplaced = errors.New("topic was made anew while it was read")
)

// Options configure a buffer.
type Options struct {
	// Dir is the buffer's folder, made if missing.
	Dir string
	// Sync is "interval" (the default: a power cut may cost the last second) or "always" (it costs nothing, at about
	// a thousand messages a second). It counts in the process that hosts.
	Sync string
	// BytesMax bounds the messages of all topics on disk; beyond it publishing waits and then fails with ErrFull.
	// 0: no bound. It counts in the process that hosts.
	BytesMax int64
	Log      *slog.Logger // nil: silent
}

// Buffer is this process's part in the buffer of a folder. It is safe for concurrent use.
type Buffer struct {
	o    Options
	nc   *nats.Conn
	js   jetstream.JetStream
	stop context.CancelFunc
	done sync.WaitGroup
	lost chan struct{} // the connection broke: perhaps nobody hosts

	mu     sync.Mutex
	host   *host // nil: another process hosts
	token  string
	sinks  map[*Sink]struct{}
	closed bool
}

// Open joins the buffer of a folder, hosting it if no process does. It returns when the buffer can be used.
func Open(ctx context.Context, o Options) (*Buffer, error) {
	switch o.Sync {
	case "":
		o.Sync = "interval"
	case "interval", "always":
	default:
		return nil, fmt.Errorf("stream buffer: sync is %q, not interval or always", o.Sync)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("stream buffer: %w", err)
	}
	o.Dir = dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("stream buffer: %w", err)
	}
	b := &Buffer{o: o, lost: make(chan struct{}, 1), sinks: map[*Sink]struct{}{}}
	if err := b.join(ctx); err != nil {
		b.leave()
		return nil, fmt.Errorf("stream buffer %s: %w", dir, err)
	}
	background, stop := context.WithCancel(context.Background())
	b.stop = stop
	b.done.Add(1)
	go b.guard(background)
	return b, nil
}

// join hosts or connects.
func (b *Buffer) join(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		if err := b.tryHost(ctx); err != nil {
			return err
		}
		err := b.connect()
		if err == nil {
			return nil
		}
		if e := pause(ctx, backoff()); e != nil {
			return fmt.Errorf("no host can be reached: %w", err)
		}
	}
}

func (b *Buffer) connect() error {
	nc, err := nats.Connect("nats://127.0.0.1:1", // the dialer finds the address
		nats.Name("cauce"),
		nats.SetCustomDialer(dialer{b}),
		nats.TokenHandler(func() string {
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.token
		}),
		nats.SkipHostLookup(),
		nats.IgnoreDiscoveredServers(),
		nats.IgnoreAuthErrorAbort(),
		nats.Timeout(2*time.Second),
		nats.MaxReconnects(-1),
		nats.CustomReconnectDelay(func(int) time.Duration { return backoff() }),
		nats.ReconnectBufSize(-1), // a Sink publishes again by itself
		nats.DisconnectErrHandler(func(_ *nats.Conn, _ error) { b.wake() }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, _ error) { b.wake() }),
		nats.ReconnectHandler(func(_ *nats.Conn) { b.reconnected() }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			b.o.Log.Debug("stream buffer connection", "error", err)
		}),
		nats.NoCallbacksAfterClientClose(),
	)
	if err != nil {
		return err
	}
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(2*time.Second))
	if err != nil {
		nc.Close()
		return err
	}
	b.nc, b.js = nc, js
	return nil
}

// dialer connects to whoever hosts; the NATS client uses it whenever it connects anew.
type dialer struct{ b *Buffer }

// Dial implements nats.CustomDialer.
func (d dialer) Dial(network, _ string) (net.Conn, error) {
	b := d.b
	text, err := os.ReadFile(filepath.Join(b.o.Dir, "server.json"))
	if err != nil {
		return nil, err
	}
	var e endpoint
	if err := json.Unmarshal(text, &e); err != nil {
		return nil, fmt.Errorf("server.json: %w", err)
	}
	c, err := net.DialTimeout(network, e.Address, time.Second)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	b.token = e.Token
	b.mu.Unlock()
	return c, nil
}

// wake tells the guard to look whether somebody hosts.
func (b *Buffer) wake() {
	select {
	case b.lost <- struct{}{}:
	default:
	}
}

func (b *Buffer) reconnected() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.sinks {
		s.wake()
	}
}

// guard takes the host's place whenever it is free and this process has lost its connection.
func (b *Buffer) guard(ctx context.Context) {
	defer b.done.Done()
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.lost:
		}
		for ctx.Err() == nil && !b.nc.IsConnected() && !b.nc.IsClosed() {
			if err := b.tryHost(ctx); err != nil && ctx.Err() == nil {
				b.o.Log.Error("stream buffer cannot be hosted", "dir", b.o.Dir, "error", err)
				_ = pause(ctx, time.Second)
			}
			_ = pause(ctx, backoff())
		}
	}
}

// Hosting tells whether this process hosts the buffer.
func (b *Buffer) Hosting() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.host != nil
}

// Close leaves the buffer. If this process hosts it, another one that uses it takes over.
func (b *Buffer) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	sinks := make([]*Sink, 0, len(b.sinks))
	for s := range b.sinks {
		sinks = append(sinks, s)
	}
	b.mu.Unlock()
	var errs []error
	for _, s := range sinks {
		errs = append(errs, s.Close())
	}
	b.stop()
	b.done.Wait()
	b.leave()
	return errors.Join(errs...)
}

func (b *Buffer) leave() {
	if b.nc != nil {
		b.nc.Close()
	}
	b.mu.Lock()
	h := b.host
	b.host = nil
	b.mu.Unlock()
	if h != nil {
		h.close()
	}
}

// endpoint is what server.json tells clients.
type endpoint struct {
	Address string `json:"address"`
	Token   string `json:"token"`
	PID     int    `json:"pid"`
}

// host is the server and the lock that it runs under.
type host struct {
	dir  string
	lock *os.File
	srv  *server.Server
}

// tryHost hosts the folder if no process does. That another one does is no error.
func (b *Buffer) tryHost(ctx context.Context) error {
	if b.Hosting() {
		return nil
	}
	lock, err := os.OpenFile(filepath.Join(b.o.Dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR) {
			return nil
		}
		return fmt.Errorf("lock: %w", err)
	}
	h := &host{dir: b.o.Dir, lock: lock}
	if err := h.start(ctx, b.o); err != nil {
		h.close()
		return err
	}
	b.mu.Lock()
	b.host = h
	b.mu.Unlock()
	b.o.Log.Debug("stream buffer is hosted here", "dir", b.o.Dir, "address", h.srv.Addr().String())
	return nil
}

func (h *host) start(ctx context.Context, o Options) error {
	// The lock file must be the one that stands in the folder: if somebody removed the folder in between, another
	// process may hold a lock on a new file of the same name.
	opened, err := h.lock.Stat()
	if err != nil {
		return err
	}
	named, err := os.Stat(filepath.Join(h.dir, "lock"))
	if err != nil || !os.SameFile(opened, named) {
		return fmt.Errorf("lock: the folder %s was replaced", h.dir)
	}
	secret := make([]byte, 24)
	if _, err := rand.Read(secret); err != nil {
		return err
	}
	e := endpoint{Token: hex.EncodeToString(secret), PID: os.Getpid()}
	bytesMax := o.BytesMax
	if bytesMax <= 0 {
		bytesMax = math.MaxInt64 / 4
	}
	h.srv, err = server.NewServer(&server.Options{
		ServerName:             "cauce",
		Host:                   "127.0.0.1",
		Port:                   server.RANDOM_PORT,
		Authorization:          e.Token,
		JetStream:              true,
		StoreDir:               h.dir,
		JetStreamMaxMemory:     64 << 20,
		JetStreamMaxStore:      bytesMax,
		SyncInterval:           time.Second,
		SyncAlways:             o.Sync == "always",
		MaxPayload:             payloadMax,
		NoSigs:                 true,
		DisableJetStreamBanner: true,
	})
	if err != nil {
		return err
	}
	fatal := make(chan string, 1)
	h.srv.SetLoggerV2(&logger{o.Log, fatal}, false, false, false)
	h.srv.Start()
	for !h.srv.ReadyForConnections(100 * time.Millisecond) {
		select {
		case msg := <-fatal:
			return fmt.Errorf("server: %s", msg)
		case <-ctx.Done():
			return ctx.Err()
		default:
		}
	}
	if !h.srv.JetStreamEnabled() {
		select {
		case msg := <-fatal:
			return fmt.Errorf("server: %s", msg)
		default:
			return errors.New("server: its storage could not be opened")
		}
	}
	e.Address = h.srv.Addr().String()
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	temp := filepath.Join(h.dir, "server.json.tmp")
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(temp, text, 0o600); err != nil {
		return err
	}
	return os.Rename(temp, filepath.Join(h.dir, "server.json"))
}

// close ends the server, and frees the lock last.
func (h *host) close() {
	if h.srv != nil {
		h.srv.Shutdown()
		h.srv.WaitForShutdown()
		_ = os.Remove(filepath.Join(h.dir, "server.json"))
	}
	_ = h.lock.Close()
}

// logger passes on what the server reports.
type logger struct {
	log   *slog.Logger
	fatal chan string
}

func (l *logger) Noticef(format string, v ...any) { l.log.Debug(l.text(format, v)) }
func (l *logger) Warnf(format string, v ...any)   { l.log.Info(l.text(format, v)) } // such as: was killed, recovers
func (l *logger) Errorf(format string, v ...any)  { l.log.Error(l.text(format, v)) }
func (l *logger) Debugf(string, ...any)           {}
func (l *logger) Tracef(string, ...any)           {}
func (l *logger) Fatalf(format string, v ...any) {
	select {
	case l.fatal <- fmt.Sprintf(format, v...):
	default:
	}
}

func (l *logger) text(format string, v []any) string {
	return "stream buffer: " + fmt.Sprintf(format, v...)
}

// backoff is the pause between two looks for a host: short, because a take-over must be, and random, so that the
// processes that wait do not move in step.
func backoff() time.Duration {
	return 20*time.Millisecond + mrand.N(60*time.Millisecond)
}

// pause waits, or returns the context's error.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// What a topic's stream carries in its metadata.
const (
	metaTopic       = "cauce_topic"
	metaIncarnation = "cauce_incarnation"
)

const streamPrefix = "topic_"

// streamName makes a topic's name one that JetStream takes for streams and subjects.
func streamName(topic string) string {
	var s strings.Builder
	s.WriteString(streamPrefix)
	for _, c := range []byte(topic) {
		if c == '-' || c == '_' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' {
			s.WriteByte(c)
		} else {
			fmt.Fprintf(&s, "=%02X", c)
		}
	}
	return s.String()
}

// stream opens the stream of a topic, making it if it is missing. It waits for a host.
func (b *Buffer) stream(ctx context.Context, topic string) (jetstream.Stream, error) {
	if topic == "" || len(topic) > 80 {
		return nil, fmt.Errorf("topic %q: a name has 1 to 80 bytes", topic)
	}
	name := streamName(topic)
	var st jetstream.Stream
	err := b.retry(ctx, func(ctx context.Context) (err error) {
		st, err = b.js.Stream(ctx, name)
		if !errors.Is(err, jetstream.ErrStreamNotFound) {
			return err
		}
		st, err = b.js.CreateStream(ctx, jetstream.StreamConfig{
			Name:        name,
			Subjects:    []string{name},
			Retention:   jetstream.LimitsPolicy,
			Storage:     jetstream.FileStorage,
			Discard:     jetstream.DiscardNew,
			Duplicates:  DuplicatesWindow,
			AllowDirect: true,
			Replicas:    1,
			Metadata:    map[string]string{metaTopic: topic, metaIncarnation: uuid.NewString()},
		})
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another process was quicker
			st, err = b.js.Stream(ctx, name)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("topic %s: %w", topic, err)
	}
	return st, nil
}

// retry repeats an operation while nobody hosts, as long as patience and ctx allow.
func (b *Buffer) retry(ctx context.Context, do func(context.Context) error) error {
	limit := time.Now().Add(patience)
	for {
		once, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := do(once)
		cancel()
		if err == nil || !transient(err) || ctx.Err() == nil && time.Now().After(limit) {
			return err
		}
		if b.nc.IsClosed() {
			return ErrClosed
		}
		// Whoever ends the work while the host changes has ended it; that nobody could be reached is no failure then.
		if e := pause(ctx, backoff()); e != nil {
			return fmt.Errorf("%w (%w)", e, err)
		}
	}
}

// transient tells that an error may come from a change of hosts.
func transient(err error) bool {
	for _, e := range []error{
		nats.ErrNoResponders, nats.ErrTimeout, nats.ErrDisconnected, nats.ErrConnectionReconnecting, nats.ErrReconnectBufExceeded,
		nats.ErrConnectionClosed, nats.ErrStaleConnection, nats.ErrBadSubscription, jetstream.ErrNoHeartbeat, jetstream.ErrNoStreamResponse,
		jetstream.ErrJetStreamNotEnabled, jetstream.ErrServerShutdown, jetstream.ErrConnectionClosed, context.DeadlineExceeded,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	var api *jetstream.APIError
	return errors.As(err, &api) && api.Code == 503
}

// TopicInfo describes a topic.
type TopicInfo struct {
	Name        string `json:"name"`
	Incarnation string `json:"incarnation"`
	First       int64  `json:"first"` // offset of the oldest message; 0: there never was one
	Last        int64  `json:"last"`  // offset of the newest message
	Messages    int64  `json:"messages"`
	Bytes       int64  `json:"bytes"`
}

// Topics lists the buffer's topics.
func (b *Buffer) Topics(ctx context.Context) ([]TopicInfo, error) {
	var out []TopicInfo
	err := b.retry(ctx, func(ctx context.Context) error {
		out = nil
		list := b.js.ListStreams(ctx)
		for i := range list.Info() {
			if topic := i.Config.Metadata[metaTopic]; topic != "" {
				out = append(out, TopicInfo{
					Name: topic, Incarnation: i.Config.Metadata[metaIncarnation], First: int64(i.State.FirstSeq),
					Last: int64(i.State.LastSeq), Messages: int64(i.State.Msgs), Bytes: int64(i.State.Bytes),
				})
			}
		}
		return list.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("stream buffer: %w", err)
	}
	return out, nil
}

// EnsureTopic makes a topic if it is missing.
func (b *Buffer) EnsureTopic(ctx context.Context, topic string) error {
	_, err := b.stream(ctx, topic)
	return err
}
