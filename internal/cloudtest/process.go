// Package cloudtest runs the servers that stand for clouds in tests: versitygw for S3, fake-gcs-server for Google Cloud
// Storage, moto for the rest of AWS, and a proxy that fails before any of them. Each listens on loopback and ends with
// its test.
package cloudtest

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// process is a server of a test.
type process struct {
	t      testing.TB
	args   []string
	env    []string
	log    string
	addr   string // host:port that answers when it is ready
	cmd    *exec.Cmd
	exited chan struct{}
}

// launch starts a server; addr is where it will listen.
func launch(t testing.TB, addr string, env []string, args ...string) *process {
	t.Helper()
	p := &process{t: t, args: args, env: env, addr: addr, log: filepath.Join(t.TempDir(), "server.log")}
	p.start()
	t.Cleanup(p.kill)
	return p
}

func (p *process) start() {
	p.t.Helper()
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	defer log.Close()
	p.cmd = exec.Command(p.args[0], p.args[1:]...) //nolint:gosec // a test's own program
	p.cmd.Env = append(os.Environ(), p.env...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := startWithUs(p.cmd); err != nil {
		p.t.Fatal(err)
	}
	exited := make(chan struct{})
	p.exited = exited
	go func(cmd *exec.Cmd) { _ = cmd.Wait(); close(exited) }(p.cmd)
	for deadline := time.Now().Add(30 * time.Second); ; {
		c, err := net.DialTimeout("tcp", p.addr, time.Second)
		if err == nil {
			_ = c.Close()
			return
		}
		select {
		case <-exited:
			p.t.Fatalf("%s ended while it started: %s", filepath.Base(p.args[0]), p.tail())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%s does not answer: %v: %s", filepath.Base(p.args[0]), err, p.tail())
		}
	}
}

func (p *process) kill() {
	_ = p.cmd.Process.Signal(syscall.SIGKILL)
	<-p.exited
}

func (p *process) tail() string {
	out, _ := os.ReadFile(p.log)
	return string(out[max(0, len(out)-2000):])
}

// waitHTTP waits until a URL gives any answer.
func (p *process) waitHTTP(url string) {
	p.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); ; {
		resp, err := http.Get(url) //nolint:gosec,noctx // a test's own server
		if err == nil {
			_ = resp.Body.Close()
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%s: %v: %s", url, err, p.tail())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func port(addr string) string {
	_, p, err := net.SplitHostPort(addr)
	if err != nil {
		panic(fmt.Sprintf("BUG: address %q: %v", addr, err))
	}
	return p
}
