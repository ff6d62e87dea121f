package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cauce-data/cauce/internal/prereq"
)

// TestPrerequisitesListWhatTheySwitchOff compares test/prerequisites.txt with the calls of prereq.Need: a test that
// needs something, itself or through a helper of its package, stands below it, and nothing else does. Without this a
// machine that lacks the thing would be the first to find out.
func TestPrerequisitesListWhatTheySwitchOff(t *testing.T) {
	root := prereq.Root()
	want := map[string]bool{}
	folders := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "bin"):
			return filepath.SkipDir
		case strings.HasSuffix(path, "_test.go"):
			folders[filepath.Dir(path)] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	helpers := helperNeeds(t, root)
	if helpers["kafkatest.New"]["kafka"] == false {
		t.Errorf("what the helpers of tests ask for is not found: %v", helpers)
	}
	for dir := range folders {
		rel, err := filepath.Rel(root, dir)
		if err != nil {
			t.Fatal(err)
		}
		for test, names := range needs(t, dir, helpers) {
			for name := range names {
				want[name+": "+filepath.ToSlash(rel)+" "+test] = true
			}
		}
	}
	text, err := os.ReadFile(filepath.Join(root, "test", "prerequisites.txt"))
	if err != nil {
		t.Fatal(err)
	}
	have, name := map[string]bool{}, ""
	for _, line := range strings.Split(string(text), "\n") {
		switch {
		case strings.TrimSpace(line) == "", strings.HasPrefix(line, "#"):
		case line[0] == ' ' || line[0] == '\t':
			have[name+": "+strings.Join(strings.Fields(line), " ")] = true
		default:
			name, _, _ = strings.Cut(line, ":")
		}
	}
	for _, w := range slices.Sorted(maps.Keys(want)) {
		if !have[w] {
			t.Errorf("test/prerequisites.txt lacks %q", w)
		}
	}
	for _, h := range slices.Sorted(maps.Keys(have)) {
		if !want[h] {
			t.Errorf("test/prerequisites.txt has %q, but no such test asks for it", h)
		}
	}
	if len(want) < 9 {
		t.Errorf("only %d needs found", len(want))
	}
}

// helperNeeds gives what the functions of the packages below internal/ that serve tests ask for, as "package.Function".
func helperNeeds(t *testing.T, root string) map[string]map[string]bool {
	t.Helper()
	out := map[string]map[string]bool{}
	dirs, err := filepath.Glob(filepath.Join(root, "internal", "*test"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		for fn, names := range asked(t, dir, nil) {
			if len(names) > 0 {
				out[filepath.Base(dir)+"."+fn] = names
			}
		}
	}
	return out
}

// needs gives for each test of a folder the prerequisites that it and the functions it calls by name ask for.
func needs(t *testing.T, dir string, helpers map[string]map[string]bool) map[string]map[string]bool {
	t.Helper()
	asks := asked(t, dir, helpers)
	for who := range asks {
		if !strings.HasPrefix(who, "Test") && !strings.HasPrefix(who, "Fuzz") && !strings.HasPrefix(who, "Example") {
			delete(asks, who)
		}
	}
	return asks
}

// asked gives for each function of a folder the prerequisites that it and the functions it calls ask for.
func asked(t *testing.T, dir string, helpers map[string]map[string]bool) map[string]map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	asks, calls := map[string]map[string]bool{}, map[string][]string{}
	for _, path := range files {
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			who := fn.Name.Name
			if asks[who] == nil {
				asks[who] = map[string]bool{}
			}
			ast.Inspect(fn.Body, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				switch fun := call.Fun.(type) {
				case *ast.Ident:
					calls[who] = append(calls[who], fun.Name)
				case *ast.SelectorExpr:
					if x, ok := fun.X.(*ast.Ident); ok && x.Name == "kafkatest" && fun.Sel.Name == "New" {
						asks[who]["java"], asks[who]["kafka"] = true, true // it asks for them in the test's name
						break
					}
					if x, ok := fun.X.(*ast.Ident); !ok || x.Name != "prereq" || fun.Sel.Name != "Need" {
						if ok {
							for name := range helpers[x.Name+"."+fun.Sel.Name] {
								asks[who][name] = true
							}
						}
						calls[who] = append(calls[who], fun.Sel.Name)
						break
					}
					lit, ok := call.Args[1].(*ast.BasicLit)
					if !ok {
						t.Errorf("%s: the name that %s gives to prereq.Need is no constant text", path, who)
						break
					}
					name, err := strconv.Unquote(lit.Value)
					if err != nil {
						t.Fatal(err)
					}
					asks[who][name] = true
				}
				return true
			})
		}
	}
	for changed := true; changed; {
		changed = false
		for who, callees := range calls {
			for _, c := range callees {
				for name := range asks[c] {
					if !asks[who][name] {
						asks[who][name], changed = true, true
					}
				}
			}
		}
	}
	return asks
}
