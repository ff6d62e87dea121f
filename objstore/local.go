package objstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"time"
)

// Local is a store of plain files below one folder. Objects appear by link or rename of a finished, synced file, so
// that a reader sees them whole or not at all, also after a power cut. Files of unfinished writes have names that
// start with ".tmp-"; List does not show them.
type Local struct {
	dir string

	// synced holds the folders whose own entries, up to the root, this store has made durable: a folder that another
	// process just made may not be so yet.
	synced sync.Map
}

// tmpPrefix begins the names of unfinished files.
const tmpPrefix = ".tmp-"

// NewLocal gives a store over a folder, which is made with the first write if it is missing.
func NewLocal(dir string) (*Local, error) {
	if dir == "" {
		return nil, errors.New("local store: the folder is missing")
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("local store %q: %w", dir, err)
	}
	if st, err := os.Stat(abs); err == nil && !st.IsDir() {
		return nil, fmt.Errorf("local store %q: not a folder", dir)
	}
	return &Local{dir: abs}, nil
}

// Open gives the store for a URL that this package can serve: "file:/abs", "file:///abs", "file:./relative", or a
// plain path. Other schemes belong to the packages below this one.
func Open(rawURL string) (Store, error) {
	dir, err := FileURLPath(rawURL)
	if err != nil {
		return nil, err
	}
	return NewLocal(dir)
}

// FileURLPath gives the path that a file URL names; a plain path names itself.
func FileURLPath(rawURL string) (string, error) {
	rest, ok := strings.CutPrefix(rawURL, "file:")
	if !ok {
		if i := strings.Index(rawURL, "://"); i > 0 {
			return "", fmt.Errorf("storage %q: scheme %q is not served by local disk", rawURL, rawURL[:i])
		}
		return rawURL, nil
	}
	if host, ok := strings.CutPrefix(rest, "//"); ok {
		i := strings.IndexByte(host, '/')
		if i < 0 {
			return "", fmt.Errorf("storage %q: the URL names a host and no path", rawURL)
		}
		if host[:i] != "" && host[:i] != "localhost" {
			return "", fmt.Errorf("storage %q: %q is another host; write file:/path", rawURL, host[:i])
		}
		rest = host[i:]
	}
	if rest == "" {
		return "", fmt.Errorf("storage %q: the path is missing", rawURL)
	}
	if p, err := url.PathUnescape(rest); err == nil {
		rest = p
	}
	return filepath.FromSlash(rest), nil
}

// URL is "file://" and the absolute path, not percent-encoded.
func (l *Local) URL() string { return "file://" + filepath.ToSlash(l.dir) }

// LocalPath is the file of a key.
func (l *Local) LocalPath(key string) string { return filepath.Join(l.dir, filepath.FromSlash(key)) }

// CheckKey refuses keys that do not name one object below the root. Every store calls it first.
func CheckKey(op, key string) error {
	if key == "" || strings.HasPrefix(key, "/") || strings.HasSuffix(key, "/") || strings.IndexByte(key, 0) >= 0 {
		return fmt.Errorf("%s %q: not a valid key", op, key)
	}
	for _, part := range strings.Split(key, "/") {
		if part == "" || part == "." || part == ".." {
			return fmt.Errorf("%s %q: not a valid key", op, key)
		}
	}
	return nil
}

// keyPath checks a key and gives its file.
func (l *Local) keyPath(op, key string) (string, error) {
	if err := CheckKey(op, key); err != nil {
		return "", err
	}
	return l.LocalPath(key), nil
}

// wrap names operation and key in an error, and turns a missing file into ErrNotFound.
func wrap(op, key string, err error) error {
	if errors.Is(err, fs.ErrNotExist) || isNotDir(err) {
		return fmt.Errorf("%s %s: %w", op, key, ErrNotFound)
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	var le *os.LinkError
	if errors.As(err, &le) {
		err = le.Err
	}
	return fmt.Errorf("%s %s: %w", op, key, err)
}

func info(key string, st fs.FileInfo) Info {
	return Info{Key: key, Size: st.Size(), ModTime: st.ModTime(), ETag: etag(st)}
}

// Get opens the file.
func (l *Local) Get(ctx context.Context, key string) (io.ReadCloser, Info, error) {
	f, st, err := l.open(ctx, "get", key)
	if err != nil {
		return nil, Info{}, err
	}
	return f, info(key, st), nil
}

func (l *Local) open(ctx context.Context, op, key string) (*os.File, fs.FileInfo, error) {
	p, err := l.keyPath(op, key)
	if err != nil {
		return nil, nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, fmt.Errorf("%s %s: %w", op, key, err)
	}
	f, err := os.Open(p)
	if err != nil {
		return nil, nil, wrap(op, key, err)
	}
	st, err := f.Stat()
	if err == nil && st.IsDir() {
		err = fs.ErrNotExist
	}
	if err != nil {
		f.Close()
		return nil, nil, wrap(op, key, err)
	}
	return f, st, nil
}

// GetRange reads a part of the file.
func (l *Local) GetRange(ctx context.Context, key string, offset, n int64) ([]byte, error) {
	f, st, err := l.open(ctx, "get", key)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size := st.Size()
	if offset < 0 {
		offset = max(0, size+offset)
	}
	if offset > size {
		return nil, fmt.Errorf("get %s: offset %d lies behind the end at %d", key, offset, size)
	}
	if n < 0 || n > size-offset {
		n = size - offset
	}
	buf := make([]byte, n)
	m, err := f.ReadAt(buf, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, wrap("get", key, err)
	}
	return buf[:m], nil
}

// Stat describes the file.
func (l *Local) Stat(ctx context.Context, key string) (Info, error) {
	p, err := l.keyPath("stat", key)
	if err != nil {
		return Info{}, err
	}
	if err := ctx.Err(); err != nil {
		return Info{}, fmt.Errorf("stat %s: %w", key, err)
	}
	st, err := os.Stat(p)
	if err == nil && st.IsDir() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return Info{}, wrap("stat", key, err)
	}
	return info(key, st), nil
}

// Put writes a file beside its place, syncs it, renames it into place and syncs the folder.
func (l *Local) Put(ctx context.Context, key string, r io.Reader, opts PutOptions) error {
	p, err := l.keyPath("put", key)
	if err != nil {
		return err
	}
	tmp, err := l.writeTemp(ctx, "put", key, p, r, opts.ModTime, true)
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, p); err != nil {
		os.Remove(tmp)
		return wrap("put", key, err)
	}
	if err := syncDir(filepath.Dir(p)); err != nil {
		return fmt.Errorf("put %s: %w: %w", key, ErrAmbiguous, err)
	}
	return nil
}

// PutIfAbsent writes a file beside its place, syncs it and links it into place: link(2) is atomic, fails if the name
// exists, and never shows a part of the file, unlike O_EXCL, after which a crash leaves a torn object for good.
func (l *Local) PutIfAbsent(ctx context.Context, key string, data []byte) error {
	return l.putIfAbsent(ctx, key, data, true)
}

// PutHint implements Hinter: PutIfAbsent without the wait for the disk.
func (l *Local) PutHint(ctx context.Context, key string, data []byte) error {
	return l.putIfAbsent(ctx, key, data, false)
}

func (l *Local) putIfAbsent(ctx context.Context, key string, data []byte, durable bool) error {
	p, err := l.keyPath("put", key)
	if err != nil {
		return err
	}
	// The common way to lose a race costs no write.
	if _, err := os.Lstat(p); err == nil {
		return fmt.Errorf("put %s: %w", key, ErrExists)
	}
	tmp, err := l.writeTemp(ctx, "put", key, p, strings.NewReader(string(data)), time.Time{}, durable)
	if err != nil {
		return err
	}
	err = os.Link(tmp, p)
	os.Remove(tmp)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("put %s: %w", key, ErrExists)
	}
	if err != nil {
		return wrap("put", key, err)
	}
	if !durable {
		return nil
	}
	if err := syncDir(filepath.Dir(p)); err != nil {
		return fmt.Errorf("put %s: %w: %w", key, ErrAmbiguous, err)
	}
	return nil
}

// writeTemp writes a file in the folder of p under a name of its own, and syncs it if it shall be durable.
func (l *Local) writeTemp(ctx context.Context, op, key, p string, r io.Reader, mod time.Time, durable bool) (tmp string, err error) {
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("%s %s: %w", op, key, err)
	}
	dir := filepath.Dir(p)
	if err := l.makeDir(dir); err != nil {
		return "", wrap(op, key, err)
	}
	var f *os.File
	for {
		tmp = filepath.Join(dir, fmt.Sprintf("%s%016x", tmpPrefix, rand.Uint64()))
		f, err = os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	if err != nil {
		return "", wrap(op, key, err)
	}
	name := tmp // an error return empties tmp
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(name)
			err = wrap(op, key, err)
		}
	}()
	if _, err = io.Copy(f, &ctxReader{ctx, r}); err != nil {
		return "", err
	}
	if !mod.IsZero() {
		if err = os.Chtimes(tmp, mod, mod); err != nil {
			return "", err
		}
	}
	if durable {
		if err = f.Sync(); err != nil {
			return "", err
		}
	}
	if err = f.Close(); err != nil {
		return "", err
	}
	return tmp, nil
}

// ctxReader stops a long copy when its context ends.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// makeDir makes a folder and makes its entry and those of its parents durable, up to the store's root and the first
// folder above it that existed.
func (l *Local) makeDir(dir string) error {
	if _, ok := l.synced.Load(dir); ok {
		if st, err := os.Stat(dir); err == nil && st.IsDir() {
			return nil
		}
	}
	var sync []string
	d := dir
	for {
		parent := filepath.Dir(d)
		st, err := os.Stat(d)
		if err == nil {
			if !st.IsDir() {
				return &fs.PathError{Op: "mkdir", Path: d, Err: errNotDir}
			}
			if len(d) <= len(l.dir) || parent == d {
				break
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		sync = append(sync, parent)
		d = parent
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	for _, s := range sync {
		if err := syncDir(s); err != nil {
			return err
		}
	}
	l.synced.Store(dir, struct{}{})
	return nil
}

// Sync makes finished files and their folders durable.
func (l *Local) Sync(ctx context.Context, keys ...string) error {
	dirs := map[string]bool{}
	for _, key := range keys {
		p, err := l.keyPath("sync", key)
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("sync %s: %w", key, err)
		}
		f, err := os.Open(p)
		if err != nil {
			return wrap("sync", key, err)
		}
		err = f.Sync()
		f.Close()
		if err != nil {
			return wrap("sync", key, err)
		}
		dirs[filepath.Dir(p)] = true
	}
	for d := range dirs {
		// An engine may have made the folder, so its own entry is synced as well.
		if err := l.makeDir(d); err != nil {
			return fmt.Errorf("sync %s: %w", d, err)
		}
		if err := syncDir(d); err != nil {
			return fmt.Errorf("sync %s: %w", d, err)
		}
	}
	return nil
}

// Delete removes the file. Its folder stays, for a writer may be about to use it.
func (l *Local) Delete(ctx context.Context, key string) error {
	p, err := l.keyPath("delete", key)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	st, err := os.Lstat(p)
	if err == nil && st.IsDir() {
		return nil // folders are not objects
	}
	if err == nil {
		err = os.Remove(p)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !isNotDir(err) {
		return wrap("delete", key, err)
	}
	return nil
}

// List walks the folders in the order of keys. Links to files and folders are followed; a dangling link is listed
// with its own size and time, so that whoever reads it learns that it leads nowhere.
func (l *Local) List(ctx context.Context, prefix, startAfter string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		dir := ""
		if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
			dir = prefix[:i+1]
		}
		for _, part := range strings.Split(strings.TrimSuffix(dir, "/"), "/") {
			if part == ".." || part == "." {
				yield(Info{}, fmt.Errorf("list %q: not a valid prefix", prefix))
				return
			}
		}
		w := walker{ctx: ctx, store: l, prefix: prefix, after: startAfter, yield: yield}
		w.walk(dir, nil)
	}
}

type walker struct {
	ctx           context.Context
	store         *Local
	prefix, after string
	yield         func(Info, error) bool
}

// walk lists the folder of a key prefix ("" or ending in a slash) and reports whether to go on. above holds the
// folders on the way here, to leave out links that lead back into one.
func (w *walker) walk(dir string, above []fs.FileInfo) bool {
	if err := w.ctx.Err(); err != nil {
		w.yield(Info{}, fmt.Errorf("list %s: %w", w.prefix, err))
		return false
	}
	p := w.store.LocalPath(dir)
	self, err := os.Stat(p)
	var entries []fs.DirEntry
	if err == nil && self.IsDir() {
		for _, a := range above {
			if os.SameFile(a, self) {
				return true
			}
		}
		entries, err = os.ReadDir(p)
	}
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || isNotDir(err) {
			return true
		}
		w.yield(Info{}, wrap("list", dir, err))
		return false
	}
	above = append(above[:len(above):len(above)], self)

	type item struct {
		key string // ends in a slash for a folder
		e   fs.DirEntry
	}
	items := make([]item, 0, len(entries))
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, tmpPrefix) {
			continue
		}
		key := dir + name
		isDir := e.IsDir()
		if e.Type()&fs.ModeSymlink != 0 {
			if st, err := os.Stat(filepath.Join(p, name)); err == nil && st.IsDir() {
				isDir = true
			}
		}
		if isDir {
			// A folder sorts as the keys in it do: "a/x" stands behind "a.b" and before "a0".
			key += "/"
			if !strings.HasPrefix(key, w.prefix) && !strings.HasPrefix(w.prefix, key) {
				continue
			}
			if key <= w.after && !strings.HasPrefix(w.after, key) {
				continue
			}
		} else if !strings.HasPrefix(key, w.prefix) || key <= w.after {
			continue
		}
		items = append(items, item{key, e})
	}
	sort.Slice(items, func(i, j int) bool { return items[i].key < items[j].key })
	for _, it := range items {
		if strings.HasSuffix(it.key, "/") {
			if !w.walk(it.key, above) {
				return false
			}
			continue
		}
		st, err := os.Stat(filepath.Join(p, it.e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			if it.e.Type()&fs.ModeSymlink == 0 {
				continue // deleted since the folder was read
			}
			st, err = it.e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
		}
		if err != nil {
			if !w.yield(Info{Key: it.key}, wrap("list", it.key, err)) {
				return false
			}
			continue
		}
		if !st.Mode().IsRegular() && st.Mode()&fs.ModeSymlink == 0 {
			continue // sockets, devices and pipes hold no objects
		}
		if !w.yield(info(it.key, st), nil) {
			return false
		}
	}
	return true
}

// syncDir makes the entries of a folder durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return syncFolder(d)
}

var (
	_ Store       = (*Local)(nil)
	_ LocalPather = (*Local)(nil)
)

// Sweep removes the unfinished files of Put and PutIfAbsent. Links below the prefix's folder are
// not followed.
func (l *Local) Sweep(ctx context.Context, prefix string, before time.Time, dryRun bool) ([]Info, error) {
	dir := prefix[:strings.LastIndexByte(prefix, '/')+1]
	top := l.LocalPath(dir)
	if real, err := filepath.EvalSymlinks(top); err == nil {
		top = real // the folder itself may be a link
	}
	var swept []Info
	err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // somebody else removed it, or there is no such folder
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || !d.Type().IsRegular() || !strings.HasPrefix(d.Name(), tmpPrefix) {
			return err
		}
		rel, err := filepath.Rel(top, p)
		if err != nil {
			return err
		}
		key := dir + filepath.ToSlash(rel)
		st, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) || err == nil && (!st.ModTime().Before(before) || !strings.HasPrefix(key, prefix)) {
			return nil
		}
		if err == nil && !dryRun {
			err = os.Remove(p)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		swept = append(swept, info(key, st))
		return nil
	})
	if err != nil {
		return swept, wrap("sweep", prefix, err)
	}
	return swept, nil
}
