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
	"testing"
	"time"

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

	unsent []string // event files that no producer has sent to the end
	took   map[string]time.Duration
	// starting is the part of took until the first phase.
	starting map[string]time.Duration

	chance, hook map[string]int // kills by the phase they hit
	order        []string       // what was killed, for the log of a failed test
}

// TestKillInEveryPhase lets batch, stream and maintenance work on one table at the same time and kills one of them in
// every turn, in turn by chance and where chance has hit least. Expected rows come from the generator.
func TestKillInEveryPhase(t *testing.T) {
	l := lab.NewLake(t)
	s := &scenario{t: t, l: l, rnd: testscale.Rand(t), log: filepath.Join(t.TempDir(), "phases"),
		took: map[string]time.Duration{}, starting: map[string]time.Duration{}, chance: map[string]int{}, hook: map[string]int{}}
	s.g = lab.NewGenerator(s.rnd, 3)
	l.Env = append(l.Env, "CAUCE_FAULT_LOG="+s.log)

	s.bad += s.g.History(t, l.Inbox(), 0, 200, 50).Bad
	l.Run("run", "batch") // the table that optimize and vacuum need

	perPhase := testscale.Count(t, "kills-per-phase")
	most := max(60, 6*testscale.Count(t, "kills")) // chance decides how often the rare phases come round
	for range testscale.Turns(t, "kills") {
		s.turn()
	}
	// A turn whose victim was done before its time came has killed nothing.
	for s.turns < most && (s.kills() < testscale.Count(t, "kills") || s.rarest(perPhase) != "" || sum(s.chance) < sum(s.hook)) {
		s.turn()
	}
	s.check()
	t.Logf("REPORT: %d kills in %d turns, none lost or doubled a row: %d by chance %v, %d by hook %v",
		s.kills(), s.turns, sum(s.chance), s.chance, sum(s.hook), s.hook)
	if phase := s.rarest(perPhase); phase != "" {
		t.Errorf("phase %s was hit %d times, want %d", phase, s.chance[phase]+s.hook[phase], perPhase)
	}
	if sum(s.chance) < sum(s.hook) {
		t.Errorf("%d kills by chance, fewer than half of all: %d by hook", sum(s.chance), sum(s.hook))
	}
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
	started time.Time
}

// turn brings new input, lets all workers run at once and kills one.
func (s *scenario) turn() {
	s.t.Helper()
	s.turns++
	m := s.g.History(s.t, s.l.Inbox(), s.rnd.IntN(3), 2000, 200)
	s.bad += m.Bad
	events := filepath.Join(s.t.TempDir(), fmt.Sprintf("events-%d.jsonl", s.turns))
	s.g.Events(s.t, events, 1000)
	s.unsent = append(s.unsent, events)

	byHook := ""
	if sum(s.hook) < sum(s.chance) {
		byHook = s.rarest(1 << 30)
	}
	if byHook == "vacuum" || byHook == "" && s.turns%8 == 0 {
		s.vacuumTurn(byHook)
		return
	}
	victim := []string{"batch", "stream", "optimize"}[s.rnd.IntN(3)]
	faults := map[string][]string{}
	switch byHook {
	case "":
	case "optimize":
		faults["optimize"] = []string{"CAUCE_FAULT=kill@optimize"}
	case "checkpoint": // only every tenth commit has one: whoever makes it
		for _, name := range []string{"batch", "stream", "optimize"} {
			faults[name] = []string{"CAUCE_FAULT=kill@checkpoint"}
		}
	default:
		victim = []string{"batch", "stream"}[s.rnd.IntN(2)]
		faults[victim] = []string{"CAUCE_FAULT=kill@" + byHook}
	}

	producer := s.start("produce", nil, "produce", "replay", events)
	workers := []*worker{
		s.start("batch", faults["batch"], "run", "batch", "--now"),
		s.start("stream", faults["stream"], "run", "stream", "--available-now"),
		s.start("optimize", faults["optimize"], "table", "optimize", "unified_events"),
	}
	if byHook == "" {
		i := slices.IndexFunc(workers, func(w *worker) bool { return w.name == victim })
		s.killByChance(workers[i])
	}
	for _, w := range workers {
		s.finish(w, byHook)
	}
	if code := producer.Wait(2 * time.Minute); code != 0 {
		s.fail(producer, code)
	}
	s.unsent = slices.DeleteFunc(s.unsent, func(f string) bool { return f == events })
	if s.turns%10 == 0 {
		s.check()
	}
}

// vacuumTurn kills VACUUM, which must be alone when it keeps no history.
func (s *scenario) vacuumTurn(byHook string) {
	var env []string
	if byHook != "" {
		env = []string{"CAUCE_FAULT=kill@vacuum"}
	}
	w := s.start("vacuum", env, "table", "vacuum", "unified_events", "--retention", "0s", "--force")
	if byHook == "" {
		s.killByChance(w)
	}
	s.finish(w, byHook)
	s.check()
}

func (s *scenario) start(name string, env []string, args ...string) *worker {
	s.t.Helper()
	return &worker{name: name, Process: s.l.Start(env, args...), started: time.Now()}
}

// killByChance kills at a moment drawn over the time that such a process last took. Every eighth time that begins with
// its start; else with the first phase that it reports, because a process starts longer than it commits, and nothing
// can go wrong before it has touched anything.
func (s *scenario) killByChance(w *worker) {
	usual, start := s.took[w.name], s.starting[w.name]
	if usual == 0 {
		usual = time.Second
	}
	if s.rnd.IntN(8) > 0 {
		for s.lastPhase(w.Pid()) == "starting" && w.Running() {
			time.Sleep(time.Millisecond)
		}
		s.starting[w.name] = time.Since(w.started)
		usual = max(usual-start, 20*time.Millisecond)
	}
	w.Wait(time.Duration(s.rnd.Int64N(int64(usual))))
	w.Kill()
}

// finish waits for a worker and records which phase a kill has hit.
func (s *scenario) finish(w *worker, byHook string) {
	s.t.Helper()
	code := w.Wait(2 * time.Minute)
	switch code {
	case 0:
		s.took[w.name] = time.Since(w.started)
	case -1:
		phase := s.lastPhase(w.Pid())
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

// lastPhase is the last phase that the process reported.
func (s *scenario) lastPhase(pid int) string {
	text, err := os.ReadFile(s.log)
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
	if d := lab.Diff(lab.NamedFiles(s.t, s.l.Table()), lab.FilesOnDisk(s.t, s.l.Table())); d != "" {
		s.t.Fatalf("turn %d: after VACUUM the files are not those that the log names: %s", s.turns, d)
	}
	if python, err := prereq.Lookup("venv"); err == nil && (s.turns%40 == 0 || s.turns < 10) {
		for _, reader := range []string{"deltalake", "duckdb"} {
			out := filepath.Join(s.t.TempDir(), "rows.csv")
			if text, err := exec.Command(python, filepath.Join(prereq.Root(), "test", "peers", "readers.py"), reader, s.l.Table(), out).CombinedOutput(); err != nil {
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
