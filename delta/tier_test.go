package delta

import (
	"context"
	"fmt"
	"math"
	"testing"

	"github.com/cauce-data/cauce/internal/testscale"
)

// TestTieredPackingRewritesLittle: a partition to which files are added all the time keeps few files, and each byte is
// rewritten about as often as the partition has doubled.
func TestTieredPackingRewritesLittle(t *testing.T) {
	const least, added = 8, 4000
	r := testscale.Rand(t)
	for _, spread := range []int64{1, 20, 1000} { // between the largest and the smallest file that is added
		var files []*Add
		var total, rewritten int64
		most := 0
		for i := range added {
			a := &Add{Path: fmt.Sprint(i), Size: 1000 + r.Int64N(1000*spread)}
			total += a.Size
			files = append(files, a)
			if i%3 != 0 { // compaction comes now and then
				continue
			}
			if group, _ := tier(files, least); len(group) >= least {
				in := map[*Add]bool{}
				packed := &Add{Path: fmt.Sprint("packed ", i)}
				for _, a := range group {
					in[a] = true
					packed.Size += a.Size
				}
				rewritten += packed.Size
				rest := []*Add{packed}
				for _, a := range files {
					if !in[a] {
						rest = append(rest, a)
					}
				}
				files = rest
			} else if len(group) > 0 {
				t.Fatalf("%d files are too few to be packed", len(group))
			}
			most = max(most, len(files))
		}
		var sum int64
		for _, a := range files {
			sum += a.Size
		}
		if sum != total {
			t.Errorf("spread %d: %d bytes became %d", spread, total, sum)
		}
		doublings := math.Log2(float64(total) / 1000)
		if float64(most) > least+doublings {
			t.Errorf("spread %d: %d files at once", spread, most)
		}
		if times := float64(rewritten) / float64(total); times > doublings {
			t.Errorf("spread %d: each byte was rewritten %.1f times", spread, times)
		}
	}
}

// TestTieredOptimizeLeavesTheLargeFileAlone: a few small files beside a large one are packed without it, until they are
// as large together.
func TestTieredOptimizeLeavesTheLargeFileAlone(t *testing.T) {
	ctx := context.Background()
	tab := newItems(t, tempStore(t), true, nil)
	next := 0
	put := func(n int) {
		var items []item
		for range n {
			items = append(items, item{ID: fmt.Sprintf("k%06d", next), Day: 1, Seq: 1, Val: fmt.Sprint("v", next)})
			next++
		}
		mustMerge(t, tab, itemMerge(), items...)
	}
	snapshot := func() (s *Snapshot, large *Add) {
		s, err := tab.Snapshot(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range s.Adds() {
			if large == nil || a.Size > large.Size {
				large = a
			}
		}
		return s, large
	}
	put(20_000)
	_, large := snapshot()
	for range 8 {
		put(5)
	}
	before, _ := snapshot()
	hash := hashOf(t, tab, before)
	optimize := func(o OptimizeOptions, removed, left int) {
		t.Helper()
		o.MinFiles = 8
		res, err := tab.Optimize(ctx, o)
		if err != nil || res.FilesRemoved != removed {
			t.Fatalf("%d files were packed, want %d: %v", res.FilesRemoved, removed, err)
		}
		if s, _ := snapshot(); s.NumFiles() != left || hashOf(t, tab, s) != hash {
			t.Errorf("%d files, want %d, or other rows", s.NumFiles(), left)
		}
	}
	optimize(OptimizeOptions{Tiered: true}, 8, 2)
	if _, now := snapshot(); now.Path != large.Path {
		t.Error("the large file was rewritten")
	}
	optimize(OptimizeOptions{Tiered: true}, 0, 2)
	for range 8 {
		put(4000)
	}
	s, _ := snapshot()
	hash = hashOf(t, tab, s)
	optimize(OptimizeOptions{Tiered: true}, 10, 1)
}

// TestTieredOptimizeEndsBesideAQuickWriter: a writer that adds files faster than they are packed does not keep the packing from
// its end; what it added is for the next call.
func TestTieredOptimizeEndsBesideAQuickWriter(t *testing.T) {
	ctx := context.Background()
	tab := newItems(t, tempStore(t), true, nil)
	next := 0
	put := func(n int) {
		for range n {
			mustMerge(t, tab, itemMerge(), item{ID: fmt.Sprintf("k%06d", next), Day: 1, Seq: 1, Val: "v"})
			next++
		}
	}
	put(4)
	commits := 0
	res, err := tab.Optimize(ctx, OptimizeOptions{Tiered: true, MinFiles: 2, Hook: func(phase string) {
		if phase != "after-commit" {
			return
		}
		if commits++; commits > 200 {
			t.Fatal("200 groups were packed, and there is no end")
		}
		put(8)
	}})
	if err != nil || res.Commits == 0 || res.Commits != commits {
		t.Fatalf("%d commits, %d were seen: %v", res.Commits, commits, err)
	}
}

// TestLargeMarkedFileDoesNotStopThePacking: a writer marks rows of a large file while it is rewritten for its vector; the
// small files are packed all the same, and the large one waits for another time.
func TestLargeMarkedFileDoesNotStopThePacking(t *testing.T) {
	ctx := context.Background()
	tab := newItems(t, tempStore(t), true, nil)
	seq := int64(1)
	put := func(from, n int) {
		var items []item
		for i := range n {
			items = append(items, item{ID: fmt.Sprintf("k%06d", from+i), Day: 1, Seq: seq, Val: fmt.Sprint("v", from+i)})
		}
		seq++
		mustMerge(t, tab, itemMerge(), items...)
	}
	put(0, 20_000)
	put(0, 2_000) // a tenth of the large file is marked
	for i := range 8 {
		put(20_000+5*i, 5)
	}
	files := func() (n int) { return snap(t, tab).NumFiles() }
	before, marked := files(), 2_000
	optimize := func(o OptimizeOptions) *OptimizeResult {
		t.Helper()
		o.Tiered, o.MinFiles = true, 8
		hash := ""
		o.Hook = func(phase string) {
			if phase == "files-written" {
				if !o.KeepMarked {
					put(marked, 1)
					marked++
				}
				hash = hashOf(t, tab, snap(t, tab))
			}
		}
		res, err := tab.Optimize(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		if hashOf(t, tab, snap(t, tab)) != hash {
			t.Error("other rows than before")
		}
		return res
	}
	if res := optimize(OptimizeOptions{}); res.Yielded != 1 || res.FilesRemoved != 8 || res.FilesAdded != 1 {
		t.Fatalf("%d files, then %+v", before, res)
	}
	for i := range 8 {
		put(30_000+5*i, 5)
	}
	if res := optimize(OptimizeOptions{KeepMarked: true}); res.Yielded != 0 || res.VectorsRemoved != 0 || res.FilesAdded != 1 {
		t.Fatalf("%+v", res)
	}
	res, err := tab.Optimize(ctx, OptimizeOptions{Tiered: true, MinFiles: 8})
	if err != nil || res.VectorsRemoved != 1 || res.FilesRemoved != 1 {
		t.Fatalf("nobody writes, and the large file keeps its vector: %+v %v", res, err)
	}
}

// TestWriterWhoMarksSmallFilesDoesNotStopThePacking: each packing loses to a writer who marks a row of one small file
// among many, and most of the files are packed all the same.
func TestWriterWhoMarksSmallFilesDoesNotStopThePacking(t *testing.T) {
	const small = 40
	ctx := context.Background()
	tab := newItems(t, tempStore(t), true, nil)
	seq := int64(1)
	put := func(ids ...int) {
		var items []item
		for _, i := range ids {
			items = append(items, item{ID: fmt.Sprintf("k%06d", i), Day: 1, Seq: seq, Val: fmt.Sprint("v", i)})
		}
		seq++
		mustMerge(t, tab, itemMerge(), items...)
	}
	for i := range small {
		put(3*i, 3*i+1, 3*i+2)
	}
	next, hash := small-1, ""
	res, err := tab.Optimize(ctx, OptimizeOptions{Tiered: true, MinFiles: 4, Hook: func(phase string) {
		if phase == "files-written" && next >= 0 {
			put(3 * next)
			next--
			hash = hashOf(t, tab, snap(t, tab))
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	s := snap(t, tab)
	if got := hashOf(t, tab, s); got != hash {
		t.Error("other rows than before")
	}
	if n := s.NumFiles(); n > small/2 {
		t.Errorf("%d files are left of %d and %d more: %+v", n, small, small-1-next, res)
	}
}

// TestOneFileIsNotPacked: of files that do not fit together none is rewritten by itself, however few are asked for;
// with tiers that would go on for ever.
func TestOneFileIsNotPacked(t *testing.T) {
	tab := newItems(t, tempStore(t), true, nil)
	for _, id := range []string{"a", "b"} {
		mustMerge(t, tab, itemMerge(), item{ID: id, Day: 1, Seq: 1, Val: id})
	}
	s := snap(t, tab)
	for _, tiered := range []bool{false, true} {
		ctx, stop := context.WithCancel(context.Background())
		begun := 0
		res, err := tab.Optimize(ctx, OptimizeOptions{Tiered: tiered, MinFiles: 1, TargetBytes: s.Bytes() * 3 / 4, Hook: func(phase string) {
			if phase == "optimize" {
				if begun++; begun > 5 {
					stop()
				}
			}
		}})
		stop()
		if err != nil || res.Commits != 0 {
			t.Errorf("tiered %v: %+v, %v", tiered, res, err)
		}
	}
}
