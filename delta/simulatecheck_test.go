package delta

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/cauce-data/cauce/objstore"
)

// What the simulation demands of the table when a round is over (see simulate_test.go).

// check replays the log against the model.
func (s *sim) check(string) error {
	ctx := context.Background()
	tab, err := s.open()
	if err != nil {
		return err
	}
	newest, err := tab.Snapshot(ctx)
	if err != nil {
		return err
	}
	model := map[string]simRow{} // by id
	states := []map[string]simRow{{}}
	tracks := map[Version]map[string]trackedRow{}
	var before *Snapshot
	if s.start == 0 {
		tracks[0] = map[string]trackedRow{}
		if before, err = tab.SnapshotAt(ctx, 0); err != nil {
			return err
		}
	}
	seen := map[string]int{}
	for v := Version(1); v <= newest.Version(); v++ {
		c, _, err := tab.readCommit(ctx, v)
		if err != nil {
			return fmt.Errorf("the log is not whole: %w", err)
		}
		model = maps.Clone(model)
		// Maintenance changes no row; that it does not is what the states below prove.
		if op := c.info.Operation; op != "OPTIMIZE" && op != "REORG" && op != "VACUUM START" && op != "VACUUM END" {
			name, _, _ := strings.Cut(c.info.UserMetadata, " ")
			op := s.ops[name]
			if op == nil {
				return fmt.Errorf("version %d: %s of nobody (%q)", v, c.info.Operation, c.info.UserMetadata)
			}
			if seen[name]++; seen[name] > 1 && op.kind != "restore" {
				return fmt.Errorf("version %d: %s %s is there twice", v, op.name, op.kind)
			}
			if op.kind == "restore" {
				model = maps.Clone(states[op.target])
			} else {
				op.apply(model)
			}
		}
		states = append(states, model)
		if v < s.start {
			continue // its files may have been vacuumed
		}
		// From checkpoint and log, not from the snapshot before: the two must tell the same.
		at, err := tab.SnapshotAt(ctx, v)
		if err != nil {
			return fmt.Errorf("version %d: %w", v, err)
		}
		if err := s.checkVersion(at, model); err != nil {
			return err
		}
		if s.tracked {
			if err := s.checkTracked(before, at, c, states, tracks); err != nil {
				return err
			}
		}
		before = at
	}
	if s.tracked {
		if err := idsUnique(tab); err != nil {
			return err
		}
		if err := s.checkFeed(tab, states); err != nil {
			return err
		}
	}
	for _, name := range sortedKeys(s.ops) {
		op := s.ops[name]
		switch op.kind {
		case "append", "overwrite", "replace where", "merge", "delete where", "update", "merge into":
			if op.acked != 1 || seen[name] != 1 {
				return fmt.Errorf("%s %s was acknowledged %d times and is there %d times", name, op.kind, op.acked, seen[name])
			}
		case "delete", "restore":
			if op.acked == 1 && op.version >= 0 && seen[name] == 0 {
				return fmt.Errorf("%s %s was acknowledged as version %d and is not there", name, op.kind, op.version)
			}
		}
	}
	return s.checkCheckpoints(tab, newest)
}

// checkVersion compares the rows of a version with the model.
func (s *sim) checkVersion(at *Snapshot, model map[string]simRow) error {
	ctx, v := context.Background(), at.Version()
	if _, err := at.VerifyChecksum(ctx); err != nil {
		return err
	}
	var got, want []string
	for b, err := range at.Table().Scan(ctx, at, ScanOptions{Columns: []string{"id", "day", "seq"}}) {
		if err != nil {
			return fmt.Errorf("version %d cannot be read: %w", v, err)
		}
		for i := range int(b.NumRows()) {
			got = append(got, fmt.Sprint(simRow{named(b, "id").(*array.String).Value(i), named(b, "day").(*array.String).Value(i), named(b, "seq").(*array.Int64).Value(i)}))
		}
	}
	for _, r := range model {
		want = append(want, fmt.Sprint(r))
	}
	sort.Strings(got)
	sort.Strings(want)
	if !slices.Equal(got, want) {
		return fmt.Errorf("version %d has the rows\n%v, not\n%v", v, got, want)
	}
	return nil
}

// checkTracked compares row ids and commit versions of a version with the version before (nil: it is not known): a row
// keeps its id, and a new one has one that was never given.
func (s *sim) checkTracked(before, at *Snapshot, c *commit, states []map[string]simRow, tracks map[Version]map[string]trackedRow) error {
	ctx, v := context.Background(), at.Version()
	now, owner := map[string]trackedRow{}, map[int64]string{}
	for b, err := range at.Table().Scan(ctx, at, ScanOptions{Columns: []string{"id"}, RowTracking: true}) {
		if err != nil {
			return fmt.Errorf("version %d cannot be read with row ids: %w", v, err)
		}
		for i := range int(b.NumRows()) {
			k, r := b.Column(0).ValueStr(i), trackedRow{b.Column(1).(*array.Int64).Value(i), b.Column(2).(*array.Int64).Value(i)}
			if o, ok := owner[r.id]; ok {
				return fmt.Errorf("version %d: rows %s and %s have the id %d", v, o, k, r.id)
			}
			now[k], owner[r.id] = r, k
		}
	}
	tracks[v] = now
	if before == nil {
		return nil
	}
	if !at.Time().After(before.Time()) {
		return fmt.Errorf("version %d is of %s, the one before of %s", v, at.Time(), before.Time())
	}
	mark, err := before.rowIDMark()
	if err != nil {
		return err
	}
	source := tracks[v-1]
	name, _, _ := strings.Cut(c.info.UserMetadata, " ")
	restore := c.info.Operation == "RESTORE"
	if restore {
		var ok bool
		if source, ok = tracks[s.ops[name].target]; !ok {
			return fmt.Errorf("version %d restores version %d, which is of an earlier round", v, s.ops[name].target)
		}
	}
	for k, r := range now {
		old, known := source[k]
		changed := states[v][k] != states[v-1][k]
		switch {
		case known && old.id != r.id:
			return fmt.Errorf("version %d: row %s had the id %d, now %d", v, k, old.id, r.id)
		case known && (restore || !changed) && r.version != old.version, known && !restore && changed && r.version != int64(v):
			return fmt.Errorf("version %d: row %s had the commit version %d, now %d; changed: %v", v, k, old.version, r.version, changed)
		case !known && (restore || r.id <= mark):
			return fmt.Errorf("version %d: row %s is new and has the id %d, the mark was %d", v, k, r.id, mark)
		}
	}
	return nil
}

// checkFeed compares the change feed with the states: version by version, it leads from one to the next. It is read in
// two parts, so that one begins and one ends in the middle of the log.
func (s *sim) checkFeed(tab *Table, states []map[string]simRow) error {
	ctx := context.Background()
	first, last := s.start+1, Version(len(states)-1)
	if first > last {
		return nil
	}
	sums := make([]map[string]int, len(states))
	for v := first; v <= last; v++ {
		sums[v] = map[string]int{}
		for _, r := range states[v-1] {
			sums[v][fmt.Sprint(r)]++
		}
		for _, r := range states[v] {
			sums[v][fmt.Sprint(r)]--
		}
	}
	cut := first + Version(s.rng.Int64N(int64(last-first+1)))
	for _, o := range []ChangesOptions{{From: first, To: cut}, {From: cut + 1, To: last}} {
		if o.From > o.To {
			continue
		}
		feed, err := tab.Changes(ctx, o)
		if err != nil {
			return err
		}
		for b, err := range feed.Batches(ctx) {
			if err != nil {
				return fmt.Errorf("changes of versions %d to %d: %w", o.From, o.To, err)
			}
			for i := range int(b.NumRows()) {
				r := fmt.Sprint(simRow{named(b, "id").(*array.String).Value(i), named(b, "day").(*array.String).Value(i), named(b, "seq").(*array.Int64).Value(i)})
				v := named(b, CommitVersionColumn).(*array.Int64).Value(i)
				if v < int64(o.From) || v > int64(o.To) {
					return fmt.Errorf("the changes of versions %d to %d hold one of version %d", o.From, o.To, v)
				}
				switch named(b, ChangeTypeColumn).(*array.String).Value(i) {
				case changeDelete, changePreimage:
					sums[v][r]--
				default:
					sums[v][r]++
				}
			}
		}
	}
	for v, sum := range sums {
		for r, n := range sum {
			if n != 0 {
				return fmt.Errorf("version %d: the change feed is wrong about %s by %d", v, r, n)
			}
		}
	}
	return nil
}

// checkCheckpoints compares the state that checkpoints give with the one that commits alone give.
func (s *sim) checkCheckpoints(tab *Table, newest *Snapshot) error {
	bare := objstore.NewMemory(func() time.Time { return s.now })
	ctx := context.Background()
	for v := Version(0); v <= newest.Version(); v++ {
		key := tab.commitKey(v)
		data, _, err := readObject(ctx, s.mem, key)
		if err != nil {
			return err
		}
		if err := bare.PutIfAbsent(ctx, key, data); err != nil {
			return err
		}
	}
	ids := 0
	replayed, err := Open(ctx, bare, "t", s.options("check", &ids))
	if err != nil {
		return err
	}
	r, err := replayed.Snapshot(ctx)
	if err != nil {
		return err
	}
	state := func(s *Snapshot) string {
		var out []string
		for _, a := range s.Adds() {
			out = append(out, a.Path+" "+a.DeletionVector.UniqueID())
		}
		sort.Strings(out)
		for _, app := range sortedKeys(s.txns) {
			out = append(out, fmt.Sprint(app, s.txns[app].Version))
		}
		return strings.Join(out, "\n")
	}
	if a, b := state(newest), state(r); a != b {
		return fmt.Errorf("version %d by its checkpoint:\n%s\nby its commits:\n%s", newest.Version(), a, b)
	}
	return nil
}

// checkVacuum vacuums with nobody at work: exactly the named files are left.
func (s *sim) checkVacuum() error {
	ctx := context.Background()
	tab, err := s.open()
	if err != nil {
		return err
	}
	if _, err := tab.Vacuum(ctx, VacuumOptions{Retention: time.Hour, Force: true}); err != nil {
		return err
	}
	at, err := tab.Snapshot(ctx)
	if err != nil {
		return err
	}
	named := map[string]bool{}
	for _, a := range at.Adds() {
		if err := at.noteKeys(named, a.Path, a.DeletionVector); err != nil {
			return err
		}
	}
	var left []string
	for info, err := range s.mem.List(ctx, "t/", "") {
		if err != nil {
			return err
		}
		if !strings.HasPrefix(info.Key, "t/_delta_log/") {
			left = append(left, info.Key)
		}
	}
	if want := sortedKeys(named); !slices.Equal(left, want) {
		return fmt.Errorf("VACUUM left\n%v\nthe table names\n%v", left, want)
	}
	return nil
}
