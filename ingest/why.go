package ingest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/pipeline"
)

// ErrNoRow is returned (wrapped) by Why for a key that no row has, or had in the versions that can still be read.
var ErrNoRow = errors.New("no row has this key")

// WhyReport says where a row came from, and what it was before.
type WhyReport struct {
	Table string   `json:"table"`
	Key   []string `json:"key"`
	// Live tells that the table's newest version has the row, and not as a deleted one.
	Live bool `json:"live"`
	// Versions are the row as each commit that wrote it did, newest first.
	Versions []RowVersion `json:"versions"`
	// Oldest is the oldest version of the table that the log still has; what was written before it is not among Versions.
	Oldest delta.Version `json:"oldest"`
	// Vacuumed counts data files that may have held the row and are gone.
	Vacuumed int `json:"vacuumed"`
}

// RowVersion is a row as one commit wrote it.
type RowVersion struct {
	// Version is that of the commit; -1 where the log no longer has it.
	Version   delta.Version `json:"version"`
	Time      time.Time     `json:"time"`
	Operation string        `json:"operation,omitempty"`
	Columns   []Value       `json:"columns"`
	// Deleted tells that the record deleted the row: what the table keeps of it, queries do not see.
	Deleted bool      `json:"deleted,omitempty"`
	Origin  RowOrigin `json:"origin"`
}

// Value is one column of a row. Text is nil for null.
type Value struct {
	Name string  `json:"name"`
	Text *string `json:"value"`
}

// RowOrigin is the record that a row was made of.
type RowOrigin struct {
	Kind       string `json:"kind"` // file, rest, or the kind of the stream: kafka …
	Origin     string `json:"origin"`
	Position   int64  `json:"position"`
	Generation int64  `json:"generation,omitempty"`
	Rank       int64  `json:"rank"`
	// Source, Epoch and Progress say which run took it.
	Source   string `json:"source,omitempty"`
	Epoch    int64  `json:"epoch,omitempty"`
	Progress string `json:"progress,omitempty"`

	// For files: the names under which the content was read, and where in it the record stands, while the file is there.
	Files []string `json:"files,omitempty"`
	Line  int64    `json:"line,omitempty"`
	Raw   string   `json:"raw,omitempty"`
	Gone  bool     `json:"gone,omitempty"` // the file is no longer there, or is another one now
	// For streams; for repairs Topic is the series and Offset the id.
	Incarnation string `json:"incarnation,omitempty"`
	Topic       string `json:"topic,omitempty"`
	Partition   int64  `json:"partition"`
	Offset      int64  `json:"offset"`
	// Message is the message's id, where it has no offset (Pub/Sub); Position is its time of publishing then.
	Message string `json:"message,omitempty"`
}

// whyFilesMax bounds the data files that are searched at once.
const whyFilesMax = 512

// Why tells where the row with a key came from. key has a text for each column of the table's key (for a table without
// one: _origin and _position). UsageError for a key that does not fit; ErrNoRow.
func (l *Lake) Why(ctx context.Context, table string, key []string) (*WhyReport, error) {
	decl := l.lake.Table(table)
	if decl == nil {
		_, err := l.catalog.Path(table)
		if err == nil {
			err = &UsageError{fmt.Sprintf("table %s is the lake's own: its rows have no origin", table)}
		}
		return nil, err
	}
	t, err := l.catalog.Open(ctx, decl.Name)
	if errors.Is(err, delta.ErrNotATable) {
		return nil, fmt.Errorf("table %s: nothing has been written yet: %w", decl.Name, ErrNoRow)
	}
	if err != nil {
		return nil, err
	}
	snap, err := t.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	columns := decl.MergeKey()
	source, where, err := keyRow(snap.Schema(), columns, key)
	if err != nil {
		return nil, err
	}
	defer source.Close()
	r := &WhyReport{Table: decl.Name, Key: key, Versions: []RowVersion{}}
	w := &whySearch{l: l, decl: decl, snap: snap, columns: columns, source: source, states: map[string]*progressState{}}

	live, err := snap.Files(ctx, where)
	if err != nil {
		return nil, err
	}
	now, err := w.rows(ctx, live, nil)
	if err != nil {
		return nil, err
	}
	r.Live = slices.ContainsFunc(now, func(v RowVersion) bool { return !v.Deleted })
	var files []delta.File
	var of []delta.Written
	search := func() error {
		found, err := w.rows(ctx, files, of)
		r.Versions = append(r.Versions, found...)
		files, of = nil, nil
		return err
	}
	for c, err := range t.Written(ctx, where) {
		if err != nil {
			return nil, err
		}
		r.Oldest = c.Version
		for _, f := range c.Files {
			if _, err := l.store.Stat(ctx, f.Key); errors.Is(err, objstore.ErrNotFound) {
				r.Vacuumed++
				continue
			} else if err != nil {
				return nil, err
			}
			files, of = append(files, f), append(of, c)
		}
		if len(files) >= whyFilesMax {
			if err := search(); err != nil {
				return nil, err
			}
		}
	}
	if err := search(); err != nil {
		return nil, err
	}
	// A row that copy-on-write, an update of others in its file, carried along was written by the oldest of those commits.
	slices.SortStableFunc(r.Versions, func(a, b RowVersion) int { return int(b.Version - a.Version) })
	for i := len(r.Versions) - 1; i > 0; i-- {
		if sameRow(r.Versions[i-1], r.Versions[i]) {
			r.Versions = slices.Delete(r.Versions, i-1, i)
		}
	}
	if len(now) > 0 && (len(r.Versions) == 0 || !slices.ContainsFunc(r.Versions, func(v RowVersion) bool { return sameRow(v, now[0]) })) {
		now[0].Version = -1 // the commit that wrote it is no longer in the log
		r.Versions = append([]RowVersion{now[0]}, r.Versions...)
	}
	if len(r.Versions) == 0 {
		return nil, fmt.Errorf("table %s, key %s: %w, nor had one in version %d or later; cauce quarantine show lists what was refused",
			decl.Name, strings.Join(key, ", "), ErrNoRow, r.Oldest)
	}
	for i := range r.Versions {
		if err := w.trace(ctx, &r.Versions[i]); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func sameRow(a, b RowVersion) bool {
	if a.Origin.Origin != b.Origin.Origin || a.Origin.Position != b.Origin.Position || a.Origin.Generation != b.Origin.Generation || a.Origin.Rank != b.Origin.Rank {
		return false
	}
	return slices.EqualFunc(a.Columns, b.Columns, func(x, y Value) bool {
		return x.Name == y.Name && (x.Text == nil) == (y.Text == nil) && (x.Text == nil || *x.Text == *y.Text)
	})
}

// keyRow makes a relation of one row of a key's texts, and what can be told of files that hold it.
func keyRow(s *delta.Schema, columns, key []string) (*delta.MemoryRows, delta.Predicate, error) {
	if len(key) != len(columns) {
		return nil, nil, &UsageError{fmt.Sprintf("the key has %d columns (%s), not %d", len(columns), strings.Join(columns, ", "), len(key))}
	}
	var fields []arrow.Field
	var where []delta.Predicate
	for i, c := range columns {
		f, ok := s.Field(c)
		if !ok {
			return nil, nil, fmt.Errorf("the table has no column %s", c)
		}
		one := &delta.Schema{Fields: []delta.Field{f}}
		fields = append(fields, one.Arrow().Field(0))
		switch f.Type {
		case delta.String:
			where = append(where, delta.Compare{Column: c, Op: "=", Value: key[i]})
		case delta.Long, delta.Integer:
			if n, err := strconv.ParseInt(key[i], 10, 64); err == nil {
				where = append(where, delta.Compare{Column: c, Op: "=", Value: n})
			}
		}
	}
	schema := arrow.NewSchema(fields, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	for i := range columns {
		if err := b.Field(i).AppendValueFromString(key[i]); err != nil {
			return nil, nil, &UsageError{fmt.Sprintf("%q is no value of the key's column %s %s: %v", key[i], columns[i], fields[i].Type, err)}
		}
	}
	return memoryRows(schema, b), delta.And(where...), nil
}

type whySearch struct {
	l       *Lake
	decl    *pipeline.Table
	snap    *delta.Snapshot
	columns []string
	source  *delta.MemoryRows
	states  map[string]*progressState // by source, of files
}

// rows reads the rows with the key out of files; of says which commit wrote each file, nil for none.
func (w *whySearch) rows(ctx context.Context, files []delta.File, of []delta.Written) ([]RowVersion, error) {
	if len(files) == 0 {
		return nil, nil
	}
	eng, pure := w.l.engine.Delta(), delta.PureGo()
	if eng.Locator == nil || eng.Reader == nil {
		eng.Locator, eng.Reader = pure.Locator, pure.Reader
	}
	info := w.snap.TableInfo()
	m, err := eng.Locator.Locate(ctx, info, files, w.source, w.columns, nil)
	if err != nil {
		return nil, err
	}
	defer m.Release()
	at := map[int]*roaring64.Bitmap{}
	for _, x := range m.Match {
		if at[x.File] == nil {
			at[x.File] = roaring64.New()
		}
		at[x.File].Add(uint64(x.Row))
	}
	var out []RowVersion
	for i, f := range files {
		if at[i] == nil {
			continue
		}
		for b, err := range eng.Reader.Read(ctx, info, []delta.File{f}, delta.ReadOptions{Rows: []*roaring64.Bitmap{at[i]}}) {
			if err != nil {
				return nil, err
			}
			for row := range int(b.NumRows()) {
				v := rowVersion(b, row)
				v.Deleted = slices.ContainsFunc(v.Columns, func(c Value) bool {
					return c.Name == pipeline.ColumnDeleted && c.Text != nil && *c.Text == "true"
				})
				if of != nil {
					v.Version, v.Time, v.Operation, v.Origin.Progress = of[i].Version, of[i].Time, of[i].Info.Operation, of[i].Info.UserMetadata
				}
				out = append(out, v)
			}
		}
	}
	return out, nil
}

func rowVersion(b arrow.RecordBatch, row int) RowVersion {
	var v RowVersion
	for c, f := range b.Schema().Fields() {
		col := b.Column(c)
		var text *string
		if !col.IsNull(row) {
			s := strings.Clone(col.ValueStr(row))
			text = &s
		}
		number := func() int64 {
			if text == nil {
				return 0
			}
			n, err := strconv.ParseInt(*text, 10, 64)
			if err != nil {
				return 0 // a table whose system columns are somebody else's
			}
			return n
		}
		switch f.Name {
		case pipeline.ColumnOrigin:
			if text != nil {
				v.Origin.Origin = *text
			}
		case pipeline.ColumnPosition:
			v.Origin.Position = number()
		case pipeline.ColumnGeneration:
			v.Origin.Generation = number()
		case pipeline.ColumnRank:
			v.Origin.Rank = number()
		default:
			v.Columns = append(v.Columns, Value{f.Name, text})
		}
	}
	return v
}

// trace follows a row to its record.
func (w *whySearch) trace(ctx context.Context, v *RowVersion) error {
	o := &v.Origin
	if rest, ok := strings.CutPrefix(o.Progress, ProgressPath+"/"); ok {
		if parts := strings.Split(rest, "/"); len(parts) == 3 {
			if name, err := url.PathUnescape(parts[0]); err == nil {
				o.Source = name
			}
			if n, ok := epochOf(parts[2]); ok {
				o.Epoch = n
			}
		}
	} else {
		o.Progress = "" // of a commit that is none of the lake's runs
	}
	if strings.HasPrefix(o.Origin, "f:") {
		o.Kind = "file"
		return w.file(ctx, o)
	}
	// <kind>:<incarnation>:<topic>/<partition>, or /<message id> where there are no partitions; an incarnation holds no colon.
	kind, rest, _ := strings.Cut(o.Origin, ":")
	inc, topic, _ := strings.Cut(rest, ":")
	o.Kind, o.Incarnation, o.Offset = kind, inc, o.Position
	if i := strings.LastIndexByte(topic, '/'); i >= 0 {
		o.Topic = topic[:i]
		if kind == pipeline.KindPubSub {
			o.Message, o.Offset = topic[i+1:], 0
			return nil
		}
		if n, err := strconv.ParseInt(topic[i+1:], 10, 32); err == nil {
			o.Partition = n
		}
	}
	return nil
}

// file finds the names of a content, and the record in it.
func (w *whySearch) file(ctx context.Context, o *RowOrigin) error {
	for _, src := range w.l.lake.Sources {
		if src.Table != w.decl.Name || src.Streaming() || o.Source != "" && o.Source != src.Name {
			continue
		}
		s := w.states[src.Name]
		if s == nil {
			var err error
			if s, err = w.l.progressLog(src.Name, FilesIncarnation).load(ctx, w.snap); err != nil {
				return err
			}
			w.states[src.Name] = s
		}
		for name, m := range s.files {
			if m.Origin == o.Origin {
				o.Files = append(o.Files, name)
			}
		}
		slices.Sort(o.Files)
		if len(o.Files) == 0 {
			continue
		}
		o.Source, o.Gone = src.Name, true
		for _, name := range o.Files {
			ok, err := w.record(ctx, src, name, o)
			if err != nil {
				return err
			}
			if ok {
				o.Gone = false
				break
			}
		}
		return nil
	}
	o.Gone = true
	return nil
}

// record reads the record out of a file, if that is still the one.
func (w *whySearch) record(ctx context.Context, src *pipeline.Source, name string, o *RowOrigin) (bool, error) {
	info, err := w.l.store.Stat(ctx, name)
	if errors.Is(err, objstore.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if w.l.opener == nil {
		return false, nil
	}
	raw, err := w.l.opener.Open(ctx, w.l.store, info, src)
	if err != nil {
		return false, ctx.Err() // it cannot be read any more: the row is what is left of it
	}
	if raw.Close != nil {
		defer func() { _ = raw.Close() }() // a temporary copy
	}
	if raw.Origin != o.Origin {
		return false, nil
	}
	for r, err := range rowsAt(ctx, raw, []int64{o.Position}) {
		if err != nil {
			return false, ctx.Err()
		}
		o.Line, o.Raw = r.Line, r.Raw
	}
	return true, nil
}
