package objstore_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/objstore/fault"
	"github.com/cauce-data/cauce/objstore/storetest"
)

func newLocal(t *testing.T) (*objstore.Local, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "lake") // made with the first write
	s, err := objstore.NewLocal(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s, dir
}

func TestLocal(t *testing.T) {
	storetest.Run(t, func(t *testing.T) objstore.Store {
		s, _ := newLocal(t)
		return s
	})
}

func TestMemory(t *testing.T) {
	storetest.Run(t, func(t *testing.T) objstore.Store { return objstore.NewMemory(nil) })
}

// The fault store without rules is a store like any other.
func TestFaultStoreConforms(t *testing.T) {
	storetest.Run(t, func(t *testing.T) objstore.Store {
		return fault.New(objstore.NewMemory(nil))
	})
}

// PutHint is PutIfAbsent in all but durability.
func TestLocalPutHint(t *testing.T) {
	s, dir := newLocal(t)
	ctx := context.Background()
	if err := s.PutHint(ctx, "a/b", []byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := s.PutHint(ctx, "a/b", []byte("two")); !errors.Is(err, objstore.ErrExists) {
		t.Errorf("a second one: %v", err)
	}
	if err := s.PutIfAbsent(ctx, "a/b", []byte("two")); !errors.Is(err, objstore.ErrExists) {
		t.Errorf("PutIfAbsent over it: %v", err)
	}
	if b, err := s.GetRange(ctx, "a/b", 0, -1); err != nil || string(b) != "one" {
		t.Errorf("%q, error %v", b, err)
	}
	if entries, err := os.ReadDir(filepath.Join(dir, "a")); err != nil || len(entries) != 1 {
		t.Errorf("%v, error %v", entries, err)
	}
	if err := s.PutHint(ctx, "../b", nil); err == nil {
		t.Error("a key outside of the store was taken")
	}
}

func TestLocalLeavesNoTrace(t *testing.T) {
	s, dir := newLocal(t)
	ctx := context.Background()
	for range 3 {
		_ = s.PutIfAbsent(ctx, "a/b", []byte("x"))
		if err := s.Put(ctx, "a/c", strings.NewReader("y"), objstore.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(filepath.Join(dir, "a"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if !slices.Equal(names, []string{"b", "c"}) {
		t.Fatalf("files %v", names)
	}
}

func TestLocalLinks(t *testing.T) {
	s, dir := newLocal(t)
	ctx := context.Background()
	if err := s.Put(ctx, "raw/a.csv", strings.NewReader("abc"), objstore.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	elsewhere := t.TempDir()
	if err := os.WriteFile(filepath.Join(elsewhere, "b.csv"), []byte("b"), 0o666); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{
		"raw/link.csv": filepath.Join(elsewhere, "b.csv"), "raw/dangling.csv": filepath.Join(elsewhere, "nothing"),
		"raw/folder": elsewhere, "raw/loop": filepath.Join(dir, "raw"),
	} {
		if err := os.Symlink(target, filepath.Join(dir, filepath.FromSlash(name))); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for info, err := range s.List(ctx, "raw/", "") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, info.Key)
	}
	if want := []string{"raw/a.csv", "raw/dangling.csv", "raw/folder/b.csv", "raw/link.csv"}; !slices.Equal(got, want) {
		t.Fatalf("listed %v, want %v", got, want)
	}
	if _, _, err := s.Get(ctx, "raw/dangling.csv"); !errors.Is(err, objstore.ErrNotFound) {
		t.Fatal(err)
	}
	// A dangling link still holds its name against a conditional put.
	if err := s.PutIfAbsent(ctx, "raw/dangling.csv", nil); !errors.Is(err, objstore.ErrExists) {
		t.Fatal(err)
	}
}

func TestOpenURL(t *testing.T) {
	for in, want := range map[string]string{
		"file:/x/y": "/x/y", "file:///x/y": "/x/y", "file://localhost/x": "/x", "/x": "/x", "file:./x": "./x", "file:///a%20b": "/a b",
	} {
		got, err := objstore.FileURLPath(in)
		if err != nil || got != want {
			t.Errorf("%s = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"s3://bucket/x", "file://host/x", "file:", "file://host"} {
		if got, err := objstore.FileURLPath(in); err == nil {
			t.Errorf("%s = %q, want an error", in, got)
		}
	}
	f := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(f, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := objstore.Open(f); err == nil {
		t.Error("a file is opened as a store")
	}
	if _, err := objstore.Open(""); err == nil {
		t.Error("an empty path is opened as a store")
	}
}

// TestSweepFindsWhatAKilledWriterLeft makes the files as a Put leaves them that does not come to its end.
func TestSweepFindsWhatAKilledWriterLeft(t *testing.T) {
	s, dir := newLocal(t)
	ctx := context.Background()
	if err := s.Put(ctx, "table/day=1/part", strings.NewReader("row"), objstore.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(ctx, "table/_delta_log/0.json", strings.NewReader("{}"), objstore.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	for _, name := range []string{"table/.tmp-1", "table/day=1/.tmp-2", "table/_delta_log/.tmp-3", "table/day=1/.tmp-young", "tables/.tmp-4", ".tmp-5"} {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte("xy"), 0o644); err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(name, "young") {
			if err := os.Chtimes(p, old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	var sweeper objstore.Sweeper = s
	for _, want := range []struct {
		dry  bool
		keys []string
	}{
		{true, []string{"table/.tmp-1", "table/_delta_log/.tmp-3", "table/day=1/.tmp-2"}},
		{false, []string{"table/.tmp-1", "table/_delta_log/.tmp-3", "table/day=1/.tmp-2"}},
		{false, nil},
	} {
		swept, err := sweeper.Sweep(ctx, "table/", time.Now().Add(-time.Minute), want.dry)
		if err != nil {
			t.Fatal(err)
		}
		var keys []string
		for _, i := range swept {
			keys = append(keys, i.Key)
			if i.Size != 2 {
				t.Errorf("%s has %d bytes", i.Key, i.Size)
			}
		}
		slices.Sort(keys)
		if !slices.Equal(keys, want.keys) {
			t.Errorf("dry %v: %v, want %v", want.dry, keys, want.keys)
		}
	}
	for _, name := range []string{"table/day=1/part", "table/_delta_log/0.json", "table/day=1/.tmp-young", "tables/.tmp-4", ".tmp-5"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	if swept, err := sweeper.Sweep(ctx, "nothing/here/", time.Now(), false); err != nil || len(swept) > 0 {
		t.Errorf("a missing folder: %v, %v", swept, err)
	}
}
