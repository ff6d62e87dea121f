package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/cauce-data/cauce/catalog"
	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/delta/expr"
	"github.com/cauce-data/cauce/pipeline"
)

// A deletion is a row (a tombstone), which an earlier row of its key cannot beat whenever it arrives (DESIGN D2). A table
// with tombstone_retention forgets tombstones whose sequence is older than that. The commit that removes them writes the
// greatest sequence among them into the table's properties; from then on a row at or below it that matches no stored row
// may be one that was deleted, and goes to quarantine under RuleTombstones instead of coming back.

// PropTombstonesPurged is the property of a table that says up to which sequence its tombstones were removed, as
// delta.FloorValue writes it. It never falls, and holds whatever the lake file says later.
const PropTombstonesPurged = "cauce.tombstonesPurgedTo"

// RuleTombstones is the rule of quarantined rows whose deletion may have been forgotten.
const RuleTombstones = "tombstone_retention"

// PurgeReport says what purging tombstones did, or would do.
type PurgeReport struct {
	Table   string        `json:"table"`
	Purged  int64         `json:"tombstones_purged"`
	UpTo    string        `json:"purged_to"` // COLUMN=VALUE of the newest tombstone that was ever removed; "": none was
	Version delta.Version `json:"version"`
	DryRun  bool          `json:"dry_run"`
}

// ErrNoTombstoneRetention says that a table keeps its deletions for ever.
var ErrNoTombstoneRetention = errors.New("the lake file gives it no tombstone_retention, so its deletions are kept for ever")

// PurgeTombstones removes the tombstones of a table that are older than its tombstone_retention. It gives way to other
// writers within the bounds of delta.Options.
func (l *Lake) PurgeTombstones(ctx context.Context, table string, dryRun bool) (*PurgeReport, error) {
	decl := l.lake.Table(table)
	if decl == nil {
		return nil, fmt.Errorf("%w: %s", catalog.ErrNoTable, table)
	}
	if decl.TombstoneRetention == 0 {
		return nil, ErrNoTombstoneRetention
	}
	t, err := l.catalog.Open(ctx, decl.Name)
	if err != nil {
		return nil, err
	}
	return l.purgeTombstones(ctx, decl, t, dryRun)
}

func (l *Lake) purgeTombstones(ctx context.Context, decl *pipeline.Table, t *delta.Table, dryRun bool) (*PurgeReport, error) {
	s, err := t.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	r := &PurgeReport{Table: decl.Name, UpTo: s.Config(PropTombstonesPurged), Version: s.Version(), DryRun: dryRun}
	if _, ok := s.Schema().Field(pipeline.ColumnDeleted); !ok {
		return r, nil // no source has deleted yet
	}
	seq, err := sequenceField(decl, s)
	if err != nil {
		return nil, err
	}
	newest, n, err := oldTombstones(ctx, t, s, seq, cutoff(l.now(), decl, seq.Type))
	if err != nil || n == 0 {
		return r, err
	}
	r.Purged = n
	if dryRun {
		return r, nil
	}
	// Nothing newer than what was seen: a tombstone that another writer brings meanwhile stays for the next time.
	where := expr.And(expr.Col(pipeline.ColumnDeleted), expr.Call{Func: "<=", Args: []expr.Expr{expr.Col(seq.Name), newest.literal()}})
	done, err := t.DeleteWhere(ctx, where, delta.ChangeOptions{
		CopyOnWrite: !decl.DeletionVectors, Compression: decl.Compression, Hook: l.hook,
		Properties: func(s *delta.Snapshot) (map[string]string, error) {
			r.UpTo = s.Config(PropTombstonesPurged)
			if r.UpTo != "" {
				had, v, err := delta.ParseFloorValue(s.Schema(), r.UpTo)
				if err != nil {
					return nil, fmt.Errorf("property %s: %w", PropTombstonesPurged, err)
				}
				if had.Name != seq.Name {
					return nil, fmt.Errorf("tombstones were purged by column %s before; sequence must begin with it again, not with %s", had.Name, seq.Name)
				}
				if before, err := newSequence(v); err != nil || before.us >= newest.us {
					return nil, err
				}
			}
			var err error
			r.UpTo, err = delta.FloorValue(seq.Name, seq.Type, newest.value())
			return map[string]string{PropTombstonesPurged: r.UpTo}, err
		},
	})
	if err != nil {
		return nil, err
	}
	r.Purged, r.Version = done.Deleted, done.Version
	return r, nil
}

// sequenceField is the stored column by which tombstones age.
func sequenceField(decl *pipeline.Table, s *delta.Snapshot) (delta.Field, error) {
	if len(decl.Sequence) == 0 {
		return delta.Field{}, fmt.Errorf("BUG: tombstone_retention of table %s without a sequence", decl.Name)
	}
	f, ok := s.Schema().Field(decl.Sequence[0])
	if !ok {
		return delta.Field{}, fmt.Errorf("the stored table has no column %s", decl.Sequence[0])
	}
	return f, nil
}

// sequence is a value of a sequence column: a time, or a day.
type sequence struct {
	us  int64 // µs since the epoch; of a wall clock as if it were UTC
	day bool
}

const dayMicros = 24 * int64(time.Hour/time.Microsecond)

func newSequence(v any) (sequence, error) {
	switch v := v.(type) {
	case time.Time:
		return sequence{us: v.UnixMicro()}, nil
	case delta.Days:
		return sequence{us: int64(v) * dayMicros, day: true}, nil
	}
	return sequence{}, fmt.Errorf("%T is no time", v)
}

func (s sequence) value() any {
	if s.day {
		return delta.Days(s.us / dayMicros)
	}
	return time.UnixMicro(s.us).UTC()
}

func (s sequence) literal() expr.Expr {
	if s.day {
		return expr.Lit(expr.Date(s.us / dayMicros))
	}
	return expr.Lit(expr.Timestamp(s.us))
}

// cutoff is the oldest sequence that a table keeps tombstones of, in the terms of the column's type.
func cutoff(now time.Time, decl *pipeline.Table, typ delta.Type) sequence {
	at := now.Add(-decl.TombstoneRetention)
	if typ == delta.Type(delta.Timestamp) {
		return sequence{us: at.UnixMicro()}
	}
	if decl.Timezone != nil {
		at = at.In(decl.Timezone)
	}
	_, offset := at.Zone()
	us := at.UnixMicro() + int64(offset)*1_000_000
	if typ == delta.Type(delta.Date) {
		return sequence{us: floorDiv(us, dayMicros) * dayMicros, day: true}
	}
	return sequence{us: us}
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// oldTombstones counts the tombstones below a sequence and gives the greatest of theirs.
func oldTombstones(ctx context.Context, t *delta.Table, s *delta.Snapshot, seq delta.Field, below sequence) (newest sequence, n int64, err error) {
	for b, err := range t.Scan(ctx, s, delta.ScanOptions{
		Columns: []string{pipeline.ColumnDeleted, seq.Name},
		Where:   delta.Compare{Column: seq.Name, Op: "<", Value: below.value()},
	}) {
		if err != nil {
			return newest, 0, err
		}
		deleted, ok := b.Column(0).(*array.Boolean)
		if !ok {
			return newest, 0, fmt.Errorf("column %s is no BOOLEAN", pipeline.ColumnDeleted)
		}
		for i := range deleted.Len() {
			if deleted.IsNull(i) || !deleted.Value(i) || b.Column(1).IsNull(i) {
				continue
			}
			at := sequence{day: below.day}
			switch c := b.Column(1).(type) {
			case *array.Timestamp:
				at.us = int64(c.Value(i))
			case *array.Date32:
				at.us = int64(c.Value(i)) * dayMicros
			default:
				return newest, 0, fmt.Errorf("column %s is no time", seq.Name)
			}
			if at.us >= below.us {
				continue
			}
			if n == 0 || at.us > newest.us {
				newest = at
			}
			n++
		}
	}
	return newest, n, nil
}

// lateRefusal is why the rows that a merge kept out are in quarantine.
func (c *epochCommit) lateRefusal(ctx context.Context) (pipeline.Refusal, error) {
	s, err := c.table.Snapshot(ctx)
	if err != nil {
		return pipeline.Refusal{}, err
	}
	f, v, err := delta.ParseFloorValue(s.Schema(), s.Config(PropTombstonesPurged))
	if err != nil {
		return pipeline.Refusal{}, fmt.Errorf("property %s: %w", PropTombstonesPurged, err)
	}
	to, err := newSequence(v)
	if err != nil {
		return pipeline.Refusal{}, fmt.Errorf("property %s: %w", PropTombstonesPurged, err)
	}
	shown := arrow.Timestamp(to.us).ToTime(arrow.Microsecond).Format("2006-01-02 15:04:05.999999")
	if to.day {
		shown = arrow.Date32(to.us / dayMicros).ToTime().Format(time.DateOnly)
	}
	return pipeline.Refusal{Rule: RuleTombstones, Column: f.Name, Reason: func(value string) string {
		return fmt.Sprintf("%s = %q is not after %s, up to which the table has forgotten its deletions, and no row of this key is stored: it may have been deleted",
			f.Name, value, shown)
	}}, nil
}

// putLate brings the rows that a merge keeps out to quarantine, under the progress file of the epoch.
func (l *Lake) putLate(ctx context.Context, c *epochCommit, rows *roaring64.Bitmap, progress string) error {
	why, err := c.lateRefusal(ctx)
	if err != nil {
		return err
	}
	q, err := l.catalog.Ensure(ctx, catalog.Quarantine)
	if err != nil {
		return err
	}
	w := l.newQuarantineWriter(q)
	defer w.release()
	for bad, err := range c.result.Refuse(ctx, rows, why) {
		if err != nil {
			return err
		}
		if err := w.add(ctx, c.row(bad, progress)); err != nil {
			return err
		}
	}
	return w.flush(ctx)
}

// takeBackLate removes from quarantine what putLate brought there and the merge did not keep out in the end, because
// another writer had brought its key meanwhile.
func (l *Lake) takeBackLate(ctx context.Context, c *epochCommit, told *roaring64.Bitmap, progress string) error {
	if told == nil || told.IsEmpty() {
		return nil
	}
	back := told.Clone()
	if c.late != nil {
		back.AndNot(c.late)
	}
	if back.IsEmpty() {
		return nil
	}
	var gone []quarantineID
	for bad, err := range c.result.Refuse(ctx, back, pipeline.Refusal{Rule: RuleTombstones, Reason: func(string) string { return "" }}) {
		if err != nil {
			return err
		}
		gone = append(gone, c.row(bad, progress).id())
	}
	return l.deleteQuarantine(ctx, gone)
}
