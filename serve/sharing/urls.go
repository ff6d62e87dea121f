package sharing

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/cauce-data/cauce/objstore"
)

// Folders below Prefix/files: data files of tables by their keys in the lake's store, and rewritten files.
const (
	kindData = "data"
	kindCopy = "copies"
)

// Parameters of a signed URL. Clients take a URL for pre-signed by the last one's name, and read it without their token.
const (
	paramExpires   = "X-Cauce-Expires"
	paramRecipient = "X-Cauce-Recipient"
	paramSignature = "X-Amz-Signature"
)

// dataURL is a URL under which a recipient may read an object of the store until it expires: a pre-signed one of the cloud
// where the store can make it, else one that this server serves.
func (s *Server) dataURL(ctx context.Context, base, key string, who *Recipient, expires time.Time) (string, error) {
	if p, ok := s.o.Store.(objstore.Presigner); ok {
		u, err := p.Presign(ctx, key, expires.Sub(s.o.Now()))
		if err == nil || !errors.Is(err, objstore.ErrNoPresign) {
			return u, err
		}
	}
	return s.signedURL(base, kindData, key, who, expires), nil
}

func (s *Server) signedURL(base, kind, key string, who *Recipient, expires time.Time) string {
	at := strconv.FormatInt(expires.Unix(), 10)
	segments := strings.Split(key, "/")
	for i, seg := range segments {
		segments[i] = url.PathEscape(seg)
	}
	return base + "/files/" + kind + "/" + strings.Join(segments, "/") + "?" + paramExpires + "=" + at + "&" + paramRecipient + "=" + who.ID +
		"&" + paramSignature + "=" + hex.EncodeToString(s.sign(kind, key, at, who.ID))
}

// sign makes the code of what a URL grants. The parts cannot run into each other: each is written with its length.
func (s *Server) sign(parts ...string) []byte {
	h := hmac.New(sha256.New, s.secret)
	for _, p := range parts {
		_, _ = fmt.Fprintf(h, "%d:%s;", len(p), p)
	}
	return h.Sum(nil)
}

// serveFile answers a signed URL: GET and HEAD, whole or in ranges (RFC 9110, section 14).
func (s *Server) serveFile(w http.ResponseWriter, r *http.Request) {
	who, err := s.file(w, r)
	if err != nil {
		s.fail(w, r, who, err)
	}
}

func (s *Server) file(w http.ResponseWriter, r *http.Request) (*Recipient, error) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return nil, errorf(http.StatusMethodNotAllowed, codeMalformed, "files are read with GET and HEAD")
	}
	kind, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, Prefix+"/files/"), "/")
	q := r.URL.Query()
	at, id := q.Get(paramExpires), q.Get(paramRecipient)
	given, err := hex.DecodeString(q.Get(paramSignature))
	if err != nil || !hmac.Equal(given, s.sign(kind, key, at, id)) {
		return nil, errorf(http.StatusForbidden, codeDenied, "the URL is not one that this server gave out")
	}
	// What is signed was made here; the rest is looked at all the same, because grants end and files may be links.
	seconds, err := strconv.ParseInt(at, 10, 64)
	if err != nil || !s.o.Now().Before(time.Unix(seconds, 0)) {
		return nil, errorf(http.StatusForbidden, codeDenied, "the URL has expired; query the table again")
	}
	who, err := s.people.byID(id)
	if errors.Is(err, fs.ErrNotExist) || err == nil && who.expired(s.o.Now()) {
		return who, errorf(http.StatusForbidden, codeDenied, "the recipient of the URL has been revoked or has expired")
	}
	if err != nil {
		return nil, err
	}
	missing := errorf(http.StatusForbidden, codeDenied, "the URL names no file of a table that its recipient may read")
	if path.Clean("/"+key) != "/"+key {
		return who, missing
	}
	for _, t := range s.tables(who) {
		folder := t.name
		if kind == kindData {
			if folder, err = s.o.Catalog.Path(t.name); err != nil {
				return who, err
			}
		}
		rel, below := strings.CutPrefix(key, folder+"/")
		if !below || strings.HasPrefix(rel, "_delta_log/") {
			continue
		}
		switch kind {
		case kindCopy:
			return who, serveLocal(w, r, s.copies.dir, key)
		case kindData:
			if l, ok := s.o.Store.(objstore.LocalPather); ok {
				return who, serveLocal(w, r, l.LocalPath(folder), rel)
			}
			return who, s.serveStored(w, r, key)
		}
	}
	return who, missing
}

// serveLocal serves a file below a folder; links that lead out of it are not followed.
func serveLocal(w http.ResponseWriter, r *http.Request, dir, name string) error {
	f, err := os.OpenInRoot(dir, name)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fs.ErrNotExist
	}
	serve(w, r, st.ModTime(), f)
	return nil
}

func (s *Server) serveStored(w http.ResponseWriter, r *http.Request, key string) error {
	info, err := s.o.Store.Stat(r.Context(), key)
	if err != nil {
		return err
	}
	serve(w, r, info.ModTime, &storedFile{ctx: r.Context(), store: s.o.Store, key: key, size: info.Size})
	return nil
}

func serve(w http.ResponseWriter, r *http.Request, modified time.Time, content io.ReadSeeker) {
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", modified, content)
}

// storedFile reads an object of a store that has no local files, in pieces.
type storedFile struct {
	ctx   context.Context
	store objstore.Store
	key   string
	size  int64
	at    int64
	have  bytes.Reader
}

const storedPiece = 4 << 20

func (f *storedFile) Read(p []byte) (int, error) {
	if f.have.Len() == 0 {
		if f.at >= f.size {
			return 0, io.EOF
		}
		b, err := f.store.GetRange(f.ctx, f.key, f.at, min(storedPiece, f.size-f.at))
		if err != nil {
			return 0, err
		}
		if len(b) == 0 {
			return 0, io.ErrUnexpectedEOF
		}
		f.have.Reset(b)
	}
	n, err := f.have.Read(p)
	f.at += int64(n)
	return n, err
}

func (f *storedFile) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += f.at
	case io.SeekEnd:
		offset += f.size
	}
	if offset < 0 {
		return 0, fmt.Errorf("%s: seek before the beginning", f.key)
	}
	f.at = offset
	f.have.Reset(nil)
	return offset, nil
}
