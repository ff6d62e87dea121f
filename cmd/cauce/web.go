package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/cauce-data/cauce/ingest"
	"github.com/cauce-data/cauce/serve/web"
)

// httpListen is the help of the flag that names the address of the pages.
const httpListen = "serve the pages about the lake on this `address`, such as 127.0.0.1:8080 (default: none)"

// serveWeb serves the pages about a lake until ctx ends. "" serves nothing. They have no login yet, so an address that
// other machines reach is refused.
func (a *app) serveWeb(ctx context.Context, l *lake, listen string, doors ...web.Door) error {
	if listen == "" {
		return nil
	}
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return usagef("--http-listen %s: %w", listen, err)
	}
	if addr, ok := ln.Addr().(*net.TCPAddr); !ok || !addr.IP.IsLoopback() {
		return errors.Join(usagef("--http-listen %s: the pages have no login, so they are served on this machine's own address only, such as 127.0.0.1:8080; reach them from elsewhere through ssh -L", listen), ln.Close())
	}
	log := a.logger()
	srv := &http.Server{
		Handler: web.Handler(web.Options{
			Lake: l.Lake, Ingest: l.ingest, RunsDir: runsDir(l.Lake), Version: version, Doors: doors, Log: log,
			Lags: func(ctx context.Context, s *ingest.Status) map[string]any {
				out := map[string]any{}
				for name, lag := range a.lags(ctx, l, s) {
					out[name] = lag
				}
				return out
			},
		}),
		ReadHeaderTimeout: 10 * time.Second,
	}
	log.Info("pages are served", "address", "http://"+ln.Addr().String()+"/")
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(ln); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
