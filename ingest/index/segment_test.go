package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cauce-data/cauce/delta"
)

var discard = slog.New(slog.DiscardHandler)

// entries are n entries of a generator, several of a key now and then.
func entries(r *rand.Rand, n int) []hashed {
	out := make([]hashed, n)
	for i := range out {
		out[i] = hashed{hash: r.Uint64(), more: r.Uint32(), row: uint32(i), sequence: int64(r.Uint64())}
		if i > 0 && r.IntN(50) == 0 {
			out[i].hash, out[i].more = out[i-1].hash, out[i-1].more
		}
	}
	return out
}

func encode(t rapid.TB, id identity, in []hashed) []byte {
	t.Helper()
	s := &sorter{h: slices.Clone(in), n: int64(len(in))}
	if err := s.sort(); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := writeSegment(&b, id, s.n, s.sorted()); err != nil {
		t.Fatal(err)
	}
	if int64(b.Len()) != segmentBytes(s.n) {
		t.Fatalf("%d entries take %d bytes, want %d", s.n, b.Len(), segmentBytes(s.n))
	}
	return b.Bytes()
}

// answers looks keys up in an encoded segment.
func answers(b []byte, id identity, ask []hashed) ([]string, error) {
	seg, err := readSegment(bytes.NewReader(b), int64(len(b)), id)
	if err != nil {
		return nil, err
	}
	seg.body = b
	var out []string
	err = seg.each(ask, func(a, e hashed) { out = append(out, fmt.Sprint(a.row, e.row, e.sequence)) })
	slices.Sort(out)
	return out, err
}

// model is what answers must be.
func model(in, ask []hashed) []string {
	type key struct {
		hash uint64
		more uint32
	}
	at := map[key][]hashed{}
	for _, e := range in {
		k := key{e.hash, e.more}
		at[k] = append(at[k], e)
	}
	var out []string
	for _, a := range ask {
		for _, e := range at[key{a.hash, a.more}] {
			out = append(out, fmt.Sprint(a.row, e.row, e.sequence))
		}
	}
	slices.Sort(out)
	return out
}

// questions are some keys that a segment has, and as many that it has not; sorted.
func questions(r *rand.Rand, in []hashed, n int) []hashed {
	ask := entries(r, n)
	for i := range ask {
		if i%2 == 0 && len(in) > 0 {
			e := in[r.IntN(len(in))]
			ask[i].hash, ask[i].more = e.hash, e.more
		}
		if i%10 == 1 && len(in) > 0 { // half a hash is none
			ask[i].hash = in[r.IntN(len(in))].hash
		}
	}
	sortHashed(ask)
	return ask
}

// TestDamagedSegments changes bytes of segments in every way: what is read of one is then an error, or what was written.
func TestDamagedSegments(t *testing.T) {
	whole := 0
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		var id, another identity
		binary.LittleEndian.PutUint64(id[:], r.Uint64())
		binary.LittleEndian.PutUint64(another[8:], r.Uint64())
		in := entries(r, rapid.SampledFrom([]int{0, 1, 127, 129, 1000, 5000}).Draw(t, "entries"))
		ask := questions(r, in, 300)
		b := encode(t, id, in)
		if got, err := answers(b, id, ask); err != nil || !slices.Equal(got, model(in, ask)) {
			t.Fatalf("%d answers, want %d; %v", len(got), len(model(in, ask)), err)
		}
		if _, err := answers(b, another, ask); !errors.Is(err, errDamaged) {
			t.Fatalf("the segment of another file: %v", err)
		}
		at := rapid.IntRange(0, len(b)-1).Draw(t, "at")
		n := min(rapid.SampledFrom([]int{1, 8, 24, 4096}).Draw(t, "bytes"), len(b)-at)
		harmed := slices.Clone(b)
		switch rapid.SampledFrom([]string{"flip", "zero", "cut", "grow", "move", "another"}).Draw(t, "harm") {
		case "flip":
			harmed[at] ^= 1 << r.IntN(8)
		case "zero":
			clear(harmed[at : at+n])
		case "cut":
			harmed = harmed[:at]
		case "grow":
			harmed = append(harmed, b[at:]...)
		case "move":
			copy(harmed[at:at+n], b[r.IntN(len(b)-n+1):])
		case "another":
			copy(harmed[at:at+n], encode(t, another, in)[at:])
		}
		got, err := answers(harmed, id, ask)
		if err == nil && !slices.Equal(got, model(in, ask)) {
			t.Fatalf("%d answers of a damaged segment, want an error, or %d", len(got), len(model(in, ask)))
		}
		if err != nil && !errors.Is(err, errDamaged) {
			t.Fatalf("%v, want it called damaged", err)
		}
		if err == nil {
			whole++
		}
	})
	t.Logf("%d damages were in bytes that no key needed", whole)
}

// FuzzReadSegment reads bytes as a segment, with checksums that were made right so that what is behind them is reached.
func FuzzReadSegment(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, n := range []int{0, 1, 200, 3000} {
		f.Add(encode(f, identity{}, entries(r, n)), true)
	}
	f.Add([]byte(segmentMagic), false)
	f.Fuzz(func(t *testing.T, b []byte, mend bool) {
		if mend {
			b = slices.Clone(b)
			if len(b) >= tailBytes {
				tail := b[len(b)-tailBytes:]
				if n := binary.LittleEndian.Uint64(tail); n < 1<<20 && segmentBytes(int64(n)) == int64(len(b)) {
					s := shapeOf(int64(n))
					seal(b[s.filter:s.starts], sectionFilter)
					seal(b[s.starts:s.tail], sectionStarts)
				}
				clear(tail[8:24])
				seal(tail, sectionTail)
			}
		}
		seg, err := readSegment(bytes.NewReader(b), int64(len(b)), identity{})
		if err != nil {
			if !errors.Is(err, errDamaged) {
				t.Fatal(err)
			}
			return
		}
		seg.body = b
		err = seg.each(questions(rand.New(rand.NewPCG(2, 2)), nil, 200), func(_, e hashed) {
			if int64(e.row) < 0 {
				t.Fatal("a row below none")
			}
		})
		if err != nil && !errors.Is(err, errDamaged) {
			t.Fatal(err)
		}
	})
}

// seal puts the checksum of a section at its end.
func seal(section []byte, number int) {
	n := len(section) - sumBytes
	binary.LittleEndian.PutUint64(section[n:], identity{}.sum(number, section[:n]))
}

// TestSorterSpills sorts more than fits its memory, and leaves nothing behind.
func TestSorterSpills(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for _, n := range []int{0, 1, 999, 1000, 1001, 25_000} {
		in := entries(r, n)
		dir := t.TempDir()
		s := &sorter{dir: dir, rows: 1000}
		s.expect(int64(n))
		for _, e := range in {
			if err := s.add(e); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.sort(); err != nil {
			t.Fatal(err)
		}
		want := slices.Clone(in)
		slices.SortFunc(want, byHash)
		for range 2 {
			var got []hashed
			for e, err := range s.sorted() {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, e)
			}
			if !slices.Equal(got, want) || s.n != int64(n) || s.spilled() != (n >= 1000) {
				t.Fatalf("%d entries are not sorted as they should be, spilled %v", n, s.spilled())
			}
		}
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("%d files are left behind", len(left))
		}
	}
}

// TestAlikeKeys: a file in which very many rows share a key has no segment.
func TestAlikeKeys(t *testing.T) {
	s := &sorter{}
	for i := range bucketRowsMax + 1 {
		if err := s.add(hashed{hash: 7, more: 7, row: uint32(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := segmentInMemory(identity{}, s); !errors.Is(err, errUnfit) {
		t.Fatalf("%v", err)
	}
}

// TestFolderStaysBounded: what nobody uses goes, oldest first, and what is in use stays.
func TestFolderStaysBounded(t *testing.T) {
	dir := t.TempDir()
	one := segmentBytes(1000)
	d, err := openFolder(dir, 5*one, discard)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(4, 4))
	put := func(name byte, unused time.Duration) string {
		t.Helper()
		s := &sorter{h: entries(r, 1000), n: 1000}
		if err := s.sort(); err != nil {
			t.Fatal(err)
		}
		seg, err := d.write(identity{name}, s)
		if err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-unused)
		if err := os.Chtimes(seg.path, at, at); err != nil {
			t.Fatal(err)
		}
		return seg.path
	}
	leaves := func(unused time.Duration) string {
		name := filepath.Join(dir, fmt.Sprint(temporary, unused))
		if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-unused)
		if err := os.Chtimes(name, at, at); err != nil {
			t.Fatal(err)
		}
		return name
	}
	there := func(name string, want bool) {
		t.Helper()
		if _, err := os.Stat(name); (err == nil) != want {
			t.Errorf("%s is there: %v, want %v", filepath.Base(name), err == nil, want)
		}
	}
	ancient, old, older, used := put(1, unusedMax+time.Hour), put(2, 3*time.Hour), put(3, 4*time.Hour), put(4, 0)
	left, writing := leaves(temporaryMax+time.Minute), leaves(time.Minute)
	if !d.room(one) {
		t.Error("no room although the folder is not full")
	}
	there(ancient, false)
	there(left, false)
	there(writing, true)
	there(old, true)
	there(older, true)
	put(5, 0)
	d.counted = time.Time{}
	if !d.room(2 * one) {
		t.Error("no room although something is of no use")
	}
	there(older, false)
	there(old, true)
	there(used, true)
	d.counted = time.Time{}
	if d.room(4 * one) {
		t.Error("room beyond the bound")
	}
	there(old, false)
	there(used, true)
	seg, err := d.load(identity{4})
	if err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-time.Hour)
	if err := os.Chtimes(used, long, long); err != nil {
		t.Fatal(err)
	}
	d.touch(seg)
	if st, err := os.Stat(used); err != nil || time.Since(st.ModTime()) > time.Minute {
		t.Errorf("a segment that is used does not say so: %v", err)
	}
}

// TestSeedOfFolder: all processes have one seed; a damaged one is replaced.
func TestSeedOfFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", "index")
	seeds := make(chan uint64, 8)
	for range cap(seeds) {
		go func() {
			d, err := openFolder(dir, 1, discard)
			if err != nil {
				t.Error(err)
				seeds <- 0
				return
			}
			seeds <- d.seed
		}()
	}
	first := <-seeds
	for range cap(seeds) - 1 {
		if s := <-seeds; s != first {
			t.Errorf("seeds %x and %x", first, s)
		}
	}
	name := filepath.Join(dir, seedFile)
	if st, err := os.Stat(name); err != nil || st.Mode().Perm()&0o077 != 0 {
		t.Errorf("others may read the seed: %v, %v", st.Mode(), err)
	}
	for _, b := range [][]byte{nil, []byte("CauceKS1"), bytes.Repeat([]byte{0}, 24), formatSeed(1)[:23]} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := openFolder(dir, 1, discard)
		if err != nil {
			t.Fatal(err)
		}
		again, err := openFolder(dir, 1, discard)
		if err != nil || again.seed != d.seed || d.seed == first {
			t.Errorf("seeds %x, %x, %x; %v", first, d.seed, again.seed, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, temporary+"*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// BenchmarkEach looks 10,000 keys, 10 % of them present, up in a segment of a million rows.
func BenchmarkEach(b *testing.B) {
	r := rand.New(rand.NewPCG(5, 5))
	in := entries(r, 1_000_000)
	ask := entries(r, 10_000)
	for i := 0; i < len(ask); i += 10 {
		ask[i] = in[r.IntN(len(in))]
	}
	sortHashed(ask)
	d, err := openFolder(b.TempDir(), 1<<30, discard)
	if err != nil {
		b.Fatal(err)
	}
	s := &sorter{h: in, n: int64(len(in))}
	if err := s.sort(); err != nil {
		b.Fatal(err)
	}
	seg, err := d.write(identity{1}, s)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("filter in memory", func(b *testing.B) {
		for b.Loop() {
			if err := seg.each(ask, func(_, _ hashed) {}); err != nil {
				b.Fatal(err)
			}
		}
	})
	seg.filter = nil
	b.Run("filter on disk", func(b *testing.B) {
		for b.Loop() {
			if err := seg.each(ask, func(_, _ hashed) {}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func TestEntriesAreSorted(t *testing.T) {
	for _, n := range []int{0, 1, 31, 33, 5_000, 200_000} {
		in := entries(rand.New(rand.NewPCG(7, uint64(n))), n)
		for i := range n / 3 { // rows of one key, in any order
			in[i].hash = in[0].hash
		}
		rand.New(rand.NewPCG(8, 8)).Shuffle(n, func(i, j int) { in[i], in[j] = in[j], in[i] })
		want := slices.Clone(in)
		slices.SortFunc(want, byHash)
		if sortHashed(in); !slices.Equal(in, want) {
			t.Errorf("%d entries are not in order", n)
		}
	}
}

// BenchmarkSort sorts a million entries.
func BenchmarkSort(b *testing.B) {
	in := entries(rand.New(rand.NewPCG(9, 9)), 1_000_000)
	work := make([]hashed, len(in))
	for b.Loop() {
		copy(work, in)
		sortHashed(work)
	}
}

// Few keys are looked up in any table, many only where a join would have to read very many rows.
func TestManyKeysAreJoined(t *testing.T) {
	of := func(rows ...int) (files []delta.File) {
		for _, n := range rows {
			files = append(files, delta.File{Add: &delta.Add{Stats: fmt.Sprintf(`{"numRecords":%d}`, n)}})
		}
		return files
	}
	for _, c := range []struct {
		keys  int64
		files []delta.File
		want  bool
	}{
		{200_000, of(1000), false},
		{200_001, of(3_200_000, 3_200_000), true},
		{200_001, of(3_200_000, 3_200_032), false},
		{2_000_000, of(60_000_000, 4_000_000), false},
		{2_000_001, of(1_000_000_000), true},
		{1_000_000, []delta.File{{Add: &delta.Add{}}, {Add: &delta.Add{}}}, false}, // nothing says how many: very many
	} {
		if got := joined(c.keys, c.files); got != c.want {
			t.Errorf("%d keys: joined is %v", c.keys, got)
		}
	}
}
