package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// faultHook gives the function that the packages call at the beginning of each phase of a run, or nil. It serves the
// kill tests (docs/testing.md): CAUCE_FAULT=kill@PHASE[:N] makes the process kill itself when the phase is reached the
// N-th time, and CAUCE_FAULT_LOG=FILE records every phase, so that a test which kills from outside can tell what it hit.
func faultHook(getenv func(string) string) (func(phase string), error) {
	spec, logPath := getenv("CAUCE_FAULT"), getenv("CAUCE_FAULT_LOG")
	if spec == "" && logPath == "" {
		return nil, nil
	}
	left := map[string]int{}
	for _, s := range strings.Split(spec, ",") {
		if s == "" {
			continue
		}
		phase, ok := strings.CutPrefix(s, "kill@")
		n := 1
		if ok {
			var count string
			var counted bool
			if phase, count, counted = strings.Cut(phase, ":"); counted {
				var err error
				n, err = strconv.Atoi(count)
				ok = err == nil && n > 0
			}
		}
		if !ok || phase == "" {
			return nil, usagef("CAUCE_FAULT: %q is not of the form kill@PHASE[:N]", s)
		}
		left[phase] = n
	}
	var log *os.File
	if logPath != "" {
		var err error
		if log, err = os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644); err != nil {
			return nil, usagef("CAUCE_FAULT_LOG: %w", err)
		}
	}
	var mu sync.Mutex
	pid := os.Getpid()
	return func(phase string) {
		mu.Lock()
		defer mu.Unlock()
		if log != nil {
			fmt.Fprintf(log, "%d %d %s\n", time.Now().UnixNano(), pid, phase)
		}
		if n := left[phase]; n > 0 {
			left[phase] = n - 1
			if n == 1 {
				// SIGKILL to itself: nothing deferred runs, as in a real crash. Wait for it to arrive.
				_ = syscall.Kill(pid, syscall.SIGKILL)
				select {}
			}
		}
	}, nil
}
