package delta

import (
	"context"
	"errors"
	"iter"
	"strconv"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/cauce-data/cauce/delta/expr"
)

// change marks the rows that matched clauses change, and makes the new ones.
func (p *mergePlan) change() error {
	c := p.c
	byClause := make([][]pair, len(p.matched))
	for _, x := range p.pairs {
		byClause[x.clause] = append(byClause[x.clause], x)
		mark(c.marks, canonicalPath(p.files[x.file].Add.Path), x.row)
	}
	for k, b := range p.matched {
		pairs := byClause[k]
		if len(pairs) == 0 {
			continue
		}
		before := p.storedOf(pairs)
		if b.Delete {
			c.matchDeleted += int64(len(pairs))
			c.told = append(c.told, rowChange{changeDelete, before})
			continue
		}
		c.matchUpdated += int64(len(pairs))
		after := &derivedRows{schema: c.info.Schema.Arrow(), n: int64(len(pairs))}
		if c.base.RowTracking() {
			after.schema = withIDField(after.schema, c.info.Config[propRowIDColumn])
		}
		after.read = func(ctx context.Context) iter.Seq2[arrow.RecordBatch, error] { return p.updated(ctx, pairs, b.assign) }
		c.out = append(c.out, after)
		c.told = append(c.told, rowChange{changePreimage, before}, rowChange{changePostimage, c.withoutIDs(after)})
	}
	return nil
}

// storedOf are the stored rows of pairs, which are in order of file and row.
func (p *mergePlan) storedOf(pairs []pair) Rows {
	files, hits := p.hits(pairs)
	return p.c.storedRows(files, hits)
}

func (p *mergePlan) hits(pairs []pair) (files []File, hits []*roaring64.Bitmap) {
	last := int32(-1)
	for _, x := range pairs {
		if x.file != last {
			files, hits = append(files, p.files[x.file]), append(hits, roaring64.New())
			last = x.file
		}
		hits[len(hits)-1].Add(uint64(x.row))
	}
	return files, hits
}

// updated yields the new rows of pairs.
func (p *mergePlan) updated(ctx context.Context, pairs []pair, as *assigner) iter.Seq2[arrow.RecordBatch, error] {
	c := p.c
	return func(yield func(arrow.RecordBatch, error) bool) {
		for from := 0; from < len(pairs); from += mergeChunkPairs {
			part := pairs[from:min(from+mergeChunkPairs, len(pairs))]
			b, err := p.updatedPart(ctx, c, part, as)
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

func (p *mergePlan) updatedPart(ctx context.Context, c *change, part []pair, as *assigner) (arrow.RecordBatch, error) {
	files, hits := p.hits(part)
	info, reader, names := c.base.TableInfo(), c.eng.Reader, c.base.Schema().Names()
	if c.base.RowTracking() {
		wide, id, _, err := info.WithRowIDs()
		if err != nil {
			return nil, err
		}
		info, reader, names = wide, trackedReader{reader}, append(names, id.Name)
	}
	stored, _, err := readAt(ctx, reader, info, files, hits, names)
	if err != nil {
		return nil, err
	}
	defer stored.Release()
	var ids arrow.Array
	if c.base.RowTracking() {
		n := int(stored.NumCols()) - 1
		ids = stored.Column(n)
		stored = array.NewRecordBatch(arrow.NewSchema(stored.Schema().Fields()[:n], nil), stored.Columns()[:n], stored.NumRows())
		defer stored.Release()
	}
	ords := roaring64.New()
	for _, x := range part {
		ords.Add(uint64(x.source))
	}
	s, err := p.sourceRows(ctx, ords)
	if err != nil {
		return nil, err
	}
	defer s.Release()
	idx := make([]int64, len(part))
	for i, x := range part {
		idx[i] = int64(ords.Rank(uint64(x.source))) - 1
	}
	aligned, err := takeBatch(ctx, s, idx)
	if err != nil {
		return nil, err
	}
	defer aligned.Release()
	if ids == nil {
		return as.apply(ctx, beside(stored, aligned))
	}
	return withIDs(ids, c.info.Config[propRowIDColumn], func() (arrow.RecordBatch, error) { return as.apply(ctx, beside(stored, aligned)) })
}

// sourceRows reads all columns of source rows.
func (p *mergePlan) sourceRows(ctx context.Context, ords *roaring64.Bitmap) (arrow.RecordBatch, error) {
	names := make([]string, p.source.schema.NumFields())
	for i, f := range p.source.schema.Fields() {
		names[i] = f.Name
	}
	return readSource(ctx, p.mergeInto.source, p.schema, names, ords)
}

// insert finds the source rows that match nothing.
func (p *mergePlan) insert(ctx context.Context) error {
	if len(p.inserts) == 0 {
		return nil
	}
	c := p.c
	lists := make([]*roaring64.Bitmap, len(p.inserts))
	for i := range lists {
		lists[i] = roaring64.New()
	}
	var at int64
	for b, err := range p.mergeInto.source.Read(ctx, nil, nil) {
		if err != nil {
			return err
		}
		for i := range int(b.NumRows()) {
			o := uint64(at + int64(i))
			if p.matchedSource.Contains(o) {
				continue
			}
			k, err := firstClause(p.inserts, b, i)
			if err != nil {
				return err
			}
			if k >= 0 {
				lists[k].Add(o)
			}
		}
		at += b.NumRows()
	}
	for k, b := range p.inserts {
		n := int64(lists[k].GetCardinality())
		if n == 0 {
			continue
		}
		c.res.Inserted += n
		rows := &derivedRows{schema: c.info.Schema.Arrow(), n: n}
		rows.read = func(ctx context.Context) iter.Seq2[arrow.RecordBatch, error] {
			return assignEach(ctx, b.assign, p.mergeInto.source.Read(ctx, nil, lists[k]))
		}
		c.out = append(c.out, rows)
		c.told = append(c.told, rowChange{changeInsert, rows})
	}
	return nil
}

// assignEach makes table rows of each batch.
func assignEach(ctx context.Context, as *assigner, in iter.Seq2[arrow.RecordBatch, error]) iter.Seq2[arrow.RecordBatch, error] {
	return func(yield func(arrow.RecordBatch, error) bool) {
		for b, err := range in {
			if err == nil {
				b, err = as.apply(ctx, b)
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

// rest finds the rows of the table that match no source row and that a clause changes.
func (p *mergePlan) rest(ctx context.Context) error {
	if len(p.bySource) == 0 {
		return p.sum()
	}
	c := p.c
	matched := map[string]*roaring64.Bitmap{}
	for i, f := range p.files {
		matched[canonicalPath(f.Add.Path)] = p.matchedRows[i]
	}
	may := make([]Predicate, len(p.bySource))
	es := make([]expr.Expr, len(p.bySource))
	for i, b := range p.bySource {
		may[i], es[i] = And(), b.where
		if b.where != nil {
			may[i] = targetPredicate(b.where)
		}
	}
	files, err := c.base.load(ctx, c.base.Prune(Or(may...)))
	if err != nil || len(files) == 0 {
		return errors.Join(err, p.sum())
	}
	hits := make([][]*roaring64.Bitmap, len(p.bySource))
	for k := range hits {
		hits[k] = make([]*roaring64.Bitmap, len(files))
	}
	cols, pick := neededColumns(c.base.Schema(), es...)
	for b, err := range c.eng.Reader.Read(ctx, c.base.TableInfo(), files, ReadOptions{Columns: cols, WithPosition: true}) {
		if err != nil {
			return err
		}
		n := int(b.NumCols())
		fileAt, rowAt := b.Column(n-2).(*array.Int32), b.Column(n-1).(*array.Int64)
		wide := pick(b)
		for i := range int(b.NumRows()) {
			f, row := int(fileAt.Value(i)), uint64(rowAt.Value(i))
			path := canonicalPath(files[f].Add.Path)
			if m := matched[path]; m != nil && m.Contains(row) {
				continue
			}
			k, err := firstClause(p.bySource, wide, i)
			if err != nil {
				return err
			}
			if k < 0 {
				continue
			}
			if hits[k][f] == nil {
				hits[k][f] = roaring64.New()
			}
			hits[k][f].Add(row)
			mark(c.marks, path, int64(row))
		}
	}
	for k, b := range p.bySource {
		var some []File
		var rows []*roaring64.Bitmap
		for i, h := range hits[k] {
			if h != nil {
				some, rows = append(some, files[i]), append(rows, h)
			}
		}
		if len(some) == 0 {
			continue
		}
		before := c.storedRows(some, rows)
		n := before.NumRows()
		if b.Delete {
			c.restDeleted += n
			c.told = append(c.told, rowChange{changeDelete, before})
			continue
		}
		c.restUpdated += n
		after, err := c.changed(b.assign, some, rows)
		if err != nil {
			return err
		}
		c.out = append(c.out, after)
		c.told = append(c.told, rowChange{changePreimage, before}, rowChange{changePostimage, c.withoutIDs(after)})
	}
	return p.sum()
}

func (p *mergePlan) sum() error {
	c := p.c
	c.res.Updated, c.res.Deleted = c.matchUpdated+c.restUpdated, c.matchDeleted+c.restDeleted
	return nil
}

// clauseText is a clause as Spark's operationParameters have it.
type clauseText struct {
	Predicate  string `json:"predicate,omitempty"`
	ActionType string `json:"actionType"`
}

func (m *mergeInto) parameters() map[string]string {
	lists := map[ClauseKind][]clauseText{WhenMatched: {}, WhenNotMatched: {}, WhenNotMatchedBySource: {}}
	for _, c := range m.o.Clauses {
		t := clauseText{ActionType: "update"}
		switch {
		case c.Delete:
			t.ActionType = "delete"
		case c.Kind == WhenNotMatched:
			t.ActionType = "insert"
		}
		if c.Condition != nil {
			t.Predicate = c.Condition.String()
		}
		lists[c.Kind] = append(lists[c.Kind], t)
	}
	return map[string]string{
		"predicate":                    plainJSON([]string{m.o.On.String()}),
		"matchedPredicates":            plainJSON(lists[WhenMatched]),
		"notMatchedPredicates":         plainJSON(lists[WhenNotMatched]),
		"notMatchedBySourcePredicates": plainJSON(lists[WhenNotMatchedBySource]),
	}
}

// metrics are Spark's operationMetrics of a MERGE.
func (m *mergeInto) metrics(c *change) map[string]string {
	n := func(v int64) string { return strconv.FormatInt(v, 10) }
	r := &c.res
	return map[string]string{
		"numSourceRows":                          n(r.SourceRows),
		"numTargetRowsInserted":                  n(r.Inserted),
		"numTargetRowsUpdated":                   n(r.Updated),
		"numTargetRowsDeleted":                   n(r.Deleted),
		"numTargetRowsMatchedUpdated":            n(c.matchUpdated),
		"numTargetRowsMatchedDeleted":            n(c.matchDeleted),
		"numTargetRowsNotMatchedBySourceUpdated": n(c.restUpdated),
		"numTargetRowsNotMatchedBySourceDeleted": n(c.restDeleted),
		"numTargetRowsCopied":                    n(r.Copied),
		"numOutputRows":                          n(r.Inserted + r.Updated + r.Copied),
		"numTargetFilesAdded":                    n(int64(c.filesAdded)),
		"numTargetFilesRemoved":                  n(int64(c.filesRemoved)),
		"numTargetBytesAdded":                    n(c.bytesAdded),
		"numTargetBytesRemoved":                  n(c.bytesRemoved),
		"numTargetChangeFilesAdded":              n(int64(len(c.feedFiles))),
		"numTargetDeletionVectorsAdded":          n(int64(c.dvAdded + c.dvUpdated)),
		"numTargetDeletionVectorsUpdated":        n(int64(c.dvUpdated)),
		"numTargetDeletionVectorsRemoved":        n(int64(c.dvRemoved + c.dvUpdated)),
		"scanTimeMs":                             n(c.scan.Milliseconds()),
		"rewriteTimeMs":                          n(c.write.Milliseconds()),
		"executionTimeMs":                        n(c.t.opts.Clock().Sub(c.began).Milliseconds()),
	}
}

// hasRule reports whether a column that is not given gets a value: it is generated or has a default.
func hasRule(f Field) bool {
	return f.Metadata[metaGeneration] != nil || f.Metadata[metaDefault] != nil
}

const (
	metaGeneration = "delta.generationExpression"
	metaDefault    = "CURRENT_DEFAULT"
	metaIdentity   = "delta.identity.start"
)
