package ingest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/pipeline"
)

// BatchOptions narrow and bound a batch run. The zero value reads every new file of every source.
type BatchOptions struct {
	Sources []string // names of sources of files; nil: all
	// Reprocess reads files again that were read before: the rows that stand under them are removed and their new
	// reading is merged, in one commit.
	Reprocess bool
	FileGlob  string    // with Reprocess: only files whose name or base name matches
	Since     time.Time // with Reprocess: only files modified at or after this time
	// EpochBytesMax and EpochFilesMax bound what one commit covers; 0: 2 GiB, 4,096 files. Bytes of compressed files
	// count five times.
	EpochBytesMax int64
	EpochFilesMax int
	OnEpoch       func(EpochReport) // called after each commit; nil: nobody listens
}

const (
	epochBytesMax = 2 << 30
	epochFilesMax = 4096
)

// batchRun is the state of one run over one source.
type batchRun struct {
	l      *Lake
	opts   BatchOptions
	source *pipeline.Source
	plan   *pipeline.Plan
	table  *delta.Table
	log    *progressLog
	state  *progressState
	report *BatchReport
	part   *TableReport

	done    map[string]bool // names that this run need not look at again: read, failed, changed
	known   map[string]bool // names whose content had been read before
	present map[string]bool // names that exist
	copies  []FileMark      // new names of known contents, recorded with the next epoch
	since   int64           // generation of reprocessed files, µs
}

// RunBatch reads the files that are new, or with Reprocess those that were read before too, and merges their rows. The
// report is valid together with an error as well: it says what was committed before.
func (l *Lake) RunBatch(ctx context.Context, o BatchOptions) (*BatchReport, error) {
	start := l.clock()
	if o.EpochBytesMax <= 0 {
		o.EpochBytesMax = epochBytesMax
	}
	if o.EpochFilesMax <= 0 {
		o.EpochFilesMax = epochFilesMax
	}
	r := &BatchReport{
		Version: -1, Tables: map[string]*TableReport{}, Warned: map[string]int64{},
		Warnings: []string{}, FailedFiles: []FailedFile{},
	}
	sources, err := l.fileSources(o.Sources)
	if err != nil {
		return r, err
	}
	var errs []error
	for _, src := range sources {
		if err := l.batchSource(ctx, src, o, r); err != nil {
			errs = append(errs, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	for _, t := range r.Tables {
		r.FilesRead += t.FilesRead
		r.FilesSkipped += t.FilesSkipped
		r.add(t.Counts)
		r.Version = max(r.Version, t.Version)
	}
	slices.SortStableFunc(r.FailedFiles, func(a, b FailedFile) int { return strings.Compare(a.File, b.File) })
	r.Seconds = l.clock().Sub(start).Seconds()
	return r, errors.Join(errs...)
}

// fileSources gives the sources of files with the given names, or all.
func (l *Lake) fileSources(names []string) ([]*pipeline.Source, error) {
	var out []*pipeline.Source
	for _, n := range names {
		s := l.lake.Source(n)
		if s == nil {
			return nil, &UsageError{fmt.Sprintf("source %s: the lake file has none of that name; it has %s", n, l.sourceNames())}
		}
		if s.Streaming() {
			return nil, &UsageError{fmt.Sprintf("source %s is a stream (kind: %s): it is read with run stream", n, s.Kind)}
		}
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	if len(names) == 0 {
		for _, s := range l.lake.Sources {
			if !s.Streaming() {
				out = append(out, s)
			}
		}
	}
	return out, nil
}

func (l *Lake) sourceNames() string {
	var n []string
	for _, s := range l.lake.Sources {
		n = append(n, s.Name)
	}
	return strings.Join(n, ", ")
}

func (l *Lake) batchSource(ctx context.Context, src *pipeline.Source, o BatchOptions, r *BatchReport) error {
	if l.opener == nil {
		return fmt.Errorf("source %s: nothing can open its files", src.Name)
	}
	plan, err := l.lake.Plan(src.Name)
	if err != nil {
		return err
	}
	t, err := l.catalog.Ensure(ctx, src.Table)
	if err != nil {
		return fmt.Errorf("source %s: %w", src.Name, err)
	}
	b := &batchRun{
		l: l, opts: o, source: src, plan: plan, table: t, log: l.progressLog(src.Name, FilesIncarnation), report: r,
		part: r.Tables[plan.Table.Name], done: map[string]bool{}, known: map[string]bool{}, since: l.now().UnixMicro(),
	}
	if b.part == nil {
		b.part = &TableReport{Version: -1}
		r.Tables[plan.Table.Name] = b.part
	}
	err = b.run(ctx)
	b.part.FilesSkipped += len(b.known)
	if b.part.Version < 0 { // no commit of this run
		if s, serr := t.Snapshot(context.WithoutCancel(ctx)); serr == nil {
			b.part.Version = s.Version()
		} else if err == nil {
			err = serr
		}
	}
	if err != nil {
		return fmt.Errorf("source %s: %w", src.Name, err)
	}
	return nil
}

// run works until no file is left that is new: once where nobody interferes, again after another run of the source
// has won an epoch, because that one may have covered some of our files and not others (DESIGN D5 d).
func (b *batchRun) run(ctx context.Context) error {
	for lost := 0; ; lost++ {
		if lost > conflictTriesMax {
			return fmt.Errorf("%w: %d epochs were lost to other runs of the source", ErrConflict, lost)
		}
		snap, err := b.table.Snapshot(ctx)
		if err != nil {
			return err
		}
		if b.state, err = b.log.load(ctx, snap); err != nil {
			return err
		}
		b.copies = nil
		files, err := b.discover(ctx)
		if err != nil {
			return err
		}
		err = b.pass(ctx, files)
		if superseded(err) {
			b.l.log.Info("another run of the source was faster; looking at what it left", "source", b.source.Name, "error", err)
			continue
		}
		if err == nil {
			b.remember()
		}
		return err
	}
}

// pass reads the given files in epochs of bounded size.
func (b *batchRun) pass(ctx context.Context, files []objstore.Info) error {
	for len(files) > 0 {
		n, size := 0, int64(0)
		for n < len(files) && n < b.opts.EpochFilesMax {
			s := files[n].Size
			if compressed(files[n].Key) {
				s *= 5
			}
			if n > 0 && size+s > b.opts.EpochBytesMax {
				break
			}
			size += s
			n++
		}
		if err := b.epoch(ctx, files[:n]); err != nil {
			return err
		}
		files = files[n:]
	}
	return nil
}

func compressed(key string) bool {
	switch strings.ToLower(path.Ext(key)) {
	case ".gz", ".zst", ".zip", ".zstd":
		return true
	}
	return false
}

// discover lists the source's files that have to be looked at, in the order of their names.
func (b *batchRun) discover(ctx context.Context) ([]objstore.Info, error) {
	all, err := b.l.list(ctx, b.source)
	if err != nil {
		return nil, err
	}
	if err := b.ownTimes(ctx, all); err != nil {
		return nil, err
	}
	b.present = make(map[string]bool, len(all))
	remembered := b.remembered()
	var out []objstore.Info
	for _, f := range all {
		b.present[f.Key] = true
		switch m, ok := b.state.files[f.Key]; {
		case b.done[f.Key]:
		case b.opts.Reprocess && b.wanted(f):
			out = append(out, f)
		case ok && b.unchanged(f, m):
			b.known[f.Key] = true
		case !ok && b.unchanged(f, remembered[f.Key]):
			b.known[f.Key] = true
			b.copies = append(b.copies, remembered[f.Key])
		case b.opts.Reprocess && b.narrowed():
			// Somebody asked for some files only: new ones wait for a run without --file and --since.
		default:
			out = append(out, f)
		}
	}
	if b.opts.Reprocess {
		var gone []string
		for _, name := range slices.Sorted(maps.Keys(b.state.files)) {
			if m := b.state.files[name]; !b.present[name] && b.wanted(objstore.Info{Key: name, ModTime: m.ModTime}) {
				gone = append(gone, name)
			}
		}
		if len(gone) > 0 {
			b.warn(fmt.Sprintf("read before, but no longer there, so that they keep their old reading: %s", join(gone)))
		}
	}
	return out, nil
}

// unchanged tells whether the file is the one that was read: then it need not be hashed. Its rows must still count.
func (b *batchRun) unchanged(f objstore.Info, m FileMark) bool {
	// A store that lists when an object was written, and not the file's own time, lists an ETag.
	sameTag := m.ETag != "" && f.ETag == m.ETag
	if f.Size != m.Size || !sameTag && !sameTime(f.ModTime, m.ModTime) {
		return false
	}
	_, ok := b.state.contents[m.SHA256]
	return ok
}

// ownTimes asks for the files' own times of modification where a listing may have another (see objstore.Info) and it
// matters: for --since, and for files that would else be read to find that they are known, as after a lake was copied.
func (b *batchRun) ownTimes(ctx context.Context, all []objstore.Info) error {
	if _, ok := b.l.store.(objstore.LocalPather); ok {
		return nil
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i := range all {
		f := &all[i]
		m, ok := b.state.files[f.Key]
		if ok = ok && f.Size == m.Size && !b.unchanged(*f, m); !ok && b.opts.Since.IsZero() {
			continue
		}
		g.Go(func() error {
			own, err := b.l.store.Stat(ctx, f.Key)
			if errors.Is(err, objstore.ErrNotFound) {
				return nil // whoever opens it finds out
			}
			if err == nil {
				f.ModTime = own.ModTime
			}
			return err
		})
	}
	return g.Wait()
}

// sameTime compares modification times to the microsecond, which every store keeps.
func sameTime(a, b time.Time) bool { return a.UnixMicro() == b.UnixMicro() }

func (b *batchRun) narrowed() bool { return b.opts.FileGlob != "" || !b.opts.Since.IsZero() }

// wanted tells whether --file and --since select a file.
func (b *batchRun) wanted(f objstore.Info) bool {
	if !b.opts.Since.IsZero() && f.ModTime.Before(b.opts.Since) {
		return false
	}
	if b.opts.FileGlob == "" {
		return true
	}
	for _, name := range []string{f.Key, path.Base(f.Key)} {
		if ok, _ := path.Match(b.opts.FileGlob, name); ok {
			return true
		}
	}
	return false
}

// warn adds a warning to the report, once.
func (b *batchRun) warn(msg string) {
	if !slices.Contains(b.report.Warnings, msg) {
		b.report.Warnings = append(b.report.Warnings, msg)
	}
}

// fail records a file that could not be read; the run goes on with the others.
func (b *batchRun) fail(f objstore.Info, err error) {
	b.done[f.Key] = true
	why := strings.TrimPrefix(err.Error(), f.Key+": ") // the report names the file beside it
	b.report.FailedFiles = append(b.report.FailedFiles, FailedFile{Source: b.source.Name, File: f.Key, Error: why})
	b.l.log.Info("a file cannot be read", "source", b.source.Name, "file", f.Key, "error", why)
}

// changed leaves a file for the next run.
func (b *batchRun) changed(f objstore.Info) {
	b.done[f.Key] = true
	b.warn(f.Key + ": changed while it was read; left for the next run")
}

// epoch reads files and commits their rows. Files that cannot be read, or turn out to be known, are left out; a file
// that changes while it is read takes the computation down with it, which then starts again without the file.
func (b *batchRun) epoch(ctx context.Context, files []objstore.Info) error {
	for {
		again, err := b.tryEpoch(ctx, files)
		if err != nil || !again {
			return err
		}
		files = slices.DeleteFunc(slices.Clone(files), func(f objstore.Info) bool { return b.done[f.Key] })
	}
}

func (b *batchRun) tryEpoch(ctx context.Context, files []objstore.Info) (again bool, err error) {
	ph := b.l.startPhases()
	ep, at, err := b.l.newEpoch(ctx, b.plan)
	if err != nil {
		return false, err
	}
	defer ep.Close()
	in := &intake{b: b, seen: map[string]bool{}, before: map[string]FileMark{}, replace: map[string]bool{}}
	defer in.close()
	if x, ok := ep.(pipeline.FileExpecter); ok {
		sizes := make([]int64, len(files))
		for i, f := range files {
			sizes[i] = f.Size
		}
		x.ExpectFiles(sizes)
	}
	if err := in.read(ctx, ep, files); err != nil {
		return false, err
	}
	if in.orphaned() {
		return true, nil
	}
	ph.done("read")
	if len(in.marks) == 0 {
		in.settleCopies() // names that are new, but no content that is
		return false, nil
	}
	res, err := b.l.finish(ctx, ep, b.table)
	if err != nil {
		if in.anyChanged(ctx) {
			return true, nil
		}
		return false, err
	}
	ph.done("compute")
	if in.anyChanged(ctx) {
		return true, nil
	}
	if res.Failed != nil {
		return false, res.Failed
	}
	kind := KindBatch
	if b.opts.Reprocess {
		kind = KindReprocess
	}
	for i := range in.marks {
		in.marks[i].Rows = res.PerFile[in.marks[i].Name]
	}
	in.settleCopies()
	cover := &EpochFile{Kind: kind, Files: append(in.marks, b.copies...)}
	rep, err := b.l.commitEpoch(ctx, &epochCommit{
		source: b.source, plan: b.plan, table: b.table, log: b.log, state: b.state, cover: cover, result: res,
		replace: slices.Sorted(maps.Keys(in.replace)), at: at, quarantine: true,
	}, ph)
	if err != nil {
		return false, err
	}
	b.copies = nil
	for _, m := range in.marks {
		b.done[m.Name] = true
	}
	b.part.FilesRead += rep.Files
	b.part.add(rep.Counts)
	b.part.Version = max(b.part.Version, rep.Version)
	b.report.Epochs++
	for name, n := range rep.Warned {
		b.report.Warned[b.plan.Table.Name+"."+name] += n
	}
	for _, w := range rep.Warnings {
		b.warn(w)
	}
	b.l.observe.epoch(rep)
	if b.opts.OnEpoch != nil {
		b.opts.OnEpoch(*rep)
	}
	return false, nil
}

// open makes a file of a source ready for reading, with the generation that the source gives it.
func (l *Lake) open(ctx context.Context, f objstore.Info, src *pipeline.Source) (*pipeline.RawFile, error) {
	if err := nameable(f.Key); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Key, err)
	}
	raw, err := l.opener.Open(ctx, l.store, f, src)
	if err != nil || src.Generation == "" {
		return raw, err
	}
	if raw.Generation, err = src.GenerationOf(f.Key); err != nil {
		err = fmt.Errorf("%s: %w", f.Key, err)
		if raw.Close != nil {
			err = errors.Join(err, raw.Close())
		}
		return nil, err
	}
	return raw, nil
}

// nameable refuses names that progress and quarantine, which hold texts, could not keep: several files would have one name there,
// and none its own, so that a re-issue would be read as another file beside its predecessor.
func nameable(key string) error {
	if utf8.ValidString(key) {
		return nil
	}
	return fmt.Errorf("its name %q is no valid UTF-8; rename it", path.Base(key))
}

// intake collects the files of one epoch.
type intake struct {
	b *batchRun

	mu      sync.Mutex // guards what follows, and b's lists of files
	marks   []FileMark
	copies  []FileMark // names of contents that are known, or are part of this epoch
	open    []openFile
	seen    map[string]bool     // contents of this epoch
	before  map[string]FileMark // what re-issued files were before, by their names, where that is to be replaced
	replace map[string]bool     // origins whose rows go
}

type openFile struct {
	info objstore.Info
	raw  *pipeline.RawFile
}

func (in *intake) close() {
	for _, f := range in.open {
		if f.raw.Close == nil {
			continue
		}
		if err := f.raw.Close(); err != nil {
			in.b.l.log.Warn("a temporary copy stays behind", "file", f.info.Key, "error", err)
		}
	}
}

// read gives the files to the epoch, several at once. Which of two names with one content counts is decided in the
// order of the names all the same, because the rows carry that file's time. Only an error that concerns the whole run
// is returned.
func (in *intake) read(ctx context.Context, ep Epoch, files []objstore.Info) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	turn := make(chan struct{})
	close(turn)
	for _, f := range files {
		in.b.l.hook("reading")
		mine, next := turn, make(chan struct{})
		turn = next
		g.Go(func() error { // waits only for files that were begun before, so the limit cannot lock them up
			raw, err := in.b.l.open(ctx, f, in.b.source)
			<-mine
			mark, wanted, err := in.decide(ctx, f, raw, err)
			close(next)
			if err != nil || !wanted {
				return err
			}
			return in.add(ctx, ep, f, raw, mark)
		})
	}
	err := g.Wait()
	slices.SortFunc(in.marks, func(a, b FileMark) int { return strings.Compare(a.Name, b.Name) })
	in.replaceBefore()
	return err
}

// decide says whether an opened file is to be read, and as what.
func (in *intake) decide(ctx context.Context, f objstore.Info, raw *pipeline.RawFile, err error) (mark FileMark, wanted bool, _ error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	b := in.b
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return mark, false, ctx.Err()
	case errors.Is(err, pipeline.ErrChanged), errors.Is(err, objstore.ErrNotFound) && b.vanished(ctx, f):
		b.changed(f)
		return mark, false, nil
	default:
		b.fail(f, err)
		return mark, false, nil
	}
	in.open = append(in.open, openFile{f, raw})
	mark = FileMark{
		Name: f.Key, Size: raw.Size, ModTime: raw.ModTime, ETag: raw.ETag, SHA256: raw.SHA256, Origin: raw.Origin, Generation: raw.Generation,
	}
	if raw.HasHeader {
		mark.Fields = raw.Fields
	}
	before, reissue := b.state.files[f.Key]
	if reissue = reissue && before.SHA256 != raw.SHA256; reissue && b.source.OnReissue == pipeline.ReissueReplace {
		in.before[f.Key] = before
	}
	_, known := b.state.contents[raw.SHA256]
	if in.seen[raw.SHA256] || (known && !reissue && !b.opts.Reprocess) {
		mark.Copy = true
		in.copies = append(in.copies, mark)
		return mark, false, nil
	}
	in.seen[raw.SHA256] = true
	if b.opts.Reprocess {
		// The reading of today goes before the one it replaces and before other files of its time (DESIGN D2).
		if b.source.Generation == "" { // a name says of itself which file is newer
			raw.Generation = b.since
			mark.Generation = b.since
		}
		mark.Replaces = append(mark.Replaces, raw.Origin)
	}
	if reissue && known && b.source.OnReissue == pipeline.ReissueReplace && !slices.Contains(mark.Replaces, raw.Origin) {
		// An old content has come back under a newer time: its rows must not stand twice.
		mark.Replaces = append(mark.Replaces, raw.Origin)
	}
	return mark, true, nil
}

// add gives one file to the epoch.
func (in *intake) add(ctx context.Context, ep Epoch, f objstore.Info, raw *pipeline.RawFile, mark FileMark) error {
	err := ep.AddFile(ctx, raw)
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case err == nil:
		in.marks = append(in.marks, mark)
		for _, o := range mark.Replaces {
			in.replace[o] = true
		}
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, pipeline.ErrChanged):
		in.b.changed(f)
	default:
		in.b.fail(f, err)
	}
	return nil
}

// orphaned tells whether a name was passed over as a copy of a file that then could not be read.
func (in *intake) orphaned() bool {
	return slices.ContainsFunc(in.copies, func(c FileMark) bool {
		_, known := in.b.state.contents[c.SHA256]
		return !known && !slices.ContainsFunc(in.marks, func(m FileMark) bool { return m.SHA256 == c.SHA256 })
	})
}

// settleCopies takes the copies over into the run, once it is sure that the contents they repeat were not taken back.
func (in *intake) settleCopies() {
	for _, m := range in.copies {
		in.b.known[m.Name] = true
		in.b.warnOfName(m, in.marks)
	}
	in.b.copies = append(in.b.copies, in.copies...)
}

// warnOfName warns of a copy that would have other rows than the file whose content it has, because the lake file reads
// something out of the names: it is passed over all the same.
func (b *batchRun) warnOfName(m FileMark, marks []FileMark) {
	if !b.plan.Uses("file_group") || b.source.FromFilename == nil {
		return
	}
	groups := func(name string) (out []string) {
		for i, v := range b.source.FromFilename.FindStringSubmatch(path.Base(name)) {
			if b.source.FromFilename.SubexpNames()[i] != "" {
				out = append(out, v)
			}
		}
		return out
	}
	read := slices.Clone(marks)
	for _, f := range b.state.files {
		read = append(read, f)
	}
	same := slices.DeleteFunc(read, func(f FileMark) bool { return f.SHA256 != m.SHA256 || f.Name == m.Name || f.Copy })
	if len(same) == 0 || slices.ContainsFunc(same, func(f FileMark) bool { return slices.Equal(groups(f.Name), groups(m.Name)) }) {
		return
	}
	slices.SortFunc(same, func(x, y FileMark) int { return strings.Compare(x.Name, y.Name) })
	b.warn(fmt.Sprintf("%s: it has the content of %s, which was read, and is passed over, although its name says something else (file_group); if its rows are others, put what tells them apart into the file",
		m.Name, same[0].Name))
}

// vanished tells whether a file that was listed is gone, as one that somebody moves away is.
func (b *batchRun) vanished(ctx context.Context, f objstore.Info) bool {
	_, err := b.l.store.Stat(ctx, f.Key)
	return errors.Is(err, objstore.ErrNotFound)
}

// replaceBefore lets the rows of what re-issued files were before go, where no name has that content when the epoch is over: one
// that is read in the same epoch, or was passed over as a copy, counts with what it has now.
func (in *intake) replaceBefore() {
	if len(in.before) == 0 {
		return
	}
	now := map[string]string{} // name -> content
	for n, m := range in.b.state.files {
		if in.b.present[n] {
			now[n] = m.SHA256
		}
	}
	for _, marks := range [][]FileMark{in.b.copies, in.copies, in.marks} {
		for _, m := range marks {
			now[m.Name] = m.SHA256
		}
	}
	held := map[string]bool{}
	for _, sum := range now {
		held[sum] = true
	}
	for _, marks := range [][]FileMark{in.copies, in.marks} {
		for i := range marks {
			m := &marks[i]
			if before, ok := in.before[m.Name]; ok && !held[before.SHA256] {
				m.Replaces = append(m.Replaces, before.Origin)
				in.replace[before.Origin] = true
			}
		}
	}
}

// anyChanged looks whether a file of the epoch is no longer the one that was hashed, and leaves such files out.
func (in *intake) anyChanged(ctx context.Context) bool {
	changed := false
	for _, f := range in.open {
		if f.raw.Unchanged == nil || in.b.done[f.info.Key] {
			continue
		}
		if err := f.raw.Unchanged(ctx); errors.Is(err, pipeline.ErrChanged) {
			in.b.changed(f.info)
			changed = true
		}
	}
	return changed
}

// list finds the files of a source in the order of their names. Names that begin with a dot or an underscore, and
// those that say of themselves that they are not finished, are passed over, as are checksums of other files.
func (l *Lake) list(ctx context.Context, src *pipeline.Source) ([]objstore.Info, error) {
	var out []objstore.Info
	for _, prefix := range src.Prefixes() {
		if prefix != "" {
			prefix += "/"
		}
		for f, err := range l.store.List(ctx, prefix, "") {
			if err != nil {
				return nil, fmt.Errorf("list %s: %w", prefix, err)
			}
			if src.Matches(f.Key) && !Ignored(f.Key) {
				out = append(out, f)
			}
		}
	}
	slices.SortFunc(out, func(a, b objstore.Info) int { return strings.Compare(a.Key, b.Key) })
	return slices.CompactFunc(out, func(a, b objstore.Info) bool { return a.Key == b.Key }), nil
}

// Ignored tells whether a file is never read because of its name: hidden files, unfinished ones (.tmp, .part and what
// browsers and copy programs write) and checksums of other files.
func Ignored(key string) bool {
	for _, part := range strings.Split(key, "/") {
		if strings.HasPrefix(part, ".") || strings.HasPrefix(part, "_") {
			return true
		}
	}
	switch strings.ToLower(path.Ext(key)) {
	case ".tmp", ".part", ".partial", ".crdownload", ".checksum", ".swp":
		return true
	}
	return strings.HasSuffix(key, "~")
}
