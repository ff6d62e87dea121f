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
func TestEveryPromiseHasItsProof(t *testing.T) { proved(t, "docs/requirements.md", "not yet", 15) }

// TestEveryCellOfDeltaHasItsProof reads the tables of what Cauce does of Delta Lake, and of the rules that it keeps: each row
// names a test that exists, or says "not offered".
func TestEveryCellOfDeltaHasItsProof(t *testing.T) { proved(t, "docs/delta.md", "not offered", 90) }

// proved demands that each row of a page's tables names a test that exists, or has the word that stands for none.
func proved(t *testing.T, page, without string, least int) {
	t.Helper()
	root := prereq.Root()
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(page)))
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]map[string]bool{}
	rows, head := 0, true
	for i, line := range strings.Split(string(text), "\n") {
		if !strings.HasPrefix(line, "|") {
			head = true
			continue
		}
		if head || strings.HasPrefix(line, "|-") {
			head = false
			continue
		}
		rows++
		named := proof.FindAllStringSubmatch(line, -1)
		if len(named) == 0 && !strings.Contains(line, without) {
			t.Errorf("%s:%d: neither a test nor %q: %s", page, i+1, without, line)
		}
		for _, m := range named {
			if tests[m[1]] == nil {
				tests[m[1]] = testsOf(t, filepath.Join(root, filepath.FromSlash(m[1])))
			}
			if !tests[m[1]][m[2]] {
				t.Errorf("%s:%d: there is no test %s in %s", page, i+1, m[2], m[1])
			}
		}
	}
	if rows < least {
		t.Errorf("%s has %d rows; some are gone", page, rows)
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
