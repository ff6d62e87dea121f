package remote

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// TestNotSilent: a connection breaks when nothing passes, and not as long as something does.
func TestNotSilent(t *testing.T) {
	connect := func(t *testing.T) (client, server net.Conn) {
		t.Helper()
		near, far := net.Pipe()
		c, err := NotSilent(func(context.Context, string, string) (net.Conn, error) { return near, nil })(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { far.Close() })
		return c, far
	}
	t.Run("no answer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			client, _ := connect(t)
			start := time.Now()
			if _, err := client.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != Silence {
				t.Errorf("%v after %v", err, time.Since(start))
			}
		})
	})
	t.Run("nobody takes a request", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			client, _ := connect(t)
			if _, err := client.Write(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error(err)
			}
		})
	})
	t.Run("slow in both directions", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			client, server := connect(t)
			const pieces = 10
			go func() {
				for range pieces {
					time.Sleep(Silence - time.Second)
					_, _ = io.ReadFull(server, make([]byte, writeBytes))
				}
				for range pieces {
					time.Sleep(Silence - time.Second)
					_, _ = server.Write([]byte("x"))
				}
			}()
			read := make(chan error)
			go func() { // as clients do, before the request is sent
				_, err := io.ReadFull(client, make([]byte, pieces))
				read <- err
			}()
			if n, err := client.Write(make([]byte, pieces*writeBytes)); err != nil {
				t.Errorf("%v after %d bytes", err, n)
			}
			if err := <-read; err != nil {
				t.Error(err)
			}
		})
	})
}
