package conventions

import (
	"slices"
	"strings"
	"testing"
)

// mayImport is the import rule: which of our packages each one may import. A
// name that ends in "/..." stands for all below it.
var mayImport = map[string][]string{
	"ca/trust":            {},
	"ca":                  {"ca/trust"},
	"ca/catest":           {"ca", "ca/trust"},
	"ca/policy":           {},
	"ca/regular":          {},
	"ca/policyfeed":       {"ca/policy"},
	"ca/authn":            {"ca", "ca/trust"},
	"ca/caserver":         {"ca", "ca/authn", "ca/policy", "ca/policyfeed", "ca/trust", "proto/..."},
	"ca/caclient":         {"ca/policy", "ca/policyfeed", "ca/trust", "proto/..."},
	"ca/kube":             {"ca", "ca/authn", "ca/policy", "ca/policyfeed", "ca/regular", "ca/trust"},
	"ca/statedir":         {"ca", "ca/authn", "ca/policy", "ca/policyfeed", "ca/trust"},
	"secretcontroller":    {"ca", "ca/trust"},
	"nodeagent/...":       {"ca/caclient", "ca/trust", "ca/policy", "ca/policyfeed", "ca/regular", "nodeagent/...", "proto/..."},
	"proto/...":           {},
	"cmd/internal/daemon": {"ca/regular"},
	"cmd/...":             {"ca/...", "secretcontroller", "nodeagent/...", "proto/...", "cmd/internal/..."},
	"cmd/citadelctl/...":  {"ca/...", "secretcontroller", "nodeagent/...", "proto/...", "cmd/internal/...", "cmd/citadelctl/..."},
	"deploy/...":          {},
	"integration/...":     {"ca/...", "secretcontroller", "nodeagent/...", "proto/...", "integration/..."},
}

// rule finds what a package may import: by its own name, else by the longest
// that stands for it.
func rule(path string) ([]string, bool) {
	if allowed, ok := mayImport[path]; ok {
		return allowed, true
	}
	for dir := path; dir != ""; {
		if allowed, ok := mayImport[dir+"/..."]; ok {
			return allowed, true
		}
		i := strings.LastIndexByte(dir, '/')
		dir = dir[:max(i, 0)]
	}
	return nil, false
}

func covers(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		dir, all := strings.CutSuffix(p, "/...")
		return path == dir || all && under(path, dir)
	})
}

func TestImportRule(t *testing.T) {
	for _, p := range must(t, packages) {
		allowed, known := rule(p.path())
		if !known {
			t.Errorf("%s has no place in the import rule: give it one", p.path())
			continue
		}
		for _, imported := range p.Imports {
			if path, ours := strings.CutPrefix(imported, module+"/"); ours && !covers(allowed, path) {
				t.Errorf("%s must not import %s", p.path(), path)
			}
		}
	}
}

// TestNothingImportsCommandsOrIntegration, not even a test.
func TestNothingImportsCommandsOrIntegration(t *testing.T) {
	for _, p := range must(t, packages) {
		for _, imported := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			path := strings.TrimPrefix(imported, module+"/")
			for _, dir := range []string{"cmd", "integration"} {
				if path != imported && under(path, dir) && !under(p.path(), dir) {
					t.Errorf("%s must not import %s", p.path(), path)
				}
			}
		}
	}
}

func TestImportRuleKnowsItsWay(t *testing.T) {
	for path, c := range map[string]struct{ may, mayNot string }{
		"ca":                    {"ca/trust", "ca/kube"},
		"ca/kube":               {"ca/authn", "ca/kube/x"},
		"ca/statedir":           {"ca/authn", "ca/kube"},
		"nodeagent/sds":         {"nodeagent", "ca"},
		"cmd/citadel":           {"ca/kube", "integration/cluster"},
		"cmd/internal/daemon":   {"", "ca/trust"},
		"integration/run":       {"integration/cluster", "cmd/citadel"},
		"proto/citadel/v1":      {"", "ca"},
		"secretcontroller":      {"ca", "ca/kube"},
		"nodeagent/workloadapi": {"ca/policy", "secretcontroller"},
	} {
		allowed, known := rule(path)
		if !known || c.may != "" && !covers(allowed, c.may) || covers(allowed, c.mayNot) {
			t.Errorf("%s: known %v, may import %q", path, known, allowed)
		}
	}
	if _, known := rule("util"); known {
		t.Error("a package at the top level has a place")
	}
}

// pure packages get the world as values: no I/O, no clock, no logs.
var pure = []string{"ca", "ca/trust", "ca/policy"}

// impure is what they do not import; net/url and net/netip only parse.
func impure(path string) bool {
	if path == "net/url" || path == "net/netip" {
		return false
	}
	return under(path, "os", "net", "log", "syscall", "io/ioutil", "plugin", "runtime/debug", "testing",
		"golang.org/x/sys", "google.golang.org/grpc", "k8s.io/client-go", "k8s.io/klog", "github.com/prometheus", "github.com/spf13")
}

func TestPurePackages(t *testing.T) {
	seen := 0
	for _, p := range must(t, packages) {
		if !slices.Contains(pure, p.path()) {
			continue
		}
		seen++
		for _, imported := range p.Imports {
			if impure(imported) {
				t.Errorf("%s must not import %s", p.path(), imported)
			}
		}
	}
	if seen < 2 {
		t.Errorf("%d pure packages", seen)
	}
	each(t, func(f file) bool { return !f.test && slices.Contains(pure, f.path()) }, func(f file) {
		clock := []string{"Now", "Since", "Until", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "Sleep", "Local", "LoadLocation"}
		for _, pos := range f.uses("time", clock...) {
			t.Errorf("%s:%d reads a clock: let the caller hand in the time", f.name, f.line(pos))
		}
	})
}

// TestWhatIsNeverLinked: the agent and the client work where no signer and no
// Kubernetes is.
func TestWhatIsNeverLinked(t *testing.T) {
	for _, p := range must(t, packages) {
		if !under(p.path(), "ca/caclient", "nodeagent", "cmd/node_agent", "ca/trust") {
			continue
		}
		deps, err := list("-deps", p.ImportPath)
		if err != nil {
			t.Fatal(err)
		}
		for dep := range strings.FieldsSeq(string(deps)) {
			if under(dep, "github.com/cloudflare/cfssl", "k8s.io/client-go") {
				t.Errorf("%s links %s", p.path(), dep)
			}
		}
	}
}
