package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cauce-data/cauce/internal/prereq"
)

// bucketServer is an S3 server over a folder, behind a proxy that counts. Its objects are plain files, so what became of a
// table can be looked at without asking it.
type bucketServer struct {
	dir             string
	proxy           *httptest.Server
	cmd             *exec.Cmd
	requests, bytes atomic.Int64
}

// startBuckets starts versitygw with one bucket and lets this process's children reach it as AWS.
func startBuckets(dir, bucket string) (*bucketServer, error) {
	bin, err := prereq.Lookup("versitygw")
	if err != nil {
		return nil, fmt.Errorf("%w; make setup builds it", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, bucket), 0o755); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		return nil, err
	}
	s := &bucketServer{dir: filepath.Join(dir, bucket)}
	s.cmd = exec.Command(bin, "--port", addr, "--access", "bench", "--secret", "bench-secret", "--keep-alive", "--quiet", "posix", dir)
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
			break
		}
		if time.Now().After(deadline) {
			s.stop()
			return nil, fmt.Errorf("versitygw does not answer: %w", err)
		}
	}
	pass := &httputil.ReverseProxy{
		// The name by which a client knows the server is part of its signature.
		Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", addr, r.In.Host },
		ModifyResponse: func(r *http.Response) error {
			r.Body = &counted{r.Body, &s.bytes}
			return nil
		},
		Transport: &http.Transport{MaxIdleConnsPerHost: 100, DisableCompression: true},
	}
	s.proxy = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		r.Body = &counted{r.Body, &s.bytes}
		pass.ServeHTTP(w, r)
	}))
	for k, v := range map[string]string{
		"AWS_ENDPOINT_URL": s.proxy.URL, "AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench-secret", "AWS_REGION": "us-east-1",
		"AWS_ALLOW_HTTP": "true", "AWS_EC2_METADATA_DISABLED": "true",
	} {
		if err := os.Setenv(k, v); err != nil {
			s.stop()
			return nil, err
		}
	}
	return s, nil
}

func (s *bucketServer) stop() {
	if s.proxy != nil {
		s.proxy.Close()
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// counted counts the bytes of a body.
type counted struct {
	io.ReadCloser
	n *atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// traffic is what a piece of work asked of the server.
type traffic struct{ requests, bytes int64 }

func (s *bucketServer) during(work func() error) (traffic, error) {
	r, b := s.requests.Load(), s.bytes.Load()
	err := work()
	return traffic{s.requests.Load() - r, s.bytes.Load() - b}, err
}

// s3 measures Cauce and delta-rs on one S3 server: the load of a history whose files lie in the bucket, and micro-batches into
// the table that came of it. Seconds hold the server's work too: both share the machine with it.
func (b *bench) s3(rows int) error {
	history, err := b.history(rows)
	if err != nil {
		return err
	}
	work := filepath.Join(b.dir, "s3")
	if err := os.RemoveAll(work); err != nil {
		return err
	}
	srv, err := startBuckets(filepath.Join(work, "server"), "bench")
	if err != nil {
		return err
	}
	defer srv.stop()
	lake := filepath.Join(work, "lake")
	if err := os.MkdirAll(lake, 0o755); err != nil {
		return err
	}
	text := strings.Replace(lakeFile, "file:./data", "s3://bench/cauce", 1)
	if err := os.WriteFile(filepath.Join(lake, "lake.yaml"), []byte(text), 0o644); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(history, "*.csv"))
	if err != nil {
		return err
	}
	if _, _, err := run(lake, b.cauce, append([]string{"land", "--json"}, files...)...); err != nil {
		return err
	}
	inbox := "s3://bench/cauce/raw/batch"
	cauceTable, peerTable := filepath.Join(srv.dir, "cauce", "processed", "unified-events"), filepath.Join(srv.dir, "deltars")

	fmt.Fprintf(b.out, "\n### On S3: CSV history to table\n\nversitygw on the same machine, the files in its bucket; %d runs each, in turn; median (least–greatest).\n\n", b.tries)
	fmt.Fprintln(b.out, "| rows | program | seconds | CPU s | peak MB | requests | MB moved |\n|---|---|---|---|---|---|---|")
	type program struct {
		name  string
		clear []string
		work  func() (usage, error)
		runs  []usage
		traffic
	}
	programs := []*program{
		{name: "Cauce", clear: []string{filepath.Join(srv.dir, "cauce", "processed"), filepath.Join(lake, ".cauce")}, work: func() (usage, error) {
			u, _, err := run(lake, b.cauce, "run", "batch", "--json")
			return u, err
		}},
		{name: "polars + delta-rs", clear: []string{peerTable}, work: func() (usage, error) {
			u, _, err := b.script("deltars.py", "w1", "--csv", inbox, "--table", "s3://bench/deltars")
			return u, err
		}},
	}
	for try := range b.tries {
		for _, p := range programs {
			for _, d := range p.clear {
				if err := os.RemoveAll(d); err != nil {
					return err
				}
			}
			p.traffic, err = srv.during(func() error {
				u, err := p.work()
				p.runs = append(p.runs, u)
				return err
			})
			if err != nil {
				return err
			}
			fmt.Fprintf(os.Stderr, "bench: load on S3, try %d, %s: %.2f s\n", try+1, p.name, p.runs[try].Wall.Seconds())
		}
	}
	if err := b.sameTables(map[string]string{"Cauce": cauceTable, "delta-rs": peerTable}, loadColumns); err != nil {
		return err
	}
	for _, p := range programs {
		fmt.Fprintf(b.out, "| %d | %s | %s | %s | %.0f | %d | %.0f |\n", rows, p.name, spreadOf(seconds(p.runs, wall)), spreadOf(seconds(p.runs, cpu)),
			spreadOf(seconds(p.runs, peak)).Max, p.requests, float64(p.bytes)/1e6)
	}

	fmt.Fprintf(b.out, "\n### On S3: micro-batches of 10,000 events, 10 %% of them updates, newest 2 days\n\nMilliseconds from commit to commit, the first two left out; %d batches.\n\n", b.batches)
	fmt.Fprintln(b.out, "| rows in table | program | ms, median (least–greatest) | CPU s a batch | requests a batch | MB moved a batch | delta-rs ÷ Cauce |\n|---|---|---|---|---|---|---|")
	events := filepath.Join(b.dir, fmt.Sprintf("events-%d-2-%d", rows, b.batches))
	if err := b.generate(events, "stream", "--history-rows", strconv.Itoa(rows), "--window-days", "2", "--batches", strconv.Itoa(b.batches)); err != nil {
		return err
	}
	all := filepath.Join(lake, "events.jsonl")
	if err := concatenate(all, events); err != nil {
		return err
	}
	if _, _, err := run(lake, b.cauce, "produce", "replay", all, "--json"); err != nil {
		return err
	}
	var cauceMS float64
	for _, p := range []struct {
		name, table string
		work        func() (usage, error)
	}{
		{"Cauce", cauceTable, func() (usage, error) {
			u, _, err := run(lake, b.cauce, "run", "stream", "--available-now", "--rows-max", "10000", "--json")
			return u, err
		}},
		{"polars + delta-rs", peerTable, func() (usage, error) {
			u, _, err := b.script("deltars.py", "w3", "--batches", events, "--table", "s3://bench/deltars", "--pred", "days", "--n", strconv.Itoa(b.batches))
			return u, err
		}},
	} {
		var s *series
		moved, err := srv.during(func() (err error) {
			s, err = b.series(p.name, p.table, p.work)
			return err
		})
		if err != nil {
			return err
		}
		ratio := ""
		if p.name == "Cauce" {
			cauceMS = spreadOf(s.ms).Median
		} else {
			ratio = fmt.Sprintf("%.1f", spreadOf(s.ms).Median/cauceMS)
		}
		n := float64(b.batches)
		fmt.Fprintf(b.out, "| %d | %s | %s | %.3f | %.0f | %.2f | %s |\n", rows, p.name, spreadOf(s.ms), s.cost.CPU.Seconds()/n, float64(moved.requests)/n,
			float64(moved.bytes)/n/1e6, ratio)
	}
	if err := b.sameTables(map[string]string{"Cauce": cauceTable, "delta-rs": peerTable}, microColumns); err != nil {
		return err
	}
	fmt.Fprintln(b.out, "\nBoth tables had the same row hash after each part, read by DuckDB's delta extension.")
	return os.RemoveAll(work)
}

// sameTables is an error unless tables hold the same rows.
func (b *bench) sameTables(tables map[string]string, columns []string) error {
	hashes := map[string]string{}
	for name, table := range tables {
		h, err := b.rowHash("delta", table, columns...)
		if err != nil {
			return err
		}
		hashes[name] = h
	}
	return sameRows(hashes)
}
