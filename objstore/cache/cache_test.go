package cache_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/objstore/cache"
	"github.com/cauce-data/cauce/objstore/fault"
	"github.com/cauce-data/cauce/objstore/storetest"
)

func name(i int) string { return fmt.Sprintf("t/part-%08x-0000-4000-8000-000000000000.parquet", i) }

func put(t *testing.T, s objstore.Store, key, data string) {
	t.Helper()
	if err := s.Put(context.Background(), key, strings.NewReader(data), objstore.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

// copied gives what LocalCopy makes of an object, and how many calls of the store below it took.
func copied(t *testing.T, s *cache.Store, below *fault.Store, key string, size int) (data string, calls int) {
	t.Helper()
	before := len(below.Calls())
	to := filepath.Join(t.TempDir(), "copy")
	if err := s.LocalCopy(context.Background(), key, int64(size), to); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(to)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), len(below.Calls()) - before
}

func kept(t *testing.T, dir string) (n int, size int64) {
	t.Helper()
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if st, err := d.Info(); err == nil {
				n, size = n+1, size+st.Size()
			}
		}
		return nil
	})
	return n, size
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) objstore.Store { return cache.New(objstore.NewMemory(nil), t.TempDir(), 1<<20) })
}

// TestFetchedOnce: an object whose name is written once costs one call, ever; any other one a question for its ETag.
func TestFetchedOnce(t *testing.T) {
	below := fault.New(objstore.NewMemory(nil))
	dir := t.TempDir()
	s := cache.New(below, dir, 1<<20)
	put(t, s, name(1), "immutable")
	for i, want := range []int{1, 0, 0} {
		if data, calls := copied(t, s, below, name(1), 9); data != "immutable" || calls != want {
			t.Errorf("time %d: %q with %d calls", i, data, calls)
		}
	}
	if data, calls := copied(t, cache.New(below, dir, 1<<20), below, name(1), 9); data != "immutable" || calls != 0 {
		t.Errorf("another process: %q with %d calls", data, calls)
	}
	put(t, s, "t/part-0.parquet", "first")
	for _, data := range []string{"first", "again"} {
		put(t, s, "t/part-0.parquet", data)
		for i, want := range []int{2, 1} {
			if got, calls := copied(t, s, below, "t/part-0.parquet", 5); got != data || calls != want {
				t.Errorf("time %d: %q with %d calls, want %q with %d", i, got, calls, data, want)
			}
		}
	}
	if err := s.LocalCopy(t.Context(), "t/part-0.parquet", 6, filepath.Join(t.TempDir(), "x")); err == nil || !strings.Contains(err.Error(), "log says 6") {
		t.Errorf("an object of another size than the log says: %v", err)
	}
	// A file of the cache that was cut, as by a full disk, is fetched again.
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			_ = os.Truncate(p, 1)
		}
		return nil
	})
	if data, calls := copied(t, s, below, name(1), 9); data != "immutable" || calls != 1 {
		t.Errorf("after a cut: %q with %d calls", data, calls)
	}
}

// TestBounded: the cache stays within its limit, forgets what was not taken for longest, and what somebody took stays
// readable. Several stores share the folder, as processes do.
func TestBounded(t *testing.T) {
	below := fault.New(objstore.NewMemory(nil))
	dir, mine := t.TempDir(), t.TempDir()
	const limit, size, files = 100_000, 5_000, 100
	for i := range files {
		put(t, below, name(i), strings.Repeat(string(rune('a'+i%26)), size))
	}
	stores := []*cache.Store{cache.New(below, dir, limit), cache.New(below, dir, limit)}
	var wg sync.WaitGroup
	for w, s := range stores {
		wg.Go(func() {
			for i := range files {
				to := filepath.Join(mine, fmt.Sprintf("%d-%d", w, i))
				if err := s.LocalCopy(context.Background(), name(i), size, to); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	// Each process measures the folder when it has added a tenth of the limit.
	if n, bytes := kept(t, dir); bytes > limit+limit/10*2+size*2 || n < 10 {
		t.Errorf("%d files of %d bytes are kept, the limit is %d", n, bytes, limit)
	}
	for w := range stores {
		for i := range files {
			b, err := os.ReadFile(filepath.Join(mine, fmt.Sprintf("%d-%d", w, i)))
			if err != nil || !bytes.Equal(b, bytes.Repeat([]byte{byte('a' + i%26)}, size)) {
				t.Fatalf("copy %d: %d bytes, %v", i, len(b), err)
			}
		}
	}
	if _, calls := copied(t, stores[0], below, name(files-1), size); calls != 0 {
		t.Error("what was taken last is forgotten")
	}
	if _, calls := copied(t, stores[0], below, name(0), size); calls != 1 {
		t.Error("what was taken first is still kept")
	}
}

// TestLargeObjectsInRanges: an object of several ranges arrives whole.
func TestLargeObjectsInRanges(t *testing.T) {
	below := fault.New(objstore.NewMemory(nil))
	data := bytes.Repeat([]byte("0123456789abcde"), 3<<20)
	put(t, below, name(1), string(data))
	s := cache.New(below, t.TempDir(), 1<<20) // too small to keep it
	got, calls := copied(t, s, below, name(1), len(data))
	if got != string(data) || calls < 2 {
		t.Fatalf("%d bytes in %d calls", len(got), calls)
	}
	to := filepath.Join(t.TempDir(), "short")
	if err := s.LocalCopy(t.Context(), name(1), int64(len(data)+1), to); err == nil {
		t.Fatal("an object that is shorter than the log says is no error")
	}
	if _, err := os.Stat(to); err == nil {
		t.Fatal("a failed copy left a file")
	}
}

// TestKeep: what was written need not be fetched.
func TestKeep(t *testing.T) {
	below := fault.New(objstore.NewMemory(nil))
	s := cache.New(below, t.TempDir(), 1<<20)
	local := filepath.Join(t.TempDir(), "written")
	if err := os.WriteFile(local, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	put(t, s, name(7), "mine")
	if err := s.Keep(name(7), local); err != nil {
		t.Fatal(err)
	}
	if got, calls := copied(t, s, below, name(7), 4); got != "mine" || calls != 0 {
		t.Errorf("%q with %d calls", got, calls)
	}
}
