package peers

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/objstore"
	"github.com/cauce-data/cauce/test/lab"
)

// itemsLake has one table of counters, which a batch source and statements fill.
const itemsLake = `version: 1
storage: file:./data
tables:
  items:
    columns: {id: {type: STRING, not_null: true}, n: LONG, p: STRING, seq: LONG}
    key: [id]
    sequence: [seq]
    partition_by: [p]
sources:
  batch:
    table: items
    kind: files
    location: ["raw/batch/items_*.csv"]
    format: csv
    csv: {delimiter: ",", header: auto}
    fields: {id: id, n: n, p: p, seq: seq}
    rank: 0
`

// retention is the age at which the vacuum of these tests deletes what no version needs: longer than any process takes.
const retention = 30 * time.Second

// items is the model of the table: n by id.
type items map[string]int64

// digest is what a version must look like to every reader: its rows, and the sum of a checksum of each.
type digest struct{ rows, sum int64 }

func (m items) digest() digest {
	d := digest{rows: int64(len(m))}
	for id, n := range m {
		d.sum += int64(crc32.ChecksumIEEE(fmt.Appendf(nil, "%s=%d", id, n)))
	}
	return d
}

const digestSQL = "SELECT count(*) AS rows, coalesce(sum(crc32(concat(id, '=', n))), 0) AS sum FROM delta.`%s` VERSION AS OF %d"

func digestOf(a answer) digest {
	sum, _ := a.Rows[0]["sum"].(float64) // a bare count has none
	return digest{int64(a.Rows[0]["rows"].(float64)), int64(sum)}
}

// step is an operation in both worlds: as a program runs it, and as it changes the model.
type step struct {
	kind  string
	args  []string // of cauce
	sql   string   // of Spark, with %s for the table
	apply func(items)
	must  bool // it changes rows whatever stands in the table
}

// partition spreads the ids over three folders.
func partition(id string) string { return string("xyz"[crc32.ChecksumIEEE([]byte(id))%3]) }

// writers is a table that several programs change at the same time.
type writers struct {
	t      *testing.T
	l      *lab.Lake
	table  string // its folder
	until  time.Time
	mu     sync.Mutex
	length time.Duration // of a window
	window int64         // the number of the present one
	room   int           // operations that may still begin in it
	did    map[delta.Version]step
	epochs []step // of the batch source, one after another; run batch tells the version of the table, not of its commit
	counts map[string]int

	vacuumed bool           // files of old versions may be gone
	next     int            // the first version that Spark has not read
	seen     map[int]digest // what it has read
	gone     []int          // versions whose files were gone when it came to them
}

func newWriters(t *testing.T) *writers {
	l := lab.NewLakeOf(t, []byte(itemsLake))
	w := &writers{t: t, l: l, table: l.Path("data/processed/items"), did: map[delta.Version]step{}, counts: map[string]int{}, seen: map[int]digest{}}
	w.run(w.batch()(0, testscale.Rand(t)))
	return w
}

// begin starts the clock.
func (w *writers) begin() {
	all := time.Duration(testscale.Count(w.t, "writer-seconds")) * time.Second
	w.length, w.until = max(10*time.Second, all/20), time.Now().Add(all)
}

// run runs an operation as a process of its own; it must succeed, whatever others do meanwhile.
func (w *writers) run(s step) {
	out, errs, code := w.l.Try(append(s.args, "--json")...)
	if code != 0 {
		w.t.Errorf("cauce %s: exit code %d\n%s%s", strings.Join(s.args, " "), code, out, errs)
		return
	}
	var said struct {
		Version   delta.Version `json:"version"`
		Committed *bool         `json:"committed"`
	}
	if err := json.Unmarshal([]byte(out), &said); err != nil {
		w.t.Errorf("cauce %s: %v in %q", strings.Join(s.args, " "), err, out)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts[s.kind]++
	switch {
	case s.apply == nil:
	case s.kind == "batch":
		w.epochs = append(w.epochs, s)
	case said.Committed == nil || *said.Committed:
		if old, twice := w.did[said.Version]; twice {
			w.t.Errorf("version %d is said to be both %v and %v", said.Version, old.args, s.args)
		}
		w.did[said.Version] = s
	case s.must:
		w.t.Errorf("cauce %s: committed nothing", strings.Join(s.args, " "))
	}
}

// actor makes the n-th operation of a process.
type actor func(n int, r *rand.Rand) step

// perWindow is how many operations begin in a window of time. The processes do them as fast as they can and then wait for
// the next window, for Spark reads each version, which takes it longer than it took to write.
const perWindow = 20

// turn waits until there is room for an operation; false: the time is over.
func (w *writers) turn() bool {
	for {
		now := time.Now()
		if now.After(w.until) || w.t.Failed() {
			return false
		}
		w.mu.Lock()
		if n := now.UnixNano() / int64(w.length); n != w.window {
			w.window, w.room = n, perWindow
		}
		w.room--
		free := w.room >= 0
		w.mu.Unlock()
		if free {
			return true
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// start lets actors work until the time is over; the returned function waits for them.
func (w *writers) start(seed uint64, actors ...actor) (wait func()) {
	var wg sync.WaitGroup
	for i, a := range actors {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			for n := 1; w.turn(); n++ {
				w.run(a(n, r))
			}
		})
	}
	return wg.Wait
}

func query(kind, sql string, must bool, apply func(items)) step {
	return step{kind: kind, args: []string{"query", "--write", fmt.Sprintf(sql, "items")}, sql: sql, apply: apply, must: must}
}

// batch upserts rows of its own from a CSV file.
func (w *writers) batch() actor {
	return func(n int, r *rand.Rand) step {
		rows := items{}
		text := "id,n,p,seq\n"
		for range 1 + r.IntN(8) {
			id := fmt.Sprintf("b-%d", r.IntN(40))
			if _, twice := rows[id]; !twice {
				rows[id] = int64(r.IntN(1000))
				text += fmt.Sprintf("%s,%d,%s,%d\n", id, rows[id], partition(id), n)
			}
		}
		if err := os.WriteFile(filepath.Join(w.l.Inbox(), fmt.Sprintf("items_%d.csv", n)), []byte(text), 0o644); err != nil {
			w.t.Error(err)
		}
		return step{kind: "batch", args: []string{"run", "batch", "--now"}, must: true, apply: func(m items) { maps.Copy(m, rows) }}
	}
}

// appends adds rows with new ids.
func appends(name string) actor {
	return func(n int, r *rand.Rand) step {
		rows := items{}
		var selects []string
		for i := range 1 + r.IntN(4) {
			id := fmt.Sprintf("%s-%d-%d", name, n, i)
			rows[id] = int64(r.IntN(1000))
			selects = append(selects, fmt.Sprintf("SELECT '%s', CAST(%d AS BIGINT), '%s'", id, rows[id], partition(id)))
		}
		return query("append", "INSERT INTO %s (id, n, p) "+strings.Join(selects, " UNION ALL "), true, func(m items) { maps.Copy(m, rows) })
	}
}

// merges counts up counters that all share, and replaces, deletes and inserts rows of its own.
func merges(name string) actor {
	return func(n int, r *rand.Rand) step {
		rows := items{}
		rows[fmt.Sprintf("c-%d", r.IntN(6))] = int64(1 + r.IntN(9))
		for range r.IntN(4) {
			rows[fmt.Sprintf("%s-%d", name, r.IntN(20))] = int64(r.IntN(1000)) - 200
		}
		var selects []string
		for _, id := range slices.Sorted(maps.Keys(rows)) {
			selects = append(selects, fmt.Sprintf("SELECT '%s' AS id, CAST(%d AS BIGINT) AS n, '%s' AS p", id, rows[id], partition(id)))
		}
		return query("merge", "MERGE INTO %s AS t USING ("+strings.Join(selects, " UNION ALL ")+") AS s ON t.id = s.id "+
			"WHEN MATCHED AND s.n < 0 THEN DELETE WHEN MATCHED AND s.id LIKE 'c-%%' THEN UPDATE SET n = t.n + s.n WHEN MATCHED THEN UPDATE SET n = s.n "+
			"WHEN NOT MATCHED AND s.n >= 0 THEN INSERT (id, n, p) VALUES (s.id, s.n, s.p)", true, func(m items) {
			for id, n := range rows {
				_, there := m[id]
				switch {
				case there && n < 0:
					delete(m, id)
				case strings.HasPrefix(id, "c-"):
					m[id] += n
				case n >= 0:
					m[id] = n
				}
			}
		})
	}
}

// changes updates and deletes rows of all.
func changes() actor {
	return func(n int, r *rand.Rand) step {
		mod := int64(r.IntN(7))
		if r.IntN(2) == 0 {
			return query("delete", fmt.Sprintf("DELETE FROM %%s WHERE id LIKE 'a%%%%' AND n %%%% 7 = %d", mod), false, func(m items) {
				maps.DeleteFunc(m, func(id string, n int64) bool { return id[0] == 'a' && n%7 == mod })
			})
		}
		return query("update", fmt.Sprintf("UPDATE %%s SET n = n + 7 WHERE NOT id LIKE 'b-%%%%' AND n %%%% 7 = %d", mod), false, func(m items) {
			for id, n := range m {
				if id[0] != 'b' && n%7 == mod {
					m[id] = n + 7
				}
			}
		})
	}
}

// compacts rewrites files.
func compacts() actor {
	return func(n int, r *rand.Rand) step {
		return step{kind: "optimize", args: [][]string{{"table", "optimize", "items"}, {"table", "optimize", "items", "--zorder", "n"}, {"table", "reorg", "items"}}[r.IntN(3)]}
	}
}

// vacuums deletes old files, and writes a checkpoint now and then.
func vacuums() actor {
	return func(n int, r *rand.Rand) step {
		if r.IntN(4) == 0 {
			return step{kind: "checkpoint", args: []string{"table", "checkpoint", "items"}}
		}
		s := step{kind: "vacuum", args: []string{"table", "vacuum", "items", "--force", "--retention", retention.String()}}
		if r.IntN(2) == 0 {
			s.args = append(s.args, "--lite")
		}
		return s
	}
}

// open opens the table with the library.
func (w *writers) open() (*delta.Table, *delta.Snapshot) {
	w.t.Helper()
	store, err := objstore.NewLocal(w.table)
	if err != nil {
		w.t.Fatal(err)
	}
	tab, err := delta.Open(context.Background(), store, "", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	s, err := tab.Snapshot(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	return tab, s
}

// replay gives what every version must be, from what the writers were told. other says which further commits are right:
// those of maintenance, or of Spark.
func (w *writers) replay(other func(delta.Commit) (step, bool)) []digest {
	w.t.Helper()
	tab, s := w.open()
	history, err := tab.History(context.Background(), 0)
	if err != nil {
		w.t.Fatal(err)
	}
	model := items{}
	var out []digest
	left := maps.Clone(w.did)
	epochs := 0
	for v := delta.Version(0); v <= s.Version(); v++ {
		c := history[s.Version()-v]
		if c.Version != v {
			w.t.Fatalf("the history has version %d where %d should stand", c.Version, v)
		}
		does, ours := left[v]
		delete(left, v)
		if len(c.Txns) > 0 && strings.HasPrefix(c.Txns[0].AppID, "cauce/1/batch/") {
			if epochs++; epochs > len(w.epochs) || c.Txns[0].Version != int64(epochs) {
				w.t.Fatalf("version %d is epoch %d of the batch, number %d of %d", v, c.Txns[0].Version, epochs, len(w.epochs))
			}
			does, ours = w.epochs[epochs-1], true
		}
		if !ours {
			switch op := c.Info.Operation; op {
			case "CREATE TABLE", "OPTIMIZE", "REORG", "VACUUM START", "VACUUM END":
			default:
				if does, ours = other(c); !ours {
					w.t.Errorf("version %d: a %s of nobody: %+v", v, op, c.Info)
				}
			}
		}
		if ours {
			does.apply(model)
		}
		out = append(out, model.digest())
	}
	if epochs != len(w.epochs) {
		w.t.Errorf("%d epochs of the batch are in the log, %d were run", epochs, len(w.epochs))
	}
	for v, s := range left {
		w.t.Errorf("%v was told of version %d, which is not there", s.args, v)
	}
	// The newest version row by row, by the pure-Go reader.
	got := items{}
	rows := 0
	for b, err := range tab.Scan(context.Background(), s, delta.ScanOptions{Columns: []string{"id", "n", "p"}}) {
		if err != nil {
			w.t.Fatal(err)
		}
		for i := range int(b.NumRows()) {
			id := strings.Clone(b.Column(0).(*array.String).Value(i))
			got[id] = b.Column(1).(*array.Int64).Value(i)
			if p := b.Column(2).(*array.String).Value(i); p != partition(id) {
				w.t.Errorf("row %s is in partition %s", id, p)
			}
			rows++
		}
	}
	if !maps.Equal(got, model) || rows != len(got) {
		w.t.Errorf("the newest version has %d rows of %d ids, wanted are %d:\n%s", rows, len(got), len(model), differences(model, got))
	}
	return out
}

func differences(want, got items) string {
	var out []string
	for id, n := range want {
		if g, ok := got[id]; !ok {
			out = append(out, fmt.Sprintf("%s=%d is missing", id, n))
		} else if g != n {
			out = append(out, fmt.Sprintf("%s=%d, want %d", id, g, n))
		}
	}
	for id, n := range got {
		if _, ok := want[id]; !ok {
			out = append(out, fmt.Sprintf("%s=%d is too much", id, n))
		}
	}
	slices.Sort(out)
	return strings.Join(out[:min(len(out), 10)], "\n")
}

// follow has Spark read some of the versions that it has not read yet. A version whose files a vacuum has deleted
// meanwhile is left out.
func (w *writers) follow(s *spark, most int) {
	w.t.Helper()
	_, newest := w.open()
	w.sparkReads(s, int(newest.Version())+1, most)
}

// sparkReads has Spark read versions below an end, and gives how many are left.
func (w *writers) sparkReads(s *spark, end, most int) (left int) {
	w.t.Helper()
	first := w.next
	w.next = min(end, first+most)
	var texts []string
	for v := first; v < w.next; v++ {
		texts = append(texts, fmt.Sprintf(digestSQL, w.table, v))
	}
	for i, a := range s.each(texts) {
		switch v := first + i; {
		case a.Failed == "":
			w.seen[v] = digestOf(a)
		case w.vacuumed && strings.Contains(a.Failed, "FAILED_READ_FILE"):
			w.gone = append(w.gone, v)
		default:
			w.t.Errorf("Spark cannot read version %d: %s", v, a.Failed)
		}
	}
	return end - w.next
}

// compare has Spark read the versions that are left, count the rows of those whose files are gone, from the log, and
// compares all with what they must be.
func (w *writers) compare(s *spark, want []digest) {
	w.t.Helper()
	for w.sparkReads(s, len(want), 100) > 0 {
	}
	var texts []string
	for _, v := range w.gone {
		// Spark answers a count from the log only where nothing else is asked.
		texts = append(texts, fmt.Sprintf("SELECT count(*) AS rows FROM delta.`%s` VERSION AS OF %d", w.table, v))
	}
	for i, a := range s.each(texts) {
		if v := w.gone[i]; a.Failed != "" {
			w.t.Errorf("Spark cannot read the log of version %d: %s", v, a.Failed)
		} else if digestOf(a).rows != want[v].rows {
			w.t.Errorf("Spark counts %d rows in version %d, want %d", digestOf(a).rows, v, want[v].rows)
		}
	}
	for v, d := range w.seen {
		if d != want[v] {
			w.t.Errorf("Spark reads %+v in version %d, want %+v", d, v, want[v])
		}
	}
	if len(w.seen)+len(w.gone) != len(want) {
		w.t.Errorf("Spark read %d versions and counted %d of %d", len(w.seen), len(w.gone), len(want))
	}
}

func (w *writers) summary() string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(w.counts)) {
		out = append(out, fmt.Sprintf("%d %s", w.counts[k], k))
	}
	return strings.Join(out, ", ")
}

// TestCauceProcessesWriteSideBySide has eight processes at a time change one table. None may fail, and each version must
// have the rows that the statements give in the order of their versions, as Spark reads it.
func TestCauceProcessesWriteSideBySide(t *testing.T) {
	s := startSpark(t)
	s.ready()
	w := newWriters(t)
	w.vacuumed = true
	seed := testscale.Seed(t)
	s.sql(fmt.Sprintf(digestSQL, w.table, 0)) // the first query of a session takes long
	w.begin()
	wait := w.start(seed, w.batch(), appends("a1"), appends("a2"), merges("m1"), merges("m2"), changes(), compacts(), vacuums())
	for time.Now().Before(w.until) && !t.Failed() {
		w.follow(s, 8)
	}
	wait()
	if t.Failed() {
		return
	}
	want := w.replay(func(delta.Commit) (step, bool) { return step{}, false })
	during := len(w.seen)
	w.compare(s, want)
	t.Logf("REPORT: 8 processes for %d s: %s; %d versions, no row lost or doubled, no conflict surfaced", testscale.Count(t, "writer-seconds"), w.summary(), len(want))
	t.Logf("REPORT: Spark read %d versions, %d of them while others wrote, and counted the rows of %d whose files were vacuumed", len(w.seen), during, len(w.gone))
}

// TestSparkAndCauceWriteSideBySide has Spark, with the LogStore of deploy/spark, and six Cauce processes change one
// local table. Spark's own aborts are tried again and counted; Cauce's statements may not fail.
func TestSparkAndCauceWriteSideBySide(t *testing.T) {
	prereq.Need(t, "javac")
	s := startSpark(t)
	s.ready()
	w := newWriters(t)
	rnd := testscale.Rand(t)
	// The first statements of a session take long: on a table of Spark's own.
	scratch := "delta.`" + filepath.Join(t.TempDir(), "scratch") + "`"
	s.sql("CREATE TABLE " + scratch + " (id STRING, n BIGINT, p STRING) USING delta")
	for _, a := range []actor{appends("a0"), merges("m0")} {
		s.sql(fmt.Sprintf(a(0, rnd).sql, scratch))
	}
	w.begin()
	wait := w.start(testscale.Seed(t), w.batch(), appends("a1"), merges("m1"), merges("m2"), changes(), compacts())
	theirs := map[string]step{} // by the userMetadata of their commits
	aborts := map[string]int{}
	kinds := []actor{appends("a9"), merges("m9"), changes(), func(int, *rand.Rand) step { return step{kind: "optimize", sql: "OPTIMIZE %s"} }}
	for n := 1; w.turn(); n++ {
		does := kinds[rnd.IntN(len(kinds))](n, rnd)
		name := fmt.Sprintf("spark/%d", n)
		theirs[name] = does
		s.sql("SET spark.databricks.delta.commitInfo.userMetadata = " + name)
		for tries := 1; ; tries++ {
			failed := s.try(fmt.Sprintf(does.sql, "delta.`"+w.table+"`")).Failed
			if failed == "" {
				break
			}
			why := sparkConflict.FindString(failed)
			if why == "" || tries == 50 {
				t.Errorf("Spark, try %d of %s: %s", tries, does.sql, failed)
				break
			}
			aborts[why]++
		}
		w.mu.Lock()
		w.counts["Spark's "+does.kind]++
		w.mu.Unlock()
		if n%4 == 0 {
			w.follow(s, 8)
		}
	}
	s.sql("RESET spark.databricks.delta.commitInfo.userMetadata")
	wait()
	if t.Failed() {
		return
	}
	seen := map[string]int{}
	want := w.replay(func(c delta.Commit) (step, bool) {
		does, ok := theirs[c.Info.UserMetadata]
		if seen[c.Info.UserMetadata]++; seen[c.Info.UserMetadata] > 1 {
			t.Errorf("version %d: %s was committed before", c.Version, c.Info.UserMetadata)
		}
		return does, ok
	})
	for name, does := range theirs {
		if does.must && seen[name] == 0 {
			t.Errorf("%s, which Spark committed, is not there: %s", name, does.sql)
		}
	}
	w.compare(s, want)
	t.Logf("REPORT: Spark and 6 Cauce processes for %d s: %s; %d versions, no row lost or doubled, no conflict surfaced by Cauce", testscale.Count(t, "writer-seconds"), w.summary(), len(want))
	t.Logf("REPORT: Spark read all %d versions; of its own statements it aborted and repeated %v", len(w.seen), aborts)
}

// sparkConflict finds the name of a conflict in a message of Spark's.
var sparkConflict = regexp.MustCompile(`DELTA_CONCURRENT_[A-Z_]+|DELTA_METADATA_CHANGED|Concurrent[A-Za-z]+Exception`)
