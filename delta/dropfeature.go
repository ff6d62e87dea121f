package delta

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cauce-data/cauce/objstore"
)

// DropFeatureOptions say how a table feature is dropped.
type DropFeatureOptions struct {
	AlterOptions
	// TruncateHistory deletes the versions that still use a reader feature, once they are older than a day
	// (delta.dropFeatureTruncateHistory.retentionDuration); without it they must have outlived delta.logRetentionDuration.
	TruncateHistory bool
}

// removal says how a table is freed from a feature.
type removal struct {
	// free takes the feature out of use in commits of its own, if need be; nil: it must be out of use.
	free func(ctx context.Context, t *Table, s *Snapshot, o AlterOptions) error
	// used reports whether the feature is in use; what says how to end that where free is nil.
	used func(s *Snapshot) bool
	what string
	// inCommit reports whether a commit of the past uses it; only of reader features.
	inCommit func(c *commit, p *Protocol) bool
}

// removals are the features that can be dropped, those of Spark.
var removals = map[string]removal{
	"deletionVectors": {
		free: freeVectors,
		used: func(s *Snapshot) bool { return on(s.metadata, propDeletionVectors) || s.hasVectors() },
		inCommit: func(c *commit, _ *Protocol) bool {
			return c.metadata != nil && on(c.metadata, propDeletionVectors) || slices.ContainsFunc(c.adds, func(a *Add) bool { return a.DeletionVector != nil })
		},
	},
	"columnMapping": {
		free: func(ctx context.Context, t *Table, s *Snapshot, o AlterOptions) error { return t.unmap(ctx, o) },
		used: func(s *Snapshot) bool { return mappingOf(s.metadata.Configuration) != mapNone },
		inCommit: func(c *commit, _ *Protocol) bool {
			return c.metadata != nil && mappingOf(c.metadata.Configuration) != mapNone
		},
	},
	"typeWidening": {
		free: func(ctx context.Context, t *Table, s *Snapshot, o AlterOptions) error { return t.settleTypes(ctx, o) },
		used: func(s *Snapshot) bool {
			return on(s.metadata, propTypeWidening) || byColumn(metaTypeChanges)(nil, s.schema)
		},
		inCommit: func(c *commit, _ *Protocol) bool {
			return c.metadata != nil && (on(c.metadata, propTypeWidening) || strings.Contains(c.metadata.SchemaString, metaTypeChanges))
		},
	},
	"v2Checkpoint": {
		free: func(ctx context.Context, t *Table, s *Snapshot, o AlterOptions) error {
			_, err := t.SetProperties(ctx, map[string]string{propCheckpointPolicy: "classic"}, o)
			return err
		},
		used: func(s *Snapshot) bool { return s.metadata.Configuration[propCheckpointPolicy] == "v2" },
		inCommit: func(c *commit, _ *Protocol) bool {
			return c.metadata != nil && c.metadata.Configuration[propCheckpointPolicy] == "v2"
		},
	},
	"vacuumProtocolCheck": {used: func(*Snapshot) bool { return false }, inCommit: func(*commit, *Protocol) bool { return false }},
	"inCommitTimestamp": {
		free: func(ctx context.Context, t *Table, s *Snapshot, o AlterOptions) error {
			_, err := t.alter(ctx, o, func(s *Snapshot) (*alteration, error) {
				meta := *s.metadata
				meta.Configuration = maps.Clone(meta.Configuration)
				for _, k := range []string{propICT, propICTVersion, propICTTime} {
					delete(meta.Configuration, k)
				}
				return &alteration{operation: "UNSET TBLPROPERTIES", metadata: &meta,
					params: map[string]string{"properties": quoteJSON([]string{propICT}), "ifExists": "true"}}, nil
			})
			return err
		},
		used: func(s *Snapshot) bool { return on(s.metadata, propICT) },
	},
	"checkConstraints": {
		used: func(s *Snapshot) bool { return featureOf("checkConstraints").active(s.metadata, s.schema) },
		what: "drop the CHECK constraints first (ALTER TABLE … DROP CONSTRAINT)",
	},
	"invariants": {
		used: func(s *Snapshot) bool { return featureOf("invariants").active(s.metadata, s.schema) },
		what: "a column has an invariant",
	},
	"allowColumnDefaults": {
		used: func(s *Snapshot) bool { return featureOf("allowColumnDefaults").active(s.metadata, s.schema) },
		what: "drop the columns' defaults first (ALTER TABLE … ALTER COLUMN … DROP DEFAULT)",
	},
	"clustering": {
		used: func(s *Snapshot) bool { by, err := s.ClusterBy(); return err != nil || len(by) > 0 },
		what: "end the clustering first (ALTER TABLE … CLUSTER BY NONE)",
	},
	"domainMetadata": {
		used: func(s *Snapshot) bool { return len(s.domains) > 0 },
		what: "the table has domain metadata",
	},
}

const (
	propTruncateRetention    = "delta.dropFeatureTruncateHistory.retentionDuration"
	truncateRetentionDefault = 24 * time.Hour
)

// DropFeature takes a table feature out of the protocol, so that readers and writers that do not know it can use the
// table. What the table holds of the feature is taken out first: deletion vectors are purged; files whose columns are
// mapped, or were written before a type was widened, are written anew. A reader feature goes only when no version that
// can still be read uses it: then ErrAlter says from when on, and the call can be repeated; see TruncateHistory.
func (t *Table) DropFeature(ctx context.Context, name string, o DropFeatureOptions) (*AlterResult, error) {
	s, err := t.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	fail := func(class, format string, args ...any) (*AlterResult, error) {
		return nil, fmt.Errorf("%s: %w", t, &AlterError{Class: class, Column: name, Reason: fmt.Sprintf(format, args...)})
	}
	f, known := featureNamed(name)
	if !known {
		return fail("DELTA_FEATURE_DROP_UNSUPPORTED_CLIENT_FEATURE", "there is no such feature here")
	}
	name = f.name
	r, can := removals[name]
	switch {
	case !s.protocol.supports(f):
		return fail("DELTA_FEATURE_DROP_FEATURE_NOT_PRESENT", "the table does not have this feature")
	case !can:
		return fail("DELTA_FEATURE_DROP_NONREMOVABLE_FEATURE", "this feature cannot be dropped")
	case o.TruncateHistory && !f.reader:
		return fail("DELTA_FEATURE_DROP_HISTORY_TRUNCATION_NOT_ALLOWED", "only features that readers must know need a truncated history")
	}
	for i := range features {
		if d := &features[i]; slices.Contains(d.needs, name) && s.protocol.supports(d) {
			return fail("DELTA_FEATURE_DROP_DEPENDENT_FEATURE", "%s needs it; drop that first", d.name)
		}
	}
	if r.used(s) {
		if r.free == nil {
			return fail("DELTA_FEATURE_DROP_CONFLICT_REVALIDATION_FAIL", "it is in use: %s", r.what)
		}
		if err := r.free(ctx, t, s, o.AlterOptions); err != nil {
			return nil, fmt.Errorf("drop feature %s of %s: %w", name, t, err)
		}
		if o.DryRun {
			return &AlterResult{Version: s.Version()}, nil
		}
		if s, err = t.Snapshot(ctx); err != nil {
			return nil, err
		}
		if f.reader {
			// Versions before this one can go when it has a checkpoint.
			if err := s.writeCheckpoint(ctx, CheckpointOptions{}); err != nil {
				return nil, fmt.Errorf("drop feature %s of %s: %w", name, t, err)
			}
		}
	}
	if f.reader {
		if err := t.forgetUse(ctx, s, f, r, o); err != nil {
			return nil, err
		}
	}
	return t.alter(ctx, o.AlterOptions, func(s *Snapshot) (*alteration, error) {
		if r.used(s) {
			return nil, &AlterError{Class: "DELTA_FEATURE_DROP_CONFLICT_REVALIDATION_FAIL", Column: name, Reason: "another writer has begun to use it"}
		}
		a := &alteration{operation: "DROP FEATURE", params: map[string]string{"featureName": name, "truncateHistory": fmt.Sprint(o.TruncateHistory)},
			protocol: s.protocol.without(f), readWhole: true}
		if d, ok := s.Domain(clusteringDomain); ok && name == "clustering" {
			d.Removed = true
			a.domain = &d
		}
		return a, nil
	})
}

// forgetUse makes sure that no version that can be read uses a feature.
func (t *Table) forgetUse(ctx context.Context, s *Snapshot, f *feature, r removal, o DropFeatureOptions) error {
	last, err := t.lastUse(ctx, s, f, r)
	if err != nil || last < 0 {
		return err
	}
	retention := s.LogRetention()
	hint := fmt.Sprintf("repeat it when version %d has outlived %s (%s), or with TRUNCATE HISTORY after %s", last, propLogRetention, retention, s.truncateRetention())
	if o.TruncateHistory {
		retention = s.truncateRetention()
		hint = fmt.Sprintf("repeat it when version %d is %s old (%s)", last+1, retention, propTruncateRetention)
		if _, err := t.cleanupLog(ctx, CleanupOptions{Retention: retention, DryRun: o.DryRun}, 0); err != nil {
			return err
		}
		if last, err = t.lastUse(ctx, s, f, r); err != nil || last < 0 || o.DryRun {
			return err
		}
	}
	return fmt.Errorf("%s: %w", t, &AlterError{Class: "DELTA_FEATURE_DROP_WAIT_FOR_RETENTION_PERIOD", Column: f.name,
		Reason: "the table does not use the feature any more, but versions up to " + fmt.Sprint(last) + " do: " + hint})
}

func (s *Snapshot) truncateRetention() time.Duration {
	return s.interval(propTruncateRetention, truncateRetentionDefault)
}

// lastUse is the last version that can be read and uses a feature, -1 if there is none.
func (t *Table) lastUse(ctx context.Context, s *Snapshot, f *feature, r removal) (Version, error) {
	seg, err := t.list(ctx, 0)
	if err != nil {
		return -1, err
	}
	earliest := seg.earliest(seg.completeCheckpoints())
	for v := s.Version(); v > earliest; v-- {
		c, _, err := t.readCommit(ctx, v)
		if err != nil {
			return -1, err
		}
		if r.inCommit(c, s.protocol) {
			return v, nil
		}
	}
	first, err := t.SnapshotAt(ctx, earliest)
	if err != nil {
		return -1, err
	}
	if r.used(first) {
		return earliest, nil
	}
	return -1, nil
}

// without is the protocol without a feature, in the oldest versions that say the same.
func (p *Protocol) without(f *feature) *Protocol {
	n := *p
	n.ReaderFeatures, n.WriterFeatures = slices.Clone(p.ReaderFeatures), slices.Clone(p.WriterFeatures)
	n.listFeatures(3)
	drop := func(list []string) []string {
		return slices.DeleteFunc(list, func(x string) bool { return x == f.name })
	}
	n.ReaderFeatures, n.WriterFeatures = drop(n.ReaderFeatures), drop(n.WriterFeatures)
	for _, v := range []int{2, 3, 4, 5, 6} {
		old := Protocol{MinReaderVersion: 1, MinWriterVersion: v}
		if v >= featureOf("columnMapping").writerVersion {
			old.MinReaderVersion = 2
		}
		listed := old
		listed.listFeatures(3)
		if sameNames(listed.WriterFeatures, n.WriterFeatures) && sameNames(listed.ReaderFeatures, n.ReaderFeatures) {
			return &old
		}
	}
	switch {
	case len(n.ReaderFeatures) == 0:
		n.MinReaderVersion, n.ReaderFeatures = 1, nil
	case slices.Equal(n.ReaderFeatures, []string{"columnMapping"}):
		n.MinReaderVersion, n.ReaderFeatures = 2, nil
	}
	return &n
}

func sameNames(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

func (s *Snapshot) hasVectors() bool {
	for _, a := range s.Adds() {
		if a.DeletionVector != nil {
			return true
		}
	}
	return false
}

// freeVectors turns deletion vectors off and writes the files that have some anew.
func freeVectors(ctx context.Context, t *Table, s *Snapshot, o AlterOptions) error {
	if on(s.metadata, propDeletionVectors) {
		if _, err := t.SetProperties(ctx, map[string]string{propDeletionVectors: "false"}, o); err != nil {
			return err
		}
	}
	if o.DryRun {
		return nil
	}
	for range t.opts.MaxTries {
		if _, err := t.Optimize(ctx, OptimizeOptions{Purge: true, Hook: o.Hook}); err != nil {
			return err
		}
		now, err := t.Snapshot(ctx)
		if err != nil {
			return err
		}
		if !now.hasVectors() {
			return nil
		}
	}
	return fmt.Errorf("%w: other writers go on making deletion vectors", ErrTooManyTries)
}

// unmap writes all files anew with the columns' names in place of physical names.
func (t *Table) unmap(ctx context.Context, o AlterOptions) error {
	return t.rewriteAll(ctx, o, "REMOVE COLUMN MAPPING", func(s *Snapshot) (*alteration, error) {
		fields := unmapFields(s.schema.Fields)
		if err := checkNames(fields); err != nil {
			return nil, err
		}
		meta := *s.metadata
		meta.Configuration = maps.Clone(meta.Configuration)
		delete(meta.Configuration, propMappingMode)
		delete(meta.Configuration, propMaxColumnID)
		meta.SchemaString = (&Schema{Fields: fields}).JSON()
		a := &alteration{metadata: &meta}
		by, err := s.ClusterBy()
		if err != nil || len(by) == 0 {
			return a, err
		}
		d, err := clusteringOf(&Schema{Fields: fields}, nil, by)
		a.domain = &d
		return a, err
	})
}

// checkNames refuses names that only a mapped column can have.
func checkNames(fields []Field) error {
	var bad error
	walkFields(fields, func(f *Field) {
		if bad == nil && strings.ContainsAny(f.Name, unmappedForbidden) {
			bad = &AlterError{Class: "DELTA_INVALID_COLUMN_NAMES_WHEN_REMOVING_COLUMN_MAPPING", Column: f.Name, Reason: "without column mapping a name must not have any of \" ,;{}()=\", tab or line break; rename it first"}
		}
	})
	return bad
}

// settleTypes writes all files anew in the types that the table has, and forgets those that it had.
func (t *Table) settleTypes(ctx context.Context, o AlterOptions) error {
	if _, err := t.SetProperties(ctx, map[string]string{propTypeWidening: "false"}, o); err != nil || o.DryRun {
		return err
	}
	return t.rewriteAll(ctx, o, "REORG", func(s *Snapshot) (*alteration, error) {
		if !byColumn(metaTypeChanges)(nil, s.schema) {
			return &alteration{}, nil
		}
		fields := editFields(s.schema.Fields, func(f *Field) {
			if _, ok := f.Metadata[metaTypeChanges]; ok {
				f.Metadata = maps.Clone(f.Metadata)
				delete(f.Metadata, metaTypeChanges)
			}
		})
		meta := *s.metadata
		meta.SchemaString = (&Schema{Fields: fields}).JSON()
		return &alteration{metadata: &meta}, nil
	})
}

// rewriteAll writes every file of the table anew as other metadata needs it, in one commit that changes no row.
func (t *Table) rewriteAll(ctx context.Context, o AlterOptions, operation string, plan func(*Snapshot) (*alteration, error)) error {
	for try := 1; ; try++ {
		err := t.rewriteAllOnce(ctx, o, operation, plan)
		if errors.Is(err, ErrConflict) && try < t.opts.MaxTries {
			if err = t.pause(ctx, try); err == nil {
				continue
			}
		}
		return err
	}
}

func (t *Table) rewriteAllOnce(ctx context.Context, o AlterOptions, operation string, plan func(*Snapshot) (*alteration, error)) (err error) {
	s, err := t.Snapshot(ctx)
	if err != nil {
		return err
	}
	if err := s.CheckWrite(); err != nil {
		return err
	}
	a, err := plan(s)
	if err != nil || a.metadata == nil || o.DryRun {
		return err
	}
	after := *s
	after.metadata, after.assumed = a.metadata, &assumption{}
	if err := after.finish(nil); err != nil {
		return err
	}
	eng := t.engine()
	from, reader, err := s.copyInfo(s.TableInfo(), eng.Reader)
	if err != nil {
		return err
	}
	to, _, err := after.copyInfo(after.TableInfo(), eng.Reader)
	if err != nil {
		return err
	}
	tx := t.Begin(s)
	tx.oldRows = true
	tx.ReadWhole()
	tx.SetMetadata(*a.metadata)
	if a.domain != nil {
		tx.SetDomain(*a.domain)
	}
	var written []WrittenFile
	defer func() {
		if err != nil && !errors.Is(err, objstore.ErrAmbiguous) {
			deleteFiles(context.WithoutCancel(ctx), t.store, written)
		}
	}()
	now := t.opts.Clock().UnixMilli()
	files := s.Prune(nil)
	for len(files) > 0 {
		var bytes int64
		n := 0
		for n < len(files) && (n == 0 || bytes+files[n].Size <= optimizeCommitBytes) {
			bytes += files[n].Size
			n++
		}
		loaded, err := s.load(ctx, files[:n])
		if err != nil {
			return err
		}
		files = files[n:]
		rows, err := newFileRows(ctx, reader, from, loaded)
		if err != nil {
			return err
		}
		out, err := eng.FileWriter.Write(ctx, to, WriteRequest{Rows: rows})
		if err != nil {
			return err
		}
		withoutIDStats(to.Config, out)
		written = append(written, out...)
		for _, f := range loaded {
			tx.RemoveFile(f.Add.Tombstone(now, false))
		}
	}
	for _, w := range written {
		tx.AddFile(addOf(w, false))
	}
	if o.Hook != nil {
		o.Hook("files-written")
	}
	_, err = tx.Commit(ctx, CommitOptions{Operation: operation, Parameters: map[string]string{}, UserMetadata: o.UserMetadata, Hook: o.Hook,
		Metrics: map[string]string{"numRewrittenFiles": fmt.Sprint(len(tx.removes)), "numOutputFiles": fmt.Sprint(len(written))}})
	return err
}
