// Package cache keeps copies of the immutable objects of a store in a local folder that any number of processes share,
// up to a size. It stands between an engine that reads local files and a store that has none.
package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/objstore/usage"
)

// Store is a store with a cache. Everything goes through to the store below, but for LocalCopy and Keep.
//
// A file of the cache is named for its object and for what tells one content from another: an object with a UUID in its
// name is written once under it, so the size is enough; of any other the ETag is asked for. A file appears by rename and
// is never changed. Whoever takes one makes a link of its own, so that the cache may forget it at any time; the files
// that were not taken for longest are forgotten first.
type Store struct {
	objstore.Store
	dir   string
	limit int64
	added atomic.Int64 // bytes since the folder was last measured
}

// New puts a cache over a store. dir is made when it is needed; limit is in bytes.
func New(below objstore.Store, dir string, limit int64) *Store {
	return &Store{Store: below, dir: dir, limit: limit}
}

// Usage is that of the store below.
func (s *Store) Usage() usage.Usage { return usage.Of(s.Store) }

// Sweep is that of the store below.
func (s *Store) Sweep(ctx context.Context, prefix string, before time.Time, dryRun bool) ([]objstore.Info, error) {
	if sw, ok := s.Store.(objstore.Sweeper); ok {
		return sw.Sweep(ctx, prefix, before, dryRun)
	}
	return nil, nil
}

// Presign is that of the store below.
func (s *Store) Presign(ctx context.Context, key string, lifetime time.Duration) (string, error) {
	if p, ok := s.Store.(objstore.Presigner); ok {
		return p.Presign(ctx, key, lifetime)
	}
	return "", objstore.ErrNoPresign
}

var hasUUID = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)

// file is where an object of a size would be kept; tag is its ETag, "" if the name is enough.
func (s *Store) file(key string, size int64, tag string) string {
	sum := sha256.Sum256([]byte(s.URL() + "\x00" + key + "\x00" + tag))
	h := hex.EncodeToString(sum[:20])
	return filepath.Join(s.dir, h[:2], fmt.Sprintf("%s-%d", h, size))
}

func written(key string) bool { return hasUUID.MatchString(path.Base(key)) }

// LocalCopy implements objstore.Keeper.
func (s *Store) LocalCopy(ctx context.Context, key string, size int64, to string) error {
	tag := ""
	if !written(key) {
		info, err := s.Stat(ctx, key)
		if err != nil {
			return err
		}
		if info.Size != size {
			return fmt.Errorf("get %s: it has %d bytes, and the table's log says %d", key, info.Size, size)
		}
		tag = info.ETag
	}
	kept := s.file(key, size, tag)
	if s.take(kept, size, to) {
		return nil
	}
	if err := s.fetch(ctx, key, size, to); err != nil {
		return errors.Join(err, remove(to))
	}
	s.keep(kept, to, size)
	return nil
}

// Keep implements objstore.Keeper.
func (s *Store) Keep(key, from string) error {
	if !written(key) {
		return nil // what its ETag is, only the server knows
	}
	st, err := os.Stat(from)
	if err != nil {
		return err
	}
	s.keep(s.file(key, st.Size(), ""), from, st.Size())
	return nil
}

// take links a kept file; its time of modification says when it was last of use.
func (s *Store) take(kept string, size int64, to string) bool {
	st, err := os.Stat(kept)
	if err != nil {
		return false
	}
	if st.Size() != size {
		_ = os.Remove(kept) // the disk was full, or somebody meddled
		return false
	}
	if os.Link(kept, to) != nil {
		return false
	}
	now := time.Now()
	_ = os.Chtimes(kept, now, now)
	return true
}

// keep links a file into the cache. Whatever goes wrong only means that the next reader fetches it.
func (s *Store) keep(kept, from string, size int64) {
	if size > s.limit/2 {
		return
	}
	if os.MkdirAll(filepath.Dir(kept), 0o755) != nil {
		return
	}
	if err := os.Link(from, kept); err != nil && !errors.Is(err, fs.ErrExist) {
		return
	}
	// The folder is measured when a tenth of the limit may have come, and first of all when the process adds anything.
	if n := s.added.Add(size + 1); n == size+1 || n > s.limit/10 {
		s.added.Store(1)
		s.shrink()
	}
}

// shrink forgets files until a tenth of the limit is free.
func (s *Store) shrink() {
	type entry struct {
		path string
		size int64
		at   time.Time
	}
	var all []entry
	var total int64
	_ = filepath.WalkDir(s.dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // other processes forget files too
		}
		if st, err := d.Info(); err == nil {
			all = append(all, entry{p, st.Size(), st.ModTime()})
			total += st.Size()
		}
		return nil
	})
	if total <= s.limit {
		return
	}
	slices.SortFunc(all, func(a, b entry) int { return a.at.Compare(b.at) })
	for _, e := range all {
		if total <= s.limit-s.limit/10 {
			return
		}
		if os.Remove(e.path) == nil {
			total -= e.size
		}
	}
}

// Objects from wholeBytes on are fetched in ranges of that size, several at once.
const (
	wholeBytes   = 16 << 20
	rangesAtOnce = 4
)

// fetch copies an object to a local file of the caller's.
func (s *Store) fetch(ctx context.Context, key string, size int64, to string) (err error) {
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if size < wholeBytes {
		r, info, err := s.Get(ctx, key)
		if err != nil {
			return err
		}
		defer r.Close()
		n, err := io.Copy(f, r)
		if err == nil && (n != size || info.Size != size) {
			err = fmt.Errorf("get %s: it has %d bytes, and the table's log says %d", key, n, size)
		}
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(rangesAtOnce)
	for at := int64(0); at < size; at += wholeBytes {
		g.Go(func() error {
			want := min(wholeBytes, size-at)
			b, err := s.Store.GetRange(gctx, key, at, want)
			if err != nil {
				return err
			}
			if int64(len(b)) != want {
				return fmt.Errorf("get %s: it ends before byte %d, and the table's log says %d", key, at+want, size)
			}
			_, err = f.WriteAt(b, at)
			return err
		})
	}
	return g.Wait()
}

func remove(file string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Fetch makes a local file of an object, by the store's own means where it has some.
func Fetch(ctx context.Context, store objstore.Store, key string, size int64, to string) error {
	if k, ok := store.(objstore.Keeper); ok {
		return k.LocalCopy(ctx, key, size, to)
	}
	return New(store, "", 0).fetch(ctx, key, size, to)
}

var (
	_ objstore.Store   = (*Store)(nil)
	_ objstore.Keeper  = (*Store)(nil)
	_ objstore.Sweeper = (*Store)(nil)
	_ usage.Reporter   = (*Store)(nil)
)
