package sharing

import (
	"context"
	"iter"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/pipeline"
)

// The kinds of changes in a feed (PROTOCOL.md of Delta, "Add CDC File").
const (
	changeInsert    = "insert"
	changeDelete    = "delete"
	changePreimage  = "update_preimage"
	changePostimage = "update_postimage"
)

func changeFeed(config map[string]string) bool {
	return strings.EqualFold(config["delta.enableChangeDataFeed"], "true")
}

// stream answers a query with startingVersion: the files that each version added and removed.
func (s *Server) stream(ctx context.Context, w http.ResponseWriter, r *http.Request, who *Recipient, t *shared, table *delta.Table, q *queryRequest) error {
	if err := t.needHistory(true); err != nil {
		return err
	}
	latest, err := table.Snapshot(ctx)
	if err != nil {
		return err
	}
	from, to := *q.StartingVersion, latest.Version()
	if q.EndingVersion != nil {
		to = min(to, *q.EndingVersion)
	}
	if from > to {
		return badParameter("startingVersion %d: the newest version is %d", from, latest.Version())
	}
	snap, err := table.SnapshotAt(ctx, from)
	if err != nil {
		return err
	}
	commits, err := table.Actions(ctx, from, to)
	if err != nil {
		return err
	}
	a, err := s.newAnswer(r, who, *t, snap)
	if err != nil {
		return err
	}
	var headVersion *delta.Version
	if q.IncludeHistoricalProtocol {
		headVersion = &from
	}
	a.head(snap, &from, headVersion)
	for _, c := range commits {
		if err := a.historical(ctx, table, c, from, true, q.IncludeHistoricalProtocol); err != nil {
			return err
		}
		of := &change{c.Version, c.Time}
		if err := a.files(ctx, c, of); err != nil {
			return err
		}
	}
	return a.send(w, from)
}

// historical adds the metadata and the protocol that a version after the first one set. Of whose metadata the client is told the
// answer speaks from then on.
func (a *answer) historical(ctx context.Context, table *delta.Table, c delta.Actions, from delta.Version, metadata, protocol bool) error {
	if c.Version == from || c.Metadata == nil && c.Protocol == nil {
		return nil
	}
	snap, err := table.SnapshotAt(ctx, c.Version)
	if err != nil {
		return err
	}
	if metadata {
		a.at(snap)
	}
	if c.Metadata != nil && metadata {
		a.metadata(c.Metadata, &c.Version, nil, nil)
	}
	if c.Protocol != nil && protocol && a.format == formatDelta {
		a.protocol(*c.Protocol, &c.Version)
	}
	return nil
}

// files adds the data files that a version added and removed.
func (a *answer) files(ctx context.Context, c delta.Actions, of *change) error {
	one := func(kind string, add *delta.Add) error {
		key, err := a.info.FileKey(add.Path)
		if err != nil {
			return err
		}
		f := delta.File{Add: add, Key: key}
		if f.Deleted, err = delta.LoadVector(ctx, a.info, add.DeletionVector); err != nil {
			return err
		}
		return a.data(ctx, kind, f, of)
	}
	for _, r := range c.Removes {
		if r.DataChange {
			if err := one(lineRemove, asAdd(r)); err != nil {
				return err
			}
		}
	}
	for _, add := range c.Adds {
		if add.DataChange {
			if err := one(lineAdd, add); err != nil {
				return err
			}
		}
	}
	return nil
}

// asAdd is the file that a remove action took out of the table.
func asAdd(r *delta.Remove) *delta.Add {
	a := &delta.Add{Path: r.Path, PartitionValues: r.PartitionValues, DataChange: r.DataChange, DeletionVector: r.DeletionVector, Stats: r.Stats}
	if r.Size != nil {
		a.Size = *r.Size
	}
	return a
}

// changes is PROTOCOL.md, "Read Change Data Feed from a Table".
func (s *Server) changes(w http.ResponseWriter, r *http.Request, who *Recipient) error {
	ctx := r.Context()
	if err := echoFileIDHash(w, r); err != nil {
		return err
	}
	t, table, err := s.open(ctx, r, who)
	if err != nil {
		return err
	}
	if err := t.needHistory(true); err != nil {
		return err
	}
	from, to, err := changeRange(ctx, r, table)
	if err != nil {
		return err
	}
	commits, err := table.Actions(ctx, from, to)
	if err != nil {
		return err
	}
	first, err := table.SnapshotAt(ctx, from)
	if err != nil {
		return err
	}
	end, err := table.SnapshotAt(ctx, to)
	if err != nil {
		return err
	}
	a, err := s.newAnswer(r, who, t, end)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	metadata, protocol := isTrue(q.Get("includeHistoricalMetadata")), isTrue(q.Get("includeHistoricalProtocol"))
	switch {
	case metadata:
		var v *delta.Version
		if protocol {
			v = &from
		}
		a.head(first, &from, v)
		a.at(first)
	case protocol:
		a.protocol(first.Protocol(), &from)
		m, size, n := end.Metadata(), end.Bytes(), end.NumFiles()
		a.metadata(&m, &from, &size, &n)
	default:
		a.head(end, &from, nil) // all files are to be read with the schema of the end
	}
	recorded := changeFeed(first.Metadata().Configuration)
	for _, c := range commits {
		if c.Metadata != nil {
			recorded = changeFeed(c.Metadata.Configuration)
		}
		if !recorded {
			return errorf(http.StatusBadRequest, codeUnsupported, "table %s: the changes of version %d were not recorded: delta.enableChangeDataFeed was not true", t.name, c.Version)
		}
		if metadata || protocol {
			if err := a.historical(ctx, table, c, from, metadata, protocol); err != nil {
				return err
			}
		}
		if err := a.feed(ctx, table, c); err != nil {
			return err
		}
	}
	return a.send(w, from)
}

func isTrue(s string) bool { return strings.EqualFold(s, "true") }

// changeRange reads the versions between which changes are asked for, both included.
func changeRange(ctx context.Context, r *http.Request, table *delta.Table) (from, to delta.Version, err error) {
	q := r.URL.Query()
	start, err := versionParameter(r, "startingVersion")
	if err != nil {
		return 0, 0, err
	}
	end, err := versionParameter(r, "endingVersion")
	if err != nil {
		return 0, 0, err
	}
	since, until := q.Get("startingTimestamp"), q.Get("endingTimestamp")
	switch {
	case start == nil && since == "":
		return 0, 0, badParameter("startingVersion or startingTimestamp is missing")
	case start != nil && since != "":
		return 0, 0, badParameter("startingVersion and startingTimestamp exclude each other")
	case end != nil && until != "":
		return 0, 0, badParameter("endingVersion and endingTimestamp exclude each other")
	}
	latest, err := table.Snapshot(ctx)
	if err != nil {
		return 0, 0, err
	}
	parse := func(name, text string) (time.Time, error) {
		at, err := parseTimestamp(text)
		if err != nil {
			return at, badParameter("%s: %v", name, err)
		}
		return at, nil
	}
	if start != nil {
		from = *start
	} else {
		at, err := parse("startingTimestamp", since)
		if err != nil {
			return 0, 0, err
		}
		if from, err = firstSince(ctx, table, at); err != nil {
			return 0, 0, err
		}
	}
	to = latest.Version()
	switch {
	case end != nil:
		to = min(to, *end)
	case until != "":
		at, err := parse("endingTimestamp", until)
		if err != nil {
			return 0, 0, err
		}
		if to, err = table.VersionAsOf(ctx, at); err != nil {
			return 0, 0, err
		}
	}
	if from > latest.Version() {
		return 0, 0, badParameter("startingVersion %d: the newest version is %d", from, latest.Version())
	}
	if from > to {
		return 0, 0, badParameter("the changes from version %d to version %d: the end lies before the start", from, to)
	}
	return from, to, nil
}

// feed adds the changes of one version: as the files that the table has, or rewritten where rows of them are hidden, are
// told only by deletion vectors, or have mapped names.
func (a *answer) feed(ctx context.Context, table *delta.Table, c delta.Actions) error {
	of := &change{c.Version, c.Time}
	direct := !a.table.deletes && (a.plain || a.format == formatDelta)
	if len(c.CDC) > 0 && direct {
		// PROTOCOL.md of Delta, "Add CDC File": where a version has cdc files, they are all that counts.
		return a.cdc(ctx, c.CDC, of)
	}
	touched := len(c.CDC) > 0
	for _, f := range c.Adds {
		touched = touched || f.DataChange
		direct = direct && f.DeletionVector == nil
	}
	for _, f := range c.Removes {
		touched = touched || f.DataChange
		direct = direct && f.DeletionVector == nil
	}
	if !touched {
		return nil
	}
	if direct {
		return a.files(ctx, c, of)
	}
	info, as := a.copyInfo(), a.snap
	schema := *info.Schema
	schema.Fields = append(append([]delta.Field{}, schema.Fields...), delta.Field{Name: delta.ChangeTypeColumn, Type: delta.String, Nullable: true})
	info.Schema = &schema
	id := copyID("changes", a.info.Path, strconv.FormatInt(int64(c.Version), 10), c.Time.UTC().Format(time.RFC3339Nano), a.format, info.Schema.JSON())
	files, err := a.s.copies.get(ctx, a.table.name, id, info, func(ctx context.Context) (delta.Rows, error) {
		return newChangeRows(ctx, table, c.Version, as, &a.table)
	})
	if err != nil {
		return err
	}
	a.copied(lineCDF, id, files, of)
	return nil
}

func (a *answer) cdc(ctx context.Context, files []*delta.CDC, of *change) error {
	version, ms := of.fields()
	for _, f := range files {
		key, err := a.info.FileKey(f.Path)
		if err != nil {
			return err
		}
		u, err := a.s.dataURL(ctx, a.base, key, a.who, a.expires)
		if err != nil {
			return err
		}
		if a.format == formatParquet {
			a.put(lineCDF, parquetFile{URL: u, ID: a.fileID(f.Path), PartitionValues: values(f.PartitionValues), Size: f.Size, Version: version, Timestamp: ms, Expires: a.expires.UnixMilli()})
			continue
		}
		c := *f
		c.Path = u
		a.put(lineFile, deltaFile{ID: a.fileID(f.Path), Size: f.Size, Version: version, Timestamp: ms, Expires: a.expires.UnixMilli(), Action: map[string]any{"cdc": &c}})
	}
	return nil
}

// changeRows are the changes of one version as a recipient may see them. A row that stands for a deletion is none: the
// update that made a row one is the deletion of what was there before, and the update of such a row is an insertion.
type changeRows struct {
	feed   *delta.ChangeFeed
	hide   bool
	key    []string
	n      int64
	schema *arrow.Schema
	// Keys of updates whose other half is not seen.
	lostPost, lostPre map[string]bool
}

// newChangeRows are the changes of a version with the schema that the table has in another one.
func newChangeRows(ctx context.Context, table *delta.Table, v delta.Version, as *delta.Snapshot, t *shared) (*changeRows, error) {
	feed, err := table.Changes(ctx, delta.ChangesOptions{From: v, To: v, As: as})
	if err != nil {
		return nil, err
	}
	latest, err := table.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	c := &changeRows{feed: feed, lostPost: map[string]bool{}, lostPre: map[string]bool{}}
	key := t.key
	if len(key) == 0 {
		key = []string{pipeline.ColumnOrigin, pipeline.ColumnPosition}
	}
	for _, k := range key { // as the newest version names it
		is, _ := latest.Schema().Field(k)
		for _, was := range as.Schema().Fields {
			if was.PhysicalName() == is.PhysicalName() {
				c.key = append(c.key, was.Name)
			}
		}
	}
	_, has := feed.Schema.Field(pipeline.ColumnDeleted)
	c.hide = t.deletes && has
	fields := feed.Schema.Arrow().Fields()
	c.schema = arrow.NewSchema(fields[:len(fields)-2], nil) // version and time are the protocol's to tell
	for b, err := range feed.Batches(ctx) {
		if err != nil {
			return nil, err
		}
		kinds, deleted := c.columns(b)
		for i := range int(b.NumRows()) {
			if !c.hide || !isDeleted(deleted, i) {
				c.n++
				continue
			}
			switch kinds.Value(i) {
			case changePostimage:
				c.lostPost[c.keyOf(b, i)] = true
			case changePreimage:
				c.lostPre[c.keyOf(b, i)] = true
			}
		}
	}
	return c, nil
}

func (c *changeRows) columns(b arrow.RecordBatch) (kinds *array.String, deleted *array.Boolean) {
	kinds, _ = b.Column(int(b.NumCols()) - 3).(*array.String)
	if i := c.feed.Schema.Index(pipeline.ColumnDeleted); i >= 0 {
		deleted, _ = b.Column(i).(*array.Boolean)
	}
	return kinds, deleted
}

func isDeleted(a *array.Boolean, i int) bool { return a != nil && a.IsValid(i) && a.Value(i) }

func (c *changeRows) keyOf(b arrow.RecordBatch, i int) string {
	var sb strings.Builder
	for _, k := range c.key {
		col := b.Column(c.feed.Schema.Index(k))
		if col.IsNull(i) {
			sb.WriteByte(0)
		} else {
			sb.WriteByte(1)
			sb.WriteString(col.ValueStr(i))
		}
		sb.WriteByte(0)
	}
	return sb.String()
}

// Schema implements delta.Rows.
func (c *changeRows) Schema() *arrow.Schema { return c.schema }

// NumRows implements delta.Rows.
func (c *changeRows) NumRows() int64 { return c.n }

// Read implements delta.Rows for whoever wants all of them, as the writer of copies does.
func (c *changeRows) Read(ctx context.Context, columns []string, _ *roaring64.Bitmap) iter.Seq2[arrow.RecordBatch, error] {
	return func(yield func(arrow.RecordBatch, error) bool) {
		for b, err := range c.feed.Batches(ctx) {
			if err != nil {
				yield(nil, err)
				return
			}
			seen, err := c.visible(ctx, b)
			if err != nil {
				yield(nil, err)
				return
			}
			if seen == nil {
				continue
			}
			rows := delta.NewRows(seen.Schema(), seen)
			seen.Release()
			more := true
			for out, err := range rows.Read(ctx, columns, nil) {
				if more = yield(out, err); !more {
					break
				}
			}
			_ = rows.Close() // only releases memory
			if !more {
				return
			}
		}
	}
}

// visible is a batch of the feed without what is hidden, and without version and time; nil if nothing is left. The caller
// releases it.
func (c *changeRows) visible(ctx context.Context, b arrow.RecordBatch) (arrow.RecordBatch, error) {
	kinds, deleted := c.columns(b)
	kept := roaring64.New()
	told := array.NewStringBuilder(memory.DefaultAllocator)
	defer told.Release()
	for i := range int(b.NumRows()) {
		kind := kinds.Value(i)
		if c.hide {
			switch {
			case isDeleted(deleted, i):
				continue
			case kind == changePreimage && len(c.lostPost) > 0 && c.lostPost[c.keyOf(b, i)]:
				kind = changeDelete
			case kind == changePostimage && len(c.lostPre) > 0 && c.lostPre[c.keyOf(b, i)]:
				kind = changeInsert
			}
		}
		kept.Add(uint64(i))
		told.Append(kind)
	}
	if kept.IsEmpty() {
		return nil, nil
	}
	all := delta.NewRows(b.Schema(), b)
	defer all.Close()
	own := int(b.NumCols()) - 3
	for sub, err := range all.Read(ctx, nil, kept) { // one batch gives one batch
		if err != nil {
			return nil, err
		}
		kind := told.NewStringArray()
		defer kind.Release()
		fields := b.Schema().Fields()
		return array.NewRecordBatch(arrow.NewSchema(fields[:own+1], nil), append(append([]arrow.Array{}, sub.Columns()[:own]...), kind), sub.NumRows()), nil
	}
	return nil, nil
}
