package remote

import (
	"context"
	"net"
	"sync/atomic"
	"time"
)

// Silence is how long a connection may pass no byte in either direction while something is awaited of it. It is longer
// than connections stay open without being of use. Tests make it shorter.
var Silence = 2 * time.Minute

// Dial is what opens connections.
type Dial = func(ctx context.Context, network, address string) (net.Conn, error)

// NotSilent makes connections that break after Silence. A server that hangs, or a network that has forgotten the
// connection, says nothing, and the clients' libraries would wait for an answer for ever; a broken one they repeat.
func NotSilent(dial Dial) Dial {
	silence := Silence
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &conn{Conn: c, silence: silence}, nil
	}
}

type conn struct {
	net.Conn
	silence time.Duration
	closing atomic.Bool
}

// writeBytes is what is written at once: less than what the slowest of networks takes within Silence.
const writeBytes = 64 << 10

// Read waits no longer than Silence, whoever asks.
func (c *conn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.silence)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// Write writes. Somebody may wait for the answer already; that is awaited from the end of the request on.
func (c *conn) Write(p []byte) (int, error) {
	written := 0
	for {
		end := time.Now().Add(c.silence)
		if err := c.SetReadDeadline(end); err != nil {
			return written, err
		}
		if !c.closing.Load() {
			if err := c.Conn.SetWriteDeadline(end); err != nil {
				return written, err
			}
		}
		n, err := c.Conn.Write(p[written:min(len(p), written+writeBytes)])
		written += n
		if err != nil {
			return written, err
		}
		if written == len(p) {
			return written, c.SetReadDeadline(time.Now().Add(c.silence))
		}
	}
}

// SetWriteDeadline is what TLS does when it says goodbye; that shall not take longer.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.closing.Store(true)
	return c.Conn.SetWriteDeadline(t)
}
