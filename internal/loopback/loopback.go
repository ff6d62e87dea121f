// Package loopback finds addresses for the servers that tests start.
package loopback

import (
	"net"
	"testing"
)

// Free is an address on loopback on which nobody listens.
func Free(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
