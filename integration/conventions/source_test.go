package conventions

import (
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strings"
	"testing"
)

// vouching is who may state that a caller is authenticated, and how often: the
// authority's check of itself, authenticators, the secret controller, and the
// benchmark of signatures.
var vouching = map[string]int{"ca": 1, "ca/authn": 8, "secretcontroller": 1, "integration/bench": 1}

func TestWhoMakesACaller(t *testing.T) {
	made := map[string]int{}
	each(t, func(f file) bool { return !f.test }, func(f file) {
		n := len(f.uses(module+"/ca", "NewCaller"))
		if f.path() == "ca" {
			ast.Inspect(f.ast, func(node ast.Node) bool {
				if call, ok := node.(*ast.CallExpr); ok {
					if name, ok := call.Fun.(*ast.Ident); ok && name.Name == "NewCaller" {
						n++
					}
				}
				return true
			})
		}
		made[f.path()] += n
	})
	for who, n := range made {
		if n > vouching[who] {
			t.Errorf("%s makes a ca.Caller in %d places, %d are allowed", who, n, vouching[who])
		}
	}
	if made["ca"] != 1 || made["secretcontroller"] != 1 {
		t.Errorf("made by %v: this test does not see what it must", made)
	}
}

// TestPackageComments: each package says what it is for.
func TestPackageComments(t *testing.T) {
	said := map[string]string{}
	for _, f := range must(t, files) {
		if doc := f.ast.Doc.Text(); doc != "" && (!f.test || len(f.GoFiles) == 0) {
			said[f.path()] += doc
		}
	}
	for _, p := range must(t, packages) {
		want := "Package " + p.Name + " "
		if p.Name == "main" {
			want = "Command " + path.Base(p.path()) + " "
		}
		if generated(p.path()) {
			continue
		}
		if len(p.GoFiles) > 0 && !strings.HasPrefix(said[p.path()], want) {
			t.Errorf("%s has no comment that begins %q: %.40q", p.path(), want, said[p.path()])
		}
		if len(p.GoFiles) == 0 && said[p.path()] == "" {
			t.Errorf("%s has no comment that says what its tests are for", p.path())
		}
	}
}

// TestExportedAreDocumented: every exported identifier outside tests, and its
// comment begins with its name, if it has one of its own.
func TestExportedAreDocumented(t *testing.T) {
	each(t, func(f file) bool { return !f.test && !ast.IsGenerated(f.ast) }, func(f file) {
		for _, decl := range f.ast.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && exportedReceiver(d) && d.Doc.Text() == "" {
					t.Errorf("%s:%d: %s has no comment", f.name, f.line(d.Pos()), d.Name.Name)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					for _, name := range undocumented(d, spec) {
						t.Errorf("%s:%d: %s has no comment", f.name, f.line(spec.Pos()), name)
					}
				}
			}
		}
	})
}

// exportedReceiver is true for functions, and for methods that others can see.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	typ := d.Recv.List[0].Type
	for {
		switch t := typ.(type) {
		case *ast.StarExpr:
			typ = t.X
		case *ast.IndexExpr:
			typ = t.X
		case *ast.IndexListExpr:
			typ = t.X
		case *ast.Ident:
			return t.IsExported()
		default:
			return true
		}
	}
}

// undocumented returns the exported names of a declaration without a comment
// of their own, beside them, or above their group.
func undocumented(d *ast.GenDecl, spec ast.Spec) []string {
	var names []string
	switch s := spec.(type) {
	case *ast.TypeSpec:
		if s.Name.IsExported() && d.Doc.Text()+s.Doc.Text()+s.Comment.Text() == "" {
			names = append(names, s.Name.Name)
		}
	case *ast.ValueSpec:
		for _, name := range s.Names {
			if name.IsExported() && d.Doc.Text()+s.Doc.Text()+s.Comment.Text() == "" {
				names = append(names, name.Name)
			}
		}
	}
	return names
}

// TestOnlyMainExits: a library returns.
func TestOnlyMainExits(t *testing.T) {
	each(t, func(f file) bool { return !f.test }, func(f file) {
		var main ast.Node
		for _, decl := range f.ast.Decls {
			if d, ok := decl.(*ast.FuncDecl); ok && f.Name == "main" && d.Recv == nil && d.Name.Name == "main" {
				main = d
			}
		}
		for _, pos := range f.uses("os", "Exit") {
			if main == nil || pos < main.Pos() || pos > main.End() {
				t.Errorf("%s:%d ends the process: only main may", f.name, f.line(pos))
			}
		}
		for _, pos := range f.uses("log", "Fatal", "Fatalf", "Fatalln", "Panic", "Panicf", "Panicln") {
			t.Errorf("%s:%d ends the process: return an error", f.name, f.line(pos))
		}
		if f.product() {
			for _, call := range callsOf(f, "panic") {
				t.Errorf("%s:%d panics: return an error", f.name, f.line(call))
			}
		}
	})
}

func callsOf(f file, name string) []token.Pos {
	var found []token.Pos
	ast.Inspect(f.ast, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			if ident, ok := call.Fun.(*ast.Ident); ok && ident.Name == name {
				found = append(found, call.Pos())
			}
		}
		return true
	})
	return found
}

// TestNoInit: nothing happens by being imported.
func TestNoInit(t *testing.T) {
	each(t, productCode, func(f file) {
		for _, decl := range f.ast.Decls {
			if d, ok := decl.(*ast.FuncDecl); ok && d.Recv == nil && d.Name.Name == "init" {
				t.Errorf("%s:%d has a function init", f.name, f.line(d.Pos()))
			}
		}
	})
}

// TestNoSkips: a test that does not run is none.
func TestNoSkips(t *testing.T) {
	each(t, func(f file) bool { return f.test }, func(f file) {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if s, ok := call.Fun.(*ast.SelectorExpr); ok && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, s.Sel.Name) {
				t.Errorf("%s:%d skips a test", f.name, f.line(call.Pos()))
			}
			return true
		})
	})
}

// TestNoSleeps: a test of one process waits for an event, or for the time of a
// synctest bubble, which costs nothing. Tests of several, below integration,
// have to poll them.
func TestNoSleeps(t *testing.T) {
	each(t, func(f file) bool { return f.test && !under(f.path(), "integration") }, func(f file) {
		for _, spec := range f.ast.Imports {
			if spec.Path.Value == `"testing/synctest"` {
				return
			}
		}
		for _, pos := range f.uses("time", "Sleep") {
			t.Errorf("%s:%d sleeps", f.name, f.line(pos))
		}
	})
}

// TestSize: where a function or file grows past this, ask what it hides.
func TestSize(t *testing.T) {
	const functionLines, fileLines = 80, 400
	each(t, func(f file) bool { return !f.test && !ast.IsGenerated(f.ast) }, func(f file) {
		for _, decl := range f.ast.Decls {
			if d, ok := decl.(*ast.FuncDecl); ok {
				if n := f.line(d.End()) - f.line(d.Pos()) + 1; n > functionLines {
					t.Errorf("%s:%d: %s has %d lines", f.name, f.line(d.Pos()), d.Name.Name, n)
				}
			}
		}
		if n := f.line(f.ast.FileEnd); f.product() && n > fileLines {
			t.Errorf("%s has %d lines", f.name, n)
		}
	})
}
