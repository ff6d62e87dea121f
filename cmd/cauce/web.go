package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/schedule"
	"github.com/cauce-data/cauce/serve/web"
)

// httpListen is the help of the flag that names the address of the pages.
const httpListen = "serve the pages about the lake on this `address`, such as 127.0.0.1:8080 (default: none)"

// serveWeb serves the pages about a lake until ctx ends; d answers their SQL. "" serves nothing.
// sched tries runs again that the pages name.
func (a *app) serveWeb(ctx context.Context, l *lake, listen string, d *door, sched *schedule.Scheduler) error {
	if listen == "" {
		return nil
	}
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return usagef("--http-listen %s: %w", listen, err)
	}
	log := a.logger()
	cert, err := serverTLS(l.Lake.Serve)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	if addr, ok := ln.Addr().(*net.TCPAddr); ok && addr.IP.IsLoopback() {
		cert = nil // nobody listens on the way, and the certificate is for another name
	}
	var retries sync.WaitGroup
	defer retries.Wait() // they end with ctx
	o := web.Options{
		Retry: func(r *schedule.Run) error {
			outcome := make(chan error, 2) // that it has begun, and how it ended; the first is the answer
			began := sync.OnceFunc(func() { outcome <- nil })
			retries.Go(func() { outcome <- sched.Retry(ctx, r, began) })
			return <-outcome
		},
		Lake: l.Lake, Ingest: l.ingest, RunsDir: runsDir(l.Lake), Version: version, Doors: d.asDoors(), Log: log,
		SQL: d.backend, StatementTimeout: l.Lake.Serve.StatementTimeout, Statement: d.observer().Statement, Secure: cert != nil,
		Lags: func(ctx context.Context, s *ingest.Status) map[string]any {
			out := map[string]any{}
			for _, x := range a.sourceStatuses(ctx, l, s, true) {
				if x.Lag != nil {
					out[x.Name] = x.Lag
				}
			}
			return out
		},
	}
	if err := web.CheckListen(ln.Addr(), o); err != nil {
		return errors.Join(usagef("--http-listen: %w", err), ln.Close())
	}
	scheme := "http"
	if cert != nil {
		ln, scheme = tls.NewListener(ln, cert), "https"
	}
	// Statements end with ctx, whatever their clients do.
	srv := &http.Server{Handler: web.Handler(o), ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	log.Info("pages are served", "address", scheme+"://"+ln.Addr().String()+"/")
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(ln); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
