package infra

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/test/lab"
)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(prereq.Root(), filepath.FromSlash(path)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// match is the first group of a pattern in a text.
func match(t *testing.T, text, pattern string) string {
	t.Helper()
	m := regexp.MustCompile("(?m)" + pattern).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("nothing matches %s", pattern)
	}
	return m[1]
}

// TestContainerFile: it builds what `make build` builds, with the Go that go.mod asks for, and what it starts exists. No
// container is built here.
func TestContainerFile(t *testing.T) {
	file := read(t, "deploy/container/Dockerfile")
	if got, want := match(t, file, `^FROM golang:(\d+\.\d+)`), match(t, read(t, "go.mod"), `^go (\d+\.\d+)`); got != want {
		t.Errorf("it builds with Go %s, go.mod wants %s", got, want)
	}
	if got, want := match(t, file, `-tags (\S+)`), match(t, read(t, "Makefile"), `^GOTAGS  := (\S+)`); got != want {
		t.Errorf("it builds with the tags %s, make with %s", got, want)
	}
	if user := match(t, file, `^USER (\S+)`); user == "root" || user == "0" {
		t.Errorf("it runs as %s", user)
	}
	args := strings.Split(strings.ReplaceAll(match(t, file, `^CMD \[(.*)\]$`), `"`, ""), ", ")
	lab.NewLake(t).Run(append(args, "--help")...)
	ignored := "\n" + read(t, ".dockerignore")
	for _, d := range []string{".git", ".cache", ".cauce", "bin"} {
		if !strings.Contains(ignored, "\n"+d+"\n") {
			t.Errorf(".dockerignore lets %s in", d)
		}
	}
}

// TestUnitOfSystemd: systemd takes the unit, finds it well shut in, and what it starts exists.
func TestUnitOfSystemd(t *testing.T) {
	analyze := prereq.Need(t, "systemd")
	unit := read(t, "deploy/systemd/cauce.service")
	command := strings.Fields(match(t, unit, `^ExecStart=(.*)$`))
	lab.NewLake(t).Run(append(command[1:], "--help")...)

	// The program is not installed where the unit has it, and there is no such user.
	dir := t.TempDir()
	path := filepath.Join(dir, "cauce.service")
	there := strings.NewReplacer(command[0], "/bin/true", "User=cauce\nGroup=cauce\n", "").Replace(unit)
	if err := os.WriteFile(path, []byte(there), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(analyze, "verify", "--man=no", path).CombinedOutput()
	if err != nil || strings.Contains(string(out), "cauce.service:") {
		t.Errorf("systemd-analyze verify: %v: %s", err, out)
	}
	out, err = exec.Command(analyze, "security", "--offline=true", "--no-pager", path).CombinedOutput()
	if err != nil {
		t.Fatalf("systemd-analyze security: %v: %s", err, out)
	}
	exposure, err := strconv.ParseFloat(match(t, string(out), `exposure level for \S+: ([0-9.]+)`), 64)
	if err != nil || exposure > 3 {
		t.Errorf("exposure %v (%v), want 3 of 10 at most", exposure, err)
	}
}
