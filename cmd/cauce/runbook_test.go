package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cauce-data/cauce/internal/prereq"
)

// A runbookSection is a section of the runbook in docs/operations.md: what it types and what it says will be answered.
type runbookSection struct {
	name   string
	blocks [][]string // lines of the console blocks
}

// runbook reads the sections below "## When something goes wrong".
func runbook(t *testing.T) map[string]*runbookSection {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(prereq.Root(), "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, part, ok := strings.Cut(string(text), "\n## When something goes wrong\n")
	if !ok {
		t.Fatal("docs/operations.md has no runbook")
	}
	if i := strings.Index(part, "\n## "); i >= 0 {
		part = part[:i]
	}
	out := map[string]*runbookSection{}
	for _, s := range strings.Split(part, "\n### ")[1:] {
		head, body, _ := strings.Cut(s, "\n")
		sec := &runbookSection{name: strings.ReplaceAll(strings.ToLower(strings.TrimSpace(head)), " ", "-")}
		for _, b := range strings.Split(body, "\n```console\n")[1:] {
			b, _, _ = strings.Cut(b, "\n```")
			sec.blocks = append(sec.blocks, strings.Split(b, "\n"))
		}
		out[sec.name] = sec
	}
	return out
}

// TestRunbook types the commands of each section of the runbook, after testdata/runbook has made what is wrong, and
// compares what is answered with what the section says. "…" stands for any text, alone on a line for any lines.
func TestRunbook(t *testing.T) {
	t.Parallel()
	sections := runbook(t)
	files, err := filepath.Glob("testdata/runbook/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]bool{}
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".txtar")
		told[name] = true
		if sections[name] == nil {
			t.Errorf("%s belongs to no section of the runbook", f)
		}
	}
	for name, s := range sections {
		if !told[name] || len(s.blocks) == 0 {
			t.Errorf("section %s of the runbook is not tried, or shows no command", name)
		}
	}
	if len(sections) < 7 {
		t.Errorf("the runbook has %d sections", len(sections))
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/runbook",
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"waitfor": scriptWaitFor,
			// runbook SECTION N [INIT]: types the N-th block (from 1) of a section, each command in a shell that runs INIT first.
			"runbook": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) < 2 || len(args) > 3 {
					ts.Fatalf("usage: runbook SECTION N [INIT]")
				}
				s := sections[args[0]]
				n := strings.Index("123456789", args[1])
				if s == nil || n < 0 || n >= len(s.blocks) {
					ts.Fatalf("the runbook has no block %s of %s", args[1], args[0])
				}
				init := ""
				if len(args) == 3 {
					init = args[2] + "\n"
				}
				typeBlock(ts, s.blocks[n], init)
			},
		},
	})
}

func typeBlock(ts *testscript.TestScript, lines []string, init string) {
	for i := 0; i < len(lines); {
		command, ok := strings.CutPrefix(lines[i], "$ ")
		if !ok {
			ts.Fatalf("a console block begins with %q, not with a command", lines[i])
		}
		var want []string
		for i++; i < len(lines) && !strings.HasPrefix(lines[i], "$ "); i++ {
			want = append(want, lines[i])
		}
		// A code that is not 0 is part of what a block shows, by echo $?.
		err := ts.Exec("bash", "-c", init+"{ "+command+"\n} 2>&1")
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			ts.Fatalf("%s: %v", command, err)
		}
		got := strings.TrimRight(ts.ReadFile("stdout"), "\n")
		if re := answer(want); !re.MatchString(got) {
			ts.Fatalf("$ %s\nanswers\n%s\nthe runbook says\n%s", command, got, strings.Join(want, "\n"))
		}
	}
}

// answer makes a regular expression of what a block shows.
func answer(want []string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`^`)
	for i, l := range want {
		switch {
		case l == "…" && i == len(want)-1:
			b.WriteString(`(?s:(?:\n.*)?)`)
		case l == "…":
			if i > 0 {
				b.WriteString(`\n`)
			}
			b.WriteString(`(?s:(?:.*\n)?)`)
		default:
			if i > 0 && want[i-1] != "…" {
				b.WriteString(`\n`)
			}
			b.WriteString(strings.ReplaceAll(regexp.QuoteMeta(l), "…", `.*`))
		}
	}
	return regexp.MustCompile(b.String() + `$`)
}
