package index

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/zeebo/xxh3"
)

// folder is where segments are kept on local disk: a file for each, named for its identity, and the seed of all hashes. Any
// number of processes share it. A segment appears by rename and may go at any time; none is made durable, because what a
// power cut leaves of it has the wrong checksums.
type folder struct {
	dir      string
	seed     uint64
	bytesMax int64
	log      *slog.Logger

	mu      sync.Mutex
	bytes   int64     // as they were last counted, and what was written since
	counted time.Time // when
	failed  time.Time // when writing last failed
}

const (
	segmentSuffix = ".keys"
	temporary     = "tmp-"
	seedFile      = "seed"

	// touchEvery is how often a segment that is of use says so, by its file's time of modification.
	touchEvery = 5 * time.Minute
	// inUse: a segment that said so within this time is not forgotten for another's sake.
	inUse = 3 * touchEvery
	// unusedMax is how long a segment stays that nobody has a use for. That of a data file which another process removed
	// is never asked for again.
	unusedMax = 48 * time.Hour
	// temporaryMax is how old a temporary file is that nobody writes any more.
	temporaryMax = time.Hour
	// countEvery is how often the folder is looked through while it is full, and sweepEvery while it is not.
	countEvery = time.Minute
	sweepEvery = time.Hour
	// retryAfter is how long writing is left alone once it failed: the disk may be full.
	retryAfter = time.Minute
)

// openFolder makes the folder if it is missing, and its seed.
func openFolder(dir string, bytesMax int64, log *slog.Logger) (*folder, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	d := &folder{dir: dir, bytesMax: bytesMax, log: log}
	name := filepath.Join(dir, seedFile)
	const tries = 3 // somebody else may make it at the same time
	for try := 1; ; try++ {
		b, err := os.ReadFile(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if seed, ok := parseSeed(b); ok {
			d.seed = seed
			return d, nil
		}
		damaged := err == nil
		if damaged {
			log.Warn("the seed of the index of keys is damaged; the index is made again", "file", name)
		}
		if err := d.putSeed(name, damaged); err != nil && (try == tries || !errors.Is(err, fs.ErrExist)) {
			return nil, err
		}
	}
}

// putSeed draws a seed and puts it in its place, whole.
func (d *folder) putSeed(name string, replace bool) (err error) {
	f, err := os.CreateTemp(d.dir, temporary+"*") // readable for its owner only
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ignoreMissing(os.Remove(f.Name()))) }()
	_, err = f.Write(formatSeed(rand.Uint64()))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if !replace {
		if err := os.Link(f.Name(), name); err == nil || errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return os.Rename(f.Name(), name) // also where there are no links
}

const seedMagic = "CauceKS1"

// formatSeed makes the seed's file: 8 magic, 8 seed, 8 checksum.
func formatSeed(seed uint64) []byte {
	b := binary.LittleEndian.AppendUint64([]byte(seedMagic), seed)
	return binary.LittleEndian.AppendUint64(b, xxh3.Hash(b))
}

func parseSeed(b []byte) (seed uint64, ok bool) {
	if len(b) != 24 || string(b[:8]) != seedMagic || xxh3.Hash(b[:16]) != binary.LittleEndian.Uint64(b[16:]) {
		return 0, false
	}
	return binary.LittleEndian.Uint64(b[8:]), true
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (d *folder) path(id identity) string { return filepath.Join(d.dir, id.String()+segmentSuffix) }

// load reads a segment; fs.ErrNotExist if there is none.
func (d *folder) load(id identity) (_ *segment, err error) {
	f, err := os.Open(d.path(id))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	seg, err := readSegment(f, st.Size(), id)
	if err != nil {
		return nil, err
	}
	seg.path = f.Name()
	return seg, nil
}

// write makes a segment of sorted entries.
func (d *folder) write(id identity, s *sorter) (_ *segment, err error) {
	f, err := os.CreateTemp(d.dir, temporary+"*")
	if err != nil {
		d.fail()
		return nil, err
	}
	defer func() {
		if err != nil {
			if !errors.Is(err, errUnfit) {
				d.fail()
			}
			err = errors.Join(err, ignoreMissing(os.Remove(f.Name())))
		}
	}()
	err = writeSegment(f, id, s.n, s.sorted())
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if err := os.Rename(f.Name(), d.path(id)); err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.bytes += segmentBytes(s.n)
	d.mu.Unlock()
	return d.load(id)
}

// fail notes that writing failed.
func (d *folder) fail() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failed = time.Now()
}

// usable tells whether writing is worth a try.
func (d *folder) usable() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Since(d.failed) > retryAfter
}

// remove deletes a segment. One that stays behind is found out or forgotten later.
func (d *folder) remove(id identity) { _ = os.Remove(d.path(id)) }

// touch says that a segment is of use.
func (d *folder) touch(s *segment) {
	now := time.Now()
	last := s.touched.Load()
	if s.body != nil || now.Sub(time.Unix(last, 0)) < touchEvery || !s.touched.CompareAndSwap(last, now.Unix()) {
		return
	}
	_ = os.Chtimes(s.path, now, now) // if it is gone, whoever reads it will see
}

// room tells whether the folder may grow by n bytes, after forgetting what is of no use.
func (d *folder) room(n int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	age := time.Since(d.counted)
	if age > sweepEvery || age > countEvery && d.bytes+n > d.bytesMax {
		d.sweep(n)
	}
	return d.bytes+n <= d.bytesMax
}

// sweep counts the folder's bytes and removes what is of no use; then, oldest first, what is not in use, until n bytes more
// fit. The caller holds the lock.
func (d *folder) sweep(n int64) {
	now := time.Now()
	d.counted = now
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		d.log.Warn("the folder of the index of keys cannot be listed", "folder", d.dir, "error", err)
		return
	}
	var kept []fs.FileInfo
	d.bytes = 0
	for _, e := range entries {
		st, err := e.Info()
		if err != nil || st.IsDir() {
			continue
		}
		age := now.Sub(st.ModTime())
		switch {
		case strings.HasPrefix(st.Name(), temporary) && age > temporaryMax, strings.HasSuffix(st.Name(), segmentSuffix) && age > unusedMax:
			_ = os.Remove(filepath.Join(d.dir, st.Name()))
		case strings.HasSuffix(st.Name(), segmentSuffix):
			d.bytes += st.Size()
			kept = append(kept, st)
		}
	}
	slices.SortFunc(kept, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for _, st := range kept {
		if d.bytes+n <= d.bytesMax || now.Sub(st.ModTime()) < inUse {
			break
		}
		if os.Remove(filepath.Join(d.dir, st.Name())) == nil {
			d.bytes -= st.Size()
		}
	}
}
