package kill

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/cloudtest"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/test/lab"
)

// phases are those that each must be hit. The program reports when one begins (docs/testing.md); "starting" is before
// the first of them.
var phases = []string{"reading", "files-written", "before-commit", "after-commit", "checkpoint", "optimize", "vacuum"}

// scenario is one lake under attack.
type scenario struct {
	t     *testing.T
	l     *lab.Lake
	g     *lab.Generator
	rnd   *rand.Rand
	log   string // where the processes report their phases
	turns int
	bad   int

	bucket bool   // the lake lies in a bucket: files are landed
	table  string // the table's folder on this machine, "" where it is none

	unsent []string // event files that no producer has sent to the end

	chance, hook map[string]int // kills by the phase they hit
	order        []string       // what was killed, for the log of a failed test
}

// TestKillInEveryPhase lets a stream, batches and OPTIMIZE work on one table at the same time, then VACUUM, and kills
// them: at moments drawn by chance over the whole of their work, and by a hook where chance has hit least. Expected rows
// come from the generator.
func TestKillInEveryPhase(t *testing.T) {
	testscale.NotAtShort(t, "each kill is seconds of work")
	l := lab.NewLake(t)
	killInEveryPhase(t, &scenario{l: l, table: l.Table()}, "kills")
}

func TestKillOnS3(t *testing.T) {
	prereq.Need(t, "versitygw")
	srv := cloudtest.NewS3(t)
	l := lab.NewLake(t)
	l.Env = append(srv.Env(""), "CAUCE_ROOT=s3://"+srv.Bucket(t, "lake")+"/l")
	killInEveryPhase(t, &scenario{l: l, bucket: true, table: srv.Path("lake", "l/processed/unified-events")}, "bucket-kills")
}

func TestKillOnGCS(t *testing.T) {
	prereq.Need(t, "fake-gcs-server")
	srv := cloudtest.NewGCS(t)
	l := lab.NewLake(t)
	l.Env = append(srv.Env(""), "CAUCE_ROOT=gs://"+srv.Bucket(t, "lake")+"/l")
	killInEveryPhase(t, &scenario{l: l, bucket: true}, "bucket-kills")
}

func killInEveryPhase(t *testing.T, s *scenario, scale string) {
	l := s.l
	s.t, s.rnd, s.log, s.chance, s.hook = t, testscale.Rand(t), filepath.Join(t.TempDir(), "phases"), map[string]int{}, map[string]int{}
	s.g = lab.NewGenerator(s.rnd, 3)
	l.Env = append(l.Env, "CAUCE_FAULT_LOG="+s.log)

	s.history(5, 1000)
	l.Run("run", "batch") // the table that optimize and vacuum need

	// Half of the kills, and as many more as the rare phases take, are chance's; the hooks fill up what is missing.
	perPhase := testscale.Count(t, "kills-per-phase")
	start := time.Now()
	for i := range testscale.Turns(t, scale) {
		if s.kills() > i {
			continue // a cycle of chance makes several kills
		}
		s.next(perPhase)
	}
	for s.rarest(perPhase) != "" || sum(s.chance) < sum(s.hook) || s.kills() < testscale.Count(t, scale) {
		s.next(perPhase)
	}
	s.check()
	t.Logf("REPORT: %d kills in %d turns and %v, none lost or doubled a row: %d by chance %s, %d by hook %s",
		s.kills(), s.turns, time.Since(start).Round(time.Second), sum(s.chance), byPhase(s.chance), sum(s.hook), byPhase(s.hook))
	for _, p := range phases {
		if n := s.chance[p] + s.hook[p]; n < perPhase {
			t.Errorf("phase %s was hit %d times, want %d", p, n, perPhase)
		}
	}
	if sum(s.chance) < sum(s.hook) {
		t.Errorf("%d kills by chance, fewer than half of all: %d by hook", sum(s.chance), sum(s.hook))
	}
}

// next makes the kills of one turn: by chance, unless that is ahead.
func (s *scenario) next(perPhase int) {
	s.t.Helper()
	s.turns++
	if sum(s.chance) <= sum(s.hook) {
		s.chanceTurn()
	} else {
		s.hookTurn(perPhase)
	}
	if s.turns%10 == 0 {
		s.check()
	}
}

// byPhase lists kills as "phase n", the order of a process's work first.
func byPhase(m map[string]int) string {
	var list []string
	for _, p := range slices.Concat([]string{"starting"}, phases, slices.Sorted(maps.Keys(m))) {
		text := fmt.Sprintf("%s %d", p, m[p])
		if m[p] > 0 && !slices.Contains(list, text) {
			list = append(list, text)
		}
	}
	return "(" + strings.Join(list, ", ") + ")"
}

func sum(m map[string]int) int {
	n := 0
	for v := range maps.Values(m) {
		n += v
	}
	return n
}

func (s *scenario) kills() int { return sum(s.chance) + sum(s.hook) }

// rarest is the phase with the fewest kills, if those are fewer than want; else "".
func (s *scenario) rarest(want int) string {
	least := ""
	for _, p := range phases {
		n := s.chance[p] + s.hook[p]
		if n < want && (least == "" || n < s.chance[least]+s.hook[least]) {
			least = p
		}
	}
	return least
}

// worker is one process of a turn.
type worker struct {
	name string
	*lab.Process
}

func (s *scenario) start(name string, env []string, args ...string) *worker {
	s.t.Helper()
	return &worker{name: name, Process: s.l.Start(env, args...)}
}

// history puts files with n rows each into the inbox. No batch may run meanwhile.
func (s *scenario) history(files, n int) {
	s.t.Helper()
	dir := s.l.Inbox()
	if s.bucket {
		dir = s.t.TempDir()
	}
	command := []string{"land"}
	for range files {
		m := s.g.History(s.t, dir, s.rnd.IntN(3), n, 100)
		s.bad += m.Bad
		command = append(command, m.Path)
	}
	if s.bucket {
		s.l.Run(command...)
	}
}

// events writes a file of n events that a producer still has to send.
func (s *scenario) events(n int) string {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), fmt.Sprintf("events-%d.jsonl", s.turns))
	s.g.Events(s.t, path, n)
	s.unsent = append(s.unsent, path)
	return path
}

// chanceTurn keeps stream, batch and OPTIMIZE busy for some seconds and then VACUUM for a moment, starting again what
// ends. The times of the kills are drawn over the whole turn and know nothing of when a process began; whoever then
// runs may be hit.
func (s *scenario) chanceTurn() {
	s.t.Helper()
	const together = 6 * time.Second
	events := s.events(5000)
	producer := s.start("produce", nil, "produce", "replay", events, "--rate", "900")
	commands := map[string][]string{
		"stream": {"run", "stream", "--trigger", "100ms"}, // goes on until it is stopped
		"batch":  {"run", "batch", "--now"},
		// Z-ORDER writes every file anew, so that there is always something to do.
		"optimize": {"table", "optimize", "unified_events", "--zorder", "symbol"},
	}
	running := map[string]*worker{}
	begin := func(name string) {
		if name == "batch" {
			s.history(4, 500)
		}
		running[name] = s.start(name, nil, commands[name]...)
	}
	end := func(w *worker) {
		s.finish(w, "")
		delete(running, w.name)
	}
	shoot := s.shots(2*time.Second, func() *worker {
		names := slices.Sorted(maps.Keys(running))
		if len(names) == 0 {
			return nil
		}
		return running[names[s.rnd.IntN(len(names))]]
	})
	for began := time.Now(); time.Since(began) < together; {
		for _, name := range []string{"stream", "batch", "optimize"} {
			if w := running[name]; w != nil && !w.Running() {
				if name == "stream" && w.Wait(0) == 0 {
					s.t.Fatalf("turn %d: the stream ended by itself: %s", s.turns, w.Stderr.String())
				}
				end(w)
			}
			if running[name] == nil {
				begin(name)
			}
		}
		shoot()
		time.Sleep(2 * time.Millisecond)
	}
	if w := running["stream"]; w != nil {
		w.Signal(syscall.SIGTERM)
	}
	for len(running) > 0 {
		for _, w := range running {
			if w.Running() {
				shoot()
				time.Sleep(2 * time.Millisecond)
			} else {
				end(w)
			}
		}
	}
	if code := producer.Wait(2 * time.Minute); code != 0 {
		s.fail(producer, code)
	}
	s.unsent = slices.DeleteFunc(s.unsent, func(f string) bool { return f == events })

	// VACUUM that keeps no history must be alone. It goes on until it has come to its end.
	var w *worker
	shoot = s.shots(300*time.Millisecond, func() *worker { return w })
	for done := false; !done; {
		w = s.start("vacuum", nil, "table", "vacuum", "unified_events", "--retention", "0s", "--force")
		for w.Running() {
			shoot()
			time.Sleep(time.Millisecond)
		}
		done = w.Wait(0) == 0
		s.finish(w, "")
	}
}

// shots returns a function that is to be called all the time: it kills a victim at times whose distances are drawn
// evenly from nothing to twice the mean.
func (s *scenario) shots(mean time.Duration, victim func() *worker) func() {
	next := time.Now().Add(time.Duration(s.rnd.Int64N(int64(2 * mean))))
	return func() {
		if time.Now().Before(next) {
			return
		}
		next = time.Now().Add(time.Duration(s.rnd.Int64N(int64(2 * mean))))
		if w := victim(); w != nil {
			w.Kill()
		}
	}
}

// hookTurn lets all work at once and has the one whose phase was hit least kill itself there.
func (s *scenario) hookTurn(perPhase int) {
	s.t.Helper()
	phase := s.rarest(perPhase)
	if phase == "" {
		phase = phases[s.rnd.IntN(len(phases))]
	}
	fault := []string{"CAUCE_FAULT=kill@" + phase}
	s.history(s.rnd.IntN(2)+1, 200)
	if phase == "vacuum" {
		s.finish(s.start("vacuum", fault, "table", "vacuum", "unified_events", "--retention", "0s", "--force"), phase)
		return
	}
	faults := map[string][]string{}
	switch phase {
	case "optimize":
		faults["optimize"] = fault
	case "checkpoint": // only every tenth commit has one: whoever makes it
		faults["batch"], faults["stream"], faults["optimize"] = fault, fault, fault
	default:
		faults[[]string{"batch", "stream"}[s.rnd.IntN(2)]] = fault
	}
	events := s.events(300)
	producer := s.start("produce", nil, "produce", "replay", events)
	for _, w := range []*worker{
		s.start("batch", faults["batch"], "run", "batch", "--now"),
		s.start("stream", faults["stream"], "run", "stream", "--available-now"),
		s.start("optimize", faults["optimize"], "table", "optimize", "unified_events"),
	} {
		s.finish(w, phase)
	}
	if code := producer.Wait(2 * time.Minute); code != 0 {
		s.fail(producer, code)
	}
	s.unsent = slices.DeleteFunc(s.unsent, func(f string) bool { return f == events })
}

// finish waits for a worker and records which phase a kill has hit.
func (s *scenario) finish(w *worker, byHook string) {
	s.t.Helper()
	switch code := w.Wait(2 * time.Minute); code {
	case 0:
	case -1:
		phase := lastPhase(s.log, w.Pid())
		if byHook == "" {
			s.chance[phase]++
		} else {
			s.hook[phase]++
		}
		s.order = append(s.order, w.name+"@"+phase)
	default:
		s.fail(w, code)
	}
}

func (s *scenario) fail(w *worker, code int) {
	s.t.Helper()
	s.t.Fatalf("turn %d: cauce %s ended with %d after the kills %v\n%s%s", s.turns, strings.Join(w.Args, " "), code, s.order, w.Stdout.String(), w.Stderr.String())
}

// lastPhase is the last phase that a process reported in the file of CAUCE_FAULT_LOG.
func lastPhase(log string, pid int) string {
	text, err := os.ReadFile(log)
	if err != nil {
		return "starting"
	}
	phase := "starting"
	for _, line := range strings.Split(string(text), "\n") {
		f := strings.Fields(line)
		if len(f) >= 3 && f[1] == strconv.Itoa(pid) {
			phase = f[len(f)-1]
		}
	}
	return phase
}

// check lets everything run to its end and compares the table with the generator, by Cauce and by others; VACUUM must
// then leave exactly the files that the log names.
func (s *scenario) check() {
	s.t.Helper()
	for _, f := range s.unsent {
		s.l.Run("produce", "replay", f)
	}
	s.unsent = nil
	s.l.Run("run", "batch", "--now")
	s.l.Run("run", "stream", "--available-now")
	want := s.g.Expected.Lines()
	if d := lab.Diff(want, s.l.Rows()); d != "" {
		s.t.Fatalf("turn %d, after the kills %v: %s", s.turns, s.order, d)
	}
	if n := strings.Fields(s.l.Run("query", "SELECT count(*) AS n FROM quarantine", "--format", "csv")); len(n) != 2 || n[1] != strconv.Itoa(s.bad) {
		s.t.Fatalf("turn %d: quarantine has %v rows, want %d", s.turns, n, s.bad)
	}
	s.l.Run("table", "vacuum", "unified_events", "--retention", "0s", "--force")
	if s.table == "" {
		return
	}
	if d := lab.Diff(lab.NamedFiles(s.t, s.table), lab.FilesOnDisk(s.t, s.table)); d != "" {
		s.t.Fatalf("turn %d: after VACUUM the files are not those that the log names: %s", s.turns, d)
	}
	if python, err := prereq.Lookup("venv"); err == nil && (s.turns%40 == 0 || s.turns <= 10) {
		for _, reader := range []string{"deltalake", "duckdb"} {
			out := filepath.Join(s.t.TempDir(), "rows.csv")
			if text, err := exec.Command(python, filepath.Join(prereq.Root(), "test", "peers", "readers.py"), reader, s.table, out).CombinedOutput(); err != nil {
				s.t.Fatalf("turn %d: %s cannot read the table: %v\n%s", s.turns, reader, err, text)
			}
			text, err := os.ReadFile(out)
			if err != nil {
				s.t.Fatal(err)
			}
			if d := lab.Diff(want, lab.Lines(s.t, text, lab.Columns)); d != "" {
				s.t.Fatalf("turn %d, read by %s: %s", s.turns, reader, d)
			}
		}
	}
}
