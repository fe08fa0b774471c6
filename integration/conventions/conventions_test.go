// Package conventions holds the repository to its own rules: who may import
// whom, what the pure packages leave alone, what every file and identifier
// must have, and what stands at the top level. It looks at source text alone,
// and refuses to have exceptions that are not written down here.
package conventions

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

const module = "citadel"

// pkg is one package of the module, as go list tells of it.
type pkg struct {
	ImportPath, Name, Dir                                        string
	GoFiles, CgoFiles, IgnoredGoFiles, TestGoFiles, XTestGoFiles []string
	Imports, TestImports, XTestImports                           []string
}

// path is the package's without the module's: "ca/trust".
func (p pkg) path() string { return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/") }

// product tells what is delivered from what tries it out.
func (p pkg) product() bool { return !under(p.path(), "integration") && p.path() != "ca/catest" }

// under tells whether path is dir or below it.
func under(path string, dirs ...string) bool {
	for _, dir := range dirs {
		if path == dir || strings.HasPrefix(path, dir+"/") {
			return true
		}
	}
	return false
}

// file is one parsed source file.
type file struct {
	pkg
	name string // path from the root
	test bool
	ast  *ast.File
	set  *token.FileSet
}

func (f file) line(pos token.Pos) int { return f.set.Position(pos).Line }

// root is the module's folder.
var root = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	return strings.TrimSpace(string(out)), err
})

var packages = sync.OnceValues(func() ([]pkg, error) {
	out, err := list("-json", "./...")
	if err != nil {
		return nil, err
	}
	var all []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
})

var files = sync.OnceValues(func() ([]file, error) {
	dir, err := root()
	if err != nil {
		return nil, err
	}
	all, err := packages()
	if err != nil {
		return nil, err
	}
	var out []file
	for _, p := range all {
		for i, names := range [][]string{p.GoFiles, p.CgoFiles, p.IgnoredGoFiles, p.TestGoFiles, p.XTestGoFiles} {
			for _, name := range names {
				f := file{pkg: p, test: i > 2 || strings.HasSuffix(name, "_test.go"), set: token.NewFileSet()}
				if f.ast, err = parser.ParseFile(f.set, filepath.Join(p.Dir, name), nil, parser.ParseComments); err != nil {
					return nil, err
				}
				if f.name, err = filepath.Rel(dir, filepath.Join(p.Dir, name)); err != nil {
					return nil, err
				}
				out = append(out, f)
			}
		}
	}
	return out, nil
})

// list runs go list in the module's folder.
func list(args ...string) ([]byte, error) {
	dir, err := root()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	return cmd.Output()
}

func must[T any](t *testing.T, load func() (T, error)) T {
	t.Helper()
	v, err := load()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// each calls f for every source file that is meant, and insists that there are
// some: a rule that looks at nothing holds nobody to anything.
func each(t *testing.T, meant func(file) bool, f func(file)) {
	t.Helper()
	n := 0
	for _, file := range must(t, files) {
		if meant(file) {
			f(file)
			n++
		}
	}
	if n < 3 {
		t.Errorf("%d files were looked at", n)
	}
}

func productCode(f file) bool { return f.product() && !f.test && !generated(f.path()) }

// generated tells whether a package is made from another language.
func generated(path string) bool { return under(path, "proto") }

// calls finds the calls and other uses of pkg.name, by the import's own name
// in the file.
func (f file) uses(importPath string, names ...string) []token.Pos {
	local := ""
	for _, spec := range f.ast.Imports {
		if strings.Trim(spec.Path.Value, `"`) == importPath {
			if local = importPath[strings.LastIndexByte(importPath, '/')+1:]; spec.Name != nil {
				local = spec.Name.Name
			}
		}
	}
	var found []token.Pos
	ast.Inspect(f.ast, func(n ast.Node) bool {
		selector, ok := n.(*ast.SelectorExpr)
		if !ok || local == "" {
			return true
		}
		if x, ok := selector.X.(*ast.Ident); !ok || x.Name != local {
			return true
		}
		for _, name := range names {
			if selector.Sel.Name == name {
				found = append(found, selector.Pos())
			}
		}
		return true
	})
	return found
}
