package ingest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cauce-data/cauce/catalog"
	"github.com/cauce-data/cauce/delta"
)

// MaintainOptions narrow maintenance. The zero value does to every table, the quarantine included, what the lake file
// asks for.
type MaintainOptions struct {
	Tables []string
	// CompactOnly leaves everything but compaction out: what a stream does beside its work.
	CompactOnly bool
	// Vacuum deletes unneeded files even if the lake file does not ask for it.
	Vacuum bool
}

// MaintainReport says what maintenance did.
type MaintainReport struct {
	Tables map[string]*TableMaintenance `json:"tables"`
	// ProgressRemoved counts progress files that a summary had made superfluous, and unfinished files of killed processes.
	ProgressRemoved int     `json:"progress_removed"`
	Seconds         float64 `json:"seconds"`
}

// TableMaintenance says what maintenance did to one table.
type TableMaintenance struct {
	Partitions       int           `json:"partitions"` // compacted
	FilesRemoved     int           `json:"files_removed"`
	FilesAdded       int           `json:"files_added"`
	FilesVacuumed    int           `json:"files_vacuumed"`
	TombstonesPurged int64         `json:"tombstones_purged,omitempty"`
	Version          delta.Version `json:"version"`
}

// Defaults where the lake file says nothing.
const (
	maintainFilesMin = 16
	maintainTarget   = 128 << 20
	retentionMin     = 168 * time.Hour
)

// Maintain compacts small files where it pays, removes quarantined rows that no longer count, forgets deletions that are
// older than a table's tombstone_retention, and deletes files that no
// version within the retention names. It yields to writers of data: what they change meanwhile is left for the next
// time.
func (l *Lake) Maintain(ctx context.Context, o MaintainOptions) (*MaintainReport, error) {
	start := l.clock()
	r := &MaintainReport{Tables: map[string]*TableMaintenance{}}
	names := o.Tables
	if len(names) == 0 {
		names = l.catalog.Names()
	}
	var errs []error
	for _, name := range names {
		if ctx.Err() != nil {
			break
		}
		t, err := l.catalog.Open(ctx, name)
		if errors.Is(err, delta.ErrNotATable) {
			continue // nothing was written yet
		}
		if err == nil {
			m := &TableMaintenance{}
			r.Tables[name] = m
			began := l.clock()
			err = l.maintainTable(ctx, name, t, o, m)
			l.observe.maintained(name, m, l.clock().Sub(began), err)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("table %s: %w", name, err))
		}
	}
	if !o.CompactOnly && len(o.Tables) == 0 && ctx.Err() == nil {
		var err error
		if r.ProgressRemoved, err = l.tidy(ctx); err != nil {
			errs = append(errs, fmt.Errorf("progress files: %w", err))
		}
	}
	r.Seconds = l.clock().Sub(start).Seconds()
	return r, errors.Join(append(errs, ctx.Err())...)
}

func (l *Lake) maintainTable(ctx context.Context, name string, t *delta.Table, o MaintainOptions, m *TableMaintenance) error {
	policy := l.lake.Maintenance
	if name == catalog.Quarantine && !o.CompactOnly {
		if err := l.purgeAll(ctx); err != nil {
			return err
		}
	}
	if decl := l.lake.Table(name); decl != nil && decl.TombstoneRetention > 0 && !o.CompactOnly {
		p, err := l.purgeTombstones(ctx, decl, t, false)
		switch {
		case errors.Is(err, delta.ErrConflict), errors.Is(err, delta.ErrTooManyTries):
			l.log.Info("the purge of tombstones gave way to other writers", "table", name, "error", err)
		case err != nil:
			return fmt.Errorf("purge tombstones: %w", err)
		default:
			m.TombstonesPurged = p.Purged
		}
	}
	if policy.Optimize {
		if err := l.compact(ctx, name, t, m); err != nil {
			return err
		}
	}
	if (policy.Vacuum || o.Vacuum) && !o.CompactOnly {
		s, err := t.Snapshot(ctx)
		if err != nil {
			return err
		}
		v, err := t.Vacuum(ctx, delta.VacuumOptions{Retention: max(policy.Retention, retentionMin, s.DeletedFileRetention()), Hook: l.hook})
		if err != nil {
			return err
		}
		m.FilesVacuumed = len(v.Deleted)
	}
	s, err := t.Snapshot(ctx)
	if err != nil {
		return err
	}
	m.Version = s.Version()
	return nil
}

// purgeAll removes superseded rows of every source from quarantine.
func (l *Lake) purgeAll(ctx context.Context) error {
	for _, s := range l.lake.Sources {
		if err := l.purgeQuarantine(ctx, s.Name, nil); err != nil {
			return err
		}
	}
	return nil
}

// partitionWork says how many files of a partition compaction would gather.
type partitionWork struct {
	key    string
	values map[string]*string
	small  int
}

// worthCompacting gives the partitions in which at least filesMin files are small against the target: below that the
// rewriting costs more than readers gain. Which of them are packed is for Optimize to choose.
func worthCompacting(s *delta.Snapshot, filesMin int, target int64) []partitionWork {
	byKey := map[string]*partitionWork{}
	by := s.TableInfo().PhysicalPartitionBy()
	for _, a := range s.Adds() {
		if a.Size*2 > target && a.DeletionVector == nil {
			continue
		}
		key := partitionKey(by, a)
		w := byKey[key]
		if w == nil {
			w = &partitionWork{key: key, values: a.PartitionValues}
			byKey[key] = w
		}
		w.small++
	}
	var out []partitionWork
	for _, k := range slices.Sorted(maps.Keys(byKey)) {
		if byKey[k].small >= filesMin {
			out = append(out, *byKey[k])
		}
	}
	return out
}

func (l *Lake) compact(ctx context.Context, name string, t *delta.Table, m *TableMaintenance) error {
	filesMin, target := l.lake.Maintenance.FilesMin, l.lake.Maintenance.FileBytesTarget
	if filesMin <= 0 {
		filesMin = maintainFilesMin
	}
	if target <= 0 {
		target = maintainTarget
	}
	s, err := t.Snapshot(ctx)
	if err != nil {
		return err
	}
	var sortBy []string
	if d := l.lake.Table(name); d != nil {
		sortBy = d.ClusterBy
	}
	for _, w := range worthCompacting(s, filesMin, target) {
		where, err := partitionPredicate(s, w.values)
		if err != nil {
			return err
		}
		key := name + "\x00" + w.key
		res, err := t.Optimize(ctx, delta.OptimizeOptions{
			Where: where, TargetBytes: target, MinFiles: filesMin, Tiered: true, KeepMarked: l.gaveWay.waits(key, l.clock()), SortBy: sortBy, Hook: l.hook,
		})
		if errors.Is(err, delta.ErrConflict) {
			l.log.Debug("compaction gave way to a writer", "table", t.Path(), "error", err)
			continue
		}
		if err != nil {
			return err
		}
		l.gaveWay.note(key, res.Yielded > 0, l.clock())
		l.index.Gone(res.Removed)
		if res.FilesRemoved > 0 {
			m.Partitions++
		}
		m.FilesAdded += res.FilesAdded
		m.FilesRemoved += res.FilesRemoved
	}
	return nil
}

// partitionPredicate selects exactly one partition; nil for a table without partitions.
func partitionPredicate(s *delta.Snapshot, values map[string]*string) (delta.Predicate, error) {
	var all []delta.Predicate
	physical := s.TableInfo().PhysicalPartitionBy()
	for i, c := range s.PartitionBy() {
		f, ok := s.Schema().Field(c)
		if !ok {
			return nil, fmt.Errorf("BUG: partition column %s is not in the schema", c)
		}
		v, err := delta.ParsePartitionValue(f.Type, values[physical[i]])
		if err != nil {
			return nil, err
		}
		if v == nil {
			all = append(all, delta.IsNull{Column: c})
		} else {
			all = append(all, delta.Compare{Column: c, Op: "=", Value: v})
		}
	}
	switch len(all) {
	case 0:
		return nil, nil
	case 1:
		return all[0], nil
	}
	return delta.And(all...), nil
}
