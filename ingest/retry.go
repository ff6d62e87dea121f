package ingest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cauce-data/cauce/catalog"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/pipeline"
)

// retryIncarnation is the incarnation under which quarantined records of streams are tried again: it keeps the epochs
// of a retry apart from those of a running stream.
const retryIncarnation = "retry"

// Bounds of what one commit of a retry covers; it may pass them by a record.
const (
	retryRowsMax  = 50_000
	retryBytesMax = 64 << 20
)

// RetryReport says what a retry did.
type RetryReport struct {
	Tried    int64 `json:"tried"`
	Resolved int64 `json:"resolved"` // in the table, or filtered out as the plan says
	StillBad int64 `json:"still_bad"`
	// Missing counts records that could not be read again: of a file that is gone and longer than what quarantine keeps, or no
	// text; of a stream and longer.
	Missing int64 `json:"missing"`
	Counts
	Epochs   int      `json:"epochs"`
	Warnings []string `json:"warnings"`
}

// QuarantineRetry runs open quarantined records through the lake file as it is. Rows that fit are merged into their
// table first, with the order they always had, and marked as resolved then; so a crash between the two only repeats work.
//
// acceptLate also merges records that are in quarantine because their deletion may have been forgotten (RuleTombstones).
func (l *Lake) QuarantineRetry(ctx context.Context, f QuarantineFilter, acceptLate bool) (*RetryReport, error) {
	f.All = false
	q, held, err := l.held(ctx, f)
	if err != nil {
		return nil, err
	}
	// The rows of a record stand together, the newest first, and the records of a file.
	slices.SortFunc(held, func(a, b heldRow) int {
		return cmp.Or(strings.Compare(a.source, b.source), strings.Compare(a.origin, b.origin), cmp.Compare(a.position, b.position), cmp.Compare(b.at, a.at), strings.Compare(a.rule, b.rule))
	})
	r := &RetryReport{Warnings: []string{}}
	for len(held) > 0 {
		name := held[0].source
		src := l.lake.Source(name)
		if src == nil {
			n := 0
			for n < len(held) && held[n].source == name {
				n++
			}
			lost := recordsOf(held[:n])
			r.Tried += lost
			r.Missing += lost
			r.Warnings = append(r.Warnings, fmt.Sprintf("source %s is not in the lake file: %d records cannot be tried", name, lost))
			held = held[n:]
			continue
		}
		plan, err := l.lake.Plan(name)
		if err != nil {
			return r, fmt.Errorf("source %s: %w", name, err)
		}
		n := retryPiece(held, plan.Uses("occurrence"))
		if err := l.retrySource(ctx, q, plan, held[:n], acceptLate, r); err != nil {
			return r, fmt.Errorf("source %s: %w", name, err)
		}
		held = held[n:]
	}
	return r, nil
}

// recordsOf counts the records of sorted rows. One that was refused by several rules has several rows.
func recordsOf(held []heldRow) (n int64) {
	for i := range held {
		if i == 0 || !sameRecord(held[i-1], held[i]) {
			n++
		}
	}
	return n
}

func sameRecord(a, b heldRow) bool { return a.origin == b.origin && a.position == b.position }

// retryPiece tells how many of the sorted rows one commit tries: of one source, and of whole records. Where files are
// whole, so are the records of a file, whatever their size.
func retryPiece(held []heldRow, wholeFiles bool) (n int) {
	var bytes int64
	for ; n < len(held) && held[n].source == held[0].source; n++ {
		full := n >= retryRowsMax || bytes >= retryBytesMax
		if n > 0 && full && !sameRecord(held[n-1], held[n]) && !(wholeFiles && held[n-1].origin == held[n].origin) {
			break
		}
		bytes += held[n].bytes
	}
	return n
}

func (l *Lake) retrySource(ctx context.Context, q *quarantineTable, plan *pipeline.Plan, held []heldRow, acceptLate bool, r *RetryReport) error {
	all, err := q.fetch(ctx, held)
	if err != nil {
		return err
	}
	var rows []*QuarantineRow // one of each record
	for i := range all {
		if i == 0 || !sameRecord(held[i-1], held[i]) {
			rows = append(rows, &all[i])
		}
	}
	src := plan.Source
	t, err := l.catalog.Ensure(ctx, src.Table)
	if err != nil {
		return err
	}
	incarnation := FilesIncarnation
	if src.Streaming() {
		incarnation = retryIncarnation
	}
	c := &epochCommit{source: src, plan: plan, table: t, log: l.progressLog(src.Name, incarnation), acceptLate: acceptLate}
	reload := func() error {
		snap, err := t.Snapshot(ctx)
		if err != nil {
			return err
		}
		c.state, err = c.log.load(ctx, snap)
		return err
	}
	if err := reload(); err != nil {
		return err
	}
	ph := l.startPhases()
	ep, at, err := l.newEpoch(ctx, plan)
	if err != nil {
		return err
	}
	defer ep.Close()
	c.at = at
	r.Tried += int64(len(rows))
	var open []func() error // files, which the epoch may come back to until its end
	defer func() {
		for _, closeFile := range open {
			if err := closeFile(); err != nil {
				l.log.Warn("a temporary copy stays behind", "source", src.Name, "error", err)
			}
		}
	}()
	tried, err := l.feed(ctx, ep, src, c.state, rows, r, &open)
	if err != nil {
		return err
	}
	if len(tried) == 0 {
		return nil
	}
	ph.done("read")
	if c.result, err = l.finish(ctx, ep, c.table); err != nil {
		return err
	}
	if c.result.Failed != nil {
		return c.result.Failed
	}
	ph.done("compute")
	bad := map[record]pipeline.BadRow{}
	for b, err := range c.result.Bad {
		if err != nil {
			return err
		}
		bad[record{b.Origin, b.Position}] = b
	}
	var rep *EpochReport
	for lost := 0; ; lost++ {
		c.cover = &EpochFile{Kind: KindRetry}
		rep, err = l.commitEpoch(ctx, c, ph)
		if err == nil {
			break
		}
		if !superseded(err) || lost >= conflictTriesMax {
			return err
		}
		if err := reload(); err != nil {
			return err
		}
	}
	r.add(rep.Counts)
	r.Epochs++
	l.observe.epoch(rep)
	if c.late != nil {
		why, err := c.lateRefusal(ctx)
		if err != nil {
			return err
		}
		for b, err := range c.result.Refuse(ctx, c.late, why) {
			if err != nil {
				return err
			}
			bad[record{b.Origin, b.Position}] = b
		}
	}

	rules := map[record][]quarantineID{}
	for _, h := range held {
		at := record{h.origin, h.position}
		rules[at] = append(rules[at], h.quarantineID)
	}
	into, err := l.catalog.Ensure(ctx, catalog.Quarantine)
	if err != nil {
		return err
	}
	w := l.newQuarantineWriter(into)
	defer w.release()
	for _, row := range tried {
		at := record{row.Origin, row.Position}
		b, still := bad[at]
		var now *QuarantineRow // nil: the record has its row
		id := row.id()
		if still {
			r.StillBad++
			id.rule = b.Rule
			if !slices.Contains(rules[at], id) {
				now = c.row(b, c.cover.name())
			}
		} else {
			r.Resolved++
			now = row
			now.ResolvedAt = &c.at
		}
		// In one commit, so that no crash leaves the record two rows.
		w.remove(slices.DeleteFunc(rules[at], func(had quarantineID) bool { return had == id })...)
		if now == nil {
			continue
		}
		if err := w.add(ctx, now); err != nil {
			return err
		}
	}
	return w.flush(ctx)
}

// record is where a quarantined record stands in its source.
type record struct {
	origin   string
	position int64
}

// message is the message of a stream as it came, nil for a tombstone.
func (r *QuarantineRow) message() []byte {
	switch {
	case r.RawBinary != nil:
		return r.RawBinary
	case r.RawBytes == 0:
		return nil
	}
	return []byte(r.Raw)
}

// whole tells whether the text of a file's record is all of it, and just that: bytes that are no text are kept as something
// that is.
func (r *QuarantineRow) whole() bool {
	return r.RawBytes == int64(len(r.Raw)) && (r.Rule != "structure" || !strings.ContainsRune(r.Raw, utf8.RuneError))
}

// feed gives quarantined records to an epoch, and returns those that it could read again.
func (l *Lake) feed(ctx context.Context, ep Epoch, src *pipeline.Source, s *progressState, rows []*QuarantineRow, r *RetryReport, open *[]func() error) ([]*QuarantineRow, error) {
	missing := func(n int, format string, args ...any) {
		r.Missing += int64(n)
		r.Warnings = append(r.Warnings, fmt.Sprintf(format, args...))
	}
	var tried []*QuarantineRow
	if src.Streaming() {
		var recs []pipeline.Record
		for _, q := range rows {
			value := q.message()
			if q.RawBytes > int64(len(value)) {
				missing(1, "%s/%d offset %d: the message is longer than what quarantine keeps, and a retry does not read the topic", q.Topic, q.Partition, q.Offset)
				continue
			}
			rec := pipeline.Record{Topic: q.Topic, Partition: q.Partition, Offset: q.Offset, Origin: q.Origin, Key: q.Key, Value: value}
			if q.MessageTime != nil {
				rec.Time = *q.MessageTime
			}
			recs = append(recs, rec)
			tried = append(tried, q)
		}
		if len(recs) == 0 {
			return nil, nil
		}
		if err := l.decoded(ctx, src, recs); err != nil {
			return nil, err
		}
		return tried, ep.AddRecords(ctx, recs)
	}
	for len(rows) > 0 {
		n := 1
		for n < len(rows) && rows[n].Origin == rows[0].Origin && rows[n].File == rows[0].File {
			n++
		}
		part := slices.Clone(rows[:n])
		rows = rows[n:]
		slices.SortFunc(part, func(a, b *QuarantineRow) int { return int(max(-1, min(1, a.Position-b.Position))) })
		raw, usable, err := l.reopen(ctx, src, s, part)
		if err != nil {
			return nil, err
		}
		if lost := len(part) - len(usable); lost > 0 {
			missing(lost, "%s: %d records cannot be read again: the file is gone, and they are longer than what quarantine keeps, no text or no longer split, or csv settings count its records otherwise now (run batch --reprocess)", part[0].File, lost)
		}
		if len(usable) == 0 {
			continue
		}
		if raw.Close != nil {
			*open = append(*open, raw.Close)
		}
		if err := ep.AddFile(ctx, raw); err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			missing(len(usable), "%s: %v", part[0].File, err)
			continue
		}
		tried = append(tried, usable...)
	}
	return tried, nil
}

// reopen makes a file of just the given records, which are of one file: from the file itself where it, or a copy of it,
// is still there, else from the text that quarantine kept.
func (l *Lake) reopen(ctx context.Context, src *pipeline.Source, s *progressState, rows []*QuarantineRow) (*pipeline.RawFile, []*QuarantineRow, error) {
	first := rows[0]
	names := []string{first.File}
	for _, n := range slices.Sorted(maps.Keys(s.files)) {
		if s.files[n].Origin == first.Origin && n != first.File {
			names = append(names, n)
		}
	}
	for _, n := range names {
		info, err := l.store.Stat(ctx, n)
		if err != nil {
			continue
		}
		raw, err := l.opener.Open(ctx, l.store, info, src)
		if err != nil {
			if ctx.Err() != nil {
				return nil, nil, ctx.Err()
			}
			continue
		}
		if raw.Origin == first.Origin {
			at := make([]int64, len(rows))
			for i, q := range rows {
				at[i] = q.Position
			}
			if rows, err = sameLines(ctx, raw, at, rows); err != nil {
				return nil, nil, errors.Join(err, closeFile(raw))
			}
			if len(rows) == 0 {
				return nil, nil, closeFile(raw)
			}
			at = at[:0]
			for _, q := range rows {
				at = append(at, q.Position)
			}
			sub := *raw
			sub.Name, sub.Generation = first.File, first.Generation
			sub.Path, sub.Plain = "", false // only these records, and not through an engine's own reader
			sub.Rows = func(ctx context.Context) iter.Seq2[pipeline.RawRow, error] { return rowsAt(ctx, raw, at) }
			sub.RowsAt = func(ctx context.Context, at []int64) iter.Seq2[pipeline.RawRow, error] { return rowsAt(ctx, raw, at) }
			return &sub, rows, nil
		}
		if err := closeFile(raw); err != nil {
			return nil, nil, err
		}
	}
	// The file is gone or another one now.
	fields := src.CSV.Columns
	marks, err := l.marksOf(ctx, first)
	if err != nil {
		return nil, nil, err
	}
	for _, n := range names {
		marks = append(marks, s.files[n])
	}
	for _, m := range marks { // the name may be another file's by now, with other columns
		if m.Origin == first.Origin && len(m.Fields) > 0 {
			fields = m.Fields
		}
	}
	if len(fields) == 0 && !src.Objects() {
		return nil, nil, nil
	}
	raw := &pipeline.RawFile{
		Name: first.File, Origin: first.Origin, Generation: first.Generation, Fields: fields,
		ModTime: time.UnixMicro(first.Generation).UTC(),
	}
	var records []pipeline.RawRow
	var usable []*QuarantineRow
	for _, q := range rows {
		if !q.whole() {
			continue
		}
		rec, ok, err := l.splitText(ctx, src, fields, q)
		if err != nil {
			return nil, nil, err
		}
		if ok {
			records = append(records, rec)
			usable = append(usable, q)
		}
	}
	fillFromSlice(raw, records)
	return raw, usable, nil
}

// marksOf gives the files of the epoch that brought a row into quarantine; none, where its progress file is gone.
func (l *Lake) marksOf(ctx context.Context, q *QuarantineRow) ([]FileMark, error) {
	dir, file := path.Split(q.Progress)
	incarnation, ok := incarnationOf(dir)
	if !ok {
		return nil, nil
	}
	e := new(EpochFile)
	if err := l.progressLog(q.Source, incarnation).readJSON(ctx, file, e); err != nil && !errors.Is(err, errNoProgress) {
		return nil, err
	}
	return e.Files, nil
}

func closeFile(raw *pipeline.RawFile) error {
	if raw.Close == nil {
		return nil
	}
	return raw.Close()
}

// sameLines leaves out the rows whose positions are those of other records now: with another csv.header or csv.multiline than
// before, records are counted otherwise, and what stands at the position may be in the table already.
func sameLines(ctx context.Context, raw *pipeline.RawFile, at []int64, rows []*QuarantineRow) ([]*QuarantineRow, error) {
	lines := map[int64]int64{}
	for r, err := range rowsAt(ctx, raw, at) {
		if err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return rows, nil //nolint:nilerr // whoever reads the file next says why
		}
		lines[r.Position] = r.Line
	}
	var out []*QuarantineRow
	for _, q := range rows {
		if line, ok := lines[q.Position]; ok && line == q.Line {
			out = append(out, q)
		}
	}
	return out, nil
}

// fillFromSlice makes records in memory the content of a file.
func fillFromSlice(raw *pipeline.RawFile, records []pipeline.RawRow) {
	raw.Rows = func(context.Context) iter.Seq2[pipeline.RawRow, error] {
		return func(yield func(pipeline.RawRow, error) bool) {
			for _, r := range records {
				if !yield(r, nil) {
					return
				}
			}
		}
	}
	all := raw.Rows
	raw.RowsAt = func(ctx context.Context, at []int64) iter.Seq2[pipeline.RawRow, error] { return pick(all(ctx), at) }
}

// rowsAt reads the records at ascending positions.
func rowsAt(ctx context.Context, raw *pipeline.RawFile, at []int64) iter.Seq2[pipeline.RawRow, error] {
	if raw.RowsAt != nil {
		return raw.RowsAt(ctx, at)
	}
	return pick(raw.Rows(ctx), at)
}

// pick passes on the records at ascending positions.
func pick(rows iter.Seq2[pipeline.RawRow, error], at []int64) iter.Seq2[pipeline.RawRow, error] {
	return func(yield func(pipeline.RawRow, error) bool) {
		for r, err := range rows {
			if err != nil {
				yield(r, err)
				return
			}
			if _, ok := slices.BinarySearch(at, r.Position); ok && !yield(r, nil) {
				return
			}
		}
	}
}

// splitText splits the kept text of one record into its fields, as the source's files are split.
func (l *Lake) splitText(ctx context.Context, src *pipeline.Source, fields []string, q *QuarantineRow) (pipeline.RawRow, bool, error) {
	if src.Objects() {
		// The text is an object, whatever the file was; the engine takes it apart.
		return pipeline.RawRow{Position: q.Position, Line: q.Line, Offset: q.RawOffset, Values: []string{q.Raw}, Raw: q.Raw, RawBytes: q.RawBytes}, true, nil
	}
	one := *src
	one.CSV.Header, one.CSV.Columns, one.CSV.Encoding = pipeline.HeaderFalse, fields, "utf-8"
	store := textStore{key: "record.csv", text: q.Raw + "\n", at: time.UnixMicro(q.Generation).UTC()}
	raw, err := l.opener.Open(ctx, store, store.info(), &one)
	if err != nil {
		return pipeline.RawRow{}, false, ctx.Err()
	}
	if raw.Close != nil {
		defer func() { _ = raw.Close() }()
	}
	var out pipeline.RawRow
	n := 0
	for r, err := range raw.Rows(ctx) {
		if err != nil {
			return out, false, ctx.Err()
		}
		out = r
		n++
	}
	out.Position, out.Line, out.Offset, out.Warning = q.Position, q.Line, q.RawOffset, ""
	return out, n == 1, nil
}

// textStore is a store of one object in memory.
type textStore struct {
	key  string
	text string
	at   time.Time
}

var errReadOnly = errors.New("read-only")

func (s textStore) info() objstore.Info {
	return objstore.Info{Key: s.key, Size: int64(len(s.text)), ModTime: s.at}
}

func (s textStore) Get(_ context.Context, key string) (io.ReadCloser, objstore.Info, error) {
	if key != s.key {
		return nil, objstore.Info{}, fmt.Errorf("%s: %w", key, objstore.ErrNotFound)
	}
	return io.NopCloser(bytes.NewReader([]byte(s.text))), s.info(), nil
}

func (s textStore) GetRange(_ context.Context, key string, offset, n int64) ([]byte, error) {
	if key != s.key {
		return nil, fmt.Errorf("%s: %w", key, objstore.ErrNotFound)
	}
	size := int64(len(s.text))
	if offset < 0 {
		offset = max(0, size+offset)
	}
	offset = min(offset, size)
	if n < 0 || offset+n > size {
		n = size - offset
	}
	return []byte(s.text[offset : offset+n]), nil
}

func (s textStore) Stat(_ context.Context, key string) (objstore.Info, error) {
	if key != s.key {
		return objstore.Info{}, fmt.Errorf("%s: %w", key, objstore.ErrNotFound)
	}
	return s.info(), nil
}

func (s textStore) Put(_ context.Context, key string, _ io.Reader, _ objstore.PutOptions) error {
	return fmt.Errorf("%s: %w", key, errReadOnly)
}

func (s textStore) PutIfAbsent(_ context.Context, key string, _ []byte) error {
	return fmt.Errorf("%s: %w", key, errReadOnly)
}

func (s textStore) List(context.Context, string, string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) { yield(s.info(), nil) }
}

func (s textStore) Delete(_ context.Context, key string) error {
	return fmt.Errorf("%s: %w", key, errReadOnly)
}

func (s textStore) URL() string { return "memory:" }
