package csv

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/pipeline"
)

// Options configure an Opener.
type Options struct {
	// TempDir is the folder for decompressed and transcoded copies; "" is the system's. Copies that a killed process
	// left there are removed.
	TempDir string
	// RawFields names the fields that the lake file reads from a source's files. A file that lacks one which is not
	// optional is refused with ErrMissingField. Nil: nothing is known, and engines decide.
	RawFields func(src *pipeline.Source) []string
	// StagedBytesMax bounds the decompressed size of a file; 0: no bound.
	StagedBytesMax int64
}

// Opener makes CSV files ready for reading. It is safe for concurrent use.
type Opener struct {
	o     Options
	sweep sync.Once
}

// NewOpener returns an Opener.
func NewOpener(o Options) *Opener {
	if o.TempDir == "" {
		o.TempDir = os.TempDir()
	}
	return &Opener{o: o}
}

// Open makes one CSV file ready: it stages it, and finds its header.
//
// The error names the file and wraps one of this package's errors, pipeline.ErrChanged or the store's own.
func (o *Opener) Open(ctx context.Context, store objstore.Store, info objstore.Info, src *pipeline.Source) (_ *pipeline.RawFile, err error) {
	f, s, err := o.stage(ctx, store, info, src, false)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("%s: %w", info.Key, err), s.remove())
		}
	}()
	f.Plain = s.text.plain()
	d := dialect{
		delimiter: []byte(string(src.CSV.Delimiter)),
		multiline: src.CSV.Multiline,
		valid:     s.text.valid(),
		encoding:  s.encoding,
	}
	if src.CSV.Delimiter == 0 {
		d.delimiter = []byte{','}
	}
	if src.CSV.Quote != 0 {
		d.quote = []byte(string(src.CSV.Quote))
	}
	var known []string
	if o.o.RawFields != nil {
		known = o.o.RawFields(src)
	}
	empty, err := header(f, d, src.CSV, known)
	if err != nil {
		return nil, err
	}
	if !empty && o.o.RawFields != nil {
		if missing := missingFields(known, f.Fields, src.CSV.Optional); len(missing) > 0 {
			return nil, fmt.Errorf("%w: %s; the file has %s (csv.optional names fields that a file may lack)",
				ErrMissingField, strings.Join(missing, ", "), strings.Join(f.Fields, ", "))
		}
	}
	d.fields = len(f.Fields)
	f.Rows = func(ctx context.Context) iter.Seq2[pipeline.RawRow, error] {
		return rows(ctx, f, d, nil, false)
	}
	f.RowsAt = func(ctx context.Context, positions []int64) iter.Seq2[pipeline.RawRow, error] {
		return rows(ctx, f, d, positions, true)
	}
	return f, nil
}

// Stage makes one file of any format ready to be opened at Path: it hashes the original, and unless that is plain local
// UTF-8 already, writes a decompressed and transcoded copy, in bounded memory. With binary the content may be anything
// and is only decompressed. Whoever splits it into records sets Fields, Rows and RowsAt; the caller closes the file,
// which removes the copy. Errors are those of Open.
func (o *Opener) Stage(ctx context.Context, store objstore.Store, info objstore.Info, src *pipeline.Source, binary bool) (*pipeline.RawFile, error) {
	f, _, err := o.stage(ctx, store, info, src, binary)
	return f, err
}

func (o *Opener) stage(ctx context.Context, store objstore.Store, info objstore.Info, src *pipeline.Source, binary bool) (_ *pipeline.RawFile, _ *stage, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", info.Key, err)
		}
	}()
	o.sweep.Do(o.removeStale)
	before, err := store.Stat(ctx, info.Key)
	if err != nil {
		return nil, nil, dangling(store, info.Key, err)
	}
	f := &pipeline.RawFile{
		Name:       info.Key,
		Size:       before.Size,
		Generation: before.ModTime.UnixMicro(),
		ModTime:    before.ModTime,
		ETag:       before.ETag,
	}
	unchanged := func(ctx context.Context) error {
		after, err := store.Stat(ctx, info.Key)
		if errors.Is(err, objstore.ErrNotFound) || err == nil && !same(before, after) {
			return fmt.Errorf("%s: %w", info.Key, pipeline.ErrChanged)
		}
		return err
	}
	s := &stage{o: o, ctx: ctx, store: store, key: info.Key, csv: src.CSV, binary: binary, hash: sha256.New()}
	defer func() {
		if err != nil {
			_ = s.remove()
		}
	}()
	if err := s.run(); err != nil {
		// A file that shrinks or is replaced while it is read may look damaged; that it changed is then the cause.
		if u := unchanged(ctx); errors.Is(u, pipeline.ErrChanged) {
			return nil, nil, pipeline.ErrChanged
		}
		return nil, nil, err
	}
	if err := unchanged(ctx); err != nil {
		if errors.Is(err, pipeline.ErrChanged) {
			return nil, nil, pipeline.ErrChanged
		}
		return nil, nil, err
	}
	f.SHA256 = hex.EncodeToString(s.hash.Sum(nil))
	f.Origin = "f:" + f.SHA256[:16]
	f.Path = s.path
	f.Unchanged = func(context.Context) error { return nil }
	f.Close = s.remove
	if s.inPlace {
		f.Unchanged = unchanged
	}
	return f, s, nil
}

// same tells whether two descriptions are of the same content.
func same(a, b objstore.Info) bool {
	return a.Size == b.Size && a.ModTime.Equal(b.ModTime) && a.ETag == b.ETag
}

// dangling explains a missing file that is a link.
func dangling(store objstore.Store, key string, err error) error {
	lp, ok := store.(objstore.LocalPather)
	if !ok || !errors.Is(err, objstore.ErrNotFound) {
		return err
	}
	path := lp.LocalPath(key)
	if st, e := os.Lstat(path); e == nil && st.Mode()&fs.ModeSymlink != 0 {
		target, _ := os.Readlink(path)
		return fmt.Errorf("%w: %s", ErrDangling, target)
	}
	return err
}

// header reads the first record and decides what it is; empty tells that the file has no record at all.
func header(f *pipeline.RawFile, d dialect, c pipeline.CSV, known []string) (empty bool, err error) {
	file, err := os.Open(f.Path)
	if err != nil {
		return false, err
	}
	defer file.Close()
	var first pipeline.RawRow
	ok, err := newReader(file, d).next(&first, func(int64) bool { return true })
	if err != nil {
		return false, err
	}
	if !ok {
		f.Fields = slices.Clone(c.Columns)
		return true, nil
	}
	if first.Err != "" {
		if c.Header == pipeline.HeaderFalse || c.Header == pipeline.HeaderAuto && len(c.Columns) > 0 {
			f.Fields = slices.Clone(c.Columns)
			return false, nil
		}
		return false, fmt.Errorf("%w: line %d: %s", ErrHeader, first.Line, first.Err)
	}
	for i, v := range first.Values {
		if strings.Contains(v, "\r") && (first.Quoted == nil || !first.Quoted[i]) {
			return false, fmt.Errorf("%w: line %d holds a CR before its end; lines end with LF, CR LF, or all of them with CR", ErrLineEnds, first.Line)
		}
	}
	if !c.HasHeader(first.Values) {
		if len(c.Columns) == 0 {
			return false, fmt.Errorf("%w: the file has none, and csv.columns names no fields", ErrHeader)
		}
		f.Fields = slices.Clone(c.Columns)
		return false, nil
	}
	f.HasHeader = true
	f.Fields, err = fieldNames(first.Values, known)
	return false, err
}

// fieldNames makes the names of a header usable: trimmed, none empty, none twice. A name that stands twice is an error
// where the lake file reads it, because nobody can tell which of the two is meant.
func fieldNames(values, known []string) ([]string, error) {
	taken := make(map[string]bool, len(values))
	for _, v := range values {
		taken[strings.TrimSpace(v)] = true
	}
	seen := make(map[string]bool, len(values))
	names := make([]string, len(values))
	for i, v := range values {
		n := strings.TrimSpace(v)
		if n != "" && !seen[n] {
			seen[n] = true
			names[i] = n
			continue
		}
		base := n
		if n == "" {
			base = "column"
		} else if len(known) == 0 || slices.Contains(known, n) {
			return nil, fmt.Errorf("%w: it names %q twice", ErrHeader, n)
		}
		k := i + 1
		for n = base + "_" + strconv.Itoa(k); taken[n] || seen[n]; n = base + "_" + strconv.Itoa(k) {
			k++
		}
		seen[n] = true
		names[i] = n
	}
	return names, nil
}

func missingFields(known, have, optional []string) []string {
	var missing []string
	for _, n := range known {
		if !slices.Contains(have, n) && !slices.Contains(optional, n) {
			missing = append(missing, n)
		}
	}
	return missing
}

// rows reads the file's records, or of them those at the given positions.
func rows(ctx context.Context, f *pipeline.RawFile, d dialect, positions []int64, some bool) iter.Seq2[pipeline.RawRow, error] {
	return func(yield func(pipeline.RawRow, error) bool) {
		fail := func(err error) { yield(pipeline.RawRow{}, fmt.Errorf("%s: %w", f.Name, err)) }
		file, err := os.Open(f.Path)
		if err != nil {
			if u := f.Unchanged(ctx); errors.Is(u, pipeline.ErrChanged) {
				yield(pipeline.RawRow{}, u)
				return
			}
			fail(err)
			return
		}
		defer file.Close()
		r := newReader(file, d)
		var row pipeline.RawRow
		if f.HasHeader {
			if _, err := r.next(&row, func(int64) bool { return false }); err != nil {
				fail(err)
				return
			}
			r.position = 0
		}
		want := func(int64) bool { return true }
		if some {
			want = func(p int64) bool { return len(positions) > 0 && positions[0] == p }
		}
		for n := 0; !some || len(positions) > 0; n++ {
			if n&1023 == 0 && ctx.Err() != nil {
				yield(pipeline.RawRow{}, ctx.Err())
				return
			}
			ok, err := r.next(&row, want)
			if err != nil {
				fail(err)
				return
			}
			if !ok {
				break
			}
			if some && r.position != positions[0] {
				continue
			}
			for some && len(positions) > 0 && positions[0] <= r.position {
				positions = positions[1:]
			}
			if !yield(row, nil) {
				return
			}
		}
		if err := f.Unchanged(ctx); err != nil {
			yield(pipeline.RawRow{}, err)
		}
	}
}

// tempFile creates a file whose name carries this process, so that leftovers of a killed one are known as such.
func (o *Opener) tempFile() (*os.File, error) {
	if err := os.MkdirAll(o.o.TempDir, 0o755); err != nil {
		return nil, err
	}
	return os.CreateTemp(o.o.TempDir, fmt.Sprintf("cauce-csv-%d-*", os.Getpid()))
}

// removeStale removes copies whose process is gone. It only saves space; what it can't do is left alone.
func (o *Opener) removeStale() {
	names, _ := filepath.Glob(filepath.Join(o.o.TempDir, "cauce-csv-*-*"))
	for _, n := range names {
		pid, err := strconv.Atoi(strings.Split(filepath.Base(n), "-")[2])
		if err == nil && pid > 0 && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			_ = os.Remove(n)
		}
	}
}

// stage makes the readable copy of one file.
type stage struct {
	o     *Opener
	ctx   context.Context //nolint:containedctx // lives as long as one call of Open
	store objstore.Store
	key   string
	csv   pipeline.CSV
	// binary content is neither looked at nor transcoded.
	binary bool
	hash   hash.Hash

	encoding string
	path     string
	inPlace  bool
	temps    []string
	text     analysis
}

// remove deletes the copies.
func (s *stage) remove() error {
	var errs []error
	for _, t := range s.temps {
		if err := os.Remove(t); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	s.temps = nil
	return errors.Join(errs...)
}

// run reads the whole original once.
func (s *stage) run() error {
	original, _, err := s.store.Get(s.ctx, s.key)
	if err != nil {
		return dangling(s.store, s.key, err)
	}
	defer original.Close()
	raw := io.TeeReader(original, s.hash)
	kind := compression(s.key)
	if kind == zipped {
		return s.unzip(raw)
	}
	b := bufio.NewReaderSize(raw, 256<<10)
	plain, err := kind.reader(b)
	if err != nil {
		return err
	}
	defer plain.Close()
	local := ""
	if lp, ok := s.store.(objstore.LocalPather); ok && kind == uncompressed {
		local = lp.LocalPath(s.key)
	}
	if err := s.decode(plain, local); err != nil {
		return kind.explain(err)
	}
	if _, err := io.Copy(io.Discard, b); err != nil { // what the decompressor left belongs to the hash
		return err
	}
	return nil
}

// decode writes the text as UTF-8 to a copy, unless the file at local is that already.
func (s *stage) decode(plain io.Reader, local string) error {
	text, encoding, asIs := plain, "", true
	if !s.binary {
		var err error
		if text, encoding, asIs, err = decoder(plain, s.csv.Encoding); err != nil {
			return err
		}
	}
	s.encoding = encoding
	var out io.Writer = io.Discard
	if local != "" && asIs {
		s.path, s.inPlace = local, true
	} else {
		f, err := s.o.tempFile()
		if err != nil {
			return err
		}
		defer f.Close()
		s.temps = append(s.temps, f.Name())
		s.path = f.Name()
		out = f
	}
	buf := make([]byte, 256<<10)
	var size int64
	for {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		n, err := text.Read(buf)
		size += int64(n)
		if limit := s.o.o.StagedBytesMax; limit > 0 && size > limit {
			return fmt.Errorf("%w: more than %d bytes", ErrTooLarge, limit)
		}
		if !s.binary {
			if e := s.text.add(buf[:n]); e != nil {
				return e
			}
		}
		if _, e := out.Write(buf[:n]); e != nil {
			return e
		}
		if err == io.EOF { //nolint:errorlint // only the bare one is an end
			if s.text.carriageReturns() {
				return s.endLines()
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// endLines makes a copy of a text whose lines end with CR alone in which they end with LF. Bytes keep their places.
func (s *stage) endLines() error {
	in, err := os.Open(s.path)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := s.o.tempFile()
	if err != nil {
		return err
	}
	defer out.Close()
	s.temps = append(s.temps, out.Name())
	s.path, s.inPlace = out.Name(), false
	s.text.lf, s.text.cr = s.text.cr, 0
	buf := make([]byte, 256<<10)
	for {
		n, err := in.Read(buf)
		for i, c := range buf[:n] {
			if c == '\r' {
				buf[i] = '\n'
			}
		}
		if _, e := out.Write(buf[:n]); e != nil {
			return e
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err = errors.Join(err, s.ctx.Err()); err != nil {
			return err
		}
	}
}
