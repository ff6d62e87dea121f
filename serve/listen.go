package serve

import (
	"fmt"
	"net"
)

// CheckListen refuses an address that others than this machine reach, unless there are roles and a certificate.
func (b *Backend) CheckListen(addr net.Addr, encrypted bool) error {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || tcp.IP.IsLoopback() {
		return nil
	}
	switch {
	case b.Open():
		return fmt.Errorf("%s is reachable from other machines, and the lake file has no roles: add roles with passwords, or listen on 127.0.0.1", addr)
	case !encrypted:
		return fmt.Errorf("%s is reachable from other machines, and the lake file has no serve.tls: name a certificate, or listen on 127.0.0.1", addr)
	}
	return nil
}
