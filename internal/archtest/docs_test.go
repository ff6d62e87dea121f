package archtest

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

func TestEverythingExportedIsDocumented(t *testing.T) {
	for _, p := range list(t, nil, "-tags", "duckdb_arrow", "./...") {
		rel := strings.TrimPrefix(p.ImportPath, module+"/")
		var files []*ast.File
		fset := token.NewFileSet()
		for _, name := range append(p.GoFiles, p.CgoFiles...) {
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
		if len(files) == 0 { // only tests
			continue
		}
		d, err := doc.NewFromFiles(fset, files, p.ImportPath)
		if err != nil {
			t.Fatal(err)
		}
		want := "Package " + d.Name + " "
		if d.Name == "main" {
			want = "Command "
		}
		if !strings.HasPrefix(d.Doc, want) {
			t.Errorf("%s: the package comment should begin with %q", rel, want)
		}
		if d.Name == "main" { // nobody can import its names
			continue
		}
		for _, name := range undocumented(d) {
			t.Errorf("%s: %s has no comment", rel, name)
		}
	}
}

// undocumented lists the exported names of a package without a comment. One comment may stand for a group of constants
// or variables. Methods that satisfy interfaces everybody knows need none.
func undocumented(d *doc.Package) []string {
	var names []string
	values := func(vs []*doc.Value) {
		for _, v := range vs {
			if v.Doc != "" {
				continue
			}
			for _, spec := range v.Decl.Specs {
				s := spec.(*ast.ValueSpec)
				for _, n := range s.Names {
					if n.IsExported() && s.Doc == nil && s.Comment == nil {
						names = append(names, n.Name)
					}
				}
			}
		}
	}
	funcs := func(fs []*doc.Func) {
		for _, f := range fs {
			if f.Doc == "" && ast.IsExported(f.Name) && !known[f.Name] {
				names = append(names, strings.TrimPrefix(f.Recv+"."+f.Name, "."))
			}
		}
	}
	values(d.Consts)
	values(d.Vars)
	funcs(d.Funcs)
	for _, typ := range d.Types {
		if typ.Doc == "" && ast.IsExported(typ.Name) && !groupDocumented(typ) {
			names = append(names, typ.Name)
		}
		values(typ.Consts)
		values(typ.Vars)
		funcs(typ.Funcs)
		if ast.IsExported(typ.Name) {
			funcs(typ.Methods)
		}
	}
	return names
}

// known are methods whose meaning the standard library gives.
var known = map[string]bool{
	"Error": true, "Unwrap": true, "Is": true, "As": true, "String": true, "Close": true, "Read": true, "Write": true, "Len": true, "Less": true,
	"Swap": true, "MarshalJSON": true, "UnmarshalJSON": true, "MarshalText": true, "UnmarshalText": true, "Format": true,
}

// groupDocumented says that the type stands in a type ( … ) group with a comment, or has one at its line's end.
func groupDocumented(typ *doc.Type) bool {
	for _, spec := range typ.Decl.Specs {
		if s, ok := spec.(*ast.TypeSpec); ok && s.Name.Name == typ.Name {
			return typ.Decl.Doc != nil || s.Doc != nil || s.Comment != nil
		}
	}
	return false
}

func TestUndocumentedFindsThem(t *testing.T) {
	const src = "// Package x is.\npackage x\n\nfunc F() {}\n\n// G does.\nfunc G() {}\n\ntype T struct{}\n\nfunc (T) M() {}\n\nfunc (T) Close() {}\n\nvar V int\n"
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "x.go", src, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	d, err := doc.NewFromFiles(fset, []*ast.File{f}, "x")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(undocumented(d), " "), "V F T T.M"; got != want {
		t.Errorf("undocumented: %q, want %q", got, want)
	}
}
