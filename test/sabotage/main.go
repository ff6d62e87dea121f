// Command sabotage proves that the proofs can fail. Each fault breaks the program in one small way, in a copy of the
// tree, and names the tests of which at least one must then go red. A fault whose text is no longer found in the source
// fails the run too: it must be brought up to date, not forgotten.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/internal/testscale"
)

// fault is one way to break the program.
type fault struct {
	name string
	what string
	// edits replace text that stands exactly once in its file.
	edits []edit
	// pkg and test name the tests, as go test has them, of which one must fail.
	pkg, test string
}

type edit struct{ file, old, new string }

func main() {
	tags := flag.String("tags", "", "build tags")
	list := flag.Bool("list", false, "only check that every fault still fits the source")
	flag.Parse()
	os.Exit(mainCode(*tags, *list, flag.Args()))
}

func mainCode(tags string, listOnly bool, names []string) int {
	root := prereq.Root()
	var missed []string
	for _, f := range faults {
		if err := f.fits(root); err != nil {
			missed = append(missed, fmt.Sprintf("%s: %v", f.name, err))
		}
	}
	if listOnly || len(missed) > 0 {
		for _, m := range missed {
			fmt.Println(m)
		}
		fmt.Printf("%d faults, %d do not fit the source\n", len(faults), len(missed))
		return min(len(missed), 1)
	}
	work, err := os.MkdirTemp("", "cauce-sabotage-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "sabotage:", err)
		return 1
	}
	defer os.RemoveAll(work)
	tree := filepath.Join(work, "cauce")
	if err := copyTree(root, tree); err != nil {
		fmt.Fprintln(os.Stderr, "sabotage:", err)
		return 1
	}
	// Some tests read ../shared.
	if shared := filepath.Join(root, "..", "shared"); exists(shared) {
		if err := os.Symlink(shared, filepath.Join(work, "shared")); err != nil {
			fmt.Fprintln(os.Stderr, "sabotage:", err)
			return 1
		}
	}
	// And others want what test/setup.sh installed.
	if cache, err := filepath.EvalSymlinks(filepath.Join(root, ".cache")); err == nil {
		if err := os.Symlink(cache, filepath.Join(tree, ".cache")); err != nil {
			fmt.Fprintln(os.Stderr, "sabotage:", err)
			return 1
		}
	}
	done, green, skipped := 0, 0, 0
	for _, f := range faults {
		if len(names) > 0 && !slices.Contains(names, f.name) {
			continue
		}
		start := time.Now()
		verdict, why, err := f.try(root, tree, tags)
		if err != nil {
			fmt.Fprintf(os.Stderr, "sabotage: %s: %v\n", f.name, err)
			return 1
		}
		done++
		says := "NOT CAUGHT"
		switch verdict {
		case red:
			says = "caught"
		case skip:
			skipped++
			says = "NOT TRIED: the test was skipped: " + why
		default:
			green++
			if why != "" {
				says += ", and a part of the test was skipped: " + why
			}
		}
		fmt.Printf("%-5s  %-28s %s: %s (%s %s, %s)\n", verdict, f.name, f.what, says, f.pkg, f.test, time.Since(start).Round(time.Second))
	}
	fmt.Printf("\n%d faults, %d caught, %d not caught, %d not tried\n", done, done-green-skipped, green, skipped)
	if green+skipped > 0 || done == 0 {
		return 1
	}
	return 0
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// fits says why the fault cannot be made in the source.
func (f fault) fits(root string) error {
	for _, e := range f.edits {
		text, err := os.ReadFile(filepath.Join(root, e.file))
		if err != nil {
			return err
		}
		if n := strings.Count(string(text), e.old); n != 1 {
			return fmt.Errorf("%s has %d times the text %q", e.file, n, e.old)
		}
	}
	return nil
}

// What the tests say of a fault.
const (
	red   = "red"   // a test failed
	green = "green" // all passed
	skip  = "skip"  // none ran
	build = "build" // the broken program does not compile, which proves nothing
)

// try makes the fault in the copy, runs its tests and takes the fault back; why is the reason of a test that was skipped.
func (f fault) try(root, tree, tags string) (verdict, why string, err error) {
	for _, e := range f.edits {
		path := filepath.Join(tree, e.file)
		text, err := os.ReadFile(path)
		if err != nil {
			return "", "", err
		}
		if err := os.WriteFile(path, []byte(strings.Replace(string(text), e.old, e.new, 1)), 0o644); err != nil {
			return "", "", err
		}
	}
	defer func() {
		for _, e := range f.edits {
			err = errors.Join(err, copyFile(filepath.Join(root, e.file), filepath.Join(tree, e.file)))
		}
	}()
	// vet would complain of what the fault leaves unused; only the tests shall speak.
	if out, err := command(tree, "go", "test", "-vet=off", "-tags", tags, "-run", "^$", f.pkg).CombinedOutput(); err != nil {
		fmt.Printf("%s\n", out)
		return build, "", nil
	}
	if strings.HasPrefix(f.pkg, "./test/") || strings.HasPrefix(f.pkg, "./cmd/") {
		if out, err := command(tree, "make", "-s", "build").CombinedOutput(); err != nil {
			fmt.Printf("%s\n", out)
			return build, "", nil
		}
	}
	cmd := command(tree, "go", "test", "-v", "-vet=off", "-count=1", "-failfast", "-timeout", "10m", "-tags", tags, "-run", f.test, f.pkg)
	cmd.Env = append(cmd.Env, testscale.SizeEnv+"=test", testscale.SeedEnv+"=1", "CAUCE_BIN="+filepath.Join(tree, "bin", "cauce"))
	out, err := cmd.CombinedOutput()
	if strings.Contains(string(out), "no tests to run") {
		return "", "", fmt.Errorf("%s has no test %s", f.pkg, f.test)
	}
	verdict, why = judge(string(out), err != nil)
	if verdict == "" {
		return "", "", fmt.Errorf("%w\n%s", err, out)
	}
	return verdict, why, nil
}

// judge reads what go test -v wrote; failed is whether it ended with an error. The verdict is "" where no test is to
// blame for that. why is the last reason for which a test or a part of one was skipped.
func judge(out string, failed bool) (verdict, why string) {
	if failed {
		if strings.Contains(out, "--- FAIL") || strings.Contains(out, "panic: ") {
			return red, ""
		}
		return "", ""
	}
	verdict = skip
	before := ""
	for line := range strings.Lines(out) {
		switch {
		case strings.HasPrefix(line, "--- PASS: "):
			verdict = green
		case strings.HasPrefix(strings.TrimSpace(line), "--- SKIP: "):
			if why = before; why == "" {
				why = strings.TrimSpace(line)
			}
		}
		before = strings.TrimSpace(line)
	}
	return verdict, why
}

func command(dir, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = os.Environ()
	return cmd
}

// copyTree copies the source, without what git ignores.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			switch d.Name() {
			case ".git", ".cache", ".cauce", "bin", "cauce-demo":
				return fs.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		return copyFile(path, filepath.Join(to, rel))
	})
}

func copyFile(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, info.Mode().Perm())
}
