package delta

import (
	"context"
	"fmt"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
)

// rebase moves the plan from a.base to a newer snapshot without writing again what is written (DESIGN D5). It looks
// only at what the winners touched:
//
//   - files they took away: our marks on them are void. Whatever of their rows still lives is in a file they added.
//   - files they added, for whatever reason: our keys are looked up in them. A stored row that is less than ours is
//     marked; one that is not beats ours, and our written row is marked instead.
//   - files with another vector: both vectors hold, so the marks are joined (in stage).
//
// A stored row that had beaten one of ours and is gone without a successor makes ours a winner that was not written:
// then, and when copy-on-write files were touched, errReplan.
func (a *mergeAttempt) rebase(ctx context.Context, newer *Snapshot, won []WinningCommit) error {
	touched := map[string]bool{}
	for _, w := range won {
		for _, x := range w.Adds {
			touched[canonicalPath(x.Path)] = true
		}
		for _, x := range w.Removes {
			touched[canonicalPath(x.Path)] = true
		}
	}
	var added []*Add
	fresh := map[string]bool{}
	var revectored []string
	cur := map[string]*Add{} // of newer, as far as the winners touched them
	for _, p := range sortedKeys(touched) {
		was, _ := a.base.File(p)
		is, ok := newer.File(p)
		if ok {
			cur[p] = is
		}
		switch {
		case is == nil && was == nil:
			continue
		case is == nil || was == nil:
		case is.DeletionVector.UniqueID() != was.DeletionVector.UniqueID():
			revectored = append(revectored, p)
		default:
			continue // only its description changed
		}
		if !a.vectors && a.marks[p] != nil {
			return errReplan // we rewrote the file as it was
		}
		if was == nil {
			fresh[p] = true
		}
		if is == nil {
			delete(a.marks, p)
		}
	}
	for _, p := range sortedKeys(fresh) {
		if x, ok := cur[p]; ok {
			added = append(added, x)
		}
	}
	deleted, err := a.revectored(ctx, newer, cur, revectored)
	if err != nil {
		return err
	}
	orphans, err := a.orphans(ctx, newer, cur, deleted)
	if err != nil {
		return err
	}
	if len(added) > 0 {
		if err := a.meet(ctx, newer, added, orphans); err != nil {
			return err
		}
	}
	if len(orphans) > 0 {
		return errReplan
	}
	if lost, err := a.lostIDs(ctx, newer, touched); err != nil {
		return err
	} else if lost {
		return errReplan
	}
	a.base = newer
	return nil
}

// revectored gives the rows that newer marks in files whose vector the winners changed. A winner that restored an older
// version has brought marked rows back, among which no key has been looked up: then errReplan.
func (a *mergeAttempt) revectored(ctx context.Context, newer *Snapshot, cur map[string]*Add, paths []string) (map[string]*roaring64.Bitmap, error) {
	deleted := map[string]*roaring64.Bitmap{}
	for _, p := range paths {
		was, _ := a.base.File(p)
		before, err := a.base.load(ctx, []*Add{was})
		if err != nil {
			return nil, err
		}
		now, err := newer.load(ctx, []*Add{cur[p]})
		if err != nil {
			return nil, err
		}
		if b := before[0].Deleted; b != nil {
			back := b.Clone()
			if d := now[0].Deleted; d != nil {
				back.AndNot(d)
			}
			if !back.IsEmpty() {
				return nil, errReplan
			}
		}
		deleted[p] = now[0].Deleted
	}
	return deleted, nil
}

// orphans are the source rows that lost to stored rows of which none lives at its place any more; deleted are the marks
// of files whose vector has changed.
func (a *mergeAttempt) orphans(ctx context.Context, newer *Snapshot, cur map[string]*Add, deleted map[string]*roaring64.Bitmap) (map[int64]bool, error) {
	out := map[int64]bool{}
	if len(a.losers.rows) == 0 {
		return out, nil
	}
	lives := roaring64.New() // rows that a stored row still beats
	gone := make([]bool, len(a.losers.paths))
	vector := make([]*roaring64.Bitmap, len(a.losers.paths))
	for i, p := range a.losers.paths {
		_, ok := newer.File(p)
		gone[i], vector[i] = !ok, deleted[p]
		if _, known := deleted[p]; cur[p] != nil && !known {
			// A file that had gone is back, by a restore, perhaps with the row marked.
			files, err := newer.load(ctx, []*Add{cur[p]})
			if err != nil {
				return nil, err
			}
			vector[i] = files[0].Deleted
		}
	}
	live := a.losers.rows[:0]
	for _, l := range a.losers.rows {
		if d := vector[l.path]; gone[l.path] || d != nil && d.Contains(uint64(l.row)) {
			out[l.ordinal] = true
		} else {
			lives.Add(uint64(l.ordinal))
			live = append(live, l)
		}
	}
	// What is gone must not count again: the next rebase looks only at what its own winners touched, and would take a
	// row in a file that they left alone for one that still beats ours.
	a.losers.rows = live
	for o := range out {
		if lives.Contains(uint64(o)) {
			delete(out, o)
		}
	}
	return out, nil
}

// meet looks our keys up in files that winners added. Orphans that find a new row to lose to are taken off the list.
func (a *mergeAttempt) meet(ctx context.Context, newer *Snapshot, added []*Add, orphans map[int64]bool) error {
	if a.o.Replace != nil {
		n, err := a.replace(ctx, newer, added)
		if err != nil {
			return err
		}
		if n > 0 && !a.vectors {
			return errReplan
		}
		// Rows that moved to these files were counted where they were. What is new here cannot be told from them;
		// the count stays that of the plan.
		a.touched -= n
	}
	if a.src.NumRows() == 0 {
		return nil
	}
	files, err := newer.load(ctx, newer.mayHoldKeys(added, a.keys))
	if err != nil || len(files) == 0 {
		return err
	}
	j, err := a.match(ctx, files)
	if err != nil {
		return err
	}
	defer j.release()
	if len(j.ordinals) > 0 && !a.vectors {
		return errReplan
	}
	carried := map[int64]int{} // ordinal -> index in j.carryOrd
	for i, o := range j.carryOrd {
		carried[o] = i
	}
	lost, again := roaring64.New(), roaring64.New()
	won := []int{}
	for g, o := range j.ordinals {
		switch {
		case a.class[o] == rowLate:
			// Another writer has brought the key that had matched nothing.
			if j.win[g] {
				return errReplan // ours was not written
			}
			a.class[o] = rowLost
			j.beaters(g, &a.losers)
		case a.class[o] == rowLost:
			if !j.win[g] {
				j.beaters(g, &a.losers)
				delete(orphans, o)
			}
		case !j.win[g]:
			a.class[o] = rowLost
			j.beaters(g, &a.losers)
			lost.Add(uint64(o))
		default:
			j.mark(g, a.marks)
			j.mark(g, a.superseded)
			won = append(won, g)
			was := a.class[o]
			a.class[o] = rowUpdate
			if j.same[g] {
				a.class[o] = rowUnchanged
			}
			if len(a.o.Carry) > 0 && (j.same[g] || was == rowUnchanged) && !a.carriedAlike(o, j, carried) {
				again.Add(uint64(o))
			}
		}
	}
	other, err := a.keepIDs(ctx, j, won)
	if err != nil {
		return err
	}
	again.Or(other)
	if err := a.unwrite(ctx, lost, again); err != nil {
		return err
	}
	if again.IsEmpty() {
		return nil
	}
	return a.rewriteCarried(ctx, again, j)
}

// carriedAlike reports whether a written row has the carried values that it would have now.
func (a *mergeAttempt) carriedAlike(o int64, j *judgement, carried map[int64]int) bool {
	i, now := carried[o]
	was := false
	var at carriedAt
	if a.carry != nil {
		at, was = a.carry.at[o]
	}
	if now != was {
		return false
	}
	if !now {
		return true
	}
	for _, b := range j.carry {
		if int64(i) >= b.NumRows() {
			i -= int(b.NumRows())
			continue
		}
		w := a.carry.batches[at.batch]
		for c := range int(b.NumCols()) {
			if compareValues(b.Column(c), i, w.Column(c), int(at.row)) != 0 {
				return false
			}
		}
		return true
	}
	return false
}

// unwrite marks rows that we have written ourselves in our own new files.
func (a *mergeAttempt) unwrite(ctx context.Context, sets ...*roaring64.Bitmap) error {
	gone := roaring64.New()
	for _, s := range sets {
		gone.Or(s)
	}
	if gone.IsEmpty() {
		return nil
	}
	keys, err := readSource(ctx, a.src, a.info.Schema, a.o.Key, gone)
	if err != nil {
		return err
	}
	defer keys.Release()
	rows := NewRows(keys.Schema(), keys)
	defer rows.Close()
	for len(a.ownMarks) < len(a.written) {
		a.ownMarks = append(a.ownMarks, nil)
	}
	own := make([]File, len(a.written))
	for i, w := range a.written {
		own[i] = File{Add: addOf(w, true), Key: w.Key, Deleted: a.ownMarks[i]}
	}
	m, err := a.eng.Locator.Locate(ctx, a.info, own, rows, a.o.Key, nil)
	if err != nil {
		return fmt.Errorf("look up own rows: %w", err)
	}
	defer m.Release()
	if uint64(len(m.Match)) != gone.GetCardinality() {
		return fmt.Errorf("BUG: %d of %d written rows found", len(m.Match), gone.GetCardinality())
	}
	for _, x := range m.Match {
		b := roaring64.New()
		if a.ownMarks[x.File] != nil {
			b = a.ownMarks[x.File].Clone()
		}
		b.Add(uint64(x.Row))
		a.ownMarks[x.File] = b
	}
	return nil
}

// rewriteCarried writes rows anew whose carried values are other ones against the newer snapshot.
func (a *mergeAttempt) rewriteCarried(ctx context.Context, again *roaring64.Bitmap, j *judgement) error {
	fresh := j.takeCarry()
	cols := make([]string, 0, a.src.Schema().NumFields())
	for _, f := range a.src.Schema().Fields() {
		cols = append(cols, f.Name)
	}
	b, err := readSource(ctx, a.src, a.info.Schema, cols, again)
	if err != nil {
		return err
	}
	defer b.Release()
	mem := NewRows(b.Schema(), b)
	defer mem.Close()
	if a.carry == nil && fresh != nil {
		a.carry = &carriedValues{at: map[int64]carriedAt{}}
	}
	shift := int32(0)
	if a.carry != nil {
		shift = int32(len(a.carry.batches))
	}
	over := &carriedValues{at: map[int64]carriedAt{}}
	ids := map[int64]int64{}
	if fresh != nil {
		over.batches = fresh.batches
		a.carry.batches = append(a.carry.batches, fresh.batches...)
	}
	var k int64
	for it := again.Iterator(); it.HasNext(); k++ {
		o := int64(it.Next())
		if a.carry != nil {
			delete(a.carry.at, o)
		}
		if id, ok := a.ids.id[o]; ok {
			ids[k] = id
		}
		if fresh == nil {
			continue
		}
		if c, ok := fresh.at[o]; ok {
			over.at[k] = c
			a.carry.at[o] = carriedAt{c.batch + shift, c.row}
		}
	}
	var rows Rows = mem
	if len(over.at) > 0 {
		rows = &carriedRows{rows: mem, carry: over, schema: over.schema(b.Schema(), a.info.Schema)}
	}
	if len(ids) > 0 {
		rows = newIDRows(rows, a.info.Config[propRowIDColumn], ids)
	}
	files, err := a.writeRows(ctx, rows, nil)
	if err != nil {
		return err
	}
	a.written = append(a.written, files...)
	a.merge.lateFiles += len(files)
	return nil
}
