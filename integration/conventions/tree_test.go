package conventions

import (
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// topLevel is all that may stand at the top of the repository.
var topLevel = strings.Fields(`ca nodeagent secretcontroller proto cmd systemd deploy integration go.mod go.sum Makefile
	README.md ARCHITECTURE.md CHANGELOG.md CONTRIBUTING.md SECURITY.md LICENSE .ci .gitignore .gitattributes .golangci.yml`)

func TestTopLevel(t *testing.T) {
	names := top(t, must(t, root))
	for _, name := range names {
		if !slices.Contains(topLevel, name) {
			t.Errorf("%s stands at the top level", name)
		}
	}
	for _, name := range []string{"ca", "cmd", "go.mod"} {
		if !slices.Contains(names, name) {
			t.Errorf("%s is not seen: this test looks at the wrong folder", name)
		}
	}
}

// top is what git knows of at the top level or would take in, else what is
// there but for build results.
func top(t *testing.T, dir string) []string {
	t.Helper()
	git := exec.Command("git", "ls-files", "--cached", "--others", "--exclude-standard")
	git.Dir = dir
	out, err := git.Output()
	if _, isRepository := os.Stat(filepath.Join(dir, ".git")); isRepository != nil || err != nil {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			if e.Name() != "bin" && e.Name() != ".git" {
				names = append(names, e.Name())
			}
		}
		return names
	}
	var names []string
	for file := range strings.Lines(string(out)) {
		name, _, _ := strings.Cut(strings.TrimSpace(file), "/")
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// version is the last part of a protobuf package's name.
var version = regexp.MustCompile(`^v[0-9]`)

// TestPackageNames: a name says what is inside; and no two are alike.
func TestPackageNames(t *testing.T) {
	seen := map[string]string{}
	for _, p := range must(t, packages) {
		name := path.Base(p.path())
		if version.MatchString(name) {
			name = path.Join(path.Base(path.Dir(p.path())), name)
		}
		if slices.Contains([]string{"util", "utils", "common", "helper", "helpers", "types", "base", "misc", "shared", "pkg", "mock", "mocks"}, name) {
			t.Errorf("%s: the name says nothing", p.path())
		}
		if other, twice := seen[name]; twice {
			t.Errorf("%s and %s have one name", other, p.path())
		}
		seen[name] = p.path()
	}
}
