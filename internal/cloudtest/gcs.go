package cloudtest

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/cauce-data/cauce/internal/loopback"
	"github.com/cauce-data/cauce/internal/prereq"
)

// GCS is a running fake-gcs-server.
type GCS struct {
	Host string // host:port, as STORAGE_EMULATOR_HOST wants it
	p    *process
}

// NewGCS starts fake-gcs-server with objects in memory. Without the program the test is skipped by name.
func NewGCS(t testing.TB) *GCS {
	t.Helper()
	bin := prereq.Need(t, "fake-gcs-server")
	addr := loopback.Free(t)
	g := &GCS{Host: addr}
	g.p = launch(t, addr, nil, bin, "-scheme", "http", "-host", "127.0.0.1", "-port", port(addr), "-backend", "memory",
		"-public-host", addr, "-external-url", "http://"+addr, "-log-level", "error")
	g.p.waitHTTP("http://" + addr + "/storage/v1/b?project=test")
	return g
}

// Bucket makes a bucket.
func (g *GCS) Bucket(t testing.TB, name string) string {
	t.Helper()
	resp, err := http.Post("http://"+g.Host+"/storage/v1/b?project=test", "application/json", bytes.NewReader([]byte(`{"name":"`+name+`"}`))) //nolint:noctx // a test's own server
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(resp.Body)
		t.Fatal(fmt.Errorf("make bucket %s: %s: %s", name, resp.Status, b))
	}
	return name
}

// Env are the environment variables by which Google's clients use the server, through the given host:port or ("")
// directly.
func (g *GCS) Env(host string) []string {
	if host == "" {
		host = g.Host
	}
	return []string{"STORAGE_EMULATOR_HOST=" + host}
}
