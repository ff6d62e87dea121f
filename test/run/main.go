// Command run runs the project's tests: it calls go test for the packages, prints what failed and what a test wants
// people to see, and holds the run to two rules that go test has not: a test may be skipped only for a prerequisite
// that test/prerequisites.txt lists and this machine lacks, and a test that docs/requirements.md names as a proof must
// have run.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/internal/testscale"
)

const module = "github.com/cauce-data/cauce/"

func main() {
	size := flag.String("size", "test", "short, test or soak")
	tags := flag.String("tags", "", "build tags")
	run := flag.String("run", "", "only tests that match this regular expression")
	race := flag.Bool("race", false, "with Go's race detector")
	timeout := flag.Duration("timeout", 45*time.Minute, "bound of one package's tests")
	flag.Parse()
	packages := flag.Args()
	if len(packages) == 0 {
		packages = []string{"./..."}
	}
	os.Exit(mainCode(*size, *tags, *run, *race, *timeout, packages))
}

func mainCode(size, tags, run string, race bool, timeout time.Duration, packages []string) int {
	listed, err := readPrerequisites(filepath.Join(prereq.Root(), "test", "prerequisites.txt"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "test/run:", err)
		return 2
	}
	base := []string{"test", "-json", "-count=1", "-tags", tags, "-timeout", timeout.String()}
	if race {
		base = append(base, "-race")
	}
	if run != "" {
		base = append(base, "-run", run)
	}
	beside, alone, err := split(tags, packages)
	if err != nil {
		fmt.Fprintln(os.Stderr, "test/run:", err)
		return 2
	}
	r := newResult(os.Stdout)
	everything := len(packages) == 1 && packages[0] == "./..."
	// Tests under test/ start several processes and measure how they get on together: one package at a time. A glance runs
	// none of those.
	parts := []part{{base, beside}, {with(base, "-p=1"), alone}}
	if size == testscale.Short.String() {
		// Vetting is what `make lint` does; it costs as much as compiling.
		// Many tests wait more than they compute, so that more of them run at once than there are processors.
		base = with(base, "-short", "-vet=off", "-p="+strconv.Itoa(runtime.NumCPU()+1), "-parallel=4")
		if everything {
			alone, r.leftOut = glance(alone)
		}
		parts = []part{{base, append(beside, alone...)}}
	}
	for _, p := range parts {
		if len(p.pkgs) == 0 {
			continue
		}
		if err := goTest(with(p.args, p.pkgs...), size, r); err != nil {
			fmt.Fprintln(os.Stderr, "test/run:", err)
			return 2
		}
	}
	whole := run == "" && everything && size != testscale.Short.String()
	return r.summary(listed, size, whole)
}

// part is one call of go test.
type part struct{ args, pkgs []string }

// with is args and more, in an array of its own.
func with(args []string, more ...string) []string { return append(slices.Clone(args), more...) }

// glance parts the packages under test/ into those that a glance runs and those that it leaves out: tests of the built
// program and of foreign ones, which would compile and link only to skip most of what they have.
func glance(pkgs []string) (run, leftOut []string) {
	for _, p := range pkgs {
		switch strings.TrimPrefix(p, module) {
		case "test/golden", "test/run":
			run = append(run, p)
		default:
			leftOut = append(leftOut, strings.TrimPrefix(p, module))
		}
	}
	return run, leftOut
}

// split parts the packages into those that may run beside each other and those under test/.
func split(tags string, patterns []string) (beside, alone []string, err error) {
	out, err := exec.Command("go", append([]string{"list", "-tags", tags}, patterns...)...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return nil, nil, fmt.Errorf("go list: %s", exit.Stderr)
		}
		return nil, nil, fmt.Errorf("go list: %w", err)
	}
	for _, p := range strings.Fields(string(out)) {
		if strings.HasPrefix(p, module+"test/") {
			alone = append(alone, p)
		} else {
			beside = append(beside, p)
		}
	}
	return beside, alone, nil
}

func goTest(args []string, size string, r *result) error {
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), testscale.SizeEnv+"="+size)
	if size == testscale.Short.String() {
		cmd.Env = append(cmd.Env, "GOGC=400") // small tests: memory is there, time is not
	}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	// go test forwards an interrupt to the tests; this process only has to outlive it and print what is known.
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(stop)
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() {
		for s := range stop {
			_ = cmd.Process.Signal(s)
		}
	}()
	defer close(stop)
	if err := r.read(out); err != nil {
		return err
	}
	// A failure that no test event told, such as a package that does not build, must not be lost.
	if err := cmd.Wait(); err != nil && r.failed == 0 {
		r.failed++
		r.failures = append(r.failures, "go test: "+err.Error())
	}
	return nil
}

// event is one line of go test -json (go doc test2json).
type event struct {
	Action, Package, ImportPath, Test, Output string
}

type result struct {
	out                     io.Writer
	passed, failed, skipped int
	failures                []string
	skips                   []skip
	leftOut                 []string          // packages of whole programs, at size short
	state                   map[string]string // "package.Test" -> pass, fail, skip
	text                    map[string]*strings.Builder
}

type skip struct{ pkg, test, why string }

func newResult(out io.Writer) *result {
	return &result{out: out, state: map[string]string{}, text: map[string]*strings.Builder{}}
}

// reported matches a line of a passing test that is meant for people; see the package comment.
var reported = regexp.MustCompile(`REPORT: (.*)`)

func (r *result) read(in io.Reader) error {
	sc := bufio.NewScanner(in)
	sc.Buffer(make([]byte, 1<<16), 1<<26)
	for sc.Scan() {
		var e event
		if err := json.Unmarshal(sc.Bytes(), &e); err != nil {
			fmt.Fprintln(r.out, sc.Text())
			continue
		}
		r.add(e)
	}
	return sc.Err()
}

func (r *result) add(e event) {
	name := strings.TrimPrefix(e.Package, module)
	key := name + "." + e.Test
	switch e.Action {
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "output":
		if e.Test == "" {
			r.packageLine(key, e.Output)
			return
		}
		if m := reported.FindStringSubmatch(e.Output); m != nil {
			fmt.Fprintf(r.out, "      %s: %s\n", e.Test, strings.TrimSpace(m[1]))
		}
		r.buffer(key).WriteString(e.Output)
	case "pass", "fail", "skip":
		r.state[key] = e.Action
		text := r.take(key)
		if e.Test == "" {
			if e.Action == "fail" {
				r.failed++
				r.failures = append(r.failures, name)
				fmt.Fprint(r.out, text)
				r.unended(name)
			}
			return
		}
		switch e.Action {
		case "pass":
			r.passed++
		case "fail":
			r.failed++
			r.failures = append(r.failures, name+" "+e.Test)
			fmt.Fprint(r.out, text)
		case "skip":
			r.skipped++
			r.skips = append(r.skips, skip{name, e.Test, why(text)})
		}
	}
}

// unended prints and names the tests of a package that began and did not end: a panic of a goroutine beside them, or an
// exit, takes the whole process with it, and no event tells of the test.
func (r *result) unended(pkg string) {
	for _, key := range slices.Sorted(maps.Keys(r.text)) {
		test, ok := strings.CutPrefix(key, pkg+".")
		if !ok || test == "" {
			continue
		}
		if r.state[key] == "" {
			r.failures = append(r.failures, pkg+" "+test+": did not end")
		}
		fmt.Fprint(r.out, r.take(key))
	}
}

// packageLine prints go test's own closing line of a package at once and keeps other output of a package for the case
// that it fails.
func (r *result) packageLine(key, line string) {
	switch {
	case strings.HasPrefix(line, "ok  \t"), strings.HasPrefix(line, "FAIL\t"):
		fmt.Fprint(r.out, line)
	case strings.HasPrefix(line, "?   \t"), line == "PASS\n":
	default:
		r.buffer(key).WriteString(line)
	}
}

func (r *result) buffer(key string) *strings.Builder {
	if r.text[key] == nil {
		r.text[key] = &strings.Builder{}
	}
	return r.text[key]
}

func (r *result) take(key string) string {
	b := r.text[key]
	if b == nil {
		return ""
	}
	delete(r.text, key)
	return b.String()
}

// why takes the message out of what a skipped test printed: "    file_test.go:12: message".
func why(text string) string {
	msg := ""
	for _, line := range strings.Split(text, "\n") {
		if _, after, ok := strings.Cut(line, "_test.go:"); ok {
			if _, after, ok = strings.Cut(after, ": "); ok {
				msg = strings.TrimSpace(after)
			}
		} else if _, after, ok := strings.Cut(line, "prereq.go:"); ok {
			if _, after, ok = strings.Cut(after, ": "); ok {
				msg = strings.TrimSpace(after)
			}
		}
	}
	return msg
}

// summary prints the closing lines and returns the exit code.
func (r *result) summary(listed map[string][]string, size string, whole bool) int {
	var bad []string
	if len(r.skips) > 0 {
		fmt.Fprintf(r.out, "\nSKIPPED: %d tests\n", len(r.skips))
	}
	short := map[string]int{} // what the size leaves out, by reason
	for _, s := range r.skips {
		if size == testscale.Short.String() && strings.HasPrefix(s.why, "short: ") {
			short[s.why]++
			continue
		}
		note := ""
		if err := allowed(s, listed, size); err != nil {
			note = "  <- " + err.Error()
			bad = append(bad, fmt.Sprintf("%s %s was skipped: %v", s.pkg, s.test, err))
		}
		fmt.Fprintf(r.out, "  %s %s: %s%s\n", s.pkg, s.test, s.why, note)
	}
	for _, reason := range slices.Sorted(maps.Keys(short)) {
		fmt.Fprintf(r.out, "  %s: %d tests\n", reason, short[reason])
	}
	if len(r.leftOut) > 0 {
		fmt.Fprintf(r.out, "  short: tests of whole programs did not run: %s\n", strings.Join(r.leftOut, ", "))
	}
	if whole {
		more, err := r.unproved(filepath.Join(prereq.Root(), "docs", "requirements.md"), listed, size)
		if err != nil {
			more = append(more, err.Error())
		}
		bad = append(bad, more...)
	}
	if len(r.failures)+len(bad) > 0 {
		fmt.Fprintln(r.out, "\nfailed:")
		sort.Strings(r.failures)
		for _, f := range append(r.failures, bad...) {
			fmt.Fprintln(r.out, "  "+f)
		}
	}
	fmt.Fprintf(r.out, "\n%d passed, %d failed, %d skipped\n", r.passed, r.failed+len(bad), r.skipped)
	if r.failed+len(bad) > 0 || r.passed == 0 {
		return 1
	}
	return 0
}

// allowed says why a skip is no good, or nil.
func allowed(s skip, listed map[string][]string, size string) error {
	if size == testscale.Short.String() && strings.HasPrefix(s.why, "short: ") {
		return nil
	}
	rest, ok := strings.CutPrefix(s.why, "prerequisite ")
	if !ok {
		return errors.New("not for a prerequisite")
	}
	name, _, _ := strings.Cut(rest, ":")
	top, _, _ := strings.Cut(s.test, "/")
	found := false
	for _, entry := range listed[name] {
		found = found || entry == s.pkg+" "+top || entry == s.pkg
	}
	if !found {
		return fmt.Errorf("test/prerequisites.txt does not list it under %s", name)
	}
	if _, err := prereq.Lookup(name); err == nil {
		return fmt.Errorf("%s is there", name)
	}
	return nil
}

// proof matches a test that docs/requirements.md names: `delta.TestMerge` or `cmd/cauce.TestDemo`.
var proof = regexp.MustCompile("`([a-z][a-z0-9_/]*)\\.((?:Test|Fuzz|Example)[A-Za-z0-9_]*)`")

// unproved lists the tests that the requirements name as proofs and that did not run. One that lacks a prerequisite of
// the list is printed and no more: the promise is unproved on this machine, not broken.
func (r *result) unproved(path string, listed map[string][]string, size string) ([]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var bad, unseen []string
	seen := map[string]bool{}
	for _, m := range proof.FindAllStringSubmatch(string(text), -1) {
		key := m[1] + "." + m[2]
		if seen[key] {
			continue
		}
		seen[key] = true
		switch r.state[key] {
		case "pass", "fail": // a failure is told anyway
		case "skip":
			i := slices.IndexFunc(r.skips, func(s skip) bool { return s.pkg == m[1] && s.test == m[2] })
			if i < 0 {
				bad = append(bad, fmt.Sprintf("docs/requirements.md: %s is named as a proof and was skipped", key))
			} else if allowed(r.skips[i], listed, size) == nil { // else it has failed the run already
				unseen = append(unseen, key)
			}
		default:
			bad = append(bad, fmt.Sprintf("docs/requirements.md: %s is named as a proof and did not run", key))
		}
	}
	if len(unseen) > 0 {
		fmt.Fprintf(r.out, "\nNOT PROVED HERE: docs/requirements.md names %d tests that this machine lacks something for: %s\n", len(unseen), strings.Join(unseen, ", "))
	}
	return bad, nil
}

// readPrerequisites reads the list: a line "name: what it is" begins an entry, and each indented line below it is a
// package, or a package and a test, that is skipped without it.
func readPrerequisites(path string) (map[string][]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, n := range prereq.Names() {
		known[n] = true
	}
	listed, name := map[string][]string{}, ""
	for i, line := range strings.Split(string(text), "\n") {
		switch {
		case strings.TrimSpace(line) == "", strings.HasPrefix(line, "#"):
		case line[0] == ' ' || line[0] == '\t':
			if name == "" {
				return nil, fmt.Errorf("%s:%d: a test before any prerequisite", path, i+1)
			}
			listed[name] = append(listed[name], strings.Join(strings.Fields(line), " "))
		default:
			name, _, _ = strings.Cut(line, ":")
			if !known[name] {
				return nil, fmt.Errorf("%s:%d: internal/prereq cannot look for %q", path, i+1, name)
			}
			listed[name] = append(listed[name], nil...)
		}
	}
	return listed, nil
}
