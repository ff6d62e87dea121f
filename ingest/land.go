package ingest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/pipeline"
)

// LandingPath is the folder below the root in which files of history land.
const LandingPath = "raw/batch"

// LandOptions shape a landing. The zero value works.
type LandOptions struct {
	Dir string // folder below the root; "" means LandingPath
}

// What became of a file that was landed.
const (
	LandedNew       = "landed"
	LandedUnchanged = "unchanged" // the same content was there under the name
	LandedReplaced  = "replaced"  // another content was: the file is a re-issue
)

// LandReport says what was landed.
type LandReport struct {
	Files    []Landed `json:"files"`
	Warnings []string `json:"warnings"`
}

// Landed is one file of a LandReport.
type Landed struct {
	File   string `json:"file"` // as given
	Key    string `json:"key"`  // where it is now, below the root
	Status string `json:"status"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
	// Verified tells that a .CHECKSUM file beside the file agreed.
	Verified bool `json:"verified"`
}

// Land copies local files into the lake under their own names, each whole or not at all, with their modification time,
// which decides between a file and its re-issue (DESIGN D2). A file with a .CHECKSUM beside it must agree with it. The
// report is valid together with an error as well: it names the files that have landed.
func (l *Lake) Land(ctx context.Context, paths []string, o LandOptions) (*LandReport, error) {
	dir := strings.Trim(o.Dir, "/")
	if dir == "" {
		dir = LandingPath
	}
	r := &LandReport{Files: []Landed{}, Warnings: []string{}}
	from := map[string]string{}
	for _, p := range paths {
		key := path.Join(dir, filepath.Base(p))
		if first, ok := from[key]; ok && first != p {
			return r, &UsageError{fmt.Sprintf("%s and %s would both become %s; land them one after the other, or rename one", first, p, key)}
		}
		from[key] = p
	}
	var errs []error
	for _, p := range paths {
		f, err := l.landFile(ctx, p, path.Join(dir, filepath.Base(p)))
		if err != nil {
			errs = append(errs, err)
			if ctx.Err() != nil {
				break
			}
			continue
		}
		r.Files = append(r.Files, *f)
		if !l.somebodyReads(f.Key) {
			r.Warnings = append(r.Warnings, fmt.Sprintf("%s: no source of the lake file reads it", f.Key))
		}
	}
	return r, errors.Join(errs...)
}

func (l *Lake) somebodyReads(key string) bool {
	return slices.ContainsFunc(l.lake.Sources, func(s *pipeline.Source) bool { return !s.Streaming() && s.Matches(key) })
}

func (l *Lake) landFile(ctx context.Context, file, key string) (*Landed, error) {
	if Ignored(filepath.Base(file)) {
		return nil, fmt.Errorf("%s: files of that name are never read (hidden, unfinished or a checksum); rename it", file)
	}
	if err := nameable(key); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe that nobody writes to is not waited for
	if err != nil {
		return nil, err
	}
	defer f.Close()
	before, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a file", file)
	}
	want, err := checksumBeside(file)
	if err != nil {
		return nil, err
	}
	out := &Landed{File: file, Key: key, Status: LandedNew, Bytes: before.Size(), Verified: want != ""}

	had, err := l.store.Stat(ctx, key)
	switch {
	case err == nil && had.Size == before.Size():
		// The same bytes under the same name are no news, whatever their times say.
		sum, err := hashReader(f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		there, err := hashObject(ctx, l.store, key)
		if err != nil {
			return nil, err
		}
		if want != "" && sum != want {
			return nil, checksumError(file, want, sum)
		}
		if sum == there {
			out.Status, out.SHA256 = LandedUnchanged, sum
			return out, nil
		}
		out.Status = LandedReplaced
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
	case err == nil:
		out.Status = LandedReplaced
	case !errors.Is(err, objstore.ErrNotFound):
		return nil, err
	}
	mod := before.ModTime()
	if out.Status == LandedReplaced && !mod.After(had.ModTime) {
		// A re-issue goes before what it replaces; times that say otherwise come from a copy that lost them.
		mod = had.ModTime.Add(time.Microsecond)
	}
	v := &verifier{f: f, file: file, sum: sha256.New(), want: want, size: before.Size(), mod: before.ModTime()}
	if err := l.store.Put(ctx, key, v, objstore.PutOptions{ModTime: mod}); err != nil {
		return nil, fmt.Errorf("land %s: %w", file, err)
	}
	out.SHA256 = hex.EncodeToString(v.sum.Sum(nil))
	return out, nil
}

// verifier reads a local file and, at its end, fails instead of ending where the file changed meanwhile or does not
// agree with its checksum: the store then keeps nothing of it.
type verifier struct {
	f    *os.File
	file string
	sum  hash.Hash
	want string
	n    int64
	size int64
	mod  time.Time
}

func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.f.Read(p)
	v.sum.Write(p[:n])
	v.n += int64(n)
	if err != io.EOF {
		return n, err
	}
	now, serr := v.f.Stat()
	if serr != nil {
		return n, serr
	}
	if v.n != v.size || now.Size() != v.size || !now.ModTime().Equal(v.mod) {
		return n, fmt.Errorf("%s: changed while it was read; land it again when it is complete", v.file)
	}
	if got := hex.EncodeToString(v.sum.Sum(nil)); v.want != "" && got != v.want {
		return n, checksumError(v.file, v.want, got)
	}
	return n, io.EOF
}

func checksumError(file, want, got string) error {
	return fmt.Errorf("%s: SHA-256 is %s, but %s.CHECKSUM says %s; fetch the file again", file, got, filepath.Base(file), want)
}

// checksumBeside reads FILE.CHECKSUM ("<sha256>  <name>" a line, as sha256sum writes it); "" where there is none.
func checksumBeside(file string) (string, error) {
	name := file + ".CHECKSUM"
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	base := filepath.Base(file)
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		line, escaped := strings.CutPrefix(strings.TrimSpace(lines.Text()), `\`)
		if line == "" {
			continue
		}
		sum, of := line, ""
		if i := strings.IndexAny(line, " \t"); i >= 0 {
			sum, of = line[:i], strings.TrimPrefix(strings.TrimSpace(line[i:]), "*") // names may have spaces
		}
		if b, err := hex.DecodeString(sum); err != nil || len(b) != sha256.Size {
			return "", fmt.Errorf("%s: %q is no SHA-256", name, sum)
		}
		if escaped { // the name has a backslash or the end of a line in it
			of = strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\r`, "\r").Replace(of)
		}
		if of == "" || filepath.Base(of) == base {
			return strings.ToLower(sum), nil
		}
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return "", fmt.Errorf("%s: it says nothing about %s", name, base)
}

func hashReader(r io.Reader) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func hashObject(ctx context.Context, store objstore.Store, key string) (string, error) {
	r, _, err := store.Get(ctx, key)
	if err != nil {
		return "", err
	}
	defer r.Close()
	sum, err := hashReader(r)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", key, err)
	}
	return sum, nil
}
