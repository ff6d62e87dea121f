package delta

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// Columns that a scan with ScanOptions.RowTracking gives beside those of the table, under Spark's names.
const (
	RowIDColumn            = "_metadata.row_id"             // long: stays while the row is changed and moved
	RowCommitVersionColumn = "_metadata.row_commit_version" // long: in which the row was inserted or last changed
)

// rowIDColumns are the columns in which data files keep row ids and commit versions of rows that were copied or changed.
// They are in no schema; null stands for what the file's add says.
func rowIDColumns(s *Schema, config map[string]string) (id, version Field, err error) {
	column := func(prop string) (Field, error) {
		name := config[prop]
		if name == "" {
			return Field{}, fmt.Errorf("%w: %s=true, but %s is not set", ErrCorrupt, propRowTracking, prop)
		}
		if s != nil {
			for _, f := range s.Fields {
				if f.Name == name || f.PhysicalName() == name {
					return Field{}, fmt.Errorf("%w: %s=%q is a column of the table, too", ErrCorrupt, prop, name)
				}
			}
		}
		return Field{Name: name, Type: Long, Nullable: true, Metadata: byNameMetadata}, nil
	}
	if id, err = column(propRowIDColumn); err != nil {
		return id, version, err
	}
	version, err = column(propRowVersionColumn)
	return id, version, err
}

// WithRowIDs is the table as files of copied rows have it: with the columns of row ids and commit versions, which are null
// or missing where the file's add says them (PROTOCOL.md, "Reader Requirements for Row Tracking"). An error that is
// ErrCorrupt if the table's properties do not name them.
func (t TableInfo) WithRowIDs() (wide TableInfo, id, version Field, err error) {
	id, version, err = rowIDColumns(t.Schema, t.Config)
	t.Schema = &Schema{Fields: append(slices.Clone(t.Schema.Fields), id, version)}
	return t, id, version, err
}

// trackedReader reads tables of TableInfo.WithRowIDs: it gives every row its id and its commit version, wherever they are kept.
type trackedReader struct{ Reader }

func (r trackedReader) Read(ctx context.Context, table TableInfo, files []File, opts ReadOptions) iter.Seq2[arrow.RecordBatch, error] {
	cols := opts.Columns
	if cols == nil {
		cols = table.Schema.Names()
	}
	id, version := slices.Index(cols, table.Config[propRowIDColumn]), slices.Index(cols, table.Config[propRowVersionColumn])
	if id < 0 && version < 0 {
		return r.Reader.Read(ctx, table, files, opts)
	}
	in := opts
	in.Columns, in.WithPosition = cols, true
	return func(yield func(arrow.RecordBatch, error) bool) {
		for b, err := range r.Reader.Read(ctx, table, files, in) {
			var out arrow.RecordBatch
			if err == nil {
				out, err = trackedBatch(b, files, id, version, opts.WithPosition)
			}
			if err != nil {
				yield(nil, err)
				return
			}
			ok := yield(out, nil)
			out.Release()
			if !ok {
				return
			}
		}
	}
}

// trackedBatch fills the columns at id and version (-1: none) of a batch that ends with positions.
func trackedBatch(b arrow.RecordBatch, files []File, id, version int, positions bool) (arrow.RecordBatch, error) {
	n := int(b.NumCols())
	file, row := b.Column(n-2).(*array.Int32), b.Column(n-1).(*array.Int64)
	cols, fields := slices.Clone(b.Columns()), slices.Clone(b.Schema().Fields())
	fill := func(at int, what string, value func(a *Add, row int64) *int64) error {
		if at < 0 {
			return nil
		}
		kept, ok := cols[at].(*array.Int64)
		if !ok {
			return fmt.Errorf("BUG: column %s is %s", fields[at].Name, cols[at].DataType())
		}
		nb := array.NewInt64Builder(memory.DefaultAllocator)
		defer nb.Release()
		nb.Reserve(kept.Len())
		for i := range kept.Len() {
			if kept.IsValid(i) {
				nb.UnsafeAppend(kept.Value(i))
				continue
			}
			a := files[file.Value(i)].Add
			v := value(a, row.Value(i))
			if v == nil {
				return fmt.Errorf("%w: %s has no %s, though row tracking is enabled", ErrCorrupt, a.Path, what)
			}
			nb.UnsafeAppend(*v)
		}
		cols[at] = nb.NewArray()
		fields[at].Type = arrow.PrimitiveTypes.Int64
		return nil
	}
	err := fill(id, "baseRowId", func(a *Add, row int64) *int64 {
		if a.BaseRowID == nil {
			return nil
		}
		v := *a.BaseRowID + row
		return &v
	})
	if id >= 0 && err == nil {
		defer cols[id].Release()
	}
	if err == nil {
		err = fill(version, "defaultRowCommitVersion", func(a *Add, _ int64) *int64 { return a.DefaultRowCommitVersion })
		if version >= 0 && err == nil {
			defer cols[version].Release()
		}
	}
	if err != nil {
		return nil, err
	}
	if !positions {
		cols, fields = cols[:n-2], fields[:n-2]
	}
	return array.NewRecordBatch(arrow.NewSchema(fields, nil), cols, b.NumRows()), nil
}

// scanTracked is Scan with row ids and commit versions behind the columns.
func (t *Table) scanTracked(ctx context.Context, s *Snapshot, files []File, columns []string) iter.Seq2[arrow.RecordBatch, error] {
	return func(yield func(arrow.RecordBatch, error) bool) {
		if !s.RowTracking() {
			yield(nil, fmt.Errorf("%s version %d: %w", t, s.version, ErrRowTracking))
			return
		}
		info, id, version, err := s.TableInfo().WithRowIDs()
		if err != nil {
			yield(nil, err)
			return
		}
		if columns == nil {
			columns = s.schema.Names()
		}
		columns = append(slices.Clone(columns), id.Name, version.Name)
		for b, err := range (trackedReader{t.engine().Reader}).Read(ctx, info, files, ReadOptions{Columns: columns}) {
			if err != nil {
				yield(nil, err)
				return
			}
			fields := slices.Clone(b.Schema().Fields())
			n := len(fields)
			fields[n-2].Name, fields[n-1].Name = RowIDColumn, RowCommitVersionColumn
			out := array.NewRecordBatch(arrow.NewSchema(fields, nil), b.Columns(), b.NumRows())
			ok := yield(out, nil)
			out.Release()
			if !ok {
				return
			}
		}
	}
}

// copyInfo is what rows are copied with: the table, and the reader of its files. Where rows are tracked they come with
// their ids and commit versions, which the new files keep.
func (s *Snapshot) copyInfo(info TableInfo, r Reader) (TableInfo, Reader, error) {
	if !s.RowTracking() {
		return info, r, nil
	}
	wide, _, _, err := info.WithRowIDs()
	return wide, trackedReader{r}, err
}

// forRows is the table with those columns of row ids and commit versions that rows to write have.
func (t TableInfo) forRows(rows *arrow.Schema) TableInfo {
	fields := slices.Clone(t.Schema.Fields)
	for _, prop := range []string{propRowIDColumn, propRowVersionColumn} {
		name := t.Config[prop]
		if _, known := t.Schema.Field(name); name != "" && !known && len(rows.FieldIndices(name)) > 0 {
			fields = append(fields, Field{Name: name, Type: Long, Nullable: true, Metadata: byNameMetadata})
		}
	}
	if len(fields) > len(t.Schema.Fields) {
		t.Schema = &Schema{Fields: fields}
	}
	return t
}

// withoutIDStats takes the columns of row ids and commit versions, which are none of the table, out of statistics.
func withoutIDStats(config map[string]string, files []WrittenFile) {
	for _, prop := range []string{propRowIDColumn, propRowVersionColumn} {
		if name := config[prop]; name != "" {
			for _, w := range files {
				delete(w.Stats.MinValues, name)
				delete(w.Stats.MaxValues, name)
				delete(w.Stats.NullCount, name)
			}
		}
	}
}

// idRows are rows with a column of row ids, null for those that get new ones.
type idRows struct {
	rows   Rows
	name   string
	ids    map[int64]int64 // by ordinal
	schema *arrow.Schema
}

func newIDRows(rows Rows, name string, ids map[int64]int64) *idRows {
	return &idRows{rows: rows, name: name, ids: ids, schema: withIDField(rows.Schema(), name)}
}

func (r *idRows) Schema() *arrow.Schema { return r.schema }
func (r *idRows) NumRows() int64        { return r.rows.NumRows() }

func (r *idRows) UniqueBy(columns []string) bool {
	k, ok := r.rows.(KeyedRows)
	return ok && k.UniqueBy(columns)
}

func (r *idRows) Read(ctx context.Context, columns []string, ordinals *roaring64.Bitmap) iter.Seq2[arrow.RecordBatch, error] {
	if columns == nil {
		for _, f := range r.schema.Fields() {
			columns = append(columns, f.Name)
		}
	}
	at := slices.Index(columns, r.name)
	if at < 0 {
		return r.rows.Read(ctx, columns, ordinals)
	}
	inner := slices.Delete(slices.Clone(columns), at, at+1)
	extra := len(inner) == 0
	if extra {
		inner = []string{r.rows.Schema().Field(0).Name} // for the number of rows
	}
	return func(yield func(arrow.RecordBatch, error) bool) {
		next := ordinalsOf(ordinals)
		for b, err := range r.rows.Read(ctx, inner, ordinals) {
			if err != nil {
				yield(nil, err)
				return
			}
			nb := array.NewInt64Builder(memory.DefaultAllocator)
			for range b.NumRows() {
				if id, ok := r.ids[next()]; ok {
					nb.Append(id)
				} else {
					nb.AppendNull()
				}
			}
			ids := nb.NewArray()
			nb.Release()
			cols, fields := slices.Clone(b.Columns()), slices.Clone(b.Schema().Fields())
			if extra {
				cols, fields = nil, nil
			}
			cols = slices.Insert(cols, at, ids)
			fields = slices.Insert(fields, at, arrow.Field{Name: r.name, Type: ids.DataType(), Nullable: true})
			out := array.NewRecordBatch(arrow.NewSchema(fields, nil), cols, b.NumRows())
			ids.Release()
			ok := yield(out, nil)
			out.Release()
			if !ok {
				return
			}
		}
	}
}

// ordinalsOf counts through ordinals; nil: from 0.
func ordinalsOf(ordinals *roaring64.Bitmap) func() int64 {
	if ordinals == nil {
		at := int64(-1)
		return func() int64 { at++; return at }
	}
	it := ordinals.Iterator()
	return func() int64 { return int64(it.Next()) }
}

// keptIDs are the row ids that the rows of a merge's source take over from the stored rows they supersede.
type keptIDs struct {
	id map[int64]int64     // by source ordinal
	at map[int64]storedRow // where the stored row stands
}

type storedRow struct {
	path string // canonical
	row  int64
}

// keepIDs notes, for the groups of a judgement (nil: those that won), the id of a stored row of each. It gives the source
// rows that have got another id than they had.
func (a *mergeAttempt) keepIDs(ctx context.Context, j *judgement, groups []int) (*roaring64.Bitmap, error) {
	changed := roaring64.New()
	if !a.base.RowTracking() || len(j.ordinals) == 0 {
		return changed, nil
	}
	if groups == nil {
		for g := range j.ordinals {
			if j.win[g] {
				groups = append(groups, g)
			}
		}
	}
	info, id, _, err := a.base.TableInfo().WithRowIDs()
	if err != nil {
		return nil, err
	}
	hits := make([]*roaring64.Bitmap, len(j.files))
	for f := range hits {
		hits[f] = roaring64.New()
	}
	for _, g := range groups {
		m := j.matches[j.group(g)[0]]
		hits[m.File].Add(uint64(m.Row))
	}
	stored, pos, err := readAt(ctx, trackedReader{a.eng.Reader}, info, j.files, hits, []string{id.Name})
	if err != nil {
		return nil, err
	}
	defer stored.Release()
	ids := stored.Column(0).(*array.Int64)
	if a.ids.id == nil {
		a.ids = keptIDs{id: map[int64]int64{}, at: map[int64]storedRow{}}
	}
	for _, g := range groups {
		m, o := j.matches[j.group(g)[0]], j.ordinals[g]
		k, _ := pos.at(m.File, m.Row)
		now := ids.Value(int(k))
		if was, ok := a.ids.id[o]; !ok || was != now {
			changed.Add(uint64(o))
		}
		a.ids.id[o] = now
		a.ids.at[o] = storedRow{canonicalPath(j.files[m.File].Add.Path), m.Row}
	}
	return changed, nil
}

// lostIDs reports whether a row that was written with the id of a stored row would now be there beside it or without it:
// the stored row was changed into one of another key, or deleted, by a winner. touched are the files that winners touched.
func (a *mergeAttempt) lostIDs(ctx context.Context, newer *Snapshot, touched map[string]bool) (bool, error) {
	rows := map[string][]int64{}
	for o, at := range a.ids.at {
		if a.class[o] < rowLost && touched[at.path] {
			rows[at.path] = append(rows[at.path], at.row)
		}
	}
	for _, p := range sortedKeys(rows) {
		x, ok := newer.File(p)
		if !ok {
			return true, nil
		}
		files, err := newer.load(ctx, []*Add{x})
		if err != nil {
			return false, err
		}
		for _, r := range rows[p] {
			if d := files[0].Deleted; d != nil && d.Contains(uint64(r)) {
				return true, nil
			}
		}
	}
	return false, nil
}

// changed are stored rows as an assigner makes them anew, with their row ids behind the columns where rows are tracked.
func (c *change) changed(as *assigner, files []File, hits []*roaring64.Bitmap) (Rows, error) {
	out := &derivedRows{schema: c.info.Schema.Arrow()}
	if !c.base.RowTracking() {
		before := c.storedRows(files, hits)
		out.n = before.NumRows()
		out.read = func(ctx context.Context) iter.Seq2[arrow.RecordBatch, error] {
			return assignEach(ctx, as, before.Read(ctx, nil, nil))
		}
		return out, nil
	}
	info, id, _, err := c.base.TableInfo().WithRowIDs()
	if err != nil {
		return nil, err
	}
	before := storedRows(trackedReader{c.eng.Reader}, info, &Schema{Fields: append(slices.Clone(c.info.Schema.Fields), id)}, files, hits)
	out.n, out.schema = before.NumRows(), withIDField(out.schema, id.Name)
	out.read = func(ctx context.Context) iter.Seq2[arrow.RecordBatch, error] {
		return func(yield func(arrow.RecordBatch, error) bool) {
			for b, err := range before.Read(ctx, nil, nil) {
				if err == nil {
					b, err = withIDs(b.Column(int(b.NumCols())-1), id.Name, func() (arrow.RecordBatch, error) { return as.apply(ctx, b) })
				}
				if err != nil {
					yield(nil, err)
					return
				}
				ok := yield(b, nil)
				b.Release()
				if !ok {
					return
				}
			}
		}
	}
	return out, nil
}

// withIDs puts row ids behind the columns of a batch.
func withIDs(ids arrow.Array, name string, rows func() (arrow.RecordBatch, error)) (arrow.RecordBatch, error) {
	b, err := rows()
	if err != nil {
		return nil, err
	}
	defer b.Release()
	return array.NewRecordBatch(withIDField(b.Schema(), name), append(slices.Clone(b.Columns()), ids), b.NumRows()), nil
}

func withIDField(s *arrow.Schema, name string) *arrow.Schema {
	return arrow.NewSchema(append(slices.Clone(s.Fields()), arrow.Field{Name: name, Type: arrow.PrimitiveTypes.Int64, Nullable: true}), nil)
}

// withoutIDs are rows as the table has them.
func (c *change) withoutIDs(rows Rows) Rows {
	schema := c.info.Schema.Arrow()
	if rows.Schema().NumFields() == schema.NumFields() {
		return rows
	}
	return &someColumns{Rows: rows, schema: schema}
}

// joined are all rows to write; where some have ids the others get new ones.
func (c *change) joined() Rows {
	schema := c.info.Schema.Arrow()
	name := c.info.Config[propRowIDColumn]
	has := func(r Rows) bool { return r.Schema().NumFields() > schema.NumFields() }
	if !slices.ContainsFunc(c.out, has) {
		return joinRows(schema, c.out)
	}
	parts := slices.Clone(c.out)
	for i, r := range parts {
		if !has(r) {
			parts[i] = newIDRows(r, name, nil)
		}
	}
	return joinRows(withIDField(schema, name), parts)
}
