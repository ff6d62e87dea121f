package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/cauce-data/cauce/internal/prereq"
)

// proof is a test as docs/requirements.md names it: `delta.TestMerge`. test/run has the same pattern, to demand that it
// ran.
var proof = regexp.MustCompile("`([a-z][a-z0-9_/]*)\\.((?:Test|Fuzz|Example)[A-Za-z0-9_]*)`")

// TestEveryPromiseHasItsProof reads the table of promises: each row names a test that exists, or says "not yet".
func TestEveryPromiseHasItsProof(t *testing.T) {
	root := prereq.Root()
	text, err := os.ReadFile(filepath.Join(root, "docs", "requirements.md"))
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]map[string]bool{}
	rows := 0
	for i, line := range strings.Split(string(text), "\n") {
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|-") || strings.HasPrefix(line, "| promise") {
			continue
		}
		rows++
		named := proof.FindAllStringSubmatch(line, -1)
		if len(named) == 0 && !strings.Contains(line, "not yet") {
			t.Errorf("docs/requirements.md:%d: neither a test nor \"not yet\": %s", i+1, line)
		}
		for _, m := range named {
			if tests[m[1]] == nil {
				tests[m[1]] = testsOf(t, filepath.Join(root, filepath.FromSlash(m[1])))
			}
			if !tests[m[1]][m[2]] {
				t.Errorf("docs/requirements.md:%d: there is no test %s in %s", i+1, m[2], m[1])
			}
		}
	}
	if rows < 15 {
		t.Errorf("docs/requirements.md has %d promises; some are gone", rows)
	}
}

// testsOf lists the test functions of a folder.
func testsOf(t *testing.T, dir string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, path := range files {
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil {
				names[fn.Name.Name] = true
			}
		}
	}
	return names
}
