package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/internal/testscale"
)

// TestDocumentationBlocksRun runs the shell blocks of every document, block after block in an empty folder of its own.
// Blocks marked "sh set-up" (installation, other programs) are left out, and those marked "sh python" where the Python of the
// tests is missing.
func TestDocumentationBlocksRun(t *testing.T) {
	t.Parallel()
	root := prereq.Root()
	docs, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"README.md", "README.es.md", "ARCHITECTURE.md"} {
		docs = append(docs, filepath.Join(root, name))
	}
	python, pythonErr := prereq.Lookup("venv")
	ran := 0
	if testscale.Current() == testscale.Short {
		docs = []string{filepath.Join(root, "README.md"), filepath.Join(root, "docs", "scheduling.md")}
	}
	for _, doc := range docs {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		script, blocks := shellBlocks(string(text), pythonErr == nil)
		if blocks == 0 {
			continue
		}
		ran++
		t.Run(filepath.Base(doc), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", freePorts(t, script))
			cmd.Dir = t.TempDir()
			cmd.Env = append(os.Environ(), "CAUCE_ROOT=")
			if pythonErr == nil {
				cmd.Env = append(cmd.Env, "PATH="+filepath.Dir(python)+":"+os.Getenv("PATH"))
			}
			cmd.WaitDelay = 10 * time.Second
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			} else if testing.Verbose() {
				t.Logf("%s", out)
			}
		})
	}
	if ran < 2 {
		t.Errorf("only %d documents have shell blocks", ran)
	}
}

// shellBlocks joins the blocks of a document into one script that says which block it is in.
func shellBlocks(text string, python bool) (script string, blocks int) {
	var b strings.Builder
	inside := false
	for i, line := range strings.Split(text, "\n") {
		switch {
		case !inside && (strings.TrimRight(line, " ") == "```sh" || python && line == "```sh python"):
			inside = true
			blocks++
			fmt.Fprintf(&b, "echo '-- block at line %d'\n", i+1)
		case inside && strings.HasPrefix(line, "```"):
			inside = false
		case inside:
			b.WriteString(line + "\n")
		}
	}
	return b.String(), blocks
}

// TestSpanishReadmeHasTheSameTour compares the shell blocks of the two READMEs, comments and texts for people aside.
func TestSpanishReadmeHasTheSameTour(t *testing.T) {
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(prereq.Root(), name))
		if err != nil {
			t.Fatal(err)
		}
		script, _ := shellBlocks(string(text), true)
		var lines []string
		for _, l := range strings.Split(script, "\n") {
			if !strings.HasPrefix(l, "echo '-- block") {
				lines = append(lines, l)
			}
		}
		return strings.Join(lines, "\n")
	}
	if en, es := read("README.md"), read("README.es.md"); en != es {
		t.Errorf("the tours differ\n--- README.md\n%s\n--- README.es.md\n%s", en, es)
	}
}

func TestReadmesBeginWithTheTwoCommands(t *testing.T) {
	for _, name := range []string{"README.md", "README.es.md"} {
		text, err := os.ReadFile(filepath.Join(prereq.Root(), name))
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.SplitN(string(text), "\n", 4)
		if len(lines) < 3 || !strings.HasPrefix(lines[1], "make demo") || !strings.HasPrefix(lines[2], "make test") {
			t.Errorf("%s begins with %q", name, lines[:3])
		}
	}
}
