package bi

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cauce-data/cauce/internal/loopback"
	"github.com/cauce-data/cauce/test/lab"
)

// server is a running `cauce serve`.
type server struct {
	t    testing.TB
	lake *lab.Lake
	proc *lab.Process
	addr string
	port string
}

// newLake makes a lake with two commits of history, of which a few rows are in quarantine. env is for every process.
func newLake(t testing.TB, more string, env ...string) *lab.Lake {
	t.Helper()
	l := lab.NewLake(t)
	l.Env = env
	l.Append(more)
	gen := lab.NewGenerator(rand.New(rand.NewPCG(8, 8)), 3)
	for day := range 2 {
		gen.History(t, l.Inbox(), day, 500, 50)
		l.Run("run", "batch")
	}
	return l
}

// serveLake starts `cauce serve` and waits until it answers.
func serveLake(t testing.TB, l *lab.Lake, args ...string) *server {
	t.Helper()
	s := &server{t: t, lake: l, addr: loopback.Free(t)}
	_, s.port, _ = net.SplitHostPort(s.addr)
	s.proc = l.Start(nil, append([]string{"serve", "--pg-listen", s.addr}, args...)...)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		c, err := net.Dial("tcp", s.addr)
		if err == nil {
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			return s
		}
		if !s.proc.Running() {
			t.Fatalf("cauce serve ended: %s%s", s.proc.Stdout.String(), s.proc.Stderr.String())
		}
		if time.Now().After(deadline) {
			t.Fatalf("cauce serve does not listen: %v", err)
		}
	}
}

// url is the address for drivers.
func (s *server) url(user, password string) string {
	if password != "" {
		user += ":" + password
	}
	return fmt.Sprintf("postgres://%s@%s/lake", user, s.addr)
}

// connect opens a session as the role reader.
func (s *server) connect(options ...string) *pgx.Conn {
	s.t.Helper()
	c, err := pgx.Connect(context.Background(), s.url("reader", "")+"?"+strings.Join(options, "&"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// one runs a query that gives one value as text.
func one(t testing.TB, c *pgx.Conn, sql string, args ...any) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var v any
	if err := c.QueryRow(ctx, sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return fmt.Sprint(v)
}

// count is one as a number.
func count(t testing.TB, c *pgx.Conn, sql string, args ...any) int64 {
	t.Helper()
	n, err := strconv.ParseInt(one(t, c, sql, args...), 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// treeHash is a hash over the names and bytes of all files of a folder.
func treeHash(t testing.TB, dir string) string {
	t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%s %d\n", path, len(b))
		h.Write(b)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}
