// Package family finds the processes that a process has started, for tests that end them.
package family

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Relative is a process that was seen at some time.
type Relative struct {
	Pid   int
	began string // when, in ticks since the machine started: the id alone may be another one's later
}

// Kill sends SIGKILL, if it is still that process.
func (r Relative) Kill() {
	if _, now, ok := stat(strconv.Itoa(r.Pid)); ok && now == r {
		_ = syscall.Kill(r.Pid, syscall.SIGKILL)
	}
}

// Descendants are the processes that a process has started, and those that they have.
func Descendants(pid int) []Relative {
	children := map[int][]Relative{}
	folders, _ := filepath.Glob("/proc/[0-9]*")
	for _, f := range folders {
		if parent, r, ok := stat(filepath.Base(f)); ok {
			children[parent] = append(children[parent], r)
		}
	}
	out := children[pid]
	for i := 0; i < len(out); i++ {
		out = append(out, children[out[i].Pid]...)
	}
	return out
}

// stat reads what the system says of a process.
func stat(pid string) (parent int, r Relative, ok bool) {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return 0, r, false
	}
	// PID (NAME) STATE PPID …, and the name may hold anything; the time at which it began is the 22nd.
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 20 || f[0] == "Z" { // a dead one that nobody has asked about is no relative
		return 0, r, false
	}
	own, err := strconv.Atoi(pid)
	if err != nil {
		return 0, r, false
	}
	parent, err = strconv.Atoi(f[1])
	return parent, Relative{own, f[19]}, err == nil
}
