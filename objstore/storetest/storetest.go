// Package storetest is the conformance suite that every objstore.Store must pass. It stands between the interface's
// words and its implementations; each of them runs it from a test of its own.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"github.com/cauce-data/cauce/objstore"
)

// Run runs the suite. open gives a new, empty store for each call.
func Run(t *testing.T, open func(t *testing.T) objstore.Store) {
	for _, c := range []struct {
		name string
		f    func(t *testing.T, s objstore.Store)
	}{
		{"GetPut", testGetPut},
		{"Missing", testMissing},
		{"Range", testRange},
		{"PutIfAbsent", testPutIfAbsent},
		{"PutIfAbsentRace", testPutIfAbsentRace},
		{"PutFailingReader", testPutFailingReader},
		{"ModTime", testModTime},
		{"ETag", testETag},
		{"List", testList},
		{"ListEarlyStop", testListEarlyStop},
		{"ListProperty", testListProperty},
		{"Keys", testKeys},
		{"Delete", testDelete},
		{"Cancel", testCancel},
		{"ReadersSeeWhole", testReadersSeeWhole},
		{"Large", testLarge},
		{"ManyKeys", testManyKeys},
		{"LocalPath", testLocalPath},
	} {
		t.Run(c.name, func(t *testing.T) { c.f(t, open(t)) })
	}
}

func put(t *testing.T, s objstore.Store, key, data string) {
	t.Helper()
	if err := s.Put(context.Background(), key, strings.NewReader(data), objstore.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, s objstore.Store, key string) (string, objstore.Info) {
	t.Helper()
	r, info, err := s.Get(context.Background(), key)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(data), info
}

func keys(t *testing.T, s objstore.Store, prefix, after string) []string {
	t.Helper()
	out := []string{}
	for info, err := range s.List(context.Background(), prefix, after) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, info.Key)
	}
	return out
}

func testGetPut(t *testing.T, s objstore.Store) {
	for _, data := range []string{"", "x", strings.Repeat("0123456789abcdef", 1<<16)} {
		put(t, s, "a/b/c.txt", data)
		got, info := get(t, s, "a/b/c.txt")
		if got != data {
			t.Fatalf("%d bytes read, %d written", len(got), len(data))
		}
		if info.Key != "a/b/c.txt" || info.Size != int64(len(data)) || time.Since(info.ModTime) > time.Hour {
			t.Fatalf("info %+v", info)
		}
		st, err := s.Stat(context.Background(), "a/b/c.txt")
		if err != nil || st.Size != info.Size || !st.ModTime.Equal(info.ModTime) || st.ETag != info.ETag {
			t.Fatalf("stat %+v, get %+v: %v", st, info, err)
		}
	}
	if !strings.Contains(s.URL(), ":") {
		t.Errorf("URL %q has no scheme", s.URL())
	}
}

func testMissing(t *testing.T, s objstore.Store) {
	ctx := context.Background()
	put(t, s, "folder/file", "x")
	for _, key := range []string{"nothing", "folder", "folder/nothing", "folder/file/below"} {
		if _, _, err := s.Get(ctx, key); !errors.Is(err, objstore.ErrNotFound) || !strings.Contains(err.Error(), key) {
			t.Errorf("Get %s: %v", key, err)
		}
		if _, err := s.GetRange(ctx, key, 0, 1); !errors.Is(err, objstore.ErrNotFound) {
			t.Errorf("GetRange %s: %v", key, err)
		}
		if _, err := s.Stat(ctx, key); !errors.Is(err, objstore.ErrNotFound) {
			t.Errorf("Stat %s: %v", key, err)
		}
		if err := s.Delete(ctx, key); err != nil {
			t.Errorf("Delete %s: %v", key, err)
		}
	}
	if got := keys(t, s, "nothing/", ""); len(got) != 0 {
		t.Errorf("List of nothing: %v", got)
	}
	if got, _ := get(t, s, "folder/file"); got != "x" {
		t.Errorf("the file is now %q", got)
	}
}

func testRange(t *testing.T, s objstore.Store) {
	ctx := context.Background()
	put(t, s, "r", "0123456789")
	for _, c := range []struct {
		offset, n int64
		want      string
	}{
		{0, 3, "012"}, {3, 4, "3456"}, {8, 10, "89"}, {0, -1, "0123456789"}, {4, -1, "456789"}, {-4, -1, "6789"}, {-4, 2, "67"},
		{10, 5, ""}, {0, 0, ""}, {-100, 3, "012"},
	} {
		got, err := s.GetRange(ctx, "r", c.offset, c.n)
		if err != nil || string(got) != c.want {
			t.Errorf("GetRange(%d, %d) = %q, %v; want %q", c.offset, c.n, got, err, c.want)
		}
	}
	if _, err := s.GetRange(ctx, "r", 11, 1); err == nil {
		t.Error("a range behind the end is no error")
	}
}

func testPutIfAbsent(t *testing.T, s objstore.Store) {
	ctx := context.Background()
	if err := s.PutIfAbsent(ctx, "d/k", []byte("first")); err != nil {
		t.Fatal(err)
	}
	err := s.PutIfAbsent(ctx, "d/k", []byte("second"))
	if !errors.Is(err, objstore.ErrExists) || !strings.Contains(err.Error(), "d/k") {
		t.Fatalf("second put: %v", err)
	}
	if got, _ := get(t, s, "d/k"); got != "first" {
		t.Fatalf("content %q", got)
	}
	if got := keys(t, s, "", ""); !slices.Equal(got, []string{"d/k"}) {
		t.Fatalf("objects %v", got)
	}
}

func testPutIfAbsentRace(t *testing.T, s objstore.Store) {
	ctx := context.Background()
	for round := range 10 {
		key := fmt.Sprintf("race/%d", round)
		const n = 8
		var wg sync.WaitGroup
		errs := make([]error, n)
		start := make(chan struct{})
		for i := range n {
			wg.Go(func() {
				<-start
				errs[i] = s.PutIfAbsent(ctx, key, bytes.Repeat([]byte{byte('a' + i)}, 10_000))
			})
		}
		close(start)
		wg.Wait()
		winner := -1
		for i, err := range errs {
			switch {
			case err == nil && winner >= 0:
				t.Fatalf("%d and %d both won", winner, i)
			case err == nil:
				winner = i
			case !errors.Is(err, objstore.ErrExists):
				t.Fatal(err)
			}
		}
		if winner < 0 {
			t.Fatal("nobody won")
		}
		if got, _ := get(t, s, key); got != strings.Repeat(string(rune('a'+winner)), 10_000) {
			t.Fatal("not the winner's bytes")
		}
	}
}

var errReader = errors.New("the reader fails")

// testPutFailingReader: a put whose source fails leaves what was there, and nothing else.
func testPutFailingReader(t *testing.T, s objstore.Store) {
	put(t, s, "p", "old")
	for _, key := range []string{"p", "q"} {
		r := io.MultiReader(strings.NewReader(strings.Repeat("new", 100_000)), failingReader{})
		if err := s.Put(context.Background(), key, r, objstore.PutOptions{}); !errors.Is(err, errReader) {
			t.Fatalf("put %s: %v", key, err)
		}
	}
	if got, _ := get(t, s, "p"); got != "old" {
		t.Fatalf("content of %d bytes", len(got))
	}
	if got := keys(t, s, "", ""); !slices.Equal(got, []string{"p"}) {
		t.Fatalf("objects %v", got)
	}
}

type failingReader struct{}

// Read fails.
func (failingReader) Read([]byte) (int, error) { return 0, errReader }

func testModTime(t *testing.T, s objstore.Store) {
	want := time.Date(2021, 3, 4, 5, 6, 7, 8000, time.UTC)
	if err := s.Put(context.Background(), "m", strings.NewReader("x"), objstore.PutOptions{ModTime: want}); err != nil {
		t.Fatal(err)
	}
	st, err := s.Stat(context.Background(), "m")
	if err != nil || !st.ModTime.Truncate(time.Microsecond).Equal(want) {
		t.Fatalf("time %v, want %v (%v)", st.ModTime, want, err)
	}
	r, info, err := s.Get(context.Background(), "m")
	if err != nil || !info.ModTime.Equal(st.ModTime) {
		t.Fatalf("got with time %v: %v", info.ModTime, err)
	}
	r.Close()
	listed := 0
	for info, err := range s.List(context.Background(), "m", "") {
		// A server that cannot list it says when the object was written, and then an ETag tells what has changed.
		writing := info.ETag != "" && time.Since(info.ModTime) < time.Hour
		if listed++; err != nil || !info.ModTime.Equal(st.ModTime) && !writing || !objstore.SameContent(info, st) {
			t.Fatalf("listed %+v, described as %+v: %v", info, st, err)
		}
	}
	if listed != 1 {
		t.Fatalf("%d objects listed", listed)
	}
}

func testETag(t *testing.T, s objstore.Store) {
	mod := time.Date(2021, 3, 4, 5, 6, 7, 0, time.UTC)
	last := ""
	for _, data := range []string{"aaa", "bbb", "cccc"} {
		if err := s.Put(context.Background(), "e", strings.NewReader(data), objstore.PutOptions{ModTime: mod}); err != nil {
			t.Fatal(err)
		}
		_, info := get(t, s, "e")
		if info.ETag == "" {
			return
		}
		if info.ETag == last {
			t.Fatalf("ETag %q stayed when the content became %q", last, data)
		}
		last = info.ETag
	}
}

func testList(t *testing.T, s objstore.Store) {
	// "-" and "." sort before "/", digits and letters behind it: folders must not be walked one after the other.
	all := []string{"a-b", "a.b", "a/x", "a/y/z", "a0", "a/y-1", "a/y", "b/_c/d", "b/é", "B", "a b/c", "a/.hidden", "_delta_log/00000000000000000001.json"}
	sorted := []string{}
	for _, k := range all {
		if k == "a/y" {
			continue // cannot stand beside "a/y/z" on a file system
		}
		put(t, s, k, k)
		sorted = append(sorted, k)
	}
	sort.Strings(sorted)
	for _, prefix := range []string{"", "a", "a/", "a/y", "a/y/", "b/", "a.", "zz", "a/x"} {
		for _, after := range append([]string{"", "a", "a/", "a/y", "a/zzz", "zzz"}, sorted...) {
			want := []string{}
			for _, k := range sorted {
				if strings.HasPrefix(k, prefix) && k > after {
					want = append(want, k)
				}
			}
			if got := keys(t, s, prefix, after); !slices.Equal(got, want) {
				t.Errorf("List(%q, %q) = %q, want %q", prefix, after, got, want)
			}
		}
	}
}

func testListEarlyStop(t *testing.T, s objstore.Store) {
	for i := range 20 {
		put(t, s, fmt.Sprintf("d%d/%02d", i%3, i), "x")
	}
	n := 0
	for _, err := range s.List(context.Background(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 5 {
			break
		}
	}
	if n != 5 {
		t.Fatalf("%d objects", n)
	}
}

func testListProperty(t *testing.T, s objstore.Store) {
	round := 0
	rapid.Check(t, func(t *rapid.T) {
		round++
		root := fmt.Sprintf("r%d/", round)
		have := map[string]bool{}
		for range rapid.IntRange(1, 12).Draw(t, "objects") {
			parts := rapid.SliceOfN(rapid.StringMatching(`[a-c./_=% -]{0,2}[a-c0]`), 1, 3).Draw(t, "parts")
			key := root + strings.ReplaceAll(strings.Join(parts, "/"), "//", "/")
			key = strings.ReplaceAll(key, "/./", "/x/")
			key = strings.ReplaceAll(key, "/../", "/y/")
			bad := false
			for other := range have {
				if strings.HasPrefix(other, key+"/") || strings.HasPrefix(key, other+"/") {
					bad = true // a file cannot also be a folder
				}
			}
			for _, p := range strings.Split(key, "/") {
				bad = bad || p == "" || p == "." || p == ".."
			}
			if bad {
				continue
			}
			if err := s.Put(context.Background(), key, strings.NewReader("x"), objstore.PutOptions{}); err != nil {
				t.Fatal(err)
			}
			have[key] = true
		}
		prefix := root + rapid.StringMatching(`[a-c./]{0,3}`).Draw(t, "prefix")
		if strings.Contains(prefix, "..") || strings.Contains(prefix, "/./") || strings.Contains(prefix, "//") {
			prefix = root
		}
		after := root + rapid.StringMatching(`[a-c./-]{0,3}`).Draw(t, "after")
		want := []string{}
		for k := range have {
			if strings.HasPrefix(k, prefix) && k > after {
				want = append(want, k)
			}
		}
		sort.Strings(want)
		got := []string{}
		for info, err := range s.List(context.Background(), prefix, after) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, info.Key)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("List(%q, %q) = %q, want %q", prefix, after, got, want)
		}
	})
}

func testKeys(t *testing.T, s objstore.Store) {
	for _, key := range []string{"event_date=2024-08-20/part 1%3A+é&?#.parquet", "x/" + strings.Repeat("n", 200), "a\\b", "sp ace /x"} {
		put(t, s, key, key)
		if got, _ := get(t, s, key); got != key {
			t.Errorf("%q holds %q", key, got)
		}
		if got := keys(t, s, key, ""); !slices.Equal(got, []string{key}) {
			t.Errorf("%q is listed as %q", key, got)
		}
	}
	for _, key := range []string{"", "/abs", "a//b", "../up", "a/../../up", "a/", "./a", "a\x00b"} {
		if err := s.Put(context.Background(), key, strings.NewReader("x"), objstore.PutOptions{}); err == nil {
			t.Errorf("put of key %q is no error", key)
		}
		if err := s.PutIfAbsent(context.Background(), key, nil); err == nil {
			t.Errorf("conditional put of key %q is no error", key)
		}
		if _, _, err := s.Get(context.Background(), key); err == nil {
			t.Errorf("get of key %q is no error", key)
		}
	}
}

func testDelete(t *testing.T, s objstore.Store) {
	ctx := context.Background()
	put(t, s, "d/x", "1")
	put(t, s, "d/y", "2")
	for range 2 {
		if err := s.Delete(ctx, "d/x"); err != nil {
			t.Fatal(err)
		}
	}
	if got := keys(t, s, "", ""); !slices.Equal(got, []string{"d/y"}) {
		t.Fatalf("objects %v", got)
	}
	// The name is free again, for a conditional put too.
	if err := s.PutIfAbsent(ctx, "d/x", []byte("3")); err != nil {
		t.Fatal(err)
	}
}

func testCancel(t *testing.T, s objstore.Store) {
	put(t, s, "c", "x")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := s.Get(ctx, "c"); !errors.Is(err, context.Canceled) {
		t.Errorf("Get: %v", err)
	}
	if err := s.Put(ctx, "c2", strings.NewReader("x"), objstore.PutOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Put: %v", err)
	}
	if err := s.PutIfAbsent(ctx, "c3", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("PutIfAbsent: %v", err)
	}
	for _, err := range s.List(ctx, "", "") {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("List: %v", err)
		}
	}
	if got := keys(t, s, "", ""); !slices.Equal(got, []string{"c"}) {
		t.Errorf("objects %v", got)
	}
}

// testReadersSeeWhole: while an object is replaced again and again, a reader sees one version whole.
func testReadersSeeWhole(t *testing.T, s objstore.Store) {
	const size = 200_000
	put(t, s, "w", strings.Repeat("a", size))
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 20 {
			if err := s.Put(context.Background(), "w", strings.NewReader(strings.Repeat(string(rune('a'+i%26)), size)), objstore.PutOptions{}); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 40 {
		got, _ := get(t, s, "w")
		if len(got) != size || strings.Count(got, got[:1]) != size {
			t.Fatalf("a reader saw a part of an object: %d bytes, %d of them %q, end %q", len(got), strings.Count(got, got[:1]), got[:1], got[len(got)-1:])
		}
	}
	wg.Wait()
}

// testLarge: an object of many parts arrives whole, can be read anywhere, and one that fails in a late part leaves nothing.
func testLarge(t *testing.T, s objstore.Store) {
	ctx := context.Background()
	data := make([]byte, 19<<20+7)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(data)
	mod := time.Date(2021, 3, 4, 5, 6, 7, 0, time.UTC)
	// A reader without a length, in small reads, as a decompressor gives them.
	if err := s.Put(ctx, "large", iotest.HalfReader(bytes.NewReader(data)), objstore.PutOptions{ModTime: mod}); err != nil {
		t.Fatal(err)
	}
	got, info := get(t, s, "large")
	if got != string(data) {
		t.Fatalf("%d bytes came back, or others", len(got))
	}
	if info.Size != int64(len(data)) || !info.ModTime.Equal(mod) {
		t.Fatalf("info %+v", info)
	}
	for _, at := range []int64{0, 8<<20 - 3, 16<<20 - 1, int64(len(data)) - 5} {
		got, err := s.GetRange(ctx, "large", at, 1000)
		if err != nil || !bytes.Equal(got, data[at:min(at+1000, int64(len(data)))]) {
			t.Fatalf("%d bytes at %d: %v", len(got), at, err)
		}
	}
	fails := io.MultiReader(bytes.NewReader(data[:17<<20]), failingReader{})
	if err := s.Put(ctx, "large", fails, objstore.PutOptions{}); !errors.Is(err, errReader) {
		t.Fatalf("put: %v", err)
	}
	if got, _ := get(t, s, "large"); got != string(data) {
		t.Fatal("a put that failed changed the object")
	}
	if sw, ok := s.(objstore.Sweeper); ok {
		left, err := sw.Sweep(ctx, "", time.Now().Add(time.Hour), true)
		if err != nil || len(left) > 0 {
			t.Fatalf("a put that failed left %v: %v", left, err)
		}
	}
	if got := keys(t, s, "", ""); !slices.Equal(got, []string{"large"}) {
		t.Fatalf("objects %v", got)
	}
}

// testManyKeys: a listing of more than one page is complete and in order, from any start.
func testManyKeys(t *testing.T, s objstore.Store) {
	const n = 1_203
	want := make([]string, n)
	var g errgroup.Group
	g.SetLimit(16)
	for i := range want {
		want[i] = fmt.Sprintf("many/%c/%05d", 'a'+i/500, i)
		g.Go(func() error {
			return s.Put(context.Background(), want[i], strings.NewReader("x"), objstore.PutOptions{})
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, from := range []int{0, 1, 499, 500, 1000, 1100, n - 1} {
		after := ""
		if from > 0 {
			after = want[from-1]
		}
		if got := keys(t, s, "many/", after); !slices.Equal(got, want[from:]) {
			t.Fatalf("from %d on: %d objects are listed, want %d", from, len(got), n-from)
		}
	}
	if got := keys(t, s, "many/b/", ""); !slices.Equal(got, want[500:1000]) {
		t.Fatalf("%d objects below many/b/", len(got))
	}
}

func testLocalPath(t *testing.T, s objstore.Store) {
	l, ok := s.(objstore.LocalPather)
	if !ok {
		return
	}
	put(t, s, "l/x", "1")
	if err := l.Sync(context.Background(), "l/x"); err != nil {
		t.Fatal(err)
	}
	if err := l.Sync(context.Background(), "l/missing"); !errors.Is(err, objstore.ErrNotFound) {
		t.Fatalf("sync of a missing file: %v", err)
	}
	if !strings.HasSuffix(l.LocalPath("l/x"), "x") {
		t.Fatal(l.LocalPath("l/x"))
	}
}
