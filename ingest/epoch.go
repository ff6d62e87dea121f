package ingest

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/pipeline"
)

// epochCommit is one computed epoch on its way into the table. Batch, stream and retry end here alike, so that there
// is one order of writes:
//
//  1. the progress file, which nobody believes until a commit names it;
//  2. the quarantined rows, which name the progress file and count only once it has won;
//  3. the rows, with the txn and the name of the progress file, in one commit;
//  4. the winner file, which can be made again from the commit.
//
// A crash between any two leaves a state from which the next run goes on without loss or duplicate.
type epochCommit struct {
	source *pipeline.Source
	plan   *pipeline.Plan
	table  *delta.Table
	log    *progressLog
	state  *progressState
	cover  *EpochFile   // what the epoch covers: Kind, Files, Ranges, Positions, Gaps
	result *EpochResult // nil: no rows
	// replace are the origins whose stored rows go in the same commit.
	replace []string
	at      time.Time
	// quarantine is false where bad rows are dealt with by the caller.
	quarantine bool
	// acceptLate merges rows that a forgotten deletion may have deleted.
	acceptLate bool
	// late are the rows that the merge kept out; set by commitEpoch.
	late *roaring64.Bitmap
}

// commitEpoch writes an epoch into the table and takes it into c.state. superseded(err) tells that another run of the
// source has won the epoch; nothing was committed to the main table then.
func (l *Lake) commitEpoch(ctx context.Context, c *epochCommit, ph *phases) (*EpochReport, error) {
	c.cover.Table, c.cover.Plan, c.cover.WrittenAt = c.plan.Table.Name, c.plan.Hash, c.at
	name, err := c.log.write(ctx, c.state, c.cover)
	if err != nil {
		return nil, fmt.Errorf("write progress: %w", err)
	}
	ph.done("progress")
	var touched int64
	var rules map[string]int64
	if c.quarantine && c.result != nil && c.result.Quarantined > 0 {
		if touched, rules, err = l.putQuarantine(ctx, c, name); err != nil {
			return nil, fmt.Errorf("write quarantine: %w", err)
		}
		ph.done("quarantine")
	}
	m, told, err := l.merge(ctx, c, name, ph)
	if err != nil {
		return nil, err
	}
	if c.late = m.LateRows; m.Late > 0 {
		if rules == nil {
			rules = map[string]int64{}
		}
		rules[RuleTombstones] += m.Late
	}
	if err := l.takeBackLate(context.WithoutCancel(ctx), c, told, name); err != nil {
		l.log.Warn("rows that are in the table after all stay in quarantine", "source", c.source.Name, "error", err)
	}
	c.state.epoch = c.cover.Epoch
	c.state.apply(name, c.cover)
	// The commit stands; the winner file only saves the next run a look into the log. So its loss is no error.
	err = c.log.confirm(context.WithoutCancel(ctx), winnerFile{Epoch: c.cover.Epoch, File: name, TableID: c.state.tableID, Version: m.Version})
	if err != nil {
		l.log.Warn("the winner file of an epoch could not be written; the next run will", "source", c.source.Name, "epoch", c.cover.Epoch, "error", err)
	}
	ph.done("confirm")

	r := &EpochReport{
		Source: c.source.Name, Table: c.plan.Table.Name, Incarnation: c.log.incarnation,
		Kind: c.cover.Kind, Epoch: c.cover.Epoch, Version: m.Version,
		FilesAdded: m.FilesAdded, FilesRemoved: m.FilesRemoved, BytesAdded: m.BytesAdded, Rebases: m.Rebases,
		Rules:  rules,
		Phases: ph.took,
	}
	for _, f := range c.cover.Files {
		if !f.Copy {
			r.Files++
		}
	}
	if c.result != nil {
		r.Counts = countEpoch(c.result, m)
		r.Warned, r.Warnings = c.result.Warned, c.result.Warnings
	}
	if len(c.replace) > 0 {
		if err := l.purgeQuarantine(context.WithoutCancel(ctx), c.source.Name, c.replace); err != nil {
			l.log.Warn("rows that no longer count stay in quarantine for now", "source", c.source.Name, "error", err)
		}
	}
	l.log.Debug("epoch committed", "source", r.Source, "epoch", r.Epoch, "version", r.Version, "rows", r.RowsRead,
		"quarantine_commits", touched, "phases", r.Phases)
	r.Seconds = ph.seconds()
	return r, nil
}

// merge commits the rows of an epoch together with its txn. told are the rows that were brought to quarantine because
// their deletion may have been forgotten.
func (l *Lake) merge(ctx context.Context, c *epochCommit, name string, ph *phases) (_ *delta.MergeResult, told *roaring64.Bitmap, _ error) {
	t := c.plan.Table
	defer ph.done(phaseCommit) // what is left when the commit stands, or has failed
	o := delta.MergeOptions{
		Key:          t.MergeKey(),
		Order:        t.Order(),
		Same:         t.SameColumns(),
		Txn:          &delta.Txn{AppID: c.log.appID(), Version: c.cover.Epoch},
		UserMetadata: c.log.key(name),
		Compression:  t.Compression,
		CopyOnWrite:  !t.DeletionVectors,
		CommitEmpty:  true, // the txn says what was read, even where it changed nothing
		Hook: func(begins string) {
			switch begins {
			case "located":
				ph.done(phaseLocate)
			case "files-written":
				ph.done(phaseWrite)
			}
			l.hook(begins)
		},
	}
	if ms := c.at.UnixMilli(); ms > 0 {
		o.Txn.LastUpdated = &ms
	}
	if col, ok := t.Column(pipeline.ColumnIngestedAt); ok {
		o.Carry = []string{col.Name}
	}
	if t.Deletes {
		o.Tombstone = pipeline.ColumnDeleted
	}
	if len(t.Key) > 0 && c.result != nil && !c.acceptLate {
		told = roaring64.New()
		o.Floor = &delta.Floor{Property: PropTombstonesPurged, Late: func(ctx context.Context, rows *roaring64.Bitmap) error {
			if !c.quarantine {
				return nil
			}
			told.Or(rows)
			return l.putLate(ctx, c, rows, name)
		}}
	}
	if len(c.replace) > 0 {
		rows := originRows(c.replace)
		defer rows.Close()
		o.Replace = &delta.Replace{Columns: []string{pipeline.ColumnOrigin}, Rows: rows}
	}
	if c.result != nil {
		m, err := c.table.Merge(ctx, c.result.Rows, o)
		return m, told, err
	}
	rows := delta.NewRows(t.DeltaSchema().Arrow())
	defer rows.Close()
	m, err := c.table.Merge(ctx, rows, o)
	return m, nil, err
}

// originRows is a relation of origins, for delta.Replace.
func originRows(origins []string) *delta.MemoryRows {
	s := arrow.NewSchema([]arrow.Field{{Name: pipeline.ColumnOrigin, Type: arrow.BinaryTypes.String, Nullable: true}}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, s)
	defer b.Release()
	b.Field(0).(*array.StringBuilder).AppendValues(origins, nil)
	return memoryRows(s, b)
}

// newEpoch starts the computation of an epoch and gives the time that its rows carry as ingested_at.
func (l *Lake) newEpoch(ctx context.Context, plan *pipeline.Plan) (Epoch, time.Time, error) {
	at := l.now()
	e, err := l.engine.NewEpoch(ctx, plan, at)
	if err != nil {
		return nil, at, fmt.Errorf("begin an epoch: %w", err)
	}
	return e, at, nil
}

// finish ends the computation of an epoch for a table. Rows that the table would refuse are bad rows like those that break a rule
// of the plan. A rule that came since the last look at the table is kept by the commit; whether one has gone since, where the
// source has waited, another look tells.
func (l *Lake) finish(ctx context.Context, e Epoch, t *delta.Table) (*EpochResult, error) {
	k, ok := e.(pipeline.TableRuler)
	s := t.Latest()
	if !ok || s == nil {
		return e.Finish(ctx)
	}
	rules, err := s.RowRules()
	if err == nil && rules.Concern(s.Schema().Arrow()) {
		if s, err = t.Snapshot(ctx); err == nil {
			rules, err = s.RowRules()
		}
	}
	if err != nil {
		return nil, err
	}
	k.KeepRules(rules)
	return e.Finish(ctx)
}

// join lists names for people, cut where there are many.
func join(names []string) string {
	const max = 5
	if len(names) <= max {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:max], ", "), len(names)-max)
}

// memoryRows takes what a builder holds as delta.Rows. The caller closes them.
func memoryRows(s *arrow.Schema, b *array.RecordBuilder) *delta.MemoryRows {
	batch := b.NewRecordBatch()
	defer batch.Release()
	return delta.NewRows(s, batch)
}
