package csv

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/pipeline"
)

// shelf is a store of one version of each object, with a hook that runs when an object has been read to its end.
type shelf struct {
	objstore.Store
	files map[string][]byte
	mod   time.Time
	read  func()
	fail  error
}

func (s *shelf) Stat(_ context.Context, key string) (objstore.Info, error) {
	b, ok := s.files[key]
	if !ok {
		return objstore.Info{}, fmt.Errorf("%s: %w", key, objstore.ErrNotFound)
	}
	return objstore.Info{Key: key, Size: int64(len(b)), ModTime: s.mod}, nil
}

func (s *shelf) Get(ctx context.Context, key string) (io.ReadCloser, objstore.Info, error) {
	info, err := s.Stat(ctx, key)
	if err != nil {
		return nil, info, err
	}
	r := io.Reader(bytes.NewReader(s.files[key]))
	if s.fail != nil {
		r = io.MultiReader(io.LimitReader(r, 3), failing{s.fail})
	}
	return io.NopCloser(&atEnd{r, s.read}), info, nil
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

type atEnd struct {
	r  io.Reader
	do func()
}

func (a *atEnd) Read(p []byte) (int, error) {
	n, err := a.r.Read(p)
	if errors.Is(err, io.EOF) && a.do != nil {
		a.do()
		a.do = nil
	}
	return n, err
}

// folder is a store whose objects are plain files.
type folder struct {
	objstore.Store
	root string
}

func (f folder) LocalPath(key string) string           { return filepath.Join(f.root, key) }
func (f folder) Sync(context.Context, ...string) error { return nil }
func (f folder) write(t *testing.T, key string, b []byte) {
	t.Helper()
	must(t, os.WriteFile(f.LocalPath(key), b, 0o600))
}
func (f folder) List(context.Context, string, string) iter.Seq2[objstore.Info, error] { return nil }

func (f folder) Stat(_ context.Context, key string) (objstore.Info, error) {
	st, err := os.Stat(f.LocalPath(key))
	if errors.Is(err, os.ErrNotExist) {
		return objstore.Info{}, fmt.Errorf("%s: %w", key, objstore.ErrNotFound)
	}
	if err != nil {
		return objstore.Info{}, err
	}
	return objstore.Info{Key: key, Size: st.Size(), ModTime: st.ModTime()}, nil
}

func (f folder) Get(ctx context.Context, key string) (io.ReadCloser, objstore.Info, error) {
	info, err := f.Stat(ctx, key)
	if err != nil {
		return nil, info, err
	}
	r, err := os.Open(f.LocalPath(key))
	return r, info, err
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func gz(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(b)
	w.Close()
	return out.Bytes()
}

func zst(b []byte) []byte {
	w, _ := zstd.NewWriter(nil)
	return w.EncodeAll(b, nil)
}

func zipOf(members ...string) []byte { // name, content, name, content …
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for i := 0; i < len(members); i += 2 {
		m, _ := w.Create(members[i])
		io.WriteString(m, members[i+1])
	}
	w.Close()
	return out.Bytes()
}

var std = pipeline.CSV{Delimiter: ',', Quote: '"', Header: pipeline.HeaderAuto, Encoding: "utf-8", Multiline: true}

func open(t *testing.T, o Options, s objstore.Store, key string, c pipeline.CSV) (*pipeline.RawFile, error) {
	t.Helper()
	if o.TempDir == "" {
		o.TempDir = t.TempDir()
	}
	f, err := NewOpener(o).Open(context.Background(), s, objstore.Info{Key: key}, &pipeline.Source{Name: "history", CSV: c})
	if err != nil {
		if left, _ := os.ReadDir(o.TempDir); len(left) > 0 {
			t.Errorf("an error left %d files behind", len(left))
		}
		if !strings.HasPrefix(err.Error(), key+": ") {
			t.Errorf("the error does not name the file: %v", err)
		}
		return nil, err
	}
	t.Cleanup(func() {
		must(t, f.Close())
		if left, _ := os.ReadDir(o.TempDir); len(left) > 0 {
			t.Errorf("Close left %d files behind", len(left))
		}
	})
	return f, nil
}

// text renders what a file gives: its fields, and each record.
func text(t *testing.T, f *pipeline.RawFile) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", strings.Join(f.Fields, "|"))
	for r, err := range f.Rows(context.Background()) {
		must(t, err)
		fmt.Fprintf(&b, "%d: %s%s\n", r.Position, strings.Join(r.Values, "|"), r.Err)
	}
	return b.String()
}

func TestOpenMakesEveryPackingReadable(t *testing.T) {
	const plain = "id,name\n1,Peña\n2,\"a\nb\"\n"
	const want = "id|name\n1: 1|Peña\n2: 2|a\nb\n"
	latin := []byte("id,name\n1,Pe\xf1a\n2,\"a\nb\"\n")
	var wide []byte
	for _, c := range plain {
		wide = append(wide, byte(c), byte(c>>8))
	}
	windows := std
	windows.Encoding = "windows-1252"
	utf16 := std
	utf16.Encoding = "utf-16le"
	for _, c := range []struct {
		key     string
		content []byte
		csv     pipeline.CSV
		inPlace bool
	}{
		{"a.csv", []byte(plain), std, true},
		{"bom.csv", []byte("\ufeff" + plain), std, false},
		{"a.csv.gz", gz([]byte(plain)), std, false},
		{"A.CSV.GZ", gz([]byte(plain)), std, false},
		{"two.csv.gz", append(gz([]byte(plain[:10])), gz([]byte(plain[10:]))...), std, false},
		{"a.csv.zst", zst([]byte(plain)), std, false},
		{"a.zip", zipOf("folder/", "", "folder/a.csv", plain, "__MACOSX/._a.csv", "x", ".hidden", "x"), std, false},
		{"latin.csv", latin, windows, false},
		{"latin.csv.gz", gz(latin), windows, false},
		{"marked.csv", append([]byte("\xff\xfe"), wide...), std, false},
		{"wide.csv", wide, utf16, false},
		{"bom wins.csv", []byte("\ufeff" + plain), windows, false},
	} {
		mod := time.Date(2024, 8, 21, 1, 2, 3, 456789000, time.UTC)
		local := folder{root: t.TempDir()}
		local.write(t, c.key, c.content)
		must(t, os.Chtimes(local.LocalPath(c.key), mod, mod))
		for name, store := range map[string]objstore.Store{
			"local":  local,
			"remote": &shelf{files: map[string][]byte{c.key: c.content}, mod: mod},
		} {
			t.Run(c.key+"/"+name, func(t *testing.T) {
				f, err := open(t, Options{}, store, c.key, c.csv)
				must(t, err)
				if got := text(t, f); got != want {
					t.Errorf("got %q", got)
				}
				sum := sha256.Sum256(c.content)
				full := hex.EncodeToString(sum[:])
				if f.SHA256 != full || f.Origin != "f:"+full[:16] || f.Size != int64(len(c.content)) ||
					f.Generation != mod.UnixMicro() || f.Name != c.key || !f.Plain || !f.HasHeader {
					t.Errorf("identity: %+v", f)
				}
				if inPlace := f.Path == local.LocalPath(c.key); inPlace != (c.inPlace && name == "local") {
					t.Errorf("read in place: %v", inPlace)
				}
				staged, err := os.ReadFile(f.Path)
				must(t, err)
				if string(staged) != plain {
					t.Errorf("staged %q", staged)
				}
			})
		}
	}
}

// TestCarriageReturnsEndLines: without an LF in the file they do, whatever packs it.
func TestCarriageReturnsEndLines(t *testing.T) {
	for key, content := range map[string][]byte{"a.csv": []byte("id,name\r1,x\r2,\"a\rb\"\r"), "a.csv.gz": gz([]byte("id,name\r1,x\r2,\"a\rb\"\r"))} {
		local := folder{root: t.TempDir()}
		local.write(t, key, content)
		f, err := open(t, Options{}, local, key, std)
		must(t, err)
		if got, want := text(t, f), "id|name\n1: 1|x\n2: 2|a\nb\n"; got != want || !f.Plain {
			t.Errorf("%s: %q", key, got)
		}
		sum := sha256.Sum256(content)
		if f.SHA256 != hex.EncodeToString(sum[:]) {
			t.Errorf("%s: the hash is not that of the original", key)
		}
	}
	mixed := std
	mixed.Columns = []string{"id", "name"}
	f, err := open(t, Options{}, &shelf{files: map[string][]byte{"a.csv": []byte("id,name\n1,x\r2,y\n3,z\n")}}, "a.csv", mixed)
	must(t, err)
	if got := text(t, f); !strings.Contains(got, "1: the record has 3 fields, expected 2\n2: 3|z\n") {
		t.Errorf("a CR within a line: %q", got)
	}
}

func TestOpenRefuses(t *testing.T) {
	broken := gz(bytes.Repeat([]byte("id,name\n1,2\n"), 5000))
	flipped := slices.Clone(broken)
	flipped[len(flipped)-6] ^= 1
	badZip := zipOf("a.csv", strings.Repeat("id,name\n", 1000))
	badZip[60] ^= 0xff
	noise := make([]byte, 5000)
	r := rand.NewChaCha8([32]byte{})
	r.Read(noise)
	headless := std
	headless.Header = pipeline.HeaderFalse
	unknown := std
	unknown.Encoding = "klingon"
	for _, c := range []struct {
		name, key string
		content   []byte
		csv       pipeline.CSV
		want      error
		says      string
	}{
		{"cut gzip", "a.csv.gz", broken[:len(broken)/2], std, ErrCorrupt, "unexpected EOF"},
		{"flipped gzip", "a.csv.gz", flipped, std, ErrCorrupt, "checksum"},
		{"no gzip", "a.csv.gz", []byte("id,name\n1,2\n"), std, ErrCorrupt, "gzip"},
		{"no zstd", "a.csv.zst", []byte("id,name\n1,2\n"), std, ErrCorrupt, "zstd"},
		{"cut zstd", "a.csv.zst", zst(noise)[:2000], std, ErrCorrupt, "zstd"},
		{"no zip", "a.zip", []byte("id,name\n1,2\n"), std, ErrCorrupt, "zip"},
		{"damaged zip", "a.zip", badZip, std, ErrCorrupt, "zip"},
		{"two members", "a.zip", zipOf("a.csv", "x", "b.csv", "y"), std, ErrArchive, "a.csv, b.csv"},
		{"no member", "a.zip", zipOf("x/", ""), std, ErrArchive, "none"},
		{"hidden gzip", "a.csv", broken, std, ErrNotText, ".gz"},
		{"parquet", "a.csv", []byte("PAR1\x15\x04\x15"), std, ErrNotText, "Parquet"},
		{"nul", "a.csv", []byte("id,name\n1,\x002\n"), std, ErrNotText, "byte 10 is NUL"},
		{"noise", "a.csv", bytes.ReplaceAll(noise, []byte{0}, []byte{1}), std, ErrNotText, "control characters"},
		{"noise in gzip", "a.csv.gz", gz(noise), std, ErrNotText, "NUL"},
		{"encoding", "a.csv", []byte("id\n1\n"), unknown, ErrEncoding, "klingon"},
		{"name twice", "a.csv", []byte("id,id\n1,2\n"), std, ErrHeader, `"id" twice`},
		{"bad header", "a.csv", []byte("id,\"na\"me\n1,2\n"), std, ErrHeader, "line 1"},
		{"mixed line ends", "a.csv", []byte("id,name\r1,2\n3,4\n"), std, ErrLineEnds, "line 1 holds a CR"},
		{"no names", "a.csv", []byte("1,2\n"), headless, ErrHeader, "csv.columns"},
	} {
		t.Run(c.name, func(t *testing.T) {
			local := folder{root: t.TempDir()}
			local.write(t, c.key, c.content)
			for _, s := range []objstore.Store{local, &shelf{files: map[string][]byte{c.key: c.content}}} {
				_, err := open(t, Options{}, s, c.key, c.csv)
				if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("got %v", err)
				}
			}
		})
	}
}

func TestOpenEmpty(t *testing.T) {
	columns := std
	columns.Columns = []string{"a", "b"}
	for key, content := range map[string]string{
		"empty.csv": "", "bom.csv": "\ufeff", "blank.csv": "\n\r\n", "empty.csv.gz": "", "empty.gz": string(gz(nil)), "empty.zip": "", "e.zip": string(zipOf("a.csv", "")),
	} {
		f, err := open(t, Options{RawFields: func(*pipeline.Source) []string { return []string{"a"} }}, &shelf{files: map[string][]byte{key: []byte(content)}}, key, columns)
		must(t, err)
		if got := text(t, f); got != "a|b\n" || f.HasHeader {
			t.Errorf("%s: %q", key, got)
		}
	}
	f, err := open(t, Options{}, &shelf{files: map[string][]byte{"h.csv": []byte("a,b")}}, "h.csv", std)
	must(t, err)
	if got := text(t, f); got != "a|b\n" || !f.HasHeader {
		t.Errorf("only a header: %q", got)
	}
}

func TestHeader(t *testing.T) {
	columns := std
	columns.Columns = []string{"id", "price"}
	columns.Optional = []string{"side"}
	always, never := columns, columns
	always.Header, never.Header = pipeline.HeaderTrue, pipeline.HeaderFalse
	for _, c := range []struct {
		in   string
		csv  pipeline.CSV
		want string
	}{
		{"price,id\n2,1\n", columns, "price|id\n1: 2|1\n"},
		{" Price , id \n2,1\n", columns, "Price|id\n1: 2|1\n"},
		{"1,2\n3,4\n", columns, "id|price\n1: 1|2\n2: 3|4\n"},
		{"side,x\nbuy,1\n", columns, "side|x\n1: buy|1\n"},
		{"x,y\n1,2\n", always, "x|y\n1: 1|2\n"},
		{"id,price\n1,2\n", never, "id|price\n1: id|price\n2: 1|2\n"},
		{"a,,b,\n1,2,3,4\n", std, "a|column_2|b|column_4\n1: 1|2|3|4\n"},
		{"1,\"x\"y\n3,4\n", columns, "id|price\n1: a quote inside a quoted field is not doubled\n2: 3|4\n"},
	} {
		f, err := open(t, Options{}, &shelf{files: map[string][]byte{"a.csv": []byte(c.in)}}, "a.csv", c.csv)
		must(t, err)
		if got := text(t, f); got != c.want {
			t.Errorf("%q: got %q", c.in, got)
		}
	}
	needs := Options{RawFields: func(*pipeline.Source) []string { return []string{"id", "qty", "side"} }}
	_, err := open(t, needs, &shelf{files: map[string][]byte{"a.csv": []byte("id,price,price\n1,2,3\n")}}, "a.csv", columns)
	if !errors.Is(err, ErrMissingField) || !strings.Contains(err.Error(), "missing: qty; the file has id, price, price_3") {
		t.Errorf("got %v", err)
	}
}

func TestUndefinedBytesMakeABadRecord(t *testing.T) {
	japanese := std
	japanese.Encoding = "shift_jis"
	in := []byte("id,name\n1,\x93\xfa\x96\x7b\n2,\xff\xff\n3,x\n")
	f, err := open(t, Options{}, &shelf{files: map[string][]byte{"a.csv": in}}, "a.csv", japanese)
	must(t, err)
	want := "id|name\n1: 1|日本\n2: the record is not valid shift_jis at its byte 3\n3: 3|x\n"
	if got := text(t, f); got != want || f.Plain {
		t.Errorf("got %q, plain %v", got, f.Plain)
	}
}

func TestChangedWhileRead(t *testing.T) {
	for key, content := range map[string][]byte{"a.csv": []byte("id\n1\n"), "a.csv.gz": gz([]byte("id\n1\n"))[:15], "a.zip": zipOf("a.csv", "id\n")} {
		s := &shelf{files: map[string][]byte{key: content}}
		s.read = func() { s.mod = s.mod.Add(time.Second) }
		s.fail = nil
		if _, err := open(t, Options{}, s, key, std); !errors.Is(err, pipeline.ErrChanged) {
			t.Errorf("%s: got %v", key, err)
		}
	}
	// A file that is read in place may change later: readers must not miss it.
	local := folder{root: t.TempDir()}
	local.write(t, "a.csv", []byte("id\n1\n2\n"))
	f, err := open(t, Options{}, local, "a.csv", std)
	must(t, err)
	must(t, f.Unchanged(context.Background()))
	local.write(t, "a.csv", []byte("id\n1\n2\n3\n"))
	if err := f.Unchanged(context.Background()); !errors.Is(err, pipeline.ErrChanged) {
		t.Errorf("got %v", err)
	}
	var last error
	for _, err := range f.Rows(context.Background()) {
		last = err
	}
	if !errors.Is(last, pipeline.ErrChanged) {
		t.Errorf("rows ended with %v", last)
	}
	must(t, os.Remove(local.LocalPath("a.csv")))
	for _, err := range f.Rows(context.Background()) {
		last = err
	}
	if !errors.Is(last, pipeline.ErrChanged) {
		t.Errorf("rows of a removed file ended with %v", last)
	}
}

func TestStoreErrorsPassThrough(t *testing.T) {
	broken := errors.New("cable cut")
	for key, content := range map[string][]byte{"a.csv": []byte("id\n1\n"), "a.csv.gz": gz([]byte("id\n1\n")), "a.csv.zst": zst([]byte("id\n1\n")), "a.zip": zipOf("a.csv", "id\n")} {
		_, err := open(t, Options{}, &shelf{files: map[string][]byte{key: content}, fail: broken}, key, std)
		if !errors.Is(err, broken) || errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: got %v", key, err)
		}
	}
	if _, err := open(t, Options{}, &shelf{}, "a.csv", std); !errors.Is(err, objstore.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	local := folder{root: t.TempDir()}
	must(t, os.Symlink("nowhere.csv", local.LocalPath("link.csv")))
	if _, err := open(t, Options{}, local, "link.csv", std); !errors.Is(err, ErrDangling) || !strings.Contains(err.Error(), "nowhere.csv") {
		t.Errorf("got %v", err)
	}
}

func TestDecompressedSizeIsBounded(t *testing.T) {
	big := gz(bytes.Repeat([]byte("id,name\n"), 1<<17))
	_, err := open(t, Options{StagedBytesMax: 1 << 16}, &shelf{files: map[string][]byte{"a.csv.gz": big}}, "a.csv.gz", std)
	if !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
}

func TestRowsAt(t *testing.T) {
	in := "id,name\n" + "1,a\n2,\"b\n\"\n3,c,d\n4,e\n5,f"
	f, err := open(t, Options{}, &shelf{files: map[string][]byte{"a.csv": []byte(in)}}, "a.csv", std)
	must(t, err)
	var all, some []pipeline.RawRow
	for r, err := range f.Rows(context.Background()) {
		must(t, err)
		all = append(all, r)
	}
	for r, err := range f.RowsAt(context.Background(), []int64{2, 3, 3, 5, 9}) {
		must(t, err)
		some = append(some, r)
	}
	if len(all) != 5 || len(some) != 3 {
		t.Fatalf("%d and %d rows", len(all), len(some))
	}
	for i, p := range []int{2, 3, 5} {
		if fmt.Sprint(some[i]) != fmt.Sprint(all[p-1]) {
			t.Errorf("position %d: %+v, want %+v", p, some[i], all[p-1])
		}
	}
	if some[2].Warning == "" || some[1].Err == "" {
		t.Errorf("got %+v", some)
	}
}

func TestPlainMeansThatLinesEndAlike(t *testing.T) {
	for in, want := range map[string]bool{
		"a,b\n1,2\n": true, "a,b\r\n1,2\r\n": true, "a,b\r\n1,2\n": false, "a,b\n1,2\r3,4\n": false, "a\n\xff\n": false, "a\né\n": true, "a\n\xc3": false,
	} {
		var a analysis
		for i := range len(in) {
			must(t, a.add([]byte(in[i:i+1])))
		}
		var b analysis
		must(t, b.add([]byte(in)))
		if a.plain() != want || b.plain() != want {
			t.Errorf("%q: %v by bytes, %v at once", in, a.plain(), b.plain())
		}
	}
}

func TestStaleCopiesAreRemoved(t *testing.T) {
	dir := t.TempDir()
	gone := filepath.Join(dir, "cauce-csv-999999999-1")
	alive := filepath.Join(dir, fmt.Sprintf("cauce-csv-%d-1", os.Getpid()))
	other := filepath.Join(dir, "notes.txt")
	for _, n := range []string{gone, alive, other} {
		must(t, os.WriteFile(n, nil, 0o600))
	}
	f, err := NewOpener(Options{TempDir: dir}).Open(context.Background(), &shelf{files: map[string][]byte{"a.csv": []byte("a\n")}}, objstore.Info{Key: "a.csv"}, &pipeline.Source{CSV: std})
	must(t, err)
	must(t, f.Close())
	for n, want := range map[string]bool{gone: false, alive: true, other: true} {
		if _, err := os.Stat(n); (err == nil) != want {
			t.Errorf("%s: %v", filepath.Base(n), err)
		}
	}
}
