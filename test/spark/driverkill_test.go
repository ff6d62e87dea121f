package spark

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/testscale"
	"github.com/cauce-data/cauce/test/lab"
)

// A Spark application that is killed at a random moment, alone or with the program that submitted it: the next batch, on
// either engine, makes the table right.
func TestSparkDriverKilled(t *testing.T) {
	kills := testscale.Count(t, "spark-driver-kills")
	args := append([]string{"spark", "submit", "batch"}, submitFlags(t)...)
	rnd := testscale.Rand(t)
	l := lab.NewLake(t)
	g := lab.NewGenerator(rnd, 2)
	bad := g.History(t, l.Inbox(), 0, 200, 20).Bad
	l.Run("run", "batch") // so that there is a table
	took := 15 * time.Second
	ended := 0
	for i := range kills {
		bad += g.History(t, l.Inbox(), rnd.IntN(2), 200, 20).Bad
		began := time.Now()
		p := l.Start(nil, args...)
		family := map[int]bool{}
		for wait := began.Add(time.Duration(rnd.Int64N(int64(took)))); p.Running() && (time.Now().Before(wait) || len(family) < 2); time.Sleep(50 * time.Millisecond) {
			for _, pid := range descendants(p.Pid()) {
				family[pid] = true
			}
		}
		if !p.Running() {
			ended++
			took = time.Since(began)
		}
		if rnd.IntN(2) == 0 {
			p.Kill()
		}
		for pid := range family {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if code := p.Wait(time.Minute); code == -2 {
			t.Fatalf("kill %d: cauce still waits for an application that is dead", i+1)
		}
		engine := []string{"run", "batch"}
		if testscale.Current() == testscale.Soak && i%3 == 0 {
			engine = args
		}
		l.Run(engine...)
		if d := lab.Diff(g.Expected.Lines(), l.Rows()); d != "" {
			t.Fatalf("after kill %d and cauce %s: %s", i+1, engine[0], d)
		}
		if n := len(quarantine(l, "")) - 1; n != bad {
			t.Fatalf("after kill %d and cauce %s: %d rows in quarantine, want %d", i+1, engine[0], n, bad)
		}
	}
	t.Logf("%d kills; %d applications had ended before", kills, ended)
}

// descendants are the processes that a process has started, and those that they have.
func descendants(pid int) []int {
	children := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, stat := range stats {
		b, err := os.ReadFile(stat)
		if err != nil {
			continue
		}
		// PID (NAME) STATE PPID …, and the name may hold anything.
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		own, err := strconv.Atoi(filepath.Base(filepath.Dir(stat)))
		if err != nil || len(f) < 2 {
			continue
		}
		if parent, err := strconv.Atoi(f[1]); err == nil {
			children[parent] = append(children[parent], own)
		}
	}
	var out []int
	for todo := []int{pid}; len(todo) > 0; {
		next := children[todo[0]]
		todo = append(todo[1:], next...)
		out = append(out, next...)
	}
	return out
}
