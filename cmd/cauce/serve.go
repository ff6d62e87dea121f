package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/pipeline"
	"github.com/cauce-data/cauce/serve"
	"github.com/cauce-data/cauce/serve/flightsql"
	"github.com/cauce-data/cauce/serve/pgcatalog"
	"github.com/cauce-data/cauce/serve/pgwire"
	"github.com/cauce-data/cauce/serve/web"
	"github.com/cauce-data/cauce/serve/worker"
)

// defaultPGListen is where PostgreSQL's clients look first.
const defaultPGListen = "127.0.0.1:5432"

func newServe(a *app) *cobra.Command {
	var pgListen, flightListen, metrics, pages string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Answer SQL of BI tools, as PostgreSQL does, and as Arrow Flight SQL",
		Long: `Answer SQL (DuckDB's dialect) over PostgreSQL's wire protocol, so that psql, DBeaver, Tableau, Power BI, Superset,
Grafana and every driver for PostgreSQL read the tables while they are being written. The database is "lake"; the lake
file's roles say who may see what. Without roles the role "reader" connects from this machine, with no password.
With --flight-listen the same is answered as Arrow Flight SQL too, for ADBC and other clients that take columns; with
--http-listen there are pages about the lake, with an editor for SQL (docs/pages.md).

A transaction reads one version of each table. Earlier versions: FROM unified_events AT (VERSION => 3), or
AT (TIMESTAMP => '2024-08-20 12:00:00'); changes: FROM table_changes('unified_events', 3, 5). What the lake knows of itself
stands in the schema lake: versions, files, partitions, runs, quarantine, gaps.

No statement writes to the lake or reads a file: each runs in a process of its own kind that has limits of memory and time
and no credentials. Temporary tables are allowed. Stops cleanly on SIGINT and SIGTERM. See docs/bi.md.`,
		Example: `  cauce serve
  cauce serve --pg-listen 127.0.0.1:6543
  cauce serve --flight-listen 127.0.0.1:32010
  cauce serve --http-listen 127.0.0.1:8080
  psql -h 127.0.0.1 -U reader lake`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a.verbose = a.verbose || !a.quiet
			l, err := a.openWatched(cmd.Context(), metrics, false)
			if err != nil {
				return err
			}
			defer l.Close()
			d, err := a.openDoor(l, cmp.Or(pgListen, l.Lake.Serve.PGListen, defaultPGListen), cmp.Or(flightListen, l.Lake.Serve.FlightListen))
			if err != nil {
				return err
			}
			sched, err := (&up{a: a, l: l, log: a.logger()}).schedule(false) // it runs nothing by itself, so it alerts nobody
			if err != nil {
				return errors.Join(err, d.close())
			}
			start := time.Now()
			g, ctx := errgroup.WithContext(cmd.Context())
			g.Go(func() error { return d.serve(ctx) })
			g.Go(func() error { return a.serveWeb(ctx, l, pages, d, sched) })
			if err := errors.Join(g.Wait(), d.close()); err != nil {
				return err
			}
			seconds := time.Since(start).Seconds()
			return a.print(struct {
				Sessions   int64   `json:"sessions"`
				Statements int64   `json:"statements"`
				Seconds    float64 `json:"seconds"`
			}{d.sessions.Load(), d.statements.Load(), seconds}, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "stopped after %.0f s: %d sessions, %d statements\n", seconds, d.sessions.Load(), d.statements.Load())
				return err
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&pgListen, "pg-listen", "", "`address` (host:port) of PostgreSQL's protocol; the lake file's serve.pg_listen, else "+defaultPGListen+", is the default")
	f.StringVar(&flightListen, "flight-listen", "", "`address` (host:port) of Arrow Flight SQL, such as 127.0.0.1:32010; the lake file's serve.flight_listen is the default, else it is not served")
	f.StringVar(&pages, "http-listen", "", httpListen)
	f.StringVar(&metrics, "metrics-listen", "", metricsListen)
	return cmd
}

// asDoors is how the pages show it.
func (d *door) asDoors() []web.Door {
	user := serve.ReaderRole
	if len(d.l.Lake.Roles) > 0 {
		user = d.l.Lake.Roles[0].Name
	}
	var out []web.Door
	if d.listener != nil {
		out = append(out, web.Door{Kind: "postgres", Address: d.listener.Addr().String(), User: user})
	}
	if d.arrow != nil {
		out = append(out, web.Door{Kind: "flight", Address: d.flightURL(), User: user})
	}
	return out
}

// flightURL is how clients of Flight SQL name the address.
func (d *door) flightURL() string {
	scheme := "grpc"
	if d.l.Lake.Serve.TLSCert != "" {
		scheme = "grpc+tls"
	}
	return scheme + "://" + d.arrow.Addr().String()
}

// door is a lake that is served over PostgreSQL's protocol, as Arrow Flight SQL, or both: the same workers answer.
type door struct {
	a        *app
	l        *lake
	pool     *worker.Pool
	backend  *serve.Backend
	server   *pgwire.Server
	listener net.Listener // nil: PostgreSQL's protocol is not served
	flight   *flightsql.Server
	arrow    net.Listener // of flight; nil: it is not served
	// catalogue is a folder with files of PostgreSQL's catalogue, for the workers.
	catalogue string

	sessions, statements atomic.Int64
}

// openDoor listens on the addresses that are not empty and starts the first worker. The caller closes it.
func (a *app) openDoor(l *lake, pg, arrow string) (_ *door, err error) {
	d := &door{a: a, l: l}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	if pg != "" {
		if d.listener, err = net.Listen("tcp", pg); err != nil {
			return nil, usagef("serve.pg_listen: %s: %w", pg, err)
		}
	}
	if arrow != "" {
		if d.arrow, err = net.Listen("tcp", arrow); err != nil {
			return nil, usagef("serve.flight_listen: %s: %w", arrow, err)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	settings := l.Lake.Serve
	dir := filepath.Join(tempDir(l.Lake), "sql")
	d.catalogue = filepath.Join(dir, fmt.Sprintf("catalogue-%d", os.Getpid()))
	if err := pgcatalog.Extract(d.catalogue); err != nil {
		return nil, err
	}
	d.pool, err = worker.Open(worker.Options{
		Path: exe, Args: []string{a.prog, worker.Command}, Dir: dir, Readable: append(readableDirs(l), d.catalogue),
		Workers: settings.Workers, MemoryBytes: settings.MemoryLimit, Log: a.logger(),
	})
	if err != nil {
		return nil, err
	}
	cert, err := serverTLS(settings)
	if err != nil {
		return nil, err
	}
	d.backend = serve.New(serve.Options{
		Lake: l.Lake, Ingest: l.ingest, Engine: l.engine, Pool: d.pool, Log: a.logger(), RunsDir: runsDir(l.Lake), CatalogueDir: d.catalogue,
	})
	if d.listener != nil {
		if err := d.backend.CheckListen(d.listener.Addr(), cert != nil); err != nil {
			return nil, usagef("serve.pg_listen: %w", err)
		}
		if d.server, err = pgwire.New(pgwire.Options{
			Backend: d.backend, TLS: cert, StatementTimeout: settings.StatementTimeout, IdleTimeout: settings.IdleTimeout, SessionsMax: settings.SessionsMax, Observe: d.observer(),
		}); err != nil {
			return nil, err
		}
	}
	if d.arrow != nil {
		if err := d.backend.CheckListen(d.arrow.Addr(), cert != nil); err != nil {
			return nil, usagef("serve.flight_listen: %w", err)
		}
		if d.flight, err = flightsql.New(flightsql.Options{
			Backend: d.backend, TLS: cert, StatementTimeout: settings.StatementTimeout, SessionsMax: settings.SessionsMax, Version: version, Observe: d.observer(),
		}); err != nil {
			return nil, err
		}
	}
	return d, nil
}

func (d *door) close() error {
	var errs []error
	for _, l := range []net.Listener{d.listener, d.arrow} {
		if l == nil {
			continue
		}
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if d.pool != nil {
		errs = append(errs, d.pool.Close())
	}
	if d.catalogue != "" {
		errs = append(errs, os.RemoveAll(d.catalogue))
	}
	return errors.Join(errs...)
}

// serve answers until ctx ends.
func (d *door) serve(ctx context.Context) error {
	log := d.a.logger()
	g, ctx := errgroup.WithContext(ctx)
	if d.listener != nil {
		host, port, err := net.SplitHostPort(d.listener.Addr().String())
		if err != nil {
			return err
		}
		log.Info("PostgreSQL's protocol is served", "address", d.listener.Addr().String(), "database", serve.Database, "workers", len(d.pool.Workers()))
		if len(d.l.Lake.Roles) == 0 {
			log.Info("the lake file has no roles: anybody on this machine reads the whole lake without a password",
				"connect", fmt.Sprintf("psql -h %s -p %s -U %s %s", host, port, serve.ReaderRole, serve.Database))
		}
		g.Go(func() error { return d.server.Serve(ctx, d.listener) })
	}
	if d.arrow != nil {
		log.Info("Arrow Flight SQL is served", "address", d.flightURL())
		g.Go(func() error { return d.flight.Serve(ctx, d.arrow) })
	}
	if d.listener == nil && d.arrow == nil { // only the pages ask
		<-ctx.Done()
	}
	return g.Wait()
}

func (d *door) observer() serve.Observer {
	watch := d.l.watch
	return serve.Observer{
		Session: func(change int) {
			if change > 0 {
				d.sessions.Add(1)
			}
			if watch != nil {
				watch.serveSessions.Add(float64(change))
			}
		},
		Statement: func(took time.Duration, code string) {
			d.statements.Add(1)
			if watch != nil {
				watch.serveStatements.WithLabelValues(code).Inc()
				watch.serveSeconds.Observe(took.Seconds())
				counts := d.pool.Counts()
				watch.serveWorkersEnded.Set(float64(counts.Killed.Load() + counts.Died.Load()))
				_, waiting := d.pool.Load()
				watch.serveWaiting.Set(float64(waiting))
			}
		},
		Refused: func(why string) {
			if watch != nil {
				watch.serveRefused.WithLabelValues(why).Inc()
			}
		},
	}
}

// readableDirs are the folders in which workers find data files.
func readableDirs(l *lake) []string {
	dirs := l.engine.StageDirs()
	if local, ok := l.store.(objstore.LocalPather); ok {
		dirs = append(dirs, local.LocalPath(""))
	}
	return dirs
}

// serverTLS loads the certificate that the lake file names; nil without one.
func serverTLS(s pipeline.Serve) (*tls.Config, error) {
	if s.TLSCert == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(s.TLSCert, s.TLSKey)
	if err != nil {
		return nil, usagef("serve.tls: %w", err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, nil
}
