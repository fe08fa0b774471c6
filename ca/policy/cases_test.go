package policy

import (
	"os"
	"path/filepath"
	"testing"
)

func readCases(t *testing.T, file string) *Cases {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	cases, err := DecodeCases(file, text)
	if err != nil {
		t.Fatal(err)
	}
	return cases
}

// least is how many cases a file must hold: a test of none says nothing.
var least = map[string]int{"testdata/cases.yaml": 238 + 61, "testdata/own.yaml": 30}

func TestCases(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, file := range files {
		cases := readCases(t, file)
		if n := len(cases.Resolve) + len(cases.Validate); n < least[file] || n == 0 {
			t.Errorf("%s holds %d cases, %d are expected", file, n, least[file])
		}
		for i := range cases.Resolve {
			c := &cases.Resolve[i]
			report(t, seen, c.Name, c.Failures())
		}
		for i := range cases.Validate {
			report(t, seen, cases.Validate[i].Name, cases.Validate[i].Failures())
		}
	}
}

func report(t *testing.T, seen map[string]bool, name string, failures []string) {
	t.Helper()
	if seen[name] {
		t.Errorf("two cases are called %s", name)
	}
	seen[name] = true
	for _, failure := range failures {
		t.Errorf("%s: %s", name, failure)
	}
}
