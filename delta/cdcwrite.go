package delta

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/cauce-data/cauce/delta/expr"
)

// Kinds of change beside insert and delete (PROTOCOL.md, "Add CDC File").
const (
	changePreimage  = "update_preimage"
	changePostimage = "update_postimage"
)

// changeFolder is where files of the change feed stand (PROTOCOL.md, "Change Data Files").
const changeFolder = "_change_data"

// rowChange is a part of an operation's change data feed.
type rowChange struct {
	kind string
	rows Rows // with all columns of the table
}

// feeds reports whether writers must record changes.
func (s *Snapshot) feeds() bool {
	return on(s.metadata, propChangeFeed) && s.protocol.hasWriterFeature("changeDataFeed")
}

// writeFeed writes rows as files of the change feed.
func writeFeed(ctx context.Context, eng Engine, info TableInfo, parts []rowChange, compression string) ([]WrittenFile, error) {
	kind := Field{Name: ChangeTypeColumn, Type: String, Nullable: true, Metadata: byNameMetadata}
	if _, taken := info.Schema.Field(kind.Name); taken {
		return nil, fmt.Errorf("%w: the table has a column %q of its own", ErrSchemaMismatch, kind.Name)
	}
	wide := &Schema{Fields: append(slices.Clone(info.Schema.Fields), kind)}
	info.Schema = wide
	if info.Path == "" {
		info.Path = changeFolder
	} else {
		info.Path += "/" + changeFolder
	}
	schema := wide.Arrow()
	rows := &derivedRows{schema: schema}
	for _, p := range parts {
		rows.n += p.rows.NumRows()
	}
	if rows.n == 0 {
		return nil, nil
	}
	rows.read = func(ctx context.Context) iter.Seq2[arrow.RecordBatch, error] {
		return func(yield func(arrow.RecordBatch, error) bool) {
			for _, p := range parts {
				for b, err := range p.rows.Read(ctx, nil, nil) {
					if err != nil {
						yield(nil, err)
						return
					}
					k, err := constant(String, p.kind, int(b.NumRows()))
					if err != nil {
						yield(nil, err)
						return
					}
					fields := append(slices.Clone(b.Schema().Fields()), arrow.Field{Name: kind.Name, Type: k.DataType(), Nullable: true})
					out := array.NewRecordBatch(arrow.NewSchema(fields, nil), append(slices.Clone(b.Columns()), k), b.NumRows())
					k.Release()
					ok := yield(out, nil)
					out.Release()
					if !ok {
						return
					}
				}
			}
		}
	}
	files, err := eng.FileWriter.Write(ctx, info, WriteRequest{Rows: rows, Compression: compression})
	if err != nil {
		return nil, fmt.Errorf("write change data: %w", err)
	}
	for i := range files {
		files[i].Path = changeFolder + "/" + files[i].Path
	}
	return files, nil
}

// stageFeed writes the changes of an attempt, as it stands on a.base, into the feed and the transaction. Inserts alone,
// and files that go whole, tell themselves (PROTOCOL.md, "Reading Change Data Files"). Files of an earlier stage are
// deleted.
func (a *mergeAttempt) stageFeed(ctx context.Context, tx *Tx, changes func() ([]rowChange, error)) error {
	if !a.base.feeds() {
		return nil
	}
	deleteFiles(context.WithoutCancel(ctx), a.info.Store, a.feedFiles)
	a.feedFiles = nil
	if len(a.marks) == 0 {
		return nil
	}
	parts, err := changes()
	if err != nil {
		return err
	}
	whole := len(a.rewritten) == 0 && a.dvAdded+a.dvUpdated == 0
	for _, p := range parts {
		whole = whole && p.kind == changeDelete
	}
	if whole {
		return nil
	}
	if a.feedFiles, err = writeFeed(ctx, a.eng, a.info, parts, a.o.Compression); err != nil {
		return err
	}
	for _, w := range a.feedFiles {
		pv := w.PartitionValues
		if pv == nil {
			pv = map[string]*string{}
		}
		tx.AddCDC(&CDC{Path: w.Path, PartitionValues: pv, Size: w.Size})
	}
	return nil
}

// feed lists the changes of a Merge: stored rows that source rows have superseded or that Replace removed, and the rows
// written. A row that a concurrent commit has deleted meanwhile is that commit's to tell of; the row written for it is an
// update_postimage without its update_preimage.
func (a *mergeAttempt) feed(ctx context.Context) ([]rowChange, error) {
	var files []File
	var before, gone []*roaring64.Bitmap
	for _, p := range sortedKeys(a.marks) {
		cur, ok := a.base.File(p)
		if !ok {
			return nil, fmt.Errorf("BUG: %s is marked and not in version %d", p, a.base.Version())
		}
		loaded, err := a.base.load(ctx, []*Add{cur})
		if err != nil {
			return nil, err
		}
		now := vectorMinus(a.marks[p], loaded[0].Deleted)
		pre := roaring64.New()
		if s := a.superseded[p]; s != nil {
			pre = roaring64.And(now, s)
		}
		files, before, gone = append(files, loaded[0]), append(before, pre), append(gone, roaring64.AndNot(now, pre))
	}
	parts := []rowChange{{changeDelete, a.storedRows(files, gone)}, {changePreimage, a.storedRows(files, before)}}
	if a.src.NumRows() == 0 {
		return parts, nil
	}
	insert, update := roaring64.New(), roaring64.New()
	for o, c := range a.class {
		switch c {
		case rowInsert:
			insert.Add(uint64(o))
		case rowUpdate, rowUnchanged:
			update.Add(uint64(o))
		}
	}
	rows := a.src
	if a.carry != nil {
		rows = &carriedRows{rows: a.src, carry: a.carry, schema: a.carry.schema(a.src.Schema(), a.info.Schema)}
	}
	rules, err := rulesOf(a.eng.Expressions, a.info.Schema, a.info.Config, expr.Timestamp(a.began.UnixMicro()))
	if err != nil {
		return nil, err
	}
	if rules != nil {
		if rows, err = rules.fill(rows, expr.Timestamp(a.began.UnixMicro())); err != nil {
			return nil, err
		}
	}
	return append(parts, rowChange{changePostimage, wholeRows(a.info.Schema, rows, update)}, rowChange{changeInsert, wholeRows(a.info.Schema, rows, insert)}), nil
}

// wholeRows are some rows (nil: all) with all columns of a table; what they lack is null.
func wholeRows(schema *Schema, rows Rows, ordinals *roaring64.Bitmap) Rows {
	out := &derivedRows{schema: schema.Arrow(), n: rows.NumRows()}
	if ordinals != nil {
		out.n = int64(ordinals.GetCardinality())
	}
	out.read = func(ctx context.Context) iter.Seq2[arrow.RecordBatch, error] {
		return func(yield func(arrow.RecordBatch, error) bool) {
			for b, err := range rows.Read(ctx, nil, ordinals) {
				if err != nil {
					yield(nil, err)
					return
				}
				if !yield(widePlaceholders(schema, b), nil) {
					return
				}
			}
		}
	}
	return out
}

// storedRows are rows of the table as it is.
func (a *mergeAttempt) storedRows(files []File, rows []*roaring64.Bitmap) Rows {
	return storedRows(a.eng.Reader, a.base.TableInfo(), a.info.Schema, files, rows)
}

// storedRows are rows of files with the columns of a schema; those that the table lacks are null.
func storedRows(reader Reader, info TableInfo, schema *Schema, files []File, rows []*roaring64.Bitmap) Rows {
	var some []File
	var hits []*roaring64.Bitmap
	out := &derivedRows{schema: schema.Arrow()}
	for i, r := range rows {
		if !r.IsEmpty() {
			some, hits = append(some, files[i]), append(hits, r)
			out.n += int64(r.GetCardinality())
		}
	}
	same := slices.Equal(schema.Names(), info.Schema.Names())
	var known []string // of the schema's columns
	for _, f := range schema.Fields {
		if _, ok := info.Schema.Field(f.Name); ok {
			known = append(known, f.Name)
		}
	}
	out.read = func(ctx context.Context) iter.Seq2[arrow.RecordBatch, error] {
		if len(some) == 0 {
			return func(func(arrow.RecordBatch, error) bool) {}
		}
		in := reader.Read(ctx, info, some, ReadOptions{Rows: hits, Columns: known})
		if same {
			return in
		}
		return func(yield func(arrow.RecordBatch, error) bool) {
			for b, err := range in {
				if err != nil {
					yield(nil, err)
					return
				}
				if !yield(widePlaceholders(schema, b), nil) {
					return
				}
			}
		}
	}
	return out
}
