// Package pubsubtest runs Google's emulator of Pub/Sub for tests, or, where it is not installed, the server that comes
// with Google's client library, in this process. The test's log says which.
package pubsubtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	client "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"

	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/internal/testscale"
)

// Project is the project of every test.
const Project = "cauce-test"

// EmulatorEnv names the environment variable by which Google's clients find the emulator.
const EmulatorEnv = "PUBSUB_EMULATOR_HOST"

// Server stands for the service. EmulatorEnv is set to its address while the test runs.
type Server struct {
	Addr string
	Kind string // what it is, in words
	// Stop ends the server before the test does; nil: this one cannot be stopped.
	Stop func()
	cl   *client.Client
}

// New starts the emulator for a test and ends it with the test. It is a Java program: where java or the emulator is missing
// the client library's own server takes its place.
func New(t testing.TB) *Server {
	t.Helper()
	testscale.NotAtShort(t, "the emulator of Pub/Sub is slow to start")
	s, err := emulator(t)
	if err != nil {
		p := pstest.NewServer()
		t.Cleanup(func() { _ = p.Close() })
		s = &Server{Addr: p.Addr, Kind: "pstest, the server of Google's client library (" + err.Error() + ")"}
	}
	return s.open(t)
}

// NewInProcess is New without the emulator: it is up at once.
func NewInProcess(t testing.TB) *Server {
	t.Helper()
	p := pstest.NewServer()
	stop := sync.OnceFunc(func() { _ = p.Close() })
	t.Cleanup(stop)
	return (&Server{Addr: p.Addr, Kind: "pstest, the server of Google's client library", Stop: stop}).open(t)
}

func (s *Server) open(t testing.TB) *Server {
	t.Helper()
	t.Logf("Pub/Sub is %s", s.Kind)
	t.Setenv(EmulatorEnv, s.Addr)
	cl, err := client.NewClient(t.Context(), Project)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cl.Close() })
	s.cl = cl
	return s
}

// Client speaks to the server.
func (s *Server) Client() *client.Client { return s.cl }

// emulator starts Google's emulator.
func emulator(t testing.TB) (*Server, error) {
	if testscale.Current() == testscale.Short {
		return nil, errors.New("short: java is slow")
	}
	if _, err := prereq.Lookup("java"); err != nil {
		return nil, err
	}
	jar, err := prereq.Lookup("pubsub-emulator")
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := l.Addr().(*net.TCPAddr) //nolint:errcheck // of a TCP listener
	if err := l.Close(); err != nil {
		return nil, err
	}
	dir := t.TempDir()
	log, err := os.Create(filepath.Join(dir, "emulator.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command("java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-jar", jar, "--host=127.0.0.1", fmt.Sprintf("--port=%d", addr.Port)) //nolint:gosec // a test's own program
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-exited })
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		c, err := net.DialTimeout("tcp", addr.String(), time.Second)
		if err == nil {
			return &Server{Addr: addr.String(), Kind: "Google's emulator (" + filepath.Base(jar) + ")"}, c.Close()
		}
		select {
		case <-exited:
			text, _ := os.ReadFile(log.Name())
			t.Fatalf("the emulator of Pub/Sub ended while it started: %s", text)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("the emulator of Pub/Sub does not answer: %v", err)
		}
	}
}

// CreateSubscription makes a further subscription of a topic, as a foreign reader would.
func (s *Server) CreateSubscription(ctx context.Context, topic, name string) error {
	_, err := s.cl.SubscriptionAdminClient.CreateSubscription(ctx, &pubsubpb.Subscription{
		Name: "projects/" + Project + "/subscriptions/" + name, Topic: "projects/" + Project + "/topics/" + topic, AckDeadlineSeconds: 60,
	})
	return err
}

// DeleteSubscription removes a subscription with all that it holds.
func (s *Server) DeleteSubscription(ctx context.Context, name string) error {
	return s.cl.SubscriptionAdminClient.DeleteSubscription(ctx, &pubsubpb.DeleteSubscriptionRequest{Subscription: "projects/" + Project + "/subscriptions/" + name})
}

// DeleteTopic removes a topic; its subscriptions stay.
func (s *Server) DeleteTopic(ctx context.Context, name string) error {
	return s.cl.TopicAdminClient.DeleteTopic(ctx, &pubsubpb.DeleteTopicRequest{Topic: "projects/" + Project + "/topics/" + name})
}

// Drain takes everything out of a subscription, until nothing has come for a while, and gives the messages by their ids.
func (s *Server) Drain(ctx context.Context, subscription string, quiet time.Duration) (map[string][]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type message struct {
		id   string
		data []byte
	}
	came := make(chan message)
	ended := make(chan error, 1)
	go func() {
		ended <- s.cl.Subscriber(subscription).Receive(ctx, func(ctx context.Context, m *client.Message) {
			select {
			case came <- message{m.ID, m.Data}:
				m.Ack()
			case <-ctx.Done():
				m.Nack()
			}
		})
	}()
	out := map[string][]byte{}
	for {
		select {
		case m := <-came:
			out[m.id] = m.data
		case <-time.After(quiet):
			cancel()
			return out, <-ended
		case err := <-ended:
			return out, errors.Join(err, errors.New("the delivery ended"))
		}
	}
}
