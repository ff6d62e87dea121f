package delta

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

// Columns that a change feed adds to those of the table (PROTOCOL.md, "Add CDC File").
const (
	ChangeTypeColumn      = "_change_type"      // string: insert, delete, update_preimage, update_postimage
	CommitVersionColumn   = "_commit_version"   // long
	CommitTimestampColumn = "_commit_timestamp" // timestamp
)

const (
	changeInsert = "insert"
	changeDelete = "delete"
)

// ErrNoChangeData says that the changes of a version were not recorded: delta.enableChangeDataFeed was not set.
var ErrNoChangeData = errors.New("change data was not recorded")

// ChangesOptions say which part of the change feed is wanted.
type ChangesOptions struct {
	From Version // the first version whose changes are wanted
	To   Version // the last one; below 0: the newest
	// As is the version whose schema the rows have; nil: To.
	As *Snapshot
}

// ChangeFeed is the change feed of some versions of a table.
type ChangeFeed struct {
	Schema   *Schema // the columns of the table at version To, or as ChangesOptions.As has them, then those of the feed
	From, To Version

	table   *Table
	end     *Snapshot
	enabled bool     // before From
	mapped  bool     // before From
	parted  []string // before From: the table's partition columns, by their names in Schema
	times   map[Version]time.Time
}

// Changes opens the change feed of the table (PROTOCOL.md, "Add CDC File"). Rows have the schema of the last version, unless
// ChangesOptions.As is another.
// ErrNoChangeData (when the feed is read) for a version without delta.enableChangeDataFeed; VersionError for versions that do not exist or
// whose log entries are gone.
func (t *Table) Changes(ctx context.Context, o ChangesOptions) (*ChangeFeed, error) {
	latest, err := t.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	if o.To >= 0 && o.From > o.To {
		return nil, fmt.Errorf("%w: the changes from version %d to %d: the first comes behind the last", ErrVersionNotFound, o.From, o.To)
	}
	if o.To < 0 {
		o.To = latest.version
	}
	if o.From < 0 || o.From > o.To || o.To > latest.version {
		v := o.To
		if o.From < 0 || o.To <= latest.version {
			v = o.From
		}
		return nil, &VersionError{Version: v, Latest: latest.version}
	}
	seg, err := t.list(ctx, o.From)
	if err != nil {
		return nil, err
	}
	if o.From == 0 || len(seg.commits) == 0 || seg.commits[0].version > o.From {
		if seg, err = t.list(ctx, 0); err != nil {
			return nil, err
		}
	}
	commits, ok := seg.between(o.From-1, o.To)
	if !ok {
		e := &VersionError{Version: o.From, Latest: latest.version}
		if len(commits) > 0 {
			e.Earliest = commits[0].version
		}
		return nil, e
	}
	end, err := t.SnapshotAt(ctx, o.To)
	if err != nil {
		return nil, err
	}
	times, err := t.commitTimes(ctx, end, segment{commits: commits})
	if err != nil {
		return nil, err
	}
	if o.As != nil {
		end = o.As
	}
	f := &ChangeFeed{From: o.From, To: o.To, table: t, end: end, times: map[Version]time.Time{}, Schema: &Schema{}}
	for _, c := range []string{ChangeTypeColumn, CommitVersionColumn, CommitTimestampColumn} {
		if _, taken := end.schema.Field(c); taken {
			return nil, fmt.Errorf("%w: the table has a column %q of its own", ErrSchemaMismatch, c)
		}
	}
	f.Schema.Fields = append(append(f.Schema.Fields, end.schema.Fields...),
		Field{Name: ChangeTypeColumn, Type: String}, Field{Name: CommitVersionColumn, Type: Long}, Field{Name: CommitTimestampColumn, Type: Timestamp})
	for _, e := range times {
		f.times[e.version] = e.at
	}
	if o.From > 0 {
		// The version before may be gone already; then the first commit with metadata, or the end, tells.
		if before, err := t.SnapshotAt(ctx, o.From-1); err == nil {
			f.enabled, f.mapped, f.parted = on(before.metadata, propChangeFeed), before.mapped(), f.partitioning(before.metadata)
		} else if first, ferr := t.SnapshotAt(ctx, o.From); ferr == nil {
			f.enabled, f.mapped, f.parted = on(first.metadata, propChangeFeed), first.mapped(), f.partitioning(first.metadata)
		} else {
			return nil, err
		}
	}
	return f, nil
}

// partitioning gives the partition columns of an earlier version by the names that they have at the end: its files lack
// those, whatever the table is partitioned by later.
func (f *ChangeFeed) partitioning(m *Metadata) []string {
	s, err := ParseSchema(m.SchemaString)
	if err != nil {
		return f.end.PartitionBy()
	}
	var out []string
	for _, name := range m.PartitionColumns {
		was, ok := s.Field(name)
		for _, is := range f.end.schema.Fields {
			if ok && is.PhysicalName() == was.PhysicalName() {
				out = append(out, is.Name)
			}
		}
	}
	return out
}

const propChangeFeed = "delta.enableChangeDataFeed"

// Batches yields the changes, version by version. A batch must not be kept beyond its iteration step without Retain.
func (f *ChangeFeed) Batches(ctx context.Context) iter.Seq2[arrow.RecordBatch, error] {
	return func(yield func(arrow.RecordBatch, error) bool) {
		enabled, mapped, parted := f.enabled, f.mapped, f.parted
		for v := f.From; v <= f.To; v++ {
			c, _, err := f.table.readCommit(ctx, v)
			before := parted
			if err == nil && c.metadata != nil {
				parted = f.partitioning(c.metadata)
				enabled, mapped = on(c.metadata, propChangeFeed), mappingOf(c.metadata.Configuration) != mapNone
			}
			if err == nil && mapped && !f.end.mapped() {
				err = fmt.Errorf("%w: version %d of %s: its columns were mapped, and the mapping has been removed since (DELTA_CHANGE_DATA_FEED_INCOMPATIBLE_SCHEMA_CHANGE)", ErrNoChangeData, v, f.table)
			}
			if err == nil && !enabled {
				err = fmt.Errorf("%w: version %d of %s: delta.enableChangeDataFeed was not true", ErrNoChangeData, v, f.table)
			}
			if err != nil {
				yield(nil, err)
				return
			}
			if more, err := f.commit(ctx, c, before, parted, yield); err != nil {
				yield(nil, err)
				return
			} else if !more {
				return
			}
		}
	}
}

// commit yields the changes of one version, whose files are partitioned by the columns after, and those that it removes by
// the columns before.
func (f *ChangeFeed) commit(ctx context.Context, c *commit, before, after []string, yield func(arrow.RecordBatch, error) bool) (more bool, err error) {
	info := f.end.TableInfo()
	info.PartitionBy = after
	removed := info
	removed.PartitionBy = before
	if len(c.cdc) > 0 {
		// PROTOCOL.md, "Add CDC File": where a version has cdc files, they are all that counts.
		files := make([]File, len(c.cdc))
		for i, a := range c.cdc {
			key, err := info.FileKey(a.Path)
			if err != nil {
				return false, err
			}
			files[i] = File{Add: &Add{Path: a.Path, PartitionValues: a.PartitionValues, Size: a.Size}, Key: key}
		}
		wide := *info.Schema
		wide.Fields = append(append([]Field{}, wide.Fields...), Field{Name: ChangeTypeColumn, Type: String, Nullable: true, Metadata: byNameMetadata})
		info.Schema = &wide
		return f.read(ctx, info, files, nil, "", c.version, yield)
	}
	type side struct {
		path string
		pv   map[string]*string
		dv   *DeletionVector
		size int64
	}
	var order []string // paths as they come, removes first
	gone, come := map[string][]side{}, map[string][]side{}
	note := func(m map[string][]side, s side) {
		k := canonicalPath(s.path)
		if len(gone[k])+len(come[k]) == 0 {
			order = append(order, k)
		}
		m[k] = append(m[k], s)
	}
	for _, r := range c.removes {
		if !r.DataChange {
			continue
		}
		s := side{path: r.Path, pv: r.PartitionValues, dv: r.DeletionVector}
		if len(removed.PartitionBy) > 0 && r.PartitionValues == nil {
			return false, fmt.Errorf("%w: version %d: the removed file %s has no partition values, so its rows cannot be told", ErrNoChangeData, c.version, r.Path)
		}
		note(gone, s)
	}
	for _, a := range c.adds {
		if a.DataChange {
			note(come, side{path: a.Path, pv: a.PartitionValues, dv: a.DeletionVector, size: a.Size})
		}
	}
	file := func(s side) (File, error) {
		key, err := info.FileKey(s.path)
		if err != nil {
			return File{}, err
		}
		fl := File{Add: &Add{Path: s.path, PartitionValues: s.pv, Size: s.size, DeletionVector: s.dv}, Key: key}
		fl.Deleted, err = LoadVector(ctx, info, s.dv)
		return fl, err
	}
	for _, k := range order {
		old, now := gone[k], come[k]
		if len(old) == 1 && len(now) == 1 {
			// One file with another vector: only the rows in which the vectors differ changed.
			was, err := file(old[0])
			if err != nil {
				return false, err
			}
			is, err := file(now[0])
			if err != nil {
				return false, err
			}
			for _, d := range []struct {
				kind string
				info TableInfo
				rows *roaring64.Bitmap
				in   File
			}{{changeDelete, removed, vectorMinus(is.Deleted, was.Deleted), was}, {changeInsert, info, vectorMinus(was.Deleted, is.Deleted), is}} {
				if d.rows.IsEmpty() {
					continue
				}
				if more, err := f.read(ctx, d.info, []File{d.in}, []*roaring64.Bitmap{d.rows}, d.kind, c.version, yield); err != nil || !more {
					return more, err
				}
			}
			continue
		}
		for _, d := range []struct {
			kind  string
			info  TableInfo
			sides []side
		}{{changeDelete, removed, old}, {changeInsert, info, now}} {
			for _, s := range d.sides {
				fl, err := file(s)
				if err != nil {
					return false, err
				}
				if more, err := f.read(ctx, d.info, []File{fl}, nil, d.kind, c.version, yield); err != nil || !more {
					return more, err
				}
			}
		}
	}
	return true, nil
}

// vectorMinus is a without b; nil sets are empty.
func vectorMinus(a, b *roaring64.Bitmap) *roaring64.Bitmap {
	switch {
	case a == nil:
		return roaring64.New()
	case b == nil:
		return a.Clone()
	}
	return roaring64.AndNot(a, b)
}

// read yields the rows of files as changes of one kind; "": the files tell it themselves.
func (f *ChangeFeed) read(ctx context.Context, info TableInfo, files []File, rows []*roaring64.Bitmap, kind string, v Version, yield func(arrow.RecordBatch, error) bool) (more bool, err error) {
	schema := f.Schema.Arrow()
	for b, err := range f.table.engine().Reader.Read(ctx, info, files, ReadOptions{Rows: rows}) {
		if err != nil {
			return false, fmt.Errorf("changes of version %d: %w", v, err)
		}
		out, err := f.batch(schema, b, kind, v)
		if err != nil {
			return false, err
		}
		ok := yield(out, nil)
		out.Release()
		if !ok {
			return false, nil
		}
	}
	return true, nil
}

func (f *ChangeFeed) batch(schema *arrow.Schema, b arrow.RecordBatch, kind string, v Version) (arrow.RecordBatch, error) {
	n := int(b.NumRows())
	own := len(f.end.schema.Fields)
	cols := append([]arrow.Array{}, b.Columns()[:own]...)
	var made []arrow.Array
	defer func() {
		for _, c := range made {
			c.Release()
		}
	}()
	if kind == "" {
		cols = append(cols, b.Column(own))
	}
	add := func(t Type, val any) error {
		c, err := constant(t, val, n)
		if err == nil {
			made, cols = append(made, c), append(cols, c)
		}
		return err
	}
	if kind != "" {
		if err := add(String, kind); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(add(Long, int64(v)), add(Timestamp, f.times[v])); err != nil {
		return nil, err
	}
	fields := schema.Fields()
	for i := range own { // an engine may name the inner fields of nested types its own way
		fields[i].Type = cols[i].DataType()
	}
	return array.NewRecordBatch(arrow.NewSchema(fields, nil), cols, int64(n)), nil
}

// byNameMetadata marks a column that the protocol finds by its name in any mode of column mapping: those that are not
// in the table's schema (_change_type of cdc files, materialised row ids).
var byNameMetadata = map[string]any{byNameKey: true}

const byNameKey = "\x00by name"
