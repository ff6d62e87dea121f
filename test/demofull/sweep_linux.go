package main

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cauce-data/cauce/internal/family"
)

// adoptOrphans makes this process the parent of whatever its children leave behind, so that sweep finds it: a JVM whose submitter was
// killed, the tasks of a scheduler.
func adoptOrphans() {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "demo-full: what is left behind may stay:", err)
	}
}

// sweep ends every process that descends from this one.
func sweep() {
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		left := family.Descendants(os.Getpid())
		if len(left) == 0 {
			return
		}
		for _, r := range left {
			if time.Until(end) < 20*time.Second {
				r.Kill()
			} else {
				_ = syscall.Kill(r.Pid, syscall.SIGTERM)
			}
		}
	}
}
