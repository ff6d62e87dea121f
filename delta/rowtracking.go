package delta

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// Row tracking (PROTOCOL.md, "Row Tracking"): every row has an id that it keeps while it is changed and moved, and the
// version in which it was last changed. Both are counted from its file's add (baseRowId, defaultRowCommitVersion) unless
// the file has them in a column of its own, which writers fill when they copy or change a row. The ids of new files are
// given out when a commit is built, anew for each try: they begin above the high-water mark of the version before, which
// a winner may have raised.
const (
	featureRowTracking       = "rowTracking"
	propRowTrackingSuspended = "delta.rowTrackingSuspended"
	propRowIDColumn          = "delta.rowTracking.materializedRowIdColumnName"
	propRowVersionColumn     = "delta.rowTracking.materializedRowCommitVersionColumnName"
	rowTrackingDomain        = "delta.rowTracking"
	tagRowsPreserved         = "delta.rowTracking.preserved"
	opBackfill               = "ROW TRACKING BACKFILL"
)

// ErrRowTracking says that row ids are wanted of a table that does not have them: delta.enableRowTracking is not true.
var ErrRowTracking = errors.New("row tracking is not enabled")

// ErrRowIDsWithoutStats says that a file cannot get row ids because its statistics do not say how many rows it has
// (Spark's DELTA_ROW_ID_ASSIGNMENT_WITHOUT_STATS).
var ErrRowIDsWithoutStats = errors.New("row ids cannot be given to a file without numRecords in its statistics")

// RowTracking reports whether the rows of the table have ids that stay (delta.enableRowTracking).
func (s *Snapshot) RowTracking() bool { return tracksRows(s.protocol, s.metadata) }

func tracksRows(p *Protocol, m *Metadata) bool {
	return p.hasWriterFeature(featureRowTracking) && on(m, propRowTracking)
}

// rowIDMark is the highest row id that was ever given out, -1 if none was.
func (s *Snapshot) rowIDMark() (int64, error) {
	d, ok := s.domains[rowTrackingDomain]
	if !ok {
		return -1, nil
	}
	var c struct {
		Mark *int64 `json:"rowIdHighWaterMark"`
	}
	if err := json.Unmarshal([]byte(d.Configuration), &c); err != nil {
		return 0, fmt.Errorf("%s version %d: %w: domain %s: %w", s.table, s.version, ErrCorrupt, rowTrackingDomain, err)
	}
	if c.Mark == nil {
		return 0, fmt.Errorf("%s version %d: %w: domain %s has no rowIdHighWaterMark", s.table, s.version, ErrCorrupt, rowTrackingDomain)
	}
	return *c.Mark, nil
}

// rowIDDomain is the action that raises the high-water mark, as Spark spells it.
func rowIDDomain(mark int64) DomainMetadata {
	return DomainMetadata{Domain: rowTrackingDomain, Configuration: fmt.Sprintf(`{"rowIdHighWaterMark":%d,"domainName":%q}`, mark, rowTrackingDomain)}
}

// trackRows gives the files of a commit their row ids and commit versions. A file that the log has already keeps its
// own, in adds and in removes (PROTOCOL.md, "Writer Requirements for Row Tracking").
func (x *Tx) trackRows(c *commit, p *Protocol, m *Metadata) error {
	if !p.hasWriterFeature(featureRowTracking) {
		return nil
	}
	mark, err := x.base.rowIDMark()
	if err != nil {
		return err
	}
	next := max(mark, x.rowIDs-1)
	suspended := on(m, propRowTrackingSuspended)
	adds := make([]*Add, len(c.adds))
	for i, a := range c.adds {
		n := *a
		adds[i] = &n
		if was, ok := x.before(a.Path); ok && was.BaseRowID != nil {
			n.BaseRowID, n.DefaultRowCommitVersion = was.BaseRowID, was.DefaultRowCommitVersion
		}
		if n.BaseRowID != nil || suspended {
			continue
		}
		st, err := ParseStats(a.Stats)
		if err != nil {
			return err
		}
		if st.NumRecords < 0 {
			return fmt.Errorf("%s: add %s: %w", x.table, a.Path, ErrRowIDsWithoutStats)
		}
		first, version := next+1, int64(c.version)
		n.BaseRowID, n.DefaultRowCommitVersion = &first, &version
		next += st.NumRecords
	}
	c.adds = adds
	removes := make([]*Remove, len(c.removes))
	for i, r := range c.removes {
		removes[i] = r
		if was, ok := x.base.File(canonicalPath(r.Path)); ok && was.BaseRowID != nil && r.BaseRowID == nil {
			n := *r
			n.BaseRowID, n.DefaultRowCommitVersion = was.BaseRowID, was.DefaultRowCommitVersion
			removes[i] = &n
		}
	}
	c.removes = removes
	if next != mark {
		c.domains = append(slices.Clone(c.domains), rowIDDomain(next))
	}
	if tracksRows(p, m) {
		c.info.Tags = map[string]string{tagRowsPreserved: fmt.Sprint(!x.rowIDsLost)}
	}
	return nil
}

// before is the last add of a path, live or, for what is restored, removed.
func (x *Tx) before(path string) (*Add, bool) {
	path = canonicalPath(path)
	if a, ok := x.base.File(path); ok {
		return a, true
	}
	if !x.oldRows {
		return nil, false
	}
	c, i, ok := x.base.tombs.find(path, nil)
	if !ok {
		return nil, false
	}
	r := x.base.tombs.chunks[c].remove(i)
	return &Add{Path: r.Path, BaseRowID: r.BaseRowID, DefaultRowCommitVersion: r.DefaultRowCommitVersion}, true
}

// checkRowTracking refuses to turn row tracking on while a file has no row ids, or without columns to keep them in.
func (s *Snapshot) checkRowTracking() error {
	if !tracksRows(s.protocol, s.metadata) {
		return nil
	}
	if on(s.metadata, propRowTrackingSuspended) {
		return fmt.Errorf("%w: %s and %s exclude each other", ErrProperty, propRowTracking, propRowTrackingSuspended)
	}
	if _, _, err := rowIDColumns(s.schema, s.metadata.Configuration); err != nil {
		return err
	}
	for f := range s.live.rows() {
		if f.baseRow == nil || f.baseRow[f.i] == absent {
			return fmt.Errorf("%w: %s=true: %w: %s; EnableRowTracking gives it ids", ErrProperty, propRowTracking, errUntracked, f.paths.at(f.i))
		}
	}
	return nil
}

// nameRowIDColumns gives the columns of row ids and commit versions names that nothing else has.
func nameRowIDColumns(config map[string]string, newID func() string) {
	for prop, prefix := range map[string]string{propRowIDColumn: "_row-id-col-", propRowVersionColumn: "_row-commit-version-col-"} {
		if config[prop] == "" {
			config[prop] = prefix + newID()
		}
	}
}
