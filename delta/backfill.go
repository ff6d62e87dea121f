package delta

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
)

// backfillFiles bounds the files that one commit of a backfill describes anew.
var backfillFiles = 50_000 // a variable for tests

// EnableRowTracking gives every row of the table an id that stays (PROTOCOL.md, "Row Tracking"), as Spark's ALTER TABLE …
// SET TBLPROPERTIES (delta.enableRowTracking = true) does: the protocol is raised, then all files that have no row ids get
// them in commits of their own, beside which others write on, then the property is set. It can be repeated after any
// error, and goes on where it stopped; a table that has row tracking stays as it is.
func (t *Table) EnableRowTracking(ctx context.Context) (Version, error) {
	for try := 1; ; try++ {
		v, err := t.enableRowTracking(ctx)
		// A writer that does not heed the protocol may have added a file without ids meanwhile.
		if (errors.Is(err, ErrConflict) || errors.Is(err, errUntracked)) && try < t.opts.MaxTries {
			if err = t.pause(ctx, try); err == nil {
				continue
			}
		}
		if err != nil {
			return 0, fmt.Errorf("enable row tracking of %s: %w", t, err)
		}
		return v, nil
	}
}

// errUntracked says that a file has no row ids.
var errUntracked = errors.New("a file has no baseRowId")

func (t *Table) enableRowTracking(ctx context.Context) (Version, error) {
	s, err := t.Snapshot(ctx)
	if err != nil {
		return 0, err
	}
	if err := s.CheckWrite(); err != nil {
		return 0, err
	}
	if s.RowTracking() {
		return s.version, nil
	}
	if on(s.metadata, propRowTrackingSuspended) {
		return 0, fmt.Errorf("%w: %s is true", ErrProperty, propRowTrackingSuspended)
	}
	raised := s.protocol.raised(featureOf(featureRowTracking))
	if raised != nil && s.untracked(1) != nil {
		x := t.Begin(s)
		x.SetProtocol(*raised)
		done, err := x.Commit(ctx, CommitOptions{Operation: "UPGRADE PROTOCOL", Parameters: map[string]string{"newProtocol": jsonText(raised)}})
		if err != nil {
			return 0, err
		}
		s, raised = done.Snapshot, nil
	}
	for batch := 0; ; batch++ {
		adds := s.untracked(backfillFiles)
		if adds == nil {
			break
		}
		if s, err = t.backfill(ctx, s, adds, batch); err != nil {
			return 0, err
		}
	}
	x := t.Begin(s)
	if raised != nil {
		x.SetProtocol(*raised)
	}
	m := s.Metadata()
	m.Configuration = maps.Clone(m.Configuration)
	if m.Configuration == nil {
		m.Configuration = map[string]string{}
	}
	m.Configuration[propRowTracking] = "true"
	nameRowIDColumns(m.Configuration, t.opts.NewID)
	x.SetMetadata(m)
	done, err := x.Commit(ctx, CommitOptions{Operation: "SET TBLPROPERTIES", Parameters: map[string]string{
		"properties": jsonText(map[string]string{propRowTracking: "true"}),
	}})
	if err != nil {
		return 0, err
	}
	return done.Version, nil
}

// untracked gives the first live files without row ids, at most n; nil if there are none.
func (s *Snapshot) untracked(n int) []*Add {
	var out []*Add
	for f := range s.live.rows() {
		if f.baseRow == nil || f.baseRow[f.i] == absent {
			if out = append(out, f.add(f.i)); len(out) == n {
				break
			}
		}
	}
	return out
}

// backfill describes files anew so that they get row ids. What a winner has removed or described itself is left out
// (Spark's rules for ROW TRACKING BACKFILL): a file must neither come back nor get other ids.
func (t *Table) backfill(ctx context.Context, s *Snapshot, adds []*Add, batch int) (*Snapshot, error) {
	x := t.Begin(s)
	x.recommit = true
	for _, a := range adds {
		a.DataChange = false
		if st, err := ParseStats(a.Stats); err != nil || st.NumRecords < 0 {
			files, err := s.load(ctx, []*Add{a})
			if err != nil {
				return nil, err
			}
			n, err := numRecords(ctx, s.TableInfo(), files[0])
			if err != nil {
				return nil, err
			}
			if st == nil {
				st = &Stats{}
			}
			st.NumRecords = n
			a.Stats = st.JSON()
		}
		x.AddFile(a)
	}
	done, err := x.Commit(ctx, CommitOptions{
		Operation: opBackfill, Parameters: map[string]string{"batchId": strconv.Itoa(batch)},
		Rebase: func(_ context.Context, newer *Snapshot, _ []WinningCommit) error {
			var keep []*Add
			for _, a := range x.adds {
				if now, ok := newer.File(canonicalPath(a.Path)); ok && now.key() == a.key() && now.BaseRowID == nil {
					keep = append(keep, a)
				}
			}
			x.adds = keep
			if len(keep) == 0 {
				return errNothingLeft
			}
			return nil
		},
	})
	if errors.Is(err, errNothingLeft) {
		return t.Snapshot(ctx)
	}
	if err != nil {
		return nil, err
	}
	return done.Snapshot, nil
}
