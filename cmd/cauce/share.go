package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cauce-data/cauce/catalog"
	"github.com/cauce-data/cauce/pipeline"
	"github.com/cauce-data/cauce/serve/sharing"
)

// defaultShareListen is where shares are served unless something else is said.
const defaultShareListen = "127.0.0.1:8181"

// shareDrain is how long downloads may go on when the server is asked to stop.
const shareDrain = 5 * time.Second

func sharingDir(l *pipeline.Lake) string { return filepath.Join(l.StateDir(), "sharing") }

func newShare(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "share",
		Short: "Let others read tables over Delta Sharing",
		Long: `Let others read tables over the Delta Sharing protocol, with nothing but a profile file: pandas, Spark, Power BI and
every other client of the protocol. share create makes a recipient and its profile file, share serve answers recipients.`,
	}
	return group(cmd, newShareCreate(a), newShareList(a), newShareRevoke(a), newShareServe(a))
}

func newShareCreate(a *app) *cobra.Command {
	var tables []string
	var expires, endpoint, output string
	var noHistory bool
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a recipient of a share, and the profile file for it",
		Long: `Make a recipient of the share NAME, and the profile file that the recipient needs. The share has the tables that the lake
file declares under shares, or else every table; --table narrows it for this recipient. The token stands in the profile
file alone: .cauce keeps its hash. Call it again for each recipient, so that each can be revoked by itself.

Recipients may read older versions and the change feed, in which rows stand that were changed or deleted since, unless
--no-history or the lake file's shares say otherwise.`,
		Example: `  cauce share create partners --table unified_events --expires 90d --endpoint https://share.example.org/delta-sharing/
  cauce share create me --output me.share`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := a.loadLake()
			if err != nil {
				return err
			}
			who, err := recipientOf(l, args[0], tables)
			if err != nil {
				return err
			}
			who.History = who.History && !noHistory
			now := time.Now()
			if expires != "never" {
				d, err := pipeline.ParseDuration(expires)
				if err != nil || d < time.Second {
					return usagef("--expires %q: it is a time such as 30d or 12h, or never", expires)
				}
				who.Expires = now.Add(d)
			}
			if endpoint, err = checkEndpoint(endpoint); err != nil {
				return err
			}
			if output == "" {
				output = args[0] + ".share"
			}
			if _, err := os.Lstat(output); err == nil {
				return usagef("profile file %s exists already and may be somebody's; name another with --output FILE", output)
			}
			people, err := sharing.OpenRecipients(sharingDir(l))
			if err != nil {
				return err
			}
			made, token, err := people.Add(who, now)
			if err != nil {
				return err
			}
			if err := writeProfile(output, sharing.NewProfile(endpoint, made, token)); err != nil {
				return errors.Join(fmt.Errorf("profile file: %w", err), people.Revoke(made.ID))
			}
			return a.print(struct {
				shareRow
				Profile  string `json:"profile"`
				Endpoint string `json:"endpoint"`
			}{rowOf(l, made, now), output, endpoint}, func(w io.Writer) error {
				until := "it never expires"
				if !made.Expires.IsZero() {
					until = "it expires " + made.Expires.Format(time.RFC3339)
				}
				_, err := fmt.Fprintf(w, `%s holds the token of recipient %s; %s. Who has the file can read the share.
  cauce share serve
  python -c "import delta_sharing; print(delta_sharing.SharingClient('%s').list_all_tables())"
`, output, made.ID[:shortID], until, output)
				return err
			})
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&tables, "table", nil, "share only this `table`; may be given again")
	f.StringVar(&expires, "expires", "30d", "`time` for which the token is good, such as 30d or 12h; never")
	f.StringVar(&endpoint, "endpoint", "http://"+defaultShareListen+sharing.Prefix+"/", "`URL` under which recipients reach the server")
	f.StringVarP(&output, "output", "o", "", "`file` for the profile (default NAME.share)")
	f.BoolVar(&noHistory, "no-history", false, "only the newest version may be read")
	return cmd
}

// recipientOf says what a recipient of a share may read.
func recipientOf(l *pipeline.Lake, share string, tables []string) (sharing.Recipient, error) {
	if share == "" || len(share) > 255 || strings.ContainsFunc(share, func(r rune) bool { return r <= ' ' || r == '/' || r == '\\' || r == 0x7f }) {
		return sharing.Recipient{}, usagef("share name %q: it has no spaces, slashes or control characters, and at most 255 characters", share)
	}
	who := sharing.Recipient{Share: share, History: true}
	decl := l.Share(share)
	if decl != nil {
		who.Share, who.History, who.Declared = decl.Name, decl.History, true
	}
	for _, name := range tables {
		t := l.Table(name)
		switch {
		case t != nil:
			name = t.Name
		case strings.EqualFold(name, catalog.Quarantine):
			name = catalog.Quarantine
		default:
			return who, usagef("--table %s: the lake file has no such table; it has %s", name, list(tableNames(l)))
		}
		if decl != nil && len(decl.Tables) > 0 && !slices.Contains(decl.Tables, name) {
			return who, usagef("--table %s: the lake file's share %s has only %s", name, decl.Name, list(decl.Tables))
		}
		who.Tables = append(who.Tables, name)
	}
	return who, nil
}

// checkEndpoint completes the URL of a profile, which ends with the path of the protocol.
func checkEndpoint(endpoint string) (string, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return "", usagef("--endpoint %q: it is a URL such as https://share.example.org%s/", endpoint, sharing.Prefix)
	}
	u.Path = strings.TrimRight(u.Path, "/")
	if !strings.HasSuffix(u.Path, sharing.Prefix) {
		u.Path += sharing.Prefix
	}
	return u.String() + "/", nil
}

// writeProfile makes a profile file that its owner alone can read.
func writeProfile(path string, p sharing.Profile) error {
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// shortID is how many digits of a recipient's id people are shown.
const shortID = 12

// shareRow is a recipient as commands tell it.
type shareRow struct {
	ID      string     `json:"id"`
	Share   string     `json:"share"`
	Tables  []string   `json:"tables"` // empty: all that the share has
	History bool       `json:"history"`
	Created time.Time  `json:"created"`
	Expires *time.Time `json:"expires"`
	State   string     `json:"state"` // good, expired, damaged, or undeclared: the lake file no longer has the share
}

func rowOf(l *pipeline.Lake, r sharing.Recipient, now time.Time) shareRow {
	row := shareRow{ID: r.ID, Share: r.Share, Tables: append([]string{}, r.Tables...), History: r.History, Created: r.Created, State: "good"}
	if r.Declared && l.Share(r.Share) == nil {
		row.State = "undeclared"
	}
	if !r.Expires.IsZero() {
		row.Expires = &r.Expires
		if !now.Before(r.Expires) {
			row.State = "expired"
		}
	}
	if r.Damaged != nil {
		row.State = "damaged"
	}
	return row
}

func newShareList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "Who may read what, and until when",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			l, err := a.loadLake()
			if err != nil {
				return err
			}
			people, err := sharing.OpenRecipients(sharingDir(l))
			if err != nil {
				return err
			}
			all, err := people.List()
			if err != nil {
				return err
			}
			now := time.Now()
			rows := []shareRow{}
			for _, r := range all {
				rows = append(rows, rowOf(l, r, now))
			}
			return a.print(struct {
				Recipients []shareRow `json:"recipients"`
			}{rows}, func(w io.Writer) error {
				if len(rows) == 0 {
					_, err := fmt.Fprintln(w, "nothing is shared; cauce share create NAME makes a recipient")
					return err
				}
				g := newGrid("recipient", "share", "tables", "history", "created", "expires", "state")
				for _, r := range rows {
					tables, history, expires := strings.Join(r.Tables, ","), "no", "never"
					if r.State == "damaged" {
						g.row(r.ID[:shortID], "", "", "", "", "", r.State)
						continue
					}
					if tables == "" {
						tables = "all"
					}
					if r.History {
						history = "yes"
					}
					if r.Expires != nil {
						expires = r.Expires.Format(time.DateOnly)
					}
					g.row(r.ID[:shortID], r.Share, tables, history, r.Created.Format(time.DateOnly), expires, r.State)
				}
				return g.write(w)
			})
		},
	}
}

func newShareRevoke(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke RECIPIENT|NAME",
		Short: "End a recipient, or every recipient of a share",
		Long: `End the recipient whose id begins with the given digits, or every recipient of the share with that name. A server that
runs refuses their tokens and its own URLs from then on; pre-signed URLs of S3 or Google Cloud Storage end within the hour.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := a.loadLake()
			if err != nil {
				return err
			}
			people, err := sharing.OpenRecipients(sharingDir(l))
			if err != nil {
				return err
			}
			all, err := people.List()
			if err != nil {
				return err
			}
			var byID, byName []sharing.Recipient
			for _, r := range all {
				if strings.EqualFold(r.Share, args[0]) {
					byName = append(byName, r)
				}
				if len(args[0]) >= 4 && strings.HasPrefix(r.ID, args[0]) {
					byID = append(byID, r)
				}
			}
			gone := byName
			switch {
			case len(byName) > 0 && len(byID) > 0:
				return usagef("%s is the name of a share and begins the id of a recipient; give more digits of the id", args[0])
			case len(byID) > 1:
				return usagef("%d recipients have ids that begin with %s; give more digits", len(byID), args[0])
			case len(byID) == 1:
				gone = byID
			case len(byName) == 0:
				return usagef("%s: no recipient has an id that begins so (4 digits at least), and no share has that name; cauce share list shows them", args[0])
			}
			ids := []string{}
			for _, r := range gone {
				if err := people.Revoke(r.ID); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
				ids = append(ids, r.ID)
			}
			return a.print(struct {
				Revoked []string `json:"revoked"`
			}{ids}, func(w io.Writer) error {
				for _, r := range gone {
					of := " of share " + r.Share
					if r.Damaged != nil {
						of = "" // nobody knows
					}
					if _, err := fmt.Fprintf(w, "revoked recipient %s%s\n", r.ID[:shortID], of); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

// shareServer says where shares are served.
type shareServer struct {
	listen, url   string
	cert, certKey string
}

func newShareServe(a *app) *cobra.Command {
	var o shareServer
	var metrics string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Answer the recipients of shares",
		Long: `Answer the recipients of shares over the Delta Sharing protocol. Tables may be written meanwhile. Data files in a bucket
are read by pre-signed URLs, files on local disk by signed URLs of this server; both end after an hour.

An address that other machines reach needs --tls-cert and --tls-key, or a proxy that has them: then --url says how recipients
reach it, with https. Stops cleanly on SIGINT and SIGTERM.`,
		Example: `  cauce share serve
  cauce share serve --listen 0.0.0.0:8443 --tls-cert server.crt --tls-key server.key`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a.verbose = a.verbose || !a.quiet
			l, err := a.openWatched(cmd.Context(), metrics, false)
			if err != nil {
				return err
			}
			defer l.Close()
			return a.serveShares(cmd.Context(), l, o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", defaultShareListen, "`address` (host:port) to listen on")
	f.StringVar(&o.url, "url", "", "`URL` under which recipients reach the server, where a proxy stands before it")
	f.StringVar(&o.cert, "tls-cert", "", "PEM `file` with the server's certificate")
	f.StringVar(&o.certKey, "tls-key", "", "PEM `file` with its key")
	f.StringVar(&metrics, "metrics-listen", "", metricsListen)
	return cmd
}

// serveShares answers recipients until ctx ends.
func (a *app) serveShares(ctx context.Context, l *lake, o shareServer) error {
	log := a.logger()
	if o.url != "" {
		u, err := checkEndpoint(o.url)
		if err != nil {
			return usagef("--url: %w", err)
		}
		o.url = u
	}
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10}
	if o.cert != "" || o.certKey != "" {
		pair, err := tls.LoadX509KeyPair(o.cert, o.certKey)
		if err != nil {
			return usagef("--tls-cert and --tls-key: %w", err)
		}
		srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	}
	handler, err := sharing.New(sharing.Options{
		Lake: l.Lake, Catalog: l.ingest.Catalog(), Store: l.store, Dir: sharingDir(l.Lake), Parse: l.engine.ParseExpression, BaseURL: o.url, Log: log,
	})
	if err != nil {
		return err
	}
	srv.Handler = handler
	ln, err := net.Listen("tcp", o.listen)
	if err != nil {
		return usagef("shares: %s: %w", o.listen, err)
	}
	if addr, ok := ln.Addr().(*net.TCPAddr); (!ok || !addr.IP.IsLoopback()) && srv.TLSConfig == nil && !strings.HasPrefix(o.url, "https:") {
		return errors.Join(usagef("shares: %s: other machines reach this address, and without TLS their tokens could be read on the way; give cauce share serve --tls-cert and --tls-key, or --url https://… of a proxy that has them", o.listen), ln.Close())
	}
	scheme := "http"
	if srv.TLSConfig != nil {
		scheme = "https"
	}
	log.Info("shares are served", "endpoint", scheme+"://"+ln.Addr().String()+sharing.Prefix+"/")
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), shareDrain)
		defer cancel()
		if srv.Shutdown(drain) != nil {
			_ = srv.Close() // downloads that take longer are cut
		}
	})
	if srv.TLSConfig != nil {
		err = srv.ServeTLS(ln, "", "")
	} else {
		err = srv.Serve(ln)
	}
	if !stop() {
		<-ended
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
