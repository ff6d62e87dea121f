package delta

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"github.com/cauce-data/cauce/delta/expr"
)

const floorProperty = "cauce.test"

// purge forgets the tombstones up to a sequence, as a lake does.
func purge(t testing.TB, tab *Table, upTo int64) {
	t.Helper()
	where := expr.And(expr.Col("_deleted"), expr.Call{Func: "<=", Args: []expr.Expr{expr.Col("seq"), expr.Lit(expr.Timestamp(upTo))}})
	_, err := tab.DeleteWhere(context.Background(), where, ChangeOptions{Properties: func(*Snapshot) (map[string]string, error) {
		v, err := FloorValue("seq", Timestamp, sequenceTime(upTo))
		return map[string]string{floorProperty: v}, err
	}})
	if err != nil {
		t.Fatal(err)
	}
}

func sequenceTime(us int64) time.Time { return time.UnixMicro(us).UTC() }

// floored is itemMerge with a floor, and what Late was told of last.
func floored(told *[]uint64) MergeOptions {
	o := itemMerge()
	o.Floor = &Floor{Property: floorProperty, Late: func(_ context.Context, rows *roaring64.Bitmap) error {
		*told = rows.ToArray()
		return nil
	}}
	return o
}

// TestFloorKeepsForgottenRowsOut: of the rows that match nothing, those up to the newest tombstone that was forgotten are
// kept out, and told before the commit; tombstones among them are lost; rows whose key is stored are decided as always.
func TestFloorKeepsForgottenRowsOut(t *testing.T) {
	twoModes(t, func(t *testing.T, vectors bool) {
		tab := newItems(t, tempStore(t), vectors, nil)
		mustMerge(t, tab, itemMerge(), item{ID: "dead", Seq: 10, Dead: true}, item{ID: "young", Seq: 30, Dead: true}, item{ID: "live", Val: "a", Seq: 5})
		var told []uint64
		if r := mustMerge(t, tab, floored(&told), item{ID: "before", Seq: 1}); r.Inserted != 1 || told != nil {
			t.Fatalf("without a floor: %+v, told %v", r, told)
		}
		purge(t, tab, 10)
		r := mustMerge(t, tab, floored(&told),
			item{ID: "dead", Val: "back", Seq: 9},  // 0: was deleted
			item{ID: "new", Val: "x", Seq: 10},     // 1: cannot be told from one that was
			item{ID: "newer", Val: "x", Seq: 11},   // 2
			item{ID: "live", Val: "b", Seq: 7},     // 3: its key is there
			item{ID: "young", Val: "back", Seq: 9}, // 4: loses to a tombstone that is there
			item{ID: "gone", Seq: 10, Dead: true})  // 5: nothing to hide
		if r.Late != 2 || r.Inserted != 1 || r.Updated != 1 || r.Lost != 2 || !slices.Equal(told, []uint64{0, 1}) || !slices.Equal(r.LateRows.ToArray(), told) {
			t.Fatalf("%+v, late %v, told %v", r, r.LateRows, told)
		}
		var ids []string
		for _, x := range scanItems(t, tab, snap(t, tab)) {
			ids = append(ids, x.ID+x.Val)
		}
		if want := []string{"before", "liveb", "newerx", "young"}; !slices.Equal(ids, want) {
			t.Fatalf("rows %v, want %v", ids, want)
		}
	})
}

// TestFloorInRaces: whatever another writer commits between plan and commit, the outcome is that of one after the other.
func TestFloorInRaces(t *testing.T) {
	for _, c := range []struct {
		name     string
		purged   bool // before the race
		race     func(t *testing.T, tab *Table)
		row      item
		late     int64
		told     int
		inserted int64
		rows     []string
	}{
		{"the purge wins", false, func(t *testing.T, tab *Table) { purge(t, tab, 10) }, item{ID: "dead", Val: "back", Seq: 9}, 1, 1, 0, nil},
		{"the purge wins against a new key", false, func(t *testing.T, tab *Table) { purge(t, tab, 10) }, item{ID: "new", Val: "x", Seq: 3}, 1, 1, 0, nil},
		{"the purge wins against a newer row", false, func(t *testing.T, tab *Table) { purge(t, tab, 10) }, item{ID: "new", Val: "x", Seq: 11}, 0, 0, 1, []string{"newx"}},
		{"a greater row of the key wins", true, func(t *testing.T, tab *Table) {
			mustMerge(t, tab, itemMerge(), item{ID: "k", Val: "w", Seq: 20})
		}, item{ID: "k", Val: "x", Seq: 3}, 0, 1, 0, []string{"kw"}},
		{"a lesser row of the key wins", true, func(t *testing.T, tab *Table) {
			mustMerge(t, tab, itemMerge(), item{ID: "k", Val: "w", Seq: 2})
		}, item{ID: "k", Val: "x", Seq: 3}, 0, 1, 0, []string{"kx"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			twoModes(t, func(t *testing.T, vectors bool) {
				store := tempStore(t)
				tab := newItems(t, store, vectors, nil)
				other, err := Open(context.Background(), store, "items", nil)
				if err != nil {
					t.Fatal(err)
				}
				mustMerge(t, tab, itemMerge(), item{ID: "dead", Seq: 10, Dead: true})
				if c.purged {
					purge(t, tab, 10)
				}
				var told []uint64
				o := floored(&told)
				raced := false
				o.Hook = func(phase string) {
					if phase == "before-commit" && !raced {
						raced = true
						c.race(t, other)
					}
				}
				// The other row keeps the merge from being one that changes nothing.
				r := mustMerge(t, tab, o, c.row, item{ID: "witness", Seq: 99})
				if !raced || r.Late != c.late || len(told) != c.told || r.Inserted != c.inserted+1 {
					t.Fatalf("%+v, told %v", r, told)
				}
				var rows []string
				for _, x := range scanItems(t, tab, snap(t, tab)) {
					if x.ID != "witness" {
						rows = append(rows, x.ID+x.Val)
					}
				}
				if !slices.Equal(rows, c.rows) {
					t.Fatalf("rows %v, want %v", rows, c.rows)
				}
			})
		})
	}
}

// TestFloorValue: what is not the column and value of the table is refused with the property's name.
func TestFloorValue(t *testing.T) {
	s := itemSchema()
	text, err := FloorValue("seq", Timestamp, sequenceTime(1_500_000))
	if err != nil || text != "seq=1970-01-01T00:00:01.500000Z" {
		t.Fatalf("%q, %v", text, err)
	}
	if f, v, err := ParseFloorValue(s, text); err != nil || f.Name != "seq" || v != any(sequenceTime(1_500_000)) {
		t.Fatalf("%v %v %v", f, v, err)
	}
	for _, bad := range []string{"", "seq", "seq=", "nothing=1", "seq=yesterday"} {
		if _, _, err := ParseFloorValue(s, bad); !errors.Is(err, ErrProperty) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := FloorValue("seq", Timestamp, nil); !errors.Is(err, ErrSchema) {
		t.Error(err)
	}
}
